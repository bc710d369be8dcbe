//! The admin listener: what it answers, to whom, and what it costs at most.

use crate::comparison::python;
use crate::storage::Place;
use crate::support::{Ack, Broker, Client, Connect, Publish, Setup, Version, eventually, unique};
use crate::surroundings::Frozen;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// On a port of the broker's choice.
pub const ANYWHERE: &str = "[admin]\nlisten = \"http://127.0.0.1:0\"\n";

/// A status, header lines, and what follows them.
pub struct Page {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Where the broker says that it answers.
pub fn address(broker: &Broker) -> SocketAddr {
    eventually("the admin listener is named", || {
        let log = broker.log();
        let (_, rest) = log.split_once("metrics at http")?;
        let rest = rest.trim_start_matches(['s', ':', '/']);
        rest.split('/').next()?.parse().ok()
    })
}

pub fn read(mut stream: impl Read) -> Page {
    let mut answer = Vec::new();
    // A server that closes with bytes unread resets; what came before counts.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = match head.to_lowercase().contains("transfer-encoding: chunked") {
        true => unchunked(body),
        false => body.to_owned(),
    };
    Page {
        status: status.unwrap_or(0),
        head: head.to_lowercase(),
        body,
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

pub fn ask(address: SocketAddr, request: &str) -> Page {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.write_all(request.as_bytes()).expect("send");
    read(stream)
}

pub fn get(address: SocketAddr, path: &str) -> Page {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    ask(address, &request)
}

/// Samples by name and labels.
struct Metrics {
    samples: BTreeMap<String, f64>,
    families: BTreeSet<String>,
}

impl Metrics {
    fn of(broker: &Broker) -> Self {
        let page = get(address(broker), "/metrics");
        assert_eq!(page.status, 200, "{}", page.body);
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(page.head.contains(kind), "{}", page.head);
        assert!(page.body.ends_with("# EOF\n"));
        let types = page
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "));
        let families = types.filter_map(|line| line.split_once(' '));
        let samples = page.body.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| line.rsplit_once(' '));
        Metrics {
            families: families.map(|(name, _)| name.to_owned()).collect(),
            samples: samples
                .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
                .collect(),
        }
    }

    /// The sum of all samples of a name with these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let found = self.samples.iter().filter(|(known, _)| {
            let (family, rest) = known.split_once('{').unwrap_or((known, ""));
            family == name && labels.iter().all(|label| rest.contains(label))
        });
        let found: Vec<_> = found.map(|(_, value)| *value).collect();
        assert!(!found.is_empty(), "no {name} {labels:?}");
        found.iter().sum()
    }
}

#[test]
fn what_the_broker_does_is_told_by_shard_type_and_reason() {
    let broker = Broker::with_config(2, ANYWHERE);
    let mut subscriber = Connect::v5("s").open(&broker);
    subscriber.subscribe("a/#", 1);
    let mut publisher = Connect::v5("p").open(&broker);
    for _ in 0..5 {
        publisher.publish("a/b", 1, "12345");
        subscriber.accept();
    }
    publisher.retain("kept", 0, "x");
    publisher.ping();
    publisher.send(&Publish::new("$SYS/mine", 0, "x").encode(Version::V5));
    publisher.ping();
    let metrics = Metrics::of(&broker);
    let sum = |name: &str, labels: &[&str]| metrics.sum(&format!("ringmq_{name}"), labels);
    assert_eq!(sum("connections", &[]), 2.0);
    assert_eq!(sum("subscriptions", &[]), 1.0);
    assert_eq!(sum("retained_messages", &[]), 1.0);
    let received = |kind: &str| sum("packets_received_total", &[&format!("type=\"{kind}\"")]);
    assert_eq!(received("connect"), 2.0);
    assert_eq!(received("publish"), 7.0);
    assert_eq!(received("puback"), 5.0);
    assert_eq!(received("subscribe"), 1.0);
    assert!(received("pingreq") >= 2.0);
    let sent = |kind: &str| sum("packets_sent_total", &[&format!("type=\"{kind}\"")]);
    assert_eq!(
        (sent("connack"), sent("publish"), sent("puback")),
        (2.0, 5.0, 5.0)
    );
    assert_eq!(sent("suback"), 1.0);
    let bytes = sum("packet_bytes_received_total", &["type=\"publish\""]);
    // Fixed header, topic, identifier, properties, payload.
    assert!(bytes >= 5.0 * (2 + 5 + 2 + 1 + 5) as f64, "{bytes}");
    assert_eq!(
        sum("messages_dropped_total", &["reason=\"dollar_topic\""]),
        1.0
    );
    assert_eq!(
        sum("connections_refused_total", &["reason=\"banned\""]),
        0.0
    );
    assert!(sum("bytes_sent_total", &[]) > 0.0 && sum("ring_enters_total", &[]) > 0.0);
    assert_eq!(
        sum("shard_up", &["shard=\"0\""]) + sum("shard_up", &["shard=\"1\""]),
        2.0
    );
    assert!(sum("turn_seconds_count", &["shard=\"1\""]) > 0.0);
    assert!(sum("memory_resident_bytes", &[]) > 1e6);
    assert!(sum("open_descriptors", &[]) > 5.0);
    assert!(
        metrics
            .samples
            .keys()
            .any(|name| name.contains("thread_cpu_seconds_total{thread=\"ringmq-1"))
    );
    broker.stop();
}

