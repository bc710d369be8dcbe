//! The broker without its shell: cores, mailboxes and connections in one thread, in virtual time.
//!
//! Runs the turns that the driver runs ([`turn`]), but decides at random which shard gets on, which connection
//! is read, how much of what was sent arrives, and when the store commits; mailboxes may be tiny.

mod crash;

use crate::kept::Kept;
use crate::random::Random;
use ringmq::engine::access::{Admitted, Arrival};
use ringmq::engine::bridge;
use ringmq::engine::keys::{ConnectionKey, ShardId};
use ringmq::engine::outbox::outgoing::Outgoing as Batch;
use ringmq::engine::overload::Meter;
use ringmq::engine::receipt::Level;
use ringmq::engine::route::{ShardSet, home_shard};
use ringmq::engine::shard::store_room::StoreRoom;
use ringmq::engine::shard::takeover::Look;
use ringmq::engine::shard::{Command, ConnectionCounts, Settings, ShardCore};
use ringmq::engine::time::{Lasted, Timestamp};
use ringmq::engine::turn::{self, Letter, Pending, Post, Queues, Rest, Surroundings, Whereabouts};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// A connection between client and broker.
pub type LinkId = usize;

/// A connection on its way to its home shard.
struct Handover {
    link: LinkId,
    bytes: Vec<u8>,
}

/// Letters from one shard to another; both ends hold it, as they do a queue between threads.
#[derive(Default)]
struct Letters {
    letters: VecDeque<Letter<Handover>>,
    /// The sender found it full and has found no room since.
    is_room_wanted: bool,
}

type Mailbox = Rc<RefCell<Letters>>;

/// A shard's way out.
struct Outgoing {
    mailboxes: Vec<Mailbox>,
    letters_max: usize,
}

impl Post for Outgoing {
    type Handover = Handover;

    fn post(&mut self, to: ShardId, letter: Letter<Handover>) -> Result<(), Letter<Handover>> {
        let mut mailbox = self.mailboxes[usize::from(to)].borrow_mut();
        mailbox.is_room_wanted = mailbox.letters.len() >= self.letters_max;
        if mailbox.is_room_wanted {
            return Err(letter);
        }
        mailbox.letters.push_back(letter);
        Ok(())
    }
}

enum State {
    Open(ConnectionKey),
    Leaving(ShardId, Vec<u8>),
    /// On its way between shards.
    Travelling,
    Closing(Option<Batch>),
    Closed,
}

/// Both directions of a connection.
pub struct Link {
    shard: usize,
    listener: u16,
    state: State,
    to_broker: VecDeque<u8>,
    /// No more comes from the client after what is in `to_broker`.
    ends: bool,
    in_flight: Option<Batch>,
    is_paused: bool,
    /// What the client has not read yet.
    pub to_client: VecDeque<u8>,
    /// The broker has closed.
    pub is_closed_by_broker: bool,
    /// The client has gone.
    pub is_cut: bool,
}

struct Shard {
    core: ShardCore,
    pending: Pending<Handover>,
    outgoing: Outgoing,
    /// By sender.
    incoming: Vec<Mailbox>,
    /// Tickets that wait for the store, and the last that it has.
    uncommitted: VecDeque<u64>,
    stored: u64,
    /// The last that the operating system has.
    written: u64,
    /// What the store was told.
    kept: Kept,
    links: Vec<LinkId>,
    /// It sleeps, until then if nobody wakes it.
    sleeps_until: Option<Timestamp>,
    is_woken: bool,
    /// Its turn is over, and it has not announced its sleep yet.
    is_resting: bool,
}

impl Shard {
    /// The store gets what this turn has for it.
    fn take_persist(&mut self) {
        let known = self.uncommitted.back().copied().unwrap_or(self.stored);
        let last = self.kept.put(self.core.take_persist());
        self.uncommitted.extend(known + 1..=last.unwrap_or(known));
    }
}

/// How often what the store was told is compared with what there is, per mille of commits.
const KEPT_LOOKS: u32 = 60;

