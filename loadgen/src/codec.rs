//! As much of MQTT 3.1.1 and 5.0 as a load generator needs.

/// A packet from the broker.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNACK with its code.
    Connack(u8),
    /// SUBACK with the first filter's code.
    Suback(u8),
    /// PUBLISH.
    Publish {
        qos: u8,
        packet_id: u16,
        payload: &'a [u8],
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP: type nibble and identifier.
    Ack { kind: u8, packet_id: u16 },
    /// DISCONNECT with its reason.
    Disconnect(u8),
    /// Anything else.
    Other,
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
        2 => Packet::Connack(*body.get(1)?),
        3 => {
            let qos = first >> 1 & 3;
            let mut at = 2 + usize::from(u16_at(body, 0)?);
            let mut packet_id = 0;
            if qos > 0 {
                packet_id = u16_at(body, at)?;
                at += 2;
            }
            if protocol == 5 {
                let (length, used) = variable(body.get(at..)?)?.ok()?;
                at += used + length;
            }
            Packet::Publish {
                qos,
                packet_id,
                payload: body.get(at..)?,
            }
        }
        kind @ 4..=7 => Packet::Ack {
            kind,
            packet_id: u16_at(body, 0)?,
        },
        9 => Packet::Suback(*body.last()?),
        14 => Packet::Disconnect(body.first().copied().unwrap_or(0)),
        _ => Packet::Other,
    })
}

fn packet(first: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    let mut length = body.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(body);
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

/// CONNECT with a clean session and no keep alive.
pub fn connect(client_id: &str, protocol: u8, out: &mut Vec<u8>) {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', protocol, 2, 0, 0];
    if protocol == 5 {
        body.push(0);
    }
    text(&mut body, client_id);
    packet(0x10, &body, out);
}

/// SUBSCRIBE to one filter.
pub fn subscribe(filter: &str, qos: u8, protocol: u8, out: &mut Vec<u8>) {
    let mut body = vec![0, 1];
    if protocol == 5 {
        body.push(0);
    }
    text(&mut body, filter);
    body.push(qos);
    packet(0x82, &body, out);
}

/// PUBLISH; `packet_id` counts above QoS 0.
pub fn publish(
    topic: &str,
    qos: u8,
    packet_id: u16,
    payload: &[u8],
    protocol: u8,
    out: &mut Vec<u8>,
) {
    let mut body = Vec::with_capacity(payload.len() + topic.len() + 8);
    text(&mut body, topic);
    if qos > 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    if protocol == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body, out);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP by its type nibble.
pub fn ack(kind: u8, packet_id: u16, out: &mut Vec<u8>) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[kind << 4 | if kind == 6 { 2 } else { 0 }, 2, high, low]);
}

/// DISCONNECT.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_read_back_at_every_cut() {
        for protocol in [4, 5] {
            for qos in 0..=2 {
                let mut bytes = Vec::new();
                publish("a/b", qos, 7, &[9; 300], protocol, &mut bytes);
                for cut in 0..bytes.len() {
                    assert_eq!(decode(&bytes[..cut], protocol), Decoded::Partial);
                }
                let packet_id = if qos > 0 { 7 } else { 0 };
                let packet = Packet::Publish {
                    qos,
                    packet_id,
                    payload: &[9; 300],
                };
                assert_eq!(
                    decode(&bytes, protocol),
                    Decoded::Packet(packet, bytes.len())
                );
            }
        }
    }

    #[test]
    fn nonsense_is_malformed() {
        assert_eq!(
            decode(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], 4),
            Decoded::Malformed
        );
        assert_eq!(decode(&[0x30, 1, 0], 4), Decoded::Malformed);
        assert_eq!(
            decode(&[0x20, 2, 0, 5], 4),
            Decoded::Packet(Packet::Connack(5), 4)
        );
    }
}
