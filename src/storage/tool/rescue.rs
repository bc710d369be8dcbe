//! What there is by the frames that are left: images built from records of which some are missing.
//!
//! A record that speaks of something lost is left out and counted. What is not known to be over is kept:
//! a message may come twice where the record of its end is lost, rather than not at all. Nothing is made up.
//!
//! - A session of which the first record is lost waits for one that names it; without any it is left out.
//! - Of two sessions with one name (the end of the first is lost) the one that was opened last stays.
//! - Of two messages with one packet identifier the one that was sent last keeps it, the other is sent anew.
//! - That a client's publish was accepted is forgotten where the record of its release may be lost: as long
//!   as it is remembered, the client's next publish with that identifier would be dropped as a repeat.
//! - Behind what is lost, a checkpoint that is whole tells all there is: nothing is missing any more then.
//! - Where the number of shards changes, sessions get new numbers by which there are
//!   ([`crate::storage::rehome`]). Where one may be missing nobody knows them any more: what is told of a
//!   number counts for the session that has it by a later word, and the sessions from before stay under their
//!   names until then. (A segment that is missing counts as one of those around it, where these agree.)

use super::readers::Readers;
use super::walk::{Gap, Step};
use crate::engine::codec::Version;
use crate::engine::keys::{SessionNumber, ShardId};
use crate::engine::record::{Opened, Record, Step as Checkpoint};
use crate::storage::image::{Image, ImageError, Session};
use crate::storage::log::frame::{Found, HEADER_BYTES};
use crate::storage::record::decoder::LeftOut;
use crate::storage::rehome::{divide, number};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// Builds the images.
#[derive(Debug, Default)]
pub struct Rescue {
    readers: Readers,
    shards: BTreeMap<ShardId, Shard>,
    faults: Vec<Fault>,
    /// Frames of nobody knows whom are missing: whoever comes later may have lost some, too.
    has_lost: bool,
    records: u64,
    /// So many shards write; 0 before any has.
    count: ShardId,
    /// Nothing before says what comes.
    is_anew: bool,
    /// Of shards of former numbers.
    losses: Losses,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its file.
    pub file: u64,
    /// Byte of its frame.
    pub offset: u64,
    /// The frame.
    pub frame: &'a Found<'a>,
}

