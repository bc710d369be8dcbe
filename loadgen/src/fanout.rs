//! One publisher, many subscribers on one topic: how fast and how late each delivery comes.
//!
//! Closed loop: at most `window` messages are in flight until every subscriber has them, which finds
//! the highest throughput. Open loop: the schedule does not wait for the broker, and latency counts
//! from the time a message should have been sent, so that a stall shows in full.

use crate::args::Fanout;
use crate::client::{Client, ClientError};
use crate::codec::{self, Packet};
use crate::report::Report;
use crate::verify::{Breaches, Verifier};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

const TOPIC: &str = "loadgen/fanout";
/// Bytes read from a socket at once.
const READ_BYTES: usize = 256 * 1024;
/// Connections that are being set up at a time.
const CONNECTING_MAX: usize = 256;
/// Largest latency that is told apart.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Why a run could not be made.
#[derive(Debug)]
pub struct RunError(String);

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> RunError {
    move |error| RunError(format!("{what}: {error}"))
}

/// Where a client is on its way into the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Subscribing,
    Running,
}

struct Run<'a> {
    args: &'a Fanout,
    poll: Poll,
    clients: Vec<Client>,
    stages: Vec<Stage>,
    verifiers: Vec<Verifier>,
    running: usize,
    /// Deliveries still due, per message in flight, oldest first.
    due: VecDeque<u32>,
    /// Sequence of the first of them.
    first_due: u64,
    sent: u64,
    delivered: u64,
    began: Instant,
    last_progress: Instant,
    latency: Histogram<u64>,
    breaches: Breaches,
    payload: Vec<u8>,
}

/// Runs the scenario.
pub fn run(args: &Fanout) -> Result<Report, RunError> {
    raise_descriptor_limit();
    let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
        .map_err(|error| RunError(error.to_string()))?;
    let mut run = Run {
        args,
        poll: Poll::new().map_err(failed("epoll"))?,
        clients: Vec::new(),
        stages: Vec::new(),
        verifiers: vec![Verifier::default(); args.subscribers as usize],
        running: 0,
        due: VecDeque::new(),
        first_due: 0,
        sent: 0,
        delivered: 0,
        began: Instant::now(),
        last_progress: Instant::now(),
        latency,
        breaches: Breaches::default(),
        payload: vec![0x55; args.size as usize],
    };
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; READ_BYTES];
    run.connect_all(&mut events, &mut scratch)?;
    let broker_before = args.pid.map(broker_cpu).transpose()?;
    let own_before = own_cpu();
    run.began = Instant::now();
    run.last_progress = run.began;
    run.publish_and_receive(&mut events, &mut scratch)?;
    let elapsed = run.last_progress - run.began;
    let broker_after = args.pid.map(broker_cpu).transpose()?;
    run.say_goodbye();
    let lost = run
        .verifiers
        .iter()
        .map(|verifier| verifier.lost(args.messages))
        .sum();
    Ok(Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        qos: args.qos,
        published: run.sent,
        delivered: run.delivered,
        expected: run.sent * u64::from(args.subscribers),
        elapsed,
        latency: run.latency,
        breaches: Breaches {
            lost,
            ..run.breaches
        },
        broker_cpu: broker_after
            .zip(broker_before)
            .map(|(after, before)| after - before),
        own_cpu: own_cpu() - own_before,
    })
}

