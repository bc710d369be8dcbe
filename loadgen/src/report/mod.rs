//! Results: for people, for programs, as files of HdrHistogram's tools, as pages.

mod hdr;
mod json;
mod page;
mod plot;
mod progress;
mod table;

pub use hdr::{IntervalLog, write_percentiles};
pub use json::{RunRecord, SecondRecord, search_record, unix_s};
pub use page::render;
pub use progress::Progress;
pub use table::{search_table, table};

use crate::outcome::Outcome;

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
    let end = &outcome.end;
    if let Some(why) = &end.failure {
        warnings.push(format!("it could not go on, the result is partial: {why}"));
    }
    if end.is_interrupted {
        warnings.push("it was interrupted, the result is partial".into());
    }
    if let Some(why) = &end.gave_up {
        warnings.push(format!("gave up, the result is partial: {why}"));
    }
    let lost: u64 = outcome.breaches.iter().map(|b| b.lost).sum();
    if lost > 0 {
        let over = end.failure.is_none() && end.gave_up.is_none() && !end.is_interrupted;
        let what = if over {
            "lost"
        } else {
            "not there when it ended"
        };
        warnings.push(format!("{lost} deliveries were {what}"));
    }
    warnings.extend(outcome.limit_warnings());
    if outcome.unsent > 0 {
        warnings.push(format!(
            "{} scheduled messages were never sent: the broker did not take them in time, so that \
             latencies are lower bounds",
            outcome.unsent
        ));
    }
    let disconnected = outcome.meters.counts.disconnected;
    let settings = &outcome.plan.settings;
    let is_wanted = settings.storm.is_some() || settings.command.is_some();
    if disconnected > 0 && !is_wanted {
        warnings.push(format!("{disconnected} clients lost their connection"));
    }
    if outcome.lacks_aliases {
        warnings.push("topics were sent in full: the broker takes fewer topic aliases".into());
    }
    warnings
}
