//! PUBLISH (3.3): borrowed decoding, and encoding from parts.
//!
//! The properties that every receiver gets unchanged are one encoded block ([`MessageProperties`]
//! `forwarded`), in the order the publisher wrote them `[MQTT-3.3.2-18]`: they are copied, never
//! rebuilt. What differs per receiver (expiry, alias, identifiers) is written beside it.

use super::primitive::{
    Reader, put_string, put_u16, put_u32, put_variable_byte_integer, variable_byte_integer_len,
};
use super::property::{Properties, Property, PropertySet, id};
use super::topic::has_wildcard;
use super::{DecodeError, Version};
use crate::engine::message::Qos;
use std::borrow::Cow;

/// A PUBLISH as a client sent it.
#[derive(Debug)]
pub struct Publish<'a> {
    /// Set on a repeat; never passed on `[MQTT-3.3.1-3]`.
    pub dup: bool,
    /// QoS it was sent with.
    pub qos: Qos,
    /// Whether it becomes the topic's retained message.
    pub retain: bool,
    /// Topic name; empty if an alias stands for it. Its form is checked where the limits are known.
    pub topic: &'a str,
    /// Packet identifier, 0 at QoS 0.
    pub packet_id: u16,
    /// Application payload.
    pub payload: &'a [u8],
    /// Its properties.
    pub properties: MessageProperties<'a>,
}

/// Properties of a message: of a PUBLISH or a will.
#[derive(Debug, Default)]
pub struct MessageProperties<'a> {
    /// Message expiry interval in seconds.
    pub expiry_seconds: Option<u32>,
    /// Topic alias.
    pub topic_alias: Option<u16>,
    /// Will delay interval in seconds; wills only.
    pub will_delay_seconds: u32,
    /// Whether the payload format indicator says UTF-8.
    pub payload_is_utf8: bool,
    /// What is passed on unchanged, encoded.
    pub forwarded: Cow<'a, [u8]>,
}

impl<'a> MessageProperties<'a> {
    /// Reads a property block.
    ///
    /// # Errors
    /// Any malformed, misplaced, repeated or out of range property.
    pub fn read(reader: &mut Reader<'a>, allowed: PropertySet) -> Result<Self, DecodeError> {
        let mut known = MessageProperties {
            forwarded: Cow::Borrowed(&[]),
            ..MessageProperties::default()
        };
        let mut properties = Properties::read(reader, allowed)?;
        let block = properties.rest();
        // What is passed on stays borrowed as long as it stands together in the block.
        let (mut start, mut end) = (0, 0);
        while let Some(property) = properties.next_property()? {
            if !known.note(&property)? {
                continue;
            }
            let until = block.len() - properties.rest().len();
            let from = until - property.encoded.len();
            match &mut known.forwarded {
                Cow::Owned(together) => together.extend_from_slice(property.encoded),
                Cow::Borrowed(_) if start == end => (start, end) = (from, until),
                Cow::Borrowed(_) if from == end => end = until,
                Cow::Borrowed(_) => {
                    let mut together = block.get(start..end).unwrap_or_default().to_vec();
                    together.extend_from_slice(property.encoded);
                    known.forwarded = Cow::Owned(together);
                }
            }
        }
        if let Cow::Borrowed(together) = &mut known.forwarded {
            *together = block.get(start..end).unwrap_or_default();
        }
        Ok(known)
    }

    /// Takes note of one property; returns whether it is passed on.
    fn note(&mut self, property: &Property<'a>) -> Result<bool, DecodeError> {
        let value = property.value;
        match property.id {
            id::MESSAGE_EXPIRY_INTERVAL => self.expiry_seconds = Some(value.integer()),
            id::WILL_DELAY_INTERVAL => self.will_delay_seconds = value.integer(),
            id::TOPIC_ALIAS => match value.integer() {
                0 => return Err(DecodeError::TopicAliasZero),
                alias => self.topic_alias = Some(alias as u16),
            },
            id::SUBSCRIPTION_IDENTIFIER => return Err(DecodeError::SubscriptionIdInPublish),
            id::PAYLOAD_FORMAT_INDICATOR => {
                self.payload_is_utf8 = value.flag()?;
                return Ok(true);
            }
            id::RESPONSE_TOPIC => {
                let topic = value.string();
                if topic.is_empty() || has_wildcard(topic) {
                    return Err(DecodeError::ResponseTopic);
                }
                return Ok(true);
            }
            _ => return Ok(true),
        }
        Ok(false)
    }
}

