//! The thread that writes a log: it takes all frames that wait, writes them, makes them safe, tells
//! whose they are, and begins again. So groups form by themselves while the disk is busy. It has the shards
//! tell anew what there is when the log is long enough, and removes what is not needed then.
//!
//! Invariant: what is told to be safe is; after a failure nothing is told any more.

use super::cleaning::{Cleaning, Standing};
use super::disk::Disk;
use super::frame::Frame;
use super::progress::Progress;
use super::{Log, LogError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Frames that wait for the thread, of all shards.
pub const WAITING_MAX: usize = 4_096;
/// Bytes that are written before they are made safe.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Between two syncs the kernel gets what waits so often at most, where somebody waits for that.
const WRITES_PER_SYNC: u32 = 8;
/// While the disk is full so long a group waits for more.
const FULL_PACE: Duration = Duration::from_millis(50);
/// How often it is tried whether there is room again.
const FULL_INTERVAL: Duration = Duration::from_millis(200);
/// Without frames for so long, what is safe is written down.
const QUIET: Duration = Duration::from_millis(100);
/// Without frames for so many times as long, what is not needed is removed.
const QUIET_TO_CLEAN: u32 = 10;
/// Where frames count as safe when the kernel has them, the disk gets them this often.
const LAZY_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterConfig {
    /// Time between the beginnings of two syncs at least: a fast disk would be asked thousands of times
    /// a second for nothing. An eighth of it is between two writes, where that is enough.
    pub commit_interval: Duration,
    /// What counts as safe: what the disk has, or else what the kernel has.
    pub syncs: bool,
    /// Whether shards also hear what is written and not safe yet.
    pub tells_written: bool,
    /// Segments beyond which the oldest goes, where nothing in it is needed; otherwise the shards are asked.
    pub segments_max: Option<u64>,
    /// Frames that may wait; whoever has more waits itself. Without a bound nobody does.
    pub waiting_max: Option<usize>,
}

/// What the thread has to say.
#[derive(Debug)]
pub enum Told<'a> {
    /// [`Progress`] has news for a shard.
    News(u16),
    /// There is no room for another segment; it is tried again every now and then. What still fits is for
    /// what makes room.
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
            syncs: true,
            tells_written: false,
            segments_max: None,
            waiting_max: Some(WAITING_MAX),
        }
    }
}

/// A thread that writes. It ends when nobody has the way to it any more.
#[derive(Debug)]
pub struct Writer<D> {
    /// The way to it; a frame that is sealed.
    pub frames: Sender<Frame>,
    /// What it has done, and what shards have.
    pub progress: Arc<Progress>,
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
        let progress = Arc::new(Progress::new(shards));
        let turns = Turns {
            cleaning: Cleaning::new(shards, log.config().segment_bytes),
            log,
            config,
            shards,
            waiting,
            group: VecDeque::new(),
            told: vec![None; usize::from(shards)],
            progress: Arc::clone(&progress),
            begun_at: None,
            synced_at: Instant::now(),
            is_full: false,
            tell,
        };
        let builder = std::thread::Builder::new().name("storage".to_owned());
        let thread = builder.spawn(move || turns.run())?;
        Ok(Writer {
            frames,
            progress,
            thread,
        })
    }
}

