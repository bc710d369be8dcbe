//! Publishes that go to so many that their fan-out takes several turns.
//!
//! First a shard is picked for each share group, over turns if they are very many. What others may learn of
//! a publish then happens at once: mail to other shards and what is retained is staged or kept, and who gets
//! it here is written down. Only the deliveries of this shard take their time, and with them the
//! acknowledgement.
//!
//! Invariants:
//! - one fan-out runs at a time, others wait for it in order. Who brought one brings no more until it is
//!   through: its connection is held, letters of its shard stay in their mailbox;
//! - nobody overtakes: what is published to the topic of one that runs or waits becomes one too;
//! - sessions that change their subscriptions, or who may read what, meanwhile are matched anew when it is
//!   their turn: nothing comes after UNSUBACK, and nothing passes by retained messages that are due.

use super::ShardCore;
use super::matches::{Match, Matches};
use super::picks::{Pick, Picks, Walk};
use crate::engine::codec::Reason;
use crate::engine::codec::topic::TopicName;
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::{ConnectionKey, GroupKey, Origin, SessionKey, ShardId};
use crate::engine::mail::{Asked, Passed};
use crate::engine::message::{LocalMessage, Qos};
use crate::engine::receipt::Receipt;
use crate::engine::route::ShardSet;
use crate::engine::route::subscriber::Subscriber;
use crate::engine::route::trie::NodeId;
use crate::engine::session::connection::Hold;
use crate::engine::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Subscribers that are written down in the time of a delivery.
const WRITTEN_PER_DELIVERY: usize = 64;

/// Where a publish came from.
#[derive(Debug)]
pub(super) enum Source {
    /// A client, whose connection is held.
    Client {
        connection: ConnectionKey,
        session: SessionKey,
        packet_id: u16,
    },
    /// Another shard.
    Shard {
        from: ShardId,
        /// The last change of interest that it had confirmed.
        confirmed: u64,
        /// Whether plain subscriptions may match.
        plain: bool,
        groups: Vec<GroupKey>,
        passed: Passed,
        /// Whether that shard waits until it is stored.
        asked: Asked,
    },
    /// A client that has gone.
    Will,
}

/// A publish that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub message: LocalMessage,
    pub publisher: Option<SessionKey>,
    /// For the shared strategy.
    pub hash: u64,
    pub source: Source,
}

/// Who gets a publish here, once each.
enum Receivers {
    /// Not written down: share groups are picked for first, and nobody has learnt of the publish.
    Picking(Walk, Picks),
    /// The subscriptions on one filter.
    Subscribers(Vec<Subscriber>),
    /// Subscriptions on several filters, of which a session may have some.
    Joining(Vec<Subscriber>, BTreeMap<SessionKey, u32>, Matches),
    /// What they were joined to.
    Matches(Matches),
}

impl Receivers {
    fn at(&mut self, place: usize) -> Option<Match> {
        match self {
            Receivers::Subscribers(list) => list.get(place).map(Match::of),
            Receivers::Picking(..) | Receivers::Joining(..) => None,
            Receivers::Matches(matches) => matches.at(place),
        }
    }
}

/// Share groups that get a publish here.
enum Groups {
    /// This shard picked itself for them.
    Picked(std::vec::IntoIter<Pick>),
    /// Another shard did.
    Named(std::vec::IntoIter<GroupKey>),
}

/// A publish whose deliveries are under way.
struct FanOut {
    taken: Taken,
    /// Whether anyone wanted it.
    matched: bool,
    /// The last ticket before it, and what its acknowledgement waits for so far.
    ticket: u64,
    receipt: Receipt,
    /// The number by which others are asked whether they have stored it, see [`super::receipts`].
    number: Option<u64>,
    /// Shards that had no room for its mail.
    full: ShardSet,
    receivers: Receivers,
    /// The one whose turn it is.
    next: usize,
    groups: Groups,
    /// Sessions that have changed their subscriptions since.
    changed: BTreeSet<SessionKey>,
    /// Access rules have changed since.
    checks_all: bool,
}

/// The fan-outs of one shard.
#[derive(Default)]
pub(super) struct FanOuts {
    running: Option<Box<FanOut>>,
    waiting: VecDeque<Taken>,
    /// What they are published to, and how many are.
    topics: BTreeMap<Box<str>, u32>,
    /// Shards whose mail waits.
    held: ShardSet,
    taken: u64,
    ended: u64,
    /// So many have to be through before retained messages are answered with; no more begin then.
    awaited: Option<u64>,
}

