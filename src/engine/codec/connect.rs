//! CONNECT and CONNACK (3.1, 3.2).

use super::primitive::{Reader, put_binary, put_string, put_u16, put_u32};
use super::property::{
    BRIDGE_PROPERTY, NAME_PROPERTY, Properties, PropertySet, Value, id, put_user_property,
};
use super::publish::MessageProperties;
use super::{DecodeError, Reason, Version};
use crate::engine::message::Qos;

/// What a client asks for when it connects.
#[derive(Debug)]
pub struct Connect<'a> {
    /// Protocol it speaks.
    pub version: Version,
    /// Whether it is another broker that bridges by 3.1 or 3.1.1 and says so (the level's highest bit): it
    /// gets nothing back that it sent, and RETAIN as it was published.
    pub is_bridge: bool,
    /// Client identifier; empty asks the broker to assign one.
    pub client_id: &'a str,
    /// Clean start (5.0) or clean session (3.x).
    pub clean_start: bool,
    /// Keep alive in seconds, 0 for none.
    pub keep_alive_seconds: u16,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password; 5.0 allows it without a user name.
    pub password: Option<&'a [u8]>,
    /// Will message.
    pub will: Option<Will<'a>>,
    /// 5.0 properties, or their defaults.
    pub properties: ConnectProperties<'a>,
}

/// The will of a CONNECT (3.1.2.5, 3.1.3.2).
#[derive(Debug)]
pub struct Will<'a> {
    /// Topic; its form is checked where the connection is.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// QoS to publish it with.
    pub qos: Qos,
    /// Whether it is published as a retained message.
    pub retain: bool,
    /// Its properties.
    pub properties: MessageProperties<'a>,
}

/// Properties of CONNECT (3.1.2.11), with the standard's defaults.
#[derive(Debug)]
pub struct ConnectProperties<'a> {
    /// Session expiry interval in seconds; absent is 0.
    pub session_expiry_seconds: u32,
    /// Most QoS 1 and 2 messages the client takes unacknowledged.
    pub receive_maximum: u16,
    /// Largest packet it takes.
    pub packet_bytes_max: Option<u32>,
    /// Most topic aliases it keeps.
    pub topic_alias_max: u16,
    /// Whether it wants response information in CONNACK.
    pub request_response_information: bool,
    /// Whether it wants reason strings and user properties.
    pub request_problem_information: bool,
    /// Method of an extended authentication.
    pub authentication_method: Option<&'a str>,
    /// Data for that method.
    pub authentication_data: Option<&'a [u8]>,
    /// Whether it is a bridge of another RingMQ, which wants to know what this one is called.
    pub is_ringmq_bridge: bool,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        ConnectProperties {
            session_expiry_seconds: 0,
            receive_maximum: u16::MAX,
            packet_bytes_max: None,
            topic_alias_max: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            is_ringmq_bridge: false,
        }
    }
}

/// A CONNECT that cannot be served, and in which protocol to say so, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// Version to answer in; `None` before it is known.
    pub version: Option<Version>,
    /// Largest packet the client takes, as far as it is known.
    pub packet_bytes_max: u32,
    /// The broken rule.
    pub error: DecodeError,
    /// The protocol level that it asks for, once that is known.
    pub level: Option<u8>,
}

impl ConnectError {
    /// What is wrong, in the words of the version in which it is answered.
    #[must_use]
    pub fn told(&self) -> String {
        match self
            .level
            .filter(|_| self.error == DecodeError::ProtocolLevel)
        {
            Some(level) => format!(
                "The protocol level {level} is not served, but 4 (3.1.1) and 5 (5.0) with the name MQTT, and \
                 3 (3.1) with MQIsdp [{}]",
                self.error.clause()
            ),
            None => self.error.told(self.version),
        }
    }
}

/// Set in the protocol level of a bridge by 3.1 and 3.1.1.
pub(super) const BRIDGE: u8 = 0x80;

/// Flags of CONNECT (3.1.2.3).
pub(super) mod flag {
    pub const RESERVED: u8 = 0x01;
    pub const CLEAN_START: u8 = 0x02;
    pub const WILL: u8 = 0x04;
    pub const WILL_QOS_SHIFT: u8 = 3;
    pub const WILL_QOS: u8 = 0x18;
    pub const WILL_RETAIN: u8 = 0x20;
    pub const PASSWORD: u8 = 0x40;
    pub const USER_NAME: u8 = 0x80;
}

