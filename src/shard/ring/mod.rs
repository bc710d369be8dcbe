//! The network ring of one shard: an io_uring driver without any knowledge of MQTT.
//!
//! ```text
//!   listen, adopt, send, pause, close ──► submission queue ──┐ one enter per turn
//!                                                            ▼
//!   Handler::{accepted, received, sent, ...} ◄── turn ◄── kernel
//! ```
//! The owner's loop: `turn` (events), its own work, then `wait` (everything queued goes to the kernel
//! in one call, which also sleeps if there is nothing to do).
//!
//! # Invariants
//! - At most one receive and one send per socket are in flight; a slot and its descriptor are freed
//!   only when nothing that names them is outstanding. So no completion reaches a later user of a
//!   slot, and no submission a later file of the same number.
//! - Memory given to the kernel (batches, iovecs, receive buffers) lives until its last completion. A
//!   ring dropped with operations in flight cancels them, waits `drop_wait_max`, then leaks the rest.
//! - An idle connection costs one slot of at most 32 bytes and holds no buffer.
//!
//! # How it waits
//! The owner sleeps in this ring's own `io_uring_enter` and nowhere else: submit and wait in one call,
//! announced before a last look ([`crate::shard::sleeper`]), never longer than `sleep_max`. It awaits
//! nothing of the executor it runs in: the executor's park can leave a ready task behind.
//! Another thread wakes a ring by its eventfd, another shard by a ring message that travels with its
//! own submission; both only if the sleeper's flag says so.
//!
//! Not here: options of sockets, deadlines of connections, TLS, limits on what is queued.

mod buffers;
mod config;
mod error;
pub mod floor;
mod gather;
mod handler;
pub mod heap;
mod kernel;
mod key;
mod listener;
mod probe;
mod queue;
mod scarcity;
mod sending;
mod socket;
mod turn;
mod wait;
mod wake;

pub use config::{RingConfig, TaskRun};
pub use error::{KERNEL_MIN, RingError};
pub use handler::{Handler, ReceiveEnd};
pub use kernel::{KernelShare, OtherEnd};
pub use key::{ListenerKey, PeerKey, SocketKey};
pub use turn::TurnReport;
pub use wake::Waker;

use crate::engine::outbox::outgoing::Outgoing;
use buffers::BufferRing;
use gather::Gather;
use io_uring::{opcode, squeue, types};
use key::{Operation, Token};
use listener::Listener;
use queue::{Completion, Queue};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use scarcity::Scarcity;
use sending::Sending;
use socket::{Phase, Socket, Sockets};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};
use wait::ThreadClocks;

/// What a ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Pauses of a listener for lack of descriptors or memory.
    pub accept_backoffs: u64,
    /// Connections closed at once for lack of descriptors.
    pub accepts_refused: u64,
    /// Receives that stopped for lack of buffers and were armed again.
    pub receives_starved: u64,
    /// Sends that left in parts.
    pub sends_continued: u64,
    /// Wakes sent to other rings.
    pub wakes_sent: u64,
    /// Those of them that the kernel refused and an eventfd carried.
    pub wakes_refused: u64,
    /// Times that the owner slept.
    pub sleeps: u64,
    /// Sleeps in which several events were waited for.
    pub gathers: u64,
    /// Bytes taken from sockets.
    pub bytes_received: u64,
    /// Bytes that sockets took.
    pub bytes_sent: u64,
    /// Completions worked off.
    pub completions: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Enters that found completions waiting for room.
    pub overflows: u64,
}

/// The io_uring driver of one shard. Stays on the thread that made it.
pub struct Ring {
    queue: Queue,
    /// Absent during a turn, and for good after a handler's panic (then it is leaked).
    buffers: Option<BufferRing>,
    sockets: Sockets,
    listeners: Vec<Listener>,
    /// Sockets whose last operation is over, to be reported.
    finished: VecDeque<SocketKey>,
    scarcity: Scarcity,
    /// Spare boxes for sends.
    #[expect(
        clippy::vec_box,
        reason = "the boxes move into slots; the kernel knows their place"
    )]
    sendings: Vec<Box<Sending>>,
    completions: Vec<Completion>,
    waker: Waker,
    peers: Vec<Waker>,
    /// What the eventfd's read fills. In a box: the kernel knows the address.
    wake_count: Box<u64>,
    accept_backoff: Box<types::Timespec>,
    /// Places for connections that get no descriptor: so many listeners have one.
    refusing_max: u32,
    /// Somebody was turned away: the next may be accepted in the same turn.
    accepts_another: bool,
    gather: Gather,
    clocks: ThreadClocks,
    config: RingConfig,
    counters: RingCounters,
    not_send: PhantomData<*const ()>,
}

