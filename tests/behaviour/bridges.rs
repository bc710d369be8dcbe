//! This broker as a bridge to another one: what goes which way, what waits while the line is down, what is told.

use crate::login::{Scratch, passwd};
use crate::operator::run;
use crate::storage::{Place, kill};
use crate::support::{
    Broker, Client, Connect, Packet, Props, Publish, Relay, Setup, Version, eventually, prop,
    unique,
};
use std::net::SocketAddr;

/// Configuration of a bridge "b" to an address.
pub fn bridge(address: SocketAddr, more: &str) -> String {
    bridge_as("b", &unique("b"), address, more)
}

/// The same, by another name and client identifier.
pub fn bridge_as(name: &str, client_id: &str, address: SocketAddr, more: &str) -> String {
    format!(
        "[[bridge]]\nname = {name:?}\naddresses = [\"mqtt://{address}\"]\nclient_id = {client_id:?}\n\
         reconnect_ms_min = 10\nreconnect_ms_max = 50\n{more}\n"
    )
}

/// The protocols in which a bridge is tried, as keys.
const PROTOCOLS: [&str; 2] = ["protocol = \"5.0\"", "protocol = \"3.1.1\""];

pub fn await_line(broker: &Broker, text: &str) -> String {
    eventually(text, || {
        let log = broker.log();
        log.lines()
            .find(|line| line.contains(text))
            .map(str::to_owned)
    })
}

/// A broker whose bridge to `remote` is up.
fn bridged(shards: usize, remote: &Broker, more: &str) -> Broker {
    let broker = Broker::with_config(shards, &bridge(remote.address(), more));
    await_line(&broker, "bridge b is up");
    broker
}

fn client(broker: &Broker) -> Client {
    Connect::v5(&unique("c")).open(broker)
}

fn messages_go_both_ways_under_their_prefixes(shards: usize) {
    for protocol in PROTOCOLS {
        let remote = Broker::start(shards);
        let rules = format!(
            "{protocol}\ntopics = [\n{{ filter = \"up/#\", remote_prefix = \"site/1/\" }},\n\
             {{ filter = \"down/+\", direction = \"in\", local_prefix = \"from/\", qos_max = 1 }},\n]"
        );
        let local = bridged(shards, &remote, &rules);
        let (mut here, mut there) = (client(&local), client(&remote));
        here.subscribe("from/#", 2);
        there.subscribe("site/#", 2);
        for qos in 0..3 {
            here.publish("up/x/y", qos, format!("to {qos}"));
            let got = there.expect("site/1/up/x/y", format!("to {qos}"));
            assert_eq!((got.qos, got.retain), (qos, false), "{protocol}");
            there.publish("down/x", qos, format!("fro {qos}"));
            let got = here.expect("from/down/x", format!("fro {qos}"));
            assert_eq!(got.qos, qos.min(1), "{protocol}");
        }
        // Where no rule is, nothing goes.
        here.publish("down/x", 1, "stays");
        there.publish("up/x", 1, "stays");
        here.publish("up/end", 1, "end");
        there.expect("site/1/up/end", "end");
        there.publish("down/end", 1, "end");
        here.expect("from/down/end", "end");
    }
}

fn properties_and_retain_go_through(shards: usize) {
    let remote = Broker::start(shards);
    let rules = "topics = [{ filter = \"keep/#\", direction = \"both\" }, { filter = \"drop/#\", retain = \"drop\" }]";
    let local = bridged(shards, &remote, rules);
    let (mut here, mut there) = (client(&local), client(&remote));
    there.subscribe("+/+", 1);
    let props = Props::new()
        .byte(prop::PAYLOAD_FORMAT, 1)
        .four(prop::MESSAGE_EXPIRY, 1000)
        .text(prop::CONTENT_TYPE, "text")
        .text(prop::RESPONSE_TOPIC, "answers")
        .user("a", "b");
    let mut publish = Publish::new("keep/x", 1, "x").retain();
    publish.props = props;
    here.publish_packet(&publish);
    let got = there.expect("keep/x", "x");
    assert_eq!(
        got.props.find(prop::CONTENT_TYPE),
        publish.props.find(prop::CONTENT_TYPE)
    );
    assert_eq!(
        got.props.find(prop::RESPONSE_TOPIC),
        publish.props.find(prop::RESPONSE_TOPIC)
    );
    assert!(got.props.find(prop::MESSAGE_EXPIRY).is_some());
    let pairs = got.props.user_pairs();
    assert_eq!(pairs[0], ("a".into(), "b".into()));
    assert_eq!(pairs[1].0, "ringmq-hops");
    here.retain("drop/x", 1, "x");
    there.expect("drop/x", "x");
    let mut late = client(&remote);
    late.subscribe("+/+", 1);
    assert!(late.expect("keep/x", "x").retain);
    late.expect_nothing();
}

