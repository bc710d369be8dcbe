//! No byte is lost, none reordered: with few buffers, pauses, and a move to another ring.

use crate::support::*;
use ringmq::shard::ring::{ReceiveEnd, Ring, RingConfig, SocketKey, TaskRun};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Instant;

fn write_all_in_thread(mut client: TcpStream, bytes: Vec<u8>) -> thread::JoinHandle<TcpStream> {
    thread::spawn(move || {
        client.write_all(&bytes).expect("write");
        client.shutdown(Shutdown::Write).expect("shutdown");
        client
    })
}

#[test]
fn running_out_of_buffers_loses_nothing() {
    for task_run in TASK_RUNS {
        {
            let config = RingConfig {
                receive_buffers: 2,
                receive_buffer_bytes: 64,
                completions: 16,
                entries: 8,
                ..small(task_run)
            };
            let mut ring = Ring::new(&config).expect("ring");
            let mut recorder = Recorder::default();
            let expected = pattern(50_000);
            let (mut keys, mut writers) = (Vec::new(), Vec::new());
            for _ in 0..20 {
                let (server, client) = pair();
                keys.push(ring.adopt(server));
                writers.push(write_all_in_thread(client, expected.clone()));
            }
            drive(&mut ring, &mut recorder, |_, seen| seen.ended.len() == 20);
            for key in keys {
                assert!(recorder.bytes(key) == expected);
                assert_eq!(recorder.ended[&key], ReceiveEnd::Eof);
            }
            assert!(ring.counters().receives_starved > 0);
            writers
                .into_iter()
                .for_each(|writer| drop(writer.join().expect("writer")));
        }
    }
}

fn with_buffers(task_run: TaskRun, count: usize, bytes: usize) -> Ring {
    let config = RingConfig {
        receive_buffers: count as u16,
        receive_buffer_bytes: bytes as u32,
        ..small(task_run)
    };
    Ring::new(&config).expect("ring")
}

/// So many who have sent so much: all of it lies in the kernel, for as long as anybody wants it.
fn crowd(ring: &mut Ring, senders: usize, bytes: usize) -> (Vec<SocketKey>, Vec<TcpStream>) {
    let sender = |_| {
        let (server, mut client) = pair();
        client.write_all(&pattern(bytes)).expect("write");
        (ring.adopt(server), client)
    };
    (0..senders).map(sender).unzip()
}

#[test]
fn when_buffers_run_out_nobody_takes_those_of_the_others() {
    const SENDERS: usize = 20;
    const BUFFERS: usize = 4;
    const BYTES: usize = 64;
    for task_run in TASK_RUNS {
        let mut ring = with_buffers(task_run, BUFFERS, BYTES);
        let mut recorder = Recorder::default();
        let (keys, _clients) = crowd(&mut ring, SENDERS, 50_000);
        let count = |seen: &Recorder, key| seen.received.get(key).map_or(0, Vec::len);
        drive(&mut ring, &mut recorder, |_, seen| {
            keys.iter().all(|key| count(seen, key) > 0)
        });
        let most = keys.iter().map(|key| count(&recorder, key)).max();
        let rounds = SENDERS.div_ceil(BUFFERS);
        assert!(most.unwrap() <= (BUFFERS + 2 * rounds) * BYTES, "{most:?}");
    }
}

#[test]
fn those_who_send_little_do_not_wait_for_those_who_send_much() {
    const BUFFERS: usize = 16;
    const BYTES: usize = 64;
    for task_run in TASK_RUNS {
        let mut ring = with_buffers(task_run, BUFFERS, BYTES);
        let mut recorder = Recorder::default();
        let (server, mut quiet) = pair();
        let key = ring.adopt(server);
        let (_, _clients) = crowd(&mut ring, 200, 20_000);
        let total = |seen: &Recorder| seen.received.values().map(Vec::len).sum::<usize>();
        // Until then nobody knows who sends much.
        drive(&mut ring, &mut recorder, |_, seen| {
            total(seen) > 2 * 200 * BYTES
        });
        for round in 1..20 {
            let before = total(&recorder);
            quiet.write_all(b"x").expect("write");
            drive(&mut ring, &mut recorder, |_, seen| {
                seen.bytes(key).len() == round
            });
            let meanwhile = total(&recorder) - before;
            // What was there already, and what others got while it was armed again.
            assert!(
                meanwhile <= 4 * BUFFERS * BYTES,
                "{task_run:?} {round}: {meanwhile}"
            );
            // They go on, too.
            drive(&mut ring, &mut recorder, |_, seen| {
                total(seen) > before + 4 * BUFFERS * BYTES
            });
        }
        drive(&mut ring, &mut recorder, |_, seen| {
            total(seen) == 200 * 20_000 + 19
        });
    }
}

/// Whatever lies between the kernel and the handler: bytes, completions, buffers that wait for others.
#[test]
fn a_socket_is_read_out_when_all_that_was_there_has_been_told() {
    for task_run in TASK_RUNS {
        let mut ring = with_buffers(task_run, 16, 64);
        let mut recorder = Recorder::default();
        let (server, mut client) = pair();
        let key = ring.adopt(server);
        let (_, _crowd) = crowd(&mut ring, 100, 20_000);
        for (round, bytes) in [1, 64, 1_000, 5, 3_000].into_iter().enumerate() {
            let before = recorder.bytes(key).len();
            client.write_all(&pattern(bytes)).expect("write");
            let mut read_by = None;
            drive(&mut ring, &mut recorder, |ring, seen| {
                let is_all = seen.bytes(key).len() == before + bytes;
                let is_read_out = ring.is_read_out(key, &mut read_by);
                assert!(is_all || !is_read_out, "{task_run:?} {round}");
                is_read_out
            });
        }
        drop(client);
        drive(&mut ring, &mut recorder, |_, seen| {
            seen.ended.contains_key(&key)
        });
        assert!(ring.is_read_out(key, &mut None));
    }
}

