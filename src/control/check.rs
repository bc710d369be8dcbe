//! What a start would find wrong beyond the configuration file itself, for `ringmq check-config`. Nothing is
//! listened on, nothing is written and nothing removed.

use crate::control::config::{Config, MethodName, resolved};
use crate::control::reload::Files;
use crate::shard::files;
use crate::shard::listener::{Listener, Place};
use std::io;
use std::path::Path;

/// Looks at the folders of what the broker writes, at where it listens, and at the end of its certificates.
///
/// # Errors
/// The first thing that is wrong, and the remedy.
pub fn check(config: &Config, files: &Files) -> Result<(), String> {
    check_places(config)?;
    for (key, path) in written(config) {
        let of_key = |error: String| format!("{key}: {}: {error}", path.display());
        files::look(path).map_err(|error| of_key(error.to_string()))?;
        files::may_append(path).map_err(of_key)?;
    }
    for listener in &config.listeners {
        let key = config.listeners_by.key();
        Listener::look(&listener.place).map_err(|error| error.by_key(key))?;
    }
    for (key, place) in config.admin.places() {
        if key != "admin.listen" || config.admin.is_said {
            Listener::look(place).map_err(|error| format!("{key}: {}", error.reason()))?;
        }
    }
    check_storage(config)?;
    files.ended_certificate().map_or(Ok(()), Err)
}

/// Whether state can be kept: the directory is there and this user may write it, or may make it.
fn check_storage(config: &Config) -> Result<(), String> {
    let Some(storage) = &config.storage else {
        return Ok(());
    };
    let path = &storage.place.path;
    let to_write = match path.metadata() {
        Ok(is) if is.is_dir() => path,
        Ok(_) => {
            let shown = path.display();
            return Err(format!(
                "storage.directory: {shown} is no folder; name another"
            ));
        }
        Err(_) => {
            check_folder("storage.directory: ", path)?;
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            folder.unwrap_or(Path::new("."))
        }
    };
    files::may_write_into(to_write).map_err(|error| {
        let shown = to_write.display();
        format!(
            "storage.directory: this user may not write into {shown}: {error}; make it the broker's, or \
             name another"
        )
    })
}

/// Looks at where the broker will make files; a start does that too, before it makes any.
///
/// # Errors
/// The first place where none can be made, and the remedy.
pub fn check_places(config: &Config) -> Result<(), String> {
    for (key, path) in written(config) {
        check_folder(&format!("{key}: "), path)?;
    }
    for listener in &config.listeners {
        if let Place::Unix(place) = &listener.place {
            check_folder("cannot listen on ", &place.path)?;
        }
    }
    for (key, place) in config.admin.places() {
        if let Place::Unix(place) = place {
            check_folder(&format!("{key}: cannot listen on "), &place.path)?;
        }
    }
    let [audit, log] =
        [&config.audit_file, &config.log.file].map(|path| path.as_deref().map(resolved));
    match (audit, log) {
        // Standard error and the like may take both.
        (Some(audit), Some(log)) if audit == log && !log.starts_with("/dev") => Err(format!(
            "log_file: {} is the audit_file too; name another",
            log.display()
        )),
        _ => Ok(()),
    }
}

/// What is no mistake, but not as it was meant, or will not serve for long.
#[must_use]
pub fn warnings(config: &Config, files: &Files) -> Vec<String> {
    let mut warnings = config.warnings.clone();
    let authentication = &config.authentication;
    let asks = |method| authentication.methods.contains(&method);
    if let (Some(users), Some(path)) = (files.users(), &authentication.password_file) {
        let (users, path) = (users.file(), path.display());
        if asks(MethodName::Scram) && !users.has_scram() {
            warnings.push(format!(
                "authentication.scram: no user in {path} can log in by SCRAM yet; `ringmq passwd --scram` \
                 makes one that can"
            ));
        }
        if asks(MethodName::PasswordFile) && users.is_empty() {
            warnings.push(format!(
                "password_file: {path} has no user yet: nobody can log in by it; `ringmq passwd` adds one"
            ));
        }
    }
    let names_users = files.acl().is_some_and(|acl| acl.names_users());
    if let Some(path) = config.acl_file.as_ref().filter(|_| names_users)
        && authentication.methods.is_empty()
        && config.bridges.is_empty()
    {
        warnings.push(format!(
            "acl_file: {} has rules for users, but nobody is one: [authentication] has no method, and a \
             user name that is only said counts for nothing",
            path.display()
        ));
    }
    warnings.extend(files.term_warnings());
    warnings.extend(files.warnings().cloned());
    warnings
}

/// Files of lines that the broker writes, by their keys.
fn written(config: &Config) -> impl Iterator<Item = (&'static str, &Path)> {
    let files = [
        ("audit_file", &config.audit_file),
        ("log_file", &config.log.file),
    ];
    let named = files.into_iter();
    named.filter_map(|(key, path)| Some((key, path.as_deref()?)))
}

/// Whether a file can be made at `path`, as far as that can be seen without making it.
fn check_folder(what: &str, path: &Path) -> Result<(), String> {
    let shown = path.display();
    if path.is_dir() {
        return Err(format!("{what}{shown} is a folder; name a file"));
    }
    let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) else {
        return Ok(());
    };
    let text = match folder.metadata() {
        Ok(_) => "is no folder; name another".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "does not exist; make it, or name another".to_owned()
        }
        Err(error) => format!("cannot be reached: {error}"),
    };
    let folder = folder.display();
    Err(format!("{what}{shown}: the folder {folder} {text}"))
}
