//! A client of the broker: where it is on its way, and its parts.

use super::publishing::Publishing;
use super::subscribing::Subscribing;
use crate::connection::Connection;

/// Where a client is on its way into the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not connected, to be connected.
    Idle,
    /// TCP, TLS and WebSocket.
    Establishing,
    /// CONNECT is on its way.
    Connecting,
    /// SUBSCRIBE is on its way.
    Subscribing,
    /// As it should be.
    Ready,
    /// Gone for good.
    Gone,
}

/// One client.
pub struct Client {
    /// Its group.
    pub group: u32,
    /// Its number within the group.
    pub index: u32,
    /// Where it is.
    pub stage: Stage,
    /// Its connection, unless idle or gone.
    pub connection: Option<Box<Connection>>,
    /// When its connect began, or the storm that it has to come back from.
    pub began_ns: u64,
    /// When it sent SUBSCRIBE.
    pub subscribed_ns: u64,
    /// Connects that failed in a row.
    pub failures: u32,
    /// Comes back from a storm.
    pub is_returning: bool,
    /// Was asked whether the broker answers, and has had no answer.
    pub is_probed: bool,
    /// Is in the list of clients to flush.
    pub is_dirty: bool,
    /// The poll tells when its socket is writable again.
    pub awaits_writable: bool,
    /// If it publishes.
    pub publishing: Option<Box<Publishing>>,
    /// If it subscribes.
    pub subscribing: Option<Box<Subscribing>>,
}

impl Client {
    /// A client that is not connected yet.
    pub const fn new(group: u32, index: u32) -> Self {
        Client {
            group,
            index,
            stage: Stage::Idle,
            connection: None,
            began_ns: 0,
            subscribed_ns: 0,
            failures: 0,
            is_returning: false,
            is_probed: false,
            is_dirty: false,
            awaits_writable: false,
            publishing: None,
            subscribing: None,
        }
    }
}
