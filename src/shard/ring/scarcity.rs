//! Who gets the receive buffers when there are too few: nobody more than one at a time, those who send little
//! before those who send much, and of these a few at a time, so that what a turn cannot work off stays in
//! their sockets.
//!
//! Invariant: receives of one socket are delivered in the order of their completions.

use super::Ring;
use super::key::{Operation, SocketKey, Token};
use super::queue::Completion;
use super::socket::Socket;
use std::collections::VecDeque;
use std::mem;

/// Buffers are taken to be scarce for so many turns after they had run out: a receive that goes on by itself
/// takes as many as there are, and whoever comes later none, for as long as others send.
const SCARCE_TURNS: u32 = 64;
/// Receives of bulk that a turn delivers however late it is.
const BULK_PER_TURN_MIN: usize = 16;
/// Each so manieth buffer goes to bulk, if any waits.
const BULK_SHARE: usize = 8;

#[derive(Default)]
pub(super) struct Scarcity {
    turns: u32,
    /// Sockets that found no buffer: armed again first.
    starved: VecDeque<SocketKey>,
    /// Sockets that emptied what was there: armed again after those.
    served: VecDeque<SocketKey>,
    /// Sockets whose last receive filled a buffer, so that more is there: after all others, a few at a time.
    bulk: VecDeque<SocketKey>,
    /// Their receives that have not completed. They do at once: they do not wait for bytes.
    bulk_in_flight: usize,
    /// Receives that were armed again.
    armed: usize,
    /// Completions of bulk that were taken out of the queue and are not delivered.
    put_off: VecDeque<Completion>,
}

impl Scarcity {
    pub fn is_on(&self) -> bool {
        self.turns > 0
    }

    /// Buffers ran out.
    pub fn begin(&mut self) {
        self.turns = SCARCE_TURNS;
    }

    /// Whether completions of bulk wait.
    pub fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// Whether there is something to do about it next turn, though nothing completes until then.
    pub fn goes_on(&self) -> bool {
        let waits = !(self.starved.is_empty() && self.served.is_empty());
        // Receives of bulk in flight complete at once, and make room for the next.
        waits || self.has_put_off() || !self.bulk.is_empty() && self.bulk_in_flight == 0
    }

    /// A receive that does not wait for bytes is submitted, or has completed.
    pub fn note_bulk(&mut self, is_submitted: bool) {
        if is_submitted {
            self.bulk_in_flight += 1;
        } else {
            self.bulk_in_flight = self.bulk_in_flight.saturating_sub(1);
        }
    }

    /// A socket is armed again when it is its turn.
    pub fn line_up(&mut self, key: SocketKey, socket: &mut Socket, got_none: bool) {
        if mem::replace(&mut socket.lined_up, true) {
            return;
        }
        match (socket.bulk, got_none) {
            (true, _) => self.bulk.push_back(key),
            (false, true) => self.starved.push_back(key),
            (false, false) => self.served.push_back(key),
        }
    }

    /// The next to be armed again; of bulk no more than so many at a time.
    fn next(&mut self, bulk_max: usize) -> Option<SocketKey> {
        self.armed = self.armed.wrapping_add(1);
        let may_bulk = self.bulk_in_flight < bulk_max && !self.bulk.is_empty();
        // However many others there are, bulk goes on.
        if may_bulk && self.armed.is_multiple_of(BULK_SHARE) {
            return self.bulk.pop_front();
        }
        let next = self.starved.pop_front();
        let next = next.or_else(|| self.served.pop_front());
        next.or_else(|| may_bulk.then(|| self.bulk.pop_front()).flatten())
    }
}

impl Ring {
    /// Whether bulk waits for others this turn: buffers are scarce, or would be before all are worked off.
    pub(super) fn is_crowded(&mut self) -> bool {
        let scarcity = &self.scarcity;
        scarcity.is_on()
            || scarcity.has_put_off()
            || self.queue.completions_ready() > self.buffers_max() / 2
    }

    fn buffers_max(&self) -> usize {
        usize::from(self.config.receive_buffers.next_power_of_two())
    }

    /// Whether a completion waits until those of others are delivered: one that fills its buffer, and what
    /// comes behind it on the same socket.
    pub(super) fn puts_off(&mut self, completion: &Completion) -> bool {
        let Some(token) = Token::unpack(completion.user_data) else {
            return false;
        };
        if !matches!(token.operation, Operation::Receive | Operation::ReceiveNow) {
            return false;
        }
        let fills = completion.received_bytes() >= self.config.receive_buffer_bytes as usize;
        match self.sockets.get_mut(token.socket()) {
            Some(socket) if fills || socket.put_off > 0 => {
                socket.bulk |= fills;
                socket.put_off += 1;
            }
            _ => return false,
        }
        self.scarcity.put_off.push_back(*completion);
        true
    }

    /// The next of them, if there may be one more after so many.
    pub(super) fn next_put_off(
        &mut self,
        delivered: usize,
        is_spent: impl Fn() -> bool,
    ) -> Option<Completion> {
        if !self.scarcity.has_put_off() || delivered >= BULK_PER_TURN_MIN && is_spent() {
            return None;
        }
        let completion = self.scarcity.put_off.pop_front()?;
        let token = Token::unpack(completion.user_data);
        if let Some(socket) = token.and_then(|token| self.sockets.get_mut(token.socket())) {
            socket.put_off = socket.put_off.saturating_sub(1);
        }
        Some(completion)
    }

    /// Buffers have been given back: receive again, as many as there may be buffers for.
    pub(super) fn rearm(&mut self) {
        if self.scarcity.turns == 0 {
            return;
        }
        self.scarcity.turns -= 1;
        let buffers = self.buffers_max();
        let taken = self.queue.completions_ready() + self.scarcity.put_off.len();
        // Some in any case: completions may be of sends.
        let free = buffers.saturating_sub(taken).max(buffers.div_ceil(16));
        for _ in 0..free {
            let Some(key) = self.scarcity.next(buffers.div_ceil(4)) else {
                break;
            };
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.lined_up = false;
                self.settle(key);
            }
        }
        let scarcity = &mut self.scarcity;
        if !(scarcity.starved.is_empty() && scarcity.served.is_empty() && scarcity.bulk.is_empty())
        {
            scarcity.begin();
        }
    }
}
