//! Rates, connections per address, bans, and the audit log that tells of them.

use crate::support::{
    Broker, Certificates, Client, Connect, Packet, Props, Publish, Setup, Version, Will, Wire,
    eventually, prop, refused_handshake, unique,
};
use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

struct Scratch(String);

impl Scratch {
    fn new(text: &str) -> Self {
        let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("guard"));
        std::fs::write(&path, text).unwrap();
        Scratch(path)
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// In place of a code: closed without a word.
const CLOSED: u8 = 0xFF;

fn start(shards: usize, config: &str) -> Broker {
    Setup::new().shards(shards).config(config).start()
}

/// Fifty messages at ten a second, of which the first ten are free, take at least four seconds less one.
fn publishers_beyond_their_rate_are_delayed(shards: usize) {
    let broker = start(shards, "[limits]\npublish_rate_max = 50\n");
    let mut subscriber = Connect::v5(&unique("s")).open(&broker);
    subscriber.subscribe("t", 1);
    let mut publisher = Connect::v5(&unique("p")).open(&broker);
    let begun = Instant::now();
    // In portions, since what has arrived together is taken together.
    for n in 0..150 {
        publisher.publish("t", 1, n.to_string());
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(1_900),
        "{:?}",
        begun.elapsed()
    );
    for n in 0..150 {
        subscriber.expect("t", n.to_string());
    }
    assert!(broker.counters().get("rates_exceeded") > 0);
}

#[test]
fn publishers_beyond_their_rate_are_disconnected_where_that_is_said() {
    for limit in ["publish_rate_max = 5", "publish_bytes_rate_max = 40"] {
        let config = format!("[limits]\n{limit}\nrate_exceeded = \"disconnect\"\n");
        let broker = start(1, &config);
        for (version, goodbye) in [(Version::V5, Some(0x97)), (Version::V4, None)] {
            let mut client = Connect::new(version, &unique("p")).open(&broker);
            for _ in 0..8 {
                client.send_publish(&Publish::new("topic", 0, "x"));
            }
            let end = match client.next_packet() {
                Some(Packet::Disconnect { code, .. }) => Some(code),
                None => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(end, goodbye, "{limit}");
        }
    }
}

#[test]
fn subscribers_beyond_their_rate_are_delayed() {
    let broker = start(1, "[limits]\nsubscribe_rate_max = 20\n");
    let mut client = Connect::v5(&unique("c")).open(&broker);
    let begun = Instant::now();
    for n in 0..50 {
        client.subscribe(&format!("t/{n}"), 0);
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(1_400),
        "{:?}",
        begun.elapsed()
    );
}

/// QoS 1 waits and arrives; QoS 0 beyond the rate is dropped and counted.
fn deliveries_keep_to_their_rate(shards: usize) {
    let broker = start(shards, "[limits]\ndelivery_rate_max = 4\n");
    let mut subscriber = Connect::v5(&unique("s")).keep_alive(1).open(&broker);
    subscriber.subscribe("q1", 1);
    subscriber.subscribe("q0", 0);
    let mut publisher = Connect::v5(&unique("p")).open(&broker);
    let begun = Instant::now();
    for n in 0..12 {
        publisher.publish("q1", 1, n.to_string());
    }
    for _ in 0..10 {
        publisher.publish("q0", 0, "dropped");
    }
    for n in 0..12 {
        subscriber.expect("q1", n.to_string());
        subscriber.ping();
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(1_700),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(broker.counters().get("dropped_rate_limited"), 10);
    assert!(
        broker.log().contains("limits.delivery_rate_max"),
        "{}",
        broker.log()
    );
}

fn connections_per_address_are_limited(shards: usize) {
    let config = "[limits]\nconnections_per_address_max = 3\n\
        [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1/32\"]\n";
    let broker = start(shards, config);
    let from = |host: &str, connect: &Connect| {
        let mut client = Client::dial(&broker, connect.version);
        client.send(format!("PROXY TCP4 {host} 127.0.0.1 4660 1883\r\n").as_bytes());
        connect.attempt_over(client)
    };
    let id = || Connect::v5(&unique("c"));
    let mut kept: Vec<_> = (0..3).map(|_| from("10.0.0.1", &id())).collect();
    for (_, answer) in &kept {
        assert!(
            matches!(answer, Some(Packet::Connack { code: 0, .. })),
            "{answer:?}"
        );
    }
    for version in [Version::V4, Version::V5] {
        let (_, answer) = from("10.0.0.1", &Connect::new(version, &unique("c")));
        assert!(answer.is_none(), "{answer:?}");
    }
    let line = "from 10.0.0.1:4660 is refused: as many connections from its address as may be \
                (limits.connections_per_address_max = 3)";
    eventually(line, || broker.log().contains(line).then_some(()));
    let (_, answer) = from("10.0.0.2", &id());
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0, .. })),
        "{answer:?}"
    );
    // Who leaves makes room.
    kept.pop().unwrap().0.cut();
    eventually("there is room again", || {
        let (_, answer) = from("10.0.0.1", &id());
        matches!(answer, Some(Packet::Connack { code: 0, .. })).then_some(())
    });
}

