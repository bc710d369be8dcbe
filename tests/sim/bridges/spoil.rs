//! Errors in what a line sends, each of which the oracle has to find.

use ringmq::engine::codec::PacketType;
use ringmq::engine::codec::frame::{Split, split};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    Nothing,
    /// A message of QoS 2 goes twice, with another identifier.
    Doubles,
    /// One goes behind the next.
    Reorders,
    /// One of QoS 1 is acknowledged to its broker, and never goes.
    Swallows,
    /// Brokers do not tell bridges their names: nobody knows where a message has been.
    Nameless,
    /// Sessions of several lines are read from disk without their parts of the topics.
    Partless,
}

/// Does it once to the packets that go to the other broker.
pub struct Spoiler {
    planted: Planted,
    /// A packet that is held back.
    held: Vec<u8>,
}

impl Spoiler {
    pub const fn new(planted: Planted) -> Self {
        Spoiler {
            planted,
            held: Vec::new(),
        }
    }

    /// The line has ended, with what was held back.
    pub fn end(&mut self) {
        self.held.clear();
    }

    /// Looks at what goes to the other broker, and to the line's own.
    pub fn spoil(&mut self, down: &mut Vec<u8>, up: &mut Vec<u8>) {
        if matches!(
            self.planted,
            Planted::Nothing | Planted::Nameless | Planted::Partless
        ) {
            return;
        }
        let stream = std::mem::take(down);
        let mut rest = &stream[..];
        while let Ok(Split::Whole(frame, bytes)) = split(rest, usize::MAX) {
            let whole = &rest[..bytes];
            rest = &rest[bytes..];
            let is_publish = frame.first_byte >> 4 == PacketType::Publish as u8;
            let is_meant = match frame.first_byte >> 1 & 3 {
                1 => self.planted == Planted::Swallows,
                _ => matches!(self.planted, Planted::Doubles | Planted::Reorders),
            };
            if !is_publish || !is_meant {
                down.extend_from_slice(whole);
                continue;
            }
            let topic_bytes = usize::from(u16::from_be_bytes([frame.body[0], frame.body[1]]));
            let id_at = bytes - frame.body.len() + 2 + topic_bytes;
            self.spoil_one(whole, id_at, down, up);
        }
        down.extend_from_slice(rest);
    }

    fn spoil_one(&mut self, whole: &[u8], id_at: usize, down: &mut Vec<u8>, up: &mut Vec<u8>) {
        match self.planted {
            Planted::Doubles => {
                down.extend_from_slice(whole);
                let mut copy = whole.to_vec();
                copy[id_at] ^= 0x40;
                down.extend_from_slice(&copy);
            }
            Planted::Reorders if self.held.is_empty() => {
                self.held.extend_from_slice(whole);
                return;
            }
            Planted::Reorders => {
                down.extend_from_slice(whole);
                down.append(&mut self.held);
            }
            _ => up.extend_from_slice(&[0x40, 2, whole[id_at], whole[id_at + 1]]),
        }
        self.planted = Planted::Nothing;
    }
}
