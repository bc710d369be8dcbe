//! What there is, by the records of a store: played back in order, they make the image of what was to be
//! kept.
//!
//! Invariant: a record that no history of the engine could have put is refused by name.
//!
//! Not here: how records are written and read ([`super::log`]).

use super::complete::Complete;
use crate::engine::keys::{Origin, SessionNumber};
use crate::engine::message::Message;
use crate::engine::record::{Opened, Record, Step, Subscription};
use crate::engine::session::Delivery;
use crate::engine::time::Timestamp;
use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Filter and share name.
type SubscriptionName = (Box<str>, Option<Arc<str>>);

/// What there is.
#[derive(Debug, Default)]
pub struct Image {
    /// The sessions that outlive their connections.
    pub sessions: BTreeMap<SessionNumber, Session>,
    /// By topic.
    pub retained: BTreeMap<Box<str>, Arc<Message>>,
    /// Its QoS 2 publishes of which all is kept that is to be.
    pub complete: Complete,
    /// Set when that is decided.
    pub(super) last_number: u64,
    /// What came before a checkpoint is not known, and it is not through.
    is_partial: bool,
    /// What comes is told anew.
    is_restated: bool,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// As its last connection found it, but with the expiry and the will that it has now.
    pub opened: Opened,
    /// Since when it is alone; `None` while it has a connection.
    pub left_at: Option<Timestamp>,
    /// What it subscribed to.
    pub subscriptions: BTreeMap<SubscriptionName, Subscription>,
    /// What is on its way to it.
    pub entries: BTreeMap<u64, Entry>,
    /// QoS 2 publishes of its client that are not released.
    pub accepted: BTreeSet<u16>,
    /// Entries that were sent, ever.
    sent: u64,
}

/// A message on its way to a session.
#[derive(Debug)]
pub struct Entry {
    /// The message, until its client has it.
    pub delivery: Option<Delivery>,
    /// If it was sent: its place among all that were, and its packet identifier.
    pub sent: Option<(u64, u16)>,
    /// The publish that has to be complete for it to count.
    pub origin: Option<Origin>,
}

/// Why records cannot be the history of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// A session is named that is not there.
    NoSession,
    /// An entry is named that is not there.
    NoEntry,
    /// Something is there already.
    Twice,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ImageError::NoSession => "a record names a session that does not exist",
            ImageError::NoEntry => "a record names a message that is not on its way to its session",
            ImageError::Twice => "a record says again what was said before",
        })
    }
}

impl std::error::Error for ImageError {}

impl Image {
    /// What there is, by a history that begins with a checkpoint and has that whole.
    #[must_use]
    pub fn from_checkpoint() -> Self {
        Image {
            is_partial: true,
            ..Image::default()
        }
    }

    /// Whether the checkpoint with which the history begins has not come to its end.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Something that was told is missing here: what is told anew may be that.
    pub fn lose(&mut self) {
        (self.is_partial, self.is_restated) = (true, false);
    }

    /// One more record.
    ///
    /// # Errors
    /// It does not follow from those before it.
    pub fn apply(&mut self, record: Record) -> Result<(), ImageError> {
        if let Record::Checkpoint(step) = record {
            match step {
                Step::Begins => {}
                Step::Restates => self.is_restated = true,
                Step::Changes => self.is_restated = false,
                Step::Ends => (self.is_partial, self.is_restated) = (false, false),
            }
            return Ok(());
        }
        match (self.is_partial, self.is_restated) {
            // It is known.
            (false, true) => Ok(()),
            (false, false) => self.change(record),
            // What is not told yet will be told as it is then.
            (true, _) => self.change(record).or(Ok(())),
        }
    }

