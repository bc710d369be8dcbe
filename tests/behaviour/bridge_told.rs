//! What is told of bridges: what they lose, and by which files and attempts they go.

use crate::bridge_remotes::stand_in;
use crate::bridges::{asked, await_line, bridge, bridge_as};
use crate::login::{Scratch, passwd};
use crate::reload::Renewed;
use crate::support::{Broker, Client, Connect, Relay, Setup, eventually, free_port, unique};
use std::io::{Read, Write};
use std::net::SocketAddr;

fn client(broker: &Broker) -> Client {
    Connect::v5(&unique("c")).open(broker)
}

fn lines_with(broker: &Broker, text: &str) -> usize {
    let log = broker.log();
    let lines = log.lines().filter(|line| line.contains("WARN"));
    lines.filter(|line| line.contains(text)).count()
}

/// Each reason has one line, with how many there were, and no second one soon; `ringmq bridges` has columns.
fn what_a_line_loses_is_told_with_its_remedy(shards: usize) {
    let rules = Scratch::new("topic readwrite t/#\n");
    let text = format!(
        "acl_file = {:?}\n[limits]\nmax_packet_bytes = 1024\n",
        rules.0
    );
    let remote = Setup::new().shards(shards).config(&text).start();
    let rules = "protocol = \"5.0\"\ntopics = [{ filter = \"#\" }]\n[admin]\nlisten = \"http://127.0.0.1:0\"";
    let local = Broker::with_config(shards, &bridge(remote.address(), rules));
    await_line(&local, "bridge b is up");
    let mut here = client(&local);
    here.publish("t/large", 1, "x".repeat(2_000));
    let line = await_line(&local, "1 message was dropped (dropped_bridge_too_large)");
    for said in [
        "WARN bridge b (mqtt://",
        "limits.max_packet_bytes",
        "publish smaller ones",
    ] {
        assert!(line.contains(said), "{line}");
    }
    for _ in 0..20 {
        here.publish("t/large", 1, "x".repeat(2_000));
    }
    local.await_counter("dropped_bridge_too_large", 21);
    assert_eq!(lines_with(&local, "dropped_bridge_too_large"), 1);
    let told = asked(&local);
    assert_eq!(
        (&told["dropped_by_line"], &told["rejected"]),
        (&21.into(), &0.into())
    );
    local.stop();
    let local = Broker::with_config(shards, &bridge(remote.address(), rules));
    await_line(&local, "bridge b is up");
    client(&local).publish("elsewhere", 1, "x");
    let line = await_line(&local, "1 message was not taken by the other broker");
    for said in ["the last one with not authorized (0x87)", "access rules"] {
        assert!(line.to_lowercase().contains(said), "{line}");
    }
    assert_eq!(asked(&local)["rejected"], 1);
    local.stop();
}

/// What waits where a reload ends a session is told beforehand, and when it is dropped.
fn what_a_reload_drops_is_told(shards: usize) {
    let keys = |more: &str| {
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let rules = format!("paused = true\n{more}\ntopics = [{{ filter = \"t/#\" }}]");
        bridge_as("b", "there", address, &rules)
    };
    let renewed = Renewed::start(shards, &keys("local_user = \"one\""));
    let broker = &renewed.broker;
    let would = |text: &str| {
        eventually(text, || {
            let told = renewed.compare().output;
            told.contains(text).then_some(())
        });
    };
    let mut here = client(broker);
    (0..5).for_each(|_| here.publish("t/x", 1, "x"));
    renewed.write(&keys("local_user = \"two\""));
    would("would drop 5 messages that wait for bridge b, whose local_user is another one");
    renewed.change(&keys("local_user = \"two\""));
    await_line(
        broker,
        "WARN bridge b: 5 messages that waited for it are dropped: bridge.local_user",
    );
    renewed.change(&keys("local_user = \"two\"\nconnections = 3"));
    eventually("all three are there", || {
        (0..20).for_each(|n| here.publish(&format!("t/{n}"), 1, "x"));
        renewed.write(&keys("local_user = \"two\"\nconnections = 2"));
        let told = renewed.compare().output;
        told.contains("messages that wait for bridge b-2, which it would remove")
            .then_some(())
    });
    renewed.change(&keys("local_user = \"two\"\nconnections = 2"));
    let line = await_line(broker, "WARN bridge b-2: ");
    assert!(
        line.contains("are dropped: a reload has removed it, or one of its bridge.connections"),
        "{line}"
    );
    assert_eq!(lines_with(broker, "WARN bridge b-0"), 0);
}

