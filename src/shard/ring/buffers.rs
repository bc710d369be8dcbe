//! The provided receive buffers: one block of memory that the kernel fills and the owner gives back.
//!
//! Invariant: a buffer is either in the ring (the kernel's) or between a completion that names it
//! and `give_back` (ours). The memory is freed only by [`BufferRing::free`], which the ring calls
//! when nothing is in flight; dropping a `BufferRing` leaks it.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use super::queue::Queue;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;

const PAGE_BYTES: usize = 4096;

pub(super) struct BufferRing {
    entries: *mut BufRingEntry,
    entries_layout: Layout,
    buffers: *mut u8,
    buffers_layout: Layout,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
}

impl BufferRing {
    /// Allocates the buffers and registers them with `queue`. `count` is a power of two.
    pub fn new(queue: &Queue, count: u16, buffer_bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && buffer_bytes > 0);
        let layout = |bytes| {
            Layout::from_size_align(bytes, PAGE_BYTES)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        };
        let entries_layout = layout(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers_layout = layout(usize::from(count) * buffer_bytes as usize)?;
        // SAFETY: both sizes are positive (asserted above).
        let (entries, buffers) =
            unsafe { (alloc_zeroed(entries_layout), alloc_zeroed(buffers_layout)) };
        if entries.is_null() || buffers.is_null() {
            handle_alloc_error(buffers_layout);
        }
        let mut ring = BufferRing {
            entries: entries.cast(),
            entries_layout,
            buffers,
            buffers_layout,
            count,
            buffer_bytes,
            tail: 0,
        };
        // SAFETY: the block holds `count` entries, is page aligned, and is freed only by `free`.
        let registered = unsafe { queue.register_buffers(ring.entries as u64, count, GROUP) };
        if let Err(error) = registered {
            ring.free();
            return Err(error);
        }
        for id in 0..count {
            ring.put(id);
        }
        ring.publish();
        Ok(ring)
    }

    /// The first `bytes` bytes of a buffer that a completion named, `None` for an unknown one.
    pub fn filled(&self, id: u16, bytes: usize) -> Option<&[u8]> {
        if id >= self.count || bytes > self.buffer_bytes as usize {
            return None;
        }
        let offset = usize::from(id) * self.buffer_bytes as usize;
        // SAFETY: the range lies in the block (checked above), was zeroed at first, and the kernel
        // does not write to it until `give_back`, which needs `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(self.buffers.add(offset), bytes) })
    }

    /// Returns a buffer to the kernel.
    pub fn give_back(&mut self, id: u16) {
        if id < self.count {
            self.put(id);
            self.publish();
        }
    }

    fn put(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        let offset = usize::from(id) * self.buffer_bytes as usize;
        // SAFETY: `index < count`. The kernel reads entries only below the published tail, and at
        // most `count` buffers exist, so this entry is ours. The setters leave `resv` alone, which
        // in entry 0 is the tail.
        unsafe {
            let entry = &mut *self.entries.add(index);
            entry.set_addr(self.buffers.add(offset) as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: `entries` is the start of the registered block; its tail is two aligned bytes that
        // only this thread writes. Release: the entries are seen before the tail.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast_mut().cast::<u16>();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Frees the memory. Only when no operation is in flight that may still pick a buffer.
    pub fn free(self) {
        // SAFETY: allocated in `new` with these layouts; `self` is gone afterwards.
        unsafe {
            dealloc(self.entries.cast(), self.entries_layout);
            dealloc(self.buffers, self.buffers_layout);
        }
    }
}
