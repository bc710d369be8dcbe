//! What there is by the frames that are left: images built from records of which some are missing.
//!
//! A record that speaks of something lost is left out and counted. What is not known to be over is kept:
//! a message may come twice where the record of its end is lost, rather than not at all. Nothing is made up.
//!
//! - A session of which the first record is lost waits for one that names it; without any it is left out.
//! - Of two sessions with one name (the end of the first is lost) the one that was opened last stays.
//! - Of two messages with one packet identifier the one that was sent last keeps it, the other is sent anew.
//! - That a client's publish was accepted is forgotten where the record of its release may be lost: as long as
//!   it is remembered, the client's next publish with that identifier would be dropped as a repeat.

use super::readers::Readers;
use super::walk::{Gap, Step};
use crate::engine::codec::Version;
use crate::engine::keys::{SessionNumber, ShardId};
use crate::engine::record::{Opened, Record};
use crate::storage::image::{Image, ImageError, Session};
use crate::storage::log::frame::{Found, HEADER_BYTES};
use crate::storage::record::decoder::LeftOut;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Builds the images.
#[derive(Debug, Default)]
pub struct Rescue {
    readers: Readers,
    shards: BTreeMap<ShardId, Shard>,
    faults: Vec<Fault>,
    /// Frames of nobody knows whom are missing: whoever comes later may have lost some, too.
    has_lost: bool,
    records: u64,
}

/// A record in a good frame that cannot be what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its file.
    pub segment: u64,
    /// Byte in the file.
    pub offset: u64,
    /// Place of its frame in the log.
    pub frame: u64,
    /// Whose it is.
    pub shard: ShardId,
    /// Why.
    pub words: String,
}

/// One shard.
#[derive(Debug)]
struct Shard {
    image: Image,
    /// How often something was missing.
    gaps: u64,
    traces: BTreeMap<SessionNumber, Trace>,
    /// Retained messages of which the content is lost.
    retained_lost: u64,
    /// Records of which the beginning is lost.
    parts_lost: u64,
    repeats_forgotten: u64,
}

/// What is known of a session besides.
#[derive(Debug, Default)]
struct Trace {
    /// Its first record is lost so far.
    is_unnamed: bool,
    /// Where it was opened last.
    opened_at: u64,
    /// Its newest message.
    last_entry: u64,
    /// `Shard::gaps` then.
    gaps: u64,
    /// Messages that were told of in lost frames.
    unseen: Vec<Range<u64>>,
    /// Those that were over later.
    over: u64,
    /// Messages of which the content is lost.
    without_content: BTreeSet<u64>,
}

impl Trace {
    fn lost(&self) -> u64 {
        let unseen: u64 = self
            .unseen
            .iter()
            .map(|unseen| unseen.end - unseen.start)
            .sum();
        unseen.saturating_sub(self.over) + self.without_content.len() as u64
    }
}

/// What is known to be lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Sessions by name, and how many messages are missing in the queue of each.
    pub sessions: BTreeMap<Box<str>, u64>,
    /// Sessions that were left out because nothing is left that tells their name.
    pub unnamed: u64,
    /// Messages for them.
    pub unnamed_messages: u64,
    /// Sessions that were left out because a later one has their name.
    pub replaced: BTreeSet<Box<str>>,
    /// Retained messages with unknown topics: the one before stays.
    pub retained: u64,
    /// Records of which only a part is left.
    pub parts: u64,
    /// Publishes of clients that are not known as repeats any more.
    pub repeats: u64,
    /// Shards of which frames are missing: what the last records of any of their sessions and topics said may
    /// be missing as well.
    pub shards: BTreeSet<ShardId>,
}

/// What there is.
#[derive(Debug)]
pub struct Rescued {
    /// By shard.
    pub images: BTreeMap<ShardId, Image>,
    /// What is known to be lost.
    pub losses: Losses,
    /// Records that should not be there.
    pub faults: Vec<Fault>,
    /// Records that were read.
    pub records: u64,
}

impl Rescue {
    /// One more step through the log. `heard` gets each record before it counts.
    pub fn step(&mut self, step: &Step<'_>, heard: &mut dyn FnMut(ShardId, &Record)) {
        match step {
            Step::Gap(gap) => self.gap(gap),
            Step::Frame(file, offset, frame) => self.frame(*file, *offset, frame, heard),
        }
    }

