//! Access rules that change: in force at once, the marks on subscriptions over turns.

use super::{DELIVERED_T, PUBLISH_T, SUBSCRIBE_T, Shard};
use crate::engine::access::acl::Acl;
use crate::engine::keys::ConnectionKey;
use crate::engine::telemetry::notes::Event;
use std::sync::Arc;

fn set_rules(shard: &mut Shard, text: &str) {
    let acl = Acl::parse(text).unwrap();
    shard.core.set_acl(Some(Arc::new(acl)));
}

fn subscribe(shard: &mut Shard, key: ConnectionKey, filter: &str, kind: u8) {
    shard.begin_turn_sent();
    let options: &[u8] = if kind == 0x82 { &[0] } else { &[] };
    let name = filter.as_bytes();
    let body = [&[0, 1, 0, name.len() as u8], name, options].concat();
    shard.say(key, &[&[kind, body.len() as u8], &body[..]].concat());
}

/// How many of a client's subscriptions are marked to be checked.
fn checked(shard: &Shard, key: ConnectionKey) -> usize {
    let clients = &shard.core.clients;
    let session = clients.connections.get(key).unwrap().session.unwrap();
    let subscriptions = &clients.sessions.get(session).unwrap().subscriptions;
    let found = subscriptions.iter().filter(|reference| {
        let entry = shard.core.trie.entry(reference.node).unwrap();
        let share = reference.share.as_ref();
        entry.find(session, share).unwrap().checked
    });
    found.count()
}

fn is_marking(shard: &Shard) -> bool {
    let is_marking = !shard.core.clients.rules.marking.is_empty();
    assert!(!is_marking || shard.core.has_work(), "it must not sleep");
    is_marking
}

fn turn(shard: &mut Shard) {
    shard.begin_turn_sent();
    shard.core.work_off(shard.now);
}

#[test]
fn new_rules_hold_before_the_subscriptions_are_marked() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 64);
    let subscriber = shard.connect(b's', true);
    let shared = shard.connect(b'h', true);
    let publisher = shard.connect(b'p', true);
    shard.say(subscriber, SUBSCRIBE_T);
    subscribe(&mut shard, shared, "$share/g/t", 0x82);
    set_rules(&mut shard, "topic write #\n");
    assert_eq!(checked(&shard, subscriber), 0, "no turn was done since");
    shard.begin_turn_sent();
    shard.receive(publisher, PUBLISH_T);
    assert_eq!(
        (shard.hear(subscriber), shard.hear(shared)),
        (vec![], vec![])
    );
    // And back: who may read again gets it, though marked by the former rules.
    while is_marking(&shard) {
        turn(&mut shard);
    }
    assert_eq!(
        (checked(&shard, subscriber), checked(&shard, shared)),
        (1, 1)
    );
    set_rules(&mut shard, "topic #\n");
    shard.begin_turn_sent();
    shard.receive(publisher, PUBLISH_T);
    let heard = (shard.hear(subscriber), shard.hear(shared));
    assert_eq!(heard, (DELIVERED_T.to_vec(), DELIVERED_T.to_vec()));
    set_rules(&mut shard, "topic read #\n");
    shard.begin_turn_sent();
    shard.receive(publisher, PUBLISH_T);
    assert_eq!(shard.hear(subscriber), b"", "nobody may publish");
    shard.begin_turn_sent();
    let late = shard.connect(b'l', true);
    assert_eq!(shard.say(late, SUBSCRIBE_T), b"\x90\x03\x00\x07\x01");
    set_rules(&mut shard, "topic deny #\n");
    shard.begin_turn_sent();
    assert_eq!(shard.say(late, SUBSCRIBE_T), b"\x90\x03\x00\x07\x80");
}

