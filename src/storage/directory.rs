//! A directory that keeps what must be kept, as a process finds it when it starts: the log, and what each
//! shard's frames say.
//!
//! Not here: what the frames mean to a shard ([`super::record`]), and who writes on.

use super::epoch::{Epochs, beyond, no_checkpoint};
use super::log::disk::Directory;
use super::log::frame::Found;
use super::log::scan::{Heads, Torn};
use super::log::segment::{FIRST_SEGMENT, LogId};
use super::log::trace::Trace;
use super::log::{Log, LogConfig, LogError};
use super::pipe::Pipe;
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

/// A directory that no other process has, and of which nothing was read yet.
#[derive(Debug)]
pub struct Taken {
    at: Place,
    disk: Directory,
}

/// Takes a directory, which is made if it is missing.
///
/// # Errors
/// Another process has it, or it cannot be used.
pub fn take(at: &Place) -> Result<Taken, DirectoryError> {
    let place = || at.path.clone();
    let unusable = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => DirectoryError::Taken(place()),
        _ => DirectoryError::Unusable(place(), error),
    };
    let mut disk = Directory::open(&at.path).map_err(unusable)?;
    if let Some(trace) = &at.trace {
        disk.record_in(Trace::open(trace).map_err(unusable)?);
    }
    let at = at.clone();
    Ok(Taken { at, disk })
}

impl Taken {
    /// Reads the log, with one way to each shard for what that has kept. `now_ms` is the wall clock.
    ///
    /// # Errors
    /// It cannot be used; what is kept in it has not changed then.
    pub fn read(self, ways: Vec<Pipe>, now_ms: u64) -> Result<Opened, DirectoryError> {
        let place = || self.at.path.clone();
        let shards = ways.len() as ShardId;
        let mut handing = Handing {
            ways,
            is_straight: None,
            epochs: Epochs::default(),
            beyond: None,
        };
        let id = (new_id(), shards);
        let opened = Log::open(self.disk, self.at.log, id, now_ms, |frame, heads| {
            handing.frame(&frame, heads);
        });
        let (mut log, scan) = opened.map_err(|(error, _)| DirectoryError::Log(place(), error))?;
        // From now on: a start on a full disk needs room for what makes room.
        let kept_free = log.disk_mut().keep_free(self.at.free_bytes_min);
        kept_free.map_err(|error| DirectoryError::Unusable(place(), error))?;
        let handed = handing.finish(scan.segments.first().copied());
        handed.map_err(|why| DirectoryError::Kept(place(), why))?;
        Ok(Opened {
            log,
            torn: scan.torn,
        })
    }
}

/// Hands the shards what they have kept, while it is read if they are as many as have written it.
struct Handing {
    ways: Vec<Pipe>,
    /// Whether they are, by the heads of all segments.
    is_straight: Option<bool>,
    /// What others have written, until all of it is there.
    epochs: Epochs,
    /// A frame's shard that was not among so many.
    beyond: Option<(ShardId, u32)>,
}

impl Handing {
    fn frame(&mut self, frame: &Found<'_>, heads: Heads<'_>) {
        let is_straight = match self.is_straight {
            Some(known) => known,
            None => self.begin(heads),
        };
        if !is_straight {
            self.epochs.put(frame, heads.this);
            return;
        }
        match self.ways.get_mut(usize::from(frame.shard)) {
            Some(way) => way.frame(frame),
            None => self.beyond = Some((frame.shard, heads.this.shards)),
        }
    }

    fn begin(&mut self, heads: Heads<'_>) -> bool {
        let shards = self.ways.len();
        let is_straight = heads.all.iter().all(|head| head.shards as usize == shards);
        let is_cut = heads
            .all
            .first()
            .is_some_and(|it| it.number > FIRST_SEGMENT);
        if is_straight && is_cut {
            self.ways.iter_mut().for_each(Pipe::begin_with_checkpoint);
        }
        self.is_straight = Some(is_straight);
        is_straight
    }

