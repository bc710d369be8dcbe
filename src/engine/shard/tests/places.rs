//! What connections take of those that may be, and when they give it back.

use super::{Command, Shard, counter};
use crate::engine::access::Arrival;
use crate::engine::keys::ConnectionKey;
use crate::engine::shard::admission::Place;
use crate::engine::shard::unheard::{ConnectingPart, TurnedAway};
use ipnet::IpNet;

/// Of which one address may have two, of those that connect.
fn four_may_connect() -> Shard {
    Shard::new(|settings| settings.limits.connecting_max = 4)
}

fn network() -> IpNet {
    "192.0.2.1/32".parse().unwrap()
}

fn come(shard: &mut Shard) -> ConnectionKey {
    let key = shard.core.accept(shard.now, 0).unwrap();
    shard.core.locate(key, network());
    key
}

fn places(shard: &mut Shard) -> Vec<Place> {
    let commands = shard.take_commands().into_iter();
    let places = commands.map(|command| match command {
        Command::Close {
            place: Some(place), ..
        } => place,
        other => panic!("{other:?}"),
    });
    places.collect()
}

fn may_come(shard: &Shard) -> bool {
    let answer = shard.core.may_connect_from(network(), 0);
    let full = TurnedAway::TooManyConnecting(ConnectingPart::OfConnecting);
    assert!(answer.is_ok() || answer == Err(full), "{answer:?}");
    answer.is_ok()
}

#[test]
fn who_is_refused_takes_its_place_until_its_socket_is_gone() {
    let of_later_version = b"\x10\x0D\x00\x04MQTT\x09\x02\x00\x00\x00\x01x";
    for said in [&b"\xFF\xFF\xFF\xFF\xFF"[..], of_later_version] {
        let mut shard = four_may_connect();
        for _ in 0..2 {
            assert!(may_come(&shard));
            let key = come(&mut shard);
            shard.receive(key, said);
        }
        let places = places(&mut shard);
        assert_eq!(places.len(), 2, "both are refused");
        assert_eq!(shard.core.admission.counts.all(), 2);
        for place in places {
            assert!(!may_come(&shard), "{said:?}");
            shard.core.vacate(Some(place));
            assert!(may_come(&shard));
            let _next = come(&mut shard);
        }
        assert_eq!(shard.core.admission.counts.all(), 2);
    }
}

#[test]
fn those_without_an_address_have_together_what_one_address_has() {
    let mut shard = four_may_connect();
    let may_come = |shard: &Shard| shard.core.may_connect_unlocated();
    let full = TurnedAway::TooManyConnecting(ConnectingPart::OfUnlocated);
    // Neither who has an address nor who came by a Unix socket.
    let _others = [come(&mut shard), shard.core.accept(shard.now, 0).unwrap()];
    let unnamed = [(); 2].map(|()| {
        assert_eq!(may_come(&shard), Ok(()));
        let key = shard.core.accept(shard.now, 0).unwrap();
        shard.core.await_name(key);
        key
    });
    assert_eq!(may_come(&shard), Err(full));
    let named_by_its_proxy = unnamed[0];
    shard.core.locate(named_by_its_proxy, network());
    assert_eq!(may_come(&shard), Ok(()));
    shard.receive(unnamed[1], b"\xFF\xFF\xFF\xFF\xFF");
    assert_eq!(shard.core.admission.unnamed, 1, "its socket is not gone");
    for place in places(&mut shard) {
        shard.core.vacate(Some(place));
    }
    assert_eq!(shard.core.admission.unnamed, 0);
}

#[test]
fn so_does_one_that_is_refused_where_it_was_handed_over_to() {
    let mut shard = four_may_connect();
    for _ in 0..2 {
        assert!(may_come(&shard));
        refused_at_home(&mut shard);
    }
    assert!(!may_come(&shard));
    let places = places(&mut shard);
    let third = refused_at_home(&mut shard);
    let commands = shard.take_commands();
    assert!(matches!(commands[..], [Command::Abort(gone)] if gone == third));
    places
        .into_iter()
        .for_each(|it| shard.core.vacate(Some(it)));
    assert!(may_come(&shard));
    assert_eq!(shard.core.admission.counts.all(), 0);
    assert_eq!(shard.core.admission.connecting, 0);
}

