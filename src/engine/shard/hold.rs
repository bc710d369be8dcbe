//! Live messages that wait behind retained ones, so that a stale value never comes last, and how they go.
//!
//! They go little by little: as long as one of a topic waits, those that follow do too.
//!
//! Invariant: a session of which some may go, or are to be looked at after an UNSUBSCRIBE, stands in
//! [`Releases`].

use super::ShardCore;
use super::clients::Clients;
use super::keeping::keep_entry;
use super::matches::Match;
use crate::engine::codec::topic::TopicName;
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::SessionKey;
use crate::engine::message::{LocalMessage, Qos};
use crate::engine::record::Record;
use crate::engine::route::trie::{NodeId, Trie};
use crate::engine::session::Delivery;
use crate::engine::session::losses::LossReason;
use crate::engine::session::replay::Replay;
use crate::engine::time::Timestamp;
use std::collections::VecDeque;

/// Work of a step, in eighths of a delivery: a message goes, a mark is taken away, ...
const RELEASE_WORK: usize = 16;
/// ... it is looked at whether subscriptions match a held message, ...
const MATCHING_WORK: usize = 64;
/// ... at one of them, or whether that is to be done.
const LOOK_WORK: usize = 2;
/// Steps for one session that are done at once.
const STEPS_AT_ONCE: usize = 64;

/// Sessions whose held messages are worked off over turns.
#[derive(Default)]
pub(super) struct Releases(VecDeque<SessionKey>);

impl Releases {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Clients {
    /// What is due to a session of retained messages, and what waits behind them.
    fn replay_of(&mut self, key: SessionKey) -> Option<&mut Replay> {
        self.sessions.get_mut(key)?.replay.as_deref_mut()
    }

    /// Puts a live message behind the retained ones that are still on their way, or behind those of its topic
    /// that wait for them; false if there are none.
    pub(super) fn hold(
        &mut self,
        publication: &mut Publication<'_>,
        matched: &Match,
        qos: Qos,
        retain: bool,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(matched.session) else {
            return false;
        };
        let limits = session.queue_limits(&self.settings.queue_limits());
        let Some(replay) = &mut session.replay else {
            return false;
        };
        if !matched.replaying && !replay.held.has_topic(publication.topic) {
            return false;
        }
        if publication.retain
            && matched.group.is_none()
            && let Some(confirmed) = self.routed_by
        {
            let topic = TopicName::trusted(publication.topic);
            self.looks += replay.unconfirmed() * LOOK_WORK;
            if replay.is_unknown(topic, matched.joined as usize, confirmed) {
                // The retained messages that are due are as new.
                return true;
            }
        }
        let message = publication.keep().clone();
        // As much as the session's queue may have, and no more than twice that with the queue: there it goes
        // when its turn comes, or at a start.
        let (queue, held) = (&session.outbound, &replay.held);
        let bytes = held.bytes() + replay.left_out.bytes() + message.size_bytes();
        if held.len() >= limits.messages_max
            || bytes > limits.bytes_max
            || queue.queued() + held.len() >= limits.messages_max.saturating_mul(2)
            || queue.queue_bytes() + bytes > limits.bytes_max.saturating_mul(2)
        {
            self.lose(matched.session, LossReason::ReplayFull, 1);
            return true;
        }
        let subscription_ids = matched.subscription_ids.clone();
        let group = matched.group.clone();
        let mut delivery = Delivery {
            message,
            qos,
            retain,
            subscription_ids,
            group,
            entry: 0,
            queued_at_ds: 0,
        };
        // Also while memory is short: an older one of its topic must not come behind the retained one.
        self.shortage.note_growth(session);
        // Its publisher is told that it is kept before it gets on.
        keep_entry(session, &mut self.journal, &mut delivery);
        if let Some(replay) = &mut session.replay {
            replay.held.push(delivery);
        }
        true
    }

    /// A retained message waits in the session's queue: held ones of its topic come behind it, and to the
    /// store, which has them in order of their numbers, they become new ones. How many.
    pub(super) fn keep_held_behind(&mut self, key: SessionKey, topic: &str) -> usize {
        let Some(session) = self.sessions.get_mut(key) else {
            return 0;
        };
        let is_sent = session.outbound.queued() == 0;
        let (Some(number), Some(replay)) = (session.number, &mut session.replay) else {
            return 0;
        };
        let mut count = 0;
        let (last, journal) = (&mut session.last_entry, &mut self.journal);
        replay.held.change_topic(topic, |delivery| {
            if is_sent || delivery.entry == 0 {
                return;
            }
            *last += 1;
            count += 1;
            let entry = std::mem::replace(&mut delivery.entry, *last);
            let session = number;
            let origin = journal.once.origin_of(session, entry);
            journal.queue(session, delivery.clone(), origin);
            journal.put(Record::Settled { session, entry });
        });
        count
    }

