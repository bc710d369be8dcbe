//! A result for programs: one JSON document, read back by `loadgen report`.

use super::{QUANTILES, warnings};
use crate::args::{Output, Slo};
use crate::find_max::Found;
use crate::limits::Limits;
use crate::measure::Measure;
use crate::outcome::{End, Generator, Outcome, Second, Span};
use crate::transport::without_secrets;
use crate::verdict::Verdict;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// Points of a percentile curve per halving of the distance to 100 %.
const CURVE_STEPS: u32 = 4;

/// Version of this document's form. 1 had neither units in its names nor a verdict.
pub const SCHEMA: u32 = 2;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    #[serde(default)]
    pub schema: u32,
    /// What the run is worth; in the first form only `is_clean` said it.
    pub verdict: Option<Verdict>,
    pub is_clean: bool,
    pub warnings: Vec<String>,
    /// What `--slo` asked for, and what was found.
    #[serde(default)]
    pub objective: Option<Objective>,
    /// How it ended; nothing for a run that came to its end.
    #[serde(default)]
    pub end: End,
    /// What the generator had to wait for.
    #[serde(default)]
    pub limits: Limits,
    /// Who made the load, if others did: each with its own limits.
    #[serde(default)]
    pub workers: Vec<Generator>,
    pub loadgen: String,
    #[serde(default)]
    pub loadgen_commit: String,
    /// Without passwords: they have no place on a command line.
    pub command: Vec<String>,
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub began_unix_s: u64,
    pub ended_unix_s: u64,
    pub host: Host,
    pub scenario: String,
    pub broker: String,
    /// As it was told.
    #[serde(default)]
    pub broker_version: Option<String>,
    /// Executables of the processes that were watched.
    #[serde(default)]
    pub broker_executables: Vec<String>,
    pub protocol: u8,
    pub clients: u64,
    #[serde(default)]
    pub threads: u32,
    #[serde(alias = "rate")]
    pub rate_per_second: Option<f64>,
    #[serde(default)]
    pub warmup_s: f64,
    pub elapsed_s: f64,
    pub published: Flow,
    pub delivered: Flow,
    pub acknowledged: u64,
    pub refused: u64,
    pub unsent: u64,
    pub connect_failures: u64,
    pub disconnected: u64,
    pub sent_wire_bytes: u64,
    pub received_wire_bytes: u64,
    /// Deliveries owed and come, after the warm-up.
    pub owed: (u64, u64),
    /// The same, of the warm-up.
    #[serde(default)]
    pub warmup_owed: (u64, u64),
    /// Messages wanted and come, of those who came late.
    pub replay: (u64, u64),
    /// By QoS, the warm-up included.
    pub breaches: Vec<BreachRecord>,
    #[serde(default)]
    pub allowed_loss_share: f64,
    pub latency: BTreeMap<String, Latency>,
    pub spans: Vec<SpanRecord>,
    pub per_delivery: Option<Cost>,
    pub bytes_per_connection: Option<u64>,
    pub seconds: Vec<SecondRecord>,
    /// What was searched for, if it was.
    pub search: Option<serde_json::Value>,
}

/// A percentile of the latency that the scenario is about, what it may be and what it was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Objective {
    pub quantile: f64,
    pub limit_ns: u64,
    pub found_ns: Option<u64>,
}

impl Objective {
    /// Of a run that was given one.
    pub fn new(outcome: &Outcome, slo: Slo) -> Self {
        Objective {
            quantile: slo.quantile,
            limit_ns: slo.limit.as_nanos() as u64,
            found_ns: outcome.main_quantile_ns(slo.quantile),
        }
    }

    /// For people.
    pub fn line(&self) -> String {
        let found = self.found_ns.map_or_else(
            || "nothing was measured".to_owned(),
            |ns| format!("{:.3} ms", ns as f64 / 1e6),
        );
        format!(
            "objective: {} % within {:.3} ms: {found}",
            self.quantile * 100.0,
            self.limit_ns as f64 / 1e6
        )
    }
}

/// The machine that the generator ran on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    pub kernel: String,
    /// CPUs that the generator may use.
    pub cpus: usize,
    #[serde(default)]
    pub cpu_model: String,
    /// What sets the CPUs' clock, where the kernel says so.
    #[serde(default)]
    pub governor: Option<String>,
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

