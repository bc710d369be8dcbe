//! One client, and the broker itself: seen and changed.

use super::line::Line;
use super::lists::encoded;
use super::reach::ReachArgs;
use super::table::{Column, Form, harmless, seconds, sheet, table};
use super::{Answer, Failure};
use crate::control::config::LogLevel;
use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

/// Which client.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Its identifier
    #[arg(value_name = "ID")]
    pub client_id: String,
    /// Look at it for so many milliseconds, to say how fast messages and bytes come and go; 0 for a look that
    /// does not
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = over_ms)]
    pub over_ms: u64,
}

fn over_ms(text: &str) -> Result<u64, String> {
    let over_ms = text.parse().ok();
    let over_ms = over_ms.filter(|over_ms| *over_ms == 0 || (100..=5_000).contains(over_ms));
    over_ms.ok_or_else(|| "neither 0 nor between 100 and 5000".to_owned())
}

/// Whom to disconnect, and how.
#[derive(Clone, Debug, Args)]
pub struct DisconnectArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Its identifier
    #[arg(value_name = "ID")]
    pub client_id: String,
    /// Reason code that it is told
    #[arg(
        long,
        value_name = "REASON",
        value_enum,
        conflicts_with = "end_session"
    )]
    pub reason: Option<Reason>,
    /// What a client of MQTT 5.0 is told, and the log
    #[arg(long, value_name = "TEXT", conflicts_with = "end_session")]
    pub text: Option<String>,
    /// End its session too, with all that waits in it
    #[arg(long)]
    pub end_session: bool,
}

/// How much to log.
#[derive(Clone, Debug, Args)]
pub struct LogLevelArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// How much is logged from now on, until the next start
    #[arg(value_name = "LEVEL", value_enum)]
    pub level: Option<LogLevel>,
}

/// Why a client is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Reason {
    #[value(alias = "administrative_action")]
    AdministrativeAction,
    #[value(alias = "not_authorized")]
    NotAuthorized,
    #[value(alias = "server_busy")]
    ServerBusy,
    #[value(alias = "quota_exceeded")]
    QuotaExceeded,
    #[value(alias = "use_another_server")]
    UseAnotherServer,
    #[value(alias = "server_moved")]
    ServerMoved,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Reason::AdministrativeAction => "administrative_action",
            Reason::NotAuthorized => "not_authorized",
            Reason::ServerBusy => "server_busy",
            Reason::QuotaExceeded => "quota_exceeded",
            Reason::UseAnotherServer => "use_another_server",
            Reason::ServerMoved => "server_moved",
        }
    }
}

/// What is told of a client, in this order.
const FIELDS: &[Column] = &[
    Column("client", "client_id", Form::Text),
    Column("user", "user", Form::Text),
    Column("known by", "method", Form::Text),
    Column("connected", "connected", Form::Whether),
    Column("connected or away for", "since_seconds", Form::Seconds),
    Column("address", "address", Form::Text),
    Column("listener", "listener", Form::Text),
    Column("MQTT", "version", Form::Text),
    Column("shard", "shard", Form::Count),
    Column("silent for", "silent_seconds", Form::Seconds),
    Column("silence at most", "silence_ms_max", Form::Milliseconds),
    Column(
        "session outlives it by",
        "session_expiry_seconds",
        Form::Seconds,
    ),
    Column("session ends in", "session_ends_in_seconds", Form::Seconds),
    Column("session holds", "session_bytes", Form::Bytes),
    Column("queued messages", "queued_messages", Form::Count),
    Column("queued", "queued_bytes", Form::Bytes),
    Column("in flight", "inflight_messages", Form::Count),
    Column("in flight at most", "inflight_max", Form::Count),
    Column("unfinished from it", "unfinished_messages", Form::Count),
    Column("behind retained ones", "held_messages", Form::Count),
    Column("waits to be sent", "unsent_bytes", Form::Bytes),
    Column("oldest waits for", "waits_ms", Form::Milliseconds),
    Column("lost messages", "dropped_messages", Form::Count),
    Column("messages from it", "received_messages", Form::Count),
    Column("messages to it", "sent_messages", Form::Count),
    Column("received", "received_bytes", Form::Bytes),
    Column("sent", "sent_bytes", Form::Bytes),
    Column("packets at most", "packet_bytes_max", Form::Bytes),
    Column("not read for now", "paused", Form::Whether),
    Column("will", "will_topic", Form::Text),
    Column("subscriptions", "subscriptions", Form::Count),
];

