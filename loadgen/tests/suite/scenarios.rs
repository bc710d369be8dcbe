//! Every workload runs to its end against the broker, finds nothing wrong and counts what it should.

use crate::support::{Broker, Scratch, clean, measured, or_limited};

#[test]
fn fanout_at_every_qos_version_and_pace() {
    let broker = Broker::start();
    for qos in ["--qos=0", "--qos=1", "--qos=2"] {
        for protocol in ["--protocol=4", "--protocol=5"] {
            for pace in ["--window=3", "--rate=2000"] {
                let common = ["fanout", "--subscribers=20", "--messages=50", "--size=5000"];
                let args = [&common[..], &[qos, protocol, pace]].concat();
                let json = clean(&broker.address, &args);
                assert_eq!(json["delivered"]["messages"], 1000, "{args:?}: {json}");
                assert_eq!(json["delivered"]["bytes"], 5_000_000, "{args:?}: {json}");
            }
        }
    }
}

#[test]
fn every_publisher_reaches_every_subscriber_by_exact_and_wildcard_filters() {
    let broker = Broker::start();
    for wildcard in ["none", "plus", "hash"] {
        let args = [
            "fanout",
            "--publishers=4",
            "--subscribers=10",
            "--topics=3",
            "--depth=5",
            "--messages=30",
            "--wildcard",
            wildcard,
            "--qos=1",
            "--threads=3",
        ];
        let json = clean(&broker.address, &args);
        assert_eq!(
            json["delivered"]["messages"],
            4 * 10 * 30,
            "{wildcard}: {json}"
        );
    }
}

#[test]
fn different_qos_of_publisher_and_subscriber_meet_at_the_lower_one() {
    let broker = Broker::start();
    let args = [
        "fanout",
        "--subscribers=3",
        "--messages=20",
        "--publish-qos=2",
        "--subscribe-qos=1",
    ];
    let json = clean(&broker.address, &args);
    assert_eq!(json["breaches"][1]["delivered"], 60, "{json}");
    assert_eq!(json["breaches"][2]["delivered"], 0, "{json}");
}

#[test]
fn topic_aliases_carry_the_same_messages_in_fewer_bytes() {
    let broker = Broker::start();
    let args = [
        "p2p",
        "--pairs=5",
        "--messages=100",
        "--topics=4",
        "--depth=20",
        "--protocol=5",
        "--window=4",
    ];
    let plain = clean(&broker.address, &args);
    let aliased = clean(&broker.address, &[&args[..], &["--topic-alias"]].concat());
    assert_eq!(aliased["delivered"]["messages"], 500);
    let bytes = |json: &serde_json::Value| json["sent_wire_bytes"].as_u64().unwrap();
    assert!(bytes(&aliased) < bytes(&plain) * 2 / 3, "{aliased} {plain}");
}

#[test]
fn fan_in_pairs_and_shared_groups_count_what_they_should() {
    let broker = Broker::start();
    for (args, delivered) in [
        (
            &["fanin", "--publishers=50", "--subscribers=2"][..],
            50 * 2 * 40,
        ),
        (&["p2p", "--pairs=50"], 50 * 40),
        (&["shared", "--publishers=20", "--subscribers=6"], 20 * 40),
        (
            &["shared", "--publishers=20", "--subscribers=6", "--groups=3"],
            3 * 20 * 40,
        ),
    ] {
        for more in [["--qos=1", "--threads=1"], ["--qos=0", "--threads=3"]] {
            let args = [args, &["--messages=40", "--window=2"], &more].concat();
            let json = clean(&broker.address, &args);
            assert_eq!(json["delivered"]["messages"], delivered, "{args:?}: {json}");
        }
    }
}

