//! `ringmq store`: what an operator can do with a directory that a broker keeps its state in, printed.
//!
//! Exit codes: 0 done, and what was looked at is whole; 1 it is damaged, a broker has it, or it cannot be
//! done; 2 something else should have been named.

use crate::control::config::{BridgeConfig, Source};
use crate::control::visible::spelled_out;
use crate::control::{log, machine};
use crate::engine::keys::ShardId;
use crate::storage::log::LogError;
use crate::storage::log::segment::file_name;
use crate::storage::log::writer::wall_ms;
use crate::storage::tool::ToolError;
use crate::storage::tool::backup::backup;
use crate::storage::tool::check::{Checked, Counts, check};
use crate::storage::tool::dump::{DumpConfig, dump};
use crate::storage::tool::import::{ImportConfig, OfBridge, Report, import};
use crate::storage::tool::remains::Losses;
use crate::storage::tool::rescue::Fault;
use crate::storage::tool::salvage::{Salvaged, salvage};
use crate::storage::tool::stats::{Stats, stats};
use crate::storage::tool::walk::{Gap, Walked};
use clap::Subcommand;
use serde_json::json;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Damaged places, sessions and the like that are named one by one.
const NAMED_MAX: usize = 1_000;
const DAMAGED: u8 = 1;
const WRONG: u8 = 2;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Read everything, and say what there is and what is damaged
    Check {
        /// The directory
        directory: PathBuf,
    },
    /// Print every record as JSON, one a line
    Dump {
        /// The directory
        directory: PathBuf,
        /// Records of this shard alone
        #[arg(long)]
        shard: Option<ShardId>,
        /// With what messages contain
        #[arg(long)]
        payloads: bool,
    },
    /// Say what takes the space, and whose queues are long
    Stats {
        /// The directory
        directory: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write what is left of a damaged directory into a new one, and say what is lost
    Salvage {
        /// The damaged directory, which stays as it is
        directory: PathBuf,
        /// The new one
        #[arg(long, value_name = "DIRECTORY")]
        to: PathBuf,
    },
    /// Copy a directory, whether a broker uses it or not, and read the copy again
    Backup {
        /// The directory
        directory: PathBuf,
        /// The copy
        #[arg(long, value_name = "DIRECTORY")]
        to: PathBuf,
    },
    /// Make a directory of what Mosquitto has kept (mosquitto.db, versions 5 and 6)
    ImportMosquitto {
        /// Mosquitto's file; Mosquitto is stopped
        file: PathBuf,
        /// The new directory
        #[arg(long, value_name = "DIRECTORY")]
        to: PathBuf,
        /// Shards of the broker that will use it
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
        shards: ShardId,
        /// Sessions are for clients that do not log in, whatever users they had
        #[arg(long)]
        no_users: bool,
        /// Configuration of that broker: its bridges go on with what waits for those of Mosquitto that have
        /// the same client_id
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Does it.
#[must_use]
pub fn run(command: &StoreCommand) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match command {
        StoreCommand::Check { directory } => run_check(directory, &mut out),
        StoreCommand::Dump {
            directory,
            shard,
            payloads,
        } => {
            let (shard, payloads) = (*shard, *payloads);
            let config = DumpConfig { shard, payloads };
            dump(directory, config, &mut out).map(code)
        }
        StoreCommand::Stats { directory, json } => run_stats(directory, *json, &mut out),
        StoreCommand::Salvage { directory, to } => run_salvage(directory, to, &mut out),
        StoreCommand::Backup { directory, to } => run_backup(directory, to, &mut out),
        StoreCommand::ImportMosquitto {
            file,
            to,
            shards,
            no_users,
            config,
        } => bridges(config.as_deref()).and_then(|bridges| {
            let config = ImportConfig {
                shards: *shards,
                users: !no_users,
                bridges,
            };
            run_import(file, to, &config, &mut out)
        }),
    };
    // Nobody may be listening any more.
    let _ = out.flush();
    match done {
        Ok(code) => code,
        Err(ToolError::Failed(_, LogError::Failed(error)))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::say(&error.to_string());
            ExitCode::from(if error.is_wrong_use() { WRONG } else { DAMAGED })
        }
    }
}

fn code(is_whole: bool) -> ExitCode {
    ExitCode::from(if is_whole { 0 } else { DAMAGED })
}

