//! The load generator against the broker: it runs to its end, finds nothing wrong and says how long
//! deliveries took; and it fails clearly where there is no broker or a wrong one.
//!
//! The broker's binary lies beside the load generator's when the whole workspace is tested.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

struct Broker {
    child: Child,
    address: String,
}

impl Broker {
    fn start() -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_loadgen")).with_file_name("ringmq");
        assert!(
            binary.exists(),
            "build the broker too: cargo test --workspace"
        );
        let mut child = Command::new(binary)
            .args(["--listen", "mqtt://127.0.0.1:0", "--shards", "2"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines
            .find_map(|line| {
                line.ok()
                    .filter(|line| line.contains("listening on mqtt://"))
            })
            .expect("the broker gets ready");
        let address = line.rsplit("mqtt://").next().unwrap().trim().to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Broker { child, address }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn loadgen(address: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["fanout", "--broker", address])
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn one_publisher_to_a_thousand_subscribers_runs_to_its_end() {
    let broker = Broker::start();
    let output = loadgen(&broker.address, &["--messages", "50", "--window", "4"]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{table}{}", text(&output.stderr));
    for wanted in [
        "50000 of 50000",
        "p50",
        "p99.9",
        "lost 0, duplicated 0, reordered 0",
    ] {
        assert!(table.contains(wanted), "{wanted}: {table}");
    }
}

#[test]
fn every_qos_version_and_loop_is_verified() {
    let broker = Broker::start();
    for qos in ["0", "1", "2"] {
        for protocol in ["4", "5"] {
            for pace in [["--window", "3"], ["--rate", "2000"]] {
                let common = [
                    "--subscribers",
                    "20",
                    "--messages",
                    "50",
                    "--json",
                    "--size",
                    "5000",
                ];
                let args = [&common[..], &["--qos", qos, "--protocol", protocol], &pace].concat();
                let output = loadgen(&broker.address, &args);
                let json = text(&output.stdout);
                assert!(
                    output.status.success(),
                    "{args:?}: {json}{}",
                    text(&output.stderr)
                );
                assert!(json.contains("\"delivered\":1000,"), "{args:?}: {json}");
            }
        }
    }
}

#[test]
fn a_broker_that_is_not_there_or_refuses_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let output = loadgen(&address, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&format!("cannot connect to {address}")));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(&[0x20, 2, 0, 5]);
        }
    });
    let output = loadgen(&address, &["--subscribers", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("refused with code 5"),
        "{}",
        text(&output.stderr)
    );
}
