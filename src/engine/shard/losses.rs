//! Which sessions have lost messages since they were last asked for.
//!
//! Invariant: a session that is still there is listed exactly while it holds losses, once; what one that has
//! ended held is kept.

use super::sessions::Sessions;
use crate::engine::keys::SessionKey;
use crate::engine::session::Session;
use crate::engine::session::losses::{LossReason, Losses};
use crate::engine::telemetry::counters::Counters;
use std::rc::Rc;

/// Sessions that have lost messages and ended before that was asked for; of more only the counters tell.
const ENDED_MAX: usize = 1_000;

/// The list; what each has lost stands in its session.
#[derive(Debug, Default)]
pub(super) struct Losing {
    sessions: Vec<SessionKey>,
    /// What those have lost that have ended since.
    ended: Vec<(Rc<str>, Losses)>,
}

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
        session.lost_messages += count;
        if session.losses.is_none() {
            self.sessions.push(key);
        }
        let losses = session.losses.get_or_insert_with(Box::default);
        losses.add(reason, count);
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.ended.is_empty()
    }

    /// A session ends: what it has lost is still to be told.
    pub(super) fn keep_of_ended(&mut self, session: &mut Session) {
        if let Some(losses) = session.losses.take()
            && self.ended.len() < ENDED_MAX
        {
            self.ended.push((Rc::clone(&session.client_id), *losses));
        }
    }

    /// All, by client identifier.
    pub(super) fn take(&mut self, sessions: &mut Sessions) -> Vec<(Rc<str>, Losses)> {
        let mut told = std::mem::take(&mut self.ended);
        told.extend(self.sessions.drain(..).filter_map(|key| {
            let session = sessions.get_mut(key)?;
            Some((Rc::clone(&session.client_id), *session.losses.take()?))
        }));
        told
    }
}

/// The counter of a reason.
pub(super) const fn counter(counters: &mut Counters, reason: LossReason) -> &mut u64 {
    match reason {
        LossReason::OutboxFull => &mut counters.dropped_outbox_full,
        LossReason::MemoryShort => &mut counters.dropped_memory,
        LossReason::QueueFull => &mut counters.dropped_queue_full,
        LossReason::QueueAge => &mut counters.dropped_queue_age,
        LossReason::ReplayFull => &mut counters.dropped_replay_full,
        LossReason::TooLarge => &mut counters.dropped_packet_too_large,
        LossReason::RateLimited => &mut counters.dropped_rate_limited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::Version;

    #[test]
    fn each_loser_is_told_of_once() {
        let mut sessions = Sessions::new(crate::engine::hashing::Hashing::new(1));
        let mut insert = |id: &str| sessions.insert(Session::new(id.into(), Version::V5));
        let (a, b) = (insert("a"), insert("b"));
        let mut losing = Losing::default();
        losing.add(&mut sessions, a, LossReason::QueueFull, 1);
        losing.add(&mut sessions, b, LossReason::QueueFull, 1);
        losing.add(&mut sessions, a, LossReason::TooLarge, 2);
        losing.keep_of_ended(&mut sessions.remove(b).unwrap());
        let mut lost = Losses::default();
        lost.add(LossReason::QueueFull, 1);
        lost.add(LossReason::TooLarge, 2);
        let mut of_ended = Losses::default();
        of_ended.add(LossReason::QueueFull, 1);
        let told = [(Rc::from("b"), of_ended), (Rc::from("a"), lost)];
        assert_eq!(losing.take(&mut sessions), told);
        assert!(losing.is_empty() && losing.take(&mut sessions).is_empty());
        losing.add(&mut sessions, b, LossReason::QueueFull, 1);
        assert!(losing.is_empty(), "it is gone");
        losing.add(&mut sessions, a, LossReason::QueueFull, 1);
        assert!(!losing.is_empty());
        for _ in 0..2 * ENDED_MAX {
            let mut ended = Session::new("e".into(), Version::V5);
            ended.losses = Some(Box::default());
            losing.keep_of_ended(&mut ended);
        }
        assert_eq!(losing.take(&mut sessions).len(), ENDED_MAX + 1);
    }
}
