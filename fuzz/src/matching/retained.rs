//! The retained store against a map, and walks over it while it changes.

use super::{Path, matches};
use arbitrary::Arbitrary;
use ringmq::engine::codec::topic::TopicFilter;
use ringmq::engine::limits::RETAINED_ANSWER_MESSAGES_MAX;
use ringmq::engine::message::{Message, Qos};
use ringmq::engine::route::retained::{Cursor, Retained, cost_bytes};
use ringmq::engine::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most messages of the store.
const MESSAGES_MAX: usize = 2_500;
/// Most bytes of the store.
const BYTES_MAX: usize = 400_000;
/// Times that many topics are set at once.
const FILLS_MAX: usize = 2;
/// Walks that may be under way at once.
const WALKS_MAX: usize = 4;

#[derive(Arbitrary, Debug)]
pub enum Operation {
    Set(Path, u8, Option<u8>),
    Clear(Path),
    /// Ten topics per unit, of one level below `a`.
    Fill(u8),
    Walk(Path),
    Step(u8),
    Pass(u8),
}

/// A walk in steps, and what it owes.
struct Walk {
    filter: String,
    cursor: Option<Cursor>,
    seen: BTreeSet<String>,
    /// Was there from the beginning and has not been touched since.
    owed: BTreeSet<String>,
}

/// The store and its model.
#[derive(Default)]
pub struct Checked {
    store: Retained,
    model: BTreeMap<String, Arc<Message>>,
    bytes: usize,
    walks: Vec<Walk>,
    fills: usize,
    now: u64,
}

impl Checked {
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Set(path, size, expiry) => {
                let payload = vec![b'x'; 1 + usize::from(*size) * 40];
                let at = expiry.map(|expiry| self.now + u64::from(expiry));
                self.set(&path.topic(), &payload, at);
            }
            Operation::Clear(path) => self.set(&path.topic(), b"", None),
            Operation::Fill(_) if self.fills >= FILLS_MAX => {}
            Operation::Fill(tens) => {
                self.fills += 1;
                for number in 0..u32::from(*tens) * 10 {
                    self.set(&format!("a/{number:04}"), b"x", None);
                }
            }
            Operation::Walk(path) => self.begin_walk(path.filter()),
            Operation::Step(walk) => {
                let walk = usize::from(*walk) % WALKS_MAX;
                if walk < self.walks.len() {
                    self.step(walk);
                }
            }
            Operation::Pass(ms) => self.pass(u64::from(*ms)),
        }
        assert_eq!(self.store.len(), self.model.len());
        assert_eq!(self.store.is_empty(), self.model.is_empty());
        assert_eq!(self.store.bytes(), self.bytes);
        if self.model.len() < 100 {
            let next = self.model.values().filter_map(|kept| kept.expires_at).min();
            assert_eq!(self.store.next_expiry(), next);
        }
    }

    fn set(&mut self, topic: &str, payload: &[u8], expires_ms: Option<u64>) {
        let expires_at = expires_ms.map(Timestamp::from_ms);
        let qos = Qos::AtLeastOnce;
        let message = Arc::new(Message::new(topic, b"", payload, qos, true, expires_at));
        let older = self.model.remove(topic);
        self.bytes -= older.map_or(0, |older| cost_bytes(&older));
        for walk in &mut self.walks {
            walk.owed.remove(topic);
        }
        let fits =
            self.model.len() < MESSAGES_MAX && self.bytes + cost_bytes(&message) <= BYTES_MAX;
        let kept = self
            .store
            .set(Arc::clone(&message), MESSAGES_MAX, BYTES_MAX);
        assert_eq!(kept.is_ok(), payload.is_empty() || fits, "{topic:?}");
        if kept.is_ok() && !payload.is_empty() {
            self.bytes += cost_bytes(&message);
            self.model.insert(topic.to_owned(), message);
        }
    }

    fn begin_walk(&mut self, filter: String) {
        if self.walks.len() >= WALKS_MAX {
            return;
        }
        let owed = self.live().filter(|topic| matches(&filter, topic));
        let owed = owed.cloned().collect();
        self.walks.push(Walk {
            filter,
            cursor: None,
            seen: BTreeSet::new(),
            owed,
        });
    }

    fn live(&self) -> impl Iterator<Item = &String> {
        let now = Timestamp::from_ms(self.now);
        self.model
            .iter()
            .filter(move |(_, kept)| kept.expires_at.is_none_or(|at| at > now))
            .map(|(topic, _)| topic)
    }

    /// One step; at the end everything owed has been seen.
    fn step(&mut self, index: usize) {
        let walk = &mut self.walks[index];
        let filter = TopicFilter::trusted(&walk.filter);
        let now = Timestamp::from_ms(self.now);
        let answer = self.store.answer(filter, walk.cursor.as_ref(), now);
        assert!(answer.messages.len() <= RETAINED_ANSWER_MESSAGES_MAX);
        for message in &answer.messages {
            let topic = message.topic();
            assert!(matches(&walk.filter, topic), "{topic:?}");
            assert!(walk.seen.insert(topic.to_owned()), "{topic:?} comes twice");
            let kept = self.model.get(topic);
            assert!(kept.is_some_and(|kept| Arc::ptr_eq(kept, message)));
            assert!(message.expires_at.is_none_or(|at| at > now));
        }
        let is_further = match (&walk.cursor, &answer.next) {
            (Some(before), Some(next)) => next > before,
            _ => true,
        };
        assert!(is_further, "the walk stands still");
        walk.cursor = answer.next;
        if walk.cursor.is_none() {
            let walk = self.walks.swap_remove(index);
            let missed: Vec<_> = walk.owed.difference(&walk.seen).collect();
            assert!(missed.is_empty(), "{:?} has missed {missed:?}", walk.filter);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        let now = Timestamp::from_ms(self.now);
        let before = self.model.len();
        let expired = |kept: &Message| kept.expires_at.is_some_and(|at| at <= now);
        for (topic, _) in self.model.iter().filter(|(_, kept)| expired(kept)) {
            for walk in &mut self.walks {
                walk.owed.remove(topic);
            }
        }
        // Half of the time the store does not get to dropping them before it is asked.
        if ms.is_multiple_of(2) {
            self.model.retain(|_, kept| !expired(kept));
            self.bytes = self.model.values().map(|kept| cost_bytes(kept)).sum();
            assert_eq!(
                self.store.expire(now, usize::MAX),
                before - self.model.len()
            );
        }
    }

    /// Ends the walks; without expired messages the store is as the model says.
    pub fn finish(mut self) {
        while !self.walks.is_empty() {
            self.step(0);
        }
        self.begin_walk("#".to_owned());
        self.begin_walk("$s/#".to_owned());
        while !self.walks.is_empty() {
            self.step(0);
        }
        for topic in self.model.keys().cloned().collect::<Vec<_>>() {
            self.set(&topic, b"", None);
        }
        assert_eq!((self.store.len(), self.store.bytes()), (0, 0));
        assert_eq!(self.store.next_expiry(), None);
    }
}
