//! Reading a log that was closed somehow: what is to be kept, what was never safe, what is damaged.
//!
//! A frame that is wrong was never safe if nothing later says that it was; then it and all behind it is
//! cut off (a torn tail). Everything else that is wrong refuses the log, by name and place.

use super::LogError;
use super::disk::Disk;
use super::end::{END_FILE, EndNote};
use super::frame::{ALIGNMENT, Found, Kind, Look, look};
use super::pieces::Pieces;
use super::segment::{
    BLOCK_BYTES, FIRST_SEGMENT, HeadError, LogId, SegmentHead, VERSION, file_name,
};
use std::fmt;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The log's identity; `None` if there is no log yet.
    pub log: Option<LogId>,
    /// Segments that are kept.
    pub segments: Vec<u64>,
    /// Files that were being made, without anything in them, or being removed.
    pub left_over: Vec<u64>,
    /// Frames that are kept.
    pub frames: u64,
    /// The place of the frame after them.
    pub next_sequence: u64,
    /// What is cut off.
    pub torn: Option<Torn>,
    /// The end of the last segment that is kept.
    pub end: End,
    /// What was noted of it beside the segments.
    pub note: Option<EndNote>,
}

/// Where the last segment ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Behind its last frame ...
    pub frames_end: u64,
    /// ... at the block's end.
    pub offset: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// So many shards have written in it.
    pub shards: u32,
    /// The last process that has, counted from 0.
    pub life: u8,
}

/// The end of a log that was never safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Where it begins: segment ...
    pub segment: u64,
    /// ... and byte in it.
    pub offset: u64,
    /// Bytes from there on that were written.
    pub bytes: u64,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, offset, bytes) = (file_name(self.segment), self.offset, self.bytes);
        write!(
            f,
            "{file}: {bytes} bytes from {offset} on were never acknowledged and are cut off"
        )
    }
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u64,
    /// Byte in it.
    pub offset: u64,
    /// What.
    pub what: What,
}

/// Kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The file is not there.
    Missing,
    /// Nor is any other.
    AllMissing,
    /// Another version of the program wrote it.
    Version(u32),
    /// There is nothing in it, though something was written.
    Empty,
    /// It ends before so many bytes, which it had.
    Cut(u64),
    /// Its first block is not what was written.
    Head,
    /// Its first block is another segment's.
    Number(u64),
    /// It belongs to another log.
    Foreign(LogId),
    /// The note of the log's end is another log's.
    End(LogId),
    /// A frame that was safe is not what was written, or is not there.
    Frame(u64),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, offset) = (file_name(self.segment), self.offset);
        match self.what {
            What::Missing => write!(f, "{file} is missing"),
            What::AllMissing => write!(
                f,
                "{file} is missing, and so are all others: put them back, or remove {END_FILE} to begin with \
                 nothing"
            ),
            What::Version(version) => write!(
                f,
                "{file} is of version {version}, this program reads version {VERSION}"
            ),
            What::Empty => write!(f, "{file} is empty, though it was written to"),
            What::Cut(bytes) => write!(
                f,
                "{file} ends at byte {offset} and had {bytes} bytes: what stood behind may have been \
                 acknowledged"
            ),
            What::Head => write!(f, "{file}: its first block is damaged"),
            What::Number(number) => write!(f, "{file} is a copy of {}", file_name(number)),
            What::Foreign(log) => write!(f, "{file} belongs to another log, {log}"),
            What::End(log) => write!(
                f,
                "{END_FILE} tells of another log, {log}, than {file}: files of two stores stand there; if \
                 the segments are those that are meant, remove {END_FILE}"
            ),
            What::Frame(sequence) => write!(
                f,
                "{file}: frame {sequence} at byte {offset}, which was acknowledged, is damaged or missing"
            ),
        }
    }
}

fn damaged(segment: u64, offset: u64, what: What) -> LogError {
    LogError::Damaged(Damage {
        segment,
        offset,
        what,
    })
}

/// Of which segments a log is that has frames, and in which of them one stands.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// All of them.
    pub all: &'a [SegmentHead],
    /// This one.
    pub this: &'a SegmentHead,
}

/// Reads all segments; hands each frame that is kept to `take`, in order. There may be damage further on:
/// nobody may see what they make before all is read. Changes nothing.
///
/// # Errors
/// [`LogError::Damaged`], [`LogError::Failed`] if something cannot be read.
pub fn scan<D: Disk>(
    disk: &mut D,
    mut take: impl FnMut(Found<'_>, Heads<'_>),
) -> Result<Scan, LogError> {
    let end = disk.read_end().map_err(LogError::Failed)?;
    let end = EndNote::newest(&end);
    let numbers = disk.segments().map_err(LogError::Failed)?;
    let mut found = Scan {
        log: None,
        segments: Vec::new(),
        left_over: Vec::new(),
        frames: 0,
        next_sequence: 1,
        torn: None,
        end: End::default(),
        note: end,
    };
    let mut pieces = Pieces::new();
    let heads = read_heads((disk, &mut pieces), &numbers, end.as_ref(), &mut found)?;
    if let Some(first) = heads.first() {
        found.log = Some(first.log);
        found.next_sequence = first.first_sequence;
    }
    let mut oldest = heads.last().map_or(0, |head| head.oldest);
    for (place, head) in heads.iter().enumerate() {
        found.segments.push(head.number);
        let next = heads.get(place + 1);
        if let Some(next) = next {
            disk.read_ahead(next.number);
        }
        let here = Heads {
            all: &heads,
            this: head,
        };
        let read = read_segment((disk, &mut pieces), (here, next), &mut found, &mut take)?;
        oldest = oldest.max(read);
    }
    if heads.first().is_some_and(|first| first.number > oldest) {
        return Err(damaged(oldest, 0, What::Missing));
    }
    check_end(&found)?;
    Ok(found)
}

