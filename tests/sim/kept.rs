//! Whether the records that a shard has put tell what it has: at any moment their image is that of a snapshot;
//! and what of them is left when the broker is killed.

use crate::random::Random;
use ringmq::engine::record::{Persist, Record};
use ringmq::engine::shard::ShardCore;
use ringmq::engine::time::Timestamp;
use ringmq::storage::image::{Entry, Image, Session};

/// What one shard's records tell so far.
#[derive(Default)]
pub struct Kept {
    image: Image,
    /// What was written together, since the directory was made, with its first ticket in this life of the
    /// broker, 0 for an earlier one.
    frames: Vec<(u64, Vec<Record>)>,
    /// Why they are no history, if they are not.
    fault: Option<String>,
}

impl Kept {
    /// What a turn has to store; its last ticket.
    pub fn put(&mut self, turn: impl Iterator<Item = Persist>) -> Option<u64> {
        let (mut first, mut last) = (None, None);
        let mut frame = Vec::new();
        for Persist { ticket, record } in turn {
            first.get_or_insert(ticket);
            last = Some(ticket);
            if self.fault.is_none() {
                let applied = self.image.apply(record.clone());
                self.fault = applied.err().map(|error| format!("{error}: {record:?}"));
            }
            frame.push(record);
        }
        self.frames.extend(first.map(|first| (first, frame)));
        last
    }

    /// The broker is killed: what is not safe up to a ticket may be lost, the last of it first. What is left
    /// is what there is, in records.
    pub fn crash(&mut self, stored: u64, random: &mut Random) -> Result<Vec<Record>, String> {
        let safe = self.frames.partition_point(|(first, _)| *first <= stored);
        let kept = safe + random.below(self.frames.len() - safe + 1);
        self.frames.truncate(kept);
        for (first, _) in &mut self.frames {
            *first = 0;
        }
        self.image = self.play()?;
        Ok(self.play()?.into_records().collect())
    }

    fn play(&self) -> Result<Image, String> {
        let mut image = Image::default();
        for record in self.frames.iter().flat_map(|(_, records)| records) {
            let applied = image.apply(record.clone());
            applied.map_err(|error| format!("{error}: {record:?}"))?;
        }
        Ok(image)
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
