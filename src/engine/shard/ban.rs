//! Bans: who is there is told and closed, who comes is refused with its CONNECT.

use super::ShardCore;
use crate::engine::access::bans::BannedNames;
use crate::engine::codec::Reason;
use crate::engine::keys::ConnectionKey;
use crate::engine::time::Timestamp;
use std::sync::Arc;

impl ShardCore {
    /// Who is banned from now on; those that are there are told and closed.
    pub fn set_banned(&mut self, now: Timestamp, banned: Arc<BannedNames>) {
        self.banned = banned;
        let sessions: Vec<_> = self.clients.sessions.keys().collect();
        for key in sessions {
            let Some(session) = self.clients.sessions.get(key) else {
                continue;
            };
            let user_name = session
                .holder
                .as_ref()
                .and_then(|holder| holder.user_name.as_deref());
            if let Some(connection) = session.connection
                && self.banned.contain(&session.client_id, user_name)
            {
                self.ban(now, connection);
            }
        }
    }

    /// The address of a connection is banned: it is closed, or its CONNECT will be refused.
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