#[test]
fn subscriptions_are_marked_over_turns_whatever_goes_meanwhile() {
    const COUNT: usize = 60;
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 64);
    let clients = [b'a', b'b'].map(|id| shard.connect(id, true));
    for client in clients {
        for n in 0..COUNT {
            let filter = format!("{}f/{n}", ["", "$share/g/"][n % 2]);
            subscribe(&mut shard, client, &filter, 0x82);
        }
    }
    set_rules(&mut shard, "topic read f/1\n");
    let mut turns = 0;
    let mut gone = 0;
    while is_marking(&shard) {
        turn(&mut shard);
        turns += 1;
        if gone < 20 && turns % 2 == 0 {
            // The last one takes the place of the first.
            let filter = format!("{}f/{gone}", ["", "$share/g/"][gone % 2]);
            subscribe(&mut shard, clients[1], &filter, 0xA2);
            gone += 1;
        }
        if turns == 20 {
            set_rules(&mut shard, "topic read other\n");
        }
        assert!(turns < 1_000, "it has an end");
    }
    assert!(turns > 15, "one turn marks some only: {turns}");
    let marked = clients.map(|client| checked(&shard, client));
    assert_eq!(marked, [COUNT, COUNT - gone]);
    set_rules(&mut shard, "topic read #\n");
    while is_marking(&shard) {
        turn(&mut shard);
    }
    assert_eq!(clients.map(|client| checked(&shard, client)), [0, 0]);
}

#[test]
fn a_session_that_comes_back_with_other_rights_gets_no_more_than_these() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 64);
    let publisher = shard.connect(b'p', true);
    let subscriber = shard.connect(b's', false);
    shard.say(subscriber, SUBSCRIBE_T);
    shard.say(subscriber, b"\xE0\x00");
    set_rules(&mut shard, "topic write #\n");
    shard.begin_turn_sent();
    let again = shard.connect(b's', false);
    while is_marking(&shard) {
        shard.begin_turn_sent();
        shard.receive(publisher, PUBLISH_T);
        assert_eq!(shard.hear(again), b"");
        shard.take_commands();
        turn(&mut shard);
    }
    assert_eq!(checked(&shard, again), 1);
}

/// Denials that were noted one by one, and how many were only counted.
fn denials(shard: &mut Shard) -> (usize, Vec<u32>) {
    let mut notes = Vec::new();
    shard.core.take_notes(&mut notes);
    let events = || notes.iter().map(|(_, note)| &note.event);
    let one_by_one = events().filter(|event| matches!(event, Event::Denied { .. }));
    let counted = events().filter_map(|event| match event {
        Event::DeniedMore { left_out } => Some(*left_out),
        _ => None,
    });
    (one_by_one.count(), counted.collect())
}

#[test]
fn denials_that_were_only_counted_are_told_though_nothing_more_is_denied() {
    let mut shard = Shard::new(|settings| settings.tells_why = true);
    set_rules(&mut shard, "topic read #\n");
    let client = shard.connect(b'c', true);
    let deny = |shard: &mut Shard, client, count| {
        (0..count).for_each(|_| shard.receive(client, PUBLISH_T));
    };
    let timers = shard.core.timers.len();
    deny(&mut shard, client, 5);
    assert_eq!(denials(&mut shard), (1, vec![]));
    let due = shard.core.deadline().expect("the shard wakes for it");
    shard.now = due;
    shard.core.tick(due);
    assert_eq!(denials(&mut shard), (0, vec![4]));
    assert_eq!(shard.core.timers.len(), timers);
    // Denied again before that was told, and when the client is gone.
    deny(&mut shard, client, 3);
    shard.now = shard.now.plus_ms(2_000);
    deny(&mut shard, client, 3);
    assert_eq!(denials(&mut shard), (2, vec![2]));
    let newer = shard.connect(b'c', true);
    assert_eq!(denials(&mut shard), (0, vec![2]), "taken over");
    deny(&mut shard, newer, 2);
    shard.core.disconnect_all();
    turn(&mut shard);
    assert_eq!(denials(&mut shard), (1, vec![1]), "at the broker's end");
    assert!(shard.core.timers.is_empty(), "no timer is left over");
}
