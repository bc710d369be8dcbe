//! What shards say to each other, and in which order it must become visible.
//!
//! Per pair of shards mail is first in, first out. Beyond that two rules make subscribing exact:
//! - mail of [`Phase::Retain`] becomes visible only after all mail of [`Phase::Live`] that was staged
//!   before it, to whichever shard: who sees a retained value has its live copies before him. Questions for
//!   retained messages are among it, so that none overtakes an update of its own shard;
//! - a confirmation of interest is staged only when everything before it is visible
//!   ([`super::shard::ShardCore::mail_flushed`]).

use crate::engine::keys::{GroupKey, Origin, SessionKey, ShardId};
use crate::engine::limits::SHARED_HOPS_MAX;
use crate::engine::message::{Message, Qos};
use crate::engine::route::ShardSet;
use crate::engine::route::retained::{Answer, Cursor};
use crate::engine::route::shared::MemberCount;
use std::collections::VecDeque;
use std::sync::Arc;

/// One letter.
#[derive(Debug)]
pub enum Mail {
    /// Deliver a publish to local subscribers.
    Publish(Publish),
    /// Keep a retained message: its topic lives on the receiving shard.
    Retain {
        /// The message.
        message: Arc<Message>,
        /// Whether its sender wants to hear when it is stored; by itself.
        asked: Asked,
    },
    /// The publish in the letter before is one whose time is taken.
    Sampled {
        /// Its topic.
        topic: Arc<str>,
        /// Its QoS.
        qos: Qos,
        /// When it came, as all shards count.
        since_us: u64,
    },
    /// The sender's interest changed.
    Interest {
        /// Ascending by one per sender.
        sequence: u64,
        /// What changed.
        change: InterestChange,
    },
    /// All changes of interest up to this one are in force, and nothing routed without them is still
    /// on its way.
    InterestConfirmed {
        /// Last change of the receiver's that the sender applied.
        sequence: u64,
    },
    /// What the sender has stored of what the receiver asked for.
    Kept(Box<Kept>),
    /// Which retained messages match?
    RetainedQuery(RetainedQuery),
    /// One step of the answer.
    RetainedAnswer {
        /// Whom it is for.
        session: SessionKey,
        /// Which question it answers.
        query: u64,
        /// The messages.
        answer: Answer,
    },
}

/// A publish for another shard: one letter per shard, whatever matches there.
#[derive(Debug)]
pub struct Publish {
    /// The message.
    pub message: Arc<Message>,
    /// Whether plain subscriptions may match there.
    pub plain: bool,
    /// Share groups that picked that shard.
    pub groups: Vec<GroupKey>,
    /// Hash for the shared strategy.
    pub hash: u64,
    /// How the groups were passed on already.
    pub passed: Passed,
    /// Whether the sender waits until it is stored.
    pub asked: Asked,
}

/// Whether the sender of a letter wants to hear when all that comes of it is stored, and by which number: its
/// own receipts, ascending, less than 2^55.
///
/// As narrow as that so that it takes no room in a letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked([u8; 7]);

impl Asked {
    /// Letters with ascending numbers, which are confirmed together.
    #[must_use]
    pub const fn in_order(receipt: u64) -> Self {
        Self::of(receipt << 1)
    }

    /// A letter that may come later than one with a higher number: it is confirmed by itself.
    #[must_use]
    pub const fn by_itself(receipt: u64) -> Self {
        Self::of(receipt << 1 | 1)
    }

    /// Nothing is asked, but what comes of it counts at once: the broker's own message, which nobody sends
    /// again.
    #[must_use]
    pub const fn by_nobody() -> Self {
        Self::of(1)
    }

    /// Whether a sender that does not know of sessions that last, wherever they are, asks nothing.
    #[must_use]
    pub const fn knows_no_lasting(self) -> bool {
        self.bits() == 0
    }

