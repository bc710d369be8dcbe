//! Whether the broker was what limited a run, or the generator, or the machine: judged by what the
//! generator waited for.

use crate::measure::Measure;
use crate::measure::host::ThreadUse;
use crate::outcome::{Outcome, Span};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A thread that runs for more than this share of the load is what limits it.
const THREAD_SHARE_MAX: f64 = 0.95;
/// Publishes that leave later than this by the generator's own fault spoil its latencies.
const LAG_NS_MAX: u64 = 5_000_000;
/// A thread that is ready and has no CPU for more than this share of the load does not make that load.
const CPU_WAIT_SHARE_MAX: f64 = 0.10;
/// Share of the load for which control groups may hold the process back.
const THROTTLED_SHARE_MAX: f64 = 0.02;
/// Share of the machine's CPU time that a hypervisor may give to others.
const STOLEN_SHARE_MAX: f64 = 0.05;
/// A machine that is busy for more than this share of its CPU time has none for who wants more.
const MACHINE_SHARE_MAX: f64 = 0.97;
/// The machine's use is counted in ticks of 10 ms: it says nothing of a shorter time than this.
const TICKS_MIN: Duration = Duration::from_millis(200);
/// Share of the machine's CPU time that other work may take unsaid.
const OTHERS_SHARE_MAX: f64 = 0.10;
/// Load average per CPU before the run that goes unsaid.
const LOAD_PER_CPU_MAX: f64 = 0.5;

/// What limited a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The broker, or the rate that was asked for.
    #[default]
    Neither,
    /// The generator had no time left, or was late.
    Generator,
    /// There was no CPU for the generator, or for the broker.
    Machine,
}

/// What one generator had to wait for while it made its load. Shares are of the load's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The busiest thread: how long it ran.
    pub busiest_thread_share: f64,
    /// The thread that waited longest for a CPU: how long it was ready and had none.
    pub cpu_wait_share: f64,
    /// How long control groups held the process back.
    pub throttled_share: f64,
    /// Of the machine's CPU time: what a hypervisor gave to others.
    pub stolen_share: f64,
    /// How late the latest hundredth of the publishes left, by no fault of the broker.
    pub lag_p99_ns: Option<u64>,
    /// Of the machine's CPU time: what somebody used.
    #[serde(default)]
    pub machine_busy_share: Option<f64>,
    /// The time that the broker's threads, all together, were ready and had no CPU.
    pub broker_wait_share: Option<f64>,
    /// Of the machine's CPU time: what went neither to this process nor to the broker, if it is watched.
    pub others_share: Option<f64>,
    /// Whether the others are surely not the broker.
    pub are_others_foreign: bool,
    /// Load average of the last minute.
    pub load_before: Option<f64>,
    /// The same, afterwards.
    pub load_after: Option<f64>,
    /// CPUs of the machine.
    pub cpus: usize,
}

fn share(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64().max(1e-9)
}

impl Limits {
    /// Takes in what a thread did for `elapsed`.
    pub fn note_thread(&mut self, used: ThreadUse, elapsed: Duration) {
        let (ran, waited) = (share(used.ran, elapsed), share(used.waited, elapsed));
        self.busiest_thread_share = self.busiest_thread_share.max(ran);
        self.cpu_wait_share = self.cpu_wait_share.max(waited);
    }

    /// Takes in what the machine did during the part that the scenario is about.
    pub fn note_span(&mut self, span: &Span, is_broker_here: bool) {
        let whole = span.elapsed * self.cpus.max(1) as u32;
        self.throttled_share = span.throttled.map_or(0.0, |t| share(t, span.elapsed));
        if span.elapsed < TICKS_MIN {
            return;
        }
        let busy = span.machine_cpu.map(|busy| share(busy, whole));
        self.machine_busy_share = busy.map(|share| share.min(1.0));
        self.stolen_share = span.stolen.map_or(0.0, |t| share(t, whole));
        self.broker_wait_share = span.broker_waited.map(|t| share(t, span.elapsed));
        let broker_cpu = span.broker_cpu.unwrap_or_default();
        self.others_share = span.machine_cpu.map(|machine| {
            let others = machine.saturating_sub(span.own_cpu + broker_cpu);
            share(others, whole)
        });
        self.are_others_foreign = span.broker_cpu.is_some() || !is_broker_here;
    }

