//! How a remote broker breaks the protocol: what ends its line, in an operator's words.

use crate::engine::codec::remote::Answer;
use crate::engine::codec::{DecodeError, PacketType, Reason, Version};
use crate::engine::message::Qos;

/// Bytes of the largest acknowledgement that a line sends: who takes less cannot be answered.
const ACKNOWLEDGEMENT_BYTES: u32 = 5;

/// A rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// One of a packet's form.
    Form(DecodeError),
    /// No broker sends such a packet then.
    Unexpected(PacketType),
    /// Another packet than CONNACK answers CONNECT.
    BeforeConnack(PacketType),
    /// A packet has more bytes than it may.
    PacketTooLarge { bytes: usize, max: usize },
    /// CONNACK takes no message that is acknowledged.
    ReceiveMaximumZero,
    /// CONNACK takes no packet, or none of the size of an acknowledgement.
    PacketMaximum(u32),
    /// CONNACK tells of a session where there can be none.
    SessionPresent,
    /// PUBLISH has an alias, or only that.
    TopicAlias(u16),
    /// PUBLISH has a higher QoS than was asked for.
    QosNotAsked { qos: Qos, asked: Qos },
    /// SUBACK is for no SUBSCRIBE, ...
    SubackUnknown(u16),
    /// ... has other codes than filters were named, ...
    SubackCodes { codes: usize, filters: usize },
    /// ... or one that is none.
    SubackCode(u8),
}

impl From<DecodeError> for Breach {
    fn from(error: DecodeError) -> Self {
        Breach::Form(error)
    }
}

impl Breach {
    /// What is broken by a CONNACK that lets the line in.
    pub fn of_answer(answer: &Answer<'_>, asks_for_clean: bool) -> Option<Self> {
        if answer.session_present && asks_for_clean {
            return Some(Breach::SessionPresent);
        }
        if answer.receive_maximum == 0 {
            return Some(Breach::ReceiveMaximumZero);
        }
        let max = answer.packet_bytes_max;
        (max < ACKNOWLEDGEMENT_BYTES).then_some(Breach::PacketMaximum(max))
    }

    /// What the remote broker is told of it, in 5.0.
    pub const fn reason(self) -> Reason {
        match self {
            Breach::Form(error) => error.reason(),
            Breach::PacketTooLarge { .. } => Reason::PacketTooLarge,
            Breach::TopicAlias(_) => Reason::TopicAliasInvalid,
            Breach::QosNotAsked { .. } => Reason::QosNotSupported,
            _ => Reason::ProtocolError,
        }
    }

    /// What was wrong, as the end of a sentence.
    pub fn told(self, version: Version) -> String {
        match self {
            Breach::Form(DecodeError::SubscriptionIdInPublish) => {
                "its PUBLISH has a subscription identifier, though it was given none".into()
            }
            Breach::Form(error) => error.told(Some(version)),
            Breach::Unexpected(kind) => {
                format!("it sends {}, which no broker may send then", kind.name())
            }
            Breach::BeforeConnack(kind) => format!("it answers CONNECT with {}", kind.name()),
            Breach::PacketTooLarge { bytes, max } => format!(
                "it sends a packet of {bytes} bytes, this broker takes {max} (limits.max_packet_bytes)"
            ),
            Breach::ReceiveMaximumZero => "its CONNACK has a Receive Maximum of 0".into(),
            Breach::PacketMaximum(0) => "its CONNACK has a Maximum Packet Size of 0".into(),
            Breach::PacketMaximum(max) => format!(
                "its CONNACK has a Maximum Packet Size of {max}, an acknowledgement has up to \
                 {ACKNOWLEDGEMENT_BYTES} bytes"
            ),
            Breach::SessionPresent => {
                "its CONNACK says that it has a session, though a clean one was asked for".into()
            }
            Breach::TopicAlias(alias) => {
                format!("its PUBLISH has topic alias {alias}, though it was allowed none")
            }
            Breach::QosNotAsked { qos, asked } => format!(
                "its PUBLISH is of QoS {}, though {} at most was asked for",
                qos.bits(),
                asked.bits()
            ),
            Breach::SubackUnknown(id) => {
                format!("its SUBACK has packet identifier {id}, of no SUBSCRIBE that waits for one")
            }
            Breach::SubackCodes { codes, filters } => {
                format!("its SUBACK has {codes} reason codes for {filters} filters")
            }
            Breach::SubackCode(code) => format!("its SUBACK has reason code 0x{code:02X}"),
        }
    }
}
