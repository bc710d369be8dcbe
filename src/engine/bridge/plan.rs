//! What a bridge is told: who it is on both sides, and which topics it carries which way.
//!
//! Invariant: prefixes have no wildcards, and a prefix with the filter behind it is a valid filter; the
//! configuration sees to that.

use crate::engine::access::Secret;
use crate::engine::codec::Version;
use crate::engine::codec::topic::{TopicFilter, TopicLimits, TopicName};
use crate::engine::limits::OwnQueue;
use crate::engine::message::Qos;
use crate::engine::route::TopicPart;
use std::sync::Arc;

/// Which way messages go by a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the remote broker to this one.
    In,
    /// From this broker to the remote one.
    #[default]
    Out,
    /// Both ways.
    Both,
}

impl Direction {
    /// Whether messages go to the remote broker.
    #[must_use]
    pub const fn goes_out(self) -> bool {
        matches!(self, Direction::Out | Direction::Both)
    }

    /// Whether messages come from it.
    #[must_use]
    pub const fn comes_in(self) -> bool {
        matches!(self, Direction::In | Direction::Both)
    }
}

/// What becomes of RETAIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetainRule {
    /// As it was published.
    #[default]
    Keep,
    /// Never set.
    Drop,
    /// Always set.
    Set,
}

impl RetainRule {
    const fn of(self, retain: bool) -> bool {
        match self {
            RetainRule::Keep => retain,
            RetainRule::Drop => false,
            RetainRule::Set => true,
        }
    }
}

/// Topics that a bridge carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// Which, behind the prefixes.
    pub filter: Box<str>,
    /// Which way.
    pub direction: Direction,
    /// What stands before it here.
    pub local_prefix: Box<str>,
    /// What stands before it there.
    pub remote_prefix: Box<str>,
    /// Highest QoS.
    pub qos_max: Qos,
    /// What becomes of RETAIN.
    pub retain: RetainRule,
}

impl Default for TopicRule {
    fn default() -> Self {
        TopicRule {
            filter: "#".into(),
            direction: Direction::Out,
            local_prefix: "".into(),
            remote_prefix: "".into(),
            qos_max: Qos::ExactlyOnce,
            retain: RetainRule::Keep,
        }
    }
}

impl TopicRule {
    /// The filter that is subscribed to here.
    #[must_use]
    pub fn local_filter(&self) -> String {
        format!("{}{}", self.local_prefix, self.filter)
    }

    /// The filter that is subscribed to there.
    #[must_use]
    pub fn remote_filter(&self) -> String {
        format!("{}{}", self.remote_prefix, self.filter)
    }

    /// RETAIN of what had it so.
    #[must_use]
    pub const fn retain(&self, retain: bool) -> bool {
        self.retain.of(retain)
    }
}

/// Rules made ready for the way of each message: the first that matches a topic says where it goes.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    /// The whole filter, on the side from which messages come.
    filter: Box<str>,
    /// Whether all that begins with the prefix matches.
    takes_all: bool,
    taken_off_bytes: usize,
    put_before: Box<str>,
    /// Place of its rule.
    rule: usize,
}

impl Route {
    fn matches(&self, topic: &str) -> bool {
        let prefix = self.filter.get(..self.taken_off_bytes).unwrap_or_default();
        if self.takes_all && !prefix.is_empty() && topic.starts_with(prefix) {
            return true;
        }
        TopicFilter::trusted(&self.filter).matches(TopicName::trusted(topic))
    }

    /// What a topic that matches is called on the other side. `a/#` matches `a` too, which is the other
    /// prefix without what divides levels.
    fn rename(&self, topic: &str, into: &mut String) {
        into.clear();
        into.push_str(&self.put_before);
        match topic.get(self.taken_off_bytes..) {
            Some(rest) => into.push_str(rest),
            None if into.ends_with('/') => drop(into.pop()),
            None => {}
        }
    }
}

