//! What is answered to a request.

use super::counts::AdminCounts;
use super::{metrics, process};
use crate::control::config::AdminConfig;
use crate::control::overview::{Ask, Health};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use crossbeam_channel::Sender;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Of OpenMetrics, as Prometheus asks for it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Where there is something to read.
const PAGES: &str = "RingMQ: /metrics, /healthz, /readyz\n";

/// What all answers need.
#[derive(Clone)]
pub(super) struct Answers(Arc<Inner>);

struct Inner {
    asks: Sender<Ask>,
    hosts: Vec<String>,
    within: Duration,
    counts: Arc<AdminCounts>,
}

impl Answers {
    pub fn new(asks: Sender<Ask>, config: &AdminConfig, counts: Arc<AdminCounts>) -> Self {
        Answers(Arc::new(Inner {
            asks,
            hosts: config.hosts.clone(),
            within: config.request_timeout,
            counts,
        }))
    }

    pub fn router(&self) -> Router {
        let check = middleware::from_fn_with_state(self.clone(), check);
        Router::new()
            .route("/", get(async || PAGES))
            .route("/metrics", get(metrics_page))
            .route("/healthz", get(alive))
            .route("/readyz", get(ready))
            .layer(check)
            .with_state(self.clone())
    }

    /// Asks the control plane and waits for what it says, for a while.
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Response> {
        let (sender, answer) = oneshot::channel();
        let late = || {
            AdminCounts::add(&self.0.counts.timeouts);
            let text =
                "the broker's main thread does not answer in time (admin.request_timeout_ms)\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        };
        if self.0.asks.try_send(ask(sender)).is_err() {
            return Err(late());
        }
        match tokio::time::timeout(self.0.within, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(late()),
        }
    }

    /// Why a request is not looked at any further.
    fn refusal(&self, request: &Request) -> Option<(StatusCode, &'static str)> {
        let headers = request.headers();
        if !self.is_called(headers) {
            let text = "its Host names neither this machine's loopback nor one of admin.hosts\n";
            return Some((StatusCode::FORBIDDEN, text));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some((
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is answered here\n",
            ));
        }
        let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
        if headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0") {
            return Some((
                StatusCode::PAYLOAD_TOO_LARGE,
                "a request has no body here\n",
            ));
        }
        None
    }

    /// Whether a request calls a name that is this machine's.
    fn is_called(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let Ok(host) = host.to_str() else {
            return false;
        };
        let name = without_port(host);
        let ip = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost")
            || ip.is_ok_and(|ip| ip.is_loopback())
            || self
                .0
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// A host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
            if is_port { name } else { host }
        }
        _ => host,
    }
}

async fn check(State(answers): State<Answers>, request: Request, next: Next) -> Response {
    AdminCounts::add(&answers.0.counts.requests);
    let mut response = match answers.refusal(&request) {
        Some(refused) => {
            AdminCounts::add(&answers.0.counts.requests_refused);
            refused.into_response()
        }
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

async fn metrics_page(State(answers): State<Answers>) -> Response {
    let overview = match answers.ask(Ask::Overview).await {
        Ok(overview) => overview,
        Err(response) => return response,
    };
    match metrics::page(&overview, &process::look()) {
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
        Err(response) => response,
    }
}

async fn ready(State(answers): State<Answers>) -> Response {
    match answers.ask(Ask::Health).await {
        Ok(health) => answer(health.problems.is_empty(), &health, Some(&health.listeners)),
        Err(response) => response,
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

    fn is_called(hosts: &[&str]) -> bool {
        let (asks, _) = crossbeam_channel::bounded(1);
        let config = AdminConfig {
            place: None,
            is_said: false,
            hosts: vec!["Broker.example".into()],
            connections_max: 1,
            header_bytes_max: 8_192,
            request_timeout: Duration::from_secs(1),
        };
        let answers = Answers::new(asks, &config, Arc::default());
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        answers.is_called(&headers)
    }

    #[test]
    fn only_names_of_this_machine_are_answered_to() {
        for known in [
            "localhost",
            "LOCALHOST:14883",
            "127.0.0.1:14883",
            "127.1.2.3",
            "[::1]:80",
            "[::1]",
            "broker.example:1",
        ] {
            assert!(is_called(&[known]), "{known}");
        }
        for stranger in [
            "",
            "example.com",
            "localhost.example:80",
            "10.0.0.1:14883",
            "localhost:x",
            "::1:80x",
        ] {
            assert!(!is_called(&[stranger]), "{stranger}");
        }
        assert!(!is_called(&[]) && !is_called(&["localhost", "example.com"]));
    }
}
