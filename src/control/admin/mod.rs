//! The admin listener: operators and their programs ask over HTTP, on a thread of its own.
//!
//! ```text
//!   connection ─► bound ─► TLS? ─► header ─► who asks (door) ─► answer
//! ```
//! What is told comes from the control plane, by a bounded queue. Where only this machine reaches the
//! listener, who has no token may look; beyond it there is TLS, and everybody has one but for
//! the files of the dashboard (page), which tell nothing.

mod answers;
mod api;
pub mod counts;
pub mod desk;
mod door;
mod guests;
pub mod kept;
mod metrics;
mod page;
mod process;
pub mod tls;
pub mod tokens;
mod watched;

use crate::control::config::AdminConfig;
use crate::shard::listener::{Listener, Place, SocketBounds};
use answers::Answers;
use axum::Extension;
use counts::AdminCounts;
use desk::{Bound, Renewal};
use door::From;
use guests::Guests;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};
use watched::Watched;

/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// How long nobody is accepted when descriptors have run out.
const BACKOFF: Duration = Duration::from_millis(100);

/// Listens where it is configured, if anywhere, but for places that are open. Where nobody has said where,
/// another program may have the port: that is warned of.
///
/// # Errors
/// It cannot listen where it was said to.
pub fn bind(config: &AdminConfig, is_open: impl Fn(&Place) -> bool) -> Result<Vec<Bound>, String> {
    let mut bound = Vec::new();
    for (key, place) in config.places().filter(|(_, place)| !is_open(place)) {
        match Listener::bind(place, 1, SocketBounds::default()) {
            Ok(listener) => bound.push(Bound {
                wanted: place.clone(),
                listener,
            }),
            Err(error) if config.is_said || key != "admin.listen" => {
                desk::give_up(&bound);
                let reason = error.reason();
                return Err(format!("{key}: cannot listen on {place}: {reason}"));
            }
            Err(error) => warn!(
                "no metrics by HTTP: cannot listen on {place}: {}; say another place with \
                 admin.listen, or \"off\"",
                error.reason()
            ),
        }
    }
    Ok(bound)
}

/// What every connection needs.
#[derive(Clone)]
struct Serving {
    answers: Answers,
    counts: Arc<AdminCounts>,
    guests: Guests,
}

impl Serving {
    fn tell(&self, place: &Place) {
        match place {
            Place::Tcp(_) if self.answers.rules().tls.is_some() => {
                info!("metrics at https://{place}/metrics (admin.listen)");
            }
            Place::Tcp(_) => info!("metrics at http://{place}/metrics (admin.listen)"),
            Place::Unix(_) => info!("metrics at unix://{place} (admin.socket)"),
        }
    }

    /// Accepts where it is told to, until the process ends.
    async fn serve_all(self, mut renewals: UnboundedReceiver<Renewal>) {
        let mut accepting: Vec<(Place, JoinHandle<()>)> = Vec::new();
        while let Some(renewal) = renewals.recv().await {
            self.answers.set_rules(renewal.rules);
            for (_, accepts) in accepting.extract_if(.., |(at, _)| renewal.closed.contains(at)) {
                accepts.abort();
            }
            for Bound { wanted, listener } in renewal.opened {
                self.tell(&listener.place);
                for socket in listener.sockets.into_iter().flatten() {
                    let (serving, place) = (self.clone(), listener.place.clone());
                    let accepts = tokio::spawn(async move {
                        if let Err(error) = serving.accept(&place, socket).await {
                            warn!("nothing is answered at {place} (admin) any more: {error}");
                        }
                    });
                    accepting.push((wanted.clone(), accepts));
                }
            }
        }
        std::future::pending().await
    }

    /// Accepts until the process ends.
    async fn accept(self, place: &Place, socket: OwnedFd) -> io::Result<()> {
        match place {
            Place::Tcp(_) => {
                let socket = std::net::TcpListener::from(socket);
                socket.set_nonblocking(true)?;
                let listener = TcpListener::from_std(socket)?;
                loop {
                    let accepted = listener.accept().await;
                    let accepted =
                        accepted.map(|(stream, peer)| (stream, From::Address(peer.ip())));
                    self.take(accepted).await;
                }
            }
            Place::Unix(_) => {
                let socket = std::os::unix::net::UnixListener::from(socket);
                socket.set_nonblocking(true)?;
                let listener = UnixListener::from_std(socket)?;
                loop {
                    let accepted = listener.accept().await;
                    let accepted = accepted.and_then(|(stream, _)| {
                        let user = stream.peer_cred()?.uid();
                        Ok((stream, From::User(user)))
                    });
                    self.take(accepted).await;
                }
            }
        }
    }

    /// Serves a connection, if there is a place for it.
    async fn take<S>(&self, accepted: io::Result<(S, From)>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static + Send,
    {
        let Ok((stream, from)) = accepted else {
            return tokio::time::sleep(BACKOFF).await;
        };
        let rules = self.answers.rules();
        let Ok(place) = Arc::clone(&rules.places).try_acquire_owned() else {
            return AdminCounts::add(&self.counts.connections_refused);
        };
        let max = rules.config.connections_of(from.ip());
        let Some(guest) = self.guests.enter(from, max) else {
            return AdminCounts::add(&self.counts.connections_refused);
        };
        let serving = self.clone();
        tokio::spawn(async move {
            serving.begin(stream, from).await;
            drop((place, guest));
        });
    }

    /// TLS first, where it is spoken.
    async fn begin<S>(&self, stream: S, from: From)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static + Send,
    {
        let rules = self.answers.rules();
        let tls = rules
            .tls
            .as_ref()
            .filter(|_| matches!(from, From::Address(_)));
        let Some(tls) = tls else {
            return self.serve(stream, from).await;
        };
        let shakes = TlsAcceptor::from(tls.config()).accept(stream);
        match tokio::time::timeout(rules.config.request_timeout, shakes).await {
            Ok(Ok(stream)) => self.serve(stream, from).await,
            Ok(Err(_)) => AdminCounts::add(&self.counts.requests_refused),
            Err(_) => AdminCounts::add(&self.counts.timeouts),
        }
    }

    async fn serve<S>(&self, stream: S, from: From)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static + Send,
    {
        let rules = self.answers.rules();
        let within = rules.config.request_timeout;
        let stream = Watched::new(stream, within, Arc::clone(&self.counts));
        let begun = stream.begun();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            // Who asks all at once and says so gets its answers.
            .half_close(true)
            .header_read_timeout(within)
            .max_headers(HEADERS_MAX)
            .max_buf_size(rules.config.header_bytes_max);
        let service =
            TowerToHyperService::new(self.answers.router(api::router()).layer(Extension(from)));
        let served = http.serve_connection(TokioIo::new(stream), service).await;
        if let Err(error) = served {
            if error.is_timeout() {
                // One that rests between requests has its time, and is not late.
                if begun.is_so() {
                    AdminCounts::add(&self.counts.timeouts);
                }
            } else if error.is_parse() {
                AdminCounts::add(&self.counts.requests_refused);
            }
        }
    }
}
