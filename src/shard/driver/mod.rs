//! The loop of a shard: events and mail in, core, effects out, then sleep.
//!
//! Everything a turn does is bounded: completions by the ring, mail by what is visible when the turn
//! begins, timers by those that are due. All sends of a turn go to the kernel in one submission, all
//! mail of a turn wakes each receiver once.
//!
//! Commands of the core are carried out right after the input that caused them, so that a later event
//! of the same turn never finds a connection in a state the core has left.

mod admission;
mod authenticate;
mod layered;
mod sockets;

use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::shard::{Command, ShardCore};
use crate::engine::telemetry::notes::Note;
use crate::engine::time::Timestamp;
use crate::shard::account::Entry;
use crate::shard::addresses::Addresses;
use crate::shard::handover::{Handover, Origin};
use crate::shard::link::Link;
use crate::shard::listener::ListenerSetup;
use crate::shard::mailbox::{Letter, Mailboxes};
use crate::shard::orders::{Event, Order};
use crate::shard::questions::{Question, Reply};
use crate::shard::ring::{
    Handler, ListenerKey, PeerKey, ReceiveEnd, Ring, RingError, SocketKey, Waker,
};
use crate::shard::transport::Layers;
use crate::storage::memory::MemoryStore;
use crossbeam_channel::{Receiver, Sender};
use ipnet::IpNet;
use sockets::{Sockets, State};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;

/// How long a closed connection may take to drain its last bytes.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// How often a shard names clients that lose messages, and how many at once.
const LOSSES_INTERVAL: Duration = Duration::from_secs(1);
const LOSSES_REPORTED_MAX: usize = 10;
/// Passes over the mailboxes per turn, so that retained questions are answered in the turn they come.
const DRAIN_PASSES_MAX: usize = 3;

/// What a shard is started with.
pub struct Start {
    /// Its number.
    pub id: ShardId,
    /// Its core.
    pub core: ShardCore,
    /// Its mailboxes.
    pub mailboxes: Mailboxes,
    /// Its listening sockets, by the listeners' numbers.
    pub listeners: Vec<(OwnedFd, ListenerSetup)>,
    /// Origin of all shards' times.
    pub origin: Instant,
    /// Orders from the control plane.
    pub orders: Receiver<Order>,
    /// Questions to the authentication methods, and their answers.
    pub questions: Sender<Question>,
    /// What they say.
    pub replies: Receiver<Reply>,
    /// Notes for whoever keeps account.
    pub entries: Sender<Vec<Entry>>,
    /// Connections by address, of all shards.
    pub addresses: Addresses,
    /// Networks that are not served.
    pub banned: Arc<[IpNet]>,
    /// Events to it.
    pub events: Sender<Event>,
}

/// The shell around one core.
pub struct Shell {
    id: ShardId,
    core: ShardCore,
    mailboxes: Mailboxes,
    origin: Instant,
    now: Timestamp,
    listeners: Vec<ListenerKey>,
    setups: Vec<ListenerSetup>,
    sockets: Sockets,
    /// Connections with a step of a handshake to do.
    handshakes: VecDeque<SocketKey>,
    /// Room for what comes out of layers.
    plain: Vec<u8>,
    lingering: VecDeque<(Instant, SocketKey)>,
    /// Connections that found no room in a mailbox.
    handovers: VecDeque<(ShardId, Handover)>,
    store: MemoryStore,
    peers: Vec<Option<PeerKey>>,
    orders: Receiver<Order>,
    events: Sender<Event>,
    questions: Sender<Question>,
    replies: Receiver<Reply>,
    entries: Sender<Vec<Entry>>,
    addresses: Addresses,
    /// Networks that are not served.
    banned: Arc<[IpNet]>,
    notes: Vec<(ConnectionKey, Note)>,
    /// Room for lists that are emptied each turn.
    commands: Vec<Command>,
    ready: Vec<ConnectionKey>,
    is_draining: bool,
    is_accepting: bool,
    /// When the turn began.
    turn_at: Instant,
    /// The longest turn since statistics were asked for: how late a client may have been served.
    turn_max: Duration,
    /// When losses may be reported again.
    losses_at: Instant,
    stop_by: Option<Instant>,
}

