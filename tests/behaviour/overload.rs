//! Short of memory: each stage is reached, does what it promises, and is left again by itself.

use crate::support::{Ack, Broker, Client, Connect, Publish, Version, eventually, unique};

const CONFIG: &str = "[limits]
memory_max_bytes = 209715200
queue_messages_max = 1000000
queue_bytes_max = 1073741824
";

fn stage(broker: &Broker) -> u64 {
    broker.counters().get("memory_stage")
}

/// Publishes to a session that is away until the broker is at this stage.
fn grow(broker: &Broker, publisher: &mut Client, topic: &str, until: u64) {
    let payload = vec![b'x'; 256 * 1024];
    for _ in 0..1_000 {
        if stage(broker) >= until {
            return;
        }
        publisher.publish(topic, 1, &payload);
    }
    panic!("stage {until} is never reached");
}

/// A client that sends most of a packet of a megabyte, and waits.
fn half_said(broker: &Broker) -> Client {
    let mut client = Connect::v5(&unique("half")).open(broker);
    let mut packet = vec![0x30, 0xC0, 0x84, 0x3D, 0, 1, b't', 0];
    packet.resize(900_000, b'x');
    client.send(&packet);
    client
}

#[test]
fn memory_is_defended_in_stages_and_comes_back() {
    let broker = Broker::with_config(1, CONFIG);
    let topic = unique("grow");
    let away = Connect::v5(&unique("away")).persistent();
    let mut sleeper = away.open(&broker);
    sleeper.subscribe(&topic, 1);
    sleeper.disconnect();
    let mut publisher = Connect::v5(&unique("publisher")).open(&broker);
    let counters = broker.counters();
    assert_eq!(counters.get("memory_stage"), 0);
    assert!(counters.get("memory_bytes") > 0);

    grow(&broker, &mut publisher, &topic, 1);
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

    grow(&broker, &mut publisher, &topic, 2);
    publisher.publish(&topic, 1, "the last that is read");
    broker.await_counter("publishers_paused_memory", 1);
    let id = publisher.send_publish(&Publish::new(&topic, 1, "waits"));
    Connect::v5(&unique("reader")).open(&broker).ping();

    let mut halves = Vec::new();
    while stage(&broker) < 3 {
        assert!(halves.len() < 100, "stage 3 is never reached");
        halves.push(half_said(&broker));
    }
    Connect::v5(&unique("late")).expect_refused(&broker, &[0x97]);
    Connect::new(Version::V4, &unique("late")).expect_refused(&broker, &[3]);
    assert_eq!(broker.counters().get("connections_refused_memory"), 2);

    drop(halves);
    eventually("connections are accepted again", || {
        (stage(&broker) < 3).then_some(())
    });
    // Its session ends, and with it what was kept for it.
    Connect::v5(&away.client_id).open(&broker).disconnect();
    drop(slow);
    eventually("memory is enough again", || {
        (stage(&broker) == 0).then_some(())
    });
    assert_eq!(
        publisher.wait_ack(Ack::Puback, id),
        0x10,
        "it is read again"
    );
}
