//! Every packet type: decoding never panics, what is accepted is valid for an independent reader, and
//! what an encoder wrote is read back as it was.
//!
//! Input: one byte of mode, then either a first byte and a body to decode, or the fields of a packet
//! to encode.

mod received;
mod written;

use crate::{decode, wire};
use ringmq::engine::codec::Version;

/// MQTT 3.1 and 3.1.1.
pub fn packets_v3(input: &[u8]) {
    let version = match input.first() {
        Some(mode) if mode & 0x02 != 0 => Version::V3_1,
        _ => Version::V3_1_1,
    };
    packets(input, version);
}

/// MQTT 5.0.
pub fn packets_v5(input: &[u8]) {
    packets(input, Version::V5);
}

fn packets(input: &[u8], version: Version) {
    let [mode, rest @ ..] = input else { return };
    if mode & 0x01 != 0 {
        // Too little input for the fields of a packet is no packet.
        let _ = written::check(rest, version);
    } else if let [first_byte, body @ ..] = rest {
        received::check(*first_byte, body, version);
    }
}

fn for_client(version: Version) -> wire::Version {
    match version {
        Version::V3_1 => wire::Version::V3,
        Version::V3_1_1 => wire::Version::V4,
        Version::V5 => wire::Version::V5,
    }
}

/// Reads the one packet that `bytes` are, as a client does.
fn read(bytes: &[u8], version: Version) -> decode::Packet {
    let Some((header, length)) = decode::whole_packet(bytes) else {
        panic!("not a whole packet: {bytes:02x?}");
    };
    assert_eq!(header + length, bytes.len(), "more than one packet");
    decode::packet(bytes[0], &bytes[header..], for_client(version))
}
