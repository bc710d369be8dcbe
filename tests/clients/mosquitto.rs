//! `mosquitto_pub` and `mosquitto_sub` of Debian.
//!
//! `mosquitto_sub -d` reports the SUBACK on its output, which is what the tests wait for before they
//! publish; it ends by itself after the number of messages it was told (`-C`).

use super::broker;
use crate::support::{Broker, eventually, free_port, unique};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const PATIENCE_SECONDS: &str = "60";

struct Subscriber {
    child: Child,
    output: BufReader<ChildStdout>,
}

fn publisher(broker: &Broker) -> Command {
    let mut command = Command::new("mosquitto_pub");
    let port = broker.address().port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port]);
    command
}

fn missing(error: std::io::Error) -> ! {
    panic!("mosquitto-clients is not installed ({error}): run scripts/test.sh --setup")
}

/// Starts `mosquitto_sub`, line by line by `stdbuf`, which writes each message in `format`.
fn start(broker: &Broker, format: &str, args: &[&str]) -> Subscriber {
    let mut command = Command::new("stdbuf");
    let port = broker.address().port().to_string();
    command.args(["-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", &port]);
    let mut child = command
        .args(["-d", "-W", PATIENCE_SECONDS, "-F", format])
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| missing(error));
    let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
    Subscriber { child, output }
}

/// Starts `mosquitto_sub` and waits for its SUBACK.
fn subscribe(broker: &Broker, args: &[&str]) -> Subscriber {
    let mut subscriber = start(broker, "MESSAGE %r %q %p", args);
    subscriber.line(|line| line.starts_with("Subscribed"));
    subscriber
}

fn publish(broker: &Broker, args: &[&str]) {
    let status = publisher(broker)
        .args(args)
        .status()
        .unwrap_or_else(|error| missing(error));
    assert!(status.success(), "mosquitto_pub {args:?}: {status}");
}

/// Publishes a message for each number.
fn publish_lines(broker: &Broker, args: &[&str], numbers: std::ops::Range<u32>) {
    let mut child = publisher(broker)
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| missing(error));
    let mut input = child.stdin.take().expect("stdin is piped");
    for n in numbers {
        writeln!(input, "{n}").expect("write to mosquitto_pub");
    }
    drop(input);
    let status = child.wait().expect("wait for mosquitto_pub");
    assert!(status.success(), "mosquitto_pub {args:?}: {status}");
}

impl Subscriber {
    fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("output is text");
            assert!(read > 0, "mosquitto_sub ended too early");
            if wanted(&line) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// The next message as "RETAIN QOS PAYLOAD".
    fn message(&mut self) -> String {
        let line = self.line(|line| line.starts_with("MESSAGE "));
        line["MESSAGE ".len()..].to_owned()
    }

