//! No rule is silently missing: each has a test or a reason, and nothing else has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Test name prefix of each rule in the tables.
fn rules() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (table, stem) in [
        ("mqtt311.tsv", "mqtt311_"),
        ("mqtt5.tsv", "mqtt5_"),
        ("mqtt31.tsv", ""),
        ("rules.tsv", ""),
    ] {
        for line in read(table).lines().skip(1) {
            let id = line.split('\t').next().expect("a line has a first column");
            let id = id.trim_start_matches("MQTT-").to_lowercase();
            all.insert(format!("{stem}{}", id.replace(['.', '-'], "_")));
        }
    }
    all
}

/// Number of tests by rule prefix, found as `rule!(prefix__name` in the sources.
fn tests() -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).expect("list the tests") {
        let path = entry.expect("read the folder").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("read a test source");
        for part in source.split("\nrule!(").skip(1) {
            let part = part.trim_start();
            if let Some((prefix, _)) = part.split_once("__") {
                *found.entry(prefix.to_owned()).or_default() += 1;
            }
        }
    }
    found
}

/// Rules with a reason not to be tested.
fn excused() -> BTreeMap<String, String> {
    read("not_applicable.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (id, reason) = line.split_once('\t').expect("id, tab, reason");
            (id.to_owned(), reason.to_owned())
        })
        .collect()
}

#[test]
fn every_rule_has_a_test_or_a_reason() {
    let (rules, tests, excused) = (rules(), tests(), excused());
    let missing: Vec<&String> = rules
        .iter()
        .filter(|rule| !tests.contains_key(*rule) && !excused.contains_key(*rule))
        .collect();
    assert!(
        missing.is_empty(),
        "{} rules have neither test nor reason: {missing:?}",
        missing.len()
    );
}

#[test]
fn every_test_and_reason_belongs_to_a_rule() {
    let (rules, tests, excused) = (rules(), tests(), excused());
    for name in tests.keys().chain(excused.keys()) {
        assert!(rules.contains(name), "'{name}' is no rule of the tables");
    }
    for (rule, reason) in &excused {
        assert!(!tests.contains_key(rule), "{rule} is tested and excused");
        assert!(reason.len() > 10, "{rule} needs a reason, not '{reason}'");
    }
}