fn what_goes_both_ways_passes_once(shards: usize) {
    for protocol in PROTOCOLS {
        let remote = Broker::start(shards);
        let rules = format!("{protocol}\ntopics = [{{ filter = \"#\", direction = \"both\" }}]");
        let local = bridged(shards, &remote, &rules);
        let mut clients = [client(&local), client(&remote)];
        for client in &mut clients {
            client.subscribe("t/#", 2);
        }
        for qos in 0..3 {
            for from in 0..2 {
                let (topic, text) = (format!("t/{qos}"), format!("{from}"));
                clients[from].publish(&topic, qos, &text);
                for client in &mut clients {
                    client.expect(&topic, &text);
                }
            }
        }
        for client in &mut clients {
            client.publish("t/end", 1, "end");
        }
        for client in &mut clients {
            for _ in 0..2 {
                client.expect("t/end", "end");
            }
            client.expect_nothing();
        }
    }
}

fn what_waits_while_the_line_is_down_goes_in_order(shards: usize) {
    for protocol in PROTOCOLS {
        let remote = Broker::start(shards);
        let relay = Relay::start(remote.address());
        let rules = format!("{protocol}\ntopics = [{{ filter = \"t/#\" }}]");
        let local = Broker::with_config(shards, &bridge(relay.address(), &rules));
        await_line(&local, "bridge b is up");
        let (mut here, mut there) = (client(&local), client(&remote));
        there.subscribe("t/#", 2);
        for number in 0..600 {
            if number % 100 == 50 {
                relay.cut();
            }
            here.publish(
                &format!("t/{}", number % 2),
                1 + number as u8 % 2,
                number.to_string(),
            );
        }
        // QoS 2 comes once; QoS 1 may come again, but never before what it follows.
        let (mut twice, mut once) = (Vec::new(), Vec::new());
        while once.len() < 300 || twice.last() != Some(&598) {
            let got = there.accept();
            let number: i32 = got.payload_str().parse().expect("a number");
            match got.qos {
                2 => once.push(number),
                _ => twice.push(number),
            }
        }
        assert_eq!(
            once,
            (0..300).map(|n| 2 * n + 1).collect::<Vec<_>>(),
            "{protocol}"
        );
        let mut seen = twice.clone();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(
            seen,
            (0..300).map(|n| 2 * n).collect::<Vec<_>>(),
            "{protocol}"
        );
    }
}

fn what_comes_in_resumes_too(shards: usize) {
    for protocol in PROTOCOLS {
        let remote = Broker::start(shards);
        let relay = Relay::start(remote.address());
        let rules = format!("{protocol}\ntopics = [{{ filter = \"t/#\", direction = \"in\" }}]");
        let local = Broker::with_config(shards, &bridge(relay.address(), &rules));
        await_line(&local, "bridge b is up");
        let (mut here, mut there) = (client(&local), client(&remote));
        here.subscribe("t/#", 2);
        for number in 0..300 {
            if number % 100 == 50 {
                relay.cut();
            }
            there.publish("t/x", 2, number.to_string());
        }
        for number in 0..300 {
            here.expect("t/x", number.to_string());
        }
        here.expect_nothing();
    }
}

fn what_was_acknowledged_waits_on_disk(shards: usize) {
    let (remote, place) = (Broker::start(shards), Place::new());
    let relay = Relay::start(remote.address());
    relay.close();
    let config = bridge(relay.address(), "topics = [{ filter = \"t/#\" }]");
    let local = place.setup(shards).config(&config).start();
    let mut there = client(&remote);
    there.subscribe("t/#", 2);
    let mut here = client(&local);
    for number in 0..200 {
        here.publish("t/x", 2, number.to_string());
    }
    kill(local);
    let local = place.setup(shards).config(&config).start();
    relay.open();
    await_line(&local, "bridge b is up");
    client(&local).publish("t/x", 2, "200");
    for number in 0..=200 {
        there.expect("t/x", number.to_string());
    }
    there.expect_nothing();
}

