//! What is done when its time has come.
//!
//! A timer that was set for an earlier deadline finds out that it is too early, and is set anew.
//!
//! Not here: what is due for sessions (`super::end`) and for clients that go too fast (`super::rate`).

use super::ShardCore;
use crate::engine::codec::Reason;
use crate::engine::keys::ConnectionKey;
use crate::engine::session::connection::Awaited;
use crate::engine::time::Timestamp;
use crate::engine::timer::Owner;

impl ShardCore {
    /// Time has passed. What is due beyond this turn's work stays due.
    pub fn tick(&mut self, now: Timestamp) {
        self.drop_aged(now);
        while !self.backlog.is_spent()
            && let Some((at, owner)) = self.timers.pop_due(now)
        {
            self.backlog.spend(1);
            match owner {
                Owner::Connection(key) => self.connection_due(key, at, now),
                Owner::Session(key) => self.session_due(key, at, now),
                Owner::Denials(key) => self.sum_up_denials(key),
            }
        }
        let expired = self.retained.expire(now, self.backlog.left());
        self.backlog.spend(expired);
        self.clients.counters.dropped_expired += expired as u64;
    }

    fn connection_due(&mut self, key: ConnectionKey, at: Timestamp, now: Timestamp) {
        self.rate_due(key, now);
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if connection.timer_at != at {
            return;
        }
        if connection.waits_for_memory
            || connection.hold.is_some()
            || connection.reads_at != Timestamp::NEVER
        {
            // Whom the broker does not read it does not take for silent.
            connection.heard_at = now;
        }
        let deadline = connection.deadline();
        if deadline > now {
            connection.timer_at = deadline;
            self.timers
                .set(Timestamp::NEVER, deadline, Owner::Connection(key));
        } else if connection.awaits_older() {
            // Its CONNECT came in time. It goes on, and this timer is spent.
            connection.timer_at = Timestamp::NEVER;
            self.let_in_unheard(now, key);
            self.arm_connection(key);
        } else if connection.session.is_none() {
            self.clients.counters.connect_timeouts += 1;
            self.note_late(key);
            self.drop_connection(key);
        } else if connection.identity_ends_at <= now {
            self.clients.counters.identities_ended += 1;
            let text = if connection.certificate_ends_at <= now {
                "its certificate has ended"
            } else {
                "its right to be connected has ended, as its token or its server said"
            };
            self.disconnect(key, Reason::NotAuthorized, text, now);
        } else {
            let seconds = connection.silence_ms_max / 1500;
            self.clients.counters.keep_alive_timeouts += 1;
            let what = "nothing heard for one and a half keep alive intervals";
            let text = format!("{what} of {seconds} s{}", self.imposed(seconds));
            self.disconnect(key, Reason::KeepAliveTimeout, &text, now);
        }
    }

    /// Why a connection was not let in in time: who is asked who it is, or the methods, may be late as well.
    fn note_late(&mut self, key: ConnectionKey) {
        let gate = self.clients.connections.get(key);
        let what = match gate.and_then(|connection| connection.gate.as_ref()) {
            None => "its CONNECT did not come",
            Some(gate) => match gate.awaited {
                Awaited::Answer => "the authentication methods have not judged it",
                Awaited::Client => "its next AUTH did not come",
                Awaited::Older => "its older connection could not be read to its end",
            },
        };
        let limit = self.settings.limits.connect_timeout_ms;
        let text = format!("{what} within limits.connect_timeout_ms ({limit} ms)");
        if !self.note_gate(key, Reason::Success, &text) {
            self.note_nameless(key, 0, &text);
        }
    }

    /// Whose keep alive that may be.
    fn imposed(&self, seconds: u64) -> &'static str {
        if seconds > 0 && seconds == u64::from(self.settings.keep_alive_seconds_max) {
            " (mqtt.keep_alive_seconds_max)"
        } else {
            ""
        }
    }

    /// Sets the timer of a connection for its deadline if that is earlier.
    pub(super) fn arm_connection(&mut self, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let deadline = connection.deadline();
        if deadline < connection.timer_at {
            let before = std::mem::replace(&mut connection.timer_at, deadline);
            self.timers.set(before, deadline, Owner::Connection(key));
        }
    }
}
