//! What is answered to a request.

use super::counts::AdminCounts;
use super::door::{Door, From, Refusal};
use super::kept::{InForce, Kept, KeptFiles, ShownConfig};
use super::tls::AdminTls;
use super::{metrics, page, process};
use crate::control::config::{AdminConfig, TraceBounds};
use crate::control::overview::{Ask, Health};
use crate::control::watch::{Change, Record, Records};
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use crossbeam_channel::{Sender, TrySendError};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Of OpenMetrics, as Prometheus asks for it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What all answers need.
#[derive(Clone)]
pub(super) struct Answers(Arc<Inner>);

struct Inner {
    asks: Sender<Ask>,
    rules: RwLock<Arc<Rules>>,
    in_force: Arc<ShownConfig>,
    records: Records,
    counts: Arc<AdminCounts>,
}

/// What the configuration says of who may ask, and how much.
pub(super) struct Rules {
    pub config: AdminConfig,
    door: Door,
    /// `None` where it is not over TLS.
    pub tls: Option<Arc<AdminTls>>,
    /// Of connections, ...
    pub places: Arc<Semaphore>,
    /// ... and of those who follow packets.
    traces_left: Arc<Semaphore>,
}

impl Rules {
    pub fn new(config: &AdminConfig, files: KeptFiles) -> Self {
        Rules {
            door: Door::new(config, files.tokens),
            tls: files.tls,
            places: Arc::new(Semaphore::new(config.connections_max)),
            traces_left: Arc::new(Semaphore::new(config.traces.traces_max)),
            config: config.clone(),
        }
    }

    /// Those that are there keep their places, if there are as many as before.
    fn keep_places(&mut self, before: &Rules) {
        if self.config.connections_max == before.config.connections_max {
            self.places = Arc::clone(&before.places);
        }
        if self.config.traces.traces_max == before.config.traces.traces_max {
            self.traces_left = Arc::clone(&before.traces_left);
        }
    }
}

/// Why the control plane has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unheard {
    /// The broker stops.
    Stopping,
    /// It does not in time, or too many ask.
    Busy,
}

impl Unheard {
    pub const fn text(self) -> &'static str {
        match self {
            Unheard::Stopping => "the broker is stopping",
            Unheard::Busy => {
                "the broker's main thread does not answer in time (admin.request_timeout_ms), or too many ask"
            }
        }
    }
}

impl IntoResponse for Unheard {
    fn into_response(self) -> Response {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", self.text()),
        )
            .into_response()
    }
}

impl Answers {
    pub fn new(asks: Sender<Ask>, rules: Rules, kept: &Kept, counts: Arc<AdminCounts>) -> Self {
        Answers(Arc::new(Inner {
            asks,
            rules: RwLock::new(Arc::new(rules)),
            in_force: Arc::clone(&kept.in_force),
            records: kept.records.clone(),
            counts,
        }))
    }

    /// The rules in force.
    pub(super) fn rules(&self) -> Arc<Rules> {
        let rules = self.0.rules.read();
        Arc::clone(&rules.unwrap_or_else(PoisonError::into_inner))
    }

    /// These are in force from now on, for who is there too.
    pub(super) fn set_rules(&self, mut rules: Rules) {
        rules.keep_places(&self.rules());
        let mut known = self.0.rules.write().unwrap_or_else(PoisonError::into_inner);
        *known = Arc::new(rules);
    }

    pub fn router(&self, api: Router<Answers>) -> Router {
        let check = middleware::from_fn_with_state(self.clone(), check);
        Router::new()
            .merge(page::routes())
            .route("/metrics", get(metrics_page))
            .route("/healthz", get(alive))
            .route("/readyz", get(ready))
            .nest("/api/v1", api)
            .layer(check)
            .with_state(self.clone())
    }

    /// The configuration, as it is shown.
    pub(super) fn in_force(&self) -> Arc<InForce> {
        self.0.in_force.now()
    }

    /// Slow and loud ones that are told of.
    pub(super) fn top_max(&self) -> usize {
        self.rules().config.top_max
    }

    /// What those who follow packets may take.
    pub(super) fn trace_bounds(&self) -> TraceBounds {
        self.rules().config.traces
    }

    /// A place among those who follow packets, and what is counted; `None` if there are so many.
    pub(super) fn enter_traces(&self) -> Option<(OwnedSemaphorePermit, Arc<AdminCounts>)> {
        let counts = &self.0.counts;
        match Arc::clone(&self.rules().traces_left).try_acquire_owned() {
            Ok(place) => Some((place, Arc::clone(counts))),
            Err(_) => {
                AdminCounts::add(&counts.traces_refused);
                None
            }
        }
    }

