//! Settings that the command line may give; they go before environment and file.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Settings on the command line, as typed.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// Address to listen on, mqtt://HOST:PORT; port 0 picks one; may be given several times
    #[arg(long, value_name = "URL")]
    pub listen: Vec<String>,
    /// Number of shards [default: one per CPU]
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,
    /// CPUs to pin shards to, such as 0-3,6 [default: all that the process may use]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// Directory that keeps sessions, queues and retained messages [default: none, they end with the process]
    #[arg(long, value_name = "DIRECTORY")]
    pub storage_directory: Option<PathBuf>,
    /// File in which all that is done to the directory is recorded, for tests
    #[arg(long, value_name = "FILE", hide = true)]
    pub trace_storage: Option<PathBuf>,
    /// How much to log
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub log: Option<LogLevel>,
}

impl Flags {
    /// Keys that are said.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static str> {
        let keys = [
            ("listen", !self.listen.is_empty()),
            ("shards", self.shards.is_some()),
            ("cpus", self.cpus.is_some()),
            ("storage.directory", self.storage_directory.is_some()),
            ("log", self.log.is_some()),
        ];
        keys.into_iter()
            .filter_map(|(key, is_said)| is_said.then_some(key))
    }
}

/// Log levels.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    ValueEnum,
    serde::Deserialize,
    serde::Serialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

impl LogLevel {
    /// As it is written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        }
    }
}

/// Forms of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// How the broker logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// How much.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
    /// Where to, in place of standard error.
    pub file: Option<PathBuf>,
}
