//! Connections come in, by the thousand, also when descriptors run out.

use crate::support::*;
use ringmq::shard::peer::Peer;
use ringmq::shard::ring::{Ring, RingConfig, TaskRun};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

#[test]
fn accepted_connections_carry_their_peer() {
    for task_run in TASK_RUNS {
        {
            let mut ring = Ring::new(&small(task_run)).expect("ring");
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            let address = listener.local_addr().expect("address");
            let key = ring.listen(listener.into());
            let mut recorder = Recorder::default();
            let clients: Vec<_> = (0..40)
                .map(|_| TcpStream::connect(address).expect("connect"))
                .collect();
            drive(&mut ring, &mut recorder, |_, seen| {
                seen.accepted.len() == 40
            });
            for (client, (_, peer)) in clients.iter().zip(&recorder.accepted) {
                assert_eq!(peer.address(), client.local_addr().ok());
            }
            ring.stop_listening(key);
            drive(&mut ring, &mut recorder, |_, _| {
                TcpStream::connect(address).is_err()
            });
        }
    }
}

/// Those who are turned away do not keep out who waits behind them, one turn for each.
#[test]
fn who_waits_behind_those_that_are_turned_away_comes_in_the_same_turn() {
    for task_run in TASK_RUNS {
        let mut ring = Ring::new(&small(task_run)).expect("ring");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let clients: Vec<_> = (0..20)
            .map(|_| TcpStream::connect(address).expect("connect"))
            .collect();
        ring.listen(listener.into());
        let mut recorder = Recorder {
            turns_away: 18,
            ..Recorder::default()
        };
        let mut turns = 0;
        while recorder.accepted.is_empty() {
            ring.wait(Some(Instant::now() + PATIENCE), || false)
                .expect("wait");
            ring.turn(&mut recorder);
            turns += 1;
        }
        assert!(turns <= 2, "{turns} turns for those that are turned away");
        let (_, peer) = recorder.accepted[0];
        assert_eq!(peer.address(), clients[18].local_addr().ok());
        assert_eq!(recorder.accepted.len(), 1, "one that is let in per turn");
    }
}

/// Who has sent a reset before it is accepted has an address all the same: it comes with the accept.
#[test]
fn who_is_gone_before_it_is_accepted_has_an_address() {
    for task_run in TASK_RUNS {
        let mut ring = Ring::new(&small(task_run)).expect("ring");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let mut gone: Vec<_> = (0..10)
            .map(|_| {
                let client = TcpStream::connect(address).expect("connect");
                let reset = Some(Duration::ZERO);
                SockRef::from(&client).set_linger(reset).expect("linger");
                client.local_addr().expect("address")
            })
            .collect();
        ring.listen(listener.into());
        let mut recorder = Recorder::default();
        drive(&mut ring, &mut recorder, |_, seen| {
            seen.accepted.len() == 10
        });
        let peers = recorder.accepted.iter().map(|(_, peer)| *peer);
        let mut peers: Vec<_> = peers.filter_map(Peer::address).collect();
        peers.sort();
        gone.sort();
        assert_eq!(peers, gone);
    }
}

