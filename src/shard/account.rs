//! What a shard hands to whoever keeps account of clients.

use crate::engine::telemetry::notes::Note;
use crate::shard::peer::Peer;

/// A note, and where its connection comes from.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Number of the listener.
    pub listener: u16,
    /// Who it is; `None` if the connection is gone already.
    pub peer: Option<Peer>,
    /// Who has its session now, if that was taken over.
    pub by: Option<Peer>,
    /// What happened.
    pub note: Note,
}
