//! Where each key was said: line of the file, or environment variable.

use super::Sources;
use super::error::ConfigError;
use super::file::FileConfig;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// What all variables begin with.
const PREFIX: &str = "RINGMQ_";
/// Variables with these beginnings are for test suites, and for who asks a broker, not for the broker.
const OTHER_PREFIXES: [&str; 2] = ["RINGMQ_TEST_", "RINGMQ_OPERATOR_"];

/// Remembers where keys come from, for errors found after reading.
pub(super) struct Places<'a> {
    file: Option<(&'a Path, &'a str)>,
    variables: BTreeMap<String, String>,
    /// Keys that the file and a variable say differently, in words.
    pub overridden: Vec<String>,
}

impl Places<'_> {
    /// An error about the value of `key` (`section.key`).
    pub(super) fn wrong(&self, key: &str, text: String) -> ConfigError {
        self.wrong_of(None, key, text)
    }

    /// The same; `listener` is which of several `[[listener]]` tables the key stands in, from 0.
    pub(super) fn wrong_of(&self, listener: Option<usize>, key: &str, text: String) -> ConfigError {
        if let Some(variable) = self.variable(key) {
            return ConfigError::new(variable.to_owned(), text);
        }
        let place = match self.file {
            Some((path, source)) => match line_of(source, key, listener) {
                Some(line) => format!("{}:{line}: {key}", path.display()),
                None => format!("{}: {key}", path.display()),
            },
            None => key.to_owned(),
        };
        ConfigError::new(place, text)
    }

    /// The folder of the file, if that says the value of `key`.
    pub(super) fn folder(&self, key: &str) -> Option<&Path> {
        let (path, _) = self.file.filter(|_| self.variable(key).is_none())?;
        path.parent()
    }

    /// The variable that says the value of `key`, alone or with all of a section.
    fn variable(&self, key: &str) -> Option<&str> {
        let ends = key.match_indices('.').map(|(at, _)| at);
        let mut keys = std::iter::once(key.len()).chain(ends.rev());
        keys.find_map(|end| self.variables.get(key.get(..end)?))
            .map(String::as_str)
    }
}

/// The key that a variable of this value says, if it is one of the broker's.
pub(super) fn key_of(variable: &str, value: &str) -> Option<String> {
    let is_others = OTHER_PREFIXES
        .iter()
        .any(|prefix| variable.starts_with(prefix));
    let rest = variable.strip_prefix(PREFIX).filter(|_| !is_others)?;
    (!is_service_link(rest, value)).then(|| rest.to_lowercase().replace("__", "."))
}

/// Whether Kubernetes says by a variable where a service is: it does so for each one, and one may be
/// called as the broker is.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_place = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let words: Vec<_> = name.split('_').collect();
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let mut pairs = words.windows(2);
    let mut triples = words.windows(3);
    pairs.any(|two| matches!(two, ["SERVICE", "HOST" | "PORT"]))
        || triples.any(|three| match three {
            ["PORT", number, "TCP" | "UDP" | "SCTP"] => is_number(number),
            _ => false,
        })
        || is_place && words.last() == Some(&"PORT")
}

/// Reads the file, lays the environment over it, and checks names and types of both.
pub(super) fn merge<'a>(
    sources: &Sources<'a>,
) -> Result<(FileConfig, Places<'a>, Table), ConfigError> {
    let mut places = Places {
        file: sources.file,
        variables: BTreeMap::new(),
        overridden: Vec::new(),
    };
    let mut table = match sources.file {
        Some((path, source)) => read_file(path, source)?,
        None => Table::new(),
    };
    // A section comes before its keys.
    let mut environment: Vec<_> = sources.environment.iter().collect();
    environment.sort();
    for (name, value) in environment {
        if let Some(key) = key_of(name, value) {
            let value = typed(name, value, &key)?;
            let of_file = said(&table, &key).filter(|of_file| **of_file != value);
            if let Some((path, _)) = sources.file.filter(|_| of_file.is_some()) {
                let path = path.display();
                let text = format!("{name} goes before {key} of {path}, which says something else");
                places.overridden.push(text);
            }
            insert(&mut table, &key, value);
            places.variables.insert(key, name.clone());
        }
    }
    let raw = FileConfig::deserialize(table.clone())
        .map_err(|error| ConfigError::new("configuration".into(), in_words(error.message())))?;
    Ok((raw, places, table))
}

