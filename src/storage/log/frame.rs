//! Frames: what a shard hands over at once, checked as a whole.
//!
//! ```text
//! length u32 | shard u16 | kind u8 | life u8 | sequence u64 | ticket u64 | synced u64 |
//! crc(records) u32 | crc(header) u32
//! ```
//! Little endian. The shard writes the records and their checksum; place and order are stamped by who
//! writes to the disk. The header's checksum is seeded with the log's identity and the segment's number,
//! so that a stale block of another file never passes. The life tells the processes apart that have written
//! in one segment, one behind the other: 0 is the one that began it.

use super::segment::LogId;

/// Bytes before the records.
pub const HEADER_BYTES: usize = 40;
/// Frames begin at a multiple of this, so that a scan finds the next good one.
pub const ALIGNMENT: usize = 16;
/// Most bytes of a frame with its header.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Records of a shard.
    Records = 0,
    /// Segments before the one that stands in place of the ticket are not needed any more.
    Oldest = 1,
    /// Nothing but what is safe.
    Mark = 2,
    /// Records, of which the first begins a checkpoint.
    CheckpointBegins = 3,
    /// Records, of which the first ends a checkpoint.
    CheckpointEnds = 4,
}

impl Kind {
    /// Whether it is a shard's, with records.
    #[must_use]
    pub const fn has_records(self) -> bool {
        match self {
            Kind::Records | Kind::CheckpointBegins | Kind::CheckpointEnds => true,
            Kind::Oldest | Kind::Mark => false,
        }
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Kind::Records),
            1 => Some(Kind::Oldest),
            2 => Some(Kind::Mark),
            3 => Some(Kind::CheckpointBegins),
            4 => Some(Kind::CheckpointEnds),
            _ => None,
        }
    }
}

/// A frame on its way to the disk.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    /// Whose it is.
    pub shard: u16,
    /// Highest ticket of its records.
    pub ticket: u64,
    kind: Kind,
}

impl Frame {
    /// What the log says to itself.
    pub(super) fn note(kind: Kind, value: u64) -> Self {
        let mut frame = Frame::new(Vec::new(), 0);
        (frame.kind, frame.ticket) = (kind, value);
        frame.seal();
        frame
    }

    /// A frame without records. `buffer` is used again.
    #[must_use]
    pub fn new(mut buffer: Vec<u8>, shard: u16) -> Self {
        buffer.clear();
        buffer.resize(HEADER_BYTES, 0);
        Frame {
            bytes: buffer,
            shard,
            ticket: 0,
            kind: Kind::Records,
        }
    }

    /// Where the next record goes.
    pub fn records(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What it says.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// It has records of this kind.
    pub fn set_kind(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// Bytes of the records so far.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.bytes.len() - HEADER_BYTES
    }

    /// The records, once it has been sealed.
    #[must_use]
    pub fn sealed_records(&self) -> &[u8] {
        let length = read::<4>(&self.bytes, 0).map_or(0, u32::from_le_bytes);
        let end = HEADER_BYTES + length as usize;
        self.bytes.get(HEADER_BYTES..end).unwrap_or_default()
    }

    /// No more records come: writes what can be known before the place is.
    pub fn seal(&mut self) {
        let length = self.record_bytes() as u32;
        let sum = crc32fast::hash(self.bytes.get(HEADER_BYTES..).unwrap_or_default());
        self.put(0, &length.to_le_bytes());
        self.put(4, &self.shard.to_le_bytes());
        self.put(6, &[self.kind as u8]);
        self.put(16, &self.ticket.to_le_bytes());
        self.put(32, &sum.to_le_bytes());
        let padded = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(padded, 0);
    }

    /// By which process of its segment it is written. It has been sealed and is not stamped yet.
    pub fn set_life(&mut self, life: u8) {
        self.put(7, &[life]);
    }

    /// Gives it its place in a log. It has been sealed.
    pub fn stamp(&mut self, log: &LogId, segment: u64, sequence: u64, synced: u64) {
        self.put(8, &sequence.to_le_bytes());
        self.put(24, &synced.to_le_bytes());
        let sum = header_sum(log, segment, self.bytes.get(..36).unwrap_or_default());
        self.put(36, &sum.to_le_bytes());
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }

    /// As it goes to the disk.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives its buffer back.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

fn header_sum(log: &LogId, segment: u64, header: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&log.0);
    sum.update(&segment.to_le_bytes());
    sum.update(header);
    sum.finalize()
}

/// A frame that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its place in the order of the whole log.
    pub sequence: u64,
    /// What was known to be safe when it was written.
    pub synced: u64,
    /// What it says.
    pub kind: Kind,
    /// By which process of its segment it was written.
    pub life: u8,
    /// Whose it is.
    pub shard: u16,
    /// Highest ticket of its records.
    pub ticket: u64,
    /// The records.
    pub records: &'a [u8],
}

