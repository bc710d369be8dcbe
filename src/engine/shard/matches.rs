//! Who gets a publish: each session once, however many of its subscriptions match.
//!
//! Joining another subscription costs the same however many are joined already: further identifiers wait in
//! one chain per session, and become a list once, when all are known.

use crate::engine::keys::{GroupKey, SessionKey};
use crate::engine::message::Qos;
use crate::engine::route::subscriber::Subscriber;
use crate::engine::session::{Session, SubscriptionIds};
use std::rc::Rc;

/// A session that gets the publish, and how.
#[derive(Clone, Debug)]
pub(super) struct Match {
    pub session: SessionKey,
    /// Highest QoS granted.
    pub qos: Qos,
    pub retain_as_published: bool,
    pub subscription_ids: SubscriptionIds,
    /// Whether it is to be checked what its session may read.
    pub checked: bool,
    /// It leaves out what it published itself.
    pub no_local: bool,
    /// It waits behind retained messages.
    pub replaying: bool,
    /// Subscriptions that matched.
    pub joined: u32,
    pub group: Option<Rc<GroupKey>>,
}

impl Match {
    pub(super) const fn of(subscriber: &Subscriber) -> Self {
        Match {
            session: subscriber.session,
            qos: subscriber.qos,
            retain_as_published: subscriber.retain_as_published,
            subscription_ids: SubscriptionIds::one(subscriber.subscription_id),
            checked: subscriber.checked,
            no_local: subscriber.no_local,
            replaying: subscriber.replaying,
            joined: 1,
            group: None,
        }
    }

    /// Joins another subscription of the same session: one copy, at the best QoS `[MQTT-3.3.4-2]`. Returns
    /// the identifier that is still to be named, 0 for none.
    fn join(&mut self, other: &Subscriber) -> u32 {
        self.qos = self.qos.max(other.qos);
        self.retain_as_published |= other.retain_as_published;
        self.checked &= other.checked;
        self.replaying |= other.replaying;
        self.joined += 1;
        if self.subscription_ids == SubscriptionIds::None {
            self.subscription_ids = SubscriptionIds::one(other.subscription_id);
            return 0;
        }
        other.subscription_id
    }
}

/// No identifier comes before this one.
const NONE: u32 = u32::MAX;

/// An identifier beyond a session's first.
struct FurtherId {
    id: u32,
    /// Where the one before it stands.
    before: u32,
}

/// The identifiers of one session that has several.
struct Chain {
    /// Place of its match.
    matched: u32,
    /// Where its last identifier stands.
    last: u32,
}

/// The sessions that match the publish at hand; its room is kept for the next.
#[derive(Default)]
pub(super) struct Matches {
    list: Vec<Match>,
    /// By match, as far as any has a chain: its place in `chains`.
    chain_of: Vec<u32>,
    chains: Vec<Chain>,
    further: Vec<FurtherId>,
    /// Room to put one session's identifiers together.
    ids: Vec<u32>,
}

