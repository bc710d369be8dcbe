//! Clients that wait to be judged, and who comes meanwhile.

use super::pair::{NOW, Pair};
use super::{Command, Shard, counter};
use crate::engine::access::{Admitted, Answer, Arrival, ClientIdRule, Identity};
use crate::engine::keys::ConnectionKey;
use crate::engine::overload::Stage;
use crate::engine::route::home_shard;
use crate::engine::shard::ClientIdPolicy;

/// CONNECT of a 5.0 client that shows a user name; its session never ends.
fn connect(client_id: &str, user_name: &str) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let head = b"\x00\x04MQTT\x05\x80\x00\x00\x05\x11\xFF\xFF\xFF\xFF";
    let body = [&head[..], &text(client_id), &text(user_name)].concat();
    [&[0x10, body.len() as u8], &body[..]].concat()
}

fn guarded() -> Shard {
    Shard::new(|settings| settings.authentication.has_methods = true)
}

fn ask(shard: &mut Shard, client_id: &str, user_name: &str) -> ConnectionKey {
    let key = shard.core.accept(shard.now, 0).unwrap();
    shard.receive(key, &connect(client_id, user_name));
    assert!(shard.core.awaits_answer(key));
    key
}

fn allow(shard: &mut Shard, key: ConnectionKey, identity: Identity) {
    let admitted = Admitted {
        identity,
        ..Admitted::default()
    };
    let answer = Answer::Allow(Box::new(admitted));
    shard.core.authenticated(shard.now, key, answer);
    shard.take_over();
}

fn user(name: &str) -> Identity {
    Identity {
        user_name: Some(name.into()),
        ..Identity::default()
    }
}

/// The reason code of a CONNACK.
fn code(said: &[u8]) -> Option<u8> {
    let head = said.iter().skip(1).position(|byte| *byte < 0x80)?;
    said.get(head + 3).copied()
}

/// What a client is told first.
fn told(shard: &mut Shard, key: ConnectionKey) -> Option<u8> {
    code(&shard.hear(key))
}

/// What it is told who is closed with it.
fn told_last(shard: &mut Shard, key: ConnectionKey) -> Option<u8> {
    let closed = shard.take_commands().into_iter();
    let mut said = closed.filter_map(|command| match command {
        Command::Close {
            connection, rest, ..
        } if connection == key => Some(rest),
        _ => None,
    });
    let rest = said.next()?;
    let said: Vec<u8> = rest.slices().flatten().copied().collect();
    code(&said)
}

#[test]
fn a_connect_that_came_later_is_not_taken_over() {
    let mut shard = guarded();
    let slow = ask(&mut shard, "c", "ann");
    shard.now = shard.now.plus_ms(1);
    let later = ask(&mut shard, "c", "ann");
    allow(&mut shard, later, user("ann"));
    assert_eq!(told(&mut shard, later), Some(0));
    allow(&mut shard, slow, user("ann"));
    assert_eq!(told_last(&mut shard, slow), Some(0x80));
    assert_eq!(counter(&shard, "takeovers"), 0);
    // In their order one takes over the other.
    let last = ask(&mut shard, "c", "ann");
    shard.now = shard.now.plus_ms(1);
    allow(&mut shard, last, user("ann"));
    assert_eq!(told(&mut shard, last), Some(0));
    assert_eq!(counter(&shard, "takeovers"), 1);
}

#[test]
fn who_has_gone_before_the_answer_is_not_let_in() {
    let mut shard = guarded();
    let there = ask(&mut shard, "c", "ann");
    allow(&mut shard, there, user("ann"));
    for is_broken in [false, true] {
        let gone = ask(&mut shard, "c", "ann");
        if is_broken {
            shard.receive(gone, b"\x30\x03\x00\x01t");
            shard.core.forget_said_at_gate(gone);
        }
        shard.core.receive_ended(shard.now, gone);
        allow(&mut shard, gone, user("ann"));
        assert!(shard.is_closed(gone));
        assert_eq!(counter(&shard, "takeovers"), 0);
    }
    let half = ask(&mut shard, "c", "ann");
    shard.receive(half, b"\xE0");
    shard.core.receive_ended(shard.now, half);
    allow(&mut shard, half, user("ann"));
    assert!(shard.is_closed(half));
    assert_eq!(counter(&shard, "takeovers"), 0);
    // What was said in order before the end counts.
    let in_order = ask(&mut shard, "c", "ann");
    shard.receive(in_order, b"\xE0\x00");
    shard.core.receive_ended(shard.now, in_order);
    allow(&mut shard, in_order, user("ann"));
    assert_eq!(counter(&shard, "takeovers"), 1);
}

