//! Frames of a WebSocket server around batches of MQTT packets: one packet each.
//!
//! Frames of a server are not masked (RFC 6455, 5.1), so a packet only gets a few bytes in front.

use crate::engine::outbox::outgoing::Outgoing;

/// A binary message in one frame.
const FINAL_BINARY: u8 = 0x82;
/// Bytes of the longest fixed header of a packet.
const HEADER_BYTES_MAX: usize = 5;

/// Appends each packet of `batch`, which holds whole ones, as a frame.
pub(super) fn write(batch: &Outgoing, into: &mut Vec<u8>) {
    let (mut header, mut header_bytes) = ([0; HEADER_BYTES_MAX], 0);
    let mut left = 0;
    into.reserve(batch.len());
    for mut slice in batch.slices() {
        loop {
            let (now, rest) = slice.split_at(left.min(slice.len()));
            into.extend_from_slice(now);
            left -= now.len();
            slice = rest;
            if header_bytes == 0
                && let Some((bytes, body_bytes)) = whole_header(slice)
            {
                left = bytes + body_bytes;
                begin(left, into);
                continue;
            }
            let Some((byte, rest)) = slice.split_first() else {
                break;
            };
            slice = rest;
            if let Some(place) = header.get_mut(header_bytes) {
                *place = *byte;
                header_bytes += 1;
            }
            let known = header.get(..header_bytes).unwrap_or_default();
            if let Some(body_bytes) = body_bytes(known) {
                begin(header_bytes + body_bytes, into);
                into.extend_from_slice(known);
                (header_bytes, left) = (0, body_bytes);
            }
        }
    }
    debug_assert_eq!((header_bytes, left), (0, 0), "half a packet");
}

/// Length of the fixed header at the front, and of what follows it.
fn whole_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut lengths = 2..=HEADER_BYTES_MAX;
    lengths.find_map(|length| Some((length, body_bytes(bytes.get(..length)?)?)))
}

/// What follows a fixed header; `None` if it is not whole.
fn body_bytes(header: &[u8]) -> Option<usize> {
    let digits = header.get(1..)?;
    let last = digits.last()?;
    if last & 0x80 != 0 && header.len() < HEADER_BYTES_MAX {
        return None;
    }
    let digits = digits.iter().rev();
    Some(digits.fold(0, |sum, digit| sum << 7 | usize::from(digit & 0x7F)))
}

/// The beginning of a frame with so many bytes (RFC 6455, 5.2).
fn begin(bytes: usize, into: &mut Vec<u8>) {
    into.push(FINAL_BINARY);
    if bytes < 126 {
        into.push(bytes as u8);
    } else if let Ok(bytes) = u16::try_from(bytes) {
        into.push(126);
        into.extend_from_slice(&bytes.to_be_bytes());
    } else {
        into.push(127);
        into.extend_from_slice(&(bytes as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{LocalMessage, Message, Qos};
    use crate::engine::outbox::outgoing::SharedPayload;
    use std::sync::Arc;

    fn shared(at: usize, payload: &[u8]) -> SharedPayload {
        let message = Message::new("t", b"", payload, Qos::AtMostOnce, false, None);
        SharedPayload {
            at,
            message: LocalMessage::new(Arc::new(message)),
        }
    }

    /// The messages of frames, taken apart by hand.
    fn messages(mut frames: &[u8]) -> Vec<&[u8]> {
        let mut messages = Vec::new();
        while let Some((&first, rest)) = frames.split_first() {
            assert_eq!(first, FINAL_BINARY);
            let (bytes, rest) = match rest[0] {
                126 => (
                    usize::from(u16::from_be_bytes([rest[1], rest[2]])),
                    &rest[3..],
                ),
                127 => (
                    u64::from_be_bytes(rest[1..9].try_into().unwrap()) as usize,
                    &rest[9..],
                ),
                bytes => (usize::from(bytes), &rest[1..]),
            };
            let (message, rest) = rest.split_at(bytes);
            messages.push(message);
            frames = rest;
        }
        messages
    }

    #[test]
    fn each_packet_is_a_frame_whatever_its_length_and_wherever_its_bytes_stand() {
        let ping = [0xD0, 0];
        let packet =
            |body_bytes: usize, digits: &[u8]| [&[0x30], digits, &vec![7; body_bytes][..]].concat();
        let small = packet(100, &[100]);
        let medium = packet(300, &[0xAC, 0x02]);
        let large = packet(70_000, &[0xF0, 0xA2, 0x04]);
        let packets = [
            &ping[..],
            &small,
            &ping,
            &medium,
            &large,
            &packet(0, &[0x80, 0x80, 0x80, 0x00]),
            &ping,
        ];
        let all = packets.concat();
        // Each place at which a payload may stand apart from what is copied; headers straddle it too.
        for at in (0..420).chain([all.len() - 1, all.len()]) {
            let rest = all.len().min(at + 5_000);
            let mut batch = Outgoing::from([&all[..at], &all[rest..]].concat());
            batch.last.shared = vec![shared(at, &all[at..rest])];
            let mut frames = Vec::new();
            write(&batch, &mut frames);
            assert_eq!(messages(&frames), packets, "at {at}");
        }
    }
}
