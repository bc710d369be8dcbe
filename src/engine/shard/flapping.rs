//! Clients that connect again and again, counted where they connect: all connects under one identifier come
//! to one shard, so that no more of them are let in than may be, however fast they come. Who is refused for
//! another reason is not counted.
//!
//! The same connects are counted again from the notes (`control::watch`), with the same result later: that
//! bans on all shards, and says so.

use super::ShardCore;
use super::arrive::is_line;
use crate::engine::access::bans::Seen;
use crate::engine::keys::ConnectionKey;
use crate::engine::session::connection::Connection;
use crate::engine::time::Timestamp;
use std::collections::BTreeMap;

/// Clients that are counted; with more the count begins anew.
const COUNTED_MAX: usize = 100_000;

/// Connects of a client that lead to a ban, within what time, and how long that lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlappingRule {
    /// So many; 0 for never.
    pub connects_max: u32,
    /// Within so long.
    pub window_ms: u64,
    /// No more for so long.
    pub ban_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    connects: u32,
    /// The end of the window, or of the ban once there were too many.
    until: Timestamp,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Flapping {
    counts: BTreeMap<Seen, Count>,
    /// The time when somebody came, or was judged, last.
    now: Timestamp,
}

impl Flapping {
    /// It is so late now: for who is asked about next.
    pub(super) fn look_at_clock(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Whether a client has connected as often as it may.
    fn is_over(&self, rule: FlappingRule, who: &Seen) -> bool {
        let count = self.counts.get(who);
        count.is_some_and(|count| count.until > self.now && count.connects >= rule.connects_max)
    }

    /// A client has connected once more.
    fn count(&mut self, rule: FlappingRule, who: Seen) {
        if self.counts.len() >= COUNTED_MAX {
            self.counts.clear();
        }
        let now = self.now;
        let begun = || Count {
            connects: 0,
            until: now.plus_ms(rule.window_ms),
        };
        let count = self.counts.entry(who).or_insert_with(begun);
        if count.until <= now {
            *count = begun();
        }
        count.connects += 1;
        if count.connects == rule.connects_max {
            count.until = now.plus_ms(rule.ban_ms);
        }
    }
}

impl ShardCore {
    /// How often a client may connect, if that is limited: a bridge's line goes out as often as it has to.
    fn flapping_rule(&self, connection: &Connection) -> Option<FlappingRule> {
        let rule = self.settings.flapping;
        (rule.connects_max > 0 && !is_line(connection)).then_some(rule)
    }

    /// Whether who comes from there, by these names, has connected as often as it may.
    pub(super) fn connects_too_often(
        &self,
        connection: &Connection,
        client_id: &str,
        user_name: Option<&str>,
    ) -> bool {
        self.flapping_rule(connection).is_some_and(|rule| {
            self.flapping
                .is_over(rule, &seen(connection, client_id, user_name))
        })
    }

    /// A client is let in, which is counted.
    pub(super) fn count_connect(&mut self, key: ConnectionKey, client_id: &str) {
        if let Some(connection) = self.clients.connections.get(key)
            && let Some(rule) = self.flapping_rule(connection)
        {
            let admitted = connection.admitted.as_deref();
            let user_name = admitted.and_then(|admitted| admitted.identity.user_name.as_deref());
            self.flapping
                .count(rule, seen(connection, client_id, user_name));
        }
    }
}

fn seen(connection: &Connection, client_id: &str, user_name: Option<&str>) -> Seen {
    Seen {
        network: connection.network,
        user_name: user_name.map(Into::into),
        client_id: client_id.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: FlappingRule = FlappingRule {
        connects_max: 3,
        window_ms: 1_000,
        ban_ms: 5_000,
    };

    fn who(client_id: &str) -> Seen {
        Seen {
            network: None,
            user_name: None,
            client_id: client_id.into(),
        }
    }

    #[test]
    fn so_many_are_let_in_and_no_more_until_the_ban_is_over() {
        let mut flapping = Flapping::default();
        let mut lets_in = |ms, id: &str| {
            flapping.look_at_clock(Timestamp::default().plus_ms(ms));
            let is_over = flapping.is_over(RULE, &who(id));
            if !is_over {
                flapping.count(RULE, who(id));
            }
            !is_over
        };
        assert!([0, 1, 2].into_iter().all(|ms| lets_in(ms, "c")));
        assert!(!lets_in(3, "c") && !lets_in(5_001, "c"));
        assert!(lets_in(3, "another"));
        assert!([5_002, 5_003, 5_004].into_iter().all(|ms| lets_in(ms, "c")));
        assert!(!lets_in(5_005, "c"));
        // Those of before the window do not count.
        assert!(
            [0, 1, 1_000, 1_001]
                .into_iter()
                .all(|ms| lets_in(ms, "slow"))
        );
        for n in 0..2 * COUNTED_MAX {
            flapping.count(RULE, who(&n.to_string()));
        }
        assert!(flapping.counts.len() <= COUNTED_MAX);
    }
}
