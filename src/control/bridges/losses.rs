//! What a line has dropped, and what the remote broker did not take: told by reason with how many there were,
//! and not again for a minute.

use super::{Bridge, Bridges};
use crate::engine::bridge::CLIENT_ID_PREFIX;
use crate::engine::bridge::line::LineCounts;
use crate::engine::codec::Reason as Code;
use crate::engine::time::Timestamp;
use crate::shard::bridge::{LossBy, SessionLoss};
use tracing::{info, warn};

/// How long nothing more of the kind is told of a bridge.
const QUIET_MS: u64 = 60_000;

/// A reason: how many there are, with the code that the other broker gave, what is said of them, and what
/// helps.
type Reason = (
    fn(&LineCounts) -> (u64, Option<Code>),
    &'static str,
    &'static str,
);

const REASONS: [Reason; 3] = [
    (
        |counts| (counts.dropped_too_large, None),
        "dropped (dropped_bridge_too_large): they are larger than the other side takes, which is there what \
         its CONNACK or bridge.preset says and here limits.max_packet_bytes",
        "publish smaller ones, or raise that",
    ),
    (
        |counts| (counts.dropped_topic, None),
        "dropped (dropped_bridge_topic): no rule has their topic any more, or it may not be one on the \
         other side",
        "look at the prefixes of bridge.topics, what bridge.preset says of topics, and here \
         limits.topic_bytes_max and limits.topic_levels_max",
    ),
    (
        |counts| (counts.refused_remote, counts.refused_by),
        "not taken by the other broker (bridge_messages_rejected)",
        "look at its access rules and bounds for the user and topics of the bridge",
    ),
];

/// What was lost by a bridge and not told yet.
#[derive(Debug, Default)]
pub(super) struct Losses {
    untold: LineCounts,
    /// Until then nothing is told.
    quiet_until: Timestamp,
    /// What hops have ended was told.
    has_told_hops: bool,
}

impl Losses {
    fn has_any(&self) -> bool {
        REASONS.iter().any(|(of, ..)| of(&self.untold).0 > 0)
    }

    /// When there is something to tell.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        self.has_any().then_some(self.quiet_until)
    }
}

impl Bridge {
    /// More went through it, or did not.
    pub(super) fn take_counts(&mut self, more: &LineCounts, now: Timestamp) {
        self.counts.add(more);
        self.losses.untold.add(more);
        if more.dropped_hops > 0 && !std::mem::replace(&mut self.losses.has_told_hops, true) {
            info!(
                "bridge {}: messages go no further (dropped_bridge_hops): they have been where they would \
                 go, or have left bridge.hops_max brokers; that is how rings end, and no more is said of it",
                self.config.name
            );
        }
        self.tell_losses(now);
    }

    fn tell_losses(&mut self, now: Timestamp) {
        if self.losses.due_at().is_none_or(|at| at > now) {
            return;
        }
        self.losses.quiet_until = now.plus_ms(QUIET_MS);
        let untold = std::mem::take(&mut self.losses.untold);
        for (of, what, remedy) in REASONS {
            let (count, code) = of(&untold);
            let messages = match count {
                0 => continue,
                1 => "1 message was".to_owned(),
                count => format!("{count} messages were"),
            };
            let why = code.map_or_else(String::new, |code| format!(", the last one with {code}"));
            warn!(
                "bridge {} ({}): {messages} {what}{why}; {remedy}",
                self.config.name,
                self.address()
            );
        }
    }
}

impl Bridges {
    pub(super) fn tell_losses_that_are_due(&mut self, now: Timestamp) {
        for bridge in &mut self.bridges {
            bridge.tell_losses(now);
        }
    }
}

/// What waited for a bridge is dropped with its session.
pub fn tell_session_loss(loss: &SessionLoss) {
    let (client_id, messages) = (&*loss.client_id, loss.messages);
    let name = client_id.strip_prefix(CLIENT_ID_PREFIX);
    let name = name.unwrap_or(client_id);
    let why = match loss.by {
        LossBy::Removal => "a reload has removed it, or one of its bridge.connections",
        LossBy::User => {
            "bridge.local_user is another one, who gets nothing of what was for the one before"
        }
    };
    warn!("bridge {name}: {messages} messages that waited for it are dropped: {why}");
}