impl Shell {
    /// Runs a shard until it is told to stop. `wakers` are those of all shards, by number.
    ///
    /// # Errors
    /// The ring failed for good.
    pub async fn run(start: Start, mut ring: Ring, wakers: &[Waker]) -> Result<(), RingError> {
        let (listeners, setups) = start
            .listeners
            .into_iter()
            .map(|(descriptor, setup)| (ring.listen(descriptor), setup))
            .unzip();
        let peers = (0..)
            .zip(wakers)
            .map(|(id, waker): (ShardId, _)| (id != start.id).then(|| ring.link(waker)))
            .collect();
        let mut shell = Shell {
            id: start.id,
            core: start.core,
            mailboxes: start.mailboxes,
            origin: start.origin,
            now: Timestamp::default(),
            listeners,
            setups,
            sockets: Sockets::default(),
            handshakes: VecDeque::new(),
            plain: Vec::new(),
            lingering: VecDeque::new(),
            handovers: VecDeque::new(),
            store: MemoryStore::default(),
            peers,
            orders: start.orders,
            events: start.events,
            questions: start.questions,
            replies: start.replies,
            entries: start.entries,
            addresses: start.addresses,
            banned: start.banned,
            notes: Vec::new(),
            commands: Vec::new(),
            ready: Vec::new(),
            is_draining: false,
            is_accepting: true,
            turn_at: Instant::now(),
            turn_max: Duration::ZERO,
            losses_at: Instant::now(),
            stop_by: None,
        };
        loop {
            let more = shell.turn(&mut ring);
            if shell.is_done() {
                return Ok(());
            }
            let deadline = if more {
                Some(Instant::now())
            } else {
                shell.deadline()
            };
            let (mailboxes, orders, replies) = (&shell.mailboxes, &shell.orders, &shell.replies);
            ring.wait(deadline, || {
                mailboxes.has_mail() || !orders.is_empty() || !replies.is_empty()
            })
            .await?;
        }
    }

    fn is_done(&self) -> bool {
        self.stop_by
            .is_some_and(|by| self.sockets.count == 0 || Instant::now() >= by)
    }

    /// One round of work. Returns whether there is more to do at once.
    fn turn(&mut self, ring: &mut Ring) -> bool {
        self.turn_at = Instant::now();
        self.now = self.timestamp();
        let is_held_up = !self.core.staged().is_empty() || self.core.is_congested();
        let mut more = is_held_up;
        if !is_held_up {
            // Only now: clients are not read while what they sent finds no room elsewhere.
            more = ring.turn(self).more;
            more |= self.shake_hands(ring);
        }
        self.drain(ring);
        if self
            .core
            .deadline()
            .is_some_and(|deadline| deadline <= self.now)
        {
            self.core.tick(self.now);
        }
        self.follow_orders(ring);
        self.take_replies(ring);
        let committed = self.store.commit(self.core.take_persist());
        self.core.stored(committed);
        self.carry_out(ring);
        self.flush_mail(ring);
        self.flush_outboxes(ring);
        self.end_lingering(ring);
        self.admit(ring);
        self.report_losses();
        if self.is_draining && self.core.staged().is_empty() {
            self.is_draining = false;
            let _ = self.events.send(Event::Drained(self.id));
        }
        more || self.core.wants_drain() || !self.handovers.is_empty()
    }

    fn timestamp(&self) -> Timestamp {
        let since_origin = self.turn_at.saturating_duration_since(self.origin);
        Timestamp::from_ms(since_origin.as_millis() as u64)
    }

    /// Names those that have lost messages, once in a while and not all of many.
    fn report_losses(&mut self) {
        if !self.core.has_losses() || self.turn_at < self.losses_at {
            return;
        }
        self.losses_at = self.turn_at + LOSSES_INTERVAL;
        let losses = self.core.take_losses();
        for (client_id, lost) in losses.iter().take(LOSSES_REPORTED_MAX) {
            warn!("client {client_id:?} has lost messages: {lost}");
        }
        let more = losses.len().saturating_sub(LOSSES_REPORTED_MAX);
        if more > 0 {
            warn!("{more} more clients have lost messages");
        }
    }

