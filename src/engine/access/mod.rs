//! Who a client is and what it may do, as far as a shard has to know.
//!
//! Not here: how a client proves who it is (`control::authn`); that takes time and happens elsewhere.

pub mod acl;
pub mod bans;

use crate::engine::codec::{Reason, Version};
use crate::engine::limits::OwnQueue;
use crate::engine::route::TopicPart;
use crate::engine::time::Timestamp;
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

impl Identity {
    /// What a log calls a client that says to be called so: as it turned out to be called, where it did.
    #[must_use]
    pub fn called<'a>(
        &'a self,
        client_id: &'a str,
        user_name: Option<&'a str>,
    ) -> (&'a str, Option<&'a str>) {
        let client_id = match &self.client_id {
            Some(ClientIdRule::Exactly(only)) if client_id.is_empty() => only,
            _ => client_id,
        };
        (client_id, self.user_name.as_deref().or(user_name))
    }
}

/// The key of the rules that are for all.
pub const ACL_FILE: &str = "acl_file";

/// Methods that give their clients rules of their own.
pub const METHODS_WITH_RULES: [&str; 2] = ["jwt", "http"];

/// The key by which a method gives its clients rules of their own.
#[must_use]
pub fn own_rules_key(method: &str) -> &'static str {
    match method {
        "jwt" => "authentication.jwt.acl_claim",
        "http" => "the acl of the answer by authentication.http",
        _ => "the acl of who vouches for it",
    }
}

/// The key by which a method says which client identifier its clients may use.
#[must_use]
pub fn client_id_key(method: &str) -> &'static str {
    match method {
        "jwt" => "authentication.jwt.client_id_claim",
        "http" => "client_id of the answer by authentication.http",
        _ => "by who vouches for it",
    }
}

/// Which client identifiers an identity may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIdRule {
    /// Exactly this one.
    Exactly(Box<str>),
    /// Those that begin with this name and the last [`ClientIdRule::SEPARATOR`] in them: so each belongs to
    /// one user only, whatever users are called.
    OfUser(Box<str>),
    /// None that it names: it gets one that no user has.
    Assigned,
}

impl ClientIdRule {
    /// What stands between a user's name and the rest of its client identifiers.
    pub const SEPARATOR: char = '-';

    /// Whether the rule lets `client_id` be used.
    #[must_use]
    pub fn allows(&self, client_id: &str) -> bool {
        match self {
            ClientIdRule::Assigned => false,
            ClientIdRule::Exactly(only) => **only == *client_id,
            ClientIdRule::OfUser(name) => {
                let user = client_id.rsplit_once(Self::SEPARATOR);
                user.map_or(client_id, |(user, _)| user) == &**name
            }
        }
    }
}

/// Why a client is not let in. A client learns no more than this, in words that are the same for an unknown
/// user and a wrong password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown user, wrong password.
    BadCredentials,
    /// A token or certificate that is not good; which check it failed, for the logs only.
    BadProof(Box<str>),
    /// Known, but not allowed (the hook said no, a client identifier of somebody else).
    NotAuthorized,
    /// The method cannot answer now: its server is away, too many wait.
    Unavailable,
}

impl Refusal {
    /// Whether the client failed to prove who it is: not where nobody could judge it.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        !matches!(self, Refusal::Unavailable)
    }

    /// Why, in an operator's words.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Refusal::BadCredentials => "its user is unknown, or its password or proof is wrong",
            Refusal::BadProof(text) => text,
            Refusal::NotAuthorized => "nobody vouches for it, or it may not connect as that",
            Refusal::Unavailable => "who it is cannot be found out now",
        }
    }
}

/// A step of an authentication, for the methods.
#[derive(Clone, Debug)]
pub enum Step {
    /// A CONNECT.
    Connect(Box<Shown>),
    /// Data of an AUTH packet that goes on with an exchange `[MQTT-4.12.0-3]`.
    Continue(Box<[u8]>),
    /// Data of an AUTH packet that begins anew on an open connection `[MQTT-4.12.1-1]`, and as whom only.
    Again(Box<[u8]>, Option<Box<str>>),
}

/// What a CONNECT shows.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Client identifier; empty if the broker is to assign one.
    pub client_id: Box<str>,
    /// User name.
    pub user_name: Option<Box<str>>,
    /// Password, or a token in its place.
    pub password: Option<Secret>,
    /// Protocol version.
    pub version: Version,
    /// Data of the extended authentication, if that is asked for.
    pub exchange: Option<Box<[u8]>>,
    /// Whether its listener lets in who shows nothing.
    pub may_be_anonymous: bool,
}

/// What the methods say to a step.
#[derive(Debug)]
pub enum Answer {
    /// It is who it says.
    Allow(Box<Admitted>),
    /// It is not.
    Refuse(Refusal),
    /// No method has anything to say.
    NotMine,
    /// The client has to go on; data for its AUTH packet, and the user that it says to be.
    Continue(Box<[u8]>, Box<str>),
    /// Nobody judged it: its address has failed too often.
    Banned,
    /// It is somebody who is banned by a name that only the proof has given it: told apart from a failure by
    /// nobody but the operator.
    BannedUnseen(Box<Identity>),
    /// Nobody judged it: too many wait.
    Busy,
    /// Nobody judged it: its turn came when its client could not wait any more.
    Late,
}

/// A client that was recognised.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// Who it is.
    pub identity: Identity,
    /// Data with which the exchange ends.
    pub exchange_end: Option<Box<[u8]>>,
    /// Until when, as shards count time; set by the shell.
    pub ends_at: Option<Timestamp>,
    /// Bounds of its session's queue that are not those of its listener.
    pub queue: OwnQueue,
    /// The part of all topics that is for it, if others have the rest.
    pub part: Option<TopicPart>,
}

/// What the shard that has heard a CONNECT tells its home.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// When it came, as shards count time; if it is not known, now.
    pub came_at: Option<Timestamp>,
    /// Who it is.
    pub admitted: Option<Box<Admitted>>,
}

/// The method of extended authentication that is served.
pub const EXCHANGE_METHOD: &str = "SCRAM-SHA-256";

impl Refusal {
    /// What a client is told (3.2.2.2).
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Refusal::BadCredentials | Refusal::BadProof(_) => Reason::BadUserNameOrPassword,
            Refusal::NotAuthorized => Reason::NotAuthorized,
            Refusal::Unavailable => Reason::ServerUnavailable,
        }
    }

    /// What a client is told that was connected before (3.14.2.1), which has fewer words.
    #[must_use]
    pub const fn disconnect_reason(&self) -> Reason {
        match self {
            Refusal::BadCredentials | Refusal::BadProof(_) | Refusal::NotAuthorized => {
                Reason::NotAuthorized
            }
            Refusal::Unavailable => Reason::ServerBusy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_identifier_belongs_to_one_user_only() {
        let ids = [
            "bob", "bob-1", "bob-", "bobby", "bobby-1", "bob-by", "bob-by-1", "-1", "",
        ];
        for (user, wanted) in [
            ("bob", &["bob", "bob-1", "bob-", "bob-by"][..]),
            ("bobby", &["bobby", "bobby-1"]),
            ("bob-by", &["bob-by-1"]),
            ("", &["-1", ""]),
        ] {
            let rule = ClientIdRule::OfUser(user.into());
            let allowed: Vec<_> = ids.into_iter().filter(|id| rule.allows(id)).collect();
            assert_eq!(allowed, wanted, "{user}");
        }
    }
}
