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
