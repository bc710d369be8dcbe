//! MQTT bytes as the test client writes them: numbers, strings, properties, PUBLISH.
//!
//! The builders check nothing: a test may build any packet, right or wrong.

/// Protocol version a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// MQTT 3.1, protocol name `MQIsdp`.
    V3 = 3,
    /// MQTT 3.1.1.
    V4 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

/// The four acknowledgements of PUBLISH, by packet type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ack {
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
}

/// Property identifiers of MQTT 5.0.
pub mod prop {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0B;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTH_METHOD: u8 = 0x15;
    pub const AUTH_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFO: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFO: u8 = 0x19;
    pub const RESPONSE_INFO: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub const SHARED_AVAILABLE: u8 = 0x2A;
}

/// Bits of the subscription options beside the QoS.
pub mod option {
    pub const NO_LOCAL: u8 = 0x04;
    pub const RETAIN_AS_PUBLISHED: u8 = 0x08;
    pub const RETAIN_IF_NEW: u8 = 0x10;
    pub const RETAIN_NEVER: u8 = 0x20;
}

/// A property's value in the form its identifier asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Byte(u8),
    Two(u16),
    Four(u32),
    Variable(u32),
    Text(Vec<u8>),
    Pair(Vec<u8>, Vec<u8>),
}

/// Properties in the order they are written or were read.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Props(pub Vec<(u8, Value)>);

impl Props {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with(mut self, id: u8, value: Value) -> Self {
        self.0.push((id, value));
        self
    }

    pub fn byte(self, id: u8, value: u8) -> Self {
        self.with(id, Value::Byte(value))
    }

    pub fn two(self, id: u8, value: u16) -> Self {
        self.with(id, Value::Two(value))
    }

    pub fn four(self, id: u8, value: u32) -> Self {
        self.with(id, Value::Four(value))
    }

    pub fn variable(self, id: u8, value: u32) -> Self {
        self.with(id, Value::Variable(value))
    }

    pub fn text(self, id: u8, value: impl AsRef<[u8]>) -> Self {
        self.with(id, Value::Text(value.as_ref().to_vec()))
    }

    /// Appends a user property.
    pub fn user(self, name: &str, value: &str) -> Self {
        let pair = Value::Pair(name.as_bytes().to_vec(), value.as_bytes().to_vec());
        self.with(prop::USER_PROPERTY, pair)
    }

    pub fn find(&self, id: u8) -> Option<&Value> {
        self.0.iter().find(|(i, _)| *i == id).map(|(_, v)| v)
    }

    /// The number of property `id`, whatever its width.
    pub fn number(&self, id: u8) -> Option<u32> {
        self.find(id).map(|value| match value {
            Value::Byte(n) => u32::from(*n),
            Value::Two(n) => u32::from(*n),
            Value::Four(n) | Value::Variable(n) => *n,
            other => panic!("property {id:#04x} holds {other:?}, not a number"),
        })
    }

    /// The bytes of the string or binary property `id`.
    pub fn bytes(&self, id: u8) -> Option<&[u8]> {
        self.find(id).map(|value| match value {
            Value::Text(bytes) => bytes.as_slice(),
            other => panic!("property {id:#04x} holds {other:?}, not bytes"),
        })
    }

    /// The string property `id`.
    pub fn string(&self, id: u8) -> Option<String> {
        self.bytes(id)
            .map(|b| String::from_utf8(b.to_vec()).expect("string property is UTF-8"))
    }

    /// All subscription identifiers, sorted.
    pub fn subscription_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self
            .0
            .iter()
            .filter_map(|(id, value)| match value {
                Value::Variable(n) if *id == prop::SUBSCRIPTION_ID => Some(*n),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids
    }

    /// All user properties in order.
    pub fn user_pairs(&self) -> Vec<(String, String)> {
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).expect("user property is UTF-8");
        self.0
            .iter()
            .filter_map(|(_, value)| match value {
                Value::Pair(name, value) => Some((text(name), text(value))),
                _ => None,
            })
            .collect()
    }

    /// The properties without their length.
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, value) in &self.0 {
            out.push(*id);
            match value {
                Value::Byte(n) => out.push(*n),
                Value::Two(n) => out.extend_from_slice(&n.to_be_bytes()),
                Value::Four(n) => out.extend_from_slice(&n.to_be_bytes()),
                Value::Variable(n) => out.extend_from_slice(&remaining_length(*n as usize)),
                Value::Text(text) => put_str(&mut out, text),
                Value::Pair(name, value) => {
                    put_str(&mut out, name);
                    put_str(&mut out, value);
                }
            }
        }
        out
    }

    /// Writes length and properties.
    pub fn put(&self, out: &mut Vec<u8>) {
        let body = self.body();
        out.extend_from_slice(&remaining_length(body.len()));
        out.extend_from_slice(&body);
    }
}

/// A variable byte integer in its shortest form.
pub fn remaining_length(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// Writes a two-byte length and the bytes.
pub fn put_str(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    let text = text.as_ref();
    let length = u16::try_from(text.len()).expect("a string field holds at most 65,535 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text);
}

/// A whole packet: first byte, remaining length, body.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend_from_slice(&remaining_length(body.len()));
    out.extend_from_slice(body);
    out
}

/// A PUBLISH, to send or received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publish {
    pub topic: Vec<u8>,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// Packet identifier; 0 lets the client choose one when it sends at QoS 1 or 2.
    pub id: u16,
    pub props: Props,
}

impl Publish {
    pub fn new(topic: impl AsRef<[u8]>, qos: u8, payload: impl AsRef<[u8]>) -> Self {
        Publish {
            topic: topic.as_ref().to_vec(),
            payload: payload.as_ref().to_vec(),
            qos,
            retain: false,
            dup: false,
            id: 0,
            props: Props::new(),
        }
    }

    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    pub fn props(mut self, props: Props) -> Self {
        self.props = props;
        self
    }

    pub fn topic_str(&self) -> &str {
        std::str::from_utf8(&self.topic).expect("topic is UTF-8")
    }

    pub fn payload_str(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("payload is UTF-8")
    }

    /// The packet's bytes in `version`.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.topic.len() + self.payload.len() + 16);
        put_str(&mut body, &self.topic);
        if self.qos > 0 {
            body.extend_from_slice(&self.id.to_be_bytes());
        }
        if version == Version::V5 {
            self.props.put(&mut body);
        }
        body.extend_from_slice(&self.payload);
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        frame(0x30 | flags, &body)
    }
}
