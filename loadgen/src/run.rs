//! The conductor: takes a run through its phases, gives up when nothing moves, gathers what was found.

use crate::control::{Control, Phase};
use crate::measure::host::{self, Broker};
use crate::measure::{Measure, Meters};
use crate::plan::{Finish, Plan};
use crate::verify::Breaches;
use crate::worker::{Interval, Results, Worker, settle_shared};
use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the conductor looks.
const LOOK: Duration = Duration::from_millis(5);
/// Descriptors that are not clients.
const DESCRIPTORS_SPARE: u64 = 64;

/// CPU time and memory over a part of the run.
#[derive(Clone, Debug)]
pub struct Span {
    /// Which part.
    pub name: &'static str,
    /// How long it took.
    pub elapsed: Duration,
    /// CPU time of the broker, if it is watched.
    pub broker_cpu: Option<Duration>,
    /// The broker's resident bytes at its begin and end.
    pub broker_resident: Option<(u64, u64)>,
    /// CPU time of this process.
    pub own_cpu: Duration,
    /// Busy time of the machine, interrupts included.
    pub machine_cpu: Option<Duration>,
}

/// One second of a run.
#[derive(Clone, Debug)]
pub struct Second {
    /// Since the origin.
    pub second: u64,
    /// What was measured in it.
    pub meters: Meters,
}

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    /// What was to be done.
    pub plan: Arc<Plan>,
    /// Everything measured.
    pub meters: Meters,
    /// By QoS.
    pub breaches: [Breaches; 3],
    /// Parts of the run, in order.
    pub spans: Vec<Span>,
    /// Messages of the schedule that were never sent, for the broker did not take them in time.
    pub unsent: u64,
    /// Deliveries owed and come.
    pub owed: (u64, u64),
    /// Retained messages that should have been replayed and were.
    pub replay: (u64, u64),
    /// Clients that were in at the end of the connect phase.
    pub clients_in: u64,
    /// Busiest worker: share of the load's time that it did not sleep.
    pub busy: f64,
    /// Why the run was ended early, if it was.
    pub gave_up: Option<String>,
}

/// Who is told of each second: what it held, and of what second it is of the load.
pub type Observer<'a> = &'a mut dyn FnMut(&Second);

/// Runs a plan to its end.
///
/// # Errors
/// A message that names what went wrong: limits, the broker's absence or refusal, a client that lost
/// its connection, or clients that did not get in.
pub fn run(plan: Plan, broker: Option<&Broker>, observer: Observer<'_>) -> Result<Outcome, String> {
    raise_descriptor_limit(u64::from(plan.clients()) + DESCRIPTORS_SPARE)?;
    if let Some(broker) = broker {
        broker.usage()?;
    }
    let threads = plan.settings.threads.clamp(1, plan.clients().max(1));
    let plan = Arc::new(plan);
    let control = Arc::new(Control::new(&plan, threads as usize));
    let (intervals, received) = unbounded();
    let handles = start_workers(&plan, &control, threads, &intervals)?;
    drop(intervals);
    let mut conductor = Conductor {
        plan: plan.clone(),
        control: control.clone(),
        broker,
        received,
        seconds: BTreeMap::new(),
        observer,
        total: Meters::default(),
        spans: Vec::new(),
        gave_up: None,
        last_progress: (0, Instant::now()),
    };
    let conducted = conductor.conduct();
    control.enter(Phase::Finish);
    let mut results = Vec::new();
    for handle in handles {
        results.push(handle.join().map_err(|_| "a worker panicked".to_owned())?);
    }
    conductor.take_seconds(u64::MAX);
    let (clients_in, replay) = conducted?;
    Ok(conductor.outcome(results, clients_in, replay))
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
    broker: Option<&'a Broker>,
    received: Receiver<Interval>,
    seconds: BTreeMap<u64, Meters>,
    observer: Observer<'a>,
    total: Meters,
    spans: Vec<Span>,
    gave_up: Option<String>,
    last_progress: (u64, Instant),
}

/// The state of the machine when a span begins.
struct Mark {
    name: &'static str,
    began: Instant,
    broker: Option<host::Use>,
    own_cpu: Duration,
    machine_cpu: Option<Duration>,
}

