//! Two brokers with a bridge between them, from a seed: the line is cut at any byte, clients lose their
//! connections, both brokers are killed and come back with what their stores had.
//!
//! One client of each broker publishes, one subscribes, on the same topics, which go both ways. Each message has
//! to come to both subscribers: of QoS 2 once, of QoS 1 at least once, and none before one that was published
//! before it.

use crate::number;
use crate::random::Random;
use ringmq::engine::bridge::dial::AddressOrder;
use ringmq::engine::bridge::dial::{Dial, DialRule};
use ringmq::engine::bridge::line::{Line, News, Purpose};
use ringmq::engine::bridge::plan::{Direction, Known, Plan, Protocol, Taken, TopicRule};
use ringmq::engine::codec::frame::{Split, split};
use ringmq::engine::codec::publish::{Publish, PublishHead};
use ringmq::engine::codec::remote::{Asked, ConnectTo, put_subscribe};
use ringmq::engine::codec::topic::TopicLimits;
use ringmq::engine::codec::{PacketType, Version};
use ringmq::engine::keys::ConnectionKey;
use ringmq::engine::limits::{Limits, OwnQueue};
use ringmq::engine::message::Qos;
use ringmq::engine::record::Persist;
use ringmq::engine::shard::{Command, ConnectionCounts, Settings, ShardCore};
use ringmq::engine::time::Timestamp;
use ringmq::storage::decided::decide_all;
use ringmq::storage::image::Image;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 200;
/// Messages of each publisher.
const MESSAGES: usize = 30;
/// Steps after which everything has to have come.
const STEPS_MAX: usize = 400_000;
const EXPIRY_NEVER: u32 = u32::MAX;

/// Bytes on their way between a client or line and a broker.
#[derive(Default)]
struct Wire {
    to_broker: VecDeque<u8>,
    to_client: VecDeque<u8>,
}

/// What a broker has for one connection.
struct Link {
    key: ConnectionKey,
    wire: Wire,
}

/// One shard with its store.
struct Broker {
    core: ShardCore,
    number: u64,
    window: u16,
    /// Told and not stored: what was told at once is stored or lost as a whole.
    told: VecDeque<Vec<Persist>>,
    stored: Vec<Persist>,
    links: BTreeMap<u64, Link>,
}

/// Windows of one to six messages, by the seed: so queues, held-back messages and full windows are the rule.
fn fresh_core(number: u64, window: u16) -> ShardCore {
    let limits = Limits {
        inflight_max: window,
        receive_maximum: window,
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        stores: true,
        broker_name: Some(format!("broker-{number}").into()),
        ..Settings::default()
    };
    ShardCore::new(0, 1, settings, number, Arc::new(ConnectionCounts::new(1)))
}

impl Broker {
    fn new(number: u64, window: u16) -> Self {
        Broker {
            core: fresh_core(number, window),
            number,
            window,
            told: VecDeque::new(),
            stored: Vec::new(),
            links: BTreeMap::new(),
        }
    }

    /// A turn: some of what has come is taken, some of what was told is stored.
    fn turn(&mut self, now: Timestamp, random: &mut Random) {
        self.core.begin_turn();
        let numbers: Vec<_> = self.links.keys().copied().collect();
        for number in numbers {
            self.receive(number, now, random);
        }
        self.core.begin_drain();
        self.core.end_drain(now);
        if self.core.deadline().is_some_and(|at| at <= now) {
            self.core.tick(now);
        }
        self.core.work_off(now);
        for _ in 0..self.core.takeovers_to_look_at() {
            if let Some(takeover) = self.core.next_takeover() {
                let ended = self.core.ends_wait(now, takeover, true);
                if let Some(ended) = ended {
                    self.core.let_in(now, ended);
                }
            }
        }
        let told: Vec<_> = self.core.take_persist().collect();
        if !told.is_empty() {
            self.told.push_back(told);
        }
        if random.chance(700)
            && let Some(first) = self.told.pop_front()
        {
            let through = first.last().map_or(0, |last| last.ticket);
            self.stored.extend(first);
            self.core.stored(now, through);
        }
        self.carry_out();
        self.core.staged().flush(|_, _| Ok(()));
        self.core.mail_flushed();
        while let Some(key) = self.core.next_ready() {
            if let Some(batch) = self.core.take_outgoing(key) {
                let link = self.links.values_mut().find(|link| link.key == key);
                if let Some(link) = link {
                    link.wire.to_client.extend(batch.slices().flatten());
                }
                self.core.sent(now, key, batch);
            }
        }
    }

