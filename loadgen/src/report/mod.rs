//! Results: for people, for programs, as files of HdrHistogram's tools, as pages.

mod hdr;
mod json;
mod page;
mod plot;
mod progress;
mod table;

pub use hdr::{IntervalLog, write_percentiles};
pub use json::{RunRecord, SecondRecord, search_record};
pub use page::render;
pub use progress::Progress;
pub use table::{search_table, table};

use crate::measure::Measure;
use crate::run::{Outcome, is_generator_bound};

/// Quantiles that every result names.
pub const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// What somebody who reads the numbers has to know.
pub fn warnings(outcome: &Outcome) -> Vec<String> {
    let mut warnings = Vec::new();
    if is_generator_bound(outcome) {
        let busy = outcome.busy * 100.0;
        warnings.push(match outcome.quantile_ns(Measure::Lag, 0.99) {
            Some(lag) => format!(
                "the generator may be the limit: its busiest thread was {busy:.0} % busy, 1 % of \
                 its publishes left {:.1} ms late or more",
                lag as f64 / 1e6
            ),
            None => {
                format!("the generator may be the limit: its busiest thread was {busy:.0} % busy")
            }
        });
    }
    if outcome.unsent > 0 {
        warnings.push(format!(
            "{} scheduled messages were never sent: the broker did not take them in time, so that \
             latencies are lower bounds",
            outcome.unsent
        ));
    }
    let own_lost = outcome.meters.counts.disconnected;
    if own_lost > 0 && outcome.plan.settings.storm.is_none() {
        warnings.push(format!("{own_lost} clients lost their connection"));
    }
    if let Some(why) = &outcome.gave_up {
        warnings.push(format!("gave up: {why}"));
    }
    warnings
}
