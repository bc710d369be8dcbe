//! Connections with a step of a handshake to do, in the order in which they asked.

use crate::shard::ring::SocketKey;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the handshakes of one turn may take together; at least one step is done.
const TIME_MAX: Duration = Duration::from_micros(500);

/// How often a refused upgrade is told of: anybody can ask for one.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(1);

/// The queue, and room for what comes out of layers.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    queue: VecDeque<SocketKey>,
    /// Upgrades that were refused.
    pub refusals: Refusals,
    /// Room for what comes out of layers.
    pub plain: Vec<u8>,
}

/// What is told in the log of upgrades that were refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told_at: Option<Instant>,
    left_out: u64,
}

impl Refusals {
    /// One more: what to say behind it of those that were not told of, or nothing if it is to be left out.
    pub fn tell(&mut self, now: Instant) -> Option<String> {
        let since = self.told_at.map(|at| now.saturating_duration_since(at));
        if since.is_some_and(|since| since < REFUSALS_INTERVAL) {
            self.left_out += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            more => format!(" ({more} more were refused since the last such line)"),
        })
    }
}

/// A turn's share of time.
#[derive(Debug)]
pub(super) struct Share {
    ends_at: Instant,
}

impl Handshakes {
    pub fn push(&mut self, socket: SocketKey) {
        self.queue.push_back(socket);
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A turn's share begins.
    pub fn begin(now: Instant) -> Share {
        Share {
            ends_at: now + TIME_MAX,
        }
    }

    /// The first in the queue.
    pub fn next(&mut self) -> Option<SocketKey> {
        self.queue.pop_front()
    }
}

impl Share {
    /// Whether it is used up.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.ends_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_of_once_in_a_while_and_the_others_counted() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        assert_eq!(refusals.tell(now).as_deref(), Some(""));
        assert_eq!(refusals.tell(now), None);
        assert_eq!(refusals.tell(now + REFUSALS_INTERVAL / 2), None);
        let line = refusals.tell(now + REFUSALS_INTERVAL).unwrap();
        assert!(line.contains("2 more"), "{line}");
        let next = refusals.tell(now + 2 * REFUSALS_INTERVAL);
        assert_eq!(next.as_deref(), Some(""));
    }

    #[test]
    fn steps_come_in_order_and_a_share_ends() {
        let mut handshakes = Handshakes::default();
        let sockets: Vec<_> = (0..2).map(SocketKey::for_test).collect();
        sockets.iter().for_each(|socket| handshakes.push(*socket));
        let now = Instant::now();
        let share = Handshakes::begin(now);
        assert!(!share.is_over(now) && share.is_over(now + TIME_MAX));
        assert_eq!(handshakes.next(), Some(sockets[0]));
        assert_eq!(handshakes.next(), Some(sockets[1]));
        assert!(handshakes.is_empty() && handshakes.next().is_none());
    }
}
