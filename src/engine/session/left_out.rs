//! A session's own retained messages that its No Local subscriptions have left out while retained ones were
//! on their way: those do not bring them either `[MQTT-3.8.3-3]`.
//!
//! A mark keeps no message: only the place where it was, so that no other is taken for it.

use crate::engine::message::{LocalMessage, Message};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Bytes that a mark costs, with what stays of its message.
pub const MARK_BYTES: usize = 160;
/// As long as there are fewer, marks of messages that are gone may stay.
const SWEEP_MARKS_MIN: usize = 64;

/// A message, and the last subscription that had been made when it came.
#[derive(Debug)]
struct Mark {
    message: Weak<Message>,
    number: u64,
}

/// The marks.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// By where the message is.
    marks: BTreeMap<usize, Mark>,
    sweep_at: usize,
    /// There were too many for subscriptions up to this one.
    full_until: u64,
}

impl LeftOut {
    /// Bytes of the marks.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.marks.len() * MARK_BYTES
    }

    /// Leaves a message out for subscriptions up to a number.
    pub fn add(&mut self, message: &LocalMessage, number: u64, bytes_max: usize) {
        if number <= self.full_until {
            return;
        }
        if self.bytes() + MARK_BYTES > bytes_max {
            self.full_until = number;
            self.marks.clear();
            return;
        }
        if self.marks.len() >= self.sweep_at.max(SWEEP_MARKS_MIN) {
            self.marks.retain(|_, mark| mark.message.strong_count() > 0);
            self.sweep_at = self.marks.len() * 2;
        }
        let message = Arc::downgrade(&message.share());
        let place = message.as_ptr().addr();
        self.marks.insert(place, Mark { message, number });
    }

    /// Whether a message is left out for the subscription with a number.
    #[must_use]
    pub fn has(&self, message: &LocalMessage, number: u64) -> bool {
        let place = Arc::as_ptr(&message.share()).addr();
        let known = self.marks.get(&place);
        known.is_some_and(|mark| number <= mark.number)
    }

    /// Whether it is not known what is left out for the subscription with a number.
    #[must_use]
    pub const fn is_full(&self, number: u64) -> bool {
        number <= self.full_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::Qos;

    fn message() -> LocalMessage {
        let message = Message::new("t", b"", b"x", Qos::AtMostOnce, true, None);
        LocalMessage::new(Arc::new(message))
    }

    #[test]
    fn a_message_is_left_out_for_subscriptions_that_were_made_before_it() {
        let mut left_out = LeftOut::default();
        let own = message();
        left_out.add(&own, 2, usize::MAX);
        assert!(left_out.has(&own, 1) && left_out.has(&own, 2) && !left_out.has(&own, 3));
        assert!(!left_out.has(&message(), 1));
    }

    #[test]
    fn marks_of_messages_that_are_gone_do_not_add_up() {
        let mut left_out = LeftOut::default();
        let own = message();
        left_out.add(&own, 1, usize::MAX);
        for _ in 0..10 * SWEEP_MARKS_MIN {
            left_out.add(&message(), 1, usize::MAX);
        }
        assert!(left_out.bytes() <= SWEEP_MARKS_MIN * MARK_BYTES && left_out.has(&own, 1));
    }

    #[test]
    fn marks_beyond_the_bound_are_told_and_given_up() {
        let mut left_out = LeftOut::default();
        let all: Vec<_> = (0..3).map(|_| message()).collect();
        for own in &all {
            left_out.add(own, 1, 2 * MARK_BYTES);
        }
        assert!(left_out.is_full(1) && left_out.bytes() == 0 && !left_out.is_full(2));
        left_out.add(&message(), 1, 2 * MARK_BYTES);
        assert_eq!(left_out.bytes(), 0);
        left_out.add(&message(), 2, 2 * MARK_BYTES);
        assert_eq!(left_out.bytes(), MARK_BYTES);
    }
}
