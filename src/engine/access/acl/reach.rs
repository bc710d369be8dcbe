//! What rules say about the topics that a filter matches: the filter walks the trie of the rules.
//!
//! Exact for each rule, not approximate. Plain text in the filter leads to one child beside those that stand
//! for any or a named level, so the work goes by the rules that have topics in common with the filter; each
//! node is visited once at most, and no more once nothing new can be said.

use super::rules::{DENY, NONE, Names, Node, READ, ROOT, RuleSet};

/// What rules say about the topics that a filter matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) reads_some: bool,
    pub(super) reads_all: bool,
    pub(super) denies_some: bool,
    pub(super) denies_all: bool,
}

impl Reach {
    /// What rules say about the topics that `filter` matches, and the nodes it took.
    pub(super) fn of(rules: &RuleSet, filter: &str, names: &Names) -> (Self, usize) {
        let mut walk = Walk {
            nodes: &rules.nodes,
            names,
            unsaid: rules.said & (READ | DENY),
            reach: Reach::default(),
            visits: 0,
        };
        if walk.unsaid != 0 {
            walk.visit(ROOT, Some(filter), true);
        }
        (walk.reach, walk.visits)
    }
}

struct Walk<'a> {
    nodes: &'a [Node],
    names: &'a Names,
    /// What no rule that was met has said, but one may.
    unsaid: u8,
    reach: Reach,
    visits: usize,
}

impl<'a> Walk<'a> {
    /// Rules say this about some of the topics, or about all of them.
    fn meet(&mut self, bits: u8, covers: bool) {
        self.unsaid &= !bits;
        if bits & READ != 0 {
            self.reach.reads_some = true;
            self.reach.reads_all |= covers;
        }
        if bits & DENY != 0 {
            self.reach.denies_some = true;
            self.reach.denies_all |= covers;
        }
    }

    /// `rest` is what of the filter follows the node's level, `None` at its end; `covers` is whether the
    /// levels down to the node match all that the filter's match.
    fn visit(&mut self, id: usize, rest: Option<&str>, covers: bool) {
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        if self.unsaid == 0 && !covers {
            return;
        }
        self.visits += 1;
        let is_first = id == ROOT;
        // At the front nothing but plain text matches `$` topics [MQTT-4.7.2-1].
        let is_dollar = is_first && rest.is_some_and(|rest| rest.starts_with('$'));
        if !is_dollar {
            // `#` also matches the level above it.
            self.meet(node.pound, covers);
        }
        let Some(rest) = rest else {
            return self.meet(node.here, covers);
        };
        if rest == "#" {
            return self.visit_below(id, covers);
        }
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        let is_wild = level == "+";
        if node.plus != NONE && !is_dollar {
            self.visit(node.plus, rest, covers);
        }
        for (child, name) in self.named(node, is_first).into_iter().flatten() {
            if is_wild || *name == *level {
                self.visit(child, rest, covers && !is_wild);
            }
        }
        if !is_wild {
            if let Some(child) = node.child(level) {
                self.visit(child, rest, covers);
            }
            return;
        }
        for (text, child) in &node.children {
            if !(is_first && text.starts_with('$')) {
                self.visit(*child, rest, false);
            }
        }
    }

    /// The filter ends with `#` below this node: what rules say here and further down.
    fn visit_below(&mut self, id: usize, covers: bool) {
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        let is_first = id == ROOT;
        if is_first && let Some(plus) = self.nodes.get(node.plus).filter(|_| node.plus != NONE) {
            // No topic is without levels: at the front, and only there, `+/#` is the same as `#`.
            self.meet(plus.pound, covers);
        }
        self.meet(node.here, false);
        if node.plus != NONE {
            self.visit_all(node.plus);
        }
        for (child, _) in self.named(node, is_first).into_iter().flatten() {
            self.visit_all(child);
        }
        for (text, child) in &node.children {
            if !(is_first && text.starts_with('$')) {
                self.visit_all(*child);
            }
        }
    }

    /// All that stands here matches some of the filter's topics.
    fn visit_all(&mut self, id: usize) {
        if self.unsaid == 0 {
            return;
        }
        self.visits += 1;
        let pound = self.nodes.get(id).map_or(0, |node| node.pound);
        self.meet(pound, false);
        self.visit_below(id, false);
    }

    /// The children that stand for a name, as far as the client has it. Like a wildcard, a name as the first
    /// level stands for no `$` topic: clients choose their identifiers, and must not get at `$SYS` by that.
    fn named(&self, node: &Node, is_first: bool) -> [Option<(usize, &'a str)>; 2] {
        let names = self.names;
        let of = |child: usize, name: &'a Option<Box<str>>| {
            let name = name.as_deref()?;
            let is_there = child != NONE && !(is_first && name.starts_with('$'));
            is_there.then_some((child, name))
        };
        [of(node.user, &names.user), of(node.client, &names.client)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::{covers, overlap};
    use super::super::rules::{Rule, RuleSet};
    use super::super::{RuleAccess, samples};
    use super::*;

    #[test]
    fn the_reach_of_a_rule_is_what_two_filters_have_in_common() {
        let rules = samples::filters(&["a", "b", "$x", "+", "#"], 3);
        let filters = samples::filters(&["a", "b", "c", "$x", "+", "#"], 4);
        for rule in &rules {
            let read = RuleSet::new(vec![Rule::plain(RuleAccess::Read, rule)]);
            let deny = RuleSet::new(vec![Rule::plain(RuleAccess::Deny, rule)]);
            for filter in &filters {
                let some = overlap(rule.split('/'), filter.split('/'));
                let all = some && covers(rule.split('/'), filter.split('/'));
                let (of_read, _) = Reach::of(&read, filter, &Names::default());
                let wanted = Reach {
                    reads_some: some,
                    reads_all: all,
                    ..Reach::default()
                };
                assert_eq!(of_read, wanted, "{filter} under {rule}");
                let (of_deny, _) = Reach::of(&deny, filter, &Names::default());
                let wanted = Reach {
                    denies_some: some,
                    denies_all: all,
                    ..Reach::default()
                };
                assert_eq!(of_deny, wanted, "{filter} under {rule}");
            }
        }
    }

    #[test]
    fn a_filter_meets_few_of_many_rules() {
        let rule = |n: u32| Rule::plain(RuleAccess::Read, &format!("mortal/{n}/#"));
        let mut rules: Vec<_> = (0..10_000).map(rule).collect();
        rules.push(Rule::plain(RuleAccess::Deny, "x"));
        let set = RuleSet::new(rules);
        let (reach, visits) = Reach::of(&set, "mortal/77/3/+", &Names::default());
        assert!(reach.reads_all && !reach.denies_some && visits <= 4);
        let (reach, _) = Reach::of(&set, "#", &Names::default());
        assert!(reach.reads_some && reach.denies_some && !reach.reads_all);
        let (reach, visits) = Reach::of(&set, "mortal/#", &Names::default());
        assert!(
            reach.reads_some && visits > 10_000,
            "a deny may be among them"
        );
        let reads: Vec<_> = (0..10_000).map(rule).collect();
        let (_, visits) = Reach::of(&RuleSet::new(reads), "#", &Names::default());
        assert!(visits <= 4, "one read says all that the set can say");
    }
}
