//! Publishes that go to so many that it takes several turns.

use super::pair::{NOW, Pair};
use super::{DELIVERED_T, PUBLISH_T, SUBSCRIBE_T, Shard, counter, messages};
use crate::engine::access::acl::Acl;
use crate::engine::keys::ConnectionKey;
use crate::engine::mail::Mail;
use std::sync::Arc;

const SUBSCRIBERS: u8 = 12;

/// A shard whose turns deliver one of a large fan-out, and subscribers to `t`.
fn crowded_shard() -> (Shard, Vec<ConnectionKey>) {
    let mut shard = Shard::new(|settings| {
        settings.limits.turn_deliveries_max = 8;
        settings.limits.takeover_wait_ms = 0;
    });
    let keys: Vec<_> = (0..SUBSCRIBERS)
        .map(|n| shard.connect(b'a' + n, true))
        .collect();
    for key in &keys {
        let answer = subscribe(&mut shard, *key, SUBSCRIBE_T);
        assert_eq!(answer, b"\x90\x03\x00\x07\x01");
    }
    (shard, keys)
}

/// A client sends something in a turn of its own.
fn receive(shard: &mut Shard, key: ConnectionKey, packet: &[u8]) {
    shard.begin_turn();
    shard.receive(key, packet);
}

/// Subscribes and waits for what is retained.
fn subscribe(shard: &mut Shard, key: ConnectionKey, packet: &[u8]) -> Vec<u8> {
    receive(shard, key, packet);
    heard_over_turns(shard, key)
}

/// What a client hears over some turns, in which what was held for it goes.
fn heard_over_turns(shard: &mut Shard, key: ConnectionKey) -> Vec<u8> {
    let mut heard = Vec::new();
    for _ in 0..6 {
        work(shard);
        heard.extend(shard.hear(key));
    }
    heard
}

fn work(shard: &mut Shard) {
    shard.begin_turn();
    shard.core.work_off(shard.now);
}

fn finish(shard: &mut Shard) -> usize {
    let mut turns = 0;
    while shard.core.fans_out() || !shard.core.backlog.is_empty() {
        work(shard);
        turns += 1;
        assert!(turns < 1_000, "it comes to an end");
    }
    turns
}

fn heard_by(shard: &mut Shard, keys: &[ConnectionKey]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| shard.hear(*key)).collect()
}

#[test]
fn a_large_fan_out_goes_over_turns_and_is_acknowledged_at_its_end() {
    let (mut shard, keys) = crowded_shard();
    let [publisher, other] = [b'y', b'z'].map(|id| shard.connect(id, true));
    shard.begin_turn();
    shard.receive(
        publisher,
        &[b"\x32\x07\x00\x01t\x00\x09ab", &b"\xC0\x00"[..]].concat(),
    );
    work(&mut shard);
    assert_eq!(
        shard.hear(publisher),
        b"",
        "neither acknowledged nor read on"
    );
    assert_eq!(shard.say(other, b"\xC0\x00"), b"\xD0\x00");
    let mut heard = heard_by(&mut shard, &keys);
    let served = heard.iter().filter(|heard| !heard.is_empty()).count();
    assert!((1..4).contains(&served), "{served} of {SUBSCRIBERS}");
    assert!(finish(&mut shard) > 2);
    for (heard, more) in heard.iter_mut().zip(heard_by(&mut shard, &keys)) {
        heard.extend(more);
        assert_eq!(heard.len(), 9, "one copy each: {heard:02x?}");
    }
    assert_eq!(shard.hear(publisher), b"\x40\x02\x00\x09\xD0\x00");
}

#[test]
fn a_few_fan_outs_begin_while_outboxes_wait_to_be_sent() {
    let (mut shard, keys) = crowded_shard();
    let publisher = shard.connect(b'z', true);
    receive(&mut shard, publisher, &messages(1..=10));
    for _ in 0..500 {
        // Nothing is taken to be sent.
        shard.core.begin_turn();
        shard.core.work_off(shard.now);
    }
    for heard in heard_by(&mut shard, &keys) {
        assert_eq!(heard, messages(1..=5), "one before, four since");
    }
    finish(&mut shard);
    for heard in heard_by(&mut shard, &keys) {
        assert_eq!(heard, messages(6..=10));
    }
}

