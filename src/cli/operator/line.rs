//! The way to the admin listener: one connection, opened again where the broker has closed it.

use super::Failure;
use super::reach::{At, Reach};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// How long an answer is waited for: longer than the broker waits for its shards.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 26;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Asks a broker.
pub struct Line {
    reach: Reach,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    /// To there; nothing is opened yet.
    #[must_use]
    pub const fn new(reach: Reach) -> Self {
        let sender = None;
        Line { reach, sender }
    }

    /// One more to the same place.
    #[must_use]
    pub fn another(&self) -> Self {
        Line::new(self.reach.clone())
    }

    /// Where that is.
    #[must_use]
    pub const fn at(&self) -> &At {
        &self.reach.at
    }

    /// What is told at a path behind `/api/v1`.
    ///
    /// # Errors
    /// The broker is not reached, or does not tell.
    pub async fn get(&mut self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// Has something done.
    ///
    /// # Errors
    /// The broker is not reached, or does not do it.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let asks = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let whole = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            let whole = whole.map_err(|error| self.broken(&error))?.to_bytes();
            self.told(status, &whole)
        };
        let answered = tokio::time::timeout(ANSWER_MAX, asks).await;
        answered.unwrap_or_else(|_| Err(self.late()))
    }

    /// The beginning of an answer that goes on for as long as it is taken.
    ///
    /// # Errors
    /// As for [`Line::ask`].
    pub async fn follow(&mut self, path: &str) -> Result<Incoming, Failure> {
        let begins = async {
            let response = self.send(Method::GET, path, None).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response.into_body());
            }
            let whole = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            let whole = whole.map_err(|error| self.broken(&error))?.to_bytes();
            self.told(status, &whole)
                .and(Err(self.broken(&"it told nothing")))
        };
        let begun = tokio::time::timeout(ANSWER_MAX, begins).await;
        begun.unwrap_or_else(|_| Err(self.late()))
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut sender = match self.sender.take() {
            // One that the broker has closed meanwhile is not ready any more.
            Some(mut sender) => match sender.ready().await {
                Ok(()) => sender,
                Err(_) => self.open().await?,
            },
            None => self.open().await?,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(HOST, self.reach.at.host())
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.reach.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        let sent = sender.send_request(request).await;
        self.sender = Some(sender);
        sent.map_err(|error| self.broken(&error))
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = self
            .connect()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| self.broken(&error))?;
        // What goes wrong there is told to who asks.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.reach.at {
            At::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            At::Tcp(host, port, _) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                match &self.reach.tls {
                    None => Ok(Box::new(stream)),
                    Some((config, name)) => {
                        let shakes =
                            TlsConnector::from(config.clone()).connect(name.clone(), stream);
                        Ok(Box::new(shakes.await?))
                    }
                }
            }
        }
    }

    fn told(&self, status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
        let value = match body {
            [] => Some(Value::Null),
            body => serde_json::from_slice::<Value>(body).ok(),
        };
        let Some(value) = value else {
            let at = self.at();
            return Err(Failure::Failed(format!(
                "what answers at {at} is no admin listener of a broker (status {status})"
            )));
        };
        if status.is_success() {
            return Ok(value);
        }
        let error = value.get("error").and_then(Value::as_str);
        let error = error.map_or_else(|| format!("it answers {status}"), str::to_owned);
        Err(match status {
            StatusCode::NOT_FOUND => Failure::Missing(error),
            StatusCode::UNPROCESSABLE_ENTITY => Failure::Wrong(error),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Failed(format!(
                "{error}. Name a file with a token that may by --token-file, or come by the broker's socket \
                 (admin.socket) as its user or root"
            )),
            _ => Failure::Failed(error),
        })
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let at = self.at();
        let hint = match (at, error.kind()) {
            (At::Unix(_), io::ErrorKind::PermissionDenied) => {
                "The socket is for the broker's user and group"
            }
            (_, io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                "Does the broker run, and is that where it answers (admin.listen, admin.socket)? Name \
                 another place with --admin, or its configuration with --config"
            }
            (_, io::ErrorKind::InvalidData) => {
                "Name the authority that has signed its certificate with --ca, and the host as the \
                 certificate calls it"
            }
            _ => "Name another place with --admin, or the broker's configuration with --config",
        };
        let error = reason(error);
        Failure::Unreached(format!("no broker is reached at {at}: {error}. {hint}"))
    }

    pub(super) fn broken(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::Unreached(format!("{} broke off: {error}", self.at()))
    }

    fn late(&self) -> Failure {
        let (at, seconds) = (self.at(), ANSWER_MAX.as_secs());
        Failure::Failed(format!("{at} has not answered for {seconds} s"))
    }
}

/// What the system says, without its numbers.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text.get(..end).unwrap_or(&text).to_lowercase()
}
