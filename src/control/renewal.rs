//! A reload of everything, step by step: all that can be wrong comes before the first change.
//!
//! ```text
//!   configuration ─► who listens where ─► new sockets, logs, methods ─► files ─┬─► nothing is changed
//!                                                                              └─► all of it in force
//! ```

use crate::control::admin::desk;
use crate::control::bridges;
use crate::control::config::{Change, Config, Effect, Renewed};
use crate::control::judges;
use crate::control::listening::Plan;
use crate::control::log::{self, NewPlace};
use crate::control::overview::ReloadOutcome;
use crate::control::plane::ControlPlane;
use crate::control::reload::Wanted;
use crate::control::sys::SysTree;
use crate::control::watch::Record;
use crate::control::watch::audit::AuditLog;
use crate::shard::listener::{Listener, ListenerSetup, SocketBounds, SocketFile};
use crate::shard::opening::{Opened, Opening};
use std::collections::BTreeMap;
use std::iter;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;
use tracing::{debug, info, warn};

/// Listeners that are bound and accept nobody yet, by number.
type Bound = BTreeMap<u16, Listener>;

/// Sockets of a listener, by shard.
type Sockets = Vec<Vec<OwnedFd>>;

/// All that could have gone wrong, made already; nobody comes in there, and nothing goes there.
struct Ready {
    renewed: Renewed,
    plan: Plan,
    bound: Bound,
    bridges: bridges::Prepared,
    /// Where operators are to be answered too.
    admin: Vec<desk::Bound>,
    /// Another audit log, or none, if that has changed.
    audit: Option<Option<AuditLog>>,
    /// Another place for the log.
    log: Option<NewPlace>,
    /// Other methods.
    methods: Option<judges::Prepared>,
}

/// Whether any of these keys, or of these sections, has another value.
fn is_other(changes: &[Change], keys: &[&str]) -> bool {
    let mut changes = changes.iter();
    changes.any(|change| keys.iter().any(|key| change.is_within(key)))
}

/// Keys that say who judges who clients are.
const OF_METHODS: [&str; 2] = ["authentication", "password_file"];

fn open_audit(config: &Config) -> Result<Option<AuditLog>, String> {
    let opened = config.audit_file.clone().map(AuditLog::open).transpose();
    opened.map_err(|error| format!("audit_file: {error}"))
}

/// Removes files of sockets that nobody listens at.
fn remove(files: impl IntoIterator<Item = SocketFile>) {
    for file in files {
        if let Err(error) = file.remove() {
            debug!("a socket's file stays: {error}");
        }
    }
}

