//! A worker: one thread, one poll, its share of every group's clients.
//!
//! Client `i` of a group belongs to worker `i % workers`. Workers share nothing but [`Control`]; what
//! they measured goes to the conductor each second, what they verified at the end.

mod client;
mod connecting;
mod context;
mod io;
mod pace;
mod publishing;
mod results;
mod subscribing;

pub use context::Context;
pub use results::{Results, sent_in_stream, settle_shared};

use crate::control::{Control, Phase};
use crate::measure::Meters;
use crate::measure::host::{self, ThreadUse};
use crate::plan::{Finish, Pace, Plan, Reading};
use client::{Client, Stage};
use connecting::Connecting;
use crossbeam_channel::{Receiver, Sender};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use pace::Schedule;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
/// Bytes read from a socket at once.
const READ_BYTES: usize = 256 * 1024;
const SECOND_NS: u64 = 1_000_000_000;
/// Longest sleep, so that phases and seconds are noticed.
const SLEEP_NS_MAX: u64 = 100_000_000;
/// Below this the poll's milliseconds are too coarse and a timer is set.
const FINE_SLEEP_NS: u64 = 3_000_000;
/// How often it is counted which publishers are done.
const COUNT_NS: u64 = 5_000_000;
/// How often slow readers read.
const SLOW_TICK_NS: u64 = 50_000_000;

/// What a worker measured in one second since the origin.
pub struct Interval {
    /// Which second.
    pub second: u64,
    /// What was measured.
    pub meters: Meters,
}

/// One thread's clients.
pub struct Worker {
    number: u32,
    workers: u32,
    poll: Poll,
    timer: OwnedFd,
    wakeups: Receiver<u32>,
    intervals: Sender<Interval>,
    clients: Vec<Client>,
    /// Local number of each group's first client.
    first_local: Vec<usize>,
    context: Context,
    connecting: Connecting,
    schedules: Vec<Schedule>,
    /// Who says goodbye and comes back when, by group.
    reconnects: Vec<Schedule>,
    /// Thinking publishers, by the time at which they go on.
    thinking: BinaryHeap<Reverse<(u64, usize)>>,
    dirty: Vec<usize>,
    /// Clients whose socket may hold more.
    again: Vec<usize>,
    slow: Vec<usize>,
    next_slow_ns: u64,
    next_ping: usize,
    next_second_ns: u64,
    /// Where within a second of the origin seconds begin.
    second_offset_ns: u64,
    scratch: Vec<u8>,
    start_ns: u64,
    next_count_ns: u64,
    watch: Option<Watch>,
    /// What the thread used while it was watched, and how long that was.
    used: (ThreadUse, Duration),
}

/// The thread when watching it began.
struct Watch {
    began_ns: u64,
    /// What it did not sleep, where the kernel does not say what it ran.
    idle_ns: u64,
    used: Option<ThreadUse>,
}

/// A worker that could not be set up.
fn set_up<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("cannot set up a worker ({what}): {error}"))
}

impl Worker {
    /// Worker `number` of `workers`, and how it is woken.
    pub fn new(
        (number, workers): (u32, u32),
        plan: &Arc<Plan>,
        control: &Arc<Control>,
        wakeups: Receiver<u32>,
        intervals: Sender<Interval>,
    ) -> Result<(Self, Arc<Waker>), String> {
        let poll = set_up("epoll", Poll::new())?;
        let waker = set_up("eventfd", Waker::new(poll.registry(), WAKER))?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = set_up("timerfd", timerfd_create(TimerfdClockId::Monotonic, flags))?;
        let raw = timer.as_raw_fd();
        let registered = poll
            .registry()
            .register(&mut SourceFd(&raw), TIMER, Interest::READABLE);
        set_up("timerfd", registered)?;
        let mut clients = Vec::new();
        let mut first_local = Vec::new();
        for (group, spec) in plan.groups.iter().enumerate() {
            first_local.push(clients.len());
            let indexes = (number..spec.spec.count).step_by(workers as usize);
            clients.extend(indexes.map(|index| Client::new(group as u32, index)));
        }
        let connecting = Connecting::new(plan, clients.len(), workers);
        let worker = Worker {
            number,
            workers,
            poll,
            timer,
            wakeups,
            intervals,
            clients,
            first_local,
            context: Context::new(plan.clone(), control.clone(), (number, workers)),
            connecting,
            schedules: Vec::new(),
            reconnects: Vec::new(),
            thinking: BinaryHeap::new(),
            dirty: Vec::new(),
            again: Vec::new(),
            slow: Vec::new(),
            next_slow_ns: 0,
            next_ping: 0,
            next_second_ns: SECOND_NS,
            second_offset_ns: 0,
            scratch: vec![0; READ_BYTES],
            start_ns: u64::MAX,
            next_count_ns: 0,
            watch: None,
            used: (ThreadUse::default(), Duration::ZERO),
        };
        Ok((worker, Arc::new(waker)))
    }

