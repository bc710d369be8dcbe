//! The lines of mosquitto.conf and of the files that it includes, each with its place.

use crate::control::text::{self, Remarks};
use crate::control::visible::spelled_out;
use crate::shard::files;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A line that says something.
#[derive(Clone, Debug)]
pub(super) struct Line {
    file: Rc<Path>,
    number: usize,
    /// Where it stands among all.
    pub order: usize,
    /// Its first word.
    pub key: String,
    /// All the rest.
    pub value: String,
}

impl Line {
    /// The file that a value names: whole, as Mosquitto means it where it is started in the file's folder.
    pub(super) fn path(&self) -> PathBuf {
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        let path = folder.join(&self.value);
        path.components().collect()
    }

    /// Whether a file counts from where Mosquitto is started, which nobody knows here.
    pub(super) fn has_loose_path(&self) -> bool {
        !self.value.starts_with('/')
    }

    fn may_be_secret(&self) -> bool {
        let of_plugin = ["auth_opt_", "plugin_opt_"];
        let is_of_plugin = of_plugin.iter().any(|begin| self.key.starts_with(begin));
        let words = ["password", "psk", "username", "pass"];
        is_of_plugin
            || (words.iter().any(|word| self.key.contains(word)) && !self.key.ends_with("_file"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}",
            self.file.display(),
            self.number,
            spelled_out(&self.key)
        )?;
        if self.may_be_secret() || self.value.is_empty() {
            return Ok(());
        }
        write!(f, " {}", spelled_out(&self.value))
    }
}

/// What cannot be read.
pub(super) type Unread = String;

/// All lines, those of included files in their places.
pub(super) fn read(file: &Path) -> Result<Vec<Line>, Unread> {
    let mut lines = Vec::new();
    for line in read_one(file)? {
        if line.key != "include_dir" {
            lines.push(line);
            continue;
        }
        for included in included(&line.path()).map_err(|error| format!("{line}: {error}"))? {
            lines.extend(read_one(&included)?);
        }
    }
    for (order, line) in lines.iter_mut().enumerate() {
        line.order = order;
    }
    Ok(lines)
}

fn read_one(file: &Path) -> Result<Vec<Line>, Unread> {
    let wrong = |error: String| format!("{}: {error}", file.display());
    let bytes = files::read(file, files::CONFIG_BYTES_MAX);
    let bytes = bytes.map_err(|error| wrong(error.to_string()))?;
    let text = text::decode(&bytes, Remarks::OwnLines);
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let file: Rc<Path> = file.into();
    let said = (1..).zip(text.lines().map(str::trim));
    let said = said.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let line = |(number, line): (usize, &str)| {
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        Line {
            file: Rc::clone(&file),
            number,
            order: 0,
            key: key.to_owned(),
            value: value.trim().to_owned(),
        }
    };
    Ok(said.map(line).collect())
}

/// The files of a folder that Mosquitto reads, in its order: of two names that differ in a letter's case, the
/// upper case first.
fn included(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| error.to_string())?.file_name();
        names.extend(
            name.into_string()
                .ok()
                .filter(|name| name.ends_with(".conf")),
        );
    }
    names.sort_by_key(|name| (name.to_lowercase(), name.clone()));
    Ok(names.iter().map(|name| folder.join(name)).collect())
}
