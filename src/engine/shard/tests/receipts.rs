//! What waits until other shards have stored it, letter by letter.

use super::pair::{CLEAN, LASTS, NOW, Pair, SUBSCRIBE_TO_T};
use super::*;
use crate::engine::keys::{GroupKey, ShardId};
use crate::engine::mail::{Asked, InterestChange, Kept, Mail, Passed, Publish};
use crate::engine::message::{Message, Qos};
use crate::engine::receipt::Level;
use crate::engine::record::Record;
use crate::engine::route::home_shard;
use crate::engine::route::shared::MemberCount;

const PUBLISH_1: &[u8] = b"\x32\x06\x00\x01t\x00\x05h";
const PUBACK: &[u8] = b"\x40\x02\x00\x05";
const PUBLISH_2: &[u8] = b"\x34\x06\x00\x01t\x00\x05h";
const PUBREC: &[u8] = b"\x50\x02\x00\x05";

/// Two shards that store, a subscriber on the first and a publisher on the second.
fn pair(subscribes: &[u8], flags: u8) -> (Pair, ConnectionKey, ConnectionKey) {
    let mut pair = Pair::with(|settings| settings.stores = true);
    let subscriber = pair.connect_as(0, flags);
    let publisher = pair.connect_as(1, LASTS);
    pair.receive(0, subscriber, subscribes);
    pair.settle_all();
    (pair, subscriber, publisher)
}

#[test]
fn a_publish_is_acknowledged_when_the_shard_of_its_subscriber_has_stored_it() {
    let (mut pair, subscriber, publisher) = pair(SUBSCRIBE_TO_T, LASTS);
    assert_eq!(pair.hear(0, subscriber), b"\x90\x03\x00\x07\x02");
    pair.receive(1, publisher, PUBLISH_1);
    pair.store(1);
    pair.settle();
    assert_eq!(pair.hear(1, publisher), b"", "it is not stored there");
    pair.store(0);
    assert_eq!(pair.hear(1, publisher), b"", "nobody has told");
    pair.settle();
    assert_eq!(pair.hear(1, publisher), PUBACK);
    assert_eq!(pair.hear(0, subscriber), b"\x32\x06\x00\x01t\x00\x01h");
}

/// The same by a listener of another level.
fn pair_at(level: Level) -> (Pair, ConnectionKey) {
    let mut pair = Pair::with(|settings| {
        settings.stores = true;
        settings.listeners[0].durability = level;
    });
    let subscriber = pair.connect_as(0, LASTS);
    let publisher = pair.connect_as(1, LASTS);
    pair.receive(0, subscriber, SUBSCRIBE_TO_T);
    pair.settle_all();
    (pair, publisher)
}

#[test]
fn at_level_os_it_is_enough_that_both_shards_have_written_it() {
    for (publish, answer) in [(PUBLISH_1, Some(PUBACK)), (PUBLISH_2, None)] {
        let (mut pair, publisher) = pair_at(Level::Os);
        pair.receive(1, publisher, publish);
        pair.write(1);
        pair.settle();
        assert_eq!(pair.hear(1, publisher), b"", "it is not written there");
        pair.write(0);
        pair.settle();
        // At QoS 2 what other shards keep has to be stored before it is accepted.
        assert_eq!(pair.hear(1, publisher), answer.unwrap_or_default());
        pair.settle_all();
        let late = if answer.is_some() { b"" } else { PUBREC };
        assert_eq!(pair.hear(1, publisher), late);
    }
}

#[test]
fn at_level_memory_an_answer_to_a_publish_waits_for_nobody() {
    for (publish, answer) in [(PUBLISH_1, PUBACK), (PUBLISH_2, PUBREC)] {
        let (mut pair, publisher) = pair_at(Level::Memory);
        pair.receive(1, publisher, publish);
        assert_eq!(pair.hear(1, publisher), answer);
    }
}

