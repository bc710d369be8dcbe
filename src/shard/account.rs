//! What a shard hands to whoever keeps account of clients.

use crate::engine::telemetry::notes::Note;
use std::net::SocketAddr;

/// A note, and where its connection comes from.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Number of the listener.
    pub listener: u16,
    /// The client's address.
    pub peer: Option<SocketAddr>,
    /// What happened.
    pub note: Note,
}
