//! Every frame of a log that can be read, damage or not, and what is missing between them.
//!
//! Where a start would refuse the log this goes on: frames behind a bad place are found by their headers'
//! checksums. Where a start would not, it finds the same frames ([`crate::storage::log::scan`]).

use crate::engine::keys::ShardId;
use crate::storage::log::LogError;
use crate::storage::log::disk::Disk;
use crate::storage::log::end::EndNote;
use crate::storage::log::frame::{ALIGNMENT, FRAME_BYTES_MAX, Found, Kind, Look, look};
use crate::storage::log::scan::{Damage, Torn, What, identity, is_blank_behind, look_behind};
use crate::storage::log::segment::{BLOCK_BYTES, FIRST_SEGMENT, HeadError, LogId, SegmentHead};
use std::collections::BTreeMap;
use std::ops::Range;

/// Segments in a row that are named as missing.
const MISSING_NAMED_MAX: usize = 16;
/// Where a log's identity lies in a first block.
const ID_AT: Range<usize> = 12..28;
/// Where it stands how many shards have written.
const SHARDS_AT: Range<usize> = 60..64;
/// More never write.
const SHARDS_MAX: ShardId = 1_024;

/// What comes next.
#[derive(Debug)]
pub enum Step<'a> {
    /// A frame: its file's number, the byte where it begins, how many shards have written there, and what it
    /// says.
    Frame(u64, u64, ShardId, Found<'a>),
    /// Frames are missing here.
    Gap(&'a Gap),
    /// Nothing is damaged by it, but what was before says nothing of what comes: the log was cleaned, or
    /// nobody knows how many shards have written from here on.
    Anew,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What, and where.
    pub damage: Damage,
    /// Frames that are lost by it, by their places in the log; `None` if nobody knows how many.
    pub frames: Option<Range<u64>>,
    /// Whose they were, if that can be read.
    pub shard: Option<u16>,
}

/// What a log is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Its identity.
    pub log: Option<LogId>,
    /// Its files, by their numbers.
    pub files: Vec<u64>,
    /// Bytes of them, with what is not written yet.
    pub file_bytes: u64,
    /// Bytes of frames.
    pub frame_bytes: u64,
    /// Frames with records.
    pub frames: u64,
    /// All up to this one was said to be safe.
    pub safe: u64,
    /// The place behind the last frame.
    pub next_sequence: u64,
    /// What a start cuts off.
    pub torn: Option<Torn>,
    /// What is not as it was written.
    pub gaps: Vec<Gap>,
    /// When segments were begun, by the wall clock in milliseconds since 1970.
    pub made_at_ms: BTreeMap<u64, u64>,
}

/// A file that is read.
#[derive(Debug)]
struct Part {
    file: u64,
    number: u64,
    head: Option<SegmentHead>,
    /// What is wrong with its first block, otherwise.
    fault: What,
    /// So many shards have written there, as it stands there.
    shards: u32,
}

/// A bad place that nothing good was found behind yet.
#[derive(Debug)]
struct Bad {
    segment: u64,
    offset: u64,
    /// If it is no frame.
    what: Option<What>,
    /// Frames of which the headers are right, and whose they are.
    headers: u64,
    shard: Option<u16>,
}

struct Walker<'t> {
    take: &'t mut dyn FnMut(Step<'_>),
    log: LogId,
    /// So many have written the segment.
    shards: ShardId,
    walked: Walked,
    /// The place of the frame that is due; 0 if that is not known.
    expected: u64,
    bad: Option<Bad>,
    /// Nobody knows how many frames are missing at the log's end.
    loses_end: bool,
    /// Where the last frame ended.
    end: (u64, u64),
}