    fn gap(&mut self, gap: &Gap) {
        self.readers.gap(gap);
        self.has_lost |= gap.shard.is_none();
        let concerned = self.shards.iter_mut();
        for (id, shard) in concerned {
            if gap.shard.is_none_or(|lost| lost == *id) {
                shard.pass_gap();
            }
        }
        if let Some(id) = gap.shard
            && !self.shards.contains_key(&id)
        {
            self.shards.insert(id, Shard::new(true));
        }
    }

    fn frame(
        &mut self,
        file: u64,
        offset: u64,
        frame: &Found<'_>,
        heard: &mut dyn FnMut(ShardId, &Record),
    ) {
        let has_lost = self.has_lost;
        let shard = self.shards.entry(frame.shard);
        let shard = shard.or_insert_with(|| Shard::new(has_lost));
        let mut read = Vec::new();
        self.readers.read(file, frame, |one| read.push(one));
        for one in read {
            let wrong = match one {
                Ok(record) => {
                    self.records += 1;
                    heard(frame.shard, &record);
                    let applied = shard.apply(record, frame.sequence);
                    applied.err().map(|error| (0, error.to_string()))
                }
                Err(left_out) => shard.leave_out(&left_out),
            };
            if let Some((at, words)) = wrong {
                self.faults.push(Fault {
                    segment: file,
                    offset: offset + (HEADER_BYTES + at) as u64,
                    frame: frame.sequence,
                    shard: frame.shard,
                    words,
                });
            }
        }
    }

    /// Nothing more comes.
    #[must_use]
    pub fn finish(self) -> Rescued {
        let mut losses = Losses::default();
        let mut images = BTreeMap::new();
        let mut newest: BTreeMap<Box<str>, (u64, SessionNumber)> = BTreeMap::new();
        for shard in self.shards.values() {
            for (number, trace) in shard.traces.iter().filter(|(_, trace)| !trace.is_unnamed) {
                if let Some(session) = shard.image.sessions.get(number) {
                    let name = Box::from(&*session.opened.client_id);
                    let opened = (trace.opened_at, *number);
                    let known = newest.entry(name).or_insert(opened);
                    *known = (*known).max(opened);
                }
            }
        }
        for (id, mut shard) in self.shards {
            shard.finish(&newest, &mut losses);
            if shard.gaps > 0 {
                losses.shards.insert(id);
            }
            images.insert(id, shard.image);
        }
        Rescued {
            images,
            losses,
            faults: self.faults,
            records: self.records,
        }
    }
}

impl Shard {
    fn new(has_lost: bool) -> Self {
        Shard {
            image: Image::default(),
            gaps: has_lost.into(),
            traces: BTreeMap::new(),
            retained_lost: 0,
            parts_lost: 0,
            repeats_forgotten: 0,
        }
    }

    fn pass_gap(&mut self) {
        self.gaps += 1;
        for session in self.image.sessions.values_mut() {
            self.repeats_forgotten += session.accepted.len() as u64;
            session.accepted.clear();
        }
    }

    /// What was left out of a frame; where it stood and why, if nothing that is lost explains it.
    fn leave_out(&mut self, left_out: &LeftOut) -> Option<(usize, String)> {
        let refusal = match left_out {
            LeftOut::Entry { session, entry } => {
                self.note_entry(*session, *entry);
                let trace = self.traces.entry(*session).or_default();
                trace.without_content.insert(*entry);
                return self.unexplained("it names a message that is not there");
            }
            LeftOut::Retained => {
                self.retained_lost += 1;
                return self.unexplained("it names a message that is not there");
            }
            LeftOut::Part => {
                self.parts_lost += 1;
                return self.unexplained("the parts before it are missing");
            }
            LeftOut::Record(refusal) | LeftOut::Rest(refusal) => refusal,
        };
        self.pass_gap();
        Some((refusal.at, refusal.to_string()))
    }

    fn unexplained(&self, words: &str) -> Option<(usize, String)> {
        (self.gaps == 0).then(|| (0, words.to_owned()))
    }

