//! Packets and bytes of one shard, by type and direction.
//!
//! What goes out for a PUBLISH is counted as `messages_sent`, and bytes where sockets take them: a delivery
//! pays for nothing here.

use crate::engine::codec::PacketType;

/// Places for the types of packets, which are the high four bits of their first byte.
const TYPES: usize = 16;

/// Counts since the shard began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    received: [u64; TYPES],
    received_bytes: [u64; TYPES],
    sent: [u64; TYPES],
}

impl Traffic {
    /// A packet that begins so came whole; CONNECTs count when they let somebody in.
    #[inline(always)]
    pub fn receive(&mut self, first_byte: u8, bytes: usize) {
        let kind = usize::from(first_byte >> 4);
        self.received[kind] += 1;
        self.received_bytes[kind] += bytes as u64;
    }

    /// A packet goes out. Not for PUBLISH.
    #[inline(always)]
    pub fn send(&mut self, first_byte: u8) {
        self.sent[usize::from(first_byte >> 4)] += 1;
    }

    /// Packets that came, of a type.
    #[must_use]
    pub fn received(&self, kind: PacketType) -> u64 {
        self.received[kind as usize % TYPES]
    }

    /// Their bytes.
    #[must_use]
    pub fn received_bytes(&self, kind: PacketType) -> u64 {
        self.received_bytes[kind as usize % TYPES]
    }

    /// Packets that went out, of a type that is not PUBLISH.
    #[must_use]
    pub fn sent(&self, kind: PacketType) -> u64 {
        self.sent[kind as usize % TYPES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_counted_each_for_itself() {
        let mut traffic = Traffic::default();
        traffic.receive(PacketType::Publish.first_byte(), 9);
        traffic.receive(PacketType::Auth.first_byte(), 2);
        traffic.receive(PacketType::Publish.first_byte(), 1);
        traffic.send(PacketType::Pubrel.first_byte());
        assert_eq!(traffic.received(PacketType::Publish), 2);
        assert_eq!(traffic.received_bytes(PacketType::Publish), 10);
        assert_eq!(traffic.received_bytes(PacketType::Auth), 2);
        assert_eq!(traffic.sent(PacketType::Pubrel), 1);
        assert_eq!(traffic.sent(PacketType::Puback), 0);
    }
}
