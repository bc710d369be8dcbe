//! What two readings of a broker make: rates and percentiles of the time between them.
//!
//! Invariant: a broker, or a shard, that was started anew in between has no rates of what it counted before.

use super::reading::{Reading, Shard, Times};
use serde::Serialize;
use std::collections::BTreeMap;

/// Of the whole broker; `None` where there was no reading before.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "they say what they are")]
pub struct Figures {
    /// Between the readings.
    pub seconds: f64,
    pub received_per_second: Option<f64>,
    pub sent_per_second: Option<f64>,
    pub bytes_received_per_second: Option<f64>,
    pub bytes_sent_per_second: Option<f64>,
    pub dropped_per_second: Option<f64>,
    pub refused_per_second: Option<f64>,
    /// Why messages were lost, most first.
    pub dropped_by_reason: Vec<(String, f64)>,
    pub latencies: Vec<Latency>,
    pub shards: Vec<OfShard>,
}

/// How long something took, at most, for so many of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "they say what they are")]
pub struct Latency {
    pub what: String,
    pub p50: Took,
    pub p99: Took,
    pub p999: Took,
    pub samples: u64,
}

/// Microseconds at most; `None` beyond the last bound, which is 8.4 s.
pub type Took = Option<u64>;

/// Of one shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "they say what they are")]
pub struct OfShard {
    pub shard: u16,
    pub answers: bool,
    /// 1 is a whole CPU.
    pub cpus: Option<f64>,
    pub connections: u64,
    pub received_per_second: Option<f64>,
    pub sent_per_second: Option<f64>,
    /// Of its turns, in microseconds.
    pub turn_p99_us: Option<u64>,
    pub turn_us_max: u64,
}

/// Reasons that are named.
const REASONS_MAX: usize = 3;

impl Figures {
    /// Of the time between two readings, or of one alone.
    #[must_use]
    pub fn between(before: Option<&Reading>, now: &Reading) -> Self {
        let before = before.filter(|before| {
            before.status.uptime_seconds <= now.status.uptime_seconds
                && before.shards.len() == now.shards.len()
        });
        let passed = before.map(|before| now.at.duration_since(before.at).as_secs_f64());
        let passed = passed.filter(|seconds| *seconds > 0.0);
        let rate = |is_counted: fn(&str) -> bool| {
            let (before, seconds) = (before?, passed?);
            let [before, now] = [before, now].map(|reading| sum(&reading.shards, is_counted));
            Some(now.saturating_sub(before) as f64 / seconds)
        };
        Figures {
            seconds: passed.unwrap_or(0.0),
            received_per_second: rate(|name| name == "messages_received"),
            sent_per_second: rate(|name| name == "messages_sent"),
            bytes_received_per_second: rate(|name| name == "bytes_received"),
            bytes_sent_per_second: rate(|name| name == "bytes_sent"),
            dropped_per_second: rate(|name| name.starts_with("dropped_")),
            refused_per_second: rate(is_refusal),
            dropped_by_reason: reasons(before, now, passed),
            latencies: latencies(before, now),
            shards: shards(before, now, passed),
        }
    }
}

fn is_refusal(name: &str) -> bool {
    name.starts_with("connections_refused_")
        || matches!(
            name,
            "connects_refused" | "connects_unauthenticated" | "connections_banned"
        )
}

fn sum(shards: &[Shard], is_counted: fn(&str) -> bool) -> u64 {
    let counts = shards.iter().flat_map(|shard| &shard.counts);
    let counted = counts.filter(|(name, _)| is_counted(name));
    counted.map(|(_, count)| count).sum()
}

