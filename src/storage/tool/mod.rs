//! What an operator does with a directory while no broker uses it: look whether it is whole, look into it,
//! take out of it what is left, fill a new one with what another broker kept; and copy it at any time.
//!
//! Invariant: what is looked at is never changed; what is made has its name only once it is complete and
//! safe.
//!
//! Not here: commands and how results are printed (`cli::store`).

pub mod backup;
pub mod check;
pub mod draft;
pub mod dump;
pub mod import;
pub mod mosquitto;
pub mod persist_sqlite;
pub mod readers;
pub mod remains;
pub mod rescue;
pub mod salvage;
pub mod stats;
pub mod walk;

use crate::storage::directory::Remedy;
use crate::storage::log::LogError;
use crate::storage::log::disk::{Directory, Disk};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why something cannot be done.
#[derive(Debug)]
pub enum ToolError {
    /// A broker, or another command, has the directory.
    Taken(PathBuf),
    /// It cannot be opened.
    Unusable(PathBuf, io::Error),
    /// It is none of a store.
    NoStore(PathBuf),
    /// It is to be made, and there is something already.
    NotEmpty(PathBuf),
    /// Something else cannot be used.
    Wrong(String),
    /// It is not what was written.
    Damaged(PathBuf),
    /// It cannot be read or written.
    Failed(PathBuf, LogError),
}

impl ToolError {
    /// Whether another directory or file should have been named.
    #[must_use]
    pub const fn is_wrong_use(&self) -> bool {
        match self {
            ToolError::Unusable(..)
            | ToolError::NoStore(_)
            | ToolError::NotEmpty(_)
            | ToolError::Wrong(_) => true,
            ToolError::Taken(_) | ToolError::Damaged(_) | ToolError::Failed(..) => false,
        }
    }

    fn failed(path: &Path, error: LogError) -> Self {
        ToolError::Failed(path.to_owned(), error)
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolError::Taken(path) => write!(
                f,
                "{}: a broker uses it; stop the broker first, since what it writes meanwhile cannot be \
                 told from damage, or look at a copy (`ringmq store backup {} --to NEW`)",
                path.display(),
                path.display()
            ),
            ToolError::Unusable(path, error) => write!(f, "{}: {error}", path.display()),
            ToolError::NoStore(path) => write!(
                f,
                "{}: nothing is stored there, it has no segments (0000000001.seg and so on)",
                path.display()
            ),
            ToolError::NotEmpty(path) => write!(
                f,
                "{}: there is something already; name a directory that is not there, or an empty one",
                path.display()
            ),
            ToolError::Damaged(path) => {
                let path = path.display();
                write!(f, "{path} is damaged: {}", Remedy(path.to_string()))
            }
            ToolError::Wrong(words) => f.write_str(words),
            ToolError::Failed(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ToolError {}

/// Takes a directory to read it; no broker has it as long as it is held.
///
/// # Errors
/// It cannot be read, has no store, or a broker has it.
pub fn open(path: &Path) -> Result<Directory, ToolError> {
    opened(path, Directory::open_to_read(path))
}

/// Takes a directory to copy it, whoever has it.
///
/// # Errors
/// It cannot be read, or has no store.
pub fn open_to_copy(path: &Path) -> Result<Directory, ToolError> {
    opened(path, Directory::open_to_copy(path))
}

fn opened(path: &Path, opened: io::Result<Directory>) -> Result<Directory, ToolError> {
    let mut directory = opened.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => ToolError::Taken(path.to_owned()),
        _ => ToolError::Unusable(path.to_owned(), error),
    })?;
    match directory.segments() {
        Err(error) => Err(ToolError::Unusable(path.to_owned(), error)),
        Ok(segments) if segments.is_empty() => Err(ToolError::NoStore(path.to_owned())),
        Ok(_) => Ok(directory),
    }
}