/// Lines that are printed; who listens no more needs none.
struct Lines<'o>(&'o mut dyn Write);

impl Lines<'_> {
    fn say(&mut self, line: impl AsRef<str>) {
        let _ = writeln!(self.0, "{}", line.as_ref());
    }

    /// So many of a list, and how many more there are.
    fn say_all<T>(&mut self, list: impl IntoIterator<Item = T>, line: impl Fn(T) -> String) {
        let mut list = list.into_iter();
        for one in list.by_ref().take(NAMED_MAX) {
            self.say(line(one));
        }
        match list.count() {
            0 => {}
            more => self.say(format!("  and {more} more")),
        }
    }
}

fn run_check(directory: &Path, out: &mut dyn Write) -> Result<ExitCode, ToolError> {
    let checked = check(directory)?;
    let lines = &mut Lines(out);
    let place = directory.display();
    if checked.is_whole() {
        lines.say(format!("{place}: nothing is damaged"));
        say_what_there_is(&checked, lines);
        return Ok(code(true));
    }
    let count = checked.walked.gaps.len() + checked.faults.len();
    lines.say(format!(
        "{place}: damaged in {} place(s), a broker does not start with it",
        count.max(1)
    ));
    say_damage(&checked, lines);
    say_losses(&checked.losses, "are lost", lines);
    lines.say("what is left:");
    say_what_there_is(&checked, lines);
    lines.say(format!(
        "`ringmq store salvage {place} --to NEW` writes that to a new directory, from which a broker starts"
    ));
    Ok(code(false))
}

fn say_damage(checked: &Checked, lines: &mut Lines<'_>) {
    if checked.walked.gaps.is_empty()
        && let Some(damage) = &checked.refused
    {
        lines.say(format!("  {damage}"));
    }
    lines.say_all(checked.gaps(), gap_line);
    lines.say_all(&checked.faults, fault_line);
}

fn gap_line(gap: &Gap) -> String {
    let whose = match gap.shard {
        Some(shard) => format!("shard {shard}"),
        None => "unknown shards".to_owned(),
    };
    let lost = match &gap.frames {
        None => format!("an unknown number of frames of {whose}"),
        Some(frames) if frames.is_empty() => {
            return format!("  {}: nothing is lost by it", gap.damage);
        }
        Some(frames) if frames.end - frames.start == 1 => {
            format!("frame {} of {whose}", frames.start)
        }
        Some(frames) => format!("frames {} to {} of {whose}", frames.start, frames.end - 1),
    };
    format!("  {}: lost is {lost}", gap.damage)
}

fn fault_line(fault: &Fault) -> String {
    let file = file_name(fault.segment);
    format!(
        "  {file}: byte {}, frame {} of shard {}: {}",
        fault.offset, fault.frame, fault.shard, fault.words
    )
}

fn say_what_there_is(checked: &Checked, lines: &mut Lines<'_>) {
    let walked = &checked.walked;
    say_log(walked, lines);
    lines.say(format!(
        "  {} records of {} shard(s)",
        checked.records, checked.shards
    ));
    say_counts(&checked.counts, lines);
}

fn say_log(walked: &Walked, lines: &mut Lines<'_>) {
    if let Some(log) = walked.log {
        let first = walked.files.first().copied().unwrap_or_default();
        let last = walked.files.last().copied().unwrap_or_default();
        lines.say(format!(
            "  log {log}, {} segment(s), {} to {}, {} bytes",
            walked.files.len(),
            file_name(first),
            file_name(last),
            walked.file_bytes
        ));
    }
    let last = walked.next_sequence.saturating_sub(1);
    lines.say(format!(
        "  {} frames with records in {} bytes, the last is frame {last}; {} and all before were noted as \
         safe",
        walked.frames,
        walked.frame_bytes,
        walked.safe.min(last)
    ));
    if let Some(torn) = &walked.torn {
        lines.say(format!("  {torn} by the next start"));
    }
}

fn say_counts(counts: &Counts, lines: &mut Lines<'_>) {
    lines.say(format!(
        "  {} session(s) with {} subscription(s) and {} will(s)",
        counts.sessions, counts.subscriptions, counts.wills
    ));
    lines.say(format!(
        "  {} message(s) on their way to them, {} bytes",
        counts.queued, counts.queued_bytes
    ));
    lines.say(format!(
        "  {} retained message(s), {} bytes",
        counts.retained, counts.retained_bytes
    ));
}