    const fn of(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, _] = bits.to_le_bytes();
        Asked([a, b, c, d, e, f, g])
    }

    const fn bits(self) -> u64 {
        let [a, b, c, d, e, f, g] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, 0])
    }

    /// The number, 0 if nothing is asked.
    #[must_use]
    pub const fn receipt(self) -> u64 {
        self.bits() >> 1
    }

    /// The publish of which something is to be kept, by the letter of the shard that it came in by. Who
    /// passes one on asks by itself: that counts at once.
    #[must_use]
    pub fn origin(self, from: ShardId) -> Option<Origin> {
        Origin::new(from, self.receipt()).filter(|_| !self.is_by_itself())
    }

    /// Whether it is confirmed by itself.
    #[must_use]
    pub const fn is_by_itself(self) -> bool {
        self.bits() & 1 == 1
    }
}

/// What a shard has stored of what another one asked for: receipts of the receiver's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of those that are confirmed together all up to this one ...
    pub through: u64,
    /// ... but these, which are told of by themselves later ...
    pub without: Vec<u64>,
    /// ... and all up to this one, but for these, are with the operating system.
    pub written: u64,
    /// Told of by themselves.
    pub single: Vec<u64>,
    /// QoS 2 publishes of the sender's that are complete; the receiver was asked to keep something of them.
    pub complete: Vec<u64>,
}

impl Kept {
    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let is_nothing = self.through == 0 && self.written == 0 && self.without.is_empty();
        is_nothing && self.single.is_empty() && self.complete.is_empty()
    }
}

/// How a message of share groups was passed on from shards where nobody connected may get it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// How often to a shard that had been tried, since members had come or gone meanwhile.
    pub hops: u8,
    /// Those shards.
    pub tried: ShardSet,
    /// Those of them where a member that is away can keep it if no other takes it.
    pub keepers: ShardSet,
}

impl Passed {
    /// Whether it may go to a shard once more that was tried; counts that.
    pub fn hop(&mut self) -> bool {
        let may_hop = self.hops < SHARED_HOPS_MAX;
        self.hops += u8::from(may_hop);
        may_hop
    }
}

/// A change in what one shard wants.
#[derive(Clone, Debug)]
pub enum InterestChange {
    /// First subscription on a filter.
    Add(Arc<str>),
    /// Last one gone.
    Remove(Arc<str>),
    /// Members of a share group.
    Group(GroupKey, MemberCount),
    /// Somebody subscribes there, or is a member of a group, whose session outlives its connection; or nobody
    /// any more. The first comes after the filter itself, the last before that is gone.
    Lasts(Arc<str>, bool),
    /// Only a confirmation is asked for.
    Nothing,
}

impl InterestChange {
    /// The filter it is about, if it is about one.
    #[must_use]
    pub fn filter(&self) -> Option<&str> {
        match self {
            InterestChange::Add(filter)
            | InterestChange::Remove(filter)
            | InterestChange::Lasts(filter, _) => Some(filter),
            InterestChange::Group(key, _) => Some(&key.filter),
            InterestChange::Nothing => None,
        }
    }
}

/// A question for retained messages.
#[derive(Debug)]
pub struct RetainedQuery {
    /// Whom the answer is for.
    pub session: SessionKey,
    /// Ascending per asking shard.
    pub query: u64,
    /// The filter.
    pub filter: Arc<str>,
    /// Where to go on.
    pub after: Option<Cursor>,
}

/// When mail becomes visible; see the module's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// At once.
    Live,
    /// After everything in `Live`; in order among itself per receiver.
    Retain,
}

/// Letters of a phase for one shard beyond which it counts as full.
const STAGED_LETTERS_MAX: usize = 4_096;

/// Mail that waits to be put into the mailboxes.
#[derive(Debug)]
pub struct Staged {
    phases: [Vec<VecDeque<Mail>>; 2],
    count: usize,
    /// Letters of [`Phase::Retain`] so far, and how many of them are visible with all before them.
    retained: u64,
    retained_visible: u64,
    /// Shards for which letters had to stay at the last flush, or too many have been staged since.
    blocked: ShardSet,
    /// Those among them for which letters were staged since they were last asked for.
    full: ShardSet,
}

