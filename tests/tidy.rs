//! Style rules that a machine can check, each with its replacement in the message: layers, words and
//! calls that are banned, where unsafe may stand, module docs, lengths.

#[path = "tidy/imports.rs"]
mod imports;

use imports::{Imports, between_rooms, circle, imports};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest function.
const FUNCTION_LINES_MAX: usize = 70;
/// Longest file, tests not counted.
const FILE_LINES_MAX: usize = 800;
/// Longest line.
const LINE_CHARS_MAX: usize = 110;

/// The wings of the house, and whom each may know; `main.rs` knows all.
const WINGS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("storage", &["engine"]),
    ("shard", &["engine", "storage"]),
    ("control", &["engine", "storage", "shard"]),
    ("cli", &["engine", "storage", "shard", "control"]),
];

/// The sans-IO core.
const CORE: &[&str] = &["src/engine/"];

/// What the core may not name, and what to do instead.
const BANNED_IN_CORE: &[(&str, &str)] = &[
    (
        "glommio",
        "the core knows no runtime: emit an effect, the driver acts on it",
    ),
    ("tokio", "the core knows no runtime"),
    ("std::net", "the core knows no socket: connections are keys"),
    ("std::fs", "the core knows no file: emit a Persist record"),
    (
        "std::thread",
        "a core runs on one thread and does not know it",
    ),
    ("std::time", "time comes in as `now: Timestamp`"),
    ("Instant::now", "time comes in as `now: Timestamp`"),
    ("SystemTime", "time comes in as `now: Timestamp`"),
    ("RandomState", "use FixedMap: runs must be repeatable"),
    (
        "std::collections::HashMap",
        "use FixedMap: runs must be repeatable",
    ),
    ("Mutex", "nothing mutable is shared: send mail"),
    ("RwLock", "nothing mutable is shared: send mail"),
    (
        "tracing::",
        "count it in telemetry::counters; the shell logs",
    ),
];

/// Not anywhere in the sources.
const BANNED: &[(&str, &str)] = &[
    ("FIXME", "mend it, or file an issue"),
    ("TODO", "mend it, or file an issue"),
    ("todo!(", "write it, or leave the seam out"),
    ("unimplemented!(", "write it, or leave the seam out"),
    ("dbg!(", "remove it"),
    ("#[ignore", "a test that does not run is not a test"),
];

/// File and folder names that say nothing.
const BANNED_NAMES: &[&str] = &["util", "utils", "manager", "data", "info", "types", "misc"];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, without those of the test module at the end.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self
            .text
            .find("\n#[cfg(test)]\nmod ")
            .unwrap_or(self.text.len());
        (1..).zip(self.text[..end].lines())
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut found: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path
            .strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .into_owned(),
    };
    found.into_iter().map(read).collect()
}

fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn complain(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} problem(s):\n{}",
        problems.len(),
        problems.join("\n")
    );
}

#[test]
fn the_core_is_sans_io_and_deterministic() {
    let mut problems = Vec::new();
    for source in sources("src").iter().filter(|source| source.is_in(CORE)) {
        for (number, line) in source.lines() {
            for (banned, instead) in BANNED_IN_CORE {
                if code(line).contains(banned) {
                    problems.push(format!("{}:{number}: {banned}: {instead}", source.path));
                }
            }
        }
    }
    complain(&problems);
}

/// The wing that a file stands in.
fn wing(path: &str) -> Option<&str> {
    let (wing, _) = path.strip_prefix("src/")?.split_once('/')?;
    Some(wing)
}

#[test]
fn every_file_stands_in_a_wing() {
    let mut problems = Vec::new();
    for source in sources("src") {
        let is_known =
            wing(&source.path).is_none_or(|wing| WINGS.iter().any(|(name, _)| *name == wing));
        let is_door = ["src/main.rs", "src/lib.rs"].contains(&source.path.as_str());
        if !is_known || (wing(&source.path).is_none() && !is_door) {
            problems.push(format!("{}: move it into one of the wings", source.path));
        }
    }
    complain(&problems);
}

#[test]
fn arrows_between_wings_run_one_way() {
    let mut problems = Vec::new();
    for (path, named) in imports(&sources("src")) {
        let Some(own) = wing(&path) else { continue };
        let may = WINGS.iter().find(|(name, _)| *name == own);
        let may = may.map_or(&[][..], |(_, may)| may);
        for target in named {
            if wing(&target).is_none_or(|other| other != own && !may.contains(&other)) {
                problems.push(format!("{path}: {own} may not know {target}"));
            }
        }
    }
    complain(&problems);
}