/// One whose CONNECT was heard at another shard is refused here.
fn refused_at_home(shard: &mut Shard) -> ConnectionKey {
    shard.core.admission.counts.enter(0);
    let key = shard.core.adopt(shard.now, 0, Arrival::default());
    shard.core.locate(key, network());
    shard.receive(key, b"\xFF\xFF\xFF\xFF\xFF");
    key
}

#[test]
fn the_name_of_one_that_is_closed_is_nobody_elses_before_it_is_taken_note_of() {
    let mut shard = four_may_connect();
    let first = come(&mut shard);
    shard.receive(first, b"\xFF\xFF\xFF\xFF\xFF");
    let second = come(&mut shard);
    assert_ne!(first.slot(), second.slot());
    let _places = places(&mut shard);
    assert_eq!(come(&mut shard).slot(), first.slot());
}

#[test]
fn who_was_let_in_takes_nothing_any_more_when_it_is_closed() {
    let mut shard = four_may_connect();
    for _ in 0..3 {
        let key = come(&mut shard);
        shard.receive(key, b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01x");
        shard.receive(key, b"\xE0\x00");
    }
    assert!(may_come(&shard));
    let closes = |command: &Command| matches!(command, Command::Close { place: None, .. });
    assert_eq!(
        shard.take_commands().iter().filter(|it| closes(it)).count(),
        3
    );
    assert_eq!(shard.core.admission.counts.all(), 0);
}

#[test]
fn who_is_turned_away_unheard_takes_nothing() {
    let mut shard = four_may_connect();
    for _ in 0..3 {
        let key = come(&mut shard);
        shard.core.turn_away_unheard(key, TurnedAway::TooMany);
        let commands = shard.take_commands();
        assert!(matches!(commands[..], [Command::Abort(gone)] if gone == key));
    }
    assert!(may_come(&shard));
    assert_eq!(shard.core.admission.counts.all(), 0);
}

/// One whose CONNECT was heard at another shard comes again here.
fn comes_again_at_home(shard: &mut Shard) -> ConnectionKey {
    comes_again_for(shard, 0)
}

fn comes_again_for(shard: &mut Shard, keep_alive_seconds: u8) -> ConnectionKey {
    shard.core.admission.counts.enter(0);
    let key = shard.core.adopt(shard.now, 0, Arrival::default());
    shard.core.locate(key, network());
    let mut connect = *b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01c";
    connect[11] = keep_alive_seconds;
    shard.core.receive(shard.now, key, &connect);
    key
}

#[test]
fn who_waits_to_take_over_at_its_home_has_a_place_of_its_address() {
    let mut shard = four_may_connect();
    shard.connect(b'c', true);
    for _ in 0..2 {
        assert!(may_come(&shard));
        comes_again_at_home(&mut shard);
    }
    assert!(!may_come(&shard));
    assert_eq!(shard.core.takeovers_to_look_at(), 2);
    // For one more there is no place: it takes over at once.
    comes_again_at_home(&mut shard);
    assert_eq!(shard.core.takeovers_to_look_at(), 2);
    assert_eq!(counter(&shard, "takeovers_unheard"), 1);
    for _ in 0..3 {
        shard.take_over();
    }
    assert!(may_come(&shard));
    assert_eq!(shard.core.admission.connecting, 0);
    assert_eq!(counter(&shard, "takeovers"), 3);
}

#[test]
fn who_is_let_in_when_its_connect_would_be_late_is_ended_by_its_silence() {
    let mut shard = Shard::new(|settings| settings.limits.connect_timeout_ms = 100);
    shard.connect(b'c', true);
    let key = comes_again_for(&mut shard, 1);
    assert_eq!(shard.core.takeovers_to_look_at(), 1);
    // No turn looks at it until then.
    shard.now = shard.now.plus_ms(100);
    shard.core.tick(shard.now);
    assert_eq!(counter(&shard, "takeovers_unheard"), 1);
    assert_eq!(shard.hear(key), b"\x20\x02\x00\x00");
    shard.now = shard.now.plus_ms(1_499);
    shard.core.tick(shard.now);
    assert!(!shard.is_closed(key));
    shard.now = shard.now.plus_ms(1);
    shard.core.tick(shard.now);
    assert!(shard.is_closed(key));
    assert_eq!(counter(&shard, "keep_alive_timeouts"), 1);
}
