//! Clients judged by an HTTP server of the operator's, a hook: one POST per connection, an answer in JSON.
//!
//! What a client may do comes with the same answer (`acl`, `superuser`); nothing is asked per message. A hook
//! that cannot be asked, or answers anything but what was agreed, lets nobody in unless `fail_open` says so.
//!
//! Not here: the exchange itself (`super::fetch`), the memory of answers (`answers`).

mod answers;

use super::fetch::{Client, FetchError, SettingError};
use super::{Credentials, Method, Verdict, clock, grants};
use crate::engine::access::acl::Acl;
use crate::engine::access::{ClientIdRule, Identity, Refusal, Secret};
use crate::engine::codec::Version;
use answers::Answers;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

/// Largest answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Kinds of failures that are told of until the hook answers again.
const FAILURES_TOLD_MAX: usize = 4;

/// Answers that refuse a client without more words, as servers for other brokers give them. Told as `deny`
/// is, and so as a ban is by a name that only the hook gives: else who is told otherwise has guessed rightly.
const REFUSED_STATUS: u16 = 401;
const FORBIDDEN_STATUS: u16 = 403;

/// Headers that the broker sets itself.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
];

/// Which hook is asked, and how.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// http:// or https://.
    pub authenticate_url: String,
    /// How long a whole exchange may take.
    pub timeout_ms: u64,
    /// How long an answer is used again for the same credentials; 0 for never.
    pub cache_ttl_ms: u64,
    /// Most answers that are kept.
    pub cache_max: usize,
    /// Ask the next method if the hook does not answer, instead of refusing.
    pub fail_open: bool,
    /// Authorities to trust for https://, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Further headers, such as an API key.
    pub headers: Vec<(String, Secret)>,
}

impl HttpConfig {
    /// With defaults for all that need not be said.
    #[must_use]
    pub const fn new(authenticate_url: String) -> Self {
        HttpConfig {
            authenticate_url,
            timeout_ms: 2_000,
            cache_ttl_ms: 0,
            cache_max: 10_000,
            fail_open: false,
            ca_file: None,
            headers: Vec::new(),
        }
    }
}

/// Authenticates by asking a hook.
pub struct HttpMethod {
    client: Client,
    headers: HeaderMap,
    fail_open: bool,
    cache_ttl: Duration,
    answers: Mutex<Answers>,
    /// Why it does not answer, as far as that was said since it answered.
    failures_told: Mutex<Vec<String>>,
    now_unix_s: fn() -> u64,
}

impl fmt::Debug for HttpMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("HttpMethod");
        fields.field("client", &self.client).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Question<'a> {
    client_id: &'a str,
    user_name: Option<&'a str>,
    password: Option<&'a str>,
    peer: Option<SocketAddr>,
    protocol: &'static str,
    certificate_common_name: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    result: Outcome,
    user_name: Option<String>,
    client_id: Option<String>,
    superuser: Option<bool>,
    acl: Option<Value>,
    expires_unix_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Allow,
    Deny,
    Ignore,
}

/// Why there is no answer.
enum Silence {
    Fetch(FetchError),
    /// It is not what was agreed, and in what. What it is stays out of the log.
    Malformed(&'static str),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silence::Fetch(FetchError::Late { timeout_ms }) => write!(
                f,
                "nothing came within authentication.http.timeout_ms = {timeout_ms}"
            ),
            Silence::Fetch(error) => error.fmt(f),
            Silence::Malformed(what) => {
                write!(f, "its answer is not of the form agreed: {what}")
            }
        }
    }
}

