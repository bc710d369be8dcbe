//! Where the broker listens: seen, closed, drained; and the whole broker drained.

use super::Answers;
use super::problem::{Body, Problem};
use crate::control::admin::door::Caller;
use crate::control::admin::tokens::Role;
use crate::control::overview::Ask;
use crate::shard::inquiries::Asked;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most clients that are sent away in a second.
const RATE_MAX: u32 = 1_000_000;

/// A listener.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListenerRow {
    /// Where it is.
    listener: String,
    /// Whether it accepts connections.
    open: bool,
    /// Connections that have come by it.
    connections: u64,
}

/// All listeners.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListenerList {
    listeners: Vec<ListenerRow>,
}

/// How to drain the broker.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    /// Clients that are sent away in a second; `shutdown.drain_rate`, if it is not said.
    #[schema(minimum = 1, maximum = 1000000)]
    rate: Option<u32>,
}

/// Which listener to close, and what becomes of its clients.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Close {
    /// As /listeners names it.
    listener: String,
    /// Whether clients that have come by it are sent away.
    #[serde(default)]
    drain: bool,
    /// So many of them in a second; `shutdown.drain_rate`, if it is not said.
    #[schema(minimum = 1, maximum = 1000000)]
    rate: Option<u32>,
}

impl Answers {
    fn rate(&self, said: Option<u32>) -> Result<u32, Problem> {
        let rate = said.unwrap_or(self.in_force().drain_rate);
        match (1..=RATE_MAX).contains(&rate) {
            true => Ok(rate),
            false => Err(Problem::wrong(format!(
                "rate is not between 1 and {RATE_MAX}"
            ))),
        }
    }

    /// Has shards accept nobody any more, and send clients away.
    async fn drain(&self, listener: Option<u16>, per_second: u32) -> Result<StatusCode, Problem> {
        let told = self.ask(|to| Ask::Close(listener, to)).await;
        told.map_err(Problem::unheard)?;
        let asked = Asked::Drain {
            listener,
            per_second,
        };
        let gathered = self.ask_shards(asked, None).await?;
        match gathered.silent.is_empty() {
            true => Ok(StatusCode::NO_CONTENT),
            false => Err(Problem::silent(&gathered.silent)),
        }
    }
}

/// Where the broker listens.
#[utoipa::path(get, path = "/api/v1/listeners", tag = "broker", responses(
    (status = 200, body = ListenerList), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn list(State(answers): State<Answers>) -> Result<Json<ListenerList>, Problem> {
    let told = answers.ask(Ask::Listeners).await;
    let told = told.map_err(Problem::unheard)?;
    let in_force = answers.in_force();
    let names = in_force.listeners.iter();
    let listeners = names.zip(told).filter_map(|(name, told)| {
        let (open, connections) = told?;
        Some(ListenerRow {
            listener: name.clone(),
            open,
            connections,
        })
    });
    Ok(Json(ListenerList {
        listeners: listeners.collect(),
    }))
}

/// Closes a listener until the next start; its clients stay, or are sent away.
#[utoipa::path(post, path = "/api/v1/listeners/close", tag = "broker", request_body = Close, responses(
    (status = 204), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn close(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Body(close): Body<Close>,
) -> Result<StatusCode, Problem> {
    let closes = async {
        let listener = answers.listener_number(&close.listener)?;
        let rate = answers.rate(close.rate)?;
        let rate = if close.drain { rate } else { 0 };
        answers.drain(Some(listener), rate).await
    };
    let what = ("close listener", close.listener.as_str());
    answers.change((&caller, Role::Admin), what, closes).await
}

/// Drains the broker: it accepts nobody, is not ready any more, sends its clients away (0x9C where
/// `mqtt.server_reference` says where to, else 0x8B), and stops when they have gone.
#[utoipa::path(post, path = "/api/v1/drain", tag = "broker", request_body = Drain, responses(
    (status = 204), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn drain(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Body(drain): Body<Drain>,
) -> Result<StatusCode, Problem> {
    let drains = async {
        let rate = answers.rate(drain.rate)?;
        answers.drain(None, rate).await
    };
    let what = ("drain", "");
    answers.change((&caller, Role::Admin), what, drains).await
}
