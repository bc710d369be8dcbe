//! `ringmq store`: what an operator can do with a directory that a broker has left.

use crate::support::{
    Ack, Broker, Connect, Props, Publish, Setup, Version, Will, eventually, prop, unique,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A folder of one test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let place = std::env::temp_dir().join(unique("ringmq-store-tools"));
        fs::create_dir(&place).expect("make a folder");
        Place(place)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How `ringmq store` ended and what it said.
#[derive(Debug)]
pub struct Said {
    code: Option<i32>,
    output: String,
    complaint: String,
}

impl Said {
    #[track_caller]
    pub fn ends(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            let is_said = self.output.contains(part) || self.complaint.contains(part);
            assert!(is_said, "no '{part}' in {}{}", self.output, self.complaint);
        }
        assert!(!self.complaint.contains("panicked"), "{}", self.complaint);
    }
}

fn store(command: &str, directory: &Path, more: &[&str]) -> Said {
    let binary = std::env::var_os("RINGMQ_TEST_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_ringmq").into());
    let mut run = Command::new(binary);
    run.args(["store", command]).arg(directory).args(more);
    let output = run.output().expect("run the program");
    Said {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub fn to(command: &str, directory: &Path, to: &Path) -> Said {
    store(
        command,
        directory,
        &["--to", to.to_str().expect("a plain path")],
    )
}

fn setup(directory: &Path, shards: usize) -> Setup {
    let path = directory.to_str().expect("a plain path");
    let setup = Setup::new().shards(shards);
    setup.arg("--storage-directory").arg(path)
}

fn start(directory: &Path, shards: usize) -> Broker {
    setup(directory, shards).start()
}

const CLIENTS: usize = 4;
const MESSAGES: usize = 12;
const RETAINED: usize = 5;
const RETAINED_BYTES: usize = 500_000;
/// The least that a segment may have.
const SEGMENT_BYTES: usize = 2 << 20;

fn client(number: usize) -> String {
    format!("client-{number}")
}

/// Three lives of a broker, each in a segment of its own, since these have other sizes: sessions that subscribe, messages for all of them in
/// each life, retained messages in the first.
fn fill(directory: &Path, shards: usize) {
    fill_as(directory, [shards; 3]);
}

/// With so many shards in each life.
fn fill_as(directory: &Path, shards: [usize; 3]) {
    for (life, shards) in shards.into_iter().enumerate() {
        // So much is alive that no segment is given back, with small ones at last.
        let bytes = [16 * SEGMENT_BYTES, 12 * SEGMENT_BYTES, SEGMENT_BYTES][life];
        let config = format!("[storage]\nsegment_bytes = {bytes}\n");
        let broker = setup(directory, shards).config(&config).start();
        if life == 0 {
            for number in 0..CLIENTS {
                let will = Will::new("last", "words").qos(1);
                let connect = Connect::new(Version::V5, &client(number)).persistent();
                let mut client = connect.will(will).open(&broker);
                client.subscribe("queue/+", 2);
                client.disconnect();
            }
        }
        let mut publisher = Connect::v5("publisher").open(&broker);
        for number in (0..MESSAGES).filter(|number| number % 3 == life) {
            let qos = 1 + number as u8 % 2;
            publisher.publish(&format!("queue/{number}"), qos, format!("message {number}"));
        }
        for number in (0..RETAINED).filter(|_| life == 0) {
            publisher.retain(&format!("kept/{number}"), 1, vec![b'v'; RETAINED_BYTES]);
        }
        publisher.disconnect();
        broker.stop();
    }
    // What was not written yet makes the tests slow.
    for segment in segments(directory) {
        change(&segment, |bytes| {
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            bytes.truncate((written + 256 * 1024).next_multiple_of(4_096));
        });
    }
}

fn copied(done: std::io::Result<u64>) {
    done.expect("copied");
}

/// Copies a store.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("make a folder");
    for file in segments(from) {
        fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copied");
    }
    fs::copy(from.join("END"), to.join("END")).expect("copied");
}

pub fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory").flatten();
    let paths = entries.map(|entry| entry.path());
    let mut segments: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .collect();
    segments.sort();
    segments
}

fn segment(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("{number:010}.seg"))
}

/// The records of a store.
fn dump(directory: &Path, more: &[&str]) -> Vec<serde_json::Value> {
    let said = store("dump", directory, more);
    let lines = said.output.lines();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    lines.map(parse).collect()
}

