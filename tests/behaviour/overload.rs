//! Short of memory: each stage is reached, does what it promises, and is left again by itself.

use crate::reload::Renewed;
use crate::support::{Broker, Client, Connect, Packet, Publish, Version, eventually, unique};
use ringmq::engine::route::home_shard;

const CONFIG: &str = "[limits]
memory_max_bytes = 104857600
queue_messages_max = 1000000
queue_bytes_max = 1073741824
";

fn stage(broker: &Broker) -> u64 {
    broker.counters().get("memory_stage")
}

/// Publishes to these topics in turn until the broker is at this stage, or has gone beyond it and refuses who
/// comes: one message of each of many clients, which is taken at every stage.
fn grow(broker: &Broker, topics: &[String], bytes: usize, until: u64) -> Vec<Client> {
    let payload = vec![b'x'; bytes];
    let mut publishers = Vec::new();
    while stage(broker) < until {
        let count = publishers.len();
        assert!(count < 10_000, "stage {until} is never reached");
        let (mut one, answer) = Connect::v5(&unique("one")).attempt(broker);
        if !matches!(answer, Some(Packet::Connack { code: 0, .. })) {
            break;
        }
        one.send_publish(&Publish::new(&topics[count % topics.len()], 1, &payload));
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

/// Clients that acknowledge nothing, each with a topic of its own; the sessions of half of them outlive them.
fn hoarders(broker: &Broker, count: usize) -> (Vec<Client>, Vec<String>) {
    let name = unique("hoard");
    let one = |n: usize| {
        let topic = format!("{name}/{n}");
        let connect = Connect::v5(&topic);
        let connect = if n.is_multiple_of(2) {
            connect.persistent()
        } else {
            connect
        };
        let mut client = connect.open(broker);
        client.subscribe(&topic, 1);
        (client, topic)
    };
    (0..count).map(one).unzip()
}

/// A new client is let in, subscribes, publishes and gets what it publishes.
fn serves(broker: &Broker) {
    let topic = unique("served");
    let mut client = Connect::v5(&topic).open(broker);
    client.subscribe(&topic, 1);
    client.publish(&topic, 1, "served");
    client.expect(&topic, "served");
}

#[test]
fn memory_is_defended_in_stages_and_comes_back() {
    let broker = Broker::with_config(1, CONFIG);
    let topic = unique("grow");
    let away = Connect::v5(&unique("away")).persistent();
    let mut sleeper = away.open(&broker);
    sleeper.subscribe(&topic, 1);
    sleeper.disconnect();
    assert_eq!(broker.counters().get("memory_stage"), 0);
    let _there = Connect::v5(&unique("there")).open(&broker);
    for gauge in [
        "memory_bytes",
        "memory_heap_bytes",
        "memory_resident_bytes",
        "memory_socket_bytes",
    ] {
        eventually(gauge, || (broker.counters().get(gauge) > 0).then_some(()));
    }

    let (hogs, hoards) = hoarders(&broker, 200);
    let for_away = std::slice::from_ref(&topic);
    let mut crowd = grow(&broker, for_away, 256 * 1024, 1);
    eventually("nothing more is kept for who is away", || {
        let mut one = Connect::v5(&unique("one")).open(&broker);
        one.publish(&topic, 1, "too late");
        (broker.counters().get("dropped_memory") > 0).then_some(())
    });
    crowd.extend(grow(&broker, &hoards, 24 * 1024, 2));
    let flood = unique("flood");
    let mut slow = Connect::v5(&unique("slow")).open(&broker);
    slow.subscribe(&flood, 0);
    let mut flooder = Connect::v5(&unique("flooder")).open(&broker);
    let dropped = broker.counters().get("dropped_memory");
    let payload = vec![b'x'; 100_000];
    eventually("QoS 0 is dropped for a client that does not read", || {
        flooder.send_publish(&Publish::new(&flood, 0, &payload));
        (broker.counters().get("dropped_memory") > dropped).then_some(())
    });
    assert_eq!(broker.counters().get("dropped_outbox_full"), 0);

    let open = |name| Connect::v5(&unique(name)).open(&broker);
    let (mut last, mut reader) = (open("last"), open("reader"));
    let mut halves = [(); 3].map(|()| open("half"));
    crowd.extend(grow(&broker, &hoards, 24 * 1024, 3));
    let paused_at_least = |count| {
        eventually("who sends half a packet is not read", || {
            (broker.counters().get("publishers_paused_memory") >= count).then_some(())
        });
    };
    // At the very edge of a stage one more may be taken.
    eventually("who publishes is not read", || {
        last.send_publish(&Publish::new(&hoards[0], 1, vec![b'x'; 4 * 1024]));
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
            let topic = &hoards[more.len() % hoards.len()];
            client.send_publish(&Publish::new(topic, 1, vec![b'x'; 24 * 1024]));
            more.push(client);
            None
        });
    }
    assert!(broker.counters().get("connections_refused_memory") >= 2);
    eventually("those that hold most are disconnected", || {
        let counters = broker.counters();
        let seen = ["connections_cut_memory", "sessions_ended_memory"];
        seen.iter().all(|name| counters.get(name) > 0).then_some(())
    });
    // Not for good: what is left then is not theirs.
    serves(&broker);

    // What waited before memory was short is there. Its session ends, and with it what was kept for it.
    let mut back = Connect::v5(&away.client_id)
        .persistent()
        .resume()
        .open(&broker);
    assert_eq!(back.accept().payload.len(), 256 * 1024);
    back.cut();
    Connect::v5(&away.client_id).open(&broker).disconnect();
    drop((slow, crowd, more, hogs));
    eventually("memory is enough again", || {
        (stage(&broker) == 0).then_some(())
    });
    let mut late = Connect::v5(&unique("late")).open(&broker);
    late.publish(&topic, 1, "it is read");
}

/// Retained messages stay though their publisher goes, so they must leave memory for others.
#[test]
fn retained_messages_leave_memory_to_serve_others() {
    let limits = "[limits]\nmemory_max_bytes = 134217728\nretained_bytes_max = 1073741824\n";
    let broker = Broker::with_config(1, limits);
    let log = broker.log();
    assert!(
        log.contains("limits.retained_bytes_max is 1024 MiB, but"),
        "{log}"
    );
    let name = unique("retained");
    let mut attacker = Connect::v5(&unique("attacker")).open(&broker);
    let payload = vec![b'x'; 16 * 1024];
    let mut count = 0;
    while broker.counters().get("dropped_retained_memory") < 100 {
        assert!(count < 20_000, "it never ends");
        attacker.retain(&format!("{name}/{count}"), 1, &payload);
        count += 1;
    }
    let kept = broker.counters().get("retained_messages");
    assert!(kept >= 1_000, "{kept}");
    serves(&broker);
    // What the allocator holds may count until it is asked for it.
    eventually("memory is not short", || (stage(&broker) < 2).then_some(()));
    // A value in place of one that is as large takes nothing more.
    attacker.retain(&format!("{name}/0"), 1, vec![b'y'; 16 * 1024]);
    let mut reader = Connect::v5(&unique("reader")).open(&broker);
    reader.subscribe(&format!("{name}/0"), 1);
    assert_eq!(reader.accept().payload, vec![b'y'; 16 * 1024]);
    assert_eq!(broker.counters().get("retained_messages"), kept);
    for n in 0..count {
        attacker.retain(&format!("{name}/{n}"), 1, "");
    }
    assert_eq!(broker.counters().get("retained_messages"), 0);
    eventually("memory is enough again", || {
        (stage(&broker) == 0).then_some(())
    });
}

#[test]
fn a_quarter_of_memory_is_for_retained_messages_unless_it_is_said() {
    let broker = Broker::with_config(1, "[limits]\nmemory_max_bytes = 134217728\n");
    let mut attacker = Connect::v5(&unique("attacker")).open(&broker);
    let name = unique("quarter");
    let payload = vec![b'x'; 16 * 1024];
    for n in 0..2_200 {
        attacker.retain(&format!("{name}/{n}"), 1, &payload);
    }
    let counters = broker.counters();
    assert!(counters.get("dropped_retained_full") > 0);
    let kept = counters.get("retained_bytes");
    assert!(kept <= 32 << 20 && kept > 31 << 20, "{kept}");
    assert_eq!(counters.get("memory_stage"), 0);
}

/// So must what waits for clients that are away, however many they are.
#[test]
fn what_waits_for_those_that_are_away_leaves_memory_to_serve_others() {
    let broker = Broker::with_config(2, "[limits]\nmemory_max_bytes = 134217728\n");
    let name = unique("away");
    let sleepers: Vec<_> = (0..50)
        .map(|n| Connect::v5(&format!("{name}-{n}")).persistent())
        .collect();
    for (n, sleeper) in sleepers.iter().enumerate() {
        let mut client = sleeper.open(&broker);
        client.subscribe(&format!("{name}/{n}"), 1);
        client.disconnect();
    }
    let mut attacker = Connect::v5(&unique("attacker")).open(&broker);
    let payload = vec![b'x'; 50_000];
    let mut count = 0;
    while broker.counters().get("dropped_memory") < 100 {
        assert!(count < 20_000, "it never ends");
        attacker.publish(&format!("{name}/{}", count % 50), 1, &payload);
        count += 1;
    }
    serves(&broker);
    // What the allocator holds may count until it is asked for it.
    eventually("memory is not short", || (stage(&broker) < 2).then_some(()));
    assert!(broker.counters().get("queued_messages") > 100);
    for (n, sleeper) in sleepers.iter().enumerate() {
        let mut client = sleeper.clone().resume().open(&broker);
        client.expect(&format!("{name}/{n}"), &payload);
        client.cut();
        Connect::v5(&sleeper.client_id).open(&broker).disconnect();
    }
    eventually("memory is enough again", || {
        (stage(&broker) == 0).then_some(())
    });
}

/// Memory that one shard took and another freed is given back too, though the one has nothing to do any more.
#[test]
fn memory_comes_back_from_all_shards() {
    let broker = Broker::with_config(2, "[limits]\nmemory_max_bytes = 209715200\n");
    let before = broker.resident_bytes();
    let of_shard = |stem: &str, shard| {
        let mut names = std::iter::repeat_with(|| unique(stem));
        let found = names.find(|name| home_shard(name, 2) == shard);
        found.expect("names do not end")
    };
    let names: Vec<String> = (0..10).map(|n| of_shard("waits", n % 2)).collect();
    for (n, name) in names.iter().enumerate() {
        let mut waits = Connect::v5(name).persistent().open(&broker);
        waits.subscribe(&format!("much/{n}"), 1);
        waits.disconnect();
    }
    let mut publisher = Connect::v5(&of_shard("p", 0)).open(&broker);
    let message = vec![7; 2_500];
    for n in 0..24_000 {
        let publish = Publish::new(format!("much/{}", n % 10), 1, &message);
        publisher.publish_packet(&publish);
    }
    publisher.ping();
    assert!(broker.resident_bytes() > before + (50 << 20));
    publisher.disconnect();
    // First its own shard frees every other of what lies side by side, and so has all of that again.
    for name in names
        .iter()
        .step_by(2)
        .chain(names.iter().skip(1).step_by(2))
    {
        Connect::v5(name).open(&broker).disconnect();
    }
    eventually("it is as before", || {
        (broker.resident_bytes() < before + (24 << 20)).then_some(())
    });
    assert_eq!(broker.counters().get("memory_stage"), 0);
}

/// More or less of it may be used without a restart.
#[test]
fn the_bound_of_memory_changes_while_it_runs() {
    let config = |mib: usize| {
        let bytes = mib << 20;
        format!("[limits]\nmemory_max_bytes = {bytes}\nqueue_bytes_max = 1073741824\n")
    };
    let renewed = Renewed::start(1, &config(256));
    let broker = &renewed.broker;
    let sleeper = Connect::v5(&unique("sleeper")).persistent();
    let mut sleeps = sleeper.open(broker);
    sleeps.subscribe("much", 1);
    sleeps.disconnect();
    let mut quiet = Connect::v5(&unique("quiet")).open(broker);
    let mut publisher = Connect::v5(&unique("p")).open(broker);
    for _ in 0..1_000 {
        publisher.publish("much", 1, vec![b'x'; 50_000]);
    }
    assert_eq!(stage(broker), 0);
    let outcome = renewed.change(&config(64));
    assert!(
        outcome
            .output
            .starts_with("changed: limits.memory_max_bytes: ")
            && outcome.log.is_empty(),
        "{outcome:?}"
    );
    let line = "memory: 64 MiB may be used (limits.memory_max_bytes)";
    assert!(broker.log().contains(line), "{}", broker.log());
    eventually("memory is short", || (stage(broker) > 0).then_some(()));
    quiet.ping();
    renewed.change(&config(256));
    eventually("memory is enough", || (stage(broker) == 0).then_some(()));
    quiet.ping();
    serves(broker);
    renewed.broker.stop();
}
