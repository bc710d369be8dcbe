//! `[admin]`: where operators ask the broker over HTTP, and what such an asker may take.

use super::Sources;
use super::addresses::shared;
use super::error::ConfigError;
use super::file::{FileAdmin, FileConfig};
use super::listener::tls_files;
use super::paths;
use super::place::{self, Places};
use crate::shard::certificates::TlsFiles;
use crate::shard::listener::{Place, TcpPlace, UnixPlace};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
    /// A socket in the file system beside it.
    pub socket: Option<Place>,
    /// Whether that was said: else another program may have the port.
    pub is_said: bool,
    /// TLS, where other machines may ask.
    pub tls: Option<TlsFiles>,
    /// Who may ask for more than to look.
    pub token_file: Option<PathBuf>,
    /// Names by which it may be called, besides those of this machine itself.
    pub hosts: Vec<String>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Of these, of one address; `None` for half of them, and no limit for this machine's own.
    pub connections_per_address_max: Option<usize>,
    /// Bytes of a request with its headers.
    pub header_bytes_max: usize,
    /// Bytes of what follows them.
    pub body_bytes_max: usize,
    /// Requests of one address in a second; 0 for no limit.
    pub request_rate_max: u64,
    /// Slow clients, and loud ones and topics, that are told of.
    pub top_max: usize,
    /// What those who follow packets may take.
    pub traces: TraceBounds,
    /// Until when a request has to have come, its answer has to be there, and has to be taken.
    pub request_timeout: Duration,
}

/// What those who follow packets may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceBounds {
    /// How many may follow at a time.
    pub traces_max: usize,
    /// For how long.
    pub seconds_max: u64,
    /// How many lines.
    pub lines_max: u64,
    /// Lines that wait for one of them.
    pub queue_max: usize,
    /// Bytes of a payload that are told.
    pub payload_bytes_max: usize,
}

impl TraceBounds {
    fn of(raw: &FileAdmin) -> Self {
        TraceBounds {
            traces_max: raw.traces_max.unwrap_or(8),
            seconds_max: raw.trace_seconds_max.unwrap_or(600),
            lines_max: raw.trace_lines_max.unwrap_or(100_000),
            queue_max: raw.trace_queue_max.unwrap_or(1_024),
            payload_bytes_max: raw.trace_payload_bytes_max.unwrap_or(256),
        }
    }
}

/// Checks the section.
///
/// # Errors
/// What is wrong with `listen`.
pub(super) fn admin(file: &FileConfig, places: &Places<'_>) -> Result<AdminConfig, ConfigError> {
    let raw = &file.admin;
    let default = Named {
        place: Some(tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))),
        is_tls: false,
    };
    let wrong = |text| places.wrong("admin.listen", text);
    let named = match &raw.listen {
        None => default,
        Some(listen) => at_url(listen).map_err(wrong)?,
    };
    let socket = raw.socket.clone().map(socket);
    let same = named.place.as_ref().zip(socket.as_ref());
    if same.is_some_and(|(listen, socket)| shared(listen, socket).is_some()) {
        let text = "that is admin.listen already; leave one of them out";
        return Err(places.wrong("admin.socket", text.to_owned()));
    }
    let is_local = named.place.as_ref().is_none_or(is_local);
    if !is_local && !named.is_tls {
        return Err(wrong(
            "other machines could reach that and read along; say https://, with admin.tls and \
             admin.token_file, or name 127.0.0.1, [::1] or unix:///PATH, and forward to it (ssh -L)"
                .to_owned(),
        ));
    }
    if !is_local && raw.token_file.is_none() {
        return Err(wrong(
            "other machines could reach that, and nobody would be asked who he is; name a file of \
             tokens with admin.token_file (`ringmq token` makes them)"
                .to_owned(),
        ));
    }
    let tls = named.is_tls.then(|| {
        let url = raw.listen.as_deref().unwrap_or_default();
        let files = tls_files((file.tls.as_ref(), raw.tls.as_ref()), url, true);
        files.map_err(|text| places.wrong("admin.tls", text))
    });
    Ok(AdminConfig {
        place: named.place,
        socket,
        tls: tls.transpose()?,
        token_file: raw.token_file.clone(),
        is_said: raw.listen.is_some(),
        hosts: raw.hosts.clone().unwrap_or_default(),
        connections_max: raw.connections_max.unwrap_or(32),
        connections_per_address_max: raw.connections_per_address_max,
        header_bytes_max: raw.header_bytes_max.unwrap_or(16_384),
        body_bytes_max: raw.body_bytes_max.unwrap_or(1 << 20),
        request_rate_max: raw.request_rate_max.unwrap_or(200),
        top_max: raw.top_max.unwrap_or(10),
        traces: TraceBounds::of(raw),
        request_timeout: Duration::from_millis(raw.request_timeout_ms.unwrap_or(5_000)),
    })
}

