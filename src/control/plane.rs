//! The control plane's loop: signals, memory, files that change, bans.
//!
//! It runs on the main thread while the shards work; what it finds goes to them as orders.

use crate::control::census::{Census, Counts};
use crate::control::config::BansConfig;
use crate::control::log;
use crate::control::memory::MemoryWatch;
use crate::control::reload::{self, Files, Reloaded};
use crate::control::rollout::Rollout;
use crate::control::service;
use crate::control::watch::bans::{Bans, Who};
use crate::control::watch::pace::Pace;
use crate::control::watch::{Record, Records};
use crate::control::watchdog::{Health, Watchdog};
use crate::shard::boot::{BootError, Shards};
use crate::shard::orders::Event;
use crossbeam_channel::{Receiver, RecvError, select};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::any::Any;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// How often the process's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);
/// How often the shards are looked at, and a service manager is told that all is well.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(1);
/// How often files that may change are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is said again what has ended or will soon.
const TERMS_INTERVAL: Duration = Duration::from_secs(86_400);
/// How often all bans are put together for the shards: with very many that takes milliseconds.
const BANS_INTERVAL: Duration = Duration::from_millis(100);

/// The counter of what finds no room on the way from shards to the audit log.
const NOTES_LEFT_OUT: &str = "notes_left_out";

/// What shards were given to share. It is freed here, when none of them has it any more: 100,000 small parts
/// would take a shard milliseconds.
#[derive(Default)]
struct Handed(Vec<Arc<dyn Any + Send + Sync>>);

impl Handed {
    fn keep<T: Send + Sync + 'static>(&mut self, given: &Arc<T>) {
        self.0.push(Arc::<T>::clone(given));
    }

    fn free(&mut self) {
        self.0.retain(|given| Arc::strong_count(given) > 1);
    }
}

/// Where the control plane hears of what happens outside the shards.
pub struct Ears {
    /// Signals to the process.
    pub signals: Receiver<i32>,
    /// Clients that fail again and again.
    pub misbehaving: Receiver<Who>,
}

enum Heard {
    Nothing,
    Signal(i32),
    Misbehaves(Who),
    Shard(Event),
}

/// What the control plane looks after while the shards work.
pub struct ControlPlane<'a> {
    shards: &'a Shards,
    ears: Ears,
    memory: MemoryWatch,
    census: Census,
    rules: Rollout,
    certificates: Rollout,
    files: Files,
    /// Who keeps account is told what happens here.
    records: Records,
    bans: Bans,
    bans_pace: Pace,
    banned: Rollout,
    /// The file of bans was read anew, and no shard was told yet.
    bans_are_news: bool,
    handed: Handed,
    bans_config: BansConfig,
    /// When files were last looked at.
    looked_at: Instant,
    /// When it was last said what has ended or will soon.
    terms_told_at: Instant,
    watchdog: Watchdog,
    /// When the shards were last looked at.
    watched_at: Instant,
}

