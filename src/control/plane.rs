//! The control plane's loop: signals, memory, files that change, bans.
//!
//! It runs on the main thread while the shards work; what it finds goes to them as orders.

use crate::control::admin::desk::Desk;
use crate::control::admin::kept::ShownConfig;
use crate::control::bridges::dialler::Called;
use crate::control::bridges::{self, Bridges};
use crate::control::census::{Census, Counts};
use crate::control::inquiries::Inquiries;
use crate::control::judges::Judges;
use crate::control::listening::Listening;
use crate::control::log;
use crate::control::memory::MemoryWatch;
use crate::control::overview::{
    Ask, Health, OfShard, Overview, ReloadOutcome, SILENCE_SECONDS_MAX, ShardHealth,
};
use crate::control::reload::{self, Files, Reloaded};
use crate::control::rollout::Rollout;
use crate::control::running::Running;
use crate::control::service;
use crate::control::sys::SysTree;
use crate::control::watch::bans::{Bans, Who};
use crate::control::watch::pace::Pace;
use crate::control::watch::{Record, Records};
use crate::control::watchdog::{self, Watchdog};
use crate::engine::keys::ShardId;
use crate::shard::boot::{BootError, Shards};
use crate::shard::listener::SocketFile;
use crate::shard::orders::{Announcements, Event, Reloadable};
use crossbeam_channel::{Receiver, RecvError, select};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::any::Any;
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// How often the process's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);
/// How often the shards are looked at, and a service manager is told that all is well.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(1);
/// How often files that may change are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(1);
/// How long a drain lasts at least: who asked for it, and who asks whether the broker is ready, hears of it.
const DRAINED_MIN: Duration = Duration::from_secs(1);
/// How often it is said again what has ended or will soon.
const TERMS_INTERVAL: Duration = Duration::from_secs(86_400);
/// How often all bans are put together for the shards: with very many that takes milliseconds.
const BANS_INTERVAL: Duration = Duration::from_millis(100);

/// The counter of what finds no room on the way from shards to the audit log.
const NOTES_LEFT_OUT: &str = "notes_left_out";

/// What shards were given to share. It is freed here, when none of them has it any more: 100,000 small parts
/// would take a shard milliseconds.
#[derive(Default)]
pub(super) struct Handed(Vec<Arc<dyn Any + Send + Sync>>);

impl Handed {
    pub(super) fn keep<T: Send + Sync + 'static>(&mut self, given: &Arc<T>) {
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
    /// Operators.
    pub asks: Receiver<Ask>,
}

/// What is told to operators besides numbers of shards.
pub struct Telling {
    /// Where the broker listens.
    pub listening: Listening,
    /// The configuration, as it is shown.
    pub shown: Arc<ShownConfig>,
}

/// How the broker is to stop.
pub struct Leaving {
    /// How long that may take.
    pub within: Duration,
    /// Files of sockets, which go with it.
    pub files: Vec<SocketFile>,
}

/// Who wants to have numbers of the shards.
enum Asker {
    /// SIGUSR1: they go to the log.
    Log,
    /// They are published.
    Sys,
    Operator(oneshot::Sender<Arc<Overview>>),
}

enum Heard {
    Nothing,
    Asked(Ask),
    Signal(i32),
    Misbehaves(Who),
    Called(Called),
    Shard(Event),
}

