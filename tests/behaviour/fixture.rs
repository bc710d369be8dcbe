//! A store that this version has written, which every later one opens: `tests/fixtures/store`.
//!
//! Written anew, if its format has to change, by
//! `RINGMQ_TEST_WRITES_FIXTURE=1 cargo test --test behaviour fixture`; it holds one of each kind of record that
//! comes in real use. What expires does so in more than a hundred years.

use crate::storage::{Place, kill};
use crate::store_tools::{segments, to};
use crate::support::{
    Ack, Broker, Client, Connect, Packet, Props, Publish, Version, Will, eventually, option, prop,
};
use std::fs;
use std::path::{Path, PathBuf};

/// Seconds until what expires does so; the half of it is more than sixty years.
const EXPIRY: u32 = 4_000_000_000;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store")
}

fn lasting(version: Version, name: &str) -> Connect {
    match version {
        Version::V5 => Connect::v5(name).resume().expiry(EXPIRY),
        _ => Connect::new(version, name).persistent(),
    }
}

fn rich(topic: &str, qos: u8, payload: &str) -> Publish {
    let mut publish = Publish::new(topic, qos, payload);
    publish.props = Props::new()
        .four(prop::MESSAGE_EXPIRY, EXPIRY)
        .text(prop::CONTENT_TYPE, "text/plain")
        .text(prop::RESPONSE_TOPIC, "answers")
        .text(prop::CORRELATION_DATA, "12")
        .user("name", "value");
    publish
}

/// Who is there, and what they want.
fn subscribe(broker: &Broker) {
    let mut old = lasting(Version::V4, "old").open(broker);
    old.subscribe("a/+", 1);
    old.subscribe("b/#", 2);
    old.disconnect();
    let mut new = lasting(Version::V5, "new").open(broker);
    let ids = Props::new().variable(prop::SUBSCRIPTION_ID, 77);
    let options = option::NO_LOCAL | option::RETAIN_AS_PUBLISHED | option::RETAIN_IF_NEW;
    assert_eq!(new.subscribe_with(&ids, &[("a/+", 1 | options)]), [1]);
    new.subscribe("$share/group/jobs/+", 2);
    new.disconnect();
    let gone = lasting(Version::V5, "gone").open(broker);
    gone.disconnect();
    // Its session ends, and with it its record.
    Connect::v5("gone").open(broker).disconnect();
    let mut short = lasting(Version::V5, "unsubscribed").open(broker);
    short.subscribe("a/+", 1);
    short.subscribe("c", 1);
    short.unsubscribe(&["a/+"]);
    short.disconnect();
    let will = Will::new("wills/delayed", "last words").qos(1).retain();
    let will = will.delay(EXPIRY - 1_000);
    lasting(Version::V5, "mortal").will(will).open(broker).cut();
    broker.await_counter("connections", 0);
}

/// What is published, and what of it is on its way.
fn publish(broker: &Broker) {
    let mut window = lasting(Version::V5, "window").open(broker);
    window.subscribe("window/+", 2);
    let mut publisher = Connect::v5("publisher")
        .resume()
        .expiry(EXPIRY)
        .open(broker);
    publisher.publish("window/released", 2, "first half");
    let half = window.recv_publish();
    window.ack(Ack::Pubrec, half.id);
    window.wait_ack(Ack::Pubrel, half.id);
    publisher.publish("window/sent", 1, "sent");
    assert_eq!(window.recv_publish().payload, b"sent");
    publisher.publish("window/over", 1, "over");
    let over = window.recv_publish();
    window.ack(Ack::Puback, over.id);
    window.ping();
    window.cut();
    publisher.publish_packet(&rich("a/1", 1, "queued"));
    publisher.publish("b/1/2", 2, "queued at QoS 2");
    publisher.publish("jobs/1", 1, "a job");
    publisher.retain("a/kept", 1, "old value");
    publisher.publish_packet(&rich("kept/rich", 1, "rich").retain());
    publisher.retain("kept/gone", 1, "soon");
    publisher.retain("kept/gone", 1, "");
    let mut old = Connect::v4("plain").open(broker);
    old.retain("kept/plain", 2, "plain");
    old.disconnect();
    // The other half comes in another life of the broker.
    let unfinished = Publish::new("b/unfinished", 2, "once").id(9);
    publisher.send_publish(&unfinished);
    publisher.wait_ack(Ack::Pubrec, 9);
    publisher.cut();
    broker.await_counter("connections", 0);
}