impl Run<'_> {
    /// Connects subscribers first, the publisher last, some at a time.
    fn connect_all(&mut self, events: &mut Events, scratch: &mut [u8]) -> Result<(), RunError> {
        let total = self.args.subscribers as usize + 1;
        while self.running < total {
            while self.clients.len() < total && self.clients.len() - self.running < CONNECTING_MAX {
                self.add_client()?;
            }
            self.turn(events, scratch, Some(self.args.patience))?;
            if self.last_progress.elapsed() > self.args.patience {
                return Err(RunError(format!(
                    "{} of {total} clients were set up, then nothing came for {:?}",
                    self.running, self.args.patience
                )));
            }
        }
        Ok(())
    }

    fn add_client(&mut self) -> Result<(), RunError> {
        let broker = self.args.broker;
        let stream = std::net::TcpStream::connect_timeout(&broker, self.args.patience)
            .map_err(|error| RunError(format!("cannot connect to {broker}: {error}")))?;
        stream.set_nonblocking(true).map_err(failed("socket"))?;
        SockRef::from(&stream)
            .set_tcp_nodelay(true)
            .map_err(failed("socket"))?;
        let mut client = Client::new(TcpStream::from_std(stream), self.args.protocol);
        let index = self.clients.len();
        self.poll
            .registry()
            .register(
                &mut client.stream,
                Token(index),
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(failed("epoll"))?;
        let client_id = format!("loadgen-{}-{index}", std::process::id());
        codec::connect(&client_id, self.args.protocol, client.outgoing());
        client.flush().map_err(|error| self.gone(index, &error))?;
        self.clients.push(client);
        self.stages.push(Stage::Connecting);
        Ok(())
    }

    fn gone(&self, index: usize, error: &ClientError) -> RunError {
        let who = if index == self.args.subscribers as usize {
            "publisher"
        } else {
            "subscriber"
        };
        RunError(match error {
            ClientError::Closed(text) => format!("{who} {index}: {text}"),
            ClientError::Malformed => format!("{who} {index}: the broker sent a malformed packet"),
        })
    }

    fn publish_and_receive(
        &mut self,
        events: &mut Events,
        scratch: &mut [u8],
    ) -> Result<(), RunError> {
        let expected = self.args.messages * u64::from(self.args.subscribers);
        while self.delivered < expected {
            let wait = self.publish_due()?;
            self.turn(events, scratch, Some(wait.min(self.args.patience)))?;
            if self.last_progress.elapsed() > self.args.patience {
                // What is missing shows in the report.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Publishes what may go out now; returns how long until the next one may.
    fn publish_due(&mut self) -> Result<Duration, RunError> {
        let mut wait = self.args.patience;
        while self.sent < self.args.messages {
            let now = Instant::now();
            let mut intended = now;
            if let Some(rate) = self.args.rate {
                intended = self.began + Duration::from_secs_f64(self.sent as f64 / rate);
                if intended > now {
                    wait = intended - now;
                    break;
                }
            } else if self.due.len() as u64 >= self.args.window {
                break;
            }
            let since_begin = (intended - self.began).as_nanos() as u64;
            self.payload[..8].copy_from_slice(&self.sent.to_be_bytes());
            self.payload[8..16].copy_from_slice(&since_begin.to_be_bytes());
            let index = self.args.subscribers as usize;
            let packet_id = (self.sent % 65_535) as u16 + 1;
            let (qos, protocol) = (self.args.qos, self.args.protocol);
            let out = self.clients[index].outgoing();
            codec::publish(TOPIC, qos, packet_id, &self.payload, protocol, out);
            self.sent += 1;
            self.due.push_back(self.args.subscribers);
        }
        let publisher = self.args.subscribers as usize;
        let flushed = self.clients[publisher].flush();
        flushed.map_err(|error| self.gone(publisher, &error))?;
        Ok(wait)
    }

    /// Waits for events and handles them.
    fn turn(
        &mut self,
        events: &mut Events,
        scratch: &mut [u8],
        wait: Option<Duration>,
    ) -> Result<(), RunError> {
        match self.poll.poll(events, wait) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            result => result.map_err(failed("epoll"))?,
        }
        for event in &*events {
            let index = event.token().0;
            if event.is_readable() {
                self.read(index, scratch)?;
            }
            let client = &mut self.clients[index];
            if client.wants_write() {
                let flushed = client.flush();
                flushed.map_err(|error| self.gone(index, &error))?;
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize, scratch: &mut [u8]) -> Result<(), RunError> {
        // The client is taken out so that its packets may change the run.
        let Run { clients, .. } = self;
        let placeholder = Vec::new();
        let mut arrived: Vec<(u64, u64)> = placeholder;
        let mut stage = self.stages[index];
        let is_publisher = index == self.args.subscribers as usize;
        let (qos, protocol) = (self.args.qos, self.args.protocol);
        let result = clients[index].read(scratch, |packet, out| {
            match packet {
                Packet::Connack(0) if is_publisher => stage = Stage::Running,
                Packet::Connack(0) => {
                    codec::subscribe(TOPIC, qos, protocol, out);
                    stage = Stage::Subscribing;
                }
                Packet::Connack(code) => {
                    return Err(ClientError::Closed(format!("refused with code {code}")));
                }
                Packet::Suback(code) if code < 0x80 => stage = Stage::Running,
                Packet::Suback(code) => {
                    return Err(ClientError::Closed(format!("SUBACK with code {code:#x}")));
                }
                Packet::Publish {
                    qos,
                    packet_id,
                    payload,
                } => {
                    if qos > 0 {
                        codec::ack(if qos == 1 { 4 } else { 5 }, packet_id, out);
                    }
                    arrived.push(header(payload).unwrap_or((u64::MAX, 0)));
                }
                // PUBREC to PUBREL, PUBREL to PUBCOMP.
                Packet::Ack {
                    kind: kind @ 5..=6,
                    packet_id,
                } => {
                    codec::ack(kind + 1, packet_id, out);
                }
                Packet::Disconnect(reason) => {
                    return Err(ClientError::Closed(format!("DISCONNECT {reason:#x}")));
                }
                Packet::Ack { .. } | Packet::Other => {}
            }
            Ok(())
        });
        result.map_err(|error| self.gone(index, &error))?;
        if stage != self.stages[index] {
            self.last_progress = Instant::now();
            self.running += usize::from(stage == Stage::Running);
            self.stages[index] = stage;
        }
        self.note(index, &arrived);
        Ok(())
    }

    fn note(&mut self, index: usize, arrived: &[(u64, u64)]) {
        if arrived.is_empty() {
            return;
        }
        let now = Instant::now();
        self.last_progress = now;
        let since_begin = (now - self.began).as_nanos() as u64;
        for &(sequence, intended) in arrived {
            let verifier = &mut self.verifiers[index];
            if !verifier.note(sequence, self.args.messages, &mut self.breaches) {
                continue;
            }
            self.delivered += 1;
            let late = since_begin
                .saturating_sub(intended)
                .clamp(1, LATENCY_NS_MAX);
            let _ = self.latency.record(late);
            if let Some(due) = self
                .due
                .get_mut((sequence.saturating_sub(self.first_due)) as usize)
            {
                *due = due.saturating_sub(1);
            }
        }
        while self.due.front() == Some(&0) {
            self.due.pop_front();
            self.first_due += 1;
        }
    }

    fn say_goodbye(&mut self) {
        for client in &mut self.clients {
            client.outgoing().extend_from_slice(&codec::DISCONNECT);
            // The run is over; a connection that is gone already is no loss.
            let _ = client.flush();
        }
    }
}

fn header(payload: &[u8]) -> Option<(u64, u64)> {
    let sequence = u64::from_be_bytes(payload.get(..8)?.try_into().ok()?);
    let intended = u64::from_be_bytes(payload.get(8..16)?.try_into().ok()?);
    Some((sequence, intended))
}

fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Where it cannot be raised, connecting says what is wrong.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

/// CPU time of this process, all threads.
fn own_cpu() -> Duration {
    broker_cpu(std::process::id()).unwrap_or_default()
}

/// User and system time of a process.
fn broker_cpu(pid: u32) -> Result<Duration, RunError> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(failed(&path))?;
    // The name may hold blanks; what follows it does not.
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split(' ')
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
    };
    let sum = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    let per_second = rustix::param::clock_ticks_per_second();
    sum.map(|sum| Duration::from_secs_f64(sum as f64 / per_second as f64))
        .ok_or_else(|| RunError(format!("{path} is not readable as a process")))
}