    /// Accepts more connections, or none for now.
    fn admit(&mut self, ring: &mut Ring) {
        let lag = self.turn_at.elapsed();
        self.turn_max = self.turn_max.max(lag);
        let accepts = self.core.may_accept(self.now, lag.as_millis() as u64);
        if accepts == std::mem::replace(&mut self.is_accepting, accepts) {
            return;
        }
        for &listener in &self.listeners {
            if accepts {
                ring.resume_listening(listener);
            } else {
                ring.pause_listening(listener);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let of_core = self
            .core
            .deadline()
            .filter(|at| *at != Timestamp::NEVER)
            .and_then(|at| self.origin.checked_add(Duration::from_millis(at.as_ms())));
        let of_lingering = self.lingering.front().map(|(at, _)| *at);
        let of_accepts = (!self.is_accepting)
            .then(|| self.core.accept_at(self.now))
            .flatten()
            .and_then(|at| self.origin.checked_add(Duration::from_millis(at.as_ms())));
        let of_losses = self.core.has_losses().then_some(self.losses_at);
        [of_core, of_lingering, of_accepts, of_losses, self.stop_by]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes out of every mailbox what is visible when a pass begins.
    fn drain(&mut self, ring: &mut Ring) {
        for _ in 0..DRAIN_PASSES_MAX {
            self.core.begin_drain();
            for from in 0..self.mailboxes.incoming.len() {
                self.drain_one(ring, from);
            }
            self.core.end_drain(self.now);
            if !self.core.wants_drain() {
                return;
            }
        }
    }

    fn drain_one(&mut self, ring: &mut Ring, from: usize) {
        let visible = match self.mailboxes.incoming.get(from) {
            Some(Some(consumer)) => consumer.slots(),
            _ => return,
        };
        for _ in 0..visible {
            let Some(Some(consumer)) = self.mailboxes.incoming.get_mut(from) else {
                return;
            };
            match consumer.pop() {
                Ok(Letter::Mail(mail)) => self.core.mail(self.now, from as ShardId, mail),
                Ok(Letter::Handover(handover)) => self.adopt(ring, handover),
                Err(_) => return,
            }
        }
    }

    fn adopt(&mut self, ring: &mut Ring, handover: Handover) {
        let connection = self
            .core
            .adopt(self.now, handover.origin.listener, handover.admitted);
        let socket = ring.adopt(handover.descriptor);
        let (origin, link) = (handover.origin, handover.link.map(|link| *link));
        self.sockets.insert(socket, connection, origin, link);
        self.core.receive(self.now, connection, &handover.bytes);
        self.carry_out(ring);
        self.empty_inbox(ring, socket);
    }

    fn follow_orders(&mut self, ring: &mut Ring) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Statistics => {
                    let mut list = self.core.statistics();
                    let longest = std::mem::take(&mut self.turn_max);
                    list.push(("turn_us_max", longest.as_micros() as u64));
                    let _ = self.events.send(Event::Statistics(list));
                }
                Order::Tls(configs) => {
                    for (setup, config) in self.setups.iter_mut().zip(configs.iter()) {
                        setup.transport.tls.clone_from(config);
                    }
                }
                Order::Acl(acl) => self.core.set_acl(acl),
                Order::Bans(names, networks) => self.set_bans(ring, names, networks),
                Order::Stage(stage) => self.core.set_stage(stage),
                Order::StopAccepting => {
                    for &listener in &self.listeners {
                        ring.stop_listening(listener);
                    }
                    self.core.publish_wills(self.now);
                    self.is_draining = true;
                }
                Order::Stop(by) => {
                    // Wills of other shards are visible by now; they go out first.
                    self.drain(ring);
                    self.core.disconnect_all(self.now);
                    self.stop_by = Some(by);
                }
            }
        }
    }