fn what_is_retained_goes_to_who_does_not_know_it(shards: usize) {
    let remote = Broker::start(shards);
    let relay = Relay::start(remote.address());
    relay.close();
    let rules = "topics = [{ filter = \"t/#\" }]";
    let local = Broker::with_config(shards, &bridge(relay.address(), rules));
    await_line(&local, "the next attempt comes in");
    // Of QoS 0, so that it does not wait for the line.
    client(&local).retain("t/x", 0, "x");
    let mut there = client(&remote);
    there.subscribe("t/#", 1);
    relay.open();
    there.expect("t/x", "x");
    let mut late = client(&remote);
    late.subscribe("t/#", 1);
    assert!(late.expect("t/x", "x").retain);
    // Not again by each line.
    relay.cut();
    client(&local).publish("t/end", 1, "end");
    there.expect("t/end", "end");
}

fn what_waits_is_bounded(shards: usize) {
    let remote = Broker::start(shards);
    let relay = Relay::start(remote.address());
    relay.close();
    let rules = "queue_bytes_max = 20000\ntopics = [{ filter = \"t\" }]";
    let local = Broker::with_config(shards, &bridge(relay.address(), rules));
    await_line(&local, "the next attempt comes in");
    let (mut here, mut there) = (client(&local), client(&remote));
    there.subscribe("t", 1);
    let padding = "x".repeat(1_000);
    for number in 0..100 {
        here.publish("t", 1, format!("{number} {padding}"));
    }
    let dropped = local.counters().get("dropped_queue_full");
    assert!((80..100).contains(&dropped), "{dropped}");
    relay.open();
    for number in 0..100 - dropped {
        there.expect("t", format!("{number} {padding}"));
    }
    await_line(&local, "bridge b is up");
    here.publish("t", 1, "end");
    there.expect("t", "end");
}

fn its_state_is_told(shards: usize) {
    let remote = Broker::start(shards);
    let relay = Relay::start(remote.address());
    let rules = "remote_state_topic = \"bridges/b\"\ntopics = [{ filter = \"t\" }]";
    let local = Broker::with_config(shards, &bridge(relay.address(), rules));
    await_line(&local, "bridge b is up");
    let topic = "$SYS/broker/connection/b/state";
    let (mut here, mut there) = (client(&local), client(&remote));
    eventually("it is up", || {
        let mut late = client(&local);
        late.subscribe(topic, 1);
        (late.accept().payload_str() == "1").then_some(())
    });
    here.subscribe(topic, 1);
    here.expect(topic, "1");
    there.subscribe("bridges/b", 1);
    there.expect("bridges/b", "1");
    relay.close();
    here.expect(topic, "0");
    there.expect("bridges/b", "0");
    relay.open();
    here.expect(topic, "1");
    there.expect("bridges/b", "1");
    // A stop in order is told as well.
    local.stop();
    there.expect("bridges/b", "0");
}

fn each_failure_is_told_with_its_cause(shards: usize) {
    let topics = "topics = [{ filter = \"t\" }]";
    let nobody = SocketAddr::from(([127, 0, 0, 1], crate::support::free_port()));
    let broker = Broker::with_config(shards, &bridge(nobody, topics));
    await_line(
        &broker,
        &format!("bridge b: mqtt://{nobody}, MQTT 5.0: TCP: {nobody} does not answer"),
    );
    let remote = Broker::start(shards);
    let text = bridge(remote.address(), topics);
    let unknown = text.replace("127.0.0.1", "no-such-host.invalid");
    let broker = Broker::with_config(shards, &unknown);
    await_line(&broker, "DNS: its host is not found");
    let users = Scratch::new("");
    passwd(&users.0, &[], "ann", "secret");
    let strict = Broker::with_config(shards, &format!("password_file = {:?}", users.0));
    let broker = Broker::with_config(shards, &bridge(strict.address(), topics));
    await_line(&broker, "it refuses CONNECT: Not authorized (0x87)");
    // As an editor may leave it.
    let secret = Scratch::new("\u{feff}secret\r\n");
    let user = format!("user = \"ann\"\npassword_file = {:?}\n{topics}", secret.0);
    let broker = Broker::with_config(shards, &bridge(strict.address(), &user));
    await_line(&broker, "bridge b is up");
    let nothing = Scratch::new("\n");
    let user = user.replace(&secret.0, &nothing.0);
    let ended = Setup::new()
        .config(&bridge(strict.address(), &user))
        .run_to_end();
    assert!(ended.log.contains("is empty"), "{}", ended.log);
    drop(strict);
}

