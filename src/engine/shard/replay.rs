//! Retained messages for new subscriptions: asking and answering.
//!
//! A question to another shard, or to this one, is answered at the end of a drain that began after it
//! came ([`ShardCore::end_drain`]); an answer is worked off likewise, so that live messages which
//! were routed before the retained value changed are held by then.
//!
//! Not here: what waits for the last answer (`super::hold`).

use super::ShardCore;
use crate::engine::codec::topic::TopicFilter;
use crate::engine::keys::{SessionKey, ShardId};
use crate::engine::mail::{Mail, Phase, RetainedQuery};
use crate::engine::message::{LocalMessage, Qos};
use crate::engine::route::home_shard;
use crate::engine::route::retained::Answer;
use crate::engine::route::trie::NodeId;
use crate::engine::session::losses::LossReason;
use crate::engine::session::replay::Walk;
use crate::engine::session::{Delivery, SubscriptionIds};
use crate::engine::time::Timestamp;

/// Retained topics that a walk looks at in the time of a delivery.
const VISITS_PER_DELIVERY: usize = 2;

impl ShardCore {
    /// Every shard knows of these subscriptions now.
    pub(super) fn start_replays(
        &mut self,
        key: SessionKey,
        tasks: Vec<(NodeId, u64)>,
        now: Timestamp,
    ) {
        if tasks.is_empty() {
            return;
        }
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let Some(replay) = &mut session.replay else {
            return;
        };
        for (node, number) in tasks {
            replay.confirm(node, number);
        }
        self.pump_replay(key, now);
    }

    /// Asks for the next retained messages if the client keeps up; ends the replay if there is nothing
    /// more to ask for.
    pub(super) fn pump_replay(&mut self, key: SessionKey, now: Timestamp) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let Some(replay) = &mut session.replay else {
            return;
        };
        if replay.walk.is_none() {
            if replay.is_releasing {
                return;
            }
            let Some(task) = replay.take_next() else {
                if replay.is_over() {
                    self.release_held(key, now);
                }
                return;
            };
            let filter = TopicFilter::trusted(&task.filter);
            let (shard, last_shard) = if filter.has_wildcard() {
                (0, self.shards - 1)
            } else {
                let home = home_shard(&task.filter, self.shards);
                (home, home)
            };
            replay.walk = Some(Walk {
                task,
                shard,
                last_shard,
                cursor: None,
                asked: None,
            });
        }
        let has_room = session.outbound.queued() <= self.settings.limits.queue_messages_max / 2
            && session
                .connection
                .and_then(|connection| self.clients.connections.get(connection))
                .is_none_or(|connection| {
                    connection.outbox.bytes() <= self.clients.shortage.qos_0_bytes_max / 2
                });
        let Some(walk) = session
            .replay
            .as_mut()
            .and_then(|replay| replay.walk.as_mut())
        else {
            return;
        };
        if walk.asked.is_some() || !has_room {
            return;
        }
        let number = self.questions.next_number();
        walk.asked = Some(number);
        let query = RetainedQuery {
            session: key,
            query: number,
            filter: walk.task.filter.clone(),
            after: walk.cursor.clone(),
        };
        match walk.shard {
            shard if shard == self.id => self.questions.ask(shard, query),
            // Behind what this shard's clients had kept there: the answer must not be older.
            shard => self
                .staged
                .push(Phase::Retain, shard, Mail::RetainedQuery(query)),
        }
    }

    /// Answers a question; all updates that were visible when it came have been applied.
    pub(super) fn answer_query(&mut self, from: ShardId, query: RetainedQuery, now: Timestamp) {
        let filter = TopicFilter::trusted(&query.filter);
        let retained = self.retained_for(&query.filter);
        let answer = retained.answer(filter, query.after.as_ref(), now);
        self.backlog.spend(1 + answer.visited / VISITS_PER_DELIVERY);
        if from == self.id {
            return self.take_answer(query.session, query.query, answer, now);
        }
        let (session, query) = (query.session, query.query);
        self.staged.push(
            Phase::Live,
            from,
            Mail::RetainedAnswer {
                session,
                query,
                answer,
            },
        );
    }

    /// Delivers one step of an answer and goes on with the walk.
    pub(super) fn take_answer(
        &mut self,
        key: SessionKey,
        query: u64,
        answer: Answer,
        now: Timestamp,
    ) {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return;
        };
        let Some(replay) = &mut session.replay else {
            return;
        };
        let Some(walk) = replay
            .walk
            .as_mut()
            .filter(|walk| walk.asked == Some(query))
        else {
            return;
        };
        walk.asked = None;
        let (qos, subscription_id) = (walk.task.qos, walk.task.subscription_id);
        let (no_local, number) = (walk.task.no_local, walk.task.number);
        let is_last_step = answer.next.is_none();
        walk.cursor = answer.next;
        if is_last_step {
            if walk.shard < walk.last_shard {
                walk.shard += 1;
            } else {
                replay.end_walk();
            }
        }
        let mut deliveries = Vec::with_capacity(answer.messages.len());
        let mut lost = 0;
        for message in answer.messages {
            let message = LocalMessage::new(message);
            if no_local && replay.left_out.is_full(number) {
                lost += 1;
            } else if !(replay.held.has(&message)
                || no_local && replay.left_out.has(&message, number))
            {
                deliveries.push(retained_delivery(&message, qos, subscription_id));
            }
        }
        if lost > 0 {
            self.clients.lose(key, LossReason::ReplayFull, lost);
        }
        for delivery in deliveries {
            let message = delivery.message.clone();
            self.clients.deliver_kept(key, delivery, now);
            let held = self.clients.keep_held_behind(key, message.topic());
            self.backlog.spend(held);
        }
        self.pump_replay(key, now);
    }
}

/// The message of a retained answer as a delivery.
fn retained_delivery(message: &LocalMessage, qos: Qos, subscription_id: u32) -> Delivery {
    Delivery {
        message: message.clone(),
        qos: message.qos.min(qos),
        retain: true,
        subscription_ids: SubscriptionIds::one(subscription_id),
        group: None,
        entry: 0,
        queued_at_ds: 0,
    }
}
