//! How a client proves who it is: methods, tried in the order configured.
//!
//! They run on threads of their own, never on a shard: hashing and asking other servers take time.
//! [`Verdict::NotMine`] passes on to the next method.
//!
//! Not here: what follows from an identity ([`crate::engine::access`]).

pub mod certificate;
mod clock;
pub mod fetch;
mod grants;
pub mod guesses;
pub mod http;
pub mod jwt;
pub mod password;
mod pool;
pub mod scram;
#[cfg(test)]
mod stand_in;

pub use pool::{Authenticators, Pool};

use crate::engine::access::{Identity, Refusal, Secret};
use crate::engine::codec::Version;
use crate::shard::peer::Peer;
use std::sync::Arc;

/// Names in a client certificate that the TLS handshake has verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Common name of the subject.
    pub common_name: Option<Box<str>>,
    /// Subject alternative names: DNS names, mail addresses, URIs, in that order.
    pub alternative_names: Vec<Box<str>>,
}

/// What a client shows in CONNECT, and how it came.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Client identifier; empty if the broker is to assign one.
    pub client_id: Box<str>,
    /// User name.
    pub user_name: Option<Box<str>>,
    /// Password, or a token in its place.
    pub password: Option<Secret>,
    /// Protocol version.
    pub version: Version,
    /// Where the client is, behind proxies that are trusted.
    pub peer: Peer,
    /// Its certificate's names.
    pub certificate: Option<Arc<CertificateNames>>,
}

/// What a method says to credentials.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is who it says.
    Allow(Box<Identity>),
    /// It is not; no other method is asked.
    Refuse(Refusal),
    /// The method has nothing to say; the next one is asked.
    NotMine,
}

/// One way to authenticate. Called on threads that may block; several at once.
pub trait Method: Send + Sync {
    /// Its name in configuration and audit log.
    fn name(&self) -> &'static str;

    /// What it takes in the place of a password, in an operator's words; `None` if it looks at none.
    fn takes(&self) -> Option<&'static str>;

    /// Judges credentials.
    fn authenticate(&self, credentials: &Credentials) -> Verdict;
}