#[test]
fn the_broker_measures_how_long_clients_wait() {
    let place = Place::new();
    let broker = place.setup(4).config(ANYWHERE).start();
    // By the chance of their names on all shards: with 16 the publisher's had none in 1 of 100 runs.
    let subscribers: Vec<_> = (0..64)
        .map(|number| {
            let mut client = Connect::v5(&unique("s")).persistent().open(&broker);
            client.subscribe("timed", number % 3);
            client
        })
        .collect();
    let mut publisher = Connect::v5("p").open(&broker);
    let count = |name: &str, labels: &[&str]| {
        Metrics::of(&broker).sum(&format!("ringmq_{name}_count"), labels)
    };
    eventually("all ways are measured", || {
        // Answered when the disk has it.
        publisher.publish("timed", 1, "x");
        let of_path = |path: &str| count("delivery_seconds", &[&format!("path=\"{path}\"")]);
        (of_path("local") > 0.0
            && of_path("other_shard") > 0.0
            && count("puback_seconds", &[]) > 0.0)
            .then_some(())
    });
    let sum = Metrics::of(&broker).sum("ringmq_puback_seconds_sum", &[]);
    assert!(sum > 0.0 && sum < 3_600.0, "{sum}");
    drop(subscribers);
    broker.stop();
}

#[test]
fn each_metric_is_described_for_operators_and_there_is_no_other() {
    let place = Place::new();
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let bridge = crate::bridges::bridge(nobody, "paused = true\ntopics = []");
    let config = format!("{ANYWHERE}{bridge}");
    let broker = place.setup(1).config(&config).start();
    let mut client = Connect::v5("c").persistent().open(&broker);
    client.subscribe("a", 1);
    let metrics = eventually("the bridge's session is there", || {
        let metrics = Metrics::of(&broker);
        let is_there = metrics.families.contains("ringmq_bridge_queued_bytes");
        is_there.then_some(metrics)
    });
    let stored = metrics.sum("ringmq_storage_commits_total", &[]);
    assert!(stored > 0.0 && metrics.sum("ringmq_storage_sync_seconds_count", &[]) > 0.0);
    assert!(metrics.sum("ringmq_storage_log_bytes", &[]) > 0.0);
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).expect("README.md");
    let (_, section) = readme.split_once("\n### Metrics\n").expect("the section");
    let (section, _) = section.split_once("\n### ").expect("the next section");
    let quoted = section.split('`').skip(1).step_by(2);
    let told: BTreeSet<_> = quoted
        .filter(|text| text.starts_with("ringmq_"))
        .map(|text| text.split('{').next().unwrap_or_default().to_owned())
        .collect();
    // Only with TLS, and where somebody is slow or loud.
    let mut there = metrics.families.clone();
    there.insert("ringmq_certificate_expires_seconds".to_owned());
    let of_top = [
        "slow_client_wait_ms",
        "slow_client_messages",
        "slow_client_bytes",
        "slow_client_dropped_messages",
        "loud_client_messages_per_second",
        "loud_client_bytes_per_second",
        "loud_topic_messages_per_second",
        "loud_topic_bytes_per_second",
    ];
    there.extend(of_top.map(|name| format!("ringmq_{name}")));
    let missing: Vec<_> = there.difference(&told).collect();
    assert!(missing.is_empty(), "not in README.md: {missing:?}");
    let unknown: Vec<_> = told.difference(&there).collect();
    assert!(
        unknown.is_empty(),
        "in README.md, and not there: {unknown:?}"
    );
    broker.stop();
}

