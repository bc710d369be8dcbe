//! Coordinated omission: a stall of known length shows in full in the open loop's percentiles.

use crate::support::{Broker, clean};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long the proxy holds everything back.
const STALL: Duration = Duration::from_millis(600);
/// Bytes from clients after which it does.
const STALL_AFTER_BYTES: u64 = 40_000;

/// A proxy that stalls once, in both directions, when enough has passed.
struct Proxy {
    passed: AtomicU64,
    began: Instant,
    /// In ns since the proxy began; nothing passes before.
    opens_ns: AtomicU64,
}

impl Proxy {
    fn start(broker: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let broker = broker.to_owned();
        let proxy = Arc::new(Proxy {
            passed: AtomicU64::new(0),
            began: Instant::now(),
            opens_ns: AtomicU64::new(0),
        });
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&broker).unwrap();
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (proxy.clone(), proxy.clone());
                thread::spawn(move || up.pump(client, server, true));
                thread::spawn(move || down.pump(ends.1, ends.0, false));
            }
        });
        address
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, counts: bool) {
        let mut buffer = [0; 16384];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if counts {
                let before = self.passed.fetch_add(count as u64, Ordering::SeqCst);
                let passes = before + count as u64;
                if before < STALL_AFTER_BYTES && passes >= STALL_AFTER_BYTES {
                    let opens = self.began.elapsed() + STALL;
                    self.opens_ns
                        .store(opens.as_nanos() as u64, Ordering::SeqCst);
                }
            }
            let opens = Duration::from_nanos(self.opens_ns.load(Ordering::SeqCst));
            thread::sleep(opens.saturating_sub(self.began.elapsed()));
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    }
}

fn ms(json: &Value, percentile: &str) -> f64 {
    json["latency"]["deliver"][format!("{percentile}_ns")]
        .as_f64()
        .unwrap()
        / 1e6
}

#[test]
fn a_stall_is_found_in_full_by_the_open_loop_and_hidden_by_the_closed_one() {
    let broker = Broker::start();
    let stall_ms = STALL.as_secs_f64() * 1e3;
    let args = ["fanout", "--subscribers=1", "--size=64"];

    // 500 messages per second for 4 s: those of the 600 ms wait, on average half of it.
    let address = Proxy::start(&broker.address);
    let json = clean(
        &address,
        &[&args[..], &["--rate=500", "--duration=4s"]].concat(),
    );
    let stalled_share = stall_ms / 4000.0;
    assert!(ms(&json, "max") >= stall_ms * 0.95, "{json}");
    assert!(
        ms(&json, "p99") >= stall_ms * (1.0 - 0.02 / stalled_share),
        "{json}"
    );
    assert!(
        ms(&json, "p90") >= stall_ms * (1.0 - 0.12 / stalled_share),
        "{json}"
    );
    assert!(ms(&json, "p50") < stall_ms / 2.0, "{json}");
    let seconds = json["seconds"].as_array().unwrap();
    let worst = seconds
        .iter()
        .map(|s| s["max_ns"].as_f64().unwrap())
        .fold(0.0, f64::max);
    assert!(worst / 1e6 >= stall_ms * 0.95, "{json}");

    // The closed loop sends one message into the stall: only the maximum knows of it.
    let address = Proxy::start(&broker.address);
    let json = clean(
        &address,
        &[&args[..], &["--messages=2000", "--window=1"]].concat(),
    );
    assert!(ms(&json, "max") >= stall_ms * 0.95, "{json}");
    assert!(ms(&json, "p99") < stall_ms / 2.0, "{json}");
}
