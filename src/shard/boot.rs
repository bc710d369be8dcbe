//! Starting the shards, each on its CPU, and stopping them in order.
//!
//! A stop has two steps, so that wills reach those who are still there: every shard first publishes
//! them and makes them visible, only then clients are told and closed.

use crate::engine::access::acl::Acl;
use crate::engine::access::bans::BannedNames;
use crate::engine::keys::ShardId;
use crate::engine::route::retained::Budget;
use crate::engine::shard::{ConnectionCounts, Settings, ShardCore};
use crate::engine::time::Timestamp;
use crate::shard::account::Entry;
use crate::shard::addresses::{Addresses, Connecting};
use crate::shard::bans::BannedNetworks;
use crate::shard::bridge::Parcel;
use crate::shard::driver::{LogWay, Shell, Start};
use crate::shard::inquiries::Inquiry;
use crate::shard::listener::{Listener, ListenerSetup};
use crate::shard::mailbox::Mailboxes;
use crate::shard::meter::ProcessMeter;
use crate::shard::opening::Opening;
use crate::shard::orders::{Announcements, Event, Order, OrderQueue};
use crate::shard::pulse::Pulse;
use crate::shard::question_queue::Asking;
use crate::shard::questions::Reply;
use crate::shard::recovery::{self, Exchange};
use crate::shard::ring::{Ring, RingConfig, RingError, Waker};
use crate::shard::store::{Store, StoreThread};
use crate::shard::transport::client::TlsSetup;
use crate::storage::directory::{DirectoryError, Taken};
use crate::storage::log::progress::{Progress, StoreFigures};
use crate::storage::log::scan::Torn;
use crate::storage::log::writer::WriterConfig;
use crate::storage::log::writer::wall_ms;
use crate::storage::pipe::{Kept, Pipe, pipes};
use crossbeam_channel::{Receiver, Sender, bounded};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Memory each executor registers for file I/O, which the shards do not use.
const EXECUTOR_IO_BYTES: usize = 128 * 1024;
/// Orders that may wait for a shard.
const ORDERS_MAX: usize = 64;
/// Answers of authentication methods that may wait for a shard; the methods wait beyond that.
const REPLIES_MAX: usize = 1024;
/// How long the executors may take to come up.
const START_MAX: Duration = Duration::from_secs(10);
/// The same where they have to be built anew first.
const RESTORE_MAX: Duration = Duration::from_secs(600);
/// How often orders that found no room are tried again while shards stop.
const ORDERS_INTERVAL: Duration = Duration::from_millis(50);
/// Listeners that may be there beyond those of the start, with those that were removed and have clients left.
const LISTENERS_SPARE: usize = 64;
/// Events that may wait for the control plane.
const EVENTS_MAX: usize = 1024;

/// Why the shards could not start or go on.
#[derive(Debug)]
pub enum BootError {
    /// The executor of a shard could not be made.
    Executor(String),
    /// A shard's ring could not be made, or failed.
    Ring(ShardId, RingError),
    /// These shards do not answer.
    Silent(Vec<ShardId>),
    /// The thread of a shard has ended without a word.
    Vanished(ShardId),
    /// What is kept cannot be read.
    Directory(DirectoryError),
    /// What a shard has kept makes no sense.
    NotRestored(ShardId, String),
    /// The thread that keeps things cannot be made, or has failed.
    Storage(String),
    /// The system gives no random bytes.
    NoRandomness,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Executor(text) => write!(
                f,
                "cannot start a shard's thread: {text}. Raise the limit of threads (`ulimit -u`, \
                 TasksMax=) or of locked memory (`ulimit -l`, LimitMEMLOCK=, 4 MiB per shard)"
            ),
            BootError::Vanished(shard) => write!(
                f,
                "the thread of shard {shard} has ended. Most often the limit of threads (`ulimit -u`, \
                 TasksMax=) or of locked memory (`ulimit -l`, LimitMEMLOCK=, 4 MiB per shard) is too low"
            ),
            BootError::NoRandomness => f.write_str("the system gives no random bytes"),
            BootError::Ring(shard, error) => write!(f, "shard {shard}: {error}"),
            BootError::NotRestored(shard, why) => {
                write!(f, "what shard {shard} has kept cannot be used: {why}")
            }
            BootError::Directory(error) => error.fmt(f),
            BootError::Storage(why) => write!(f, "nothing can be kept: {why}"),
            BootError::Silent(shards) => write!(
                f,
                "shard(s) {shards:?} do not answer. Their CPUs may be taken by others, or a system \
                 call hangs: see `ps -L -o tid,comm,stat,wchan`"
            ),
        }
    }
}