impl<'a> Publish<'a> {
    /// Decodes a PUBLISH; `first_byte` holds its flags.
    ///
    /// # Errors
    /// Any broken rule of its form.
    pub fn decode(first_byte: u8, body: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let qos = Qos::from_bits(first_byte >> 1 & 0b11).ok_or(DecodeError::QosReserved)?;
        let dup = first_byte & 0x08 != 0;
        // 3.1.1 and 5.0 forbid it; clients in the field set it, and receivers may not care.
        if dup && qos == Qos::AtMostOnce && version.is_v5() {
            return Err(DecodeError::DupAtQos0);
        }
        let mut reader = Reader::new(body);
        let topic = reader.string()?;
        let packet_id = if qos == Qos::AtMostOnce {
            0
        } else {
            reader.packet_id()?
        };
        let properties = if version.is_v5() {
            MessageProperties::read(&mut reader, PropertySet::PUBLISH)?
        } else {
            MessageProperties::default()
        };
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(DecodeError::TopicEmpty);
        }
        if has_wildcard(topic) {
            return Err(DecodeError::TopicWildcard);
        }
        Ok(Publish {
            dup,
            qos,
            retain: first_byte & 0x01 != 0,
            topic,
            packet_id,
            payload: reader.rest(),
            properties,
        })
    }
}

/// The parts of a PUBLISH to a client; the payload follows what [`PublishHead::encode`] appends.
#[derive(Clone, Copy, Debug)]
pub struct PublishHead<'a> {
    /// Version the client speaks.
    pub version: Version,
    /// Whether this is a repeat after a reconnect `[MQTT-3.3.1-1]`.
    pub dup: bool,
    /// QoS of this delivery.
    pub qos: Qos,
    /// RETAIN flag of this delivery.
    pub retain: bool,
    /// Topic name; empty if the alias is known to the client.
    pub topic: &'a str,
    /// Packet identifier; written above QoS 0 only.
    pub packet_id: u16,
    /// Encoded properties passed on unchanged; not written for 3.x.
    pub forwarded: &'a [u8],
    /// What is left of the message expiry interval `[MQTT-3.3.2-6]`.
    pub expiry_seconds: Option<u32>,
    /// Topic alias, 0 for none.
    pub topic_alias: u16,
    /// Subscription identifiers that matched `[MQTT-3.3.4-3]`.
    pub subscription_ids: &'a [u32],
    /// Bytes of the payload.
    pub payload_bytes: usize,
}