    /// The log is right as a whole.
    fn finish(mut self, first_segment: Option<u64>) -> Result<(), String> {
        if self.is_straight == Some(false) {
            let epochs = self.epochs.finish(first_segment)?;
            let frames = rehome(epochs, self.ways.len() as ShardId)?;
            for (way, frames) in self.ways.iter_mut().zip(frames) {
                for records in frames.records {
                    way.records(&records);
                }
            }
        }
        if let Some((shard, shards)) = self.beyond {
            return Err(beyond(shard, shards));
        }
        if let Some((shard, _)) = (0..).zip(&self.ways).find(|(_, way)| way.is_before()) {
            return Err(no_checkpoint(shard));
        }
        self.ways.into_iter().for_each(Pipe::end);
        Ok(())
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
    use crate::storage::log::frame::Frame;
    use crate::storage::pipe::{Kept, pipes};
    use crate::storage::record::encoder::Encoder;
    use crate::storage::rehome::number;
    use crate::storage::samples::opened;
    use std::collections::VecDeque;

    fn place(name: &str) -> Place {
        let name = format!("ringmq-found-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Place {
            path,
            log: LogConfig::default(),
            free_bytes_min: Some(0),
            trace: None,
        }
    }

    fn opened_for(at: &Place, shards: usize) -> (Opened, Vec<Kept>) {
        let (ways, kept) = pipes(shards);
        let taken = take(at).expect("free");
        (taken.read(ways, 1).expect("a log"), kept)
    }

    /// Clients of each shard's sessions.
    fn clients(kept: Vec<Kept>) -> Vec<Vec<String>> {
        let clients = kept.into_iter().map(|kept| {
            let image = kept.play().expect("a history");
            let sessions = image.sessions.into_values();
            sessions.map(|it| it.opened.client_id.to_string()).collect()
        });
        clients.collect()
    }

    /// A frame of a shard that tells of one more session.
    fn frame(shard: ShardId, counter: u64, client: &str) -> Frame {
        let mut encoder = Encoder::new(shard, 0);
        let record = opened(number(counter, shard), client);
        let ticket = counter;
        encoder.put(&crate::engine::record::Persist { ticket, record });
        encoder.flush();
        encoder.frames().next().expect("one")
    }

    #[test]
    fn a_directory_has_one_process_and_frames_by_shard() {
        let at = place("shards");
        let (mut found, _) = opened_for(&at, 4);
        let taken = take(&at).expect_err("taken").to_string();
        assert!(taken.ends_with("another process uses it"), "{taken}");
        let frames = [frame(3, 1, "a"), frame(0, 1, "b"), frame(3, 2, "c")];
        let log = &mut found.log;
        log.append(&mut VecDeque::from(frames), 1, |_, _| {})
            .expect("written");
        log.sync().expect("safe");
        drop(found);
        let (again, kept) = opened_for(&at, 4);
        let shards = clients(kept);
        assert_eq!(shards, [vec!["b"], vec![], vec![], vec!["a", "c"]]);
        drop(again);
        // As many shards as write it now have what others wrote, by their clients' names.
        let (again, kept) = opened_for(&at, 2);
        let mut all = clients(kept).concat();
        all.sort();
        assert_eq!(all, ["a", "b", "c"]);
        drop(again);
        let _ = std::fs::remove_dir_all(&at.path);
    }

    #[test]
    fn a_frame_of_a_shard_that_never_was_refuses_the_directory() {
        let at = place("beyond");
        let (mut found, _) = opened_for(&at, 2);
        let mut frames = VecDeque::from([frame(5, 1, "a")]);
        let appended = found.log.append(&mut frames, 1, |_, _| {});
        appended.expect("written");
        found.log.sync().expect("safe");
        drop(found);
        for shards in [1, 2] {
            let (ways, _kept) = pipes(shards);
            let refused = take(&at).expect("free").read(ways, 1).expect_err("beyond");
            let text = refused.to_string();
            assert!(text.contains("of shard 5, though 2"), "{text}");
        }
        let _ = std::fs::remove_dir_all(&at.path);
    }

    #[test]
    fn frames_across_what_is_read_at_once_are_found_and_damage_in_them_too() {
        use crate::storage::log::disk::Disk;
        use crate::storage::log::frame::{FRAME_BYTES_MAX, HEADER_BYTES};
        use crate::storage::log::segment::{BLOCK_BYTES, file_name};
        use std::os::unix::fs::FileExt;
        let at = place("pieces");
        let largest = FRAME_BYTES_MAX - HEADER_BYTES;
        let sizes = [
            3,
            largest,
            700_000,
            1,
            largest,
            largest,
            5_000,
            largest - 17,
            900_001,
            8,
        ];
        let open = || {
            let disk = Directory::open(&at.path).expect("ours");
            let mut found = Vec::new();
            let opened = Log::open(disk, at.log, (LogId([1; 16]), 1), 1, |frame, _| {
                found.push((frame.ticket, frame.records.len()));
            });
            (opened.map_err(|(error, _)| error.to_string()), found)
        };
        let (mut log, _) = open().0.expect("a new one");
        let (mut offset, mut places) = (BLOCK_BYTES, Vec::new());
        let sealed = (1..).zip(sizes).map(|(ticket, bytes)| {
            let mut frame = Frame::new(Vec::new(), 0);
            frame.records().resize(HEADER_BYTES + bytes, ticket as u8);
            frame.ticket = ticket;
            frame.seal();
            places.push(offset);
            offset += frame.wire().len();
            frame
        });
        let mut frames: VecDeque<_> = sealed.collect();
        log.append(&mut frames, 1, |_, _| {}).expect("written");
        log.sync().expect("safe");
        log.disk_mut().sync_directory().expect("safe");
        drop(log);
        let (opened, found) = open();
        assert!(opened.is_ok() && found.into_iter().eq((1..).zip(sizes)));
        drop(opened);
        let file = at.path.join(file_name(1));
        let file = std::fs::OpenOptions::new().write(true).open(file);
        let file = file.expect("there");
        for damaged in [1, 4, 8] {
            let in_it = (places[damaged] + HEADER_BYTES) as u64;
            file.write_all_at(&[0xFF], in_it).expect("written");
            let (refused, _) = open();
            let text = refused.expect_err("damaged");
            let wanted = format!("frame {} at byte {}", damaged + 1, places[damaged]);
            assert!(text.contains(&wanted), "{text}: not {wanted}");
            let right = [damaged as u8 + 1];
            file.write_all_at(&right, in_it).expect("written");
        }
        assert!(open().0.is_ok());
        let _ = std::fs::remove_dir_all(&at.path);
    }
}
