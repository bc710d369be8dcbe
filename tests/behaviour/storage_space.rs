//! The space of what is over comes back, and a disk that is full is survived.

use crate::on_shards;
use crate::storage::{Place, kill};
use crate::support::{Ack, Broker, Client, Connect, Publish, eventually};

/// The least that a segment may have.
const SEGMENT_BYTES: usize = 2 << 20;

fn start(place: &Place, shards: usize, more: &str) -> Broker {
    let config = format!(
        "[storage]\nsegment_bytes = {SEGMENT_BYTES}\n[limits]\nqueue_messages_max = 1000\n{more}"
    );
    place.setup(shards).config(&config).start()
}

/// Publishes so many bytes, in messages of 1 KiB of which many are on their way at a time.
fn publish_bytes(publisher: &mut Client, topic: &str, bytes: usize) {
    let message = Publish::new(topic, 1, vec![7; 1_000]);
    for _ in 0..bytes / (20 * 1_024) {
        let ids: Vec<_> = (0..20).map(|_| publisher.send_publish(&message)).collect();
        for id in ids {
            publisher.wait_ack(Ack::Puback, id);
        }
    }
}

on_shards! { [1, 4]
    what_is_over_takes_no_space_and_what_is_not_stays,
    a_full_disk_refuses_what_it_cannot_keep_and_goes_on_when_queues_are_shorter,
}

fn what_is_over_takes_no_space_and_what_is_not_stays(shards: usize) {
    let place = Place::new();
    let broker = start(&place, shards, "");
    let mut absent: Vec<_> = (0..6)
        .map(|number| {
            let name = format!("absent-{number}");
            let mut client = Connect::v5(&name).persistent().open(&broker);
            client.subscribe(&format!("rest/{number}/+"), 1);
            client.disconnect();
            name
        })
        .collect();
    let mut publisher = Connect::v5("publisher").open(&broker);
    for number in 0..absent.len() {
        publisher.publish(&format!("rest/{number}/a"), 1, format!("{number}"));
        publisher.retain(&format!("kept/{number}"), 1, format!("{number}"));
    }
    // What is dropped from a full queue is over too.
    let mut short = Connect::v5("short").persistent().open(&broker);
    short.subscribe("much", 1);
    short.disconnect();
    publish_bytes(&mut publisher, "much", 16 * SEGMENT_BYTES);
    eventually("its space is there again", || {
        (place.segments().len() <= 8).then_some(())
    });
    let short = Connect::v5("short").open(&broker);
    short.disconnect();
    eventually("all of it", || (place.segments().len() <= 3).then_some(()));
    kill(broker);
    let broker = start(&place, shards, "");
    for (number, name) in absent.drain(..).enumerate() {
        let mut back = Connect::v5(&name).persistent().open(&broker);
        assert!(back.session_present, "{name}");
        back.expect(&format!("rest/{number}/a"), format!("{number}"));
        back.expect_nothing();
    }
    let mut reader = Connect::v5("reader").open(&broker);
    reader.subscribe("kept/#", 0);
    let mut got: Vec<_> = (0..6).map(|_| reader.accept().topic).collect();
    got.sort();
    assert!(
        got.first().is_some_and(|topic| topic == b"kept/0"),
        "{got:?}"
    );
    reader.expect_nothing();
    assert!(
        !Connect::v5("short")
            .persistent()
            .open(&broker)
            .session_present
    );
}

fn a_full_disk_refuses_what_it_cannot_keep_and_goes_on_when_queues_are_shorter(shards: usize) {
    let place = Place::new();
    let bytes_max = 10 * SEGMENT_BYTES;
    let config = format!(
        "[storage]\nsegment_bytes = {SEGMENT_BYTES}\ndisk_bytes_max = {bytes_max}\n\
         free_bytes_min = 0\n"
    );
    let broker = place.setup(shards).config(&config).start();
    let mut absent = Connect::v5("absent").persistent().open(&broker);
    absent.subscribe("kept/#", 1);
    absent.disconnect();
    let mut publisher = Connect::v5("publisher").open(&broker);
    let mut put = |topic: &str, number: usize| {
        let mut payload = vec![b'.'; 10_000];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        let id = publisher.send_publish(&Publish::new(topic, 1, payload));
        publisher.wait_ack(Ack::Puback, id)
    };
    let refused = (0..).find(|&number| put("kept/a", number) == 0x97);
    let acknowledged = refused.expect("refused at last");
    // Two of ten segments, beside room for writing them anew; each message takes whole blocks.
    assert!(acknowledged > bytes_max / 70_000, "{acknowledged}");
    let is_said = |what: &str| broker.log().contains(what).then_some(());
    eventually("it is said", || is_said("storage.disk_bytes_max"));
    // What nobody keeps goes on.
    let mut live = Connect::v5("live").open(&broker);
    live.subscribe("live", 1);
    assert_eq!(put("live", 0), 0);
    live.accept();
    // Who cannot be told waits, as if the network did.
    let mut old = Connect::v4("old").open(&broker);
    let id = old.send_publish(&Publish::new("kept/b", 1, "from 3.1.1"));
    eventually("it waits", || {
        let paused = broker.counters().get("publishers_paused_storage");
        (paused > 0).then_some(())
    });
    let mut back = Connect::v5("absent").persistent().open(&broker);
    for number in 0..acknowledged {
        let got = back.accept();
        assert_eq!(got.payload[..8], number.to_be_bytes());
    }
    old.wait_ack(Ack::Puback, id);
    back.expect("kept/b", "from 3.1.1");
    eventually("there is room", || (put("kept/a", 0) == 0).then_some(()));
    assert!(broker.counters().get("publishes_refused_storage") > 0);
    eventually("it is said", || is_said("there is room again"));
}

