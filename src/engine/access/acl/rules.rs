//! A set of rules, compiled: a trie by level.
//!
//! Every node of the trie is reached over one path only, its own, so a walk visits each at most once:
//! however the branches of `+`, `%u`, `%c` and plain text multiply, the work is bounded by the nodes,
//! and those by the levels in the rules. Many branches need many rules, which only who writes the
//! rules can make; a topic cannot. Recursion is as deep as topic and rules both are, at most
//! [`LEVELS_MAX`].
//!
//! Not here: which sets hold for a client, and in which order (`mod.rs`); filters against rules (`reach`).

use super::{Access, RuleAccess};
use std::cmp::Ordering;
use std::fmt;

/// Most levels of a rule's filter: as many as the configuration can allow a topic.
pub(super) const LEVELS_MAX: usize = 1_024;

/// In patterns, the level that stands for the user name.
pub(super) const USER: &str = "%u";
/// In patterns, the level that stands for the client identifier.
pub(super) const CLIENT: &str = "%c";

pub(super) const READ: u8 = 1;
const WRITE: u8 = 2;
pub(super) const DENY: u8 = 4;

pub(super) const ROOT: usize = 0;
/// No child: the root is nobody's.
pub(super) const NONE: usize = ROOT;

const fn bits(access: RuleAccess) -> u8 {
    match access {
        RuleAccess::Read => READ,
        RuleAccess::Write => WRITE,
        RuleAccess::ReadWrite => READ | WRITE,
        RuleAccess::Deny => DENY,
    }
}

/// What `%u` and `%c` stand for; a name that is missing matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) user: Option<Box<str>>,
    pub(super) client: Option<Box<str>>,
}

impl Names {
    /// Drops names that could change a filter's meaning: with a wildcard or of several levels.
    pub(super) fn new(user: Option<&str>, client: Option<&str>) -> Self {
        let plain = |name: &&str| !name.contains(['+', '#', '/']);
        Names {
            user: user.filter(plain).map(Into::into),
            client: client.filter(plain).map(Into::into),
        }
    }
}

/// One rule of a set.
pub(super) struct Rule {
    bits: u8,
    /// Some level stands for a name.
    has_names: bool,
    filter: Box<str>,
}

impl Rule {
    /// A rule of a user or of anonymous clients; the filter is valid, with at most [`LEVELS_MAX`] levels.
    pub(super) fn plain(access: RuleAccess, filter: &str) -> Self {
        Rule {
            bits: bits(access),
            has_names: false,
            filter: filter.into(),
        }
    }

    /// A pattern: like [`Rule::plain`], but `%u` and `%c` stand for names.
    pub(super) fn pattern(access: RuleAccess, filter: &str) -> Self {
        Rule {
            has_names: filter
                .split('/')
                .any(|level| level == USER || level == CLIENT),
            ..Rule::plain(access, filter)
        }
    }

    fn by_levels(&self, other: &Self) -> Ordering {
        self.filter.split('/').cmp(other.filter.split('/'))
    }
}

#[derive(Default, PartialEq, Eq)]
pub(super) struct Node {
    /// By text, ascending.
    pub(super) children: Vec<(Box<str>, usize)>,
    pub(super) plus: usize,
    /// The level stands for the user name.
    pub(super) user: usize,
    /// The level stands for the client identifier.
    pub(super) client: usize,
    /// What rules say that end here.
    pub(super) here: u8,
    /// What rules say that end with `#` below.
    pub(super) pound: u8,
}

impl Node {
    /// The child for a level of plain text.
    pub(super) fn child(&self, level: &str) -> Option<usize> {
        let found = self
            .children
            .binary_search_by(|(text, _)| (**text).cmp(level));
        let (_, child) = self.children.get(found.ok()?)?;
        Some(*child)
    }
}

