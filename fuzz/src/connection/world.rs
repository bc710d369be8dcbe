//! Sockets, mail, time and storage around the cores, in the order in which the driver serves them.

use super::peer::Peer;
use super::profile::Profile;
use ringmq::engine::access::Arrival;
use ringmq::engine::keys::{ConnectionKey, ShardId};
use ringmq::engine::outbox::outgoing::Outgoing;
use ringmq::engine::route::ShardSet;
use ringmq::engine::route::retained::Budget;
use ringmq::engine::session::outbound::QueueFull;
use ringmq::engine::shard::takeover::Look;
use ringmq::engine::shard::{Command, ConnectionCounts, Settings, ShardCore};
use ringmq::engine::time::{Lasted, Timestamp};
use ringmq::engine::turn::{self, Letter, Pending, Post, Queues, Rest, Surroundings, Whereabouts};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Sockets that are open at once while operations are applied.
pub const SOCKETS: usize = 6;
/// Bytes that a client has sent and the broker not yet taken.
const INBOUND_BYTES_MAX: usize = 64 * 1024;
/// Rounds in which the world must come to rest once clients are silent.
const ROUNDS_MAX: usize = 20_000;
/// What a batch may hold beyond its limit for packets that the broker makes itself.
const SLACK_BYTES: usize = 4_096;

/// A connection on its way to its home shard.
struct Handover {
    socket: usize,
    bytes: Vec<u8>,
}

/// Letters from one shard to another; both ends hold it, as they do a queue between threads.
type Mailbox = Rc<RefCell<VecDeque<Letter<Handover>>>>;

/// A shard's way out.
struct Way {
    mailboxes: Vec<Mailbox>,
    letters_max: usize,
    /// Letters that went.
    posted: u64,
}

impl Post for Way {
    type Handover = Handover;

    fn post(&mut self, to: ShardId, letter: Letter<Handover>) -> Result<(), Letter<Handover>> {
        let mut mailbox = self.mailboxes[usize::from(to)].borrow_mut();
        if mailbox.len() >= self.letters_max {
            return Err(letter);
        }
        self.posted += 1;
        mailbox.push_back(letter);
        Ok(())
    }
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Open {
        shard: usize,
        key: ConnectionKey,
    },
    /// On its way to another shard.
    Leaving,
    Closed,
}

/// One connection, seen from outside.
pub struct Socket {
    pub peer: Peer,
    pub link: Link,
    inbound: Vec<u8>,
    is_paused: bool,
    in_flight: Option<Outgoing>,
    /// Bytes taken from it since its last batch: answers to them may exceed the limit.
    taken_bytes: usize,
    opened_at: u64,
    heard_at: u64,
    /// Its CONNACK was sent. It may have waited, and is silent from then on only.
    let_in_at: u64,
    /// It was cut while it was on its way.
    is_cut: bool,
}

struct Shard {
    core: ShardCore,
    pending: Pending<Handover>,
    way: Way,
    /// By sender.
    incoming: Vec<Mailbox>,
    ticket: u64,
}

/// Everything around the cores.
pub struct World {
    shards: Vec<Shard>,
    pub sockets: Vec<Option<Socket>>,
    pub settings: Rc<Settings>,
    pub now_ms: u64,
    counts: Arc<ConnectionCounts>,
    /// Client identifiers that have been used.
    pub client_ids: BTreeSet<String>,
    /// QoS 2 publishes by client identifier.
    pub exactly_once: BTreeMap<String, usize>,
    /// Unknown bytes may have opened sessions under unknown names.
    pub has_unknown_sessions: bool,
    pub is_stopping: bool,
    /// Grows with everything that happens.
    activity: u64,
}

