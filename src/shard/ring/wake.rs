//! Waking a ring's owner from another thread, and not waking it when it is awake.
//!
//! Who sleeps announces it, looks at its queues once more, and only then sleeps; who sends pushes
//! first and then wakes if the flag says asleep. Both put a sequentially consistent fence between
//! their write and their read. The fences have one order: if the sleeper's is first, the sender's
//! read of the flag sees it set and wakes; if the sender's is first, the sleeper's look sees what was
//! pushed and stays awake. So a push is never left beside a sleeper that nobody wakes.
//!
//! The flag stays set until the sleeper itself clears it: a second sender then wakes in vain, but
//! never depends on a first one that has not submitted its wake yet.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Says whether a thread sleeps, so that others know whether to wake it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    /// Announces sleep. Look at every queue once more afterwards, and sleep only if all are empty.
    pub fn announce(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends the announcement.
    pub fn retire(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether the sleeper needs a wake for what was pushed before this call.
    #[must_use]
    pub fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed)
    }
}

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

/// What the executor polls while the ring is idle.
#[derive(Debug)]
pub(super) struct Watched(pub Arc<Shared>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.ring.as_raw_fd()
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