    fn change(&mut self, record: Record) -> Result<(), ImageError> {
        match record {
            Record::Opened(opened) => self.open(*opened),
            Record::Retained { message } => self.retain(message),
            Record::RetainedGone { topic } => {
                self.retained.remove(&topic);
            }
            Record::Ended { session } => {
                let ended = self.sessions.remove(&session);
                ended.ok_or(ImageError::NoSession)?;
            }
            Record::Queued {
                session,
                delivery,
                origin,
            } => self.queue(session, delivery, origin)?,
            Record::Settled { session, entry } => {
                let settled = self.session(session)?.entries.remove(&entry);
                settled.ok_or(ImageError::NoEntry)?;
            }
            Record::Sent {
                session,
                entry,
                packet_id,
            } => self.session(session)?.send(entry, packet_id)?,
            Record::Unsent { session, entry } => {
                let sent = self.session(session)?.entries.get_mut(&entry);
                sent.ok_or(ImageError::NoEntry)?.sent = None;
            }
            Record::Received {
                session,
                entry,
                packet_id,
            } => {
                let is_restated = self.is_restated;
                let session = self.session(session)?;
                session.receive(entry, packet_id, is_restated);
            }
            Record::Subscribed(subscription) => {
                let name = (subscription.filter.clone(), subscription.share.clone());
                let session = self.session(subscription.session)?;
                session.subscriptions.insert(name, *subscription);
            }
            Record::Unsubscribed {
                session,
                filter,
                share,
            } => {
                self.session(session)?
                    .subscriptions
                    .remove(&(filter, share));
            }
            Record::Expires { session, seconds } => {
                self.session(session)?.opened.expiry_seconds = seconds;
            }
            Record::Left { session, at } => self.session(session)?.left_at = Some(at),
            Record::WillGone { session } => self.session(session)?.opened.will = None,
            Record::Accepted {
                session,
                packet_id,
                number,
            } => self.accept(session, packet_id, number)?,
            Record::Complete { after, through } => self.complete.add(after, through),
            Record::Released { session, packet_id } => {
                self.session(session)?.accepted.remove(&packet_id);
            }
            Record::Checkpoint(_) => {}
        }
        Ok(())
    }

    /// The records that lead to it, in the order of a snapshot's: what a shard is built anew from.
    pub fn into_records(self) -> impl Iterator<Item = Record> {
        let retained = self.retained.into_values();
        let retained = retained.map(|message| Record::Retained { message });
        let complete: Vec<_> = self.complete.ranges().collect();
        let complete = complete.into_iter();
        let complete = complete.map(|(after, through)| Record::Complete { after, through });
        let sessions = self.sessions.into_values();
        let sessions = sessions.flat_map(Session::into_records);
        complete.chain(sessions).chain(retained)
    }

    fn session(&mut self, number: SessionNumber) -> Result<&mut Session, ImageError> {
        self.sessions.get_mut(&number).ok_or(ImageError::NoSession)
    }

    fn queue(
        &mut self,
        session: SessionNumber,
        delivery: Delivery,
        origin: Option<Origin>,
    ) -> Result<(), ImageError> {
        let is_partial = self.is_partial;
        let session = self.session(session)?;
        session.queue(delivery, origin, is_partial)
    }

    fn accept(
        &mut self,
        session: SessionNumber,
        packet_id: u16,
        number: u64,
    ) -> Result<(), ImageError> {
        // Also if its session is not told yet.
        self.complete.add(number.saturating_sub(1), number);
        self.session(session)?.accepted.insert(packet_id);
        Ok(())
    }

    fn open(&mut self, opened: Opened) {
        match self.sessions.entry(opened.session) {
            Place::Occupied(mut known) => {
                let known = known.get_mut();
                known.opened = opened;
                known.left_at = None;
            }
            Place::Vacant(place) => {
                place.insert(Session {
                    opened,
                    left_at: None,
                    subscriptions: BTreeMap::new(),
                    entries: BTreeMap::new(),
                    accepted: BTreeSet::new(),
                    sent: 0,
                });
            }
        }
    }

    fn retain(&mut self, message: Arc<Message>) {
        if message.payload().is_empty() {
            self.retained.remove(message.topic());
        } else {
            self.retained.insert(message.topic().into(), message);
        }
    }
}

