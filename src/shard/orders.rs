//! What the control plane says to shards, and shards to it. Never on the data path: bounded channels,
//! looked at once per turn.

use crate::engine::access::acl::Acl;
use crate::engine::access::bans::BannedNames;
use crate::engine::bridge::line::News;
use crate::engine::keys::ShardId;
use crate::engine::shard::Settings;
use crate::shard::bans::BannedNetworks;
use crate::shard::bridge::{Parcel, SessionLoss};
use crate::shard::inquiries::{Inquiry, Told};
use crate::shard::opening::Opening;
use crate::shard::report::Report;
use crate::shard::ring::{RingError, Waker};
use crate::shard::transport::client::TlsSetup;
use crossbeam_channel::{Sender, TrySendError};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

/// Topics and values that the broker publishes itself, all of them each time.
pub type Announcements = Vec<(Box<str>, Box<str>)>;

/// An order to a shard.
#[derive(Clone, Debug)]
pub enum Order {
    /// Send gauges and counters, as the answer to the question of this number.
    Statistics(u64),
    /// New connections use these TLS settings, by the listeners' numbers; to be confirmed with this number.
    Tls(u64, Arc<[Option<Arc<TlsSetup>>]>),
    /// Access rules from now on; to be confirmed with this number.
    Acl(u64, Option<Arc<Acl>>),
    /// Settings and listeners from now on; to be confirmed with this number.
    Settings(u64, Arc<Settings>, Opening),
    /// Who is not served from now on; to be confirmed with this number.
    Bans(u64, Arc<BannedNames>, Arc<BannedNetworks>),
    /// Publish these values of the broker's own, by their topics, those that are not the same as before.
    Announce(Arc<Announcements>),
    /// Answer an operator's question.
    Inquire(Inquiry),
    /// Take over a bridge's connection.
    Line(Parcel),
    /// Leave memory that is free to all.
    Leave,
    /// Accept no more connections and publish the wills of those that are there.
    StopAccepting,
    /// Tell every client, close, and stop; at the latest at this time.
    Stop(Instant),
}

/// Orders to one shard. What finds no room waits here, the newest of each kind, so that a slow shard never
/// holds up the control plane or the others.
pub struct OrderQueue {
    sender: Sender<Order>,
    waiting: RefCell<VecDeque<Order>>,
}

impl OrderQueue {
    /// Orders go to `sender`.
    #[must_use]
    pub fn new(sender: Sender<Order>) -> Self {
        OrderQueue {
            sender,
            waiting: RefCell::default(),
        }
    }

    /// An order that takes the place of an older one of its kind that still waits, but for questions,
    /// bridges' connections and listeners: who asks bounds these, and each line has one at a time.
    pub fn push(&self, order: Order) {
        let mut waiting = self.waiting.borrow_mut();
        if !matches!(
            order,
            Order::Inquire(_) | Order::Line(_) | Order::Settings(..)
        ) {
            let kind = mem::discriminant(&order);
            waiting.retain(|older| mem::discriminant(older) != kind);
        }
        waiting.push_back(order);
    }

    /// Hands over what waits, as far as there is room; whether anything went.
    pub fn flush(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let before = waiting.len();
        while let Some(order) = waiting.pop_front() {
            // A shard that has stopped takes no order.
            if let Err(TrySendError::Full(order)) = self.sender.try_send(order) {
                waiting.push_front(order);
                break;
            }
        }
        waiting.len() < before
    }
}

/// What is ordered anew while shards work, and confirmed by each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloadable {
    /// TLS settings.
    Certificates,
    /// Access rules.
    Rules,
    /// Who is not served.
    Bans,
    /// Settings of the shards.
    Settings,
}

/// What a shard tells.
#[derive(Debug)]
pub enum Event {
    /// Its ring exists and can be woken.
    Ready(ShardId, Waker),
    /// It has begun to serve.
    Serving(ShardId),
    /// Gauges and counters, asked for by this number.
    Statistics(ShardId, u64, Box<Report>),
    /// The answer to the question of this number.
    Told(ShardId, u64, Told),
    /// What a bridge's connection of this number tells.
    Line(ShardId, u64, News),
    /// What waited for a bridge is dropped.
    BridgeLoss(SessionLoss),
    /// What was ordered by this number is in force there.
    Holds(ShardId, Reloadable, u64),
    /// It accepts no more, and its wills are visible to the other shards.
    Drained(ShardId),
    /// It has stopped.
    Stopped(ShardId),
    /// It cannot go on.
    Failed(ShardId, RingError),
    /// It has been built anew, with so many sessions.
    Restored(ShardId, usize),
    /// What was kept makes no sense.
    NotRestored(ShardId, String),
    /// There is no room to keep more; what has to be is not acknowledged meanwhile.
    StorageFull(String),
    /// There is room again.
    StorageHasRoom,
    /// Nothing can be kept any more.
    StorageFailed(String),
    /// Its thread has ended without a word.
    Vanished(ShardId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_takes_no_orders_gets_the_newest_of_each_kind_later() {
        let (sender, taken) = crossbeam_channel::bounded(1);
        let queue = OrderQueue::new(sender);
        queue.push(Order::StopAccepting);
        assert!(queue.flush());
        queue.push(Order::Tls(1, Arc::new([None])));
        queue.push(Order::Statistics(1));
        queue.push(Order::Tls(2, Arc::new([])));
        assert!(!queue.flush());
        let mut got = Vec::new();
        while let Ok(order) = taken.try_recv() {
            got.push(format!("{order:?}"));
            queue.flush();
        }
        assert_eq!(got, ["StopAccepting", "Statistics(1)", "Tls(2, [])"]);
    }
}