    /// Runs until the conductor finishes the run; hands in what was verified.
    pub fn run(mut self) -> Results {
        let mut events = Events::with_capacity(1024);
        self.start_watch();
        while self.context.phase != Phase::Finish {
            self.follow_phase();
            self.follow_storm();
            self.follow_leave();
            self.reconnect_due();
            self.follow_probe();
            self.connect_due();
            self.publish_due();
            self.read_again();
            self.read_slow();
            self.flush_dirty();
            let now = self.context.control.now_ns();
            self.each_second(now);
            self.report(now);
            if let Err(error) = self.wait(&mut events, now) {
                let control = &self.context.control;
                control.fail(format!("cannot wait for sockets: {error}"));
                break;
            }
            self.handle_events(&events);
        }
        self.finish()
    }

    fn wait(&mut self, events: &mut Events, now: u64) -> std::io::Result<()> {
        let mut sleep = SLEEP_NS_MAX.min(self.next_second_ns.saturating_sub(now));
        if self.context.phase >= Phase::Publish {
            sleep = sleep.min(COUNT_NS);
        }
        if !self.again.is_empty() || !self.context.unblocked.is_empty() {
            sleep = 0;
        }
        if let Some(due) = self.next_due_ns() {
            sleep = sleep.min(due.saturating_sub(now));
        }
        let mut timeout = Duration::from_millis(sleep / 1_000_000);
        if sleep > 0 && sleep < FINE_SLEEP_NS {
            self.set_timer(sleep);
            timeout = Duration::from_millis(FINE_SLEEP_NS / 1_000_000);
        }
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        if sleep > 0
            && let Some(watch) = &mut self.watch
        {
            watch.idle_ns += self.context.control.now_ns() - now;
        }
        Ok(())
    }

    fn start_watch(&mut self) {
        self.watch = Some(Watch {
            began_ns: self.context.control.now_ns(),
            idle_ns: 0,
            used: host::this_thread(),
        });
    }

    /// Notes what the thread ran and waited for since the watch began.
    fn stop_watch(&mut self) {
        let Some(watch) = self.watch.take() else {
            return;
        };
        let elapsed = self.context.control.now_ns().saturating_sub(watch.began_ns);
        let used = match (watch.used, host::this_thread()) {
            (Some(before), Some(after)) => after.since(before),
            _ => ThreadUse {
                ran: Duration::from_nanos(elapsed.saturating_sub(watch.idle_ns)),
                waited: Duration::ZERO,
            },
        };
        self.used = (used, Duration::from_nanos(elapsed));
    }

