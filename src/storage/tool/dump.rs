//! Every record of a store, one a line, as JSON.

use super::check::look_through;
use super::rescue::{Place, Told};
use super::{ToolError, open};
use crate::engine::keys::{SessionNumber, ShardId};
use crate::engine::message::Message;
use crate::engine::record::{Opened, Record, Step, Subscription};
use crate::engine::session::Delivery;
use crate::storage::log::LogError;
use crate::storage::log::disk::Disk;
use crate::storage::log::segment::file_name;
use crate::storage::record::decoder::LeftOut;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// What is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpConfig {
    /// Of one shard alone.
    pub shard: Option<ShardId>,
    /// With what messages contain.
    pub payloads: bool,
}

/// Writes every record to `out`. Whether a start would take them.
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
        failed: None,
    };
    let (checked, _) = look_through(disk, &mut |told| dump.told(&told))?;
    if let Some(torn) = &checked.walked.torn {
        let mut line = Line::default();
        line.put("segment", &file_name(torn.segment))
            .put("byte", &torn.offset);
        line.put("torn_bytes", &torn.bytes);
        dump.say(&line);
    }
    if let Some(error) = dump.failed {
        return Err(LogError::Failed(error));
    }
    Ok(checked.is_whole())
}

struct Dump<'o> {
    config: DumpConfig,
    out: &'o mut dyn Write,
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

    fn told(&mut self, told: &Told<'_>) {
        let mut line = Line::default();
        match told {
            Told::Gap(gap) => {
                line.put("segment", &file_name(gap.damage.segment));
                line.put("byte", &gap.damage.offset);
                line.put("damage", &gap.damage.to_string());
            }
            Told::Frame(..) => return,
            Told::Record(at, client, record) => {
                if !self.begin(&mut line, at) {
                    return;
                }
                self.record(&mut line, *client, record);
            }
            Told::LeftOut(at, left_out) => {
                if !self.begin(&mut line, at) {
                    return;
                }
                left_out_line(&mut line, left_out);
            }
        }
        self.say(&line);
    }

    /// Where it stands; false if that is not wanted.
    fn begin(&self, line: &mut Line, at: &Place<'_>) -> bool {
        let frame = at.frame;
        line.put("segment", &file_name(at.file))
            .put("byte", &at.offset);
        line.put("frame", &frame.sequence)
            .put("shard", &frame.shard);
        line.put("ticket", &frame.ticket);
        self.config.shard.is_none_or(|shard| shard == frame.shard)
    }

    fn record(&self, line: &mut Line, client: Option<&str>, record: &Record) {
        line.put("record", kind(record));
        if let Some(session) = record.session() {
            line.put("session", &name_of(session));
            line.put_if("client", client);
        }
        let payloads = self.config.payloads;
        match record {
            Record::Opened(it) => opened_line(line, it, payloads),
            Record::Expires { seconds, .. } => drop(line.put("seconds", seconds)),
            Record::Left { at, .. } => drop(line.put("at_ms", &at.as_ms())),
            Record::Ended { .. } | Record::WillGone { .. } | Record::Checkpoint(_) => {}
            Record::Subscribed(it) => subscribed_line(line, it),
            Record::Unsubscribed { filter, share, .. } => {
                line.put("filter", &**filter)
                    .put_if("share", share.as_deref());
            }
            Record::Queued {
                delivery, origin, ..
            } => {
                queued_line(line, delivery, payloads);
                if let Some(origin) = origin {
                    line.put("if_complete_shard", &origin.shard);
                    line.put("if_complete_number", &origin.number);
                }
            }
            Record::Complete { after, through } => {
                line.put("after", after).put("through", through);
            }
            Record::Sent {
                entry, packet_id, ..
            }
            | Record::Received {
                entry, packet_id, ..
            } => drop(line.put("entry", entry).put("packet_id", packet_id)),
            Record::Unsent { entry, .. } | Record::Settled { entry, .. } => {
                line.put("entry", entry);
            }
            Record::Accepted {
                packet_id, number, ..
            } => {
                line.put("packet_id", packet_id);
                line.put_if("number", Some(number).filter(|number| **number > 0));
            }
            Record::Released { packet_id, .. } => drop(line.put("packet_id", packet_id)),
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
        Record::Complete { .. } => "complete",
        Record::Released { .. } => "released",
        Record::WillGone { .. } => "will gone",
        Record::Retained { .. } => "retained",
        Record::RetainedGone { .. } => "retained gone",
        Record::Checkpoint(Step::Begins) => "checkpoint begins",
        Record::Checkpoint(Step::Restates) => "told anew",
        Record::Checkpoint(Step::Changes) => "changes",
        Record::Checkpoint(Step::Ends) => "checkpoint ends",
    }
}

fn opened_line(line: &mut Line, opened: &Opened, payloads: bool) {
    line.put_if("user", opened.user_name.as_deref());
    let rules_from = opened.own_rules.as_ref().map(|(method, _)| method);
    line.put_if("rules_from", rules_from);
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
