//! QoS 2 exactly once over a crash: what waits until a publish is complete, letter by letter.

use super::pair::{CLEAN, LASTS, NOW, Pair, SUBSCRIBE_TO_T};
use super::*;
use crate::engine::mail::{Asked, Mail, Passed, Publish};
use crate::engine::message::{Message, Qos};
use crate::engine::record::Record;
use std::sync::Arc;

const SUBACK: &[u8] = b"\x90\x03\x00\x07\x02";
const PUBLISH: &[u8] = b"\x34\x06\x00\x01t\x00\x05h";
const PUBREC: &[u8] = b"\x50\x02\x00\x05";
const SENT: &[u8] = b"\x34\x06\x00\x01t\x00\x01h";
const SENT_AGAIN: &[u8] = b"\x3C\x06\x00\x01t\x00\x01h";

/// A publisher on the second of two shards that store, and a subscriber on the first whose session lasts.
fn pair(publisher: u8) -> (Pair, ConnectionKey, ConnectionKey) {
    let mut pair = Pair::with(|settings| settings.stores = true);
    let publisher = pair.connect_as(1, publisher);
    let subscriber = pair.connect_as(0, LASTS);
    pair.receive(0, subscriber, SUBSCRIBE_TO_T);
    pair.settle_all();
    assert_eq!(pair.hear(0, subscriber), SUBACK);
    (pair, subscriber, publisher)
}

/// The entry is stored on the first shard, and the second has heard of that.
fn keep_entry(pair: &mut Pair, publisher: ConnectionKey) {
    pair.receive(1, publisher, PUBLISH);
    pair.settle();
    let told = pair.store(0);
    let origin = told.iter().find_map(|record| match record {
        Record::Queued { origin, .. } => Some(*origin),
        _ => None,
    });
    assert!(origin.expect("an entry").is_some_and(|it| it.shard == 1));
    pair.settle();
}

#[test]
fn a_message_leaves_when_its_publish_is_complete_on_all_shards() {
    for flags in [LASTS, CLEAN] {
        let (mut pair, subscriber, publisher) = pair(flags);
        keep_entry(&mut pair, publisher);
        assert_eq!(pair.hear(0, subscriber), b"", "a crash would forget it");
        let told = pair.store(1);
        let is_complete = |record: &Record| match record {
            Record::Accepted { number, .. } => flags == LASTS && *number > 0,
            Record::Complete { after, through } => flags == CLEAN && through - after == 1,
            _ => false,
        };
        assert!(told.iter().any(is_complete), "{told:?}");
        assert_eq!(pair.hear(1, publisher), PUBREC);
        assert_eq!(pair.hear(0, subscriber), b"", "nobody has told");
        pair.settle();
        assert_eq!(pair.hear(0, subscriber), SENT);
    }
}

#[test]
fn a_session_that_is_resumed_waits_as_well() {
    let (mut pair, subscriber, publisher) = pair(LASTS);
    keep_entry(&mut pair, publisher);
    pair.cores[0].receive_ended(NOW, subscriber);
    let subscriber = pair.connect_again(0);
    pair.store(0);
    assert_eq!(pair.hear(0, subscriber), b"\x20\x02\x01\x00");
    pair.settle_all();
    assert_eq!(pair.hear(0, subscriber), SENT_AGAIN);
}

#[test]
fn on_its_own_shard_it_takes_no_further_commit() {
    let mut pair = Pair::with(|settings| settings.stores = true);
    let subscriber = pair.connect_as(0, LASTS);
    pair.receive(0, subscriber, SUBSCRIBE_TO_T);
    pair.settle_all();
    assert_eq!(pair.hear(0, subscriber), SUBACK);
    let publisher = pair.connect_as(0, LASTS);
    pair.receive(0, publisher, PUBLISH);
    assert_eq!(pair.hear(0, subscriber), b"");
    pair.store(0);
    assert_eq!(pair.hear(0, subscriber), SENT);
    assert_eq!(pair.hear(0, publisher), PUBREC);
}

/// A shard that does not know of a session that lasts would not say that its publish is complete.
#[test]
fn a_session_that_a_shard_does_not_know_of_is_passed_by() {
    let (mut pair, subscriber, _) = pair(LASTS);
    let letter = |asked| {
        let message = Message::new("t", b"", b"h", Qos::ExactlyOnce, false, None);
        Mail::Publish(Publish {
            message: Arc::new(message),
            plain: true,
            groups: Vec::new(),
            hash: 0,
            passed: Passed::default(),
            asked,
        })
    };
    pair.put(0, vec![letter(Asked::default())]);
    pair.settle_all();
    assert_eq!(pair.hear(0, subscriber), b"");
    // Nobody sends the broker's own messages again.
    pair.put(0, vec![letter(Asked::by_nobody())]);
    pair.settle_all();
    assert_eq!(pair.hear(0, subscriber), SENT);
}

/// Told anew without its origin it would count as complete, and come twice when its client sends it again.
#[test]
fn a_checkpoint_tells_an_undecided_entry_with_its_origin() {
    let (mut pair, _, publisher) = pair(LASTS);
    keep_entry(&mut pair, publisher);
    let origin_told_anew = |pair: &mut Pair| {
        pair.cores[0].begin_checkpoint();
        let mut origins = Vec::new();
        for _ in 0..20 {
            pair.work_off(0);
            let told = pair.store(0).into_iter();
            origins.extend(told.filter_map(|record| match record {
                Record::Queued { origin, .. } => Some(origin.map(|it| it.shard)),
                _ => None,
            }));
        }
        origins
    };
    assert_eq!(origin_told_anew(&mut pair), [Some(1)]);
    pair.settle_all();
    assert_eq!(origin_told_anew(&mut pair), [None], "it is complete");
}
