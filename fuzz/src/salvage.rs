//! A store with damage of any kind: what is left of it is found without a panic, nothing in it is made up, it
//! can be written anew and is whole then; and it is called damaged exactly where a start would refuse it.
//!
//! Input: changes to three segments of two shards, and two processes each, or to the note of where they end, each of four bytes: what, where (two), with what.

use ringmq::engine::codec::Version;
use ringmq::engine::keys::{SessionNumber, ShardId};
use ringmq::engine::message::{LocalMessage, Message, Qos};
use ringmq::engine::record::{Opened, Persist, Record, Step, Subscription};
use ringmq::engine::session::{Delivery, SubscriptionIds};
use ringmq::engine::time::Timestamp;
use ringmq::storage::image::Image;
use ringmq::storage::log::disk::{Disk, Room};
use ringmq::storage::log::segment::LogId;
use ringmq::storage::log::{Log, LogConfig};
use ringmq::storage::record::encoder::Encoder;
use ringmq::storage::tool::check::{Counts, look_through};
use ringmq::storage::tool::dump::{DumpConfig, write};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};

const SHARDS: ShardId = 2;
const SESSIONS: u64 = 4;
const ROUNDS: u64 = 12;
const LIVES: u64 = 6;
const SEGMENT_BYTES: u64 = 96 * 1024;
const CHANGES_MAX: usize = 16;

/// Files in memory.
#[derive(Clone, Debug, Default)]
struct Files(BTreeMap<u64, Vec<u8>>, Vec<u8>);