impl Found<'_> {
    /// Bytes it takes on the disk.
    #[must_use]
    pub const fn wire_bytes(&self) -> usize {
        (HEADER_BYTES + self.records.len()).next_multiple_of(ALIGNMENT)
    }
}

/// What stands at the beginning of `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look<'a> {
    /// A frame that is whole.
    Frame(Found<'a>),
    /// A header that is right, and records that are not: what was safe then still counts.
    Broken {
        /// Its place in the order of the whole log.
        sequence: u64,
        /// What was known to be safe when it was written.
        synced: u64,
        /// Whose it is.
        shard: u16,
        /// Bytes it takes on the disk.
        wire_bytes: usize,
    },
    /// Nothing was written here.
    Empty,
    /// Something else.
    Foreign,
}

/// Looks for a frame of a log's segment at the beginning of `bytes`.
#[must_use]
pub fn look<'a>(log: &LogId, segment: u64, bytes: &'a [u8]) -> Look<'a> {
    // The sequence is in there and is never 0. What comes after may be another group's.
    let beginning = bytes.get(..ALIGNMENT).unwrap_or(bytes);
    if beginning.iter().all(|byte| *byte == 0) {
        return Look::Empty;
    }
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Look::Foreign;
    };
    let u32_at = |at: usize| read::<4>(header, at).map_or(0, u32::from_le_bytes);
    let u64_at = |at: usize| read::<8>(header, at).map_or(0, u64::from_le_bytes);
    if u32_at(36) != header_sum(log, segment, header.get(..36).unwrap_or_default()) {
        return Look::Foreign;
    }
    let (sequence, synced) = (u64_at(8), u64_at(24));
    let u16_at = |at: usize| read::<2>(header, at).map_or(0, u16::from_le_bytes);
    let [kind, life] = u16_at(6).to_le_bytes();
    let Some(kind) = Kind::from_bits(kind) else {
        return Look::Foreign;
    };
    let end = HEADER_BYTES + u32_at(0) as usize;
    match bytes.get(HEADER_BYTES..end) {
        Some(records) if crc32fast::hash(records) == u32_at(32) => Look::Frame(Found {
            sequence,
            synced,
            kind,
            life,
            shard: u16_at(4),
            ticket: u64_at(16),
            records,
        }),
        _ => Look::Broken {
            sequence,
            synced,
            shard: u16_at(4),
            wire_bytes: end.next_multiple_of(ALIGNMENT),
        },
    }
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_where_it_was_stamped_and_nowhere_else() {
        let log = LogId([7; 16]);
        let mut frame = Frame::new(vec![9; 100], 3);
        frame.records().extend_from_slice(b"some records");
        frame.ticket = 5;
        frame.seal();
        assert_eq!(frame.sealed_records(), b"some records");
        frame.set_life(6);
        frame.stamp(&log, 2, 41, 40);
        let wire = frame.wire().to_vec();
        assert_eq!(wire.len() % ALIGNMENT, 0);
        let Look::Frame(found) = look(&log, 2, &wire) else {
            panic!("not found");
        };
        let wanted = Found {
            sequence: 41,
            synced: 40,
            kind: Kind::Records,
            life: 6,
            shard: 3,
            ticket: 5,
            records: b"some records",
        };
        assert_eq!((found, found.wire_bytes()), (wanted, wire.len()));
        assert_eq!(look(&log, 3, &wire), Look::Foreign);
        assert_eq!(look(&LogId([8; 16]), 2, &wire), Look::Foreign);
        assert_eq!(look(&log, 2, &[0; 64]), Look::Empty);
        assert_eq!(look(&log, 2, &[0; 8]), Look::Empty);
        for bit in 0..(HEADER_BYTES + 12) * 8 {
            let mut wire = wire.clone();
            wire[bit / 8] ^= 1 << (bit % 8);
            let seen = look(&log, 2, &wire);
            let in_records = bit / 8 >= HEADER_BYTES;
            let wanted = if in_records {
                Look::Broken {
                    sequence: 41,
                    synced: 40,
                    shard: 3,
                    wire_bytes: wire.len(),
                }
            } else {
                Look::Foreign
            };
            assert_eq!(seen, wanted, "bit {bit}");
        }
        let cut = wire.get(..HEADER_BYTES + 3).unwrap();
        assert!(matches!(look(&log, 2, cut), Look::Broken { .. }));
    }
}
