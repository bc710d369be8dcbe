//! The members of a share group on one shard, and who of them is next.
//!
//! Picking looks at a few members however many there are: one for most messages, more only where members may
//! not read the topic. Only if none of [`TRIES_MAX`] may, all are looked at.
//!
//! Invariants: the first `online` members are those whose clients were connected when the group was last
//! told. A rank is in `ranks` for each member, with what it had in flight when it was last looked at.

use super::subscriber::Subscriber;
use crate::engine::keys::SessionKey;
use crate::engine::listed::{Keyed, Listed};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Most members to look at before all are.
const TRIES_MAX: usize = 16;
/// Members whose load is looked at again with every pick: what is acknowledged is not told here.
const REVIEWS: usize = 8;

/// Who is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The one after the last.
    Next,
    /// The same one as long as it is there.
    Same,
    /// By a hash.
    Hash(u64),
    /// The one with the least in flight, as far as known.
    Least,
}

/// How busy a member is.
#[derive(Clone, Copy, Debug)]
pub struct MemberLoad {
    /// Whether its client is connected.
    pub online: bool,
    /// Unacknowledged and queued messages.
    pub inflight: usize,
}

/// Who was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// `None` if there is nobody who may get it.
    pub member: Option<Subscriber>,
    /// Members looked at.
    pub steps: usize,
}

#[derive(Debug)]
struct Member {
    subscriber: Subscriber,
    /// In flight when last looked at.
    load: u32,
}

impl Keyed for Member {
    type Key = SessionKey;

    fn key(&self) -> &SessionKey {
        &self.subscriber.session
    }
}

/// Connected before absent, then by load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_away: bool,
    load: u32,
    session: SessionKey,
}

/// The members.
#[derive(Debug, Default)]
pub struct Members {
    list: Listed<Member>,
    online: usize,
    /// Where the last one stood.
    turn: usize,
    /// Once somebody asked for the least.
    ranks: Option<BTreeSet<Rank>>,
}

impl Members {
    /// All, connected or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Connected ones.
    #[must_use]
    pub const fn online(&self) -> usize {
        self.online
    }

    /// The sessions, connected or not.
    pub fn sessions(&self) -> impl Iterator<Item = SessionKey> {
        self.list.iter().map(|member| member.subscriber.session)
    }

    /// The subscription of a session.
    #[must_use]
    pub fn find(&self, session: SessionKey) -> Option<&Subscriber> {
        let member = self.list.find(&session)?;
        Some(&member.subscriber)
    }

    /// The subscription of a session, to change anything but whose it is.
    pub fn find_mut(&mut self, session: SessionKey) -> Option<&mut Subscriber> {
        let member = self.list.find_mut(&session)?;
        Some(&mut member.subscriber)
    }

    /// A session joins, or changes its subscription.
    pub fn join(&mut self, subscriber: Subscriber, is_online: bool) {
        let session = subscriber.session;
        if let Some(known) = self.find_mut(session) {
            *known = subscriber;
        } else {
            self.list.put(Member {
                subscriber,
                load: 0,
            });
            let rank = self.rank(self.list.len() - 1);
            self.rerank(None, rank);
        }
        self.set_online(session, is_online);
    }

    /// A session leaves.
    pub fn leave(&mut self, session: SessionKey) {
        self.set_online(session, false);
        let place = self.list.place(&session);
        let rank = place.and_then(|place| self.rank(place));
        self.rerank(rank, None);
        self.list.remove(&session);
    }

    /// A session's client connected or disconnected.
    pub fn set_online(&mut self, session: SessionKey, is_online: bool) {
        let Some(place) = self.list.place(&session) else {
            return;
        };
        if (place < self.online) == is_online {
            return;
        }
        let before = self.rank(place);
        let border = if is_online {
            self.online += 1;
            self.online - 1
        } else {
            self.online -= 1;
            self.online
        };
        self.list.swap(place, border);
        let rank = self.rank(border);
        self.rerank(before, rank);
    }

    /// Picks one. `load` tells for a subscriber whether it is connected and how much it has in flight, `None`
    /// if it must not get the message.
    pub fn pick(&mut self, way: Way, load: impl Fn(&Subscriber) -> Option<MemberLoad>) -> Picked {
        let mut steps = 0;
        let place = if way == Way::Least {
            self.least(&load, &mut steps)
        } else {
            self.in_turn(way, &load, &mut steps)
        };
        if way == Way::Next
            && let Some(place) = place
        {
            self.turn = place;
        }
        let member = place.and_then(|place| self.list.get(place));
        Picked {
            member: member.map(|member| member.subscriber),
            steps,
        }
    }

