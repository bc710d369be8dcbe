//! What is sent arrives whole and in order, however slowly it is read; or the failure is told.

use crate::support::*;
use ringmq::engine::message::{LocalMessage, Message, Qos};
use ringmq::engine::outbox::outgoing::{Full, Outgoing, SharedPayload};
use ringmq::shard::peer::Peer;
use ringmq::shard::ring::{Handler, ListenerKey, ReceiveEnd, Ring, RingConfig, SocketKey};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

fn with_payloads(parts: usize, payload_bytes: usize) -> (Outgoing, Vec<u8>) {
    let mut outgoing = Outgoing::default();
    for part in 0..parts {
        let last = &mut outgoing.last;
        last.copied
            .extend_from_slice(format!("<{part}>").as_bytes());
        let payload = vec![part as u8; payload_bytes];
        let message = Message::new("t", b"", &payload, Qos::AtMostOnce, false, None);
        last.shared.push(SharedPayload {
            at: last.copied.len(),
            message: LocalMessage::new(Arc::new(message)),
        });
        if part % 3 == 2 {
            let stretch = std::mem::take(last);
            let more = outgoing.more.get_or_insert_default();
            more.earlier.push_back(Full {
                stretch,
                ..Full::default()
            });
        }
    }
    outgoing.last.copied.extend_from_slice(b"end");
    let wire = outgoing.slices().flatten().copied().collect();
    (outgoing, wire)
}

#[test]
fn a_slow_reader_gets_everything_in_order() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let large = pattern(20_000_000);
            let (vectored, vectored_wire) = with_payloads(300, 50_000);
            for (outgoing, expected) in [(copied(&large), large), (vectored, vectored_wire)] {
                let (server, mut client) = pair();
                let key = ring.adopt(server);
                let length = expected.len();
                let reader = thread::spawn(move || {
                    let mut got = Vec::new();
                    let mut step = [0; 777];
                    while got.len() < length {
                        let bytes = client.read(&mut step).expect("read");
                        got.extend_from_slice(&step[..bytes]);
                    }
                    assert!(got == expected);
                });
                ring.send(key, outgoing).expect("open");
                assert!(ring.is_sending(key));
                drive(&mut ring, &mut recorder, |_, seen| !seen.sent.is_empty());
                assert_eq!(recorder.sent.pop(), Some((key, Ok(length))));
                assert!(!ring.is_sending(key));
                reader.join().expect("reader");
            }
            assert!(
                ring.counters().sends_continued > 0,
                "iovecs beyond one call"
            );
        }
    }
}

#[test]
fn sends_of_a_turn_leave_in_one_enter() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let (mut keys, mut clients) = (Vec::new(), Vec::new());
            for _ in 0..50 {
                let (server, client) = pair();
                keys.push(ring.adopt(server));
                clients.push(client);
            }
            drive(&mut ring, &mut recorder, |_, _| true);
            ring.submit().expect("submit");
            let before = ring.counters().enters;
            for key in &keys {
                ring.send(*key, copied(b"hello")).expect("open");
            }
            ring.submit().expect("submit");
            assert_eq!(ring.counters().enters, before + 1);
            drive(&mut ring, &mut recorder, |_, seen| seen.sent.len() == 50);
            for client in &mut clients {
                let mut hello = [0; 5];
                client.read_exact(&mut hello).expect("read");
                assert_eq!(&hello, b"hello");
            }
        }
    }
}

#[test]
fn more_operations_than_the_queues_hold_all_complete() {
    for task_run in TASK_RUNS {
        {
            let config = RingConfig {
                entries: 4,
                completions: 8,
                ..small(task_run)
            };
            let mut ring = Ring::new(&config).expect("ring");
            let mut recorder = Recorder::default();
            let (mut keys, mut clients) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                let (server, client) = pair();
                keys.push(ring.adopt(server));
                clients.push(client);
            }
            for round in 1..=5usize {
                for (key, client) in keys.iter().zip(&mut clients) {
                    client.write_all(b"abc").expect("write");
                    ring.send(*key, copied(b"xyz")).expect("open");
                }
                drive(&mut ring, &mut recorder, |_, seen| {
                    seen.sent.len() == 200 * round
                        && keys.iter().all(|key| seen.bytes(*key).len() == 3 * round)
                });
            }
            assert!(recorder.sent.iter().all(|(_, result)| *result == Ok(3)));
        }
    }
}

#[test]
fn sending_to_a_dead_peer_fails_and_says_so() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let (server, client) = pair();
            let key = ring.adopt(server);
            // Unread bytes make the close a reset.
            ring.send(key, copied(b"unread")).expect("open");
            drive(&mut ring, &mut recorder, |_, seen| !seen.sent.is_empty());
            drop(client);
            drive(&mut ring, &mut recorder, |_, seen| {
                seen.ended.contains_key(&key)
            });
            drive(&mut ring, &mut recorder, |ring, seen| {
                let failed = seen.sent.last().is_some_and(|(_, result)| result.is_err());
                if !failed && !ring.is_sending(key) {
                    ring.send(key, copied(b"more")).expect("open");
                }
                failed
            });
            let (_, result) = recorder.sent.pop().expect("sent");
            assert!(
                matches!(result, Err(libc::EPIPE | libc::ECONNRESET)),
                "{result:?}"
            );
            ring.close(key);
            drive(&mut ring, &mut recorder, |_, seen| seen.closed == [key]);
        }
    }
}

/// Sends back what it gets, from inside the handler.
#[derive(Default)]
struct Echo {
    waiting: Vec<u8>,
    batches: Vec<Outgoing>,
    echoed: usize,
}

impl Handler for Echo {
    fn accepted(&mut self, ring: &mut Ring, _: ListenerKey, fd: OwnedFd, _: Peer) {
        ring.adopt(fd);
    }

    fn received(&mut self, ring: &mut Ring, socket: SocketKey, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        if !ring.is_sending(socket) {
            let mut batch = self.batches.pop().unwrap_or_default();
            batch.last.clear();
            batch.last.copied.append(&mut self.waiting);
            ring.send(socket, batch).expect("open");
        }
    }

    fn receive_ended(&mut self, ring: &mut Ring, socket: SocketKey, _: ReceiveEnd) {
        ring.close(socket);
    }

    fn sent(
        &mut self,
        ring: &mut Ring,
        socket: SocketKey,
        batch: Outgoing,
        result: Result<usize, i32>,
    ) {
        self.echoed += result.unwrap_or(0);
        self.batches.push(batch);
        if !self.waiting.is_empty() {
            self.received(ring, socket, &[]);
        }
    }

    fn released(&mut self, _: &mut Ring, _: SocketKey, _: OwnedFd) {}

    fn closed(&mut self, _: &mut Ring, _: SocketKey) {}
}

#[test]
fn a_handler_may_use_the_ring_at_once() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut echo = Echo::default();
            let (server, mut client) = pair();
            ring.adopt(server);
            let expected = pattern(200_000);
            let sent = expected.clone();
            let mut writer = client.try_clone().expect("clone");
            let writing = thread::spawn(move || writer.write_all(&sent).expect("write"));
            let reading = thread::spawn(move || {
                let mut got = vec![0; 200_000];
                client.read_exact(&mut got).expect("read");
                got
            });
            drive(&mut ring, &mut echo, |_, echo| echo.echoed == 200_000);
            writing.join().expect("writer");
            assert!(reading.join().expect("reader") == expected);
            drive(&mut ring, &mut echo, |ring, _| ring.socket_count() == 0);
        }
    }
}