#[test]
fn a_shard_that_does_not_answer_is_told_by_what_it_told_before() {
    let broker = Broker::with_config(2, ANYWHERE);
    let address = address(&broker);
    for path in ["/healthz", "/readyz"] {
        let page = get(address, path);
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(page.body.contains("\"status\":\"ok\""), "{}", page.body);
    }
    let listener = format!("mqtt://{}", broker.address());
    assert!(get(address, "/readyz").body.contains(&listener));
    let before = Metrics::of(&broker).sum("ringmq_turn_seconds_count", &["shard=\"1\""]);
    let frozen = Frozen::thread(broker.id(), "ringmq-1");
    let metrics = Metrics::of(&broker);
    assert_eq!(metrics.sum("ringmq_shard_up", &["shard=\"1\""]), 0.0);
    assert_eq!(metrics.sum("ringmq_shard_up", &["shard=\"0\""]), 1.0);
    let then = metrics.sum("ringmq_turn_seconds_count", &["shard=\"1\""]);
    assert!(then >= before, "{then}");
    for path in ["/healthz", "/readyz"] {
        let page = eventually("it is told that the shard is silent", || {
            let page = get(address, path);
            (page.status == 503).then_some(page)
        });
        assert!(
            page.body.contains("shard 1 has not turned for"),
            "{}",
            page.body
        );
    }
    let age = Metrics::of(&broker).sum("ringmq_shard_heartbeat_age_seconds", &["shard=\"1\""]);
    assert!(age >= 3.0, "{age}");
    drop(frozen);
    eventually("the shard turns again", || {
        (get(address, "/readyz").status == 200).then_some(())
    });
    broker.stop();
}

#[test]
fn strangers_names_other_methods_and_bodies_are_refused() {
    let broker = Broker::with_config(1, &format!("{ANYWHERE}hosts = [\"broker.example\"]\n"));
    let address = address(&broker);
    let status = |line: &str, headers: &str| {
        ask(
            address,
            &format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"),
        )
        .status
    };
    assert_eq!(status("GET /healthz", "Host: localhost:1\r\n"), 200);
    assert_eq!(status("GET /healthz", "Host: broker.example\r\n"), 200);
    assert_eq!(status("HEAD /metrics", "Host: [::1]\r\n"), 200);
    assert_eq!(status("GET /nothing", "Host: localhost\r\n"), 404);
    assert_eq!(status("GET /metrics", "Host: attacker.example\r\n"), 403);
    assert_eq!(status("GET /metrics", "Host: 192.0.2.1\r\n"), 403);
    assert_eq!(status("GET /metrics", ""), 403);
    assert_eq!(
        status("POST /metrics", "Host: localhost\r\nContent-Length: 0\r\n"),
        405
    );
    assert_eq!(status("DELETE /", "Host: localhost\r\n"), 405);
    let body = "Host: localhost\r\nContent-Length: 9\r\n";
    assert_eq!(status("GET /metrics", body), 413);
    let counters = broker.counters();
    assert_eq!(counters.get("admin_requests_refused"), 6);
    assert_eq!(counters.get("admin_requests"), 10);
    broker.stop();
}

#[test]
fn a_socket_in_the_file_system_is_for_its_owner_and_group() {
    use std::os::unix::fs::PermissionsExt;
    let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("admin"));
    let config = format!("[admin]\nlisten = \"unix://{path}\"\n");
    let broker = Broker::with_config(1, &config);
    let mut stream = eventually("the socket is there", || UnixStream::connect(&path).ok());
    let mode = std::fs::metadata(&path)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("send");
    assert_eq!(read(stream).status, 200);
    broker.stop();
    assert!(!Path::new(&path).exists());
}

