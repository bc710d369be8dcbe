//! What a shard asks of the authentication methods, and what they answer.
//!
//! Hashing and asking other servers take time, so methods work elsewhere: questions leave by a bounded
//! queue, and the connection is not read until the answer has come.

use crate::engine::access::{Answer, Shown};
use crate::engine::keys::{ConnectionKey, ShardId};
use crate::shard::handover::Origin;
use crate::shard::peer::Peer;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Whom a question is about, for the account of those who do not wait for the answer.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Where it comes from.
    pub origin: Origin,
    /// Client identifier of its CONNECT; empty where it has been let in before.
    pub client_id: Box<str>,
    /// The user that it says to be in its exchange, else in its CONNECT.
    pub user_name: Option<Box<str>>,
}

/// A question of a shard.
#[derive(Debug)]
pub struct Question {
    /// Whose.
    pub shard: ShardId,
    /// About which connection.
    pub connection: ConnectionKey,
    /// Whom.
    pub asker: Asker,
    /// What.
    pub work: Work,
    /// Since when.
    pub asked_at: Instant,
    /// When its client can wait for the answer no longer.
    pub until: Instant,
}

impl Question {
    /// Whether its client waits no longer.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }
}

/// What is asked.
#[derive(Debug)]
pub enum Work {
    /// A CONNECT.
    Connect(Box<Visitor>),
    /// The first data of an exchange on an open connection.
    Begin(Again),
    /// An exchange goes on.
    Continue(Box<dyn Exchange>, Box<[u8]>),
}

/// A client that is to prove anew who it is.
#[derive(Debug)]
pub struct Again {
    /// What it says.
    pub bytes: Box<[u8]>,
    /// As whom it was let in: somebody else's proof is a wrong one.
    pub user_name: Option<Box<str>>,
    /// Methods that may be asked, by name; `None` for all.
    pub methods: Option<Arc<[&'static str]>>,
}

/// A client that wants to connect, and how it came.
#[derive(Debug)]
pub struct Visitor {
    /// What its CONNECT shows.
    pub shown: Shown,
    /// Where it is, behind proxies that are trusted.
    pub peer: Peer,
    /// Its certificate in DER, which the TLS handshake has verified.
    pub certificate: Option<Box<[u8]>>,
    /// Methods that may be asked, by name; `None` for all.
    pub methods: Option<Arc<[&'static str]>>,
}

/// An authentication of several steps, as its method remembers it; the shard only keeps it meanwhile.
pub trait Exchange: fmt::Debug + Send {
    /// The user that the client says to be.
    fn user_name(&self) -> &str;

    /// Judges the client's next data.
    fn go_on(self: Box<Self>, bytes: &[u8]) -> Answer;
}

/// The answer to a question.
#[derive(Debug)]
pub struct Reply {
    /// About which connection.
    pub connection: ConnectionKey,
    /// Whom.
    pub asker: Asker,
    /// What the methods say.
    pub answer: Answer,
    /// The exchange, if it goes on.
    pub exchange: Option<Box<dyn Exchange>>,
}
