//! Starting the shards, each on its CPU, and stopping them in order.
//!
//! A stop has two steps, so that wills reach those who are still there: every shard first publishes
//! them and makes them visible, only then clients are told and closed.

use crate::engine::access::acl::Acl;
use crate::engine::access::bans::BannedNames;
use crate::engine::keys::ShardId;
use crate::engine::overload::Stage;
use crate::engine::shard::{ConnectionCounts, Settings, ShardCore};
use crate::shard::account::Entry;
use crate::shard::addresses::Addresses;
use crate::shard::driver::{Shell, Start};
use crate::shard::listener::{Listener, ListenerSetup};
use crate::shard::mailbox::Mailboxes;
use crate::shard::orders::{Event, Order};
use crate::shard::questions::{Question, Reply};
use crate::shard::ring::{Ring, RingConfig, RingError, Waker};
use crossbeam_channel::{Receiver, Sender, bounded};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use ipnet::IpNet;
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Memory each executor registers for file I/O, which the shards do not use.
const EXECUTOR_IO_BYTES: usize = 128 * 1024;
/// Orders that may wait for a shard.
const ORDERS_MAX: usize = 64;
/// Answers of authentication methods that may wait for a shard; the methods wait beyond that.
const REPLIES_MAX: usize = 1024;
/// How long the executors may take to come up.
const START_MAX: Duration = Duration::from_secs(10);
/// Events that may wait for the control plane.
const EVENTS_MAX: usize = 1024;

/// Why the shards could not start or go on.
#[derive(Debug)]
pub enum BootError {
    /// The executor of a shard could not be made.
    Executor(String),
    /// A shard's ring could not be made, or failed.
    Ring(ShardId, RingError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Executor(text) => write!(
                f,
                "cannot start an executor: {text}. If it speaks of memory, raise the locked-memory \
                 limit (`ulimit -l`, LimitMEMLOCK=) to 4 MiB per shard"
            ),
            BootError::Ring(shard, error) => write!(f, "shard {shard}: {error}"),
        }
    }
}

impl std::error::Error for BootError {}

/// Rules in force before the first connection is accepted; orders change them later.
#[derive(Clone, Default)]
pub struct Rules {
    /// What clients may do; everything without.
    pub acl: Option<Arc<Acl>>,
    /// Who is not served, by name.
    pub names: Arc<BannedNames>,
    /// Who is not served, by address.
    pub networks: Arc<[IpNet]>,
}

/// The running shards, as the control plane sees them.
pub struct Shards {
    /// Events of all shards.
    pub events: Receiver<Event>,
    orders: Vec<Sender<Order>>,
    replies: Vec<Sender<Reply>>,
    wakers: Vec<Waker>,
    handles: Vec<ExecutorJoinHandle<()>>,
}

impl Shards {
    /// Starts one shard per entry of `cpus`; a CPU may occur more than once.
    ///
    /// # Errors
    /// The first shard that could not start; the process is expected to exit then.
    pub fn start(
        cpus: &[usize],
        settings: &Settings,
        listeners: Vec<(Listener, ListenerSetup)>,
        rules: &Rules,
        (questions, entries): (&Sender<Question>, &Sender<Vec<Entry>>),
    ) -> Result<Self, BootError> {
        // An executor that the kernel refuses dies in its own thread without a word; this says why.
        drop(Ring::new(&RingConfig::default()).map_err(|error| BootError::Ring(0, error))?);
        let count = cpus.len() as ShardId;
        let (sender, events) = bounded(EVENTS_MAX);
        let counts = Arc::new(ConnectionCounts::new(settings.listeners.len()));
        let origin = Instant::now();
        let addresses = Addresses::new(settings.limits.connections_per_address_max);
        let sockets = by_shard(cpus.len(), listeners);
        let mut shards = Shards {
            events,
            orders: Vec::new(),
            replies: Vec::new(),
            wakers: Vec::new(),
            handles: Vec::new(),
        };
        let mut meetings = Vec::new();
        let parts = Mailboxes::connect(count, settings.limits.mailbox_letters_max)
            .into_iter()
            .zip(sockets)
            .zip(cpus);
        for (id, ((mailboxes, listeners), &cpu)) in (0..).zip(parts) {
            let (order_sender, orders) = bounded(ORDERS_MAX);
            let (reply_sender, replies) = bounded(REPLIES_MAX);
            let (questions, entries) = (questions.clone(), entries.clone());
            let (addresses, rules) = (addresses.clone(), rules.clone());
            let (meet, meeting) = bounded::<Vec<Waker>>(1);
            let settings = settings.clone();
            let counts = Arc::clone(&counts);
            let events = sender.clone();
            // The standard library's hasher is seeded by the system: random enough for names.
            let seed = RandomState::new().hash_one(id);
            let handle = LocalExecutorBuilder::new(Placement::Fixed(cpu))
                .name(&format!("ringmq-{id}"))
                .io_memory(EXECUTOR_IO_BYTES)
                .spawn(move || async move {
                    let mut core = ShardCore::new(id, count, settings, seed, counts);
                    core.begin_with(rules.acl, rules.names);
                    let start = Start {
                        id,
                        core,
                        mailboxes,
                        listeners,
                        origin,
                        orders,
                        questions,
                        replies,
                        entries,
                        addresses,
                        banned: rules.networks,
                        events,
                    };
                    run_shard(start, &meeting);
                })
                .map_err(|error| BootError::Executor(error.to_string()))?;
            shards.handles.push(handle);
            shards.orders.push(order_sender);
            shards.replies.push(reply_sender);
            meetings.push(meet);
        }
        shards.wakers = shards.meet(cpus.len())?;
        for meet in meetings {
            let _ = meet.send(shards.wakers.clone());
        }
        Ok(shards)
    }

