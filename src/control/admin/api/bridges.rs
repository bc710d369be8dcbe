//! Bridges to other brokers: how each is.

use super::Answers;
use super::problem::Problem;
use crate::control::bridges::BridgeState;
use crate::control::overview::Ask;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BridgeList {
    bridges: Vec<BridgeState>,
}

/// How each bridge to another broker is.
#[utoipa::path(get, path = "/api/v1/bridges", tag = "bridges", responses(
    (status = 200, body = BridgeList), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn list(State(answers): State<Answers>) -> Result<Json<BridgeList>, Problem> {
    // Shards tell then what went through their lines, and what waits.
    let overview = answers.overview().await?;
    let bridges = answers.ask(Ask::Bridges).await;
    let bridges = bridges.map_err(Problem::unheard)?;
    let with_queue = |state: BridgeState| match overview.waiting_for(&state.client_id) {
        Some(waiting) => state.with_queue(waiting),
        None => state,
    };
    let bridges = bridges.into_iter().map(with_queue).collect();
    Ok(Json(BridgeList { bridges }))
}
