//! Clients that show a signed token (JWT) in place of a password.
//!
//! Invariants: a token is judged by a key that is made for the token's algorithm and by nothing else, so that
//! a public key never serves as a shared secret; no claim is believed before the signature is good.
//!
//! Not here: where keys come from and when they are read again (`keys`, `store`).

mod keys;
#[cfg(test)]
mod signing;
mod store;

use super::fetch::SettingError;
use super::{Credentials, Method, Verdict, clock, grants};
use crate::engine::access::{ClientIdRule, Identity, Refusal, Secret};
use crate::engine::telemetry::notes::quoted;
pub use jsonwebtoken::Algorithm;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
pub use keys::KeySource;
use serde_json::{Map, Value};
use std::fmt;
use store::{KeyStore, Lookup};

/// How tokens are judged.
#[derive(Clone, Debug)]
pub struct JwtConfig {
    /// Algorithms that a token may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Where the keys are.
    pub keys: KeySource,
    /// What `aud` has to be or to contain; not checked if `None`.
    pub audience: Option<String>,
    /// What `iss` has to be; not checked if `None`.
    pub issuer: Option<String>,
    /// How far the clocks of broker and issuer may differ.
    pub leeway_s: u64,
    /// The claim with the user name.
    pub user_claim: String,
    /// The claim with the only client identifier the client may use, which each token has to have then.
    pub client_id_claim: Option<String>,
    /// The claim with access rules.
    pub acl_claim: String,
}

impl JwtConfig {
    /// With defaults for all that need not be said.
    #[must_use]
    pub fn new(algorithms: Vec<Algorithm>, keys: KeySource) -> Self {
        JwtConfig {
            algorithms,
            keys,
            audience: None,
            issuer: None,
            leeway_s: 30,
            user_claim: "sub".to_owned(),
            client_id_claim: None,
            acl_claim: "acl".to_owned(),
        }
    }
}

/// Why the method cannot begin, or keeps its old keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtError {
    /// A value of the configuration cannot work.
    Setting(SettingError),
    /// The keys cannot be read.
    Read {
        /// File or URL.
        place: String,
        /// What went wrong.
        text: String,
    },
    /// What was read has no key for any of the algorithms.
    NoKey {
        /// File or URL.
        place: String,
    },
    /// The system gives no thread for reading keys again.
    Thread(String),
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JwtError::Setting(error) => error.fmt(f),
            JwtError::Read { place, text } => write!(f, "{place}: {text}"),
            JwtError::NoKey { place } => {
                write!(f, "{place}: no key in it fits one of the algorithms; ")?;
                f.write_str("add the key, or its algorithm to algorithms")
            }
            JwtError::Thread(text) => write!(f, "no thread for reading keys again: {text}"),
        }
    }
}

impl std::error::Error for JwtError {}

impl From<SettingError> for JwtError {
    fn from(error: SettingError) -> Self {
        JwtError::Setting(error)
    }
}

/// Authenticates by the token in the place of the password.
#[derive(Debug)]
pub struct JwtMethod {
    config: JwtConfig,
    store: KeyStore,
    now_unix_s: fn() -> u64,
}

impl JwtMethod {
    /// Reads the keys, those of a URL on a thread of its own.
    ///
    /// # Errors
    /// The configuration cannot work, or a file of keys is missing or has none.
    pub fn new(config: JwtConfig) -> Result<Self, JwtError> {
        JwtMethod::with_clock(config, clock::now_unix_s)
    }

    /// Like [`JwtMethod::new`], with another clock: seconds since 1970.
    ///
    /// # Errors
    /// The same.
    pub fn with_clock(config: JwtConfig, now_unix_s: fn() -> u64) -> Result<Self, JwtError> {
        if config.user_claim.is_empty() {
            return Err(SettingError::new("user_claim", "name a claim, such as sub").into());
        }
        let store = KeyStore::open(&config.keys, &config.algorithms)?;
        Ok(JwtMethod {
            config,
            store,
            now_unix_s,
        })
    }

    /// Reads the keys again, those of a URL on a thread of their own; whether they are in force already.
    ///
    /// # Errors
    /// Why they cannot be had; the old keys stay.
    pub fn reload(&self) -> Result<bool, JwtError> {
        self.store.reload()
    }

