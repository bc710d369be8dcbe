//! Broker to client: the window of unacknowledged messages and the queue behind it.
//!
//! ```text
//!   queue ──send──► AwaitPuback ──PUBACK──► done
//!             └───► AwaitPubrec ──PUBREC──► AwaitPubcomp ──PUBCOMP──► done
//!                        └─ PUBREC of 0x80 or more ─► done
//! ```
//! Invariants: the window is in order of first sending and its packet identifiers ascend (modulo
//! wrap), so that an identifier names its place; what is done stays as a gap until it is at the
//! front. `unacknowledged` counts the entries that are not done and never exceeds the limit.

use super::{Delivery, IDLE_MESSAGES_MAX};
use crate::engine::message::Qos;
use std::collections::VecDeque;

/// What an unacknowledged message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// QoS 1.
    Puback,
    /// QoS 2, first half.
    Pubrec,
    /// QoS 2, second half: the message itself is settled `[MQTT-4.3.3-6]`.
    Pubcomp,
    /// Nothing: a gap.
    Done,
}

/// An entry of the window.
#[derive(Debug)]
pub struct Inflight {
    /// Packet identifier.
    pub packet_id: u16,
    /// What it waits for.
    pub awaits: Awaits,
    /// The message, until it is settled.
    pub delivery: Option<Delivery>,
}

/// What becomes of a message that does not fit into the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueFull {
    /// It is dropped.
    #[default]
    DropNewest,
    /// The oldest one is, in its favour.
    DropOldest,
    /// The client is disconnected with quota exceeded; what is queued stays.
    Disconnect,
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits.
    Yes,
    /// It waits, and this many older ones were dropped for it.
    DroppedOldest(usize),
    /// It was dropped.
    DroppedNewest,
    /// It was dropped, and the client is to be disconnected.
    Disconnect,
}

/// The sending half of a session.
#[derive(Debug, Default)]
pub struct Outbound {
    window: VecDeque<Inflight>,
    unacknowledged: u16,
    last_id: u16,
    queue: VecDeque<Delivery>,
    queue_bytes: usize,
    /// Entries at the window's end that have not been sent on this connection.
    held_back: usize,
}

impl Outbound {
    /// Messages that wait for room in the window.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Unacknowledged messages.
    #[must_use]
    pub const fn unacknowledged(&self) -> u16 {
        self.unacknowledged
    }

    /// Whether another message may be sent within `window_max` `[MQTT-3.3.4-9]`. Identifiers must not
    /// meet their own gaps, so a client that never acknowledges the first of many is held too.
    #[must_use]
    pub fn has_room(&self, window_max: u16) -> bool {
        self.unacknowledged < window_max
            && self.held_back == 0
            && self.window.len() < usize::from(u16::MAX) - 1
    }

    /// A session is resumed: everything unfinished has to be sent again, as far as the client takes it.
    pub fn hold_back(&mut self) {
        self.held_back = self.window.len();
    }

    /// Whether some of that still waits.
    #[must_use]
    pub const fn is_held_back(&self) -> bool {
        self.held_back > 0
    }

    /// The next of it, if the client has room for it: its receive maximum may be less than it was
    /// `[MQTT-3.3.4-9]`.
    pub fn next_held_back(&mut self, window_max: u16) -> Option<&Inflight> {
        let at = loop {
            self.held_back = self.held_back.min(self.window.len());
            let at = self.window.len() - self.held_back;
            if self.window.get(at)?.awaits != Awaits::Done {
                break at;
            }
            self.held_back -= 1;
        };
        let sent = self.window.iter().take(at);
        let unfinished = sent.filter(|entry| entry.awaits != Awaits::Done).count();
        if unfinished >= usize::from(window_max) {
            return None;
        }
        self.held_back -= 1;
        self.window.get(at)
    }

