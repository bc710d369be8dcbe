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
pub(super) struct Ended(VecDeque<Left>);

/// What is left of one.
struct Left {
    session: SessionKey,
    /// It outlived its connections.
    is_lasting: bool,
    subscriptions: Vec<SubscriptionRef>,
}

impl Ended {
    /// Whether nothing is left to be removed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn next(&mut self) -> Option<(SessionKey, bool, SubscriptionRef)> {
        loop {
            let left = self.0.front_mut()?;
            if let Some(subscription) = left.subscriptions.pop() {
                return Some((left.session, left.is_lasting, subscription));
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
        is_lasting: bool,
        subscriptions: Vec<SubscriptionRef>,
    ) {
        if !subscriptions.is_empty() {
            self.ended.0.push_back(Left {
                session,
                is_lasting,
                subscriptions,
            });
            self.remove_ended();
        }
    }

    /// Removes subscriptions of sessions that are gone.
    pub(super) fn remove_ended(&mut self) {
        let mut removed = 0;
        while (removed < REMOVALS_MIN || !self.backlog.is_spent())
            && let Some((session, is_lasting, subscription)) = self.ended.next()
        {
            self.backlog.spend(REMOVAL_WORK);
            self.remove_subscription(session, is_lasting, &subscription);
            removed += 1;
        }
    }
}
