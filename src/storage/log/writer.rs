//! The thread that writes a log: it takes all frames that wait, writes them, makes them safe, tells
//! whose they are, and begins again. So groups form by themselves while the disk is busy.
//!
//! Invariant: what is told to be safe is; after a failure nothing is told any more.

use super::disk::Disk;
use super::frame::Frame;
use super::{Log, LogError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Frames that wait for the thread, of all shards.
pub const WAITING_MAX: usize = 4_096;
/// Bytes that are written before they are made safe.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How often it is tried whether there is room again.
const FULL_INTERVAL: Duration = Duration::from_millis(200);
/// Without frames for so long, what is safe is written down.
const QUIET: Duration = Duration::from_millis(100);

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// Time between the beginnings of two syncs at least: a fast disk would be asked thousands of times
    /// a second for nothing.
    pub commit_interval: Duration,
    /// Segments beyond which the oldest goes, where nothing in it is needed.
    pub segments_max: Option<u64>,
    /// Frames that may wait; whoever has more waits itself. Without a bound nobody does.
    pub waiting_max: Option<usize>,
}

/// What the thread has to say.
#[derive(Debug)]
pub enum Told<'a> {
    /// More of a shard's frames is safe.
    Safe(u16),
    /// There is no room for more; it is tried again every now and then.
    Full(&'a LogError),
    /// There is room again.
    HasRoom,
    /// The thread ends: nothing will be safe any more.
    Failed(&'a LogError),
}

impl Default for WriterConfig {
    fn default() -> Self {
        WriterConfig {
            commit_interval: Duration::from_micros(500),
            segments_max: None,
            waiting_max: Some(WAITING_MAX),
        }
    }
}

/// How far the log of each shard is safe.
#[derive(Debug)]
pub struct Safe(Vec<AtomicU64>);

impl Safe {
    /// The highest ticket of a shard that is.
    #[must_use]
    pub fn ticket(&self, shard: u16) -> u64 {
        let known = self.0.get(usize::from(shard));
        known.map_or(0, |ticket| ticket.load(Ordering::Acquire))
    }
}

/// A thread that writes. It ends when nobody has the way to it any more.
#[derive(Debug)]
pub struct Writer<D> {
    /// The way to it; a frame that is sealed.
    pub frames: Sender<Frame>,
    /// What it has done.
    pub safe: Arc<Safe>,
    /// Its end, and why.
    pub thread: JoinHandle<Result<Log<D>, LogError>>,
}

impl<D: Disk + Send + 'static> Writer<D> {
    /// Starts the thread. `tell` hears of each shard that has news, once for each group, and what goes wrong.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(
        log: Log<D>,
        shards: u16,
        config: WriterConfig,
        tell: impl FnMut(Told<'_>) + Send + 'static,
    ) -> io::Result<Self> {
        let (frames, waiting) = match config.waiting_max {
            Some(max) => crossbeam_channel::bounded(max),
            None => crossbeam_channel::unbounded(),
        };
        let safe = Arc::new(Safe((0..shards).map(|_| AtomicU64::new(0)).collect()));
        let turns = Turns {
            log,
            config,
            waiting,
            group: VecDeque::new(),
            told: vec![None; usize::from(shards)],
            safe: Arc::clone(&safe),
            begun_at: None,
            tell,
        };
        let builder = std::thread::Builder::new().name("storage".to_owned());
        let thread = builder.spawn(move || turns.run())?;
        Ok(Writer {
            frames,
            safe,
            thread,
        })
    }
}

/// The wall clock, in milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

struct Turns<D, T> {
    log: Log<D>,
    config: WriterConfig,
    waiting: Receiver<Frame>,
    group: VecDeque<Frame>,
    /// Tickets of the group at hand, by shard.
    told: Vec<Option<u64>>,
    safe: Arc<Safe>,
    begun_at: Option<Instant>,
    tell: T,
}

