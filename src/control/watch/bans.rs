//! Whom the broker does not serve: by a file, and for a time by repeated failures.
//!
//! ```text
//!   client ID          the rest of the line
//!   user NAME          the rest of the line
//!   address ADDRESS    10.0.0.7, 10.0.0.0/8, 2001:db8::/32
//! ```
//! A remark is a line of its own: names may have a `#` in them.

use crate::control::config::BansConfig;
use crate::engine::access::bans::{BannedNames, Seen};
use crate::engine::telemetry::notes::quoted;
use crate::shard::bans::{BannedNetworks, InForce};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whose failures are counted at once; beyond that the count begins anew.
const WATCHED_MAX: usize = 100_000;
/// Temporary bans in force at once; beyond that the oldest end early.
const TEMPORARY_MAX: usize = 100_000;

/// Who is banned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A client identifier.
    ClientId(Box<str>),
    /// A user.
    User(Box<str>),
    /// An address or a network.
    Network(IpNet),
    /// A client as it was seen.
    Seen(Seen),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::ClientId(id) => write!(f, "client {id:?}"),
            Who::User(name) => write!(f, "user {name:?}"),
            Who::Network(network) => write!(f, "address {network}"),
            Who::Seen(seen) => {
                write!(f, "client {:?}", seen.client_id)?;
                if let Some(name) = &seen.user_name {
                    write!(f, " of user {name:?}")?;
                }
                match &seen.network {
                    Some(network) => write!(f, " at {network}"),
                    None => f.write_str(" at a socket in the file system"),
                }
            }
        }
    }
}

/// Reads a file of bans.
///
/// # Errors
/// The first line that is wrong, with its number.
pub fn parse(text: &str) -> Result<Vec<Who>, String> {
    let mut banned = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let who = match line.split_once(char::is_whitespace) {
            Some(("client", id)) => Some(Who::ClientId(id.trim().into())),
            Some(("user", name)) => Some(Who::User(name.trim().into())),
            Some(("address", address)) => {
                let address = address.trim();
                let wrong = || {
                    let address = quoted(address);
                    format!(
                        "line {number}: {address} is no address and no network such as 10.0.0.7, 10.0.0.0/8 \
                         or 2001:db8::/32"
                    )
                };
                Some(Who::Network(network(address).ok_or_else(wrong)?))
            }
            _ => None,
        };
        let text = "is none of `client ID`, `user NAME`, `address ADDRESS[/BITS]`";
        banned.push(who.ok_or_else(|| format!("line {number}: {text}"))?);
    }
    Ok(banned)
}

/// Lines of a file of bans that may not be as they were meant, in an operator's words.
#[must_use]
pub fn warnings(text: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some((what @ ("client" | "user"), name)) = line.trim().split_once(char::is_whitespace)
        else {
            continue;
        };
        let mut behind = name.split_whitespace().skip(1);
        if behind.any(|word| word.starts_with('#')) {
            let name = quoted(name.trim());
            warnings.push(format!(
                "line {number} bans the {what} that is called {name}, all of it: a remark has to be a \
                 line of its own"
            ));
        } else if name.contains('*') {
            let name = quoted(name.trim());
            warnings.push(format!(
                "line {number} bans the {what} that is called {name}, and no other: there are no wildcards \
                 in names"
            ));
        }
    }
    warnings
}

/// The network that is written so; an address is one of its own.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(alone)
}

impl BansConfig {
    /// What somebody has done who is banned for a time.
    #[must_use]
    pub fn why(&self, who: &Who) -> String {
        let (what, key, max, window) = match who {
            Who::Network(_) => (
                "failed logins",
                "bans.failed_logins_max",
                self.failed_logins_max,
                self.failed_logins_window,
            ),
            Who::Seen(_) | Who::ClientId(_) | Who::User(_) => (
                "connects",
                "bans.flapping_connects_max",
                self.flapping_connects_max,
                self.flapping_window,
            ),
        };
        format!("{max} {what} within {} s ({key})", window.as_secs())
    }
}

/// When a temporary ban ends, and a number that is its own.
type End = (Instant, u64);

/// All bans. What changes them for a time costs the same however many there are.
#[derive(Debug, Default)]
pub struct Bans {
    permanent: Vec<Who>,
    temporary: HashMap<Who, End>,
    /// The same, by their ends.
    by_end: BTreeMap<End, Who>,
    next_number: u64,
    in_force: InForce,
}

impl Bans {
    /// Those of a file.
    #[must_use]
    pub fn of_file(permanent: Vec<Who>) -> Self {
        Bans {
            permanent,
            ..Bans::default()
        }
    }