/// All addresses of a network of IPv6 are one client's: so they count, and so they are banned.
#[test]
fn ipv6_addresses_count_and_are_banned_by_their_prefix() {
    let users = Scratch::new("");
    for (bits, second) in [
        ("", "2001:db8::2"),
        ("ipv6_prefix_bits = 48", "2001:db8:0:1::1"),
    ] {
        let config = format!(
            "allow_anonymous = true\npassword_file = {:?}\n[bans]\nfailed_logins_max = 3\n{bits}\n\
             [limits]\nconnections_per_address_max = 1\n[[listener]]\n\
             url = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1/32\"]\n",
            users.0
        );
        let broker = start(2, &config);
        let from = |host: &str, connect: &Connect| {
            let mut client = Client::dial(&broker, connect.version);
            client.send(format!("PROXY TCP6 {host} ::1 4660 1883\r\n").as_bytes());
            match connect.attempt_over(client) {
                (client, Some(Packet::Connack { code, .. })) => (client, code),
                (client, None) => (client, CLOSED),
                (_, other) => panic!("{other:?}"),
            }
        };
        let id = || Connect::v5(&unique("c"));
        let (first, code) = from("2001:db8::1", &id());
        assert_eq!(code, 0);
        assert_eq!(from(second, &id()).1, CLOSED, "{bits}");
        assert_eq!(from("2001:db8:1::1", &id()).1, 0, "{bits}");
        first.disconnect();
        eventually("there is room again", || {
            (from(second, &id()).1 == 0).then_some(())
        });
        // Each failure comes from another address.
        let failing = ["2001:db8::a", second, "2001:db8::c"];
        for host in failing {
            eventually("the login fails", || {
                (from(host, &id().login("ann", "wrong")).1 == 0x86).then_some(())
            });
        }
        eventually("the prefix is banned", || {
            (from("2001:db8::d", &id()).1 == CLOSED).then_some(())
        });
        assert_eq!(from("2001:db8:1::1", &id()).1, 0, "{bits}");
        // An operator reads what is banned.
        let banned = if bits.is_empty() {
            "2001:db8::/64"
        } else {
            "2001:db8::/48"
        };
        eventually(banned, || broker.log().contains(banned).then_some(()));
    }
}

fn banned_clients_users_and_networks_are_not_served(shards: usize) {
    let bans = Scratch::new("client bad\nuser mallory\naddress 10.0.0.0/24\n");
    let config = format!(
        "[bans]\nfile = {:?}\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1/32\"]\n",
        bans.0
    );
    let broker = start(shards, &config);
    let code = |connect: &Connect| match connect.attempt(&broker).1 {
        Some(Packet::Connack { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    let by_proxy = |host: &str| {
        let stream = std::net::TcpStream::connect(broker.addresses()[1]).unwrap();
        let mut client = Client::over(stream, Version::V5);
        client.send(format!("PROXY TCP4 {host} 127.0.0.1 4660 1883\r\n").as_bytes());
        Connect::v5(&unique("c")).attempt_over(client)
    };
    assert_eq!(code(&Connect::v5("bad")), 0x8A);
    assert_eq!(code(&Connect::v4("bad")), 5);
    assert_eq!(code(&Connect::v5(&unique("c")).login("mallory", "")), 0x8A);
    assert_eq!(code(&Connect::v5(&unique("c")).login("ann", "")), 0);
    let (_, answer) = by_proxy("10.0.0.9");
    assert!(answer.is_none(), "{answer:?}");
    let (mut other, answer) = by_proxy("10.0.1.9");
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0, .. })),
        "{answer:?}"
    );
    // Those that are there are closed when they are banned.
    let mut good = Connect::v5("good").open(&broker);
    std::fs::write(&bans.0, "client good\naddress 10.0.1.0/24\n").unwrap();
    broker.signal(Signal::HUP);
    for client in [&mut good, &mut other] {
        let end = client.recv();
        assert!(
            matches!(end, Packet::Disconnect { code: 0x98, .. }),
            "{end:?}"
        );
    }
    // Each shard hears of it for itself.
    eventually("the ban is lifted", || {
        (code(&Connect::v5("bad")) == 0).then_some(())
    });
}

/// More than a turn closes: the rest of them come in the next ones, also if bans change meanwhile.
#[test]
fn all_of_a_banned_network_are_closed_however_many_they_are() {
    let bans = Scratch::new("");
    let config = format!(
        "[bans]\nfile = {:?}\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n\
         proxy_protocol_from = [\"127.0.0.1/32\"]\n",
        bans.0
    );
    let broker = start(1, &config);
    let mut open: Vec<_> = (0..600)
        .map(|n| {
            let mut client = Client::dial(&broker, Version::V5);
            let host = format!("10.0.{}.{}", n % 3, n / 3);
            client.send(format!("PROXY TCP4 {host} 127.0.0.1 4660 1883\r\n").as_bytes());
            match Connect::v5(&unique("c")).attempt_over(client) {
                (client, Some(Packet::Connack { code: 0, .. })) => client,
                (_, other) => panic!("{other:?}"),
            }
        })
        .collect();
    for text in [
        "address 10.0.1.0/24\n",
        "address 10.0.1.0/24\naddress 10.0.2.0/24\n",
    ] {
        std::fs::write(&bans.0, text).unwrap();
        broker.signal(Signal::HUP);
    }
    for (n, client) in open.iter_mut().enumerate() {
        if n % 3 == 0 {
            client.ping();
        } else {
            let end = client.recv();
            assert!(
                matches!(end, Packet::Disconnect { code: 0x98, .. }),
                "{n}: {end:?}"
            );
        }
    }
    assert_eq!(broker.counters().get("connections_banned"), 400);
}