/// What is told on the way.
#[derive(Debug)]
pub enum Told<'a> {
    /// Something is not as it was written.
    Gap(&'a Gap),
    /// A frame, of which the records follow.
    Frame(Place<'a>),
    /// A record before it counts, and its session's client if that is known.
    Record(Place<'a>, Option<&'a str>, &'a Record),
    /// What cannot be read.
    LeftOut(Place<'a>, &'a LeftOut),
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
    /// By the checkpoint that goes on, of which nothing is missing so far, where something was before.
    fresh: Option<Image>,
    /// What comes is told anew.
    is_restated: bool,
    /// Sessions of former shards, until one of them is named again.
    carried: BTreeMap<Rc<str>, (Session, Trace)>,
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
    /// Messages of the session that are missing.
    fn lost(&self, session: Option<&Session>) -> u64 {
        let is_unseen = |entry: &&u64| self.unseen.iter().any(|unseen| unseen.contains(*entry));
        let entries = session.into_iter().flat_map(|it| it.entries.keys());
        let told_anew = entries.filter(is_unseen).count() as u64;
        let unseen = self.unseen.iter().map(|it| it.end - it.start).sum::<u64>();
        unseen.saturating_sub(self.over + told_anew) + self.without_content.len() as u64
    }

    /// The same session's, later.
    fn take_over(&mut self, later: Trace) {
        self.is_unnamed = false;
        self.opened_at = later.opened_at;
        self.last_entry = self.last_entry.max(later.last_entry);
        self.gaps = later.gaps;
        self.unseen.extend(later.unseen);
        self.over += later.over;
        self.without_content.extend(later.without_content);
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
    /// By shard, of as many as there were last.
    pub images: BTreeMap<ShardId, Image>,
    /// What is known to be lost.
    pub losses: Losses,
    /// Records that should not be there.
    pub faults: Vec<Fault>,
    /// Records that were read.
    pub records: u64,
}

impl Rescue {
    /// One more step through the log.
    pub fn step(&mut self, step: &Step<'_>, told: &mut dyn FnMut(Told<'_>)) {
        match step {
            Step::Gap(gap) => {
                told(Told::Gap(gap));
                self.gap(gap);
            }
            Step::Anew => self.is_anew = true,
            Step::Frame(file, offset, shards, frame) => {
                self.go_on_among(*shards);
                let place = Place {
                    file: *file,
                    offset: *offset,
                    frame,
                };
                told(Told::Frame(place));
                self.frame(place, told);
            }
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

    /// So many shards write from here on.
    fn go_on_among(&mut self, shards: ShardId) {
        let is_anew = std::mem::take(&mut self.is_anew);
        let is_first = self.count == 0;
        if self.count == shards && !is_anew {
            return;
        }
        let is_sure = !is_anew && self.is_sure();
        self.count = shards;
        self.has_lost |= is_anew;
        if is_first {
            if is_anew {
                self.readers.begin_behind_gap();
            }
            return;
        }
        let (images, mut traces) = self.close();
        self.readers = Readers::default();
        self.has_lost = !is_sure;
        if !is_sure {
            self.readers.begin_behind_gap();
        }
        for (id, image) in (0..).zip(divide(images, shards)) {
            let mut shard = Shard::new(!is_sure);
            shard.begin_with(image, &mut traces, is_sure);
            self.shards.insert(id, shard);
        }
    }

    /// Nothing is missing of what any shard has.
    fn is_sure(&self) -> bool {
        let is_heard = !self.has_lost || self.shards.len() >= usize::from(self.count);
        is_heard && self.shards.values().all(|shard| shard.gaps == 0)
    }

    fn frame(&mut self, place: Place<'_>, told: &mut dyn FnMut(Told<'_>)) {
        let frame = place.frame;
        let has_lost = self.has_lost;
        let shard = self.shards.entry(frame.shard);
        let shard = shard.or_insert_with(|| Shard::new(has_lost));
        let mut read = Vec::new();
        self.readers.read(place.file, frame, |one| read.push(one));
        for one in read {
            let wrong = match one {
                Ok(record) => {
                    self.records += 1;
                    let client = shard.client_of(&record);
                    told(Told::Record(place, client.as_deref(), &record));
                    let applied = shard.apply(record, frame.sequence);
                    applied.err().map(|error| (0, error.to_string()))
                }
                Err(left_out) => {
                    told(Told::LeftOut(place, &left_out));
                    shard.leave_out(&left_out)
                }
            };
            if let Some((at, words)) = wrong {
                self.faults.push(Fault {
                    segment: place.file,
                    offset: place.offset + (HEADER_BYTES + at) as u64,
                    frame: frame.sequence,
                    shard: frame.shard,
                    words,
                });
            }
        }
    }

    /// What all shards have, without what is of no use, and what is known of the sessions by their names.
    fn close(&mut self) -> (Vec<Image>, BTreeMap<Rc<str>, Trace>) {
        if self.is_sure() {
            self.losses = Losses::default();
        }
        let mut shards = std::mem::take(&mut self.shards);
        let mut newest: BTreeMap<Box<str>, (u64, SessionNumber)> = BTreeMap::new();
        for (id, shard) in &mut shards {
            shard.name_carried(*id);
            for (number, trace) in shard.traces.iter().filter(|(_, trace)| !trace.is_unnamed) {
                if let Some(session) = shard.image.sessions.get(number) {
                    let name = Box::from(&*session.opened.client_id);
                    let opened = (trace.opened_at, *number);
                    let known = newest.entry(name).or_insert(opened);
                    *known = (*known).max(opened);
                }
            }
        }
        let mut images = Vec::new();
        let mut traces = BTreeMap::new();
        for (id, mut shard) in shards {
            shard.finish(&newest, &mut self.losses);
            if shard.gaps > 0 {
                self.losses.shards.insert(id);
            }
            for (number, session) in &shard.image.sessions {
                let trace = shard.traces.remove(number).unwrap_or_default();
                traces.insert(Rc::clone(&session.opened.client_id), trace);
            }
            images.push(shard.image);
        }
        (images, traces)
    }

    /// Nothing more comes.
    #[must_use]
    pub fn finish(mut self) -> Rescued {
        let (images, _) = self.close();
        let images = divide(images, self.count.max(1));
        Rescued {
            images: (0..).zip(images).collect(),
            losses: self.losses,
            faults: self.faults,
            records: self.records,
        }
    }
}

impl Shard {
    fn new(has_lost: bool) -> Self {
        let mut image = Image::default();
        if has_lost {
            image.lose();
        }
        Shard {
            image,
            fresh: None,
            is_restated: false,
            carried: BTreeMap::new(),
            gaps: has_lost.into(),
            traces: BTreeMap::new(),
            retained_lost: 0,
            parts_lost: 0,
            repeats_forgotten: 0,
        }
    }

    /// Goes on with what former shards had; whether their sessions have the numbers that they get here.
    fn begin_with(&mut self, image: Image, traces: &mut BTreeMap<Rc<str>, Trace>, is_sure: bool) {
        self.image.retained = image.retained;
        for (number, session) in image.sessions {
            let client = Rc::clone(&session.opened.client_id);
            let mut trace = traces.remove(&client).unwrap_or_default();
            trace.gaps = self.gaps;
            if is_sure {
                self.traces.insert(number, trace);
                self.image.sessions.insert(number, session);
            } else {
                // What it has lost was told.
                (trace.over, trace.unseen) = (0, Vec::new());
                trace.without_content.clear();
                self.carried.insert(client, (session, trace));
            }
        }
    }

    /// Those that nobody has named get numbers that nobody has.
    fn name_carried(&mut self, id: ShardId) {
        let last = self.image.sessions.keys().next_back();
        let mut counter = last.map_or(0, |number| number.0.get() >> ShardId::BITS);
        for (_, (mut session, trace)) in std::mem::take(&mut self.carried) {
            counter += 1;
            let number = number(counter, id);
            session.renumber(number);
            self.image.sessions.insert(number, session);
            self.traces.insert(number, trace);
        }
    }

    /// The client of the session that a record speaks of.
    fn client_of(&self, record: &Record) -> Option<Rc<str>> {
        if let Record::Opened(opened) = record {
            return Some(Rc::clone(&opened.client_id));
        }
        let session = self.image.sessions.get(&record.session()?)?;
        let client = &session.opened.client_id;
        (!client.is_empty()).then(|| Rc::clone(client))
    }

    /// A checkpoint has told all there is, and nothing of it is missing.
    fn heal(&mut self, whole: Image) {
        self.image = whole;
        self.carried.clear();
        (
            self.gaps,
            self.retained_lost,
            self.parts_lost,
            self.repeats_forgotten,
        ) = (0, 0, 0, 0);
        let sessions = &self.image.sessions;
        self.traces
            .retain(|number, _| sessions.contains_key(number));
        for trace in self.traces.values_mut() {
            *trace = Trace {
                opened_at: trace.opened_at,
                last_entry: trace.last_entry,
                ..Trace::default()
            };
        }
    }

    fn checkpoint(&mut self, step: Checkpoint) {
        self.is_restated = step == Checkpoint::Restates;
        if step == Checkpoint::Begins && self.gaps > 0 {
            self.fresh = Some(Image::from_checkpoint());
        }
        let record = Record::Checkpoint(step);
        // These follow from anything.
        if let Some(fresh) = &mut self.fresh {
            let _ = fresh.apply(record.clone());
        }
        let _ = self.image.apply(record);
        if step != Checkpoint::Ends {
            return;
        }
        if let Some(whole) = self.fresh.take() {
            self.heal(whole);
        } else if self.gaps > 0 {
            self.image.lose();
        }
    }

    fn pass_gap(&mut self) {
        self.gaps += 1;
        self.fresh = None;
        self.image.lose();
        for session in self.image.sessions.values_mut() {
            self.repeats_forgotten += session.accepted.len() as u64;
            session.accepted.clear();
        }
    }

    /// What was left out of a frame; where it stood and why, if nothing that is lost explains it.
    fn leave_out(&mut self, left_out: &LeftOut) -> Option<(usize, String)> {
        let refusal = match left_out {
            LeftOut::Entry { session, entry } => {
                self.fresh = None;
                self.note_entry(*session, *entry);
                let trace = self.traces.entry(*session).or_default();
                trace.without_content.insert(*entry);
                return self.unexplained("it names a message that is not there");
            }
            LeftOut::Retained => {
                self.fresh = None;
                self.retained_lost += 1;
                return self.unexplained("it names a message that is not there");
            }
            LeftOut::Part => {
                self.fresh = None;
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
            Record::Checkpoint(step) => {
                self.checkpoint(*step);
                return Ok(());
            }
            Record::Opened(opened) => {
                self.take_up(opened);
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
        if self.gaps == 0 {
            return self.image.apply(record);
        }
        if let Some(fresh) = &mut self.fresh {
            let _ = fresh.apply(record.clone());
        }
        if let Some(session) = self.without_name(&record) {
            self.wait_for_name(session);
        }
        // What it speaks of may have been in a lost frame, or its end.
        let _ = self.image.apply(record);
        Ok(())
    }

    /// A session that former shards had has this number now.
    fn take_up(&mut self, opened: &Opened) {
        let is_his = |carried: &(Session, Trace)| carried.0.opened.user_name == opened.user_name;
        if !self.carried.get(&opened.client_id).is_some_and(is_his) {
            return;
        }
        let Some((mut session, mut trace)) = self.carried.remove(&opened.client_id) else {
            return;
        };
        session.renumber(opened.session);
        if let Some(later) = self.image.sessions.remove(&opened.session) {
            session.take_over(later);
        }
        if let Some(later) = self.traces.remove(&opened.session) {
            trace.take_over(later);
        }
        self.image.sessions.insert(opened.session, session);
        self.traces.insert(opened.session, trace);
    }

    /// The session that something is kept of, if it was opened in a lost frame.
    fn without_name(&self, record: &Record) -> Option<SessionNumber> {
        let session = match record {
            Record::Subscribed(subscription) => subscription.session,
            Record::Queued { session, .. }
            | Record::Received { session, .. }
            | Record::Accepted { session, .. } => *session,
            _ => return None,
        };
        (!self.image.sessions.contains_key(&session)).then_some(session)
    }

    fn wait_for_name(&mut self, session: SessionNumber) {
        let opened = Opened {
            session,
            client_id: "".into(),
            version: Version::V5,
            user_name: None,
            own_rules: None,
            expiry_seconds: 0,
            queue_bytes_max: 0,
            will: None,
        };
        self.traces.entry(session).or_default().is_unnamed = true;
        // Nobody has this number.
        let _ = self.image.apply(Record::Opened(Box::new(opened)));
    }

    /// Numbers of a session's messages ascend by one: which were told of while frames are missing.
    fn note_entry(&mut self, session: SessionNumber, entry: u64) {
        if self.is_restated {
            return;
        }
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
                losses.unnamed_messages += trace.lost(None);
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
                let lost = trace.lost(Some(session));
                if lost > 0 {
                    *losses.sessions.entry(name).or_default() += lost;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{LocalMessage, Message, Qos};
    use crate::engine::record::Persist;
    use crate::engine::session::{Delivery, SubscriptionIds};
    use crate::storage::log::frame::Kind;
    use crate::storage::log::scan::{Damage, What};
    use crate::storage::record::encoder::Encoder;
    use std::num::NonZeroU64;
    use std::sync::Arc;

    /// Frames of shard 0, each of one record or a few.
    struct Log {
        encoder: Encoder,
        frames: Vec<Vec<u8>>,
    }

    impl Log {
        fn new() -> Self {
            Log {
                encoder: Encoder::new(0, 0),
                frames: Vec::new(),
            }
        }

        fn frame(&mut self, records: impl IntoIterator<Item = Record>) {
            for (ticket, record) in (1..).zip(records) {
                self.encoder.put(&Persist { ticket, record });
            }
            self.encoder.flush();
            let frames = self.encoder.frames();
            self.frames
                .extend(frames.map(|frame| frame.sealed_records().to_vec()));
        }

        /// Another process goes on.
        fn begin(&mut self) {
            self.encoder = Encoder::new(0, 0);
        }

        /// What is left without some frames, which stand in these files.
        fn without(&self, lost: &[usize], files: &dyn Fn(usize) -> u64) -> Rescued {
            let mut rescue = Rescue::default();
            for (place, records) in self.frames.iter().enumerate() {
                let sequence = place as u64 + 1;
                if lost.contains(&place) {
                    rescue.step(&Step::Gap(&gap(sequence, None)), &mut |_| {});
                    continue;
                }
                let found = Found {
                    sequence,
                    synced: 0,
                    kind: Kind::Records,
                    shard: 0,
                    ticket: 0,
                    records,
                };
                let step = Step::Frame(files(place), 4_096, 1, found);
                rescue.step(&step, &mut |_| {});
            }
            rescue.finish()
        }
    }

    fn gap(frame: u64, shard: Option<ShardId>) -> Gap {
        Gap {
            damage: Damage {
                segment: 1,
                offset: 4_096,
                what: What::Frame(frame),
            },
            frames: Some(frame..frame + 1),
            shard,
        }
    }

    fn number(counter: u64) -> SessionNumber {
        SessionNumber(NonZeroU64::new(counter << 16).unwrap())
    }

    fn opened(counter: u64, name: &str) -> Record {
        Record::Opened(Box::new(Opened {
            session: number(counter),
            client_id: name.into(),
            version: Version::V5,
            user_name: None,
            own_rules: None,
            expiry_seconds: 60,
            queue_bytes_max: 1_000,
            will: None,
        }))
    }

    fn message(text: &str) -> LocalMessage {
        let message = Message::new(text, b"", text.as_bytes(), Qos::AtLeastOnce, false, None);
        LocalMessage::new(Arc::new(message))
    }

    fn queued(counter: u64, entry: u64, message: &LocalMessage) -> Record {
        let session = number(counter);
        let delivery = Delivery {
            message: message.clone(),
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_ids: SubscriptionIds::None,
            group: None,
            entry,
        };
        Record::Queued { session, delivery }
    }

    const fn sent(session: SessionNumber, entry: u64, packet_id: u16) -> Record {
        Record::Sent {
            session,
            entry,
            packet_id,
        }
    }

    const fn settled(session: SessionNumber, entry: u64) -> Record {
        Record::Settled { session, entry }
    }

    const ONE_FILE: &dyn Fn(usize) -> u64 = &|_| 1;

    fn lost_of(rescued: &Rescued, name: &str) -> Option<u64> {
        rescued.losses.sessions.get(name).copied()
    }

    #[test]
    fn lost_messages_are_counted_unless_they_were_over_later() {
        let mut log = Log::new();
        let (a, b, c) = (message("a"), message("b"), message("c"));
        log.frame([opened(1, "one"), queued(1, 1, &a)]);
        log.frame([queued(1, 2, &a), queued(1, 3, &b)]);
        log.frame([queued(1, 4, &b), queued(1, 5, &c)]);
        let rescued = log.without(&[1], ONE_FILE);
        // The content of 4 went with 3.
        assert_eq!(lost_of(&rescued, "one"), Some(3));
        let entries = &rescued.images[&0].sessions[&number(1)].entries;
        assert!(entries.keys().eq(&[1, 5]));
        assert!(rescued.faults.is_empty() && rescued.losses.shards.contains(&0));
        log.frame([
            settled(number(1), 2),
            settled(number(1), 3),
            settled(number(1), 4),
        ]);
        let rescued = log.without(&[1], ONE_FILE);
        assert_eq!(lost_of(&rescued, "one"), None);
        assert!(log.without(&[], ONE_FILE).losses == Losses::default());
    }

    /// Numbers of messages begin anew with each process: one that is not known to be the same names nothing
    /// that was read before.
    #[test]
    fn nobody_gets_another_message_than_his() {
        let mut log = Log::new();
        let (old, new) = (message("old"), message("new"));
        log.frame([opened(1, "one"), queued(1, 1, &old)]);
        log.begin();
        log.frame([queued(1, 2, &new)]);
        log.frame([queued(1, 3, &new)]);
        // The next process began in the next file.
        let rescued = log.without(&[1], &|place| place as u64 + 1);
        let entries = &rescued.images[&0].sessions[&number(1)].entries;
        assert!(entries.keys().eq(&[1]), "3 names a message that is lost");
        assert_eq!(lost_of(&rescued, "one"), Some(2));
        let mut log = Log::new();
        log.frame([opened(1, "one"), queued(1, 1, &old)]);
        log.frame([queued(1, 2, &new)]);
        log.frame([queued(1, 3, &old)]);
        let rescued = log.without(&[1], ONE_FILE);
        let entries = &rescued.images[&0].sessions[&number(1)].entries;
        assert!(entries.keys().eq(&[1, 3]), "the same process");
    }

    #[test]
    fn names_and_packet_identifiers_stay_unique() {
        let mut log = Log::new();
        let a = message("a");
        log.frame([opened(1, "one"), queued(1, 1, &a), sent(number(1), 1, 7)]);
        log.frame([settled(number(1), 1)]);
        log.frame([queued(1, 2, &a), sent(number(1), 2, 7)]);
        log.frame([Record::Ended { session: number(1) }]);
        log.frame([opened(2, "one")]);
        let rescued = log.without(&[1, 3], ONE_FILE);
        let sessions = &rescued.images[&0].sessions;
        assert_eq!(sessions.len(), 1);
        assert!(sessions.values().all(|session| session.entries.is_empty()));
        assert!(rescued.losses.replaced.contains("one"));
        log.frames.truncate(3);
        let rescued = log.without(&[1], ONE_FILE);
        let entries = &rescued.images[&0].sessions[&number(1)].entries;
        assert!(entries[&1].sent.is_none() && entries[&2].sent.is_some());
    }

    #[test]
    fn a_session_waits_for_its_name_and_repeats_are_forgotten() {
        let mut log = Log::new();
        let accepted = |packet_id| Record::Accepted {
            session: number(1),
            packet_id,
        };
        log.frame([opened(1, "one"), opened(2, "two")]);
        log.frame([
            accepted(3),
            queued(1, 1, &message("a")),
            queued(2, 1, &message("b")),
        ]);
        log.frame([accepted(4)]);
        log.frame([opened(1, "one")]);
        let rescued = log.without(&[0], ONE_FILE);
        let sessions = &rescued.images[&0].sessions;
        assert!(sessions.keys().eq(&[number(1)]));
        assert_eq!(sessions[&number(1)].entries.len(), 1);
        assert_eq!(
            (rescued.losses.unnamed, rescued.losses.unnamed_messages),
            (1, 1)
        );
        let rescued = log.without(&[2], ONE_FILE);
        let accepted = &rescued.images[&0].sessions[&number(1)].accepted;
        assert!(accepted.is_empty(), "its release may be lost");
        assert_eq!(rescued.losses.repeats, 1);
    }

    #[test]
    fn what_nothing_lost_explains_is_a_fault() {
        let mut log = Log::new();
        log.frame([settled(number(1), 1)]);
        let rescued = log.without(&[], ONE_FILE);
        assert_eq!(rescued.faults.len(), 1);
        log.frames[0] = vec![0xEE, 0];
        let rescued = log.without(&[], ONE_FILE);
        let fault = &rescued.faults[0];
        assert!(fault.words.contains("kind is unknown"), "{fault:?}");
        assert_eq!(
            (fault.segment, fault.offset, fault.frame),
            (1, 4_096 + 40, 1)
        );
    }
}
