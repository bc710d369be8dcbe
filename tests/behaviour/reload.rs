//! The configuration read anew while the broker runs: what changes, what needs a restart, what is wrong, and
//! that nobody who is connected is disturbed.

use crate::bridges::bridge_as;
use crate::operator::run;
use crate::support::{
    Broker, Certificates, Client, Connect, Outcome, Packet, Publish, Setup, Version, Wire,
    eventually, free_port, unique,
};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// A broker whose configuration is written anew.
pub struct Renewed {
    pub broker: Broker,
    /// Its configuration.
    path: String,
    admin: String,
    /// Where it answers.
    pub at: String,
}

impl Renewed {
    pub fn start(shards: usize, config: &str) -> Self {
        let name = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("reload"));
        let (path, socket) = (format!("{name}.toml"), format!("{name}.socket"));
        let admin = format!("[admin]\nsocket = {socket:?}\n");
        std::fs::write(&path, format!("{config}{admin}")).expect("write");
        let setup = Setup::new().shards(shards).arg("--config").arg(&path);
        let setup = match config.matches("[[listener]]").count() {
            0 => setup.listen("mqtt://127.0.0.1:0"),
            tables => setup.tables(tables),
        };
        Renewed {
            broker: setup.start(),
            path,
            admin,
            at: format!("unix://{socket}"),
        }
    }

    pub fn write(&self, config: &str) {
        let text = format!("{config}{}", self.admin);
        std::fs::write(&self.path, text).expect("write");
    }

    /// Has another configuration in force on all shards.
    pub fn change(&self, config: &str) -> Outcome {
        let line = "the configuration is reloaded";
        let before = self.broker.log().matches(line).count();
        self.write(config);
        let outcome = self.reload();
        assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
        eventually(line, || {
            (self.broker.log().matches(line).count() > before).then_some(())
        });
        outcome
    }

    pub fn reload(&self) -> Outcome {
        run(&["reload", "--admin", &self.at], &[])
    }

    /// What a reload of what is written would do.
    pub fn compare(&self) -> Outcome {
        run(&["check-config", &self.path, "--against-running"], &[])
    }
}

/// Twelve keys, all with other values by turns.
fn keys(turn: usize) -> String {
    let (one, log) = (turn % 2, ["info", "debug"][turn % 2]);
    format!(
        "log = {log:?}\n\
         [limits]\nreceive_maximum = {}\ninflight_max = {}\nmax_packet_bytes = {}\n\
         topic_alias_max = {}\noutbox_bytes_max = {}\nqueue_messages_max = {}\n\
         turn_deliveries_max = {}\nconnect_timeout_ms = {}\npublish_rate_max = {}\n\
         [session]\nexpiry_seconds_max = {}\n[mqtt]\nkeep_alive_seconds_max = {}\n",
        100 + one,
        200 + one,
        65_536 + one,
        10 + one,
        1_000_000 + one,
        5_000 + one,
        16_384 >> one,
        20_000 + one,
        1_000_000 + one,
        300 + one,
        600 + one,
    )
}

/// Keys change again and again while messages flow: nobody is disconnected, nothing is lost or doubled.
fn keys_change_under_load_and_nobody_is_disturbed(shards: usize) {
    let renewed = Renewed::start(shards, &keys(0));
    let broker = &renewed.broker;
    let mut subscribers: Vec<_> = (0..6)
        .map(|n| {
            let mut client = Connect::v5(&unique("s")).open(broker);
            client.subscribe("t/#", n % 3);
            client
        })
        .collect();
    let mut publisher = Connect::v5(&unique("p")).open(broker);
    for n in 0..400_usize {
        if n % 40 == 20 {
            let outcome = renewed.change(&keys(n / 40 + 1));
            assert_eq!(
                outcome.output.matches("changed: ").count(),
                12,
                "{outcome:?}"
            );
            assert_eq!(outcome.log, "", "nothing needs a restart");
            let mut new = Connect::v5(&unique("new")).open(broker);
            new.ping();
        }
        // None is of QoS 0, which would overtake what waits for the window.
        let qos = if n % 2 == 0 { 1 } else { 2 };
        publisher.publish(&format!("t/{}", n % 7), qos, n.to_string());
    }
    for subscriber in &mut subscribers {
        for n in 0..400 {
            subscriber.expect(&format!("t/{}", n % 7), n.to_string());
        }
        subscriber.ping();
    }
    assert_eq!(broker.counters().get("protocol_errors"), 0);
    renewed.broker.stop();
}

