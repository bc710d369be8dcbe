//! Messages of share groups that go to another member than the one they waited for.

use super::{Shard, counter};
use crate::engine::keys::{ConnectionKey, GroupKey, ShardId};
use crate::engine::limits::SHARED_HOPS_MAX;
use crate::engine::mail::{Asked, InterestChange, Mail, Passed, Publish};
use crate::engine::message::{Message, Qos};
use crate::engine::route::shared::MemberCount;
use crate::engine::route::{ShardSet, home_shard};
use crate::engine::shard::{ConnectionCounts, Settings, ShardCore};
use crate::engine::time::Timestamp;
use std::sync::Arc;

const FILTER: &[u8] = b"$share/g/t";
/// CONNECT properties of a session that never ends.
const LASTING: &[u8] = &[5, 0x11, 0xFF, 0xFF, 0xFF, 0xFF];
/// The same of a client that takes no packet of more than 60 bytes.
const SMALL: &[u8] = &[10, 0x11, 0xFF, 0xFF, 0xFF, 0xFF, 0x27, 0, 0, 0, 60];

/// Runs turns until the shard rests; how many it took.
fn rest(shard: &mut Shard) -> usize {
    let mut turns = 0;
    while shard.core.has_work() {
        shard.begin_turn_sent();
        shard.core.work_off(shard.now);
        shard.take_commands();
        shard.core.take_persist();
        turns += 1;
        assert!(turns < 10_000, "it does not come to an end");
    }
    turns
}

fn member(shard: &mut Shard, properties: &[u8], id: u8) -> ConnectionKey {
    let key = shard.connect_with(properties, &[0, 1, id]);
    let head = [0x82, FILTER.len() as u8 + 6, 0, 1, 0, 0, FILTER.len() as u8];
    shard.receive(key, &[&head[..], FILTER, &[1]].concat());
    rest(shard);
    key
}

/// Publishes so many messages of this size.
fn publish(shard: &mut Shard, count: usize, bytes: u8) {
    let publisher = shard.connect(b'p', true);
    for _ in 0..count {
        let head = [0x32, bytes + 5, 0, 1, b't', 0, 1];
        let packet = [&head[..], &vec![b'x'; usize::from(bytes)]].concat();
        shard.receive(publisher, &packet);
        rest(shard);
    }
}

#[test]
fn what_waits_with_others_comes_over_turns() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 256);
    for id in *b"abc" {
        let key = member(&mut shard, LASTING, id);
        shard.receive(key, b"\xE0\x00");
    }
    publish(&mut shard, 600, 10);
    assert_eq!(counter(&shard, "queued_messages"), 600);
    shard.connect_with(LASTING, b"\x00\x01b");
    assert!(counter(&shard, "queued_messages") > 300, "its own only");
    let turns = rest(&mut shard);
    assert!(turns > 10, "{turns} turns");
    assert_eq!(counter(&shard, "queued_messages"), 0);
    assert_eq!(counter(&shard, "inflight_messages"), 600);
}

#[test]
fn what_nobody_there_takes_goes_on_waiting() {
    let mut shard = Shard::new(|_| {});
    let away = member(&mut shard, LASTING, b'a');
    shard.receive(away, b"\xE0\x00");
    publish(&mut shard, 600, 100);
    publish(&mut shard, 1, 10);
    let small = member(&mut shard, SMALL, b's');
    assert_eq!(counter(&shard, "queued_messages"), 600);
    assert_eq!(counter(&shard, "inflight_messages"), 1, "what it takes");
    shard.receive(small, b"\xE0\x00");
    shard.connect_with(LASTING, b"\x00\x01a");
    rest(&mut shard);
    assert_eq!(counter(&shard, "inflight_messages"), 601);
    assert_eq!(counter(&shard, "messages_sent"), 601);
    assert_eq!(counter(&shard, "dropped_packet_too_large"), 0);
}