impl World {
    pub fn new(profile: &Profile) -> Self {
        let counts = Arc::new(ConnectionCounts::new(1));
        let count = profile.shards();
        // By receiver, then sender.
        let row = || (0..count).map(|_| Mailbox::default()).collect();
        let mailboxes: Vec<Vec<Mailbox>> = (0..count).map(|_| row()).collect();
        let budget = Arc::new(Budget::default());
        let core = |id: ShardId| {
            let (settings, counts) = (profile.settings(), Arc::clone(&counts));
            let mut core = ShardCore::new(id, count, settings, u64::from(id) + 1, counts);
            core.share_retained(Arc::clone(&budget));
            core
        };
        let shard = |id| Shard {
            core: core(id),
            pending: Pending::default(),
            way: Way {
                mailboxes: mailboxes
                    .iter()
                    .map(|row| Rc::clone(&row[usize::from(id)]))
                    .collect(),
                letters_max: profile.mailbox_letters_max(),
                posted: 0,
            },
            incoming: mailboxes[usize::from(id)].clone(),
            ticket: 0,
        };
        World {
            shards: (0..count).map(shard).collect(),
            sockets: (0..SOCKETS).map(|_| None).collect(),
            settings: Rc::new(profile.settings()),
            now_ms: 1_000,
            counts,
            client_ids: BTreeSet::new(),
            exactly_once: BTreeMap::new(),
            has_unknown_sessions: false,
            is_stopping: false,
            activity: 0,
        }
    }

    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    pub const fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms)
    }

    /// A gauge or counter by name, over all shards.
    pub fn statistic(&self, name: &str) -> u64 {
        let of = |shard: &Shard| {
            let statistics = shard.core.statistics();
            let found = statistics.iter().find(|(known, _)| *known == name);
            found.map_or_else(|| panic!("no statistic {name}"), |(_, value)| *value)
        };
        self.shards.iter().map(of).sum()
    }

    pub fn connections(&self) -> usize {
        self.counts.all()
    }

    pub fn deadline(&self) -> Option<u64> {
        let of = |shard: &Shard| shard.core.deadline();
        let next = self.shards.iter().filter_map(of).min();
        next.map(Timestamp::as_ms)
    }

    pub fn peer(&mut self, socket: usize) -> Option<&mut Peer> {
        let socket = self.sockets.get_mut(socket)?.as_mut()?;
        (socket.link != Link::Closed).then_some(&mut socket.peer)
    }

    /// A client connects to a shard; a socket that is in use stays as it is.
    pub fn open(&mut self, socket: usize, shard: usize, peer: Peer) -> bool {
        let is_free = |known: &Socket| known.link == Link::Closed;
        if socket >= self.sockets.len() {
            self.sockets.resize_with(socket + 1, || None);
        }
        if !self.sockets[socket].as_ref().is_none_or(is_free) {
            return false;
        }
        let now = self.now();
        let shard = shard % self.shards.len();
        self.sockets[socket] = self.shards[shard].core.accept(now, 0).map(|key| Socket {
            peer,
            link: Link::Open { shard, key },
            inbound: Vec::new(),
            is_paused: false,
            in_flight: None,
            taken_bytes: 0,
            opened_at: self.now_ms,
            heard_at: self.now_ms,
            let_in_at: 0,
            is_cut: false,
        });
        self.sockets[socket].is_some()
    }

    /// A client sends; returns whether there was room for it.
    pub fn send(&mut self, socket: usize, bytes: &[u8]) -> bool {
        let Some(Some(socket)) = self.sockets.get_mut(socket) else {
            return false;
        };
        let has_room = socket.inbound.len() + bytes.len() <= INBOUND_BYTES_MAX;
        if has_room {
            socket.inbound.extend_from_slice(bytes);
        }
        has_room
    }

    /// The broker receives up to `bytes` of what the client has sent.
    pub fn deliver(&mut self, index: usize, bytes: usize) {
        let now = self.now();
        let Some(Some(socket)) = self.sockets.get_mut(index) else {
            return;
        };
        let Link::Open { shard, key } = socket.link else {
            return;
        };
        let core = &mut self.shards[shard].core;
        if socket.is_paused || socket.inbound.is_empty() {
            return;
        }
        let bytes = bytes.clamp(1, socket.inbound.len());
        let received: Vec<_> = socket.inbound.drain(..bytes).collect();
        socket.taken_bytes += received.len();
        socket.heard_at = self.now_ms;
        self.activity += 1;
        core.receive(now, key, &received);
        self.carry_out(shard);
    }

    /// The client's end is gone.
    pub fn cut(&mut self, index: usize) {
        let now = self.now();
        let Some(Some(socket)) = self.sockets.get_mut(index) else {
            return;
        };
        socket.inbound.clear();
        socket.peer.is_guilty = true;
        match socket.link {
            Link::Open { shard, key } => {
                self.shards[shard].core.receive_ended(now, key);
                self.carry_out(shard);
            }
            Link::Leaving => socket.is_cut = true,
            Link::Closed => {}
        }
    }

    /// The batch in flight is out, or the connection has failed.
    pub fn complete_send(&mut self, index: usize, is_ok: bool) {
        let now = self.now();
        let Some(Some(socket)) = self.sockets.get_mut(index) else {
            return;
        };
        let Link::Open { shard, key } = socket.link else {
            return;
        };
        let Some(batch) = socket.in_flight.take() else {
            return;
        };
        self.activity += 1;
        let core = &mut self.shards[shard].core;
        if is_ok {
            core.sent(now, key, batch);
        } else {
            socket.peer.is_guilty = true;
            core.recycle(batch);
            core.receive_ended(now, key);
        }
        self.carry_out(shard);
    }

    /// The broker stops, in two steps.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        for socket in self.sockets.iter_mut().flatten() {
            socket.peer.is_guilty = true;
        }
        for shard in 0..self.shards.len() {
            self.shards[shard].core.publish_wills();
        }
        self.rest();
        for shard in 0..self.shards.len() {
            self.shards[shard].core.disconnect_all();
            self.carry_out(shard);
        }
        self.rest();
    }

    /// One round of a shard's driver. `stores` tells whether the store has got so far.
    pub fn turn(&mut self, shard: usize, stores: bool) {
        let shard = shard % self.shards.len();
        let now = self.now();
        let due = self.shards[shard].core.deadline();
        if due.is_some_and(|due| due <= now) {
            self.blame_the_silent();
            self.activity += 1;
        }
        let posted = self.shards[shard].way.posted;
        let mut around = Around {
            world: self,
            shard,
            stores,
        };
        let mut rest = turn::turn(&mut around);
        if around.core().deadline().is_some_and(|due| due <= now) {
            // What was done between turns left outboxes full: such a turn only sends.
            rest = turn::turn(&mut around);
        }
        let goes_on = rest == Rest::GoOn || turn::has_news(&mut around);
        self.activity += u64::from(goes_on) + self.shards[shard].way.posted - posted;
        self.check_bounds(shard);
        self.check_silence(shard);
    }

    fn adopt(&mut self, shard: usize, index: usize, bytes: &[u8]) {
        let now = self.now();
        let key = self.shards[shard].core.adopt(now, 0, Arrival::default());
        let Some(socket) = &mut self.sockets[index] else {
            panic!("a handed over socket is there");
        };
        socket.link = Link::Open { shard, key };
        socket.opened_at = self.now_ms;
        socket.heard_at = self.now_ms;
        self.shards[shard].core.receive(now, key, bytes);
        self.carry_out(shard);
        if self.sockets[index].as_ref().is_some_and(|s| s.is_cut) {
            self.cut(index);
        }
    }

    fn find(&self, shard: usize, key: ConnectionKey) -> Option<usize> {
        let link = Link::Open { shard, key };
        let is_it = |socket: &Option<Socket>| socket.as_ref().is_some_and(|s| s.link == link);
        self.sockets.iter().position(is_it)
    }

    fn carry_out(&mut self, shard: usize) {
        let mut commands = Vec::new();
        self.shards[shard].core.take_commands(&mut commands);
        for command in commands {
            let (Command::Close { connection, .. }
            | Command::Abort(connection)
            | Command::Handover { connection, .. }
            | Command::Authenticate { connection, .. }
            | Command::Pause(connection)
            | Command::Resume(connection)) = &command;
            let Some(index) = self.find(shard, *connection) else {
                panic!("{command:?} for a connection that is gone");
            };
            self.carry_out_one(shard, index, command);
        }
    }

    fn carry_out_one(&mut self, shard: usize, index: usize, command: Command) {
        self.activity += 1;
        let Some(socket) = &mut self.sockets[index] else {
            return;
        };
        match command {
            Command::Abort(_) => panic!("nobody is turned away here"),
            Command::Close { rest, place, .. } => {
                self.shards[shard].core.vacate(place);
                check_batch(&self.settings, socket, &rest);
                if let Some(batch) = socket.in_flight.take() {
                    self.shards[shard].core.recycle(batch);
                }
                rest.slices().for_each(|slice| socket.peer.hear(slice));
                socket.link = Link::Closed;
                if !self.is_stopping {
                    let may_overflow = self.settings.queue_full == QueueFull::Disconnect;
                    socket.peer.closed(may_overflow);
                }
                self.client_ids.extend(socket.peer.assigned_id.take());
                self.shards[shard].core.recycle(rest);
            }
            Command::Handover { home, bytes, .. } => {
                assert_ne!(usize::from(home), shard, "handed over to itself");
                assert!(socket.in_flight.is_none(), "handed over while sending");
                socket.link = Link::Leaving;
                let handover = Handover {
                    socket: index,
                    bytes,
                };
                self.shards[shard].pending.hand_over(home, handover);
            }
            Command::Authenticate { .. } => panic!("no authentication method is configured"),
            Command::Pause(_) => {
                assert!(!socket.is_paused, "paused twice");
                socket.is_paused = true;
            }
            Command::Resume(_) => {
                assert!(socket.is_paused, "resumed but not paused");
                socket.is_paused = false;
            }
        }
    }

    fn send_batch(&mut self, shard: usize, key: ConnectionKey, batch: Outgoing) {
        let Some(index) = self.find(shard, key) else {
            panic!("a batch for a connection that is gone");
        };
        let Some(socket) = &mut self.sockets[index] else {
            return;
        };
        self.activity += 1;
        assert!(socket.in_flight.is_none(), "two batches in flight");
        assert!(!batch.is_empty(), "an empty batch");
        check_batch(&self.settings, socket, &batch);
        socket.taken_bytes = 0;
        let was_open = socket.peer.is_open;
        batch.slices().for_each(|slice| socket.peer.hear(slice));
        if socket.peer.is_open && !was_open {
            socket.let_in_at = self.now_ms;
        }
        self.client_ids.extend(socket.peer.assigned_id.clone());
        socket.in_flight = Some(batch);
    }

    /// Who has been silent too long may be closed from now on.
    fn blame_the_silent(&mut self) {
        let (now, timeout) = (self.now_ms, self.settings.limits.connect_timeout_ms);
        for socket in self.sockets.iter_mut().flatten() {
            let late = !socket.peer.is_open && socket.opened_at + timeout <= now;
            socket.peer.is_guilty |= late || is_silent(socket, now);
        }
    }

    /// Who has been silent too long has been closed, unless packets of clients had to wait: nobody is silent
    /// whom the broker does not read.
    fn check_silence(&self, shard: usize) {
        let counters = self.shards[shard].core.counters();
        if counters.packets_deferred + counters.publishers_paused_room > 0 {
            return;
        }
        for socket in self.sockets.iter().flatten() {
            let is_here = matches!(socket.link, Link::Open { shard: here, .. } if here == shard);
            let since = socket.heard_at.max(socket.let_in_at);
            let is_overdue = socket.peer.is_open && is_silent_since(socket, since, self.now_ms);
            assert!(
                !is_here || !is_overdue || socket.peer.is_wild,
                "silent beyond its keep alive and still connected"
            );
        }
    }

    fn check_bounds(&self, shard: usize) {
        let statistics = self.shards[shard].core.statistics();
        let of = |name: &str| {
            let found = statistics.iter().find(|(known, _)| *known == name);
            found.map_or(0, |(_, value)| *value as usize)
        };
        let limits = &self.settings.limits;
        let sessions = of("sessions");
        assert!(of("queued_messages") <= sessions * limits.queue_messages_max);
        assert!(of("inflight_messages") <= sessions * usize::from(limits.inflight_max));
        assert!(of("subscriptions") <= sessions * limits.subscriptions_per_session_max);
        // All shards keep them within one limit.
        assert!(self.of_all("retained_messages") <= limits.retained_messages_max);
        assert!(self.of_all("retained_bytes") <= limits.retained_bytes_max);
    }

    fn of_all(&self, name: &str) -> usize {
        let statistics = self.shards.iter().map(|shard| shard.core.statistics());
        let found = statistics.flatten().filter(|(known, _)| *known == name);
        found.map(|(_, value)| value as usize).sum()
    }

    /// Goes on without a client doing anything until nothing happens any more.
    pub fn rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let before = self.activity;
            for shard in 0..self.shards.len() {
                self.turn(shard, true);
            }
            for socket in 0..self.sockets.len() {
                self.complete_send(socket, true);
                self.deliver(socket, usize::MAX);
            }
            let mut shards = self.shards.iter();
            let waits = shards.any(|shard| shard.core.takeovers_to_look_at() > 0);
            if self.activity == before && !waits {
                return self.check_rest();
            }
        }
        panic!("the shards do not come to rest");
    }

    fn check_rest(&mut self) {
        for shard in &mut self.shards {
            assert!(shard.core.staged().is_empty() && shard.pending.handovers() == 0);
            assert!(!shard.core.has_work());
        }
        for socket in self.sockets.iter().flatten() {
            let is_stuck = matches!(socket.link, Link::Open { .. }) && socket.is_paused;
            assert!(!is_stuck, "paused for good: {:?}", socket.peer);
            assert_ne!(socket.link, Link::Leaving, "never arrived");
        }
    }
}

