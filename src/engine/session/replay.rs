//! Retained messages on their way to a new subscription, and what waits behind them.
//!
//! Shards are asked one after the other (for a filter without wildcards only the topic's own), a
//! bounded answer at a time, and the next only when the client keeps up. Live messages for the
//! subscription are held until the last answer is delivered, so a stale value never comes last; a
//! retained message that is also held is delivered once, as live.

use super::Delivery;
use crate::engine::codec::topic::{TopicFilter, TopicName};
use crate::engine::keys::ShardId;
use crate::engine::message::Qos;
use crate::engine::route::retained::Cursor;
use crate::engine::route::trie::NodeId;
use std::collections::VecDeque;
use std::sync::Arc;

/// A subscription whose retained messages are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayTask {
    /// Its filter.
    pub filter: Arc<str>,
    /// Where the trie has it.
    pub node: NodeId,
    /// Highest QoS.
    pub qos: Qos,
    /// Subscription identifier, 0 for none.
    pub subscription_id: u32,
    /// Change of this shard's interest that the other shards have to know of first.
    pub sequence: u64,
}

/// The walk that is under way.
#[derive(Debug)]
pub struct Walk {
    /// What it is for.
    pub task: ReplayTask,
    /// The shard that is asked.
    pub shard: ShardId,
    /// The last shard to ask.
    pub last_shard: ShardId,
    /// Where that shard goes on.
    pub cursor: Option<Cursor>,
    /// The question that is out; `None` while the client has to catch up.
    pub asked: Option<u64>,
}

/// All that is due to one session.
#[derive(Debug, Default)]
pub struct Replay {
    /// Tasks of which not every shard has confirmed to know.
    pub unconfirmed: Vec<ReplayTask>,
    /// Tasks to walk.
    pub waiting: VecDeque<ReplayTask>,
    /// The walk under way.
    pub walk: Option<Walk>,
    /// Tasks that are over; their subscriptions are still marked.
    pub finished: Vec<NodeId>,
    /// Live messages that wait.
    pub held: Vec<Delivery>,
    /// Bytes of the messages held.
    pub held_bytes: usize,
}

impl Replay {
    /// Whether nothing is due any more, so that what is held may go.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.unconfirmed.is_empty() && self.waiting.is_empty() && self.walk.is_none()
    }

    /// Whether messages of a topic wait.
    #[must_use]
    pub fn holds(&self, topic: &str) -> bool {
        self.held.iter().any(|held| held.message.topic() == topic)
    }

    /// Whether all of a session's `joined` subscriptions that match a topic are unknown to a shard which
    /// has confirmed changes up to `confirmed`. What such a shard sends was routed for another
    /// subscription that is gone, and newer messages may not come; unless older ones wait, which then
    /// all do that follow.
    #[must_use]
    pub fn is_unknown(&self, topic: TopicName<'_>, joined: usize, confirmed: u64) -> bool {
        let unknown = self
            .unconfirmed
            .iter()
            .filter(|task| task.sequence > confirmed)
            .filter(|task| TopicFilter::trusted(&task.filter).matches(topic));
        unknown.count() == joined && !self.holds(topic.as_str())
    }
    /// The subscription at `node` is gone: nothing is due for it any more.
    pub fn cancel(&mut self, node: NodeId) {
        self.unconfirmed.retain(|task| task.node != node);
        self.waiting.retain(|task| task.node != node);
        self.finished.retain(|finished| *finished != node);
        self.walk.take_if(|walk| walk.task.node == node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(node: NodeId) -> ReplayTask {
        ReplayTask {
            filter: "a".into(),
            node,
            qos: Qos::AtMostOnce,
            subscription_id: 0,
            sequence: 0,
        }
    }

    #[test]
    fn nothing_stays_due_to_a_subscription_that_is_gone() {
        let walk = Walk {
            task: task(1),
            shard: 0,
            last_shard: 0,
            cursor: None,
            asked: Some(1),
        };
        let mut replay = Replay {
            unconfirmed: vec![task(1), task(2)],
            waiting: [task(1)].into(),
            walk: Some(walk),
            finished: vec![1, 2],
            ..Replay::default()
        };
        replay.cancel(1);
        assert_eq!(
            (&replay.unconfirmed[..], &replay.finished[..]),
            (&[task(2)][..], &[2][..])
        );
        assert!(!replay.is_over());
        replay.cancel(2);
        assert!(replay.is_over());
    }
}
