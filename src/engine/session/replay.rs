//! Retained messages on their way to a new subscription, and what waits behind them.
//!
//! Shards are asked one after the other (for a filter without wildcards only the topic's own), a
//! bounded answer at a time, and the next only when the client keeps up. Live messages for the
//! subscription are held until the last answer is delivered, so a stale value never comes last; a
//! retained message that is also held is delivered once, as live.

use super::held::Held;
use super::left_out::LeftOut;
use crate::engine::codec::topic::{TopicFilter, TopicName};
use crate::engine::keys::ShardId;
use crate::engine::message::{LocalMessage, Qos};
use crate::engine::route::retained::Cursor;
use crate::engine::route::trie::NodeId;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
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
    /// It leaves out what the session publishes itself from now on.
    pub no_local: bool,
    /// Change of this shard's interest that the other shards have to know of first.
    pub sequence: u64,
    /// Which it is: no other task of the shard has the same, for this may be gone when it is confirmed.
    pub number: u64,
    /// How often they are to be sent: once for each SUBSCRIBE.
    pub times: u64,
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

/// All that is due to one session. A subscription that is made again before its retained messages have
/// begun to come has one task, which is walked as often as it was made, after the last SUBSCRIBE
/// `[MQTT-3.8.4-3]`.
#[derive(Debug, Default)]
pub struct Replay {
    /// Tasks of which not every shard has confirmed to know, by node.
    unconfirmed: BTreeMap<NodeId, ReplayTask>,
    /// Tasks to walk.
    waiting: BTreeMap<NodeId, ReplayTask>,
    /// The walk under way.
    pub walk: Option<Walk>,
    /// Tasks that are over; their subscriptions are still marked.
    pub finished: BTreeSet<NodeId>,
    /// Live messages that wait.
    pub held: Held,
    /// Messages of the session itself that its walks leave out.
    pub left_out: LeftOut,
    /// This shard goes on with those that may go; no other walk begins meanwhile: what it finds is newer.
    pub is_releasing: bool,
    /// Those before this place go, whatever is asked for meanwhile.
    pub released_until: Option<u64>,
    /// Subscriptions that were made while some went: what was held before this place does not wait for them.
    made_since: BTreeMap<NodeId, u64>,
    /// Number of the last task.
    last: u64,
}

impl Replay {
    /// Retained messages are due to a subscription; in place of what was due to it and has not begun.
    /// Returns the number to [`Replay::confirm`] it by.
    pub fn ask(&mut self, task: ReplayTask) -> u64 {
        let (node, number) = (task.node, task.number);
        self.last = number;
        let known = [self.waiting.remove(&node), self.unconfirmed.remove(&node)];
        let times = known.iter().flatten().map(|known| known.times).sum::<u64>();
        let times = task.times + times;
        let task = ReplayTask { times, ..task };
        self.unconfirmed.insert(node, task);
        number
    }

    /// The session's own message did not come to its subscriptions with No Local: what is due to them leaves
    /// it out too, unless they are made anew. There may be marks for so many bytes, with what is held.
    pub fn leave_out(&mut self, message: &LocalMessage, bytes_max: usize) {
        let left = bytes_max.saturating_sub(self.held.bytes());
        self.left_out.add(message, self.last, left);
    }

    /// Every shard knows of a subscription: its task may be walked, if it is still due.
    pub fn confirm(&mut self, node: NodeId, number: u64) {
        if let Entry::Occupied(known) = self.unconfirmed.entry(node)
            && known.get().number == number
        {
            self.waiting.insert(node, known.remove());
        }
    }

    /// The next task to walk.
    pub fn take_next(&mut self) -> Option<ReplayTask> {
        self.waiting.pop_first().map(|(_, task)| task)
    }

