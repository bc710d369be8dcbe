//! A shard's ends of the mailboxes, and whom to wake for what was put in.

use crate::engine::keys::ShardId;
use crate::engine::route::ShardSet;
use crate::engine::turn::Post;
use crate::shard::handover::Handover;
use crate::shard::mailbox::{Letter, Mailboxes};
use crate::shard::ring::{PeerKey, Ring};

/// Letters in and out.
pub(super) struct Mailroom {
    mailboxes: Mailboxes,
    /// The other shards' rings; the place of the shard itself is empty.
    peers: Vec<Option<PeerKey>>,
}

impl Mailroom {
    pub fn new(mailboxes: Mailboxes, peers: Vec<Option<PeerKey>>) -> Self {
        Mailroom { mailboxes, peers }
    }

    /// Whether a letter is there.
    pub fn has_mail(&self) -> bool {
        self.mailboxes.has_mail()
    }

    /// Letters from a shard that are visible now.
    pub fn visible(&self, from: ShardId) -> usize {
        match self.mailboxes.incoming.get(usize::from(from)) {
            Some(Some(consumer)) => consumer.slots(),
            _ => 0,
        }
    }

    /// Takes the next letter from a shard.
    pub fn collect(&mut self, from: ShardId) -> Option<Letter> {
        let consumer = self.mailboxes.incoming.get_mut(usize::from(from))?;
        consumer.as_mut()?.pop().ok()
    }

    /// Wakes shards with the ring's next submission.
    pub fn wake(&self, ring: &mut Ring, receivers: ShardSet) {
        for shard in receivers.iter() {
            if let Some(Some(peer)) = self.peers.get(usize::from(shard)) {
                ring.wake(*peer);
            }
        }
    }
}

impl Post for Mailroom {
    type Handover = Handover;

    fn post(&mut self, to: ShardId, letter: Letter) -> Result<(), Letter> {
        match self.mailboxes.outgoing.get_mut(usize::from(to)) {
            Some(Some(producer)) => producer
                .push(letter)
                .map_err(|rtrb::PushError::Full(letter)| letter),
            // Nobody writes to itself or to a shard that is not there.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::mail::{InterestChange, Mail};
    use crate::shard::mailbox::MAILBOX_LETTERS_MAX;

    fn letter(sequence: u64) -> Letter {
        Letter::Mail(Mail::Interest {
            sequence,
            change: InterestChange::Nothing,
        })
    }

    #[test]
    fn letters_arrive_in_order_and_one_too_many_comes_back() {
        let mut ends = Mailboxes::connect(2)
            .into_iter()
            .map(|mailboxes| Mailroom::new(mailboxes, vec![None, None]));
        let (mut first, mut second) = (ends.next().unwrap(), ends.next().unwrap());
        for sequence in 0..MAILBOX_LETTERS_MAX as u64 {
            first.post(1, letter(sequence)).unwrap();
        }
        assert!(first.post(1, letter(0)).is_err());
        assert!(!first.has_mail() && second.has_mail());
        assert_eq!(second.visible(0), MAILBOX_LETTERS_MAX);
        for expected in 0..MAILBOX_LETTERS_MAX as u64 {
            match second.collect(0) {
                Some(Letter::Mail(Mail::Interest { sequence, .. })) => {
                    assert_eq!(sequence, expected);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(second.collect(0).is_none() && second.visible(1) == 0);
    }
}
