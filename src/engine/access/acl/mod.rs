//! What a client may do: rules about topics, compiled once, shared by all shards.
//!
//! The rules are Mosquitto's. Those of the user (or, without a user name, those of anonymous clients)
//! come first: one that denies the topic decides, else one that allows the access. Only if none
//! matched the patterns are asked, in the same way. What nobody allows is denied. Filters match as in
//! subscriptions: at the front only plain text matches `$` topics, so `%u` and `%c` there do not.
//!
//! Not here: how a filter loses its `$share/NAME/`, what a refusal tells the client, reading files.

mod file;
#[cfg(test)]
mod filter;
mod reach;
mod rules;

use reach::Reach;
use rules::{Names, Rule, RuleSet};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Rules of an access file or of a token, compiled; never changes. The default denies everything.
#[derive(Default, PartialEq, Eq)]
pub struct Acl {
    is_everything: bool,
    users: BTreeMap<Box<str>, Arc<RuleSet>>,
    anonymous: Arc<RuleSet>,
    patterns: RuleSet,
    asks_user: bool,
    asks_client: bool,
    /// The rules, if they are a list.
    listed: Option<Box<[ListedRule]>>,
}

/// A rule of a list.
pub type ListedRule = (RuleAccess, Box<str>);

impl fmt::Debug for Acl {
    /// Counts only: the rules of a large site would fill a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acl")
            .field("is_everything", &self.is_everything)
            .field("users", &self.users.len())
            .field("anonymous", &self.anonymous.len())
            .field("patterns", &self.patterns.len())
            .finish()
    }
}

/// What is wrong with an access file, or with a list of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {
    /// Line, or place of the rule in the list, counted from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub text: String,
}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for AclError {}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAccess {
    /// Messages may be received.
    Read,
    /// Messages may be published.
    Write,
    /// Both.
    ReadWrite,
    /// Neither, whatever else is said.
    Deny,
}

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Receive its messages.
    Read,
    /// Publish.
    Write,
}

/// What becomes of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Nothing that it matches may be read.
    Refused,
    /// Some of it may be: each delivery has to be checked.
    Checked,
    /// All of it may be.
    Unchecked,
}

impl Acl {
    /// Compiles an access file in Mosquitto's format. Time and memory are bounded by the text's length,
    /// which is the caller's to bound.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, AclError> {
        file::parse(text)
    }

    /// Lines of an access file that may not be as they were meant, in an operator's words, some of them if
    /// there are many.
    #[must_use]
    pub fn warnings(text: &str) -> Vec<String> {
        file::warnings(text)
    }

    /// Allows everything, `$` topics too.
    #[must_use]
    pub fn everything() -> Self {
        Acl {
            is_everything: true,
            ..Acl::default()
        }
    }

    /// Compiles rules that hold for whoever has them, `%u` and `%c` standing for its names.
    ///
    /// # Errors
    /// The first rule that is wrong.
    pub fn from_rules<'a>(
        rules: impl Iterator<Item = (RuleAccess, &'a str)>,
    ) -> Result<Self, AclError> {
        let rules: Box<[ListedRule]> = rules.map(|(access, text)| (access, text.into())).collect();
        let texts = rules.iter().map(|(access, text)| (*access, &**text));
        let mut acl = file::from_rules(texts)?;
        acl.listed = Some(rules);
        Ok(acl)
    }

    /// Whether some rules are for users.
    #[must_use]
    pub fn names_users(&self) -> bool {
        self.asks_user || !self.users.is_empty()
    }

    /// The rules that it was made from by [`Acl::from_rules`]; [`Acl::everything`] has none, and one of a file
    /// does not tell.
    #[must_use]
    pub fn listed(&self) -> Option<&[ListedRule]> {
        self.listed.as_deref()
    }

    fn new(
        users: BTreeMap<Box<str>, Arc<RuleSet>>,
        anonymous: Vec<Rule>,
        patterns: Vec<Rule>,
    ) -> Self {
        let patterns = RuleSet::new(patterns);
        Acl {
            is_everything: false,
            users,
            anonymous: Arc::new(RuleSet::new(anonymous)),
            asks_user: patterns.asks_user(),
            asks_client: patterns.asks_client(),
            listed: None,
            patterns,
        }
    }
}

