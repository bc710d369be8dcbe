//! What a shard does at each stage of memory shortage ([`crate::engine::overload`]).
//!
//! The sum is looked at when a turn begins and again whenever so much has been done that it may have grown
//! by a few megabytes. While memory is almost gone, connections are looked through, a part per turn, and
//! those that hold most are disconnected: first whoever holds megabytes, then those that take nothing or
//! have not finished a packet, at last whoever waits to publish. So it is while memory has been very short
//! for a while: nobody publishes then.
//!
//! What stays though its client goes must not hold the broker in such a stage. It grows no more as soon as
//! memory is short, but for the sessions of those that are connected: these may have to end with them. A
//! session that holds only what it held before is never ended.

use super::ShardCore;
use super::refusals::beyond;
use crate::engine::codec::Reason;
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::outbox::SPARE_BYTES_MAX;
use crate::engine::overload::{
    Meter, SHED_OUTBOX_BYTES_MAX, SHED_PARTIAL_BYTES_MAX, SHED_SPARE_BYTES_MAX, Stage,
    surplus_bytes,
};
use crate::engine::session::Session;
use crate::engine::session::connection::Connection;
use crate::engine::session::losses::LossReason;
use crate::engine::time::Timestamp;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// How soon memory is looked at again while it is short, though nothing happens.
const LOOK_INTERVAL_MS: u64 = 100;
/// Connections looked through per turn for those that hold most.
const SCANNED_PER_TURN: usize = 1_024;
/// Connections that waited for memory and are read again, per turn.
const RESUMED_PER_TURN: usize = 1_024;
/// Who holds so much in all is disconnected in the first search; in each further one it is a quarter of that.
const HOLDS_BYTES_FIRST: usize = 4 * 1024 * 1024;
/// Whose session holds less is left alone, unless its client is away.
const HOARD_BYTES_LEAST: usize = 16 * 1024;
/// What any session takes, about.
const SESSION_BYTES: usize = 1024;
/// This part of the memory is for all together that are away and hold less than others.
const AWAY_SHARE: u64 = 20;
/// Below this only those are disconnected that take nothing, or have not finished a packet.
const HOLDS_BYTES_LEAST: usize = 256 * 1024;

/// How short memory is, and what that leaves to clients that are behind.
#[derive(Debug)]
pub(super) struct Shortage {
    /// How short.
    pub stage: Stage,
    /// Most bytes in an outbox for QoS 0 messages, at this stage.
    pub qos_0_bytes_max: usize,
    /// Which shortage this is, or will be, by number.
    pub epoch: u32,
    /// Up to so many bytes wait for a client that is away, though nothing may grow.
    pub away_bytes_max: usize,
}

impl Shortage {
    /// With so much memory; outboxes hold `outbox_bytes_max` where there is enough.
    pub(super) fn new(stage: Stage, outbox_bytes_max: usize) -> Self {
        let qos_0_bytes_max = if stage >= Stage::Shed {
            outbox_bytes_max.min(SHED_OUTBOX_BYTES_MAX)
        } else {
            outbox_bytes_max
        };
        Shortage {
            stage,
            qos_0_bytes_max,
            epoch: 1,
            away_bytes_max: 0,
        }
    }

    /// Outboxes hold so much from now on where there is enough memory.
    pub(super) fn set_outbox_bytes_max(&mut self, outbox_bytes_max: usize) {
        self.qos_0_bytes_max = Shortage::new(self.stage, outbox_bytes_max).qos_0_bytes_max;
    }

    /// Whether nothing may grow any more that stays though its client goes.
    #[inline]
    pub(super) fn is_frugal(&self) -> bool {
        self.stage >= Stage::Frugal
    }

    /// A session comes to hold more, and may hold it when its client is gone.
    #[inline]
    pub(super) fn note_growth(&self, session: &mut Session) {
        if self.is_frugal() {
            session.grew_in = self.epoch;
        }
    }

    /// Why a QoS 0 message finds no room in its outbox.
    pub(super) fn loss_reason(&self) -> LossReason {
        if self.stage >= Stage::Shed {
            LossReason::MemoryShort
        } else {
            LossReason::OutboxFull
        }
    }
}

