//! Names of what a shard keeps, as its rooms and its neighbours say them.
//!
//! A key names one thing for good and says nothing of what it looks like: so whoever passes one on need
//! not know sessions, connections or groups.

use super::slots::Key;
use std::num::NonZeroU64;
use std::sync::Arc;

/// A shard's number.
pub type ShardId = u16;

/// Marks the names of sessions.
#[derive(Debug)]
pub enum OfSession {}

/// Marks the names of connections.
#[derive(Debug)]
pub enum OfConnection {}

/// Names a session on its shard.
pub type SessionKey = Key<OfSession>;
/// Names a connection on its shard.
pub type ConnectionKey = Key<OfConnection>;

/// A share group as a message remembers it: filter and share name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupKey {
    /// The filter, without share name.
    pub filter: Arc<str>,
    /// Share name.
    pub name: Arc<str>,
}

/// Names a QoS 2 publish of which something is kept, to the store and to other shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The shard that it came in by.
    pub shard: ShardId,
    /// Its number there, less than 2^55.
    pub number: NonZeroU64,
}

impl Origin {
    /// The publish with that number, `None` for number 0.
    #[must_use]
    pub fn new(shard: ShardId, number: u64) -> Option<Self> {
        let number = NonZeroU64::new(number)?;
        Some(Origin { shard, number })
    }
}

/// Names a session to the store; no other ever gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(pub NonZeroU64);
