//! A shard's ends of the mailboxes, and whom to wake for what was put in or taken out.

use crate::engine::keys::ShardId;
use crate::engine::route::ShardSet;
use crate::engine::turn::Post;
use crate::shard::handover::Handover;
use crate::shard::mailbox::{IncomingMail, Letter, Mailboxes, OutgoingMail};
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

    fn incoming(&self, from: ShardId) -> Option<&IncomingMail> {
        self.mailboxes.incoming.get(usize::from(from))?.as_ref()
    }

    fn outgoing(&self, to: ShardId) -> Option<&OutgoingMail> {
        self.mailboxes.outgoing.get(usize::from(to))?.as_ref()
    }

    /// Whether one of these shards, whose mailboxes were full, has room again.
    pub fn has_room(&self, blocked: ShardSet) -> bool {
        let mut blocked = blocked.iter();
        blocked.any(|shard| self.outgoing(shard).is_none_or(OutgoingMail::has_room))
    }

    /// Letters from a shard that are visible now.
    pub fn visible(&self, from: ShardId) -> usize {
        self.incoming(from).map_or(0, IncomingMail::visible)
    }

    /// Takes the next letter from a shard.
    pub fn collect(&mut self, from: ShardId) -> Option<Letter> {
        let mailbox = self.mailboxes.incoming.get_mut(usize::from(from))?;
        mailbox.as_mut()?.collect()
    }

    /// Wakes the sender whose letters were taken out, if it waits for room.
    pub fn made_room(&self, ring: &mut Ring, from: ShardId) {
        if self
            .incoming(from)
            .is_some_and(IncomingMail::is_room_wanted)
        {
            self.wake_one(ring, from);
        }
    }

    /// Wakes shards with the ring's next submission.
    pub fn wake(&self, ring: &mut Ring, receivers: ShardSet) {
        for shard in receivers.iter() {
            self.wake_one(ring, shard);
        }
    }

    fn wake_one(&self, ring: &mut Ring, shard: ShardId) {
        if let Some(Some(peer)) = self.peers.get(usize::from(shard)) {
            ring.wake(*peer);
        }
    }

    /// Letters from all shards that are visible now.
    pub fn all_visible(&self) -> usize {
        let incoming = self.mailboxes.incoming.iter().flatten();
        incoming.map(IncomingMail::visible).sum()
    }

    /// Times that a mailbox was found full.
    pub fn full(&self) -> u64 {
        let outgoing = self.mailboxes.outgoing.iter().flatten();
        outgoing.map(OutgoingMail::full).sum()
    }
}

impl Post for Mailroom {
    type Handover = Handover;

    fn post(&mut self, to: ShardId, letter: Letter) -> Result<(), Letter> {
        match self.mailboxes.outgoing.get_mut(usize::from(to)) {
            Some(Some(mailbox)) => mailbox.post(letter),
            // Nobody writes to itself or to a shard that is not there.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::mail::{InterestChange, Mail};

    fn letter(sequence: u64) -> Letter {
        Letter::Mail(Mail::Interest {
            sequence,
            change: InterestChange::Nothing,
        })
    }

    fn two(letters_max: usize) -> (Mailroom, Mailroom) {
        let mut ends = Mailboxes::connect(2, letters_max)
            .into_iter()
            .map(|mailboxes| Mailroom::new(mailboxes, vec![None, None]));
        (ends.next().unwrap(), ends.next().unwrap())
    }

    #[test]
    fn letters_arrive_in_order_and_one_too_many_comes_back() {
        let (mut first, mut second) = two(3);
        for sequence in 0..3 {
            first.post(1, letter(sequence)).unwrap();
        }
        assert!(first.post(1, letter(0)).is_err());
        assert_eq!(first.visible(1), 0);
        assert_eq!((second.visible(0), first.full()), (3, 1));
        for expected in 0..3 {
            match second.collect(0) {
                Some(Letter::Mail(Mail::Interest { sequence, .. })) => {
                    assert_eq!(sequence, expected);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(second.collect(0).is_none() && second.visible(1) == 0);
    }

    #[test]
    fn who_found_a_mailbox_full_is_told_when_there_is_room() {
        let (mut first, mut second) = two(1);
        let mut blocked = ShardSet::default();
        blocked.insert(1);
        let asked = |second: &Mailroom| second.incoming(0).unwrap().is_room_wanted();
        first.post(1, letter(0)).unwrap();
        assert!(!asked(&second));
        assert!(first.post(1, letter(1)).is_err() && !first.has_room(blocked));
        assert!(second.collect(0).is_some() && first.has_room(blocked));
        assert!(asked(&second));
        first.post(1, letter(1)).unwrap();
        assert!(!asked(&second));
    }
}