impl std::error::Error for BootError {}

/// Rules in force before the first connection is accepted; orders change them later.
#[derive(Clone)]
pub struct Rules {
    /// What clients may do; everything without.
    pub acl: Option<Arc<Acl>>,
    /// Who is not served, by name.
    pub names: Arc<BannedNames>,
    /// Who is not served, by address.
    pub networks: Arc<BannedNetworks>,
    /// Bits of an IPv6 address by which connections are counted; fixed.
    pub ipv6_prefix_bits: u8,
}

/// CPUs for the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// One per shard.
    pub list: Vec<usize>,
    /// Whether each shard stays on its CPU; else the system places it.
    pub pinned: bool,
}

/// What all shards are started with.
#[derive(Clone)]
struct Common {
    count: ShardId,
    settings: Settings,
    rules: Rules,
    counts: Arc<ConnectionCounts>,
    addresses: Addresses,
    origin: (Instant, u64),
    questions: Asking,
    entries: Sender<Vec<Entry>>,
    meter: ProcessMeter,
    retained: Arc<Budget>,
    events: Sender<Event>,
    /// By which client identifiers are assigned.
    key: [u8; 32],
}

/// Tells that a shard's thread is gone, also if it never came to anything.
struct Farewell {
    id: ShardId,
    events: Sender<Event>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody listens any more when the process ends.
        let _ = self.events.try_send(Event::Vanished(self.id));
    }
}

/// The running shards, as the control plane sees them.
pub struct Shards {
    /// Events of all shards.
    pub events: Receiver<Event>,
    orders: Vec<OrderQueue>,
    replies: Vec<Sender<Reply>>,
    wakers: Vec<Waker>,
    pulses: Vec<Pulse>,
    counts: Arc<ConnectionCounts>,
    handles: Vec<ExecutorJoinHandle<()>>,
    /// The thread that keeps things; it ends when no shard has the way to it.
    storage: Option<StoreThread>,
    restored: usize,
    torn: Option<Torn>,
    /// How far what is kept has got, and beyond how many bytes a shard is behind.
    progress: Option<(Arc<Progress>, u64)>,
}

const fn placement(is_pinned: bool, cpu: usize) -> Placement {
    if is_pinned {
        Placement::Fixed(cpu)
    } else {
        Placement::Unbound
    }
}