impl<'a> Connect<'a> {
    /// Decodes the body of a CONNECT.
    ///
    /// # Errors
    /// The broken rule, with the version in which it may be told.
    pub fn decode(body: &'a [u8]) -> Result<Self, ConnectError> {
        let mut reader = Reader::new(body);
        let (version, is_bridge) = decode_version(&mut reader)?;
        let mut properties = ConnectProperties::default();
        let decoded = Self::decode_rest(&mut reader, version, &mut properties);
        let packet_bytes_max = properties.packet_bytes_max.unwrap_or(u32::MAX);
        match decoded {
            Ok(connect) => Ok(Connect {
                is_bridge,
                properties,
                ..connect
            }),
            Err(error) => Err(ConnectError {
                version: Some(version),
                packet_bytes_max,
                error,
                level: None,
            }),
        }
    }

    fn decode_rest(
        reader: &mut Reader<'a>,
        version: Version,
        properties: &mut ConnectProperties<'a>,
    ) -> Result<Self, DecodeError> {
        let flags = reader.byte()?;
        check_flags(flags, version)?;
        let keep_alive_seconds = reader.u16()?;
        if version.is_v5() {
            decode_properties(reader, properties)?;
        }
        let client_id = reader.string()?;
        let will = if flags & flag::WILL == 0 {
            None
        } else {
            Some(decode_will(reader, flags, version)?)
        };
        // In 3.1 the packet's length counts for more than these flags.
        let announced = |flag: u8, reader: &Reader<'_>| {
            flags & flag != 0 && !(version == Version::V3_1 && reader.is_empty())
        };
        let user_name = if announced(flag::USER_NAME, reader) {
            Some(reader.string()?)
        } else {
            None
        };
        let password = if announced(flag::PASSWORD, reader) {
            Some(reader.binary()?)
        } else {
            None
        };
        reader.finish()?;
        let clean_start = flags & flag::CLEAN_START != 0;
        // 3.1 has no empty identifier at all; 3.1.1 only with a clean session [MQTT-3.1.3-8].
        let may_be_empty = match version {
            Version::V3_1 => false,
            Version::V3_1_1 => clean_start,
            Version::V5 => true,
        };
        if client_id.is_empty() && !may_be_empty {
            return Err(DecodeError::ClientIdEmpty);
        }
        Ok(Connect {
            version,
            is_bridge: false,
            client_id,
            clean_start,
            keep_alive_seconds,
            user_name,
            password,
            will,
            properties: ConnectProperties::default(),
        })
    }
}

/// The version, and whether its level says that a bridge speaks it.
fn decode_version(reader: &mut Reader<'_>) -> Result<(Version, bool), ConnectError> {
    let refused = |version, error| ConnectError {
        version,
        packet_bytes_max: u32::MAX,
        error,
        level: None,
    };
    let silent = |error| refused(None, error);
    let name = reader.binary().map_err(silent)?;
    let level = reader.byte().map_err(silent)?;
    match (name, level) {
        (b"MQIsdp", 3 | 0x83) => Ok((Version::V3_1, level & BRIDGE != 0)),
        (b"MQTT", 4 | 0x84) => Ok((Version::V3_1_1, level & BRIDGE != 0)),
        (b"MQTT", 5) => Ok((Version::V5, false)),
        (b"MQTT" | b"MQIsdp", level) => {
            // The level after 5.0 is taken to read 5.0's refusal; all others get 3.1.1's, which is
            // mandatory there [MQTT-3.1.2-2].
            let version = if level == 6 {
                Version::V5
            } else {
                Version::V3_1_1
            };
            Err(ConnectError {
                level: Some(level),
                ..refused(Some(version), DecodeError::ProtocolLevel)
            })
        }
        _ => Err(silent(DecodeError::ProtocolName)),
    }
}

/// 3.1 does not look at the reserved flag, nor at the will's without a will.
fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    let is_strict = version != Version::V3_1;
    if is_strict && flags & flag::RESERVED != 0 {
        return Err(DecodeError::ConnectFlagReserved);
    }
    let will_bits = flags & (flag::WILL_QOS | flag::WILL_RETAIN);
    let has_will = flags & flag::WILL != 0;
    let is_qos_3 = flags & flag::WILL_QOS == flag::WILL_QOS;
    if is_strict && !has_will && will_bits != 0 || (is_strict || has_will) && is_qos_3 {
        return Err(DecodeError::WillFlags);
    }
    let password_alone = flags & (flag::PASSWORD | flag::USER_NAME) == flag::PASSWORD;
    if password_alone && !version.is_v5() {
        return Err(DecodeError::PasswordWithoutUserName);
    }
    Ok(())
}

