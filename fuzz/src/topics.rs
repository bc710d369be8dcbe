//! Topic names and filters: what is valid, what is shared, what matches, against the plain reading of
//! the standard.
//!
//! Input: one byte of limits, a filter, a byte 0xFF, a topic name.

use ringmq::engine::codec::topic::{Subscribed, TopicError, TopicFilter, TopicLimits, TopicName};

/// One filter and one name.
pub fn topics(input: &[u8]) {
    let [limits, rest @ ..] = input else { return };
    let mut parts = rest.splitn(2, |byte| *byte == 0xFF);
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default()).ok();
    let (Some(filter), Some(topic)) = (text(), text()) else {
        return;
    };
    let limits = TopicLimits {
        bytes_max: 1 + usize::from(limits >> 4) * 8,
        levels_max: 1 + usize::from(limits & 0x0F),
    };
    let name = TopicName::new(topic, limits);
    assert_eq!(name.map(|_| ()), model_name(topic, limits), "{topic:?}");
    check_subscribed(filter, limits);
    let parsed = TopicFilter::new(filter, limits);
    assert_eq!(
        parsed.map(|_| ()),
        model_filter(filter, limits),
        "{filter:?}"
    );
    let Ok(parsed) = parsed else { return };
    assert_eq!(parsed.has_wildcard(), filter.contains(['+', '#']));
    let Ok(name) = name else { return };
    let levels: Vec<_> = filter.split('/').collect();
    let of_topic: Vec<_> = topic.split('/').collect();
    let sees = !topic.starts_with('$') || (levels[0] != "+" && levels[0] != "#");
    let wanted = sees && model_match(&levels, &of_topic);
    assert_eq!(parsed.matches(name), wanted, "{filter:?} and {topic:?}");
}

fn check_bounds(text: &str, limits: TopicLimits) -> Result<(), TopicError> {
    if text.is_empty() {
        Err(TopicError::Empty)
    } else if text.len() > limits.bytes_max {
        Err(TopicError::TooLong)
    } else {
        Ok(())
    }
}

fn check_depth(text: &str, limits: TopicLimits) -> Result<(), TopicError> {
    if text.matches('/').count() < limits.levels_max {
        Ok(())
    } else {
        Err(TopicError::TooDeep)
    }
}

fn model_name(text: &str, limits: TopicLimits) -> Result<(), TopicError> {
    check_bounds(text, limits)?;
    if text.contains('+') || text.contains('#') {
        return Err(TopicError::Wildcard);
    }
    check_depth(text, limits)
}

fn model_filter(text: &str, limits: TopicLimits) -> Result<(), TopicError> {
    check_bounds(text, limits)?;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let before = at == 0 || bytes[at - 1] == b'/';
        let is_last = at + 1 == bytes.len();
        let after = is_last || bytes[at + 1] == b'/';
        let is_fine = match byte {
            b'#' => before && is_last,
            b'+' => before && after,
            _ => true,
        };
        if !is_fine {
            return Err(TopicError::Wildcard);
        }
    }
    check_depth(text, limits)
}

/// The plain definition of 4.7, level by level, without the rule on `$`.
pub(crate) fn model_match(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => model_match(filter, topic),
        ([wanted, filter @ ..], [level, topic @ ..]) => {
            wanted == level && model_match(filter, topic)
        }
        _ => false,
    }
}

fn check_subscribed(text: &str, limits: TopicLimits) {
    let parsed = Subscribed::new(text, limits);
    let parts: Vec<_> = text.splitn(3, '/').collect();
    if parts[0] == "$queue" {
        let long = format!("$share/{text}");
        let shared = Subscribed::new(&long, limits);
        let wanted = if parts.len() == 1 {
            Err(TopicError::ShareName)
        } else {
            shared
        };
        assert_eq!(parsed, wanted, "{text:?}");
        return;
    }
    if parts[0] != "$share" {
        let plain = TopicFilter::new(text, limits).map(|filter| (None, filter.as_str()));
        let found = parsed.map(|found| (found.share, found.filter.as_str()));
        assert_eq!(found, plain, "{text:?}");
        return;
    }
    let [_, name, filter] = parts[..] else {
        assert_eq!(parsed, Err(TopicError::ShareName), "{text:?}");
        return;
    };
    let is_fine = !name.is_empty() && !name.contains(['+', '#']) && !filter.is_empty();
    let wanted = if !is_fine {
        Err(TopicError::ShareName)
    } else if name.len() > limits.bytes_max {
        Err(TopicError::TooLong)
    } else {
        model_filter(filter, limits).map(|()| (Some(name), filter))
    };
    let found = parsed.map(|found| (found.share, found.filter.as_str()));
    assert_eq!(found, wanted, "{text:?}");
}
