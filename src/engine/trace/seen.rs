//! A packet as it came or leaves, read as far as a line tells of it.

use super::line::{self, ConnectLine, FilterLine, PacketLine};
use crate::engine::codec::connect::Connect;
use crate::engine::codec::frame::Frame;
use crate::engine::codec::primitive::Reader;
use crate::engine::codec::property::{Properties, PropertySet, id};
use crate::engine::codec::remote::{Answer, decode_farewell, decode_suback};
use crate::engine::codec::subscribe::{Subscribe, Unsubscribe};
use crate::engine::codec::{DecodeError, PacketType, Reason, Version};

/// A packet of one side.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its first byte.
    pub first_byte: u8,
    /// What follows the fixed header and stands together.
    pub body: &'a [u8],
    /// The rest of a payload.
    pub beyond: &'a [u8],
    /// Bytes of all of it.
    pub bytes: usize,
    /// In which protocol it is.
    pub version: Version,
    /// Whether the client sent it, or the broker.
    pub is_from_client: bool,
}

/// A PUBLISH, from either side.
#[derive(Clone, Copy, Debug)]
pub struct SeenPublish<'a> {
    /// Empty if an alias stands for it.
    pub topic: &'a str,
    /// Topic alias.
    pub alias: Option<u16>,
    packet_id: Option<u16>,
    expiry_seconds: Option<u32>,
    payload: [&'a [u8]; 2],
}

impl<'a> Seen<'a> {
    /// A packet that a client has sent.
    #[must_use]
    pub fn from_client(frame: Frame<'a>, bytes: usize, version: Version) -> Self {
        Seen {
            first_byte: frame.first_byte,
            body: frame.body,
            beyond: &[],
            bytes,
            version,
            is_from_client: true,
        }
    }

    fn kind(&self) -> Option<PacketType> {
        PacketType::from_first_byte(self.first_byte)
    }