fn a_remote_that_knows_no_5_0_gets_3_1_1(shards: usize) {
    let remote = Broker::with_config(
        shards,
        "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nprotocols = [\"3.1.1\"]",
    );
    let local = bridged(shards, &remote, "topics = [{ filter = \"t\" }]");
    await_line(&local, "MQTT 3.1.1 as a bridge");
    let (mut here, mut there) = (client(&local), Connect::v4(&unique("c")).open(&remote));
    there.subscribe("t", 1);
    here.publish("t", 1, "x");
    there.expect("t", "x");
}

/// What the admin API says of the bridge.
pub fn asked(broker: &Broker) -> serde_json::Value {
    let page = crate::admin::get(crate::admin::address(broker), "/api/v1/bridges");
    let all: serde_json::Value = serde_json::from_str(&page.body).expect("JSON");
    all["bridges"][0].clone()
}

/// What the admin API says.
fn told(broker: &Broker, path: &str) -> serde_json::Value {
    let page = crate::admin::get(crate::admin::address(broker), path);
    serde_json::from_str(&page.body).expect("JSON")
}

/// As it speaks with the other broker, and as none without a line, before it comes and when it has gone.
fn clients_are_listed_with_the_lines_version(shards: usize) {
    let remote = Broker::start(shards);
    for version in ["3.1.1", "5.0"] {
        let relay = Relay::start(remote.address());
        relay.close();
        let rules = format!(
            "protocol = {version:?}\ntopics = [{{ filter = \"t/#\" }}]\n\
             [admin]\nlisten = \"http://127.0.0.1:0\""
        );
        let local = Broker::with_config(shards, &bridge(relay.address(), &rules));
        let await_version = |wanted: serde_json::Value| {
            eventually("its version is told", || {
                let one = told(&local, "/api/v1/clients/$bridge%2Fb");
                let is_it = one["client_id"] == "$bridge/b" && one["version"] == wanted;
                is_it.then_some(())
            });
            let all = told(&local, "/api/v1/clients");
            assert_eq!(all["clients"][0]["version"], wanted, "{all}");
        };
        await_line(&local, "bridge b:");
        await_version(serde_json::Value::Null);
        let at = format!("http://{}", crate::admin::address(&local));
        let sheet = run(&["client", "$bridge/b", "--admin", &at], &[]);
        let line = sheet.output.lines().find(|line| line.contains("MQTT"));
        assert_eq!(
            line.map(|line| line.ends_with(" -")),
            Some(true),
            "{sheet:?}"
        );
        relay.open();
        await_line(&local, "bridge b is up");
        await_version(version.into());
        relay.close();
        await_version(serde_json::Value::Null);
    }
}

/// As the other broker counts the bytes that it gets of the bridge: a topic with an alias stands there once.
fn topics_with_aliases_cost_their_bytes_once(shards: usize) {
    const MESSAGES: usize = 100;
    let level = "x".repeat(200);
    let received = |of_bridge: u16, of_remote: u16| {
        let text = format!(
            "[limits]\ntopic_alias_max = {of_remote}\n[admin]\nlisten = \"http://127.0.0.1:0\""
        );
        let remote = Broker::with_config(shards, &text);
        let id = unique("b");
        let rules = format!(
            "protocol = \"5.0\"\nhops_max = 0\ntopic_alias_max = {of_bridge}\ntopics = [{{ filter = \"#\" }}]"
        );
        let text = bridge_as("b", &id, remote.address(), &rules);
        let local = Broker::with_config(shards, &text);
        await_line(&local, "bridge b is up");
        let (mut here, mut there) = (client(&local), client(&remote));
        there.subscribe("#", 1);
        for number in 0..MESSAGES {
            let topic = format!("{level}/{}", number % 4);
            here.publish(&topic, 1, "x");
            there.expect(&topic, "x");
        }
        let one = told(&remote, &format!("/api/v1/clients/{id}"));
        let bytes = one["received_bytes"].as_u64().expect("a number");
        bytes as usize / MESSAGES
    };
    // A packet of QoS 1 has some ten bytes without its topic.
    for (of_bridge, of_remote) in [(16, 16), (4, 64)] {
        let bytes = received(of_bridge, of_remote);
        assert!(
            bytes < 40,
            "{bytes} a message with {of_bridge} and {of_remote}"
        );
    }
    for (of_bridge, of_remote) in [(16, 2), (2, 16)] {
        let bytes = received(of_bridge, of_remote);
        assert!(
            (100..150).contains(&bytes),
            "{bytes} a message where half of the topics have an alias"
        );
    }
    for (of_bridge, of_remote) in [(16, 0), (0, 16)] {
        let bytes = received(of_bridge, of_remote);
        assert!(
            bytes > 200,
            "{bytes} a message with {of_bridge} and {of_remote}"
        );
    }
}

