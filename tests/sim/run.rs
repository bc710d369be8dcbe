//! One run: a seed decides how many shards and clients there are, what they do, and how rough it gets.

use crate::client::{Client, Phase, Unacknowledged};
use crate::oracle::{Arrival, ClientId, Message, Oracle, Subscription};
use crate::random::Random;
use crate::wire::{self, Connect, Packet, Publish, Will};
use crate::world::{Roughness, World};
use ringmq::route::shared::SharedStrategy;
use ringmq::shard::core::Settings;
use std::collections::VecDeque;

const TOPICS: [&str; 6] = ["a/0", "a/1", "a/2", "b/0", "b/0/x", "c"];
const FILTERS: [&str; 10] = [
    "a/0", "a/1", "a/+", "a/#", "b/#", "b/+", "+/0", "#", "c", "r/#",
];
const SHARED: [&str; 4] = ["a/#", "a/1", "b/#", "+/0"];
/// Steps in which everything has to come to rest.
const REST_STEPS_MAX: usize = 200_000;
/// Reason code of a DISCONNECT.
const TAKEN_OVER: u8 = 0x8E;
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
    time: u32,
}

/// One simulated broker and its clients.
pub struct Run {
    random: Random,
    world: World,
    clients: Vec<Client>,
    oracle: Oracle,
    weights: Weights,
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
        let roughness = Roughness {
            read: 200 + random.below(700) as u32,
            complete: 200 + random.below(700) as u32,
            full: random.pick(&[0, 0, 50, 300]),
            drain: 200 + random.below(800) as u32,
            commit: 100 + random.below(900) as u32,
        };
        let strategies = [
            SharedStrategy::RoundRobin,
            SharedStrategy::LeastInflight,
            SharedStrategy::Sticky,
            SharedStrategy::HashTopic,
            SharedStrategy::HashPublisher,
        ];
        let mut settings = Settings {
            shared_strategy: random.pick(&strategies),
            ..Settings::default()
        };
        // Time leaps here, but not for honest clients.
        settings.limits.connect_timeout_ms = 1_000_000_000;
        settings.limits.inflight_max = random.pick(&[1, 2, 5, 1024]);
        settings.limits.receive_maximum = random.pick(&[2, 8, 1024]);
        let world = World::new(shards, seed, &settings, roughness);
        let clients = 2 + random.below(6);
        let clients = (0..clients)
            .map(|number| client(number, is_calm, &mut random))
            .collect();
        let rough = |random: &mut Random, max: usize| {
            if is_calm { 0 } else { random.below(max) as u32 }
        };
        let weights = Weights {
            connect: 30 + random.below(100) as u32,
            publish: 20 + random.below(200) as u32,
            subscribe: 5 + random.below(60) as u32,
            unsubscribe: random.below(30) as u32,
            leave: rough(&mut random, 15),
            cut: rough(&mut random, 25),
            take_over: rough(&mut random, 10),
            stall: random.below(10) as u32,
            time: random.below(60) as u32,
        };
        Run {
            steps: 300 + random.below(1500),
            random,
            world,
            clients,
            oracle: Oracle::new(is_calm),
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
            (w.time, Run::pass_time),
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
        let link = self.world.open(shard);
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
                // A CONNECT that comes late may end this connection before its client knows.
                sent_at: (self.clients[id].stragglers > 0).then_some(self.now),
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
        }
        self.world.send(link, &wire::connect(&connect));
        let client = &mut self.clients[id];
        client.link = Some(link);
        client.inbound.clear();
        client.connects += 1;
        client.opened_ms = self.world.now_ms;
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
        let is_value = self.random.chance(300);
        let (topic, qos, is_clear) = if is_value {
            let is_clear = self.random.chance(150);
            (format!("r/{id}"), (id % 3) as u8, is_clear)
        } else {
            let topic = self.random.pick(&TOPICS).to_owned();
            (topic, self.random.below(3) as u8, false)
        };
        let message = self.oracle.messages.len();
        let packet_id = if qos > 0 {
            self.clients[id].packet_id()
        } else {
            0
        };
        let payload = if is_clear {
            Vec::new()
        } else {
            message.to_string().into_bytes()
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
            sent_at: Some(self.now),
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
        for _ in 0..=self.random.below(2) {
            let share = self
                .random
                .chance(250)
                .then(|| self.random.pick(&["g", "h"]).to_owned());
            let filter = match &share {
                Some(_) => self.random.pick(&SHARED),
                None => self.random.pick(&FILTERS),
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
        let at = self.random.below(self.clients[id].subscriptions.len());
        let index = self.clients[id].subscriptions.swap_remove(at);
        let packet_id = self.clients[id].packet_id();
        let now = self.now;
        let subscription = &mut self.oracle.subscriptions[index];
        subscription.unsubscribed_at = Some(now);
        let filter = match &subscription.share {
            Some(share) => format!("$share/{share}/{}", subscription.filter),
            None => subscription.filter.clone(),
        };
        let is_v5 = self.clients[id].connect.is_v5;
        let bytes = wire::unsubscribe(packet_id, std::slice::from_ref(&filter), is_v5);
        self.transmit(id, &bytes);
        self.clients[id]
            .unsubscribing
            .insert(packet_id, vec![index]);
        self.note(|| format!("client {id} unsubscribes {packet_id}: {filter}"));
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
        self.world.cut(link, arrives);
        self.note(|| format!("link {link} of client {id} breaks, {arrives} bytes arrive"));
        self.lost_connection(id);
    }

    /// The connection is gone, not by DISCONNECT.
    fn lost_connection(&mut self, id: ClientId) {
        let was = self.clients[id].phase;
        self.trigger_will(id, was == Phase::Up);
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

    fn pass_time(&mut self, _: ClientId) {
        let far = self.random.chance(100);
        self.world.now_ms += if far {
            self.random.below(5_000) as u64
        } else {
            self.random.below(20) as u64
        };
    }

    // What clients hear.

    fn read(&mut self, id: ClientId) -> Result<(), String> {
        let Some(link) = self.clients[id].link else {
            return Ok(());
        };
        let reads = self.clients[id].reads;
        let count = 1 + self.random.below(reads);
        let available = &mut self.world.links[link].to_client;
        let count = count.min(available.len());
        let fresh: Vec<u8> = available.drain(..count).collect();
        self.clients[id].inbound.extend_from_slice(&fresh);
        let is_v5 = self.clients[id].connect.is_v5;
        loop {
            let mut inbound = std::mem::take(&mut self.clients[id].inbound);
            let packet = wire::take(&mut inbound, is_v5);
            self.clients[id].inbound = inbound;
            match packet {
                Some(packet) => self.handle(id, packet)?,
                None => break,
            }
        }
        let link = &self.world.links[link];
        if link.is_closed_by_broker && link.to_client.is_empty() {
            return self.closed_by_broker(id);
        }
        Ok(())
    }

    fn closed_by_broker(&mut self, id: ClientId) -> Result<(), String> {
        if self.clients[id].phase == Phase::Leaving {
            self.clients[id].will = None;
            self.ended(id);
            return Ok(());
        }
        let client = &mut self.clients[id];
        if client.stragglers == 0 {
            return Err(format!("the broker closed the connection of client {id}"));
        }
        client.stragglers -= 1;
        let was = client.phase;
        self.note(|| format!("a CONNECT of client {id} that came late has taken over"));
        self.trigger_will(id, was == Phase::Up);
        self.ended(id);
        Ok(())
    }

    fn handle(&mut self, id: ClientId, packet: Packet) -> Result<(), String> {
        self.note(|| format!("client {id} gets {packet:?}"));
        match packet {
            Packet::Connack {
                session_present,
                code,
                receive_maximum,
            } => self.connected(id, session_present, code, receive_maximum),
            Packet::Publish {
                topic,
                qos,
                dup,
                retain,
                packet_id,
                payload,
            } => self.delivered(id, (topic, qos, dup, retain, packet_id, payload)),
            Packet::Ack {
                kind,
                packet_id,
                reason,
            } => self.acknowledged(id, kind, packet_id, reason),
            Packet::Suback { packet_id, codes } => self.subscribed(id, packet_id, &codes),
            Packet::Unsuback { packet_id } => {
                let asked = self.clients[id].unsubscribing.remove(&packet_id);
                for index in asked.ok_or_else(|| format!("UNSUBACK {packet_id} out of nowhere"))? {
                    self.oracle.subscriptions[index].unsuback_at = Some(self.now);
                }
                Ok(())
            }
            Packet::Disconnect(TAKEN_OVER) if self.clients[id].stragglers > 0 => Ok(()),
            Packet::Disconnect(reason) => Err(format!("client {id}: DISCONNECT 0x{reason:02X}")),
            Packet::Pingresp => Ok(()),
        }
    }

    fn connected(
        &mut self,
        id: ClientId,
        session_present: bool,
        code: u8,
        receive_maximum: u16,
    ) -> Result<(), String> {
        if code != 0 {
            return Err(format!("client {id} was refused: {code}"));
        }
        let client = &mut self.clients[id];
        let may_be_there = client.connects > 1 && client.is_kept && !client.connect.is_clean;
        if session_present && !may_be_there {
            return Err(format!("client {id}: a session where there is none"));
        }
        let away_ms = self.world.now_ms - client.left_ms;
        let lasts = !client.connect.is_v5 || away_ms < u64::from(client.connect.expiry_s) * 1000;
        if client.epoch.is_some() && !session_present && lasts && !client.connect.is_clean {
            return Err(format!(
                "client {id}: its session is gone after {away_ms} ms"
            ));
        }
        client.phase = Phase::Up;
        client.left_ms = client.opened_ms;
        if session_present && !lasts && client.stragglers > 0 {
            // It may have ended, and a CONNECT whose answer was lost may have made another.
            client.is_uncertain = true;
            if let Some(epoch) = client.epoch {
                self.oracle.uncertain.insert((id, epoch));
            }
        }
        client.receive_maximum = usize::from(receive_maximum).min(8);
        if session_present && client.epoch.is_none() {
            // It never heard of the session that its lost CONNECT has made.
            client.received.clear();
        }
        if !session_present || client.epoch.is_none() {
            client.forget_session();
            client.epoch = Some(client.epochs);
            client.epochs += 1;
            return Ok(());
        }
        self.resend(id);
        Ok(())
    }

    /// Repeats what was not acknowledged, in its order.
    fn resend(&mut self, id: ClientId) {
        let is_v5 = self.clients[id].connect.is_v5;
        let is_uncertain = self.clients[id].is_uncertain;
        let mut bytes = Vec::new();
        for unacknowledged in self.clients[id].unacknowledged.clone() {
            if unacknowledged.is_released {
                bytes.extend(wire::ack(6, unacknowledged.publish.packet_id));
            } else {
                let message = &mut self.oracle.messages[unacknowledged.message];
                message.is_resent = true;
                message.is_new_again |= is_uncertain;
                bytes.extend(wire::publish(&unacknowledged.publish, true, is_v5));
            }
        }
        self.transmit(id, &bytes);
    }

    fn delivered(
        &mut self,
        id: ClientId,
        (topic, qos, dup, retain, packet_id, payload): (String, u8, bool, bool, u16, Vec<u8>),
    ) -> Result<(), String> {
        if self.clients[id].phase == Phase::Connecting {
            return Err(format!("client {id}: PUBLISH before CONNACK"));
        }
        match qos {
            1 => self.transmit(id, &wire::ack(4, packet_id)),
            2 => {
                self.transmit(id, &wire::ack(5, packet_id));
                if !self.clients[id].received.insert(packet_id) {
                    if dup {
                        return Ok(());
                    }
                    if !self.clients[id].is_uncertain {
                        return Err(format!("client {id}: {packet_id} again, without DUP"));
                    }
                }
            }
            _ if dup => return Err(format!("client {id}: DUP at QoS 0")),
            _ => {}
        }
        if payload.is_empty() {
            return if retain {
                Err(format!("client {id}: an empty retained message"))
            } else {
                Ok(())
            };
        }
        let Some(epoch) = self.clients[id].epoch else {
            return Err(format!("client {id}: PUBLISH without a session"));
        };
        let text = String::from_utf8(payload).map_err(|_| "a damaged payload".to_owned())?;
        let arrival = Arrival {
            client: id,
            epoch,
            message: text
                .parse()
                .map_err(|_| format!("a damaged payload {text}"))?,
            topic,
            qos,
            retain,
            dup,
        };
        self.oracle.arrived(&arrival, self.now)
    }

    fn acknowledged(
        &mut self,
        id: ClientId,
        kind: u8,
        packet_id: u16,
        reason: u8,
    ) -> Result<(), String> {
        if kind == 6 {
            self.clients[id].received.remove(&packet_id);
            self.transmit(id, &wire::ack(7, packet_id));
            return Ok(());
        }
        if reason >= 0x80 && !(kind == 7 && reason == 0x92) {
            return Err(format!(
                "client {id}: ack {kind} of {packet_id} says 0x{reason:02X}"
            ));
        }
        let now = self.now;
        let client = &mut self.clients[id];
        let position = client
            .unacknowledged
            .iter()
            .position(|u| u.publish.packet_id == packet_id);
        let Some(at) = position else {
            return Err(format!(
                "client {id}: ack {kind} of {packet_id} out of nowhere"
            ));
        };
        let unacknowledged = &mut client.unacknowledged[at];
        let expected_qos = if kind == 4 { 1 } else { 2 };
        if unacknowledged.publish.qos != expected_qos {
            return Err(format!("client {id}: ack {kind} of a QoS it is not for"));
        }
        let message = &mut self.oracle.messages[unacknowledged.message];
        message.accepted_at.get_or_insert(now);
        if kind == 5 {
            unacknowledged.is_released = true;
            self.transmit(id, &wire::ack(6, packet_id));
        } else {
            client.unacknowledged.remove(at);
        }
        Ok(())
    }

    fn subscribed(&mut self, id: ClientId, packet_id: u16, codes: &[u8]) -> Result<(), String> {
        let asked = self.clients[id].subscribing.remove(&packet_id);
        let asked = asked.ok_or_else(|| format!("SUBACK {packet_id} out of nowhere"))?;
        if codes.len() != asked.len() {
            return Err(format!("SUBACK {packet_id} with {} codes", codes.len()));
        }
        for (index, code) in asked.into_iter().zip(codes) {
            let subscription = &mut self.oracle.subscriptions[index];
            if *code != subscription.qos {
                return Err(format!("SUBACK {packet_id} says {code}"));
            }
            subscription.suback_at = Some(self.now);
        }
        Ok(())
    }

    // The end.

    /// Faults stop; everything that is on its way arrives. With `returns`, kept sessions get their clients
    /// back first.
    fn come_to_rest(&mut self, returns: bool) -> Result<(), String> {
        self.world.roughness = Roughness {
            read: 900,
            complete: 900,
            full: 0,
            drain: 1000,
            commit: 1000,
        };
        for client in &mut self.clients {
            client.is_stalled = false;
        }
        let mut quiet = 0;
        for _ in 0..REST_STEPS_MAX {
            self.now += 1;
            for shard in 0..self.world.shards() {
                self.world.turn(shard, &mut self.random);
            }
            let mut is_waiting = false;
            for id in 0..self.clients.len() {
                self.read(id)?;
                let client = &self.clients[id];
                let has_unread = client
                    .link
                    .is_some_and(|l| !self.world.links[l].to_client.is_empty());
                is_waiting |= has_unread
                    || matches!(client.phase, Phase::Connecting | Phase::Leaving)
                    || !client.unacknowledged.is_empty() && client.phase == Phase::Up
                    || !client.subscribing.is_empty()
                    || !client.unsubscribing.is_empty();
                if client.phase == Phase::Idle && client.epoch.is_some() && returns {
                    self.open(id);
                    is_waiting = true;
                }
            }
            quiet = if is_waiting || !self.world.is_quiet() {
                0
            } else {
                quiet + 1
            };
            if quiet > 2 {
                return Ok(());
            }
        }
        let waiting: Vec<_> = self
            .clients
            .iter()
            .map(|c| {
                (
                    c.phase,
                    c.unacknowledged.len(),
                    c.subscribing.len(),
                    c.unsubscribing.len(),
                )
            })
            .collect();
        let unrest = self.world.unrest();
        Err(format!("does not come to rest: {waiting:?} {unrest}"))
    }

    fn check_complete(&mut self) -> Result<(), String> {
        // QoS 0 is accepted where its connection still stands: everything sent on it has arrived.
        let standing: Vec<bool> = self.clients.iter().map(|c| c.phase == Phase::Up).collect();
        if self.oracle.is_calm {
            for message in self.oracle.messages.iter_mut().filter(|m| m.qos == 0) {
                if standing[message.publisher] && message.sent_at.is_some() {
                    message.accepted_at = Some(self.now);
                }
            }
        }
        let epochs: Vec<_> = self.clients.iter().map(|c| c.epoch).collect();
        let links: Vec<_> = self.clients.iter().map(|c| c.link).collect();
        self.oracle.check_complete(&epochs, &links)
    }

    /// All sessions end, retained messages are removed: nothing may be left.
    fn clean_up(&mut self) -> Result<(), String> {
        for id in 0..self.clients.len() {
            self.leave(id);
        }
        self.come_to_rest(false)?;
        for id in 0..self.clients.len() {
            let client = &mut self.clients[id];
            client.connect.is_clean = true;
            client.connect.expiry_s = 0;
            client.is_kept = false;
            client.forget_session();
            self.weights.stall = 0;
            self.oracle.is_calm = true;
            self.open(id);
        }
        self.come_to_rest(false)?;
        for id in 0..self.clients.len() {
            let clear = Publish {
                topic: format!("r/{id}"),
                payload: Vec::new(),
                qos: 0,
                retain: true,
                packet_id: 0,
            };
            let bytes = wire::publish(&clear, false, self.clients[id].connect.is_v5);
            self.transmit(id, &bytes);
            self.transmit(id, &wire::PINGREQ);
        }
        self.come_to_rest(false)?;
        for id in 0..self.clients.len() {
            self.leave(id);
        }
        self.come_to_rest(false)?;
        self.world.now_ms += 4_000_000_000;
        self.come_to_rest(false)?;
        let kept = self.world.kept();
        if kept.iter().any(|(_, count)| *count > 0) {
            return Err(format!("something is left at the end: {kept:?}"));
        }
        Ok(())
    }
}

fn client(number: usize, is_calm: bool, random: &mut Random) -> Client {
    let is_v5 = random.chance(500);
    let is_persistent = random.chance(500);
    let expiry_s = if is_persistent {
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
        will: None,
    };
    let qos = random.below(3) as u8;
    let reads = random.pick(&[5, 40, 2000]);
    Client::new(connect, qos, reads)
}
