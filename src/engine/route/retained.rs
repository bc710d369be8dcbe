//! This shard's part of the retained messages, and how a filter walks over it step by step.
//!
//! Topics are ordered, so a walk resumes after the last topic it looked at, whatever has changed in
//! between: a query holds no place in the store and a `#` over a million topics is many short steps.

use crate::engine::codec::topic::{TopicFilter, TopicName};
use crate::engine::limits::{RETAINED_ANSWER_MESSAGES_MAX, RETAINED_VISITS_MAX};
use crate::engine::message::Message;
use crate::engine::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What it costs to keep a message beside the message and its topic: counts, the share of a node of the map,
/// what the body is shared by.
const ENTRY_BYTES: usize = 112;
/// The same of one that expires.
const EXPIRY_BYTES: usize = 48;

/// Sizes within the same multiple of this count as the same.
const GRANULE_BYTES: usize = 32;

/// What all shards keep together. A store takes of it before it keeps a message and gives back when it drops
/// one, so that the limit is the configured one whichever shard a topic belongs to.
#[derive(Debug, Default)]
pub struct Budget {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Budget {
    /// Takes room for one message; whether there is any.
    fn take(&self, bytes: usize, messages_max: usize, bytes_max: usize) -> bool {
        if !take(&self.messages, 1, messages_max) {
            return false;
        }
        if !take(&self.bytes, bytes, bytes_max) {
            self.messages.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn give_back(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that it takes to keep a message, for the limit.
#[must_use]
pub fn cost_bytes(message: &Message) -> usize {
    let expiry = message.expires_at.map_or(0, |_| EXPIRY_BYTES);
    message.size_bytes() + message.topic().len() + ENTRY_BYTES + expiry
}

fn take(taken: &AtomicUsize, more: usize, max: usize) -> bool {
    let add = |taken: usize| taken.checked_add(more).filter(|sum| *sum <= max);
    taken
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
        .is_ok()
}

/// Retained messages by topic.
#[derive(Debug, Default)]
pub struct Retained {
    budget: Arc<Budget>,
    by_topic: BTreeMap<Arc<str>, Arc<Message>>,
    expiring: BTreeSet<(Timestamp, Arc<str>)>,
    bytes: usize,
}

/// Where a walk goes on: after this topic.
pub type Cursor = Arc<str>;

/// One step of a walk.
#[derive(Debug, Default)]
pub struct Answer {
    /// Matching messages in the order of their topics.
    pub messages: Vec<Arc<Message>>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
    /// Topics that were looked at.
    pub visited: usize,
}

impl Retained {
    /// An empty store that takes of what others take of too.
    #[must_use]
    pub fn within(budget: Arc<Budget>) -> Self {
        Retained {
            budget,
            ..Retained::default()
        }
    }

    /// Messages in the store.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Bytes they hold.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stores `message` in place of its topic's older one `[MQTT-3.3.1-5]`; an empty payload only
    /// removes that `[MQTT-3.3.1-6]` `[MQTT-3.3.1-7]`.
    ///
    /// # Errors
    /// Gives the message back if all stores together are full; then the older one is gone too, for a stale
    /// value is worse than none.
    pub fn set(
        &mut self,
        message: Arc<Message>,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<(), Arc<Message>> {
        self.remove(message.topic());
        if message.payload().is_empty() {
            return Ok(());
        }
        let bytes = cost_bytes(&message);
        if !self.budget.take(bytes, messages_max, bytes_max) {
            return Err(message);
        }
        let topic: Arc<str> = message.topic().into();
        if let Some(expires_at) = message.expires_at {
            self.expiring.insert((expires_at, Arc::clone(&topic)));
        }
        self.bytes += bytes;
        self.by_topic.insert(topic, message);
        Ok(())
    }

    /// Whether `message` would take more than its topic's older one; a little more, as allocators do not tell
    /// it, is none.
    #[must_use]
    pub fn would_grow(&self, message: &Message) -> bool {
        let granules = |message: &Message| cost_bytes(message).div_ceil(GRANULE_BYTES);
        let older = self.by_topic.get(message.topic());
        let older = older.map_or(0, |older| granules(older));
        !message.payload().is_empty() && granules(message) > older
    }

    /// Removes what is retained for this topic.
    pub fn remove(&mut self, topic: &str) {
        if let Some((topic, message)) = self.by_topic.remove_entry(topic) {
            let bytes = cost_bytes(&message);
            self.bytes -= bytes;
            self.budget.give_back(bytes);
            if let Some(expires_at) = message.expires_at {
                self.expiring.remove(&(expires_at, topic));
            }
        }
    }

    /// All of them, in the order of their topics.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.by_topic.values()
    }

    /// Those whose topics come after this one, in order, with their topics.
    pub fn iter_after(
        &self,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<Message>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_topic.range::<str, _>((from, Bound::Unbounded))
    }

    /// When the next message expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiring.first().map(|(at, _)| *at)
    }

    /// Drops what has expired, at most so many; returns how many.
    pub fn expire(&mut self, now: Timestamp, most: usize) -> usize {
        let mut dropped = 0;
        while dropped < most
            && let Some((at, topic)) = self.expiring.first().cloned()
            && at <= now
        {
            self.remove(&topic);
            dropped += 1;
        }
        dropped
    }

    /// One step of a walk over what matches `filter`, from the beginning or after `after`.
    #[must_use]
    pub fn answer(
        &self,
        filter: TopicFilter<'_>,
        after: Option<&Cursor>,
        now: Timestamp,
    ) -> Answer {
        let mut answer = Answer::default();
        let live = |message: &Message| message.expires_at.is_none_or(|at| at > now);
        if !filter.has_wildcard() {
            let found = self
                .by_topic
                .get(filter.as_str())
                .filter(|message| live(message));
            answer.messages.extend(found.cloned());
            return answer;
        }
        let literal = filter.as_str().find(['+', '#']).unwrap_or(0);
        let prefix = filter.as_str().get(..literal).unwrap_or_default();
        // 'a/#' also matches 'a'.
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let start = match after {
            Some(after) => Bound::Excluded(&**after),
            None => Bound::Included(prefix),
        };
        let range = self.by_topic.range::<str, _>((start, Bound::Unbounded));
        for (visited, (topic, message)) in range.enumerate() {
            answer.visited = visited + 1;
            if !topic.starts_with(prefix) {
                return answer;
            }
            if filter.matches(TopicName::trusted(topic)) && live(message) {
                answer.messages.push(Arc::clone(message));
            }
            if answer.messages.len() >= RETAINED_ANSWER_MESSAGES_MAX
                || visited + 1 >= RETAINED_VISITS_MAX
            {
                answer.next = Some(Arc::clone(topic));
                return answer;
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::Qos;

    fn message(topic: &str, payload: &[u8], expires_ms: Option<u64>) -> Arc<Message> {
        let expires_at = expires_ms.map(Timestamp::from_ms);
        Arc::new(Message::new(
            topic,
            b"",
            payload,
            Qos::AtMostOnce,
            true,
            expires_at,
        ))
    }

    fn set(store: &mut Retained, message: Arc<Message>) -> bool {
        store.set(message, 1_000_000, usize::MAX).is_ok()
    }

    fn all(store: &Retained, filter: &str, now: u64) -> (Vec<String>, usize) {
        let (mut topics, mut steps, mut cursor) = (Vec::new(), 0, None);
        loop {
            let filter = TopicFilter::trusted(filter);
            let answer = store.answer(filter, cursor.as_ref(), Timestamp::from_ms(now));
            topics.extend(
                answer
                    .messages
                    .iter()
                    .map(|message| message.topic().to_owned()),
            );
            steps += 1;
            cursor = answer.next;
            if cursor.is_none() {
                return (topics, steps);
            }
        }
    }

    #[test]
    fn a_walk_in_steps_finds_each_match_once() {
        let mut store = Retained::default();
        for n in 0..10_000 {
            set(&mut store, message(&format!("s/{n}/t"), b"x", None));
        }
        for topic in ["s", "sx", "r/1", "$SYS/a"] {
            set(&mut store, message(topic, b"x", None));
        }
        assert_eq!(all(&store, "s/+/t", 0).0.len(), 10_000);
        assert_eq!(all(&store, "s/#", 0).0.len(), 10_001);
        assert_eq!(all(&store, "#", 0).0.len(), 10_003);
        assert_eq!(all(&store, "$SYS/#", 0).0, ["$SYS/a"]);
        assert_eq!(all(&store, "s/77/t", 0).0, ["s/77/t"]);
        assert!(
            all(&store, "+/none/+", 0).1 > 4,
            "a walk without matches is in steps too"
        );
    }

    #[test]
    fn empty_payloads_remove_and_expired_messages_go() {
        let mut store = Retained::default();
        set(&mut store, message("a", b"x", None));
        set(&mut store, message("b", b"x", Some(100)));
        assert_eq!(all(&store, "#", 99).0, ["a", "b"]);
        assert_eq!(all(&store, "#", 100).0, ["a"]);
        assert_eq!(store.next_expiry(), Some(Timestamp::from_ms(100)));
        assert_eq!(store.expire(Timestamp::from_ms(100), 9), 1);
        set(&mut store, message("a", b"", None));
        assert_eq!(
            (store.len(), store.bytes(), store.next_expiry()),
            (0, 0, None)
        );
    }

    #[test]
    fn a_full_store_refuses_new_topics_only() {
        let mut store = Retained::default();
        assert!(store.set(message("a", b"1", None), 1, 1_000).is_ok());
        assert!(store.set(message("b", b"1", None), 1, 1_000).is_err());
        assert!(store.set(message("a", b"2", None), 1, 1_000).is_ok());
        assert!(
            store
                .set(message("a", &[0; 1_000], None), 1, 1_000)
                .is_err()
        );
        assert!(store.is_empty());
    }

    #[test]
    fn a_value_as_large_as_the_older_one_is_no_growth() {
        let mut store = Retained::default();
        let unlike = |bytes: usize| message("a", &vec![0; bytes], None);
        assert!(store.would_grow(&unlike(100)) && !store.would_grow(&unlike(0)));
        set(&mut store, unlike(100));
        assert!(!store.would_grow(&unlike(100)) && !store.would_grow(&unlike(1)));
        assert!(store.would_grow(&unlike(132)));
        store.remove("a");
        assert!(store.is_empty() && store.would_grow(&unlike(1)));
    }

    #[test]
    fn stores_of_one_budget_have_the_limit_together_wherever_topics_belong() {
        let budget = Arc::default();
        let mut stores = [(); 2].map(|()| Retained::within(Arc::clone(&budget)));
        let [one, other] = &mut stores;
        for topic in ["a", "b", "c"] {
            assert!(one.set(message(topic, b"1", None), 3, 1_000).is_ok());
        }
        assert!(other.set(message("d", b"1", None), 3, 1_000).is_err());
        assert!(one.set(message("a", b"", None), 3, 1_000).is_ok());
        assert!(
            other
                .set(message("d", &[0; 1_000], None), 3, 1_000)
                .is_err()
        );
        assert!(other.set(message("d", b"1", Some(100)), 3, 1_000).is_ok());
        assert!(one.set(message("a", b"1", None), 3, 1_000).is_err());
        assert_eq!(other.expire(Timestamp::from_ms(100), 9), 1);
        assert!(one.set(message("a", b"1", None), 3, 1_000).is_ok());
    }
}