fn read_file(path: &Path, source: &str) -> Result<Table, ConfigError> {
    let explain = |error: &toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = source.get(..at).unwrap_or(source);
        let number = before.matches('\n').count() + 1;
        let line = source.lines().nth(number - 1).unwrap_or_default();
        let key = line.split('=').next().unwrap_or_default().trim();
        let mut headers = before.lines().chain([line]).map(str::trim);
        let section = headers
            .rfind(|line| line.starts_with('['))
            .unwrap_or_default();
        let text = slip(error.message(), line).unwrap_or_else(|| message(error, &[section, key]));
        // What is no key may be anything, such as a hash of another file; and of the hook's headers somebody
        // may have written the value in the name's place.
        let is_key = |c: char| c.is_alphanumeric() || "_-.[]\"' ".contains(c);
        let may_be_secret = !key.starts_with('[') && section.contains("headers");
        let is_set = line.contains('=') || key.starts_with('[');
        if is_set && !may_be_secret && key.chars().all(is_key) {
            ConfigError::new(format!("{}:{number}: {key}", path.display()), text)
        } else {
            ConfigError::new(format!("{}:{number}", path.display()), text)
        }
    };
    toml::from_str::<FileConfig>(source).map_err(|error| explain(&error))?;
    toml::from_str(source).map_err(|error| explain(&error))
}

/// What is wrong with a line where it is one of the usual slips.
fn slip(message: &str, line: &str) -> Option<String> {
    let header = line.trim().strip_prefix('[');
    if let Some(name) = header.filter(|rest| !rest.starts_with('[')) {
        let name = name.split(']').next().unwrap_or_default().trim();
        let is_listener = name.split('.').next() == Some("listener");
        let table = if is_listener { "listener" } else { name };
        let is_list = message.starts_with("invalid type: map, expected a sequence");
        return is_list.then(|| {
            format!("write [[{table}]], with two brackets: there may be more than one of them")
        });
    }
    let (_, value) = line.split_once('=')?;
    let is_word = value
        .trim_start()
        .starts_with(|c: char| c.is_alphabetic() || "/.~".contains(c));
    let is_bare = message.contains("must be quoted") || message.starts_with("invalid ");
    (is_word && is_bare && !message.starts_with("invalid type"))
        .then(|| "a text stands in quotes, as in log = \"info\"".to_owned())
}

/// What is wrong, without a value that may be secret.
fn message(error: &toml::de::Error, keys: &[&str]) -> String {
    if keys.iter().any(|key| key.contains("headers")) {
        return "headers are a table of texts, such as { Authorization = \"...\" }".to_owned();
    }
    in_words(error.message())
}

/// The parser's text, with an operator's words for its types.
#[must_use]
pub fn in_words(text: &str) -> String {
    const WORDS: [(&str, &str); 5] = [
        ("path string", "a text in quotes"),
        ("a sequence", "a list, such as [\"...\"]"),
        ("a string", "a text in quotes"),
        ("a borrowed string", "a text in quotes"),
        ("a boolean", "true or false"),
    ];
    // The parser's own limit, before it is known which number the key takes.
    if ["u64 value was too large", "integer number overflowed"].contains(&text) {
        return format!("the number is too large; none may be above {}", i64::MAX);
    }
    if text.contains("must be quoted") {
        return "a text stands in quotes, and a number without a unit".to_owned();
    }
    if text.contains("unicode value") || text.contains("escaped value") {
        return "in \"...\" a backslash begins an escape; write what has one, such as C:\\users, in '...'"
            .to_owned();
    }
    if let Some(text) = unknown(text) {
        return text;
    }
    let text = text.replace("` as i128,", "`,");
    let Some((before, expected)) = text.split_once("expected ") else {
        return text;
    };
    let (kind, rest) = expected.split_once('\n').unwrap_or((expected, ""));
    let is_number = |kind: &str| {
        let bits = kind.strip_prefix(['u', 'i']);
        bits.is_some_and(|bits| bits == "size" || bits.parse::<u8>().is_ok())
    };
    let word = match WORDS.iter().find(|(known, _)| *known == kind) {
        Some((_, word)) => word,
        None if is_number(kind) => "a whole number, not too large and without a unit",
        None if kind.starts_with("struct ") => "a section with keys",
        None => kind,
    };
    format!("{before}expected {word}{rest}")
}

/// So many keys are listed where none is like the one that is not known.
const LISTED_MAX: usize = 12;

/// What to say of a key or a value that is not known: what may have been meant.
fn unknown(text: &str) -> Option<String> {
    let kind = text.strip_prefix("unknown ")?;
    let mut names = text.split('`').skip(1).step_by(2);
    let given = names.next()?;
    let known: Vec<_> = names.collect();
    if kind.starts_with("variant") {
        return Some(format!(
            "\"{given}\" is none of its values: {}",
            known.join(", ")
        ));
    }
    if !kind.starts_with("field") {
        return None;
    }
    let like = |name: &&&str| strsim::normalized_damerau_levenshtein(name, given);
    let nearest = known
        .iter()
        .max_by(|one, other| like(one).total_cmp(&like(other)));
    let nearest = nearest.filter(|name| like(name) >= LIKENESS_MIN);
    Some(match nearest {
        Some(name) => format!("there is no key {given} here; is {name} meant?"),
        None if known.len() <= LISTED_MAX => {
            format!("there is no key {given} here, but {}", known.join(", "))
        }
        None => format!("there is no key {given} here; the README's Configuration lists them"),
    })
}