    fn foreign_share(&self) -> f64 {
        let share = self.others_share.filter(|_| self.are_others_foreign);
        share.unwrap_or(0.0)
    }

    /// What limited the run.
    pub fn bound(&self) -> Bound {
        let broker_wait = self.broker_wait_share.unwrap_or(0.0);
        let is_broker_starved =
            broker_wait > CPU_WAIT_SHARE_MAX && self.foreign_share() > OTHERS_SHARE_MAX;
        if self.cpu_wait_share > CPU_WAIT_SHARE_MAX
            || self.throttled_share > THROTTLED_SHARE_MAX
            || self.stolen_share > STOLEN_SHARE_MAX
            || self.machine_busy_share.unwrap_or(0.0) > MACHINE_SHARE_MAX
            || is_broker_starved
        {
            Bound::Machine
        } else if self.busiest_thread_share > THREAD_SHARE_MAX
            || self.lag_p99_ns.is_some_and(|lag| lag > LAG_NS_MAX)
        {
            Bound::Generator
        } else {
            Bound::Neither
        }
    }

    /// What somebody who reads the numbers has to know of it.
    pub fn warnings(&self) -> Vec<String> {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let mut said = Vec::new();
        let mut say = |is_so: bool, text: String| said.extend(is_so.then_some(text));
        let busiest = percent(self.busiest_thread_share);
        let wait = percent(self.cpu_wait_share);
        let lag = self.lag_p99_ns.unwrap_or(0);
        say(
            self.busiest_thread_share > THREAD_SHARE_MAX,
            format!(
                "the generator was the limit: its busiest thread ran for {busiest} of the time; more \
                 --threads, or --workers on other machines"
            ),
        );
        say(
            lag > LAG_NS_MAX,
            format!(
                "the generator was late: 1 % of its publishes left {:.1} ms after their time, or more",
                lag as f64 / 1e6
            ),
        );
        say(
            self.cpu_wait_share > CPU_WAIT_SHARE_MAX,
            format!(
                "the machine was the limit: a thread of the generator was ready for {wait} of the time and \
                 had no CPU; pin broker and generator to CPUs of their own, or use another machine"
            ),
        );
        let busy = self.machine_busy_share.unwrap_or(0.0);
        say(
            busy > MACHINE_SHARE_MAX,
            format!(
                "the machine was the limit: {} of the time of its {} CPUs was used, by the generator, the \
                 broker or others",
                percent(busy),
                self.cpus
            ),
        );
        say(
            self.throttled_share > THROTTLED_SHARE_MAX,
            format!(
                "the machine was the limit: control groups (cpu.max) held the generator back for {} of the \
                 time",
                percent(self.throttled_share)
            ),
        );
        say(
            self.stolen_share > STOLEN_SHARE_MAX,
            format!(
                "the machine was the limit: its host gave {} of its CPU time to others (steal)",
                percent(self.stolen_share)
            ),
        );
        self.say_others(&mut said);
        said
    }

    fn say_others(&self, said: &mut Vec<String>) {
        let load = |load: Option<f64>| load.map_or("unknown".into(), |load| format!("{load:.2}"));
        if self.foreign_share() > OTHERS_SHARE_MAX {
            let broker_wait = self.broker_wait_share.unwrap_or(0.0) * 100.0;
            said.push(format!(
                "the machine was busy with other work: {:.0} % of its CPU time went neither to the generator \
                 nor to the broker, whose threads waited {broker_wait:.0} % of the time for a CPU (load \
                 average {} before, {} after, {} CPUs)",
                self.foreign_share() * 100.0,
                load(self.load_before),
                load(self.load_after),
                self.cpus
            ));
        }
        if let Some(before) = self.load_before
            && before > LOAD_PER_CPU_MAX * self.cpus as f64
        {
            said.push(format!(
                "the machine was busy before the run: load average {before:.2} on {} CPUs",
                self.cpus
            ));
        }
    }
}

