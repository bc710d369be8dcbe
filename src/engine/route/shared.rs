//! Share groups: the publisher's shard picks the shard, that shard picks the member (4.8.2).
//!
//! Every shard knows how many members each shard has and how many of them are connected. Connected
//! members are preferred; a group whose members are all away keeps its messages with one of them.

use super::ShardSet;
use super::members::{MemberLoad, Members, Picked, Way};
use super::subscriber::Subscriber;
use crate::engine::keys::{GroupKey, ShardId};
use crate::engine::listed::{Keyed, Listed};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// How a message finds its member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedStrategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest unacknowledged messages, on the shard whose turn it is; what a member of a
    /// large group acknowledges is noticed within as many messages as an eighth of the members.
    LeastInflight,
    /// The same one as long as it is there.
    Sticky,
    /// By the topic: the same topic goes to the same member.
    HashTopic,
    /// By the publisher's client identifier.
    HashPublisher,
}

/// Members of a group on one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCount {
    /// All, connected or not.
    pub members: u32,
    /// Connected ones.
    pub online: u32,
}

/// A share group on one filter.
#[derive(Debug)]
pub struct Group {
    /// Filter and share name, as messages for its members remember them.
    pub named: Rc<GroupKey>,
    /// Members on this shard.
    pub members: Members,
    counts: Vec<MemberCount>,
    turn: u64,
    sticky: Option<ShardId>,
    /// A message was left with a member here that is away, though others count as connected: they do not take
    /// it, or have left, which is not known here yet.
    has_left_over: bool,
}

impl Group {
    /// A group without members.
    #[must_use]
    pub fn new(named: &GroupKey, shards: ShardId) -> Self {
        Group {
            named: Rc::new(named.clone()),
            members: Members::default(),
            counts: vec![MemberCount::default(); usize::from(shards)],
            turn: 0,
            sticky: None,
            has_left_over: false,
        }
    }

    /// Notes the member counts of a shard. Returns whether somebody is connected by that who may take what
    /// waits with members here that are away, so that it should go there: the first one, or any if something
    /// was left although others were there.
    pub fn set_count(&mut self, shard: ShardId, count: MemberCount) -> bool {
        let was_online = self.has_online();
        let Some(known) = self.counts.get_mut(usize::from(shard)) else {
            return false;
        };
        // As many as before may be others.
        let may_be_new = count.online >= known.online;
        *known = count;
        let is_awaited = !was_online || self.has_left_over && may_be_new;
        is_awaited && count.online > 0 && self.members.len() > self.members.online()
    }

    /// A message is left with a member here that is away.
    pub fn leave_with_absent(&mut self) {
        self.has_left_over |= self.has_online();
    }

    /// What waits with members here that are away is about to be taken back.
    pub const fn recall(&mut self) {
        self.has_left_over = false;
    }

    /// The member counts of a shard.
    #[must_use]
    pub fn count(&self, shard: ShardId) -> MemberCount {
        self.counts
            .get(usize::from(shard))
            .copied()
            .unwrap_or_default()
    }

    /// Whether a member is connected, on whichever shard.
    #[must_use]
    pub fn has_online(&self) -> bool {
        self.counts.iter().any(|count| count.online > 0)
    }

    /// Whether no shard has a member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.counts.iter().all(|count| count.members == 0)
    }

    /// Picks the shard for a message; `hash` is the topic's or publisher's where the strategy wants
    /// one. `None` if there is no member left but on those `without`.
    pub fn pick_shard(
        &mut self,
        strategy: SharedStrategy,
        hash: u64,
        without: ShardSet,
    ) -> Option<ShardId> {
        let counts = || {
            let counts = (0..).zip(&self.counts);
            counts.filter(|(shard, _)| !without.contains(*shard))
        };
        let any_online = counts().any(|(_, count)| count.online > 0);
        let weight = |count: &MemberCount| {
            u64::from(if any_online {
                count.online
            } else {
                count.members
            })
        };
        let total: u64 = counts().map(|(_, count)| weight(count)).sum();
        if total == 0 {
            return None;
        }
        if strategy == SharedStrategy::Sticky
            && let Some(shard) = self.sticky
            && !without.contains(shard)
            && weight(&self.count(shard)) > 0
        {
            return Some(shard);
        }
        let mut position = match strategy {
            SharedStrategy::HashTopic | SharedStrategy::HashPublisher => hash % total,
            SharedStrategy::Sticky => 0,
            SharedStrategy::RoundRobin | SharedStrategy::LeastInflight => {
                self.turn = self.turn.wrapping_add(1);
                self.turn % total
            }
        };
        let mut picked = None;
        for (shard, count) in counts() {
            if position < weight(count) {
                picked = Some(shard);
                break;
            }
            position -= weight(count);
        }
        if picked.is_some() {
            self.sticky = picked;
        }
        picked
    }

    /// Picks the member on this shard. `load` tells for a subscriber whether it is connected and how
    /// much it has in flight, `None` if it must not get the message.
    pub fn pick_member(
        &mut self,
        strategy: SharedStrategy,
        hash: u64,
        load: impl Fn(&Subscriber) -> Option<MemberLoad>,
    ) -> Picked {
        let way = match strategy {
            SharedStrategy::RoundRobin => Way::Next,
            SharedStrategy::LeastInflight => Way::Least,
            SharedStrategy::Sticky => Way::Same,
            // The shard took `hash` modulo its total; the member takes other bits.
            SharedStrategy::HashTopic | SharedStrategy::HashPublisher => Way::Hash(hash >> 32),
        };
        self.members.pick(way, load)
    }
}

