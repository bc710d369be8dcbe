//! What every payload starts with: who sent it, which one it is, when it should have been sent.
//!
//! 16 bytes: time (48 bits, ns since the run's origin: 78 hours), sequence (32 bits), stream (24 bits)
//! and a check (24 bits) over these, the payload's length and the run. The rest of a payload is a
//! fixed pattern, so that damage shows wherever it is.

/// Bytes of a stamp, so the smallest payload.
pub const STAMP_BYTES: usize = 16;
/// Streams that can be told apart.
pub const STREAMS_MAX: usize = 1 << 24;
const TIME_MASK: u64 = (1 << 48) - 1;

/// A payload's origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Intended send time in ns since the run's origin.
    pub time_ns: u64,
    /// Counts from 0 within the stream.
    pub sequence: u32,
    /// A publisher's topic.
    pub stream: u32,
}

/// Writes and checks the payloads of one run.
#[derive(Clone, Debug)]
pub struct Payloads {
    run: u64,
    filler: Vec<u8>,
}

impl Payloads {
    /// Payloads of up to `bytes_max`, told from those of other runs by `run`.
    pub fn new(run: u64, bytes_max: usize) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let filler = (0..bytes_max)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        Payloads { run, filler }
    }

    /// Appends a payload of `bytes` (at least [`STAMP_BYTES`]).
    pub fn write(&self, stamp: Stamp, bytes: usize, out: &mut Vec<u8>) {
        let time = (stamp.time_ns & TIME_MASK).to_be_bytes();
        out.extend_from_slice(&time[2..]);
        out.extend_from_slice(&stamp.sequence.to_be_bytes());
        out.extend_from_slice(&stamp.stream.to_be_bytes()[1..]);
        out.extend_from_slice(&self.check(stamp, bytes).to_be_bytes()[1..]);
        out.extend_from_slice(&self.filler[..bytes - STAMP_BYTES]);
    }

    /// The stamp of a payload; nothing if it is damaged or of another run.
    pub fn read(&self, payload: &[u8]) -> Option<Stamp> {
        let (head, rest) = payload.split_first_chunk::<STAMP_BYTES>()?;
        let word = u128::from_be_bytes(*head);
        let stamp = Stamp {
            time_ns: (word >> 80) as u64,
            sequence: (word >> 48) as u32,
            stream: (word >> 24) as u32 & 0xFF_FFFF,
        };
        let check = word as u32 & 0xFF_FFFF;
        let is_whole = check == self.check(stamp, payload.len())
            && self.filler.get(..rest.len()).is_some_and(|f| f == rest);
        is_whole.then_some(stamp)
    }

    const fn check(&self, stamp: Stamp, bytes: usize) -> u32 {
        let mut hash = self.run ^ (stamp.time_ns & TIME_MASK);
        hash = hash.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        hash ^= (stamp.sequence as u64) << 32 | stamp.stream as u64;
        hash = (hash ^ hash >> 29).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        hash = (hash ^ bytes as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 40) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        time_ns: 123_456_789_012,
        sequence: 77,
        stream: 0xABCDEF,
    };

    #[test]
    fn a_stamp_is_read_back() {
        let payloads = Payloads::new(9, 1000);
        for bytes in [16, 17, 1000] {
            let mut out = Vec::new();
            payloads.write(STAMP, bytes, &mut out);
            assert_eq!(out.len(), bytes);
            assert_eq!(payloads.read(&out), Some(STAMP));
        }
    }

    #[test]
    fn each_damaged_byte_shows() {
        let payloads = Payloads::new(9, 100);
        let mut out = Vec::new();
        payloads.write(STAMP, 100, &mut out);
        for at in 0..out.len() {
            let mut damaged = out.clone();
            damaged[at] ^= 0x10;
            assert_eq!(payloads.read(&damaged), None, "byte {at}");
        }
        assert_eq!(payloads.read(&out[..99]), None);
        assert_eq!(payloads.read(&out[..15]), None);
        assert_eq!(Payloads::new(10, 100).read(&out), None);
    }
}
