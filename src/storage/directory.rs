//! A directory that keeps what must be kept, as a process finds it when it starts: the log, and what each
//! shard's frames say.
//!
//! Not here: what the frames mean to a shard ([`super::record`]), and who writes on.

use super::log::disk::Directory;
use super::log::frame::{Found, Kind};
use super::log::scan::Torn;
use super::log::segment::{FIRST_SEGMENT, LogId};
use super::log::{Log, LogConfig, LogError};
use crate::engine::keys::ShardId;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;

/// A shard's frames.
#[derive(Debug, Default)]
pub struct Frames {
    /// The records of each, in order.
    pub records: Vec<Vec<u8>>,
    /// They begin with a checkpoint; what was before it is gone.
    pub from_checkpoint: bool,
    /// The first with which a checkpoint begins.
    checkpoint: Option<usize>,
}

impl Frames {
    fn put(&mut self, frame: &Found<'_>) {
        if frame.kind == Kind::CheckpointBegins {
            self.checkpoint.get_or_insert(self.records.len());
        }
        if !frame.records.is_empty() {
            self.records.push(frame.records.to_vec());
        }
    }

    /// What the log had before is gone: what was told before the first checkpoint hangs in the air. False if
    /// there is none.
    fn begin_with_checkpoint(&mut self) -> bool {
        let Some(checkpoint) = self.checkpoint else {
            return false;
        };
        self.records.drain(..checkpoint);
        self.from_checkpoint = true;
        true
    }
}

/// Which directory, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub path: PathBuf,
    /// How the log in it is.
    pub log: LogConfig,
    /// Bytes of its file system that stay free; by default a twentieth, at most 1 GiB.
    pub free_bytes_min: Option<u64>,
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
    /// What a shard had told before is gone, and it has not told it anew.
    Incomplete(PathBuf, ShardId),
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
            DirectoryError::Log(path, error) => write!(f, "{}: {error}", path.display()),
            DirectoryError::Incomplete(path, shard) => write!(
                f,
                "{}: the first segments are gone, and nothing tells what shard {shard} had",
                path.display()
            ),
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

/// Opens a directory, which is made if it is missing, for so many shards. `now_ms` is the wall clock.
///
/// # Errors
/// It cannot be used; what is kept in it has not changed then.
pub fn open(at: &Place, shards: ShardId, now_ms: u64) -> Result<Opened, DirectoryError> {
    let place = || at.path.clone();
    let opened = Directory::open(&at.path).and_then(|mut disk| {
        disk.keep_free(at.free_bytes_min)?;
        Ok(disk)
    });
    let disk = opened.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DirectoryError::Taken(place()),
        _ => DirectoryError::Unusable(place(), error),
    })?;
    let mut frames: Vec<Frames> = (0..shards).map(|_| Frames::default()).collect();
    let mut beyond = None;
    let opened = Log::open(disk, at.log, new_id(), now_ms, |frame| {
        match frames.get_mut(usize::from(frame.shard)) {
            Some(frames) => frames.put(&frame),
            None => beyond = beyond.max(Some(frame.shard)),
        }
    });
    let (log, scan) = opened.map_err(|(error, _)| DirectoryError::Log(place(), error))?;
    if let Some(shard) = beyond {
        return Err(DirectoryError::Shards(place(), shard, shards));
    }
    if scan
        .segments
        .first()
        .is_some_and(|first| *first > FIRST_SEGMENT)
    {
        for (shard, frames) in (0..).zip(&mut frames) {
            if !frames.begin_with_checkpoint() {
                return Err(DirectoryError::Incomplete(place(), shard));
            }
        }
    }
    Ok(Opened {
        log,
        frames,
        torn: scan.torn,
    })
}

/// A log's identity: random enough that no two are alike.
fn new_id() -> LogId {
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
        let at = Place {
            path: path.clone(),
            log: LogConfig::default(),
            free_bytes_min: Some(0),
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
        let other = open(&at, 3, 2).expect_err("of four").to_string();
        assert!(
            other.contains("shard 3") && other.contains("3 shards"),
            "{other}"
        );
        let again = open(&at, 4, 3).expect("the same");
        let counts: Vec<usize> = again.frames.iter().map(|it| it.records.len()).collect();
        assert_eq!(counts, [1, 0, 0, 2]);
        assert_eq!(again.frames[3].records, [vec![3; 3], vec![3; 3]]);
        drop(again);
        let _ = std::fs::remove_dir_all(&path);
    }
}
