//! Traces of operators at a shard: what the core has seen for them, told with addresses.
//!
//! Invariant: lines are told before the connection that they are about can be forgotten; a shard waits for
//! nobody who takes them. One that nobody takes any more, or whose time is over, ends in the next turn.

use super::Shell;
use crate::engine::trace::{Followed, Trace, Traced};
use crate::shard::peer::Peer;
use crate::shard::trace::{Feed, Side, TraceOrder, TraceRow};
use ipnet::IpNet;
use std::time::Instant;

/// Those that run.
#[derive(Default)]
pub(super) struct Traces {
    running: Vec<Running>,
    /// Room for a list that is emptied each time.
    lines: Vec<Traced>,
}

struct Running {
    number: u64,
    /// Where the address has to be: the core knows only what counts as one.
    network: Option<IpNet>,
    until: Instant,
    feed: Feed,
}

impl Running {
    fn concerns(&self, peer: Option<Peer>) -> bool {
        let ip = peer.and_then(Peer::ip);
        self.network
            .is_none_or(|network| ip.is_some_and(|ip| network.contains(&ip)))
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.until || self.feed.is_over()
    }
}

impl Shell {
    /// Follows something for an operator.
    pub(super) fn begin_trace(&mut self, number: u64, order: &TraceOrder) {
        let network = match order.followed {
            Followed::Network(network) => Some(network),
            Followed::Client(_) | Followed::Topic(_) => None,
        };
        self.traces.running.push(Running {
            number,
            network,
            until: order.until,
            feed: order.feed.clone(),
        });
        self.core.begin_trace(Trace {
            number,
            followed: order.followed.clone(),
            payload_bytes_max: order.payload_bytes_max,
        });
    }

    /// Tells what was seen so far.
    #[inline]
    pub(super) fn tell_traced(&mut self) {
        if !self.traces.running.is_empty() {
            self.tell_those_who_follow();
        }
    }

    #[cold]
    fn tell_those_who_follow(&mut self) {
        let mut lines = std::mem::take(&mut self.traces.lines);
        self.core.take_traced(&mut lines);
        let (at_ms, shard) = (self.clock.now().as_ms(), self.orders.shard());
        let mut left_out = 0;
        for traced in lines.drain(..) {
            let socket = self.sockets.socket(traced.connection);
            let peer = socket.and_then(|socket| self.sockets.peer(socket));
            let mut running = self.traces.running.iter();
            let running = running.find(|it| it.number == traced.trace);
            if let Some(running) = running.filter(|it| it.concerns(peer)) {
                let address = peer.and_then(Peer::address);
                let row = TraceRow {
                    at_ms,
                    shard,
                    client_id: traced.client_id,
                    address: address.map(|address| address.to_string()),
                    from: match traced.is_from_client {
                        true => Side::Client,
                        false => Side::Broker,
                    },
                    packet: traced.line,
                };
                left_out += u64::from(!running.feed.tell(row));
            }
        }
        self.traces.lines = lines;
        for (number, count) in self.core.take_lines_left_out() {
            left_out += count;
            let mut running = self.traces.running.iter();
            if let Some(running) = running.find(|it| it.number == number) {
                running.feed.leave_out(count);
            }
        }
        self.core.note_lines_left_out(left_out);
        self.end_traces();
    }

    /// Ends those that are over.
    fn end_traces(&mut self) {
        let now = Instant::now();
        let core = &mut self.core;
        self.traces.running.retain(|running| {
            let is_over = running.is_over(now);
            if is_over {
                core.end_trace(running.number);
            }
            !is_over
        });
    }
}
