//! What the control plane says to shards, and shards to it. Never on the data path: bounded channels,
//! looked at once per turn.

use crate::engine::access::acl::Acl;
use crate::engine::access::bans::BannedNames;
use crate::engine::keys::ShardId;
use crate::engine::overload::Stage;
use crate::shard::ring::{RingError, Waker};
use ipnet::IpNet;
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Instant;

/// An order to a shard.
#[derive(Clone, Debug)]
pub enum Order {
    /// Send gauges and counters.
    Statistics,
    /// Memory is so short from now on.
    Stage(Stage),
    /// New connections use these TLS settings, by the listeners' numbers.
    Tls(Arc<[Option<Arc<ServerConfig>>]>),
    /// Access rules from now on.
    Acl(Arc<Acl>),
    /// Who is not served from now on.
    Bans(Arc<BannedNames>, Arc<[IpNet]>),
    /// Accept no more connections and publish the wills of those that are there.
    StopAccepting,
    /// Tell every client, close, and stop; at the latest at this time.
    Stop(Instant),
}

/// What a shard tells.
#[derive(Debug)]
pub enum Event {
    /// Its ring exists and can be woken.
    Ready(ShardId, Waker),
    /// Gauges and counters.
    Statistics(Vec<(&'static str, u64)>),
    /// It accepts no more, and its wills are visible to the other shards.
    Drained(ShardId),
    /// It has stopped.
    Stopped(ShardId),
    /// It cannot go on.
    Failed(ShardId, RingError),
}