fn is_silent(socket: &Socket, now_ms: u64) -> bool {
    is_silent_since(socket, socket.heard_at, now_ms)
}

fn is_silent_since(socket: &Socket, since: u64, now_ms: u64) -> bool {
    let silence_ms_max = u64::from(socket.peer.keep_alive_seconds) * 1_500;
    silence_ms_max > 0 && since + silence_ms_max <= now_ms
}

/// A batch holds what an outbox may hold, one packet of any size, and answers to what was received.
fn check_batch(settings: &Settings, socket: &Socket, batch: &Outgoing) {
    let limits = &settings.limits;
    // All that is in flight may come at once: references, but for small ones. A resumed session gets it with
    // its CONNACK, and messages of QoS 2 are sent when their identifiers are stored.
    let in_flight = if socket.peer.is_open && !settings.stores {
        0
    } else {
        usize::from(limits.inflight_max) * limits.max_packet_bytes
    };
    let max = limits.outbox_bytes_max + limits.max_packet_bytes + SLACK_BYTES + in_flight;
    let bytes = batch.len();
    assert!(
        bytes <= max + 2 * socket.taken_bytes,
        "a batch of {bytes} bytes where {max} are allowed"
    );
}

/// One shard's turn in the world.
struct Around<'a> {
    world: &'a mut World,
    shard: usize,
    /// Whether the store has got so far.
    stores: bool,
}