impl HttpMethod {
    /// Prepares the method; the hook is not asked yet.
    ///
    /// # Errors
    /// A value of the configuration cannot work.
    pub fn new(config: &HttpConfig) -> Result<Self, SettingError> {
        if config.timeout_ms == 0 {
            let text = "it has to be at least 1 millisecond";
            return Err(SettingError::new("timeout_ms", text));
        }
        let client = Client::new(
            "authenticate_url",
            &config.authenticate_url,
            config.timeout_ms,
            config.ca_file.as_deref(),
        )?;
        Ok(HttpMethod {
            client,
            headers: headers(&config.headers)?,
            fail_open: config.fail_open,
            cache_ttl: Duration::from_millis(config.cache_ttl_ms),
            answers: Mutex::new(Answers::new(config.cache_max)),
            failures_told: Mutex::default(),
            now_unix_s: clock::now_unix_s,
        })
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, credentials: &Credentials, password: Option<&str>) -> Result<Verdict, Silence> {
        let certificate = credentials.certificate.as_deref();
        let question = Question {
            client_id: &credentials.client_id,
            user_name: credentials.user_name.as_deref(),
            password,
            peer: credentials.peer.address(),
            protocol: match credentials.version {
                Version::V3_1 => "3.1",
                Version::V3_1_1 => "3.1.1",
                Version::V5 => "5.0",
            },
            certificate_common_name: certificate.and_then(|names| names.common_name.as_deref()),
        };
        let json = serde_json::to_vec(&question)
            .map_err(|_| Silence::Malformed("it cannot be asked in JSON"))?;
        let asked = self
            .client
            .post_json(&json, &self.headers, ANSWER_BYTES_MAX);
        let answer = match asked {
            Err(FetchError::Status(REFUSED_STATUS | FORBIDDEN_STATUS)) => {
                return Ok(no(HOOK_SAYS_NO));
            }
            asked => asked.map_err(Silence::Fetch)?,
        };
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| Silence::Malformed(what_is_wrong(&answer)))?;
        match answer.result {
            Outcome::Deny => Ok(no(HOOK_SAYS_NO)),
            Outcome::Ignore => Ok(Verdict::NotMine),
            Outcome::Allow => self.identity(answer, credentials),
        }
    }

    fn identity(&self, answer: Answer, credentials: &Credentials) -> Result<Verdict, Silence> {
        let user_name = match answer.user_name {
            Some(name) => Some(not_empty(name, "user_name is empty")?),
            None => credentials.user_name.clone(),
        };
        let client_id = match answer.client_id {
            Some(id) => {
                let id = not_empty(id, "client_id is empty")?;
                Some(ClientIdRule::Exactly(id))
            }
            None => None,
        };
        let rules = match &answer.acl {
            Some(object) => {
                let wrong = Silence::Malformed("acl is none of lists of topic filters");
                Some(grants::compile(object).ok_or(wrong)?)
            }
            None => None,
        };
        let acl = match answer.superuser {
            Some(true) => Some(Arc::new(Acl::everything())),
            _ => rules,
        };
        let verdict = Verdict::Allow(Box::new(Identity {
            user_name,
            method: self.name(),
            client_id,
            acl,
            expires_unix_s: answer.expires_unix_s,
        }));
        Ok(if self.has_expired(&verdict) {
            no(
                "the time until which the hook lets it in is over (expires_unix_s; authentication.http)",
            )
        } else {
            verdict
        })
    }

    fn has_expired(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Allow(identity) => identity
                .expires_unix_s
                .is_some_and(|expires_s| expires_s <= (self.now_unix_s)()),
            _ => false,
        }
    }

    /// Logs each kind of failure once, and the end of failures.
    fn note(&self, failure: Option<&Silence>) {
        let place = || self.client.place();
        let told = self.failures_told.lock();
        let mut told = told.unwrap_or_else(PoisonError::into_inner);
        match failure.map(Silence::to_string) {
            Some(text) if told.len() < FAILURES_TOLD_MAX && !told.contains(&text) => {
                warn!(hook = place(), "no answer: {text}");
                told.push(text);
            }
            Some(_) => {}
            None if told.is_empty() => {}
            None => {
                told.clear();
                info!(hook = place(), "answers again");
            }
        }
    }
}

impl Method for HttpMethod {
    fn name(&self) -> &'static str {
        "http"
    }

    fn takes(&self) -> Option<&'static str> {
        Some("a password")
    }

    fn authenticate(&self, credentials: &Credentials) -> Verdict {
        let password = credentials.password.as_ref().map(Secret::reveal);
        // JSON cannot carry other bytes, and replacing them would make different passwords equal.
        let Ok(password) = password.map(str::from_utf8).transpose() else {
            return no(
                "its password is not UTF-8, and so cannot be told to the hook (authentication.http)",
            );
        };
        let is_cached = !self.cache_ttl.is_zero();
        let digest = answers::digest(credentials);
        if is_cached
            && let Some(verdict) = self.answers().get(&digest, Instant::now())
            && !self.has_expired(&verdict)
        {
            return verdict;
        }
        let asked = self.ask(credentials, password);
        self.note(asked.as_ref().err());
        match asked {
            Ok(verdict) => {
                if is_cached {
                    let now = Instant::now();
                    let copy = verdict.clone();
                    self.answers().put(digest, copy, now, self.cache_ttl);
                }
                verdict
            }
            Err(_) if self.fail_open => Verdict::NotMine,
            Err(_) => Verdict::Refuse(Refusal::Unavailable),
        }
    }
}