    fn judge(&self, token: &[u8], credentials: &Credentials) -> Result<Identity, Refusal> {
        let claims = self.verified(token)?;
        self.check_parties(&claims)?;
        let expires_unix_s = self.check_times(&claims)?;
        let user_name = name(&claims, &self.config.user_claim, "user_claim")?;
        if let Some(shown) = &credentials.user_name
            && *shown != user_name
        {
            let of_token = quoted(&user_name);
            let text = format!("its user name is not {of_token}, which its token has");
            return Err(bad(text));
        }
        let client_id = match &self.config.client_id_claim {
            Some(claim) => {
                let only = name(&claims, claim, "client_id_claim")?;
                Some(ClientIdRule::Exactly(only))
            }
            None => None,
        };
        let acl_claim = &self.config.acl_claim;
        let acl = match claims.get(acl_claim) {
            Some(object) => Some(grants::compile(object).ok_or_else(|| {
                bad(format!(
                    "its token's claim {acl_claim:?} (authentication.jwt.acl_claim) has not the form of \
                     access rules"
                ))
            })?),
            None => None,
        };
        Ok(Identity {
            user_name: Some(user_name),
            method: self.name(),
            client_id,
            acl,
            // A token that is let in within the leeway may stay as long.
            expires_unix_s: Some(expires_unix_s.saturating_add(self.config.leeway_s)),
        })
    }

    /// The claims, if the signature is good.
    fn verified(&self, token: &[u8]) -> Result<Map<String, Value>, Refusal> {
        let header = decode_header(token)
            .map_err(|_| bad("its token's header is none, or names no algorithm that is known"))?;
        // `crit` lists extensions that have to be understood; none is.
        if header.crit.is_some() {
            return Err(bad(
                "its token has extensions that have to be understood (crit)",
            ));
        }
        let algorithm = header.alg;
        if !self.config.algorithms.contains(&algorithm) {
            return Err(bad(format!(
                "its token is signed by {algorithm:?}, which is not in authentication.jwt.algorithms"
            )));
        }
        let key = match self.store.find(header.kid.as_deref(), algorithm) {
            Lookup::Found(key) => key,
            Lookup::None => return Err(self.no_key(header.kid.as_deref(), algorithm)),
            Lookup::NotNow => return Err(Refusal::Unavailable),
        };
        // Claims are checked here, not there: the crate asks the system for the time, and lets a token pass
        // whose `iss` or `aud` is missing.
        let mut signature_only = Validation::new(algorithm);
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_nbf = false;
        signature_only.validate_aud = false;
        decode(token, key.decoding(), &signature_only)
            .map(|decoded| decoded.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => bad(format!(
                    "its token's signature is not by the key in {}",
                    self.store.place()
                )),
                _ => bad("its token's claims or its signature cannot be read"),
            })
    }

    /// No key is for a token with that header.
    fn no_key(&self, id: Option<&str>, algorithm: Algorithm) -> Refusal {
        let place = self.store.place();
        bad(match id {
            Some(id) => {
                let id = quoted(id);
                format!("no key in {place} is for its token: key id {id}, algorithm {algorithm:?}")
            }
            None => format!(
                "its token names no key id, and {place} has not one key only that fits {algorithm:?}"
            ),
        })
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        let wrong = |claim: &str, key: &str, wanted: &str| {
            let found = shown(claims.get(claim));
            bad(format!(
                "its token is {found} by the claim \"{claim}\", not {wanted:?} (authentication.jwt.{key})"
            ))
        };
        if let Some(issuer) = &self.config.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(wrong("iss", "issuer", issuer));
        }
        if let Some(audience) = &self.config.audience {
            let is_meant = match claims.get("aud") {
                Some(Value::String(one)) => one == audience,
                Some(Value::Array(several)) => {
                    several.iter().any(|one| one.as_str() == Some(audience))
                }
                _ => false,
            };
            if !is_meant {
                return Err(wrong("aud", "audience", audience));
            }
        }
        Ok(())
    }

    /// Refuses a token that is expired or not valid yet; its `exp` otherwise.
    fn check_times(&self, claims: &Map<String, Value>) -> Result<u64, Refusal> {
        let now_s = (self.now_unix_s)();
        let leeway_s = self.config.leeway_s;
        let time = |claim: &str| {
            let value = claims.get(claim);
            value.and_then(seconds).ok_or_else(|| {
                let found = shown(value);
                bad(format!(
                    "its token's claim \"{claim}\" is {found}, not a time"
                ))
            })
        };
        let expires_s = time("exp")?;
        if now_s >= expires_s.saturating_add(leeway_s) {
            return Err(bad(format!(
                "its token has expired {} s ago (exp is {expires_s}; authentication.jwt.leeway_seconds = \
                 {leeway_s})",
                now_s - expires_s
            )));
        }
        if claims.contains_key("nbf") {
            let begins_s = time("nbf")?;
            if begins_s > now_s.saturating_add(leeway_s) {
                return Err(bad(format!(
                    "its token is not valid for {} s yet (nbf is {begins_s}; \
                     authentication.jwt.leeway_seconds = {leeway_s})",
                    begins_s - now_s
                )));
            }
        }
        Ok(expires_s)
    }
}