#[test]
fn what_was_left_goes_to_a_member_that_takes_it_beside_one_that_does_not() {
    let mut shard = Shard::new(|_| {});
    let away = member(&mut shard, LASTING, b'a');
    shard.receive(away, b"\xE0\x00");
    member(&mut shard, SMALL, b's');
    publish(&mut shard, 10, 100);
    assert_eq!(counter(&shard, "queued_messages"), 10);
    member(&mut shard, SMALL, b't');
    assert_eq!(counter(&shard, "queued_messages"), 10);
    member(&mut shard, LASTING, b'b');
    assert_eq!(counter(&shard, "queued_messages"), 0);
    assert_eq!(counter(&shard, "inflight_messages"), 10);
}

#[test]
fn what_a_resumed_client_does_not_take_any_more_goes_to_another_unless_it_is_of_qos_2() {
    for (qos, lost) in [(1, 0), (2, 1)] {
        let mut shard = Shard::new(|_| {});
        let client = shard.connect_with(LASTING, b"\x00\x01a");
        let head = [0x82, FILTER.len() as u8 + 6, 0, 1, 0, 0, FILTER.len() as u8];
        shard.receive(client, &[&head[..], FILTER, &[qos]].concat());
        let publisher = shard.connect(b'p', true);
        let head = [0x30 | qos << 1, 105, 0, 1, b't', 0, 1];
        shard.receive(publisher, &[&head[..], &[b'x'; 100]].concat());
        shard.hear(client);
        assert_eq!(counter(&shard, "inflight_messages"), 1);
        member(&mut shard, LASTING, b'b');
        shard.connect_with(SMALL, b"\x00\x01a");
        rest(&mut shard);
        assert_eq!(counter(&shard, "dropped_packet_too_large"), lost);
        // The other's, or what waits for PUBCOMP.
        assert_eq!(counter(&shard, "inflight_messages"), 1);
        assert_eq!(counter(&shard, "messages_sent"), 2 - lost);
    }
}

/// It may have it: another message with its identifier would be taken for that.
#[test]
fn the_identifier_of_what_a_resumed_client_does_not_take_any_more_is_free_when_it_says_so() {
    for had_it in [true, false] {
        let mut shard = Shard::new(|settings| settings.stores = true);
        let client = shard.connect_with(LASTING, b"\x00\x01a");
        shard.hear(client);
        shard.receive(client, b"\x82\x07\x00\x01\x00\x00\x01t\x02");
        shard.hear(client);
        let publisher = shard.connect(b'p', true);
        let head = [0x34, 105, 0, 1, b't', 0, 1];
        shard.receive(publisher, &[&head[..], &[b'x'; 100]].concat());
        shard.hear(publisher);
        let first = shard.hear(client);
        assert!(first.windows(2).any(|it| it == [b't', 0]), "{first:?}");
        let client = shard.connect_with(SMALL, b"\x00\x01a");
        shard.hear(client);
        shard.core.begin_turn();
        shard.core.work_off(shard.now);
        let heard = shard.hear(client);
        assert!(heard.ends_with(&[0x62, 2, 0, 1]), "{heard:?}");
        assert_eq!(counter(&shard, "dropped_packet_too_large"), 1);
        assert_eq!(counter(&shard, "inflight_messages"), 1);
        let pubcomp: &[u8] = if had_it {
            &[0x70, 2, 0, 1]
        } else {
            &[0x70, 3, 0, 1, 0x92]
        };
        shard.receive(client, pubcomp);
        assert_eq!(counter(&shard, "inflight_messages"), 0);
    }
}

/// One of twelve shards with a member of the group there; the shards of the others know of it.
fn one_of_twelve(id: ShardId, properties: &[u8]) -> (Shard, ConnectionKey) {
    let counts = Arc::new(ConnectionCounts::new(1));
    let core = ShardCore::new(id, 12, Settings::default(), 1, counts);
    let now = Timestamp::from_ms(1_000);
    let mut shard = Shard { core, now };
    let mut ids = b'A'..=b'z';
    let is_home = |name: &u8| home_shard(&char::from(*name).to_string(), 12) == id;
    let name = ids.find(is_home).expect("an identifier of that shard");
    let key = member(&mut shard, properties, name);
    shard.core.staged().flush(|_, _| Ok(()));
    (shard, key)
}

