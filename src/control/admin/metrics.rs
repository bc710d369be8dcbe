//! What is told at `/metrics`: families of numbers in OpenMetrics.
//!
//! Every counter of a shard is here by its name; those that are of one kind and tell why are one family by
//! reason. What has no description of its own is described where it is counted.

use super::process::Process;
use crate::control::overview::Overview;
use crate::engine::bridge::CLIENT_ID_PREFIX;
use crate::engine::codec::PacketType;
use crate::engine::telemetry::counters::Counters;
use crate::engine::telemetry::histogram::Histogram;
use crate::shard::report::Report;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// Counters that are one family: what their names begin with, the family, what it counts.
const BY_REASON: [(&str, &str, &str); 4] = [
    (
        "dropped_",
        "messages_dropped",
        "Messages that somebody did not get",
    ),
    (
        "connections_refused_",
        "connections_refused",
        "Connections that were not let in",
    ),
    (
        "accepts_paused_",
        "accepts_paused",
        "Turns in which nobody was accepted",
    ),
    (
        "publishers_paused_",
        "publishers_paused",
        "Times that a client was not read because it publishes",
    ),
];

/// Counters that are reasons of one of these families under another name.
const REASONS: [(&str, &str, &str); 4] = [
    ("connects_refused", "connections_refused", "connect"),
    (
        "connects_unauthenticated",
        "connections_refused",
        "unauthenticated",
    ),
    ("connections_banned", "connections_refused", "banned"),
    (
        "authentications_busy",
        "connections_refused",
        "authentications_busy",
    ),
];

/// What shards tell that is now so much, and may be less later.
const GAUGES: [(&str, &str); 10] = [
    ("connections", "Connections"),
    ("sessions", "Sessions, those of clients that are away too"),
    ("subscriptions", "Subscriptions of all sessions"),
    (
        "filters",
        "Different topic filters that the shard knows, other shards' too",
    ),
    ("retained_messages", "Retained messages of clients"),
    ("retained_bytes", "Bytes that they hold"),
    ("queued_messages", "Messages that wait in sessions"),
    (
        "inflight_messages",
        "Messages sent that are not acknowledged",
    ),
    ("mailbox_letters", "Letters of other shards that wait"),
    (
        "turn_us_max",
        "The longest turn since somebody asked before, in microseconds",
    ),
];

/// Counters of a shard that its core does not count.
const OF_SHELL: [(&str, &str); 16] = [
    (
        "talkers_displaced",
        "Names that lost their place among those of whom it is known how much they publish",
    ),
    (
        "client_errors_displaced",
        "Clients of which it is not known any more what went wrong, since there were others",
    ),
    (
        "bridge_messages_out",
        "Messages that bridges took to other brokers",
    ),
    (
        "bridge_messages_in",
        "Messages that bridges brought from other brokers",
    ),
    (
        "bridge_messages_rejected",
        "Messages that other brokers did not take from bridges",
    ),
    (
        "bridge_protocol_errors",
        "Times that another broker broke the protocol, which ended its bridge's line",
    ),
    (
        "mailboxes_full",
        "Times that another shard's mailbox was found full",
    ),
    ("ring_enters", "Calls of io_uring_enter"),
    ("ring_completions", "Completions of the kernel worked off"),
    (
        "ring_overflows",
        "Enters that found completions waiting for room",
    ),
    ("ring_sleeps", "Times that the shard slept"),
    (
        "ring_gathers",
        "Of these, times that it waited for several events",
    ),
    (
        "ring_receives_starved",
        "Receives that stopped for lack of buffers",
    ),
    ("ring_sends_continued", "Sends that left in parts"),
    (
        "bytes_received",
        "Bytes taken from sockets, TLS and WebSocket included",
    ),
    (
        "bytes_sent",
        "Bytes that sockets took, TLS and WebSocket included",
    ),
];

