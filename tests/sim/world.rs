//! The broker without its shell: cores, mailboxes and connections in one thread, in virtual time.
//!
//! Follows the order of calls of the driver (`src/shard/driver/mod.rs`), but decides at random which connection
//! is read, how much of what was sent arrives, how much of the mail finds room, and when the store commits.

use crate::random::Random;
use ringmq::engine::keys::{ConnectionKey, ShardId};
use ringmq::engine::mail::Mail;
use ringmq::engine::outbox::outgoing::Outgoing;
use ringmq::engine::shard::{Command, ConnectionCounts, Settings, ShardCore};
use ringmq::engine::time::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;

/// A connection between client and broker.
pub type LinkId = usize;

enum Letter {
    Mail(Mail),
    Handover(LinkId, Vec<u8>),
}

enum State {
    Open(ConnectionKey),
    Leaving(ShardId, Vec<u8>),
    /// On its way between shards.
    Travelling,
    Closing(Option<Outgoing>),
    Closed,
}

/// Both directions of a connection.
pub struct Link {
    shard: usize,
    state: State,
    to_broker: VecDeque<u8>,
    /// No more comes from the client after what is in `to_broker`.
    ends: bool,
    in_flight: Option<Outgoing>,
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
    /// By sender.
    incoming: Vec<VecDeque<Letter>>,
    handovers: VecDeque<(ShardId, LinkId, Vec<u8>)>,
    /// Tickets that wait for the store.
    uncommitted: VecDeque<u64>,
    links: Vec<LinkId>,
}

/// How rough the world is, per mille.
#[derive(Clone, Debug)]
pub struct Roughness {
    /// A link is read in a turn.
    pub read: u32,
    /// A send completes in a turn.
    pub complete: u32,
    /// A letter finds no room.
    pub full: u32,
    /// A shard's mail is drained in a turn.
    pub drain: u32,
    /// The store commits in a turn.
    pub commit: u32,
}

/// Cores, mail, links, time.
pub struct World {
    shards: Vec<Shard>,
    pub links: Vec<Link>,
    pub now_ms: u64,
    pub roughness: Roughness,
}