    /// Carries out what the core wants done with connections.
    fn carry_out(&mut self, ring: &mut Ring) {
        self.record_notes();
        let mut commands = std::mem::take(&mut self.commands);
        self.core.take_commands(&mut commands);
        for command in commands.drain(..) {
            match command {
                Command::Close { connection, rest } => self.close(ring, connection, rest),
                Command::Handover {
                    connection,
                    home,
                    bytes,
                    admitted,
                } => {
                    if let Some(socket) = self.sockets.socket(connection)
                        && let Some(state) = self.sockets.state(socket)
                    {
                        *state = State::Leaving {
                            home,
                            bytes,
                            admitted,
                        };
                        ring.release(socket);
                    }
                }
                Command::Authenticate { connection, step } => self.ask(connection, step),
                Command::Pause(connection) => {
                    if let Some(socket) = self.sockets.socket(connection) {
                        ring.pause_receive(socket);
                    }
                }
                Command::Resume(connection) => {
                    if let Some(socket) = self.sockets.socket(connection) {
                        ring.resume_receive(socket);
                    }
                }
            }
        }
        self.commands = commands;
    }

    fn close(&mut self, ring: &mut Ring, connection: ConnectionKey, rest: Outgoing) {
        let Some(socket) = self.sockets.socket(connection) else {
            return;
        };
        let is_sending = ring.is_sending(socket);
        let rest = self.wrap_rest(socket, rest);
        let Some(state) = self.sockets.state(socket) else {
            return;
        };
        let mut waiting = None;
        if rest.is_empty() {
            self.core.recycle(rest);
        } else if is_sending {
            waiting = Some(rest);
        } else if let Err(rest) = ring.send(socket, rest) {
            self.core.recycle(rest);
        }
        let waits = waiting.is_some();
        *state = State::Closing { rest: waiting };
        if !waits {
            ring.close_after_send(socket);
        }
        self.lingering
            .push_back((Instant::now() + LINGER_MAX, socket));
    }

    fn end_lingering(&mut self, ring: &mut Ring) {
        if self.lingering.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some((at, socket)) = self.lingering.front().copied()
            && (at <= now || self.sockets.state(socket).is_none())
        {
            self.lingering.pop_front();
            ring.close(socket);
        }
    }

    /// Puts staged mail into the mailboxes and wakes each receiver once.
    fn flush_mail(&mut self, ring: &mut Ring) {
        let mut touched = 0_u128;
        while let Some((to, handover)) = self.handovers.pop_front() {
            let outgoing = self.mailboxes.outgoing.get_mut(usize::from(to));
            let Some(Some(producer)) = outgoing else {
                continue;
            };
            touched |= 1 << to;
            if let Err(rtrb::PushError::Full(Letter::Handover(handover))) =
                producer.push(Letter::Handover(handover))
            {
                self.handovers.push_front((to, handover));
                break;
            }
        }
        loop {
            let outgoing = &mut self.mailboxes.outgoing;
            self.core.staged().flush(|to, mail| {
                let Some(Some(producer)) = outgoing.get_mut(usize::from(to)) else {
                    return Ok(());
                };
                touched |= 1 << to;
                producer
                    .push(Letter::Mail(mail))
                    .map_err(|rtrb::PushError::Full(letter)| match letter {
                        Letter::Mail(mail) => mail,
                        Letter::Handover(_) => unreachable!("a letter comes back as it went"),
                    })
            });
            if !self.core.staged().is_empty() || !self.core.mail_flushed() {
                break;
            }
        }
        for (shard, peer) in self.peers.iter().enumerate() {
            if let Some(peer) = peer
                && touched & (1 << shard) != 0
            {
                ring.wake(*peer);
            }
        }
    }

    /// Hands every outbox that filled in this turn to the ring.
    fn flush_outboxes(&mut self, ring: &mut Ring) {
        let mut ready = std::mem::take(&mut self.ready);
        self.core.take_ready(&mut ready);
        for connection in ready.drain(..) {
            let Some(socket) = self.sockets.socket(connection) else {
                continue;
            };
            let Some(batch) = self.core.take_outgoing(connection) else {
                continue;
            };
            if self.sockets.link(socket).is_some() {
                self.wrap_batch(ring, socket, batch);
            } else if let Err(batch) = ring.send(socket, batch) {
                self.core.recycle(batch);
            }
        }
        self.ready = ready;
    }
}

