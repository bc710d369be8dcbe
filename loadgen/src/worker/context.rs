//! What the clients of a worker share: the plan, the phase, what is measured and verified.

use super::pace::intended_offset_ns;
use crate::control::{Control, Phase};
use crate::measure::Meters;
use crate::plan::Plan;
use crate::stamp::Stamp;
use crate::verify::{Breaches, Seen};
use std::sync::Arc;

/// Shared by a worker's clients; never by workers.
pub struct Context {
    /// What the run does.
    pub plan: Arc<Plan>,
    /// What the workers share.
    pub control: Arc<Control>,
    /// As this worker knows it.
    pub phase: Phase,
    /// Of the current second.
    pub meters: Meters,
    /// By QoS.
    pub breaches: [Breaches; 3],
    /// By shared group and source.
    pub seen: Vec<Vec<Seen>>,
    /// When the publishing began.
    pub start_ns: u64,
    /// Messages due before are not measured.
    pub measure_from_ns: u64,
    /// Stormy clients are away.
    pub is_storming: bool,
    /// Deliveries owed for what this worker's publishers sent.
    pub owed: u64,
    /// First deliveries of messages that are owed.
    pub delivered: u64,
    /// Of the deliveries owed, those of the warm-up.
    pub warmup_owed: u64,
    /// Of these, how many came.
    pub warmup_delivered: u64,
    /// Clients that the broker answered when they asked.
    pub answered: u64,
    /// Retained messages replayed.
    pub replayed: u64,
    /// Publishers of this worker that may go on.
    pub unblocked: Vec<u32>,
    /// Publishes, acknowledgements and owed deliveries so far: what must not stand still.
    pub progress: u64,
    place: (u32, u32),
}

impl Context {
    /// For worker `place.0` of `place.1`.
    pub fn new(plan: Arc<Plan>, control: Arc<Control>, place: (u32, u32)) -> Self {
        let groups = plan.share_groups.iter();
        let seen = groups
            .map(|group| vec![Seen::default(); group.sources.len()])
            .collect();
        Context {
            plan,
            control,
            phase: Phase::Wait,
            meters: Meters::default(),
            breaches: [Breaches::default(); 3],
            seen,
            start_ns: 0,
            measure_from_ns: 0,
            is_storming: false,
            owed: 0,
            delivered: 0,
            warmup_owed: 0,
            warmup_delivered: 0,
            answered: 0,
            replayed: 0,
            unblocked: Vec::new(),
            progress: 0,
            place,
        }
    }

    /// When message `message` of client `slot.0` of `slot.1` should be sent.
    pub fn intended_ns(&self, message: u32, slot: (u32, u32), rate: f64) -> u64 {
        self.start_ns + intended_offset_ns(message, slot, rate)
    }

    /// Opens the window of a message's publisher when this was its last delivery.
    pub fn note_delivery(&mut self, stamp: Stamp) {
        let stream = stamp.stream as usize;
        if !self.plan.streams.is_closed_loop[stream] {
            return;
        }
        let number = self.plan.streams.publishers[stream];
        let publisher = self.plan.publishers[number as usize];
        let group = &self.plan.groups[publisher.group as usize];
        let Some(publish) = &group.spec.publish else {
            return;
        };
        let message =
            stamp.sequence.wrapping_mul(publish.topics) + (stamp.stream - publisher.first_stream);
        if self.control.is_last_delivery(number, message) {
            self.open_window(number, group.first_publisher);
        }
    }

    /// Notes that the broker acknowledged `message`.
    pub fn note_acknowledged(&mut self, number: u32, first_stream: u32, message: u32) {
        let publisher = self.plan.publishers[number as usize];
        let group = &self.plan.groups[publisher.group as usize];
        let topics = group.spec.publish.as_ref().map_or(1, |p| p.topics);
        let stream = (first_stream + message % topics) as usize;
        if self.plan.streams.is_closed_loop[stream] && self.plan.streams.owed[stream] == 0 {
            self.control.is_last_delivery(number, message);
        }
        self.progress += 1;
        self.unblocked.push(number);
    }

    fn open_window(&mut self, number: u32, first_publisher: u32) {
        let (own, workers) = self.place;
        let owner = (number - first_publisher) % workers;
        if owner == own {
            self.unblocked.push(number);
        } else {
            self.control.notify(owner as usize, number);
        }
    }
}
