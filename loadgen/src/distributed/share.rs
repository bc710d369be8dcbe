//! What one generator found, as it travels, and how all of it becomes one outcome.

use crate::limits::{Bound, Limits};
use crate::measure::Meters;
use crate::outcome::{End, Generator, Outcome, Owed, Second, Span};
use crate::plan::Plan;
use crate::verify::Breaches;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one generator found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Share {
    meters: Meters,
    breaches: [Breaches; 3],
    spans: Vec<Span>,
    unsent: u64,
    owed: Owed,
    replay: (u64, u64),
    clients_in: u64,
    limits: Limits,
    pub end: End,
    began_unix_s: u64,
    lacks_aliases: bool,
    /// The second in which the measurement began, if it did.
    load_second: Option<u64>,
    seconds: Vec<(u64, Meters)>,
    host: String,
}

impl Share {
    pub fn new(outcome: Outcome, seconds: Vec<Second>) -> Self {
        let host = rustix::system::uname();
        Share {
            meters: outcome.meters,
            breaches: outcome.breaches,
            spans: outcome.spans,
            unsent: outcome.unsent,
            owed: outcome.owed,
            replay: outcome.replay,
            clients_in: outcome.clients_in,
            limits: outcome.limits,
            end: outcome.end,
            began_unix_s: outcome.began_unix_s,
            lacks_aliases: outcome.lacks_aliases,
            load_second: outcome.load_second,
            seconds: seconds.into_iter().map(|s| (s.second, s.meters)).collect(),
            host: host.nodename().to_string_lossy().into_owned(),
        }
    }

    /// Of a worker that is gone.
    pub fn missing(why: String) -> Self {
        Share {
            end: End {
                failure: Some(why),
                ..End::default()
            },
            ..Share::default()
        }
    }
}

/// Adds everything up. Seconds are counted from the one in which each began to measure.
pub fn merge(plan: Plan, shares: Vec<(String, Share)>) -> (Outcome, Vec<Second>) {
    let before = shares
        .iter()
        .filter_map(|(_, share)| share.load_second)
        .max();
    let mut seconds: BTreeMap<u64, Meters> = BTreeMap::new();
    let mut outcome = Outcome::empty(Arc::new(plan));
    for (address, share) in shares {
        let shift = before.unwrap_or(0) - share.load_second.or(before).unwrap_or(0);
        for (second, meters) in &share.seconds {
            seconds.entry(second + shift).or_default().add(meters);
        }
        add(&mut outcome, address, share);
    }
    let seconds = seconds
        .into_iter()
        .map(|(second, meters)| Second { second, meters });
    (outcome, seconds.collect())
}

fn add(outcome: &mut Outcome, address: String, share: Share) {
    outcome.meters.add(&share.meters);
    for (sum, one) in outcome.breaches.iter_mut().zip(share.breaches) {
        *sum += one;
    }
    for span in share.spans {
        match outcome
            .spans
            .iter_mut()
            .find(|known| known.name == span.name)
        {
            None => outcome.spans.push(Span {
                machine_cpu: None,
                ..span
            }),
            Some(known) => {
                known.elapsed = known.elapsed.max(span.elapsed);
                known.own_cpu += span.own_cpu;
            }
        }
    }
    outcome.unsent += share.unsent;
    outcome.owed.owed += share.owed.owed;
    outcome.owed.came += share.owed.came;
    outcome.owed.warmup_owed += share.owed.warmup_owed;
    outcome.owed.warmup_came += share.owed.warmup_came;
    outcome.replay.0 += share.replay.0;
    outcome.replay.1 += share.replay.1;
    outcome.clients_in += share.clients_in;
    outcome.began_unix_s = outcome.began_unix_s.max(share.began_unix_s);
    outcome.lacks_aliases |= share.lacks_aliases;
    add_end(&mut outcome.end, &address, share.end);
    let bound = share.limits.bound();
    if outcome.generators.is_empty() || rank(bound) > rank(outcome.limits.bound()) {
        outcome.limits = share.limits;
    }
    outcome.generators.push(Generator {
        address,
        host: share.host,
        bound,
        limits: share.limits,
        clients: share.clients_in,
        published: share.meters.counts.published,
        delivered: share.meters.counts.delivered,
    });
}

