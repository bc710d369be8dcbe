//! The threads that keep account of clients: one counts who connects too often, one writes the audit log.
//!
//! Shards hand over what they noted in batches by a bounded channel to the first, which hands them on by
//! another to the second; what finds no room is counted and left out. So a slow disk holds up no shard, and
//! a disk that hangs no ban.
//!
//! Not here: failed logins, which are counted where they are judged (`control::authn::guesses`).

pub mod audit;
pub mod bans;
pub mod pace;

use crate::control::config::BansConfig;
use crate::engine::access::bans::Seen;
use crate::engine::bridge;
use crate::engine::telemetry::notes;
use crate::shard::account::Entry;
use crate::shard::addresses::counted_as;
use audit::AuditLog;
use bans::{Failures, Who};
use crossbeam_channel::{Receiver, Sender, select};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tracing::error;

/// Batches of notes, and records of the control plane, that may wait for each of the threads.
pub const RECORDS_MAX: usize = 4_096;
/// Clients to be banned that may wait for the control plane.
pub const MISBEHAVING_MAX: usize = 1_024;

/// What the control plane tells who writes.
#[derive(Debug)]
pub enum Record {
    /// Something the control plane did: a kind, and what about it.
    Happened(&'static str, String),
    /// An operator has changed something, or was not allowed to.
    Changed(Box<Change>),
    /// The log was moved away: begin a new one.
    Reopen,
    /// Listeners' names by their numbers, from now on.
    Listeners(Vec<String>),
    /// There is an order.
    Look,
}

/// What an operator did.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose token it was; `None` without one.
    pub by: Option<Arc<str>>,
    /// What that allows.
    pub role: &'static str,
    /// Where it came from.
    pub from: String,
    /// What was to be done.
    pub action: &'static str,
    /// To whom or what.
    pub target: String,
    /// Status of the answer: 200 and above is done, 400 and above is not.
    pub status: u16,
}

/// Where the control plane's records go, and what becomes of the shards'.
#[derive(Clone, Debug)]
pub struct Records {
    /// For who writes.
    pub to: Sender<Record>,
    /// Notes of shards that found no room on their way to who writes.
    pub notes_left_out: Arc<AtomicU64>,
    orders: Arc<Mutex<Orders>>,
}

/// What is to be another from now on; not among the records, which may find no room.
#[derive(Debug, Default)]
struct Orders {
    /// Another audit log, or none.
    audit: Option<Option<AuditLog>>,
    /// Connects of a client within a time that are too many.
    flapping: Option<(u32, Duration)>,
}

