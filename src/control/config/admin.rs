//! `[admin]`: where operators ask the broker over HTTP, and what such an asker may take.

use super::error::ConfigError;
use super::file::FileAdmin;
use super::place::Places;
use crate::shard::listener::{Place, TcpPlace, UnixPlace};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Default port: assigned to nobody, below those that the system gives to clients, and none of those that
/// exporters, other brokers and their dashboards have.
const PORT: u16 = 14_883;
/// Who may connect to a socket in the file system: its owner and group.
const SOCKET_MODE: u32 = 0o660;
const OFF: &str = "off";

/// How operators ask the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where; `None` for nowhere.
    pub place: Option<Place>,
    /// Whether that was said: else another program may have the port.
    pub is_said: bool,
    /// Names by which it may be called, besides those of this machine itself.
    pub hosts: Vec<String>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Bytes of a request with its headers.
    pub header_bytes_max: usize,
    /// Until when a request has to have come, its answer has to be there, and has to be taken.
    pub request_timeout: Duration,
}

/// Checks the section.
///
/// # Errors
/// What is wrong with `listen`.
pub(super) fn admin(raw: &FileAdmin, places: &Places<'_>) -> Result<AdminConfig, ConfigError> {
    let place = match &raw.listen {
        None => Some(tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))),
        Some(listen) => place(listen).map_err(|text| places.wrong("admin.listen", text))?,
    };
    Ok(AdminConfig {
        place,
        is_said: raw.listen.is_some(),
        hosts: raw.hosts.clone().unwrap_or_default(),
        connections_max: raw.connections_max.unwrap_or(32),
        header_bytes_max: raw.header_bytes_max.unwrap_or(16_384),
        request_timeout: Duration::from_millis(raw.request_timeout_ms.unwrap_or(5_000)),
    })
}

fn tcp(address: SocketAddr) -> Place {
    Place::Tcp(TcpPlace {
        addresses: vec![address],
        is_dual: false,
    })
}

/// Where it is to be; `None` for nowhere.
fn place(listen: &str) -> Result<Option<Place>, String> {
    if listen == OFF {
        return Ok(None);
    }
    if let Some(path) = listen.strip_prefix("unix://") {
        if !path.starts_with('/') {
            return Err(format!("{listen}: the path of a socket begins with /"));
        }
        return Ok(Some(Place::Unix(UnixPlace {
            path: PathBuf::from(path),
            mode: Some(SOCKET_MODE),
            owner: (None, None),
        })));
    }
    let named = listen.strip_prefix("http://").unwrap_or(listen);
    let named = named.strip_suffix('/').unwrap_or(named);
    let address = match named.strip_prefix("localhost:") {
        Some(port) => port
            .parse()
            .ok()
            .map(|port| (Ipv4Addr::LOCALHOST, port).into()),
        None => named.parse::<SocketAddr>().ok(),
    };
    let Some(address) = address else {
        return Err(format!(
            "{listen:?} is none of http://ADDRESS:PORT, unix:///PATH and {OFF}"
        ));
    };
    if !address.ip().is_loopback() {
        return Err(format!(
            "other machines could reach {address}, and this version asks nobody who he is there; name \
             127.0.0.1, [::1] or unix:///PATH, and forward to it from where it is known who asks (ssh -L)"
        ));
    }
    Ok(Some(tcp(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_ask() {
        for right in [
            "127.0.0.1:0",
            "http://[::1]:14883/",
            "http://localhost:9",
            "127.8.8.8:1",
        ] {
            assert!(matches!(place(right), Ok(Some(Place::Tcp(_)))), "{right}");
        }
        assert!(matches!(place("unix:///run/x"), Ok(Some(Place::Unix(_)))));
        assert_eq!(place("off"), Ok(None));
        for wrong in ["0.0.0.0:14883", "http://192.0.2.1:80", "[::]:14883"] {
            assert!(
                place(wrong).unwrap_err().contains("other machines"),
                "{wrong}"
            );
        }
        for wrong in ["", "14883", "https://127.0.0.1:1", "unix://x", "none"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