/// How rough the world is, per mille.
#[derive(Clone, Debug)]
pub struct Roughness {
    /// A link is read in a turn.
    pub read: u32,
    /// A send completes in a turn.
    pub complete: u32,
    /// A shard gets on when it is its turn.
    pub run: u32,
    /// The store commits in a turn.
    pub commit: u32,
    /// A checkpoint begins in a turn.
    pub checkpoint: u32,
    /// Records that may wait for the store before publishers do; not per mille.
    pub pending_max: usize,
}

/// Cores, mail, links, time.
pub struct World {
    seed: u64,
    settings: Settings,
    letters_max: usize,
    shards: Vec<Shard>,
    pub links: Vec<Link>,
    pub now_ms: u64,
    pub roughness: Roughness,
    memory: Shown,
    /// For what is written before it is stored, and how the broker ends.
    of_store: Random,
    /// Memory has been almost gone.
    pub was_refusing: bool,
    /// What is wrong with what the shards gave the store.
    pub fault: Option<String>,
}

/// By listener, how safe what its clients publish is when it is acknowledged.
pub const LEVELS: [Level; 3] = [Level::Disk, Level::Os, Level::Memory];

/// What may be used, as [`World::use_memory`] counts.
pub const MEMORY_MAX: u64 = 1000;

/// Shows the shards how much memory is used.
#[derive(Clone, Default)]
struct Shown(Rc<Cell<u64>>);

impl Meter for Shown {
    fn used_bytes(&self) -> u64 {
        self.0.get()
    }
}

impl World {
    pub fn new(
        shards: usize,
        seed: u64,
        settings: &Settings,
        letters_max: usize,
        roughness: Roughness,
    ) -> Self {
        let mut world = World {
            seed,
            settings: settings.clone(),
            letters_max,
            shards: Vec::new(),
            links: Vec::new(),
            now_ms: 1000,
            roughness,
            memory: Shown::default(),
            of_store: Random::new(!seed),
            was_refusing: false,
            fault: None,
        };
        world.shards = world.fresh_shards(shards);
        world
    }

    /// Shards that know nothing and nobody.
    fn fresh_shards(&self, shards: usize) -> Vec<Shard> {
        let connections = Arc::new(ConnectionCounts::new(LEVELS.len()));
        let count = shards as ShardId;
        // By receiver, then sender.
        let row = || (0..shards).map(|_| Mailbox::default()).collect();
        let mailboxes: Vec<Vec<Mailbox>> = (0..shards).map(|_| row()).collect();
        let core = |id| {
            let counts = connections.clone();
            let mut core = ShardCore::new(id, count, self.settings.clone(), self.seed, counts);
            core.measure_memory(Box::new(self.memory.clone()), MEMORY_MAX);
            core
        };
        let shard = |id: usize| Shard {
            core: core(id as ShardId),
            pending: Pending::default(),
            outgoing: Outgoing {
                mailboxes: mailboxes.iter().map(|row| row[id].clone()).collect(),
                letters_max: self.letters_max,
            },
            incoming: mailboxes[id].clone(),
            uncommitted: VecDeque::new(),
            stored: 0,
            written: 0,
            kept: Kept::new(id as ShardId, self.seed),
            links: Vec::new(),
            sleeps_until: None,
            is_woken: false,
            is_resting: false,
        };
        (0..shards).map(shard).collect()
    }