/// Sends so many bytes.
fn publish_bytes(client: &mut Client, bytes: usize) {
    client.publish("t", 1, vec![b'x'; bytes]);
}

/// What a client was told at its CONNACK holds as long as its connection; who comes later is told what holds
/// then.
fn what_a_client_was_told_holds_until_it_connects_again(shards: usize) {
    let config = |bytes: usize, maximum| {
        format!("[limits]\nmax_packet_bytes = {bytes}\nreceive_maximum = {maximum}\n")
    };
    let renewed = Renewed::start(shards, &config(100_000, 50));
    let told = |connack: &Option<Packet>| match connack {
        Some(Packet::Connack { code: 0, props, .. }) => (props.number(0x27), props.number(0x21)),
        other => panic!("{other:?}"),
    };
    let (mut older, connack) = Connect::v5(&unique("older")).attempt(&renewed.broker);
    assert_eq!(told(&connack), (Some(100_000), Some(50)));
    renewed.change(&config(1_000, 3));
    publish_bytes(&mut older, 50_000);
    let (mut newer, connack) = Connect::v5(&unique("newer")).attempt(&renewed.broker);
    assert_eq!(told(&connack), (Some(1_000), Some(3)));
    newer.send_publish(&Publish::new("t", 1, vec![b'x'; 2_000]));
    newer.expect_error(&[0x95]);
    // And the other way round: who was told less may not do more.
    let mut newer = Connect::v5(&unique("newer")).open(&renewed.broker);
    renewed.change(&config(100_000, 50));
    publish_bytes(&mut older, 50_000);
    newer.send_publish(&Publish::new("t", 1, vec![b'x'; 2_000]));
    newer.expect_error(&[0x95]);
    renewed.broker.stop();
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A listener, with more keys.
fn listener(scheme: &str, port: u16, more: &str) -> String {
    format!("[[listener]]\nurl = \"{scheme}://{}\"\n{more}\n", at(port))
}

fn dial(port: u16, version: Version) -> Client {
    let stream = TcpStream::connect(at(port)).expect("connect");
    Client::over(stream, version)
}

#[track_caller]
fn open(port: u16, id: &str) -> Client {
    let (client, answer) = Connect::v5(&unique(id)).attempt_over(dial(port, Version::V5));
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0, .. })),
        "{answer:?}"
    );
    client
}

/// Listeners come and go; clients of those that stay are not touched, those of one that goes are sent away.
fn listeners_come_and_go_beside_others(shards: usize) {
    let [stays, goes, comes] = [(); 3].map(|()| free_port());
    let both = format!(
        "{}{}",
        listener("mqtt", stays, ""),
        listener("mqtt", goes, "")
    );
    let renewed = Renewed::start(shards, &both);
    let mut subscriber = open(stays, "s");
    subscriber.subscribe("t/#", 1);
    let mut publisher = open(stays, "p");
    for round in 0..3 {
        let mut of_other = open(goes, "o");
        publisher.publish("t/1", 1, format!("before {round}"));
        let other = format!(
            "{}{}",
            listener("mqtt", comes, ""),
            listener("mqtt", stays, "")
        );
        renewed.change(&other);
        publisher.publish("t/1", 1, format!("after {round}"));
        let mut new = open(comes, "n");
        new.publish("t/2", 1, format!("new {round}"));
        of_other.expect_error(&[0x8b]);
        eventually("nobody is listened to there", || {
            TcpStream::connect(at(goes)).is_err().then_some(())
        });
        renewed.change(&both);
        new.expect_error(&[0x8b]);
        open(goes, "again").ping();
        for (topic, word) in [("t/1", "before"), ("t/1", "after"), ("t/2", "new")] {
            subscriber.expect(topic, format!("{word} {round}"));
        }
    }
    subscriber.ping();
    let log = renewed.broker.log();
    let line = format!("not listening on mqtt://{} any more", at(goes));
    assert_eq!(log.matches(&line).count(), 3, "{log}");
    renewed.broker.stop();
}