/// Rules that hold together: a user's, those of anonymous clients, or the patterns.
#[derive(Default, PartialEq, Eq)]
pub(super) struct RuleSet {
    rules: usize,
    pub(super) nodes: Vec<Node>,
    /// What all rules say together.
    pub(super) said: u8,
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} rules)", self.rules)
    }
}

impl RuleSet {
    /// Compiles rules; their order means nothing.
    pub(super) fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_unstable_by(Rule::by_levels);
        let mut nodes = vec![Node::default()];
        for rule in &rules {
            insert(&mut nodes, rule);
        }
        for node in &mut nodes {
            node.children.shrink_to_fit();
        }
        nodes.shrink_to_fit();
        RuleSet {
            rules: rules.len(),
            nodes,
            said: rules.iter().fold(0, |said, rule| said | rule.bits),
        }
    }

    /// Rules in the set.
    pub(super) fn len(&self) -> usize {
        self.rules
    }

    /// Whether some rule asks for the user name.
    pub(super) fn asks_user(&self) -> bool {
        self.nodes.iter().any(|node| node.user != NONE)
    }

    /// Whether some rule asks for the client identifier.
    pub(super) fn asks_client(&self) -> bool {
        self.nodes.iter().any(|node| node.client != NONE)
    }

    /// Whether the rules allow or deny it; `None` if they say nothing.
    pub(super) fn verdict(&self, access: Access, topic: &str, names: &Names) -> Option<bool> {
        let (found, visits) = self.walk(topic, names);
        debug_assert!(visits <= self.nodes.len());
        let wanted = match access {
            Access::Read => READ,
            Access::Write => WRITE,
        };
        if found & DENY != 0 {
            return Some(false);
        }
        (found & wanted != 0).then_some(true)
    }

    /// What all matching rules say together, or as soon as one denies; and the nodes it took.
    fn walk(&self, topic: &str, names: &Names) -> (u8, usize) {
        let mut walk = Walk {
            nodes: &self.nodes,
            names,
            is_dollar: topic.starts_with('$'),
            found: 0,
            visits: 0,
        };
        walk.visit(ROOT, Some(topic));
        (walk.found, walk.visits)
    }
}

fn insert(nodes: &mut Vec<Node>, rule: &Rule) {
    let mut at = ROOT;
    let mut is_open = false;
    for level in rule.filter.split('/') {
        is_open = level == "#";
        if !is_open {
            at = child(nodes, at, level, rule.has_names);
        }
    }
    if let Some(node) = nodes.get_mut(at) {
        match is_open {
            true => node.pound |= rule.bits,
            false => node.here |= rule.bits,
        }
    }
}

/// The child of `parent` for a level, made if need be. Rules come in the order of their levels, so a
/// child that exists already is the last one, and the children are in order.
fn child(nodes: &mut Vec<Node>, parent: usize, level: &str, has_names: bool) -> usize {
    let fresh = nodes.len();
    let Some(node) = nodes.get_mut(parent) else {
        return ROOT;
    };
    let place = match level {
        "+" => &mut node.plus,
        USER if has_names => &mut node.user,
        CLIENT if has_names => &mut node.client,
        _ => match node.children.last() {
            Some((last, id)) if **last == *level => return *id,
            _ => {
                node.children.push((level.into(), fresh));
                nodes.push(Node::default());
                return fresh;
            }
        },
    };
    if *place == NONE {
        *place = fresh;
        nodes.push(Node::default());
        return fresh;
    }
    *place
}

struct Walk<'a> {
    nodes: &'a [Node],
    names: &'a Names,
    is_dollar: bool,
    found: u8,
    visits: usize,
}