/// How fast messages and bytes come and go.
const RATES: &[Column] = &[
    Column(
        "messages from it /s",
        "received_messages_per_second",
        Form::Text,
    ),
    Column("messages to it /s", "sent_messages_per_second", Form::Text),
    Column(
        "bytes from it",
        "received_bytes_per_second",
        Form::BytesPerSecond,
    ),
    Column("bytes to it", "sent_bytes_per_second", Form::BytesPerSecond),
];

/// A client whole; of one that has no session, what went wrong for it.
pub(super) async fn client(line: &mut Line, args: &ClientArgs) -> Result<Answer, Failure> {
    let path = format!("/clients/{}", encoded(&args.client_id));
    let query = match args.over_ms {
        0 => String::new(),
        over_ms => format!("?over_ms={over_ms}"),
    };
    let client = match line.get(&format!("{path}{query}")).await {
        Err(Failure::Missing(why)) => return Err(why_missing(line, &path, why).await),
        told => told?,
    };
    let mut text = sheet(FIELDS, &client);
    if let Some(rates) = client.get("rates").filter(|rates| rates.is_object()) {
        text = format!("{text}\n{}", sheet(RATES, rates));
    }
    if let Some(tls) = client.get("tls").filter(|tls| tls.is_object()) {
        let fields = [
            Column("TLS", "version", Form::Text),
            Column("cipher suite", "cipher_suite", Form::Text),
            Column("server name", "server_name", Form::Text),
            Column("certificate", "certificate", Form::Text),
            Column("certificate ends in", "ends_in_seconds", Form::Seconds),
        ];
        text = format!("{text}\n{}", sheet(&fields, tls));
    }
    let filters = client.get("filters").and_then(Value::as_array);
    if let Some(filters) = filters.filter(|filters| !filters.is_empty()) {
        let columns = [
            Column("FILTER", "filter", Form::Text),
            Column("QOS", "qos", Form::Count),
            Column("NO LOCAL", "no_local", Form::Whether),
        ];
        text = format!("{text}\n{}", table(&columns, filters));
    }
    if let Some(errors) = errors_of(&client, "last_errors") {
        text = format!("{text}\n{errors}");
    }
    Ok(Answer {
        text,
        json: client,
        ..Answer::default()
    })
}

/// What went wrong for a client, newest first, if anything did.
fn errors_of(told: &Value, list: &str) -> Option<String> {
    let columns = [
        Column("LAST AGO", "seconds_ago", Form::Seconds),
        Column("COUNT", "count", Form::Count),
        Column("WHAT WENT WRONG", "text", Form::Whole),
    ];
    let errors = told.get(list).and_then(Value::as_array);
    let errors = errors.filter(|errors| !errors.is_empty())?;
    Some(table(&columns, errors))
}

/// There is no session: perhaps it was never let in.
async fn why_missing(line: &mut Line, path: &str, why: String) -> Failure {
    let told = line.get(&format!("{path}/errors")).await;
    let errors = told.ok().and_then(|told| errors_of(&told, "errors"));
    Failure::Missing(match errors {
        Some(errors) => format!("{why}\n{}", errors.trim_end()),
        None => why,
    })
}

/// Disconnects a client, or ends its session.
pub(super) async fn disconnect(line: &mut Line, args: &DisconnectArgs) -> Result<Answer, Failure> {
    let path = format!("/clients/{}", encoded(&args.client_id));
    let done = match args.end_session {
        true => {
            line.ask(Method::DELETE, &path, None).await?;
            "its session has ended"
        }
        false => {
            let mut farewell = json!({});
            if let Some(reason) = args.reason {
                farewell["reason"] = json!(reason.name());
            }
            if let Some(text) = &args.text {
                farewell["text"] = json!(text);
            }
            line.ask(Method::POST, &format!("{path}/disconnect"), Some(&farewell))
                .await?;
            "disconnected"
        }
    };
    Ok(Answer {
        text: format!("{}: {done}\n", harmless(&args.client_id)),
        json: json!({ "client_id": args.client_id, "done": true }),
        ..Answer::default()
    })
}

/// A list of texts, for a terminal.
fn texts(told: &Value, name: &str) -> Vec<String> {
    let list = told.get(name).and_then(Value::as_array);
    let list = list.into_iter().flatten();
    list.filter_map(Value::as_str).map(harmless).collect()
}

