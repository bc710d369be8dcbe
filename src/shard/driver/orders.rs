//! Orders of the control plane, and what it is told.

use super::{Around, Shell};
use crate::engine::keys::ShardId;
use crate::engine::turn;
use crate::shard::orders::{Event, Order, Reloadable};
use crate::shard::report::{Report, SLOW_MAX};
use crate::shard::ring::{Ring, heap};
use crossbeam_channel::{Receiver, Sender};
use std::time::Instant;

/// The shard's ends of the control plane's queues, and how far a stop has got.
pub(super) struct Orders {
    shard: ShardId,
    orders: Receiver<Order>,
    events: Sender<Event>,
    /// Accepts no more; to be told when everything of then is visible to the others.
    is_draining: bool,
    stop_by: Option<Instant>,
}

impl Orders {
    pub fn new(shard: ShardId, orders: Receiver<Order>, events: Sender<Event>) -> Self {
        Orders {
            shard,
            orders,
            events,
            is_draining: false,
            stop_by: None,
        }
    }

    /// Whether an order waits.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    fn next(&self) -> Option<Order> {
        self.orders.try_recv().ok()
    }

    /// When the shard has to have stopped.
    pub fn stop_by(&self) -> Option<Instant> {
        self.stop_by
    }

    /// Whether the shard has stopped, with so many sockets left.
    pub fn is_done(&self, sockets: usize, now: Instant) -> bool {
        self.stop_by.is_some_and(|by| sockets == 0 || now >= by)
    }

    /// Whose they are.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Tells the control plane something.
    pub fn tell(&self, event: impl FnOnce(ShardId) -> Event) {
        let _ = self.events.send(event(self.shard));
    }

    /// Tells that the first turn is done.
    pub fn tell_serving(&self) {
        let _ = self.events.send(Event::Serving(self.shard));
    }

    /// Tells once that wills are visible, when nothing waits for other shards any more.
    pub fn tell_drained(&mut self, is_flushed: bool) {
        if self.is_draining && is_flushed {
            self.is_draining = false;
            let _ = self.events.send(Event::Drained(self.shard));
        }
    }
}

impl Shell {
    pub(super) fn follow_orders(&mut self, ring: &mut Ring) {
        // Those that come meanwhile have the next turn.
        for _ in 0..self.orders.orders.len() {
            if let Some(order) = self.orders.next() {
                self.follow(ring, order);
            }
        }
    }

    /// Answers a question for statistics.
    fn tell_statistics(&mut self, ring: &Ring, number: u64) {
        self.count_lines();
        let mut list = self.core.statistics();
        list.extend(self.lines.counts.list());
        let longest = self.clock.take_turn_max();
        list.push(("turn_us_max", longest.as_micros() as u64));
        list.push(("mailboxes_full", self.mailroom.full()));
        list.push(("client_errors_displaced", self.mishaps.displaced));
        let of_ring = ring.counters();
        list.push(("accepts_paused_descriptors", of_ring.accept_backoffs));
        list.push(("connections_refused_descriptors", of_ring.accepts_refused));
        list.push(("mailbox_letters", self.mailroom.all_visible() as u64));
        list.extend([
            ("ring_enters", of_ring.enters),
            ("ring_completions", of_ring.completions),
            ("ring_overflows", of_ring.overflows),
            ("ring_sleeps", of_ring.sleeps),
            ("ring_gathers", of_ring.gathers),
            ("ring_receives_starved", of_ring.receives_starved),
            ("ring_sends_continued", of_ring.sends_continued),
            ("bytes_received", of_ring.bytes_received),
            ("bytes_sent", of_ring.bytes_sent),
        ]);
        let report = Report {
            counts: list,
            traffic: self.core.traffic().clone(),
            turns: self.clock.turns().clone(),
            rounds: self.clock.rounds().clone(),
            latencies: self.core.latencies().clone(),
            slow: self.laggards.tell(),
            bridges: self.bridges_wait(),
            loudest: self.core.loudest(self.clock.now(), SLOW_MAX),
        };
        let answer = Event::Statistics(self.orders.shard, number, Box::new(report));
        let _ = self.orders.events.send(answer);
    }

    fn confirm(&self, what: Reloadable, number: u64) {
        let held = Event::Holds(self.orders.shard, what, number);
        let _ = self.orders.events.send(held);
    }

    fn follow(&mut self, ring: &mut Ring, order: Order) {
        let now = self.clock.now();
        match order {
            Order::Statistics(number) => self.tell_statistics(ring, number),
            Order::Inquire(inquiry) => self.inquirer.take(inquiry),
            Order::Leave => heap::leave(),
            Order::Announce(values) => self.announcer.take(&values),
            Order::Tls(number, configs) => {
                self.admission.set_tls(&configs);
                self.confirm(Reloadable::Certificates, number);
            }
            Order::Acl(number, acl) => {
                self.core.set_acl(acl);
                self.confirm(Reloadable::Rules, number);
            }
            Order::Settings(number, settings, opening) => {
                self.core.renew((*settings).clone());
                self.core.look_at_memory(now);
                self.limit_addresses(settings.limits.connections_per_address_max);
                self.renew_listeners(ring, &opening);
                self.confirm(Reloadable::Settings, number);
            }
            Order::Bans(number, names, networks) => {
                self.set_bans(names, networks);
                self.confirm(Reloadable::Bans, number);
            }
            Order::Line(parcel) => {
                if let Some(line) = parcel.take() {
                    self.open_line(ring, line);
                }
            }
            Order::StopAccepting => {
                self.admission.stop(ring, None);
                self.core.publish_wills();
                self.orders.is_draining = true;
            }
            Order::Stop(by) => {
                // Wills of other shards are visible by now; they go out first.
                self.core.work_without_bound(now);
                turn::drain(&mut Around { shell: self, ring });
                self.core.work_with_bounds();
                self.core.disconnect_all();
                self.orders.stop_by = Some(by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_stop_is_told_once_and_keeps_its_deadline() {
        let (_sender, orders) = crossbeam_channel::bounded(1);
        let (events, told) = crossbeam_channel::bounded(4);
        let mut orders = Orders::new(3, orders, events);
        let now = Instant::now();
        assert!(!orders.is_done(0, now));
        orders.is_draining = true;
        orders.tell_drained(false);
        orders.tell_drained(true);
        orders.tell_drained(true);
        assert!(matches!(told.try_recv(), Ok(Event::Drained(3))));
        assert!(told.is_empty());
        orders.stop_by = Some(now + Duration::from_secs(1));
        assert!(!orders.is_done(1, now) && orders.is_done(0, now));
        assert!(orders.is_done(1, now + Duration::from_secs(1)));
    }
}
