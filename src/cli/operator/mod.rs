//! What operators ask of a running broker: clients, subscriptions, messages, how it is, and changes.
//!
//! ```text
//!   flags, environment, configuration ─► where (reach) ─► one connection (line) ─► a table, or JSON
//! ```
//! Answers go to standard output, and what there is to say about them to standard error: what is read by a
//! script is nothing but the answer. Exit codes: 0 done, 1 not done or the broker is not reached, 2 wrong
//! flags, configuration or files, 3 there is no such client, session, message or ban.

pub mod bans;
pub mod difference;
pub mod leave;
pub mod line;
pub mod lists;
pub mod one;
pub mod reach;
pub mod table;
pub mod top;
pub mod trace;

use crate::control::config::{AdminConfig, Config, ConfigError};
use crate::control::log;
use bans::{BanArgs, BansArgs, UnbanArgs};
use clap::Subcommand;
use difference::CheckConfigArgs;
use leave::DrainArgs;
use line::Line;
use lists::{ClientsArgs, ExplainArgs, RetainedArgs, SessionsArgs, SubscriptionsArgs};
use one::{ClientArgs, DisconnectArgs, LogLevelArgs};
use reach::{Reach, ReachArgs};
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::Runtime;
use top::TopArgs;
use trace::TraceArgs;

/// What operators ask of a running broker.
#[derive(Clone, Debug, Subcommand)]
pub enum OperatorCommand {
    /// List clients of a running broker
    Clients(ClientsArgs),
    /// Show one client whole: session, window, queue, subscriptions
    Client(ClientArgs),
    /// Disconnect a client, or end its session
    Disconnect(DisconnectArgs),
    /// List sessions, those of clients that are away too
    Sessions(SessionsArgs),
    /// List retained messages, without their payloads
    Retained(RetainedArgs),
    /// List who subscribes to exactly a topic filter
    Subscriptions(SubscriptionsArgs),
    /// Say who would get a message to a topic, and who would not though it has subscribed, and why
    Explain(ExplainArgs),
    /// Say how a running broker and its shards are; ends with 1 if it does not serve as it should
    Status(ReachArgs),
    /// Show live how fast everything goes, how long it takes, which clients are slow, and who publishes most
    /// and where to
    Top(TopArgs),
    /// List where a running broker listens
    Listeners(ReachArgs),
    /// Follow a client, an address or a topic filter: a line for each packet, without payloads and secrets
    Trace(TraceArgs),
    /// List bridges to other brokers: how each is, and why its last connection ended
    Bridges(ReachArgs),
    /// List who is banned, and how long yet
    Bans(BansArgs),
    /// Ban a client identifier, a user or an address for a time: who is there is disconnected
    Ban(BanArgs),
    /// End a ban for a time early
    Unban(UnbanArgs),
    /// Have a running broker accept nobody and send its clients away, so many in a second, and wait until it
    /// has stopped; or do so with one listener
    Drain(DrainArgs),
    /// Have a running broker read its configuration and files anew, as SIGHUP does
    Reload(ReachArgs),
    /// Say how much a running broker logs, or have it log more or less until its next start
    LogLevel(LogLevelArgs),
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Flags, configuration or files are wrong.
    Wrong(String),
    /// There is no such client, session, message or ban.
    Missing(String),
    /// The broker is not reached, or has gone.
    Unreached(String),
    /// The broker has not done it.
    Failed(String),
}

impl Failure {
    /// In an operator's words.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Failure::Wrong(text)
            | Failure::Missing(text)
            | Failure::Unreached(text)
            | Failure::Failed(text) => text,
        }
    }

    const fn code(&self) -> u8 {
        match self {
            Failure::Unreached(_) | Failure::Failed(_) => 1,
            Failure::Wrong(_) => 2,
            Failure::Missing(_) => 3,
        }
    }
}

/// What there is to tell.
#[derive(Debug, Default)]
pub struct Answer {
    /// For people.
    pub text: String,
    /// For scripts.
    pub json: Value,
    /// What there is to say about it.
    pub remarks: Vec<String>,
    /// The broker is not as it should be, or not all was done.
    pub is_bad: bool,
    /// It was told as it came.
    pub is_told: bool,
}