#[test]
fn nobody_overtakes_a_fan_out_on_its_topic_and_others_go_on() {
    let (mut shard, keys) = crowded_shard();
    let publishers = [b'x', b'y', b'z'].map(|id| shard.connect(id, true));
    let other = shard.connect(b'o', true);
    subscribe(&mut shard, other, b"\x82\x06\x00\x01\x00\x01u\x00");
    receive(&mut shard, publishers[0], &messages(1..=1));
    receive(&mut shard, publishers[1], &messages(2..=3));
    receive(&mut shard, publishers[2], b"\x30\x04\x00\x01ux");
    assert_eq!(shard.hear(other), b"\x30\x04\x00\x01ux", "another topic");
    finish(&mut shard);
    for heard in heard_by(&mut shard, &keys) {
        assert_eq!(heard, messages(1..=3));
    }
}

#[test]
fn a_fan_out_that_became_small_is_not_overtaken_either() {
    let (mut shard, keys) = crowded_shard();
    let publishers = [b'y', b'z'].map(|id| shard.connect(id, true));
    receive(&mut shard, publishers[0], &messages(1..=1));
    work(&mut shard);
    // All but the last unsubscribe: a publish to `t` would not be large any more.
    let last = keys[keys.len() - 1];
    for key in &keys[..keys.len() - 1] {
        receive(&mut shard, *key, b"\xA2\x05\x00\x02\x00\x01t");
    }
    receive(&mut shard, publishers[1], &messages(2..=2));
    finish(&mut shard);
    assert_eq!(shard.hear(last), messages(1..=2));
}

#[test]
fn nothing_comes_after_unsuback_though_a_fan_out_had_begun() {
    let (mut shard, keys) = crowded_shard();
    let publisher = shard.connect(b'z', true);
    receive(&mut shard, publisher, PUBLISH_T);
    work(&mut shard);
    let last = keys[keys.len() - 1];
    shard.begin_turn();
    assert_eq!(
        shard.say(last, b"\xA2\x05\x00\x02\x00\x01t"),
        b"\xB0\x02\x00\x02"
    );
    finish(&mut shard);
    assert_eq!(shard.hear(last), b"");
    assert_eq!(shard.hear(keys[0]), DELIVERED_T);
}

#[test]
fn retained_messages_stay_behind_the_live_copies_of_their_fan_out() {
    let (mut shard, keys) = crowded_shard();
    let publisher = shard.connect(b'z', true);
    receive(&mut shard, publisher, b"\x31\x04\x00\x01t1");
    work(&mut shard);
    let last = keys[keys.len() - 1];
    assert!(!shard.core.may_end_drain(), "live copies are on their way");
    receive(&mut shard, last, SUBSCRIBE_T);
    shard.begin_turn();
    shard.core.begin_drain();
    while !shard.core.may_end_drain() {
        work(&mut shard);
    }
    // The subscription made anew waits for what is retained: the copy is held, and sent once.
    let heard = heard_over_turns(&mut shard, last);
    assert_eq!(heard, b"\x90\x03\x00\x07\x01\x30\x04\x00\x01t1");
}

#[test]
fn a_drain_that_waits_is_not_kept_waiting_by_further_fan_outs() {
    let (mut shard, _) = crowded_shard();
    let publishers = [b'y', b'z'].map(|id| shard.connect(id, true));
    receive(&mut shard, publishers[0], &messages(1..=1));
    assert!(!shard.core.may_end_drain());
    receive(&mut shard, publishers[1], &messages(2..=2));
    let mut turns = 0;
    while !shard.core.may_end_drain() {
        work(&mut shard);
        turns += 1;
        assert!(turns < 20, "the second begins only after the drain");
    }
    assert!(shard.core.fans_out());
    finish(&mut shard);
}

