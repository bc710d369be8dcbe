//! The highest open-loop rate that holds a latency objective: doubling until a trial fails, then halving
//! the gap until it is within 5 %.

use crate::args::{Search, Slo};
use crate::limits::Bound;
use crate::measure::Measure;
use crate::outcome::Outcome;
use crate::plan::scenario::Workload;
use crate::plan::{Finish, GroupSpec, Pace, Plan};
use crate::verdict::{self, Verdict};
use std::time::Duration;

/// How exact the result is.
const GAP: f64 = 1.05;
/// Trials at most.
const TRIALS_MAX: u32 = 40;
/// A part of each trial that is not measured.
const WARMUP_SHARE: f64 = 0.2;
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
    /// What was the limit in the last failing trial, if not the broker.
    pub bound: Bound,
    /// Somebody stopped the search.
    pub is_interrupted: bool,
}

fn set_rate(groups: &mut [GroupSpec], rate: f64) {
    for group in groups {
        if let Some(publish) = &mut group.publish {
            publish.pace = Pace::Rate(rate);
        }
    }
}

/// Why an outcome does not hold the objective: only a clean run can.
fn failure(outcome: &Outcome, slo: Slo, latency_ns: Option<u64>) -> Option<String> {
    let scheduled = outcome.unsent + outcome.meters.counts.published;
    let end = &outcome.end;
    if let Some(why) = end.failure.as_ref().or(end.gave_up.as_ref()) {
        return Some(why.clone());
    }
    match (verdict::judge(outcome, Some(slo)), latency_ns) {
        (Verdict::Clean, _) => None,
        (Verdict::ObjectiveMissed, _) if verdict::is_late(outcome) => Some(format!(
            "{} of {scheduled} were not sent in time",
            outcome.unsent
        )),
        (Verdict::ObjectiveMissed, Some(ns)) => Some(format!("{:.2} ms", ns as f64 / 1e6)),
        (Verdict::ObjectiveMissed, None) => Some("nothing was delivered".into()),
        (Verdict::Breach | Verdict::Lossy, _) => Some("messages were lost or damaged".into()),
        (Verdict::GeneratorBound, _) => Some("the generator was the limit".into()),
        (Verdict::MachineBound, _) => Some("the machine was the limit".into()),
        (Verdict::Incomplete, _) => Some("it did not come to its end".into()),
        (Verdict::Interrupted, _) => Some("interrupted".into()),
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
        bound: Bound::Neither,
        is_interrupted: false,
    };
    let mut fails_at: Option<f64> = None;
    let mut rate = search.from;
    for trial in 0..TRIALS_MAX {
        let (mut settings, mut groups) = workload.clone();
        settings.finish = Finish::After(search.trial);
        settings.warmup = search.trial.mul_f64(WARMUP_SHARE);
        settings.patience = settings.patience.min(TRIAL_PATIENCE);
        set_rate(&mut groups, rate);
        let outcome = make(Plan::new(
            settings,
            groups,
            seed.wrapping_add(u64::from(trial)),
        )?)?;
        if let (Some(why), true) = (&outcome.end.failure, found.trials.is_empty()) {
            return Err(why.clone());
        }
        found.is_interrupted = outcome.end.is_interrupted;
        let latency_ns = outcome.quantile_ns(Measure::Deliver, slo.quantile);
        let trial = Trial {
            rate,
            latency_ns,
            failure: failure(&outcome, slo, latency_ns),
        };
        tell(&trial);
        if trial.failure.is_some() {
            found.bound = outcome.limits.bound();
            fails_at = Some(fails_at.map_or(rate, |high| high.min(rate)));
        } else {
            found.best = Some((rate, outcome));
        }
        found.trials.push(trial);
        if found.is_interrupted {
            break;
        }
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
