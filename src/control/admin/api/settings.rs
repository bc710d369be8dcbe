//! How the broker is, how it is configured, and what of that may change while it runs.

use super::Answers;
use super::problem::{Body, Problem};
use crate::control::admin::door::Caller;
use crate::control::admin::tokens::Role;
use crate::control::config::LogLevel;
use crate::control::log;
use crate::control::overview::{Ask, Health, Overview};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;

/// How the broker is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    version: &'static str,
    uptime_seconds: u64,
    shards: usize,
    connections: u64,
    sessions: u64,
    subscriptions: u64,
    retained_messages: u64,
    queued_messages: u64,
    memory_bytes: u64,
    /// Bridges to other brokers, each connection of one for itself.
    bridges: u64,
    /// Those whose line is up.
    bridges_up: u64,
    listeners: Vec<String>,
    /// Why it does not serve as it should; empty if it does.
    problems: Vec<String>,
}

/// The configuration in force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Config {
    /// What was said by file, environment and flags; everything else has its default.
    #[schema(value_type = Object)]
    said: Map<String, Value>,
    /// Keys that environment or command line say: they stay so whatever the file says.
    overridden: Vec<String>,
    /// All limits.
    #[schema(value_type = Object)]
    limits: Map<String, Value>,
    /// Where the broker listens.
    listeners: Vec<String>,
    log: LogLevel,
}

/// How much is logged.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    level: LogLevel,
}

/// What was read anew.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reloaded {
    /// Files that are read.
    reloaded: Vec<String>,
    /// Keys of the configuration that are in force with another value, with that before.
    changed: Vec<String>,
    /// Keys that have another value, and need a restart.
    needs_restart: Vec<String>,
    /// What is wrong: nothing was changed.
    errors: Vec<String>,
}

impl Answers {
    pub(super) async fn overview(&self) -> Result<Arc<Overview>, Problem> {
        let overview = self.ask(Ask::Overview).await;
        overview.map_err(Problem::unheard)
    }

    async fn health(&self) -> Result<Health, Problem> {
        let health = self.ask(Ask::Health).await;
        health.map_err(Problem::unheard)
    }
}

/// How the broker is.
#[utoipa::path(get, path = "/api/v1/status", tag = "broker", responses(
    (status = 200, body = Status), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn status(State(answers): State<Answers>) -> Result<Json<Status>, Problem> {
    let overview = answers.overview().await?;
    let health = answers.health().await?;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: overview.uptime_seconds,
        shards: overview.shards.len(),
        connections: overview.sum("connections"),
        sessions: overview.sum("sessions"),
        subscriptions: overview.sum("subscriptions"),
        retained_messages: overview.sum("retained_messages"),
        queued_messages: overview.sum("queued_messages"),
        memory_bytes: overview.count("memory_bytes"),
        bridges: overview.count("bridges"),
        bridges_up: overview.count("bridges_up"),
        listeners: health.listeners,
        problems: health.problems,
    }))
}

/// The configuration in force, without secrets.
#[utoipa::path(get, path = "/api/v1/config", tag = "broker", responses(
    (status = 200, body = Config), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn config(State(answers): State<Answers>) -> Json<Config> {
    let in_force = answers.in_force();
    Json(Config {
        said: in_force.said.clone(),
        overridden: in_force.overridden.clone(),
        limits: in_force.limits.clone(),
        listeners: in_force.listens_at.clone(),
        log: log::level(),
    })
}

/// How much is logged.
#[utoipa::path(get, path = "/api/v1/log", tag = "broker", responses(
    (status = 200, body = Log), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn log() -> Json<Log> {
    Json(Log {
        level: log::level(),
    })
}

/// Has more or less logged, until the next start.
#[utoipa::path(put, path = "/api/v1/log", tag = "broker", request_body = Log, responses(
    (status = 204), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn set_log(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<Log>,
) -> Result<StatusCode, Problem> {
    let sets = async {
        match log::set_level(wanted.level) {
            true => Ok(StatusCode::NO_CONTENT),
            false => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the log's thread was not started, so its level cannot be set",
            )),
        }
    };
    let what = ("set log level", wanted.level.name());
    answers.change((&caller, Role::Admin), what, sets).await
}

/// Reads the configuration and the files that it names anew, as on SIGHUP, all or nothing.
#[utoipa::path(post, path = "/api/v1/reload", tag = "broker", responses(
    (status = 200, body = Reloaded), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn reload(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Reloaded>, Problem> {
    let reloads = async {
        let told = answers.ask(Ask::Reload).await;
        let outcome = told.map_err(Problem::unheard)?;
        Ok(Json(Reloaded {
            reloaded: outcome.reloaded,
            changed: outcome.changed,
            needs_restart: outcome.needs_restart,
            errors: outcome.errors,
        }))
    };
    answers
        .change((&caller, Role::Admin), ("reload", ""), reloads)
        .await
}
