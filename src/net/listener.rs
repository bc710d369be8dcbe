//! Listening sockets: one per shard and address, so that the kernel spreads connections.
//!
//! A port that another program listens on is refused even where SO_REUSEPORT would let both share it:
//! half of the clients at a stranger's broker is worse than a clear error.

use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Connections the kernel keeps for a shard that has not accepted them yet.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match self.source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {address}: the port is in use. Stop the program that listens there \
                 (`ss -ltnp`) or choose another port with --listen mqtt://HOST:PORT"
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "cannot listen on {address}: permission denied. Ports below 1024 need \
                 CAP_NET_BIND_SERVICE; choose another port or grant it"
            ),
            io::ErrorKind::AddrNotAvailable => write!(
                f,
                "cannot listen on {address}: no interface of this machine has the address; \
                 `ip addr` lists them"
            ),
            _ => write!(f, "cannot listen on {address}: {}", self.source),
        }
    }
}

impl std::error::Error for ListenError {}

/// One address, listened on by every shard.
#[derive(Debug)]
pub struct Listener {
    /// The address in force; its port is never 0.
    pub address: SocketAddr,
    /// A socket per shard.
    pub sockets: Vec<OwnedFd>,
}

impl Listener {
    /// Binds `address` for `shards` shards; port 0 picks a free one.
    ///
    /// # Errors
    /// Names the address and what to do.
    pub fn bind(address: SocketAddr, shards: usize) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let probe = socket(address, false).map_err(failed)?;
        let bound = probe
            .local_addr()
            .map_err(failed)?
            .as_socket()
            .unwrap_or(address);
        drop(probe);
        let mut sockets = Vec::with_capacity(shards);
        for _ in 0..shards {
            let socket = socket(bound, true).map_err(failed)?;
            socket.listen(BACKLOG).map_err(failed)?;
            sockets.push(socket.into());
        }
        Ok(Listener {
            address: bound,
            sockets,
        })
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
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = Listener::bind(any, 2).unwrap();
        assert_ne!(first.address.port(), 0);
        let error = Listener::bind(first.address, 2).unwrap_err().to_string();
        assert!(
            error.contains("in use") && error.contains("--listen"),
            "{error}"
        );
    }
}