    /// Whether it is a CONNECT.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.kind() == Some(PacketType::Connect)
    }

    /// The client identifier of a CONNECT that is understood.
    #[must_use]
    pub fn client_id(&self) -> Option<&'a str> {
        let connect = self.is_connect().then(|| Connect::decode(self.body))?;
        connect.ok().map(|connect| connect.client_id)
    }

    /// What it says if it is a PUBLISH that is understood.
    #[must_use]
    pub fn publish(&self) -> Option<SeenPublish<'a>> {
        match self.kind() {
            Some(PacketType::Publish) => self.read_publish().ok(),
            _ => None,
        }
    }

    fn qos(&self) -> u8 {
        self.first_byte >> 1 & 0b11
    }

    fn read_publish(&self) -> Result<SeenPublish<'a>, DecodeError> {
        let mut reader = Reader::new(self.body);
        let topic = reader.string()?;
        let packet_id = match self.qos() {
            0 => None,
            _ => Some(reader.packet_id()?),
        };
        let (mut alias, mut expiry_seconds) = (None, None);
        if self.version.is_v5() {
            let mut properties = Properties::read(&mut reader, PropertySet::PUBLISH)?;
            while let Some(property) = properties.next_property()? {
                match property.id {
                    id::TOPIC_ALIAS => alias = Some(property.value.integer() as u16),
                    id::MESSAGE_EXPIRY_INTERVAL => {
                        expiry_seconds = Some(property.value.integer());
                    }
                    _ => {}
                }
            }
        }
        Ok(SeenPublish {
            topic,
            alias,
            packet_id,
            expiry_seconds,
            payload: [reader.rest(), self.beyond],
        })
    }

    /// What it says, with so much of a payload at most. `topic` is what an alias stands for.
    #[must_use]
    pub fn line(&self, topic: Option<&str>, payload_bytes_max: usize) -> PacketLine {
        let mut line = PacketLine {
            packet: self
                .kind()
                .map_or_else(|| "reserved".to_owned(), PacketType::name),
            packet_bytes: self.bytes as u64,
            ..PacketLine::default()
        };
        if let Err(error) = self.tell(&mut line, topic, payload_bytes_max) {
            line.error = Some(error);
        }
        line
    }

    fn tell(
        &self,
        line: &mut PacketLine,
        topic: Option<&str>,
        payload_bytes_max: usize,
    ) -> Result<(), String> {
        let told = |error: DecodeError| error.told(Some(self.version));
        let Some(kind) = self.kind() else {
            return Ok(());
        };
        match kind {
            PacketType::Connect => match Connect::decode(self.body) {
                Ok(connect) => {
                    line.connect = Some(Box::new(ConnectLine::of(&connect)));
                    Ok(())
                }
                Err(error) => Err(error.told()),
            },
            PacketType::Publish => {
                let publish = self.read_publish().map_err(told)?;
                self.tell_publish(line, &publish, topic, payload_bytes_max);
                Ok(())
            }
            PacketType::Pingreq | PacketType::Pingresp => Ok(()),
            PacketType::Connack => self.tell_connack(line).map_err(told),
            PacketType::Subscribe => self.tell_subscribe(line).map_err(told),
            PacketType::Unsubscribe => self.tell_unsubscribe(line).map_err(told),
            PacketType::Suback | PacketType::Unsuback => self.tell_codes(line, kind).map_err(told),
            PacketType::Auth => self.tell_auth(line).map_err(told),
            PacketType::Disconnect => self.tell_disconnect(line).map_err(told),
            PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
                self.tell_ack(line).map_err(told)
            }
        }
    }

    fn tell_publish(
        &self,
        line: &mut PacketLine,
        publish: &SeenPublish<'_>,
        topic: Option<&str>,
        payload_bytes_max: usize,
    ) {
        let topic = match publish.topic {
            "" => topic,
            topic => Some(topic),
        };
        line.topic = topic.map(line::cut);
        line.topic_alias = publish.alias;
        line.packet_id = publish.packet_id;
        line.expiry_seconds = publish.expiry_seconds;
        line.qos = Some(self.qos());
        line.retain = Some(self.first_byte & 1 != 0);
        line.dup = Some(self.first_byte & 0b1000 != 0);
        line.tell_payload(publish.payload, payload_bytes_max);
    }

    fn tell_connack(&self, line: &mut PacketLine) -> Result<(), DecodeError> {
        let answer = Answer::decode(self.body, self.version)?;
        line.session_present = Some(answer.session_present);
        line.reason = Some(match answer.code {
            0 => Reason::Success.text().to_owned(),
            _ => line::cut(&answer.refusal(self.version)),
        });
        Ok(())
    }

    fn tell_subscribe(&self, line: &mut PacketLine) -> Result<(), DecodeError> {
        let subscribe = Subscribe::decode(self.body, self.version)?;
        line.packet_id = Some(subscribe.packet_id);
        let filters = subscribe.requests.iter();
        line.tell_filters(filters.map(|request| FilterLine {
            filter: line::cut(request.filter),
            qos: Some(request.options.qos.bits()),
        }));
        Ok(())
    }

    fn tell_unsubscribe(&self, line: &mut PacketLine) -> Result<(), DecodeError> {
        let unsubscribe = Unsubscribe::decode(self.body, self.version)?;
        line.packet_id = Some(unsubscribe.packet_id);
        let filters = unsubscribe.filters.iter();
        line.tell_filters(filters.map(|filter| FilterLine {
            filter: line::cut(filter),
            qos: None,
        }));
        Ok(())
    }

    fn tell_codes(&self, line: &mut PacketLine, kind: PacketType) -> Result<(), DecodeError> {
        let (packet_id, codes) = decode_suback(self.body, self.version)?;
        line.packet_id = Some(packet_id);
        line.tell_reasons(codes.iter().map(|code| match (kind, code) {
            (PacketType::Suback, 0) => "Granted QoS 0".to_owned(),
            (_, code) => name(*code),
        }));
        Ok(())
    }

    fn tell_ack(&self, line: &mut PacketLine) -> Result<(), DecodeError> {
        let mut reader = Reader::new(self.body);
        line.packet_id = Some(reader.packet_id()?);
        if self.version.is_v5() && !reader.is_empty() {
            line.reason = Some(name(reader.byte()?));
        }
        Ok(())
    }

    fn tell_auth(&self, line: &mut PacketLine) -> Result<(), DecodeError> {
        let mut reader = Reader::new(self.body);
        line.reason = Some(name(reader.byte()?));
        let mut properties = Properties::read(&mut reader, PropertySet::AUTH)?;
        while let Some(property) = properties.next_property()? {
            if property.id == id::AUTHENTICATION_METHOD {
                line.method = Some(line::cut(property.value.string()));
            }
        }
        Ok(())
    }

    fn tell_disconnect(&self, line: &mut PacketLine) -> Result<(), DecodeError> {
        if !self.version.is_v5() {
            return Ok(());
        }
        if !self.is_from_client {
            let (reason, _) = decode_farewell(self.body)?;
            line.reason = Some(line::cut(&reason));
            return Ok(());
        }
        line.reason = Some(name(self.body.first().copied().unwrap_or_default()));
        Ok(())
    }
}

