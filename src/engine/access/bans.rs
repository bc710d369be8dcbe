//! Whom shards do not serve, by name. Addresses are the shell's.

use std::collections::BTreeSet;

/// Client identifiers and users that are banned now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BannedNames {
    /// Client identifiers.
    pub client_ids: BTreeSet<Box<str>>,
    /// User names.
    pub user_names: BTreeSet<Box<str>>,
}

impl BannedNames {
    /// Whether a client is among them.
    #[must_use]
    pub fn contain(&self, client_id: &str, user_name: Option<&str>) -> bool {
        self.client_ids.contains(client_id)
            || user_name.is_some_and(|name| self.user_names.contains(name))
    }
}
