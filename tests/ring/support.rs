//! Runs a ring and records what it tells.

use ringmq::engine::outbox::outgoing::Outgoing;
use ringmq::shard::peer::Peer;
use ringmq::shard::ring::{Handler, ListenerKey, ReceiveEnd, Ring, RingConfig, SocketKey, TaskRun};
use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Only to end a test that hangs; nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(15);

pub const TASK_RUNS: [TaskRun; 2] = [TaskRun::Cooperative, TaskRun::Deferred];

/// Everything a ring told, per socket.
#[derive(Default)]
pub struct Recorder {
    pub accepted: Vec<(OwnedFd, Peer)>,
    /// So many that come are turned away.
    pub turns_away: usize,
    pub received: HashMap<SocketKey, Vec<u8>>,
    pub ended: HashMap<SocketKey, ReceiveEnd>,
    pub sent: Vec<(SocketKey, Result<usize, i32>)>,
    pub released: Vec<(SocketKey, OwnedFd)>,
    pub closed: Vec<SocketKey>,
}

impl Handler for Recorder {
    fn accepted(&mut self, ring: &mut Ring, _: ListenerKey, fd: OwnedFd, peer: Peer) {
        if self.turns_away > 0 {
            self.turns_away -= 1;
            return ring.accept_another();
        }
        self.accepted.push((fd, peer));
    }

    fn received(&mut self, _: &mut Ring, socket: SocketKey, bytes: &[u8]) {
        assert!(!self.closed.contains(&socket) && !bytes.is_empty());
        self.received
            .entry(socket)
            .or_default()
            .extend_from_slice(bytes);
    }

    fn receive_ended(&mut self, _: &mut Ring, socket: SocketKey, end: ReceiveEnd) {
        assert_eq!(self.ended.insert(socket, end), None);
    }

    fn sent(&mut self, _: &mut Ring, socket: SocketKey, _: Outgoing, result: Result<usize, i32>) {
        self.sent.push((socket, result));
    }

    fn released(&mut self, _: &mut Ring, socket: SocketKey, descriptor: OwnedFd) {
        self.released.push((socket, descriptor));
    }

    fn closed(&mut self, _: &mut Ring, socket: SocketKey) {
        assert!(!self.closed.contains(&socket));
        self.closed.push(socket);
    }
}

impl Recorder {
    pub fn bytes(&self, socket: SocketKey) -> &[u8] {
        self.received.get(&socket).map_or(&[], Vec::as_slice)
    }
}

/// Turns the ring until `done`.
pub fn drive<H: Handler>(
    ring: &mut Ring,
    handler: &mut H,
    mut done: impl FnMut(&mut Ring, &mut H) -> bool,
) {
    let until = Instant::now() + PATIENCE;
    loop {
        ring.turn(handler);
        if done(ring, handler) {
            return;
        }
        assert!(
            Instant::now() < until,
            "nothing more happens: {:?}",
            ring.counters()
        );
        ring.wait(Some(until), || false).expect("wait");
    }
}

pub fn small(task_run: TaskRun) -> RingConfig {
    RingConfig {
        entries: 64,
        completions: 256,
        receive_buffers: 16,
        receive_buffer_bytes: 4096,
        task_run,
        ..RingConfig::default()
    }
}

/// A connected pair: the ring's end and the client's.
pub fn pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    client.set_read_timeout(Some(PATIENCE)).expect("timeout");
    (server.into(), client)
}

pub fn copied(bytes: &[u8]) -> Outgoing {
    Outgoing::from(bytes.to_vec())
}

/// Bytes in which every position is recognisable.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|at| (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16)) as u8)
        .collect()
}

/// Runs one test of this binary in a process of its own, for what is process-wide (descriptors).
/// `true` in that process.
pub fn in_child(test: &str) -> bool {
    const MARK: &str = "RINGMQ_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("own path");
    let output = std::process::Command::new(program)
        .args([test, "--exact", "--nocapture"])
        .env(MARK, "1")
        .output()
        .expect("child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{:?}",
        output.stderr
    );
    false
}

/// Open sockets of this process. Other descriptors are not counted: the executor's own threads open
/// and close some at times of their own.
pub fn sockets() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").expect("fds");
    links
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// All open descriptors of this process.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("fds").count()
}
