//! WebSocket as an engine: frames in, MQTT bytes out, by tungstenite over buffers in memory (section 6).
//!
//! MQTT packets of clients may straddle frames and share them `[MQTT-6.0.0-2]`; frames must be binary
//! `[MQTT-6.0.0-1]`, masked, and of the subprotocol that was agreed on `[MQTT-6.0.0-3]`. Ping is answered
//! by the library, which keeps one pong at most. Frames are taken as a stream: however long one is, what has
//! come of it goes on to MQTT, which bounds packets.
//!
//! What is sent has one packet per frame: clients that are in use (Paho C and C++) lose what comes behind the
//! first. The frames are written here, straight from the batch: the library would copy each.

use super::frames;
use super::pieces::{Broken, PIECE_BYTES_MAX, Pieces};
use super::setup::{TrustedProxies, WebSocketSetup};
use super::{Arrival, TransportError, UPGRADE_BYTES_MAX};
use crate::engine::codec::foreign::Foreign;
use crate::engine::outbox::outgoing::Outgoing;
use crate::shard::peer::Peer;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tungstenite::accept_hdr_with_config;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response, ServerHandshake};
use tungstenite::http::{HeaderMap, HeaderValue, StatusCode};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

/// Subprotocols that MQTT clients ask for, the registered one first.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// The header by which they are asked for and agreed on.
const SUBPROTOCOL_HEADER: &str = "Sec-WebSocket-Protocol";
/// Of a path or header that is wrong so much is told.
const SHOWN_BYTES_MAX: usize = 100;
/// How a request ends.
const REQUEST_END: &[u8] = b"\r\n\r\n";
/// Bytes read from the buffer at once; kept per connection.
const READ_BYTES: usize = 4096;

/// Both directions of a connection, in memory.
#[derive(Default)]
struct Buffers {
    pieces: Pieces,
    incoming: Vec<u8>,
    read_to: usize,
    outgoing: Vec<u8>,
}

impl Buffers {
    /// Frames of the client, which go on in pieces.
    fn push(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if self.read_to == self.incoming.len() {
            self.incoming.clear();
            self.read_to = 0;
        }
        self.pieces.push(bytes, &mut self.incoming)
    }
}

impl Read for Buffers {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.incoming.get(self.read_to..).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = rest.read(into)?;
        self.read_to += bytes;
        if self.read_to == self.incoming.len() {
            self.incoming = Vec::new();
            self.read_to = 0;
        }
        Ok(bytes)
    }
}