/// The identifier would be used again, and a crash take the next publish for a repeat.
#[test]
fn at_level_memory_pubcomp_waits_until_the_release_is_stored() {
    let (mut pair, publisher) = pair_at(Level::Memory);
    pair.receive(1, publisher, PUBLISH_2);
    pair.settle_all();
    assert_eq!(pair.hear(1, publisher), PUBREC);
    pair.receive(1, publisher, b"\x62\x02\x00\x05");
    assert_eq!(pair.hear(1, publisher), b"");
    pair.settle_all();
    assert_eq!(pair.hear(1, publisher), b"\x70\x02\x00\x05");
}

#[test]
fn acknowledgements_leave_in_order_and_one_letter_tells_of_many() {
    let (mut pair, _, publisher) = pair(SUBSCRIBE_TO_T, LASTS);
    for id in 1..=9 {
        // The even ones are for nobody.
        let topic = if id % 2 == 1 { b't' } else { b'x' };
        pair.receive(1, publisher, &[0x32, 6, 0, 1, topic, 0, id, b'h']);
    }
    pair.settle();
    assert_eq!(pair.hear(1, publisher), b"");
    pair.store(0);
    let letters = pair.take_mail(0);
    assert!(matches!(&letters[..], [Mail::Kept(kept)] if kept.without.is_empty()));
    pair.put(1, letters);
    pair.drain(1);
    let all: Vec<u8> = (1..=9).flat_map(|id| [0x40, 2, 0, id]).collect();
    assert_eq!(pair.hear(1, publisher), all);
}

#[test]
fn nobody_is_asked_where_no_session_outlives_its_connection() {
    let (mut pair, subscriber, publisher) = pair(SUBSCRIBE_TO_T, CLEAN);
    pair.hear(0, subscriber);
    pair.receive(1, publisher, PUBLISH_1);
    assert_eq!(pair.hear(1, publisher), PUBACK);
    // Nor of QoS 0, nor once the last of them has gone.
    let lasting = pair.connect_as(0, LASTS);
    pair.receive(0, lasting, SUBSCRIBE_TO_T);
    pair.settle_all();
    pair.receive(1, publisher, PUBLISH_1);
    assert_eq!(pair.hear(1, publisher), b"");
    pair.settle_all();
    assert_eq!(pair.hear(1, publisher), PUBACK);
    pair.receive(0, lasting, b"\xA2\x05\x00\x08\x00\x01t");
    pair.settle_all();
    pair.receive(1, publisher, PUBLISH_1);
    assert_eq!(pair.hear(1, publisher), PUBACK);
    pair.settle_all();
    pair.receive(0, subscriber, b"\xA2\x05\x00\x08\x00\x01t");
    pair.settle_all();
    for core in &pair.cores {
        assert!(core.lasting.is_empty() && core.trie.is_empty());
    }
}

#[test]
fn a_retained_message_is_stored_where_its_topic_lives() {
    let topic = (b'a'..=b'z').find(|topic| home_shard(&char::from(*topic).to_string(), 2) == 0);
    let topic = topic.expect("a topic of that shard");
    let mut pair = Pair::with(|settings| settings.stores = true);
    let publisher = pair.connect_as(1, LASTS);
    pair.settle_all();
    pair.receive(1, publisher, &[0x33, 6, 0, 1, topic, 0, 5, b'h']);
    pair.settle();
    pair.store(1);
    pair.settle();
    assert_eq!(pair.hear(1, publisher), b"");
    pair.store(0);
    pair.settle();
    assert_eq!(pair.hear(1, publisher), PUBACK);
}

fn tells_accepted(pair: &mut Pair) -> bool {
    let told = pair.store(1);
    let is_accepted = |record: &Record| matches!(record, Record::Accepted { packet_id: 5, .. });
    told.iter().any(is_accepted)
}