fn operators_see_how_it_is(shards: usize) {
    let remote = Broker::start(shards);
    let relay = Relay::start(remote.address());
    let text = bridge(
        relay.address(),
        "hops_max = 1\ntopics = [{ filter = \"t/#\", direction = \"both\" }]\n\
         [admin]\nlisten = \"http://127.0.0.1:0\"",
    );
    let local = Broker::with_config(shards, &text);
    await_line(&local, "bridge b is up");
    let (mut here, mut there) = (client(&local), client(&remote));
    there.subscribe("t/#", 1);
    here.publish("t/x", 1, "x");
    there.expect("t/x", "x");
    // It has left a broker already.
    let mut been = Publish::new("t/y", 1, "y");
    been.props = Props::new().user("ringmq-hops", "another");
    here.publish_packet(&been);
    let told = eventually("it is counted", || {
        let told = asked(&local);
        (told["counts"]["dropped_bridge_hops"] == 1).then_some(told)
    });
    assert_eq!(told["name"], "b");
    assert_eq!(told["state"], "up");
    assert_eq!(told["counts"]["bridge_messages_out"], 1);
    assert_eq!(told["client_id"], "$bridge/b");
    local.await_counter("dropped_bridge_hops", 1);
    assert_eq!(local.counters().get("bridges_up"), 1);
    relay.close();
    let told = eventually("it is down", || {
        let told = asked(&local);
        (told["state"] != "up" && told["failures"].as_u64() > Some(0)).then_some(told)
    });
    assert!(
        told["cause"]
            .as_str()
            .is_some_and(|cause| cause.contains("connection")),
        "{told}"
    );
}

fn what_the_other_broker_does_not_take_is_dropped_or_lowered(shards: usize) {
    let remote = Broker::with_config(
        shards,
        "[limits]\nmax_packet_bytes = 1024\ntopic_levels_max = 8\n[mqtt]\nqos_max = 1\nretain_available = false",
    );
    let rules = "topics = [{ filter = \"t/#\" }, { filter = \"in/#\", direction = \"in\" }]\n\
                 [limits]\ntopic_levels_max = 3";
    let local = bridged(shards, &remote, rules);
    let (mut here, mut there) = (client(&local), client(&remote));
    there.subscribe("t/#", 1);
    here.subscribe("in/#", 1);
    for qos in [1, 2] {
        here.publish("t/large", qos, "x".repeat(2_000));
        here.retain("t/small", qos, "x");
        assert_eq!(there.expect("t/small", "x").qos, 1);
    }
    local.await_counter("dropped_bridge_too_large", 2);
    there.publish("in/a/b/c/d", 1, "too deep here");
    there.publish("in/a", 1, "x");
    here.expect("in/a", "x");
    local.await_counter("dropped_bridge_topic", 1);
    // Nothing is left of what was lowered.
    local.await_counter("inflight_messages", 0);
}

fn nobody_else_takes_a_bridges_session(shards: usize) {
    let remote = Broker::start(shards);
    let local = bridged(shards, &remote, "topics = [{ filter = \"t\" }]");
    for version in [Version::V4, Version::V5] {
        let connect = Connect::new(version, "$bridge/b").persistent();
        let code = if version == Version::V5 { 0x85 } else { 2 };
        match connect.attempt(&local).1 {
            Some(Packet::Connack { code: got, .. }) => assert_eq!(got, code),
            other => panic!("{other:?}"),
        }
    }
    let mut there = client(&remote);
    there.subscribe("t", 1);
    client(&local).publish("t", 1, "x");
    there.expect("t", "x");
}