/// One that stays at its place keeps its clients, whatever else of it changes; new ones find it as it is then.
fn an_altered_listener_keeps_its_clients(shards: usize) {
    let certificates = Certificates::new();
    let port = free_port();
    let renewed = Renewed::start(shards, &listener("mqtt", port, ""));
    let (mut older, _) = Connect::v4(&unique("older")).attempt_over(dial(port, Version::V4));
    older.ping();
    renewed.change(&listener(
        "mqtt",
        port,
        "protocols = [\"5.0\"]\nconnections_max = 3",
    ));
    let (_, refused) = Connect::v4(&unique("c")).attempt_over(dial(port, Version::V4));
    assert!(
        matches!(refused, Some(Packet::Connack { code: 1, .. })),
        "{refused:?}"
    );
    older.ping();
    let secure =
        listener("mqtts", port, "") + &certificates.section().replace("[tls]", "[listener.tls]");
    renewed.change(&secure);
    older.ping();
    let link = Wire::Tls(&certificates, None).dial(at(port)).expect("TLS");
    let (mut newer, answer) =
        Connect::v5(&unique("newer")).attempt_over(Client::across(link, Version::V5));
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0, .. })),
        "{answer:?}"
    );
    renewed.change(&listener("mqtt", port, ""));
    newer.ping();
    open(port, "plain").ping();
    older.ping();
    renewed.broker.stop();
}

/// A bridge comes, is altered and goes beside clients that do not notice; what waits for one that is altered
/// goes through it then.
fn bridges_come_change_and_go(shards: usize) {
    let remote = Broker::start(shards);
    let config = |prefix: &str| {
        let topics = format!("topics = [{{ filter = \"up/#\", remote_prefix = \"{prefix}\" }}]");
        bridge_as("b", "there", remote.address(), &topics)
    };
    let renewed = Renewed::start(shards, "");
    let mut here = Connect::v5(&unique("c")).open(&renewed.broker);
    let mut there = Connect::v5(&unique("c")).open(&remote);
    there.subscribe("#", 1);
    let up = |times: usize| {
        eventually("the bridge is up", || {
            let log = renewed.broker.log();
            (log.matches("bridge b is up").count() == times).then_some(())
        });
    };
    renewed.change(&config("one/"));
    up(1);
    here.publish("up/x", 1, "1");
    there.expect("one/up/x", "1");
    let list = run(&["bridges", "--config", &renewed.path], &[]);
    let row: Vec<_> = list
        .output
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(row.get(..2), Some(&["b", "up"][..]), "{list:?}");
    let outcome = renewed.change(&config("two/"));
    assert!(
        outcome.output.starts_with("changed: bridge.topics of b: "),
        "{outcome:?}"
    );
    here.publish("up/x", 1, "2");
    there.expect("two/up/x", "2");
    up(2);
    // Paused, what is for it waits.
    renewed.change(&config("two/").replace("topics", "paused = true\ntopics"));
    eventually("it is paused", || {
        let list = run(&["bridges", "--config", &renewed.path], &[]);
        list.output.contains(" paused ").then_some(())
    });
    here.publish("up/x", 1, "waits");
    there.expect_nothing();
    renewed.change(&config("two/"));
    there.expect("two/up/x", "waits");
    up(3);
    // Another key leaves it alone.
    renewed.change(&format!(
        "{}[limits]\nqueue_messages_max = 7\n",
        config("two/")
    ));
    here.publish("up/x", 1, "3");
    there.expect("two/up/x", "3");
    renewed.change("");
    eventually("its session has ended", || {
        let sessions = run(&["sessions", "--config", &renewed.path], &[]);
        (!sessions.output.contains("$bridge/b")).then_some(())
    });
    here.publish("up/x", 1, "4");
    there.expect_nothing();
    here.ping();
    assert_eq!(renewed.broker.log().matches("bridge b is up").count(), 3);
    renewed.broker.stop();
}

