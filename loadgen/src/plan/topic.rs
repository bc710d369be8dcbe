//! Topic patterns and which topics a filter matches.

/// Largest topic a plan may use.
const TOPIC_BYTES_MAX: usize = 65_535;

/// Fills in `{i}` (client within its group), `{i%N}` (its remainder), `{t}` (topic within its publisher) and
/// `{run}`.
pub fn expand(pattern: &str, client: u32, topic: u32, run: &str) -> Result<String, String> {
    let text = remainders(pattern, client)
        .replace("{i}", &client.to_string())
        .replace("{t}", &topic.to_string())
        .replace("{run}", run);
    if let Some(unknown) = placeholder(&text) {
        return Err(format!(
            "`{pattern}` holds `{unknown}`, which is not known: {{i}}, {{i%N}}, {{t}} and {{run}} are"
        ));
    }
    if text.is_empty() || text.len() > TOPIC_BYTES_MAX || text.contains('\0') {
        return Err(format!("`{pattern}` gives no valid topic"));
    }
    Ok(text)
}

/// Fills in each `{i%N}`; what is none is left, and found unknown.
fn remainders(pattern: &str, client: u32) -> String {
    let mut text = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("{i%") {
        text.push_str(before);
        let parsed = after.split_once('}');
        let parsed = parsed.and_then(|(n, rest)| Some((n.parse().ok()?, rest)));
        match parsed {
            Some((divisor @ 1.., after)) => {
                text.push_str(&(client % divisor).to_string());
                rest = after;
            }
            _ => {
                text.push_str("{i%");
                rest = after;
            }
        }
    }
    text + rest
}

/// What looks like a placeholder.
fn placeholder(text: &str) -> Option<&str> {
    let from = text.get(text.find('{')?..)?;
    from.get(..=from.find('}')?)
}

/// Whether a topic may be published to.
pub fn check_topic(topic: &str) -> Result<(), String> {
    if topic.contains(['+', '#']) {
        return Err(format!("topic `{topic}` holds a wildcard"));
    }
    Ok(())
}

/// Whether a filter is one.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let levels: Vec<&str> = filter.split('/').collect();
    let last = levels.len() - 1;
    let is_valid = levels.iter().enumerate().all(|(at, level)| match *level {
        "+" => true,
        "#" => at == last,
        level => !level.contains(['+', '#']),
    });
    if is_valid {
        Ok(())
    } else {
        Err(format!("filter `{filter}` has a misplaced wildcard"))
    }
}

/// Whether a filter can match more than one topic.
pub fn has_wildcard(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// Whether `filter` matches `topic`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic = topic.split('/');
    let mut filter = filter.split('/');
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, is_match) in [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b", true),
            ("#", "$SYS/a", false),
            ("+/b", "$SYS/b", false),
            ("a", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), is_match, "{filter} {topic}");
        }
    }

    #[test]
    fn patterns_are_filled_in_and_checked() {
        assert_eq!(expand("x/{run}/{i}/{t}", 3, 4, "r").unwrap(), "x/r/3/4");
        assert_eq!(expand("{i%3}/{i}/{i%4}", 7, 0, "r").unwrap(), "1/7/3");
        for wrong in ["{i%0}", "{i%}", "{i%x}", "{i%3}/{i%-1}"] {
            assert!(expand(wrong, 7, 0, "r").is_err(), "{wrong}");
        }
        assert!(expand("", 0, 0, "r").is_err());
        let unknown = expand("x/{client}/y", 0, 0, "r").unwrap_err();
        assert!(unknown.contains("`{client}`"), "{unknown}");
        assert!(expand("x/{/y}", 0, 0, "r").is_err());
        assert!(check_topic("a/+").is_err());
        assert!(check_filter("a/#/b").is_err() && check_filter("a/b#").is_err());
        assert!(check_filter("+/a/#").is_ok());
    }
}
