//! A checkpoint: all that the store has to know of this shard is told anew, in parts over many turns, so that
//! what was told before its beginning may go.
//!
//! A part is told when the one before it is stored: clients' records never stand behind more than one.
//!
//! Invariants: a thing that exists from the beginning to the end is told once at least, as it is at that
//! moment; what becomes of it later is told as always. So a message is told wherever it has moved to: what is
//! held before the queue, the queue before the window, the window at once with the queue's end, and at last
//! what is passed on to another member. Lists are gone through so that what moves within them is not missed.
//!
//! Not here: when one is due ([`crate::storage::log::cleaning`]), and how it is read
//! ([`crate::storage::image`]).

use super::ShardCore;
use super::journal::Journal;
use super::snapshot::{put_subscription, put_unfinished};
use crate::engine::keys::{SessionKey, SessionNumber};
use crate::engine::record::{Record, Step};
use crate::engine::session::Delivery;
use std::sync::Arc;

/// Bytes that a record takes at least, so that a part has a bounded number of them.
const RECORD_BYTES_MIN: usize = 256;
/// What the record of a message on its way takes beside the message.
const ENTRY_BYTES: usize = 24;
/// What a place in the table of sessions costs, as bytes.
const LOOK_BYTES: usize = 64;
/// Things told in one step.
const TOLD_AT_ONCE: usize = 32;
/// What the look at a place, or a record, costs in eighths of a delivery.
const STEPS: usize = 4;

/// What a store has to keep of a shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// Bytes of the records that tell it.
    pub bytes: u64,
    /// Messages on their way to sessions; what settles each is still to come.
    pub entries: u64,
}

/// How far it is; at rest where none runs.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    place: Option<Place>,
    /// The last ticket of the part before.
    waits_for: u64,
}

#[derive(Debug)]
enum Place {
    /// Which QoS 2 publishes are complete.
    Complete,
    /// At this place in the table.
    Sessions(usize),
    /// Within the session there.
    Session(usize, SessionKey, Within),
    /// After this topic.
    Retained(Option<Arc<str>>),
    PassedOn,
}

#[derive(Debug)]
enum Within {
    /// So many are left, from the end to the beginning: the last one moves to where one has gone.
    Subscriptions(usize),
    /// From this place on.
    Held(u64),
    /// From this place on, when so many had left it.
    Queue(usize, u32),
}

impl Checkpoint {
    /// Whether one runs.
    pub(super) const fn is_running(&self) -> bool {
        self.place.is_some()
    }
}

impl ShardCore {
    /// Begins a checkpoint, if none runs.
    pub fn begin_checkpoint(&mut self) {
        if !self.checkpoint.is_running() {
            let journal = &mut self.clients.journal;
            journal.restate(Record::Checkpoint(Step::Begins));
            self.checkpoint.place = Some(Place::Complete);
            self.checkpoint.waits_for = 0;
        }
    }

    /// Whether its next part can be told.
    pub(super) fn may_tell_checkpoint(&self) -> bool {
        let waits_for = self.checkpoint.waits_for;
        self.checkpoint.is_running() && self.clients.journal.is_stored(waits_for)
    }

    /// Tells its next part.
    pub(super) fn tell_checkpoint(&mut self) {
        if !self.may_tell_checkpoint() {
            return;
        }
        self.restate(Record::Checkpoint(Step::Restates));
        let mut left = self.settings.checkpoint_part_bytes;
        self.do_part(|core| {
            if left == 0 {
                return None;
            }
            let place = core.checkpoint.place.take()?;
            let before = core.clients.journal.last_ticket();
            let (next, bytes) = core.checkpoint_step(place);
            left = left.saturating_sub(bytes);
            core.checkpoint.place = next;
            let records = core.clients.journal.last_ticket() - before;
            Some(STEPS * (1 + records as usize))
        });
        self.restate(Record::Checkpoint(Step::Changes));
        if !self.checkpoint.is_running() {
            self.restate(Record::Checkpoint(Step::Ends));
        }
        self.checkpoint.waits_for = self.clients.journal.last_ticket();
    }