impl FanOuts {
    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.taken == self.ended
    }

    /// Whether a publish to a topic has to wait for them.
    pub(super) fn delay(&self, topic: &str) -> bool {
        !self.is_empty() && self.topics.contains_key(topic)
    }

    /// Whether those that are awaited are through, and the end of a drain is next.
    fn is_awaited(&self) -> bool {
        self.awaited.is_some_and(|count| self.ended >= count)
    }

    /// Whether one can go on now.
    pub(super) fn can_go_on(&self) -> bool {
        self.running.is_some() || !self.waiting.is_empty() && !self.is_awaited()
    }

    /// Nothing is awaited any more.
    pub(super) const fn release(&mut self) {
        self.awaited = None;
    }

    /// A session has changed its subscriptions, or what it may read.
    pub(super) fn note_change(&mut self, session: SessionKey) {
        if let Some(running) = &mut self.running {
            running.changed.insert(session);
        }
    }

    /// Access rules have changed.
    pub(super) fn check_all(&mut self) {
        if let Some(running) = &mut self.running {
            running.checks_all = true;
        }
    }

    /// Whether a client's publish is among them; its answer goes to that connection then.
    pub(super) fn answer_to(
        &mut self,
        session: SessionKey,
        packet_id: u16,
        to: ConnectionKey,
    ) -> bool {
        let running = self.running.as_mut().map(|running| &mut running.taken);
        let mut known = running.into_iter().chain(&mut self.waiting);
        let known = known.find_map(|taken| match &mut taken.source {
            Source::Client {
                connection,
                session: of,
                packet_id: id,
            } if *of == session && *id == packet_id => Some(connection),
            _ => None,
        });
        let is_known = known.is_some();
        if let Some(connection) = known {
            *connection = to;
        }
        is_known
    }

    /// Whether a session's publish is among them: it is accepted, and the store is told so at the end.
    pub(super) fn has(&self, session: SessionKey, packet_id: u16) -> bool {
        let running = self.running.as_ref().map(|running| &running.taken);
        running.into_iter().chain(&self.waiting).any(|taken| {
            matches!(taken.source, Source::Client { session: of, packet_id: id, .. }
                if of == session && id == packet_id)
        })
    }

    fn put(&mut self, taken: Taken) {
        let topic = taken.message.topic();
        if let Some(count) = self.topics.get_mut(topic) {
            *count += 1;
        } else {
            self.topics.insert(topic.into(), 1);
        }
        if let Source::Shard { from, .. } = taken.source {
            self.held.insert(from);
        }
        self.taken += 1;
        self.waiting.push_back(taken);
    }

    fn end(&mut self, taken: &Taken) {
        let topic = taken.message.topic();
        if let Some(count) = self.topics.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                self.topics.remove(topic);
            }
        }
        if let Source::Shard { from, .. } = taken.source {
            self.held.remove(from);
        }
        self.ended += 1;
    }
}

impl ShardCore {
    /// Whether fan-outs run or wait.
    #[must_use]
    pub const fn fans_out(&self) -> bool {
        !self.fan_outs.is_empty()
    }

    /// Whether letters of a shard have to wait: one that came before is still being delivered.
    #[must_use]
    pub const fn holds_mail_of(&self, from: ShardId) -> bool {
        self.fan_outs.held.contains(from)
    }

    /// Whether everything that was taken is delivered, so that no retained message comes before an older
    /// live one, or its own live copy: then [`ShardCore::end_drain`] may follow, and has to.
    pub fn may_end_drain(&mut self) -> bool {
        let fan_outs = &mut self.fan_outs;
        fan_outs.awaited.get_or_insert(fan_outs.taken);
        let may = fan_outs.is_awaited() && fan_outs.running.is_none();
        if may {
            fan_outs.awaited = None;
        }
        may
    }

