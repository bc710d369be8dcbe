//! Back to the first address: while a line is up to another one, the first is tried now and then, with a
//! line of its own. The session goes over when that has its CONNACK, so that nothing is given up before.

use super::dialler::{Call, Called};
use super::{Bridge, Bridges, State, spoken};
use crate::engine::bridge::line::{End, News};
use crate::engine::time::Timestamp;
use crate::shard::boot::Shards;
use std::time::Duration;
use tracing::{debug, info};

impl Bridges {
    /// Calls first addresses where it is time.
    pub(super) fn probe_what_is_due(&mut self, now: Timestamp) {
        let Some(dialler) = &self.dialler else {
            return;
        };
        for bridge in &mut self.bridges {
            if bridge.probe_at().is_none_or(|at| at > now) {
                continue;
            }
            let Some(address) = bridge.config.addresses.first() else {
                continue;
            };
            self.last_number += 1;
            bridge.probe = Some(self.last_number);
            bridge.attempts += 1;
            dialler.call(Call {
                number: self.last_number,
                address: address.clone(),
                timeout: Duration::from_millis(bridge.config.connect_timeout_ms),
            });
        }
    }

    fn by_probe(&mut self, number: u64) -> Option<&mut Bridge> {
        let mut bridges = self.bridges.iter_mut();
        bridges.find(|bridge| bridge.probe == Some(number))
    }

    /// A call of a first address is answered; others are given back.
    pub(super) fn probe_called(&mut self, called: Called, shards: &Shards) -> Option<Called> {
        let now = self.now();
        let number = called.number;
        let Some(bridge) = self.by_probe(number) else {
            return Some(called);
        };
        let protocol = bridge.dial.attempt().protocol;
        let to = bridge.config.addresses.first().cloned();
        match (called.outcome, to) {
            (Ok(connected), Some(to)) => {
                let tls = bridge.tls.first().cloned().flatten();
                let line = bridge.line(number, protocol, connected, (&to, tls));
                shards.open_line(bridge.home, line);
            }
            (Err(error), _) => bridge.probe_failed(now, &error.to_string()),
            (Ok(_), None) => bridge.probe_failed(now, "there is no such address"),
        }
        None
    }

    /// A line to a first address tells something; what others tell is given back.
    pub(super) fn probe_news(&mut self, number: u64, news: News) -> Option<News> {
        let now = self.now();
        let Some(bridge) = self.by_probe(number) else {
            return Some(news);
        };
        match news {
            News::Ended(end) => bridge.probe_failed(now, &end.cause),
            News::Up(..) => {
                bridge.go_back();
                return Some(news);
            }
            _ => return Some(news),
        }
        None
    }

    /// A line has ended while the first address is tried: that attempt is the one under way then. Whether it
    /// is so.
    pub(super) fn goes_back(&mut self, number: u64, end: &End) -> bool {
        let bridge = self.by_number(number);
        let Some(bridge) = bridge.filter(|bridge| bridge.probe.is_some()) else {
            return false;
        };
        debug!(
            "bridge {}: its line has ended: {}",
            bridge.config.name, end.cause
        );
        bridge.go_back();
        bridge.state = State::Joining;
        true
    }
}

impl Bridge {
    /// When the first address is to be tried, while its line is up to another.
    pub(super) fn probe_at(&self) -> Option<Timestamp> {
        let is_due = self.state == State::Up && self.probe.is_none();
        self.dial.probe_at().filter(|_| is_due)
    }

    /// From now on its line is the one to the first address.
    fn go_back(&mut self) {
        if let Some(number) = self.probe.take() {
            self.number = number;
            self.elsewhere = None;
            self.dial.go_back();
            info!(
                "bridge {} goes back to its first address: {}, {}",
                self.config.name,
                self.address(),
                spoken(self.dial.attempt().protocol)
            );
        }
    }

    fn probe_failed(&mut self, now: Timestamp, cause: &str) {
        self.probe = None;
        self.dial.probe_failed(now);
        let first = self.config.addresses.first();
        let first = first.map_or_else(String::new, ToString::to_string);
        debug!(
            "bridge {}: its first address, {first}: {cause}",
            self.config.name
        );
    }
}
