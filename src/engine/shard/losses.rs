//! Which sessions have lost messages since they were last asked for.
//!
//! Invariant: a session that is still there is listed exactly while it holds losses, once.

use super::sessions::Sessions;
use crate::engine::keys::SessionKey;
use crate::engine::session::losses::{LossReason, Losses};
use crate::engine::telemetry::counters::Counters;
use std::rc::Rc;

/// The list; what each has lost stands in its session.
#[derive(Debug, Default)]
pub(super) struct Losing(Vec<SessionKey>);

impl Losing {
    /// A session has lost so many messages.
    pub(super) fn add(
        &mut self,
        sessions: &mut Sessions,
        key: SessionKey,
        reason: LossReason,
        count: u64,
    ) {
        let Some(session) = sessions.get_mut(key) else {
            return;
        };
        if session.losses.is_none() {
            self.0.push(key);
        }
        let losses = session.losses.get_or_insert_with(Box::default);
        losses.add(reason, count);
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, by client identifier.
    pub(super) fn take(&mut self, sessions: &mut Sessions) -> Vec<(Rc<str>, Losses)> {
        let told = self.0.drain(..).filter_map(|key| {
            let session = sessions.get_mut(key)?;
            Some((Rc::clone(&session.client_id), *session.losses.take()?))
        });
        told.collect()
    }
}

/// The counter of a reason.
pub(super) const fn counter(counters: &mut Counters, reason: LossReason) -> &mut u64 {
    match reason {
        LossReason::OutboxFull => &mut counters.dropped_outbox_full,
        LossReason::MemoryShort => &mut counters.dropped_memory,
        LossReason::QueueFull => &mut counters.dropped_queue_full,
        LossReason::ReplayFull => &mut counters.dropped_replay_full,
        LossReason::TooLarge => &mut counters.dropped_packet_too_large,
        LossReason::RateLimited => &mut counters.dropped_rate_limited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::Version;
    use crate::engine::session::Session;

    #[test]
    fn each_loser_is_told_of_once() {
        let mut sessions = Sessions::new(crate::engine::hashing::Hashing::new(1));
        let mut insert = |id: &str| sessions.insert(Session::new(id.into(), Version::V5));
        let (a, b) = (insert("a"), insert("b"));
        let mut losing = Losing::default();
        losing.add(&mut sessions, a, LossReason::QueueFull, 1);
        losing.add(&mut sessions, b, LossReason::QueueFull, 1);
        losing.add(&mut sessions, a, LossReason::TooLarge, 2);
        sessions.remove(b);
        let mut lost = Losses::default();
        lost.add(LossReason::QueueFull, 1);
        lost.add(LossReason::TooLarge, 2);
        assert_eq!(losing.take(&mut sessions), [(Rc::from("a"), lost)]);
        assert!(losing.is_empty() && losing.take(&mut sessions).is_empty());
        losing.add(&mut sessions, b, LossReason::QueueFull, 1);
        assert!(losing.is_empty(), "it is gone");
    }
}