impl Shards {
    /// Starts one shard per entry of `cpus`; a CPU may occur more than once.
    ///
    /// # Errors
    /// The first shard that could not start; the process is expected to exit then.
    pub fn start(
        cpus: &Cpus,
        settings: &Settings,
        listeners: Vec<(Listener, ListenerSetup)>,
        rules: &Rules,
        (questions, entries, meter): (&Asking, &Sender<Vec<Entry>>, &ProcessMeter),
        kept: Option<(Taken, WriterConfig)>,
    ) -> Result<Self, BootError> {
        // An executor that the kernel refuses dies in its own thread without a word; this says why.
        drop(Ring::new(&RingConfig::default()).map_err(|error| BootError::Ring(0, error))?);
        let count = cpus.list.len();
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| BootError::NoRandomness)?;
        let (sender, events) = bounded(EVENTS_MAX);
        let mut settings = settings.clone();
        settings.stores = kept.is_some();
        // Some more, for those that come later.
        let of_listeners = settings.listeners.len() + LISTENERS_SPARE;
        let per_address = settings.limits.connections_per_address_max;
        let counts = ConnectionCounts::with_connecting(of_listeners, Arc::<Connecting>::default());
        let common = Common {
            count: count as ShardId,
            settings,
            rules: rules.clone(),
            counts: Arc::new(counts),
            addresses: Addresses::new(per_address, rules.ipv6_prefix_bits),
            origin: (Instant::now(), wall_ms()),
            questions: questions.clone(),
            entries: entries.clone(),
            meter: meter.clone(),
            retained: Arc::default(),
            events: sender,
            key,
        };
        let mut shards = Shards {
            events,
            orders: Vec::new(),
            replies: Vec::new(),
            wakers: Vec::new(),
            pulses: Vec::new(),
            counts: Arc::clone(&common.counts),
            handles: Vec::new(),
            storage: None,
            restored: 0,
            torn: None,
            progress: None,
        };
        let (ways, ends) = pipes(if kept.is_some() { count } else { 0 });
        let mut ends = ends.into_iter().zip(Exchange::of(count));
        let mut meetings = Vec::new();
        let mailboxes =
            Mailboxes::connect(common.count, common.settings.limits.mailbox_letters_max);
        let parts = mailboxes.into_iter().zip(by_shard(count, listeners));
        for (id, ((mailboxes, listeners), &cpu)) in (0..).zip(parts.zip(&cpus.list)) {
            let placement = placement(cpus.pinned, cpu);
            let parts = (mailboxes, listeners, ends.next());
            meetings.push(shards.spawn(common.clone(), id, parts, placement)?);
        }
        let met = Arc::new(OnceLock::new());
        let log = shards.read(kept, ways, common, &met)?;
        shards.wakers = shards.meet(count)?;
        let _ = met.set(shards.wakers.clone());
        for meet in meetings {
            let _ = meet.send((shards.wakers.clone(), log.clone()));
        }
        drop(log);
        shards.await_service()?;
        Ok(shards)
    }

    /// Reads what is kept, if anything is, while the shards play it; then it is gone on with. The way there.
    fn read(
        &mut self,
        kept: Option<(Taken, WriterConfig)>,
        ways: Vec<Pipe>,
        common: Common,
        met: &Arc<OnceLock<Vec<Waker>>>,
    ) -> Result<Option<LogWay>, BootError> {
        let Some((taken, config)) = kept else {
            return Ok(None);
        };
        let opened = taken.read(ways, common.origin.1);
        let opened = opened.map_err(BootError::Directory)?;
        let (count, events) = (common.count, common.events);
        let store = Store::start((opened, config), count, Arc::clone(met), events);
        let store = store.map_err(BootError::Storage)?;
        self.progress = store.progress(&common.settings);
        (self.storage, self.torn) = (store.thread, store.torn);
        Ok(store.way)
    }

    /// Starts one shard's thread; it waits for the wakers of all.
    fn spawn(
        &mut self,
        common: Common,
        id: ShardId,
        (mailboxes, listeners, kept): Parts,
        placement: Placement,
    ) -> Result<Sender<Met>, BootError> {
        let (order_sender, orders) = bounded(ORDERS_MAX);
        let (reply_sender, replies) = bounded(REPLIES_MAX);
        let (meet, meeting) = bounded(1);
        let pulse = Pulse::default();
        self.pulses.push(pulse.clone());
        self.orders.push(OrderQueue::new(order_sender));
        self.replies.push(reply_sender);
        let farewell = Farewell {
            id,
            events: common.events.clone(),
        };
        let handle = LocalExecutorBuilder::new(placement)
            .name(&format!("ringmq-{id}"))
            .io_memory(EXECUTOR_IO_BYTES)
            .spawn(move || async move {
                let _farewell = farewell;
                let Common {
                    count,
                    settings,
                    rules,
                    counts,
                    ..
                } = common;
                // The standard library's hasher is seeded by the system: random enough for hashes.
                let seed = RandomState::new().hash_one(id);
                let memory_max_bytes = settings.limits.memory_max_bytes;
                let mut core = ShardCore::new(id, count, settings, seed, counts);
                let sockets_meter = common.meter.sockets(id);
                core.assign_by(&common.key);
                core.measure_memory(Box::new(common.meter), memory_max_bytes);
                core.begin_with(rules.acl, rules.names);
                core.share_retained(common.retained);
                if let Some(kept) = kept {
                    let origin = Timestamp::from_ms(common.origin.1);
                    if !restore(&mut core, kept, id, origin, &common.events) {
                        return;
                    }
                }
                let start = Start {
                    id,
                    core,
                    mailboxes,
                    listeners,
                    origin: common.origin,
                    log: None,
                    orders,
                    questions: common.questions,
                    replies,
                    entries: common.entries,
                    addresses: common.addresses,
                    banned: rules.networks,
                    events: common.events,
                    sockets_meter,
                    pulse,
                };
                run_shard(start, &meeting);
            })
            .map_err(|error| BootError::Executor(error.to_string()))?;
        self.handles.push(handle);
        Ok(meet)
    }

    /// Waits until every shard has begun to serve.
    fn await_service(&self) -> Result<(), BootError> {
        let by = Instant::now() + START_MAX;
        let mut missing: BTreeSet<_> = (0..).take(self.orders.len()).collect();
        while !missing.is_empty() {
            match self.events.recv_deadline(by) {
                Ok(Event::Serving(id)) => drop(missing.remove(&id)),
                Ok(Event::Failed(id, error)) => return Err(BootError::Ring(id, error)),
                Ok(Event::Vanished(id)) => return Err(BootError::Vanished(id)),
                Ok(_) => {}
                Err(_) => return Err(BootError::Silent(missing.into_iter().collect())),
            }
        }
        Ok(())
    }

    /// The shards' signs of life, by number.
    #[must_use]
    pub fn pulses(&self) -> &[Pulse] {
        &self.pulses
    }

    /// What there is to tell of what is kept; `None` where nothing is.
    #[must_use]
    pub fn store_figures(&self) -> Option<StoreFigures> {
        let (progress, pending_bytes_max) = self.progress.as_ref()?;
        Some(progress.figures(*pending_bytes_max))
    }

    /// Sessions that were taken up from the store.
    #[must_use]
    pub const fn restored(&self) -> usize {
        self.restored
    }

    /// What was cut off of what was kept, because it was never safe.
    #[must_use]
    pub const fn torn(&self) -> Option<Torn> {
        self.torn
    }

    /// Waits until every shard has made its ring.
    fn meet(&mut self, count: usize) -> Result<Vec<Waker>, BootError> {
        let mut wakers = BTreeMap::new();
        let within = self.storage.as_ref().map_or(START_MAX, |_| RESTORE_MAX);
        let by = Instant::now() + within;
        while wakers.len() < count {
            match self.events.recv_deadline(by) {
                Ok(Event::Ready(id, waker)) => {
                    wakers.insert(id, waker);
                }
                Ok(Event::Failed(id, error)) => return Err(BootError::Ring(id, error)),
                Ok(Event::NotRestored(id, why)) => return Err(BootError::NotRestored(id, why)),
                Ok(Event::StorageFailed(why)) => return Err(BootError::Storage(why)),
                Ok(Event::Vanished(id)) => return Err(BootError::Vanished(id)),
                Ok(Event::Restored(_, sessions)) => self.restored += sessions,
                Ok(_) => {}
                Err(_) => {
                    let missing = (0..count as ShardId).filter(|id| !wakers.contains_key(id));
                    return Err(BootError::Silent(missing.collect()));
                }
            }
        }
        Ok(wakers.into_values().collect())
    }

    /// Where the methods' answers go, by shard.
    #[must_use]
    pub fn replies(&self) -> Vec<(Sender<Reply>, Waker)> {
        let replies = self.replies.iter().cloned();
        replies.zip(self.wakers.iter().cloned()).collect()
    }

    /// Connections of all shards, by the listeners' numbers.
    #[must_use]
    pub fn connections_by_listener(&self) -> Vec<usize> {
        self.counts.by_listener()
    }

    /// Connections of all shards that are not of bridges.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.counts.by_listener().iter().sum()
    }

    /// Connections of all shards.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.all()
    }

    /// New connections use these TLS settings.
    pub fn set_tls(&self, number: u64, configs: Arc<[Option<Arc<TlsSetup>>]>) {
        self.order(&Order::Tls(number, configs));
    }

    /// Who is not served from now on; each shard confirms it with an event of this number.
    pub fn set_bans(&self, number: u64, names: Arc<BannedNames>, networks: Arc<BannedNetworks>) {
        self.order(&Order::Bans(number, names, networks));
    }

    /// Settings and listeners from now on, with the sockets of new ones by shard; each shard confirms them
    /// with an event of this number.
    pub fn set_settings(
        &self,
        number: u64,
        settings: &Arc<Settings>,
        openings: impl IntoIterator<Item = Opening>,
    ) {
        for (orders, opening) in self.orders.iter().zip(openings) {
            orders.push(Order::Settings(number, Arc::clone(settings), opening));
        }
        self.flush_orders();
    }

    /// Access rules from now on; each shard confirms them with an event of this number.
    pub fn set_acl(&self, number: u64, acl: Option<Arc<Acl>>) {
        self.order(&Order::Acl(number, acl));
    }

    fn order(&self, order: &Order) {
        for orders in &self.orders {
            orders.push(order.clone());
        }
        self.flush_orders();
    }

    /// Hands over orders that found no room before.
    pub fn flush_orders(&self) {
        for (orders, waker) in self.orders.iter().zip(&self.wakers) {
            if orders.flush() {
                waker.wake();
            }
        }
    }

    /// What is free of a shard's memory only the shard itself can leave to all, to be given back.
    pub fn leave_memory(&self) {
        self.order(&Order::Leave);
    }

    /// Asks all shards for gauges and counters; answers come as events of this number.
    pub fn ask_statistics(&self, number: u64) {
        self.order(&Order::Statistics(number));
    }

    /// Asks shards something, all or one of them; each answers with an event of its number.
    pub fn inquire(&self, inquiry: &Inquiry, only: Option<ShardId>) {
        for (shard, orders) in (0..).zip(&self.orders) {
            if only.is_none_or(|only| only == shard) {
                orders.push(Order::Inquire(inquiry.clone()));
            }
        }
        self.flush_orders();
    }

    /// Has the first shard publish the broker's own values.
    pub fn announce(&self, announcements: Announcements) {
        if let Some(orders) = self.orders.first() {
            orders.push(Order::Announce(Arc::new(announcements)));
        }
        self.flush_orders();
    }

    /// Has a shard take over a bridge's connection.
    pub fn open_line(&self, shard: ShardId, parcel: Parcel) {
        if let Some(orders) = self.orders.get(usize::from(shard)) {
            orders.push(Order::Line(parcel));
        }
        self.flush_orders();
    }

    /// Stops all shards within `deadline`.
    ///
    /// # Errors
    /// Shards that have not stopped in time: their threads are still there, and only the end of the process
    /// ends them.
    pub fn stop(self, deadline: Duration) -> Result<(), BootError> {
        let by = Instant::now() + deadline;
        self.order(&Order::StopAccepting);
        let half = by.min(Instant::now() + deadline / 2);
        let mut there: BTreeSet<_> = (0..).take(self.orders.len()).collect();
        self.await_all(half, &mut there, true);
        self.order(&Order::Stop(by));
        // The shards keep the deadline themselves; a little more time lets them say so.
        self.await_all(by + Duration::from_secs(1), &mut there, false);
        if !there.is_empty() {
            return Err(BootError::Silent(there.into_iter().collect()));
        }
        for handle in self.handles {
            let _ = handle.join();
        }
        if let Some((progress, _)) = &self.progress {
            progress.give_up_what_has_no_room();
        }
        match self.storage.map(JoinHandle::join) {
            Some(Ok(Err(error))) => Err(BootError::Storage(error.to_string())),
            _ => Ok(()),
        }
    }

    /// Waits until every shard is gone, or has at least drained; takes those that are gone out of `there`.
    fn await_all(&self, by: Instant, there: &mut BTreeSet<ShardId>, drained_is_enough: bool) {
        let mut drained = BTreeSet::new();
        while !there.is_subset(&drained) {
            let next = by.min(Instant::now() + ORDERS_INTERVAL);
            match self.events.recv_deadline(next) {
                Ok(Event::Drained(shard)) if drained_is_enough => {
                    drained.insert(shard);
                }
                Ok(Event::Stopped(shard) | Event::Failed(shard, _) | Event::Vanished(shard)) => {
                    there.remove(&shard);
                }
                Ok(_) => {}
                Err(_) if Instant::now() >= by => break,
                Err(_) => self.flush_orders(),
            }
        }
    }
}

