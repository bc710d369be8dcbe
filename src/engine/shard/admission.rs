//! How fast new connections come in, so that a storm of them does not starve those that are there.
//!
//! The shell asks once per turn and accepts at most one connection per listener and turn, fewer when this
//! says so: too many that are not let in yet, too many in this second, or a shard that is late.
//! Whoever is not accepted yet waits in the kernel's backlog.

use super::ShardCore;
use super::common_rate::CommonRate;
use super::unheard::{ConnectingPart, TurnedAway};
use crate::engine::keys::ConnectionKey;
use crate::engine::overload::Stage;
use crate::engine::session::connection::{Connection, ConnectsFrom};
use crate::engine::time::Timestamp;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How long a late shard accepts nobody.
const LATE_PAUSE_MS: u64 = 10;

/// While new clients are refused this part of those that may be about to connect may be.
const CONNECTING_SHARE_REFUSING: usize = 64;

/// Most connections of a shard that are not let in yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectingMax {
    /// Wherever they come from.
    pub of_all: usize,
    /// From one address.
    pub of_address: usize,
    /// From one address, on all shards together.
    pub of_address_all: usize,
}

/// Connections of all shards, and of each listener.
#[derive(Debug)]
pub struct ConnectionCounts {
    all: AtomicUsize,
    by_listener: Vec<AtomicUsize>,
    /// How fast they come.
    rate: CommonRate,
    rate_by_listener: Vec<CommonRate>,
    /// Those that are not let in yet, where they are counted over all shards.
    connecting: Option<Arc<dyn CountsByNetwork>>,
}

/// Counts of connections that are not let in yet, by the network that counts as their address.
pub trait CountsByNetwork: fmt::Debug + Send + Sync {
    /// How many there are, and of these by a listener.
    fn count(&self, network: IpNet, listener: u16) -> (usize, usize);
    /// One more.
    fn enter(&self, network: IpNet, listener: u16);
    /// One less.
    fn leave(&self, network: IpNet, listener: u16);
}

impl ConnectionCounts {
    /// None so far, of so many listeners.
    #[must_use]
    pub fn new(listeners: usize) -> Self {
        ConnectionCounts {
            all: AtomicUsize::new(0),
            by_listener: (0..listeners).map(|_| AtomicUsize::new(0)).collect(),
            rate: CommonRate::default(),
            rate_by_listener: (0..listeners).map(|_| CommonRate::default()).collect(),
            connecting: None,
        }
    }

    /// The same; those that are not let in yet are counted over all shards too.
    #[must_use]
    pub fn with_connecting(listeners: usize, connecting: Arc<dyn CountsByNetwork>) -> Self {
        ConnectionCounts {
            connecting: Some(connecting),
            ..ConnectionCounts::new(listeners)
        }
    }

    fn connecting_from(&self, network: IpNet, listener: u16) -> (usize, usize) {
        let connecting = self.connecting.as_ref();
        connecting.map_or((0, 0), |connecting| connecting.count(network, listener))
    }