fn group() -> GroupKey {
    GroupKey {
        filter: "t".into(),
        name: "g".into(),
    }
}

/// Another shard has so many members, and so many of them are connected.
fn hear_of(shard: &mut Shard, from: ShardId, members: u32, online: u32) {
    let count = MemberCount { members, online };
    let change = InterestChange::Group(group(), count);
    let sequence = 1;
    shard
        .core
        .mail(shard.now, from, Mail::Interest { sequence, change });
}

fn letter(passed: Passed) -> Publish {
    let message = Message::new("t", b"", &[b'x'; 100], Qos::AtLeastOnce, false, None);
    Publish {
        message: Arc::new(message),
        plain: false,
        groups: vec![group()],
        hash: 0,
        asked: Asked::default(),
        passed,
    }
}

/// A shard gets a letter for the group; where the message goes on to, if it does.
fn passes_on(shard: &mut Shard, letter: Publish) -> Option<(ShardId, Publish)> {
    shard.core.begin_turn();
    shard.core.mail(shard.now, 11, Mail::Publish(letter));
    let mut next = None;
    shard.core.staged().flush(|to, mail| {
        if let Mail::Publish(letter) = mail {
            next = Some((to, letter));
        }
        Ok(())
    });
    next
}

fn set(shards: impl IntoIterator<Item = ShardId>) -> ShardSet {
    let mut set = ShardSet::default();
    shards.into_iter().for_each(|shard| set.insert(shard));
    set
}

/// The message comes to a shard whose member is away, and which knows of one that is there elsewhere; that
/// one does not take it, or has gone.
#[test]
fn what_nobody_there_takes_comes_back_to_whom_can_keep_it() {
    let (mut first, away) = one_of_twelve(0, LASTING);
    first.receive(away, b"\xE0\x00");
    hear_of(&mut first, 1, 1, 1);
    let (to, letter) = passes_on(&mut first, letter(Passed::default())).expect("it goes on");
    assert_eq!((to, letter.passed.tried), (1, set([0])));
    let (mut second, _) = one_of_twelve(1, SMALL);
    hear_of(&mut second, 0, 1, 0);
    let (to, letter) = passes_on(&mut second, letter).expect("it comes back");
    assert_eq!((to, letter.passed.tried), (0, set([0, 1])));
    assert_eq!(counter(&second, "dropped_packet_too_large"), 0);
    assert!(passes_on(&mut first, letter).is_none());
    assert_eq!(counter(&first, "queued_messages"), 1);
}

/// The member that was to keep it is back, and does not take it either: others may have left meanwhile.
#[test]
fn where_it_cannot_be_kept_any_more_it_is_asked_anew_but_not_for_ever() {
    let (mut shard, _) = one_of_twelve(0, SMALL);
    hear_of(&mut shard, 1, 1, 1);
    let mut passed = Passed {
        tried: set([0, 1]),
        keepers: set([0]),
        hops: 0,
    };
    let (to, next) = passes_on(&mut shard, letter(passed)).expect("it goes on");
    assert_eq!((to, next.passed.hops, next.passed.tried), (1, 1, set([0])));
    passed.hops = SHARED_HOPS_MAX;
    assert!(passes_on(&mut shard, letter(passed)).is_none());
    assert_eq!(counter(&shard, "dropped_packet_too_large"), 1);
}

#[test]
fn every_shard_is_tried_once_before_a_message_is_lost() {
    let (mut shard, _) = one_of_twelve(0, SMALL);
    for other in 1..12 {
        hear_of(&mut shard, other, 1, 1);
    }
    let passed = Passed {
        hops: SHARED_HOPS_MAX,
        tried: set(1..11),
        keepers: ShardSet::default(),
    };
    let (to, next) = passes_on(&mut shard, letter(passed)).expect("it goes on");
    assert_eq!((to, next.passed.tried), (11, set(0..11)));
}
