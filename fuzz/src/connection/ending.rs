//! The end of a history: everyone still gets messages, everyone leaves, nothing is left.

use super::operation::{acknowledge_all, asked, connect};
use super::peer::{Peer, answer};
use super::profile::Profile;
use super::world::{SOCKETS, World};
use crate::wire::{Props, Publish, Version, frame, prop, put_str};
use ringmq::engine::session::outbound::QueueFull;

/// The topic on which everyone is asked whether it is alive.
const LIVE: &str = "live";
const QUESTION: &[u8] = b"alive?";
/// Seconds that the probing clients' sessions outlive them.
const EXPIRY_SECONDS: u32 = 50;
/// Rounds of acknowledgements that any backlog takes at most.
const ROUNDS_MAX: usize = 30_000;
/// Most timers that may be left of connections and sessions that are gone.
const STALE_TIMERS_MAX: usize = 200;

/// Ends the history of `world`.
pub fn end(world: &mut World, profile: &Profile) {
    world.rest();
    if profile.is_stopped {
        world.stop();
        assert_eq!(world.connections(), 0, "a client is not sent away");
        return;
    }
    for socket in 0..SOCKETS {
        world.cut(socket);
    }
    world.rest();
    if world.connections() >= world.settings.limits.connections_max {
        return;
    }
    world.client_ids.remove("");
    let ids: Vec<_> = world.client_ids.iter().cloned().collect();
    // One more connection is needed for the publisher.
    let room = world.settings.limits.connections_max - 1;
    let are_all_known = !world.has_unknown_sessions && ids.len() <= room;
    let probes: Vec<_> = (SOCKETS..).zip(ids.into_iter().take(room)).collect();
    probe(world, profile, &probes, are_all_known);
    leave(world, profile, &probes);
    check_nothing_is_left(world, are_all_known);
}

fn open(world: &mut World, profile: &Profile, socket: usize, id: &str, clean: bool) {
    let version = if profile.is_probed_by_v5 {
        Version::V5
    } else {
        Version::V4
    };
    let mut asked = asked(version, id.to_owned());
    asked.clean = clean;
    let mut props = Props::new();
    if !clean {
        props = props.four(prop::SESSION_EXPIRY, EXPIRY_SECONDS);
    }
    connect(world, socket, socket, Peer::new(asked), props, None);
    settle(world);
    let is_open = world.peer(socket).is_some_and(|peer| peer.is_open);
    assert!(is_open, "a plain client {id:?} is not let in");
}

/// Lets everything happen while clients acknowledge what they get.
fn settle(world: &mut World) {
    for _ in 0..ROUNDS_MAX {
        world.rest();
        let mut is_busy = false;
        for socket in 0..world.sockets.len() {
            is_busy |= acknowledge_all(world, socket);
        }
        if !is_busy {
            return;
        }
    }
    panic!("the clients do not come to the end of what is due to them");
}

/// Resumes every session, takes what waited in it, and asks whether a new message arrives.
fn probe(world: &mut World, profile: &Profile, probes: &[(usize, String)], are_all_known: bool) {
    for (socket, id) in probes {
        open(world, profile, *socket, id, false);
    }
    if are_all_known {
        check_settled(world);
    }
    for (socket, _) in probes {
        subscribe(world, *socket);
    }
    settle(world);
    let publisher = SOCKETS + probes.len();
    open(world, profile, publisher, "publisher", true);
    let question = Publish::new(LIVE, 0, QUESTION);
    let version = world.peer(publisher).map(|peer| peer.asked.version);
    let bytes = question.encode(version.unwrap_or(Version::V4));
    if world.settings.limits.topic_bytes_max < LIVE.len() {
        return;
    }
    world.send(publisher, &bytes);
    settle(world);
    for (socket, id) in probes {
        let Some(peer) = world.peer(*socket) else {
            if world.settings.queue_full == QueueFull::Disconnect {
                continue;
            }
            panic!("{id:?} was closed while it was asked");
        };
        let is_granted = peer.granted.first().is_some_and(|code| *code < 0x80);
        let is_asked = peer.payloads.iter().any(|payload| payload == QUESTION);
        assert!(is_asked || !is_granted, "{id:?} gets no messages any more");
        assert!(!peer.granted.is_empty(), "{id:?} was never answered");
    }
}

fn check_settled(world: &World) {
    assert_eq!(world.statistic("inflight_messages"), 0);
    assert_eq!(world.statistic("queued_messages"), 0);
}

fn subscribe(world: &mut World, socket: usize) {
    let Some(peer) = world.peer(socket) else {
        return;
    };
    let mut body = vec![0xFF, 0xF0];
    if peer.is_v5() {
        Props::new().put(&mut body);
    }
    put_str(&mut body, LIVE);
    body.push(1);
    peer.expect(answer::SUBACK, 0xFFF0, 1);
    world.send(socket, &frame(0x82, &body));
}

/// Everyone ends the session.
fn leave(world: &mut World, profile: &Profile, probes: &[(usize, String)]) {
    let everyone = SOCKETS + probes.len() + 1;
    for socket in 0..everyone {
        world.cut(socket);
    }
    world.rest();
    for (socket, id) in probes {
        open(world, profile, *socket, id, true);
        if let Some(peer) = world.peer(*socket) {
            peer.is_guilty = true;
        }
        world.send(*socket, &frame(0xE0, &[]));
        world.rest();
    }
}

/// Time passes until nothing is due any more.
fn check_nothing_is_left(world: &mut World, are_all_known: bool) {
    if are_all_known {
        check_gone(world);
    }
    let mut ticks = 0;
    while let Some(deadline) = world.deadline() {
        if deadline == u64::MAX {
            break;
        }
        world.now_ms = world.now_ms.max(deadline);
        world.rest();
        ticks += 1;
        assert!(ticks < STALE_TIMERS_MAX, "timers of what is gone pile up");
    }
    if world.settings.session_expiry_seconds_max < u32::MAX {
        check_gone(world);
    }
}

fn check_gone(world: &World) {
    for name in [
        "connections",
        "sessions",
        "subscriptions",
        "filters",
        "queued_messages",
        "inflight_messages",
    ] {
        assert_eq!(world.statistic(name), 0, "{name} are left");
    }
    assert_eq!(world.connections(), 0, "connections are still counted");
}
