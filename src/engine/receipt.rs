//! What an acknowledgement waits for.

use crate::engine::route::ShardSet;

/// What has to be safe before an acknowledgement leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Everything up to this ticket is stored; 0 for nothing.
    pub ticket: u64,
    /// Everything retained up to this letter is visible to the shard that keeps it; 0 for nothing. Who
    /// hears of the acknowledgement and subscribes then finds no older value.
    pub letter: u64,
    /// By this number this shard asked others whether they have stored what they got; 0 if it asked none.
    pub number: u64,
    /// Of these, those that confirm it together with all before it.
    pub shards: ShardSet,
}