impl Keyed for Group {
    type Key = Arc<str>;

    fn key(&self) -> &Arc<str> {
        &self.named.name
    }
}

/// The share groups on a filter; most filters have none.
#[derive(Debug, Default)]
pub struct Groups(Option<Box<Listed<Group>>>);

impl Deref for Groups {
    type Target = [Group];

    fn deref(&self) -> &[Group] {
        self.0.as_ref().map_or(&[], |groups| groups)
    }
}

impl Groups {
    /// The group of that name.
    #[must_use]
    pub fn find(&self, name: &Arc<str>) -> Option<&Group> {
        self.0.as_ref()?.find(name)
    }

    /// The group of that name, to change it.
    pub fn find_mut(&mut self, name: &Arc<str>) -> Option<&mut Group> {
        self.0.as_mut()?.find_mut(name)
    }

    /// The group of that name, made if need be; one left empty must be [`Groups::prune`]d.
    pub fn find_or_add(&mut self, key: &GroupKey, shards: ShardId) -> Option<&mut Group> {
        let groups = self.0.get_or_insert_default();
        if groups.place(&key.name).is_none() {
            groups.put(Group::new(key, shards));
        }
        groups.find_mut(&key.name)
    }

    /// Where the group of that name stands, until one comes or goes.
    #[must_use]
    pub fn place(&self, name: &Arc<str>) -> Option<usize> {
        self.0.as_ref()?.place(name)
    }

    /// The group that stands there, to change it.
    pub fn at_mut(&mut self, place: usize) -> Option<&mut Group> {
        self.0.as_mut()?.at_mut(place)
    }

    /// Appends the places of the next groups after a name: at most `most` if there are many. Whether more
    /// follow. A walk that goes on later comes to each group that stays exactly once.
    pub fn places_after(&self, after: Option<&Arc<str>>, most: usize, into: &mut Vec<u32>) -> bool {
        let groups = self.0.as_ref();
        groups.is_some_and(|groups| groups.places_after(after, most, into))
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.0.iter_mut().flat_map(|groups| groups.iter_mut())
    }

    /// Removes the group of that name if it is empty.
    pub fn prune(&mut self, name: &Arc<str>) {
        if self.find_mut(name).is_some_and(|group| group.is_empty())
            && let Some(groups) = &mut self.0
        {
            groups.remove(name);
            if groups.is_empty() {
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> GroupKey {
        GroupKey {
            filter: "t".into(),
            name: name.into(),
        }
    }

    fn group(counts: &[(u32, u32)]) -> Group {
        let mut group = Group::new(&named("g"), counts.len() as ShardId);
        for (shard, &(members, online)) in (0..).zip(counts) {
            group.set_count(shard, MemberCount { members, online });
        }
        group
    }

    fn picks(group: &mut Group, strategy: SharedStrategy, rounds: u64) -> Vec<usize> {
        let mut counts = vec![0; group.counts.len()];
        for hash in 0..rounds {
            let shard = group
                .pick_shard(strategy, hash, ShardSet::default())
                .unwrap();
            counts[usize::from(shard)] += 1;
        }
        counts
    }

    #[test]
    fn shards_are_weighted_by_connected_members() {
        let mut group = group(&[(1, 1), (5, 3), (2, 0)]);
        assert_eq!(
            picks(&mut group, SharedStrategy::RoundRobin, 400),
            [100, 300, 0]
        );
        assert_eq!(
            picks(&mut group, SharedStrategy::HashTopic, 400),
            [100, 300, 0]
        );
        assert_eq!(
            picks(&mut group, SharedStrategy::Sticky, 10).iter().max(),
            Some(&10)
        );
    }

    #[test]
    fn absent_members_are_chosen_only_if_nobody_is_there() {
        let mut group = group(&[(0, 0), (2, 0)]);
        let mut only_1 = ShardSet::default();
        only_1.insert(1);
        assert!(!group.has_online());
        assert_eq!(
            group.pick_shard(SharedStrategy::RoundRobin, 0, ShardSet::default()),
            Some(1)
        );
        assert_eq!(
            group.pick_shard(SharedStrategy::RoundRobin, 0, only_1),
            None
        );
    }

    #[test]
    fn groups_of_one_filter_are_found_by_their_names() {
        let mut groups = Groups::default();
        let keys: Vec<_> = (0..1_000).map(|n| named(&n.to_string())).collect();
        let names: Vec<_> = keys.iter().map(|key| Arc::clone(&key.name)).collect();
        let count = MemberCount {
            members: 1,
            online: 0,
        };
        for key in &keys {
            groups.find_or_add(key, 2).unwrap().set_count(1, count);
            groups.find_or_add(key, 2).unwrap();
        }
        assert_eq!(groups.len(), names.len());
        groups.prune(&names[5]);
        assert!(groups.find_mut(&names[5]).is_some(), "it has a member");
        for name in &names {
            groups
                .find_mut(name)
                .unwrap()
                .set_count(1, MemberCount::default());
            groups.prune(name);
            assert!(groups.find_mut(name).is_none());
        }
        assert!(groups.is_empty() && groups.0.is_none());
    }
}
