//! What a message costs this generator on this machine, and the highest rate that it can judge.
//!
//! Both are measured against the floor (`loadgen floor`, a process of its own), which costs as little as
//! anything that answers can: what limits these runs is the generator, or the machine.

use crate::args::{self, Args, Command, Fanout, Slo};
use crate::find_max;
use crate::limits::Bound;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::plan::scenario::{self, Workload};
use crate::run::{self, Surroundings};
use crate::transport::{Target, TlsOptions};
use clap::Parser;
use serde::Serialize;
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// An objective that every rate holds: only what the generator can make is looked for.
const ANY: Slo = Slo {
    quantile: 0.5,
    limit: Duration::from_secs(3600),
};

/// What was found.
#[derive(Debug, Serialize)]
pub struct Calibration {
    pub schema: u32,
    pub loadgen: String,
    pub loadgen_commit: String,
    pub size: String,
    pub subscribers: u32,
    /// The generator's CPU time for a delivery: reading, checking, timing.
    pub delivery_cpu_us: f64,
    /// The same, for a publish.
    pub publish_cpu_us: f64,
    /// The highest rate at which neither generator nor machine was the limit.
    pub rate_per_second: Option<f64>,
    /// The deliveries at that rate.
    pub deliveries_per_second: Option<f64>,
    /// What was the limit beyond it.
    pub bound: Bound,
}

/// The floor as a process; it ends with its owner.
struct Floor {
    process: Child,
    address: String,
}

impl Floor {
    fn start() -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot start the floor: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut process = std::process::Command::new(program)
            .args(["floor", "--listen=127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut said = String::new();
        if let Some(stderr) = process.stderr.take() {
            BufReader::new(stderr)
                .read_line(&mut said)
                .map_err(failed)?;
        }
        let address = said
            .trim()
            .rsplit_once("mqtt://")
            .map(|(_, address)| address);
        let floor = Floor {
            process,
            address: address.unwrap_or_default().to_owned(),
        };
        if floor.address.is_empty() {
            return Err(format!("cannot start the floor: {}", said.trim()));
        }
        Ok(floor)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A fan-out from the command line that a user would type.
fn fanout(args: &args::Calibrate, more: &[String]) -> Result<(Fanout, Workload), String> {
    let mut words = vec!["loadgen".to_owned(), "fanout".into()];
    words.push(format!("--size={}", args.size));
    words.extend(args.threads.map(|threads| format!("--threads={threads}")));
    words.extend_from_slice(more);
    let parsed = Args::try_parse_from(words).map_err(|error| error.to_string())?;
    let Command::Fanout(fanout) = parsed.command else {
        return Err("the words above begin with fanout".into());
    };
    let workload = scenario::fanout(&fanout)?;
    Ok((fanout, workload))
}

/// Each run has a floor of its own: one that a run was too much for is gone.
fn run_once(mut plan: Plan, interrupt: &AtomicBool) -> Result<Outcome, String> {
    let floor = Floor::start()?;
    let target = Target::new(&floor.address, &TlsOptions::default(), &[], plan.clients())?;
    plan.settings.target = Arc::new(target);
    let surroundings = Surroundings {
        broker: None,
        interrupt,
        observer: &mut |_| {},
        gate: None,
    };
    run::run(plan, surroundings)
}

/// The generator's CPU time in us per delivery of a closed loop.
fn cost(args: &args::Calibrate, subscribers: u32, interrupt: &AtomicBool) -> Result<f64, String> {
    let more = [
        format!("--subscribers={subscribers}"),
        "--window=4".into(),
        format!("--duration={}", args.trial),
    ];
    let (_, (settings, groups)) = fanout(args, &more)?;
    let outcome = run_once(Plan::new(settings, groups, 1)?, interrupt)?;
    if let Some(why) = outcome.end.failure {
        return Err(why);
    }
    let own = outcome
        .main_span()
        .map_or(Duration::ZERO, |span| span.own_cpu);
    let deliveries = outcome.meters.counts.delivered.max(1);
    Ok(own.as_secs_f64() * 1e6 / deliveries as f64)
}

/// Measures it.
///
/// # Errors
/// A message that names what went wrong.
pub fn calibrate(args: &args::Calibrate, interrupt: &AtomicBool) -> Result<Calibration, String> {
    let delivery = cost(args, args.subscribers, interrupt)?;
    let single = cost(args, 1, interrupt)?;
    let more = [
        format!("--subscribers={}", args.subscribers),
        "--find-max".into(),
        "--slo=p50=1h".into(),
        format!("--trial={}", args.trial),
        "--from=200".into(),
    ];
    let (fanout, workload) = fanout(args, &more)?;
    let make = |plan| run_once(plan, interrupt);
    let found = find_max::search(&workload, &fanout.search, ANY, 1, make, |_| {})?;
    let rate = found.best.as_ref().map(|(rate, _)| *rate);
    Ok(Calibration {
        schema: 1,
        loadgen: env!("CARGO_PKG_VERSION").to_owned(),
        loadgen_commit: env!("LOADGEN_COMMIT").to_owned(),
        size: args.size.clone(),
        subscribers: args.subscribers,
        delivery_cpu_us: delivery,
        publish_cpu_us: (single - delivery).max(0.0),
        rate_per_second: rate,
        deliveries_per_second: rate.map(|rate| rate * f64::from(args.subscribers)),
        bound: found.bound,
    })
}

impl Calibration {
    /// For programs.
    pub fn document(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = format!(
            "a delivery costs this generator {:.3} us of CPU here, a publish {:.3} us ({} bytes, {} \
             subscribers)\n",
            self.delivery_cpu_us, self.publish_cpu_us, self.size, self.subscribers
        );
        let limit = match self.bound {
            Bound::Generator => "the generator was the limit",
            Bound::Machine => "the machine was the limit",
            Bound::Neither => "the floor did not keep up",
        };
        let _ = match (self.rate_per_second, self.deliveries_per_second) {
            (Some(rate), Some(deliveries)) => writeln!(
                out,
                "highest rate that it can judge: {rate:.0} messages, {deliveries:.0} deliveries per second; \
                 beyond it {limit}"
            ),
            _ => writeln!(out, "there is no rate that it can judge: {limit}"),
        };
        out
    }
}
