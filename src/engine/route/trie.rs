//! The topic trie: filters to local subscribers, interested shards and share groups.
//!
//! Nodes live in one vector in chunks; the child of a node by a level's text is found in one hash table for
//! the whole trie, the wildcard children by index. An exact topic so costs one look-up per level. A
//! node without entry and children is removed, so an empty trie holds nothing.

use super::ShardSet;
use super::chunked::Chunked;
use super::shared::Groups;
use super::subscriber::Subscriber;
use super::subscribers::Subscribers;
use crate::engine::codec::topic::{TopicFilter, TopicName};
use crate::engine::hashing::Hashing;
use crate::engine::keys::SessionKey;
use crate::engine::parted::Parted;
use compact_str::CompactString;
use std::sync::Arc;

/// Names a node that holds an entry; stays valid until the entry is empty.
pub type NodeId = u32;

const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

/// What is known about one filter.
#[derive(Debug, Default)]
pub struct Entry {
    /// Subscriptions of this shard, without shared ones; one per session.
    pub local: Subscribers,
    /// Other shards that have subscriptions like these.
    pub remote: ShardSet,
    /// Share groups on this filter, on any shard.
    pub groups: Groups,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty() && self.groups.is_empty()
    }

    /// A session's own subscription, or as a member of a group.
    #[must_use]
    pub fn find(&self, session: SessionKey, share: Option<&Arc<str>>) -> Option<&Subscriber> {
        match share {
            None => self.local.find(session),
            Some(name) => self.groups.find(name)?.members.find(session),
        }
    }

    /// The same, to change anything but whose it is.
    pub fn find_mut(
        &mut self,
        session: SessionKey,
        share: Option<&Arc<str>>,
    ) -> Option<&mut Subscriber> {
        match share {
            None => self.local.find_mut(session),
            Some(name) => self.groups.find_mut(name)?.members.find_mut(session),
        }
    }
}

#[derive(Debug, Default)]
struct Node {
    level: CompactString,
    hash: u32,
    parent: u32,
    plus: u32,
    pound: u32,
    /// Children without a wildcard.
    exact_children: u32,
    entry: Option<Box<Entry>>,
}

/// The trie of one shard.
pub struct Trie {
    hashing: Hashing,
    nodes: Chunked<Node>,
    /// Children by (parent, level); the table holds node numbers.
    children: Parted<u32>,
    entries: usize,
    /// Grows when an entry comes or goes.
    version: u64,
}

impl Default for Trie {
    /// With hashes that can be foreseen.
    fn default() -> Self {
        Trie::new(Hashing::default())
    }
}

/// What a table is told of a hash that a node keeps: it looks at bits from all over it.
const fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn hash_of(nodes: &Chunked<Node>, id: u32) -> u64 {
    nodes.get(id as usize).map_or(0, |node| spread(node.hash))
}

impl Node {
    const fn has_children(&self) -> bool {
        self.exact_children > 0 || self.plus != NONE || self.pound != NONE
    }

    fn new(level: &str, hash: u32, parent: u32) -> Self {
        let level = level.into();
        Node {
            level,
            hash,
            parent,
            plus: NONE,
            pound: NONE,
            exact_children: 0,
            entry: None,
        }
    }
}

impl Trie {
    /// An empty trie.
    #[must_use]
    pub fn new(hashing: Hashing) -> Self {
        let mut nodes = Chunked::default();
        nodes.insert(Node::new("", 0, NONE));
        Trie {
            hashing,
            nodes,
            children: Parted::default(),
            entries: 0,
            version: 1,
        }
    }

