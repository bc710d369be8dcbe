//! Two or three brokers with bridges between them, from a seed: lines are cut at any byte, clients lose their
//! connections, brokers of one shard or more are killed and come back with what their stores had.
//!
//! One client of each broker publishes, one subscribes, on the same topics, which go everywhere. Each message
//! has to come to all subscribers: of QoS 2 once, of QoS 1 at least once, and none before one that was
//! published before it to the same topic; and none may have been anywhere twice.
//!
//! Errors that were planted by hand in the code, with the first seed that fails and how many of 60 do: a broker
//! in the list of hops gets the message all the same (1, 30); `hops_max` is not looked at (5, 10); SUBSCRIBE goes
//! without No Local (6, 11); the bridge bit of 3.1.1 means nothing (2, 10); one of several lines takes what is
//! another's (0, 7); a line goes without adding its broker to the list (4, 33).

mod bridge;
mod client;
mod heard;
mod spoil;

use crate::random::Random;
use crate::world::{LinkId, Roughness, World};
use crate::{caught, number};
use bridge::{Bridge, Join, session_id};
use client::Client;
use heard::{Heard, Law};
use ringmq::engine::bridge::plan::{Direction, Protocol};
use ringmq::engine::message::Qos;
use ringmq::engine::receipt::Level;
use ringmq::engine::route::TopicPart;
use ringmq::engine::shard::{ListenerPolicy, Settings};
use ringmq::engine::time::Timestamp;
use spoil::Planted;
use std::num::NonZeroU8;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 200;
/// Messages of each publisher.
const MESSAGES: usize = 24;
const TOPICS: [&str; 3] = ["t/one", "t/two", "t/three"];
/// Steps after which everything has to have come.
const STEPS_MAX: usize = 200_000;
/// Steps after which nothing may be under way any more.
const REST_STEPS_MAX: usize = 20_000;
/// Most hops where it does not matter.
const HOPS_MAX: usize = 8;

fn qos_of(message: usize) -> Qos {
    if message.is_multiple_of(3) {
        Qos::AtLeastOnce
    } else {
        Qos::ExactlyOnce
    }
}

const fn topic_of(message: usize) -> usize {
    message / 3 % TOPICS.len()
}

/// How brokers are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Two, by a bridge that carries both ways, of one line or two.
    Pair,
    /// Two, by a bridge for each way.
    TwoWays,
    /// Three in a row.
    Row,
    /// Three in a ring, which messages go one way round.
    Ring,
    /// Three in a ring, which messages go both ways round.
    BothWaysRound,
    /// Three, each joined with each: one hop is enough.
    Each,
}

const SHAPES: [Shape; 6] = [
    Shape::Pair,
    Shape::TwoWays,
    Shape::Row,
    Shape::Ring,
    Shape::BothWaysRound,
    Shape::Each,
];

impl Shape {
    const fn brokers(self) -> usize {
        match self {
            Shape::Pair | Shape::TwoWays => 2,
            _ => 3,
        }
    }

    /// Whether a message could come back to where it was.
    const fn has_rings(self) -> bool {
        !matches!(self, Shape::Pair | Shape::Row)
    }

    const fn law(self) -> Law {
        Law {
            brokers: self.brokers(),
            hops_max: match self {
                Shape::Each => 1,
                _ => HOPS_MAX,
            },
            has_hops: self.has_rings(),
            ways: match self {
                Shape::BothWaysRound => 2,
                _ => 1,
            },
        }
    }