impl Write for Buffers {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Judges the upgrade request.
struct Upgrade {
    setup: Arc<WebSocketSetup>,
    /// The header by which a proxy that is trusted names the client.
    forwarded_header: Option<&'static str>,
    /// Who is trusted.
    proxies: Arc<TrustedProxies>,
    forwarded_for: Arc<std::sync::OnceLock<SocketAddr>>,
}

impl Callback for Upgrade {
    fn on_request(
        self,
        request: &Request,
        mut response: Response,
    ) -> Result<Response, ErrorResponse> {
        if let Err((status, text)) = self.setup.check(request) {
            return Err(refusal(status, text));
        }
        let Some(subprotocol) = subprotocol(request.headers()) else {
            return Err(ErrorResponse::new(None));
        };
        let agreed = HeaderValue::from_static(subprotocol);
        response.headers_mut().insert(SUBPROTOCOL_HEADER, agreed);
        if let Some(header) = self.forwarded_header {
            match self.named_client(request.headers(), header) {
                // Nobody else sets it.
                Ok(client) => client.into_iter().for_each(|client| {
                    let _ = self.forwarded_for.set(client);
                }),
                Err(text) => return Err(refusal(StatusCode::BAD_REQUEST, text)),
            }
        }
        Ok(response)
    }
}

impl Upgrade {
    /// The client as the first of the trusted proxies saw it: the last entry that names none of them, since
    /// what stands before it a client may have sent itself, whatever bytes they are; `None` without an entry.
    fn named_client(
        &self,
        headers: &HeaderMap,
        header: &str,
    ) -> Result<Option<SocketAddr>, String> {
        let mut named = None;
        for value in headers.get_all(header).iter().rev() {
            for entry in value.as_bytes().rsplit(|byte| *byte == b',') {
                let Some(client) = address(entry) else {
                    // Whom it hides might be banned.
                    let value = shown(value.as_bytes());
                    return Err(format!(
                        "the header {header} is {value}, where an address should stand last, or before \
                         those of trusted proxies"
                    ));
                };
                named = Some(client);
                let passes_on = self.proxies.forwarded_header(Peer::internet(client));
                if passes_on != Some(header) {
                    return Ok(named);
                }
            }
        }
        Ok(named)
    }
}

impl WebSocketSetup {
    /// Whether a request is for MQTT and from where it may come; else the status, and what is wrong in words.
    fn check(&self, request: &Request) -> Result<(), (StatusCode, String)> {
        let asked = request.uri().path();
        if let Some(path) = &self.path
            && bare(asked) != bare(path)
        {
            let asked = shown(asked.as_bytes());
            let text = format!("the path is {asked}; this listener serves MQTT at \"{path}\"");
            return Err((StatusCode::NOT_FOUND, text));
        }
        if subprotocol(request.headers()).is_none() {
            let text = match request.headers().get(SUBPROTOCOL_HEADER) {
                None => format!("the header {SUBPROTOCOL_HEADER} is missing; it has to name mqtt"),
                Some(value) => {
                    let value = shown(value.as_bytes());
                    format!("the header {SUBPROTOCOL_HEADER} is {value}; it has to name mqtt")
                }
            };
            return Err((StatusCode::BAD_REQUEST, text));
        }
        let mut origins = request.headers().get_all("Origin").iter();
        let origin = origins.next();
        if origins.next().is_some() {
            // One of them might be let in, and the page be the other.
            let text = "the header Origin stands there more than once".to_owned();
            return Err((StatusCode::BAD_REQUEST, text));
        }
        if let Some(origin) = origin
            && !self.origins.is_empty()
            && !self
                .origins
                .iter()
                .any(|known| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
        {
            let origin = shown(origin.as_bytes());
            let text =
                format!("the header Origin is {origin}, which listener.origins does not name");
            return Err((StatusCode::FORBIDDEN, text));
        }
        Ok(())
    }
}

fn refusal(status: StatusCode, text: String) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(text));
    *response.status_mut() = status;
    response
}

/// A path without the slash at its end.
fn bare(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// What a client sent, for an answer and the log: quoted, and no more than fits into a line.
fn shown(value: &[u8]) -> String {
    let short = value.get(..SHOWN_BYTES_MAX).unwrap_or(value);
    format!("{:?}", String::from_utf8_lossy(short))
}

fn subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    let asked: Vec<_> = headers
        .get_all(SUBPROTOCOL_HEADER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    SUBPROTOCOLS.into_iter().find(|known| asked.contains(known))
}

/// The address that an entry names, with or without a port.
fn address(entry: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    if let Ok(with_port) = text.parse() {
        return Some(with_port);
    }
    let bracketed = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip = bracketed.unwrap_or(text).parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(ip, 0))
}

/// Bytes of a request, and how it will be judged once it is whole.
struct Pending {
    bytes: Vec<u8>,
    upgrade: Upgrade,
    config: WebSocketConfig,
}

enum State {
    Upgrading(Box<Pending>),
    Open(Box<tungstenite::WebSocket<Buffers>>),
    Gone(Vec<u8>),
}

/// One WebSocket.
pub(super) struct WebSocket {
    state: State,
    forwarded_for: Arc<std::sync::OnceLock<SocketAddr>>,
    /// The header that a proxy has not set by which it was trusted to name its client.
    missing_header: Option<&'static str>,
}