    fn receive(&mut self, number: u64, now: Timestamp, random: &mut Random) {
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        let waiting = link.wire.to_broker.len();
        if waiting > 0 {
            let some = 1 + random.below(waiting);
            let bytes: Vec<_> = link.wire.to_broker.drain(..some).collect();
            self.core.receive(now, link.key, &bytes);
            self.carry_out();
        }
    }

    /// Connections that the core closes are gone at once.
    fn carry_out(&mut self) {
        let mut commands = Vec::new();
        self.core.take_commands(&mut commands);
        for command in commands {
            if let Command::Close {
                connection, place, ..
            } = command
            {
                self.core.vacate(place);
                self.links.retain(|_, link| link.key != connection);
            }
        }
    }

    fn cut(&mut self, number: u64, now: Timestamp) {
        if let Some(link) = self.links.remove(&number) {
            self.core.receive_ended(now, link.key);
            self.carry_out();
        }
    }

    /// The process is killed: what was told and not stored is kept in part or lost.
    fn crash(&mut self, now: Timestamp, random: &mut Random) -> Result<(), String> {
        let kept = random.below(self.told.len() + 1);
        let told = std::mem::take(&mut self.told);
        self.stored.extend(told.into_iter().take(kept).flatten());
        self.links.clear();
        let mut image = Image::default();
        for persist in &self.stored {
            image
                .apply(persist.record.clone())
                .map_err(|error| error.to_string())?;
        }
        let mut images = [image];
        decide_all(&mut images);
        let [image] = images;
        self.core = fresh_core(self.number, self.window);
        self.core.count_publishes_after(image.last_number());
        let restored = self.core.restore(now, image.into_records());
        restored.map_err(|error| error.to_string())?;
        // The log goes on with what there is now.
        self.stored.clear();
        let told = self.core.take_persist().map(|persist| persist.ticket).max();
        self.core
            .snapshot(|record| self.stored.push(Persist { ticket: 0, record }));
        self.core.stored(now, told.unwrap_or(0));
        Ok(())
    }
}

/// What a publisher waits for.
#[derive(Clone, Copy, PartialEq)]
enum Awaits {
    Connack,
    Nothing,
    Puback,
    Pubrec,
    Pubcomp,
}

/// A client that publishes, one message after the other, or subscribes.
struct Client {
    broker: usize,
    id: String,
    publishes: bool,
    link: Option<u64>,
    from_broker: Vec<u8>,
    awaits: Awaits,
    /// The message under way, and how far it is.
    next: usize,
    is_sent: bool,
    is_received: bool,
    subscribed: bool,
    unreleased: BTreeSet<u16>,
    got: Vec<String>,
}

impl Client {
    fn new(broker: usize, publishes: bool) -> Self {
        Client {
            broker,
            id: format!("{}{broker}", if publishes { "p" } else { "s" }),
            publishes,
            link: None,
            from_broker: Vec::new(),
            awaits: Awaits::Connack,
            next: 0,
            is_sent: false,
            is_received: false,
            subscribed: false,
            unreleased: BTreeSet::new(),
            got: Vec::new(),
        }
    }

    fn connect(&self) -> Vec<u8> {
        connect(&self.id)
    }

