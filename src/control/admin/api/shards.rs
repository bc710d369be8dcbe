//! Each shard with its numbers, and how long things took there.

use super::Answers;
use super::problem::Problem;
use crate::control::admin::process;
use crate::control::overview::OfShard;
use crate::engine::telemetry::histogram::Histogram;
use crate::shard::report::Report;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How a shard is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShardRow {
    shard: u16,
    /// Whether it has answered; if not, its numbers are older ones.
    answers: bool,
    /// Seconds for which it has not turned.
    silence_seconds: u32,
    /// CPU time that its thread has taken; null if the system does not tell.
    cpu_seconds: Option<f64>,
    /// Gauges and counters, by the names that /metrics has behind `ringmq_`.
    counts: BTreeMap<&'static str, u64>,
    /// How long things took since it began.
    latencies: Vec<Times>,
}

/// What is timed.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Timed {
    /// From the bytes of a publish to handing over the send of a delivery; of samples.
    Delivery,
    /// From the bytes of a publish to handing over the send of its PUBACK; of samples.
    Puback,
    /// A turn of the shard.
    Turn,
    /// From a turn to the next where that followed at once.
    LoopLag,
}

/// How long something took, and how often.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Times {
    what: Timed,
    /// Of deliveries.
    qos: Option<u8>,
    /// Of deliveries: whether the publish came to this shard.
    is_local: Option<bool>,
    sum_us: u64,
    /// Those that are not empty, shortest first; their bounds double.
    buckets: Vec<Bucket>,
}

/// How often it took longer than the bucket before says, and so long at most.
#[derive(Debug, Serialize, ToSchema)]
struct Bucket {
    /// Microseconds; null for the last one, which has no bound.
    us_max: Option<u64>,
    count: u64,
}

/// All shards.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShardList {
    shards: Vec<ShardRow>,
}

fn times(what: Timed, of: Option<(u8, bool)>, histogram: &Histogram) -> Times {
    let buckets = histogram.buckets().filter(|(_, count)| *count > 0);
    let buckets = buckets.map(|(us_max, count)| Bucket { us_max, count });
    Times {
        what,
        qos: of.map(|(qos, _)| qos),
        is_local: of.map(|(_, is_local)| is_local),
        sum_us: histogram.sum_us(),
        buckets: buckets.collect(),
    }
}

fn latencies(report: &Report) -> Vec<Times> {
    let deliveries = report.latencies.deliveries();
    let deliveries =
        deliveries.map(|(qos, is_local, took)| times(Timed::Delivery, Some((qos, is_local)), took));
    let others = [
        (Timed::Puback, report.latencies.pubacks()),
        (Timed::Turn, &report.turns),
        (Timed::LoopLag, &report.rounds),
    ];
    let others = others.map(|(what, took)| times(what, None, took));
    deliveries.chain(others).collect()
}

fn row(shard: u16, of_shard: &OfShard, threads_cpu_s: &[(String, f64)]) -> ShardRow {
    let report = of_shard.report.as_deref();
    ShardRow {
        shard,
        answers: !of_shard.is_silent,
        silence_seconds: of_shard.silence_seconds,
        cpu_seconds: process::of_shard(threads_cpu_s, shard),
        counts: report.map_or_else(BTreeMap::new, |report| {
            report.counts.iter().copied().collect()
        }),
        latencies: report.map_or_else(Vec::new, latencies),
    }
}

/// Each shard with its numbers.
#[utoipa::path(get, path = "/api/v1/shards", tag = "broker", responses(
    (status = 200, body = ShardList), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn shards(State(answers): State<Answers>) -> Result<Json<ShardList>, Problem> {
    let overview = answers.overview().await?;
    let threads_cpu_s = process::threads_cpu_s();
    let shards = (0..).zip(&overview.shards);
    let shards = shards.map(|(shard, of_shard)| row(shard, of_shard, &threads_cpu_s));
    Ok(Json(ShardList {
        shards: shards.collect(),
    }))
}
