//! The log: frames of all shards, one behind the other, in segments of a directory.
//!
//! Whoever has a [`Log`] writes groups of frames ([`Log::append`]) and makes them safe ([`Log::sync`]);
//! nothing of it is read but when it is opened. It has no thread and no clock and does only what it is
//! asked for, so that the tests run it on a disk that forgets.
//!
//! Invariants:
//! - Sequences ascend by one over the whole log. A segment's first block says which is its first, and it is
//!   begun only when all before it is safe.
//! - A block that is safe is not written again: each group ends at a block's end.
//! - Where the log ends is noted beside it when it rests, and when a segment begins or goes: what is missing
//!   there is noticed.
//! - After a failed sync nothing is ever said to be safe again: the kernel has forgotten what is not.
//!
//! Not here: what the records mean (`super::record`), and which of them are alive.

pub mod cleaning;
pub mod disk;
pub mod end;
pub mod frame;
mod pieces;
pub mod progress;
pub mod scan;
pub mod segment;
pub mod trace;
pub mod writer;

use disk::{Disk, Room};
use end::EndNote;
use frame::{Frame, Kind};
use progress::Live;
use scan::{Damage, End, Scan};
use segment::{BLOCK_BYTES, FIRST_SEGMENT, LogId, SegmentHead};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};

/// How large segments are, and how often they may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes of a segment with its first block; whole blocks, at least one frame of the largest size.
    pub segment_bytes: u64,
    /// Most bytes of all segments together, the one made in advance and the one that is kept back for a full
    /// disk included.
    pub bytes_max: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 64 * 1024 * 1024,
            bytes_max: u64::MAX,
        }
    }
}

/// Why a log cannot go on.
#[derive(Debug)]
pub enum LogError {
    /// There is no room for another segment. What was appended is still right; it may be tried again.
    Full(io::Error),
    /// The disk has failed: what is not safe yet never will be.
    Failed(io::Error),
    /// It had failed before.
    HasFailed,
    /// What stands there is not what was written.
    Damaged(Damage),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Full(error) => write!(f, "no room for another segment: {error}"),
            LogError::Failed(error) => write!(f, "the disk has failed: {error}"),
            LogError::HasFailed => f.write_str("the disk had failed before"),
            LogError::Damaged(damage) => damage.fmt(f),
        }
    }
}

impl std::error::Error for LogError {}

impl LogError {
    fn of_creation(error: io::Error) -> Self {
        // Clients may have all descriptors for a while; nothing was written yet.
        let lacks = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
        let code = error.raw_os_error();
        let lacks_descriptors = lacks.iter().any(|it| Some(it.raw_os_error()) == code);
        if lacks_descriptors || LogError::is_full(&error) {
            LogError::Full(error)
        } else {
            LogError::Failed(error)
        }
    }

    fn is_full(error: &io::Error) -> bool {
        let full = [
            io::ErrorKind::StorageFull,
            io::ErrorKind::QuotaExceeded,
            // Of the process (ulimit -f), or of the file system.
            io::ErrorKind::FileTooLarge,
        ];
        full.contains(&error.kind())
    }
}

/// What telling anew what there is takes, with what is written meanwhile, and with what makes room until
/// nobody waits for anything.
fn needed_bytes(live: Live, segment_bytes: u64) -> u64 {
    let told = live.bytes.saturating_add(live.bytes / 4);
    told.saturating_add(live.settling_bytes)
        .saturating_add(segment_bytes)
}

/// The end of a log that is written to.
#[derive(Debug)]
pub struct Log<D> {
    disk: D,
    config: LogConfig,
    id: LogId,
    shards: u16,
    oldest: u64,
    /// The segment that is written to, and how far it is.
    segment: u64,
    offset: u64,
    /// Which process of the segment this is.
    life: u8,
    /// The file of the segment after it is there.
    has_spare: bool,
    /// There is no room: segments are made of what is kept back, for what makes room.
    is_full: bool,
    /// What stays free for that.
    kept_back_bytes: u64,
    /// What there is is being told anew: that may take all there is.
    checkpoint_runs: bool,
    /// What is made now is for what makes room, and may go beyond the bound.
    is_opening: bool,
    /// At its end, for the note without which nothing can be removed when there is no room for another.
    reserved_bytes: usize,
    /// The next frame's place.
    sequence: u64,
    /// Everything before it is safe.
    synced: u64,
    has_failed: bool,
    /// How often its end was noted.
    ends_noted: u64,
    padding: Vec<u8>,
}