/// What one client may do. Cheap to make: the rules are shared, names are kept only if a pattern asks.
#[derive(Clone, Debug)]
pub struct Rights {
    acl: Arc<Acl>,
    /// Of the user or of anonymous clients; `None` for a user that has none.
    own: Option<Arc<RuleSet>>,
    names: Names,
}

impl Rights {
    /// Of a client. Names with `+`, `#` or `/` match no `%u` or `%c`.
    #[must_use]
    pub fn new(acl: &Arc<Acl>, user_name: Option<&str>, client_id: &str) -> Self {
        let own = match user_name {
            Some(name) => acl.users.get(name),
            None => Some(&acl.anonymous),
        };
        Rights {
            own: own.map(Arc::clone),
            names: Names::new(
                user_name.filter(|_| acl.asks_user),
                acl.asks_client.then_some(client_id),
            ),
            acl: Arc::clone(acl),
        }
    }

    /// Whether it may do that with a topic. Allocates nothing; the work is bounded by the topic's
    /// levels and by the number of rules.
    #[must_use]
    pub fn allows(&self, access: Access, topic: &str) -> bool {
        let own = || self.own.as_ref()?.verdict(access, topic, &self.names);
        let patterns = || self.acl.patterns.verdict(access, topic, &self.names);
        self.acl.is_everything || own().or_else(patterns).unwrap_or(false)
    }

    /// What becomes of a subscription to `filter`, a valid one without `$share/NAME/`. Says
    /// [`Grant::Checked`] where several rules together would refuse or cover it all.
    #[must_use]
    pub fn subscribe(&self, filter: &str) -> Grant {
        self.grant(filter).0
    }

    /// What becomes of a subscription, and how many steps it took: by the rules that have topics in common with
    /// the filter, each level of a rule at most once.
    #[must_use]
    pub fn grant(&self, filter: &str) -> (Grant, usize) {
        if self.acl.is_everything {
            return (Grant::Unchecked, 1);
        }
        let (own, mut steps) = match &self.own {
            Some(rules) => Reach::of(rules, filter, &self.names),
            None => (Reach::default(), 0),
        };
        steps += 1;
        if own.denies_all {
            return (Grant::Refused, steps);
        }
        // The user's rules decide about all of it: patterns are not asked.
        if own.reads_all && !own.denies_some {
            return (Grant::Unchecked, steps);
        }
        let (patterns, more) = Reach::of(&self.acl.patterns, filter, &self.names);
        steps += more;
        if !own.reads_some && (!patterns.reads_some || patterns.denies_all) {
            return (Grant::Refused, steps);
        }
        if patterns.reads_all && !own.denies_some && !patterns.denies_some {
            return (Grant::Unchecked, steps);
        }
        (Grant::Checked, steps)
    }

    /// Whether these are rights by those rules, the same and not merely like them.
    #[must_use]
    pub fn are_by(&self, acl: &Arc<Acl>) -> bool {
        Arc::ptr_eq(&self.acl, acl)
    }

    /// Whether the other client has the same answers for every topic: the same rules of its own, and
    /// no pattern in which their names would differ. `false` may be said of rules that merely agree.
    #[must_use]
    pub fn same_rules(&self, other: &Rights) -> bool {
        if self.acl.is_everything || other.acl.is_everything {
            return self.acl.is_everything && other.acl.is_everything;
        }
        let is_own_same = match (&self.own, &other.own) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.acl, &other.acl) && is_own_same && self.names == other.names
    }
}

/// Small filters and topics, all of them, for tests that leave nothing out.
#[cfg(test)]
mod samples {
    use crate::engine::codec::topic::{TopicFilter, TopicLimits};

    /// All valid filters of up to `depth` levels.
    pub(super) fn filters(levels: &[&str], depth: usize) -> Vec<String> {
        let limits = TopicLimits {
            bytes_max: 100,
            levels_max: depth,
        };
        let mut all = topics(levels, depth);
        all.retain(|text| TopicFilter::new(text, limits).is_ok());
        all
    }

