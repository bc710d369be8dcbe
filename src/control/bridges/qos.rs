//! Remote brokers that do not take QoS 2 and cannot say so, by which of a bridge's addresses: told once, and
//! kept until the bridge is altered or the broker starts anew.
//!
//! One that answers by PUBACK has shown it. One that closes is taken for it after so many lines in a row that
//! ended with nothing but that unanswered, unless it has ever answered one: a remote broker that is killed
//! under load would look the same.

use super::Bridge;
use crate::engine::bridge::line::OfQos2;
use crate::engine::bridge::plan::{Known, Plan};
use crate::engine::message::Qos;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::warn;

/// Lines in a row after which a remote broker is taken for one that closes on QoS 2.
const UNANSWERED_MAX: u32 = 5;

/// What is known of the remote broker at an address.
#[derive(Clone, Copy, Debug, Default)]
struct OfAddress {
    /// Lines in a row that have ended so.
    unanswered: u32,
    /// It has answered one as it should.
    has_answered: bool,
    /// It gets QoS 1 at most.
    is_lowered: bool,
}

/// What is known of them by the places of their addresses; nothing of most.
#[derive(Debug, Default)]
pub(super) struct Qos2(BTreeMap<usize, OfAddress>);

impl Qos2 {
    /// A remote broker has answered QoS 2 by PUBACK: whether that is new.
    fn refuse(&mut self, address: usize) -> bool {
        let known = self.0.entry(address).or_default();
        !std::mem::replace(&mut known.is_lowered, true)
    }

    /// A line has ended: whether its remote broker is taken for one that closes on QoS 2 from now on.
    fn ended(&mut self, address: usize, of_qos_2: OfQos2) -> bool {
        let known = match of_qos_2 {
            OfQos2::Untried => return false,
            _ => self.0.entry(address).or_default(),
        };
        if of_qos_2 == OfQos2::Answered {
            (known.unanswered, known.has_answered) = (0, true);
        } else {
            known.unanswered += 1;
        }
        let is_over = known.unanswered >= UNANSWERED_MAX && !known.has_answered;
        is_over && self.refuse(address)
    }

    fn is_lowered(&self, address: usize) -> bool {
        self.0.get(&address).is_some_and(|known| known.is_lowered)
    }
}

impl Bridge {
    /// What lines to an address are told: without QoS 2, if it does not take that.
    pub(super) fn plan_for(&self, address: usize) -> Arc<Plan> {
        let plan = &self.plan;
        if !self.qos_2.is_lowered(address) {
            return Arc::clone(plan);
        }
        let known = Known {
            qos_max: plan.known.qos_max.min(Qos::AtLeastOnce),
            ..plan.known
        };
        Arc::new(Plan {
            known,
            ..(**plan).clone()
        })
    }

    /// Its remote broker answers QoS 2 as if it were 1: whether that is new.
    pub(super) fn learn_by_answer(&mut self) -> bool {
        let is_new = self.qos_2.refuse(self.dial.attempt().address);
        if is_new {
            self.warn_of_qos("answers messages of QoS 2 as if they were of QoS 1");
        }
        is_new
    }

    /// Its line has ended: whether it gets no more QoS 2 from now on.
    pub(super) fn learn_by_end(&mut self, of_qos_2: OfQos2) -> bool {
        let is_lowered = self.qos_2.ended(self.dial.attempt().address, of_qos_2);
        if is_lowered {
            let how = format!(
                "has ended {UNANSWERED_MAX} lines in a row upon messages of QoS 2, and answered none"
            );
            self.warn_of_qos(&how);
        }
        is_lowered
    }

    fn warn_of_qos(&self, how: &str) {
        warn!(
            "bridge {}: {} {how}: from now on it gets QoS 1 at most, so what was of QoS 2 may come there \
             twice; say so by bridge.topics.qos_max = 1 or a bridge.preset, or alter the bridge to have it \
             tried anew",
            self.config.name,
            self.address()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_closes_is_lowered_after_so_many_in_a_row_unless_it_has_answered() {
        let mut qos_2 = Qos2::default();
        for round in 1..=UNANSWERED_MAX {
            assert!(!qos_2.is_lowered(0));
            let is_last = round == UNANSWERED_MAX;
            assert_eq!(qos_2.ended(0, OfQos2::Unanswered), is_last);
            assert!(!qos_2.ended(0, OfQos2::Untried));
        }
        assert!(qos_2.is_lowered(0) && !qos_2.is_lowered(1));
        assert!(!qos_2.ended(1, OfQos2::Answered));
        for _ in 0..2 * UNANSWERED_MAX {
            assert!(!qos_2.ended(1, OfQos2::Unanswered));
        }
        assert!(qos_2.refuse(1) && !qos_2.refuse(1), "told once");
        assert!(qos_2.is_lowered(1));
    }
}
