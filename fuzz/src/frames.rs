//! Where a stream is cut must not matter: neither for the frames nor for what a shard does with them.
//!
//! Input: one byte of options, one byte that chooses the cuts, then the stream. Without the option
//! `RAW` the stream follows a valid CONNECT.

use ringmq::engine::codec::DecodeError;
use ringmq::engine::codec::frame::{Split, split};
use ringmq::engine::shard::{Command, ConnectionCounts, Settings, ShardCore};
use ringmq::engine::time::Timestamp;
use std::sync::Arc;

/// Options: the stream begins with whatever the input says.
const RAW: u8 = 0x04;
/// Options: packets may be small only, so that the limit is met.
const SMALL: u8 = 0x08;

const CONNECTS: [&[u8]; 4] = [
    b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01c",
    b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c",
    b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c",
    b"\x10\x13\x00\x04MQTT\x05\x00\x00\x3C\x05\x11\xFF\xFF\xFF\xFF\x00\x01c",
];

/// One stream, whole and in pieces.
pub fn frames(input: &[u8]) {
    let [options, cuts, stream @ ..] = input else {
        return;
    };
    let packet_bytes_max = if options & SMALL == 0 { 1 << 20 } else { 64 };
    let pieces = cut(stream, *cuts);
    assert_eq!(
        split_all(&[stream], packet_bytes_max),
        split_all(&pieces, packet_bytes_max),
        "the frames depend on the cuts"
    );
    let mut sent = Vec::new();
    if options & RAW == 0 {
        sent.extend_from_slice(CONNECTS[usize::from(options & 0x03)]);
    }
    sent.extend_from_slice(stream);
    let mut whole = Heard::of(&[&sent], packet_bytes_max);
    let mut in_pieces = Heard::of(&cut(&sent, *cuts), packet_bytes_max);
    if options & RAW != 0 {
        // What is no CONNECT is refused at its first byte, or for its length if that is there too.
        whole.statistics.clear();
        in_pieces.statistics.clear();
    }
    assert_eq!(whole, in_pieces, "the shard's answer depends on the cuts");
}

/// Cuts a stream into pieces whose lengths follow from `pattern`.
fn cut(stream: &[u8], pattern: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = stream;
    let mut state = u32::from(pattern);
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let longest = 1 + usize::from(pattern & 0x3F);
        let bytes = (1 + (state >> 16) as usize % longest).min(rest.len());
        let (piece, left) = rest.split_at(bytes);
        pieces.push(piece);
        rest = left;
    }
    pieces
}

/// Frames of a stream, what is left over, and the error that ended it.
#[derive(Debug, PartialEq, Eq)]
struct Frames {
    whole: Vec<(u8, Vec<u8>)>,
    left_over: Vec<u8>,
    error: Option<DecodeError>,
}

fn split_all(pieces: &[&[u8]], packet_bytes_max: usize) -> Frames {
    let mut frames = Frames {
        whole: Vec::new(),
        left_over: Vec::new(),
        error: None,
    };
    let mut announced = 0;
    for piece in pieces {
        frames.left_over.extend_from_slice(piece);
        loop {
            match split(&frames.left_over, packet_bytes_max) {
                Ok(Split::Whole(frame, bytes)) => {
                    assert!(bytes <= packet_bytes_max && frame.body.len() < bytes);
                    assert!(announced == 0 || announced == bytes, "a length has changed");
                    let frame = (frame.first_byte, frame.body.to_vec());
                    announced = 0;
                    frames.whole.push(frame);
                    frames.left_over.drain(..bytes);
                }
                Ok(Split::Partial(total)) => {
                    assert!(total == 0 || total > frames.left_over.len());
                    assert!(announced == 0 || announced == total, "a length has changed");
                    announced = total;
                    break;
                }
                Err(error) => {
                    // What comes after a broken header is nobody's packet.
                    frames.left_over.clear();
                    frames.error = Some(error);
                    return frames;
                }
            }
        }
    }
    frames
}

/// Everything that a shard lets be seen of one connection's stream.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    bytes: Vec<u8>,
    is_closed: bool,
    statistics: Vec<(&'static str, u64)>,
}

impl Heard {
    fn of(pieces: &[&[u8]], packet_bytes_max: usize) -> Self {
        let mut settings = Settings::default();
        settings.limits.max_packet_bytes = packet_bytes_max;
        let count = Arc::new(ConnectionCounts::new(1));
        let mut core = ShardCore::new(0, 1, settings, 7, count);
        let now = Timestamp::from_ms(1000);
        let Some(key) = core.accept(now, 0) else {
            panic!("an empty shard takes a connection");
        };
        let mut heard = Heard {
            bytes: Vec::new(),
            is_closed: false,
            statistics: Vec::new(),
        };
        for piece in pieces {
            core.receive(now, key, piece);
        }
        let stored = core.take_persist().map(|persist| persist.ticket).max();
        core.stored(now, stored.unwrap_or(0));
        core.begin_drain();
        core.end_drain(now);
        if let Some(batch) = core.take_outgoing(key) {
            heard.bytes = batch.slices().flatten().copied().collect();
        }
        let mut commands = Vec::new();
        core.take_commands(&mut commands);
        for command in commands {
            if let Command::Close { rest, .. } = command {
                heard.bytes.extend(rest.slices().flatten());
                heard.is_closed = true;
            }
        }
        heard.statistics = core.statistics();
        heard
    }
}
