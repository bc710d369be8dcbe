//! Clients that go faster than they may: they are not read until they have waited off their debt, or are
//! disconnected, as configured.

use super::ShardCore;
use crate::engine::codec::Reason;
use crate::engine::keys::ConnectionKey;
use crate::engine::limits::RateExceeded;
use crate::engine::session::rates::Rate;
use crate::engine::time::Timestamp;

impl ShardCore {
    /// A publish came. Whether the connection is still there.
    pub(super) fn charge_publish(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        bytes: usize,
    ) -> bool {
        let connection = self.clients.connections.get_mut(key);
        let rates = connection.and_then(|connection| {
            connection.received_messages += 1;
            connection.rates.as_mut()
        });
        let wait = rates.and_then(|rates| rates.published(bytes as u64, now));
        match wait {
            Some((until, rate)) => self.slow_down(now, key, until, rate),
            None => true,
        }
    }

    /// Filters were subscribed to or given up. Whether the connection is still there.
    pub(super) fn charge_subscribe(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        filters: usize,
    ) -> bool {
        let rates = self
            .clients
            .connections
            .get_mut(key)
            .and_then(|c| c.rates.as_mut());
        let wait = rates.and_then(|rates| rates.subscribed(filters as u64, now));
        match wait {
            Some((until, rate)) => self.slow_down(now, key, until, rate),
            None => true,
        }
    }

    fn slow_down(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        until: Timestamp,
        rate: Rate,
    ) -> bool {
        self.clients.counters.rates_exceeded += 1;
        if self.settings.limits.rate_exceeded == RateExceeded::Disconnect {
            let listener = self.clients.connections.get(key).map_or(0, |c| c.listener);
            let text = self.settings.too_fast(listener, rate);
            self.violation(key, Reason::QuotaExceeded, &text, now);
            return false;
        }
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.reads_at = until;
            self.pause(key);
            self.arm_connection(key);
        }
        true
    }

    /// A connection whose debt is waited off is read again, and gets what waited for it.
    pub(super) fn rate_due(&mut self, key: ConnectionKey, now: Timestamp) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if connection.reads_at != Timestamp::NEVER && connection.reads_at <= now {
            connection.reads_at = Timestamp::NEVER;
            connection.heard_at = now;
            self.resume_if_room(key);
        }
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let is_due = connection
            .rates
            .as_ref()
            .is_some_and(|rates| rates.delivers_at <= now);
        if is_due
            && std::mem::take(&mut connection.is_throttled)
            && let Some(session) = connection.session
        {
            self.clients.pump(session, now);
            self.arm_throttled();
        }
    }

    /// Sets the timers of connections that have to wait for deliveries.
    pub(super) fn arm_throttled(&mut self) {
        while let Some(key) = self.clients.throttled.pop() {
            self.arm_connection(key);
        }
    }
}
