//! Reading a log that was closed somehow: what is to be kept, what was never safe, what is damaged.
//!
//! A frame that is wrong was never safe if nothing later says that it was; then it and all behind it is
//! cut off (a torn tail). Everything else that is wrong refuses the log, by name and place.

use super::LogError;
use super::disk::Disk;
use super::frame::{ALIGNMENT, Found, Kind, Look, look};
use super::segment::{BLOCK_BYTES, HeadError, LogId, SegmentHead, VERSION, file_name};
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
    /// Another version of the program wrote it.
    Version(u32),
    /// Its first block is not what was written.
    Head,
    /// Its first block is another segment's.
    Number(u64),
    /// It belongs to another log.
    Foreign(LogId),
    /// A frame that was safe is not what was written, or is not there.
    Frame(u64),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, offset) = (file_name(self.segment), self.offset);
        match self.what {
            What::Missing => write!(f, "{file} is missing"),
            What::Version(version) => write!(
                f,
                "{file} is of version {version}, this program reads version {VERSION}"
            ),
            What::Head => write!(f, "{file}: its first block is damaged"),
            What::Number(number) => write!(f, "{file} is a copy of {}", file_name(number)),
            What::Foreign(log) => write!(f, "{file} belongs to another log, {log}"),
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

/// Reads all segments; hands each frame that is kept to `take`, in order. Changes nothing.
///
/// # Errors
/// [`LogError::Damaged`], [`LogError::Failed`] if something cannot be read.
pub fn scan<D: Disk>(
    disk: &mut D,
    mut take: impl FnMut(Found<'_>, &SegmentHead),
) -> Result<Scan, LogError> {
    let numbers = disk.segments().map_err(LogError::Failed)?;
    let mut found = Scan {
        log: None,
        segments: Vec::new(),
        left_over: Vec::new(),
        frames: 0,
        next_sequence: 1,
        torn: None,
    };
    let heads = read_heads(disk, &numbers, &mut found)?;
    if let Some(first) = heads.first() {
        found.log = Some(first.log);
        found.next_sequence = first.first_sequence;
    }
    let mut oldest = heads.last().map_or(0, |head| head.oldest);
    for (place, head) in heads.iter().enumerate() {
        found.segments.push(head.number);
        let next = heads.get(place + 1);
        oldest = oldest.max(read_segment(disk, head, next, &mut found, &mut take)?);
    }
    match heads.first() {
        Some(first) if first.number > oldest => Err(damaged(oldest, 0, What::Missing)),
        _ => Ok(found),
    }
}

fn read_heads<D: Disk>(
    disk: &mut D,
    numbers: &[u64],
    found: &mut Scan,
) -> Result<Vec<SegmentHead>, LogError> {
    let mut heads: Vec<SegmentHead> = Vec::new();
    for (place, &number) in numbers.iter().enumerate() {
        let block = disk.read(number, BLOCK_BYTES).map_err(LogError::Failed)?;
        let is_last = place + 1 == numbers.len();
        let head = match SegmentHead::decode(&block) {
            Ok(head) => head,
            // Nothing goes behind a first block before it is safe.
            Err(_) if is_last && is_blank_behind(&read_all(disk, number)?) => {
                found.left_over.push(number);
                continue;
            }
            Err(HeadError::Version(version)) => {
                return Err(damaged(number, 0, What::Version(version)));
            }
            Err(HeadError::Empty | HeadError::Broken) => {
                return Err(damaged(number, 0, What::Head));
            }
        };
        if head.number != number {
            return Err(damaged(number, 0, What::Number(head.number)));
        }
        if let Some(before) = heads.last() {
            if head.log != before.log {
                return Err(damaged(number, 0, What::Foreign(head.log)));
            }
            if number != before.number + 1 {
                return Err(damaged(before.number + 1, 0, What::Missing));
            }
        }
        heads.push(head);
    }
    Ok(heads)
}

fn read_all<D: Disk>(disk: &mut D, segment: u64) -> Result<Vec<u8>, LogError> {
    disk.read(segment, usize::MAX).map_err(LogError::Failed)
}

fn is_blank_behind(bytes: &[u8]) -> bool {
    let behind = bytes.get(BLOCK_BYTES..).unwrap_or_default();
    behind.iter().all(|byte| *byte == 0)
}

/// Reads a segment up to where the next one begins, or up to its end if it is the last. Returns what it
/// says is the oldest segment.
fn read_segment<D: Disk>(
    disk: &mut D,
    head: &SegmentHead,
    next: Option<&SegmentHead>,
    found: &mut Scan,
    take: &mut impl FnMut(Found<'_>, &SegmentHead),
) -> Result<u64, LogError> {
    let number = head.number;
    let bytes = read_all(disk, number)?;
    let end = next.map(|next| next.first_sequence);
    if found.next_sequence != head.first_sequence {
        let what = What::Frame(found.next_sequence);
        return Err(damaged(number, BLOCK_BYTES as u64, what));
    }
    let mut offset = BLOCK_BYTES;
    let (mut synced, mut oldest) = (0, 0);
    while end != Some(found.next_sequence) {
        let rest = bytes.get(offset..).unwrap_or_default();
        match look(&head.log, number, rest) {
            Look::Frame(frame) if frame.sequence == found.next_sequence => {
                synced = synced.max(frame.synced);
                offset += frame.wire_bytes();
                found.next_sequence += 1;
                match frame.kind {
                    Kind::Records | Kind::CheckpointBegins | Kind::CheckpointEnds => {
                        found.frames += 1;
                        take(frame, head);
                    }
                    Kind::Oldest => oldest = oldest.max(frame.ticket),
                    Kind::Mark => {}
                }
            }
            Look::Empty if !offset.is_multiple_of(BLOCK_BYTES) => {
                offset = offset.next_multiple_of(BLOCK_BYTES);
            }
            _ => {
                let expected = found.next_sequence;
                let (behind, written) = look_behind(&head.log, number, rest);
                if end.is_some() || synced.max(behind) >= expected {
                    return Err(damaged(number, offset as u64, What::Frame(expected)));
                }
                found.torn = (written > 0).then_some(Torn {
                    segment: number,
                    offset: offset as u64,
                    bytes: written,
                });
                return Ok(oldest);
            }
        }
    }
    Ok(oldest)
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
