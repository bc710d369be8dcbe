//! Lists that the broker has, page by page up to how many are wanted.

use super::line::Line;
use super::reach::ReachArgs;
use super::table::{Column, Form, harmless, table};
use super::{Answer, Failure};
use clap::{Args, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// Rows of a page at most.
const PAGE_MAX: usize = 1_000;
/// Rows, where nobody says how many.
const LIMIT: usize = 100;

/// Which clients, in which order.
#[derive(Clone, Debug, Args)]
pub struct ClientsArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Only clients whose identifiers begin so
    #[arg(long, value_name = "TEXT")]
    pub id_prefix: Option<String>,
    /// Only clients of this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Only clients from this address, or network (ADDRESS/BITS)
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// Only clients of this listener, as `ringmq status` names it
    #[arg(long, value_name = "URL")]
    pub listener: Option<String>,
    /// Only clients that are there, or away
    #[arg(long, value_name = "STATE", value_enum)]
    pub state: Option<State>,
    /// In which order: by identifier, or those with most first
    #[arg(long, value_name = "ORDER", value_enum)]
    pub sort: Option<Order>,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    pub limit: usize,
}

/// Which sessions, in which order.
#[derive(Clone, Debug, Args)]
pub struct SessionsArgs {
    /// Which
    #[command(flatten)]
    pub which: ClientsArgs,
}

/// Whether a client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum State {
    Connected,
    Away,
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// By client identifier
    Id,
    /// Most bytes that wait
    Queue,
    /// Most messages that wait or are not acknowledged
    Messages,
    /// Whose oldest message has waited longest
    Wait,
    /// Most bytes in both directions
    Bytes,
    /// Most messages lost
    Drops,
    /// Longest there, or away
    Age,
}

/// Which retained messages.
#[derive(Clone, Debug, Args)]
pub struct RetainedArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Topic filter that they match
    #[arg(value_name = "FILTER", default_value = "#")]
    pub filter: String,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    pub limit: usize,
}

/// Which subscriptions.
#[derive(Clone, Debug, Args)]
pub struct SubscriptionsArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Exactly this topic filter, without share name
    #[arg(value_name = "FILTER")]
    pub filter: String,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    pub limit: usize,
}

/// Which message.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Where the broker is asked
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Its topic
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// Its QoS
    #[arg(long, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Client that would publish it
    #[arg(long, value_name = "ID")]
    pub publisher: Option<String>,
    /// So many subscriptions at most
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    pub limit: usize,
}

/// A value as it stands in a path or behind its question mark.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// What stands behind a question mark.
type Query<'a> = Vec<(&'static str, &'a str)>;

/// The first rows of a list, with what its last page tells beside them.
async fn rows(
    line: &mut Line,
    (path, query, list): (&str, &Query<'_>, &str),
    limit: usize,
) -> Result<(Vec<Value>, Value), Failure> {
    let (mut rows, mut after) = (Vec::new(), None::<String>);
    loop {
        let size = (limit - rows.len()).clamp(1, PAGE_MAX).to_string();
        let mut asked = query.clone();
        asked.push(("limit", &size));
        if let Some(after) = &after {
            asked.push(("after", after));
        }
        let asked: Vec<_> = asked
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let mut page = line.get(&format!("{path}?{}", asked.join("&"))).await?;
        if let Some(Value::Array(some)) = page.get_mut(list).map(Value::take) {
            rows.extend(some);
        }
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() || rows.len() >= limit {
            rows.truncate(limit);
            return Ok((rows, page));
        }
    }
}

/// An answer of rows: as a table, and as JSON with all that was told.
fn listed(
    columns: &[Column],
    (rows, mut page): (Vec<Value>, Value),
    (list, noun): (&str, &str),
) -> Answer {
    let mut remarks = Vec::new();
    let silent: Vec<_> = page
        .get("silent_shards")
        .and_then(Value::as_array)
        .map(|shards| shards.iter().map(Value::to_string).collect())
        .unwrap_or_default();
    if !silent.is_empty() {
        let shards = silent.join(", ");
        remarks.push(format!(
            "shard {shards} did not answer: what it has is missing"
        ));
    }
    if page.get("next").is_some_and(|next| !next.is_null()) {
        let of = page.get("count").and_then(Value::as_u64);
        let of = of.map_or_else(String::new, |count| format!(" of {count}"));
        let shown = rows.len();
        remarks.push(format!(
            "these are {shown}{of} {noun}; there are more with --limit"
        ));
    }
    let text = table(columns, &rows);
    if let Some(page) = page.as_object_mut() {
        page.insert(list.to_owned(), Value::Array(rows));
        page.remove("next");
    }
    Answer {
        text,
        json: page,
        is_bad: !silent.is_empty(),
        remarks,
        is_told: false,
    }
}

impl ClientsArgs {
    fn query(&self) -> Query<'_> {
        let texts = [
            ("id_prefix", &self.id_prefix),
            ("user", &self.user),
            ("address", &self.address),
            ("listener", &self.listener),
        ];
        let texts = texts.into_iter();
        let mut query: Query<'_> = texts
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
            .collect();
        query.extend(self.state.map(|state| match state {
            State::Connected => ("state", "connected"),
            State::Away => ("state", "away"),
        }));
        query.extend(self.sort.map(|order| match order {
            Order::Id => ("sort", "id"),
            Order::Queue => ("sort", "queue"),
            Order::Messages => ("sort", "messages"),
            Order::Wait => ("sort", "wait"),
            Order::Bytes => ("sort", "bytes"),
            Order::Drops => ("sort", "drops"),
            Order::Age => ("sort", "age"),
        }));
        query
    }
}