/// What is not of one shard: its name there, its name here, whether it is a gauge, what it is.
const OF_BROKER: [(&str, &str, bool, &str); 20] = [
    ("bridges", "bridges", true, "Bridges to other brokers"),
    (
        "bridges_up",
        "bridges_up",
        true,
        "Of these, those whose line is up",
    ),
    (
        "bridge_redirects",
        "bridge_redirects",
        false,
        "Times that a bridge went where another broker sent it",
    ),
    (
        "bridge_redirects_refused",
        "bridge_redirects_refused",
        false,
        "Times that it did not",
    ),
    (
        "bridge_qos_lowered",
        "bridge_qos_lowered",
        false,
        "Times that a bridge went down to QoS 1, since the other broker of 3.1.1 takes no more",
    ),
    (
        "bridge_takeovers",
        "bridge_takeovers",
        false,
        "Lines of bridges that ended since another client has their identifier, or seems to",
    ),
    (
        "memory_bytes",
        "memory_bytes",
        true,
        "Memory in use, of the process and of the kernel for it",
    ),
    (
        "memory_heap_bytes",
        "memory_heap_bytes",
        true,
        "Of it, what the heap has given out",
    ),
    (
        "memory_resident_bytes",
        "memory_resident_bytes",
        true,
        "What of the process is resident",
    ),
    (
        "memory_socket_bytes",
        "memory_socket_bytes",
        true,
        "What the kernel holds for connections, at most",
    ),
    (
        "memory_stage",
        "memory_stage",
        true,
        "How short memory is: 0 not, 1 nothing grows, 2 QoS 0 is dropped, 3 publishers wait, 4 none come in",
    ),
    (
        "log_lines_left_out",
        "log_lines_left_out",
        false,
        "Lines of the log that found no room",
    ),
    (
        "log_lines_failed",
        "log_lines_failed",
        false,
        "Lines of the log that could not be written",
    ),
    (
        "notes_on_the_way_left_out",
        "audit_notes_left_out",
        false,
        "Notes for the audit log left out behind the shards",
    ),
    (
        "admin_requests",
        "admin_requests",
        false,
        "Requests to the admin listener",
    ),
    (
        "admin_requests_refused",
        "admin_requests_refused",
        false,
        "Of these, refused",
    ),
    (
        "admin_connections_refused",
        "admin_connections_refused",
        false,
        "Connections to it beyond admin.connections_max, or connections_per_address_max",
    ),
    (
        "admin_timeouts",
        "admin_timeouts",
        false,
        "Requests to it that were late, or whose answer was",
    ),
    ("admin_traces", "admin_traces", true, "Traces that run"),
    (
        "admin_traces_refused",
        "admin_traces_refused",
        false,
        "Traces beyond admin.traces_max",
    ),
];

/// What is told of each bridge's queue.
const BRIDGE_QUEUE: [(&str, &str); 5] = [
    ("bridge_queued_messages", "Messages that wait for a bridge"),
    ("bridge_queued_bytes", "Their bytes"),
    (
        "bridge_oldest_seconds",
        "Seconds for which the oldest of them has waited",
    ),
    (
        "bridge_inflight_messages",
        "Messages that a bridge has sent and that are not acknowledged",
    ),
    (
        "bridge_messages_dropped",
        "Messages that a bridge's queue has dropped since its session began",
    ),
];

/// Types of packets that clients send, and that they get.
const RECEIVED: [PacketType; 11] = [
    PacketType::Connect,
    PacketType::Publish,
    PacketType::Puback,
    PacketType::Pubrec,
    PacketType::Pubrel,
    PacketType::Pubcomp,
    PacketType::Subscribe,
    PacketType::Unsubscribe,
    PacketType::Pingreq,
    PacketType::Disconnect,
    PacketType::Auth,
];
const SENT: [PacketType; 10] = [
    PacketType::Connack,
    PacketType::Puback,
    PacketType::Pubrec,
    PacketType::Pubrel,
    PacketType::Pubcomp,
    PacketType::Suback,
    PacketType::Unsuback,
    PacketType::Pingresp,
    PacketType::Disconnect,
    PacketType::Auth,
];

type Labels = Vec<(&'static str, String)>;

/// A number, or several.
#[derive(Clone, Debug)]
enum Value {
    Counter(u64),
    Seconds(f64),
    Gauge(i64),
    Rate(f64),
    Took(Box<Histogram>),
}

impl Value {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Value::Counter(value) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
            Value::Seconds(value) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
            Value::Gauge(value) => encoder.encode_gauge(value),
            Value::Rate(value) => encoder.encode_gauge(value),
            Value::Took(times) => {
                let seconds = |us: u64| us as f64 / 1e6;
                let buckets = times.buckets();
                let buckets = buckets.map(|(us, count)| (us.map_or(f64::INFINITY, seconds), count));
                let buckets: Vec<_> = buckets.collect();
                let (sum, count) = (seconds(times.sum_us()), times.count());
                encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
            }
        }
    }

    const fn kind(&self) -> MetricType {
        match self {
            Value::Counter(_) | Value::Seconds(_) => MetricType::Counter,
            Value::Gauge(_) | Value::Rate(_) => MetricType::Gauge,
            Value::Took(_) => MetricType::Histogram,
        }
    }
}

