//! Packets that are followed: what is told of them, and how much.

use super::{PUBLISH_T, SUBSCRIBE_T, Shard, counter};
use crate::engine::keys::ConnectionKey;
use crate::engine::trace::{Followed, Trace, Traced};

fn follow(shard: &mut Shard, number: u64, followed: Followed) {
    shard.core.begin_trace(Trace {
        number,
        followed,
        payload_bytes_max: 8,
    });
}

fn told(shard: &mut Shard) -> Vec<Traced> {
    let mut told = Vec::new();
    shard.core.take_traced(&mut told);
    told
}

/// Packets in short.
fn short(told: &[Traced], number: u64) -> Vec<String> {
    let told = told.iter().filter(|traced| traced.trace == number);
    let told = told.map(|traced| {
        let name = traced.client_id.as_deref().unwrap_or("-");
        let side = if traced.is_from_client { '>' } else { '<' };
        let topic = traced.line.topic.as_deref().unwrap_or_default();
        format!("{name} {side} {} {topic}", traced.line.packet)
    });
    told.collect()
}

fn send_all(shard: &mut Shard, keys: &[ConnectionKey]) {
    for key in keys {
        shard.hear(*key);
    }
}

#[test]
fn each_trace_is_told_what_it_follows_and_no_more_when_it_has_ended() {
    let mut shard = Shard::new(|_| {});
    follow(&mut shard, 1, Followed::Client("s".into()));
    follow(&mut shard, 2, Followed::Topic("+".into()));
    let subscriber = shard.connect(b's', true);
    shard.say(subscriber, SUBSCRIBE_T);
    let publisher = shard.connect(b'p', true);
    shard.receive(publisher, PUBLISH_T);
    send_all(&mut shard, &[subscriber]);
    let all = told(&mut shard);
    let wanted = [
        "s > CONNECT ",
        "s < CONNACK ",
        "s > SUBSCRIBE ",
        "s < SUBACK ",
        "s < PUBLISH t",
    ];
    assert_eq!(short(&all, 1), wanted);
    assert_eq!(short(&all, 2), ["p > PUBLISH t", "s < PUBLISH t"]);
    assert!(
        all.iter()
            .rev()
            .take(1)
            .all(|it| it.line.payload.as_deref() == Some("new"))
    );
    shard.core.end_trace(1);
    shard.receive(publisher, PUBLISH_T);
    send_all(&mut shard, &[subscriber]);
    let all = told(&mut shard);
    assert_eq!((short(&all, 1).len(), short(&all, 2).len()), (0, 2));
    shard.core.end_trace(2);
    shard.receive(publisher, PUBLISH_T);
    send_all(&mut shard, &[subscriber]);
    assert!(told(&mut shard).is_empty());
}

#[test]
fn what_an_alias_of_the_broker_stands_for_is_told() {
    let mut shard = Shard::new(|settings| settings.limits.topic_alias_out_max = 4);
    let subscriber = shard.connect_with(b"\x03\x22\x00\x04", b"\x00\x01s");
    shard.say(subscriber, b"\x82\x07\x00\x07\x00\x00\x01t\x00");
    follow(&mut shard, 1, Followed::Topic("t".into()));
    let publisher = shard.connect(b'p', true);
    for _ in 0..2 {
        shard.receive(publisher, PUBLISH_T);
        send_all(&mut shard, &[subscriber]);
    }
    let all = told(&mut shard);
    let to_subscriber = all.iter().filter(|traced| !traced.is_from_client);
    let lines: Vec<_> = to_subscriber.map(|traced| &traced.line).collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert_eq!(
            (line.topic.as_deref(), line.topic_alias),
            (Some("t"), Some(1))
        );
    }
    // The second has no topic of its own.
    assert!(lines[1].packet_bytes < lines[0].packet_bytes);
}

#[test]
fn what_finds_no_room_is_left_out_and_counted() {
    let mut shard = Shard::new(|_| {});
    follow(&mut shard, 7, Followed::Topic("t".into()));
    let publisher = shard.connect(b'p', true);
    for _ in 0..1_500 {
        shard.begin_turn();
        shard.receive(publisher, PUBLISH_T);
    }
    let lines = told(&mut shard).len();
    let left_out = shard.core.take_lines_left_out();
    assert_eq!((lines, left_out.get(&7)), (1_024, Some(&476)));
    assert!(shard.core.take_lines_left_out().is_empty());
    shard.core.note_lines_left_out(476);
    assert_eq!(counter(&shard, "trace_lines_left_out"), 476);
}