const fn rank(bound: Bound) -> u8 {
    match bound {
        Bound::Neither => 0,
        Bound::Generator => 1,
        Bound::Machine => 2,
    }
}

fn add_end(sum: &mut End, address: &str, end: End) {
    let named = |why: String| format!("worker {address}: {why}");
    sum.broker_answers = match (sum.broker_answers, end.broker_answers) {
        (Some(one), Some(other)) => Some(one && other),
        (one, other) => one.or(other),
    };
    sum.is_interrupted |= end.is_interrupted;
    let (gave_up, failure) = (sum.gave_up.take(), sum.failure.take());
    sum.gave_up = gave_up.or_else(|| end.gave_up.map(named));
    sum.failure = failure.or_else(|| end.failure.map(named));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use crate::measure::Measure;
    use crate::verdict::{Verdict, judge};
    use clap::Parser;

    fn plan() -> Plan {
        let words = ["loadgen", "fanout", "--subscribers=1", "--rate=10"];
        let Command::Fanout(args) = Args::try_parse_from(words).unwrap().command else {
            panic!("these are the words of a fan-out");
        };
        let (settings, groups) = crate::plan::scenario::fanout(&args).unwrap();
        Plan::new(settings, groups, 1).unwrap()
    }

    fn share(latencies_ms: &[u64], load_second: u64, cpu_wait_share: f64) -> Share {
        let mut meters = Meters::default();
        for ms in latencies_ms {
            meters.record(Measure::Deliver, ms * 1_000_000);
        }
        meters.counts.delivered = latencies_ms.len() as u64;
        Share {
            seconds: vec![(load_second, meters.clone())],
            meters,
            clients_in: 2,
            limits: Limits {
                cpu_wait_share,
                ..Limits::default()
            },
            end: End::default(),
            load_second: Some(load_second),
            ..Share::missing(String::new())
        }
    }

    #[test]
    fn histograms_are_added_and_seconds_meet_where_each_began_to_measure() {
        let fast = share(&[1; 99], 3, 0.0);
        let slow = share(&[500], 8, 0.0);
        let (outcome, seconds) = merge(plan(), vec![("a".into(), fast), ("b".into(), slow)]);
        let p50 = outcome.quantile_ns(Measure::Deliver, 0.5).unwrap();
        let max = outcome.quantile_ns(Measure::Deliver, 1.0).unwrap();
        assert!(p50 < 2_000_000 && max >= 500_000_000, "{p50} {max}");
        assert_eq!(seconds.len(), 1);
        assert_eq!(seconds[0].meters.counts.delivered, 100);
        assert_eq!((outcome.rate(), outcome.clients_wanted()), (Some(20.0), 4));
        assert_eq!(judge(&outcome, None), Verdict::Clean);
    }

    #[test]
    fn one_generator_that_was_the_limit_is_enough() {
        let shares = vec![
            ("a".to_owned(), share(&[1], 0, 0.0)),
            ("b".to_owned(), share(&[1], 0, 0.5)),
            ("c".to_owned(), share(&[1], 0, 0.0)),
        ];
        let (outcome, _) = merge(plan(), shares);
        assert_eq!(judge(&outcome, None), Verdict::MachineBound);
        let said = outcome.limit_warnings();
        assert!(
            said.len() == 1 && said[0].starts_with("worker b: "),
            "{said:?}"
        );
    }

    #[test]
    fn one_that_is_gone_is_named() {
        let shares = vec![
            ("a".to_owned(), share(&[1], 0, 0.0)),
            ("b".to_owned(), Share::missing("it is gone".into())),
        ];
        let (outcome, _) = merge(plan(), shares);
        assert_eq!(judge(&outcome, None), Verdict::Incomplete);
        assert_eq!(outcome.end.failure.as_deref(), Some("worker b: it is gone"));
    }
}
