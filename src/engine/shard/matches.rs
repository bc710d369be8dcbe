//! Who gets a publish: each session once, however many of its subscriptions match.

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
            replaying: subscriber.replaying,
            joined: 1,
            group: None,
        }
    }

    /// Joins another subscription of the same session: one copy, at the best QoS, with all identifiers
    /// `[MQTT-3.3.4-2]` `[MQTT-3.3.4-4]`.
    pub(super) fn join(&mut self, other: &Subscriber) {
        self.qos = self.qos.max(other.qos);
        self.retain_as_published |= other.retain_as_published;
        self.checked &= other.checked;
        self.replaying |= other.replaying;
        self.joined += 1;
        if other.subscription_id != 0 {
            self.subscription_ids = match &self.subscription_ids {
                SubscriptionIds::None => SubscriptionIds::One(other.subscription_id),
                ids => {
                    let mut ids = ids.as_slice().to_vec();
                    ids.push(other.subscription_id);
                    SubscriptionIds::Many(ids.into())
                }
            };
        }
    }
}

/// The sessions that match the publish at hand; its room is kept for the next.
#[derive(Default)]
pub(super) struct Matches(Vec<Match>);

impl Matches {
    /// Begins another publish.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a subscription of a session. No other publish has this `stamp`: it tells whether the session
    /// is in already.
    pub(super) fn add(&mut self, subscriber: &Subscriber, session: &mut Session, stamp: u64) {
        if session.match_stamp == stamp {
            if let Some(matched) = self.0.get_mut(session.match_index as usize) {
                matched.join(subscriber);
            }
        } else {
            session.match_stamp = stamp;
            session.match_index = self.0.len() as u32;
            self.0.push(Match::of(subscriber));
        }
    }

    /// In the order in which they were first added.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Match> {
        self.0.iter()
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
            let [of_a, of_b] = &matches.0[..] else {
                panic!("{:?}", matches.0)
            };
            assert_eq!((of_a.session, of_b.session), (a, b));
            assert_eq!((of_a.qos, of_b.qos), (Qos::AtLeastOnce, Qos::AtMostOnce));
            assert_eq!(of_a.subscription_ids.as_slice(), [7, 9]);
            assert_eq!((of_a.joined, of_b.joined), (3, 1));
            assert!(!of_a.checked, "one of them may read all that it matches");
            assert!(of_a.replaying && of_b.checked && !of_b.replaying);
        }
    }
}
