//! Ways to a broker: TCP, TLS, WebSocket, WSS, Unix sockets; all non-blocking.
//!
//! TLS comes from rustls and WebSocket from tungstenite; both run over the same [`Link`].

mod target;
mod tls;
mod websocket;

pub use target::{Address, Target, without_secrets};
pub use tls::TlsOptions;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use websocket::WebSocket;

/// A byte stream below MQTT or WebSocket.
enum Link {
    Plain(TcpStream),
    Unix(UnixStream),
    Tls(Box<tls::TlsStream>),
}

impl Link {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Link::Plain(stream) => stream,
            Link::Unix(stream) => stream,
            Link::Tls(stream) => &mut stream.sock,
        }
    }

    fn is_connected(&self) -> io::Result<bool> {
        let stream = match self {
            Link::Plain(stream) => stream,
            Link::Tls(stream) => &stream.sock,
            Link::Unix(stream) => {
                let error = stream.take_error()?;
                return error.map_or_else(|| Ok(stream.peer_addr().is_ok()), Err);
            }
        };
        let error = stream.take_error()?;
        error.map_or_else(|| Ok(stream.peer_addr().is_ok()), Err)
    }

    fn is_established(&mut self) -> io::Result<bool> {
        match self {
            Link::Plain(_) | Link::Unix(_) => Ok(true),
            Link::Tls(stream) => tls::handshake(stream),
        }
    }

    fn wants_write(&self) -> bool {
        match self {
            Link::Plain(_) | Link::Unix(_) => false,
            Link::Tls(stream) => stream.conn.wants_write(),
        }
    }
}

impl Read for Link {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Plain(stream) => stream.read(into),
            Link::Unix(stream) => stream.read(into),
            Link::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Link::Plain(stream) => stream.write(bytes),
            Link::Unix(stream) => stream.write(bytes),
            Link::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Link::Plain(stream) => stream.flush(),
            Link::Unix(stream) => stream.flush(),
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
        let address = match target.address() {
            Address::Tcp(address) => *address,
            Address::Unix(path) => {
                let link = Link::Unix(UnixStream::connect(path)?);
                return Ok(Transport(Layer::Bytes(link)));
            }
        };
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

    fn link(&mut self) -> Option<&mut Link> {
        match &mut self.0 {
            Layer::Bytes(link) => Some(link),
            Layer::WebSocket(websocket) => websocket.link(),
        }
    }

    /// What to wait on.
    pub fn source(&mut self) -> Option<&mut dyn Source> {
        self.link().map(Link::source)
    }

    /// Whether the socket is connected; the error if it cannot be.
    pub fn is_connected(&mut self) -> io::Result<bool> {
        self.link().map_or(Ok(true), |link| link.is_connected())
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
        matches!(self.0, Layer::Bytes(Link::Plain(_) | Link::Unix(_)))
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
