//! The command line exactly as typed; `config` makes sense of it.

use crate::cli::passwd::PasswdArgs;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// MQTT broker for high-fanout telemetry: thread per core, io_uring, no locks on the data path.
#[derive(Debug, Parser)]
#[command(name = "ringmq", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Something else than running the broker
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address to listen on, mqtt://HOST:PORT; port 0 picks one; may be given several times
    #[arg(long, value_name = "URL")]
    pub listen: Vec<String>,
    /// Number of shards [default: one per CPU]
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,
    /// CPUs to pin shards to, such as 0-3,6 [default: all that the process may use]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// How much to log
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub log: Option<LogLevel>,
}

/// What else the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration file, say what is wrong with it, and exit
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// Add, change or delete a user of a password file
    Passwd(PasswdArgs),
}

/// Log levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}
