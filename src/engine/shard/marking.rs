//! Subscriptions that are still to be marked by what their sessions may read now.
//!
//! Rules that change hold at once for whoever is asked; only the marks on subscriptions, by which deliveries
//! are not checked, are brought up to date over turns. Until then a session's deliveries are all checked.
//!
//! Invariant: a session whose subscriptions may bear old marks [`Marking::concerns`].

use super::ShardCore;
use crate::engine::access::acl::{Acl, Grant};
use crate::engine::keys::SessionKey;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What it takes to mark a subscription, in eighths of a delivery, beside a step for each rule that it meets.
const MARK_STEPS: usize = 96;

/// The rules in force, and which subscriptions do not bear their marks yet.
#[derive(Default)]
pub(super) struct Rules {
    /// Without them everything is allowed.
    pub acl: Option<Arc<Acl>>,
    /// There were methods before, by which sessions may have got rules of their own.
    pub had_methods: bool,
    /// Somebody shares topics with others, or did.
    pub has_parts: bool,
    pub marking: Marking,
}

/// How far the marking has got.
#[derive(Debug, Default)]
pub(super) struct Marking {
    /// Sessions from this place of their table on are still to be marked.
    from: Option<usize>,
    /// And these.
    due: BTreeSet<SessionKey>,
    /// The one at hand, and how many of its subscriptions are left: the first ones, so that none is missed
    /// when the last one takes the place of one that goes.
    current: Option<(SessionKey, usize)>,
}

impl Marking {
    /// All sessions are to be marked.
    pub(super) fn begin(&mut self) {
        self.from = Some(0);
        self.due.clear();
        self.current = None;
    }

    /// One session is to be marked.
    pub(super) fn begin_one(&mut self, session: SessionKey) {
        self.due.insert(session);
        if self.current.is_some_and(|(current, _)| current == session) {
            self.current = None;
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.from.is_none() && self.due.is_empty()
    }

    /// Whether a session's subscriptions may bear old marks.
    #[inline]
    pub(super) fn concerns(&self, session: SessionKey) -> bool {
        self.from.is_some_and(|from| session.slot() >= from)
            || !self.due.is_empty() && self.due.contains(&session)
    }

    /// The session at hand is marked.
    fn end_one(&mut self) {
        let Some((session, _)) = self.current.take() else {
            return;
        };
        if !self.due.remove(&session) {
            self.from = self.from.map(|from| from.max(session.slot() + 1));
        }
    }
}

impl ShardCore {
    /// Marks subscriptions as far as the part of this turn's work allows that is theirs.
    pub(super) fn mark_some(&mut self) {
        self.do_part(|core| {
            let is_due = !core.clients.rules.marking.is_empty();
            is_due.then(|| core.mark_next())
        });
    }

    /// Marks one subscription, or finds the next session; the steps it took.
    fn mark_next(&mut self) -> usize {
        let marking = &mut self.clients.rules.marking;
        let Some((key, left)) = marking.current else {
            return self.find_unmarked();
        };
        let session = self.clients.sessions.get(key);
        // It may have given up some of them since.
        let left = session.map_or(0, |session| left.min(session.subscriptions.len()));
        if left == 0 {
            marking.end_one();
            return 1;
        }
        marking.current = Some((key, left - 1));
        self.mark(key, left - 1)
    }

    /// Finds the next session that is to be marked.
    fn find_unmarked(&mut self) -> usize {
        let marking = &mut self.clients.rules.marking;
        let mut found = marking.due.first().copied();
        if let Some(from) = marking.from
            && found.is_none()
        {
            if from >= self.clients.sessions.slots() {
                marking.from = None;
                return 1;
            }
            found = self.clients.sessions.key_at(from);
            if found.is_none() {
                marking.from = Some(from + 1);
            }
        }
        let Some(key) = found else {
            return 1;
        };
        self.renew_rights(key);
        let session = self.clients.sessions.get(key);
        let subscriptions = session.map_or(0, |session| session.subscriptions.len());
        self.clients.rules.marking.current = Some((key, subscriptions));
        MARK_STEPS
    }

    /// Marks the subscription at a place of a session's by what it may read now. One that it may read nothing
    /// of stays: it gets nothing.
    fn mark(&mut self, key: SessionKey, place: usize) -> usize {
        let Some(session) = self.clients.sessions.get(key) else {
            return 1;
        };
        let Some(subscription) = session.subscriptions.get(place) else {
            return 1;
        };
        let (mut checked, mut steps) = (session.part.is_some(), 0);
        if let Some(rights) = self.clients.rights(session) {
            let filter = self.trie.filter_text(subscription.node);
            let grant;
            (grant, steps) = rights.grant(&filter);
            checked |= grant != Grant::Unchecked;
        }
        let entry = self.trie.entry_mut(subscription.node);
        let share = subscription.share.as_ref();
        if let Some(subscriber) = entry.and_then(|entry| entry.find_mut(key, share)) {
            subscriber.checked = checked;
        }
        MARK_STEPS + steps
    }
}
