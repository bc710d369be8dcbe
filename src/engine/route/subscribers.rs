//! The subscriptions that one shard has on one filter, one per session.
//!
//! Most filters have one subscriber, which lies inline; a publish walks over them as over a slice.
//!
//! Invariant: a list that is not inline is never changed but by key, so that its index stays true.

use super::subscriber::Subscriber;
use crate::engine::keys::SessionKey;
use crate::engine::listed::{Keyed, Listed};
use std::ops::Deref;

/// The list.
#[derive(Debug)]
pub enum Subscribers {
    /// A single one.
    One(Subscriber),
    /// None, or several.
    Several(Listed<Subscriber>),
}

impl Keyed for Subscriber {
    type Key = SessionKey;

    fn key(&self) -> &SessionKey {
        &self.session
    }
}

impl Default for Subscribers {
    fn default() -> Self {
        Subscribers::Several(Listed::default())
    }
}

impl Deref for Subscribers {
    type Target = [Subscriber];

    fn deref(&self) -> &[Subscriber] {
        match self {
            Subscribers::One(one) => std::slice::from_ref(one),
            Subscribers::Several(listed) => listed,
        }
    }
}

impl<'a> IntoIterator for &'a Subscribers {
    type Item = &'a Subscriber;
    type IntoIter = std::slice::Iter<'a, Subscriber>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Subscriber> for Subscribers {
    fn from_iter<I: IntoIterator<Item = Subscriber>>(subscribers: I) -> Self {
        let mut list = Subscribers::default();
        for subscriber in subscribers {
            list.put(subscriber);
        }
        list
    }
}

impl Subscribers {
    /// The subscription of a session.
    #[must_use]
    pub fn find(&self, session: SessionKey) -> Option<&Subscriber> {
        match self {
            Subscribers::One(one) => Some(one).filter(|one| one.session == session),
            Subscribers::Several(listed) => listed.find(&session),
        }
    }

    /// The subscription of a session, to change anything but whose it is.
    pub fn find_mut(&mut self, session: SessionKey) -> Option<&mut Subscriber> {
        match self {
            Subscribers::One(one) => Some(one).filter(|one| one.session == session),
            Subscribers::Several(listed) => listed.find_mut(&session),
        }
    }

    /// Adds a subscription, or puts it in the place of the session's former.
    pub fn put(&mut self, subscriber: Subscriber) {
        match self {
            Subscribers::One(one) if one.session == subscriber.session => *one = subscriber,
            Subscribers::One(one) => {
                let mut listed = Listed::default();
                listed.put(*one);
                listed.put(subscriber);
                *self = Subscribers::Several(listed);
            }
            Subscribers::Several(listed) if listed.is_empty() => {
                *self = Subscribers::One(subscriber);
            }
            Subscribers::Several(listed) => listed.put(subscriber),
        }
    }

    /// Removes the subscription of a session; the last one takes its place.
    pub fn remove(&mut self, session: SessionKey) {
        match self {
            Subscribers::One(one) => {
                if one.session == session {
                    *self = Subscribers::default();
                }
            }
            Subscribers::Several(listed) => {
                listed.remove(&session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::Version;
    use crate::engine::message::Qos;
    use crate::engine::session::Session;
    use crate::engine::slots::Slots;

    #[test]
    fn each_session_has_one_subscription_among_many() {
        const SESSIONS: u32 = 10_000;
        let mut slots = Slots::default();
        let mut insert = |_| slots.insert(Session::new("c".into(), Version::V5));
        let sessions: Vec<SessionKey> = (0..SESSIONS).map(&mut insert).collect();
        let subscriber = |session, subscription_id| Subscriber {
            session,
            subscription_id,
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            checked: false,
            replaying: false,
            place: 0,
        };
        let mut list = Subscribers::default();
        for id in [1, 2] {
            for (count, &session) in (1..).zip(&sessions) {
                list.put(subscriber(session, id));
                assert_eq!(list.len(), if id == 1 { count } else { sessions.len() });
                assert_eq!(matches!(list, Subscribers::One(_)), list.len() == 1);
            }
        }
        assert!(
            matches!(list, Subscribers::Several(Listed::Long(_))),
            "nothing is scanned"
        );
        for (left, &session) in (0..sessions.len()).rev().zip(&sessions) {
            assert_eq!(list.find(session).map(|s| s.subscription_id), Some(2));
            list.remove(session);
            list.remove(session);
            assert_eq!((list.find(session), list.len()), (None, left));
        }
        assert!(list.is_empty());
    }
}
