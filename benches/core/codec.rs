//! Splitting, decoding and encoding packets.

use crate::allocations::at_most;
use criterion::{Criterion, Throughput};
use ringmq::engine::codec::frame::{Split, split};
use ringmq::engine::codec::topic::{TopicFilter, TopicLimits, TopicName};
use ringmq::engine::codec::{Packet, Version};
use std::hint::black_box;

const LIMITS: TopicLimits = TopicLimits {
    bytes_max: 65_535,
    levels_max: 128,
};

/// PUBLISH at QoS 1 of 64 bytes, in 5.0 with two properties.
fn publish(version: Version) -> Vec<u8> {
    let mut body = b"\x00\x19plant/7/line/3/sensor/421\x00\x07".to_vec();
    if version.is_v5() {
        body.extend_from_slice(b"\x13\x02\x00\x00\x00\x3C\x26\x00\x04unit\x00\x05deg-C");
        body[29] = (body.len() - 30) as u8;
    }
    body.extend_from_slice(&[b'x'; 64]);
    [&[0x32, body.len() as u8][..], &body].concat()
}

fn decode_all(mut stream: &[u8], version: Version) -> usize {
    let mut count = 0;
    while let Ok(Split::Whole(frame, used)) = split(stream, 1 << 20) {
        black_box(Packet::decode(frame, version).expect("a good packet"));
        stream = &stream[used..];
        count += 1;
    }
    count
}

/// Splits and decodes 64 packets.
pub fn operation() -> impl FnMut() {
    let stream = publish(Version::V5).repeat(64);
    move || {
        decode_all(black_box(&stream), Version::V5);
    }
}

pub fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    for (name, version) in [("3.1.1", Version::V3_1_1), ("5.0", Version::V5)] {
        let stream = publish(version).repeat(64);
        assert_eq!(decode_all(&stream, version), 64);
        group.throughput(Throughput::Elements(64));
        group.bench_function(format!("decode PUBLISH {name}"), |bencher| {
            bencher.iter(|| decode_all(black_box(&stream), version));
        });
        at_most(&format!("decode PUBLISH {name}"), 0.0, 10, || {
            decode_all(&stream, version);
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("check a topic name", |bencher| {
        bencher.iter(|| TopicName::new(black_box("plant/7/line/3/sensor/421"), LIMITS).is_ok());
    });
    group.bench_function("check a topic filter", |bencher| {
        bencher.iter(|| TopicFilter::new(black_box("plant/+/line/3/sensor/#"), LIMITS).is_ok());
    });
    group.finish();
}

pub fn encode(criterion: &mut Criterion) {
    use ringmq::engine::codec::ack::Ack;
    use ringmq::engine::codec::{PacketType, Reason};
    let mut group = criterion.benchmark_group("codec");
    let mut out = Vec::with_capacity(64);
    let ack = Ack {
        kind: PacketType::Puback,
        packet_id: 7,
        reason: Reason::Success,
    };
    group.bench_function("encode PUBACK 5.0", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&ack).encode(Version::V5, &mut out);
        });
    });
    at_most("encode PUBACK", 0.0, 10, || {
        out.clear();
        ack.encode(Version::V5, &mut out);
    });
    group.finish();
}
