//! The clients once more over TLS, mutual TLS, WebSocket and WSS; MQTT.js also in a browser.

use super::{CONFIG, installed, node, run_at};
use crate::support::{Broker, Certificates, Connect, Setup, unique};
use std::process::{Command, Stdio};

/// A broker with a listener of each kind, and what its clients need.
struct Wires {
    broker: Broker,
    certificates: Certificates,
}

const WIRES: [&str; 5] = ["mqtt", "mqtts", "mutual", "ws", "wss"];

/// One for all tests of this file: a process of its own ends with the test binary.
fn wires() -> Wires {
    let certificates = Certificates::new();
    certificates.client("client", "device", 2);
    let tables = WIRES.map(|wire| {
        let scheme = if wire == "mutual" { "mqtts" } else { wire };
        let mutual = if wire == "mutual" {
            let section = certificates.section().replace("[tls]", "[listener.tls]");
            format!("{section}client_ca = {:?}\n", certificates.path("ca.pem"))
        } else {
            String::new()
        };
        format!("[[listener]]\nurl = \"{scheme}://127.0.0.1:0\"\n{mutual}")
    });
    let config = CONFIG.to_owned() + &tables.concat() + &certificates.section();
    let broker = Setup::new().shards(2).config(&config).start();
    Wires {
        broker,
        certificates,
    }
}

impl Wires {
    fn port(&self, wire: &str) -> u16 {
        let at = WIRES.iter().position(|known| *known == wire);
        self.broker.addresses()[at.expect("a wire")].port()
    }

    /// Scheme and files, as the scripts take them.
    fn arguments(&self, wire: &str) -> Vec<String> {
        let path = |name: &str| self.certificates.path(name);
        match wire {
            "ws" => vec!["ws".into()],
            "mutual" => vec![
                "mqtts".into(),
                path("ca.pem"),
                path("client.pem"),
                path("client.key"),
            ],
            other => vec![other.into(), path("ca.pem")],
        }
    }
}

fn script(wire: &str, command: impl Fn() -> Command, script: &str, scenarios: &[&str]) {
    let wires = wires();
    let arguments = wires.arguments(wire);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    for version in [4, 5] {
        for scenario in scenarios {
            run_at(
                command(),
                script,
                version,
                scenario,
                wires.port(wire),
                &arguments,
            );
        }
    }
}

const SCENARIOS: [&str; 6] = [
    "round_trips",
    "retained",
    "will",
    "resume",
    "large",
    "thousand",
];

fn paho(wire: &str) {
    let python = || Command::new(installed("venv/bin/python"));
    // Paho forgets the rest of a WebSocket message of which the kernel took a part only.
    let scenarios: Vec<_> = SCENARIOS
        .into_iter()
        .filter(|scenario| *scenario != "large" || wire != "ws")
        .collect();
    script(wire, python, "paho_client.py", &scenarios);
}

fn mqttjs(wire: &str) {
    script(wire, node, "mqttjs_client.js", &SCENARIOS);
}

fn mosquitto(wire: &str) {
    let wires = wires();
    let port = wires.port(wire).to_string();
    let path = |name: &str| wires.certificates.path(name);
    let mut tls = vec!["-h".to_owned(), "localhost".into(), "-p".into(), port];
    tls.extend(["--cafile".into(), path("ca.pem")]);
    if wire == "mutual" {
        tls.extend([
            "--cert".into(),
            path("client.pem"),
            "--key".into(),
            path("client.key"),
        ]);
    }
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let (topic, size) = (unique("wire"), 100_000);
        let payload = "x".repeat(size);
        // Retained, so that it does not matter who comes first.
        let status = Command::new("mosquitto_pub")
            .args(&tls)
            .args(["-V", version, "-t", &topic, "-q", "2", "-r", "-s"])
            .stdin(Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                use std::io::Write;
                child
                    .stdin
                    .take()
                    .expect("piped")
                    .write_all(payload.as_bytes())?;
                child.wait()
            })
            .expect("run mosquitto_pub");
        assert!(status.success(), "mosquitto_pub over {wire}: {status}");
        let output = Command::new("mosquitto_sub")
            .args(&tls)
            .args([
                "-V", version, "-t", &topic, "-q", "2", "-C", "1", "-W", "60", "-N",
            ])
            .output()
            .expect("run mosquitto_sub");
        assert_eq!(output.stdout.len(), size, "over {wire}");
    }
}

/// Paho C takes one packet of a WebSocket frame and loses the others: all that comes at once has to arrive.
fn paho_c(wire: &str) {
    let wires = wires();
    let (scheme, path) = if wire == "ws" {
        ("ws", "/mqtt")
    } else {
        ("tcp", "")
    };
    let uri = format!("{scheme}://127.0.0.1:{}{path}", wires.port(wire));
    for version in ["4", "5"] {
        for scenario in ["retained", "burst"] {
            let output = Command::new(installed("paho-c/client"))
                .args([&uri, version, scenario])
                .output()
                .expect("run the client");
            assert!(
                output.status.success(),
                "{scenario} over MQTT {version}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }
}

macro_rules! over {
    ($($client:ident: $($test:ident $wire:literal),+;)+) => {
        $(mod $client { $(#[test] fn $test() { super::$client($wire); })+ })+
    };
}

over! {
    paho: tls "mqtts", mutual_tls "mutual", websocket "ws", websocket_over_tls "wss";
    mqttjs: tls "mqtts", mutual_tls "mutual", websocket "ws", websocket_over_tls "wss";
    mosquitto: tls "mqtts", mutual_tls "mutual";
    paho_c: plain "mqtt", websocket "ws";
}

/// A page in a browser connects, subscribes, publishes to itself and says so to this test.
#[test]
fn mqttjs_in_a_browser() {
    let wires = wires();
    let topic = unique("browser");
    let mut watcher = Connect::v5(&unique("watcher")).open(&wires.broker);
    watcher.subscribe(&format!("{topic}/done"), 1);
    let library = installed("js/node_modules/mqtt/dist/mqtt.min.js");
    let page = format!(
        "<!doctype html><script src=\"file://{}\"></script><script>\n\
         const client = mqtt.connect('ws://127.0.0.1:{}/mqtt', {{ protocolVersion: 5 }})\n\
         client.on('connect', () => client.subscribe('{topic}', {{ qos: 1 }}, () =>\n\
           client.publish('{topic}', 'to myself', {{ qos: 1 }})))\n\
         client.on('message', (topic, payload) =>\n\
           client.publish('{topic}/done', navigator.userAgent + ' ' + payload, {{ qos: 1 }}))\n\
         </script>",
        library.display(),
        wires.port("ws"),
    );
    wires.certificates.write("page.html", &page);
    let mut browser = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
        .arg(format!(
            "--user-data-dir={}",
            wires.certificates.path("browser")
        ))
        .arg(format!("file://{}", wires.certificates.path("page.html")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("chromium did not start ({error}): run scripts/test.sh"));
    let done = watcher.accept();
    let text = String::from_utf8_lossy(&done.payload).into_owned();
    browser.kill().expect("stop the browser");
    browser.wait().expect("stop the browser");
    assert!(
        text.contains("Chrome") && text.ends_with("to myself"),
        "{text}"
    );
}