    /// Waits until every shard has made its ring.
    fn meet(&self, count: usize) -> Result<Vec<Waker>, BootError> {
        let mut wakers = BTreeMap::new();
        let by = Instant::now() + START_MAX;
        while wakers.len() < count {
            match self.events.recv_deadline(by) {
                Ok(Event::Ready(id, waker)) => {
                    wakers.insert(id, waker);
                }
                Ok(Event::Failed(id, error)) => return Err(BootError::Ring(id, error)),
                Ok(_) => {}
                Err(_) => return Err(BootError::Executor("a shard's thread ended".into())),
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

    /// Tells every shard how short memory is.
    pub fn set_stage(&self, stage: Stage) {
        self.order(&Order::Stage(stage));
    }

    /// New connections use these TLS settings.
    pub fn set_tls(&self, configs: Arc<[Option<Arc<ServerConfig>>]>) {
        self.order(&Order::Tls(configs));
    }

    /// Who is not served from now on.
    pub fn set_bans(&self, names: Arc<BannedNames>, networks: Arc<[IpNet]>) {
        self.order(&Order::Bans(names, networks));
    }

    /// Access rules from now on.
    pub fn set_acl(&self, acl: Arc<Acl>) {
        self.order(&Order::Acl(acl));
    }

    fn order(&self, order: &Order) {
        for (orders, waker) in self.orders.iter().zip(&self.wakers) {
            // A shard that has stopped takes no order.
            let _ = orders.send(order.clone());
            waker.wake();
        }
    }

    /// Gauges and counters, summed over the shards (`_max`: of the highest), in a fixed order.
    ///
    /// # Errors
    /// A shard failed meanwhile.
    pub fn statistics(&self) -> Result<Vec<(&'static str, u64)>, BootError> {
        self.order(&Order::Statistics);
        let mut sums: Vec<(&'static str, u64)> = Vec::new();
        for _ in &self.orders {
            loop {
                match self.events.recv() {
                    Ok(Event::Statistics(list)) => {
                        add(&mut sums, list);
                        break;
                    }
                    Ok(Event::Failed(id, error)) => return Err(BootError::Ring(id, error)),
                    Ok(_) => {}
                    Err(_) => return Ok(sums),
                }
            }
        }
        Ok(sums)
    }

    /// Stops all shards within `deadline`.
    pub fn stop(self, deadline: Duration) {
        let by = Instant::now() + deadline;
        self.order(&Order::StopAccepting);
        self.await_all(by.min(Instant::now() + deadline / 2), |event| {
            matches!(event, Event::Drained(_))
        });
        self.order(&Order::Stop(by));
        // The shards keep the deadline themselves; a little more time lets them say so.
        self.await_all(by + Duration::from_secs(1), |event| {
            matches!(event, Event::Stopped(_))
        });
        for handle in self.handles {
            let _ = handle.join();
        }
    }

    fn await_all(&self, by: Instant, counts: impl Fn(&Event) -> bool) {
        let mut missing = self.orders.len();
        while missing > 0 {
            match self.events.recv_deadline(by) {
                Ok(event) if counts(&event) => missing -= 1,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// Each shard's sockets, by the listeners' numbers.
fn by_shard(
    shards: usize,
    listeners: Vec<(Listener, ListenerSetup)>,
) -> Vec<Vec<(OwnedFd, ListenerSetup)>> {
    let mut sockets: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for (listener, setup) in listeners {
        for (shard, socket) in sockets.iter_mut().zip(listener.sockets) {
            shard.push((socket, setup.clone()));
        }
    }
    sockets
}

fn add(sums: &mut Vec<(&'static str, u64)>, list: Vec<(&'static str, u64)>) {
    for (name, value) in list {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, most)) if name.ends_with("_max") => *most = (*most).max(value),
            Some((_, sum)) => *sum += value,
            None => sums.push((name, value)),
        }
    }
}

fn run_shard(start: Start, meeting: &Receiver<Vec<Waker>>) {
    let (id, events) = (start.id, start.events.clone());
    let ring = match Ring::new(&RingConfig::default()) {
        Ok(ring) => ring,
        Err(error) => {
            let _ = events.send(Event::Failed(id, error));
            return;
        }
    };
    let _ = events.send(Event::Ready(id, ring.waker()));
    let Ok(wakers) = meeting.recv() else { return };
    let event = match Shell::run(start, ring, &wakers) {
        Ok(()) => Event::Stopped(id),
        Err(error) => Event::Failed(id, error),
    };
    let _ = events.send(event);
}
