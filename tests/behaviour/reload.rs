//! The configuration read anew while the broker runs: what changes, what needs a restart, what is wrong, and
//! that nobody who is connected is disturbed.

use crate::operator::run;
use crate::support::{
    Broker, Client, Connect, Outcome, Packet, Publish, Setup, eventually, unique,
};
use rustix::process::Signal;

/// A broker whose configuration is written anew.
struct Renewed {
    broker: Broker,
    /// Its configuration.
    path: String,
    admin: String,
}

impl Renewed {
    fn start(shards: usize, config: &str) -> Self {
        let name = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("reload"));
        let (path, socket) = (format!("{name}.toml"), format!("{name}.socket"));
        let admin = format!("[admin]\nsocket = {socket:?}\n");
        std::fs::write(&path, format!("{config}{admin}")).expect("write");
        let setup = Setup::new().shards(shards).arg("--config").arg(&path);
        Renewed {
            broker: setup.listen("mqtt://127.0.0.1:0").start(),
            path,
            admin,
        }
    }

    fn write(&self, config: &str) {
        let text = format!("{config}{}", self.admin);
        std::fs::write(&self.path, text).expect("write");
    }

    /// Has another configuration in force on all shards.
    fn change(&self, config: &str) -> Outcome {
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

    fn reload(&self) -> Outcome {
        run(&["reload", "--config", &self.path], &[])
    }

    /// What a reload of what is written would do.
    fn compare(&self) -> Outcome {
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
        publisher.publish(&format!("t/{}", n % 7), (n % 3) as u8, n.to_string());
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

crate::on_shards!([1, 4] keys_change_under_load_and_nobody_is_disturbed,
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

#[test]
fn what_needs_a_restart_is_named_and_stays_as_it_is() {
    let renewed = Renewed::start(1, "");
    let config = "[limits]\nmailbox_letters_max = 1000\nqueue_messages_max = 7\n\
                  [authentication.http]\nauthenticate_url = \"http://me:s3cr3t@127.0.0.1:9/\"\n\
                  headers = { Authorization = \"s3cr3t\" }\n";
    renewed.write(config);
    let compared = renewed.compare();
    let changes = "limits.queue_messages_max: not said, which is 10000 -> 7";
    let restart = "limits.mailbox_letters_max: not said, which is 4096 -> 1000";
    for line in [
        format!("a reload would change {changes}\n"),
        format!("needs a restart: {restart}\n"),
        "needs a restart: authentication.http.authenticate_url: not said -> \
         \"http://(hidden)@127.0.0.1:9/\"\n"
            .to_owned(),
    ] {
        assert!(compared.output.contains(&line), "{line}{compared:?}");
    }
    let json = run(
        &["check-config", &renewed.path, "--against-running", "--json"],
        &[],
    );
    let json: serde_json::Value = serde_json::from_str(&json.output).expect("JSON");
    assert_eq!(json["would_change"][0], changes);
    let outcome = renewed.change(config);
    assert!(
        outcome.output.contains(&format!("changed: {changes}\n")),
        "{outcome:?}"
    );
    assert!(
        outcome.log.contains(&format!("needs a restart: {restart}")),
        "{outcome:?}"
    );
    // By a signal, and again as long as it is so.
    renewed.broker.signal(Signal::HUP);
    eventually("it is said again", || {
        let log = renewed.broker.log();
        let line = format!("WARN needs a restart: {restart}");
        (log.matches(&line).count() == 2).then_some(())
    });
    let log = renewed.broker.log();
    assert_eq!(log.matches("changed: ").count(), 1, "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
}
