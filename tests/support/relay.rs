//! A TCP relay that a test can cut: the line between two brokers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What its threads share.
#[derive(Default)]
struct Open {
    is_closed: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Open {
    fn cut(&self) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn keep(&self, stream: &TcpStream) -> io::Result<()> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.push(stream.try_clone()?);
        Ok(())
    }
}

/// A relay to an address.
pub struct Relay {
    address: SocketAddr,
    open: Arc<Open>,
}

impl Relay {
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        let address = listener.local_addr().expect("an address");
        let open = Arc::<Open>::default();
        let shared = Arc::clone(&open);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !shared.is_closed.load(Ordering::SeqCst) {
                    let _ = relay(stream, to, &shared);
                }
            }
        });
        Relay { address, open }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections through it.
    pub fn cut(&self) {
        self.open.cut();
    }

    /// Lets nobody through any more.
    pub fn close(&self) {
        self.open.is_closed.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Lets through who comes from now on.
    pub fn open(&self) {
        self.open.is_closed.store(false, Ordering::SeqCst);
    }
}

fn relay(from: TcpStream, to: SocketAddr, open: &Arc<Open>) -> io::Result<()> {
    let to = TcpStream::connect(to)?;
    for stream in [&from, &to] {
        stream.set_nodelay(true)?;
        open.keep(stream)?;
    }
    let back = (to.try_clone()?, from.try_clone()?);
    std::thread::spawn(move || pass(from, to));
    std::thread::spawn(move || pass(back.0, back.1));
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 * 1024];
    loop {
        let count = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
