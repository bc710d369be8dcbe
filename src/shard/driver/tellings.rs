//! Telling an operator why clients are not served, or not as they asked: a few lines for each address in a
//! while, and how many more there were.

use crate::engine::bridge;
use crate::engine::codec::Reason;
use crate::engine::telemetry::notes::{Event, Gone};
use crate::shard::account::Entry;
use crate::shard::addresses::Addresses;
use crate::shard::peer::Peer;
use crate::shard::transport::setup::key_of;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracing::{Level, debug, enabled, info};

/// How long the lines of an address are counted together.
const INTERVAL: Duration = Duration::from_secs(10);
/// Lines for one address in that time.
const LINES_MAX: u32 = 3;
/// Addresses that are counted in that time; all others are counted together.
const ADDRESSES_MAX: usize = 1_000;
/// Of these, from one network: 16 bits of an IPv4 address, 32 of an IPv6 address.
const OF_NETWORK_MAX: usize = ADDRESSES_MAX / 4;

/// What was said, and what was not.
#[derive(Debug, Default)]
struct Told {
    lines: u32,
    left_out: u64,
}

/// Whether lines are for `debug`, and what counts as their address; of local sockets together.
type Whose = (bool, Option<IpNet>);

/// The lines of a while.
#[derive(Debug)]
pub(super) struct Tellings {
    /// What counts as an address.
    addresses: Addresses,
    by_address: BTreeMap<Whose, Told>,
    /// Places of these by the network that they are in.
    by_network: BTreeMap<IpNet, usize>,
    /// Beyond these.
    others_left_out: u64,
    due_at: Option<Instant>,
}

impl Tellings {
    /// Nothing was said so far.
    pub fn new(addresses: Addresses) -> Self {
        Tellings {
            addresses,
            by_address: BTreeMap::new(),
            by_network: BTreeMap::new(),
            others_left_out: 0,
            due_at: None,
        }
    }

    /// When what was left out is to be summed up.
    pub fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Says it, unless enough was said of that address.
    pub fn tell(&mut self, now: Instant, entry: &Entry) {
        let is_detail = is_detail(&entry.note.event);
        if is_detail && !enabled!(Level::DEBUG) {
            return;
        }
        let Some(line) = line(entry) else {
            return;
        };
        if let Event::Denied { .. } | Event::DeniedMore { .. } = entry.note.event {
            // The core bounds these per client.
            return debug!("{line}");
        }
        let at = self.counted_as(entry.peer);
        match (self.takes(now, (is_detail, at)), is_detail) {
            (true, true) => debug!("{line}"),
            (true, false) => info!("{line}"),
            (false, _) => {}
        }
    }

    /// Says that a proxy has named nobody, for whom its own address counts now.
    pub fn tell_unnamed(&mut self, now: Instant, proxy: Peer, header: &str) {
        if self.takes(now, (false, self.counted_as(Some(proxy)))) {
            let proxy = match proxy.address() {
                Some(address) => format!("from {address}"),
                None => "on this machine".to_owned(),
            };
            info!(
                "a client that comes through the proxy {proxy} counts as at the proxy's address: that has \
                 set no {header} ({})",
                key_of(header)
            );
        }
    }

    fn counted_as(&self, peer: Option<Peer>) -> Option<IpNet> {
        let ip = peer.and_then(Peer::ip)?;
        Some(self.addresses.counted_as(ip))
    }

    /// Whether one more line about an address may be said now.
    fn takes(&mut self, now: Instant, whose: Whose) -> bool {
        self.due_at.get_or_insert(now + INTERVAL);
        if !self.by_address.contains_key(&whose) && !self.has_place(whose) {
            self.others_left_out += 1;
            return false;
        }
        let told = self.by_address.entry(whose).or_default();
        let takes = told.lines < LINES_MAX;
        if takes {
            told.lines += 1;
        } else {
            told.left_out += 1;
        }
        takes
    }

    /// Takes a place for an address, if there is one.
    fn has_place(&mut self, (_, address): Whose) -> bool {
        if self.by_address.len() >= ADDRESSES_MAX {
            return false;
        }
        let Some(address) = address else {
            return true;
        };
        let places = self.by_network.entry(around(address)).or_default();
        let fits = *places < OF_NETWORK_MAX;
        *places += usize::from(fits);
        fits
    }