    fn restate(&mut self, record: Record) {
        self.clients.journal.restate(record);
    }

    /// Goes a step further: where it goes on, and about how many bytes it told.
    fn checkpoint_step(&mut self, place: Place) -> (Option<Place>, usize) {
        match place {
            Place::Complete => (Some(Place::Sessions(0)), self.restate_complete()),
            Place::Sessions(slot) => self.restate_session(slot),
            Place::Session(slot, key, within) => {
                let number = self.clients.sessions.get(key).and_then(|it| it.number);
                let Some(number) = number else {
                    return (Some(Place::Sessions(slot + 1)), 0);
                };
                let (next, bytes) = match within {
                    Within::Subscriptions(left) => self.restate_subscriptions(key, number, left),
                    Within::Held(from) => self.restate_held(key, number, from),
                    Within::Queue(from, had_left) => {
                        self.restate_queue(key, number, from, had_left)
                    }
                };
                let next = next.map(|within| Place::Session(slot, key, within));
                (next.or(Some(Place::Sessions(slot + 1))), bytes)
            }
            Place::Retained(after) => self.restate_retained(after),
            Place::PassedOn => (None, self.restate_passed_on()),
        }
    }

    /// What is told of their entries later has no origin any more, or one that is open here or told later.
    fn restate_complete(&mut self) -> usize {
        let mut records = Vec::new();
        self.put_complete(&mut |record| records.push(record));
        let bytes = records.len() * LOOK_BYTES;
        records.into_iter().for_each(|record| self.restate(record));
        bytes
    }

    /// The session at a place, without its lists.
    fn restate_session(&mut self, slot: usize) -> (Option<Place>, usize) {
        if slot >= self.clients.sessions.slots() {
            return (Some(Place::Retained(None)), 0);
        }
        let key = self.clients.sessions.key_at(slot);
        let session = key.and_then(|key| self.clients.sessions.get(key));
        let (Some(key), Some(session)) = (key, session) else {
            return (Some(Place::Sessions(slot + 1)), LOOK_BYTES);
        };
        let Some(number) = session.number else {
            return (Some(Place::Sessions(slot + 1)), LOOK_BYTES);
        };
        let mut bytes = RECORD_BYTES_MIN;
        if let Some(will) = &session.will {
            bytes += will.payload.len();
        }
        let within = Within::Subscriptions(session.subscriptions.len());
        let mut records = Vec::new();
        self.put_session(key, number, |record| records.push(record));
        bytes += records.len() * LOOK_BYTES;
        records.into_iter().for_each(|record| self.restate(record));
        (Some(Place::Session(slot, key, within)), bytes)
    }

    fn restate_subscriptions(
        &mut self,
        key: SessionKey,
        number: SessionNumber,
        left: usize,
    ) -> (Option<Within>, usize) {
        let mut records = Vec::new();
        let subscriptions = self.clients.sessions.get(key);
        let subscriptions = subscriptions.map_or(&[][..], |it| &it.subscriptions);
        let left = left.min(subscriptions.len());
        let from = left.saturating_sub(TOLD_AT_ONCE);
        for reference in subscriptions.get(from..left).unwrap_or_default() {
            put_subscription(self, key, number, reference, &mut |record| {
                records.push(record);
            });
        }
        let bytes = records.len() * RECORD_BYTES_MIN;
        records.into_iter().for_each(|record| self.restate(record));
        let next = if from > 0 {
            Within::Subscriptions(from)
        } else {
            Within::Held(0)
        };
        (Some(next), bytes)
    }

    fn restate_held(
        &mut self,
        key: SessionKey,
        number: SessionNumber,
        from: u64,
    ) -> (Option<Within>, usize) {
        let (mut bytes, mut told, mut next) = (0, 0, None);
        let clients = &mut self.clients;
        let session = clients.sessions.get(key);
        let replay = session.and_then(|session| session.replay.as_ref());
        for (place, delivery) in replay.iter().flat_map(|it| it.held.iter_from(from)) {
            if told == TOLD_AT_ONCE {
                next = Some(Within::Held(place));
                break;
            }
            told += 1;
            bytes += restate_queued(&mut clients.journal, number, delivery);
        }
        let left = session.map_or(0, |session| session.outbound.waiting_from(0).1);
        (next.or(Some(Within::Queue(0, left))), bytes)
    }

