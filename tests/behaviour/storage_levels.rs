//! A listener's clients are acknowledged earlier than the store's level says.

use crate::admin::{self, ANYWHERE};
use crate::storage::{Place, kill};
use crate::support::{Broker, Client, Connect, Version, eventually};
use std::net::TcpStream;

/// More than the broker makes groups while they are acknowledged early, ...
const PUBLISHES: u32 = 24;
/// ... for it makes one in so long.
const STORAGE: &str = "[storage]\ncommit_interval_us = 1000000\n";

fn start(place: &Place, durability: &str) -> Broker {
    let listener = "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n";
    let config = format!("{listener}{listener}durability = \"{durability}\"\n{STORAGE}{ANYWHERE}");
    place.setup(2).config(&config).start()
}

/// By the listener of that level.
fn publisher(broker: &Broker) -> Client {
    let stream = TcpStream::connect(broker.addresses()[1]).expect("the second listener");
    let over = Client::over(stream, Version::V5);
    let (client, answer) = Connect::v5("publisher").attempt_over(over);
    assert!(answer.is_some());
    client
}

fn sum(broker: &Broker, name: &str) -> u32 {
    let page = admin::get(admin::address(broker), "/metrics").body;
    let of_name = page.lines().filter(|line| line.starts_with(name));
    let values = of_name.filter_map(|line| line.split(' ').nth(1));
    values
        .map(|value| value.parse::<u32>().expect("a count"))
        .sum()
}

fn commits(broker: &Broker) -> u32 {
    sum(broker, "ringmq_storage_commits_total")
}

/// A client that waits for each acknowledgement gets them without a commit each; what it had then.
fn publish_one_by_one(durability: &str) -> (Place, Broker) {
    let place = Place::new();
    let broker = start(&place, durability);
    let mut absent = Connect::v5("absent").persistent().open(&broker);
    absent.subscribe("kept/#", 2);
    absent.disconnect();
    let mut publisher = publisher(&broker);
    let before = commits(&broker);
    for number in 0..PUBLISHES {
        publisher.publish("kept/a", 1, format!("{number}"));
    }
    let made = commits(&broker) - before;
    assert!(made < PUBLISHES / 2, "{made} commits");
    (place, broker)
}

#[test]
fn at_level_os_a_publish_is_acknowledged_before_the_sync_and_outlives_a_kill() {
    let (place, broker) = publish_one_by_one("os");
    kill(broker);
    let broker = place.start(2);
    let mut back = Connect::v5("absent").persistent().open(&broker);
    assert!(back.session_present);
    for number in 0..PUBLISHES {
        back.expect("kept/a", format!("{number}"));
    }
    back.expect_nothing();
}

#[test]
fn at_level_memory_a_publish_is_acknowledged_at_once_and_stored_later() {
    let (place, broker) = publish_one_by_one("memory");
    eventually("all is stored", || {
        (sum(&broker, "ringmq_storage_pending_bytes") == 0).then_some(())
    });
    kill(broker);
    let broker = place.start(2);
    let mut back = Connect::v5("absent").persistent().open(&broker);
    for number in 0..PUBLISHES {
        back.expect("kept/a", format!("{number}"));
    }
}
