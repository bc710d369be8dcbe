//! Who may come in with a request, and as whom.
//!
//! ```text
//!   request ─► rate of its address ─► Host ─► Origin ─► token, or this machine ─► body within its bound
//! ```
//! Invariant: a page of a stranger in a browser gets nothing: the name by which it asks is not known, what it
//! asks from elsewhere has another Origin, and no cookie speaks for anybody.

use super::tokens::{Role, Tokens};
use crate::control::config::AdminConfig;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Addresses whose rate is known; beyond them all begin anew.
const ADDRESSES_MAX: usize = 1_024;

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// This address.
    Address(IpAddr),
    /// A process of this user, through a socket in the file system.
    User(u32),
}

impl From {
    /// Its address, if it has one.
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            From::Address(ip) => Some(ip),
            From::User(_) => None,
        }
    }

    /// Whether that one could stop the broker and read its memory anyway.
    fn owns_the_broker(self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        matches!(self, From::User(user) if user == 0 || user == own)
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From::Address(ip) => ip.fmt(f),
            From::User(_) => f.write_str("this machine"),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Of its token, or the user of its process if that owns the broker; else `None`.
    pub name: Option<Arc<str>>,
    pub role: Role,
    pub from: From,
}

/// Why a request is not looked at any further.
pub(super) type Refusal = (StatusCode, &'static str);

/// What is asked of each request.
pub(super) struct Door {
    hosts: Vec<String>,
    tokens: Option<Arc<Tokens>>,
    /// Only this machine reaches it.
    is_local: bool,
    rate_max: u64,
    paces: Mutex<HashMap<IpAddr, Pace>>,
}

/// How many requests an address has left, and when that was so.
struct Pace {
    left: f64,
    at: Instant,
}

impl Door {
    pub fn new(config: &AdminConfig, tokens: Option<Arc<Tokens>>) -> Self {
        Door {
            hosts: config.hosts.clone(),
            tokens,
            is_local: config.is_local(),
            rate_max: config.request_rate_max,
            paces: Mutex::default(),
        }
    }

    /// Who asks.
    ///
    /// # Errors
    /// Why that one is not listened to.
    pub fn let_in(
        &self,
        from: From,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        let is_local = self.is_near(from);
        self.check_name(headers, is_local)?;
        let (name, role) = self.caller(headers, from, is_local)?;
        check_body(method, headers)?;
        Ok(Caller { name, role, from })
    }

    /// Whether somebody may have what tells nothing of the broker, whoever it is.
    ///
    /// # Errors
    /// Why not.
    pub fn let_look(
        &self,
        from: From,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let is_local = self.is_near(from);
        self.check_name(headers, is_local)?;
        check_body(method, headers)
    }

    /// Whether only this machine reaches it where that one came in: one that came before that was so did not.
    fn is_near(&self, from: From) -> bool {
        let ip = from.ip();
        ip.is_none_or(|ip| self.is_local && ip.to_canonical().is_loopback())
    }

    /// Whether that address has asked often enough for now.
    pub fn is_too_fast(&self, from: From, now: Instant) -> bool {
        let (max, From::Address(ip)) = (self.rate_max as f64, from) else {
            return false;
        };
        if self.rate_max == 0 {
            return false;
        }
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= ADDRESSES_MAX && !paces.contains_key(&ip) {
            paces.clear();
        }
        let pace = paces.entry(ip).or_insert(Pace { left: max, at: now });
        let more = now.saturating_duration_since(pace.at).as_secs_f64() * max;
        (pace.left, pace.at) = ((pace.left + more).min(max), now);
        let is_too_fast = pace.left < 1.0;
        if !is_too_fast {
            pace.left -= 1.0;
        }
        is_too_fast
    }

    fn check_name(&self, headers: &HeaderMap, is_local: bool) -> Result<(), Refusal> {
        let host = the_one(headers.get_all(HOST).iter()).flatten();
        let Some(host) = host.filter(|host| self.is_called(host, is_local)) else {
            let text = match is_local {
                true => "its Host names neither this machine's loopback nor one of admin.hosts",
                false => "its Host is neither an address nor one of admin.hosts",
            };
            return Err((StatusCode::FORBIDDEN, text));
        };
        let is_own = |origin: &str| {
            let asked_by = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            asked_by.is_some_and(|asked_by| asked_by.eq_ignore_ascii_case(host))
        };
        match the_one(headers.get_all(ORIGIN).iter()) {
            None => Ok(()),
            Some(origin) if origin.is_some_and(is_own) => Ok(()),
            Some(_) => Err((
                StatusCode::FORBIDDEN,
                "its Origin is a page of another server",
            )),
        }
    }

    /// Whether a request calls a name that is this machine's.
    fn is_called(&self, host: &str, is_local: bool) -> bool {
        let name = without_port(host);
        let ip = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        // Nobody can have an address point elsewhere.
        let is_address = ip.is_ok_and(|ip| !is_local || ip.to_canonical().is_loopback());
        let mut known = self.hosts.iter();
        is_address
            || name.eq_ignore_ascii_case("localhost")
            || known.any(|known| known.eq_ignore_ascii_case(name))
    }

    fn caller(
        &self,
        headers: &HeaderMap,
        from: From,
        is_local: bool,
    ) -> Result<(Option<Arc<str>>, Role), Refusal> {
        let unauthorized = |text| Err((StatusCode::UNAUTHORIZED, text));
        let Some(said) = the_one(headers.get_all(AUTHORIZATION).iter()) else {
            return match (from, is_local) {
                (From::User(user), _) if from.owns_the_broker() => {
                    Ok((Some(format!("user {user}").into()), Role::Admin))
                }
                (_, true) => Ok((None, Role::View)),
                (_, false) => unauthorized("say who you are: Authorization: Bearer TOKEN"),
            };
        };
        let token = said.and_then(|said| {
            let (scheme, token) = said.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        let found = token.and_then(|token| self.tokens.as_ref()?.find(token));
        match found {
            Some((name, role)) => Ok((Some(name), role)),
            None => unauthorized("its token is none of admin.token_file"),
        }
    }
}

/// The one value of a header as text, `Some(None)` if it is not one or no text.
fn the_one<'a>(mut values: impl Iterator<Item = &'a HeaderValue>) -> Option<Option<&'a str>> {
    let first = values.next()?;
    let alone = values.next().is_none().then_some(first);
    Some(alone.and_then(|value| value.to_str().ok()))
}

fn check_body(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if matches!(*method, Method::GET | Method::HEAD) && has_body(headers) {
        let text = "a request to read has no body here";
        return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(())
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::tokens::{make, parse};
    use std::time::Duration;

    const NEAR: From = From::Address(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn door(is_local: bool, tokens: Option<Arc<Tokens>>) -> Door {
        Door {
            hosts: vec!["Broker.example".into()],
            tokens,
            is_local,
            rate_max: 2,
            paces: Mutex::default(),
        }
    }

    fn headers(list: &[(axum::http::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn status(door: &Door, list: &[(axum::http::HeaderName, &str)]) -> u16 {
        let caller = door.let_in(NEAR, &Method::GET, &headers(list));
        caller.map_or_else(|(status, _)| status.as_u16(), |_| 200)
    }

    #[test]
    fn only_names_of_this_machine_are_answered_to() {
        let door = door(true, None);
        for known in [
            "localhost",
            "LOCALHOST:14883",
            "127.0.0.1:14883",
            "127.1.2.3",
            "[::1]:80",
            "[::1]",
            "broker.example:1",
        ] {
            assert_eq!(status(&door, &[(HOST, known)]), 200, "{known}");
        }
        for stranger in [
            "",
            "example.com",
            "localhost.example:80",
            "10.0.0.1:14883",
            "localhost:x",
            "::1:80x",
        ] {
            assert_eq!(status(&door, &[(HOST, stranger)]), 403, "{stranger}");
        }
        assert_eq!(status(&door, &[]), 403);
        let two = [(HOST, "localhost"), (HOST, "example.com")];
        assert_eq!(status(&door, &two), 403);
    }

    #[test]
    fn pages_of_other_servers_get_nothing() {
        let door = door(true, None);
        let asks = |origin| status(&door, &[(HOST, "localhost:1"), (ORIGIN, origin)]);
        assert_eq!(
            (asks("http://localhost:1"), asks("https://LOCALHOST:1")),
            (200, 200)
        );
        for stranger in [
            "null",
            "http://localhost:2",
            "http://example.com",
            "localhost:1",
        ] {
            assert_eq!(asks(stranger), 403, "{stranger}");
        }
    }

    #[test]
    fn who_has_no_token_may_look_on_this_machine_only() {
        let (token, line) = make("ann", Role::Admin).unwrap();
        let tokens = Arc::new(Tokens::new(parse(&line).unwrap()));
        let (near, far) = (
            door(true, Some(Arc::clone(&tokens))),
            door(false, Some(tokens)),
        );
        let bare = headers(&[(HOST, "[::1]")]);
        let caller = near.let_in(NEAR, &Method::GET, &bare).unwrap();
        assert_eq!((caller.name, caller.role), (None, Role::View));
        assert_eq!(status(&far, &[(HOST, "10.0.0.1")]), 401);
        assert_eq!(status(&far, &[(HOST, "example.com")]), 403);
        let bearer = format!("bearer {token}");
        for door in [&near, &far] {
            let shown = headers(&[(HOST, "[::1]"), (AUTHORIZATION, &bearer)]);
            let caller = door.let_in(NEAR, &Method::GET, &shown).unwrap();
            assert_eq!(
                (caller.name.as_deref(), caller.role),
                (Some("ann"), Role::Admin)
            );
            for wrong in [
                "Bearer x",
                "Bearer",
                "Basic YTpi",
                &token,
                &format!("{bearer}x"),
            ] {
                assert_eq!(
                    status(door, &[(HOST, "[::1]"), (AUTHORIZATION, wrong)]),
                    401
                );
            }
        }
    }

    #[test]
    fn who_owns_the_broker_may_all_by_its_socket() {
        // Also where others are far away.
        let door = door(false, None);
        let own = rustix::process::geteuid().as_raw();
        let bare = headers(&[(HOST, "localhost")]);
        for (user, role) in [(own, Role::Admin), (own + 1, Role::View), (0, Role::Admin)] {
            let caller = door.let_in(From::User(user), &Method::GET, &bare).unwrap();
            assert_eq!(
                (caller.role, caller.name.is_some()),
                (role, role == Role::Admin)
            );
        }
        let wrong = headers(&[(HOST, "localhost"), (AUTHORIZATION, "Bearer x")]);
        assert!(door.let_in(From::User(0), &Method::GET, &wrong).is_err());
    }

    #[test]
    fn an_address_asks_so_often_and_no_more() {
        let door = door(true, None);
        let (one, other) = (
            From::Address([10, 0, 0, 1].into()),
            From::Address([10, 0, 0, 2].into()),
        );
        let now = Instant::now();
        let asks = |from, now| !door.is_too_fast(from, now);
        assert!(asks(one, now) && asks(one, now) && !asks(one, now));
        assert!(asks(other, now) && asks(From::User(1), now));
        let later = now + Duration::from_millis(500);
        assert!(asks(one, later) && !asks(one, later));
    }
}
