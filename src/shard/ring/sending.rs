//! One send in flight: a batch of bytes, how much of it left, and the iovecs the kernel reads.
//!
//! Invariant: from submission to completion neither the batch nor the iovecs change or move; the
//! `Box` around a `Sending` and the batch's own heap memory see to that.

use crate::engine::outbox::outgoing::Outgoing;
use io_uring::{opcode, squeue, types};
use std::os::fd::RawFd;

/// Slices handed over in one call; the rest follows when they have left. Shared payloads are large,
/// so this is plenty to fill a socket's send buffer.
pub(super) const IOVECS_MAX: usize = 64;

/// The kernel retries a short send by itself (fewer round trips for a slow receiver); a short count
/// still comes back after a cancel or an error, and is continued or ended by the driver.
const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

pub(super) struct Sending {
    outgoing: Outgoing,
    sent_bytes: usize,
    total_bytes: usize,
    iovecs: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Sending {
    #[expect(unsafe_code, reason = "libc::msghdr has no other constructor")]
    pub fn new(outgoing: Outgoing) -> Self {
        Sending {
            total_bytes: outgoing.len(),
            outgoing,
            sent_bytes: 0,
            iovecs: Vec::new(),
            // SAFETY: all zeroes is a valid msghdr: no name, no iovecs, no control data.
            header: unsafe { std::mem::zeroed() },
        }
    }

    /// Puts the next batch in, keeping the iovecs' memory.
    pub fn reset(&mut self, outgoing: Outgoing) {
        self.total_bytes = outgoing.len();
        self.outgoing = outgoing;
        self.sent_bytes = 0;
    }

    /// Takes the batch out.
    pub fn take(&mut self) -> Outgoing {
        std::mem::take(&mut self.outgoing)
    }

    /// Counts `bytes` as sent; whether all are.
    pub fn advance(&mut self, bytes: usize) -> bool {
        debug_assert!(self.sent_bytes + bytes <= self.total_bytes);
        self.sent_bytes += bytes;
        self.sent_bytes >= self.total_bytes
    }

    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// The submission for what has not left yet. It names memory of `self`.
    pub fn entry(&mut self, fd: RawFd) -> squeue::Entry {
        if let Some(copied) = self.outgoing.single() {
            let rest = copied.get(self.sent_bytes..).unwrap_or_default();
            let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            return opcode::Send::new(types::Fd(fd), rest.as_ptr(), length)
                .flags(FLAGS)
                .build();
        }
        let mut skip = self.sent_bytes;
        self.iovecs.clear();
        for slice in self.outgoing.slices() {
            let rest = slice.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(slice.len());
            if rest.is_empty() {
                continue;
            }
            let base = rest.as_ptr().cast_mut().cast();
            self.iovecs.push(libc::iovec {
                iov_base: base,
                iov_len: rest.len(),
            });
            if self.iovecs.len() == IOVECS_MAX {
                break;
            }
        }
        self.header.msg_iov = self.iovecs.as_mut_ptr();
        // A number of another width with musl.
        self.header.msg_iovlen = self.iovecs.len() as _;
        opcode::SendMsg::new(types::Fd(fd), &raw const self.header)
            .flags(FLAGS as u32)
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{LocalMessage, Message, Qos};
    use crate::engine::outbox::outgoing::SharedPayload;
    use std::sync::Arc;

    fn batch(parts: usize) -> Outgoing {
        let mut batch = Outgoing::default();
        for part in 0..parts {
            let batch = &mut batch.last;
            batch.copied.extend_from_slice(b"head");
            let payload = [part as u8; 5];
            let message = Message::new("t", b"", &payload, Qos::AtMostOnce, false, None);
            batch.shared.push(SharedPayload {
                at: batch.copied.len(),
                message: LocalMessage::new(Arc::new(message)),
            });
        }
        batch
    }

    #[test]
    fn iovecs_are_bounded_and_continue_at_every_byte() {
        let mut sending = Sending::new(batch(IOVECS_MAX));
        let total = sending.total_bytes();
        for sent in 0..total {
            sending.entry(0);
            let listed: usize = sending.iovecs.iter().map(|part| part.iov_len).sum();
            assert!(sending.iovecs.len() <= IOVECS_MAX);
            assert!(listed > 0 && listed <= total - sent);
            if sending.iovecs.len() < IOVECS_MAX {
                assert_eq!(listed, total - sent);
            }
            assert_eq!(sending.advance(1), sent + 1 == total);
        }
    }
}