    /// Says how much was left out, once that is due, or at the shard's end.
    pub fn sum_up(&mut self, now: Instant, is_end: bool) {
        if is_end || self.due_at.is_some_and(|due_at| now >= due_at) {
            for line in self.sums() {
                info!("{line}");
            }
        }
    }

    fn sums(&mut self) -> Vec<String> {
        self.due_at = None;
        self.by_network.clear();
        let told = std::mem::take(&mut self.by_address).into_iter();
        let left_out = told.filter(|(_, told)| told.left_out > 0);
        let mut lines: Vec<_> = left_out
            .map(|((is_detail, address), told)| {
                let (count, place) = (told.left_out, place(address));
                if is_detail {
                    format!("{count} more lines on clients from {place} that went were left out")
                } else {
                    format!(
                        "{count} more lines on why clients from {place} are not served were left out"
                    )
                }
            })
            .collect();
        let others = std::mem::take(&mut self.others_left_out);
        if others > 0 {
            lines.push(format!(
                "{others} more lines on why clients from other addresses are not served were left out"
            ));
        }
        lines
    }
}

/// The network that an address is in, as it is given out.
fn around(address: IpNet) -> IpNet {
    let bits = match address {
        IpNet::V4(_) => 16,
        IpNet::V6(_) => 32,
    };
    let wide = IpNet::new(address.addr(), bits.min(address.prefix_len()));
    wide.map_or(address, |wide| wide.trunc())
}

fn place(address: Option<IpNet>) -> String {
    match address {
        None => "this machine".to_owned(),
        Some(address) if address.prefix_len() == address.max_prefix_len() => {
            address.addr().to_string()
        }
        Some(network) => network.to_string(),
    }
}

/// Whether it is for `debug` only.
const fn is_detail(event: &Event) -> bool {
    matches!(
        event,
        Event::Denied { .. }
            | Event::DeniedMore { .. }
            | Event::Gone(Gone::Closed | Gone::Reset)
            | Event::GoneEarly { .. }
    )
}

/// A key, or a sentence, behind what it explains.
fn behind(why: &str) -> String {
    if why.contains(' ') {
        format!(": {why}")
    } else {
        format!(" ({why})")
    }
}

/// What happened, in an operator's words; `None` if it does not tell why.
pub(super) fn line(entry: &Entry) -> Option<String> {
    let note = &entry.note;
    if !note.event.tells_why() {
        return None;
    }
    let bridge = bridge_of(entry);
    if bridge.is_some() && is_told_by_bridge(&note.event) {
        return None;
    }
    let mut who = match (bridge, &*note.client_id) {
        (Some(name), _) => format!("bridge {name}"),
        (None, "") => "a client".to_owned(),
        (None, id) => format!("client {id:?}"),
    };
    if let Some(user_name) = &note.user_name {
        who.push_str(&format!(" (user {user_name:?})"));
    }
    match entry.peer {
        Some(Peer::Internet(peer)) => who.push_str(&format!(" from {peer}")),
        Some(Peer::Unix) => who.push_str(" on this machine"),
        None => {}
    }
    said(entry, &who, entry.by)
}

/// What is the same each time that it goes wrong for a client so, wherever it is; and how often it did.
pub(super) fn cause(entry: &Entry) -> (String, u64) {
    if let Event::DeniedMore { left_out } = entry.note.event {
        return ("was denied more".to_owned(), u64::from(left_out));
    }
    (said(entry, "it", None).unwrap_or_default(), 1)
}

fn said(entry: &Entry, who: &str, by: Option<Peer>) -> Option<String> {
    Some(match &entry.note.event {
        Event::Connected(_) => return None,
        Event::Refused { reason, text, .. } => format!("{who} is refused: {text}{}", code(*reason)),
        Event::Disconnected { reason, .. } if is_told_elsewhere(*reason) => return None,
        Event::Disconnected { reason, text, .. } => {
            format!("{who} is disconnected: {text}{}", code(*reason))
        }
        Event::Gone(how) => format!("{who} has gone: {}", how.text()),
        Event::GoneEarly { how, during } => {
            format!("{who} has gone {during}: {}", how.text_early())
        }
        Event::TakenOver(_) => {
            let by = match by {
                Some(Peer::Internet(by)) => format!(" from {by}"),
                Some(Peer::Unix) => " on this machine".to_owned(),
                None => String::new(),
            };
            format!("{who} is disconnected: a newer connection{by} has its client identifier")
        }
        Event::Denied { action, topic, why } => {
            format!("{who} may not {action} to {topic:?}{}", behind(why))
        }
        Event::DeniedMore { left_out } => format!("{who} was denied so {left_out} more times"),
        Event::WillLeftOut { topic, why } => {
            let behind = behind(why);
            format!("the will of {who} is left out, since it may not publish to {topic:?}{behind}")
        }
    })
}