/// By its line, and where there is none: what is published by then waits.
fn what_is_not_granted_is_asked_for_by_other_rules(shards: usize) {
    let remote = Broker::start(shards);
    let relay = Relay::start(remote.address());
    let file = Scratch::new("topic readwrite #\nuser bridge-b\ntopic read other/#\n");
    let rules = "topics = [{ filter = \"t/#\" }, { filter = \"u/#\" }, { filter = \"other/#\" }]";
    let text = format!("acl_file = {:?}\n", file.0);
    let renewed = Renewed::start(shards, &(text + &bridge(relay.address(), rules)));
    let broker = &renewed.broker;
    await_line(broker, "bridge b is up");
    let line = await_line(
        broker,
        "WARN bridge b: this broker does not grant it \"t/#\"",
    );
    assert!(
        line.contains("\"bridge-b\"") && line.contains("acl_file"),
        "{line}"
    );
    let not_granted = |wanted: &str| {
        eventually(wanted, || {
            let told = crate::operator::run(&["bridges", "--admin", &renewed.at], &[]).output;
            let line = told.lines().find(|line| line.contains("not granted here"));
            let line = line.unwrap_or("nothing");
            line.contains(wanted).then_some(())
        });
    };
    not_granted("b: not granted here: t/#, u/# (acl_file");
    let (mut here, mut there) = (client(broker), client(&remote));
    there.subscribe("#", 1);
    here.retain("t/kept", 1, "kept");
    std::fs::write(
        &file.0,
        "topic readwrite #\nuser bridge-b\ntopic read other/#\ntopic read t/#\n",
    )
    .unwrap();
    renewed.reload();
    there.expect("t/kept", "kept");
    here.publish("t/x", 1, "x");
    there.expect("t/x", "x");
    not_granted("b: not granted here: u/# (acl_file");
    relay.close();
    relay.cut();
    await_line(broker, "bridge b is down");
    std::fs::write(&file.0, "topic readwrite #\nuser bridge-b\ntopic read #\n").unwrap();
    renewed.reload();
    not_granted("nothing");
    here.publish("u/x", 1, "x");
    relay.open();
    there.expect("u/x", "x");
    assert_eq!(
        lines_with(broker, "does not grant it"),
        2,
        "each is told once"
    );
}

/// The broker that is left forgets the session where 5.0 can say so.
fn a_bridge_that_goes_leaves_no_session_there(shards: usize) {
    let remote = Broker::start(shards);
    let text = bridge(
        remote.address(),
        "protocol = \"5.0\"\ntopics = [{ filter = \"t/#\" }]",
    );
    let renewed = Renewed::start(shards, &text);
    await_line(&renewed.broker, "bridge b is up");
    remote.await_counter("sessions", 1);
    renewed.change("");
    remote.await_counter("sessions", 0);
}

/// Who reloads does not wait for the next attempt.
fn a_reload_dials_at_once(shards: usize) {
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let rules = "topics = []";
    let text = bridge(nobody, rules).replace(
        "reconnect_ms_min = 10\nreconnect_ms_max = 50",
        "reconnect_ms_min = 600000\nreconnect_ms_max = 600000",
    );
    let renewed = Renewed::start(shards, &text);
    await_line(&renewed.broker, "the next attempt comes in");
    renewed.reload();
    eventually("it has dialled again", || {
        (lines_with(&renewed.broker, "the next attempt comes in") >= 2).then_some(())
    });
}

/// Files of bridges are read again as all others are, and what waited for them dials.
fn a_password_that_changes_is_taken(shards: usize) {
    let users = Scratch::new("");
    passwd(&users.0, &[], "site", "right");
    let text = format!("allow_anonymous = false\npassword_file = {:?}\n", users.0);
    let remote = Setup::new().shards(shards).config(&text).start();
    let password = Scratch::new("wrong\n");
    let rules = format!(
        "user = \"site\"\npassword_file = {:?}\ntopics = []",
        password.0
    );
    let text = bridge(remote.address(), &rules).replace(
        "reconnect_ms_min = 10\nreconnect_ms_max = 50",
        "reconnect_ms_min = 600000\nreconnect_ms_max = 600000",
    );
    let local = Broker::with_config(shards, &text);
    await_line(&local, "it refuses CONNECT");
    std::fs::write(&password.0, "right\n").expect("write");
    await_line(&local, "bridge b: its files are read again");
    await_line(&local, "bridge b is up");
    // One that is wrong is named, and does not end anything.
    std::fs::write(&password.0, "").expect("write");
    await_line(&local, "is empty");
    assert_eq!(lines_with(&local, "bridge b is down"), 0);
}