/// A reason code in the standard's words.
fn name(code: u8) -> String {
    match Reason::from_byte(code) {
        Some(reason) => reason.to_string(),
        None => format!("0x{code:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(packet: &[u8], version: Version, is_from_client: bool) -> Seen<'_> {
        let (first_byte, body) = (packet[0], &packet[2..]);
        let (beyond, bytes): (&[u8], _) = (&[], packet.len());
        Seen {
            first_byte,
            body,
            beyond,
            bytes,
            version,
            is_from_client,
        }
    }

    fn connect() -> Vec<u8> {
        let mut packet = vec![0x10, 0, 0, 4];
        packet.extend(b"MQTT");
        packet.extend([5, 0xC4, 0, 30]);
        let properties = b"\x15\0\x01M\x16\0\x06secret";
        packet.push(properties.len() as u8);
        packet.extend(properties);
        packet.extend(b"\0\x01c\0\0\x04will\0\x06secret\0\x01u\0\x06secret");
        packet[1] = packet.len() as u8 - 2;
        packet
    }

    #[test]
    fn of_a_connect_all_is_told_but_secrets() {
        let packet = connect();
        let seen = seen(&packet, Version::V3_1_1, true);
        assert_eq!(seen.client_id(), Some("c"));
        let line = seen.line(None, 100);
        let connect = line.connect.as_ref().expect("it is understood");
        assert_eq!(connect.version, "5.0");
        assert_eq!(
            (connect.user.as_deref(), connect.will_topic.as_deref()),
            (Some("u"), Some("will"))
        );
        assert_eq!(connect.method.as_deref(), Some("M"));
        assert_eq!(line.error, None);
        let told = serde_json::to_string(&line).unwrap();
        assert!(!told.contains("secret"), "{told}");
    }

    #[test]
    fn an_exchange_is_told_without_its_data() {
        let packet = b"\xF0\x0D\x18\x0B\x15\0\x01M\x16\0\x04hush";
        let line = seen(packet, Version::V5, true).line(None, 100);
        assert_eq!(line.method.as_deref(), Some("M"));
        let told = serde_json::to_string(&line).unwrap();
        assert!(told.contains("Continue authentication") && !told.contains("hush"));
    }

    #[test]
    fn a_payload_is_told_as_far_as_it_was_asked_for() {
        let packet = b"\x35\x0C\0\x01t\0\x07\0hello!";
        let seen = seen(packet, Version::V5, true);
        let line = seen.line(None, 0);
        assert_eq!((line.payload_bytes, line.payload), (Some(6), None));
        let line = seen.line(None, 4);
        assert_eq!(line.payload.as_deref(), Some("hell"));
        assert_eq!(
            (line.packet_id, line.qos, line.retain),
            (Some(7), Some(2), Some(true))
        );
        let beyond = Seen {
            beyond: b" more\xFF",
            ..seen
        };
        assert_eq!(beyond.line(None, 9).payload.as_deref(), Some("hello! mo"));
        assert_eq!(beyond.line(None, 0).payload_bytes, Some(12));
        let whole = beyond.line(None, 99);
        assert_eq!(whole.payload, None);
        assert_eq!(whole.payload_base64.as_deref(), Some("aGVsbG8hIG1vcmX/"));
    }

    #[test]
    fn what_an_alias_stands_for_is_told_and_broken_packets_are_named() {
        let packet = b"\x30\x07\0\0\x03\x23\0\x05x";
        let seen_alias = seen(packet, Version::V5, true);
        let publish = seen_alias.publish().expect("it is understood");
        assert_eq!((publish.topic, publish.alias), ("", Some(5)));
        assert_eq!(
            seen_alias.line(Some("a/b"), 0).topic.as_deref(),
            Some("a/b")
        );
        let broken = seen(b"\x82\x02\0\0", Version::V5, true).line(None, 0);
        assert!(broken.error.is_some_and(|error| error.contains("MQTT")));
    }
}
