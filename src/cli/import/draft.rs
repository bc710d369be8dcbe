//! Our configuration as it comes about, and the list of what has no place in it.

use super::lines::Line;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Lines of the list are so wide where they can be.
const WIDTH: usize = 110;

/// What is printed.
#[derive(Debug, Default)]
pub(super) struct Draft {
    top: Table,
    sections: BTreeMap<&'static str, Table>,
    listeners: Vec<ListenerDraft>,
    bridges: Vec<BridgeDraft>,
    notes: Vec<Note>,
}

/// A `[[listener]]` and its `[listener.tls]`.
#[derive(Clone, Debug, Default)]
pub(super) struct ListenerDraft {
    pub keys: Table,
    pub tls: Table,
}

/// A `[[bridge]]`, its `[bridge.tls]` and its `[[bridge.topics]]`.
#[derive(Clone, Debug, Default)]
pub(super) struct BridgeDraft {
    pub keys: Table,
    pub tls: Table,
    pub topics: Vec<Table>,
}

/// What to do about something.
#[derive(Debug)]
struct Note {
    /// Where its line stands among all.
    order: usize,
    about: String,
    text: String,
}

impl Draft {
    /// Says `key`, or `section.key`.
    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let (section, key) = key.split_once('.').unwrap_or(("", key));
        let table = match section {
            "" => &mut self.top,
            section => self.sections.entry(section).or_default(),
        };
        table.insert(key.to_owned(), value.into());
    }

    /// Whether `key` or `section.key` is said.
    pub(super) fn says(&self, key: &str) -> bool {
        let (section, key) = key.split_once('.').unwrap_or(("", key));
        match section {
            "" => self.top.contains_key(key),
            _ => self
                .sections
                .get(section)
                .is_some_and(|table| table.contains_key(key)),
        }
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.top.get(key).and_then(Value::as_bool) == Some(true)
    }

    pub(super) fn listen(&mut self, listener: ListenerDraft) {
        self.listeners.push(listener);
    }

    pub(super) fn bridge(&mut self, bridge: BridgeDraft) {
        self.bridges.push(bridge);
    }

    /// What to do about a line.
    pub(super) fn note(&mut self, line: &Line, text: impl Into<String>) {
        self.notes.push(Note {
            order: line.order,
            about: line.to_string(),
            text: text.into(),
        });
    }

    /// What to do about what no line says.
    pub(super) fn remark(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.notes.push(Note {
            order: usize::MAX,
            about: about.into(),
            text: text.into(),
        });
    }

    /// The configuration.
    pub(super) fn toml(&self) -> String {
        let mut text = self.top.to_string();
        let mut add = |header: &str, table: &Table| {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}{header}\n{table}"));
        };
        for (name, table) in &self.sections {
            add(&format!("[{name}]"), table);
        }
        for listener in &self.listeners {
            add("[[listener]]", &listener.keys);
            if !listener.tls.is_empty() {
                add("[listener.tls]", &listener.tls);
            }
        }
        for bridge in &self.bridges {
            add("[[bridge]]", &bridge.keys);
            if !bridge.tls.is_empty() {
                add("[bridge.tls]", &bridge.tls);
            }
            for rule in &bridge.topics {
                add("[[bridge.topics]]", rule);
            }
        }
        text
    }

    /// The list, a paragraph for each thing, in the order of the lines.
    pub(super) fn list(&mut self) -> String {
        self.notes.sort_by_key(|note| note.order);
        let paragraphs = self.notes.iter().map(|note| {
            let text = wrapped(&note.text);
            format!("{}\n{text}", note.about)
        });
        paragraphs.collect()
    }
}

/// A text in lines that stand in a little.
fn wrapped(text: &str) -> String {
    const INDENT: &str = "    ";
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() >= WIDTH - INDENT.len() {
            lines.push_str(&format!("{INDENT}{line}\n"));
            line.clear();
        }
        let gap = if line.is_empty() { "" } else { " " };
        line.push_str(&format!("{gap}{word}"));
    }
    format!("{lines}{INDENT}{line}\n")
}