#[derive(Clone, Debug)]
struct Family {
    name: String,
    help: String,
    samples: Vec<(Labels, Value)>,
}

/// All families, in order, without the prefix of their names.
#[derive(Debug, Default)]
struct Families(Vec<Family>);

impl Families {
    fn add(&mut self, (name, help): (&str, &str), labels: Labels, value: Value) {
        let sample = (labels, value);
        match self.0.iter_mut().find(|family| family.name == name) {
            Some(family) => family.samples.push(sample),
            None => self.0.push(Family {
                name: name.to_owned(),
                help: help.trim().trim_end_matches('.').to_owned(),
                samples: vec![sample],
            }),
        }
    }

    fn add_report(&mut self, shard: usize, report: &Report) {
        let of_shard = || vec![("shard", shard.to_string())];
        for &(name, value) in &report.counts {
            let gauge = GAUGES.iter().find(|(known, _)| *known == name);
            if let Some(&(name, help)) = gauge {
                self.add((name, help), of_shard(), Value::Gauge(gauge_of(value)));
                continue;
            }
            let (family, help, reason) = family_of(name);
            let mut labels = of_shard();
            labels.extend(reason.map(|reason| ("reason", reason)));
            self.add((family, help), labels, Value::Counter(value));
        }
        let traffic = &report.traffic;
        let labels = |kind: PacketType| {
            let mut labels = of_shard();
            labels.push(("type", kind.name().to_lowercase()));
            labels
        };
        for kind in RECEIVED {
            let help = "Packets of clients by type; a CONNECT counts when it is let in";
            let value = Value::Counter(traffic.received(kind));
            self.add(("packets_received", help), labels(kind), value);
            let value = Value::Counter(traffic.received_bytes(kind));
            self.add(
                (
                    "packet_bytes_received",
                    "Their bytes, without TLS and WebSocket",
                ),
                labels(kind),
                value,
            );
        }
        let sent = SENT.iter().map(|kind| (*kind, traffic.sent(*kind)));
        let published = report
            .counts
            .iter()
            .find(|(name, _)| *name == "messages_sent");
        let published = (
            PacketType::Publish,
            published.map_or(0, |(_, count)| *count),
        );
        for (kind, count) in sent.chain([published]) {
            self.add(
                ("packets_sent", "Packets to clients by type"),
                labels(kind),
                Value::Counter(count),
            );
        }
        self.add_latencies(shard, report);
        let help = "Time that a turn of the shard took";
        self.add(
            ("turn_seconds", help),
            of_shard(),
            Value::Took(Box::new(report.turns.clone())),
        );
        let help =
            "Time from a turn to the next where that followed at once: so long may a client wait";
        self.add(
            ("loop_lag_seconds", help),
            of_shard(),
            Value::Took(Box::new(report.rounds.clone())),
        );
    }

    fn add_latencies(&mut self, shard: usize, report: &Report) {
        for (qos, is_local, times) in report.latencies.deliveries() {
            let way = if is_local { "local" } else { "other_shard" };
            let labels = vec![
                ("shard", shard.to_string()),
                ("qos", qos.to_string()),
                ("path", way.to_owned()),
            ];
            let help = "Time from the bytes of a publish to handing over the send of a delivery; of samples";
            self.add(
                ("delivery_seconds", help),
                labels,
                Value::Took(Box::new(times.clone())),
            );
        }
        let labels = vec![("shard", shard.to_string())];
        let help =
            "Time from the bytes of a publish to handing over the send of its PUBACK; of samples";
        let pubacks = Value::Took(Box::new(report.latencies.pubacks().clone()));
        self.add(("puback_seconds", help), labels, pubacks);
    }

    /// What waits for each bridge.
    fn add_waiting(&mut self, overview: &Overview) {
        for (shard, waiting) in overview.waiting() {
            let id = &waiting.client_id;
            let name = id.strip_prefix(CLIENT_ID_PREFIX).unwrap_or(id);
            let oldest = waiting.oldest_ms as f64 / 1e3;
            let messages = Value::Gauge(gauge_of(waiting.messages));
            let bytes = Value::Gauge(gauge_of(waiting.bytes));
            let in_flight = Value::Gauge(gauge_of(waiting.in_flight));
            for (family, value) in BRIDGE_QUEUE.into_iter().zip([
                messages,
                bytes,
                Value::Rate(oldest),
                in_flight,
                Value::Counter(waiting.dropped),
            ]) {
                let shard = ("shard", shard.to_string());
                self.add(family, vec![shard, ("bridge", name.to_owned())], value);
            }
        }
    }

