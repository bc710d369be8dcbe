//! The properties of MQTT 5.0: which exist, their types, where a client may send them, and whether
//! they may repeat (2.2.2.2).
//!
//! [`Properties`] walks an encoded block and yields only what is known, allowed and, unless it may
//! repeat, seen for the first time. Ranges of single values are checked by the packet that uses them.

use super::DecodeError;
use super::primitive::{Reader, put_string};

/// Identifiers of the properties (2.2.2.2).
#[allow(missing_docs)]
pub mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// A set of property identifiers; all are below 64.
#[derive(Clone, Copy, Debug)]
pub struct PropertySet(u64);

impl PropertySet {
    const fn of(ids: &[u8]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < ids.len() {
            bits |= 1 << ids[index];
            index += 1;
        }
        PropertySet(bits)
    }

    const fn contains(self, id: u8) -> bool {
        id < 64 && self.0 & (1 << id) != 0
    }

    /// What CONNECT may carry (3.1.2.11).
    pub const CONNECT: PropertySet = PropertySet::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::RECEIVE_MAXIMUM,
        id::MAXIMUM_PACKET_SIZE,
        id::TOPIC_ALIAS_MAXIMUM,
        id::REQUEST_RESPONSE_INFORMATION,
        id::REQUEST_PROBLEM_INFORMATION,
        id::USER_PROPERTY,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
    ]);
    /// What a will may carry (3.1.3.2).
    pub const WILL: PropertySet = PropertySet::of(&[
        id::WILL_DELAY_INTERVAL,
        id::PAYLOAD_FORMAT_INDICATOR,
        id::MESSAGE_EXPIRY_INTERVAL,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::USER_PROPERTY,
    ]);
    /// What PUBLISH may carry (3.3.2.3); the subscription identifier is refused by its own rule.
    pub const PUBLISH: PropertySet = PropertySet::of(&[
        id::PAYLOAD_FORMAT_INDICATOR,
        id::MESSAGE_EXPIRY_INTERVAL,
        id::TOPIC_ALIAS,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::USER_PROPERTY,
        id::SUBSCRIPTION_IDENTIFIER,
        id::CONTENT_TYPE,
    ]);
    /// What PUBACK, PUBREC, PUBREL and PUBCOMP may carry.
    pub const ACK: PropertySet = PropertySet::of(&[id::REASON_STRING, id::USER_PROPERTY]);
    /// What SUBSCRIBE may carry (3.8.2.1).
    pub const SUBSCRIBE: PropertySet =
        PropertySet::of(&[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY]);
    /// What UNSUBSCRIBE may carry (3.10.2.1).
    pub const UNSUBSCRIBE: PropertySet = PropertySet::of(&[id::USER_PROPERTY]);
    /// What a client's DISCONNECT may carry (3.14.2.2).
    pub const DISCONNECT: PropertySet = PropertySet::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::REASON_STRING,
        id::USER_PROPERTY,
    ]);
    /// What a broker's CONNACK may carry (3.2.2.3).
    pub const CONNACK: PropertySet = PropertySet::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::RECEIVE_MAXIMUM,
        id::MAXIMUM_QOS,
        id::RETAIN_AVAILABLE,
        id::MAXIMUM_PACKET_SIZE,
        id::ASSIGNED_CLIENT_IDENTIFIER,
        id::TOPIC_ALIAS_MAXIMUM,
        id::REASON_STRING,
        id::USER_PROPERTY,
        id::WILDCARD_SUBSCRIPTION_AVAILABLE,
        id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
        id::SHARED_SUBSCRIPTION_AVAILABLE,
        id::SERVER_KEEP_ALIVE,
        id::RESPONSE_INFORMATION,
        id::SERVER_REFERENCE,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
    ]);
    /// What a broker's DISCONNECT may carry (3.14.2.2).
    pub const FAREWELL: PropertySet = PropertySet::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::REASON_STRING,
        id::USER_PROPERTY,
        id::SERVER_REFERENCE,
    ]);
    /// What AUTH may carry (3.15.2.2).
    pub const AUTH: PropertySet = PropertySet::of(&[
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::REASON_STRING,
        id::USER_PROPERTY,
    ]);
    /// What a PUBLISH may repeat.
    const REPEATABLE: PropertySet = PropertySet::of(&[id::USER_PROPERTY]);
}

/// The value of a property, by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Byte, two and four byte integer, variable byte integer.
    Integer(u32),
    /// UTF-8 string.
    String(&'a str),
    /// Binary data.
    Binary(&'a [u8]),
    /// User property: name and value.
    Pair(&'a str, &'a str),
}

impl<'a> Value<'a> {
    /// The number, 0 for other types (the table fixes each identifier's type).
    #[must_use]
    pub const fn integer(self) -> u32 {
        if let Value::Integer(value) = self {
            value
        } else {
            0
        }
    }

    /// The string, empty for other types.
    #[must_use]
    pub const fn string(self) -> &'a str {
        if let Value::String(value) = self {
            value
        } else {
            ""
        }
    }

    /// The bytes, empty for other types.
    #[must_use]
    pub const fn binary(self) -> &'a [u8] {
        if let Value::Binary(value) = self {
            value
        } else {
            &[]
        }
    }

    /// The number as a flag.
    ///
    /// # Errors
    /// [`DecodeError::PropertyValue`] unless it is 0 or 1.
    pub const fn flag(self) -> Result<bool, DecodeError> {
        match self.integer() {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::PropertyValue),
        }
    }
}

