//! Who is at the other end of a connection. Every connection has one of these: there is no peer without
//! an address that could be taken for somebody who is trusted.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address and port; IPv4 is never written as IPv6.
    Internet(SocketAddr),
    /// A process of this machine, by a socket in the file system.
    Unix,
}

impl Peer {
    /// At an address; IPv4 written as IPv6 (`::ffff:10.0.0.1`) is IPv4.
    #[must_use]
    pub fn internet(address: SocketAddr) -> Self {
        Peer::Internet(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Its address and port, if it is elsewhere than in the file system.
    #[must_use]
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Peer::Internet(address) => Some(address),
            Peer::Unix => None,
        }
    }

    /// The address by which it is counted and banned.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        self.address().map(|address| address.ip())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Internet(address) => write!(f, "{address}"),
            Peer::Unix => f.write_str("a socket in the file system"),
        }
    }
}