/// Completes what the workers' threads found with what the machine did.
pub fn complete(outcome: &mut Outcome) {
    let is_broker_here = outcome.plan.settings.target.is_local();
    let lag = outcome.quantile_ns(Measure::Lag, 0.99);
    let span = outcome.main_span().cloned();
    outcome.limits.lag_p99_ns = lag;
    if let Some(span) = span {
        outcome.limits.note_span(&span, is_broker_here);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ran_ms: u64, waited_ms: u64) -> Limits {
        let mut limits = Limits {
            cpus: 2,
            ..Limits::default()
        };
        let used = ThreadUse {
            ran: Duration::from_millis(ran_ms),
            waited: Duration::from_millis(waited_ms),
        };
        limits.note_thread(ThreadUse::default(), Duration::from_secs(1));
        limits.note_thread(used, Duration::from_secs(1));
        limits
    }

    fn span(machine_ms: u64, own_ms: u64) -> Span {
        Span {
            elapsed: Duration::from_secs(1),
            machine_cpu: Some(Duration::from_millis(machine_ms)),
            own_cpu: Duration::from_millis(own_ms),
            ..Span::default()
        }
    }

    #[test]
    fn a_thread_that_never_sleeps_is_the_limit_and_one_that_gets_no_cpu_is_not() {
        assert_eq!(after(800, 50).bound(), Bound::Neither);
        assert_eq!(after(980, 10).bound(), Bound::Generator);
        assert_eq!(after(500, 450).bound(), Bound::Machine);
        assert!(after(980, 10).warnings()[0].contains("98 %"));
        assert!(after(500, 450).warnings()[0].contains("45 %"));
    }

    #[test]
    fn late_publishes_throttling_and_steal_are_limits() {
        let mut late = after(100, 0);
        late.lag_p99_ns = Some(6_000_000);
        assert_eq!(late.bound(), Bound::Generator);
        for held_back in [
            Span {
                throttled: Some(Duration::from_millis(100)),
                ..span(500, 500)
            },
            Span {
                stolen: Some(Duration::from_millis(200)),
                ..span(500, 500)
            },
        ] {
            let mut limits = after(100, 0);
            limits.note_span(&held_back, true);
            assert_eq!(limits.bound(), Bound::Machine, "{held_back:?}");
            assert_eq!(limits.warnings().len(), 1, "{held_back:?}");
        }
    }

    #[test]
    fn a_machine_without_an_idle_cpu_is_the_limit_whoever_used_it() {
        let mut full = after(100, 0);
        full.note_span(&span(1990, 100), true);
        assert_eq!(full.bound(), Bound::Machine);
        assert!(full.warnings()[0].contains("100 % of the time of its 2 CPUs"));
        // Ticks say nothing of a short time.
        let mut short = after(100, 0);
        let ticks = Span {
            elapsed: Duration::from_millis(15),
            ..span(30, 10)
        };
        short.note_span(&ticks, true);
        assert_eq!(short.bound(), Bound::Neither);
    }

    #[test]
    fn other_work_is_said_where_it_cannot_be_the_broker() {
        let mut unwatched = after(100, 0);
        unwatched.note_span(&span(1500, 500), true);
        assert!(unwatched.warnings().is_empty());
        let mut remote = after(100, 0);
        remote.load_before = Some(0.5);
        remote.note_span(&span(1500, 500), false);
        let said = remote.warnings().join("\n");
        assert!(
            said.contains("50 % of its CPU time") && said.contains("0.50 before"),
            "{said}"
        );
        assert_eq!(remote.bound(), Bound::Neither);
        let mut starved = after(100, 0);
        let watched = Span {
            broker_cpu: Some(Duration::from_millis(300)),
            broker_waited: Some(Duration::from_millis(600)),
            ..span(1900, 500)
        };
        starved.note_span(&watched, true);
        assert_eq!(starved.bound(), Bound::Machine);
        let mut busy = after(0, 0);
        busy.load_before = Some(3.0);
        assert!(busy.warnings()[0].contains("load average 3.00 on 2 CPUs"));
    }
}
