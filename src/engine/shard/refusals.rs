//! Why a client is refused or disconnected, in words that name the limit, its key and its value.

use super::Settings;
use crate::engine::codec::Reason;
use crate::engine::codec::foreign::Foreign;
use crate::engine::codec::topic::TopicError;
use crate::engine::limits::Limits;
use crate::engine::session::connection::Surplus;
use crate::engine::session::rates::Rate;
use std::borrow::Cow;
use std::fmt::Display;

/// A reason code, and why in words.
pub(super) type Refused = (Reason, Cow<'static, str>);

/// Why a client is banned: by what it is called, ...
pub(super) const BY_NAME: &str = "its client identifier or user is banned (bans.file, or for a time by the \
                                  admin API)";
/// ... by what it did, ...
pub(super) const AS_SEEN: &str = "it connected too often and is banned for bans.seconds \
                                  (bans.flapping_connects_max)";
/// ... or by where it is.
pub(super) const BY_ADDRESS: &str = "its address is banned (bans.file, for a time by the admin API, or \
                                     for bans.seconds by bans.failed_logins_max)";

/// Why nobody may publish to a topic.
pub(super) const RESERVED: &str = "topics under $SYS, $share and $queue are the broker's own";

/// Why a connection is closed whose first packet is not CONNECT: what it is instead, where its bytes tell.
pub(super) fn not_connect(stream: &[u8]) -> Cow<'static, str> {
    const TEXT: &str = "its first packet is not CONNECT";
    match Foreign::of(stream) {
        Some(foreign) => format!("{TEXT}: {}", foreign.in_place_of_connect()).into(),
        None => TEXT.into(),
    }
}

/// Something goes beyond a limit.
pub(super) fn beyond(what: &str, key: &str, max: impl Display) -> Cow<'static, str> {
    format!("{what} ({key} = {max})").into()
}

/// Something is switched off.
pub(super) fn switched_off(what: &str, key: &str) -> Cow<'static, str> {
    beyond(what, key, false)
}

impl Settings {
    /// What is wrong with a topic or a filter.
    pub(super) fn topic_text(&self, error: TopicError) -> Cow<'static, str> {
        let limits = &self.limits;
        match error {
            TopicError::TooLong => beyond(
                "it is longer than may be",
                "limits.topic_bytes_max",
                limits.topic_bytes_max,
            ),
            TopicError::TooDeep => beyond(
                "it has more levels than may be",
                "limits.topic_levels_max",
                limits.topic_levels_max,
            ),
            TopicError::Empty => "it is empty".into(),
            TopicError::Wildcard => "a wildcard stands where it must not".into(),
            TopicError::ShareName => "it is not of the form $share/NAME/FILTER".into(),
        }
    }

    /// Which limit of connections is reached.
    pub(super) fn too_many_connections(
        &self,
        listener: u16,
        surplus: Surplus,
    ) -> Cow<'static, str> {
        let (what, key, max) = match surplus {
            Surplus::InAll => (
                "as many connections as may be",
                "limits.connections_max",
                self.limits.connections_max,
            ),
            Surplus::OfListener => (
                "as many connections by its listener as may be",
                "listener.connections_max",
                self.listener(listener)
                    .map_or(0, |policy| policy.connections_max),
            ),
            Surplus::OfAddress => (
                "as many connections from its address as may be",
                "limits.connections_per_address_max",
                self.limits.connections_per_address_max,
            ),
        };
        beyond(what, key, max)
    }

    /// Which rate a client has exceeded; its listener may have one of its own.
    pub(super) fn too_fast(&self, listener: u16, rate: Rate) -> Cow<'static, str> {
        let max = |limits: &Limits| match rate {
            Rate::Publishes => limits.publish_rate_max,
            Rate::PublishBytes => limits.publish_bytes_rate_max,
            Rate::Filters => limits.subscribe_rate_max,
        };
        let (what, key) = match rate {
            Rate::Publishes => ("messages", "publish_rate_max"),
            Rate::PublishBytes => ("bytes of topic and payload", "publish_bytes_rate_max"),
            Rate::Filters => ("filters subscribed to or given up", "subscribe_rate_max"),
        };
        let (of_all, of_client) = (max(&self.limits), max(self.client_limits(listener)));
        let whose = if of_all == of_client { "" } else { "listener." };
        let what = format!("more {what} per second than may be");
        let text = beyond(&what, &format!("{whose}limits.{key}"), of_client);
        format!("{text}; limits.rate_exceeded is disconnect").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shard::ListenerPolicy;

    #[test]
    fn the_limit_that_is_reached_is_named_with_its_value() {
        let mut settings = Settings::default();
        settings.limits.connections_max = 7;
        settings.limits.connections_per_address_max = 3;
        settings.limits.publish_rate_max = 5;
        let mut own = settings.limits.clone();
        own.publish_rate_max = 9;
        settings.listeners = vec![ListenerPolicy {
            connections_max: 4,
            limits: Some(Box::new(own)),
            ..ListenerPolicy::default()
        }];
        for (surplus, end) in [
            (Surplus::InAll, "(limits.connections_max = 7)"),
            (Surplus::OfListener, "(listener.connections_max = 4)"),
            (
                Surplus::OfAddress,
                "(limits.connections_per_address_max = 3)",
            ),
        ] {
            let text = settings.too_many_connections(0, surplus);
            assert!(text.ends_with(end), "{text}");
        }
        let of_listener = settings.too_fast(0, Rate::Publishes);
        assert!(of_listener.contains("(listener.limits.publish_rate_max = 9)"));
        let of_all = settings.too_fast(1, Rate::Publishes);
        assert!(of_all.contains("(limits.publish_rate_max = 5)"));
    }
}
