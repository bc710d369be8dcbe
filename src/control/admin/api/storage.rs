//! What the broker keeps on disk, as operators see it.

use super::Answers;
use super::problem::Problem;
use crate::storage::log::progress::StoreFigures;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

/// What is kept on disk.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Storage {
    /// Whether anything is kept (`storage.directory`); else all below is 0.
    keeps: bool,
    /// Whether there is no room to keep more.
    full: bool,
    /// Bytes of all segments.
    log_bytes: u64,
    /// Segments of the log.
    segments: u64,
    /// Groups of records made safe together, since the start.
    commits: u64,
    /// Bytes that wait to be safe, by shard.
    pending_bytes: Vec<u64>,
    /// Beyond which who publishes what is kept waits.
    pending_bytes_max: u64,
}

/// What the broker keeps on disk.
#[utoipa::path(get, path = "/api/v1/storage", tag = "broker", responses(
    (status = 200, body = Storage), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn storage(State(answers): State<Answers>) -> Result<Json<Storage>, Problem> {
    let overview = answers.overview().await?;
    let figures = overview.store.as_ref();
    let number = |of: fn(&StoreFigures) -> u64| figures.map_or(0, of);
    Ok(Json(Storage {
        keeps: figures.is_some(),
        full: figures.is_some_and(|figures| figures.is_full),
        log_bytes: number(|figures| figures.log_bytes),
        segments: number(|figures| figures.segments),
        commits: number(|figures| figures.commits),
        pending_bytes: figures.map_or_else(Vec::new, |figures| figures.pending_bytes.clone()),
        pending_bytes_max: number(|figures| figures.pending_bytes_max),
    }))
}
