//! What a start would find wrong beyond the configuration file itself, for `ringmq check-config`. Nothing is
//! listened on, nothing is written and nothing removed.

use crate::control::config::Config;
use crate::control::reload::Files;
use crate::shard::files;
use crate::shard::listener::{Listener, Place};
use std::path::Path;

/// Looks at the folders of what the broker writes, at where it listens, and at the end of its certificates.
///
/// # Errors
/// The first thing that is wrong, and the remedy.
pub fn check(config: &Config, files: &Files) -> Result<(), String> {
    let written = [
        ("audit_file", &config.audit_file),
        ("log_file", &config.log.file),
    ];
    for (key, path) in written {
        if let Some(path) = path {
            check_folder(key, path)?;
            let wrong = |error| format!("{key}: {}: {error}", path.display());
            files::look(path).map_err(wrong)?;
        }
    }
    for listener in &config.listeners {
        if let Place::Unix(place) = &listener.place {
            check_folder(&listener.place.to_string(), &place.path)?;
        }
        Listener::look(&listener.place).map_err(|error| error.to_string())?;
    }
    files.ended_certificate().map_or(Ok(()), Err)
}

/// Whether a file can be made at `path`, as far as that can be seen without making it.
fn check_folder(key: &str, path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Err(format!(
            "{key}: {} is a folder; name a file",
            path.display()
        ));
    }
    match path.parent() {
        Some(folder) if !folder.is_dir() => Err(format!(
            "{key}: the folder {} does not exist; make it, or name another",
            folder.display()
        )),
        _ => Ok(()),
    }
}
