//! Who subscribes to a filter, and who would get a message.

use super::problem::{Problem, Query};
use super::{Answers, limit, merged, place};
use crate::engine::codec::topic::{TopicFilter, TopicName, is_reserved};
use crate::engine::message::Qos;
use crate::shard::inquiries::{Asked, SubscriberRow, Told};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which subscriptions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfFilter {
    /// Exactly this topic filter, without share name.
    filter: String,
    /// What stood in `next` of the page before.
    after: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Which message.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfTopic {
    /// Its topic.
    topic: String,
    /// Its QoS; 0 if it is not said.
    #[param(minimum = 0, maximum = 2)]
    qos: Option<u8>,
    /// The client that would publish it.
    publisher: Option<String>,
    /// What stood in `next` of the page before.
    after: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A page of subscriptions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SubscriptionPage {
    /// By client identifier.
    subscriptions: Vec<SubscriberRow>,
    /// How many there are in all.
    count: u64,
    /// Behind which the next page begins; null at the end.
    next: Option<String>,
    /// Shards that did not answer: what they have is missing.
    silent_shards: Vec<u16>,
}

/// Who would get a message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Explanation {
    /// Whether its publisher may publish it; null where none is named, or it has no session.
    publisher_may: Option<bool>,
    /// Why nobody gets it, whatever is subscribed.
    nobody_because: Option<&'static str>,
    /// Subscriptions that match.
    #[serde(flatten)]
    page: SubscriptionPage,
}

/// Subscriptions to exactly one filter.
#[utoipa::path(get, path = "/api/v1/subscriptions", tag = "subscriptions", params(OfFilter), responses(
    (status = 200, body = SubscriptionPage), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn of_filter(
    State(answers): State<Answers>,
    Query(which): Query<OfFilter>,
) -> Result<Json<SubscriptionPage>, Problem> {
    let limit = limit(which.limit)?;
    check_filter(&answers, &which.filter)?;
    let asked = Asked::Subscriptions {
        filter: which.filter,
        after: place(which.after.as_deref())?,
        max: limit + 1,
    };
    let (page, _) = answers.subscriptions(asked, limit).await?;
    Ok(Json(page))
}

/// Who would get a message to a topic, and who would not though it has subscribed.
#[utoipa::path(get, path = "/api/v1/explain", tag = "subscriptions", params(OfTopic), responses(
    (status = 200, body = Explanation), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn explain(
    State(answers): State<Answers>,
    Query(which): Query<OfTopic>,
) -> Result<Json<Explanation>, Problem> {
    let limit = limit(which.limit)?;
    check_topic(&answers, &which.topic)?;
    let is_reserved = is_reserved(&which.topic);
    let asked = Asked::Receivers {
        topic: which.topic,
        qos: qos(which.qos)?,
        publisher: which.publisher,
        after: place(which.after.as_deref())?,
        max: limit + 1,
    };
    let (page, publisher_may) = answers.subscriptions(asked, limit).await?;
    let reserved = "the topic is the broker's own: what clients publish there is dropped";
    Ok(Json(Explanation {
        publisher_may,
        nobody_because: is_reserved.then_some(reserved),
        page,
    }))
}

impl Answers {
    async fn subscriptions(
        &self,
        asked: Asked,
        limit: usize,
    ) -> Result<(SubscriptionPage, Option<bool>), Problem> {
        let gathered = self.ask_shards(asked, None).await?;
        let (mut rows, mut count, mut publisher_may) = (Vec::new(), 0, None);
        for (_, told) in gathered.told {
            if let Told::Subscribers(some, of_shard, may) = told {
                rows.extend(some);
                count += of_shard;
                publisher_may = publisher_may.or(may);
            }
        }
        let (subscriptions, next) = merged(rows, limit);
        let page = SubscriptionPage {
            subscriptions,
            count,
            next,
            silent_shards: gathered.silent,
        };
        Ok((page, publisher_may))
    }
}

/// Checks a topic name.
pub(super) fn check_topic(answers: &Answers, topic: &str) -> Result<(), Problem> {
    if topic.contains('\0') {
        return Err(Problem::wrong("topic: it has a NUL".to_owned()));
    }
    let read = TopicName::new(topic, answers.topic_limits());
    read.map(drop)
        .map_err(|error| Problem::wrong(format!("topic: {error}")))
}

/// Checks a topic filter.
pub(super) fn check_filter(answers: &Answers, filter: &str) -> Result<(), Problem> {
    if filter.contains('\0') {
        return Err(Problem::wrong("filter: it has a NUL".to_owned()));
    }
    let read = TopicFilter::new(filter, answers.topic_limits());
    read.map(drop)
        .map_err(|error| Problem::wrong(format!("filter: {error}")))
}

/// A QoS as it was said.
pub(super) fn qos(said: Option<u8>) -> Result<Qos, Problem> {
    Qos::from_bits(said.unwrap_or(0))
        .ok_or_else(|| Problem::wrong("qos is not 0, 1 or 2".to_owned()))
}