/// The store is slower than its publishers: they are held up, and lose nothing.
#[test]
fn publishers_wait_for_a_store_that_is_behind() {
    let place = Place::new();
    let config = "[storage]\npending_bytes_max = 1048576\ncommit_interval_us = 300000\n";
    let broker = place.setup(1).config(config).start();
    let mut absent = Connect::v5("absent").persistent().open(&broker);
    absent.subscribe("kept/#", 1);
    absent.disconnect();
    let mut publishers: Vec<_> = (0..40)
        .map(|number| Connect::v5(&format!("publisher-{number}")).open(&broker))
        .collect();
    let message = Publish::new("kept/a", 1, vec![7; 100_000]);
    for round in 0..4 {
        let ids: Vec<_> = publishers
            .iter_mut()
            .map(|publisher| publisher.send_publish(&message))
            .collect();
        for (publisher, id) in publishers.iter_mut().zip(ids) {
            assert_eq!(publisher.wait_ack(Ack::Puback, id), 0, "round {round}");
        }
    }
    assert!(broker.counters().get("publishers_paused_storage") > 0);
    kill(broker);
    let broker = place.start(1);
    let mut back = Connect::v5("absent").persistent().open(&broker);
    for _ in 0..4 * 40 {
        back.accept();
    }
}

/// Clients may have all descriptors: no file can be made then, which is no failure of the disk.
#[test]
fn a_store_without_descriptors_waits_for_them() {
    let place = Place::new();
    let config = format!(
        "[storage]\nsegment_bytes = {SEGMENT_BYTES}\n[limits]\nqueue_messages_max = 1000000\n\
         connecting_per_address_max = 1000\n"
    );
    let broker = place.setup(1).config(&config).descriptors(80).start();
    let mut absent = Connect::v5("absent").persistent().open(&broker);
    absent.subscribe("kept/#", 1);
    absent.disconnect();
    let mut publisher = Connect::v5("publisher").open(&broker);
    let message = Publish::new("kept/a", 1, vec![7; 20_000]);
    let mut put = || {
        let id = publisher.send_publish(&message);
        publisher.wait_ack(Ack::Puback, id)
    };
    let idle: Vec<_> = (0..100)
        .map(|_| std::net::TcpStream::connect(broker.address()).expect("a connection"))
        .collect();
    eventually("they have all", || {
        let refused = broker.counters().get("connections_refused_descriptors");
        (refused > 0).then_some(())
    });
    assert!(
        (0..400).any(|_| put() == 0x97),
        "the next file cannot be made"
    );
    drop(idle);
    eventually("there is room", || (put() == 0).then_some(()));
}

/// A broker that ends while its disk is full starts again, and goes on when its queues are shorter.
#[test]
fn a_full_store_is_started_again() {
    let place = Place::new();
    let bytes_max = 10 * SEGMENT_BYTES;
    let config = format!(
        "[storage]\nsegment_bytes = {SEGMENT_BYTES}\ndisk_bytes_max = {bytes_max}\n\
         free_bytes_min = 0\n"
    );
    let start = || place.setup(1).config(&config).start();
    let broker = start();
    let mut absent = Connect::v5("absent").persistent().open(&broker);
    absent.subscribe("kept/#", 1);
    absent.disconnect();
    let put = |broker: &Broker| {
        let mut publisher = Connect::v5("publisher").open(broker);
        let id = publisher.send_publish(&Publish::new("kept/a", 1, vec![b'.'; 10_000]));
        publisher.wait_ack(Ack::Puback, id)
    };
    let acknowledged = (0..).find(|_| put(&broker) == 0x97).expect("full at last");
    kill(broker);
    kill(start());
    let broker = start();
    // What a start finds of a segment's rest may still be taken.
    let more = (0..).find(|_| put(&broker) == 0x97).expect("full again");
    let acknowledged = acknowledged + more;
    let mut back = Connect::v5("absent").persistent().open(&broker);
    for _ in 0..acknowledged {
        back.accept();
    }
    eventually("there is room", || (put(&broker) == 0).then_some(()));
}