    fn apply(&mut self, record: Record, sequence: u64) -> Result<(), ImageError> {
        match &record {
            Record::Opened(opened) => {
                let gaps = self.gaps;
                let trace = self.traces.entry(opened.session).or_default();
                (trace.is_unnamed, trace.opened_at) = (false, sequence);
                trace.gaps = if trace.last_entry == 0 {
                    gaps
                } else {
                    trace.gaps
                };
            }
            Record::Queued { session, delivery } => self.note_entry(*session, delivery.entry),
            Record::Settled { session, entry } => self.note_over(*session, *entry),
            Record::Ended { session } => {
                self.traces.remove(session);
            }
            _ => {}
        }
        let applied = self.image.apply(record.clone());
        match applied {
            Err(error) if self.gaps == 0 => Err(error),
            Err(ImageError::NoSession) => {
                self.wait_for_name(record);
                Ok(())
            }
            // What it speaks of was in a lost frame, or its end was.
            Err(ImageError::NoEntry | ImageError::Twice) | Ok(()) => Ok(()),
        }
    }

    /// A record of a session that was opened in a lost frame.
    fn wait_for_name(&mut self, record: Record) {
        let session = match &record {
            Record::Subscribed(subscription) => subscription.session,
            Record::Queued { session, .. }
            | Record::Sent { session, .. }
            | Record::Received { session, .. }
            | Record::Unsubscribed { session, .. }
            | Record::Accepted { session, .. }
            | Record::Left { session, .. } => *session,
            _ => return,
        };
        let opened = Opened {
            session,
            client_id: "".into(),
            version: Version::V5,
            user_name: None,
            expiry_seconds: 0,
            queue_bytes_max: 0,
            will: None,
        };
        let opened = Record::Opened(Box::new(opened));
        self.traces.entry(session).or_default().is_unnamed = true;
        // An entry that it names may be lost as well.
        let _ = self
            .image
            .apply(opened)
            .and_then(|()| self.image.apply(record));
    }

    /// Numbers of a session's messages ascend by one: which were told of while frames are missing.
    fn note_entry(&mut self, session: SessionNumber, entry: u64) {
        let trace = self.traces.entry(session).or_default();
        let due = trace.last_entry + 1;
        if trace.gaps != self.gaps && trace.last_entry > 0 && entry > due {
            trace.unseen.push(due..entry);
        }
        trace.gaps = self.gaps;
        trace.last_entry = trace.last_entry.max(entry);
    }

    fn note_over(&mut self, session: SessionNumber, entry: u64) {
        if let Some(trace) = self.traces.get_mut(&session) {
            trace.without_content.remove(&entry);
            trace.over += u64::from(trace.unseen.iter().any(|unseen| unseen.contains(&entry)));
        }
    }

    fn finish(&mut self, newest: &BTreeMap<Box<str>, (u64, SessionNumber)>, losses: &mut Losses) {
        losses.retained += self.retained_lost;
        losses.parts += self.parts_lost;
        losses.repeats += self.repeats_forgotten;
        for (number, trace) in &self.traces {
            let Some(session) = self.image.sessions.get_mut(number) else {
                losses.unnamed += 1;
                losses.unnamed_messages += trace.lost();
                continue;
            };
            let name: Box<str> = Box::from(&*session.opened.client_id);
            let newest = newest.get(&name).map(|(_, newest)| newest);
            if trace.is_unnamed {
                losses.unnamed += 1;
                losses.unnamed_messages += session.entries.len() as u64;
                self.image.sessions.remove(number);
            } else if newest.is_some_and(|newest| newest != number) {
                losses.replaced.insert(name);
                self.image.sessions.remove(number);
            } else {
                free_packet_ids(session);
                if trace.lost() > 0 {
                    losses.sessions.insert(name, trace.lost());
                }
            }
        }
    }
}

/// One message for each packet identifier.
fn free_packet_ids(session: &mut Session) {
    let mut holders: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
    let mut freed = Vec::new();
    for (entry, it) in &session.entries {
        let Some((order, packet_id)) = it.sent else {
            continue;
        };
        let holder = holders.entry(packet_id).or_insert((order, *entry));
        if holder.1 != *entry {
            let (kept, other) = (
                (*holder).max((order, *entry)),
                (*holder).min((order, *entry)),
            );
            *holder = kept;
            freed.push(other.1);
        }
    }
    for entry in freed {
        let is_whole = session
            .entries
            .get(&entry)
            .is_some_and(|it| it.delivery.is_some());
        if !is_whole {
            session.entries.remove(&entry);
        } else if let Some(it) = session.entries.get_mut(&entry) {
            it.sent = None;
        }
    }
}