/// Why the hook's no refuses a client.
const HOOK_SAYS_NO: &str = "the hook says no to it (authentication.http)";

/// What of an answer is not as it was agreed.
fn what_is_wrong(answer: &[u8]) -> &'static str {
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else {
        return "it is no JSON";
    };
    let Some(answer) = answer.as_object() else {
        return "it is no JSON object";
    };
    let is_there = |key: &str| answer.get(key).filter(|value| !value.is_null());
    let is_wrong = |key, fits: fn(&Value) -> bool| is_there(key).is_some_and(|value| !fits(value));
    let is_outcome = |value: &Value| {
        let value = value.as_str();
        value.is_some_and(|value| ["allow", "deny", "ignore"].contains(&value))
    };
    match () {
        () if is_there("result").is_none() => "it has no result",
        () if is_wrong("result", is_outcome) => "result is none of allow, deny, ignore",
        () if is_wrong("user_name", Value::is_string) => "user_name is no text",
        () if is_wrong("client_id", Value::is_string) => "client_id is no text",
        () if is_wrong("superuser", Value::is_boolean) => "superuser is neither true nor false",
        () if is_wrong("expires_unix_s", Value::is_u64) => {
            "expires_unix_s is no whole number of seconds"
        }
        () => "a field stands there more than once",
    }
}

/// Told to the client as a wrong password is; why, for the logs.
fn no(why: &str) -> Verdict {
    Verdict::Refuse(Refusal::BadProof(why.into()))
}

fn not_empty(name: String, wrong: &'static str) -> Result<Box<str>, Silence> {
    if name.is_empty() {
        Err(Silence::Malformed(wrong))
    } else {
        Ok(name.into())
    }
}

