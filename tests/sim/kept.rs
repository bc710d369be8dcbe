//! Whether the records that a shard has put tell what it has: written into frames and read out of them, at any
//! moment their image is that of a snapshot; and what of them is left when the broker is killed.

use crate::random::Random;
use ringmq::engine::keys::ShardId;
use ringmq::engine::record::{Persist, Record, Step};
use ringmq::engine::shard::ShardCore;
use ringmq::engine::time::Timestamp;
use ringmq::storage::epoch::Frames;
use ringmq::storage::image::{Entry, Image, Session};
use ringmq::storage::log::frame::{Frame, Kind, Look, look};
use ringmq::storage::log::segment::LogId;
use ringmq::storage::record::decoder::Decoder;
use ringmq::storage::record::encoder::Encoder;

/// What the wall clock shows at a simulation's beginning.
const ORIGIN_MS: u64 = 1_700_000_000_000;

/// Sizes of frames: some so small that records go in parts.
const FRAME_BYTES: [usize; 4] = [104, 200, 4096, 1 << 20];

const LOG: LogId = LogId([1; 16]);

/// Frames as they are read, and the image of what they tell.
struct Reading {
    decoder: Decoder,
    image: Image,
    /// Records so far, and the ticket of the last frame.
    told: u64,
    ticket: u64,
    /// What came before a checkpoint is gone, and that has not come.
    is_before: bool,
}

impl Reading {
    fn new(is_cut: bool) -> Self {
        Reading {
            decoder: Decoder::new(ORIGIN_MS),
            image: if is_cut {
                Image::from_checkpoint()
            } else {
                Image::default()
            },
            told: 0,
            ticket: 0,
            is_before: is_cut,
        }
    }

    fn read(&mut self, frame: &[u8]) -> Result<(), String> {
        let Look::Frame(found) = look(&LOG, 1, frame) else {
            return Err("a frame is not one".to_owned());
        };
        self.is_before &= found.kind != Kind::CheckpointBegins;
        if self.is_before {
            return Ok(());
        }
        self.ticket = found.ticket;
        let (mut fault, image, told) = (None, &mut self.image, &mut self.told);
        let read = self.decoder.read(found.records, |record| {
            *told += 1;
            let text = format!("{record:?}");
            let applied = image.apply(record);
            if let (None, Err(error)) = (&fault, applied) {
                fault = Some(format!("{error}: {text}"));
            }
        });
        read.map_err(|refusal| refusal.to_string())?;
        fault.map_or(Ok(()), Err)
    }
}

/// What a turn had to store, with its first ticket in this life of the broker, 0 for an earlier one.
struct Turn {
    first: u64,
    frames: Vec<Vec<u8>>,
}

/// What one shard's records tell so far.
pub struct Kept {
    shard: ShardId,
    frame_bytes: usize,
    encoder: Encoder,
    reading: Reading,
    /// Records in since the broker was started, and those that had come out before.
    put: u64,
    told_before: u64,
    /// Frames so far.
    sequence: u64,
    /// What was written together, since the directory was made.
    turns: Vec<Turn>,
    /// The first of this life of the broker.
    life: usize,
    /// What came before a checkpoint is gone.
    is_cut: bool,
    /// Where the last checkpoint begins, and the last whole one with its end.
    begins: usize,
    whole: Option<(usize, usize)>,
    /// Checkpoints that were the beginning of what was left.
    pub cuts: u64,
    /// Why they are no history, if they are not.
    fault: Option<String>,
}

impl Kept {
    pub fn new(shard: ShardId, seed: u64) -> Self {
        let frame_bytes = FRAME_BYTES[seed as usize % FRAME_BYTES.len()];
        Kept {
            shard,
            frame_bytes,
            encoder: Encoder::new(shard, ORIGIN_MS).with_frame_bytes_max(frame_bytes),
            reading: Reading::new(false),
            put: 0,
            told_before: 0,
            sequence: 0,
            turns: Vec::new(),
            life: 0,
            is_cut: false,
            begins: 0,
            whole: None,
            cuts: 0,
            fault: None,
        }
    }