impl Walk<'_> {
    /// `rest` is what follows the node's level, `None` at the topic's end.
    fn visit(&mut self, id: usize, rest: Option<&str>) {
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        if self.found & DENY != 0 {
            return;
        }
        self.visits += 1;
        // At the front nothing but plain text matches `$` topics [MQTT-4.7.2-1].
        let is_wild = id != ROOT || !self.is_dollar;
        if is_wild {
            self.found |= node.pound;
        }
        let Some(rest) = rest else {
            self.found |= node.here;
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if is_wild {
            if node.plus != NONE {
                self.visit(node.plus, rest);
            }
            if node.user != NONE && self.names.user.as_deref() == Some(level) {
                self.visit(node.user, rest);
            }
            if node.client != NONE && self.names.client.as_deref() == Some(level) {
                self.visit(node.client, rest);
            }
        }
        if let Some(child) = node.child(level) {
            self.visit(child, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(filters: &[&str]) -> RuleSet {
        let rule = |filter: &&str| Rule::pattern(RuleAccess::Read, filter);
        RuleSet::new(filters.iter().map(rule).collect())
    }

    fn repeated(levels: &[&str], count: usize) -> String {
        let levels: Vec<_> = levels.iter().copied().cycle().take(count).collect();
        levels.join("/")
    }

    #[test]
    fn a_walk_visits_no_node_twice_however_many_branches_match() {
        let names = Names::new(Some("a"), Some("a"));
        let mut filters = Vec::new();
        for levels in [
            &["+"][..],
            &["a", "+"],
            &["+", "a"],
            &["%u", "+"],
            &["%c", "a"],
            &["%u", "%c", "a"],
        ] {
            filters.push(repeated(levels, 30));
            filters.push(repeated(levels, 29) + "/#");
        }
        let filters: Vec<_> = filters.iter().map(|text| &**text).collect();
        let set = set(&filters);
        assert!(set.nodes.len() <= 1 + 6 * 30);
        for topic in [
            repeated(&["a"], 30),
            repeated(&["a"], 31),
            repeated(&["a", "b"], 30),
            repeated(&["a"], 1_000),
        ] {
            let (_, visits) = set.walk(&topic, &names);
            assert!(visits <= set.nodes.len(), "{visits} for {topic}");
        }
        let (found, visits) = set.walk(&repeated(&["a"], 30), &names);
        assert_eq!((found, visits), (READ, set.nodes.len()));
    }

    #[test]
    fn every_combination_of_branches_is_bounded_by_the_rules() {
        // All 2^8 filters of eight levels out of `a` and `+`: the worst that so many rules can do.
        let filters: Vec<_> = (0..256_u32)
            .map(|bits| {
                let level = |at: u32| if bits >> at & 1 == 0 { "a" } else { "+" };
                (0..8).map(level).collect::<Vec<_>>().join("/")
            })
            .collect();
        let filters: Vec<_> = filters.iter().map(|text| &**text).collect();
        let set = set(&filters);
        assert_eq!(set.nodes.len(), 511);
        let (_, visits) = set.walk("a/a/a/a/a/a/a/a", &Names::default());
        assert_eq!(visits, 511);
        let (_, visits) = set.walk("b/b/b/b/b/b/b/b", &Names::default());
        assert_eq!(visits, 9);
    }

    #[test]
    fn rules_with_the_same_filter_share_their_nodes() {
        let set = RuleSet::new(vec![
            Rule::plain(RuleAccess::Read, "a/b"),
            Rule::plain(RuleAccess::Deny, "a"),
            Rule::plain(RuleAccess::Write, "a/b"),
        ]);
        assert_eq!(set.nodes.len(), 3);
        let names = Names::default();
        assert_eq!(set.verdict(Access::Read, "a/b", &names), Some(true));
        assert_eq!(set.verdict(Access::Write, "a/b", &names), Some(true));
    }

    #[test]
    fn the_deepest_rule_is_walked() {
        let filter = repeated(&["+"], LEVELS_MAX);
        let set = set(&[&filter]);
        let topic = repeated(&["a"], LEVELS_MAX);
        let names = Names::default();
        assert_eq!(set.verdict(Access::Read, &topic, &names), Some(true));
    }
}