#[test]
fn repeated_failures_are_answered_by_a_ban_that_ends() {
    let users = Scratch::new("");
    let config = format!(
        "allow_anonymous = true\npassword_file = {:?}\n\
         [bans]\nfailed_logins_max = 3\nflapping_connects_max = 4\nseconds = 2\n",
        users.0
    );
    let broker = start(2, &config);
    let code = |connect: &Connect| match connect.attempt(&broker).1 {
        Some(Packet::Connack { code, .. }) => code,
        None => CLOSED,
        other => panic!("{other:?}"),
    };
    // So many and not one more, however fast they come.
    for expected in [0, 0, 0, 0, 0x8A, 0x8A] {
        assert_eq!(code(&Connect::v5("flapping")), expected);
    }
    let line = "connects within 60 s (bans.flapping_connects_max)";
    eventually(line, || broker.log().contains(line).then_some(()));
    assert_eq!(code(&Connect::v5("calm")), 0);
    eventually("the ban ends", || {
        (code(&Connect::v5("flapping")) == 0).then_some(())
    });
    let wrong = || Connect::v5(&unique("c")).login("ann", "wrong");
    for _ in 0..3 {
        assert_eq!(code(&wrong()), 0x86);
    }
    eventually("the address is banned", || {
        (code(&Connect::v5("calm")) == CLOSED).then_some(())
    });
    eventually("the ban ends", || {
        (code(&Connect::v5("calm")) == 0).then_some(())
    });
}

#[test]
fn the_audit_log_tells_who_came_and_what_was_refused_and_no_secret() {
    let log = Scratch::new("");
    let rules = Scratch::new("topic read x\n");
    let users = Scratch::new("");
    let config = format!(
        "allow_anonymous = true\naudit_file = {:?}\nacl_file = {:?}\npassword_file = {:?}\n",
        log.0, rules.0, users.0
    );
    let broker = start(2, &config);
    let events = |kind: &str| {
        let mut lines = log.lines();
        lines.retain(|line| line["event"] == kind);
        lines
    };
    let found = |kind: &str, count: usize| {
        eventually(kind, || (events(kind).len() >= count).then_some(()));
        events(kind)
    };
    let mut client = Connect::v5("c1").open(&broker);
    let connected = &found("connected", 1)[0];
    assert_eq!(connected["client_id"], "c1");
    assert_eq!(connected["method"], "anonymous");
    assert!(
        connected["peer"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert!(
        connected["listener"]
            .as_str()
            .unwrap()
            .starts_with("mqtt://")
    );
    // Denials come at a bounded rate per client; how many were left out follows though nobody is denied more.
    for _ in 0..20 {
        assert_eq!(client.publish_code("forbidden"), 0x87);
    }
    assert_eq!(found("denied", 1)[0]["topic"], "forbidden");
    let left_out = |line: &Value| line["left_out"].as_u64().unwrap();
    eventually("it is told how many there were", || {
        let more: u64 = events("denied_more").iter().map(left_out).sum();
        (events("denied").len() as u64 + more == 20).then_some(())
    });
    let (_, answer) = Connect::v5("c2").login("ann", "hunter2").attempt(&broker);
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0x86, .. })),
        "{answer:?}"
    );
    let refused = &found("refused", 1)[0];
    assert_eq!(
        (&refused["user_name"], &refused["reason"]),
        (&"ann".into(), &0x86.into())
    );
    assert_eq!(refused["reason_name"], "Bad User Name or Password");
    assert!(refused["why"].as_str().unwrap().contains("password"));
    let second = Connect::v5("c1").open(&broker);
    found("taken_over", 1);
    second.disconnect();
    found("disconnected", 2);
    // Rotation: moved away, SIGHUP, a new file.
    let old = Scratch(format!("{}.1", log.0));
    std::fs::rename(&log.0, &old.0).unwrap();
    broker.signal(Signal::HUP);
    let text = found("reloaded", 1)[0]["text"].as_str().unwrap().to_owned();
    assert!(text.ends_with(" reloaded"), "{text}");
    Connect::v5("c3").open(&broker);
    found("connected", 1);
    assert!(old.lines().len() > 5);
    let all = [log.lines(), old.lines()].concat();
    assert!(!format!("{all:?}{}", broker.log()).contains("hunter2"));
}

