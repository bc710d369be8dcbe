//! What the broker publishes of itself under `$SYS`: the topics of Mosquitto, in its units and forms, so that
//! what reads them there reads them here, and under `$SYS/broker/ringmq` all gauges and counters by their
//! names.

use crate::control::overview::Overview;
use crate::engine::codec::PacketType;
use crate::shard::orders::Announcements;
use std::time::{Duration, Instant};

/// Load averages: over how many minutes, and how topics call that.
const SPANS: [(f64, &str); 3] = [(1.0, "1min"), (5.0, "5min"), (15.0, "15min")];
/// Sums of which averages are told: the part of their topic after `load/`.
const LOADS: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/dropped",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];

/// A count per minute, averaged over the last minutes: what is older counts less and less.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    last: u64,
    averages: [f64; SPANS.len()],
}

impl Load {
    /// The sum is so much, so long after it was looked at before.
    fn update(&mut self, sum: u64, since: Duration) {
        let minutes = since.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        let per_minute = sum.saturating_sub(self.last) as f64 / minutes;
        self.last = sum;
        for (average, (span, _)) in self.averages.iter_mut().zip(SPANS) {
            let weight = (-minutes / span).exp();
            *average = per_minute + weight * (*average - per_minute);
        }
    }
}

/// What is published, and what has to be remembered for it.
#[derive(Debug)]
pub struct SysTree {
    interval: Duration,
    due_at: Instant,
    looked_at: Instant,
    loads: [Load; LOADS.len()],
    clients_max: u64,
    heap_bytes_max: u64,
}

impl SysTree {
    /// To be published each `interval`, and at once.
    #[must_use]
    pub fn new(interval: Duration, now: Instant) -> Self {
        SysTree {
            interval,
            due_at: now,
            looked_at: now,
            loads: [Load::default(); LOADS.len()],
            clients_max: 0,
            heap_bytes_max: 0,
        }
    }

    /// To be published each `interval` from now on.
    pub fn set_interval(&mut self, interval: Duration, now: Instant) {
        self.interval = interval;
        self.due_at = self.due_at.min(now + interval);
    }

    /// Whether it is time to ask for numbers; said once.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.due_at;
        if is_due {
            self.due_at = now + self.interval;
        }
        is_due
    }

    /// How long it is until then.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        self.due_at.saturating_duration_since(now)
    }

    /// All topics with their values.
    pub fn values(&mut self, overview: &Overview, now: Instant) -> Announcements {
        let since = now.saturating_duration_since(self.looked_at);
        self.looked_at = now;
        let mut told = Vec::new();
        let mut tell = |topic: &str, value: String| {
            told.push((format!("$SYS/broker/{topic}").into(), value.into()));
        };
        tell(
            "version",
            format!("ringmq version {}", env!("CARGO_PKG_VERSION")),
        );
        tell("uptime", format!("{} seconds", overview.uptime_seconds));
        for (topic, value) in self.numbers(overview) {
            tell(topic, value.to_string());
        }
        for ((load, name), sum) in self.loads.iter_mut().zip(LOADS).zip(sums(overview)) {
            load.update(sum, since);
            for (average, (_, span)) in load.averages.iter().zip(SPANS) {
                tell(&format!("load/{name}/{span}"), format!("{average:.2}"));
            }
        }
        for (name, value) in ours(overview) {
            tell(&format!("ringmq/{name}"), value.to_string());
        }
        told
    }

    fn numbers(&mut self, overview: &Overview) -> Vec<(&'static str, u64)> {
        let connected = overview.sum("connections");
        let sessions = overview.sum("sessions");
        let heap_bytes = overview.count("memory_heap_bytes");
        self.clients_max = self.clients_max.max(connected);
        self.heap_bytes_max = self.heap_bytes_max.max(heap_bytes);
        let [
            received,
            sent,
            dropped,
            published,
            delivered,
            bytes_received,
            bytes_sent,
            ..,
        ] = sums(overview);
        let stored = overview.sum("queued_messages") + overview.sum("retained_messages");
        let away = sessions.saturating_sub(connected);
        vec![
            ("clients/total", sessions.max(connected)),
            ("clients/maximum", self.clients_max),
            ("clients/inactive", away),
            ("clients/disconnected", away),
            ("clients/active", connected),
            ("clients/connected", connected),
            ("clients/expired", overview.sum("sessions_expired")),
            ("heap/current", heap_bytes),
            ("heap/maximum", self.heap_bytes_max),
            ("messages/stored", stored),
            ("store/messages/count", stored),
            ("store/messages/bytes", overview.sum("retained_bytes")),
            ("messages/inflight", overview.sum("inflight_messages")),
            ("messages/received", received),
            ("messages/sent", sent),
            ("publish/messages/dropped", dropped),
            ("publish/messages/received", published),
            ("publish/messages/sent", delivered),
            (
                "publish/bytes/received",
                overview.sum("payload_bytes_received"),
            ),
            ("bytes/received", bytes_received),
            ("bytes/sent", bytes_sent),
            ("subscriptions/count", overview.sum("subscriptions")),
            ("retained messages/count", overview.sum("retained_messages")),
        ]
    }
}

