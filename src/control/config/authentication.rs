//! Who may connect: the methods, their order and their settings.

use super::ConfigError;
use super::file::{FileConfig, FileHttp, FileJwt};
use super::method::MethodName;
use super::place::Places;
use crate::control::authn::certificate::IdentityFrom;
use crate::control::authn::http::HttpConfig;
use crate::control::authn::jwt::{Algorithm, JwtConfig, KeySource};
use crate::control::text::without_mark;
use crate::engine::access::Secret;
use crate::engine::shard::{Authentication, ClientIdPolicy};
use crate::shard::files;
use std::path::PathBuf;

/// What the control plane has to know of authentication.
#[derive(Clone, Debug, Default)]
pub struct AuthenticationConfig {
    /// Methods, in the order in which they are asked.
    pub methods: Vec<MethodName>,
    /// Users and passwords.
    pub password_file: Option<PathBuf>,
    /// Which name of a certificate is the user's.
    pub certificate: Option<IdentityFrom>,
    /// How tokens are judged.
    pub jwt: Option<JwtConfig>,
    /// The server that is asked.
    pub http: Option<HttpConfig>,
    /// Threads on which methods work.
    pub threads: usize,
}

/// Default of `authentication.threads`: password hashing is work for one core at a time.
const THREADS: usize = 1;

pub(super) fn authentication(
    raw: &FileConfig,
    places: &Places<'_>,
) -> Result<(AuthenticationConfig, Authentication), ConfigError> {
    let section = &raw.authentication;
    let methods = methods(raw, places)?;
    let for_shards = Authentication {
        has_methods: !methods.is_empty(),
        has_exchange: methods.contains(&MethodName::Scram),
        client_id: section.client_id.unwrap_or(ClientIdPolicy::Any),
    };
    let config = AuthenticationConfig {
        methods,
        password_file: raw.password_file.clone(),
        certificate: section.certificate,
        jwt: section
            .jwt
            .as_ref()
            .map(|jwt| jwt_config(jwt, places))
            .transpose()?,
        http: section
            .http
            .as_ref()
            .map(|http| http_config(http, places))
            .transpose()?,
        threads: section.threads.unwrap_or(THREADS),
    };
    Ok((config, for_shards))
}

/// The methods that are asked, in their order; all that are configured, unless it is said.
fn methods(raw: &FileConfig, places: &Places<'_>) -> Result<Vec<MethodName>, ConfigError> {
    let section = &raw.authentication;
    let scram = section.scram.unwrap_or(false);
    let is_configured = |method| match method {
        MethodName::Certificate => section.certificate.is_some(),
        MethodName::PasswordFile => raw.password_file.is_some(),
        MethodName::Jwt => section.jwt.is_some(),
        MethodName::Http => section.http.is_some(),
        MethodName::Scram => scram,
    };
    let all = [
        MethodName::Certificate,
        MethodName::Jwt,
        MethodName::PasswordFile,
        MethodName::Http,
        MethodName::Scram,
    ];
    let methods: Vec<_> = match &section.methods {
        Some(methods) => methods.clone(),
        None => all.into_iter().filter(|m| is_configured(*m)).collect(),
    };
    if methods.is_empty() && section.methods.is_some() {
        let text = "names none; leave it out for all that are configured";
        return Err(places.wrong("authentication.methods", text.into()));
    }
    if let Some(missing) = methods.iter().find(|method| !is_configured(**method)) {
        let text = format!("{} is not configured", missing.as_str());
        return Err(places.wrong("authentication.methods", text));
    }
    if scram && raw.password_file.is_none() {
        let text = "SCRAM finds its users in the `password_file`, which is not configured";
        return Err(places.wrong("authentication.scram", text.into()));
    }
    let is_asked = |method: &MethodName| {
        // SCRAM finds its users in it.
        let is_for_scram = *method == MethodName::PasswordFile && scram;
        methods.contains(method) || is_for_scram
    };
    let unasked = all
        .iter()
        .find(|method| is_configured(**method) && !is_asked(method));
    if let Some(unasked) = unasked {
        let name = unasked.as_str();
        let text = format!(
            "{name} is configured, but \"{name}\" is not among them; add it or leave it out"
        );
        return Err(places.wrong("authentication.methods", text));
    }
    Ok(methods)
}

/// How often a key set is read again from its server.
const JWKS_REFRESH_SECONDS: u64 = 300;

fn jwt_config(jwt: &FileJwt, places: &Places<'_>) -> Result<JwtConfig, ConfigError> {
    let wrong = |text: String| places.wrong("authentication.jwt", text);
    let url = jwt.jwks_url.clone().map(|url| KeySource::JwksUrl {
        url,
        refresh_s: jwt.jwks_refresh_seconds.unwrap_or(JWKS_REFRESH_SECONDS),
        ca_file: jwt.jwks_ca_file.clone(),
    });
    let secret = jwt.secret_file.as_ref().map(|path| {
        let bytes = files::read(path, files::KEYS_BYTES_MAX)
            .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let secret = without_mark(&bytes).trim_ascii_end();
        Ok(KeySource::Secret(Secret::new(secret), path.clone()))
    });
    let sources = [
        secret.transpose()?,
        jwt.public_key_file.clone().map(KeySource::PemFile),
        jwt.jwks_file.clone().map(KeySource::JwksFile),
        url,
    ];
    let mut sources = sources.into_iter().flatten();
    let (Some(keys), None) = (sources.next(), sources.next()) else {
        let text = "say one of secret_file, public_key_file, jwks_file, jwks_url";
        return Err(wrong(text.into()));
    };
    let default = match keys {
        KeySource::Secret(..) => vec![Algorithm::HS256],
        _ => vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
    };
    let mut config = JwtConfig::new(jwt.algorithms.clone().unwrap_or(default), keys);
    config.audience.clone_from(&jwt.audience);
    config.issuer.clone_from(&jwt.issuer);
    config.client_id_claim.clone_from(&jwt.client_id_claim);
    config.leeway_s = jwt.leeway_seconds.unwrap_or(config.leeway_s);
    if let Some(claim) = &jwt.user_claim {
        config.user_claim.clone_from(claim);
    }
    if let Some(claim) = &jwt.acl_claim {
        config.acl_claim.clone_from(claim);
    }
    Ok(config)
}

fn http_config(http: &FileHttp, places: &Places<'_>) -> Result<HttpConfig, ConfigError> {
    let Some(url) = http.authenticate_url.clone() else {
        let text = "say with `authenticate_url` who is asked";
        return Err(places.wrong("authentication.http", text.into()));
    };
    let mut config = HttpConfig::new(url);
    config.timeout_ms = http.timeout_ms.unwrap_or(config.timeout_ms);
    config.cache_ttl_ms = http.cache_ttl_ms.unwrap_or(config.cache_ttl_ms);
    config.cache_max = http.cache_max.unwrap_or(config.cache_max);
    config.fail_open = http.fail_open.unwrap_or(false);
    config.ca_file.clone_from(&http.ca_file);
    let headers = http.headers.iter().flatten();
    let headers = headers.map(|(name, value)| (name.clone(), Secret::new(value.as_bytes())));
    config.headers = headers.collect();
    Ok(config)
}