impl Queues for Around<'_> {
    fn visible(&mut self, from: ShardId) -> usize {
        let mailbox = &self.world.shards[self.shard].incoming[usize::from(from)];
        mailbox.borrow().len()
    }

    fn has_room(&mut self, blocked: ShardSet) -> bool {
        let way = &self.world.shards[self.shard].way;
        let has_room =
            |to: ShardId| way.mailboxes[usize::from(to)].borrow().len() < way.letters_max;
        blocked.iter().any(has_room)
    }

    fn next_home(&mut self) -> Option<ShardId> {
        self.world.shards[self.shard].pending.next_home()
    }

    fn has_orders(&mut self) -> bool {
        false
    }

    fn core(&mut self) -> &mut ShardCore {
        &mut self.world.shards[self.shard].core
    }
}

impl Surroundings for Around<'_> {
    type Handover = Handover;
    type Post = Way;

    fn parts(&mut self) -> (&mut ShardCore, &mut Pending<Handover>, &mut Way) {
        let shard = &mut self.world.shards[self.shard];
        (&mut shard.core, &mut shard.pending, &mut shard.way)
    }

    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn lasted(&self) -> Lasted {
        // Long ones now and then.
        let turn_us = self.world.now_ms * 7_919 % 6_007;
        let round_us = turn_us + self.world.now_ms * 104_729 % 3_001;
        Lasted { turn_us, round_us }
    }

    /// What clients send is delivered by operations of its own.
    fn serve(&mut self) -> bool {
        false
    }

    fn collect(&mut self, from: ShardId) -> Option<Letter<Handover>> {
        self.world.activity += 1;
        let mailbox = &self.world.shards[self.shard].incoming[usize::from(from)];
        mailbox.borrow_mut().pop_front()
    }

    fn made_room(&mut self, _from: ShardId) {}

    fn adopt(&mut self, handover: Handover) {
        self.world
            .adopt(self.shard, handover.socket, &handover.bytes);
    }

    fn has_read_out(&mut self, connection: ConnectionKey, _look: &mut Look) -> bool {
        let here = self.shard;
        let sockets = self.world.sockets.iter().flatten();
        let mut older = sockets.filter(|socket| {
            matches!(socket.link, Link::Open { shard, key } if shard == here && key == connection)
        });
        older.all(|socket| socket.inbound.is_empty())
    }

    fn whereabouts(&mut self, _connection: ConnectionKey) -> Whereabouts {
        Whereabouts::There
    }

    fn follow_control(&mut self) {}

    fn commit(&mut self) {
        let shard = &mut self.world.shards[self.shard];
        let taken = shard.core.take_persist().map(|persist| persist.ticket);
        for ticket in taken.collect::<Vec<_>>() {
            assert_eq!(ticket, shard.ticket + 1, "tickets ascend by one");
            shard.ticket = ticket;
        }
        if self.stores {
            let now = self.world.now();
            let shard = &mut self.world.shards[self.shard];
            shard.core.stored(now, shard.ticket);
        }
    }

    fn carry_out(&mut self) {
        self.world.carry_out(self.shard);
    }

    fn send(&mut self, connection: ConnectionKey, batch: Outgoing) {
        self.world.send_batch(self.shard, connection, batch);
    }

    fn wake(&mut self, _receivers: ShardSet) {}
}