    fn kill(mut self) {
        self.child.kill().expect("kill mosquitto_sub");
        self.child.wait().expect("wait for mosquitto_sub");
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

fn round_trips(shards: usize) {
    let broker = broker(shards);
    for version in VERSIONS {
        let topic = unique("mosquitto");
        let mut subscriber = subscribe(&broker, &["-V", version, "-t", &topic, "-q", "2"]);
        for qos in ["0", "1", "2"] {
            publish(
                &broker,
                &["-V", version, "-t", &topic, "-q", qos, "-m", "hello"],
            );
            assert_eq!(subscriber.message(), format!("0 {qos} hello"));
        }
    }
}

fn retained(shards: usize) {
    let broker = broker(shards);
    let topic = unique("mosquitto");
    publish(&broker, &["-t", &topic, "-q", "1", "-r", "-m", "kept"]);
    let mut subscriber = subscribe(&broker, &["-t", &topic, "-q", "1"]);
    assert_eq!(subscriber.message(), "1 1 kept");
    publish(&broker, &["-t", &topic, "-q", "1", "-r", "-n"]);
    let mut later = subscribe(&broker, &["-t", &topic, "-q", "1"]);
    publish(&broker, &["-t", &topic, "-q", "1", "-m", "live"]);
    assert_eq!(later.message(), "0 1 live");
}

fn will(shards: usize) {
    let broker = broker(shards);
    let topic = unique("mosquitto");
    let mut watcher = subscribe(&broker, &["-t", &topic, "-q", "1"]);
    let will = [
        "--will-topic",
        &topic,
        "--will-payload",
        "gone",
        "--will-qos",
        "1",
    ];
    subscribe(&broker, &[["-t", "nothing"].as_slice(), &will].concat()).kill();
    assert_eq!(watcher.message(), "0 1 gone");
}

fn resume(shards: usize) {
    let broker = broker(shards);
    for version in ["mqttv311", "mqttv5"] {
        let (topic, id) = (unique("mosquitto"), unique("sub"));
        // In 5.0 `-c` also asks for the longest session expiry.
        let args = ["-V", version, "-i", &id, "-c", "-t", &topic, "-q", "1"];
        subscribe(&broker, &args).kill();
        // One publisher: only its messages have an order.
        publish_lines(&broker, &["-t", &topic, "-q", "1", "-l"], 0..10);
        // Queued messages may come before the SUBACK, so nothing waits for that here.
        let mut again = start(&broker, "MESSAGE %r %q %p", &args);
        for n in 0..10 {
            assert_eq!(again.message(), format!("0 1 {n}"));
        }
        publish(&broker, &["-t", &topic, "-q", "1", "-m", "last"]);
        assert_eq!(again.message(), "0 1 last");
    }
}

fn shared(shards: usize) {
    let broker = broker(shards);
    let topic = unique("mosquitto");
    let group = format!("$share/g/{topic}");
    let end = format!("{topic}/end");
    let mut members: Vec<Subscriber> = (0..3)
        .map(|_| {
            subscribe(
                &broker,
                &["-V", "mqttv5", "-t", &group, "-t", &end, "-q", "1"],
            )
        })
        .collect();
    for n in 0..15 {
        publish(&broker, &["-t", &topic, "-q", "1", "-m", &n.to_string()]);
    }
    publish(&broker, &["-t", &end, "-q", "1", "-m", "end"]);
    let mut seen = Vec::new();
    for member in &mut members {
        loop {
            let message = member.message();
            match message.rsplit(' ').next() {
                Some("end") => break,
                Some(number) => seen.push(number.parse::<u32>().expect("a number")),
                None => unreachable!("rsplit yields at least one part"),
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, Vec::from_iter(0..15));
}

fn properties(shards: usize) {
    let broker = broker(shards);
    let topic = unique("mosquitto");
    let mut subscriber = start(
        &broker,
        "MESSAGE %C %R %D %P %p",
        &["-V", "mqttv5", "-t", &topic],
    );
    subscriber.line(|line| line.starts_with("Subscribed"));
    let mut args = vec!["-V", "mqttv5", "-t", &topic, "-m", "hello"];
    args.extend(["-D", "publish", "content-type", "text/plain"]);
    args.extend(["-D", "publish", "response-topic", "answer/here"]);
    args.extend(["-D", "publish", "correlation-data", "corr"]);
    args.extend(["-D", "publish", "user-property", "b", "1"]);
    args.extend(["-D", "publish", "user-property", "a", "2"]);
    publish(&broker, &args);
    assert_eq!(
        subscriber.message(),
        "text/plain answer/here corr b:1 a:2 hello"
    );
}

fn large(shards: usize) {
    let broker = broker(shards);
    let topic = unique("mosquitto");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("large"));
    std::fs::write(&file, vec![b'x'; 10 * 1024 * 1024]).expect("write the payload");
    let mut subscriber = start(&broker, "MESSAGE %l", &["-t", &topic, "-q", "1"]);
    subscriber.line(|line| line.starts_with("Subscribed"));
    publish(
        &broker,
        &[
            "-t",
            &topic,
            "-q",
            "1",
            "-f",
            file.to_str().expect("a plain path"),
        ],
    );
    assert_eq!(subscriber.message(), "10485760");
    std::fs::remove_file(file).expect("remove the payload");
}

fn thousand(shards: usize) {
    let broker = broker(shards);
    for qos in ["0", "1", "2"] {
        let topic = unique("mosquitto");
        let mut subscriber = subscribe(&broker, &["-t", &topic, "-q", qos]);
        let mut feeder = publisher(&broker)
            .args(["-t", &topic, "-q", qos, "-l"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| missing(error));
        let mut input = feeder.stdin.take().expect("stdin is piped");
        for n in 0..1000 {
            writeln!(input, "{n}").expect("feed mosquitto_pub");
        }
        drop(input);
        for n in 0..1000 {
            assert_eq!(subscriber.message(), format!("0 {qos} {n}"));
        }
        assert!(feeder.wait().expect("wait for mosquitto_pub").success());
    }
}

crate::on_shards!(
    [1, 2, 4] round_trips, retained, will, resume, shared, properties, large, thousand
);

/// Topics under `$SYS` that a broker tells, without those of this one alone.
fn sys_topics(port: u16) -> BTreeSet<String> {
    // Until nothing new has come for as long as values take to be told.
    let output = Command::new("mosquitto_sub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-t",
            "$SYS/#",
            "-F",
            "%t",
            "-W",
            "4",
        ])
        .output()
        .unwrap_or_else(|error| missing(error));
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let topics = output.lines().filter(|topic| !topic.contains("/ringmq/"));
    topics.map(str::to_owned).collect()
}

/// A Mosquitto of the machine's, which ends with the test.
struct Mosquitto(Child, u16);

impl Mosquitto {
    fn start() -> Self {
        let port = free_port();
        let config = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("mosquitto"));
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n");
        std::fs::write(&config, text).expect("write");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut mosquitto = Command::new("mosquitto");
        mosquitto.env("PATH", format!("{path}:/usr/sbin"));
        mosquitto.args(["-c", &config]);
        mosquitto.stdout(Stdio::null()).stderr(Stdio::null());
        let mosquitto = mosquitto.spawn().unwrap_or_else(|error| missing(error));
        eventually("mosquitto listens", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Mosquitto(mosquitto, port)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exporters and dashboards that were made for Mosquitto find its topics here.
#[test]
fn what_mosquitto_tells_of_itself_is_told_here_too() {
    let mosquitto = Mosquitto::start();
    let port = mosquitto.1;
    let theirs = sys_topics(port);
    drop(mosquitto);
    assert!(theirs.len() >= 45, "{theirs:?}");
    let broker = Broker::with_config(2, "[mqtt]\nsys_interval_s = 1\n");
    let ours = sys_topics(broker.address().port());
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let known = ["publish/bytes/sent", "shared_subscriptions/count"];
    let known: Vec<_> = known
        .iter()
        .map(|topic| format!("$SYS/broker/{topic}"))
        .collect();
    assert_eq!(missing, known.iter().collect::<Vec<_>>(), "not told here");
    let more: Vec<_> = ours.difference(&theirs).collect();
    assert_eq!(
        more,
        ["$SYS/broker/messages/inflight"],
        "not told by Mosquitto 2.0"
    );
    broker.stop();
}

/// An exporter of PyPI that reads all of a broker's `$SYS`, and what it has to tell.
struct Exporter(Child, u16);

impl Exporter {
    fn start(broker: u16) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let port = free_port();
        let mut exporter = Command::new(root.join("target/clients/venv/bin/python"));
        exporter.args(["-m", "mqtt_exporter.main"]);
        exporter
            .env("MQTT_ADDRESS", "127.0.0.1")
            .env("MQTT_PORT", broker.to_string());
        exporter
            .env("MQTT_TOPIC", "$SYS/#")
            .env("KEEP_FULL_TOPIC", "True");
        exporter
            .env("PROMETHEUS_ADDRESS", "127.0.0.1")
            .env("PROMETHEUS_PORT", port.to_string());
        exporter.stdout(Stdio::null()).stderr(Stdio::null());
        let exporter = exporter.spawn().expect("run scripts/test.sh --setup");
        Exporter(exporter, port)
    }

    /// Its series, without what it counts itself and what is ours alone.
    fn series(&self) -> BTreeSet<String> {
        let mut page = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.1)) {
            let _ = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
            let _ = stream.read_to_string(&mut page);
        }
        let lines = page.lines().filter(|line| line.starts_with("mqtt_"));
        let lines =
            lines.filter(|line| !line.starts_with("mqtt_message_") && !line.contains("_ringmq"));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        series.map(|(series, _)| series.to_owned()).collect()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_exporter_made_for_mosquitto_finds_its_series_here() {
    let mosquitto = Mosquitto::start();
    let exporter = Exporter::start(mosquitto.1);
    let last = "mqtt_15min{topic=\"$sys_broker_load_sockets\"}";
    let theirs = eventually("all of it is told", || {
        let series = exporter.series();
        (series.len() >= 40 && series.contains(last)).then_some(series)
    });
    drop((exporter, mosquitto));
    let broker = Broker::with_config(2, "[mqtt]\nsys_interval_s = 1\n");
    let exporter = Exporter::start(broker.address().port());
    // As above.
    let known = [
        "mqtt_count{topic=\"$sys_broker_shared_subscriptions\"}",
        "mqtt_sent{topic=\"$sys_broker_publish_bytes\"}",
    ];
    eventually("the same is told here", || {
        let ours = exporter.series();
        let mut missing = theirs.difference(&ours);
        missing
            .all(|series| known.contains(&series.as_str()))
            .then_some(())
    });
    broker.stop();
}