    fn joins(self, random: &mut Random) -> Vec<Join> {
        let protocols = match random.below(3) {
            _ if self.has_rings() => vec![Protocol::V5],
            0 => vec![Protocol::V3_1_1_BRIDGE],
            _ => vec![Protocol::V5, Protocol::V3_1_1_BRIDGE],
        };
        let join = |here, there, direction| Join {
            here,
            there,
            direction,
            protocols: protocols.clone(),
            hops_max: self.law().hops_max,
            part: None,
        };
        // Either of two brokers dials.
        let mut both = |one, other| match random.chance(500) {
            true => join(one, other, Direction::Both),
            false => join(other, one, Direction::Both),
        };
        match self {
            Shape::Pair => return lines(&both(0, 1), random),
            Shape::Row => return vec![both(0, 1), both(1, 2)],
            Shape::BothWaysRound | Shape::Each => return vec![both(0, 1), both(1, 2), both(2, 0)],
            Shape::TwoWays | Shape::Ring => {}
        }
        let brokers = self.brokers();
        let one_way = |from: usize| {
            let to = (from + 1) % brokers;
            match random.chance(500) {
                true => join(from, to, Direction::Out),
                false => join(to, from, Direction::In),
            }
        };
        (0..brokers).map(one_way).collect()
    }
}

/// A bridge of one line or two.
fn lines(join: &Join, random: &mut Random) -> Vec<Join> {
    let count = 1 + random.below(2) as u8;
    let part = |index| Join {
        part: NonZeroU8::new(count)
            .filter(|of| of.get() > 1)
            .map(|of| TopicPart { index, of }),
        ..join.clone()
    };
    (0..count).map(part).collect()
}

/// By broker, so many messages may be unfinished. They are few: so queues, held-back messages and full windows
/// are the rule. By 3.1.1 nobody can say that he takes fewer than another sends.
fn windows(joins: &[Join], random: &mut Random) -> [u16; 3] {
    let window = |random: &mut Random| 1 + random.below(6) as u16;
    let all = window(random);
    let mut protocols = joins.iter().flat_map(|join| &join.protocols);
    match protocols.all(|protocol| protocol.version.is_v5()) {
        true => [all, window(random), window(random)],
        false => [all; 3],
    }
}

/// A broker with such a window.
fn world(
    (number, joins): (usize, &[Join]),
    (seed, window): (u64, u16),
    planted: Planted,
    random: &mut Random,
) -> World {
    let of_here = joins
        .iter()
        .enumerate()
        .filter(|(_, join)| join.here == number);
    let parts = of_here.filter_map(|(bridge, join)| Some((session_id(bridge), join.part?)));
    let mut settings = Settings {
        stores: true,
        listeners: vec![ListenerPolicy::default()],
        parts: parts.filter(|_| planted != Planted::Partless).collect(),
        checkpoint_part_bytes: random.pick(&[1, 1_000, 100_000]),
        broker_name: (planted != Planted::Nameless).then(|| format!("broker-{number}").into()),
        ..Settings::default()
    };
    settings.limits.connect_timeout_ms = 1_000_000_000;
    settings.limits.inflight_max = window;
    settings.limits.receive_maximum = window;
    let roughness = Roughness {
        read: 200 + random.below(800) as u32,
        complete: 200 + random.below(800) as u32,
        run: 500 + random.below(500) as u32,
        commit: 300 + random.below(700) as u32,
        checkpoint: random.pick(&[0, 2, 20]),
        pending_max: random.pick(&[0, 5, 1_000]),
    };
    let shards = 1 + random.below(2);
    let letters_max = random.pick(&[1, 2, 7, 4096]);
    let seed = seed ^ (number as u64) << 32;
    World::new(shards, seed, &settings, letters_max, roughness)
}

/// Everything.
struct Sim {
    random: Random,
    now_ms: u64,
    shape: Shape,
    brokers: Vec<World>,
    clients: Vec<Client>,
    bridges: Vec<Bridge>,
    /// The disturbances that are left.
    disturbances: usize,
}