    /// Puts these in place of the file's former ones.
    pub fn set_permanent(&mut self, permanent: Vec<Who>) {
        self.permanent = permanent;
    }

    /// Bans for a time; again, for the time from now on.
    pub fn add(&mut self, who: Who, until: Instant) {
        self.next_number += 1;
        let end = (until, self.next_number);
        if let Some(former) = self.temporary.insert(who.clone(), end) {
            self.by_end.remove(&former);
        } else if self.by_end.len() >= TEMPORARY_MAX {
            self.end_oldest();
        }
        self.by_end.insert(end, who);
    }

    /// Ends a ban for a time early; whether there was one.
    pub fn remove(&mut self, who: &Who) -> bool {
        let end = self.temporary.remove(who);
        end.is_some_and(|end| self.by_end.remove(&end).is_some())
    }

    /// Whether it stands in the file.
    #[must_use]
    pub fn is_permanent(&self, who: &Who) -> bool {
        self.permanent.contains(who)
    }

    /// So many of all, those of the file first, with the time until each ends, and how many there are.
    #[must_use]
    pub fn list(&self, now: Instant, max: usize) -> (Vec<(Who, Option<Duration>)>, usize) {
        let permanent = self.permanent.iter().map(|who| (who.clone(), None));
        let temporary = self.by_end.iter().map(|((until, _), who)| {
            let left = until.saturating_duration_since(now);
            (who.clone(), Some(left))
        });
        let list = permanent.chain(temporary).take(max).collect();
        (list, self.permanent.len() + self.by_end.len())
    }

    /// Whether a ban for a time is in force.
    #[must_use]
    pub fn is_in_force(&self, who: &Who, now: Instant) -> bool {
        let end = self.temporary.get(who);
        end.is_some_and(|(until, _)| *until > now)
    }

    /// Ends those whose time is over; whether there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let before = self.by_end.len();
        while let Some((&(until, _), _)) = self.by_end.first_key_value()
            && until <= now
        {
            self.end_oldest();
        }
        self.by_end.len() < before
    }

    /// How long until one ends; `None` if none does.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let (&(until, _), _) = self.by_end.first_key_value()?;
        Some(until.saturating_duration_since(now))
    }

    /// All last equally long, so the oldest is the one that ends first.
    fn end_oldest(&mut self) {
        if let Some((_, who)) = self.by_end.pop_first() {
            self.temporary.remove(&who);
        }
    }

    /// Where to look which names are banned.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        self.in_force.clone()
    }

    /// Puts the names in force for who judges, and gives them back for the shards: these come later, so that
    /// nobody is let in by bans of before whom they would have to refuse.
    #[must_use]
    pub fn enforce_names(&self) -> Arc<BannedNames> {
        let names = Arc::new(self.names());
        self.in_force.set(Arc::clone(&names));
        names
    }

    fn all(&self) -> impl Iterator<Item = &Who> {
        self.permanent.iter().chain(self.by_end.values())
    }

    /// The names among them.
    #[must_use]
    pub fn names(&self) -> BannedNames {
        let client_ids = self.all().filter_map(|who| match who {
            Who::ClientId(id) => Some(id.clone()),
            _ => None,
        });
        let user_names = self.all().filter_map(|who| match who {
            Who::User(name) => Some(name.clone()),
            _ => None,
        });
        let seen = self.all().filter_map(|who| match who {
            Who::Seen(seen) => Some(seen.clone()),
            _ => None,
        });
        BannedNames {
            client_ids: client_ids.collect(),
            user_names: user_names.collect(),
            seen: seen.collect(),
        }
    }

    /// The networks among them.
    #[must_use]
    pub fn networks(&self) -> BannedNetworks {
        BannedNetworks::new(self.all().filter_map(|who| match who {
            Who::Network(network) => Some(*network),
            _ => None,
        }))
    }
}

/// Counts failures within a window of time.
#[derive(Debug)]
pub struct Failures {
    max: u32,
    window: Duration,
    counts: HashMap<Who, (u32, Instant)>,
}

impl Failures {
    /// Too many are `max` within `window`; 0 counts nothing.
    #[must_use]
    pub fn new(max: u32, window: Duration) -> Self {
        Failures {
            max,
            window,
            counts: HashMap::new(),
        }
    }