    /// All sequences of up to `depth` levels.
    pub(super) fn topics(levels: &[&str], depth: usize) -> Vec<String> {
        let mut all: Vec<String> = levels.iter().map(|&level| level.into()).collect();
        let mut longest = all.clone();
        for _ in 1..depth {
            let mut longer = Vec::new();
            for text in &longest {
                longer.extend(levels.iter().map(|level| format!("{text}/{level}")));
            }
            all.extend(longer.iter().cloned());
            longest = longer;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::topic::{TopicFilter, TopicName};

    fn rights(file: &str, user: Option<&str>, client: &str) -> Rights {
        Rights::new(&Arc::new(Acl::parse(file).unwrap()), user, client)
    }

    fn reads(rights: &Rights, topic: &str) -> bool {
        rights.allows(Access::Read, topic)
    }

    #[test]
    fn a_deny_decides_against_any_allow_of_the_same_set() {
        let bob = rights(
            "user bob\ntopic readwrite a/#\ntopic deny a/safe/#\ntopic a/safe/x",
            Some("bob"),
            "c",
        );
        assert!(reads(&bob, "a/b"));
        assert!(!reads(&bob, "a/safe"));
        assert!(!bob.allows(Access::Write, "a/safe/x"));
    }

    #[test]
    fn patterns_are_asked_only_if_no_rule_of_the_user_matches() {
        let file = "pattern deny a/+\npattern read #\nuser bob\ntopic read a/b\ntopic deny c\n\
                    topic write d";
        let bob = rights(file, Some("bob"), "c");
        assert!(reads(&bob, "a/b"), "the pattern's deny is not asked");
        assert!(!reads(&bob, "a/c"));
        assert!(!reads(&bob, "c"), "the user's deny decides");
        assert!(reads(&bob, "d"), "a rule for another access says nothing");
        assert!(reads(&bob, "e"));
        assert!(!bob.allows(Access::Write, "e"));
    }

    #[test]
    fn anonymous_rules_are_not_for_clients_with_a_name() {
        let file = "topic read a";
        assert!(reads(&rights(file, None, "c"), "a"));
        assert!(!reads(&rights(file, Some("bob"), "c"), "a"));
        assert!(!reads(&rights("", None, "c"), "a"));
    }

    #[test]
    fn patterns_name_the_client() {
        let file = "pattern read u/%u/#\npattern write c/%c";
        let bob = rights(file, Some("bob"), "dev");
        assert!(reads(&bob, "u/bob") && reads(&bob, "u/bob/x"));
        assert!(!reads(&bob, "u/eve/x") && !reads(&bob, "u/%u"));
        assert!(bob.allows(Access::Write, "c/dev") && !reads(&bob, "c/dev"));
        let nobody = rights(file, None, "dev");
        assert!(!reads(&nobody, "u/") && !reads(&nobody, "u/dev"));
        assert!(nobody.allows(Access::Write, "c/dev"));
    }

    #[test]
    fn names_are_never_wildcards_and_never_several_levels() {
        let file = "pattern read u/%u\npattern read c/%c\npattern read %c/x";
        for name in ["+", "#", "a/b", "a+", "b#", "/"] {
            let client = rights(file, Some(name), name);
            for topic in [
                "u/a", "c/a", "u/a/b", "c/a/b", "u/+", "u/a+", "a/x", "a/b/x",
            ] {
                assert!(!reads(&client, topic), "{name} reads {topic}");
            }
            for filter in ["u/+", "u/#", "#", "c/+", "u/a/b", "u//", "+/x"] {
                assert_eq!(client.subscribe(filter), Grant::Refused, "{name} {filter}");
            }
        }
    }

    #[test]
    fn a_client_named_like_a_system_topic_gets_nothing_of_it() {
        let client = rights("pattern %c/#\npattern read x/%c", None, "$SYS");
        assert!(!reads(&client, "$SYS/broker"));
        assert_eq!(client.subscribe("$SYS/#"), Grant::Refused);
        assert!(reads(&client, "x/$SYS"));
    }

    #[test]
    fn wildcards_leave_dollar_topics_out() {
        let client = rights("topic read #\ntopic read +/b\ntopic read $x/+/#", None, "c");
        assert!(!reads(&client, "$SYS/b"));
        assert!(reads(&client, "$x/b"));
        assert!(!reads(&client, "$x"));
        assert_eq!(client.subscribe("$SYS/#"), Grant::Refused);
        assert_eq!(client.subscribe("$x/#"), Grant::Checked);
        assert_eq!(client.subscribe("$x/+"), Grant::Unchecked);
    }

    #[test]
    fn everything_is_everything() {
        let client = Rights::new(&Arc::new(Acl::everything()), Some("bob"), "c");
        assert!(reads(&client, "$SYS/x") && client.allows(Access::Write, "$SYS/x"));
        assert_eq!(client.subscribe("$SYS/#"), Grant::Unchecked);
        assert!(!reads(&Rights::new(&Arc::default(), None, "c"), "a"));
    }

    #[test]
    fn rules_of_a_token_hold_for_its_holder() {
        let rules = [
            (RuleAccess::Read, "u/%u/#"),
            (RuleAccess::Deny, "u/+/safe"),
            (RuleAccess::Write, "c/%c"),
        ];
        let acl = Arc::new(Acl::from_rules(rules.into_iter()).unwrap());
        let bob = Rights::new(&acl, Some("bob"), "dev");
        assert!(reads(&bob, "u/bob/x") && !reads(&bob, "u/bob/safe") && !reads(&bob, "u/eve"));
        assert!(bob.allows(Access::Write, "c/dev"));
        let none = Arc::new(Acl::from_rules([].into_iter()).unwrap());
        assert!(!reads(&Rights::new(&none, Some("bob"), "dev"), "u/bob/x"));
    }

    #[test]
    fn a_subscription_is_refused_checked_or_not_by_what_may_be_read() {
        let file = "user bob\ntopic read a/#\ntopic write w/#\ntopic deny a/safe\n\
                    pattern read home/%u/#\npattern read p/#\npattern deny p/x/#";
        let bob = rights(file, Some("bob"), "c");
        for (filter, grant) in [
            ("a/b", Grant::Unchecked),
            ("a/+", Grant::Checked),
            ("a/b/#", Grant::Unchecked),
            ("a/safe", Grant::Refused),
            ("#", Grant::Checked),
            ("w/x", Grant::Refused),
            ("home/bob/+", Grant::Unchecked),
            ("home/+/x", Grant::Checked),
            ("home/eve/#", Grant::Refused),
            ("p/#", Grant::Checked),
            ("p/x/y", Grant::Refused),
            ("p/y", Grant::Unchecked),
            ("+", Grant::Checked),
        ] {
            assert_eq!(bob.subscribe(filter), grant, "{filter}");
        }
        let both = rights("user bob\ntopic a\npattern deny a", Some("bob"), "c");
        assert_eq!(both.subscribe("a"), Grant::Unchecked);
    }

    #[test]
    fn rights_are_the_same_if_no_answer_can_differ() {
        let same = |file: &str, one: (Option<&str>, &str), two: (Option<&str>, &str)| {
            let acl = Arc::new(Acl::parse(file).unwrap());
            Rights::new(&acl, one.0, one.1).same_rules(&Rights::new(&acl, two.0, two.1))
        };
        let bob = Some("bob");
        let file = "topic a\nuser bob\ntopic b\npattern c";
        assert!(same(file, (bob, "1"), (bob, "2")));
        assert!(same(file, (None, "1"), (None, "2")));
        assert!(!same(file, (bob, "1"), (None, "1")));
        assert!(!same(file, (bob, "1"), (Some("eve"), "1")));
        assert!(same(file, (Some("joe"), "1"), (Some("eve"), "2")));
        let client = "pattern x/%c";
        assert!(!same(client, (bob, "1"), (bob, "2")));
        assert!(same(client, (bob, "1"), (bob, "1")));
        let user = "pattern x/%u";
        assert!(same(user, (bob, "1"), (bob, "2")));
        assert!(!same(user, (bob, "1"), (Some("eve"), "1")));
        let other = rights(file, bob, "1");
        assert!(!other.same_rules(&rights(file, bob, "1")), "another Acl");
        let all = || Rights::new(&Arc::new(Acl::everything()), bob, "1");
        assert!(all().same_rules(&all()) && !all().same_rules(&other));
    }

    /// A small generator, so that a failing case can be named by its seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) % end as u64) as usize
        }

        /// Up to `count` rules: as they stand in a file, and as they are.
        fn rules(&mut self, count: usize, filters: &[String]) -> Vec<(RuleAccess, String)> {
            (0..self.below(count + 1))
                .map(|_| {
                    let access = [
                        RuleAccess::Read,
                        RuleAccess::Write,
                        RuleAccess::ReadWrite,
                        RuleAccess::Deny,
                    ][self.below(4)];
                    (access, filters[self.below(filters.len())].clone())
                })
                .collect()
        }
    }