    /// So much memory is used from now on, of [`MEMORY_MAX`].
    pub fn use_memory(&mut self, used: u64) {
        self.memory.0.set(used);
        // In time also while who publishes is not read.
        self.was_refusing |= used >= 900;
    }

    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms)
    }

    /// A client connects; the kernel picks a shard.
    pub fn open(&mut self, shard: usize, level: Level) -> LinkId {
        let listener = LEVELS.iter().position(|it| *it == level);
        let listener = listener.expect("a level") as u16;
        let now = self.now();
        let key = self.shards[shard]
            .core
            .accept(now, listener)
            .expect("below the limit");
        self.add_link(shard, listener, key)
    }

    /// A bridge's line begins, at the home of its session.
    pub fn open_line(&mut self, session_id: &str, admitted: Admitted) -> LinkId {
        let shard = usize::from(home_shard(session_id, self.shards.len() as ShardId));
        let now = self.now();
        let key = self.shards[shard].core.begin_line(now, Box::new(admitted));
        self.add_link(shard, bridge::LISTENER, key)
    }

    fn add_link(&mut self, shard: usize, listener: u16, key: ConnectionKey) -> LinkId {
        self.assert_unused(shard, key);
        let id = self.links.len();
        self.links.push(Link {
            shard,
            listener,
            state: State::Open(key),
            to_broker: VecDeque::new(),
            ends: false,
            in_flight: None,
            is_paused: false,
            to_client: VecDeque::new(),
            is_closed_by_broker: false,
            is_cut: false,
        });
        self.shards[shard].links.push(id);
        id
    }

    /// A client sends.
    pub fn send(&mut self, link: LinkId, bytes: &[u8]) {
        let link = &mut self.links[link];
        if !link.is_cut {
            link.to_broker.extend(bytes);
        }
    }

    /// Whether the broker has closed a link, or is about to.
    pub fn is_closing(&self, link: LinkId) -> bool {
        let state = &self.links[link].state;
        matches!(state, State::Closing(_) | State::Closed)
    }

    /// The connection breaks: of what the client sent, only `arrives` bytes still reach the broker.
    pub fn cut(&mut self, link: LinkId, arrives: usize) {
        let link = &mut self.links[link];
        link.is_cut = true;
        link.ends = true;
        link.to_broker.truncate(arrives);
        link.to_client.clear();
    }

    /// Breaks every connection but these: nobody is there any more.
    pub fn cut_others(&mut self, current: &[LinkId]) {
        for link in (0..self.links.len()).filter(|link| !current.contains(link)) {
            if !self.links[link].is_cut {
                self.cut(link, 0);
            }
        }
    }

    /// Bytes that have not reached the broker.
    pub fn unsent(&self, link: LinkId) -> usize {
        self.links[link].to_broker.len()
    }

    /// One turn of one shard, if it is awake and gets on. It takes the driver's decision to sleep.
    pub fn turn(&mut self, shard: usize, random: &mut Random) {
        let is_resting = self.shards[shard].is_resting;
        if is_resting || !self.is_awake(shard) || !random.chance(self.roughness.run) {
            return;
        }
        self.shards[shard].sleeps_until = None;
        self.shards[shard].is_woken = false;
        let mut around = Around {
            world: self,
            shard,
            random,
        };
        if let Rest::Sleep(until) = turn::turn(&mut around) {
            // Others get on between its last work and its announcement: the look after that has to tell.
            if around.random.chance(300) {
                let other = around.random.below(around.world.shards.len());
                if other != shard {
                    around.world.shards[shard].is_resting = true;
                    around.world.turn(other, around.random);
                    around.world.shards[shard].is_resting = false;
                }
            }
            around.world.shards[shard].sleeps_until = Some(until);
            if turn::has_news(&mut around) {
                around.world.shards[shard].sleeps_until = None;
            }
        }
    }

    /// Whether a shard does not sleep, or something has come that wakes it: a completion of its ring or its
    /// store, a wake by another shard, its time.
    fn is_awake(&self, shard: usize) -> bool {
        let sleeping = &self.shards[shard];
        let Some(until) = sleeping.sleeps_until else {
            return true;
        };
        let completes = |link: &Link| match link.state {
            State::Open(_) => {
                link.in_flight.is_some()
                    || !link.is_paused && (link.ends || !link.to_broker.is_empty())
            }
            State::Leaving(..) => true,
            State::Closing(_) => link.in_flight.is_some(),
            State::Travelling | State::Closed => false,
        };
        sleeping.is_woken
            || until <= self.now()
            || !sleeping.uncommitted.is_empty()
            || sleeping.links.iter().any(|id| completes(&self.links[*id]))
    }

    fn wake(&mut self, shard: usize) {
        let sleeper = &mut self.shards[shard];
        sleeper.is_woken |= sleeper.sleeps_until.is_some();
    }

    fn serve_link(&mut self, shard: usize, id: LinkId, random: &mut Random) {
        if random.chance(self.roughness.complete) {
            self.complete_send(shard, id);
        }
        if !random.chance(self.roughness.read) || self.links[id].shard != shard {
            return;
        }
        let now = self.now();
        let link = &mut self.links[id];
        let is_open = matches!(link.state, State::Open(_));
        if link.is_paused && is_open {
            return;
        }
        let available = link.to_broker.len();
        let count = match random.below(3) {
            0 => available.min(1 + random.below(7)),
            1 => random.below(available + 1),
            _ => available,
        };
        let bytes: Vec<u8> = link.to_broker.drain(..count).collect();
        match &mut link.state {
            State::Open(key) => {
                let key = *key;
                if !bytes.is_empty() {
                    self.shards[shard].core.receive(now, key, &bytes);
                    self.carry_out(shard);
                }
                self.end_receive(shard, id);
            }
            State::Leaving(home, so_far) => {
                so_far.extend_from_slice(&bytes);
                if random.chance(500) {
                    let (home, so_far) = (*home, std::mem::take(so_far));
                    link.state = State::Travelling;
                    let handover = Handover {
                        link: id,
                        bytes: so_far,
                    };
                    self.shards[shard].pending.hand_over(home, handover);
                    self.shards[shard].links.retain(|other| *other != id);
                }
            }
            State::Travelling | State::Closing(_) | State::Closed => {}
        }
    }

    /// Tells the core that the client is gone, once everything before is read.
    fn end_receive(&mut self, shard: usize, id: LinkId) {
        let now = self.now();
        let link = &mut self.links[id];
        if let State::Open(key) = link.state
            && link.ends
            && link.to_broker.is_empty()
        {
            link.ends = false;
            self.shards[shard].core.receive_ended(now, key);
            self.carry_out(shard);
        }
    }

    fn complete_send(&mut self, shard: usize, id: LinkId) {
        let now = self.now();
        let link = &mut self.links[id];
        let Some(batch) = link.in_flight.take() else {
            return;
        };
        if !link.is_cut {
            for slice in batch.slices() {
                link.to_client.extend(slice);
            }
        }
        match &mut link.state {
            State::Open(key) if link.is_cut => {
                // The send fails, and that is how a paused reader hears of the end.
                let key = *key;
                link.ends = false;
                link.to_broker.clear();
                self.shards[shard].core.recycle(batch);
                self.shards[shard].core.receive_ended(now, key);
                self.carry_out(shard);
            }
            State::Open(key) => {
                let key = *key;
                self.shards[shard].core.sent(now, key, batch);
                self.carry_out(shard);
            }
            State::Closing(rest) => {
                let rest = rest.take();
                self.shards[shard].core.recycle(batch);
                match rest {
                    Some(rest) => link.in_flight = Some(rest),
                    None => self.finish_close(shard, id),
                }
            }
            _ => self.shards[shard].core.recycle(batch),
        }
    }

    fn finish_close(&mut self, shard: usize, id: LinkId) {
        let link = &mut self.links[id];
        link.state = State::Closed;
        link.is_closed_by_broker = true;
        self.shards[shard].links.retain(|other| *other != id);
    }

    fn adopt(&mut self, shard: usize, link: LinkId, bytes: &[u8]) {
        let now = self.now();
        let listener = self.links[link].listener;
        let key = self.shards[shard]
            .core
            .adopt(now, listener, Arrival::default());
        self.assert_unused(shard, key);
        self.links[link].shard = shard;
        self.links[link].state = State::Open(key);
        self.shards[shard].links.push(link);
        self.shards[shard].core.receive(now, key, bytes);
        self.carry_out(shard);
    }

    fn commit(&mut self, shard: usize, random: &mut Random) {
        let now = self.now();
        let shard = &mut self.shards[shard];
        if random.chance(self.roughness.checkpoint) {
            shard.core.begin_checkpoint();
        }
        shard.take_persist();
        if self.fault.is_none() && random.chance(KEPT_LOOKS) {
            self.fault = shard.kept.check(&shard.core, now).err();
        }
        if !shard.uncommitted.is_empty() && self.of_store.chance(400) {
            let at = self.of_store.below(shard.uncommitted.len());
            shard.written = shard.written.max(shard.uncommitted[at]);
            shard.core.written(shard.written);
        }
        if random.chance(self.roughness.commit) && !shard.uncommitted.is_empty() {
            let count = 1 + random.below(shard.uncommitted.len());
            if let Some(through) = shard.uncommitted.drain(..count).next_back() {
                shard.stored = through;
                shard.written = shard.written.max(through);
                shard.core.stored(now, through);
            }
        }
        shard
            .core
            .set_store_room(if shard.uncommitted.len() > self.roughness.pending_max {
                StoreRoom::Behind
            } else {
                StoreRoom::Enough
            });
    }

    /// A shard's surroundings find a socket by the connection's place: nobody may get one that another's socket
    /// is still known by.
    fn assert_unused(&self, shard: usize, key: ConnectionKey) {
        let mut links = self.shards[shard].links.iter();
        let is_open =
            |id: &LinkId| matches!(self.links[*id].state, State::Open(k) if k.slot() == key.slot());
        assert!(
            !links.any(is_open),
            "the place of a connection that is not closed yet"
        );
    }

    fn link_of(&self, shard: usize, key: ConnectionKey) -> LinkId {
        let links = &self.shards[shard].links;
        let known = |id: &&LinkId| matches!(self.links[**id].state, State::Open(k) if k == key);
        *links.iter().find(known).expect("a connection that is open")
    }

    fn carry_out(&mut self, shard: usize) {
        let mut commands = Vec::new();
        self.shards[shard].core.take_commands(&mut commands);
        for command in commands {
            match command {
                Command::Abort(connection) => {
                    let id = self.link_of(shard, connection);
                    self.finish_close(shard, id);
                }
                Command::Close {
                    connection,
                    rest,
                    place,
                } => {
                    self.shards[shard].core.vacate(place);
                    let id = self.link_of(shard, connection);
                    let link = &mut self.links[id];
                    link.state = State::Closing(None);
                    match (rest.is_empty(), link.in_flight.is_some()) {
                        (true, false) => self.finish_close(shard, id),
                        (true, true) => {}
                        (false, true) => link.state = State::Closing(Some(rest)),
                        (false, false) => link.in_flight = Some(rest),
                    }
                }
                Command::Handover {
                    connection,
                    home,
                    bytes,
                    ..
                } => {
                    let id = self.link_of(shard, connection);
                    self.links[id].state = State::Leaving(home, bytes);
                }
                Command::Authenticate { connection, .. } => {
                    panic!("{connection:?} is to be authenticated, and no method is configured")
                }
                Command::Pause(connection) => {
                    let id = self.link_of(shard, connection);
                    self.links[id].is_paused = true;
                }
                Command::Resume(connection) => {
                    let id = self.link_of(shard, connection);
                    self.links[id].is_paused = false;
                }
            }
        }
    }

    /// What is still on its way, for the report of a failure.
    pub fn unrest(&mut self) -> String {
        let mut out = String::new();
        for (id, link) in self.links.iter().enumerate() {
            let is_open = matches!(link.state, State::Open(_));
            if !matches!(link.state, State::Closed) {
                out += &format!(
                    "link {id}: open {is_open}, {} to the broker, ends {}, sends {}, paused {}, cut {}; ",
                    link.to_broker.len(),
                    link.ends,
                    link.in_flight.is_some(),
                    link.is_paused,
                    link.is_cut
                );
            }
        }
        for (id, shard) in self.shards.iter_mut().enumerate() {
            let mail: usize = shard
                .incoming
                .iter()
                .map(|m| m.borrow().letters.len())
                .sum();
            out += &format!(
                "shard {id}: {mail} letters, {} handovers, {} tickets, {} staged, has work {}, sleeps until {:?}; ",
                shard.pending.handovers(),
                shard.uncommitted.len(),
                shard.core.staged().len(),
                shard.core.has_work(),
                shard.sleeps_until
            );
        }
        out
    }

    /// Whether nothing is on its way anywhere in the broker.
    pub fn is_quiet(&mut self) -> bool {
        let links_quiet = self.links.iter().all(|link| match link.state {
            State::Open(_) => link.to_broker.is_empty() && !link.ends && link.in_flight.is_none(),
            State::Closed => true,
            State::Leaving(..) | State::Travelling | State::Closing(_) => false,
        });
        links_quiet
            && self.shards.iter_mut().all(|shard| {
                shard
                    .incoming
                    .iter()
                    .all(|mailbox| mailbox.borrow().letters.is_empty())
                    && shard.pending.handovers() == 0
                    && shard.core.takeovers_to_look_at() == 0
                    && shard.uncommitted.is_empty()
                    && shard.core.staged().is_empty()
                    && !shard.core.has_work()
            })
    }

    /// A gauge or counter, summed over the shards.
    pub fn statistic(&self, name: &str) -> u64 {
        let all = self.shards.iter().flat_map(|shard| shard.core.statistics());
        all.filter(|(known, _)| *known == name)
            .map(|(_, value)| value)
            .sum()
    }

    /// All gauges that count what is kept, summed over the shards.
    pub fn kept(&self) -> Vec<(&'static str, u64)> {
        let names = [
            "connections",
            "sessions",
            "subscriptions",
            "filters",
            "retained_messages",
            "retained_bytes",
            "queued_messages",
            "inflight_messages",
        ];
        names.map(|name| (name, self.statistic(name))).to_vec()
    }
}

