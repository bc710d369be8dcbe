//! Configuration: file, environment and command line to one checked, frozen [`Config`].
//!
//! The command line goes before the environment, that before the file, that before the defaults.
//! Every error names the place (file and line, variable or flag), the key and what would be right.
//! Nothing is converted or checked again after this.

mod addresses;
mod admin;
mod apart;
mod authentication;
mod bridge;
mod difference;
mod effect;
mod error;
mod file;
mod flags;
mod listener;
mod method;
mod paths;
mod place;
mod preset;
mod ranges;
mod said;
mod source;
mod storage;

pub use admin::{AdminConfig, TraceBounds};
pub use authentication::AuthenticationConfig;
pub use bridge::{Address, BridgeConfig, BridgeTlsConfig};
pub use difference::Change;
pub use effect::Effect;
pub use error::ConfigError;
pub use flags::{Flags, LogConfig, LogFormat, LogLevel};
pub use method::MethodName;
pub use paths::resolved;
pub use place::in_words;
pub use said::Said;
pub use source::Source;
pub use storage::StorageConfig;

use crate::control::cgroup::Bound;
use crate::engine::limits::SHARDS_MAX;
use crate::engine::message::Qos;
use crate::engine::shard::Settings;
use crate::engine::shard::flapping::FlappingRule;
use crate::shard::boot::Cpus;
use crate::shard::listener::ListenerConfig;
use file::{FileBans, FileConfig};
pub use listener::ListenersBy;
use listener::Surroundings;
use place::Places;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Everything the broker is told, checked.
#[derive(Debug)]
pub struct Config {
    /// The file that it is from.
    pub file: Option<PathBuf>,
    /// What to listen on; the policies are in `settings`, in the same order.
    pub listeners: Vec<ListenerConfig>,
    /// Where that was said.
    pub listeners_by: ListenersBy,
    /// Who may connect.
    pub authentication: AuthenticationConfig,
    /// What clients may do.
    pub acl_file: Option<PathBuf>,
    /// Where it is recorded who came and was refused.
    pub audit_file: Option<PathBuf>,
    /// Who is not served.
    pub bans: BansConfig,
    /// CPUs of the shards.
    pub cpus: Cpus,
    /// The CPU quota that decided how many shards there are.
    pub cpu_quota: Option<Bound>,
    /// It is said how much may be retained: else it follows from the memory that may be used.
    pub says_retained_bytes: bool,
    /// How to log.
    pub log: LogConfig,
    /// Where sessions and messages are kept.
    pub storage: Option<StorageConfig>,
    /// Settings of the shards' cores.
    pub settings: Settings,
    /// Other brokers that it goes to.
    pub bridges: Vec<Arc<BridgeConfig>>,
    /// How operators ask the broker.
    pub admin: AdminConfig,
    /// How often the broker publishes how it is under `$SYS`; `None` for never.
    pub sys_interval: Option<Duration>,
    /// How long a stop may take.
    pub shutdown_deadline: Duration,
    /// Clients that a drain sends away in a second.
    pub drain_rate: u32,
    /// Seconds without a turn after which a shard counts as dead; 0 for never.
    pub silence_seconds_max: u32,
    /// What was said by file, environment and flags.
    pub said: Said,
    /// What was said and means nothing, for the log.
    pub warnings: Vec<String>,
}

/// A configuration read anew.
#[derive(Debug)]
pub struct Renewed {
    /// What is to be in force: keys that need a restart are as before.
    pub config: Config,
    /// All keys that are not as before.
    pub changes: Vec<Change>,
}

/// Where the configuration comes from, so that tests need no process environment.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// Path and text of the file.
    pub file: Option<(&'a Path, &'a str)>,
    /// Variables, of which those that begin with `RINGMQ_` count.
    pub environment: Vec<(String, String)>,
    /// CPUs the process may use.
    pub cpus_available: Vec<usize>,
    /// CPU time the process may use.
    pub cpu_quota: Option<Bound>,
}

impl Config {
    /// Memory that its shards need without clients, in bytes.
    #[must_use]
    pub fn least_memory(&self) -> u64 {
        ranges::least_memory(&self.settings.limits, self.cpus.list.len())
    }

