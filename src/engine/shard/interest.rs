//! Keeping the replicas of the trie in step: what this shard tells others of its interest, and what
//! waits until they have confirmed (DESIGN: routing).
//!
//! Changes of this shard are numbered. A shard confirms the last change it has applied, after all its
//! mail that was routed without it is visible. A SUBACK names the number it needs and waits for the
//! slowest shard; SUBACKs and UNSUBACKs leave in the order of their numbers.

use super::ShardCore;
use crate::engine::codec::subscribe::{encode_suback, encode_unsuback};
use crate::engine::codec::topic::TopicFilter;
use crate::engine::codec::{Reason, Version};
use crate::engine::keys::{ConnectionKey, SessionKey, ShardId};
use crate::engine::mail::{InterestChange, Mail, Phase};
use crate::engine::route::lasting::Lasting;
use crate::engine::route::trie::{NodeId, Trie};
use crate::engine::time::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most filters in acknowledgements that wait for other shards before SUBSCRIBE and UNSUBSCRIBE wait.
const PENDING_MAX: usize = 65_536;

/// Which packet a subscription change is answered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Suback,
    Unsuback,
}

/// A SUBACK or UNSUBACK that waits for the other shards.
#[derive(Debug)]
pub(super) struct Pending {
    /// The last change of interest ...
    pub sequence: u64,
    /// ... and of what is stored that the answer rests on.
    pub ticket: u64,
    pub connection: ConnectionKey,
    pub session: SessionKey,
    pub version: Version,
    pub packet_id: u16,
    pub answer: Answer,
    pub reasons: Vec<Reason>,
    /// Retained messages to send once everyone knows of the subscription.
    pub tasks: Vec<(NodeId, u64)>,
}

/// What one shard told and heard.
pub(super) struct Interest {
    id: ShardId,
    sequence: u64,
    confirmed: Vec<u64>,
    /// Last change of each shard that is applied but not confirmed.
    to_confirm: Vec<Option<u64>>,
    pending: VecDeque<Pending>,
    /// Filters in these.
    pending_filters: usize,
}

impl Interest {
    pub(super) fn new(id: ShardId, shards: ShardId) -> Self {
        let shards = usize::from(shards);
        Interest {
            id,
            sequence: 0,
            confirmed: vec![0; shards],
            to_confirm: vec![None; shards],
            pending: VecDeque::new(),
            pending_filters: 0,
        }
    }

    /// Whether so many acknowledgements wait that no more filters are taken for now.
    pub(super) fn is_congested(&self) -> bool {
        self.pending_filters >= PENDING_MAX
    }

    /// The last change.
    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The last change that one shard has confirmed.
    pub(super) fn confirmed_by(&self, shard: ShardId) -> u64 {
        let confirmed = self.confirmed.get(usize::from(shard));
        confirmed.copied().unwrap_or(u64::MAX)
    }

