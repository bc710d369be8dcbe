//! What a store consists of: kinds of records, what of it is alive, whose queues are long.

use super::check::{Counts, content_bytes, look_through};
use super::rescue::Told;
use super::walk::Walked;
use super::{ToolError, open};
use crate::engine::keys::ShardId;
use crate::engine::record::{Persist, Record};
use crate::storage::image::Image;
use crate::storage::log::LogError;
use crate::storage::log::disk::Disk;
use crate::storage::record::decoder::outline;
use crate::storage::record::encoder::Encoder;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Sessions that are named.
const LONGEST_MAX: usize = 10;

/// Records of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// How many.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A session and what waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Its client identifier.
    pub client: String,
    /// Messages on their way to it.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What there is.
#[derive(Debug)]
pub struct Stats {
    /// The log.
    pub walked: Walked,
    /// Records by kind.
    pub kinds: BTreeMap<&'static str, Kind>,
    /// What is alive.
    pub counts: Counts,
    /// Bytes of frames that would tell what is alive.
    pub live_bytes: u64,
    /// The oldest file that tells of something alive.
    pub oldest_live: Option<u64>,
    /// The longest queues.
    pub longest: Vec<Queue>,
    /// Whether all of it could be read.
    pub is_whole: bool,
}

/// Looks what a directory consists of.
///
/// # Errors
/// It cannot be read, or a broker has it.
pub fn stats(path: &Path) -> Result<Stats, ToolError> {
    let mut directory = open(path)?;
    of(&mut directory).map_err(|error| ToolError::failed(path, error))
}

fn of<D: Disk>(disk: &mut D) -> Result<Stats, LogError> {
    let mut kinds: BTreeMap<&'static str, Kind> = BTreeMap::new();
    let mut places = Places::default();
    let (checked, images) = look_through(disk, &mut |told| match told {
        Told::Frame(place) => {
            places.file = place.file;
            outline(place.frame.records, |_, name, bytes| {
                let kind = kinds.entry(name).or_default();
                kind.records += 1;
                kind.bytes += bytes as u64;
            });
        }
        Told::Record(_, client, record) => places.note(client, record),
        Told::Gap(_) | Told::LeftOut(..) => {}
    })?;
    Ok(Stats {
        is_whole: checked.is_whole(),
        walked: checked.walked,
        kinds,
        counts: checked.counts,
        oldest_live: places.oldest(&images),
        longest: longest(&images),
        live_bytes: images
            .into_iter()
            .map(|(shard, image)| bytes(shard, image))
            .sum(),
    })
}

/// Bytes of the frames that tell all of an image.
fn bytes(shard: ShardId, image: Image) -> u64 {
    let mut encoder = Encoder::new(shard, 0);
    let mut bytes = 0;
    for (ticket, record) in (1..).zip(image.into_records()) {
        encoder.put(&Persist { ticket, record });
        for frame in encoder.frames() {
            bytes += frame.wire().len() as u64;
        }
    }
    encoder.flush();
    bytes
        + encoder
            .frames()
            .map(|frame| frame.wire().len() as u64)
            .sum::<u64>()
}

fn longest(images: &BTreeMap<ShardId, Image>) -> Vec<Queue> {
    let sessions = images.values().flat_map(|image| image.sessions.values());
    let mut queues: Vec<Queue> = sessions
        .filter(|session| !session.entries.is_empty())
        .map(|session| {
            let whole = session.entries.values();
            let whole = whole.filter_map(|entry| entry.delivery.as_ref());
            Queue {
                client: session.opened.client_id.to_string(),
                messages: session.entries.len() as u64,
                bytes: whole.map(|delivery| content_bytes(&delivery.message)).sum(),
            }
        })
        .collect();
    queues.sort_by(|a, b| (b.messages, b.bytes, &a.client).cmp(&(a.messages, a.bytes, &b.client)));
    queues.truncate(LONGEST_MAX);
    queues
}

/// In which file the newest word on each thing stands. Sessions go by their clients: their numbers change
/// with that of shards.
#[derive(Default)]
struct Places {
    file: u64,
    sessions: BTreeMap<Box<str>, Session>,
    retained: BTreeMap<Box<str>, u64>,
}

#[derive(Default)]
struct Session {
    opened: u64,
    subscriptions: BTreeMap<Box<str>, u64>,
    entries: BTreeMap<u64, u64>,
}

impl Places {
    fn note(&mut self, client: Option<&str>, record: &Record) {
        let file = self.file;
        if let Record::Retained { message } = record {
            self.retained.insert(message.topic().into(), file);
        }
        let Some(client) = client else {
            return;
        };
        let session = self.sessions.entry(client.into()).or_default();
        match record {
            Record::Opened(_) => session.opened = file,
            Record::Subscribed(it) => {
                session.subscriptions.insert(it.filter.clone(), file);
            }
            Record::Queued { delivery, .. } => {
                session.entries.insert(delivery.entry, file);
            }
            Record::Settled { entry, .. } => {
                session.entries.remove(entry);
            }
            Record::Ended { .. } => {
                self.sessions.remove(client);
            }
            _ => {}
        }
    }

    fn oldest(&self, images: &BTreeMap<ShardId, Image>) -> Option<u64> {
        let mut oldest = None;
        let mut see = |file: Option<&u64>| {
            oldest = oldest.into_iter().chain(file.copied()).min();
        };
        for image in images.values() {
            for session in image.sessions.values() {
                let Some(known) = self.sessions.get(&*session.opened.client_id) else {
                    continue;
                };
                see(Some(&known.opened));
                for (filter, _) in session.subscriptions.keys() {
                    see(known.subscriptions.get(filter));
                }
                for entry in session.entries.keys() {
                    see(known.entries.get(entry));
                }
            }
            for topic in image.retained.keys() {
                see(self.retained.get(topic));
            }
        }
        oldest
    }
}
