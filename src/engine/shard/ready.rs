//! Connections with bytes to send, in the order in which their outboxes filled; but answers of the broker
//! itself do not stand behind all messages.
//!
//! A turn hands a bounded number of them to their sockets, so that one message to very many does not keep
//! everybody else waiting while the kernel sends it; the rest stays here for the next turn.

use crate::engine::keys::ConnectionKey;
use std::collections::VecDeque;

/// The queue. A vector with a cursor: most turns empty it.
#[derive(Debug, Default)]
pub(super) struct Ready {
    connections: Vec<ConnectionKey>,
    next: usize,
    /// Those that were answered.
    answered: VecDeque<ConnectionKey>,
    /// One of these went last.
    was_answered: bool,
}

impl Ready {
    /// A connection that does not stand here yet has something to send.
    pub(super) fn push(&mut self, connection: ConnectionKey) {
        self.connections.push(connection);
    }

    /// The same of one whose client waits for an answer.
    pub(super) fn push_answered(&mut self, connection: ConnectionKey) {
        self.answered.push_back(connection);
    }

    /// The connection that has waited longest; in turns with those that were answered.
    pub(super) fn pop(&mut self) -> Option<ConnectionKey> {
        self.was_answered = !self.was_answered || self.connections.is_empty();
        if self.was_answered
            && let Some(connection) = self.answered.pop_front()
        {
            return Some(connection);
        }
        let connection = self.connections.get(self.next).copied();
        self.next += 1;
        if self.next >= self.connections.len() {
            self.connections.clear();
            self.next = 0;
        }
        connection
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.connections.len() - self.next + self.answered.len()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.answered.is_empty()
    }

    /// Lets go the room of those that have gone.
    pub(super) fn compact(&mut self) {
        self.connections.drain(..self.next);
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slots::Slots;

    #[test]
    fn answers_do_not_stand_behind_all_messages() {
        let mut connections = Slots::default();
        let keys: Vec<ConnectionKey> = (0..6).map(|_| connections.insert(())).collect();
        let mut ready = Ready::default();
        keys[..4].iter().for_each(|key| ready.push(*key));
        keys[4..].iter().for_each(|key| ready.push_answered(*key));
        assert_eq!(ready.len(), 6);
        let order: Vec<_> = std::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(order, [4, 0, 5, 1, 2, 3].map(|at| keys[at]));
        assert_eq!(ready.len(), 0);
        ready.push_answered(keys[0]);
        ready.push_answered(keys[1]);
        assert!(!ready.is_empty());
        assert_eq!([ready.pop(), ready.pop()], [Some(keys[0]), Some(keys[1])]);
        assert!(ready.is_empty());
    }

    #[test]
    fn who_came_first_goes_first_also_over_several_turns() {
        let mut connections = Slots::default();
        let keys: Vec<ConnectionKey> = (0..4).map(|_| connections.insert(())).collect();
        let mut ready = Ready::default();
        keys[..3].iter().for_each(|key| ready.push(*key));
        assert_eq!(ready.pop(), Some(keys[0]));
        ready.push(keys[3]);
        ready.compact();
        let rest: Vec<_> = std::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(rest, keys[1..]);
        assert!(ready.is_empty() && ready.pop().is_none() && ready.is_empty());
    }
}
