//! Listening sockets: one per shard and address, so that the kernel spreads connections.
//!
//! A port that another program listens on is refused even where SO_REUSEPORT would let both share it:
//! half of the clients at a stranger's broker is worse than a clear error.

use crate::engine::limits::Limits;
use crate::shard::certificates::TlsFiles;
use crate::shard::files;
use crate::shard::transport::client::TlsSetup;
use crate::shard::transport::setup::{TransportSetup, TrustedProxies, WebSocketSetup};
use rustix::thread::CapabilitySet;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections the kernel keeps for a shard that has not accepted them yet.
const BACKLOG: i32 = 4096;

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Addresses and ports.
    Tcp(TcpPlace),
    /// A socket in the file system.
    Unix(UnixPlace),
}

/// Addresses of one listener: all that its host name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpPlace {
    /// All with the same port; 0 picks one. Of several, those that this machine lacks are left out.
    pub addresses: Vec<SocketAddr>,
    /// Whether `[::]` takes IPv4 as well; not if somebody else listens on 0.0.0.0.
    pub is_dual: bool,
}

impl From<SocketAddr> for TcpPlace {
    fn from(address: SocketAddr) -> Self {
        TcpPlace {
            addresses: vec![address],
            is_dual: true,
        }
    }
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
            Place::Tcp(tcp) => {
                let all: Vec<_> = tcp.addresses.iter().map(SocketAddr::to_string).collect();
                f.write_str(&all.join(", "))
            }
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

impl ListenerConfig {
    /// The path at which it serves WebSockets; empty where that is any, or none.
    #[must_use]
    pub fn path(&self) -> &str {
        let websocket = self.websocket.as_deref();
        let path = websocket.and_then(|websocket| websocket.path.as_deref());
        path.unwrap_or_default()
    }
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
    pub fn new(config: &ListenerConfig, tls: Option<Arc<TlsSetup>>) -> Self {
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
                 (`ss -ltnp`) or choose another port"
            ),
            (Place::Unix(_), io::ErrorKind::AddrInUse) => write!(
                f,
                "cannot listen on {place}: another program listens there. Stop that program or choose \
                 another path"
            ),
            (Place::Unix(_), io::ErrorKind::AlreadyExists) => write!(
                f,
                "cannot listen on {place}: what stands there is no socket. Remove it or choose another \
                 path"
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

impl ListenError {
    /// Also by which key the place was said.
    #[must_use]
    pub fn by_key(&self, key: &str) -> String {
        match (&self.place, self.source.kind()) {
            (Place::Tcp(_), io::ErrorKind::AddrInUse) => format!("{self} with {key}"),
            _ => format!("{self} ({key})"),
        }
    }

    /// What the system says, in an operator's words.
    #[must_use]
    pub fn reason(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => "another program listens there (`ss -lxtnp`)".to_owned(),
            io::ErrorKind::AlreadyExists => {
                "what stands there is no socket; remove it or choose another path".to_owned()
            }
            _ => self.source.to_string(),
        }
    }
}

impl std::error::Error for ListenError {}

impl ListenError {
    fn is_port_in_use(&self) -> bool {
        matches!(self.place, Place::Tcp(_)) && self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// What the kernel may hold for one connection, and how long it waits for a peer that says nothing; 0 leaves
/// that to the system.
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
    /// Seconds without a byte until a TCP peer is asked whether it is there, and between questions.
    pub keepalive_seconds: (u32, u32),
    /// Questions without an answer until it counts as gone.
    pub keepalive_probes_max: u32,
}

impl SocketBounds {
    /// As configured.
    #[must_use]
    pub const fn new(limits: &Limits) -> Self {
        SocketBounds {
            send_bytes_max: limits.socket_send_bytes_max,
            unsent_bytes_max: limits.socket_unsent_bytes_max,
            receive_bytes_max: limits.socket_receive_bytes_max,
            keepalive_seconds: (
                limits.tcp_keepalive_idle_seconds,
                limits.tcp_keepalive_interval_seconds,
            ),
            keepalive_probes_max: limits.tcp_keepalive_probes_max,
        }
    }

