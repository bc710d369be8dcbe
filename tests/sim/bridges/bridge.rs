//! One bridge, or one of its connections: when it dials, its line, and the two links that the line stands
//! between.

use super::spoil::{Planted, Spoiler};
use crate::random::Random;
use crate::world::{LinkId, World};
use ringmq::engine::access::{Admitted, Identity};
use ringmq::engine::bridge::dial::{AddressOrder, Dial, DialRule};
use ringmq::engine::bridge::line::{Line, News, Purpose};
use ringmq::engine::bridge::plan::{Direction, Known, Plan, Protocol, Taken, TopicRule};
use ringmq::engine::codec::topic::TopicLimits;
use ringmq::engine::limits::OwnQueue;
use ringmq::engine::message::Qos;
use ringmq::engine::receipt::Level;
use ringmq::engine::route::TopicPart;
use ringmq::engine::time::Timestamp;
use std::sync::Arc;

/// How late it may begin.
const LATE_MS_MAX: usize = 200;

/// Which brokers it joins, and how.
#[derive(Clone, Debug)]
pub struct Join {
    /// The broker whose session it is.
    pub here: usize,
    /// The one to which it dials.
    pub there: usize,
    pub direction: Direction,
    pub protocols: Vec<Protocol>,
    pub hops_max: usize,
    pub part: Option<TopicPart>,
}