#[test]
fn a_qos_2_publish_is_accepted_when_the_others_have_stored_it() {
    let (mut pair, _, publisher) = pair(SUBSCRIBE_TO_T, LASTS);
    pair.receive(1, publisher, PUBLISH_2);
    pair.settle();
    assert!(!tells_accepted(&mut pair), "a repeat has to be routed");
    // On another connection it is known, and waits for the same.
    pair.cores[1].receive_ended(NOW, publisher);
    let again = pair.connect_again(1);
    pair.store(1);
    pair.receive(1, again, &[&[0x3C], &PUBLISH_2[1..]].concat());
    pair.store(1);
    assert_eq!(pair.hear(1, again), b"\x20\x02\x01\x00");
    pair.store(0);
    pair.settle();
    assert_eq!(
        pair.hear(1, again),
        b"",
        "it is not stored that it is accepted"
    );
    assert!(tells_accepted(&mut pair));
    assert_eq!(pair.hear(1, again), PUBREC);
    assert!(!tells_accepted(&mut pair), "once");
}

/// One of twelve shards with a member of a group that is away, and knows of one elsewhere that is there.
fn grouped(member_flags: u8) -> Shard {
    let settings = Settings {
        stores: true,
        ..Settings::default()
    };
    let counts = Arc::new(ConnectionCounts::new(1));
    let core = ShardCore::new(0, 12, settings, 1, counts);
    let mut shard = Shard { core, now: NOW };
    let mut ids = b'A'..=b'z';
    let is_home = |name: &u8| home_shard(&char::from(*name).to_string(), 12) == 0;
    let name = ids.find(is_home).expect("an identifier of that shard");
    let member = shard.connect(name, member_flags == CLEAN);
    shard.say(member, b"\x82\x0F\x00\x07\x00\x0A$share/g/t\x01");
    shard.say(member, b"\xE0\x00");
    let count = MemberCount {
        members: 1,
        online: 1,
    };
    let change = InterestChange::Group(group(), count);
    let sequence = 1;
    shard.core.mail(NOW, 1, Mail::Interest { sequence, change });
    for _ in 0..10 {
        shard.begin_turn_sent();
        shard.core.work_off(NOW);
        shard.take_commands();
        let ticket = shard
            .core
            .take_persist()
            .map(|persist| persist.ticket)
            .max();
        shard.core.stored(NOW, ticket.unwrap_or_default());
        letters(&mut shard);
    }
    shard
}

fn group() -> GroupKey {
    GroupKey {
        filter: "t".into(),
        name: "g".into(),
    }
}

fn letters(shard: &mut Shard) -> Vec<(ShardId, Mail)> {
    let mut letters = Vec::new();
    shard.core.stage_kept();
    shard.core.staged().flush(|to, mail| {
        letters.push((to, mail));
        Ok(())
    });
    letters
}

fn letter(asked: Asked) -> Mail {
    let message = Message::new("t", b"", b"x", Qos::AtLeastOnce, false, None);
    Mail::Publish(Publish {
        message: Arc::new(message),
        plain: false,
        groups: vec![group()],
        hash: 0,
        passed: Passed::default(),
        asked,
    })
}

fn kept(through: u64, without: &[u64], single: &[u64]) -> Mail {
    Mail::Kept(Box::new(Kept {
        through,
        without: without.to_vec(),
        written: 0,
        single: single.to_vec(),
        complete: Vec::new(),
    }))
}

fn told(shard: &mut Shard, to: ShardId) -> Vec<String> {
    let letters = letters(shard).into_iter();
    let told = letters.filter(|(shard, mail)| *shard == to && matches!(mail, Mail::Kept(_)));
    told.map(|(_, mail)| format!("{mail:?}")).collect()
}

