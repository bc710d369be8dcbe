//! The strict reader of what a broker sends.
//!
//! It panics, and so fails the test, on wrong flags, padded lengths, trailing bytes, strings that are
//! not UTF-8 or hold NUL, properties and reason codes that do not belong into their packet, and on
//! packets that a broker never sends to a client of that version.

use super::wire::{Ack, Props, Publish, Value, Version, prop};

/// A packet from the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    Connack {
        session_present: bool,
        code: u8,
        props: Props,
    },
    Publish(Publish),
    Ack {
        kind: Ack,
        id: u16,
        code: u8,
        props: Props,
    },
    Suback {
        id: u16,
        codes: Vec<u8>,
        props: Props,
    },
    Unsuback {
        id: u16,
        codes: Vec<u8>,
        props: Props,
    },
    Pingresp,
    Disconnect {
        code: u8,
        props: Props,
    },
    Auth {
        code: u8,
        props: Props,
    },
}

const CONNACK_V5: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
    0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];
const PUBACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL: &[u8] = &[0x00, 0x92];
const SUBACK_V5: &[u8] = &[
    0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
];
const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
const DISCONNECT: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];
const CONNACK_PROPS: &[u8] = &[
    0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29,
    0x2A,
];
const PUBLISH_PROPS: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26];
const REASON_PROPS: &[u8] = &[0x1F, 0x26];
const DISCONNECT_PROPS: &[u8] = &[0x1C, 0x1F, 0x26];
const AUTH_PROPS: &[u8] = &[0x15, 0x16, 0x1F, 0x26];

/// Length of the first packet in `bytes` if it is there as a whole: header and remaining length.
pub fn whole_packet(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0usize;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            assert!(
                index == 0 || *byte != 0,
                "the broker padded a remaining length: {bytes:02x?}"
            );
            let header = index + 2;
            return (bytes.len() >= header + length).then_some((header, length));
        }
    }
    assert!(
        bytes.len() < 5,
        "the broker sent a remaining length of five bytes"
    );
    None
}

/// Reads one packet that [`whole_packet`] found.
pub fn packet(first: u8, body: &[u8], version: Version) -> Packet {
    let mut reader = Reader { rest: body, first };
    let kind = first >> 4;
    if kind != 3 {
        let expected = if kind == 6 { 2 } else { 0 };
        assert_eq!(
            first & 0x0F,
            expected,
            "[MQTT-2.2.2-1] flags of packet {first:#04x}"
        );
    }
    let v5 = version == Version::V5;
    let packet = match kind {
        2 => reader.connack(v5),
        3 => return Packet::Publish(reader.publish(v5)),
        4 => reader.ack(Ack::Puback, PUBACK, v5),
        5 => reader.ack(Ack::Pubrec, PUBACK, v5),
        6 => reader.ack(Ack::Pubrel, PUBREL, v5),
        7 => reader.ack(Ack::Pubcomp, PUBREL, v5),
        9 => reader.suback(v5),
        11 => reader.unsuback(v5),
        13 => Packet::Pingresp,
        14 if v5 => {
            let (code, props) = reader.code_and_props(DISCONNECT, DISCONNECT_PROPS);
            Packet::Disconnect { code, props }
        }
        15 if v5 => {
            let (code, props) = reader.code_and_props(&[0x00, 0x18], AUTH_PROPS);
            Packet::Auth { code, props }
        }
        _ => panic!("a broker never sends {first:#04x} to a client of {version:?}"),
    };
    assert!(
        reader.rest.is_empty(),
        "trailing bytes {:02x?} in {packet:?}",
        reader.rest
    );
    packet
}

