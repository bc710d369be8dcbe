//! What a worker hands in at the end: what was lost, and how busy it was.

use super::Worker;
use super::client::Stage;
use crate::codec::DISCONNECT;
use crate::control::Control;
use crate::measure::host::ThreadUse;
use crate::plan::Plan;
use crate::verify::{Breaches, Seen};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a worker found.
#[derive(Debug, Default)]
pub struct Results {
    /// By QoS.
    pub breaches: [Breaches; 3],
    /// By shared group and source; merged by the conductor.
    pub seen: Vec<Vec<Seen>>,
    /// Messages of the schedule that were never sent.
    pub unsent: u64,
    /// What the thread ran and waited for, and for how long it was watched.
    pub used: (ThreadUse, Duration),
}

/// Messages that were sent in a stream.
pub fn sent_in_stream(plan: &Plan, control: &Control, stream: u32) -> u32 {
    let number = plan.streams.publishers[stream as usize];
    let publisher = plan.publishers[number as usize];
    let spec = plan.groups[publisher.group as usize].spec.publish.as_ref();
    let topics = spec.map_or(1, |publish| publish.topics);
    let sent = control.sent[number as usize].load(Ordering::Acquire);
    sent / topics + u32::from(stream - publisher.first_stream < sent % topics)
}

impl Worker {
    pub(super) fn finish(mut self) -> Results {
        self.send_interval();
        let now = self.context.control.now_ns();
        self.report(now);
        for client in &mut self.clients {
            if client.stage == Stage::Ready
                && let Some(connection) = &mut client.connection
            {
                connection.outgoing().extend_from_slice(&DISCONNECT);
                // The run is over; a broker that is gone by now changes nothing.
                let _ = connection.flush();
            }
        }
        self.stop_watch();
        let mut results = Results {
            breaches: self.context.breaches,
            used: self.used,
            ..Results::default()
        };
        let (plan, control) = (&self.context.plan, &self.context.control);
        for client in &self.clients {
            if let Some(publishing) = &client.publishing {
                results.unsent += u64::from(publishing.unsent());
            }
            let Some(subscribing) = &client.subscribing else {
                continue;
            };
            let counts = subscribing.is_owed || subscribing.is_late || subscribing.is_away;
            if subscribing.share.is_some() || !counts {
                continue;
            }
            for (stream, tracker) in subscribing.sources.iter().zip(&subscribing.trackers) {
                let sent = sent_in_stream(plan, control, stream);
                let (lost, invented) = tracker.lost_and_invented(sent);
                let qos = plan.streams.qos[stream as usize].min(subscribing.qos);
                let breaches = &mut results.breaches[usize::from(qos)];
                breaches.lost += lost;
                breaches.corrupt += invented;
            }
        }
        results.seen = std::mem::take(&mut self.context.seen);
        results
    }
}

/// Merges what the members of shared groups saw on all workers; adds what is missing or came twice.
pub fn settle_shared(plan: &Plan, control: &Control, all: &mut [Results]) -> [Breaches; 3] {
    let mut breaches = [Breaches::default(); 3];
    for (number, group) in plan.share_groups.iter().enumerate() {
        for (index, stream) in group.sources.iter().enumerate() {
            let mut union = Seen::default();
            let qos = usize::from(plan.streams.qos[stream as usize].min(group.qos));
            for results in all.iter() {
                if let Some(seen) = results.seen.get(number).and_then(|s| s.get(index)) {
                    breaches[qos].duplicated += union.merge(seen);
                }
            }
            let sent = u64::from(sent_in_stream(plan, control, stream));
            breaches[qos].lost += sent.saturating_sub(union.count());
        }
    }
    breaches
}
