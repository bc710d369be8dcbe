//! The log: lines leave whoever writes them by a bounded queue, and a thread of its own hands them on.
//!
//! Invariants: writing a line never waits and never fails, whatever becomes of where lines go (a closed
//! pipe, a full disk, a reader that stalls); what finds no room or cannot be written is counted, and said as
//! soon as that is possible again.

use crate::control::config::{LogConfig, LogFormat, LogLevel};
use crate::control::visible::spelled_out;
use crate::shard::files;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

/// Lines that may wait to be written.
const LINES_MAX: usize = 4_096;
/// Longest line; the rest of it is cut off.
const LINE_BYTES_MAX: usize = 8_192;
/// How much of a line in JSON is kept until its message is cut, so that it stays JSON.
const JSON_BYTES_MAX: usize = 1 << 20;
/// How long the end of the process waits for lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// How soon it is said again what was lost, if that could not be said.
const SAY_LOST_AGAIN: Duration = Duration::from_secs(1);
/// Events of this target are answers to the operator: written at every level.
pub const ANSWER: &str = "answer";

static LOG: OnceLock<Log> = OnceLock::new();

enum Entry {
    Line(Vec<u8>),
    /// Everything before is to be written; say when.
    Flush(Sender<()>),
    /// Somebody wants the file to be opened anew.
    Wake,
    /// Everything behind it goes there.
    Move(NewPlace),
}

struct Log {
    entries: Sender<Entry>,
    counts: &'static Counts,
}

/// Whether the file is to be opened anew; not an entry, since there may be no room for one.
static REOPEN: AtomicBool = AtomicBool::new(false);
/// Where lines are to go from now on, if there was no room for that entry.
static MOVE_TO: Mutex<Option<NewPlace>> = Mutex::new(None);
/// Whether lines are JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);
/// Whether a terminal, or the journal, takes them.
static IS_TERMINAL: AtomicBool = AtomicBool::new(false);
static IS_JOURNAL: AtomicBool = AtomicBool::new(false);

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

/// Begins the log, on standard error or in a file.
///
/// # Errors
/// The file cannot be written.
pub fn start(config: &LogConfig) -> io::Result<()> {
    let NewPlace(place) = NewPlace::open(config)?;
    let (entries, to_write) = crossbeam_channel::bounded(LINES_MAX);
    let writes = thread::Builder::new().name("log".into());
    let started = writes.spawn(move || write(&to_write, place, &COUNTS));
    if started.is_err() {
        say("no thread for the log can be started; raise the limit of threads (`ulimit -u`)");
        return Ok(());
    }
    let log = LOG.get_or_init(|| Log {
        entries,
        counts: &COUNTS,
    });
    set_form(config);
    let (wanted, handle) = reload::Layer::new(wanted(config.level));
    let set = move |level| handle.reload(self::wanted(level)).is_ok();
    // A log begins once.
    let _ = SET_LEVEL.set(Box::new(set));
    LEVEL.store(config.level as u8, Ordering::Relaxed);
    let plain = fmt::format().with_target(false);
    let form = Form {
        json: plain.clone().json().flatten_event(true),
        // The journal has a time of its own.
        of_journal: plain.clone().with_ansi(false).without_time(),
        of_terminal: plain.clone().with_ansi(true),
        plain: plain.with_ansi(false),
    };
    let lines = fmt::layer().with_writer(Lines(log)).event_format(form);
    let lines = lines.with_filter(wanted);
    tracing_subscriber::registry().with(lines).init();
    Ok(())
}

/// Lines look so from now on.
fn set_form(config: &LogConfig) {
    let is_stderr = config.file.is_none();
    IS_JSON.store(config.format == LogFormat::Json, Ordering::Relaxed);
    IS_TERMINAL.store(is_stderr && io::stderr().is_terminal(), Ordering::Relaxed);
    IS_JOURNAL.store(is_stderr && writes_to_journal(), Ordering::Relaxed);
}

/// Lines look, and go, as that says from now on; `place` is where, if it is another one.
pub fn follow(config: &LogConfig, place: Option<NewPlace>) {
    if let (Some(place), Some(log)) = (place, LOG.get()) {
        let moved = log.entries.try_send(Entry::Move(place));
        // Without room there is something to write, before which that is seen.
        if let Err(TrySendError::Full(Entry::Move(place))) = moved {
            *MOVE_TO.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        }
    }
    set_form(config);
}

/// Where lines may go, opened already.
pub struct NewPlace(Box<dyn Place>);

impl NewPlace {
    /// Where that says.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(config: &LogConfig) -> io::Result<Self> {
        Ok(NewPlace(match &config.file {
            Some(path) => Box::new(LogFile::open(path)?),
            None => Box::new(io::stderr()),
        }))
    }
}

