//! What a ring tells its owner.

use super::Ring;
use super::key::{ListenerKey, SocketKey};
use crate::engine::outbox::outgoing::Outgoing;
use crate::shard::peer::Peer;
use std::os::fd::OwnedFd;

/// Why no more bytes come from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer sent everything it had (it may still read).
    Eof,
    /// The connection failed; the positive error code of the system, such as `ECONNRESET`.
    Failed(i32),
}

/// Receives the events of one ring, in the order in which they happened per socket.
///
/// Each method gets the ring, to adopt, send, pause or close at once. What it queues leaves with the
/// next `submit` or `wait`. Only `turn` must not be called from here.
pub trait Handler {
    /// A listener accepted a connection from `peer`, who may be gone again already. The descriptor is
    /// in no ring yet: adopt it, here or on another shard, or drop it.
    fn accepted(&mut self, ring: &mut Ring, listener: ListenerKey, socket: OwnedFd, peer: Peer);

    /// Bytes arrived, never none. They lie in a provided buffer, which goes back on return. May still
    /// come after `pause_receive` and `release` (what was on its way), never after `close`.
    fn received(&mut self, ring: &mut Ring, socket: SocketKey, bytes: &[u8]);

    /// No more bytes will come; once per socket. The socket stays until it is closed or released.
    fn receive_ended(&mut self, ring: &mut Ring, socket: SocketKey, end: ReceiveEnd);

    /// The send in flight is over and its buffers come back: all bytes were handed to the kernel, or
    /// the connection failed (positive error code; how much of it left is unknown). `ECANCELED`
    /// after `close`.
    fn sent(
        &mut self,
        ring: &mut Ring,
        socket: SocketKey,
        outgoing: Outgoing,
        result: Result<usize, i32>,
    );

    /// The socket left the ring after `release`: nothing is in flight, and all bytes that were taken
    /// from it have been delivered by `received`. The key is stale from now on.
    fn released(&mut self, ring: &mut Ring, socket: SocketKey, descriptor: OwnedFd);

    /// The socket's descriptor is closed. The key is stale from now on.
    fn closed(&mut self, ring: &mut Ring, socket: SocketKey);
}