/// A token is not good, and why, for the logs.
fn bad(text: impl Into<Box<str>>) -> Refusal {
    Refusal::BadProof(text.into())
}

/// A claim as it is told.
fn shown(claim: Option<&Value>) -> String {
    match claim {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(Value::String(text)) => quoted(text),
        Some(other) => quoted(&other.to_string()),
    }
}

impl Method for JwtMethod {
    fn name(&self) -> &'static str {
        "jwt"
    }

    fn takes(&self) -> Option<&'static str> {
        Some("a token (JWT)")
    }

    fn authenticate(&self, credentials: &Credentials) -> Verdict {
        let password = credentials.password.as_ref().map(Secret::reveal);
        let Some(token) = password.filter(|password| looks_like_a_token(password)) else {
            return Verdict::NotMine;
        };
        match self.judge(token, credentials) {
            Ok(identity) => Verdict::Allow(Box::new(identity)),
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }
}

/// Whether these are three parts in base64url with dots between. The signature may be empty: such a token is
/// refused rather than handed to the next method as if it were a password.
fn looks_like_a_token(password: &[u8]) -> bool {
    let mut parts = password.split(|byte| *byte == b'.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_base64 = |part: &[u8]| part.len() % 4 != 1 && part.iter().all(is_letter);
    !header.is_empty()
        && !claims.is_empty()
        && [header, claims, signature].into_iter().all(is_base64)
}

/// The name in a claim, which the configuration calls by `key`.
fn name(claims: &Map<String, Value>, claim: &str, key: &str) -> Result<Box<str>, Refusal> {
    match claims.get(claim).and_then(Value::as_str) {
        Some(name) if !name.is_empty() => Ok(name.into()),
        _ => Err(bad(format!(
            "its token's claim {claim:?} (authentication.jwt.{key}) is {}, not a name",
            shown(claims.get(claim))
        ))),
    }
}

/// A time in seconds since 1970; fractions are allowed (RFC 7519, 2) and dropped.
fn seconds(value: &Value) -> Option<u64> {
    let fraction = || value.as_f64().filter(|seconds| *seconds >= 0.0);
    value.as_u64().or_else(|| fraction().map(|s| s as u64))
}

#[cfg(test)]
mod tests {
    use super::signing::*;
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header, encode};

    #[test]
    fn the_token_that_is_shown_to_operators_is_let_in() {
        let shown = include_str!("../README.md");
        let token = shown.lines().find(|line| line.starts_with("eyJ")).unwrap();
        let (_, secret) = shown.split_once("with the line: ").unwrap();
        let secret = secret.lines().next().unwrap();
        let keys = KeySource::Secret(Secret::new(secret.as_bytes()), "secret".into());
        let mut config = JwtConfig::new(vec![Algorithm::HS256], keys);
        config.client_id_claim = Some("client_id".to_owned());
        let verdict = method(config).authenticate(&credentials(token.as_bytes()));
        let Verdict::Allow(identity) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(identity.user_name.as_deref(), Some("ann"));
        assert!(identity.client_id.unwrap().allows("pump-7") && identity.acl.is_some());
    }
    use serde_json::json;

    /// Whether claims are let in by a method that has the shared secret.
    fn passes(config: JwtConfig, changes: Value) -> bool {
        is_allowed(&method(config), &hs256(&claims_with(changes)))
    }

    #[test]
    fn a_good_token_names_its_user() {
        let identity = identity(&method(secret_config()), &hs256(&claims()));
        assert_eq!(identity.user_name.as_deref(), Some("ann"));
        assert_eq!(identity.method, "jwt");
        assert_eq!(identity.expires_unix_s, Some(NOW_S + 130));
        assert_eq!(identity.client_id, None);
        assert!(identity.acl.is_none());
    }

    #[test]
    fn a_password_that_is_no_token_is_left_to_others() {
        let method = method(secret_config());
        for password in [
            &b""[..],
            b"password",
            b"a.b",
            b"ab.cd",
            b"ab.cd.ef.gh",
            b"ab..ef",
            b".cd.ef",
            b"ab.cd.e",
            b"ab.cd.e=",
            b"ab.c d.ef",
            b"ab.cd.e/f",
            b"\xff\xff.\xff\xff.\xff\xff",
        ] {
            let verdict = method.authenticate(&credentials(password));
            assert!(matches!(verdict, Verdict::NotMine), "{password:?}");
        }
        let mut without = credentials(b"");
        without.password = None;
        assert!(matches!(method.authenticate(&without), Verdict::NotMine));
    }

    #[test]
    fn what_looks_like_a_token_and_is_none_is_refused() {
        let method = method(secret_config());
        assert!(!is_allowed(&method, "abcd.efgh.ijkl"));
        let not_claims = encode(
            &Header::new(Algorithm::HS256),
            &json!(["ann"]),
            &EncodingKey::from_secret(SECRET),
        );
        assert!(!is_allowed(&method, &not_claims.unwrap()));
    }

    #[test]
    fn a_changed_token_is_refused() {
        let method = method(secret_config());
        let token = hs256(&claims());
        assert!(is_allowed(&method, &token));
        let parts: Vec<_> = token.split('.').collect();
        let other = claims_with(json!({"sub": "root"})).to_string();
        let other = URL_SAFE_NO_PAD.encode(other);
        let forged = format!("{}.{other}.{}", parts[0], parts[2]);
        assert!(!is_allowed(&method, &forged));
        let cut = &token[..token.len() - 4];
        assert!(!is_allowed(&method, cut));
    }

    #[test]
    fn another_secret_is_refused() {
        let key = EncodingKey::from_secret(b"another");
        let token = signed(Algorithm::HS256, None, &key, &claims());
        assert!(!is_allowed(&method(secret_config()), &token));
    }

    #[test]
    fn tokens_without_signature_are_refused() {
        let method = method(secret_config());
        let good = hs256(&claims());
        let parts: Vec<_> = good.split('.').collect();
        for algorithm in ["none", "None", "NONE", ""] {
            let header = json!({"alg": algorithm, "typ": "JWT"}).to_string();
            let header = URL_SAFE_NO_PAD.encode(header);
            for signature in ["", parts[2]] {
                let token = format!("{header}.{}.{signature}", parts[1]);
                assert!(!is_allowed(&method, &token), "{algorithm}");
            }
        }
        let unsigned = format!("{}.{}.", parts[0], parts[1]);
        assert!(!is_allowed(&method, &unsigned));
    }

    #[test]
    fn an_algorithm_that_is_not_configured_is_refused() {
        let mut config = secret_config();
        config.algorithms = vec![Algorithm::HS512];
        let method = method(config);
        let key = EncodingKey::from_secret(SECRET);
        let with = |algorithm| signed(algorithm, None, &key, &claims());
        assert!(is_allowed(&method, &with(Algorithm::HS512)));
        assert!(!is_allowed(&method, &with(Algorithm::HS256)));
    }

    #[test]
    fn extensions_that_have_to_be_understood_are_refused() {
        let key = EncodingKey::from_secret(SECRET);
        let mut header = Header::new(Algorithm::HS256);
        header.crit = Some(vec!["exp2".to_owned()]);
        let token = encode(&header, &claims(), &key).unwrap();
        assert!(!is_allowed(&method(secret_config()), &token));
    }

    #[test]
    fn an_expired_token_is_refused_after_the_leeway() {
        let expires = |exp: Value| passes(secret_config(), json!({"exp": exp}));
        assert!(expires(json!(NOW_S)));
        assert!(expires(json!(NOW_S - 29)));
        assert!(!expires(json!(NOW_S - 30)));
        assert!(!expires(json!(0)));
        let mut strict = secret_config();
        strict.leeway_s = 0;
        assert!(passes(strict.clone(), json!({"exp": NOW_S + 1})));
        assert!(!passes(strict, json!({"exp": NOW_S})));
    }

    #[test]
    fn a_token_has_to_say_when_it_expires() {
        for exp in [
            json!(null),
            json!("1000100"),
            json!(-1),
            json!([]),
            json!(true),
        ] {
            assert!(!passes(secret_config(), json!({"exp": exp})), "{exp}");
        }
        let mut null = claims();
        null["exp"] = json!(null);
        assert!(!is_allowed(&method(secret_config()), &hs256(&null)));
    }

    #[test]
    fn a_time_may_have_fractions_and_be_far_away() {
        let exp = |value: Value| {
            let token = hs256(&claims_with(json!({"exp": value})));
            identity(&method(secret_config()), &token).expires_unix_s
        };
        assert_eq!(exp(json!(1_000_050.9)), Some(1_000_080));
        assert_eq!(exp(json!(u64::MAX)), Some(u64::MAX));
        assert_eq!(exp(json!(1e300)), Some(u64::MAX));
    }

    #[test]
    fn a_token_that_is_not_valid_yet_is_refused() {
        let begins = |nbf: Value| passes(secret_config(), json!({"nbf": nbf}));
        assert!(begins(json!(NOW_S + 30)));
        assert!(!begins(json!(NOW_S + 31)));
        assert!(!begins(json!("0")));
    }

    #[test]
    fn the_issuer_has_to_be_the_one_configured() {
        let mut config = secret_config();
        config.issuer = Some("issuer".to_owned());
        assert!(passes(config.clone(), json!({"iss": "issuer"})));
        for iss in [json!(null), json!("other"), json!(7), json!(["issuer"])] {
            assert!(!passes(config.clone(), json!({"iss": iss})), "{iss}");
        }
        assert!(passes(secret_config(), json!({"iss": "anybody"})));
    }

    #[test]
    fn the_audience_has_to_contain_the_one_configured() {
        let mut config = secret_config();
        config.audience = Some("broker".to_owned());
        assert!(passes(config.clone(), json!({"aud": "broker"})));
        assert!(passes(config.clone(), json!({"aud": ["x", "broker"]})));
        for aud in [
            json!(null),
            json!("brokers"),
            json!([]),
            json!(["x"]),
            json!(7),
        ] {
            assert!(!passes(config.clone(), json!({"aud": aud})), "{aud}");
        }
        assert!(passes(secret_config(), json!({"aud": "anybody"})));
    }

    #[test]
    fn the_user_claim_has_to_be_a_name() {
        for sub in [json!(null), json!(""), json!(7), json!(["ann"])] {
            assert!(!passes(secret_config(), json!({"sub": sub})), "{sub}");
        }
        let mut config = secret_config();
        config.user_claim = "user".to_owned();
        let token = hs256(&claims_with(json!({"user": "bob"})));
        let bob = identity(&method(config), &token);
        assert_eq!(bob.user_name.as_deref(), Some("bob"));
    }

    #[test]
    fn the_user_name_of_the_connect_packet_has_to_be_that_of_the_token() {
        let method = method(secret_config());
        let mut credentials = credentials(hs256(&claims()).as_bytes());
        credentials.user_name = Some("ann".into());
        let verdict = method.authenticate(&credentials);
        assert!(matches!(verdict, Verdict::Allow(_)));
        for other in ["", "bob", "Ann"] {
            credentials.user_name = Some(other.into());
            let verdict = method.authenticate(&credentials);
            assert!(matches!(verdict, Verdict::Refuse(Refusal::BadProof(_))));
        }
    }

    #[test]
    fn a_token_may_fix_the_client_identifier() {
        let mut config = secret_config();
        config.client_id_claim = Some("client".to_owned());
        let rule = |changes| {
            let token = hs256(&claims_with(changes));
            identity(&method(config.clone()), &token).client_id
        };
        let only = ClientIdRule::Exactly("pump-7".into());
        assert_eq!(rule(json!({"client": "pump-7"})), Some(only));
        assert!(!passes(config.clone(), json!({})));
        assert!(!passes(config.clone(), json!({"client": ""})));
        assert!(!passes(config.clone(), json!({"client": 7})));
        let token = hs256(&claims_with(json!({"client": "pump-7"})));
        let unasked = identity(&method(secret_config()), &token);
        assert_eq!(unasked.client_id, None);
    }

    #[test]
    fn a_token_may_carry_access_rules() {
        let acl = json!({"publish": ["a/#"], "deny": ["a/x"]});
        let token = hs256(&claims_with(json!({"acl": acl})));
        assert!(identity(&method(secret_config()), &token).acl.is_some());
        for malformed in [json!("a/#"), json!({"publish": "a/#"}), json!({"Deny": []})] {
            assert!(!passes(secret_config(), json!({"acl": malformed})));
        }
        let mut null = claims();
        null["acl"] = json!(null);
        assert!(!is_allowed(&method(secret_config()), &hs256(&null)));
        let mut config = secret_config();
        config.acl_claim = "rules".to_owned();
        let token = hs256(&claims_with(json!({"acl": "unread", "rules": {}})));
        assert!(identity(&method(config), &token).acl.is_some());
    }

    #[test]
    fn each_algorithm_of_shared_secrets_works() {
        let key = EncodingKey::from_secret(SECRET);
        for algorithm in HS {
            let token = signed(algorithm, None, &key, &claims());
            assert!(
                is_allowed(&method(secret_config()), &token),
                "{algorithm:?}"
            );
        }
    }

    #[test]
    fn it_is_told_which_check_a_token_failed_and_never_the_token() {
        let mut config = secret_config();
        config.algorithms = vec![Algorithm::HS256];
        config.issuer = Some("issuer".to_owned());
        config.audience = Some("broker".to_owned());
        config.client_id_claim = Some("client".to_owned());
        let method = method(config);
        let good = json!({"iss": "issuer", "aud": "broker", "client": "pump-7"});
        let with = |claim: &str, value: Value| {
            let mut changes = good.clone();
            changes[claim] = value;
            hs256(&claims_with(changes))
        };
        assert!(is_allowed(&method, &with("aud", json!("broker"))));
        let key = EncodingKey::from_secret(SECRET);
        let by_other = EncodingKey::from_secret(b"another");
        for (token, words) in [
            (
                with("exp", json!(NOW_S - 60)),
                "expired 60 s ago (exp is 999940; authentication.jwt.leeway",
            ),
            (
                with("exp", json!(null)),
                "claim \"exp\" is nothing, not a time",
            ),
            (
                with("nbf", json!(NOW_S + 90)),
                "not valid for 90 s yet (nbf is 1000090",
            ),
            (
                with("iss", json!("other")),
                "\"other\" by the claim \"iss\", not \"issuer\" (authentication.jwt.issuer)",
            ),
            (
                with("aud", json!(null)),
                "nothing by the claim \"aud\", not \"broker\"",
            ),
            (
                with("client", json!(null)),
                "claim \"client\" (authentication.jwt.client_id_claim) is nothing",
            ),
            (
                with("sub", json!("")),
                "claim \"sub\" (authentication.jwt.user_claim) is \"\", not a name",
            ),
            (
                with("acl", json!(7)),
                "claim \"acl\" (authentication.jwt.acl_claim) has not the form",
            ),
            (
                signed(Algorithm::HS256, None, &by_other, &good),
                "signature is not by the key in secret",
            ),
            (
                signed(Algorithm::HS512, None, &key, &good),
                "signed by HS512, which is not in",
            ),
            ("abcd.efgh.ijkl".to_owned(), "header is none"),
        ] {
            let verdict = method.authenticate(&credentials(token.as_bytes()));
            let Verdict::Refuse(refusal) = verdict else {
                panic!("{verdict:?}")
            };
            assert!(refusal.text().contains(words), "{}", refusal.text());
            assert!(token.split('.').all(|part| !refusal.text().contains(part)));
        }
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let method = method(secret_config());
        let verdict = method.authenticate(&credentials(hs256(&claims()).as_bytes()));
        let shown = format!("{method:?} {verdict:?}");
        assert!(!shown.contains("hush"), "{shown}");
        assert!(!shown.contains(&format!("{SECRET:?}")), "{shown}");
    }
}