impl Routes {
    fn of<'a>(
        rules: impl Iterator<Item = (usize, &'a TopicRule)>,
        sides: impl Fn(&'a TopicRule) -> (&'a str, &'a str),
    ) -> Self {
        let route = |(rule, of): (usize, &'a TopicRule)| {
            let (from, to) = sides(of);
            Route {
                filter: format!("{from}{}", of.filter).into(),
                takes_all: &*of.filter == "#" && (from.is_empty() || from.ends_with('/')),
                taken_off_bytes: from.len(),
                put_before: to.into(),
                rule,
            }
        };
        Routes {
            routes: rules.map(route).collect(),
        }
    }

    /// The place of the rule for a topic, and in `into` what it is called on the other side.
    pub fn find(&self, topic: &str, into: &mut String) -> Option<usize> {
        let route = self.routes.iter().find(|route| route.matches(topic))?;
        route.rename(topic, into);
        Some(route.rule)
    }
}

/// A protocol that an attempt speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its version.
    pub version: Version,
    /// Whether the level says that a bridge speaks; 3.x only.
    pub says_bridge: bool,
}

impl Protocol {
    /// 5.0.
    pub const V5: Protocol = Protocol {
        version: Version::V5,
        says_bridge: false,
    };
    /// 3.1.1 with the bridge bit.
    pub const V3_1_1_BRIDGE: Protocol = Protocol {
        version: Version::V3_1_1,
        says_bridge: true,
    };
    /// 3.1.1 as clients speak it.
    pub const V3_1_1: Protocol = Protocol {
        version: Version::V3_1_1,
        says_bridge: false,
    };
}

/// What this broker takes of a bridge, as of any client.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Bounds of topics.
    pub topics: TopicLimits,
    /// Largest packet.
    pub packet_bytes_max: usize,
    /// Most QoS 1 and 2 messages unacknowledged.
    pub receive_maximum: u16,
    /// Highest QoS.
    pub qos_max: Qos,
    /// Whether anything is retained.
    pub retain_available: bool,
    /// How long CONNACK may take.
    pub connect_timeout_ms: u64,
}

/// What the remote broker is known to take beside what it says in CONNACK; beyond it services end the
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Highest QoS.
    pub qos_max: Qos,
    /// Whether RETAIN may be set.
    pub takes_retained: bool,
    /// Largest payload.
    pub payload_bytes_max: usize,
    /// Longest topic.
    pub topic_bytes_max: usize,
    /// Bytes that no topic may have.
    pub topic_never_has: &'static [u8],
    /// Most levels of a topic.
    pub topic_levels_max: usize,
    /// Most filters in one SUBSCRIBE.
    pub filters_per_subscribe_max: usize,
}

impl Known {
    /// Nothing is known beforehand.
    pub const NOTHING: Known = Known {
        qos_max: Qos::ExactlyOnce,
        takes_retained: true,
        payload_bytes_max: usize::MAX,
        topic_bytes_max: u16::MAX as usize,
        topic_never_has: b"",
        topic_levels_max: usize::MAX,
        filters_per_subscribe_max: 64,
    };

    /// Whether it takes a topic.
    #[must_use]
    pub fn takes_topic(&self, topic: &str) -> bool {
        let levels = || 1 + topic.bytes().filter(|byte| *byte == b'/').count();
        !topic.is_empty()
            && topic.len() <= self.topic_bytes_max
            && (self.topic_never_has.is_empty()
                || !topic
                    .bytes()
                    .any(|byte| self.topic_never_has.contains(&byte)))
            && (self.topic_levels_max == usize::MAX || levels() <= self.topic_levels_max)
    }
}

/// A bridge as its line has to know it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: Box<str>,
    /// Client identifier of its session here.
    pub session_id: Box<str>,
    /// As whom access rules see it.
    pub local_user: Box<str>,
    /// Client identifier there.
    pub client_id: Box<str>,
    /// User name there.
    pub user_name: Option<Box<str>>,
    /// Password there.
    pub password: Option<Secret>,
    /// Keep alive, 0 for none.
    pub keep_alive_seconds: u16,
    /// Milliseconds after which the line ends, since what it has shown does soon.
    pub lasts_ms: Option<u64>,
    /// Milliseconds without a message after which the line ends until something waits for it.
    pub idle_ms: Option<u64>,
    /// Whether both sides keep a session while the line is down.
    pub is_persistent: bool,
    /// Bounds of what waits for it here that are not those of any client.
    pub queue: OwnQueue,
    /// The part of all topics that this one of several connections carries.
    pub part: Option<TopicPart>,
    /// What it carries; shared with its configuration.
    pub topics: Arc<[TopicRule]>,
    /// Most topics that stand as a number on the wire, if the remote broker takes as many; 5.0 only.
    pub topic_alias_max: u16,
    /// What the remote broker is known to take.
    pub known: Known,
    /// Where the remote broker is told whether the line is up.
    pub remote_state_topic: Option<Box<str>>,
    /// What this broker is called in lists of hops.
    pub broker_name: Box<str>,
    /// Most brokers that a message may have left before; 0 keeps no list.
    pub hops_max: usize,
    /// What this broker takes.
    pub taken: Taken,
}

