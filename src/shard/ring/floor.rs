//! The floor under every broker's fan-out: what the kernel alone takes to move the bytes.
//!
//! Whatever the first publishing connection sends goes, unread, to every connection that subscribed: one
//! send each, all handed over in one `io_uring_enter` that also waits for the next bytes. CONNECT, SUBSCRIBE
//! and PINGREQ get canned answers, so that a load generator for MQTT can drive it; there is no session, no
//! routing, no protocol. It is a yardstick for benchmarks, never part of the broker.
//!
//! It also tries what the broker does not do ([`Way`]), so that its gain can be measured where nothing else
//! is in the way.
//!
//! With [`Direction::In`] it is the floor under a fan-in instead: whole PUBLISH packets that came from any
//! publisher since the last send go to the subscribers in one send each, and the next one leaves when that is
//! over.
//!
//! Not here: short sends of a fan-out (a subscriber that does not read ends the program), more than one
//! publisher of a fan-out.
#![expect(unsafe_code, reason = "submissions name memory that outlives them")]

use super::config::{RingConfig, TaskRun};
use super::error::RingError;
use super::listener::accepted_descriptor;
use super::queue::{Completion, Queue};
use io_uring::{opcode, squeue, types};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Bytes taken from a connection at once.
const RECEIVE_BYTES: usize = 256 * 1024;

/// What a completion is of; the lower 56 bits of its user data say which one.
const ACCEPT: u64 = 0x70;
const RECEIVE: u64 = 0x71;
const SEND: u64 = 0x72;

/// How the bytes are handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// As the broker does it.
    #[default]
    Plain,
    /// Sockets are registered with the ring, which saves looking them up.
    FixedFiles,
    /// Bytes are not copied into the kernel; their pages are pinned until the peer has them.
    ZeroCopy,
    /// Completions are worked off only when the ring is entered for them.
    Deferred,
}

/// Which way the messages go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From one publisher to many subscribers, unread.
    #[default]
    Out,
    /// From many publishers to few subscribers, batched.
    In,
}

/// Sockets that can be registered.
const FIXED_FILES_MAX: u32 = 16_384;

struct Connection {
    descriptor: OwnedFd,
    buffer: Vec<u8>,
    is_v5: bool,
    is_publisher: bool,
    /// Of a fan-in: what is not a whole packet yet.
    partial: Vec<u8>,
}

/// Bytes on their way to everybody.
struct Round {
    bytes: Vec<u8>,
    outstanding: usize,
}

/// The program's state.
struct Floor {
    queue: Queue,
    listener: TcpListener,
    connections: Vec<Connection>,
    way: Way,
    direction: Direction,
    /// Of a fan-in: packets that wait for the next send.
    batch: Vec<u8>,
    /// By their places among the connections.
    subscribers: Vec<usize>,
    rounds: Vec<Round>,
    idle_rounds: Vec<usize>,
}

/// Serves until the process ends.
///
/// # Errors
/// When the kernel refuses the ring or one of its operations.
pub fn serve(listener: TcpListener, way: Way, direction: Direction) -> Result<(), RingError> {
    let task_run = match way {
        Way::Deferred => TaskRun::Deferred,
        _ => TaskRun::Cooperative,
    };
    let config = RingConfig {
        entries: 4096,
        task_run,
        ..RingConfig::default()
    };
    let failed = |source| RingError::System {
        step: "io_uring_setup",
        source,
    };
    let queue = Queue::new(&config).map_err(failed)?;
    if way == Way::FixedFiles {
        queue.reserve_files(FIXED_FILES_MAX).map_err(failed)?;
    }
    // What a broker does, too; without it the second small send of a connection would wait. Inherited.
    let _ = socket2::SockRef::from(&listener).set_tcp_nodelay(true);
    let mut floor = Floor {
        queue,
        listener,
        connections: Vec::new(),
        way,
        direction,
        batch: Vec::new(),
        subscribers: Vec::new(),
        rounds: Vec::new(),
        idle_rounds: Vec::new(),
    };
    floor.push_accept();
    let mut completions = Vec::new();
    loop {
        floor.queue.submit_and_wait(Duration::from_secs(1), None)?;
        floor.queue.reap(&mut completions, usize::MAX);
        for completion in &completions {
            floor.completed(completion)?;
        }
        floor.send_batch();
    }
}

