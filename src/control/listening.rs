//! Listeners by their numbers, which stay theirs while the configuration changes.
//!
//! One that stays at its place keeps its number, its sockets and its clients, whatever else of it changes.
//! One that is new gets a number that was never used, or whose listener has gone with all its clients.
//!
//! Not here: sockets, which are the shards'.

use crate::engine::shard::ListenerPolicy;
use crate::shard::certificates::TlsFiles;
use crate::shard::listener::{ListenerConfig, Place, SocketFile};
use std::collections::BTreeSet;

/// One that is known by a number.
struct Slot {
    /// As configured; a port may be 0.
    config: ListenerConfig,
    policy: ListenerPolicy,
    /// As operators know it.
    name: String,
    file: Option<SocketFile>,
    is_removed: bool,
}

/// All that are known, by their numbers.
#[derive(Default)]
pub struct Listening(Vec<Slot>);

/// What becomes of listeners under another configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The number of each, in the configuration's order, and whether it is new.
    pub numbers: Vec<(u16, bool)>,
    /// Those that are there no more.
    pub removed: Vec<u16>,
}

impl Plan {
    /// Whether any comes or goes.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !self.removed.is_empty() || self.numbers.iter().any(|(_, is_new)| *is_new)
    }
}

/// How a listener is called: where it is, `place` being that in force.
#[must_use]
pub fn name(config: &ListenerConfig, place: &Place) -> String {
    format!("{}://{place}{}", config.scheme, config.path())
}

impl Listening {
    /// One more at the start, with the place in force.
    pub fn push(
        &mut self,
        config: &ListenerConfig,
        policy: &ListenerPolicy,
        place: &Place,
        file: Option<SocketFile>,
    ) {
        self.0.push(Slot {
            config: config.clone(),
            policy: policy.clone(),
            name: name(config, place),
            file,
            is_removed: false,
        });
    }

    /// What would become of them; `connections` are counted by number, for as many listeners as there may be.
    ///
    /// # Errors
    /// More are new than there are numbers.
    pub fn plan(&self, configs: &[ListenerConfig], connections: &[usize]) -> Result<Plan, String> {
        let mut stays: Vec<_> = self.0.iter().map(|slot| !slot.is_removed).collect();
        let mut plan = Plan::default();
        let mut found: Vec<Option<u16>> = Vec::new();
        for config in configs {
            let mut slots = (0..).zip(&self.0).zip(&mut stays);
            let same = slots.find(|((_, slot), is_left)| {
                **is_left && is_same(&slot.config.place, &config.place)
            });
            found.push(same.map(|((number, _), is_left)| {
                *is_left = false;
                number
            }));
        }
        plan.removed = (0..)
            .zip(stays)
            .filter_map(|(number, is_left)| is_left.then_some(number))
            .collect();
        let is_free = |number: &u16| {
            let slot = self.0.get(usize::from(*number));
            let count = connections.get(usize::from(*number));
            slot.is_none_or(|slot| slot.is_removed) && count == Some(&0)
        };
        let mut free = (0..u16::MAX).take(connections.len()).filter(is_free);
        for number in found {
            let number = match number {
                Some(number) => (number, false),
                None => (
                    free.next().ok_or_else(|| {
                        "too many listeners have come and gone, and their clients are still there: wait \
                         until these have left, or restart"
                            .to_owned()
                    })?,
                    true,
                ),
            };
            plan.numbers.push(number);
        }
        Ok(plan)
    }

    /// Goes by another configuration; `opened` are the places and files of new ones, by number. Given back
    /// are the files of sockets that are there no more.
    pub fn follow(
        &mut self,
        plan: &Plan,
        listeners: impl Iterator<Item = (ListenerConfig, ListenerPolicy)>,
        mut opened: impl FnMut(u16) -> Option<(Place, Option<SocketFile>)>,
    ) -> Vec<SocketFile> {
        for ((number, is_new), (config, policy)) in plan.numbers.iter().zip(listeners) {
            let index = usize::from(*number);
            let new = is_new.then(|| opened(*number)).flatten();
            let old = self.0.get(index).filter(|_| !is_new);
            let (name, file) = match (new, old) {
                (Some((place, file)), _) => (name(&config, &place), file),
                // The port in force may be another than the configured one.
                (None, Some(old)) => (renamed(old, &config), old.file.clone()),
                (None, None) => (name(&config, &config.place), None),
            };
            let slot = Slot {
                config,
                policy,
                name,
                file,
                is_removed: false,
            };
            match self.0.get_mut(index) {
                Some(known) => *known = slot,
                // Numbers that nobody has had are given in their order.
                None => self.0.push(slot),
            }
        }
        let mut gone = Vec::new();
        for number in &plan.removed {
            if let Some(slot) = self.0.get_mut(usize::from(*number)) {
                slot.is_removed = true;
                gone.extend(slot.file.take());
            }
        }
        gone
    }

