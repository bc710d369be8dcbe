//! Connections with bytes to send, in the order in which their outboxes filled; but answers of the broker
//! itself do not stand behind all messages, and other messages not behind one to very many.
//!
//! A turn hands a bounded number of them to their sockets, so that one message to very many does not keep
//! everybody else waiting while the kernel sends it; the rest stays here for the next turn.

use crate::engine::keys::ConnectionKey;
use crate::engine::session::connection::Connection;

/// A vector with a cursor: most turns empty it.
#[derive(Debug, Default)]
struct Row {
    connections: Vec<ConnectionKey>,
    next: usize,
    /// So many of the first of them have to go before more is done.
    owed: usize,
}

impl Row {
    fn len(&self) -> usize {
        self.connections.len() - self.next
    }

    fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    #[inline]
    fn pop(&mut self) -> Option<ConnectionKey> {
        let connection = self.connections.get(self.next).copied();
        self.next += 1;
        self.owed = self.owed.saturating_sub(1);
        if self.next >= self.connections.len() {
            self.connections.clear();
            self.next = 0;
        }
        connection
    }

    fn compact(&mut self) {
        self.connections.drain(..self.next);
        self.next = 0;
    }
}

/// What has to be sent before more is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing.
    Nothing,
    /// Messages to very many, and nothing else.
    LargeFanOuts,
    /// Other messages, or answers.
    Others,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Ready {
    messages: Row,
    /// Those that large fan-outs filled; while one is at work the two have changed places.
    large: Row,
    /// Those that were answered.
    answered: Row,
    /// Whose turn it is to go.
    turn: u8,
}

impl Ready {
    /// A connection has something to send; it stands here once.
    #[inline]
    pub(super) fn mark(&mut self, key: ConnectionKey, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.is_ready, true) {
            self.push(key);
        }
    }

    #[inline]
    fn push(&mut self, connection: ConnectionKey) {
        self.messages.connections.push(connection);
    }

    /// The same of one whose client waits for an answer.
    pub(super) fn push_answered(&mut self, connection: ConnectionKey) {
        self.answered.connections.push(connection);
    }

    /// A large fan-out begins to fill outboxes, or ends.
    pub(super) const fn change_rows(&mut self) {
        std::mem::swap(&mut self.messages, &mut self.large);
    }

    /// The connection that has waited longest of those whose turn it is; the three take turns.
    pub(super) fn pop(&mut self) -> Option<ConnectionKey> {
        // Mostly there is one kind.
        match (
            self.messages.is_empty(),
            self.answered.is_empty(),
            self.large.is_empty(),
        ) {
            (true, true, true) => None,
            (false, true, true) => self.messages.pop(),
            (true, false, true) => self.answered.pop(),
            _ => self.pop_in_turn(),
        }
    }

    fn pop_in_turn(&mut self) -> Option<ConnectionKey> {
        for _ in 0..3 {
            self.turn = (self.turn + 1) % 3;
            let row = match self.turn {
                1 => &mut self.answered,
                2 => &mut self.large,
                _ => &mut self.messages,
            };
            if !row.is_empty() {
                return row.pop();
            }
        }
        None
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.messages.len() + self.large.len() + self.answered.len()
    }

    /// What kind of them was owed and has not gone. Who has sent since and has more does not count: readers
    /// that always have more would hold everything up.
    pub(super) const fn behind(&self) -> Behind {
        if self.messages.owed == 0 && self.answered.owed == 0 {
            match self.large.owed {
                0 => Behind::Nothing,
                _ => Behind::LargeFanOuts,
            }
        } else {
            Behind::Others
        }
    }

    /// Work was done: whoever waits now has to go before there is more.
    pub(super) fn owe(&mut self) {
        for row in [&mut self.messages, &mut self.large, &mut self.answered] {
            row.owed = row.len();
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.large.is_empty() && self.answered.is_empty()
    }

    /// Lets go the room of those that have gone.
    pub(super) fn compact(&mut self) {
        self.messages.compact();
        self.large.compact();
        self.answered.compact();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slots::Slots;

    #[test]
    fn other_messages_do_not_stand_behind_one_to_very_many() {
        let mut connections = Slots::default();
        let keys: Vec<ConnectionKey> = (0..6).map(|_| connections.insert(())).collect();
        let mut ready = Ready::default();
        assert_eq!(ready.behind(), Behind::Nothing);
        ready.change_rows();
        keys[..4].iter().for_each(|key| ready.push(*key));
        ready.change_rows();
        ready.owe();
        assert_eq!(ready.behind(), Behind::LargeFanOuts);
        ready.push(keys[4]);
        ready.push_answered(keys[5]);
        ready.owe();
        assert_eq!((ready.len(), ready.behind()), (6, Behind::Others));
        let first: Vec<_> = (0..3).filter_map(|_| ready.pop()).collect();
        assert!(first.contains(&keys[4]) && first.contains(&keys[5]));
        ready.compact();
        let rest: Vec<_> = std::iter::from_fn(|| ready.pop()).collect();
        let expected = keys[..4].iter().filter(|key| !first.contains(key));
        assert!(rest.iter().eq(expected) && ready.is_empty());
    }

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

    #[test]
    fn only_what_work_has_filled_has_to_go_before_more() {
        let mut connections = Slots::default();
        let keys: Vec<ConnectionKey> = (0..3).map(|_| connections.insert(())).collect();
        let mut ready = Ready::default();
        keys.iter().for_each(|key| ready.push(*key));
        assert_eq!(ready.behind(), Behind::Nothing);
        ready.owe();
        for key in &keys {
            assert_eq!(ready.behind(), Behind::Others);
            assert_eq!(ready.pop(), Some(*key));
            // It has more.
            ready.push(*key);
        }
        assert_eq!((ready.behind(), ready.len()), (Behind::Nothing, 3));
    }
}