impl Session {
    /// It is called otherwise from now on.
    pub fn renumber(&mut self, number: SessionNumber) {
        self.opened.session = number;
        for subscription in self.subscriptions.values_mut() {
            subscription.session = number;
        }
    }

    /// What the same session had later.
    pub fn take_over(&mut self, later: Session) {
        self.subscriptions.extend(later.subscriptions);
        self.accepted.extend(later.accepted);
        for (number, mut entry) in later.entries {
            entry.sent = entry.sent.map(|(order, id)| (order + self.sent, id));
            self.entries.insert(number, entry);
        }
        self.sent += later.sent;
    }

    /// Each comes when it is asked for: lists of all would take as much memory again as what they hold.
    fn into_records(self) -> impl Iterator<Item = Record> {
        let session = self.opened.session;
        let opened = Record::Opened(Box::new(self.opened));
        let subscriptions = self.subscriptions.into_values();
        let subscriptions = subscriptions.map(|it| Record::Subscribed(Box::new(it)));
        let mut queued = self.entries;
        let is_sent = |entry: &Entry| entry.sent.is_some();
        let of_sent = queued.iter().filter(|(_, entry)| is_sent(entry));
        let of_sent: Vec<u64> = of_sent.map(|(number, _)| *number).collect();
        let take = |number| Some((number, queued.remove(&number)?));
        let mut sent: Vec<_> = of_sent.into_iter().filter_map(take).collect();
        sent.sort_by_key(|(_, entry)| entry.sent);
        let entries = sent.into_iter().chain(queued);
        let entries = entries.flat_map(move |(number, entry)| entry.records(session, number));
        let accepted = self.accepted.into_iter();
        let accepted = accepted.map(move |packet_id| Record::Accepted {
            session,
            packet_id,
            // It is among those that are complete.
            number: 0,
        });
        let left = self.left_at.map(|at| Record::Left { session, at });
        let begun = [opened].into_iter().chain(subscriptions);
        begun.chain(entries).chain(accepted).chain(left)
    }

    fn queue(
        &mut self,
        delivery: Delivery,
        origin: Option<Origin>,
        is_partial: bool,
    ) -> Result<(), ImageError> {
        match self.entries.entry(delivery.entry) {
            // Told anew where it had moved to meanwhile.
            Place::Occupied(_) if is_partial => Ok(()),
            Place::Occupied(_) => Err(ImageError::Twice),
            Place::Vacant(place) => {
                place.insert(Entry {
                    delivery: Some(delivery),
                    sent: None,
                    origin,
                });
                Ok(())
            }
        }
    }

    fn send(&mut self, entry: u64, packet_id: u16) -> Result<(), ImageError> {
        let sent = self.entries.get_mut(&entry).ok_or(ImageError::NoEntry)?;
        self.sent += 1;
        sent.sent = Some((self.sent, packet_id));
        Ok(())
    }

    fn receive(&mut self, entry: u64, packet_id: u16, is_restated: bool) {
        self.sent += 1;
        let first_sent = (self.sent, packet_id);
        let known = self.entries.remove(&entry);
        let known = known.filter(|_| !is_restated);
        let sent = known.and_then(|known| known.sent).or(Some(first_sent));
        let received = Entry {
            delivery: None,
            sent,
            origin: None,
        };
        self.entries.insert(entry, received);
    }
}

impl Entry {
    fn records(self, session: SessionNumber, entry: u64) -> impl Iterator<Item = Record> {
        let is_whole = self.delivery.is_some();
        let origin = self.origin;
        let queued = self.delivery.map(|delivery| Record::Queued {
            session,
            delivery,
            origin,
        });
        let sent = self.sent.map(|(_, packet_id)| match is_whole {
            true => Record::Sent {
                session,
                entry,
                packet_id,
            },
            false => Record::Received {
                session,
                entry,
                packet_id,
            },
        });
        queued.into_iter().chain(sent)
    }
}
