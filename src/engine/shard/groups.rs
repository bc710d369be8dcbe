//! The member of a share group that gets a message: picked here, or on another shard (4.8.2).
//!
//! Who cannot take it, since the client's maximum packet size is less, is passed by like one that may not
//! read it. What waits with members that are away goes to the first that is there again: over turns.
//!
//! Invariant: what is passed on by a queue or a window stands in `passed_on` until it has found its member.
//!
//! Not here: which shard is picked first (`super::picks`), and who is next among those that can
//! (`crate::engine::route::members`).

use super::ShardCore;
use super::backlog::{DELIVERY, GROUP_WORK};
use super::clients::PassedOn;
use super::matches::Match;
use super::receipts::Then;
use crate::engine::codec::topic::TopicFilter;
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::{GroupKey, SessionKey, ShardId};
use crate::engine::mail::{self, Mail, Passed, Phase};
use crate::engine::route::ShardSet;
use crate::engine::route::members::MemberLoad;
use crate::engine::route::shared::Group;
use crate::engine::route::subscriber::Subscriber;
use crate::engine::route::trie::NodeId;
use crate::engine::session::Delivery;
use crate::engine::time::Timestamp;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// What it costs to find a group by its name, in deliveries.
const FIND_WORK: usize = 4;
/// Messages that are taken out of a queue at once.
const TAKEN_AT_ONCE: usize = 256;
/// What it takes to pass one on, in deliveries.
const PASS_WORK: usize = 8;
/// Members or queued messages that are looked at in the time of a delivery.
const LOOKS_PER_DELIVERY: usize = 64;

/// Where a group stands: its filter's node, and its place among the groups there.
type Place = (NodeId, usize);

/// Why a message is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Because {
    /// Its member is away, and may keep it: only who is connected is better.
    Away,
    /// Nobody here takes so large a one.
    TooLarge,
    /// The members here are gone.
    Gone,
}

/// Groups of which a member is there again, so that what waits with others goes to it.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    due: BTreeSet<(NodeId, Arc<str>)>,
    /// The one at hand, and its members that have something: so many messages were queued when it began.
    current: Option<(GroupKey, Vec<(SessionKey, usize)>)>,
}

impl Recalls {
    fn is_empty(&self) -> bool {
        self.due.is_empty() && self.current.is_none()
    }

    /// The first member of a group is there.
    pub(super) fn add(&mut self, node: NodeId, name: &Arc<str>) {
        self.due.insert((node, Arc::clone(name)));
    }
}

impl ShardCore {
    /// Delivers to a member of a share group on this shard; if none is there any more that can take it,
    /// another shard picks again. The encoder has begun this publish. What it cost, in deliveries.
    pub(super) fn deliver_to_group(
        &mut self,
        publication: &mut Publication<'_>,
        key: &GroupKey,
        hash: u64,
        passed: Passed,
        now: Timestamp,
    ) -> usize {
        if let Some(at) = self.place_of_group(key) {
            return FIND_WORK + self.deliver_to_member(publication, at, hash, passed, now);
        }
        self.clients.counters.dropped_no_member += 1;
        FIND_WORK
    }

    /// Where a group stands.
    fn place_of_group(&self, key: &GroupKey) -> Option<Place> {
        let node = self.trie.find(TopicFilter::trusted(&key.filter))?;
        let place = self.trie.entry(node)?.groups.place(&key.name)?;
        Some((node, place))
    }

    fn group_at(&mut self, (node, place): Place) -> Option<&mut Group> {
        self.trie.entry_mut(node)?.groups.at_mut(place)
    }

    /// The same for a group that stands there.
    pub(super) fn deliver_to_member(
        &mut self,
        publication: &mut Publication<'_>,
        at: Place,
        hash: u64,
        mut passed: Passed,
        now: Timestamp,
    ) -> usize {
        let is_too_large = Cell::new(false);
        let picked = self.pick_member(publication, at, hash, now, Some(&is_too_large));
        let Some((named, picked, steps)) = picked else {
            self.clients.counters.dropped_no_member += 1;
            return GROUP_WORK;
        };
        let cost = GROUP_WORK + steps;
        let because = match picked {
            Some(member) if self.is_there(&member) => None,
            Some(_) => Some(Because::Away),
            None if is_too_large.get() => Some(Because::TooLarge),
            None => Some(Because::Gone),
        };
        let other = because.and_then(|because| self.next_shard(at, hash, &mut passed, because));
        if let Some(shard) = other {
            self.mail_to_group(publication, &named, hash, shard, passed);
            return cost;
        }
        if let Some(member) = picked {
            if because.is_some()
                && let Some(group) = self.group_at(at)
            {
                group.leave_with_absent();
            }
            let mut matched = Match::of(&member);
            matched.group = Some(named);
            self.clients.deliver(publication, &matched, now);
            return cost;
        }
        // Nobody takes so large a one: one of them has lost it.
        let anyone = match is_too_large.get() {
            true => self.pick_member(publication, at, hash, now, None),
            false => None,
        };
        match anyone.and_then(|(_, anyone, _)| anyone) {
            Some(member) => self.clients.deliver(publication, &Match::of(&member), now),
            None => self.clients.counters.dropped_no_member += 1,
        }
        cost
    }