/// One kind of latency.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    #[serde(alias = "mean")]
    pub mean_ns: f64,
    #[serde(alias = "p50")]
    pub p50_ns: u64,
    #[serde(alias = "p90")]
    pub p90_ns: u64,
    #[serde(alias = "p99")]
    pub p99_ns: u64,
    #[serde(rename = "p99.9_ns", alias = "p99.9")]
    pub p99_9_ns: u64,
    #[serde(rename = "p99.99_ns", alias = "p99.99")]
    pub p99_99_ns: u64,
    #[serde(alias = "max")]
    pub max_ns: u64,
    /// Quantile and value.
    #[serde(alias = "curve")]
    pub curve_ns: Vec<(f64, u64)>,
}

/// CPU time and memory over a part of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpanRecord {
    pub name: String,
    pub elapsed_s: f64,
    pub broker_cpu_s: Option<f64>,
    pub broker_resident_bytes: Option<(u64, u64)>,
    #[serde(default)]
    pub broker_waited_s: Option<f64>,
    pub own_cpu_s: f64,
    pub machine_cpu_s: Option<f64>,
    #[serde(default)]
    pub stolen_s: Option<f64>,
    #[serde(default)]
    pub throttled_s: Option<f64>,
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
    #[serde(alias = "p50")]
    pub p50_ns: u64,
    #[serde(alias = "p90")]
    pub p90_ns: u64,
    #[serde(alias = "p99")]
    pub p99_ns: u64,
    #[serde(rename = "p99.9_ns", alias = "p99.9")]
    pub p99_9_ns: u64,
    #[serde(rename = "p99.99_ns", alias = "p99.99")]
    pub p99_99_ns: u64,
    #[serde(alias = "max")]
    pub max_ns: u64,
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Self {
        let at = |index: usize| histogram.value_at_quantile(QUANTILES[index].1);
        let curve = histogram.iter_quantiles(CURVE_STEPS);
        Latency {
            count: histogram.len(),
            mean_ns: histogram.mean(),
            p50_ns: at(0),
            p90_ns: at(1),
            p99_ns: at(2),
            p99_9_ns: at(3),
            p99_99_ns: at(4),
            max_ns: histogram.max(),
            curve_ns: curve
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
            p50_ns: at(QUANTILES[0].1),
            p90_ns: at(QUANTILES[1].1),
            p99_ns: at(QUANTILES[2].1),
            p99_9_ns: at(QUANTILES[3].1),
            p99_99_ns: at(QUANTILES[4].1),
            max_ns: histogram.map_or(0, Histogram::max),
        }
    }
}

impl SpanRecord {
    fn new(span: &Span) -> Self {
        SpanRecord {
            name: span.name.clone(),
            elapsed_s: span.elapsed.as_secs_f64(),
            broker_cpu_s: span.broker_cpu.map(|cpu| cpu.as_secs_f64()),
            broker_resident_bytes: span.broker_resident,
            broker_waited_s: span.broker_waited.map(|time| time.as_secs_f64()),
            own_cpu_s: span.own_cpu.as_secs_f64(),
            machine_cpu_s: span.machine_cpu.map(|cpu| cpu.as_secs_f64()),
            stolen_s: span.stolen.map(|time| time.as_secs_f64()),
            throttled_s: span.throttled.map(|time| time.as_secs_f64()),
        }
    }
}