/// What is written at a level.
fn wanted(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    // What libraries say is not in an operator's words.
    Targets::new()
        .with_target("ringmq", LevelFilter::from_level(level))
        .with_target(ANSWER, LevelFilter::INFO)
}

/// How the level is set once the log has begun.
static SET_LEVEL: OnceLock<Box<dyn Fn(LogLevel) -> bool + Send + Sync>> = OnceLock::new();
/// The level in force.
static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Info as u8);

/// Writes what is of that level from now on; false if there is no log.
pub fn set_level(level: LogLevel) -> bool {
    let is_set = SET_LEVEL.get().is_some_and(|set| set(level));
    if is_set {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
    is_set
}

/// The level in force.
#[must_use]
pub fn level() -> LogLevel {
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
    ];
    let number = LEVEL.load(Ordering::Relaxed);
    let found = levels.into_iter().find(|level| *level as u8 == number);
    found.unwrap_or_default()
}

/// Whether standard error is systemd's journal.
fn writes_to_journal() -> bool {
    let said = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stream = rustix::fs::fstat(io::stderr());
    stream.is_ok_and(|stream| is_stream(&said, stream.st_dev, stream.st_ino))
}

/// Whether `DEVICE:INODE` says this stream: a child of a service may have another one.
fn is_stream(said: &str, device: u64, inode: u64) -> bool {
    let parts = said.split_once(':');
    let parts = parts.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    parts == Some((device, inode))
}

/// How lines look, by what is wanted now; for the journal with their priority in front.
struct Form<J, S, P> {
    json: J,
    of_journal: S,
    of_terminal: P,
    plain: P,
}

impl<S, N, J, F, P> FormatEvent<S, N> for Form<J, F, P>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    J: FormatEvent<S, N>,
    F: FormatEvent<S, N>,
    P: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let [is_json, is_journal, is_terminal] =
            [&IS_JSON, &IS_JOURNAL, &IS_TERMINAL].map(|flag| flag.load(Ordering::Relaxed));
        if is_journal {
            to.write_str(priority(*event.metadata().level()))?;
        }
        match (is_json, is_journal, is_terminal) {
            (true, ..) => self.json.format_event(context, to, event),
            (_, true, _) => self.of_journal.format_event(context, to, event),
            (.., true) => self.of_terminal.format_event(context, to, event),
            _ => self.plain.format_event(context, to, event),
        }
    }
}

/// As sd-daemon(3) has them.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Has the log file opened anew, as after it was moved away.
pub fn reopen() {
    if let Some(log) = LOG.get() {
        REOPEN.store(true, Ordering::Relaxed);
        // Without room there is something to write anyway.
        let _ = log.entries.try_send(Entry::Wake);
    }
}

/// Where lines go.
trait Place: Write + Send {
    /// Goes on in a new file of the same name, if it is one.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Place for io::Stderr {}

struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("log_file: {}: {e}", path.display()));
        let file = files::append(path).map_err(io::Error::from);
        Ok(LogFile {
            path: path.to_owned(),
            file: file.map_err(named)?,
        })
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Place for LogFile {
    fn reopen(&mut self) -> io::Result<()> {
        *self = LogFile::open(&self.path)?;
        Ok(())
    }
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

impl Counts {
    fn lost(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }
}

/// Where lines go, and how many lost ones that place was told of.
struct Written<'a> {
    to: Box<dyn Place>,
    counts: &'a Counts,
    said: u64,
}

impl Written<'_> {
    fn owes_a_word(&self) -> bool {
        self.counts.lost() != self.said
    }

    /// Says how many lines were lost since that was said, if that can be said now.
    fn say_what_is_lost(&mut self) {
        let lost = self.counts.lost();
        if lost != self.said {
            let more = lost - self.said;
            let text = format!("{more} log lines were left out: nobody took them\n");
            if self.to.write_all(text.as_bytes()).is_ok() {
                self.said = lost;
            }
        }
    }

    fn move_to(&mut self, NewPlace(place): NewPlace) {
        let _ = self.to.flush();
        self.to = place;
    }

    fn reopen(&mut self) {
        if let Err(error) = self.to.reopen() {
            // The old file stays; an operator looks there or at standard error.
            let text = format!("{error}: lines go on to the file that was open before\n");
            let _ = self.to.write_all(text.as_bytes());
            say(text.trim_end());
        }
    }
}

