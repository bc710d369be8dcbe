//! The configuration as operators are shown it: what was said, without secrets.

use serde_json::{Map, Value, json};
use toml::Table;

/// Stands in a secret's place.
const HIDDEN: &str = "(hidden)";

/// What was said, without secrets.
pub(super) fn said(table: &Table) -> Map<String, Value> {
    let all = table.iter();
    all.map(|(key, value)| (key.clone(), shown(key, value)))
        .collect()
}

fn shown(key: &str, value: &toml::Value) -> Value {
    match value {
        toml::Value::Table(table) if key == "headers" => {
            let names = table.keys();
            Value::Object(names.map(|name| (name.clone(), json!(HIDDEN))).collect())
        }
        toml::Value::Table(table) => Value::Object(said(table)),
        toml::Value::Array(list) => list.iter().map(|value| shown(key, value)).collect(),
        toml::Value::String(text) if is_secret(key) && !text.is_empty() => json!(HIDDEN),
        toml::Value::String(text) => json!(without_password(text)),
        other => json!(other),
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
        let shown = said(&toml::from_str(table).unwrap());
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
        assert_eq!(Value::Object(shown), expected);
    }
}