    /// Filters that have an entry.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries
    }

    /// Which filters have an entry: another number for every change, never 0.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Whether no filter has an entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    fn child(&self, parent: u32, level: &str) -> Option<u32> {
        self.child_node(parent, level).map(|(id, _)| id)
    }

    #[inline(always)]
    fn child_node(&self, parent: u32, level: &str) -> Option<(u32, &Node)> {
        let hash = spread(self.hashing.of(parent, level) as u32);
        let mut found = None;
        let id = self.children.find(hash, |&id| {
            let node = self.node(id);
            found = node.filter(|node| node.parent == parent && *node.level == *level);
            found.is_some()
        });
        Some((*id?, found?))
    }

    fn child_of_filter(&self, parent: u32, level: &str) -> Option<u32> {
        let node = self.node(parent)?;
        match level {
            "+" => Some(node.plus).filter(|&id| id != NONE),
            "#" => Some(node.pound).filter(|&id| id != NONE),
            _ => self.child(parent, level),
        }
    }

    /// The node of `filter`, if it has an entry.
    #[must_use]
    pub fn find(&self, filter: TopicFilter<'_>) -> Option<NodeId> {
        let mut id = ROOT;
        for level in filter.as_str().split('/') {
            id = self.child_of_filter(id, level)?;
        }
        self.node(id)?.entry.as_ref().map(|_| id)
    }

    /// The entry of a node.
    #[must_use]
    pub fn entry(&self, id: NodeId) -> Option<&Entry> {
        self.node(id)?.entry.as_deref()
    }

    /// The entry of a node, to change it; call [`Trie::prune`] if it may have become empty.
    pub fn entry_mut(&mut self, id: NodeId) -> Option<&mut Entry> {
        self.nodes.get_mut(id as usize)?.entry.as_deref_mut()
    }

    /// The node of `filter`, made if need be. An entry left empty must be [`Trie::prune`]d.
    pub fn insert(&mut self, filter: TopicFilter<'_>) -> NodeId {
        let mut id = ROOT;
        for level in filter.as_str().split('/') {
            id = match self.child_of_filter(id, level) {
                Some(child) => child,
                None => self.add_child(id, level),
            };
        }
        if let Some(node) = self.nodes.get_mut(id as usize)
            && node.entry.is_none()
        {
            node.entry = Some(Box::default());
            self.entries += 1;
            self.version += 1;
        }
        id
    }

    fn add_child(&mut self, parent: u32, level: &str) -> u32 {
        let hash = self.hashing.of(parent, level) as u32;
        let node = Node::new(level, hash, parent);
        let id = self.nodes.insert(node) as u32;
        if let Some(parent) = self.nodes.get_mut(parent as usize) {
            match level {
                "+" => parent.plus = id,
                "#" => parent.pound = id,
                _ => parent.exact_children += 1,
            }
        }
        if level != "+" && level != "#" {
            let rehash = |&id: &u32| hash_of(&self.nodes, id);
            self.children.insert_unique(spread(hash), id, rehash);
        }
        id
    }

    /// Removes the entry of a node if it is empty, and the nodes that only led to it.
    pub fn prune(&mut self, mut id: NodeId) {
        match self.nodes.get_mut(id as usize) {
            Some(node) if node.entry.as_ref().is_some_and(|entry| entry.is_empty()) => {
                node.entry = None;
                self.entries -= 1;
                self.version += 1;
            }
            _ => return,
        }
        while id != ROOT {
            let Some(node) = self.node(id) else { return };
            if node.has_children() || node.entry.is_some() {
                return;
            }
            let parent = node.parent;
            self.remove_node(id, parent);
            id = parent;
        }
    }

    fn remove_node(&mut self, id: u32, parent: u32) {
        let Some(node) = self.nodes.get_mut(id as usize) else {
            return;
        };
        let level = std::mem::take(&mut node.level);
        let hash = spread(node.hash);
        if let Some(parent) = self.nodes.get_mut(parent as usize) {
            match &*level {
                "+" => parent.plus = NONE,
                "#" => parent.pound = NONE,
                _ => parent.exact_children -= 1,
            }
        }
        let rehash = |&id: &u32| hash_of(&self.nodes, id);
        self.children.remove(hash, |&other| other == id, rehash);
        self.nodes.remove(id as usize);
    }

    /// The text of a node's filter.
    #[must_use]
    pub fn filter_text(&self, id: NodeId) -> String {
        let mut levels = Vec::new();
        let mut at = id;
        while at != ROOT {
            let Some(node) = self.node(at) else { break };
            levels.push(&*node.level);
            at = node.parent;
        }
        levels.reverse();
        levels.join("/")
    }

    /// The same, shared with the groups on it if there are any.
    #[must_use]
    pub fn shared_filter(&self, id: NodeId) -> Arc<str> {
        let group = self.entry(id).and_then(|entry| entry.groups.first());
        group.map_or_else(
            || self.filter_text(id).into(),
            |group| Arc::clone(&group.named.filter),
        )
    }

    /// Appends the nodes whose filters match `topic` (4.7), in no particular order.
    pub fn matches(&self, topic: TopicName<'_>, found: &mut Vec<NodeId>) {
        let dollar = topic.is_dollar();
        if let Some(root) = self.node(ROOT) {
            self.walk(ROOT, root, Some(topic.as_str()), dollar, found);
        }
    }

    /// `rest` is what follows the node's level, `None` at the topic's end. Recursion is as deep as the
    /// topic has levels, which `topic_levels_max` bounds.
    fn walk(
        &self,
        id: u32,
        node: &Node,
        rest: Option<&str>,
        dollar: bool,
        found: &mut Vec<NodeId>,
    ) {
        // '#' also matches the level above it; at the root no wildcard sees '$' topics [MQTT-4.7.2-1].
        if node.pound != NONE && !dollar {
            found.push(node.pound);
        }
        let Some(rest) = rest else {
            if node.entry.is_some() {
                found.push(id);
            }
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if node.plus != NONE
            && !dollar
            && let Some(child) = self.node(node.plus)
        {
            self.walk(node.plus, child, rest, false, found);
        }
        // Most ends of filters have none.
        if node.exact_children > 0
            && let Some((id, child)) = self.child_node(id, level)
        {
            self.walk(id, child, rest, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::topic::TopicLimits;

    const LIMITS: TopicLimits = TopicLimits {
        bytes_max: 100,
        levels_max: 10,
    };

    fn filter(text: &str) -> TopicFilter<'_> {
        TopicFilter::new(text, LIMITS).unwrap()
    }

    fn add(trie: &mut Trie, text: &str) -> NodeId {
        let id = trie.insert(filter(text));
        trie.entry_mut(id).unwrap().remote.insert(1);
        id
    }

    fn matching(trie: &Trie, topic: &str) -> Vec<String> {
        let mut found = Vec::new();
        trie.matches(TopicName::new(topic, LIMITS).unwrap(), &mut found);
        let mut texts: Vec<_> = found.iter().map(|&id| trie.filter_text(id)).collect();
        texts.sort();
        texts
    }

    /// A small generator, so that a failing case can be named by its seed.
    fn random(seed: &mut u64, below: u64) -> u64 {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % below
    }

    #[test]
    fn matches_like_the_plain_definition() {
        let mut seed = 42;
        let levels = ["", "a", "b", "+", "#", "$x"];
        let mut trie = Trie::default();
        let mut filters = Vec::new();
        for _ in 0..600 {
            let depth = 1 + random(&mut seed, 4);
            let text: Vec<_> = (0..depth)
                .map(|_| levels[random(&mut seed, 6) as usize])
                .collect();
            let text = text.join("/");
            if TopicFilter::new(&text, LIMITS).is_ok() && !filters.contains(&text) {
                add(&mut trie, &text);
                filters.push(text);
            }
        }
        assert_eq!(trie.len(), filters.len());
        for _ in 0..600 {
            let depth = 1 + random(&mut seed, 4);
            let topic: Vec<_> = (0..depth)
                .map(|_| ["", "a", "b", "$x"][random(&mut seed, 4) as usize])
                .collect();
            let topic = topic.join("/");
            let Ok(name) = TopicName::new(&topic, LIMITS) else {
                continue;
            };
            let mut wanted: Vec<_> = filters
                .iter()
                .filter(|text| filter(text).matches(name))
                .cloned()
                .collect();
            wanted.sort();
            assert_eq!(matching(&trie, &topic), wanted, "topic {topic:?}, seed 42");
        }
        for text in &filters {
            let id = trie.find(filter(text)).unwrap();
            trie.entry_mut(id).unwrap().remote.remove(1);
            trie.prune(id);
        }
        assert!(trie.is_empty() && trie.children.is_empty());
        assert_eq!(trie.nodes.len(), 1);
    }

    #[test]
    fn pruning_leaves_what_others_need() {
        let mut trie = Trie::default();
        let deep = add(&mut trie, "a/b/c");
        add(&mut trie, "a/b");
        trie.entry_mut(deep).unwrap().remote.remove(1);
        trie.prune(deep);
        assert_eq!(trie.find(filter("a/b/c")), None);
        assert_eq!(matching(&trie, "a/b"), ["a/b"]);
    }

    #[test]
    fn an_entry_is_no_larger_than_what_most_filters_need() {
        assert!(size_of::<Entry>() <= 56, "{} bytes", size_of::<Entry>());
    }
}
