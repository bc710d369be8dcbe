//! What waits for a bridge while its line is down: by number, bytes and age, and what operators see of it.

use crate::bridges::{await_line, bridge};
use crate::support::{Broker, Client, Connect, Relay, eventually, unique};

fn client(broker: &Broker) -> Client {
    Connect::v5(&unique("c")).open(broker)
}

/// A broker whose bridge cannot reach `remote` before the relay is opened.
fn cut_off(shards: usize, remote: &Broker, keys: &str) -> (Broker, Relay) {
    let relay = Relay::start(remote.address());
    relay.close();
    let rules = format!(
        "{keys}\ntopics = [{{ filter = \"t\" }}]\n[admin]\nlisten = \"http://127.0.0.1:0\""
    );
    let local = Broker::with_config(shards, &bridge(relay.address(), &rules));
    await_line(&local, "the next attempt comes in");
    (local, relay)
}

/// What the admin API says of all bridges.
pub fn asked_all(broker: &Broker) -> Vec<serde_json::Value> {
    let page = crate::admin::get(crate::admin::address(broker), "/api/v1/bridges");
    let all: serde_json::Value = serde_json::from_str(&page.body).expect("JSON");
    all["bridges"].as_array().cloned().unwrap_or_default()
}

fn asked(broker: &Broker) -> serde_json::Value {
    asked_all(broker).swap_remove(0)
}

fn messages_beyond_their_number_go_by_the_bridges_policy(shards: usize) {
    for (policy, wanted) in [("drop_newest", 0..5), ("drop_oldest", 7..12)] {
        let remote = Broker::start(shards);
        let keys = format!("queue_messages_max = 5\nqueue_full = {policy:?}");
        let (local, relay) = cut_off(shards, &remote, &keys);
        let (mut here, mut there) = (client(&local), client(&remote));
        there.subscribe("t", 1);
        for number in 0..12 {
            here.publish("t", 1, number.to_string());
        }
        local.await_counter("dropped_queue_full", 7);
        let line = await_line(&local, "bridge b has lost messages");
        assert!(line.contains("its queue is full"), "{line}");
        relay.open();
        for number in wanted {
            there.expect("t", number.to_string());
        }
        await_line(&local, "bridge b is up");
        here.publish("t", 1, "end");
        there.expect("t", "end");
    }
}

fn messages_that_are_too_old_do_not_go(shards: usize) {
    let remote = Broker::start(shards);
    let (local, relay) = cut_off(shards, &remote, "queue_seconds_max = 1");
    let (mut here, mut there) = (client(&local), client(&remote));
    there.subscribe("t", 1);
    here.publish("t", 1, "old");
    // Though nothing else happens.
    local.await_counter("dropped_queue_age", 1);
    await_line(&local, "(bridge.queue_seconds_max)");
    relay.open();
    await_line(&local, "bridge b is up");
    here.publish("t", 1, "new");
    there.expect("t", "new");
}

fn what_waits_is_told(shards: usize) {
    let remote = Broker::start(shards);
    let (local, relay) = cut_off(shards, &remote, "queue_messages_max = 3");
    let (mut here, mut there) = (client(&local), client(&remote));
    for number in 0..5 {
        here.publish("t", 1, number.to_string());
    }
    let told = asked(&local);
    assert_eq!((&told["queued"], &told["dropped"]), (&3.into(), &2.into()));
    assert!(told["queued_bytes"].as_u64() > Some(3), "{told}");
    eventually("it grows older", || {
        asked(&local)["oldest_seconds"]
            .as_u64()
            .filter(|age| *age > 0)
    });
    let page = crate::admin::get(crate::admin::address(&local), "/metrics").body;
    let value = |family: &str| {
        let sample = page.lines().find(|line| {
            line.starts_with(&format!("ringmq_{family}{{")) && line.contains("bridge=\"b\"")
        });
        let sample = sample.unwrap_or_else(|| panic!("no {family} in {page}"));
        sample.rsplit(' ').next().map(str::to_owned)
    };
    assert_eq!(value("bridge_queued_messages").as_deref(), Some("3"));
    assert_eq!(value("bridge_messages_dropped_total").as_deref(), Some("2"));
    there.subscribe("t", 1);
    relay.open();
    for number in 0..3 {
        there.expect("t", number.to_string());
    }
    eventually("nothing waits", || {
        let told = asked(&local);
        let is_empty = told["queued"] == 0 && told["in_flight"] == 0;
        (is_empty && told["oldest_seconds"] == 0).then_some(())
    });
}

#[test]
fn a_policy_that_makes_no_sense_is_refused() {
    let config = bridge(
        std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
        "queue_full = \"disconnect\"\ntopics = []",
    );
    let ended = crate::support::Setup::new().config(&config).run_to_end();
    assert!(
        ended.log.contains("say drop_newest or drop_oldest"),
        "{}",
        ended.log
    );
}

crate::on_shards!([1, 2]
    messages_beyond_their_number_go_by_the_bridges_policy,
    messages_that_are_too_old_do_not_go,
    what_waits_is_told,
);