impl ControlPlane<'_> {
    /// Reads the configuration and all its files anew because somebody asks: all or nothing.
    pub(super) fn renew(&mut self) -> ReloadOutcome {
        let _ = self.records.to.try_send(Record::Reopen);
        log::reopen();
        let ready = match self.make_ready() {
            Ok(ready) => ready,
            Err(error) => return self.refuse(vec![error]),
        };
        let config = &ready.renewed.config;
        let listening = &self.telling.listening;
        let wanted = Wanted {
            listeners: listening.tls_files(&ready.plan, &config.listeners),
            config,
            has_other_keys: is_other(&ready.renewed.changes, &["authentication.jwt"]),
        };
        let done = self.files.reload_all(&wanted);
        let (done, wrong): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
        if !wrong.is_empty() {
            remove(
                ready
                    .bound
                    .into_values()
                    .filter_map(|listener| listener.file),
            );
            desk::give_up(&ready.admin);
            let wrong = wrong.into_iter().filter_map(Result::err);
            return self.refuse(wrong.map(|error| error.to_string()).collect());
        }
        for line in self.files.on_hangup(done.len()) {
            info!("{line}");
        }
        let mut outcome = ReloadOutcome::default();
        for reloaded in done.into_iter().flatten() {
            outcome.reloaded.push(self.take_file(reloaded).to_owned());
        }
        self.take_all(ready, &mut outcome);
        outcome
    }

    /// Reads the configuration, and makes all that may fail.
    fn make_ready(&mut self) -> Result<Ready, String> {
        let renewed = self.running.read().map_err(|error| error.to_string())?;
        let (config, changes) = (&renewed.config, &renewed.changes);
        if let Some(memory) = self.running.other_memory(config) {
            let checked = memory.check(config.least_memory());
            checked.map_err(|error| error.to_string())?;
        }
        let plan = self.plan(&renewed)?;
        let bridges = bridges::Prepared::load(config)?;
        let ready = self.bridges.make_ready(&bridges);
        ready.map_err(|error| format!("bridge: no thread that calls: {error}"))?;
        let methods = is_other(changes, &OF_METHODS).then(|| judges::Prepared::new(config));
        let methods = methods.transpose()?;
        let audit = is_other(changes, &["audit_file"]).then(|| open_audit(config));
        let audit = audit.transpose()?;
        let log = is_other(changes, &["log_file"]).then(|| NewPlace::open(&config.log));
        let log = log.transpose().map_err(|error| error.to_string())?;
        let admin = self.desk.prepare(&config.admin)?;
        let bound = match self.bind(&renewed, &plan) {
            Ok(bound) => bound,
            Err(error) => {
                desk::give_up(&admin);
                return Err(error);
            }
        };
        Ok(Ready {
            plan,
            bound,
            bridges,
            admin,
            audit,
            log,
            methods,
            renewed,
        })
    }

    /// Goes by all of it from now on.
    fn take_all(&mut self, ready: Ready, outcome: &mut ReloadOutcome) {
        if let Some(audit) = ready.audit {
            self.records.set_audit(audit);
        }
        let changes = ready.renewed.changes.clone();
        let altered = changes.iter().filter_map(Change::bridge).collect();
        let is_changed = self.take_config(ready.renewed, (&ready.plan, ready.bound), outcome);
        let config = self.running.config();
        if is_changed {
            if is_other(&changes, &["log_format", "log_file"]) {
                log::follow(&config.log, ready.log);
            }
            if is_other(&changes, &["bans"]) {
                self.records.set_flapping(&config.bans);
            }
            self.judges.follow(config, &self.files, ready.methods);
        }
        if is_changed || !ready.admin.is_empty() {
            self.desk
                .follow(&config.admin, self.files.admin(), ready.admin);
        }
        self.bridges.renew(ready.bridges, &altered, self.shards);
    }

    /// Which listeners stay, come and go.
    fn plan(&self, renewed: &Renewed) -> Result<Plan, String> {
        let (old, new) = (&self.running.config().settings, &renewed.config.settings);
        if new.waits_for_os() && !old.waits_for_os() {
            let text = "listener.durability: the first one that is \"os\" needs a restart";
            return Err(text.to_owned());
        }
        let listening = &self.telling.listening;
        let connections = self.shards.connections_by_listener();
        let plan = listening.plan(&renewed.config.listeners, &connections)?;
        if plan.is_change() && self.drained_since.is_some() {
            return Err("the broker is being drained: no listener comes or goes".to_owned());
        }
        Ok(plan)
    }

    /// Sockets of those that come. Nobody comes in there yet.
    fn bind(&self, renewed: &Renewed, plan: &Plan) -> Result<Bound, String> {
        let config = &renewed.config;
        let (shards, bounds) = (
            self.shards.pulses().len(),
            SocketBounds::new(&config.settings.limits),
        );
        let mut bound = Bound::new();
        for ((number, is_new), listener) in plan.numbers.iter().zip(&config.listeners) {
            if !is_new {
                continue;
            }
            match Listener::bind(&listener.place, shards, bounds) {
                Ok(opened) => drop(bound.insert(*number, opened)),
                Err(error) => {
                    remove(bound.into_values().filter_map(|listener| listener.file));
                    return Err(error.by_key(config.listeners_by.key()));
                }
            }
        }
        Ok(bound)
    }

    /// Goes by a configuration from now on, and has the shards do so; whether it says anything else.
    fn take_config(
        &mut self,
        renewed: Renewed,
        (plan, bound): (&Plan, Bound),
        outcome: &mut ReloadOutcome,
    ) -> bool {
        let of = |effect| {
            let changes = renewed.changes.iter();
            changes.filter(move |change| change.effect == effect)
        };
        for change in of(Effect::Restart) {
            warn!("needs a restart: {change}");
            outcome.needs_restart.push(change.to_string());
        }
        for change in of(Effect::Running) {
            info!("changed: {change}");
            self.record("config_changed", &change.to_string());
            outcome.changed.push(change.to_string());
        }
        // A host name may have got other addresses.
        let is_changed = !outcome.changed.is_empty() || plan.is_change();
        if is_changed {
            self.running.take(renewed.config);
            self.follow_config(&renewed.changes, plan, bound);
        }
        is_changed
    }

    fn follow_config(&mut self, changes: &[Change], plan: &Plan, mut bound: Bound) {
        let config = self.running.config();
        if changes.iter().any(|change| change.is_of("log")) {
            log::set_level(config.log.level);
        }
        if changes
            .iter()
            .any(|change| change.is_of("limits.memory_max_bytes"))
        {
            let memory = self.running.memory();
            info!("{memory}");
            memory
                .warning()
                .into_iter()
                .for_each(|text| warn!("{text}"));
            self.memory.set_max(memory.max_bytes);
        }
        self.watchdog.set_silence_max(config.silence_seconds_max);
        let now = Instant::now();
        match (config.sys_interval, &mut self.sys) {
            (Some(interval), Some(sys)) => sys.set_interval(interval, now),
            (Some(interval), none) => *none = Some(SysTree::new(interval, now)),
            (None, sys) => *sys = None,
        }
        let opened = |number: u16| {
            let listener: &Listener = bound.get(&number)?;
            Some((listener.place.clone(), listener.file.clone()))
        };
        let policies = config.settings.listeners.iter().cloned();
        let listeners = config.listeners.iter().cloned().zip(policies);
        let gone = self.telling.listening.follow(plan, listeners, opened);
        remove(gone);
        for (number, _) in plan.numbers.iter().filter(|(_, is_new)| *is_new) {
            self.closed.remove(number);
        }
        self.tell_listeners(plan);
        let names = self.telling.listening.names();
        let _ = self.records.to.try_send(Record::Listeners(names));
        let in_force = self.running.in_force(&self.telling.listening);
        self.telling.shown.replace(in_force);
        let mut settings = self.running.settings();
        settings.listeners = self.telling.listening.policies();
        let settings = Arc::new(settings);
        self.handed.keep(&settings);
        let sockets = bound
            .iter_mut()
            .map(|(number, listener)| (*number, std::mem::take(&mut listener.sockets)));
        let openings = self.openings(plan, sockets.collect());
        self.shards
            .set_settings(self.settings.begin(true), &settings, openings);
    }

    fn tell_listeners(&self, plan: &Plan) {
        let names = self.telling.listening.names();
        let name = |number: u16| names.get(usize::from(number)).map_or("", String::as_str);
        for number in &plan.removed {
            info!(
                "not listening on {} any more: its clients are sent away",
                name(*number)
            );
        }
        for (number, _) in plan.numbers.iter().filter(|(_, is_new)| *is_new) {
            info!("listening on {}", name(*number));
        }
    }

    /// What each shard is to know of listeners.
    fn openings(&self, plan: &Plan, sockets: Vec<(u16, Sockets)>) -> Vec<Opening> {
        let tls = self.files.tls();
        let tls = tls.iter().cloned().chain(iter::repeat(None));
        let configs = self.telling.listening.configs().zip(tls);
        let setups: Arc<[_]> = configs
            .map(|(config, tls)| ListenerSetup::new(config, tls))
            .collect();
        let closed: Arc<[u16]> = plan.removed.clone().into();
        let mut of_shards: Vec<Vec<Opened>> = Vec::new();
        of_shards.resize_with(self.shards.pulses().len(), Vec::new);
        for (number, sockets) in sockets {
            for (of_shard, sockets) in of_shards.iter_mut().zip(sockets) {
                of_shard.extend(sockets.into_iter().map(|socket| (number, socket)));
            }
        }
        let rate = self.running.config().drain_rate;
        let openings = of_shards.into_iter();
        openings
            .map(|sockets| Opening::new(Arc::clone(&setups), (Arc::clone(&closed), rate), sockets))
            .collect()
    }
}
