//! Broker to client: the window of unacknowledged messages and the queue behind it.
//!
//! ```text
//!   queue ──send──► AwaitPuback ──PUBACK──► done
//!             └───► AwaitPubrec ──PUBREC──► AwaitPubcomp ──PUBCOMP──► done
//!                        └─ PUBREC of 0x80 or more ─► done
//! ```
//! The window has two parts. `recent` has packet identifiers without a break, so that an identifier names
//! its place; what is done stays there as a gap. Once gaps prevail the oldest entries move to the
//! `stragglers`, where each operation is O(log n); each moves once at most. So everything depends on what
//! is unacknowledged, never on how many identifiers were used since.
//!
//! Invariants: stragglers, then `recent`, is the order of first sending. `recent` is empty or begins with
//! an unfinished entry; of its entries at most half, or [`GAPS_MAX`], are gaps. `unacknowledged` counts the
//! entries of both parts that are not done. Whatever is held back is a straggler.

use super::id_runs::following;
use super::inflight::{Awaits, Inflight};
use super::stragglers::Stragglers;
use super::tally::Tally;
use super::{Delivery, IDLE_MESSAGES_MAX};
use crate::engine::codec::PacketType;
use crate::engine::keys::GroupKey;
pub use crate::engine::limits::QueueFull;
use crate::engine::message::Qos;
use crate::engine::time::Timestamp;
use std::collections::VecDeque;
use std::rc::Rc;

/// A window of no more entries than this is not worth tidying.
const GAPS_MAX: usize = 32;

/// Bounds of one session's queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Most messages.
    pub messages_max: usize,
    /// Most bytes.
    pub bytes_max: usize,
    /// What happens beyond.
    pub full: QueueFull,
}

/// What [`Outbound::enqueue`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits.
    Yes,
    /// It waits, and this many older ones were dropped for it.
    DroppedOldest {
        /// How many.
        count: usize,
        /// What the store calls them, as far as it knows them.
        entries: Vec<u64>,
    },
    /// It was dropped.
    DroppedNewest,
    /// It was dropped, and the client is to be disconnected.
    Disconnect,
}

/// The sending half of a session.
#[derive(Debug, Default)]
pub struct Outbound {
    recent: VecDeque<Inflight>,
    stragglers: Option<Box<Stragglers>>,
    unacknowledged: u16,
    last_id: u16,
    queue: VecDeque<Delivery>,
    queue_bytes: usize,
    /// Messages that have left the queue, wherever they stood; it wraps.
    left_queue: u32,
    /// Of the messages in the window.
    window_bytes: usize,
    /// Where it counts, together with others.
    tally: Option<Rc<Tally>>,
}

impl Outbound {
    /// From now on it counts there, with what it has.
    pub fn count_in(&mut self, tally: Rc<Tally>) {
        self.leave_tally();
        tally.queued(self.queue.len() as isize);
        tally.unacknowledged(self.unacknowledged as isize);
        self.tally = Some(tally);
    }

    /// It counts no more.
    pub fn leave_tally(&mut self) {
        if let Some(tally) = self.tally.take() {
            tally.queued(-(self.queue.len() as isize));
            tally.unacknowledged(-(self.unacknowledged as isize));
        }
    }

    /// Changes the sums in which it counts, if it does.
    #[inline]
    pub fn tally(&self, change: impl FnOnce(&Tally)) {
        if let Some(tally) = &self.tally {
            change(tally);
        }
    }

    fn count_queued(&self, more: isize) {
        self.tally(|tally| tally.queued(more));
    }

    /// One more is unacknowledged.
    fn enter_window(&mut self) {
        self.unacknowledged += 1;
        self.tally(|tally| tally.unacknowledged(1));
    }

    /// One is settled.
    fn leave_window(&mut self) {
        self.unacknowledged -= 1;
        self.tally(|tally| tally.unacknowledged(-1));
    }

