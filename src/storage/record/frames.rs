//! Frames that fill with records, one behind the other.
//!
//! Invariant: a frame's ticket is that of the last record that is whole when it ends.

use super::fields::{HEAD_BYTES_MAX, put_varint};
use super::tag::Tag;
use crate::engine::keys::ShardId;
use crate::storage::log::frame::{FRAME_BYTES_MAX, Frame, HEADER_BYTES, Kind};
use std::collections::VecDeque;

/// A part is begun where at least so much is left of a frame.
const PART_ROOM_BYTES_MIN: usize = 32;
/// Buffers that are kept for later frames.
const SPARE_MAX: usize = 8;
/// Bytes before a part's content: its tag and a length below 2 MiB.
const PART_HEAD_BYTES_MAX: usize = 1 + 3;

/// The frames of one shard.
#[derive(Debug)]
pub(super) struct Frames {
    shard: ShardId,
    record_bytes_max: usize,
    filling: Frame,
    full: VecDeque<Frame>,
    spare: Vec<Vec<u8>>,
    ticket: u64,
}

impl Frames {
    pub(super) fn new(shard: ShardId) -> Self {
        Frames {
            shard,
            record_bytes_max: FRAME_BYTES_MAX - HEADER_BYTES,
            filling: Frame::new(Vec::new(), shard),
            full: VecDeque::new(),
            spare: Vec::new(),
            ticket: 0,
        }
    }

    /// Frames of fewer bytes than the log allows.
    pub(super) fn limit(&mut self, frame_bytes: usize) {
        let most = FRAME_BYTES_MAX - HEADER_BYTES;
        let wanted = frame_bytes.saturating_sub(HEADER_BYTES);
        self.record_bytes_max = wanted.clamp(2 * PART_ROOM_BYTES_MIN, most);
    }

    /// All that was written so far is of records up to this one.
    pub(super) const fn complete(&mut self, ticket: u64) {
        self.ticket = ticket;
    }

    /// One more record; its fields, one behind the other.
    pub(super) fn write(&mut self, tag: Tag, fields: &[&[u8]]) {
        let length: usize = fields.iter().map(|field| field.len()).sum();
        let (head, head_bytes) = head(tag, length);
        let head = head.get(..head_bytes).unwrap_or_default();
        let bytes = head.len() + length;
        if bytes > self.room() && bytes <= self.record_bytes_max {
            self.close();
        }
        if bytes > self.room() {
            return self.write_in_parts(bytes, head, fields);
        }
        let records = self.filling.records();
        records.extend_from_slice(head);
        for field in fields {
            records.extend_from_slice(field);
        }
    }

    /// The record as it would stand in a frame, cut where frames end.
    fn write_in_parts(&mut self, bytes: usize, head: &[u8], fields: &[&[u8]]) {
        let mut tag = Tag::Part;
        let mut left = bytes;
        let mut slices = std::iter::once(head).chain(fields.iter().copied());
        let mut slice: &[u8] = &[];
        while left > 0 {
            if self.room() < PART_ROOM_BYTES_MIN {
                self.close();
            }
            let part_bytes = left.min(self.room() - PART_HEAD_BYTES_MAX);
            let records = self.filling.records();
            records.push(tag as u8);
            put_varint(records, part_bytes as u64);
            let mut missing = part_bytes;
            while missing > 0 {
                if slice.is_empty() {
                    slice = slices.next().unwrap_or_default();
                }
                let (taken, rest) = slice.split_at(missing.min(slice.len()));
                records.extend_from_slice(taken);
                missing -= taken.len();
                slice = rest;
            }
            left -= part_bytes;
            tag = Tag::NextPart;
        }
    }

    /// Bytes that still go into this frame.
    fn room(&self) -> usize {
        let taken = self.filling.record_bytes();
        self.record_bytes_max.saturating_sub(taken)
    }

    /// Ends the frame, if it has records.
    pub(super) fn close(&mut self) {
        if self.filling.record_bytes() == 0 {
            return;
        }
        let next = Frame::new(self.spare.pop().unwrap_or_default(), self.shard);
        let mut frame = std::mem::replace(&mut self.filling, next);
        frame.ticket = self.ticket;
        frame.seal();
        self.full.push_back(frame);
    }

    /// Ends the frame, and begins one of another kind.
    pub(super) fn begin(&mut self, kind: Kind) {
        self.close();
        self.filling.set_kind(kind);
    }

    /// Those that are ready for the log.
    pub(super) const fn full(&mut self) -> &mut VecDeque<Frame> {
        &mut self.full
    }

    /// A buffer for a later frame.
    pub(super) fn reuse(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(buffer);
        }
    }
}

/// A record's first bytes, and how many they are.
fn head(tag: Tag, length: usize) -> ([u8; HEAD_BYTES_MAX], usize) {
    let mut head = [0; HEAD_BYTES_MAX];
    let (mut left, mut bytes) = (length, 0);
    let lengths = std::iter::from_fn(|| {
        let is_last = left < 0x80;
        let byte = left as u8 & 0x7F | if is_last { 0 } else { 0x80 };
        left >>= 7;
        Some((byte, is_last))
    });
    let mut is_done = false;
    let all = std::iter::once((tag as u8, false)).chain(lengths);
    for (place, (byte, is_last)) in head.iter_mut().zip(all) {
        if is_done {
            break;
        }
        *place = byte;
        bytes += 1;
        is_done = is_last;
    }
    (head, bytes)
}