impl Floor {
    fn push(&mut self, entry: squeue::Entry, kind: u64, which: usize) {
        let entry = entry.user_data(kind << 56 | which as u64);
        // SAFETY: receive buffers belong to connections and sent bytes to rounds; neither is moved or
        // dropped while the program runs, and both are boxed slices in effect: never resized while in use.
        unsafe { self.queue.push(entry) };
    }

    fn push_accept(&mut self) {
        let descriptor = types::Fd(self.listener.as_raw_fd());
        let entry = opcode::Accept::new(descriptor, std::ptr::null_mut(), std::ptr::null_mut());
        self.push(entry.build(), ACCEPT, 0);
    }

    fn push_receive(&mut self, which: usize) {
        if let Some(connection) = self.connections.get_mut(which) {
            let descriptor = types::Fd(connection.descriptor.as_raw_fd());
            let buffer = &mut connection.buffer;
            let entry = opcode::Recv::new(descriptor, buffer.as_mut_ptr(), buffer.len() as u32);
            self.push(entry.build(), RECEIVE, which);
        }
    }

    fn completed(&mut self, completion: &Completion) -> Result<(), RingError> {
        let which = (completion.user_data & ((1 << 56) - 1)) as usize;
        match completion.user_data >> 56 {
            ACCEPT => self.accepted(completion.result),
            RECEIVE => self.received(which, completion.result),
            _ => return self.sent(which, completion),
        }
        Ok(())
    }

    fn accepted(&mut self, result: RawFd) {
        if result >= 0 {
            let descriptor = accepted_descriptor(result);
            if self.way == Way::FixedFiles
                && self
                    .queue
                    .put_file(self.connections.len() as u32, result)
                    .is_err()
            {
                return;
            }
            self.connections.push(Connection {
                descriptor,
                buffer: vec![0; RECEIVE_BYTES],
                is_v5: false,
                is_publisher: false,
                partial: Vec::new(),
            });
            self.push_receive(self.connections.len() - 1);
        }
        self.push_accept();
    }

    fn received(&mut self, which: usize, result: i32) {
        let Some(connection) = self.connections.get_mut(which) else {
            return;
        };
        let Some(bytes) = usize::try_from(result).ok().filter(|count| *count > 0) else {
            self.subscribers.retain(|known| *known != which);
            // Its memory stays: a send may still be on its way.
            return;
        };
        let bytes = connection.buffer.get(..bytes).unwrap_or_default().to_vec();
        let kind = bytes.first().map_or(0, |first| first & 0xF0);
        connection.is_publisher |= kind == 0x30;
        let is_small = bytes.len() == 2;
        match kind {
            0xC0 if is_small => self.send_round(b"\xD0\x00".to_vec(), &[which]),
            0xE0 if is_small => {}
            _ if connection.is_publisher && self.direction == Direction::In => {
                self.batch_packets(which, &bytes);
            }
            _ if connection.is_publisher => {
                let everybody = std::mem::take(&mut self.subscribers);
                self.send_round(bytes, &everybody);
                self.subscribers = everybody;
            }
            0x10 => {
                connection.is_v5 = bytes.get(8) == Some(&5);
                let connack: &[u8] = if connection.is_v5 {
                    b"\x20\x03\x00\x00\x00"
                } else {
                    b"\x20\x02\x00\x00"
                };
                self.send_round(connack.to_vec(), &[which]);
            }
            0x80 if bytes.len() > 4 => {
                let suback = if connection.is_v5 {
                    vec![0x90, 4, bytes[2], bytes[3], 0, 0]
                } else {
                    vec![0x90, 3, bytes[2], bytes[3], 0]
                };
                self.subscribers.push(which);
                self.send_round(suback, &[which]);
            }
            _ => {}
        }
        self.push_receive(which);
    }

