//! What a test client talks through: TCP, TLS, WebSocket, WebSocket over TLS.

use super::PATIENCE;
use super::certificates::Certificates;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Bytes, Message, WebSocket};

/// A stream of MQTT bytes and the socket under it.
pub trait Link: Read + Write + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Link for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Link for StreamOwned<ClientConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref()
    }
}

impl Link for Box<dyn Link> {
    fn tcp(&self) -> &TcpStream {
        (**self).tcp()
    }
}

/// What to talk through.
#[derive(Clone, Copy)]
pub enum Wire<'a> {
    Tcp,
    /// With this client's certificate, if any.
    Tls(&'a Certificates, Option<&'a str>),
    WebSocket,
    Wss(&'a Certificates),
}

impl Wire<'_> {
    /// Connects and shakes hands.
    pub fn dial(&self, address: SocketAddr) -> io::Result<Box<dyn Link>> {
        Ok(match self {
            Wire::Tcp => Box::new(tcp(address)?),
            Wire::Tls(certificates, client) => Box::new(tls(tcp(address)?, certificates, *client)?),
            Wire::WebSocket => Box::new(websocket(Box::new(tcp(address)?), "/mqtt", Some("mqtt"))?),
            Wire::Wss(certificates) => {
                let tls = tls(tcp(address)?, certificates, None)?;
                Box::new(websocket(Box::new(tls), "/mqtt", Some("mqtt"))?)
            }
        })
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn tls(
    stream: TcpStream,
    certificates: &Certificates,
    client: Option<&str>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = "localhost".try_into().expect("a server name");
    let connection = ClientConnection::new(certificates.client_config(client), name);
    let mut stream = StreamOwned::new(connection.map_err(io::Error::other)?, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Why a handshake was refused: the error that the client sees at once or at its first read.
pub fn refused_handshake(wire: Wire<'_>, address: SocketAddr) -> String {
    let refused = wire.dial(address).and_then(|mut link| {
        // In TLS 1.3 the server's refusal of a certificate comes after the client's last flight.
        link.write_all(b"\x10")?;
        match link.read(&mut [0])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    });
    refused.expect_err("the handshake is refused").to_string()
}

/// A WebSocket as a stream of bytes: one binary message per write.
pub struct Frames {
    socket: WebSocket<Box<dyn Link>>,
    unread: Bytes,
}

/// Upgrades to WebSocket.
pub fn websocket(
    link: Box<dyn Link>,
    path: &str,
    subprotocol: Option<&'static str>,
) -> io::Result<Frames> {
    let url = format!("ws://localhost{path}");
    let mut request = url.into_client_request().map_err(io::Error::other)?;
    if let Some(name) = subprotocol {
        let value = HeaderValue::from_static(name);
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", value);
    }
    let (socket, _) =
        tungstenite::client(request, link).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Frames {
        socket,
        unread: Bytes::new(),
    })
}

impl Read for Frames {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.unread = bytes,
                Ok(Message::Close(_)) => return Ok(0),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) => return Err(error),
                Err(_) => return Ok(0),
            }
        }
        let bytes = self.unread.len().min(into.len());
        into[..bytes].copy_from_slice(&self.unread.split_to(bytes));
        Ok(bytes)
    }
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        self.socket.send(message).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map_err(io::Error::other)
    }
}

impl Link for Frames {
    fn tcp(&self) -> &TcpStream {
        self.socket.get_ref().tcp()
    }
}
