//! What a power cut may leave of a broker's directory: the broker records what it does to it, and from the
//! record the directory is made as it may be after a cut at each sync and at random moments: what was not
//! synced is there, lost or torn, sector by sector, and names are there or not. What a client had heard an
//! acknowledgement for by then is found in each.

#[path = "../sim/random.rs"]
#[allow(dead_code, reason = "the simulator uses the rest")]
mod random;
#[path = "../sim/storage/disk.rs"]
#[allow(dead_code, reason = "the simulator uses the rest")]
mod sim_disk;

use crate::on_shards;
use crate::storage::{Place, kill};
use crate::support::{Broker, Connect, Setup, unique};
use random::Random;
use ringmq::storage::epoch::Epochs;
use ringmq::storage::image::Image;
use ringmq::storage::log::disk::{Disk, Room};
use ringmq::storage::log::segment::{LogId, file_name};
use ringmq::storage::log::{Log, LogConfig};
use ringmq::storage::rehome::images;
use sim_disk::SimDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::IoSlice;
use std::path::PathBuf;

/// The least that a segment may have.
const SEGMENT_BYTES: u64 = 2 << 20;
/// Random moments, besides all syncs.
const CUTS: usize = 200;
/// Of all cuts, those that a real broker is started on.
const BROKERS: usize = 8;
const LIVES: usize = 2;
const PUBLISHERS: usize = 4;
const ROUNDS: usize = 50;
const ABSENT: usize = 3;
const RETAINED_BYTES: usize = 25_000;

on_shards! { [1, 4]
    what_was_acknowledged_is_there_after_a_power_cut_at_any_moment,
}

/// One operation of the record, and the bytes of the record up to its end.
struct Step {
    end: u64,
    operation: u8,
    number: u64,
    value: u64,
    bytes: Vec<u8>,
}

/// What a client had heard when the record was so long.
#[derive(Clone, Copy, Debug)]
struct Heard {
    length: u64,
    publisher: usize,
    /// So many messages, from 0 on, and a retained one for each.
    count: usize,
}

struct Recorded {
    steps: Vec<Step>,
    /// When all sessions were there.
    subscribed: u64,
    heard: Vec<Heard>,
}

fn what_was_acknowledged_is_there_after_a_power_cut_at_any_moment(shards: usize) {
    let seed: u64 = match std::env::var("RINGMQ_TEST_CUT_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => std::process::id().into(),
    };
    eprintln!("again: RINGMQ_TEST_CUT_SEED={seed} cargo test --test behaviour power_cut");
    let recorded = record(shards);
    let mut random = Random::new(seed);
    let mut moments: BTreeSet<usize> = (0..CUTS)
        .map(|_| random.below(recorded.steps.len()))
        .collect();
    let is_sync = |step: &Step| [3, 5, 6].contains(&step.operation);
    let steps = (0..).zip(&recorded.steps);
    moments.extend(steps.filter(|(_, step)| is_sync(step)).map(|(at, _)| at));
    let of_brokers: BTreeSet<usize> = (0..BROKERS)
        .map(|part| moments.len() * (part + 1) / BROKERS - 1)
        .collect();
    let (mut disk, mut place) = (SimDisk::new(Random::new(seed)), 0);
    for (at, step) in recorded.steps.iter().enumerate() {
        apply(&mut disk, step);
        if !moments.contains(&at) {
            continue;
        }
        let what = format!("seed {seed}, {shards} shard(s), operation {at}");
        let cut = disk.clone().cut();
        check(cut.clone(), &recorded, step.end, shards, &what);
        if of_brokers.contains(&place) {
            check_broker(cut, &recorded, step.end, shards, &what);
        }
        place += 1;
    }
    eprintln!(
        "{place} cuts of {} operations, {BROKERS} brokers started",
        recorded.steps.len()
    );
    let removed = recorded.steps.iter().filter(|step| step.operation == 2);
    assert!(removed.count() >= LIVES, "segments have come and gone");
}

