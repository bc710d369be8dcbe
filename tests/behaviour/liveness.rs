//! The broker goes on: beside work of others, stopped and continued, with mailboxes that hold next to nothing.
//!
//! What is waited for here comes at once or, if a wake was lost, never.

use crate::on_shards;
use crate::support::{Ack, Broker, Client, Connect, Packet, unique};
use rustix::process::Signal;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Messages of a burst: more than any mailbox of these tests holds.
const BURST: usize = 7_000;
/// How often the broker is stopped and continued.
const STOPS: usize = 1_000;
/// What takes longer after it runs again was slow: a machine that is busy may make it so at times.
const SLOW: Duration = Duration::from_millis(500);

/// Clients of all shards, by the chance of their names.
fn clients(broker: &Broker, count: usize) -> Vec<Client> {
    let open = |_| Connect::v4(&unique("live")).open(broker);
    (0..count).map(open).collect()
}

fn a_burst_larger_than_a_mailbox_arrives_whole(shards: usize) {
    for letters_max in [1, 64] {
        let config = format!("[limits]\nmailbox_letters_max = {letters_max}\n");
        let broker = Broker::with_config(shards, &config);
        let mut readers = clients(&broker, 8);
        for reader in &mut readers {
            reader.subscribe("burst", 0);
        }
        let mut publisher = Connect::v4(&unique("publisher")).open(&broker);
        publisher.send(&b"\x30\x08\x00\x05burstx".repeat(BURST));
        for reader in &mut readers {
            for _ in 0..BURST {
                reader.expect("burst", "x");
            }
        }
        publisher.ping();
        if shards > 1 {
            let counters = broker.counters();
            assert!(counters.get("mailboxes_full") > 0);
            assert!(counters.get("publishers_paused_room") > 0);
        }
        broker.stop();
    }
}

/// Publishes, subscribes and pings on every client, so that all shards have something to tell each other.
struct Traffic {
    clients: Vec<Client>,
    rounds: usize,
}

impl Traffic {
    fn new(broker: &Broker, count: usize) -> Self {
        let mut clients = clients(broker, count);
        for (number, client) in clients.iter_mut().enumerate() {
            client.subscribe(&format!("to/{number}"), 1);
        }
        Traffic { clients, rounds: 0 }
    }

    /// Each client sends a message to the next and a PINGREQ.
    fn begin_round(&mut self) {
        self.rounds += 1;
        let count = self.clients.len();
        for (number, client) in self.clients.iter_mut().enumerate() {
            let topic = format!("to/{}", (number + self.rounds) % count);
            let id = client.fresh_id();
            let mut packet = vec![0x32, (topic.len() + 5) as u8, 0, topic.len() as u8];
            packet.extend_from_slice(topic.as_bytes());
            packet.extend_from_slice(&id.to_be_bytes());
            packet.push(b'x');
            packet.extend_from_slice(b"\xC0\x00");
            client.send(&packet);
        }
    }

    /// Each gets PINGRESP, PUBACK and its message, and acknowledges it.
    fn end_round(&mut self) {
        for client in &mut self.clients {
            let (mut pong, mut acked, mut got) = (false, false, false);
            while !(pong && acked && got) {
                match client.recv() {
                    Packet::Pingresp => pong = true,
                    Packet::Ack {
                        kind: Ack::Puback, ..
                    } => acked = true,
                    Packet::Publish(publish) => {
                        client.complete(&publish);
                        got = true;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn stopped_and_continued_at_any_moment_it_goes_on() {
    let broker = Broker::with_config(4, "[limits]\nmailbox_letters_max = 2\n");
    let mut traffic = Traffic::new(&broker, 12);
    let seed = std::process::id();
    println!("seed {seed}");
    let mut random = seed;
    let mut below = |n: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % n
    };
    let mut slow = 0;
    for stop in 0..STOPS {
        // At any moment around what the shards do: just before, in the middle, when they fall asleep.
        if stop % 2 == 0 {
            traffic.begin_round();
        }
        std::thread::sleep(Duration::from_micros(u64::from(below(2_000))));
        broker.signal(Signal::STOP);
        if stop % 2 == 1 {
            traffic.begin_round();
        }
        std::thread::sleep(Duration::from_micros(u64::from(below(3_000))));
        broker.signal(Signal::CONT);
        let runs_at = Instant::now();
        traffic.end_round();
        slow += usize::from(runs_at.elapsed() > SLOW);
    }
    // A wake that is lost costs a second, the longest sleep of a shard.
    assert!(slow <= STOPS / 50, "{slow} of {STOPS} rounds were slow");
    broker.stop();
}

#[test]
fn beside_others_that_take_every_cpu_it_goes_on() {
    let broker = Broker::start(4);
    let mut traffic = Traffic::new(&broker, 12);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    black_box(0_u64.wrapping_add(1));
                }
            });
        }
        for _ in 0..200 {
            traffic.begin_round();
            traffic.end_round();
        }
        done.store(true, Ordering::Relaxed);
    });
    broker.stop();
}

on_shards!([1, 2, 4]
    a_burst_larger_than_a_mailbox_arrives_whole,
);
