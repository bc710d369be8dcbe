//! Connections whose packets wait: for room in another shard's mailbox, or for their turn.
//!
//! Bytes of such a connection are kept and not looked at, and it is not read beyond a bound, so that its
//! client feels it. Nobody else waits with it: pings and acknowledgements of others go on, and whoever
//! publishes to shards that have room.
//!
//! Invariant: a connection that is held stands in one of the lists here, or its fan-out is under way, or it
//! is gone.

use super::ShardCore;
use super::pace::{Pace, Paces};
use super::ready::Behind;
use crate::engine::fanout::publication::Publication;
use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::limits::{COPY_BYTES_MAX, HELD_BYTES_MAX};
use crate::engine::message::Qos;
use crate::engine::route::ShardSet;
use crate::engine::session::connection::Hold;
use crate::engine::time::{Lasted, Timestamp};
use std::collections::VecDeque;
use std::mem;

/// Work counts in eighths of a delivery, which take some 15 ns each.
pub(super) const DELIVERY: usize = 8;
/// A connection gets this part of a turn's work while others wait; pings and acknowledgements have as much
/// for themselves, so that they go on when others have used up a turn.
const SHARES: i64 = 8;
/// So many large fan-outs may begin before what was taken is sent; they have such a part for themselves.
const AHEAD: u32 = 4;
/// A delivery that is kept, in a window or a queue, costs as much as so many others where it is the first.
const KEPT: i64 = 8;
/// What one share group costs, in deliveries, beside the delivery and the members that are looked at.
pub(super) const GROUP_WORK: usize = 2;
/// Bytes whose copy costs as much as an eighth of a delivery.
const COPY_BYTES: usize = 256;
/// Memory is looked at again after so much work: then a few megabytes may have been copied.
const LOOK_WORK: i64 = 16_384;
/// So many parts has a turn whose work stands behind a large fan-out.
const SMALL_SHARES: i64 = 32;
/// Stretches of outboxes that are let go in a turn.
const LET_GO_MAX: usize = 512;

/// Who waits, and how much a turn still does.
pub(super) struct Backlog {
    /// They go on in this order.
    next: VecDeque<ConnectionKey>,
    /// By the shard whose mailbox is full.
    for_room: Vec<Vec<ConnectionKey>>,
    /// Until other shards have confirmed some of this shard's interest.
    for_confirmations: Vec<ConnectionKey>,
    paces: Paces,
    deliveries_max: usize,
    work_per_turn: i64,
    work_left: i64,
    /// What is left for packets that cost little.
    packets_left: i64,
    /// Below this the connection at hand has had its share.
    share_ends: i64,
    /// Below this memory is to be looked at.
    look_at: i64,
    /// What is left for large fan-outs.
    fan_out_left: i64,
    /// Outboxes wait to be sent.
    is_behind: bool,
    /// Large fan-outs that have begun since they last did not.
    fan_outs_ahead: u32,
    /// Nothing has to wait any more: the shard stops.
    is_unbounded: bool,
}

/// What a message of so many bytes to so many costs, in eighths of a delivery.
fn fan_out_work(receivers: usize, bytes: usize) -> i64 {
    let bytes = bytes.min(COPY_BYTES_MAX);
    (receivers * (DELIVERY + bytes / COPY_BYTES)) as i64
}

/// What comes to that for share groups.
const fn group_work(deliveries: usize) -> i64 {
    (deliveries * GROUP_WORK * DELIVERY) as i64
}

impl Backlog {
    pub(super) fn new(shards: ShardId, turn_deliveries_max: usize) -> Self {
        let work_per_turn = (turn_deliveries_max * DELIVERY) as i64;
        Backlog {
            next: VecDeque::new(),
            for_room: (0..shards).map(|_| Vec::new()).collect(),
            for_confirmations: Vec::new(),
            paces: Paces::default(),
            deliveries_max: turn_deliveries_max,
            work_per_turn,
            work_left: work_per_turn,
            packets_left: work_per_turn / SHARES,
            share_ends: 0,
            look_at: 0,
            fan_out_left: (work_per_turn / SHARES).max(1),
            is_behind: false,
            fan_outs_ahead: 0,
            is_unbounded: false,
        }
    }

    /// A turn works off so much, from the next one on.
    pub(super) fn set_deliveries_max(&mut self, turn_deliveries_max: usize) {
        self.deliveries_max = turn_deliveries_max;
        self.work_per_turn = (self.paces.work.of(turn_deliveries_max) * DELIVERY) as i64;
    }

    /// The last turn lasted so long: how much the next does. Whether that is less.
    pub(super) fn keep_pace(&mut self, lasted: Lasted, goal_us: u64) -> bool {
        let is_less = self.paces.follow(lasted, goal_us);
        self.work_per_turn = (self.paces.work.of(self.deliveries_max) * DELIVERY) as i64;
        is_less
    }

