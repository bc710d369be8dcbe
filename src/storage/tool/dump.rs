//! Every record of a store, one a line, as JSON.

use super::readers::Readers;
use super::walk::{Gap, Step, walk};
use super::{ToolError, open};
use crate::engine::keys::{SessionNumber, ShardId};
use crate::engine::message::Message;
use crate::engine::record::{Opened, Record, Subscription};
use crate::engine::session::Delivery;
use crate::storage::log::LogError;
use crate::storage::log::disk::Disk;
use crate::storage::log::frame::Found;
use crate::storage::log::segment::file_name;
use crate::storage::record::decoder::LeftOut;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;

/// What is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpConfig {
    /// Of one shard alone.
    pub shard: Option<ShardId>,
    /// With what messages contain.
    pub payloads: bool,
}

/// Writes every record to `out`. Whether all could be read.
///
/// # Errors
/// The directory cannot be read, or a broker has it.
pub fn dump(path: &Path, config: DumpConfig, out: &mut dyn Write) -> Result<bool, ToolError> {
    let mut directory = open(path)?;
    write(&mut directory, config, out).map_err(|error| ToolError::failed(path, error))
}

/// The same of any disk.
///
/// # Errors
/// It cannot be read, or `out` not written.
pub fn write<D: Disk>(
    disk: &mut D,
    config: DumpConfig,
    out: &mut dyn Write,
) -> Result<bool, LogError> {
    let mut dump = Dump {
        config,
        out,
        readers: Readers::default(),
        names: BTreeMap::new(),
        is_whole: true,
        failed: None,
    };
    let walked = walk(disk, &mut |step| match step {
        Step::Frame(file, offset, frame) => dump.frame(file, offset, &frame),
        Step::Gap(gap) => dump.gap(gap),
    })?;
    if let Some(torn) = walked.torn {
        let mut line = Line::default();
        line.put("segment", &file_name(torn.segment))
            .put("byte", &torn.offset);
        line.put("torn_bytes", &torn.bytes);
        dump.say(&line);
    }
    if let Some(error) = dump.failed {
        return Err(LogError::Failed(error));
    }
    Ok(dump.is_whole && walked.gaps.is_empty())
}

struct Dump<'o> {
    config: DumpConfig,
    out: &'o mut dyn Write,
    readers: Readers,
    names: BTreeMap<SessionNumber, Rc<str>>,
    is_whole: bool,
    failed: Option<io::Error>,
}

/// An object, its fields in the order in which they were put.
#[derive(Clone, Debug, Default)]
struct Line(String);

impl Line {
    fn put(&mut self, key: &str, value: &(impl Serialize + ?Sized)) -> &mut Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        // Texts and numbers can always be written.
        let value = serde_json::to_string(value).unwrap_or_default();
        self.0.push_str(&format!("\"{key}\":{value}"));
        self
    }

    fn put_if(&mut self, key: &str, value: Option<&(impl Serialize + ?Sized)>) -> &mut Self {
        if let Some(value) = value {
            self.put(key, value);
        }
        self
    }

    fn put_session(&mut self, names: &BTreeMap<SessionNumber, Rc<str>>, number: SessionNumber) {
        self.put("session", &name_of(number));
        self.put_if("client", names.get(&number).map(|name| &**name));
    }

    fn put_message(&mut self, message: &Message, payloads: bool) {
        self.put("topic", message.topic());
        let expires_at = message.expires_at.map(|at| at.as_ms());
        self.put_if("expires_at_ms", expires_at.as_ref());
        self.put("properties_bytes", &message.properties().len());
        self.put_payload(message.payload(), payloads);
    }

    fn put_payload(&mut self, payload: &[u8], payloads: bool) {
        self.put("payload_bytes", &payload.len());
        if payloads {
            match std::str::from_utf8(payload) {
                Ok(text) => self.put("payload", text),
                Err(_) => self.put("payload_base64", &STANDARD.encode(payload)),
            };
        }
    }
}

/// A session's number and the shard that gave it.
fn name_of(number: SessionNumber) -> String {
    let number = number.0.get();
    format!("{}@{}", number >> ShardId::BITS, number as ShardId)
}

