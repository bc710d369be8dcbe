//! The conductor: takes a run through its phases, gives up when nothing moves, gathers what was found.

use crate::control::{Control, Gauges, Phase};
use crate::limits::{self, Limits};
use crate::measure::Meters;
use crate::measure::host::{self, Broker};
use crate::outcome::{End, Outcome, Owed, Second, Span};
use crate::plan::{Finish, Plan};
use crate::worker::{Interval, Results, Worker, sent_in_stream, settle_shared};
use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the conductor looks.
const LOOK: Duration = Duration::from_millis(5);
/// How long what is on its way may take to arrive when somebody stops the run.
const ARRIVE_MAX: Duration = Duration::from_secs(2);
/// How long the broker may take to answer a ping before it counts as standing still.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Descriptors that are not clients.
const DESCRIPTORS_SPARE: u64 = 64;

/// Who is told of each second: what it held, and of what second it is of the load.
pub type Observer<'a> = &'a mut dyn FnMut(&Second);

/// What a run is told from outside.
pub struct Surroundings<'a> {
    /// The broker, if its use of the machine is watched.
    pub broker: Option<&'a Broker>,
    /// Whether somebody wants the run to stop.
    pub interrupt: &'a AtomicBool,
    /// Hears of each second.
    pub observer: Observer<'a>,
    /// Asked before clients connect and before they publish; false stops the run.
    pub gate: Option<&'a mut dyn FnMut() -> bool>,
}

/// Why a run stops before its end.
enum Stop {
    Interrupted,
    Failed(String),
}

/// Runs a plan to its end. A run that cannot go on has an outcome, too: what it found until then.
///
/// # Errors
/// A message that names what went wrong before there was a run: limits, or threads.
pub fn run(plan: Plan, surroundings: Surroundings<'_>) -> Result<Outcome, String> {
    raise_descriptor_limit(u64::from(plan.clients()) + DESCRIPTORS_SPARE)?;
    if let Some(broker) = surroundings.broker {
        broker.usage()?;
    }
    let load_before = host::load_average();
    let began_unix_s = crate::report::unix_s();
    let threads = plan.settings.threads.clamp(1, plan.clients().max(1));
    let plan = Arc::new(plan);
    let control = Arc::new(Control::new(&plan, threads as usize));
    let (intervals, received) = unbounded();
    let handles = start_workers(&plan, &control, threads, &intervals)?;
    drop(intervals);
    let mut conductor = Conductor {
        plan: plan.clone(),
        control: control.clone(),
        surroundings,
        received,
        seconds: BTreeMap::new(),
        total: Meters::default(),
        open: Vec::new(),
        spans: Vec::new(),
        end: End::default(),
        clients_in: 0,
        replay: (0, 0),
        load_second: None,
        last_progress: (0, Instant::now()),
    };
    conductor.conduct_to_some_end();
    control.enter(Phase::Finish);
    let mut results = Vec::new();
    for handle in handles {
        results.push(handle.join().map_err(|_| "a worker panicked".to_owned())?);
    }
    conductor.take_seconds(u64::MAX);
    let mut outcome = conductor.outcome(results);
    outcome.began_unix_s = began_unix_s;
    outcome.limits.load_before = load_before;
    outcome.limits.load_after = host::load_average();
    limits::complete(&mut outcome);
    Ok(outcome)
}

fn start_workers(
    plan: &Arc<Plan>,
    control: &Arc<Control>,
    threads: u32,
    intervals: &Sender<Interval>,
) -> Result<Vec<JoinHandle<Results>>, String> {
    let mut wakers = Vec::new();
    let mut workers = Vec::new();
    for number in 0..threads {
        let (wakeup, wakeups) = unbounded();
        let place = (number, threads);
        let (worker, waker) = Worker::new(place, plan, control, wakeups, intervals.clone())?;
        wakers.push((waker, wakeup));
        workers.push(worker);
    }
    control.set_wakers(wakers);
    let started = workers.into_iter().enumerate().map(|(number, worker)| {
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || worker.run())
            .map_err(|error| format!("cannot start a thread: {error}"))
    });
    started.collect()
}

/// Asks for as many descriptors as the clients need.
fn raise_descriptor_limit(needed: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let within_hard = limit.maximum.is_none_or(|hard| hard >= needed);
    let maximum = if within_hard {
        limit.maximum
    } else {
        Some(needed)
    };
    let raised = Rlimit {
        current: Some(needed),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|_| {
        let hard = limit.maximum.unwrap_or(0);
        format!(
            "{needed} open files are needed but {hard} are allowed; raise the limit (ulimit -Hn)"
        )
    })
}

