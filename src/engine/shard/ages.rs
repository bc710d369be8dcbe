//! Which sessions have messages that may wait for so long and no longer.
//!
//! Invariant: none of them has anything to drop before [`Aging::due_at`].
//!
//! Not here: how they are dropped ([`super::aging`]).

use crate::engine::keys::SessionKey;
use crate::engine::time::Timestamp;

/// Sessions whose messages may wait for so long and no longer.
#[derive(Debug)]
pub(super) struct Aging {
    pub sessions: Vec<SessionKey>,
    /// When the first message of any has waited long enough.
    pub due_at: Timestamp,
}

impl Default for Aging {
    fn default() -> Self {
        Aging {
            sessions: Vec::new(),
            due_at: Timestamp::NEVER,
        }
    }
}

impl Aging {
    /// When something is to be dropped, if it is known.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        Some(self.due_at).filter(|at| *at != Timestamp::NEVER)
    }

    /// A message has come to wait that is to be dropped then.
    pub(super) fn note(&mut self, at: Timestamp) {
        self.due_at = self.due_at.min(at);
    }
}
