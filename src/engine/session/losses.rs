//! What a session has lost, and why: counted for all by `telemetry::counters`, here for the one client, so
//! that a log or a metric can name it.

use std::fmt;

/// Why messages to a client were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// QoS 0, and it reads too slowly.
    OutboxFull,
    /// It is behind or away, and memory is short.
    MemoryShort,
    /// Its queue is full.
    QueueFull,
    /// They waited too long in its queue.
    QueueAge,
    /// Too many waited behind retained messages.
    ReplayFull,
    /// Larger than it takes.
    TooLarge,
    /// QoS 0, and more than it may get.
    RateLimited,
}

impl LossReason {
    const ALL: [LossReason; 7] = [
        LossReason::OutboxFull,
        LossReason::MemoryShort,
        LossReason::QueueFull,
        LossReason::QueueAge,
        LossReason::ReplayFull,
        LossReason::TooLarge,
        LossReason::RateLimited,
    ];

    /// As an operator reads it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            LossReason::OutboxFull => "it reads too slowly (limits.outbox_bytes_max)",
            LossReason::MemoryShort => {
                "it is behind or away, and memory is short (limits.memory_max_bytes)"
            }
            LossReason::QueueFull => {
                "its queue is full (limits.queue_messages_max, queue_bytes_max; a bridge may have its own)"
            }
            LossReason::QueueAge => "they waited too long for it (bridge.queue_seconds_max)",
            LossReason::ReplayFull => {
                "too many waited behind retained messages (limits.queue_messages_max, queue_bytes_max)"
            }
            LossReason::RateLimited => "it gets as many as it may (limits.delivery_rate_max)",
            LossReason::TooLarge => "larger than its maximum packet size",
        }
    }
}

/// Messages lost since the last report, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses([u64; LossReason::ALL.len()]);

impl Losses {
    /// So many more.
    pub fn add(&mut self, reason: LossReason, count: u64) {
        if let Some(sum) = self.0.get_mut(reason as usize) {
            *sum += count;
        }
    }

    /// As many more as others are.
    pub fn add_all(&mut self, others: &Losses) {
        for (reason, count) in others.by_reason() {
            self.add(reason, count);
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_reason().next().is_none()
    }

    /// How many there are of each reason that there is.
    pub fn by_reason(&self) -> impl Iterator<Item = (LossReason, u64)> {
        let all = LossReason::ALL.into_iter().zip(self.0);
        all.filter(|(_, count)| *count > 0)
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (reason, count) in self.by_reason() {
            write!(f, "{separator}{count} as {}", reason.text())?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_by_reason() {
        let mut losses = Losses::default();
        losses.add(LossReason::QueueFull, 2);
        losses.add(LossReason::TooLarge, 1);
        losses.add(LossReason::QueueFull, 3);
        assert_eq!(
            losses.to_string(),
            "5 as its queue is full (limits.queue_messages_max, queue_bytes_max; a bridge may have its own), \
             1 as larger than its maximum packet size"
        );
        let mut sum = Losses::default();
        assert!(sum.is_empty());
        sum.add_all(&losses);
        sum.add_all(&losses);
        let sums = [(LossReason::QueueFull, 10), (LossReason::TooLarge, 2)];
        assert_eq!(sum.by_reason().collect::<Vec<_>>(), sums);
    }
}
