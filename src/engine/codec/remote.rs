//! What a client writes and a broker answers, for lines to other brokers: CONNECT, SUBSCRIBE and UNSUBSCRIBE
//! as bytes; CONNACK, SUBACK and a broker's DISCONNECT read as strictly as what clients send.

use super::connect::{BRIDGE, flag};
use super::primitive::{
    Reader, put_binary, put_string, put_u16, put_u32, put_variable_byte_integer,
};
use super::property::{NAME_PROPERTY, Properties, PropertySet, Value, id, put_user_property};
use super::{DecodeError, PacketType, Reason, Version};
use crate::engine::message::Qos;

/// A PINGREQ.
pub const PINGREQ: [u8; 2] = [0xC0, 0];
/// A DISCONNECT in order, of any version.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];
/// One of 5.0 with a Session Expiry Interval of 0: the broker is to keep no session.
pub const DISCONNECT_FOR_GOOD: [u8; 9] = [0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0];

/// A CONNECT to another broker.
#[derive(Clone, Copy, Debug)]
pub struct ConnectTo<'a> {
    /// The protocol it is in.
    pub version: Version,
    /// Whether the level says that a bridge speaks; 3.x only.
    pub is_bridge: bool,
    /// Client identifier.
    pub client_id: &'a str,
    /// Clean start, or clean session.
    pub clean_start: bool,
    /// Keep alive, 0 for none.
    pub keep_alive_seconds: u16,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Topic and payload of a will of QoS 1.
    pub will: Option<(&'a str, &'a [u8])>,
    /// Whether the will is retained.
    pub will_retain: bool,
    /// Seconds that the session outlives the connection; 5.0 only, as what follows.
    pub session_expiry_seconds: u32,
    /// Most QoS 1 and 2 messages that are taken unacknowledged.
    pub receive_maximum: u16,
    /// Largest packet that is taken; 0 for any.
    pub packet_bytes_max: u32,
    /// A user property.
    pub user_property: Option<(&'a str, &'a str)>,
}

impl ConnectTo<'_> {
    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let (name, level) = self.version.name_and_level();
        put_string(&mut body, name);
        let says_bridge = self.is_bridge && !self.version.is_v5();
        let bit = if says_bridge { BRIDGE } else { 0 };
        body.extend_from_slice(&[level | bit, self.flags()]);
        put_u16(&mut body, self.keep_alive_seconds);
        if self.version.is_v5() {
            let mut block = Vec::new();
            self.put_properties(&mut block);
            put_variable_byte_integer(&mut body, block.len() as u32);
            body.extend_from_slice(&block);
        }
        put_string(&mut body, self.client_id);
        if let Some((topic, payload)) = self.will {
            if self.version.is_v5() {
                body.push(0);
            }
            put_string(&mut body, topic);
            put_binary(&mut body, payload);
        }
        if let Some(name) = self.user_name {
            put_string(&mut body, name);
        }
        if let Some(password) = self.password {
            put_binary(&mut body, password);
        }
        put_body(PacketType::Connect, &body, out);
    }

    fn flags(&self) -> u8 {
        let retain = if self.will_retain {
            flag::WILL_RETAIN
        } else {
            0
        };
        let will = flag::WILL | Qos::AtLeastOnce.bits() << flag::WILL_QOS_SHIFT | retain;
        [
            (self.clean_start, flag::CLEAN_START),
            (self.will.is_some(), will),
            (self.password.is_some(), flag::PASSWORD),
            (self.user_name.is_some(), flag::USER_NAME),
        ]
        .into_iter()
        .filter_map(|(is_set, flag)| is_set.then_some(flag))
        .fold(0, |flags, flag| flags | flag)
    }

    fn put_properties(&self, block: &mut Vec<u8>) {
        if self.session_expiry_seconds > 0 {
            block.push(id::SESSION_EXPIRY_INTERVAL);
            put_u32(block, self.session_expiry_seconds);
        }
        if self.receive_maximum != u16::MAX {
            block.push(id::RECEIVE_MAXIMUM);
            put_u16(block, self.receive_maximum);
        }
        if self.packet_bytes_max > 0 {
            block.push(id::MAXIMUM_PACKET_SIZE);
            put_u32(block, self.packet_bytes_max);
        }
        if let Some((name, value)) = self.user_property {
            put_user_property(name, value, block);
        }
    }
}