    /// How much of what may be sent in a turn is sent.
    pub(super) const fn pace_of_sends(&self) -> Pace {
        self.paces.sends
    }

    /// A turn begins; without work to give if what was done before has not left yet, and with little if only
    /// a message to very many has not: others do not wait for that.
    pub(super) fn begin_turn(&mut self, behind: Behind) {
        let is_behind = behind != Behind::Nothing;
        self.work_left = match behind {
            Behind::Nothing => self.work_per_turn,
            Behind::LargeFanOuts => self.work_per_turn / SMALL_SHARES,
            Behind::Others => 0,
        };
        self.packets_left = self.work_per_turn / SHARES;
        self.look_at = self.work_left - LOOK_WORK;
        self.fan_out_left = (self.work_per_turn / SHARES).max(1);
        self.is_behind = is_behind;
        if !is_behind {
            self.fan_outs_ahead = 0;
        }
    }

    /// Whether the last turn had work to give.
    pub(super) const fn has_worked(&self) -> bool {
        !self.is_behind
    }

    /// Whether so much was done since the last time that memory is to be looked at.
    pub(super) const fn is_look_due(&mut self) -> bool {
        let is_due = self.work_left < self.look_at;
        if is_due {
            self.look_at = self.work_left - LOOK_WORK;
        }
        is_due
    }

    /// Whether one more large fan-out may begin: while outboxes wait to be sent only a few, so that these
    /// leave with more than one message but are not filled.
    pub(super) const fn may_begin_fan_out(&self) -> bool {
        !self.is_behind || self.fan_outs_ahead < AHEAD || self.is_unbounded
    }

    /// A large fan-out begins.
    pub(super) const fn note_fan_out(&mut self) {
        self.fan_outs_ahead += 1;
    }

    /// Packets of a connection are about to be handled.
    pub(super) fn begin_share(&mut self) {
        self.share_ends = if self.next.is_empty() {
            0
        } else {
            (self.work_left - self.work_per_turn / SHARES).max(0)
        };
    }

    /// Something is done that costs as much as so many deliveries.
    pub(super) fn spend(&mut self, deliveries: usize) {
        self.work_left -= (deliveries * DELIVERY) as i64;
    }

    /// Something is done that costs as much as so many eighths of a delivery.
    pub(super) fn spend_steps(&mut self, steps: usize) {
        self.work_left -= steps as i64;
    }

    /// The part of a turn's work, in such steps, that what must not stand still has for itself.
    pub(super) fn part_of_turn(&self) -> usize {
        if self.is_unbounded {
            return usize::MAX;
        }
        (self.work_per_turn / SHARES).max(1) as usize
    }

    /// A message of so many bytes that are copied goes to so many.
    pub(super) fn spend_fan_out(&mut self, receivers: usize, bytes: usize) {
        self.work_left -= fan_out_work(receivers, bytes);
    }

    /// Whether a message to so many subscribers and share groups should take its time.
    pub(super) fn is_large(&self, subscribers: usize, groups: usize, bytes: usize) -> bool {
        let work = fan_out_work(subscribers + groups, bytes) + group_work(groups);
        work > self.work_per_turn / SHARES && subscribers + groups > 1 && !self.is_unbounded
    }

    /// Whether this turn has work left for large fan-outs.
    pub(super) const fn may_fan_out(&self) -> bool {
        self.fan_out_left > 0 || self.is_unbounded
    }

    /// One delivery of a large fan-out.
    pub(super) fn spend_on_fan_out(&mut self, publication: &Publication<'_>) {
        let mut work = fan_out_work(1, publication.payload.len());
        if publication.qos > Qos::AtMostOnce {
            work *= KEPT;
        }
        self.fan_out_left -= work;
    }

    /// One subscription of a large fan-out is looked at.
    pub(super) fn spend_on_joining(&mut self) {
        self.fan_out_left -= 1;
    }

    /// For deliveries of a large fan-out was looked through what their sessions wait for, in such steps.
    pub(super) fn spend_on_looks(&mut self, steps: usize) {
        self.fan_out_left -= steps as i64;
    }

    /// Share groups of a large fan-out cost as much as so many deliveries.
    pub(super) fn spend_on_groups(&mut self, deliveries: usize) {
        self.fan_out_left -= (deliveries * DELIVERY) as i64;
    }

    /// A packet is handled that costs little.
    pub(super) fn spend_packet(&mut self) {
        self.packets_left -= 1;
    }

    /// Deliveries that are left of this turn's work.
    pub(super) fn left(&self) -> usize {
        usize::try_from(self.work_left).unwrap_or(0) / DELIVERY
    }