/// Whether all is there that was noted beside the segments.
fn check_end(found: &Scan) -> Result<(), LogError> {
    let last = found.segments.last().copied();
    let next = last.map_or(FIRST_SEGMENT, |last| last + 1);
    let missing = || match found.left_over.contains(&next) {
        true => Err(damaged(next, 0, What::Empty)),
        false if last.is_none() && found.note.is_some() => Err(damaged(next, 0, What::AllMissing)),
        false => Err(damaged(next, 0, What::Missing)),
    };
    let Some(note) = found.note else {
        // The one made in advance tells of those before it.
        let is_behind = found.left_over.first().is_some_and(|it| *it > next);
        return if is_behind { missing() } else { Ok(()) };
    };
    match (last, found.log) {
        (Some(first), Some(log)) if log != note.log => Err(damaged(first, 0, What::End(note.log))),
        _ if note.segment >= next => missing(),
        _ => check_last(found, &note, next - 1),
    }
}

fn check_last(found: &Scan, note: &EndNote, last: u64) -> Result<(), LogError> {
    let End {
        frames_end,
        file_bytes,
        ..
    } = found.end;
    if note.sequence >= found.next_sequence {
        let what = What::Frame(found.next_sequence);
        return Err(damaged(last, frames_end, what));
    }
    if note.is_cut(last, file_bytes, found.next_sequence) {
        return Err(damaged(last, file_bytes, What::Cut(note.segment_bytes)));
    }
    if found.left_over.first().is_some_and(|it| *it > last + 1) {
        return Err(damaged(last + 1, 0, What::Missing));
    }
    Ok(())
}

/// The identity of most; the first of these. The note of the log's end decides, if there is one of its log.
pub(in crate::storage) fn identity(
    ids: impl Iterator<Item = LogId>,
    end: Option<&EndNote>,
) -> Option<LogId> {
    let mut counts: Vec<(LogId, usize)> = Vec::new();
    for id in ids {
        match counts.iter_mut().find(|(known, _)| *known == id) {
            Some((_, count)) => *count += 1,
            None => counts.push((id, 1)),
        }
    }
    let noted = end.map(|end| end.log);
    let most = counts.iter().map(|(_, count)| *count).max()?;
    let is_noted = |(id, _): &&(LogId, usize)| Some(*id) == noted;
    let mut first = counts.iter().filter(|(_, count)| *count == most);
    let ours = counts.iter().find(is_noted).or_else(|| first.next());
    ours.map(|(id, _)| *id)
}

fn read_heads<D: Disk>(
    (disk, pieces): (&mut D, &mut Pieces),
    numbers: &[u64],
    end: Option<&EndNote>,
    found: &mut Scan,
) -> Result<Vec<SegmentHead>, LogError> {
    let mut blocks = Vec::new();
    for &number in numbers {
        let block = disk.read(number, BLOCK_BYTES).map_err(LogError::Failed)?;
        blocks.push((number, SegmentHead::decode(&block)));
    }
    // Nothing goes behind a first block before it is safe.
    while let Some((number, Err(_))) = blocks.last()
        && is_blank(disk, pieces, *number)?
    {
        found.left_over.insert(0, *number);
        blocks.pop();
    }
    let ids = blocks.iter().filter_map(|(_, head)| head.ok());
    let log = identity(ids.map(|head| head.log), end);
    let is_ours = |head: &SegmentHead| Some(head.log) == log;
    let last = blocks
        .iter()
        .rposition(|(_, head)| head.is_ok_and(|head| is_ours(&head)));
    let mut heads: Vec<SegmentHead> = Vec::new();
    for (place, (number, head)) in blocks.into_iter().enumerate() {
        let head = match head {
            Ok(head) => head,
            Err(HeadError::Version(version)) => {
                return Err(damaged(number, 0, What::Version(version)));
            }
            Err(HeadError::Empty) if is_blank(disk, pieces, number)? => {
                if last.is_some_and(|last| place < last) {
                    return Err(damaged(number, 0, What::Empty));
                }
                // Made in advance, and something else's file stands behind it.
                found.left_over.push(number);
                continue;
            }
            Err(HeadError::Empty | HeadError::Broken) => {
                return Err(damaged(number, 0, What::Head));
            }
        };
        if !is_ours(&head) {
            return Err(damaged(number, 0, What::Foreign(head.log)));
        }
        if head.number != number {
            return Err(damaged(number, 0, What::Number(head.number)));
        }
        if let Some(before) = heads.last()
            && number != before.number + 1
        {
            return Err(damaged(before.number + 1, 0, What::Missing));
        }
        heads.push(head);
    }
    Ok(heads)
}

