//! A result says what the run was worth: one word in every output, and the exit code that fits it.

use crate::fake::{self, Fault, Wire};
use crate::support::{Broker, Process, Scratch, clean, loadgen, measured, or_limited, text};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const LOAD: [&str; 6] = [
    "fanout",
    "--subscribers=2",
    "--messages=200",
    "--rate=1000",
    "--patience=1s",
    "--keep-alive=0",
];

fn warnings(json: &Value) -> String {
    json["warnings"].to_string()
}

#[test]
fn a_broker_that_stands_still_makes_no_clean_run_at_any_qos_and_pace() {
    for more in [&["--qos=0"][..], &["--qos=1"], &["--qos=2"]] {
        let address = fake::start(Fault::Stop, Wire::Tcp, None);
        let (code, json) = measured(&address, &[&LOAD[..], more].concat());
        assert_eq!(
            (code, &json["verdict"]),
            (1, &"incomplete".into()),
            "{more:?}: {json}"
        );
        assert!(
            warnings(&json).contains("not every connection answers pings"),
            "{json}"
        );
        assert!(json["delivered"]["messages"].as_u64() > Some(0), "{json}");
    }
    let address = fake::start(Fault::Stop, Wire::Tcp, None);
    let args = ["fanout", "--subscribers=2", "--window=4", "--patience=1s"];
    let (code, json) = measured(&address, &args);
    assert_eq!(
        (code, &json["verdict"]),
        (1, &"incomplete".into()),
        "{json}"
    );
}