    /// Enters a message into the window; returns its packet identifier, which is free and not 0
    /// `[MQTT-2.2.1-4]`. Ask [`Outbound::has_room`] first.
    pub fn begin(&mut self, delivery: Delivery) -> u16 {
        self.last_id = if self.last_id == u16::MAX {
            1
        } else {
            self.last_id + 1
        };
        let awaits = if delivery.qos == Qos::ExactlyOnce {
            Awaits::Pubrec
        } else {
            Awaits::Puback
        };
        let packet_id = self.last_id;
        self.window.push_back(Inflight {
            packet_id,
            awaits,
            delivery: Some(delivery),
        });
        self.unacknowledged += 1;
        packet_id
    }

    fn position(&self, packet_id: u16) -> Option<usize> {
        let first = self.window.front()?.packet_id;
        // Identifiers run from 1 to 65,535: one less than a full turn of u16.
        let distance = if packet_id >= first {
            packet_id - first
        } else {
            packet_id.wrapping_sub(first).wrapping_sub(1)
        };
        let position = usize::from(distance);
        self.window
            .get(position)
            .filter(|entry| entry.packet_id == packet_id)?;
        Some(position)
    }

    fn entry(&mut self, packet_id: u16, awaits: Awaits) -> Option<&mut Inflight> {
        let position = self.position(packet_id)?;
        self.window
            .get_mut(position)
            .filter(|entry| entry.awaits == awaits)
    }

    fn settle(&mut self) {
        self.unacknowledged -= 1;
        while self
            .window
            .front()
            .is_some_and(|entry| entry.awaits == Awaits::Done)
        {
            self.window.pop_front();
        }
        if self.window.is_empty() && self.window.capacity() > IDLE_MESSAGES_MAX {
            self.window = VecDeque::new();
        }
    }

    /// PUBACK. Returns whether it settled a message; a stray one does no harm.
    pub fn puback(&mut self, packet_id: u16) -> bool {
        let Some(entry) = self.entry(packet_id, Awaits::Puback) else {
            return false;
        };
        entry.awaits = Awaits::Done;
        entry.delivery = None;
        self.settle();
        true
    }

    /// PUBREC without failure: the message is settled, PUBREL is due `[MQTT-4.3.3-4]`. Returns whether
    /// the identifier is known; a repeated PUBREC is.
    pub fn pubrec(&mut self, packet_id: u16) -> bool {
        if let Some(entry) = self.entry(packet_id, Awaits::Pubrec) {
            entry.awaits = Awaits::Pubcomp;
            entry.delivery = None;
            return true;
        }
        self.entry(packet_id, Awaits::Pubcomp).is_some()
    }

    /// PUBREC with a failure: the message is settled `[MQTT-4.4.0-2]`. Returns whether it was known.
    pub fn pubrec_failed(&mut self, packet_id: u16) -> bool {
        let Some(entry) = self.entry(packet_id, Awaits::Pubrec) else {
            return false;
        };
        entry.awaits = Awaits::Done;
        entry.delivery = None;
        self.settle();
        true
    }

    /// PUBCOMP. Returns whether it settled a message.
    pub fn pubcomp(&mut self, packet_id: u16) -> bool {
        let Some(entry) = self.entry(packet_id, Awaits::Pubcomp) else {
            return false;
        };
        entry.awaits = Awaits::Done;
        self.settle();
        true
    }

    /// Settles a message that could never be sent, such as one larger than the client takes.
    pub fn give_up(&mut self, packet_id: u16) {
        for awaits in [Awaits::Puback, Awaits::Pubrec] {
            if let Some(entry) = self.entry(packet_id, awaits) {
                entry.awaits = Awaits::Done;
                entry.delivery = None;
                return self.settle();
            }
        }
    }

    /// What a resumed session sends again, in first-sending order `[MQTT-4.4.0-1]` `[MQTT-4.6.0-1]`.
    pub fn unfinished(&self) -> impl Iterator<Item = &Inflight> {
        self.window
            .iter()
            .filter(|entry| entry.awaits != Awaits::Done)
    }