fn read_all<D: Disk>(disk: &mut D, segment: u64) -> Result<Vec<u8>, LogError> {
    disk.read(segment, usize::MAX).map_err(LogError::Failed)
}

/// As [`is_blank_behind`].
fn is_blank<D: Disk>(disk: &mut D, pieces: &mut Pieces, segment: u64) -> Result<bool, LogError> {
    pieces.begin(segment);
    let blank = pieces.blank_from(disk, BLOCK_BYTES);
    Ok(blank.map_err(LogError::Failed)?.is_some())
}

/// Whether there is nothing behind a first block.
pub(in crate::storage) fn is_blank_behind(bytes: &[u8]) -> bool {
    let behind = bytes.get(BLOCK_BYTES..).unwrap_or_default();
    behind.iter().all(|byte| *byte == 0)
}

/// Reads a segment up to where the next one begins, or up to its end if it is the last. Returns what it
/// says is the oldest segment.
fn read_segment<D: Disk>(
    (disk, pieces): (&mut D, &mut Pieces),
    (heads, next): (Heads<'_>, Option<&SegmentHead>),
    found: &mut Scan,
    take: &mut impl FnMut(Found<'_>, Heads<'_>),
) -> Result<u64, LogError> {
    let head = heads.this;
    let number = head.number;
    let end = next.map(|next| next.first_sequence);
    if found.next_sequence != head.first_sequence {
        let what = What::Frame(found.next_sequence);
        return Err(damaged(number, BLOCK_BYTES as u64, what));
    }
    pieces.begin(number);
    let mut offset = BLOCK_BYTES;
    let (mut synced, mut oldest, mut life) = (0, 0, 0);
    while end != Some(found.next_sequence) {
        let is_empty = match look(&head.log, number, pieces.rest(offset)) {
            Look::Frame(frame) if frame.sequence == found.next_sequence => {
                synced = synced.max(frame.synced);
                life = life.max(frame.life);
                offset += frame.wire_bytes();
                found.next_sequence += 1;
                match frame.kind {
                    Kind::Records | Kind::CheckpointBegins | Kind::CheckpointEnds => {
                        found.frames += 1;
                        take(frame, heads);
                    }
                    Kind::Oldest => oldest = oldest.max(frame.ticket),
                    Kind::Mark => {}
                }
                continue;
            }
            other => other == Look::Empty,
        };
        // The rest of it may not be read yet.
        if pieces.more(disk, offset).map_err(LogError::Failed)? {
            continue;
        }
        if is_empty && !offset.is_multiple_of(BLOCK_BYTES) {
            offset = offset.next_multiple_of(BLOCK_BYTES);
            continue;
        }
        let expected = found.next_sequence;
        let (behind, written, file_bytes) = look_through((disk, pieces), head, offset)?;
        if end.is_some() || synced.max(behind) >= expected {
            return Err(damaged(number, offset as u64, What::Frame(expected)));
        }
        found.torn = (written > 0).then_some(Torn {
            segment: number,
            offset: offset as u64,
            bytes: written,
        });
        found.end = End {
            frames_end: offset as u64,
            offset: offset.next_multiple_of(BLOCK_BYTES) as u64,
            file_bytes,
            shards: head.shards,
            life,
        };
        return Ok(oldest);
    }
    Ok(oldest)
}

/// As [`look_behind`], for what stands from there on; and how long the segment is.
fn look_through<D: Disk>(
    (disk, pieces): (&mut D, &mut Pieces),
    head: &SegmentHead,
    offset: usize,
) -> Result<(u64, u64, u64), LogError> {
    let blank = pieces.blank_from(disk, offset).map_err(LogError::Failed)?;
    if let Some(file_bytes) = blank {
        return Ok((0, 0, file_bytes as u64));
    }
    let bytes = read_all(disk, head.number)?;
    let rest = bytes.get(offset..).unwrap_or_default();
    let (synced, written) = look_behind(&head.log, head.number, rest);
    Ok((synced, written, bytes.len() as u64))
}

/// What headers of a segment's frames behind a bad place say that was safe, and the bytes up to the last
/// that is not zero.
#[must_use]
pub fn look_behind(log: &LogId, segment: u64, rest: &[u8]) -> (u64, u64) {
    let written = rest
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let rest = rest
        .get(..written.next_multiple_of(ALIGNMENT))
        .unwrap_or(rest);
    let mut synced = 0;
    for at in (0..rest.len()).step_by(ALIGNMENT) {
        let from = rest.get(at..).unwrap_or_default();
        match look(log, segment, from) {
            Look::Frame(Found { synced: told, .. }) | Look::Broken { synced: told, .. } => {
                synced = synced.max(told);
            }
            Look::Empty | Look::Foreign => {}
        }
    }
    (synced, written as u64)
}
