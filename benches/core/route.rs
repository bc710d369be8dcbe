//! Matching topics against many subscriptions, and what a subscription weighs.

use crate::allocations::{at_most, bytes_held};
use crate::broker::{Broker, subscribe};
use crate::size;
use criterion::Criterion;
use ringmq::engine::codec::Version;
use ringmq::engine::codec::topic::{TopicFilter, TopicName};
use ringmq::engine::message::Qos;
use ringmq::engine::route::subscriber::Subscriber;
use ringmq::engine::route::trie::Trie;
use ringmq::engine::session::Session;
use ringmq::engine::slots::Slots;
use std::hint::black_box;

/// Topics that are matched in turn: more than a cache holds of a large trie.
const TOPICS: usize = 65_536;
const SITES: usize = 100;

/// Filter of the `n`th subscription: half exact, a quarter with `+`, a quarter with `#`.
fn filter(n: usize) -> String {
    let (site, line) = (n % SITES, n / SITES % 50);
    match n % 4 {
        0 | 2 => format!("plant/{site}/line/{line}/sensor/{n}"),
        1 => format!("plant/+/line/{line}/sensor/{n}"),
        _ => format!("plant/{site}/line/{line}/sensor/{n}/#"),
    }
}

fn topic(n: usize) -> String {
    let (site, line) = (n % SITES, n / SITES % 50);
    format!("plant/{site}/line/{line}/sensor/{n}")
}

fn trie(subscriptions: usize) -> Trie {
    let mut sessions = Slots::default();
    let session = sessions.insert(Session::new("s".into(), Version::V3_1_1));
    let mut trie = Trie::default();
    for n in 0..subscriptions {
        let node = trie.insert(TopicFilter::trusted(&filter(n)));
        let entry = trie.entry_mut(node).expect("just inserted");
        entry.local.put(Subscriber {
            session,
            subscription_id: 0,
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            checked: false,
            replaying: false,
            place: 0,
        });
    }
    trie
}

/// Matches one topic after the other among so many subscriptions.
pub fn operation(subscriptions: usize) -> impl FnMut() {
    let trie = trie(subscriptions);
    let topics: Vec<_> = (0..1_000)
        .map(|n| topic(n * 7_919 % subscriptions))
        .collect();
    let (mut next, mut found) = (0, Vec::new());
    move || {
        found.clear();
        trie.matches(TopicName::trusted(&topics[next]), &mut found);
        next = (next + 1) % topics.len();
    }
}

pub fn matches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    let few = trie(size(1_000, 100));
    let many = trie(size(1_000_000, 1_000));
    let mut found = Vec::new();
    for (name, trie, count) in [
        ("1K", &few, size(1_000, 100)),
        ("1M", &many, size(1_000_000, 1_000)),
    ] {
        // A step that is prime to the count, so that neighbours in time are none in memory.
        let topics: Vec<_> = (0..TOPICS.min(count))
            .map(|n| topic(n * 7_919 % count))
            .collect();
        let mut next = topics.iter().cycle();
        group.bench_function(format!("random topics, {name} subscriptions"), |bencher| {
            bencher.iter(|| {
                found.clear();
                let topic = next.next().expect("an endless cycle");
                trie.matches(TopicName::trusted(topic), &mut found);
                black_box(found.len())
            });
        });
        group.bench_function(format!("same topic, {name} subscriptions"), |bencher| {
            bencher.iter(|| {
                found.clear();
                trie.matches(TopicName::trusted(black_box(&topics[1])), &mut found);
                black_box(found.len())
            });
        });
        at_most(&format!("match, {name} subscriptions"), 0.0, 64, || {
            found.clear();
            trie.matches(TopicName::trusted(&topics[2]), &mut found);
            assert_eq!(found.len(), 1);
        });
    }
    group.bench_function("nobody subscribed, 1M subscriptions", |bencher| {
        bencher.iter(|| {
            found.clear();
            many.matches(
                TopicName::trusted(black_box("plant/7/line/3/motor/5")),
                &mut found,
            );
            black_box(found.len())
        });
    });
    let deep = "a/".repeat(63) + "a";
    let mut trie = Trie::default();
    for levels in 1..=63 {
        trie.insert(TopicFilter::trusted(&("a/".repeat(levels) + "#")));
    }
    group.bench_function("64 levels, 63 matches", |bencher| {
        bencher.iter(|| {
            found.clear();
            trie.matches(TopicName::trusted(black_box(&deep)), &mut found);
            black_box(found.len())
        });
    });
    group.finish();
}

/// Not a matter of time: subscriptions of whole sessions, with all that a shard keeps for them.
pub fn memory(_: &mut Criterion) {
    let (sessions, each) = (size(1_000, 10), 1_000);
    let mut broker = Broker::new();
    let clients: Vec<_> = (0..sessions)
        .map(|n| broker.connect(&format!("client-{n}")))
        .collect();
    let mut text_bytes = 0;
    let ((), held) = bytes_held(|| {
        for (number, client) in clients.iter().enumerate() {
            let filters: Vec<_> = (0..each).map(|n| filter(number * each + n)).collect();
            text_bytes += filters.iter().map(String::len).sum::<usize>();
            broker.say(*client, &subscribe(&filters, 0));
        }
    });
    let count = sessions * each;
    let beyond = (held - text_bytes as i64) / count as i64;
    println!("{count} subscriptions: {beyond} bytes each beyond their text");
    assert!(beyond <= 200, "a subscription weighs {beyond} bytes");
}