/// Reads everything and changes nothing.
///
/// # Errors
/// Something cannot be read at all.
pub fn walk<D: Disk>(disk: &mut D, take: &mut dyn FnMut(Step<'_>)) -> Result<Walked, LogError> {
    let files = disk.segments().map_err(LogError::Failed)?;
    let end = disk.read_end().map_err(LogError::Failed)?;
    let noted = EndNote::newest(&end);
    let Identified {
        log,
        parts,
        mut unread,
        made_last,
    } = identify(disk, &files, noted.as_ref())?;
    let end = noted.filter(|end| end.log == log && !parts.is_empty());
    let mut walker = Walker {
        take,
        log,
        walked: Walked {
            log: (!parts.is_empty()).then_some(log),
            files,
            ..Walked::default()
        },
        shards: 1,
        expected: 0,
        bad: None,
        loses_end: false,
        end: (0, 0),
    };
    walker.walked.safe = end.map_or(0, |end| end.sequence);
    walker
        .walked
        .gaps
        .extend(parts.iter().filter_map(head_damage));
    let oldest = oldest_needed(disk, &log, &parts)?;
    if parts
        .first()
        .is_some_and(|first| first.number > FIRST_SEGMENT && first.number <= oldest)
    {
        (walker.take)(Step::Anew);
    }
    let mut due = oldest;
    let shards = shards_of(&parts);
    let mut was_known = true;
    for (place, part) in parts.iter().enumerate() {
        walker.miss(due.min(part.number)..part.number, &mut unread);
        due = part.number + 1;
        let bytes = read_all(disk, part.file)?;
        let next = parts.get(place + 1);
        let until = match next {
            Some(next) => first_sequence(disk, &log, next)?,
            None => None,
        };
        let (shards, is_known) = shards.get(place).copied().unwrap_or((1, false));
        if !is_known || !was_known {
            (walker.take)(Step::Anew);
        }
        (walker.shards, was_known) = (shards, is_known);
        walker.segment(part, &bytes, until, next.is_none());
        if next.is_none() {
            let until = made_last
                .unwrap_or(0)
                .max(end.map_or(0, |end| end.segment + 1));
            walker.miss_end((part, bytes.len() as u64), until, end, &mut unread);
        }
    }
    walker.check_end(&parts, noted.filter(|_| end.is_none()), made_last);
    // Those that were made in advance are as they should be.
    unread.retain(|file, what| *what != What::Empty || made_last.is_none_or(|made| *file < made));
    walker.finish(unread);
    walker.walked.made_at_ms = made_at(&parts);
    Ok(walker.walked)
}

fn made_at(parts: &[Part]) -> BTreeMap<u64, u64> {
    let heads = parts
        .iter()
        .filter_map(|part| Some((part.file, part.head?)));
    heads.map(|(file, head)| (file, head.made_at_ms)).collect()
}

/// How many shards have written each, and whether that is known.
fn shards_of(parts: &[Part]) -> Vec<(ShardId, bool)> {
    let near = |place: usize, part: &Part| {
        if let Some(head) = part.head {
            return (head.shards, true);
        }
        let heads = |parts: &[Part]| parts.iter().filter_map(|it| it.head).collect::<Vec<_>>();
        let before = heads(parts.get(..place).unwrap_or_default());
        let behind = heads(parts.get(place..).unwrap_or_default());
        let before = before.last().map(|head| head.shards);
        let behind = behind.first().map(|head| head.shards);
        let told = part.shards;
        match (before, behind) {
            // What was damaged is something else.
            (Some(near), _) if near == told => (told, true),
            (_, Some(near)) if near == told => (told, true),
            (Some(before), Some(behind)) => (behind, before == behind),
            (Some(near), None) | (None, Some(near)) => (near, false),
            (None, None) => (told, parts.iter().all(|part| part.shards == told)),
        }
    };
    let shards = parts.iter().enumerate().map(|(place, it)| near(place, it));
    let shards = shards.map(|(shards, is_known)| match ShardId::try_from(shards) {
        Ok(shards @ 1..=SHARDS_MAX) => (shards, is_known),
        _ => (1, false),
    });
    shards.collect()
}

fn read_all<D: Disk>(disk: &mut D, file: u64) -> Result<Vec<u8>, LogError> {
    disk.read(file, usize::MAX).map_err(LogError::Failed)
}

/// What is wrong with a file that is read nevertheless.
fn head_damage(part: &Part) -> Option<Gap> {
    let what = match part.head {
        None => part.fault,
        Some(head) if head.number != part.file => What::Number(head.number),
        Some(_) => return None,
    };
    Some(nothing_lost(part.file, what))
}

const fn nothing_lost(segment: u64, what: What) -> Gap {
    Gap {
        damage: Damage {
            segment,
            offset: 0,
            what,
        },
        frames: Some(0..0),
        shard: None,
    }
}

/// Which files belong to a log.
struct Identified {
    log: LogId,
    /// In order.
    parts: Vec<Part>,
    /// Why the others do not.
    unread: BTreeMap<u64, What>,
    /// The first that was made in advance, if there is one.
    made_last: Option<u64>,
}

/// A file, its first block, and what that says.
type Block = (u64, Vec<u8>, Result<SegmentHead, HeadError>);

/// The files' first blocks, without those at the end that were made in advance; these.
fn read_blocks<D: Disk>(
    disk: &mut D,
    files: &[u64],
) -> Result<(Vec<Block>, BTreeMap<u64, What>), LogError> {
    let (mut blocks, mut made) = (Vec::new(), BTreeMap::new());
    for &file in files {
        let block = disk.read(file, BLOCK_BYTES).map_err(LogError::Failed)?;
        let head = SegmentHead::decode(&block);
        blocks.push((file, block, head));
    }
    while let Some((file, _, Err(_))) = blocks.last()
        && is_blank_behind(&read_all(disk, *file)?)
    {
        made.insert(*file, What::Empty);
        blocks.pop();
    }
    Ok((blocks, made))
}

/// Which files belong to the log, in order, and why the others do not.
fn identify<D: Disk>(
    disk: &mut D,
    files: &[u64],
    end: Option<&EndNote>,
) -> Result<Identified, LogError> {
    let (mut blocks, mut unread) = read_blocks(disk, files)?;
    let heads = blocks.iter().filter_map(|(_, _, head)| head.ok());
    let log = match identity(heads.map(|head| head.log), end) {
        Some(log) => log,
        None => readable_id(disk, &blocks)?,
    };
    let mut parts: BTreeMap<u64, Part> = BTreeMap::new();
    // Those that are where they say first: the others may be copies of them.
    let is_away = |file: u64, head: &Result<SegmentHead, HeadError>| {
        head.is_ok_and(|head| head.number != file)
    };
    blocks.sort_by_key(|(file, _, head)| is_away(*file, head));
    for (file, block, head) in blocks {
        let shards = block.get(SHARDS_AT).and_then(|told| told.try_into().ok());
        let shards = u32::from_le_bytes(shards.unwrap_or_default());
        let mut fault = What::Head;
        let (number, head) = match head {
            Ok(head) if head.log != log => {
                unread.insert(file, What::Foreign(head.log));
                continue;
            }
            Ok(head) => (head.number, Some(head)),
            Err(HeadError::Version(version)) if !has_frames(disk, &log, file)? => {
                unread.insert(file, What::Version(version));
                continue;
            }
            Err(HeadError::Version(version)) => {
                fault = What::Version(version);
                (file, None)
            }
            Err(HeadError::Empty) if is_blank_behind(&read_all(disk, file)?) => {
                unread.insert(file, What::Empty);
                continue;
            }
            Err(HeadError::Empty | HeadError::Broken) => (file, None),
        };
        if parts.contains_key(&number) {
            unread.insert(file, What::Number(number));
            continue;
        }
        let part = Part {
            file,
            number,
            head,
            fault,
            shards,
        };
        parts.insert(number, part);
    }
    let last = parts.last_key_value().map_or(0, |(number, _)| *number);
    let mut behind = unread.range(last + 1..);
    let made_last = behind.find(|(_, what)| **what == What::Empty);
    let made_last = made_last.map(|(file, _)| *file);
    Ok(Identified {
        log,
        parts: parts.into_values().collect(),
        unread,
        made_last,
    })
}

/// The identity by which frames can be read where no first block is whole: what stands there, or that with
/// one bit another.
fn readable_id<D: Disk>(disk: &mut D, blocks: &[Block]) -> Result<LogId, LogError> {
    let mut first = None;
    for (file, block, _) in blocks {
        let Some(told) = block.get(ID_AT).and_then(|id| id.try_into().ok()) else {
            continue;
        };
        let told: [u8; 16] = told;
        first = first.or(Some(LogId(told)));
        let flips = (0..128).map(|bit| u128::from_le_bytes(told) ^ 1 << bit);
        for id in std::iter::once(u128::from_le_bytes(told)).chain(flips) {
            let id = LogId(id.to_le_bytes());
            if has_frames(disk, &id, *file)? {
                return Ok(id);
            }
        }
    }
    Ok(first.unwrap_or(LogId([0; 16])))
}

/// A segment without most of what was not written yet: all frames that there may be.
fn written(bytes: &[u8]) -> &[u8] {
    let blank = [0; BLOCK_BYTES];
    let blocks = bytes.rchunks(BLOCK_BYTES);
    let blank = blocks.take_while(|block| blank.starts_with(block));
    let end = bytes.len() - blank.map(<[u8]>::len).sum::<usize>();
    // The last one may end with zeros.
    bytes.get(..end + FRAME_BYTES_MAX).unwrap_or(bytes)
}

/// Whether there is a frame in the first block behind a file's own.
fn has_frames<D: Disk>(disk: &mut D, log: &LogId, file: u64) -> Result<bool, LogError> {
    let bytes = disk.read(file, 2 * BLOCK_BYTES).map_err(LogError::Failed)?;
    let frames = (BLOCK_BYTES..bytes.len()).step_by(ALIGNMENT);
    let mut looks = frames.map(|at| look(log, file, bytes.get(at..).unwrap_or_default()));
    Ok(looks.any(|look| matches!(look, Look::Frame(_) | Look::Broken { .. })))
}

/// The segment with which a log begins.
fn oldest_needed<D: Disk>(disk: &mut D, log: &LogId, parts: &[Part]) -> Result<u64, LogError> {
    let told = parts.iter().filter_map(|part| part.head.as_ref());
    let mut oldest = told.map(|head| head.oldest).max().unwrap_or(0);
    let first = parts.first().map_or(0, |first| first.number);
    if first > oldest {
        oldest = oldest.max(oldest_told(disk, log, parts)?);
    }
    // Where nobody says so, there was none before the first.
    Ok(if oldest == 0 { first } else { oldest })
}

/// The newest word on which segment is the oldest.
fn oldest_told<D: Disk>(disk: &mut D, log: &LogId, parts: &[Part]) -> Result<u64, LogError> {
    let mut oldest = 0;
    for part in parts {
        let bytes = read_all(disk, part.file)?;
        let mut at = BLOCK_BYTES;
        while let Some((place, found)) = next_frame(log, part.number, &bytes, at) {
            if let Look::Frame(frame) = found
                && frame.kind == Kind::Oldest
            {
                oldest = oldest.max(frame.ticket);
            }
            at = place + ALIGNMENT;
        }
    }
    Ok(oldest)
}

/// The next place from `at` on where a header is right.
fn next_frame<'b>(
    log: &LogId,
    number: u64,
    bytes: &'b [u8],
    at: usize,
) -> Option<(usize, Look<'b>)> {
    let places = (at..bytes.len()).step_by(ALIGNMENT);
    let mut looks = places.map(|at| (at, look(log, number, bytes.get(at..).unwrap_or_default())));
    looks.find(|(_, look)| matches!(look, Look::Frame(_) | Look::Broken { .. }))
}

