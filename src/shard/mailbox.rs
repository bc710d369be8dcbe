//! Mailboxes between shards: one bounded lock-free queue per ordered pair.
//!
//! A full mailbox holds mail back at its sender, which then stops reading whoever publishes to that shard:
//! pressure goes back to the publishers, and nothing is dropped here. The receiver wakes a sender that found
//! it full ([`crate::shard::sleeper`]).

use crate::engine::keys::ShardId;
use crate::engine::turn;
use crate::shard::handover::Handover;
use crate::shard::sleeper::RoomWanted;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;

/// What goes through a mailbox.
pub type Letter = turn::Letter<Handover>;

/// The sender's end of a mailbox.
pub struct OutgoingMail {
    producer: Producer<Letter>,
    room: Arc<RoomWanted>,
    has_asked: bool,
    /// Times that it was found full.
    full: u64,
}

impl OutgoingMail {
    /// Puts a letter in; where it is full, the receiver is asked to say when there is room.
    ///
    /// # Errors
    /// Gives the letter back.
    pub fn post(&mut self, letter: Letter) -> Result<(), Letter> {
        match self.producer.push(letter) {
            Ok(()) => {
                if std::mem::take(&mut self.has_asked) {
                    self.room.withdraw();
                }
                Ok(())
            }
            Err(rtrb::PushError::Full(letter)) => {
                self.full += 1;
                self.has_asked = true;
                self.room.ask();
                Err(letter)
            }
        }
    }

    /// Whether a letter would find room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.producer.is_full()
    }

    /// Times that it was found full.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.full
    }
}

/// The receiver's end of a mailbox.
pub struct IncomingMail {
    consumer: Consumer<Letter>,
    room: Arc<RoomWanted>,
}

impl IncomingMail {
    /// Letters that are visible now.
    #[must_use]
    pub fn visible(&self) -> usize {
        self.consumer.slots()
    }

    /// Takes the next letter.
    pub fn collect(&mut self) -> Option<Letter> {
        self.consumer.pop().ok()
    }

    /// Something was taken out: whether the sender waits for that.
    #[must_use]
    pub fn is_room_wanted(&self) -> bool {
        self.room.is_asked()
    }
}

/// A shard's ends of all its mailboxes; the places of the shard itself are empty.
pub struct Mailboxes {
    /// To the others, by their number.
    pub outgoing: Vec<Option<OutgoingMail>>,
    /// From the others.
    pub incoming: Vec<Option<IncomingMail>>,
}

impl Mailboxes {
    /// The mailboxes of `shards` shards, each for so many letters.
    #[must_use]
    pub fn connect(shards: ShardId, letters_max: usize) -> Vec<Mailboxes> {
        let count = usize::from(shards);
        let none = || Mailboxes {
            outgoing: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
        };
        let mut all: Vec<_> = (0..count).map(|_| none()).collect();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let (outgoing, incoming) = mailbox(letters_max);
                all[from].outgoing[to] = Some(outgoing);
                all[to].incoming[from] = Some(incoming);
            }
        }
        all
    }
}

fn mailbox(letters_max: usize) -> (OutgoingMail, IncomingMail) {
    let (producer, consumer) = RingBuffer::new(letters_max.max(1));
    let room = Arc::new(RoomWanted::default());
    let outgoing = OutgoingMail {
        producer,
        room: Arc::clone(&room),
        has_asked: false,
        full: 0,
    };
    (outgoing, IncomingMail { consumer, room })
}
