//! Client to broker: which QoS 2 publishes are unfinished (4.3.3).
//!
//! ```text
//!   PUBLISH(id) ──► [id known] ──PUBREL──► forgotten
//!        └─ again before PUBREL: answered, not routed
//! ```
//! QoS 1 needs no state: it is acknowledged as soon as it is accepted.

use super::IDLE_MESSAGES_MAX;
use hashbrown::HashSet;

/// Identifiers of QoS 2 publishes that were accepted and not yet released.
#[derive(Debug, Default)]
pub struct Inbound {
    received: HashSet<u16, foldhash::fast::FixedState>,
}

impl Inbound {
    /// Whether a publish with this identifier is a repeat `[MQTT-4.3.3-10]`.
    #[must_use]
    pub fn is_repeat(&self, packet_id: u16) -> bool {
        self.received.contains(&packet_id)
    }

    /// Notes an accepted publish.
    pub fn accept(&mut self, packet_id: u16) {
        self.received.insert(packet_id);
    }

    /// PUBREL: from here on the identifier means a new message `[MQTT-4.3.3-12]`. Returns whether it
    /// was known.
    pub fn release(&mut self, packet_id: u16) -> bool {
        let known = self.received.remove(&packet_id);
        if self.received.is_empty() && self.received.capacity() > IDLE_MESSAGES_MAX {
            self.received = HashSet::default();
        }
        known
    }

    /// The identifiers in use, in no particular order.
    pub fn received(&self) -> impl Iterator<Item = u16> {
        self.received.iter().copied()
    }

    /// Publishes that wait for their PUBREL; they count against the receive maximum.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.received.len()
    }
}