    fn set_timer(&self, ns: u64) {
        let spec = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: ns as _,
            },
        };
        // Without the timer the poll's own timeout still ends the sleep.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
    }

    fn next_due_ns(&self) -> Option<u64> {
        let both = self.schedules.iter().chain(&self.reconnects);
        let schedules = both.filter_map(Schedule::next_ns);
        let scheduled = (self.context.phase == Phase::Publish)
            .then(|| schedules.min().map(|ns| ns + self.start_ns))
            .flatten();
        let thinking = self.thinking.peek().map(|Reverse((ns, _))| *ns);
        let slow = (!self.slow.is_empty()).then_some(self.next_slow_ns);
        let connect = self.connecting.next_ns();
        [scheduled, thinking, slow, connect]
            .into_iter()
            .flatten()
            .min()
    }

    fn follow_phase(&mut self) {
        let phase = self.context.control.phase();
        if phase == self.context.phase {
            return;
        }
        if self.context.phase == Phase::Publish {
            // What fell due since the last look still goes, or is counted as unsent.
            self.follow_schedules();
        }
        self.context.phase = phase;
        self.next_count_ns = 0;
        match phase {
            Phase::Publish => self.begin_publishing(),
            Phase::Drain => self.schedules.clear(),
            Phase::Replay => {
                self.subscribe_late();
                self.come_back();
            }
            Phase::Clear => {
                self.stop_watch();
                self.clear_retained();
            }
            Phase::Connect => self.connecting.begin(self.context.control.now_ns()),
            Phase::Wait | Phase::Finish => {}
        }
    }

    fn begin_publishing(&mut self) {
        let control = self.context.control.clone();
        let plan = self.context.plan.clone();
        self.start_ns = control.start_ns.load(Ordering::Acquire);
        self.start_watch();
        self.context.start_ns = self.start_ns;
        self.context.measure_from_ns = control.measure_from_ns.load(Ordering::Acquire);
        // From here on seconds begin with the measurement, so that its first one is a whole one.
        self.send_interval();
        self.second_offset_ns = self.context.measure_from_ns % SECOND_NS;
        self.next_second_ns = self.second_end_ns(control.now_ns());
        let rounds_max = match plan.settings.finish {
            Finish::Messages(messages) => messages,
            Finish::After(_) => u32::MAX,
        };
        for (number, group) in plan.groups.iter().enumerate() {
            let (spec, count) = (&group.spec, group.spec.count);
            match spec.publish.as_ref().map(|publish| publish.pace) {
                Some(Pace::Rate(rate)) => self.schedules.push(Schedule::new(
                    number as u32,
                    count,
                    rate,
                    (self.number, self.workers),
                    rounds_max,
                )),
                Some(Pace::Think(pause)) => self.begin_thinking(number, count, pause),
                Some(Pace::Window(_)) => {
                    let begin = |local| Reverse((self.start_ns, local));
                    let locals = self.locals(number);
                    self.thinking.extend(locals.map(begin));
                }
                None => {}
            }
            if let Some(rate) = spec.reconnect_rate {
                let share = (self.number, self.workers);
                let reconnects = Schedule::new(number as u32, count, rate, share, u32::MAX);
                self.reconnects.push(reconnects);
            }
            if let Reading::Slow(_) = spec.reading {
                self.slow.extend(self.locals(number));
            }
        }
    }

    /// Thinking publishers begin spread over their think time.
    fn begin_thinking(&mut self, group: usize, count: u32, pause: Duration) {
        for local in self.locals(group) {
            let client = &mut self.clients[local];
            let share = pause.mul_f64(f64::from(client.index) / f64::from(count));
            let resumes_ns = self.start_ns + share.as_nanos() as u64;
            if let Some(publishing) = &mut client.publishing {
                publishing.resumes_ns = resumes_ns;
            }
            self.thinking.push(Reverse((resumes_ns, local)));
        }
    }

    /// The clients of a group that are this worker's.
    fn locals(&self, group: usize) -> std::ops::Range<usize> {
        let end = self.first_local.get(group + 1).copied();
        self.first_local[group]..end.unwrap_or(self.clients.len())
    }

    fn publish_due(&mut self) {
        while let Ok(publisher) = self.wakeups.try_recv() {
            self.context.unblocked.push(publisher);
        }
        if self.context.phase == Phase::Publish {
            self.follow_schedules();
            let now = self.context.control.now_ns();
            while let Some(Reverse((due, local))) = self.thinking.peek().copied() {
                if due > now {
                    break;
                }
                self.thinking.pop();
                self.publish(local);
            }
        }
        let mut unblocked = std::mem::take(&mut self.context.unblocked);
        for publisher in unblocked.drain(..) {
            self.unblock(publisher);
        }
        self.context.unblocked = unblocked;
    }

    fn unblock(&mut self, publisher: u32) {
        let plan = self.context.plan.clone();
        let group = plan.publishers[publisher as usize].group as usize;
        let index = publisher - plan.groups[group].first_publisher;
        let local = self.first_local[group] + (index / self.workers) as usize;
        let pace = plan.groups[group].spec.publish.as_ref().map(|p| p.pace);
        if let Some(Pace::Think(pause)) = pace
            && self.context.phase == Phase::Publish
            && let Some(publishing) = &mut self.clients[local].publishing
        {
            let now = self.context.control.now_ns();
            if self.context.control.has_room(publisher, publishing.sent, 1)
                && publishing.resumes_ns <= now
            {
                publishing.resumes_ns = now + pause.as_nanos() as u64;
                let resumes_ns = publishing.resumes_ns;
                self.thinking.push(Reverse((resumes_ns, local)));
            }
            return;
        }
        self.publish(local);
    }

    /// Nothing of the open loop is due from then on.
    fn publishing_end_ns(&self) -> u64 {
        match self.context.plan.settings.finish {
            Finish::After(duration) => self.start_ns + duration.as_nanos() as u64,
            Finish::Messages(_) => u64::MAX,
        }
    }

    fn follow_schedules(&mut self) {
        let now = self.context.control.now_ns();
        let end_ns = self.publishing_end_ns();
        let mut schedules = std::mem::take(&mut self.schedules);
        for schedule in &mut schedules {
            while let Some(offset) = schedule.next_ns() {
                let due = self.start_ns + offset;
                if due > now || due >= end_ns {
                    break;
                }
                let index = schedule.take();
                let group = schedule.group as usize;
                let local = self.first_local[group] + (index / self.workers) as usize;
                self.schedule(local, due, now);
            }
        }
        schedules.retain(|s| s.next_ns().is_some_and(|ns| self.start_ns + ns < end_ns));
        self.schedules = schedules;
    }

    fn schedule(&mut self, local: usize, due: u64, now: u64) {
        let Some(publishing) = &mut self.clients[local].publishing else {
            return;
        };
        let had_backlog = publishing.unsent() > 0;
        publishing.scheduled += 1;
        if !had_backlog && due >= self.context.measure_from_ns {
            let lag = now.saturating_sub(due);
            self.context
                .meters
                .record(crate::measure::Measure::Lag, lag);
        }
        self.publish(local);
    }

    /// Lets a publisher send what it may.
    fn publish(&mut self, local: usize) {
        let plan = self.context.plan.clone();
        let client = &mut self.clients[local];
        let group = &plan.groups[client.group as usize];
        let (Some(publishing), Some(connection), Some(spec)) = (
            &mut client.publishing,
            &mut client.connection,
            &group.spec.publish,
        ) else {
            return;
        };
        if client.stage != Stage::Ready {
            return;
        }
        let slot = (client.index, group.spec.count);
        match self.context.phase {
            Phase::Publish => publishing.send_due(spec, slot, connection, &mut self.context),
            Phase::Clear if spec.is_retained => {
                publishing.clear_due(spec, connection, &mut self.context);
            }
            _ => {}
        }
        self.mark_dirty(local);
    }

    fn mark_dirty(&mut self, local: usize) {
        let client = &mut self.clients[local];
        let wants_write = client.connection.as_ref().is_some_and(|c| c.wants_write());
        if wants_write && !client.is_dirty && !client.awaits_writable {
            client.is_dirty = true;
            self.dirty.push(local);
        }
    }

    fn subscribe_late(&mut self) {
        for local in 0..self.clients.len() {
            let client = &self.clients[local];
            let is_late = client.subscribing.as_ref().is_some_and(|s| s.is_late);
            if is_late && client.stage == Stage::Ready {
                self.subscribe(local);
            }
        }
    }

    fn clear_retained(&mut self) {
        for local in 0..self.clients.len() {
            if self.clients[local].publishing.is_some() {
                self.publish(local);
            }
        }
    }

    fn each_second(&mut self, now: u64) {
        if now < self.next_second_ns {
            return;
        }
        self.send_interval();
        self.next_second_ns = self.second_end_ns(now);
        self.ping();
    }

    fn second_end_ns(&self, now: u64) -> u64 {
        let within = now.saturating_sub(self.second_offset_ns);
        (within / SECOND_NS + 1) * SECOND_NS + self.second_offset_ns
    }

    fn send_interval(&mut self) {
        if !self.context.meters.is_empty() {
            let interval = Interval {
                second: (self.next_second_ns - self.second_offset_ns) / SECOND_NS - 1,
                meters: std::mem::take(&mut self.context.meters),
            };
            // The conductor may have given up; then nobody wants it.
            let _ = self.intervals.send(interval);
        }
    }

    /// Sends PINGREQ to a slice of the clients, so that each has its turn within its keep alive.
    fn ping(&mut self) {
        let keep_alive_s = usize::from(self.context.plan.settings.keep_alive_s);
        if keep_alive_s == 0 || self.clients.is_empty() {
            return;
        }
        let slice = self.clients.len().div_ceil((keep_alive_s / 2).max(1));
        for _ in 0..slice {
            let local = self.next_ping % self.clients.len();
            self.next_ping = local + 1;
            let client = &mut self.clients[local];
            if client.stage == Stage::Ready
                && let Some(connection) = &mut client.connection
            {
                connection
                    .outgoing()
                    .extend_from_slice(&crate::codec::PINGREQ);
                self.mark_dirty(local);
            }
        }
    }

    /// Asks the broker, once, on every connection that is read, whether it still answers.
    fn follow_probe(&mut self) {
        let control = self.context.control.clone();
        let gauges = &control.gauges[self.number as usize];
        if !control.probe.load(Ordering::Acquire) || gauges.has_probed.load(Ordering::Relaxed) {
            return;
        }
        let plan = self.context.plan.clone();
        for local in 0..self.clients.len() {
            let client = &mut self.clients[local];
            let reads = plan.groups[client.group as usize].spec.reading == Reading::Fast;
            if client.stage == Stage::Ready
                && reads
                && let Some(connection) = &mut client.connection
            {
                let ping = &crate::codec::PINGREQ;
                connection.outgoing().extend_from_slice(ping);
                client.is_probed = true;
                gauges.probed.fetch_add(1, Ordering::Relaxed);
                self.mark_dirty(local);
            }
        }
        gauges.has_probed.store(true, Ordering::Release);
    }

    /// Tells the conductor how things stand.
    fn report(&mut self, now: u64) {
        let gauges = &self.context.control.gauges[self.number as usize];
        let context = &self.context;
        gauges.owed.store(context.owed, Ordering::Relaxed);
        gauges.delivered.store(context.delivered, Ordering::Relaxed);
        gauges.replayed.store(context.replayed, Ordering::Relaxed);
        gauges.ready.store(self.connecting.ready, Ordering::Relaxed);
        gauges
            .failed
            .store(self.connecting.failed, Ordering::Relaxed);
        gauges.away.store(self.connecting.away, Ordering::Relaxed);
        let warmup = (context.warmup_owed, context.warmup_delivered);
        gauges.warmup_owed.store(warmup.0, Ordering::Relaxed);
        gauges.warmup_delivered.store(warmup.1, Ordering::Relaxed);
        gauges.answered.store(context.answered, Ordering::Relaxed);
        gauges.progress.store(context.progress, Ordering::Relaxed);
        if now >= self.next_count_ns {
            self.next_count_ns = now + COUNT_NS;
            let publishing = self.clients.iter().filter(|client| {
                let group = &context.plan.groups[client.group as usize].spec;
                match (&client.publishing, &group.publish) {
                    (Some(publishing), Some(spec)) => !publishing.is_done(spec, context),
                    _ => false,
                }
            });
            gauges.count_publishing(publishing.count() as u64, context.phase);
        }
    }
}