    fn lost(&mut self) {
        self.link = None;
        self.from_broker.clear();
        self.awaits = Awaits::Connack;
    }

    fn qos(&self) -> Qos {
        qos_of(self.next)
    }

    /// Handles what came; what it answers.
    fn hear(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.from_broker.extend_from_slice(bytes);
        let mut out = Vec::new();
        let stream = std::mem::take(&mut self.from_broker);
        let mut used = 0;
        while let Ok(Split::Whole(frame, bytes)) = split(&stream[used..], usize::MAX) {
            used += bytes;
            self.packet(frame.first_byte, frame.body, &mut out);
        }
        self.from_broker = stream[used..].to_vec();
        out
    }

    fn packet(&mut self, first: u8, body: &[u8], out: &mut Vec<u8>) {
        let ack = |kind: PacketType, out: &mut Vec<u8>| {
            out.extend_from_slice(&[kind.first_byte(), 2, body[0], body[1]]);
        };
        match PacketType::from_first_byte(first).expect("a packet") {
            PacketType::Connack if self.publishes => {
                self.awaits = Awaits::Nothing;
                self.go_on(out);
            }
            PacketType::Connack => {
                let asked = [Asked {
                    filter: "t/#",
                    qos: Qos::ExactlyOnce,
                    retain_handling: 0,
                }];
                if !self.subscribed {
                    put_subscribe(Version::V3_1_1, 9, &asked, out);
                }
            }
            PacketType::Suback => self.subscribed = true,
            PacketType::Puback if self.awaits == Awaits::Puback => self.done(out),
            PacketType::Pubrec if self.awaits == Awaits::Pubrec => {
                self.is_received = true;
                self.awaits = Awaits::Pubcomp;
                ack(PacketType::Pubrel, out);
            }
            PacketType::Pubcomp if self.awaits == Awaits::Pubcomp => self.done(out),
            PacketType::Publish => self.publish(first, body, out),
            PacketType::Pubrel => {
                self.unreleased
                    .remove(&u16::from_be_bytes([body[0], body[1]]));
                ack(PacketType::Pubcomp, out);
            }
            _ => {}
        }
    }

    fn publish(&mut self, first: u8, body: &[u8], out: &mut Vec<u8>) {
        let publish = Publish::decode(first, body, Version::V3_1_1).expect("a PUBLISH");
        let [high, low] = publish.packet_id.to_be_bytes();
        let is_news = match publish.qos {
            Qos::ExactlyOnce => self.unreleased.insert(publish.packet_id),
            _ => true,
        };
        if is_news {
            self.got
                .push(String::from_utf8_lossy(publish.payload).into_owned());
        }
        match publish.qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => out.extend_from_slice(&[0x40, 2, high, low]),
            Qos::ExactlyOnce => out.extend_from_slice(&[0x50, 2, high, low]),
        }
    }

    fn done(&mut self, out: &mut Vec<u8>) {
        self.next += 1;
        (self.is_sent, self.is_received) = (false, false);
        self.awaits = Awaits::Nothing;
        self.go_on(out);
    }

    /// Begins the next message, or goes on with the one under way.
    fn go_on(&mut self, out: &mut Vec<u8>) {
        if self.next >= MESSAGES {
            return;
        }
        let packet_id = 1 + self.next as u16;
        if self.is_received {
            let [high, low] = packet_id.to_be_bytes();
            out.extend_from_slice(&[0x62, 2, high, low]);
            self.awaits = Awaits::Pubcomp;
            return;
        }
        let payload = format!("{}-{}", self.broker, self.next);
        let head = PublishHead {
            version: Version::V3_1_1,
            dup: self.is_sent,
            qos: self.qos(),
            retain: false,
            topic: "t/x",
            packet_id,
            forwarded: &[],
            expiry_seconds: None,
            topic_alias: 0,
            subscription_ids: &[],
            payload_bytes: payload.len(),
        };
        head.encode(out);
        out.extend_from_slice(payload.as_bytes());
        self.is_sent = true;
        self.awaits = match self.qos() {
            Qos::ExactlyOnce => Awaits::Pubrec,
            _ => Awaits::Puback,
        };
    }
}

