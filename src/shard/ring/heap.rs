//! The process's heap: what is in use of it, counted where it is taken and given back.
//!
//! No ledger kept beside the tables can say that as well: whatever a client makes the broker hold, in a
//! table, a buffer, a TLS session, is in the sum from the moment it is there. Each thread counts for itself;
//! the sum over all threads is exact up to what changes while it is read.
//!
//! Invariant: a thread that has a counter of its own is the only one that writes it.
//!
//! Not here: what the allocator takes beyond what it was asked for, and memory of the kernel.
#![expect(unsafe_code, reason = "the allocator's interface is unsafe")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use mimalloc::MiMalloc;

/// Threads that have a counter of their own; all others share one more.
const OWN_COUNTERS: usize = 255;

/// One thread's count, on cache lines of its own.
#[repr(align(128))]
struct Counter(AtomicI64);

static COUNTERS: [Counter; OWN_COUNTERS + 1] =
    [const { Counter(AtomicI64::new(0)) }; OWN_COUNTERS + 1];
/// Counters that were handed out.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// This thread has no counter so far.
const NONE: usize = usize::MAX;

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(NONE) };
}

/// The program's allocator: mimalloc, counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

// SAFETY: every call goes to mimalloc as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { MiMalloc.realloc(memory, layout, size) }
    }
}

#[inline]
fn count(bytes: i64) {
    let mine = MINE.get();
    match COUNTERS.get(mine) {
        Some(Counter(counter)) if mine < OWN_COUNTERS => {
            // Nobody else writes it: no need for one indivisible step.
            let known = counter.load(Ordering::Relaxed);
            counter.store(known.wrapping_add(bytes), Ordering::Relaxed);
        }
        _ => count_elsewhere(bytes),
    }
}

/// The allocator's option `purge_delay`, which its crate does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// An hour.
const PURGE_DELAY_MS: std::ffi::c_long = 3_600_000;

/// Counts for a thread without a counter, which gets one if there is one left.
#[cold]
fn count_elsewhere(bytes: i64) {
    if MINE.get() == NONE {
        MINE.set(TAKEN.fetch_add(1, Ordering::Relaxed).min(OWN_COUNTERS));
    }
    if let Some(Counter(counter)) = COUNTERS.get(MINE.get()) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Bytes in use by all threads together.
#[must_use]
pub fn in_use_bytes() -> u64 {
    let taken = TAKEN.load(Ordering::Relaxed).min(OWN_COUNTERS);
    let own = COUNTERS.iter().take(taken);
    let all = own.chain(COUNTERS.last());
    let sum: i64 = all.map(|counter| counter.0.load(Ordering::Relaxed)).sum();
    u64::try_from(sum).unwrap_or(0)
}

/// From now on the kernel backs the process with small pages only, as far as it can be told so. A huge one is
/// cleared as a whole when it is first touched, which took up to 5 ms of a turn, and is in memory as a whole.
pub fn use_small_pages() {
    // A kernel that cannot has no such pages, or lends them anyway.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// From now on free memory is given back by [`give_back`] alone, as good as. Else the allocator does so in
/// the midst of some release, all at once that has gathered: 10 to 60 ms of a turn after hundreds of
/// megabytes.
pub fn give_back_only_when_asked() {
    // SAFETY: it has no preconditions, and unknown options are ignored.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
}

/// Has this thread leave to all what is free of its own, also if others have freed it. The kernel gets it by
/// [`give_back`].
pub fn leave() {
    // SAFETY: it has no preconditions.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// Has the allocator give back to the kernel what is free of this thread and what threads have left to all.
/// Takes 10 ms for every 100 MB or so, in which other threads go on: not for a shard.
pub fn give_back() {
    // SAFETY: it has no preconditions.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the program's allocator would be called.
    fn allocated(bytes: usize) -> (*mut u8, Layout) {
        let layout = Layout::from_size_align(bytes, 8).unwrap();
        // SAFETY: the size is not zero.
        (unsafe { Heap.alloc(layout) }, layout)
    }

    fn free((memory, layout): (*mut u8, Layout)) {
        // SAFETY: it comes from `allocated`.
        unsafe { Heap.dealloc(memory, layout) }
    }

    /// One test: only one thing at a time may use this allocator; that of the test program is another.
    #[test]
    fn what_any_thread_takes_counts_until_any_gives_it_back() {
        let before = in_use_bytes();
        let (memory, layout) = allocated(1_000_000);
        // SAFETY: it comes from `allocated`.
        let grown = unsafe { Heap.realloc(memory, layout, 3_000_000) };
        let layout = Layout::from_size_align(3_000_000, 8).unwrap();
        assert_eq!(in_use_bytes(), before + 3_000_000);
        let place = grown as usize;
        let thread = std::thread::spawn(move || free((place as *mut u8, layout)));
        thread.join().unwrap();
        assert_eq!(in_use_bytes(), before);
        give_back();
        // More threads than counters: what is left is shared.
        for _ in 0..OWN_COUNTERS + 1 {
            let mine = std::thread::spawn(|| {
                free(allocated(100));
                MINE.get()
            });
            assert!(mine.join().unwrap() <= OWN_COUNTERS);
        }
        let (place, mine) = std::thread::spawn(|| (allocated(100).0 as usize, MINE.get()))
            .join()
            .unwrap();
        assert_eq!((mine, in_use_bytes()), (OWN_COUNTERS, before + 100));
        free((place as *mut u8, Layout::from_size_align(100, 8).unwrap()));
        assert_eq!(in_use_bytes(), before);
    }
}
