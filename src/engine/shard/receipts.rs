//! Receipts: what other shards have to have stored before an acknowledgement leaves, and what this one tells
//! them of theirs.
//!
//! A publish that others may have to keep gets a number. The letters of one go to each shard in the order of
//! their numbers, so that one number confirms all up to it. What may be overtaken is confirmed by itself: a
//! retained message, and what is passed on to another member of a share group. Who passes something on
//! confirms it when the next has: no number that others wait for waits for that, or two shards could wait for
//! each other.
//!
//! Invariants: a number in `open` has letters that are to be confirmed by themselves, one for each that it
//! counts; what waits for a number is looked at again when that is confirmed, and only then.
//!
//! Not here: which shards are asked ([`crate::engine::route::lasting`]), and the store ([`super::journal`]).

use super::ShardCore;
use super::clients::PassedOn;
use crate::engine::keys::{ConnectionKey, SessionKey, ShardId};
use crate::engine::mail::{Asked, Kept, Mail, Phase};
use crate::engine::receipt::{Level, Receipt};
use crate::engine::route::ShardSet;
use crate::engine::session::FixedMap;
use crate::engine::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What happens when others have stored what they were asked for.
pub(super) enum Then {
    /// The shard that asked this one is told, once that is stored here too.
    Confirm { to: ShardId, receipt: u64 },
    /// A message that was passed on is over where it was.
    Settle(PassedOn),
    /// A QoS 2 publish of a client is accepted: the store is told, and `number` is confirmed with that.
    Accept {
        session: SessionKey,
        packet_id: u16,
        number: u64,
        /// What the publish is called, and who else has something of it.
        publish: u64,
        shards: ShardSet,
    },
    /// That is stored.
    Accepted {
        session: SessionKey,
        packet_id: u16,
        number: u64,
    },
}

/// No letter has a number as high.
const ANSWERS_AFTER: u64 = 1 << 60;

/// Who waits for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waiter {
    /// What stands in `then` for it.
    Then,
    /// Its first acknowledgement does.
    Connection(ConnectionKey),
}

/// A QoS 2 publish of which the store has not confirmed that it is accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Accepting {
    number: u64,
    /// The store was told.
    is_told: bool,
}

/// A letter that was handled, to be confirmed with those before it.
struct Handled {
    receipt: u64,
    ticket: u64,
    /// It was passed on, and is confirmed by itself.
    is_passed_on: bool,
}

/// Those of one sender.
#[derive(Default)]
struct HandledLetters {
    queue: VecDeque<Handled>,
    /// So many of them it was told that they are written.
    written: usize,
}

impl HandledLetters {
    /// The next one that was not told of, if all up to its ticket is written.
    fn next_written(&mut self, is_written: impl Fn(u64) -> bool) -> Option<&Handled> {
        let next = self.queue.get(self.written);
        let next = next.filter(|next| is_written(next.ticket))?;
        self.written += 1;
        Some(next)
    }

    /// The next one, if all up to its ticket is stored.
    fn next_stored(&mut self, is_stored: impl Fn(u64) -> bool) -> Option<Handled> {
        let next = self.queue.front().filter(|next| is_stored(next.ticket));
        next?;
        self.written = self.written.saturating_sub(1);
        self.queue.pop_front()
    }
}

