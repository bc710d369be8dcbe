//! What a shard does at each stage of memory shortage ([`crate::engine::overload`]).

use super::ShardCore;
use crate::engine::keys::ConnectionKey;
use crate::engine::overload::{SHED_OUTBOX_BYTES_MAX, Stage};
use crate::engine::session::losses::LossReason;

/// How short memory is, and what that leaves to clients that are behind.
#[derive(Debug)]
pub(super) struct Shortage {
    /// How short.
    pub stage: Stage,
    /// Most bytes in an outbox for QoS 0 messages, at this stage.
    pub qos_0_bytes_max: usize,
}

impl Shortage {
    /// With so much memory; outboxes hold `outbox_bytes_max` where there is enough.
    pub(super) fn new(stage: Stage, outbox_bytes_max: usize) -> Self {
        let qos_0_bytes_max = if stage >= Stage::Shed {
            outbox_bytes_max.min(SHED_OUTBOX_BYTES_MAX)
        } else {
            outbox_bytes_max
        };
        Shortage {
            stage,
            qos_0_bytes_max,
        }
    }

    /// Why a QoS 0 message finds no room in its outbox.
    pub(super) fn loss_reason(&self) -> LossReason {
        if self.stage >= Stage::Shed {
            LossReason::MemoryShort
        } else {
            LossReason::OutboxFull
        }
    }
}

impl ShardCore {
    /// The control plane says how short memory is.
    pub fn set_stage(&mut self, stage: Stage) {
        let outbox_bytes_max = self.settings.limits.outbox_bytes_max;
        self.clients.shortage = Shortage::new(stage, outbox_bytes_max);
        if stage < Stage::Pause {
            self.resume_publishers();
        }
    }

    fn resume_publishers(&mut self) {
        let keys: Vec<_> = self.clients.connections.keys().collect();
        for key in keys {
            if let Some(connection) = self.clients.connections.get_mut(key)
                && std::mem::take(&mut connection.waits_for_memory)
            {
                self.resume_if_room(key);
            }
        }
    }

    /// A client has published while memory is very short: it is not read until there is more.
    pub(super) fn pause_publisher(&mut self, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut connection.waits_for_memory, true) {
            return;
        }
        self.clients.counters.publishers_paused_memory += 1;
        self.pause(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outboxes_shrink_to_the_bound_of_shortage_unless_they_are_smaller() {
        let holds = |stage, max| Shortage::new(stage, max).qos_0_bytes_max;
        assert_eq!(holds(Stage::Normal, 1 << 20), 1 << 20);
        assert_eq!(holds(Stage::Shed, 1 << 20), SHED_OUTBOX_BYTES_MAX);
        assert_eq!(holds(Stage::Refuse, 1000), 1000);
    }

    #[test]
    fn losses_are_put_down_to_memory_once_it_is_short() {
        let reason = |stage| Shortage::new(stage, 1000).loss_reason();
        assert_eq!(reason(Stage::Normal), LossReason::OutboxFull);
        assert_eq!(reason(Stage::Shed), LossReason::MemoryShort);
        assert_eq!(reason(Stage::Pause), LossReason::MemoryShort);
    }
}
