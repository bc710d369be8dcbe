//! WebSocket as an engine: frames in, MQTT bytes out, by tungstenite over buffers in memory (section 6).
//!
//! MQTT packets may straddle frames and share them `[MQTT-6.0.0-2]`; frames must be binary
//! `[MQTT-6.0.0-1]`, masked, and of the subprotocol that was agreed on `[MQTT-6.0.0-3]`. Ping is answered
//! by the library, which keeps one pong at most.

use super::setup::WebSocketSetup;
use super::{Arrival, TransportError, UPGRADE_BYTES_MAX};
use crate::engine::outbox::outgoing::Outgoing;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tungstenite::accept_hdr_with_config;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response, ServerHandshake};
use tungstenite::http::{HeaderMap, HeaderValue, StatusCode};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Error, Message};

/// Subprotocols that MQTT clients ask for, the registered one first.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// Frame overhead and a few packets more than the largest one.
const MESSAGE_MARGIN_BYTES: usize = 4096;
/// How a request ends.
const REQUEST_END: &[u8] = b"\r\n\r\n";
/// Bytes read from the buffer at once; kept per connection.
const READ_BYTES: usize = 4096;

/// Both directions of a connection, in memory.
#[derive(Default)]
struct Buffers {
    incoming: Vec<u8>,
    read_to: usize,
    outgoing: Vec<u8>,
}

impl Buffers {
    fn push(&mut self, bytes: &[u8]) {
        if self.read_to == self.incoming.len() {
            self.incoming.clear();
            self.read_to = 0;
        }
        self.incoming.extend_from_slice(bytes);
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
    trusts_forwarded: bool,
    forwarded_for: Arc<std::sync::OnceLock<SocketAddr>>,
}

impl Callback for Upgrade {
    fn on_request(
        self,
        request: &Request,
        mut response: Response,
    ) -> Result<Response, ErrorResponse> {
        if request.uri().path() != self.setup.path {
            return Err(refusal(StatusCode::NOT_FOUND, "no MQTT at this path"));
        }
        let Some(subprotocol) = subprotocol(request.headers()) else {
            let text = "the subprotocol has to be mqtt";
            return Err(refusal(StatusCode::BAD_REQUEST, text));
        };
        let agreed = HeaderValue::from_static(subprotocol);
        response
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", agreed);
        if self.trusts_forwarded
            && let Some(client) = forwarded_for(request.headers())
        {
            // Nobody else sets it.
            let _ = self.forwarded_for.set(client);
        }
        Ok(response)
    }
}

fn refusal(status: StatusCode, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(text.to_owned()));
    *response.status_mut() = status;
    response
}

fn subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    let asked: Vec<_> = headers
        .get_all("Sec-WebSocket-Protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    SUBPROTOCOLS.into_iter().find(|known| asked.contains(known))
}

/// The client as the nearest proxy saw it: the last entry, since a client may have sent entries itself.
fn forwarded_for(headers: &HeaderMap) -> Option<SocketAddr> {
    let last = |name| {
        let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
        value.rsplit(',').next().map(str::trim)
    };
    let text = last("X-Forwarded-For").or_else(|| last("X-Real-IP"))?;
    let with_port = text.parse().ok();
    with_port.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 0)))
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
}

impl WebSocket {
    pub(super) fn new(setup: Arc<WebSocketSetup>, trusts_forwarded: bool) -> Self {
        let forwarded_for = Arc::default();
        let config = message_bytes_max(
            WebSocketConfig::default()
                .read_buffer_size(READ_BYTES)
                .write_buffer_size(0),
            setup.connect_bytes_max,
        );
        let upgrade = Upgrade {
            setup,
            trusts_forwarded,
            forwarded_for: Arc::clone(&forwarded_for),
        };
        WebSocket {
            state: State::Upgrading(Box::new(Pending {
                bytes: Vec::new(),
                upgrade,
                config,
            })),
            forwarded_for,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    pub(super) fn forwarded_for(&self) -> Option<SocketAddr> {
        self.forwarded_for.get().copied()
    }

    pub(super) fn opened(&mut self, packet_bytes_max: usize) {
        if let State::Open(open) = &mut self.state {
            open.set_config(|config| *config = message_bytes_max(*config, packet_bytes_max));
        }
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
            if unsearched
                .windows(REQUEST_END.len())
                .any(|end| end == REQUEST_END)
            {
                return self.upgrade();
            }
            if pending.bytes.len() > UPGRADE_BYTES_MAX {
                let text = format!("the request is longer than {UPGRADE_BYTES_MAX} bytes");
                return Err(TransportError::WebSocket(text));
            }
            return Ok(Arrival::Open);
        }
        let State::Open(open) = &mut self.state else {
            return Ok(Arrival::Ended);
        };
        open.get_mut().push(bytes);
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
                    return Ok(Arrival::Open);
                }
                Err(Error::Capacity(error)) => {
                    return Err(fail(open, CloseCode::Size, &error.to_string()));
                }
                Err(error) => return Err(fail(open, CloseCode::Protocol, &error.to_string())),
            }
        }
    }

    fn upgrade(&mut self) -> Result<Arrival, TransportError> {
        let gone = State::Gone(Vec::new());
        let State::Upgrading(pending) = std::mem::replace(&mut self.state, gone) else {
            return Ok(Arrival::Ended);
        };
        let mut buffers = Buffers::default();
        buffers.push(&pending.bytes);
        match accept_hdr_with_config(buffers, pending.upgrade, Some(pending.config)) {
            Ok(open) => {
                self.state = State::Open(Box::new(open));
                Ok(Arrival::Open)
            }
            Err(error) => {
                if let State::Gone(outgoing) = &mut self.state {
                    answer_failure(&error, outgoing);
                }
                Err(TransportError::WebSocket(error.to_string()))
            }
        }
    }

    pub(super) fn send(&mut self, batch: &Outgoing) {
        if let State::Open(open) = &mut self.state {
            let mut message = Vec::with_capacity(batch.len());
            for slice in batch.slices() {
                message.extend_from_slice(slice);
            }
            // To memory; it fails only after a close.
            let _ = open.write(Message::Binary(Bytes::from(message)));
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

fn message_bytes_max(config: WebSocketConfig, packet_bytes_max: usize) -> WebSocketConfig {
    let max = Some(packet_bytes_max.saturating_add(MESSAGE_MARGIN_BYTES));
    config.max_message_size(max).max_frame_size(max)
}

/// The library consumes the connection of a request that it refuses: the answer is written here.
fn answer_failure(
    error: &HandshakeError<ServerHandshake<Buffers, Upgrade>>,
    outgoing: &mut Vec<u8>,
) {
    let (status, text) = match error {
        HandshakeError::Failure(Error::Http(response)) => (
            response.status(),
            response
                .body()
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default(),
        ),
        _ => (StatusCode::BAD_REQUEST, "not a WebSocket upgrade".into()),
    };
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
