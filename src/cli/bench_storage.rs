//! What the log of acknowledged messages costs on a disk, beside its floor: the same groups of bytes
//! appended to one plain file with `fdatasync`, by the same thread, and nothing else.
//!
//! Producers make frames as shards do: turns of 64 publishes, each with its body, an entry for every queue
//! it goes into, and later the end of each entry. They go on when what they have in flight is safe.

use crate::storage::log::disk::{Directory, Disk, Room};
use crate::storage::log::frame::Frame;
use crate::storage::log::segment::LogId;
use crate::storage::log::writer::{Writer, WriterConfig, wall_ms};
use crate::storage::log::{Log, LogConfig};
use clap::Args;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Publishes of one turn of a shard.
const TURN: u64 = 64;
/// Bytes of a record of a body without its content, and the topic and properties in it.
const BODY_BYTES: usize = 15 + 32;
/// Bytes of an entry of a queue: of the publish, and for each queue.
const ENTRY_BYTES: (usize, usize) = (7, 5);
/// Bytes of the end of an entry.
const SETTLED_BYTES: usize = 8;

/// `bench-storage`.
#[derive(Args, Clone, Debug)]
pub struct BenchStorageArgs {
    /// Directory on the disk to measure; files are made in it and removed
    #[arg(long, value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Bytes of a payload
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=65_536))]
    payload: u32,
    /// Queues that each message goes into
    #[arg(long, value_name = "QUEUES", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    fan_out: u32,
    /// Shards that write
    #[arg(long, value_name = "SHARDS", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=128))]
    shards: u16,
    /// Publishes of a shard that are not safe yet
    #[arg(long, value_name = "PUBLISHES", default_value_t = 8_192)]
    in_flight: u64,
    /// Publishes per second of all shards together; as many as become safe unless given
    #[arg(long, value_name = "PER_SECOND")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    rate: Option<u32>,
    /// Seconds of each run
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Runs of each kind, one after the other in turns
    #[arg(long, value_name = "RUNS", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
}

/// What one run came to.
#[derive(Clone, Debug, Default)]
struct Figures {
    publishes_per_s: f64,
    cpu_us: f64,
    /// From the frame's last byte to the news that it is safe.
    commit_ms: [f64; 2],
}

/// The results of all runs.
#[derive(Debug)]
pub struct Report {
    args: BenchStorageArgs,
    floor: Vec<Figures>,
    log: Vec<Figures>,
}

fn median(runs: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BenchStorageArgs {
            payload,
            fan_out,
            shards,
            runs,
            ..
        } = &self.args;
        writeln!(
            f,
            "{payload} bytes to {fan_out} queue(s), {shards} shard(s), medians of {runs} runs in turns"
        )?;
        writeln!(f, "        publishes/s  CPU us each  commit p50 ms  p99 ms")?;
        for (name, runs) in [("floor", &self.floor), ("log", &self.log)] {
            writeln!(
                f,
                "{name:7} {:11.0}  {:11.3}  {:13.2}  {:6.2}",
                median(runs, |run| run.publishes_per_s),
                median(runs, |run| run.cpu_us),
                median(runs, |run| run.commit_ms[0]),
                median(runs, |run| run.commit_ms[1]),
            )?;
        }
        let rate = |runs: &[Figures]| median(runs, |run| run.publishes_per_s);
        write!(f, "log / floor: {:.2}", rate(&self.log) / rate(&self.floor))
    }
}

/// A plain file that only grows, in the place of a log's segments.
struct Plain {
    directory: Directory,
    segment: u64,
    offset: u64,
    bytes_max: u64,
}

impl Plain {
    fn append(&mut self, frames: &[Frame]) -> io::Result<()> {
        let bytes: usize = frames.iter().map(|frame| frame.wire().len()).sum();
        if self.offset + bytes as u64 > self.bytes_max {
            self.directory.remove(self.segment)?;
            self.segment += 1;
            let (number, bytes) = (self.segment, self.bytes_max);
            self.directory.create(number, bytes, Room::Beside(0))?;
            self.offset = 0;
        }
        let mut parts: Vec<_> = frames
            .iter()
            .map(|frame| IoSlice::new(frame.wire()))
            .collect();
        self.directory
            .write(self.segment, self.offset, &mut parts)?;
        self.offset += bytes as u64;
        self.directory.sync(self.segment)
    }
}