/// One shard's turn in the world.
struct Around<'a> {
    world: &'a mut World,
    shard: usize,
    random: &'a mut Random,
}

impl Queues for Around<'_> {
    fn visible(&mut self, from: ShardId) -> usize {
        // Meanwhile the others run.
        if self.random.chance(200) {
            let other = self.random.below(self.world.shards.len());
            let state = &self.world.shards[other];
            if other != self.shard && state.sleeps_until.is_none() && !state.is_resting {
                let mut around = Around {
                    world: self.world,
                    shard: other,
                    random: self.random,
                };
                turn::flush_mail(&mut around);
            }
        }
        let mailbox = self.world.shards[self.shard].incoming[usize::from(from)].borrow();
        mailbox.letters.len()
    }

    fn has_room(&mut self, blocked: ShardSet) -> bool {
        let outgoing = &self.world.shards[self.shard].outgoing;
        let has_room = |to: ShardId| {
            let mailbox = outgoing.mailboxes[usize::from(to)].borrow();
            mailbox.letters.len() < outgoing.letters_max
        };
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
    type Post = Outgoing;

    fn parts(&mut self) -> (&mut ShardCore, &mut Pending<Handover>, &mut Outgoing) {
        let shard = &mut self.world.shards[self.shard];
        (&mut shard.core, &mut shard.pending, &mut shard.outgoing)
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

    fn serve(&mut self) -> bool {
        for link in self.world.shards[self.shard].links.clone() {
            self.world.serve_link(self.shard, link, self.random);
        }
        false
    }

    fn collect(&mut self, from: ShardId) -> Option<Letter<Handover>> {
        self.world.shards[self.shard].incoming[usize::from(from)]
            .borrow_mut()
            .letters
            .pop_front()
    }

    fn made_room(&mut self, from: ShardId) {
        let mailbox = &self.world.shards[self.shard].incoming[usize::from(from)];
        let is_room_wanted = mailbox.borrow().is_room_wanted;
        if is_room_wanted {
            self.world.wake(usize::from(from));
        }
    }

    fn adopt(&mut self, handover: Handover) {
        self.world.adopt(self.shard, handover.link, &handover.bytes);
    }

    fn has_read_out(&mut self, connection: ConnectionKey, _look: &mut Look) -> bool {
        let world = &self.world;
        let mut links = world.shards[self.shard].links.iter();
        links.all(|id| {
            let link = &world.links[*id];
            let is_it = matches!(link.state, State::Open(key) if key == connection);
            !is_it || link.to_broker.is_empty()
        })
    }

    fn whereabouts(&mut self, _connection: ConnectionKey) -> Whereabouts {
        Whereabouts::There
    }

    fn follow_control(&mut self) {}

    fn commit(&mut self) {
        self.world.commit(self.shard, self.random);
    }

    fn carry_out(&mut self) {
        self.world.carry_out(self.shard);
    }

    fn send(&mut self, connection: ConnectionKey, batch: Batch) {
        let id = self.world.link_of(self.shard, connection);
        let link = &mut self.world.links[id];
        assert!(link.in_flight.is_none(), "one send at a time");
        link.in_flight = Some(batch);
    }

    fn wake(&mut self, receivers: ShardSet) {
        for shard in receivers.iter() {
            self.world.wake(usize::from(shard));
        }
    }
}
