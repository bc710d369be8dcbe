//! Records of a shard as bytes: messages of 64 bytes on their way to sessions.

use crate::allocations::at_most;
use crate::size;
use criterion::{Criterion, Throughput};
use ringmq::engine::keys::SessionNumber;
use ringmq::engine::message::{LocalMessage, Message, Qos};
use ringmq::engine::record::{Persist, Record};
use ringmq::engine::session::{Delivery, SubscriptionIds};
use ringmq::storage::record::decoder::Decoder;
use ringmq::storage::record::encoder::Encoder;
use std::num::NonZeroU64;
use std::sync::Arc;

/// Publishes of one turn.
pub const AT_ONCE: usize = 64;
/// More than may be named, so that each is written again when its turn comes.
const MESSAGES: usize = 2_048;

fn queued(message: &LocalMessage, session: usize, entry: usize) -> Record {
    let number = (1 + session as u64) << 16;
    Record::Queued {
        session: SessionNumber(NonZeroU64::new(number).expect("not 0")),
        delivery: Delivery {
            message: message.clone(),
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_ids: SubscriptionIds::None,
            group: None,
            entry: entry as u64,
            queued_at_ds: 0,
        },
        origin: None,
    }
}

fn turns(sessions: usize) -> Vec<Vec<Persist>> {
    let mut ticket = 0;
    let mut persist = |record| {
        ticket += 1;
        Persist { ticket, record }
    };
    let messages = (0..MESSAGES).map(|entry| {
        let topic = format!("plant/{entry:07}/temperature");
        let qos = Qos::AtLeastOnce;
        let message = Message::new(&topic, b"", &[b'x'; 64], qos, false, None);
        let message = LocalMessage::new(Arc::new(message));
        (0..sessions)
            .map(|session| persist(queued(&message, session, 1 + entry)))
            .collect::<Vec<_>>()
    });
    let messages: Vec<_> = messages.collect();
    messages.chunks(AT_ONCE).map(<[_]>::concat).collect()
}

/// One turn's publishes to so many sessions each, into frames that are sealed.
pub fn operation(sessions: usize) -> impl FnMut() {
    let turns = turns(sessions);
    let mut encoder = Encoder::new(0, 0);
    let (mut next, mut buffers) = (0, Vec::new());
    move || {
        for persist in &turns[next % turns.len()] {
            encoder.put(persist);
        }
        next += 1;
        encoder.flush();
        buffers.extend(encoder.frames().map(|frame| frame.into_buffer()));
        assert!(!buffers.is_empty());
        for buffer in buffers.drain(..) {
            encoder.reuse(buffer);
        }
    }
}

/// The same turns are read.
fn reading(sessions: usize) -> impl FnMut() {
    let mut encoder = Encoder::new(0, 0);
    for persist in turns(sessions).iter().flatten() {
        encoder.put(persist);
    }
    encoder.flush();
    let frames: Vec<_> = encoder.frames().collect();
    move || {
        let (mut decoder, mut told) = (Decoder::new(0), 0);
        for frame in &frames {
            let read = decoder.read(frame.sealed_records(), |_| told += 1);
            read.expect("what was written");
        }
        assert_eq!(told, MESSAGES * sessions);
    }
}

pub fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("records");
    for sessions in [1, size(100, 10)] {
        let records = AT_ONCE * sessions;
        group.throughput(Throughput::Elements(records as u64));
        let mut written = operation(sessions);
        group.bench_function(format!("written, to {sessions}"), |bencher| {
            bencher.iter(&mut written);
        });
        let name = format!("records of {AT_ONCE} messages to {sessions}");
        at_most(&name, 0.0, 2 * (MESSAGES / AT_ONCE) as u64, written);
        group.throughput(Throughput::Elements((MESSAGES * sessions) as u64));
        group.bench_function(format!("read, to {sessions}"), |bencher| {
            bencher.iter(reading(sessions));
        });
    }
    group.finish();
}
