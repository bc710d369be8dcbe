//! Filters that this broker does not grant a bridge: each is told once and shown, and all are asked for again
//! when other access rules are in force.

use super::{Bridge, Bridges, State};
use crate::engine::bridge::line::NotGranted;
use crate::shard::boot::Shards;
use crate::shard::inquiries::{Asked, Inquiry};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long a shard that is late may take to ask.
const ASKS_WITHIN: Duration = Duration::from_secs(3_600);

/// Those of one bridge.
#[derive(Debug, Default)]
pub(super) struct Refused {
    filters: BTreeSet<String>,
    /// By the attempt of this number.
    by: u64,
    /// Other rules are in force since.
    is_stale: bool,
}

impl Refused {
    /// All of them.
    pub fn filters(&self) -> Vec<String> {
        self.filters.iter().cloned().collect()
    }

    /// An attempt has asked for all: what it was not granted it has told.
    pub fn asked(&mut self, number: u64) {
        if self.by != number {
            self.filters.clear();
        }
    }
}

impl Bridge {
    pub(super) fn take_not_granted(&mut self, number: u64, told: Vec<NotGranted>) {
        let name = &self.config.name;
        let now: BTreeSet<_> = told.iter().map(|it| it.filter.clone()).collect();
        for filter in self.refused.filters.difference(&now) {
            info!("bridge {name}: this broker grants it {filter:?} now");
        }
        for it in &told {
            if self.refused.filters.contains(&it.filter) {
                continue;
            }
            let (user, filter, why) = (&self.plan.local_user, &it.filter, &it.why);
            match it.is_by_rules {
                true => warn!(
                    "bridge {name}: this broker does not grant it {filter:?}: {why}; let its user {user:?} \
                     (bridge.local_user) read it by acl_file: it asks again when other rules are in force"
                ),
                false => warn!("bridge {name}: this broker does not grant it {filter:?}: {why}"),
            }
        }
        (self.refused.filters, self.refused.by) = (now, number);
    }
}

impl Bridges {
    /// Other access rules are in force on all shards.
    pub fn take_rules(&mut self) {
        for bridge in &mut self.bridges {
            bridge.refused.is_stale = true;
        }
    }

    /// Has bridges ask again for what they were not granted by rules that are in force no more: by their
    /// lines, or by one that leads nowhere. Who is on his way has his turn when he is there.
    pub fn ask_again(&mut self, shards: &Shards) {
        for place in 0..self.bridges.len() {
            let Some(bridge) = self.bridges.get_mut(place) else {
                continue;
            };
            let is_up = match bridge.state {
                _ if !bridge.refused.is_stale => continue,
                State::Making | State::Dialling | State::Joining => continue,
                State::Up => true,
                State::Waiting | State::Paused | State::Idle => false,
            };
            bridge.refused.is_stale = false;
            if bridge.refused.filters.is_empty() {
                continue;
            }
            if is_up {
                bridge.ask_by_line(shards);
            } else if bridge.plan.is_persistent
                && let Err(error) = self.make_session(place, shards)
            {
                warn!("a bridge does not ask again for what it was not granted: {error}");
            }
        }
    }
}

impl Bridge {
    fn ask_by_line(&self, shards: &Shards) {
        let client_id = self.plan.session_id.clone();
        let inquiry = Inquiry {
            // Nobody waits for the answer.
            number: 0,
            by: Instant::now() + ASKS_WITHIN,
            asked: Arc::new(Asked::AskAgain { client_id }),
        };
        shards.inquire(&inquiry, Some(self.home));
    }
}
