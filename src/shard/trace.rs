//! What operators follow live: the order to a shard, and the lines that it tells.

use crate::engine::trace::Followed;
use crate::engine::trace::line::PacketLine;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use utoipa::ToSchema;

/// An order to follow something.
#[derive(Clone, Debug)]
pub struct TraceOrder {
    /// What.
    pub followed: Followed,
    /// Bytes of a payload that are told.
    pub payload_bytes_max: usize,
    /// Until then, or until nobody takes its lines.
    pub until: Instant,
    /// Where they go.
    pub feed: Feed,
}

/// The way of lines to who follows; a shard never waits for it.
#[derive(Clone, Debug)]
pub struct Feed {
    to: Sender<TraceRow>,
    left_out: Arc<AtomicU64>,
}

impl Feed {
    /// Lines go there; those without room are counted.
    #[must_use]
    pub const fn new(to: Sender<TraceRow>, left_out: Arc<AtomicU64>) -> Self {
        Feed { to, left_out }
    }

    /// Whether nobody takes lines any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.to.is_closed()
    }

    /// Hands a line over; whether it, or there being nobody, found room.
    pub fn tell(&self, row: TraceRow) -> bool {
        let is_full = matches!(self.to.try_send(row), Err(TrySendError::Full(_)));
        if is_full {
            self.leave_out(1);
        }
        !is_full
    }

    /// Counts lines that found no room.
    pub fn leave_out(&self, count: u64) {
        self.left_out.fetch_add(count, Ordering::Relaxed);
    }
}

/// Who has sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The client.
    Client,
    /// The broker.
    Broker,
}

/// A packet that was followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TraceRow {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The shard that saw it.
    pub shard: u16,
    /// Client identifier; null before its CONNECT.
    pub client_id: Option<String>,
    /// Where the client is; null through a socket in the file system.
    pub address: Option<String>,
    /// Who has sent it.
    pub from: Side,
    /// What it says.
    #[serde(flatten)]
    pub packet: PacketLine,
}
