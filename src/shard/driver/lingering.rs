//! Connections that the core has forgotten and that still drain their last bytes, closed or on their way to
//! another shard, and how long they may.

use crate::shard::ring::SocketKey;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a connection may take to drain its last bytes.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// Sockets by when patience ends; all wait equally long, so they are in order.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    sockets: VecDeque<(Instant, SocketKey)>,
}

impl Lingering {
    /// A socket is being closed from now on.
    pub fn begin(&mut self, socket: SocketKey, now: Instant) {
        self.sockets.push_back((now + LINGER_MAX, socket));
    }

    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// When patience with the first of them ends.
    pub fn ends_at(&self) -> Option<Instant> {
        self.sockets.front().map(|(at, _)| *at)
    }

    /// How many do, those included that are gone and are behind others.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// The socket that has lingered longest.
    pub fn take_oldest(&mut self) -> Option<SocketKey> {
        self.sockets.pop_front().map(|(_, socket)| socket)
    }

    /// The next socket whose time is over, or that `is_gone` already.
    pub fn next_over(
        &mut self,
        now: Instant,
        mut is_gone: impl FnMut(SocketKey) -> bool,
    ) -> Option<SocketKey> {
        let (at, socket) = *self.sockets.front()?;
        if at > now && !is_gone(socket) {
            return None;
        }
        self.sockets.pop_front();
        Some(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_in_order_or_with_the_socket() {
        let now = Instant::now();
        let mut lingering = Lingering::default();
        let sockets: Vec<_> = (0..3).map(SocketKey::for_test).collect();
        for (socket, delay_ms) in sockets.iter().zip([0, 10, 20]) {
            lingering.begin(*socket, now + Duration::from_millis(delay_ms));
        }
        assert_eq!(lingering.ends_at(), Some(now + LINGER_MAX));
        assert_eq!(lingering.next_over(now, |_| false), None);
        assert_eq!(lingering.next_over(now, |_| true), Some(sockets[0]));
        let later = now + LINGER_MAX + Duration::from_millis(10);
        assert_eq!(lingering.next_over(later, |_| false), Some(sockets[1]));
        assert_eq!(lingering.next_over(later, |_| false), None);
        assert_eq!(lingering.len(), 1);
        assert_eq!(lingering.take_oldest(), Some(sockets[2]));
        assert!(lingering.is_empty());
    }
}
