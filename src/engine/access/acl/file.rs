//! The access file, in Mosquitto's format, and the lists of rules that tokens carry.
//!
//! ```text
//! # for clients without a user name
//! topic read news/#
//! user alice
//! topic readwrite home/alice/#
//! topic deny home/alice/safe
//! pattern write devices/%c/state
//! ```
//!
//! Work and memory are bounded by the text's length, which the caller bounds. Stricter than Mosquitto
//! where a slip would open something: `topic read` alone is not a filter called `read`, and `%u` and
//! `%c` must be whole levels.
//!
//! Not here: what the rules mean (`rules`, `mod.rs`); reading files.

use super::rules::{CLIENT, LEVELS_MAX, Rule, RuleSet, USER};
use super::{Acl, AclError, RuleAccess};
use crate::engine::codec::topic::{TopicError, TopicFilter, TopicLimits};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest line in bytes: room for the longest filter.
const LINE_BYTES_MAX: usize = 70_000;

/// Most lines that are told of.
const WARNINGS_MAX: usize = 10;

/// Most characters of the file that an error shows.
const SHOWN_CHARS_MAX: usize = 60;

const LIMITS: TopicLimits = TopicLimits {
    bytes_max: 65_535,
    levels_max: LEVELS_MAX,
};

enum Line<'a> {
    Nothing,
    User(&'a str),
    Topic(Rule),
    Pattern(Rule),
}

/// Compiles an access file.
pub(super) fn parse(text: &str) -> Result<Acl, AclError> {
    let mut users: BTreeMap<Box<str>, Vec<Rule>> = BTreeMap::new();
    let mut anonymous = Vec::new();
    let mut patterns = Vec::new();
    let mut user = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = parse_line(line).map_err(|text| AclError { line: number, text })?;
        match line {
            Line::Nothing => {}
            Line::User(name) => user = Some(name),
            Line::Pattern(rule) => patterns.push(rule),
            Line::Topic(rule) => match user {
                Some(name) => users.entry(name.into()).or_default().push(rule),
                None => anonymous.push(rule),
            },
        }
    }
    let compile = |(name, rules)| (name, Arc::new(RuleSet::new(rules)));
    let users = users.into_iter().map(compile).collect();
    Ok(Acl::new(users, anonymous, patterns))
}

/// Compiles rules that hold for every client that has them. The number in an error is the rule's.
pub(super) fn from_rules<'a>(
    rules: impl Iterator<Item = (RuleAccess, &'a str)>,
) -> Result<Acl, AclError> {
    let mut patterns = Vec::new();
    for (number, (access, filter)) in (1..).zip(rules) {
        check_pattern(filter).map_err(|text| AclError { line: number, text })?;
        patterns.push(Rule::pattern(access, filter));
    }
    Ok(Acl::new(BTreeMap::new(), Vec::new(), patterns))
}

/// Lines of an access file that may not be as they were meant, in an operator's words.
pub(super) fn warnings(text: &str) -> Vec<String> {
    let mut told = (1..).zip(text.lines()).filter_map(|(number, line)| {
        let text = doubt(line.trim_matches([' ', '\t', '\r']))?;
        Some(format!("line {number}: {text}"))
    });
    let mut warnings: Vec<_> = told.by_ref().take(WARNINGS_MAX).collect();
    let more = told.count();
    if more > 0 {
        warnings.push(format!("and {more} more lines of this kind"));
    }
    warnings
}

fn doubt(line: &str) -> Option<String> {
    let (keyword, rest) = split_word(line);
    if keyword == "user" {
        let is_quoted = rest.len() > 1 && rest.starts_with('"') && rest.ends_with('"');
        return (rest == "*" || is_quoted).then(|| {
            let rest = shown(rest);
            format!(
                "user {rest} is for the user who is called so, with all its signs, and for no other"
            )
        });
    }
    let (_, filter) = parse_rule(keyword, rest).ok()?;
    let mut levels = filter.split('/');
    let stands_in = |level| [USER, CLIENT].contains(&level);
    let has_stand_in = levels.any(stands_in) || filter.contains("${");
    let filter = shown(filter);
    match keyword {
        "topic" if has_stand_in => Some(format!(
            "what looks like a name to be filled in stands for itself in topic {filter}; that is what \
             pattern is for, with %u or %c as whole levels"
        )),
        "pattern" if !has_stand_in || filter.contains("${") => Some(format!(
            "pattern {filter} has neither %u nor %c as a level: it says the same for everybody"
        )),
        _ => None,
    }
}

