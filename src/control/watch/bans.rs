//! Whom the broker does not serve: by a file, and for a time by repeated failures.
//!
//! ```text
//!   client ID          the rest of the line
//!   user NAME          the rest of the line
//!   address ADDRESS    10.0.0.7, 10.0.0.0/8, 2001:db8::/32
//! ```

use crate::engine::access::bans::BannedNames;
use ipnet::IpNet;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
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
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::ClientId(id) => write!(f, "client {id:?}"),
            Who::User(name) => write!(f, "user {name:?}"),
            Who::Network(network) => write!(f, "address {network}"),
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
            Some(("address", address)) => network(address.trim()).map(Who::Network),
            _ => None,
        };
        let text = "is none of `client ID`, `user NAME`, `address ADDRESS[/BITS]`";
        banned.push(who.ok_or_else(|| format!("line {number}: {text}"))?);
    }
    Ok(banned)
}

fn network(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(alone)
}

/// All bans.
#[derive(Debug, Default)]
pub struct Bans {
    permanent: Vec<Who>,
    temporary: Vec<(Who, Instant)>,
}

impl Bans {
    /// Puts these in place of the file's former ones.
    pub fn set_permanent(&mut self, permanent: Vec<Who>) {
        self.permanent = permanent;
    }

    /// Bans for a time.
    pub fn add(&mut self, who: Who, until: Instant) {
        self.temporary.retain(|(known, _)| *known != who);
        if self.temporary.len() >= TEMPORARY_MAX {
            self.temporary.remove(0);
        }
        self.temporary.push((who, until));
    }

    /// Ends those whose time is over; whether there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let before = self.temporary.len();
        self.temporary.retain(|(_, until)| *until > now);
        self.temporary.len() < before
    }

    fn all(&self) -> impl Iterator<Item = &Who> {
        let temporary = self.temporary.iter().map(|(who, _)| who);
        self.permanent.iter().chain(temporary)
    }

    /// The names among them.
    #[must_use]
    pub fn names(&self) -> BannedNames {
        let mut names = BannedNames::default();
        for who in self.all() {
            match who {
                Who::ClientId(id) => names.client_ids.insert(id.clone()),
                Who::User(name) => names.user_names.insert(name.clone()),
                Who::Network(_) => continue,
            };
        }
        names
    }

    /// The networks among them.
    #[must_use]
    pub fn networks(&self) -> Vec<IpNet> {
        let networks = self.all().filter_map(|who| match who {
            Who::Network(network) => Some(*network),
            _ => None,
        });
        networks.collect()
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
            bans.networks().iter().any(|network| network.contains(&ip))
        };
        assert!(inside("10.0.0.7") && inside("2001:db8::1"));
        assert!(!inside("10.0.0.8"));
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
        assert!(bans.names().contain("c", None));
        assert!(bans.expire(after(30)));
        assert_eq!(bans.names(), BannedNames::default());
    }
}
