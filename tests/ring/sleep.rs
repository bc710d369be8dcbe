//! Sleep and wake: no wake-up is lost.
//!
//! `RINGMQ_WAKE_ROUNDS` raises the number of transitions (default below).

use crate::support::*;
use ringmq::shard::ring::{Ring, RingConfig, TaskRun, Waker};
use ringmq::shard::sleeper::Sleeper;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: u64 = 20_000;

fn rounds() -> u64 {
    std::env::var("RINGMQ_WAKE_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(ROUNDS)
}

/// Long and short sleeps, with both ways to work off completions.
fn configs() -> Vec<RingConfig> {
    let long = Duration::from_secs(3600);
    [
        (TaskRun::Cooperative, long),
        (TaskRun::Cooperative, Duration::from_micros(20)),
        (TaskRun::Deferred, long),
        (TaskRun::Deferred, Duration::from_micros(20)),
    ]
    .map(|(task_run, sleep_max)| RingConfig {
        sleep_max,
        ..small(task_run)
    })
    .into()
}

/// A shard of the stress test: answers each number from the other side with the next one. The only
/// wake it ever gets is the one under test; a lost one leaves both asleep until the deadline fails.
fn bounce(
    config: &RingConfig,
    peers: mpsc::SyncSender<Waker>,
    peer: mpsc::Receiver<Waker>,
    inbox: &AtomicU64,
    outbox: &AtomicU64,
    rounds: u64,
    starts: bool,
) {
    let mut ring = Ring::new(config).expect("ring");
    peers.send(ring.waker()).expect("other side");
    let key = ring.link(&peer.recv().expect("other side"));
    let mut recorder = Recorder::default();
    let mut last = 0;
    if starts {
        outbox.store(1, Ordering::Release);
        ring.wake(key);
    }
    while last < rounds {
        let deadline = Instant::now() + PATIENCE;
        ring.wait(Some(deadline), || inbox.load(Ordering::Acquire) > last)
            .expect("wait");
        ring.turn(&mut recorder);
        let now = inbox.load(Ordering::Acquire);
        assert!(
            now > last || Instant::now() < deadline,
            "lost wake-up at {last}: {:?}",
            ring.counters()
        );
        if now > last {
            last = now;
            outbox.store(now + 1, Ordering::Release);
            ring.wake(key);
            ring.submit().expect("submit");
        }
    }
}

fn bounce_between_rings(config: &RingConfig) {
    let counters = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let (to_b, from_a) = mpsc::sync_channel(1);
    let (to_a, from_b) = mpsc::sync_channel(1);
    let (other, other_config) = (Arc::clone(&counters), config.clone());
    let b = thread::spawn(move || {
        bounce(
            &other_config,
            to_a,
            from_a,
            &other[1],
            &other[0],
            rounds(),
            false,
        );
    });
    bounce(
        config,
        to_b,
        from_b,
        &counters[0],
        &counters[1],
        rounds(),
        true,
    );
    b.join().expect("other ring");
}

#[test]
fn no_wake_up_between_rings_is_lost() {
    configs().iter().for_each(bounce_between_rings);
}

#[test]
fn no_wake_up_by_another_thread_is_lost() {
    for config in configs() {
        let pushed = Arc::new(AtomicU64::new(0));
        let seen = Arc::new(AtomicU64::new(0));
        let (sender, receiver) = mpsc::sync_channel::<Waker>(1);
        let (theirs, answered) = (Arc::clone(&pushed), Arc::clone(&seen));
        let pusher = thread::spawn(move || {
            let waker = receiver.recv().expect("waker");
            for number in 1..=rounds() {
                theirs.store(number, Ordering::Release);
                waker.wake_if_asleep();
                // Every other time at once, to meet the sleeper at every moment of its way.
                while number % 2 == 0 && answered.load(Ordering::Acquire) < number {
                    thread::yield_now();
                }
            }
        });
        {
            let mut ring = Ring::new(&config).expect("ring");
            sender.send(ring.waker()).expect("pusher");
            let mut recorder = Recorder::default();
            let mut last = 0;
            while last < rounds() {
                let deadline = Instant::now() + PATIENCE;
                let look = || pushed.load(Ordering::Acquire) > last;
                ring.wait(Some(deadline), look).expect("wait");
                ring.turn(&mut recorder);
                last = pushed.load(Ordering::Acquire).max(last);
                seen.store(last, Ordering::Release);
                assert!(
                    Instant::now() < deadline,
                    "lost wake-up: {:?}",
                    ring.counters()
                );
            }
        }
        pusher.join().expect("pusher");
    }
}

#[test]
fn no_byte_waits_beside_a_sleeping_ring() {
    for config in configs() {
        {
            let mut ring = Ring::new(&config).expect("ring");
            let mut recorder = Recorder::default();
            let (server, mut client) = pair();
            let key = ring.adopt(server);
            let rounds = rounds() / 4;
            let peer = thread::spawn(move || {
                for number in 0..rounds {
                    client.write_all(&number.to_le_bytes()).expect("write");
                    let mut answer = [0; 8];
                    client
                        .read_exact(&mut answer)
                        .expect("a lost wake-up ends by timeout");
                    assert_eq!(u64::from_le_bytes(answer), number);
                }
            });
            let mut answered = 0;
            drive(&mut ring, &mut recorder, |ring, seen| {
                let bytes = seen.bytes(key);
                if bytes.len() == 8 {
                    ring.send(key, copied(bytes)).expect("open");
                    seen.received.clear();
                    answered += 1;
                }
                answered == rounds && !ring.is_sending(key)
            });
            peer.join().expect("peer");
        }
    }
}

#[test]
fn an_idle_ring_sleeps_until_its_deadline() {
    for task_run in TASK_RUNS {
        {
            let sleep_max = Duration::from_millis(10);
            let config = RingConfig {
                sleep_max,
                ..small(task_run)
            };
            let mut ring = Ring::new(&config).expect("ring");
            let mut recorder = Recorder::default();
            let deadline = Instant::now() + Duration::from_millis(100);
            let mut waits = 0;
            while Instant::now() < deadline {
                ring.turn(&mut recorder);
                ring.wait(Some(deadline), || false).expect("wait");
                waits += 1;
            }
            assert!(waits < 20, "{waits} waits: {:?}", ring.counters());
        }
    }
}

#[test]
fn the_flag_protocol_never_leaves_a_push_beside_a_sleeper() {
    // Two plain threads and a park: the protocol alone, as often as possible.
    let rounds = rounds() * 10;
    let state = Arc::new((Sleeper::default(), AtomicU64::new(0)));
    let theirs = Arc::clone(&state);
    let sleeping = thread::spawn(move || {
        let (sleeper, pushed) = &*theirs;
        let mut last = 0;
        while last < rounds {
            sleeper.announce();
            if pushed.load(Ordering::Acquire) == last {
                let slept = Instant::now();
                thread::park_timeout(PATIENCE);
                assert!(slept.elapsed() < PATIENCE, "lost wake-up at {last}");
            }
            sleeper.retire();
            last = pushed.load(Ordering::Acquire);
        }
    });
    let (sleeper, pushed) = &*state;
    for number in 1..=rounds {
        pushed.store(number, Ordering::Release);
        if sleeper.needs_wake() {
            sleeping.thread().unpark();
        }
        if number % 64 == 0 {
            thread::yield_now();
        }
    }
    sleeping.join().expect("sleeper");
}
