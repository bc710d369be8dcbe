//! What clients may do to the broker without harm to it or to others: come and go by the thousand,
//! stall, stop reading, die at any moment. Afterwards no descriptor, connection or session is left.

use crate::on_shards;
use crate::storage::kill;
use crate::support::{Broker, Connect, Setup, Version, eventually, free_port, unique};
use std::io::Write;
use std::net::TcpStream;

/// Descriptors of an idle broker. Each shard makes its last ones when it sleeps for the first time,
/// which it has done when it answers a second time.
fn descriptors_at_rest(broker: &Broker) -> usize {
    broker.counters();
    broker.counters();
    broker.descriptors()
}

/// Waits until the broker has as few descriptors as before, and no connection or session.
fn expect_no_trace(broker: &Broker, descriptors: usize) {
    broker.await_counter("connections", 0);
    broker.await_counter("sessions", 0);
    broker.await_counter("subscriptions", 0);
    broker.await_counter("filters", 0);
    eventually("descriptors are closed", || {
        (broker.descriptors() <= descriptors).then_some(())
    });
}

fn ten_thousand_connections_leave_no_trace(shards: usize) {
    let broker = Broker::start(shards);
    let before = descriptors_at_rest(&broker);
    let threads = 8;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let broker = &broker;
            scope.spawn(move || {
                for number in 0..10_000 / threads {
                    match number % 5 {
                        0 => drop(TcpStream::connect(broker.address()).unwrap()),
                        1 => {
                            let mut stream = TcpStream::connect(broker.address()).unwrap();
                            let connect = Connect::v5("half").encode();
                            stream.write_all(&connect[..connect.len() / 2]).unwrap();
                        }
                        2 => Connect::v4(&unique("cut")).open(broker).cut(),
                        3 => {
                            let mut client = Connect::v5(&format!("same-{thread}")).open(broker);
                            client.subscribe("survival/#", 1);
                            client.reset();
                        }
                        _ => Connect::v5(&unique("good")).open(broker).disconnect(),
                    }
                }
            });
        }
    });
    assert!(broker.counters().get("connections_accepted") >= 10_000);
    expect_no_trace(&broker, before);
}

fn a_connect_may_come_byte_by_byte(shards: usize) {
    let broker = Broker::start(shards);
    for version in [Version::V3, Version::V4, Version::V5] {
        let mut stream = TcpStream::connect(broker.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in Connect::new(version, &unique("slow")).encode() {
            stream.write_all(&[byte]).unwrap();
        }
        let mut client = crate::support::Client::over(stream, version);
        client.wait_for("CONNACK", |packet| {
            matches!(packet, crate::support::Packet::Connack { .. }).then_some(())
        });
        client.ping();
    }
}

fn a_client_that_never_finishes_its_connect_is_closed(shards: usize) {
    let broker = Broker::with_config(shards, "[limits]\nconnect_timeout_ms = 300\n");
    let before = descriptors_at_rest(&broker);
    let connect = Connect::v5("never").encode();
    let mut waiting = Vec::new();
    for length in 0..connect.len() {
        let mut stream = TcpStream::connect(broker.address()).unwrap();
        stream.write_all(&connect[..length]).unwrap();
        waiting.push(crate::support::Client::over(stream, Version::V5));
    }
    for client in &mut waiting {
        client.expect_closed();
    }
    assert_eq!(
        broker.counters().get("connect_timeouts"),
        connect.len() as u64
    );
    drop(waiting);
    expect_no_trace(&broker, before);
}

fn a_subscriber_that_stops_reading_harms_nobody(shards: usize) {
    const MESSAGES: usize = 2_000;
    let config = "[limits]\noutbox_bytes_max = 262144\nqueue_messages_max = 100\n";
    let broker = Broker::with_config(shards, config);
    let mut stalled: Vec<_> = (0..4)
        .map(|number| {
            let mut client = Connect::v5(&unique("stalled")).open(&broker);
            client.subscribe("flood", number % 3);
            client
        })
        .collect();
    let mut reader = Connect::v5(&unique("reader")).open(&broker);
    reader.subscribe("flood", 1);
    let before = broker.resident_bytes();
    let payload = vec![0x55; 16 * 1024];
    let mut publisher = Connect::v5(&unique("publisher")).open(&broker);
    for _ in 0..MESSAGES {
        publisher.publish("flood", 1, &payload);
        assert_eq!(reader.accept().payload.len(), payload.len());
    }
    // 32 MB went to each of them; what is kept is bounded by outbox, window and queue.
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "grew by {grown} bytes");
    let counters = broker.counters();
    assert!(counters.get("dropped_outbox_full") > 0, "{counters:?}");
    for client in &mut stalled {
        client.stream().shutdown(std::net::Shutdown::Both).unwrap();
    }
    publisher.ping();
}

fn clients_that_die_under_traffic_leave_no_trace(shards: usize) {
    let broker = Broker::start(shards);
    let before = descriptors_at_rest(&broker);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let broker = &broker;
            scope.spawn(move || {
                for round in 0..40 {
                    let mut client = Connect::v5(&unique("mortal")).open(broker);
                    client.subscribe("war/+", (round % 3) as u8);
                    for number in 0..10 {
                        let publish =
                            crate::support::Publish::new(format!("war/{thread}"), number % 3, "x");
                        client.send_publish(&publish);
                    }
                    if round % 2 == 0 {
                        client.reset()
                    } else {
                        client.cut()
                    }
                }
            });
        }
    });
    expect_no_trace(&broker, before);
}

on_shards!([1, 4]
    ten_thousand_connections_leave_no_trace,
    a_connect_may_come_byte_by_byte,
    a_client_that_never_finishes_its_connect_is_closed,
    a_subscriber_that_stops_reading_harms_nobody,
    clients_that_die_under_traffic_leave_no_trace,
);

/// The kernel takes a killed broker's rings apart after its process, and only then its port is free.
#[test]
fn a_broker_that_was_killed_is_started_again_on_its_port() {
    let url = format!("mqtt://127.0.0.1:{}", free_port());
    let setup = Setup::new().shards(4).listen(&url);
    let mut broker = setup.start();
    for round in 0..20 {
        let clients: Vec<_> = (0..40)
            .map(|number| {
                let mut client = Connect::v5(&format!("client-{number}")).open(&broker);
                client.subscribe("#", 1);
                client
            })
            .collect();
        let mut publisher = Connect::v5("publisher").open(&broker);
        publisher.publish("a", 1, format!("{round}"));
        kill(broker);
        // It starts, or the setup panics with what it says.
        broker = setup.start();
        drop(clients);
    }
}