fn qos_of(message: usize) -> Qos {
    if message.is_multiple_of(3) {
        Qos::AtLeastOnce
    } else {
        Qos::ExactlyOnce
    }
}

fn connect(id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    ConnectTo {
        version: Version::V3_1_1,
        is_bridge: false,
        client_id: id,
        clean_start: false,
        keep_alive_seconds: 0,
        user_name: None,
        password: None,
        will: None,
        will_retain: false,
        session_expiry_seconds: EXPIRY_NEVER,
        receive_maximum: u16::MAX,
        packet_bytes_max: 0,
        user_property: None,
    }
    .encode(&mut bytes);
    bytes
}

fn plan(window: u16) -> Plan {
    Plan {
        name: "b".into(),
        session_id: "$bridge/b".into(),
        local_user: "bridge-b".into(),
        client_id: "bridge".into(),
        user_name: None,
        password: None,
        keep_alive_seconds: 0,
        lasts_ms: None,
        idle_ms: None,
        is_persistent: true,
        queue: OwnQueue::default(),
        part: None,
        topics: Arc::new([TopicRule {
            direction: Direction::Both,
            ..TopicRule::default()
        }]),
        topic_alias_max: 8,
        known: Known::NOTHING,
        remote_state_topic: None,
        broker_name: "broker-0".into(),
        hops_max: 8,
        taken: Taken {
            topics: TopicLimits {
                bytes_max: 1_000,
                levels_max: 8,
            },
            packet_bytes_max: 1 << 20,
            receive_maximum: window,
            qos_max: Qos::ExactlyOnce,
            retain_available: true,
            connect_timeout_ms: 10_000,
        },
    }
}

/// The bridge: a line with a link to each broker.
struct Bridge {
    plan: Arc<Plan>,
    dial: Dial,
    line: Option<Line>,
    is_made: bool,
    /// It has subscribed at the other broker, which keeps that from then on.
    was_up: bool,
}

/// An error in what a line sends: each has to be found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Planted {
    Nothing,
    /// A message of QoS 2 goes twice, with another identifier.
    Doubles,
    /// One goes behind the next.
    Reorders,
    /// One of QoS 1 is acknowledged to its broker, and never goes.
    Swallows,
}

/// Does one of these once to the packets that go to the other broker.
fn spoil(planted: &mut Planted, held: &mut Vec<u8>, down: &mut Vec<u8>, up: &mut Vec<u8>) {
    let stream = std::mem::take(down);
    let mut rest = &stream[..];
    while let Ok(Split::Whole(frame, bytes)) = split(rest, usize::MAX) {
        let whole = &rest[..bytes];
        rest = &rest[bytes..];
        let is_publish = frame.first_byte >> 4 == PacketType::Publish as u8;
        let qos = frame.first_byte >> 1 & 3;
        let is_meant = match *planted {
            Planted::Nothing => false,
            Planted::Swallows => is_publish && qos == 1,
            Planted::Doubles | Planted::Reorders => is_publish && qos == 2,
        };
        if !is_meant {
            down.extend_from_slice(whole);
            continue;
        }
        let topic_bytes = usize::from(u16::from_be_bytes([frame.body[0], frame.body[1]]));
        let id_at = bytes - frame.body.len() + 2 + topic_bytes;
        match *planted {
            Planted::Doubles => {
                down.extend_from_slice(whole);
                let mut copy = whole.to_vec();
                copy[id_at] ^= 0x40;
                down.extend_from_slice(&copy);
                *planted = Planted::Nothing;
            }
            Planted::Reorders if held.is_empty() => held.extend_from_slice(whole),
            Planted::Reorders => {
                down.extend_from_slice(whole);
                down.append(held);
                *planted = Planted::Nothing;
            }
            _ => {
                up.extend_from_slice(&[0x40, 2, whole[id_at], whole[id_at + 1]]);
                *planted = Planted::Nothing;
            }
        }
    }
    down.extend_from_slice(rest);
}

