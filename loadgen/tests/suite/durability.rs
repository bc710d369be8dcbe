//! Sessions that stay: what is published while subscribers are away comes when they are back, or is
//! counted as lost.

use crate::fake::{self, Fault, Wire};
use crate::support::{Broker, Scratch, breaches, clean, measured, or_limited};
use std::process::Command;

const OFFLINE: [&str; 3] = ["--subscribers=4", "--publishers=3", "--messages=50"];

#[test]
fn what_was_missed_comes_after_coming_back() {
    let broker = Broker::start();
    for protocol in ["--protocol=4", "--protocol=5"] {
        for qos in ["--qos=1", "--qos=2"] {
            let args = [&["offline"][..], &OFFLINE, &[protocol, qos]].concat();
            let json = clean(&broker.address, &args);
            assert_eq!(
                json["replay"],
                serde_json::json!([600, 600]),
                "{args:?}: {json}"
            );
            assert_eq!(json["delivered"]["messages"], 600, "{args:?}: {json}");
            assert_eq!(json["published"]["messages"], 150, "{args:?}: {json}");
            assert_eq!(json["latency"]["reconnect"]["count"], 4, "{args:?}: {json}");
            assert_eq!(json["latency"]["replay"]["count"], 600, "{args:?}: {json}");
        }
    }
}

#[test]
fn a_broker_that_forgets_sessions_has_lost_what_was_missed() {
    let address = fake::start(Fault::None, Wire::Tcp, None);
    let args = [&["offline"][..], &OFFLINE, &["--patience=500ms"]].concat();
    let (code, json) = measured(&address, &args);
    assert_eq!((code, &json["verdict"]), (3, &"breach".into()), "{json}");
    assert_eq!(breaches(&json, "lost"), 600, "{json}");
}

#[test]
fn a_restart_runs_its_command_in_the_middle() {
    let broker = Broker::start();
    let run = |command: &str| {
        let args = [
            &["restart"][..],
            &OFFLINE,
            &["--patience=1s", "--command", command],
        ];
        measured(&broker.address, &args.concat())
    };
    let (code, json) = run("true");
    assert_eq!(or_limited(code, 0), 0, "{json}");
    assert_eq!(json["replay"], serde_json::json!([600, 600]), "{json}");
    let spans = json["spans"].as_array().unwrap();
    let names: Vec<_> = spans
        .iter()
        .filter_map(|span| span["name"].as_str())
        .collect();
    assert_eq!(names, ["connect", "load", "command", "replay"], "{json}");

    let (code, json) = run("exit 5");
    assert_eq!(
        (code, &json["verdict"]),
        (1, &"incomplete".into()),
        "{json}"
    );
    assert!(
        json["end"]["failure"].as_str().unwrap().contains("exit 5"),
        "{json}"
    );

    // The broker does not come back at all.
    let (code, json) = run(&format!("kill -9 {}", broker.pid()));
    assert_eq!(
        (code, &json["verdict"]),
        (1, &"incomplete".into()),
        "{json}"
    );
    assert_eq!(json["replay"], serde_json::json!([600, 0]), "{json}");
}

/// A broker that the command of a restart started, until it is dropped.
struct Restarted(Scratch);

impl Restarted {
    fn pid(&self) -> String {
        let pid = std::fs::read_to_string(&self.0.0).unwrap_or_default();
        pid.trim().to_owned()
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        let pid = self.pid();
        if !pid.is_empty() {
            let _ = Command::new("kill").args(["-9", &pid]).status();
        }
    }
}

#[test]
fn a_broker_that_is_restarted_is_found_again() {
    let broker = Broker::start();
    let restarted = Restarted(Scratch::new("pid"));
    let log = Scratch::new("log");
    let port: u16 = broker.address.rsplit(':').next().unwrap().parse().unwrap();
    // The port is free when nothing listens there any more (0A in the kernel's table).
    let command = format!(
        "kill -9 {old}; while grep -q ':{port:04X} 00000000:0000 0A' /proc/net/tcp; do sleep 0.02; done; \
         {binary} --listen mqtt://{address} --shards 2 </dev/null >/dev/null 2>{log} & echo $! >{pid}; \
         until grep -q 'listening on' {log}; do sleep 0.02; done",
        old = broker.pid(),
        binary = Broker::binary().display(),
        address = broker.address,
        log = log.as_str(),
        pid = restarted.0.as_str(),
    );
    let args = [
        &["restart"][..],
        &OFFLINE,
        &["--patience=5s", "--command", &command],
    ];
    let (code, json) = measured(&broker.address, &args.concat());
    let new = restarted.pid();
    assert!(!new.is_empty() && new != broker.pid(), "{json}");
    // All came back, to a broker that keeps nothing on a disk: what was missed is lost, and counted so.
    assert_eq!(json["latency"]["reconnect"]["count"], 4, "{json}");
    assert_eq!(json["replay"], serde_json::json!([600, 0]), "{json}");
    assert_eq!((code, &json["verdict"]), (3, &"breach".into()), "{json}");
    assert_eq!(breaches(&json, "lost"), 600, "{json}");
    let again = [&["fanout", "--subscribers=2", "--messages=5"][..]].concat();
    clean(&broker.address, &again);
}
