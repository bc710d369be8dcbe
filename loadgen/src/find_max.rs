//! The highest open-loop rate that holds a latency objective: doubling until a trial fails, then halving
//! the gap until it is within 5 %.

use crate::args::{Search, Slo};
use crate::measure::Measure;
use crate::plan::scenario::Workload;
use crate::plan::{Finish, GroupSpec, Pace, Plan};
use crate::run::{self, Outcome};
use std::time::Duration;

/// How exact the result is.
const GAP: f64 = 1.05;
/// Trials at most.
const TRIALS_MAX: u32 = 40;
/// A part of each trial that is not measured.
const WARMUP_SHARE: f64 = 0.2;
/// Share of the schedule that must have gone out.
const SENT_SHARE: f64 = 0.99;
/// A trial that stalls has failed; there is no need to wait for long.
const TRIAL_PATIENCE: Duration = Duration::from_secs(3);

/// One trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Messages per second.
    pub rate: f64,
    /// The percentile of the objective, in ns.
    pub latency_ns: Option<u64>,
    /// Why it does not count as holding the objective.
    pub failure: Option<String>,
}

/// What a search found.
pub struct Found {
    /// The objective.
    pub slo: Slo,
    /// All trials, in order.
    pub trials: Vec<Trial>,
    /// The run at the highest rate that held it.
    pub best: Option<(f64, Outcome)>,
    /// Whether the generator was what failed in the last failing trial.
    pub is_generator_bound: bool,
}

fn set_rate(groups: &mut [GroupSpec], rate: f64) {
    for group in groups {
        if let Some(publish) = &mut group.publish {
            publish.pace = Pace::Rate(rate);
        }
    }
}

/// Why an outcome does not hold the objective.
fn failure(outcome: &Outcome, slo: Slo, latency_ns: Option<u64>) -> Option<String> {
    let scheduled = outcome.unsent + outcome.meters.counts.published;
    if let Some(why) = &outcome.gave_up {
        return Some(why.clone());
    }
    if (outcome.meters.counts.published as f64) < SENT_SHARE * scheduled as f64 {
        return Some(format!(
            "{} of {scheduled} were not sent in time",
            outcome.unsent
        ));
    }
    if !outcome.is_clean() || outcome.breaches.iter().any(|b| b.lost > 0) {
        return Some("messages were lost or damaged".into());
    }
    match latency_ns {
        Some(ns) if u128::from(ns) <= slo.limit.as_nanos() => None,
        Some(ns) => Some(format!("{:.2} ms", ns as f64 / 1e6)),
        None => Some("nothing was delivered".into()),
    }
}

/// Looks for the highest rate. `seed` tells the runs apart; `tell` hears of every trial.
///
/// # Errors
/// What a run says that cannot be made.
pub fn search(
    workload: &Workload,
    search: &Search,
    slo: Slo,
    seed: u64,
    mut make: impl FnMut(Plan) -> Result<Outcome, String>,
    mut tell: impl FnMut(&Trial),
) -> Result<Found, String> {
    let mut found = Found {
        slo,
        trials: Vec::new(),
        best: None,
        is_generator_bound: false,
    };
    let mut fails_at: Option<f64> = None;
    let mut rate = search.from;
    for trial in 0..TRIALS_MAX {
        let (mut settings, mut groups) = workload.clone();
        settings.finish = Finish::After(search.trial);
        settings.warmup = search.trial.mul_f64(WARMUP_SHARE);
        settings.patience = settings.patience.min(TRIAL_PATIENCE);
        set_rate(&mut groups, rate);
        let outcome = make(Plan::new(settings, groups, seed + u64::from(trial))?)?;
        let latency_ns = outcome.quantile_ns(Measure::Deliver, slo.quantile);
        let trial = Trial {
            rate,
            latency_ns,
            failure: failure(&outcome, slo, latency_ns),
        };
        tell(&trial);
        if trial.failure.is_some() {
            found.is_generator_bound = run::is_generator_bound(&outcome);
            fails_at = Some(fails_at.map_or(rate, |high| high.min(rate)));
        } else {
            found.best = Some((rate, outcome));
        }
        found.trials.push(trial);
        let holds_at = found.best.as_ref().map(|(rate, _)| *rate);
        rate = match (holds_at, fails_at) {
            (Some(low), Some(high)) if high / low <= GAP => break,
            (Some(low), Some(high)) => (low * high).sqrt(),
            (Some(low), None) => low * 2.0,
            (None, Some(high)) if high < 1.0 => break,
            (None, Some(high)) => high / 4.0,
            (None, None) => break,
        };
    }
    Ok(found)
}
