//! What an operator may have to account for later: who came, who was refused, who was denied what.
//!
//! The core writes notes only where somebody reads them; the shell adds addresses and passes them on.
//! Passwords, tokens and payloads are in none.

/// Something to be recorded about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Client identifier, as far as it is known.
    pub client_id: Box<str>,
    /// User name, as claimed where it was refused.
    pub user_name: Option<Box<str>>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was let in, by this method (empty for anonymous clients).
    Connected(&'static str),
    /// It was refused: reason code, and whether its credentials were wrong.
    Refused {
        /// Reason code of 5.0.
        reason: u8,
        /// Whether it failed to prove who it is.
        is_login_failure: bool,
    },
    /// It left or was closed: reason code of the DISCONNECT it was sent, 0 if none.
    Disconnected(u8),
    /// Its session was taken over by another connection.
    TakenOver,
    /// It may not do that; so many more were left out since the last note of its kind.
    Denied {
        /// `publish` or `subscribe`.
        action: &'static str,
        /// Topic or filter.
        topic: Box<str>,
        /// Denials since the last note.
        left_out: u32,
    },
}
