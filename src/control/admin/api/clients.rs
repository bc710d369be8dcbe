//! Clients: seen page by page and one by one, disconnected, and ended.

use super::problem::{Body, Path, Problem, Query};
use super::{Answers, limit, merged, place};
use crate::control::admin::door::Caller;
use crate::control::admin::tokens::Role;
use crate::control::inquiries::Gathered;
use crate::control::watch::bans::network;
use crate::engine::codec::Reason;
use crate::shard::inquiries::{
    Asked, ClientRates, ClientRow, ClientWhole, Mishap, Sort, Told, Wanted,
};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use utoipa::{IntoParams, ToSchema};

/// Which clients, in which order.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Their identifiers begin so.
    id_prefix: Option<String>,
    /// Their user name is this.
    user: Option<String>,
    /// They come from this address, or from this network (ADDRESS/BITS).
    address: Option<String>,
    /// They came in here, as the listener is named in /readyz.
    listener: Option<String>,
    /// Whether they are there.
    state: Option<ClientState>,
    /// In which order: by identifier, or most first.
    sort: Option<By>,
    /// What stood in `next` of the page before.
    after: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Whether a client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientState {
    Connected,
    Away,
}

/// An order.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    Id,
    Queue,
    Messages,
    Wait,
    Bytes,
    Drops,
    Age,
}

/// A page of clients.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClientPage {
    /// In order.
    clients: Vec<ClientRow>,
    /// How many there are in all.
    count: u64,
    /// Behind which the next page begins; null at the end.
    next: Option<String>,
    /// Shards that did not answer: their clients are missing.
    silent_shards: Vec<u16>,
}

/// Clients, page by page.
#[utoipa::path(get, path = "/api/v1/clients", tag = "clients", params(Which), responses(
    (status = 200, body = ClientPage), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn list(
    State(answers): State<Answers>,
    Query(which): Query<Which>,
) -> Result<Json<ClientPage>, Problem> {
    let limit = limit(which.limit)?;
    let address = which.address.as_deref();
    let wanted = Wanted {
        network: address.map(read_network).transpose()?,
        listener: which
            .listener
            .map(|name| answers.listener_number(&name))
            .transpose()?,
        id_prefix: which.id_prefix,
        user: which.user,
        is_connected: which.state.map(|state| state == ClientState::Connected),
    };
    let sort = match which.sort {
        None | Some(By::Id) => Sort::Id,
        Some(By::Queue) => Sort::Queue,
        Some(By::Messages) => Sort::Messages,
        Some(By::Wait) => Sort::Wait,
        Some(By::Bytes) => Sort::Bytes,
        Some(By::Drops) => Sort::Drops,
        Some(By::Age) => Sort::Age,
    };
    let asked = Asked::Clients {
        wanted,
        sort,
        after: place(which.after.as_deref())?,
        // One more tells that there is one.
        max: limit + 1,
    };
    let gathered = answers.ask_shards(asked, None).await?;
    let (mut rows, mut count) = (Vec::new(), 0);
    for (_, told) in gathered.told {
        if let Told::Clients(some, of_shard) = told {
            rows.extend(some);
            count += of_shard;
        }
    }
    let (mut clients, next) = merged(rows, limit);
    for client in &mut clients {
        answers.name_listener(client);
    }
    Ok(Json(ClientPage {
        clients,
        count,
        next,
        silent_shards: gathered.silent,
    }))
}

pub(super) fn read_network(text: &str) -> Result<ipnet::IpNet, Problem> {
    network(text).ok_or_else(|| Problem::wrong("address is no address and no network".to_owned()))
}

impl Answers {
    /// The number of a listener.
    pub(super) fn listener_number(&self, name: &str) -> Result<u16, Problem> {
        let in_force = self.in_force();
        let mut names = (0..).zip(&in_force.listeners);
        let found = names.find(|(_, known)| known.as_str() == name);
        let wrong =
            || Problem::wrong("there is no such listener; /api/v1/listeners names them".to_owned());
        found.map(|(number, _)| number).ok_or_else(wrong)
    }

    fn name_listener(&self, client: &mut ClientRow) {
        let number = client.listener_number.map(usize::from);
        let in_force = self.in_force();
        let name = number.and_then(|number| in_force.listeners.get(number));
        client.listener = name.cloned();
    }
}

/// How a client is looked at.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Look {
    /// For so many milliseconds, to tell how fast messages and bytes come and go.
    #[param(minimum = 100, maximum = 5000)]
    over_ms: Option<u64>,
}

/// For how long a client is looked at.
const OVER_MS: RangeInclusive<u64> = 100..=5_000;

/// A client with all that there is to see of it.
#[utoipa::path(get, path = "/api/v1/clients/{client_id}", tag = "clients",
    params(("client_id" = String, Path, description = "Client identifier"), Look), responses(
    (status = 200, body = ClientWhole), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn one(
    State(answers): State<Answers>,
    Path(client_id): Path<String>,
    Query(look): Query<Look>,
) -> Result<Json<ClientWhole>, Problem> {
    let Some(over_ms) = look.over_ms else {
        return Ok(Json(answers.client(client_id).await?));
    };
    if !OVER_MS.contains(&over_ms) {
        let (min, max) = (OVER_MS.start(), OVER_MS.end());
        return Err(Problem::wrong(format!(
            "over_ms is not between {min} and {max}"
        )));
    }
    let before = answers.client(client_id.clone()).await?;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(over_ms)).await;
    let mut client = answers.client(client_id).await?;
    let over_ms = began.elapsed().as_millis() as u64;
    client.rates = ClientRates::between(&before.row, &client.row, over_ms);
    Ok(Json(client))
}

