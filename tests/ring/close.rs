//! Closing: cancel first, then close; no event of a socket after its end, no slot mistaken.

use crate::support::*;
use ringmq::shard::ring::Ring;
use std::io::{Read, Write};
use std::net::Shutdown;

#[test]
fn close_cancels_a_stuck_send_and_gives_the_batch_back() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let (server, mut client) = pair();
            let key = ring.adopt(server);
            ring.send(key, copied(&pattern(20_000_000))).expect("open");
            let mut first = [0; 1];
            ring.submit().expect("submit");
            client
                .read_exact(&mut first)
                .expect("the send is under way");
            ring.close(key);
            assert!(ring.send(key, copied(b"late")).is_err());
            drive(&mut ring, &mut recorder, |_, seen| !seen.closed.is_empty());
            assert_eq!(recorder.sent, [(key, Err(libc::ECANCELED))]);
            assert_eq!(ring.socket_count(), 0);
            let mut rest = Vec::new();
            // The end of the stream or a reset, but an end.
            let _ = client.read_to_end(&mut rest);
            assert!(rest.len() < 20_000_000);
        }
    }
}

#[test]
fn a_stale_key_reaches_nobody() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let (server, _client) = pair();
            let old = ring.adopt(server);
            ring.close(old);
            ring.close(old);
            drive(&mut ring, &mut recorder, |_, seen| seen.closed == [old]);
            let (server, mut client) = pair();
            let new = ring.adopt(server);
            assert_eq!(new.slot(), old.slot());
            assert_ne!(new, old);
            assert!(ring.send(old, copied(b"astray")).is_err());
            ring.pause_receive(old);
            ring.release(old);
            ring.close_after_send(old);
            ring.close(old);
            client.write_all(b"hello").expect("write");
            drive(&mut ring, &mut recorder, |_, seen| {
                seen.bytes(new) == b"hello"
            });
        }
    }
}

#[test]
fn closing_in_the_middle_of_a_stream_never_confuses_sockets() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            for mark in 0..200u8 {
                let (server, mut client) = pair();
                let key = ring.adopt(server);
                client.write_all(&[mark; 5000]).expect("write");
                if mark % 3 > 0 {
                    drive(&mut ring, &mut recorder, |_, seen| {
                        !seen.bytes(key).is_empty()
                    });
                }
                if mark % 2 == 0 {
                    ring.send(key, copied(&[mark; 100])).expect("open");
                }
                client.write_all(&[mark; 5000]).expect("write");
                ring.close(key);
                let (server, mut next) = pair();
                let other = ring.adopt(server);
                next.write_all(&[mark; 10]).expect("write");
                drive(&mut ring, &mut recorder, |_, seen| {
                    seen.closed.contains(&key) && seen.bytes(other).len() == 10
                });
                assert!(recorder.bytes(key).iter().all(|byte| *byte == mark));
                ring.close(other);
                drive(&mut ring, &mut recorder, |_, seen| {
                    seen.closed.contains(&other)
                });
                recorder = Recorder::default();
            }
        }
    }
}

#[test]
fn close_after_send_delivers_the_last_bytes_beside_unread_ones() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let (server, mut client) = pair();
            let key = ring.adopt(server);
            ring.pause_receive(key);
            client.write_all(&pattern(100_000)).expect("write");
            let farewell = pattern(300_000);
            ring.send(key, copied(&farewell)).expect("open");
            ring.close_after_send(key);
            let reader = std::thread::spawn(move || {
                let mut got = Vec::new();
                client.read_to_end(&mut got).expect("no reset");
                client.shutdown(Shutdown::Write).expect("shutdown");
                got
            });
            drive(&mut ring, &mut recorder, |_, seen| seen.closed == [key]);
            assert_eq!(recorder.sent, [(key, Ok(300_000))]);
            assert!(reader.join().expect("reader") == farewell);
        }
    }
}

#[test]
fn close_ends_a_lingering_or_released_socket_whose_peer_is_silent() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let mut recorder = Recorder::default();
            let (server, _silent) = pair();
            let lingering = ring.adopt(server);
            ring.close_after_send(lingering);
            let (server, _unread) = pair();
            let stuck = ring.adopt(server);
            ring.send(stuck, copied(&pattern(20_000_000)))
                .expect("open");
            ring.release(stuck);
            ring.submit().expect("submit");
            ring.turn(&mut recorder);
            assert!(recorder.closed.is_empty() && recorder.released.is_empty());
            ring.close(lingering);
            ring.close(stuck);
            drive(&mut ring, &mut recorder, |_, seen| seen.closed.len() == 2);
            assert!(recorder.released.is_empty());
        }
    }
}

#[test]
fn a_ring_dropped_with_operations_in_flight_ends_them() {
    if !in_child("close::a_ring_dropped_with_operations_in_flight_ends_them") {
        return;
    }
    for task_run in TASK_RUNS {
        {
            let before = sockets();
            let large = pattern(8_000_000);
            let mut clients = Vec::new();
            {
                let mut ring = Ring::new(&small(task_run)).expect("ring");
                let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
                ring.listen(listener.into());
                for _ in 0..100 {
                    let (server, client) = pair();
                    let key = ring.adopt(server);
                    ring.send(key, copied(&large)).expect("open");
                    clients.push(client);
                }
                ring.submit().expect("submit");
            }
            assert_eq!(sockets(), before + clients.len());
            for client in &mut clients {
                // The end of the stream or a reset, but an end.
                let mut bytes = Vec::new();
                let _ = client.read_to_end(&mut bytes);
                assert!(bytes.len() < 8_000_000);
            }
        }
    }
}