/// One property as it stands in a packet.
#[derive(Clone, Copy, Debug)]
pub struct Property<'a> {
    /// Its identifier, one of [`id`].
    pub id: u8,
    /// Its value.
    pub value: Value<'a>,
    /// Identifier and value as encoded, to pass on unchanged.
    pub encoded: &'a [u8],
}

/// Walks the properties of one packet.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a> {
    block: Reader<'a>,
    allowed: PropertySet,
    seen: u64,
}

impl<'a> Properties<'a> {
    /// Takes a property length and the block it announces from `reader`.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`], [`DecodeError::VariableByteInteger`] `[MQTT-2.2.2-1]`.
    pub fn read(reader: &mut Reader<'a>, allowed: PropertySet) -> Result<Self, DecodeError> {
        let length = reader.variable_byte_integer()?;
        let block = Reader::new(reader.take(length as usize)?);
        Ok(Properties {
            block,
            allowed,
            seen: 0,
        })
    }

    /// The encoded block that has not been walked yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.block.rest()
    }

    /// The next property, `None` at the end.
    ///
    /// # Errors
    /// Malformed values, [`DecodeError::PropertyNotAllowed`], [`DecodeError::PropertyRepeated`].
    pub fn next_property(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.block.is_empty() {
            return Ok(None);
        }
        let start = self.block.rest();
        // The standard has identifiers as variable byte integers; all that exist take one byte.
        let id = self.block.byte()?;
        if !self.allowed.contains(id) {
            return Err(DecodeError::PropertyNotAllowed);
        }
        if self.seen & (1 << id) != 0 && !PropertySet::REPEATABLE.contains(id) {
            return Err(DecodeError::PropertyRepeated);
        }
        self.seen |= 1 << id;
        let value = read_value(&mut self.block, id)?;
        let encoded = start
            .get(..start.len() - self.block.rest().len())
            .unwrap_or_default();
        Ok(Some(Property { id, value, encoded }))
    }
}

fn read_value<'a>(reader: &mut Reader<'a>, id: u8) -> Result<Value<'a>, DecodeError> {
    Ok(match id {
        id::PAYLOAD_FORMAT_INDICATOR
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_SUBSCRIPTION_AVAILABLE
        | id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE
        | id::SHARED_SUBSCRIPTION_AVAILABLE => Value::Integer(u32::from(reader.byte()?)),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            Value::Integer(u32::from(reader.u16()?))
        }
        id::MESSAGE_EXPIRY_INTERVAL
        | id::SESSION_EXPIRY_INTERVAL
        | id::WILL_DELAY_INTERVAL
        | id::MAXIMUM_PACKET_SIZE => Value::Integer(reader.u32()?),
        id::SUBSCRIPTION_IDENTIFIER => Value::Integer(reader.variable_byte_integer()?),
        id::CORRELATION_DATA | id::AUTHENTICATION_DATA => Value::Binary(reader.binary()?),
        id::USER_PROPERTY => Value::Pair(reader.string()?, reader.string()?),
        _ => Value::String(reader.string()?),
    })
}

/// Walks properties whose values the broker does not use, to check their form.
///
/// # Errors
/// Like [`Properties::next_property`].
pub fn check(reader: &mut Reader<'_>, allowed: PropertySet) -> Result<(), DecodeError> {
    let mut properties = Properties::read(reader, allowed)?;
    while properties.next_property()?.is_some() {}
    Ok(())
}

/// The user property by which a RingMQ says in CONNECT that it bridges, and asks who answers for its name.
pub const BRIDGE_PROPERTY: &str = "ringmq-bridge";
/// The user property by which a RingMQ tells its name in CONNACK.
pub const NAME_PROPERTY: &str = "ringmq-name";

/// Appends a user property.
pub fn put_user_property(name: &str, value: &str, block: &mut Vec<u8>) {
    block.push(id::USER_PROPERTY);
    put_string(block, name);
    put_string(block, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(block: &[u8], allowed: PropertySet) -> Result<Vec<u8>, DecodeError> {
        let mut bytes = vec![block.len() as u8];
        bytes.extend_from_slice(block);
        let mut reader = Reader::new(&bytes);
        let mut properties = Properties::read(&mut reader, allowed)?;
        let mut ids = Vec::new();
        while let Some(property) = properties.next_property()? {
            ids.push(property.id);
        }
        Ok(ids)
    }

    #[test]
    fn user_properties_repeat_and_others_do_not() {
        let user = [0x26, 0, 1, b'a', 0, 1, b'b'];
        assert_eq!(
            walk(&[user, user].concat(), PropertySet::ACK),
            Ok(vec![0x26, 0x26])
        );
        assert_eq!(
            walk(&[0x01, 0, 0x01, 0], PropertySet::PUBLISH),
            Err(DecodeError::PropertyRepeated)
        );
    }

    #[test]
    fn unknown_and_misplaced_properties_are_malformed() {
        for id in [0x00, 0x02, 0x7F, 0x80, 0xFF] {
            assert_eq!(
                walk(&[id, 0, 0, 0, 1], PropertySet::SUBSCRIBE),
                Err(DecodeError::PropertyNotAllowed)
            );
        }
    }
}
