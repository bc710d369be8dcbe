//! Packets that operators follow live: of a client, of an address, to a topic; without secrets, within bounds.

use crate::admin::{ANYWHERE, Page, address, connect, get};
use crate::api::Tokens;
use crate::on_shards;
use crate::operator;
use crate::support::{Broker, Client, Connect, Packet, Props, Publish, Setup, Version, Will, prop};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A broker whose operators have tokens.
struct Followed {
    broker: Broker,
    address: SocketAddr,
    tokens: Tokens,
}

impl Followed {
    fn start(shards: usize, more: &str) -> Self {
        let tokens = Tokens::new();
        let config = format!("{ANYWHERE}token_file = {:?}\n{more}", tokens.file);
        let broker = Broker::with_config(shards, &config);
        Followed {
            address: address(&broker),
            broker,
            tokens,
        }
    }

    /// Follows as who may read payloads.
    fn trace(&self, query: &str) -> Trace {
        Trace::begin(self.address, query, &self.tokens.operate)
    }
}

/// A trace that runs.
struct Trace {
    reader: BufReader<TcpStream>,
    /// All that was told.
    text: String,
}

impl Trace {
    /// Returns when all shards follow.
    fn begin(address: SocketAddr, query: &str, token: &str) -> Self {
        let mut stream = connect(address);
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).expect("set");
        let request = format!(
            "GET /api/v1/trace?{query} HTTP/1.1\r\nHost: {address}\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("send");
        let mut trace = Trace {
            reader: BufReader::new(stream),
            text: String::new(),
        };
        let begun = trace.next();
        assert_eq!(begun["kind"], "begin", "{begun}: {}", trace.text);
        assert_eq!(begun["silent_shards"], json!([]), "{begun}");
        trace
    }

    /// The next line; what lies between chunks is passed over.
    fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line).expect("a line in time");
            assert!(read > 0, "the trace has ended: {}", self.text);
            self.text.push_str(&line);
            if line.starts_with('{') {
                return serde_json::from_str(&line).expect("JSON");
            }
        }
    }

    /// The next packet.
    fn packet(&mut self) -> Value {
        loop {
            let line = self.next();
            match line["kind"].as_str() {
                Some("packet") => return line,
                Some("status") => {}
                _ => panic!("{line}"),
            }
        }
    }

    /// Packets up to one of this type from the client, in short, and whole.
    fn until(&mut self, last: &str) -> (Vec<String>, Vec<Value>) {
        let (mut short, mut whole) = (Vec::new(), Vec::new());
        let last = format!("client {last}");
        while short.last() != Some(&last) {
            let packet = self.packet();
            let text = |name: &str| packet[name].as_str().unwrap_or("?").to_owned();
            short.push(format!("{} {}", text("from"), text("packet")));
            whole.push(packet);
        }
        (short, whole)
    }

    /// The last line.
    fn end(&mut self) -> Value {
        loop {
            let line = self.next();
            if line["kind"] == "end" {
                return line;
            }
        }
    }
}

on_shards! { [1, 4]
    a_client_is_followed_from_its_connect_on_without_its_secrets,
    an_address_is_followed_whoever_is_there,
    messages_to_a_topic_are_followed_to_their_subscribers,
    a_client_that_is_refused_is_followed_too,
    several_follow_at_once_and_end_when_they_leave,
}

