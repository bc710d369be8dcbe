//! Networks that are not served, as one lookup however many they are.
//!
//! What is banned is kept as ranges of addresses in ascending order that neither overlap nor touch: one
//! binary search per question. Made by the control plane whenever bans change, and shared by all shards.
//! IPv4 written as IPv6 (`::ffff:10.0.0.1`) is IPv4, in addresses and in networks.
//!
//! Beside them, the banned names for those who judge logins.

use crate::engine::access::bans::BannedNames;
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};

/// Bits before the IPv4 address in one that is written as IPv6.
const MAPPED_BITS: u8 = 96;

/// Networks that are banned now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BannedNetworks {
    of_ipv4: Box<[(u32, u32)]>,
    of_ipv6: Box<[(u128, u128)]>,
}

impl BannedNetworks {
    /// These, in any order.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut of_ipv4, mut of_ipv6) = (Vec::new(), Vec::new());
        for network in networks {
            match canonical(network) {
                IpNet::V4(network) => {
                    of_ipv4.push((network.network().into(), network.broadcast().into()));
                }
                IpNet::V6(network) => {
                    of_ipv6.push((network.network().into(), network.broadcast().into()));
                }
            }
        }
        BannedNetworks {
            of_ipv4: merged(of_ipv4, |last| last.saturating_add(1)),
            of_ipv6: merged(of_ipv6, |last| last.saturating_add(1)),
        }
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn contain(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => is_within(&self.of_ipv4, ip.into()),
            IpAddr::V6(ip) => is_within(&self.of_ipv6, ip.into()),
        }
    }
}

/// A network of IPv4 addresses that are written as IPv6, as what it is: so peers' addresses are, too.
#[must_use]
pub fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(written) = network else {
        return network;
    };
    let mapped: Option<Ipv4Addr> = written.addr().to_ipv4_mapped();
    let bits = written.prefix_len().checked_sub(MAPPED_BITS);
    let of_ipv4 = mapped.zip(bits);
    let of_ipv4 = of_ipv4.and_then(|(ip, bits)| Ipv4Net::new(ip, bits).ok());
    of_ipv4.map_or(network, IpNet::V4)
}

/// Ranges in order, made one where they overlap or touch.
fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> T) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, (_, last)| {
        let is_one = next.0 <= after(*last);
        if is_one {
            *last = next.1.max(*last);
        }
        is_one
    });
    ranges.into_boxed_slice()
}

fn is_within<T: Copy + Ord>(ranges: &[(T, T)], ip: T) -> bool {
    let begun = ranges.partition_point(|(first, _)| *first <= ip);
    let before = begun.checked_sub(1).and_then(|at| ranges.get(at));
    before.is_some_and(|(_, last)| ip <= *last)
}

/// The names that are banned now, for threads that judge who somebody is; shards have their own.
#[derive(Clone, Debug, Default)]
pub struct InForce(Arc<RwLock<Arc<BannedNames>>>);

impl InForce {
    /// The names.
    #[must_use]
    pub fn names(&self) -> Arc<BannedNames> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&names)
    }

    /// From now on these.
    pub fn set(&self, names: Arc<BannedNames>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn banned(networks: &[&str]) -> BannedNetworks {
        BannedNetworks::new(networks.iter().map(|network| network.parse().unwrap()))
    }

    #[test]
    fn the_first_and_the_last_address_of_a_network_are_in_it_and_their_neighbours_are_not() {
        let banned = banned(&[
            "10.1.0.0/16",
            "10.1.2.0/24",
            "192.0.2.7/32",
            "10.3.0.0/16",
            "2001:db8::/32",
            "255.255.255.255/32",
            "ffff::/16",
        ]);
        for (ip, is_banned) in [
            ("10.0.255.255", false),
            ("10.1.0.0", true),
            ("10.1.2.3", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("10.3.0.0", true),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("255.255.255.254", false),
            ("255.255.255.255", true),
            ("0.0.0.0", false),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("::", false),
        ] {
            assert_eq!(banned.contain(ip.parse().unwrap()), is_banned, "{ip}");
        }
    }

    #[test]
    fn ipv4_is_the_same_however_it_is_written() {
        for network in ["10.1.0.0/16", "::ffff:10.1.0.0/112"] {
            let banned = banned(&[network]);
            for ip in ["10.1.2.3", "::ffff:10.1.2.3"] {
                assert!(banned.contain(ip.parse().unwrap()), "{ip} in {network}");
            }
            assert!(!banned.contain("::ffff:10.2.0.1".parse().unwrap()));
        }
        // All of IPv6 is not IPv4.
        let banned = banned(&["::/0"]);
        assert!(banned.contain("2001:db8::1".parse().unwrap()));
        assert!(!banned.contain("10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn what_overlaps_or_touches_is_one_range() {
        let all = banned(&["0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "::/1", "8000::/1"]);
        assert_eq!((all.of_ipv4.len(), all.of_ipv6.len()), (1, 1));
        assert!(all.contain(IpAddr::from([255; 4])) && all.contain(Ipv6Addr::LOCALHOST.into()));
    }

    /// Against a scan, with networks of all sizes in one another.
    #[test]
    fn it_finds_what_a_scan_finds() {
        let mut state = 7_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for _ in 0..200 {
            let networks: Vec<IpNet> = (0..next() % 20)
                .map(|_| {
                    let ip = Ipv4Addr::from([10, 0, (next() % 4) as u8, next() as u8]);
                    Ipv4Net::new(ip, 22 + (next() % 11) as u8).unwrap().into()
                })
                .collect();
            let banned = BannedNetworks::new(networks.iter().copied());
            for _ in 0..200 {
                let ip = IpAddr::from([10, 0, (next() % 5) as u8, next() as u8]);
                let is_in = networks.iter().any(|network| network.contains(&ip));
                assert_eq!(banned.contain(ip), is_in, "{ip} in {networks:?}");
            }
        }
    }
}
