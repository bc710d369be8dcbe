//! The log on a disk that forgets, over many lives: what was safe is there, in order, and nothing else is.

mod disk;

use crate::number;
use crate::random::Random;
use disk::{Faults, SimDisk};
use ringmq::storage::log::frame::{Found, Frame};
use ringmq::storage::log::progress::Live;
use ringmq::storage::log::scan::{Damage, Heads, What};
use ringmq::storage::log::segment::{LogId, SegmentHead};
use ringmq::storage::log::{Log, LogConfig, LogError};
use std::collections::{BTreeMap, VecDeque};

const SEEDS: u64 = 1_500;
const SEGMENT_BYTES: u64 = 32 * 1024;
const ID: LogId = LogId([3; 16]);

const fn config() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT_BYTES,
        bytes_max: u64::MAX,
    }
}

/// A frame with this number in it, and more.
fn frame(number: u64, random: &mut Random) -> Frame {
    let mut frame = Frame::new(Vec::new(), random.below(4) as u16);
    let filler = match random.below(10) {
        0 => random.below(9_000),
        _ => random.below(300),
    };
    frame.records().extend_from_slice(&number.to_le_bytes());
    let bytes = frame.wire().len() + filler;
    frame.records().resize(bytes, 0xA5);
    frame.ticket = number;
    frame.seal();
    frame
}

/// What is known from outside.
#[derive(Default)]
struct Known {
    /// The number of the frame at each place, as it was written last.
    frames: BTreeMap<u64, u64>,
    /// All before it was said to be safe.
    safe: u64,
    /// All before it may be gone with its segments.
    removed: u64,
    next_number: u64,
}

impl Known {
    /// What was found is all that was safe, from the oldest segment on, and beyond it only what was written.
    fn check(&self, found: &BTreeMap<u64, u64>) -> Result<(), String> {
        for (sequence, number) in found {
            if self.frames.get(sequence) != Some(number) {
                return Err(format!("{number} was never written at {sequence}"));
            }
        }
        for (sequence, number) in self.frames.range(self.removed..self.safe) {
            if found.get(sequence) != Some(number) {
                return Err(format!("{number} at {sequence} was safe and is lost"));
            }
        }
        Ok(())
    }

    /// Some frames go out, in groups as they come.
    fn write(&mut self, log: &mut Log<SimDisk>, random: &mut Random) -> Result<(), LogError> {
        let mut waiting = VecDeque::new();
        for _ in 0..random.below(6) {
            waiting.push_back(frame(self.next_number, random));
            self.next_number += 1;
        }
        let places = log.next_sequence()..;
        let numbers = waiting.iter().map(|frame| frame.ticket);
        self.frames.extend(places.zip(numbers));
        let mut appended = log.append(&mut waiting, 1, |_, _| {});
        // What found no room is written when there is, or never.
        while let Err(LogError::Full(_)) = &appended
            && random.chance(500)
        {
            appended = log.append(&mut waiting, 1, |_, _| {});
        }
        self.frames.split_off(&log.next_sequence().max(self.safe));
        appended.or_else(|error| match error {
            LogError::Full(_) => Ok(()),
            error => Err(error),
        })?;
        log.sync()?;
        self.safe = log.next_sequence();
        Ok(())
    }

    /// The oldest segment goes.
    fn remove(&mut self, log: &mut Log<SimDisk>) -> Result<(), LogError> {
        let next_oldest = log.segment() - log.segments() + 2;
        self.removed = log.disk().first_sequence(next_oldest);
        log.remove_oldest(1)?;
        self.safe = log.next_sequence();
        Ok(())
    }
}