    /// A part of the queue, and with its end the window.
    fn restate_queue(
        &mut self,
        key: SessionKey,
        number: SessionNumber,
        from: usize,
        had_left: u32,
    ) -> (Option<Within>, usize) {
        let clients = &mut self.clients;
        let Some(session) = clients.sessions.get(key) else {
            return (None, 0);
        };
        let (_, left) = session.outbound.waiting_from(0);
        let from = from.saturating_sub(left.wrapping_sub(had_left) as usize);
        let (mut bytes, mut told) = (0, 0);
        for delivery in session.outbound.waiting_from(from).0.take(TOLD_AT_ONCE) {
            told += 1;
            bytes += restate_queued(&mut clients.journal, number, delivery);
        }
        if told == TOLD_AT_ONCE {
            return (Some(Within::Queue(from + told, left)), bytes);
        }
        for unfinished in session.outbound.unfinished() {
            let delivery = unfinished.delivery.as_ref();
            bytes += RECORD_BYTES_MIN + delivery.map_or(0, |it| it.message.size_bytes());
            let mut records = Vec::new();
            put_unfinished(&clients.journal, number, unfinished, &mut |record| {
                records.push(record);
            });
            for record in records {
                clients.journal.restate(record);
            }
        }
        (None, bytes)
    }

    fn restate_retained(&mut self, after: Option<Arc<str>>) -> (Option<Place>, usize) {
        let (mut bytes, mut last, mut told) = (0, None, 0);
        let rest = self.retained.iter_after(after.as_deref());
        for (topic, message) in rest.take(TOLD_AT_ONCE) {
            told += 1;
            bytes += RECORD_BYTES_MIN + message.size_bytes();
            last = Some(Arc::clone(topic));
            let message = Arc::clone(message);
            let record = Record::Retained { message };
            self.clients.journal.restate(record);
        }
        let is_through = told < TOLD_AT_ONCE;
        let next = if is_through {
            Place::PassedOn
        } else {
            Place::Retained(last)
        };
        (Some(next), bytes)
    }

    fn restate_passed_on(&mut self) -> usize {
        let mut records = Vec::new();
        self.put_passed_on(&mut |record| records.push(record));
        let bytes = records.len() * RECORD_BYTES_MIN;
        records.into_iter().for_each(|record| self.restate(record));
        bytes
    }

    /// About what the records would take that tell what there is; `entry_bytes` is what a message on its way
    /// to a session takes.
    #[must_use]
    pub fn kept(&self, entry_bytes: u64) -> Kept {
        let retained = self.retained.bytes() + self.retained.len() * LOOK_BYTES;
        let sessions = self.clients.sessions.len() * LOOK_BYTES;
        let entries = self.clients.journal.entries();
        Kept {
            bytes: (retained + sessions) as u64 + entries * entry_bytes,
            entries,
        }
    }

    /// Messages that wait for sessions, and about what their records take. Looks at each.
    #[must_use]
    pub fn waiting(&self) -> Kept {
        let mut waiting = Kept::default();
        let sessions = &self.clients.sessions;
        for session in sessions.keys().filter_map(|key| sessions.get(key)) {
            let (queued, _) = session.outbound.waiting_from(0);
            let unfinished = session.outbound.unfinished();
            let unfinished = unfinished.filter_map(|it| it.delivery.as_ref());
            for delivery in queued.chain(unfinished).filter(|it| it.entry != 0) {
                waiting.entries += 1;
                waiting.bytes += (ENTRY_BYTES + delivery.message.share_bytes()) as u64;
            }
        }
        waiting
    }
}

fn restate_queued(journal: &mut Journal, session: SessionNumber, delivery: &Delivery) -> usize {
    if delivery.entry == 0 {
        return LOOK_BYTES;
    }
    let bytes = RECORD_BYTES_MIN + delivery.message.size_bytes();
    let record = journal.queued(session, delivery);
    journal.restate(record);
    bytes
}
