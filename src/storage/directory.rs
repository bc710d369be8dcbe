//! A directory that keeps what must be kept, as a process finds it when it starts: the log, and what each
//! shard's frames say.
//!
//! Not here: what the frames mean to a shard ([`super::record`]), and who writes on.

use super::epoch::{Epoch, Epochs, Frames};
use super::log::disk::Directory;
use super::log::scan::Torn;
use super::log::segment::LogId;
use super::log::trace::Trace;
use super::log::{Log, LogConfig, LogError};
use super::rehome::rehome;
use crate::engine::keys::ShardId;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

/// Which directory, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub path: PathBuf,
    /// How the log in it is.
    pub log: LogConfig,
    /// Bytes of its file system that stay free; by default a twentieth, at most 1 GiB.
    pub free_bytes_min: Option<u64>,
    /// Where what is done to it is recorded, for tests.
    pub trace: Option<PathBuf>,
}

/// What is there.
#[derive(Debug)]
pub struct Opened {
    /// The log, which goes on in a segment of its own.
    pub log: Log<Directory>,
    /// What the shards have kept, by their numbers.
    pub frames: Vec<Frames>,
    /// What was cut off because it was never safe.
    pub torn: Option<Torn>,
}

/// Why a directory cannot be used.
#[derive(Debug)]
pub enum DirectoryError {
    /// Another process has it.
    Taken(PathBuf),
    /// It cannot be made, opened or locked.
    Unusable(PathBuf, io::Error),
    /// The log in it cannot be gone on with.
    Log(PathBuf, LogError),
    /// What is kept makes no sense.
    Kept(PathBuf, String),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("storage.directory: ")?;
        match self {
            DirectoryError::Taken(path) => {
                write!(f, "{}: another process uses it", path.display())
            }
            DirectoryError::Unusable(path, error) => write!(f, "{}: {error}", path.display()),
            DirectoryError::Log(path, error @ LogError::Damaged(_)) => {
                write!(f, "{}: {error}; {}", path.display(), Remedy::of(path))
            }
            DirectoryError::Log(path, error) => write!(f, "{}: {error}", path.display()),
            DirectoryError::Kept(path, why) => {
                write!(f, "{}: {why}; {}", path.display(), Remedy::of(path))
            }
        }
    }
}

impl std::error::Error for DirectoryError {}

/// What to do about a directory that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy(pub String);

impl Remedy {
    /// For this one.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Remedy(path.display().to_string())
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.0;
        write!(
            f,
            "`ringmq store check {path}` says what is concerned, `ringmq store salvage {path} --to NEW` \
             writes what is left to a new directory"
        )
    }
}

/// Opens a directory, which is made if it is missing, for so many shards. `now_ms` is the wall clock.
///
/// # Errors
/// It cannot be used; what is kept in it has not changed then.
pub fn open(at: &Place, shards: ShardId, now_ms: u64) -> Result<Opened, DirectoryError> {
    let place = || at.path.clone();
    let unusable = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => DirectoryError::Taken(place()),
        _ => DirectoryError::Unusable(place(), error),
    };
    let mut disk = Directory::open(&at.path).map_err(unusable)?;
    if let Some(trace) = &at.trace {
        disk.record_in(Trace::open(trace).map_err(unusable)?);
    }
    let mut epochs = Epochs::default();
    let opened = Log::open(disk, at.log, (new_id(), shards), now_ms, |frame, head| {
        epochs.put(&frame, head);
    });
    let (mut log, scan) = opened.map_err(|(error, _)| DirectoryError::Log(place(), error))?;
    // From now on: a start on a full disk needs room for what makes room.
    let kept_free = log.disk_mut().keep_free(at.free_bytes_min);
    kept_free.map_err(unusable)?;
    let epochs = epochs.finish(scan.segments.first().copied());
    let epochs = epochs.map_err(|why| DirectoryError::Kept(place(), why))?;
    let frames = as_of_now(epochs, shards).map_err(|why| DirectoryError::Kept(place(), why))?;
    Ok(Opened {
        log,
        frames,
        torn: scan.torn,
    })
}

/// The frames of each of so many shards.
fn as_of_now(mut epochs: Vec<Epoch>, shards: ShardId) -> Result<Vec<Frames>, String> {
    match epochs.pop() {
        None => Ok((0..shards).map(|_| Frames::default()).collect()),
        Some(only) if epochs.is_empty() && only.frames.len() == usize::from(shards) => {
            Ok(only.frames)
        }
        Some(last) => {
            epochs.push(last);
            rehome(epochs, shards)
        }
    }
}

/// A log's identity: random enough that no two are alike.
#[must_use]
pub fn new_id() -> LogId {
    let mut id = [0; 16];
    let random = [RandomState::new(), RandomState::new()];
    for (half, random) in id.chunks_exact_mut(8).zip(random) {
        half.copy_from_slice(&random.hash_one(half.len()).to_le_bytes());
    }
    LogId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_process_and_frames_by_shard() {
        use crate::storage::log::frame::Frame;
        use std::collections::VecDeque;
        let name = format!("ringmq-found-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        let at = Place {
            path: path.clone(),
            log: LogConfig::default(),
            free_bytes_min: Some(0),
            trace: None,
        };
        let mut found = open(&at, 4, 1).expect("a new one");
        let taken = open(&at, 4, 1).expect_err("taken").to_string();
        assert!(taken.ends_with("another process uses it"), "{taken}");
        let frame = |shard: u16| {
            let mut frame = Frame::new(Vec::new(), shard);
            frame.records().extend_from_slice(&[shard as u8; 3]);
            frame.seal();
            frame
        };
        let mut frames = VecDeque::from([frame(3), frame(0), frame(3)]);
        found
            .log
            .append(&mut frames, 1, |_, _| {})
            .expect("written");
        found.log.sync().expect("safe");
        drop(found);
        let again = open(&at, 4, 3).expect("the same");
        let counts: Vec<usize> = again.frames.iter().map(|it| it.records.len()).collect();
        assert_eq!(counts, [1, 0, 0, 2]);
        assert_eq!(again.frames[3].records, [vec![3; 3], vec![3; 3]]);
        drop(again);
        let _ = std::fs::remove_dir_all(&path);
    }
}