/// Each shard's sockets, by the listeners' numbers.
fn by_shard(
    shards: usize,
    listeners: Vec<(Listener, ListenerSetup)>,
) -> Vec<Vec<(Vec<OwnedFd>, ListenerSetup)>> {
    let mut of_shards: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for (listener, setup) in listeners {
        for (shard, sockets) in of_shards.iter_mut().zip(listener.sockets) {
            shard.push((sockets, setup.clone()));
        }
    }
    of_shards
}

/// What a shard has for itself: mailboxes, listeners, what it has kept.
type Parts = (
    Mailboxes,
    Vec<(Vec<OwnedFd>, ListenerSetup)>,
    Option<(Kept, Exchange)>,
);

/// What a shard goes on with when all are there: who they are, and the way to the log.
type Met = (Vec<Waker>, Option<LogWay>);

/// Builds a shard anew, and waits for the others; whether it could be.
fn restore(
    core: &mut ShardCore,
    (kept, exchange): (Kept, Exchange),
    id: ShardId,
    now: Timestamp,
    events: &Sender<Event>,
) -> bool {
    let restored = recovery::restore(core, id, now, kept, &exchange);
    exchange.settle(id, restored.is_ok().then_some(core), now);
    let is_restored = restored.is_ok();
    let _ = events.send(match restored {
        Ok(sessions) => Event::Restored(id, sessions),
        Err(why) => Event::NotRestored(id, why),
    });
    is_restored
}