/// Everything.
struct Sim {
    random: Random,
    now: Timestamp,
    brokers: [Broker; 2],
    clients: Vec<Client>,
    bridge: Bridge,
    next_link: u64,
    /// The line's links, to its own broker and to the other.
    ends: Option<[u64; 2]>,
    /// The disturbances that are left.
    disturbances: usize,
    planted: Planted,
    /// A packet that is held back by an error.
    held: Vec<u8>,
}

impl Sim {
    fn new(seed: u64, planted: Planted) -> Self {
        let mut random = Random::new(seed);
        let protocols = match random.below(3) {
            0 => vec![Protocol::V3_1_1_BRIDGE],
            _ => vec![Protocol::V5, Protocol::V3_1_1_BRIDGE],
        };
        Sim {
            now: Timestamp::from_ms(1_000),
            brokers: [0, 1].map(|number| Broker::new(number, 1 + random.below(6) as u16)),
            clients: [(0, true), (1, true), (0, false), (1, false)]
                .map(|(broker, publishes)| Client::new(broker, publishes))
                .into(),
            bridge: Bridge {
                plan: Arc::new(plan(1 + random.below(6) as u16)),
                dial: Dial::new(DialRule {
                    addresses: 1,
                    order: AddressOrder::InOrder,
                    protocols,
                    reconnect_ms_min: 1,
                    reconnect_ms_max: 8,
                    failback_ms: 0,
                    redirects_max: 0,
                }),
                line: None,
                is_made: false,
                was_up: false,
            },
            next_link: 0,
            ends: None,
            disturbances: random.below(40),
            planted,
            held: Vec::new(),
            random,
        }
    }

    fn open(&mut self, broker: usize, is_line: bool) -> u64 {
        self.next_link += 1;
        let core = &mut self.brokers[broker].core;
        let key = match is_line {
            true => core.begin_line(self.now, Box::default()),
            false => core.accept(self.now, 0).expect("room"),
        };
        let link = Link {
            key,
            wire: Wire::default(),
        };
        self.brokers[broker].links.insert(self.next_link, link);
        self.next_link
    }

    fn run(&mut self, steps_max: usize) -> Result<(), String> {
        for _ in 0..steps_max {
            if self.step()? {
                return self.judge();
            }
        }
        Err(format!("it never comes to its end: {}", self.told()))
    }

    /// How far everybody has come.
    fn told(&self) -> String {
        let clients = self.clients.iter().map(|client| {
            let got: BTreeSet<_> = client.got.iter().collect();
            let (id, next) = (&client.id, client.next);
            let is_there = client.link.is_some();
            format!("{id}: there {is_there}, sent {next}, got {}", got.len())
        });
        let clients: Vec<_> = clients.collect();
        let told = self.brokers.each_ref().map(|broker| broker.told.len());
        let is_over = self.bridge.line.as_ref().map(Line::is_over);
        let (ends, attempt) = (self.ends, self.bridge.dial.attempt());
        format!("{clients:?}; not stored {told:?}; line {is_over:?} {ends:?} {attempt:?}")
    }

    /// One thing happens; whether all is done.
    fn step(&mut self) -> Result<bool, String> {
        self.now = self.now.plus_ms(1);
        match self.random.below(8) {
            0 | 1 => {
                let broker = self.random.below(2);
                let now = self.now;
                self.brokers[broker].turn(now, &mut self.random);
            }
            2 | 3 => {
                let client = self.random.below(self.clients.len());
                self.step_client(client);
            }
            4..=6 => self.step_line(),
            _ => self.disturb()?,
        }
        Ok(self.is_done())
    }

