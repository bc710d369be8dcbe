//! Another broker that says it is a bridge by the highest bit of its protocol level, as Mosquitto and others do:
//! it gets nothing back that it sent, and RETAIN as it was published.

use crate::support::{Broker, Client, Connect, Packet, Version, Will, eventually, unique};

/// A CONNECT with the bit set; its level stands behind the protocol's name.
fn bridge_bytes(connect: &Connect) -> Vec<u8> {
    let mut bytes = connect.encode();
    let end = match connect.version {
        Version::V3 => b"Isdp",
        Version::V4 | Version::V5 => b"MQTT",
    };
    let name = bytes.windows(end.len()).position(|part| part == end);
    bytes[name.expect("a name") + end.len()] |= 0x80;
    bytes
}

fn connect_bridge(broker: &Broker, connect: &Connect) -> Client {
    let mut client = Client::dial(broker, connect.version);
    client.send(&bridge_bytes(connect));
    match client.recv() {
        Packet::Connack { code: 0, .. } => client,
        other => panic!("{other:?}"),
    }
}

fn a_bridge_gets_what_others_publish_as_they_did(shards: usize) {
    let broker = Broker::start(shards);
    for version in [Version::V3, Version::V4] {
        let topic = unique("bridged");
        let connect = Connect::new(version, &unique("bridge")).persistent();
        let mut bridge = connect_bridge(&broker, &connect);
        let mut plain = Connect::new(version, &unique("c")).open(&broker);
        for client in [&mut bridge, &mut plain] {
            client.subscribe(&topic, 1);
        }
        let mut other = Connect::v5(&unique("c")).open(&broker);
        bridge.retain(&topic, 1, "of the bridge");
        other.retain(&topic, 1, "of another");
        assert!(bridge.expect(&topic, "of another").retain, "as published");
        other.publish(&topic, 1, "live");
        assert!(!bridge.expect(&topic, "live").retain);
        let mut got: Vec<_> = (0..3).map(|_| plain.accept()).collect();
        // Two have published: only what one of them did has an order.
        got.sort_by_key(|publish| publish.payload.clone());
        for (publish, text) in got.iter().zip(["live", "of another", "of the bridge"]) {
            assert_eq!((publish.payload_str(), publish.retain), (text, false));
        }
        // The same holds for what waits for it.
        bridge.disconnect();
        other.retain(&topic, 1, "meanwhile");
        let mut bridge = connect_bridge(&broker, &connect);
        assert!(bridge.expect(&topic, "meanwhile").retain);
        other.publish(&topic, 1, "end");
        assert!(!bridge.expect(&topic, "end").retain);
        // Its share of a group is not left out.
        bridge.subscribe(&format!("$share/g/{topic}/shared"), 1);
        bridge.publish(&format!("{topic}/shared"), 1, "x");
        bridge.expect(&format!("{topic}/shared"), "x");
    }
}

fn a_will_that_may_not_be_sent_is_left_out(shards: usize) {
    let broker = Broker::start(shards);
    let state = "$SYS/broker/connection/b/state";
    let mut left_out = 0;
    for version in [Version::V3, Version::V4, Version::V5] {
        let id = unique("bridge");
        let mut watcher = Connect::v5(&unique("c")).open(&broker);
        watcher.subscribe("$SYS/#", 1);
        let connect = Connect::new(version, &id).will(Will::new(state, "0").qos(1).retain());
        let client = match version {
            Version::V5 => connect.open(&broker),
            _ => connect_bridge(&broker, &connect),
        };
        client.cut();
        left_out += 1;
        broker.await_counter("dropped_will_not_allowed", left_out);
        eventually("it is said", || {
            let said = format!("the will of client {id:?} from 127.0.0.1:");
            let end = format!(
                "may not publish to {state:?}: topics under $SYS, $share and $queue are the broker's own"
            );
            let log = broker.log();
            let mut lines = log.lines().filter(|line| line.contains(&said));
            lines.any(|line| line.ends_with(&end)).then_some(())
        });
        watcher.expect_nothing();
        // A DISCONNECT cancels it: there is nothing to leave out.
        connect.open(&broker).disconnect();
    }
    broker.await_counter("dropped_will_not_allowed", left_out);
    broker.stop();
}

crate::on_shards!([1, 4]
    a_bridge_gets_what_others_publish_as_they_did,
    a_will_that_may_not_be_sent_is_left_out,
);