fn a_client_is_followed_from_its_connect_on_without_its_secrets(shards: usize) {
    let followed = Followed::start(shards, "");
    let mut trace = followed.trace("client=c&payload_bytes=8");
    let mut other = Connect::v5("d").open(&followed.broker);
    other.publish("not/followed", 1, "x");
    let will = Will::new("will", "SECRET");
    let login = Connect::v5("c").login("u", "SECRET").will(will);
    let secret = Props::new().user("note", "SECRET");
    let mut client = login.open(&followed.broker);
    client.subscribe("a/+", 1);
    let publish = Publish::new("a/b", 1, "hello SECRET").props(secret);
    client.publish_packet(&publish);
    client.accept();
    client.ping();
    client.disconnect();
    let (short, whole) = trace.until("DISCONNECT");
    let connect = &whole[0];
    assert_eq!(connect["packet"], "CONNECT");
    assert_eq!(connect["connect"]["user"], "u");
    assert_eq!(connect["connect"]["will_topic"], "will");
    assert!(
        connect["address"]
            .as_str()
            .is_some_and(|at| at.starts_with("127.0.0.1:"))
    );
    assert!(connect["at_ms"].as_u64() > Some(1_600_000_000_000));
    for wanted in [
        "client CONNECT",
        "broker CONNACK",
        "client SUBSCRIBE",
        "broker SUBACK",
        "client PUBLISH",
        "broker PUBLISH",
        "broker PUBACK",
        "client PUBACK",
        "client PINGREQ",
        "broker PINGRESP",
        "client DISCONNECT",
    ] {
        let count = short.iter().filter(|line| *line == wanted).count();
        assert_eq!(count, 1, "{wanted}: {short:?}");
    }
    assert_eq!(short.len(), 11, "{short:?}");
    assert!(whole.iter().all(|packet| packet["client_id"] == "c"));
    let publishes = whole.iter().filter(|packet| packet["packet"] == "PUBLISH");
    for publish in publishes {
        assert_eq!(
            (&publish["topic"], &publish["qos"]),
            (&json!("a/b"), &json!(1))
        );
        assert_eq!(
            (&publish["payload"], &publish["payload_bytes"]),
            (&json!("hello SE"), &json!(12))
        );
    }
    let subscribe = whole.iter().find(|packet| packet["packet"] == "SUBSCRIBE");
    let filters = json!([{ "filter": "a/+", "qos": 1 }]);
    assert_eq!(subscribe.map(|it| &it["filters"]), Some(&filters));
    let rest = trace.text.replace("hello SE", "");
    assert!(!rest.contains("SECRET"), "{rest}");
    assert!(!rest.contains("not/followed"), "{rest}");
    other.ping();
    followed.broker.stop();
}

/// A client that comes from this address.
fn from(broker: &Broker, ip: &str, client_id: &str) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let own: SocketAddr = format!("{ip}:0").parse().expect("an address");
    socket.bind(&own.into()).expect("bind");
    socket.connect(&broker.address().into()).expect("connect");
    let client = Client::over(socket.into(), Version::V4);
    match Connect::v4(client_id).attempt_over(client) {
        (client, Some(Packet::Connack { code: 0, .. })) => client,
        (_, other) => panic!("{other:?}"),
    }
}

fn an_address_is_followed_whoever_is_there(shards: usize) {
    let followed = Followed::start(shards, "");
    let mut here = from(&followed.broker, "127.0.0.3", "before");
    let mut trace = followed.trace("address=127.0.0.3");
    let mut other = from(&followed.broker, "127.0.0.4", "other");
    other.ping();
    here.ping();
    let (short, whole) = trace.until("PINGREQ");
    assert_eq!(short, ["client PINGREQ"]);
    assert_eq!(whole[0]["client_id"], "before");
    assert_eq!(trace.packet()["packet"], "PINGRESP");
    from(&followed.broker, "127.0.0.3", "after").disconnect();
    let (short, whole) = trace.until("DISCONNECT");
    assert_eq!(
        short,
        ["client CONNECT", "broker CONNACK", "client DISCONNECT"]
    );
    assert!(whole.iter().all(|packet| packet["client_id"] == "after"));
    let mut network = followed.trace("address=127.0.0.0/29");
    other.ping();
    assert_eq!(network.packet()["client_id"], "other");
    followed.broker.stop();
}

