//! Listening sockets: one per shard and address, so that the kernel spreads connections.
//!
//! A port that another program listens on is refused even where SO_REUSEPORT would let both share it:
//! half of the clients at a stranger's broker is worse than a clear error.

use crate::engine::limits::Limits;
use crate::shard::certificates::TlsFiles;
use crate::shard::transport::setup::{TransportSetup, TrustedProxies, WebSocketSetup};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections the kernel keeps for a shard that has not accepted them yet.
const BACKLOG: i32 = 4096;

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address and port; port 0 picks one.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(UnixPlace),
}

/// A socket in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixPlace {
    /// Its path; what a broker before left there is replaced.
    pub path: PathBuf,
    /// Permission bits; the process's umask decides where there are none.
    pub mode: Option<u32>,
    /// User and group by number.
    pub owner: (Option<u32>, Option<u32>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => write!(f, "{address}"),
            Place::Unix(unix) => write!(f, "{}", unix.path.display()),
        }
    }
}

/// What a listener is to be, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// `mqtt`, `mqtts`, `ws`, `wss` or `unix`.
    pub scheme: &'static str,
    /// Where it listens.
    pub place: Place,
    /// TLS's files.
    pub tls: Option<TlsFiles>,
    /// WebSocket's path and bounds.
    pub websocket: Option<Arc<WebSocketSetup>>,
    /// Methods that its clients may use, by name; `None` for all.
    pub methods: Option<Arc<[&'static str]>>,
    /// Whose word counts on where a client is.
    pub proxies: Arc<TrustedProxies>,
}

/// What a shard knows of a listener.
#[derive(Clone, Debug)]
pub struct ListenerSetup {
    /// What lies under MQTT.
    pub transport: TransportSetup,
    /// Methods that its clients may use, by name; `None` for all.
    pub methods: Option<Arc<[&'static str]>>,
}

impl ListenerSetup {
    /// As configured, with the TLS settings made from its files.
    #[must_use]
    pub fn new(config: &ListenerConfig, tls: Option<Arc<ServerConfig>>) -> Self {
        ListenerSetup {
            transport: TransportSetup {
                tls,
                websocket: config.websocket.clone(),
                proxies: Arc::clone(&config.proxies),
            },
            methods: config.methods.clone(),
        }
    }
}

/// Why a listener cannot be.
#[derive(Debug)]
pub struct ListenError {
    place: Place,
    source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match (place, self.source.kind()) {
            (Place::Tcp(_), io::ErrorKind::AddrInUse) => write!(
                f,
                "cannot listen on {place}: the port is in use. Stop the program that listens there \
                 (`ss -ltnp`) or choose another port with --listen mqtt://HOST:PORT"
            ),
            (Place::Unix(_), io::ErrorKind::AddrInUse) => write!(
                f,
                "cannot listen on {place}: another program listens there, or it is no socket. Stop \
                 that program or choose another path"
            ),
            (Place::Tcp(_), io::ErrorKind::PermissionDenied) => write!(
                f,
                "cannot listen on {place}: permission denied. Ports below 1024 need \
                 CAP_NET_BIND_SERVICE; choose another port or grant it"
            ),
            (_, io::ErrorKind::AddrNotAvailable) => write!(
                f,
                "cannot listen on {place}: no interface of this machine has the address; \
                 `ip addr` lists them"
            ),
            _ => write!(f, "cannot listen on {place}: {}", self.source),
        }
    }
}

impl std::error::Error for ListenError {}

/// What the kernel may hold for one connection; 0 leaves that to the system.
///
/// Set on listening sockets, whose connections inherit it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketBounds {
    /// Bytes to be sent. The system bounds that too (`net.core.wmem_max`).
    pub send_bytes_max: usize,
    /// Of these, bytes that wait for the peer to take what was sent before.
    pub unsent_bytes_max: u32,
    /// Bytes received that the broker has not read yet (`net.core.rmem_max`).
    pub receive_bytes_max: usize,
}

