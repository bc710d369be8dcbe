//! Changing over from Mosquitto: what it has kept is imported, and its clients go on here.

use crate::support::{
    Ack, Broker, Client, Connect, Props, Publish, Setup, Version, eventually, free_port, prop,
    unique,
};
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A Mosquitto that keeps its state in a folder.
struct Mosquitto {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Mosquitto {
    fn start() -> Self {
        Mosquitto::with("")
    }

    /// One with these lines in its configuration, too.
    fn with(more: &str) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(unique("ringmq-mosquitto"));
        std::fs::create_dir(&folder).expect("make a folder");
        // It would give up the rights to its folder; who has none to give up is not asked.
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
             persistence_location {}/\nqueue_qos0_messages true\n{more}",
            folder.display()
        );
        let config = folder.join("mosquitto.conf");
        std::fs::write(&config, text).expect("write its configuration");
        let child = ["mosquitto", "/usr/sbin/mosquitto"]
            .iter()
            .find_map(|program| {
                let mut command = Command::new(program);
                command.arg("-c").arg(&config).stderr(Stdio::null());
                command.spawn().ok()
            })
            .expect("mosquitto is not installed: run scripts/test.sh --setup");
        Mosquitto {
            child,
            port,
            folder,
        }
    }

    fn client(&self, connect: &Connect) -> Client {
        let stream = eventually("mosquitto listens", || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        let client = Client::over(stream, connect.version);
        let (client, answer) = connect.attempt_over(client);
        assert!(answer.is_some(), "mosquitto does not answer");
        client
    }

    /// Stops it in order; it writes its file then.
    fn stop(&mut self) -> PathBuf {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("a process");
        self.child.wait().expect("it ends");
        self.folder.join("mosquitto.db")
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn import(file: &PathBuf, to: &PathBuf, more: &[&str]) -> (Option<i32>, String) {
    let binary = std::env::var_os("RINGMQ_TEST_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_ringmq").into());
    let mut command = Command::new(binary);
    command.args(["store", "import-mosquitto"]).arg(file);
    let output = command.arg("--to").arg(to).args(more).output();
    let output = output.expect("run the program");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// What its clients have left there: queues in both versions, all options of a subscription, the middle of each
/// flow in both directions, retained messages.
fn leave(mosquitto: &Mosquitto) {
    let mut five = mosquitto.client(&Connect::v5("five").persistent());
    let id = Props::new().variable(prop::SUBSCRIPTION_ID, 7);
    // Retain as published.
    assert_eq!(five.subscribe_with(&id, &[("a/+", 2 | 8)]), [2]);
    five.disconnect();
    let mut four = mosquitto.client(&Connect::new(Version::V4, "four").persistent());
    four.subscribe("#", 1);
    four.disconnect();
    let mut own = mosquitto.client(&Connect::v5("own").persistent());
    // No local.
    own.subscribe("a/#", 2 | 4);
    own.publish("a/own", 1, "own");
    own.disconnect();
    let mut shared = mosquitto.client(&Connect::v5("shared").persistent());
    shared.subscribe("$share/g/elsewhere", 1);
    shared.disconnect();
    let mut middle = mosquitto.client(&Connect::v5("middle").persistent());
    middle.subscribe("middle/+", 2);
    let mut publisher = mosquitto.client(&Connect::v5("publisher"));
    publisher.publish("middle/sent", 1, "sent");
    publisher.publish("middle/received", 2, "received");
    let first = middle.recv_publish();
    assert_eq!(first.payload_str(), "sent");
    let second = middle.recv_publish();
    middle.ack(Ack::Pubrec, second.id);
    middle.wait_ack(Ack::Pubrel, second.id);
    middle.cut();
    let mut publish = Publish::new("a/b", 2, "text");
    publish.props = Props::new().text(prop::CONTENT_TYPE, "kind");
    publish.props = publish.props.four(prop::MESSAGE_EXPIRY, 1_000);
    publisher.publish_packet(&publish);
    publisher.publish("a/c", 1, "plain");
    publisher.publish("a/c", 0, "at most once");
    publisher.retain("a/kept", 1, "kept");
    publisher.retain("gone", 1, "kept");
    publisher.retain("gone", 1, "");
    let mut half = mosquitto.client(&Connect::v5("half").persistent());
    let half_id = half.send_publish(&Publish::new("a/half", 2, "half").id(9));
    half.wait_ack(Ack::Pubrec, half_id);
    half.cut();
    publisher.disconnect();
}

fn back(broker: &Broker, version: Version, name: &str) -> Client {
    let client = Connect::new(version, name).persistent().open(broker);
    assert!(client.session_present, "{name}");
    client
}

/// What a client gets, by topic and payload.
fn all(client: &mut Client, count: usize) -> Vec<(String, String, u8)> {
    let got = (0..count).map(|_| client.accept());
    let mut got: Vec<_> = got
        .map(|it| {
            (
                it.topic_str().to_owned(),
                it.payload_str().to_owned(),
                it.qos,
            )
        })
        .collect();
    client.expect_nothing();
    got.sort();
    got
}

fn got(list: &[(&str, &str, u8)]) -> Vec<(String, String, u8)> {
    let list = list.iter();
    list.map(|(topic, payload, qos)| ((*topic).to_owned(), (*payload).to_owned(), *qos))
        .collect()
}

#[test]
fn clients_of_mosquitto_go_on_where_they_were() {
    let mut mosquitto = Mosquitto::start();
    leave(&mosquitto);
    let file = mosquitto.stop();
    for shards in [1, 4] {
        let store = mosquitto.folder.join(format!("store-{shards}"));
        let number = shards.to_string();
        let (code, said) = import(&file, &store, &["--shards", &number]);
        assert_eq!(code, Some(0), "{said}");
        for part in [
            "6 session(s) with 4 subscription(s)",
            "1 retained message(s)",
            "queued message(s) of QoS 0 are left out",
            "1 QoS 2 publish(es) that clients had not released",
            "session 'shared' has no subscription",
            "wills",
        ] {
            assert!(said.contains(part), "no '{part}' in {said}");
        }
        let directory = store.to_str().expect("a plain path");
        let setup = Setup::new().shards(shards);
        let broker = setup.arg("--storage-directory").arg(directory).start();
        go_on(&broker);
        broker.stop();
    }
}

fn go_on(broker: &Broker) {
    let mut half = back(broker, Version::V5, "half");
    half.ack(Ack::Pubrel, 9);
    assert_eq!(half.wait_ack(Ack::Pubcomp, 9), 0, "it is known");
    let mut five = back(broker, Version::V5, "five");
    let first: Vec<_> = (0..5).map(|_| five.accept()).collect();
    for publish in &first {
        let id = publish.props.find(prop::SUBSCRIPTION_ID);
        assert!(id.is_some(), "{publish:?}");
        assert_eq!(
            publish.retain,
            publish.topic_str() == "a/kept",
            "as published"
        );
    }
    let rich = first.iter().find(|it| it.topic_str() == "a/b");
    let rich = rich.expect("the message with properties");
    assert!(rich.props.find(prop::CONTENT_TYPE).is_some());
    assert!(rich.props.find(prop::MESSAGE_EXPIRY).is_some());
    five.expect_nothing();
    let mut own = back(broker, Version::V5, "own");
    let wanted = [
        ("a/b", "text", 2),
        ("a/c", "plain", 1),
        ("a/half", "half", 2),
        ("a/kept", "kept", 1),
    ];
    assert_eq!(all(&mut own, 4), got(&wanted));
    own.publish("a/own", 1, "own");
    own.expect_nothing();
    five.expect("a/own", "own");
    let mut middle = back(broker, Version::V5, "middle");
    let sent = middle.accept();
    assert!(sent.dup && sent.payload_str() == "sent", "{sent:?}");
    // Mosquitto's second; its other half goes on.
    assert_eq!(middle.wait_ack(Ack::Pubrel, 2), 0);
    middle.ack(Ack::Pubcomp, 2);
    middle.settle();
    middle.expect_nothing();
    let mut four = back(broker, Version::V4, "four");
    let wanted = [
        ("a/b", "text", 1),
        ("a/c", "plain", 1),
        ("a/half", "half", 1),
        ("a/kept", "kept", 1),
        ("a/own", "own", 1),
        ("a/own", "own", 1),
        ("gone", "", 1),
        ("gone", "kept", 1),
        ("middle/received", "received", 1),
        ("middle/sent", "sent", 1),
    ];
    assert_eq!(all(&mut four, wanted.len()), got(&wanted));
    let mut reader = Connect::v5("reader").open(broker);
    reader.subscribe("#", 1);
    assert!(reader.expect("a/kept", "kept").retain);
    reader.expect_nothing();
}

/// What is no such file is refused by name, and nothing is made of it.
/// Its bridge finds nobody; the one here goes on with what waits, under the prefixes, and with what comes then.
#[test]
fn what_waits_for_a_bridge_of_mosquitto_goes_on() {
    let mut mosquitto = Mosquitto::with(&format!(
        "connection hq\naddress 127.0.0.1:{}\nremote_clientid site7\ncleansession false\n\
         topic a/# both 2 loc/ rem/\n",
        free_port()
    ));
    let mut publisher = mosquitto.client(&Connect::v5("publisher"));
    for number in 0..6 {
        publisher.publish("loc/a/x", 1 + number % 2, number.to_string());
    }
    publisher.publish("rem/a/x", 1, "not of the bridge");
    publisher.disconnect();
    let file = mosquitto.stop();
    for shards in [1, 4] {
        let remote = Broker::start(shards);
        let config = format!(
            "[[bridge]]\nname = \"hq\"\naddresses = [\"mqtt://{}\"]\nclient_id = \"site7\"\n\
             local_user = \"somebody\"\ntopics = [{{ filter = \"a/#\", direction = \"both\", \
             local_prefix = \"loc/\", remote_prefix = \"rem/\" }}]\n",
            remote.address()
        );
        let path = mosquitto.folder.join("ringmq.toml");
        std::fs::write(&path, &config).expect("write a configuration");
        let store = mosquitto.folder.join(format!("store-{shards}"));
        let (number, path) = (shards.to_string(), path.to_str().expect("a plain path"));
        let (code, said) = import(&file, &store, &["--shards", &number, "--config", path]);
        assert_eq!(code, Some(0), "{said}");
        let line = "6 message(s) that waited for a bridge go on with '$bridge/hq'";
        assert!(said.contains(line), "{said}");
        assert!(!said.contains("left out"), "{said}");
        let mut there = Connect::v5("there").open(&remote);
        there.subscribe("#", 2);
        let directory = store.to_str().expect("a plain path");
        let setup = Setup::new().shards(shards).config(&config);
        let broker = setup.arg("--storage-directory").arg(directory).start();
        for number in 0..6 {
            let got = there.accept();
            let wanted = ("rem/a/x".to_owned(), number.to_string(), 1 + number % 2);
            let is = (
                got.topic_str().to_owned(),
                got.payload_str().to_owned(),
                got.qos,
            );
            assert_eq!(is, wanted);
        }
        let mut here = Connect::v5("here").open(&broker);
        here.publish("loc/a/x", 2, "new");
        there.expect("rem/a/x", "new");
        there.expect_nothing();
        broker.stop();
        // Without that configuration they are told.
        let other = mosquitto.folder.join(format!("other-{shards}"));
        let (code, said) = import(&file, &other, &["--shards", &number]);
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("6 messages that waited for the bridge 'local.site7'"),
            "{said}"
        );
        assert!(said.contains("client_id = \"site7\""), "{said}");
    }
}

#[test]
fn other_files_are_refused() {
    let mut mosquitto = Mosquitto::start();
    let client = mosquitto.client(&Connect::v5("one").persistent());
    client.disconnect();
    let file = mosquitto.stop();
    let store = mosquitto.folder.join("store");
    let bytes = std::fs::read(&file).expect("its file");
    let other = mosquitto.folder.join("other.db");
    let refused = |bytes: &[u8], part: &str| {
        std::fs::write(&other, bytes).expect("written");
        let (code, said) = import(&other, &store, &["--shards", "2"]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(part) && said.lines().count() == 1, "{said}");
        assert!(!store.exists());
    };
    refused(b"", "no persistence file");
    refused(b"something else entirely", "no persistence file");
    refused(b"SQLite format 3\0 and so on", "persist-sqlite");
    refused(&bytes[..bytes.len() - 1], "cut off");
    let mut older = bytes.clone();
    older[22] = 4;
    refused(&older, "version 4");
    assert_eq!(
        import(&mosquitto.folder, &store, &["--shards", "2"]).0,
        Some(2)
    );
    assert_eq!(
        import(&file, &store, &[]).0,
        Some(2),
        "for how many shards?"
    );
    assert_eq!(import(&file, &store, &["--shards", "2"]).0, Some(0));
    let (code, said) = import(&file, &store, &["--shards", "2"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is something already"), "{said}");
}