fn reasons(before: Option<&Reading>, now: &Reading, passed: Option<f64>) -> Vec<(String, f64)> {
    let (Some(before), Some(seconds)) = (before, passed) else {
        return Vec::new();
    };
    let mut more: BTreeMap<&str, i128> = BTreeMap::new();
    for (reading, sign) in [(now, 1), (before, -1)] {
        for (name, count) in reading.shards.iter().flat_map(|shard| &shard.counts) {
            if let Some(reason) = name.strip_prefix("dropped_") {
                *more.entry(reason).or_default() += sign * i128::from(*count);
            }
        }
    }
    let more = more.into_iter().filter(|(_, count)| *count > 0);
    let mut more: Vec<_> = more
        .map(|(reason, count)| (reason.replace('_', " "), count as f64 / seconds))
        .collect();
    more.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    more.truncate(REASONS_MAX);
    more
}

/// How often something took so long at most: by bound, the last without one behind all others.
type Buckets = BTreeMap<u64, u64>;

fn add(all: &mut Buckets, times: &Times) {
    for bucket in &times.buckets {
        *all.entry(bucket.us_max.unwrap_or(u64::MAX)).or_default() += bucket.count;
    }
}

fn since(now: &Buckets, before: &Buckets) -> Buckets {
    let more = now.iter().map(|(bound, count)| {
        let before = before.get(bound).copied().unwrap_or(0);
        (*bound, count.saturating_sub(before))
    });
    more.filter(|(_, count)| *count > 0).collect()
}

/// Up to which bound so many of a thousand lie; `None` if there are none.
fn percentile(of: &Buckets, per_mille: u64) -> Option<u64> {
    let all: u64 = of.values().sum();
    let mut seen = 0;
    let found = of.iter().find(|(_, count)| {
        seen += **count;
        u128::from(seen) * 1_000 >= u128::from(all) * u128::from(per_mille)
    });
    found.map(|(bound, _)| *bound)
}

/// What is timed, in the order in which it is shown.
type Kind = (u8, Option<u8>, Option<bool>);

fn kind(times: &Times) -> Option<Kind> {
    let order = ["delivery", "puback", "turn", "loop_lag"];
    let place = order.iter().position(|known| *known == times.what)?;
    let is_other_shard = times.is_local.map(|is_local| !is_local);
    Some((place as u8, times.qos, is_other_shard))
}

fn name((place, qos, is_other_shard): Kind) -> String {
    let qos = qos.unwrap_or(0);
    match (place, is_other_shard) {
        (0, Some(true)) => format!("QoS {qos}, other shard"),
        (0, _) => format!("QoS {qos}, same shard"),
        (1, _) => "to PUBACK".to_owned(),
        (2, _) => "turn of a shard".to_owned(),
        _ => "turn to turn".to_owned(),
    }
}

fn by_kind(reading: &Reading) -> BTreeMap<Kind, Buckets> {
    let mut all: BTreeMap<Kind, Buckets> = BTreeMap::new();
    for times in reading.shards.iter().flat_map(|shard| &shard.latencies) {
        if let Some(kind) = kind(times) {
            add(all.entry(kind).or_default(), times);
        }
    }
    all
}

fn latencies(before: Option<&Reading>, now: &Reading) -> Vec<Latency> {
    let before = before.map(by_kind).unwrap_or_default();
    let none = Buckets::new();
    let kinds = by_kind(now).into_iter().filter_map(|(kind, now)| {
        let more = since(&now, before.get(&kind).unwrap_or(&none));
        let at = |per_mille| percentile(&more, per_mille).filter(|bound| *bound != u64::MAX);
        let samples = more.values().sum();
        (samples > 0).then(|| Latency {
            what: name(kind),
            p50: at(500),
            p99: at(990),
            p999: at(999),
            samples,
        })
    });
    kinds.collect()
}

