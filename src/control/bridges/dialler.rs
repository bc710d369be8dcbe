//! A thread that finds addresses and connects: what may take long and must hold up nobody else.
//!
//! One task per attempt, with a deadline; a resolver that hangs holds up its own bridge only.

use crate::control::config::Address;
use crate::shard::listener::SocketBounds;
use crossbeam_channel::Sender;
use socket2::SockRef;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// An attempt.
#[derive(Debug)]
pub struct Call {
    /// Its number.
    pub number: u64,
    /// Where to.
    pub address: Address,
    /// How long it may take.
    pub timeout: Duration,
}

/// What became of it.
#[derive(Debug)]
pub struct Called {
    /// Its number.
    pub number: u64,
    /// A connection, and where it leads; else why not.
    pub outcome: Result<(TcpStream, SocketAddr), CallError>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum CallError {
    /// The name leads nowhere.
    Dns(io::Error),
    /// Nobody answers at the last of these addresses.
    Tcp(SocketAddr, io::Error),
    /// It took too long.
    Timeout(Duration),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Dns(error) => write!(f, "DNS: its host is not found: {error}"),
            CallError::Tcp(address, error) => write!(f, "TCP: {address} does not answer: {error}"),
            CallError::Timeout(timeout) => {
                let ms = timeout.as_millis();
                write!(
                    f,
                    "TCP: no connection within {ms} ms (bridge.connect_timeout_ms)"
                )
            }
        }
    }
}

/// Sockets that are connected at once are few: room for so many of what the system tells.
const EVENTS_PER_TICK: usize = 32;

/// The way to the thread. Each bridge has one call under way at a time.
#[derive(Debug)]
pub struct Dialler {
    calls: UnboundedSender<Call>,
}

impl Dialler {
    /// Starts the thread, which answers by `called`; sockets have the same bounds as those of clients.
    ///
    /// # Errors
    /// The system gives none.
    pub fn start(called: Sender<Called>, bounds: SocketBounds) -> io::Result<Self> {
        let (calls, taken) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_io_events_per_tick(EVENTS_PER_TICK)
            .build()?;
        std::thread::Builder::new()
            .name("ringmq-dial".into())
            .spawn(move || runtime.block_on(serve(taken, called, bounds)))?;
        Ok(Dialler { calls })
    }

    /// Begins an attempt.
    pub fn call(&self, call: Call) {
        let _ = self.calls.send(call);
    }
}

async fn serve(mut calls: UnboundedReceiver<Call>, called: Sender<Called>, bounds: SocketBounds) {
    while let Some(call) = calls.recv().await {
        let called = called.clone();
        tokio::spawn(async move {
            let within = tokio::time::timeout(call.timeout, connect(&call.address, bounds)).await;
            let outcome = within.unwrap_or(Err(CallError::Timeout(call.timeout)));
            let _ = called.send(Called {
                number: call.number,
                outcome,
            });
        });
    }
}

async fn connect(
    address: &Address,
    bounds: SocketBounds,
) -> Result<(TcpStream, SocketAddr), CallError> {
    let host = (&*address.host, address.port);
    let found = tokio::net::lookup_host(host).await;
    let nowhere = || CallError::Dns(io::ErrorKind::AddrNotAvailable.into());
    let mut failed = None;
    for found in found.map_err(CallError::Dns)? {
        let connected = match tokio::net::TcpStream::connect(found).await {
            Ok(stream) => stream.into_std().and_then(|stream| {
                // The ring waits, not the socket.
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                bounds.set_on(&SockRef::from(&stream), true)?;
                Ok(stream)
            }),
            Err(error) => Err(error),
        };
        match connected {
            Ok(stream) => return Ok((stream, found)),
            Err(error) => failed = Some(CallError::Tcp(found, error)),
        }
    }
    Err(failed.unwrap_or_else(nowhere))
}