impl Plan {
    /// Whether it asks the remote broker for what comes in by a rule. Of several connections the first does;
    /// for what goes both ways each does, and takes its part: No Local is for what the same connection has
    /// sent.
    #[must_use]
    pub fn asks_for(&self, rule: &TopicRule) -> bool {
        let is_first = self.part.is_none_or(|part| part.index == 0);
        rule.direction.comes_in() && (is_first || rule.direction.goes_out())
    }

    /// Whether a message that came in by a rule, and is called so here, is for this connection.
    #[must_use]
    pub fn takes_in(&self, rule: &TopicRule, topic: &str) -> bool {
        let is_shared = rule.direction.goes_out();
        self.part.is_none_or(|part| !is_shared || part.has(topic))
    }

    /// The way of messages to the remote broker.
    #[must_use]
    pub fn routes_out(&self) -> Routes {
        let rules = (0..).zip(self.topics.iter());
        let rules = rules.filter(|(_, rule)| rule.direction.goes_out());
        Routes::of(rules, |rule| (&*rule.local_prefix, &*rule.remote_prefix))
    }

    /// The way of messages from it.
    #[must_use]
    pub fn routes_in(&self) -> Routes {
        let rules = (0..).zip(self.topics.iter());
        let rules = rules.filter(|(_, rule)| rule.direction.comes_in());
        Routes::of(rules, |rule| (&*rule.remote_prefix, &*rule.local_prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rules: &[(&str, Direction, &str, &str)]) -> Vec<TopicRule> {
        let rule = |(filter, direction, local, remote): &(&str, Direction, &str, &str)| TopicRule {
            filter: (*filter).into(),
            direction: *direction,
            local_prefix: (*local).into(),
            remote_prefix: (*remote).into(),
            ..TopicRule::default()
        };
        rules.iter().map(rule).collect()
    }

    fn out(rules: &[TopicRule], topic: &str) -> Option<(usize, String)> {
        let routes = Routes::of((0..).zip(rules), |rule| {
            (&*rule.local_prefix, &*rule.remote_prefix)
        });
        let mut mapped = String::new();
        Some((routes.find(topic, &mut mapped)?, mapped))
    }

    #[test]
    fn prefixes_are_swapped_by_the_first_rule_that_matches() {
        let rules = plan(&[
            ("a/+", Direction::Out, "", "site/1/"),
            ("#", Direction::Out, "plant/", "p/"),
            ("", Direction::Out, "here", "there"),
            ("#", Direction::Out, "", ""),
        ]);
        let to = |topic| out(&rules, topic);
        assert_eq!(to("a/b"), Some((0, "site/1/a/b".into())));
        assert_eq!(to("a/b/c"), Some((3, "a/b/c".into())));
        assert_eq!(to("plant/x/y"), Some((1, "p/x/y".into())));
        assert_eq!(to("plant"), Some((1, "p".into())));
        assert_eq!(to("here"), Some((2, "there".into())));
        assert_eq!(to("$SYS/x"), None);
    }

    #[test]
    fn what_no_rule_names_goes_nowhere() {
        let rules = plan(&[
            ("b", Direction::Both, "x/", "y/"),
            ("#", Direction::Out, "d", "e"),
        ]);
        assert_eq!(out(&rules, "b"), None);
        assert_eq!(out(&rules, "x/b"), Some((0, "y/b".into())));
        assert_eq!(out(&rules, "x/b/c"), None);
    }

    #[test]
    fn retain_is_kept_dropped_or_set() {
        let of = |retain| TopicRule {
            retain,
            ..TopicRule::default()
        };
        assert!(of(RetainRule::Keep).retain(true) && !of(RetainRule::Keep).retain(false));
        assert!(!of(RetainRule::Drop).retain(true) && of(RetainRule::Set).retain(false));
    }
}