/// What is known of memory.
#[derive(Default)]
pub(super) struct Memory {
    meter: Option<Box<dyn Meter>>,
    /// What may be used; 0 for no bound.
    max_bytes: u64,
    /// When to look again, NEVER while there is enough.
    looks_at: Option<Timestamp>,
    search: Option<Search>,
    /// Since when it is so short that who publishes is not read.
    very_short_since: Option<Timestamp>,
    /// Connections that are not read until there is more.
    waiting: BTreeSet<ConnectionKey>,
}

/// So long an unfinished packet may wait for memory: its client may be gone without anybody's being told, if
/// bytes that the broker does not take stand before the end.
const UNFINISHED_WAITS_MS: u64 = 10_000;
/// When it has been so short for so long that who publishes is not read, it is as if it were almost gone.
const VERY_SHORT_MS_MAX: u64 = 15_000;
/// Sessions ended per turn.
const ENDED_PER_TURN: usize = 64;
/// How often those are looked for.
const OVERDUE_INTERVAL_MS: u64 = 1_000;

/// A search for those that hold most.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Memory is almost gone; else only unfinished packets that have waited too long are looked for.
    is_urgent: bool,
    /// Those that only wait to publish go too.
    is_last_resort: bool,
    /// The connection to look at next.
    slot: usize,
    /// The session to look at next, when all connections have been.
    session_slot: usize,
    /// Who holds so much is disconnected.
    least_bytes: usize,
    /// Bytes that are still to be gained.
    wanted_bytes: u64,
    /// Something was gained since it began at the first one.
    has_gained: bool,
    /// The next one does not begin before.
    rests_until: Timestamp,
}

impl Search {
    /// What disconnecting this one would gain, if it is to be; `kernel_bytes` may lie in its socket.
    fn gain(
        &self,
        connection: &mut Connection,
        kernel_bytes: usize,
        now: Timestamp,
    ) -> Option<usize> {
        let held = connection.held_bytes();
        let is_overdue = connection.waits_for_memory
            && connection.unparsed_bytes() > SHED_PARTIAL_BYTES_MAX
            && now.ms_since(connection.waits_since) >= UNFINISHED_WAITS_MS;
        if !self.is_urgent {
            return is_overdue.then_some(held);
        }
        let holds_much = held >= self.least_bytes.max(HOLDS_BYTES_LEAST);
        let is_unfinished =
            connection.unparsed_bytes() >= self.least_bytes.max(SHED_PARTIAL_BYTES_MAX);
        // Asked in any case: the next search goes by it.
        let is_stuck =
            connection.is_stuck() && held >= self.least_bytes.max(SHED_PARTIAL_BYTES_MAX);
        let is_last = self.least_bytes == 0 && self.is_last_resort && connection.waits_for_memory;
        let is_it = holds_much || is_unfinished || is_stuck || is_last || is_overdue;
        is_it.then_some(held + kernel_bytes)
    }

    /// What ending this session would gain, if it is to end: it holds much, and does so only as long as its
    /// connection lasts, or since memory is short.
    fn hoard(&self, session: &Session, epoch: u32) -> usize {
        let held = session.held_bytes();
        let may_end = session.ends_with_connection() || session.grew_in == epoch;
        let is_hoard = may_end && held >= self.least_bytes.max(HOARD_BYTES_LEAST);
        if is_hoard { held } else { 0 }
    }

    /// All were looked at and nothing was gained, though nobody who can go is spared.
    fn is_in_vain(&self) -> bool {
        let is_fruitless = self.wanted_bytes > 0 && !self.has_gained;
        is_fruitless && self.is_urgent && self.least_bytes == 0 && !self.is_last_resort
    }

    /// It has gained enough, or all have been looked at: then the next one takes those that hold less, at
    /// once as long as they hold much.
    fn end(self, now: Timestamp) -> Self {
        let (least_bytes, rest_ms) = match self.least_bytes / 4 {
            _ if !self.is_urgent => (self.least_bytes, OVERDUE_INTERVAL_MS),
            _ if self.wanted_bytes == 0 => (self.least_bytes, LOOK_INTERVAL_MS),
            less if less < SHED_PARTIAL_BYTES_MAX => (0, LOOK_INTERVAL_MS),
            less if less < HOLDS_BYTES_LEAST => (less, LOOK_INTERVAL_MS),
            less => (less, 0),
        };
        Search {
            is_urgent: self.is_urgent,
            is_last_resort: self.is_last_resort,
            slot: 0,
            session_slot: 0,
            least_bytes,
            wanted_bytes: 0,
            has_gained: false,
            rests_until: now.plus_ms(rest_ms),
        }
    }
}