/// One life of a log on this disk, until it crashes, fails or is closed.
fn live(mut disk: SimDisk, known: &mut Known, random: &mut Random) -> Result<SimDisk, String> {
    disk.set_faults(Faults {
        crash: random.pick(&[0, 10, 50]),
        full: random.pick(&[0, 0, 300]),
        failing: random.pick(&[0, 0, 10]),
    });
    let mut found = BTreeMap::new();
    let mut is_in_order = true;
    let take = |frame: Found<'_>, _: Heads<'_>| {
        is_in_order &= found
            .last_key_value()
            .is_none_or(|(last, _)| *last < frame.sequence);
        found.insert(frame.sequence, frame.ticket);
    };
    let mut log = match Log::open(disk, config(), (ID, 1), 1, take) {
        Ok((log, _)) => log,
        Err((LogError::Damaged(damage), _)) => return Err(format!("refused: {damage}")),
        Err((_, disk)) => return Ok(end(disk, random)),
    };
    if !is_in_order {
        return Err("the order is lost".to_owned());
    }
    known.check(&found)?;
    // What was found is safe from now on.
    known.safe = log.next_sequence();
    known.frames.split_off(&known.safe);
    for _ in 0..random.below(60) {
        let done = match random.below(24) {
            0 => log.mark(1),
            20..=22 => log.prepare(),
            23 => log.finish(),
            1..=3 if log.segments() > 3 => known.remove(&mut log),
            _ => known.write(&mut log, random),
        };
        if !matches!(done, Ok(()) | Err(LogError::Full(_))) {
            break;
        }
    }
    Ok(end(log.into_disk(), random))
}

fn end(disk: SimDisk, random: &mut Random) -> SimDisk {
    if disk.has_crashed || random.chance(500) {
        disk.cut()
    } else {
        disk.killed()
    }
}

fn simulate(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut known = Known::default();
    let mut disk = SimDisk::new(Random::new(seed ^ 0xD15C));
    for life in 0..3 + random.below(5) {
        disk = live(disk, &mut known, &mut random)
            .map_err(|failure| format!("life {life}: {failure}"))?;
    }
    Ok(())
}

#[test]
fn what_was_safe_is_there_after_every_crash_and_nothing_else() {
    let seeds = match number("RINGMQ_TEST_STORAGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RINGMQ_TEST_STORAGE_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(failure) = simulate(seed) {
            panic!(
                "seed {seed}: {failure}\n\
                 replay: RINGMQ_TEST_STORAGE_SEED={seed} cargo test --test sim storage"
            );
        }
    }
}

/// A log of some segments that was closed with a mark; its frames, and the disk.
fn closed(random: &mut Random) -> (BTreeMap<u64, u64>, SimDisk) {
    let disk = SimDisk::new(Random::new(7));
    let (mut log, _) = Log::open(disk, config(), (ID, 1), 1, |_, _| {}).expect("a new log");
    let mut known = Known::default();
    while log.segments() < 4 {
        known.write(&mut log, random).expect("a good disk");
    }
    log.mark(1).expect("a good disk");
    (known.frames, log.into_disk().killed())
}

fn reopen(disk: SimDisk) -> Result<BTreeMap<u64, u64>, LogError> {
    let mut found = BTreeMap::new();
    let opened = Log::open(disk, config(), (ID, 1), 1, |frame, _| {
        found.insert(frame.sequence, frame.ticket);
    });
    opened.map(|_| found).map_err(|(error, _)| error)
}