#[test]
fn new_access_rules_hold_for_what_is_left_of_a_fan_out() {
    let (mut shard, keys) = crowded_shard();
    let publisher = shard.connect(b'z', true);
    receive(&mut shard, publisher, PUBLISH_T);
    work(&mut shard);
    let heard = heard_by(&mut shard, &keys);
    let before = heard.iter().filter(|heard| !heard.is_empty()).count();
    let rules = Acl::parse("topic deny #").unwrap();
    shard.core.set_acl(Some(Arc::new(rules)));
    finish(&mut shard);
    assert!(before < keys.len());
    for heard in heard_by(&mut shard, &keys) {
        assert_eq!(heard, b"");
    }
}

#[test]
fn a_session_with_several_filters_gets_one_copy_of_a_large_fan_out() {
    let (mut shard, keys) = crowded_shard();
    for key in &keys[..6] {
        subscribe(&mut shard, *key, b"\x82\x06\x00\x01\x00\x01+\x02");
    }
    let publisher = shard.connect(b'z', true);
    receive(&mut shard, publisher, &messages(1..=2));
    finish(&mut shard);
    for heard in heard_by(&mut shard, &keys) {
        assert_eq!(heard, messages(1..=2));
    }
}

#[test]
fn a_repeat_of_a_publish_that_waits_is_answered_with_it_and_delivered_once() {
    let (mut shard, keys) = crowded_shard();
    let never = b"\x05\x11\xFF\xFF\xFF\xFF";
    shard.begin_turn();
    let publisher = shard.connect_with(never, b"\x00\x01z");
    shard.hear(publisher);
    let publish = |dup: u8| [0x34 | dup, 7, 0, 1, b't', 0, 9, 0, b'1'];
    shard.receive(publisher, &publish(0));
    work(&mut shard);
    shard.begin_turn();
    let again = shard.connect_with(never, b"\x00\x01z");
    shard.hear(again);
    shard.receive(again, &publish(8));
    assert_eq!(shard.hear(again), b"", "its deliveries are not through");
    finish(&mut shard);
    assert_eq!(shard.hear(again), b"\x50\x02\x00\x09");
    for heard in heard_by(&mut shard, &keys) {
        assert_eq!(heard.len(), 8, "{heard:02x?}");
    }
}

#[test]
fn a_will_to_very_many_and_the_last_turn_are_complete() {
    let (mut shard, keys) = crowded_shard();
    let will = b"\x10\x13\x00\x04MQTT\x04\x06\x00\x00\x00\x01w\x00\x01t\x00\x01x";
    let key = shard.core.accept(shard.now, 0).unwrap();
    shard.begin_turn();
    shard.say(key, will);
    let publisher = shard.connect(b'z', true);
    receive(&mut shard, publisher, &messages(1..=1));
    shard.core.receive_ended(shard.now, key);
    assert!(shard.core.fans_out());
    shard.core.work_without_bound(shard.now);
    assert!(!shard.core.fans_out());
    shard.receive(publisher, &messages(2..=2));
    for heard in heard_by(&mut shard, &keys) {
        let [will, own] = [messages(b'x'..=b'x'), messages(1..=1)];
        assert_eq!(heard[..12], [own, will].concat());
    }
}

#[test]
fn a_share_group_of_very_many_on_one_filter_is_worked_off_too() {
    let (mut shard, _) = crowded_shard();
    let member = shard.connect(b'm', true);
    for name in b'a'..=b'p' {
        let join = [b"\x82\x0F\x00\x01\x00\x0A$share/", &[name][..], b"/u\x00"].concat();
        subscribe(&mut shard, member, &join);
    }
    let publisher = shard.connect(b'z', true);
    receive(&mut shard, publisher, b"\x30\x04\x00\x01u1");
    assert!(shard.core.fans_out());
    assert!(finish(&mut shard) > 2);
    assert_eq!(shard.hear(member), b"\x30\x04\x00\x01u1".repeat(16));
}

/// SUBSCRIBE or UNSUBSCRIBE of share groups on `u` with such numbers.
fn groups(first: u8, numbers: std::ops::Range<u32>, options: &[u8]) -> Vec<u8> {
    let filters = numbers.flat_map(|n| {
        let filter = format!("$share/{n:03}/u").into_bytes();
        [&[0, filter.len() as u8], &filter[..], options].concat()
    });
    let body: Vec<u8> = [0, 1].into_iter().chain(filters).collect();
    let length = [body.len() as u8 | 0x80, (body.len() >> 7) as u8];
    [&[first], &length[..], &body].concat()
}