impl SocketBounds {
    /// As configured.
    #[must_use]
    pub const fn new(limits: &Limits) -> Self {
        SocketBounds {
            send_bytes_max: limits.socket_send_bytes_max,
            unsent_bytes_max: limits.socket_unsent_bytes_max,
            receive_bytes_max: limits.socket_receive_bytes_max,
        }
    }

    fn set_on(self, socket: &Socket, is_tcp: bool) -> io::Result<()> {
        if self.send_bytes_max > 0 {
            socket.set_send_buffer_size(self.send_bytes_max)?;
        }
        if self.receive_bytes_max > 0 {
            socket.set_recv_buffer_size(self.receive_bytes_max)?;
        }
        if self.unsent_bytes_max > 0 && is_tcp {
            socket.set_tcp_notsent_lowat(self.unsent_bytes_max)?;
        }
        Ok(())
    }
}

/// One place, listened on by every shard.
#[derive(Debug)]
pub struct Listener {
    /// The place in force; a port is never 0.
    pub place: Place,
    /// A socket per shard.
    pub sockets: Vec<OwnedFd>,
}

impl Listener {
    /// Listens at `place` for `shards` shards; port 0 picks a free one.
    ///
    /// # Errors
    /// Names the place and what to do.
    pub fn bind(place: &Place, shards: usize, bounds: SocketBounds) -> Result<Self, ListenError> {
        let bound = match place {
            Place::Tcp(address) => bind_tcp(*address, shards, bounds),
            Place::Unix(unix) => bind_unix(unix, shards, bounds),
        };
        let (place, sockets) = bound.map_err(|source| ListenError {
            place: place.clone(),
            source,
        })?;
        Ok(Listener { place, sockets })
    }
}

fn bind_tcp(
    address: SocketAddr,
    shards: usize,
    bounds: SocketBounds,
) -> io::Result<(Place, Vec<OwnedFd>)> {
    let probe = socket(address, false)?;
    let bound = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = socket(bound, true)?;
        bounds.set_on(&socket, true)?;
        socket.listen(BACKLOG)?;
        sockets.push(socket.into());
    }
    Ok((Place::Tcp(bound), sockets))
}

/// One socket that all shards accept from: the kernel knows no SO_REUSEPORT for files.
fn bind_unix(
    unix: &UnixPlace,
    shards: usize,
    bounds: SocketBounds,
) -> io::Result<(Place, Vec<OwnedFd>)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(&unix.path)?;
    if is_left_over(&unix.path, &address)? {
        std::fs::remove_file(&unix.path)?;
    }
    bounds.set_on(&socket, false)?;
    socket.bind(&address)?;
    if let Some(mode) = unix.mode {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&unix.path, std::fs::Permissions::from_mode(mode))?;
    }
    if unix.owner != (None, None) {
        std::os::unix::fs::chown(&unix.path, unix.owner.0, unix.owner.1)?;
    }
    socket.listen(BACKLOG)?;
    let socket: OwnedFd = socket.into();
    let mut sockets = Vec::with_capacity(shards);
    for _ in 1..shards {
        sockets.push(socket.try_clone()?);
    }
    sockets.push(socket);
    Ok((Place::Unix(unix.clone()), sockets))
}

/// How long a socket may go on listening after its process is gone: the kernel takes rings apart later.
const LISTENS_ON_MAX: Duration = Duration::from_secs(1);

/// Whether a socket stands at `path` that nobody listens on any more.
fn is_left_over(path: &Path, address: &SockAddr) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        _ => return Ok(false),
    }
    let by = Instant::now() + LISTENS_ON_MAX;
    loop {
        let visitor = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        match visitor.connect(address).map_err(|error| error.kind()) {
            Err(io::ErrorKind::ConnectionRefused) => return Ok(true),
            _ if Instant::now() >= by => return Ok(false),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it: a small packet must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    if !shared {
        // Only listening finds out whether somebody else does.
        socket.listen(1)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_with_the_remedy() {
        let any = Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let first = Listener::bind(&any, 2, SocketBounds::default()).unwrap();
        assert!(!first.place.to_string().ends_with(":0"));
        let error = Listener::bind(&first.place, 2, SocketBounds::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("in use") && error.contains("--listen"),
            "{error}"
        );
    }
}