/// A socket for its owner and group.
fn socket(path: PathBuf) -> Place {
    Place::Unix(UnixPlace {
        path,
        mode: Some(SOCKET_MODE),
        owner: (None, None),
    })
}

fn tcp(address: SocketAddr) -> Place {
    Place::Tcp(TcpPlace {
        addresses: vec![address],
        is_dual: false,
    })
}

/// Where it is to be, `None` for nowhere, and whether over TLS.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    place: Option<Place>,
    is_tls: bool,
}

impl AdminConfig {
    /// This section alone: who asks a broker need not know whether all else is right.
    ///
    /// # Errors
    /// What is wrong with it, or with the form of the file.
    pub fn load(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let (mut raw, places, _) = place::merge(sources)?;
        paths::settle(&mut raw, &places);
        admin(&raw, &places)
    }

    /// All places where it listens, with the keys that say so.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, &Place)> {
        let listen = self.place.as_ref().map(|place| ("admin.listen", place));
        let socket = self.socket.as_ref().map(|place| ("admin.socket", place));
        listen.into_iter().chain(socket)
    }

    /// Sees to it that it listens nowhere where clients come in.
    ///
    /// # Errors
    /// Names the key and the place that is a listener's.
    pub(super) fn keep_apart<'a>(
        &self,
        listeners: impl Iterator<Item = &'a Place> + Clone,
        places: &Places<'_>,
    ) -> Result<(), ConfigError> {
        for (key, place) in self.places() {
            // A port that nobody has said is given up.
            let is_said = self.is_said || key != "admin.listen";
            let mut taken = listeners.clone().filter_map(|other| shared(other, place));
            if is_said && let Some(place) = taken.next() {
                let text = format!("{place} is a listener's already; choose another place");
                return Err(places.wrong(key, text));
            }
        }
        Ok(())
    }

    /// How many connections an address may have; 0 for no limit.
    #[must_use]
    pub fn connections_of(&self, ip: Option<IpAddr>) -> usize {
        let is_near = ip.is_none_or(|ip| ip.to_canonical().is_loopback());
        match self.connections_per_address_max {
            Some(max) => max,
            None if is_near => 0,
            None => self.connections_max.div_ceil(2),
        }
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.place.as_ref().is_none_or(is_local)
    }
}

/// Whether only this machine reaches it.
fn is_local(place: &Place) -> bool {
    match place {
        Place::Tcp(tcp) => tcp
            .addresses
            .iter()
            .all(|address| address.ip().to_canonical().is_loopback()),
        Place::Unix(_) => true,
    }
}

fn at_url(listen: &str) -> Result<Named, String> {
    let plain = |place| Named {
        place,
        is_tls: false,
    };
    if listen == OFF {
        return Ok(plain(None));
    }
    if let Some(path) = listen.strip_prefix("unix://") {
        if !path.starts_with('/') {
            return Err(format!("{listen}: the path of a socket begins with /"));
        }
        return Ok(plain(Some(socket(PathBuf::from(path)))));
    }
    let (named, is_tls) = match listen.strip_prefix("https://") {
        Some(named) => (named, true),
        None => (listen.strip_prefix("http://").unwrap_or(listen), false),
    };
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
            "{listen:?} is none of http://ADDRESS:PORT, https://ADDRESS:PORT, unix:///PATH and {OFF}"
        ));
    };
    Ok(Named {
        place: Some(tcp(address)),
        is_tls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_by_who_reaches_them() {
        for right in [
            "127.0.0.1:0",
            "http://[::1]:14883/",
            "http://localhost:9",
            "https://127.8.8.8:1",
            "unix:///run/x",
        ] {
            let named = at_url(right).unwrap();
            assert_eq!(named.is_tls, right.starts_with("https"));
            assert!(named.place.as_ref().is_some_and(is_local), "{right}");
        }
        assert_eq!(at_url("off").unwrap().place, None);
        for far in ["0.0.0.0:14883", "https://192.0.2.1:80", "[::]:14883"] {
            let named = at_url(far).unwrap();
            assert!(!named.place.as_ref().is_some_and(is_local), "{far}");
        }
        for wrong in ["", "14883", "ftp://127.0.0.1:1", "unix://x", "none"] {
            assert!(at_url(wrong).is_err(), "{wrong}");
        }
    }
}