    fn add_overview(&mut self, overview: &Overview) {
        for (number, shard) in overview.shards.iter().enumerate() {
            let of_shard = || vec![("shard", number.to_string())];
            let help = "Whether the shard answered in time; if not, its numbers are older ones";
            let answered = Value::Gauge(i64::from(!shard.is_silent));
            self.add(("shard_up", help), of_shard(), answered);
            let help = "Seconds for which the shard has not turned";
            let silence = Value::Gauge(i64::from(shard.silence_seconds));
            self.add(("shard_heartbeat_age_seconds", help), of_shard(), silence);
        }
        for (number, shard) in overview.shards.iter().enumerate() {
            if let Some(report) = &shard.report {
                self.add_report(number, report);
            }
        }
        self.add_waiting(overview);
        for (from, name, is_gauge, help) in OF_BROKER {
            let value = overview.count(from);
            let value = match is_gauge {
                true => Value::Gauge(gauge_of(value)),
                false => Value::Counter(value),
            };
            self.add((name, help), Vec::new(), value);
        }
        if let Some(seconds) = overview.certificate_expires_s {
            let help =
                "Seconds until the first of the server's certificates ends, less than 0 after it";
            self.add(
                ("certificate_expires_seconds", help),
                Vec::new(),
                Value::Gauge(seconds),
            );
        }
        let uptime = Value::Gauge(gauge_of(overview.uptime_seconds));
        self.add(
            ("uptime_seconds", "Seconds since the start"),
            Vec::new(),
            uptime,
        );
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.add(
            ("build_info", "Version of the broker"),
            version,
            Value::Gauge(1),
        );
        self.add_store(overview);
    }

    fn add_top(&mut self, overview: &Overview, max: usize) {
        for (shard, slow) in overview.slow(max) {
            let waits = "Milliseconds for which the oldest message for a slow client has waited";
            for (name, help, value) in [
                ("slow_client_wait_ms", waits, slow.waits_ms),
                (
                    "slow_client_messages",
                    "Messages that wait for it, or that it has not acknowledged",
                    slow.messages,
                ),
                ("slow_client_bytes", "Bytes that wait for it", slow.bytes),
                (
                    "slow_client_dropped_messages",
                    "Messages that it has lost since its session began",
                    slow.dropped_messages,
                ),
            ] {
                let labels = vec![
                    ("shard", shard.to_string()),
                    ("client_id", slow.client_id.clone()),
                ];
                self.add((name, help), labels, Value::Gauge(gauge_of(value)));
            }
        }
        let clients = overview.loud(|loudest| &loudest.clients, max);
        let topics = overview.loud(|loudest| &loudest.topics, max);
        for (loud, label, names) in [
            (
                clients,
                "client_id",
                [
                    "loud_client_messages_per_second",
                    "loud_client_bytes_per_second",
                ],
            ),
            (
                topics,
                "prefix",
                [
                    "loud_topic_messages_per_second",
                    "loud_topic_bytes_per_second",
                ],
            ),
        ] {
            for loud in loud {
                let rates = [loud.messages_per_second, loud.bytes_per_second];
                let help = ["Publishes of who publishes most; of samples", "Their bytes"];
                for ((name, help), rate) in names.into_iter().zip(help).zip(rates) {
                    let labels = vec![(label, loud.name.clone())];
                    self.add((name, help), labels, Value::Rate(rate));
                }
            }
        }
    }

    fn add_store(&mut self, overview: &Overview) {
        let Some(store) = &overview.store else {
            return;
        };
        for (shard, bytes) in store.pending_bytes.iter().enumerate() {
            let labels = vec![("shard", shard.to_string())];
            let help = "Bytes that wait to be safe on disk";
            self.add(
                ("storage_pending_bytes", help),
                labels,
                Value::Gauge(gauge_of(*bytes)),
            );
        }
        let gauges = [
            (
                "storage_log_bytes",
                "Bytes of all segments",
                store.log_bytes,
            ),
            ("storage_segments", "Segments of the log", store.segments),
            (
                "storage_full",
                "Whether the disk is full",
                u64::from(store.is_full),
            ),
        ];
        for (name, help, value) in gauges {
            self.add((name, help), Vec::new(), Value::Gauge(gauge_of(value)));
        }
        let help = "Groups of records made safe together";
        self.add(
            ("storage_commits", help),
            Vec::new(),
            Value::Counter(store.commits),
        );
        let syncs = Value::Took(Box::new(store.syncs.clone()));
        self.add(
            ("storage_sync_seconds", "Time that a sync of the disk took"),
            Vec::new(),
            syncs,
        );
    }

