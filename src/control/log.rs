//! The log: lines leave whoever writes them by a bounded queue, and a thread of its own hands them on.
//!
//! Invariants: writing a line never waits and never fails, whatever becomes of where lines go (a closed
//! pipe, a full disk, a reader that stalls); what finds no room or cannot be written is counted, and said as
//! soon as that is possible again.

use crate::control::config::LogLevel;
use crossbeam_channel::{Receiver, Sender};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Lines that may wait to be written.
const LINES_MAX: usize = 4_096;
/// Longest line; the rest of it is cut off.
const LINE_BYTES_MAX: usize = 8_192;
/// How long the end of the process waits for lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Events of this target are answers to the operator: written at every level.
pub const ANSWER: &str = "answer";

static LOG: OnceLock<Log> = OnceLock::new();

enum Entry {
    Line(Vec<u8>),
    /// Everything before is to be written; say when.
    Flush(Sender<()>),
}

struct Log {
    entries: Sender<Entry>,
    counts: &'static Counts,
}

/// What became of lines.
#[derive(Debug, Default)]
struct Counts {
    left_out: AtomicU64,
    failed: AtomicU64,
}

static COUNTS: Counts = Counts {
    left_out: AtomicU64::new(0),
    failed: AtomicU64::new(0),
};

/// Begins the log on standard error.
pub fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    let (entries, to_write) = crossbeam_channel::bounded(LINES_MAX);
    let writes = thread::Builder::new().name("log".into());
    let started = writes.spawn(move || write(&to_write, io::stderr(), &COUNTS));
    if started.is_err() {
        return say(
            "no thread for the log can be started; raise the limit of threads (`ulimit -u`)",
        );
    }
    let log = LOG.get_or_init(|| Log {
        entries,
        counts: &COUNTS,
    });
    let wanted = Targets::new()
        .with_default(LevelFilter::from_level(level))
        .with_target(ANSWER, LevelFilter::INFO);
    let lines = fmt::layer()
        .with_writer(Lines(log))
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_filter(wanted);
    tracing_subscriber::registry().with(lines).init();
}

/// Waits a moment until what was logged is written.
pub fn flush() {
    let Some(log) = LOG.get() else { return };
    let (done, is_done) = crossbeam_channel::bounded(1);
    if log
        .entries
        .send_timeout(Entry::Flush(done), FLUSH_MAX)
        .is_ok()
    {
        let _ = is_done.recv_timeout(FLUSH_MAX);
    }
}

/// Says something on standard error before there is a log, or where nothing else is left.
pub fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stderr(), "ringmq: {text}");
}

/// Lines that were not written: for lack of room, and because writing failed.
#[must_use]
pub fn lines_lost() -> (u64, u64) {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    (load(&COUNTS.left_out), load(&COUNTS.failed))
}

fn write(entries: &Receiver<Entry>, mut to: impl Write, counts: &Counts) {
    let mut said = (0, 0);
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                let now = (
                    counts.left_out.load(Ordering::Relaxed),
                    counts.failed.load(Ordering::Relaxed),
                );
                if now != said {
                    let left_out = now.0 - said.0 + now.1 - said.1;
                    let text = format!("{left_out} log lines were left out: nobody took them\n");
                    if to.write_all(text.as_bytes()).is_ok() {
                        said = now;
                    }
                }
                if to.write_all(&line).is_err() {
                    counts.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            Entry::Flush(done) => {
                let _ = to.flush();
                let _ = done.send(());
            }
        }
    }
}

/// Makes lines of what tracing formats.
struct Lines(&'static Log);

/// One line; it leaves when it is complete.
struct Line {
    log: &'static Log,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            log: self.0,
            bytes: Vec::new(),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LINE_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend(bytes.iter().take(room));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.len() == LINE_BYTES_MAX {
            bytes.extend_from_slice("...\n".as_bytes());
        }
        if self.log.entries.try_send(Entry::Line(bytes)).is_err() {
            self.log.counts.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Where lines go, out of order at times.
    #[derive(Clone, Default)]
    struct Place {
        is_broken: Arc<Mutex<bool>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Place {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if *self.is_broken.lock().unwrap() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_said_when_it_can_be() {
        static LOST: Counts = Counts {
            left_out: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        let (entries, to_write) = crossbeam_channel::bounded(1);
        let log: &'static Log = Box::leak(Box::new(Log {
            entries,
            counts: &LOST,
        }));
        let lines = Lines(log);
        let say = |text: &str| writeln!(lines.make_writer(), "{text}").unwrap();
        // One waits, the others find no room.
        say("first");
        say("second");
        say("third");
        let place = Place::default();
        let to = place.clone();
        thread::spawn(move || write(&to_write, to, &LOST));
        let flush = || {
            let (done, is_done) = crossbeam_channel::bounded(1);
            log.entries.send(Entry::Flush(done)).unwrap();
            is_done.recv().unwrap();
        };
        flush();
        *place.is_broken.lock().unwrap() = true;
        say("fourth");
        flush();
        *place.is_broken.lock().unwrap() = false;
        say(&"x".repeat(2 * LINE_BYTES_MAX));
        flush();
        let written = String::from_utf8(place.written.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert_eq!(lines[0], "2 log lines were left out: nobody took them");
        assert_eq!(lines[1], "first");
        assert_eq!(lines[2], "1 log lines were left out: nobody took them");
        assert_eq!(lines[3].len(), LINE_BYTES_MAX + 3);
        assert_eq!(LOST.failed.load(Ordering::Relaxed), 1);
    }
}
