//! QoS 2 toward a remote broker that may not speak it. 5.0 says so in CONNACK; brokers of 3.1.1 cannot, and
//! answer by PUBACK or close.

use crate::engine::codec::PacketType;
use crate::engine::codec::ack::Ack;
use std::collections::BTreeSet;

/// What became of messages of QoS 2 on a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OfQos2 {
    /// None was sent, or the line has not ended by the remote broker.
    #[default]
    Untried,
    /// The remote broker has ended the connection, and answered none before.
    Unanswered,
    /// It answers them as it should.
    Answered,
}

/// Messages of QoS 2 that are under way, by their packet identifiers.
#[derive(Debug, Default)]
pub(super) struct Exactly {
    /// Those that left as such and have no answer.
    sent: BTreeSet<u16>,
    /// Those that left with a lower QoS than they have here, or were answered like that.
    lowered: BTreeSet<u16>,
    is_answered: bool,
    /// One was answered with PUBACK.
    is_refused: bool,
    /// The remote broker ends the connection.
    ends_by_remote: bool,
}

/// What the core is to hear of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The same.
    Same,
    /// PUBREC in place of PUBACK.
    Pubrec,
    /// That, and it is the first time that the remote broker answers QoS 2 so.
    FirstPubrec,
}

impl Exactly {
    /// One leaves as it is.
    pub fn sent(&mut self, packet_id: u16) {
        self.lowered.remove(&packet_id);
        self.sent.insert(packet_id);
    }

    /// One leaves with a lower QoS.
    pub fn lowered(&mut self, packet_id: u16) {
        self.lowered.insert(packet_id);
    }

    /// Whether the remote broker takes QoS 2, as far as its answers tell.
    pub const fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// The remote broker acknowledges.
    pub fn heard(&mut self, ack: &Ack) -> Heard {
        let was_sent = match ack.kind {
            PacketType::Puback | PacketType::Pubrec => self.sent.remove(&ack.packet_id),
            _ => return Heard::Same,
        };
        if ack.kind == PacketType::Pubrec {
            self.is_answered |= was_sent;
            return Heard::Same;
        }
        let is_first = was_sent && !std::mem::replace(&mut self.is_refused, true);
        // By an error it is over: no PUBREL follows.
        let is_lowered = match ack.reason.is_error() {
            true => self.lowered.remove(&ack.packet_id),
            false if was_sent => self.lowered.insert(ack.packet_id),
            false => self.lowered.contains(&ack.packet_id),
        };
        match (is_first, was_sent || is_lowered) {
            (true, _) => Heard::FirstPubrec,
            (false, true) => Heard::Pubrec,
            (false, false) => Heard::Same,
        }
    }

    /// The core releases one: whether the remote broker knows nothing of that.
    pub fn released(&mut self, packet_id: u16) -> bool {
        self.lowered.remove(&packet_id)
    }

    /// The connection ends, and not from here.
    pub const fn ends_by_remote(&mut self) {
        self.ends_by_remote = true;
    }

    /// What became of them when the line ends.
    pub fn at_end(&self) -> OfQos2 {
        match self.is_answered {
            true => OfQos2::Answered,
            false if self.ends_by_remote && !self.sent.is_empty() => OfQos2::Unanswered,
            false => OfQos2::Untried,
        }
    }
}