/// Why a client is not served stands in the log, in words, with its names and its address.
#[test]
fn the_log_tells_why_clients_are_not_served() {
    let (users, rules) = (Scratch::new(""), Scratch::new("topic readwrite open\n"));
    let config = format!(
        "log = \"debug\"\nallow_anonymous = true\npassword_file = {:?}\nacl_file = {:?}\n\
         [limits]\nmax_packet_bytes = 200\nconnect_timeout_ms = 1500\n[[listener]]\n\
         url = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n",
        users.0, rules.0
    );
    let broker = start(2, &config);
    let dial = |host: u8| {
        let mut client = Client::dial(&broker, Version::V5);
        let header = format!("PROXY TCP4 10.0.0.{host} 127.0.0.1 4660 1883\r\n");
        client.send(header.as_bytes());
        client
    };
    let open = |host: u8| Connect::v5(&format!("c{host}")).attempt_over(dial(host)).0;
    let said = |line: &str| eventually(line, || broker.log().contains(line).then_some(()));
    let wrong = || {
        Connect::v5("c1")
            .login("ann", "hunter2")
            .attempt_over(dial(1))
    };
    for _ in 0..10 {
        assert!(matches!(
            wrong().1,
            Some(Packet::Connack { code: 0x86, .. })
        ));
    }
    said(
        "client \"c1\" (user \"ann\") from 10.0.0.1:4660 is refused: its user is unknown, or its password",
    );
    let mut level = Connect::v5("c2").encode();
    level[8] = 9;
    let mut second = dial(2);
    second.send(&level);
    said(
        "a client from 10.0.0.2:4660 is refused: The protocol level 9 is not served, but 4 (3.1.1) and 5",
    );
    let mut third = dial(3);
    third.send(&[0xC0, 0]);
    said("a client from 10.0.0.3:4660 is refused: its first packet is not CONNECT");
    let mut fourth = open(4);
    fourth.send(&[0xC1, 0]);
    said(
        "client \"c4\" from 10.0.0.4:4660 is disconnected: The flags of the fixed header are not those",
    );
    let mut fifth = open(5);
    fifth.send(&Publish::new("open", 0, [0; 300]).encode(Version::V5));
    said(
        "client \"c5\" from 10.0.0.5:4660 is disconnected: its packet has 310 bytes, more than may be \
         (limits.max_packet_bytes = 200)",
    );
    let _older = open(6);
    let _newer = open(6);
    said(
        "client \"c6\" from 10.0.0.6:4660 is disconnected: a newer connection from 10.0.0.6:4660 has its client",
    );
    let _silent = Connect::v5("c7").keep_alive(1).attempt_over(dial(7));
    said(
        "client \"c7\" from 10.0.0.7:4660 is disconnected: nothing heard for one and a half keep alive",
    );
    let mut eighth = open(8);
    for _ in 0..5 {
        assert_eq!(eighth.publish_code("secret"), 0x87);
    }
    said("DEBUG client \"c8\" from 10.0.0.8:4660 may not publish to \"secret\" (acl_file)");
    said("DEBUG client \"c8\" from 10.0.0.8:4660 was denied so ");
    drop(eighth);
    open(9).subscribe_refused("secret", 0x87);
    said("DEBUG client \"c9\" from 10.0.0.9:4660 may not subscribe to \"secret\" (acl_file)");
    let mut twelfth = open(12);
    twelfth.send(&Connect::v5("c12").encode());
    said(
        "client \"c12\" from 10.0.0.12:4660 is disconnected: a second CONNECT: A client must not send",
    );
    let mut thirteenth = open(13);
    thirteenth.send(&[0xD0, 0]);
    said("client \"c13\" from 10.0.0.13:4660 is disconnected: PINGRESP: A client must not send");
    open(14).cut();
    said(
        "DEBUG client \"c14\" from 10.0.0.14:4660 has gone: it closed the connection without a DISCONNECT",
    );
    open(15).reset();
    said(
        "DEBUG client \"c15\" from 10.0.0.15:4660 has gone: its connection was reset, without a DISCONNECT",
    );
    let leaving = Connect::v5("c16").will(Will::new("secret", "x"));
    leaving.attempt_over(dial(16)).0.cut();
    said(
        "INFO the will of client \"c16\" from 10.0.0.16:4660 is left out, since it may not publish to \"secret\" \
         (acl_file)",
    );
    let _late = dial(10);
    said(
        "a client from 10.0.0.10:4660 is refused: its CONNECT did not come within limits.connect_timeout_ms",
    );
    // Of one address a few lines, and how many more there were on the shards that it came to.
    said("more lines on why clients from 10.0.0.1 are not served were left out");
    let lines = broker
        .log()
        .matches("from 10.0.0.1:4660 is refused")
        .count();
    assert!((3..=6).contains(&lines), "{lines} lines");
    assert!(!broker.log().contains("hunter2"));
    // Who comes and goes as he should is not worth a line.
    Connect::v5("quiet").attempt_over(dial(11)).0.disconnect();
    broker.await_counter("connections", 1);
    assert!(!broker.log().contains("10.0.0.11"));
}

/// What is refused by a limit or a setting is told at debug as what is denied by rules.
#[test]
fn the_log_tells_what_clients_may_not_and_by_which_key() {
    let config = "log = \"debug\"\n[limits]\nsubscriptions_per_session_max = 2\ntopic_levels_max = 3\n\
                  [mqtt]\nwildcard_subscriptions = false\nshared_subscriptions = false\n\
                  validate_payload_format = true\n";
    let broker = start(2, config);
    let said = |line: &str| eventually(line, || broker.log().contains(line).then_some(()));
    let refused = |version: Version, filter: &str, code: u8, why: &str| {
        let id = unique("c");
        let mut client = Connect::new(version, &id).open(&broker);
        if why.contains("subscriptions_per_session_max") {
            client.subscribe("a", 0);
            client.subscribe("b", 0);
        }
        client.subscribe_refused(filter, code);
        let (line, end) = (
            format!("client {id:?} from 127.0.0.1:"),
            format!("{filter:?}: {why}"),
        );
        eventually(&end, || {
            let log = broker.log();
            let mut lines = log.lines().filter(|text| text.contains(&line));
            lines
                .any(|text| text.contains("DEBUG") && text.ends_with(&end))
                .then_some(())
        });
    };
    for (version, filter, code, why) in [
        (
            Version::V5,
            "c",
            0x97,
            "it has as many subscriptions as may be (limits.subscriptions_per_session_max = 2)",
        ),
        (
            Version::V5,
            "a/b/c/d",
            0x97,
            "it has more levels than may be (limits.topic_levels_max = 3)",
        ),
        (
            Version::V4,
            "a/+",
            0x80,
            "wildcard subscriptions are switched off (mqtt.wildcard_subscriptions = false)",
        ),
        (
            Version::V4,
            "$share/g/a",
            0x80,
            "shared subscriptions are switched off (mqtt.shared_subscriptions = false)",
        ),
    ] {
        refused(version, filter, code, why);
    }
    let mut client = Connect::v5("c1").open(&broker);
    assert_eq!(client.publish_code("$SYS/x"), 0x87);
    said(
        "may not publish to \"$SYS/x\": topics under $SYS, $share and $queue are the broker's own",
    );
    let mut client = Connect::v5("c2").open(&broker);
    let props = Props::new().byte(prop::PAYLOAD_FORMAT, 1);
    let publish = Publish::new("t", 1, [0xFF]).id(7).props(props);
    client.send_publish(&publish);
    said(
        "may not publish to \"t\": a payload is not UTF-8 that says it is (mqtt.validate_payload_format)",
    );
    // Where it ends the connection, the filter is told as the client wrote it.
    let mut client = Connect::v5("c3").open(&broker);
    let bytes = client.subscribe_bytes(7, &Props::new(), &[("$share/g/a", 0)]);
    client.send(&bytes);
    said("shared subscriptions, such as to \"$share/g/a\", are switched off");
}

