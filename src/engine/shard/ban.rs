//! Bans: who is there is told and closed, who comes is refused with its CONNECT, or unheard where its address
//! is banned.
//!
//! Invariant: who is banned while it is being found out who it is gets the same answer whatever the methods
//! say, or a ban would tell right passwords from wrong ones.
//!
//! Not here: the look at those who are there, which goes over turns (`crate::shard::driver::sweep`).

use super::ShardCore;
use super::unheard::{BANNED, TurnedAway};
use crate::engine::access::bans::BannedNames;
use crate::engine::codec::Reason;
use crate::engine::codec::connect::Connect;
use crate::engine::codec::frame::{Split, split};
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

    /// The network that counts as the address of a connection, once it is known.
    pub fn locate(&mut self, key: ConnectionKey, network: IpNet) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.network = Some(network);
            // One that was handed over has sent its CONNECT.
            let is_connecting = connection.session.is_none() && !connection.is_adopted;
            if is_connecting && connection.connects_from.is_none() {
                connection.connects_from = Some(network);
                self.admission.count_from(network);
            }
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

    /// Whether a client at the gate is banned by the names that it claims; addresses are the shell's.
    pub(super) fn is_banned_at_gate(&mut self, key: ConnectionKey) -> bool {
        let is_banned = self.with_gated(key, |core, connect| {
            let connection = core.clients.connections.get(key);
            connection.is_some_and(|connection| {
                core.bans(connection, connect.client_id, connect.user_name)
            })
        });
        is_banned.unwrap_or(false)
    }

    /// Refuses a client at the gate that is banned.
    pub(super) fn turn_away_banned(&mut self, key: ConnectionKey) {
        self.clients.counters.connections_banned += 1;
        self.with_gated(key, |core, connect| {
            core.turn_away(key, connect, Reason::Banned, BANNED);
        });
    }

    /// Does something with the CONNECT that waits at the gate, if one does.
    pub(super) fn with_gated<T>(
        &mut self,
        key: ConnectionKey,
        does: impl FnOnce(&mut Self, &Connect<'_>) -> T,
    ) -> Option<T> {
        let gate = self.clients.connections.get(key)?.gate.as_ref()?;
        let packet = gate.packet.clone();
        let Ok(Split::Whole(frame, _)) = split(&packet, packet.len()) else {
            return None;
        };
        let connect = Connect::decode(frame.body).ok()?;
        Some(does(self, &connect))
    }

    pub(super) fn bans(
        &self,
        connection: &Connection,
        client_id: &str,
        user_name: Option<&str>,
    ) -> bool {
        self.banned.contain(client_id, user_name)
            || self
                .banned
                .contain_seen(connection.network, user_name, client_id)
    }

    /// A connection is banned, by its address or its names: it is closed, and told so if it has said who it
    /// is.
    pub fn ban(&mut self, now: Timestamp, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if connection.session.is_some() {
            self.clients.counters.connections_banned += 1;
            self.disconnect(key, Reason::AdministrativeAction, "banned", now);
        } else if connection.gate.is_some() {
            self.turn_away_banned(key);
        } else {
            self.turn_away_unheard(key, TurnedAway::Banned);
        }
    }
}
