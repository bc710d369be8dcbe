//! Listeners: one accept at a time, armed anew when the turn ends, so that a backlog comes in at a bounded
//! rate; paused when the process is out of descriptors (whoever waits then is closed at once) or the shell
//! wants no more for now.

use super::Ring;
use super::handler::Handler;
use super::key::{ListenerKey, Operation, Token};
use super::queue::Completion;
use crate::shard::peer::Peer;
use io_uring::{opcode, squeue, types};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// Listeners that refuse at once when descriptors have run out; each needs a place in the ring for it.
pub(super) const REFUSING_MAX: u32 = 64;

/// Where the kernel writes the address of who has come, as part of the accept: asked for afterwards, whoever
/// is gone again has none.
#[derive(Debug, Default)]
struct Name {
    /// A `sockaddr_in` or `sockaddr_in6`; of a longer one the beginning.
    bytes: [u8; NAME_BYTES],
    length: libc::socklen_t,
}

/// Bytes of the longest address that is looked at.
const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();

impl Name {
    /// Who it names; `None` if the kernel did not say.
    fn peer(&self) -> Option<Peer> {
        let length = (self.length as usize).min(NAME_BYTES);
        let name = self.bytes.get(..length)?;
        let (family, rest) = name.split_first_chunk()?;
        match i32::from(u16::from_ne_bytes(*family)) {
            libc::AF_INET => {
                let (port, rest) = rest.split_first_chunk()?;
                let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
                let address = SocketAddr::from((ip, u16::from_be_bytes(*port)));
                Some(Peer::internet(address))
            }
            libc::AF_INET6 => {
                let (port, rest) = rest.split_first_chunk()?;
                // Behind the flow label.
                let ip = Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?);
                let address = SocketAddr::from((ip, u16::from_be_bytes(*port)));
                Some(Peer::internet(address))
            }
            libc::AF_UNIX => Some(Peer::Unix),
            _ => None,
        }
    }
}

pub(super) struct Listener {
    descriptor: Option<OwnedFd>,
    /// In a box: the kernel knows its place while an accept is in flight.
    name: Box<Name>,
    generation: u32,
    accepting: bool,
    backing_off: bool,
    refusing: bool,
    stopping: bool,
    paused: bool,
    cancels: u8,
}

impl Ring {
    /// Accepts connections on `descriptor`, a listening socket in blocking mode, until
    /// [`Ring::stop_listening`]. Options such as TCP_NODELAY are inherited from it.
    pub fn listen(&mut self, descriptor: OwnedFd) -> ListenerKey {
        let generation = self.listeners.len() as u32;
        let slot = match self
            .listeners
            .iter()
            .position(|entry| entry.descriptor.is_none())
        {
            Some(slot) => slot,
            None => {
                self.listeners.push(Listener::vacant(generation));
                self.listeners.len() - 1
            }
        };
        let entry = &mut self.listeners[slot];
        *entry = Listener::vacant(entry.generation.wrapping_add(1));
        entry.descriptor = Some(descriptor);
        let key = ListenerKey {
            slot: slot as u32,
            generation: entry.generation,
        };
        self.settle_listener(key);
        key
    }

    /// Stops accepting and closes the listening socket once the kernel has let go of it. Connections
    /// that were accepted before still come by `accepted`.
    pub fn stop_listening(&mut self, key: ListenerKey) {
        if let Some(listener) = self.listener_mut(key) {
            listener.stopping = true;
            self.settle_listener(key);
        }
    }

    /// Accepts nobody, but for one that may be on its way, until [`Ring::resume_listening`].
    pub fn pause_listening(&mut self, key: ListenerKey) {
        if let Some(listener) = self.listener_mut(key) {
            listener.paused = true;
        }
    }

    /// Accepts again.
    pub fn resume_listening(&mut self, key: ListenerKey) {
        if let Some(listener) = self.listener_mut(key) {
            listener.paused = false;
            self.settle_listener(key);
        }
    }

    /// Whoever was accepted last has been turned away: who waits behind it is accepted in the same turn,
    /// a bounded number of times, so that refusals keep nobody out.
    pub const fn accept_another(&mut self) {
        self.accepts_another = true;
    }

    fn listener_mut(&mut self, key: ListenerKey) -> Option<&mut Listener> {
        self.listeners
            .get_mut(key.slot as usize)
            .filter(|listener| listener.generation == key.generation)
    }

    fn settle_listener(&mut self, key: ListenerKey) {
        let token = |operation| Token::new(operation, key.slot, key.generation).pack();
        let Some(listener) = self.listener_mut(key) else {
            return;
        };
        let Some(descriptor) = &listener.descriptor else {
            return;
        };
        let busy =
            listener.accepting || listener.backing_off || listener.refusing || listener.cancels > 0;
        let ends_refusing = listener.refusing && (listener.stopping || !listener.backing_off);
        if !listener.stopping && !listener.paused && !busy {
            listener.accepting = true;
            let descriptor = types::Fd(descriptor.as_raw_fd());
            listener.name.length = NAME_BYTES as libc::socklen_t;
            let (bytes, length) = (&raw mut listener.name.bytes, &raw mut listener.name.length);
            let entry = opcode::Accept::new(descriptor, bytes.cast(), length)
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(token(Operation::Accept));
            self.push_plain(entry);
        } else if listener.stopping && listener.accepting && listener.cancels == 0 {
            listener.cancels += 1;
            let entry = opcode::AsyncCancel::new(token(Operation::Accept))
                .build()
                .user_data(token(Operation::AcceptCancel));
            self.push_plain(entry);
        } else if ends_refusing && listener.cancels == 0 {
            listener.cancels += 1;
            let entry = opcode::AsyncCancel::new(token(Operation::Refuse))
                .build()
                .user_data(token(Operation::AcceptCancel));
            self.push_plain(entry);
        } else if listener.stopping && !busy {
            listener.descriptor = None;
        }
    }

