//! How two configurations differ, key by key, and which of that changes while the broker runs.
//!
//! Tables that stand more than once are told apart by what names them: listeners by `url`, bridges by `name`.
//! Values are compared with their secrets and shown without. A limit that is not said has its default.
//!
//! Invariant: what differs is told once; all changes put into the older one make the newer.

use super::effect::{Effect, effect_of};
use super::file::FileLimits;
use super::said::{Said, shown};
use crate::engine::limits::Limits;
use serde_json::{Map, Value};
use std::fmt;

/// Tables that may stand more than once, and what names them.
const LISTS: [(&str, &str); 2] = [("listener", "url"), ("bridge", "name")];

/// What is one value though it is written as a table.
const WHOLE: &str = "headers";

/// A key whose value is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `section.key`; of a whole listener or bridge the section alone.
    key: String,
    /// Of which listener or bridge.
    of: Option<String>,
    /// `None` if it was not said.
    old: Option<Value>,
    /// `None` if it is not said any more.
    new: Option<Value>,
    /// What becomes of it.
    pub effect: Effect,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(of) = &self.of {
            write!(f, " of {}", text(&shown("url", &Value::String(of.clone()))))?;
        }
        let is_whole = LISTS.iter().any(|(list, _)| *list == self.key);
        match (&self.old, &self.new) {
            (None, Some(_)) if is_whole => f.write_str(": added"),
            (Some(_), None) if is_whole => f.write_str(": removed"),
            (old, new) => write!(f, ": {} -> {}", self.value(old), self.value(new)),
        }
    }
}

impl Change {
    fn new(key: &str, of: Option<&str>, old: Option<&Value>, new: Option<&Value>) -> Self {
        Change {
            key: key.to_owned(),
            of: of.map(str::to_owned),
            old: old.cloned(),
            new: new.cloned(),
            effect: effect_of(key),
        }
    }

    /// Whether it is about `key`, of whichever listener or bridge.
    #[must_use]
    pub fn is_of(&self, key: &str) -> bool {
        self.key == key
    }

    /// Whether it is about `key`, or a key of that section.
    #[must_use]
    pub fn is_within(&self, key: &str) -> bool {
        let rest = self.key.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The bridge that it is about.
    #[must_use]
    pub fn bridge(&self) -> Option<&str> {
        let list = self.key.split('.').next();
        self.of.as_deref().filter(|_| list == Some("bridge"))
    }

    /// A value as it is told.
    fn value(&self, value: &Option<Value>) -> String {
        let name = self.key.rsplit('.').next().unwrap_or_default();
        match value {
            Some(value) => shown(name, value).to_string(),
            None => default_of(&self.key).map_or("not said".to_owned(), |value| {
                format!("not said, which is {value}")
            }),
        }
    }

    /// Puts what is new into what was said.
    pub(super) fn put_into(&self, said: &mut Said) {
        let keys = said.keys_mut();
        let Some(of) = &self.of else {
            return put(keys, &self.key, self.new.as_ref());
        };
        let (list, rest) = self.key.split_once('.').unwrap_or((&self.key, ""));
        let Some((_, named_by)) = LISTS.iter().find(|(known, _)| *known == list) else {
            return;
        };
        let tables = keys
            .entry(list)
            .or_insert_with(|| Value::Array(Vec::new()))
            .as_array_mut();
        let Some(tables) = tables else {
            return;
        };
        let is_it = |table: &Value| name(table, named_by) == Some(of);
        match (&self.new, tables.iter_mut().find(|table| is_it(table))) {
            (new, Some(Value::Object(table))) if !rest.is_empty() => put(table, rest, new.as_ref()),
            (Some(new), None) if rest.is_empty() => tables.push(new.clone()),
            (None, _) if rest.is_empty() => tables.retain(|table| !is_it(table)),
            _ => {}
        }
        if tables.is_empty() {
            keys.remove(list);
        }
    }
}

/// What there is to be seen of a text.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn name<'a>(table: &'a Value, named_by: &str) -> Option<&'a str> {
    table.get(named_by)?.as_str()
}