/// Who is there stays, and counts, also who came when nothing was counted.
fn connections_of_an_address_are_limited_anew(shards: usize) {
    let renewed = Renewed::start(shards, "");
    let change = |max: usize| {
        let config = format!("[limits]\nconnections_per_address_max = {max}\n");
        let outcome = renewed.change(&config);
        let changed = "changed: limits.connections_per_address_max: ";
        assert!(outcome.output.starts_with(changed), "{outcome:?}");
        assert_eq!(outcome.log, "", "nothing needs a restart");
    };
    let comes = || {
        let (client, answer) = Connect::v5(&unique("c")).attempt(&renewed.broker);
        matches!(answer, Some(Packet::Connack { code: 0, .. })).then_some(client)
    };
    let nobody_comes = || eventually("nobody comes in", || comes().is_none().then_some(()));
    let mut there: Vec<_> = (0..5).map(|_| comes().expect("no limit")).collect();
    there[0].subscribe("t", 1);
    let undisturbed = |there: &mut Vec<Client>| {
        there.iter_mut().for_each(Client::ping);
        there[1].publish("t", 1, "x");
        there[0].expect("t", "x");
    };
    change(3);
    nobody_comes();
    let line = "(limits.connections_per_address_max = 3)";
    eventually(line, || renewed.broker.log().contains(line).then_some(()));
    undisturbed(&mut there);
    change(7);
    there.extend((0..2).map(|_| eventually("there is room for two more", comes)));
    nobody_comes();
    change(6);
    nobody_comes();
    undisturbed(&mut there);
    there.truncate(2);
    there.extend((0..4).map(|_| eventually("who leaves makes room", comes)));
    nobody_comes();
    let outcome = renewed.change("");
    assert!(outcome.output.starts_with("changed: "), "{outcome:?}");
    there.extend((0..9).map(|_| comes().expect("no limit any more")));
    undisturbed(&mut there);
    // Who came in between counts, and who has gone meanwhile does not.
    change(7);
    nobody_comes();
    there.truncate(6);
    there.push(eventually("there is room", comes));
    undisturbed(&mut there);
    renewed.broker.stop();
}

crate::on_shards!([1, 4] keys_change_under_load_and_nobody_is_disturbed, bridges_come_change_and_go,
    connections_of_an_address_are_limited_anew, listeners_come_and_go_beside_others, an_altered_listener_keeps_its_clients,
    what_a_client_was_told_holds_until_it_connects_again);

#[test]
fn a_wrong_file_changes_nothing_and_says_why() {
    let rules = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("access"));
    std::fs::write(&rules, "topic readwrite #\n").expect("write");
    let config = |maximum: usize| {
        format!(
            "acl_file = {rules:?}\n[limits]\nreceive_maximum = {maximum}\nqueue_messages_max = 7\n"
        )
    };
    let renewed = Renewed::start(2, &config(50));
    let is_as_before = || {
        renewed.write(&config(50));
        let same = renewed.compare();
        assert_eq!(same.output, "a reload would change nothing\n", "{same:?}");
    };
    renewed.write(&config(51).replace("queue_messages_max = 7", "queue_messages_max = \"x\""));
    let wrong = renewed.reload();
    assert_eq!(
        (wrong.status.code(), &*wrong.output),
        (Some(1), ""),
        "{wrong:?}"
    );
    let place = format!("{}:4: queue_messages_max", renewed.path);
    assert!(wrong.log.contains(&place), "{wrong:?}");
    is_as_before();
    // Nor does a file that it names, though the configuration itself is right.
    std::fs::write(&rules, "topic what #\n").expect("write");
    renewed.write(&config(51));
    let wrong = renewed.reload();
    assert_eq!(
        (wrong.status.code(), &*wrong.output),
        (Some(1), ""),
        "{wrong:?}"
    );
    assert!(wrong.log.contains(&rules), "{wrong:?}");
    std::fs::write(&rules, "topic readwrite #\n").expect("write");
    is_as_before();
    let (_, connack) = Connect::v5(&unique("c")).attempt(&renewed.broker);
    let Some(Packet::Connack { props, .. }) = connack else {
        panic!("{connack:?}");
    };
    assert_eq!(props.number(0x21), Some(50));
    let log = renewed.broker.log();
    assert!(
        log.contains("not reloaded, what was before stays in force"),
        "{log}"
    );
    assert!(!log.contains("the configuration is reloaded"), "{log}");
}