impl Memory {
    /// So much may be used from now on; 0 for no bound.
    pub(super) const fn set_max(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
    }

    /// Looks at it again, though nothing happens.
    pub(super) const fn looks_at(&self) -> Option<Timestamp> {
        self.looks_at
    }

    /// Whether a search for those that hold most is under way.
    pub(super) const fn is_searching(&self) -> bool {
        matches!(&self.search, Some(search) if search.wanted_bytes > 0)
    }
}

impl Memory {
    /// Why new clients are refused.
    pub(super) fn refusal(&self) -> Cow<'static, str> {
        let what = "no new clients while memory is almost used up";
        beyond(what, "limits.memory_max_bytes", self.max_bytes)
    }
}

impl ShardCore {
    /// Memory is measured by `meter` from now on; `max_bytes` may be used, 0 for no bound.
    pub fn measure_memory(&mut self, meter: Box<dyn Meter>, max_bytes: u64) {
        self.memory.meter = Some(meter);
        self.memory.max_bytes = max_bytes;
    }

    /// Goes by what the meter says now.
    pub fn look_at_memory(&mut self, now: Timestamp) {
        let Some(meter) = &self.memory.meter else {
            return;
        };
        let stage = self.clients.shortage.stage;
        let next = stage.next(meter.used_bytes(), self.memory.max_bytes);
        if next < Stage::Pause {
            self.memory.very_short_since = None;
        } else {
            self.memory.very_short_since.get_or_insert(now);
        }
        self.memory.looks_at = (next > Stage::Normal).then(|| now.plus_ms(LOOK_INTERVAL_MS));
        if next != stage {
            self.set_stage(next);
        }
        if self.clients.shortage.is_frugal() {
            self.share_among_sessions();
        }
    }

    /// Who was away for long holds much and gets nothing more; who holds less than its part of a little is
    /// not to lose what comes now for that.
    fn share_among_sessions(&mut self) {
        let part_bytes = self.memory.max_bytes / AWAY_SHARE / u64::from(self.shards);
        let sessions = self.clients.sessions.len().max(1) as u64;
        self.clients.shortage.away_bytes_max = (part_bytes / sessions) as usize;
    }

    /// Looks at memory again if so much was done since that it may have grown.
    pub(super) fn mind_memory(&mut self, now: Timestamp) {
        if self.backlog.is_look_due() {
            self.look_at_memory(now);
        }
    }

    /// Memory is so short from now on.
    pub fn set_stage(&mut self, stage: Stage) {
        let outbox_bytes_max = self.settings.limits.outbox_bytes_max;
        let before = &self.clients.shortage;
        let is_over = before.is_frugal() && stage < Stage::Frugal;
        self.clients.shortage = Shortage {
            epoch: before.epoch.wrapping_add(u32::from(is_over)).max(1),
            ..Shortage::new(stage, outbox_bytes_max)
        };
        let spare_bytes_max = if stage >= Stage::Shed {
            SHED_SPARE_BYTES_MAX
        } else {
            SPARE_BYTES_MAX
        };
        self.clients.spare.keep(spare_bytes_max);
        if stage < Stage::Pause {
            self.memory.search = None;
        }
    }

    /// Whether some that waited for memory can go on.
    pub(super) fn may_resume_publishers(&self) -> bool {
        self.clients.shortage.stage < Stage::Pause && !self.memory.waiting.is_empty()
    }

    /// There is memory again: those that waited are read, a part of them per turn.
    fn resume_publishers(&mut self) {
        for _ in 0..RESUMED_PER_TURN {
            let Some(key) = self.memory.waiting.pop_first() else {
                return;
            };
            if let Some(connection) = self.clients.connections.get_mut(key) {
                connection.waits_for_memory = false;
                self.resume_if_room(key);
            }
        }
    }

    /// A connection waits no more: it is gone, or read to its end.
    pub(super) fn forget_waiting(&mut self, key: ConnectionKey) {
        self.memory.waiting.remove(&key);
    }