/// What averages are made of, in the order of [`LOADS`].
fn sums(overview: &Overview) -> [u64; LOADS.len()] {
    let reports = overview
        .shards
        .iter()
        .filter_map(|shard| shard.report.as_deref());
    let (mut received, mut sent) = (0, 0);
    for report in reports {
        let kinds = (1..=15).filter_map(|kind| PacketType::from_first_byte(kind << 4));
        for kind in kinds {
            received += report.traffic.received(kind);
            sent += report.traffic.sent(kind);
        }
    }
    let delivered = overview.sum("messages_sent");
    [
        received,
        sent + delivered,
        overview.sum_of_all("dropped_"),
        overview.sum("messages_received"),
        delivered,
        overview.sum("bytes_received"),
        overview.sum("bytes_sent"),
        overview.sum("connections_accepted"),
        connects(overview),
    ]
}

/// CONNECTs that let somebody in.
fn connects(overview: &Overview) -> u64 {
    let reports = overview
        .shards
        .iter()
        .filter_map(|shard| shard.report.as_deref());
    reports
        .map(|report| report.traffic.received(PacketType::Connect))
        .sum()
}

/// All gauges and counters by their names, in a fixed order.
fn ours(overview: &Overview) -> Vec<(&'static str, u64)> {
    let silent = overview
        .shards
        .iter()
        .filter(|shard| shard.is_silent)
        .count();
    let mut ours = vec![
        ("shards", overview.shards.len() as u64),
        ("shards_silent", silent as u64),
    ];
    let mut reports = overview
        .shards
        .iter()
        .filter_map(|shard| shard.report.as_deref());
    let names = reports
        .next()
        .map(|report| report.counts.iter().map(|(name, _)| *name));
    // A maximum of all is no sum.
    let names = names
        .into_iter()
        .flatten()
        .filter(|name| !name.ends_with("_max"));
    ours.extend(names.map(|name| (name, overview.sum(name))));
    ours.extend(overview.counts.iter().copied());
    ours
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::overview::OfShard;
    use crate::shard::report::Report;
    use std::sync::Arc;

    fn overview(received: u64) -> Overview {
        let report = Report {
            counts: vec![
                ("messages_received", received),
                ("dropped_a", 1),
                ("dropped_b", 2),
            ],
            ..Report::default()
        };
        let shard = OfShard {
            report: Some(Arc::new(report)),
            ..OfShard::default()
        };
        Overview {
            shards: vec![shard.clone(), shard],
            uptime_seconds: 7,
            ..Overview::default()
        }
    }

    fn value(told: &Announcements, topic: &str) -> String {
        let found = told
            .iter()
            .find(|(known, _)| **known == *format!("$SYS/broker/{topic}"));
        found.unwrap_or_else(|| panic!("{topic}")).1.to_string()
    }

    #[test]
    fn loads_are_counts_per_minute_that_fade() {
        let begin = Instant::now();
        let mut tree = SysTree::new(Duration::from_secs(10), begin);
        assert!(tree.take_due(begin) && !tree.take_due(begin));
        assert_eq!(tree.wait(begin), Duration::from_secs(10));
        let told = tree.values(&overview(500), begin + Duration::from_secs(60));
        // 1,000 a minute, of which a minute counts 1 - 1/e of the average over one.
        assert_eq!(value(&told, "load/publish/received/1min"), "632.12");
        assert_eq!(value(&told, "load/publish/received/5min"), "181.27");
        assert_eq!(value(&told, "publish/messages/received"), "1000");
        assert_eq!(value(&told, "publish/messages/dropped"), "6");
        assert_eq!(value(&told, "uptime"), "7 seconds");
        assert_eq!(value(&told, "ringmq/dropped_b"), "4");
        let told = tree.values(&overview(500), begin + Duration::from_secs(120));
        assert_eq!(value(&told, "load/publish/received/1min"), "232.54");
    }
}