/// A place that somebody else has refuses the whole reload.
#[test]
fn a_listener_that_cannot_be_changes_nothing() {
    let taken = TcpListener::bind(at(0)).expect("a port");
    let port = taken.local_addr().expect("its number").port();
    let (stays, free) = (free_port(), free_port());
    let config = listener("mqtt", stays, "");
    let renewed = Renewed::start(1, &config);
    let more = [free, port].map(|port| listener("mqtt", port, ""));
    renewed.write(&format!(
        "[limits]\nqueue_messages_max = 7\n{config}{}",
        more.concat()
    ));
    let wrong = renewed.reload();
    assert_eq!(
        (wrong.status.code(), &*wrong.output),
        (Some(1), ""),
        "{wrong:?}"
    );
    assert!(wrong.log.contains(&at(port).to_string()), "{wrong:?}");
    assert!(wrong.log.contains("the port is in use"), "{wrong:?}");
    assert!(TcpStream::connect(at(free)).is_err());
    renewed.write(&config);
    let same = renewed.compare();
    assert_eq!(same.output, "a reload would change nothing\n", "{same:?}");
    open(stays, "c").ping();
}

#[test]
fn what_needs_a_restart_is_named_and_stays_as_it_is() {
    let renewed = Renewed::start(1, "");
    let config = "allow_anonymous = true\n[limits]\nmailbox_letters_max = 1000\nqueue_messages_max = 7\n\
                  [authentication.http]\nauthenticate_url = \"http://127.0.0.1:9/\"\n\
                  headers = { Authorization = \"s3cr3t\" }\n";
    renewed.write(config);
    let compared = renewed.compare();
    let changes = "limits.queue_messages_max: not said, which is 10000 -> 7";
    let restart = "limits.mailbox_letters_max: not said, which is 4096 -> 1000";
    for line in [
        format!("a reload would change {changes}\n"),
        format!("needs a restart: {restart}\n"),
        "a reload would change authentication.http.authenticate_url: not said -> \
         \"http://127.0.0.1:9/\"\n"
            .to_owned(),
    ] {
        assert!(compared.output.contains(&line), "{line}{compared:?}");
    }
    let json = run(
        &["check-config", &renewed.path, "--against-running", "--json"],
        &[],
    );
    let json: serde_json::Value = serde_json::from_str(&json.output).expect("JSON");
    let would_change = json["would_change"].as_array().expect("a list");
    assert!(would_change.iter().any(|text| text == changes), "{json}");
    let outcome = renewed.change(config);
    assert!(
        outcome.output.contains(&format!("changed: {changes}\n")),
        "{outcome:?}"
    );
    assert!(
        outcome.log.contains(&format!("needs a restart: {restart}")),
        "{outcome:?}"
    );
    let changed = || renewed.broker.log().matches("changed: ").count();
    let before = changed();
    // By a signal, and again as long as it is so.
    renewed.broker.signal(Signal::HUP);
    eventually("it is said again", || {
        let log = renewed.broker.log();
        let line = format!("WARN needs a restart: {restart}");
        (log.matches(&line).count() == 2).then_some(())
    });
    let log = renewed.broker.log();
    assert_eq!(changed(), before, "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
}
