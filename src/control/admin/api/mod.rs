//! The admin API, version 1: what operators see of clients, subscriptions and messages, and what they change.
//!
//! Lists go by pages: what the next begins behind stands in `next`. Shards that did not answer in time are
//! named (`silent_shards`), and what they have is missing then; a change is not done unless it is said to be.

#![expect(unused_qualifications, reason = "what describes the pages writes them")]

mod bans;
mod bridges;
mod clients;
mod listeners;
mod messages;
mod problem;
mod settings;
mod shards;
mod storage;
mod subscriptions;
mod top;
mod trace;

use super::door::Caller;
use super::tokens::Role;
use crate::control::admin::answers::Answers;
use crate::control::inquiries::Gathered;
use crate::control::overview::Ask;
use crate::control::watch::Change;
use crate::engine::codec::topic::TopicLimits;
use crate::engine::keys::ShardId;
use crate::shard::inquiries::{Asked, Place};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use problem::Problem;
use std::cmp::Reverse;
use std::sync::Arc;
use tracing::info;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

/// Rows of a page where nobody says how many.
const LIMIT: usize = 100;
/// Rows of a page at most.
const LIMIT_MAX: usize = 1_000;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "RingMQ admin API",
        description = "Sight of clients, subscriptions and messages, and changes by hand.",
    ),
    paths(
        clients::list, clients::one, clients::errors, clients::disconnect, clients::end,
        subscriptions::of_filter, subscriptions::explain,
        messages::list, messages::read, messages::delete, messages::publish,
        bans::list, bans::add, bans::remove,
        bridges::list,
        settings::status, shards::shards, settings::config, settings::log, settings::set_log,
        settings::reload, top::top, storage::storage,
        listeners::list, listeners::close, listeners::drain,
        trace::trace,
    ),
    components(schemas(clients::By, clients::ClientState)),
    modifiers(&Bearer),
    security((), ("token" = [])),
)]
struct Description;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// All of it, under its version.
pub(super) fn router() -> Router<Answers> {
    let description = Json(Description::openapi());
    Router::new()
        .route("/openapi.json", get(async move || description))
        .route("/clients", get(clients::list))
        .route(
            "/clients/{client_id}",
            get(clients::one).delete(clients::end),
        )
        .route("/clients/{client_id}/errors", get(clients::errors))
        .route("/clients/{client_id}/disconnect", post(clients::disconnect))
        .route("/subscriptions", get(subscriptions::of_filter))
        .route("/explain", get(subscriptions::explain))
        .route("/retained", get(messages::list))
        .route(
            "/retained/message",
            get(messages::read).delete(messages::delete),
        )
        .route("/publish", post(messages::publish))
        .route(
            "/bans",
            get(bans::list).post(bans::add).delete(bans::remove),
        )
        .route("/bridges", get(bridges::list))
        .route("/status", get(settings::status))
        .route("/shards", get(shards::shards))
        .route("/top", get(top::top))
        .route("/storage", get(storage::storage))
        .route("/trace", get(trace::trace))
        .route("/listeners", get(listeners::list))
        .route("/listeners/close", post(listeners::close))
        .route("/drain", post(listeners::drain))
        .route("/config", get(settings::config))
        .route("/log", get(settings::log).put(settings::set_log))
        .route("/reload", post(settings::reload))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such page in the API"))
}

impl Caller {
    /// Whether it may do what takes that role.
    ///
    /// # Errors
    /// It may not.
    fn needs(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let text = match &self.name {
            Some(name) => format!("{name} has the role {}; this takes {role}", self.role),
            None => {
                format!("this takes a token of the role {role} (admin.token_file, `ringmq token`)")
            }
        };
        Err(Problem::new(StatusCode::FORBIDDEN, text))
    }
}

impl Answers {
    /// Asks all shards, or one.
    async fn ask_shards(&self, asked: Asked, only: Option<ShardId>) -> Result<Gathered, Problem> {
        let asked = Arc::new(asked);
        let gathered = self.ask(|to| Ask::Shards(asked, only, to)).await;
        gathered.map_err(Problem::unheard)
    }

