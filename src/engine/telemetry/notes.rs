//! What an operator may have to account for later: who came, who was refused, who was denied what.
//!
//! The core writes notes only where somebody reads them: all where there is an audit log or clients may be
//! banned for what they do, for the broker's log those that tell why. The shell adds addresses and passes
//! them on. Passwords, tokens and payloads are in none.

use crate::engine::keys::ConnectionKey;
use std::borrow::Cow;

/// Characters of a client's own text that are repeated.
const QUOTED_MAX: usize = 100;

/// A text of the client, or its beginning.
#[must_use]
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// Something to be recorded about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Client identifier, as far as it is known.
    pub client_id: Box<str>,
    /// User name; where it was refused as its proof named it, else as it claims.
    pub user_name: Option<Box<str>>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was let in, by this method (empty for anonymous clients).
    Connected(&'static str),
    /// It was refused.
    Refused {
        /// Reason code of 5.0, 0 if it never got so far.
        reason: u8,
        /// Why, in an operator's words.
        text: Box<str>,
    },
    /// It left or was closed.
    Disconnected {
        /// Reason code of the DISCONNECT it was sent, 0 if none.
        reason: u8,
        /// Why the broker closed it, in an operator's words; empty if it did not.
        text: Box<str>,
    },
    /// Nothing more comes of it, and it sent no DISCONNECT.
    Gone(Gone),
    /// The same before it has sent its CONNECT.
    GoneEarly {
        /// How.
        how: Gone,
        /// How far it had come, as the end of a sentence.
        during: &'static str,
    },
    /// Its session was taken over by this connection.
    TakenOver(ConnectionKey),
    /// It may not do that.
    Denied {
        /// `publish` or `subscribe`.
        action: &'static str,
        /// Topic or filter.
        topic: Box<str>,
        /// The key by which it may not, or why in a sentence.
        why: Cow<'static, str>,
    },
    /// Its will was due and was left out.
    WillLeftOut {
        /// Its topic.
        topic: Box<str>,
        /// The key by which it may not be published, or why in a sentence.
        why: Cow<'static, str>,
    },
    /// So much more it was denied since the last note of that.
    DeniedMore {
        /// Denials without a note of their own.
        left_out: u32,
    },
}

/// How a connection ended that was not ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The client closed it.
    Closed,
    /// The client, or what lies between, broke it off.
    Reset,
    /// Nothing came back any more.
    Lost,
}

impl Gone {
    /// How a connection ended before its CONNECT, in an operator's words.
    #[must_use]
    pub const fn text_early(self) -> &'static str {
        match self {
            Gone::Closed => "it closed the connection",
            Gone::Reset => "its connection was reset",
            Gone::Lost => self.text(),
        }
    }

    /// How, in an operator's words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Gone::Closed => "it closed the connection without a DISCONNECT",
            Gone::Reset => "its connection was reset, without a DISCONNECT",
            Gone::Lost => {
                "its machine or its network is gone: nothing came back any more \
                 (limits.tcp_keepalive_idle_seconds, tcp_keepalive_interval_seconds, \
                 tcp_keepalive_probes_max)"
            }
        }
    }
}

impl Event {
    /// Whether it tells an operator why a client is not served, or not as it asked.
    #[must_use]
    pub fn tells_why(&self) -> bool {
        match self {
            Event::Connected(_) => false,
            Event::Refused { .. }
            | Event::Gone(_)
            | Event::GoneEarly { .. }
            | Event::TakenOver(_)
            | Event::Denied { .. }
            | Event::WillLeftOut { .. }
            | Event::DeniedMore { .. } => true,
            Event::Disconnected { text, .. } => !text.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_text_the_beginning_is_told() {
        assert_eq!(quoted("x"), "\"x\"");
        let long = quoted(&"x".repeat(1_000));
        assert!(long.len() < 110 && long.ends_with("\"..."));
    }
}
