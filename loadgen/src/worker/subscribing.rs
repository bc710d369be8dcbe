//! What a subscriber does with a PUBLISH: check it, time it, answer it.

use super::Context;
use crate::codec::{self, Publish};
use crate::control::Phase;
use crate::measure::Measure;
use crate::plan::streams::Sources;
use crate::stamp::Stamp;
use crate::verify::{Arrival, Tracker};
use std::sync::Arc;

/// A client's side of a subscription.
pub struct Subscribing {
    /// What it is owed.
    pub sources: Arc<Sources>,
    /// QoS of the subscription.
    pub qos: u8,
    /// Number of its shared group.
    pub share: Option<usize>,
    /// Subscribes late, for retained messages.
    pub is_late: bool,
    /// Has left, and comes back for what was published meanwhile.
    pub is_away: bool,
    /// What it gets counts as owed.
    pub is_owed: bool,
    /// One for each source; of a shared group's member only where it is known who got what.
    pub trackers: Vec<Tracker>,
    /// Lowest next sequence by source, for members of shared groups.
    pub order: Vec<u32>,
    /// Retained messages it was sent.
    pub replayed: u32,
}

/// What a delivery turned out to be.
enum Checked {
    Corrupt,
    Seen(Stamp, usize, Arrival),
}

impl Subscribing {
    fn check(&mut self, publish: &Publish<'_>, context: &mut Context) -> Checked {
        let plan = &context.plan;
        let Some(stamp) = plan.payloads.read(publish.payload) else {
            return Checked::Corrupt;
        };
        let Some(index) = self.sources.index_of(stamp.stream) else {
            return Checked::Corrupt;
        };
        let stream = stamp.stream as usize;
        let qos = plan.streams.qos[stream].min(self.qos);
        if plan.streams.topics[stream].as_bytes() != publish.topic
            || publish.qos != qos
            || publish.is_retained != self.is_late
        {
            return Checked::Corrupt;
        }
        let arrival = match self.share {
            Some(share) => self.note_shared(share, index, stamp.sequence, context),
            None => self.trackers[index].note(stamp.sequence),
        };
        Checked::Seen(stamp, usize::from(qos), arrival)
    }

    fn note_shared(
        &mut self,
        share: usize,
        index: usize,
        sequence: u32,
        context: &mut Context,
    ) -> Arrival {
        if !context.seen[share][index].note(sequence) {
            return Arrival::Again;
        }
        match self.order.get_mut(index) {
            Some(next) if sequence < *next => Arrival::Late,
            Some(next) => {
                *next = sequence + 1;
                Arrival::New
            }
            None => Arrival::New,
        }
    }

    /// Takes a PUBLISH that arrived at `now_ns`.
    pub fn deliver(
        &mut self,
        publish: &Publish<'_>,
        now_ns: u64,
        subscribed_ns: u64,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) {
        match publish.qos {
            1 => codec::ack(4, publish.packet_id, out),
            2 => codec::ack(5, publish.packet_id, out),
            _ => {}
        }
        if context.phase >= Phase::Clear {
            return;
        }
        let (stamp, qos, arrival) = match self.check(publish, context) {
            // Another worker may have begun to clear before this one saw the phase.
            Checked::Corrupt if context.control.phase() >= Phase::Clear => return,
            Checked::Corrupt => {
                let breaches = &mut context.breaches[usize::from(publish.qos.min(2))];
                breaches.corrupt += 1;
                return;
            }
            Checked::Seen(stamp, qos, arrival) => (stamp, qos, arrival),
        };
        let breaches = &mut context.breaches[qos];
        breaches.delivered += 1;
        match arrival {
            Arrival::New => {}
            Arrival::Late => breaches.reordered += 1,
            Arrival::Again => {
                breaches.duplicated += 1;
                return;
            }
        }
        if self.is_late || self.is_away {
            self.note_replayed(publish, now_ns - subscribed_ns, context);
        } else {
            self.note_live(publish, stamp, now_ns, context);
        }
    }

    fn note_replayed(&mut self, publish: &Publish<'_>, ns: u64, context: &mut Context) {
        self.replayed += 1;
        context.replayed += 1;
        context.progress += 1;
        context.meters.counts.delivered += 1;
        context.meters.counts.delivered_bytes += publish.payload.len() as u64;
        context.meters.record(Measure::Replay, ns);
        if self.is_late && self.replayed as usize == self.sources.len() {
            context.meters.record(Measure::ReplayWhole, ns);
        }
    }

    fn note_live(&self, publish: &Publish<'_>, stamp: Stamp, now_ns: u64, context: &mut Context) {
        if !self.is_owed {
            return;
        }
        context.delivered += 1;
        context.progress += 1;
        if stamp.time_ns >= context.measure_from_ns {
            let latency = now_ns.saturating_sub(stamp.time_ns);
            context.meters.counts.delivered += 1;
            context.meters.counts.delivered_bytes += publish.payload.len() as u64;
            context.meters.record(Measure::Deliver, latency);
            if context.is_storming {
                context.meters.record(Measure::DeliverInStorm, latency);
            }
        } else {
            context.warmup_delivered += 1;
        }
        context.note_delivery(stamp);
    }
}
