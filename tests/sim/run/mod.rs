//! One run: a seed decides how many shards and clients there are, what they do, and how rough it gets.

mod crash;
mod hear;
mod rest;

use crate::client::{Client, Phase, Unacknowledged};
use crate::oracle::{ClientId, Message, Oracle, Subscription};
use crate::random::Random;
use crate::wire::{self, Connect, Publish, Will};
use crate::world::{LEVELS, MEMORY_MAX, Roughness, World};
use ringmq::engine::receipt::Level;
use ringmq::engine::route::shared::SharedStrategy;
use ringmq::engine::shard::{ListenerPolicy, Settings};
use std::collections::VecDeque;

const TOPICS: [&str; 6] = ["a/0", "a/1", "a/2", "b/0", "b/0/x", "c"];
const FILTERS: [&str; 10] = [
    "r/#", "#", "+/0", "a/+", "a/0", "a/1", "a/#", "b/#", "b/+", "c",
];
const SHARED: [&str; 4] = ["a/#", "a/1", "b/#", "+/0"];
/// The largest packet that some clients take, ...
const SMALL_BYTES: u32 = 100;
/// ... and what makes a message larger.
const PADDING: char = '.';
/// Steps in which everything has to come to rest.
const REST_STEPS_MAX: usize = 200_000;
/// Reason codes of a DISCONNECT.
const TAKEN_OVER: u8 = 0x8E;
const QUOTA_EXCEEDED: u8 = 0x97;
/// Events kept for the report of a failure.
const TRACE_MAX: usize = 60;

/// What happens how often, per mille of the steps.
struct Weights {
    connect: u32,
    publish: u32,
    subscribe: u32,
    unsubscribe: u32,
    leave: u32,
    cut: u32,
    take_over: u32,
    stall: u32,
    memory: u32,
    time: u32,
    crash: u32,
}

