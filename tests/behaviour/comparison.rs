//! The comparison with other brokers (`scripts/compare.py`, `scripts/scale.sh`): its tests are in Python, beside it.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Runs a class of `scripts/tests/FILE`; what it says reaches the terminal also if it passes, since what was
/// skipped stands there.
pub fn python(file: &str, class: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ringmq = Path::new(env!("CARGO_BIN_EXE_ringmq"));
    let mut command = Command::new("python3");
    command
        .args([root.join("scripts/tests").join(file)])
        .arg(class)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("RINGMQ", ringmq);
    let loadgen = ringmq.with_file_name("loadgen");
    if loadgen.exists() {
        command.env("LOADGEN", loadgen);
    }
    let output = command.output().expect("python3");
    let said = String::from_utf8_lossy(&output.stderr);
    for line in said.lines().filter(|line| line.contains(": skipped: ")) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_table_marks_what_a_run_was_worth() {
    python("test_compare.py", "Marks");
}

#[test]
fn rounds_are_interleaved_and_recorded() {
    python("test_compare.py", "Rounds");
}

#[test]
fn wrong_arguments_of_a_comparison_are_named() {
    python("test_compare.py", "Arguments");
}

#[test]
fn brokers_without_a_folder_take_part() {
    python("test_compare.py", "Given");
}

#[test]
fn published_tables_are_made_of_published_data() {
    python("test_compare.py", "Published");
}

#[test]
fn folders_of_brokers_are_complete() {
    python("test_compare.py", "Folders");
}

#[test]
fn each_broker_that_is_installed_starts_from_its_folder() {
    python("test_compare.py", "Starts");
}

#[test]
fn shards_are_measured_and_drawn() {
    python("test_scale.py", "Scale");
}
