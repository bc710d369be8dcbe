//! Who sleeps, who wants room, and when to wake whom: flags between threads, and why no wake is lost.
//!
//! Who sleeps announces it, looks at its queues once more, and only then sleeps; who sends pushes
//! first and then wakes if the flag says asleep. Both put a sequentially consistent fence between
//! their write and their read. The fences have one order: if the sleeper's is first, the sender's
//! read of the flag sees it set and wakes; if the sender's is first, the sleeper's look sees what was
//! pushed and stays awake. So a push is never left beside a sleeper that nobody wakes.
//!
//! The other way round it is the same: who finds a queue full asks for room and may then sleep as above,
//! with a look for room; who takes something out looks whether room was asked for, and wakes.
//!
//! A flag stays set until who set it clears it: a second sender then wakes in vain, but never depends on a
//! first one that has not submitted its wake yet.
//!
//! `tests/ring/model.rs` runs this file in every order that threads may have.

use super::atomic::{AtomicBool, Ordering, fence};

/// Says whether a thread sleeps, so that others know whether to wake it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    /// Announces sleep. Look at every queue once more afterwards, and sleep only if there is nothing to do.
    pub fn announce(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends the announcement.
    pub fn retire(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether the sleeper needs a wake for what was pushed, or taken out, before this call.
    #[must_use]
    pub fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed)
    }
}

/// Says whether the sender of a full queue waits for room in it. Only the sender changes it: a receiver that
/// cleared it could clear the next wish with the last.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RoomWanted {
    wanted: AtomicBool,
}

impl RoomWanted {
    /// The sender found the queue full. The look for room before it sleeps makes this safe: the fence of
    /// [`Sleeper::announce`] stands between.
    pub fn ask(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// The sender has found room.
    pub fn withdraw(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// The receiver has taken something out: whether the sender is to be woken if it sleeps.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        fence(Ordering::SeqCst);
        self.wanted.load(Ordering::Relaxed)
    }
}