    pub(super) fn accept_completed(
        &mut self,
        handler: &mut impl Handler,
        token: Token,
        completion: Completion,
    ) {
        let key = token.listener();
        if completion.result >= 0 {
            self.counters.accepted += 1;
            let socket = accepted_descriptor(completion.result);
            let name = self.listener_mut(key).map(|listener| &listener.name);
            match name.and_then(|name| name.peer()) {
                Some(peer) => handler.accepted(self, key, socket, peer),
                // Of whom nothing is known, nothing may be assumed.
                None => drop(socket),
            }
        }
        if let Some(listener) = self.listener_mut(key) {
            listener.accepting = false;
            if exhausted(-completion.result) && !listener.stopping {
                listener.backing_off = true;
                self.counters.accept_backoffs += 1;
                let entry = opcode::Timeout::new(&raw const *self.accept_backoff)
                    .build()
                    .user_data(
                        Token::new(Operation::AcceptBackoff, key.slot, key.generation).pack(),
                    );
                self.push_plain(entry);
                if has_no_descriptor(-completion.result) {
                    self.push_refusal(key);
                }
            }
        }
        self.settle_listener(key);
    }

    /// Makes places for listeners to refuse in, fewer where fewer descriptors may be open: the kernel
    /// registers no more than that. How many.
    pub(super) fn reserve_refusals(&self) -> u32 {
        let mut places = REFUSING_MAX;
        while places > 0 && self.queue.reserve_files(places).is_err() {
            places /= 2;
        }
        places
    }

    /// Takes in whoever comes without a descriptor of the process, and closes at once: they hear it now, and
    /// not when somebody else leaves. Until the listener accepts again.
    fn push_refusal(&mut self, key: ListenerKey) {
        let is_possible = key.slot < self.refusing_max;
        let Some(listener) = self.listener_mut(key).filter(|_| is_possible) else {
            return;
        };
        let Some(descriptor) = &listener.descriptor else {
            return;
        };
        let descriptor = types::Fd(descriptor.as_raw_fd());
        let Ok(place) = types::DestinationSlot::try_from_slot_target(key.slot) else {
            return;
        };
        listener.refusing = true;
        let token = |operation| Token::new(operation, key.slot, key.generation).pack();
        let accept = opcode::Accept::new(descriptor, ptr::null_mut(), ptr::null_mut())
            .file_index(Some(place))
            .build()
            .flags(squeue::Flags::IO_LINK)
            .user_data(token(Operation::Refuse));
        self.push_plain(accept);
        let close = opcode::Close::new(types::Fixed(key.slot))
            .build()
            .user_data(token(Operation::RefuseClose));
        self.push_plain(close);
    }

    pub(super) fn refuse_completed(&mut self, token: Token, completion: Completion) {
        let key = token.listener();
        self.counters.accepts_refused += u64::from(completion.result >= 0);
        let Some(listener) = self.listener_mut(key) else {
            return;
        };
        listener.refusing = false;
        if listener.backing_off && !listener.stopping && completion.result >= 0 {
            self.push_refusal(key);
        }
        self.settle_listener(key);
    }

    pub(super) fn accept_backoff_completed(&mut self, token: Token) {
        let key = token.listener();
        if let Some(listener) = self.listener_mut(key) {
            listener.backing_off = false;
        }
        self.settle_listener(key);
    }

    pub(super) fn accept_cancel_completed(&mut self, token: Token) {
        let key = token.listener();
        if let Some(listener) = self.listener_mut(key) {
            listener.cancels -= 1;
        }
        // Still accepting or refusing means that it came at a bad moment: settle tries again.
        self.settle_listener(key);
    }
}

impl Listener {
    fn vacant(generation: u32) -> Self {
        Listener {
            descriptor: None,
            name: Box::default(),
            generation,
            accepting: false,
            backing_off: false,
            refusing: false,
            stopping: false,
            paused: false,
            cancels: 0,
        }
    }
}

/// Whether all descriptors are in use.
fn has_no_descriptor(error: i32) -> bool {
    matches!(error, libc::EMFILE | libc::ENFILE)
}

/// Whether accepting again at once would fail again.
fn exhausted(error: i32) -> bool {
    matches!(
        error,
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM
    )
}

/// Owns a descriptor that an accept completion brought.
#[expect(unsafe_code, reason = "a completion brings a descriptor as a number")]
pub(super) fn accepted_descriptor(result: i32) -> OwnedFd {
    // SAFETY: the kernel installed this descriptor for us, and each completion is looked at once.
    unsafe { OwnedFd::from_raw_fd(result) }
}