impl Sim {
    fn new(seed: u64, planted: Planted) -> Self {
        let mut random = Random::new(seed);
        let shape = SHAPES[seed as usize % SHAPES.len()];
        let law = shape.law();
        let joins = shape.joins(&mut random);
        let windows = windows(&joins, &mut random);
        let mut brokers: Vec<_> = (0..law.brokers)
            .map(|number| {
                world(
                    (number, &joins),
                    (seed, windows[number]),
                    planted,
                    &mut random,
                )
            })
            .collect();
        let publishers = (0..law.brokers).map(|broker| Client::new(broker, None));
        let subscriber = |broker| Client::new(broker, Some(Heard::new(broker, law)));
        let clients = publishers.chain((0..law.brokers).map(subscriber));
        let bridge = |it: (usize, &Join)| {
            let window = windows[it.1.here];
            Bridge::new(it, window, planted, &mut random)
        };
        let bridges = joins.iter().enumerate().map(bridge).collect();
        for broker in &mut brokers {
            broker.now_ms = 1_000;
        }
        Sim {
            now_ms: 1_000,
            shape,
            brokers,
            clients: clients.collect(),
            bridges,
            disturbances: random.below(40),
            random,
        }
    }

    fn run(&mut self, steps_max: usize) -> Result<(), String> {
        self.go(steps_max).map_err(|fault| {
            let shards: Vec<_> = self.brokers.iter().map(World::shards).collect();
            format!("{:?}, shards {shards:?}: {fault}", self.shape)
        })
    }

    fn go(&mut self, steps_max: usize) -> Result<(), String> {
        for _ in 0..steps_max {
            self.step()?;
            if self.clients.iter().all(Client::is_done) {
                return self.come_to_rest();
            }
        }
        Err(format!("it never comes to its end: {}", self.told()))
    }

    /// How far everybody has come.
    fn told(&mut self) -> String {
        let clients: Vec<_> = self.clients.iter().map(Client::told).collect();
        let bridges: Vec<_> = self.bridges.iter().map(Bridge::told).collect();
        let brokers: Vec<_> = self.brokers.iter_mut().map(World::unrest).collect();
        format!("{clients:#?}; {bridges:#?}; {brokers:#?}")
    }

    /// Of everything one gets on.
    fn step(&mut self) -> Result<(), String> {
        self.now_ms += 1;
        for broker in &mut self.brokers {
            broker.now_ms = self.now_ms;
        }
        let place = self.random.below(self.brokers.len());
        let broker = &mut self.brokers[place];
        broker.turn(self.random.below(broker.shards()), &mut self.random);
        if let Some(fault) = broker.fault.take() {
            return Err(format!("broker {place}: {fault}"));
        }
        let client = self.random.below(self.clients.len());
        self.step_client(client)?;
        let bridge = self.random.below(self.bridges.len());
        let now = Timestamp::from_ms(self.now_ms);
        self.bridges[bridge].step(now, &mut self.brokers, &mut self.random);
        self.disturb()
    }

    /// Nobody publishes before subscribers and bridges are there.
    fn is_ready(&self) -> bool {
        let mut subscribers = self.clients.iter().filter(|client| client.heard.is_some());
        self.bridges.iter().all(|bridge| bridge.was_up)
            && subscribers.all(|client| client.subscribed)
    }

    fn step_client(&mut self, place: usize) -> Result<(), String> {
        let is_ready = self.is_ready();
        let client = &mut self.clients[place];
        let broker = &mut self.brokers[client.broker];
        let Some(link) = client.link else {
            if client.heard.is_some() || is_ready {
                let link = broker.open(self.random.below(broker.shards()), Level::Disk);
                broker.send(link, &client.connect());
                client.link = Some(link);
            }
            return Ok(());
        };
        let of_broker = &mut broker.links[link];
        let some = self.random.below(of_broker.to_client.len() + 1);
        let bytes: Vec<_> = of_broker.to_client.drain(..some).collect();
        if of_broker.is_cut || of_broker.is_closed_by_broker && of_broker.to_client.is_empty() {
            client.lost();
            return Ok(());
        }
        let answer = client.hear(&bytes)?;
        broker.send(link, &answer);
        Ok(())
    }

