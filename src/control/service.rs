//! Words to the service manager: ready, alive, stopping. Without one nothing happens.
//!
//! Not here: when they are said.

use sd_notify::NotifyState;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where a service manager listens.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Tells a service manager. If it does not hear, that is its affair.
pub fn tell(state: NotifyState<'_>) {
    let place = std::env::var(NOTIFY_SOCKET).unwrap_or_default();
    // The crate knows sockets in the file system only.
    let _ = match place.strip_prefix('@') {
        Some(name) => tell_abstract(name, &state.to_string()),
        None => sd_notify::notify(&[state]).map_err(std::io::Error::other),
    };
}

fn tell_abstract(name: &str, words: &str) -> std::io::Result<()> {
    let place = SocketAddr::from_abstract_name(name)?;
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(words.as_bytes(), &place).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_with_an_abstract_socket_hears_the_same_words() {
        let name = format!("ringmq-test-{}", std::process::id());
        let place = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&place).expect("free");
        tell_abstract(&name, &NotifyState::Ready.to_string()).expect("it listens");
        let mut heard = [0; 64];
        let count = manager.recv(&mut heard).expect("heard");
        assert_eq!(heard[..count].trim_ascii_end(), b"READY=1");
        assert!(tell_abstract("ringmq-nobody", "x").is_err());
    }
}