/// How like a known name has to be to be the one that was meant: 1 is the same, 0 has nothing in common.
const LIKENESS_MIN: f64 = 0.6;

/// A variable's value in the type its key has: as TOML, as plain text, or as a list of plain texts.
fn typed(name: &str, text: &str, key: &str) -> Result<Value, ConfigError> {
    let as_toml = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"));
    let list = text
        .split(',')
        .map(|part| Value::String(part.trim().to_owned()))
        .collect();
    let candidates = as_toml
        .into_iter()
        .chain([Value::String(text.to_owned()), Value::Array(list)]);
    let mut first_error = None;
    for candidate in candidates {
        let mut table = Table::new();
        insert(&mut table, key, candidate.clone());
        match FileConfig::deserialize(table) {
            Ok(_) => return Ok(candidate),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let text = first_error.map_or_else(String::new, |error| message(&error, &[key]));
    Err(ConfigError::new(name.to_owned(), text))
}

/// Sets `key` (`section.section.key`); what stood in the way of its sections goes.
/// The value of a key.
fn said<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => said(table.get(section)?.as_table()?, rest),
    }
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let section = table
                .entry(section.to_owned())
                .or_insert_with(|| Value::Table(Table::new()));
            if !section.is_table() {
                *section = Value::Table(Table::new());
            }
            if let Value::Table(section) = section {
                insert(section, rest, value);
            }
        }
    }
}

/// The line on which `key` is set or its section begins, counted from 1.
fn line_of(source: &str, key: &str, listener: Option<usize>) -> Option<usize> {
    let mut current = "";
    let mut listeners = 0;
    let mut table = None;
    for (number, line) in (1..).zip(source.lines()) {
        let line = line.trim();
        if line.starts_with('[') {
            let header = line.trim_start_matches('[');
            current = header.split(']').next().unwrap_or_default().trim();
            listeners += usize::from(current == "listener");
        }
        let is_here = listener.is_none_or(|listener| listeners == listener + 1);
        if !is_here {
            continue;
        }
        if line.starts_with('[') {
            table = table.or((listener.is_some() && current == "listener").then_some(number));
            if current == key {
                return Some(number);
            }
        } else if let Some((name, _)) = line.split_once('=') {
            let parts = current.split('.').chain(name.split('.'));
            let parts = parts.map(str::trim).filter(|part| !part.is_empty());
            if parts.eq(key.split('.')) {
                return Some(number);
            }
        }
    }
    // What is not said may be missing in a listener's table.
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_in_an_operators_words() {
        for (source, words) in [
            ("[limits]\nmax_packet_bytes = \"2M\"", "a whole number"),
            ("[mqtt]\nkeep_alive_seconds_max = 70000", "a whole number"),
            ("limits = 1", "a section with keys"),
            ("listen = \"x\"", "a list"),
            ("pin = 1", "true or false"),
            ("acl_file = 1", "a text in quotes"),
            ("log = info", "a text stands in quotes, as in"),
            ("log = debug # all", "a text stands in quotes, as in"),
            ("acl_file = /etc/access", "a text stands in quotes, as in"),
            ("limits.queue_bytes_max = 1 MiB", "without a unit"),
            ("listen = [mqtt://x]", "a text stands in quotes"),
            ("[listener]\nurl = \"x\"", "write [[listener]]"),
            ("[listener.tls]\nkey = \"x\"", "write [[listener]]"),
            ("[tls.also]\nkey = \"x\"", "write [[tls.also]]"),
        ] {
            let error = read_file(Path::new("f"), source).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            let is_rust = ["usize", "u16", "struct", "sequence", "boolean"];
            assert!(!is_rust.iter().any(|name| error.contains(name)), "{error}");
        }
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for source in [
            "[authentication.http.headers]\n\"Bearer hush\" = 5",
            "[authentication.http]\nheaders = { \"Bearer hush\" = 5 }",
            "[authentication.http]\nhush",
            "hush\n",
        ] {
            let error = read_file(Path::new("f"), source).unwrap_err().to_string();
            assert!(!error.contains("hush"), "{error}");
            assert!(error.starts_with("f:"), "{error}");
        }
    }
}