impl Disk for Files {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.0.keys().copied().collect())
    }

    fn create(&mut self, segment: u64, bytes: u64, _: Room) -> io::Result<()> {
        self.0.insert(segment, vec![0; bytes as usize]);
        Ok(())
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.0.remove(&segment);
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, segment: u64, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let file = self.0.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
        let mut at = offset as usize;
        for part in parts {
            let place = file.get_mut(at..at + part.len());
            place
                .ok_or(io::ErrorKind::StorageFull)?
                .copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }

    fn sync(&mut self, _segment: u64) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, segment: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let file = self.0.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        Ok(file[..file.len().min(bytes_max)].to_vec())
    }

    fn read_at(&mut self, segment: u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.0.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let rest = file.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_end(&mut self, block: u64, bytes: &[u8]) -> io::Result<()> {
        self.1.resize(2 * bytes.len(), 0);
        let at = block as usize * bytes.len();
        self.1[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_end(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.1.clone())
    }
}

/// What was kept.
struct Kept {
    files: Files,
    names: BTreeSet<String>,
    /// Payloads by session and entry.
    entries: BTreeMap<(String, u64), Vec<u8>>,
    retained: BTreeSet<(String, Vec<u8>)>,
}

/// One shard's history.
struct Shard {
    encoder: Encoder,
    id: ShardId,
    ticket: u64,
    /// All that it has told.
    told: Vec<Record>,
}

impl Shard {
    fn new(id: ShardId, told: Vec<Record>) -> Self {
        Shard {
            // Some records come in parts.
            encoder: Encoder::new(id, 0).with_frame_bytes_max(700),
            id,
            ticket: 0,
            told,
        }
    }

    fn session(&self, number: u64) -> SessionNumber {
        let number = (number + 1) << 16 | u64::from(self.id);
        SessionNumber(NonZeroU64::new(number).expect("not 0"))
    }

    /// Tells all there is anew, in one part.
    fn checkpoint(&mut self) {
        let mut image = Image::default();
        for record in self.told.clone() {
            image.apply(record).expect("a history");
        }
        let checkpoint = |step| std::iter::once(Record::Checkpoint(step));
        let records = checkpoint(Step::Begins).chain(checkpoint(Step::Restates));
        let records = records.chain(image.into_records());
        let records = records.chain(checkpoint(Step::Changes));
        records.for_each(|record| self.put(record));
        self.encoder.flush();
        self.put(Record::Checkpoint(Step::Ends));
    }

    fn put(&mut self, record: Record) {
        self.told.push(record.clone());
        self.ticket += 1;
        let ticket = self.ticket;
        self.encoder.put(&Persist { ticket, record });
    }
}

fn opened(session: SessionNumber, name: &str) -> Record {
    Record::Opened(Box::new(Opened {
        session,
        client_id: name.into(),
        version: Version::V5,
        user_name: None,
        own_rules: None,
        expiry_seconds: 600,
        queue_bytes_max: 1 << 20,
        will: None,
    }))
}

fn subscribed(session: SessionNumber, filter: &str) -> Record {
    Record::Subscribed(Box::new(Subscription {
        session,
        filter: filter.into(),
        share: None,
        subscription_id: 1,
        qos: Qos::ExactlyOnce,
        no_local: false,
        retain_as_published: true,
    }))
}

fn build() -> Kept {
    let files = Files::default();
    let mut kept = Kept {
        files: Files::default(),
        names: BTreeSet::new(),
        entries: BTreeMap::new(),
        retained: BTreeSet::new(),
    };
    let mut files = Some(files);
    let mut told = vec![Vec::new(); usize::from(SHARDS)];
    for life in 0..LIVES {
        let config = LogConfig {
            // A process goes on in a segment of the size that its own would have.
            segment_bytes: SEGMENT_BYTES + life / 2 * 4_096,
            ..LogConfig::default()
        };
        let disk = files.take().expect("given back");
        let opened = Log::open(disk, config, (LogId([9; 16]), SHARDS), 1_000, |_, _| {});
        let (mut log, _) = opened.expect("whole");
        let before = std::mem::take(&mut told).into_iter();
        let mut shards: Vec<_> = (0..)
            .zip(before)
            .map(|(id, it)| Shard::new(id, it))
            .collect();
        for round in life * ROUNDS / 2..(life + 1) * ROUNDS / 2 {
            let mut frames = VecDeque::new();
            for shard in &mut shards {
                live(shard, round, &mut kept);
                if round == ROUNDS + 4 {
                    shard.checkpoint();
                }
                shard.encoder.flush();
                frames.extend(shard.encoder.frames());
            }
            log.append(&mut frames, 1_000, |_, _| {}).expect("room");
            log.sync().expect("safe");
        }
        log.mark(1_000).expect("safe");
        log.finish().expect("safe");
        told.extend(shards.into_iter().map(|shard| shard.told));
        files = Some(log.into_disk());
    }
    kept.files = files.expect("given back");
    for file in kept.files.0.values_mut() {
        let written = file.iter().rposition(|byte| *byte != 0).expect("a head") + 1;
        file.truncate(written.next_multiple_of(4_096) + 4_096);
    }
    kept
}

/// What happens in a round.
fn live(shard: &mut Shard, round: u64, kept: &mut Kept) {
    if round < SESSIONS || round.is_multiple_of(9) {
        // A new session, in place of the one with that name if there is one.
        if let Some(before) = round.checked_sub(9).filter(|it| *it >= SESSIONS) {
            let session = shard.session(before);
            shard.put(Record::Ended { session });
        }
        let session = shard.session(round);
        let name = if round < SESSIONS {
            format!("client {round} of {}", shard.id)
        } else {
            format!("late of {}", shard.id)
        };
        kept.names.insert(name.clone());
        shard.put(opened(session, &name));
        shard.put(subscribed(session, "a/#"));
    }
    let payload = vec![round as u8; 40 + (round as usize % 5) * 300];
    let topic = format!("a/{round}");
    let message = Message::new(&topic, b"", &payload, Qos::ExactlyOnce, true, None);
    let message = LocalMessage::new(Arc::new(message));
    for n in 0..SESSIONS.min(round) {
        let session = shard.session(n);
        let entry = round - n;
        let name = format!("client {n} of {}", shard.id);
        kept.entries.insert((name, entry), payload.clone());
        shard.put(Record::Queued {
            session,
            delivery: Delivery {
                message: message.clone(),
                qos: Qos::ExactlyOnce,
                retain: false,
                subscription_ids: SubscriptionIds::None,
                group: None,
                entry,
                queued_at_ds: 0,
            },
            origin: None,
        });
    }
    kept.retained.insert((topic, payload));
    shard.put(Record::Retained {
        message: message.share(),
    });
    let session = shard.session(0);
    let packet_id = (round % 7) as u16 + 1;
    if round > 0 {
        shard.put(Record::Sent {
            session,
            entry: round,
            packet_id,
        });
    }
    match round % 4 {
        _ if round < 4 => {}
        0 => shard.put(Record::Received {
            session,
            entry: round,
            packet_id,
        }),
        1 => shard.put(Record::Accepted {
            session,
            packet_id,
            number: 0,
        }),
        2 => shard.put(Record::Released { session, packet_id }),
        _ => shard.put(Record::Left {
            session,
            at: Timestamp::from_ms(round),
        }),
    }
    // Its packet identifier is taken again later.
    if round > 5 {
        shard.put(Record::Settled {
            session,
            entry: round - 5,
        });
    }
}

/// Changes the files as the input says; whether that was anything.
fn damage(files: &mut Files, input: &[u8]) {
    for change in input.chunks_exact(4).take(CHANGES_MAX) {
        let &[what, high, low, value] = change else {
            return;
        };
        let numbers: Vec<u64> = files.0.keys().copied().collect();
        let Some(&number) = numbers.get(usize::from(what >> 4) % numbers.len().max(1)) else {
            return;
        };
        let file = files.0.get_mut(&number).expect("named");
        // Half of all headers stand at such a place.
        let at = usize::from(u16::from_be_bytes([high, low])) * file.len() / 65_536;
        match what & 0xF {
            0 => file.truncate(at),
            1 => drop(files.0.remove(&number)),
            2 => {
                let copy = file.clone();
                files.0.insert(u64::from(value), copy);
            }
            3 => {
                let moved = files.0.remove(&number).expect("named");
                files.0.insert(u64::from(value), moved);
            }
            4 => {
                let to = at.saturating_add(usize::from(value) * 16).min(file.len());
                file[at..to].fill(0);
            }
            5 => {
                let at = at / 4_096 * 4_096;
                let block = file.get(at..at + 4_096).map(<[u8]>::to_vec);
                file.extend(block.unwrap_or_default());
            }
            7 => {
                let end = &mut files.1;
                let place = at % 68 + usize::from(value & 1) * 4_096;
                end[place] ^= value | 2;
            }
            6 => {
                if let Some(byte) = file.get_mut(at % 64) {
                    *byte = value;
                }
            }
            _ => {
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= value;
                }
            }
        }
    }
}