    fn written(keyword: &str, rules: &[(RuleAccess, String)]) -> String {
        let line = |(access, filter): &(RuleAccess, String)| {
            let access = format!("{access:?}").to_lowercase();
            format!("{keyword} {access} {filter}\n")
        };
        rules.iter().map(line).collect()
    }

    /// What one set says by the plain definition.
    fn plain_verdict(rules: &[(RuleAccess, String)], access: Access, topic: &str) -> Option<bool> {
        let topic = TopicName::trusted(topic);
        let matching: Vec<_> = rules
            .iter()
            .filter(|(_, filter)| TopicFilter::trusted(filter).matches(topic))
            .map(|(access, _)| *access)
            .collect();
        let wanted = match access {
            Access::Read => RuleAccess::Read,
            Access::Write => RuleAccess::Write,
        };
        if matching.contains(&RuleAccess::Deny) {
            return Some(false);
        }
        let allows = matching.contains(&wanted) || matching.contains(&RuleAccess::ReadWrite);
        allows.then_some(true)
    }

    /// The rules with names in place; those that ask for a name that is missing fall out.
    fn filled(
        rules: &[(RuleAccess, String)],
        user: Option<&str>,
        client: &str,
    ) -> Vec<(RuleAccess, String)> {
        let fill = |(access, filter): &(RuleAccess, String)| {
            let asks_dollar = filter.starts_with("%c") && client.starts_with('$');
            if (filter.contains("%u") && user.is_none()) || asks_dollar {
                return None;
            }
            let filter = filter.replace("%u", user.unwrap_or_default());
            Some((*access, filter.replace("%c", client)))
        };
        rules.iter().filter_map(fill).collect()
    }