impl WebSocket {
    pub(super) fn new(
        setup: Arc<WebSocketSetup>,
        proxies: Arc<TrustedProxies>,
        forwarded_header: Option<&'static str>,
    ) -> Self {
        let forwarded_for = Arc::default();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(PIECE_BYTES_MAX))
            .max_frame_size(Some(PIECE_BYTES_MAX));
        let upgrade = Upgrade {
            setup,
            forwarded_header,
            proxies,
            forwarded_for: Arc::clone(&forwarded_for),
        };
        WebSocket {
            state: State::Upgrading(Box::new(Pending {
                bytes: Vec::new(),
                upgrade,
                config,
            })),
            forwarded_for,
            missing_header: None,
        }
    }

    /// A proxy that is trusted names the client by this header.
    pub(super) fn trust(&mut self, forwarded_header: Option<&'static str>) {
        if let State::Upgrading(pending) = &mut self.state {
            pending.upgrade.forwarded_header = forwarded_header;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether no header can still say where the client is.
    pub(super) fn knows_client(&self) -> bool {
        match &self.state {
            State::Upgrading(pending) => pending.upgrade.forwarded_header.is_none(),
            State::Open(_) => true,
            State::Gone(_) => false,
        }
    }

    /// The header that a trusted proxy has left out; asked for once.
    pub(super) fn take_missing_header(&mut self) -> Option<&'static str> {
        self.missing_header.take()
    }

    pub(super) fn forwarded_for(&self) -> Option<SocketAddr> {
        self.forwarded_for.get().copied()
    }

    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<Arrival, TransportError> {
        if let State::Upgrading(pending) = &mut self.state {
            // Given to the library whole: it takes a request in many small parts for an attack.
            let searched = pending.bytes.len().saturating_sub(REQUEST_END.len() - 1);
            pending.bytes.extend_from_slice(bytes);
            let unsearched = pending.bytes.get(searched..).unwrap_or_default();
            let mut ends = unsearched.windows(REQUEST_END.len());
            let end = ends.position(|end| end == REQUEST_END);
            let request_bytes = end.map(|end| searched + end + REQUEST_END.len());
            // However its bytes come in: what stands behind the request is not of it.
            if request_bytes.unwrap_or(pending.bytes.len()) > UPGRADE_BYTES_MAX {
                return Err(self.refuse_long());
            }
            let foreign = Foreign::of(&pending.bytes);
            if let Some(foreign) = foreign.filter(|foreign| *foreign != Foreign::Http) {
                self.state = State::Gone(Vec::new());
                return Err(TransportError::Upgrade(
                    foreign.in_place_of_upgrade().to_owned(),
                ));
            }
            let Some(request_bytes) = request_bytes else {
                return Ok(Arrival::Open);
            };
            let frames = pending.bytes.split_off(request_bytes);
            self.upgrade()?;
            return self.receive_frames(&frames, into);
        }
        self.receive_frames(bytes, into)
    }

    fn receive_frames(
        &mut self,
        bytes: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<Arrival, TransportError> {
        let State::Open(open) = &mut self.state else {
            return Ok(Arrival::Ended);
        };
        let pushed = open.get_mut().push(bytes);
        loop {
            match open.read() {
                Ok(Message::Binary(message)) => into.extend_from_slice(&message),
                Ok(Message::Text(_)) => {
                    return Err(fail(open, CloseCode::Unsupported, "a text frame"));
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    // The answer to a close frame is queued.
                    let _ = open.flush();
                    return Ok(Arrival::Ended);
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A pong may be queued.
                    let _ = open.flush();
                    return match pushed {
                        Ok(()) => Ok(Arrival::Open),
                        Err((code, text)) => Err(fail(open, code, text)),
                    };
                }
                Err(error) => return Err(fail(open, CloseCode::Protocol, &in_words(&error))),
            }
        }
    }

    fn refuse_long(&mut self) -> TransportError {
        let text = format!("the request is longer than {UPGRADE_BYTES_MAX} bytes");
        let mut outgoing = Vec::new();
        answer_failure(StatusCode::BAD_REQUEST, &text, &mut outgoing);
        self.state = State::Gone(outgoing);
        TransportError::Upgrade(text)
    }

    fn upgrade(&mut self) -> Result<(), TransportError> {
        let gone = State::Gone(Vec::new());
        let State::Upgrading(pending) = std::mem::replace(&mut self.state, gone) else {
            return Ok(());
        };
        let buffers = Buffers {
            incoming: pending.bytes,
            ..Buffers::default()
        };
        let header = pending.upgrade.forwarded_header;
        match accept_hdr_with_config(buffers, pending.upgrade, Some(pending.config)) {
            Ok(open) => {
                self.state = State::Open(Box::new(open));
                self.missing_header = header.filter(|_| self.forwarded_for().is_none());
                Ok(())
            }
            Err(error) => {
                let (status, text) = failure(&error);
                if let State::Gone(outgoing) = &mut self.state {
                    answer_failure(status, &text, outgoing);
                }
                Err(TransportError::Upgrade(text))
            }
        }
    }

    pub(super) fn send(&mut self, batch: &Outgoing) {
        if let State::Open(open) = &mut self.state
            && open.can_write()
        {
            frames::write(batch, &mut open.get_mut().outgoing);
        }
    }

    pub(super) fn close(&mut self) {
        if let State::Open(open) = &mut self.state {
            // Fails if it is closed already.
            let _ = open.close(None);
            let _ = open.flush();
        }
    }

    pub(super) fn take_outgoing(&mut self) -> Vec<u8> {
        match &mut self.state {
            State::Upgrading(_) => Vec::new(),
            State::Open(open) => std::mem::take(&mut open.get_mut().outgoing),
            State::Gone(outgoing) => std::mem::take(outgoing),
        }
    }
}

/// An error of the library, without the names of its parts.
fn in_words(error: &Error) -> String {
    match error {
        Error::Protocol(ProtocolError::HttparseError(error)) => {
            format!("the request is not valid HTTP: {error}")
        }
        Error::Protocol(error) => error.to_string(),
        Error::Capacity(CapacityError::TooManyHeaders) => "the request has too many headers".into(),
        error => error.to_string(),
    }
}

/// What is wrong with a request that was refused.
fn failure(error: &HandshakeError<ServerHandshake<Buffers, Upgrade>>) -> (StatusCode, String) {
    match error {
        HandshakeError::Failure(Error::Http(response)) => {
            let text = response.body().as_deref().unwrap_or_default();
            let text = String::from_utf8_lossy(text).into_owned();
            (response.status(), text)
        }
        // Names the header that is missing or wrong.
        HandshakeError::Failure(error) => (StatusCode::BAD_REQUEST, in_words(error)),
        HandshakeError::Interrupted(_) => {
            let text = "not a WebSocket upgrade".to_owned();
            (StatusCode::BAD_REQUEST, text)
        }
    }
}

/// The library consumes the connection of a request that it refuses: the answer is written here.
fn answer_failure(status: StatusCode, text: &str, outgoing: &mut Vec<u8>) {
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{text}",
        text.len()
    );
    outgoing.extend_from_slice(head.as_bytes());
}

