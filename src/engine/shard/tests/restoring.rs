//! A shard built anew from its snapshot.

use super::*;
use crate::engine::record::Record;
use crate::engine::shard::RestoreError;

const SUBSCRIBE_TWICE: &[u8] = b"\x82\x0A\x00\x07\x00\x01t\x01\x00\x01u\x02";

fn snapshot(core: &ShardCore) -> Vec<Record> {
    let mut records = Vec::new();
    core.snapshot(|record| records.push(record));
    records
}

/// As text, but which publishes were complete in an earlier life: their entries count.
fn told(records: &[Record]) -> Vec<String> {
    let of_now = records
        .iter()
        .filter(|it| !matches!(it, Record::Complete { .. }));
    of_now.map(|it| format!("{it:?}")).collect()
}

/// A shard from what another is, `seconds` later, and the records that this makes.
fn restored(from: &Shard, seconds: u32) -> (Shard, Vec<Record>) {
    let mut shard = Shard::new(|_| {});
    shard.now = from.now.plus_seconds(seconds);
    shard.core.restore(shard.now, snapshot(&from.core)).unwrap();
    let records = shard.core.take_persist().map(|it| it.record).collect();
    (shard, records)
}

/// Nothing is connected any more.
fn leave(shard: &mut Shard, key: ConnectionKey) {
    shard.core.receive_ended(shard.now, key);
    shard.core.take_persist();
}

fn publish(shard: &mut Shard, packets: &[&[u8]]) {
    let publisher = shard.connect(b'p', true);
    for packet in packets {
        shard.say(publisher, packet);
    }
    leave(shard, publisher);
}

/// A client with messages in every state: the second of the window has been received.
fn full() -> Shard {
    let mut shard = Shard::new(|settings| settings.limits.inflight_max = 3);
    let client = shard.connect(b'a', false);
    shard.say(client, SUBSCRIBE_TWICE);
    shard.say(client, b"\x82\x0F\x00\x08\x00\x0A$share/g/v\x01");
    let both_kinds: [&[u8]; 6] = [
        b"\x32\x06\x00\x01t\x00\x011",
        b"\x34\x06\x00\x01u\x00\x022",
        b"\x34\x06\x00\x01u\x00\x033",
        b"\x32\x06\x00\x01t\x00\x044",
        b"\x32\x06\x00\x01v\x00\x055",
        b"\x33\x06\x00\x01r\x00\x066",
    ];
    publish(&mut shard, &both_kinds);
    shard.say(client, b"\x50\x02\x00\x02");
    shard.say(client, b"\x34\x06\x00\x01x\x00\x09x");
    leave(&mut shard, client);
    shard
}

#[test]
fn what_was_kept_is_there_again() {
    let before = full();
    let (after, records) = restored(&before, 60);
    assert_eq!(told(&records), [""; 0], "the store knows it all");
    assert_eq!(told(&snapshot(&after.core)), told(&snapshot(&before.core)));
    for name in [
        "sessions",
        "subscriptions",
        "retained_messages",
        "queued_messages",
    ] {
        assert_eq!(counter(&after, name), counter(&before, name), "{name}");
    }
}

#[test]
fn a_resumed_client_gets_what_was_unfinished_with_dup_and_its_identifiers() {
    let (mut shard, _) = restored(&full(), 0);
    let client = shard.core.accept(shard.now, 0).unwrap();
    let heard = shard.say(client, b"\x10\x0D\x00\x04MQTT\x04\x00\x00\x00\x00\x01a");
    let unfinished = [
        &b"\x20\x02\x01\x00"[..],
        b"\x3A\x06\x00\x01t\x00\x011",
        b"\x62\x02\x00\x02",
        b"\x3C\x06\x00\x01u\x00\x033",
        b"\x32\x06\x00\x01t\x00\x044",
        b"\x32\x06\x00\x01v\x00\x055",
    ];
    assert_eq!(heard, unfinished.concat());
    // A repeat is not routed again, and its end is.
    let repeat = b"\x3C\x06\x00\x01u\x00\x09x\x62\x02\x00\x09";
    assert_eq!(
        shard.say(client, repeat),
        b"\x50\x02\x00\x09\x70\x02\x00\x09"
    );
    // Subscriptions and retained messages work, and new messages come behind the old.
    let publisher = shard.connect(b'q', true);
    shard.say(publisher, b"\x32\x06\x00\x01t\x00\x017");
    assert_eq!(shard.hear(client), b"\x32\x06\x00\x01t\x00\x067");
    let answer = shard.say(publisher, b"\x82\x06\x00\x07\x00\x01r\x00");
    assert_eq!(answer, b"\x90\x03\x00\x07\x00\x31\x04\x00\x01r6");
}

