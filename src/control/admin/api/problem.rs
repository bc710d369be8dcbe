//! What is told where something is not done.

use crate::control::admin::answers::Unheard;
use crate::control::config::in_words;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why something was not done.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control::admin) struct Problem {
    #[serde(skip)]
    #[schema(ignore)]
    status: StatusCode,
    /// In an operator's words.
    error: String,
}

impl Problem {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Problem {
            status,
            error: error.into(),
        }
    }

    /// What was asked cannot be.
    pub fn wrong(error: String) -> Self {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error)
    }

    /// There is no such thing.
    pub fn missing(error: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, error)
    }

    /// The control plane does not answer.
    pub fn unheard(unheard: Unheard) -> Self {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, unheard.text())
    }

    /// Shards did not answer, so that it is not known.
    pub fn silent(shards: &[u16]) -> Self {
        let shards: Vec<_> = shards.iter().map(ToString::to_string).collect();
        let text = format!(
            "shard {} did not answer in time, so it may be done or not; look again",
            shards.join(", ")
        );
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    pub fn text(&self) -> &str {
        &self.error
    }

    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let text = rejection.body_text();
        let text = match &rejection {
            JsonRejection::JsonDataError(_) => wrong_with("the body", &text),
            JsonRejection::JsonSyntaxError(_) => wrong_with("the body is no JSON", &text),
            JsonRejection::MissingJsonContentType(_) => {
                "a body comes with Content-Type: application/json".to_owned()
            }
            _ => text,
        };
        Problem::new(rejection.status(), text)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::wrong(wrong_with(
            "what stands behind the question mark",
            &rejection.body_text(),
        ))
    }
}

/// What is wrong, without the library's introduction to it.
fn wrong_with(what: &str, text: &str) -> String {
    let (_, wrong) = text.split_once(": ").unwrap_or(("", text));
    format!("{what}: {}", in_words(wrong))
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Problem::new(rejection.status(), rejection.body_text())
    }
}

/// A body in JSON.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Problem))]
pub(super) struct Body<T>(pub T);

/// What stands behind the question mark.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub T);

/// What stands in the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub T);