/// Sets a key, or takes it away, and a section without keys with it.
fn put(table: &mut Map<String, Value>, key: &str, value: Option<&Value>) {
    let Some((section, rest)) = key.split_once('.') else {
        match value {
            Some(value) => table.insert(key.to_owned(), value.clone()),
            None => table.remove(key),
        };
        return;
    };
    let keys = table
        .entry(section)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(keys) = keys {
        put(keys, rest, value);
        if keys.is_empty() {
            table.remove(section);
        }
    }
}

/// What a limit is where nobody says it, unless that follows from the machine.
fn default_of(key: &str) -> Option<Value> {
    let limit = key.strip_prefix("limits.")?;
    let follows = ["retained_bytes_max", "memory_max_bytes"].contains(&limit);
    let mut defaults = FileLimits::list(&Limits::default());
    defaults.remove(limit).filter(|_| !follows)
}

impl Said {
    /// What is another in `newer`, by key.
    #[must_use]
    pub fn changes(&self, newer: &Said) -> Vec<Change> {
        let mut changes = Vec::new();
        differ(("", None), self.keys(), newer.keys(), &mut changes);
        changes
    }

    /// What a broker that runs by what it has `shown` would find another here. Secrets are not compared: it
    /// shows none. `overridden` are keys that its environment or command line say, whatever a file does.
    #[must_use]
    pub fn changes_from(&self, shown: Map<String, Value>, overridden: &[String]) -> Vec<Change> {
        let (running, mut newest) = (Said::of_shown(shown), Said::of_shown(self.shown()));
        for key in overridden {
            let pointer = format!("/{}", key.replace('.', "/"));
            let all = Value::Object(running.keys().clone());
            put(newest.keys_mut(), key, all.pointer(&pointer));
        }
        running.changes(&newest)
    }
}

/// A section, and of which listener or bridge.
type Within<'a> = (&'a str, Option<&'a str>);

fn differ(
    (section, of): Within<'_>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    let nothing = Map::new();
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for name in old.keys().chain(added) {
        let key = match section {
            "" => name.clone(),
            _ => format!("{section}.{name}"),
        };
        let (old, new) = (old.get(name), new.get(name));
        if let Some((_, named_by)) = LISTS.iter().find(|(list, _)| *list == key)
            && let Some((old, new)) = tables(old, new, named_by)
        {
            differ_in_list(&key, &old, &new, changes);
            continue;
        }
        if name != WHOLE
            && let Some(old) = old.map_or(Some(&nothing), Value::as_object)
            && let Some(new) = new.map_or(Some(&nothing), Value::as_object)
        {
            differ((&key, of), old, new, changes);
            continue;
        }
        let default = default_of(&key);
        if old.or(default.as_ref()) != new.or(default.as_ref()) {
            changes.push(Change::new(&key, of, old, new));
        }
    }
}

/// Tables of a list with their names.
type Named<'a> = Vec<(&'a str, &'a Map<String, Value>)>;

/// Both lists, if their names tell the tables apart.
fn tables<'a>(
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    named_by: &str,
) -> Option<(Named<'a>, Named<'a>)> {
    let named = |list: Option<&'a Value>| {
        let list = list.map_or(Some(&[][..]), |list| list.as_array().map(Vec::as_slice))?;
        let named = list
            .iter()
            .map(|table| Some((name(table, named_by)?, table.as_object()?)));
        let named: Named<'a> = named.collect::<Option<_>>()?;
        let mut names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        (names.len() == all).then_some(named)
    };
    Some((named(old)?, named(new)?))
}