    /// A client makes the broker keep more: while memory is very short it is not read until there is more.
    #[inline]
    pub(super) fn pause_for_memory(&mut self, key: ConnectionKey) {
        if self.clients.shortage.stage >= Stage::Pause {
            self.wait_for_memory(key);
        }
    }

    #[cold]
    fn wait_for_memory(&mut self, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if connection.is_deserted || std::mem::replace(&mut connection.waits_for_memory, true) {
            return;
        }
        self.memory.waiting.insert(key);
        connection.waits_since = connection.heard_at;
        self.clients.counters.publishers_paused_memory += 1;
        self.pause(key);
    }

    /// The peer of a connection that is not read has gone. Who waits for memory would keep what it has for
    /// good: the little that is left of it is read, and its end.
    pub fn peer_gone(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.clients.connections.get_mut(key)
            && std::mem::take(&mut connection.waits_for_memory)
        {
            connection.is_deserted = true;
            self.forget_waiting(key);
            self.resume_if_room(key);
        }
    }

    /// A packet of a connection is not whole yet: while memory is very short the rest stays with its client,
    /// and who is not known yet has to go.
    pub(super) fn bound_partial(&mut self, key: ConnectionKey) {
        if self.clients.shortage.stage < Stage::Pause {
            return;
        }
        let Some(connection) = self.clients.connections.get(key) else {
            return;
        };
        if connection.unparsed_bytes() <= SHED_PARTIAL_BYTES_MAX {
            return;
        }
        if connection.session.is_some() {
            self.pause_for_memory(key);
        } else if !connection.is_asking() {
            self.clients.counters.connections_refused_memory += 1;
            self.drop_connection(key);
        }
    }

    /// While memory is very short: disconnects those whose unfinished packets wait for too long; while it is
    /// almost gone those that hold most, until there is enough again. Then those that waited for that go on.
    pub fn relieve(&mut self, now: Timestamp) {
        if self.clients.shortage.stage < Stage::Pause {
            return self.resume_publishers();
        }
        let is_urgent = self.is_urgent(now);
        let wanted_bytes = if is_urgent {
            self.share_of_surplus()
        } else {
            u64::MAX
        };
        let known = self.memory.search.take();
        let known = known.filter(|search| search.is_urgent == is_urgent);
        let search = self.memory.search.insert(known.unwrap_or(Search {
            is_urgent,
            is_last_resort: false,
            slot: 0,
            session_slot: 0,
            least_bytes: HOLDS_BYTES_FIRST,
            wanted_bytes,
            has_gained: false,
            rests_until: now,
        }));
        if search.wanted_bytes == 0 {
            if search.rests_until > now {
                return;
            }
            search.wanted_bytes = wanted_bytes;
        }
        let mut search = *search;
        search.is_last_resort = self.clients.shortage.stage >= Stage::Refuse;
        let mut ended = 0;
        for _ in 0..SCANNED_PER_TURN {
            if ended >= ENDED_PER_TURN {
                break;
            }
            let gain = if search.wanted_bytes == 0 {
                None
            } else if search.slot < self.clients.connections.slots() {
                Some(self.look_at_connection(&mut search, &mut ended, now))
            } else if is_urgent && search.session_slot < self.clients.sessions.slots() {
                Some(self.look_at_session(&mut search, &mut ended, now))
            } else {
                None
            };
            let Some(gain) = gain else {
                if search.is_in_vain() {
                    return self.serve_nevertheless();
                }
                search = search.end(now);
                break;
            };
            search.has_gained |= gain > 0;
            search.wanted_bytes = search.wanted_bytes.saturating_sub(gain as u64);
        }
        self.memory.search = Some(search);
    }

    /// Whether those that hold most have to go: memory is almost gone, or has been very short for so long
    /// that it will not become enough by itself.
    fn is_urgent(&self, now: Timestamp) -> bool {
        let since = self.memory.very_short_since;
        self.clients.shortage.stage >= Stage::Refuse
            || since.is_some_and(|since| now.ms_since(since) >= VERY_SHORT_MS_MAX)
    }

    /// Memory is very short for long, and nobody is left who could give some back: it is what stays, and what
    /// the allocator cannot give back yet. Who publishes is read again, as long as memory is not almost gone.
    fn serve_nevertheless(&mut self) {
        self.set_stage(Stage::Shed);
    }