fn text<'v>(line: &'v serde_json::Value, key: &str) -> &'v str {
    line[key].as_str().unwrap_or_default()
}

/// The messages that wait for each client, by what they contain, in order.
fn queues(directory: &Path) -> BTreeMap<String, Vec<String>> {
    let mut queues: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in dump(directory, &["--payloads"]) {
        match text(&line, "record") {
            "session" => drop(queues.entry(text(&line, "client").to_owned()).or_default()),
            "queued" => {
                let queue = queues.entry(text(&line, "client").to_owned());
                queue.or_default().push(text(&line, "payload").to_owned());
            }
            _ => {}
        }
    }
    queues
}

#[test]
fn a_whole_store_is_told_and_looked_into() {
    let place = Place::new();
    let directory = place.at("store");
    fill(&directory, 2);
    let before: Vec<_> = segments(&directory)
        .iter()
        .map(|it| fs::read(it).expect("a segment"))
        .collect();
    store("check", &directory, &[]).ends(
        0,
        &[
            "nothing is damaged",
            "3 segment(s)",
            "0000000003.seg",
            "4 session(s) with 4 subscription(s)",
            "48 message(s) on their way",
            "5 retained message(s)",
            "2 shard(s)",
        ],
    );
    let lines = dump(&directory, &[]);
    let count = |record| {
        lines
            .iter()
            .filter(|line| text(line, "record") == record)
            .count()
    };
    assert_eq!(
        (count("queued"), count("retained")),
        (CLIENTS * MESSAGES, RETAINED)
    );
    assert!(lines.iter().all(|line| line.get("payload").is_none()));
    assert!(
        lines
            .iter()
            .all(|line| line["frame"].is_u64() && line["byte"].is_u64())
    );
    for shard in 0..2 {
        let wanted = lines.iter().filter(|line| line["shard"] == shard).count();
        let told = dump(&directory, &["--shard", &shard.to_string()]);
        assert!(told.iter().all(|line| line["shard"] == shard));
        assert_eq!(told.len(), wanted);
    }
    for queue in queues(&directory).values() {
        assert_eq!(queue.len(), MESSAGES);
    }
    let said = store("stats", &directory, &["--json"]);
    said.ends(0, &[]);
    let stats: serde_json::Value = serde_json::from_str(&said.output).expect("JSON");
    assert_eq!(stats["queued"], CLIENTS * MESSAGES);
    assert_eq!(stats["oldest_live_segment"], "0000000001.seg");
    assert_eq!(stats["longest_queues"][0]["messages"], MESSAGES);
    assert_eq!(stats["records"]["session"]["records"], CLIENTS);
    assert!(stats["live_bytes"].as_u64() > Some(0) && stats["dead_bytes"].is_u64());
    store("stats", &directory, &[]).ends(0, &["longest queues", "client-3", "subscribed"]);
    let after = segments(&directory);
    let after: Vec<_> = after
        .iter()
        .map(|it| fs::read(it).expect("a segment"))
        .collect();
    assert!(before == after, "it is as it was");
}

#[test]
fn what_is_no_store_or_in_use_is_refused_in_one_line() {
    let place = Place::new();
    let empty = place.at("empty");
    fs::create_dir(&empty).expect("make a folder");
    let file = place.at("file");
    fs::write(&file, "text").expect("written");
    let used = place.at("used");
    let broker = start(&used, 1);
    let new = place.at("new");
    let commands: [(&str, bool, bool); 5] = [
        ("check", false, false),
        ("dump", false, false),
        ("stats", false, false),
        ("salvage", true, false),
        ("backup", true, true),
    ];
    for (command, has_target, runs_beside) in commands {
        let run = |directory: &Path| match has_target {
            true => to(command, directory, &new),
            false => store(command, directory, &[]),
        };
        run(&empty).ends(2, &["nothing is stored there"]);
        run(&place.at("absent")).ends(2, &["No such file"]);
        run(&file).ends(2, &["Not a directory"]);
        if runs_beside {
            continue;
        }
        let said = run(&used);
        said.ends(1, &["a broker uses it", "ringmq store backup"]);
        assert_eq!(said.complaint.lines().count(), 1, "{}", said.complaint);
        assert!(!new.exists() && !place.at("absent").exists());
    }
    broker.stop();
    assert_eq!(fs::read_dir(&empty).expect("a folder").count(), 0);
    for command in ["salvage", "backup"] {
        to(command, &used, &used).ends(2, &["there is something already"]);
        to(command, &used, &used.join("inside")).ends(2, &["is to stay as it is"]);
        to(command, &used, &place.at("absent/new")).ends(2, &["No such file"]);
        to(command, &used, &empty).ends(0, &["safe and read again"]);
        fs::remove_dir_all(&empty).expect("removed");
        fs::create_dir(&empty).expect("make a folder");
    }
    let names = fs::read_dir(&place.0).expect("the folder").flatten();
    let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 3, "nothing is left of what failed: {names:?}");
}