    /// What a turn has to store; its last ticket.
    pub fn put(&mut self, turn: impl Iterator<Item = Persist>) -> Option<u64> {
        let (mut first, mut last) = (None, None);
        for persist in turn {
            self.encoder.put(&persist);
            self.put += 1;
            let ticket = persist.ticket;
            match persist.record {
                Record::Checkpoint(Step::Begins) => self.begins = self.turns.len(),
                Record::Checkpoint(Step::Ends) => {
                    self.whole = Some((self.begins, self.turns.len()));
                }
                _ => {}
            }
            first.get_or_insert(ticket);
            last = Some(ticket);
        }
        let (first, last) = (first?, last?);
        let frames = self.frames();
        for frame in &frames {
            let before = self.reading.ticket;
            if self.fault.is_none() {
                self.fault = self.reading.read(frame).err();
            }
            let ticket = self.reading.ticket;
            if self.fault.is_none() && ticket < before {
                self.fault = Some(format!("ticket {ticket} after {before}"));
            }
        }
        let ends = (self.reading.told - self.told_before, self.reading.ticket);
        if self.fault.is_none() && ends != (self.put, last) {
            let put = self.put;
            self.fault = Some(format!("{put} records to {last} were put, {ends:?} came"));
        }
        self.turns.push(Turn { first, frames });
        Some(last)
    }

    /// What the encoder has, as it would stand in the log.
    fn frames(&mut self) -> Vec<Vec<u8>> {
        self.encoder.flush();
        let mut written = Vec::new();
        let frames: Vec<_> = self.encoder.frames().collect();
        for mut frame in frames {
            self.sequence += 1;
            frame.stamp(&LOG, 1, self.sequence, 0);
            written.push(frame.wire().to_vec());
            self.encoder.reuse(frame.into_buffer());
        }
        written
    }

    /// One that was found with these.
    pub fn with(shard: ShardId, seed: u64, frames: &Frames) -> Result<Self, String> {
        let mut kept = Kept::new(shard, seed);
        let frame = |records: &Vec<u8>| {
            kept.sequence += 1;
            let mut frame = Frame::new(Vec::new(), shard);
            frame.records().extend_from_slice(records);
            frame.seal();
            frame.stamp(&LOG, 1, kept.sequence, 0);
            frame.wire().to_vec()
        };
        let frames = frames.records.iter().map(frame).collect();
        kept.turns.push(Turn { first: 0, frames });
        kept.begin_life()?;
        Ok(kept)
    }

    /// All frames, as they are found.
    pub fn frames_of_all(&self) -> Frames {
        let mut frames = Frames::default();
        for frame in self.turns.iter().flat_map(|turn| &turn.frames) {
            if let Look::Frame(found) = look(&LOG, 1, frame) {
                frames.put(&found);
            }
        }
        assert!(!self.is_cut || frames.begin_with_checkpoint());
        frames
    }

    /// What there is.
    pub fn image(&self) -> Result<Image, String> {
        Ok(self.read_all()?.image)
    }

    /// The broker is killed: what is not safe up to a ticket may be lost, the last of it first.
    pub fn crash(&mut self, stored: u64, random: &mut Random) {
        let safe = self.turns.partition_point(|turn| turn.first <= stored);
        let kept = safe + random.below(self.turns.len() - safe + 1);
        self.turns.truncate(kept);
        for turn in &mut self.turns {
            turn.first = 0;
        }
        self.encoder = Encoder::new(self.shard, ORIGIN_MS).with_frame_bytes_max(self.frame_bytes);
        self.whole = self.whole.filter(|(_, ends)| *ends < self.turns.len());
    }

    /// Whether it has begun a checkpoint in this life that is whole.
    pub fn has_checkpoint(&self) -> bool {
        self.whole.is_some()
    }

