//! Which messages may be named: the last that a shard wrote.
//!
//! Invariant: writer and reader count alike, so what the writer still names the reader still has, and
//! neither holds much of what is long over.

use crate::engine::message::Message;
use std::collections::VecDeque;

/// Most messages.
pub(super) const MESSAGES_MAX: usize = 1_024;
/// Most bytes of them; the last stays whatever its size.
pub(super) const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Numbers end here.
pub(super) const NUMBER_END: u64 = 1 << 48;

/// The last messages, numbered by one upward.
#[derive(Debug)]
pub(super) struct Window<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    /// Number of the next.
    next: u64,
}

impl<T> Window<T> {
    /// Nothing yet; the first has this number.
    pub(super) const fn new(next: u64) -> Self {
        Window {
            items: VecDeque::new(),
            bytes: 0,
            next,
        }
    }

    /// The number that the next one gets.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// One more. `dropped` gets those that may not be named any more.
    pub(super) fn push(&mut self, item: T, message: &Message, mut dropped: impl FnMut(T)) {
        let bytes = content_bytes(message);
        self.items.push_back((item, bytes));
        self.bytes += bytes;
        self.next += 1;
        while self.items.len() > 1
            && (self.items.len() > MESSAGES_MAX || self.bytes > BYTES_MAX)
            && let Some((item, bytes)) = self.items.pop_front()
        {
            self.bytes -= bytes;
            dropped(item);
        }
    }

    /// The next one gets this number: those before it are lost. `hole` stands for each of them.
    pub(super) fn skip_to(&mut self, number: u64, hole: impl Fn() -> T) {
        let lost = number.saturating_sub(self.next);
        if lost > MESSAGES_MAX as u64 {
            self.clear();
            self.next = number;
        }
        while self.next < number {
            self.items.push_back((hole(), 0));
            self.next += 1;
        }
        let beyond = self.items.len().saturating_sub(MESSAGES_MAX);
        for (_, bytes) in self.items.drain(..beyond) {
            self.bytes -= bytes;
        }
    }

    /// The one with this number.
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        let back = self.next.checked_sub(number)?;
        let at = self.items.len().checked_sub(usize::try_from(back).ok()?)?;
        self.items.get(at).map(|(item, _)| item)
    }

    /// None of them may be named any more.
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }
}

/// Not the memory that it takes: that may be another in the next version.
fn content_bytes(message: &Message) -> usize {
    message.topic().len() + message.properties().len() + message.payload().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::Qos;

    fn message(bytes: usize) -> Message {
        Message::new("t", b"", &vec![0; bytes - 1], Qos::AtLeastOnce, false, None)
    }

    #[test]
    fn the_last_are_there_and_the_newest_always() {
        let mut window = Window::new(1);
        let mut dropped = Vec::new();
        for n in 0..MESSAGES_MAX {
            window.push(n, &message(10), |n| dropped.push(n));
        }
        assert!(dropped.is_empty() && window.get(0).is_none());
        assert_eq!(window.get(1), Some(&0));
        window.push(1_024, &message(10), |n| dropped.push(n));
        assert_eq!((window.get(1), window.get(2)), (None, Some(&1)));
        assert_eq!(window.get(1_025), Some(&1_024));
        assert_eq!(window.get(1_026), None);
        window.push(1_025, &message(BYTES_MAX + 1), |n| dropped.push(n));
        assert_eq!((window.get(1_025), window.get(1_026)), (None, Some(&1_025)));
        assert!(dropped.into_iter().eq(0..=1_024));
        window.clear();
        assert_eq!((window.get(1_026), window.next()), (None, 1_027));
    }
}
