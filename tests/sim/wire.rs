//! As much MQTT 3.1.1 and 5.0 as the simulated clients need: not the broker's codec.

/// A packet from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Connack {
        session_present: bool,
        code: u8,
        receive_maximum: u16,
    },
    Publish {
        topic: String,
        qos: u8,
        dup: bool,
        retain: bool,
        packet_id: u16,
        payload: Vec<u8>,
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP by type nibble.
    Ack {
        kind: u8,
        packet_id: u16,
        reason: u8,
    },
    Suback {
        packet_id: u16,
        codes: Vec<u8>,
    },
    Unsuback {
        packet_id: u16,
    },
    Disconnect(u8),
    Pingresp,
}

fn variable(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Takes one whole packet off the front. Panics on what is not MQTT: the broker must not send it.
pub fn take(bytes: &mut Vec<u8>, is_v5: bool) -> Option<Packet> {
    let (length, used) = variable(bytes.get(1..)?)?;
    let end = 1 + used + length;
    if bytes.len() < end {
        return None;
    }
    let rest = bytes.split_off(end);
    let packet = std::mem::replace(bytes, rest);
    Some(decode(packet[0], &packet[1 + used..], is_v5))
}

/// Skips a property list and returns where it ends.
fn after_properties(body: &[u8], at: usize, is_v5: bool) -> usize {
    if !is_v5 || at >= body.len() {
        return at;
    }
    let (length, used) = variable(&body[at..]).expect("a property length");
    at + used + length
}

fn decode(first: u8, body: &[u8], is_v5: bool) -> Packet {
    match first >> 4 {
        2 => Packet::Connack {
            session_present: body[0] == 1,
            code: body[1],
            receive_maximum: receive_maximum(body, is_v5),
        },
        3 => {
            let qos = first >> 1 & 3;
            let topic_end = 2 + usize::from(u16_at(body, 0));
            let mut at = topic_end;
            let mut packet_id = 0;
            if qos > 0 {
                packet_id = u16_at(body, at);
                at += 2;
            }
            let at = after_properties(body, at, is_v5);
            Packet::Publish {
                topic: String::from_utf8(body[2..topic_end].to_vec()).expect("a topic in UTF-8"),
                qos,
                dup: first & 8 != 0,
                retain: first & 1 != 0,
                packet_id,
                payload: body[at..].to_vec(),
            }
        }
        kind @ 4..=7 => Packet::Ack {
            kind,
            packet_id: u16_at(body, 0),
            reason: body.get(2).copied().unwrap_or(0),
        },
        9 => Packet::Suback {
            packet_id: u16_at(body, 0),
            codes: body[after_properties(body, 2, is_v5)..].to_vec(),
        },
        11 => Packet::Unsuback {
            packet_id: u16_at(body, 0),
        },
        13 => Packet::Pingresp,
        14 => Packet::Disconnect(body.first().copied().unwrap_or(0)),
        other => panic!("the broker sent a packet of type {other}"),
    }
}

fn receive_maximum(body: &[u8], is_v5: bool) -> u16 {
    if !is_v5 || body.len() < 4 {
        return u16::MAX;
    }
    let (length, used) = variable(&body[2..]).expect("a property length");
    let mut properties = &body[2 + used..2 + used + length];
    while let Some((&id, rest)) = properties.split_first() {
        let length = match id {
            0x11 | 0x27 => 4,
            0x13 | 0x21 | 0x22 => 2,
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            _ => 2 + usize::from(u16_at(rest, 0)),
        };
        if id == 0x21 {
            return u16_at(rest, 0);
        }
        properties = &rest[length..];
    }
    u16::MAX
}

fn text(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    body.extend_from_slice(bytes);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(body);
    out
}

/// A will.
#[derive(Clone, Debug)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub delay_s: u32,
}

/// What a CONNECT says.
#[derive(Clone, Debug)]
pub struct Connect {
    pub name: String,
    pub is_v5: bool,
    pub is_clean: bool,
    /// 5.0 only.
    pub expiry_s: u32,
    /// 5.0 only.
    pub receive_maximum: u16,
    /// 5.0 only.
    pub packet_bytes_max: Option<u32>,
    pub will: Option<Will>,
}

pub fn connect(connect: &Connect) -> Vec<u8> {
    let mut flags = u8::from(connect.is_clean) << 1;
    if let Some(will) = &connect.will {
        flags |= 4 | will.qos << 3;
    }
    let level = if connect.is_v5 { 5 } else { 4 };
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 0];
    if connect.is_v5 {
        let length = if connect.packet_bytes_max.is_some() {
            13
        } else {
            8
        };
        body.extend_from_slice(&[length, 0x11]);
        body.extend_from_slice(&connect.expiry_s.to_be_bytes());
        body.push(0x21);
        body.extend_from_slice(&connect.receive_maximum.to_be_bytes());
        if let Some(max) = connect.packet_bytes_max {
            body.push(0x27);
            body.extend_from_slice(&max.to_be_bytes());
        }
    }
    text(&mut body, connect.name.as_bytes());
    if let Some(will) = &connect.will {
        if connect.is_v5 {
            body.extend_from_slice(&[5, 0x18]);
            body.extend_from_slice(&will.delay_s.to_be_bytes());
        }
        text(&mut body, will.topic.as_bytes());
        text(&mut body, &will.payload);
    }
    packet(0x10, &body)
}

/// A PUBLISH of a client.
#[derive(Clone, Debug)]
pub struct Publish {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub packet_id: u16,
}

pub fn publish(publish: &Publish, dup: bool, is_v5: bool) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, publish.topic.as_bytes());
    if publish.qos > 0 {
        body.extend_from_slice(&publish.packet_id.to_be_bytes());
    }
    if is_v5 {
        body.push(0);
    }
    body.extend_from_slice(&publish.payload);
    let first = 0x30 | u8::from(dup) << 3 | publish.qos << 1 | u8::from(publish.retain);
    packet(first, &body)
}

pub fn subscribe(packet_id: u16, filters: &[(String, u8)], is_v5: bool) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if is_v5 {
        body.push(0);
    }
    for (filter, qos) in filters {
        text(&mut body, filter.as_bytes());
        body.push(*qos);
    }
    packet(0x82, &body)
}

pub fn unsubscribe(packet_id: u16, filters: &[String], is_v5: bool) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if is_v5 {
        body.push(0);
    }
    for filter in filters {
        text(&mut body, filter.as_bytes());
    }
    packet(0xA2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP by type nibble.
pub fn ack(kind: u8, packet_id: u16) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![kind << 4 | if kind == 6 { 2 } else { 0 }, 2, high, low]
}

pub const DISCONNECT: [u8; 2] = [0xE0, 0];
pub const PINGREQ: [u8; 2] = [0xC0, 0];