impl Dump<'_> {
    fn say(&mut self, line: &Line) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{}}}", line.0).err();
        }
    }

    fn gap(&mut self, gap: &Gap) {
        self.readers.gap(gap);
        let mut line = Line::default();
        line.put("segment", &file_name(gap.damage.segment));
        line.put("byte", &gap.damage.offset);
        line.put("damage", &gap.damage.to_string());
        self.say(&line);
    }

    fn frame(&mut self, file: u64, offset: u64, frame: &Found<'_>) {
        // Writing a line takes all of this.
        let mut readers = std::mem::take(&mut self.readers);
        let is_wanted = self.config.shard.is_none_or(|shard| shard == frame.shard);
        readers.read(file, frame, |one| {
            let mut line = Line::default();
            line.put("segment", &file_name(file)).put("byte", &offset);
            line.put("frame", &frame.sequence)
                .put("shard", &frame.shard);
            line.put("ticket", &frame.ticket);
            match one {
                Ok(record) => self.record(&mut line, &record),
                Err(left_out) => {
                    self.is_whole = false;
                    left_out_line(&mut line, &left_out);
                }
            }
            if is_wanted {
                self.say(&line);
            }
        });
        self.readers = readers;
    }

    fn record(&mut self, line: &mut Line, record: &Record) {
        if let Record::Opened(opened) = record {
            let name = Rc::clone(&opened.client_id);
            self.names.insert(opened.session, name);
        }
        line.put("record", kind(record));
        if let Some(session) = session(record) {
            line.put_session(&self.names, session);
        }
        let payloads = self.config.payloads;
        match record {
            Record::Opened(it) => opened_line(line, it, payloads),
            Record::Expires { seconds, .. } => drop(line.put("seconds", seconds)),
            Record::Left { at, .. } => drop(line.put("at_ms", &at.as_ms())),
            Record::Ended { session } => drop(self.names.remove(session)),
            Record::WillGone { .. } => {}
            Record::Subscribed(it) => subscribed_line(line, it),
            Record::Unsubscribed { filter, share, .. } => {
                line.put("filter", &**filter)
                    .put_if("share", share.as_deref());
            }
            Record::Queued { delivery, .. } => queued_line(line, delivery, payloads),
            Record::Sent {
                entry, packet_id, ..
            }
            | Record::Received {
                entry, packet_id, ..
            } => drop(line.put("entry", entry).put("packet_id", packet_id)),
            Record::Unsent { entry, .. } | Record::Settled { entry, .. } => {
                line.put("entry", entry);
            }
            Record::Accepted { packet_id, .. } | Record::Released { packet_id, .. } => {
                line.put("packet_id", packet_id);
            }
            Record::Retained { message } => {
                line.put("qos", &message.qos.bits());
                line.put_message(message, payloads);
            }
            Record::RetainedGone { topic } => drop(line.put("topic", &**topic)),
        }
    }
}

const fn kind(record: &Record) -> &'static str {
    match record {
        Record::Opened(_) => "session",
        Record::Expires { .. } => "session expiry",
        Record::Left { .. } => "session left",
        Record::Ended { .. } => "session ended",
        Record::Subscribed(_) => "subscribed",
        Record::Unsubscribed { .. } => "unsubscribed",
        Record::Queued { .. } => "queued",
        Record::Sent { .. } => "sent",
        Record::Unsent { .. } => "unsent",
        Record::Received { .. } => "received",
        Record::Settled { .. } => "settled",
        Record::Accepted { .. } => "accepted",
        Record::Released { .. } => "released",
        Record::WillGone { .. } => "will gone",
        Record::Retained { .. } => "retained",
        Record::RetainedGone { .. } => "retained gone",
    }
}

fn session(record: &Record) -> Option<SessionNumber> {
    Some(match record {
        Record::Opened(opened) => opened.session,
        Record::Subscribed(subscription) => subscription.session,
        Record::Expires { session, .. }
        | Record::Left { session, .. }
        | Record::Ended { session }
        | Record::Unsubscribed { session, .. }
        | Record::Queued { session, .. }
        | Record::Sent { session, .. }
        | Record::Unsent { session, .. }
        | Record::Received { session, .. }
        | Record::Settled { session, .. }
        | Record::Accepted { session, .. }
        | Record::Released { session, .. }
        | Record::WillGone { session } => *session,
        Record::Retained { .. } | Record::RetainedGone { .. } => return None,
    })
}

fn opened_line(line: &mut Line, opened: &Opened, payloads: bool) {
    line.put_if("user", opened.user_name.as_deref());
    line.put("expiry_seconds", &opened.expiry_seconds);
    line.put("queue_bytes_max", &opened.queue_bytes_max);
    if let Some(will) = &opened.will {
        line.put("will_topic", &*will.topic)
            .put("will_qos", &will.qos.bits());
        line.put("will_retain", &will.retain);
        line.put("will_delay_seconds", &will.delay_seconds);
        line.put_payload(&will.payload, payloads);
    }
}

fn subscribed_line(line: &mut Line, it: &Subscription) {
    line.put("filter", &*it.filter)
        .put_if("share", it.share.as_deref());
    line.put("qos", &it.qos.bits())
        .put("id", &it.subscription_id);
    line.put("no_local", &it.no_local);
    line.put("retain_as_published", &it.retain_as_published);
}

fn queued_line(line: &mut Line, delivery: &Delivery, payloads: bool) {
    line.put("entry", &delivery.entry)
        .put("qos", &delivery.qos.bits());
    line.put("retain", &delivery.retain);
    line.put("subscription_ids", delivery.subscription_ids.as_slice());
    line.put_if("share", delivery.group.as_ref().map(|group| &*group.name));
    line.put_message(&delivery.message, payloads);
}

fn left_out_line(line: &mut Line, left_out: &LeftOut) {
    match left_out {
        LeftOut::Entry { session, entry } => {
            line.put("left_out", "queued: its message is lost");
            line.put("session", &name_of(*session)).put("entry", entry);
        }
        LeftOut::Retained => drop(line.put("left_out", "retained: its message is lost")),
        LeftOut::Part => drop(line.put("left_out", "the rest of a record: its beginning is lost")),
        LeftOut::Record(refusal) => drop(line.put("left_out", &refusal.to_string())),
        LeftOut::Rest(refusal) => {
            let words = format!("{refusal}; what stands behind it in the frame cannot be read");
            line.put("left_out", &words);
        }
    }
}