    fn is_there(&self, member: &Subscriber) -> bool {
        let session = self.clients.sessions.get(member.session);
        session.is_some_and(|session| session.connection.is_some())
    }

    /// A group, the member of it whose turn it is on this shard, if one may and can get the message, and the
    /// steps that took. `is_too_large` is set where a client takes less; without it that is not looked at.
    fn pick_member(
        &mut self,
        publication: &Publication<'_>,
        (node, place): Place,
        hash: u64,
        now: Timestamp,
        is_too_large: Option<&Cell<bool>>,
    ) -> Option<(Rc<GroupKey>, Option<Subscriber>, usize)> {
        let strategy = self.settings.shared_strategy;
        let clients = &self.clients;
        let load = |subscriber: &Subscriber| {
            let session = clients.sessions.get(subscriber.session)?;
            if !clients.may_get(subscriber.session, subscriber.checked, publication.topic) {
                return None;
            }
            if let Some(is_too_large) = is_too_large
                && !clients.takes(session, subscriber, publication, now)
            {
                is_too_large.set(true);
                return None;
            }
            let outbound = &session.outbound;
            let inflight = usize::from(outbound.unacknowledged()) + outbound.queued();
            Some(MemberLoad {
                online: session.connection.is_some(),
                inflight,
            })
        };
        let group = self.trie.entry_mut(node)?.groups.at_mut(place)?;
        let picked = group.pick_member(strategy, hash, load);
        Some((Rc::clone(&group.named), picked.member, picked.steps))
    }

    /// The shard that a message goes to next, if any is better than this one: first one that was not tried,
    /// each once, then one where it can be kept. Where a member has come or gone since a shard was tried, it
    /// may be tried again, but not for ever.
    fn next_shard(
        &mut self,
        at: Place,
        hash: u64,
        passed: &mut Passed,
        because: Because,
    ) -> Option<ShardId> {
        let (strategy, id) = (self.settings.shared_strategy, self.id);
        let was_keeper = passed.keepers.contains(id);
        passed.tried.insert(id);
        passed.keepers.remove(id);
        let group = self.group_at(at)?;
        let fresh = group.pick_shard(strategy, hash, passed.tried);
        if because == Because::Away {
            let fresh = fresh.filter(|shard| group.count(*shard).online > 0);
            let other = fresh.or_else(|| {
                // Somebody has come there, or this shard has not heard yet that all have left.
                let mut keepers = passed.keepers.iter();
                let other = keepers.find(|shard| group.count(*shard).online > 0);
                other.filter(|_| passed.hop())
            });
            if other.is_some() {
                passed.keepers.insert(id);
            }
            return other;
        }
        if let Some(shard) = fresh.or_else(|| passed.keepers.iter().next()) {
            return Some(shard);
        }
        let is_new = was_keeper || because == Because::Gone;
        if !is_new || !passed.hop() {
            return None;
        }
        let mut here = ShardSet::default();
        here.insert(id);
        if was_keeper {
            // The member that was to keep it is back or gone: others may be, too.
            passed.tried = here;
        }
        group.pick_shard(strategy, hash, here)
    }

    fn mail_to_group(
        &mut self,
        publication: &mut Publication<'_>,
        key: &GroupKey,
        hash: u64,
        shard: ShardId,
        passed: Passed,
    ) {
        let letter = mail::Publish {
            message: publication.keep().share(),
            plain: false,
            groups: vec![key.clone()],
            hash,
            passed,
            asked: self.receipts.ask_by_itself(),
        };
        self.stage(Phase::Live, shard, Mail::Publish(letter));
    }

    /// Whether messages can be passed on now.
    pub(super) fn may_pass_on(&self) -> bool {
        let is_idle = self.clients.passed_on.is_empty() && self.recalls.is_empty();
        !is_idle && self.staged.blocked().is_empty()
    }

