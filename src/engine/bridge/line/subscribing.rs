//! SUBSCRIBE to the remote broker: all that comes in by the rules, in as many packets as it takes. To the
//! core: all that goes out, and again what it did not grant.

use super::{Line, News, SUBSCRIBE_ID, Side, Stage};
use crate::engine::codec::Version;
use crate::engine::codec::remote::{Asked, put_subscribe};
use crate::engine::message::Qos;
use std::sync::Arc;

/// Bytes of a SUBSCRIBE without filters: header, packet identifier, property length.
const EMPTY_BYTES: usize = 1 + 4 + 2 + 1;
/// Of a filter beside its text: length and options.
const OF_FILTER_BYTES: usize = 2 + 1;

impl Line {
    /// Asks the core for what goes out, by filters that are wanted.
    pub(super) fn ask_core(&mut self, retain_handling: u8, is_wanted: impl Fn(&String) -> bool) {
        let plan = Arc::clone(&self.plan);
        let rules = plan.topics.iter().filter(|rule| rule.direction.goes_out());
        let wanted = rules.map(|rule| (rule.local_filter(), rule.qos_max));
        let wanted: Vec<_> = wanted.filter(|(filter, _)| is_wanted(filter)).collect();
        let asked = wanted.iter().map(|(filter, qos)| Asked {
            filter,
            qos: (*qos).min(plan.taken.qos_max),
            retain_handling,
        });
        let asked: Vec<_> = asked.collect();
        if !asked.is_empty() {
            put_subscribe(Version::V5, SUBSCRIBE_ID, &asked, &mut self.up);
            self.awaited.core = Some(wanted.into_iter().map(|(filter, _)| filter).collect());
        }
    }

    /// Other access rules are in force: what the core did not grant is asked for again. What is retained by
    /// it has never gone out.
    pub fn ask_again(&mut self) {
        if self.stage == Stage::Open && self.awaited.core.is_none() {
            let refused = self.awaited.not_granted.clone();
            self.ask_core(0, |filter| refused.contains(filter));
        }
    }

    pub(super) fn subscribe_there(&mut self) {
        let plan = Arc::clone(&self.plan);
        let rules = plan.topics.iter().filter(|rule| plan.asks_for(rule));
        let qos_max = self.remote.qos_max.min(plan.taken.qos_max);
        let wanted: Vec<_> = rules
            .map(|rule| (rule.remote_filter(), rule.qos_max.min(qos_max)))
            .filter(|(filter, _)| self.fits_subscribe(filter))
            .collect();
        // What waits in a session that goes on may have been asked for by other rules.
        if !self.remote.session_present {
            let highest = wanted.iter().map(|(_, qos)| *qos).max();
            self.remote.asked_qos = Some(highest.unwrap_or(Qos::AtMostOnce));
        }
        let mut packet_ids = (1..=SUBSCRIBE_ID).rev();
        let mut rest = &wanted[..];
        while let (false, Some(packet_id)) = (rest.is_empty(), packet_ids.next()) {
            let (part, after) = rest.split_at(self.filters_at_once(rest));
            self.put_filters(packet_id, part);
            rest = after;
        }
    }

    /// Whether the remote broker takes a SUBSCRIBE of this filter; it is told if not.
    fn fits_subscribe(&mut self, filter: &str) -> bool {
        let bytes = EMPTY_BYTES + OF_FILTER_BYTES + filter.len();
        let max = self.remote.packet_bytes_max;
        if bytes > max {
            let why = format!("a SUBSCRIBE of it has {bytes} bytes, the remote broker takes {max}");
            let news = News::Refused(Side::Here, filter.to_owned(), why);
            self.news.push(news);
        }
        bytes <= max
    }

    /// How many of these filters go into one SUBSCRIBE; one at least.
    fn filters_at_once(&self, filters: &[(String, Qos)]) -> usize {
        let mut bytes = EMPTY_BYTES;
        let fit = filters.iter().take_while(|(filter, _)| {
            bytes += OF_FILTER_BYTES + filter.len();
            bytes <= self.remote.packet_bytes_max
        });
        let max = self.plan.known.filters_per_subscribe_max;
        fit.count().min(max).clamp(1, filters.len().max(1))
    }

    fn put_filters(&mut self, packet_id: u16, filters: &[(String, Qos)]) {
        let retain_handling = if self.remote.session_present { 1 } else { 0 };
        let asked = filters.iter().map(|(filter, qos)| Asked {
            filter,
            qos: *qos,
            retain_handling,
        });
        let asked: Vec<_> = asked.collect();
        put_subscribe(self.version(), packet_id, &asked, &mut self.down);
        let filters = filters.iter().map(|(filter, _)| filter.clone()).collect();
        self.awaited.subacks.push((packet_id, filters));
    }
}
