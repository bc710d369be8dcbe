//! A line per second while a run lasts: rewritten on a terminal, one below the other elsewhere.

use crate::measure::Measure;
use crate::outcome::Second;
use std::io::{IsTerminal, Write, stderr};

/// Prints progress to standard error.
pub struct Progress {
    is_terminal: bool,
    is_quiet: bool,
    first: Option<u64>,
    has_line: bool,
}

impl Progress {
    /// Progress, unless it is not wanted.
    pub fn new(is_quiet: bool) -> Self {
        Progress {
            is_terminal: stderr().is_terminal(),
            is_quiet,
            first: None,
            has_line: false,
        }
    }

    /// Says what one second held.
    pub fn say(&mut self, second: &Second) {
        if self.is_quiet {
            return;
        }
        let first = *self.first.get_or_insert(second.second);
        let counts = second.meters.counts;
        let quantile = |q: f64| {
            let histogram = second.meters.latency(Measure::Deliver);
            histogram.map_or(0.0, |h| h.value_at_quantile(q) as f64 / 1e3)
        };
        let line = format!(
            "{:>4} s  connected {:>7}  published {:>9}  delivered {:>9}  p50 {:>9.0} us  \
             p99 {:>9.0} us  max {:>9.0} us  errors {}",
            second.second - first,
            counts.connected,
            counts.published,
            counts.delivered,
            quantile(0.5),
            quantile(0.99),
            quantile(1.0),
            counts.refused + counts.connect_failures + counts.disconnected,
        );
        self.print(&line);
    }

    /// Says something that stays.
    pub fn note(&mut self, line: &str) {
        if !self.is_quiet {
            self.end();
            // Progress that nobody can see is no reason to stop.
            let _ = writeln!(stderr(), "{line}");
        }
    }

    fn print(&mut self, line: &str) {
        let mut out = stderr();
        let printed = if self.is_terminal {
            self.has_line = true;
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{line}")
        };
        self.is_quiet |= printed.is_err();
    }

    /// Leaves the last line behind.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.has_line) {
            let _ = writeln!(stderr());
        }
    }
}
