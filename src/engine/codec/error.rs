//! What a client's bytes can do wrong, one variant per broken rule.
//!
//! All of it is the peer's fault. One table gives each variant its reason code and the clause it
//! breaks in 5.0 and in 3.1.1; equality is on the variant. Nothing here says what the connection does about
//! it.

use super::{Reason, Version};
use std::fmt;

macro_rules! decode_errors {
    ($($(#[doc = $doc:literal])+ $name:ident => $reason:ident, $clause:literal, $clause_3_1_1:literal;)+) => {
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

            /// The clause of 5.0 that was broken.
            #[must_use]
            pub const fn clause(self) -> &'static str {
                match self { $(DecodeError::$name => $clause,)+ }
            }

            /// That of 3.1.1.
            #[must_use]
            pub const fn clause_3_1_1(self) -> &'static str {
                match self { $(DecodeError::$name => $clause_3_1_1,)+ }
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
    TooShort => MalformedPacket, "MQTT-1.5.5-1", "MQTT-4.8.0-1";
    /// The packet has bytes after its last field.
    TrailingBytes => MalformedPacket, "MQTT-3.1.4-1", "MQTT-4.8.0-1";
    /// A variable byte integer has more than four bytes or is padded.
    VariableByteInteger => MalformedPacket, "MQTT-1.5.5-1", "MQTT-4.8.0-1";
    /// A string is not valid UTF-8.
    InvalidUtf8 => MalformedPacket, "MQTT-1.5.4-1", "MQTT-1.5.3-1";
    /// A string contains the NUL character.
    NulCharacter => MalformedPacket, "MQTT-1.5.4-2", "MQTT-1.5.3-2";
    /// The packet is larger than the broker announced to accept (limits.max_packet_bytes).
    PacketTooLarge => PacketTooLarge, "MQTT-3.2.2-15", "MQTT-4.8.0-1";
    /// The flags of the fixed header are not those of the packet type.
    FixedHeaderFlags => MalformedPacket, "MQTT-2.1.3-1", "MQTT-2.2.2-2";
    /// The packet type is reserved.
    ReservedPacketType => MalformedPacket, "2.1.2", "MQTT-4.8.0-1";
    /// A client must not send this packet, or not in this state.
    UnexpectedPacket => ProtocolError, "MQTT-3.1.0-2", "MQTT-3.1.0-2";
    /// The packet identifier is 0.
    PacketIdZero => ProtocolError, "MQTT-2.2.1-3", "MQTT-2.3.1-1";
    /// The property identifier is unknown or not allowed in this packet.
    PropertyNotAllowed => MalformedPacket, "2.2.2.2", "MQTT-4.8.0-1";
    /// A property occurs twice that may occur once.
    PropertyRepeated => ProtocolError, "2.2.2.2", "MQTT-4.8.0-1";
    /// A property has a value outside its range.
    PropertyValue => ProtocolError, "2.2.2.2", "MQTT-4.8.0-1";
    /// The reason code is not one this packet may carry.
    ReasonCode => ProtocolError, "2.4", "MQTT-4.8.0-1";
    /// The protocol name is neither MQTT nor MQIsdp.
    ProtocolName => UnsupportedProtocolVersion, "MQTT-3.1.2-1", "MQTT-3.1.2-1";
    /// The protocol level is not served.
    ProtocolLevel => UnsupportedProtocolVersion, "MQTT-3.1.2-2", "MQTT-3.1.2-2";
    /// The reserved bit of the connect flags is set.
    ConnectFlagReserved => MalformedPacket, "MQTT-3.1.2-3", "MQTT-3.1.2-3";
    /// Will QoS or will retain is set without a will, or the will QoS is 3.
    WillFlags => MalformedPacket, "MQTT-3.1.2-11", "MQTT-3.1.2-11";
    /// A password without a user name, which only 5.0 allows.
    PasswordWithoutUserName => MalformedPacket, "MQTT-3.1.2-22", "MQTT-3.1.2-22";
    /// An empty client identifier asks for a session that outlives its connection.
    ClientIdEmpty => ClientIdentifierNotValid, "MQTT-3.1.3-8", "MQTT-3.1.3-8";
    /// Authentication data without an authentication method.
    AuthenticationDataAlone => ProtocolError, "3.1.2.11.10", "MQTT-4.8.0-1";
    /// The AUTH packet does not name its authentication method.
    AuthenticationMethodMissing => ProtocolError, "3.15.2.2.2", "MQTT-4.8.0-1";
    /// The QoS bits are both set.
    QosReserved => MalformedPacket, "MQTT-3.3.1-4", "MQTT-3.3.1-4";
    /// DUP is set on a QoS 0 publish.
    DupAtQos0 => MalformedPacket, "MQTT-3.3.1-2", "MQTT-3.3.1-2";
    /// The topic name is empty and there is no topic alias.
    TopicEmpty => ProtocolError, "MQTT-4.7.3-1", "MQTT-4.7.3-1";
    /// The topic name contains a wildcard.
    TopicWildcard => TopicNameInvalid, "MQTT-3.3.2-2", "MQTT-3.3.2-2";
    /// The response topic is empty or contains a wildcard.
    ResponseTopic => ProtocolError, "MQTT-3.3.2-14", "MQTT-4.8.0-1";
    /// The topic alias is 0.
    TopicAliasZero => TopicAliasInvalid, "MQTT-3.3.2-8", "MQTT-4.8.0-1";
    /// A client's PUBLISH carries a subscription identifier.
    SubscriptionIdInPublish => ProtocolError, "MQTT-3.3.4-6", "MQTT-4.8.0-1";
    /// The subscription identifier is 0.
    SubscriptionIdZero => ProtocolError, "3.8.2.1.2", "MQTT-4.8.0-1";
    /// No topic filter is named.
    NoFilter => ProtocolError, "MQTT-3.8.3-2", "MQTT-3.8.3-3";
    /// Reserved bits of the subscription options are set.
    SubscriptionOptionsReserved => MalformedPacket, "MQTT-3.8.3-5", "MQTT-3.8.3-4";
    /// Maximum QoS 3 or retain handling 3 in the subscription options.
    SubscriptionOptionsValue => ProtocolError, "3.8.3.1", "MQTT-3.8.3-4";
    /// No Local on a shared subscription.
    NoLocalShared => ProtocolError, "MQTT-3.8.3-4", "MQTT-4.8.0-1";
}

impl DecodeError {
    /// What is wrong, in the words of the version that the client speaks, as far as that is known.
    #[must_use]
    pub fn told(self, version: Option<Version>) -> String {
        match version {
            None | Some(Version::V5) => self.to_string(),
            Some(version @ Version::V3_1_1) => {
                format!("{} [{}]", self.text_3(version), self.clause_3_1_1())
            }
            // Its rules have no numbers.
            Some(version @ Version::V3_1) => format!("{} (MQTT 3.1)", self.text_3(version)),
        }
    }

    /// The text for 3.x, which lacks some of what 5.0 has.
    const fn text_3(self, version: Version) -> &'static str {
        match self {
            DecodeError::ClientIdEmpty if matches!(version, Version::V3_1) => {
                "The client identifier is empty."
            }
            DecodeError::TopicEmpty => "The topic name is empty.",
            DecodeError::SubscriptionOptionsReserved => {
                "Reserved bits beside a requested QoS are set."
            }
            DecodeError::SubscriptionOptionsValue => "A requested QoS is 3.",
            DecodeError::ReservedPacketType => "The packet type is reserved in this version.",
            _ => self.text().trim_ascii(),
        }
    }
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

    #[test]
    fn each_version_is_told_in_its_own_words() {
        let flags = DecodeError::FixedHeaderFlags;
        let told = |version| flags.told(version);
        assert!(told(Some(Version::V5)).ends_with("the packet type. [MQTT-2.1.3-1]"));
        assert!(told(Some(Version::V3_1_1)).ends_with("the packet type. [MQTT-2.2.2-2]"));
        assert!(told(Some(Version::V3_1)).ends_with("the packet type. (MQTT 3.1)"));
        assert_eq!(told(None), told(Some(Version::V5)));
        for error in DecodeError::ALL {
            let in_3_1 = error.told(Some(Version::V3_1));
            assert!(
                !in_3_1.contains("MQTT-") && !in_3_1.contains("3.1.1"),
                "{in_3_1}"
            );
            for version in [Version::V3_1, Version::V3_1_1] {
                let told = error.told(Some(version));
                assert!(!told.contains("options"), "{told}");
            }
        }
    }
}
