//! Connections that arrive: accepted here, or handed over by the shard that accepted them.
//!
//! One too many is accepted too, as far as there is room, so that its CONNECT can be refused with a reason.

use super::ShardCore;
use crate::engine::access::{Admitted, Arrival};
use crate::engine::bridge;
use crate::engine::keys::ConnectionKey;
use crate::engine::session::connection::{Connection, Surplus};
use crate::engine::time::Timestamp;
use crate::engine::timer::Owner;

/// Whether a connection is a bridge's, which goes out: what is for who comes in is not for it.
pub(super) fn is_line(connection: &Connection) -> bool {
    connection.listener == bridge::LISTENER
}

impl ShardCore {
    /// A listener accepted a connection. `None` if there are too many to even tell it so.
    pub fn accept(&mut self, now: Timestamp, listener: u16) -> Option<ConnectionKey> {
        let max = self.settings.limits.connections_max;
        let count = self.admission.counts.enter(listener);
        if count >= max + max / 8 + 16 {
            self.admission.counts.leave(listener);
            self.clients.counters.connections_refused_full += 1;
            return None;
        }
        self.clients.counters.connections_accepted += 1;
        let key = self.insert_connection(now, listener, false);
        let surplus = if count >= max {
            Some(Surplus::InAll)
        } else {
            self.is_listener_full(listener)
                .then_some(Surplus::OfListener)
        };
        let is_hasty = self.is_hasty(now, listener);
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.is_hasty = is_hasty;
            connection.surplus = surplus;
        }
        Some(key)
    }

    /// Why nobody is even told so.
    #[must_use]
    pub fn far_too_many(&self) -> String {
        let settings = &self.settings;
        let text = settings.too_many_connections(u16::MAX, Surplus::InAll);
        format!("{text}, and too many more to be told so")
    }

    /// Another shard handed over a connection whose client identifier lives here; what it sent so far
    /// is to be [`ShardCore::receive`]d next.
    pub fn adopt(&mut self, now: Timestamp, listener: u16, arrival: Arrival) -> ConnectionKey {
        let key = self.insert_connection(now, listener, true);
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.is_identified = true;
            connection.came_at = arrival.came_at.unwrap_or(now);
            connection.admitted = arrival.admitted;
        }
        key
    }

    /// A bridge's connection goes out from here; what its line says to the core is to be
    /// [`ShardCore::receive`]d.
    pub fn begin_line(&mut self, now: Timestamp, admitted: Box<Admitted>) -> ConnectionKey {
        self.admission.counts.enter(bridge::LISTENER);
        let arrival = Arrival {
            came_at: None,
            admitted: Some(admitted),
        };
        self.adopt(now, bridge::LISTENER, arrival)
    }

    /// Until when the certificate counts with which a connection came.
    pub fn set_certificate_end(&mut self, key: ConnectionKey, ends_at: Timestamp) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.certificate_ends_at = ends_at;
        }
    }

    fn insert_connection(
        &mut self,
        now: Timestamp,
        listener: u16,
        is_adopted: bool,
    ) -> ConnectionKey {
        let connect_by = now.plus_ms(self.settings.limits.connect_timeout_ms);
        let mut connection = Connection::new(now, connect_by, is_adopted);
        connection.listener = listener;
        connection.timer_at = connect_by;
        let key = self.clients.connections.insert(connection);
        self.timers
            .set(Timestamp::NEVER, connect_by, Owner::Connection(key));
        self.admission.take();
        key
    }

    fn is_listener_full(&self, listener: u16) -> bool {
        let policy = self.settings.listener(listener);
        policy.is_some_and(|policy| self.admission.counts.of(listener) > policy.connections_max)
    }
}
