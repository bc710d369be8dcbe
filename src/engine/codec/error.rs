//! What a client's bytes can do wrong, one variant per broken rule.
//!
//! All of it is the peer's fault. One table gives each variant its reason code and the clause it
//! breaks; equality is on the variant. Nothing here says what the connection does about it.

use super::Reason;
use std::fmt;

macro_rules! decode_errors {
    ($($(#[doc = $doc:literal])+ $name:ident => $reason:ident, $clause:literal;)+) => {
        /// A rule of the packet format that a client's bytes broke.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DecodeError {
            $($(#[doc = $doc])+ $name,)+
        }

        impl DecodeError {
            /// Reason code for CONNACK or DISCONNECT.
            #[must_use]
            pub const fn reason(self) -> Reason {
                match self { $(DecodeError::$name => Reason::$reason,)+ }
            }

            /// The clause that was broken.
            #[must_use]
            pub const fn clause(self) -> &'static str {
                match self { $(DecodeError::$name => $clause,)+ }
            }

            const fn text(self) -> &'static str {
                match self { $(DecodeError::$name => concat!($($doc),+),)+ }
            }

            /// Every variant, for tests that walk the table.
            pub const ALL: &[DecodeError] = &[$(DecodeError::$name,)+];
        }
    };
}

decode_errors! {
    /// A length or integer field needs more bytes than the packet has.
    TooShort => MalformedPacket, "MQTT-1.5.5-1";
    /// The packet has bytes after its last field.
    TrailingBytes => MalformedPacket, "MQTT-3.1.4-1";
    /// A variable byte integer has more than four bytes or is padded.
    VariableByteInteger => MalformedPacket, "MQTT-1.5.5-1";
    /// A string is not valid UTF-8.
    InvalidUtf8 => MalformedPacket, "MQTT-1.5.4-1";
    /// A string contains the NUL character.
    NulCharacter => MalformedPacket, "MQTT-1.5.4-2";
    /// The packet is larger than the broker announced to accept (limits.max_packet_bytes).
    PacketTooLarge => PacketTooLarge, "MQTT-3.2.2-15";
    /// The flags of the fixed header are not those of the packet type.
    FixedHeaderFlags => MalformedPacket, "MQTT-2.1.3-1";
    /// The packet type is reserved.
    ReservedPacketType => MalformedPacket, "2.1.2";
    /// A client must not send this packet, or not in this state.
    UnexpectedPacket => ProtocolError, "MQTT-3.1.0-2";
    /// The packet identifier is 0.
    PacketIdZero => ProtocolError, "MQTT-2.2.1-3";
    /// The property identifier is unknown or not allowed in this packet.
    PropertyNotAllowed => MalformedPacket, "2.2.2.2";
    /// A property occurs twice that may occur once.
    PropertyRepeated => ProtocolError, "2.2.2.2";
    /// A property has a value outside its range.
    PropertyValue => ProtocolError, "2.2.2.2";
    /// The reason code is not one this packet may carry.
    ReasonCode => ProtocolError, "2.4";
    /// The protocol name is not MQTT.
    ProtocolName => UnsupportedProtocolVersion, "MQTT-3.1.2-1";
    /// The protocol level is not served.
    ProtocolLevel => UnsupportedProtocolVersion, "MQTT-3.1.2-2";
    /// The reserved bit of the connect flags is set.
    ConnectFlagReserved => MalformedPacket, "MQTT-3.1.2-3";
    /// Will QoS or will retain is set without a will, or the will QoS is 3.
    WillFlags => MalformedPacket, "MQTT-3.1.2-11";
    /// A password without a user name, which 3.1.1 forbids.
    PasswordWithoutUserName => MalformedPacket, "MQTT-3.1.2-22";
    /// An empty client identifier asks for a session that outlives its connection.
    ClientIdEmpty => ClientIdentifierNotValid, "MQTT-3.1.3-8";
    /// Authentication data without an authentication method.
    AuthenticationDataAlone => ProtocolError, "3.1.2.11.10";
    /// The AUTH packet does not name its authentication method.
    AuthenticationMethodMissing => ProtocolError, "3.15.2.2.2";
    /// The QoS bits are both set.
    QosReserved => MalformedPacket, "MQTT-3.3.1-4";
    /// DUP is set on a QoS 0 publish.
    DupAtQos0 => MalformedPacket, "MQTT-3.3.1-2";
    /// The topic name is empty and there is no topic alias.
    TopicEmpty => ProtocolError, "MQTT-4.7.3-1";
    /// The topic name contains a wildcard.
    TopicWildcard => TopicNameInvalid, "MQTT-3.3.2-2";
    /// The response topic is empty or contains a wildcard.
    ResponseTopic => ProtocolError, "MQTT-3.3.2-14";
    /// The topic alias is 0.
    TopicAliasZero => TopicAliasInvalid, "MQTT-3.3.2-8";
    /// A client's PUBLISH carries a subscription identifier.
    SubscriptionIdInPublish => ProtocolError, "MQTT-3.3.4-6";
    /// The subscription identifier is 0.
    SubscriptionIdZero => ProtocolError, "3.8.2.1.2";
    /// No topic filter is named.
    NoFilter => ProtocolError, "MQTT-3.8.3-2";
    /// Reserved bits of the subscription options are set.
    SubscriptionOptionsReserved => MalformedPacket, "MQTT-3.8.3-5";
    /// Maximum QoS 3 or retain handling 3 in the subscription options.
    SubscriptionOptionsValue => ProtocolError, "3.8.3.1";
    /// No Local on a shared subscription.
    NoLocalShared => ProtocolError, "MQTT-3.8.3-4";
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.text().trim(), self.clause())
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_failing_reason_and_a_clause() {
        for error in DecodeError::ALL {
            assert!(error.reason().is_error(), "{error:?}");
            assert!(!error.clause().is_empty(), "{error:?}");
        }
    }
}