    /// Sets them on a socket.
    ///
    /// # Errors
    /// The system refuses one.
    pub fn set_on(self, socket: &Socket, is_tcp: bool) -> io::Result<()> {
        if self.send_bytes_max > 0 {
            socket.set_send_buffer_size(self.send_bytes_max)?;
        }
        if self.receive_bytes_max > 0 {
            socket.set_recv_buffer_size(self.receive_bytes_max)?;
        }
        if self.unsent_bytes_max > 0 && is_tcp {
            socket.set_tcp_notsent_lowat(self.unsent_bytes_max)?;
        }
        let (idle, interval) = self.keepalive_seconds;
        if idle > 0 && is_tcp {
            let keepalive = TcpKeepalive::new()
                .with_time(Duration::from_secs(u64::from(idle)))
                .with_interval(Duration::from_secs(u64::from(interval)))
                .with_retries(self.keepalive_probes_max);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        Ok(())
    }
}

/// One place, listened on by every shard.
#[derive(Debug)]
pub struct Listener {
    /// The place in force; a port is never 0.
    pub place: Place,
    /// Addresses that this machine lacks.
    pub left_out: Vec<SocketAddr>,
    /// For each shard a socket per address.
    pub sockets: Vec<Vec<OwnedFd>>,
    /// What it made in the file system.
    pub file: Option<SocketFile>,
}

/// A socket's file, known from any other that may stand there later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFile {
    path: PathBuf,
    made: (u64, u64, i64, i64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let file = std::fs::symlink_metadata(path)?;
        Ok(SocketFile {
            path: path.to_owned(),
            // Nothing is written to it, so that this stays; numbers of files are used again.
            made: (file.dev(), file.ino(), file.mtime(), file.mtime_nsec()),
        })
    }

    /// Removes it, if it is still there.
    ///
    /// # Errors
    /// The folder may not be changed.
    pub fn remove(&self) -> io::Result<()> {
        match SocketFile::at(&self.path) {
            Ok(there) if there == *self => std::fs::remove_file(&self.path),
            _ => Ok(()),
        }
    }
}

impl Listener {
    /// Listens at `place` for `shards` shards; port 0 picks a free one.
    ///
    /// # Errors
    /// Names the place and what to do.
    pub fn bind(place: &Place, shards: usize, bounds: SocketBounds) -> Result<Self, ListenError> {
        let bound = match place {
            Place::Tcp(tcp) => bind_all(tcp, shards, bounds),
            Place::Unix(unix) => bind_unix(unix, shards, bounds),
        };
        bound.map_err(|source| ListenError {
            place: place.clone(),
            source,
        })
    }

    /// The same, waiting a moment for a port that is in use: that of a broker that was killed is, until the
    /// kernel has taken its rings apart. `waits` hears of it once.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind_when_free(
        place: &Place,
        shards: usize,
        bounds: SocketBounds,
        waits: impl FnOnce(&Place),
    ) -> Result<Self, ListenError> {
        let by = Instant::now() + LISTENS_ON_MAX;
        let mut waits = Some(waits);
        loop {
            match Listener::bind(place, shards, bounds) {
                Err(error) if error.is_port_in_use() && Instant::now() < by => {
                    if let Some(waits) = waits.take() {
                        waits(place);
                    }
                    std::thread::sleep(LISTENS_ON_INTERVAL);
                }
                bound => return bound,
            }
        }
    }