/// Writes the fixture.
fn write_anew() {
    let place = Place::new();
    let config = "[storage]\nsegment_bytes = 2097152\n";
    let broker = place.setup(2).config(config).start();
    subscribe(&broker);
    publish(&broker);
    // A stop would publish the will.
    kill(broker);
    let path = fixture();
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
    to("backup", &place.0, &path).ends(0, &["read again"]);
    let files = segments(&path);
    assert_eq!(files.len(), 1);
    // What was not written to is not kept in the repository; the copy is closed.
    let bytes = fs::read(&files[0]).expect("a segment");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    fs::write(&files[0], &bytes[..written.next_multiple_of(4_096)]).expect("written");
}

#[test]
fn a_store_of_this_version_is_opened_and_all_is_there() {
    if std::env::var_os("RINGMQ_TEST_WRITES_FIXTURE").is_some() {
        write_anew();
    }
    // As many shards as have written it, and others.
    for shards in [2, 1, 3] {
        let place = Place::new();
        fs::create_dir_all(&place.0).expect("make the folder");
        for file in fs::read_dir(fixture()).expect("the fixture").flatten() {
            fs::copy(file.path(), place.0.join(file.file_name())).expect("copied");
        }
        let broker = place.start(shards);
        queues_are_there(&broker);
        windows_are_there(&broker);
        retained_messages_are_there(&broker);
        subscriptions_are_there(&broker);
        the_will_is_there(&broker);
        kill(broker);
        // And what was made of it.
        let broker = place.start(shards);
        assert!(lasting(Version::V4, "old").open(&broker).session_present);
    }
}

#[track_caller]
fn back(broker: &Broker, version: Version, name: &str) -> Client {
    let client = lasting(version, name).open(broker);
    assert!(client.session_present, "{name}");
    client
}

#[track_caller]
fn is_rich(got: &Publish) {
    let left = got.props.number(prop::MESSAGE_EXPIRY).expect("an expiry");
    assert!(left > EXPIRY / 2 && left <= EXPIRY, "{left}");
    assert_eq!(
        got.props.string(prop::CONTENT_TYPE).as_deref(),
        Some("text/plain")
    );
    assert_eq!(
        got.props.string(prop::RESPONSE_TOPIC).as_deref(),
        Some("answers")
    );
    assert_eq!(got.props.bytes(prop::CORRELATION_DATA), Some(&b"12"[..]));
    assert_eq!(
        got.props.user_pairs(),
        [("name".to_owned(), "value".to_owned())]
    );
}

