//! Access files: read without a panic, and what a subscription is granted agrees with what may be read.
//!
//! Input: an access file, a client identifier, a filter and a topic name, with bytes 0xFF between.

use crate::topics::model_match;
use ringmq::engine::access::acl::{Access, Acl, Grant, Rights};
use ringmq::engine::codec::topic::{TopicFilter, TopicLimits, TopicName};
use std::sync::Arc;

const LIMITS: TopicLimits = TopicLimits {
    bytes_max: 1_024,
    levels_max: 128,
};

/// Users of the file that are tried.
const USERS_MAX: usize = 4;

/// One file, some clients, one filter, a few topics.
pub fn acl(input: &[u8]) {
    let mut parts = input.splitn(4, |byte| *byte == 0xFF);
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default()).ok();
    let (Some(file), Some(client), Some(filter), Some(topic)) = (text(), text(), text(), text())
    else {
        return;
    };
    let acl = match Acl::parse(file) {
        Ok(acl) => Arc::new(acl),
        Err(error) => {
            assert!(error.line >= 1 && error.line <= file.lines().count());
            assert!(error.to_string().len() < 1_000, "{error}");
            return;
        }
    };
    let named = file.lines().filter_map(|line| line.strip_prefix("user "));
    let mut users: Vec<_> = named
        .take(USERS_MAX)
        .map(|name| Some(name.trim()))
        .collect();
    users.extend([None, Some(client)]);
    let clients: Vec<_> = users
        .iter()
        .map(|user| Rights::new(&acl, *user, client))
        .collect();
    let topics = topics(filter, topic);
    for rights in &clients {
        check_grant(rights, filter, &topics);
        for other in &clients {
            check_same(rights, other, &topics);
        }
    }
}

/// The topic, and some that the filter matches or nearly matches.
fn topics(filter: &str, topic: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![topic.into(), "a".into(), "a/b".into(), "$SYS/a".into()];
    for level in ["a", "b", ""] {
        let with = |end: &str| {
            let levels = filter.split('/').map(|wanted| match wanted {
                "+" => level,
                "#" => end,
                _ => wanted,
            });
            levels.collect::<Vec<_>>().join("/")
        };
        found.push(with(level));
        found.push(with("a/b"));
    }
    if let Some(parent) = filter.strip_suffix("/#") {
        found.push(parent.replace('+', "a"));
    }
    found.retain(|topic| TopicName::new(topic, LIMITS).is_ok());
    found
}

fn check_grant(rights: &Rights, filter: &str, topics: &[String]) {
    let grant = rights.subscribe(filter);
    if TopicFilter::new(filter, LIMITS).is_err() {
        return;
    }
    let levels: Vec<_> = filter.split('/').collect();
    for topic in topics {
        let sees = !topic.starts_with('$') || (levels[0] != "+" && levels[0] != "#");
        let of_topic: Vec<_> = topic.split('/').collect();
        if !sees || !model_match(&levels, &of_topic) {
            continue;
        }
        let allowed = rights.allows(Access::Read, topic);
        assert!(
            !allowed || grant != Grant::Refused,
            "{filter:?} is refused, {topic:?} may be read"
        );
        assert!(
            allowed || grant != Grant::Unchecked,
            "{filter:?} is not checked, {topic:?} may not be read"
        );
    }
    // One topic alone: what is granted is what is allowed, or has to be checked.
    for topic in topics {
        match rights.subscribe(topic) {
            Grant::Checked => {}
            grant => assert_eq!(
                grant == Grant::Unchecked,
                rights.allows(Access::Read, topic),
                "{topic:?}"
            ),
        }
    }
}

fn check_same(one: &Rights, two: &Rights, topics: &[String]) {
    assert_eq!(one.same_rules(two), two.same_rules(one));
    if !one.same_rules(two) {
        return;
    }
    for topic in topics {
        for access in [Access::Read, Access::Write] {
            assert_eq!(one.allows(access, topic), two.allows(access, topic));
        }
    }
}