fn parse_line(line: &str) -> Result<Line<'_>, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!(
            "{} bytes are too long, at most {LINE_BYTES_MAX} are allowed",
            line.len()
        ));
    }
    let line = line.trim_matches([' ', '\t', '\r']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(Line::Nothing);
    }
    let (keyword, rest) = split_word(line);
    match keyword {
        "user" if rest.is_empty() => Err("no user name; write 'user NAME'".into()),
        "user" if rest.trim() != rest => {
            Err("the user name begins or ends with a blank of another kind; leave it out".into())
        }
        "user" => Ok(Line::User(rest)),
        "topic" => {
            let (access, filter) = parse_rule(keyword, rest)?;
            check_share(filter)?;
            check_filter(filter)?;
            Ok(Line::Topic(Rule::plain(access, filter)))
        }
        "pattern" => {
            let (access, filter) = parse_rule(keyword, rest)?;
            check_share(filter)?;
            check_pattern(filter)?;
            Ok(Line::Pattern(Rule::pattern(access, filter)))
        }
        // Not shown: it may be a hash, of a file that is none of this kind.
        _ => Err("its first word is unknown; write user, topic or pattern".into()),
    }
}

/// The first word, and what follows it; either may be empty.
fn split_word(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim_start_matches([' ', '\t'])),
        None => (text, ""),
    }
}

fn parse_rule<'a>(keyword: &str, rest: &'a str) -> Result<(RuleAccess, &'a str), String> {
    let (word, filter) = split_word(rest);
    let access = match word {
        "read" => RuleAccess::Read,
        "write" => RuleAccess::Write,
        "readwrite" => RuleAccess::ReadWrite,
        "deny" => RuleAccess::Deny,
        "" => {
            return Err(format!(
                "no filter; write '{keyword} [read|write|readwrite|deny] FILTER'"
            ));
        }
        _ if filter.is_empty() => return Ok((RuleAccess::ReadWrite, word)),
        // A misspelt access must not become part of a filter.
        _ => {
            return Err(format!(
                "'{}' is no access; write read, write, readwrite or deny before a filter with spaces",
                shown(word)
            ));
        }
    };
    if filter.is_empty() {
        return Err(format!(
            "no filter after '{word}'; if the topic is called so, write '{keyword} readwrite {word}'"
        ));
    }
    Ok((access, filter))
}

/// Rules are about topics: one about a shared subscription as such would never fit.
fn check_share(filter: &str) -> Result<(), String> {
    match filter.split('/').next() {
        Some("$share" | "$queue") => Err(format!(
            "'{}' would never fit: what may be read by a shared subscription is said by the filter behind \
             its name",
            shown(filter)
        )),
        _ => Ok(()),
    }
}

fn check_filter(filter: &str) -> Result<(), String> {
    let wrong = match TopicFilter::new(filter, LIMITS) {
        Ok(_) => return Ok(()),
        Err(TopicError::Empty) => "is empty; '#' matches every topic".into(),
        Err(TopicError::TooLong) => format!("is longer than {} bytes", LIMITS.bytes_max),
        Err(TopicError::TooDeep) => format!("has more than {} levels", LIMITS.levels_max),
        Err(TopicError::Wildcard | TopicError::ShareName) => {
            "is invalid; '+' and '#' must be whole levels, and '#' the last".into()
        }
    };
    Err(format!("the filter '{}' {wrong}", shown(filter)))
}

fn check_pattern(filter: &str) -> Result<(), String> {
    check_filter(filter)?;
    for level in filter.split('/') {
        let is_name = level == USER || level == CLIENT;
        if !is_name && (level.contains(USER) || level.contains(CLIENT)) {
            return Err(format!(
                "'{}' mixes a name with other text; '{USER}' and '{CLIENT}' must be whole levels",
                shown(level)
            ));
        }
    }
    Ok(())
}