    /// A session's own publish does not go back to it by a subscription with No Local; nor does it by the
    /// retained messages that are still on their way to that subscription.
    #[cold]
    pub(super) fn leave_out(
        &mut self,
        publication: &mut Publication<'_>,
        session: SessionKey,
        replaying: bool,
    ) {
        if publication.retain
            && replaying
            && let Some(session) = self.sessions.get_mut(session)
            && let Some(replay) = &mut session.replay
        {
            replay.leave_out(publication.keep(), session.queue_bytes_max);
        }
    }
}

impl ShardCore {
    /// After an UNSUBSCRIBE: live messages that no subscription of the session asks for any more are
    /// dropped, and those that no retained message is due before any more go.
    pub(super) fn review_held(&mut self, key: SessionKey, now: Timestamp) {
        if let Some(replay) = self.clients.replay_of(key) {
            replay.held.begin_review();
            self.release_held(key, now);
        }
    }

    /// What waits in a session may go: some of it does at once, the rest over turns.
    pub(super) fn release_held(&mut self, key: SessionKey, now: Timestamp) {
        let Some(replay) = self.clients.replay_of(key) else {
            return;
        };
        if replay.is_releasing {
            return;
        }
        let (work, is_done) = self.go_on_with_held(key, now);
        self.backlog.spend_steps(work);
        if is_done {
            return;
        }
        if let Some(replay) = self.clients.replay_of(key) {
            replay.is_releasing = true;
            self.releases.0.push_back(key);
        }
    }

    /// Goes on with held messages, by the part of a turn's work that they have for themselves.
    pub(super) fn release_some(&mut self, now: Timestamp) {
        self.do_part(|core| {
            let key = core.releases.0.pop_front()?;
            let (work, is_done) = core.go_on_with_held(key, now);
            if !is_done {
                core.releases.0.push_back(key);
            } else if let Some(replay) = core.clients.replay_of(key) {
                replay.end_release();
                core.pump_replay(key, now);
            }
            Some(work)
        });
    }

    /// Some steps for one session: the work they took, and whether nothing more is to be done.
    fn go_on_with_held(&mut self, key: SessionKey, now: Timestamp) -> (usize, bool) {
        let work_max = self.backlog.part_of_turn();
        let mut work = 0;
        for _ in 0..STEPS_AT_ONCE {
            let Some(step) = self.step_with_held(key, now) else {
                return (work, true);
            };
            work += step;
            if work >= work_max {
                break;
            }
        }
        (work, false)
    }

    fn step_with_held(&mut self, key: SessionKey, now: Timestamp) -> Option<usize> {
        let session = self.clients.sessions.get_mut(key)?;
        let replay = session.replay.as_mut()?;
        if replay.released_until.is_none() && replay.is_over() {
            replay.released_until = Some(replay.held.end());
        }
        let Some(until) = replay.released_until else {
            return self.review_one(key, now);
        };
        if let Some(node) = replay.finished.pop_first() {
            if !replay.is_due(node)
                && let Some(entry) = self.trie.entry_mut(node)
                && let Some(known) = entry.local.find_mut(key)
            {
                known.replaying = false;
            }
            return Some(RELEASE_WORK);
        }
        let is_in_review = replay.held.is_in_review();
        let Some(delivery) = replay.held.take_first(until) else {
            replay.released_until = None;
            if !replay.is_over() || !replay.held.is_empty() {
                return Some(LOOK_WORK);
            }
            session.replay = None;
            self.disconnect_overflowed(now);
            return None;
        };
        let mut work = RELEASE_WORK;
        if is_in_review && delivery.group.is_none() {
            let (mut own, matching_work) = own(&self.trie, &delivery.message, key);
            if own.next().is_none() {
                drop(own);
                self.clients.settle(key, delivery.entry);
                return Some(matching_work);
            }
            work += matching_work;
        }
        self.clients.deliver_kept(key, delivery, now);
        Some(work)
    }

    /// Looks at the next held message after an UNSUBSCRIBE.
    fn review_one(&mut self, key: SessionKey, now: Timestamp) -> Option<usize> {
        let replay = self.clients.replay_of(key)?;
        let Some((place, delivery, is_first)) = replay.held.next_to_review() else {
            self.disconnect_overflowed(now);
            return None;
        };
        if !is_first {
            return Some(LOOK_WORK);
        }
        let message = delivery.message.clone();
        let mut is_asked_for = delivery.group.is_some();
        let (own, work) = own(&self.trie, &message, key);
        for (node, is_replaying) in own {
            is_asked_for = true;
            if is_replaying && replay.waits_for(node, place) {
                return Some(work);
            }
        }
        match replay.held.take(place) {
            Some(delivery) if is_asked_for => self.clients.deliver_kept(key, delivery, now),
            Some(delivery) => self.clients.settle(key, delivery.entry),
            None => {}
        }
        Some(work)
    }

    /// What was looked through for deliveries counts as work of this turn.
    pub(super) fn charge_looks(&mut self) {
        self.backlog
            .spend_steps(std::mem::take(&mut self.clients.looks));
    }
}

/// Where the trie has a session's own subscriptions that match a message's topic, and whether retained
/// messages are due to them; with the work that it takes to look.
fn own(
    trie: &Trie,
    message: &LocalMessage,
    key: SessionKey,
) -> (impl Iterator<Item = (NodeId, bool)>, usize) {
    let mut nodes = Vec::new();
    trie.matches(TopicName::trusted(message.topic()), &mut nodes);
    let work = MATCHING_WORK + nodes.len() * LOOK_WORK;
    let own = nodes.into_iter().filter_map(move |node| {
        let known = trie.entry(node)?.local.find(key)?;
        Some((node, known.replaying))
    });
    (own, work)
}