/// One simulated broker and its clients.
pub struct Run {
    random: Random,
    world: World,
    clients: Vec<Client>,
    oracle: Oracle,
    weights: Weights,
    /// So many of the filters are in use: with few, clients share them.
    filters: usize,
    /// All subscribe to one share group and nothing else, with sessions that stay.
    is_one_group: bool,
    /// Nearly all is of QoS 2, sessions stay, and the broker is killed often.
    is_once: bool,
    steps: usize,
    now: u64,
    /// What happened last.
    pub trace: VecDeque<String>,
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let is_calm = random.chance(350);
        let shards = 1 + random.below(4);
        let mut roughness = Roughness {
            read: 200 + random.below(700) as u32,
            complete: 200 + random.below(700) as u32,
            run: 200 + random.below(800) as u32,
            commit: 100 + random.below(900) as u32,
            checkpoint: random.pick(&[0, 2, 20]),
            pending_max: random.pick(&[0, 5, 1_000]),
        };
        let letters_max = random.pick(&[1, 2, 7, 4096]);
        let strategies = [
            SharedStrategy::RoundRobin,
            SharedStrategy::LeastInflight,
            SharedStrategy::Sticky,
            SharedStrategy::HashTopic,
            SharedStrategy::HashPublisher,
        ];
        let mut settings = Settings {
            shared_strategy: random.pick(&strategies),
            stores: true,
            listeners: LEVELS.map(listener).to_vec(),
            checkpoint_part_bytes: random.pick(&[1, 1_000, 100_000]),
            ..Settings::default()
        };
        // Time leaps here, but not for honest clients.
        settings.limits.connect_timeout_ms = 1_000_000_000;
        settings.limits.turn_deliveries_max = random.pick(&[1, 4, 32_768]);
        settings.limits.turn_sends_max = random.pick(&[1, 3, 1_024]);
        settings.limits.turn_send_bytes_max = random.pick(&[1, 100, 1 << 20]);
        settings.limits.turn_us_goal = random.pick(&[500, 4_000]);
        settings.limits.inflight_max = random.pick(&[1, 2, 5, 1024]);
        settings.limits.receive_maximum = random.pick(&[2, 8, 1024]);
        let is_one_group = random.chance(250);
        let is_once = !is_calm && !is_one_group && random.chance(400);
        if is_once {
            roughness.commit = 100 + random.below(500) as u32;
            roughness.checkpoint = random.pick(&[2, 20, 60]);
        }
        let world = World::new(shards, seed, &settings, letters_max, roughness);
        let clients = 2 + random.below(6);
        let clients: Vec<Client> = (0..clients)
            .map(|number| client(number, is_calm, (is_one_group, is_once), &mut random))
            .map(|client| at_level(client, seed))
            .collect();
        let rough = |random: &mut Random, max: usize| {
            if is_calm { 0 } else { random.below(max) as u32 }
        };
        let weights = Weights {
            connect: if is_one_group { 150 } else { 30 } + random.below(100) as u32,
            publish: 20 + random.below(200) as u32,
            subscribe: 5 + random.below(60) as u32,
            unsubscribe: random.below(30) as u32,
            leave: rough(&mut random, if is_one_group { 60 } else { 15 }),
            cut: rough(&mut random, 25),
            take_over: rough(&mut random, 10),
            stall: random.below(10) as u32,
            // While it is short, messages for those that are away may be lost.
            memory: if random.chance(500) && !is_once {
                random.below(10) as u32
            } else {
                0
            },
            time: random.below(60) as u32,
            crash: if is_once {
                2 + random.below(8) as u32
            } else if random.chance(500) {
                rough(&mut random, 5)
            } else {
                0
            },
        };
        let mut oracle = Oracle::new(is_calm);
        oracle.is_stored_at_once = shards == 1 && settings.limits.turn_deliveries_max > 4;
        Run {
            steps: 300 + random.below(1500),
            filters: random.pick(&[1, 3, FILTERS.len()]),
            is_one_group,
            is_once,
            random,
            world,
            clients,
            oracle,
            weights,
            now: 1,
            trace: VecDeque::new(),
        }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        let line = format!("{} {}", self.now, text());
        self.trace.push_back(line);
    }

    /// The whole run.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.steps {
            self.step()?;
        }
        self.come_to_rest(true)?;
        self.check_complete()?;
        self.clean_up()
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        let shard = self.random.below(self.world.shards());
        self.world.turn(shard, &mut self.random);
        if let Some(fault) = self.world.fault.take() {
            return Err(format!("shard {shard}: {fault}"));
        }
        let client = self.random.below(self.clients.len());
        if !self.clients[client].is_stalled {
            self.read(client)?;
        }
        let w = &self.weights;
        let actions = [
            (w.connect, Run::connect as fn(&mut Run, ClientId)),
            (w.publish, Run::publish),
            (w.subscribe, Run::subscribe),
            (w.unsubscribe, Run::unsubscribe),
            (w.leave, Run::leave),
            (w.cut, Run::cut),
            (w.take_over, Run::take_over),
            (w.stall, Run::stall),
            (w.memory, Run::use_memory),
            (w.time, Run::pass_time),
            (w.crash, Run::crash),
        ];
        for (weight, action) in actions {
            if self.random.chance(weight) {
                let client = self.random.below(self.clients.len());
                action(self, client);
            }
        }
        Ok(())
    }

    // What clients do.

    fn connect(&mut self, id: ClientId) {
        if self.clients[id].phase != Phase::Idle {
            return;
        }
        self.open(id);
    }

    fn open(&mut self, id: ClientId) {
        let shard = self.random.below(self.world.shards());
        let link = self.world.open(shard, self.clients[id].level);
        let mut connect = self.clients[id].connect.clone();
        self.clients[id].will = None;
        if self.random.chance(200) && !self.oracle.is_calm {
            let qos = self.random.below(3) as u8;
            let delay_s = self.random.pick(&[0, 0, 1, 30]);
            let topic = self.random.pick(&TOPICS).to_owned();
            let message = self.oracle.messages.len();
            self.oracle.messages.push(Message {
                publisher: id,
                topic: topic.clone(),
                qos,
                retain: false,
                is_clear: false,
                is_large: false,
                // A CONNECT that comes late may end this connection before its client knows.
                sent_at: (self.clients[id].stragglers > 0).then_some(self.now),
                asked_at: self.now,
                accepted_at: None,
                is_resent: false,
                is_new_again: false,
                is_will: true,
                is_prompt_will: !connect.is_v5 || delay_s == 0,
            });
            connect.will = Some(Will {
                topic,
                payload: message.to_string().into_bytes(),
                qos,
                delay_s,
            });
            self.clients[id].will = Some(message);
            self.clients[id].open_wills.push(message);
        }
        if self.clients[id].may_be_small && self.random.chance(500) {
            connect.packet_bytes_max = Some(SMALL_BYTES);
        }
        self.world.send(link, &wire::connect(&connect));
        let client = &mut self.clients[id];
        client.link = Some(link);
        client.inbound.clear();
        client.connects += 1;
        client.opened_ms = self.world.now_ms;
        client.is_connection_stored = false;
        client.phase = Phase::Connecting;
        client.is_stalled = false;
        client.forget_requests();
        self.note(|| format!("client {id} connects on link {link} shard {shard} {connect:?}"));
    }

    fn publish(&mut self, id: ClientId) {
        let client = &self.clients[id];
        if client.phase != Phase::Up || client.unacknowledged.len() >= client.receive_maximum {
            return;
        }
        let is_value = !self.is_one_group && self.random.chance(300);
        let (topic, qos, is_clear) = if is_value {
            let is_clear = self.random.chance(150);
            (format!("r/{id}"), (id % 3) as u8, is_clear)
        } else {
            let topics = if self.is_one_group { 3 } else { TOPICS.len() };
            let topic = self.random.pick(&TOPICS[..topics]).to_owned();
            (topic, self.random.below(3) as u8, false)
        };
        // Values of one topic are compared with each other: they are of one QoS.
        let is_once = self.is_once && (is_value || self.random.chance(800));
        let qos = if is_once { 2 } else { qos };
        let message = self.oracle.messages.len();
        let packet_id = if qos > 0 {
            self.clients[id].packet_id()
        } else {
            0
        };
        let large = if self.is_one_group { 700 } else { 300 };
        let is_large = !is_value && self.random.chance(large);
        let padding = if is_large { SMALL_BYTES as usize } else { 0 };
        let payload = if is_clear {
            Vec::new()
        } else {
            let padding = PADDING.to_string().repeat(padding);
            format!("{message}{padding}").into_bytes()
        };
        let publish = Publish {
            topic: topic.clone(),
            payload,
            qos,
            retain: is_value,
            packet_id,
        };
        self.oracle.messages.push(Message {
            publisher: id,
            topic,
            qos,
            retain: is_value,
            is_clear,
            is_large,
            sent_at: Some(self.now),
            asked_at: self.now,
            accepted_at: None,
            is_resent: false,
            is_new_again: false,
            is_will: false,
            is_prompt_will: false,
        });
        let bytes = wire::publish(&publish, false, self.clients[id].connect.is_v5);
        self.transmit(id, &bytes);
        self.note(|| format!("client {id} publishes {message}: {publish:?}"));
        if qos > 0 {
            self.clients[id].unacknowledged.push_back(Unacknowledged {
                message,
                publish,
                is_released: false,
            });
        }
    }

    fn transmit(&mut self, id: ClientId, bytes: &[u8]) {
        if let Some(link) = self.clients[id].link {
            self.world.send(link, bytes);
        }
    }

    fn subscribe(&mut self, id: ClientId) {
        let client = &self.clients[id];
        let (Phase::Up, Some(epoch), Some(link)) = (client.phase, client.epoch, client.link) else {
            return;
        };
        if client.unsubscribing.len() + client.subscribing.len() > 3 {
            return;
        }
        let packet_id = self.clients[id].packet_id();
        let qos = self.clients[id].qos;
        let mut filters = Vec::new();
        let mut asked = Vec::new();
        let most = if self.random.chance(200) { 6 } else { 2 };
        let names = if self.is_one_group { 1 } else { 2 };
        for _ in 0..=self.random.below(most) {
            let share = self
                .random
                .chance(match (self.is_one_group, self.is_once) {
                    (true, _) => 1000,
                    (_, true) => 50,
                    _ => 250,
                })
                .then(|| self.random.pick(&["g", "h"][..names]).to_owned());
            let filter = match &share {
                Some(_) if self.is_one_group => SHARED[0],
                Some(_) => self.random.pick(&SHARED),
                None => self.random.pick(&FILTERS[..self.filters]),
            };
            let wire_filter = match &share {
                Some(share) => format!("$share/{share}/{filter}"),
                None => filter.to_owned(),
            };
            let is_taken = self.clients[id].subscriptions.iter().any(|s| {
                let s = &self.oracle.subscriptions[*s];
                s.filter == filter && s.share == share
            });
            if is_taken || filters.iter().any(|(f, _)| *f == wire_filter) {
                continue;
            }
            asked.push(self.oracle.subscriptions.len());
            self.oracle.subscriptions.push(Subscription {
                client: id,
                epoch,
                filter: filter.to_owned(),
                share,
                qos,
                subscribed_at: self.now,
                suback_at: None,
                link,
                is_kept: self.clients[id].is_kept,
                may_be_small: self.clients[id].may_be_small,
                unsubscribed_at: None,
                unsuback_at: None,
            });
            filters.push((wire_filter, qos));
        }
        if filters.is_empty() {
            return;
        }
        let bytes = wire::subscribe(packet_id, &filters, self.clients[id].connect.is_v5);
        self.transmit(id, &bytes);
        self.note(|| format!("client {id} subscribes {packet_id}: {filters:?}"));
        let client = &mut self.clients[id];
        client.subscriptions.extend_from_slice(&asked);
        client.subscribing.insert(packet_id, asked);
    }

    fn unsubscribe(&mut self, id: ClientId) {
        if self.clients[id].phase != Phase::Up || self.clients[id].subscriptions.is_empty() {
            return;
        }
        let packet_id = self.clients[id].packet_id();
        let now = self.now;
        let most = if self.random.chance(200) { 5 } else { 1 };
        let mut filters = Vec::new();
        let mut asked = Vec::new();
        for _ in 0..=self.random.below(most) {
            let subscriptions = &mut self.clients[id].subscriptions;
            if subscriptions.is_empty() {
                break;
            }
            let at = self.random.below(subscriptions.len());
            let index = subscriptions.swap_remove(at);
            asked.push(index);
            let subscription = &mut self.oracle.subscriptions[index];
            subscription.unsubscribed_at = Some(now);
            filters.push(match &subscription.share {
                Some(share) => format!("$share/{share}/{}", subscription.filter),
                None => subscription.filter.clone(),
            });
        }
        let is_v5 = self.clients[id].connect.is_v5;
        let bytes = wire::unsubscribe(packet_id, &filters, is_v5);
        self.transmit(id, &bytes);
        self.clients[id].unsubscribing.insert(packet_id, asked);
        self.note(|| format!("client {id} unsubscribes {packet_id}: {filters:?}"));
    }

    fn leave(&mut self, id: ClientId) {
        if self.clients[id].phase != Phase::Up {
            return;
        }
        self.transmit(id, &wire::DISCONNECT);
        let client = &mut self.clients[id];
        client.phase = Phase::Leaving;
        if client.stragglers == 0 {
            client.left_ms = self.world.now_ms;
        }
        self.clients[id].is_stalled = false;
        self.note(|| format!("client {id} says DISCONNECT"));
    }

    fn cut(&mut self, id: ClientId) {
        let Some(link) = self.clients[id].link else {
            return;
        };
        let arrives = self.random.below(self.world.unsent(link) + 1);
        // The broker may have closed it long before: then nobody knows when the will came.
        let is_news = !self.world.is_closing(link);
        self.world.cut(link, arrives);
        self.note(|| format!("link {link} of client {id} breaks, {arrives} bytes arrive"));
        self.lost_connection(id, is_news);
    }

    /// The connection is gone, not by DISCONNECT.
    fn lost_connection(&mut self, id: ClientId, is_news: bool) {
        let was = self.clients[id].phase;
        self.trigger_will(id, was == Phase::Up && is_news);
        let client = &mut self.clients[id];
        if was == Phase::Connecting {
            client.stragglers += 1;
        } else if was == Phase::Up && client.stragglers == 0 {
            client.left_ms = self.world.now_ms;
        }
        self.ended(id);
    }

    fn ended(&mut self, id: ClientId) {
        let client = &mut self.clients[id];
        client.link = None;
        client.phase = Phase::Idle;
        client.forget_requests();
        if !client.is_kept {
            client.forget_session();
        }
    }

    fn trigger_will(&mut self, id: ClientId, is_certain: bool) {
        if let Some(will) = self.clients[id].will.take() {
            let message = &mut self.oracle.messages[will];
            if message.sent_at.is_some() {
                return;
            }
            message.sent_at = Some(self.now);
            if is_certain && message.is_prompt_will {
                message.accepted_at = Some(self.now);
            }
        }
    }

    /// The same client connects again while its old connection stands.
    fn take_over(&mut self, id: ClientId) {
        if self.clients[id].phase != Phase::Up {
            return;
        }
        let Some(old) = self.clients[id].link else {
            return;
        };
        self.note(|| format!("client {id} leaves link {old} standing and connects again"));
        // What the old connection still brings is not read any more; it must not bring down the session.
        self.trigger_will(id, false);
        let client = &mut self.clients[id];
        if !client.is_kept {
            client.forget_session();
        }
        if client.stragglers == 0 {
            client.left_ms = self.world.now_ms;
        }
        self.open(id);
    }

    fn stall(&mut self, id: ClientId) {
        let client = &mut self.clients[id];
        client.is_stalled = client.phase == Phase::Up && !client.is_stalled;
    }

    /// Memory becomes short, or enough again.
    fn use_memory(&mut self, _: ClientId) {
        let most = if self.oracle.is_calm { 3 } else { 5 };
        let used = [0, 750, 850, 920, 960][self.random.below(most)];
        self.note(|| format!("{used} of {MEMORY_MAX} bytes of memory are used"));
        self.world.use_memory(used);
        self.oracle.may_cut |= self.world.was_refusing;
        self.oracle.memory_is_short(used > 0, self.now);
    }

    fn pass_time(&mut self, _: ClientId) {
        let far = self.random.chance(100);
        self.world.now_ms += if far {
            self.random.below(5_000) as u64
        } else {
            self.random.below(20) as u64
        };
    }
}