    fn add_process(&mut self, process: &Process) {
        for (thread, seconds) in &process.threads_cpu_s {
            let help = "CPU time by thread; ringmq-N is shard N";
            let labels = vec![("thread", thread.clone())];
            self.add(
                ("thread_cpu_seconds", help),
                labels,
                Value::Seconds(*seconds),
            );
        }
        let help = "CPU time of the process";
        self.add(
            ("cpu_seconds", help),
            Vec::new(),
            Value::Seconds(process.cpu_s),
        );
        let open = Value::Gauge(gauge_of(process.descriptors));
        self.add(("open_descriptors", "Open descriptors"), Vec::new(), open);
        let most = Value::Gauge(gauge_of(process.descriptors_max));
        self.add(
            ("open_descriptors_max", "How many may be open"),
            Vec::new(),
            most,
        );
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let Some((_, first)) = family.samples.first() else {
                continue;
            };
            let mut of_family =
                encoder.encode_descriptor(&family.name, &family.help, None, first.kind())?;
            for (labels, value) in &family.samples {
                value.encode(of_family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

fn gauge_of(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The family of a counter, what it counts, and the reason that its name tells.
fn family_of(name: &'static str) -> (&'static str, &'static str, Option<String>) {
    let known = REASONS.iter().find(|(known, ..)| *known == name);
    if let Some(&(_, family, reason)) = known {
        let help = BY_REASON.iter().find(|(_, known, _)| *known == family);
        return (
            family,
            help.map_or("", |(.., help)| help),
            Some(reason.to_owned()),
        );
    }
    for (prefix, family, help) in BY_REASON {
        if let Some(reason) = name.strip_prefix(prefix) {
            return (family, help, Some(reason.to_owned()));
        }
    }
    let mut described = OF_SHELL.iter().chain(Counters::DESCRIBED);
    let help = described.find(|(known, _)| *known == name);
    (name, help.map_or("", |(_, help)| help), None)
}

/// The page.
///
/// # Errors
/// None that comes from outside.
pub(super) fn page(
    overview: &Overview,
    process: &Process,
    top_max: usize,
) -> Result<String, fmt::Error> {
    let mut families = Families::default();
    families.add_overview(overview);
    families.add_top(overview, top_max);
    families.add_process(process);
    let mut registry = Registry::with_prefix("ringmq");
    registry.register_collector(Box::new(families));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    encode_eof(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::overview::OfShard;
    use crate::shard::report::Slow;
    use std::sync::Arc;

    fn told(report: Report) -> String {
        let shard = OfShard {
            report: Some(Arc::new(report)),
            ..OfShard::default()
        };
        let overview = Overview {
            shards: vec![shard.clone(), shard],
            ..Overview::default()
        };
        page(&overview, &Process::default(), 10).unwrap()
    }

    #[test]
    fn names_of_clients_break_no_line() {
        let slow = Slow {
            client_id: "a\"}\n\\b".into(),
            waits_ms: 500,
            ..Slow::default()
        };
        let text = told(Report {
            slow: vec![slow],
            ..Report::default()
        });
        let line = r#"ringmq_slow_client_wait_ms{shard="1",client_id="a\"}\n\\b"} 500"#;
        assert!(text.lines().any(|other| other == line), "{text}");
    }

    #[test]
    fn counters_that_tell_why_are_one_family_and_all_have_a_description() {
        let mut report = Report {
            counts: Counters::default().list(),
            ..Report::default()
        };
        report.counts.push(("sessions", 3));
        report.turns.add(3);
        let text = told(report);
        for line in [
            "# TYPE ringmq_messages_dropped counter",
            "ringmq_messages_dropped_total{shard=\"1\",reason=\"outbox_full\"} 0",
            "ringmq_connections_refused_total{shard=\"0\",reason=\"banned\"} 0",
            "# TYPE ringmq_sessions gauge",
            "ringmq_sessions{shard=\"0\"} 3",
            "ringmq_turn_seconds_bucket{le=\"0.000002\",shard=\"0\"} 0",
            "ringmq_turn_seconds_bucket{le=\"+Inf\",shard=\"0\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}:\n{text}");
        }
        let heads = text.lines().filter_map(|line| line.strip_prefix("# HELP "));
        for head in heads {
            assert!(
                head.split_once(' ').is_some_and(|(_, help)| help.len() > 5),
                "{head}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
