//! Each stage of memory shortage, and back; and how fast connections come in.

use super::pair::{NOW, Pair};
use super::{PUBLISH_T, SUBSCRIBE_T, Shard, counter};
use crate::engine::access::bans::BannedNames;
use crate::engine::overload::{Meter, SHED_OUTBOX_BYTES_MAX, Stage};
use crate::engine::shard::{Command, ListenerPolicy, Settings};
use crate::engine::time::Timestamp;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// 40,000 bytes to `t` at QoS 0.
fn large() -> Vec<u8> {
    let mut packet = vec![0x30, 0xC3, 0xB8, 0x02, 0, 1, b't'];
    packet.resize(4 + 40_003, b'x');
    packet
}

#[test]
fn qos_0_is_dropped_for_whom_is_behind() {
    let mut shard = Shard::new(|_| {});
    let subscriber = shard.connect(b's', true);
    let publisher = shard.connect(b'p', true);
    shard.say(subscriber, SUBSCRIBE_T);
    shard.core.set_stage(Stage::Shed);
    for _ in 0..5 {
        shard.receive(publisher, &large());
    }
    let heard = shard.hear(subscriber).len();
    assert!(heard <= SHED_OUTBOX_BYTES_MAX, "{heard}");
    assert_eq!(counter(&shard, "dropped_memory"), 4);
    let losses = shard.core.take_losses();
    assert_eq!(&*losses[0].0, "s");
    assert!(
        losses[0].1.to_string().starts_with("4 as"),
        "{}",
        losses[0].1
    );
    assert!(!shard.core.has_losses());
    assert_eq!(counter(&shard, "dropped_outbox_full"), 0);
    shard.core.set_stage(Stage::Normal);
    for _ in 0..5 {
        shard.receive(publisher, &large());
    }
    assert_eq!(shard.hear(subscriber).len(), 5 * large().len());
}

