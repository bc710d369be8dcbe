//! Telling an operator why clients are not served, or not as they asked: a few lines for each address in a
//! while, and how many more there were.

use crate::engine::codec::Reason;
use crate::engine::telemetry::notes::{Event, Note};
use crate::shard::account::Entry;
use crate::shard::peer::Peer;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tracing::{debug, info};

/// How long the lines of an address are counted together.
const INTERVAL: Duration = Duration::from_secs(10);
/// Lines for one address in that time.
const LINES_MAX: u32 = 3;
/// Addresses that are counted in that time; all others are counted together.
const ADDRESSES_MAX: usize = 1_000;

/// What was said, and what was not.
#[derive(Debug, Default)]
struct Told {
    lines: u32,
    left_out: u64,
}

/// The lines of a while.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    /// By address; of local sockets together.
    by_address: BTreeMap<Option<IpAddr>, Told>,
    /// Beyond these.
    others_left_out: u64,
    due_at: Option<Instant>,
}

impl Tellings {
    /// When what was left out is to be summed up.
    pub fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Says it, unless enough was said of that address.
    pub fn tell(&mut self, now: Instant, entry: &Entry) {
        let Some(line) = line(&entry.note, entry.peer.and_then(Peer::address)) else {
            return;
        };
        if let Event::Denied { .. } | Event::DeniedMore { .. } = entry.note.event {
            // The core bounds these per client.
            return debug!("{line}");
        }
        if self.takes(now, entry.peer.and_then(Peer::ip)) {
            info!("{line}");
        }
    }

    /// Whether one more line about an address may be said now.
    fn takes(&mut self, now: Instant, address: Option<IpAddr>) -> bool {
        self.due_at.get_or_insert(now + INTERVAL);
        let is_full = self.by_address.len() >= ADDRESSES_MAX;
        if is_full && !self.by_address.contains_key(&address) {
            self.others_left_out += 1;
            return false;
        }
        let told = self.by_address.entry(address).or_default();
        let takes = told.lines < LINES_MAX;
        if takes {
            told.lines += 1;
        } else {
            told.left_out += 1;
        }
        takes
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
        let told = std::mem::take(&mut self.by_address).into_iter();
        let left_out = told.filter(|(_, told)| told.left_out > 0);
        let mut lines: Vec<_> = left_out
            .map(|(address, told)| {
                let count = told.left_out;
                format!(
                    "{count} more lines on why clients from {} are not served were left out",
                    place(address)
                )
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

fn place(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "this machine".to_owned(), |address| address.to_string())
}

/// What happened, in an operator's words; `None` if it does not tell why.
fn line(note: &Note, peer: Option<SocketAddr>) -> Option<String> {
    if !note.event.tells_why() {
        return None;
    }
    let mut who = match &*note.client_id {
        "" => "a client".to_owned(),
        id => format!("client {id:?}"),
    };
    if let Some(user_name) = &note.user_name {
        who.push_str(&format!(" (user {user_name:?})"));
    }
    match peer {
        Some(peer) => who.push_str(&format!(" from {peer}")),
        None => who.push_str(" on this machine"),
    }
    Some(match &note.event {
        Event::Connected(_) => return None,
        Event::Refused { reason, text, .. } => format!("{who} is refused: {text}{}", code(*reason)),
        Event::Disconnected { reason, .. } if is_told_elsewhere(*reason) => return None,
        Event::Disconnected { reason, text, .. } => {
            format!("{who} is disconnected: {text}{}", code(*reason))
        }
        Event::TakenOver => {
            format!("{who} is disconnected: a newer connection has its client identifier")
        }
        Event::Denied { action, topic } => {
            format!("{who} may not {action} to {topic:?} (acl_file)")
        }
        Event::DeniedMore { left_out } => {
            format!("{who} was denied so {left_out} more times (acl_file)")
        }
    })
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

    fn note(client_id: &str, user_name: Option<&str>, event: Event) -> Note {
        Note {
            client_id: client_id.into(),
            user_name: user_name.map(Into::into),
            event,
        }
    }

    #[test]
    fn lines_say_who_where_and_why() {
        let peer = Some(SocketAddr::from(([10, 0, 0, 1], 4711)));
        let refused = Event::Refused {
            reason: 0x97,
            text: "too many connections (connections_max)".into(),
        };
        assert_eq!(
            line(&note("c", Some("ann"), refused), peer).as_deref(),
            Some(
                "client \"c\" (user \"ann\") from 10.0.0.1:4711 is refused: too many connections \
                 (connections_max) (Quota exceeded (0x97))"
            )
        );
        let nameless = Event::Refused {
            reason: 0,
            text: "TLS: no certificate".into(),
        };
        assert_eq!(
            line(&note("", None, nameless), None).as_deref(),
            Some("a client on this machine is refused: TLS: no certificate")
        );
        let ended = |reason: u8, text: &str| Event::Disconnected {
            reason,
            text: text.into(),
        };
        let silent = line(&note("c", None, ended(0x8D, "nothing heard")), peer);
        assert!(
            silent
                .unwrap()
                .ends_with("is disconnected: nothing heard (Keep Alive timeout (0x8D))")
        );
        for event in [ended(0, ""), ended(0x8E, "taken over"), ended(0x8B, "stop")] {
            assert_eq!(line(&note("c", None, event), peer), None);
        }
        let ends = |event, end: &str| {
            let line = line(&note("c", None, event), peer).unwrap();
            assert!(line.ends_with(end), "{line}");
        };
        let (action, topic) = ("publish", "a/b".into());
        ends(
            Event::Denied { action, topic },
            "may not publish to \"a/b\" (acl_file)",
        );
        ends(
            Event::DeniedMore { left_out: 4 },
            "was denied so 4 more times (acl_file)",
        );
    }

    #[test]
    fn what_is_beyond_the_rate_of_an_address_is_counted() {
        let now = Instant::now();
        let mut tellings = Tellings::default();
        let one = Some(IpAddr::from([10, 0, 0, 1]));
        let said = (0..10).filter(|_| tellings.takes(now, one)).count();
        assert_eq!(said, LINES_MAX as usize);
        assert!(tellings.takes(now, None), "another one");
        let later = tellings.due_at().unwrap();
        tellings.sum_up(now, false);
        assert_eq!(tellings.due_at(), Some(later), "not yet");
        assert_eq!(
            tellings.sums(),
            ["7 more lines on why clients from 10.0.0.1 are not served were left out"]
        );
        assert_eq!(tellings.due_at(), None);
        assert!(tellings.takes(later, one), "it counts anew");
        for n in 0..2 * ADDRESSES_MAX as u32 {
            tellings.takes(later, Some(IpAddr::from((n + 1_000).to_be_bytes())));
        }
        let lines = tellings.sums();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("more lines on why clients from other addresses"));
    }
}