fn say_losses(losses: &Losses, are_lost: &str, lines: &mut Lines<'_>) {
    let sessions = losses.sessions.iter();
    lines.say_all(sessions, |(client, messages)| {
        format!(
            "  session '{}': {messages} message(s) {are_lost}",
            spelled_out(client)
        )
    });
    if losses.unnamed > 0 {
        lines.say(format!(
            "  {} session(s) of which the names are lost, and {} message(s) for them",
            losses.unnamed, losses.unnamed_messages
        ));
    }
    lines.say_all(&losses.replaced, |client| {
        format!(
            "  session '{}': an older one of that name, whose end is lost, is left out",
            spelled_out(client)
        )
    });
    if losses.retained > 0 {
        lines.say(format!(
            "  {} retained message(s) of unknown topics are lost; what those topics had before stays",
            losses.retained
        ));
    }
    if losses.parts > 0 {
        lines.say(format!(
            "  {} part(s) of records without their beginning",
            losses.parts
        ));
    }
    if losses.repeats > 0 {
        lines.say(format!(
            "  {} QoS 2 publish(es) of clients, if they are sent again, come twice",
            losses.repeats
        ));
    }
    if !losses.shards.is_empty() {
        let shards: Vec<String> = losses.shards.iter().map(ToString::to_string).collect();
        lines.say(format!(
            "  besides, what was said last of any session or retained topic of shard(s) {} may be lost: a \
             new subscription, a later retained message, that a message was received (it comes twice then)",
            shards.join(", ")
        ));
    }
}

fn run_salvage(directory: &Path, to: &Path, out: &mut dyn Write) -> Result<ExitCode, ToolError> {
    let Salvaged { old, new } = salvage(directory, to)?;
    let lines = &mut Lines(out);
    if old.is_whole() {
        lines.say(format!("{}: nothing is damaged", directory.display()));
    } else {
        lines.say(format!("left out of {}:", directory.display()));
        say_damage(&old, lines);
        say_losses(&old.losses, "are lost", lines);
    }
    if let Some(torn) = &old.walked.torn {
        lines.say(format!("  {torn}"));
    }
    lines.say(format!("{}: written, safe and read again", to.display()));
    say_what_there_is(&new, lines);
    lines.say(format!(
        "start the broker with this directory in place of {}",
        directory.display()
    ));
    Ok(code(true))
}

fn run_backup(directory: &Path, to: &Path, out: &mut dyn Write) -> Result<ExitCode, ToolError> {
    let copied = backup(directory, to)?;
    let lines = &mut Lines(out);
    lines.say(format!("{}: copied, safe and read again", to.display()));
    say_what_there_is(&copied, lines);
    Ok(code(true))
}

/// Bridges of a configuration that may go on for those of Mosquitto.
fn bridges(config: Option<&Path>) -> Result<Vec<OfBridge>, ToolError> {
    let Some(path) = config else {
        return Ok(Vec::new());
    };
    let source = Source {
        path: Some(path.to_owned()),
        cpus_available: machine::cpus(),
        cpu_quota: machine::group_bounds().cpu,
        ..Source::default()
    };
    let config = source
        .load()
        .map_err(|error| ToolError::Wrong(error.to_string()))?;
    let lasting = |it: &&Arc<BridgeConfig>| it.is_persistent && it.part.is_none();
    let bridges = config.bridges.iter().filter(lasting).filter_map(|it| {
        let client_id = it.client_id.as_deref()?;
        Some(OfBridge::by_client_id(client_id, &it.name, &it.local_user))
    });
    Ok(bridges.collect())
}

fn run_import(
    file: &Path,
    to: &Path,
    config: &ImportConfig,
    out: &mut dyn Write,
) -> Result<ExitCode, ToolError> {
    let (checked, report) = import(file, to, config)?;
    let lines = &mut Lines(out);
    lines.say(format!("{}: written, safe and read again", to.display()));
    say_what_there_is(&checked, lines);
    say_left_out(&report, lines);
    Ok(code(true))
}