fn headers(pairs: &[(String, Secret)]) -> Result<HeaderMap, SettingError> {
    let wrong = |text: String| SettingError::new("headers", text);
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        // Not shown: somebody may have written the value in the name's place.
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            wrong(
                "one of them has no name that a header may have; write NAME = \"VALUE\"".to_owned(),
            )
        })?;
        if OWN_HEADERS.contains(&parsed.as_str()) {
            return Err(wrong(format!("{parsed} is set by the broker; remove it")));
        }
        let mut value = HeaderValue::from_bytes(value.reveal()).map_err(|_| {
            wrong("the value of one of them has bytes no header may have".to_owned())
        })?;
        value.set_sensitive(true);
        headers
            .try_append(parsed, value)
            .map_err(|_| wrong("there are too many".to_owned()))?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::super::CertificateNames;
    use super::super::stand_in::{Reply, Scratch, StandIn};
    use super::*;
    use crate::shard::peer::Peer;
    use serde_json::json;
    use std::net::TcpListener;
    use std::thread;

    fn credentials() -> Credentials {
        Credentials {
            client_id: "pump-7".into(),
            user_name: Some("ann".into()),
            password: Some(Secret::new(b"hush-hush")),
            version: Version::V3_1_1,
            peer: Peer::internet("10.1.2.3:4567".parse().unwrap()),
            certificate: Some(Arc::new(CertificateNames {
                common_name: Some("pump".into()),
                ..CertificateNames::default()
            })),
        }
    }

    fn config(server: &StandIn) -> HttpConfig {
        HttpConfig::new(server.url("/auth?key=hush-key"))
    }

    fn method(server: &StandIn) -> HttpMethod {
        HttpMethod::new(&config(server)).unwrap()
    }

    fn verdict_on(body: &str) -> Verdict {
        let body = body.to_owned();
        let server = StandIn::new(move |_| Reply::ok(body.clone()));
        method(&server).authenticate(&credentials())
    }

    fn identity_on(body: &Value) -> Identity {
        match verdict_on(&body.to_string()) {
            Verdict::Allow(identity) => *identity,
            other => panic!("{other:?}"),
        }
    }

    fn is_unavailable(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Refuse(Refusal::Unavailable))
    }

    fn is_bad(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Refuse(Refusal::BadProof(why)) if why.contains("authentication.http)"))
    }

    #[test]
    fn the_hook_is_told_who_asks() {
        let server = StandIn::new(|_| Reply::ok(r#"{"result":"allow"}"#));
        let mut config = config(&server);
        config.headers = vec![("X-Api-Key".to_owned(), Secret::new(b"k1"))];
        HttpMethod::new(&config)
            .unwrap()
            .authenticate(&credentials());
        let request = server.last();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        assert!(head.starts_with("post /auth?key=hush-key http/1.1"));
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(head.contains("x-api-key: k1"), "{head}");
        let expected = json!({
            "client_id": "pump-7",
            "user_name": "ann",
            "password": "hush-hush",
            "peer": "10.1.2.3:4567",
            "protocol": "3.1.1",
            "certificate_common_name": "pump",
        });
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), expected);
    }

    #[test]
    fn what_a_client_does_not_show_is_null() {
        let server = StandIn::new(|_| Reply::ok(r#"{"result":"allow"}"#));
        let bare = Credentials {
            client_id: "".into(),
            user_name: None,
            password: None,
            version: Version::V5,
            peer: Peer::Unix,
            certificate: None,
        };
        let verdict = method(&server).authenticate(&bare);
        assert!(matches!(verdict, Verdict::Allow(identity) if identity.user_name.is_none()));
        let request = server.last();
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let expected = json!({
            "client_id": "",
            "user_name": null,
            "password": null,
            "peer": null,
            "protocol": "5.0",
            "certificate_common_name": null,
        });
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), expected);
    }

    #[test]
    fn allow_gives_the_identity_of_the_connect_packet() {
        let identity = identity_on(&json!({"result": "allow"}));
        assert_eq!(identity.user_name.as_deref(), Some("ann"));
        assert_eq!(identity.method, "http");
        assert_eq!(identity.client_id, None);
        assert!(identity.acl.is_none());
        assert_eq!(identity.expires_unix_s, None);
    }

    #[test]
    fn the_hook_may_say_more_about_the_client() {
        let identity = identity_on(&json!({
            "result": "allow",
            "user_name": "bob",
            "client_id": "pump-9",
            "acl": {"publish": ["a/#"]},
            "expires_unix_s": 99_999_999_999_u64,
            "something": "new",
        }));
        assert_eq!(identity.user_name.as_deref(), Some("bob"));
        let rule = ClientIdRule::Exactly("pump-9".into());
        assert_eq!(identity.client_id, Some(rule));
        assert!(identity.acl.is_some());
        assert_eq!(identity.expires_unix_s, Some(99_999_999_999));
    }

    #[test]
    fn a_superuser_has_rules_that_allow_everything() {
        let superuser = identity_on(&json!({"result": "allow", "superuser": true}));
        assert!(superuser.acl.is_some());
        let other = identity_on(&json!({"result": "allow", "superuser": false}));
        assert!(other.acl.is_none());
    }

    #[test]
    fn deny_refuses_and_ignore_passes_on() {
        assert!(is_bad(&verdict_on(r#"{"result":"deny"}"#)));
        let ignored = verdict_on(r#"{"result":"ignore"}"#);
        assert!(matches!(ignored, Verdict::NotMine));
    }

    #[test]
    fn a_right_that_has_already_ended_is_refused() {
        let answer = r#"{"result":"allow","expires_unix_s":1000}"#;
        assert!(is_bad(&verdict_on(answer)));
    }

    #[test]
    fn a_malformed_answer_lets_nobody_in() {
        for body in [
            "",
            "allow",
            "{}",
            r#"{"result":"Allow"}"#,
            r#"{"result":true}"#,
            r#"{"result":"allow"} more"#,
            r#"{"result":"allow","result":"deny"}"#,
            r#"{"result":"allow","user_name":7}"#,
            r#"{"result":"allow","user_name":""}"#,
            r#"{"result":"allow","client_id":""}"#,
            r#"{"result":"allow","superuser":"yes"}"#,
            r#"{"result":"allow","acl":"a/#"}"#,
            r#"{"result":"allow","acl":{"Deny":["a/#"]}}"#,
            r#"{"result":"allow","superuser":true,"acl":[]}"#,
            r#"{"result":"allow","expires_unix_s":-1}"#,
        ] {
            assert!(is_unavailable(&verdict_on(body)), "{body}");
        }
    }

    #[test]
    fn another_status_lets_nobody_in() {
        for status in [
            "201 Created",
            "302 Found\r\nLocation: /",
            "404 Not Found",
            "500 Oops",
        ] {
            let server = StandIn::new(move |_| Reply::status(status));
            assert!(
                is_unavailable(&method(&server).authenticate(&credentials())),
                "{status}"
            );
        }
    }

    #[test]
    fn statuses_that_refuse_are_an_answer() {
        for status in ["401 Unauthorized", "403 Forbidden"] {
            let server = StandIn::new(move |_| Reply::status(status));
            let mut config = config(&server);
            // Also where silence would let the next method be asked.
            config.fail_open = true;
            let verdict = HttpMethod::new(&config)
                .unwrap()
                .authenticate(&credentials());
            assert!(is_bad(&verdict), "{status}: {verdict:?}");
        }
    }

    #[test]
    fn an_answer_that_is_too_large_lets_nobody_in() {
        let padded = |bytes: usize| {
            let answer = r#"{"result":"allow"}"#;
            format!("{answer}{}", " ".repeat(bytes - answer.len()))
        };
        let largest = verdict_on(&padded(ANSWER_BYTES_MAX));
        assert!(matches!(largest, Verdict::Allow(_)));
        assert!(is_unavailable(&verdict_on(&padded(ANSWER_BYTES_MAX + 1))));
    }

    #[test]
    fn a_hook_that_is_slow_lets_nobody_in() {
        let server = StandIn::new(|_| {
            thread::sleep(Duration::from_secs(5));
            Reply::ok(r#"{"result":"allow"}"#)
        });
        let mut config = config(&server);
        config.timeout_ms = 100;
        let start = Instant::now();
        let method = HttpMethod::new(&config).unwrap();
        let verdict = method.authenticate(&credentials());
        assert!(is_unavailable(&verdict));
        let told = method.failures_told.lock().unwrap().clone();
        assert_eq!(
            told,
            ["nothing came within authentication.http.timeout_ms = 100"]
        );
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    fn closed_port() -> HttpConfig {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        HttpConfig::new(format!("http://{address}/"))
    }

    #[test]
    fn a_hook_that_is_away_lets_nobody_in() {
        let method = HttpMethod::new(&closed_port()).unwrap();
        assert!(is_unavailable(&method.authenticate(&credentials())));
    }

    #[test]
    fn with_fail_open_the_next_method_is_asked() {
        let mut closed = closed_port();
        closed.fail_open = true;
        let verdict = HttpMethod::new(&closed)
            .unwrap()
            .authenticate(&credentials());
        assert!(matches!(verdict, Verdict::NotMine));
        let server = StandIn::new(|_| Reply::ok(r#"{"result":"deny"}"#));
        let mut denied = config(&server);
        denied.fail_open = true;
        let verdict = HttpMethod::new(&denied)
            .unwrap()
            .authenticate(&credentials());
        assert!(is_bad(&verdict));
    }

    #[test]
    fn a_password_that_is_not_text_is_refused_without_asking() {
        let server = StandIn::new(|_| Reply::ok(r#"{"result":"allow"}"#));
        let mut credentials = credentials();
        credentials.password = Some(Secret::new(&[0xff, 0xfe]));
        assert!(is_bad(&method(&server).authenticate(&credentials)));
        assert_eq!(server.count(), 0);
    }

    fn asked(cache_ttl_ms: u64, answer: &'static str, pause: Duration) -> usize {
        let server = StandIn::new(move |_| Reply::ok(answer));
        let mut config = config(&server);
        config.cache_ttl_ms = cache_ttl_ms;
        let method = HttpMethod::new(&config).unwrap();
        for _ in 0..3 {
            method.authenticate(&credentials());
            thread::sleep(pause);
        }
        let mut other = credentials();
        other.password = Some(Secret::new(b"wrong"));
        method.authenticate(&other);
        server.count()
    }

    #[test]
    fn without_a_cache_the_hook_is_asked_each_time() {
        assert_eq!(asked(0, r#"{"result":"allow"}"#, Duration::ZERO), 4);
    }

    #[test]
    fn answers_are_used_again_for_the_same_credentials() {
        for answer in [
            r#"{"result":"allow"}"#,
            r#"{"result":"deny"}"#,
            r#"{"result":"ignore"}"#,
        ] {
            assert_eq!(asked(600_000, answer, Duration::ZERO), 2, "{answer}");
        }
    }

    #[test]
    fn an_answer_is_not_used_after_its_lifetime() {
        let pause = Duration::from_millis(20);
        assert_eq!(asked(1, r#"{"result":"allow"}"#, pause), 4);
    }

    #[test]
    fn failures_are_not_kept() {
        assert_eq!(asked(600_000, "oops", Duration::ZERO), 4);
    }

    #[test]
    fn a_kept_identity_does_not_outlive_its_right() {
        fn later() -> u64 {
            2_000_000_000
        }
        let server =
            StandIn::new(|_| Reply::ok(r#"{"result":"allow","expires_unix_s":1999999999}"#));
        let mut config = config(&server);
        config.cache_ttl_ms = 600_000;
        let mut method = HttpMethod::new(&config).unwrap();
        method.now_unix_s = || 1_999_999_998;
        let first = method.authenticate(&credentials());
        assert!(matches!(first, Verdict::Allow(_)));
        method.now_unix_s = later;
        assert!(is_bad(&method.authenticate(&credentials())));
        assert_eq!(server.count(), 2);
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let server = StandIn::new(|_| Reply::ok(r#"{"result":"allow"}"#));
        let mut config = config(&server);
        config.cache_ttl_ms = 600_000;
        config.headers = vec![("X-Api-Key".to_owned(), Secret::new(b"hush-header"))];
        assert!(!format!("{:?}", config.headers).contains("hush"));
        let method = HttpMethod::new(&config).unwrap();
        let verdict = method.authenticate(&credentials());
        let shown = format!("{method:?} {verdict:?} {:?}", credentials());
        assert!(
            shown.contains("/auth") && !shown.contains("hush"),
            "{shown}"
        );
    }

    #[test]
    fn mistakes_in_the_configuration_name_the_key() {
        let wrong = |change: fn(&mut HttpConfig)| {
            let mut config = HttpConfig::new("http://127.0.0.1:9/".to_owned());
            change(&mut config);
            HttpMethod::new(&config).unwrap_err()
        };
        let header = |name: &str, value: &[u8]| vec![(name.to_owned(), Secret::new(value))];
        let url = wrong(|config| config.authenticate_url = "ftp://host/".to_owned());
        assert_eq!(url.key, "authenticate_url");
        assert_eq!(wrong(|config| config.timeout_ms = 0).key, "timeout_ms");
        let ca_file = wrong(|config| {
            config.authenticate_url = "https://127.0.0.1:9/".to_owned();
            config.ca_file = Some("/nowhere/ca.pem".into());
        });
        assert_eq!(ca_file.key, "ca_file");
        for pairs in [
            header("no name", b"v"),
            header("Bearer hush", b"Authorization"),
            header("hush", b"Authorization\n"),
            header("X-Key", b"hush\r\nX-Other: 1"),
            header("Content-Length", b"0"),
            header("Host", b"elsewhere"),
        ] {
            let error = headers(&pairs).unwrap_err();
            assert_eq!(error.key, "headers");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_hook_behind_tls_is_asked() {
        let scratch = Scratch::new();
        let (server, pem) = StandIn::with_tls(|_| Reply::ok(r#"{"result":"allow"}"#));
        let mut config = config(&server);
        config.ca_file = Some(scratch.write("ca.pem", pem.as_bytes()));
        config.timeout_ms = 10_000;
        let verdict = HttpMethod::new(&config)
            .unwrap()
            .authenticate(&credentials());
        assert!(matches!(verdict, Verdict::Allow(_)));
    }
}