impl<'a> ControlPlane<'a> {
    /// Ready to serve. `bans` are in force already.
    #[must_use]
    pub fn new(
        (shards, ears): (&'a Shards, Ears),
        files: Files,
        bans: Bans,
        records: Records,
        memory: MemoryWatch,
        bans_config: &BansConfig,
        silence_seconds_max: u32,
    ) -> Self {
        ControlPlane {
            shards,
            ears,
            memory,
            census: Census::new(shards.pulses().len()),
            rules: Rollout::new(shards.pulses().len()),
            certificates: Rollout::new(shards.pulses().len()),
            files,
            records,
            bans,
            bans_pace: Pace::new(BANS_INTERVAL),
            banned: Rollout::new(shards.pulses().len()),
            bans_are_news: false,
            handed: Handed::default(),
            bans_config: bans_config.clone(),
            looked_at: Instant::now(),
            terms_told_at: Instant::now(),
            watchdog: Watchdog::new(shards.pulses().len(), silence_seconds_max),
            watched_at: Instant::now(),
        }
    }

    /// Handles events until a signal says stop.
    ///
    /// # Errors
    /// A shard cannot go on.
    pub fn serve(mut self) -> Result<(), Box<dyn Error>> {
        loop {
            if self.bans.expire(Instant::now()) {
                self.bans_pace.ask();
            }
            if self.bans_pace.is_due(Instant::now()) {
                self.enforce_bans();
            }
            if let Some(counts) = self.census.finish(Instant::now()) {
                self.tell_statistics(&counts);
                if self.census.take_asked_again() {
                    self.ask_statistics();
                }
            }
            let heard = self.listen();
            self.handed.free();
            self.memory.look(self.shards);
            self.shards.flush_orders();
            self.watch()?;
            if self.looked_at.elapsed() >= FILES_INTERVAL {
                self.looked_at = Instant::now();
                self.reload(false);
                if self.terms_told_at.elapsed() >= TERMS_INTERVAL {
                    self.tell_terms();
                }
            }
            match heard? {
                Heard::Nothing => {}
                Heard::Signal(SIGUSR1) => self.ask_statistics(),
                Heard::Signal(SIGHUP) => self.reload(true),
                Heard::Signal(SIGTERM | SIGINT) => return Ok(()),
                Heard::Signal(other) => info!("signal {other} means nothing to the broker"),
                Heard::Misbehaves(who) => self.ban(who),
                Heard::Shard(Event::Failed(shard, error)) => {
                    return Err(format!("shard {shard} cannot go on: {error}").into());
                }
                Heard::Shard(Event::Vanished(shard)) => {
                    return Err(BootError::Vanished(shard).into());
                }
                Heard::Shard(Event::StorageFailed(why)) => {
                    return Err(BootError::Storage(why).into());
                }
                Heard::Shard(Event::StorageFull(why)) => {
                    warn!(
                        "the store is full, so what has to be kept is refused (0x97), and clients of \
                         3.x that publish it are not read, until queues are shorter: {why}"
                    );
                }
                Heard::Shard(Event::StorageHasRoom) => {
                    info!("there is room again to keep messages");
                }
                Heard::Shard(Event::Statistics(shard, number, counts)) => {
                    self.census.take(shard, number, counts);
                }
                Heard::Shard(Event::RulesHold(shard, number)) => {
                    if self.rules.confirm(shard, number) {
                        self.tell_reloaded(reload::ACCESS);
                    }
                }
                Heard::Shard(Event::CertificatesHold(shard, number)) => {
                    if self.certificates.confirm(shard, number) {
                        self.tell_reloaded("certificates are");
                    }
                }
                Heard::Shard(Event::BansHold(shard, number)) => {
                    if self.banned.confirm(shard, number) {
                        self.tell_reloaded(reload::BANS);
                    }
                }
                Heard::Shard(_) => {}
            }
        }
    }

    /// The next thing that happens, or nothing for a while.
    fn listen(&mut self) -> Result<Heard, RecvError> {
        let now = Instant::now();
        let until_bans = [self.bans_pace.wait(now), self.bans.wait(now)];
        let wait = until_bans
            .into_iter()
            .flatten()
            .fold(MEMORY_INTERVAL, Duration::min);
        select! {
            recv(self.shards.events) -> event => event.map(Heard::Shard),
            recv(self.ears.signals) -> signal => signal.map(Heard::Signal),
            recv(self.ears.misbehaving) -> who => match who {
                Ok(who) => Ok(Heard::Misbehaves(who)),
                // Nobody watches: then nobody is banned for failures.
                Err(_) => {
                    self.ears.misbehaving = crossbeam_channel::never();
                    Ok(Heard::Nothing)
                }
            },
            default(wait) => Ok(Heard::Nothing),
        }
    }

    /// Looks whether all shards turn, and tells a service manager that watches over the process.
    ///
    /// # Errors
    /// One is dead: better no process than half a one.
    fn watch(&mut self) -> Result<(), Box<dyn Error>> {
        if self.watched_at.elapsed() < WATCHDOG_INTERVAL {
            return Ok(());
        }
        self.watched_at = Instant::now();
        match self.watchdog.look(self.shards.pulses()) {
            Health::Well => {
                // Nobody may be listening.
                service::tell(NotifyState::Watchdog);
            }
            Health::Silent => {}
            Health::Dead(shard) => {
                return Err(format!(
                    "shard {shard} has not turned for watchdog.silence_seconds_max; the process ends, \
                     so that what starts it again serves all clients"
                )
                .into());
            }
        }
        Ok(())
    }

    fn ask_statistics(&mut self) {
        if let Some(number) = self.census.ask(Instant::now()) {
            self.shards.ask_statistics(number);
        }
    }

    fn tell_statistics(&self, of_shards: &Counts) {
        let of_memory = self.memory.gauges();
        let mut pairs: Vec<_> = of_memory
            .map(|(name, value)| (name, value.to_string()))
            .into();
        if let Some(seconds) = self.files.certificate_expires_s() {
            pairs.push(("certificate_expires_s", seconds.to_string()));
        }
        let (left_out, failed) = log::lines_lost();
        pairs.push(("log_lines_left_out", left_out.to_string()));
        pairs.push(("log_lines_failed", failed.to_string()));
        let on_the_way = self.records.notes_left_out.load(Ordering::Relaxed);
        pairs.extend(of_shards.iter().map(|(name, value)| {
            let more = if *name == NOTES_LEFT_OUT {
                on_the_way
            } else {
                0
            };
            (*name, (value + more).to_string())
        }));
        let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}"));
        let pairs: Vec<_> = pairs.collect();
        info!(target: log::ANSWER, "counters {}", pairs.join(" "));
    }