/// What could not be taken from Mosquitto, and what is not in its file.
fn say_left_out(report: &Report, lines: &mut Lines<'_>) {
    let left_out = &report.left_out;
    lines.say_all(left_out, |words| {
        format!("  left out: {}", spelled_out(words))
    });
    for (session, messages) in &report.for_bridges {
        lines.say(format!(
            "  {messages} message(s) that waited for a bridge go on with '{session}'"
        ));
    }
    let mut say_number = |number: u64, words: &str| {
        if number > 0 {
            lines.say(format!("  {number} {words}"));
        }
    };
    say_number(
        report.at_qos_0,
        "queued message(s) of QoS 0 are left out: such are never kept",
    );
    say_number(
        report.without_message,
        "queued message(s) are left out: their content is not in the file, they had expired",
    );
    say_number(
        report.unknown,
        "part(s) of the file are of unknown kinds and left out",
    );
    say_number(
        report.passed_on,
        "QoS 2 publish(es) that clients had not released are passed on to the sessions above",
    );
    say_number(
        report.of_users,
        "session(s) belong to users: they are taken up by clients that log in as the same user, and \
         nobody else (--no-users: by clients that do not log in)",
    );
    if report.users_unknown {
        lines.say(
            "  this version of the file names no users: a client that logs in does not find its \
             session",
        );
    }
    lines.say_all(&report.without_subscription, |client| {
        format!(
            "  session '{}' has no subscription: shared ones are not in Mosquitto's file",
            spelled_out(client)
        )
    });
    lines.say("  wills and who was connected are not in Mosquitto's file");
}

fn run_stats(directory: &Path, json: bool, out: &mut dyn Write) -> Result<ExitCode, ToolError> {
    let stats = stats(directory)?;
    let lines = &mut Lines(out);
    if json {
        lines.say(json_of(&stats));
        return Ok(code(stats.is_whole));
    }
    lines.say(format!("{}:", directory.display()));
    if !stats.is_whole {
        lines.say("  damaged: `ringmq store check` says where; this is what is left");
    }
    say_log(&stats.walked, lines);
    say_counts(&stats.counts, lines);
    lines.say("  kind of record      number         bytes");
    for (name, kind) in &stats.kinds {
        lines.say(format!("  {name:15} {:10} {:13}", kind.records, kind.bytes));
    }
    let (all, live) = (stats.walked.frame_bytes, stats.live_bytes);
    lines.say(format!(
        "  alive: {live} bytes if it were written anew; dead: {} bytes",
        all.saturating_sub(live)
    ));
    if let Some(oldest) = stats.oldest_live {
        let age = match stats.walked.made_at_ms.get(&oldest) {
            Some(at) => format!(", begun {} ago", age(wall_ms().saturating_sub(*at))),
            None => String::new(),
        };
        lines.say(format!(
            "  the oldest that is alive stands in {}{age}",
            file_name(oldest)
        ));
    }
    if !stats.longest.is_empty() {
        lines.say("  longest queues: messages, bytes, client");
    }
    for queue in &stats.longest {
        let client = spelled_out(&queue.client);
        lines.say(format!(
            "  {:10} {:13} {client}",
            queue.messages, queue.bytes
        ));
    }
    Ok(code(stats.is_whole))
}

fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    let units = [(86_400, "day(s)"), (3_600, "hour(s)"), (60, "minute(s)")];
    let unit = units.iter().find(|(unit, _)| seconds >= *unit);
    match unit {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} second(s)"),
    }
}

fn json_of(stats: &Stats) -> String {
    let (walked, counts) = (&stats.walked, &stats.counts);
    let oldest = stats.oldest_live;
    json!({
        "is_whole": stats.is_whole,
        "segments": walked.files.len(),
        "file_bytes": walked.file_bytes,
        "frames": walked.frames,
        "frame_bytes": walked.frame_bytes,
        "live_bytes": stats.live_bytes,
        "dead_bytes": walked.frame_bytes.saturating_sub(stats.live_bytes),
        "oldest_live_segment": oldest.map(file_name),
        "oldest_live_since_ms": oldest.and_then(|file| walked.made_at_ms.get(&file)),
        "sessions": counts.sessions,
        "subscriptions": counts.subscriptions,
        "wills": counts.wills,
        "queued": counts.queued,
        "queued_bytes": counts.queued_bytes,
        "retained": counts.retained,
        "retained_bytes": counts.retained_bytes,
        "records": stats.kinds,
        "longest_queues": stats.longest,
    })
    .to_string()
}
