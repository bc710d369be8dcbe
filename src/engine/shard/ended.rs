//! Subscriptions of sessions that have ended: taken out of the trie over turns, if there are very many.
//!
//! Until then deliveries pass them by, since their sessions are gone.
//!
//! Invariant: a subscription whose session is gone stands here, so that interest in its filter ends too.

use super::ShardCore;
use crate::engine::keys::SessionKey;
use crate::engine::session::SubscriptionRef;
use std::collections::VecDeque;

/// What it takes to remove one, in deliveries.
const REMOVAL_WORK: usize = 8;
/// So many are removed in any turn.
const REMOVALS_MIN: usize = 16;

/// By session, those that are left.
#[derive(Default)]
pub(super) struct Ended(VecDeque<(SessionKey, Vec<SubscriptionRef>)>);

impl Ended {
    /// Whether nothing is left to be removed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn next(&mut self) -> Option<(SessionKey, SubscriptionRef)> {
        loop {
            let (session, left) = self.0.front_mut()?;
            if let Some(subscription) = left.pop() {
                return Some((*session, subscription));
            }
            self.0.pop_front();
        }
    }
}

impl ShardCore {
    /// A session is gone: its subscriptions go, as far as this turn's work allows; the rest later.
    pub(super) fn end_subscriptions(
        &mut self,
        session: SessionKey,
        subscriptions: Vec<SubscriptionRef>,
    ) {
        if !subscriptions.is_empty() {
            self.ended.0.push_back((session, subscriptions));
            self.remove_ended();
        }
    }

    /// Removes subscriptions of sessions that are gone.
    pub(super) fn remove_ended(&mut self) {
        let mut removed = 0;
        while (removed < REMOVALS_MIN || !self.backlog.is_spent())
            && let Some((session, subscription)) = self.ended.next()
        {
            self.backlog.spend(REMOVAL_WORK);
            self.remove_subscription(session, &subscription);
            removed += 1;
        }
    }
}
