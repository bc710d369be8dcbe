//! The sessions of a shard, by key and by client identifier.
//!
//! Invariant: a session is found by its client identifier exactly while it is in the table.

use crate::engine::keys::{OfSession, SessionKey};
use crate::engine::session::{FixedMap, Session};
use crate::engine::slots::Slots;
use std::rc::Rc;

/// The table.
#[derive(Default)]
pub(super) struct Sessions {
    slots: Slots<OfSession, Session>,
    by_client_id: FixedMap<Rc<str>, SessionKey>,
}

impl Sessions {
    /// A new session, whose client identifier no other has.
    pub(super) fn insert(&mut self, session: Session) -> SessionKey {
        let client_id = Rc::clone(&session.client_id);
        let key = self.slots.insert(session);
        let former = self.by_client_id.insert(client_id, key);
        debug_assert!(former.is_none());
        key
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let session = self.slots.remove(key)?;
        self.by_client_id.remove(&session.client_id);
        Some(session)
    }

    /// The session of a client identifier.
    pub(super) fn find(&self, client_id: &str) -> Option<SessionKey> {
        self.by_client_id.get(client_id).copied()
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

    /// All of them.
    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.slots.keys()
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
        let mut sessions = Sessions::default();
        let mut insert = |id: &str| sessions.insert(Session::new(id.into(), Version::V5));
        let (a, b) = (insert("a"), insert("b"));
        assert_eq!((sessions.find("a"), sessions.find("b")), (Some(a), Some(b)));
        assert!(sessions.remove(a).is_some() && sessions.remove(a).is_none());
        assert_eq!((sessions.find("a"), sessions.find("b")), (None, Some(b)));
        assert_eq!((sessions.len(), sessions.keys().collect()), (1, vec![b]));
    }
}
