//! Clients that connect again and again, counted where they connect: all connects under one identifier come
//! to one shard, so that no more of them are let in than may be, however fast they come.
//!
//! The same connects are counted again from the notes (`control::watch`), with the same result later: that
//! bans on all shards, and says so.

use super::ShardCore;
use crate::engine::access::bans::Seen;
use crate::engine::keys::ConnectionKey;
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
pub(super) struct Flapping(BTreeMap<Seen, Count>);

impl Flapping {
    /// Whether one more connect of a client is let in; it is counted then.
    fn lets_in(&mut self, rule: FlappingRule, now: Timestamp, who: Seen) -> bool {
        if rule.connects_max == 0 {
            return true;
        }
        if self.0.len() >= COUNTED_MAX {
            self.0.clear();
        }
        let begun = || Count {
            connects: 0,
            until: now.plus_ms(rule.window_ms),
        };
        let count = self.0.entry(who).or_insert_with(begun);
        if count.until <= now {
            *count = begun();
        }
        if count.connects >= rule.connects_max {
            return false;
        }
        count.connects += 1;
        if count.connects == rule.connects_max {
            count.until = now.plus_ms(rule.ban_ms);
        }
        true
    }
}

impl ShardCore {
    /// Whether a client may connect once more, by how often it has; it is counted then.
    pub(super) fn may_connect_again(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        client_id: &str,
    ) -> bool {
        let rule = self.settings.flapping;
        let Some(connection) = self
            .clients
            .connections
            .get(key)
            .filter(|_| rule.connects_max > 0)
        else {
            return true;
        };
        let identity = connection
            .admitted
            .as_deref()
            .map(|admitted| &admitted.identity);
        let who = Seen {
            network: connection.network,
            user_name: identity.and_then(|identity| identity.user_name.clone()),
            client_id: client_id.into(),
        };
        self.flapping.lets_in(rule, now, who)
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
        let begun = Timestamp::default();
        let mut lets_in = |ms, id| flapping.lets_in(RULE, begun.plus_ms(ms), who(id));
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
        let never = FlappingRule::default();
        assert!((0..10).all(|_| flapping.lets_in(never, begun, who("c"))));
        for n in 0..2 * COUNTED_MAX {
            flapping.lets_in(RULE, begun, who(&n.to_string()));
        }
        assert!(flapping.0.len() <= COUNTED_MAX);
    }
}