/// IPv4 that comes to a socket of both families is IPv4; a socket in the file system is a case of its own.
#[test]
fn peers_are_named_by_what_they_are() {
    let mut ring = Ring::new(&small(TaskRun::Cooperative)).expect("ring");
    let both = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
    both.set_only_v6(false).expect("both families");
    let any: SocketAddr = "[::]:0".parse().expect("an address");
    both.bind(&any.into()).expect("bind");
    both.listen(8).expect("listen");
    let address = both.local_addr().expect("address").as_socket();
    let port = address.expect("a port").port();
    ring.listen(both.into());
    let path = std::env::temp_dir().join(format!("ringmq-peer-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let file = UnixListener::bind(&path).expect("bind");
    ring.listen(file.into());
    let mut recorder = Recorder::default();
    let v4 = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    drive(&mut ring, &mut recorder, |_, seen| seen.accepted.len() == 1);
    let v6 = TcpStream::connect(("::1", port)).expect("connect");
    drive(&mut ring, &mut recorder, |_, seen| seen.accepted.len() == 2);
    let _local = UnixStream::connect(&path).expect("connect");
    drive(&mut ring, &mut recorder, |_, seen| seen.accepted.len() == 3);
    let peers: Vec<_> = recorder.accepted.iter().map(|(_, peer)| *peer).collect();
    let of = |client: &TcpStream| Peer::Internet(client.local_addr().expect("address"));
    assert_eq!(peers, [of(&v4), of(&v6), Peer::Unix]);
    std::fs::remove_file(&path).expect("remove");
}

#[test]
fn descriptors_return_to_the_start_after_thousands_of_connections() {
    if !in_child("accept::descriptors_return_to_the_start_after_thousands_of_connections") {
        return;
    }
    for task_run in TASK_RUNS {
        {
            let config = RingConfig {
                completions: 64,
                ..small(task_run)
            };
            let mut ring = Ring::new(&config).expect("ring");
            let mut recorder = Recorder::default();
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            let address = listener.local_addr().expect("address");
            ring.listen(listener.into());
            // The executor's wait makes its own descriptors the first time.
            ring.wait(Some(Instant::now()), || false).expect("wait");
            let before = sockets();
            let mut slots_max = 0;
            for round in 0..25 {
                let mut clients: Vec<_> = (0..100)
                    .map(|_| TcpStream::connect(address).expect("connect"))
                    .collect();
                drive(&mut ring, &mut recorder, |_, seen| {
                    seen.accepted.len() == 100
                });
                let keys: Vec<_> = recorder
                    .accepted
                    .drain(..)
                    .map(|(fd, _)| ring.adopt(fd))
                    .collect();
                slots_max = keys
                    .iter()
                    .map(|key| key.slot())
                    .max()
                    .max(Some(slots_max))
                    .unwrap();
                if round % 2 == 0 {
                    clients.clear();
                    drive(&mut ring, &mut recorder, |_, seen| seen.ended.len() == 100);
                }
                keys.iter().for_each(|key| ring.close(*key));
                drive(&mut ring, &mut recorder, |_, seen| seen.closed.len() == 100);
                recorder = Recorder::default();
            }
            assert_eq!(slots_max, 99, "slots are reused");
            assert_eq!(ring.socket_count(), 0);
            assert_eq!(sockets(), before);
        }
    }
}

#[test]
fn listener_backs_off_and_recovers_when_descriptors_run_out() {
    if !in_child("accept::listener_backs_off_and_recovers_when_descriptors_run_out") {
        return;
    }
    {
        let config = RingConfig {
            accept_backoff: Duration::from_millis(20),
            ..small(TaskRun::Cooperative)
        };
        let mut ring = Ring::new(&config).expect("ring");
        let mut recorder = Recorder::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        ring.wait(Some(Instant::now()), || false).expect("wait");
        let clients: Vec<_> = (0..20)
            .map(|_| TcpStream::connect(address).expect("connect"))
            .collect();
        let before = getrlimit(Resource::Nofile);
        let limit = Rlimit {
            current: Some(descriptors() as u64 + 2),
            ..before
        };
        setrlimit(Resource::Nofile, limit).expect("limit");
        ring.listen(listener.into());
        drive(&mut ring, &mut recorder, |ring, _| {
            ring.counters().accept_backoffs >= 3
        });
        let enters = ring.counters().enters;
        assert!(enters < 100, "spins: {enters} enters");
        // Who found no descriptor need not wait to hear it.
        let served = recorder.accepted.len();
        let refused = ring.counters().accepts_refused;
        assert_eq!((served as u64 + refused, served < 20), (20, true));
        let closed = clients.iter().filter(|client| {
            client.set_nonblocking(true).expect("non-blocking");
            matches!((&mut &**client).read(&mut [0]), Ok(0))
        });
        assert_eq!(closed.count() as u64, refused);
        setrlimit(Resource::Nofile, before).expect("limit");
        // Refusing ends with the pause in which it was begun.
        let mut later = vec![TcpStream::connect(address).expect("connect")];
        drive(&mut ring, &mut recorder, |ring, seen| {
            if ring.counters().accepts_refused == refused + later.len() as u64 {
                later.push(TcpStream::connect(address).expect("connect"));
            }
            seen.accepted.len() == served + 1
        });
        drop((clients, later));
    }
}