fn differ_in_list(list: &str, old: &Named<'_>, new: &Named<'_>, changes: &mut Vec<Change>) {
    let whole = |table: &Map<String, Value>| Value::Object(table.clone());
    for (name, table) in old {
        match new.iter().find(|(known, _)| known == name) {
            Some((_, newer)) => differ((list, Some(name)), table, newer, changes),
            None => changes.push(Change::new(list, Some(name), Some(&whole(table)), None)),
        }
    }
    for (name, table) in new {
        if !old.iter().any(|(known, _)| known == name) {
            changes.push(Change::new(list, Some(name), None, Some(&whole(table))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::flags::Flags;
    use super::*;

    fn said(text: &str) -> Said {
        Said::new(&toml::from_str(text).unwrap(), &Flags::default())
    }

    const OLD: &str = r#"
        shards = 2
        log = "info"
        [limits]
        publish_rate_max = 5
        inflight_max = 1024
        [authentication.http]
        authenticate_url = "http://a/"
        headers = { Authorization = "old word" }
        [[listener]]
        url = "mqtt://127.0.0.1:1"
        connections_max = 5
        limits.publish_rate_max = 3
        [[listener]]
        url = "mqtt://127.0.0.1:2"
        [[bridge]]
        name = "a"
        addresses = ["mqtt://b:1"]
    "#;
    const NEW: &str = r#"
        shards = 4
        [limits]
        publish_rate_max = 7
        queue_messages_max = 20
        [authentication.http]
        authenticate_url = "http://a/"
        headers = { Authorization = "new word" }
        [[listener]]
        url = "mqtt://127.0.0.1:3"
        [[listener]]
        url = "mqtt://127.0.0.1:1"
        connections_max = 6
        limits.publish_bytes_rate_max = 4
        [[bridge]]
        name = "a"
        addresses = ["mqtt://b:2"]
        tls = { ca = "x" }
    "#;

    #[test]
    fn what_differs_is_told_by_key_with_old_and_new_value() {
        let changes = said(OLD).changes(&said(NEW));
        let mut told: Vec<_> = changes
            .iter()
            .map(|change| format!("{change} {:?}", change.effect))
            .collect();
        told.sort();
        let listener = "of mqtt://127.0.0.1";
        assert_eq!(
            told,
            [
                "authentication.http.headers: {\"Authorization\":\"(hidden)\"} -> \
                 {\"Authorization\":\"(hidden)\"} Running",
                "bridge.addresses of a: [\"mqtt://b:1\"] -> [\"mqtt://b:2\"] Running",
                "bridge.tls.ca of a: not said -> \"x\" Running",
                "limits.publish_rate_max: 5 -> 7 Running",
                "limits.queue_messages_max: not said, which is 10000 -> 20 Running",
                &format!("listener {listener}:2: removed Running"),
                &format!("listener {listener}:3: added Running"),
                &format!("listener.connections_max {listener}:1: 5 -> 6 Running"),
                &format!(
                    "listener.limits.publish_bytes_rate_max {listener}:1: not said -> 4 Running"
                ),
                &format!("listener.limits.publish_rate_max {listener}:1: 3 -> not said Running"),
                "log: \"info\" -> not said Running",
                "shards: 2 -> 4 Restart",
            ]
        );
        let within = |key| {
            changes
                .iter()
                .filter(|change| change.is_within(key))
                .count()
        };
        let counts = [
            "authentication",
            "authentication.htt",
            "limits.publish_rate_max",
            "shards",
        ];
        assert_eq!(counts.map(within), [1, 0, 1, 1]);
    }

    #[test]
    fn all_changes_put_into_the_older_make_the_newer() {
        for (from, to) in [(OLD, NEW), (NEW, OLD), (OLD, ""), ("", OLD)] {
            let (mut older, newer) = (said(from), said(to));
            for change in older.changes(&newer) {
                change.put_into(&mut older);
            }
            assert_eq!(older.changes(&newer), []);
        }
    }

    #[test]
    fn what_a_running_broker_shows_is_compared_without_secrets_and_what_it_was_told_otherwise() {
        let running = said(OLD);
        let mut told: Vec<_> = said(NEW)
            .changes_from(
                running.shown(),
                &["shards".to_owned(), "limits.no".to_owned()],
            )
            .iter()
            .map(ToString::to_string)
            .collect();
        told.retain(|change| change.starts_with("shards") || change.contains("headers"));
        assert_eq!(told, [""; 0]);
        assert_eq!(said(OLD).changes_from(running.shown(), &[]), []);
    }

    #[test]
    fn lists_whose_names_are_not_unique_are_one_value() {
        let twice = "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n".repeat(2);
        let changes = said(&twice).changes(&said(""));
        assert_eq!(changes.len(), 1);
        assert!(changes[0].is_of("listener") && changes[0].of.is_none());
        let mut older = said(&twice);
        changes[0].put_into(&mut older);
        assert_eq!(older, said(""));
    }
}
