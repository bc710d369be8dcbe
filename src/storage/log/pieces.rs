//! A segment's bytes as they are looked through: by pieces, in one buffer for all segments, since fresh
//! memory costs more than what is read into it.

use super::disk::Disk;
use super::frame::FRAME_BYTES_MAX;
use std::io;

/// Room for a whole frame behind what is left of the one before.
const BUFFER_BYTES: usize = 2 * FRAME_BYTES_MAX;

/// What was read last of a segment.
pub(super) struct Pieces {
    buffer: Vec<u8>,
    segment: u64,
    /// Where in the segment the buffer begins, and how much of it is filled.
    from: usize,
    filled: usize,
    /// Nothing comes behind.
    is_last: bool,
}

impl Pieces {
    pub(super) fn new() -> Self {
        Pieces {
            buffer: vec![0; BUFFER_BYTES],
            segment: 0,
            from: 0,
            filled: 0,
            is_last: true,
        }
    }

    /// Goes on with a segment, of which nothing is read yet.
    pub(super) fn begin(&mut self, segment: u64) {
        (self.segment, self.from, self.filled) = (segment, 0, 0);
        self.is_last = false;
    }

    /// What was read from there on.
    pub(super) fn rest(&self, offset: usize) -> &[u8] {
        let read = self.buffer.get(..self.filled).unwrap_or_default();
        let behind = offset.checked_sub(self.from);
        behind
            .and_then(|behind| read.get(behind..))
            .unwrap_or_default()
    }

    /// Reads more, in place of what is before `offset`, if there may be too little for a frame. Whether there
    /// was more.
    pub(super) fn more<D: Disk>(&mut self, disk: &mut D, offset: usize) -> io::Result<bool> {
        let left = self.rest(offset).len();
        if self.is_last || left >= FRAME_BYTES_MAX {
            return Ok(false);
        }
        self.buffer.copy_within(self.filled - left..self.filled, 0);
        (self.from, self.filled) = (offset, left);
        let free = self.buffer.get_mut(left..).unwrap_or_default();
        let read = disk.read_at(self.segment, (offset + left) as u64, free)?;
        self.is_last = read < free.len();
        self.filled += read;
        Ok(read > 0)
    }

    /// How long the segment is, if there is nothing from there on.
    pub(super) fn blank_from<D: Disk>(
        &mut self,
        disk: &mut D,
        mut offset: usize,
    ) -> io::Result<Option<usize>> {
        loop {
            if self.rest(offset).iter().any(|byte| *byte != 0) {
                return Ok(None);
            }
            offset = offset.max(self.from + self.filled);
            if !self.more(disk, offset)? {
                return Ok(Some(self.from + self.filled));
            }
        }
    }
}