#[test]
fn who_found_no_buffer_is_armed_again_though_nothing_else_happens() {
    for task_run in TASK_RUNS {
        let config = RingConfig {
            receive_buffers: 4,
            receive_buffer_bytes: 64,
            sleep_max: 2 * PATIENCE,
            completions: 1024,
            ..small(task_run)
        };
        let mut ring = Ring::new(&config).expect("ring");
        let mut recorder = Recorder::default();
        let (server, mut loud) = pair();
        loud.write_all(&pattern(640)).expect("write");
        ring.adopt(server);
        // It takes all buffers, and those who come now find none.
        let now = Instant::now();
        ring.wait(Some(now), || true).expect("wait");
        let mut quiet: Vec<_> = (0..300)
            .map(|_| {
                let (server, client) = pair();
                (ring.adopt(server), client)
            })
            .collect();
        ring.wait(Some(now), || true).expect("wait");
        let (last, client) = quiet.last_mut().expect("one");
        drive(&mut ring, &mut recorder, |ring, _| {
            ring.counters().receives_starved > 0
        });
        client.write_all(b"x").expect("write");
        drive(&mut ring, &mut recorder, |_, seen| {
            seen.bytes(*last) == b"x"
        });
    }
}

#[test]
fn pausing_and_resuming_at_any_moment_loses_nothing() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let expected = pattern(4_000_000);
            let (server, client) = pair();
            let key = ring.adopt(server);
            let writer = write_all_in_thread(client, expected.clone());
            let mut turn = 0u32;
            drive(&mut ring, &mut recorder, |ring, seen| {
                turn += 1;
                match turn % 5 {
                    0 => ring.pause_receive(key),
                    1 => {
                        ring.pause_receive(key);
                        ring.resume_receive(key);
                    }
                    _ => ring.resume_receive(key),
                }
                !seen.ended.is_empty()
            });
            assert!(recorder.bytes(key) == expected);
            drop(writer.join().expect("writer"));
        }
    }
}

#[test]
fn a_paused_socket_pushes_back_on_its_peer() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let (server, mut client) = pair();
            let key = ring.adopt(server);
            ring.pause_receive(key);
            // A round trip on another socket shows that the cancellation is through.
            for _ in 0..3 {
                let (other, mut other_client) = pair();
                let other = ring.adopt(other);
                other_client.write_all(b"x").expect("write");
                drive(&mut ring, &mut recorder, |_, seen| {
                    seen.bytes(other) == b"x"
                });
            }
            let taken = recorder.bytes(key).len();
            client.set_nonblocking(true).expect("nonblocking");
            let mut written = 0;
            while let Ok(bytes) = client.write(&[7; 65536]) {
                written += bytes;
                ring.turn(&mut recorder);
            }
            assert_eq!(recorder.bytes(key).len(), taken);
            ring.resume_receive(key);
            drive(&mut ring, &mut recorder, |_, seen| {
                seen.bytes(key).len() == written
            });
        }
    }
}

#[test]
fn a_released_socket_goes_on_in_another_ring_without_loss() {
    for task_run in TASK_RUNS {
        {
            let mut rings = [
                Ring::new(&small(task_run)).expect("ring"),
                Ring::new(&small(task_run)).expect("ring"),
            ];
            let expected = pattern(6_000_000);
            let (server, client) = pair();
            let writer = write_all_in_thread(client, expected.clone());
            let mut descriptor = Some(server);
            let (mut bytes, mut moves) = (Vec::new(), 0);
            // While it streams, the socket moves to and fro.
            loop {
                let ring = &mut rings[moves % 2];
                let mut recorder = Recorder::default();
                let key = ring.adopt(descriptor.take().expect("descriptor"));
                let enough = if moves < 20 { 100_000 } else { usize::MAX };
                drive(ring, &mut recorder, |ring, seen| {
                    if seen.bytes(key).len() >= enough {
                        ring.release(key);
                    }
                    !seen.ended.is_empty() || !seen.released.is_empty()
                });
                bytes.extend_from_slice(recorder.bytes(key));
                match recorder.released.pop() {
                    Some((_, released)) => descriptor = Some(released),
                    None => break,
                }
                moves += 1;
            }
            assert!(moves >= 20 && bytes == expected);
            drop(writer.join().expect("writer"));
        }
    }
}

#[test]
fn after_the_peer_closed_its_half_it_still_gets_bytes() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let (server, mut client) = pair();
            let key = ring.adopt(server);
            client.write_all(b"question").expect("write");
            client.shutdown(Shutdown::Write).expect("shutdown");
            drive(&mut ring, &mut recorder, |_, seen| {
                seen.ended.contains_key(&key)
            });
            assert_eq!(recorder.ended[&key], ReceiveEnd::Eof);
            assert_eq!(recorder.bytes(key), b"question");
            ring.send(key, copied(b"answer")).expect("open");
            drive(&mut ring, &mut recorder, |_, seen| !seen.sent.is_empty());
            ring.close(key);
            drive(&mut ring, &mut recorder, |_, seen| !seen.closed.is_empty());
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("read");
            assert_eq!(answer, b"answer");
        }
    }
}