#[test]
fn very_many_share_groups_are_picked_for_over_turns_before_anyone_learns_of_the_publish() {
    const MANY: u32 = 500;
    let (mut shard, _) = crowded_shard();
    let member = shard.connect(b'm', true);
    receive(&mut shard, member, &groups(0x82, 0..MANY, &[0]));
    finish(&mut shard);
    shard.hear(member);
    let publisher = shard.connect(b'z', true);
    receive(&mut shard, publisher, b"\x33\x06\x00\x01u\x00\x071");
    work(&mut shard);
    assert_eq!(counter(&shard, "retained_messages"), 0, "it has not begun");
    assert_eq!(shard.hear(member), b"");
    // Some that were picked for leave, and some that were not.
    let left = [groups(0xA2, 0..10, &[]), groups(0xA2, 480..490, &[])].concat();
    receive(&mut shard, member, &left);
    assert!(finish(&mut shard) > 20);
    assert_eq!(counter(&shard, "retained_messages"), 1);
    let heard = shard.hear(member);
    let copies = heard.windows(6).filter(|six| *six == b"\x30\x04\x00\x01u1");
    assert_eq!(copies.count(), MANY as usize - 20, "one for each");
    assert_eq!(shard.hear(publisher), b"\x40\x02\x00\x07");
}

#[test]
fn very_many_share_groups_elsewhere_get_one_letter_before_the_retained_message() {
    const MANY: u32 = 200;
    let mut pair = Pair::with(|settings| settings.limits.turn_deliveries_max = 8);
    let member = pair.connect(1);
    pair.turn(1);
    pair.receive(1, member, &groups(0x82, 0..MANY, &[0]));
    while pair.cores[1].has_work() {
        pair.work_off(1);
        pair.settle();
    }
    pair.hear(1, member);
    let publisher = pair.connect(0);
    pair.turn(0);
    pair.receive(0, publisher, b"\x31\x04\x00\x01u1");
    while pair.cores[0].fans_out() {
        pair.work_off(0);
    }
    let mut mail = Vec::new();
    pair.cores[0].staged().flush(|_, letter| {
        mail.push(letter);
        Ok(())
    });
    let Some(Mail::Publish(letter)) = mail.first() else {
        panic!("{mail:?}");
    };
    assert_eq!((letter.groups.len(), letter.plain), (MANY as usize, false));
    assert!(mail.len() <= 2, "{mail:?}");
    for letter in mail {
        pair.cores[1].mail(NOW, 0, letter);
    }
    while pair.cores[1].fans_out() {
        pair.work_off(1);
    }
    assert_eq!(
        pair.hear(1, member),
        b"\x30\x04\x00\x01u1".repeat(MANY as usize)
    );
}

#[test]
fn letters_of_a_shard_wait_behind_its_fan_out_and_those_of_others_do_not() {
    let mut pair = Pair::with(|settings| settings.limits.turn_deliveries_max = 8);
    let readers = [pair.connect(1), pair.connect(1), pair.connect(1)];
    for reader in readers {
        pair.turn(1);
        pair.receive(1, reader, b"\x82\x06\x00\x01\x00\x01t\x00");
    }
    pair.settle();
    for reader in readers {
        pair.hear(1, reader);
    }
    let publisher = pair.connect(0);
    pair.turn(0);
    pair.receive(0, publisher, &messages(1..=1));
    pair.flush(0);
    pair.turn(1);
    pair.drain(1);
    assert!(pair.cores[1].holds_mail_of(0) && !pair.cores[1].holds_mail_of(1));
    assert!(pair.cores[1].has_work());
    while pair.cores[1].fans_out() {
        pair.work_off(1);
    }
    assert!(!pair.cores[1].holds_mail_of(0));
    assert_eq!(
        readers.map(|reader| pair.hear(1, reader)),
        [(); 3].map(|()| messages(1..=1))
    );
}