async fn clients_as(
    line: &mut Line,
    args: &ClientsArgs,
    columns: &[Column],
    noun: &str,
) -> Result<Answer, Failure> {
    let rows = rows(line, ("/clients", &args.query(), "clients"), args.limit).await?;
    Ok(listed(columns, rows, ("clients", noun)))
}

/// Clients.
pub(super) async fn clients(line: &mut Line, args: &ClientsArgs) -> Result<Answer, Failure> {
    let columns = [
        Column("CLIENT", "client_id", Form::Text),
        Column("USER", "user", Form::Text),
        Column("CONNECTED", "connected", Form::Whether),
        Column("SINCE", "since_seconds", Form::Seconds),
        Column("ADDRESS", "address", Form::Address),
        Column("QUEUED", "queued_messages", Form::Count),
        Column("WAITS", "waits_ms", Form::Milliseconds),
        Column("IN", "received_bytes", Form::Bytes),
        Column("OUT", "sent_bytes", Form::Bytes),
        Column("LOST", "dropped_messages", Form::Count),
    ];
    clients_as(line, args, &columns, "clients").await
}

/// Sessions.
pub(super) async fn sessions(line: &mut Line, args: &SessionsArgs) -> Result<Answer, Failure> {
    let columns = [
        Column("CLIENT", "client_id", Form::Text),
        Column("USER", "user", Form::Text),
        Column("CONNECTED", "connected", Form::Whether),
        Column("SINCE", "since_seconds", Form::Seconds),
        Column("SUBSCR", "subscriptions", Form::Count),
        Column("QUEUED", "queued_messages", Form::Count),
        Column("BYTES", "queued_bytes", Form::Bytes),
        Column("WAITS", "waits_ms", Form::Milliseconds),
        Column("INFLIGHT", "inflight_messages", Form::Count),
        Column("LOST", "dropped_messages", Form::Count),
    ];
    clients_as(line, &args.which, &columns, "sessions").await
}

/// Retained messages.
pub(super) async fn retained(line: &mut Line, args: &RetainedArgs) -> Result<Answer, Failure> {
    let columns = [
        Column("TOPIC", "topic", Form::Text),
        Column("QOS", "qos", Form::Count),
        Column("PAYLOAD", "payload_bytes", Form::Bytes),
        Column("EXPIRES", "expires_in_seconds", Form::Seconds),
    ];
    let query = vec![("filter", args.filter.as_str())];
    let rows = rows(line, ("/retained", &query, "messages"), args.limit).await?;
    Ok(listed(&columns, rows, ("messages", "retained messages")))
}

/// Who subscribes to a filter.
pub(super) async fn subscriptions(
    line: &mut Line,
    args: &SubscriptionsArgs,
) -> Result<Answer, Failure> {
    let columns = [
        Column("CLIENT", "client_id", Form::Text),
        Column("USER", "user", Form::Text),
        Column("CONNECTED", "connected", Form::Whether),
        Column("FILTER", "filter", Form::Text),
        Column("QOS", "qos", Form::Count),
    ];
    let query = vec![("filter", args.filter.as_str())];
    let rows = rows(
        line,
        ("/subscriptions", &query, "subscriptions"),
        args.limit,
    )
    .await?;
    Ok(listed(&columns, rows, ("subscriptions", "subscriptions")))
}

/// Who would get a message.
pub(super) async fn explain(line: &mut Line, args: &ExplainArgs) -> Result<Answer, Failure> {
    let columns = [
        Column("CLIENT", "client_id", Form::Text),
        Column("CONNECTED", "connected", Form::Whether),
        Column("FILTER", "filter", Form::Text),
        Column("QOS", "qos", Form::Count),
        Column("GETS IT", "gets", Form::Whether),
        Column("BECAUSE", "why", Form::Whole),
    ];
    let qos = args.qos.to_string();
    let mut query = vec![("topic", args.topic.as_str()), ("qos", &qos)];
    query.extend(args.publisher.as_deref().map(|id| ("publisher", id)));
    let (mut rows, page) = rows(line, ("/explain", &query, "subscriptions"), args.limit).await?;
    let mut head = String::new();
    if let Some(why) = page.get("nobody_because").and_then(Value::as_str) {
        head += &format!("nobody gets it: {why}\n");
    }
    if let (Some(id), Some(may)) = (&args.publisher, page.get("publisher_may")) {
        let id = harmless(id);
        head += &match may.as_bool() {
            Some(true) => format!("{id} may publish it\n"),
            Some(false) => format!("{id} may not publish it (acl_file, or rules of its token)\n"),
            None => format!("{id} has no session, so it is not known whether it may publish it\n"),
        };
    }
    let json = rows.clone();
    for row in &mut rows {
        if row.get("gets").is_some_and(Value::is_null) {
            row["gets"] = json!("one of all");
        }
    }
    let is_wanted = !rows.is_empty();
    let mut answer = listed(&columns, (rows, page), ("subscriptions", "subscriptions"));
    answer.text = match is_wanted {
        true => head + &answer.text,
        false => head + "nobody has subscribed to it\n",
    };
    answer.json["subscriptions"] = Value::Array(json);
    Ok(answer)
}
