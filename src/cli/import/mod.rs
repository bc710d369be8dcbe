//! `ringmq import`: Mosquitto's configuration in our form, and a list of what has no counterpart with what to
//! do about it.
//!
//! ```text
//!   lines ─► sections ─► general, listener, bridge ─► draft: configuration and list
//!                                    └── without: what has no counterpart
//! ```
//!
//! Invariants: each line is taken or listed, or it says what is so anyway; what cannot be said here never
//! lets in more clients, or lets them do more. Nothing is written and nothing changed.

mod bridge;
mod draft;
mod general;
mod lines;
mod listener;
mod sections;
mod value;
mod without;

use crate::control::bridges::Prepared;
use crate::control::check;
use crate::control::config::{Config, Flags, Sources};
use crate::control::log;
use crate::control::machine;
use crate::control::reload::Files;
use draft::Draft;
use general::General;
use sections::Sections;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// It cannot be read, ...
const FAILED: u8 = 1;
/// ... or a start with what is printed would be refused.
const REFUSED: u8 = 2;

/// Print a Mosquitto's configuration in our form, and list what has no counterpart (on standard error)
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// mosquitto.conf; what it includes is read, too
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Reads, prints and lists. Exit code 0 if a broker would start with what is printed, 2 if not yet, 1 if
/// nothing could be read.
#[must_use]
pub fn run(args: &ImportArgs) -> ExitCode {
    let file = std::path::absolute(&args.file).unwrap_or_else(|_| args.file.clone());
    let mut draft = match import(&file) {
        Ok(draft) => draft,
        Err(error) => {
            log::say(&error);
            return ExitCode::from(FAILED);
        }
    };
    let toml = draft.toml();
    // Nobody may be listening.
    let _ = writeln!(
        io::stdout(),
        "# Of {}, by ringmq import.\n{toml}",
        file.display()
    );
    let list = draft.list();
    if !list.is_empty() {
        let _ = write!(
            io::stderr(),
            "What has no counterpart, or another meaning:\n\n{list}\n"
        );
    }
    match would_start(&file, &toml) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::say(&format!("a start with this would be refused: {error}"));
            ExitCode::from(REFUSED)
        }
    }
}

fn import(file: &Path) -> Result<Draft, String> {
    let sections = Sections::sort(lines::read(file)?);
    let mut draft = Draft::default();
    let mut general = General::default();
    for line in &sections.general {
        general.take(line, &mut draft);
    }
    general.finish(&mut draft);
    for line in &sections.idle {
        draft.note(
            line,
            "nothing to do: it stands before the first listener, and concerns none that is opened",
        );
    }
    listener::take(sections.listeners, sections.is_local_only, &mut draft);
    for bridge in &sections.bridges {
        bridge::take(bridge, &mut draft);
    }
    Ok(draft)
}

/// Looks at it as `check-config` does.
fn would_start(file: &Path, toml: &str) -> Result<(), String> {
    let sources = Sources {
        file: Some((&file.with_file_name("ringmq.toml"), toml)),
        environment: Vec::new(),
        cpus_available: machine::cpus(),
        cpu_quota: machine::group_bounds().cpu,
    };
    let config = Config::load(&sources, &Flags::default()).map_err(|error| error.to_string())?;
    let files = Files::load(&config).map_err(|error| error.to_string())?;
    Prepared::load(&config)?;
    check::check(&config, &files)
}
