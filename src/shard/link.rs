//! A connection's layers on their way through the shell, and with it to another shard.

use crate::shard::transport::Layers;

/// A connection's layers, and what waits around them.
#[derive(Debug)]
pub struct Link {
    pub(super) layers: Box<Layers>,
    /// Socket bytes that wait for their turn in the queue of handshakes.
    pub(super) inbox: Vec<u8>,
    pub(super) is_queued: bool,
    pub(super) is_paused: bool,
    /// Whether the layers have ended: nothing more comes through them.
    pub(super) has_ended: bool,
}

impl Link {
    pub(super) fn new(layers: Layers) -> Self {
        Link {
            layers: Box::new(layers),
            inbox: Vec::new(),
            is_queued: false,
            is_paused: false,
            has_ended: false,
        }
    }

    /// The certificate that the client showed, in DER.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        self.layers.certificate()
    }
}
