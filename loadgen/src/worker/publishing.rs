//! What a publisher does: send when its pace allows, keep account of what is not acknowledged.

use super::Context;
use crate::codec::{self, PublishHead};
use crate::connection::Connection;
use crate::control::Phase;
use crate::measure::Measure;
use crate::plan::{Finish, Pace, PublishSpec};
use crate::stamp::Stamp;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// Bytes that wait for a socket before its publisher holds back.
const BACKLOG_BYTES: usize = 128 * 1024;

/// A client's side of publishing.
pub struct Publishing {
    /// Its number among all publishers.
    pub publisher: u32,
    first_stream: u32,
    /// Messages sent.
    pub sent: u32,
    /// Messages that the open loop's schedule has asked for.
    pub scheduled: u32,
    /// Retained topics removed again.
    cleared: u32,
    inflight: VecDeque<Inflight>,
    /// Unacknowledged publishes that the broker takes.
    pub inflight_max: u16,
    /// Aliases that the broker takes.
    pub alias_max: u16,
    next_packet_id: u16,
    /// Think time is over then.
    pub resumes_ns: u64,
}

struct Inflight {
    packet_id: u16,
    message: u32,
    time_ns: u64,
}

impl Publishing {
    /// Publisher number `publisher`, whose streams begin with `first_stream`.
    pub const fn new(publisher: u32, first_stream: u32) -> Self {
        Publishing {
            publisher,
            first_stream,
            sent: 0,
            scheduled: 0,
            cleared: 0,
            inflight: VecDeque::new(),
            inflight_max: 0,
            alias_max: 0,
            next_packet_id: 1,
            resumes_ns: 0,
        }
    }

