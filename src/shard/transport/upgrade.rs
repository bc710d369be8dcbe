//! A WebSocket to another broker, by a library that takes and gives bytes in memory here.
//!
//! Not here: WebSockets of clients, whose frames are cut as their bytes come ([`super::websocket`]).

use super::{Arrival, TransportError};
use crate::engine::limits::PACKET_BYTES_MAX;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::{ClientHandshake, Request};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Error, Message, WebSocket};

/// Bytes in and out in memory.
#[derive(Debug, Default)]
struct Pipe {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.incoming.read(into)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum State {
    Upgrading(Box<MidHandshake<ClientHandshake<Pipe>>>),
    Open(Box<WebSocket<Pipe>>),
    Failed,
}

/// A WebSocket that goes out.
pub(super) struct RemoteWebSocket {
    state: State,
}

fn request(url: &str) -> Result<Request, TransportError> {
    let wrong = |error: &dyn fmt::Display| TransportError::Upgrade(error.to_string());
    let mut request = url.into_client_request().map_err(|error| wrong(&error))?;
    let protocol = HeaderValue::from_static("mqtt");
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol);
    Ok(request)
}

impl RemoteWebSocket {
    /// The upgrade to this URL begins.
    ///
    /// # Errors
    /// It is no URL of a WebSocket.
    pub fn new(url: &str) -> Result<Self, TransportError> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(PACKET_BYTES_MAX))
            .max_frame_size(Some(PACKET_BYTES_MAX));
        let begun = ClientHandshake::start(Pipe::default(), request(url)?, Some(config));
        let begun = begun.map_err(|error| TransportError::Upgrade(error.to_string()))?;
        let mut socket = RemoteWebSocket {
            state: State::Upgrading(Box::new(begun)),
        };
        socket.go_on()?;
        Ok(socket)
    }

    /// Whether the upgrade is over.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    fn pipe(&mut self) -> Option<&mut Pipe> {
        match &mut self.state {
            State::Upgrading(upgrade) => Some(upgrade.get_mut().get_mut()),
            State::Open(socket) => Some(socket.get_mut()),
            State::Failed => None,
        }
    }

    fn go_on(&mut self) -> Result<(), TransportError> {
        let State::Upgrading(upgrade) = std::mem::replace(&mut self.state, State::Failed) else {
            return Ok(());
        };
        match upgrade.handshake() {
            Ok((socket, _)) => {
                self.state = State::Open(Box::new(socket));
                Ok(())
            }
            Err(HandshakeError::Interrupted(upgrade)) => {
                self.state = State::Upgrading(Box::new(upgrade));
                Ok(())
            }
            Err(HandshakeError::Failure(Error::Http(answer))) => {
                let text = format!("it answers {}", answer.status());
                Err(TransportError::Upgrade(text))
            }
            Err(HandshakeError::Failure(error)) => Err(TransportError::Upgrade(error.to_string())),
        }
    }

    /// Takes bytes of frames, and appends those of MQTT to `into`.
    ///
    /// # Errors
    /// The upgrade is refused, or a frame is not valid.
    pub fn receive(&mut self, bytes: &[u8], into: &mut Vec<u8>) -> Result<Arrival, TransportError> {
        if let Some(pipe) = self.pipe() {
            pipe.incoming.extend(bytes);
        }
        if matches!(self.state, State::Upgrading(_)) {
            self.go_on()?;
        }
        let State::Open(socket) = &mut self.state else {
            return Ok(Arrival::Open);
        };
        loop {
            match socket.read() {
                Ok(Message::Binary(bytes)) => into.extend_from_slice(&bytes),
                Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Ok(Arrival::Ended);
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Arrival::Open);
                }
                Err(error) => return Err(TransportError::WebSocket(error.to_string())),
            }
        }
    }

    /// Wraps bytes of MQTT, which leave by [`RemoteWebSocket::take_outgoing`].
    pub fn send(&mut self, bytes: Vec<u8>) {
        if let State::Open(socket) = &mut self.state {
            // Writing to memory does not fail.
            let _ = socket.send(Message::Binary(Bytes::from(bytes)));
        }
    }

    /// Takes what goes to the other broker.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        self.pipe()
            .map_or_else(Vec::new, |pipe| std::mem::take(&mut pipe.outgoing))
    }

    /// Says goodbye.
    pub fn close(&mut self) {
        if let State::Open(socket) = &mut self.state {
            let _ = socket.close(None);
            let _ = socket.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_mqtt_and_says_what_it_is_answered() {
        let mut socket = RemoteWebSocket::new("ws://broker.example:8083/mqtt").unwrap();
        let asked = String::from_utf8(socket.take_outgoing()).unwrap();
        assert!(asked.starts_with("GET /mqtt HTTP/1.1\r\n"), "{asked}");
        assert!(
            asked
                .to_lowercase()
                .contains("sec-websocket-protocol: mqtt\r\n"),
            "{asked}"
        );
        assert!(asked.contains("broker.example:8083"), "{asked}");
        assert!(!socket.is_open());
        let refused = socket.receive(b"HTTP/1.1 404 Not Found\r\n\r\n", &mut Vec::new());
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("404"), "{text}");
        assert!(RemoteWebSocket::new("http://x").is_err());
    }
}
