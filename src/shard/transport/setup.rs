//! What a listener wants between its sockets and MQTT, and whose word it takes on where a client is.

use ipnet::IpNet;
use rustls::ServerConfig;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a listener wants of WebSockets.
#[derive(Debug, PartialEq, Eq)]
pub struct WebSocketSetup {
    /// Path of the request.
    pub path: String,
    /// Largest message before MQTT has begun: the largest CONNECT.
    pub connect_bytes_max: usize,
}

/// Networks of proxies that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Those that send a PROXY header, and have to.
    pub header_from: Vec<IpNet>,
    /// Those whose `X-Forwarded-For` counts.
    pub forwarded_from: Vec<IpNet>,
}

/// What lies under MQTT on a listener.
#[derive(Clone, Debug, Default)]
pub struct TransportSetup {
    /// TLS, where it speaks that.
    pub tls: Option<Arc<ServerConfig>>,
    /// WebSocket, where it speaks that.
    pub websocket: Option<Arc<WebSocketSetup>>,
    /// Whose word counts on where a client is.
    pub proxies: Arc<TrustedProxies>,
}

impl TransportSetup {
    /// Whether a connection from `peer` has to begin with a PROXY header.
    #[must_use]
    pub fn expects_proxy_header(&self, peer: Option<SocketAddr>) -> bool {
        is_among(&self.proxies.header_from, peer)
    }

    /// Whether `peer` is a proxy whose word on the client's address counts.
    #[must_use]
    pub fn trusts_forwarded(&self, peer: Option<SocketAddr>) -> bool {
        is_among(&self.proxies.forwarded_from, peer)
    }
}

/// A local socket's peer is the machine itself: as trusted as 127.0.0.1.
fn is_among(networks: &[IpNet], peer: Option<SocketAddr>) -> bool {
    let ip = peer.map_or(IpAddr::from([127, 0, 0, 1]), |peer| {
        peer.ip().to_canonical()
    });
    networks.iter().any(|network| network.contains(&ip))
}