fn put_body(kind: PacketType, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind.first_byte());
    put_variable_byte_integer(out, body.len() as u32);
    out.extend_from_slice(body);
}

/// A filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The filter.
    pub filter: &'a str,
    /// Highest QoS.
    pub qos: Qos,
    /// When retained messages are sent: 0 now, 1 if it is new, 2 not at all; 5.0 only.
    pub retain_handling: u8,
}

/// Appends a SUBSCRIBE; in 5.0 with No Local, and RETAIN as it was published.
pub fn put_subscribe(version: Version, packet_id: u16, asked: &[Asked<'_>], out: &mut Vec<u8>) {
    let mut body = Vec::new();
    put_u16(&mut body, packet_id);
    if version.is_v5() {
        body.push(0);
    }
    for asked in asked {
        put_string(&mut body, asked.filter);
        let options = match version.is_v5() {
            true => asked.retain_handling << 4 | 0b1100,
            false => 0,
        };
        body.push(options | asked.qos.bits());
    }
    put_body(PacketType::Subscribe, &body, out);
}

/// Appends an UNSUBSCRIBE.
pub fn put_unsubscribe(version: Version, packet_id: u16, filters: &[&str], out: &mut Vec<u8>) {
    let mut body = Vec::new();
    put_u16(&mut body, packet_id);
    if version.is_v5() {
        body.push(0);
    }
    for filter in filters {
        put_string(&mut body, filter);
    }
    put_body(PacketType::Unsubscribe, &body, out);
}

/// A CONNACK as a broker sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// 0 for success; a reason code, or a return code of 3.x.
    pub code: u8,
    /// Whether the broker had a session.
    pub session_present: bool,
    /// Most QoS 1 and 2 messages that it takes unacknowledged, as it says it.
    pub receive_maximum: u16,
    /// Highest QoS that it takes.
    pub qos_max: Qos,
    /// Whether it takes what is to be retained.
    pub retain_available: bool,
    /// Largest packet that it takes, as it says it.
    pub packet_bytes_max: u32,
    /// Highest topic alias that it takes, 0 for none.
    pub topic_alias_max: u16,
    /// The keep alive that it wants.
    pub keep_alive_seconds: Option<u16>,
    /// Why, in its words.
    pub reason_string: Option<&'a str>,
    /// Another server to go to.
    pub server_reference: Option<&'a str>,
    /// What a RingMQ calls itself.
    pub broker_name: Option<&'a str>,
}

