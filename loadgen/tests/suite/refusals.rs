//! Brokers that are not there, refuse, drop or stall: a clear message, an exit code, never a hang.

use crate::support::{Broker, Scratch, loadgen, measured, text};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// A listener that hands every connection to `serve`.
fn listener(serve: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn fails(address: &str, args: &[&str], wanted: &str) {
    let output = loadgen(address, &[args, &["--patience=500ms"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(wanted), "{wanted}: {said}");
}

const ONE: [&str; 3] = ["fanout", "--subscribers=1", "--messages=5"];

#[test]
fn a_broker_that_is_not_there_is_named() {
    // Nobody is given this port by chance, as one that was free a moment ago is.
    fails("127.0.0.1:1", &ONE, "cannot connect to 127.0.0.1:1");
}

#[test]
fn a_broker_that_refuses_is_quoted() {
    let address = listener(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(&[0x20, 2, 0, 5]);
    });
    fails(&address, &ONE, "refused with code 5");
}

#[test]
fn a_broker_that_says_nothing_is_given_up() {
    let address = listener(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {});
    fails(&address, &ONE, "let 0 of 2 clients in");
}

#[test]
fn a_broker_that_drops_clients_is_caught() {
    let address = listener(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(&[0x20, 2, 0, 0]);
        let _ = stream.read(&mut [0; 64]);
    });
    fails(&address, &ONE, "closed by the broker");
}

#[test]
fn a_broker_that_speaks_something_else_is_caught() {
    let address = listener(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    fails(&address, &ONE, "not MQTT");
}

#[test]
fn connects_that_fail_are_counted_by_the_connect_workload() {
    let address = listener(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(&[0x20, 2, 0, 3]);
    });
    let (code, json) = measured(&address, &["connect", "--clients=20", "--hold=100ms"]);
    assert_eq!((code, &json["connect_failures"]), (1, &20.into()), "{json}");
}

#[test]
fn wrong_arguments_are_explained() {
    for (args, wanted) in [
        (&["fanout", "--size=3"][..], "16"),
        (&["mixed", "/nowhere.toml"], "/nowhere.toml"),
        (&["slow", "--subscribers=3", "--slow=3"], "--slow"),
        (&["fanout", "--warmup=20s"], "warm-up"),
        (&["fanout", "--topic-alias"], "--protocol=5"),
        (&["fanout", "--insecure"], "mqtts://"),
        (&["shared", "--subscribers=2", "--groups=3"], "--groups"),
        (&["storm", "--duration=5s"], "--after"),
        (&["storm", "--messages=5"], "--after"),
        (&["slow", "--slow=0", "--slow-rate=5"], "--slow"),
        (&["preset", "conn-tcp-10K-100", "--warmup=1s"], "--warmup"),
        (&["fanout", "--from=5"], "--find-max"),
        (&["fanout", "--inflight-max=5"], "--inflight-max"),
        (
            &["connect", "--clients=5", "--inflight-max=5"],
            "--inflight-max",
        ),
        (
            &["fanout", "--find-max", "--slo=p99=1ms", "--inflight-max=5"],
            "--inflight-max",
        ),
        (
            &["p2p", "--pairs=2", "--threads=5"],
            "--threads=5 is more than the 4 client(s)",
        ),
        (
            &["fanout", "--password-file=/nowhere", "--user=x"],
            "/nowhere",
        ),
    ] {
        let output = loadgen("127.0.0.1:1", args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
    }
    let output = loadgen("ftp://127.0.0.1", &["fanout"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("ftp://"));
}

#[test]
fn what_a_file_asks_for_and_cannot_have_is_named() {
    let publish = |more: &str| format!("publish = {{ size = \"16\", window = 1, {more} }}");
    let subscribe = |more: &str| format!("subscribe = {{ {more} }}");
    for (head, group, wanted) in [
        ("", publish("topic = \"a/{client}\""), "{client}"),
        ("", publish("topic = \"a/{i}\", topics = 3"), "{t}"),
        ("", publish("topic = \"a\", topics = 0"), "topics"),
        ("", publish("topic = \"a\", topic_alias = true"), "5.0"),
        ("", subscribe("filters = [\"a/{t}\"]"), "{t}"),
        ("", subscribe("filters = [\"a/{x}\"]"), "{x}"),
        ("", "reading = \"stalled\"".to_owned(), "slowly"),
        (
            "duration = \"1s\"\nwarmup = \"2s\"",
            publish("topic = \"a\""),
            "warm-up",
        ),
        (
            "duration = \"1s\"\nmessages = 5",
            publish("topic = \"a\""),
            "not both",
        ),
        ("allow_loss = \"5\"", publish("topic = \"a\""), "allow_loss"),
    ] {
        let file = Scratch::new("mixed.toml");
        let text = format!("{head}\n[[group]]\nname = \"x\"\nclients = 1\n{group}\n");
        std::fs::write(&file.0, &text).unwrap();
        let output = loadgen("127.0.0.1:1", &["mixed", file.as_str()]);
        let said = crate::support::text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}: {said}");
        assert!(said.contains(wanted), "{text}: {said}");
    }
}

#[test]
fn a_process_that_is_not_there_is_named() {
    let broker = Broker::start();
    let args = [&ONE[..], &["--pid", "4000000"]].concat();
    fails(&broker.address, &args, "no process 4000000");
}