#[test]
fn what_is_passed_on_is_confirmed_when_the_next_has_stored_it() {
    let mut shard = grouped(LASTS);
    for (asked, other) in [
        (Asked::in_order(5), Asked::in_order(6)),
        (Asked::by_itself(7), Asked::by_itself(8)),
    ] {
        shard.core.begin_turn();
        shard.core.mail(NOW, 11, letter(asked));
        let on = letters(&mut shard);
        let [(1, Mail::Publish(first)), rest @ ..] = &on[..] else {
            panic!("it goes on: {on:?}");
        };
        assert!(first.asked.is_by_itself());
        // Nothing of it is kept here, so that is told at once; it is to be confirmed by itself.
        let receipt = asked.receipt();
        let expected = match asked.is_by_itself() {
            true => vec![],
            false => vec![format!("{:?}", (11, kept(receipt, &[receipt], &[])))],
        };
        let rest: Vec<_> = rest.iter().map(|letter| format!("{letter:?}")).collect();
        assert_eq!(rest, expected);
        // One behind it does not wait for it.
        let mut passed = Passed::default();
        passed.tried.insert(1);
        let Mail::Publish(mut publish) = letter(other) else {
            return;
        };
        publish.passed = passed;
        shard.core.mail(NOW, 11, Mail::Publish(publish));
        assert_eq!(
            told(&mut shard, 11),
            Vec::<String>::new(),
            "it is not stored"
        );
        let ticket = shard
            .core
            .take_persist()
            .map(|persist| persist.ticket)
            .max();
        shard.core.stored(NOW, ticket.expect("a record"));
        let expected = match asked.is_by_itself() {
            true => kept(0, &[], &[8]),
            false => kept(6, &[], &[]),
        };
        assert_eq!(told(&mut shard, 11), [format!("{expected:?}")]);
        let next = first.asked.receipt();
        shard.core.mail(NOW, 1, kept(0, &[], &[next]));
        let expected = kept(0, &[], &[receipt]);
        assert_eq!(told(&mut shard, 11), [format!("{expected:?}")]);
    }
}

#[test]
fn what_waited_with_a_member_is_over_there_when_the_next_has_stored_it() {
    let mut shard = grouped(LASTS);
    let is_settled = |shard: &mut Shard| {
        let records: Vec<_> = shard.core.take_persist().collect();
        let settled = |record: &Record| matches!(record, Record::Settled { .. });
        records.iter().any(|persist| settled(&persist.record))
    };
    // The others have left, so that it stays here; then one is there.
    let count = |shard: &mut Shard, sequence, online| {
        let members = 1;
        let change = InterestChange::Group(group(), MemberCount { members, online });
        let mail = Mail::Interest { sequence, change };
        shard.core.mail(NOW, 1, mail);
    };
    count(&mut shard, 2, 0);
    shard.core.begin_turn();
    shard.core.mail(NOW, 11, letter(Asked::default()));
    assert_eq!(counter(&shard, "queued_messages"), 1);
    count(&mut shard, 3, 1);
    shard.core.take_persist();
    let mut on = Vec::new();
    for _ in 0..10 {
        shard.begin_turn_sent();
        shard.core.work_off(NOW);
        on.append(&mut letters(&mut shard));
    }
    let [(1, Mail::Publish(letter))] = &on[..] else {
        panic!("it goes on: {on:?}");
    };
    assert!(!is_settled(&mut shard));
    let mut queued = 0;
    let is_queued = |record: &Record| matches!(record, Record::Queued { .. });
    shard
        .core
        .snapshot(|record| queued += u32::from(is_queued(&record)));
    assert_eq!(queued, 1, "a crash must not lose it");
    let next = letter.asked.receipt();
    shard.core.mail(NOW, 1, kept(0, &[], &[next]));
    assert!(is_settled(&mut shard));
}

#[test]
fn who_has_no_room_for_a_confirmation_gets_it_with_the_next() {
    let (mut pair, _, publisher) = pair(SUBSCRIBE_TO_T, LASTS);
    for id in 1..=2 {
        pair.receive(1, publisher, &[0x32, 6, 0, 1, b't', 0, id, b'h']);
        pair.flush(1);
        pair.drain(0);
        pair.store(0);
        // Its mailbox is full.
        pair.cores[0].stage_kept();
        pair.cores[0].staged().flush(|_, mail| Err(mail));
        let blocked = pair.cores[0].staged().blocked();
        assert!(!pair.cores[0].receipts.can_tell(blocked), "room wakes it");
        assert_eq!(pair.cores[0].staged().len(), 1);
    }
    let first = pair.take_mail(0);
    let second = pair.take_mail(0);
    assert_eq!((first.len(), second.len()), (1, 1));
    pair.put(1, first);
    pair.put(1, second);
    pair.drain(1);
    assert_eq!(pair.hear(1, publisher), b"\x40\x02\x00\x01\x40\x02\x00\x02");
}
