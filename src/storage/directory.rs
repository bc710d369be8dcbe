//! A directory that keeps what must be kept, as a process finds it when it starts: the log, and what each
//! shard's frames say.
//!
//! Not here: what the frames mean to a shard ([`super::record`]), and who writes on.

use super::log::disk::Directory;
use super::log::scan::Torn;
use super::log::segment::LogId;
use super::log::{Log, LogConfig, LogError};
use crate::engine::keys::ShardId;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

/// The records of a shard's frames, in order.
pub type Frames = Vec<Vec<u8>>;

/// What is there.
#[derive(Debug)]
pub struct Found {
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
    /// More shards have written it.
    Shards(PathBuf, ShardId, ShardId),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirectoryError::Taken(path) => {
                write!(f, "{}: another process uses it", path.display())
            }
            DirectoryError::Unusable(path, error) => write!(f, "{}: {error}", path.display()),
            DirectoryError::Log(path, error) => {
                let path = path.display();
                write!(f, "{path}: {error}")?;
                match error {
                    LogError::Damaged(_) => write!(f, "; {}", Remedy(path.to_string())),
                    _ => Ok(()),
                }
            }
            DirectoryError::Shards(path, kept, now) => write!(
                f,
                "{}: shard {kept} has written there, and there are {now} shards now; start with as \
                 many as before (shards)",
                path.display()
            ),
        }
    }
}

impl std::error::Error for DirectoryError {}

/// What to do about a directory that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy(pub String);

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
pub fn open(path: &Path, shards: ShardId, now_ms: u64) -> Result<Found, DirectoryError> {
    let place = || path.to_owned();
    let disk = Directory::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DirectoryError::Taken(place()),
        _ => DirectoryError::Unusable(place(), error),
    })?;
    let mut frames: Vec<Frames> = (0..shards).map(|_| Vec::new()).collect();
    let mut beyond = None;
    let opened = Log::open(
        disk,
        LogConfig::default(),
        new_id(),
        now_ms,
        |frame| match frames.get_mut(usize::from(frame.shard)) {
            Some(frames) if !frame.records.is_empty() => frames.push(frame.records.to_vec()),
            Some(_) => {}
            None => beyond = beyond.max(Some(frame.shard)),
        },
    );
    let (log, scan) = opened.map_err(|(error, _)| DirectoryError::Log(place(), error))?;
    if let Some(shard) = beyond {
        return Err(DirectoryError::Shards(place(), shard, shards));
    }
    Ok(Found {
        log,
        frames,
        torn: scan.torn,
    })
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
    fn a_directory_with_frames_of_more_shards_or_of_another_process_is_refused() {
        use crate::storage::log::frame::Frame;
        use std::collections::VecDeque;
        let name = format!("ringmq-found-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        let mut found = open(&path, 4, 1).expect("a new one");
        let taken = open(&path, 4, 1).expect_err("taken").to_string();
        assert!(taken.ends_with("another process uses it"), "{taken}");
        let frame = |shard: u16| {
            let mut frame = Frame::new(Vec::new(), shard);
            frame.records().extend_from_slice(&[shard as u8; 3]);
            frame.seal();
            frame
        };
        let mut frames = VecDeque::from([frame(3), frame(0), frame(3)]);
        found.log.append(&mut frames, 1, drop).expect("written");
        found.log.sync().expect("safe");
        drop(found);
        let other = open(&path, 3, 2).expect_err("of four").to_string();
        assert!(
            other.contains("shard 3") && other.contains("3 shards"),
            "{other}"
        );
        let again = open(&path, 4, 3).expect("the same");
        let counts: Vec<usize> = again.frames.iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 0, 0, 2]);
        assert_eq!(again.frames[3], [vec![3; 3], vec![3; 3]]);
        drop(again);
        let _ = std::fs::remove_dir_all(&path);
    }
}
