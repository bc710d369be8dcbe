//! What the broker publishes itself, under `$SYS`.
//!
//! It goes the way of every publish, QoS 0 and retained, but what is retained of it stands apart: it is
//! neither kept on disk nor counted among what clients have retained, and finds room when they have taken
//! all.

use super::ShardCore;
use crate::engine::fanout::publication::Publication;
use crate::engine::message::{Message, Qos};
use crate::engine::route::retained::Retained;
use crate::engine::time::Timestamp;
use std::sync::Arc;

/// Topics of the broker's own begin so, and so does every filter that matches one.
const OWN: &str = "$SYS";

impl ShardCore {
    /// Publishes a value of the broker's own, in place of the one before: see
    /// [`ShardCore::publish_by_broker`].
    pub fn publish_own(&mut self, now: Timestamp, topic: &str, payload: &[u8]) -> bool {
        self.publish_by_broker(now, (topic, payload), Qos::AtMostOnce, true)
    }

    /// Publishes for the broker itself or an operator, whom no rule concerns. Not in a turn that has done its
    /// work, or while a large fan-out is under way: then it is to be tried again in the next.
    pub fn publish_by_broker(
        &mut self,
        now: Timestamp,
        (topic, payload): (&str, &[u8]),
        qos: Qos,
        retain: bool,
    ) -> bool {
        if self.backlog.is_spent() || self.fans_out() {
            return false;
        }
        let publication = Publication::new(topic, payload, &[], qos, retain, None);
        self.route_unanswered(publication, None, now);
        true
    }

    /// Keeps a value of the broker's own; gives back what is none.
    pub(super) fn retain_own(&mut self, message: Arc<Message>) -> Option<Arc<Message>> {
        if !message.topic().starts_with(OWN) {
            return Some(message);
        }
        // There are few of them, whatever clients do.
        let _ = self.own_retained.set(message, usize::MAX, usize::MAX);
        None
    }

    /// Where messages that match `filter` are retained.
    pub(super) fn retained_for(&self, filter: &str) -> &Retained {
        match filter.starts_with(OWN) {
            true => &self.own_retained,
            false => &self.retained,
        }
    }
}
