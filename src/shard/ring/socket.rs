//! The table of sockets: one small slot each, and what is in flight on it.
//!
//! ```text
//!            release            nothing in flight
//!   Open ───────────► Releasing ─────────────────► released, slot free
//!    │ close_after_send                │ close
//!    ├──────────► Lingering ──────┐    │
//!    │ close   (send, shutdown,   │◄───┘
//!    │          discard to EOF)   │ EOF or close
//!    └────────────────────────► Closing ─────────► closed, slot free
//! ```
//! Invariant: a slot is freed only when no submission that names it is outstanding.

use super::key::{SLOTS_MAX, SocketKey};
use super::sending::Sending;
use std::os::fd::OwnedFd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Free,
    Open,
    Releasing,
    Lingering,
    Closing,
    /// Waits in the list of sockets whose end is to be reported.
    Finished,
}

pub(super) struct Socket {
    pub descriptor: Option<OwnedFd>,
    pub generation: u32,
    pub phase: Phase,
    /// A multishot receive is outstanding.
    pub receiving: bool,
    /// Its cancellation was submitted.
    pub receive_cancelled: bool,
    /// The owner wants no bytes for now.
    pub paused: bool,
    /// EOF or an error was seen.
    pub ended: bool,
    /// Armed again when it is its turn: it ran out of receive buffers, or others did.
    pub lined_up: bool,
    /// Its last receive filled a buffer.
    pub bulk: bool,
    /// Completions of its receives that are not delivered yet.
    pub put_off: u16,
    /// The cancellation of the send was submitted.
    pub send_cancelled: bool,
    /// The write side was shut down.
    pub shut: bool,
    /// Ended by `release`, not by `close`.
    pub releasing: bool,
    /// Cancellations outstanding.
    pub cancels: u8,
    pub sending: Option<Box<Sending>>,
}

// Idle connections are counted in hundreds of thousands.
const _: () = assert!(size_of::<Socket>() <= 32);

impl Socket {
    fn vacant() -> Self {
        Socket {
            descriptor: None,
            generation: 0,
            phase: Phase::Free,
            receiving: false,
            receive_cancelled: false,
            paused: false,
            ended: false,
            lined_up: false,
            bulk: false,
            put_off: 0,
            send_cancelled: false,
            shut: false,
            releasing: false,
            cancels: 0,
            sending: None,
        }
    }

    pub fn is_quiet(&self) -> bool {
        !self.receiving && self.sending.is_none() && self.cancels == 0
    }
}

#[derive(Default)]
pub(super) struct Sockets {
    slots: Vec<Socket>,
    free: Vec<u32>,
}

impl Sockets {
    /// Sockets in the table.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Places in the table, free ones included.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// The sockets at some places, free ones included.
    pub fn part(
        &self,
        places: std::ops::Range<usize>,
    ) -> impl Iterator<Item = (SocketKey, &Socket)> {
        let end = places.end.min(self.slots.len());
        let slots = self.slots.get(places.start..end).unwrap_or_default();
        (places.start as u32..).zip(slots).map(|(slot, socket)| {
            let generation = socket.generation;
            (SocketKey { slot, generation }, socket)
        })
    }

    pub fn insert(&mut self, descriptor: OwnedFd) -> SocketKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            // Far beyond the number of descriptors a process can have.
            assert!(
                self.slots.len() < SLOTS_MAX as usize,
                "more sockets than slots"
            );
            self.slots.push(Socket::vacant());
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        debug_assert_eq!(entry.phase, Phase::Free);
        let generation = entry.generation;
        *entry = Socket {
            descriptor: Some(descriptor),
            generation,
            phase: Phase::Open,
            ..Socket::vacant()
        };
        SocketKey { slot, generation }
    }

    pub fn get(&self, key: SocketKey) -> Option<&Socket> {
        self.slots
            .get(key.slot as usize)
            .filter(|socket| socket.generation == key.generation && socket.phase != Phase::Free)
    }

    pub fn get_mut(&mut self, key: SocketKey) -> Option<&mut Socket> {
        self.slots
            .get_mut(key.slot as usize)
            .filter(|socket| socket.generation == key.generation && socket.phase != Phase::Free)
    }

    /// Frees a slot; its key is stale from now on. Returns the descriptor.
    pub fn remove(&mut self, key: SocketKey) -> Option<OwnedFd> {
        let socket = self.get_mut(key)?;
        debug_assert!(socket.is_quiet());
        let descriptor = socket.descriptor.take();
        socket.phase = Phase::Free;
        socket.generation = socket.generation.wrapping_add(1);
        self.free.push(key.slot);
        descriptor
    }
}