/// Measures a disk.
///
/// # Errors
/// What the disk says.
pub fn run(args: &BenchStorageArgs) -> io::Result<Report> {
    let place = args
        .directory
        .join(format!("ringmq-bench-{}", std::process::id()));
    let (mut floor, mut log) = (Vec::new(), Vec::new());
    let measured = (0..args.runs).try_for_each(|_| {
        floor.push(run_floor(args, &place)?);
        log.push(run_log(args, &place)?);
        Ok(())
    });
    let removed = std::fs::remove_dir_all(&place);
    measured.and(removed).map(|()| Report {
        args: args.clone(),
        floor,
        log,
    })
}

fn run_log(args: &BenchStorageArgs, place: &std::path::Path) -> io::Result<Figures> {
    std::fs::remove_dir_all(place).or_else(missing_is_fine)?;
    let directory = Directory::open(place)?;
    let id = LogId([1; 16]);
    let opened = Log::open(
        directory,
        LogConfig::default(),
        (id, args.shards),
        wall_ms(),
        |_, _| {},
    );
    let (log, _) = opened.map_err(|(error, _)| io::Error::other(error.to_string()))?;
    let config = WriterConfig {
        segments_max: Some(3),
        ..WriterConfig::default()
    };
    let writer = Writer::start(log, args.shards, config, |_| {})?;
    let Writer {
        frames,
        progress,
        thread,
    } = writer;
    // Nothing has to be told anew.
    (0..args.shards).for_each(|shard| progress.set_live(shard, 0, 0));
    let figures = measure(args, &frames, &|shard| progress.safe_ticket(shard));
    drop(frames);
    let ended = thread.join().map_err(|_| io::Error::other("it ended"))?;
    ended.map_err(|error| io::Error::other(error.to_string()))?;
    Ok(figures)
}

fn run_floor(args: &BenchStorageArgs, place: &std::path::Path) -> io::Result<Figures> {
    std::fs::remove_dir_all(place).or_else(missing_is_fine)?;
    let bytes_max = LogConfig::default().segment_bytes;
    let mut directory = Directory::open(place)?;
    directory.create(1, bytes_max, Room::Beside(0))?;
    let mut plain = Plain {
        directory,
        segment: 1,
        offset: 0,
        bytes_max,
    };
    let (frames, waiting) = crossbeam_channel::bounded::<Frame>(4_096);
    let safe: Arc<Vec<AtomicU64>> = Arc::new((0..args.shards).map(|_| AtomicU64::new(0)).collect());
    let told = Arc::clone(&safe);
    let interval = WriterConfig::default().commit_interval;
    let thread = std::thread::spawn(move || {
        let mut begun_at = Instant::now();
        while let Ok(first) = waiting.recv() {
            std::thread::sleep((begun_at + interval).saturating_duration_since(Instant::now()));
            begun_at = Instant::now();
            let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
            plain.append(&group)?;
            for frame in &group {
                if let Some(safe) = told.get(usize::from(frame.shard)) {
                    safe.store(frame.ticket, Ordering::Release);
                }
            }
        }
        io::Result::Ok(())
    });
    let figures = measure(args, &frames, &|shard| {
        let known = safe.get(usize::from(shard));
        known.map_or(0, |ticket| ticket.load(Ordering::Acquire))
    });
    drop(frames);
    thread.join().map_err(|_| io::Error::other("it ended"))??;
    Ok(figures)
}

