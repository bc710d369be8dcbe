//! Waking a ring's owner from another thread. When that is needed is [`crate::shard::sleeper`]'s.

use crate::shard::sleeper::Sleeper;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Shared {
    pub sleeper: Sleeper,
    pub event: OwnedFd,
    /// Duplicate of the ring's descriptor: valid as long as anybody may post to it.
    pub ring: OwnedFd,
}

/// Wakes the owner of one ring, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(pub(super) Arc<Shared>);

impl Waker {
    pub(super) fn new(ring: RawFd) -> io::Result<Self> {
        // Blocking on purpose: the ring's read waits for it instead of failing with EAGAIN.
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        let ring = duplicate(ring)?;
        Ok(Waker(Arc::new(Shared {
            sleeper: Sleeper::default(),
            event,
            ring,
        })))
    }

    /// Wakes the owner if it sleeps: what was pushed before this call is seen. One atomic read when
    /// it is awake, one system call when not.
    pub fn wake_if_asleep(&self) {
        if self.0.sleeper.needs_wake() {
            self.wake();
        }
    }

    /// Makes the owner's current or next `wait` return, asleep or not.
    pub fn wake(&self) {
        // It can only fail when the counter is full, and then the owner is being woken already.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }
}

#[expect(
    unsafe_code,
    reason = "the ring crate lends its descriptor as a number"
)]
fn duplicate(ring: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the caller's ring is open for the duration of this call.
    unsafe { BorrowedFd::borrow_raw(ring) }.try_clone_to_owned()
}