    /// Has a change recorded; what finds no room is counted.
    pub(super) fn record(&self, change: Change) {
        let records = &self.0.records;
        let full = records.to.try_send(Record::Changed(Box::new(change)));
        if matches!(full, Err(TrySendError::Full(_))) {
            records.notes_left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request that may be answered: who asks is beside it, and its body is there.
    async fn admit(&self, from: From, request: Request) -> Result<Request, Refusal> {
        let (inner, rules) = (&self.0, self.rules());
        if rules.door.is_too_fast(from, Instant::now()) {
            let text =
                "more requests than one address may have in a second (admin.request_rate_max)";
            return Err((StatusCode::TOO_MANY_REQUESTS, text));
        }
        if page::is_part(request.uri().path()) {
            rules
                .door
                .let_look(from, request.method(), request.headers())?;
            return Ok(request);
        }
        let caller = rules
            .door
            .let_in(from, request.method(), request.headers())?;
        let (mut parts, body) = request.into_parts();
        let body = to_bytes(body, rules.config.body_bytes_max);
        let body = match tokio::time::timeout(rules.config.request_timeout, body).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => {
                let text = "its body is longer than admin.body_bytes_max, or was cut off";
                return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            Err(_) => {
                AdminCounts::add(&inner.counts.timeouts);
                let text = "its body did not come within admin.request_timeout_ms";
                return Err((StatusCode::REQUEST_TIMEOUT, text));
            }
        };
        parts.extensions.insert(caller);
        Ok(Request::from_parts(parts, body.into()))
    }

    /// Whether nobody listens any more to what is asked.
    fn is_stopping(&self) -> bool {
        let (sender, _) = oneshot::channel();
        send(&self.0.asks, Ask::Health(sender)) == Err(Unheard::Stopping)
    }

    /// Asks the control plane and waits for what it says, for a while.
    pub(super) async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<T, Unheard> {
        let (sender, answer) = oneshot::channel();
        let late = |unheard| {
            AdminCounts::add(&self.0.counts.timeouts);
            unheard
        };
        match send(&self.0.asks, ask(sender)) {
            Ok(()) => {}
            Err(Unheard::Stopping) => return Err(Unheard::Stopping),
            Err(Unheard::Busy) => return Err(late(Unheard::Busy)),
        }
        let within = self.rules().config.request_timeout;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) if self.is_stopping() => Err(Unheard::Stopping),
            _ => Err(late(Unheard::Busy)),
        }
    }
}

/// The main thread listens until it stops.
fn send(asks: &Sender<Ask>, ask: Ask) -> Result<(), Unheard> {
    asks.try_send(ask).map_err(|error| match error {
        TrySendError::Disconnected(_) => Unheard::Stopping,
        TrySendError::Full(_) => Unheard::Busy,
    })
}

/// Lets a request in, if it may come, with its body whole.
async fn check(
    State(answers): State<Answers>,
    Extension(from): Extension<From>,
    request: Request,
    next: Next,
) -> Response {
    AdminCounts::add(&answers.0.counts.requests);
    let mut response = match answers.admit(from, request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refused(refusal),
    };
    if is_refusal(response.status()) {
        AdminCounts::add(&answers.0.counts.requests_refused);
    }
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let sniff = HeaderValue::from_static("nosniff");
    headers.insert(X_CONTENT_TYPE_OPTIONS, sniff);
    response
}

const fn is_refusal(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS
    )
}

/// What is told to who is not let in.
fn refused((status, text): Refusal) -> Response {
    let mut response = (status, Json(json!({ "error": text }))).into_response();
    let hint = match status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::TOO_MANY_REQUESTS => Some((RETRY_AFTER, "1")),
        _ => None,
    };
    if let Some((name, value)) = hint {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn metrics_page(State(answers): State<Answers>) -> Response {
    let overview = match answers.ask(Ask::Overview).await {
        Ok(overview) => overview,
        Err(unheard) => return unheard.into_response(),
    };
    match metrics::page(&overview, &process::look(), answers.top_max()) {
        Ok(text) => {
            let mut response = Body::from(text).into_response();
            let kind = HeaderValue::from_static(OPEN_METRICS);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn alive(State(answers): State<Answers>) -> Response {
    match answers.ask(Ask::Health).await {
        Ok(health) => answer(health.is_alive(), &health, None),
        Err(unheard) => unheard.into_response(),
    }
}

async fn ready(State(answers): State<Answers>) -> Response {
    match answers.ask(Ask::Health).await {
        Ok(health) => answer(health.problems.is_empty(), &health, Some(&health.listeners)),
        Err(unheard) => unheard.into_response(),
    }
}

fn answer(is_well: bool, health: &Health, listeners: Option<&Vec<String>>) -> Response {
    let status = match is_well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut told = json!({
        "status": if is_well { "ok" } else { "failing" },
        "shards": health.shards,
        "problems": health.problems,
    });
    if let Some(listeners) = listeners {
        told["listeners"] = json!(listeners);
    }
    (status, Json(told)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_stops_is_told_from_one_that_is_busy() {
        let (asks, heard) = crossbeam_channel::bounded(1);
        let ask = || Ask::Health(oneshot::channel().0);
        assert_eq!(send(&asks, ask()), Ok(()));
        assert_eq!(send(&asks, ask()), Err(Unheard::Busy));
        drop(heard);
        assert_eq!(send(&asks, ask()), Err(Unheard::Stopping));
        assert_eq!(Unheard::Stopping.text(), "the broker is stopping");
    }
}