/// Some lives of a broker under load, as it has recorded them.
fn record(shards: usize) -> Recorded {
    let place = Place::new();
    let trace = std::env::temp_dir().join(unique("ringmq-trace"));
    let setup = setup(&place, shards).arg("--trace-storage");
    let setup = setup.arg(trace.to_str().expect("a plain path"));
    let (mut heard, mut subscribed) = (Vec::new(), 0);
    for life in 0..LIVES {
        let broker = setup.start();
        if life == 0 {
            for number in 0..ABSENT {
                let name = format!("absent-{number}");
                let mut client = Connect::v5(&name).persistent().open(&broker);
                client.subscribe("queue/+", 2);
                client.disconnect();
            }
            subscribed = length(&trace);
        }
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| publish(&broker, publisher, life, trace.clone()))
            .collect();
        for publisher in publishers {
            heard.extend(publisher.join().expect("a client"));
        }
        kill(broker);
    }
    let steps = read(&fs::read(&trace).expect("the record"));
    let _ = fs::remove_file(&trace);
    Recorded {
        steps,
        subscribed,
        heard,
    }
}

fn setup(place: &Place, shards: usize) -> Setup {
    let config = format!(
        "[storage]\nsegment_bytes = {SEGMENT_BYTES}\ncommit_interval_us = 3000\n\
         [limits]\nqueue_messages_max = 100000\n"
    );
    place.setup(shards).config(&config)
}

fn length(trace: &PathBuf) -> u64 {
    fs::metadata(trace).expect("the record").len()
}

/// Messages for all that are absent, and retained ones that make the log long and are over with the next.
fn publish(
    broker: &Broker,
    publisher: usize,
    life: usize,
    trace: PathBuf,
) -> std::thread::JoinHandle<Vec<Heard>> {
    let name = format!("publisher-{publisher}");
    let mut client = Connect::v5(&name).open(broker);
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        for number in life * ROUNDS..(life + 1) * ROUNDS {
            let qos = 1 + publisher as u8 % 2;
            client.publish(&format!("queue/{publisher}"), qos, number.to_string());
            let mut value = vec![7; RETAINED_BYTES];
            value[..8].copy_from_slice(&number.to_be_bytes());
            client.retain(&format!("kept/{publisher}"), 1, value);
            heard.push(Heard {
                length: length(&trace),
                publisher,
                count: number + 1,
            });
        }
        heard
    })
}

fn read(record: &[u8]) -> Vec<Step> {
    let number = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight"));
    let (mut steps, mut at) = (Vec::new(), 0);
    while at < record.len() {
        let length = u32::from_le_bytes(record[at + 17..at + 21].try_into().expect("four"));
        let bytes = record[at + 21..at + 21 + length as usize].to_vec();
        let end = at + 21 + bytes.len();
        steps.push(Step {
            end: end as u64,
            operation: record[at],
            number: number(at + 1),
            value: number(at + 9),
            bytes,
        });
        at = end;
    }
    steps
}

fn apply(disk: &mut SimDisk, step: &Step) {
    let done = match step.operation {
        1 => disk.create(step.number, step.value, Room::Beside(0)),
        2 => disk.remove(step.number),
        3 => disk.sync_directory(),
        4 => disk.write(step.number, step.value, &mut [IoSlice::new(&step.bytes)]),
        5 => disk.sync(step.number),
        6 => disk.write_end(step.number, &step.bytes),
        other => panic!("operation {other}"),
    };
    done.expect("as it was done");
}

impl Recorded {
    /// How many messages of each publisher were acknowledged by then.
    fn acknowledged(&self, by: u64) -> [usize; PUBLISHERS] {
        let mut counts = [0; PUBLISHERS];
        for heard in self.heard.iter().filter(|heard| heard.length <= by) {
            counts[heard.publisher] = counts[heard.publisher].max(heard.count);
        }
        counts
    }
}

