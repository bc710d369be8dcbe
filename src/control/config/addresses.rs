//! Where listeners are: from `HOST:PORT` to addresses, and that no two of them are in each other's way.

use super::paths::resolved;
use crate::shard::listener::{Place, TcpPlace};
use std::net::{SocketAddr, ToSocketAddrs};

/// All addresses of a host, IPv4 first.
pub(super) fn tcp_place(url: &str, host: &str, port: u16) -> Result<TcpPlace, String> {
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let wrong = || format!("{url}: {port:?} is no port; the form is mqtt://HOST:PORT");
            (host, port.parse().map_err(|_| wrong())?)
        }
        _ => (host, port),
    };
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if inside.is_none() && host.contains(':') {
        return Err(format!(
            "{url}: an IPv6 address stands in brackets, as in [::1]:{port}"
        ));
    }
    // The system knows interfaces by their names, as in fe80::1%eth0.
    let addresses = (inside.unwrap_or(host), port)
        .to_socket_addrs()
        .map_err(|_| {
            format!(
                "{url}: the name of its host cannot be resolved; name an address, or mend the name"
            )
        })?;
    let mut addresses: Vec<_> = addresses.collect();
    if let Some(address) = addresses.iter().find(|address| has_no_interface(address)) {
        return Err(format!(
            "{url}: a link-local address is one of each interface; name which (`ip link`), as in [{}%eth0]",
            address.ip()
        ));
    }
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(format!("{url}: the name has no address"));
    }
    Ok(TcpPlace {
        addresses,
        is_dual: true,
    })
}

/// Two listeners cannot have the same place; `[::]` leaves IPv4 to a listener on 0.0.0.0.
///
/// # Errors
/// Names the two, by their numbers, and the place.
pub(super) fn settle(places: &mut [&mut Place]) -> Result<(), (usize, usize, String)> {
    for later in 0..places.len() {
        for earlier in 0..later {
            if let (Some(one), Some(other)) = (places.get(earlier), places.get(later))
                && let Some(shared) = shared(one, other)
            {
                return Err((earlier, later, shared));
            }
        }
    }
    let addresses = places.iter().flat_map(|place| tcp(place));
    let for_ipv4: Vec<_> = addresses
        .filter(|address| address.is_ipv4() && address.ip().is_unspecified())
        .copied()
        .collect();
    for place in places {
        if let Place::Tcp(tcp) = place {
            let mut ports = tcp.addresses.iter().map(SocketAddr::port);
            tcp.is_dual =
                !ports.any(|port| port != 0 && for_ipv4.iter().any(|v4| v4.port() == port));
        }
    }
    Ok(())
}

/// Whether an address is link-local and does not say of which interface.
fn has_no_interface(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0)
}

fn tcp(place: &Place) -> &[SocketAddr] {
    match place {
        Place::Tcp(tcp) => &tcp.addresses,
        Place::Unix(_) => &[],
    }
}

/// What both would listen on.
pub(super) fn shared(one: &Place, other: &Place) -> Option<String> {
    if let (Place::Unix(one), Place::Unix(other)) = (one, other) {
        let is_same = resolved(&one.path) == resolved(&other.path);
        return is_same.then(|| one.path.display().to_string());
    }
    let pairs = tcp(one)
        .iter()
        .flat_map(|one| tcp(other).iter().map(move |other| (*one, *other)));
    let mut both = pairs.filter(|(one, other)| overlap(*one, *other));
    let (one, other) = both.next()?;
    Some(
        if one.ip().is_unspecified() {
            other
        } else {
            one
        }
        .to_string(),
    )
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    if one.port() != other.port() || one.port() == 0 {
        return false;
    }
    let (all_of_one, all_of_other) = (one.ip().is_unspecified(), other.ip().is_unspecified());
    if one.is_ipv4() == other.is_ipv4() {
        return one.ip() == other.ip() || all_of_one || all_of_other;
    }
    // Of both families only `[::]` is, and it leaves out 0.0.0.0.
    let (v6_is_all, v4_is_all) = if one.is_ipv6() {
        (all_of_one, all_of_other)
    } else {
        (all_of_other, all_of_one)
    };
    v6_is_all && !v4_is_all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(addresses: [&str; 2]) -> Option<[bool; 2]> {
        let mut places = addresses.map(|text| {
            let addresses = text.split(' ').map(|one| one.parse().unwrap()).collect();
            Place::Tcp(TcpPlace {
                addresses,
                is_dual: true,
            })
        });
        settle(&mut places.each_mut().map(|place| place)[..]).ok()?;
        Some(places.map(|place| matches!(place, Place::Tcp(tcp) if tcp.is_dual)))
    }

    #[test]
    fn no_two_listeners_have_one_place() {
        for (addresses, wanted) in [
            (["127.0.0.1:1", "127.0.0.1:2"], Some([true, true])),
            (["127.0.0.1:0", "127.0.0.1:0"], Some([true, true])),
            (["127.0.0.1:1", "127.0.0.1:1"], None),
            (["127.0.0.1:1 [::1]:1", "[::1]:1"], None),
            (["0.0.0.0:1", "127.0.0.1:1"], None),
            (["[::]:1", "[::1]:1"], None),
            (["[::]:1", "127.0.0.1:1"], None),
            (["127.0.0.1:1", "[::]:1"], None),
            (["0.0.0.0:1", "[::1]:1"], Some([false, false])),
            (["[::]:1", "0.0.0.0:1"], Some([false, false])),
            (["[::]:1", "0.0.0.0:2"], Some([true, false])),
            (["[::]:0", "0.0.0.0:0"], Some([true, true])),
        ] {
            assert_eq!(settled(addresses), wanted, "{addresses:?}");
        }
    }
}
