//! Which members of share groups are connected: told to the groups, and to other shards, over turns.
//!
//! A client that comes and goes changes nothing but whom its groups prefer, so that may come a little late,
//! and what changes back before it was told is not told at all. Until then a group looks at each member
//! itself, and a shard without members passes on what it gets: no message is lost or held by it.
//!
//! Invariants: a session whose groups know otherwise is due; a group's own count is what was announced of it
//! unless the group stands in `unannounced`.

use super::ShardCore;
use crate::engine::keys::{GroupKey, SessionKey};
use crate::engine::mail::InterestChange;
use crate::engine::route::shared::{Group, MemberCount};
use crate::engine::route::trie::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Sessions with no more subscriptions tell their groups at once.
const AT_ONCE_MAX: usize = 64;
/// What it takes to look at a subscription and tell its group, in eighths of a delivery.
const TELL_STEPS: usize = 32;
/// Groups looked at per turn to be announced.
const ANNOUNCED_PER_TURN: usize = 128;
/// What it takes to announce one, in deliveries.
const ANNOUNCE_WORK: usize = 4;

/// What is still to be told.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Sessions whose groups are to be told.
    due: BTreeSet<SessionKey>,
    /// The one at hand, and how many of its subscriptions are left: the first ones, so that none is missed
    /// when the last one takes the place of one that goes.
    current: Option<(SessionKey, usize)>,
    /// Groups that have changed since they were announced, with what was announced.
    unannounced: BTreeMap<(NodeId, Arc<str>), MemberCount>,
}

/// How many members a group has on this shard now.
fn count_of(group: &Group) -> MemberCount {
    MemberCount {
        members: group.members.len() as u32,
        online: group.members.online() as u32,
    }
}

impl ShardCore {
    /// A session connected or disconnected: its share groups prefer members that are there.
    pub(super) fn groups_changed(&mut self, key: SessionKey) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let count = session.subscriptions.len();
        if count > AT_ONCE_MAX {
            self.presence.due.insert(key);
            if self
                .presence
                .current
                .is_some_and(|(current, _)| current == key)
            {
                self.presence.current = None;
            }
            return;
        }
        for place in 0..count {
            self.tell_group(key, place);
        }
    }

    /// Whether groups or other shards can be told something now.
    pub(super) fn may_tell(&self) -> bool {
        !self.presence.due.is_empty() || self.may_announce()
    }

    fn may_announce(&self) -> bool {
        !self.presence.unannounced.is_empty() && self.staged.blocked().is_empty()
    }

    /// Tells groups, then other shards, as far as the part of this turn's work allows that is theirs.
    pub(super) fn tell_some(&mut self) {
        self.do_part(|core| {
            let is_due = !core.presence.due.is_empty();
            is_due.then(|| {
                core.tell_next();
                TELL_STEPS
            })
        });
        for _ in 0..ANNOUNCED_PER_TURN {
            if !self.may_announce() {
                return;
            }
            let Some(((node, name), known)) = self.presence.unannounced.pop_first() else {
                return;
            };
            let entry = self.trie.entry(node);
            let count = entry.and_then(|entry| Some(entry.groups.find(&name)?.count(self.id)));
            if let Some(count) = count.filter(|count| *count != known) {
                self.announce_group(node, &name, count);
            }
        }
    }

    fn tell_next(&mut self) {
        let presence = &mut self.presence;
        let Some(key) = presence
            .current
            .map(|(key, _)| key)
            .or(presence.due.first().copied())
        else {
            return;
        };
        let session = self.clients.sessions.get(key);
        let all = session.map_or(0, |session| session.subscriptions.len());
        // It may have given up some of them since.
        let left = presence.current.map_or(all, |(_, left)| left.min(all));
        if left == 0 {
            presence.due.remove(&key);
            presence.current = None;
            return;
        }
        presence.current = Some((key, left - 1));
        self.tell_group(key, left - 1);
    }

    /// Tells the group of a session's subscription, if it is shared, whether the client is there.
    fn tell_group(&mut self, key: SessionKey, place: usize) {
        let Some(session) = self.clients.sessions.get(key) else {
            return;
        };
        let is_online = session.connection.is_some();
        let Some(subscription) = session.subscriptions.get(place) else {
            return;
        };
        let (node, Some(name)) = (subscription.node, &subscription.share) else {
            return;
        };
        let entry = self.trie.entry_mut(node);
        let Some(group) = entry.and_then(|entry| entry.groups.find_mut(name)) else {
            return;
        };
        let known = group.count(self.id);
        group.members.set_online(key, is_online);
        let count = count_of(group);
        if count != known {
            if group.set_count(self.id, count) {
                self.recalls.add(node, name);
            }
            if self.shards > 1 {
                let changed = (node, Arc::clone(name));
                self.presence.unannounced.entry(changed).or_insert(known);
            }
        }
    }

    /// This shard's members of a group have changed: brings their count up to date here and in the replicas.
    pub(super) fn count_members(&mut self, node: NodeId, name: &Arc<str>) {
        let Some(entry) = self.trie.entry_mut(node) else {
            return;
        };
        let Some(group) = entry.groups.find_mut(name) else {
            return;
        };
        let count = count_of(group);
        let mut known = group.count(self.id);
        if group.set_count(self.id, count) {
            self.recalls.add(node, name);
        }
        entry.groups.prune(name);
        if !self.presence.unannounced.is_empty()
            && let Some(announced) = self.presence.unannounced.remove(&(node, Arc::clone(name)))
        {
            known = announced;
        }
        if known != count && self.shards > 1 {
            self.announce_group(node, name, count);
        }
    }

    fn announce_group(&mut self, node: NodeId, name: &Arc<str>, count: MemberCount) {
        self.backlog.spend(ANNOUNCE_WORK);
        let key = GroupKey {
            filter: self.trie.shared_filter(node),
            name: Arc::clone(name),
        };
        self.announce(&InterestChange::Group(key, count));
    }
}
