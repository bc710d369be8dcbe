//! Short of memory: each stage is reached, does what it promises, and is left again by itself.

use crate::support::{Broker, Client, Connect, Packet, Publish, Version, eventually, unique};

const CONFIG: &str = "[limits]
memory_max_bytes = 209715200
queue_messages_max = 1000000
queue_bytes_max = 1073741824
";

fn stage(broker: &Broker) -> u64 {
    broker.counters().get("memory_stage")
}

/// Publishes to a session that is away until the broker is at this stage, or has gone beyond it and refuses who
/// comes: one message of each of many clients, which is taken at every stage.
fn grow(broker: &Broker, topic: &str, bytes: usize, until: u64) -> Vec<Client> {
    let payload = vec![b'x'; bytes];
    let mut publishers = Vec::new();
    while stage(broker) < until {
        assert!(publishers.len() < 10_000, "stage {until} is never reached");
        let (mut one, answer) = Connect::v5(&unique("one")).attempt(broker);
        if !matches!(answer, Some(Packet::Connack { code: 0, .. })) {
            break;
        }
        one.send_publish(&Publish::new(topic, 1, &payload));
        publishers.push(one);
    }
    publishers
}

/// A client that sends most of a packet of a megabyte, and waits.
fn say_half(client: &mut Client) {
    let mut packet = vec![0x30, 0xC0, 0x84, 0x3D, 0, 1, b't', 0];
    packet.resize(900_000, b'x');
    client.send(&packet);
}

#[test]
fn memory_is_defended_in_stages_and_comes_back() {
    let broker = Broker::with_config(1, CONFIG);
    let topic = unique("grow");
    let away = Connect::v5(&unique("away")).persistent();
    let mut sleeper = away.open(&broker);
    sleeper.subscribe(&topic, 1);
    sleeper.disconnect();
    let counters = broker.counters();
    assert_eq!(counters.get("memory_stage"), 0);
    let _there = Connect::v5(&unique("there")).open(&broker);
    for gauge in [
        "memory_bytes",
        "memory_heap_bytes",
        "memory_resident_bytes",
        "memory_socket_bytes",
    ] {
        eventually(gauge, || (broker.counters().get(gauge) > 0).then_some(()));
    }

    drop(grow(&broker, &topic, 256 * 1024, 1));
    let flood = unique("flood");
    let mut slow = Connect::v5(&unique("slow")).open(&broker);
    slow.subscribe(&flood, 0);
    let mut flooder = Connect::v5(&unique("flooder")).open(&broker);
    let payload = vec![b'x'; 100_000];
    eventually("QoS 0 is dropped for a client that does not read", || {
        flooder.send_publish(&Publish::new(&flood, 0, &payload));
        (broker.counters().get("dropped_memory") > 0).then_some(())
    });
    assert_eq!(broker.counters().get("dropped_outbox_full"), 0);

    let open = |name| Connect::v5(&unique(name)).open(&broker);
    let (mut last, mut reader) = (open("last"), open("reader"));
    let mut halves = [(); 3].map(|()| open("half"));
    let crowd = grow(&broker, &topic, 32 * 1024, 2);
    let paused_at_least = |count| {
        eventually("who sends half a packet is not read", || {
            (broker.counters().get("publishers_paused_memory") >= count).then_some(())
        });
    };
    // At the very edge of a stage one more may be taken.
    eventually("who publishes is not read", || {
        last.send_publish(&Publish::new(&topic, 1, vec![b'x'; 16 * 1024]));
        (broker.counters().get("publishers_paused_memory") > 0).then_some(())
    });
    reader.ping();
    let paused = broker.counters().get("publishers_paused_memory");
    halves.iter_mut().for_each(say_half);
    paused_at_least(paused + 3);

    let mut more = Vec::new();
    for (version, refusal) in [(Version::V5, 0x97), (Version::V4, 3)] {
        eventually("a new client is refused", || {
            let (mut client, answer) = Connect::new(version, &unique("late")).attempt(&broker);
            match answer {
                Some(Packet::Connack { code: 0, .. }) => {}
                Some(Packet::Connack { code, .. }) if code == refusal => return Some(()),
                other => panic!("{other:?}"),
            }
            // It may be disconnected before it hears of it.
            client.send_publish(&Publish::new(&topic, 1, vec![b'x'; 256 * 1024]));
            more.push(client);
            None
        });
    }
    assert!(broker.counters().get("connections_refused_memory") >= 2);
    eventually("those that wait to publish are disconnected", || {
        (broker.counters().get("connections_cut_memory") > 0).then_some(())
    });

    // It is let in. Its session ends, and with it what was kept for it.
    Connect::v5(&away.client_id).open(&broker).disconnect();
    drop((slow, crowd, more));
    eventually("memory is enough again", || {
        (stage(&broker) == 0).then_some(())
    });
    let mut late = Connect::v5(&unique("late")).open(&broker);
    late.publish(&topic, 1, "it is read");
}

/// Memory that one shard took and others freed is given back too, though nobody does anything any more.
#[test]
fn memory_comes_back_from_all_shards() {
    let broker = Broker::with_config(4, "[limits]\nmemory_max_bytes = 157286400\n");
    let before = broker.resident_bytes();
    let names: Vec<String> = (0..30).map(|_| unique("waits")).collect();
    for name in &names {
        let mut waits = Connect::v5(name).persistent().open(&broker);
        waits.subscribe("much", 1);
        waits.disconnect();
    }
    let mut publisher = Connect::v5(&unique("p")).open(&broker);
    let message = vec![7; 50_000];
    for _ in 0..1_200 {
        publisher.publish("much", 1, &message);
    }
    assert!(broker.resident_bytes() > before + (50 << 20));
    publisher.disconnect();
    for name in &names {
        Connect::v5(name).open(&broker).disconnect();
    }
    eventually("it is as before", || {
        (broker.resident_bytes() < before + (24 << 20)).then_some(())
    });
    assert_eq!(broker.counters().get("memory_stage"), 0);
}
