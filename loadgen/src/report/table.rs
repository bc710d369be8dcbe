//! A result as a table for people.

use super::{QUANTILES, warnings};
use crate::find_max::Found;
use crate::limits::Bound;
use crate::measure::Measure;
use crate::outcome::{Outcome, Span};
use crate::verdict::Verdict;
use std::fmt::Write;

/// Names of the latencies in tables.
const LATENCIES: [(Measure, &str); 8] = [
    (Measure::Deliver, "publish to deliver"),
    (Measure::DeliverInStorm, "the same, in the storm"),
    (Measure::Ack, "publish to ack"),
    (Measure::Replay, "to retained or missed"),
    (Measure::ReplayWhole, "to the last retained"),
    (Measure::Connect, "connect"),
    (Measure::Reconnect, "connect again"),
    (Measure::Subscribe, "subscribe"),
];

/// The whole result; its first word is the verdict.
pub fn table(outcome: &Outcome, verdict: Verdict) -> String {
    let mut out = format!("{}: ", verdict.words());
    throughput(outcome, &mut out);
    latencies(outcome, &mut out);
    verification(outcome, &mut out);
    for span in &outcome.spans {
        machine(outcome, span, &mut out);
    }
    for warning in warnings(outcome) {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

fn throughput(outcome: &Outcome, out: &mut String) {
    let counts = outcome.meters.counts;
    let elapsed = outcome.main_span().map_or(0.0, |s| s.elapsed.as_secs_f64());
    let settings = &outcome.plan.settings;
    let _ = writeln!(
        out,
        "{} at {}, {} clients, {elapsed:.3} s",
        settings.scenario, settings.target.text, outcome.clients_in
    );
    let rows = [
        ("published", counts.published, counts.published_bytes),
        ("delivered", counts.delivered, counts.delivered_bytes),
        ("acknowledged", counts.acknowledged, 0),
    ];
    for (name, messages, bytes) in rows {
        if messages == 0 {
            continue;
        }
        let _ = write!(
            out,
            "{name:<14}{messages:>12} messages {:>12.0} per second",
            outcome.per_second(messages)
        );
        if bytes > 0 {
            let megabytes = outcome.per_second(bytes) / 1e6;
            let _ = write!(out, " {megabytes:>10.2} MB/s of payload");
        }
        out.push('\n');
    }
    if let Some(span) = outcome.span("connect") {
        let seconds = span.elapsed.as_secs_f64();
        let per_second = outcome.clients_in as f64 / seconds.max(1e-9);
        let _ = writeln!(
            out,
            "{:<14}{:>12} clients  {per_second:>12.0} per second, {} failed attempts",
            "connected", counts.connected, counts.connect_failures
        );
    }
}

fn latencies(outcome: &Outcome, out: &mut String) {
    let _ = write!(out, "{:<24}", "latency in us");
    for (name, _) in QUANTILES {
        let _ = write!(out, "{name:>12}");
    }
    let _ = writeln!(out, "{:>12}", "max");
    for (measure, name) in LATENCIES {
        let Some(histogram) = outcome.meters.latency(measure) else {
            continue;
        };
        let _ = write!(out, "{name:<24}");
        for (_, quantile) in QUANTILES {
            let us = histogram.value_at_quantile(quantile) as f64 / 1e3;
            let _ = write!(out, "{us:>12.1}");
        }
        let _ = writeln!(out, "{:>12.1}", histogram.max() as f64 / 1e3);
    }
}

fn verification(outcome: &Outcome, out: &mut String) {
    for (qos, b) in outcome.breaches.iter().enumerate() {
        if *b == crate::verify::Breaches::default() {
            continue;
        }
        let _ = writeln!(
            out,
            "QoS {qos}: {} checked: lost {}, duplicated {}, reordered {}, corrupt {}",
            b.delivered, b.lost, b.duplicated, b.reordered, b.corrupt
        );
    }
    let owed = outcome.owed;
    if owed.owed > 0 {
        let _ = writeln!(out, "owed deliveries: {} of {} came", owed.came, owed.owed);
    }
    if owed.warmup_owed > 0 {
        let _ = writeln!(
            out,
            "of the warm-up: {} of {} came",
            owed.warmup_came, owed.warmup_owed
        );
    }
    let (wanted, replayed) = outcome.replay;
    if wanted > 0 {
        let _ = writeln!(
            out,
            "retained or missed messages: {replayed} of {wanted} came"
        );
    }
    let refused = outcome.meters.counts.refused;
    if refused > 0 {
        let _ = writeln!(out, "{refused} publishes were answered with an error code");
    }
}

fn machine(outcome: &Outcome, span: &Span, out: &mut String) {
    let seconds = span.elapsed.as_secs_f64().max(1e-9);
    let share = |cpu: std::time::Duration| cpu.as_secs_f64() / seconds * 100.0;
    let _ = write!(
        out,
        "{:<8} CPU: loadgen {:>6.1} %",
        span.name,
        share(span.own_cpu)
    );
    if let Some(cpu) = span.broker_cpu {
        let _ = write!(out, ", broker {:>6.1} %", share(cpu));
    }
    let counted = match span.name.as_str() {
        "connect" => ("connection", outcome.clients_in),
        "load" | "replay" => ("delivery", outcome.meters.counts.delivered),
        _ => ("", 0),
    };
    if let ((what, count @ 1..), Some(cpu)) = (counted, span.broker_cpu) {
        let us = cpu.as_secs_f64() * 1e6 / count as f64;
        let own = span.own_cpu.as_secs_f64() * 1e6 / count as f64;
        let _ = write!(out, "; per {what}: broker {us:.3} us, loadgen {own:.3} us");
    }
    if let Some((before, after)) = span.broker_resident {
        let _ = write!(out, "; broker holds {:.1} MB", after as f64 / 1e6);
        if span.name == "connect" && outcome.clients_in > 0 {
            let each = after.saturating_sub(before) / outcome.clients_in;
            let _ = write!(out, ", {each} bytes per connection");
        }
    }
    out.push('\n');
}

/// The trials of a search and its result.
pub fn search_table(found: &Found) -> String {
    let mut out = match &found.best {
        Some((rate, _)) => format!("{rate:.0} messages per second hold the objective\n"),
        None => "no rate held the objective\n".to_owned(),
    };
    if found.is_interrupted {
        out.insert_str(0, "interrupted: ");
    }
    let _ = writeln!(out, "{:>14} {:>14}  result", "messages/s", "latency in ms");
    for trial in &found.trials {
        let ms = trial.latency_ns.map_or(f64::NAN, |ns| ns as f64 / 1e6);
        let result = trial.failure.as_deref().unwrap_or("holds");
        let _ = writeln!(out, "{:>14.0} {ms:>14.3}  {result}", trial.rate);
    }
    match &found.best {
        Some((rate, outcome)) => {
            let _ = writeln!(
                out,
                "highest rate that holds it: {rate:.0} messages per second"
            );
            out.push_str(&table(outcome, Verdict::Clean));
        }
        None => out.push_str("no rate holds it\n"),
    }
    match found.bound {
        Bound::Neither => {}
        Bound::Generator => {
            out.push_str("warning: beyond that rate the generator was the limit, not the broker\n")
        }
        Bound::Machine => {
            out.push_str("warning: beyond that rate the machine was the limit, not the broker\n")
        }
    }
    out
}