fn missing_is_fine(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

fn cpu() -> Duration {
    let ticks = |clock| {
        let time = rustix::time::clock_gettime(clock);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    ticks(rustix::time::ClockId::ProcessCPUTime)
}

/// Lets producers write for a while.
fn measure(
    args: &BenchStorageArgs,
    frames: &crossbeam_channel::Sender<Frame>,
    safe: &(dyn Fn(u16) -> u64 + Sync),
) -> Figures {
    let (begun, begun_cpu) = (Instant::now(), cpu());
    let end = begun + Duration::from_secs(args.seconds.into());
    let (mut publishes, mut waits) = (0, Vec::new());
    std::thread::scope(|scope| {
        let producers: Vec<_> = (0..args.shards)
            .map(|shard| scope.spawn(move || produce(args, shard, frames, safe, end)))
            .collect();
        for producer in producers {
            let (of_one, its_waits) = producer.join().unwrap_or_default();
            publishes += of_one;
            waits.extend(its_waits);
        }
    });
    let (took, cpu) = (begun.elapsed(), cpu() - begun_cpu);
    waits.sort_unstable();
    let at = |per_mille: usize| {
        let place = (waits.len() * per_mille / 1_000).min(waits.len().saturating_sub(1));
        waits
            .get(place)
            .map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    };
    Figures {
        publishes_per_s: publishes as f64 / took.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / (publishes as f64).max(1.0),
        commit_ms: [at(500), at(990)],
    }
}

/// What one shard does: turns of publishes, each in a frame; how many became safe, and how long frames
/// waited.
fn produce(
    args: &BenchStorageArgs,
    shard: u16,
    frames: &crossbeam_channel::Sender<Frame>,
    safe: &(dyn Fn(u16) -> u64 + Sync),
    end: Instant,
) -> (u64, Vec<Duration>) {
    let entries = args.fan_out as usize;
    let body = vec![0x5A; BODY_BYTES + args.payload as usize];
    let queued = vec![0xA5; ENTRY_BYTES.0 + ENTRY_BYTES.1 * entries + SETTLED_BYTES * entries];
    let (mut ticket, mut waits) = (0, Vec::new());
    let mut sent = std::collections::VecDeque::new();
    // All shards take the rate's turns by turns.
    let turns = f64::from(args.shards) * TURN as f64;
    let interval = args.rate.map_or(0.0, |rate| turns / f64::from(rate));
    let interval = Duration::from_secs_f64(interval);
    let mut due = Instant::now() + interval.mul_f64(f64::from(shard) / f64::from(args.shards));
    while Instant::now() < end {
        let mut frame = Frame::new(Vec::new(), shard);
        for _ in 0..TURN {
            frame.records().extend_from_slice(&body);
            frame.records().extend_from_slice(&queued);
        }
        ticket += TURN;
        frame.ticket = ticket;
        frame.seal();
        if frames.send(frame).is_err() {
            break;
        }
        sent.push_back((ticket, Instant::now()));
        due += interval;
        loop {
            let through = safe(shard);
            while let Some((_, at)) = sent.front().filter(|(ticket, _)| *ticket <= through) {
                waits.push(Instant::elapsed(at));
                sent.pop_front();
            }
            let now = Instant::now();
            if now >= end || (now >= due && ticket - through < args.in_flight) {
                break;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    (safe(shard), waits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_nothing_stays_on_it() {
        let directory =
            std::env::temp_dir().join(format!("ringmq-bench-test-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let args = BenchStorageArgs {
            directory: directory.clone(),
            payload: 64,
            fan_out: 2,
            shards: 2,
            in_flight: 128,
            rate: None,
            seconds: 1,
            runs: 1,
        };
        let report = run(&args).expect("a good disk").to_string();
        assert!(report.contains("log / floor: "), "{report}");
        assert!(!report.contains(" 0 "), "both were written to: {report}");
        let rate = Some(1_280);
        let paced = run(&BenchStorageArgs { rate, ..args }).expect("a good disk");
        let per_s = median(&paced.log, |run| run.publishes_per_s);
        // Whatever the machine can: a rate is an upper bound, and a turn more for each shard.
        assert!(
            per_s > 0.0 && per_s <= 1_280.0 + 4.0 * TURN as f64,
            "{per_s}"
        );
        std::fs::remove_dir(&directory).expect("it is empty again");
    }
}