/// The name of a bridge, if the connection is one.
fn bridge_of(entry: &Entry) -> Option<&str> {
    let id = Some(&*entry.note.client_id).filter(|_| entry.listener == bridge::LISTENER);
    id.map(|id| id.strip_prefix(bridge::CLIENT_ID_PREFIX).unwrap_or(id))
}

/// Whether who looks after bridges says it, with what comes next.
const fn is_told_by_bridge(event: &Event) -> bool {
    matches!(
        event,
        Event::Disconnected { .. } | Event::Gone(_) | Event::GoneEarly { .. } | Event::TakenOver(_)
    )
}

/// Whether another line says it: of a takeover its own, of a stop the broker's.
const fn is_told_elsewhere(reason: u8) -> bool {
    reason == Reason::SessionTakenOver.byte() || reason == Reason::ServerShuttingDown.byte()
}

/// The reason code with its name, where there is one.
fn code(reason: u8) -> String {
    let known = Reason::from_byte(reason).filter(|reason| reason.is_error());
    known.map_or_else(String::new, |reason| format!(" ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slots::Slots;
    use crate::engine::telemetry::notes::Note;
    use std::net::{IpAddr, SocketAddr};

    fn entry(client_id: &str, user_name: Option<&str>, event: Event) -> Entry {
        Entry {
            listener: 0,
            peer: Some(Peer::internet(SocketAddr::from(([10, 0, 0, 1], 4711)))),
            by: None,
            note: Note {
                client_id: client_id.into(),
                user_name: user_name.map(Into::into),
                event,
            },
        }
    }

    #[test]
    fn of_a_bridge_what_its_own_line_says_is_not_said_twice() {
        let of_bridge = |event| Entry {
            listener: bridge::LISTENER,
            ..entry("$bridge/hq", Some("bridge-hq"), event)
        };
        let ended = Event::Disconnected {
            reason: 0x93,
            text: "too many".into(),
        };
        assert_eq!(line(&of_bridge(ended)), None);
        assert_eq!(line(&of_bridge(Event::Gone(Gone::Reset))), None);
        let refused = Event::Refused {
            reason: 0x97,
            text: "no memory".into(),
        };
        let said = line(&of_bridge(refused)).unwrap();
        assert!(said.starts_with("bridge hq (user \"bridge-hq\")"), "{said}");
    }

    #[test]
    fn lines_say_who_where_and_why() {
        let refused = Event::Refused {
            reason: 0x97,
            text: "too many connections (connections_max)".into(),
        };
        assert_eq!(
            line(&entry("c", Some("ann"), refused)).as_deref(),
            Some(
                "client \"c\" (user \"ann\") from 10.0.0.1:4711 is refused: too many connections \
                 (connections_max) (Quota exceeded (0x97))"
            )
        );
        let nameless = Event::Refused {
            reason: 0,
            text: "TLS: no certificate".into(),
        };
        let on_machine = Entry {
            peer: Some(Peer::Unix),
            ..entry("", None, nameless)
        };
        assert_eq!(
            line(&on_machine).as_deref(),
            Some("a client on this machine is refused: TLS: no certificate")
        );
        let ended = |reason: u8, text: &str| Event::Disconnected {
            reason,
            text: text.into(),
        };
        let silent = line(&entry("c", None, ended(0x8D, "nothing heard")));
        assert!(
            silent
                .unwrap()
                .ends_with("is disconnected: nothing heard (Keep Alive timeout (0x8D))")
        );
        for event in [ended(0, ""), ended(0x8E, "taken over"), ended(0x8B, "stop")] {
            assert_eq!(line(&entry("c", None, event)), None);
        }
    }

    #[test]
    fn what_a_client_may_not_is_told_with_what_says_so() {
        let ends = |entry: Entry, end: &str| {
            let line = line(&entry).unwrap();
            assert!(line.ends_with(end), "{line}");
        };
        let denied = |why: &'static str| Event::Denied {
            action: "publish",
            topic: "a/b".into(),
            why: why.into(),
        };
        ends(
            entry("c", None, denied("acl_file")),
            "may not publish to \"a/b\" (acl_file)",
        );
        ends(
            entry("c", None, denied("it is too long (x = 1)")),
            "may not publish to \"a/b\": it is too long (x = 1)",
        );
        ends(
            entry("c", None, Event::DeniedMore { left_out: 4 }),
            "was denied so 4 more times",
        );
        let will = || Event::WillLeftOut {
            topic: "a/b".into(),
            why: "acl_file".into(),
        };
        let whole = "the will of client \"c\" (user \"ann\") from 10.0.0.1:4711 is left out, since it may not \
                     publish to \"a/b\" (acl_file)";
        ends(entry("c", Some("ann"), will()), whole);
        let late = Entry {
            peer: None,
            ..entry("c", None, will())
        };
        assert!(
            line(&late)
                .unwrap()
                .starts_with("the will of client \"c\" is left out")
        );
    }

    #[test]
    fn how_a_connection_ended_is_told() {
        let taken_over = Entry {
            by: Some(Peer::internet(SocketAddr::from(([10, 0, 0, 2], 9)))),
            ..entry("c", None, Event::TakenOver(Slots::default().insert(())))
        };
        assert_eq!(
            line(&taken_over).as_deref(),
            Some(
                "client \"c\" from 10.0.0.1:4711 is disconnected: a newer connection from 10.0.0.2:9 has its \
                 client identifier"
            )
        );
        for (how, words, is_for_debug) in [
            (Gone::Closed, "it closed the connection", true),
            (Gone::Reset, "its connection was reset", true),
            (Gone::Lost, "(limits.tcp_keepalive_idle_seconds,", false),
        ] {
            assert_eq!(is_detail(&Event::Gone(how)), is_for_debug, "{how:?}");
            let line = line(&entry("c", None, Event::Gone(how))).unwrap();
            assert!(line.starts_with("client \"c\" from 10.0.0.1:4711 has gone: "));
            assert!(line.contains(words), "{line}");
        }
    }

    #[test]
    fn what_is_beyond_the_rate_of_an_address_is_counted() {
        let now = Instant::now();
        let mut tellings = Tellings::new(Addresses::new(0, 64));
        let counted = |ip| tellings.addresses.counted_as(ip);
        let ip = Some(counted(IpAddr::from([10, 0, 0, 1])));
        let (one, gone) = ((false, ip), (true, ip));
        let said = (0..10).filter(|_| tellings.takes(now, one)).count();
        assert_eq!(said, LINES_MAX as usize);
        assert!(tellings.takes(now, (false, None)), "another one");
        let said = (0..4).filter(|_| tellings.takes(now, gone)).count();
        assert_eq!(said, LINES_MAX as usize, "in lines of its own");
        let later = tellings.due_at().unwrap();
        tellings.sum_up(now, false);
        assert_eq!(tellings.due_at(), Some(later), "not yet");
        assert_eq!(
            tellings.sums(),
            [
                "7 more lines on why clients from 10.0.0.1 are not served were left out",
                "1 more lines on clients from 10.0.0.1 that went were left out",
            ]
        );
        assert_eq!(tellings.due_at(), None);
        assert!(tellings.takes(later, one), "it counts anew");
        for n in 0..2 * ADDRESSES_MAX as u32 {
            let ip = IpAddr::from((n << 16).to_be_bytes());
            tellings.takes(later, (false, Some(ip.into())));
        }
        let lines = tellings.sums();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("more lines on why clients from other addresses"));
    }

    #[test]
    fn one_network_does_not_take_all_places() {
        let now = Instant::now();
        let mut tellings = Tellings::new(Addresses::new(0, 64));
        let mut takes = |ip: &str| {
            let peer = Peer::internet(SocketAddr::new(ip.parse().unwrap(), 1));
            let at = tellings.counted_as(Some(peer));
            tellings.takes(now, (false, at))
        };
        // Of one /64.
        let said = (0..100).filter(|n| takes(&format!("2001:db8::{n:x}")));
        assert_eq!(said.count(), LINES_MAX as usize);
        let said = (1..2_000).filter(|n| takes(&format!("2001:db8:{n:x}::1")));
        assert_eq!(said.count(), OF_NETWORK_MAX - 1);
        assert!(takes("2001:db9::1") && takes("10.0.0.1"));
        let lines = tellings.sums();
        assert_eq!(
            lines[0],
            "97 more lines on why clients from 2001:db8::/64 are not served were left out"
        );
        assert!(lines[1].starts_with("1750 more lines on why clients from other addresses"));
    }
}