    /// Numbers a change.
    const fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The last change that every other shard has confirmed.
    fn confirmed_by_all(&self) -> u64 {
        let others = (0..)
            .zip(&self.confirmed)
            .filter(|(shard, _)| *shard != self.id);
        others
            .map(|(_, sequence)| *sequence)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Confirmations that are due, once per shard.
    pub(super) fn take_confirmations(&mut self) -> Vec<(ShardId, u64)> {
        let due = (0..).zip(&mut self.to_confirm);
        due.filter_map(|(shard, sequence)| Some((shard, sequence.take()?)))
            .collect()
    }

    /// Applies another shard's change to the replica. Returns the share group, with members here, that has
    /// somebody connected by it and had nobody.
    pub(super) fn apply(
        &mut self,
        trie: &mut Trie,
        lasting: &mut Lasting,
        shards: ShardId,
        from: ShardId,
        sequence: u64,
        change: &InterestChange,
    ) -> Option<(NodeId, Arc<str>)> {
        let mut awake = None;
        match change {
            InterestChange::Nothing => {}
            InterestChange::Add(filter) => {
                let node = trie.insert(TopicFilter::trusted(filter));
                if let Some(entry) = trie.entry_mut(node) {
                    entry.remote.insert(from);
                }
            }
            InterestChange::Remove(filter) => {
                if let Some(node) = trie.find(TopicFilter::trusted(filter)) {
                    if let Some(entry) = trie.entry_mut(node) {
                        entry.remote.remove(from);
                    }
                    trie.prune(node);
                }
            }
            InterestChange::Lasts(filter, lasts) => {
                if let Some(node) = trie.find(TopicFilter::trusted(filter)) {
                    lasting.set(node, from, *lasts);
                }
            }
            InterestChange::Group(key, count) => {
                let node = trie.insert(TopicFilter::trusted(&key.filter));
                if let Some(entry) = trie.entry_mut(node) {
                    if let Some(group) = entry.groups.find_or_add(key, shards)
                        && group.set_count(from, *count)
                    {
                        awake = Some((node, Arc::clone(&key.name)));
                    }
                    entry.groups.prune(&key.name);
                }
                trie.prune(node);
            }
        }
        if let Some(due) = self.to_confirm.get_mut(usize::from(from)) {
            *due = Some(sequence);
        }
        awake
    }
}

impl ShardCore {
    /// Tells all other shards of a change.
    pub(super) fn announce(&mut self, change: &InterestChange) {
        let sequence = self.interest.next();
        for shard in (0..self.shards).filter(|shard| *shard != self.id) {
            let change = change.clone();
            self.staged
                .push(Phase::Live, shard, Mail::Interest { sequence, change });
        }
    }

    /// A session that outlives its connection has subscribed on this shard, after others were told of the
    /// filter.
    pub(super) fn add_lasting(&mut self, node: NodeId) {
        if self.lasting.add(node) {
            self.announce_lasting(node, true);
        }
    }

    /// One such subscription goes, before others are told that the filter does.
    pub(super) fn remove_lasting(&mut self, node: NodeId) {
        if self.lasting.remove(node) {
            self.announce_lasting(node, false);
        }
    }

    fn announce_lasting(&mut self, node: NodeId, lasts: bool) {
        let filter = self.trie.shared_filter(node);
        self.announce(&InterestChange::Lasts(filter, lasts));
    }

    /// Tells other shards, which know nothing yet, of all such filters.
    pub(super) fn announce_all_lasting(&mut self) {
        let nodes: Vec<NodeId> = self.lasting.here().collect();
        for node in nodes {
            self.announce_lasting(node, true);
        }
    }

    /// Answers a SUBSCRIBE or UNSUBSCRIBE when every shard knows of everything announced so far, and that is
    /// stored.
    pub(super) fn answer_when_known(&mut self, mut pending: Pending, now: Timestamp) {
        pending.sequence = self.interest.sequence;
        pending.ticket = self.clients.journal.last_ticket();
        self.interest.pending_filters += pending.reasons.len();
        self.interest.pending.push_back(pending);
        self.release_pending(now);
    }

    pub(super) fn interest_confirmed(&mut self, from: ShardId, sequence: u64, now: Timestamp) {
        if let Some(known) = self.interest.confirmed.get_mut(usize::from(from)) {
            debug_assert!(sequence >= *known);
            *known = sequence;
        }
        self.release_pending(now);
    }

    /// Sends the answers that need not wait any longer.
    pub(super) fn release_pending(&mut self, now: Timestamp) {
        let confirmed = self.interest.confirmed_by_all();
        while self.interest.pending.front().is_some_and(|first| {
            first.sequence <= confirmed && self.clients.journal.is_stored(first.ticket)
        }) {
            let Some(pending) = self.interest.pending.pop_front() else {
                return;
            };
            self.interest.pending_filters -= pending.reasons.len();
            let (version, packet_id) = (pending.version, pending.packet_id);
            let reasons = &pending.reasons;
            self.control(pending.connection, |out| match pending.answer {
                Answer::Suback => encode_suback(packet_id, reasons, version, out),
                Answer::Unsuback => encode_unsuback(packet_id, reasons, version, out),
            });
            self.start_replays(pending.session, pending.tasks, now);
        }
    }
}