    /// What would keep a start from listening at `place`, as far as that is seen without listening: a broker
    /// may be there already. Nothing is removed.
    ///
    /// # Errors
    /// Names the place and what to do.
    pub fn look(place: &Place) -> Result<(), ListenError> {
        let seen = match place {
            Place::Tcp(tcp) => look_for_addresses(tcp),
            Place::Unix(unix) => look_for_rights(unix),
        };
        seen.map_err(|source| ListenError {
            place: place.clone(),
            source,
        })
    }
}

/// Whether this machine has one of the addresses; by a port that is free.
fn look_for_addresses(tcp: &TcpPlace) -> io::Result<()> {
    let mut lacking = None;
    for address in &tcp.addresses {
        let at = SocketAddr::new(address.ip(), 0);
        let domain = Domain::for_address(at);
        let bound = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
            .and_then(|socket| socket.bind(&at.into()));
        match bound {
            Err(error) if is_lacking(&error) => lacking = Some(error),
            bound => return bound,
        }
    }
    lacking.map_or(Ok(()), Err)
}

/// Whether a socket could be made, and be given to whom it is to be.
fn look_for_rights(unix: &UnixPlace) -> io::Result<()> {
    is_socket(&unix.path)?;
    files::may_make(&unix.path).map_err(io::Error::other)?;
    may_give_to(unix.owner)
}

/// Whether this process may give a file of its own to that user and group; by which key not, if it may not.
fn may_give_to((user, group): (Option<u32>, Option<u32>)) -> io::Result<()> {
    let capabilities = rustix::thread::capabilities(None)?.effective;
    if capabilities.contains(CapabilitySet::CHOWN) {
        return Ok(());
    }
    if user.is_some_and(|user| user != rustix::process::geteuid().as_raw()) {
        return Err(io::Error::other(
            "owner_uid: only root may give it to another user (CAP_CHOWN)",
        ));
    }
    let is_own = |group| {
        group == rustix::process::getegid().as_raw()
            || rustix::process::getgroups()
                .is_ok_and(|groups| groups.iter().any(|own| own.as_raw() == group))
    };
    if group.is_some_and(|group| !is_own(group)) {
        return Err(io::Error::other(
            "owner_gid: the broker's user is not in that group, and only root may give it to another \
             (CAP_CHOWN)",
        ));
    }
    Ok(())
}

/// Whether a socket stands at `path`; an error if something else does.
fn is_socket(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => Ok(true),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => Ok(false),
    }
}

/// How often another port is picked for several addresses, if one of them has it in use.
const PICKS_MAX: usize = 16;

fn bind_all(tcp: &TcpPlace, shards: usize, bounds: SocketBounds) -> io::Result<Listener> {
    let picks = tcp.addresses.iter().any(|address| address.port() == 0) && tcp.addresses.len() > 1;
    for _ in 1..if picks { PICKS_MAX } else { 1 } {
        match bind_at_one_port(tcp, shards, bounds) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    bind_at_one_port(tcp, shards, bounds)
}

fn bind_at_one_port(tcp: &TcpPlace, shards: usize, bounds: SocketBounds) -> io::Result<Listener> {
    let mut sockets: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    let (mut bound, mut left_out, mut lacking) = (Vec::new(), Vec::new(), None);
    let mut picked = None;
    for &address in &tcp.addresses {
        let port = picked.unwrap_or(address.port());
        let address = SocketAddr::new(address.ip(), port);
        let takes_ipv4 = tcp.is_dual && address.is_ipv6() && address.ip().is_unspecified();
        match bind_tcp(address, takes_ipv4, shards, bounds) {
            Ok((address, of_shards)) => {
                picked = Some(address.port());
                bound.push(address);
                for (all, one) in sockets.iter_mut().zip(of_shards) {
                    all.push(one);
                }
            }
            Err(error) if is_lacking(&error) => {
                left_out.push(address);
                lacking = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = lacking.filter(|_| bound.is_empty()) {
        return Err(error);
    }
    Ok(Listener {
        place: Place::Tcp(TcpPlace {
            addresses: bound,
            is_dual: tcp.is_dual,
        }),
        left_out,
        sockets,
        file: None,
    })
}

/// Whether the machine has no such address, or nothing of its family.
fn is_lacking(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn bind_tcp(
    address: SocketAddr,
    takes_ipv4: bool,
    shards: usize,
    bounds: SocketBounds,
) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    let probe = socket(address, takes_ipv4, false)?;
    let bound = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        let socket = socket(bound, takes_ipv4, true)?;
        bounds.set_on(&socket, true)?;
        socket.listen(BACKLOG)?;
        sockets.push(socket.into());
    }
    Ok((bound, sockets))
}

/// One socket that all shards accept from: the kernel knows no SO_REUSEPORT for files.
fn bind_unix(unix: &UnixPlace, shards: usize, bounds: SocketBounds) -> io::Result<Listener> {
    may_give_to(unix.owner)?;
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
        sockets.push(vec![socket.try_clone()?]);
    }
    sockets.push(vec![socket]);
    Ok(Listener {
        place: Place::Unix(unix.clone()),
        left_out: Vec::new(),
        sockets,
        file: Some(SocketFile::at(&unix.path)?),
    })
}

/// How long a socket may go on listening after its process is gone: the kernel takes rings apart later.
pub const LISTENS_ON_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether it still does.
const LISTENS_ON_INTERVAL: Duration = Duration::from_millis(20);

/// Whether a socket stands at `path` that nobody listens on any more.
fn is_left_over(path: &Path, address: &SockAddr) -> io::Result<bool> {
    if !is_socket(path)? {
        return Ok(false);
    }
    let by = Instant::now() + LISTENS_ON_MAX;
    loop {
        let visitor = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Whoever listens may take nobody, and its queue be full.
        visitor.set_nonblocking(true)?;
        match visitor.connect(address).map_err(|error| error.kind()) {
            Err(io::ErrorKind::ConnectionRefused) => return Ok(true),
            _ if Instant::now() >= by => return Ok(false),
            _ => std::thread::sleep(LISTENS_ON_INTERVAL),
        }
    }
}

fn socket(address: SocketAddr, takes_ipv4: bool, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!takes_ipv4)?;
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
        let any = Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)).into());
        let first = Listener::bind(&any, 2, SocketBounds::default()).unwrap();
        assert!(!first.place.to_string().ends_with(":0"));
        let error = Listener::bind(&first.place, 2, SocketBounds::default()).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        let error = error.by_key("listener.url");
        let remedy = "or choose another port with listener.url";
        assert!(error.ends_with(remedy), "{error}");
    }

    #[test]
    fn a_port_that_becomes_free_is_waited_for() {
        let any = Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)).into());
        let first = Listener::bind(&any, 2, SocketBounds::default()).unwrap();
        let place = first.place.clone();
        let mut first = Some(first);
        let bound = Listener::bind_when_free(&place, 2, SocketBounds::default(), |_| {
            drop(first.take());
        });
        assert_eq!(bound.unwrap().place, place);
        assert!(first.is_none(), "it is said");
    }

    #[test]
    fn connections_inherit_the_bounds_of_their_listener() {
        let limits = Limits {
            tcp_keepalive_idle_seconds: 61,
            tcp_keepalive_interval_seconds: 16,
            tcp_keepalive_probes_max: 5,
            ..Limits::default()
        };
        let any = Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)).into());
        let mut listener = Listener::bind(&any, 1, SocketBounds::new(&limits)).unwrap();
        let Place::Tcp(place) = &listener.place else {
            panic!("{:?}", listener.place);
        };
        let _client = std::net::TcpStream::connect(place.addresses[0]).unwrap();
        let socket = Socket::from(listener.sockets.remove(0).remove(0));
        let accepted = socket.accept().unwrap().0;
        assert!(accepted.keepalive().unwrap() && accepted.tcp_nodelay().unwrap());
        let seconds = |seconds| Duration::from_secs(seconds);
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), seconds(61));
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), seconds(16));
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 5);
    }

    #[test]
    fn of_several_addresses_those_that_are_not_there_are_left_out() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        // Of the range for documentation: no machine has it.
        let nowhere = address("192.0.2.1:0");
        let tcp = TcpPlace {
            addresses: vec![nowhere, address("127.0.0.1:0"), address("127.0.0.2:0")],
            is_dual: true,
        };
        let listener = Listener::bind(&Place::Tcp(tcp), 2, SocketBounds::default()).unwrap();
        assert_eq!(listener.left_out, [nowhere]);
        assert!(listener.sockets.iter().all(|sockets| sockets.len() == 2));
        let Place::Tcp(bound) = &listener.place else {
            panic!("{:?}", listener.place);
        };
        assert_eq!(bound.addresses[0].port(), bound.addresses[1].port());
        let alone = Place::Tcp(nowhere.into());
        let error = Listener::bind(&alone, 1, SocketBounds::default()).unwrap_err();
        assert!(error.to_string().contains("no interface"), "{error}");
    }
}