    /// Puts the sources together and checks them.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and the remedy.
    pub fn load(sources: &Sources<'_>, flags: &Flags) -> Result<Self, ConfigError> {
        let (raw, places, table) = place::merge(sources)?;
        Config::check((raw, Said::new(&table, flags)), &places, flags, sources)
    }

    /// The same for a broker that runs by an older one.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn renew(
        sources: &Sources<'_>,
        flags: &Flags,
        running: &Config,
    ) -> Result<Renewed, ConfigError> {
        let (raw, places, table) = place::merge(sources)?;
        let newest = Config::check((raw, Said::new(&table, flags)), &places, flags, sources)?;
        let changes = running.said.changes(&newest.said);
        let mut said = running.said.clone();
        for change in changes.iter().filter(|it| it.effect == Effect::Running) {
            change.put_into(&mut said);
        }
        let raw = FileConfig::deserialize(serde_json::Value::Object(said.keys().clone()));
        let raw =
            raw.map_err(|error| ConfigError::new("configuration".into(), error.to_string()))?;
        let mut config = Config::check((raw, said), &places, flags, sources)?;
        // Another one at each start, unless it is said.
        config
            .settings
            .broker_name
            .clone_from(&running.settings.broker_name);
        Ok(Renewed { config, changes })
    }

    /// Checks what was said.
    fn check(
        (mut raw, said): (FileConfig, Said),
        places: &Places<'_>,
        flags: &Flags,
        sources: &Sources<'_>,
    ) -> Result<Self, ConfigError> {
        paths::settle(&mut raw, places);
        let mut settings = settings(&raw, places)?;
        let (cpus, cpu_quota) = cpus(&raw, flags, places, sources)?;
        if let Some(text) = ranges::too_little_memory(&settings.limits, cpus.len()) {
            return Err(places.wrong("limits.memory_max_bytes", text));
        }
        ranges::check_sections(&raw, places)?;
        settings.broker_name = Some(bridge::broker_name(&raw, places)?);
        let bridges = bridge::bridges(&raw, places)?;
        settings.parts = bridge::parts(&bridges);
        let mut storage = storage::storage(&raw.storage, flags);
        if let Some(max) = raw.storage.pending_bytes_max {
            settings.storage_pending_bytes_max = max;
        }
        let bans = bans(&raw.bans);
        settings.flapping = bans.flapping_rule();
        settings.tells_why = true;
        settings.takes_notes = raw.audit_file.is_some() || bans.flapping_connects_max > 0;
        let (authentication, for_shards) = authentication::authentication(&raw, places)?;
        settings.authentication = for_shards;
        let surroundings = Surroundings {
            authenticates: settings.authentication.has_methods,
            methods: &authentication.methods,
            limits: settings.limits.clone(),
            storage: storage::level(storage.as_ref()),
        };
        let mut warnings = places.overridden.clone();
        let listeners = listener::listeners(&raw, flags, places, &surroundings, &mut warnings)?;
        let (listeners, policies): (Vec<ListenerConfig>, _) = listeners.into_iter().unzip();
        settings.listeners = policies;
        let admin = admin::admin(&raw, places)?;
        admin.keep_apart(listeners.iter().map(|listener| &listener.place), places)?;
        if let Some(storage) = &mut storage {
            storage.writer.tells_written = settings.waits_for_os();
        }
        let watchdog = &raw.watchdog;
        let deadline_ms = raw.shutdown.deadline_ms.unwrap_or(DEADLINE_MS);
        Ok(Config {
            said,
            file: sources.file.map(|(path, _)| path.to_owned()),
            listeners,
            listeners_by: ListenersBy::of(&raw, flags),
            authentication,
            acl_file: raw.acl_file.clone(),
            audit_file: raw.audit_file.clone(),
            bans,
            cpus: Cpus {
                list: cpus,
                pinned: raw.pin.unwrap_or(true),
            },
            cpu_quota,
            says_retained_bytes: raw.limits.says_retained_bytes(),
            log: log(&raw, flags),
            storage,
            settings,
            bridges,
            admin,
            sys_interval: sys_interval(raw.mqtt.sys_interval_s),
            shutdown_deadline: Duration::from_millis(deadline_ms),
            drain_rate: raw.shutdown.drain_rate.unwrap_or(1_000),
            silence_seconds_max: watchdog.silence_seconds_max.unwrap_or(SILENCE_SECONDS_MAX),
            warnings,
        })
    }
}