#[test]
fn a_retained_message_stays_before_those_that_wait_behind_it() {
    let mut shard = Shard::new(|_| {});
    publish(&mut shard, &[b"\x33\x06\x00\x01t\x00\x01a"]);
    let publisher = shard.connect(b'q', true);
    let client = shard.connect(b'a', false);
    shard.receive(client, SUBSCRIBE_T);
    shard.receive(publisher, b"\x32\x06\x00\x01t\x00\x01b");
    shard.core.receive_ended(shard.now, client);
    for _ in 0..3 {
        shard.hear(client);
    }
    let (mut shard, _) = restored(&shard, 0);
    let client = shard.core.accept(shard.now, 0).unwrap();
    let heard = shard.say(client, b"\x10\x0D\x00\x04MQTT\x04\x00\x00\x00\x00\x01a");
    let in_order = [
        &b"\x20\x02\x01\x00"[..],
        b"\x33\x06\x00\x01t\x00\x01a",
        b"\x32\x06\x00\x01t\x00\x02b",
    ];
    assert_eq!(heard, in_order.concat());
}

#[test]
fn numbers_go_on_above_those_that_are_known() {
    let mut first = Shard::new(|_| {});
    for id in *b"ab" {
        let key = first.connect(id, false);
        first.say(key, SUBSCRIBE_T);
        leave(&mut first, key);
    }
    publish(&mut first, &[b"\x32\x06\x00\x01t\x00\x01x"]);
    let (mut shard, _) = restored(&first, 0);
    let is_new = |records: &[String], new: &str| records.iter().any(|it| it.contains(new));
    let receive = |shard: &mut Shard, id| {
        let key = shard.core.accept(shard.now, 0).unwrap();
        let connect = [&b"\x10\x0D\x00\x04MQTT\x04\x00\x00\x00\x00\x01"[..], &[id]].concat();
        shard.receive(key, &connect);
        let records: Vec<_> = shard.core.take_persist().map(|it| it.record).collect();
        told(&records)
    };
    let number = 3 << u16::BITS;
    let opened = receive(&mut shard, b'c');
    assert!(
        is_new(&opened, &format!("SessionNumber({number})")),
        "{opened:?}"
    );
    let publisher = shard.connect(b'p', true);
    shard.receive(publisher, b"\x32\x06\x00\x01t\x00\x01y");
    let queued: Vec<_> = shard.core.take_persist().map(|it| it.record).collect();
    let queued = told(&queued);
    assert!(
        queued.len() == 2 && queued.iter().all(|it| it.contains("entry: 2")),
        "{queued:?}"
    );
}

/// A 5.0 client with an expiry of 10 s and a will after 4 s, and one that hears of it.
fn with_will() -> (Shard, ConnectionKey) {
    let mut shard = Shard::new(|_| {});
    let other = shard.connect(b'o', false);
    shard.say(other, b"\x82\x06\x00\x07\x00\x01w\x01");
    leave(&mut shard, other);
    let body = [
        &b"\x00\x04MQTT\x05\x0C\x00\x00\x05\x11\x00\x00\x00\x0A\x00\x01a"[..],
        b"\x05\x18\x00\x00\x00\x04\x00\x01w\x00\x01x",
    ]
    .concat();
    let key = shard.core.accept(shard.now, 0).unwrap();
    shard.say(key, &[&[0x10, body.len() as u8], &body[..]].concat());
    (shard, key)
}

#[test]
fn who_was_connected_is_alone_from_now_on() {
    let (before, _) = with_will();
    let (mut shard, records) = restored(&before, 100);
    let records = told(&records);
    let left = format!("at: {:?}", shard.now);
    assert!(
        records.len() == 1 && records[0].contains(&left),
        "{records:?}"
    );
    let begin = shard.now;
    let at = |shard: &mut Shard, ms| {
        shard.now = begin.plus_ms(ms);
        shard.core.begin_turn();
        shard.core.tick(shard.now);
        let records: Vec<_> = shard.core.take_persist().map(|it| it.record).collect();
        told(&records).concat()
    };
    assert_eq!(at(&mut shard, 3_999), "");
    let published = at(&mut shard, 4_000);
    assert!(
        published.starts_with("Queued") && published.contains("WillGone"),
        "{published}"
    );
    assert_eq!(at(&mut shard, 9_999), "");
    assert!(at(&mut shard, 10_000).starts_with("Ended"));
    assert_eq!(counter(&shard, "sessions"), 1);
}