    /// How they are called, by number, those that were removed too.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|slot| slot.name.clone()).collect()
    }

    /// How those are called that are there and not closed.
    #[must_use]
    pub fn open_names(&self, closed: &BTreeSet<u16>) -> Vec<String> {
        let there = (0..).zip(&self.0);
        let there = there.filter(|(number, slot)| !slot.is_removed && !closed.contains(number));
        there.map(|(_, slot)| slot.name.clone()).collect()
    }

    /// Whether one was removed.
    #[must_use]
    pub fn is_removed(&self, number: u16) -> bool {
        let slot = self.0.get(usize::from(number));
        slot.is_none_or(|slot| slot.is_removed)
    }

    /// What the clients of each may do, by number.
    #[must_use]
    pub fn policies(&self) -> Vec<ListenerPolicy> {
        self.0.iter().map(|slot| slot.policy.clone()).collect()
    }

    /// As configured, by number.
    pub fn configs(&self) -> impl Iterator<Item = &ListenerConfig> {
        self.0.iter().map(|slot| &slot.config)
    }

    /// Files of TLS by number, if the plan is followed.
    #[must_use]
    pub fn tls_files(&self, plan: &Plan, configs: &[ListenerConfig]) -> Vec<Option<TlsFiles>> {
        let mut files: Vec<_> = self.configs().map(|config| config.tls.clone()).collect();
        for number in &plan.removed {
            if let Some(files) = files.get_mut(usize::from(*number)) {
                *files = None;
            }
        }
        for ((number, _), config) in plan.numbers.iter().zip(configs) {
            let index = usize::from(*number);
            if files.len() <= index {
                files.resize(index + 1, None);
            }
            if let Some(files) = files.get_mut(index) {
                files.clone_from(&config.tls);
            }
        }
        files
    }

    /// Files of sockets that are there.
    pub fn files(&self) -> impl Iterator<Item = &SocketFile> {
        self.0.iter().filter_map(|slot| slot.file.as_ref())
    }
}

/// Whether it is one place; how a socket is made there does not count.
fn is_same(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Tcp(one), Place::Tcp(other)) => one.addresses == other.addresses,
        (Place::Unix(one), Place::Unix(other)) => one.path == other.path,
        _ => false,
    }
}

/// How one is called that stays at its place.
fn renamed(old: &Slot, config: &ListenerConfig) -> String {
    let old_path = old.config.path();
    let place = old.name.split_once("://").map_or("", |(_, rest)| rest);
    let place = place.strip_suffix(old_path).unwrap_or(place);
    format!("{}://{place}{}", config.scheme, config.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::transport::setup::TrustedProxies;
    use std::net::SocketAddr;
    use std::sync::Arc;

    fn at(port: u16) -> ListenerConfig {
        ListenerConfig {
            scheme: "mqtt",
            place: Place::Tcp(SocketAddr::from(([127, 0, 0, 1], port)).into()),
            tls: None,
            websocket: None,
            methods: None,
            proxies: Arc::new(TrustedProxies::default()),
        }
    }

    fn follow(listening: &mut Listening, ports: &[u16], connections: &[usize]) -> Plan {
        let configs: Vec<_> = ports.iter().map(|port| at(*port)).collect();
        let plan = listening.plan(&configs, connections).unwrap();
        let listeners = configs
            .into_iter()
            .map(|config| (config, ListenerPolicy::default()));
        listening.follow(&plan, listeners, |_| None);
        plan
    }

    #[test]
    fn who_stays_at_its_place_keeps_its_number_and_numbers_are_used_again_when_nobody_is_left() {
        let mut listening = Listening::default();
        for port in [0, 0, 3] {
            let config = at(port);
            listening.push(&config, &ListenerPolicy::default(), &at(9).place, None);
        }
        let plan = follow(&mut listening, &[3, 0, 5], &[1, 1, 0, 0]);
        assert_eq!(plan.numbers, [(2, false), (0, false), (3, true)]);
        assert_eq!(plan.removed, [1]);
        assert!(listening.is_removed(1) && !listening.is_removed(0));
        let open = |closed: &[u16]| listening.open_names(&closed.iter().copied().collect());
        assert_eq!(open(&[]).len(), 3);
        assert_eq!(open(&[0]), open(&[])[1..]);
        assert_eq!(
            listening.names()[0],
            "mqtt://127.0.0.1:9",
            "the port in force"
        );
        // Clients of the removed one are still there, and all other numbers are taken.
        assert!(
            listening
                .plan(&[at(3), at(0), at(5), at(6)], &[1, 1, 0, 0])
                .is_err()
        );
        let plan = follow(&mut listening, &[3, 0, 5, 6], &[1, 0, 0, 0]);
        assert_eq!(plan.numbers[3], (1, true));
        assert_eq!((plan.removed, listening.names().len()), (vec![], 4));
    }
}