fn decode_will<'a>(
    reader: &mut Reader<'a>,
    flags: u8,
    version: Version,
) -> Result<Will<'a>, DecodeError> {
    let properties = if version.is_v5() {
        MessageProperties::read(reader, PropertySet::WILL)?
    } else {
        MessageProperties::default()
    };
    let topic = reader.string()?;
    let payload = reader.binary()?;
    let qos = Qos::from_bits((flags & flag::WILL_QOS) >> flag::WILL_QOS_SHIFT)
        .ok_or(DecodeError::WillFlags)?;
    Ok(Will {
        topic,
        payload,
        qos,
        retain: flags & flag::WILL_RETAIN != 0,
        properties,
    })
}

fn decode_properties<'a>(
    reader: &mut Reader<'a>,
    known: &mut ConnectProperties<'a>,
) -> Result<(), DecodeError> {
    let mut properties = Properties::read(reader, PropertySet::CONNECT)?;
    while let Some(property) = properties.next_property()? {
        let value = property.value;
        match property.id {
            id::SESSION_EXPIRY_INTERVAL => known.session_expiry_seconds = value.integer(),
            id::RECEIVE_MAXIMUM => {
                known.receive_maximum = non_zero(value.integer())? as u16;
            }
            id::MAXIMUM_PACKET_SIZE => known.packet_bytes_max = Some(non_zero(value.integer())?),
            id::TOPIC_ALIAS_MAXIMUM => known.topic_alias_max = value.integer() as u16,
            id::REQUEST_RESPONSE_INFORMATION => {
                known.request_response_information = value.flag()?;
            }
            id::REQUEST_PROBLEM_INFORMATION => {
                known.request_problem_information = value.flag()?;
            }
            id::AUTHENTICATION_METHOD => known.authentication_method = Some(value.string()),
            id::AUTHENTICATION_DATA => known.authentication_data = Some(value.binary()),
            id::USER_PROPERTY => {
                known.is_ringmq_bridge |= matches!(value, Value::Pair(BRIDGE_PROPERTY, _));
            }
            _ => {}
        }
    }
    if known.authentication_data.is_some() && known.authentication_method.is_none() {
        return Err(DecodeError::AuthenticationDataAlone);
    }
    Ok(())
}

const fn non_zero(value: u32) -> Result<u32, DecodeError> {
    if value == 0 {
        Err(DecodeError::PropertyValue)
    } else {
        Ok(value)
    }
}

/// The broker's answer to a CONNECT that it accepts.
#[derive(Debug, Default)]
pub struct Connack<'a> {
    /// Whether stored state was found `[MQTT-3.2.2-3]`.
    pub session_present: bool,
    /// Session expiry interval, if it differs from what was asked for.
    pub session_expiry_seconds: Option<u32>,
    /// Most QoS 1 and 2 messages the broker takes unacknowledged; 65,535 is not written.
    pub receive_maximum: u16,
    /// Highest QoS it takes, if below 2 `[MQTT-3.2.2-9]`.
    pub qos_max: Option<Qos>,
    /// Largest packet it takes.
    pub packet_bytes_max: Option<u32>,
    /// Identifier it assigned `[MQTT-3.2.2-16]`.
    pub assigned_client_id: Option<&'a str>,
    /// Most topic aliases it keeps; 0 is not written.
    pub topic_alias_max: u16,
    /// Keep alive the client has to use instead of its own.
    pub server_keep_alive_seconds: Option<u16>,
    /// Prefix for response topics, if asked for.
    pub response_information: Option<&'a str>,
    /// Features that are switched off: retain, wildcard, subscription identifier, shared.
    pub unavailable: [bool; 4],
    /// Method and last data of an extended authentication (3.2.2.3.17, 3.2.2.3.18).
    pub authentication: Option<(&'a str, &'a [u8])>,
    /// What the broker is called, for a bridge that asks.
    pub broker_name: Option<&'a str>,
}

/// Size of a CONNACK of 5.0 without properties.
const REFUSAL_BYTES: u32 = 5;

/// A CONNACK without session that says why (3.2.2.2).
#[derive(Debug)]
pub struct Refusal<'a> {
    /// Why.
    pub reason: Reason,
    /// Explanation for people; left out if it does not fit `[MQTT-3.2.2-19]`.
    pub reason_string: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
}

