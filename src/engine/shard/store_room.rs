//! What the store can take: who publishes what is to be kept waits, or is refused, while it cannot.
//!
//! Acknowledgements, deliveries and all that ends something go on: they are what makes room. A 5.0 client is
//! told of a full disk (0x97); one of 3.x cannot be, and is not read from that packet on.
//!
//! Invariant: who waits for the store stands in a list here, or is gone.
//!
//! Not here: how much waits and how full the disk is, which the driver knows.

use super::ShardCore;
use crate::engine::codec::Version;
use crate::engine::codec::publish::Publish;
use crate::engine::codec::topic::TopicName;
use crate::engine::keys::ConnectionKey;
use crate::engine::message::Qos;
use crate::engine::session::connection::Hold;

/// What the store can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreRoom {
    /// All there is.
    #[default]
    Enough,
    /// So much waits to be stored that no more should come.
    Behind,
    /// The disk is full: what is left is for what makes room.
    Full,
}

/// Whom that concerns.
#[derive(Debug, Default)]
pub(super) struct Store {
    room: StoreRoom,
    waiting: Vec<ConnectionKey>,
}

impl Store {
    /// Whether nothing new can be kept.
    pub(super) const fn is_full(&self) -> bool {
        matches!(self.room, StoreRoom::Full)
    }

    /// Whether who publishes has to wait.
    pub(super) const fn is_behind(&self) -> bool {
        !matches!(self.room, StoreRoom::Enough)
    }
}

impl ShardCore {
    /// Bytes of records that may wait to be stored before who publishes waits too.
    #[must_use]
    pub fn storage_pending_bytes_max(&self) -> usize {
        self.settings.storage_pending_bytes_max
    }

    /// What the store can take from now on.
    pub fn set_store_room(&mut self, room: StoreRoom) {
        let before = std::mem::replace(&mut self.store.room, room);
        if before != room && room != StoreRoom::Behind {
            // Whoever cannot go on yet waits anew.
            let waiting = std::mem::take(&mut self.store.waiting);
            self.backlog.go_on_with(waiting);
        }
    }

    /// A client's packet had something stored of which too much waits: the rest waits until it is.
    #[cold]
    pub(super) fn hold_for_store(&mut self, key: ConnectionKey) {
        self.store.waiting.push(key);
        self.hold(key, Hold::Store);
    }

    /// Whether a connection's packets wait for the store.
    pub(super) fn waits_for_store(&self, key: ConnectionKey) -> bool {
        let connection = self.clients.connections.get(key);
        connection.is_some_and(|connection| connection.hold == Some(Hold::Store))
    }

    /// Whether a publish has to wait since the disk is full and its client cannot be told.
    #[cold]
    pub(super) fn waits_for_disk(
        &mut self,
        key: ConnectionKey,
        version: Version,
        publish: &Publish<'_>,
    ) -> bool {
        let waits = !version.is_v5() && self.is_kept(publish, publish.topic);
        if waits {
            self.hold_for_store(key);
        }
        waits
    }

    /// Whether a publish is refused since the disk is full.
    #[cold]
    pub(super) fn finds_disk_full(&mut self, publish: &Publish<'_>, topic: &str) -> bool {
        let is_kept = self.is_kept(publish, topic);
        self.clients.counters.publishes_refused_storage += u64::from(is_kept);
        is_kept
    }

    /// Whether it would have to be kept before it is acknowledged: somebody subscribes, here or elsewhere,
    /// whose session outlives its connection, or it is retained.
    fn is_kept(&mut self, publish: &Publish<'_>, topic: &str) -> bool {
        if publish.qos == Qos::AtMostOnce {
            return false;
        }
        if publish.retain && !publish.payload.is_empty() {
            return true;
        }
        let Ok(topic) = TopicName::new(topic, self.settings.limits.topics()) else {
            return false;
        };
        let nodes = self.last_match.take(&self.trie, topic);
        let is_kept = nodes.iter().any(|&node| self.lasting.has_any(node));
        self.last_match.keep(nodes);
        is_kept
    }
}
