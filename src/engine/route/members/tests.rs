//! Picking among many members: who is picked, and how many are looked at for it.

use super::*;
use crate::engine::keys::OfSession;
use crate::engine::message::Qos;
use crate::engine::slots::Slots;
use std::cell::Cell;
use std::collections::BTreeMap;

const MANY: usize = 10_000;

struct Group {
    members: Members,
    keys: Vec<SessionKey>,
    inflight: BTreeMap<SessionKey, usize>,
    looks: Cell<usize>,
}

impl Group {
    fn new(members: usize) -> Self {
        let mut sessions = Slots::<OfSession, ()>::default();
        let mut insert = |_| sessions.insert(());
        let mut group = Group {
            members: Members::default(),
            keys: (0..members).map(&mut insert).collect(),
            inflight: BTreeMap::new(),
            looks: Cell::new(0),
        };
        for session in group.keys.clone() {
            group.members.join(subscriber(session), true);
        }
        group
    }

    /// Picks, where only those may read that `may` says.
    fn pick_of(&mut self, way: Way, may: impl Fn(usize) -> bool) -> Option<usize> {
        let before = self.looks.get();
        let picked = self.members.pick(way, |subscriber| {
            self.looks.set(self.looks.get() + 1);
            may(subscriber.session.slot()).then(|| MemberLoad {
                online: true,
                inflight: self.inflight.get(&subscriber.session).copied().unwrap_or(0),
            })
        });
        assert!(
            self.looks.get() - before <= picked.steps,
            "all looks are told"
        );
        picked.member.map(|member| member.session.slot())
    }

    fn pick(&mut self, way: Way) -> usize {
        self.pick_of(way, |_| true).unwrap()
    }
}

fn subscriber(session: SessionKey) -> Subscriber {
    Subscriber {
        session,
        subscription_id: 0,
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        checked: true,
        replaying: false,
        place: 0,
    }
}

#[test]
fn a_pick_among_many_looks_at_few() {
    for way in [Way::Next, Way::Same, Way::Hash(77), Way::Least] {
        let mut group = Group::new(MANY);
        group.pick(way);
        group.looks.set(0);
        for _ in 0..1_000 {
            let picked = group.pick(way);
            *group.inflight.entry(group.keys[picked]).or_default() += 1;
        }
        let each = if way == Way::Least {
            1 + REVIEWS + 1
        } else {
            1
        };
        assert!(
            group.looks.get() <= 1_000 * each,
            "{way:?}: {}",
            group.looks.get()
        );
    }
}

#[test]
fn members_take_turns_and_the_same_one_stays() {
    let mut group = Group::new(100);
    let mut counts = [0; 100];
    for _ in 0..300 {
        counts[group.pick(Way::Next)] += 1;
    }
    assert_eq!(counts, [3; 100]);
    let same = group.pick(Way::Same);
    for other in (0..100).filter(|other| *other != same).step_by(3) {
        group.members.leave(group.keys[other]);
        assert_eq!(group.pick(Way::Same), same);
    }
    group.members.leave(group.keys[same]);
    assert_ne!(group.pick(Way::Same), same);
}

#[test]
fn the_least_loaded_is_found_after_others_acknowledge() {
    let mut group = Group::new(MANY);
    for n in 0..MANY {
        group.inflight.insert(group.keys[n], 5 + n % 7);
    }
    for _ in 0..MANY / REVIEWS + MANY / TRIES_MAX {
        group.pick(Way::Least);
    }
    let picked = group.pick(Way::Least);
    assert_eq!(group.inflight[&group.keys[picked]], 5);
    group.inflight.insert(group.keys[4_321], 0);
    for _ in 0..MANY / REVIEWS + 1 {
        group.pick(Way::Least);
    }
    assert_eq!(group.pick(Way::Least), 4_321);
}

#[test]
fn absent_members_get_it_only_if_nobody_connected_may() {
    for way in [Way::Next, Way::Same, Way::Hash(3), Way::Least] {
        let mut group = Group::new(100);
        let keys = group.keys.clone();
        group.pick(way);
        for key in &keys[..99] {
            group.members.set_online(*key, false);
        }
        let load = |subscriber: &Subscriber| {
            Some(MemberLoad {
                online: subscriber.session == keys[99],
                inflight: 9 * usize::from(subscriber.session == keys[99]),
            })
        };
        for _ in 0..10 {
            let picked = group.members.pick(way, load).member.unwrap();
            assert_eq!(picked.session, keys[99], "{way:?}");
        }
        let may = |subscriber: &Subscriber| load(subscriber).filter(|load| !load.online);
        assert!(group.members.pick(way, may).member.is_some(), "{way:?}");
        group.members.set_online(keys[99], false);
        let away = |_: &Subscriber| {
            Some(MemberLoad {
                online: false,
                inflight: 0,
            })
        };
        assert!(group.members.pick(way, away).member.is_some(), "{way:?}");
        assert_eq!((group.members.len(), group.members.online()), (100, 0));
    }
}

#[test]
fn who_may_not_read_is_passed_over() {
    for way in [Way::Next, Way::Same, Way::Hash(3), Way::Least] {
        let mut group = Group::new(1_000);
        for _ in 0..10 {
            assert_eq!(group.pick_of(way, |slot| slot == 777), Some(777), "{way:?}");
        }
        assert_eq!(group.pick_of(way, |_| false), None, "{way:?}");
    }
}

#[test]
fn coming_and_going_keeps_the_sums() {
    let mut group = Group::new(200);
    let keys = group.keys.clone();
    group.pick(Way::Least);
    let mut state = BTreeMap::new();
    state.extend(keys.iter().map(|key| (*key, true)));
    for n in 0..5_000_usize {
        let key = keys[n * 7_919 % 200];
        match n % 5 {
            0 => {
                group.members.leave(key);
                state.remove(&key);
            }
            1 | 2 => {
                group.members.join(subscriber(key), n % 2 == 0);
                state.insert(key, n % 2 == 0);
            }
            _ => {
                group.members.set_online(key, n % 3 == 0);
                state.entry(key).and_modify(|online| *online = n % 3 == 0);
            }
        }
        let online = state.values().filter(|online| **online).count();
        let members = &group.members;
        assert_eq!((members.len(), members.online()), (state.len(), online));
        assert_eq!(
            members.ranks.as_ref().map(|ranks| ranks.len()),
            Some(state.len())
        );
    }
}
