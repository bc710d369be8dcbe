//! Listeners, and the broker when it is to go: seen, closed, drained.

use super::line::Line;
use super::reach::ReachArgs;
use super::table::{Column, Form, table};
use super::{Answer, Failure};
use crate::control::visible::spelled_out;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// How often it is asked who is still there.
const ASKS: Duration = Duration::from_millis(500);

/// What to drain, and how fast.
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Clients that are sent away in a second [default: as shutdown.drain_rate says]
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// Only this listener, as `ringmq listeners` names it: the broker goes on
    #[arg(long, value_name = "URL")]
    pub listener: Option<String>,
    /// With --listener: close it, and leave its clients alone
    #[arg(long, requires = "listener")]
    pub close: bool,
    /// Do not wait until the broker has stopped
    #[arg(long)]
    pub no_wait: bool,
}

/// Listeners.
pub(super) async fn listeners(line: &mut Line) -> Result<Answer, Failure> {
    let columns = [
        Column("LISTENER", "listener", Form::Whole),
        Column("OPEN", "open", Form::Whether),
        Column("CONNECTIONS", "connections", Form::Count),
    ];
    whole_list(line, "listeners", &columns).await
}

/// Bridges.
pub(super) async fn bridges(line: &mut Line) -> Result<Answer, Failure> {
    let columns = [
        Column("BRIDGE", "name", Form::Text),
        Column("STATE", "state", Form::Text),
        Column("SINCE", "since_seconds", Form::Seconds),
        Column("ADDRESS", "address", Form::Text),
        Column("PROTOCOL", "protocol", Form::Text),
        Column("ATTEMPTS", "attempts", Form::Count),
        Column("LAST ENDED BY", "cause", Form::Whole),
    ];
    let messages = [
        Column("BRIDGE", "name", Form::Text),
        Column("QUEUED", "queued", Form::Count),
        Column("BYTES", "queued_bytes", Form::Bytes),
        Column("OLDEST", "oldest_seconds", Form::Seconds),
        Column("INFLIGHT", "in_flight", Form::Count),
        Column("DROPPED", "dropped", Form::Count),
        Column("BY LINE", "dropped_by_line", Form::Count),
        Column("REJECTED", "rejected", Form::Count),
    ];
    let mut answer = whole_list(line, "bridges", &columns).await?;
    let rows = answer.json.get("bridges").and_then(Value::as_array);
    if let Some(rows) = rows.filter(|rows| !rows.is_empty()) {
        answer.text += &format!("\n{}", table(&messages, rows));
    }
    answer.text.push_str(&not_granted(&answer.json));
    Ok(answer)
}

/// What bridges may not read here: nothing goes out by it.
fn not_granted(told: &Value) -> String {
    let bridges = told.get("bridges").and_then(Value::as_array);
    let mut text = String::new();
    for bridge in bridges.into_iter().flatten() {
        let filters = bridge.get("not_granted").and_then(Value::as_array);
        let filters = filters.into_iter().flatten().filter_map(Value::as_str);
        let filters: Vec<_> = filters.map(spelled_out).collect();
        if !filters.is_empty() {
            let name = bridge.get("name").and_then(Value::as_str).unwrap_or("");
            let filters = filters.join(", ");
            text.push_str(&format!(
                "{}: not granted here: {filters} (acl_file, local_user of the bridge)\n",
                spelled_out(name)
            ));
        }
    }
    text
}

/// A list that is told without pages.
async fn whole_list(line: &mut Line, name: &str, columns: &[Column]) -> Result<Answer, Failure> {
    let told = line.get(&format!("/{name}")).await?;
    let rows = told.get(name).and_then(Value::as_array);
    Ok(Answer {
        text: table(columns, rows.map_or(&[], Vec::as_slice)),
        json: told,
        ..Answer::default()
    })
}

/// Drains a listener, or the broker, and waits for its end.
pub(super) async fn drain(line: &mut Line, args: &DrainArgs) -> Result<Answer, Failure> {
    let mut body = json!({});
    if let Some(rate) = args.rate {
        body["rate"] = json!(rate);
    }
    let done = |text: &str| Answer {
        text: format!("{text}\n"),
        json: json!({ "done": true }),
        ..Answer::default()
    };
    if let Some(listener) = &args.listener {
        body["listener"] = json!(listener);
        body["drain"] = json!(!args.close);
        line.ask(Method::POST, "/listeners/close", Some(&body))
            .await?;
        return Ok(done(match args.close {
            true => "the listener is closed",
            false => "the listener is closed, and its clients are sent away",
        }));
    }
    line.ask(Method::POST, "/drain", Some(&body)).await?;
    if args.no_wait {
        return Ok(done(
            "the broker sends its clients away, and stops when they have gone",
        ));
    }
    // It answers as long as somebody is there; one connection alone may break.
    let mut unreached = 0;
    while unreached < 2 {
        match line.get("/status").await {
            Err(Failure::Unreached(_)) => unreached += 1,
            _ => unreached = 0,
        }
        tokio::time::sleep(ASKS).await;
    }
    Ok(done("the clients have gone, and the broker has stopped"))
}
