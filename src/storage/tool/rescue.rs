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
//! - A QoS 2 publish of which it may be lost that it is complete counts as complete.
//! - Behind what is lost, a checkpoint that is whole tells all there is: nothing is missing any more then.
//! - Where the number of shards changes, sessions get new numbers by which there are
//!   ([`crate::storage::rehome`]). Where one may be missing nobody knows them any more: what is told of a
//!   number counts for the session that has it by a later word, and the sessions from before stay under their
//!   names until then. (A segment that is missing counts as one of those around it, where these agree.)

use super::readers::Readers;
use super::remains::{Losses, Shard, Trace};
use super::walk::{Gap, Step};
use crate::engine::keys::{SessionNumber, ShardId};
use crate::engine::record::Record;
use crate::storage::image::Image;
use crate::storage::log::frame::{Found, HEADER_BYTES};
use crate::storage::record::decoder::LeftOut;
use crate::storage::rehome::divide;
use std::collections::BTreeMap;
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
        let is_sure = self.is_sure();
        if is_sure {
            self.losses = Losses::default();
        }
        for id in 0..self.count {
            self.shards.entry(id).or_insert_with(|| Shard::new(false));
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
            if !is_sure {
                shard.image.keep_undecided();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{LocalMessage, Qos};
    use crate::engine::record::{Persist, Step as Checkpoint};
    use crate::storage::log::frame::Kind;
    use crate::storage::log::scan::{Damage, What};
    use crate::storage::record::encoder::Encoder;
    use crate::storage::samples;
    use std::num::NonZeroU64;

    /// Frames of shard 0, each of one record or a few.
    struct Log {
        encoder: Encoder,
        frames: Vec<Vec<u8>>,
        /// How many shards there were at each; one if it is not said.
        shards: Vec<ShardId>,
    }

    impl Log {
        fn new() -> Self {
            Log {
                encoder: Encoder::new(0, 0),
                frames: Vec::new(),
                shards: Vec::new(),
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
                    life: 0,
                    shard: 0,
                    ticket: 0,
                    records,
                };
                let shards = self.shards.get(place).copied().unwrap_or(1);
                let step = Step::Frame(files(place), 4_096, shards, found);
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
        samples::opened(number(counter), name)
    }

    fn message(text: &str) -> LocalMessage {
        samples::message(text, text, Qos::AtLeastOnce)
    }

    fn queued(counter: u64, entry: u64, message: &LocalMessage) -> Record {
        samples::queued(number(counter), entry, message, None)
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
            number: 0,
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

    /// A checkpoint behind what is lost tells all there is; one of which something is lost does not.
    #[test]
    fn a_whole_checkpoint_makes_up_for_what_was_lost_before() {
        let mut log = Log::new();
        let (a, b) = (message("a"), message("b"));
        log.frame([opened(1, "one"), opened(2, "two"), queued(1, 1, &a)]);
        log.frame([settled(number(1), 1), queued(1, 2, &b)]);
        log.frame([Record::Checkpoint(Checkpoint::Begins)]);
        let anew = [Record::Checkpoint(Checkpoint::Restates), opened(1, "one")];
        log.frame(anew.into_iter().chain([queued(1, 2, &b)]));
        log.frame([opened(2, "two"), Record::Checkpoint(Checkpoint::Changes)]);
        log.frame([Record::Checkpoint(Checkpoint::Ends)]);
        log.frame([queued(1, 3, &b)]);
        let rescued = log.without(&[1], ONE_FILE);
        assert!(rescued.losses == Losses::default() && rescued.faults.is_empty());
        let sessions = &rescued.images[&0].sessions;
        assert_eq!(sessions.len(), 2);
        let queue = |rescued: &Rescued| {
            let session = &rescued.images[&0].sessions[&number(1)];
            session.entries.keys().copied().collect::<Vec<_>>()
        };
        assert_eq!(queue(&rescued), [2, 3]);
        // With its beginning, and with a part of it.
        for lost in [2, 4] {
            let rescued = log.without(&[1, lost], ONE_FILE);
            assert!(rescued.losses.shards.contains(&0), "{lost}");
            // That 1 is over is not known.
            assert_eq!(queue(&rescued), [1, 2, 3], "{lost}");
        }
    }

    /// Where one session may be missing, those behind it have other numbers among another number of shards.
    #[test]
    fn a_number_counts_for_a_session_of_another_number_of_shards_only_where_it_is_sure() {
        let mut log = Log::new();
        let (a, b) = (message("a"), message("b"));
        log.frame([opened(1, "one")]);
        log.frame([opened(2, "two"), queued(2, 1, &a)]);
        log.frame([Record::Ended { session: number(1) }]);
        log.shards = vec![2, 2, 2, 1, 1];
        log.begin();
        // The second is the first now.
        log.frame([queued(1, 2, &b)]);
        log.frame([opened(1, "two"), queued(1, 3, &b)]);
        let entries = |rescued: &Rescued, name: &str| {
            let mut sessions = rescued.images[&0].sessions.values();
            let session = sessions.find(|session| &*session.opened.client_id == name);
            let session = session.unwrap_or_else(|| panic!("{name}"));
            session.entries.keys().copied().collect::<Vec<_>>()
        };
        let rescued = log.without(&[], ONE_FILE);
        assert!(rescued.losses == Losses::default() && rescued.faults.is_empty());
        assert_eq!(entries(&rescued, "two"), [1, 2, 3]);
        // Without the end of the first it would be the first's.
        let rescued = log.without(&[2], &|place| place as u64);
        assert!(entries(&rescued, "one").is_empty());
        assert_eq!(entries(&rescued, "two"), [1, 2, 3], "named later");
        log.frames.truncate(4);
        let rescued = log.without(&[2], &|place| place as u64);
        assert!(entries(&rescued, "one").is_empty());
        assert_eq!(entries(&rescued, "two"), [1], "not named");
        let losses = rescued.losses;
        assert_eq!((losses.unnamed, losses.unnamed_messages), (1, 1));
    }
}