    /// One more; gives back who it was if that was one too many.
    pub fn add(&mut self, who: Who, now: Instant) -> Option<Who> {
        if self.max == 0 {
            return None;
        }
        if self.counts.len() >= WATCHED_MAX {
            self.counts.clear();
        }
        let (count, begun) = self.counts.entry(who.clone()).or_insert((0, now));
        if now.saturating_duration_since(*begun) > self.window {
            (*count, *begun) = (0, now);
        }
        *count += 1;
        if *count < self.max {
            return None;
        }
        self.counts.remove(&who);
        Some(who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_clients_users_and_networks() {
        let text = "# stolen\nclient a b\nuser ann\n\naddress 10.0.0.7\naddress 2001:db8::/32\n";
        let mut bans = Bans::default();
        bans.set_permanent(parse(text).unwrap());
        let names = bans.names();
        assert!(names.contain("a b", None) && names.contain("x", Some("ann")));
        assert!(!names.contain("ann", Some("a b")));
        let inside = |ip: &str| {
            let ip: IpAddr = ip.parse().unwrap();
            bans.networks().contain(ip)
        };
        assert!(inside("10.0.0.7") && inside("2001:db8::1"));
        assert!(!inside("10.0.0.8"));
        let text = "# stolen\nuser zed # thief\nclient a#b\nclient #7\nclient c  #8\n";
        let told = warnings(text);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("line 2 ") && told[0].contains("zed # thief"));
        assert!(told[1].contains("line 5 "), "{told:?}");
        for wrong in ["client", "adress 1.2.3.4", "address 1.2.3.4/40", "user "] {
            let error = parse(&format!("\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with("line 2"), "{wrong}: {error}");
        }
    }

    #[test]
    fn failures_count_within_their_window_and_bans_end() {
        let mut failures = Failures::new(3, Duration::from_secs(10));
        let who = || Who::ClientId("c".into());
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(failures.add(who(), start), None);
        assert_eq!(failures.add(who(), after(1)), None);
        assert_eq!(failures.add(who(), after(20)), None);
        assert_eq!(failures.add(who(), after(21)), None);
        assert_eq!(failures.add(who(), after(22)), Some(who()));
        let mut bans = Bans::default();
        bans.add(who(), after(30));
        assert!(!bans.expire(after(29)));
        assert_eq!(bans.wait(after(29)), Some(Duration::from_secs(1)));
        assert!(bans.names().contain("c", None));
        assert!(bans.expire(after(30)));
        assert_eq!(bans.wait(after(30)), None);
        assert_eq!(bans.names(), BannedNames::default());
    }

    #[test]
    fn a_ban_that_is_renewed_lasts_from_then_on() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut bans = Bans::default();
        let who = || Who::User("u".into());
        bans.add(who(), after(10));
        bans.add(Who::User("other".into()), after(10));
        assert!(bans.is_in_force(&who(), after(9)) && !bans.is_in_force(&who(), after(10)));
        bans.add(who(), after(20));
        assert!(bans.is_in_force(&who(), after(19)));
        assert!(bans.expire(after(10)) && bans.names().contain("", Some("u")));
        assert!(!bans.names().contain("", Some("other")));
        assert!(bans.expire(after(20)) && !bans.expire(after(20)));
        assert!(bans.temporary.is_empty() && bans.by_end.is_empty());
    }

    #[test]
    fn a_ban_for_a_time_may_end_early_and_one_of_the_file_stays() {
        let of_file = Who::User("ann".into());
        let mut bans = Bans::of_file(vec![of_file.clone()]);
        let (who, now) = (Who::ClientId("c".into()), Instant::now());
        bans.add(who.clone(), now + Duration::from_secs(9));
        let (list, count) = bans.list(now, 10);
        let expected = [
            (of_file.clone(), None),
            (who.clone(), Some(Duration::from_secs(9))),
        ];
        assert_eq!((&list[..], count), (&expected[..], 2));
        assert_eq!(bans.list(now, 1).0.len(), 1);
        assert!(bans.remove(&who) && !bans.remove(&who) && !bans.remove(&of_file));
        assert!(bans.is_permanent(&of_file) && bans.wait(now).is_none());
    }

    #[test]
    fn beyond_their_bound_the_oldest_bans_end() {
        let start = Instant::now();
        let mut bans = Bans::default();
        let address = |n: u32| Who::Network(IpAddr::from(n.to_be_bytes()).into());
        let beyond = 3;
        for n in 0..TEMPORARY_MAX as u32 + beyond {
            bans.add(address(n), start + Duration::from_millis(u64::from(n)));
            // One that is there already takes no room.
            bans.add(address(n), start + Duration::from_millis(u64::from(n)));
        }
        assert_eq!(bans.by_end.len(), TEMPORARY_MAX);
        assert_eq!(bans.temporary.len(), TEMPORARY_MAX);
        let networks = bans.networks();
        let is_banned = |n: u32| networks.contain(IpAddr::from(n.to_be_bytes()));
        assert!(!is_banned(beyond - 1) && is_banned(beyond));
        assert!(is_banned(TEMPORARY_MAX as u32 + beyond - 1));
    }
}
