//! Bans: who is there is told and closed, who comes is refused with its CONNECT.
//!
//! Not here: the look at those who are there, which goes over turns (`crate::shard::driver::sweep`).

use super::ShardCore;
use crate::engine::access::bans::BannedNames;
use crate::engine::codec::Reason;
use crate::engine::keys::ConnectionKey;
use crate::engine::session::connection::Connection;
use crate::engine::time::Timestamp;
use ipnet::IpNet;
use std::sync::Arc;

/// Why a client is banned: by what it is called, ...
pub(super) const BY_NAME: &str = "its client identifier or user is banned (bans.file)";
/// ... by what it did, ...
pub(super) const AS_SEEN: &str = "it connected too often and is banned for bans.seconds \
                                  (bans.flapping_connects_max)";
/// ... or by where it is.
pub(super) const BY_ADDRESS: &str = "its address is banned (bans.file, or for bans.seconds by \
                                     bans.failed_logins_max)";

impl ShardCore {
    /// Who is banned from now on: asked of who comes; who is there is asked by [`ShardCore::is_banned`].
    pub fn set_banned(&mut self, banned: Arc<BannedNames>) {
        self.banned = banned;
    }

    /// Whether the client of a connection is banned by its names, as far as they are known.
    #[must_use]
    pub fn is_banned(&self, key: ConnectionKey) -> bool {
        self.why_banned(key).is_some()
    }

    /// Why it is, if it is.
    fn why_banned(&self, key: ConnectionKey) -> Option<&'static str> {
        let connection = self.clients.connections.get(key)?;
        let session = self.clients.sessions.get(connection.session?)?;
        let holder = session.holder.as_deref();
        let user_name = holder.and_then(|holder| holder.user_name.as_deref());
        self.bans(connection, &session.client_id, user_name)
    }

    /// The network that counts as the address of a connection.
    pub fn locate(&mut self, key: ConnectionKey, network: IpNet) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.network = Some(network);
        }
    }

    /// Why a client that has proved who it is, or need not, is banned as it is seen, if it is.
    pub(super) fn why_banned_as_seen(
        &self,
        key: ConnectionKey,
        client_id: &str,
    ) -> Option<&'static str> {
        let connection = self.clients.connections.get(key)?;
        let admitted = connection.admitted.as_deref();
        let user_name = admitted.and_then(|admitted| admitted.identity.user_name.as_deref());
        self.bans(connection, client_id, user_name)
    }

    fn bans(
        &self,
        connection: &Connection,
        client_id: &str,
        user_name: Option<&str>,
    ) -> Option<&'static str> {
        let banned = &self.banned;
        if banned.contain(client_id, user_name) {
            return Some(BY_NAME);
        }
        banned
            .contain_seen(connection.network, user_name, client_id)
            .then_some(AS_SEEN)
    }

    /// A connection is banned, by its address or its names: it is closed, or its CONNECT will be refused.
    pub fn ban(&mut self, now: Timestamp, key: ConnectionKey) {
        let text = self.why_banned(key).unwrap_or(BY_ADDRESS);
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if connection.session.is_some() {
            self.clients.counters.connections_banned += 1;
            self.disconnect(key, Reason::AdministrativeAction, text, now);
        } else {
            connection.is_banned = true;
        }
    }
}
