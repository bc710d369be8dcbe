//! Connections with a step of a handshake to do, in the order in which they asked.

use crate::shard::ring::SocketKey;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the handshakes of one turn may take together; at least one step is done.
const TIME_MAX: Duration = Duration::from_micros(500);

/// The queue, and room for what comes out of layers.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    queue: VecDeque<SocketKey>,
    /// Room for what comes out of layers.
    pub plain: Vec<u8>,
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
