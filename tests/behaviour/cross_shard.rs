//! Clients on different shards: subscriptions that come and go under traffic, sessions that move with
//! their client from one accepting shard to another, retained values that are never stale.
//!
//! The kernel picks the accepting shard by the client's port, so a handful of connections is on every
//! shard; that connections were handed over is checked by the broker's own count.

use crate::on_shards;
use crate::support::{
    Broker, Client, Connect, Packet, Publish, Version, eventually, shared, unique,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const PUBLISHERS: usize = 4;
const SUBSCRIBERS: usize = 6;
const ROUNDS: usize = 8;
/// Messages each subscriber takes from each publisher before it unsubscribes.
const MESSAGES_PER_ROUND: u64 = 20;

/// Publishes ascending numbers at QoS 1, one after the other, until told to stop. `begun` is the last
/// number whose publishing has begun.
fn publish_numbers(broker: &Broker, topic: &str, begun: &AtomicU64, stop: &AtomicBool) {
    let mut client = Connect::v5(&unique("publisher")).open(broker);
    while !stop.load(Ordering::SeqCst) {
        let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
        client.publish(topic, 1, number.to_string());
    }
}

/// Subscribes, checks that every number published after the SUBACK comes, in order and once, and that
/// none comes after the UNSUBACK.
fn subscribe_and_count(broker: &Broker, base: &str, begun: &[AtomicU64]) {
    let mut client = Connect::v5(&unique("subscriber")).open(broker);
    let filter = format!("{base}/+");
    for round in 0..ROUNDS {
        client.subscribe(&filter, (round % 3) as u8);
        let known: Vec<u64> = begun.iter().map(|n| n.load(Ordering::SeqCst)).collect();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        let is_enough = |last: &BTreeMap<String, u64>| {
            (0..PUBLISHERS).all(|publisher| {
                let seen = last
                    .get(&format!("{base}/{publisher}"))
                    .copied()
                    .unwrap_or(0);
                seen >= known[publisher] + MESSAGES_PER_ROUND
            })
        };
        while !is_enough(&last) {
            note(&client.accept(), &mut last, base, &known);
        }
        let id = client.fresh_id();
        let packet = client.unsubscribe_bytes(id, &[&filter]);
        client.send(&packet);
        loop {
            match client.recv() {
                Packet::Publish(publish) => {
                    client.complete(&publish);
                    note(&publish, &mut last, base, &known);
                }
                Packet::Unsuback { .. } => break,
                _ => {}
            }
        }
        // What waited for this client may still come; nothing that was published later.
        let ended: Vec<u64> = begun.iter().map(|n| n.load(Ordering::SeqCst)).collect();
        for publish in client.drain() {
            let (publisher, number) = numbered(&publish, base);
            assert!(number <= ended[publisher], "{number} came after UNSUBACK");
            client.complete(&publish);
        }
    }
    client.disconnect();
}

/// Whose it is, and its number.
fn numbered(publish: &Publish, base: &str) -> (usize, u64) {
    let publisher = publish.topic_str()[base.len() + 1..].parse().unwrap();
    (publisher, publish.payload_str().parse().unwrap())
}

/// Numbers ascend; a gap may only be of numbers whose publishing had begun before the SUBACK was seen:
/// of those some may come early, by way of a subscription that was just ending on the same shard.
fn note(publish: &Publish, last: &mut BTreeMap<String, u64>, base: &str, known: &[u64]) {
    let topic = publish.topic_str().to_owned();
    let (publisher, number) = numbered(publish, base);
    let before = last.insert(topic.clone(), number).unwrap_or(0);
    assert!(number > before, "{topic}: {number} came after {before}");
    let first_due = before.max(known[publisher]) + 1;
    assert!(
        number <= first_due,
        "{topic}: {number} came and {first_due}, published after SUBACK, did not"
    );
}

fn nothing_is_missed_after_suback_and_nothing_comes_after_unsuback(shards: usize) {
    // A subscriber that does not get its CPU for seconds must not lose what waits for it.
    let broker = shared(shards, "[limits]\nqueue_messages_max = 10000000\n");
    let base = unique("cross");
    let begun: Vec<AtomicU64> = (0..PUBLISHERS).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    let (broker, base, begun, stop) = (&*broker, &*base, &*begun, &stop);
    std::thread::scope(|scope| {
        for (publisher, begun) in begun.iter().enumerate() {
            let topic = format!("{base}/{publisher}");
            scope.spawn(move || publish_numbers(broker, &topic, begun, stop));
        }
        let subscribers: Vec<_> = (0..SUBSCRIBERS)
            .map(|_| scope.spawn(move || subscribe_and_count(broker, base, begun)))
            .collect();
        let results: Vec<_> = subscribers
            .into_iter()
            .map(|thread| thread.join())
            .collect();
        stop.store(true, Ordering::SeqCst);
        for result in results {
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// Takes over, resumes and takes over again, each time from a port of its own: whichever shard accepts,
/// there is one session.
fn a_session_is_found_from_every_accepting_shard(shards: usize) {
    let broker = Broker::start(shards);
    let id = unique("wanderer");
    let topic = unique("wander");
    let mut publisher = Connect::v5(&unique("p")).open(&broker);
    let mut present: Option<Client> = None;
    for round in 0..24 {
        let mut client = Connect::v5(&id).resume().expiry(300).open(&broker);
        assert_eq!(client.session_present, round > 0, "round {round}");
        if round == 0 {
            client.subscribe(&topic, 1);
        }
        if let Some(mut older) = present.take() {
            older.expect_error(&[0x8E]);
        }
        if round % 3 == 1 {
            client.cut();
            broker.await_counter("connections", 1);
            publisher.publish(&topic, 1, format!("absent {round}"));
            client = Connect::v5(&id).resume().expiry(300).open(&broker);
            client.expect(&topic, format!("absent {round}"));
        }
        publisher.publish(&topic, 1, format!("present {round}"));
        client.expect(&topic, format!("present {round}"));
        present = Some(client);
    }
    let counters = broker.counters();
    assert_eq!(counters.get("sessions"), 2);
    if shards > 1 {
        assert!(
            counters.get("connections_handed_over") > 0,
            "all on one shard by chance"
        );
    }
}

fn retained_messages_are_found_from_every_shard(shards: usize) {
    let broker = shared(shards, "");
    let base = unique("retained");
    for number in 0..60 {
        let mut publisher = Connect::v4(&unique("p")).open(&broker);
        publisher.retain(&format!("{base}/{number}"), 1, "old");
        publisher.retain(&format!("{base}/{number}"), 1, format!("new {number}"));
        publisher.disconnect();
    }
    for _ in 0..8 {
        let mut subscriber = Connect::v4(&unique("s")).open(&broker);
        subscriber.subscribe(&format!("{base}/+"), 1);
        let mut seen = BTreeMap::new();
        while seen.len() < 60 {
            let publish = subscriber.accept();
            assert!(publish.retain);
            let before = seen.insert(
                publish.topic_str().to_owned(),
                publish.payload_str().to_owned(),
            );
            assert_eq!(before, None, "twice");
        }
        for (topic, value) in seen {
            assert_eq!(value, format!("new {}", &topic[base.len() + 1..]));
        }
        subscriber.expect_nothing();
    }
}

/// Subscribers come while a retained value changes: values only move forward, and the last one that
/// each of them sees is the last one published.
fn a_retained_value_is_never_stale(shards: usize) {
    let broker = shared(shards, "");
    let topic = unique("fresh");
    let last = 400;
    std::thread::scope(|scope| {
        let (broker, topic) = (&*broker, &*topic);
        scope.spawn(move || {
            let mut publisher = Connect::v5(&unique("p")).open(broker);
            for number in 1..=last {
                publisher.retain(topic, 1, number.to_string());
            }
        });
        for reader in 0..8 {
            scope.spawn(move || {
                let mut client = Connect::v5(&unique("s")).open(broker);
                // The early ones see most of it live, the late ones little.
                let filter = if reader % 2 == 0 {
                    topic.to_owned()
                } else {
                    format!("{topic}/#")
                };
                client.subscribe(&filter, 1);
                let mut seen = 0;
                while seen < last {
                    let number: u64 = client.accept().payload_str().parse().unwrap();
                    assert!(number > seen, "{number} came after {seen}");
                    seen = number;
                }
                client.expect_nothing();
            });
        }
    });
}

/// A share group with members on all shards gets each message once, also while members leave.
fn a_share_group_gets_each_message_once(shards: usize) {
    let broker = shared(shards, "");
    let topic = unique("share");
    let filter = format!("$share/group/{topic}");
    let mut members: Vec<_> = (0..8)
        .map(|_| {
            let mut member = Connect::v5(&unique("m")).open(&broker);
            member.subscribe(&filter, 1);
            member
        })
        .collect();
    let mut publishers: Vec<_> = (0..4)
        .map(|_| Connect::new(Version::V5, &unique("p")).open(&broker))
        .collect();
    for number in 0..200 {
        publishers[number % 4].publish(&topic, 1, number.to_string());
    }
    let mut seen = Vec::new();
    let mut busy = 0;
    for member in &mut members {
        let got = member.drain();
        busy += usize::from(!got.is_empty());
        seen.extend(
            got.iter()
                .map(|publish| publish.payload_str().parse::<u64>().unwrap()),
        );
    }
    eventually("all shared messages", || {
        for member in &mut members {
            let got = member.drain();
            seen.extend(
                got.iter()
                    .map(|publish| publish.payload_str().parse::<u64>().unwrap()),
            );
        }
        (seen.len() >= 200).then_some(())
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    assert_eq!(busy, 8, "round robin leaves nobody out");
}

on_shards!([1, 2, 4]
    nothing_is_missed_after_suback_and_nothing_comes_after_unsuback,
    a_session_is_found_from_every_accepting_shard,
    retained_messages_are_found_from_every_shard,
    a_retained_value_is_never_stale,
    a_share_group_gets_each_message_once,
);
