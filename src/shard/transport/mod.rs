//! The layers between a socket and MQTT: PROXY header, TLS, WebSocket; each an engine that takes and gives
//! bytes in memory, so that none knows a socket and each is tested without one.
//!
//! ```text
//!   socket bytes ──► PROXY header (once) ──► TLS ──► WebSocket ──► MQTT bytes
//!   socket bytes ◄────────────────────────── TLS ◄── WebSocket ◄── batches of MQTT bytes
//! ```
//! Invariants: what a peer can make a layer keep is bounded before MQTT begins ([`UPGRADE_BYTES_MAX`],
//! the record size of TLS) and by the packet limit after it; whatever [`Layers::receive`] says, `wire` may
//! hold bytes that still have to be sent (an alert, a close frame).
//!
//! In a bridge's connection a line to another broker stands between MQTT bytes and the core's.
//!
//! Not here: when to send (the shard's shell), and where listeners are.

pub mod client;
mod frames;
mod pieces;
mod proxy;
pub mod remote;
pub mod setup;
pub mod tls;
mod upgrade;
mod websocket;

use crate::engine::bridge::line::Line;
use crate::engine::codec::Version;
use crate::engine::outbox::outgoing::Outgoing;
use crate::shard::peer::Peer;
use crate::shard::vouching;
use client::TlsSetup;
use remote::RemoteTls;
use rustls::pki_types::UnixTime;
use rustls::{Connection, ProtocolVersion, ServerConnection};
use setup::{TransportSetup, TrustedProxies};
use std::fmt;
use std::sync::Arc;
use upgrade::RemoteWebSocket;
use websocket::WebSocket;

/// Bytes a peer may send ahead of a handshake step.
pub const UPGRADE_BYTES_MAX: usize = 32 * 1024;

/// Why a connection's layers cannot go on. The peer's fault, all of them.
#[derive(Debug, PartialEq, Eq)]
pub enum TransportError {
    /// No valid PROXY header came from a proxy that has to send one.
    Proxy(&'static str),
    /// The TLS handshake or a record is not valid.
    Tls(String),
    /// The upgrade is refused: no MQTT for this path, header or origin.
    Upgrade(String),
    /// A frame is not valid.
    WebSocket(String),
    /// The peer asks for answers of a layer, such as pongs, and does not take them.
    Untaken,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportError::Proxy(text) => write!(
                f,
                "PROXY protocol: {text}; its network has to send one (listener.proxy_protocol_from)"
            ),
            TransportError::Tls(text) => write!(f, "TLS: {text}"),
            TransportError::Upgrade(text) => write!(f, "WebSocket upgrade refused: {text}"),
            TransportError::WebSocket(text) => write!(f, "WebSocket: {text}"),
            TransportError::Untaken => write!(
                f,
                "it asks for answers under MQTT, such as pongs, and does not take them: {ANSWERS_BYTES_MAX} \
                 bytes wait"
            ),
        }
    }
}

impl std::error::Error for TransportError {}

/// What layers answer by themselves, while nobody takes it.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// What arrived, beyond bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// More may come.
    Open,
    /// The peer has closed in order; nothing more comes.
    Ended,
}

/// What a client and the broker have agreed on by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Version of TLS.
    pub version: &'static str,
    /// Cipher suite.
    pub cipher_suite: String,
    /// The server name that the client has asked for.
    pub server_name: Option<String>,
    /// Subject and serial number of the certificate that it has shown.
    pub certificate: Option<String>,
}

/// The layers of one connection.
pub struct Layers {
    /// Whose word counts behind the PROXY header that is awaited.
    awaits_proxy: Option<Arc<TrustedProxies>>,
    proxy_header: Vec<u8>,
    /// Where the client is, as proxies that are trusted say.
    peer: Peer,
    /// Apart, since most bridges and WebSockets are without it, and it is large.
    tls: Option<Box<Connection>>,
    /// Who judges the client's certificate when the handshake is over.
    judge: Option<Arc<TlsSetup>>,
    /// When its certificate ends, in seconds since 1970.
    certificate_ends_unix_s: Option<u64>,
    websocket: Option<WebSocket>,
    /// A WebSocket that goes out.
    upgrade: Option<Box<RemoteWebSocket>>,
    /// A bridge's connection, which goes out.
    line: Option<Box<Line>>,
    /// TLS's plain text on its way to the WebSocket.
    plain: Vec<u8>,
    wire: Vec<u8>,
    /// Bytes in `wire` that the layers said by themselves since it was taken last.
    answers_bytes: usize,
}

