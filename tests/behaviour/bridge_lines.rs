//! Bridges with several connections, and those that are there only when something waits.

use crate::bridge_queue::asked_all;
use crate::bridges::{await_line, bridge};
use crate::support::{Broker, Client, Connect, eventually, unique};

fn client(broker: &Broker) -> Client {
    Connect::v5(&unique("c")).open(broker)
}

/// Rules with an admin listener behind them.
fn watched(rules: &str) -> String {
    format!("{rules}\n[admin]\nlisten = \"http://127.0.0.1:0\"")
}

fn state_of(broker: &Broker) -> String {
    let all = asked_all(broker);
    all[0]["state"].as_str().unwrap_or_default().to_owned()
}

fn a_lazy_bridge_comes_when_something_waits_and_goes_when_nothing_does(shards: usize) {
    let remote = Broker::start(shards);
    let rules = watched("start = \"lazy\"\nidle_seconds = 1\ntopics = [{ filter = \"t\" }]");
    let local = Broker::with_config(shards, &bridge(remote.address(), &rules));
    eventually("it is idle", || (state_of(&local) == "idle").then_some(()));
    let (mut here, mut there) = (client(&local), client(&remote));
    there.subscribe("t", 2);
    let ups = || local.log().matches("bridge b is up").count();
    let rests = || local.log().matches("bridge b is idle").count();
    assert_eq!(ups(), 0, "nobody has called it");
    for round in 1..=2 {
        let text = format!("{round}");
        here.publish("t", round, &text);
        there.expect("t", &text);
        eventually("it is idle again", || {
            (rests() >= usize::from(round)).then_some(())
        });
    }
    assert!(ups() >= 2, "{}", local.log());
    eventually("its state is told", || {
        (state_of(&local) == "idle").then_some(())
    });
    assert!(
        !local.log().contains("the next attempt comes in"),
        "{}",
        local.log()
    );
}

fn what_was_kept_on_disk_wakes_a_lazy_bridge(shards: usize) {
    let (remote, place) = (Broker::start(shards), crate::storage::Place::new());
    let mut there = client(&remote);
    there.subscribe("t", 2);
    let always = bridge(
        remote.address(),
        "paused = true\ntopics = [{ filter = \"t\" }]",
    );
    let local = place.setup(shards).config(&always).start();
    client(&local).publish("t", 2, "x");
    crate::storage::kill(local);
    let lazy = always.replace("paused = true", "start = \"lazy\"");
    let _local = place.setup(shards).config(&lazy).start();
    there.expect("t", "x");
}

fn several_connections_keep_the_order_of_each_topic(shards: usize) {
    for protocol in ["5.0", "3.1.1"] {
        let remote = Broker::start(shards);
        let rules =
            format!("protocol = {protocol:?}\nconnections = 3\ntopics = [{{ filter = \"t/#\" }}]");
        let text = bridge(remote.address(), &watched(&rules));
        let local = Broker::with_config(shards, &text);
        for index in 0..3 {
            await_line(&local, &format!("bridge b-{index} is up"));
        }
        let (mut here, mut there) = (client(&local), client(&remote));
        there.subscribe("t/#", 2);
        for number in 0..300 {
            let topic = format!("t/{}", number % 30);
            here.publish(&topic, 1 + number as u8 % 2, number.to_string());
        }
        let mut next = [0; 30];
        for _ in 0..300 {
            let got = there.accept();
            let number: usize = got.payload_str().parse().expect("a number");
            let topic = number % 30;
            assert_eq!(got.topic_str(), format!("t/{topic}"));
            assert_eq!(number / 30, next[topic], "{protocol}: topic {topic}");
            next[topic] += 1;
        }
        there.expect_nothing();
        let told = eventually("all is counted", || {
            let all = asked_all(&local);
            let out = |one: &serde_json::Value| one["counts"]["bridge_messages_out"].as_u64();
            let counts: Vec<_> = all.iter().filter_map(out).collect();
            (counts.iter().sum::<u64>() == 300).then_some(all)
        });
        let names: Vec<_> = told.iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["b-0", "b-1", "b-2"]);
        for one in &told {
            assert!(
                one["counts"]["bridge_messages_out"].as_u64() > Some(0),
                "{one}"
            );
        }
        assert_eq!(local.counters().get("dropped_not_authorized"), 0);
    }
}

fn a_topic_of_another_connection_is_explained_so(shards: usize) {
    let rules = watched("paused = true\nconnections = 3\ntopics = [{ filter = \"t/#\" }]");
    let local = Broker::with_config(shards, &bridge(([127, 0, 0, 1], 1).into(), &rules));
    let told = |topic: &str| {
        let path = format!("/api/v1/explain?qos=1&topic={topic}");
        let page = crate::admin::get(crate::admin::address(&local), &path);
        let page: serde_json::Value = serde_json::from_str(&page.body).expect("JSON");
        page["subscriptions"].as_array().expect("a list").clone()
    };
    eventually("their sessions are made", || {
        (told("t/0").len() == 3).then_some(())
    });
    let mut takers = std::collections::BTreeSet::new();
    for number in 0..30 {
        let rows = told(&format!("t/{number}"));
        let (takes, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["gets"] == true);
        assert_eq!((takes.len(), others.len()), (1, 2), "{rows:?}");
        let taker = takes[0]["client_id"].as_str().expect("a name");
        for row in others {
            let why = format!("another of the bridge's connections takes the topic: {taker}");
            assert_eq!(row["why"], *why, "{rows:?}");
        }
        takers.insert(taker.to_owned());
    }
    assert_eq!(takers.len(), 3);
}

fn what_goes_both_ways_by_several_connections_passes_once(shards: usize) {
    for protocol in ["5.0", "3.1.1"] {
        let remote = Broker::start(shards);
        let rules = format!(
            "protocol = {protocol:?}\nconnections = 3\n\
             topics = [{{ filter = \"t/#\", direction = \"both\" }}, {{ filter = \"in\", direction = \"in\" }}]"
        );
        let local = Broker::with_config(shards, &bridge(remote.address(), &rules));
        for index in 0..3 {
            await_line(&local, &format!("bridge b-{index} is up"));
        }
        let mut clients = [client(&local), client(&remote)];
        for client in &mut clients {
            client.subscribe("t/#", 2);
        }
        for number in 0..20 {
            let topic = format!("t/{number}");
            for from in 0..2 {
                clients[from].publish(&topic, 1 + number % 2, "x");
                for client in &mut clients {
                    client.expect(&topic, "x");
                }
            }
        }
        for client in &mut clients {
            client.expect_nothing();
        }
        let [here, there] = &mut clients;
        here.subscribe("in", 1);
        there.publish("in", 1, "once");
        here.expect("in", "once");
        here.expect_nothing();
    }
}

crate::on_shards!([1, 2]
    a_lazy_bridge_comes_when_something_waits_and_goes_when_nothing_does,
    what_was_kept_on_disk_wakes_a_lazy_bridge,
    several_connections_keep_the_order_of_each_topic,
    a_topic_of_another_connection_is_explained_so,
    what_goes_both_ways_by_several_connections_passes_once,
);
