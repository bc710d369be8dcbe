//! Mosquitto as a bridge to this broker, with its defaults: it says that it is one by the protocol level, and
//! has a will under `$SYS`. And this broker as a bridge to Mosquitto, by each protocol.
//!
//! Retained markers in both directions tell when the bridge is up; what comes back behind a later message would
//! have come before it.

use crate::support::{Broker, Client, Connect, Version, eventually, free_port, unique};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Mosquitto {
    child: Child,
    port: u16,
    config: std::path::PathBuf,
}

impl Mosquitto {
    /// A broker that bridges everything below `stem`.
    fn start(remote: &Broker, version: &str, stem: &str) -> Self {
        let (name, remote) = (unique("bridge"), remote.address());
        Self::with(&format!(
            "connection {name}\naddress {remote}\n\
             topic {stem}/# both 2\nbridge_protocol_version {version}\n"
        ))
    }

    /// A broker with this in its configuration.
    fn with(more: &str) -> Self {
        let (port, name) = (free_port(), unique("mosquitto"));
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\n{more}");
        let config = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        std::fs::write(&config, text).expect("write its configuration");
        let child = ["mosquitto", "/usr/sbin/mosquitto"]
            .iter()
            .find_map(|program| {
                let mut command = Command::new(program);
                command.arg("-c").arg(&config).stderr(Stdio::null());
                command.spawn().ok()
            })
            .expect("mosquitto is not installed: run scripts/test.sh --setup");
        Mosquitto {
            child,
            port,
            config,
        }
    }

    fn client(&self) -> Client {
        let stream = eventually("mosquitto listens", || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        let client = Client::over(stream, Version::V4);
        let (client, answer) = Connect::v4(&unique("c")).attempt_over(client);
        assert!(answer.is_some(), "mosquitto does not answer");
        client
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// Takes messages until this one; how often the other came before it.
fn copies_before(client: &mut Client, last: &str, of: &str) -> usize {
    let mut copies = 0;
    loop {
        let publish = client.accept();
        match publish.payload_str() {
            payload if payload == last => return copies,
            payload => copies += usize::from(payload == of),
        }
    }
}

fn bridges(shards: usize, version: &str) {
    let broker = Broker::start(shards);
    let stem = unique("b");
    let topic = |name: &str| format!("{stem}/{name}");
    let mosquitto = Mosquitto::start(&broker, version, &stem);
    let (mut here, mut there) = (Connect::v4(&unique("c")).open(&broker), mosquitto.client());
    here.retain(&topic("here"), 1, "here is up");
    there.retain(&topic("there"), 1, "there is up");
    let everything = topic("#");
    let mut local = Connect::v5(&unique("c")).open(&broker);
    local.subscribe(&everything, 2);
    copies_before(&mut local, "there is up", "");
    let mut remote = mosquitto.client();
    remote.subscribe(&everything, 2);
    copies_before(&mut remote, "here is up", "");
    for qos in 0..3 {
        let (ours, theirs) = (format!("ours {qos}"), format!("theirs {qos}"));
        here.publish(&topic("x"), qos, &ours);
        assert_eq!(copies_before(&mut remote, &ours, ""), 0);
        // Two publishers, perhaps by two shards: their order is not promised.
        copies_before(&mut local, &ours, "");
        there.publish(&topic("x"), qos, &theirs);
        assert_eq!(copies_before(&mut local, &theirs, &ours), 0, "{version}");
        here.publish(&topic("x"), qos, format!("last {qos}"));
        let copies = copies_before(&mut remote, &format!("last {qos}"), &theirs);
        assert_eq!(copies, 1, "{version}");
    }
    // What is retained while the bridge is up is retained on both sides.
    here.retain(&topic("kept"), 1, "kept here");
    there.retain(&topic("kept too"), 1, "kept there");
    copies_before(&mut remote, "kept here", "");
    copies_before(&mut local, "kept there", "");
    let mut late = mosquitto.client();
    late.subscribe(&topic("kept"), 1);
    assert!(late.expect(&topic("kept"), "kept here").retain);
    let mut late = Connect::v4(&unique("c")).open(&broker);
    late.subscribe(&topic("kept too"), 1);
    assert!(late.expect(&topic("kept too"), "kept there").retain);
    // Its will and its notices under $SYS are not for this broker's clients.
    drop(mosquitto);
    broker.await_counter("dropped_will_not_allowed", 1);
    broker.stop();
}

/// This broker bridges to Mosquitto, both ways on the same topics.
fn bridges_to_mosquitto(shards: usize, protocol: &str) {
    let (stem, mosquitto) = (unique("b"), Mosquitto::with(""));
    drop(mosquitto.client());
    let text = format!(
        "[[bridge]]\nname = \"b\"\naddresses = [\"mqtt://127.0.0.1:{}\"]\nclient_id = \"{stem}\"\n\
         protocol = \"{protocol}\"\nreconnect_ms_min = 10\nreconnect_ms_max = 50\n\
         topics = [{{ filter = \"{stem}/#\", direction = \"both\" }}]\n",
        mosquitto.port
    );
    let broker = Broker::with_config(shards, &text);
    eventually("the bridge is up", || {
        broker.log().contains("bridge b is up").then_some(())
    });
    let (everything, x) = (format!("{stem}/#"), format!("{stem}/x"));
    let mut clients = [Connect::v4(&unique("c")).open(&broker), mosquitto.client()];
    for client in &mut clients {
        client.subscribe(&everything, 2);
    }
    for qos in 0..3 {
        for from in 0..2 {
            let text = format!("{from} {qos}");
            clients[from].publish(&x, qos, &text);
            let last = format!("last {text}");
            for client in &mut clients {
                client.expect(&x, &text);
            }
            clients[1 - from].publish(&x, qos, &last);
            for client in &mut clients {
                assert_eq!(copies_before(client, &last, &text), 0, "{protocol}");
            }
        }
    }
    // RETAIN goes through both ways.
    for (from, to) in [(0, "kept there"), (1, "kept here")] {
        let kept = format!("{stem}/{to}");
        clients[from].retain(&kept, 1, to);
        for client in &mut clients {
            copies_before(client, to, "");
        }
        let mut late = match from {
            0 => mosquitto.client(),
            _ => Connect::v4(&unique("c")).open(&broker),
        };
        late.subscribe(&kept, 1);
        assert!(late.expect(&kept, to).retain, "{protocol}");
    }
}

fn to_mosquitto_by_3_1_1(shards: usize) {
    bridges_to_mosquitto(shards, "3.1.1");
}
fn to_mosquitto_by_5_0(shards: usize) {
    bridges_to_mosquitto(shards, "5.0");
}

fn by_3_1(shards: usize) {
    bridges(shards, "mqttv31");
}
fn by_3_1_1(shards: usize) {
    bridges(shards, "mqttv311");
}
fn by_5_0(shards: usize) {
    bridges(shards, "mqttv50");
}

crate::on_shards!([1, 4] by_3_1, by_3_1_1, by_5_0, to_mosquitto_by_3_1_1, to_mosquitto_by_5_0);
