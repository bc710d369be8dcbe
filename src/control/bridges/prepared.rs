//! What bridges are told, read from what the configuration names before anybody dials.

use super::sas::SasKey;
use super::tls;
use crate::control::config::{BridgeConfig, Config};
use crate::control::text;
use crate::engine::access::Secret;
use crate::engine::bridge::plan::{Plan, Taken};
use crate::engine::shard::Settings;
use crate::shard::files;
use crate::shard::transport::remote::RemoteTls;
use std::path::Path;
use std::sync::Arc;

/// Longest file of a password.
const PASSWORD_FILE_BYTES_MAX: usize = 64 * 1024;

/// Bridges that are told what they need, before anybody dials.
#[derive(Debug, Default)]
pub struct Prepared(pub(super) Vec<Told>);

/// What one is told.
#[derive(Debug)]
pub(super) struct Told {
    pub config: Arc<BridgeConfig>,
    pub plan: Arc<Plan>,
    /// How to speak TLS, by its addresses.
    pub tls: Vec<Option<RemoteTls>>,
    pub sas: Option<Box<SasKey>>,
}

impl Prepared {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn load(config: &Config) -> Result<Self, String> {
        let bridges = config.bridges.iter();
        let bridges = bridges.map(|bridge| Told::load(bridge, &config.settings));
        bridges.collect::<Result<_, _>>().map(Prepared)
    }
}

impl Told {
    /// Reads what the configuration of one names.
    ///
    /// # Errors
    /// A file that cannot be used, and whose.
    pub fn load(bridge: &Arc<BridgeConfig>, settings: &Settings) -> Result<Self, String> {
        let wrong = |text: String| format!("bridge {:?}: {text}", bridge.name);
        Ok(Told {
            config: Arc::clone(bridge),
            plan: Arc::new(plan(bridge, settings).map_err(wrong)?),
            tls: remotes(bridge).map_err(wrong)?,
            sas: sas_key(bridge).map_err(wrong)?.map(Box::new),
        })
    }
}

fn password(file: &Path) -> Result<Secret, String> {
    let bytes = files::read(file, PASSWORD_FILE_BYTES_MAX);
    let bytes =
        bytes.map_err(|error| format!("bridge.password_file: {}: {error}", file.display()))?;
    let mut lines = text::without_mark(&bytes).split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        let text = format!(
            "bridge.password_file: the first line of {} is empty",
            file.display()
        );
        return Err(text);
    }
    Ok(Secret::new(line))
}

/// What tokens are made of, if there are to be any.
fn sas_key(config: &BridgeConfig) -> Result<Option<SasKey>, String> {
    let Some(file) = &config.sas_key_file else {
        return Ok(None);
    };
    let host = config
        .addresses
        .first()
        .map_or("", |address| &*address.host);
    let device = config.client_id.as_deref().unwrap_or_default();
    let resource = format!("{host}/devices/{device}");
    SasKey::load(file, &resource, config.sas_seconds).map(Some)
}

/// How to speak TLS, by the addresses.
fn remotes(config: &BridgeConfig) -> Result<Vec<Option<RemoteTls>>, String> {
    let is_needed = config.addresses.iter().any(|address| address.is_tls);
    let loaded = is_needed.then(|| tls::load(&config.tls).map(Arc::new));
    let loaded = loaded.transpose()?;
    let addresses = config.addresses.iter();
    let remotes = addresses.map(|at| tls::for_address(at, loaded.as_ref(), &config.tls));
    remotes.collect()
}

fn plan(config: &BridgeConfig, settings: &Settings) -> Result<Plan, String> {
    let of_host = || {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        format!("{host}-{}-{}", config.name, config.apart).into()
    };
    Ok(Plan {
        name: config.name.clone(),
        session_id: config.session_id(),
        local_user: config.local_user.clone(),
        client_id: config.client_id.clone().unwrap_or_else(of_host),
        user_name: config.user.clone(),
        password: config.password_file.as_deref().map(password).transpose()?,
        keep_alive_seconds: config.keep_alive_seconds,
        lasts_ms: None,
        idle_ms: config.idle_ms,
        is_persistent: config.is_persistent,
        queue: config.queue,
        part: config.part,
        topics: Arc::clone(&config.topics),
        topic_alias_max: config.topic_alias_max,
        known: config.known,
        remote_state_topic: config.remote_state_topic.clone(),
        broker_name: settings.broker_name.clone().unwrap_or_default(),
        hops_max: config.hops_max,
        taken: Taken {
            topics: settings.limits.topics(),
            packet_bytes_max: settings.limits.max_packet_bytes,
            receive_maximum: settings.limits.receive_maximum,
            qos_max: settings.qos_max,
            retain_available: settings.retain_available,
            connect_timeout_ms: settings.limits.connect_timeout_ms,
        },
    })
}
