//! The command line exactly as typed.

use crate::cli::bench_storage::BenchStorageArgs;
use crate::cli::import::ImportArgs;
use crate::cli::operator::OperatorCommand;
use crate::cli::operator::difference::CheckConfigArgs;
use crate::cli::pages::{CompletionsArgs, ManArgs};
use crate::cli::passwd::PasswdArgs;
use crate::cli::store::StoreCommand;
use crate::cli::token::TokenArgs;
use crate::control::config::Flags;
use clap::{Parser, Subcommand};
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
    /// What goes before environment and file
    #[command(flatten)]
    pub flags: Flags,
}

/// What else the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration file, say what is wrong with it, and exit
    CheckConfig(CheckConfigArgs),
    /// Add, change or delete a user of a password file
    Passwd(PasswdArgs),
    /// Make, replace or delete a token for the admin listener
    Token(TokenArgs),
    /// Print a Mosquitto's configuration in our form, and list what has no counterpart
    Import(ImportArgs),
    /// Measure what keeping acknowledged messages costs on a disk
    BenchStorage(BenchStorageArgs),
    /// Look into a directory in which a broker keeps its state, and take out of it what is left
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print what a shell completes commands and flags by
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(ManArgs),
    /// What is asked of a running broker
    #[command(flatten)]
    Operator(OperatorCommand),
}
