//! Real clients, written by others, against one, two and four shards.
//!
//! Each client does each scenario. A client that is not installed fails its tests with a message that
//! names `scripts/test.sh`, which installs them under `target/clients`.

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of the support"
)]
mod support;

mod bridge;
mod bridge_peers;
mod import;
mod mosquitto;
mod rumqttc_scenarios;
mod rumqttc_v4;
mod rumqttc_v5;
mod wires;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use support::{Broker, shared};

/// Limits that let a 10 MiB payload and 1,000 queued messages through. MQTT.js sends what it is told
/// without regard to the broker's receive maximum, so that one is raised too.
const CONFIG: &str = "[limits]\n\
    max_packet_bytes = 16777216\n\
    receive_maximum = 65535\n\
    outbox_bytes_max = 67108864\n\
    queue_messages_max = 10000\n\
    queue_bytes_max = 67108864\n";

/// The broker that all clients use on this number of shards.
fn broker(shards: usize) -> Arc<Broker> {
    shared(shards, CONFIG)
}

fn installed(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/clients")
        .join(path);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test.sh --setup",
        path.display()
    );
    path
}

fn run(shards: usize, command: Command, script: &str, version: u8, scenario: &str) {
    let broker = broker(shards);
    run_at(
        command,
        script,
        version,
        scenario,
        broker.address().port(),
        &[],
    );
}

/// Runs a script's scenario at a port; `more` is the scheme and the files it needs.
fn run_at(
    mut command: Command,
    script: &str,
    version: u8,
    scenario: &str,
    port: u16,
    more: &[&str],
) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(script);
    let output = command
        .arg(script)
        .args([port.to_string(), version.to_string()])
        .arg(scenario)
        .args(more)
        .output()
        .unwrap_or_else(|error| panic!("{command:?} did not start ({error}): run scripts/test.sh"));
    assert!(
        output.status.success(),
        "{scenario} over MQTT {version}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn node() -> Command {
    let mut node = Command::new("node");
    node.env("NODE_PATH", installed("js/node_modules"));
    node
}

fn paho(shards: usize, version: u8, scenario: &str) {
    let python = Command::new(installed("venv/bin/python"));
    run(shards, python, "paho_client.py", version, scenario);
}

fn mqttjs(shards: usize, version: u8, scenario: &str) {
    run(shards, node(), "mqttjs_client.js", version, scenario);
}

/// One module per client and version with its scenarios as tests.
macro_rules! scripted {
    ($module:ident, $client:ident, $version:literal, [$($scenario:ident),+]) => {
        mod $module {
            $(fn $scenario(shards: usize) {
                super::$client(shards, $version, stringify!($scenario));
            })+
            $crate::on_shards!([1, 2, 4] $($scenario),+);
        }
    };
}

scripted!(
    paho_v4,
    paho,
    4,
    [round_trips, retained, will, resume, large, thousand]
);
scripted!(
    paho_v5,
    paho,
    5,
    [
        round_trips,
        retained,
        will,
        resume,
        shared,
        properties,
        large,
        thousand
    ]
);
scripted!(
    mqttjs_v4,
    mqttjs,
    4,
    [round_trips, retained, will, resume, large, thousand]
);
scripted!(
    mqttjs_v5,
    mqttjs,
    5,
    [
        round_trips,
        retained,
        will,
        resume,
        shared,
        properties,
        large,
        thousand
    ]
);