fn log(raw: &FileConfig, flags: &Flags) -> LogConfig {
    LogConfig {
        level: flags.log.or(raw.log).unwrap_or_default(),
        format: raw.log_format.unwrap_or_default(),
        file: raw.log_file.clone(),
    }
}

/// The limits in force, by their keys.
#[must_use]
pub fn limits_in_force(
    limits: &crate::engine::limits::Limits,
) -> serde_json::Map<String, serde_json::Value> {
    file::FileLimits::list(limits)
}

/// Who is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BansConfig {
    /// Bans without end.
    pub file: Option<PathBuf>,
    /// How long repeated failures are answered by a ban.
    pub duration: Duration,
    /// Failed logins of one address within the window that lead to one; 0 for none.
    pub failed_logins_max: u32,
    /// Their window.
    pub failed_logins_window: Duration,
    /// Connects of one client identifier within the window that lead to one; 0 for none.
    pub flapping_connects_max: u32,
    /// Their window.
    pub flapping_window: Duration,
    /// Bits of an IPv6 address by which failures and connections are counted, and who fails is banned.
    pub ipv6_prefix_bits: u8,
}

impl BansConfig {
    /// How often a client may connect, for the shards.
    fn flapping_rule(&self) -> FlappingRule {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        FlappingRule {
            connects_max: self.flapping_connects_max,
            window_ms: ms(self.flapping_window),
            ban_ms: ms(self.duration),
        }
    }
}

fn bans(raw: &FileBans) -> BansConfig {
    let seconds = |given: Option<u64>, default| Duration::from_secs(given.unwrap_or(default));
    BansConfig {
        file: raw.file.clone(),
        duration: seconds(raw.seconds, 300),
        failed_logins_max: raw.failed_logins_max.unwrap_or(0),
        failed_logins_window: seconds(raw.failed_logins_seconds, 60),
        flapping_connects_max: raw.flapping_connects_max.unwrap_or(0),
        flapping_window: seconds(raw.flapping_seconds, 60),
        ipv6_prefix_bits: raw.ipv6_prefix_bits.unwrap_or(IPV6_PREFIX_BITS),
    }
}

/// Default of `mqtt.sys_interval_s`, as other brokers have it.
const SYS_INTERVAL_S: u64 = 10;

fn sys_interval(seconds: Option<u64>) -> Option<Duration> {
    let seconds = seconds.unwrap_or(SYS_INTERVAL_S);
    (seconds > 0).then_some(Duration::from_secs(seconds))
}

/// Default of `bans.ipv6_prefix_bits`: what is the least that a provider gives to one customer.
const IPV6_PREFIX_BITS: u8 = 64;
/// Default of `watchdog.silence_seconds_max`: longer than any shard waits for its CPU on a machine that is
/// merely busy.
const SILENCE_SECONDS_MAX: u32 = 30;
/// Default of `shutdown.deadline_ms`: enough to flush to all clients that still read.
const DEADLINE_MS: u64 = 5_000;