fn run_shard(mut start: Start, meeting: &Receiver<Met>) {
    let (id, events) = (start.id, start.events.clone());
    let gather_max = Duration::from_micros(start.core.gather_us_max());
    let ring = match Ring::new(&RingConfig::gathering(gather_max)) {
        Ok(ring) => ring,
        Err(error) => {
            let _ = events.send(Event::Failed(id, error));
            return;
        }
    };
    let _ = events.send(Event::Ready(id, ring.waker()));
    let Ok((wakers, log)) = meeting.recv() else {
        return;
    };
    start.log = log;
    let event = match Shell::run(start, ring, &wakers) {
        Ok(()) => Event::Stopped(id),
        Err(error) => Event::Failed(id, error),
    };
    let _ = events.send(event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_does_not_wait_for_a_shard_that_is_gone() {
        let (sender, events) = bounded(EVENTS_MAX);
        let (order_senders, _orders): (Vec<_>, Vec<_>) =
            (0..2).map(|_| bounded(ORDERS_MAX)).unzip();
        let shards = Shards {
            events,
            orders: order_senders.into_iter().map(OrderQueue::new).collect(),
            replies: Vec::new(),
            wakers: Vec::new(),
            pulses: Vec::new(),
            counts: Arc::new(ConnectionCounts::new(0)),
            handles: Vec::new(),
            storage: None,
            restored: 0,
            torn: None,
            progress: None,
        };
        for event in [
            Event::Drained(0),
            Event::Statistics(0, 1, Box::default()),
            Event::Vanished(1),
            Event::Stopped(0),
        ] {
            sender.send(event).unwrap();
        }
        let begun = Instant::now();
        let deadline = Duration::from_secs(60);
        assert!(shards.stop(deadline).is_ok() && begun.elapsed() < deadline / 4);
    }
}
