//! The thread that keeps account of clients: the audit log, and bans for repeated failures.
//!
//! Shards hand over what they noted in batches by a bounded channel; what finds no room is counted there
//! and left out, so a slow disk never holds up a shard.

pub mod audit;
pub mod bans;

use crate::control::config::BansConfig;
use crate::engine::telemetry::notes::{self, Note};
use crate::shard::orders::Event;
use audit::AuditLog;
use bans::{Failures, Who};
use crossbeam_channel::{Receiver, Sender};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;
use tracing::error;

/// Batches that may wait for the thread.
pub const RECORDS_MAX: usize = 4_096;

/// A note, and where its connection comes from.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Number of the listener.
    pub listener: u16,
    /// The client's address.
    pub peer: Option<SocketAddr>,
    /// What happened.
    pub note: Note,
}

/// What the thread is told.
#[derive(Debug)]
pub enum Record {
    /// Notes of a shard.
    Notes(Vec<Entry>),
    /// Something the control plane did: a kind, and what about it.
    Happened(&'static str, String),
    /// The log was moved away: begin a new one.
    Reopen,
}

/// The thread's state.
struct Watch {
    log: Option<AuditLog>,
    listeners: Vec<String>,
    failed_logins: Failures,
    flapping: Failures,
    events: Sender<Event>,
}

/// Starts the thread. It ends with the last sender of records.
///
/// # Errors
/// The log cannot be written, or the system has no more threads.
pub fn start(
    path: Option<PathBuf>,
    listeners: Vec<String>,
    config: &BansConfig,
    records: Receiver<Record>,
    events: Sender<Event>,
) -> io::Result<thread::JoinHandle<()>> {
    let log = path.map(AuditLog::open).transpose()?;
    let mut watch = Watch {
        log,
        listeners,
        failed_logins: Failures::new(config.failed_logins_max, config.failed_logins_window),
        flapping: Failures::new(config.flapping_connects_max, config.flapping_window),
        events,
    };
    thread::Builder::new().name("watch".into()).spawn(move || {
        for record in &records {
            watch.take(record);
            if records.is_empty() {
                watch.flush();
            }
        }
        watch.flush();
    })
}

impl Watch {
    fn take(&mut self, record: Record) {
        match record {
            Record::Notes(entries) => {
                for entry in entries {
                    self.watch_failures(&entry);
                    let listener = self.listeners.get(usize::from(entry.listener));
                    if let Some(log) = &mut self.log {
                        log.write_entry(listener.map_or("", String::as_str), &entry);
                    }
                }
            }
            Record::Happened(kind, text) => {
                if let Some(log) = &mut self.log {
                    log.write_event(kind, &text);
                }
            }
            Record::Reopen => {
                if let Some(log) = &mut self.log
                    && let Err(failure) = log.reopen()
                {
                    error!("the audit log goes on in the old file: {failure}");
                }
            }
        }
    }

    fn watch_failures(&mut self, entry: &Entry) {
        let now = Instant::now();
        let banned = match entry.note.event {
            notes::Event::Refused {
                is_login_failure: true,
                ..
            } => entry.peer.and_then(|peer| {
                let who = Who::Network(peer.ip().to_canonical().into());
                self.failed_logins.add(who, now)
            }),
            notes::Event::Connected(_) => {
                let who = Who::ClientId(entry.note.client_id.clone());
                self.flapping.add(who, now)
            }
            _ => None,
        };
        if let Some(who) = banned {
            // A control plane that has stopped bans nobody.
            let _ = self.events.send(Event::Misbehaves(who));
        }
    }

    fn flush(&mut self) {
        if let Some(log) = &mut self.log
            && let Err(failure) = log.flush()
        {
            error!("the audit log cannot be written: {failure}");
        }
    }
}