impl<'a> Answer<'a> {
    /// Decodes the body of a CONNACK.
    ///
    /// # Errors
    /// Any broken rule of its form.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.byte()?;
        let mut answer = Answer {
            code: reader.byte()?,
            session_present: flags & 1 != 0 && version != Version::V3_1,
            receive_maximum: u16::MAX,
            qos_max: Qos::ExactlyOnce,
            retain_available: true,
            packet_bytes_max: u32::MAX,
            topic_alias_max: 0,
            keep_alive_seconds: None,
            reason_string: None,
            server_reference: None,
            broker_name: None,
        };
        // Who does not know 5.0 refuses it as 3.1.1 does.
        if version.is_v5() && !reader.is_empty() {
            let mut properties = Properties::read(&mut reader, PropertySet::CONNACK)?;
            while let Some(property) = properties.next_property()? {
                let value = property.value;
                match property.id {
                    id::RECEIVE_MAXIMUM => answer.receive_maximum = value.integer() as u16,
                    id::TOPIC_ALIAS_MAXIMUM => answer.topic_alias_max = value.integer() as u16,
                    id::MAXIMUM_QOS => {
                        // Of a 2 it is said by leaving it out.
                        let qos = Qos::from_bits(value.integer() as u8);
                        let qos = qos.filter(|qos| *qos < Qos::ExactlyOnce);
                        answer.qos_max = qos.ok_or(DecodeError::PropertyValue)?;
                    }
                    id::RETAIN_AVAILABLE => answer.retain_available = value.flag()?,
                    id::MAXIMUM_PACKET_SIZE => answer.packet_bytes_max = value.integer(),
                    id::SERVER_KEEP_ALIVE => {
                        answer.keep_alive_seconds = Some(value.integer() as u16);
                    }
                    id::REASON_STRING => answer.reason_string = Some(value.string()),
                    id::SERVER_REFERENCE => answer.server_reference = Some(value.string()),
                    id::USER_PROPERTY => {
                        if let Value::Pair(NAME_PROPERTY, name) = value {
                            answer.broker_name = Some(name);
                        }
                    }
                    _ => {}
                }
            }
        }
        reader.finish()?;
        Ok(answer)
    }

    /// Why it refuses, in the standard's words.
    #[must_use]
    pub fn refusal(&self, version: Version) -> String {
        let known = match self.code {
            1 => "unacceptable protocol version",
            2 => "identifier rejected",
            3 => "server unavailable",
            4 => "bad user name or password",
            5 => "not authorized",
            _ => "a code that 3.1.1 does not have",
        };
        if self.code > 5 && version.is_v5() {
            return told(self.code, self.reason_string);
        }
        format!("{known} ({})", self.code)
    }

    /// Whether it does not speak the protocol.
    #[must_use]
    pub fn is_other_version(&self) -> bool {
        matches!(self.code, 1 | 0x84)
    }
}

/// A reason code with its name, and what the broker says of it.
fn told(code: u8, reason_string: Option<&str>) -> String {
    let named = match Reason::from_byte(code) {
        Some(reason) => reason.to_string(),
        None => format!("0x{code:02X}"),
    };
    match reason_string {
        Some(text) => format!("{named}: {text:?}"),
        None => named,
    }
}

/// A SUBACK: a code for each filter, and the packet identifier.
///
/// # Errors
/// Any broken rule of its form.
pub fn decode_suback(body: &[u8], version: Version) -> Result<(u16, &[u8]), DecodeError> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    if version.is_v5() {
        super::property::check(&mut reader, PropertySet::ACK)?;
    }
    Ok((packet_id, reader.rest()))
}

/// A broker's DISCONNECT: why in words, and another server to go to.
///
/// # Errors
/// Any broken rule of its form.
pub fn decode_farewell(body: &[u8]) -> Result<(String, Option<&str>), DecodeError> {
    let mut reader = Reader::new(body);
    if reader.is_empty() {
        return Ok((told(0, None), None));
    }
    let code = reader.byte()?;
    let (mut reason_string, mut server_reference) = (None, None);
    if !reader.is_empty() {
        let mut properties = Properties::read(&mut reader, PropertySet::FAREWELL)?;
        while let Some(property) = properties.next_property()? {
            match property.id {
                id::REASON_STRING => reason_string = Some(property.value.string()),
                id::SERVER_REFERENCE => server_reference = Some(property.value.string()),
                _ => {}
            }
        }
    }
    Ok((told(code, reason_string), server_reference))
}

/// Why a broker does not grant a filter, `None` if it does.
#[must_use]
pub fn filter_refusal(code: u8) -> Option<String> {
    (code >= 0x80).then(|| told(code, None))
}

#[cfg(test)]
mod tests {
    use super::super::connect::{Connack, Connect};
    use super::super::frame::{Split, split};
    use super::super::property::BRIDGE_PROPERTY;
    use super::super::subscribe::Subscribe;
    use super::*;