    /// Disconnects the next connection if it is to be; what that gains.
    fn look_at_connection(
        &mut self,
        search: &mut Search,
        ended: &mut usize,
        now: Timestamp,
    ) -> usize {
        let kernel_bytes = self.settings.limits.socket_send_bytes_max;
        let found = self.clients.connections.at_mut(search.slot);
        search.slot += 1;
        let Some((key, connection)) = found else {
            return 0;
        };
        let gain = search.gain(connection, kernel_bytes, now);
        let session_key = connection.session.filter(|_| search.is_urgent);
        let session = session_key.and_then(|key| self.clients.sessions.get(key));
        let epoch = self.clients.shortage.epoch;
        let hoard = session.map_or(0, |session| search.hoard(session, epoch));
        if gain.is_none() && hoard == 0 {
            return 0;
        }
        self.cut(key, now);
        if hoard > 0
            && let Some(session_key) = session_key
        {
            *ended += usize::from(self.end_hoarder(session_key, now));
        }
        gain.unwrap_or(0) + hoard
    }

    /// Ends the next session if it is one whose client is away and that is to be; what that gains.
    fn look_at_session(&mut self, search: &mut Search, ended: &mut usize, now: Timestamp) -> usize {
        let found = self.clients.sessions.key_at(search.session_slot);
        search.session_slot += 1;
        let Some(key) = found else { return 0 };
        let epoch = self.clients.shortage.epoch;
        let session = self.clients.sessions.get(key);
        let session = session.filter(|session| session.connection.is_none());
        let gain = session.map_or(0, |session| match search.hoard(session, epoch) {
            0 if search.least_bytes == 0 && session.grew_in == epoch => {
                session.held_bytes() + SESSION_BYTES
            }
            hoard => hoard,
        });
        if gain > 0 {
            *ended += usize::from(self.end_hoarder(key, now));
        }
        gain
    }

    /// Ends a session that is without a connection, as its client is told by the next CONNACK. Whether it was
    /// there.
    fn end_hoarder(&mut self, key: SessionKey, now: Timestamp) -> bool {
        let Some(session) = self.clients.sessions.get(key) else {
            return false;
        };
        let outbound = &session.outbound;
        let lost = outbound.queued() as u64 + u64::from(outbound.unacknowledged());
        self.clients.counters.sessions_ended_memory += 1;
        self.clients.lose(key, LossReason::MemoryShort, lost);
        self.end_session(key, now);
        true
    }

    /// What this shard is to gain.
    fn share_of_surplus(&self) -> u64 {
        let used_bytes = self
            .memory
            .meter
            .as_ref()
            .map_or(0, |meter| meter.used_bytes());
        let surplus = surplus_bytes(used_bytes, self.memory.max_bytes);
        surplus.div_ceil(u64::from(self.shards))
    }

    fn cut(&mut self, key: ConnectionKey, now: Timestamp) {
        self.clients.counters.connections_cut_memory += 1;
        if let Some(connection) = self.clients.connections.get_mut(key) {
            // It would be kept for a while otherwise, for a client that may not read.
            connection.outbox.forget_pending();
        }
        let what = "memory is almost gone, and this client holds much of it";
        let text = beyond(what, "limits.memory_max_bytes", self.memory.max_bytes);
        self.disconnect(key, Reason::QuotaExceeded, &text, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outboxes_shrink_to_the_bound_of_shortage_unless_they_are_smaller() {
        let holds = |stage, max| Shortage::new(stage, max).qos_0_bytes_max;
        assert_eq!(holds(Stage::Normal, 1 << 20), 1 << 20);
        assert_eq!(holds(Stage::Shed, 1 << 20), SHED_OUTBOX_BYTES_MAX);
        assert_eq!(holds(Stage::Refuse, 1000), 1000);
    }

    #[test]
    fn losses_are_put_down_to_memory_once_it_is_short() {
        let reason = |stage| Shortage::new(stage, 1000).loss_reason();
        assert_eq!(reason(Stage::Normal), LossReason::OutboxFull);
        assert_eq!(reason(Stage::Shed), LossReason::MemoryShort);
        assert_eq!(reason(Stage::Pause), LossReason::MemoryShort);
    }
}
