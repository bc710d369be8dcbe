//! A subscription as the trie and the share groups hold it.

use crate::engine::keys::SessionKey;
use crate::engine::message::Qos;

/// A subscription of a session on this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Whose it is.
    pub session: SessionKey,
    /// Subscription identifier, 0 for none.
    pub subscription_id: u32,
    /// Highest QoS.
    pub qos: Qos,
    /// Leave out what the session itself published.
    pub no_local: bool,
    /// Keep the publisher's RETAIN flag.
    pub retain_as_published: bool,
    /// Not all that the filter matches may be read: each delivery is checked.
    pub checked: bool,
    /// Retained messages are still on their way: live ones wait behind them.
    pub replaying: bool,
    /// Where its session has it among its subscriptions.
    pub place: u32,
}
