//! Telling an operator which clients lose messages: once in a while, and not all of many.

use crate::engine::bridge::CLIENT_ID_PREFIX;
use crate::engine::session::losses::Losses;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often a shard names clients that lose messages, and how many at once.
const INTERVAL: Duration = Duration::from_secs(1);
const NAMED_MAX: usize = 10;

/// When losses may be told again.
#[derive(Debug)]
pub(super) struct LossReports {
    due_at: Instant,
}

impl LossReports {
    pub fn new(now: Instant) -> Self {
        LossReports { due_at: now }
    }

    /// When losses that are known now may be told.
    pub fn due_at(&self) -> Instant {
        self.due_at
    }

    /// The lines for these losses; the next may follow after a while.
    pub fn tell(&mut self, now: Instant, losses: &[(Rc<str>, Losses)]) -> Vec<String> {
        self.due_at = now + INTERVAL;
        let named = losses.iter().take(NAMED_MAX);
        let mut lines: Vec<_> = named
            .map(
                |(client_id, lost)| match client_id.strip_prefix(CLIENT_ID_PREFIX) {
                    Some(bridge) => format!("bridge {bridge} has lost messages: {lost}"),
                    None => format!("client {client_id:?} has lost messages: {lost}"),
                },
            )
            .collect();
        let more = losses.len().saturating_sub(NAMED_MAX);
        if more > 0 {
            lines.push(format!("{more} more clients have lost messages"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::session::losses::LossReason;

    #[test]
    fn many_losers_are_counted_together() {
        let now = Instant::now();
        let mut reports = LossReports::new(now);
        let mut lost = Losses::default();
        lost.add(LossReason::OutboxFull, 3);
        let losses: Vec<_> = (0..NAMED_MAX + 2)
            .map(|number| (Rc::from(format!("c{number}")), lost.clone()))
            .collect();
        let lines = reports.tell(now, &losses);
        assert_eq!(lines.len(), NAMED_MAX + 1);
        assert!(lines[0].starts_with("client \"c0\" has lost messages: "));
        assert_eq!(lines[NAMED_MAX], "2 more clients have lost messages");
        assert_eq!(reports.due_at(), now + INTERVAL);
        let of_bridge = [(Rc::from("$bridge/hq"), lost)];
        let lines = reports.tell(now, &of_bridge);
        assert!(
            lines[0].starts_with("bridge hq has lost messages: "),
            "{lines:?}"
        );
    }
}