    fn body(bytes: &[u8]) -> &[u8] {
        match split(bytes, usize::MAX).unwrap() {
            Split::Whole(frame, used) if used == bytes.len() => frame.body,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_connect_is_read_as_it_was_written() {
        for (version, is_bridge) in [
            (Version::V3_1_1, false),
            (Version::V3_1_1, true),
            (Version::V5, false),
        ] {
            let connect = ConnectTo {
                version,
                is_bridge,
                client_id: "c",
                clean_start: false,
                keep_alive_seconds: 60,
                user_name: Some("u"),
                password: Some(b"p"),
                will: Some(("w", b"0")),
                will_retain: true,
                session_expiry_seconds: 7,
                receive_maximum: 9,
                packet_bytes_max: 1000,
                user_property: Some((BRIDGE_PROPERTY, "b")),
            };
            let mut bytes = Vec::new();
            connect.encode(&mut bytes);
            let read = Connect::decode(body(&bytes)).unwrap();
            assert_eq!((read.version, read.is_bridge), (version, is_bridge));
            assert_eq!((read.client_id, read.clean_start), ("c", false));
            assert_eq!(
                (read.user_name, read.password),
                (Some("u"), Some(&b"p"[..]))
            );
            let will = read.will.unwrap();
            assert_eq!(
                (will.topic, will.qos, will.retain),
                ("w", Qos::AtLeastOnce, true)
            );
            if version.is_v5() {
                let properties = read.properties;
                assert_eq!(properties.session_expiry_seconds, 7);
                assert_eq!(properties.receive_maximum, 9);
                assert_eq!(properties.packet_bytes_max, Some(1000));
            }
        }
    }

    #[test]
    fn a_connack_is_read_as_it_was_written() {
        let connack = Connack {
            session_present: true,
            receive_maximum: 5,
            qos_max: Some(Qos::AtLeastOnce),
            packet_bytes_max: Some(77),
            server_keep_alive_seconds: Some(3),
            unavailable: [true, false, false, false],
            ..Connack::default()
        };
        let mut bytes = Vec::new();
        connack.encode(Version::V5, &mut bytes);
        let read = Answer::decode(body(&bytes), Version::V5).unwrap();
        assert_eq!((read.code, read.session_present), (0, true));
        assert_eq!((read.receive_maximum, read.packet_bytes_max), (5, 77));
        assert_eq!(
            (read.qos_max, read.retain_available),
            (Qos::AtLeastOnce, false)
        );
        assert_eq!(read.keep_alive_seconds, Some(3));
        let refused = Answer::decode(&[0, 1], Version::V5).unwrap();
        assert!(refused.is_other_version());
        assert_eq!(
            refused.refusal(Version::V3_1_1),
            "unacceptable protocol version (1)"
        );
        let refused = Answer::decode(&[0, 0x87, 0], Version::V5).unwrap();
        assert_eq!(refused.refusal(Version::V5), "Not authorized (0x87)");
    }

    #[test]
    fn a_subscribe_is_read_as_it_was_written() {
        let asked = [Asked {
            filter: "a/#",
            qos: Qos::AtLeastOnce,
            retain_handling: 1,
        }];
        for version in [Version::V3_1_1, Version::V5] {
            let mut bytes = Vec::new();
            put_subscribe(version, 9, &asked, &mut bytes);
            let read = Subscribe::decode(body(&bytes), version).unwrap();
            assert_eq!(read.packet_id, 9);
        }
    }

    #[test]
    fn a_farewell_names_reason_and_server() {
        let bytes = [0x9D, 7, 0x1C, 0, 4, b'a', b':', b'1', b'0'];
        let (text, server) = decode_farewell(&bytes).unwrap();
        assert_eq!(
            (text.as_str(), server),
            ("Server moved (0x9D)", Some("a:10"))
        );
        assert_eq!(decode_farewell(&[]).unwrap().1, None);
        assert!(decode_farewell(&[0x9D, 9]).is_err());
    }
}
