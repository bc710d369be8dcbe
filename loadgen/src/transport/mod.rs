//! Ways to a broker: TCP, TLS, WebSocket, WSS; all non-blocking.
//!
//! TLS comes from rustls and WebSocket from tungstenite; both run over the same [`Link`].

mod target;
mod tls;
mod websocket;

pub use target::Target;
pub use tls::TlsOptions;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use websocket::WebSocket;

/// A byte stream below MQTT or WebSocket.
enum Link {
    Plain(TcpStream),
    Tls(Box<tls::TlsStream>),
}

impl Link {
    fn socket(&mut self) -> &mut TcpStream {
        match self {
            Link::Plain(stream) => stream,
            Link::Tls(stream) => &mut stream.sock,
        }
    }

    fn is_established(&mut self) -> io::Result<bool> {
        match self {
            Link::Plain(_) => Ok(true),
            Link::Tls(stream) => tls::handshake(stream),
        }
    }

    fn wants_write(&self) -> bool {
        match self {
            Link::Plain(_) => false,
            Link::Tls(stream) => stream.conn.wants_write(),
        }
    }
}

impl Read for Link {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Plain(stream) => stream.read(into),
            Link::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Link::Plain(stream) => stream.write(bytes),
            Link::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Link::Plain(stream) => stream.flush(),
            Link::Tls(stream) => stream.flush(),
        }
    }
}

enum Layer {
    Bytes(Link),
    WebSocket(Box<WebSocket>),
}

/// A connection that carries MQTT packets.
pub struct Transport(Layer);

impl Transport {
    /// Begins a connection to `target` from its `nth` source address.
    pub fn connect(target: &Target, nth: u32) -> io::Result<Self> {
        let address = target.address();
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        bind_source(&socket, target.source(nth), address)?;
        match socket.connect(&SockAddr::from(address)) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from_std(socket.into());
        let link = match target.tls() {
            Some(way) => Link::Tls(Box::new(tls::begin(way, stream)?)),
            None => Link::Plain(stream),
        };
        Ok(Transport(match target.websocket_url() {
            Some(url) => Layer::WebSocket(Box::new(WebSocket::new(link, url))),
            None => Layer::Bytes(link),
        }))
    }

    /// The socket to wait on.
    pub fn socket(&mut self) -> Option<&mut TcpStream> {
        match &mut self.0 {
            Layer::Bytes(link) => Some(link.socket()),
            Layer::WebSocket(websocket) => websocket.link().map(Link::socket),
        }
    }

    /// Goes on with the handshakes below MQTT; whether they are over.
    pub fn is_established(&mut self) -> io::Result<bool> {
        match &mut self.0 {
            Layer::Bytes(link) => link.is_established(),
            Layer::WebSocket(websocket) => websocket.is_established(),
        }
    }

    /// Reads some bytes; 0 is the end.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Layer::Bytes(link) => link.read(into),
            Layer::WebSocket(websocket) => websocket.read(into),
        }
    }

    /// Writes some of `bytes`; how many were taken.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Layer::Bytes(link) => link.write(bytes),
            Layer::WebSocket(websocket) => websocket.write(bytes),
        }
    }

    /// Pushes on what the layers below hold back; whether nothing is left.
    pub fn is_flushed(&mut self) -> io::Result<bool> {
        let flushed = match &mut self.0 {
            Layer::Bytes(link) if !link.wants_write() => return Ok(true),
            Layer::Bytes(link) => link.flush(),
            Layer::WebSocket(websocket) => websocket.flush(),
        };
        match flushed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a read that returns less than asked for has emptied the socket.
    pub const fn is_plain(&self) -> bool {
        matches!(self.0, Layer::Bytes(Link::Plain(_)))
    }
}

const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// Comes from `source`, which has about 28,000 ports to give.
fn bind_source(socket: &Socket, source: Option<IpAddr>, target: SocketAddr) -> io::Result<()> {
    let Some(source) = source else {
        return Ok(());
    };
    if source.is_ipv4() != target.is_ipv4() {
        let what = format!("source address {source} and broker {target} are of different kinds");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))
}
