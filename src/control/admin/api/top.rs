//! Who is slow, and who is loud.

use super::Answers;
use super::problem::Problem;
use crate::control::overview::{Loud, Overview};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

/// A slow client.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SlowRow {
    client_id: String,
    shard: u16,
    /// Milliseconds for which the oldest message for it has waited, in its session or for its socket.
    waits_ms: u64,
    /// Messages that wait for it, or that it has not acknowledged.
    messages: u64,
    /// Bytes that wait for it.
    bytes: u64,
    /// Messages that it has lost since its session began.
    dropped_messages: u64,
}

/// Somebody, or some topics, and how loud.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LoudRow {
    /// A client identifier, or what topics have in common, as a filter.
    name: String,
    messages_per_second: f64,
    /// Of topics and payloads.
    bytes_per_second: f64,
}

/// Who is slow, and who is loud; `admin.top_max` of each at most.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Top {
    /// Connected clients whose oldest message has waited for 100 ms or more, the longest first, as they were
    /// when somebody asked the time before.
    slow_clients: Vec<SlowRow>,
    /// Who publishes most messages, for the last 10 to 20 seconds; of samples.
    loud_clients: Vec<LoudRow>,
    /// Where to: the first two levels of topics.
    loud_topics: Vec<LoudRow>,
}

fn loud(rows: Vec<Loud>) -> Vec<LoudRow> {
    let tenths = |rate: f64| (rate * 10.0).round() / 10.0;
    let rows = rows.into_iter().map(|row| LoudRow {
        name: row.name,
        messages_per_second: tenths(row.messages_per_second),
        bytes_per_second: tenths(row.bytes_per_second),
    });
    rows.collect()
}

fn slow(overview: &Overview, max: usize) -> Vec<SlowRow> {
    let rows = overview.slow(max).into_iter().map(|(shard, slow)| SlowRow {
        client_id: slow.client_id.clone(),
        shard,
        waits_ms: slow.waits_ms,
        messages: slow.messages,
        bytes: slow.bytes,
        dropped_messages: slow.dropped_messages,
    });
    rows.collect()
}

/// Slow clients, and who publishes most and where to.
#[utoipa::path(get, path = "/api/v1/top", tag = "broker", responses(
    (status = 200, body = Top), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn top(State(answers): State<Answers>) -> Result<Json<Top>, Problem> {
    let overview = answers.overview().await?;
    let max = answers.top_max();
    Ok(Json(Top {
        slow_clients: slow(&overview, max),
        loud_clients: loud(overview.loud(|loudest| &loudest.clients, max)),
        loud_topics: loud(overview.loud(|loudest| &loudest.topics, max)),
    }))
}
