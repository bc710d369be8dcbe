//! What the last topic matched. A publisher mostly repeats its topic, and a packet full of publishes then
//! walks the trie once.
//!
//! Invariant: what is handed out is what the trie would say now. The nodes are only good for the trie's
//! version that they were found in, and for nothing while they are lent out.

use super::trie::{NodeId, Trie};
use crate::engine::codec::topic::TopicName;

/// One topic and its nodes.
#[derive(Debug, Default)]
pub struct LastMatch {
    topic: String,
    nodes: Vec<NodeId>,
    /// Version of the trie that the nodes are of, 0 for none.
    version: u64,
    /// The same of nodes that are lent out.
    lent_version: u64,
}

impl LastMatch {
    /// The nodes that match `topic`; [`LastMatch::keep`] takes them back.
    pub fn take(&mut self, trie: &Trie, topic: TopicName<'_>) -> Vec<NodeId> {
        let mut nodes = std::mem::take(&mut self.nodes);
        let is_known = self.version == trie.version() && self.topic == topic.as_str();
        if !is_known {
            nodes.clear();
            trie.matches(topic, &mut nodes);
            self.topic.clear();
            self.topic.push_str(topic.as_str());
        }
        self.version = 0;
        self.lent_version = trie.version();
        nodes
    }

    /// Takes back what was lent, unchanged.
    pub fn keep(&mut self, nodes: Vec<NodeId>) {
        self.nodes = nodes;
        self.version = self.lent_version;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::topic::TopicFilter;
    use crate::engine::keys::ShardId;

    fn filters(last: &mut LastMatch, trie: &Trie, topic: &str) -> Vec<String> {
        let nodes = last.take(trie, TopicName::trusted(topic));
        let mut found: Vec<_> = nodes.iter().map(|node| trie.filter_text(*node)).collect();
        last.keep(nodes);
        found.sort();
        found
    }

    #[test]
    fn a_change_of_the_trie_is_seen_at_once() {
        const OTHER: ShardId = 1;
        let (mut trie, mut last) = (Trie::default(), LastMatch::default());
        let add = |trie: &mut Trie, filter| {
            let node = trie.insert(TopicFilter::trusted(filter));
            trie.entry_mut(node).unwrap().remote.insert(OTHER);
            node
        };
        assert!(filters(&mut last, &trie, "a/b").is_empty());
        let exact = add(&mut trie, "a/b");
        assert_eq!(filters(&mut last, &trie, "a/b"), ["a/b"]);
        add(&mut trie, "a/+");
        assert_eq!(filters(&mut last, &trie, "a/b"), ["a/+", "a/b"]);
        assert_eq!(filters(&mut last, &trie, "a/c"), ["a/+"]);
        trie.entry_mut(exact).unwrap().remote.remove(OTHER);
        trie.prune(exact);
        assert_eq!(filters(&mut last, &trie, "a/b"), ["a/+"]);
    }

    #[test]
    fn lent_nodes_are_not_found_again() {
        let (mut trie, mut last) = (Trie::default(), LastMatch::default());
        let node = trie.insert(TopicFilter::trusted("a"));
        trie.entry_mut(node).unwrap().remote.insert(1);
        let lent = last.take(&trie, TopicName::trusted("a"));
        assert_eq!(last.take(&trie, TopicName::trusted("a")), lent);
    }
}