struct Conductor<'a> {
    plan: Arc<Plan>,
    control: Arc<Control>,
    surroundings: Surroundings<'a>,
    received: Receiver<Interval>,
    seconds: BTreeMap<u64, Meters>,
    total: Meters,
    /// Parts of the run that have begun.
    open: Vec<Mark>,
    spans: Vec<Span>,
    end: End,
    clients_in: u64,
    replay: (u64, u64),
    load_second: Option<u64>,
    last_progress: (u64, Instant),
}

/// The state of the machine when a span begins.
struct Mark {
    name: &'static str,
    began: Instant,
    broker: Option<host::Use>,
    own_cpu: Duration,
    machine: Option<host::MachineUse>,
    throttled: Option<Duration>,
}

impl Conductor<'_> {
    fn conduct_to_some_end(&mut self) {
        match self.conduct() {
            Ok(()) => {}
            Err(Stop::Failed(why)) => self.end.failure = Some(why),
            Err(Stop::Interrupted) => {
                self.end.is_interrupted = true;
                self.let_arrive();
            }
        }
        let last = self.last_progress.1;
        for name in self.open.iter().map(|mark| mark.name).collect::<Vec<_>>() {
            self.close(name, Some(last));
        }
    }

    /// What is on its way when somebody stops the run is not lost: it gets a moment to arrive.
    fn let_arrive(&mut self) {
        if self.control.phase() != Phase::Publish {
            return;
        }
        self.control.enter(Phase::Drain);
        let until = Instant::now() + ARRIVE_MAX.min(self.plan.settings.patience);
        while Instant::now() < until && !self.is_drained() {
            thread::sleep(LOOK);
            if self.control.failure().is_some() {
                break;
            }
        }
    }

    fn conduct(&mut self) -> Result<(), Stop> {
        let settings = self.plan.settings.clone();
        self.pass_gate()?;
        self.control.enter(Phase::Connect);
        self.mark("connect");
        self.connect()?;
        self.close("connect", None);
        if !settings.hold.is_zero() {
            self.mark("hold");
            self.sleep_until(Instant::now() + settings.hold)?;
            self.close("hold", None);
        }
        if self.plan.away() > 0 {
            self.leave()?;
        }
        if !self.plan.publishers.is_empty() {
            self.pass_gate()?;
            self.publish()?;
        }
        if let Some(command) = &settings.command {
            self.mark("command");
            self.run_command(command)?;
            self.close("command", None);
        }
        if self.plan.has_late_subscribers() || self.plan.away() > 0 {
            self.replay()?;
        }
        if settings.clears_retained {
            self.control.enter(Phase::Clear);
            self.wait("removing retained messages", |c| {
                c.control.is_publishing_over()
            })?;
        }
        Ok(())
    }

    fn pass_gate(&mut self) -> Result<(), Stop> {
        let gate = self.surroundings.gate.as_mut();
        let may_pass = gate.is_none_or(|gate| gate());
        may_pass.then_some(()).ok_or(Stop::Interrupted)
    }

    fn connect(&mut self) -> Result<(), Stop> {
        let wanted = u64::from(self.plan.clients());
        let all_in = self.wait("connecting", |c| {
            c.clients_in = c.control.sum(|g| &g.ready);
            c.clients_in + c.control.sum(|g| &g.failed) >= wanted
        })?;
        if !all_in && !self.plan.settings.tolerates_failures {
            let target = &self.plan.settings.target.text;
            return Err(Stop::Failed(format!(
                "{target} let {} of {wanted} clients in, then nothing came for {:?}",
                self.clients_in, self.plan.settings.patience
            )));
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), Stop> {
        let settings = self.plan.settings.clone();
        let lead = Duration::from_millis(20);
        let start = Instant::now() + lead;
        let start_ns = self.control.now_ns() + lead.as_nanos() as u64;
        let measure_from_ns = start_ns + settings.warmup.as_nanos() as u64;
        self.load_second = Some(measure_from_ns / 1_000_000_000);
        self.control.start_ns.store(start_ns, Ordering::Release);
        let measure_from = &self.control.measure_from_ns;
        measure_from.store(measure_from_ns, Ordering::Release);
        self.control.enter(Phase::Publish);
        self.sleep_until(start + settings.warmup)?;
        self.mark("load");
        if let Some(storm) = settings.storm {
            self.sleep_until(start + storm.after)?;
            self.storm(storm.settle)?;
        } else {
            let end = match settings.finish {
                Finish::After(duration) => Some(start + duration),
                Finish::Messages(_) => None,
            };
            self.wait("publishing", |c| match end {
                Some(end) => Instant::now() >= end,
                None => c.control.is_publishing_over(),
            })?;
        }
        self.control.enter(Phase::Drain);
        self.drain()?;
        let last = self.last_progress.1;
        self.close("load", Some(last));
        Ok(())
    }

    /// Waits for what is on its way. Where the broker still answers, what does not come is lost: that is
    /// a result, and no reason to give up.
    fn drain(&mut self) -> Result<(), Stop> {
        let had_given_up = self.end.gave_up.is_some();
        if self.wait("draining", |c| c.is_drained())? || had_given_up {
            return Ok(());
        }
        if self.end.broker_answers == Some(true) && self.control.is_publishing_over() {
            self.end.gave_up = None;
        }
        Ok(())
    }

    fn is_drained(&self) -> bool {
        self.control.is_publishing_over()
            && self.control.sum(|g| &g.delivered) >= self.control.sum(|g| &g.owed)
    }

    /// Whether the broker answers every client that asks.
    fn broker_answers(&mut self) -> Result<bool, Stop> {
        self.control.probe.store(true, Ordering::Release);
        self.control.wake();
        let until = Instant::now() + ANSWER_MAX.min(self.plan.settings.patience);
        while Instant::now() < until {
            self.look()?;
            let mut gauges = self.control.gauges.iter();
            let have_asked = gauges.all(|g| g.has_probed.load(Ordering::Acquire));
            let asked = self.control.sum(|g| &g.probed);
            if have_asked && asked > 0 && self.control.sum(|g| &g.answered) >= asked {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn storm(&mut self, settle: Duration) -> Result<(), Stop> {
        self.mark("storm");
        self.control.storm.store(true, Ordering::Release);
        // Workers notice within their longest sleep.
        self.sleep_until(Instant::now() + Duration::from_millis(200))?;
        let patience = self.plan.settings.patience;
        let mut seen = (self.control.sum(|g| &g.away), Instant::now());
        while seen.0 > 0 {
            self.look()?;
            let away = self.control.sum(|g| &g.away);
            if away != seen.0 {
                seen = (away, Instant::now());
            } else if seen.1.elapsed() > patience {
                self.end.gave_up = Some(format!("{away} clients did not come back from the storm"));
                break;
            }
        }
        self.close("storm", None);
        self.sleep_until(Instant::now() + settle)
    }

    fn leave(&mut self) -> Result<(), Stop> {
        let wanted = u64::from(self.plan.away());
        self.control.leave.store(true, Ordering::Release);
        self.control.wake();
        let all_gone = self.wait("leaving", |c| c.control.sum(|g| &g.away) >= wanted)?;
        let lost = || Stop::Failed("clients were lost before they could leave".into());
        all_gone.then_some(()).ok_or_else(lost)
    }

    /// Runs the command of a restart, for as long as it takes.
    fn run_command(&mut self, command: &str) -> Result<(), Stop> {
        let failed =
            |error: std::io::Error| Stop::Failed(format!("cannot run `{command}`: {error}"));
        let mut shell = Command::new("/bin/sh");
        // What it prints has no place in the result.
        let spawned = shell
            .args(["-c", command])
            .stdout(std::io::stderr())
            .spawn();
        let mut child = spawned.map_err(failed)?;
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                let why = || Stop::Failed(format!("`{command}` ended with {status}"));
                return status.success().then_some(()).ok_or_else(why);
            }
            self.look()?;
        }
    }

    /// What was sent to those who were away.
    fn sent_to_away(&self) -> u64 {
        let mut sent = 0;
        for group in self.plan.groups.iter().filter(|g| g.spec.is_away) {
            for index in 0..group.spec.count {
                let streams = group.sources(index);
                let each = streams
                    .iter()
                    .map(|s| sent_in_stream(&self.plan, &self.control, s));
                sent += each.map(u64::from).sum::<u64>();
            }
        }
        sent
    }

    fn replay(&mut self) -> Result<(), Stop> {
        let mut wanted = self.sent_to_away();
        for group in &self.plan.groups {
            if group.spec.subscribe.as_ref().is_some_and(|s| s.is_late) {
                let each = (0..group.spec.count).map(|index| group.sources(index).len() as u64);
                wanted += each.sum::<u64>();
            }
        }
        self.mark("replay");
        self.replay.0 = wanted;
        self.control.enter(Phase::Replay);
        self.wait("replaying", |c| {
            c.replay.1 = c.control.sum(|g| &g.replayed);
            c.replay.1 >= wanted
        })?;
        let last = self.last_progress.1;
        self.close("replay", Some(last));
        Ok(())
    }

    /// Waits until `is_over`; false when nothing moved for the patience.
    fn wait(&mut self, what: &str, is_over: impl Fn(&mut Self) -> bool) -> Result<bool, Stop> {
        let settings = &self.plan.settings;
        let per_connect = settings.connect_rate.map_or(0.0, |rate| 2.0 / rate);
        let per_message = self.plan.rate().map_or(0.0, |rate| 2.0 / rate);
        let slowest = Duration::from_secs_f64(per_connect.max(per_message));
        let patience = settings.patience.max(slowest);
        self.last_progress.1 = Instant::now();
        while !is_over(self) {
            self.look()?;
            if self.last_progress.1.elapsed() > patience {
                if self.end.gave_up.is_none() {
                    let answers = self.broker_answers()?;
                    let and = if answers {
                        "though it"
                    } else {
                        "and not every connection"
                    };
                    self.end.gave_up = Some(format!(
                        "{what}: nothing moved for {patience:?}, {and} answers pings"
                    ));
                    self.end.broker_answers = Some(answers);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn sleep_until(&mut self, time: Instant) -> Result<(), Stop> {
        while Instant::now() < time {
            self.look()?;
        }
        Ok(())
    }

    /// One look at the workers: failures, progress, finished seconds.
    fn look(&mut self) -> Result<(), Stop> {
        thread::sleep(LOOK);
        if let Some(failure) = self.control.failure() {
            return Err(Stop::Failed(failure));
        }
        if self.surroundings.interrupt.load(Ordering::Relaxed) {
            return Err(Stop::Interrupted);
        }
        let progress = self.control.sum(|g| &g.progress) + self.control.sum(|g| &g.failed);
        if progress != self.last_progress.0 {
            self.last_progress = (progress, Instant::now());
        }
        let now_s = self.control.now_ns() / 1_000_000_000;
        self.take_seconds(now_s.saturating_sub(2));
        Ok(())
    }

    /// Hands on the seconds before `before`, which no worker adds to any more.
    fn take_seconds(&mut self, before: u64) {
        for interval in self.received.try_iter() {
            let meters = self.seconds.entry(interval.second).or_default();
            meters.add(&interval.meters);
        }
        while let Some(entry) = self.seconds.first_entry() {
            if *entry.key() >= before {
                break;
            }
            let (second, meters) = entry.remove_entry();
            self.total.add(&meters);
            (self.surroundings.observer)(&Second { second, meters });
        }
    }

    fn broker_use(&self) -> Option<host::Use> {
        self.surroundings.broker.and_then(|b| b.usage().ok())
    }

    fn mark(&mut self, name: &'static str) {
        self.open.push(Mark {
            name,
            began: Instant::now(),
            broker: self.broker_use(),
            own_cpu: host::own_cpu(),
            machine: host::machine(),
            throttled: host::throttled(),
        });
    }

    fn close(&mut self, name: &str, ended: Option<Instant>) {
        let Some(at) = self.open.iter().position(|mark| mark.name == name) else {
            return;
        };
        let mark = self.open.remove(at);
        let both = mark.broker.zip(self.broker_use());
        let machine = mark.machine.zip(host::machine());
        let throttled = mark.throttled.zip(host::throttled());
        let waits = both.and_then(|(a, b)| a.waited.zip(b.waited));
        let less = |(before, after): (Duration, Duration)| after.saturating_sub(before);
        self.spans.push(Span {
            name: mark.name.to_owned(),
            elapsed: ended
                .unwrap_or_else(Instant::now)
                .saturating_duration_since(mark.began),
            broker_cpu: both.map(|(before, after)| less((before.cpu, after.cpu))),
            broker_waited: waits.map(less),
            broker_resident: both.map(|(a, b)| (a.resident_bytes, b.resident_bytes)),
            own_cpu: host::own_cpu().saturating_sub(mark.own_cpu),
            machine_cpu: machine.map(|(before, after)| less((before.busy, after.busy))),
            stolen: machine.map(|(before, after)| less((before.stolen, after.stolen))),
            throttled: throttled.map(less),
        });
    }

    fn outcome(self, mut results: Vec<Results>) -> Outcome {
        let mut breaches = settle_shared(&self.plan, &self.control, &mut results);
        let mut limits = Limits {
            cpus: host::cpus(),
            ..Limits::default()
        };
        for result in &results {
            for (sum, one) in breaches.iter_mut().zip(result.breaches) {
                *sum += one;
            }
            limits.note_thread(result.used.0, result.used.1);
        }
        let sum = |gauge: fn(&Gauges) -> &AtomicU64| self.control.sum(gauge);
        let (warmup_owed, warmup_came) = (sum(|g| &g.warmup_owed), sum(|g| &g.warmup_delivered));
        Outcome {
            breaches,
            unsent: results.iter().map(|result| result.unsent).sum(),
            owed: Owed {
                owed: sum(|g| &g.owed).saturating_sub(warmup_owed),
                came: sum(|g| &g.delivered).saturating_sub(warmup_came),
                warmup_owed,
                warmup_came,
            },
            lacks_aliases: self.control.lacks_aliases.load(Ordering::Relaxed),
            meters: self.total,
            spans: self.spans,
            replay: self.replay,
            clients_in: self.clients_in,
            limits,
            load_second: self.load_second,
            end: self.end,
            ..Outcome::empty(self.plan)
        }
    }
}