    /// What waits for room in the window, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &Delivery> {
        self.queue.iter()
    }

    /// What waits from a place on, and how many have left the queue so far: who goes on later is so many
    /// places further at most.
    pub fn waiting_from(&self, place: usize) -> (impl Iterator<Item = &Delivery>, u32) {
        let from = place.min(self.queue.len());
        (self.queue.range(from..), self.left_queue)
    }

    /// Messages that wait for room in the window.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Milliseconds for which the oldest message has waited for room in the window; 0 if not known.
    #[must_use]
    pub fn waits_ms(&self, now: Timestamp) -> u64 {
        let oldest = self
            .queue
            .front()
            .filter(|delivery| delivery.queued_at_ds > 0);
        oldest.map_or(0, |oldest| now.ms_since_ds(oldest.queued_at_ds))
    }

    /// Bytes of what waits for room in the window.
    #[must_use]
    pub const fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// Bytes of all messages on their way.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.queue_bytes + self.window_bytes
    }

    /// Unacknowledged messages.
    #[must_use]
    pub const fn unacknowledged(&self) -> u16 {
        self.unacknowledged
    }

    /// Whether another message may be sent within `window_max` `[MQTT-3.3.4-9]`.
    #[must_use]
    pub fn has_room(&self, window_max: u16) -> bool {
        self.unacknowledged < window_max && !self.is_held_back()
    }

    /// A session is resumed: everything unfinished has to be sent again, as far as the client takes it.
    pub fn hold_back(&mut self) {
        self.leave_all_behind();
        if let Some(stragglers) = &mut self.stragglers {
            stragglers.hold_back();
        }
    }

    /// Whether some of that still waits.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.held_back() > 0
    }

    fn held_back(&self) -> u16 {
        self.stragglers.as_ref().map_or(0, |behind| behind.held())
    }

    /// The first of it.
    #[must_use]
    pub fn first_held_back(&self) -> Option<&Inflight> {
        self.stragglers.as_ref()?.first_held_back()
    }

    /// The next of it, if the client has room for it: its receive maximum may be less than it was
    /// `[MQTT-3.3.4-9]`.
    pub fn next_held_back(&mut self, window_max: u16) -> Option<&Inflight> {
        if self.unacknowledged - self.held_back() >= window_max {
            return None;
        }
        self.stragglers.as_mut()?.next_held_back()
    }

    /// Enters a message into the window; returns its packet identifier, which is free and not 0
    /// `[MQTT-2.2.1-3]` `[MQTT-2.2.1-4]`. Ask [`Outbound::has_room`] first.
    pub fn begin(&mut self, delivery: Delivery) -> u16 {
        let packet_id = self.next_id();
        let awaits = if delivery.qos == Qos::ExactlyOnce {
            Awaits::Pubrec
        } else {
            Awaits::Puback
        };
        self.last_id = packet_id;
        self.window_bytes += delivery.message.size_bytes();
        self.recent.push_back(Inflight {
            packet_id,
            awaits,
            entry: delivery.entry,
            delivery: Some(delivery),
        });
        self.enter_window();
        packet_id
    }

    fn next_id(&mut self) -> u16 {
        let next = following(self.last_id);
        // One full turn of identifiers: the next is that of the first entry.
        let is_first = self.recent.len() >= usize::from(u16::MAX);
        let stragglers = self.stragglers.as_ref();
        if is_first || stragglers.is_some_and(|behind| behind.contains(next)) {
            return self.free_id(next);
        }
        next
    }

    /// The next identifier that is free. It leaves identifiers out, so `recent` has to begin anew.
    #[cold]
    fn free_id(&mut self, next: u16) -> u16 {
        self.leave_all_behind();
        let stragglers = self.stragglers.as_ref();
        let free = stragglers.and_then(|behind| behind.free_from(next));
        debug_assert!(free.is_some() || self.stragglers.is_none(), "has_room");
        free.unwrap_or(next)
    }

    /// Where `recent` has the unfinished entry with this identifier.
    fn recent_place(&self, packet_id: u16) -> Option<usize> {
        let first = self.recent.front()?.packet_id;
        // Identifiers run from 1 to 65,535: one less than a full turn of u16.
        let distance = if packet_id >= first {
            packet_id - first
        } else {
            packet_id.wrapping_sub(first).wrapping_sub(1)
        };
        let place = usize::from(distance);
        let entry = self.recent.get(place)?;
        (entry.packet_id == packet_id && entry.awaits != Awaits::Done).then_some(place)
    }

    /// The unfinished entry with this identifier.
    fn entry(&mut self, packet_id: u16) -> Option<&mut Inflight> {
        match self.recent_place(packet_id) {
            Some(place) => self.recent.get_mut(place),
            None => self.stragglers.as_mut()?.get_mut(packet_id),
        }
    }

    /// The message with this identifier, of which the client has not said that it has it, if the store calls
    /// it so.
    pub fn unreceived(&mut self, packet_id: u16, stored: u64) -> Option<&Delivery> {
        let entry = self.entry(packet_id)?;
        entry.delivery.as_ref().filter(|_| entry.entry == stored)
    }

    /// Settles the entry with this identifier if this is what it waits for; what the store calls it.
    fn finish(&mut self, packet_id: u16, awaits: Awaits) -> Option<u64> {
        let Some(place) = self.recent_place(packet_id) else {
            return self.finish_straggler(packet_id, awaits);
        };
        let entry = self.recent.get_mut(place);
        let entry = entry.filter(|entry| entry.awaits == awaits)?;
        entry.awaits = Awaits::Done;
        self.window_bytes -= size_bytes(entry.delivery.take());
        let stored = entry.entry;
        self.leave_window();
        self.drop_gaps();
        Some(stored)
    }

    fn finish_straggler(&mut self, packet_id: u16, awaits: Awaits) -> Option<u64> {
        let stragglers = self.stragglers.as_mut()?;
        let entry = stragglers.get_mut(packet_id)?;
        let stored = entry.entry;
        if entry.awaits != awaits {
            return None;
        }
        let removed = stragglers.remove(packet_id);
        self.window_bytes -= size_bytes(removed.and_then(|entry| entry.delivery));
        if stragglers.is_empty() {
            self.stragglers = None;
        }
        self.leave_window();
        Some(stored)
    }

    fn first_is_done(&self) -> bool {
        let first = self.recent.front();
        first.is_some_and(|entry| entry.awaits == Awaits::Done)
    }

    fn drop_gaps(&mut self) {
        while self.first_is_done() {
            self.recent.pop_front();
        }
        if self.recent.len() > GAPS_MAX {
            self.overtake();
        }
        self.release_room();
    }

    /// Moves the oldest entries away until gaps no longer prevail.
    fn overtake(&mut self) {
        let behind = self.stragglers.as_ref().map_or(0, |behind| behind.len());
        let mut unfinished = usize::from(self.unacknowledged) - behind;
        while self.recent.len() > GAPS_MAX.max(2 * unfinished) {
            let Some(entry) = self.recent.pop_front() else {
                return;
            };
            if entry.awaits != Awaits::Done {
                self.stragglers.get_or_insert_default().push(entry);
                unfinished -= 1;
            }
        }
        while self.first_is_done() {
            self.recent.pop_front();
        }
    }

    fn leave_all_behind(&mut self) {
        while let Some(entry) = self.recent.pop_front() {
            if entry.awaits != Awaits::Done {
                self.stragglers.get_or_insert_default().push(entry);
            }
        }
        self.release_room();
    }

    /// Gives memory back that a burst has taken. Not at half of it: the next burst would allocate again.
    fn release_room(&mut self) {
        let room = self.recent.capacity();
        if self.recent.is_empty() && room > IDLE_MESSAGES_MAX {
            self.recent = VecDeque::new();
        } else if room > 4 * GAPS_MAX && self.recent.len() < room / 8 {
            self.recent.shrink_to(GAPS_MAX.max(2 * self.recent.len()));
        }
    }

    /// PUBACK. Returns what the store calls the message that it settled; a stray one does no harm.
    pub fn puback(&mut self, packet_id: u16) -> Option<u64> {
        self.finish(packet_id, Awaits::Puback)
    }

    /// PUBREC without failure: the message is settled, PUBREL is due `[MQTT-4.3.3-4]`. Returns what the store
    /// calls it if the identifier is known, 0 if the same PUBREC has come before.
    pub fn pubrec(&mut self, packet_id: u16) -> Option<u64> {
        let entry = self.entry(packet_id)?;
        match entry.awaits {
            Awaits::Pubrec => {
                entry.awaits = Awaits::Pubcomp;
                let (delivery, stored) = (entry.delivery.take(), entry.entry);
                self.window_bytes -= size_bytes(delivery);
                Some(stored)
            }
            Awaits::Pubcomp => Some(0),
            Awaits::Puback | Awaits::Done => None,
        }
    }

    /// PUBREC with a failure: the message is settled `[MQTT-4.4.0-2]`. Returns as [`Outbound::puback`].
    pub fn pubrec_failed(&mut self, packet_id: u16) -> Option<u64> {
        self.finish(packet_id, Awaits::Pubrec)
    }

    /// PUBCOMP. Returns as [`Outbound::puback`].
    pub fn pubcomp(&mut self, packet_id: u16) -> Option<u64> {
        self.finish(packet_id, Awaits::Pubcomp)
    }

    /// Whether a message with this identifier waits for an acknowledgement of another kind, so that this one
    /// breaks the protocol.
    pub fn awaits_other_than(&mut self, kind: PacketType, packet_id: u16) -> bool {
        let awaits = self.entry(packet_id).map(|entry| entry.awaits);
        match kind {
            PacketType::Puback => matches!(awaits, Some(Awaits::Pubrec | Awaits::Pubcomp)),
            PacketType::Pubrec => awaits == Some(Awaits::Puback),
            PacketType::Pubcomp => matches!(awaits, Some(Awaits::Puback | Awaits::Pubrec)),
            _ => false,
        }
    }

    /// Settles a message that cannot be sent, such as one larger than the client takes: what the store calls
    /// it, and the message if it is of QoS 1: another client may get it, but not one of QoS 2.
    pub fn give_up(&mut self, packet_id: u16) -> (u64, Option<Delivery>) {
        let entry = self.entry(packet_id);
        let delivery = entry.filter(|entry| entry.awaits == Awaits::Puback);
        let delivery = delivery.and_then(|entry| entry.delivery.take());
        self.window_bytes -= delivery
            .as_ref()
            .map_or(0, |delivery| delivery.message.size_bytes());
        let settled = self.finish(packet_id, Awaits::Puback);
        let settled = settled.or_else(|| self.finish(packet_id, Awaits::Pubrec));
        (settled.unwrap_or(0), delivery)
    }

    /// What a resumed session sends again, in first-sending order `[MQTT-4.4.0-1]` `[MQTT-4.6.0-1]`.
    pub fn unfinished(&self) -> impl Iterator<Item = &Inflight> {
        let behind = self.stragglers.iter().flat_map(|behind| behind.iter());
        let recent = self.recent.iter();
        behind.chain(recent.filter(|entry| entry.awaits != Awaits::Done))
    }

    /// Puts a message behind the others, or does what the policy says if there is no room.
    pub fn enqueue(&mut self, delivery: Delivery, limits: &QueueLimits) -> Enqueued {
        let bytes = delivery.message.size_bytes();
        let fits = |outbound: &Outbound| {
            outbound.queue.len() < limits.messages_max
                && outbound.queue_bytes + bytes <= limits.bytes_max
        };
        let (mut count, mut entries) = (0, Vec::new());
        while !fits(self) {
            match limits.full {
                QueueFull::DropOldest if bytes <= limits.bytes_max => {
                    let Some(oldest) = self.dequeue() else {
                        return Enqueued::DroppedNewest;
                    };
                    count += 1;
                    entries.extend(Some(oldest.entry).filter(|entry| *entry > 0));
                }
                QueueFull::DropNewest | QueueFull::DropOldest => return Enqueued::DroppedNewest,
                QueueFull::Disconnect => return Enqueued::Disconnect,
            }
        }
        self.queue_bytes += bytes;
        self.queue.push_back(delivery);
        self.count_queued(1);
        if count > 0 {
            Enqueued::DroppedOldest { count, entries }
        } else {
            Enqueued::Yes
        }
    }

    /// Puts a message of a session that is built anew behind the others, whatever the bounds are now.
    pub fn restore_queued(&mut self, delivery: Delivery) {
        self.queue_bytes += delivery.message.size_bytes();
        self.queue.push_back(delivery);
        self.count_queued(1);
    }

    /// Takes the last one that is queued, if the store calls it so.
    pub fn take_last_queued(&mut self, entry: u64) -> Option<Delivery> {
        self.queue.back().filter(|last| last.entry == entry)?;
        let delivery = self.queue.pop_back()?;
        self.count_queued(-1);
        self.queue_bytes -= delivery.message.size_bytes();
        Some(delivery)
    }

    /// Enters what was sent before into the window of a session that is built anew, behind all that was sent
    /// earlier; without its message, if the client has that. False if the identifier cannot be: it is in use,
    /// or 0.
    pub fn restore_sent(&mut self, packet_id: u16, entry: u64, delivery: Option<Delivery>) -> bool {
        let stragglers = self.stragglers.get_or_insert_default();
        if packet_id == 0 || stragglers.contains(packet_id) {
            return false;
        }
        let awaits = match &delivery {
            None => Awaits::Pubcomp,
            Some(delivery) if delivery.qos == Qos::ExactlyOnce => Awaits::Pubrec,
            Some(_) => Awaits::Puback,
        };
        self.window_bytes += delivery
            .as_ref()
            .map_or(0, |delivery| delivery.message.size_bytes());
        stragglers.push(Inflight {
            packet_id,
            awaits,
            entry,
            delivery,
        });
        self.enter_window();
        self.last_id = packet_id;
        true
    }

    /// Drops what is queued and has expired; what the store calls it.
    pub fn take_expired(&mut self, now: Timestamp) -> Vec<u64> {
        let mut expired = Vec::new();
        let bytes = &mut self.queue_bytes;
        self.queue.retain(|delivery| {
            let lasts = delivery.message.expires_at.is_none_or(|at| at > now);
            if !lasts {
                *bytes -= delivery.message.size_bytes();
                expired.push(delivery.entry);
            }
            lasts
        });
        self.left_queue = self.left_queue.wrapping_add(expired.len() as u32);
        self.count_queued(-(expired.len() as isize));
        expired
    }

    /// What is queued since nobody knows when waits from now on.
    pub fn begin_ages(&mut self, now: Timestamp) {
        let unknown = self.queue.iter_mut().filter(|it| it.queued_at_ds == 0);
        unknown.for_each(|delivery| delivery.queued_at_ds = now.as_ds());
    }

    /// Drops what has been queued for so long; what the store calls it.
    pub fn take_aged(&mut self, now: Timestamp, age_ms_max: u64) -> Vec<u64> {
        let mut aged = Vec::new();
        while !self.queue.is_empty() && self.waits_ms(now) >= age_ms_max {
            aged.extend(self.dequeue().map(|delivery| delivery.entry));
        }
        aged
    }

    /// Takes the message that has waited longest.
    pub fn dequeue(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.count_queued(-1);
        self.queue_bytes -= delivery.message.size_bytes();
        self.left_queue = self.left_queue.wrapping_add(1);
        if self.queue.is_empty() && self.queue.capacity() > IDLE_MESSAGES_MAX {
            self.queue = VecDeque::new();
        }
        Some(delivery)
    }

    /// Of what is queued, so many messages for a share group at most, those first that have waited longest.
    pub fn take_of_group(&mut self, group: &GroupKey, max: usize) -> Vec<Delivery> {
        let is_of_group = |delivery: &Delivery| delivery.group.as_deref() == Some(group);
        if !self.queue.iter().any(is_of_group) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for delivery in std::mem::take(&mut self.queue) {
            if taken.len() < max && is_of_group(&delivery) {
                self.queue_bytes -= delivery.message.size_bytes();
                taken.push(delivery);
            } else {
                self.queue.push_back(delivery);
            }
        }
        self.left_queue = self.left_queue.wrapping_add(taken.len() as u32);
        self.count_queued(-(taken.len() as isize));
        taken
    }

    /// Everything that another member of a share group may get now that the session ends: what was
    /// queued, and QoS 1 messages that are unacknowledged; QoS 2 ones must not `[MQTT-4.8.2-5]`.
    pub fn take_shared(&mut self) -> Vec<Delivery> {
        self.leave_tally();
        let behind = self.stragglers.take().into_iter();
        let behind = behind.flat_map(|behind| behind.into_entries());
        let window = behind
            .chain(std::mem::take(&mut self.recent))
            .filter_map(|entry| entry.delivery.filter(|_| entry.awaits == Awaits::Puback));
        let queue = std::mem::take(&mut self.queue);
        (self.window_bytes, self.queue_bytes) = (0, 0);
        window
            .chain(queue)
            .filter(|delivery| delivery.group.is_some())
            .collect()
    }
}