    /// A walk is over. What is due once more waits for its turn again.
    pub fn end_walk(&mut self) {
        let Some(Walk { mut task, .. }) = self.walk.take() else {
            return;
        };
        self.finished.insert(task.node);
        task.times -= 1;
        if task.times == 0 {
            return;
        }
        let known = self.unconfirmed.get_mut(&task.node);
        match known.or(self.waiting.get_mut(&task.node)) {
            Some(known) => known.times += task.times,
            None => drop(self.waiting.insert(task.node, task)),
        }
    }

    /// Whether nothing is due any more, so that what is held may go.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.unconfirmed.is_empty() && self.waiting.is_empty() && self.walk.is_none()
    }

    /// A subscription is made to which nothing was due.
    pub fn note_new(&mut self, node: NodeId) {
        if self.is_releasing {
            self.made_since.insert(node, self.held.end());
        }
    }

    /// Whether what is held at `place` waits for what is due to the subscription at `node`.
    #[must_use]
    pub fn waits_for(&self, node: NodeId, place: u64) -> bool {
        self.made_since
            .get(&node)
            .is_none_or(|since| *since <= place)
    }

    /// Nothing more may go for now.
    pub fn end_release(&mut self) {
        self.is_releasing = false;
        self.made_since.clear();
    }

    /// Whether a walk for the subscription at `node` has still to begin.
    #[must_use]
    pub fn is_due(&self, node: NodeId) -> bool {
        self.unconfirmed.contains_key(&node) || self.waiting.contains_key(&node)
    }

    /// Tasks that [`Replay::is_unknown`] looks through.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// Whether all of a session's `joined` subscriptions that match a topic are unknown to a shard which
    /// has confirmed changes up to `confirmed`. What such a shard sends was routed for another
    /// subscription that is gone, and newer messages may not come; unless older ones wait, which then
    /// all do that follow.
    #[must_use]
    pub fn is_unknown(&self, topic: TopicName<'_>, joined: usize, confirmed: u64) -> bool {
        if self.unconfirmed.len() < joined || self.held.has_topic(topic.as_str()) {
            return false;
        }
        let unknown = self
            .unconfirmed
            .values()
            .filter(|task| task.sequence > confirmed)
            .filter(|task| TopicFilter::trusted(&task.filter).matches(topic));
        unknown.count() == joined
    }

    /// The subscription at `node` is gone: nothing is due for it any more.
    pub fn cancel(&mut self, node: NodeId) {
        self.unconfirmed.remove(&node);
        self.waiting.remove(&node);
        self.finished.remove(&node);
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
            no_local: false,
            sequence: 0,
            number: 0,
            times: 1,
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
            walk: Some(walk),
            finished: [1, 2].into(),
            ..Replay::default()
        };
        let number = replay.ask(task(1));
        replay.confirm(1, number);
        replay.ask(task(1));
        replay.ask(task(2));
        replay.cancel(1);
        let left: Vec<_> = replay.unconfirmed.keys().collect();
        assert_eq!((left, replay.waiting.len()), (vec![&2], 0));
        assert!(replay.finished == [2].into() && !replay.is_over());
        replay.cancel(2);
        assert!(replay.is_over());
    }

    #[test]
    fn a_subscription_that_is_made_again_has_one_task_and_waits_for_its_last_answer() {
        let mut replay = Replay::default();
        let numbered = |number| ReplayTask { number, ..task(1) };
        let first = replay.ask(numbered(1));
        let second = replay.ask(numbered(2));
        replay.confirm(1, first);
        assert!(replay.take_next().is_none(), "the second is not confirmed");
        replay.confirm(1, second);
        let third = replay.ask(numbered(3));
        assert!(replay.take_next().is_none(), "it is due after the third");
        replay.confirm(1, third);
        for left in (0..3).rev() {
            let task = replay.take_next().expect("once for each SUBSCRIBE");
            assert_eq!((task.number, task.times), (third, left + 1));
            assert!(replay.take_next().is_none());
            replay.walk = Some(Walk {
                task,
                shard: 0,
                last_shard: 0,
                cursor: None,
                asked: None,
            });
            replay.end_walk();
        }
        assert!(replay.is_over() && replay.finished == [1].into());
    }
}