    #[test]
    fn small_rule_sets_answer_as_the_plain_definition_and_grants_keep_their_promise() {
        let topics = samples::topics(&["a", "b", "c", "$x"], 4);
        let filters = samples::filters(&["a", "b", "$x", "+", "#"], 3);
        let patterns = samples::filters(&["a", "%u", "%c", "+", "#"], 3);
        let mut counts = [0; 3];
        for seed in 1..=240 {
            let mut random = Random(seed);
            let own = random.rules(3, &filters);
            let shared = random.rules(4, &patterns);
            let user = [None, Some("a"), Some("b")][random.below(3)];
            let client = ["a", "b", "$x"][random.below(3)];
            let section = user.map_or(String::new(), |name| format!("user {name}\n"));
            let file = section + &written("topic", &own) + &written("pattern", &shared);
            let rights = rights(&file, user, client);
            let case = format!("seed {seed}, user {user:?}, client {client}, file:\n{file}");
            let shared = filled(&shared, user, client);
            for topic in &topics {
                for access in [Access::Read, Access::Write] {
                    let wanted = plain_verdict(&own, access, topic)
                        .or_else(|| plain_verdict(&shared, access, topic))
                        .unwrap_or(false);
                    let found = rights.allows(access, topic);
                    assert_eq!(found, wanted, "{access:?} {topic}, {case}");
                }
            }
            for filter in &filters {
                let grant = rights.subscribe(filter);
                counts[grant as usize] += 1;
                let matches = TopicFilter::trusted(filter);
                let mut answers = topics
                    .iter()
                    .filter(|topic| matches.matches(TopicName::trusted(topic)))
                    .map(|topic| reads(&rights, topic));
                let holds = match grant {
                    Grant::Refused => !answers.any(|allowed| allowed),
                    Grant::Unchecked => answers.all(|allowed| allowed),
                    Grant::Checked => true,
                };
                assert!(holds, "{grant:?} for {filter}, {case}");
            }
        }
        assert!(counts.iter().all(|&count| count > 500), "{counts:?}");
    }

    #[test]
    fn the_grant_of_a_single_rule_is_exact() {
        let topics = samples::topics(&["a", "b", "c", "$x"], 4);
        let filters = samples::filters(&["a", "b", "$x", "+", "#"], 3);
        for rule in &filters {
            let rights = rights(&format!("topic read {rule}"), None, "c");
            for filter in &filters {
                let matches = TopicFilter::trusted(filter);
                let answers: Vec<_> = topics
                    .iter()
                    .filter(|topic| matches.matches(TopicName::trusted(topic)))
                    .map(|topic| reads(&rights, topic))
                    .collect();
                let wanted = match (answers.contains(&true), answers.contains(&false)) {
                    (false, _) => Grant::Refused,
                    (true, true) => Grant::Checked,
                    (true, false) => Grant::Unchecked,
                };
                assert_eq!(rights.subscribe(filter), wanted, "{filter} under {rule}");
            }
        }
    }
}
