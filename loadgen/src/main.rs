//! `loadgen`: load for MQTT brokers, verified, with honest percentiles.
//!
//! Command line ([`args`]) to plan ([`plan`]) to run ([`run`], one [`worker`] per core) to result
//! ([`report`]). Shares no code with the broker, so that no error of its
//! codec can hide here; only `floor`, which is no load, borrows its ring.

mod args;
mod codec;
mod connection;
mod control;
mod find_max;
mod measure;
mod plan;
mod report;
mod run;
mod stamp;
mod transport;
mod verify;
mod worker;

use args::{Args, Command, Common, FloorWay, Output, Search};
use clap::Parser;
use plan::scenario::{self, Workload};
use plan::{Plan, mixed, preset};
use report::{IntervalLog, Progress, RunRecord, SecondRecord};
use ringmq::shard::ring::floor::Way;
use run::Outcome;
use std::io::{Write, stdout};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Many buffers come and go with 100,000 connections.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The run could not be made or did not come to its end.
const FAILED: u8 = 1;
/// The arguments, or a file that they name, cannot be used.
const WRONG_ARGUMENTS: u8 = 2;
/// The broker did what the QoS forbids.
const BREACH: u8 = 3;
/// No rate holds the objective.
const NO_RATE: u8 = 4;

/// What to say on the way out.
struct Failure(u8, String);

fn main() -> ExitCode {
    let args = Args::parse();
    match execute(&args.command) {
        Ok(code) => ExitCode::from(code),
        Err(Failure(code, why)) => {
            eprintln!("loadgen: {why}");
            ExitCode::from(code)
        }
    }
}

fn execute(command: &Command) -> Result<u8, Failure> {
    let wrong = |why| Failure(WRONG_ARGUMENTS, why);
    match command {
        Command::Fanout(args) => {
            let workload = scenario::fanout(args).map_err(wrong)?;
            searched(workload, &args.search, &args.common)
        }
        Command::Fanin(args) => {
            let workload = scenario::fanin(args).map_err(wrong)?;
            searched(workload, &args.search, &args.common)
        }
        Command::P2p(args) => {
            let workload = scenario::p2p(args).map_err(wrong)?;
            searched(workload, &args.search, &args.common)
        }
        Command::Shared(args) => {
            let workload = scenario::shared(args).map_err(wrong)?;
            searched(workload, &args.search, &args.common)
        }
        Command::Connect(args) => single(scenario::connect(args).map_err(wrong)?, &args.common),
        Command::Retained(args) => single(scenario::retained(args).map_err(wrong)?, &args.common),
        Command::Storm(args) => single(scenario::storm(args).map_err(wrong)?, &args.common),
        Command::Slow(args) => single(scenario::slow(args).map_err(wrong)?, &args.common),
        Command::Mixed(args) => single(mixed::workload(args).map_err(wrong)?, &args.common),
        Command::Preset(args) => single(preset::workload(args).map_err(wrong)?, &args.common),
        Command::Floor(args) => floor(args),
        Command::Report(args) => {
            let said = report::render(args).map_err(|why| Failure(FAILED, why))?;
            print(&said)
        }
    }
}

/// Serves as the floor until the process is stopped.
fn floor(args: &args::Floor) -> Result<u8, Failure> {
    let listen = args.listen;
    let failed = |why: String| Failure(FAILED, why);
    let listener = TcpListener::bind(listen).map_err(|e| failed(format!("{listen}: {e}")))?;
    let address = listener.local_addr().map_err(|e| failed(e.to_string()))?;
    eprintln!("the floor listens on mqtt://{address}");
    let way = match args.way {
        FloorWay::Plain => Way::Plain,
        FloorWay::FixedFiles => Way::FixedFiles,
        FloorWay::ZeroCopy => Way::ZeroCopy,
        FloorWay::Deferred => Way::Deferred,
    };
    ringmq::shard::ring::floor::serve(listener, way).map_err(|e| failed(e.to_string()))?;
    Ok(0)
}

/// Distinguishes this run's topics and payloads from those of others.
fn seed() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since_epoch.map_or(0, |d| d.as_nanos() as u64);
    nanos.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8 ^ u64::from(std::process::id())
}

