//! Who a client is: what it shows, what a method says to that, and who it is then.
//!
//! Methods are tried in the order configured ([`Verdict::NotMine`] passes on to the next). They run on
//! threads of their own , never on a shard: hashing and asking other servers take time.
//!
//! Not here: what a client may do ([`acl`]).

pub mod acl;

use crate::codec::connect::Connect;
use crate::codec::control::Auth;
use crate::codec::Reason;
use std::fmt;
use std::sync::Arc;

/// Bytes that appear in no log: a password or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Secret(bytes.into())
    }

    /// The bytes, for a comparison or a hash and nothing else.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Who a client turned out to be.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Its name for access rules and limits; `None` for anonymous clients.
    pub user_name: Option<Box<str>>,
    /// The method that found out, by its name in the configuration.
    pub method: &'static str,
    /// Client identifiers it may use, where the method restricts them.
    pub client_id: Option<ClientIdRule>,
    /// Rules that the method gave it, in place of the access file's.
    pub acl: Option<Arc<acl::Acl>>,
    /// Seconds since 1970 at which its right to be connected ends.
    pub expires_unix_s: Option<u64>,
}

/// Which client identifiers an identity may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIdRule {
    /// Exactly this one.
    Exactly(Box<str>),
    /// Those that begin with this.
    Prefix(Box<str>),
}

impl ClientIdRule {
    /// Whether the rule lets `client_id` be used.
    #[must_use]
    pub fn allows(&self, client_id: &str) -> bool {
        match self {
            ClientIdRule::Exactly(only) => **only == *client_id,
            ClientIdRule::Prefix(prefix) => client_id.starts_with(&**prefix),
        }
    }
}

/// Why a client is not let in. A client learns no more than this, in words that are the same for an unknown
/// user and a wrong password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown user, wrong password, bad or expired token.
    BadCredentials,
    /// Known, but not allowed (the hook said no, a client identifier of somebody else).
    NotAuthorized,
    /// The method cannot answer now: its server is away, too many wait.
    Unavailable,
}

/// What an authenticator says to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The client may go on.
    Allow,
    /// It may not; the reason is for CONNACK or DISCONNECT.
    Refuse(Reason),
}

/// Decides on connections.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {}

impl Authenticator {
    /// Judges a CONNECT. An authentication method that is not known is refused `[MQTT-4.12.0-1]`.
    #[must_use]
    pub fn connect(&self, connect: &Connect<'_>) -> Decision {
        match connect.properties.authentication_method {
            Some(_) => Decision::Refuse(Reason::BadAuthenticationMethod),
            None => Decision::Allow,
        }
    }

    /// Judges an AUTH packet on a connection that named `method` in its CONNECT `[MQTT-4.12.0-7]`.
    #[must_use]
    pub fn auth(&self, method: Option<&str>, auth: &Auth<'_>) -> Decision {
        match method {
            None => Decision::Refuse(Reason::ProtocolError),
            Some(method) if method != auth.method => {
                Decision::Refuse(Reason::BadAuthenticationMethod)
            }
            Some(_) => Decision::Refuse(Reason::BadAuthenticationMethod),
        }
    }
}