/// The receipts of one shard.
#[derive(Default)]
pub(super) struct Receipts {
    last: u64,
    /// Numbers by which only answers of this shard wait: others never hear them.
    answers: u64,
    /// While something is handled that others may be asked about: its number, 0 as long as none was.
    at_hand: Option<u64>,
    /// By shard, what it has confirmed together with all before; and what it has only written.
    kept_through: Vec<u64>,
    written_through: Vec<u64>,
    /// By number, confirmations that are to come by themselves. What is confirmed before it was said to be so
    /// counts as less than none.
    open: FixedMap<u64, i32>,
    /// Who waits for numbers of a shard, and for open ones.
    for_shard: Vec<BTreeSet<(u64, Waiter)>>,
    for_written: Vec<BTreeSet<(u64, Waiter)>>,
    for_open: BTreeSet<(u64, Waiter)>,
    then: FixedMap<u64, (ShardSet, Then)>,
    /// Connections whose first acknowledgement may not have to wait any more.
    due: VecDeque<ConnectionKey>,
    accepting: BTreeMap<(SessionKey, u16), Accepting>,
    /// By sender, letters that were handled.
    handled: Vec<HandledLetters>,
    /// Whether senders are told what is only written.
    tells_written: bool,
    /// What is done when a ticket is stored.
    after_store: VecDeque<(u64, Then)>,
    /// By shard, what it is to be told.
    news: Vec<Kept>,
    /// Those for which there is something.
    has_news: ShardSet,
}

impl Receipts {
    /// Others are told what is only written, where somebody may wait for it.
    pub(super) fn new(tells_written: bool) -> Self {
        Receipts {
            tells_written,
            ..Receipts::default()
        }
    }

    /// Others may be asked about what is handled from now on.
    pub(super) const fn begin(&mut self, asks: bool) {
        self.at_hand = if asks { Some(0) } else { None };
    }

    /// The same, under a number whether others are asked or not.
    pub(super) const fn begin_numbered(&mut self) -> u64 {
        let number = self.next();
        self.at_hand = Some(number);
        number
    }