fn write(entries: &Receiver<Entry>, to: Box<dyn Place>, counts: &Counts) {
    let mut written = Written {
        to,
        counts,
        said: 0,
    };
    loop {
        // No line may follow that could say it.
        let entry = if written.owes_a_word() {
            entries.recv_timeout(SAY_LOST_AGAIN)
        } else {
            entries.recv().map_err(RecvTimeoutError::from)
        };
        if REOPEN.swap(false, Ordering::Relaxed) {
            written.reopen();
        }
        let moved = MOVE_TO
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(place) = moved {
            written.move_to(place);
        }
        written.say_what_is_lost();
        match entry {
            Ok(Entry::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Entry::Move(place)) => written.move_to(place),
            Ok(Entry::Line(line)) => {
                if written.to.write_all(&line).is_err() {
                    counts.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(Entry::Flush(done)) => {
                let _ = written.to.flush();
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Disconnected) => return,
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
        let bytes_max = if IS_JSON.load(Ordering::Relaxed) {
            JSON_BYTES_MAX
        } else {
            LINE_BYTES_MAX
        };
        let room = bytes_max.saturating_sub(self.bytes.len());
        self.bytes.extend(bytes.iter().take(room));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut bytes = visible(std::mem::take(&mut self.bytes));
        if IS_JSON.load(Ordering::Relaxed) && bytes.len() > LINE_BYTES_MAX {
            bytes = visible(shortened(&bytes));
        } else if bytes.len() >= LINE_BYTES_MAX {
            bytes.truncate(LINE_BYTES_MAX);
            bytes.extend_from_slice("...\n".as_bytes());
        }
        if self.log.entries.try_send(Entry::Line(bytes)).is_err() {
            self.log.counts.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A line with letters spelled out that nobody sees.
fn visible(line: Vec<u8>) -> Vec<u8> {
    if line.iter().all(|byte| *byte < 0x7F) {
        return line;
    }
    match spelled_out(&String::from_utf8_lossy(&line)) {
        Cow::Borrowed(_) => line,
        Cow::Owned(spelled) => spelled.into_bytes(),
    }
}

/// A line in JSON with its message cut.
fn shortened(line: &[u8]) -> Vec<u8> {
    let begin = line.iter().position(|byte| *byte == b'{').unwrap_or(0);
    let (priority, json) = line.split_at(begin);
    let mut fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(json).unwrap_or_default();
    let message = fields.get("message").and_then(serde_json::Value::as_str);
    // Each character may take twelve bytes.
    let kept = message.unwrap_or("a log line was too long").chars();
    let kept: String = kept
        .take(LINE_BYTES_MAX / 16)
        .chain("...".chars())
        .collect();
    fields.retain(|name, _| matches!(name.as_str(), "timestamp" | "level"));
    fields.insert("message".to_owned(), kept.into());
    let mut cut = priority.to_owned();
    cut.extend_from_slice(serde_json::Value::Object(fields).to_string().as_bytes());
    cut.push(b'\n');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Where lines go, out of order at times.
    #[derive(Clone, Default)]
    struct Frail {
        is_broken: Arc<Mutex<bool>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Place for Frail {}

    impl Write for Frail {
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
    fn the_journal_is_known_by_its_stream_and_lines_by_their_priority() {
        assert!(is_stream("9:77", 9, 77));
        for said in ["", "9", "9:", "9:78", "8:77", "a:b"] {
            assert!(!is_stream(said, 9, 77), "{said}");
        }
        let all = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG];
        assert_eq!(all.map(priority), ["<3>", "<4>", "<6>", "<7>"]);
    }

    #[test]
    fn a_long_line_in_json_stays_json() {
        let message = "\u{1}".repeat(LINE_BYTES_MAX);
        let long = serde_json::json!({"level": "INFO", "message": message, "more": 1});
        let cut = shortened(format!("<6>{long}\n").as_bytes());
        assert!(cut.len() < LINE_BYTES_MAX && cut.ends_with(b"}\n"));
        let json: serde_json::Value = serde_json::from_slice(&cut[3..]).unwrap();
        assert_eq!(json["level"], "INFO");
        assert!(json["message"].as_str().unwrap().ends_with("\u{1}..."));
        assert!(shortened(b"no JSON").ends_with(b"too long...\"}\n"));
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
        let place = Frail::default();
        let to = Box::new(place.clone());
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
        // Nobody has to say more before that is said.
        *place.is_broken.lock().unwrap() = true;
        say("fifth");
        flush();
        place.written.lock().unwrap().clear();
        *place.is_broken.lock().unwrap() = false;
        while place.written.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        let written = String::from_utf8(place.written.lock().unwrap().clone()).unwrap();
        assert_eq!(written, "1 log lines were left out: nobody took them\n");
    }
}