/// How the broker and its shards are.
pub(super) async fn status(line: &mut Line) -> Result<Answer, Failure> {
    let mut status = line.get("/status").await?;
    let mut shards = line.get("/shards").await?;
    let shards = shards
        .get_mut("shards")
        .map(Value::take)
        .unwrap_or_default();
    let (listeners, problems) = (texts(&status, "listeners"), texts(&status, "problems"));
    let uptime_s = status.get("uptime_seconds").and_then(Value::as_u64);
    let version = status.get("version").and_then(Value::as_str).map(harmless);
    let mut text = format!(
        "ringmq {} for {} at {}\n",
        version.unwrap_or_default(),
        seconds(uptime_s.unwrap_or(0)),
        line.at()
    );
    let serves = match problems.is_empty() {
        true => "serves".to_owned(),
        false => format!("does not serve as it should: {}", problems.join("; ")),
    };
    text += &format!("it {serves}\n\n");
    text += &sheet(
        &[
            Column("connections", "connections", Form::Count),
            Column("sessions", "sessions", Form::Count),
            Column("subscriptions", "subscriptions", Form::Count),
            Column("retained messages", "retained_messages", Form::Count),
            Column("queued messages", "queued_messages", Form::Count),
            Column("memory", "memory_bytes", Form::Bytes),
        ],
        &status,
    );
    text += &format!("bridges            {}\n", bridges_of(&status));
    if listeners.is_empty() {
        text += "listens            nowhere: each listener was closed or drained\n";
    }
    for listener in listeners {
        text += &format!("listens            {listener}\n");
    }
    text += &format!("\n{}", shard_table(&shards));
    status["shards"] = shards;
    Ok(Answer {
        text,
        json: status,
        is_bad: !problems.is_empty(),
        ..Answer::default()
    })
}

/// How many bridges there are, and how many of them are up.
fn bridges_of(status: &Value) -> String {
    let count = |name: &str| status.get(name).and_then(Value::as_u64);
    match (count("bridges"), count("bridges_up")) {
        (None | Some(0), _) => "0".to_owned(),
        (Some(all), up) => format!("{all}, {} of them up", up.unwrap_or(0)),
    }
}

fn shard_table(shards: &Value) -> String {
    let columns = [
        Column("SHARD", "shard", Form::Count),
        Column("ANSWERS", "answers", Form::Whether),
        Column("CONNECTIONS", "connections", Form::Count),
        Column("SESSIONS", "sessions", Form::Count),
        Column("RECEIVED", "messages_received", Form::Count),
        Column("SENT", "messages_sent", Form::Count),
        Column("IN", "bytes_received", Form::Bytes),
        Column("OUT", "bytes_sent", Form::Bytes),
    ];
    let rows = shards.as_array().into_iter().flatten().map(|shard| {
        let mut row = shard.get("counts").cloned().unwrap_or_default();
        for name in ["shard", "answers"] {
            row[name] = shard.get(name).cloned().unwrap_or_default();
        }
        row
    });
    table(&columns, &rows.collect::<Vec<_>>())
}

/// Has files read anew.
pub(super) async fn reload(line: &mut Line) -> Result<Answer, Failure> {
    let told = line.ask(Method::POST, "/reload", None).await?;
    let lines = [("changed", "changed"), ("reloaded", "read anew")];
    let lines = lines.into_iter().flat_map(|(list, word)| {
        let texts = texts(&told, list);
        texts
            .into_iter()
            .map(move |text| format!("{word}: {text}\n"))
    });
    let mut text: String = lines.collect();
    let (restart, errors) = (texts(&told, "needs_restart"), texts(&told, "errors"));
    if text.is_empty() && restart.is_empty() && errors.is_empty() {
        text = "nothing has changed\n".to_owned();
    }
    let restart = restart
        .iter()
        .map(|change| format!("needs a restart: {change}"));
    let wrong = errors
        .iter()
        .map(|error| format!("not reloaded, what was before stays in force: {error}"));
    let remarks = restart.chain(wrong);
    Ok(Answer {
        text,
        remarks: remarks.collect(),
        is_bad: !errors.is_empty(),
        json: told,
        ..Answer::default()
    })
}

/// How much is logged, now or from now on.
pub(super) async fn log_level(line: &mut Line, args: &LogLevelArgs) -> Result<Answer, Failure> {
    let (text, json) = match args.level {
        Some(level) => {
            let name = level.name();
            let json = json!({ "level": name });
            line.ask(Method::PUT, "/log", Some(&json)).await?;
            let text = format!("the log's level is {name} until the next start\n");
            (text, json)
        }
        None => {
            let json = line.get("/log").await?;
            let level = json.get("level").and_then(Value::as_str).map(harmless);
            (format!("{}\n", level.unwrap_or_default()), json)
        }
    };
    Ok(Answer {
        text,
        json,
        ..Answer::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_taken_as_the_api_writes_it_too() {
        for reason in Reason::value_variants() {
            let name = reason.name();
            for written in [name.to_owned(), name.replace('_', "-")] {
                assert_eq!(Reason::from_str(&written, false), Ok(*reason));
            }
        }
    }
}
