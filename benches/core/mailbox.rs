//! Mail between shards: the queue itself, and a publish that crosses it.

use crate::allocations::at_most;
use criterion::{Criterion, Throughput};
use ringmq::engine::mail::{Mail, Publish};
use ringmq::engine::message::{LocalMessage, Message, Qos};
use ringmq::shard::mailbox::{Letter, Mailboxes};
use std::hint::black_box;
use std::sync::Arc;

const BATCH: u64 = 64;

pub fn hops(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox");
    let mut boxes = Mailboxes::connect(2, BATCH as usize);
    let mut there = boxes.pop().expect("two shards");
    let mut here = boxes.pop().expect("two shards");
    let sender = here.outgoing[1].as_mut().expect("a mailbox to shard 1");
    let receiver = there.incoming[0].as_mut().expect("a mailbox from shard 0");
    let message = LocalMessage::new(Arc::new(Message::new(
        "plant/7/temperature",
        &[],
        &[b'x'; 64],
        Qos::AtMostOnce,
        false,
        None,
    )));
    let letter = || {
        Letter::Mail(Mail::Publish(Publish {
            message: message.share(),
            plain: true,
            groups: Vec::new(),
            hash: 0,
            passed: Default::default(),
            asked: Default::default(),
        }))
    };
    let mut hop = |count: u64| {
        for _ in 0..count {
            sender.post(letter()).expect("room");
        }
        while let Some(letter) = receiver.collect() {
            black_box(letter);
        }
    };
    group.throughput(Throughput::Elements(1));
    group.bench_function("one publish", |bencher| bencher.iter(|| hop(1)));
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("a batch of publishes", |bencher| {
        bencher.iter(|| hop(BATCH))
    });
    at_most("mail", 0.0, 10, || hop(BATCH));
    group.finish();
}
