//! What a run found: counts, latencies, what was lost, what the machine did meanwhile, how it ended.

use crate::limits::{Bound, Limits};
use crate::measure::{Measure, Meters};
use crate::plan::Plan;
use crate::verify::Breaches;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// CPU time and memory over a part of the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Span {
    /// Which part.
    pub name: String,
    /// How long it took.
    pub elapsed: Duration,
    /// CPU time of the broker, if it is watched.
    pub broker_cpu: Option<Duration>,
    /// Time that the broker's threads were ready to run and had no CPU.
    pub broker_waited: Option<Duration>,
    /// The broker's resident bytes at its begin and end.
    pub broker_resident: Option<(u64, u64)>,
    /// CPU time of this process.
    pub own_cpu: Duration,
    /// Busy time of the machine, interrupts included.
    pub machine_cpu: Option<Duration>,
    /// CPU time that the hypervisor gave to others.
    pub stolen: Option<Duration>,
    /// Time that this process was held back by its control groups.
    pub throttled: Option<Duration>,
}

/// One second of a run.
#[derive(Clone, Debug)]
pub struct Second {
    /// Since the origin.
    pub second: u64,
    /// What was measured in it.
    pub meters: Meters,
}

/// How a run ended. All of it is nothing for a run that came to its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct End {
    /// Why nobody waited any longer.
    pub gave_up: Option<String>,
    /// Whether the broker answered pings when it was given up, if it was.
    pub broker_answers: Option<bool>,
    /// Why the run could not go on.
    pub failure: Option<String>,
    /// Somebody stopped it.
    pub is_interrupted: bool,
}

/// Deliveries owed and come: of the time that is measured, and of the warm-up before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Of messages whose time was after the warm-up.
    pub owed: u64,
    /// Of these, how many came.
    pub came: u64,
    /// Of messages of the warm-up.
    pub warmup_owed: u64,
    /// Of these, how many came.
    pub warmup_came: u64,
}

/// What one of several generators did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Generator {
    pub address: String,
    pub host: String,
    pub bound: Bound,
    pub limits: Limits,
    pub clients: u64,
    pub published: u64,
    pub delivered: u64,
}

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    /// What was to be done.
    pub plan: Arc<Plan>,
    /// Everything measured.
    pub meters: Meters,
    /// By QoS; of the warm-up, too.
    pub breaches: [Breaches; 3],
    /// Parts of the run, in order.
    pub spans: Vec<Span>,
    /// Messages of the schedule that were never sent, for the broker did not take them in time.
    pub unsent: u64,
    /// Deliveries owed and come.
    pub owed: Owed,
    /// Messages that should have come to those who came late, and did.
    pub replay: (u64, u64),
    /// Clients that were in at the end of the connect phase.
    pub clients_in: u64,
    /// What the generator had to wait for.
    pub limits: Limits,
    /// How it ended.
    pub end: End,
    /// The second in which the measurement began, if it did.
    pub load_second: Option<u64>,
    /// Who made the load, if not this process.
    pub generators: Vec<Generator>,
    /// When it began, in seconds since 1970.
    pub began_unix_s: u64,
    /// Aliases were asked for and the broker takes too few.
    pub lacks_aliases: bool,
}

impl Outcome {
    /// Of a run in which nothing has happened yet.
    pub fn empty(plan: Arc<Plan>) -> Self {
        Outcome {
            plan,
            meters: Meters::default(),
            breaches: Default::default(),
            spans: Vec::new(),
            unsent: 0,
            owed: Owed::default(),
            replay: (0, 0),
            clients_in: 0,
            limits: Limits::default(),
            end: End::default(),
            load_second: None,
            generators: Vec::new(),
            began_unix_s: 0,
            lacks_aliases: false,
        }
    }

    /// Clients that should have come in.
    pub fn clients_wanted(&self) -> u64 {
        u64::from(self.plan.clients()) * self.generators.len().max(1) as u64
    }

    /// Messages per second that the open loop was asked for.
    pub fn rate(&self) -> Option<f64> {
        let generators = self.generators.len().max(1) as f64;
        self.plan.rate().map(|rate| rate * generators)
    }

    /// What is to be known of the generators.
    pub fn limit_warnings(&self) -> Vec<String> {
        if self.generators.is_empty() {
            return self.limits.warnings();
        }
        let mut said = Vec::new();
        for generator in &self.generators {
            let warnings = generator.limits.warnings().into_iter();
            said.extend(warnings.map(|text| format!("worker {}: {text}", generator.address)));
        }
        said
    }

    /// A part of the run by its name.
    pub fn span(&self, name: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.name == name)
    }

    /// The part that the scenario is about.
    pub fn main_span(&self) -> Option<&Span> {
        let by_name = |name| self.span(name);
        by_name("replay")
            .or_else(|| by_name("load"))
            .or_else(|| by_name("connect"))
    }

    /// Messages per second that a count over the main part makes.
    pub fn per_second(&self, count: u64) -> f64 {
        let elapsed = self.main_span().map_or(0.0, |s| s.elapsed.as_secs_f64());
        count as f64 / elapsed.max(1e-9)
    }

    /// The quantile of a latency in ns.
    pub fn quantile_ns(&self, measure: Measure, quantile: f64) -> Option<u64> {
        let histogram = self.meters.latency(measure)?;
        Some(histogram.value_at_quantile(quantile))
    }

    /// The latency that the scenario is about: of deliveries, else of what is replayed, else of connects.
    pub fn main_quantile_ns(&self, quantile: f64) -> Option<u64> {
        let measures = [Measure::Deliver, Measure::Replay, Measure::Connect];
        let mut found = measures
            .iter()
            .filter_map(|m| self.quantile_ns(*m, quantile));
        found.next()
    }

    /// Lost deliveries of a QoS, and how many were owed with it.
    pub fn loss(&self, qos: usize) -> (u64, u64) {
        self.breaches.get(qos).map_or((0, 0), |b| {
            let first = b.delivered.saturating_sub(b.duplicated);
            (b.lost, b.lost + first)
        })
    }
}