/// Time between the beginnings of two groups at least. Each takes a block: what is left of a full disk must
/// not go to one acknowledgement each, or nothing is left to tell anew what there is.
fn interval_of(config: &WriterConfig, is_full: bool) -> Duration {
    let interval = config.commit_interval;
    if is_full {
        interval.max(FULL_PACE)
    } else if config.syncs {
        interval
    } else {
        interval / WRITES_PER_SYNC
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
    shards: u16,
    waiting: Receiver<Frame>,
    group: VecDeque<Frame>,
    /// Tickets of the group at hand, by shard.
    told: Vec<Option<u64>>,
    cleaning: Cleaning,
    progress: Arc<Progress>,
    begun_at: Option<Instant>,
    synced_at: Instant,
    is_full: bool,
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
        let (mut is_marked, mut quiet) = (true, 0);
        self.look_for_room()?;
        loop {
            match self.waiting.recv_timeout(QUIET) {
                Ok(frame) => self.group.push_back(frame),
                Err(RecvTimeoutError::Timeout) => {
                    if !std::mem::replace(&mut is_marked, true) {
                        self.mark()?;
                    }
                    quiet += 1;
                    self.look_for_room()?;
                    self.clean(quiet >= QUIET_TO_CLEAN)?;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.mark()?;
                    return self.log.finish();
                }
            }
            self.pace()?;
            self.gather();
            self.commit()?;
            self.clean(false)?;
            (is_marked, quiet) = (false, 0);
        }
    }

    /// Waits until the next sync may begin.
    fn pace(&mut self) -> Result<(), LogError> {
        let interval = interval_of(&self.config, self.is_full);
        let due = self.begun_at.map(|at| at + interval);
        let due = due.filter(|due| *due > Instant::now());
        if self.config.tells_written && self.config.syncs && !self.is_full {
            self.write_until(due, interval / WRITES_PER_SYNC)?;
        } else if let Some(due) = due {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        self.begun_at = Some(Instant::now());
        Ok(())
    }

    /// Where somebody waits for no more than the kernel, it gets what there is before the sync may begin, so
    /// often at most: each write takes a block.
    fn write_until(&mut self, due: Option<Instant>, step: Duration) -> Result<(), LogError> {
        loop {
            self.gather();
            self.write()?;
            self.tell_written();
            let left = || due.map(|due| due.saturating_duration_since(Instant::now()));
            let Some(wait) = left().filter(|left| !left.is_zero()) else {
                return Ok(());
            };
            std::thread::sleep(wait.min(step));
            let Some(wait) = left() else {
                return Ok(());
            };
            match self.waiting.recv_timeout(wait) {
                Ok(frame) => self.group.push_back(frame),
                Err(_) => return Ok(()),
            }
        }
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
        let (told, cleaning) = (&mut self.told, &mut self.cleaning);
        self.log
            .append(&mut self.group, wall_ms(), |frame, segment| {
                cleaning.note(&frame, segment);
                if let Some(last) = told.get_mut(usize::from(frame.shard)) {
                    *last = Some(frame.ticket);
                }
            })
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.write()?;
        self.make_safe()?;
        self.look_for_room()
    }

    /// Writes the group, when there is room for it.
    fn write(&mut self) -> Result<(), LogError> {
        while let Err(error) = self.append() {
            let LogError::Full(_) = &error else {
                return Err(error);
            };
            self.note_full(Some(&error));
            // What went into this segment still counts.
            self.make_safe()?;
            self.clean(true)?;
            self.look_for_room()?;
            if self.is_full && self.progress.gives_up() {
                self.group.clear();
                return Ok(());
            }
            if self.is_full {
                std::thread::sleep(FULL_INTERVAL);
            }
        }
        Ok(())
    }

    /// Makes safe what was written, and tells whose it is.
    fn make_safe(&mut self) -> Result<(), LogError> {
        self.tell_written();
        if self.config.syncs || self.synced_at.elapsed() >= LAZY_SYNC_INTERVAL {
            let begun = Instant::now();
            self.log.sync()?;
            self.synced_at = Instant::now();
            self.progress.note_sync(self.synced_at - begun);
        }
        self.tell_figures();
        for (shard, told) in (0..).zip(&mut self.told) {
            if let Some(ticket) = told.take() {
                self.progress.set_safe(shard, ticket);
                (self.tell)(Told::News(shard));
            }
        }
        Ok(())
    }

    /// Tells whose frames the kernel has, where somebody waits for no more.
    fn tell_written(&mut self) {
        if !self.config.tells_written || !self.config.syncs {
            return;
        }
        for (shard, told) in (0..).zip(&self.told) {
            if let Some(ticket) = told {
                self.progress.set_written(shard, *ticket);
                (self.tell)(Told::News(shard));
            }
        }
    }

    fn tell_figures(&self) {
        self.progress
            .note_commit(self.log.bytes(), self.log.segments());
    }

    /// Writes down what is safe, if there is room for it.
    fn mark(&mut self) -> Result<(), LogError> {
        match self.log.mark(wall_ms()) {
            Err(LogError::Full(_)) => self.log.sync(),
            marked => marked,
        }
    }

    /// Makes the next segment's file, so that a full disk is known in time.
    fn look_for_room(&mut self) -> Result<(), LogError> {
        // What has to be kept may be all there is.
        let Some(live) = self.progress.live() else {
            return Ok(());
        };
        let runs = self.cleaning.is_running();
        self.log.expect_checkpoint(live, runs);
        match self.log.prepare() {
            Ok(()) => self.note_full(None),
            Err(error @ LogError::Full(_)) => self.note_full(Some(&error)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn note_full(&mut self, error: Option<&LogError>) {
        let was_full = std::mem::replace(&mut self.is_full, error.is_some());
        if was_full == self.is_full {
            return;
        }
        (self.tell)(error.map_or(Told::HasRoom, Told::Full));
        self.progress.set_full(self.is_full);
        self.tell_all();
    }

    fn tell_all(&mut self) {
        (0..self.shards).for_each(|shard| (self.tell)(Told::News(shard)));
    }

    /// Has the shards tell anew what there is, when that is due, and removes what is not needed then.
    fn clean(&mut self, is_quiet: bool) -> Result<(), LogError> {
        if let Some(max) = self.config.segments_max {
            if self.log.segments() > max {
                self.log.remove_oldest(wall_ms())?;
            }
            return Ok(());
        }
        if let Some(needed) = self.cleaning.take_oldest_needed() {
            while self.log.oldest() < needed {
                match self.log.remove_oldest(wall_ms()) {
                    // The next checkpoint is through when there is room for it.
                    Err(LogError::Full(_)) => break,
                    removed => removed?,
                }
            }
            self.look_for_room()?;
        }
        // What is still being read may be all there is.
        let Some(live) = self.progress.live() else {
            return Ok(());
        };
        let standing = Standing {
            log_bytes: self.log.bytes(),
            live,
            left_bytes: self.is_full.then(|| self.log.left_bytes()),
            is_quiet,
        };
        if self.cleaning.begin_if_due(standing) {
            self.log.expect_checkpoint(live, true);
            self.progress.ask_for_checkpoint();
            self.tell_all();
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
                ..LogConfig::default()
            };
            let opened = Log::open(disk, config, (LogId([1; 16]), 2), 1, |frame, _| {
                take(frame.ticket)
            });
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
            if let Told::News(shard) = told {
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
        while writer.progress.safe_ticket(0) < 1_000 || writer.progress.safe_ticket(1) < 999 {
            woken.recv().expect("it runs");
        }
        assert_eq!(writer.progress.safe_ticket(2), 0);
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
    fn on_a_full_disk_a_group_waits_for_more() {
        let config = |syncs, commit_interval| WriterConfig {
            commit_interval,
            syncs,
            ..WriterConfig::default()
        };
        let (short, long) = (Duration::from_micros(800), 2 * FULL_PACE);
        assert_eq!(interval_of(&config(true, short), false), short);
        assert_eq!(interval_of(&config(true, short), true), FULL_PACE);
        assert_eq!(interval_of(&config(true, long), true), long);
        // What is only written may be so more often.
        assert_eq!(interval_of(&config(false, short), false), short / 8);
        assert_eq!(interval_of(&config(false, short), true), FULL_PACE);
    }

    #[test]
    fn what_a_full_disk_has_no_room_for_is_given_up_when_nobody_waits_for_it() {
        let place = Scratch::new("full");
        let mut log = place.open(|_| {});
        // The second is for a checkpoint alone.
        log.config.bytes_max = 2 << 20;
        let (heard, hears) = crossbeam_channel::unbounded();
        let tell = move |told: Told<'_>| {
            let _ = heard.send(matches!(told, Told::Full(_)));
        };
        let writer = Writer::start(log, 1, WriterConfig::default(), tell).expect("a thread");
        for ticket in 1..=1_000 {
            let mut frame = Frame::new(Vec::new(), 0);
            frame.records().extend_from_slice(&[7; 3_000]);
            frame.ticket = ticket;
            frame.seal();
            writer.frames.send(frame).expect("it runs");
        }
        while !hears.recv().expect("it runs") {}
        drop(writer.frames);
        writer.progress.give_up_what_has_no_room();
        let ended = writer.thread.join().expect("no panic");
        drop(ended.expect("a good disk"));
        let safe = writer.progress.safe_ticket(0);
        assert!(safe < 1_000, "a segment has room for a third of them");
        let mut found = Vec::new();
        place.open(|ticket| found.push(ticket));
        assert!(found.last().is_some_and(|last| *last >= safe));
    }

    #[test]
    fn a_directory_has_one_user_and_is_nobody_elses_business() {
        use std::os::unix::fs::PermissionsExt;
        let place = Scratch::new("directory");
        let _log = place.open(|_| {});
        let is_taken = || {
            let other = Directory::open(&place.0).expect_err("it is taken");
            let read = Directory::open_to_read(&place.0).expect_err("by a writer");
            [other.kind(), read.kind()] == [io::ErrorKind::WouldBlock; 2]
        };
        assert!(is_taken());
        // Somebody takes the file for one that a former process has left.
        std::fs::remove_file(place.0.join("LOCK")).expect("there");
        assert!(is_taken());
        let mode = |path: PathBuf| std::fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode(place.0.clone()) & 0o777, 0o700);
        assert_eq!(mode(place.0.join("0000000001.seg")) & 0o777, 0o600);
    }
}
