//! Handles of sockets and listeners, and how an operation names its owner to the kernel.
//!
//! A handle is (slot, generation). A slot is reused only after every operation on it has completed,
//! and its generation has moved on by then: neither a stale handle nor a late completion can reach
//! the next owner of the slot.

/// Names one socket of one ring, from `adopt` until `closed` or `released`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketKey {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Names one listener of one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerKey {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Names another ring that this ring can wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey(pub(super) u32);

impl SocketKey {
    /// The slot: dense and reused, so it can index a table beside the ring's own.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    /// A name for tests of whoever keeps names.
    #[cfg(test)]
    pub(in crate::shard) const fn for_test(slot: u32) -> Self {
        SocketKey {
            slot,
            generation: 0,
        }
    }

    /// How often the slot was used before; tells its users apart.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// What an operation is; the top byte of its user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Accept = 1,
    AcceptCancel,
    AcceptBackoff,
    /// Accepts without a descriptor, to close at once.
    Refuse,
    RefuseClose,
    Receive,
    ReceiveCancel,
    /// A receive that does not wait for bytes.
    ReceiveNow,
    Send,
    SendCancel,
    /// The read armed on this ring's eventfd.
    WakeRead,
    /// A message that another ring posted here.
    WakeArrived,
    /// Our message to another ring; completes visibly only when it failed.
    WakeSent,
}

impl Operation {
    const ALL: [Operation; 13] = [
        Operation::Accept,
        Operation::AcceptCancel,
        Operation::AcceptBackoff,
        Operation::Refuse,
        Operation::RefuseClose,
        Operation::Receive,
        Operation::ReceiveCancel,
        Operation::ReceiveNow,
        Operation::Send,
        Operation::SendCancel,
        Operation::WakeRead,
        Operation::WakeArrived,
        Operation::WakeSent,
    ];
}

/// Slots that fit into a [`Token`] beside the operation and the generation.
pub(super) const SLOTS_MAX: u32 = 1 << 24;

/// User data of a submission: operation (8 bits), slot (24), generation (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub operation: Operation,
    pub slot: u32,
    pub generation: u32,
}

impl Token {
    pub const fn new(operation: Operation, slot: u32, generation: u32) -> Self {
        debug_assert!(slot < SLOTS_MAX);
        Token {
            operation,
            slot,
            generation,
        }
    }

    pub const fn pack(self) -> u64 {
        (self.operation as u64) << 56 | (self.slot as u64) << 32 | self.generation as u64
    }

    /// The socket that an operation of one names.
    pub const fn socket(self) -> SocketKey {
        SocketKey {
            slot: self.slot,
            generation: self.generation,
        }
    }

    /// The listener that an operation of one names.
    pub const fn listener(self) -> ListenerKey {
        ListenerKey {
            slot: self.slot,
            generation: self.generation,
        }
    }

    /// `None` for user data that this driver never wrote.
    pub fn unpack(bits: u64) -> Option<Self> {
        let operation = (bits >> 56) as usize;
        Some(Token {
            operation: *Operation::ALL.get(operation.checked_sub(1)?)?,
            slot: (bits >> 32) as u32 & (SLOTS_MAX - 1),
            generation: bits as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_survives_packing() {
        for operation in Operation::ALL {
            for (slot, generation) in [(0, 0), (SLOTS_MAX - 1, u32::MAX), (7, 1 << 31)] {
                let token = Token::new(operation, slot, generation);
                assert_eq!(Token::unpack(token.pack()), Some(token));
            }
        }
        assert_eq!(Token::unpack(0), None);
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
