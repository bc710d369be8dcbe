//! Remote brokers that do not take QoS 2 and do not say so: one that answers it as if it were QoS 1, and one that
//! closes. `tests/clients/bridge_peers.rs` has two that do.

use crate::bridge_remotes::stand_in;
use crate::bridges::{await_line, bridge};
use crate::support::{Broker, Client, Connect, eventually, unique};
use ringmq::engine::codec::frame::{Split, split};
use ringmq::engine::codec::publish::Publish;
use ringmq::engine::codec::{PacketType, Version};
use ringmq::engine::message::Qos;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// What came to a remote broker: topic, QoS and payload.
type Seen = Arc<Mutex<Vec<(String, u8, String)>>>;

/// A remote broker that answers a publish so, or closes.
fn remote(answer: fn(&Publish<'_>) -> Option<Vec<u8>>) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    let address = stand_in(move |mut stream| {
        let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stream.read(&mut part) {
            bytes.extend_from_slice(&part[..read]);
            while let Ok(Split::Whole(frame, used)) = split(&bytes, usize::MAX) {
                let said = match PacketType::from_first_byte(frame.first_byte) {
                    Some(PacketType::Connect) => vec![0x20, 2, 0, 0],
                    Some(PacketType::Pingreq) => vec![0xD0, 0],
                    Some(PacketType::Publish) => {
                        let publish =
                            Publish::decode(frame.first_byte, frame.body, Version::V3_1_1);
                        let publish = publish.expect("a publish");
                        let Some(said) = answer(&publish) else {
                            return;
                        };
                        shared.lock().expect("a lock").push((
                            publish.topic.to_owned(),
                            publish.qos.bits(),
                            String::from_utf8_lossy(publish.payload).into_owned(),
                        ));
                        said
                    }
                    _ => Vec::new(),
                };
                bytes.drain(..used);
                if stream.write_all(&said).is_err() {
                    return;
                }
            }
        }
    });
    (address, seen)
}

fn puback(publish: &Publish<'_>) -> Vec<u8> {
    let [high, low] = publish.packet_id.to_be_bytes();
    match publish.qos {
        Qos::AtMostOnce => Vec::new(),
        _ => vec![0x40, 2, high, low],
    }
}

fn bridged(shards: usize, address: SocketAddr) -> (Broker, Client) {
    let rules = "protocol = \"3.1.1\"\ntopics = [{ filter = \"#\" }]";
    let broker = Broker::with_config(shards, &bridge(address, rules));
    await_line(&broker, "bridge b is up");
    let client = Connect::v5(&unique("c")).open(&broker);
    (broker, client)
}

fn publish_and_see(client: &mut Client, seen: &Seen, texts: std::ops::Range<u32>) {
    for text in texts.clone() {
        client.publish("t", 2, text.to_string());
    }
    eventually("all have come", || {
        let seen = seen.lock().expect("a lock");
        let has = |text: u32| seen.iter().any(|(_, _, seen)| *seen == text.to_string());
        texts.clone().all(has).then_some(())
    });
}

fn lines_with(broker: &Broker, text: &str) -> usize {
    broker
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

fn who_answers_qos_2_as_qos_1_gets_qos_1(shards: usize) {
    let (address, seen) = remote(|publish| Some(puback(publish)));
    let (broker, mut client) = bridged(shards, address);
    publish_and_see(&mut client, &seen, 0..50);
    await_line(
        &broker,
        "answers messages of QoS 2 as if they were of QoS 1",
    );
    // Settled: a second line would send again what is not, and one of QoS 2 of them is the last.
    publish_and_see(&mut client, &seen, 50..100);
    let seen = seen.lock().expect("a lock").clone();
    assert_eq!(seen.len(), 100, "each once");
    assert_eq!(seen.last().map(|(_, qos, _)| *qos), Some(1));
    assert_eq!(lines_with(&broker, "QoS 1 at most"), 1, "told once");
    assert_eq!(lines_with(&broker, "bridge b is down"), 0);
    eventually("nothing is under way", || {
        (broker.counters().get("inflight_messages") == 0).then_some(())
    });
    broker.await_counter("bridge_qos_lowered", 1);
    broker.stop();
}

fn who_closes_on_qos_2_gets_qos_1(shards: usize) {
    let (address, seen) =
        remote(|publish| (publish.qos < Qos::ExactlyOnce).then(|| puback(publish)));
    let (broker, mut client) = bridged(shards, address);
    publish_and_see(&mut client, &seen, 0..20);
    let line = await_line(&broker, "has ended 5 lines in a row upon messages of QoS 2");
    assert!(line.contains("bridge.topics.qos_max = 1"), "{line}");
    assert_eq!(lines_with(&broker, "the next attempt comes in"), 5);
    publish_and_see(&mut client, &seen, 20..40);
    assert_eq!(lines_with(&broker, "QoS 1 at most"), 1, "told once");
    assert_eq!(lines_with(&broker, "the next attempt comes in"), 5);
    broker.await_counter("bridge_qos_lowered", 1);
    broker.stop();
}

crate::on_shards!([1, 4] who_answers_qos_2_as_qos_1_gets_qos_1, who_closes_on_qos_2_gets_qos_1);