impl Layers {
    /// The layers that a listener asks for; `None` if MQTT follows at once. `peer` is the socket's own.
    ///
    /// # Errors
    /// A TLS connection cannot be made.
    pub fn new(setup: &TransportSetup, peer: Peer) -> Result<Option<Self>, TransportError> {
        let awaits_proxy = setup.expects_proxy_header(peer);
        let awaits_proxy = awaits_proxy.then(|| Arc::clone(&setup.proxies));
        if awaits_proxy.is_none() && setup.tls.is_none() && setup.websocket.is_none() {
            return Ok(None);
        }
        let config = setup.tls.as_ref().map(|tls| Arc::clone(&tls.config));
        let tls = config.map(ServerConnection::new).transpose();
        let tls = tls.map_err(|error| TransportError::Tls(error.to_string()))?;
        let header = match awaits_proxy {
            None => setup.forwarded_header(peer),
            Some(_) => None,
        };
        let websocket = setup.websocket.as_ref();
        Ok(Some(Layers {
            awaits_proxy,
            judge: setup.tls.clone(),
            websocket: websocket.map(|websocket| {
                WebSocket::new(Arc::clone(websocket), Arc::clone(&setup.proxies), header)
            }),
            ..Layers::bare(peer, tls.map(Connection::Server))
        }))
    }

    /// Nothing but TLS, if that.
    fn bare(peer: Peer, mut tls: Option<Connection>) -> Self {
        if let Some(tls) = &mut tls {
            // Bounded by what it is given: one batch at a time.
            tls.set_buffer_limit(None);
        }
        Layers {
            awaits_proxy: None,
            proxy_header: Vec::new(),
            peer,
            tls: tls.map(Box::new),
            judge: None,
            certificate_ends_unix_s: None,
            websocket: None,
            upgrade: None,
            line: None,
            plain: Vec::new(),
            wire: Vec::new(),
            answers_bytes: 0,
        }
    }

    /// The layers of a bridge's connection to another broker, by a WebSocket if there is a URL for one.
    ///
    /// # Errors
    /// A TLS connection cannot be made, or the URL is none.
    pub fn outgoing(
        line: Line,
        peer: Peer,
        tls: Option<&RemoteTls>,
        url: Option<&str>,
    ) -> Result<Self, TransportError> {
        let upgrade = url.map(RemoteWebSocket::new).transpose()?;
        let tls = tls.map(RemoteTls::begin).transpose()?;
        Ok(Layers {
            upgrade: upgrade.map(Box::new),
            line: Some(Box::new(line)),
            ..Layers::bare(peer, tls.map(Connection::Client))
        })
    }

    /// The line, where the connection is a bridge's.
    pub fn line(&mut self) -> Option<&mut Line> {
        self.line.as_deref_mut()
    }

    /// What a bridge's line speaks with the other broker, if it leads to one; toward the core it is always
    /// 5.0.
    #[must_use]
    pub fn line_version(&self) -> Option<Version> {
        self.line.as_deref().and_then(Line::spoken_version)
    }

    /// Whether something is due to the core though nothing came from the socket.
    #[must_use]
    pub fn has_up(&self) -> bool {
        let line = self.line.as_ref();
        line.is_some_and(|line| line.has_up() || line.is_over())
    }