impl Handler for Shell {
    fn accepted(
        &mut self,
        ring: &mut Ring,
        listener: ListenerKey,
        descriptor: OwnedFd,
        peer: Option<SocketAddr>,
    ) {
        let Some(number) = self.listeners.iter().position(|known| *known == listener) else {
            return;
        };
        let Some(setup) = self.setups.get(number) else {
            return;
        };
        let link = match Layers::new(&setup.transport, peer) {
            Ok(layers) => layers.map(Link::new),
            Err(error) => return warn!("a connection cannot be served: {error}"),
        };
        let listener = number as u16;
        if let Some(connection) = self.core.accept(self.now, listener) {
            let socket = ring.adopt(descriptor);
            let origin = Origin {
                listener,
                peer,
                counted: None,
            };
            let is_known = link.is_none();
            self.sockets.insert(socket, connection, origin, link);
            if is_known {
                self.check_address(socket);
            }
        }
    }

    fn received(&mut self, ring: &mut Ring, socket: SocketKey, bytes: &[u8]) {
        if self.sockets.link(socket).is_some() {
            return self.received_layered(ring, socket, bytes);
        }
        match self.sockets.state(socket) {
            Some(State::Open(connection)) => {
                let connection = *connection;
                self.core.receive(self.now, connection, bytes);
                self.carry_out(ring);
            }
            Some(State::Leaving { bytes: so_far, .. }) => so_far.extend_from_slice(bytes),
            Some(State::Closing { .. }) | None => {}
        }
    }

    fn receive_ended(&mut self, ring: &mut Ring, socket: SocketKey, _end: ReceiveEnd) {
        if self.sockets.link(socket).is_some() {
            self.empty_inbox(ring, socket);
        }
        if let Some(State::Open(connection)) = self.sockets.state(socket) {
            let connection = *connection;
            self.core.receive_ended(self.now, connection);
            self.carry_out(ring);
        }
    }

    fn sent(
        &mut self,
        ring: &mut Ring,
        socket: SocketKey,
        outgoing: Outgoing,
        result: Result<usize, i32>,
    ) {
        let is_layered = self.sockets.link(socket).is_some();
        match self.sockets.state(socket) {
            Some(State::Open(_)) if is_layered => {
                self.sent_layered(ring, socket, outgoing, result.is_ok());
            }
            Some(State::Open(connection)) => {
                let connection = *connection;
                if result.is_ok() {
                    self.core.sent(self.now, connection, outgoing);
                } else {
                    self.core.recycle(outgoing);
                    self.core.receive_ended(self.now, connection);
                }
                self.carry_out(ring);
            }
            Some(State::Closing { rest }) => {
                let rest = rest.take().filter(|_| result.is_ok());
                if let Some(rest) = rest
                    && let Err(rest) = ring.send(socket, rest)
                {
                    self.core.recycle(rest);
                }
                self.core.recycle(outgoing);
                ring.close_after_send(socket);
            }
            Some(State::Leaving { .. }) | None => self.core.recycle(outgoing),
        }
    }

    fn released(&mut self, _ring: &mut Ring, socket: SocketKey, descriptor: OwnedFd) {
        if let Some(left) = self.sockets.remove(socket)
            && let State::Leaving {
                home,
                bytes,
                admitted,
            } = left.state
        {
            let handover = Handover {
                descriptor,
                bytes,
                admitted,
                origin: left.origin,
                link: left.under.map(|under| Box::new(under.link)),
            };
            self.handovers.push_back((home, handover));
        }
    }

    fn closed(&mut self, _ring: &mut Ring, socket: SocketKey) {
        if let Some(gone) = self.sockets.remove(socket) {
            self.forget_address(gone.origin.counted);
        }
    }
}
