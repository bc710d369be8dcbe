//! A bridge's connection on its way from who dials to the shard where its session is.

use crate::engine::bridge::plan::{Plan, Protocol};
use crate::shard::peer::Peer;
use crate::shard::transport::remote::RemoteTls;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// A connection that goes out.
#[derive(Debug)]
pub struct NewLine {
    /// Names it in what it tells.
    pub number: u64,
    /// What it is told.
    pub plan: Arc<Plan>,
    /// By which protocol it carries messages; `None` if it only makes the session.
    pub protocol: Option<Protocol>,
    /// The socket, connected.
    pub descriptor: OwnedFd,
    /// The other end, where nobody else has it; it stays open as long as the line.
    pub far_end: Option<OwnedFd>,
    /// Where the other end is.
    pub peer: Peer,
    /// How to speak TLS with it, where that is under MQTT.
    pub tls: Option<RemoteTls>,
    /// The URL of its WebSocket, where that is under MQTT.
    pub url: Option<String>,
}

/// Messages that waited in a bridge's session here and are dropped with it.
#[derive(Debug)]
pub struct SessionLoss {
    /// Its client identifier here.
    pub client_id: Box<str>,
    /// How many.
    pub messages: u64,
    /// Why.
    pub by: LossBy,
}

/// Why a bridge's session ends with what waits in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossBy {
    /// The bridge, or one of its connections, is no more.
    Removal,
    /// It has another user here, who gets nothing of what was for the one before.
    User,
}

/// One of these as an order, which may be copied: whoever comes first takes it.
#[derive(Clone)]
pub struct Parcel(Arc<Mutex<Option<NewLine>>>);

impl Parcel {
    /// Packs it.
    #[must_use]
    pub fn new(line: NewLine) -> Self {
        Parcel(Arc::new(Mutex::new(Some(line))))
    }

    /// Takes it out.
    #[must_use]
    pub fn take(&self) -> Option<NewLine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parcel")
    }
}
