//! Live messages that wait behind retained ones, in their order.
//!
//! When one of a topic waits, all do that follow it: so those that may go can go little by little. After an
//! UNSUBSCRIBE they are looked at once more, one by one.

use super::Delivery;
use crate::engine::message::LocalMessage;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// The messages. A place is never used again.
#[derive(Debug, Default)]
pub struct Held {
    list: BTreeMap<u64, Delivery>,
    next: u64,
    bytes: usize,
    /// Their places by topic, in order.
    by_topic: BTreeMap<Box<str>, VecDeque<u64>>,
    review: Option<Review>,
}

/// A look at all that were there when it began.
#[derive(Clone, Copy, Debug)]
struct Review {
    after: Option<u64>,
    until: u64,
    /// Another one is due.
    once_more: bool,
}

impl Held {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes of the messages.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes each of a topic, in order.
    pub fn change_topic(&mut self, topic: &str, mut change: impl FnMut(&mut Delivery)) {
        for place in self.by_topic.get(topic).into_iter().flatten() {
            if let Some(delivery) = self.list.get_mut(place) {
                change(delivery);
            }
        }
    }

    /// Adds one.
    pub fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.message.size_bytes();
        let place = self.next;
        self.next += 1;
        let topic = delivery.message.topic();
        if let Some(places) = self.by_topic.get_mut(topic) {
            places.push_back(place);
        } else {
            self.by_topic.insert(topic.into(), [place].into());
        }
        self.list.insert(place, delivery);
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.list.values()
    }

    /// In order, those from a place on, with their places.
    pub fn iter_from(&self, place: u64) -> impl Iterator<Item = (u64, &Delivery)> {
        let rest = self.list.range(place..);
        rest.map(|(place, delivery)| (*place, delivery))
    }

    /// Whether there is one of a topic.
    #[must_use]
    pub fn has_topic(&self, topic: &str) -> bool {
        !self.is_empty() && self.by_topic.contains_key(topic)
    }

    /// Whether a message is among them.
    #[must_use]
    pub fn has(&self, message: &LocalMessage) -> bool {
        let Some(places) = self.by_topic.get(message.topic()) else {
            return false;
        };
        // What is retained is the latest, or nearly so.
        let newest_first = places.iter().rev();
        let mut same = newest_first.filter_map(|place| self.list.get(place));
        same.any(|held| held.message.same_message(message))
    }

    /// The place of the next one that comes.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.next
    }

    /// Takes the oldest out, if its place is before `until`.
    pub fn take_first(&mut self, until: u64) -> Option<Delivery> {
        let (&place, _) = self.list.first_key_value()?;
        if place < until {
            self.take(place)
        } else {
            None
        }
    }

    /// Takes out what has this place.
    pub fn take(&mut self, place: u64) -> Option<Delivery> {
        let delivery = self.list.remove(&place)?;
        self.bytes -= delivery.message.size_bytes();
        let topic = delivery.message.topic();
        if let Some(places) = self.by_topic.get_mut(topic) {
            if let Ok(at) = places.binary_search(&place) {
                places.remove(at);
            }
            if places.is_empty() {
                self.by_topic.remove(topic);
            }
        }
        Some(delivery)
    }

    /// What the session asks for has become less: all are to be looked at, from the beginning.
    pub fn begin_review(&mut self) {
        match &mut self.review {
            Some(review) => review.once_more = true,
            None if self.list.is_empty() => {}
            None => self.review = Some(Review::new(self.next)),
        }
    }

    /// Whether some have not been looked at yet.
    #[must_use]
    pub const fn is_in_review(&self) -> bool {
        self.review.is_some()
    }

    /// The next one to look at, and whether no other of its topic stands before it; `None` if there is none.
    pub fn next_to_review(&mut self) -> Option<(u64, &Delivery, bool)> {
        let place = self.find_to_review()?;
        let delivery = self.list.get(&place)?;
        let same = self.by_topic.get(delivery.message.topic());
        let is_first = same.and_then(VecDeque::front) == Some(&place);
        Some((place, delivery, is_first))
    }

    fn find_to_review(&mut self) -> Option<u64> {
        loop {
            let review = self.review.as_mut()?;
            let after = review.after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = self.list.range((after, Bound::Excluded(review.until)));
            if let Some((&place, _)) = rest.next() {
                review.after = Some(place);
                return Some(place);
            }
            let once_more = review.once_more && !self.list.is_empty();
            self.review = once_more.then(|| Review::new(self.next));
        }
    }

    /// All of them.
    #[must_use]
    pub fn into_list(self) -> Vec<Delivery> {
        self.list.into_values().collect()
    }
}

impl Review {
    const fn new(until: u64) -> Self {
        Review {
            after: None,
            until,
            once_more: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{Message, Qos};
    use crate::engine::session::SubscriptionIds;
    use std::sync::Arc;

    fn delivery(topic: &str) -> Delivery {
        let message = Message::new(topic, b"", b"x", Qos::AtMostOnce, false, None);
        Delivery {
            message: LocalMessage::new(Arc::new(message)),
            qos: Qos::AtMostOnce,
            retain: false,
            subscription_ids: SubscriptionIds::None,
            group: None,
            entry: 0,
            queued_at_ds: 0,
        }
    }

    #[test]
    fn what_is_held_is_found_by_topic_and_message() {
        let (one, other) = (delivery("t"), delivery("t").message);
        let message = one.message.clone();
        let mut held = Held::default();
        held.push(one);
        assert!(held.has(&message) && !held.has(&other));
        assert!(held.has_topic("t") && !held.has_topic("u"));
        assert_eq!((held.len(), held.bytes()), (1, message.size_bytes()));
        assert!(held.take_first(0).is_none());
        let end = held.end();
        assert!(held.take_first(end).is_some() && held.take_first(end).is_none());
        assert!(!held.has_topic("t") && held.bytes() == 0);
    }

    #[test]
    fn a_review_sees_each_once_and_begins_anew_if_it_was_asked_for_meanwhile() {
        let mut held = Held::default();
        held.begin_review();
        assert!(!held.is_in_review(), "there is nothing to look at");
        for topic in ["a", "b", "a"] {
            held.push(delivery(topic));
        }
        held.begin_review();
        let mut seen = Vec::new();
        for step in 0..10 {
            let Some((place, _, is_first)) = held.next_to_review() else {
                break;
            };
            seen.push((place, is_first));
            match step {
                0 => held.push(delivery("late")),
                1 => {
                    held.begin_review();
                    held.take(place);
                }
                _ => {}
            }
        }
        let first = [(0, true), (1, true), (2, false)];
        let again = [(0, true), (2, false), (3, true)];
        assert_eq!(seen, [first, again].concat());
        assert!(!held.is_in_review());
    }
}