/// A CPU for each shard, and the quota that decided how many there are.
fn cpus(
    raw: &FileConfig,
    flags: &Flags,
    places: &Places<'_>,
    sources: &Sources<'_>,
) -> Result<(Vec<usize>, Option<Bound>), ConfigError> {
    let available = &sources.cpus_available;
    let listed = match (&flags.cpus, &raw.cpus) {
        (Some(list), _) => {
            Some(parse_cpus(list, available).map_err(|text| ConfigError::flag("--cpus", text))?)
        }
        (None, Some(list)) => {
            Some(parse_cpus(list, available).map_err(|text| places.wrong("cpus", text))?)
        }
        (None, None) => None,
    };
    let is_listed = listed.is_some();
    let cpus = listed.unwrap_or_else(|| available.clone());
    let wanted = flags.shards.or(raw.shards);
    let quota = sources
        .cpu_quota
        .as_ref()
        .filter(|quota| wanted.is_none() && !is_listed && shards_within(quota) < cpus.len());
    let shards = wanted.unwrap_or_else(|| quota.map_or(cpus.len(), shards_within));
    if !(1..=SHARDS_MAX).contains(&shards) {
        let text = format!("{shards} is not between 1 and {SHARDS_MAX}");
        return Err(match flags.shards {
            Some(_) => ConfigError::flag("--shards", text),
            None => places.wrong("shards", text),
        });
    }
    let list = cpus.iter().copied().cycle().take(shards).collect();
    Ok((list, quota.cloned()))
}

/// Shards that a quota in thousandths of a CPU keeps busy: more would wait for each other.
fn shards_within(quota: &Bound) -> usize {
    let cpus = quota.value.div_ceil(1_000).max(1);
    usize::try_from(cpus).unwrap_or(usize::MAX)
}

fn parse_cpus(list: &str, available: &[usize]) -> Result<Vec<usize>, String> {
    let form = || format!("{list:?} is not a list of CPUs such as 0-3,6");
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| form())?;
        let last: usize = last.trim().parse().map_err(|_| form())?;
        if first > last || last - first > 4096 {
            return Err(form());
        }
        cpus.extend(first..=last);
    }
    match cpus.iter().find(|cpu| !available.contains(cpu)) {
        Some(cpu) => Err(format!(
            "CPU {cpu} is not available; these are: {available:?}"
        )),
        None => Ok(cpus),
    }
}

fn settings(raw: &FileConfig, places: &Places<'_>) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    raw.limits.apply(&mut settings.limits);
    if let Some((name, text)) = ranges::wrong_limit(&settings.limits) {
        return Err(places.wrong(&format!("limits.{name}"), text));
    }
    let session = &raw.session;
    if let Some(seconds) = session.expiry_seconds_max {
        settings.session_expiry_seconds_max = seconds;
    }
    settings.queue_full = session.queue_full.map_or(settings.queue_full, Into::into);
    settings.outbox_full = session.outbox_full.map_or(settings.outbox_full, Into::into);
    let mqtt = &raw.mqtt;
    settings.keep_alive_seconds_max = mqtt.keep_alive_seconds_max.unwrap_or(0);
    if let Some(qos) = mqtt.qos_max {
        settings.qos_max = Qos::from_bits(qos)
            .ok_or_else(|| places.wrong("mqtt.qos_max", format!("{qos} is not 0, 1 or 2")))?;
    }
    settings.retain_available = mqtt.retain_available.unwrap_or(true);
    settings.wildcard_subscriptions = mqtt.wildcard_subscriptions.unwrap_or(true);
    settings.shared_subscriptions = mqtt.shared_subscriptions.unwrap_or(true);
    settings.subscription_identifiers = mqtt.subscription_identifiers.unwrap_or(true);
    settings.shared_strategy = mqtt.shared_strategy.map(Into::into).unwrap_or_default();
    settings.validate_payload_format = mqtt.validate_payload_format.unwrap_or(false);
    settings.response_information = text(&mqtt.response_information);
    settings.server_reference = text(&mqtt.server_reference);
    let response = settings.response_information.as_deref();
    if response.is_some_and(|text| text.contains(['+', '#'])) {
        let text = "is the beginning of topics, in which + and # may not be".to_owned();
        return Err(places.wrong("mqtt.response_information", text));
    }
    for (key, value) in [
        ("mqtt.response_information", &settings.response_information),
        ("mqtt.server_reference", &settings.server_reference),
    ] {
        if value
            .as_ref()
            .is_some_and(|text| text.len() > 1024 || text.contains('\0'))
        {
            return Err(places.wrong(key, "is longer than 1024 bytes or has a NUL".into()));
        }
    }
    Ok(settings)
}

fn text(value: &Option<String>) -> Option<Box<str>> {
    value
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(Into::into)
}

#[cfg(test)]
mod tests;