fn messages_to_a_topic_are_followed_to_their_subscribers(shards: usize) {
    let followed = Followed::start(shards, "");
    let names = ["s1", "s2", "s3"];
    let mut readers = names.map(|name| Connect::v5(name).open(&followed.broker));
    readers
        .iter_mut()
        .for_each(|reader| reader.subscribe("#", 0));
    let mut trace = followed.trace("topic=t/%2B");
    let mut publisher = Connect::v5("p").open(&followed.broker);
    publisher.publish("other", 1, "x");
    let alias = || Props::new().two(prop::TOPIC_ALIAS, 1);
    let long = vec![b'x'; 5_000];
    publisher.publish_packet(&Publish::new("t/1", 1, &long).props(alias()));
    // By its alias alone.
    publisher.publish_packet(&Publish::new("", 1, "SECRET").props(alias()));
    for payload in ["x".as_bytes(), &long, b"SECRET"] {
        for reader in &mut readers {
            assert_eq!(reader.recv_publish().payload, payload);
        }
    }
    let mut seen: Vec<(String, u64)> = Vec::new();
    for _ in 0..8 {
        let packet = trace.packet();
        assert_eq!(
            (&packet["packet"], &packet["topic"], &packet["payload"]),
            (&json!("PUBLISH"), &json!("t/1"), &Value::Null)
        );
        let client_id = packet["client_id"].as_str().expect("a name").to_owned();
        let bytes = packet["payload_bytes"].as_u64().expect("a length");
        assert_eq!(packet["from"] == "client", client_id == "p", "{packet}");
        seen.push((client_id, bytes));
    }
    seen.sort();
    let wanted = ["p", "s1", "s2", "s3"].map(|name| [(name, 6), (name, 5_000)]);
    let wanted = wanted.concat();
    let wanted = wanted
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes));
    assert!(seen.iter().cloned().eq(wanted), "{seen:?}");
    followed.broker.stop();
}

fn a_client_that_is_refused_is_followed_too(shards: usize) {
    let followed = Followed::start(shards, "");
    let mut trace = followed.trace("client=bad");
    let will = Will::new("a/#", "x");
    Connect::v5("bad")
        .will(will)
        .expect_refused(&followed.broker, &[0x90]);
    assert_eq!(trace.packet()["packet"], "CONNECT");
    let refused = trace.packet();
    assert_eq!(
        (&refused["packet"], &refused["client_id"]),
        (&json!("CONNACK"), &json!("bad"))
    );
    let reason = refused["reason"].as_str().expect("why");
    assert!(reason.contains("Topic Name invalid"), "{reason}");
    // A packet that breaks a rule is told with it.
    let mut client = Connect::v5("bad").open(&followed.broker);
    client.send(&[0x82, 2, 0, 0]);
    client.drain_to_close();
    let (_, whole) = trace.until("SUBSCRIBE");
    let broken = whole.last().expect("it was told");
    assert!(broken["error"].is_string(), "{broken}");
    let farewell = trace.packet();
    assert_eq!(
        (&farewell["packet"], &farewell["from"]),
        (&json!("DISCONNECT"), &json!("broker"))
    );
    followed.broker.stop();
}

fn several_follow_at_once_and_end_when_they_leave(shards: usize) {
    let followed = Followed::start(shards, "traces_max = 2\n");
    let mut first = followed.trace("client=c");
    let mut second = followed.trace("topic=t");
    followed.broker.await_counter("admin_traces", 2);
    let third = get(followed.address, "/api/v1/trace?client=c");
    assert_eq!(third.status, 429, "{}", third.body);
    assert!(third.body.contains("admin.traces_max"), "{}", third.body);
    let mut client = Connect::v5("c").open(&followed.broker);
    client.publish("t", 1, "x");
    assert_eq!(second.packet()["topic"], "t");
    let (short, _) = first.until("PUBLISH");
    assert_eq!(short[0], "client CONNECT");
    // Who has left is noticed though nothing happens.
    drop((first, second));
    crate::support::eventually("they have ended", || {
        (followed.broker.counters().get("admin_traces") == 0).then_some(())
    });
    let mut again = followed.trace("client=c");
    client.ping();
    assert_eq!(again.packet()["packet"], "PINGREQ");
    assert_eq!(followed.broker.counters().get("admin_traces_refused"), 1);
    followed.broker.stop();
}