    /// Routes a publish for which no connection waits: a will, or one of the broker's own. To very many it
    /// takes several turns.
    pub(super) fn route_unanswered(
        &mut self,
        mut publication: Publication<'_>,
        publisher: Option<SessionKey>,
        now: Timestamp,
    ) {
        let hash = publisher.map_or(0, |publisher| self.publisher_hash(publisher));
        let routed = self.route(&mut publication, publisher, hash, false, now);
        if routed.is_none() {
            self.take_fan_out(Taken {
                message: publication.keep().clone(),
                publisher,
                hash,
                source: Source::Will,
            });
        }
    }

    /// A publish takes several turns, or waits for one that does.
    pub(super) fn take_fan_out(&mut self, taken: Taken) {
        self.fan_outs.put(taken);
        if self.fan_outs.running.is_none() && self.can_fan_out() {
            self.begin_fan_out();
        }
    }

    /// Whether one can go on, or the next begin, in this turn.
    pub(super) fn can_fan_out(&self) -> bool {
        // In most turns there is none, which is asked first.
        if !self.fan_outs.can_go_on() {
            return false;
        }
        let may_go_on = self.fan_outs.running.is_some() || self.backlog.may_begin_fan_out();
        may_go_on && self.backlog.may_fan_out()
    }

    /// Begins the next one: all that does not take long, unless there are very many share groups.
    fn begin_fan_out(&mut self) {
        let Some(mut taken) = self.fan_outs.waiting.pop_front() else {
            return;
        };
        self.backlog.note_fan_out();
        let mut walk = Walk::default();
        let mut named = Vec::new();
        match &mut taken.source {
            Source::Shard { groups, .. } => named = std::mem::take(groups),
            Source::Client { .. } | Source::Will => {
                let topic = taken.message.topic();
                taken.hash = self.group_hash(topic, taken.hash);
                let nodes = self.last_match.take(&self.trie, TopicName::trusted(topic));
                walk = self.walk_groups(&nodes);
                self.last_match.keep(nodes);
            }
        }
        let mut fan_out = Box::new(FanOut {
            taken,
            matched: true,
            ticket: 0,
            receipt: Receipt::default(),
            number: None,
            full: ShardSet::default(),
            receivers: Receivers::Picking(walk, Picks::default()),
            next: 0,
            groups: Groups::Named(named.into_iter()),
            changed: BTreeSet::new(),
            checks_all: false,
        });
        while matches!(fan_out.receivers, Receivers::Picking(..)) && self.backlog.may_fan_out() {
            self.pick_next(&mut fan_out);
        }
        self.fan_outs.running = Some(fan_out);
    }

    /// Picks for the next share groups. After the last of them others learn of the publish.
    fn pick_next(&mut self, fan_out: &mut FanOut) {
        let Receivers::Picking(walk, picks) = &mut fan_out.receivers else {
            return;
        };
        let met = self.pick_some(walk, fan_out.taken.hash, picks);
        self.backlog.spend_on_groups(met);
        if walk.is_through() {
            let picks = std::mem::take(picks);
            self.begin_deliveries(fan_out, picks);
        }
    }

    /// What others may learn of a publish is staged or kept, and who gets it here is written down.
    fn begin_deliveries(&mut self, fan_out: &mut FanOut, mut picks: Picks) {
        let message = fan_out.taken.message.clone();
        let mut publication = Publication::of(&message);
        fan_out.ticket = self.clients.journal.last_ticket();
        let nodes = self
            .last_match
            .take(&self.trie, TopicName::trusted(publication.topic));
        self.staged.take_full();
        let mut wants_plain = true;
        let asks = match fan_out.taken.source {
            Source::Shard { asked, .. } => asked.receipt() > 0,
            Source::Client { .. } => self.settings.stores && publication.qos > Qos::AtMostOnce,
            Source::Will => false,
        };
        match fan_out.taken.source {
            Source::Client { .. } if asks => self.begin_publish(publication.qos),
            _ => self.receipts.begin(asks),
        }
        if let Source::Shard { plain, .. } = fan_out.taken.source {
            wants_plain = plain;
        } else {
            let hash = fan_out.taken.hash;
            (fan_out.matched, fan_out.receipt) =
                self.route_elsewhere(&mut publication, &nodes, &mut picks, hash);
            fan_out.groups = Groups::Picked(picks.here.into_iter());
        }
        fan_out.number = self.receipts.take();
        self.clients.journal.once.end();
        fan_out.full = self.staged.take_full();
        fan_out.receivers = if wants_plain {
            self.receivers(&nodes)
        } else {
            Receivers::Subscribers(Vec::new())
        };
        self.last_match.keep(nodes);
        // Whoever changed something before is written down as it is now.
        fan_out.changed.clear();
        fan_out.checks_all = false;
    }