fn shards(before: Option<&Reading>, now: &Reading, passed: Option<f64>) -> Vec<OfShard> {
    let shards = now.shards.iter().enumerate().map(|(place, shard)| {
        let before = before.and_then(|before| before.shards.get(place));
        let count = |shard: &Shard, name: &str| shard.counts.get(name).copied().unwrap_or(0);
        let rate = |name: &str| {
            let before = before?;
            let more = count(shard, name).saturating_sub(count(before, name));
            Some(more as f64 / passed?)
        };
        let cpus = || Some((shard.cpu_seconds? - before?.cpu_seconds?).max(0.0) / passed?);
        OfShard {
            shard: shard.shard,
            answers: shard.answers,
            cpus: cpus(),
            connections: count(shard, "connections"),
            received_per_second: rate("messages_received"),
            sent_per_second: rate("messages_sent"),
            turn_p99_us: turns(before, shard),
            turn_us_max: count(shard, "turn_us_max"),
        }
    });
    shards.collect()
}

fn turns(before: Option<&Shard>, now: &Shard) -> Option<u64> {
    let of = |shard: &Shard| {
        let mut all = Buckets::new();
        let turns = shard.latencies.iter().filter(|times| times.what == "turn");
        turns.for_each(|times| add(&mut all, times));
        all
    };
    let before = before.map(of).unwrap_or_default();
    percentile(&since(&of(now), &before), 990)
}

#[cfg(test)]
mod tests {
    use super::super::reading::{Bucket, Status, Top};
    use super::*;
    use std::time::{Duration, Instant};

    /// A broker of one shard, so many seconds after its start.
    fn reading(begun: Instant, seconds: u64, counts: &[(&str, u64)], fast: u64) -> Reading {
        let bucket = |us_max, count| Bucket { us_max, count };
        Reading {
            at: begun + Duration::from_secs(seconds),
            status: Status {
                uptime_seconds: seconds,
                ..Status::default()
            },
            shards: vec![Shard {
                shard: 0,
                answers: true,
                cpu_seconds: Some(seconds as f64 / 4.0),
                counts: counts
                    .iter()
                    .map(|(name, count)| ((*name).to_owned(), *count))
                    .collect(),
                latencies: vec![Times {
                    what: "delivery".to_owned(),
                    qos: Some(1),
                    is_local: Some(true),
                    buckets: vec![bucket(Some(64), fast), bucket(None, 2)],
                }],
            }],
            top: Top::default(),
        }
    }

    #[test]
    fn rates_and_percentiles_are_of_the_time_between() {
        let begun = Instant::now();
        let before = [("messages_sent", 100), ("dropped_queue_full", 1)];
        let before = reading(begun, 10, &before, 5);
        let now = [
            ("messages_sent", 300),
            ("dropped_queue_full", 5),
            ("dropped_memory", 2),
            ("connects_refused", 2),
        ];
        let now = reading(begun, 12, &now, 7);
        let figures = Figures::between(Some(&before), &now);
        assert_eq!(figures.sent_per_second, Some(100.0));
        assert_eq!(figures.dropped_per_second, Some(3.0));
        assert_eq!(figures.refused_per_second, Some(1.0));
        let lost = [("queue full".to_owned(), 2.0), ("memory".to_owned(), 1.0)];
        assert_eq!(figures.dropped_by_reason, lost);
        let wanted = Latency {
            what: "QoS 1, same shard".to_owned(),
            p50: Some(64),
            p99: Some(64),
            p999: Some(64),
            samples: 2,
        };
        assert_eq!(figures.latencies, [wanted]);
        assert_eq!(figures.shards[0].cpus, Some(0.25));
    }

    #[test]
    fn one_reading_or_a_broker_that_has_begun_anew_has_no_rates() {
        let begun = Instant::now();
        let old = reading(begun, 10, &[("messages_sent", 100)], 5);
        let mut now = reading(begun, 2, &[("messages_sent", 7)], 100);
        now.at = old.at + Duration::from_secs(1);
        for before in [None, Some(&old)] {
            let figures = Figures::between(before, &now);
            assert_eq!(figures.sent_per_second, None);
            assert_eq!(figures.shards[0].sent_per_second, None);
            // All since the start: two of 102 took longer than any bound.
            let latency = &figures.latencies[0];
            assert_eq!((latency.p50, latency.p99), (Some(64), None));
        }
    }
}