fn client(
    number: usize,
    is_calm: bool,
    (is_one_group, is_once): (bool, bool),
    random: &mut Random,
) -> Client {
    let is_v5 = random.chance(500) || is_one_group;
    let is_persistent = random.chance(if is_once { 850 } else { 500 }) || is_one_group;
    let expiry_s = if is_persistent && is_once {
        u32::MAX
    } else if is_persistent {
        random.pick(&[3, 3600, u32::MAX])
    } else {
        0
    };
    let connect = Connect {
        name: format!("client-{number}-{}", random.below(1000)),
        is_v5,
        is_clean: !is_persistent,
        expiry_s: if is_calm && is_persistent {
            u32::MAX
        } else {
            expiry_s
        },
        receive_maximum: random.pick(&[1, 3, 65535]),
        packet_bytes_max: None,
        will: None,
    };
    // A group with a member of QoS 0 may lose anything in a crash.
    let qos = if is_one_group && random.chance(800) {
        1
    } else if is_once {
        2
    } else {
        random.below(3) as u8
    };
    let reads = random.pick(&[5, 40, 2000]);
    // What is given up frees an identifier that a crash forgets.
    let may_be_small = is_v5 && random.chance(500) && !is_once;
    let mut client = Client::new(connect, qos, reads);
    client.may_be_small = may_be_small;
    client
}

fn listener(durability: Level) -> ListenerPolicy {
    ListenerPolicy {
        durability,
        ..ListenerPolicy::default()
    }
}

/// In half of the worlds all clients come by the listener of level disk, in a quarter by that of level os.
fn at_level(mut client: Client, seed: u64) -> Client {
    if seed % 4 == 1 {
        client.level = Level::Os;
    } else if seed % 4 == 3 {
        let name = client.connect.name.bytes();
        let sum = name.fold(0, |sum, letter| sum + usize::from(letter));
        client.level = LEVELS[sum % LEVELS.len()];
    }
    client
}