impl<D: Disk> Log<D> {
    /// Opens the log on a disk for so many shards, or begins one there, named `id`. Hands every frame that
    /// is to be kept to `take`, in order, with its segment's head, and goes on behind the last one. `now_ms`
    /// is the wall clock.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if something is missing or wrong that was safe; nothing was changed then.
    /// The disk comes back.
    pub fn open(
        mut disk: D,
        config: LogConfig,
        (id, shards): (LogId, u16),
        now_ms: u64,
        take: impl FnMut(frame::Found<'_>, scan::Heads<'_>),
    ) -> Result<(Self, Scan), (LogError, D)> {
        let scan = match scan::scan(&mut disk, take) {
            Ok(scan) => scan,
            Err(error) => return Err((error, disk)),
        };
        let mut log = Log {
            disk,
            config,
            id: scan.log.unwrap_or(id),
            shards,
            oldest: scan.segments.first().copied().unwrap_or(FIRST_SEGMENT),
            segment: scan.segments.last().copied().unwrap_or(FIRST_SEGMENT - 1),
            offset: 0,
            life: 0,
            has_spare: false,
            is_full: false,
            kept_back_bytes: 0,
            checkpoint_runs: false,
            is_opening: true,
            reserved_bytes: BLOCK_BYTES,
            sequence: scan.next_sequence,
            synced: scan.next_sequence - 1,
            has_failed: false,
            ends_noted: scan.note.map_or(0, |note| note.count),
            padding: vec![0; BLOCK_BYTES],
        };
        match log.begin(&scan, now_ms) {
            Ok(()) => {
                log.is_opening = false;
                Ok((log, scan))
            }
            Err(error) => Err((error, log.disk)),
        }
    }

    /// Goes on behind what was found: in its last segment, if as many shards have written there and nothing
    /// stands behind its last frame, so that a life that writes little takes no file; otherwise in a new one.
    fn begin(&mut self, scan: &Scan, now_ms: u64) -> Result<(), LogError> {
        for left_over in &scan.left_over {
            self.disk.remove(*left_over).map_err(LogError::Failed)?;
        }
        if let Some(last) = scan.segments.last() {
            // A process that was killed may have left what only the kernel has.
            let synced = self.disk.sync(*last);
            let synced = synced.and_then(|()| self.disk.sync_directory());
            synced.map_err(LogError::Failed)?;
        }
        if scan.torn.is_none() && self.may_go_on(scan.end) {
            (self.offset, self.life) = (scan.end.offset, scan.end.life + 1);
            return self.note_end(false);
        }
        match self.begin_segment(now_ms) {
            // It can be read, and written again when there is room.
            Err(LogError::Full(_)) if !scan.segments.is_empty() => {
                self.offset = self.config.segment_bytes;
                Ok(())
            }
            begun => begun,
        }
    }

    /// Whether there is room behind a segment's end for this process's frames, and for telling them apart.
    fn may_go_on(&self, end: End) -> bool {
        let room = self.config.segment_bytes.saturating_sub(end.offset);
        end.offset > 0
            && end.shards == u32::from(self.shards)
            && end.file_bytes == self.config.segment_bytes
            && end.life < u8::MAX
            && room > (BLOCK_BYTES + self.reserved_bytes) as u64
    }