    /// Numbers to come are higher.
    pub(super) fn count_after(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    /// The last number.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Goes on with that of something that takes several turns.
    pub(super) const fn resume(&mut self, at_hand: Option<u64>) {
        self.at_hand = at_hand;
    }

    /// Whether others may be asked about what is handled.
    pub(super) const fn may_ask(&self) -> bool {
        self.at_hand.is_some()
    }

    /// That is over; its number, if somebody was asked, or whether somebody could have been.
    pub(super) const fn take(&mut self) -> Option<u64> {
        self.at_hand.take()
    }

    const fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    const fn next_answer(&mut self) -> u64 {
        self.answers += 1;
        ANSWERS_AFTER + self.answers
    }

    /// The number of what is at hand; 0 if nobody is asked about it.
    fn number(&mut self) -> u64 {
        match self.at_hand {
            None => 0,
            Some(0) => {
                let number = self.next();
                self.at_hand = Some(number);
                number
            }
            Some(number) => number,
        }
    }

    /// For a letter to a shard that is not asked.
    pub(super) const fn ask_nothing(&self) -> Asked {
        match self.at_hand {
            Some(_) => Asked::in_order(0),
            None => Asked::by_nobody(),
        }
    }

    /// For a letter that goes to its shard in order.
    pub(super) fn ask_in_order(&mut self) -> Asked {
        Asked::in_order(self.number())
    }

    /// For a letter that others may overtake.
    pub(super) fn ask_by_itself(&mut self) -> Asked {
        let number = self.number();
        if number == 0 {
            return Asked::default();
        }
        self.count(number, 1);
        Asked::by_itself(number)
    }

    /// Whether a number is open no longer by that.
    fn count(&mut self, number: u64, by: i32) -> bool {
        let count = self.open.entry(number).or_default();
        *count += by;
        let is_over = *count == 0;
        if is_over {
            self.open.remove(&number);
        }
        is_over
    }

    fn has_confirmed(&self, shard: ShardId, number: u64, level: Level) -> bool {
        let through = if level == Level::Disk {
            &self.kept_through
        } else {
            &self.written_through
        };
        let through = through.get(usize::from(shard));
        through.is_some_and(|through| *through >= number)
    }

    /// Whether what others were asked for is as safe as it has to be.
    #[inline]
    pub(super) fn is_safe(&self, receipt: Receipt) -> bool {
        let Receipt { number, shards, .. } = receipt;
        number == 0 || self.is_confirmed(number, shards, receipt.level)
    }

    /// Whether all who were asked have stored it.
    #[inline]
    pub(super) fn is_kept(&self, number: u64, shards: ShardSet) -> bool {
        number == 0 || self.is_confirmed(number, shards, Level::Disk)
    }

    fn is_confirmed(&self, number: u64, shards: ShardSet, level: Level) -> bool {
        let mut shards = shards.iter();
        shards.all(|shard| self.has_confirmed(shard, number, level))
            && !self.open.contains_key(&number)
    }

    /// A connection's first acknowledgement waits for others.
    pub(super) fn wait(&mut self, connection: ConnectionKey, receipt: Receipt) {
        let waiter = Waiter::Connection(connection);
        self.wait_for(receipt.number, receipt.shards, receipt.level, waiter);
    }

    fn wait_for(&mut self, number: u64, shards: ShardSet, level: Level, waiter: Waiter) {
        let next = shards
            .iter()
            .find(|shard| !self.has_confirmed(*shard, number, level));
        let list = match next {
            Some(shard) if level == Level::Disk => row(&mut self.for_shard, shard),
            Some(shard) => row(&mut self.for_written, shard),
            None => &mut self.for_open,
        };
        list.insert((number, waiter));
    }

    /// The next connection that may not have to wait any more.
    pub(super) fn next_due(&mut self) -> Option<ConnectionKey> {
        self.due.pop_front()
    }

    /// Those that wait for an open number are looked at again.
    fn wake_open(&mut self, number: u64, woken: &mut Vec<(u64, Waiter)>) {
        while let Some(first) = self
            .for_open
            .range((number, Waiter::Then)..)
            .next()
            .copied()
        {
            if first.0 != number {
                return;
            }
            self.for_open.remove(&first);
            woken.push(first);
        }
    }

    /// A shard has stored what it was asked for. What is to happen now.
    fn hear(&mut self, from: ShardId, kept: &Kept) -> Vec<Then> {
        let mut woken = Vec::new();
        for number in &kept.without {
            self.count(*number, 1);
        }
        let known = row(&mut self.kept_through, from);
        *known = kept.through.max(*known);
        let written = row(&mut self.written_through, from);
        *written = kept.written.max(*known).max(*written);
        let written = *written;
        for number in &kept.single {
            if self.count(*number, -1) {
                self.wake_open(*number, &mut woken);
            }
        }
        take_through(row(&mut self.for_shard, from), kept.through, &mut woken);
        take_through(row(&mut self.for_written, from), written, &mut woken);
        self.wake(woken)
    }

    fn wake(&mut self, woken: Vec<(u64, Waiter)>) -> Vec<Then> {
        let mut then = Vec::new();
        for (number, waiter) in woken {
            match waiter {
                Waiter::Connection(key) => self.due.push_back(key),
                Waiter::Then => {
                    let Some((shards, _)) = self.then.get(&number) else {
                        continue;
                    };
                    let shards = *shards;
                    if self.is_kept(number, shards) {
                        then.extend(self.then.remove(&number).map(|(_, then)| then));
                    } else {
                        self.wait_for(number, shards, Level::Disk, waiter);
                    }
                }
            }
        }
        then
    }

    /// A shard is told that something of its is stored, by itself.
    fn confirm(&mut self, to: ShardId, receipt: u64) {
        row(&mut self.news, to).single.push(receipt);
        self.has_news.insert(to);
    }

    /// A shard is told that a QoS 2 publish is complete of which it has something.
    pub(super) fn tell_complete(&mut self, to: ShardId, number: u64) {
        row(&mut self.news, to).complete.push(number);
        self.has_news.insert(to);
    }

    /// Whether a shard can be told something now.
    pub(super) fn can_tell(&self, blocked: ShardSet) -> bool {
        let mut telling = self.has_news;
        telling.remove_all(blocked);
        !telling.is_empty()
    }

    /// Whether a QoS 2 publish is accepted of which the store was not told yet.
    pub(super) fn is_accepting(&self, session: SessionKey, packet_id: u16) -> bool {
        let accepting = self.accepting.get(&(session, packet_id));
        accepting.is_some_and(|accepting| !accepting.is_told)
    }

    /// A client's packet identifier is free.
    pub(super) fn release(&mut self, session: SessionKey, packet_id: u16) {
        if !self.accepting.is_empty() {
            self.accepting.remove(&(session, packet_id));
        }
    }

    /// What the answer to a repeated QoS 2 publish waits for beside the store.
    pub(super) fn of_repeat(&self, session: SessionKey, packet_id: u16) -> u64 {
        let accepting = self.accepting.get(&(session, packet_id));
        accepting.map_or(0, |accepting| accepting.number)
    }

    /// Messages that were passed on and are not stored where they went.
    pub(super) fn passed_on(&self) -> impl Iterator<Item = &PassedOn> {
        let then = self.then.values().map(|(_, then)| then);
        then.filter_map(|then| match then {
            Then::Settle(passed) => Some(passed),
            _ => None,
        })
    }
}

/// Takes those that wait for numbers up to this one.
fn take_through(
    waiting: &mut BTreeSet<(u64, Waiter)>,
    through: u64,
    woken: &mut Vec<(u64, Waiter)>,
) {
    while let Some(first) = waiting.first().copied()
        && first.0 <= through
    {
        waiting.pop_first();
        woken.push(first);
    }
}

/// A shard's place in a list by shard.
fn row<T: Default>(rows: &mut Vec<T>, shard: ShardId) -> &mut T {
    let at = usize::from(shard);
    if rows.len() <= at {
        rows.resize_with(at + 1, T::default);
    }
    &mut rows[at]
}

impl ShardCore {
    /// Does something when all who were asked under a number have stored what they got.
    pub(super) fn when_kept(&mut self, number: u64, shards: ShardSet, then: Then) {
        if self.receipts.is_kept(number, shards) {
            return self.go_on_with(then);
        }
        let waiter = Waiter::Then;
        self.receipts.wait_for(number, shards, Level::Disk, waiter);
        self.receipts.then.insert(number, (shards, then));
    }