/// Tells the peer what it did wrong.
fn fail(open: &mut tungstenite::WebSocket<Buffers>, code: CloseCode, text: &str) -> TransportError {
    let frame = CloseFrame {
        code,
        reason: text.get(..text.len().min(100)).unwrap_or_default().into(),
    };
    // Fails if the peer has closed; then it need not be told.
    let _ = open.close(Some(frame));
    let _ = open.flush();
    TransportError::WebSocket(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn websocket(origins: &[&str]) -> WebSocket {
        let setup = WebSocketSetup {
            path: None,
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
        };
        WebSocket::new(Arc::new(setup), Arc::default(), None)
    }

    /// A request with these headers beside those that it has to have.
    fn request(headers: &str) -> Vec<u8> {
        let text = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Protocol: mqtt\r\n";
        format!("{text}{headers}\r\n").into_bytes()
    }

    fn answer(websocket: &mut WebSocket, request: &[u8], bytes_at_once: usize) -> String {
        let mut parts = request.chunks(bytes_at_once);
        // Until it is refused.
        let _ = parts.try_for_each(|part| websocket.receive(part, &mut Vec::new()).map(|_| ()));
        let answer = String::from_utf8(websocket.take_outgoing()).unwrap();
        answer.chars().skip("HTTP/1.1 ".len()).take(3).collect()
    }

    #[test]
    fn a_request_is_bounded_exactly_however_it_comes_in() {
        let with_length = |bytes: usize| {
            let padding = bytes - request("X: \r\n").len();
            request(&format!("X: {}\r\n", "x".repeat(padding)))
        };
        for bytes_at_once in [UPGRADE_BYTES_MAX * 2, 1_000] {
            for (bytes, status) in [
                (UPGRADE_BYTES_MAX, "101"),
                (UPGRADE_BYTES_MAX + 1, "400"),
                (60_000, "400"),
            ] {
                let request = with_length(bytes);
                assert_eq!(request.len(), bytes);
                let status_of = answer(&mut websocket(&[]), &request, bytes_at_once);
                assert_eq!(status_of, status, "{bytes} bytes by {bytes_at_once}");
            }
        }
        // What stands behind it is no part of it.
        let mut more = with_length(UPGRADE_BYTES_MAX);
        more.extend([0x8A, 0x80, 0, 0, 0, 0]);
        assert_eq!(answer(&mut websocket(&[]), &more, usize::MAX), "101");
    }

    #[test]
    fn a_request_with_two_origins_is_refused() {
        let one = "Origin: https://app.example\r\n";
        let other = "Origin: https://evil.example\r\n";
        for (headers, status) in [
            (one.to_owned(), "101"),
            (other.to_owned(), "403"),
            (format!("{one}{other}"), "400"),
            (format!("{one}{one}"), "400"),
        ] {
            let mut websocket = websocket(&["https://app.example"]);
            assert_eq!(answer(&mut websocket, &request(&headers), 4_096), status);
        }
    }

    /// Whom these values of a header name, of which the proxies in 10.0.0.0/16 are trusted.
    fn named(values: &[&[u8]]) -> Option<String> {
        const HEADER: &str = "X-Forwarded-For";
        let proxies = TrustedProxies {
            forwarded_from: vec!["10.0.0.0/16".parse().unwrap()],
            ..TrustedProxies::default()
        };
        let upgrade = Upgrade {
            setup: Arc::new(WebSocketSetup {
                path: None,
                origins: Vec::new(),
            }),
            forwarded_header: Some(HEADER),
            proxies: Arc::new(proxies),
            forwarded_for: Arc::default(),
        };
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        let client = upgrade.named_client(&headers, HEADER).ok()?;
        Some(client.map_or_else(String::new, |client| client.to_string()))
    }

    #[test]
    fn the_client_is_what_the_nearest_proxy_adds_whatever_stands_before() {
        let wanted = Some("10.9.9.9:0".to_owned());
        for value in [&b"10.9.9.9"[..], b"\xff, 10.9.9.9", b"6.6.6.6,10.9.9.9 "] {
            assert_eq!(named(&[value]), wanted);
        }
        let one = |value: &[u8]| named(&[value]);
        assert_eq!(one(b"[2001:db8::1]"), Some("[2001:db8::1]:0".to_owned()));
        assert_eq!(one(b"10.9.9.9:77"), Some("10.9.9.9:77".to_owned()));
        for value in [&b"10.9.9.9, "[..], b"10.9.9.9, \xff", b"unknown", b""] {
            assert_eq!(one(value), None, "such a request is refused");
        }
        assert_eq!(named(&[]), Some(String::new()), "nobody is named");
    }

    #[test]
    fn proxies_that_are_trusted_are_no_clients_of_each_other() {
        let client = Some("10.9.9.9:0".to_owned());
        for values in [
            &[&b"6.6.6.6, 10.9.9.9, 10.0.0.7"[..]][..],
            &[b"6.6.6.6, 10.9.9.9, 10.0.0.7, 10.0.0.8:80"],
            &[b"6.6.6.6, 10.9.9.9", b"10.0.0.7"],
        ] {
            assert_eq!(named(values), client, "{values:?}");
        }
        let hidden = named(&[b"unknown, 10.0.0.7"]);
        assert_eq!(hidden, None, "whom it hides might be banned");
        let only = named(&[b"10.0.0.9, 10.0.0.7"]);
        assert_eq!(only, Some("10.0.0.9:0".to_owned()), "one of themselves");
    }
}
