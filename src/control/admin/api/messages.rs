//! Retained messages, and what operators publish.

use super::problem::{Body, Problem, Query};
use super::subscriptions::{check_filter, check_topic, qos};
use super::{Answers, limit};
use crate::control::admin::door::Caller;
use crate::control::admin::tokens::Role;
use crate::engine::codec::topic::is_reserved;
use crate::engine::message::Qos;
use crate::shard::inquiries::{Asked, RetainedRow, Told};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which retained messages.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfFilter {
    /// Their topics match it; all that do not begin with $, if it is not said.
    filter: Option<String>,
    /// What stood in `next` of the page before.
    after: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A page of retained messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RetainedPage {
    /// In the order of their topics.
    messages: Vec<RetainedRow>,
    /// Behind which the next page begins; null at the end.
    next: Option<String>,
    /// Shards that did not answer: what they have is missing.
    silent_shards: Vec<u16>,
}

/// A topic.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfTopic {
    /// The topic.
    topic: String,
}

/// A retained message with its payload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RetainedMessage {
    /// Without it.
    #[serde(flatten)]
    message: RetainedRow,
    /// The payload, if it is text.
    payload: Option<String>,
    /// The payload.
    payload_base64: String,
}

/// What is to be published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Publication {
    /// To this topic.
    topic: String,
    /// The payload as text; empty if neither is said.
    payload: Option<String>,
    /// The payload, in its place.
    payload_base64: Option<String>,
    /// QoS; 0 if it is not said.
    #[schema(minimum = 0, maximum = 2)]
    qos: Option<u8>,
    /// Whether it becomes the topic's retained message; an empty one removes that.
    #[serde(default)]
    retain: bool,
}

/// Retained messages, page by page, without their payloads.
#[utoipa::path(get, path = "/api/v1/retained", tag = "messages", params(OfFilter), responses(
    (status = 200, body = RetainedPage), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn list(
    State(answers): State<Answers>,
    Query(which): Query<OfFilter>,
) -> Result<Json<RetainedPage>, Problem> {
    let limit = limit(which.limit)?;
    let filter = which.filter.unwrap_or_else(|| "#".to_owned());
    check_filter(&answers, &filter)?;
    let asked = Asked::Retained {
        filter,
        after: which.after,
        max: limit + 1,
    };
    let gathered = answers.ask_shards(asked, None).await?;
    let mut messages = Vec::new();
    for (_, told) in gathered.told {
        if let Told::Retained(some) = told {
            messages.extend(some);
        }
    }
    messages.sort_by(|one, other| one.topic.cmp(&other.topic));
    let has_more = messages.len() > limit;
    messages.truncate(limit);
    let last = messages.last().filter(|_| has_more);
    Ok(Json(RetainedPage {
        next: last.map(|message| message.topic.clone()),
        messages,
        silent_shards: gathered.silent,
    }))
}

/// The retained message of a topic, with its payload.
#[utoipa::path(get, path = "/api/v1/retained/message", tag = "messages", params(OfTopic), responses(
    (status = 200, body = RetainedMessage), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn read(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<OfTopic>,
) -> Result<Json<RetainedMessage>, Problem> {
    caller.needs(Role::Operate)?;
    check_topic(&answers, &which.topic)?;
    let (message, payload) = answers.retained(which.topic).await?;
    Ok(Json(RetainedMessage {
        message,
        payload: std::str::from_utf8(&payload).ok().map(str::to_owned),
        payload_base64: STANDARD.encode(&payload),
    }))
}

/// Deletes the retained message of a topic.
#[utoipa::path(delete, path = "/api/v1/retained/message", tag = "messages", params(OfTopic), responses(
    (status = 204), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn delete(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<OfTopic>,
) -> Result<StatusCode, Problem> {
    let target = which.topic.clone();
    let deletes = async {
        check_publish(&answers, &which.topic)?;
        answers.retained(which.topic.clone()).await?;
        answers
            .publish(which.topic, Bytes::new(), Qos::AtMostOnce, true)
            .await
    };
    let what = ("delete retained", target.as_str());
    answers
        .change((&caller, Role::Operate), what, deletes)
        .await
}

/// Publishes a message. No access rule concerns it.
#[utoipa::path(post, path = "/api/v1/publish", tag = "messages", request_body = Publication, responses(
    (status = 204), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn publish(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Body(publication): Body<Publication>,
) -> Result<StatusCode, Problem> {
    let target = publication.topic.clone();
    let publishes = async {
        check_publish(&answers, &publication.topic)?;
        let qos = qos(publication.qos)?;
        let payload = match (publication.payload, publication.payload_base64) {
            (Some(_), Some(_)) => {
                let text = "payload and payload_base64 are both said; leave one out";
                return Err(Problem::wrong(text.to_owned()));
            }
            (text, None) => text.unwrap_or_default().into_bytes(),
            (None, Some(text)) => STANDARD
                .decode(text)
                .map_err(|_| Problem::wrong("payload_base64 is not base64".to_owned()))?,
        };
        let (topic, retain) = (publication.topic, publication.retain);
        answers.publish(topic, payload.into(), qos, retain).await
    };
    let what = ("publish", target.as_str());
    answers
        .change((&caller, Role::Operate), what, publishes)
        .await
}

fn check_publish(answers: &Answers, topic: &str) -> Result<(), Problem> {
    check_topic(answers, topic)?;
    match is_reserved(topic) {
        true => Err(Problem::wrong("topic: it is the broker's own".to_owned())),
        false => Ok(()),
    }
}

impl Answers {
    async fn retained(&self, topic: String) -> Result<(RetainedRow, Bytes), Problem> {
        let gathered = self.ask_shards(Asked::RetainedMessage(topic), None).await?;
        let found = gathered.told.into_iter().find_map(|(_, told)| match told {
            Told::RetainedMessage(found) => found,
            _ => None,
        });
        match found {
            Some(found) => Ok(found),
            None if gathered.silent.is_empty() => {
                Err(Problem::missing("nothing is retained for this topic"))
            }
            None => Err(Problem::silent(&gathered.silent)),
        }
    }

    async fn publish(
        &self,
        topic: String,
        payload: Bytes,
        qos: Qos,
        retain: bool,
    ) -> Result<StatusCode, Problem> {
        let asked = Asked::Publish {
            topic,
            payload,
            qos,
            retain,
        };
        // Any shard routes it to all.
        let gathered = self.ask_shards(asked, Some(0)).await?;
        match gathered.silent.is_empty() {
            true => Ok(StatusCode::NO_CONTENT),
            false => Err(Problem::silent(&gathered.silent)),
        }
    }
}