    fn go_on_with(&mut self, then: Then) {
        match then {
            Then::Confirm { to, receipt } => self.when_stored(Then::Confirm { to, receipt }),
            Then::Settle(passed) => self.clients.settle(passed.from, passed.entry),
            Then::Accept {
                session,
                packet_id,
                number,
                publish,
                shards,
            } => {
                let key = (session, packet_id);
                let accepting = self.receipts.accepting.get_mut(&key);
                let accepting = accepting.filter(|known| known.number == number);
                // What is kept of it counts also where the client has gone meanwhile.
                let accepted = accepting.map(|accepting| {
                    accepting.is_told = true;
                    key
                });
                self.tell_accepted(accepted, publish, shards);
                self.when_stored(Then::Accepted {
                    session,
                    packet_id,
                    number,
                });
            }
            Then::Accepted { .. } => self.when_stored(then),
        }
    }

    /// Does something when all that was told to the store so far is stored.
    fn when_stored(&mut self, then: Then) {
        let ticket = self.clients.journal.last_ticket();
        self.receipts.after_store.push_back((ticket, then));
        self.go_on_with_stored();
    }

    fn go_on_with_stored(&mut self) {
        while let Some((ticket, _)) = self.receipts.after_store.front()
            && self.clients.journal.is_stored(*ticket)
            && let Some((_, then)) = self.receipts.after_store.pop_front()
        {
            match then {
                Then::Confirm { to, receipt } => self.receipts.confirm(to, receipt),
                Then::Accepted {
                    session,
                    packet_id,
                    number,
                } => self.end_accepting(session, packet_id, number),
                Then::Settle(_) | Then::Accept { .. } => self.go_on_with(then),
            }
        }
    }

    fn end_accepting(&mut self, session: SessionKey, packet_id: u16, number: u64) {
        let receipts = &mut self.receipts;
        let key = (session, packet_id);
        if receipts.of_repeat(session, packet_id) == number {
            receipts.accepting.remove(&key);
        }
        let mut woken = Vec::new();
        if receipts.count(number, -1) {
            receipts.wake_open(number, &mut woken);
        }
        for then in receipts.wake(woken) {
            self.go_on_with(then);
        }
    }