/// Runs a plan; tells each second to progress, log and record.
fn observed(
    plan: Plan,
    output: &Output,
    progress: &mut Progress,
    mut log: Option<&mut IntervalLog>,
) -> Result<(Outcome, RunRecord), String> {
    let mut seconds = Vec::new();
    let mut first = None;
    let broker = output.broker();
    let outcome = run::run(plan, broker.as_ref(), &mut |second| {
        let first = *first.get_or_insert(second.second);
        seconds.push(SecondRecord::new(second, first));
        progress.say(second);
        if let Some(log) = &mut log {
            log.write(second);
        }
    });
    progress.end();
    let outcome = outcome?;
    let record = RunRecord::new(&outcome, seconds);
    Ok((outcome, record))
}

fn single((settings, groups): Workload, common: &Common) -> Result<u8, Failure> {
    let failed = |why| Failure(FAILED, why);
    let output = &common.output;
    let plan = Plan::new(settings, groups, seed()).map_err(|why| Failure(WRONG_ARGUMENTS, why))?;
    let mut log = match &output.hlog {
        Some(path) => Some(IntervalLog::create(path).map_err(failed)?),
        None => None,
    };
    let mut progress = Progress::new(output.quiet);
    let (outcome, record) = observed(plan, output, &mut progress, log.as_mut()).map_err(failed)?;
    if let Some(log) = log {
        log.finish().map_err(failed)?;
    }
    if let Some(path) = &output.hgrm {
        report::write_percentiles(path, &outcome).map_err(failed)?;
    }
    if output.json {
        print(&(record.document() + "\n"))?;
    } else {
        print(&report::table(&outcome))?;
    }
    Ok(verdict(&outcome))
}

/// A search for the highest rate if it was asked for, else one run.
fn searched(workload: Workload, search: &Search, common: &Common) -> Result<u8, Failure> {
    let Some(slo) = search.slo.filter(|_| search.find_max) else {
        return single(workload, common);
    };
    let output = &common.output;
    let mut progress = Progress::new(output.quiet);
    let mut silent = Progress::new(true);
    let mut best_record = None;
    let make = |plan| {
        let (outcome, record) = observed(plan, output, &mut silent, None)?;
        best_record = Some(record);
        Ok(outcome)
    };
    let found = find_max::search(&workload, search, slo, seed(), make, |trial| {
        let ms = trial.latency_ns.map_or(f64::NAN, |ns| ns as f64 / 1e6);
        let result = trial.failure.as_deref().unwrap_or("holds");
        progress.note(&format!(
            "{:>12.0} messages/s: {ms:.3} ms, {result}",
            trial.rate
        ));
    })
    .map_err(|why| Failure(FAILED, why))?;
    if let (Some(path), Some((_, outcome))) = (&output.hgrm, &found.best) {
        report::write_percentiles(path, outcome).map_err(|why| Failure(FAILED, why))?;
    }
    if output.json {
        let mut record = match (&found.best, best_record) {
            (Some((_, outcome)), _) => RunRecord::new(outcome, Vec::new()),
            (None, Some(record)) => record,
            (None, None) => return Ok(NO_RATE),
        };
        record.search = Some(report::search_record(&found));
        print(&(record.document() + "\n"))?;
    } else {
        print(&report::search_table(&found))?;
    }
    Ok(if found.best.is_some() { 0 } else { NO_RATE })
}

fn verdict(outcome: &Outcome) -> u8 {
    let is_clean = outcome.is_clean();
    let incomplete = outcome.is_incomplete();
    let has_breach = {
        let forbids_loss = outcome.plan.settings.forbids_loss;
        let mut by_qos = outcome.breaches.iter().enumerate();
        !by_qos.all(|(qos, breaches)| breaches.are_allowed(qos, forbids_loss))
    };
    match (is_clean, has_breach, incomplete) {
        (true, ..) => 0,
        (_, true, _) => BREACH,
        (_, _, true) => FAILED,
        _ => BREACH,
    }
}

/// Prints to standard output; a reader that has gone away is no error.
fn print(text: &str) -> Result<u8, Failure> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure(FAILED, format!("cannot print the result: {error}")))
        }
        _ => Ok(0),
    }
}
