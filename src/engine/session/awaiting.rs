//! Acknowledgements to one connection that wait until what they promise is kept, in order.
//!
//! Invariant: `publishes` counts those that answer a PUBLISH.

use crate::engine::codec::PacketType;
use crate::engine::codec::ack::Ack;
use crate::engine::receipt::Receipt;
use std::collections::VecDeque;

/// The queue.
#[derive(Debug, Default)]
pub struct Awaiting {
    queue: VecDeque<(Receipt, Ack)>,
    publishes: usize,
    /// How many have been taken out.
    taken: u64,
}

fn answers_publish(ack: &Ack) -> bool {
    matches!(ack.kind, PacketType::Puback | PacketType::Pubrec)
}

impl Awaiting {
    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many publishes are not answered therefore: they count against the receive maximum.
    #[must_use]
    pub const fn publishes(&self) -> usize {
        self.publishes
    }

    /// How many have been put in so far.
    #[must_use]
    pub fn put(&self) -> u64 {
        self.taken + self.queue.len() as u64
    }

    /// How many of them have been taken out.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// One more, behind the others.
    pub fn push(&mut self, receipt: Receipt, ack: Ack) {
        self.publishes += usize::from(answers_publish(&ack));
        self.queue.push_back((receipt, ack));
    }

    /// What the next one waits for.
    #[must_use]
    pub fn next(&self) -> Option<Receipt> {
        self.queue.front().map(|(receipt, _)| *receipt)
    }

    /// Takes the next one. An empty queue gives its memory back.
    pub fn pop(&mut self) -> Option<Ack> {
        let (_, ack) = self.queue.pop_front()?;
        self.publishes -= usize::from(answers_publish(&ack));
        self.taken += 1;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(ack)
    }

    /// Memory of its own that it takes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<(Receipt, Ack)>()
    }
}
