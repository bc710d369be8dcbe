//! What a run saw, for people and for programs.

use crate::verify::Breaches;
use hdrhistogram::Histogram;
use std::fmt::Write;
use std::time::Duration;

/// The result of one run.
#[derive(Debug)]
pub struct Report {
    /// The command that was run.
    pub command: String,
    /// QoS of the run.
    pub qos: u8,
    /// Messages published.
    pub published: u64,
    /// Deliveries that came.
    pub delivered: u64,
    /// Deliveries that were due.
    pub expected: u64,
    /// From the first publish to the last delivery.
    pub elapsed: Duration,
    /// Publish to deliver, in nanoseconds.
    pub latency: Histogram<u64>,
    /// What went wrong.
    pub breaches: Breaches,
    /// CPU time of the broker during the run, if its process id was given.
    pub broker_cpu: Option<Duration>,
    /// CPU time of this process during the run.
    pub own_cpu: Duration,
}

const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

impl Report {
    /// Whether the run saw nothing that its QoS forbids, and all that was due unless QoS 0 may lose.
    pub const fn is_clean(&self) -> bool {
        self.breaches.are_allowed(self.qos) && self.delivered > 0
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn per_delivery_us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.delivered.max(1) as f64
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "published   {:>12} messages", self.published);
        let _ = writeln!(
            out,
            "delivered   {:>12} of {} ({:.0} per second)",
            self.delivered,
            self.expected,
            self.per_second(self.delivered)
        );
        let _ = writeln!(out, "elapsed     {:>12.3} s", self.elapsed.as_secs_f64());
        let _ = writeln!(out, "latency, publish to deliver");
        for (name, quantile) in QUANTILES {
            let us = self.latency.value_at_quantile(quantile) as f64 / 1e3;
            let _ = writeln!(out, "  {name:<9} {us:>12.1} us");
        }
        let _ = writeln!(
            out,
            "  max       {:>12.1} us",
            self.latency.max() as f64 / 1e3
        );
        let b = self.breaches;
        let _ = writeln!(
            out,
            "lost {}, duplicated {}, reordered {}, corrupt {}",
            b.lost, b.duplicated, b.reordered, b.corrupt
        );
        let own = self.per_delivery_us(self.own_cpu);
        let _ = writeln!(out, "loadgen CPU {own:>12.3} us per delivery");
        if let Some(cpu) = self.broker_cpu {
            let cpu = self.per_delivery_us(cpu);
            let _ = writeln!(out, "broker CPU  {cpu:>12.3} us per delivery");
        }
        if self.own_cpu.as_secs_f64() > 0.9 * self.elapsed.as_secs_f64() {
            let _ = writeln!(
                out,
                "warning: the generator was busy all the time and may be the limit"
            );
        }
        out
    }

    /// One line of JSON for programs.
    pub fn json(&self) -> String {
        let mut out = String::from("{");
        let _ = write!(
            out,
            "\"command\":\"{}\"",
            self.command.replace(['"', '\\'], "'")
        );
        for (name, value) in [
            ("published", self.published),
            ("delivered", self.delivered),
            ("expected", self.expected),
            ("lost", self.breaches.lost),
            ("duplicated", self.breaches.duplicated),
            ("reordered", self.breaches.reordered),
            ("corrupt", self.breaches.corrupt),
            ("elapsed_us", self.elapsed.as_micros() as u64),
            ("own_cpu_us", self.own_cpu.as_micros() as u64),
            ("latency_max_ns", self.latency.max()),
        ] {
            let _ = write!(out, ",\"{name}\":{value}");
        }
        for (name, quantile) in QUANTILES {
            let value = self.latency.value_at_quantile(quantile);
            let _ = write!(out, ",\"latency_{}_ns\":{value}", name.replace('.', "_"));
        }
        if let Some(cpu) = self.broker_cpu {
            let _ = write!(out, ",\"broker_cpu_us\":{}", cpu.as_micros());
        }
        out.push_str("}\n");
        out
    }
}