impl Connack<'_> {
    /// Appends the packet in the form of `version`.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let flags = u8::from(self.session_present);
        if version.is_v5() {
            super::control::put_packet(out, 0x20, &[flags, 0], |block| self.put_properties(block));
        } else {
            // 3.1 has no session present flag: the byte is reserved there.
            let flags = if version == Version::V3_1 { 0 } else { flags };
            out.extend_from_slice(&[0x20, 2, flags, 0]);
        }
    }

    /// The packet, without response information if it fits only so; `None` if it does not fit at all
    /// `[MQTT-3.1.2-24]`. `packet_bytes_max` is what the client takes.
    #[must_use]
    pub fn encode_within(mut self, version: Version, packet_bytes_max: u32) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            self.encode(version, &mut out);
            if out.len() <= packet_bytes_max as usize {
                return Some(out);
            }
            self.response_information.take()?;
            out.clear();
        }
    }

    fn put_properties(&self, block: &mut Vec<u8>) {
        if let Some(name) = self.broker_name {
            put_user_property(NAME_PROPERTY, name, block);
        }
        let mut flag = |id: u8, value: u8| block.extend_from_slice(&[id, value]);
        if let Some(qos) = self.qos_max {
            flag(id::MAXIMUM_QOS, qos.bits());
        }
        let features = [
            id::RETAIN_AVAILABLE,
            id::WILDCARD_SUBSCRIPTION_AVAILABLE,
            id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
            id::SHARED_SUBSCRIPTION_AVAILABLE,
        ];
        for (id, unavailable) in features.into_iter().zip(self.unavailable) {
            if unavailable {
                flag(id, 0);
            }
        }
        if self.receive_maximum != u16::MAX {
            block.push(id::RECEIVE_MAXIMUM);
            put_u16(block, self.receive_maximum);
        }
        if self.topic_alias_max > 0 {
            block.push(id::TOPIC_ALIAS_MAXIMUM);
            put_u16(block, self.topic_alias_max);
        }
        if let Some(seconds) = self.server_keep_alive_seconds {
            block.push(id::SERVER_KEEP_ALIVE);
            put_u16(block, seconds);
        }
        if let Some(seconds) = self.session_expiry_seconds {
            block.push(id::SESSION_EXPIRY_INTERVAL);
            put_u32(block, seconds);
        }
        if let Some(bytes) = self.packet_bytes_max {
            block.push(id::MAXIMUM_PACKET_SIZE);
            put_u32(block, bytes);
        }
        let strings = [
            (id::ASSIGNED_CLIENT_IDENTIFIER, self.assigned_client_id),
            (id::RESPONSE_INFORMATION, self.response_information),
        ];
        for (id, text) in strings {
            if let Some(text) = text {
                block.push(id);
                put_string(block, text);
            }
        }
        if let Some((method, bytes)) = self.authentication {
            block.push(id::AUTHENTICATION_METHOD);
            put_string(block, method);
            block.push(id::AUTHENTICATION_DATA);
            put_binary(block, bytes);
        }
    }
}

impl Refusal<'_> {
    /// Appends the packet in the form of `version`; nothing where 3.x has no code for the reason and
    /// just closes, or where it would be more than `packet_bytes_max`, what the client takes.
    pub fn encode(&self, version: Version, packet_bytes_max: u32, out: &mut Vec<u8>) {
        debug_assert!(self.reason.is_error());
        if version.is_v5() {
            if packet_bytes_max < REFUSAL_BYTES {
                return;
            }
            super::control::put_explained(
                out,
                0x20,
                &[0, self.reason.byte()],
                packet_bytes_max,
                self.reason_string,
                self.server_reference,
            );
        } else if let Some(code) = self.reason.connack_v3(version) {
            out.extend_from_slice(&[0x20, 2, 0, code]);
        }
    }
}

