//! Whom shards do not serve, by name. Addresses are the shell's.

use ipnet::IpNet;
use std::collections::BTreeSet;

/// A client as it was seen: from where, as which user, under which identifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// The network that counts as its address; `None` by a socket in the file system.
    pub network: Option<IpNet>,
    /// The user that it proved to be; `None` for an anonymous client.
    pub user_name: Option<Box<str>>,
    /// Its client identifier.
    pub client_id: Box<str>,
}

/// Client identifiers and users that are banned now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BannedNames {
    /// Client identifiers.
    pub client_ids: BTreeSet<Box<str>>,
    /// User names.
    pub user_names: BTreeSet<Box<str>>,
    /// Clients as they were seen: nobody else with one of their identifiers.
    pub seen: BTreeSet<Seen>,
}

impl BannedNames {
    /// Whether a client is among them.
    #[must_use]
    pub fn contain(&self, client_id: &str, user_name: Option<&str>) -> bool {
        self.client_ids.contains(client_id)
            || user_name.is_some_and(|name| self.user_names.contains(name))
    }

    /// Whether a client is, as it is seen.
    #[must_use]
    pub fn contain_seen(
        &self,
        network: Option<IpNet>,
        user_name: Option<&str>,
        client_id: &str,
    ) -> bool {
        // Mostly there is none, and nothing has to be put together.
        !self.seen.is_empty()
            && self.seen.contains(&Seen {
                network,
                user_name: user_name.map(Into::into),
                client_id: client_id.into(),
            })
    }
}
