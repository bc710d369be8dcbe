//! Who imports whom among the source files, read from their text: `use` declarations, groups and nested ones
//! included, and paths within code.
//!
//! A folder's `mod.rs` and the files in it are one module in several files: what a file takes from a module
//! that it lies in is no import. Tests at the end of a file do not count.

use super::{Source, code};
use std::collections::{BTreeMap, BTreeSet};

/// Imports by file: which others it names.
pub type Imports = BTreeMap<String, BTreeSet<String>>;

/// The module path of a file: `src/engine/route/mod.rs` is `engine`, `route`.
fn module(path: &str) -> Vec<&str> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<_> = inner.split('/').collect();
    if parts.last() == Some(&"mod") {
        parts.pop();
    }
    parts
}

/// Takes `a::{b, c::{d, e}}` apart into paths.
fn expand(tree: &str, into: &mut Vec<String>) {
    let Some((prefix, rest)) = tree.split_once('{') else {
        into.push(tree.trim().to_owned());
        return;
    };
    let body = rest.rsplit_once('}').map_or(rest, |(body, _)| body);
    let (mut depth, mut from) = (0, 0);
    for (at, character) in body.char_indices().chain([(body.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = body[from..at].trim();
                if !part.is_empty() {
                    expand(&format!("{}{part}", prefix.trim()), into);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// All paths that a file's code names.
fn paths(source: &Source) -> Vec<String> {
    let text: Vec<_> = source.lines().map(|(_, line)| code(line)).collect();
    let text = text.join("\n");
    let mut found = Vec::new();
    let mut rest = String::new();
    for statement in text.split_inclusive(';') {
        let begin = statement.rfind("use ").filter(|&at| {
            let before = statement[..at].trim_end_matches(' ');
            before.is_empty() || before.ends_with('\n') || before.ends_with("pub")
        });
        match begin {
            Some(at) => expand(statement[at + 4..].trim_end_matches(';'), &mut found),
            None => rest.push_str(statement),
        }
    }
    for root in ["crate::", "super::", "self::", "ringmq::"] {
        for (at, _) in rest.match_indices(root) {
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let path = rest[at..].split(|c| !is_path(c)).next();
            found.extend(path.map(|path| path.trim_end_matches(':').to_owned()));
        }
    }
    found
}

/// The file that a path leads to, seen from the module `here`.
fn target<'a>(
    path: &str,
    here: &[&str],
    files: &BTreeMap<Vec<&'a str>, &'a str>,
) -> Option<&'a str> {
    let names = path.split("::").map(|name| {
        let name = name.trim();
        name.split_once(" as ").map_or(name, |(name, _)| name)
    });
    let mut full: Vec<&str> = here.to_vec();
    for (number, name) in names.enumerate() {
        match name {
            "crate" | "ringmq" if number == 0 => full.clear(),
            "self" => {}
            "super" => drop(full.pop()),
            _ => full.push(name),
        }
    }
    while !full.is_empty() {
        if let Some(file) = files.get(&full) {
            return Some(file);
        }
        full.pop();
    }
    None
}

/// The imports of all files.
pub fn imports(sources: &[Source]) -> Imports {
    let files: BTreeMap<_, _> = sources
        .iter()
        .filter(|source| !["src/main.rs", "src/lib.rs"].contains(&source.path.as_str()))
        .map(|source| (module(&source.path), source.path.as_str()))
        .collect();
    let mut imports = Imports::new();
    for source in sources {
        let here = match source.path.as_str() {
            "src/main.rs" | "src/lib.rs" => Vec::new(),
            path => module(path),
        };
        let named = paths(source)
            .into_iter()
            .filter_map(|path| target(&path, &here, &files));
        let named = named.filter(|&file| {
            let around = file.strip_suffix("mod.rs");
            file != source.path && around.is_none_or(|folder| !source.path.starts_with(folder))
        });
        imports.insert(source.path.clone(), named.map(str::to_owned).collect());
    }
    imports
}

/// Imports between rooms: the files and folders of a wing.
pub fn between_rooms(imports: &Imports) -> Imports {
    let room = |path: &str| -> String {
        let parts: Vec<_> = path.splitn(4, '/').take(3).collect();
        parts.join("/")
    };
    let mut rooms = Imports::new();
    for (from, named) in imports {
        let named = named
            .iter()
            .map(|to| room(to))
            .filter(|to| *to != room(from));
        rooms.entry(room(from)).or_default().extend(named);
    }
    rooms
}

/// A way from `start` back to it, if there is one.
pub fn circle(imports: &Imports, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in imports.get(way.last()?).into_iter().flatten() {
            let longer = [&way[..], std::slice::from_ref(next)].concat();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                ways.push(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn imports_are_found_however_they_are_written() {
        let sources = [
            file("src/a/mod.rs", "mod x;\nuse x::X;\n"),
            file(
                "src/a/x.rs",
                "use super::Y;\nuse crate::{b::B, c::{self, C}};\n",
            ),
            file("src/b.rs", "fn f() { crate::a::x::g() } // crate::c\n"),
            file(
                "src/c.rs",
                "#[cfg(test)]\nmod tests {}\n\n#[cfg(test)]\nmod t { use crate::a; }",
            ),
        ];
        let imports = imports(&sources);
        let of = |path: &str| imports[path].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of("src/a/mod.rs"), ["src/a/x.rs"]);
        assert_eq!(of("src/a/x.rs"), ["src/b.rs", "src/c.rs"]);
        assert_eq!(of("src/b.rs"), ["src/a/x.rs"]);
        assert!(of("src/c.rs").is_empty());
        let way = circle(&imports, "src/b.rs").unwrap();
        assert_eq!(way, ["src/b.rs", "src/a/x.rs", "src/b.rs"]);
        assert_eq!(circle(&imports, "src/c.rs"), None);
    }
}
