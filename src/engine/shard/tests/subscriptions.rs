//! A session and the trie know of each other's subscriptions without a search.

use super::Shard;
use crate::engine::keys::ConnectionKey;

fn packet(first: u8, filters: &[String], options: Option<u8>) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        body.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        body.extend(options);
    }
    let length = body.len() as u8;
    assert!(length < 0x80);
    [&[first, length], &body[..]].concat()
}

/// Each subscription of each session is where its subscriber in the trie says.
fn check(shard: &Shard, expected: &[(ConnectionKey, usize)]) {
    for (connection, count) in expected {
        let connection = shard.core.clients.connections.get(*connection).unwrap();
        let key = connection.session.unwrap();
        let session = shard.core.clients.sessions.get(key).unwrap();
        assert_eq!(session.subscriptions.len(), *count);
        for (place, reference) in (0..).zip(&session.subscriptions) {
            let entry = shard.core.trie.entry(reference.node).unwrap();
            let found = entry.find(key, reference.share.as_ref()).unwrap();
            assert_eq!((found.session, found.place), (key, place));
        }
    }
}

#[test]
fn subscriptions_are_found_whatever_came_and_went() {
    let mut shard = Shard::new(|_| {});
    let clients = [b'a', b'b'].map(|id| shard.connect(id, true));
    let mut filters = Vec::new();
    for n in 0..60 {
        filters.push(format!("f/{n}"));
        filters.push(format!("$share/{}/f/1", n % 50));
        filters.push(format!("$share/g/f/{n}"));
    }
    for client in clients {
        for filter in &filters {
            shard.begin_turn();
            let answer = shard.say(client, &packet(0x82, std::slice::from_ref(filter), Some(1)));
            assert_eq!(answer.last(), Some(&1));
        }
    }
    // Ten names came twice.
    let mut left = 170;
    check(&shard, &clients.map(|client| (client, left)));
    for n in 0..150 {
        let filter = filters.swap_remove(n * 7 % filters.len());
        shard.begin_turn();
        shard.say(clients[0], &packet(0xA2, &[filter], None));
        let now = shard.core.clients.connections.get(clients[0]).unwrap();
        let session = shard
            .core
            .clients
            .sessions
            .get(now.session.unwrap())
            .unwrap();
        left = session.subscriptions.len();
        check(&shard, &[(clients[0], left), (clients[1], 170)]);
    }
    assert!(left <= 30);
    shard.begin_turn();
    shard.say(clients[1], b"\xE0\x00");
    check(&shard, &[(clients[0], left)]);
    shard.say(clients[0], b"\xE0\x00");
    assert!(shard.core.trie.is_empty());
}

#[test]
fn the_subscriptions_of_a_session_that_ended_go_over_turns() {
    let mut shard = Shard::new(|settings| settings.limits.turn_deliveries_max = 8);
    let clients = [b'a', b'b'].map(|id| shard.connect(id, true));
    let turn = |shard: &mut Shard| {
        while shard.core.next_ready().is_some() {}
        shard.core.begin_turn();
    };
    for n in 0..50 {
        let filter = if n % 2 == 0 { "f" } else { "$share/g/f" };
        turn(&mut shard);
        let filter = [format!("{filter}/{n}")];
        shard.receive(clients[0], &packet(0x82, &filter, Some(1)));
    }
    turn(&mut shard);
    shard.receive(clients[0], b"\xE0\x00");
    let left = shard.core.trie.len();
    assert!((1..50).contains(&left), "{left} filters are left");
    // What is left gets nothing, and is made anew by whoever asks for it.
    turn(&mut shard);
    shard.receive(clients[1], &packet(0x82, &["f/0".to_owned()], Some(1)));
    let mut turns = 0;
    while shard.core.has_work() {
        turn(&mut shard);
        shard.core.work_off(shard.now);
        shard.core.begin_drain();
        shard.core.end_drain(shard.now);
        shard.take_commands();
        turns += 1;
        assert!(turns < 20, "it comes to an end");
    }
    assert_eq!(shard.core.trie.len(), 1);
    turn(&mut shard);
    shard.receive(clients[1], b"\x30\x06\x00\x03f/0x");
    assert!(shard.hear(clients[1]).ends_with(b"\x30\x06\x00\x03f/0x"));
}
