//! Bans: who is there is told and closed, who comes is refused with its CONNECT, or unheard where its address
//! is banned.
//!
//! Invariant: a ban tells no right password from a wrong one.
//!
//! - By a name that a client says itself, in its CONNECT or an exchange, it is refused as banned before it is
//!   judged; if the ban comes meanwhile, whatever the methods say.
//! - By a name that only its proof gives it (the subject of a token, another name by a hook, the identifier
//!   of such a user) it is answered as for a wrong password, and counts as one ([`Answer::BannedUnseen`]);
//!   only the operator is told why.
//!
//! [`Answer::BannedUnseen`]: crate::engine::access::Answer::BannedUnseen
//!
//! Not here: the look at those who are there, which goes over turns (`crate::shard::driver::sweep`).

use super::ShardCore;
use super::authenticate::NOT_AUTHENTICATED;
use super::refusals::{AS_SEEN, BY_ADDRESS, BY_NAME};
use super::unheard::TurnedAway;
use crate::engine::access::bans::BannedNames;
use crate::engine::access::{Admitted, ClientIdRule, Identity, Refusal};
use crate::engine::codec::Reason;
use crate::engine::codec::connect::Connect;
use crate::engine::codec::frame::{Split, split};
use crate::engine::keys::ConnectionKey;
use crate::engine::session::connection::{Connection, ConnectsFrom};
use crate::engine::time::Timestamp;
use ipnet::IpNet;
use std::mem;
use std::sync::Arc;

impl ShardCore {
    /// Who is banned from now on: asked of who comes; who is there is asked by [`ShardCore::is_banned`].
    pub fn set_banned(&mut self, banned: Arc<BannedNames>) {
        self.banned = banned;
    }

    /// Whether the client of a connection is banned by its names, as far as they are known: by what it has
    /// said to be as well, as whoever comes.
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
        let said = connection.said_user.as_deref();
        self.bans(connection, &session.client_id, user_name)
            .or_else(|| said.and_then(|said| self.bans(connection, &session.client_id, Some(said))))
    }

    /// The network that counts as the address of a connection, once it is known.
    pub fn locate(&mut self, key: ConnectionKey, network: IpNet) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.network = Some(network);
            // One that was handed over has sent its CONNECT.
            let is_connecting = connection.session.is_none() && !connection.is_adopted;
            if is_connecting && !matches!(connection.connects_from, ConnectsFrom::Network(_)) {
                let before = mem::replace(
                    &mut connection.connects_from,
                    ConnectsFrom::Network(network),
                );
                self.admission
                    .count_named(before, network, connection.listener);
            }
        }
    }

    /// A connection comes by a proxy, which is to name its client: until then it counts with all of these.
    pub fn await_name(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.clients.connections.get_mut(key)
            && connection.connects_from == ConnectsFrom::Nobody
        {
            connection.connects_from = ConnectsFrom::Unnamed;
            self.admission.count_unnamed();
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
        self.bans_coming(connection, client_id, user_name)
    }

    /// Why a client at the gate is banned by the names that it claims, if it is; addresses are the shell's.
    pub(super) fn why_banned_at_gate(&mut self, key: ConnectionKey) -> Option<&'static str> {
        self.with_gated(key, |core, connect| {
            let connection = core.clients.connections.get(key)?;
            core.bans_claimed(connection, connect)
        })?
    }

    /// Why a connection is banned by what its client says to be, if it is.
    pub(super) fn bans_claimed(
        &self,
        connection: &Connection,
        connect: &Connect<'_>,
    ) -> Option<&'static str> {
        let gate = connection.gate.as_ref();
        let in_exchange = gate.and_then(|gate| gate.exchange_user.as_deref());
        let bans = |user_name: Option<&str>| {
            // Who asks for no identifier may get one by a rule.
            let rule = connect.client_id.is_empty();
            let rule = rule.then(|| self.settings.authentication.client_id.for_user(user_name));
            match rule.flatten() {
                Some(ClientIdRule::Exactly(id)) => self.bans_coming(connection, &id, user_name),
                _ => self.bans_coming(connection, connect.client_id, user_name),
            }
        };
        bans(connect.user_name).or_else(|| in_exchange.and_then(|name| bans(Some(name))))
    }

    /// Whether a client that is banned must not learn it, since it has given a right proof first: it is
    /// banned by a name that only its proof has given it, or was judged by a shard that did not know of it.
    pub(super) fn is_unseen(&self, key: ConnectionKey, connect: &Connect<'_>) -> bool {
        let connection = self.clients.connections.get(key);
        connection.is_some_and(|connection| {
            connection.admitted.is_some()
                && (connection.is_adopted || self.bans_claimed(connection, connect).is_none())
        })
    }

    /// Refuses a client at the gate that is banned by a name that it has not said.
    pub(super) fn turn_away_unseen(&mut self, key: ConnectionKey, identity: Identity) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.admitted = Some(Box::new(Admitted {
                identity,
                ..Admitted::default()
            }));
        }
        self.with_gated(key, |core, connect| core.hide_ban(key, connect, BY_NAME));
    }

    /// Refuses a banned client as for a wrong password, and notes why.
    pub(super) fn hide_ban(&mut self, key: ConnectionKey, connect: &Connect<'_>, why: &str) {
        self.clients.counters.connections_banned += 1;
        let reason = Refusal::BadCredentials.reason();
        self.note_refused(key, connect, reason, why);
        self.refuse(key, connect.version, reason, NOT_AUTHENTICATED);
    }

    /// Refuses a client at the gate that is banned.
    pub(super) fn turn_away_banned(&mut self, key: ConnectionKey, why: &str) {
        self.clients.counters.connections_banned += 1;
        self.with_gated(key, |core, connect| {
            core.turn_away(key, connect, Reason::Banned, why);
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

    /// Why a connection is banned by its names, or as it is seen, if it is.
    pub(super) fn bans(
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

    /// The same of a client that comes: on the shard that counts how often, before the ban is on all.
    fn bans_coming(
        &self,
        connection: &Connection,
        client_id: &str,
        user_name: Option<&str>,
    ) -> Option<&'static str> {
        self.bans(connection, client_id, user_name).or_else(|| {
            self.connects_too_often(connection, client_id, user_name)
                .then_some(AS_SEEN)
        })
    }

    /// A connection is banned, by its address or its names: it is closed, and told so if it has said who it
    /// is.
    pub fn ban(&mut self, now: Timestamp, key: ConnectionKey) {
        let text = self.why_banned(key).unwrap_or(BY_ADDRESS);
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if connection.session.is_some() {
            self.clients.counters.connections_banned += 1;
            self.disconnect(key, Reason::AdministrativeAction, text, now);
        } else if connection.gate.is_some() {
            let text = self.why_banned_at_gate(key).unwrap_or(BY_ADDRESS);
            self.turn_away_banned(key, text);
        } else {
            self.turn_away_unheard(key, TurnedAway::Banned);
        }
    }
}
