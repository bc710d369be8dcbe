//! The oracle: what one subscriber is owed of the publishers of all brokers, and which way messages may have
//! come. It knows only what subscribers saw.
//!
//! A way is the list of hops with which a message came. No broker is twice in one, nor the one where it ends,
//! so there are only so many ways; by each a message comes, of QoS 2 once, and none before one that was
//! published before it to the same topic.

use super::{MESSAGES, TOPICS, qos_of, topic_of};
use ringmq::engine::bridge::hops::PROPERTY;
use ringmq::engine::codec::publish::Publish;
use ringmq::engine::message::Qos;
use std::collections::BTreeMap;

/// How messages may come.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// How many brokers there are.
    pub brokers: usize,
    /// Most hops.
    pub hops_max: usize,
    /// All lines are of 5.0: lists of hops are whole.
    pub has_hops: bool,
    /// Ways by which each message comes from another broker, if they are told apart.
    pub ways: usize,
}

/// What a subscriber has heard.
pub struct Heard {
    /// The broker where it is.
    broker: usize,
    law: Law,
    /// By the publisher's broker and the way: messages as they came first.
    came: BTreeMap<(usize, String), Vec<usize>>,
}

/// Where a message has been.
fn hops(publish: &Publish<'_>) -> String {
    let properties = &publish.properties.forwarded;
    let name = PROPERTY.as_bytes();
    let place = properties.windows(name.len()).position(|it| it == name);
    let Some(place) = place else {
        return String::new();
    };
    let rest = &properties[place + name.len()..];
    let bytes = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    String::from_utf8_lossy(&rest[2..2 + bytes]).into_owned()
}

impl Heard {
    pub const fn new(broker: usize, law: Law) -> Self {
        Heard {
            broker,
            law,
            came: BTreeMap::new(),
        }
    }

    /// What came, in short.
    pub fn told(&self) -> String {
        let counts = self.came.iter().map(|(way, came)| (way, came.len()));
        format!("got {:?}", counts.collect::<Vec<_>>())
    }

    /// How many ways there are from a broker to this one.
    const fn ways(&self, from: usize) -> usize {
        if from == self.broker {
            1
        } else {
            self.law.ways
        }
    }

    /// Everything has come.
    pub fn is_complete(&self) -> bool {
        (0..self.law.brokers).all(|from| {
            let of_it = self.came.iter().filter(|((broker, _), _)| *broker == from);
            let whole = of_it.filter(|(_, came)| came.len() == MESSAGES);
            whole.count() == self.ways(from)
        })
    }

    /// A message came that is no repeat of the packet.
    pub fn hear(&mut self, publish: &Publish<'_>) -> Result<(), String> {
        let text = String::from_utf8_lossy(publish.payload).into_owned();
        let hops = hops(publish);
        let fault = |what: &str| format!("got {text} by [{hops}]: {what}");
        let numbers = text.split_once('-').and_then(|(broker, number)| {
            let broker: usize = broker.parse().ok()?;
            Some((broker, number.parse::<usize>().ok()?))
        });
        let (from, number) = numbers.ok_or_else(|| fault("nobody published it"))?;
        if publish.topic != TOPICS[topic_of(number)] {
            return Err(fault(&format!("its topic is {}", publish.topic)));
        }
        self.check_way(from, &hops).map_err(fault)?;
        let way = match self.law.ways {
            1 => String::new(),
            _ => hops.clone(),
        };
        let came = self.came.entry((from, way)).or_default();
        if came.contains(&number) {
            return match qos_of(number) {
                Qos::ExactlyOnce => Err(fault("it has come before")),
                _ => Ok(()),
            };
        }
        // One QoS may overtake the other.
        let is_alike = |other: &usize| {
            qos_of(*other) == qos_of(number) && topic_of(*other) == topic_of(number)
        };
        let last = came.iter().filter(|other| is_alike(other)).max();
        if last.is_some_and(|last| *last > number) {
            return Err(fault(&format!("it is out of order: {came:?}")));
        }
        came.push(number);
        Ok(())
    }

    fn check_way(&self, from: usize, hops: &str) -> Result<(), &'static str> {
        let names: Vec<&str> = hops.split(',').filter(|name| !name.is_empty()).collect();
        if names.len() > self.law.hops_max.min(self.law.brokers - 1) {
            return Err("it has left too many brokers");
        }
        if !self.law.has_hops {
            return Ok(());
        }
        let name = |broker: usize| format!("broker-{broker}");
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() < names.len() || names.contains(&name(self.broker).as_str()) {
            return Err("it has been where it came");
        }
        let first = (from != self.broker).then(|| name(from));
        if names.first().map(|name| (*name).to_owned()) != first {
            return Err("it has not left the broker where it was published first");
        }
        Ok(())
    }
}
