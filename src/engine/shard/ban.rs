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

impl ShardCore {
    /// Who is banned from now on: asked of who comes; who is there is asked by [`ShardCore::is_banned`].
    pub fn set_banned(&mut self, banned: Arc<BannedNames>) {
        self.banned = banned;
    }

    /// Whether the client of a connection is banned by its names, as far as they are known.
    #[must_use]
    pub fn is_banned(&self, key: ConnectionKey) -> bool {
        let Some(connection) = self.clients.connections.get(key) else {
            return false;
        };
        let session = connection.session;
        let session = session.and_then(|session| self.clients.sessions.get(session));
        session.is_some_and(|session| {
            let holder = session.holder.as_deref();
            let user_name = holder.and_then(|holder| holder.user_name.as_deref());
            self.bans(connection, &session.client_id, user_name)
        })
    }

    /// The network that counts as the address of a connection.
    pub fn locate(&mut self, key: ConnectionKey, network: IpNet) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.network = Some(network);
        }
    }

    /// Whether a client that has proved who it is, or need not, is banned as it is seen.
    pub(super) fn is_banned_as_seen(&self, key: ConnectionKey, client_id: &str) -> bool {
        let connection = self.clients.connections.get(key);
        connection.is_some_and(|connection| {
            let admitted = connection.admitted.as_deref();
            let user_name = admitted.and_then(|admitted| admitted.identity.user_name.as_deref());
            self.bans(connection, client_id, user_name)
        })
    }

    fn bans(&self, connection: &Connection, client_id: &str, user_name: Option<&str>) -> bool {
        self.banned.contain(client_id, user_name)
            || self
                .banned
                .contain_seen(connection.network, user_name, client_id)
    }

    /// A connection is banned, by its address or its names: it is closed, or its CONNECT will be refused.
    pub fn ban(&mut self, now: Timestamp, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if connection.session.is_some() {
            self.clients.counters.connections_banned += 1;
            self.disconnect(key, Reason::AdministrativeAction, "banned", now);
        } else {
            connection.is_banned = true;
        }
    }
}
