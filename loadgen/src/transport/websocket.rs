//! WebSocket by tungstenite over a non-blocking link: packets go out as binary messages.

use super::Link;
use std::io;
use std::mem;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Error, Message};

/// A WebSocket on its way from link to messages.
pub struct WebSocket {
    state: State,
    /// Of the last message, what was not read yet.
    unread: Bytes,
}

enum State {
    /// Below: TCP and TLS.
    Below(Link, String),
    Upgrading(MidHandshake<ClientHandshake<Link>>),
    Open(tungstenite::WebSocket<Link>),
    Gone,
}

impl WebSocket {
    pub(super) fn new(link: Link, url: &str) -> Self {
        WebSocket {
            state: State::Below(link, url.to_owned()),
            unread: Bytes::new(),
        }
    }

    pub(super) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Below(link, _) => Some(link),
            State::Upgrading(middle) => Some(middle.get_mut().get_mut()),
            State::Open(open) => Some(open.get_mut()),
            State::Gone => None,
        }
    }

    pub(super) fn is_established(&mut self) -> io::Result<bool> {
        if let State::Below(link, _) = &mut self.state
            && !link.is_established()?
        {
            return Ok(false);
        }
        let upgraded = match mem::replace(&mut self.state, State::Gone) {
            State::Below(link, url) => {
                let mut request = url.into_client_request().map_err(io::Error::other)?;
                let subprotocol = tungstenite::http::HeaderValue::from_static("mqtt");
                request
                    .headers_mut()
                    .insert("Sec-WebSocket-Protocol", subprotocol);
                let config = WebSocketConfig::default()
                    .max_frame_size(None)
                    .max_message_size(None);
                tungstenite::client::client_with_config(request, link, Some(config))
            }
            State::Upgrading(middle) => middle.handshake(),
            open @ (State::Open(_) | State::Gone) => {
                self.state = open;
                return Ok(true);
            }
        };
        match upgraded {
            Ok((open, _)) => {
                self.state = State::Open(open);
                Ok(true)
            }
            Err(HandshakeError::Interrupted(middle)) => {
                self.state = State::Upgrading(middle);
                Ok(false)
            }
            Err(HandshakeError::Failure(error)) => Err(io::Error::other(error)),
        }
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let State::Open(open) = &mut self.state else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        while self.unread.is_empty() {
            match open.read() {
                Ok(Message::Binary(bytes)) => self.unread = bytes,
                Ok(Message::Close(_)) => return Ok(0),
                Ok(Message::Text(_)) => return Err(io::Error::other("a text message")),
                Ok(_) => {}
                Err(error) => return ended(error).map(|()| 0),
            }
        }
        let count = self.unread.len().min(into.len());
        into[..count].copy_from_slice(&self.unread.split_to(count));
        Ok(count)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let State::Open(open) = &mut self.state else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        match open.send(Message::Binary(Bytes::copy_from_slice(bytes))) {
            Ok(()) => Ok(bytes.len()),
            // The message is kept and goes out with a later flush.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(bytes.len()),
            Err(error) => ended(error).map(|()| 0),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.state {
            State::Open(open) => open.flush().or_else(ended),
            _ => Ok(()),
        }
    }
}

fn ended(error: Error) -> io::Result<()> {
    match error {
        Error::Io(error) => Err(error),
        Error::ConnectionClosed | Error::AlreadyClosed => Ok(()),
        error => Err(io::Error::other(error)),
    }
}
