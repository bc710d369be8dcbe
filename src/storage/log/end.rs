//! Where a log ends, as it is noted beside its segments: what is missing at its end cannot be seen in what is
//! left of it.
//!
//! ```text
//! magic 8 | version u32 | log 16 | count u64 | segment u64 | segment's bytes u64 | sequence u64 |
//! closed u32 | crc u32
//! ```
//! Little endian. Two blocks are written by turns, so that one is whole at any time; the one with the higher
//! count is newer.
//!
//! Invariant: what is noted was safe before.

use super::segment::{BLOCK_BYTES, LogId, sealed};

/// The name of its file.
pub const END_FILE: &str = "END";
/// Blocks of it.
pub const BLOCKS: u64 = 2;
const MAGIC: &[u8; 8] = b"RINGMQ\0E";
const VERSION: u32 = 1;
const SUMMED_BYTES: usize = 64;

/// What is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndNote {
    /// Whose end it is.
    pub log: LogId,
    /// How often it was noted.
    pub count: u64,
    /// The last segment ...
    pub segment: u64,
    /// ... the bytes of its file ...
    pub segment_bytes: u64,
    /// ... and the last frame that was safe.
    pub sequence: u64,
    /// Nothing was written behind it.
    pub is_closed: bool,
}

impl EndNote {
    /// As one of the blocks.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.count, self.segment, self.segment_bytes, self.sequence];
        sealed(MAGIC, VERSION, self.log, numbers, self.is_closed.into())
    }

    fn decode(block: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(block.get(at..at + 8)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
        let is_whole = block.starts_with(MAGIC)
            && word(8)? == VERSION
            && crc32fast::hash(block.get(..SUMMED_BYTES)?) == word(SUMMED_BYTES)?;
        if !is_whole {
            return None;
        }
        Some(EndNote {
            log: LogId(block.get(12..28)?.try_into().ok()?),
            count: number(28)?,
            segment: number(36)?,
            segment_bytes: number(44)?,
            sequence: number(52)?,
            is_closed: word(60)? != 0,
        })
    }

    /// The newer of both blocks; `None` if neither is whole, so that nothing is known.
    #[must_use]
    pub fn newest(blocks: &[u8]) -> Option<Self> {
        let notes = blocks.chunks(BLOCK_BYTES).filter_map(EndNote::decode);
        notes.max_by_key(|note| note.count)
    }

    /// Whether the last segment has lost its end: its file is shorter than it was, and what stood there is
    /// not known to be nothing.
    #[must_use]
    pub const fn is_cut(&self, last: u64, file_bytes: u64, next_sequence: u64) -> bool {
        let is_all_there = self.is_closed && self.sequence + 1 == next_sequence;
        self.segment == last && file_bytes < self.segment_bytes && !is_all_there
    }

    /// Which of the blocks it is.
    #[must_use]
    pub const fn block(&self) -> u64 {
        self.count % BLOCKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_block_counts_unless_it_is_torn() {
        let note = |count| EndNote {
            log: LogId([3; 16]),
            count,
            segment: 7,
            segment_bytes: 64 << 20,
            sequence: 100 + count,
            is_closed: count == 5,
        };
        assert_eq!(EndNote::newest(&[]), None);
        assert_eq!(EndNote::newest(&[0; 2 * BLOCK_BYTES]), None);
        let mut blocks = [note(4).encode(), note(5).encode()].concat();
        assert_eq!(EndNote::newest(&blocks), Some(note(5)));
        assert_eq!((note(4).block(), note(5).block()), (0, 1));
        for at in 0..SUMMED_BYTES + 4 {
            blocks[BLOCK_BYTES + at] ^= 4;
            assert_eq!(EndNote::newest(&blocks), Some(note(4)), "{at}");
            blocks[BLOCK_BYTES + at] ^= 4;
        }
        blocks.truncate(BLOCK_BYTES + SUMMED_BYTES);
        assert_eq!(EndNote::newest(&blocks), Some(note(4)));
    }
}