/// Where a segment begins in the order of the log.
fn first_sequence<D: Disk>(
    disk: &mut D,
    log: &LogId,
    part: &Part,
) -> Result<Option<u64>, LogError> {
    if let Some(head) = part.head {
        return Ok(Some(head.first_sequence));
    }
    let bytes = disk.read(part.file, usize::MAX).map_err(LogError::Failed)?;
    let first = bytes.get(BLOCK_BYTES..).unwrap_or_default();
    Ok(match look(log, part.number, first) {
        Look::Frame(frame) => Some(frame.sequence),
        Look::Broken { sequence, .. } => Some(sequence),
        Look::Empty | Look::Foreign => None,
    })
}

impl Walker<'_> {
    /// Segments are not there, or not what they should be.
    fn miss(&mut self, numbers: Range<u64>, unread: &mut BTreeMap<u64, What>) {
        for number in numbers.take(MISSING_NAMED_MAX) {
            let what = unread.remove(&number).unwrap_or(What::Missing);
            if self.bad.is_some() {
                self.walked.gaps.push(nothing_lost(number, what));
                continue;
            }
            self.bad = Some(Bad {
                segment: number,
                offset: 0,
                what: Some(what),
                headers: 0,
                shard: None,
            });
        }
    }

    /// What is known to be missing behind the last file that there is.
    fn miss_end(
        &mut self,
        (last, bytes): (&Part, u64),
        until: u64,
        end: Option<EndNote>,
        unread: &mut BTreeMap<u64, What>,
    ) {
        let is_closed = end.is_some_and(|end| end.is_closed);
        let next = last.number + 1;
        if next < until {
            self.miss(next..until, unread);
            self.loses_end = !is_closed;
            return;
        }
        let Some(end) = end.filter(|end| end.is_cut(last.number, bytes, self.expected)) else {
            return;
        };
        self.loses_end = !is_closed;
        if self.walked.safe < self.expected && self.bad.is_none() {
            self.bad = Some(Bad {
                segment: last.file,
                offset: bytes,
                what: Some(What::Cut(end.segment_bytes)),
                headers: 0,
                shard: None,
            });
        }
    }

    /// An end was noted that is not that of what there is.
    fn check_end(&mut self, parts: &[Part], other: Option<EndNote>, made: Option<u64>) {
        let all_missing = |what| Gap {
            frames: None,
            ..nothing_lost(FIRST_SEGMENT, what)
        };
        let is_behind = made.is_some_and(|made| made > FIRST_SEGMENT);
        let gap = match (parts.last(), other) {
            (Some(last), Some(other)) => nothing_lost(last.file, What::End(other.log)),
            (None, Some(_)) if made == Some(FIRST_SEGMENT) => all_missing(What::Empty),
            (None, Some(_)) => all_missing(What::AllMissing),
            (None, None) if is_behind => all_missing(What::Missing),
            (_, None) => return,
        };
        self.walked.gaps.push(gap);
    }

    fn segment(&mut self, part: &Part, bytes: &[u8], until: Option<u64>, is_last: bool) {
        self.walked.file_bytes += bytes.len() as u64;
        let bytes = written(bytes);
        if let Some(head) = part.head {
            // A segment is begun when all before it is safe.
            self.walked.safe = self.walked.safe.max(head.first_sequence.saturating_sub(1));
            self.resume(head.first_sequence);
        }
        let mut offset = BLOCK_BYTES;
        let mut behind = None;
        while until.is_none_or(|until| self.expected < until) {
            let rest = bytes.get(offset..).unwrap_or_default();
            let found = look(&self.log, part.number, rest);
            match found {
                Look::Frame(frame) if until.is_some_and(|until| frame.sequence >= until) => break,
                Look::Frame(frame) if frame.sequence >= self.expected => {
                    self.frame(part.file, offset as u64, frame);
                    offset += frame.wire_bytes();
                    continue;
                }
                Look::Empty if !offset.is_multiple_of(BLOCK_BYTES) => {
                    offset = offset.next_multiple_of(BLOCK_BYTES);
                    continue;
                }
                _ => {}
            }
            self.end = (part.file, offset as u64);
            if is_last {
                let told = behind.get_or_insert_with(|| look_behind(&self.log, part.number, rest));
                let (told, _) = *told;
                if self.walked.safe.max(told) < self.expected {
                    self.cut_off(part, offset as u64, rest);
                    break;
                }
            }
            match self.pass(part, bytes, offset, &found) {
                Some(next) => offset = next,
                None => break,
            }
        }
        if self.end.0 != part.file {
            self.end = (part.file, offset as u64);
        }
    }

    fn frame(&mut self, file: u64, offset: u64, frame: Found<'_>) {
        self.resume(frame.sequence);
        self.expected = frame.sequence.saturating_add(1);
        let walked = &mut self.walked;
        walked.safe = walked.safe.max(frame.synced);
        walked.frame_bytes += frame.wire_bytes() as u64;
        self.end = (file, offset + frame.wire_bytes() as u64);
        if frame.kind.has_records() {
            walked.frames += 1;
            (self.take)(Step::Frame(file, offset, self.shards, frame));
        }
    }

    /// A bad place. Where it may go on; `None` if nothing was written behind it.
    fn pass(
        &mut self,
        part: &Part,
        bytes: &[u8],
        offset: usize,
        found: &Look<'_>,
    ) -> Option<usize> {
        let mut bad = self.bad.take().unwrap_or(Bad {
            segment: part.file,
            offset: offset as u64,
            what: None,
            headers: 0,
            shard: None,
        });
        let next = match *found {
            Look::Frame(frame) => Some(offset + frame.wire_bytes()),
            Look::Broken {
                sequence,
                synced,
                shard,
                wire_bytes,
            } => {
                self.walked.safe = self.walked.safe.max(synced);
                if sequence.checked_sub(bad.headers) == Some(self.expected)
                    && (bad.headers == 0 || bad.shard == Some(shard))
                {
                    bad.headers += 1;
                    bad.shard = Some(shard);
                }
                Some(offset.saturating_add(wire_bytes))
            }
            Look::Empty | Look::Foreign => {
                let from = offset + ALIGNMENT;
                next_frame(&self.log, part.number, bytes, from).map(|(at, _)| at)
            }
        };
        let next = next.filter(|next| *next < bytes.len());
        let rest = bytes.get(offset..).unwrap_or_default();
        if next.is_some() || rest.iter().any(|byte| *byte != 0) || bad.what.is_some() {
            self.bad = Some(bad);
        }
        next
    }

    /// The frame with this place comes next.
    fn resume(&mut self, sequence: u64) {
        let is_short = self.expected != 0 && sequence > self.expected;
        if self.bad.is_none() && !is_short {
            self.expected = self.expected.max(sequence);
            return;
        }
        let (segment, offset) = self.end;
        let bad = self.bad.take().unwrap_or(Bad {
            segment,
            offset,
            what: None,
            headers: 0,
            shard: None,
        });
        let is_known = self.expected != 0 && !self.loses_end;
        let frames = is_known.then(|| self.expected..sequence.max(self.expected));
        let is_known = frames
            .as_ref()
            .is_some_and(|lost| lost.end - lost.start == bad.headers);
        let gap = Gap {
            damage: Damage {
                segment: bad.segment,
                offset: bad.offset,
                what: bad.what.unwrap_or(What::Frame(self.expected)),
            },
            shard: bad.shard.filter(|_| is_known),
            frames,
        };
        if gap.frames.as_ref().is_none_or(|frames| !frames.is_empty()) {
            (self.take)(Step::Gap(&gap));
        }
        self.walked.gaps.push(gap);
        self.expected = self.expected.max(sequence);
    }

    fn cut_off(&mut self, part: &Part, offset: u64, rest: &[u8]) {
        let written = rest.iter().rposition(|byte| *byte != 0);
        self.walked.torn = written.map(|last| Torn {
            segment: part.file,
            offset,
            bytes: last as u64 + 1,
        });
    }

    fn finish(&mut self, unread: BTreeMap<u64, What>) {
        if self.bad.is_some() || self.walked.safe >= self.expected && self.expected != 0 {
            self.resume(self.walked.safe.saturating_add(1));
        }
        self.walked.next_sequence = self.expected;
        let unread = unread.into_iter();
        let unread = unread.map(|(file, what)| nothing_lost(file, what));
        self.walked.gaps.extend(unread);
        self.walked
            .gaps
            .sort_by_key(|gap| (gap.damage.segment, gap.damage.offset));
    }
}