impl PublishHead<'_> {
    fn property_bytes(&self) -> usize {
        let ids = self.subscription_ids.iter();
        self.forwarded.len()
            + if self.expiry_seconds.is_some() { 5 } else { 0 }
            + if self.topic_alias > 0 { 3 } else { 0 }
            + ids
                .map(|&id| 1 + variable_byte_integer_len(id as usize))
                .sum::<usize>()
    }

    fn remaining_bytes(&self) -> usize {
        let id_bytes = if self.qos == Qos::AtMostOnce { 0 } else { 2 };
        let properties = if self.version.is_v5() {
            let bytes = self.property_bytes();
            variable_byte_integer_len(bytes) + bytes
        } else {
            0
        };
        2 + self.topic.len() + id_bytes + properties + self.payload_bytes
    }

    /// Bytes of the whole packet, payload included.
    #[must_use]
    pub fn packet_bytes(&self) -> usize {
        let remaining = self.remaining_bytes();
        1 + variable_byte_integer_len(remaining) + remaining
    }

    /// Appends everything before the payload. Returns where the packet identifier stands, counted
    /// from the first appended byte, `None` at QoS 0.
    pub fn encode(&self, out: &mut Vec<u8>) -> Option<usize> {
        let start = out.len();
        let flags = u8::from(self.dup) << 3 | self.qos.bits() << 1 | u8::from(self.retain);
        out.push(0x30 | flags);
        put_variable_byte_integer(out, self.remaining_bytes() as u32);
        put_string(out, self.topic);
        let id_at = (self.qos != Qos::AtMostOnce).then(|| {
            let at = out.len() - start;
            put_u16(out, self.packet_id);
            at
        });
        if self.version.is_v5() {
            self.put_properties(out);
        }
        id_at
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        put_variable_byte_integer(out, self.property_bytes() as u32);
        if let Some(seconds) = self.expiry_seconds {
            out.push(id::MESSAGE_EXPIRY_INTERVAL);
            put_u32(out, seconds);
        }
        if self.topic_alias > 0 {
            out.push(id::TOPIC_ALIAS);
            put_u16(out, self.topic_alias);
        }
        for &identifier in self.subscription_ids {
            out.push(id::SUBSCRIPTION_IDENTIFIER);
            put_variable_byte_integer(out, identifier);
        }
        out.extend_from_slice(self.forwarded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: [u8; 7] = [0x26, 0, 1, b'a', 0, 1, b'1'];

    fn v5_body(block: &[u8]) -> Vec<u8> {
        [&[0, 1, b't', block.len() as u8], block, b"payload"].concat()
    }

    #[test]
    fn what_is_passed_on_keeps_its_order_and_leaves_out_the_hop() {
        let format = [0x01, 1];
        let expiry = [0x02, 0, 0, 0, 9];
        let alias = [0x23, 0, 4];
        let block = [&USER[..], &expiry, &format, &alias, &USER].concat();
        let body = v5_body(&block);
        let publish = Publish::decode(0x30, &body, Version::V5).unwrap();
        assert_eq!(publish.properties.expiry_seconds, Some(9));
        assert_eq!(publish.properties.topic_alias, Some(4));
        assert!(publish.properties.payload_is_utf8);
        assert_eq!(
            *publish.properties.forwarded,
            [&USER[..], &format, &USER].concat()
        );
        assert_eq!(publish.payload, b"payload");
    }

    #[test]
    fn a_block_passed_on_whole_is_not_copied() {
        let body = v5_body(&USER);
        let publish = Publish::decode(0x30, &body, Version::V5).unwrap();
        assert!(matches!(publish.properties.forwarded, Cow::Borrowed(block) if block == USER));
    }

    #[test]
    fn what_stands_together_is_not_copied_for_what_is_left_out_around_it() {
        let expiry = [0x02, 0, 0, 0, 9];
        let alias = [0x23, 0, 4];
        let body = v5_body(&[&expiry[..], &USER, &USER, &alias].concat());
        let publish = Publish::decode(0x30, &body, Version::V5).unwrap();
        let both = [USER, USER].concat();
        assert!(matches!(publish.properties.forwarded, Cow::Borrowed(block) if block == both));
    }

    #[test]
    fn broken_rules_have_their_errors() {
        let decode = |first: u8, body: &[u8]| {
            Publish::decode(first, body, Version::V5)
                .map(|_| ())
                .unwrap_err()
        };
        assert_eq!(decode(0x36, &v5_body(&[])), DecodeError::QosReserved);
        assert_eq!(decode(0x38, &v5_body(&[])), DecodeError::DupAtQos0);
        assert_eq!(
            decode(0x32, &[0, 1, b't', 0, 0, 0]),
            DecodeError::PacketIdZero
        );
        assert_eq!(decode(0x30, &[0, 0, 0]), DecodeError::TopicEmpty);
        assert_eq!(decode(0x30, &[0, 1, b'#', 0]), DecodeError::TopicWildcard);
        assert_eq!(
            decode(0x30, &v5_body(&[0x23, 0, 0])),
            DecodeError::TopicAliasZero
        );
        assert_eq!(
            decode(0x30, &v5_body(&[0x0B, 1])),
            DecodeError::SubscriptionIdInPublish
        );
        assert_eq!(
            decode(0x30, &v5_body(&[0x08, 0, 1, b'#'])),
            DecodeError::ResponseTopic
        );
        assert_eq!(
            decode(0x30, &v5_body(&[0x01, 2])),
            DecodeError::PropertyValue
        );
    }

    #[test]
    fn the_head_is_as_long_as_it_says() {
        for version in [Version::V3_1_1, Version::V5] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
                let head = PublishHead {
                    version,
                    dup: false,
                    qos,
                    retain: true,
                    topic: "a/b",
                    packet_id: 0x1234,
                    forwarded: &USER,
                    expiry_seconds: Some(7),
                    topic_alias: 0,
                    subscription_ids: &[5, 300],
                    payload_bytes: 200,
                };
                let mut out = vec![0xAA];
                let id_at = head.encode(&mut out);
                assert_eq!(out.len() - 1 + 200, head.packet_bytes());
                if let Some(at) = id_at {
                    assert_eq!(out[1 + at..1 + at + 2], [0x12, 0x34]);
                }
                assert_eq!(id_at.is_some(), qos == Qos::AtLeastOnce);
            }
        }
    }
}
