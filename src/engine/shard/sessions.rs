//! The sessions of a shard, by key and by client identifier.
//!
//! Invariant: a session is found by its client identifier exactly while it is in the table.

use crate::engine::hashing::Hashing;
use crate::engine::keys::{OfSession, SessionKey};
use crate::engine::parted::Parted;
use crate::engine::session::Session;
use crate::engine::session::tally::{Sums, Tally};
use crate::engine::slots::Slots;
use std::rc::Rc;

/// A session by its client identifier, whose hash need not be made anew when the table grows.
struct Named {
    hash: u64,
    key: SessionKey,
}

/// The table.
pub(super) struct Sessions {
    hashing: Hashing,
    slots: Slots<OfSession, Session>,
    /// By client identifier, which the session has.
    by_client_id: Parted<Named>,
    /// What they have.
    tally: Rc<Tally>,
}

impl Sessions {
    /// An empty table.
    pub(super) fn new(hashing: Hashing) -> Self {
        Sessions {
            hashing,
            slots: Slots::default(),
            by_client_id: Parted::default(),
            tally: Rc::default(),
        }
    }

    /// A new session, whose client identifier no other has.
    pub(super) fn insert(&mut self, mut session: Session) -> SessionKey {
        debug_assert!(self.find(&session.client_id).is_none());
        let hash = self.hashing.of(0, &session.client_id);
        session.count_in(Rc::clone(&self.tally));
        let key = self.slots.insert(session);
        let named = Named { hash, key };
        self.by_client_id
            .insert_unique(hash, named, |named| named.hash);
        key
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let mut session = self.slots.remove(key)?;
        session.leave_tally();
        let hash = self.hashing.of(0, &session.client_id);
        let is_it = |named: &Named| named.key == key;
        self.by_client_id.remove(hash, is_it, |named| named.hash);
        Some(session)
    }

    /// The session of a client identifier.
    pub(super) fn find(&self, client_id: &str) -> Option<SessionKey> {
        let hash = self.hashing.of(0, client_id);
        let is_it = |named: &Named| {
            let session = self.slots.get(named.key);
            session.is_some_and(|session| *session.client_id == *client_id)
        };
        self.by_client_id.find(hash, is_it).map(|named| named.key)
    }

    /// A session, if it is still there.
    #[inline]
    pub(super) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.slots.get(key)
    }

    /// A session, if it is still there.
    #[inline]
    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.slots.get_mut(key)
    }

    /// Goes on with the growth of the table, so that it does not stay half done.
    pub(super) fn move_some(&mut self) {
        self.slots.move_some();
    }

    /// Places in the table, free ones included.
    pub(super) fn slots(&self) -> usize {
        self.slots.slots()
    }

    /// The session at a place.
    pub(super) fn key_at(&mut self, slot: usize) -> Option<SessionKey> {
        let (key, _) = self.slots.at_mut(slot)?;
        Some(key)
    }

    /// All of them.
    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.slots.keys()
    }

    /// What they have, all together.
    pub(super) fn sums(&self) -> Sums {
        self.tally.sums()
    }

    /// The same by looking at each, to check it.
    pub(super) fn sums_of_each(&self) -> Sums {
        let sessions = self.slots.keys().filter_map(|key| self.slots.get(key));
        sessions.fold(Sums::default(), |sums, session| Sums {
            subscriptions: sums.subscriptions + session.subscriptions.len(),
            queued: sums.queued + session.outbound.queued(),
            unacknowledged: sums.unacknowledged + usize::from(session.outbound.unacknowledged()),
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::Version;

    #[test]
    fn a_session_is_found_by_its_client_identifier_until_it_is_gone() {
        let mut sessions = Sessions::new(Hashing::new(1));
        let mut insert = |id: &str| sessions.insert(Session::new(id.into(), Version::V5));
        let (a, b) = (insert("a"), insert("b"));
        assert_eq!((sessions.find("a"), sessions.find("b")), (Some(a), Some(b)));
        assert!(sessions.remove(a).is_some() && sessions.remove(a).is_none());
        assert_eq!((sessions.find("a"), sessions.find("b")), (None, Some(b)));
        assert_eq!((sessions.len(), sessions.keys().collect()), (1, vec![b]));
    }
}