struct Reader<'a> {
    rest: &'a [u8],
    first: u8,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Vec<u8> {
        assert!(
            self.rest.len() >= count,
            "packet {:#04x} of the broker ends {count} bytes too early",
            self.first
        );
        let (head, tail) = self.rest.split_at(count);
        self.rest = tail;
        head.to_vec()
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn four(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn variable(&mut self) -> u32 {
        let mut value = 0u32;
        for index in 0..4 {
            let byte = self.byte();
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                assert!(
                    index == 0 || byte != 0,
                    "[MQTT-1.5.5-1] the broker padded an integer"
                );
                return value;
            }
        }
        panic!("[MQTT-1.5.5-1] variable byte integer of more than four bytes");
    }

    fn binary(&mut self) -> Vec<u8> {
        let length = self.two();
        self.take(usize::from(length))
    }

    fn text(&mut self) -> Vec<u8> {
        let bytes = self.binary();
        let text = std::str::from_utf8(&bytes).expect("[MQTT-1.5.4-1] the broker sends UTF-8");
        assert!(
            !text.contains('\0'),
            "[MQTT-1.5.4-2] the broker sent a NUL in {text:?}"
        );
        bytes
    }

    fn identifier(&mut self) -> u16 {
        let id = self.two();
        assert_ne!(id, 0, "packet {:#04x} with identifier 0", self.first);
        id
    }

    fn props(&mut self, allowed: &[u8]) -> Props {
        let length = self.variable() as usize;
        let body = self.take(length);
        let mut inner = Reader {
            rest: &body,
            first: self.first,
        };
        let mut props = Props::new();
        while !inner.rest.is_empty() {
            let id = inner.byte();
            assert!(
                allowed.contains(&id),
                "property {id:#04x} in packet {:#04x} of the broker",
                self.first
            );
            let repeats = id == prop::USER_PROPERTY || id == prop::SUBSCRIPTION_ID;
            assert!(
                repeats || props.find(id).is_none(),
                "property {id:#04x} twice"
            );
            let value = inner.value(id);
            props.0.push((id, value));
        }
        props
    }

    fn value(&mut self, id: u8) -> Value {
        match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => {
                let byte = self.byte();
                assert!(byte <= 1, "property {id:#04x} of the broker is {byte}");
                Value::Byte(byte)
            }
            0x13 | 0x21 | 0x22 | 0x23 => Value::Two(self.two()),
            0x02 | 0x11 | 0x18 | 0x27 => Value::Four(self.four()),
            0x0B => Value::Variable(self.variable()),
            0x09 | 0x16 => Value::Text(self.binary()),
            0x26 => {
                let name = self.text();
                Value::Pair(name, self.text())
            }
            _ => Value::Text(self.text()),
        }
    }

    fn code_and_props(&mut self, codes: &[u8], allowed: &[u8]) -> (u8, Props) {
        let code = if self.rest.is_empty() { 0 } else { self.byte() };
        assert!(
            codes.contains(&code),
            "reason code {code:#04x} in packet {:#04x}",
            self.first
        );
        let props = if self.rest.is_empty() {
            Props::new()
        } else {
            self.props(allowed)
        };
        (code, props)
    }

    fn connack(&mut self, v5: bool) -> Packet {
        let flags = self.byte();
        assert!(
            flags <= 1,
            "[MQTT-3.2.2-1] acknowledge flags of CONNACK are {flags:#04x}"
        );
        let code = self.byte();
        let codes: &[u8] = if v5 { CONNACK_V5 } else { &[0, 1, 2, 3, 4, 5] };
        assert!(
            codes.contains(&code),
            "[MQTT-3.2.2-8] CONNACK code {code:#04x}"
        );
        assert!(
            flags == 0 || code == 0,
            "[MQTT-3.2.2-6] a refusal with session present"
        );
        // A refusal may be meant for a client of a version that knows no properties.
        let props = if v5 && !(self.rest.is_empty() && code != 0) {
            self.props(CONNACK_PROPS)
        } else {
            Props::new()
        };
        Packet::Connack {
            session_present: flags == 1,
            code,
            props,
        }
    }

    fn publish(&mut self, v5: bool) -> Publish {
        let topic = self.text();
        assert!(
            !topic.contains(&b'+') && !topic.contains(&b'#'),
            "[MQTT-3.3.2-2] wildcard in a topic name"
        );
        let qos = self.first >> 1 & 3;
        let dup = self.first & 8 != 0;
        assert!(qos < 3, "[MQTT-3.3.1-4] PUBLISH at QoS 3");
        assert!(!(dup && qos == 0), "[MQTT-3.3.1-2] QoS 0 with DUP");
        let id = if qos > 0 { self.identifier() } else { 0 };
        let props = if v5 {
            self.props(PUBLISH_PROPS)
        } else {
            Props::new()
        };
        let payload = std::mem::take(&mut self.rest).to_vec();
        Publish {
            topic,
            payload,
            qos,
            retain: self.first & 1 != 0,
            dup,
            id,
            props,
        }
    }

    fn ack(&mut self, kind: Ack, codes: &[u8], v5: bool) -> Packet {
        let id = self.identifier();
        let (code, props) = if v5 {
            self.code_and_props(codes, REASON_PROPS)
        } else {
            (0, Props::new())
        };
        Packet::Ack {
            kind,
            id,
            code,
            props,
        }
    }

    fn suback(&mut self, v5: bool) -> Packet {
        let id = self.identifier();
        let props = if v5 {
            self.props(REASON_PROPS)
        } else {
            Props::new()
        };
        let codes = std::mem::take(&mut self.rest).to_vec();
        let allowed: &[u8] = if v5 { SUBACK_V5 } else { &[0, 1, 2, 0x80] };
        for code in &codes {
            assert!(
                allowed.contains(code),
                "[MQTT-3.9.3-2] SUBACK code {code:#04x}"
            );
        }
        Packet::Suback { id, codes, props }
    }

    fn unsuback(&mut self, v5: bool) -> Packet {
        let id = self.identifier();
        if !v5 {
            return Packet::Unsuback {
                id,
                codes: Vec::new(),
                props: Props::new(),
            };
        }
        let props = self.props(REASON_PROPS);
        let codes = std::mem::take(&mut self.rest).to_vec();
        for code in &codes {
            assert!(
                UNSUBACK.contains(code),
                "[MQTT-3.11.3-2] UNSUBACK code {code:#04x}"
            );
        }
        Packet::Unsuback { id, codes, props }
    }
}