    /// Whether the peer is not to be read for now.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.is_backed_up())
    }

    /// Passes what came from the other broker up through its WebSocket and the line.
    fn receive_of_remote(
        &mut self,
        bytes: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<Arrival, TransportError> {
        let Some(upgrade) = &mut self.upgrade else {
            return Ok(self.receive_by_line(bytes, into));
        };
        let mut framed = Vec::new();
        let received = upgrade.receive(bytes, &mut framed);
        let is_open = upgrade.is_open();
        let down = upgrade.take_outgoing();
        self.put_down(&down);
        let arrival = received?;
        if !is_open {
            return Ok(arrival);
        }
        match self.receive_by_line(&framed, into) {
            Arrival::Open => Ok(arrival),
            Arrival::Ended => Ok(Arrival::Ended),
        }
    }

    /// Passes what came from the other broker through the line.
    fn receive_by_line(&mut self, bytes: &[u8], into: &mut Vec<u8>) -> Arrival {
        let Some(line) = &mut self.line else {
            return Arrival::Open;
        };
        line.from_remote(bytes);
        line.take_up(into);
        let is_over = line.is_over();
        self.take_line();
        if is_over {
            Arrival::Ended
        } else {
            Arrival::Open
        }
    }

    /// Moves what the line wants to say down to the wire.
    fn take_line(&mut self) {
        let Some(line) = &mut self.line else {
            return;
        };
        let mut down = line.take_down();
        if let Some(upgrade) = &mut self.upgrade
            && !down.is_empty()
        {
            upgrade.send(down);
            down = upgrade.take_outgoing();
        }
        self.put_down(&down);
    }

    /// Moves bytes down to the wire.
    fn put_down(&mut self, down: &[u8]) {
        match &mut self.tls {
            Some(tls) => {
                tls::send(tls, [down].into_iter());
                tls::take_wire(tls, &mut self.wire);
            }
            None => self.wire.extend_from_slice(down),
        }
    }

    /// Takes bytes from the socket and appends those of MQTT to `into`.
    ///
    /// # Errors
    /// The peer broke the rules of a layer. Send what [`Layers::take_wire`] has, and close.
    pub fn receive(&mut self, bytes: &[u8], into: &mut Vec<u8>) -> Result<Arrival, TransportError> {
        let before = self.wire.len();
        let arrival = self.receive_below(bytes, into)?;
        // What the layers answer by themselves waits for the socket; nobody else bounds it.
        self.answers_bytes += self.wire.len().saturating_sub(before);
        if self.answers_bytes > ANSWERS_BYTES_MAX {
            return Err(TransportError::Untaken);
        }
        Ok(arrival)
    }

    fn receive_below(
        &mut self,
        bytes: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<Arrival, TransportError> {
        if self.awaits_proxy.is_none() {
            return self.receive_behind_proxy(bytes, into);
        }
        self.proxy_header.extend_from_slice(bytes);
        let Some(header) = proxy::parse(&self.proxy_header).map_err(TransportError::Proxy)? else {
            return Ok(Arrival::Open);
        };
        let proxies = self.awaits_proxy.take();
        // Of somebody whom it does not name nothing is believed.
        if let Some(source) = header.source {
            self.peer = Peer::internet(source);
            let forwarded = proxies.and_then(|proxies| proxies.forwarded_header(self.peer));
            if let Some(websocket) = &mut self.websocket {
                websocket.trust(forwarded);
            }
        }
        let all = std::mem::take(&mut self.proxy_header);
        let rest = all.get(header.bytes..).unwrap_or_default();
        self.receive_behind_proxy(rest, into)
    }

    fn receive_behind_proxy(
        &mut self,
        bytes: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<Arrival, TransportError> {
        let Some(tls) = &mut self.tls else {
            return self.receive_plain(bytes, into);
        };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let words = match &**tls {
            Connection::Server(_) => tls::words,
            Connection::Client(_) => remote::words,
        };
        let mut received = tls::receive(tls, bytes, &mut plain, words);
        if received.is_ok()
            && !tls.is_handshaking()
            && let Connection::Server(tls) = &mut **tls
            && let Some(judge) = self.judge.take()
        {
            match judge.judge(tls, UnixTime::now()) {
                Ok(ends) => self.certificate_ends_unix_s = ends,
                Err(error) => {
                    // Nothing of what it says counts.
                    plain.clear();
                    tls.send_close_notify();
                    received = Err(error);
                }
            }
        }
        tls::take_wire(tls, &mut self.wire);
        if self.line.is_some() && tls.is_handshaking() {
            // It says nothing before it knows to whom.
            self.plain = plain;
            return received;
        }
        let below = self.receive_plain(&plain, into);
        self.plain = plain;
        let ended = received? == Arrival::Ended || below? == Arrival::Ended;
        Ok(if ended { Arrival::Ended } else { Arrival::Open })
    }

    fn receive_plain(
        &mut self,
        bytes: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<Arrival, TransportError> {
        if self.line.is_some() {
            return self.receive_of_remote(bytes, into);
        }
        let Some(websocket) = &mut self.websocket else {
            into.extend_from_slice(bytes);
            return Ok(Arrival::Open);
        };
        let received = websocket.receive(bytes, into);
        self.peer = websocket.forwarded_for().map_or(self.peer, Peer::internet);
        self.take_frames();
        received
    }

    /// Moves what the WebSocket wants to say down to the wire.
    fn take_frames(&mut self) {
        if let Some(websocket) = &mut self.websocket {
            let frames = websocket.take_outgoing();
            match &mut self.tls {
                Some(tls) => {
                    tls::send(tls, [&frames[..]].into_iter());
                    tls::take_wire(tls, &mut self.wire);
                }
                None => self.wire.extend_from_slice(&frames),
            }
        }
    }

    /// Wraps a batch of MQTT bytes.
    pub fn send(&mut self, batch: &Outgoing) {
        if let Some(line) = &mut self.line {
            line.from_core(batch.slices());
            self.take_line();
        } else if let Some(websocket) = &mut self.websocket {
            websocket.send(batch);
            self.take_frames();
        } else if let Some(tls) = &mut self.tls {
            tls::send(tls, batch.slices());
            tls::take_wire(tls, &mut self.wire);
        } else {
            for slice in batch.slices() {
                self.wire.extend_from_slice(slice);
            }
        }
    }

    /// Says goodbye on each layer.
    pub fn close(&mut self) {
        if let Some(line) = &mut self.line {
            line.closed_here();
            self.take_line();
        }
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.close();
            let down = upgrade.take_outgoing();
            self.put_down(&down);
        }
        if let Some(websocket) = &mut self.websocket {
            websocket.close();
        }
        self.take_frames();
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            tls::take_wire(tls, &mut self.wire);
        }
    }

    /// Bytes for the socket, if there are any.
    pub fn take_wire(&mut self) -> Option<Vec<u8>> {
        self.answers_bytes = 0;
        (!self.wire.is_empty()).then(|| std::mem::take(&mut self.wire))
    }

    /// Gives back the buffer of an earlier [`Layers::take_wire`].
    pub fn reuse(&mut self, mut buffer: Vec<u8>) {
        if self.wire.capacity() == 0 {
            buffer.clear();
            self.wire = buffer;
        }
    }

    /// Whether every handshake is over.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.awaits_proxy.is_none()
            && self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
            && self.websocket.as_ref().is_none_or(WebSocket::is_open)
            && self
                .upgrade
                .as_ref()
                .is_none_or(|upgrade| upgrade.is_open())
    }

    /// How far the peer has come, as the end of a sentence, while a handshake is not over.
    #[must_use]
    pub fn handshake(&self) -> Option<&'static str> {
        if self.awaits_proxy.is_some() {
            return Some(match self.proxy_header.is_empty() {
                true => "before its PROXY header",
                false => "with half a PROXY header",
            });
        }
        if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            return Some("before its TLS handshake was over");
        }
        let upgrades = self
            .websocket
            .as_ref()
            .is_some_and(|socket| !socket.is_open());
        upgrades.then_some("before its WebSocket upgrade was whole")
    }

    /// Whether the layers have nothing more to do: MQTT bytes pass unchanged from now on.
    #[must_use]
    pub fn is_transparent(&self) -> bool {
        let below = self.awaits_proxy.is_some() || self.tls.is_some() || self.websocket.is_some();
        !below && self.line.is_none()
    }

    /// Where the client is.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The header by which a trusted proxy was to name the client and has not; asked for once.
    pub fn take_missing_header(&mut self) -> Option<&'static str> {
        self.websocket.as_mut()?.take_missing_header()
    }

    /// Whether no proxy can still say otherwise.
    #[must_use]
    pub fn is_peer_known(&self) -> bool {
        self.awaits_proxy.is_none() && self.websocket.as_ref().is_none_or(WebSocket::knows_client)
    }

    /// What was agreed on, if TLS is spoken.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        let tls = self.tls.as_ref()?;
        let certificate = self.certificate().map(vouching::named);
        let server_name = match &**tls {
            Connection::Server(tls) => tls.server_name(),
            Connection::Client(_) => None,
        };
        Some(Agreed {
            version: match tls.protocol_version()? {
                ProtocolVersion::TLSv1_2 => "1.2",
                ProtocolVersion::TLSv1_3 => "1.3",
                _ => "another",
            },
            cipher_suite: format!("{:?}", tls.negotiated_cipher_suite()?.suite()),
            server_name: server_name.map(str::to_owned),
            certificate,
        })
    }

    /// The certificate that the client showed, in DER; verified.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        let chain = self.tls.as_ref()?.peer_certificates()?;
        chain.first().map(AsRef::as_ref)
    }

    /// When it ends, or a CA's between that the client showed; in seconds since 1970.
    #[must_use]
    pub fn certificate_ends_unix_s(&self) -> Option<u64> {
        self.certificate_ends_unix_s
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers")
            .field("tls", &self.tls.is_some())
            .field("websocket", &self.websocket.is_some())
            .field("is_established", &self.is_established())
            .finish_non_exhaustive()
    }
}
