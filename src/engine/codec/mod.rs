//! MQTT 3.1, 3.1.1 and 5.0 on the wire: bytes to packets and packets to bytes.
//!
//! Decoding borrows from the receive buffer and is strict: a value that exists is valid, down to topic
//! names and filters. What a packet *means* in the state a connection is in (quota, order, rights) is
//! not decided here but in `session`. The codec knows no other module of the broker but `message::Qos`.

pub mod ack;
pub mod connect;
pub mod control;
pub mod error;
pub mod foreign;
pub mod frame;
pub mod primitive;
pub mod property;
pub mod publish;
pub mod reason;
pub mod remote;
pub mod subscribe;
pub mod topic;

pub use error::DecodeError;
pub use reason::Reason;

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V3_1,
    /// MQTT 3.1.1: level 4.
    V3_1_1,
    /// MQTT 5.0: level 5.
    V5,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Version::V3_1 => "3.1",
            Version::V3_1_1 => "3.1.1",
            Version::V5 => "5.0",
        })
    }
}

impl Version {
    /// Protocol name and level in CONNECT (3.1.2.1, 3.1.2.2).
    #[must_use]
    pub const fn name_and_level(self) -> (&'static str, u8) {
        match self {
            Version::V3_1 => ("MQIsdp", 3),
            Version::V3_1_1 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        }
    }

    /// Whether packets carry properties and reason codes.
    #[must_use]
    pub const fn is_v5(self) -> bool {
        matches!(self, Version::V5)
    }
}

/// Control packet types: the high four bits of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// Its name in the standard.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}").to_uppercase()
    }

    /// Type of a packet by its first byte, `None` for the reserved type 0.
    #[must_use]
    pub const fn from_first_byte(byte: u8) -> Option<Self> {
        Some(match byte >> 4 {
            1 => PacketType::Connect,
            2 => PacketType::Connack,
            3 => PacketType::Publish,
            4 => PacketType::Puback,
            5 => PacketType::Pubrec,
            6 => PacketType::Pubrel,
            7 => PacketType::Pubcomp,
            8 => PacketType::Subscribe,
            9 => PacketType::Suback,
            10 => PacketType::Unsubscribe,
            11 => PacketType::Unsuback,
            12 => PacketType::Pingreq,
            13 => PacketType::Pingresp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => return None,
        })
    }

    /// First byte of a packet of this type with the flags the standard fixes for it (0 for PUBLISH).
    #[must_use]
    pub const fn first_byte(self) -> u8 {
        let flags = match self {
            PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }

    /// Whether a packet of this type, which is not PUBLISH, may begin so. 3.1 reserves no flags: PUBREL,
    /// SUBSCRIBE and UNSUBSCRIBE have QoS 1, and DUP when they come again; the rest is not looked at.
    #[must_use]
    pub const fn may_begin_with(self, first_byte: u8, version: Version) -> bool {
        let looked_at = match version {
            Version::V3_1 if self.first_byte() & 0b1111 != 0 => 0b0110,
            Version::V3_1 => 0,
            Version::V3_1_1 | Version::V5 => 0b1111,
        };
        (first_byte ^ self.first_byte()) & looked_at == 0
    }
}

/// A packet a client may send, decoded.
#[derive(Debug)]
pub enum Packet<'a> {
    /// CONNECT.
    Connect(connect::Connect<'a>),
    /// PUBLISH.
    Publish(publish::Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(ack::Ack),
    /// SUBSCRIBE.
    Subscribe(subscribe::Subscribe<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(subscribe::Unsubscribe<'a>),
    /// PINGREQ.
    Pingreq,
    /// DISCONNECT.
    Disconnect(control::Disconnect),
    /// AUTH.
    Auth(control::Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes a whole frame that is not CONNECT, as a client of `version` sends it.
    ///
    /// # Errors
    /// Any broken rule of the packet's form, as a [`DecodeError`]. A CONNECT is a
    /// [`DecodeError::UnexpectedPacket`]: the first one is decoded by
    /// [`connect::Connect::decode`], a second one breaks `[MQTT-3.1.0-2]`.
    pub fn decode(frame: frame::Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let kind =
            PacketType::from_first_byte(frame.first_byte).ok_or(DecodeError::ReservedPacketType)?;
        if kind != PacketType::Publish && !kind.may_begin_with(frame.first_byte, version) {
            return Err(DecodeError::FixedHeaderFlags);
        }
        let body = frame.body;
        Ok(match kind {
            PacketType::Publish => {
                Packet::Publish(publish::Publish::decode(frame.first_byte, body, version)?)
            }
            PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
                Packet::Ack(ack::Ack::decode(kind, body, version)?)
            }
            PacketType::Subscribe => {
                Packet::Subscribe(subscribe::Subscribe::decode(body, version)?)
            }
            PacketType::Unsubscribe => {
                Packet::Unsubscribe(subscribe::Unsubscribe::decode(body, version)?)
            }
            PacketType::Pingreq if body.is_empty() => Packet::Pingreq,
            PacketType::Pingreq => return Err(DecodeError::TrailingBytes),
            PacketType::Disconnect => {
                Packet::Disconnect(control::Disconnect::decode(body, version)?)
            }
            PacketType::Auth if version.is_v5() => Packet::Auth(control::Auth::decode(body)?),
            PacketType::Auth => return Err(DecodeError::ReservedPacketType),
            PacketType::Connect
            | PacketType::Connack
            | PacketType::Suback
            | PacketType::Unsuback
            | PacketType::Pingresp => return Err(DecodeError::UnexpectedPacket),
        })
    }
}