    /// One more; how many there were before.
    pub(super) fn enter(&self, listener: u16) -> usize {
        if let Some(count) = self.by_listener.get(usize::from(listener)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.all.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn leave(&self, listener: u16) {
        if let Some(count) = self.by_listener.get(usize::from(listener)) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        self.all.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn of(&self, listener: u16) -> usize {
        let count = self.by_listener.get(usize::from(listener));
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// By the listeners' numbers.
    #[must_use]
    pub fn by_listener(&self) -> Vec<usize> {
        let counts = self.by_listener.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Of all listeners.
    #[must_use]
    pub fn all(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

/// What a connection that is refused takes of those that may be and of those that connect, until its socket
/// is gone.
#[derive(Debug)]
#[must_use = "what it takes is not free before it is given back"]
pub struct Place {
    listener: u16,
    connects_from: ConnectsFrom,
}

/// A shard's record of who came in.
#[derive(Debug)]
pub(super) struct Admission {
    /// Connections of all shards.
    pub counts: Arc<ConnectionCounts>,
    /// Accepted here and not yet heard as CONNECT.
    pub connecting: usize,
    /// Of these, by the network that counts as their address, where that is known.
    by_network: BTreeMap<IpNet, usize>,
    /// Of these, those whom their proxies have not named yet.
    pub unnamed: usize,
    /// Nobody comes in before this.
    not_before: Timestamp,
}

impl ShardCore {
    /// Counts one that was accepted now for the rates; whether it comes faster after others than its listener
    /// allows. Each listener of each shard may have accepted one that no other shard knew of: it is owed.
    pub(super) fn is_hasty(&mut self, now: Timestamp, listener: u16) -> bool {
        let counts = &self.admission.counts;
        let of_all = self.settings.limits.connect_rate_max;
        counts.rate.take_or_owe(of_all, now);
        let policy = self.settings.listener(listener);
        let of_listener = policy.map_or(0, |policy| policy.connect_rate_max);
        let rate = counts.rate_by_listener.get(usize::from(listener));
        rate.is_some_and(|rate| !rate.take(of_listener, now))
    }

    /// Whether listeners may accept now. `lag_ms` is how long the last turn took.
    pub fn may_accept(&mut self, now: Timestamp, lag_ms: u64) -> bool {
        let limits = &self.settings.limits;
        let admission = &mut self.admission;
        if lag_ms > limits.accept_lag_ms_max {
            self.clients.counters.accepts_paused_lag += 1;
            admission.not_before = now.plus_ms(LATE_PAUSE_MS);
        }
        let rate = &admission.counts.rate;
        if let Some(at) = rate.empty_until(limits.connect_rate_max, now) {
            self.clients.counters.accepts_paused_rate += 1;
            admission.not_before = admission.not_before.max(at);
        }
        if self.admission.connecting >= self.connecting_max().of_all {
            self.clients.counters.accepts_paused_connecting += 1;
            return false;
        }
        self.admission.not_before <= now
    }

    /// Most connections that may be about to connect to this shard now.
    pub(super) fn connecting_max(&self) -> ConnectingMax {
        let limits = &self.settings.limits;
        let shards = usize::from(self.shards);
        let bounded = |max: usize| {
            if self.clients.shortage.stage >= Stage::Refuse {
                // Most will be refused; what it takes to tell them so must stay little.
                return max.div_ceil(CONNECTING_SHARE_REFUSING);
            }
            max
        };
        let of_address = limits.connecting_of_address_max();
        let of_all = bounded(limits.connecting_max.div_ceil(shards));
        ConnectingMax {
            of_all,
            // Half of a shard's places stay for others, unless an address may have more of all.
            of_address: bounded(of_address.div_ceil(shards)).max(of_all.div_ceil(2)),
            of_address_all: bounded(of_address),
        }
    }

    /// Whether one more connection from this network may wait by a listener until it has sent its CONNECT: of
    /// the places of those that do, and of all connections, a part is for others.
    ///
    /// # Errors
    /// Of what it has its part already.
    pub fn may_connect_from(&self, network: IpNet, listener: u16) -> Result<(), TurnedAway> {
        let max = self.connecting_max();
        let admission = &self.admission;
        let here = admission.by_network.get(&network).copied();
        let (all, of_listener) = admission.counts.connecting_from(network, listener);
        let limits = &self.settings.limits;
        let refuse = |part: ConnectingPart| Err(TurnedAway::TooManyConnecting(part));
        if here.unwrap_or_default() >= max.of_address || all >= max.of_address_all {
            return refuse(ConnectingPart::OfConnecting);
        }
        // Who says how many may be means it.
        if limits.connecting_per_address_max > 0 {
            return Ok(());
        }
        let policy = self.settings.listener(listener);
        let listener_max = policy.map_or(usize::MAX, |policy| policy.connections_max);
        if all >= limits.connections_max.div_ceil(2) {
            return refuse(ConnectingPart::InAll(limits.connections_max));
        }
        let descriptors = self.settings.descriptors_for_connections;
        if all >= descriptors.div_ceil(2).max(1) {
            return refuse(ConnectingPart::InDescriptors(descriptors));
        }
        if of_listener >= listener_max.div_ceil(2) {
            return refuse(ConnectingPart::OfListener(listener_max));
        }
        Ok(())
    }

    /// Whether one more may wait whose address is not known: a proxy is trusted to name it. All of them have
    /// as much of a shard's places as one address may have.
    ///
    /// # Errors
    /// They have that already.
    pub fn may_connect_unlocated(&self) -> Result<(), TurnedAway> {
        let admission = &self.admission;
        if admission.unnamed >= self.connecting_max().of_all.div_ceil(2) {
            return Err(TurnedAway::TooManyConnecting(ConnectingPart::OfUnlocated));
        }
        Ok(())
    }

    /// Whether one that was handed over and is refused here would have more than its address's part of this
    /// shard's places while it closes: where it came in only that shard's were looked at.
    pub(super) fn finds_no_place(&self, connection: &Connection) -> bool {
        let Some(network) = connection.network.filter(|_| connection.is_adopted) else {
            return false;
        };
        let max = self.connecting_max();
        let here = self.admission.by_network.get(&network).copied();
        here.unwrap_or_default() >= max.of_address || self.admission.connecting > max.of_all
    }

    /// Whether one may wait until its CONNECT is answered: one that was handed over counts for its address
    /// from now on, if that has not its part of this shard's places.
    pub(super) fn takes_place_to_wait(&mut self, key: ConnectionKey) -> bool {
        let connection = self.clients.connections.get(key);
        if connection.is_none_or(|connection| self.finds_no_place(connection)) {
            return false;
        }
        if let Some(connection) = self.clients.connections.get_mut(key) {
            self.admission.count_adopted(connection);
        }
        true
    }

    /// Sockets that a shard may have before closes are hastened: its part of all connections, and of seven
    /// eighths of the descriptors.
    #[must_use]
    pub fn sockets_max(&self) -> usize {
        let settings = &self.settings;
        let descriptors = settings.descriptors_for_connections;
        let max = settings.limits.connections_max;
        let all = max.min(descriptors - descriptors / 8);
        all.div_ceil(usize::from(self.shards))
    }

    /// A connection that was closing in order was closed at once, for there were too many sockets.
    pub fn note_close_hastened(&mut self) {
        self.clients.counters.closes_hastened += 1;
    }

    /// When the shell has to ask again though nothing happens.
    #[must_use]
    pub fn accept_at(&self, now: Timestamp) -> Option<Timestamp> {
        let at = self.admission.not_before;
        (at > now).then_some(at)
    }
}

impl Admission {
    /// Nobody came in here so far; `counts` are shared by all shards.
    pub(super) fn new(counts: Arc<ConnectionCounts>) -> Self {
        Admission {
            counts,
            connecting: 0,
            by_network: BTreeMap::new(),
            unnamed: 0,
            not_before: Timestamp::default(),
        }
    }

    /// One has come in.
    pub(super) fn take(&mut self) {
        self.connecting += 1;
    }

    /// What one takes that was not let in, until its socket is gone: as much as one that is connecting, or
    /// who is refused could have more than who waits.
    pub(super) fn place_of_refused(&mut self, connection: &mut Connection) -> Place {
        let listener = connection.listener;
        self.count_adopted(connection);
        Place {
            listener,
            connects_from: mem::take(&mut connection.connects_from),
        }
    }

    /// One that was handed over counted for its network where it sent its CONNECT, until it left; now here.
    fn count_adopted(&mut self, connection: &mut Connection) {
        let is_counted = connection.connects_from != ConnectsFrom::Nobody;
        if let Some(network) = connection.network
            && connection.is_adopted
            && !is_counted
        {
            connection.connects_from = ConnectsFrom::Network(network);
            self.count_from(network, connection.listener);
        }
    }

    /// Nothing is left of a connection.
    pub(super) fn vacate(&mut self, place: Place) {
        self.counts.leave(place.listener);
        self.settle(place.connects_from, place.listener);
    }

    /// A proxy is to name one of them.
    pub(super) fn count_unnamed(&mut self) {
        self.unnamed += 1;
    }

    /// It is known where one of them comes from that counted for others `before`.
    pub(super) fn count_named(&mut self, before: ConnectsFrom, network: IpNet, listener: u16) {
        if before == ConnectsFrom::Unnamed {
            self.unnamed = self.unnamed.saturating_sub(1);
        }
        self.count_from(network, listener);
    }

    fn count_from(&mut self, network: IpNet, listener: u16) {
        *self.by_network.entry(network).or_default() += 1;
        if let Some(connecting) = &self.counts.connecting {
            connecting.enter(network, listener);
        }
    }

    /// One that came by a listener has sent its CONNECT, moved on, or left before.
    pub(super) fn settle(&mut self, connects_from: ConnectsFrom, listener: u16) {
        self.connecting = self.connecting.saturating_sub(1);
        let network = match connects_from {
            ConnectsFrom::Nobody => return,
            ConnectsFrom::Unnamed => {
                self.unnamed = self.unnamed.saturating_sub(1);
                return;
            }
            ConnectsFrom::Network(network) => network,
        };
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
        if let Some(connecting) = &self.counts.connecting {
            connecting.leave(network, listener);
        }
    }
}