    /// The place that the next frame gets.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.sequence
    }

    /// The segment that is written to.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.segment
    }

    /// The disk.
    pub const fn disk(&self) -> &D {
        &self.disk
    }

    /// The disk, for whoever changes how it behaves.
    pub const fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Gives the disk back.
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// Writes frames that have been sealed, in order, and takes those that are written out of `frames`.
    /// They are safe after the next [`Log::sync`]. `written` gets each, and its segment.
    ///
    /// # Errors
    /// [`LogError::Full`]: what is left in `frames` may be given again later.
    pub fn append(
        &mut self,
        frames: &mut VecDeque<Frame>,
        now_ms: u64,
        mut written: impl FnMut(Frame, u64),
    ) -> Result<(), LogError> {
        self.check()?;
        while !frames.is_empty() {
            let (count, bytes) = self.group(frames);
            if count == 0 {
                self.end_segment()?;
                self.begin_segment(now_ms)?;
                continue;
            }
            for frame in frames.iter_mut().take(count) {
                frame.set_life(self.life);
                frame.stamp(&self.id, self.segment, self.sequence, self.synced);
                self.sequence += 1;
            }
            let padding_bytes = bytes.next_multiple_of(BLOCK_BYTES) - bytes;
            let padding = self
                .padding
                .get(..padding_bytes)
                .filter(|padding| !padding.is_empty());
            let parts = frames.iter().take(count).map(Frame::wire).chain(padding);
            let mut parts: Vec<_> = parts.map(IoSlice::new).collect();
            let wrote = self.disk.write(self.segment, self.offset, &mut parts);
            self.note(wrote)?;
            self.offset += (bytes + padding_bytes) as u64;
            let segment = self.segment;
            frames
                .drain(..count)
                .for_each(|frame| written(frame, segment));
        }
        Ok(())
    }

    /// How many of the frames go into this segment, and their bytes.
    fn group(&self, frames: &VecDeque<Frame>) -> (usize, usize) {
        let taken = self.offset + self.reserved_bytes as u64;
        let room = self.config.segment_bytes.saturating_sub(taken) as usize;
        let (mut count, mut bytes) = (0, 0);
        for frame in frames {
            if bytes + frame.wire().len() > room {
                break;
            }
            bytes += frame.wire().len();
            count += 1;
        }
        (count, bytes)
    }

    /// Makes safe what was written.
    ///
    /// # Errors
    /// Nothing more will ever be safe.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check()?;
        let synced = self.disk.sync(self.segment);
        self.note(synced)?;
        self.synced = self.sequence - 1;
        Ok(())
    }

    /// Removes the oldest segment, of which nothing is needed any more. No other is removed before that
    /// lasts: what comes back after a crash has no gap.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove_oldest(&mut self, now_ms: u64) -> Result<(), LogError> {
        self.check()?;
        if self.oldest < self.segment {
            // Who finds it missing has to know that this is right.
            self.reserved_bytes = 0;
            let noted = self.note_down(Kind::Oldest, self.oldest + 1, now_ms);
            self.reserved_bytes = BLOCK_BYTES;
            noted?;
            self.note_end(false)?;
            let removed = self.disk.remove(self.oldest);
            let removed = removed.and_then(|()| self.disk.sync_directory());
            self.note(removed)?;
            self.oldest += 1;
        }
        Ok(())
    }

    /// Writes down what is safe, for when nothing else is written for a while: damage of what is then
    /// cannot be taken for a torn end.
    ///
    /// # Errors
    /// As [`Log::append`] and [`Log::sync`].
    pub fn mark(&mut self, now_ms: u64) -> Result<(), LogError> {
        self.note_down(Kind::Mark, 0, now_ms)?;
        self.note_end(false)
    }

    /// Notes beside the segments where the log ends, all of which is safe.
    fn note_end(&mut self, is_closed: bool) -> Result<(), LogError> {
        self.ends_noted += 1;
        let note = EndNote {
            log: self.id,
            count: self.ends_noted,
            segment: self.segment,
            segment_bytes: self.config.segment_bytes,
            sequence: self.synced,
            is_closed,
        };
        match self.disk.write_end(note.block(), &note.encode()) {
            // There is less to be noticed then, and nothing else is missing.
            Err(error) if LogError::is_full(&error) => Ok(()),
            noted => self.note(noted),
        }
    }

    fn note_down(&mut self, kind: Kind, value: u64, now_ms: u64) -> Result<(), LogError> {
        let mut note = VecDeque::from([Frame::note(kind, value)]);
        self.append(&mut note, now_ms, |_, _| {})?;
        self.sync()
    }

    /// Makes the file of the next segment in advance, if it is not there: that there is no room is known
    /// while this one still takes what has to be written.
    ///
    /// # Errors
    /// [`LogError::Full`]; it may be tried again.
    pub fn prepare(&mut self) -> Result<(), LogError> {
        self.check()?;
        if !self.has_spare {
            let created = self.create(self.segment + 1, Room::Beside(self.kept_back_bytes));
            self.is_full = created.is_err();
            created?;
            self.has_spare = true;
        }
        Ok(())
    }

    /// Nothing more is written, and all that was is safe: gives back what was made in advance, and notes that
    /// this is the end.
    ///
    /// # Errors
    /// It is still there.
    pub fn finish(&mut self) -> Result<(), LogError> {
        self.check()?;
        if std::mem::take(&mut self.has_spare) {
            let removed = self.disk.remove(self.segment + 1);
            self.note(removed)?;
        }
        self.note_end(self.synced + 1 == self.sequence)
    }

    /// So much there is, and it is being told anew or not. Room for that stays, and for what else makes room:
    /// without it nothing that was written could ever go.
    pub fn expect_checkpoint(&mut self, live: Live, runs: bool) {
        let segment = self.config.segment_bytes;
        // Until the next look at it a segment is filled.
        self.kept_back_bytes = needed_bytes(live, segment).saturating_add(2 * segment);
        self.checkpoint_runs = runs;
    }

    fn create(&mut self, number: u64, room: Room) -> Result<(), LogError> {
        let files = number - self.oldest + 1;
        let files = files.saturating_mul(self.config.segment_bytes);
        let bytes = match room {
            Room::KeptBack => files,
            Room::Beside(beside) => files
                .saturating_add(self.config.segment_bytes)
                .saturating_add(beside),
        };
        if bytes > self.config.bytes_max && !self.is_opening {
            return Err(LogError::Full(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!(
                    "the files have as many bytes as they may beside room for writing anew what is kept \
                     (storage.disk_bytes_max, {})",
                    self.config.bytes_max
                ),
            )));
        }
        let created = self.disk.create(number, self.config.segment_bytes, room);
        created.map_err(LogError::of_creation)
    }

    /// Segments there are.
    #[must_use]
    pub const fn segments(&self) -> u64 {
        self.segment - self.oldest + 1
    }

    /// The first of them.
    #[must_use]
    pub const fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Bytes of all of them.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.segments() * self.config.segment_bytes
    }

    /// Bytes that a checkpoint may still take: all there are.
    pub fn left_bytes(&mut self) -> u64 {
        let spare = u64::from(self.has_spare) * self.config.segment_bytes;
        let here = self.config.segment_bytes.saturating_sub(self.offset);
        here.saturating_add(spare).saturating_add(self.free_bytes())
    }

    /// Bytes of the segments that can still be made, with all that is kept back.
    fn free_bytes(&mut self) -> u64 {
        let segment = self.config.segment_bytes;
        let spare = u64::from(self.has_spare) * segment;
        let allowed = self.config.bytes_max.saturating_sub(self.bytes() + spare);
        // A disk that does not tell is asked for each.
        let free = self.disk.free_bytes().unwrap_or(2 * segment);
        free.min(allowed) / segment * segment
    }

    /// How it is.
    #[must_use]
    pub const fn config(&self) -> LogConfig {
        self.config
    }

    fn end_segment(&mut self) -> Result<(), LogError> {
        // Its end must not be missing when the next one says where it is.
        if self.synced + 1 < self.sequence {
            self.sync()?;
        }
        Ok(())
    }

    /// On a full disk segments are made of what is kept back; the last one for a checkpoint alone, which is
    /// small at least when nobody waits for anything any more.
    fn create_next(&mut self, number: u64) -> Result<(), LogError> {
        let takes_back = self.is_full
            && (self.checkpoint_runs || self.free_bytes() >= 2 * self.config.segment_bytes);
        let room = if takes_back {
            Room::KeptBack
        } else {
            Room::Beside(self.kept_back_bytes)
        };
        let created = self.create(number, room);
        self.is_full |= matches!(created, Err(LogError::Full(_)));
        created
    }

    fn begin_segment(&mut self, now_ms: u64) -> Result<(), LogError> {
        let number = self.segment + 1;
        if !self.has_spare {
            self.create_next(number)?;
        }
        let head = SegmentHead {
            log: self.id,
            number,
            made_at_ms: now_ms,
            oldest: self.oldest,
            first_sequence: self.sequence,
            shards: u32::from(self.shards),
        };
        let block = head.encode();
        let wrote = self.disk.write(number, 0, &mut [IoSlice::new(&block)]);
        let begun = wrote
            .and_then(|()| self.disk.sync(number))
            .and_then(|()| self.disk.sync_directory());
        self.note(begun)?;
        self.has_spare = false;
        self.segment = number;
        self.offset = BLOCK_BYTES as u64;
        self.life = 0;
        self.note_end(false)
    }

    const fn check(&self) -> Result<(), LogError> {
        if self.has_failed {
            return Err(LogError::HasFailed);
        }
        Ok(())
    }

    fn note(&mut self, done: io::Result<()>) -> Result<(), LogError> {
        self.has_failed |= done.is_err();
        done.map_err(LogError::Failed)
    }
}