impl Records {
    /// Nothing is left out so far.
    #[must_use]
    pub fn new(to: Sender<Record>) -> Self {
        Records {
            to,
            notes_left_out: Arc::default(),
            orders: Arc::default(),
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told from now on goes to this audit log, or nowhere.
    pub fn set_audit(&self, log: Option<AuditLog>) {
        self.orders().audit = Some(log);
        // Without room there is something to write anyway.
        let _ = self.to.try_send(Record::Look);
    }

    /// So many connects of a client are too many from now on.
    pub fn set_flapping(&self, config: &BansConfig) {
        let rule = (config.flapping_connects_max, config.flapping_window);
        self.orders().flapping = Some(rule);
    }
}

/// Counts.
struct Watch {
    flapping: Failures,
    ipv6_prefix_bits: u8,
    /// Who fails again and again.
    misbehaving: Sender<Who>,
    writer: Sender<Vec<Entry>>,
    records: Records,
}

/// Writes.
struct Writer {
    /// `None` where nothing is to be written.
    log: Option<AuditLog>,
    listeners: Vec<String>,
    told: Records,
}

/// Starts the threads, with listeners' names by their numbers. The first ends with the last shard, the
/// second, which is given back, with the first.
///
/// # Errors
/// The system has no more threads.
pub fn start(
    (log, listeners): (Option<AuditLog>, Vec<String>),
    config: &BansConfig,
    (entries, records): (Receiver<Vec<Entry>>, Receiver<Record>),
    misbehaving: Sender<Who>,
    told: &Records,
) -> io::Result<thread::JoinHandle<()>> {
    let (to_writer, batches) = crossbeam_channel::bounded(RECORDS_MAX);
    let mut writer = Writer {
        log,
        listeners,
        told: told.clone(),
    };
    let thread = thread::Builder::new().name("audit".into());
    let writes = thread.spawn(move || writer.run(&batches, records))?;
    let mut watch = Watch {
        flapping: Failures::new(config.flapping_connects_max, config.flapping_window),
        ipv6_prefix_bits: config.ipv6_prefix_bits,
        misbehaving,
        writer: to_writer,
        records: told.clone(),
    };
    let thread = thread::Builder::new().name("watch".into());
    thread.spawn(move || {
        for batch in entries {
            watch.take(batch);
        }
    })?;
    Ok(writes)
}

impl Watch {
    fn take(&mut self, batch: Vec<Entry>) {
        let ordered = self.records.orders().flapping.take();
        if let Some((max, window)) = ordered {
            self.flapping = Failures::new(max, window);
        }
        for entry in &batch {
            self.count(entry);
        }
        let count = batch.len() as u64;
        if self.writer.try_send(batch).is_err() {
            let left_out = &self.records.notes_left_out;
            left_out.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn count(&mut self, entry: &Entry) {
        // A bridge's line goes out: how often is its own affair.
        if entry.listener == bridge::LISTENER {
            return;
        }
        // By its identifier alone, anybody could have somebody else's banned.
        let (notes::Event::Connected(_), Some(peer)) = (&entry.note.event, entry.peer) else {
            return;
        };
        let network = peer.ip().map(|ip| counted_as(ip, self.ipv6_prefix_bits));
        let who = Who::Seen(Seen {
            network,
            user_name: entry.note.user_name.clone(),
            client_id: entry.note.client_id.clone(),
        });
        if let Some(who) = self.flapping.add(who, Instant::now()) {
            // A control plane that has stopped bans nobody.
            let _ = self.misbehaving.send(who);
        }
    }
}

impl Writer {
    /// Works until who counts has gone.
    fn run(&mut self, entries: &Receiver<Vec<Entry>>, mut records: Receiver<Record>) {
        loop {
            select! {
                recv(entries) -> batch => match batch {
                    Ok(batch) => self.write(&batch),
                    Err(_) => return self.flush(),
                },
                recv(records) -> record => match record {
                    Ok(record) => self.take(record),
                    // The control plane has stopped; shards may still have something to say.
                    Err(_) => records = crossbeam_channel::never(),
                },
            }
            if entries.is_empty() && records.is_empty() {
                self.flush();
            }
        }
    }

    /// The log that is in force now.
    fn log(&mut self) -> Option<&mut AuditLog> {
        let ordered = self.told.orders().audit.take();
        if let Some(log) = ordered {
            self.flush();
            self.log = log;
        }
        self.log.as_mut()
    }

    fn write(&mut self, entries: &[Entry]) {
        if self.log().is_none() {
            return;
        }
        for entry in entries {
            let listener = self.listeners.get(usize::from(entry.listener));
            let listener = listener.map_or("", String::as_str);
            if let Some(log) = &mut self.log {
                log.write_entry(listener, entry);
            }
        }
    }

    fn take(&mut self, record: Record) {
        if let Record::Listeners(names) = record {
            self.listeners = names;
            return;
        }
        let Some(log) = self.log() else { return };
        match record {
            Record::Happened(kind, text) => log.write_event(kind, &text),
            Record::Changed(change) => log.write_change(&change),
            Record::Listeners(_) | Record::Look => {}
            Record::Reopen => {
                if let Err(failure) = log.reopen() {
                    error!("the audit log goes on in the old file: {failure}");
                }
            }
        }
    }

    fn flush(&mut self) {
        if let Some(Err(failure)) = self.log.as_mut().map(AuditLog::flush) {
            error!("the audit log cannot be written: {failure}");
        }
    }
}