impl Ring {
    /// Makes a ring for this thread.
    ///
    /// # Errors
    /// Names what the kernel or the limits of the process lack, and the remedy.
    pub fn new(config: &RingConfig) -> Result<Ring, RingError> {
        if !(1..=32768).contains(&config.receive_buffers) || config.receive_buffer_bytes == 0 {
            return Err(RingError::Config(
                "receive_buffers must be 1 to 32768, none of them empty",
            ));
        }
        if config.events_per_turn_max == 0 || config.receive_bytes_per_turn_max == 0 {
            return Err(RingError::Config(
                "events_per_turn_max and receive_bytes_per_turn_max must not be 0",
            ));
        }
        let queue = Queue::new(config).map_err(|error| probe::explain("io_uring_setup", error))?;
        probe::check(&queue)?;
        if !config.gather_max.is_zero() && !queue.can_gather() {
            let alone = RingConfig {
                gather_max: Duration::ZERO,
                task_run: TaskRun::Cooperative,
                ..config.clone()
            };
            return Ring::new(&alone);
        }
        let count = config.receive_buffers.next_power_of_two();
        let buffers = BufferRing::new(&queue, count, config.receive_buffer_bytes)
            .map_err(|error| probe::explain("registering receive buffers", error))?;
        let waker = Waker::new(queue.raw_fd())
            .map_err(|error| probe::explain("making an eventfd", error))?;
        let clocks = ThreadClocks::new();
        let mut ring = Ring {
            queue,
            buffers: Some(buffers),
            sockets: Sockets::default(),
            listeners: Vec::new(),
            finished: VecDeque::new(),
            scarcity: Scarcity::default(),
            sendings: Vec::new(),
            completions: Vec::with_capacity(config.events_per_turn_max),
            waker,
            peers: Vec::new(),
            wake_count: Box::new(0),
            refusing_max: 0,
            accepts_another: false,
            gather: Gather::new(config.gather_max, Instant::now(), clocks.read()),
            clocks,
            accept_backoff: Box::new(types::Timespec::from(config.accept_backoff)),
            config: config.clone(),
            counters: RingCounters::default(),
            not_send: PhantomData,
        };
        ring.arm_wake();
        ring.refusing_max = ring.reserve_refusals();
        Ok(ring)
    }

    /// Takes over a connected stream socket and starts to receive from it. Puts it into blocking
    /// mode, which is what makes the kernel wait for readiness instead of failing.
    pub fn adopt(&mut self, descriptor: OwnedFd) -> SocketKey {
        if let Ok(flags) = fcntl_getfl(&descriptor)
            && flags.contains(OFlags::NONBLOCK)
        {
            // If this fails, the receive fails too and says so to the handler.
            let _ = fcntl_setfl(&descriptor, flags - OFlags::NONBLOCK);
        }
        let key = self.sockets.insert(descriptor);
        match self.sockets.get_mut(key) {
            // Behind those that wait: a client may have come again, and have sent something before it did.
            Some(socket) if self.scarcity.is_on() => self.scarcity.line_up(key, socket, false),
            _ => self.settle(key),
        }
        key
    }

    /// Queues `outgoing` as the socket's next bytes. It comes back by `sent`.
    ///
    /// # Errors
    /// Gives the batch back if the socket is gone, or is being closed or released.
    ///
    /// # Panics
    /// If a send of this socket is in flight: ask [`Ring::is_sending`].
    pub fn send(&mut self, key: SocketKey, outgoing: Outgoing) -> Result<(), Outgoing> {
        let Some(socket) = self.sockets.get_mut(key) else {
            return Err(outgoing);
        };
        if socket.phase != Phase::Open {
            return Err(outgoing);
        }
        assert!(socket.sending.is_none(), "one send per socket at a time");
        socket.sending = Some(match self.sendings.pop() {
            Some(mut sending) => {
                sending.reset(outgoing);
                sending
            }
            None => Box::new(Sending::new(outgoing)),
        });
        self.push_send(key);
        Ok(())
    }

    /// Whether a send of this socket is in flight.
    #[must_use]
    pub fn is_sending(&self, key: SocketKey) -> bool {
        self.sockets
            .get(key)
            .is_some_and(|socket| socket.sending.is_some())
    }

