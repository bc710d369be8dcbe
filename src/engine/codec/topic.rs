//! Topic names and topic filters: valid by construction (4.7, 4.8.2).
//!
//! A [`TopicName`] or [`TopicFilter`] that exists obeys the standard and the broker's limits, so that
//! routing never checks again. Strings come from the decoder: UTF-8 without NUL.

use super::Reason;
use std::fmt;

/// Bounds on topics beyond the protocol's 65,535 bytes.
#[derive(Clone, Copy, Debug)]
pub struct TopicLimits {
    /// Longest topic name or filter, without `$share/NAME/`.
    pub bytes_max: usize,
    /// Most levels; bounds the depth of the trie and of a wildcard walk.
    pub levels_max: usize,
}

/// Why a topic name or filter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// It has no character `[MQTT-4.7.3-1]`.
    Empty,
    /// A wildcard in a name, or one that shares its level or is not last `[MQTT-4.7.1-1]`.
    Wildcard,
    /// It is longer than the broker allows.
    TooLong,
    /// It has more levels than the broker allows.
    TooDeep,
    /// The share name is empty or has a wildcard, or no filter follows `[MQTT-4.8.2-1]`.
    ShareName,
}

impl TopicError {
    /// Reason code for SUBACK or UNSUBACK.
    #[must_use]
    pub const fn filter_reason(self) -> Reason {
        match self {
            TopicError::TooLong | TopicError::TooDeep => Reason::QuotaExceeded,
            TopicError::Empty | TopicError::Wildcard | TopicError::ShareName => {
                Reason::TopicFilterInvalid
            }
        }
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopicError::Empty => "it is empty",
            TopicError::Wildcard => "a wildcard stands where it must not",
            TopicError::TooLong => "it is longer than limits.topic_bytes_max",
            TopicError::TooDeep => "it has more levels than limits.topic_levels_max",
            TopicError::ShareName => "it is not of the form $share/NAME/FILTER",
        })
    }
}

/// What begins a shared subscription without a share name, as EMQX has it.
const QUEUE: &str = "$queue";

/// Whether a filter is for a share group, as far as its beginning says.
#[must_use]
pub fn is_shared(filter: &str) -> bool {
    let first = filter.split_once('/').map(|(first, _)| first);
    matches!(first, Some("$share" | QUEUE))
}

/// Whether a topic is the broker's own, so that clients do not publish to it: `$SYS`, and what begins shared
/// subscriptions. Others with `$` are passed on like any (4.7.2).
#[must_use]
pub fn is_reserved(topic: &str) -> bool {
    // Asked for each publish.
    if topic.as_bytes().first() != Some(&b'$') {
        return false;
    }
    let first = topic.split_once('/').map_or(topic, |(first, _)| first);
    matches!(first, "$SYS" | "$share" | QUEUE)
}

/// Whether a text has `+` or `#`.
#[inline]
#[must_use]
pub fn has_wildcard(text: &str) -> bool {
    // Asked for each publish. To look at all of it takes few steps for many bytes, to stop at the first one
    // for each.
    let is_one = |byte| (byte == b'+') | (byte == b'#');
    text.bytes().fold(false, |found, byte| found | is_one(byte))
}

/// A topic name a message may be published to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks `text` `[MQTT-4.7.0-1]` `[MQTT-4.7.3-1]`.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn new(text: &'a str, limits: TopicLimits) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > limits.bytes_max {
            return Err(TopicError::TooLong);
        }
        if has_wildcard(text) {
            return Err(TopicError::Wildcard);
        }
        if text.bytes().filter(|byte| *byte == b'/').count() >= limits.levels_max {
            Err(TopicError::TooDeep)
        } else {
            Ok(TopicName(text))
        }
    }

    /// The topic of a message that was checked when it was accepted, on this shard or another.
    #[must_use]
    pub const fn trusted(text: &'a str) -> Self {
        TopicName(text)
    }

    /// Its text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether wildcards at the first level leave it out `[MQTT-4.7.2-1]`.
    #[must_use]
    pub fn is_dollar(self) -> bool {
        self.0.starts_with('$')
    }
}

/// A topic filter, without its share name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter<'a>(&'a str);

