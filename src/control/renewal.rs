//! A reload of everything, step by step: all that can be wrong comes before the first change.
//!
//! ```text
//!   configuration ─► who listens where ─► new sockets ─► files ─┬─► nothing is changed
//!                                                               └─► files, listeners, settings in force
//! ```

use crate::control::bridges::Prepared;
use crate::control::config::{Change, Effect, Renewed};
use crate::control::listening::Plan;
use crate::control::log;
use crate::control::overview::ReloadOutcome;
use crate::control::plane::ControlPlane;
use crate::control::reload::WantedTls;
use crate::control::sys::SysTree;
use crate::control::watch::Record;
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
        let renewed = self.running.read().map_err(|error| error.to_string());
        let ready = renewed.and_then(|renewed| {
            let plan = self.plan(&renewed)?;
            let bridges = Prepared::load(&renewed.config)?;
            let ready = self.bridges.make_ready(&bridges);
            ready.map_err(|error| format!("bridge: no thread that calls: {error}"))?;
            let bound = self.bind(&renewed, &plan)?;
            Ok((renewed, plan, bound, bridges))
        });
        let (renewed, plan, bound, bridges) = match ready {
            Ok(ready) => ready,
            Err(error) => return self.refuse(vec![error]),
        };
        let wanted = WantedTls {
            listeners: self
                .telling
                .listening
                .tls_files(&plan, &renewed.config.listeners),
            admin: renewed.config.admin.tls.as_ref(),
        };
        let done = self.files.reload_all(&wanted);
        let (done, wrong): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
        if !wrong.is_empty() {
            remove(bound.into_values().filter_map(|listener| listener.file));
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
        let altered = renewed.changes.clone();
        let altered = altered.iter().filter_map(Change::bridge).collect();
        self.take_config(renewed, (&plan, bound), &mut outcome);
        self.bridges.renew(bridges, &altered, self.shards);
        outcome
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
                    return Err(error.to_string());
                }
            }
        }
        Ok(bound)
    }

    /// Goes by a configuration from now on, and has the shards do so.
    fn take_config(
        &mut self,
        renewed: Renewed,
        (plan, bound): (&Plan, Bound),
        outcome: &mut ReloadOutcome,
    ) {
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
        if !outcome.changed.is_empty() || plan.is_change() {
            self.running.take(renewed.config);
            self.follow_config(&renewed.changes, plan, bound);
        }
    }

    fn follow_config(&mut self, changes: &[Change], plan: &Plan, mut bound: Bound) {
        let config = self.running.config();
        if changes.iter().any(|change| change.is_of("log")) {
            log::set_level(config.log.level);
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