    /// Stops taking bytes from the socket, so that the peer's window fills. What was taken already
    /// still comes by `received`.
    pub fn pause_receive(&mut self, key: SocketKey) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.paused = true;
            self.settle(key);
        }
    }

    /// Undoes [`Ring::pause_receive`].
    pub fn resume_receive(&mut self, key: SocketKey) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.paused = false;
            self.settle(key);
        }
    }

    /// Cancels what is in flight and closes the descriptor when nothing is. Then `closed` comes, in
    /// a turn; until then only `sent` may. Also ends `close_after_send` and `release`.
    pub fn close(&mut self, key: SocketKey) {
        if let Some(socket) = self.sockets.get_mut(key)
            && socket.phase != Phase::Finished
        {
            socket.phase = Phase::Closing;
            socket.releasing = false;
            self.settle(key);
        }
    }

    /// Closes in order: the send in flight finishes, the write side is shut down, and what the peer
    /// still sends is discarded until it closes too (so that no reset destroys the last bytes on
    /// their way to it). The ring sets no time limit: call [`Ring::close`] when patience ends.
    pub fn close_after_send(&mut self, key: SocketKey) {
        if let Some(socket) = self.sockets.get_mut(key)
            && socket.phase == Phase::Open
        {
            socket.phase = Phase::Lingering;
            socket.paused = false;
            self.settle(key);
        }
    }

    /// Takes the socket out of the ring, for another one to adopt. Bytes that were taken from it come
    /// by `received`, then `released` gives the descriptor. A send in flight finishes first.
    pub fn release(&mut self, key: SocketKey) {
        if let Some(socket) = self.sockets.get_mut(key)
            && socket.phase == Phase::Open
        {
            socket.phase = Phase::Releasing;
            socket.releasing = true;
            self.settle(key);
        }
    }

    /// Hands everything queued to the kernel in one call; no call if nothing is queued.
    ///
    /// # Errors
    /// The kernel refused the ring for good.
    pub fn submit(&mut self) -> Result<(), RingError> {
        self.queue.submit()
    }

    /// A handle by which other threads wake this ring's owner.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Makes another ring known to this one, for [`Ring::wake`].
    pub fn link(&mut self, peer: &Waker) -> PeerKey {
        self.peers.push(peer.clone());
        PeerKey(self.peers.len() as u32 - 1)
    }

    /// Wakes the owner of another ring if it sleeps, after mail was pushed for it; call it once per
    /// batch. The wake travels with this ring's next submission, so it costs no system call.
    pub fn wake(&mut self, peer: PeerKey) {
        let Some(waker) = self.peers.get(peer.0 as usize) else {
            return;
        };
        if !waker.0.sleeper.needs_wake() {
            return;
        }
        self.counters.wakes_sent += 1;
        let ring = types::Fd(waker.0.ring.as_raw_fd());
        let arrived = Token::new(Operation::WakeArrived, 0, 0).pack();
        let entry = opcode::MsgRingData::new(ring, 0, arrived, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::new(Operation::WakeSent, peer.0, 0).pack());
        self.push_plain(entry);
    }

    /// Sockets in this ring.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> RingCounters {
        RingCounters {
            enters: self.queue.enters,
            overflows: self.queue.overflows,
            ..self.counters
        }
    }

    /// Whether a turn would deliver something now.
    fn has_events(&mut self) -> bool {
        !self.finished.is_empty() || self.scarcity.goes_on() || self.queue.completions_ready() > 0
    }

    fn wake_failed(&mut self, token: Token) {
        self.counters.wakes_refused += 1;
        if let Some(peer) = self.peers.get(token.slot as usize) {
            peer.wake();
        }
    }

    /// Brings what is in flight on a socket in line with what is wanted of it.
    fn settle(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if socket.phase == Phase::Lingering {
            if socket.sending.is_none() && !mem::replace(&mut socket.shut, true) {
                shut_down(socket);
            }
            if socket.shut && socket.ended {
                socket.phase = Phase::Closing;
            }
        }
        let receives = matches!(socket.phase, Phase::Open | Phase::Lingering) && !socket.paused;
        let leaves = matches!(socket.phase, Phase::Closing | Phase::Releasing);
        if receives {
            let ready = !socket.receiving && !socket.ended && !socket.lined_up;
            if ready && socket.cancels == 0 {
                self.push_receive(key);
            }
            return;
        }
        if socket.receiving && !socket.receive_cancelled {
            self.push_cancel(key, Operation::Receive, Operation::ReceiveCancel);
        }
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if socket.phase == Phase::Closing && socket.sending.is_some() && !socket.send_cancelled {
            return self.push_cancel(key, Operation::Send, Operation::SendCancel);
        }
        if leaves && socket.is_quiet() {
            socket.phase = Phase::Finished;
            self.finished.push_back(key);
        }
    }

    fn push_receive(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let Some(descriptor) = &socket.descriptor else {
            return;
        };
        socket.receiving = true;
        let is_scarce = self.scarcity.is_on();
        let is_bulk = is_scarce && socket.bulk;
        let descriptor = types::Fd(descriptor.as_raw_fd());
        let entry = if is_scarce {
            let bytes = self.config.receive_buffer_bytes;
            opcode::Recv::new(descriptor, std::ptr::null_mut(), bytes)
                .buf_group(buffers::GROUP)
                .flags(if is_bulk { libc::MSG_DONTWAIT } else { 0 })
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        } else {
            opcode::RecvMulti::new(descriptor, buffers::GROUP).build()
        };
        let operation = if is_bulk {
            self.scarcity.note_bulk(true);
            Operation::ReceiveNow
        } else {
            Operation::Receive
        };
        let token = Token::new(operation, key.slot, key.generation);
        self.push_plain(entry.user_data(token.pack()));
    }

    fn push_cancel(&mut self, key: SocketKey, target: Operation, operation: Operation) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        match target {
            Operation::Receive => socket.receive_cancelled = true,
            _ => socket.send_cancelled = true,
        }
        socket.cancels += 1;
        let target = Token::new(target, key.slot, key.generation).pack();
        let entry = opcode::AsyncCancel::new(target)
            .build()
            .user_data(Token::new(operation, key.slot, key.generation).pack());
        self.push_plain(entry);
    }

    #[expect(unsafe_code, reason = "the kernel reads the batch")]
    fn push_send(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let (Some(descriptor), Some(sending)) = (&socket.descriptor, &mut socket.sending) else {
            return;
        };
        let token = Token::new(Operation::Send, key.slot, key.generation).pack();
        let entry = sending.entry(descriptor.as_raw_fd()).user_data(token);
        // SAFETY: the entry names memory of the boxed `Sending`, which the slot keeps unchanged until
        // the send's completion (or leaks, see `drop`), as it keeps the descriptor.
        unsafe { self.queue.push(entry) };
    }

    #[expect(unsafe_code, reason = "the kernel writes the count")]
    fn arm_wake(&mut self) {
        let count = (&raw mut *self.wake_count).cast();
        let entry = opcode::Read::new(types::Fd(self.waker.0.event.as_raw_fd()), count, 8)
            .build()
            .user_data(Token::new(Operation::WakeRead, 0, 0).pack());
        // SAFETY: the eight bytes live in a box that is freed only when nothing is in flight, and
        // nobody reads or writes them in between.
        unsafe { self.queue.push(entry) };
    }

    /// Queues an operation that names no memory, or only what listeners have in boxes.
    #[expect(unsafe_code, reason = "one place for entries without buffers")]
    fn push_plain(&mut self, entry: squeue::Entry) {
        // SAFETY: receive into provided buffers, cancel and messages name no memory of ours; the timespec of
        // a timeout lives in a box as long as the ring; the address of an accept lives in a box of its
        // listener, which keeps it until the completion (or leaks, see `drop`) and reads it only then.
        unsafe { self.queue.push(entry) };
    }

    /// Cancels everything and waits for it, at most `drop_wait_max`. Whether nothing is left.
    fn drain(&mut self) -> bool {
        let until = Instant::now() + self.config.drop_wait_max;
        let mut completions = Vec::new();
        while self.queue.outstanding() > 0 {
            let left = until.saturating_duration_since(Instant::now());
            let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any().all())
                .build()
                .user_data(Token::new(Operation::ReceiveCancel, 0, 0).pack());
            self.push_plain(cancel);
            if left.is_zero() || self.queue.submit_and_wait(left, None).is_err() {
                return false;
            }
            loop {
                self.queue.reap(&mut completions, 1024);
                if completions.is_empty() {
                    break;
                }
                for completion in &completions {
                    let token = Token::unpack(completion.user_data);
                    if token.is_some_and(|token| token.operation == Operation::Accept)
                        && completion.result >= 0
                    {
                        drop(listener::accepted_descriptor(completion.result));
                    }
                }
            }
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.drain() {
            if let Some(buffers) = self.buffers.take() {
                buffers.free();
            }
        } else {
            // The kernel may still use what the sends, the accepts and the read of the eventfd name.
            mem::forget(mem::take(&mut self.listeners));
            mem::forget(mem::take(&mut self.sockets));
            mem::forget(mem::take(&mut self.wake_count));
        }
    }
}

fn shut_down(socket: &mut Socket) {
    if let Some(descriptor) = &socket.descriptor
        && rustix::net::shutdown(descriptor, rustix::net::Shutdown::Write).is_err()
    {
        // Not connected any more: there is nobody to wait for.
        socket.ended = true;
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("task_run", &self.config.task_run)
            .field("sockets", &self.sockets.len())
            .field("outstanding", &self.queue.outstanding())
            .finish_non_exhaustive()
    }
}
