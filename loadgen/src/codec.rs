//! As much of MQTT 3.1.1 and 5.0 as a load generator needs.
//!
//! Written apart from the broker's codec on purpose: an error in one must not hide in the other.

/// A packet from the broker.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNACK.
    Connack(Connack),
    /// SUBACK: one code per filter.
    Suback(&'a [u8]),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP: type nibble, identifier, reason code.
    Ack {
        kind: u8,
        packet_id: u16,
        reason: u8,
    },
    /// DISCONNECT with its reason.
    Disconnect(u8),
    /// PINGRESP.
    Pong,
    /// Whatever else needs no answer.
    Other,
}

/// A message on its way to a subscriber.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub topic: &'a [u8],
    pub qos: u8,
    pub is_retained: bool,
    pub packet_id: u16,
    pub payload: &'a [u8],
}

/// What the broker says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connack {
    /// 0 lets the client in.
    pub code: u8,
    /// Publishes above QoS 0 it takes unacknowledged.
    pub receive_maximum: u16,
    /// Topic aliases it takes.
    pub topic_alias_max: u16,
}

/// What the front of a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A packet and the bytes it took.
    Packet(Packet<'a>, usize),
    /// Not all of it yet.
    Partial,
    /// Not MQTT.
    Malformed,
}

/// Decodes the first packet of `bytes`.
pub fn decode(bytes: &[u8], protocol: u8) -> Decoded<'_> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Decoded::Partial;
    };
    if !is_first_byte(first) {
        return Decoded::Malformed;
    }
    let (length, header) = match variable(rest) {
        Some(Ok((length, used))) => (length, 1 + used),
        Some(Err(())) => return Decoded::Malformed,
        None => return Decoded::Partial,
    };
    let Some(body) = bytes.get(header..header + length) else {
        return Decoded::Partial;
    };
    match decode_body(first, body, protocol) {
        Some(packet) => Decoded::Packet(packet, header + length),
        None => Decoded::Malformed,
    }
}

/// Length of the first packet of `bytes`, which are packets; all of them where that cannot be told.
pub fn first_len(bytes: &[u8]) -> usize {
    match variable(bytes.get(1..).unwrap_or_default()) {
        Some(Ok((length, used))) => bytes.len().min(1 + used + length),
        _ => bytes.len(),
    }
}

/// Whether a packet from a broker may begin so.
const fn is_first_byte(first: u8) -> bool {
    match first >> 4 {
        3 => first & 6 != 6,
        6 => first & 15 == 2,
        2 | 4 | 5 | 7 | 9 | 11 | 13 | 14 | 15 => first & 15 == 0,
        _ => false,
    }
}

fn variable(bytes: &[u8]) -> Option<Result<(usize, usize), ()>> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(Ok((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        Some(Err(()))
    } else {
        None
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn decode_body(first: u8, body: &[u8], protocol: u8) -> Option<Packet<'_>> {
    Some(match first >> 4 {
        2 => Packet::Connack(decode_connack(body, protocol)?),
        3 => Packet::Publish(decode_publish(first, body, protocol)?),
        kind @ 4..=7 => Packet::Ack {
            kind,
            packet_id: u16_at(body, 0)?,
            reason: body.get(2).copied().unwrap_or(0),
        },
        9 => {
            let mut at = 2;
            if protocol == 5 {
                let (length, used) = variable(body.get(at..)?)?.ok()?;
                at += used + length;
            }
            Packet::Suback(body.get(at..).filter(|codes| !codes.is_empty())?)
        }
        14 => Packet::Disconnect(body.first().copied().unwrap_or(0)),
        13 => Packet::Pong,
        11 | 15 => Packet::Other,
        _ => return None,
    })
}

fn decode_publish(first: u8, body: &[u8], protocol: u8) -> Option<Publish<'_>> {
    let qos = first >> 1 & 3;
    let mut at = 2 + usize::from(u16_at(body, 0)?);
    let topic = body.get(2..at)?;
    let mut packet_id = 0;
    if qos > 0 {
        packet_id = u16_at(body, at)?;
        at += 2;
    }
    if protocol == 5 {
        let (length, used) = variable(body.get(at..)?)?.ok()?;
        at += used + length;
    }
    Some(Publish {
        topic,
        qos,
        is_retained: first & 1 == 1,
        packet_id,
        payload: body.get(at..)?,
    })
}

fn decode_connack(body: &[u8], protocol: u8) -> Option<Connack> {
    let mut connack = Connack {
        code: *body.get(1)?,
        receive_maximum: u16::MAX,
        topic_alias_max: 0,
    };
    if protocol != 5 || body.len() == 2 {
        return Some(connack);
    }
    let (length, used) = variable(&body[2..])?.ok()?;
    let mut properties = body.get(2 + used..2 + used + length)?;
    while let Some((&id, rest)) = properties.split_first() {
        let length = match id {
            0x11 | 0x27 => 4,
            0x13 | 0x21 | 0x22 => 2,
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => 2 + usize::from(u16_at(rest, 0)?),
            0x26 => {
                let name = 2 + usize::from(u16_at(rest, 0)?);
                name + 2 + usize::from(u16_at(rest, name)?)
            }
            _ => return None,
        };
        match id {
            0x21 => connack.receive_maximum = u16_at(rest, 0)?,
            0x22 => connack.topic_alias_max = u16_at(rest, 0)?,
            _ => {}
        }
        properties = rest.get(length..)?;
    }
    Some(connack)
}

fn length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn packet(first: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    length(body.len(), out);
    out.extend_from_slice(body);
}

fn binary(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    body.extend_from_slice(bytes);
}

/// What a client says when it comes in.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    pub client_id: &'a str,
    pub protocol: u8,
    pub is_clean: bool,
    pub keep_alive_s: u16,
    pub user: Option<&'a str>,
    pub password: Option<&'a str>,
}

