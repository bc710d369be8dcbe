//! What clients may do: the access file at publish, subscribe, delivery, replay and will.

use crate::support::{
    Broker, Certificates, Client, Connect, Packet, Setup, Version, Will, Wire, eventually, unique,
};
use rustix::process::Signal;

struct Rules(String);

impl Rules {
    fn new(text: &str) -> Self {
        let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("acl"));
        std::fs::write(&path, text).unwrap();
        Rules(path)
    }

    fn broker(&self, shards: usize) -> Broker {
        let config = format!("acl_file = {:?}\n", self.0);
        Setup::new().shards(shards).config(&config).start()
    }

    fn change(&self, broker: &Broker, text: &str) {
        std::fs::write(&self.0, text).unwrap();
        broker.signal(Signal::HUP);
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const RULES: &str = "topic read open/#\ntopic deny open/secret\ntopic write open/#\ntopic write in/+\n\
                     pattern readwrite own/%c\n";

fn rules_hold_where_messages_go(shards: usize) {
    let rules = Rules::new(RULES);
    let broker = rules.broker(shards);
    let mut client = Connect::v5("c1").open(&broker);
    client.subscribe("open/a", 1);
    client.subscribe("#", 1);
    client.subscribe_refused("in/x", 0x87);
    client.subscribe_refused("open/secret", 0x87);
    client.subscribe_refused("own/c2", 0x87);
    assert_eq!(client.publish_code("elsewhere"), 0x87);
    assert_eq!(client.publish_code("open/secret"), 0x87);
    assert_eq!(client.publish_code("own/c2"), 0x87);
    // To topics that may be written but not read: accepted, and delivered to nobody.
    assert_eq!(client.publish_code("in/x"), 0);
    let mut other = Connect::v5("c2").open(&broker);
    other.publish("own/c2", 1, "not for c1");
    other.publish("open/b", 1, "for c1");
    client.expect("open/b", "for c1");
    client.publish("own/c1", 1, "mine");
    client.expect("own/c1", "mine");
    // 3.1.1 has no word for it: the publish is answered and goes nowhere, a filter gets 0x80.
    let mut old = Connect::v4("c3").open(&broker);
    old.subscribe_refused("in/x", 0x80);
    old.publish("elsewhere", 1, "lost");
    old.publish("elsewhere", 0, "lost");
    let counters = broker.counters();
    assert_eq!(counters.get("publishes_not_authorized"), 5);
    assert_eq!(counters.get("subscribes_not_authorized"), 4);
    assert_eq!(counters.get("dropped_not_authorized"), 2);
}

fn retained_messages_and_wills_obey(shards: usize) {
    let rules = Rules::new("topic readwrite #\nuser x\n");
    let broker = rules.broker(shards);
    let mut client = Connect::v5("c1").open(&broker);
    for topic in ["a/1", "a/2", "b/1"] {
        client.retain(topic, 1, topic);
    }
    let mut leaving = Connect::v5("c2")
        .will(Will::new("b/will", "gone").qos(1))
        .open(&broker);
    leaving.ping();
    rules.change(&broker, "topic read a/1\ntopic readwrite c\n");
    eventually("the rules are in force", || {
        broker
            .log()
            .contains("the access file is reloaded")
            .then_some(())
    });
    client.subscribe("#", 1);
    client.expect("a/1", "a/1");
    // A will that may not be published when it is due is left out, and its client is named.
    leaving.cut();
    broker.await_counter("dropped_will_not_allowed", 1);
    Connect::v4("c3")
        .will(Will::new("b/will", "x"))
        .open(&broker)
        .cut();
    broker.await_counter("dropped_will_not_allowed", 2);
    for id in ["c2", "c3"] {
        eventually("it is said", || {
            let said = format!("the will of client {id:?} from 127.0.0.1:");
            let log = broker.log();
            let mut lines = log.lines().filter(|line| line.contains(&said));
            lines
                .any(|line| line.ends_with("may not publish to \"b/will\" (acl_file)"))
                .then_some(())
        });
    }
    // Whether it may is asked when it is due.
    let early = Connect::v5("c4")
        .will(Will::new("b/will", "at last").qos(1))
        .open(&broker);
    rules.change(
        &broker,
        "topic read a/1\ntopic readwrite c\ntopic readwrite b/will\n",
    );
    eventually("the rules are in force", || {
        (broker.log().matches("the access file is reloaded").count() == 2).then_some(())
    });
    early.cut();
    client.expect("b/will", "at last");
    client.publish("c", 1, "end");
    client.expect("c", "end");
}

/// Subscriptions that stand are judged anew, and a file that is wrong changes nothing.
fn rules_change_under_traffic(shards: usize) {
    let rules = Rules::new("topic readwrite #\n");
    let broker = rules.broker(shards);
    let mut subscriber = Connect::v5("s").open(&broker);
    subscriber.subscribe("t/#", 1);
    let mut publisher = Connect::v5("p").open(&broker);
    publisher.publish("t/a", 1, "before");
    subscriber.expect("t/a", "before");
    rules.change(&broker, "topic readwrite t/b\nnonsense\n");
    eventually("the error is named", || {
        let log = broker.log();
        (log.contains("what was before stays in force") && log.contains("line 2")).then_some(())
    });
    publisher.publish("t/a", 1, "still");
    subscriber.expect("t/a", "still");
    rules.change(&broker, "topic write t/a\ntopic readwrite t/b\n");
    eventually("the rules are in force", || {
        broker
            .log()
            .contains("the access file is reloaded")
            .then_some(())
    });
    for n in 0..20 {
        publisher.publish("t/a", 1, "hidden");
        publisher.publish("t/b", 1, n.to_string());
        subscriber.expect("t/b", n.to_string());
    }
    rules.change(&broker, "topic readwrite #\n");
    eventually("the rules are in force", || {
        let log = broker.log();
        (log.matches("the access file is reloaded").count() == 2).then_some(())
    });
    publisher.publish("t/a", 1, "again");
    subscriber.expect("t/a", "again");
}

/// A share group's message goes to a member that may read it.
fn shared_subscriptions_pass_over_those_who_may_not(shards: usize) {
    let rules = Rules::new("topic write t/#\npattern read t/%c\npattern read t/all\n");
    let broker = rules.broker(shards);
    let mut may = Connect::v5("may").open(&broker);
    let mut may_not = Connect::v5("may-not").open(&broker);
    may.subscribe("$share/g/t/+", 1);
    may_not.subscribe("$share/g/t/+", 1);
    let mut publisher = Connect::v5("p").open(&broker);
    let mut got = 0;
    for _ in 0..10 {
        publisher.publish("t/may", 1, "x");
    }
    publisher.publish("t/end", 0, "nobody");
    while got < if shards == 1 { 10 } else { 1 } {
        may.expect("t/may", "x");
        got += 1;
    }
}

/// Users, rules and certificates are reloaded again and again while messages flow: none is lost or doubled.
fn reloads_under_traffic_lose_nothing(shards: usize) {
    let certificates = Certificates::new();
    let rules = Rules::new("topic readwrite #\n");
    let users = Rules::new("");
    let config = format!(
        "allow_anonymous = true\nacl_file = {:?}\npassword_file = {:?}\n\
         [[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}",
        rules.0,
        users.0,
        certificates.section()
    );
    let broker = Setup::new().shards(shards).config(&config).start();
    let open = |id: &str| {
        let link = Wire::Tls(&certificates, None)
            .dial(broker.address())
            .unwrap();
        let (client, answer) = Connect::v5(id).attempt_over(Client::across(link, Version::V5));
        assert!(
            matches!(answer, Some(Packet::Connack { code: 0, .. })),
            "{answer:?}"
        );
        client
    };
    let mut subscribers: Vec<_> = (0..4).map(|_| open(&unique("s"))).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("t/#", 1);
    }
    let mut publisher = open(&unique("p"));
    for n in 0..300 {
        if n % 20 == 0 {
            certificates.server("server", "localhost", 100 + n);
            let more = format!("topic readwrite #\ntopic deny hidden/{n}\n");
            // As an operator should: written beside, then moved into place.
            let beside = format!("{}.new", rules.0);
            std::fs::write(&beside, more).unwrap();
            std::fs::rename(&beside, &rules.0).unwrap();
            broker.signal(Signal::HUP);
            // New clients come in meanwhile, by the new certificate.
            open(&unique("new")).ping();
        }
        publisher.publish(&format!("t/{}", n % 7), 1, n.to_string());
    }
    for subscriber in &mut subscribers {
        for n in 0..300 {
            subscriber.expect(&format!("t/{}", n % 7), n.to_string());
        }
        subscriber.ping();
    }
    let log = broker.log();
    assert!(
        log.matches("certificates are reloaded").count() >= 3,
        "{log}"
    );
}

crate::on_shards!([1, 2, 4] rules_hold_where_messages_go, retained_messages_and_wills_obey,
    rules_change_under_traffic, reloads_under_traffic_lose_nothing, shared_subscriptions_pass_over_those_who_may_not);

/// As the README of the methods says: at the start such a file is refused (`program.rs`), later it is as if
/// it had not been written.
#[test]
fn an_unreadable_line_leaves_all_former_rules_in_force() {
    let rules = Rules::new("topic readwrite a\n");
    let broker = rules.broker(2);
    let mut client = Connect::v5("c").open(&broker);
    rules.change(&broker, "topic readwrite b\nno rule\n");
    eventually("the line is named", || {
        let log = broker.log();
        let mut lines = log.lines();
        let is_said = |line: &str| {
            line.contains("not reloaded, what was before stays in force") && line.contains("line 2")
        };
        lines.any(is_said).then_some(())
    });
    assert_eq!(client.publish_code("a"), 0x10);
    assert_eq!(client.publish_code("b"), 0x87);
}