fn complain_of_circles(imports: &Imports) {
    let circles = imports.keys().filter_map(|start| circle(imports, start));
    // Each circle once, told from the first of its files.
    let circles = circles.filter(|way| way.iter().all(|path| *path >= way[0]));
    let told = circles.map(|way| format!("{}: move what both need", way.join(" -> ")));
    complain(&told.collect::<Vec<_>>());
}

#[test]
fn files_do_not_import_in_circles() {
    complain_of_circles(&imports(&sources("src")));
}

#[test]
fn rooms_do_not_import_in_circles() {
    complain_of_circles(&between_rooms(&imports(&sources("src"))));
}

#[test]
fn unsafe_stands_in_the_ring_only_and_says_why_it_is_sound() {
    let mut problems = Vec::new();
    for source in [sources("src"), sources("loadgen")].concat_all() {
        let in_ring = source.path.starts_with("src/shard/ring/");
        let lines: Vec<_> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let line = code(line);
            let is_block = line.contains("unsafe {") || line.contains("unsafe impl");
            if is_block && !in_ring {
                problems.push(format!(
                    "{}:{}: unsafe outside src/shard/ring",
                    source.path,
                    index + 1
                ));
            }
            let before = &lines[index.saturating_sub(8)..index];
            if is_block && !before.iter().any(|line| line.contains("SAFETY:")) {
                problems.push(format!(
                    "{}:{}: unsafe without SAFETY",
                    source.path,
                    index + 1
                ));
            }
        }
    }
    complain(&problems);
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Source>;
}

impl ConcatAll for [Vec<Source>; 2] {
    fn concat_all(self) -> Vec<Source> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut problems = Vec::new();
    for folder in ["src", "loadgen", "tests", "benches"] {
        for source in sources(folder) {
            let is_documented = source.text.starts_with("//!") || source.text.starts_with("#![doc");
            if !is_documented {
                problems.push(format!("{}: begin with //! and its purpose", source.path));
            }
            let stem = Path::new(&source.path)
                .file_stem()
                .unwrap()
                .to_string_lossy();
            if BANNED_NAMES.contains(&&*stem) {
                problems.push(format!("{}: name it for what it does", source.path));
            }
        }
    }
    complain(&problems);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut problems = Vec::new();
    for folder in ["src", "loadgen", "tests", "benches"] {
        for source in sources(folder)
            .iter()
            .filter(|source| source.path != "tests/tidy.rs")
        {
            for (number, line) in (1..).zip(source.text.lines()) {
                for (banned, instead) in BANNED {
                    if line.contains(banned) {
                        problems.push(format!("{}:{number}: {banned}: {instead}", source.path));
                    }
                }
            }
        }
    }
    complain(&problems);
}

#[test]
fn functions_files_and_lines_are_short() {
    let mut problems = Vec::new();
    for source in [sources("src"), sources("loadgen")].concat_all() {
        let count = source.lines().count();
        if count > FILE_LINES_MAX {
            problems.push(format!(
                "{}: {count} lines: split it by responsibility",
                source.path
            ));
        }
        let mut function: Option<(usize, usize)> = None;
        for (number, line) in source.lines() {
            if line.chars().count() > LINE_CHARS_MAX {
                problems.push(format!("{}:{number}: line too long", source.path));
            }
            let indent = line.len() - line.trim_start().len();
            if let Some((start, depth)) = function
                && indent == depth
                && line.trim_start().starts_with('}')
            {
                let length = number - start + 1;
                if length > FUNCTION_LINES_MAX {
                    problems.push(format!("{}:{start}: {length} lines: split it", source.path));
                }
                function = None;
            }
            let begins = [
                "fn ",
                "pub fn ",
                "pub(super) fn ",
                "pub(crate) fn ",
                "pub const fn ",
            ];
            let text = line.trim_start();
            let is_async = text.starts_with("pub async fn ") || text.starts_with("async fn ");
            if begins.iter().any(|begin| text.starts_with(begin)) || is_async {
                function = Some((number, indent));
            }
        }
    }
    complain(&problems);
}