#[test]
fn a_bit_that_is_not_as_it_was_is_refused_or_does_not_matter() {
    let mut random = Random::new(11);
    let (frames, disk) = closed(&mut random);
    let mut refused = 0;
    for _ in 0..3_000 {
        let mut disk = disk.clone();
        let segment = 1 + random.below(4) as u64;
        let at = random.below(SEGMENT_BYTES as usize);
        disk.bytes_mut(segment).expect("there")[at] ^= 1 << random.below(8);
        match reopen(disk) {
            Ok(found) => assert!(found == frames, "byte {at} of segment {segment}"),
            Err(LogError::Damaged(damage)) => {
                assert_eq!(damage.segment, segment, "{damage}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 500, "{refused} of 3,000");
}

#[test]
fn files_that_are_missing_doubled_or_of_others_are_named() {
    let mut random = Random::new(12);
    let (_, disk) = closed(&mut random);
    let what = |change: &dyn Fn(&mut SimDisk)| {
        let mut disk = disk.clone();
        change(&mut disk);
        match reopen(disk) {
            Err(LogError::Damaged(Damage { segment, what, .. })) => (segment, what),
            other => panic!("{other:?}"),
        }
    };
    let missing = |segment| what(&|disk| drop(disk.remove_file(segment)));
    assert_eq!(missing(1), (1, What::Missing));
    assert_eq!(missing(2), (2, What::Missing));
    // Nothing that is left of the log says that there was more.
    assert_eq!(missing(4), (4, What::Missing));
    let all = what(&|disk| (1..=4).for_each(|it| drop(disk.remove_file(it))));
    assert_eq!(all, (1, What::AllMissing));
    let zeroed = |segment| what(&|disk| disk.bytes_mut(segment).expect("there").fill(0));
    assert_eq!(zeroed(4), (4, What::Empty));
    assert_eq!(zeroed(2), (2, What::Empty));
    let cut = what(&|disk| disk.bytes_mut(4).expect("there").truncate(20_000));
    assert!(
        matches!(cut, (4, What::Cut(SEGMENT_BYTES) | What::Frame(_))),
        "{cut:?}"
    );
    let copy = what(&|disk| {
        let bytes = disk.bytes_mut(2).expect("there").clone();
        disk.put_file(3, bytes);
    });
    assert_eq!(copy, (3, What::Number(2)));
    // Another version sums over its own number; a changed one alone is damage.
    let flipped = what(&|disk| disk.bytes_mut(2).expect("there")[8] = 9);
    assert_eq!(flipped, (2, What::Head));
    let version = what(&|disk| {
        let bytes = disk.bytes_mut(2).expect("there");
        (bytes[8], bytes[64]) = (9, !bytes[64]);
    });
    assert_eq!(version, (2, What::Version(9)));
    let (_, of_another) = {
        let disk = SimDisk::new(Random::new(8));
        let id = LogId([4; 16]);
        let (log, _) = Log::open(disk, config(), (id, 1), 1, |_, _| {}).expect("a new log");
        (0, log.into_disk())
    };
    let foreign = what(&|disk| {
        let mut of_another = of_another.clone();
        let mut bytes = of_another.bytes_mut(1).expect("there").clone();
        // Its own number, but another log's.
        let head = SegmentHead::decode(&bytes).expect("a head");
        let block = SegmentHead { number: 2, ..head }.encode();
        bytes[..block.len()].copy_from_slice(&block);
        disk.put_file(2, bytes);
    });
    assert_eq!(foreign, (2, What::Foreign(LogId([4; 16]))));
    // It says that it is another than its name does, too.
    let foreign = what(&|disk| {
        let bytes = of_another.clone().bytes_mut(1).expect("there").clone();
        disk.put_file(5, bytes);
    });
    assert_eq!(foreign, (5, What::Foreign(LogId([4; 16]))));
    // One that was made in advance, before it, is as it should be.
    let behind = what(&|disk| {
        let bytes = of_another.clone().bytes_mut(1).expect("there").clone();
        disk.put_file(5, vec![0; SEGMENT_BYTES as usize]);
        disk.put_file(6, bytes);
    });
    assert_eq!(behind, (6, What::Foreign(LogId([4; 16]))));
    // The first one of all does not make the others foreign.
    let foreign = what(&|disk| {
        let bytes = of_another.clone().bytes_mut(1).expect("there").clone();
        disk.put_file(1, bytes);
    });
    assert_eq!(foreign, (1, What::Foreign(LogId([4; 16]))));
    let of_two = what(&|disk| *disk.end_mut() = of_another.clone().end_mut().clone());
    assert_eq!(of_two, (4, What::End(LogId([4; 16]))));
}

/// What was noted of the log's end tells whether something is missing there; without it nobody knows.
#[test]
fn what_is_missing_at_the_end_is_noticed_as_far_as_it_was_noted() {
    let mut random = Random::new(15);
    let (frames, mut disk) = closed(&mut random);
    let last = disk.first_sequence(4);
    // The file made in advance tells of those before it.
    disk.end_mut().clear();
    disk.put_file(5, vec![0; SEGMENT_BYTES as usize]);
    disk.remove_file(4);
    match reopen(disk.clone()) {
        Err(LogError::Damaged(damage)) => {
            assert_eq!((damage.segment, damage.what), (4, What::Missing))
        }
        other => panic!("{other:?}"),
    }
    disk.remove_file(5);
    let left = reopen(disk).expect("nothing is known to be missing");
    let wanted = frames.into_iter().filter(|(sequence, _)| *sequence < last);
    assert!(left.into_iter().eq(wanted));
    // A log that was closed may be cut where nothing was written.
    let (frames, disk) = closed(&mut random);
    let (mut log, _) = Log::open(disk, config(), (ID, 1), 1, |_, _| {}).expect("whole");
    log.finish().expect("a good disk");
    let segment = log.segment();
    let mut disk = log.into_disk().killed();
    let bytes = disk.bytes_mut(segment).expect("there");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    bytes.truncate(written.next_multiple_of(4_096));
    assert!(reopen(disk).expect("whole") == frames);
}

/// Where no more is written than fits, no more files are there, however often it is begun.
#[test]
fn a_life_that_writes_little_goes_on_in_the_same_segment() {
    let mut random = Random::new(16);
    let mut disk = SimDisk::new(Random::new(11));
    for life in 0..20_u64 {
        let mut found = Vec::new();
        let take = |frame: Found<'_>, heads: Heads<'_>| {
            found.push((frame.ticket, (heads.this.number, frame.life)));
        };
        let opened = Log::open(disk, config(), (ID, 1), 1, take).map_err(|(error, _)| error);
        let (mut log, _) = opened.expect("whole");
        // Who has written what is known nevertheless.
        assert!(
            found.iter().map(|(ticket, _)| *ticket).eq(0..life),
            "life {life}"
        );
        found.dedup_by_key(|(_, writer)| *writer);
        assert_eq!(found.len() as u64, life);
        let mut little = frame(life, &mut random);
        while little.wire().len() > 500 {
            little = frame(life, &mut random);
        }
        log.append(&mut VecDeque::from([little]), 1, |_, _| {})
            .expect("a good disk");
        log.sync().expect("a good disk");
        log.prepare().expect("room");
        disk = log.into_disk().killed();
    }
    assert!(disk.bytes_mut(20).is_none());
    let files = (1..30).filter(|it| disk.bytes_mut(*it).is_some()).count();
    assert!(files <= 5, "{files}");
}

#[test]
fn after_a_failed_sync_nothing_is_said_to_be_safe() {
    let mut random = Random::new(13);
    let disk = SimDisk::new(Random::new(9));
    let (mut log, _) = Log::open(disk, config(), (ID, 1), 1, |_, _| {}).expect("a new log");
    let mut frames = VecDeque::from([frame(1, &mut random)]);
    log.append(&mut frames, 1, |_, _| {}).expect("a good disk");
    log.disk_mut().set_faults(Faults {
        failing: 1_000,
        ..Faults::default()
    });
    assert!(matches!(log.sync(), Err(LogError::Failed(_))));
    log.disk_mut().set_faults(Faults::default());
    assert!(matches!(log.sync(), Err(LogError::HasFailed)));
    let again = log.append(&mut frames, 1, |_, _| {});
    assert!(matches!(again, Err(LogError::HasFailed)));
}

#[test]
fn a_full_disk_is_tried_again_and_loses_nothing() {
    let mut random = Random::new(14);
    let disk = SimDisk::new(Random::new(10));
    let (mut log, _) = Log::open(disk, config(), (ID, 1), 1, |_, _| {}).expect("a new log");
    log.disk_mut().set_faults(Faults {
        full: 1_000,
        ..Faults::default()
    });
    let mut frames: VecDeque<_> = (1..=600).map(|number| frame(number, &mut random)).collect();
    let full = log.append(&mut frames, 1, |_, _| {});
    assert!(matches!(full, Err(LogError::Full(_))) && !frames.is_empty());
    log.sync().expect("what was written is safe");
    log.disk_mut().set_faults(Faults::default());
    log.append(&mut frames, 1, |_, _| {}).expect("room");
    log.sync().expect("a good disk");
    let found = reopen(log.into_disk().killed()).expect("undamaged");
    assert!(found.into_values().eq(1..=600));
}

/// A log on a disk of its own that it fills, as the bound or the disk says, with what is all still needed.
fn full(by_disk: bool, segments: u64, live: impl Fn(&Log<SimDisk>) -> Live) -> Log<SimDisk> {
    let bytes = segments * SEGMENT_BYTES;
    let mut disk = SimDisk::new(Random::new(11));
    disk.set_bytes(if by_disk { bytes } else { u64::MAX });
    let bounded = LogConfig {
        bytes_max: if by_disk { u64::MAX } else { bytes },
        ..config()
    };
    let (mut log, _) = Log::open(disk, bounded, (ID, 1), 1, |_, _| {}).expect("a new log");
    let mut random = Random::new(15);
    loop {
        log.expect_checkpoint(live(&log), false);
        if log.prepare().is_err() {
            return log;
        }
        put(&mut log, &mut random).expect("it is not full");
    }
}

fn put(log: &mut Log<SimDisk>, random: &mut Random) -> Result<(), LogError> {
    log.append(&mut VecDeque::from([frame(1, random)]), 1, |_, _| {})
}

/// However much there was to write before, what makes room can still be written on a disk that is full, and when
/// it has taken all it can, a checkpoint of what is left then.
#[test]
fn a_full_disk_has_room_for_what_makes_room() {
    for by_disk in [true, false] {
        let mut random = Random::new(16);
        let mut log = full(by_disk, 12, |_| Live {
            bytes: 0,
            settling_bytes: 2 * SEGMENT_BYTES,
        });
        let full_at = log.segment();
        while put(&mut log, &mut random).is_ok() {}
        assert!(log.segment() >= full_at + 3, "{full_at} {}", log.segment());
        assert_eq!(log.bytes(), 11 * SEGMENT_BYTES);
        assert!(matches!(log.prepare(), Err(LogError::Full(_))));
        log.expect_checkpoint(Live::default(), true);
        put(&mut log, &mut random).expect("the last one");
        assert_eq!(log.bytes(), 12 * SEGMENT_BYTES);
        for _ in 0..5 {
            log.remove_oldest(1).expect("room for the note");
        }
        log.prepare().expect("room again");
        put(&mut log, &mut random).expect("room again");
    }
}

/// What there is can be told anew on a disk that the log alone has filled, and then room comes back.
#[test]
fn a_full_disk_has_room_for_telling_anew_what_there_is() {
    for by_disk in [true, false] {
        let mut random = Random::new(16);
        let all = |log: &Log<SimDisk>| Live {
            bytes: log.bytes(),
            settling_bytes: log.bytes() / 4,
        };
        let mut log = full(by_disk, 30, all);
        let (live, segments, begins) = (all(&log), log.segments(), log.segment() + 1);
        assert!((8..=12).contains(&segments), "{segments}");
        // What makes room has taken what it may take.
        let settled_to = log.segment() + segments / 4;
        while log.segment() < settled_to {
            put(&mut log, &mut random).expect("room for what makes room");
        }
        assert!(log.left_bytes() > live.bytes + live.bytes / 4);
        log.expect_checkpoint(live, true);
        while log.segment() < settled_to + segments + segments / 4 {
            put(&mut log, &mut random).expect("room for a checkpoint");
        }
        while log.oldest() < begins {
            log.remove_oldest(1).expect("room for the note");
        }
        log.expect_checkpoint(Live::default(), false);
        log.prepare().expect("room again");
    }
}