/// CONNECT. A 5.0 session that is not clean lasts an hour.
pub fn connect(connect: &Connect<'_>, out: &mut Vec<u8>) {
    let mut flags = u8::from(connect.is_clean) << 1;
    flags |= u8::from(connect.user.is_some()) << 7;
    flags |= u8::from(connect.password.is_some()) << 6;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', connect.protocol, flags];
    body.extend_from_slice(&connect.keep_alive_s.to_be_bytes());
    if connect.protocol == 5 {
        if connect.is_clean {
            body.push(0);
        } else {
            body.extend_from_slice(&[5, 0x11, 0, 0, 0x0E, 0x10]);
        }
    }
    binary(&mut body, connect.client_id.as_bytes());
    for text in [connect.user, connect.password].into_iter().flatten() {
        binary(&mut body, text.as_bytes());
    }
    packet(0x10, &body, out);
}

/// SUBSCRIBE to `filters`.
pub fn subscribe<'a>(
    filters: impl Iterator<Item = &'a str>,
    qos: u8,
    protocol: u8,
    out: &mut Vec<u8>,
) {
    let mut body = vec![0, 1];
    if protocol == 5 {
        body.push(0);
    }
    for filter in filters {
        binary(&mut body, filter.as_bytes());
        body.push(qos);
    }
    packet(0x82, &body, out);
}

/// What of a PUBLISH is not its topic and payload.
#[derive(Clone, Copy, Debug)]
pub struct PublishHead {
    pub qos: u8,
    pub is_retained: bool,
    /// Counts above QoS 0.
    pub packet_id: u16,
    /// 5.0 only.
    pub alias: Option<u16>,
    pub protocol: u8,
}

/// PUBLISH up to its payload; the caller appends `payload_bytes` of it.
pub fn publish_head(head: PublishHead, topic: &[u8], payload_bytes: usize, out: &mut Vec<u8>) {
    let properties = match (head.protocol, head.alias) {
        (5, Some(_)) => 4,
        (5, None) => 1,
        _ => 0,
    };
    let packet_id = if head.qos > 0 { 2 } else { 0 };
    out.push(0x30 | head.qos << 1 | u8::from(head.is_retained));
    length(
        2 + topic.len() + packet_id + properties + payload_bytes,
        out,
    );
    binary(out, topic);
    if head.qos > 0 {
        out.extend_from_slice(&head.packet_id.to_be_bytes());
    }
    match (head.protocol, head.alias) {
        (5, Some(alias)) => {
            let [high, low] = alias.to_be_bytes();
            out.extend_from_slice(&[3, 0x23, high, low]);
        }
        (5, None) => out.push(0),
        _ => {}
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP by its type nibble.
pub fn ack(kind: u8, packet_id: u16, out: &mut Vec<u8>) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[kind << 4 | if kind == 6 { 2 } else { 0 }, 2, high, low]);
}

/// DISCONNECT.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];
/// PINGREQ.
pub const PINGREQ: [u8; 2] = [0xC0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_read_back_at_every_cut() {
        for protocol in [4, 5] {
            for qos in 0..=2 {
                let packet_id = if qos > 0 { 7 } else { 0 };
                let head = PublishHead {
                    qos,
                    is_retained: true,
                    packet_id,
                    alias: None,
                    protocol,
                };
                let mut bytes = Vec::new();
                publish_head(head, b"a/b", 300, &mut bytes);
                bytes.extend_from_slice(&[9; 300]);
                for cut in 0..bytes.len() {
                    assert_eq!(decode(&bytes[..cut], protocol), Decoded::Partial);
                }
                let packet = Packet::Publish(Publish {
                    topic: b"a/b",
                    qos,
                    is_retained: true,
                    packet_id,
                    payload: &[9; 300],
                });
                let decoded = Decoded::Packet(packet, bytes.len());
                assert_eq!(decode(&bytes, protocol), decoded);
            }
        }
    }

    #[test]
    fn an_aliased_publish_has_the_length_it_says() {
        let head = PublishHead {
            qos: 1,
            is_retained: false,
            packet_id: 9,
            alias: Some(3),
            protocol: 5,
        };
        let mut bytes = Vec::new();
        publish_head(head, b"", 2, &mut bytes);
        bytes.extend_from_slice(b"xy");
        assert_eq!(bytes, [0x32, 10, 0, 0, 0, 9, 3, 0x23, 0, 3, b'x', b'y']);
    }

    #[test]
    fn connack_properties_are_found_among_others() {
        let bytes = [
            0x20, 17, 0, 0, 14, 0x12, 0, 1, b'x', 0x21, 0, 20, 0x24, 1, 0x22, 0, 10, 0x2A, 1,
        ];
        let connack = Connack {
            code: 0,
            receive_maximum: 20,
            topic_alias_max: 10,
        };
        assert_eq!(
            decode(&bytes, 5),
            Decoded::Packet(Packet::Connack(connack), bytes.len())
        );
    }

    #[test]
    fn nonsense_is_malformed() {
        for bytes in [
            &[0x30, 0xFF, 0xFF, 0xFF, 0xFF][..],
            &[0x30, 1, 0],
            &[0x00],
            b"H",
            &[0x90, 2, 0, 1],
            &[0x20, 1, 0],
        ] {
            assert_eq!(decode(bytes, 4), Decoded::Malformed, "{bytes:?}");
        }
    }
}
