//! What conductor and workers share while a run lasts: the phase, the counts, the windows.
//!
//! Workers write their own [`Gauges`]; the conductor reads all. Windows are one atomic count per
//! outstanding message, so that a message counts as delivered when its last subscriber has it,
//! wherever that subscriber's worker runs.

use crate::plan::Plan;
use crossbeam_channel::Sender;
use mio::Waker;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Nothing yet.
    Wait,
    /// Clients connect and subscribe.
    Connect,
    /// Publishers publish.
    Publish,
    /// No more publishes begin; what is outstanding arrives.
    Drain,
    /// Late subscribers subscribe and are sent what is retained.
    Replay,
    /// Retained messages are removed.
    Clear,
    /// Workers hand in their results.
    Finish,
}

impl Phase {
    const ALL: [Phase; 7] = [
        Phase::Wait,
        Phase::Connect,
        Phase::Publish,
        Phase::Drain,
        Phase::Replay,
        Phase::Clear,
        Phase::Finish,
    ];
}

/// Counts of one worker, for the conductor.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Clients that are connected and subscribed.
    pub ready: AtomicU64,
    /// Connects that failed for good.
    pub failed: AtomicU64,
    /// Publishers that have more to send or wait for acknowledgements, in the phase `counted_in`.
    publishing: AtomicU64,
    /// The phase in which the publishers were last counted.
    counted_in: AtomicU8,
    /// Deliveries that the messages sent so far are owed.
    pub owed: AtomicU64,
    /// Of these, how many came.
    pub delivered: AtomicU64,
    /// Retained messages replayed.
    pub replayed: AtomicU64,
    /// Publishes, acknowledgements, owed deliveries.
    pub progress: AtomicU64,
    /// Stormy clients that are not back.
    pub away: AtomicU64,
    /// Of the deliveries owed, those of the warm-up.
    pub warmup_owed: AtomicU64,
    /// Of these, how many came.
    pub warmup_delivered: AtomicU64,
    /// Clients that were asked whether the broker still answers them.
    pub probed: AtomicU64,
    /// Of these, how many got an answer.
    pub answered: AtomicU64,
    /// This worker has asked.
    pub has_probed: AtomicBool,
}

impl Gauges {
    /// Notes how many publishers have more to do in `phase`, after every other gauge of the turn.
    pub fn count_publishing(&self, count: u64, phase: Phase) {
        self.publishing.store(count, Ordering::Relaxed);
        self.counted_in.store(phase as u8, Ordering::Release);
    }
}

/// Shared by conductor and workers.
#[derive(Debug)]
pub struct Control {
    phase: AtomicU8,
    /// Of the publish phase, in ns since the origin.
    pub start_ns: AtomicU64,
    /// Deliveries of messages sent before are not measured.
    pub measure_from_ns: AtomicU64,
    /// Stormy clients drop now.
    pub storm: AtomicBool,
    /// Those who leave before the publishing leave now.
    pub leave: AtomicBool,
    /// Clients ask now whether the broker answers.
    pub probe: AtomicBool,
    /// Aliases were asked for and the broker takes too few.
    pub lacks_aliases: AtomicBool,
    /// The clock's zero.
    pub origin: Instant,
    /// Of each worker.
    pub gauges: Vec<Gauges>,
    /// Messages sent, per publisher.
    pub sent: Vec<AtomicU32>,
    outstanding: Vec<AtomicU32>,
    window_max: u32,
    failure: Mutex<Option<String>>,
    wakers: OnceLock<Vec<(Arc<Waker>, Sender<u32>)>>,
}

impl Control {
    /// For a plan and so many workers.
    pub fn new(plan: &Plan, workers: usize) -> Self {
        Control::of(plan.publishers.len(), plan.window_max, workers)
    }

