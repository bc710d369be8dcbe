//! Two filters against each other: have they a topic in common, does one match all of the other's.
//!
//! Filters come as their levels, and are valid ones. Exact; what the walk in `reach` is tested by.

/// Whether filters that begin like this differ about `$` topics `[MQTT-4.7.2-1]`.
fn dollar_divides(wild: Option<&str>, plain: Option<&str>) -> bool {
    matches!(wild, Some("+" | "#")) && plain.is_some_and(|level| level.starts_with('$'))
}

/// Whether some topic matches both filters.
pub(super) fn overlap<'a, 'b>(
    left: impl Iterator<Item = &'a str>,
    right: impl Iterator<Item = &'b str>,
) -> bool {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    let (one, other) = (left.peek().copied(), right.peek().copied());
    if dollar_divides(one, other) || dollar_divides(other, one) {
        return false;
    }
    loop {
        match (left.next(), right.next()) {
            // '#' also matches the level above it, so an end is fine too.
            (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
            (Some(one), Some(other)) if one == other || one == "+" || other == "+" => {}
            _ => return false,
        }
    }
}

/// Whether every topic that matches `narrow` matches `wide`.
pub(super) fn covers<'a, 'b>(
    wide: impl Iterator<Item = &'a str>,
    narrow: impl Iterator<Item = &'b str>,
) -> bool {
    let (mut wide, mut narrow) = (wide.peekable(), narrow.peekable());
    if dollar_divides(wide.peek().copied(), narrow.peek().copied()) {
        return false;
    }
    if narrow.peek() == Some(&"#") {
        // No topic is without levels: at the front, and only there, `+/#` is the same as `#`.
        wide.next_if_eq(&"+");
        return wide.next() == Some("#");
    }
    loop {
        match (wide.next(), narrow.next()) {
            (None, None) | (Some("#"), _) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::engine::codec::topic::{TopicFilter, TopicName};

    #[test]
    fn overlap_and_cover_are_what_the_topics_say() {
        // One level more than the filters, and a level that no filter names.
        let topics = samples::topics(&["a", "b", "c", "$x"], 4);
        let filters = samples::filters(&["a", "b", "$x", "+", "#"], 3);
        let matching: Vec<Vec<bool>> = filters
            .iter()
            .map(|filter| {
                let filter = TopicFilter::trusted(filter);
                let matches = |topic: &String| filter.matches(TopicName::trusted(topic));
                topics.iter().map(matches).collect()
            })
            .collect();
        for (left, of_left) in filters.iter().zip(&matching) {
            for (right, of_right) in filters.iter().zip(&matching) {
                let mut both = of_left.iter().zip(of_right);
                assert_eq!(
                    overlap(left.split('/'), right.split('/')),
                    both.any(|(one, other)| *one && *other),
                    "overlap of {left} and {right}"
                );
                let mut both = of_left.iter().zip(of_right);
                assert_eq!(
                    covers(left.split('/'), right.split('/')),
                    both.all(|(one, other)| *one || !*other),
                    "cover of {right} by {left}"
                );
            }
        }
    }
}