#[test]
fn a_broker_that_dies_leaves_a_partial_result_in_every_output() {
    let address = fake::start(Fault::Die, Wire::Tcp, None);
    let (code, json) = measured(&address, &LOAD);
    assert_eq!(
        (code, &json["verdict"]),
        (1, &"incomplete".into()),
        "{json}"
    );
    assert!(json["delivered"]["messages"].as_u64() > Some(0), "{json}");
    assert!(
        json["end"]["failure"].as_str().unwrap().contains("ended"),
        "{json}"
    );
    let spans = json["spans"].as_array().unwrap();
    assert!(spans.iter().any(|span| span["name"] == "load"), "{json}");
    let address = fake::start(Fault::Die, Wire::Tcp, None);
    let output = loadgen(&address, &LOAD);
    let table = text(&output.stdout);
    assert!(table.starts_with("incomplete: fanout at"), "{table}");
    assert!(table.contains("the result is partial"), "{table}");

    let result = Scratch::new("dead.json");
    std::fs::write(&result.0, json.to_string()).unwrap();
    let (page, folder) = (Scratch::new("dead.html"), Scratch::new("plots"));
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["report", result.as_str(), "--html", page.as_str()])
        .args(["--svg", folder.as_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let html = std::fs::read_to_string(&page.0).unwrap();
    assert!(
        html.contains("<td>incomplete</td>") && html.contains("partial"),
        "{html}"
    );
    let svg = std::fs::read_to_string(folder.0.join("fanout-latency.svg")).unwrap();
    assert!(svg.contains("(incomplete)"), "{svg}");
}

/// Runs loadgen, and interrupts it when it has told of a second with deliveries.
fn interrupted(address: &str, more: &[&str]) -> (i32, String) {
    let args = ["--rate=500", "--broker", address];
    interrupted_at([&args[..], more].concat(), |line| {
        line.contains("messages/s") || !line.contains("delivered         0")
    })
}

/// Runs a fan-out, and interrupts it at such a line of its progress; its code, and what it says.
fn interrupted_at(args: Vec<&str>, is_time: impl Fn(&str) -> bool) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["fanout", "--subscribers=2"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = lines.any(|line| is_time(&line.unwrap()));
    assert!(told, "loadgen tells of its progress");
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    lines.for_each(drop);
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    (child.wait().unwrap().code().unwrap(), said)
}

#[test]
fn ctrl_c_leaves_a_partial_result_that_says_so() {
    let broker = Broker::start();
    let (code, said) = interrupted(&broker.address, &["--duration=1h", "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &json["verdict"]),
        (1, &"interrupted".into()),
        "{json}"
    );
    assert!(json["delivered"]["messages"].as_u64() > Some(0), "{json}");
    assert_eq!(json["breaches"][0]["lost"], 0, "{json}");
    assert_eq!(json["owed"][0], json["owed"][1], "{json}");
    let (code, table) = interrupted(&broker.address, &["--duration=1h"]);
    assert_eq!(code, 1, "{table}");
    assert!(table.starts_with("interrupted: fanout at"), "{table}");
}

#[test]
fn an_interrupted_search_says_so() {
    let broker = Broker::start();
    let args = ["--find-max", "--slo=p99=10s", "--trial=1s", "--broker"];
    let args = [&args[..], &[&broker.address]].concat();
    let (code, said) = interrupted_at(args, |line| line.contains("messages/s"));
    assert_eq!(code, 1, "{said}");
    assert!(said.starts_with("interrupted: "), "{said}");
}

/// Runs `args` on one CPU that eight busy threads keep from it.
fn starved(address: &str, args: &[&str]) -> (i32, Value) {
    let allowed = sched_getaffinity(None).unwrap();
    let cpu = (0..CpuSet::MAX_CPU)
        .find(|cpu| allowed.is_set(*cpu))
        .unwrap();
    let mut one = CpuSet::new();
    one.set(cpu);
    let is_over = Arc::new(AtomicBool::new(false));
    let hogs: Vec<_> = (0..8)
        .map(|_| {
            let is_over = is_over.clone();
            thread::spawn(move || {
                sched_setaffinity(None, &one).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let found = thread::scope(|scope| {
        let run = scope.spawn(|| {
            sched_setaffinity(None, &one).unwrap();
            measured(address, &[args, &["--threads=1"]].concat())
        });
        run.join().unwrap()
    });
    is_over.store(true, Ordering::Relaxed);
    for hog in hogs {
        hog.join().unwrap();
    }
    found
}

#[test]
fn a_generator_that_gets_no_cpu_says_that_the_machine_was_the_limit() {
    let broker = Broker::start();
    for pace in ["--window=64", "--rate=5000"] {
        let args = [
            "fanout",
            "--subscribers=50",
            "--duration=1s",
            pace,
            "--allow-loss=100%",
        ];
        let (code, json) = starved(&broker.address, &args);
        assert_eq!(
            (code, &json["verdict"]),
            (5, &"machine_bound".into()),
            "{pace}: {json}"
        );
        assert!(
            warnings(&json).contains("the machine was the limit"),
            "{pace}: {json}"
        );
    }
}

#[test]
fn a_rate_that_nobody_makes_is_no_clean_run() {
    let broker = Broker::start();
    let args = [
        "fanout",
        "--subscribers=1",
        "--rate=50000000",
        "--duration=500ms",
    ];
    let (code, json) = measured(
        &broker.address,
        &[&args[..], &["--allow-loss=100%"]].concat(),
    );
    let verdict = json["verdict"].as_str().unwrap();
    let expected = match verdict {
        "objective_missed" => 4,
        "generator_bound" | "machine_bound" => 5,
        other => panic!("{other}: {json}"),
    };
    assert_eq!(code, expected, "{json}");
    let table = text(&loadgen(&broker.address, &args).stdout);
    let (word, _) = table.split_once(':').unwrap();
    assert!(!["clean", "lossy"].contains(&word), "{table}");
}

#[test]
fn an_objective_that_is_missed_is_code_4() {
    let broker = Broker::start();
    for (slo, expected) in [("p50=1us", 4), ("p99=1h", 0)] {
        let args = [
            "fanout",
            "--subscribers=2",
            "--messages=50",
            "--rate=200",
            "--slo",
            slo,
        ];
        let (code, json) = measured(&broker.address, &args);
        assert_eq!(or_limited(code, expected), expected, "{slo}: {json}");
        let missed = json["verdict"] == "objective_missed";
        assert_eq!(missed, code == 4, "{slo}: {json}");
        assert!(
            json["objective"]["found_ns"].as_u64() > Some(1_000),
            "{slo}: {json}"
        );
    }
    let connects = ["connect", "--clients=5", "--hold=1ms", "--slo=p50=1us"];
    let (code, json) = measured(&broker.address, &connects);
    assert_eq!(or_limited(code, 4), 4, "{json}");
}

#[test]
fn owed_and_delivered_are_of_the_same_time_and_the_warm_up_stands_apart() {
    let broker = Broker::start();
    for pace in ["--rate=400", "--window=1"] {
        let args = [
            "fanout",
            "--subscribers=3",
            "--duration=1s",
            "--warmup=300ms",
            pace,
        ];
        let json = clean(&broker.address, &args);
        assert_eq!(json["owed"][0], json["delivered"]["messages"], "{json}");
        assert_eq!(json["owed"][1], json["delivered"]["messages"], "{json}");
        assert!(json["warmup_owed"][0].as_u64() > Some(0), "{json}");
        assert_eq!(json["warmup_owed"][0], json["warmup_owed"][1], "{json}");
    }
}

#[test]
fn a_password_stands_in_no_output_and_in_no_list_of_processes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connects = thread::spawn(move || {
        let mut seen = Vec::new();
        for stream in listener.incoming().take(3) {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 256];
            let count = stream.read(&mut bytes).unwrap();
            seen.push(text(&bytes[..count]));
            stream.write_all(&[0x20, 2, 0, 5]).unwrap();
        }
        seen
    });
    let file = Scratch::new("password");
    std::fs::write(&file.0, "s3cret\n").unwrap();
    let url = format!("mqtt://me%40home@{address}");
    let run = |more: &[&str], password: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.args([
            "fanout",
            "--subscribers=1",
            "--publishers=1",
            "--connecting-max=1",
        ]);
        command
            .args(["--threads=1", "--json", "--quiet"])
            .args(more);
        command.envs(password.map(|password| ("LOADGEN_PASSWORD", password)));
        let output = command.output().unwrap();
        text(&output.stdout) + &text(&output.stderr)
    };
    let from_file = ["--broker", &url, "--password-file", file.as_str()];
    let mut said = run(&from_file, None);
    let plain = format!("mqtt://{address}");
    said += &run(&["--broker", &plain, "--user=me@home"], Some("s3cret"));
    said += &run(&["--broker", &url], Some("s3cret"));
    for seen in connects.join().unwrap() {
        assert!(
            seen.contains("me@home") && seen.ends_with("s3cret"),
            "{seen}"
        );
    }
    assert!(
        !said.contains("s3cret") && !said.contains("me%40home"),
        "{said}"
    );
    for (url, wanted) in [
        (format!("mqtt://me:s3cret@{address}"), "LOADGEN_PASSWORD"),
        (
            format!("ws://{address}/mqtt?token=s3cret"),
            "LOADGEN_BROKER",
        ),
    ] {
        let said = run(&["--broker", &url], None);
        assert!(said.contains(wanted) && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn a_result_names_all_that_is_needed_to_make_it_again() {
    let broker = Broker::start();
    let pid = broker.pid();
    let args = [
        "fanout",
        "--subscribers=2",
        "--messages=5",
        "--seed=7",
        "--broker-version=ringmq test",
        "--pid",
        &pid,
    ];
    let json = clean(&broker.address, &args);
    assert_eq!((&json["schema"], &json["seed"]), (&2.into(), &7.into()));
    assert_eq!(json["broker_version"], "ringmq test");
    for name in ["loadgen", "loadgen_commit"] {
        assert!(!json[name].as_str().unwrap().is_empty(), "{name}: {json}");
    }
    assert!(
        json["broker_executables"][0]
            .as_str()
            .unwrap()
            .ends_with("ringmq"),
        "{json}"
    );
    assert!(
        json["began_unix_s"].as_u64() > Some(1_700_000_000),
        "{json}"
    );
    assert!(json["limits"]["load_before"].is_f64() && json["limits"]["load_after"].is_f64());
    assert!(json["host"]["cpu_model"].is_string() && json["host"].get("governor").is_some());
    assert!(json["latency"]["deliver"]["p99_ns"].is_u64(), "{json}");
    let command = json["command"].as_array().unwrap();
    assert!(command.contains(&"--seed=7".into()), "{json}");
}

#[test]
fn a_broker_on_a_unix_socket_is_loaded() {
    let socket = Scratch::new("socket");
    let url = format!("unix://{}", socket.as_str());
    let broker = Broker::listening(&["--listen", &url]);
    let json = clean(&url, &["p2p", "--pairs=5", "--messages=20", "--qos=1"]);
    assert_eq!(json["delivered"]["messages"], 100, "{json}");
    drop(broker);
}

#[test]
fn calibration_says_what_a_message_costs_and_what_can_be_judged() {
    let run = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["calibrate", "--subscribers=10", "--trial=200ms"])
            .args(more)
            .output()
            .unwrap()
    };
    let output = run(&["--json"]);
    let said = text(&output.stderr);
    let json: Value = serde_json::from_slice(&output.stdout).expect(&said);
    assert!(json["delivery_cpu_us"].as_f64() > Some(0.0), "{json}");
    // A machine that runs other tests may leave no rate that can be judged.
    let found = json["rate_per_second"].as_f64();
    assert_eq!(
        output.status.code(),
        Some(if found.is_some() { 0 } else { 5 }),
        "{json}"
    );
    let each = json["deliveries_per_second"].as_f64().map(f64::round);
    assert_eq!(each, found.map(|rate| (rate * 10.0).round()), "{json}");
}

#[test]
fn the_floor_under_a_fan_in_passes_on_every_message() {
    let floor = Process::start(&["floor", "--fan-in", "--listen=127.0.0.1:0"]);
    let address = floor.said.rsplit("mqtt://").next().unwrap();
    for size in ["64", "16-5000"] {
        let args = [
            "fanin",
            "--publishers=200",
            "--messages=20",
            "--window=4",
            "--size",
            size,
        ];
        let json = clean(address, &args);
        assert_eq!(json["delivered"]["messages"], 4000, "{size}: {json}");
    }
}