#[test]
fn connections_come_in_at_the_rate_asked_for_and_are_held() {
    let broker = Broker::start();
    let pid = broker.pid();
    let args = [
        "connect",
        "--clients=100",
        "--connect-rate=200",
        "--hold=300ms",
        "--subscribe",
        "--source=127.0.0.2-127.0.0.4",
        "--pid",
        &pid,
    ];
    let json = clean(&broker.address, &args);
    assert_eq!(json["clients"], 100);
    assert_eq!(json["latency"]["connect"]["count"], 100);
    assert_eq!(json["latency"]["subscribe"]["count"], 100);
    let spans = json["spans"].as_array().unwrap();
    let names: Vec<_> = spans
        .iter()
        .map(|span| span["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["connect", "hold"]);
    // The last of 100 is due after 99/200 s.
    assert!(spans[0]["elapsed_s"].as_f64().unwrap() > 0.45, "{json}");
    assert!(json["bytes_per_connection"].is_u64(), "{json}");
}

#[test]
fn retained_messages_are_replayed_in_full_and_removed_again() {
    let broker = Broker::start();
    let args = [
        "retained",
        "--topics=3000",
        "--subscribers=4",
        "--qos=1",
        "--size=16-200",
    ];
    let json = clean(&broker.address, &args);
    assert_eq!(json["replay"], serde_json::json!([12_000, 12_000]));
    assert_eq!(json["latency"]["replay"]["count"], 12_000);
    assert_eq!(json["latency"]["replay_whole"]["count"], 4);
    // Nothing is left of it: the next run would be sent it otherwise.
    let output = std::process::Command::new("mosquitto_sub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            broker.address.rsplit(':').next().unwrap(),
        ])
        .args(["-t", "loadgen/#", "--retained-only", "-W", "1", "-v"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn a_storm_brings_everybody_back_while_pairs_are_measured() {
    let broker = Broker::start();
    for session in [&[][..], &["--persistent"]] {
        let args = [
            "storm",
            "--clients=300",
            "--pairs=5",
            "--rate=500",
            "--after=500ms",
            "--settle=300ms",
        ];
        let json = clean(&broker.address, &[&args[..], session].concat());
        assert_eq!(json["latency"]["connect"]["count"], 310, "{json}");
        assert_eq!(json["latency"]["reconnect"]["count"], 300, "{json}");
        assert!(json["delivered"]["messages"].as_u64() > Some(300), "{json}");
    }
}

#[test]
fn a_day_of_telemetry_loses_nothing_while_sensors_come_back() {
    let broker = Broker::start();
    for qos in ["--qos=1", "--qos=0"] {
        let args = [
            "telemetry",
            "--sensors=100",
            "--interval=100ms",
            "--sites=4",
            "--dashboards=6",
            "--slow=2",
            "--reconnects=20%",
            "--duration=2s",
        ];
        let json = clean(&broker.address, &[&args[..], &[qos]].concat());
        // 20 of 100 in each of 2 seconds, the last ones perhaps not any more.
        let back = json["latency"]["reconnect"]["count"].as_u64().unwrap_or(0);
        assert!((20..=40).contains(&back), "{qos}: {json}");
        // Each of four dashboards watches a site of its own: every message is owed once.
        let published = json["published"]["messages"].as_u64();
        assert!(published > Some(1000), "{qos}: {json}");
        assert_eq!(
            json["delivered"]["messages"].as_u64(),
            published,
            "{qos}: {json}"
        );
    }
}

#[test]
fn stalled_and_slow_subscribers_leave_the_others_complete() {
    let broker = Broker::start();
    for slow_rate in ["--slow-rate=0", "--slow-rate=2000"] {
        let args = [
            "slow",
            "--subscribers=20",
            "--slow=5",
            "--messages=200",
            "--size=2000",
            "--rate=400",
        ];
        let json = clean(&broker.address, &[&args[..], &[slow_rate]].concat());
        assert_eq!(
            json["delivered"]["messages"],
            15 * 200,
            "{slow_rate}: {json}"
        );
    }
}

#[test]
fn a_mixed_file_is_run_as_it_says() {
    let broker = Broker::start();
    let file = Scratch::new("mixed.toml");
    let text = r#"
        messages = 30
        [[group]]
        name = "sensors"
        clients = 10
        publish = { topic = "plant/{run}/{i}/t{t}", topics = 3, qos = 1, size = "16-256", rate = 1000 }
        [[group]]
        name = "talkers"
        clients = 4
        publish = { topic = "talk/{run}/{i}", size = "64", think = "2ms" }
        subscribe = { filters = ["talk/{run}/{i}"] }
        [[group]]
        name = "dashboards"
        clients = 3
        subscribe = { filters = ["plant/{run}/+/t0", "talk/{run}/#"], qos = 1 }
        [[group]]
        name = "workers"
        clients = 3
        subscribe = { filters = ["plant/{run}/#"], qos = 2, share = "w" }
    "#;
    std::fs::write(&file.0, text).unwrap();
    let json = clean(&broker.address, &["mixed", file.as_str()]);
    let (sensors, talkers) = (10 * 30, 4 * 30);
    assert_eq!(json["published"]["messages"], sensors + talkers, "{json}");
    let dashboards = 3 * (sensors / 3 + talkers);
    assert_eq!(
        json["delivered"]["messages"],
        dashboards + talkers + sensors,
        "{json}"
    );
}

#[test]
fn a_preset_runs_under_its_published_name() {
    let broker = Broker::start();
    let args = ["preset", "sharedsub-1K-5-1K-1K", "--duration=2s"];
    let json = clean(&broker.address, &args);
    assert_eq!(json["scenario"], "sharedsub-1K-5-1K-1K");
    assert_eq!(
        (&json["clients"], &json["rate_per_second"]),
        (&1005.into(), &1000.0.into())
    );
    assert_eq!(json["delivered"]["messages"], 2000, "{json}");
}

#[test]
fn the_search_ends_with_a_rate_that_holds_the_objective() {
    let broker = Broker::start();
    let args = [
        "fanout",
        "--subscribers=2",
        "--find-max",
        "--slo=p50=10s",
        "--trial=300ms",
        "--from=20000000",
    ];
    let (code, json) = measured(&broker.address, &args);
    let trials = json["search"]["trials"].as_array().unwrap();
    // Nobody sends 20 million per second: the first trial fails, however long a message may take.
    assert!(!trials[0]["failure"].is_null(), "{json}");
    assert_eq!(or_limited(code, 0), 0, "{json}");
    assert!(
        json["search"]["rate_per_second"].as_f64() < Some(2e7),
        "{json}"
    );
}