/// What went wrong for a client, whether it has a session or not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClientErrors {
    /// Newest first.
    errors: Vec<Mishap>,
    /// Shards that did not answer: what they know is missing.
    silent_shards: Vec<u16>,
}

/// Why a client was refused, disconnected or denied something, and what it lost: the last of it, also of one
/// that was never let in.
#[utoipa::path(get, path = "/api/v1/clients/{client_id}/errors", tag = "clients",
    params(("client_id" = String, Path, description = "Client identifier")), responses(
    (status = 200, body = ClientErrors), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn errors(
    State(answers): State<Answers>,
    Path(client_id): Path<String>,
) -> Result<Json<ClientErrors>, Problem> {
    let (_, errors, silent_shards) = answers.ask_of_client(client_id).await?;
    Ok(Json(ClientErrors {
        errors,
        silent_shards,
    }))
}

/// A client, what went wrong for it, and which shards did not answer.
type OfClient = (Option<Box<ClientWhole>>, Vec<Mishap>, Vec<u16>);

impl Answers {
    /// What there is of a client.
    async fn client(&self, client_id: String) -> Result<ClientWhole, Problem> {
        let (found, errors, silent) = self.ask_of_client(client_id).await?;
        match found {
            Some(mut client) => {
                self.name_listener(&mut client.row);
                client.last_errors = errors;
                Ok(*client)
            }
            None if silent.is_empty() => Err(no_session()),
            None => Err(Problem::silent(&silent)),
        }
    }

    async fn ask_of_client(&self, client_id: String) -> Result<OfClient, Problem> {
        let asked = Asked::Client(client_id);
        let gathered = self.ask_shards(asked, None).await?;
        let (mut found, mut errors) = (None, Vec::new());
        for (_, told) in gathered.told {
            if let Told::Client(here, of_shard) = told {
                found = found.or(here);
                errors.extend(of_shard);
            }
        }
        errors.sort_by_key(|error: &Mishap| Reverse(error.at_ms));
        Ok((found, errors, gathered.silent))
    }
}

fn no_session() -> Problem {
    Problem::missing("no session has this client identifier")
}

/// Why a client is disconnected.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Farewell {
    /// Reason code of the DISCONNECT; administrative action, if it is not said.
    reason: Option<FarewellReason>,
    /// Told to a client of 5.0, and to the log.
    #[schema(max_length = 200)]
    text: Option<String>,
}

/// A reason code.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum FarewellReason {
    #[default]
    AdministrativeAction,
    NotAuthorized,
    ServerBusy,
    QuotaExceeded,
    UseAnotherServer,
    ServerMoved,
}

impl From<FarewellReason> for Reason {
    fn from(reason: FarewellReason) -> Self {
        match reason {
            FarewellReason::AdministrativeAction => Reason::AdministrativeAction,
            FarewellReason::NotAuthorized => Reason::NotAuthorized,
            FarewellReason::ServerBusy => Reason::ServerBusy,
            FarewellReason::QuotaExceeded => Reason::QuotaExceeded,
            FarewellReason::UseAnotherServer => Reason::UseAnotherServer,
            FarewellReason::ServerMoved => Reason::ServerMoved,
        }
    }
}

/// Letters of a farewell.
const TEXT_MAX: usize = 200;

/// Disconnects a client. Its session stays, if it outlives connections, and its will is due.
#[utoipa::path(post, path = "/api/v1/clients/{client_id}/disconnect", tag = "clients",
    params(("client_id" = String, Path, description = "Client identifier")),
    request_body = Farewell, responses(
    (status = 204), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn disconnect(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Path(client_id): Path<String>,
    Body(farewell): Body<Farewell>,
) -> Result<StatusCode, Problem> {
    let target = client_id.clone();
    let text = farewell
        .text
        .unwrap_or_else(|| "disconnected by an operator".to_owned());
    let disconnects = async {
        if text.chars().count() > TEXT_MAX || text.contains('\0') {
            let error = format!("text is longer than {TEXT_MAX} letters, or has a NUL");
            return Err(Problem::wrong(error));
        }
        let reason = farewell.reason.unwrap_or_default().into();
        let asked = Asked::Disconnect {
            client_id,
            reason,
            text,
        };
        let missing = "no client is connected with this identifier";
        done(answers.ask_shards(asked, None).await?, missing)
    };
    let what = ("disconnect", target.as_str());
    answers
        .change((&caller, Role::Operate), what, disconnects)
        .await
}

/// Ends a session, with its connection and all that waits in it; its will is due.
#[utoipa::path(delete, path = "/api/v1/clients/{client_id}", tag = "clients",
    params(("client_id" = String, Path, description = "Client identifier")), responses(
    (status = 204), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn end(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Path(client_id): Path<String>,
) -> Result<StatusCode, Problem> {
    let target = client_id.clone();
    let text = "its session was ended by an operator".to_owned();
    let ends = async {
        let asked = Asked::EndSession { client_id, text };
        let gathered = answers.ask_shards(asked, None).await?;
        done(gathered, "no session has this client identifier")
    };
    let what = ("end session", target.as_str());
    answers.change((&caller, Role::Operate), what, ends).await
}

/// Whether a shard has done it.
fn done(gathered: Gathered, missing: &str) -> Result<StatusCode, Problem> {
    let mut told = gathered.told.iter();
    if told.any(|(_, told)| matches!(told, Told::Done(true))) {
        return Ok(StatusCode::NO_CONTENT);
    }
    match gathered.silent.is_empty() {
        true => Err(Problem::missing(missing)),
        false => Err(Problem::silent(&gathered.silent)),
    }
}