    /// Bans who fails again and again.
    fn ban(&mut self, who: Who) {
        let (now, duration) = (Instant::now(), self.bans_config.duration);
        // Failures that were under way when it was banned make it last longer, but are no news.
        if !self.bans.is_in_force(&who, now) {
            let why = self.bans_config.why(&who);
            let seconds = duration.as_secs();
            warn!("{who} is banned for {seconds} s (bans.seconds): {why}");
            self.record("banned", &format!("{who}: {why}"));
        }
        self.bans.add(who, now + duration);
        self.bans_pace.ask();
    }

    fn enforce_bans(&mut self) {
        let names = self.bans.enforce_names();
        self.handed.keep(&names);
        let number = self.banned.begin(std::mem::take(&mut self.bans_are_news));
        self.shards
            .set_bans(number, names, Arc::new(self.bans.networks()));
    }

    /// Has something recorded; what finds no room is left out.
    fn record(&self, kind: &'static str, text: &str) {
        let record = Record::Happened(kind, text.to_owned());
        let _ = self.records.to.try_send(record);
    }

    /// Reads files anew: those that changed, or all if somebody asks.
    fn reload(&mut self, is_asked: bool) {
        let done = self.files.reload(is_asked);
        if is_asked {
            let _ = self.records.to.try_send(Record::Reopen);
            log::reopen();
            for line in self.files.on_hangup(done.len()) {
                info!("{line}");
            }
        }
        for reloaded in done {
            match reloaded {
                Ok(reloaded) => {
                    if let Some(what) = self.put_in_force(reloaded) {
                        self.tell_reloaded(what);
                    }
                }
                Err(error) => {
                    error!("not reloaded, what was before stays in force: {error}");
                    self.record("reload_failed", &error.to_string());
                }
            }
        }
    }

    /// Says which certificates and revocation lists have ended or will soon.
    fn tell_terms(&mut self) {
        self.terms_told_at = Instant::now();
        for warning in self.files.term_warnings() {
            warn!("{warning}");
        }
    }

    fn tell_reloaded(&self, what: &str) {
        info!("{what} reloaded");
        self.record("reloaded", &format!("{what} reloaded"));
    }

    /// What to tell at once, if it is in force by then.
    fn put_in_force(&mut self, reloaded: Reloaded) -> Option<&'static str> {
        Some(match reloaded {
            Reloaded::Certificates(configs) => {
                self.shards.set_tls(self.certificates.begin(true), configs);
                self.tell_terms();
                return None;
            }
            Reloaded::Users => "the password file is",
            Reloaded::Keys => "the keys of tokens are",
            Reloaded::Asked => return None,
            Reloaded::Access(acl) => {
                self.handed.keep(&acl);
                self.shards.set_acl(self.rules.begin(true), acl);
                return None;
            }
            Reloaded::Bans(bans) => {
                self.bans.set_permanent(bans);
                self.bans_pace.ask();
                self.bans_are_news = true;
                return None;
            }
            Reloaded::Unchanged(what) => what,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_out_is_freed_when_nobody_has_it_any_more() {
        let mut handed = Handed::default();
        let given = Arc::new(7);
        let (weak, of_shard) = (Arc::downgrade(&given), Arc::clone(&given));
        handed.keep(&given);
        drop(given);
        handed.free();
        drop(of_shard);
        assert!(
            weak.upgrade().is_some(),
            "who gives it back does not free it"
        );
        handed.free();
        assert!(weak.upgrade().is_none() && handed.0.is_empty());
    }
}