    fn in_turn(
        &self,
        way: Way,
        load: &impl Fn(&Subscriber) -> Option<MemberLoad>,
        steps: &mut usize,
    ) -> Option<usize> {
        let all = self.list.len();
        let able = if self.online > 0 { self.online } else { all };
        if able == 0 {
            return None;
        }
        let mut fits = |place: usize, wants_online: bool| {
            *steps += 1;
            let load = self.list.get(place).and_then(|m| load(&m.subscriber));
            load.is_some_and(|load| load.online || !wants_online)
        };
        let wants_online = self.online > 0;
        let first = |count: usize| match way {
            Way::Next => (self.turn + 1) % count,
            Way::Same | Way::Least => 0,
            Way::Hash(hash) => hash as usize % count,
        };
        for number in 0..TRIES_MAX.min(able) {
            let place = match way {
                // Neighbours of those that may not read must not get their share.
                Way::Hash(hash) if number > 0 => spread(hash, number as u64) as usize % able,
                _ => (first(able) + number) % able,
            };
            if fits(place, wants_online) {
                return Some(place);
            }
        }
        let mut scan = |count: usize, wants_online: bool| {
            let places = (0..count).map(|number| (first(count) + number) % count);
            places.into_iter().find(|&place| fits(place, wants_online))
        };
        scan(able, wants_online).or_else(|| scan(all, false))
    }

    fn least(
        &mut self,
        load: &impl Fn(&Subscriber) -> Option<MemberLoad>,
        steps: &mut usize,
    ) -> Option<usize> {
        self.make_ranks();
        self.review(load, steps);
        let mut best: Option<(Rank, usize)> = None;
        let mut after = Bound::Unbounded;
        for _ in 0..TRIES_MAX {
            let ranks = self.ranks.as_ref()?;
            let Some(&rank) = ranks.range((after, Bound::Unbounded)).next() else {
                break;
            };
            *steps += 1;
            let place = self.list.place(&rank.session)?;
            let now = self.load_at(place, load);
            match now.filter(|now| now.online != rank.is_away) {
                None => after = Bound::Excluded(rank),
                Some(now) if now.inflight <= rank.load as usize => return Some(place),
                Some(now) => {
                    let rank = self.note_load(place, now)?;
                    if best.is_none_or(|(best, _)| rank < best) {
                        best = Some((rank, place));
                    }
                }
            }
        }
        if let Some((_, place)) = best {
            return Some(place);
        }
        *steps += self.list.len();
        let loads = (0..self.list.len()).filter_map(|place| {
            let load = self.load_at(place, load)?;
            Some((!load.online, load.inflight, place))
        });
        loads.min().map(|(.., place)| place)
    }

    fn load_at(
        &self,
        place: usize,
        load: &impl Fn(&Subscriber) -> Option<MemberLoad>,
    ) -> Option<MemberLoad> {
        load(&self.list.get(place)?.subscriber)
    }

    /// Looks at some members again.
    fn review(&mut self, load: &impl Fn(&Subscriber) -> Option<MemberLoad>, steps: &mut usize) {
        let able = match self.online {
            0 => self.list.len(),
            online => online,
        };
        for _ in 0..REVIEWS.min(able) {
            *steps += 1;
            self.turn = (self.turn + 1) % able;
            if let Some(now) = self.load_at(self.turn, load) {
                self.note_load(self.turn, now);
            }
        }
    }

    fn rank(&self, place: usize) -> Option<Rank> {
        let member = self.list.get(place)?;
        Some(Rank {
            is_away: place >= self.online,
            load: member.load,
            session: member.subscriber.session,
        })
    }

    fn rerank(&mut self, before: Option<Rank>, now: Option<Rank>) {
        if let Some(ranks) = &mut self.ranks {
            if let Some(before) = before {
                ranks.remove(&before);
            }
            ranks.extend(now);
        }
    }

    fn make_ranks(&mut self) {
        if self.ranks.is_none() {
            let ranks = (0..self.list.len()).filter_map(|place| self.rank(place));
            self.ranks = Some(ranks.collect());
        }
    }

    fn note_load(&mut self, place: usize, now: MemberLoad) -> Option<Rank> {
        let before = self.rank(place);
        let load = u32::try_from(now.inflight).unwrap_or(u32::MAX);
        self.list.at_mut(place)?.load = load;
        let rank = self.rank(place);
        if rank != before {
            self.rerank(before, rank);
        }
        rank
    }
}

/// Another hash for each `number`.
const fn spread(hash: u64, number: u64) -> u64 {
    let mixed =
        (hash ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests;