#[test]
fn a_backup_is_a_store_like_the_one_that_it_was_made_of() {
    let place = Place::new();
    let (directory, copied) = (place.at("store"), place.at("copied"));
    fill(&directory, 2);
    to("backup", &directory, &copied).ends(0, &["48 message(s)"]);
    for (one, other) in segments(&directory).iter().zip(segments(&copied)) {
        assert!(fs::read(one).expect("a segment") == fs::read(other).expect("a segment"));
    }
    let broker = start(&copied, 2);
    let mut back = Connect::v5(&client(1)).persistent().open(&broker);
    assert!(back.session_present);
    assert_eq!((0..MESSAGES).map(|_| back.accept()).count(), MESSAGES);
    flip(&segment(&directory, 2), 4_096 + 50);
    to("backup", &directory, &place.at("other")).ends(1, &["is damaged", "ringmq store check"]);
}

/// While all shards write: what was acknowledged before the copy was asked for is in it, on the shards of both
/// sides, and it is whole.
#[test]
fn a_backup_of_a_store_that_is_written_to_has_what_was_acknowledged_before() {
    let place = Place::new();
    let directory = place.at("store");
    let config = format!("[storage]\nsegment_bytes = {SEGMENT_BYTES}\n");
    let broker = setup(&directory, 3).config(&config).start();
    for number in 0..CLIENTS {
        let mut client = Connect::v5(&client(number)).persistent().open(&broker);
        client.subscribe("queue/+", 2);
        client.disconnect();
    }
    let counts: Vec<_> = (0..4).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..)
        .zip(&counts)
        .map(|(number, count)| {
            let mut publisher = Connect::v5(&format!("publisher-{number}")).open(&broker);
            let (count, is_over) = (Arc::clone(count), Arc::clone(&is_over));
            std::thread::spawn(move || {
                for sent in 1_u64.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    publisher.publish(&format!("queue/{number}"), 1, sent.to_string());
                    // It makes the log long, and is over with the next one.
                    publisher.retain(&format!("kept/{number}"), 1, vec![7; 20_000]);
                    count.store(sent, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut copies = Vec::new();
    for round in 0..6 {
        let before: Vec<_> = counts.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let copy = place.at(&format!("copy-{round}"));
        to("backup", &directory, &copy).ends(0, &["safe and read again"]);
        copies.push((copy, before));
        eventually("it is written to", || {
            let mut counts = counts.iter().zip(&copies[round].1);
            counts
                .all(|(it, before)| it.load(Ordering::Relaxed) > before + 20)
                .then_some(())
        });
    }
    is_over.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.join().expect("a client");
    }
    broker.stop();
    for (copy, before) in copies {
        store("check", &copy, &[]).ends(0, &["nothing is damaged"]);
        let broker = start(&copy, 2);
        for number in 0..CLIENTS {
            let mut back = Connect::v5(&client(number)).persistent().open(&broker);
            let mut came: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
            let all: u64 = before.iter().sum();
            let has_all = |came: &BTreeMap<Vec<u8>, Vec<u64>>| {
                let topics = (0..).zip(&before);
                let mut topics = topics.map(|(it, count)| (format!("queue/{it}"), *count));
                topics.all(|(topic, count)| {
                    came.get(topic.as_bytes()).map_or(0, |it| it.len() as u64) >= count
                })
            };
            while all > 0 && !has_all(&came) {
                let publish = back.accept();
                let text = String::from_utf8(publish.payload).expect("a number");
                came.entry(publish.topic)
                    .or_default()
                    .push(text.parse().expect("a number"));
            }
            for numbers in came.values() {
                assert!(
                    numbers.iter().copied().eq(1..=numbers.len() as u64),
                    "{numbers:?}"
                );
            }
        }
    }
}

fn flip(file: &Path, at: u64) {
    change(file, |bytes| bytes[at as usize] ^= 0x10);
}

fn change(file: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("a segment");
    how(&mut bytes);
    fs::write(file, bytes).expect("written");
}

/// The frame with the message `number`: its segment and byte.
fn frame_of(directory: &Path, number: usize) -> (PathBuf, u64) {
    let topic = format!("queue/{number}");
    let lines = dump(directory, &[]);
    let line = lines.iter().find(|line| text(line, "topic") == topic);
    let line = line.expect("the message");
    let byte = line["byte"].as_u64().expect("a byte");
    (directory.join(text(line, "segment")), byte)
}

/// What remains of a damaged store: the check names the damage, a broker refuses it with the commands to run,
/// what the salvage writes is whole, and a broker starts from it. The queues that it has.
#[track_caller]
fn salvaged(
    place: &Place,
    damaged: &Path,
    parts: &[&str],
) -> (BTreeMap<String, Vec<String>>, String) {
    store("check", damaged, &[]).ends(1, &["damaged", "ringmq store salvage"]);
    store("check", damaged, &[]).ends(1, parts);
    store("stats", damaged, &[]).ends(1, &["damaged"]);
    assert_eq!(store("dump", damaged, &[]).code, Some(1));
    let refused = setup(damaged, 1).run_to_end();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for part in ["ringmq store check", "ringmq store salvage"] {
        assert!(refused.log.contains(part), "{}", refused.log);
    }
    let before: Vec<_> = segments(damaged)
        .iter()
        .map(|it| fs::read(it).expect("a segment"))
        .collect();
    let new = place.at(&unique("new"));
    let said = to("salvage", damaged, &new);
    said.ends(0, parts);
    let after = segments(damaged);
    let after: Vec<_> = after
        .iter()
        .map(|it| fs::read(it).expect("a segment"))
        .collect();
    assert!(before == after, "the old one is as it was");
    store("check", &new, &[]).ends(0, &["nothing is damaged"]);
    let queues = queues(&new);
    let broker = start(&new, 1);
    for (client, wanted) in &queues {
        let mut back = Connect::v5(client).persistent().open(&broker);
        assert!(back.session_present, "{client}");
        let mut got: Vec<_> = (0..wanted.len()).map(|_| back.accept().payload).collect();
        let mut wanted: Vec<_> = wanted.iter().map(|it| it.clone().into_bytes()).collect();
        got.sort();
        wanted.sort();
        assert_eq!(got, wanted, "{client}");
        back.expect_nothing();
    }
    broker.stop();
    fs::remove_dir_all(&new).expect("removed");
    (queues, said.output)
}

/// All messages but these.
fn all_but(lost: &[usize]) -> Vec<String> {
    let numbers = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11];
    let kept = numbers.iter().filter(|number| !lost.contains(number));
    kept.map(|number| format!("message {number}")).collect()
}

#[track_caller]
fn has_all_but(queues: &BTreeMap<String, Vec<String>>, lost: &[usize]) {
    assert_eq!(queues.len(), CLIENTS);
    for queue in queues.values() {
        assert_eq!(*queue, all_but(lost));
    }
}

/// A bit in each field of a frame's header, in its records: it alone is lost, and everybody who lost something
/// by it is named.
#[test]
fn a_damaged_frame_is_named_and_all_others_are_salvaged() {
    let place = Place::new();
    let directory = place.at("store");
    fill(&directory, 1);
    let (file, byte) = frame_of(&directory, 4);
    let file = file.file_name().expect("a name");
    // length, shard, kind, sequence, ticket, synced, both checksums, records
    for at in [0, 2, 4, 6, 8, 15, 16, 24, 32, 36, 40, 60] {
        let damaged = place.at(&unique("damaged"));
        copy(&directory, &damaged);
        flip(&damaged.join(file), byte + at);
        let at_byte = format!("at byte {byte}");
        let (queues, said) = salvaged(
            &place,
            &damaged,
            &[
                "0000000002.seg: frame",
                &at_byte,
                "session 'client-0': 1 message(s) are lost",
                "session 'client-3': 1 message(s) are lost",
            ],
        );
        has_all_but(&queues, &[4]);
        // Where the header is right, it tells whose the frame was.
        let is_known = said.contains("of shard 0");
        assert_eq!(is_known, at >= 40, "{at}: {said}");
        fs::remove_dir_all(&damaged).expect("removed");
    }
}

/// A bit in each field of a segment's first block: nothing is lost.
#[test]
fn all_is_salvaged_where_a_first_block_is_damaged() {
    let place = Place::new();
    let directory = place.at("store");
    fill(&directory, 1);
    // magic, version, log, number, made at, oldest, first sequence, checksum
    for at in [0, 8, 12, 27, 28, 36, 44, 52, 60] {
        let damaged = place.at(&unique("damaged"));
        copy(&directory, &damaged);
        flip(&segment(&damaged, 2), at);
        let (queues, _) = salvaged(
            &place,
            &damaged,
            &["0000000002.seg", "nothing is lost by it"],
        );
        has_all_but(&queues, &[]);
        // In all of them: then nothing tells the log's name but what is damaged.
        flip(&segment(&damaged, 1), at);
        flip(&segment(&damaged, 3), at);
        let (queues, _) = salvaged(&place, &damaged, &["0000000001.seg", "0000000003.seg"]);
        has_all_but(&queues, &[]);
        fs::remove_dir_all(&damaged).expect("removed");
    }
}

#[test]
fn segments_that_are_cut_missing_doubled_or_of_another_log_are_named() {
    let place = Place::new();
    let (directory, other) = (place.at("store"), place.at("other"));
    fill(&directory, 1);
    fill(&other, 1);
    let (second, byte) = frame_of(&directory, 7);
    assert_eq!(second, segment(&directory, 2));
    let damaged = |how: &dyn Fn(&Path)| {
        let damaged = place.at(&unique("damaged"));
        copy(&directory, &damaged);
        how(&damaged);
        damaged
    };
    let cut = damaged(&|it| change(&segment(it, 2), |bytes| bytes.truncate(byte as usize + 20)));
    let (queues, _) = salvaged(
        &place,
        &cut,
        &["0000000002.seg: frame", "3': 2 message(s) are lost"],
    );
    has_all_but(&queues, &[7, 10]);
    let missing = damaged(&|it| fs::remove_file(segment(it, 2)).expect("removed"));
    let parts = [
        "0000000002.seg is missing",
        "'client-1': 4 message(s) are lost",
    ];
    let (queues, _) = salvaged(&place, &missing, &parts);
    has_all_but(&queues, &[1, 4, 7, 10]);
    let doubled = damaged(&|it| copied(fs::copy(segment(it, 2), segment(it, 4))));
    let parts = [
        "0000000004.seg is a copy of 0000000002.seg",
        "nothing is lost by it",
    ];
    has_all_but(&salvaged(&place, &doubled, &parts).0, &[]);
    let moved = damaged(&|it| fs::rename(segment(it, 2), segment(it, 4)).expect("moved"));
    has_all_but(
        &salvaged(&place, &moved, &["0000000004.seg is a copy"]).0,
        &[],
    );
    let foreign = damaged(&|it| copied(fs::copy(segment(&other, 2), segment(it, 4))));
    let parts = ["0000000004.seg belongs to another log"];
    has_all_but(&salvaged(&place, &foreign, &parts).0, &[]);
    // As a killed broker leaves it: the file that was made in advance is no damage, whatever stands behind.
    let spare = damaged(&|it| {
        fs::write(segment(it, 4), vec![0; SEGMENT_BYTES]).expect("written");
        copied(fs::copy(segment(&other, 2), segment(it, 5)));
    });
    let parts = [
        "0000000005.seg belongs to another log",
        "damaged in 1 place",
    ];
    store("check", &spare, &[]).ends(1, &parts);
    has_all_but(&salvaged(&place, &spare, &parts[..1]).0, &[]);
    let instead = damaged(&|it| copied(fs::copy(segment(&other, 2), segment(it, 2))));
    let parts = [
        "0000000002.seg belongs to another log",
        "4 message(s) are lost",
    ];
    has_all_but(&salvaged(&place, &instead, &parts).0, &[1, 4, 7, 10]);
    let zeroed = damaged(&|it| change(&segment(it, 2), |bytes| bytes[4_096..].fill(0)));
    has_all_but(
        &salvaged(&place, &zeroed, &["4 message(s) are lost"]).0,
        &[1, 4, 7, 10],
    );
    let block = damaged(&|it| {
        let from = byte as usize / 4_096 * 4_096;
        change(&segment(it, 2), |bytes| {
            bytes[from..from + 4_096].fill(0xA5)
        });
    });
    let (queues, _) = salvaged(&place, &block, &["at byte", "message(s) are lost"]);
    for queue in queues.values() {
        assert!(queue.len() >= 8 && queue.len() < MESSAGES, "{queue:?}");
    }
    // The first of all, with the sessions themselves: what comes after it has no names.
    let first = damaged(&|it| fs::remove_file(segment(it, 1)).expect("removed"));
    let parts = ["0000000001.seg is missing", "an unknown number of frames"];
    let (queues, said) = salvaged(&place, &first, &parts);
    assert!(queues.is_empty(), "{queues:?}");
    assert!(
        said.contains("4 session(s) of which the names are lost"),
        "{said}"
    );
}

/// What was never acknowledged is no damage, and a salvage leaves it out as a start does.
#[test]
fn a_torn_end_is_no_damage() {
    let place = Place::new();
    let directory = place.at("store");
    fill(&directory, 1);
    change(&segment(&directory, 3), |bytes| {
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
        let at = end.next_multiple_of(4_096);
        bytes[at..at + 100].fill(0x55);
    });
    let torn = ["100 bytes from", "never acknowledged"];
    store("check", &directory, &[]).ends(0, &torn);
    to("salvage", &directory, &place.at("new")).ends(0, &torn);
    to("backup", &directory, &place.at("backup")).ends(0, &["48 message(s)"]);
    let has_said = |line: &serde_json::Value| line["torn_bytes"] == 100;
    assert!(dump(&directory, &[]).iter().any(has_said));
    for name in ["new", "backup", "store"] {
        let broker = start(&place.at(name), 1);
        assert!(
            Connect::v5(&client(2))
                .persistent()
                .open(&broker)
                .session_present
        );
    }
}

const ABSENT: usize = 6;

/// A store of which the first segments are gone: what they told was told anew, and something came later.
fn fill_and_clean(directory: &Path, shards: usize) {
    let config = format!("[storage]\nsegment_bytes = {SEGMENT_BYTES}\n");
    let broker = setup(directory, shards).config(&config).start();
    for number in 0..ABSENT {
        let mut client = Connect::v5(&client(number)).persistent().open(&broker);
        client.subscribe(&format!("queue/{number}/+"), 1);
        client.disconnect();
    }
    let mut publisher = Connect::v5("publisher").open(&broker);
    for number in 0..ABSENT {
        publisher.publish(&format!("queue/{number}/a"), 1, format!("first {number}"));
        publisher.retain(&format!("kept/{number}"), 1, format!("value {number}"));
    }
    // Each is over with the next one.
    let message = Publish::new("kept/much", 1, vec![7; 1_000]).retain();
    for _ in 0..10 * SEGMENT_BYTES / 20_000 {
        let ids: Vec<_> = (0..20).map(|_| publisher.send_publish(&message)).collect();
        for id in ids {
            publisher.wait_ack(Ack::Puback, id);
        }
    }
    publisher.retain("kept/much", 1, "");
    for number in 0..ABSENT {
        publisher.publish(&format!("queue/{number}/b"), 1, format!("next {number}"));
    }
    eventually("the space is there again", || {
        let is_first_gone = !segment(directory, 1).exists();
        (is_first_gone && segments(directory).len() <= 3).then_some(())
    });
    for number in 0..ABSENT {
        publisher.publish(&format!("queue/{number}/c"), 1, format!("last {number}"));
    }
    publisher.disconnect();
    broker.stop();
}

#[test]
fn a_store_that_was_cleaned_is_told_and_salvaged() {
    for shards in [1, 3] {
        let place = Place::new();
        let directory = place.at("store");
        fill_and_clean(&directory, shards);
        let parts = [
            "nothing is damaged",
            "6 session(s) with 6 subscription(s)",
            "18 message(s) on their way",
            "6 retained message(s)",
        ];
        store("check", &directory, &[]).ends(0, &parts);
        store("stats", &directory, &[]).ends(0, &["client-5", "checkpoint", "alive"]);
        let dumped = store("dump", &directory, &[]);
        dumped.ends(0, &["checkpoint begins", "told anew", "checkpoint ends"]);
        to("salvage", &directory, &place.at("new")).ends(0, &parts);
        to("backup", &directory, &place.at("backup")).ends(0, &parts[1..]);
        // What came last for one client: he alone has lost something.
        let lines = dump(&directory, &[]);
        let last = lines
            .iter()
            .rev()
            .find(|line| text(line, "topic") == "queue/2/c");
        let last = last.expect("the message");
        let damaged = place.at("damaged");
        copy(&directory, &damaged);
        let byte = last["byte"].as_u64().expect("a byte");
        flip(&damaged.join(text(last, "segment")), byte + 60);
        let (queues, _) = salvaged(&place, &damaged, &["at byte", "frame"]);
        assert_eq!(queues.len(), ABSENT);
        for number in 0..ABSENT {
            let queue = &queues[&client(number)];
            let all = ["first", "next", "last"].map(|it| format!("{it} {number}"));
            let is_his = number == 2 && *queue == all[..2];
            assert!(
                is_his || number != 2 && *queue == all,
                "{number}: {queue:?}"
            );
        }
        // What was told anew: a broker starts with what is left.
        let ends = lines
            .iter()
            .find(|line| text(line, "record") == "checkpoint ends");
        let ends = ends.expect("the end of a checkpoint");
        let byte = ends["byte"].as_u64().expect("a byte");
        copy(&directory, &place.at("torn"));
        flip(&place.at("torn").join(text(ends, "segment")), byte + 30);
        salvaged(&place, &place.at("torn"), &["at byte", "frame"]);
    }
}

#[test]
fn a_store_of_another_number_of_shards_is_told_and_salvaged() {
    let place = Place::new();
    let directory = place.at("store");
    fill_as(&directory, [4, 3, 3]);
    let parts = [
        "nothing is damaged",
        "4 session(s) with 4 subscription(s)",
        "48 message(s) on their way",
        "5 retained message(s)",
        "3 shard(s)",
    ];
    store("check", &directory, &[]).ends(0, &parts);
    to("salvage", &directory, &place.at("new")).ends(0, &parts);
    to("backup", &directory, &place.at("backup")).ends(0, &parts[1..]);
    let said = store("stats", &directory, &["--json"]);
    said.ends(0, &[]);
    let stats: serde_json::Value = serde_json::from_str(&said.output).expect("JSON");
    assert_eq!(stats["oldest_live_segment"], "0000000001.seg");
    assert_eq!(stats["longest_queues"][0]["messages"], MESSAGES);
    // Sessions are called otherwise since, and are the same clients'.
    has_all_but(&queues(&directory), &[]);
    // Since the number of shards has changed: all the rest is there.
    let damaged = |number| {
        let damaged = place.at(&unique("damaged"));
        copy(&directory, &damaged);
        let (file, byte) = frame_of(&directory, number);
        flip(&damaged.join(file.file_name().expect("a name")), byte + 60);
        salvaged(&place, &damaged, &["at byte", "message(s)"]).0
    };
    let queues = damaged(4);
    assert_eq!(queues.len(), CLIENTS);
    let (all, without) = (all_but(&[]), all_but(&[4]));
    assert!(queues.values().all(|it| *it == all || *it == without));
    assert!(queues.values().any(|it| *it == without));
    // Before: which sessions' the later messages are is not known, and nobody gets those of another.
    let queues = damaged(3);
    assert_eq!(queues.len(), CLIENTS);
    for queue in queues.values() {
        assert!(all_but(&[3]).starts_with(queue) || all.starts_with(queue));
        assert!(queue.len() >= 3, "{queue:?}");
    }
}

/// What Mosquitto 2.1 has by its plugin: one message on its way, one that waits, one that is retained.
const PERSIST_SQLITE: &str = r#"
    CREATE TABLE version_info (component TEXT NOT NULL, major INTEGER, minor INTEGER, patch INTEGER);
    CREATE TABLE base_msgs (store_id INT64 PRIMARY KEY, expiry_time INT64, topic STRING NOT NULL,
        payload BLOB, source_id STRING, source_username STRING, payloadlen INTEGER, source_mid INTEGER,
        source_port INTEGER, qos INTEGER, retain INTEGER, properties STRING);
    CREATE TABLE retains (topic STRING PRIMARY KEY, store_id INT64);
    CREATE TABLE clients (client_id TEXT PRIMARY KEY, username TEXT, connection_time INT64,
        will_delay_time INT64, session_expiry_time INT64, listener_port INT, max_packet_size INT,
        max_qos INT, retain_available INT, session_expiry_interval INT, will_delay_interval INT);
    CREATE TABLE subscriptions (client_id TEXT NOT NULL, topic TEXT NOT NULL,
        subscription_options INTEGER, subscription_identifier INTEGER, PRIMARY KEY (client_id, topic));
    CREATE TABLE client_msgs (client_id TEXT NOT NULL, cmsg_id INT64, store_id INT64, dup INTEGER,
        direction INTEGER, mid INTEGER, qos INTEGER, retain INTEGER, state INTEGER,
        subscription_identifier INTEGER);
    CREATE TABLE wills (client_id TEXT PRIMARY KEY, payload BLOB, topic STRING NOT NULL,
        payloadlen INTEGER, qos INTEGER, retain INTEGER, properties STRING);
    INSERT INTO version_info VALUES ('database_schema', 1, 1, 0);
    INSERT INTO base_msgs VALUES (1, 0, 'a/sent', 'sent', 'p', NULL, 4, 1, 1883, 1, 0, NULL),
        (2, 0, 'a/queued', 'queued', 'p', NULL, 6, 2, 1883, 2, 0,
         '[{"identifier":"content-type","value":"kind"},{"identifier":"correlation-data","value":"0AFF"},
           {"identifier":"user-property","name":"n","value":"v"}]'),
        (3, 0, '12', 'kept', 'p', NULL, 4, 3, 1883, 1, 1, NULL),
        (4, 0, 'a/broken', 'x', 'p', NULL, 1, 4, 1883, 1, 0, '[{"identifier":"none"}]');
    INSERT INTO retains VALUES ('12', 3);
    INSERT INTO clients VALUES ('one', 'ann', 0, 0, 0, 1883, 0, 2, 1, -1, 0);
    INSERT INTO subscriptions VALUES ('one', 'a/+', 2, 7), ('one', '$share/g/b', 1, 0);
    INSERT INTO client_msgs VALUES ('one', 1, 1, 0, 1, 5, 1, 0, 3, 7),
        ('one', 2, 2, 0, 1, 0, 2, 0, 11, 7), ('one', 3, 4, 0, 1, 0, 1, 0, 11, 7);
    INSERT INTO wills VALUES ('one', 'x', 'last', 1, 0, 0, NULL);
"#;

#[test]
fn a_database_of_mosquittos_plugin_is_taken_over() {
    let place = Place::new();
    let (file, directory) = (place.at("mosquitto.sqlite3"), place.at("store"));
    let database = rusqlite::Connection::open(&file).expect("a database");
    // As the plugin does: what was committed may stand beside the file.
    let mode = database.pragma_update(None, "journal_mode", "WAL");
    mode.expect("changed");
    database.execute_batch(PERSIST_SQLITE).expect("filled");
    let target = directory.to_str().expect("a plain path");
    let more = ["--to", target, "--shards", "2", "--no-users"];
    store("import-mosquitto", &file, &more).ends(
        0,
        &[
            "a message of topic 'a/broken': its properties",
            "the will of 'one' (topic 'last')",
        ],
    );
    drop(database);
    let broker = start(&directory, 2);
    let mut one = Connect::v5("one").persistent().open(&broker);
    assert!(one.session_present);
    let sent = one.recv_publish();
    assert_eq!((sent.payload_str(), sent.dup, sent.id), ("sent", true, 5));
    one.ack(Ack::Puback, sent.id);
    let queued = one.accept();
    assert_eq!((queued.payload_str(), queued.qos), ("queued", 2));
    let props = Props::new()
        .variable(prop::SUBSCRIPTION_ID, 7)
        .text(prop::CONTENT_TYPE, "kind")
        .text(prop::CORRELATION_DATA, b"\x0A\xFF");
    assert_eq!(queued.props, props.user("n", "v"));
    one.expect_nothing();
    let mut publisher = Connect::v5("publisher").open(&broker);
    publisher.publish("b", 1, "to the group");
    assert_eq!(one.accept().payload_str(), "to the group");
    let mut reader = Connect::v5("reader").open(&broker);
    reader.subscribe("12", 1);
    assert!(reader.expect("12", "kept").retain);
    broker.stop();
}

#[test]
fn other_databases_are_refused() {
    let place = Place::new();
    let (file, directory) = (place.at("other.sqlite3"), place.at("store"));
    let target = directory.to_str().expect("a plain path");
    let more = ["--to", target, "--shards", "2"];
    let refused = |script: &str, part: &str| {
        let _ = fs::remove_file(&file);
        let database = rusqlite::Connection::open(&file).expect("a database");
        database.execute_batch(script).expect("filled");
        drop(database);
        store("import-mosquitto", &file, &more).ends(2, &["persist-sqlite", part]);
        assert!(!directory.exists());
    };
    refused("CREATE TABLE a (b INT);", "it is no database of");
    let later = PERSIST_SQLITE.replace("'database_schema', 1", "'database_schema', 2");
    refused(&later, "schema 2");
    fs::write(&file, b"SQLite format 3\0 and so on").expect("written");
    store("import-mosquitto", &file, &more).ends(2, &["persist-sqlite is damaged"]);
}
