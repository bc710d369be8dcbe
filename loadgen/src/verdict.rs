//! One word on a run, and the exit code that says the same.

use crate::args::Slo;
use crate::limits::Bound;
use crate::outcome::Outcome;
use serde::{Deserialize, Serialize};

/// What a run is worth, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It came to its end, all that was owed came, and the broker was what limited it.
    Clean,
    /// Messages of QoS 0 were lost, no more than the command allows.
    Lossy,
    /// The objective was not held, or the rate that was asked for was not made.
    ObjectiveMissed,
    /// The generator was the limit: the numbers are not the broker's.
    GeneratorBound,
    /// The machine had no CPU for the generator, or for the broker.
    MachineBound,
    /// It did not come to its end.
    Incomplete,
    /// Somebody stopped it.
    Interrupted,
    /// The broker did what the QoS forbids, or lost more than the command allows.
    Breach,
}

impl Verdict {
    /// The verdict in words.
    pub const fn words(self) -> &'static str {
        match self {
            Verdict::Clean => "clean",
            Verdict::Lossy => "lossy",
            Verdict::ObjectiveMissed => "objective missed",
            Verdict::GeneratorBound => "generator-bound",
            Verdict::MachineBound => "machine-bound",
            Verdict::Incomplete => "incomplete",
            Verdict::Interrupted => "interrupted",
            Verdict::Breach => "breach",
        }
    }

    /// What the process ends with.
    pub const fn exit_code(self) -> u8 {
        match self {
            Verdict::Clean | Verdict::Lossy => 0,
            Verdict::Incomplete | Verdict::Interrupted => 1,
            Verdict::Breach => 3,
            Verdict::ObjectiveMissed => 4,
            Verdict::GeneratorBound | Verdict::MachineBound => 5,
        }
    }
}

/// Share of an open loop's schedule that may stay unsent.
const UNSENT_SHARE_MAX: f64 = 0.01;

/// Whether an open loop did not make its rate.
pub fn is_late(outcome: &Outcome) -> bool {
    let scheduled = outcome.unsent + outcome.meters.counts.published;
    outcome.unsent as f64 > UNSENT_SHARE_MAX * scheduled as f64
}

/// Judges a run; `slo` is the objective that it was given.
pub fn judge(outcome: &Outcome, slo: Option<Slo>) -> Verdict {
    let is_missed = slo.is_some_and(|slo| {
        let ns = outcome.main_quantile_ns(slo.quantile);
        ns.is_none_or(|ns| u128::from(ns) > slo.limit.as_nanos())
    });
    let lost: u64 = outcome.breaches.iter().map(|b| b.lost).sum();
    if has_breach(outcome) {
        Verdict::Breach
    } else if outcome.end.is_interrupted && outcome.end.failure.is_none() {
        Verdict::Interrupted
    } else if is_incomplete(outcome) {
        Verdict::Incomplete
    } else {
        match outcome.limits.bound() {
            Bound::Machine => Verdict::MachineBound,
            Bound::Generator => Verdict::GeneratorBound,
            Bound::Neither if is_missed || is_late(outcome) => Verdict::ObjectiveMissed,
            Bound::Neither if lost > 0 => Verdict::Lossy,
            Bound::Neither => Verdict::Clean,
        }
    }
}

/// Whether what did not come is lost for good: the run went on to its end, or the broker was asked
/// afterwards and answered.
fn are_losses_final(outcome: &Outcome) -> bool {
    let end = &outcome.end;
    let is_over = end.gave_up.is_none() || end.broker_answers == Some(true);
    is_over && end.failure.is_none() && !end.is_interrupted
}

fn has_breach(outcome: &Outcome) -> bool {
    let are_final = are_losses_final(outcome);
    outcome.breaches.iter().enumerate().any(|(qos, breaches)| {
        let (lost, owed) = outcome.loss(qos);
        let allowed = match qos {
            0 => outcome.plan.settings.loss_share_max * owed as f64,
            _ => 0.0,
        };
        !breaches.are_allowed(qos) || (are_final && lost as f64 > allowed)
    })
}

/// Whether clients were lost or what was to be measured did not happen.
fn is_incomplete(outcome: &Outcome) -> bool {
    let end = &outcome.end;
    let owed = outcome.owed.owed + outcome.owed.warmup_owed;
    let came = outcome.owed.came + outcome.owed.warmup_came;
    outcome.clients_in < outcome.clients_wanted()
        || outcome.replay.0 != outcome.replay.1
        || end.gave_up.is_some()
        || end.failure.is_some()
        || outcome.meters.counts.refused > 0
        || (owed > 0 && came == 0)
}
