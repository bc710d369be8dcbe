//! What packets say, a line for each, for operators who follow a client, an address or a topic.
//!
//! Invariant: no password, no data of an authentication, no payload of a will and no property that clients
//! make up is in a line; of a payload there is so much as was asked for, and names are cut.

pub mod batch;
pub mod line;
pub mod seen;

use crate::engine::codec::topic::{TopicFilter, TopicName};
use crate::engine::keys::ConnectionKey;
use ipnet::IpNet;
use line::PacketLine;

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// A client, also one that is not there yet.
    Client(Box<str>),
    /// Connections of which the network that counts as their address has something in common with this: whose
    /// address is in it the shell knows.
    Network(IpNet),
    /// Messages whose topics match a filter, from publishers and to subscribers.
    Topic(Box<str>),
}

impl Followed {
    /// Whether that includes a packet of this connection, which may be a PUBLISH to a topic.
    #[must_use]
    pub fn includes(
        &self,
        client_id: Option<&str>,
        network: Option<IpNet>,
        topic: Option<&str>,
    ) -> bool {
        match self {
            Followed::Client(followed) => client_id == Some(followed),
            Followed::Network(followed) => network
                .is_some_and(|network| followed.contains(&network) || network.contains(followed)),
            Followed::Topic(filter) => topic.is_some_and(|topic| {
                TopicFilter::trusted(filter).matches(TopicName::trusted(topic))
            }),
        }
    }
}

/// Something that is followed.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its name.
    pub number: u64,
    /// What.
    pub followed: Followed,
    /// Bytes of a payload that are told.
    pub payload_bytes_max: usize,
}

/// A packet that was followed.
#[derive(Clone, Debug)]
pub struct Traced {
    /// By which trace.
    pub trace: u64,
    /// Whose it is.
    pub connection: ConnectionKey,
    /// Client identifier, as far as it is known.
    pub client_id: Option<String>,
    /// Whether the client sent it, or the broker.
    pub is_from_client: bool,
    /// What it says.
    pub line: PacketLine,
}
