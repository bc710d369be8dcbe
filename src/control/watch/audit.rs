//! The audit log: one JSON object per line, in a file of its own, begun anew on SIGHUP.

use super::Change;
use crate::control::visible::spelled_out;
use crate::engine::codec::Reason;
use crate::engine::telemetry::notes::Event;
use crate::shard::account::Entry;
use crate::shard::files;
use crate::shard::peer::Peer;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The log.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    file: BufWriter<File>,
    /// The first failure since the last flush.
    failure: Option<io::Error>,
}

/// A reason code, its name in the standard where it tells of a failure, and why in plain words.
fn put_reason(line: &mut Map<String, Value>, reason: u8, text: &str) {
    // Who was told nothing has not been told of a success.
    if reason > 0 || text.is_empty() {
        line.insert("reason".into(), json!(reason));
    }
    let name = Reason::from_byte(reason).filter(|reason| reason.is_error());
    if let Some(name) = name {
        line.insert("reason_name".into(), json!(name.text()));
    }
    if !text.is_empty() {
        line.insert("why".into(), json!(text));
    }
}

fn open(path: &Path) -> io::Result<BufWriter<File>> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let file = files::append(path).map_err(io::Error::from);
    Ok(BufWriter::new(file.map_err(named)?))
}

impl AuditLog {
    /// Appends to the file at `path`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        Ok(AuditLog {
            file: open(&path)?,
            path,
            failure: None,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Goes on in a new file at the same path.
    ///
    /// # Errors
    /// It cannot be written; the old one stays in use.
    pub fn reopen(&mut self) -> io::Result<()> {
        let file = open(&self.path)?;
        self.file.flush()?;
        self.file = file;
        Ok(())
    }

    /// Writes what happened to a connection.
    pub fn write_entry(&mut self, listener: &str, entry: &Entry) {
        let note = &entry.note;
        let mut line = Map::new();
        let kind = match &note.event {
            Event::Connected(method) => {
                line.insert(
                    "method".into(),
                    json!(if method.is_empty() {
                        "anonymous"
                    } else {
                        method
                    }),
                );
                "connected"
            }
            Event::Refused { reason, text, .. } => {
                put_reason(&mut line, *reason, text);
                "refused"
            }
            Event::Disconnected { reason, text, .. } => {
                put_reason(&mut line, *reason, text);
                "disconnected"
            }
            Event::Gone(how) => {
                line.insert("why".into(), json!(how.text()));
                "disconnected"
            }
            // It is not accounted for: anybody who looks whether the port is open would be.
            Event::GoneEarly { .. } => return,
            Event::TakenOver(_) => {
                let by = entry.by.and_then(Peer::address);
                line.insert("by".into(), json!(by.map(|by| by.to_string())));
                "taken_over"
            }
            Event::Denied { action, topic, why } => {
                line.insert("action".into(), json!(action));
                line.insert("topic".into(), json!(topic));
                line.insert("why".into(), json!(why));
                "denied"
            }
            Event::WillLeftOut { topic, why } => {
                line.insert("topic".into(), json!(topic));
                line.insert("why".into(), json!(why));
                "will_left_out"
            }
            Event::DeniedMore { left_out } => {
                line.insert("left_out".into(), json!(left_out));
                "denied_more"
            }
        };
        let address = entry.peer.and_then(Peer::address);
        line.insert("client_id".into(), json!(note.client_id));
        line.insert("user_name".into(), json!(note.user_name));
        line.insert(
            "peer".into(),
            json!(address.map(|address| address.to_string())),
        );
        line.insert("listener".into(), json!(listener));
        self.write(kind, line);
    }

    /// Writes what an operator did.
    pub fn write_change(&mut self, change: &Change) {
        let mut line = Map::new();
        line.insert("by".into(), json!(change.by.as_deref()));
        line.insert("role".into(), json!(change.role));
        line.insert("from".into(), json!(change.from));
        line.insert("action".into(), json!(change.action));
        line.insert("target".into(), json!(change.target));
        line.insert("status".into(), json!(change.status));
        self.write("operator", line);
    }

    /// Writes what the broker did.
    pub fn write_event(&mut self, kind: &str, text: &str) {
        let mut line = Map::new();
        line.insert("text".into(), json!(text));
        self.write(kind, line);
    }

    fn write(&mut self, kind: &str, mut line: Map<String, Value>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| now.as_millis() as u64);
        line.insert("event".into(), json!(kind));
        line.insert("time_unix_ms".into(), json!(now_ms));
        let line = Value::Object(line).to_string();
        let written = writeln!(self.file, "{}", spelled_out(&line));
        if let Err(failure) = written {
            self.failure.get_or_insert(failure);
        }
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// Something could not be written since the last time.
    pub fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.failure.take().map_or(flushed, Err)
    }
}
