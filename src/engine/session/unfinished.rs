//! A large packet of which parts have arrived: kept in pieces, and put together once.
//!
//! A buffer that doubles would copy what it has again and again, and those of many clients that send at one
//! pace double at one moment: 300 packets of a megabyte took a shard 150 ms then.
//!
//! Not here: small packets, which stay in one buffer (`Connection::partial`).

/// Bytes of a piece.
const PIECE_BYTES: usize = 64 * 1024;

/// The packet, and what came after it.
#[derive(Debug)]
pub struct Unfinished {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    /// Bytes of the packet.
    total_bytes: usize,
}

impl Unfinished {
    /// One of so many bytes, of which these are there.
    #[must_use]
    pub fn new(begin: Vec<u8>, total_bytes: usize) -> Self {
        Unfinished {
            bytes: begin.len(),
            pieces: vec![begin],
            total_bytes,
        }
    }

    /// More of it came.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        while !bytes.is_empty() {
            let room = self
                .pieces
                .last()
                .map_or(0, |piece| piece.capacity() - piece.len());
            if room == 0 {
                self.pieces.push(Vec::with_capacity(PIECE_BYTES));
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(piece) = self.pieces.last_mut() {
                piece.extend_from_slice(now);
            }
            bytes = later;
        }
    }

    /// Bytes that are there.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether none is there.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether the packet is whole.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.bytes >= self.total_bytes
    }

    /// All bytes in one buffer, `more` behind them.
    #[must_use]
    pub fn put_together(self, more: &[u8]) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.bytes + more.len());
        // Each piece goes when it is copied: both are never there as a whole.
        for piece in self.pieces {
            whole.extend_from_slice(&piece);
        }
        whole.extend_from_slice(more);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_is_what_came() {
        let all: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        for step in [1, 8_192, 100_000] {
            let mut unfinished = Unfinished::new(all[..100].to_vec(), 299_990);
            for bytes in all[100..299_989].chunks(step) {
                unfinished.push(bytes);
                assert!(!unfinished.is_whole());
            }
            for bytes in all[299_989..].chunks(step) {
                unfinished.push(bytes);
            }
            assert!(unfinished.is_whole() && unfinished.len() == all.len());
            assert!(
                unfinished
                    .pieces
                    .iter()
                    .all(|piece| piece.capacity() <= PIECE_BYTES)
            );
            let whole = unfinished.put_together(b"more");
            assert!(whole.strip_suffix(b"more") == Some(&all[..]), "{step}");
        }
    }
}
