//! How much of the kernel's memory a shard's sockets hold: asked a few at a time, and only while it matters.

use super::Shell;
use super::sockets::State;
use crate::shard::meter::SocketMeter;
use crate::shard::ring::{KernelShare, Ring, SocketKey};
use std::time::{Duration, Instant};

/// Sockets asked per millisecond; each takes about 0.3 us.
const PER_MS: u64 = 20;
/// Most asked in one turn.
const PER_TURN: u64 = 512;
/// How long the shard sleeps at most in between.
const INTERVAL: Duration = Duration::from_millis(50);

/// Goes round over the sockets.
pub(super) struct Survey {
    meter: SocketMeter,
    asked_at: Instant,
    next: usize,
    /// Of this round, so far.
    bytes: u64,
    /// Whether a round has come to its end since it has mattered.
    is_known: bool,
}

impl Survey {
    /// What it finds goes to `meter`.
    pub fn new(meter: SocketMeter, now: Instant) -> Self {
        Survey {
            meter,
            asked_at: now,
            next: 0,
            bytes: 0,
            is_known: false,
        }
    }

    /// When it is to go on, though nothing happens.
    pub fn goes_on_at(&self) -> Option<Instant> {
        self.meter.is_wanted().then(|| self.asked_at + INTERVAL)
    }

    /// Goes on, at so many places in this much time. Gives back whose peers have gone without anybody's
    /// noticing.
    fn go_on(
        &mut self,
        now: Instant,
        places: usize,
        ask: impl FnOnce(usize, usize) -> KernelShare,
    ) -> Vec<SocketKey> {
        if !self.meter.is_wanted() {
            (self.next, self.bytes, self.is_known) = (0, 0, false);
            self.asked_at = now;
            return Vec::new();
        }
        let elapsed_ms = now.saturating_duration_since(self.asked_at).as_millis() as u64;
        let count = (elapsed_ms * PER_MS).min(PER_TURN) as usize;
        if count == 0 {
            return Vec::new();
        }
        self.asked_at = now;
        let share = ask(self.next, count);
        self.bytes += share.bytes;
        if let Some(next) = share.next {
            self.next = next;
            if !self.is_known {
                // The first time round the rest is taken to be alike.
                self.meter
                    .set(self.bytes * places as u64 / next.max(1) as u64);
            }
        } else {
            self.meter.set(self.bytes);
            (self.next, self.bytes, self.is_known) = (0, 0, true);
        }
        share.deserted
    }
}

impl Shell {
    /// Asks the kernel about a few sockets, and tells the core of those whose peers have gone.
    pub(super) fn survey_sockets(&mut self, ring: &mut Ring) {
        let now = self.clock.turn_at();
        let ask = |first, places| ring.kernel_share(first, places);
        let deserted = self.survey.go_on(now, ring.places(), ask);
        if deserted.is_empty() {
            return;
        }
        for socket in deserted {
            if let Some(State::Open(connection)) = self.sockets.state(socket) {
                let connection = *connection;
                self.core.peer_gone(connection);
            }
        }
        self.carry_out(ring);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::meter::ProcessMeter;

    #[test]
    fn a_round_asks_everybody_once_and_begins_anew() {
        let process = ProcessMeter::new(1);
        let mut now = Instant::now();
        let mut survey = Survey::new(process.sockets(0), now);
        // Each place holds a byte.
        let ask = |first: usize, places: usize| {
            let end = (first + places).min(1_000);
            KernelShare {
                bytes: (end - first) as u64,
                next: (end < 1_000).then_some(end),
                deserted: Vec::new(),
            }
        };
        survey.go_on(now, 1_000, |_, _| unreachable!("it does not matter"));
        assert_eq!(survey.goes_on_at(), None);
        process.want_sockets(true);
        assert_eq!(survey.goes_on_at(), Some(now + INTERVAL));
        survey.go_on(now, 1_000, |_, _| unreachable!("no time has passed"));
        for _ in 0..4 {
            now += INTERVAL;
            survey.go_on(now, 1_000, ask);
            assert_eq!(process.sockets_bytes(), 1_000);
        }
        assert_eq!(survey.next, 0, "512 at most, in two steps a round");
        process.want_sockets(false);
        survey.go_on(now, 1_000, |_, _| {
            unreachable!("it does not matter any more")
        });
    }
}