    /// Writes down who has subscribed.
    fn receivers(&mut self, nodes: &[NodeId]) -> Receivers {
        let entries = nodes.iter().filter_map(|&node| self.trie.entry(node));
        let mut filled = entries.filter(|entry| !entry.local.is_empty());
        let Some(first) = filled.next() else {
            return Receivers::Subscribers(Vec::new());
        };
        let mut list = first.local.to_vec();
        let mut is_joined = false;
        for entry in filled {
            list.extend_from_slice(&entry.local);
            is_joined = true;
        }
        self.backlog.spend(list.len() / WRITTEN_PER_DELIVERY);
        if is_joined {
            Receivers::Joining(list, BTreeMap::new(), Matches::default())
        } else {
            Receivers::Subscribers(list)
        }
    }

    /// Goes on with fan-outs as far as this turn's work allows.
    pub(super) fn fan_out_further(&mut self, now: Timestamp) {
        while self.can_fan_out() {
            if self.fan_outs.running.is_none() {
                self.begin_fan_out();
            }
            let Some(mut running) = self.fan_outs.running.take() else {
                return;
            };
            self.clients.ready.change_rows();
            let is_through = self.deliver_some(&mut running, now);
            self.clients.ready.change_rows();
            if is_through {
                self.end_fan_out(*running, now);
            } else {
                self.fan_outs.running = Some(running);
            }
            self.disconnect_overflowed(now);
        }
    }

    /// Delivers to the next receivers; whether there are no more.
    fn deliver_some(&mut self, fan_out: &mut FanOut, now: Timestamp) -> bool {
        let message = fan_out.taken.message.clone();
        let mut publication = Publication::of(&message);
        self.clients.encoder.begin();
        if let Source::Shard {
            confirmed, asked, ..
        } = fan_out.taken.source
        {
            self.clients.routed_by = Some(confirmed);
            self.clients.passes_lasting_by = self.passes_lasting_by(asked);
        }
        self.resume_number(fan_out);
        let mut is_through = false;
        while !is_through && self.backlog.may_fan_out() {
            if let Receivers::Picking(..) = fan_out.receivers {
                self.pick_next(fan_out);
                self.resume_number(fan_out);
            } else if let Receivers::Joining(..) = fan_out.receivers {
                self.join_next(fan_out, &mut publication);
            } else if let Some(matched) = fan_out.receivers.at(fan_out.next) {
                fan_out.next += 1;
                self.backlog.spend_on_fan_out(&publication);
                if publication.is_expired(now) {
                    self.clients.counters.dropped_expired += 1;
                } else {
                    self.deliver_next(fan_out, &mut publication, matched, now);
                }
                let looks = std::mem::take(&mut self.clients.looks);
                self.backlog.spend_on_looks(looks);
            } else {
                is_through = !self.deliver_to_next_group(fan_out, &mut publication, now);
            }
        }
        self.clients.routed_by = None;
        self.clients.passes_lasting_by = false;
        fan_out.number = self.receipts.take();
        self.clients.journal.once.end();
        is_through
    }

    /// What is delivered from now on is asked about, and told to the store, under a fan-out's number.
    fn resume_number(&mut self, fan_out: &FanOut) {
        self.receipts.resume(fan_out.number);
        let number = fan_out.number.unwrap_or_default();
        let origin = match fan_out.taken.source {
            Source::Client { .. } => Origin::new(self.id, number),
            Source::Shard { from, asked, .. } => asked.origin(from),
            Source::Will => None,
        };
        let is_once = fan_out.taken.message.qos == Qos::ExactlyOnce;
        self.clients.journal.once.begin(origin.filter(|_| is_once));
    }

