//! A result for programs: one JSON document, read back by `loadgen report`.

use super::{QUANTILES, warnings};
use crate::find_max::Found;
use crate::measure::Measure;
use crate::run::{Outcome, Second, Span};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Points of a percentile curve per halving of the distance to 100 %.
const CURVE_STEPS: u32 = 4;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    pub loadgen: String,
    pub command: Vec<String>,
    pub ended_unix_s: u64,
    pub host: Host,
    pub scenario: String,
    pub broker: String,
    pub protocol: u8,
    pub clients: u64,
    pub rate: Option<f64>,
    pub elapsed_s: f64,
    pub is_clean: bool,
    pub warnings: Vec<String>,
    pub published: Flow,
    pub delivered: Flow,
    pub acknowledged: u64,
    pub refused: u64,
    pub unsent: u64,
    pub connect_failures: u64,
    pub disconnected: u64,
    pub sent_wire_bytes: u64,
    pub received_wire_bytes: u64,
    /// Deliveries owed and come.
    pub owed: (u64, u64),
    /// Retained messages wanted and come.
    pub replay: (u64, u64),
    pub breaches: Vec<BreachRecord>,
    pub latency: BTreeMap<String, Latency>,
    pub spans: Vec<SpanRecord>,
    pub per_delivery: Option<Cost>,
    pub bytes_per_connection: Option<u64>,
    pub seconds: Vec<SecondRecord>,
    /// What was searched for, if it was.
    pub search: Option<serde_json::Value>,
}

/// The machine that the generator ran on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    pub kernel: String,
    pub cpus: usize,
}

/// Messages of one direction.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Flow {
    pub messages: u64,
    pub bytes: u64,
    pub messages_per_second: f64,
    pub bytes_per_second: f64,
}

/// What one QoS saw.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BreachRecord {
    pub qos: usize,
    pub delivered: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupt: u64,
}

/// One kind of latency, in ns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    #[serde(rename = "p99.9")]
    pub p99_9: u64,
    #[serde(rename = "p99.99")]
    pub p99_99: u64,
    pub max: u64,
    /// Quantile and value.
    pub curve: Vec<(f64, u64)>,
}

/// CPU time and memory over a part of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpanRecord {
    pub name: String,
    pub elapsed_s: f64,
    pub broker_cpu_s: Option<f64>,
    pub broker_resident_bytes: Option<(u64, u64)>,
    pub own_cpu_s: f64,
    pub machine_cpu_s: Option<f64>,
}

/// CPU time per delivered message, in us.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    pub broker_us: Option<f64>,
    pub own_us: f64,
    /// All that the machine did, less this process: what the kernel did for the broker is in it.
    pub machine_less_own_us: Option<f64>,
}

/// One second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SecondRecord {
    pub second: u64,
    pub published: u64,
    pub delivered: u64,
    pub delivered_bytes: u64,
    pub connected: u64,
    pub errors: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    #[serde(rename = "p99.9")]
    pub p99_9: u64,
    #[serde(rename = "p99.99")]
    pub p99_99: u64,
    pub max: u64,
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Self {
        let at = |index: usize| histogram.value_at_quantile(QUANTILES[index].1);
        let curve = histogram.iter_quantiles(CURVE_STEPS);
        Latency {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(0),
            p90: at(1),
            p99: at(2),
            p99_9: at(3),
            p99_99: at(4),
            max: histogram.max(),
            curve: curve
                .map(|step| (step.quantile_iterated_to(), step.value_iterated_to()))
                .collect(),
        }
    }
}

impl SecondRecord {
    /// What one second held; `first` is the run's first.
    pub fn new(second: &Second, first: u64) -> Self {
        let counts = second.meters.counts;
        let histogram = second.meters.latency(Measure::Deliver);
        let at = |quantile: f64| histogram.map_or(0, |h| h.value_at_quantile(quantile));
        SecondRecord {
            second: second.second - first,
            published: counts.published,
            delivered: counts.delivered,
            delivered_bytes: counts.delivered_bytes,
            connected: counts.connected,
            errors: counts.refused + counts.connect_failures + counts.disconnected,
            p50: at(QUANTILES[0].1),
            p90: at(QUANTILES[1].1),
            p99: at(QUANTILES[2].1),
            p99_9: at(QUANTILES[3].1),
            p99_99: at(QUANTILES[4].1),
            max: histogram.map_or(0, Histogram::max),
        }
    }
}

