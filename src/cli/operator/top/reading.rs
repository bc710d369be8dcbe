//! What a broker tells of itself at one moment, as it is asked for a view of the whole.

use crate::cli::operator::Failure;
use crate::cli::operator::line::Line;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// Everything, told at about the same time.
#[derive(Clone, Debug)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// The broker.
    pub status: Status,
    /// By number.
    pub shards: Vec<Shard>,
    /// Who is slow and who is loud.
    pub top: Top,
}

/// How the broker is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's own names")]
pub struct Status {
    pub version: String,
    pub uptime_seconds: u64,
    pub connections: u64,
    pub sessions: u64,
    pub subscriptions: u64,
    pub retained_messages: u64,
    pub queued_messages: u64,
    pub memory_bytes: u64,
    pub problems: Vec<String>,
}

/// A shard with its numbers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's own names")]
pub struct Shard {
    pub shard: u16,
    pub answers: bool,
    pub cpu_seconds: Option<f64>,
    pub counts: BTreeMap<String, u64>,
    pub latencies: Vec<Times>,
}

/// How long something took, and how often.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's own names")]
pub struct Times {
    pub what: String,
    pub qos: Option<u8>,
    pub is_local: Option<bool>,
    pub buckets: Vec<Bucket>,
}

/// How often it took so long at most.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[allow(missing_docs, reason = "the API's own names")]
pub struct Bucket {
    pub us_max: Option<u64>,
    pub count: u64,
}

/// Who is slow and who is loud.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's own names")]
pub struct Top {
    pub slow_clients: Vec<Slow>,
    pub loud_clients: Vec<Loud>,
    pub loud_topics: Vec<Loud>,
}

/// A slow client.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's own names")]
pub struct Slow {
    pub client_id: String,
    pub shard: u16,
    pub waits_ms: u64,
    pub messages: u64,
    pub bytes: u64,
    pub dropped_messages: u64,
}

/// Somebody who publishes much, or where to.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's own names")]
pub struct Loud {
    pub name: String,
    pub messages_per_second: f64,
    pub bytes_per_second: f64,
}

/// Asks for readings, by three connections: what is asked at once costs the shards one or two questions.
pub struct Asker {
    lines: [Line; 3],
}

impl Asker {
    /// Where that line leads.
    #[must_use]
    pub fn new(line: &Line) -> Self {
        Asker {
            lines: [line.another(), line.another(), line.another()],
        }
    }

    /// What there is now.
    ///
    /// # Errors
    /// The broker is not reached, or does not tell.
    pub async fn read(&mut self) -> Result<Reading, Failure> {
        let [one, two, three] = &mut self.lines;
        let (status, mut shards, top) =
            tokio::try_join!(one.get("/status"), two.get("/shards"), three.get("/top"))?;
        let shards = shards.get_mut("shards").map(Value::take);
        Ok(Reading {
            at: Instant::now(),
            status: read(status)?,
            shards: read(shards.unwrap_or_default())?,
            top: read(top)?,
        })
    }
}

fn read<T: DeserializeOwned>(told: Value) -> Result<T, Failure> {
    serde_json::from_value(told).map_err(|error| {
        let text = format!("the broker tells what this program does not know: {error}");
        Failure::Failed(text)
    })
}
