//! Mailboxes between shards: one bounded lock-free queue per ordered pair.
//!
//! A full mailbox holds mail back at its sender, which then stops reading its clients: pressure goes
//! back to the publishers, and nothing is dropped here.

use crate::engine::keys::ShardId;
use crate::engine::turn;
use crate::shard::handover::Handover;
use rtrb::{Consumer, Producer, RingBuffer};

/// Letters one mailbox holds. Large enough that a turn's worth of publishes fits.
pub const MAILBOX_LETTERS_MAX: usize = 4096;

/// What goes through a mailbox.
pub type Letter = turn::Letter<Handover>;

/// A shard's ends of all its mailboxes; the places of the shard itself are empty.
pub struct Mailboxes {
    /// To the others, by their number.
    pub outgoing: Vec<Option<Producer<Letter>>>,
    /// From the others.
    pub incoming: Vec<Option<Consumer<Letter>>>,
}

impl Mailboxes {
    /// The mailboxes of `shards` shards.
    #[must_use]
    pub fn connect(shards: ShardId) -> Vec<Mailboxes> {
        let count = usize::from(shards);
        let none = || Mailboxes {
            outgoing: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
        };
        let mut all: Vec<_> = (0..count).map(|_| none()).collect();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let (producer, consumer) = RingBuffer::new(MAILBOX_LETTERS_MAX);
                all[from].outgoing[to] = Some(producer);
                all[to].incoming[from] = Some(consumer);
            }
        }
        all
    }

    /// Whether a letter is visible now.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.incoming
            .iter()
            .flatten()
            .any(|consumer| !consumer.is_empty())
    }
}
