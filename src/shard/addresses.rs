//! How many connections come from each address, over all shards.
//!
//! Looked at when a connection comes and goes, and only where that is limited: not on the data path. Who
//! has an IPv6 address has as many as its network has, so these count by their prefix.
//!
//! Shards hear of another limit one after the other, so each connection remembers whether it is counted.

use crate::engine::shard::CountsByNetwork;
use ipnet::{IpNet, Ipv6Net};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// All addresses that count as the one of a client: an IPv4 address alone, an IPv6 address with those that
/// begin with the same `ipv6_prefix_bits` bits.
#[must_use]
pub fn counted_as(ip: IpAddr, ipv6_prefix_bits: u8) -> IpNet {
    let ip = ip.to_canonical();
    if let IpAddr::V6(ip) = ip
        && let Ok(network) = Ipv6Net::new(ip, ipv6_prefix_bits)
    {
        return network.trunc().into();
    }
    ip.into()
}

/// Connections by address, as one shard sees them: it has the limit for itself, and the counts with all.
#[derive(Clone, Debug)]
pub struct Addresses {
    max: usize,
    ipv6_prefix_bits: u8,
    counts: Arc<Mutex<HashMap<IpNet, usize>>>,
}

impl Addresses {
    /// At most `max` of each address, 0 for no limit; IPv6 addresses count by so many bits.
    #[must_use]
    pub fn new(max: usize, ipv6_prefix_bits: u8) -> Self {
        Addresses {
            max,
            ipv6_prefix_bits,
            counts: Arc::default(),
        }
    }

    /// Whether they are limited: else nothing is counted.
    #[must_use]
    pub const fn are_limited(&self) -> bool {
        self.max > 0
    }

    /// At most so many from now on; who is there stays. Whether those that are there have to be counted now.
    pub const fn set_max(&mut self, max: usize) -> bool {
        let were_limited = self.are_limited();
        self.max = max;
        self.are_limited() && !were_limited
    }

    /// All addresses that count as the one of a client.
    #[must_use]
    pub fn counted_as(&self, ip: IpAddr) -> IpNet {
        counted_as(ip, self.ipv6_prefix_bits)
    }

    /// One more from `ip`; false if there are too many now.
    pub fn enter(&self, ip: IpAddr) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts
            .entry(counted_as(ip, self.ipv6_prefix_bits))
            .or_insert(0);
        *count += 1;
        *count <= self.max
    }

    /// One less.
    pub fn leave(&self, ip: IpAddr) {
        let ip = counted_as(ip, self.ipv6_prefix_bits);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        take_one(&mut counts, ip);
    }
}

/// Connections that are not let in yet, by address, of all listeners and of each.
#[derive(Debug, Default)]
pub struct Connecting(Mutex<HashMap<(IpNet, Option<u16>), usize>>);

impl CountsByNetwork for Connecting {
    fn count(&self, network: IpNet, listener: u16) -> (usize, usize) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |listener| counts.get(&(network, listener)).copied();
        let [all, of_listener] = [None, Some(listener)].map(count);
        (all.unwrap_or_default(), of_listener.unwrap_or_default())
    }

    fn enter(&self, network: IpNet, listener: u16) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of in [None, Some(listener)] {
            *counts.entry((network, of)).or_default() += 1;
        }
    }

    fn leave(&self, network: IpNet, listener: u16) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of in [None, Some(listener)] {
            take_one(&mut counts, (network, of));
        }
    }
}

fn take_one<K: Hash + Eq>(counts: &mut HashMap<K, usize>, whose: K) {
    if let Some(count) = counts.get_mut(&whose) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_count() {
        let addresses = Addresses::new(2, 64);
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        assert!(addresses.enter(ip(1)) && addresses.enter(ip(1)));
        assert!(!addresses.enter(ip(1)));
        assert!(addresses.enter(ip(2)));
        addresses.leave(ip(1));
        addresses.leave(ip(1));
        assert!(addresses.enter(ip(1)));
    }

    #[test]
    fn another_limit_counts_what_was_counted_before() {
        let mut here = Addresses::new(0, 64);
        let there = here.clone();
        let ip = IpAddr::from([10, 0, 0, 1]);
        assert!(!here.are_limited() && !here.set_max(0));
        assert!(here.set_max(2), "who is there is to be counted");
        assert!(here.enter(ip) && here.enter(ip) && !here.enter(ip));
        assert!(!here.set_max(4), "they are");
        assert!(here.enter(ip) && !here.set_max(0));
        // The others have the same counts, by their own limit.
        assert!(!there.are_limited());
        there.leave(ip);
        assert!(here.set_max(4) && here.enter(ip) && !here.enter(ip));
    }

    #[test]
    fn ipv6_counts_by_its_prefix_and_ipv4_by_the_address_however_it_is_written() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (one, other, bits, is_same) in [
            ("2001:db8::1", "2001:db8::ffff:0:0:1", 64, true),
            ("2001:db8::1", "2001:db8:0:1::1", 64, false),
            ("2001:db8::1", "2001:db8:0:1::1", 56, true),
            ("2001:db8::1", "2001:db8::2", 128, false),
            ("10.0.0.1", "10.0.0.2", 1, false),
            ("::ffff:10.0.0.1", "10.0.0.1", 64, true),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.2", 64, false),
        ] {
            let same = counted_as(ip(one), bits) == counted_as(ip(other), bits);
            assert_eq!(same, is_same, "{one} {other} {bits}");
            let addresses = Addresses::new(1, bits);
            assert!(addresses.enter(ip(one)));
            assert_eq!(addresses.enter(ip(other)), !is_same, "{one} {other} {bits}");
            addresses.leave(ip(one));
            addresses.leave(ip(other));
            assert!(addresses.enter(ip(other)));
        }
    }
}
