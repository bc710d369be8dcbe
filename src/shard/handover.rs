//! A connection that came in at one shard and lives on another: what moves.

use crate::engine::access::Arrival;
use crate::shard::link::Link;
use crate::shard::peer::Peer;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// Where a connection came from; it moves with it to its home shard.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Number of the listener.
    pub listener: u16,
    /// The client, or its proxy as long as no other is known.
    pub peer: Peer,
    /// The address under which it is counted.
    pub counted: Option<IpAddr>,
    /// It is among the connections of that address (`limits.connections_per_address_max`).
    pub is_among: bool,
}

/// A connection on its way to its home shard.
#[derive(Debug)]
pub struct Handover {
    /// The socket.
    pub descriptor: OwnedFd,
    /// Everything received so far.
    pub bytes: Vec<u8>,
    /// Who it is, and since when.
    pub arrival: Arrival,
    /// Where it came from.
    pub origin: Origin,
    /// Its layers, in the middle of whatever they do.
    pub link: Option<Box<Link>>,
}
