//! Who may connect: the methods, their order and their settings.

use super::ConfigError;
use super::file::FileConfig;
use super::place::Places;
use crate::shard::core::{Authentication, ClientIdPolicy};
use serde::Deserialize;
use std::path::PathBuf;

/// A method, by its name in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// A client certificate.
    Certificate,
    /// The password file.
    PasswordFile,
}

/// What the control plane has to know of authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationConfig {
    /// Methods, in the order in which they are asked.
    pub methods: Vec<MethodName>,
    /// Users and passwords.
    pub password_file: Option<PathBuf>,
    /// Whether SCRAM-SHA-256 is served, with the users of the password file.
    pub scram: bool,
    /// Threads on which methods work.
    pub threads: usize,
}

/// Default of `authentication.threads`: password hashing is work for one core at a time.
const THREADS: usize = 1;
const THREADS_MAX: usize = 64;

pub(super) fn authentication(
    raw: &FileConfig,
    places: &Places<'_>,
) -> Result<(AuthenticationConfig, Authentication), ConfigError> {
    let section = &raw.authentication;
    let is_configured = |method| match method {
        MethodName::Certificate => section.certificate.is_some(),
        MethodName::PasswordFile => raw.password_file.is_some(),
    };
    let all = [MethodName::Certificate, MethodName::PasswordFile];
    let methods: Vec<_> = match &section.methods {
        Some(methods) => methods.clone(),
        None => all.into_iter().filter(|m| is_configured(*m)).collect(),
    };
    if let Some(missing) = methods.iter().find(|method| !is_configured(**method)) {
        let text = format!("{missing:?} is not configured");
        return Err(places.wrong("authentication.methods", text));
    }
    let threads = section.threads.unwrap_or(THREADS);
    if !(1..=THREADS_MAX).contains(&threads) {
        let text = format!("{threads} is not between 1 and {THREADS_MAX}");
        return Err(places.wrong("authentication.threads", text));
    }
    let scram = section.scram.unwrap_or(false);
    if scram && raw.password_file.is_none() {
        let text = "SCRAM finds its users in the `password_file`, which is not configured";
        return Err(places.wrong("authentication.scram", text.into()));
    }
    let for_shards = Authentication {
        has_methods: !methods.is_empty() || scram,
        has_exchange: scram,
        client_id: section.client_id.unwrap_or(ClientIdPolicy::Any),
    };
    let config = AuthenticationConfig {
        methods,
        password_file: raw.password_file.clone(),
        scram,
        threads,
    };
    Ok((config, for_shards))
}
