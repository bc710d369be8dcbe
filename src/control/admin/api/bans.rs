//! Who is not served.

use super::problem::{Body, Problem, Query};
use super::{Answers, limit};
use crate::control::admin::door::Caller;
use crate::control::admin::tokens::Role;
use crate::control::overview::Ask;
use crate::control::watch::bans::{Who, network};
use crate::engine::access::bans::Seen;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// Longest ban for a time: a year. What is to last longer stands in `bans.file`.
const SECONDS_MAX: u64 = 31_536_000;
/// Longest name.
const NAME_BYTES_MAX: usize = 65_535;

/// How many.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HowMany {
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Somebody who is banned; one of the three is said, or of a client as it was seen all that is listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Banned {
    /// A client identifier.
    #[serde(default)]
    client_id: Option<String>,
    /// A user.
    #[serde(default)]
    user: Option<String>,
    /// An address, or a network as ADDRESS/BITS.
    #[serde(default)]
    address: Option<String>,
}

/// A ban for a time.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ban {
    /// A client identifier.
    client_id: Option<String>,
    /// A user.
    user: Option<String>,
    /// An address, or a network as ADDRESS/BITS.
    address: Option<String>,
    /// For so long.
    #[schema(minimum = 1, maximum = 31536000)]
    seconds: u64,
}

/// A ban in force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BanRow {
    /// A client identifier; with a user or an address, a client as it was seen there.
    client_id: Option<String>,
    /// A user.
    user: Option<String>,
    /// An address, or a network as ADDRESS/BITS.
    address: Option<String>,
    /// Seconds until it ends; null for those of `bans.file`.
    ends_in_seconds: Option<u64>,
}

/// Bans in force.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BanPage {
    /// Those of the file first, then those that end first.
    bans: Vec<BanRow>,
    /// How many there are in all.
    count: usize,
}

impl From<Who> for Banned {
    fn from(who: Who) -> Self {
        let text = |text: Box<str>| Some(String::from(text));
        match who {
            Who::ClientId(id) => Banned {
                client_id: text(id),
                ..Banned::default()
            },
            Who::User(name) => Banned {
                user: text(name),
                ..Banned::default()
            },
            Who::Network(network) => {
                let is_alone = network.prefix_len() == network.max_prefix_len();
                let address = match is_alone {
                    true => network.addr().to_string(),
                    false => network.to_string(),
                };
                Banned {
                    address: Some(address),
                    ..Banned::default()
                }
            }
            Who::Seen(seen) => Banned {
                client_id: text(seen.client_id),
                user: seen.user_name.and_then(text),
                address: seen.network.map(|network| network.to_string()),
            },
        }
    }
}

fn name_of(name: &str) -> Result<Box<str>, Problem> {
    match (1..=NAME_BYTES_MAX).contains(&name.len()) {
        true => Ok(name.into()),
        false => Err(Problem::wrong(
            "the name is empty, or longer than MQTT can carry".to_owned(),
        )),
    }
}

fn network_of(address: &str) -> Result<IpNet, Problem> {
    let network = network(address).map(|network| network.trunc());
    network.ok_or_else(|| Problem::wrong("address is no address and no network".to_owned()))
}

impl Banned {
    fn who(&self) -> Result<Who, Problem> {
        match (&self.client_id, &self.user, &self.address) {
            (Some(id), None, None) => Ok(Who::ClientId(name_of(id)?)),
            (None, Some(user), None) => Ok(Who::User(name_of(user)?)),
            (None, None, Some(address)) => Ok(Who::Network(network_of(address)?)),
            _ => Err(Problem::wrong(
                "say one of client_id, user and address".to_owned(),
            )),
        }
    }

    /// Likewise, or a client as it was seen, which the broker itself has banned.
    fn listed(&self) -> Result<Who, Problem> {
        match (&self.client_id, &self.user, &self.address) {
            (Some(id), user, address) if user.is_some() || address.is_some() => {
                Ok(Who::Seen(Seen {
                    network: address.as_deref().map(network_of).transpose()?,
                    user_name: user.as_deref().map(name_of).transpose()?,
                    client_id: name_of(id)?,
                }))
            }
            _ => self.who(),
        }
    }
}

/// Bans in force.
#[utoipa::path(get, path = "/api/v1/bans", tag = "bans", params(HowMany), responses(
    (status = 200, body = BanPage), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn list(
    State(answers): State<Answers>,
    Query(which): Query<HowMany>,
) -> Result<Json<BanPage>, Problem> {
    let max = limit(which.limit)?;
    let told = answers.ask(|to| Ask::Bans(max, to)).await;
    let (list, count) = told.map_err(Problem::unheard)?;
    let bans = list.into_iter().map(|(who, left)| {
        let who = Banned::from(who);
        BanRow {
            client_id: who.client_id,
            user: who.user,
            address: who.address,
            ends_in_seconds: left.map(|left| left.as_secs()),
        }
    });
    Ok(Json(BanPage {
        bans: bans.collect(),
        count,
    }))
}

/// Bans somebody for a time: who is there is disconnected, who comes is refused.
#[utoipa::path(post, path = "/api/v1/bans", tag = "bans", request_body = Ban, responses(
    (status = 204), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn add(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Body(ban): Body<Ban>,
) -> Result<StatusCode, Problem> {
    let banned = Banned {
        client_id: ban.client_id,
        user: ban.user,
        address: ban.address,
    };
    let who = banned.who()?;
    let target = who.to_string();
    let bans = async {
        if !(1..=SECONDS_MAX).contains(&ban.seconds) {
            let text = format!("seconds is not between 1 and {SECONDS_MAX}");
            return Err(Problem::wrong(text));
        }
        let duration = Duration::from_secs(ban.seconds);
        let told = answers.ask(|to| Ask::Ban(who, duration, to)).await;
        match told.map_err(Problem::unheard)? {
            true => Ok(StatusCode::NO_CONTENT),
            false => Err(of_file()),
        }
    };
    answers
        .change((&caller, Role::Operate), ("ban", &target), bans)
        .await
}

fn of_file() -> Problem {
    Problem::new(StatusCode::CONFLICT, "it stands in bans.file; change that")
}

/// Ends a ban for a time early.
#[utoipa::path(delete, path = "/api/v1/bans", tag = "bans", params(Banned), responses(
    (status = 204), (status = "4XX", body = Problem),
    (status = "5XX", body = Problem)))]
pub(super) async fn remove(
    State(answers): State<Answers>,
    Extension(caller): Extension<Caller>,
    Query(banned): Query<Banned>,
) -> Result<StatusCode, Problem> {
    let who = banned.listed()?;
    let target = who.to_string();
    let ends = async {
        let told = answers.ask(|to| Ask::Unban(who, to)).await;
        match told.map_err(Problem::unheard)? {
            Some(true) => Ok(StatusCode::NO_CONTENT),
            Some(false) => Err(Problem::missing("there is no such ban")),
            None => Err(of_file()),
        }
    };
    answers
        .change((&caller, Role::Operate), ("unban", &target), ends)
        .await
}