#[test]
fn an_identifier_that_is_given_is_judged_like_one_that_is_named() {
    for (policy, given, wanted) in [
        (ClientIdPolicy::UserNamePrefix, "vic-1", 0x85),
        (ClientIdPolicy::UserNamePrefix, "mal-1", 0),
        (ClientIdPolicy::UserName, "vic", 0x85),
        (ClientIdPolicy::UserName, "mal", 0),
        (ClientIdPolicy::Any, "vic-1", 0),
    ] {
        let mut shard = Shard::new(|settings| {
            settings.authentication.has_methods = true;
            settings.authentication.client_id = policy;
        });
        let key = ask(&mut shard, "", "mal");
        let client_id = Some(ClientIdRule::Exactly(given.into()));
        let identity = Identity {
            client_id,
            ..user("mal")
        };
        allow(&mut shard, key, identity);
        let code_told = told(&mut shard, key).or_else(|| told_last(&mut shard, key));
        assert_eq!(code_told, Some(wanted), "{policy:?} {given}");
    }
}

#[test]
fn no_empty_identifier_is_assigned() {
    for (policy, given) in [
        (ClientIdPolicy::UserName, None),
        (ClientIdPolicy::Any, Some(ClientIdRule::Exactly("".into()))),
    ] {
        let mut shard = Shard::new(|settings| {
            settings.authentication.has_methods = true;
            settings.authentication.client_id = policy;
        });
        let key = ask(&mut shard, "", "");
        let identity = Identity {
            client_id: given,
            ..user("")
        };
        allow(&mut shard, key, identity);
        assert_eq!(told_last(&mut shard, key), Some(0x85), "{policy:?}");
    }
}

/// The end of a certificate bounds that of a login, also when the client logs in anew.
#[test]
fn a_connection_ends_with_its_certificate() {
    let mut shard = guarded();
    let key = shard.core.accept(shard.now, 0).unwrap();
    let ends_at = shard.now.plus_ms(5_000);
    shard.core.set_certificate_end(key, ends_at);
    shard.receive(key, &connect("c", "ann"));
    let admitted = Admitted {
        identity: user("ann"),
        ends_at: Some(shard.now.plus_ms(60_000)),
        ..Admitted::default()
    };
    let answer = Answer::Allow(Box::new(admitted));
    shard.core.authenticated(shard.now, key, answer);
    shard.take_over();
    assert_eq!(told(&mut shard, key), Some(0));
    shard.now = shard.now.plus_ms(4_999);
    shard.core.tick(shard.now);
    assert!(!shard.is_closed(key));
    shard.now = ends_at;
    shard.core.tick(shard.now);
    assert!(shard.is_closed(key));
    assert_eq!(counter(&shard, "identities_ended"), 1);
}

/// CONNECT of a client that takes no larger packets.
fn connect_small(client_id: &str, user_name: &str) -> Vec<u8> {
    let mut connect = connect(client_id, user_name);
    connect[1] += 5;
    connect[12] += 5;
    connect.splice(18..18, *b"\x27\x00\x00\x00\x05");
    connect
}

