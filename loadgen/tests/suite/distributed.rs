//! Several generators make one load: counts and histograms are added, each is judged by its own limits.

use crate::support::{Broker, Process, Scratch, clean, loadgen, measured, text};

fn worker() -> (Process, String) {
    let process = Process::start(&["worker", "--listen=127.0.0.1:0"]);
    let address = process.said.rsplit(' ').next().unwrap().to_owned();
    (process, address)
}

#[test]
fn two_workers_make_one_load_one_after_the_other() {
    let broker = Broker::start();
    let (one, other) = (worker(), worker());
    let workers = format!("--workers={},{}", one.1, other.1);
    for args in [
        &["fanin", "--publishers=5", "--messages=40", "--rate=500"][..],
        &["p2p", "--pairs=5", "--messages=40", "--window=3", "--qos=1"],
    ] {
        let json = clean(&broker.address, &[args, &[&workers]].concat());
        assert_eq!(json["delivered"]["messages"], 2 * 5 * 40, "{json}");
        assert_eq!(json["latency"]["deliver"]["count"], 2 * 5 * 40, "{json}");
        assert_eq!(json["owed"][0], json["owed"][1], "{json}");
        let found = json["workers"].as_array().unwrap();
        assert_eq!(found.len(), 2, "{json}");
        for (worker, address) in found.iter().zip([&one.1, &other.1]) {
            assert_eq!(worker["address"], address.as_str(), "{json}");
            assert_eq!(worker["delivered"], 5 * 40, "{json}");
            assert!(
                worker["limits"]["busiest_thread_share"].as_f64() > Some(0.0),
                "{json}"
            );
        }
    }
    let json = clean(
        &broker.address,
        &["connect", "--clients=7", "--hold=1ms", &workers],
    );
    assert_eq!(json["clients"], 14, "{json}");
}

#[test]
fn workers_that_are_not_there_or_refuse_are_named() {
    // A port that nobody is given by chance.
    let address = "127.0.0.1:1";
    let output = loadgen("127.0.0.1:1", &["fanout", "--workers", address]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("cannot reach worker {address}")),
        "{said}"
    );

    let (_process, address) = worker();
    let mark = Scratch::new("mark");
    let command = format!("touch {}", mark.as_str());
    let args = ["restart", "--command", &command, "--workers", &address];
    let output = loadgen("127.0.0.1:1", &args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("runs no commands") && !mark.0.exists(),
        "{said}"
    );

    let args = [
        "fanout",
        "--subscribers=1",
        "--messages=1",
        "--workers",
        &address,
    ];
    let output = loadgen("127.0.0.1:1", &args);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("worker {address}: cannot connect")),
        "{said}"
    );
}

#[test]
fn a_worker_that_dies_leaves_a_partial_result() {
    let broker = Broker::start();
    let (one, other) = (worker(), worker());
    let workers = format!("--workers={},{}", one.1, other.1);
    let victim = other.0;
    let args = ["p2p", "--pairs=2", "--rate=100", "--duration=1h", &workers];
    let ends = std::thread::scope(|scope| {
        let run = scope.spawn(|| measured(&broker.address, &args));
        // Both are in when the broker has their eight clients.
        broker.wait_for_clients(8);
        drop(victim);
        run.join().unwrap()
    });
    let (code, json) = ends;
    assert_eq!(
        (code, &json["verdict"]),
        (1, &"incomplete".into()),
        "{json}"
    );
    let failure = json["end"]["failure"].as_str().unwrap();
    assert!(failure.contains("it is gone"), "{json}");
    assert_eq!(json["workers"].as_array().map(Vec::len), Some(2), "{json}");
}