#[test]
fn a_place_that_is_taken_ends_the_start_only_if_it_was_said() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    let config = format!("[admin]\nlisten = \"http://{address}\"\n");
    let outcome = Setup::new()
        .config(&config)
        .listen("mqtt://127.0.0.1:0")
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    let text = format!("admin.listen: cannot listen on {address}: another program listens there");
    assert!(outcome.log.contains(&text), "{}", outcome.log);
    // By default it is only warned of. Somebody may have the port already, another test for instance.
    let _port = TcpListener::bind("127.0.0.1:14883");
    let broker = Setup::new().shards(1).config("[admin]\n").start();
    assert!(
        broker
            .log()
            .contains("no metrics by HTTP: cannot listen on 127.0.0.1:14883")
    );
    Connect::v5("c").open(&broker).disconnect();
    broker.stop();
    let nowhere = "[admin]\nlisten = \"unix:///no/such/folder/admin\"\n";
    let wrong = Setup::new().config(nowhere).run_to_end();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(
        wrong
            .log
            .contains("admin.listen: cannot listen on /no/such/folder/admin")
    );
    let wrong = Setup::new()
        .config("[admin]\nlisten = \"http://0.0.0.0:1\"\n")
        .run_to_end();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(wrong.log.contains("admin.listen") && wrong.log.contains("other machines"));
    let without_token =
        "[admin]\nlisten = \"https://0.0.0.0:1\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
    let wrong = Setup::new().config(without_token).run_to_end();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(wrong.log.contains("admin.token_file"), "{}", wrong.log);
}

/// What `bounds_driven` drives.
pub fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).expect("connect")
}

/// The rest of a connection that is closed.
pub fn status_of(stream: TcpStream) -> u16 {
    read(stream).status
}

#[test]
fn a_client_of_the_broker_is_not_disturbed_by_many_scrapes() {
    let broker = Broker::with_config(2, ANYWHERE);
    let address = address(&broker);
    let mut client = Client::dial(&broker, Version::V5);
    client = Connect::v5("c").attempt_over(client).0;
    let scrapes: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(move || get(address, "/metrics").status))
        .collect();
    client.ping();
    for scrape in scrapes {
        assert_eq!(scrape.join().expect("a scrape"), 200);
    }
    broker.stop();
}

#[test]
fn who_has_asked_all_that_it_wants_gets_its_answers() {
    let broker = Broker::with_config(1, ANYWHERE);
    let mut stream = connect(address(&broker));
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(&request.repeat(2)).expect("send");
    stream.shutdown(Shutdown::Write).expect("half of it");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2);
    broker.stop();
}

#[test]
fn a_connection_that_rests_between_requests_is_not_late() {
    let config = format!("{ANYWHERE}request_timeout_ms = 500\n");
    let broker = Broker::with_config(1, &config);
    let mut stream = connect(address(&broker));
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).expect("send");
    // It is closed when it has rested for so long.
    assert_eq!(status_of(stream), 200);
    assert_eq!(broker.counters().get("admin_timeouts"), 0);
    broker.stop();
}

#[test]
fn a_full_disk_is_a_reason_not_to_be_ready() {
    let place = Place::new();
    let full = "[storage]\nsegment_bytes = 2097152\ndisk_bytes_max = 20971520\n";
    let broker = place.setup(1).config(&format!("{ANYWHERE}{full}")).start();
    let address = address(&broker);
    assert_eq!(get(address, "/readyz").status, 200);
    let mut absent = Connect::v5("absent").persistent().open(&broker);
    absent.subscribe("much", 1);
    absent.disconnect();
    let mut publisher = Connect::v5("p").open(&broker);
    let page = eventually("the disk is full", || {
        for _ in 0..100 {
            let id = publisher.send_publish(&Publish::new("much", 1, vec![7; 10_000]));
            publisher.wait_ack(Ack::Puback, id);
        }
        let page = get(address, "/readyz");
        (page.status == 503).then_some(page)
    });
    for told in ["the disk is full", "storage.disk_bytes_max"] {
        assert!(page.body.contains(told), "{}", page.body);
    }
    assert_eq!(get(address, "/healthz").status, 200, "it lives");
    broker.stop();
}

#[test]
fn prometheus_finds_what_dashboard_and_alerts_ask_for() {
    python("test_metrics.py", "Prometheus");
}