    fn of(publishers: usize, window_max: u32, workers: usize) -> Self {
        let counters = |count: usize| (0..count).map(|_| AtomicU32::new(0)).collect();
        Control {
            phase: AtomicU8::new(0),
            start_ns: AtomicU64::new(0),
            measure_from_ns: AtomicU64::new(0),
            storm: AtomicBool::new(false),
            leave: AtomicBool::new(false),
            probe: AtomicBool::new(false),
            lacks_aliases: AtomicBool::new(false),
            origin: Instant::now(),
            gauges: (0..workers).map(|_| Gauges::default()).collect(),
            sent: counters(publishers),
            outstanding: counters(publishers * window_max as usize),
            window_max,
            failure: Mutex::new(None),
            wakers: OnceLock::new(),
        }
    }

    /// Nanoseconds since the origin.
    pub fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Where the run is.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    /// Moves on and wakes everybody.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        self.wake();
    }

    /// Wakes everybody.
    pub fn wake(&self) {
        for (waker, _) in self.wakers.get().into_iter().flatten() {
            // A worker that is gone has said why.
            let _ = waker.wake();
        }
    }

    /// Notes how workers are woken; once, before they start.
    pub fn set_wakers(&self, wakers: Vec<(Arc<Waker>, Sender<u32>)>) {
        let _ = self.wakers.set(wakers);
    }

    /// Keeps the first reason why the run cannot go on.
    pub fn fail(&self, why: String) {
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        failure.get_or_insert(why);
    }

    /// Why the run cannot go on.
    pub fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone()
    }

    fn slot(&self, publisher: u32, message: u32) -> &AtomicU32 {
        let within = (message % self.window_max) as usize;
        &self.outstanding[publisher as usize * self.window_max as usize + within]
    }

    /// Whether message `message` fits in a window of `window`.
    pub fn has_room(&self, publisher: u32, message: u32, window: u32) -> bool {
        match message.checked_sub(window) {
            Some(before) => self.slot(publisher, before).load(Ordering::Acquire) == 0,
            None => true,
        }
    }

    /// Notes that `message` is owed `count` deliveries.
    pub fn owe(&self, publisher: u32, message: u32, count: u32) {
        self.slot(publisher, message)
            .store(count, Ordering::Release);
    }

    /// Notes one delivery of `message`; whether it was the last one.
    pub fn is_last_delivery(&self, publisher: u32, message: u32) -> bool {
        let slot = self.slot(publisher, message);
        let left = slot.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.checked_sub(1));
        left == Ok(1)
    }

    /// Tells the worker of `publisher` that its window has room.
    pub fn notify(&self, worker: usize, publisher: u32) {
        if let Some((waker, sender)) = self.wakers.get().and_then(|all| all.get(worker)) {
            // A worker that is gone needs no more publishes.
            let _ = sender.send(publisher);
            let _ = waker.wake();
        }
    }

    /// Whether every worker has seen the phase, and none has a publisher with more to do in it. What a
    /// worker that was not scheduled yet said of an earlier phase does not count.
    pub fn is_publishing_over(&self) -> bool {
        let phase = self.phase.load(Ordering::Acquire);
        self.gauges.iter().all(|gauges| {
            gauges.counted_in.load(Ordering::Acquire) == phase
                && gauges.publishing.load(Ordering::Relaxed) == 0
        })
    }

    /// Sums a gauge over all workers.
    pub fn sum(&self, gauge: impl Fn(&Gauges) -> &AtomicU64) -> u64 {
        let each = self.gauges.iter();
        each.map(|g| gauge(g).load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_is_not_over_before_each_worker_has_counted_in_this_phase() {
        let control = Control::of(2, 1, 2);
        for gauges in &control.gauges {
            gauges.count_publishing(0, Phase::Connect);
        }
        control.enter(Phase::Publish);
        assert!(!control.is_publishing_over());
        control.gauges[0].count_publishing(0, Phase::Publish);
        assert!(!control.is_publishing_over());
        control.gauges[1].count_publishing(1, Phase::Publish);
        assert!(!control.is_publishing_over());
        control.gauges[1].count_publishing(0, Phase::Publish);
        assert!(control.is_publishing_over());
    }
}
