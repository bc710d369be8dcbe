//! Buffers to use again, so that a delivery allocates nothing in steady state.

use super::outgoing::{More, Outgoing, Stretch};
use crate::engine::limits::{SPARE_BUFFERS_MAX, SPARE_BYTES_MAX, STRETCH_BYTES};
use std::collections::VecDeque;

/// So many stretches of a batch go at once.
const AT_ONCE: usize = 2;

/// Buffers that are not in use.
#[derive(Debug)]
pub struct SpareBuffers {
    spare: Vec<Stretch>,
    /// What they hold, and may.
    bytes: usize,
    bytes_max: usize,
    /// What long batches had, until it is let go.
    discarded: VecDeque<Box<More>>,
}

impl Default for SpareBuffers {
    fn default() -> Self {
        SpareBuffers {
            spare: Vec::new(),
            bytes: 0,
            bytes_max: SPARE_BYTES_MAX,
            discarded: VecDeque::new(),
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
            self.give_earlier(more);
        }
        self.give_stretch(last);
    }

    /// Many stretches go little by little: to free 1,000 takes as long as 1,000 deliveries.
    #[cold]
    fn give_earlier(&mut self, mut more: Box<More>) {
        if more.earlier.len() > AT_ONCE {
            return self.discarded.push_back(more);
        }
        for full in more.earlier.drain(..) {
            self.give_stretch(full.stretch);
        }
    }

    /// Whether nothing is left that has to go.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.discarded.is_empty()
    }

    /// Lets go at most so many stretches; how many.
    pub fn let_go(&mut self, most: usize) -> usize {
        let mut count = 0;
        while count < most
            && let Some(more) = self.discarded.front_mut()
        {
            count += 1;
            match more.earlier.pop_front() {
                Some(full) => self.give_stretch(full.stretch),
                None => drop(self.discarded.pop_front()),
            }
        }
        count
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

#[cfg(test)]
mod tests {
    use super::super::outgoing::Full;
    use super::*;

    #[test]
    fn a_long_batch_goes_little_by_little() {
        let mut spare = SpareBuffers::default();
        let batch = |stretches: usize| {
            let mut batch = Outgoing::from(vec![1; 10]);
            let more = batch.more.get_or_insert_default();
            more.earlier.extend((0..stretches).map(|_| Full::default()));
            batch
        };
        spare.give(batch(AT_ONCE));
        assert!(spare.is_settled());
        spare.give(batch(1_000));
        spare.give(batch(1_000));
        let steps = (0..).take_while(|_| !spare.is_settled() && spare.let_go(100) > 0);
        assert_eq!(steps.count(), 21, "one more step for each batch itself");
        assert_eq!(spare.let_go(100), 0);
    }
}
