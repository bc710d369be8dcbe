//! `loadgen`: load for MQTT brokers, verified, with honest percentiles.
//!
//! Command line ([`args`]) to plan ([`plan`]) to run ([`run`], one [`worker`] per core) to result
//! ([`report`]). Shares no code with the broker, so that no error of its
//! codec can hide here; only `floor`, which is no load, borrows its ring.

mod args;
mod calibrate;
mod codec;
mod connection;
mod control;
mod distributed;
mod find_max;
mod limits;
mod measure;
mod outcome;
mod plan;
mod report;
mod run;
mod stamp;
mod transport;
mod verdict;
mod verify;
mod worker;

use args::{Args, Command, Common, Fanin, Fanout, FloorWay, P2p, Search, Shared};
use clap::Parser;
use outcome::Outcome;
use plan::scenario::{self, Workload};
use plan::{GroupSpec, Plan, mixed, preset};
use report::{IntervalLog, Progress, RunRecord, SecondRecord};
use ringmq::shard::ring::floor::{Direction, Way};
use run::Surroundings;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{Write, stdout};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};
use verdict::Verdict;

/// Many buffers come and go with 100,000 connections.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The run could not be made or did not come to its end.
const FAILED: u8 = 1;
/// The arguments, or a file that they name, cannot be used.
const WRONG_ARGUMENTS: u8 = 2;
/// No rate holds the objective.
const NO_RATE: u8 = 4;
/// The generator or the machine was the limit.
const LIMITED: u8 = 5;

/// What to say on the way out.
struct Failure(u8, String);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(code) = refuse_tokens() {
        return code;
    }
    match execute(&args.command) {
        Ok(code) => ExitCode::from(code),
        Err(Failure(code, why)) => {
            eprintln!("loadgen: {why}");
            ExitCode::from(code)
        }
    }
}

/// Tokens in URLs stand in the list of processes, where everybody can read them.
fn refuse_tokens() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    let has_query = words.any(|word| word.contains("://") && word.contains('?'));
    has_query.then(|| {
        eprintln!(
            "loadgen: what stands behind ? in a URL can be read by everybody in the list of processes; put \
             the URL into the environment as LOADGEN_BROKER"
        );
        ExitCode::from(WRONG_ARGUMENTS)
    })
}

/// Refuses options that would mean nothing.
fn check_said(groups: &[GroupSpec], common: &Common) -> Result<(), Failure> {
    plan::check_said(groups, &common.connection).map_err(|why| Failure(WRONG_ARGUMENTS, why))
}

/// The workload that a command names, if it names one.
fn workload(command: &Command) -> Option<Result<Workload, String>> {
    Some(match command {
        Command::Fanout(args) => scenario::fanout(args),
        Command::Fanin(args) => scenario::fanin(args),
        Command::P2p(args) => scenario::p2p(args),
        Command::Shared(args) => scenario::shared(args),
        Command::Connect(args) => scenario::connect(args),
        Command::Retained(args) => scenario::retained(args),
        Command::Storm(args) => scenario::storm(args),
        Command::Slow(args) => scenario::slow(args),
        Command::Offline(args) => scenario::offline("offline", args, None),
        Command::Restart(args) => {
            let command = Some(args.command.as_str());
            scenario::offline("restart", &args.offline, command)
        }
        Command::Telemetry(args) => scenario::telemetry(args),
        Command::Mixed(args) => mixed::workload(args),
        Command::Preset(args) => preset::workload(args),
        Command::Floor(_) | Command::Worker(_) | Command::Calibrate(_) | Command::Report(_) => {
            return None;
        }
    })
}

fn load(command: &Command) -> Result<Workload, Failure> {
    let workload = workload(command).unwrap_or_else(|| Err("this is no load".into()));
    workload.map_err(|why| Failure(WRONG_ARGUMENTS, why))
}

fn execute(command: &Command) -> Result<u8, Failure> {
    match command {
        Command::Fanout(Fanout { search, common, .. })
        | Command::Fanin(Fanin { search, common, .. })
        | Command::P2p(P2p { search, common, .. })
        | Command::Shared(Shared { search, common, .. }) => {
            searched(load(command)?, search, common)
        }
        Command::Connect(args::Connect { common, .. })
        | Command::Retained(args::Retained { common, .. })
        | Command::Storm(args::Storm { common, .. })
        | Command::Slow(args::Slow { common, .. })
        | Command::Telemetry(args::Telemetry { common, .. })
        | Command::Mixed(args::Mixed { common, .. })
        | Command::Preset(args::PresetRun { common, .. }) => single(load(command)?, common),
        Command::Offline(offline) | Command::Restart(args::Restart { offline, .. }) => {
            single(load(command)?, &offline.common)
        }
        Command::Worker(args) => {
            distributed::serve(args.listen).map_err(|why| Failure(FAILED, why))?;
            Ok(0)
        }
        Command::Floor(args) => floor(args),
        Command::Calibrate(args) => {
            let interrupt = interrupt()?;
            let found = calibrate::calibrate(args, &interrupt);
            let found = found.map_err(|why| Failure(FAILED, why))?;
            print(&if args.json {
                found.document() + "\n"
            } else {
                found.table()
            })?;
            Ok(if found.rate_per_second.is_some() {
                0
            } else {
                LIMITED
            })
        }
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
    let direction = if args.fan_in {
        Direction::In
    } else {
        Direction::Out
    };
    let served = ringmq::shard::ring::floor::serve(listener, way, direction);
    served.map_err(|e| failed(e.to_string()))?;
    Ok(0)
}

/// Distinguishes this run's topics and payloads from those of others.
fn seed(common: &Common) -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since_epoch.map_or(0, |d| d.as_nanos() as u64);
    let fresh = nanos.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8 ^ u64::from(std::process::id());
    common.connection.seed.unwrap_or(fresh)
}