impl Matches {
    /// Begins another publish.
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.forget_chains();
    }

    fn forget_chains(&mut self) {
        self.chain_of.clear();
        self.chains.clear();
        self.further.clear();
    }

    /// Adds a subscription of a session. No other publish has this `stamp`: it tells whether the session
    /// is in already.
    pub(super) fn add(&mut self, subscriber: &Subscriber, session: &mut Session, stamp: u64) {
        let known = (session.match_stamp == stamp).then_some(session.match_index);
        session.match_stamp = stamp;
        session.match_index = self.join(subscriber, known);
    }

    /// Adds a subscription of a session, which is in already if its place is `known`; its place.
    pub(super) fn join(&mut self, subscriber: &Subscriber, known: Option<u32>) -> u32 {
        let Some(place) = known else {
            self.list.push(Match::of(subscriber));
            return self.list.len() as u32 - 1;
        };
        if let Some(matched) = self.list.get_mut(place as usize) {
            let id = matched.join(subscriber);
            if id != 0 {
                self.name_too(place, id);
            }
        }
        place
    }

    /// A match has to name one more identifier `[MQTT-3.3.4-4]`.
    fn name_too(&mut self, matched: u32, id: u32) {
        let at = self.further.len() as u32;
        let place = matched as usize;
        if self.chain_of.len() <= place {
            self.chain_of.resize(place + 1, NONE);
        }
        let Some(chain) = self.chain_of.get_mut(place) else {
            return;
        };
        let known = self.chains.get_mut(*chain as usize);
        let before = match known {
            Some(known) => std::mem::replace(&mut known.last, at),
            None => {
                *chain = self.chains.len() as u32;
                self.chains.push(Chain { matched, last: at });
                NONE
            }
        };
        self.further.push(FurtherId { id, before });
    }

    /// The one at a place; all are known.
    pub(super) fn at(&mut self, place: usize) -> Option<Match> {
        self.share_ids();
        self.list.get(place).cloned()
    }

    /// In the order in which they were first added.
    pub(super) fn iter(&mut self) -> std::slice::Iter<'_, Match> {
        self.share_ids();
        self.list.iter()
    }

    /// Makes a list of each chain.
    fn share_ids(&mut self) {
        for chain in &self.chains {
            let Some(matched) = self.list.get_mut(chain.matched as usize) else {
                continue;
            };
            self.ids.clear();
            let mut at = chain.last;
            while let Some(further) = self.further.get(at as usize) {
                self.ids.push(further.id);
                at = further.before;
            }
            self.ids
                .extend(matched.subscription_ids.as_slice().iter().rev());
            self.ids.reverse();
            matched.subscription_ids = SubscriptionIds::Many(self.ids.as_slice().into());
        }
        self.forget_chains();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::Version;
    use crate::engine::slots::Slots;

    fn subscriber(session: SessionKey, subscription_id: u32, qos: Qos) -> Subscriber {
        Subscriber {
            session,
            subscription_id,
            qos,
            no_local: false,
            retain_as_published: false,
            checked: true,
            replaying: false,
            place: 0,
        }
    }

    #[test]
    fn subscriptions_of_one_session_make_one_copy() {
        let mut sessions = Slots::default();
        let mut insert = || sessions.insert(Session::new("c".into(), Version::V5));
        let (a, b) = (insert(), insert());
        let mut matches = Matches::default();
        for stamp in 1..3 {
            matches.clear();
            let mut add = |subscriber: &Subscriber| {
                let session = sessions.get_mut(subscriber.session).unwrap();
                matches.add(subscriber, session, stamp);
            };
            add(&subscriber(a, 7, Qos::AtMostOnce));
            add(&subscriber(b, 0, Qos::AtMostOnce));
            add(&Subscriber {
                checked: false,
                replaying: true,
                ..subscriber(a, 9, Qos::AtLeastOnce)
            });
            add(&subscriber(a, 0, Qos::AtMostOnce));
            let [of_a, of_b] = matches.iter().as_slice() else {
                panic!("two sessions match")
            };
            assert_eq!((of_a.session, of_b.session), (a, b));
            assert_eq!((of_a.qos, of_b.qos), (Qos::AtLeastOnce, Qos::AtMostOnce));
            assert_eq!(of_a.subscription_ids.as_slice(), [7, 9]);
            assert_eq!((of_a.joined, of_b.joined), (3, 1));
            assert!(!of_a.checked, "one of them may read all that it matches");
            assert!(of_a.replaying && of_b.checked && !of_b.replaying);
        }
    }

    #[test]
    fn identifiers_are_copied_once_however_many_are_joined() {
        const FILTERS: u32 = 5_000;
        let mut sessions = Slots::default();
        let mut insert = || sessions.insert(Session::new("c".into(), Version::V5));
        let keys = [insert(), insert(), insert()];
        let mut matches = Matches::default();
        let mut add = |matches: &mut Matches, key, id, stamp| {
            let session = sessions.get_mut(key).unwrap();
            matches.add(&subscriber(key, id, Qos::AtMostOnce), session, stamp);
        };
        for id in 1..=FILTERS {
            for (key, offset) in keys.into_iter().zip([0, 10_000, 20_000]) {
                add(&mut matches, key, offset + id, 1);
            }
        }
        assert_eq!(matches.chains.len(), keys.len(), "one list each");
        assert_eq!(matches.further.len() as u32, (FILTERS - 1) * 3);
        for (matched, offset) in matches.iter().zip([0, 10_000, 20_000]) {
            let expected = offset + 1..=offset + FILTERS;
            assert!(
                matched
                    .subscription_ids
                    .as_slice()
                    .iter()
                    .copied()
                    .eq(expected)
            );
        }
        matches.clear();
        add(&mut matches, keys[1], 7, 2);
        let ids: Vec<_> = matches.iter().map(|m| m.subscription_ids.clone()).collect();
        assert_eq!(
            ids,
            [SubscriptionIds::One(7)],
            "nothing is left of the former"
        );
    }
}