    /// Has something changed that takes a role, and keeps account of it, whatever comes of it.
    async fn change<T>(
        &self,
        (caller, role): (&Caller, Role),
        (action, target): (&'static str, &str),
        done: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let outcome = match caller.needs(role) {
            Ok(()) => done.await,
            Err(problem) => Err(problem),
        };
        let status = outcome
            .as_ref()
            .map_or_else(|problem| problem.status(), |_| StatusCode::OK);
        let who = caller.name.as_deref().unwrap_or("somebody without a token");
        let end = match &outcome {
            Ok(_) => "done".to_owned(),
            Err(problem) => format!("not done: {}", problem.text()),
        };
        info!(
            "operator {who} from {}: {action} {target:?}: {end}",
            caller.from
        );
        self.record(Change {
            by: caller.name.clone(),
            role: caller.role.name(),
            from: caller.from.to_string(),
            action,
            target: target.to_owned(),
            status: status.as_u16(),
        });
        outcome
    }

    fn topic_limits(&self) -> TopicLimits {
        self.in_force().topic_limits
    }
}

/// How many rows somebody wants.
fn limit(wanted: Option<usize>) -> Result<usize, Problem> {
    let limit = wanted.unwrap_or(LIMIT);
    match (1..=LIMIT_MAX).contains(&limit) {
        true => Ok(limit),
        false => Err(Problem::wrong(format!(
            "limit is not between 1 and {LIMIT_MAX}"
        ))),
    }
}

/// A place as it stands in `next` and `after`.
fn written((Reverse(rank), name): &Place) -> String {
    URL_SAFE_NO_PAD.encode(format!("{rank} {name}"))
}

fn place(after: Option<&str>) -> Result<Option<Place>, Problem> {
    let Some(after) = after else { return Ok(None) };
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(after).ok()?).ok()?;
        let (rank, name) = text.split_once(' ')?;
        Some((Reverse(rank.parse().ok()?), name.to_owned()))
    };
    let wrong = || Problem::wrong("after is not what stood in next".to_owned());
    read().ok_or_else(wrong).map(Some)
}

/// The first rows of all shards, and behind which the next page begins if there is more.
fn merged<R>(mut rows: Vec<(Place, R)>, limit: usize) -> (Vec<R>, Option<String>) {
    rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| has_more);
    let next = last.map(|(place, _)| written(place));
    (rows.into_iter().map(|(_, row)| row).collect(), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_on_where_the_one_before_ended() {
        let row = |rank, name: &str| ((Reverse(rank), name.to_owned()), name.to_owned());
        let rows = vec![row(1, "c"), row(2, "b é"), row(2, "a")];
        let (page, next) = merged(rows.clone(), 2);
        assert_eq!(page, ["a", "b é"]);
        let next = place(next.as_deref()).unwrap_or_default();
        assert_eq!(next, Some((Reverse(2), "b é".to_owned())));
        assert_eq!(merged(rows, 3).1, None);
        for wrong in ["", "!", "YQ", "YSBi"] {
            assert!(place(Some(wrong)).is_err(), "{wrong}");
        }
        assert!(limit(Some(0)).is_err() && limit(Some(LIMIT_MAX + 1)).is_err());
        assert_eq!(limit(None).unwrap_or_default(), LIMIT);
    }

    #[test]
    fn everything_that_is_answered_is_described() {
        let described = Description::openapi().paths.paths;
        assert_eq!(described.len(), 22);
        assert!(described.keys().all(|path| path.starts_with("/api/v1/")));
    }

    #[test]
    fn nothing_in_the_description_leads_nowhere() {
        let text = Description::openapi().to_json().unwrap_or_default();
        let whole: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let schemas = &whole["components"]["schemas"];
        let named = text.split("#/components/schemas/").skip(1);
        let named: Vec<_> = named.filter_map(|rest| rest.split('"').next()).collect();
        assert!(named.contains(&"By") && named.contains(&"Problem"));
        for name in named {
            assert!(schemas[name].is_object(), "{name}");
        }
    }
}
