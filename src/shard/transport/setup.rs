//! What a listener wants between its sockets and MQTT, and whose word it takes on where a client is.

use super::client::TlsSetup;
use crate::shard::peer::Peer;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// What a listener wants of WebSockets.
#[derive(Debug, PartialEq, Eq)]
pub struct WebSocketSetup {
    /// Path of the request, which may end with a slash more; `None` for any.
    pub path: Option<String>,
    /// Pages that may open one, as browsers name them in `Origin`; empty for all. Others name none.
    pub origins: Vec<String>,
}

/// Networks of proxies that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Those that send a PROXY header, and have to.
    pub header_from: Vec<IpNet>,
    /// Those that set `X-Forwarded-For`.
    pub forwarded_from: Vec<IpNet>,
    /// Those that set `X-Real-IP`.
    pub real_ip_from: Vec<IpNet>,
}

/// What lies under MQTT on a listener.
#[derive(Clone, Debug, Default)]
pub struct TransportSetup {
    /// TLS, where it speaks that.
    pub tls: Option<Arc<TlsSetup>>,
    /// WebSocket, where it speaks that.
    pub websocket: Option<Arc<WebSocketSetup>>,
    /// Whose word counts on where a client is.
    pub proxies: Arc<TrustedProxies>,
}

impl TransportSetup {
    /// Whether a connection from `peer` has to begin with a PROXY header.
    #[must_use]
    pub fn expects_proxy_header(&self, peer: Peer) -> bool {
        is_among(&self.proxies.header_from, peer)
    }

    /// Whether `peer` is the client itself: no proxy that is trusted to name another.
    #[must_use]
    pub fn is_client(&self, peer: Peer) -> bool {
        let may_forward = self.websocket.is_some() && self.forwarded_header(peer).is_some();
        !self.expects_proxy_header(peer) && !may_forward
    }

    /// The header by which `peer` names the client, if it is a proxy that is trusted: the one that it sets.
    /// Any other may be the client's own.
    #[must_use]
    pub fn forwarded_header(&self, peer: Peer) -> Option<&'static str> {
        self.proxies.forwarded_header(peer)
    }
}

impl TrustedProxies {
    /// The header by which `peer` names the client. Behind a PROXY header it is the one whom that names: what
    /// the sender of the header passes on are others' requests, with headers of their own.
    pub(super) fn forwarded_header(&self, peer: Peer) -> Option<&'static str> {
        if is_among(&self.forwarded_from, peer) {
            return Some("X-Forwarded-For");
        }
        is_among(&self.real_ip_from, peer).then_some(REAL_IP)
    }
}

const REAL_IP: &str = "X-Real-IP";

/// The key of a listener that says which proxies set a header.
#[must_use]
pub fn key_of(header: &str) -> &'static str {
    match header {
        REAL_IP => "listener.real_ip_from",
        _ => "listener.forwarded_from",
    }
}

/// A process behind a socket in the file system is on the machine itself: as trusted as 127.0.0.1.
fn is_among(networks: &[IpNet], peer: Peer) -> bool {
    let ip = match peer {
        Peer::Internet(address) => address.ip(),
        Peer::Unix => IpAddr::from([127, 0, 0, 1]),
    };
    networks.iter().any(|network| network.contains(&ip))
}
