//! The trie against a map from filter to who wants it.

use super::{Path, matches};
use arbitrary::Arbitrary;
use ringmq::engine::codec::Version;
use ringmq::engine::codec::topic::{TopicFilter, TopicName};
use ringmq::engine::keys::{GroupKey, SessionKey};
use ringmq::engine::message::Qos;
use ringmq::engine::route::shared::MemberCount;
use ringmq::engine::route::subscriber::Subscriber;
use ringmq::engine::route::trie::{Entry, NodeId, Trie};
use ringmq::engine::session::Session;
use ringmq::engine::slots::Slots;
use std::collections::{BTreeMap, BTreeSet};

/// Shards that a share group counts members of.
const SHARDS: u16 = 3;

#[derive(Arbitrary, Debug)]
pub enum Operation {
    Subscribe(Path, u8),
    Unsubscribe(Path, u8),
    AddShard(Path, u8),
    RemoveShard(Path, u8),
    CountMembers(Path, u8, u8),
    Match(Path),
}

/// What the model knows of a filter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    sessions: BTreeSet<usize>,
    shards: BTreeSet<u16>,
    /// Members per shard; no group if there is none.
    members: BTreeMap<u16, u32>,
}

impl Wanted {
    fn of(entry: &Entry, sessions: &[SessionKey]) -> Self {
        let number = |local: &Subscriber| sessions.iter().position(|key| *key == local.session);
        let group = entry.groups.first();
        let count = |shard| group.map_or(0, |group| group.count(shard).members);
        assert!(entry.groups.len() <= 1);
        let wanted = Wanted {
            sessions: entry.local.iter().filter_map(number).collect(),
            shards: entry.remote.iter().collect(),
            members: (0..SHARDS)
                .map(|shard| (shard, count(shard)))
                .filter(|(_, members)| *members > 0)
                .collect(),
        };
        assert_eq!(wanted.sessions.len(), entry.local.len());
        wanted
    }

    fn is_empty(&self) -> bool {
        *self == Wanted::default()
    }
}

/// The trie and its model.
pub struct Checked {
    trie: Trie,
    model: BTreeMap<String, (NodeId, Wanted)>,
    sessions: Vec<SessionKey>,
}

impl Default for Checked {
    fn default() -> Self {
        let mut slots = Slots::default();
        let session = |_| slots.insert(Session::new("c".into(), Version::V5));
        Checked {
            trie: Trie::default(),
            model: BTreeMap::new(),
            sessions: (0..4).map(session).collect(),
        }
    }
}

impl Checked {
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Subscribe(path, session) => self.change(*path, true, |wanted, sessions| {
                wanted.sessions.insert(usize::from(*session) % sessions);
            }),
            Operation::Unsubscribe(path, session) => {
                self.change(*path, false, |wanted, sessions| {
                    wanted.sessions.remove(&(usize::from(*session) % sessions));
                });
            }
            Operation::AddShard(path, shard) => self.change(*path, true, |wanted, _| {
                wanted.shards.insert(u16::from(shard % 128));
            }),
            Operation::RemoveShard(path, shard) => self.change(*path, false, |wanted, _| {
                wanted.shards.remove(&u16::from(shard % 128));
            }),
            Operation::CountMembers(path, shard, members) => {
                self.change(*path, true, |wanted, _| {
                    let shard = u16::from(*shard) % SHARDS;
                    wanted.members.remove(&shard);
                    if members % 3 > 0 {
                        wanted.members.insert(shard, u32::from(members % 3));
                    }
                });
            }
            Operation::Match(path) => self.check_match(&path.topic()),
        }
        assert_eq!(self.trie.len(), self.model.len());
    }

    /// Changes a filter in the model and brings the trie's entry to the same state.
    fn change(&mut self, path: Path, makes: bool, with: impl FnOnce(&mut Wanted, usize)) {
        let text = path.filter();
        let filter = TopicFilter::trusted(&text);
        let known = self.trie.find(filter);
        let expected = self.model.get(&text).map(|(node, _)| *node);
        assert_eq!(known, expected, "the node of {text:?}");
        if known.is_none() && !makes {
            return;
        }
        let node = self.trie.insert(filter);
        assert!(known.is_none_or(|known| known == node), "{text:?} moved");
        assert_eq!(self.trie.filter_text(node), text);
        let (_, wanted) = self.model.entry(text.clone()).or_default();
        with(wanted, self.sessions.len());
        let Some(entry) = self.trie.entry_mut(node) else {
            panic!("{text:?} was inserted and has no entry");
        };
        fill(entry, wanted, &self.sessions);
        let is_gone = wanted.is_empty();
        self.trie.prune(node);
        if is_gone {
            self.model.remove(&text);
        } else if let Some((known, _)) = self.model.get_mut(&text) {
            *known = node;
        }
        assert_eq!(self.trie.find(filter).is_none(), is_gone, "{text:?}");
    }

    fn check_match(&self, topic: &str) {
        let mut nodes = Vec::new();
        self.trie.matches(TopicName::trusted(topic), &mut nodes);
        let mut found: Vec<_> = nodes.iter().map(|n| self.trie.filter_text(*n)).collect();
        found.sort();
        let fitting = self.model.keys().filter(|filter| matches(filter, topic));
        assert_eq!(found, fitting.cloned().collect::<Vec<_>>(), "{topic:?}");
        for node in nodes {
            let text = self.trie.filter_text(node);
            let entry = self.trie.entry(node);
            let found = entry.map(|entry| Wanted::of(entry, &self.sessions));
            let (known, wanted) = &self.model[&text];
            assert_eq!((node, found.as_ref()), (*known, Some(wanted)), "{text:?}");
        }
    }

    /// Takes everything out: nothing is left.
    pub fn finish(mut self) {
        for (text, (node, _)) in std::mem::take(&mut self.model) {
            assert_eq!(self.trie.find(TopicFilter::trusted(&text)), Some(node));
            if let Some(entry) = self.trie.entry_mut(node) {
                *entry = Entry::default();
            }
            self.trie.prune(node);
        }
        assert!(self.trie.is_empty());
        for topic in ["a", "a/b", "$s", "/"] {
            self.check_match(topic);
        }
    }
}

fn fill(entry: &mut Entry, wanted: &Wanted, sessions: &[SessionKey]) {
    let subscriber = |session: &usize| Subscriber {
        session: sessions[*session],
        subscription_id: 0,
        qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        checked: false,
        replaying: false,
        place: 0,
    };
    entry.local = wanted.sessions.iter().map(subscriber).collect();
    for shard in 0..128 {
        if wanted.shards.contains(&shard) {
            entry.remote.insert(shard);
        } else {
            entry.remote.remove(shard);
        }
    }
    let key = GroupKey {
        filter: "f".into(),
        name: "g".into(),
    };
    if let Some(group) = entry.groups.find_or_add(&key, SHARDS) {
        for shard in 0..SHARDS {
            let members = wanted.members.get(&shard).copied().unwrap_or(0);
            let online = members;
            group.set_count(shard, MemberCount { members, online });
        }
    }
    entry.groups.prune(&key.name);
}