/// Bytes of a message that is no longer on its way.
fn size_bytes(delivery: Option<Delivery>) -> usize {
    delivery.map_or(0, |delivery| delivery.message.size_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{LocalMessage, Message};
    use crate::engine::session::SubscriptionIds;
    use std::rc::Rc;
    use std::sync::Arc;

    const EVERY_ID: u16 = u16::MAX;

    fn delivery(qos: Qos) -> Delivery {
        let message = Arc::new(Message::new("t", b"", b"x", qos, false, None));
        Delivery {
            message: LocalMessage::new(message),
            qos,
            retain: false,
            subscription_ids: SubscriptionIds::None,
            group: None,
            entry: 0,
            queued_at_ds: 0,
        }
    }

    /// The identifiers of what is unfinished, in order.
    fn left(outbound: &Outbound) -> Vec<u16> {
        outbound.unfinished().map(|entry| entry.packet_id).collect()
    }

    /// Fails where the window depends on anything but what is unacknowledged.
    fn check(outbound: &Outbound) {
        let behind = outbound
            .stragglers
            .as_ref()
            .map_or(0, |behind| behind.len());
        let unfinished = usize::from(outbound.unacknowledged) - behind;
        let recent = &outbound.recent;
        let gaps = recent.len() - unfinished;
        assert!(gaps <= GAPS_MAX.max(unfinished), "{gaps} for {unfinished}");
        assert!(!outbound.first_is_done() && outbound.held_back() as usize <= behind);
        assert!(recent.capacity() <= (8 * recent.len() + 7).max(4 * GAPS_MAX));
        let there = outbound
            .unfinished()
            .filter_map(|entry| entry.delivery.as_ref());
        let bytes: usize = there.map(|delivery| delivery.message.size_bytes()).sum();
        assert_eq!(outbound.window_bytes, bytes);
        assert!(outbound.stragglers.is_none() || behind > 0);
    }

    fn filled(count: u16) -> Outbound {
        let mut outbound = Outbound::default();
        let message = delivery(Qos::AtLeastOnce);
        for _ in 0..count {
            assert!(outbound.has_room(EVERY_ID));
            outbound.begin(message.clone());
        }
        outbound
    }

    #[test]
    fn what_comes_and_goes_is_in_the_sums_of_all() {
        let tally = Rc::new(Tally::default());
        let limits = QueueLimits {
            messages_max: 2,
            bytes_max: 1_000,
            full: QueueFull::DropOldest,
        };
        let mut outbound = filled(3);
        let sums = |outbound: &Outbound| {
            let sums = tally.sums();
            assert_eq!(sums.queued, outbound.queued());
            (sums.queued, sums.unacknowledged)
        };
        outbound.count_in(Rc::clone(&tally));
        assert_eq!(sums(&outbound), (0, 3));
        for _ in 0..4 {
            outbound.enqueue(delivery(Qos::AtLeastOnce), &limits);
        }
        outbound.puback(2);
        outbound.hold_back();
        outbound.puback(3);
        assert_eq!(sums(&outbound), (2, 1));
        outbound.dequeue();
        outbound.restore_queued(delivery(Qos::AtLeastOnce));
        assert!(outbound.take_last_queued(0).is_some());
        assert_eq!(sums(&outbound), (1, 1));
        outbound.leave_tally();
        assert_eq!((tally.sums().queued, tally.sums().unacknowledged), (0, 0));
    }

    #[test]
    fn acknowledgements_in_any_order_settle_their_message() {
        let mut outbound = Outbound::default();
        let ids: Vec<_> = (0..5)
            .map(|_| outbound.begin(delivery(Qos::AtLeastOnce)))
            .collect();
        assert_eq!(ids, [1, 2, 3, 4, 5]);
        assert!(outbound.puback(3).is_some() && outbound.puback(3).is_none());
        assert!(outbound.puback(1).is_some());
        assert_eq!(left(&outbound), [2, 4, 5]);
        assert_eq!(outbound.unacknowledged(), 3);
        assert!(outbound.puback(9).is_none() && outbound.pubrec(2).is_none());
    }

    #[test]
    fn identifiers_wrap_without_zero_and_stay_findable() {
        let mut outbound = Outbound::default();
        for round in 0..200_000_u32 {
            let id = outbound.begin(delivery(Qos::AtLeastOnce));
            assert_ne!(id, 0);
            if round >= 3 {
                let oldest = outbound.unfinished().next().unwrap().packet_id;
                assert!(outbound.puback(oldest).is_some(), "{oldest}");
            }
        }
        assert_eq!(outbound.unacknowledged(), 3);
    }

    #[test]
    fn qos_2_gives_its_place_back_at_pubcomp_only() {
        let mut outbound = Outbound::default();
        let id = outbound.begin(delivery(Qos::ExactlyOnce));
        assert!(outbound.puback(id).is_none());
        assert!(
            outbound.pubrec(id).is_some() && outbound.pubrec(id).is_some(),
            "a repeated PUBREC is answered again"
        );
        assert!(!outbound.has_room(1));
        assert!(outbound.pubcomp(id).is_some() && outbound.pubcomp(id).is_none());
        let id = outbound.begin(delivery(Qos::ExactlyOnce));
        assert!(outbound.pubrec_failed(id).is_some());
        assert!(outbound.has_room(1));
    }

    #[test]
    fn one_that_is_never_acknowledged_takes_one_place_and_one_identifier() {
        let message = delivery(Qos::AtLeastOnce);
        let mut outbound = filled(1);
        let mut expected = 1;
        for _ in 0..200_000 {
            expected = if expected == u16::MAX {
                2
            } else {
                expected + 1
            };
            assert!(outbound.has_room(2));
            assert_eq!(outbound.begin(message.clone()), expected);
            assert!(!outbound.has_room(2) && outbound.puback(expected).is_some());
            check(&outbound);
        }
        assert_eq!(left(&outbound), [1]);
        assert!(outbound.puback(1).is_some() && outbound.stragglers.is_none());
    }

    #[test]
    fn the_last_free_identifier_is_found_again_and_again() {
        let message = delivery(Qos::AtLeastOnce);
        let mut outbound = filled(EVERY_ID);
        assert!(!outbound.has_room(EVERY_ID));
        for id in [1, 2, EVERY_ID, 30_000, 30_001, 1] {
            for _ in 0..1_000 {
                assert!(outbound.puback(id).is_some() && outbound.has_room(EVERY_ID));
                assert_eq!(outbound.begin(message.clone()), id);
                check(&outbound);
            }
            assert_eq!(left(&outbound).last(), Some(&id));
        }
        assert_eq!(outbound.unacknowledged(), EVERY_ID);
        outbound.hold_back();
        for id in (1..=EVERY_ID).rev() {
            assert!(outbound.puback(id).is_some());
        }
        assert_eq!(outbound.unacknowledged(), 0);
        check(&outbound);
    }

    #[test]
    fn a_resumed_session_looks_at_nothing_that_is_done() {
        let mut outbound = filled(60_000);
        for id in (1..=60_000).filter(|id| id % 1_000 != 1) {
            assert!(outbound.puback(id).is_some());
            check(&outbound);
        }
        for _ in 0..3 {
            outbound.hold_back();
            // What is looked for next stands in a tree of what is unfinished, behind nothing else.
            let behind = outbound
                .stragglers
                .as_ref()
                .map_or(0, |behind| behind.len());
            assert_eq!((outbound.recent.len(), behind), (0, 60));
            for n in 0..7 {
                let next = outbound.next_held_back(7).map(|entry| entry.packet_id);
                assert_eq!(next, Some(n * 1_000 + 1));
            }
            assert!(outbound.next_held_back(7).is_none() && !outbound.has_room(EVERY_ID));
        }
        // One that is not sent yet makes no room for another, one that is does.
        assert!(outbound.puback(59_001).is_some() && outbound.next_held_back(7).is_none());
        assert!(outbound.puback(1_001).is_some() && outbound.next_held_back(7).is_some());
        while outbound.next_held_back(EVERY_ID).is_some() {}
        assert!(outbound.has_room(EVERY_ID));
        assert_eq!(outbound.begin(delivery(Qos::AtLeastOnce)), 60_001);
        assert_eq!(left(&outbound).len(), 59);
        check(&outbound);
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut outbound = filled(10_000);
        for id in (1..10_000).rev() {
            let _ = outbound.puback(id);
            check(&outbound);
        }
        assert!(outbound.recent.capacity() <= 4 * GAPS_MAX);
        assert_eq!(left(&outbound), [10_000]);
        // Nobody pays for it who has nothing on the way.
        assert!(size_of::<Outbound>() <= 104);
    }

    #[test]
    fn members_of_a_share_group_get_what_was_left_behind_too() {
        let group = Rc::new(GroupKey {
            filter: "t".into(),
            name: "g".into(),
        });
        let mut outbound = Outbound::default();
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::AtLeastOnce] {
            let delivery = delivery(qos);
            let group = Some(Rc::clone(&group));
            outbound.begin(Delivery { group, ..delivery });
        }
        outbound.hold_back();
        outbound.begin(delivery(Qos::AtLeastOnce));
        assert_eq!(outbound.take_shared().len(), 2);
    }

    #[test]
    fn a_full_queue_follows_its_policy() {
        let limits = |full| QueueLimits {
            messages_max: 2,
            bytes_max: 10_000,
            full,
        };
        let fill = |full| {
            let mut outbound = Outbound::default();
            let results: Vec<_> = (0..3)
                .map(|_| outbound.enqueue(delivery(Qos::AtLeastOnce), &limits(full)))
                .collect();
            assert_eq!(outbound.queued(), 2);
            results[2].clone()
        };
        assert_eq!(fill(QueueFull::DropNewest), Enqueued::DroppedNewest);
        assert_eq!(
            fill(QueueFull::DropOldest),
            Enqueued::DroppedOldest {
                count: 1,
                entries: Vec::new()
            }
        );
        assert_eq!(fill(QueueFull::Disconnect), Enqueued::Disconnect);
    }

    /// What the window has to do, without a thought of what it costs.
    struct Model {
        /// Identifier, what is awaited, whether it is held back; in the order of first sending.
        sent: Vec<(u16, Awaits, bool)>,
        is_used: Vec<bool>,
        last: u16,
        skipped: usize,
    }

    impl Model {
        fn begin(&mut self, awaits: Awaits) -> u16 {
            loop {
                self.last = self.last % u16::MAX + 1;
                if !self.is_used[usize::from(self.last)] {
                    break;
                }
                self.skipped += 1;
            }
            self.is_used[usize::from(self.last)] = true;
            self.sent.push((self.last, awaits, false));
            self.last
        }

        /// An acknowledgement: whether it is known, and what is awaited then.
        fn take(&mut self, id: u16, from: Awaits, to: Awaits) -> bool {
            let at = self
                .sent
                .iter()
                .position(|sent| (sent.0, sent.1) == (id, from));
            match at {
                Some(at) if to == Awaits::Done => {
                    self.sent.remove(at);
                    self.is_used[usize::from(id)] = false;
                }
                Some(at) => self.sent[at].1 = to,
                None => {}
            }
            at.is_some()
        }

        fn next_held_back(&mut self, window_max: u16) -> Option<u16> {
            let sent = self.sent.iter().filter(|sent| !sent.2).count();
            let next = self.sent.iter_mut().find(|sent| sent.2);
            let next = next.filter(|_| sent < usize::from(window_max))?;
            next.2 = false;
            Some(next.0)
        }
    }

    fn random(state: &mut u64, below: usize) -> usize {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize % below
    }

    /// One acknowledgement, mostly a right one, on both sides.
    fn acknowledge(outbound: &mut Outbound, model: &mut Model, id: u16, kind: usize) {
        use Awaits::{Done, Puback, Pubcomp, Pubrec};
        let (is, due) = match kind {
            0 => (outbound.puback(id).is_some(), model.take(id, Puback, Done)),
            1 => (
                outbound.pubrec_failed(id).is_some(),
                model.take(id, Pubrec, Done),
            ),
            2 => {
                let _ = outbound.give_up(id);
                let due = model.take(id, Puback, Done) || model.take(id, Pubrec, Done);
                (due, due)
            }
            3 | 4 => {
                let due = model.take(id, Pubrec, Pubcomp) || model.take(id, Pubcomp, Pubcomp);
                (outbound.pubrec(id).is_some(), due)
            }
            _ => (
                outbound.pubcomp(id).is_some(),
                model.take(id, Pubcomp, Done),
            ),
        };
        assert_eq!(is, due, "acknowledgement {kind} of {id}");
    }

    fn step(outbound: &mut Outbound, model: &mut Model, state: &mut u64, window_max: u16) {
        let is_held = model.sent.iter().any(|sent| sent.2);
        let has_room = model.sent.len() < usize::from(window_max) && !is_held;
        assert_eq!(outbound.has_room(window_max), has_room);
        assert_eq!(outbound.is_held_back(), is_held);
        match random(state, 100) {
            0..45 if has_room => {
                let (qos, awaits) = match random(state, 3) {
                    0 => (Qos::ExactlyOnce, Awaits::Pubrec),
                    _ => (Qos::AtLeastOnce, Awaits::Puback),
                };
                assert_eq!(outbound.begin(delivery(qos)), model.begin(awaits));
            }
            0..60 if is_held => {
                let window_max = 1 + random(state, usize::from(window_max)) as u16;
                let next = outbound.next_held_back(window_max);
                let next = next.map(|entry| entry.packet_id);
                assert_eq!(next, model.next_held_back(window_max));
            }
            99 if random(state, 20) == 0 => {
                outbound.hold_back();
                model.sent.iter_mut().for_each(|sent| sent.2 = true);
            }
            98 => acknowledge(outbound, model, random(state, 65_536) as u16, 0),
            _ if model.sent.is_empty() => {}
            how => {
                // The oldest, the newest, any, or in order behind those that are forgotten.
                let count = model.sent.len();
                let at = match how % 8 {
                    0 => random(state, count.min(3)),
                    1 => count - 1,
                    2 | 3 => random(state, count),
                    _ => (count - 1).min(16 + random(state, 3)),
                };
                let (id, awaits, _) = model.sent[at];
                // At most sixteen are forgotten for many turns of the identifiers.
                if id % 4_096 == 5 && random(state, 10_000) > 0 {
                    return;
                }
                let kind = match awaits {
                    _ if random(state, 10) == 0 => random(state, 6),
                    Awaits::Puback => 0,
                    Awaits::Pubrec => 3,
                    _ => 5,
                };
                acknowledge(outbound, model, id, kind);
            }
        }
    }

    fn compare_with_model(seed: u64, begun: u16, window_max: u16, steps: usize) {
        let mut outbound = filled(begun);
        let id = |at| (at, Awaits::Puback, false);
        let mut model = Model {
            sent: (1..=begun).map(id).collect(),
            is_used: (0..=EVERY_ID).map(|id| id > 0 && id <= begun).collect(),
            last: begun,
            skipped: 0,
        };
        let mut state = seed;
        for number in 0..steps {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                step(&mut outbound, &mut model, &mut state, window_max);
                check(&outbound);
                assert_eq!(usize::from(outbound.unacknowledged()), model.sent.len());
                if number % 256 == 0 {
                    let ids = model.sent.iter().map(|sent| (sent.0, sent.1));
                    let has = outbound.unfinished();
                    assert!(has.map(|entry| (entry.packet_id, entry.awaits)).eq(ids));
                }
            }));
            assert!(done.is_ok(), "seed {seed}, {begun} begun, step {number}");
        }
        assert!(model.skipped > 0, "seed {seed}: it never met one in use");
    }

    #[test]
    fn any_operations_do_what_a_plain_model_does() {
        for seed in 1..=4 {
            compare_with_model(seed, 0, 40, 400_000);
            compare_with_model(seed, 300, 500, 300_000);
            compare_with_model(seed, 65_500, EVERY_ID, 1_000);
        }
    }
}