    /// What is left is read.
    pub fn begin_life(&mut self) -> Result<(), String> {
        self.whole = None;
        self.life = self.turns.len();
        self.reading = self.read_all()?;
        (self.put, self.told_before) = (0, self.reading.told);
        self.reading.ticket = 0;
        Ok(())
    }

    /// What was told before the last whole checkpoint is gone: those of all shards were through.
    pub fn clean(&mut self, random: &mut Random) -> Result<(), String> {
        let Some((begins, _)) = self.whole else {
            return Ok(());
        };
        let before = lines(&self.read_all()?.image, Timestamp::from_ms(0));
        let gone = self.life + random.below(begins - self.life + 1);
        self.turns.drain(..gone);
        self.is_cut = true;
        self.cuts += 1;
        let after = lines(&self.read_all()?.image, Timestamp::from_ms(0));
        let first = before.iter().zip(&after).find(|(one, other)| one != other);
        match first {
            None if before.len() == after.len() => Ok(()),
            None => Err(format!("told {before:#?}, from a checkpoint on {after:#?}")),
            Some((one, other)) => Err(format!("told\n  {one}\nfrom a checkpoint on\n  {other}")),
        }
    }

    fn read_all(&self) -> Result<Reading, String> {
        let mut reading = Reading::new(self.is_cut);
        let frames = self.turns.iter().flat_map(|turn| &turn.frames);
        for frame in frames {
            reading.read(frame)?;
        }
        if reading.image.is_partial() {
            return Err("a checkpoint has no end".to_owned());
        }
        Ok(reading)
    }

    /// All records are in.
    pub fn check(&self, core: &ShardCore, now: Timestamp) -> Result<(), String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let mut anew = Image::default();
        let mut fault = None;
        core.snapshot(|record| {
            let applied = anew.apply(record);
            fault = fault.take().or(applied.err());
        });
        if let Some(fault) = fault {
            return Err(format!("a snapshot is no history: {fault}"));
        }
        let (told, there) = (lines(&self.reading.image, now), lines(&anew, now));
        let first = told.iter().zip(&there).find(|(told, there)| told != there);
        match first {
            None if told.len() == there.len() => Ok(()),
            None => Err(format!("records tell {told:#?}, there is {there:#?}")),
            Some((told, there)) => Err(format!("records tell\n  {told}\nthere is\n  {there}")),
        }
    }
}

fn lines(image: &Image, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    for session in image.sessions.values() {
        describe(session, &mut lines);
    }
    for message in image.retained.values() {
        if message.expires_at.is_none_or(|at| at > now) {
            let payload = String::from_utf8_lossy(message.payload());
            lines.push(format!("retained {} {payload}", message.topic()));
        }
    }
    lines
}

fn describe(session: &Session, lines: &mut Vec<String>) {
    lines.push(format!("{:?} left {:?}", session.opened, session.left_at));
    lines.extend(session.subscriptions.values().map(|it| format!("{it:?}")));
    let entry = |(number, entry): (&u64, &Entry)| {
        let id = entry.sent.map(|(_, packet_id)| packet_id);
        let Some(delivery) = &entry.delivery else {
            return format!("entry {number} {id:?} received");
        };
        let message = &delivery.message;
        let payload = String::from_utf8_lossy(message.payload());
        let (topic, qos, retain) = (message.topic(), delivery.qos, delivery.retain);
        let (ids, group) = (&delivery.subscription_ids, &delivery.group);
        format!("entry {number} {id:?} {topic} {payload} {qos:?} {retain} {ids:?} {group:?}")
    };
    lines.extend(session.entries.iter().map(entry));
    let mut sent: Vec<_> = session.entries.values().filter_map(|it| it.sent).collect();
    sent.sort_unstable();
    let sent: Vec<_> = sent.into_iter().map(|(_, packet_id)| packet_id).collect();
    lines.push(format!("sent {sent:?} accepted {:?}", session.accepted));
}
