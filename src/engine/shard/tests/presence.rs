//! Share groups whose members come and go.

use super::Shard;
use crate::engine::keys::ConnectionKey;
use crate::engine::mail::{InterestChange, Mail};
use crate::engine::route::home_shard;
use crate::engine::shard::{ConnectionCounts, Settings, ShardCore};
use crate::engine::time::Timestamp;
use std::sync::Arc;

const GROUPS: usize = 200;

/// One of two shards, and a client at home there with a session that stays.
fn shard_of_two() -> (Shard, u8) {
    let counts = Arc::new(ConnectionCounts::new(1));
    let core = ShardCore::new(0, 2, Settings::default(), 1, counts);
    let now = Timestamp::from_ms(1_000);
    let mut ids = b'a'..=b'z';
    let is_home = |id: &u8| home_shard(&char::from(*id).to_string(), 2) == 0;
    (Shard { core, now }, ids.find(is_home).unwrap())
}

/// The letters about groups that wait to leave, as counts of members that are online.
fn told(shard: &mut Shard) -> Vec<u32> {
    let mut online = Vec::new();
    shard.core.staged().flush(|_, mail| {
        if let Mail::Interest {
            change: InterestChange::Group(_, count),
            ..
        } = mail
        {
            online.push(count.online);
        }
        Ok(())
    });
    online
}

fn turn(shard: &mut Shard) {
    shard.begin_turn_sent();
    shard.core.work_off(shard.now);
    shard.take_commands();
}

fn subscribe(shard: &mut Shard, key: ConnectionKey) {
    for n in 0..GROUPS {
        let filter = format!("$share/g{n}/t/{n}");
        let head = [0x82, filter.len() as u8 + 5, 0, 1, 0, filter.len() as u8];
        turn(shard);
        shard.receive(key, &[&head, filter.as_bytes(), &[1]].concat());
    }
}

#[test]
fn a_takeover_tells_nobody_and_an_end_tells_each_group_once() {
    let (mut shard, id) = shard_of_two();
    let first = shard.connect(id, false);
    subscribe(&mut shard, first);
    assert_eq!(
        told(&mut shard),
        vec![1; GROUPS],
        "a group that is joined is told at once"
    );
    let mut last = first;
    for _ in 0..10 {
        last = shard.connect(id, false);
        turn(&mut shard);
    }
    while shard.core.may_tell() {
        turn(&mut shard);
    }
    assert_eq!(told(&mut shard), [0_u32; 0], "it is there as before");
    // It goes and comes before a turn has told of it.
    shard.say(last, b"\xE0\x00");
    assert_eq!(told(&mut shard), [0_u32; 0]);
    last = shard.connect(id, false);
    while shard.core.may_tell() {
        turn(&mut shard);
    }
    assert_eq!(told(&mut shard), [0_u32; 0]);
    shard.say(last, b"\xE0\x00");
    turn(&mut shard);
    let some = told(&mut shard);
    assert!(
        some.len() < GROUPS && shard.core.has_work(),
        "a part per turn"
    );
    let mut all = some;
    while shard.core.may_tell() {
        turn(&mut shard);
        all.extend(told(&mut shard));
    }
    assert_eq!(all, vec![0; GROUPS]);
}

#[test]
fn nobody_is_told_of_who_comes_while_a_mailbox_is_full() {
    let (mut shard, id) = shard_of_two();
    let client = shard.connect(id, false);
    subscribe(&mut shard, client);
    shard.core.staged().flush(|_, mail| Err(mail));
    shard.say(client, b"\xE0\x00");
    for _ in 0..10 {
        turn(&mut shard);
    }
    assert!(!shard.core.may_tell(), "it would only turn for nothing");
    assert_eq!(told(&mut shard), vec![1; GROUPS]);
    while shard.core.may_tell() {
        turn(&mut shard);
    }
    assert_eq!(told(&mut shard), vec![0; GROUPS]);
}
