//! Buffers to use again, so that a delivery allocates nothing in steady state.

use super::outgoing::{More, Outgoing, Stretch};
use crate::engine::limits::{SPARE_BUFFERS_MAX, SPARE_BYTES_MAX, STRETCH_BYTES};

/// Buffers that are not in use.
#[derive(Debug)]
pub struct SpareBuffers {
    spare: Vec<Stretch>,
    /// What they hold, and may.
    bytes: usize,
    bytes_max: usize,
}

impl Default for SpareBuffers {
    fn default() -> Self {
        SpareBuffers {
            spare: Vec::new(),
            bytes: 0,
            bytes_max: SPARE_BYTES_MAX,
        }
    }
}

impl SpareBuffers {
    /// An empty stretch.
    pub fn take(&mut self) -> Stretch {
        let stretch = self.spare.pop().unwrap_or_default();
        self.bytes -= stretch.copied.capacity();
        stretch
    }

    /// Takes a batch back.
    #[inline(always)]
    pub fn give(&mut self, batch: Outgoing) {
        let Outgoing { last, more } = batch;
        if let Some(more) = more {
            self.give_earlier(*more);
        }
        self.give_stretch(last);
    }

    #[cold]
    fn give_earlier(&mut self, more: More) {
        for full in more.earlier {
            self.give_stretch(full.stretch);
        }
    }

    #[inline(always)]
    fn give_stretch(&mut self, mut stretch: Stretch) {
        let bytes = stretch.copied.capacity();
        let fits = (1..=STRETCH_BYTES).contains(&bytes);
        let has_room = self.spare.len() < SPARE_BUFFERS_MAX && self.bytes + bytes <= self.bytes_max;
        if fits && has_room {
            stretch.clear();
            self.bytes += bytes;
            self.spare.push(stretch);
        }
    }

    /// Keeps at most so many bytes from now on.
    pub fn keep(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        while self.bytes > bytes_max {
            self.take();
        }
    }
}
