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
use crate::control::overview::Ask;
use crate::shard::listener::{Listener, Place, SocketBounds, SocketFile};
use answers::Answers;
use axum::Extension;
use counts::AdminCounts;
use crossbeam_channel::Sender;
use door::From;
use guests::Guests;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kept::Kept;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tls::AdminTls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};
use watched::Watched;

/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// How long nobody is accepted when descriptors have run out.
const BACKOFF: Duration = Duration::from_millis(100);

/// A listener that does not answer yet.
pub struct Admin {
    /// At least one.
    listeners: Vec<Listener>,
    config: AdminConfig,
    counts: Arc<AdminCounts>,
}

impl Admin {
    /// Listens where it is configured, if anywhere. Where nobody has said where, another program may have the
    /// port: that is warned of.
    ///
    /// # Errors
    /// It cannot listen where it was said to.
    pub fn bind(config: &AdminConfig) -> Result<Option<Self>, String> {
        let mut listeners = Vec::new();
        for (key, place) in config.places() {
            match Listener::bind(place, 1, SocketBounds::default()) {
                Ok(listener) => listeners.push(listener),
                Err(error) if config.is_said || key != "admin.listen" => {
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
        Ok((!listeners.is_empty()).then(|| Admin {
            listeners,
            config: config.clone(),
            counts: Arc::default(),
        }))
    }

    /// What it counts.
    #[must_use]
    pub fn counts(&self) -> Arc<AdminCounts> {
        Arc::clone(&self.counts)
    }

    /// The files of its sockets, which go with the broker.
    pub fn files(&self) -> impl Iterator<Item = SocketFile> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.file.clone())
    }

    /// Answers from now on, on a thread of its own, by what is asked of the control plane.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self, asks: Sender<Ask>, kept: Kept) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tls = kept.files.tls.clone();
        let serving = Serving {
            answers: Answers::new(asks, &self.config, kept, Arc::clone(&self.counts)),
            tls,
            config: self.config,
            counts: self.counts,
            guests: Guests::default(),
        };
        let listeners = self.listeners;
        listeners.iter().for_each(|at| serving.tell(&at.place));
        let thread = std::thread::Builder::new().name("admin".into());
        thread.spawn(move || runtime.block_on(serving.serve_all(listeners)))?;
        Ok(())
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Serving {
    answers: Answers,
    tls: Option<Arc<AdminTls>>,
    config: AdminConfig,
    counts: Arc<AdminCounts>,
    guests: Guests,
}

impl Serving {
    fn tell(&self, place: &Place) {
        match place {
            Place::Tcp(_) if self.tls.is_some() => {
                info!("metrics at https://{place}/metrics (admin.listen)");
            }
            Place::Tcp(_) => info!("metrics at http://{place}/metrics (admin.listen)"),
            Place::Unix(_) => info!("metrics at unix://{place} (admin)"),
        }
    }

    /// Accepts everywhere until the process ends.
    async fn serve_all(self, listeners: Vec<Listener>) {
        let places = Arc::new(Semaphore::new(self.config.connections_max));
        let mut accepting = Vec::new();
        for listener in listeners {
            for socket in listener.sockets.into_iter().flatten() {
                let (serving, places) = (self.clone(), Arc::clone(&places));
                let place = listener.place.clone();
                accepting.push(tokio::spawn(async move {
                    if let Err(error) = serving.accept(&place, socket, &places).await {
                        warn!("nothing is answered at {place} (admin) any more: {error}");
                    }
                }));
            }
        }
        for accepts in accepting {
            // It ends only where it has said why.
            let _ = accepts.await;
        }
    }

    /// Accepts until the process ends.
    async fn accept(
        self,
        place: &Place,
        socket: OwnedFd,
        places: &Arc<Semaphore>,
    ) -> io::Result<()> {
        match place {
            Place::Tcp(_) => {
                let socket = std::net::TcpListener::from(socket);
                socket.set_nonblocking(true)?;
                let listener = TcpListener::from_std(socket)?;
                loop {
                    let accepted = listener.accept().await;
                    let accepted =
                        accepted.map(|(stream, peer)| (stream, From::Address(peer.ip())));
                    self.take(places, accepted).await;
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
                    self.take(places, accepted).await;
                }
            }
        }
    }

    /// Serves a connection, if there is a place for it.
    async fn take<S>(&self, places: &Arc<Semaphore>, accepted: io::Result<(S, From)>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static + Send,
    {
        let Ok((stream, from)) = accepted else {
            return tokio::time::sleep(BACKOFF).await;
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return AdminCounts::add(&self.counts.connections_refused);
        };
        let max = self.config.connections_of(from.ip());
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
        let tls = self
            .tls
            .as_ref()
            .filter(|_| matches!(from, From::Address(_)));
        let Some(tls) = tls else {
            return self.serve(stream, from).await;
        };
        let shakes = TlsAcceptor::from(tls.config()).accept(stream);
        match tokio::time::timeout(self.config.request_timeout, shakes).await {
            Ok(Ok(stream)) => self.serve(stream, from).await,
            Ok(Err(_)) => AdminCounts::add(&self.counts.requests_refused),
            Err(_) => AdminCounts::add(&self.counts.timeouts),
        }
    }

    async fn serve<S>(&self, stream: S, from: From)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static + Send,
    {
        let within = self.config.request_timeout;
        let stream = Watched::new(stream, within, Arc::clone(&self.counts));
        let begun = stream.begun();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            // Who asks all at once and says so gets its answers.
            .half_close(true)
            .header_read_timeout(self.config.request_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(self.config.header_bytes_max);
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