/// Appends a CONNECT, for tests and the simulator.
pub fn encode_connect(connect: &Connect<'_>, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let (name, level) = connect.version.name_and_level();
    put_string(&mut body, name);
    let mut flags = if connect.clean_start {
        flag::CLEAN_START
    } else {
        0
    };
    if let Some(will) = &connect.will {
        flags |= flag::WILL | will.qos.bits() << flag::WILL_QOS_SHIFT;
        flags |= if will.retain { flag::WILL_RETAIN } else { 0 };
    }
    flags |= if connect.user_name.is_some() {
        flag::USER_NAME
    } else {
        0
    };
    flags |= if connect.password.is_some() {
        flag::PASSWORD
    } else {
        0
    };
    let level = level | if connect.is_bridge { BRIDGE } else { 0 };
    body.extend_from_slice(&[level, flags]);
    put_u16(&mut body, connect.keep_alive_seconds);
    if connect.version.is_v5() {
        let mut block = vec![id::SESSION_EXPIRY_INTERVAL];
        put_u32(&mut block, connect.properties.session_expiry_seconds);
        block.push(id::RECEIVE_MAXIMUM);
        put_u16(&mut block, connect.properties.receive_maximum);
        body.push(block.len() as u8);
        body.extend_from_slice(&block);
    }
    put_string(&mut body, connect.client_id);
    if let Some(will) = &connect.will {
        if connect.version.is_v5() {
            let mut block = vec![id::WILL_DELAY_INTERVAL];
            put_u32(&mut block, will.properties.will_delay_seconds);
            body.push(block.len() as u8);
            body.extend_from_slice(&block);
        }
        put_string(&mut body, will.topic);
        put_binary(&mut body, will.payload);
    }
    if let Some(user_name) = connect.user_name {
        put_string(&mut body, user_name);
    }
    if let Some(password) = connect.password {
        put_binary(&mut body, password);
    }
    out.push(0x10);
    super::primitive::put_variable_byte_integer(out, body.len() as u32);
    out.extend_from_slice(&body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(connect: &Connect<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_connect(connect, &mut out);
        out.split_off(2)
    }

    fn plain(version: Version) -> Connect<'static> {
        Connect {
            version,
            is_bridge: false,
            client_id: "c",
            clean_start: true,
            keep_alive_seconds: 30,
            user_name: Some("u"),
            password: Some(b"p"),
            will: Some(Will {
                topic: "w",
                payload: b"gone",
                qos: Qos::AtLeastOnce,
                retain: true,
                properties: MessageProperties::default(),
            }),
            properties: ConnectProperties::default(),
        }
    }

    #[test]
    fn every_version_is_read_back() {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            let body = encoded(&plain(version));
            let connect = Connect::decode(&body).unwrap();
            assert_eq!(connect.version, version);
            assert_eq!((connect.client_id, connect.keep_alive_seconds), ("c", 30));
            assert_eq!(
                (connect.user_name, connect.password),
                (Some("u"), Some(&b"p"[..]))
            );
            let will = connect.will.unwrap();
            assert_eq!(
                (will.topic, will.payload, will.retain),
                ("w", &b"gone"[..], true)
            );
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            let body = encoded(&plain(version));
            // 3.1 lets user name and password be left out, whatever the flags say.
            let whole: &[usize] = match version {
                Version::V3_1 => &[body.len() - 6, body.len() - 3],
                _ => &[],
            };
            for cut in 0..body.len() {
                let decoded = Connect::decode(&body[..cut]);
                assert_eq!(decoded.is_ok(), whole.contains(&cut), "{version:?} {cut}");
            }
            let long = [&body[..], b"x"].concat();
            assert_eq!(
                Connect::decode(&long).unwrap_err().error,
                DecodeError::TrailingBytes
            );
        }
    }

    #[test]
    fn bad_flags_are_refused() {
        let decode = |flags: u8, level: u8| {
            let body = [
                0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 0, 0, 0, 1, b'c',
            ];
            // 3.1.1 has no property length byte.
            let body = if level == 5 {
                body.to_vec()
            } else {
                [&body[..10], &body[11..]].concat()
            };
            Connect::decode(&body)
                .map_err(|refused| refused.error)
                .err()
        };
        assert_eq!(decode(0x03, 4), Some(DecodeError::ConnectFlagReserved));
        for flags in [0x0A, 0x12, 0x22, 0x1E] {
            assert_eq!(decode(flags, 4), Some(DecodeError::WillFlags), "{flags:#x}");
        }
        assert_eq!(decode(0x42, 4), Some(DecodeError::PasswordWithoutUserName));
        assert_eq!(decode(0x42, 5), Some(DecodeError::TooShort));
        assert_eq!(decode(0x02, 5), None);
    }

    #[test]
    fn a_connack_is_as_small_as_it_can_be_said() {
        let connack = || Connack {
            receive_maximum: 10,
            response_information: Some("answers/c"),
            ..Connack::default()
        };
        let whole = connack().encode_within(Version::V5, 100).unwrap();
        assert_eq!(whole.len(), 5 + 3 + 12);
        assert_eq!(connack().encode_within(Version::V5, 20).unwrap(), whole);
        for max in [8, 19] {
            let short = connack().encode_within(Version::V5, max).unwrap();
            assert_eq!(short, [0x20, 6, 0, 0, 3, 0x21, 0, 10]);
        }
        assert_eq!(connack().encode_within(Version::V5, 7), None);
    }

    #[test]
    fn version_3_1_does_not_look_at_what_it_does_not_use() {
        let decode = |flags: u8, more: &[u8]| {
            let fixed = [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, flags, 0, 0];
            let body = [&fixed[..], &[0, 1, b'c'], more].concat();
            Connect::decode(&body)
                .map(|connect| (connect.user_name.is_some(), connect.password.is_some()))
                .map_err(|refused| refused.error)
        };
        for flags in [0x03, 0x0A, 0x12, 0x1A, 0x22] {
            assert_eq!(decode(flags, &[]), Ok((false, false)), "{flags:#x}");
        }
        for flags in [0x80, 0xC0] {
            assert_eq!(decode(flags, &[]), Ok((false, false)), "{flags:#x}");
        }
        assert_eq!(decode(0xC0, &[0, 1, b'u']), Ok((true, false)));
        let both = [0, 1, b'u', 0, 1, b'p'];
        assert_eq!(decode(0xC0, &both), Ok((true, true)));
        assert_eq!(decode(0xC0, &both[..5]), Err(DecodeError::TooShort));
        assert_eq!(
            decode(0x40, &[0, 1, b'p']),
            Err(DecodeError::PasswordWithoutUserName)
        );
        let will = [0, 1, b't', 0, 1, b'p'];
        assert_eq!(decode(0x1C, &will), Err(DecodeError::WillFlags));
    }

    #[test]
    fn a_bridge_says_so_by_its_level() {
        for version in [Version::V3_1, Version::V3_1_1] {
            for is_bridge in [false, true] {
                let connect = Connect {
                    is_bridge,
                    ..plain(version)
                };
                let body = encoded(&connect);
                let decoded = Connect::decode(&body).unwrap();
                assert_eq!((decoded.version, decoded.is_bridge), (version, is_bridge));
            }
        }
        let body = encoded(&Connect {
            is_bridge: true,
            ..plain(Version::V5)
        });
        let refused = Connect::decode(&body).unwrap_err();
        assert_eq!(refused.error, DecodeError::ProtocolLevel);
    }

    #[test]
    fn what_the_client_takes_is_known_of_a_broken_connect() {
        let fixed = [0, 4, b'M', b'Q', b'T', b'T', 5, 0x42, 0, 0];
        let body = [&fixed[..], &[5, 0x27, 0, 0, 0, 9], &[0, 1, b'c']].concat();
        let refused = Connect::decode(&body).unwrap_err();
        assert_eq!(
            (refused.packet_bytes_max, refused.error),
            (9, DecodeError::TooShort)
        );
    }

    #[test]
    fn refusals_are_told_in_the_clients_version() {
        let refusal = Refusal {
            reason: Reason::NotAuthorized,
            reason_string: None,
            server_reference: None,
        };
        let mut out = Vec::new();
        refusal.encode(Version::V3_1_1, u32::MAX, &mut out);
        assert_eq!(out, [0x20, 2, 0, 5]);
        for (version, code) in [(Version::V3_1, 4), (Version::V3_1_1, 5)] {
            out.clear();
            let reason = Reason::BadUserNameOrPassword;
            Refusal { reason, ..refusal }.encode(version, u32::MAX, &mut out);
            assert_eq!(out, [0x20, 2, 0, code]);
        }
        out.clear();
        refusal.encode(Version::V5, u32::MAX, &mut out);
        assert_eq!(out, [0x20, 3, 0, 0x87, 0]);
        out.clear();
        refusal.encode(Version::V5, 5, &mut out);
        assert_eq!(out.len(), 5);
        out.clear();
        refusal.encode(Version::V5, 4, &mut out);
        assert!(out.is_empty());
        Refusal {
            reason: Reason::MalformedPacket,
            ..refusal
        }
        .encode(Version::V3_1_1, u32::MAX, &mut out);
        assert!(out.is_empty());
    }
}