    /// Delivers to the next share group; whether there was one.
    fn deliver_to_next_group(
        &mut self,
        fan_out: &mut FanOut,
        publication: &mut Publication<'_>,
        now: Timestamp,
    ) -> bool {
        let Taken { hash, source, .. } = &fan_out.taken;
        let cost = match &mut fan_out.groups {
            Groups::Picked(groups) => groups
                .next()
                .map(|pick| self.deliver_to_pick(publication, &pick, *hash, now)),
            Groups::Named(groups) => {
                let passed = match source {
                    Source::Shard { passed, .. } => *passed,
                    _ => Passed::default(),
                };
                groups
                    .next()
                    .map(|group| self.deliver_to_group(publication, &group, *hash, passed, now))
            }
        };
        if let Some(cost) = cost {
            self.backlog.spend_on_groups(cost);
            self.backlog.spend_on_fan_out(publication);
        }
        cost.is_some()
    }

    /// Joins the next subscription to those of its session.
    fn join_next(&mut self, fan_out: &mut FanOut, publication: &mut Publication<'_>) {
        self.backlog.spend_on_joining();
        let Receivers::Joining(list, places, matches) = &mut fan_out.receivers else {
            return;
        };
        let Some(subscriber) = list.get(fan_out.next) else {
            let matches = std::mem::take(matches);
            fan_out.receivers = Receivers::Matches(matches);
            fan_out.next = 0;
            return;
        };
        fan_out.next += 1;
        if subscriber.no_local && Some(subscriber.session) == fan_out.taken.publisher {
            let (session, replaying) = (subscriber.session, subscriber.replaying);
            self.clients.leave_out(publication, session, replaying);
        } else {
            let known = places.get(&subscriber.session).copied();
            let place = matches.join(subscriber, known);
            places.insert(subscriber.session, place);
        }
    }

    fn deliver_next(
        &mut self,
        fan_out: &FanOut,
        publication: &mut Publication<'_>,
        mut matched: Match,
        now: Timestamp,
    ) {
        if matched.no_local && Some(matched.session) == fan_out.taken.publisher {
            let replaying = matched.replaying;
            return self
                .clients
                .leave_out(publication, matched.session, replaying);
        }
        if fan_out.changed.contains(&matched.session) {
            let publisher = fan_out.taken.publisher;
            let Some(anew) = self.match_anew(publication, matched.session, publisher) else {
                return;
            };
            matched = anew;
        }
        matched.checked |= fan_out.checks_all;
        self.clients.deliver(publication, &matched, now);
    }

    /// How a session gets a publish by the subscriptions that it has now.
    fn match_anew(
        &mut self,
        publication: &mut Publication<'_>,
        session: SessionKey,
        publisher: Option<SessionKey>,
    ) -> Option<Match> {
        let topic = publication.topic;
        let nodes = self.last_match.take(&self.trie, TopicName::trusted(topic));
        self.backlog.spend(nodes.len());
        let mut matches = Matches::default();
        let mut place = None;
        let entries = nodes.iter().filter_map(|&node| self.trie.entry(node));
        for own in entries.filter_map(|entry| entry.local.find(session)) {
            if own.no_local && Some(session) == publisher {
                self.clients.leave_out(publication, session, own.replaying);
            } else {
                place = Some(matches.join(own, place));
            }
        }
        self.last_match.keep(nodes);
        matches.at(0)
    }

    /// All is delivered: it is acknowledged, and who brought it goes on.
    fn end_fan_out(&mut self, fan_out: FanOut, now: Timestamp) {
        self.backlog.spend_on_joining();
        self.fan_outs.end(&fan_out.taken);
        if let Source::Shard { from, asked, .. } = fan_out.taken.source {
            self.receipts.resume(fan_out.number);
            let ticket = self.news_since(fan_out.ticket);
            return self.handled(from, asked, ticket);
        }
        let Source::Client {
            connection,
            session,
            packet_id,
        } = fan_out.taken.source
        else {
            return;
        };
        let mut receipt = Receipt {
            ticket: self.news_since(fan_out.ticket),
            number: fan_out.number.unwrap_or_default(),
            ..fan_out.receipt
        };
        let reason = if fan_out.matched {
            Reason::Success
        } else {
            Reason::NoMatchingSubscribers
        };
        let qos = fan_out.taken.message.qos;
        if qos == Qos::ExactlyOnce {
            self.keep_accepted(session, packet_id, &mut receipt);
        }
        self.answer_publish(connection, (qos, packet_id), reason, receipt, now);
        let known = self.clients.connections.get(connection);
        if known.is_some_and(|known| known.hold == Some(Hold::FanOut)) {
            self.release_from_fan_out(connection, fan_out.full, now);
        }
    }
}
