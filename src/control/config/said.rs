//! What was said by file, environment and command line, and the configuration as operators are shown it:
//! without secrets.

use super::flags::Flags;
use serde_json::{Map, Value, json};
use std::fmt;
use toml::Table;

/// Stands in a secret's place.
const HIDDEN: &str = "(hidden)";

/// What was said, secrets among it: to be compared, and shown only by [`Said::shown`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Said(Map<String, Value>);

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Said").field(&self.shown()).finish()
    }
}

impl Said {
    /// By file and environment, and by flags, which go before.
    pub(super) fn new(table: &Table, flags: &Flags) -> Self {
        let said = match json!(table) {
            Value::Object(said) => said,
            _ => Map::new(),
        };
        Said(with_flags(said, flags))
    }

    /// As a running broker shows it.
    #[must_use]
    pub(super) const fn of_shown(shown: Map<String, Value>) -> Self {
        Said(shown)
    }

    /// Without secrets.
    #[must_use]
    pub fn shown(&self) -> Map<String, Value> {
        shown_all(&self.0)
    }

    /// By section and key.
    pub(super) const fn keys(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(super) const fn keys_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }
}

/// What flags say goes before.
fn with_flags(mut said: Map<String, Value>, flags: &Flags) -> Map<String, Value> {
    if !flags.listen.is_empty() {
        said.insert("listen".into(), json!(flags.listen));
    }
    if let Some(shards) = flags.shards {
        said.insert("shards".into(), json!(shards));
    }
    if let Some(cpus) = &flags.cpus {
        said.insert("cpus".into(), json!(cpus));
    }
    if let Some(level) = flags.log {
        said.insert("log".into(), json!(level.name()));
    }
    if let Some(directory) = &flags.storage_directory {
        let storage = said.entry("storage").or_insert_with(|| json!({}));
        if let Some(storage) = storage.as_object_mut() {
            storage.insert("directory".into(), json!(directory));
        }
    }
    said
}

fn shown_all(said: &Map<String, Value>) -> Map<String, Value> {
    let all = said.iter();
    all.map(|(key, value)| (key.clone(), shown(key, value)))
        .collect()
}

/// The value of a key, without secrets.
pub(super) fn shown(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(table) if key == "headers" => {
            let names = table.keys();
            Value::Object(names.map(|name| (name.clone(), json!(HIDDEN))).collect())
        }
        Value::Object(table) => Value::Object(shown_all(table)),
        Value::Array(list) => list.iter().map(|value| shown(key, value)).collect(),
        Value::String(text) if is_secret(key) && !text.is_empty() => json!(HIDDEN),
        Value::String(text) => json!(without_password(text)),
        other => other.clone(),
    }
}

/// Whether a key's value is a secret itself, not the name of a file.
fn is_secret(key: &str) -> bool {
    let is_like = ["secret", "password", "token"]
        .iter()
        .any(|word| key.contains(word));
    is_like && !key.ends_with("_file")
}

/// A URL without who asks and by which password.
fn without_password(text: &str) -> String {
    let parts = || {
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (_, place) = rest.get(..end)?.rsplit_once('@')?;
        Some(format!("{scheme}://{HIDDEN}@{place}{}", rest.get(end..)?))
    };
    parts().unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_shown_without_secrets() {
        let table = r#"
            listen = ["mqtt://127.0.0.1:1"]
            password_file = "users"
            shards = 2
            [authentication.jwt]
            secret_file = "secret"
            [authentication.http]
            authenticate_url = "https://me:word@auth.example/a@b"
            headers = { Authorization = "word" }
            some_secret = "word"
        "#;
        let said = Said::new(&toml::from_str(table).unwrap(), &Flags::default());
        let expected = json!({
            "listen": ["mqtt://127.0.0.1:1"],
            "password_file": "users",
            "shards": 2,
            "authentication": {
                "jwt": { "secret_file": "secret" },
                "http": {
                    "authenticate_url": "https://(hidden)@auth.example/a@b",
                    "headers": { "Authorization": HIDDEN },
                    "some_secret": HIDDEN,
                },
            },
        });
        assert_eq!(Value::Object(said.shown()), expected);
        assert!(!format!("{said:?}").contains("me:word"));
    }
}