/// Three brokers, each of which bridges to the next.
fn ring(shards: usize, rule: &str, more: &str) -> Vec<Broker> {
    let ports: Vec<_> = (0..3).map(|_| crate::support::free_port()).collect();
    let at = |place: usize| SocketAddr::from(([127, 0, 0, 1], ports[place % 3]));
    let start = |place: usize| {
        let text = format!(
            "{}\n[mqtt]\nbroker_name = \"r{place}\"\n",
            bridge(
                at(place + 1),
                &format!("{more}\ntopics = [{{ filter = \"#\", {rule} }}]")
            )
        );
        let url = format!("mqtt://{}", at(place));
        Setup::new()
            .shards(shards)
            .config(&text)
            .listen(&url)
            .start()
    };
    let brokers: Vec<_> = (0..3).map(start).collect();
    for broker in &brokers {
        await_line(broker, "bridge b is up");
    }
    brokers
}

fn a_ring_of_three_passes_each_message_once(shards: usize) {
    // Round in one direction, and each with each.
    for (rule, more) in [
        ("direction = \"out\"", ""),
        ("direction = \"both\"", "hops_max = 1"),
    ] {
        let brokers = ring(shards, rule, more);
        let mut clients: Vec<_> = brokers.iter().map(client).collect();
        for client in &mut clients {
            client.subscribe("t/#", 2);
        }
        for from in 0..3 {
            clients[from].publish("t/x", 2, format!("{from}"));
            for client in &mut clients {
                client.expect("t/x", format!("{from}"));
            }
        }
        // What would come again comes before what follows it.
        for client in &mut clients {
            client.publish("t/end", 2, "end");
        }
        for client in &mut clients {
            for _ in 0..3 {
                client.expect("t/end", "end");
            }
            client.expect_nothing();
        }
    }
}

#[test]
fn wrong_keys_are_refused_by_bridge_and_key() {
    for (text, wanted) in [
        (
            "topics = [{ filter = \"a/#/b\" }]",
            "bridge \"b\": \"a/#/b\"",
        ),
        (
            "keep_alive_seconds = 65535\ntopics = []",
            "65535 is not between",
        ),
        ("password_file = \"x\"\ntopics = []", "say bridge.user"),
        ("tls = { ca = \"x\" }\ntopics = []", "is without TLS"),
        (
            "topics = [{ filter = \"#\", qos_max = 3 }]",
            "3 is not 0, 1 or 2",
        ),
    ] {
        let config = bridge(SocketAddr::from(([127, 0, 0, 1], 1)), text);
        let ended = Setup::new().config(&config).run_to_end();
        assert_eq!(ended.status.code(), Some(2), "{}", ended.log);
        assert!(ended.log.contains(wanted), "{}", ended.log);
    }
    let config = bridge(SocketAddr::from(([127, 0, 0, 1], 1)), "topics = []");
    let config = config.replace("ms_min = 10", "ms_min = 100");
    let ended = Setup::new().config(&config).run_to_end();
    assert!(ended.log.contains("50 is less than"), "{}", ended.log);
}

/// Bans and limits of addresses are for who comes in.
#[test]
fn a_line_is_not_judged_as_one_that_comes_in() {
    let remote = Broker::start(1);
    let bans = Scratch::new("address 127.0.0.1\n");
    let more = format!(
        "topics = [{{ filter = \"t\" }}]\n[bans]\nfile = {:?}\nflapping_connects_max = 1\n\
         [limits]\nconnections_per_address_max = 1\n",
        bans.0
    );
    let relay = Relay::start(remote.address());
    let broker = Broker::with_config(2, &bridge(relay.address(), &more));
    await_line(&broker, "bridge b is up");
    relay.cut();
    let ups = || broker.log().matches("bridge b is up").count();
    eventually("it is up again", || (ups() > 1).then_some(()));
}

crate::on_shards!([1, 2]
    messages_go_both_ways_under_their_prefixes,
    properties_and_retain_go_through,
    what_goes_both_ways_passes_once,
    what_waits_while_the_line_is_down_goes_in_order,
    what_comes_in_resumes_too,
    what_was_acknowledged_waits_on_disk,
    what_is_retained_goes_to_who_does_not_know_it,
    what_waits_is_bounded,
    its_state_is_told,
    each_failure_is_told_with_its_cause,
    a_remote_that_knows_no_5_0_gets_3_1_1,
    operators_see_how_it_is,
    clients_are_listed_with_the_lines_version,
    topics_with_aliases_cost_their_bytes_once,
    what_the_other_broker_does_not_take_is_dropped_or_lowered,
    nobody_else_takes_a_bridges_session,
    a_ring_of_three_passes_each_message_once,
);
