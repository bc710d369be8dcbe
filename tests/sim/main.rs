//! The simulator: whole brokers of one to four shards and their clients in one thread, from a seed.
//!
//! Time is virtual; mail between shards is delayed and interleaved at random, connections break and stall at
//! any byte, clients are taken over, sessions expire. An oracle that knows only what clients sent and saw
//! checks what MQTT owes them, and at the end nothing may be left.
//!
//! `RINGMQ_TEST_SIM_SEED=7 cargo test --test sim` runs one seed, `RINGMQ_TEST_SIM_SEEDS=100000` so many
//! (from `RINGMQ_TEST_SIM_FIRST` on).

mod bridges;
mod client;
mod kept;
mod oracle;
mod random;
mod run;
mod storage;
mod wire;
mod world;

use run::Run;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

/// What happens, or how it panics.
fn caught(run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Runs one seed; the failure says how to run it again.
fn simulate(seed: u64) -> Result<(), String> {
    let mut run = Run::new(seed);
    let Err(failure) = caught(|| run.run()) else {
        return Ok(());
    };
    let trace: Vec<String> = run.trace.into();
    Err(format!(
        "{}\n\nseed {seed}: {failure}\nreplay: RINGMQ_TEST_SIM_SEED={seed} cargo test --test sim",
        trace.join("\n")
    ))
}

#[test]
fn what_mqtt_owes_is_kept_whatever_happens() {
    let seeds = match number("RINGMQ_TEST_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("RINGMQ_TEST_SIM_FIRST").unwrap_or(0);
            first..first + number("RINGMQ_TEST_SIM_SEEDS").unwrap_or(SEEDS)
        }
    };
    for seed in seeds {
        if let Err(report) = simulate(seed) {
            panic!("{report}");
        }
    }
}