/// Set by the first Ctrl-C; the second one ends the process at once.
fn interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let conditional = signal_hook::flag::register_conditional_default;
        let set = conditional(signal, interrupt.clone())
            .and_then(|_| signal_hook::flag::register(signal, interrupt.clone()));
        set.map_err(|error| Failure(FAILED, format!("cannot watch for signals: {error}")))?;
    }
    Ok(interrupt)
}

/// A run and how it is written.
struct Observed {
    outcome: Outcome,
    verdict: Verdict,
    record: RunRecord,
}

/// Runs a plan; tells each second to progress, log and record.
fn observed(
    plan: Plan,
    common: &Common,
    interrupt: &AtomicBool,
    progress: &mut Progress,
    mut log: Option<&mut IntervalLog>,
) -> Result<Observed, String> {
    let mut seconds = Vec::new();
    let mut first = None;
    let output = &common.output;
    let broker = output.broker();
    let mut observer = |second: &outcome::Second| {
        let first = *first.get_or_insert(second.second);
        seconds.push(SecondRecord::new(second, first));
        progress.say(second);
        if let Some(log) = &mut log {
            log.write(second);
        }
    };
    let outcome = if output.workers.is_empty() {
        let surroundings = Surroundings {
            broker: broker.as_ref(),
            interrupt,
            observer: &mut observer,
            gate: None,
        };
        run::run(plan, surroundings)
    } else {
        let url = &common.connection.broker;
        distributed::gather(plan, url, &output.workers, interrupt, &mut observer)
    };
    progress.end();
    let outcome = outcome?;
    let verdict = verdict::judge(&outcome, output.slo);
    let record = RunRecord::new(&outcome, verdict, output, seconds);
    Ok(Observed {
        outcome,
        verdict,
        record,
    })
}

fn single((settings, groups): Workload, common: &Common) -> Result<u8, Failure> {
    check_said(&groups, common)?;
    let failed = |why| Failure(FAILED, why);
    let output = &common.output;
    let seed = seed(common);
    let plan = Plan::new(settings, groups, seed).map_err(|why| Failure(WRONG_ARGUMENTS, why))?;
    let mut log = match &output.hlog {
        Some(path) => Some(IntervalLog::create(path).map_err(failed)?),
        None => None,
    };
    let interrupt = interrupt()?;
    let mut progress = Progress::new(output.quiet);
    let run = observed(plan, common, &interrupt, &mut progress, log.as_mut()).map_err(failed)?;
    if output.json {
        print(&(run.record.document() + "\n"))?;
    } else {
        print(&report::table(&run.outcome, run.verdict))?;
        if let Some(objective) = &run.record.objective {
            print(&(objective.line() + "\n"))?;
        }
    }
    if let Some(why) = &run.outcome.end.failure {
        eprintln!("loadgen: {why}");
    }
    if let Some(log) = log {
        log.finish(run.verdict).map_err(failed)?;
    }
    if let Some(path) = &output.hgrm {
        report::write_percentiles(path, &run.outcome, run.verdict).map_err(failed)?;
    }
    Ok(run.verdict.exit_code())
}

/// A search for the highest rate if it was asked for, else one run.
fn searched(workload: Workload, search: &Search, common: &Common) -> Result<u8, Failure> {
    let Some(slo) = common.output.slo.filter(|_| search.find_max) else {
        return single(workload, common);
    };
    check_said(&workload.1, common)?;
    let output = &common.output;
    let interrupt = interrupt()?;
    let mut progress = Progress::new(output.quiet);
    let mut silent = Progress::new(true);
    let mut records = Vec::new();
    let make = |plan| {
        let run = observed(plan, common, &interrupt, &mut silent, None)?;
        records.push(run.record);
        Ok(run.outcome)
    };
    let found = find_max::search(&workload, search, slo, seed(common), make, |trial| {
        let ms = trial.latency_ns.map_or(f64::NAN, |ns| ns as f64 / 1e6);
        let result = trial.failure.as_deref().unwrap_or("holds");
        progress.note(&format!(
            "{:>12.0} messages/s: {ms:.3} ms, {result}",
            trial.rate
        ));
    })
    .map_err(|why| Failure(FAILED, why))?;
    if output.json {
        let best = found
            .trials
            .iter()
            .rposition(|trial| trial.failure.is_none());
        let shown = best.unwrap_or(records.len().saturating_sub(1));
        if let Some(mut record) = records.into_iter().nth(shown) {
            record.search = Some(report::search_record(&found));
            if found.is_interrupted {
                (record.verdict, record.is_clean) = (Some(Verdict::Interrupted), false);
            }
            print(&(record.document() + "\n"))?;
        }
    } else {
        print(&report::search_table(&found))?;
    }
    if let (Some(path), Some((_, outcome))) = (&output.hgrm, &found.best) {
        report::write_percentiles(path, outcome, Verdict::Clean)
            .map_err(|why| Failure(FAILED, why))?;
    }
    Ok(match (&found.best, found.bound) {
        _ if found.is_interrupted => FAILED,
        (Some(_), _) => 0,
        (None, limits::Bound::Neither) => NO_RATE,
        (None, limits::Bound::Generator | limits::Bound::Machine) => LIMITED,
    })
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