    /// Whether everything that was sent is acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.inflight.is_empty()
    }

    /// Whether nothing is left to send or to be acknowledged.
    pub fn is_done(&self, spec: &PublishSpec, context: &Context) -> bool {
        if !self.inflight.is_empty() {
            return false;
        }
        match context.phase {
            Phase::Wait | Phase::Connect => true,
            Phase::Publish => match context.plan.settings.finish {
                Finish::Messages(messages) => self.sent >= messages,
                Finish::After(_) => false,
            },
            Phase::Clear => !spec.is_retained || self.cleared >= spec.topics,
            Phase::Drain | Phase::Replay | Phase::Finish => true,
        }
    }

    /// Whether the pace lets the next message go, and the time it should have gone.
    fn due(&self, spec: &PublishSpec, context: &Context, slot: (u32, u32)) -> Option<u64> {
        if let Finish::Messages(messages) = context.plan.settings.finish
            && self.sent >= messages
        {
            return None;
        }
        let has_room = |window| context.control.has_room(self.publisher, self.sent, window);
        match spec.pace {
            Pace::Rate(rate) => {
                (self.sent < self.scheduled).then(|| context.intended_ns(self.sent, slot, rate))
            }
            Pace::Window(window) => {
                let now = context.control.now_ns();
                (has_room(window) && now >= context.start_ns).then_some(now)
            }
            Pace::Think(_) => {
                let now = context.control.now_ns();
                (has_room(1) && now >= self.resumes_ns).then_some(now)
            }
        }
    }

    /// Sends what may go now. `slot` is the client's number in its group and the group's count.
    pub fn send_due(
        &mut self,
        spec: &PublishSpec,
        slot: (u32, u32),
        connection: &mut Connection,
        context: &mut Context,
    ) {
        while context.phase == Phase::Publish && self.has_room(spec.qos, connection) {
            let Some(time_ns) = self.due(spec, context, slot) else {
                return;
            };
            self.send(spec, time_ns, connection.outgoing(), context);
        }
    }

    fn has_room(&self, qos: u8, connection: &Connection) -> bool {
        connection.backlog() < BACKLOG_BYTES
            && (qos == 0 || self.inflight.len() < usize::from(self.inflight_max))
    }

    fn send(&mut self, spec: &PublishSpec, time_ns: u64, out: &mut Vec<u8>, context: &mut Context) {
        let message = self.sent;
        let topic = message % spec.topics;
        let stream = self.first_stream + topic;
        let stamp = Stamp {
            time_ns,
            sequence: message / spec.topics,
            stream,
        };
        let bytes = spec
            .sizes
            .pick(u64::from(message) ^ u64::from(self.publisher) << 32);
        let packet_id = self.register(spec.qos, message, time_ns);
        let head = PublishHead {
            qos: spec.qos,
            is_retained: spec.is_retained,
            packet_id,
            alias: self.alias(spec, topic),
            protocol: context.plan.settings.protocol,
        };
        let topic_text: &[u8] = if head.alias.is_some() && message >= spec.topics {
            b""
        } else {
            context.plan.streams.topics[stream as usize].as_bytes()
        };
        codec::publish_head(head, topic_text, bytes, out);
        context.plan.payloads.write(stamp, bytes, out);
        self.sent += 1;
        context.progress += 1;
        context.control.sent[self.publisher as usize].store(self.sent, Ordering::Release);
        let owed = context.plan.streams.owed[stream as usize];
        context.owed += u64::from(owed);
        if spec.pace.window().is_some() {
            let awaited = if owed == 0 && spec.qos > 0 { 1 } else { owed };
            context.control.owe(self.publisher, message, awaited);
        }
        if time_ns >= context.measure_from_ns {
            context.meters.counts.published += 1;
            context.meters.counts.published_bytes += bytes as u64;
        } else {
            context.warmup_owed += u64::from(owed);
        }
    }

    fn alias(&self, spec: &PublishSpec, topic: u32) -> Option<u16> {
        let alias = u16::try_from(topic + 1).ok()?;
        (spec.is_aliased && u32::from(self.alias_max) >= spec.topics).then_some(alias)
    }

    fn register(&mut self, qos: u8, message: u32, time_ns: u64) -> u16 {
        if qos == 0 {
            return 0;
        }
        let packet_id = self.next_packet_id;
        self.next_packet_id = packet_id.checked_add(1).unwrap_or(1);
        self.inflight.push_back(Inflight {
            packet_id,
            message,
            time_ns,
        });
        packet_id
    }

    /// Takes PUBACK, PUBREC or PUBCOMP.
    pub fn acknowledged(
        &mut self,
        (kind, packet_id, reason): (u8, u16, u8),
        now_ns: u64,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) {
        let is_refused = reason >= 0x80;
        if kind == 5 && !is_refused {
            codec::ack(6, packet_id, out);
            return;
        }
        let Some(at) = self.inflight.iter().position(|i| i.packet_id == packet_id) else {
            context.breaches[if kind == 4 { 1 } else { 2 }].corrupt += 1;
            return;
        };
        let Some(inflight) = self.inflight.remove(at) else {
            return;
        };
        if is_refused {
            context.meters.counts.refused += 1;
        }
        if context.phase >= Phase::Clear {
            context.progress += 1;
            context.unblocked.push(self.publisher);
            return;
        }
        if inflight.time_ns >= context.measure_from_ns {
            context.meters.counts.acknowledged += 1;
            let latency = now_ns.saturating_sub(inflight.time_ns);
            context.meters.record(Measure::Ack, latency);
        }
        context.note_acknowledged(self.publisher, self.first_stream, inflight.message);
    }

    /// Removes the retained messages of this publisher, as far as there is room.
    pub fn clear_due(
        &mut self,
        spec: &PublishSpec,
        connection: &mut Connection,
        context: &mut Context,
    ) {
        while self.cleared < spec.topics && self.has_room(spec.qos, connection) {
            let head = PublishHead {
                qos: spec.qos,
                is_retained: true,
                packet_id: self.register(spec.qos, 0, 0),
                alias: None,
                protocol: context.plan.settings.protocol,
            };
            let stream = (self.first_stream + self.cleared) as usize;
            let topic = context.plan.streams.topics[stream].as_bytes();
            codec::publish_head(head, topic, 0, connection.outgoing());
            self.cleared += 1;
        }
    }

    /// Messages of the schedule that were never sent.
    pub const fn unsent(&self) -> u32 {
        self.scheduled.saturating_sub(self.sent)
    }
}
