//! What the core wants done with connections, done right after the input that caused it.

use super::Shell;
use super::sockets::{Closing, State};
use crate::engine::keys::ConnectionKey;
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::shard::Command;
use crate::engine::shard::admission::Place;
use crate::shard::ring::Ring;
use std::time::Instant;

/// Closes that a turn hastens, where there are too many sockets.
const CLOSES_HASTENED_PER_TURN: usize = 64;

impl Shell {
    /// Carries out what the core wants done with connections.
    pub(super) fn carry_out(&mut self, ring: &mut Ring) {
        self.record_notes();
        self.tell_traced();
        let mut commands = std::mem::take(&mut self.commands);
        // A question that finds no room is answered at once, which leads to more.
        loop {
            self.core.take_commands(&mut commands);
            if commands.is_empty() {
                break;
            }
            for command in commands.drain(..) {
                self.carry_out_one(ring, command);
            }
        }
        self.commands = commands;
    }

    fn carry_out_one(&mut self, ring: &mut Ring, command: Command) {
        match command {
            Command::Close {
                connection,
                rest,
                place,
            } => self.close(ring, connection, rest, place),
            Command::Abort(connection) => {
                if let Some(socket) = self.sockets.socket(connection)
                    && let Some(state) = self.sockets.state(socket)
                {
                    *state = State::Aborted;
                    ring.close(socket);
                }
            }
            Command::Handover {
                connection,
                home,
                bytes,
                arrival,
            } => {
                if let Some(socket) = self.sockets.socket(connection)
                    && let Some(state) = self.sockets.state(socket)
                {
                    *state = State::Leaving {
                        home,
                        bytes,
                        arrival,
                    };
                    ring.release(socket);
                    // A send that nobody takes would keep it here for good.
                    self.leaving.begin(socket, Instant::now());
                }
            }
            Command::Authenticate { connection, step } => self.ask(connection, step),
            Command::Pause(connection) => {
                if let Some(socket) = self.sockets.socket(connection) {
                    ring.pause_receive(socket);
                }
            }
            Command::Resume(connection) => {
                if let Some(socket) = self.sockets.socket(connection) {
                    ring.resume_receive(socket);
                }
            }
        }
    }

    fn close(
        &mut self,
        ring: &mut Ring,
        connection: ConnectionKey,
        rest: Outgoing,
        place: Option<Place>,
    ) {
        let Some(socket) = self.sockets.socket(connection) else {
            debug_assert!(false, "every connection of the core has a socket");
            return self.core.vacate(place);
        };
        let is_sending = ring.is_sending(socket);
        let rest = self.wrap_rest(socket, rest);
        let Some(state) = self.sockets.state(socket) else {
            return self.core.vacate(place);
        };
        let mut waiting = None;
        if rest.is_empty() {
            self.core.recycle(rest);
        } else if is_sending {
            waiting = Some(rest);
        } else if let Err(rest) = ring.send(socket, rest) {
            self.core.recycle(rest);
        }
        let waits = waiting.is_some();
        *state = State::Closing(Box::new(Closing {
            rest: waiting,
            place,
        }));
        if !waits {
            ring.close_after_send(socket);
        }
        self.lingering.begin(socket, Instant::now());
    }

    /// Closes what has lingered long enough.
    pub(super) fn end_lingering(&mut self, ring: &mut Ring) {
        if self.lingering.is_empty() && self.leaving.is_empty() {
            return;
        }
        let now = Instant::now();
        let sockets = &mut self.sockets;
        for waiting in [&mut self.lingering, &mut self.leaving] {
            let mut is_gone = |socket| sockets.state(socket).is_none();
            while let Some(socket) = waiting.next_over(now, &mut is_gone) {
                ring.close(socket);
            }
        }
        self.hasten_closes(ring);
    }

    /// Who was let in and closes takes no place any more, so that it may come again at once: sockets that it
    /// leaves open must not be all that there may be. The oldest are closed at once, but for a few: where
    /// many are connected, those that close are not to blame.
    fn hasten_closes(&mut self, ring: &mut Ring) {
        let max = self.core.sockets_max();
        let too_many = self.sockets.count.saturating_sub(max);
        let closing = self.lingering.len().saturating_sub(max / 8);
        // What is closed here is gone a turn later.
        for _ in 0..too_many.min(closing).min(CLOSES_HASTENED_PER_TURN) {
            let Some(socket) = self.lingering.take_oldest() else {
                return;
            };
            if self.sockets.state(socket).is_some() {
                ring.close(socket);
                self.core.note_close_hastened();
            }
        }
    }
}