impl<'a> TopicFilter<'a> {
    /// Checks `text` `[MQTT-4.7.1-1]` `[MQTT-4.7.1-2]` `[MQTT-4.7.3-1]`.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn new(text: &'a str, limits: TopicLimits) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > limits.bytes_max {
            return Err(TopicError::TooLong);
        }
        let mut levels = 0;
        let mut closed = false;
        for level in text.split('/') {
            levels += 1;
            if closed || (level.len() > 1 && has_wildcard(level)) {
                return Err(TopicError::Wildcard);
            }
            closed = level == "#";
        }
        if levels > limits.levels_max {
            Err(TopicError::TooDeep)
        } else {
            Ok(TopicFilter(text))
        }
    }

    /// A filter that another shard checked before it told this one.
    #[must_use]
    pub const fn trusted(text: &'a str) -> Self {
        TopicFilter(text)
    }

    /// Its text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether it has `+` or `#`.
    #[must_use]
    pub fn has_wildcard(self) -> bool {
        has_wildcard(self.0)
    }

    /// Whether it matches `topic` (4.7); the plain definition, for tests and single checks.
    #[must_use]
    pub fn matches(self, topic: TopicName<'_>) -> bool {
        if topic.is_dollar() && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.0.split('/');
        for wanted in self.0.split('/') {
            if wanted == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

/// What a client subscribes to: a filter, perhaps as a member of a share group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subscribed<'a> {
    /// The share name of `$share/NAME/FILTER`.
    pub share: Option<&'a str>,
    /// The filter proper.
    pub filter: TopicFilter<'a>,
}

impl<'a> Subscribed<'a> {
    /// Splits off and checks the share name `[MQTT-4.8.2-1]` `[MQTT-4.8.2-2]`, then the filter.
    /// `$queue/FILTER` is `$share/$queue/FILTER`.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn new(text: &'a str, limits: TopicLimits) -> Result<Self, TopicError> {
        let (name, filter) = match text.split_once('/') {
            Some(("$share", shared)) => shared.split_once('/').ok_or(TopicError::ShareName)?,
            Some((QUEUE, filter)) => (QUEUE, filter),
            None if is_reserved(text) && text != "$SYS" => return Err(TopicError::ShareName),
            _ => {
                return Ok(Subscribed {
                    share: None,
                    filter: TopicFilter::new(text, limits)?,
                });
            }
        };
        if name.is_empty() || has_wildcard(name) || filter.is_empty() {
            return Err(TopicError::ShareName);
        }
        if name.len() > limits.bytes_max {
            return Err(TopicError::TooLong);
        }
        Ok(Subscribed {
            share: Some(name),
            filter: TopicFilter::new(filter, limits)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TopicLimits = TopicLimits {
        bytes_max: 64,
        levels_max: 8,
    };

    fn matches(filter: &str, topic: &str) -> bool {
        let filter = TopicFilter::new(filter, LIMITS).unwrap();
        filter.matches(TopicName::new(topic, LIMITS).unwrap())
    }

    #[test]
    fn wildcards_match_as_the_standard_shows() {
        assert!(matches("sport/#", "sport"));
        assert!(matches("sport/#", "sport/tennis/player1"));
        assert!(!matches("sport/#", "sports"));
        assert!(matches("sport/+", "sport/"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("+/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(!matches("#", "$SYS/x"));
        assert!(!matches("+/x", "$SYS/x"));
        assert!(matches("$SYS/#", "$SYS/x"));
        assert!(matches("a/+/b", "a//b"));
        assert!(!matches("a", "A"));
    }

    #[test]
    fn misplaced_wildcards_are_refused() {
        for filter in ["a#", "a/#/b", "##", "a+", "+a/b", "a/b+", "#/"] {
            assert_eq!(
                TopicFilter::new(filter, LIMITS),
                Err(TopicError::Wildcard),
                "{filter}"
            );
        }
        for topic in ["a/+", "#", "a+b"] {
            assert_eq!(
                TopicName::new(topic, LIMITS),
                Err(TopicError::Wildcard),
                "{topic}"
            );
        }
        assert!(TopicFilter::new("+/a/+", LIMITS).is_ok());
    }

    #[test]
    fn share_names_are_split_and_checked() {
        let parsed = Subscribed::new("$share/consumer1//finance", LIMITS).unwrap();
        assert_eq!(
            (parsed.share, parsed.filter.as_str()),
            (Some("consumer1"), "/finance")
        );
        for text in [
            "$share//a",
            "$share/g",
            "$share/g/",
            "$share/+/a",
            "$share/g#/a",
            "$share",
            "$queue",
            "$queue/",
        ] {
            assert_eq!(
                Subscribed::new(text, LIMITS),
                Err(TopicError::ShareName),
                "{text}"
            );
        }
        for text in ["$shared/g/a", "$queues/a", "$aws/a", "$SYS", "$SYS/#"] {
            let parsed = Subscribed::new(text, LIMITS).unwrap();
            assert_eq!((parsed.share, parsed.filter.as_str()), (None, text));
            assert!(!is_shared(text));
        }
        let queue = Subscribed::new("$queue/a/#", LIMITS);
        assert_eq!(queue, Subscribed::new("$share/$queue/a/#", LIMITS));
        assert_eq!(queue.unwrap().filter.as_str(), "a/#");
        assert!(is_shared("$queue/a") && is_shared("$share/g/a"));
    }

    #[test]
    fn some_topics_are_the_brokers_own() {
        for topic in ["$SYS", "$SYS/a", "$share", "$share/a", "$queue", "$queue/a"] {
            assert!(is_reserved(topic), "{topic}");
        }
        for topic in [
            "$",
            "$SYSTEM",
            "$SYSTEM/a",
            "$aws/a",
            "$ext/a",
            "a",
            "a/$SYS",
        ] {
            assert!(!is_reserved(topic), "{topic}");
        }
    }

    #[test]
    fn limits_are_kept() {
        let long = "a".repeat(65);
        assert_eq!(TopicName::new(&long, LIMITS), Err(TopicError::TooLong));
        assert_eq!(TopicFilter::new(&long, LIMITS), Err(TopicError::TooLong));
        assert_eq!(TopicName::new("////////", LIMITS), Err(TopicError::TooDeep));
        assert_eq!(
            TopicFilter::new("////////", LIMITS),
            Err(TopicError::TooDeep)
        );
    }
}