/// So much of the file's text as an error shows, without characters that could upset a terminal.
fn shown(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).map(printable).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::{Access, Rights};
    use super::*;

    fn allows(file: &str, user: Option<&str>, access: Access, topic: &str) -> bool {
        let acl = Arc::new(parse(file).unwrap());
        Rights::new(&acl, user, "c1").allows(access, topic)
    }

    fn error(file: &str) -> String {
        parse(file).unwrap_err().to_string()
    }

    #[test]
    fn a_rule_about_a_shared_subscription_is_refused_by_its_line() {
        for rule in [
            "topic read $share/g/a",
            "topic deny $share/#",
            "pattern read $queue/%u",
        ] {
            let error = error(&format!("topic read a\n{rule}\n"));
            assert!(
                error.contains("line 2") && error.contains("never fit"),
                "{error}"
            );
        }
        assert!(parse("topic read $shared/a\n").is_ok());
    }

    #[test]
    fn a_file_is_read_section_by_section() {
        let file = "# comment\r\n\r\ntopic read news/#\r\n  \nuser alice smith \n\
                    topic home/a\ntopic\twrite  up/with space \npattern deny x/%c\n\
                    user bob\ntopic #\nuser alice smith\ntopic read late";
        let alice = Some("alice smith");
        for (user, access, topic, wanted) in [
            (None, Access::Read, "news/x", true),
            (None, Access::Write, "news/x", false),
            (None, Access::Read, "home/a", false),
            (alice, Access::Read, "news/x", false),
            (alice, Access::Read, "home/a", true),
            (alice, Access::Write, "home/a", true),
            (alice, Access::Write, "up/with space", true),
            (alice, Access::Read, "up/with space", false),
            (alice, Access::Read, "late", true),
            (Some("bob"), Access::Write, "anything", true),
            (Some("alice"), Access::Read, "home/a", false),
        ] {
            let found = allows(file, user, access, topic);
            assert_eq!(found, wanted, "{user:?} {access:?} {topic}");
        }
    }

    #[test]
    fn a_filter_may_contain_what_looks_like_a_comment_or_a_name() {
        assert!(allows("topic read #", None, Access::Read, "a"));
        assert!(allows("topic read a/%u", None, Access::Read, "a/%u"));
        assert!(!allows("topic read a/%u", None, Access::Read, "a/b"));
        let topic = "read";
        assert!(allows("topic readwrite read", None, Access::Write, topic));
    }

    #[test]
    fn errors_name_the_line_and_what_would_be_right() {
        for (file, line, part) in [
            ("topic a\nusr bob", 2, "write user, topic or pattern"),
            ("user", 1, "write 'user NAME'"),
            ("\n\nuser  \n", 3, "write 'user NAME'"),
            (
                "topic",
                1,
                "write 'topic [read|write|readwrite|deny] FILTER'",
            ),
            (
                "pattern",
                1,
                "write 'pattern [read|write|readwrite|deny] FILTER'",
            ),
            ("topic deny", 1, "write 'topic readwrite deny'"),
            ("topic dney a/b", 1, "'dney' is no access"),
            ("topic a/#/b", 1, "'#' the last"),
            ("topic a+", 1, "must be whole levels"),
            ("pattern dev-%c/x", 1, "'dev-%c' mixes"),
            ("pattern read x/%u%c", 1, "'%u%c' mixes"),
            ("pattern read a+/%u", 1, "must be whole levels"),
            ("topic \u{1b}[2J x", 1, "'?[2J'"),
        ] {
            let text = error(file);
            assert!(text.starts_with(&format!("line {line}: ")), "{text}");
            assert!(text.contains(part), "{text} has no {part}");
        }
    }

    #[test]
    fn bounds_are_kept_and_errors_stay_short() {
        let long = |count| "a".repeat(count);
        assert!(parse(&format!("#{}", long(LINE_BYTES_MAX - 1))).is_ok());
        assert!(error(&format!("#{}", long(LINE_BYTES_MAX))).contains("at most 70000"));
        assert!(parse(&format!("topic {}", long(65_535))).is_ok());
        let text = error(&format!("topic {}", long(65_536)));
        assert!(text.contains("longer than 65535 bytes") && text.len() < 200);
        let deep = |levels: usize| format!("topic +{}", "/+".repeat(levels - 1));
        assert!(parse(&deep(LEVELS_MAX)).is_ok());
        assert!(error(&deep(LEVELS_MAX + 1)).contains("more than 1024 levels"));
    }

    #[test]
    fn a_wrong_rule_of_a_token_is_named_by_its_place() {
        let rules = [(RuleAccess::Read, "a"), (RuleAccess::Read, "")];
        let error = from_rules(rules.into_iter()).unwrap_err();
        assert_eq!(error.line, 2);
        let rules = [(RuleAccess::Read, "x%u")];
        assert!(from_rules(rules.into_iter()).is_err());
    }
}