/// What comes to the wrong port is called by its name, and what would serve it.
#[test]
fn the_log_tells_what_came_to_the_wrong_port() {
    let certificates = Certificates::new();
    let config = format!(
        "{}[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n\
         [[listener]]\nurl = \"ws://127.0.0.1:0/here\"\n",
        certificates.section()
    );
    let hello: &[u8] = &[0x16, 3, 1, 0, 0xFA, 1, 0, 0, 0xF6, 3, 3];
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let proxy = b"PROXY TCP4 10.0.0.7 127.0.0.1 4660 1883\r\n";
    let connect = Connect::v5("c").encode();
    let to_plain = "is refused: its first packet is not CONNECT: it sends ";
    for (listener, bytes, words) in [
        (
            0,
            hello,
            format!("{to_plain}TLS, which its listener does not speak (listener.url: mqtts://"),
        ),
        (
            0,
            http,
            format!("{to_plain}HTTP, which its listener does not speak (listener.url: ws://"),
        ),
        (
            0,
            proxy,
            format!(
                "{to_plain}a PROXY header, and its address is not in listener.proxy_protocol_from"
            ),
        ),
        (
            1,
            &connect,
            "TLS: what it sends is not TLS: it is MQTT without TLS (listener.url: mqtt://".into(),
        ),
        (
            1,
            http,
            "TLS: what it sends is not TLS: it is HTTP without TLS (listener.url: ws://".into(),
        ),
        (
            1,
            proxy,
            "TLS: what it sends is not TLS: it is a PROXY header, and its address is not".into(),
        ),
        (
            2,
            &connect,
            "upgrade refused: it sends MQTT without a WebSocket (listener.url: mqtt://".into(),
        ),
        (
            2,
            hello,
            "upgrade refused: it sends TLS, which its listener does not speak".into(),
        ),
    ] {
        let broker = start(1, &config);
        // Where a listener is, is told with its path.
        let place = format!("listening on ws://{}/here", broker.addresses()[2]);
        assert!(
            broker.log().lines().any(|line| line.ends_with(&place)),
            "{}",
            broker.log()
        );
        let stream = std::net::TcpStream::connect(broker.addresses()[listener]).unwrap();
        let mut client = Client::over(stream, Version::V5);
        client.send_lossy(bytes);
        eventually(&words, || broker.log().contains(&words).then_some(()));
    }
}

/// A proxy that is trusted to name its clients and does not is told of.
#[test]
fn the_log_tells_of_proxies_that_name_nobody() {
    for (key, header) in [
        ("forwarded_from", "X-Forwarded-For"),
        ("real_ip_from", "X-Real-IP"),
    ] {
        let config =
            format!("[[listener]]\nurl = \"ws://127.0.0.1:0\"\n{key} = [\"127.0.0.0/8\"]\n");
        let broker = start(1, &config);
        let link = Wire::WebSocket.dial(broker.address()).expect("connect");
        let (_client, answer) = Connect::v5("c").attempt_over(Client::across(link, Version::V5));
        assert!(matches!(answer, Some(Packet::Connack { code: 0, .. })));
        let words =
            format!("counts as at the proxy's address: that has set no {header} (listener.{key})");
        eventually(&words, || broker.log().contains(&words).then_some(()));
        assert_eq!(broker.log().matches(&words).count(), 1);
    }
}

/// How a connection ended is in the audit log as well; who was told nothing has no code of a success.
#[test]
fn the_audit_log_tells_how_connections_ended() {
    let log = Scratch::new("");
    let broker = start(2, &format!("audit_file = {:?}\n", log.0));
    let noted = |kind: &str, id: &str| {
        eventually(kind, || {
            let mut lines = log.lines().into_iter();
            lines.find(|line| line["event"] == kind && line["client_id"] == id)
        })
    };
    let open = |id: &str| Connect::v5(id).open(&broker);
    open("closed").cut();
    open("reset").reset();
    open("well").disconnect();
    for (id, why) in [
        (
            "closed",
            "it closed the connection without a DISCONNECT".into(),
        ),
        (
            "reset",
            "its connection was reset, without a DISCONNECT".into(),
        ),
        ("well", Value::Null),
    ] {
        assert_eq!(noted("disconnected", id)["why"], why, "{id}");
    }
    let _older = open("taken");
    let newer = open("taken");
    let by = newer.stream().local_addr().unwrap().to_string();
    assert_eq!(noted("taken_over", "taken")["by"], by.as_str());
    Client::dial(&broker, Version::V5).send(&[0xC0, 0]);
    let refused = noted("refused", "");
    assert_eq!(
        (&refused["reason"], &refused["why"]),
        (&Value::Null, &"its first packet is not CONNECT".into())
    );
}