    /// One send to each connection, handed over with the next wait.
    fn send_round(&mut self, bytes: Vec<u8>, to: &[usize]) {
        if to.is_empty() {
            return;
        }
        let round = Round {
            bytes,
            outstanding: to.len(),
        };
        let which = match self.idle_rounds.pop() {
            Some(which) => {
                self.rounds[which] = round;
                which
            }
            None => {
                self.rounds.push(round);
                self.rounds.len() - 1
            }
        };
        for to in to {
            let entry = self.send_entry(*to, which);
            self.push(entry, SEND, which);
        }
    }

    fn send_entry(&self, to: usize, round: usize) -> squeue::Entry {
        let bytes = &self.rounds[round].bytes;
        let (start, length) = (bytes.as_ptr(), bytes.len() as u32);
        let descriptor = types::Fd(self.connections[to].descriptor.as_raw_fd());
        match self.way {
            Way::FixedFiles => opcode::Send::new(types::Fixed(to as u32), start, length).build(),
            Way::ZeroCopy => opcode::SendZc::new(descriptor, start, length).build(),
            // A batch may be more than a socket takes at once; the kernel then goes on with the rest.
            _ if self.direction == Direction::In => opcode::Send::new(descriptor, start, length)
                .flags(libc::MSG_WAITALL)
                .build(),
            _ => opcode::Send::new(descriptor, start, length).build(),
        }
    }

    /// Adds the PUBLISH packets of a publisher to the batch, as far as they are whole.
    fn batch_packets(&mut self, which: usize, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(which) else {
            return;
        };
        connection.partial.extend_from_slice(bytes);
        let (mut used, mut pings) = (0, 0);
        while let Some(packet) = connection.partial.get(used..).and_then(first_packet) {
            used += packet.len();
            match packet.first().map_or(0, |first| first & 0xF0) {
                0x30 => self.batch.extend_from_slice(packet),
                0xC0 => pings += 1,
                _ => {}
            }
        }
        connection.partial.drain(..used);
        if pings > 0 {
            self.send_round(b"\xD0\x00".repeat(pings), &[which]);
        }
    }

    /// One send of the batch to each subscriber, unless the one before is still on its way.
    fn send_batch(&mut self) {
        let is_busy = self.idle_rounds.len() < self.rounds.len();
        if self.batch.is_empty() || is_busy {
            return;
        }
        let everybody = std::mem::take(&mut self.subscribers);
        let batch = std::mem::take(&mut self.batch);
        self.send_round(batch, &everybody);
        self.subscribers = everybody;
    }

    fn sent(&mut self, which: usize, completion: &Completion) -> Result<(), RingError> {
        let Some(round) = self.rounds.get_mut(which) else {
            return Ok(());
        };
        let result = completion.result;
        // The second completion of a send without copy has no result.
        let has_result = self.way != Way::ZeroCopy || completion.more();
        if has_result && result >= 0 && result as usize != round.bytes.len() {
            return Err(RingError::System {
                step: "a send that was cut short: the subscriber does not read fast enough",
                source: std::io::ErrorKind::WriteZero.into(),
            });
        }
        if !completion.more() {
            round.outstanding -= 1;
            if round.outstanding == 0 {
                self.idle_rounds.push(which);
            }
        }
        Ok(())
    }
}

/// The first whole MQTT packet of `bytes`.
fn first_packet(bytes: &[u8]) -> Option<&[u8]> {
    let mut length = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes.get(..at + 2 + length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_apart_by_their_lengths() {
        assert_eq!(first_packet(b"\x30\x02abc"), Some(&b"\x30\x02ab"[..]));
        assert_eq!(first_packet(b"\x30\x02a"), None);
        assert_eq!(first_packet(b"\x30\x80"), None);
        let mut long = vec![0x30, 0x80, 1];
        long.extend_from_slice(&[7; 130]);
        assert_eq!(first_packet(&long).map(<[u8]>::len), Some(131));
    }
}