    fn step_client(&mut self, place: usize) {
        let Some(number) = self.clients[place].link else {
            // Nobody publishes before subscribers and bridge are there.
            let may = !self.clients[place].publishes || self.is_ready();
            if may {
                let number = self.open(self.clients[place].broker, false);
                let connect = self.clients[place].connect();
                let client = &mut self.clients[place];
                client.link = Some(number);
                let links = &mut self.brokers[client.broker].links;
                if let Some(link) = links.get_mut(&number) {
                    link.wire.to_broker.extend(connect);
                }
            }
            return;
        };
        let client = &mut self.clients[place];
        let broker = &mut self.brokers[client.broker];
        let Some(link) = broker.links.get_mut(&number) else {
            return client.lost();
        };
        let waiting = link.wire.to_client.len();
        let some = self.random.below(waiting + 1);
        let bytes: Vec<_> = link.wire.to_client.drain(..some).collect();
        let answer = client.hear(&bytes);
        link.wire.to_broker.extend(answer);
    }

    fn is_ready(&self) -> bool {
        let mut subscribers = self.clients.iter().filter(|client| !client.publishes);
        self.bridge.was_up && subscribers.all(|client| client.subscribed)
    }

    fn step_line(&mut self) {
        let Some([here, there]) = self.ends else {
            return self.dial();
        };
        let carries = there > 0;
        let is_gone = !self.brokers[0].links.contains_key(&here)
            || carries && !self.brokers[1].links.contains_key(&there);
        let Some(line) = &mut self.bridge.line else {
            return;
        };
        if is_gone {
            line.note_end("cut");
        } else {
            let (random, brokers) = (&mut self.random, &mut self.brokers);
            let mut take = |broker: usize, number: u64| -> Vec<u8> {
                let link = brokers[broker].links.get_mut(&number);
                let Some(link) = link else { return Vec::new() };
                let some = random.below(link.wire.to_client.len() + 1);
                link.wire.to_client.drain(..some).collect()
            };
            let of_core = take(0, here);
            let of_remote = if carries { take(1, there) } else { Vec::new() };
            line.from_core([&of_core[..]].into_iter());
            line.from_remote(&of_remote);
            let (mut up, mut down) = (Vec::new(), line.take_down());
            line.take_up(&mut up);
            if carries && self.planted != Planted::Nothing {
                spoil(&mut self.planted, &mut self.held, &mut down, &mut up);
            }
            for (broker, number, bytes) in [(0, here, up), (1, there, down)] {
                if let Some(link) = self.brokers[broker].links.get_mut(&number) {
                    link.wire.to_broker.extend(bytes);
                }
            }
        }
        self.hear_line();
    }

    fn hear_line(&mut self) {
        let Some(line) = &mut self.bridge.line else {
            return;
        };
        let is_over = line.is_over();
        for news in line.take_news() {
            match news {
                News::Prepared => self.bridge.is_made = true,
                News::Ended(end) => {
                    let chance = self.random.next();
                    self.bridge.dial.ended(self.now, end.outcome(), chance);
                }
                News::Up(..) => self.bridge.was_up = true,
                News::Refused(..)
                | News::NotGranted(_)
                | News::NoQos2
                | News::Counts(_)
                | News::Idle
                | News::Wanted => {}
            }
        }
        if is_over && let Some([here, there]) = self.ends {
            // What it said last goes before the end, where nothing was cut.
            let is_drained = |broker: &Broker, number: u64| {
                let link = broker.links.get(&number);
                link.is_none_or(|link| link.wire.to_broker.is_empty())
            };
            if is_drained(&self.brokers[0], here) && is_drained(&self.brokers[1], there) {
                self.brokers[0].cut(here, self.now);
                self.brokers[1].cut(there, self.now);
                (self.ends, self.bridge.line) = (None, None);
            }
        }
    }