#[test]
fn publishers_are_not_read_and_not_taken_for_silent() {
    let mut shard = Shard::new(|_| {});
    // Keep alive 1 s, 3.1.1, clean session.
    let publisher = shard.core.accept(shard.now, 0).unwrap();
    shard.say(publisher, b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x01\x00\x01p");
    shard.core.set_stage(Stage::Pause);
    shard.receive(publisher, PUBLISH_T);
    let commands = shard.take_commands();
    assert!(matches!(commands[..], [Command::Pause(key)] if key == publisher));
    assert_eq!(counter(&shard, "publishers_paused_memory"), 1);
    for second in 2..10 {
        shard.now = Timestamp::from_ms(second * 1_000);
        shard.core.tick(shard.now);
    }
    assert!(shard.take_commands().is_empty());
    shard.core.set_stage(Stage::Shed);
    assert!(shard.core.has_work());
    shard.core.relieve(shard.now);
    let commands = shard.take_commands();
    assert!(matches!(commands[..], [Command::Resume(key)] if key == publisher));
    shard.now = Timestamp::from_ms(20_000);
    shard.core.tick(shard.now);
    assert!(shard.is_closed(publisher), "now it is silent");
}

#[test]
fn connections_are_refused_when_memory_is_almost_gone() {
    let mut shard = Shard::new(|_| {});
    let there = shard.connect(b'a', true);
    shard.core.set_stage(Stage::Refuse);
    let client = shard.core.accept(shard.now, 0).unwrap();
    let connect = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01b";
    shard.receive(client, connect);
    let commands = shard.take_commands();
    let [Command::Close { rest, .. }] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(
        rest.slices().collect::<Vec<_>>().concat(),
        b"\x20\x02\x00\x03"
    );
    assert_eq!(counter(&shard, "connections_refused_memory"), 1);
    assert_eq!(shard.say(there, b"\xC0\x00"), b"\xD0\x00", "others stay");
    shard.core.set_stage(Stage::Pause);
    shard.connect(b'b', true);
}

/// Shows what a test says.
#[derive(Clone, Default)]
struct Shown(Rc<Cell<u64>>);

impl Meter for Shown {
    fn used_bytes(&self) -> u64 {
        self.0.get()
    }
}

/// A shard that may use 1,000 bytes, as the meter counts.
fn measured(change: impl FnOnce(&mut Settings)) -> (Shard, Shown) {
    let mut shard = Shard::new(change);
    let shown = Shown::default();
    shard.core.measure_memory(Box::new(shown.clone()), 1_000);
    (shard, shown)
}

#[test]
fn a_stage_begins_within_the_turn_that_brings_it_about() {
    let (mut shard, shown) = measured(|_| {});
    let (publisher, other) = (shard.connect(b'p', true), shard.connect(b'o', true));
    while shard.core.next_ready().is_some() {}
    shard.core.begin_turn();
    shard.core.look_at_memory(shard.now);
    shown.0.set(900);
    // Each costs as little as anything; the sum is looked at again before the turn's work is done.
    let many = PUBLISH_T.repeat(4_096);
    shard.receive(publisher, &many);
    assert_eq!(counter(&shard, "publishers_paused_memory"), 1);
    shard.receive(other, SUBSCRIBE_T);
    assert_eq!(
        counter(&shard, "publishers_paused_memory"),
        2,
        "who subscribes too"
    );
    assert_eq!(
        shard.core.deadline(),
        Some(shard.now.plus_ms(100)),
        "it looks again"
    );
    shown.0.set(0);
    shard.core.look_at_memory(shard.now);
    shard.core.relieve(shard.now);
    let commands = shard.take_commands();
    let is_resumed = |key| {
        commands
            .iter()
            .any(|c| matches!(c, Command::Resume(k) if *k == key))
    };
    assert!(is_resumed(publisher) && is_resumed(other));
}

#[test]
fn the_rest_of_an_unfinished_packet_stays_with_its_client() {
    let (mut shard, shown) = measured(|_| {});
    let client = shard.connect(b'c', true);
    let stranger = shard.core.accept(shard.now, 0).unwrap();
    shown.0.set(900);
    shard.core.look_at_memory(shard.now);
    shard.receive(client, &large()[..1_000]);
    assert!(shard.take_commands().is_empty(), "a little is nothing");
    shard.receive(client, &large()[1_000..30_000]);
    let commands = shard.take_commands();
    assert!(matches!(commands[..], [Command::Pause(key)] if key == client));
    let mut connect = b"\x10\x80\x80\x02\x00\x04MQTT\x04\x02\x00\x00\x40\x00".to_vec();
    connect.resize(10_000, b'x');
    shard.receive(stranger, &connect);
    assert!(shard.is_closed(stranger), "nobody knows this one");
    assert_eq!(counter(&shard, "connections_refused_memory"), 1);
}

#[test]
fn who_comes_back_for_messages_is_let_in_when_memory_is_almost_gone() {
    let (mut shard, shown) = measured(|_| {});
    let there = shard.connect(b'a', false);
    shard.core.receive_ended(shard.now, there);
    shard.take_commands();
    shown.0.set(950);
    shard.core.look_at_memory(shard.now);
    shard.connect(b'a', false);
    assert_eq!(counter(&shard, "connections_refused_memory"), 0);
}

#[test]
fn who_has_gone_is_read_to_its_end_however_short_memory_is() {
    let (mut shard, shown) = measured(|_| {});
    let client = shard.connect(b'c', true);
    shard.core.peer_gone(client);
    assert!(shard.take_commands().is_empty(), "it is read anyway");
    shown.0.set(900);
    shard.core.look_at_memory(shard.now);
    shard.receive(client, &large()[..30_000]);
    shard.core.peer_gone(client);
    let commands = shard.take_commands();
    assert!(matches!(commands[..], [Command::Pause(a), Command::Resume(b)] if a == b));
    shard.receive(client, &large()[30_000..35_000]);
    assert!(shard.take_commands().is_empty());
    shard.core.receive_ended(shard.now, client);
    assert!(shard.is_closed(client));
}

#[test]
fn an_unfinished_packet_does_not_wait_for_memory_for_good() {
    let (mut shard, shown) = measured(|_| {});
    let (unfinished, waits) = (shard.connect(b'u', true), shard.connect(b'w', true));
    shown.0.set(900);
    shard.core.look_at_memory(shard.now);
    shard.receive(unfinished, &large()[..30_000]);
    shard.receive(waits, PUBLISH_T);
    for _ in 0..99 {
        shard.core.relieve(shard.now);
        shard.now = shard.now.plus_ms(100);
    }
    assert_eq!(counter(&shard, "connections_cut_memory"), 0);
    for _ in 0..20 {
        shard.core.relieve(shard.now);
        shard.now = shard.now.plus_ms(100);
    }
    assert_eq!(counter(&shard, "connections_cut_memory"), 1);
    let commands = shard.take_commands();
    let closed = |key| {
        let mut closes = commands.iter();
        closes.any(|c| matches!(c, Command::Close { connection, .. } if *connection == key))
    };
    assert!(closed(unfinished) && !closed(waits));
}

/// Turns until nobody is disconnected any more.
fn relieve(shard: &mut Shard) {
    for _ in 0..20 {
        shard.core.relieve(shard.now);
        shard.now = shard.now.plus_ms(100);
    }
}

#[test]
fn those_that_hold_most_go_until_there_is_enough() {
    let (mut shard, shown) = measured(|settings| {
        settings.limits.outbox_bytes_max = 1 << 30;
        settings.limits.socket_send_bytes_max = 0;
    });
    let publisher = shard.connect(b'p', true);
    let keys = [b'a', b'b', b'c', b'd'].map(|id| {
        let key = shard.connect(id, true);
        shard.say(key, SUBSCRIBE_T);
        key
    });
    for _ in 0..3 {
        shard.receive(publisher, &large());
        // The first two take it; what is sent to the others is on its way for good.
        for key in keys {
            if let Some(batch) = shard.core.take_outgoing(key)
                && key.slot() <= keys[1].slot()
            {
                shard.core.sent(shard.now, key, batch);
            }
        }
    }
    // A byte is wanted: one of the two that are stuck is enough.
    shard.core.set_stage(Stage::Refuse);
    shown.0.set(881);
    relieve(&mut shard);
    let gone = |shard: &mut Shard| {
        let commands = shard.take_commands();
        let closed = commands.into_iter().filter_map(|command| match command {
            Command::Close { connection, .. } => Some(connection),
            _ => None,
        });
        closed.collect::<Vec<_>>()
    };
    assert_eq!(
        gone(&mut shard).len(),
        2,
        "it is wanted as long as the meter says so"
    );
    assert_eq!(counter(&shard, "connections_cut_memory"), 2);
    assert!(!shard.is_closed(keys[0]) && !shard.is_closed(publisher));
    // At last those go that wait to publish.
    shard.receive(publisher, PUBLISH_T);
    relieve(&mut shard);
    assert_eq!(gone(&mut shard), [publisher]);
    shown.0.set(0);
    shard.core.look_at_memory(shard.now);
    shard.take_commands();
    while shard.core.next_ready().is_some() {}
    assert!(!shard.core.has_work(), "nobody is looked for any more");
}

const CONNECT: &[u8] = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01b";

#[test]
fn few_may_be_about_to_connect() {
    let mut shard = Shard::new(|settings| settings.limits.connecting_max = 2);
    let keys = [(); 2].map(|()| {
        assert!(shard.core.may_accept(shard.now, 0));
        shard.core.accept(shard.now, 0).unwrap()
    });
    assert!(!shard.core.may_accept(shard.now, 0));
    assert_eq!(counter(&shard, "accepts_paused_connecting"), 1);
    shard.say(keys[0], CONNECT);
    assert!(shard.core.may_accept(shard.now, 0), "one has connected");
    shard.core.accept(shard.now, 0).unwrap();
    assert!(!shard.core.may_accept(shard.now, 0));
    shard.core.receive_ended(shard.now, keys[1]);
    assert!(!shard.core.may_accept(shard.now, 0), "its socket is there");
    for command in shard.take_commands() {
        if let Command::Close { place, .. } = command {
            shard.core.vacate(place);
        }
    }
    assert!(shard.core.may_accept(shard.now, 0), "one has left");
}

#[test]
fn so_many_may_connect_in_a_second() {
    let mut shard = Shard::new(|settings| settings.limits.connect_rate_max = 10);
    for _ in 0..10 {
        assert!(shard.core.may_accept(shard.now, 0));
        let key = shard.core.accept(shard.now, 0).unwrap();
        shard.say(key, CONNECT);
    }
    assert!(!shard.core.may_accept(shard.now, 0));
    let at = shard.core.accept_at(shard.now).unwrap();
    assert_eq!(at.ms_since(shard.now), 100);
    assert!(shard.core.may_accept(at, 0));
    shard.core.accept(at, 0).unwrap();
    assert!(!shard.core.may_accept(at, 0));
    assert!(counter(&shard, "accepts_paused_rate") >= 2);
}

/// However many shards there are; what two have accepted at the same moment is owed.
#[test]
fn so_many_may_connect_in_a_second_to_all_shards_together() {
    let mut pair = Pair::with(|settings| {
        settings.limits.connect_rate_max = 1;
        settings.listeners = vec![ListenerPolicy {
            connect_rate_max: 1,
            ..ListenerPolicy::default()
        }];
    });
    let may = |pair: &mut Pair, shard: usize, at| pair.cores[shard].may_accept(at, 0);
    assert!(may(&mut pair, 0, NOW) && may(&mut pair, 1, NOW));
    let keys = [0, 1].map(|shard| pair.cores[shard].accept(NOW, 0).unwrap());
    let later = NOW.plus_ms(1_999);
    assert!(!may(&mut pair, 0, later) && !may(&mut pair, 1, later));
    assert_eq!(pair.cores[1].accept_at(later), Some(NOW.plus_ms(2_000)));
    assert!(may(&mut pair, 1, NOW.plus_ms(2_000)));
    pair.receive(0, keys[0], CONNECT);
    pair.receive(1, keys[1], CONNECT);
    let refused = pair.cores.each_ref().map(|core| {
        let all = core.statistics();
        let mut all = all
            .iter()
            .filter(|(name, _)| *name == "connections_refused_rate");
        all.next().map(|(_, count)| *count)
    });
    assert_eq!(refused, [Some(0), Some(1)], "of the listener");
}

#[test]
fn a_late_shard_accepts_nobody_for_a_moment() {
    let mut shard = Shard::new(|settings| settings.limits.accept_lag_ms_max = 50);
    assert!(shard.core.may_accept(shard.now, 50));
    assert!(!shard.core.may_accept(shard.now, 51));
    let at = shard.core.accept_at(shard.now).unwrap();
    assert!(shard.core.may_accept(at, 0));
    assert_eq!(shard.core.accept_at(at), None);
    assert_eq!(counter(&shard, "accepts_paused_lag"), 1);
}

#[test]
fn those_that_waited_for_memory_go_on_over_turns() {
    let mut shard = Shard::new(|_| {});
    let names = (0..1_100).map(|n| format!("\0\x04{n:04}").into_bytes());
    let keys: Vec<_> = names.map(|id| shard.connect_with(&[0], &id)).collect();
    shard.core.set_stage(Stage::Pause);
    for key in &keys {
        shard.core.begin_turn();
        shard.core.pause_for_memory(*key);
    }
    shard.core.ban(shard.now, keys[0]);
    shard.take_commands();
    shard.core.set_stage(Stage::Normal);
    let resumed = [(); 3].map(|()| {
        shard.core.relieve(shard.now);
        shard.take_commands().len()
    });
    assert_eq!(resumed, [1_024, 75, 0]);
    assert!(!shard.core.may_resume_publishers());
}

#[test]
fn who_is_banned_by_name_is_found_while_connected() {
    let mut shard = Shard::new(|_| {});
    let keys = [b'a', b'b'].map(|id| shard.connect(id, true));
    let mut names = BannedNames::default();
    names.client_ids.insert("b".into());
    shard.core.set_banned(Arc::new(names));
    assert_eq!(keys.map(|key| shard.core.is_banned(key)), [false, true]);
    shard.core.ban(shard.now, keys[1]);
    assert!(shard.is_closed(keys[1]) && !shard.core.is_banned(keys[1]));
    assert_eq!(counter(&shard, "connections_banned"), 1);
}

/// A packet of 40 KB for `t` at QoS 1.
fn large_qos_1() -> Vec<u8> {
    let mut packet = vec![0x32, 0xC5, 0xB8, 0x02, 0, 1, b't', 0, 9];
    packet.resize(4 + 40_005, b'x');
    packet
}

/// Turns for so long.
fn turns_for(shard: &mut Shard, ms: u64) {
    for _ in 0..ms / 100 {
        shard.core.begin_turn();
        shard.core.look_at_memory(shard.now);
        shard.core.relieve(shard.now);
        shard.now = shard.now.plus_ms(100);
    }
}

#[test]
fn what_lasts_grows_no_more_while_memory_is_short_or_ends_if_that_lasts() {
    let (mut shard, shown) = measured(|_| {});
    let publisher = shard.connect(b'p', true);
    let leave = |shard: &mut Shard, id| {
        let key = shard.connect(id, false);
        shard.say(key, SUBSCRIBE_T);
        key
    };
    let before = leave(&mut shard, b'b');
    shard.core.receive_ended(shard.now, before);
    shard.say(publisher, &large_qos_1());
    shown.0.set(700);
    shard.core.look_at_memory(shard.now);
    let grows = leave(&mut shard, b'g');
    shard.say(publisher, &large_qos_1());
    assert_eq!(counter(&shard, "dropped_memory"), 1, "for who is away");
    assert_eq!(counter(&shard, "queued_messages"), 1);
    assert_eq!(
        counter(&shard, "inflight_messages"),
        1,
        "who is there gets it"
    );
    shard.core.receive_ended(shard.now, grows);
    shown.0.set(900);
    turns_for(&mut shard, 14_900);
    assert_eq!(counter(&shard, "sessions_ended_memory"), 0);
    turns_for(&mut shard, 2_000);
    assert_eq!(counter(&shard, "sessions_ended_memory"), 1);
    assert_eq!(counter(&shard, "dropped_memory"), 2);
    let left = (
        counter(&shard, "sessions"),
        counter(&shard, "queued_messages"),
    );
    assert_eq!(left, (2, 1), "what was there before stays");
    // The next shortage knows nothing of what grew in this one.
    let grows = leave(&mut shard, b'g');
    shown.0.set(0);
    turns_for(&mut shard, 100);
    shard.core.receive_ended(shard.now, grows);
    shown.0.set(960);
    turns_for(&mut shard, 2_000);
    assert_eq!(counter(&shard, "sessions_ended_memory"), 1);
}

/// Who holds little gets what comes, whatever others that are away have let pile up.
#[test]
fn a_little_is_kept_for_each_that_is_away_though_memory_is_short() {
    let (mut shard, shown) = measured(|_| {});
    shard
        .core
        .measure_memory(Box::new(shown.clone()), 1_000_000);
    let publisher = shard.connect(b'p', true);
    let leave = |shard: &mut Shard, id| {
        let key = shard.connect(id, false);
        shard.say(key, SUBSCRIBE_T);
        shard.core.receive_ended(shard.now, key);
    };
    leave(&mut shard, b'h');
    shard.say(publisher, &large_qos_1());
    assert_eq!(counter(&shard, "queued_messages"), 1);
    shown.0.set(700_000);
    shard.core.look_at_memory(shard.now);
    leave(&mut shard, b'l');
    shard.core.look_at_memory(shard.now);
    // A third of 50,000 bytes for each.
    let mut packet = vec![0x32, 0x85, 0x4E, 0, 1, b't', 0, 9];
    packet.resize(3 + 9_989, b'x');
    for (kept, dropped) in [(2, 1), (2, 3)] {
        shard.say(publisher, &packet);
        let counts = ["queued_messages", "dropped_memory"].map(|name| counter(&shard, name));
        assert_eq!(counts, [kept, dropped]);
    }
}

#[test]
fn who_hoards_while_memory_is_very_short_for_long_goes_with_its_session() {
    let (mut shard, shown) = measured(|_| {});
    let publisher = shard.connect(b'p', true);
    let (clean, lasting) = (shard.connect(b'c', true), shard.connect(b'l', false));
    for key in [clean, lasting] {
        shard.say(key, SUBSCRIBE_T);
    }
    shown.0.set(800);
    shard.core.look_at_memory(shard.now);
    shard.say(publisher, &large_qos_1());
    for key in [clean, lasting] {
        shard.hear(key);
    }
    shown.0.set(900);
    turns_for(&mut shard, 14_900);
    assert_eq!(counter(&shard, "connections_cut_memory"), 0);
    turns_for(&mut shard, 2_000);
    let commands = shard.take_commands();
    let closed = |key| {
        let mut closes = commands.iter();
        closes.any(|c| matches!(c, Command::Close { connection, .. } if *connection == key))
    };
    assert!(closed(clean) && closed(lasting) && !closed(publisher));
    assert_eq!(
        counter(&shard, "sessions_ended_memory"),
        1,
        "the other ended by itself"
    );
    assert_eq!(counter(&shard, "sessions"), 1);
}

#[test]
fn nothing_more_is_retained_while_memory_is_short() {
    let (mut shard, shown) = measured(|_| {});
    let publisher = shard.connect(b'p', true);
    let retain = |shard: &mut Shard, topic: u8, payload: &[u8]| {
        let length = 3 + payload.len() as u8;
        let packet = [&[0x31, length, 0, 1, topic], payload].concat();
        shard.say(publisher, &packet);
        counter(shard, "retained_messages")
    };
    assert_eq!(retain(&mut shard, b'a', b"one"), 1);
    assert_eq!(retain(&mut shard, b'b', b"one"), 2);
    shown.0.set(700);
    shard.core.look_at_memory(shard.now);
    assert_eq!(retain(&mut shard, b'c', b"new"), 2);
    assert_eq!(retain(&mut shard, b'a', b"two"), 2);
    assert_eq!(counter(&shard, "dropped_retained_memory"), 1);
    assert_eq!(
        retain(&mut shard, b'a', &[b'x'; 100]),
        1,
        "no older value stays"
    );
    assert_eq!(counter(&shard, "dropped_retained_memory"), 2);
    assert_eq!(retain(&mut shard, b'b', b""), 0);
}

#[test]
fn nobody_waits_for_good_for_memory_that_nobody_can_give_back() {
    let (mut shard, shown) = measured(|_| {});
    let publisher = shard.connect(b'p', true);
    shown.0.set(900);
    shard.core.look_at_memory(shard.now);
    shard.receive(publisher, PUBLISH_T);
    shard.take_commands();
    shown.0.set(890);
    turns_for(&mut shard, 14_900);
    let is_read = |shard: &mut Shard| {
        let commands = shard.take_commands();
        let is_resume = |command: &Command| matches!(command, Command::Resume(_));
        commands.iter().any(is_resume)
    };
    assert!(!is_read(&mut shard));
    turns_for(&mut shard, 2_000);
    assert!(is_read(&mut shard));
    assert_eq!(counter(&shard, "connections_cut_memory"), 0);
}