/// Two that take over from each other wait longer each time, and are told why.
fn who_is_taken_over_waits_longer(shards: usize) {
    let remote = Broker::start(shards);
    let text = bridge_as(
        "b",
        "same",
        remote.address(),
        "protocol = \"5.0\"\ntopics = []",
    )
    .replace("reconnect_ms_max = 50", "reconnect_ms_max = 600000");
    let both = [(); 2].map(|()| Broker::with_config(shards, &text));
    for broker in &both {
        await_line(
            broker,
            "another client has its identifier there (bridge.client_id)",
        );
    }
    await_long_wait(&both);
    eventually("it is counted", || {
        let count = |broker: &Broker| broker.counters().get("bridge_takeovers");
        (count(&both[0]) + count(&both[1]) > 1).then_some(())
    });
}

/// One of two that take each other's session over waits for long.
fn await_long_wait(both: &[Broker; 2]) {
    eventually("one of them waits for long", || {
        let log = both[0].log() + &both[1].log();
        let waits = log.lines().filter_map(|line| {
            let (_, wait) = line.split_once("the next attempt comes in ")?;
            wait.strip_suffix(" ms")?.parse::<u64>().ok()
        });
        waits.max().filter(|longest| *longest > 100)
    });
}

/// A remote of 3.1.1 cannot say that it is so: what it does is seen, and told once with what may be the cause.
fn who_is_taken_over_without_a_word_waits_longer(shards: usize) {
    let remote = Broker::start(shards);
    let rules = "protocol = \"3.1.1\"\ntopics = []";
    let text = bridge_as("b", "same", remote.address(), rules)
        .replace("reconnect_ms_max = 50", "reconnect_ms_max = 600000");
    let both = [(); 2].map(|()| Broker::with_config(shards, &text));
    await_long_wait(&both);
    eventually("it is counted", || {
        let count = |broker: &Broker| broker.counters().get("bridge_takeovers");
        (count(&both[0]) + count(&both[1]) > 1).then_some(())
    });
    let told = "perhaps another client has the identifier \"same\" there, too; give each its own by \
                bridge.client_id";
    let counts = both.each_ref().map(|broker| lines_with(broker, told));
    assert!(counts.iter().all(|count| *count <= 1), "{counts:?}");
    assert!(counts.contains(&1), "{counts:?}");
}

/// That an older broker does not speak 5.0 is told once, and nothing of it is shown while the line is up.
fn an_older_protocol_is_told_once(shards: usize) {
    let address = stand_in(|mut stream| {
        let mut bytes = [0; 4096];
        let Ok(read) = stream.read(&mut bytes) else {
            return;
        };
        // The level stands behind the protocol's name.
        let is_plain = bytes[..read].get(8) == Some(&4);
        let _ = stream.write_all(&[0x20, 2, 0, u8::from(!is_plain)]);
        if is_plain {
            // Until something is published.
            let _ = stream.read(&mut bytes);
        }
    });
    let rules = "topics = [{ filter = \"t\" }]\n[admin]\nlisten = \"http://127.0.0.1:0\"";
    let broker = Broker::with_config(shards, &bridge(address, rules));
    let mut here = client(&broker);
    for ups in 1..=3 {
        eventually("it is up again", || {
            (lines_with_info(&broker, "bridge b is up") == ups).then_some(())
        });
        let told = asked(&broker);
        assert!(told["cause"].is_null() && told["failures"] == 0, "{told}");
        here.publish("t", 0, "x");
    }
    assert_eq!(lines_with(&broker, "unacceptable protocol version"), 2);
}

fn lines_with_info(broker: &Broker, text: &str) -> usize {
    broker.log().matches(text).count()
}

crate::on_shards!([1, 4]
    what_a_line_loses_is_told_with_its_remedy,
    what_a_reload_drops_is_told,
    what_is_not_granted_is_asked_for_by_other_rules,
    a_bridge_that_goes_leaves_no_session_there,
    a_reload_dials_at_once,
    a_password_that_changes_is_taken,
    who_is_taken_over_waits_longer,
    who_is_taken_over_without_a_word_waits_longer,
    an_older_protocol_is_told_once,
);
