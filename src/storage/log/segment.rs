//! Segments: the files of a log, each with a block of its own in front.
//!
//! ```text
//! magic 8 | version u32 | log 16 | number u64 | made at u64 (wall, ms) | oldest u64 |
//! first sequence u64 | shards u32 | crc u32
//! ```

use std::fmt;

/// What is written as a whole, and never again once it is safe.
pub const BLOCK_BYTES: usize = 4_096;
const MAGIC: &[u8; 8] = b"RINGMQ\0L";
/// The number of a log's first segment.
pub const FIRST_SEGMENT: u64 = 1;
/// Form of the files; others are refused by name.
pub const VERSION: u32 = 1;
const SUMMED_BYTES: usize = 64;

/// Tells one log from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId(pub [u8; 16]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What stands in the first block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// Whose it is.
    pub log: LogId,
    /// Ascending by one.
    pub number: u64,
    /// Wall clock when it was begun, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// The oldest segment at that time.
    pub oldest: u64,
    /// The first frame in it: whatever former segments have from there on was never safe.
    pub first_sequence: u64,
    /// So many shards have written in it.
    pub shards: u32,
}

/// What is wrong with a first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It is empty: its file was being made.
    Empty,
    /// Another version wrote it.
    Version(u32),
    /// It is none.
    Broken,
}

/// A block that tells of a log, with its sum.
pub(super) fn sealed(
    magic: &[u8; 8],
    version: u32,
    log: LogId,
    numbers: [u64; 4],
    word: u32,
) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    block.extend_from_slice(magic);
    block.extend_from_slice(&version.to_le_bytes());
    block.extend_from_slice(&log.0);
    for number in numbers {
        block.extend_from_slice(&number.to_le_bytes());
    }
    block.extend_from_slice(&word.to_le_bytes());
    let sum = crc32fast::hash(&block);
    block.extend_from_slice(&sum.to_le_bytes());
    block.resize(BLOCK_BYTES, 0);
    block
}

impl SegmentHead {
    /// The block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.number,
            self.made_at_ms,
            self.oldest,
            self.first_sequence,
        ];
        sealed(MAGIC, VERSION, self.log, numbers, self.shards)
    }

    /// Reads the block.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(block: &[u8]) -> Result<Self, HeadError> {
        if block.iter().all(|byte| *byte == 0) {
            return Err(HeadError::Empty);
        }
        let field = |at: usize| block.get(at..at + 8)?.try_into().ok();
        let number = |at| field(at).map(u64::from_le_bytes).ok_or(HeadError::Broken);
        let word = |at: usize| {
            let bytes = block.get(at..at + 4).and_then(|word| word.try_into().ok());
            bytes.map(u32::from_le_bytes).ok_or(HeadError::Broken)
        };
        if !block.starts_with(MAGIC) {
            return Err(HeadError::Broken);
        }
        let version = word(8)?;
        let summed = block.get(..SUMMED_BYTES).ok_or(HeadError::Broken)?;
        let mut as_of_this = summed.to_vec();
        if let Some(place) = as_of_this.get_mut(8..12) {
            place.copy_from_slice(&VERSION.to_le_bytes());
        }
        let is_of_this = crc32fast::hash(&as_of_this) == word(SUMMED_BYTES)?;
        match (version == VERSION, is_of_this) {
            (true, true) => {}
            // What stands in place of the version is wrong.
            (true, false) | (false, true) => return Err(HeadError::Broken),
            (false, false) => return Err(HeadError::Version(version)),
        }
        let log = block.get(12..28).and_then(|log| log.try_into().ok());
        Ok(SegmentHead {
            log: LogId(log.ok_or(HeadError::Broken)?),
            number: number(28)?,
            made_at_ms: number(36)?,
            oldest: number(44)?,
            first_sequence: number(52)?,
            shards: word(60)?,
        })
    }
}

/// Name of a segment's file.
#[must_use]
pub fn file_name(number: u64) -> String {
    format!("{number:010}.seg")
}

/// The number in a file's name, if it is a segment's.
#[must_use]
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let number = digits.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_block_is_read_as_it_was_written_or_named_for_what_it_is() {
        let head = SegmentHead {
            log: LogId([1; 16]),
            number: 41,
            made_at_ms: 1_700_000_000_000,
            oldest: 39,
            first_sequence: 1 << 40,
            shards: 4,
        };
        let block = head.encode();
        assert_eq!(block.len(), BLOCK_BYTES);
        assert_eq!(SegmentHead::decode(&block), Ok(head));
        assert_eq!(
            SegmentHead::decode(&[0; BLOCK_BYTES]),
            Err(HeadError::Empty)
        );
        let mut newer = block.clone();
        newer[8] = 2;
        let sum = crc32fast::hash(&newer[..SUMMED_BYTES]);
        newer[SUMMED_BYTES..SUMMED_BYTES + 4].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(SegmentHead::decode(&newer), Err(HeadError::Version(2)));
        for at in 0..SUMMED_BYTES + 4 {
            let mut broken = block.clone();
            broken[at] ^= 4;
            assert_eq!(SegmentHead::decode(&broken), Err(HeadError::Broken), "{at}");
        }
    }

    #[test]
    fn names_and_numbers_belong_together() {
        assert_eq!(file_name(41), "0000000041.seg");
        assert_eq!(number_of("0000000041.seg"), Some(41));
        assert_eq!(number_of("12345678901.seg"), Some(12_345_678_901));
        for other in ["41.seg", "0000000041.seg.bak", "LOCK", "-000000001.seg"] {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}
