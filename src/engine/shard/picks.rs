//! Share groups of a publish: a shard is picked for each group (4.8.2).
//!
//! Who picks for many groups does it over turns ([`Walk`]): what is published begins when all are picked.
//!
//! Not here: the member on that shard (`super::groups`).

use super::ShardCore;
use crate::engine::codec::topic::TopicFilter;
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::{GroupKey, ShardId};
use crate::engine::mail::Passed;
use crate::engine::route::ShardSet;
use crate::engine::route::shared::Group;
use crate::engine::route::trie::NodeId;
use crate::engine::time::Timestamp;
use std::rc::Rc;
use std::sync::Arc;

/// So many groups are picked for between two looks at what is left of a turn.
const PICKED_AT_ONCE: usize = 64;

/// A group that this shard was picked for, and where it stood then.
pub(super) struct Pick {
    key: Rc<GroupKey>,
    node: NodeId,
    place: u32,
}

/// The groups of one publish with the shards that were picked for them.
#[derive(Default)]
pub(super) struct Picks {
    pub(super) here: Vec<Pick>,
    /// By shard, as far as any was picked.
    elsewhere: Vec<Vec<GroupKey>>,
}

impl Picks {
    fn put(&mut self, id: ShardId, shard: ShardId, pick: Pick) {
        if shard == id {
            return self.here.push(pick);
        }
        let shard = usize::from(shard);
        if self.elsewhere.len() <= shard {
            self.elsewhere.resize_with(shard + 1, Vec::new);
        }
        if let Some(groups) = self.elsewhere.get_mut(shard) {
            groups.push((*pick.key).clone());
        }
    }

    /// The other shards that were picked.
    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> {
        let shards = (0..).zip(&self.elsewhere);
        shards.filter_map(|(shard, groups)| (!groups.is_empty()).then_some(shard))
    }

    /// The groups of another shard, once.
    pub(super) fn take(&mut self, shard: ShardId) -> Vec<GroupKey> {
        let groups = self.elsewhere.get_mut(usize::from(shard));
        groups.map(std::mem::take).unwrap_or_default()
    }
}

/// How far the groups on some filters are picked for. Groups come and go meanwhile; one that stays is met
/// once.
#[derive(Default)]
pub(super) struct Walk {
    /// Filters with groups that are left, the one at hand last.
    filters: Vec<(NodeId, Arc<str>)>,
    /// The last group on it that was met.
    after: Option<Arc<str>>,
    /// Room for places.
    places: Vec<u32>,
}

impl Walk {
    pub(super) const fn is_through(&self) -> bool {
        self.filters.is_empty()
    }
}

impl ShardCore {
    /// Picks a shard for each share group on these filters.
    pub(super) fn pick_groups(&mut self, nodes: &[NodeId], hash: u64, picks: &mut Picks) {
        let strategy = self.settings.shared_strategy;
        for &node in nodes {
            let Some(entry) = self.trie.entry_mut(node) else {
                continue;
            };
            for (place, group) in (0..).zip(entry.groups.iter_mut()) {
                if let Some(shard) = group.pick_shard(strategy, hash, ShardSet::default()) {
                    picks.put(self.id, shard, Pick::of(group, node, place));
                }
            }
        }
    }

    /// Begins to pick for the groups on these filters, over turns.
    pub(super) fn walk_groups(&self, nodes: &[NodeId]) -> Walk {
        let grouped = nodes.iter().filter_map(|&node| {
            let group = self.trie.entry(node)?.groups.first()?;
            Some((node, Arc::clone(&group.named.filter)))
        });
        Walk {
            filters: grouped.collect(),
            ..Walk::default()
        }
    }

    /// Picks for the next groups; how many were met.
    pub(super) fn pick_some(&mut self, walk: &mut Walk, hash: u64, picks: &mut Picks) -> usize {
        let strategy = self.settings.shared_strategy;
        let Some((node, filter)) = walk.filters.last() else {
            return 0;
        };
        let node = self.node_of(*node, filter);
        walk.places.clear();
        let entry = node.and_then(|node| Some((node, self.trie.entry_mut(node)?)));
        let (mut has_more, mut last) = (false, None);
        if let Some((node, entry)) = entry {
            let after = walk.after.as_ref();
            let groups = &mut entry.groups;
            has_more = groups.places_after(after, PICKED_AT_ONCE, &mut walk.places);
            for &place in &walk.places {
                let Some(group) = groups.at_mut(place as usize) else {
                    continue;
                };
                if let Some(shard) = group.pick_shard(strategy, hash, ShardSet::default()) {
                    picks.put(self.id, shard, Pick::of(group, node, place));
                }
            }
            let group = walk
                .places
                .last()
                .and_then(|&place| groups.get(place as usize));
            last = group.map(|group| Arc::clone(&group.named.name));
        }
        walk.after = last.filter(|_| has_more);
        if !has_more {
            walk.filters.pop();
        }
        walk.places.len()
    }

    /// Where the groups on a filter are now that were at a node.
    fn node_of(&self, node: NodeId, filter: &Arc<str>) -> Option<NodeId> {
        let group = self.trie.entry(node).and_then(|entry| entry.groups.first());
        if group.is_some_and(|group| group.named.filter == *filter) {
            return Some(node);
        }
        self.trie.find(TopicFilter::trusted(filter))
    }

    /// Delivers to a member of a group that this shard was picked for. The encoder has begun this publish.
    /// What it cost, in deliveries.
    pub(super) fn deliver_to_pick(
        &mut self,
        publication: &mut Publication<'_>,
        pick: &Pick,
        hash: u64,
        now: Timestamp,
    ) -> usize {
        let entry = self.trie.entry(pick.node);
        let group = entry.and_then(|entry| entry.groups.get(pick.place as usize));
        if group.is_some_and(|group| Rc::ptr_eq(&group.named, &pick.key)) {
            let at = (pick.node, pick.place as usize);
            self.deliver_to_member(publication, at, hash, Passed::default(), now)
        } else {
            self.deliver_to_group(publication, &pick.key, hash, Passed::default(), now)
        }
    }
}

impl Pick {
    fn of(group: &Group, node: NodeId, place: u32) -> Self {
        Pick {
            key: Rc::clone(&group.named),
            node,
            place,
        }
    }
}