#[test]
fn what_has_expired_meanwhile_ends() {
    let (mut before, key) = with_will();
    before.say(key, b"\x82\x07\x00\x07\x00\x00\x01t\x01");
    leave(&mut before, key);
    let publisher = before.connect_v5(b'p');
    // Kept for two seconds: one in the queue, one retained.
    before.say(
        publisher,
        b"\x32\x0B\x00\x01t\x00\x01\x05\x02\x00\x00\x00\x02",
    );
    before.say(publisher, b"\x31\x0A\x00\x01r\x05\x02\x00\x00\x00\x02x");
    before.core.receive_ended(before.now, publisher);
    let (mut shard, records) = restored(&before, 3);
    let records = told(&records).concat();
    assert!(
        records.starts_with("Settled") && !records.contains("Left"),
        "{records}"
    );
    assert_eq!(counter(&shard, "dropped_expired"), 2);
    assert_eq!(counter(&shard, "retained_messages"), 0);
    // Ten seconds after it left nobody gets its session, whether a turn has come to it or not.
    shard.now = shard.now.plus_seconds(7);
    let body = b"\x00\x04MQTT\x05\x00\x00\x00\x00\x00\x01a";
    let key = shard.core.accept(shard.now, 0).unwrap();
    let heard = shard.say(key, &[&[0x10, body.len() as u8], &body[..]].concat());
    assert_eq!(&heard[..1], b"\x20");
    assert_eq!(heard[2], 0, "{heard:02x?}");
    assert_eq!(counter(&shard, "queued_messages"), 1);
}

#[test]
fn a_clock_that_was_put_back_stood_still() {
    let mut before = full();
    before.now = Timestamp::from_ms(500);
    let (shard, records) = restored(&before, 0);
    let left = format!(
        "{:?}",
        Record::Left {
            session: crate::engine::keys::SessionNumber(
                std::num::NonZeroU64::new(1 << u16::BITS).unwrap()
            ),
            at: Timestamp::from_ms(500),
        }
    );
    assert_eq!(told(&records), [left]);
    assert_eq!(counter(&shard, "sessions"), 1);
}

#[test]
fn what_no_snapshot_tells_is_refused() {
    let all = snapshot(&full().core);
    let restore = |records: Vec<Record>| {
        let mut shard = Shard::new(|_| {});
        shard.core.restore(shard.now, records)
    };
    let of = |name: &str| {
        let found = all.iter().find(|it| format!("{it:?}").starts_with(name));
        found.unwrap().clone()
    };
    let and = |more: Record| all.iter().cloned().chain([more]).collect();
    assert_eq!(restore(all.clone()), Ok(()));
    let twice = Err(RestoreError::Twice);
    for name in ["Opened", "Subscribed", "Received"] {
        assert_eq!(restore(and(of(name))), twice, "{name}");
    }
    let Record::Opened(mut opened) = of("Opened") else {
        panic!("not a session");
    };
    opened.client_id = "other".into();
    assert_eq!(restore(and(Record::Opened(opened))), twice);
    assert_eq!(restore(and(of("Sent"))), Err(RestoreError::NoEntry));
    let sent_again = [of("Queued"), of("Sent")];
    assert_eq!(
        restore(all.iter().cloned().chain(sent_again).collect()),
        twice
    );
    for name in [
        "Subscribed",
        "Queued",
        "Sent",
        "Received",
        "Accepted",
        "Left",
    ] {
        assert_eq!(
            restore(vec![of(name)]),
            Err(RestoreError::NoSession),
            "{name}"
        );
    }
    let Record::Left { session, .. } = of("Left") else {
        panic!("not a session's end");
    };
    assert_eq!(
        restore(and(Record::Ended { session })),
        Err(RestoreError::Change)
    );
    let counts = Arc::new(ConnectionCounts::new(1));
    let mut other = ShardCore::new(1, 2, Settings::default(), 1, counts);
    let homes = [of("Opened"), of("Retained")].map(|it| other.restore(Timestamp::from_ms(1), [it]));
    assert!(homes.contains(&Err(RestoreError::NotHome)), "{homes:?}");
}

/// Rules that a token brought along hold for a session that is built anew.
#[test]
fn who_had_rules_of_its_own_gets_no_more_than_they_allow() {
    use crate::engine::access::acl::{Acl, RuleAccess};
    let mut shard = full();
    shard.core.take_persist();
    let rules = [(RuleAccess::Read, "t")];
    let acl = Arc::new(Acl::from_rules(rules.into_iter()).unwrap());
    let mut records = snapshot(&shard.core);
    for record in &mut records {
        if let Record::Opened(opened) = record {
            opened.own_rules = Some(("jwt", Arc::clone(&acl)));
        }
    }
    let mut shard = Shard::new(|settings| settings.authentication.has_methods = true);
    shard.core.restore(shard.now, records).unwrap();
    publish(&mut shard, &[b"\x30\x04\x00\x01u1"]);
    let before = snapshot(&shard.core).len();
    publish(&mut shard, &[b"\x32\x06\x00\x01u\x00\x012"]);
    assert_eq!(snapshot(&shard.core).len(), before, "u may not be read");
    publish(&mut shard, &[b"\x32\x06\x00\x01t\x00\x013"]);
    assert_eq!(snapshot(&shard.core).len(), before + 1);
    let again = snapshot(&shard.core);
    let is_kept = |record: &Record| match record {
        Record::Opened(opened) => opened.own_rules.as_ref().is_some_and(|own| own.1 == acl),
        _ => false,
    };
    assert!(again.iter().any(is_kept));
}