impl World {
    pub fn new(shards: usize, seed: u64, settings: &Settings, roughness: Roughness) -> Self {
        let connections = Arc::new(ConnectionCounts::new(1));
        let count = shards as ShardId;
        let shard = |id: usize| Shard {
            core: ShardCore::new(
                id as ShardId,
                count,
                settings.clone(),
                seed,
                connections.clone(),
            ),
            incoming: (0..shards).map(|_| VecDeque::new()).collect(),
            handovers: VecDeque::new(),
            uncommitted: VecDeque::new(),
            links: Vec::new(),
        };
        World {
            shards: (0..shards).map(shard).collect(),
            links: Vec::new(),
            now_ms: 1000,
            roughness,
        }
    }

    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms)
    }

    /// A client connects; the kernel picks a shard.
    pub fn open(&mut self, shard: usize) -> LinkId {
        let now = self.now();
        let key = self.shards[shard]
            .core
            .accept(now, 0)
            .expect("below the limit");
        let id = self.links.len();
        self.links.push(Link {
            shard,
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

    /// One turn of one shard.
    pub fn turn(&mut self, shard: usize, random: &mut Random) {
        let core = &mut self.shards[shard].core;
        let is_held_up = !core.staged().is_empty() || core.is_congested();
        if !is_held_up {
            for link in self.shards[shard].links.clone() {
                self.serve_link(shard, link, random);
            }
        }
        if random.chance(self.roughness.drain) {
            self.drain(shard, random);
        }
        let now = self.now();
        let core = &mut self.shards[shard].core;
        if core.deadline().is_some_and(|deadline| deadline <= now) {
            core.tick(now);
        }
        self.commit(shard, random);
        self.carry_out(shard);
        self.flush_mail(shard, random);
        self.flush_outboxes(shard);
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
                    self.shards[shard].handovers.push_back((home, id, so_far));
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

    fn drain(&mut self, shard: usize, random: &mut Random) {
        for _ in 0..3 {
            let now = self.now();
            self.shards[shard].core.begin_drain();
            for from in 0..self.shards.len() {
                // Meanwhile the others run.
                if random.chance(200) {
                    let other = random.below(self.shards.len());
                    if other != shard {
                        self.flush_mail(other, random);
                    }
                }
                for _ in 0..self.shards[shard].incoming[from].len() {
                    match self.shards[shard].incoming[from].pop_front() {
                        Some(Letter::Mail(mail)) => {
                            self.shards[shard].core.mail(now, from as ShardId, mail);
                        }
                        Some(Letter::Handover(link, bytes)) => self.adopt(shard, link, &bytes),
                        None => break,
                    }
                }
            }
            self.shards[shard].core.end_drain(now);
            if !self.shards[shard].core.wants_drain() {
                return;
            }
        }
    }

    fn adopt(&mut self, shard: usize, link: LinkId, bytes: &[u8]) {
        let now = self.now();
        let key = self.shards[shard].core.adopt(now, 0, None);
        self.links[link].shard = shard;
        self.links[link].state = State::Open(key);
        self.shards[shard].links.push(link);
        self.shards[shard].core.receive(now, key, bytes);
        self.carry_out(shard);
    }

    fn commit(&mut self, shard: usize, random: &mut Random) {
        let shard = &mut self.shards[shard];
        let tickets = shard.core.take_persist().map(|persist| persist.ticket);
        shard.uncommitted.extend(tickets);
        if random.chance(self.roughness.commit) && !shard.uncommitted.is_empty() {
            let count = 1 + random.below(shard.uncommitted.len());
            if let Some(through) = shard.uncommitted.drain(..count).next_back() {
                shard.core.stored(through);
            }
        }
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
                Command::Close { connection, rest } => {
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

    fn flush_mail(&mut self, shard: usize, random: &mut Random) {
        let full = self.roughness.full;
        while let Some((home, link, bytes)) = self.shards[shard].handovers.pop_front() {
            if random.chance(full) {
                self.shards[shard].handovers.push_front((home, link, bytes));
                break;
            }
            let letter = Letter::Handover(link, bytes);
            self.shards[usize::from(home)].incoming[shard].push_back(letter);
        }
        loop {
            let mut sent = Vec::new();
            let staged = self.shards[shard].core.staged();
            staged.flush(|to, mail| {
                if random.chance(full) {
                    return Err(mail);
                }
                sent.push((to, mail));
                Ok(())
            });
            let is_flushed = staged.is_empty();
            for (to, mail) in sent {
                self.shards[usize::from(to)].incoming[shard].push_back(Letter::Mail(mail));
            }
            if !is_flushed || !self.shards[shard].core.mail_flushed() {
                break;
            }
        }
    }

    fn flush_outboxes(&mut self, shard: usize) {
        let mut ready = Vec::new();
        self.shards[shard].core.take_ready(&mut ready);
        for key in ready {
            let links = &self.shards[shard].links;
            let known = |id: &&LinkId| matches!(self.links[**id].state, State::Open(k) if k == key);
            let Some(id) = links.iter().find(known).copied() else {
                continue;
            };
            if let Some(batch) = self.shards[shard].core.take_outgoing(key) {
                assert!(self.links[id].in_flight.is_none(), "one send at a time");
                self.links[id].in_flight = Some(batch);
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
            let mail: usize = shard.incoming.iter().map(VecDeque::len).sum();
            out += &format!(
                "shard {id}: {mail} letters, {} handovers, {} tickets, {} staged, wants drain {}; ",
                shard.handovers.len(),
                shard.uncommitted.len(),
                shard.core.staged().len(),
                shard.core.wants_drain()
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
                shard.incoming.iter().all(VecDeque::is_empty)
                    && shard.handovers.is_empty()
                    && shard.uncommitted.is_empty()
                    && shard.core.staged().is_empty()
                    && !shard.core.wants_drain()
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
