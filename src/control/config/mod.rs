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
mod tests {
    use super::*;
    use crate::engine::limits::QueueFull;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        flags: Flags,
    }

    fn load(text: &str, environment: &[(&str, &str)], args: &[&str]) -> Result<Config, String> {
        load_within(None, text, environment, args)
    }

    /// With so many thousandths of a CPU.
    fn load_within(
        quota: Option<u64>,
        text: &str,
        environment: &[(&str, &str)],
        args: &[&str],
    ) -> Result<Config, String> {
        let sources = Sources {
            file: Some((Path::new("ringmq.toml"), text)),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            cpus_available: vec![0, 1],
            cpu_quota: quota.map(|value| Bound {
                value,
                file: "cpu.max",
                group: "/sys/fs/cgroup/x".into(),
            }),
        };
        let typed = Typed::parse_from([&["ringmq"], args].concat());
        Config::load(&sources, &typed.flags).map_err(|error| error.to_string())
    }

    #[test]
    fn nested_keys_and_whole_tables_may_be_said_by_environment() {
        let hook = "RINGMQ_AUTHENTICATION__HTTP__AUTHENTICATE_URL";
        let timeout = "RINGMQ_AUTHENTICATION__HTTP__TIMEOUT_MS";
        let listener = "[{ url = \"mqtt://127.0.0.1:1\", limits = { inflight_max = 3 } }]";
        let environment = [
            (timeout, "5"),
            (hook, "http://a/"),
            ("RINGMQ_AUTHENTICATION__HTTP__HEADERS__AUTHORIZATION", "x"),
            ("RINGMQ_LISTENER", listener),
        ];
        let config = load("", &environment, &[]).unwrap();
        let http = config.authentication.http.unwrap();
        assert_eq!((http.timeout_ms, http.headers.len()), (5, 1));
        let own = config.settings.listeners[0].limits.as_deref().unwrap();
        assert_eq!(own.inflight_max, 3);
        // One key of a section that the file begins.
        let file = "[authentication.http]\nauthenticate_url = \"http://a/\"\ntimeout_ms = 7\n";
        let config = load(file, &environment[..1], &[]).unwrap();
        assert_eq!(config.authentication.http.unwrap().timeout_ms, 5);
        for (name, value) in [
            (timeout, "0"),
            ("RINGMQ_AUTHENTICATION__HTTP__NO_SUCH", "1"),
            ("RINGMQ_LISTENER", "[{ url = \"x\" }]"),
        ] {
            let error = load(file, &[(name, value)], &[]).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn the_name_of_every_file_is_made_whole() {
        let (keys, paths) = (include_str!("file.rs"), include_str!("paths.rs"));
        let lines = keys
            .lines()
            .filter(|line| line.contains("PathBuf>") || line.ends_with(": PathBuf,"));
        let names: Vec<_> = lines
            .filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next())
            .collect();
        assert!(names.len() >= 15, "{names:?}");
        for name in names {
            assert!(paths.contains(&format!(".{name}")), "{name}");
        }
        let text = "acl_file = \"a\"\naudit_file = \"/b\"\n[bans]\nfile = \"x/../c\"\n";
        let place = std::env::current_dir().unwrap();
        let config = load(text, &[], &[]).unwrap();
        assert_eq!(config.acl_file, Some(place.join("a")));
        assert_eq!(config.audit_file, Some("/b".into()));
        assert_eq!(config.bans.file, Some(place.join("x/../c")));
    }

    #[test]
    fn memory_has_to_be_enough_for_a_broker_without_clients() {
        let text = |bytes| format!("[limits]\nmemory_max_bytes = {bytes}\n");
        for (shards, least) in [
            ("1", 33_554_432),
            ("2", 42_729_472),
            ("16", 253_755_392_u64),
        ] {
            let shards = ["--shards", shards];
            assert!(load(&text(least), &[], &shards).is_ok());
            for less in [1, least - 1] {
                let error = load(&text(less), &[], &shards).unwrap_err();
                let start = format!("ringmq.toml:2: limits.memory_max_bytes: {less} is less than");
                assert!(error.starts_with(&start), "{error}");
                assert!(error.contains(&least.to_string()), "{error}");
            }
        }
        assert!(load(&text(0), &[], &["--shards", "128"]).is_ok());
    }

    #[test]
    fn nothing_said_means_loopback_and_a_shard_per_cpu() {
        let config = load("", &[], &[]).unwrap();
        let place = config.listeners[0].place.to_string();
        assert_eq!(place, "127.0.0.1:1883, [::1]:1883");
        assert_eq!(config.cpus.list, [0, 1]);
        assert!(config.cpus.pinned);
    }

    #[test]
    fn a_cpu_quota_bounds_the_shards_unless_they_are_said() {
        let load = |quota, text, args: &[&str]| {
            let config = load_within(Some(quota), text, &[], args).unwrap();
            (config.cpus.list, config.cpu_quota.map(|quota| quota.value))
        };
        for quota in [1, 500, 1_000] {
            assert_eq!(load(quota, "", &[]), (vec![0], Some(quota)));
        }
        // Rounded up; and no more than there are CPUs.
        for quota in [1_001, 2_000, 64_000, u64::MAX] {
            assert_eq!(load(quota, "", &[]), (vec![0, 1], None));
        }
        assert_eq!(load(500, "shards = 2", &[]), (vec![0, 1], None));
        assert_eq!(load(500, "cpus = \"0-1\"", &[]), (vec![0, 1], None));
        assert_eq!(load(500, "", &["--shards", "3"]), (vec![0, 1, 0], None));
        assert_eq!(load(500, "", &["--cpus", "1,0"]), (vec![1, 0], None));
    }

    #[test]
    fn the_command_line_goes_before_the_environment_before_the_file() {
        let file = "shards = 2\n[limits]\ninflight_max = 5\n";
        let environment = [("RINGMQ_SHARDS", "3"), ("RINGMQ_LIMITS__INFLIGHT_MAX", "7")];
        let config = load(file, &environment, &["--shards", "4", "--cpus", "1"]).unwrap();
        assert_eq!(config.cpus.list, [1; 4]);
        assert_eq!(config.settings.limits.inflight_max, 7);
        assert_eq!(
            load(file, &environment[..1], &[]).unwrap().cpus.list.len(),
            3
        );
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let wrong = |text: &str| load(text, &[], &[]).unwrap_err();
        let unknown = wrong("shards = 1\n\n[limits]\ninflght_max = 5\n");
        assert!(
            unknown.contains("ringmq.toml:4") && unknown.contains("inflght_max"),
            "{unknown}"
        );
        let kind = wrong("\nshards = \"two\"\n");
        assert!(
            kind.contains("ringmq.toml:2") && kind.contains("shards"),
            "{kind}"
        );
        let value = wrong("[limits]\n# smallest\nmax_packet_bytes = 1\n");
        assert!(
            value.contains("ringmq.toml:3") && value.contains("max_packet_bytes"),
            "{value}"
        );
        for bits in [0, 129] {
            let prefix = wrong(&format!("[bans]\nipv6_prefix_bits = {bits}\n"));
            assert!(
                prefix.contains("ringmq.toml:2") && prefix.contains("ipv6_prefix_bits"),
                "{prefix}"
            );
        }
        let syntax = wrong("shards = \n");
        assert!(syntax.contains("ringmq.toml:1"), "{syntax}");
        let section = wrong("[limit]\n");
        assert!(
            section.contains("ringmq.toml:1") && section.contains("limit"),
            "{section}"
        );
    }

    #[test]
    fn what_kubernetes_says_of_services_is_no_key() {
        let links = [
            ("RINGMQ_SERVICE_HOST", "10.0.0.1"),
            ("RINGMQ_SERVICE_PORT", "8883"),
            ("RINGMQ_SERVICE_PORT_MQTTS", "8883"),
            ("RINGMQ_PORT", "tcp://10.0.0.1:8883"),
            ("RINGMQ_PORT_8883_TCP", "tcp://10.0.0.1:8883"),
            ("RINGMQ_PORT_8883_TCP_PROTO", "tcp"),
            ("RINGMQ_PORT_8883_TCP_PORT", "8883"),
            ("RINGMQ_PORT_8883_TCP_ADDR", "10.0.0.1"),
            ("RINGMQ_METRICS_SERVICE_HOST", "10.0.0.2"),
            ("RINGMQ_METRICS_PORT", "tcp://10.0.0.2:14883"),
        ];
        assert!(load("", &links, &[]).is_ok());
        let error = load("", &[("RINGMQ_PORT", "1883")], &[]).unwrap_err();
        assert!(error.contains("no key port"), "{error}");
    }

    /// One that is disconnected for a full queue takes even less.
    #[test]
    fn a_bridge_does_not_inherit_that_a_full_queue_disconnects() {
        let bridge = "[[bridge]]\nname = \"a\"\naddresses = [\"mqtt://b:1\"]\ntopics = []\n";
        for (said, full) in [
            ("disconnect", Some(QueueFull::DropNewest)),
            ("drop_oldest", None),
        ] {
            let text = format!("[session]\nqueue_full = {said:?}\n{bridge}");
            let config = load(&text, &[], &[]).unwrap();
            assert_eq!(config.bridges[0].queue.full, full);
        }
    }

    #[test]
    fn a_variable_that_goes_before_the_file_is_told_of() {
        let file = "shards = 2\n[storage]\ndirectory = \"/a\"\n";
        let environment = [
            ("RINGMQ_STORAGE__DIRECTORY", "/b"),
            ("RINGMQ_SHARDS", "2"),
            ("RINGMQ_STORAGE__LEVEL", "os"),
        ];
        let config = load(file, &environment, &[]).unwrap();
        let warned = &config.warnings;
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(warned[0].contains("RINGMQ_STORAGE__DIRECTORY goes before storage.directory of"));
    }

    #[test]
    fn environment_errors_name_the_variable() {
        let wrong = |name: &str, value: &str| load("", &[(name, value)], &[]).unwrap_err();
        for (name, value) in [
            ("RINGMQ_LIMITS__INFLIGHT_MAX", "many"),
            ("RINGMQ_LIMITS__INFLIGHT_MAX", "0"),
            ("RINGMQ_LIMITS__NO_SUCH", "1"),
            ("RINGMQ_NO_SUCH", "1"),
        ] {
            let text = wrong(name, value);
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn environment_lists_may_be_plain() {
        let environment = [("RINGMQ_LISTEN", "mqtt://127.0.0.1:1,mqtt://127.0.0.1:2")];
        assert_eq!(load("", &environment, &[]).unwrap().listeners.len(), 2);
        assert_eq!(
            load("", &[("RINGMQ_CPUS", "1")], &[]).unwrap().cpus.list,
            [1]
        );
    }

    #[test]
    fn other_machines_are_let_in_only_on_demand() {
        let listen = ["--listen", "mqtt://0.0.0.0:0"];
        let refused = load("", &[], &listen).unwrap_err();
        assert!(refused.contains("allow_anonymous = true"), "{refused}");
        assert!(load("allow_anonymous = true", &[], &listen).is_ok());
        let refused = load("listen = [\"mqtt://[::]:0\"]", &[], &[]).unwrap_err();
        assert!(refused.contains("ringmq.toml:1"), "{refused}");
    }

    #[test]
    fn listeners_that_are_in_each_others_way_are_refused_by_name() {
        for (text, args, wanted) in [
            (
                "",
                &[
                    "--listen",
                    "mqtt://127.0.0.1:1",
                    "--listen",
                    "ws://127.0.0.1:1",
                ][..],
                &["mqtt://127.0.0.1:1", "ws://127.0.0.1:1"][..],
            ),
            (
                "[[listener]]\nurl = \"unix:///a\"\n[[listener]]\nurl = \"unix:///a\"\n",
                &[],
                &["unix:///a", "twice"],
            ),
            (
                "listen = [\"mqtt://127.0.0.1:1\"]\n[[listener]]\nurl = \"mqtt://127.0.0.1:2\"\n",
                &[],
                &["listen", "[[listener]]"],
            ),
            (
                "[[listener]]\nurl = \"unix:///tmp/a\"\n[[listener]]\nurl = \"unix:///tmp/../tmp/a\"\n",
                &[],
                &["unix:///tmp/a", "twice"],
            ),
            (
                "listen = [\"unix:///tmp/a\"]\n[admin]\nsocket = \"/tmp/./a\"\n",
                &[],
                &["admin.socket", "/tmp/", "a listener's"],
            ),
            (
                "listen = [\"mqtt://127.0.0.1:14883\"]\n[admin]\nlisten = \"http://127.0.0.1:14883\"\n",
                &[],
                &[
                    "ringmq.toml:3",
                    "admin.listen",
                    "127.0.0.1:14883 is a listener's",
                ],
            ),
            (
                "listen = [\"mqtt://[fe80::1]:1883\"]\n",
                &[],
                &["link-local", "%eth0"],
            ),
            ("listen = [\"ws://127.0.0.1:1/a b\"]\n", &[], &["%20"]),
            (
                "[mqtt]\nresponse_information = \"a/#\"\n",
                &[],
                &["ringmq.toml:2", "+ and #"],
            ),
        ] {
            let error = load(text, &[], args).unwrap_err();
            assert!(wanted.iter().all(|part| error.contains(part)), "{error}");
        }
        // A port for the admin listener that nobody has said is given up at the start.
        assert!(load("listen = [\"mqtt://127.0.0.1:14883\"]", &[], &[]).is_ok());
    }

    #[test]
    fn a_listener_by_which_nobody_could_come_in_is_refused() {
        let certificate = "[authentication]\ncertificate = \"common_name\"\n";
        let with = |listener: &str, more: &str| {
            format!("{more}{certificate}[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n{listener}\n")
        };
        let refused = |text: &str, wanted: &str| {
            let error = load(text, &[], &[]).unwrap_err();
            assert!(
                error.contains("nobody could connect") && error.contains(wanted),
                "{error}"
            );
        };
        refused(&with("", ""), "tls.client_ca");
        let users = "password_file = \"/u\"\n";
        refused(
            &with("methods = [\"certificate\"]", users),
            "listener.methods",
        );
        let listener = "[[listener]]\nurl = \"mqtt://[::ffff:127.0.0.1]:0\"\n";
        let scram = format!("{users}[authentication]\nscram = true\n{listener}");
        for (text, wanted) in [
            (with("", users), &["certificate", "tls.client_ca"][..]),
            (
                format!("{scram}protocols = [\"3.1.1\"]\n"),
                &["method scram", "none serves MQTT 5.0"],
            ),
            (
                format!("{scram}methods = [\"scram\"]\n"),
                &["method password_file", "listener.methods"],
            ),
        ] {
            let warned = load(&text, &[], &[]).unwrap().warnings;
            let mut unused = warned
                .iter()
                .filter(|text| text.contains("used by no listener"));
            let told = unused.next().expect("a warning");
            assert!(wanted.iter().all(|part| told.contains(part)), "{warned:?}");
            assert_eq!(unused.next(), None);
            assert_eq!(warned.len(), 1, "it is this machine's: {warned:?}");
        }
        let scram = "password_file = \"/u\"\n[authentication]\nscram = true\n[[listener]]\n\
                     url = \"mqtt://127.0.0.1:0\"\nmethods = [\"scram\"]\nprotocols = [\"3.1.1\"]\n";
        refused(scram, "MQTT 5.0");
        assert!(load(&with("allow_anonymous = true", ""), &[], &[]).is_ok());
        let unasked = format!(
            "{users}[authentication]\nmethods = [\"jwt\"]\n\
                               [authentication.jwt]\njwks_file = \"/k\"\n"
        );
        let error = load(&unasked, &[], &[]).unwrap_err();
        assert!(
            error.contains("password_file is configured, but"),
            "{error}"
        );
    }

    #[test]
    fn networks_of_ipv4_in_ipv6_are_what_they_are() {
        let text = "[[listener]]\nurl = \"ws://127.0.0.1:0\"\nforwarded_from = [\"::ffff:127.0.0.0/104\"]\n";
        let config = load(text, &[], &[]).unwrap();
        let here = std::net::IpAddr::from([127, 0, 0, 1]);
        assert!(config.listeners[0].proxies.forwarded_from[0].contains(&here));
    }

    #[test]
    fn a_network_sets_one_header_and_methods_of_a_listener_exist() {
        let wrong = |text: &str| {
            let text = format!("[[listener]]\nurl = \"ws://127.0.0.1:0\"\n{text}\n");
            load(&text, &[], &[]).unwrap_err()
        };
        let both = "forwarded_from = [\"10.0.0.0/8\"]\nreal_ip_from = [\"10.1.0.0/16\"]";
        let error = wrong(both);
        assert!(
            error.contains("10.1.0.0/16") && error.contains("forwarded_from"),
            "{error}"
        );
        let unix = "[[listener]]\nurl = \"unix:///s\"\nproxy_protocol_from =";
        let error = load(&format!("{unix} [\"10.0.0.0/8\"]\n"), &[], &[]).unwrap_err();
        assert!(
            error.contains("proxy_protocol_from") && error.contains("127.0.0.1"),
            "{error}"
        );
        assert!(load(&format!("{unix} [\"127.0.0.0/8\"]\n"), &[], &[]).is_ok());
        let error = wrong("methods = [\"scram\"]");
        assert!(
            error.contains("ringmq.toml:3") && error.contains("scram"),
            "{error}"
        );
    }

    /// Every key of the configuration that is a number, by its section.
    fn numbers() -> Vec<(&'static str, &'static str)> {
        const SECTIONS: [(&str, &str); 14] = [
            (
                "FileBridge",
                "[[bridge]]\nname = \"b\"\naddresses = [\"mqtt://a\"]\ntopics = []",
            ),
            (
                "FileTopicRule",
                "[[bridge]]\nname = \"b\"\naddresses = [\"mqtt://a\"]\n[[bridge.topics]]\nfilter = \"#\"",
            ),
            ("FileConfig", ""),
            ("FileAuthentication", "[authentication]"),
            ("FileJwt", "[authentication.jwt]"),
            (
                "FileHttp",
                "[authentication.http]\nauthenticate_url = \"http://a/\"",
            ),
            ("FileBans", "[bans]"),
            ("FileListener", "[[listener]]\nurl = \"unix:///a\""),
            (
                "FileClientLimits",
                "[[listener]]\nurl = \"unix:///a\"\n[listener.limits]",
            ),
            ("FileSession", "[session]"),
            ("FileMqtt", "[mqtt]"),
            ("FileWatchdog", "[watchdog]"),
            ("FileStorage", "[storage]"),
            ("FileShutdown", "[shutdown]"),
        ];
        const KINDS: [&str; 5] = ["u8", "u16", "u32", "u64", "usize"];
        let (mut section, mut found) = (None, Vec::new());
        for line in include_str!("file.rs").lines() {
            if line == "file_limits! {" {
                section = Some("[limits]");
            } else if let Some(rest) = line.strip_prefix("pub(super) struct ") {
                let name = rest.split(' ').next().unwrap();
                let known = SECTIONS.iter().find(|(known, _)| *known == name);
                section = known.map(|(_, header)| *header);
            } else if line == "}" {
                section = None;
            } else if let (Some(section), Some((name, kind))) = (section, line.split_once(": ")) {
                let kind = kind.trim_end_matches(',');
                let kind = kind
                    .strip_prefix("Option<")
                    .map_or(kind, |k| k.trim_end_matches('>'));
                if KINDS.contains(&kind) {
                    found.push((section, name.trim().trim_start_matches("pub ")));
                }
            }
        }
        found
    }

    #[test]
    fn every_number_has_bounds() {
        let numbers = numbers();
        assert!(numbers.len() > 60, "{numbers:?}");
        for (section, name) in numbers {
            let text = format!("{section}\n{name} = {}\n", i64::MAX);
            let error = load(&text, &[], &[]).expect_err(name);
            assert!(error.contains(name), "{section} {name}: {error}");
        }
        for text in [
            "[bans]\nseconds = 0\n",
            "[authentication.http]\nauthenticate_url = \"http://a/\"\ntimeout_ms = 0\n",
            "[[listener]]\nurl = \"unix:///a\"\nlimits.inflight_max = 0\n",
        ] {
            let line = text.lines().count();
            let error = load(text, &[], &[]).expect_err(text);
            assert!(
                error.starts_with(&format!("ringmq.toml:{line}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn impossible_lists_of_cpus_and_urls_are_refused() {
        for args in [
            ["--cpus", "7"],
            ["--cpus", "1-0"],
            ["--cpus", "x"],
            ["--shards", "0"],
            ["--shards", "129"],
            ["--listen", "tcp://127.0.0.1:1"],
            ["--listen", "mqtt://127.0.0.1:99999"],
        ] {
            let text = load("", &[], &args).unwrap_err();
            assert!(text.contains(args[0]), "{text}");
        }
        for (url, place) in [
            ("mqtt://127.0.0.1", "127.0.0.1:1883"),
            ("mqtt://[::1]:7/", "[::1]:7"),
            ("ws://127.0.0.1/a/b", "127.0.0.1:8083"),
            ("unix:///run/ringmq.sock", "/run/ringmq.sock"),
        ] {
            let config = load("", &[], &["--listen", url]).unwrap();
            assert_eq!(config.listeners[0].place.to_string(), place);
        }
    }
}
