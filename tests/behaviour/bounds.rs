//! The table "Every bound" in `src/ARCHITECTURE.md` says what is: its keys are keys of the configuration, its
//! counters are printed on SIGUSR1 and rise in a test each, and neither a limit nor a counter of a bound is
//! missing in it.

use crate::bounds_driven::{ELSEWHERE, HERE};
use crate::support::{Broker, Setup, unique};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What counters of bounds are named after.
const SIGNS: &[&str] = &[
    "_busy",
    "_failed",
    "_full",
    "_left_out",
    "_paused_",
    "_rate_limited",
    "_refused_",
    "_silent",
    "_timeouts",
];

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a source")
}

/// The table's rows.
fn rows() -> Vec<[String; 4]> {
    let text = text("src/ARCHITECTURE.md");
    let (_, section) = text.split_once("\n## Every bound\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("the next section");
    let rows = section.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let cells: Vec<_> = cells.iter().map(|cell| cell.trim().to_owned()).collect();
        cells.try_into().unwrap_or_else(|_| panic!("{row}"))
    })
    .collect()
}

/// What stands in backticks in a cell.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// What stands in backticks in these columns of the table.
fn named(columns: std::ops::Range<usize>) -> BTreeSet<String> {
    let rows = rows();
    let cells = rows.iter().flat_map(|row| &row[columns.clone()]);
    cells.flat_map(|cell| quoted(cell)).collect()
}

/// What stands in a test of this name, `module::function`.
fn body(test: &str) -> String {
    let (module, function) = test.split_once("::").expect("module::function");
    let text = text(&format!("tests/behaviour/{module}.rs"));
    let head = format!("\nfn {function}(");
    let (_, rest) = text
        .split_once(&head)
        .unwrap_or_else(|| panic!("no {test}"));
    let (body, _) = rest.split_once("\n}\n").expect("its end");
    body.to_owned()
}

/// Keys of the `[limits]` section.
fn limits() -> BTreeSet<String> {
    let text = text("src/control/config/file.rs");
    let (_, list) = text.split_once("\nfile_limits! {\n").expect("the list");
    let (list, _) = list.split_once("\n}").expect("its end");
    let names = list.lines().filter_map(|line| line.trim().split_once(':'));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// A key with a value of a kind that no key has: what is said then tells whether there is such a key.
fn is_known(key: &str) -> bool {
    let (section, name) = key.rsplit_once('.').expect("a key with its section");
    let header = match section {
        "listener" => "[[listener]]".to_owned(),
        section => format!("[{section}]"),
    };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("bounds"));
    fs::write(&path, format!("{header}\n{name} = {{ a = [1] }}\n")).expect("write the file");
    let path = path.to_str().expect("a plain path");
    let outcome = Setup::new().arg("check-config").arg(path).run_to_end();
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    !outcome.log.contains("there is no key")
}

#[test]
fn every_key_of_the_table_exists_and_no_limit_is_missing() {
    assert!(!is_known("limits.no_such") && !is_known("no_such.threads"));
    let mut of_limits = BTreeSet::new();
    for key in named(1..3) {
        assert!(is_known(&key), "`{key}` is no key of the configuration");
        of_limits.extend(key.strip_prefix("limits.").map(str::to_owned));
    }
    assert_eq!(of_limits, limits());
}

#[test]
fn every_limit_is_listed_for_operators() {
    let readme = text("README.md");
    let (_, section) = readme.split_once("\n[limits]\n").expect("the section");
    let (section, _) = section.split_once("\n[").expect("the next section");
    let listed = section.lines().filter_map(|line| line.split_once(" = "));
    let listed = listed.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(limits(), listed);
}

#[test]
fn every_counter_of_the_table_is_printed_and_none_of_a_bound_is_missing() {
    let broker = Broker::start(1);
    let counters = broker.counters();
    let named = named(3..4);
    for name in &named {
        // Panics where there is none.
        counters.get(name);
    }
    let is_of_bound = |name: &&str| SIGNS.iter().any(|sign| name.contains(sign));
    let missing: Vec<_> = counters.names().filter(is_of_bound).collect();
    let missing: Vec<_> = missing
        .iter()
        .filter(|name| !named.contains(**name))
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    broker.stop();
}

/// Tests that are for a counter see to it themselves that it rises; others have to look at it at least.
#[test]
fn every_counter_of_every_row_rises_in_a_test() {
    let rows = rows();
    let in_table = rows
        .iter()
        .flat_map(|[row, _, _, counters]| quoted(counters).map(|counter| (row.clone(), counter)));
    let in_table: BTreeSet<_> = in_table.collect();
    let owned = |(row, counter): &(&str, &str)| ((*row).to_owned(), (*counter).to_owned());
    let mut driven: BTreeSet<_> = HERE.iter().map(owned).collect();
    for (row, counters, test) in ELSEWHERE {
        let body = body(test);
        for counter in *counters {
            assert!(body.contains(counter), "{test} does not look at {counter}");
            let is_new = driven.insert(owned(&(row, counter)));
            assert!(is_new, "{counter} of {row} is driven already");
        }
    }
    let missing: Vec<_> = in_table.difference(&driven).collect();
    assert!(missing.is_empty(), "no test drives {missing:?}");
    let unknown: Vec<_> = driven.difference(&in_table).collect();
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
}