impl OperatorCommand {
    const fn reach(&self) -> &ReachArgs {
        match self {
            OperatorCommand::Clients(args) => &args.reach,
            OperatorCommand::Client(args) => &args.reach,
            OperatorCommand::Disconnect(args) => &args.reach,
            OperatorCommand::Sessions(args) => &args.which.reach,
            OperatorCommand::Retained(args) => &args.reach,
            OperatorCommand::Subscriptions(args) => &args.reach,
            OperatorCommand::Explain(args) => &args.reach,
            OperatorCommand::Trace(args) => &args.reach,
            OperatorCommand::Drain(args) => &args.reach,
            OperatorCommand::Top(args) => &args.reach,
            OperatorCommand::Bans(args) => &args.reach,
            OperatorCommand::Ban(args) => &args.reach,
            OperatorCommand::Unban(args) => &args.reach,
            OperatorCommand::LogLevel(args) => &args.reach,
            OperatorCommand::Status(reach)
            | OperatorCommand::Listeners(reach)
            | OperatorCommand::Bridges(reach)
            | OperatorCommand::Reload(reach) => reach,
        }
    }

    async fn ask(&self, line: &mut Line) -> Result<Answer, Failure> {
        match self {
            OperatorCommand::Clients(args) => lists::clients(line, args).await,
            OperatorCommand::Client(args) => one::client(line, args).await,
            OperatorCommand::Disconnect(args) => one::disconnect(line, args).await,
            OperatorCommand::Sessions(args) => lists::sessions(line, args).await,
            OperatorCommand::Retained(args) => lists::retained(line, args).await,
            OperatorCommand::Subscriptions(args) => lists::subscriptions(line, args).await,
            OperatorCommand::Explain(args) => lists::explain(line, args).await,
            OperatorCommand::Status(_) => one::status(line).await,
            OperatorCommand::Top(args) => top::top(line, args).await,
            OperatorCommand::Listeners(_) => leave::listeners(line).await,
            OperatorCommand::Trace(args) => trace::trace(line, args).await,
            OperatorCommand::Bridges(_) => leave::bridges(line).await,
            OperatorCommand::Drain(args) => leave::drain(line, args).await,
            OperatorCommand::Bans(args) => bans::bans(line, args).await,
            OperatorCommand::Ban(args) => bans::ban(line, args).await,
            OperatorCommand::Unban(args) => bans::unban(line, args).await,
            OperatorCommand::Reload(_) => one::reload(line).await,
            OperatorCommand::LogLevel(args) => one::log_level(line, args).await,
        }
    }
}

/// Asks a running broker; `configured` reads a configuration's part about where it answers.
pub fn run(
    command: &OperatorCommand,
    configured: impl FnOnce(Option<&Path>) -> Result<AdminConfig, ConfigError>,
) -> ExitCode {
    end(command.reach().json, answer(command, configured))
}

/// Says what a reload of a configuration, which is correct, would change in a running broker.
pub fn compare(args: &CheckConfigArgs, config: &Config) -> ExitCode {
    let compares = || {
        let mut line = Line::new(args.reach(config)?);
        runtime()?.block_on(difference::differ(&mut line, config))
    };
    end(args.json, compares())
}

fn end(as_json: bool, ended: Result<Answer, Failure>) -> ExitCode {
    match ended {
        Ok(answer) => {
            say(as_json, &answer);
            ExitCode::from(u8::from(answer.is_bad))
        }
        Err(failure) => {
            log::say(failure.text());
            ExitCode::from(failure.code())
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| Failure::Failed(error.to_string()))
}

fn answer(
    command: &OperatorCommand,
    configured: impl FnOnce(Option<&Path>) -> Result<AdminConfig, ConfigError>,
) -> Result<Answer, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut line = Line::new(Reach::new(command.reach(), variable, configured)?);
    runtime()?.block_on(command.ask(&mut line))
}

fn say(as_json: bool, answer: &Answer) {
    // Nobody may be listening.
    let _ = match as_json {
        _ if answer.is_told => Ok(()),
        true => writeln!(io::stdout(), "{:#}", answer.json),
        false => io::stdout().write_all(answer.text.as_bytes()),
    };
    answer.remarks.iter().for_each(|remark| log::say(remark));
}