/// Looks at what is left.
pub fn salvage(input: &[u8]) {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    let kept = KEPT.get_or_init(build);
    let mut files = kept.files.clone();
    damage(&mut files, input);
    let before = files.0.clone();
    let (checked, images) = look_through(&mut files, &mut |_| {}).expect("memory can be read");
    let is_refused = checked.refused.is_some();
    assert_eq!(
        is_refused,
        !checked.walked.gaps.is_empty(),
        "{:?}",
        (&checked.refused, &checked.walked.gaps)
    );
    assert!(
        checked.faults.is_empty() || is_refused,
        "{:?}",
        checked.faults
    );
    let lines = &mut Vec::new();
    let config = DumpConfig {
        shard: None,
        payloads: true,
    };
    let is_whole = write(&mut files, config, lines).expect("memory");
    assert!(!is_whole || !is_refused);
    assert!(files.0 == before, "it is as it was");
    let counts = Counts::of(images.values());
    for (shard, image) in &images {
        nothing_is_made_up(kept, *shard, image);
    }
    let mut again = anew(images);
    let (checked, _) = look_through(&mut again, &mut |_| {}).expect("memory can be read");
    assert!(checked.is_whole(), "{checked:?}");
    assert_eq!(checked.counts, counts);
}

fn nothing_is_made_up(kept: &Kept, shard: ShardId, image: &Image) {
    assert!(shard < SHARDS);
    let mut names = BTreeSet::new();
    for session in image.sessions.values() {
        let name = session.opened.client_id.to_string();
        assert!(names.insert(name.clone()), "{name} twice");
        assert!(kept.names.contains(&name), "{name}");
        let mut packet_ids = BTreeSet::new();
        for (entry, it) in &session.entries {
            if let Some(delivery) = &it.delivery {
                let payload = kept.entries.get(&(name.clone(), *entry));
                assert_eq!(payload.map(Vec::as_slice), Some(delivery.message.payload()));
            }
            if let Some((_, packet_id)) = it.sent {
                assert!(packet_ids.insert(packet_id), "{packet_id} twice");
            }
        }
    }
    for message in image.retained.values() {
        let one = (message.topic().to_owned(), message.payload().to_vec());
        assert!(kept.retained.contains(&one), "{}", one.0);
    }
}

fn anew(images: BTreeMap<u16, Image>) -> Files {
    let opened = Log::open(
        Files::default(),
        LogConfig {
            segment_bytes: 1 << 17,
            ..LogConfig::default()
        },
        (LogId([4; 16]), images.len() as ShardId),
        1,
        |_, _| {},
    );
    let (mut log, _) = opened.expect("a new one");
    for (shard, image) in images {
        let mut encoder = Encoder::new(shard, 0).with_frame_bytes_max(1 << 15);
        for (ticket, record) in (1..).zip(image.into_records()) {
            encoder.put(&Persist { ticket, record });
        }
        encoder.flush();
        let mut frames = encoder.frames().collect();
        log.append(&mut frames, 1, |_, _| {}).expect("room");
    }
    log.mark(1).expect("safe");
    log.into_disk()
}
