//! What a client may do: rules about topics, compiled once.
//!
//! Not here yet: this is the seam, everything is allowed.

use std::fmt;
use std::sync::Arc;

/// Rules of an access file.
#[derive(Debug, Default)]
pub struct Acl {}

/// What is wrong with an access file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub text: String,
}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for AclError {}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAccess {
    /// Messages may be received.
    Read,
    /// Messages may be published.
    Write,
    /// Both.
    ReadWrite,
    /// Neither, whatever else is said.
    Deny,
}

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Receive its messages.
    Read,
    /// Publish.
    Write,
}

/// What becomes of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Nothing that it matches may be read.
    Refused,
    /// Some of it may be: each delivery has to be checked.
    Checked,
    /// All of it may be.
    Unchecked,
}

impl Acl {
    /// Compiles an access file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(_text: &str) -> Result<Self, AclError> {
        Ok(Acl {})
    }

    /// Allows everything.
    #[must_use]
    pub fn everything() -> Self {
        Acl {}
    }

    /// Compiles rules that hold for whoever has them.
    ///
    /// # Errors
    /// The first rule that is wrong.
    pub fn from_rules<'a>(
        _rules: impl Iterator<Item = (RuleAccess, &'a str)>,
    ) -> Result<Self, AclError> {
        Ok(Acl {})
    }
}

/// What one client may do.
#[derive(Clone, Debug)]
pub struct Rights {
    _acl: Arc<Acl>,
}

impl Rights {
    /// Of a client.
    #[must_use]
    pub fn new(acl: &Arc<Acl>, _user_name: Option<&str>, _client_id: &str) -> Self {
        Rights {
            _acl: Arc::clone(acl),
        }
    }

    /// Whether it may do that with a topic.
    #[must_use]
    pub fn allows(&self, _access: Access, _topic: &str) -> bool {
        true
    }

    /// What becomes of a subscription to `filter`.
    #[must_use]
    pub fn subscribe(&self, _filter: &str) -> Grant {
        Grant::Unchecked
    }

    /// Whether the other client has the same answers for every topic.
    #[must_use]
    pub fn same_rules(&self, _other: &Rights) -> bool {
        true
    }
}