    /// What was done in this turn, in such steps.
    pub(super) fn spent(&self) -> usize {
        usize::try_from(self.work_per_turn.saturating_sub(self.work_left)).unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn work_left(&self) -> i64 {
        self.work_left
    }

    /// Whether this turn has done its work.
    pub(super) fn is_spent(&self) -> bool {
        self.work_left <= 0
    }

    fn is_spent_for_mail(&self) -> bool {
        let theirs = if self.next.is_empty() || self.is_unbounded {
            0
        } else {
            self.work_per_turn / 2
        };
        self.work_left <= theirs
    }

    /// Whether the connection at hand has to leave what costs much for later.
    pub(super) fn is_share_over(&self) -> bool {
        self.work_left <= self.share_ends
    }

    /// Whether even packets that cost little have to wait.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.packets_left <= 0
    }

    /// Connections that waited go on, behind the others.
    pub(super) fn go_on_with(&mut self, connections: Vec<ConnectionKey>) {
        self.next.extend(connections);
    }

    /// Whether somebody can go on.
    pub(super) fn is_empty(&self) -> bool {
        self.next.is_empty()
    }
}

impl ShardCore {
    /// The last turn lasted so long: the next does as much as should take no longer than
    /// `limits.turn_us_goal`.
    pub fn keep_pace(&mut self, lasted: Lasted) {
        let goal_us = self.settings.limits.turn_us_goal;
        let is_less = self.backlog.keep_pace(lasted, goal_us);
        self.clients.counters.turns_shortened += u64::from(is_less);
    }

    /// A turn begins: a bounded amount of work may be done in it, and none as long as outboxes that filled
    /// before wait to be sent. So what was taken goes out first, and the excess stays with its senders.
    pub fn begin_turn(&mut self) {
        if self.backlog.has_worked() {
            self.clients.ready.owe();
        }
        self.backlog.begin_turn(self.clients.ready.behind());
        if !self.clients.ready.is_empty() {
            self.clients.ready.compact();
        }
        self.clients.sessions.move_some();
        self.clients.connections.move_some();
    }

    /// Work has its bounds again, after [`ShardCore::work_without_bound`].
    pub fn work_with_bounds(&mut self) {
        self.backlog.is_unbounded = false;
        self.backlog.work_left = 0;
    }

    /// This turn does whatever there is: the last before clients are told of a stop.
    pub fn work_without_bound(&mut self, now: Timestamp) {
        self.backlog.is_unbounded = true;
        self.backlog.work_left = i64::MAX / 2;
        self.fan_outs.release();
        self.fan_out_further(now);
        self.release_some(now);
    }