    /// Something is cut, or somebody killed.
    fn disturb(&mut self) -> Result<(), String> {
        if self.disturbances == 0 || !self.is_ready() || self.random.chance(990) {
            return Ok(());
        }
        self.disturbances -= 1;
        if self.random.chance(250) {
            let place = self.random.below(self.brokers.len());
            let cuts_power = self.brokers[place].crash_cuts_power();
            self.brokers[place].crash(cuts_power, &mut self.random)?;
            for bridge in &mut self.bridges {
                let killed = (place, Timestamp::from_ms(self.now_ms));
                bridge.restart(killed, &mut self.brokers, &mut self.random);
            }
            return Ok(());
        }
        let links = self.links();
        if !links.is_empty() {
            let (broker, link) = self.random.pick(&links);
            let broker = &mut self.brokers[broker];
            let arrives = self.random.below(broker.unsent(link) + 1);
            broker.cut(link, arrives);
        }
        Ok(())
    }

    /// All links that are in use, with their brokers.
    fn links(&self) -> Vec<(usize, LinkId)> {
        let of_clients = self
            .clients
            .iter()
            .filter_map(|client| Some((client.broker, client.link?)));
        let of_bridges = self.bridges.iter().flat_map(Bridge::links);
        of_clients.chain(of_bridges).collect()
    }

    /// Everything has come: nobody is disturbed any more, nothing may come twice, nothing be left.
    fn come_to_rest(&mut self) -> Result<(), String> {
        self.disturbances = 0;
        for step in 0..REST_STEPS_MAX {
            self.step()?;
            if step % 16 == 0 && self.is_at_rest() {
                return self.check_nothing_left();
            }
        }
        Err(format!("it does not come to rest: {}", self.told()))
    }

    fn is_at_rest(&mut self) -> bool {
        let links = self.links();
        let mut unread = links
            .iter()
            .map(|(broker, link)| &self.brokers[*broker].links[*link].to_client);
        unread.all(|bytes| bytes.is_empty())
            && self.clients.iter().all(|client| client.link.is_some())
            && self.bridges.iter().all(|bridge| bridge.is_up)
            && self.brokers.iter_mut().all(World::is_quiet)
    }

    fn check_nothing_left(&self) -> Result<(), String> {
        for (number, broker) in self.brokers.iter().enumerate() {
            for gauge in ["queued_messages", "inflight_messages"] {
                let left = broker.statistic(gauge);
                if left > 0 {
                    return Err(format!("broker {number} at rest has {left} {gauge}"));
                }
            }
        }
        Ok(())
    }
}

/// Runs one seed.
fn simulate(seed: u64, planted: Planted, steps_max: usize) -> Result<(), String> {
    caught(|| Sim::new(seed, planted).run(steps_max))
}

#[test]
fn what_brokers_owe_is_kept_whatever_happens_to_lines_between_them() {
    let seeds = match number("RINGMQ_TEST_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("RINGMQ_TEST_SIM_FIRST").unwrap_or(0);
            let count = number("RINGMQ_TEST_SIM_SEEDS").map_or(SEEDS, |seeds| seeds / 10);
            first..first + count
        }
    };
    for seed in seeds {
        if let Err(failure) = simulate(seed, Planted::Nothing, STEPS_MAX) {
            panic!(
                "seed {seed}: {failure}\nreplay: RINGMQ_TEST_SIM_SEED={seed} cargo test --test sim bridges"
            );
        }
    }
}

/// Of brokers and lines that do wrong once the oracle finds some at least: a cut may undo what was done before
/// it.
#[test]
fn planted_errors_are_found() {
    let first = |planted, seeds| {
        let mut seeds = 0..seeds;
        seeds.find(|seed| simulate(*seed, planted, STEPS_MAX / 4).is_err())
    };
    let found = first(Planted::Nothing, 12);
    assert_eq!(found, None, "all come to their end in so many steps");
    let planted = [
        Planted::Doubles,
        Planted::Reorders,
        Planted::Swallows,
        Planted::Nameless,
        Planted::Partless,
    ];
    for planted in planted {
        let found = first(planted, SEEDS);
        assert!(found.is_some(), "{planted:?}");
    }
}