impl SpanRecord {
    fn new(span: &Span) -> Self {
        SpanRecord {
            name: span.name.to_owned(),
            elapsed_s: span.elapsed.as_secs_f64(),
            broker_cpu_s: span.broker_cpu.map(|cpu| cpu.as_secs_f64()),
            broker_resident_bytes: span.broker_resident,
            own_cpu_s: span.own_cpu.as_secs_f64(),
            machine_cpu_s: span.machine_cpu.map(|cpu| cpu.as_secs_f64()),
        }
    }
}

impl RunRecord {
    /// The record of an outcome.
    pub fn new(outcome: &Outcome, seconds: Vec<SecondRecord>) -> Self {
        let counts = outcome.meters.counts;
        let settings = &outcome.plan.settings;
        let flow = |messages, bytes| Flow {
            messages,
            bytes,
            messages_per_second: outcome.per_second(messages),
            bytes_per_second: outcome.per_second(bytes),
        };
        let latency = Measure::ALL.iter().filter_map(|(measure, name)| {
            let histogram = outcome.meters.latency(*measure)?;
            Some(((*name).to_owned(), Latency::new(histogram)))
        });
        let breaches = outcome
            .breaches
            .iter()
            .enumerate()
            .map(|(qos, b)| BreachRecord {
                qos,
                delivered: b.delivered,
                lost: b.lost,
                duplicated: b.duplicated,
                reordered: b.reordered,
                corrupt: b.corrupt,
            });
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        RunRecord {
            loadgen: env!("CARGO_PKG_VERSION").to_owned(),
            command: std::env::args().collect(),
            ended_unix_s: since_epoch.map_or(0, |d| d.as_secs()),
            host: host(),
            scenario: settings.scenario.clone(),
            broker: settings.target.text.clone(),
            protocol: settings.protocol,
            clients: outcome.clients_in,
            rate: outcome.plan.rate(),
            elapsed_s: outcome.main_span().map_or(0.0, |s| s.elapsed.as_secs_f64()),
            is_clean: outcome.is_clean(),
            warnings: warnings(outcome),
            published: flow(counts.published, counts.published_bytes),
            delivered: flow(counts.delivered, counts.delivered_bytes),
            acknowledged: counts.acknowledged,
            refused: counts.refused,
            unsent: outcome.unsent,
            connect_failures: counts.connect_failures,
            disconnected: counts.disconnected,
            sent_wire_bytes: counts.sent_wire_bytes,
            received_wire_bytes: counts.received_wire_bytes,
            owed: outcome.owed,
            replay: outcome.replay,
            breaches: breaches.collect(),
            latency: latency.collect(),
            spans: outcome.spans.iter().map(SpanRecord::new).collect(),
            per_delivery: cost(outcome),
            bytes_per_connection: bytes_per_connection(outcome),
            seconds,
            search: None,
        }
    }

    /// The record as a document.
    pub fn document(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn cost(outcome: &Outcome) -> Option<Cost> {
    let span = outcome.span("replay").or_else(|| outcome.span("load"))?;
    let delivered = outcome.meters.counts.delivered;
    if delivered == 0 {
        return None;
    }
    let each = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / delivered as f64;
    let rest = span
        .machine_cpu
        .map(|machine| machine.saturating_sub(span.own_cpu));
    Some(Cost {
        broker_us: span.broker_cpu.map(each),
        own_us: each(span.own_cpu),
        machine_less_own_us: rest.map(each),
    })
}

fn bytes_per_connection(outcome: &Outcome) -> Option<u64> {
    let (before, after) = outcome.span("connect")?.broker_resident?;
    after.saturating_sub(before).checked_div(outcome.clients_in)
}

fn host() -> Host {
    let name = rustix::system::uname();
    Host {
        name: name.nodename().to_string_lossy().into_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The trials of a search.
pub fn search_record(found: &Found) -> serde_json::Value {
    let trials = found.trials.iter().map(|trial| {
        serde_json::json!({
            "rate": trial.rate,
            "latency_ns": trial.latency_ns,
            "failure": trial.failure,
        })
    });
    serde_json::json!({
        "quantile": found.slo.quantile,
        "limit_ns": found.slo.limit.as_nanos() as u64,
        "rate": found.best.as_ref().map(|(rate, _)| *rate),
        "is_generator_bound": found.is_generator_bound,
        "trials": trials.collect::<Vec<_>>(),
    })
}
