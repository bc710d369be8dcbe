//! Whose a session is.

use crate::engine::access::acl::{Acl, Rights};
use crate::engine::access::{ACL_FILE, own_rules_key};
use crate::engine::time::Timestamp;
use std::sync::Arc;

/// Who a session belongs to, as of its last connection, and what that allows.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    /// Its user.
    pub user_name: Option<Box<str>>,
    /// Rules that its identity brought along, in place of the access file's.
    pub own_acl: Option<Arc<Acl>>,
    /// The method that found out who it is; empty if none has.
    pub method: &'static str,
    /// What it may do; everything if there are no rules.
    pub rights: Option<Rights>,
    /// When a denial was last noted.
    pub denied_at: Option<Timestamp>,
    /// Denials since.
    pub denials_left_out: u32,
}

impl Holder {
    /// The key of the rules by which it may do what it may.
    #[must_use]
    pub fn rules_key(&self) -> &'static str {
        match &self.own_acl {
            Some(_) => own_rules_key(self.method),
            None => ACL_FILE,
        }
    }
}
