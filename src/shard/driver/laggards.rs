//! Clients that are slow: all that are connected are looked through, some in each turn, after a question for
//! statistics; the next answer has what was found.
//!
//! Nothing is noted where messages are delivered but when they began to wait, so that it costs a walk over
//! the sessions for each question, and nothing where nobody asks.

use super::Shell;
use super::inquire::{messages_waiting, waiting_bytes};
use crate::engine::turn::Rest;
use crate::shard::inquiries::Best;
use crate::shard::report::{SLOW_MAX, Slow};

/// Sessions that a turn looks at.
const SESSIONS_MAX: usize = 128;
/// Whose oldest message has waited for less is not slow.
const WAITS_MS_MIN: u64 = 100;

/// How far the walk has got, and what the last one has found.
#[derive(Default)]
pub(super) struct Laggards {
    walk: Option<Walk>,
    found: Vec<Slow>,
}

struct Walk {
    place: usize,
    best: Best<Slow>,
}

impl Laggards {
    /// What was found last; they are looked through anew.
    pub fn tell(&mut self) -> Vec<Slow> {
        self.walk.get_or_insert_with(|| Walk {
            place: 0,
            best: Best::new(None, SLOW_MAX),
        });
        self.found.clone()
    }

    /// A shard does not sleep before it is through.
    pub fn rest(&self, rest: Rest) -> Rest {
        rest.unless(self.walk.is_some())
    }
}

impl Shell {
    /// Goes on looking for slow clients, as far as a turn goes.
    pub(super) fn look_for_laggards(&mut self) {
        let Some(Walk { place, mut best }) = self.laggards.walk.take() else {
            return;
        };
        let now = self.clock.now();
        for place in place..place + SESSIONS_MAX {
            let key = self.core.session_at(place);
            let Some(sight) = key.and_then(|key| self.core.see(key)) else {
                continue;
            };
            let waits_ms = self.core.waits_ms(&sight, now);
            if waits_ms >= WAITS_MS_MIN && sight.connection.is_some() {
                best.offer(waits_ms, &sight.session.client_id, || Slow {
                    client_id: sight.session.client_id.to_string(),
                    waits_ms,
                    messages: messages_waiting(&sight),
                    bytes: waiting_bytes(&sight),
                    dropped_messages: sight.session.lost_messages,
                });
            }
        }
        let place = place + SESSIONS_MAX;
        if place < self.core.session_places() {
            self.laggards.walk = Some(Walk { place, best });
        } else {
            self.laggards.found = best.take().into_iter().map(|(_, slow)| slow).collect();
        }
    }
}