/// Who is refused is not counted as flapping; who is banned for it by names that only its proof has given it
/// is told as for a wrong password, others before they are judged.
#[test]
fn only_who_is_let_in_counts_as_flapping() {
    let mut shard = Shard::new(|settings| {
        settings.authentication.has_methods = true;
        settings.flapping.connects_max = 2;
        settings.flapping.window_ms = 1_000;
        settings.flapping.ban_ms = 1_000;
    });
    for _ in 0..5 {
        let key = shard.core.accept(shard.now, 0).unwrap();
        shard.receive(key, &connect_small("c", "ann"));
        allow(&mut shard, key, user("ann"));
        assert!(shard.is_closed(key), "no CONNACK fits");
    }
    for given in ["ann", "by-hook"] {
        let [mut first, mut second, mut third] = [(); 3].map(|()| ask(&mut shard, "c", "ann"));
        for key in [&mut first, &mut second] {
            allow(&mut shard, *key, user(given));
            assert_eq!(told(&mut shard, *key), Some(0));
        }
        let expected = if given == "ann" { 0x8A } else { 0x86 };
        allow(&mut shard, third, user(given));
        assert_eq!(told_last(&mut shard, third), Some(expected), "{given}");
        if given == "ann" {
            // Unjudged, whatever it shows.
            third = shard.core.accept(shard.now, 0).unwrap();
            shard.receive(third, &connect("c", "ann"));
            assert_eq!(told_last(&mut shard, third), Some(expected));
        }
        shard.now = shard.now.plus_ms(1_000);
    }
}

/// A shard that judges does not know how often a client came to its home.
#[test]
fn who_was_judged_elsewhere_is_not_told_that_it_flaps() {
    let mut shard = Shard::new(|settings| {
        settings.flapping.connects_max = 1;
        settings.flapping.window_ms = 1_000;
        settings.flapping.ban_ms = 1_000;
    });
    for wanted in [0, 0x86] {
        let admitted = Admitted {
            identity: user("ann"),
            ..Admitted::default()
        };
        let arrival = Arrival {
            came_at: None,
            admitted: Some(Box::new(admitted)),
        };
        let key = shard.core.adopt(shard.now, 0, arrival);
        shard.receive(key, &connect("c", "ann"));
        let code = told(&mut shard, key).or_else(|| told_last(&mut shard, key));
        assert_eq!(code, Some(wanted));
    }
}

/// Only its home knows whether a client has a session.
#[test]
fn memory_is_judged_where_a_client_is_at_home() {
    let mut pair = Pair::new();
    let ids = (0..).map(|n| format!("c{n}"));
    let ids: Vec<_> = ids.filter(|id| home_shard(id, 2) == 1).take(2).collect();
    let key = pair.cores[1].accept(NOW, 0).unwrap();
    pair.receive(1, key, &connect(&ids[0], "u"));
    pair.receive(1, key, b"\xE0\x00");
    for core in &mut pair.cores {
        core.set_stage(Stage::Refuse);
    }
    let mut commands = Vec::new();
    for (id, wanted) in [(&ids[0], 0), (&ids[1], 0x97)] {
        let key = pair.cores[0].accept(NOW, 0).unwrap();
        pair.receive(0, key, &connect(id, "u"));
        pair.cores[0].take_commands(&mut commands);
        let handed_over = commands.drain(..).find_map(|command| match command {
            Command::Handover { home, bytes, .. } => Some((home, bytes)),
            _ => None,
        });
        let (home, bytes) = handed_over.expect("a handover");
        assert_eq!(home, 1);
        let key = pair.cores[1].adopt(NOW, 0, Arrival::default());
        pair.receive(1, key, &bytes);
        let mut said = pair.hear(1, key);
        pair.cores[1].take_commands(&mut commands);
        for command in commands.drain(..) {
            if let Command::Close { rest, .. } = command {
                said.extend(rest.slices().flatten());
            }
        }
        assert_eq!(code(&said), Some(wanted), "{said:02x?}");
    }
}

/// Of two connections of one client the one that came later stays, though the other's way home was longer.
#[test]
fn who_came_earlier_elsewhere_takes_over_nobody() {
    let mut shard = Shard::new(|_| {});
    let came_at = Some(shard.now);
    shard.now = shard.now.plus_ms(1);
    shard.connect(b'c', true);
    let arrival = Arrival {
        came_at,
        admitted: None,
    };
    let key = shard.core.adopt(shard.now, 0, arrival);
    shard.receive(key, &connect("c", "ann"));
    shard.take_over();
    assert_eq!(told_last(&mut shard, key), Some(0x80));
    assert_eq!(counter(&shard, "takeovers"), 0);
}