/// What the control plane looks after while the shards work.
pub struct ControlPlane<'a> {
    pub(super) shards: &'a Shards,
    ears: Ears,
    pub(super) memory: MemoryWatch,
    census: Census<Asker>,
    inquiries: Inquiries,
    pub(super) telling: Telling,
    pub(super) sys: Option<SysTree>,
    /// What was published last of how the broker is.
    sys_values: Announcements,
    pub(super) bridges: Bridges,
    started_at: Instant,
    pub(super) running: Running,
    pub(super) settings: Rollout,
    rules: Rollout,
    certificates: Rollout,
    pub(super) files: Files,
    /// Who keeps account is told what happens here.
    pub(super) records: Records,
    bans: Bans,
    bans_pace: Pace,
    banned: Rollout,
    /// The file of bans was read anew, and no shard was told yet.
    bans_are_news: bool,
    pub(super) judges: Judges,
    /// Where operators are answered.
    pub(super) desk: Desk,
    pub(super) handed: Handed,
    /// When files were last looked at.
    looked_at: Instant,
    /// When it was last said what has ended or will soon.
    terms_told_at: Instant,
    /// Listeners that are closed, by number.
    pub(super) closed: BTreeSet<u16>,
    /// Since when all are: it stops when nobody is there any more.
    pub(super) drained_since: Option<Instant>,
    pub(super) watchdog: Watchdog,
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
        (memory, telling): (MemoryWatch, Telling),
        (running, judges, desk): (Running, Judges, Desk),
        bridges: Bridges,
    ) -> Self {
        let config = running.config();
        ControlPlane {
            shards,
            ears,
            memory,
            census: Census::new(shards.pulses().len()),
            inquiries: Inquiries::default(),
            sys: config
                .sys_interval
                .map(|interval| SysTree::new(interval, Instant::now())),
            telling,
            sys_values: Announcements::new(),
            bridges,
            started_at: Instant::now(),
            settings: Rollout::new(shards.pulses().len()),
            rules: Rollout::new(shards.pulses().len()),
            certificates: Rollout::new(shards.pulses().len()),
            files,
            records,
            bans,
            bans_pace: Pace::new(BANS_INTERVAL),
            banned: Rollout::new(shards.pulses().len()),
            bans_are_news: false,
            judges,
            desk,
            handed: Handed::default(),
            looked_at: Instant::now(),
            terms_told_at: Instant::now(),
            closed: BTreeSet::new(),
            drained_since: None,
            watchdog: Watchdog::new(shards.pulses().len(), config.silence_seconds_max),
            watched_at: Instant::now(),
            running,
        }
    }

    /// Handles events until a signal says stop.
    ///
    /// # Errors
    /// A shard cannot go on.
    pub fn serve(mut self) -> Result<Leaving, Box<dyn Error>> {
        loop {
            self.do_what_is_due();
            if self.is_drained() {
                info!("drained: no client is connected any more");
                return Ok(self.leave());
            }
            let heard = self.listen();
            self.handed.free();
            self.memory.look(self.shards);
            self.shards.flush_orders();
            self.watch()?;
            if self.looked_at.elapsed() >= FILES_INTERVAL {
                self.looked_at = Instant::now();
                self.reload_changed();
                if self.terms_told_at.elapsed() >= TERMS_INTERVAL {
                    self.tell_terms();
                }
            }
            match heard? {
                Heard::Nothing => {}
                Heard::Asked(ask) => self.answer(ask),
                Heard::Signal(SIGUSR1) => self.ask_statistics(Asker::Log),
                Heard::Signal(SIGHUP) => drop(self.renew()),
                Heard::Signal(SIGTERM | SIGINT) => return Ok(self.leave()),
                Heard::Signal(other) => info!("signal {other} means nothing to the broker"),
                Heard::Misbehaves(who) => self.ban(who),
                Heard::Called(called) => self.bridges.take_called(called, self.shards),
                Heard::Shard(Event::Line(_, number, news)) => {
                    self.bridges.take_news(number, news);
                }
                Heard::Shard(Event::BridgeLoss(loss)) => bridges::tell_session_loss(&loss),
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
                Heard::Shard(Event::Statistics(shard, number, report)) => {
                    self.census.take(shard, number, report);
                }
                Heard::Shard(Event::Told(shard, number, told)) => {
                    self.inquiries.take(shard, number, told);
                }
                Heard::Shard(Event::Holds(shard, what, number)) => {
                    self.confirm(shard, what, number);
                }
                Heard::Shard(_) => {}
            }
        }
    }

    fn leave(&self) -> Leaving {
        Leaving {
            within: self.running.config().shutdown_deadline,
            files: {
                let of_clients = self.telling.listening.files();
                of_clients.chain(self.desk.files()).cloned().collect()
            },
        }
    }

    fn do_what_is_due(&mut self) {
        if self.bans.expire(Instant::now()) {
            self.bans_pace.ask();
        }
        if self.bans_pace.is_due(Instant::now()) {
            self.enforce_bans();
        }
        self.inquiries.expire(Instant::now());
        self.finish_census();
        self.bridges.ask_again(self.shards);
        self.bridges.do_what_is_due();
        if let Some(states) = self.bridges.take_changed() {
            self.announce(states);
        }
        if let Some(sys) = &mut self.sys
            && sys.take_due(Instant::now())
        {
            self.ask_statistics(Asker::Sys);
        }
    }

    /// The next thing that happens, or nothing for a while.
    fn listen(&mut self) -> Result<Heard, RecvError> {
        let now = Instant::now();
        let until_sys = self.sys.as_ref().map(|sys| sys.wait(now));
        let waits = [
            self.bans_pace.wait(now),
            self.bans.wait(now),
            self.inquiries.wait(now),
            self.bridges.wait(),
            until_sys,
        ];
        let wait = waits
            .into_iter()
            .flatten()
            .fold(MEMORY_INTERVAL, Duration::min);
        select! {
            recv(self.shards.events) -> event => event.map(Heard::Shard),
            recv(self.bridges.called()) -> called => match called {
                Ok(called) => Ok(Heard::Called(called)),
                // There are no bridges so far.
                Err(_) => {
                    self.bridges.hear_no_more();
                    Ok(Heard::Nothing)
                }
            },
            recv(self.ears.signals) -> signal => signal.map(Heard::Signal),
            recv(self.ears.asks) -> ask => match ask {
                Ok(ask) => Ok(Heard::Asked(ask)),
                // There is no admin listener.
                Err(_) => {
                    self.ears.asks = crossbeam_channel::never();
                    Ok(Heard::Nothing)
                }
            },
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
            watchdog::Health::Well => {
                // Nobody may be listening.
                service::tell(NotifyState::Watchdog);
            }
            watchdog::Health::Silent => {}
            watchdog::Health::Dead(shard) => {
                return Err(format!(
                    "shard {shard} has not turned for watchdog.silence_seconds_max; the process ends, \
                     so that what starts it again serves all clients"
                )
                .into());
            }
        }
        Ok(())
    }

    /// Answers an operator, or has shards asked. Who has gone meanwhile needs no answer.
    fn answer(&mut self, ask: Ask) {
        let now = Instant::now();
        match ask {
            Ask::Overview(asker) => self.ask_statistics(Asker::Operator(asker)),
            Ask::Health(asker) => drop(asker.send(self.health())),
            Ask::Shards(asked, only, asker) => {
                let shards = (0..).take(self.shards.pulses().len());
                let shards = shards.filter(|shard| only.is_none_or(|only| only == *shard));
                if let Some(inquiry) = self.inquiries.begin(now, asked, shards, asker) {
                    self.shards.inquire(&inquiry, only);
                }
            }
            Ask::Bans(max, asker) => drop(asker.send(self.bans.list(now, max))),
            Ask::Ban(who, duration, asker) => {
                let is_new = !self.bans.is_permanent(&who);
                if is_new {
                    self.bans.add(who, now + duration);
                    self.bans_pace.ask();
                }
                let _ = asker.send(is_new);
            }
            Ask::Unban(who, asker) => {
                let is_permanent = self.bans.is_permanent(&who);
                let ended = (!is_permanent).then(|| self.bans.remove(&who));
                if ended == Some(true) {
                    self.bans_pace.ask();
                }
                let _ = asker.send(ended);
            }
            Ask::Listeners(asker) => drop(asker.send(self.listeners())),
            Ask::Close(listener, asker) => {
                match listener {
                    Some(number) => drop(self.closed.insert(number)),
                    None => {
                        self.closed = (0..).take(self.telling.listening.names().len()).collect();
                        self.drained_since.get_or_insert(now);
                    }
                }
                let _ = asker.send(());
            }
            Ask::Bridges(asker) => drop(asker.send(self.bridges.list())),
            Ask::Reload(asker) => drop(asker.send(self.renew())),
        }
    }

    /// By number; `None` for those that were removed and have nobody left.
    fn listeners(&self) -> Vec<Option<(bool, u64)>> {
        let counts = (0..).zip(self.shards.connections_by_listener());
        counts
            .map(|(number, count)| {
                let is_removed = self.telling.listening.is_removed(number);
                let is_open = !is_removed && !self.closed.contains(&number);
                (!is_removed || count > 0).then_some((is_open, count as u64))
            })
            .collect()
    }

    /// Whether every client has gone who was sent away, and who asked for that has been answered.
    fn is_drained(&self) -> bool {
        let is_told = |since: Instant| since.elapsed() >= DRAINED_MIN;
        self.drained_since.is_some_and(is_told) && self.shards.clients() == 0
    }

    fn ask_statistics(&mut self, asker: Asker) {
        if let Some(number) = self.census.ask(Instant::now(), asker) {
            self.shards.ask_statistics(number);
        }
    }

    /// Answers those who asked, when all shards have answered or had their time.
    fn finish_census(&mut self) {
        let Some((askers, silent)) = self.census.finish(Instant::now()) else {
            return;
        };
        if askers.iter().any(|asker| matches!(asker, Asker::Log)) {
            self.tell_statistics(&self.census.sums(&silent));
        }
        let overview = Arc::new(self.overview(&silent));
        for asker in askers {
            match asker {
                Asker::Log => {}
                Asker::Sys => {
                    if let Some(sys) = &mut self.sys {
                        self.sys_values = sys.values(&overview, Instant::now());
                        let states = self.bridges.states();
                        self.announce(states);
                    }
                }
                // Who has gone meanwhile needs no answer.
                Asker::Operator(asker) => drop(asker.send(Arc::clone(&overview))),
            }
        }
        if let Some(number) = self.census.ask_next(Instant::now()) {
            self.shards.ask_statistics(number);
        }
    }

    /// Publishes the broker's own values with the states of bridges: a list takes the place of the last one.
    fn announce(&self, states: Announcements) {
        let all = self.sys_values.iter().cloned().chain(states);
        self.shards.announce(all.collect());
    }

    /// What there is to tell, with what the shards have answered.
    fn overview(&self, silent: &BTreeSet<ShardId>) -> Overview {
        let reports = self.census.reports().iter();
        let shards = reports.zip(self.watchdog.silences()).zip(0..);
        let shards = shards.map(|((report, silence_seconds), shard)| OfShard {
            report: report.clone(),
            is_silent: silent.contains(&shard),
            silence_seconds,
        });
        let mut counts: Vec<_> = self.memory.gauges().into();
        counts.extend(self.lost());
        let on_the_way = self.records.notes_left_out.load(Ordering::Relaxed);
        counts.push(("notes_on_the_way_left_out", on_the_way));
        Overview {
            shards: shards.collect(),
            counts,
            certificate_expires_s: self.files.certificate_expires_s(),
            store: self.shards.store_figures(),
            uptime_seconds: self.started_at.elapsed().as_secs(),
        }
    }

    /// Whether the broker serves, and why not.
    fn health(&self) -> Health {
        let silences = self.watchdog.silences().zip(0..);
        let shards: Vec<_> = silences
            .map(|(silence_seconds, shard)| ShardHealth {
                shard,
                silence_seconds,
            })
            .collect();
        let silent = shards
            .iter()
            .filter(|shard| shard.silence_seconds >= SILENCE_SECONDS_MAX);
        let mut problems: Vec<_> = silent
            .map(|silent| {
                let (shard, seconds) = (silent.shard, silent.silence_seconds);
                format!("shard {shard} has not turned for {seconds} s")
            })
            .collect();
        if self.drained_since.is_some() {
            let left = self.shards.clients();
            problems.push(format!(
                "it is being drained: {left} connection(s) are left"
            ));
        }
        if let Some(store) = self.shards.store_figures() {
            if store.is_full {
                let text = "the disk is full: what has to be kept is refused \
                            (storage.disk_bytes_max, free_bytes_min)";
                problems.push(text.to_owned());
            }
            for (shard, &bytes) in store.pending_bytes.iter().enumerate() {
                if bytes > store.pending_bytes_max {
                    problems.push(format!(
                        "the disk is behind: {bytes} bytes of shard {shard} wait for it \
                         (storage.pending_bytes_max)"
                    ));
                }
            }
        }
        Health {
            shards,
            problems,
            listeners: self.telling.listening.open_names(&self.closed),
        }
    }

    /// Lines of the log that are lost, and what the admin listener counts.
    fn lost(&self) -> Vec<(&'static str, u64)> {
        let (left_out, failed) = log::lines_lost();
        let mut counts = vec![
            ("log_lines_left_out", left_out),
            ("log_lines_failed", failed),
        ];
        counts.extend(self.desk.counts().list());
        counts.extend(self.bridges.counts());
        counts
    }

    fn tell_statistics(&self, of_shards: &Counts) {
        let of_memory = self.memory.gauges();
        let mut pairs: Vec<_> = of_memory
            .map(|(name, value)| (name, value.to_string()))
            .into();
        if let Some(seconds) = self.files.certificate_expires_s() {
            pairs.push(("certificate_expires_s", seconds.to_string()));
        }
        let lost = self.lost();
        pairs.extend(lost.iter().map(|(name, value)| (*name, value.to_string())));
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
        let config = &self.running.config().bans;
        let (now, duration) = (Instant::now(), config.duration);
        // Failures that were under way when it was banned make it last longer, but are no news.
        if !self.bans.is_in_force(&who, now) {
            let why = config.why(&who);
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
    pub(super) fn record(&self, kind: &'static str, text: &str) {
        let record = Record::Happened(kind, text.to_owned());
        let _ = self.records.to.try_send(record);
    }

    /// Reads files anew that have changed, each for itself.
    fn reload_changed(&mut self) {
        for reloaded in self.files.reload(false) {
            match reloaded {
                Ok(reloaded) => drop(self.take_file(reloaded)),
                Err(error) => self.tell_wrong(&error.to_string()),
            }
        }
        self.bridges.reload_changed(&self.running.config().settings);
    }

    /// Nothing is changed: something is wrong.
    pub(super) fn refuse(&self, errors: Vec<String>) -> ReloadOutcome {
        errors.iter().for_each(|error| self.tell_wrong(error));
        ReloadOutcome {
            errors,
            ..ReloadOutcome::default()
        }
    }

    fn tell_wrong(&self, error: &str) {
        error!("not reloaded, what was before stays in force: {error}");
        self.record("reload_failed", error);
    }

    /// Puts in force what was read of files; what it is.
    pub(super) fn take_file(&mut self, reloaded: Reloaded) -> &'static str {
        let name = reloaded.name();
        if let Some(what) = self.put_in_force(reloaded) {
            self.tell_reloaded(what);
        }
        name
    }

    /// Says which certificates and revocation lists have ended or will soon.
    fn tell_terms(&mut self) {
        self.terms_told_at = Instant::now();
        for warning in self.files.term_warnings() {
            warn!("{warning}");
        }
    }

    /// A shard goes by what was ordered; it is told when all do.
    fn confirm(&mut self, shard: ShardId, what: Reloadable, number: u64) {
        if self.rollout(what).confirm(shard, number) {
            self.tell_reloaded(reload::name_of(what));
            if what == Reloadable::Rules {
                self.bridges.take_rules();
            }
        }
    }

    fn rollout(&mut self, what: Reloadable) -> &mut Rollout {
        match what {
            Reloadable::Certificates => &mut self.certificates,
            Reloadable::Rules => &mut self.rules,
            Reloadable::Bans => &mut self.banned,
            Reloadable::Settings => &mut self.settings,
        }
    }

    /// Whether what was read last is in force; else it is told when it is.
    fn is_in_force(&mut self, what: Reloadable) -> bool {
        if what == Reloadable::Bans && self.bans_pace.wait(Instant::now()).is_some() {
            // It is not even ordered yet.
            self.bans_are_news = true;
            return false;
        }
        self.rollout(what).ask()
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
            Reloaded::Operators => "the tokens of operators are",
            Reloaded::AdminCertificates => {
                self.tell_terms();
                "the admin listener's certificate is"
            }
            Reloaded::Users => "the password file is",
            Reloaded::Keys => "the keys of tokens are",
            Reloaded::Asked => return None,
            Reloaded::Access(acl) => {
                acl.iter().for_each(|acl| self.handed.keep(acl));
                self.shards.set_acl(self.rules.begin(true), acl);
                return None;
            }
            Reloaded::Bans(bans) => {
                self.bans.set_permanent(bans);
                self.bans_pace.ask();
                self.bans_are_news = true;
                return None;
            }
            Reloaded::Unchanged(what) if self.is_in_force(what) => reload::name_of(what),
            Reloaded::Unchanged(_) => return None,
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