    /// A QoS 2 publish that others were asked about: the store is told that it is accepted only when they
    /// have stored it, or a client that sends it again would be told that it is kept. Its answer waits for
    /// that.
    pub(super) fn accept_when_kept(
        &mut self,
        session: SessionKey,
        packet_id: u16,
        receipt: &mut Receipt,
    ) {
        let number = self.receipts.next_answer();
        self.receipts.count(number, 1);
        let accepting = Accepting {
            number,
            is_told: false,
        };
        let key = (session, packet_id);
        self.receipts.accepting.insert(key, accepting);
        let then = Then::Accept {
            session,
            packet_id,
            number,
            publish: receipt.number,
            shards: receipt.shards,
        };
        self.when_kept(receipt.number, receipt.shards, then);
        receipt.number = number;
        receipt.shards = ShardSet::default();
    }

    /// A letter of another shard is handled, with all that came of it: the store was told of that up to
    /// `ticket`, 0 for nothing.
    pub(super) fn handled(&mut self, from: ShardId, asked: Asked, ticket: u64) {
        let number = self.receipts.take().unwrap_or_default();
        let receipt = asked.receipt();
        if receipt == 0 {
            return;
        }
        let confirm = Then::Confirm { to: from, receipt };
        if asked.is_by_itself() {
            return self.when_kept(number, ShardSet::default(), confirm);
        }
        let is_passed_on = number > 0;
        let handled = row(&mut self.receipts.handled, from);
        handled.queue.push_back(Handled {
            receipt,
            ticket,
            is_passed_on,
        });
        if is_passed_on {
            self.when_kept(number, ShardSet::default(), confirm);
        }
        self.confirm_handled(from);
    }

    /// What was handled for a shard and is stored, or with the operating system.
    fn confirm_handled(&mut self, from: ShardId) {
        let Receipts {
            handled,
            news,
            has_news,
            tells_written,
            ..
        } = &mut self.receipts;
        let (handled, journal) = (row(handled, from), &self.clients.journal);
        let is_written = |ticket| journal.is_safe(ticket, Level::Os);
        while *tells_written && let Some(next) = handled.next_written(is_written) {
            let news = row(news, from);
            news.written = next.receipt;
            if next.is_passed_on {
                news.without.push(next.receipt);
            }
            has_news.insert(from);
        }
        while let Some(first) = handled.next_stored(|ticket| journal.is_stored(ticket)) {
            let news = row(news, from);
            news.through = first.receipt;
            // Otherwise it was told of when it was written.
            if first.is_passed_on && !*tells_written {
                news.without.push(first.receipt);
            }
            has_news.insert(from);
        }
    }

    /// More is written, or stored.
    pub(super) fn confirm_all_handled(&mut self) {
        for from in 0..self.receipts.handled.len() as ShardId {
            self.confirm_handled(from);
        }
    }

    /// More is stored.
    pub(super) fn confirm_stored(&mut self) {
        self.go_on_with_stored();
        self.confirm_all_handled();
    }

    /// Another shard has stored what it got of this one.
    pub(super) fn kept_elsewhere(&mut self, from: ShardId, kept: &Kept, now: Timestamp) {
        self.complete_elsewhere(from, &kept.complete, now);
        for then in self.receipts.hear(from, kept) {
            self.go_on_with(then);
        }
        self.release_stored_acks();
    }

    /// Stages what other shards are to be told, a letter for each that has room.
    pub fn stage_kept(&mut self) {
        let blocked = self.staged.blocked();
        if !self.receipts.can_tell(blocked) {
            return;
        }
        let mut telling = self.receipts.has_news;
        telling.remove_all(blocked);
        self.receipts.has_news.remove_all(telling);
        for to in telling.iter() {
            let kept = std::mem::take(row(&mut self.receipts.news, to));
            self.stage(Phase::Live, to, Mail::Kept(Box::new(kept)));
        }
    }
}