    /// Whether this turn has done its work.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.backlog.is_spent()
    }

    /// Whether this turn takes no more mail: where connections wait for their turn half of it is theirs, or
    /// what others send would have it all.
    #[must_use]
    pub fn is_spent_for_mail(&self) -> bool {
        self.backlog.is_spent_for_mail()
    }

    /// Does what has a part of each turn for itself, step by step, until that is used up or there is no more.
    /// A step tells what it cost, in eighths of a delivery.
    pub(super) fn do_part(&mut self, mut step: impl FnMut(&mut ShardCore) -> Option<usize>) {
        let mut left = self.backlog.part_of_turn();
        while left > 0
            && let Some(steps) = step(self)
        {
            self.backlog.spend_steps(steps);
            left = left.saturating_sub(steps.max(1));
        }
    }

    /// Whether work waits that does not belong to a connection's packets: in most turns there is none.
    pub(super) fn has_postponed(&self) -> bool {
        !self.ended.is_empty()
            || !self.clients.rules.marking.is_empty()
            || !self.clients.given_up.is_empty()
            || !self.releases.is_empty()
            || self.may_tell()
            || self.may_pass_on()
            || self.takes_leave()
            || self.may_tell_checkpoint()
            || !self.clients.spare.is_settled()
    }

    /// Goes on with large fan-outs, and handles packets that wait, in order, as far as this turn's work
    /// allows.
    #[inline]
    pub fn work_off(&mut self, now: Timestamp) {
        if self.has_postponed() {
            self.work_off_postponed(now);
        }
        self.disconnect_overflowed(now);
        if !self.backlog.next.is_empty() || self.can_fan_out() {
            self.work_off_packets(now);
        }
    }

    fn work_off_postponed(&mut self, now: Timestamp) {
        self.remove_ended();
        self.release_given_up();
        self.mark_some();
        self.tell_some();
        self.release_some(now);
        self.pass_some_on(now);
        self.take_leave(now);
        self.tell_checkpoint();
        let let_go = self.clients.spare.let_go(LET_GO_MAX);
        self.backlog.spend(let_go);
    }

    fn work_off_packets(&mut self, now: Timestamp) {
        loop {
            self.fan_out_further(now);
            for _ in 0..self.backlog.next.len() {
                if self.backlog.is_spent() {
                    return;
                }
                if let Some(key) = self.backlog.next.pop_front() {
                    self.go_on(now, key);
                }
            }
            if !self.can_fan_out() {
                return;
            }
        }
    }

    /// Mail went into the mailboxes: what waits for shards that have room again can go on, and
    /// acknowledgements of what is visible now can leave.
    pub fn mail_went(&mut self, unblocked: ShardSet) {
        if self.clients.journal.is_awaited() {
            self.release_stored_acks();
        }
        for shard in unblocked.iter() {
            if let Some(waiting) = self.backlog.for_room.get_mut(usize::from(shard)) {
                self.backlog.next.extend(waiting.drain(..));
            }
        }
        if !self.backlog.for_confirmations.is_empty() && !self.interest.is_congested() {
            let waiting = self.backlog.for_confirmations.drain(..);
            self.backlog.next.extend(waiting);
        }
    }

    /// Leaves the rest of a connection's packets for a later turn.
    pub(super) fn hold_for_turn(&mut self, key: ConnectionKey) {
        self.hold(key, Hold::Turn);
        self.clients.counters.packets_deferred += 1;
        self.backlog.next.push_back(key);
    }

    /// Leaves the rest until other shards have confirmed; its client is not read meanwhile.
    pub(super) fn hold_for_confirmations(&mut self, key: ConnectionKey) {
        self.hold(key, Hold::Room);
        self.backlog.for_confirmations.push(key);
    }

    /// A packet went, in part, to a shard whose mailbox is full: leaves the rest until there is room.
    pub(super) fn hold_for_room(&mut self, key: ConnectionKey, full: ShardSet) {
        let Some(shard) = full.iter().next() else {
            return;
        };
        if let Some(waiting) = self.backlog.for_room.get_mut(usize::from(shard)) {
            waiting.push(key);
            self.hold(key, Hold::Room);
        }
    }

    /// Leaves the rest until what the connection published is delivered.
    pub(super) fn hold_for_fan_out(&mut self, key: ConnectionKey) {
        self.hold(key, Hold::FanOut);
        self.clients.counters.packets_deferred += 1;
    }

    /// What a connection published is delivered: it goes on, when there is room in those shards.
    pub(super) fn release_from_fan_out(
        &mut self,
        key: ConnectionKey,
        mut full: ShardSet,
        now: Timestamp,
    ) {
        let mut has_room = full;
        has_room.remove_all(self.staged.blocked());
        full.remove_all(has_room);
        if !full.is_empty() {
            return self.hold_for_room(key, full);
        }
        if self.store.is_behind() {
            return self.hold_for_store(key);
        }
        self.hold(key, Hold::Turn);
        if self.backlog.is_behind
            && self.backlog.may_begin_fan_out()
            && self.backlog.next.is_empty()
        {
            // One more packet: most likely it goes to the same.
            let left = mem::replace(&mut self.backlog.work_left, DELIVERY as i64);
            self.go_on(now, key);
            self.backlog.work_left = left;
        } else {
            self.backlog.next.push_back(key);
        }
    }

    pub(super) fn hold(&mut self, key: ConnectionKey, hold: Hold) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        connection.hold = Some(hold);
        let counters = &mut self.clients.counters;
        match hold {
            Hold::Room => counters.publishers_paused_room += 1,
            Hold::Store => counters.publishers_paused_storage += 1,
            Hold::Turn | Hold::FanOut => return,
        }
        self.pause(key);
    }

    /// Bytes came of a connection that is held: it is read no further than a bound.
    pub(super) fn keep_held(&mut self, key: ConnectionKey, bytes: &[u8]) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.partial.extend_from_slice(bytes);
            if connection.partial.len() >= HELD_BYTES_MAX {
                self.pause(key);
            }
        }
    }

    /// Handles what a connection had to leave.
    fn go_on(&mut self, now: Timestamp, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        connection.hold = None;
        // What it said it said in time.
        connection.heard_at = now;
        if connection.changing.is_some() {
            self.go_on_with_filters(now, key);
        }
        self.take_up(now, key);
        self.end_or_resume(now, key);
    }

    /// What waited is handled, as far as it goes: a connection of which no more bytes come ends with it, any
    /// other is read again.
    pub(super) fn end_or_resume(&mut self, now: Timestamp, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get(key) else {
            return;
        };
        if connection.has_ended {
            // Unless more of it still waits.
            return self.receive_ended(now, key);
        }
        self.resume_if_room(key);
    }
}