fn plan(number: usize, join: &Join, window: u16, random: &mut Random) -> Plan {
    Plan {
        name: format!("b{number}").into(),
        session_id: session_id(number),
        local_user: "bridge".into(),
        client_id: format!("bridge-{number}").into(),
        user_name: None,
        password: None,
        keep_alive_seconds: 0,
        lasts_ms: None,
        idle_ms: None,
        is_persistent: true,
        queue: OwnQueue::default(),
        part: join.part,
        topics: Arc::new([TopicRule {
            direction: join.direction,
            ..TopicRule::default()
        }]),
        topic_alias_max: random.pick(&[0, 2, 8]),
        known: Known::NOTHING,
        remote_state_topic: None,
        broker_name: format!("broker-{}", join.here).into(),
        hops_max: join.hops_max,
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

/// The two ends of a line.
#[derive(Clone, Copy, Debug)]
struct Ends {
    here: LinkId,
    /// None where it leads nowhere.
    there: Option<LinkId>,
}

/// One of them.
pub struct Bridge {
    here: usize,
    there: usize,
    plan: Arc<Plan>,
    protocols: Vec<Protocol>,
    dial: Dial,
    line: Option<Line>,
    ends: Option<Ends>,
    is_made: bool,
    /// Its line is up.
    pub is_up: bool,
    /// It has subscribed at the other broker, which keeps that from then on.
    pub was_up: bool,
    spoiler: Spoiler,
    /// After a start clients may be there before it.
    begins_at: Timestamp,
    /// Why its last line ended.
    cause: String,
}

/// Client identifier of the session of the bridge with a number.
pub fn session_id(number: usize) -> Box<str> {
    format!("$bridge/b{number}").into()
}

fn fresh_dial(protocols: &[Protocol]) -> Dial {
    Dial::new(DialRule {
        addresses: 1,
        order: AddressOrder::InOrder,
        protocols: protocols.into(),
        reconnect_ms_min: 1,
        reconnect_ms_max: 8,
        failback_ms: 0,
        redirects_max: 0,
    })
}

/// No more comes from there.
fn is_gone(world: &World, link: LinkId) -> bool {
    let link = &world.links[link];
    link.is_cut || link.is_closed_by_broker && link.to_client.is_empty()
}

impl Bridge {
    /// `window` is how many unfinished messages its broker takes.
    pub fn new(
        (number, join): (usize, &Join),
        window: u16,
        planted: Planted,
        random: &mut Random,
    ) -> Self {
        Bridge {
            here: join.here,
            there: join.there,
            plan: Arc::new(plan(number, join, window, random)),
            protocols: join.protocols.clone(),
            dial: fresh_dial(&join.protocols),
            line: None,
            ends: None,
            is_made: false,
            is_up: false,
            was_up: false,
            spoiler: Spoiler::new(planted),
            begins_at: Timestamp::default(),
            cause: String::new(),
        }
    }

    /// Its broker was killed, and it with that: it begins anew, as all do at a start.
    pub fn restart(
        &mut self,
        (killed, now): (usize, Timestamp),
        worlds: &mut [World],
        random: &mut Random,
    ) {
        if self.here != killed {
            return;
        }
        if let Some(link) = self.ends.take().and_then(|ends| ends.there) {
            let world = &mut worlds[self.there];
            world.cut(link, random.below(world.unsent(link) + 1));
        }
        (self.line, self.is_made, self.is_up) = (None, false, false);
        self.dial = fresh_dial(&self.protocols);
        self.begins_at = now.plus_ms(random.below(LATE_MS_MAX) as u64);
        self.spoiler.end();
    }

    /// How far it has come.
    pub fn told(&self) -> String {
        let (here, there, is_up) = (self.here, self.there, self.is_up);
        let attempt = self.dial.attempt();
        format!(
            "from {here} to {there}: up {is_up}, {:?} {attempt:?} {}",
            self.ends, self.cause
        )
    }

    /// The links of its line, with their brokers.
    pub fn links(&self) -> impl Iterator<Item = (usize, LinkId)> {
        let here = self.ends.map(|ends| (self.here, ends.here));
        let there = self.ends.and_then(|ends| ends.there);
        let there = there.map(|link| (self.there, link));
        here.into_iter().chain(there)
    }

    /// It dials, or its line gets on.
    pub fn step(&mut self, now: Timestamp, worlds: &mut [World], random: &mut Random) {
        let Some(ends) = self.ends else {
            return self.dial(now, worlds, random);
        };
        let Some(line) = &mut self.line else {
            return;
        };
        let is_gone_there = ends
            .there
            .is_some_and(|link| is_gone(&worlds[self.there], link));
        if is_gone_there {
            line.note_end("cut");
        } else if is_gone(&worlds[self.here], ends.here) {
            line.closed_here();
        } else {
            let mut take = |broker: usize, link: LinkId| -> Vec<u8> {
                let bytes = &mut worlds[broker].links[link].to_client;
                let some = random.below(bytes.len() + 1);
                bytes.drain(..some).collect()
            };
            let of_core = take(self.here, ends.here);
            let of_remote = ends.there.map(|link| take(self.there, link));
            line.from_core([&of_core[..]].into_iter());
            line.from_remote(&of_remote.unwrap_or_default());
        }
        let (mut up, mut down) = (Vec::new(), line.take_down());
        line.take_up(&mut up);
        self.spoiler.spoil(&mut down, &mut up);
        worlds[self.here].send(ends.here, &up);
        if let Some(link) = ends.there {
            worlds[self.there].send(link, &down);
        }
        self.hear_line(now, worlds, random);
    }

    fn hear_line(&mut self, now: Timestamp, worlds: &mut [World], random: &mut Random) {
        let Some(line) = &mut self.line else {
            return;
        };
        let is_over = line.is_over();
        for news in line.take_news() {
            match news {
                News::Prepared => self.is_made = true,
                News::Ended(end) => {
                    self.is_up = false;
                    self.dial.ended(now, end.outcome(), random.next());
                    self.cause = end.cause;
                }
                News::Up(..) => {
                    (self.is_up, self.was_up) = (true, true);
                    self.dial.came_up(now);
                }
                News::Refused(..)
                | News::NotGranted(_)
                | News::NoQos2
                | News::Counts(_)
                | News::Idle
                | News::Wanted => {}
            }
        }
        // What it said last goes before the end, where nothing was cut.
        let is_drained = |(broker, link): (usize, LinkId)| {
            let world = &worlds[broker];
            is_gone(world, link) || world.is_closing(link) || world.unsent(link) == 0
        };
        if is_over && self.links().all(is_drained) {
            for (broker, link) in self.links().collect::<Vec<_>>() {
                worlds[broker].cut(link, 0);
            }
            (self.ends, self.line) = (None, None);
            self.spoiler.end();
        }
    }

    fn dial(&mut self, now: Timestamp, worlds: &mut [World], random: &mut Random) {
        if self.dial.due_at().max(self.begins_at) > now {
            return;
        }
        let (purpose, there) = match self.is_made {
            true => {
                let shard = random.below(worlds[self.there].shards());
                let link = worlds[self.there].open(shard, Level::Disk);
                (Purpose::Carry(self.dial.attempt().protocol), Some(link))
            }
            false => (Purpose::Prepare(Vec::new()), None),
        };
        let admitted = Admitted {
            identity: Identity {
                user_name: Some(self.plan.local_user.clone()),
                method: "bridge",
                ..Identity::default()
            },
            part: self.plan.part,
            ..Admitted::default()
        };
        let here = worlds[self.here].open_line(&self.plan.session_id, admitted);
        self.ends = Some(Ends { here, there });
        self.line = Some(Line::new(Arc::clone(&self.plan), purpose));
    }
}