impl<D: Disk, T: FnMut(Told<'_>)> Turns<D, T> {
    fn run(mut self) -> Result<Log<D>, LogError> {
        match self.work() {
            Ok(()) => Ok(self.log),
            Err(error) => {
                (self.tell)(Told::Failed(&error));
                Err(error)
            }
        }
    }

    fn work(&mut self) -> Result<(), LogError> {
        let mut is_marked = true;
        loop {
            match self.waiting.recv_timeout(QUIET) {
                Ok(frame) => self.group.push_back(frame),
                Err(RecvTimeoutError::Timeout) => {
                    if !is_marked {
                        self.log.mark(wall_ms())?;
                        is_marked = true;
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return self.log.mark(wall_ms());
                }
            }
            self.pace();
            self.gather();
            self.commit()?;
            is_marked = false;
        }
    }

    /// Waits until the next sync may begin.
    fn pace(&mut self) {
        let due = self.begun_at.map(|at| at + self.config.commit_interval);
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            std::thread::sleep(wait);
        }
        self.begun_at = Some(Instant::now());
    }

    /// Takes what waits.
    fn gather(&mut self) {
        let mut bytes = 0;
        while bytes < GROUP_BYTES_MAX {
            match self.waiting.try_recv() {
                Ok(frame) => {
                    bytes += frame.wire().len();
                    self.group.push_back(frame);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
    }

    fn append(&mut self) -> Result<(), LogError> {
        let told = &mut self.told;
        self.log.append(&mut self.group, wall_ms(), |frame| {
            if let Some(last) = told.get_mut(usize::from(frame.shard)) {
                *last = Some(frame.ticket);
            }
        })
    }

    fn commit(&mut self) -> Result<(), LogError> {
        let mut was_full = false;
        while let Err(error) = self.append() {
            let LogError::Full(_) = &error else {
                return Err(error);
            };
            if !std::mem::replace(&mut was_full, true) {
                (self.tell)(Told::Full(&error));
            }
            std::thread::sleep(FULL_INTERVAL);
        }
        if was_full {
            (self.tell)(Told::HasRoom);
        }
        self.log.sync()?;
        for (shard, told) in (0..).zip(&mut self.told) {
            if let Some(ticket) = told.take()
                && let Some(safe) = self.safe.0.get(usize::from(shard))
            {
                safe.store(ticket, Ordering::Release);
                (self.tell)(Told::Safe(shard));
            }
        }
        if self
            .config
            .segments_max
            .is_some_and(|max| self.log.segments() > max)
        {
            self.log.remove_oldest(wall_ms())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::LogConfig;
    use crate::storage::log::disk::Directory;
    use crate::storage::log::segment::LogId;
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("ringmq-{name}-{}", std::process::id());
            let place = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&place);
            Scratch(place)
        }

        fn open(&self, take: impl FnMut(u64)) -> Log<Directory> {
            let mut take = take;
            let disk = Directory::open(&self.0).expect("a directory");
            let config = LogConfig {
                segment_bytes: 1 << 20,
            };
            let opened = Log::open(disk, config, LogId([1; 16]), 1, |frame| take(frame.ticket));
            opened.map_err(|(error, _)| error).expect("undamaged").0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_told_to_be_safe_is_found_again() {
        let place = Scratch::new("writer");
        let (woken_to, woken) = crossbeam_channel::unbounded();
        let wake = move |told: Told<'_>| {
            if let Told::Safe(shard) = told {
                woken_to.send(shard).expect("heard");
            }
        };
        let writer = Writer::start(place.open(|_| {}), 2, WriterConfig::default(), wake);
        let writer = writer.expect("a thread");
        for ticket in 1..=1_000 {
            let mut frame = Frame::new(Vec::new(), (ticket % 2) as u16);
            frame.records().extend_from_slice(&[7; 3_000]);
            frame.ticket = ticket;
            frame.seal();
            writer.frames.send(frame).expect("it runs");
        }
        while writer.safe.ticket(0) < 1_000 || writer.safe.ticket(1) < 999 {
            woken.recv().expect("it runs");
        }
        assert_eq!(writer.safe.ticket(2), 0);
        drop(writer.frames);
        drop(
            writer
                .thread
                .join()
                .expect("no panic")
                .expect("a good disk"),
        );
        let mut found = Vec::new();
        place.open(|ticket| found.push(ticket));
        assert!(found.into_iter().eq(1..=1_000));
    }

    #[test]
    fn a_directory_has_one_user_and_is_nobody_elses_business() {
        use std::os::unix::fs::PermissionsExt;
        let place = Scratch::new("directory");
        let _log = place.open(|_| {});
        let other = Directory::open(&place.0).expect_err("it is taken");
        assert_eq!(other.kind(), io::ErrorKind::WouldBlock);
        let mode = |path: PathBuf| std::fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode(place.0.clone()) & 0o777, 0o700);
        assert_eq!(mode(place.0.join("0000000001.seg")) & 0o777, 0o600);
    }
}