    fn dial(&mut self) {
        if self.bridge.dial.due_at() > self.now {
            return;
        }
        let here = self.open(0, true);
        let (purpose, there) = match self.bridge.is_made {
            true => {
                let protocol = self.bridge.dial.attempt().protocol;
                (Purpose::Carry(protocol), self.open(1, false))
            }
            false => (Purpose::Prepare(Vec::new()), 0),
        };
        self.ends = Some([here, there]);
        self.bridge.line = Some(Line::new(Arc::clone(&self.bridge.plan), purpose));
    }

    /// Something is cut, or somebody killed.
    fn disturb(&mut self) -> Result<(), String> {
        if self.disturbances == 0 || !self.is_ready() || self.random.chance(900) {
            return Ok(());
        }
        self.disturbances -= 1;
        let broker = self.random.below(2);
        match self.random.below(4) {
            0 => self.brokers[broker].crash(self.now, &mut self.random)?,
            _ => {
                let links = &self.brokers[broker].links;
                if !links.is_empty() {
                    let place = self.random.below(links.len());
                    let number = *links.keys().nth(place).expect("one of them");
                    self.brokers[broker].cut(number, self.now);
                }
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let published = self
            .clients
            .iter()
            .all(|client| !client.publishes || client.next == MESSAGES);
        let subscribers = self.clients.iter().filter(|client| !client.publishes);
        published
            && subscribers.clone().all(|client| {
                let got: BTreeSet<_> = client.got.iter().collect();
                got.len() == 2 * MESSAGES && client.unreleased.is_empty()
            })
            && self.brokers.iter().all(|broker| broker.told.is_empty())
    }

    fn judge(&mut self) -> Result<(), String> {
        // Nothing more comes, with nobody disturbed.
        self.disturbances = 0;
        for _ in 0..5_000 {
            self.step()?;
        }
        for client in self.clients.iter().filter(|client| !client.publishes) {
            for broker in 0..2 {
                let prefix = format!("{broker}-");
                let got = client
                    .got
                    .iter()
                    .filter_map(|text| text.strip_prefix(&prefix));
                let got: Vec<usize> = got.map(|text| text.parse().expect("a number")).collect();
                let of = |text: &str| format!("{} of broker {broker} {text}: {got:?}", client.id);
                let mut first = Vec::new();
                for number in &got {
                    if !first.contains(number) {
                        first.push(*number);
                    } else if qos_of(*number) == Qos::ExactlyOnce {
                        return Err(of(&format!("got {number} twice")));
                    }
                }
                // One QoS may overtake the other.
                for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
                    let of_qos = first.iter().filter(|number| qos_of(**number) == qos);
                    if !of_qos.is_sorted() {
                        return Err(of("is out of order"));
                    }
                }
            }
        }
        Ok(())
    }
}

#[test]
fn what_two_brokers_owe_is_kept_whatever_happens_to_the_line() {
    let seeds = match number("RINGMQ_TEST_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RINGMQ_TEST_SIM_SEEDS").map_or(SEEDS, |seeds| seeds / 10),
    };
    for seed in seeds {
        if let Err(failure) = Sim::new(seed, Planted::Nothing).run(STEPS_MAX) {
            panic!(
                "seed {seed}: {failure}\nreplay: RINGMQ_TEST_SIM_SEED={seed} cargo test --test sim bridges"
            );
        }
    }
}

/// Of lines that do wrong once the oracle finds some at least: a cut may undo what was done before it.
#[test]
fn planted_errors_are_found() {
    let failures = |planted| {
        let runs = (0..8).map(|seed| Sim::new(seed, planted).run(STEPS_MAX / 4));
        runs.filter(Result::is_err).count()
    };
    assert_eq!(
        failures(Planted::Nothing),
        0,
        "all come to their end in so many steps"
    );
    for planted in [Planted::Doubles, Planted::Reorders, Planted::Swallows] {
        assert!(failures(planted) >= 2, "{planted:?}");
    }
}