impl Conductor<'_> {
    fn conduct(&mut self) -> Result<(u64, (u64, u64)), String> {
        let settings = self.plan.settings.clone();
        let mark = self.mark("connect");
        let clients_in = self.connect()?;
        self.close(mark, None);
        if !settings.hold.is_zero() {
            let mark = self.mark("hold");
            self.sleep_until(Instant::now() + settings.hold)?;
            self.close(mark, None);
        }
        if !self.plan.publishers.is_empty() {
            self.publish()?;
        }
        let mut replay = (0, 0);
        if self.plan.has_late_subscribers() {
            replay = self.replay()?;
        }
        if settings.clears_retained {
            self.control.enter(Phase::Clear);
            self.wait("removing retained messages", |c| {
                c.control.is_publishing_over()
            })?;
        }
        Ok((clients_in, replay))
    }

    fn connect(&mut self) -> Result<u64, String> {
        let wanted = u64::from(self.plan.clients());
        let all_in = self.wait("connecting", |c| {
            c.control.sum(|g| &g.ready) + c.control.sum(|g| &g.failed) >= wanted
        })?;
        let ready = self.control.sum(|g| &g.ready);
        if !all_in && !self.plan.settings.tolerates_failures {
            let target = &self.plan.settings.target.text;
            return Err(format!(
                "{target} let {ready} of {wanted} clients in, then nothing came for {:?}",
                self.plan.settings.patience
            ));
        }
        Ok(ready)
    }

    fn publish(&mut self) -> Result<(), String> {
        let settings = self.plan.settings.clone();
        let lead = Duration::from_millis(20);
        let start = Instant::now() + lead;
        let start_ns = self.control.now_ns() + lead.as_nanos() as u64;
        let measure_from_ns = start_ns + settings.warmup.as_nanos() as u64;
        self.control.start_ns.store(start_ns, Ordering::Release);
        let measure_from = &self.control.measure_from_ns;
        measure_from.store(measure_from_ns, Ordering::Release);
        self.control.enter(Phase::Publish);
        self.sleep_until(start + settings.warmup)?;
        let mark = self.mark("load");
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
        self.wait("draining", |c| {
            c.control.is_publishing_over()
                && c.control.sum(|g| &g.delivered) >= c.control.sum(|g| &g.owed)
        })?;
        let last = self.last_progress.1;
        self.close(mark, Some(last));
        Ok(())
    }

    fn storm(&mut self, settle: Duration) -> Result<(), String> {
        let mark = self.mark("storm");
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
                self.gave_up = Some(format!("{away} clients did not come back from the storm"));
                break;
            }
        }
        self.close(mark, None);
        self.sleep_until(Instant::now() + settle)
    }

    fn replay(&mut self) -> Result<(u64, u64), String> {
        let mut wanted = 0;
        for group in &self.plan.groups {
            if group.spec.subscribe.as_ref().is_some_and(|s| s.is_late) {
                let each = (0..group.spec.count).map(|index| group.sources(index).len() as u64);
                wanted += each.sum::<u64>();
            }
        }
        let mark = self.mark("replay");
        self.control.enter(Phase::Replay);
        self.wait("replaying", |c| c.control.sum(|g| &g.replayed) >= wanted)?;
        let last = self.last_progress.1;
        self.close(mark, Some(last));
        Ok((wanted, self.control.sum(|g| &g.replayed)))
    }

    /// Waits until `is_over`; false when nothing moved for the patience.
    fn wait(&mut self, what: &str, is_over: impl Fn(&Self) -> bool) -> Result<bool, String> {
        let settings = &self.plan.settings;
        let per_connect = settings.connect_rate.map_or(0.0, |rate| 2.0 / rate);
        let per_message = self.plan.rate().map_or(0.0, |rate| 2.0 / rate);
        let slowest = Duration::from_secs_f64(per_connect.max(per_message));
        let patience = settings.patience.max(slowest);
        self.last_progress.1 = Instant::now();
        while !is_over(self) {
            self.look()?;
            if self.last_progress.1.elapsed() > patience {
                self.gave_up
                    .get_or_insert(format!("{what}: nothing moved for {patience:?}"));
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn sleep_until(&mut self, time: Instant) -> Result<(), String> {
        while Instant::now() < time {
            self.look()?;
        }
        Ok(())
    }

    /// One look at the workers: failures, progress, finished seconds.
    fn look(&mut self) -> Result<(), String> {
        thread::sleep(LOOK);
        if let Some(failure) = self.control.failure() {
            return Err(failure);
        }
        let progress = self.control.sum(|g| &g.progress) + self.control.sum(|g| &g.failed);
        if progress != self.last_progress.0 {
            self.last_progress = (progress, Instant::now());
        }
        let now_s = self.control.now_ns() / 1_000_000_000;
        self.take_seconds(now_s.saturating_sub(1));
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
            (self.observer)(&Second { second, meters });
        }
    }

    fn mark(&self, name: &'static str) -> Mark {
        Mark {
            name,
            began: Instant::now(),
            broker: self.broker.and_then(|broker| broker.usage().ok()),
            own_cpu: host::own_cpu(),
            machine_cpu: host::machine_cpu(),
        }
    }

    fn close(&mut self, mark: Mark, ended: Option<Instant>) {
        let broker = self.broker.and_then(|broker| broker.usage().ok());
        let both = mark.broker.zip(broker);
        let machine = mark.machine_cpu.zip(host::machine_cpu());
        self.spans.push(Span {
            name: mark.name,
            elapsed: ended
                .unwrap_or_else(Instant::now)
                .saturating_duration_since(mark.began),
            broker_cpu: both.map(|(before, after)| after.cpu.saturating_sub(before.cpu)),
            broker_resident: both.map(|(a, b)| (a.resident_bytes, b.resident_bytes)),
            own_cpu: host::own_cpu().saturating_sub(mark.own_cpu),
            machine_cpu: machine.map(|(before, after)| after.saturating_sub(before)),
        });
    }

    fn outcome(self, mut results: Vec<Results>, clients_in: u64, replay: (u64, u64)) -> Outcome {
        let mut breaches = settle_shared(&self.plan, &self.control, &mut results);
        for result in &results {
            for (sum, one) in breaches.iter_mut().zip(result.breaches) {
                *sum += one;
            }
        }
        Outcome {
            breaches,
            unsent: results.iter().map(|result| result.unsent).sum(),
            busy: results.iter().map(|result| result.busy).fold(0.0, f64::max),
            owed: (
                self.control.sum(|g| &g.owed),
                self.control.sum(|g| &g.delivered),
            ),
            plan: self.plan,
            meters: self.total,
            spans: self.spans,
            replay,
            clients_in,
            gave_up: self.gave_up,
        }
    }
}

impl Outcome {
    /// A part of the run by its name.
    pub fn span(&self, name: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.name == name)
    }

    /// The part that the scenario is about.
    pub fn main_span(&self) -> Option<&Span> {
        let by_name = |name| self.span(name);
        by_name("replay")
            .or_else(|| by_name("load"))
            .or_else(|| by_name("connect"))
    }

    /// Whether nothing was seen that the QoS forbids and the run came to its end.
    pub fn is_clean(&self) -> bool {
        let forbids_loss = self.plan.settings.forbids_loss;
        let mut by_qos = self.breaches.iter().enumerate();
        by_qos.all(|(qos, breaches)| breaches.are_allowed(qos, forbids_loss))
            && self.meters.counts.refused == 0
            && !self.is_incomplete()
    }

    /// Whether clients were lost or what was to be measured did not happen.
    pub fn is_incomplete(&self) -> bool {
        let clients = u64::from(self.plan.clients());
        let loses_only_qos_0 = !self.plan.settings.forbids_loss
            && self.breaches[1].lost == 0
            && self.breaches[2].lost == 0;
        let is_storm_over = self.plan.settings.storm.is_none() || self.gave_up.is_none();
        self.clients_in < clients
            || self.replay.0 != self.replay.1
            || !is_storm_over
            || (self.gave_up.is_some() && !loses_only_qos_0)
            || (self.owed.0 > 0 && self.owed.1 == 0)
    }

    /// Messages per second that a count over the main part makes.
    pub fn per_second(&self, count: u64) -> f64 {
        let elapsed = self.main_span().map_or(0.0, |s| s.elapsed.as_secs_f64());
        count as f64 / elapsed.max(1e-9)
    }

    /// The quantile of a latency in ns.
    pub fn quantile_ns(&self, measure: Measure, quantile: f64) -> Option<u64> {
        let histogram = self.meters.latency(measure)?;
        Some(histogram.value_at_quantile(quantile))
    }
}

/// A worker that sleeps less than this share of the time may be what limits the run.
const BUSY_MAX: f64 = 0.95;
/// Publishes that leave later than this by the generator's own fault spoil its latencies.
const LAG_NS_MAX: u64 = 5_000_000;

/// Whether the generator, not the broker, was what limited the run.
pub fn is_generator_bound(outcome: &Outcome) -> bool {
    let lag = outcome.quantile_ns(Measure::Lag, 0.99).unwrap_or(0);
    outcome.busy > BUSY_MAX || lag > LAG_NS_MAX
}