/// A start finds all that was acknowledged.
fn check(disk: SimDisk, recorded: &Recorded, by: u64, shards: usize, what: &str) {
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        ..LogConfig::default()
    };
    let mut epochs = Epochs::default();
    let id = (LogId([5; 16]), shards as u16);
    let opened = Log::open(disk, config, id, 1, |frame, heads| {
        epochs.put(&frame, heads.this)
    });
    let (_, scan) = opened.unwrap_or_else(|(error, _)| panic!("{what}: {error}"));
    let epochs = epochs.finish(scan.segments.first().copied());
    let images = epochs.and_then(images);
    let images = images.unwrap_or_else(|why| panic!("{what}: {why}"));
    let counts = recorded.acknowledged(by);
    let queues = queues(&images);
    if by >= recorded.subscribed {
        assert_eq!(queues.len(), ABSENT, "{what}");
    }
    for (publisher, count) in counts.into_iter().enumerate() {
        for (client, queue) in &queues {
            let came = queue.get(&format!("queue/{publisher}"));
            let came = came.map_or(&[][..], Vec::as_slice);
            let is_all = came.len() >= count && came.iter().copied().eq(0..came.len());
            assert!(
                is_all,
                "{what}: {client} has {came:?} of {count} of publisher {publisher}"
            );
        }
        let topic = format!("kept/{publisher}");
        let mut values = images
            .iter()
            .filter_map(|image| image.retained.get(&*topic));
        let value = values.next().map(|value| value.payload()[..8].to_vec());
        let last = count.checked_sub(1).map(|last| last.to_be_bytes().to_vec());
        assert!(value >= last, "{what}: {topic} is {value:?}, not {last:?}");
    }
}

type Queue = BTreeMap<String, Vec<usize>>;

/// What waits for each session: numbers by topic.
fn queues(images: &[Image]) -> BTreeMap<String, Queue> {
    let mut queues = BTreeMap::new();
    for session in images.iter().flat_map(|image| image.sessions.values()) {
        let mut queue = Queue::new();
        let deliveries = session.entries.values();
        for delivery in deliveries.filter_map(|entry| entry.delivery.as_ref()) {
            let text = String::from_utf8(delivery.message.payload().to_vec());
            let number = text.expect("text").parse().expect("a number");
            let topic = delivery.message.topic().to_owned();
            queue.entry(topic).or_default().push(number);
        }
        if !session.subscriptions.is_empty() {
            queues.insert(session.opened.client_id.to_string(), queue);
        }
    }
    queues
}

/// A broker that is started on it has all that was acknowledged.
fn check_broker(mut disk: SimDisk, recorded: &Recorded, by: u64, shards: usize, what: &str) {
    let place = Place::new();
    fs::create_dir(&place.0).expect("make a folder");
    for segment in disk.segments().expect("memory") {
        let bytes = disk.read(segment, usize::MAX).expect("memory");
        fs::write(place.0.join(file_name(segment)), bytes).expect("written");
    }
    fs::write(place.0.join("END"), disk.read_end().expect("memory")).expect("written");
    let broker = setup(&place, shards).start();
    let counts = recorded.acknowledged(by);
    for number in (0..ABSENT).filter(|_| by >= recorded.subscribed) {
        let name = format!("absent-{number}");
        let mut client = Connect::v5(&name).persistent().open(&broker);
        assert!(client.session_present, "{what}: {name}");
        let mut came: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let is_there = |came: &BTreeMap<Vec<u8>, usize>| {
            let mut counts = (0..).zip(&counts);
            counts.all(|(publisher, count)| {
                let topic = format!("queue/{publisher}");
                came.get(topic.as_bytes()).copied().unwrap_or(0) >= *count
            })
        };
        while !is_there(&came) {
            let publish = client.accept();
            let next = came.entry(publish.topic).or_default();
            assert_eq!(
                publish.payload,
                next.to_string().into_bytes(),
                "{what}: {name}"
            );
            *next += 1;
        }
    }
    broker.stop();
}
