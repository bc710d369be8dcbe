//! Whether the records that a shard has put tell what it has: written into frames and read out of them, at any
//! moment their image is that of a snapshot.

use ringmq::engine::keys::ShardId;
use ringmq::engine::record::Persist;
use ringmq::engine::shard::ShardCore;
use ringmq::engine::time::Timestamp;
use ringmq::storage::image::{Entry, Image, Session};
use ringmq::storage::log::frame::{Frame, Look, look};
use ringmq::storage::log::segment::LogId;
use ringmq::storage::record::decoder::Decoder;
use ringmq::storage::record::encoder::Encoder;

/// What the wall clock shows at a simulation's beginning.
const ORIGIN_MS: u64 = 1_700_000_000_000;

/// Sizes of frames: some so small that records go in parts.
const FRAME_BYTES: [usize; 4] = [104, 200, 4096, 1 << 20];

/// What one shard's records tell so far.
pub struct Kept {
    encoder: Encoder,
    decoder: Decoder,
    image: Image,
    /// Records in, and ticket of the last.
    put: u64,
    last_ticket: u64,
    /// Records out.
    told: u64,
    /// Frames so far, and the ticket of the last.
    frames: u64,
    frame_ticket: u64,
    /// Why they are no history, if they are not.
    fault: Option<String>,
}

impl Kept {
    pub fn new(shard: ShardId, seed: u64) -> Self {
        let frame_bytes = FRAME_BYTES[seed as usize % FRAME_BYTES.len()];
        Kept {
            encoder: Encoder::new(shard, ORIGIN_MS).with_frame_bytes_max(frame_bytes),
            decoder: Decoder::new(ORIGIN_MS),
            image: Image::default(),
            put: 0,
            last_ticket: 0,
            told: 0,
            frames: 0,
            frame_ticket: 0,
            fault: None,
        }
    }

    pub fn put(&mut self, persist: &Persist) {
        self.encoder.put(persist);
        self.put += 1;
        self.last_ticket = persist.ticket;
        // Whenever a segment begins, that is at any time.
        if persist.ticket.is_multiple_of(97) {
            self.encoder.forget_messages();
        }
    }

    /// A turn has ended: reads what it has put.
    pub fn read(&mut self) {
        self.encoder.flush();
        let frames: Vec<Frame> = self.encoder.frames().collect();
        for frame in frames {
            if self.fault.is_none() {
                self.fault = self.read_frame(frame).err();
            }
        }
        let ends = (self.told, self.frame_ticket);
        if self.fault.is_none() && ends != (self.put, self.last_ticket) {
            let (put, last) = (self.put, self.last_ticket);
            self.fault = Some(format!("{put} records to {last} were put, {ends:?} came"));
        }
    }

    fn read_frame(&mut self, mut frame: Frame) -> Result<(), String> {
        self.frames += 1;
        frame.stamp(&LogId([1; 16]), 1, self.frames, 0);
        let Look::Frame(found) = look(&LogId([1; 16]), 1, frame.wire()) else {
            return Err("a frame is not one".to_owned());
        };
        if found.ticket < self.frame_ticket {
            return Err(format!(
                "ticket {} after {}",
                found.ticket, self.frame_ticket
            ));
        }
        self.frame_ticket = found.ticket;
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
        self.encoder.reuse(frame.into_buffer());
        fault.map_or(Ok(()), Err)
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
        let (told, there) = (lines(&self.image, now), lines(&anew, now));
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
