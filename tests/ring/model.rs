//! The protocol of sleeping and waking, run in every order that two threads may have, up to a number of forced changes between them (loom): a wake that is
//! lost leaves both asleep, which loom reports as a deadlock.

mod atomic {
    pub use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

#[path = "../../src/shard/sleeper.rs"]
mod sleeper;

use loom::sync::atomic::AtomicUsize;
use loom::sync::{Arc, Notify};
use loom::thread;
use sleeper::{RoomWanted, Sleeper};

/// A bounded queue of which only the counts matter, with the protocol's flags.
struct Queue {
    pushed: AtomicUsize,
    popped: AtomicUsize,
    letters_max: usize,
    room: RoomWanted,
    sender: Side,
    receiver: Side,
}

/// A thread that sleeps in its ring: a wake is remembered, as a completion is.
struct Side {
    sleeper: Sleeper,
    ring: Notify,
}

impl Side {
    fn new() -> Self {
        Side {
            sleeper: Sleeper::default(),
            ring: Notify::new(),
        }
    }

    /// As the shard's loop: announce, look, sleep.
    fn sleep(&self, look: impl Fn() -> bool) {
        self.sleeper.announce();
        if !look() {
            self.ring.wait();
        }
        self.sleeper.retire();
    }

    fn wake(&self) {
        if self.sleeper.needs_wake() {
            self.ring.notify();
        }
    }
}

impl Queue {
    fn push(&self) -> bool {
        let pushed = self.pushed.load(atomic::Ordering::Relaxed);
        if pushed - self.popped.load(atomic::Ordering::Acquire) == self.letters_max {
            return false;
        }
        self.pushed.store(pushed + 1, atomic::Ordering::Release);
        true
    }

    fn has_room(&self) -> bool {
        let pushed = self.pushed.load(atomic::Ordering::Relaxed);
        pushed - self.popped.load(atomic::Ordering::Acquire) < self.letters_max
    }

    fn pop(&self) -> bool {
        let popped = self.popped.load(atomic::Ordering::Relaxed);
        if self.pushed.load(atomic::Ordering::Acquire) == popped {
            return false;
        }
        self.popped.store(popped + 1, atomic::Ordering::Release);
        true
    }
}

/// Forced changes of thread per run: more find nothing that these do not, and take minutes.
const PREEMPTIONS_MAX: usize = 3;

fn run(letters: usize, letters_max: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.check(move || {
        let queue = Arc::new(Queue {
            pushed: AtomicUsize::new(0),
            popped: AtomicUsize::new(0),
            letters_max,
            room: RoomWanted::default(),
            sender: Side::new(),
            receiver: Side::new(),
        });
        let theirs = Arc::clone(&queue);
        let receiver = thread::spawn(move || {
            let mut got = 0;
            while got < letters {
                let before = got;
                while theirs.pop() {
                    got += 1;
                }
                if got > before && theirs.room.is_asked() {
                    theirs.sender.wake();
                }
                if got == before {
                    let has_mail = || theirs.pushed.load(atomic::Ordering::Acquire) > got;
                    theirs.receiver.sleep(has_mail);
                }
            }
        });
        let (mut sent, mut has_asked) = (0, false);
        while sent < letters {
            if queue.push() {
                sent += 1;
                if std::mem::take(&mut has_asked) {
                    queue.room.withdraw();
                }
                queue.receiver.wake();
                continue;
            }
            has_asked = true;
            queue.room.ask();
            queue.sender.sleep(|| queue.has_room());
        }
        receiver.join().unwrap();
    });
}

#[test]
fn no_wake_is_lost_in_any_order() {
    run(3, 3);
}

#[test]
fn whoever_found_a_queue_full_is_woken_when_there_is_room() {
    run(3, 1);
}