    /// Passes messages on, as far as the part of this turn's work allows that is theirs.
    pub(super) fn pass_some_on(&mut self, now: Timestamp) {
        self.do_part(|core| {
            if !core.may_pass_on() {
                return None;
            }
            let work = match core.clients.passed_on.pop_front() {
                Some(passed) => {
                    core.receipts.begin(passed.entry > 0);
                    core.begin_passing(passed.from, passed.entry);
                    core.pass_on(&passed.delivery, now);
                    core.clients.journal.once.end();
                    // It is over here when the other has it, on its shard.
                    let number = core.receipts.take().unwrap_or_default();
                    core.when_kept(number, ShardSet::default(), Then::Settle(passed));
                    PASS_WORK
                }
                None => core.recall_next(),
            };
            Some(work * DELIVERY)
        });
    }

    /// What one session of this shard gives to another is still of the same publish; another shard gets it as
    /// what counts at once.
    fn begin_passing(&mut self, from: SessionKey, entry: u64) {
        let session = self.clients.sessions.get(from);
        let number = session.and_then(|session| session.number);
        let once = &mut self.clients.journal.once;
        let origin = number.and_then(|number| once.origin_of(number, entry));
        once.begin(origin);
    }

    /// Gives a group's message to another member.
    fn pass_on(&mut self, delivery: &Delivery, now: Timestamp) {
        let Some(key) = &delivery.group else {
            return;
        };
        let mut publication = Publication::of(&delivery.message);
        if publication.is_expired(now) {
            self.clients.counters.dropped_expired += 1;
            return;
        }
        let hash = self.group_hash(publication.topic, 0);
        let strategy = self.settings.shared_strategy;
        let at = self.place_of_group(key);
        let group = at.and_then(|at| self.group_at(at));
        let shard = group.and_then(|group| group.pick_shard(strategy, hash, ShardSet::default()));
        match shard {
            None => self.clients.counters.dropped_no_member += 1,
            Some(shard) if shard == self.id => {
                self.clients.encoder.begin();
                let cost =
                    self.deliver_to_group(&mut publication, key, hash, Passed::default(), now);
                self.backlog.spend(cost);
            }
            Some(shard) => {
                self.mail_to_group(&mut publication, key, hash, shard, Passed::default());
            }
        }
    }

    /// Takes what waits with the next member that is away; what that costs.
    fn recall_next(&mut self) -> usize {
        let Some((key, mut members)) = self.recalls.current.take() else {
            return self.begin_recall();
        };
        let node = self.trie.find(TopicFilter::trusted(&key.filter));
        let entry = node.and_then(|node| self.trie.entry(node));
        let group = entry.and_then(|entry| entry.groups.find(&key.name));
        // Where all have left again it waits where it is.
        if !group.is_some_and(|group| group.has_online()) {
            return 1;
        }
        let Some((member, left)) = members.last_mut() else {
            return 1;
        };
        let member = *member;
        let max = TAKEN_AT_ONCE.min(*left);
        let session = self.clients.sessions.get_mut(member);
        let session = session.filter(|session| session.connection.is_none());
        let (taken, looks) = session.map_or((Vec::new(), 0), |session| {
            let queued = session.outbound.queued();
            (session.outbound.take_of_group(&key, max), queued)
        });
        // What nobody takes comes back, behind the others: it is not taken again.
        *left -= taken.len();
        if taken.len() < max || *left == 0 {
            members.pop();
        }
        let taken = taken.into_iter().map(|delivery| PassedOn {
            from: member,
            entry: delivery.entry,
            delivery,
        });
        self.clients.passed_on.extend(taken);
        self.recalls.current = Some((key, members));
        1 + looks / LOOKS_PER_DELIVERY
    }

    fn begin_recall(&mut self) -> usize {
        let Some((node, name)) = self.recalls.due.pop_first() else {
            return 1;
        };
        let Some(entry) = self.trie.entry_mut(node) else {
            return 1;
        };
        let Some(group) = entry.groups.find_mut(&name) else {
            return 1;
        };
        group.recall();
        let sessions = &self.clients.sessions;
        let waiting = |key: SessionKey| {
            let session = sessions.get(key)?;
            let queued = session.outbound.queued();
            (session.connection.is_none() && queued > 0).then_some((key, queued))
        };
        let members: Vec<_> = group.members.sessions().filter_map(waiting).collect();
        let looks = group.members.len();
        if !members.is_empty() {
            self.recalls.current = Some(((*group.named).clone(), members));
        }
        1 + looks / LOOKS_PER_DELIVERY
    }
}