impl RunRecord {
    /// The record of an outcome that was judged so.
    pub fn new(
        outcome: &Outcome,
        verdict: Verdict,
        output: &Output,
        seconds: Vec<SecondRecord>,
    ) -> Self {
        let counts = outcome.meters.counts;
        let settings = &outcome.plan.settings;
        let owed = outcome.owed;
        let flow = |messages, bytes| Flow {
            messages,
            bytes,
            messages_per_second: outcome.per_second(messages),
            bytes_per_second: outcome.per_second(bytes),
        };
        RunRecord {
            schema: SCHEMA,
            verdict: Some(verdict),
            is_clean: verdict == Verdict::Clean,
            warnings: warnings(outcome),
            objective: output.slo.map(|slo| Objective::new(outcome, slo)),
            end: outcome.end.clone(),
            limits: outcome.limits,
            workers: outcome.generators.clone(),
            loadgen: env!("CARGO_PKG_VERSION").to_owned(),
            loadgen_commit: env!("LOADGEN_COMMIT").to_owned(),
            command: command(),
            seed: outcome.plan.seed,
            began_unix_s: outcome.began_unix_s,
            ended_unix_s: unix_s(),
            host: host(),
            scenario: settings.scenario.clone(),
            broker: settings.target.text.clone(),
            broker_version: output.broker_version.clone(),
            broker_executables: executables(&output.pid),
            protocol: settings.protocol,
            clients: outcome.clients_in,
            threads: settings.threads,
            rate_per_second: outcome.rate(),
            warmup_s: settings.warmup.as_secs_f64(),
            elapsed_s: outcome.main_span().map_or(0.0, |s| s.elapsed.as_secs_f64()),
            published: flow(counts.published, counts.published_bytes),
            delivered: flow(counts.delivered, counts.delivered_bytes),
            acknowledged: counts.acknowledged,
            refused: counts.refused,
            unsent: outcome.unsent,
            connect_failures: counts.connect_failures,
            disconnected: counts.disconnected,
            sent_wire_bytes: counts.sent_wire_bytes,
            received_wire_bytes: counts.received_wire_bytes,
            owed: (owed.owed, owed.came),
            warmup_owed: (owed.warmup_owed, owed.warmup_came),
            replay: outcome.replay,
            breaches: breaches(outcome),
            allowed_loss_share: settings.loss_share_max,
            latency: latencies(outcome),
            spans: outcome.spans.iter().map(SpanRecord::new).collect(),
            per_delivery: cost(outcome),
            bytes_per_connection: bytes_per_connection(outcome),
            seconds,
            search: None,
        }
    }

    /// The verdict in words, also of documents that have none.
    pub const fn words(&self) -> &'static str {
        match self.verdict {
            Some(verdict) => verdict.words(),
            None if self.is_clean => "clean",
            None => "not clean",
        }
    }

    /// The record as a document.
    pub fn document(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn latencies(outcome: &Outcome) -> BTreeMap<String, Latency> {
    let all = Measure::ALL.iter().filter_map(|(measure, name)| {
        let histogram = outcome.meters.latency(*measure)?;
        Some(((*name).to_owned(), Latency::new(histogram)))
    });
    all.collect()
}

fn breaches(outcome: &Outcome) -> Vec<BreachRecord> {
    let by_qos = outcome.breaches.iter().enumerate();
    let records = by_qos.map(|(qos, b)| BreachRecord {
        qos,
        delivered: b.delivered,
        lost: b.lost,
        duplicated: b.duplicated,
        reordered: b.reordered,
        corrupt: b.corrupt,
    });
    records.collect()
}

/// Seconds since 1970.
pub fn unix_s() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |d| d.as_secs())
}

/// A moment as people write it.
pub fn date(unix_s: u64) -> String {
    let moment = i64::try_from(unix_s)
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    moment.map_or_else(String::new, |at| {
        format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute())
    })
}

/// The command line. It cannot hold a password; a user name in a URL may be a token.
fn command() -> Vec<String> {
    let shown = |word: String| {
        let (name, value) = word.split_at(word.find('=').map_or(0, |at| at + 1));
        if value.contains("://") {
            format!("{name}{}", without_secrets(value))
        } else {
            word
        }
    };
    std::env::args().map(shown).collect()
}

/// Paths below the folder where this runs begin there: a published result has none of the machine's own.
fn executables(pids: &[u32]) -> Vec<String> {
    let here = std::env::current_dir().unwrap_or_default();
    let links = pids.iter().filter_map(|pid| {
        let link = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let shown = link.strip_prefix(&here).unwrap_or(&link);
        Some(shown.to_string_lossy().into_owned())
    });
    links.collect()
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
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut models = cpus.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    let governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    Host {
        name: name.nodename().to_string_lossy().into_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        cpu_model: models.next().unwrap_or_default(),
        governor: std::fs::read_to_string(governor)
            .ok()
            .map(|text| text.trim().to_owned()),
    }
}

/// The trials of a search.
pub fn search_record(found: &Found) -> serde_json::Value {
    let trials = found.trials.iter().map(|trial| {
        serde_json::json!({
            "rate_per_second": trial.rate,
            "latency_ns": trial.latency_ns,
            "failure": trial.failure,
        })
    });
    serde_json::json!({
        "quantile": found.slo.quantile,
        "limit_ns": found.slo.limit.as_nanos() as u64,
        "rate_per_second": found.best.as_ref().map(|(rate, _)| *rate),
        "bound": found.bound,
        "is_interrupted": found.is_interrupted,
        "trials": trials.collect::<Vec<_>>(),
    })
}
