//! The thread that keeps account of clients: the audit log, and bans for repeated failures.
//!
//! Shards hand over what they noted in batches by a bounded channel; what finds no room is counted there
//! and left out, so a slow disk never holds up a shard.

pub mod audit;
pub mod bans;
pub mod pace;

use crate::control::config::BansConfig;
use crate::engine::access::bans::Seen;
use crate::engine::telemetry::notes;
use crate::shard::account::Entry;
use crate::shard::addresses::counted_as;
use crate::shard::peer::Peer;
use audit::AuditLog;
use bans::{Failures, Who};
use crossbeam_channel::{Receiver, Sender, select};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;
use tracing::error;

/// Batches of notes, and records of the control plane, that may wait for the thread.
pub const RECORDS_MAX: usize = 4_096;
/// Clients to be banned that may wait for the control plane.
pub const MISBEHAVING_MAX: usize = 1_024;

/// What the control plane tells the thread.
#[derive(Debug)]
pub enum Record {
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
    ipv6_prefix_bits: u8,
    /// Who fails again and again.
    misbehaving: Sender<Who>,
}

/// Starts the thread. It ends with the last shard.
///
/// # Errors
/// The log cannot be written, or the system has no more threads.
pub fn start(
    path: Option<PathBuf>,
    listeners: Vec<String>,
    config: &BansConfig,
    (entries, records): (Receiver<Vec<Entry>>, Receiver<Record>),
    misbehaving: Sender<Who>,
) -> io::Result<thread::JoinHandle<()>> {
    let log = path.map(AuditLog::open).transpose()?;
    let mut watch = Watch {
        log,
        listeners,
        failed_logins: Failures::new(config.failed_logins_max, config.failed_logins_window),
        flapping: Failures::new(config.flapping_connects_max, config.flapping_window),
        ipv6_prefix_bits: config.ipv6_prefix_bits,
        misbehaving,
    };
    thread::Builder::new()
        .name("watch".into())
        .spawn(move || watch.run(&entries, records))
}

impl Watch {
    /// Works until the last shard has gone.
    fn run(&mut self, entries: &Receiver<Vec<Entry>>, mut records: Receiver<Record>) {
        loop {
            select! {
                recv(entries) -> batch => match batch {
                    Ok(batch) => self.keep_account(&batch),
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

    fn keep_account(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.watch_failures(entry);
            let listener = self.listeners.get(usize::from(entry.listener));
            if let Some(log) = &mut self.log {
                log.write_entry(listener.map_or("", String::as_str), entry);
            }
        }
    }

    fn take(&mut self, record: Record) {
        match record {
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
        let ip = entry.peer.and_then(Peer::ip);
        let network = ip.map(|ip| counted_as(ip, self.ipv6_prefix_bits));
        let banned = match &entry.note.event {
            event if event.is_login_failure() => {
                network.and_then(|network| self.failed_logins.add(Who::Network(network), now))
            }
            // By its identifier alone, anybody could have somebody else's banned.
            notes::Event::Connected(_) if entry.peer.is_some() => {
                let who = Who::Seen(Seen {
                    network,
                    user_name: entry.note.user_name.clone(),
                    client_id: entry.note.client_id.clone(),
                });
                self.flapping.add(who, now)
            }
            _ => None,
        };
        if let Some(who) = banned {
            // A control plane that has stopped bans nobody.
            let _ = self.misbehaving.send(who);
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
