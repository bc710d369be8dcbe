//! Bans that change, and a limit of connections by address that was none: who is there is looked at again,
//! some of them in each turn.
//!
//! Who comes is asked by the new ones at once, so only those have to be looked at that were there before,
//! and a few turns more or less are no matter. The shard does not sleep until all have been looked at.

use super::Shell;
use crate::engine::access::bans::BannedNames;
use crate::engine::turn::Rest;
use crate::shard::bans::BannedNetworks;
use crate::shard::ring::Ring;
use std::sync::Arc;

/// Places of sockets that are looked at in a turn.
const LOOKS_MAX: usize = 4_096;
/// To close a connection takes as long as so many looks.
const LOOKS_PER_CLOSE: usize = 128;

/// How far the look at all sockets has got: round and round their places, whose number only grows.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next: usize,
    left: usize,
    places: usize,
}

impl Sweep {
    /// All these places have to be looked at. It goes on where it is, so that bans that change often leave
    /// nobody out for long.
    pub fn begin(&mut self, places: usize) {
        (self.left, self.places) = (places, places);
    }

    /// The next place; there may be more of them by now.
    fn next(&mut self, places: usize) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left += places.saturating_sub(self.places);
        self.left -= 1;
        self.places = places;
        let place = self.next.checked_rem(places)?;
        self.next = place + 1;
        Some(place)
    }

    /// What a shard does after a turn that would otherwise end like this.
    pub fn rest(&self, otherwise: Rest) -> Rest {
        otherwise.unless(self.left > 0)
    }
}

impl Shell {
    /// Who is not served from now on; those that are there are closed.
    pub(super) fn set_bans(&mut self, names: Arc<BannedNames>, networks: Arc<BannedNetworks>) {
        self.admission.ban(networks);
        self.sweep.begin(self.sockets.places());
        self.core.set_banned(names);
    }

    /// Looks at some of those that have to be looked at.
    pub(super) fn sweep(&mut self, ring: &mut Ring) {
        let now = self.clock.now();
        let mut looks = LOOKS_MAX;
        while looks > 0
            && let Some(place) = self.sweep.next(self.sockets.places())
        {
            looks -= 1;
            if let Some(origin) = self.sockets.origin_at(place) {
                self.admission.count_in(origin);
            }
            if let Some((connection, ip)) = self.sockets.open_at(place)
                && (ip.is_some_and(|ip| self.admission.is_banned(ip))
                    || self.core.is_banned(connection))
            {
                self.core.ban(now, connection);
                looks = looks.saturating_sub(LOOKS_PER_CLOSE);
            }
        }
        if looks < LOOKS_MAX {
            self.carry_out(ring);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::Timestamp;

    #[test]
    fn every_place_is_looked_at_however_often_it_begins_anew() {
        let mut sweep = Sweep::default();
        let asleep = Rest::Sleep(Timestamp::NEVER);
        assert_eq!((sweep.next(3), sweep.rest(asleep)), (None, asleep));
        sweep.begin(3);
        assert_eq!((sweep.next(3), sweep.next(3)), (Some(0), Some(1)));
        assert_eq!(sweep.rest(asleep), Rest::GoOn);
        sweep.begin(3);
        let seen: Vec<_> = std::iter::from_fn(|| sweep.next(3)).collect();
        assert_eq!(seen, [2, 0, 1]);
        assert_eq!(sweep.rest(asleep), asleep);
        // Meanwhile there are more places, which stand between it and the first ones.
        sweep.begin(3);
        assert_eq!(sweep.next(3), Some(2));
        let seen: Vec<_> = std::iter::from_fn(|| sweep.next(5)).collect();
        assert_eq!(seen, [3, 4, 0, 1]);
        sweep.begin(0);
        assert_eq!(sweep.next(0), None);
    }
}