    /// Puts a message behind the others, or does what the policy says if there is no room.
    pub fn enqueue(&mut self, delivery: Delivery, limits: &QueueLimits) -> Enqueued {
        let bytes = delivery.message.size_bytes();
        let fits = |outbound: &Outbound| {
            outbound.queue.len() < limits.messages_max
                && outbound.queue_bytes + bytes <= limits.bytes_max
        };
        let mut dropped = 0;
        while !fits(self) {
            match limits.full {
                QueueFull::DropOldest if bytes <= limits.bytes_max => {
                    if self.dequeue().is_none() {
                        return Enqueued::DroppedNewest;
                    }
                    dropped += 1;
                }
                QueueFull::DropNewest | QueueFull::DropOldest => return Enqueued::DroppedNewest,
                QueueFull::Disconnect => return Enqueued::Disconnect,
            }
        }
        self.queue_bytes += bytes;
        self.queue.push_back(delivery);
        if dropped > 0 {
            Enqueued::DroppedOldest(dropped)
        } else {
            Enqueued::Yes
        }
    }

    /// Takes the message that has waited longest.
    pub fn dequeue(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.queue_bytes -= delivery.message.size_bytes();
        if self.queue.is_empty() && self.queue.capacity() > IDLE_MESSAGES_MAX {
            self.queue = VecDeque::new();
        }
        Some(delivery)
    }

    /// Everything that another member of a share group may get now that the session ends: what was
    /// queued, and QoS 1 messages that are unacknowledged; QoS 2 ones must not `[MQTT-4.8.2-5]`.
    pub fn take_shared(&mut self) -> Vec<Delivery> {
        let window = std::mem::take(&mut self.window)
            .into_iter()
            .filter_map(|entry| entry.delivery.filter(|_| entry.awaits == Awaits::Puback));
        let queue = std::mem::take(&mut self.queue);
        window
            .chain(queue)
            .filter(|delivery| delivery.group.is_some())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{LocalMessage, Message};
    use crate::engine::session::SubscriptionIds;
    use std::sync::Arc;

    fn delivery(qos: Qos) -> Delivery {
        let message = Arc::new(Message::new("t", b"", b"x", qos, false, None));
        Delivery {
            message: LocalMessage::new(message),
            qos,
            retain: false,
            subscription_ids: SubscriptionIds::None,
            group: None,
        }
    }

    #[test]
    fn acknowledgements_in_any_order_settle_their_message() {
        let mut outbound = Outbound::default();
        let ids: Vec<_> = (0..5)
            .map(|_| outbound.begin(delivery(Qos::AtLeastOnce)))
            .collect();
        assert_eq!(ids, [1, 2, 3, 4, 5]);
        assert!(outbound.puback(3) && !outbound.puback(3));
        assert!(outbound.puback(1));
        let left: Vec<_> = outbound.unfinished().map(|entry| entry.packet_id).collect();
        assert_eq!(left, [2, 4, 5]);
        assert_eq!(outbound.unacknowledged(), 3);
        assert!(!outbound.puback(9) && !outbound.pubrec(2));
    }

    #[test]
    fn identifiers_wrap_without_zero_and_stay_findable() {
        let mut outbound = Outbound::default();
        for round in 0..200_000_u32 {
            let id = outbound.begin(delivery(Qos::AtLeastOnce));
            assert_ne!(id, 0);
            if round >= 3 {
                let oldest = outbound.unfinished().next().unwrap().packet_id;
                assert!(outbound.puback(oldest), "{oldest}");
            }
        }
        assert_eq!(outbound.unacknowledged(), 3);
    }

    #[test]
    fn qos_2_gives_its_place_back_at_pubcomp_only() {
        let mut outbound = Outbound::default();
        let id = outbound.begin(delivery(Qos::ExactlyOnce));
        assert!(!outbound.puback(id));
        assert!(
            outbound.pubrec(id) && outbound.pubrec(id),
            "a repeated PUBREC is answered again"
        );
        assert!(!outbound.has_room(1));
        assert!(outbound.pubcomp(id) && !outbound.pubcomp(id));
        let id = outbound.begin(delivery(Qos::ExactlyOnce));
        assert!(outbound.pubrec_failed(id));
        assert!(outbound.has_room(1));
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
            results[2]
        };
        assert_eq!(fill(QueueFull::DropNewest), Enqueued::DroppedNewest);
        assert_eq!(fill(QueueFull::DropOldest), Enqueued::DroppedOldest(1));
        assert_eq!(fill(QueueFull::Disconnect), Enqueued::Disconnect);
    }
}