fn queues_are_there(broker: &Broker) {
    let mut publisher = back(broker, Version::V5, "publisher");
    let mut again = Publish::new("b/unfinished", 2, "once").id(9);
    again.dup = true;
    publisher.send_publish(&again);
    publisher.wait_ack(Ack::Pubrec, 9);
    publisher.ack(Ack::Pubrel, 9);
    publisher.wait_ack(Ack::Pubcomp, 9);
    publisher.disconnect();
    let mut old = back(broker, Version::V4, "old");
    let mut came: Vec<_> = (0..4).map(|_| old.accept()).collect();
    came.sort_by(|a, b| a.topic.cmp(&b.topic));
    let came: Vec<_> = came
        .iter()
        .map(|it| (it.topic.as_slice(), it.payload.as_slice(), it.qos))
        .collect();
    let wanted: [(&[u8], &[u8], u8); 4] = [
        (b"a/1", b"queued", 1),
        (b"a/kept", b"old value", 1),
        (b"b/1/2", b"queued at QoS 2", 2),
        (b"b/unfinished", b"once", 2),
    ];
    assert_eq!(came, wanted);
    old.expect_nothing();
    old.disconnect();
    let mut new = back(broker, Version::V5, "new");
    let mut came: Vec<_> = (0..3).map(|_| new.accept()).collect();
    came.sort_by(|a, b| a.topic.cmp(&b.topic));
    let topics: Vec<_> = came.iter().map(|it| it.topic.as_slice()).collect();
    assert_eq!(topics, [&b"a/1"[..], b"a/kept", b"jobs/1"]);
    is_rich(&came[0]);
    assert_eq!(came[0].props.subscription_ids(), [77]);
    assert!(came[1].retain, "as published");
    assert!(came[2].props.subscription_ids().is_empty());
    new.expect_nothing();
    new.disconnect();
}

fn windows_are_there(broker: &Broker) {
    let mut window = back(broker, Version::V5, "window");
    let mut has_come = (false, false);
    while has_come != (true, true) {
        match window.recv() {
            Packet::Publish(publish) => {
                assert!(
                    publish.dup && publish.topic == b"window/sent",
                    "{publish:?}"
                );
                window.ack(Ack::Puback, publish.id);
                has_come.0 = true;
            }
            Packet::Ack {
                kind: Ack::Pubrel,
                id,
                ..
            } => {
                window.ack(Ack::Pubcomp, id);
                has_come.1 = true;
            }
            other => panic!("{other:?}"),
        }
    }
    window.settle();
    window.expect_nothing();
    window.disconnect();
}

fn retained_messages_are_there(broker: &Broker) {
    let mut reader = Connect::v5("reader").open(broker);
    reader.subscribe("+/#", 2);
    let mut came: Vec<_> = (0..3).map(|_| reader.accept()).collect();
    came.sort_by(|a, b| a.topic.cmp(&b.topic));
    let topics: Vec<_> = came.iter().map(|it| it.topic.as_slice()).collect();
    assert_eq!(topics, [&b"a/kept"[..], b"kept/plain", b"kept/rich"]);
    assert!(came.iter().all(|it| it.retain));
    assert_eq!(
        (came[1].qos, came[1].payload.as_slice()),
        (2, &b"plain"[..])
    );
    is_rich(&came[2]);
    reader.expect_nothing();
}

fn subscriptions_are_there(broker: &Broker) {
    let mut new = back(broker, Version::V5, "new");
    // What it publishes itself does not come to it, and what the group gets does.
    new.publish("a/own", 1, "own");
    new.publish("jobs/2", 1, "own job");
    new.expect("jobs/2", "own job");
    new.expect_nothing();
    let mut unsubscribed = back(broker, Version::V5, "unsubscribed");
    new.publish("c", 1, "c");
    unsubscribed.expect("c", "c");
    unsubscribed.expect_nothing();
    let gone = lasting(Version::V5, "gone").open(broker);
    assert!(!gone.session_present);
    let mut old = back(broker, Version::V4, "old");
    old.expect("a/own", "own");
    old.expect_nothing();
}

/// Its delay ends with its session.
fn the_will_is_there(broker: &Broker) {
    let mut heir = Connect::v5("heir").open(broker);
    heir.subscribe("wills/+", 1);
    heir.expect_nothing();
    let mortal = Connect::v5("mortal").open(broker);
    assert!(!mortal.session_present);
    heir.expect("wills/delayed", "last words");
    let is_kept = || {
        let mut reader = Connect::v5("late").open(broker);
        reader.subscribe("wills/+", 1);
        let came = reader.drain();
        came.iter().any(|it| it.retain).then_some(())
    };
    eventually("it is retained", is_kept);
}
