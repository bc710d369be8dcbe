//! What is left of one shard, by the records that are, and what is known to be lost. By which rules:
//! [`super::rescue`].

use crate::engine::codec::Version;
use crate::engine::keys::{SessionNumber, ShardId};
use crate::engine::record::{Opened, Record, Step as Checkpoint};
use crate::storage::image::{Image, ImageError, Session};
use crate::storage::record::decoder::LeftOut;
use crate::storage::rehome::number;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

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

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) image: Image,
    /// By the checkpoint that goes on, of which nothing is missing so far, where something was before.
    fresh: Option<Image>,
    /// What comes is told anew.
    is_restated: bool,
    /// Sessions of former shards, until one of them is named again.
    carried: BTreeMap<Rc<str>, (Session, Trace)>,
    /// How often something was missing.
    pub(super) gaps: u64,
    pub(super) traces: BTreeMap<SessionNumber, Trace>,
    /// Retained messages of which the content is lost.
    retained_lost: u64,
    /// Records of which the beginning is lost.
    parts_lost: u64,
    repeats_forgotten: u64,
}

/// What is known of a session besides.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Its first record is lost so far.
    pub(super) is_unnamed: bool,
    /// Where it was opened last.
    pub(super) opened_at: u64,
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

impl Shard {
    pub(super) fn new(has_lost: bool) -> Self {
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
    pub(super) fn begin_with(
        &mut self,
        image: Image,
        traces: &mut BTreeMap<Rc<str>, Trace>,
        is_sure: bool,
    ) {
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
    pub(super) fn name_carried(&mut self, id: ShardId) {
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
    pub(super) fn client_of(&self, record: &Record) -> Option<Rc<str>> {
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

    pub(super) fn pass_gap(&mut self) {
        self.gaps += 1;
        self.fresh = None;
        self.image.lose();
        for session in self.image.sessions.values_mut() {
            self.repeats_forgotten += session.accepted.len() as u64;
            session.accepted.clear();
        }
    }

    /// What was left out of a frame; where it stood and why, if nothing that is lost explains it.
    pub(super) fn leave_out(&mut self, left_out: &LeftOut) -> Option<(usize, String)> {
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

    pub(super) fn apply(&mut self, record: Record, sequence: u64) -> Result<(), ImageError> {
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
            Record::Queued {
                session, delivery, ..
            } => self.note_entry(*session, delivery.entry),
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

    pub(super) fn finish(
        &mut self,
        newest: &BTreeMap<Box<str>, (u64, SessionNumber)>,
        losses: &mut Losses,
    ) {
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