/// What was only counted is told when the broker stops: nothing follows that could tell it.
#[test]
fn what_was_counted_is_told_at_the_end() {
    let (rules, audit) = (Scratch::new("topic readwrite open\n"), Scratch::new(""));
    let config = format!(
        "log = \"debug\"\nacl_file = {:?}\naudit_file = {:?}\n",
        rules.0, audit.0
    );
    let mut broker = start(1, &config);
    let mut client = Connect::v5("eager").open(&broker);
    for _ in 0..30 {
        Client::dial(&broker, Version::V5).send(&[0xC0, 0]);
    }
    eventually("most are counted", || {
        let said = broker.log().matches("first packet is not CONNECT").count();
        (said == 3 && broker.counters().get("connections") == 1).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(client.publish_code("secret"), 0x87);
    }
    broker.signal(Signal::TERM);
    broker.wait_exit();
    let log = broker.log();
    for line in [
        "27 more lines on why clients from 127.0.0.1",
        "\"eager\" from 127.0.0.1:",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    let denied = log.matches("may not publish to \"secret\"").count();
    let lines = log.lines().filter_map(|line| {
        let (_, count) = line.split_once("was denied so ")?;
        count.split(' ').next()?.parse::<usize>().ok()
    });
    assert_eq!(denied + lines.sum::<usize>(), 20, "{log}");
    // So it is in the audit log, whose last lines come with the end of the shards.
    let audited = audit.lines();
    let of = |kind: &str| {
        audited
            .iter()
            .filter(|line| line["event"] == kind)
            .collect::<Vec<_>>()
    };
    let more = of("denied_more")
        .into_iter()
        .filter_map(|line| line["left_out"].as_u64());
    assert_eq!(
        of("denied").len() as u64 + more.sum::<u64>(),
        20,
        "{audited:?}"
    );
    assert_eq!(of("disconnected").len(), 1, "{audited:?}");
}

/// So do layers that fail, in the audit log as well, and levels of the protocol that are not known.
#[test]
fn the_logs_tell_of_handshakes_and_levels() {
    let (log, certificates) = (Scratch::new(""), Certificates::new());
    let config = format!(
        "audit_file = {:?}\nallow_anonymous = true\n[authentication]\ncertificate = \"common_name\"\n\
         [[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}client_ca = {:?}\n\
         [[listener]]\nurl = \"ws://127.0.0.1:0\"\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n",
        log.0,
        certificates.section(),
        certificates.path("ca.pem"),
    );
    let broker = start(1, &config);
    let said = |line: &str| eventually(line, || broker.log().contains(line).then_some(()));
    let noted = |why: &str| {
        eventually(why, || {
            let lines = log.lines().into_iter();
            let mut refused = lines.filter(|line| line["event"] == "refused");
            refused.find(|line| line["why"].as_str().is_some_and(|text| text.contains(why)))
        })
    };
    refused_handshake(Wire::Tls(&certificates, None), broker.addresses()[0]);
    said("is refused: TLS: ");
    noted("TLS: ");
    let send = |at: usize, bytes: &[u8]| {
        let stream = std::net::TcpStream::connect(broker.addresses()[at]).unwrap();
        let mut client = Client::over(stream, Version::V4);
        client.send(bytes);
        client
    };
    let _refused = send(1, b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n");
    said("is refused: WebSocket upgrade refused: ");
    noted("WebSocket upgrade refused: ");
    let mut level = Connect::v4("c").encode();
    level[8] = 9;
    send(2, &level).drain_to_close();
    let line =
        noted("The protocol level 9 is not served, but 4 (3.1.1) and 5 (5.0) with the name MQTT");
    assert_eq!(line["reason"], 0x84);
    assert_eq!(line["reason_name"], "Unsupported Protocol Version");
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
}

/// Who is refused beneath MQTT, or by what its certificate says, is told of with what to change.
#[test]
fn refusals_name_the_user_the_key_and_the_remedy() {
    let (log, certificates) = (Scratch::new(""), Certificates::new());
    certificates.client("pump", "pump-7", 3);
    let config = format!(
        "audit_file = {:?}\nallow_anonymous = true\n[limits]\nconnect_bytes_max = 128\n[authentication]\n\
         certificate = \"common_name\"\nclient_id = \"user_name\"\n\
         [[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}client_ca = {:?}\nclient_certificate = \"optional\"\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n",
        log.0,
        certificates.section(),
        certificates.path("ca.pem"),
    );
    let broker = start(1, &config);
    let noted = |why: &str| {
        eventually(why, || {
            let lines = log.lines().into_iter();
            let mut refused = lines.filter(|line| line["event"] == "refused");
            refused.find(|line| line["why"].as_str().is_some_and(|text| text.contains(why)))
        })
    };
    let send = |at: usize, bytes: &[u8]| {
        let mut stream = std::net::TcpStream::connect(broker.addresses()[at]).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    // A ClientHello of TLS 1.1.
    let hello = [
        &[1, 0, 0, 41, 3, 2][..],
        &[7; 32],
        &[0, 0, 2, 0, 0x2F, 1, 0],
    ]
    .concat();
    let hello = [&[0x16, 3, 1, 0, hello.len() as u8][..], &hello].concat();
    let _old = send(0, &hello);
    noted("TLS: it offers TLS 1.1 at most, ");
    let long = Connect::v5(&"c".repeat(200)).encode();
    let _long = send(1, &long);
    let bytes = long.len();
    noted(&format!(
        "its packet has {bytes} bytes, more than may be (limits.connect_bytes_max = 128)"
    ));
    let _direct = send(2, &Connect::v5("c").encode());
    noted("no PROXY header; its network has to send one (listener.proxy_protocol_from)");
    let wire = Wire::Tls(&certificates, Some("pump"));
    let link = wire.dial(broker.addresses()[0]).unwrap();
    let (_, answer) = Connect::v5("another").attempt_over(Client::across(link, Version::V5));
    assert!(matches!(answer, Some(Packet::Connack { code: 0x85, .. })));
    let line = noted(
        "its client identifier is not for its user: that is \"pump-7\" (authentication.client_id)",
    );
    assert_eq!(line["user_name"], "pump-7", "{line}");
}

/// A listener may set limits and methods of its own.
#[test]
fn listeners_have_limits_and_methods_of_their_own() {
    let users = Scratch::new("");
    let config = format!(
        "allow_anonymous = true\npassword_file = {:?}\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nconnect_rate_max = 2\nmethods = []\n\
         limits.publish_rate_max = 5\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n\
         [limits]\nrate_exceeded = \"disconnect\"\n",
        users.0
    );
    let broker = start(1, &config);
    let at = |listener: usize, connect: &Connect| {
        let stream = std::net::TcpStream::connect(broker.addresses()[listener]).unwrap();
        connect.attempt_over(Client::over(stream, connect.version))
    };
    let code = |answer: &Option<Packet>| match answer {
        Some(Packet::Connack { code, .. }) => *code,
        other => panic!("{other:?}"),
    };
    let id = || Connect::v5(&unique("c"));
    let (mut first, answer) = at(0, &id());
    assert_eq!(code(&answer), 0);
    // No method may be asked here, so a login proves nothing.
    let (_, answer) = at(0, &id().login("ann", "x"));
    assert_eq!(code(&answer), 0x86);
    assert_eq!(code(&at(0, &id()).1), 0x9F);
    assert_eq!(code(&at(0, &Connect::v4(&unique("c"))).1), 3);
    let (mut second, answer) = at(1, &id());
    assert_eq!(code(&answer), 0);
    for client in [&mut first, &mut second] {
        for _ in 0..20 {
            client.send_publish(&Publish::new("t", 0, "x"));
        }
    }
    let end = first.next_packet();
    assert!(
        matches!(end, Some(Packet::Disconnect { code: 0x97, .. })),
        "{end:?}"
    );
    second.ping();
}

/// What waits for an absent client is bounded as its listener says.
#[test]
fn queues_are_bounded_by_listener() {
    let config = "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nlimits.queue_bytes_max = 3000\n\
                  [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n";
    let broker = start(1, config);
    let open = |listener: usize, id: &str| {
        let stream = std::net::TcpStream::connect(broker.addresses()[listener]).unwrap();
        let connect = Connect::v5(id).persistent();
        connect
            .attempt_over(Client::over(stream, connect.version))
            .0
    };
    for (listener, id) in [(0, "small"), (1, "large")] {
        let mut client = open(listener, id);
        client.subscribe("t", 1);
        client.disconnect();
    }
    let mut publisher = open(1, "p");
    for _ in 0..10 {
        publisher.publish("t", 1, vec![b'x'; 1000]);
    }
    let dropped = broker.counters().get("dropped_queue_full");
    assert!((7..10).contains(&dropped), "{dropped}");
    let mut large = open(1, "large");
    for _ in 0..10 {
        large.accept();
    }
}

/// The address in the audit log of a client that comes through a WebSocket with these headers, behind these bytes.
pub(crate) fn peer_by_headers(trust: &str, before: &str, headers: &str) -> String {
    let log = Scratch::new("");
    let config = format!(
        "audit_file = {:?}\n[[listener]]\nurl = \"ws://127.0.0.1:0\"\n{trust}\n",
        log.0
    );
    let broker = start(2, &config);
    let mut stream = std::net::TcpStream::connect(broker.address()).unwrap();
    let upgrade = format!(
        "{before}GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n{headers}\r\n"
    );
    stream.write_all(upgrade.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
        answer.extend(byte);
    }
    let connect = Connect::v4("c").encode();
    let frame = [
        &[0x82, 0x80 | connect.len() as u8, 0, 0, 0, 0][..],
        &connect,
    ]
    .concat();
    stream.write_all(&frame).unwrap();
    eventually("the connect is recorded", || {
        Some(log.lines().first()?["peer"].as_str()?.to_owned())
    })
}

/// A proxy that is trusted names the client by the header that it sets; the other one may be the client's own.
#[test]
fn forwarded_addresses_count_from_trusted_proxies_and_by_their_header_only() {
    let forwarded = "X-Forwarded-For: 1.2.3.4, 10.0.0.9\r\n";
    let real = "X-Real-IP: 10.0.0.7\r\n";
    let both = format!("{forwarded}{real}");
    let sets_forwarded = "forwarded_from = [\"127.0.0.0/8\"]";
    let sets_real = "real_ip_from = [\"127.0.0.0/8\"]";
    let others = "forwarded_from = [\"10.0.0.0/8\"]\nreal_ip_from = [\"11.0.0.0/8\"]";
    for (trust, headers, wanted) in [
        (sets_forwarded, forwarded, "10.0.0.9:0"),
        (sets_forwarded, both.as_str(), "10.0.0.9:0"),
        (sets_forwarded, real, "127.0.0.1:"),
        (sets_real, real, "10.0.0.7:0"),
        (sets_real, &both, "10.0.0.7:0"),
        (sets_real, forwarded, "127.0.0.1:"),
        (others, &both, "127.0.0.1:"),
    ] {
        let peer = peer_by_headers(trust, "", headers);
        assert!(peer.starts_with(wanted), "{trust} {headers}: {peer}");
    }
}

/// Clients at another address of this machine that send all at once and reset, before they are accepted.
fn send_and_reset(broker: &Broker, from: [u8; 4], count: usize, bytes: impl Fn(usize) -> Vec<u8>) {
    for n in 0..count {
        let socket = dial_from(broker, from);
        (&socket).write_all(&bytes(n)).expect("send");
        let reset = Some(Duration::ZERO);
        socket.set_linger(reset).expect("set SO_LINGER");
    }
}

pub(crate) fn dial_from(broker: &Broker, from: [u8; 4]) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket
        .bind(&SocketAddr::from((from, 0)).into())
        .expect("bind");
    socket.connect(&broker.address().into()).expect("connect");
    socket
}

pub(crate) fn open_from(broker: &Broker, from: [u8; 4], connect: &Connect) -> Client {
    let client = Client::over(dial_from(broker, from).into(), connect.version);
    match connect.attempt_over(client) {
        (client, Some(Packet::Connack { code: 0, .. })) => client,
        (_, other) => panic!("{other:?}"),
    }
}

#[test]
fn who_resets_at_once_is_banned_all_the_same() {
    let bans = Scratch::new("address 127.0.0.1\n");
    let broker = start(1, &format!("[bans]\nfile = {:?}\n", bans.0));
    let mut subscriber = open_from(&broker, [127, 0, 0, 2], &Connect::v5(&unique("s")));
    subscriber.subscribe("t/#", 0);
    send_and_reset(&broker, [127, 0, 0, 1], 500, |n| {
        let connect = Connect::v4(&format!("evil-{n}")).encode();
        let publish = Publish::new("t/forged", 0, n.to_string()).encode(Version::V4);
        [connect, publish].concat()
    });
    broker.await_counter("connections_banned", 500);
    broker.await_counter("connections", 1);
    subscriber.expect_nothing();
}

#[test]
fn who_resets_at_once_is_no_trusted_proxy() {
    let log = Scratch::new("");
    let config = format!(
        "audit_file = {:?}\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n\
         proxy_protocol_from = [\"127.0.0.1/32\"]\n",
        log.0
    );
    let broker = start(1, &config);
    send_and_reset(&broker, [127, 0, 0, 2], 500, |n| {
        let header = b"PROXY TCP4 10.9.9.9 10.0.0.1 1 2\r\n";
        let connect = Connect::v4(&format!("evil-{n}")).encode();
        [&header[..], &connect].concat()
    });
    broker.await_counter("connections_accepted", 500);
    broker.await_counter("connections", 0);
    let told = open_from(&broker, [127, 0, 0, 2], &Connect::v5("last"));
    let connected = eventually("the last one is recorded", || {
        let mut lines = log.lines();
        lines.retain(|line| line["event"] == "connected");
        (!lines.is_empty()).then_some(lines)
    });
    assert_eq!(connected.len(), 1, "{connected:?}");
    assert_eq!(connected[0]["client_id"], "last");
    drop(told);
}

/// Who connects again and again under somebody else's identifier has only itself banned.
#[test]
fn flapping_bans_nobody_elses_identifier() {
    let config = "[bans]\nflapping_connects_max = 3\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n\
                  proxy_protocol_from = [\"127.0.0.1/32\"]\n";
    let broker = start(2, config);
    let from = |host: &str, id: &str| {
        let mut client = Client::dial(&broker, Version::V5);
        client.send(format!("PROXY TCP4 {host} 127.0.0.1 4660 1883\r\n").as_bytes());
        match Connect::v5(id).attempt_over(client).1 {
            Some(Packet::Connack { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    };
    for _ in 0..3 {
        assert_eq!(from("10.0.0.1", "pump"), 0);
    }
    eventually("the one that flaps is banned", || {
        (from("10.0.0.1", "pump") == 0x8A).then_some(())
    });
    let line = "client \"pump\" at 10.0.0.1/32";
    eventually(line, || broker.log().contains(line).then_some(()));
    assert_eq!(from("10.0.0.2", "pump"), 0, "its owner");
    assert_eq!(from("10.0.0.1", "other"), 0, "its neighbour");
}

#[test]
fn giving_filters_up_counts_as_subscribing() {
    let broker = start(
        1,
        "[limits]\nsubscribe_rate_max = 5\nrate_exceeded = \"disconnect\"\n",
    );
    let mut client = Connect::v5(&unique("c")).open(&broker);
    let bytes = client.unsubscribe_bytes(7, &["a", "b", "c", "d", "e", "f"]);
    client.send(&bytes);
    client.expect_error(&[0x97]);
}

/// What waits behind retained messages is bounded as the queue of its listener.
#[test]
fn held_messages_are_bounded_by_listener() {
    let config = "[limits]\ninflight_max = 1\nqueue_messages_max = 20\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n\
                  limits.queue_bytes_max = 3000\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n";
    let broker = start(1, config);
    let at = |listener: usize| {
        let stream = std::net::TcpStream::connect(broker.addresses()[listener]).unwrap();
        let connect = Connect::v5(&unique("c"));
        connect
            .attempt_over(Client::over(stream, connect.version))
            .0
    };
    let mut publisher = at(1);
    for n in 0..200 {
        publisher.retain(&format!("kept/{n}"), 1, "x");
    }
    for (listener, is_bounded) in [(1, false), (0, true)] {
        // It acknowledges nothing, so what is retained does not come to its end.
        let mut client = at(listener);
        client.subscribe("kept/#", 1);
        for _ in 0..10 {
            publisher.publish("kept/live", 1, vec![b'x'; 1000]);
        }
        let dropped = broker.counters().get("dropped_replay_full");
        assert_eq!(dropped > 0, is_bounded, "{dropped}");
        client.disconnect();
    }
}

/// Another user's connection under the same client identifier gets nothing of the session.
#[test]
fn a_session_belongs_to_its_user() {
    let users = Scratch::new("");
    for user in ["ann", "bob"] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_ringmq"))
            .args(["passwd", &users.0, user])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"secret\n").unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
    let broker = start(2, &format!("password_file = {:?}\n", users.0));
    let connect = |user| Connect::v5("shared").persistent().login(user, "secret");
    let mut ann = connect("ann").open(&broker);
    ann.subscribe("t", 1);
    ann.disconnect();
    let mut publisher = Connect::v5(&unique("p"))
        .login("bob", "secret")
        .open(&broker);
    publisher.publish("t", 1, "for ann");
    let again = connect("ann").open(&broker);
    assert!(again.session_present);
    again.disconnect();
    let mut bob = connect("bob").open(&broker);
    assert!(!bob.session_present);
    let code = bob.publish_code("t");
    assert_eq!(code, 0x10, "the subscription is gone");
}

crate::on_shards!([1, 2, 4] publishers_beyond_their_rate_are_delayed, deliveries_keep_to_their_rate,
    connections_per_address_are_limited, banned_clients_users_and_networks_are_not_served);