#[test]
fn a_trace_ends_by_its_bounds_and_says_so() {
    let followed = Followed::start(1, "trace_seconds_max = 300\ntrace_lines_max = 50\n");
    let mut short = followed.trace("client=nobody&seconds=1");
    let end = short.end();
    assert_eq!(end["why"], "its time is over");
    let mut few = followed.trace("client=c&lines=3");
    let mut client = Connect::v5("c").open(&followed.broker);
    client.ping();
    client.ping();
    let end = few.end();
    assert_eq!((&end["lines"], &end["left_out"]), (&json!(3), &json!(0)));
    let status = |query: &str, token: &str| -> Page {
        let request = format!(
            "GET /api/v1/trace?{query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n\r\n",
            followed.address
        );
        crate::admin::ask(followed.address, &request)
    };
    for (wrong, word) in [
        ("", "say one of"),
        ("client=a&topic=b", "say one of"),
        ("address=x", "address"),
        ("topic=a%23", "filter"),
        ("client=a&seconds=301", "admin.trace_seconds_max"),
        ("client=a&seconds=0", "seconds"),
        ("client=a&lines=51", "admin.trace_lines_max"),
        (
            "client=a&payload_bytes=257",
            "admin.trace_payload_bytes_max",
        ),
        ("client=a&x=1", "x"),
    ] {
        let page = status(wrong, &followed.tokens.operate);
        assert_eq!(page.status, 422, "{wrong}: {}", page.body);
        assert!(page.body.contains(word), "{wrong}: {}", page.body);
    }
    // Payloads are not for who may only look.
    let page = status("client=a&payload_bytes=1", &followed.tokens.view);
    assert_eq!(page.status, 403, "{}", page.body);
    Trace::begin(followed.address, "client=a", &followed.tokens.view);
    let log = followed.broker.log();
    assert!(log.contains("trace \"client nobody\": done"), "{log}");
    followed.broker.stop();
}

#[test]
fn the_program_tells_people_and_scripts_what_is_followed() {
    let followed = Followed::start(2, "");
    let env = [(
        "RINGMQ_OPERATOR_URL",
        format!("http://{}", followed.address),
    )];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut client = Connect::v5("c\u{1b}[2J").open(&followed.broker);
    let words = ["trace", "--topic", "t/+", "--lines", "2"];
    let outcome = std::thread::scope(|scope| {
        let told = scope.spawn(|| operator::run(&words, &env));
        while !told.is_finished() {
            client.publish("t/1", 1, "SECRET");
        }
        told.join().expect("it ends")
    });
    assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
    let lines: Vec<_> = outcome.output.lines().collect();
    assert_eq!(lines.len(), 2, "{outcome:?}");
    assert!(lines[0].contains(" c\\u{1b}[2J 127.0.0.1:"), "{outcome:?}");
    assert!(lines[0].contains(" > PUBLISH t/1 QoS 1 id "), "{outcome:?}");
    assert!(lines[0].ends_with(" 6 B"), "{outcome:?}");
    assert!(
        outcome
            .log
            .contains("as many lines as it may have: 2 packets told"),
        "{outcome:?}"
    );
    let outcome = operator::run(
        &["trace", "--address", "::1", "--seconds", "1", "--json"],
        &env,
    );
    let told: Vec<Value> = outcome
        .output
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let (first, last) = (told.first(), told.last());
    assert_eq!(
        first.map(|it| &it["kind"]),
        Some(&json!("begin")),
        "{outcome:?}"
    );
    assert_eq!(
        last.map(|it| &it["kind"]),
        Some(&json!("end")),
        "{outcome:?}"
    );
    for (wrong, code) in [
        (&["trace"][..], 2),
        (&["trace", "c", "--topic", "t"], 2),
        (&["trace", "--address", "x"], 2),
        (&["trace", "c", "--payload-bytes", "5"], 1),
    ] {
        let outcome = operator::run(wrong, &env);
        assert_eq!(outcome.status.code(), Some(code), "{wrong:?}: {outcome:?}");
    }
    let known = Setup::new().arg("completions").arg("bash").run_to_end();
    assert!(known.output.contains("--payload-bytes"), "shells know it");
    followed.broker.stop();
}
