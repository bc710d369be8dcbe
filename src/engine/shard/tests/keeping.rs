//! What waits until the store has it.

use super::*;

/// What the broker sends before anything more is stored.
fn unstored(shard: &mut Shard, key: ConnectionKey) -> Vec<u8> {
    let mut sent = Vec::new();
    while let Some(batch) = shard.core.take_outgoing(key) {
        sent.extend(batch.slices().flatten());
        shard.core.sent(shard.now, key, batch);
    }
    sent
}

/// A packet whose answer has to wait.
fn waits(shard: &mut Shard, key: ConnectionKey, packet: &[u8], answer: &[u8]) {
    shard.receive(key, packet);
    assert_eq!(unstored(shard, key), b"", "before it is stored");
    assert_eq!(shard.hear(key), answer);
}

fn connect(shard: &mut Shard, flags: u8) -> ConnectionKey {
    let key = shard.core.accept(shard.now, 0).unwrap();
    let connect = [b"\x10\x0D\x00\x04MQTT\x04", &[flags, 0, 0, 0, 1, b'a'][..]].concat();
    shard.receive(key, &connect);
    key
}

#[test]
fn answers_of_a_session_that_stays_wait_for_what_they_end_or_begin() {
    let mut shard = Shard::new(|_| {});
    let client = shard.connect(b'a', false);
    waits(&mut shard, client, SUBSCRIBE_T, b"\x90\x03\x00\x07\x01");
    let unsubscribe = b"\xA2\x05\x00\x08\x00\x01t";
    waits(&mut shard, client, unsubscribe, b"\xB0\x02\x00\x08");
    waits(
        &mut shard,
        client,
        b"\x34\x06\x00\x01x\x00\x05h",
        b"\x50\x02\x00\x05",
    );
    waits(&mut shard, client, b"\x62\x02\x00\x05", b"\x70\x02\x00\x05");
    // Toward the client: PUBREC is the end of the message.
    let subscribe = b"\x82\x06\x00\x09\x00\x01t\x02";
    waits(&mut shard, client, subscribe, b"\x90\x03\x00\x09\x02");
    let publisher = shard.connect(b'p', true);
    shard.say(publisher, b"\x34\x06\x00\x01t\x00\x01h");
    assert_eq!(shard.hear(client), b"\x34\x06\x00\x01t\x00\x01h");
    waits(&mut shard, client, b"\x50\x02\x00\x01", b"\x62\x02\x00\x01");
}

#[test]
fn a_repeat_on_another_connection_does_not_overtake_the_first() {
    let mut shard = Shard::new(|_| {});
    let client = shard.connect(b'a', false);
    shard.receive(client, b"\x34\x06\x00\x01x\x00\x06h");
    shard.core.receive_ended(shard.now, client);
    let again = connect(&mut shard, 0);
    assert_eq!(unstored(&mut shard, again), b"\x20\x02\x01\x00");
    waits(
        &mut shard,
        again,
        b"\x3C\x06\x00\x01x\x00\x06h",
        b"\x50\x02\x00\x06",
    );
}

#[test]
fn an_ended_session_is_stored_before_its_client_hears_of_it() {
    let mut shard = Shard::new(|_| {});
    shard.connect(b'a', false);
    let again = connect(&mut shard, 2);
    assert_eq!(unstored(&mut shard, again), b"");
    assert_eq!(shard.hear(again), b"\x20\x02\x00\x00");
    // A session that ends with its connection is none of the store's business.
    shard.receive(again, SUBSCRIBE_T);
    assert_eq!(unstored(&mut shard, again), b"\x90\x03\x00\x07\x01");
    assert_eq!(shard.core.take_persist().count(), 0);
}

#[test]
fn a_message_of_qos_2_is_sent_with_an_identifier_that_is_stored() {
    let mut shard = Shard::new(|_| {});
    let client = shard.connect(b'a', false);
    shard.say(client, b"\x82\x06\x00\x09\x00\x01t\x02");
    let publisher = shard.connect(b'p', true);
    shard.receive(publisher, b"\x34\x06\x00\x01t\x00\x01h");
    assert_eq!(unstored(&mut shard, client), b"");
    // Neither is it on another connection.
    shard.core.receive_ended(shard.now, client);
    let again = connect(&mut shard, 0);
    assert_eq!(unstored(&mut shard, again), b"");
    assert_eq!(
        shard.hear(again),
        b"\x20\x02\x01\x00\x3C\x06\x00\x01t\x00\x01h"
    );
    shard.receive(publisher, b"\x34\x06\x00\x01t\x00\x02i");
    assert_eq!(unstored(&mut shard, again), b"");
    assert_eq!(shard.hear(again), b"\x34\x06\x00\x01t\x00\x02i");
    // One of QoS 1 may come twice.
    shard.receive(publisher, b"\x32\x06\x00\x01t\x00\x03j");
    assert_eq!(unstored(&mut shard, again), b"\x32\x06\x00\x01t\x00\x03j");
}

#[test]
fn nothing_is_told_where_nothing_is_stored() {
    let mut shard = Shard::new(|settings| settings.stores = false);
    let client = shard.connect(b'a', false);
    shard.receive(
        client,
        b"\x82\x06\x00\x09\x00\x01t\x02\x35\x06\x00\x01t\x00\x01h",
    );
    assert_eq!(shard.core.take_persist().count(), 0);
    assert!(unstored(&mut shard, client).ends_with(b"\x50\x02\x00\x01"));
}

#[test]
fn what_waited_for_a_session_that_ends_is_not_kept_any_more() {
    let mut shard = Shard::new(|_| {});
    let client = shard.connect(b'a', false);
    shard.say(client, SUBSCRIBE_T);
    shard.core.receive_ended(shard.now, client);
    let publisher = shard.connect(b'p', true);
    for id in 1..=3 {
        shard.say(publisher, &[0x32, 6, 0, 1, b't', 0, id, b'h']);
    }
    let (kept, waiting) = (shard.core.kept(10), shard.core.waiting());
    assert_eq!((kept.entries, waiting.entries), (3, 3));
    // Two bytes of a message and what tells whose it is.
    assert!((3 * 2..3 * 64).contains(&waiting.bytes), "{waiting:?}");
    let again = connect(&mut shard, 2);
    assert_eq!(shard.hear(again), b"\x20\x02\x00\x00");
    assert_eq!(shard.core.kept(10).entries, 0);
}