impl Staged {
    /// Nothing staged, for `shards` shards.
    #[must_use]
    pub fn new(shards: ShardId) -> Self {
        let empty = || (0..shards).map(|_| VecDeque::new()).collect();
        Staged {
            phases: [empty(), empty()],
            count: 0,
            retained: 0,
            retained_visible: 0,
            blocked: ShardSet::default(),
            full: ShardSet::default(),
        }
    }

    /// Stages a letter.
    pub fn push(&mut self, phase: Phase, to: ShardId, mail: Mail) {
        if let Some(queue) = self.phases[phase as usize].get_mut(usize::from(to)) {
            queue.push_back(mail);
            self.count += 1;
            self.retained += u64::from(phase == Phase::Retain);
            if queue.len() > STAGED_LETTERS_MAX {
                self.blocked.insert(to);
            }
            if self.blocked.contains(to) {
                self.full.insert(to);
            }
        }
    }

    /// The number of the last letter of [`Phase::Retain`].
    #[must_use]
    pub const fn last_retained(&self) -> u64 {
        self.retained
    }

    /// The last one that is visible with each before it.
    #[must_use]
    pub const fn visible(&self) -> u64 {
        self.retained_visible
    }

    /// Shards that have no room for letters that are staged.
    #[must_use]
    pub const fn blocked(&self) -> ShardSet {
        self.blocked
    }

    /// Of these, those for which letters were staged since the last call: whoever caused them should cause no
    /// more for now.
    pub fn take_full(&mut self) -> ShardSet {
        std::mem::take(&mut self.full)
    }

    /// Letters that wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Hands letters to `deliver` in the order the phases demand, until it gives one back for lack of
    /// room. Returns how many went. Shards that have no room do not hold up others of the same phase.
    pub fn flush(&mut self, mut deliver: impl FnMut(ShardId, Mail) -> Result<(), Mail>) -> usize {
        let before = self.count;
        self.blocked = ShardSet::default();
        if before == 0 {
            return 0;
        }
        for phase in &mut self.phases {
            // A phase begins only when the one before is through.
            let waits = !self.blocked.is_empty();
            for (to, queue) in (0..).zip(phase) {
                while let Some(mail) = queue.pop_front() {
                    let outcome = if waits { Err(mail) } else { deliver(to, mail) };
                    if let Err(mail) = outcome {
                        queue.push_front(mail);
                        self.blocked.insert(to);
                        break;
                    }
                    self.count -= 1;
                }
            }
        }
        if self.phases[Phase::Retain as usize]
            .iter()
            .all(VecDeque::is_empty)
        {
            self.retained_visible = self.retained;
        }
        before - self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retained_mail_waits_for_all_live_mail() {
        let message = || Arc::new(Message::new("t", b"", b"x", Qos::AtMostOnce, true, None));
        let live = || {
            Mail::Publish(Publish {
                message: message(),
                plain: true,
                groups: Vec::new(),
                hash: 0,
                passed: Passed::default(),
                asked: Asked::default(),
            })
        };
        let mut staged = Staged::new(3);
        let retain = |message| Mail::Retain {
            message,
            asked: Asked::default(),
        };
        staged.push(Phase::Retain, 0, retain(message()));
        staged.push(Phase::Live, 1, live());
        staged.push(Phase::Live, 2, live());
        let mut seen = Vec::new();
        // Shard 1 has no room: shard 2 gets its mail, the retained message stays.
        staged.flush(|to, mail| {
            if to == 1 {
                return Err(mail);
            }
            seen.push(to);
            Ok(())
        });
        assert_eq!((&*seen, staged.len()), (&[2][..], 2));
        staged.flush(|to, _| {
            seen.push(to);
            Ok(())
        });
        assert_eq!((&*seen, staged.is_empty()), (&[2, 1, 0][..], true));
    }
}
