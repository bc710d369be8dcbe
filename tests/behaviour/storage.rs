//! What was acknowledged outlives the broker, however it ends.

use crate::admin::{ANYWHERE, address, get};
use crate::on_shards;
use crate::support::{Broker, Connect, Props, Publish, Setup, Version, Will, eventually, unique};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of one test.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Self {
        let place = std::env::temp_dir().join(unique("ringmq-storage"));
        let _ = fs::remove_dir_all(&place);
        Place(place)
    }

    pub fn setup(&self, shards: usize) -> Setup {
        let path = self.0.to_str().expect("a plain path");
        let setup = Setup::new().shards(shards);
        setup.arg("--storage-directory").arg(path)
    }

    pub fn start(&self, shards: usize) -> Broker {
        self.setup(shards).start()
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).expect("the directory").flatten();
        let paths = entries.map(|entry| entry.path());
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|it| it == "seg");
        let mut segments: Vec<_> = paths.filter(is_segment).collect();
        segments.sort();
        segments
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn kill(mut broker: Broker) {
    broker.signal(Signal::KILL);
    broker.wait_exit();
}

on_shards! { [1, 2, 4]
    a_queue_is_there_after_a_kill,
    retained_messages_are_there_after_a_kill,
    the_second_life_is_kept_like_the_first,
    a_stop_in_order_keeps_as_much,
    a_will_is_published_after_a_kill,
    what_waits_behind_retained_messages_does_not_grow_with_each_start,
}

/// What waits of a client: in its queue, behind retained messages, and the milliseconds of the oldest.
fn waiting(broker: &Broker, client_id: &str) -> [u64; 3] {
    let page = get(address(broker), &format!("/api/v1/clients/{client_id}"));
    let told: serde_json::Value = serde_json::from_str(&page.body).expect("JSON");
    ["queued_messages", "held_messages", "waits_ms"].map(|name| {
        told[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name}: {told}"))
    })
}

fn what_waits_behind_retained_messages_does_not_grow_with_each_start(shards: usize) {
    const QUEUE_MAX: u64 = 100;
    let place = Place::new();
    let limits = format!("[limits]\nqueue_messages_max = {QUEUE_MAX}\ninflight_max = 10\n");
    let setup = place.setup(shards).config(&format!("{ANYWHERE}{limits}"));
    let mut broker = setup.start();
    let mut publisher = Connect::v5("publisher").open(&broker);
    for topic in 0..20 {
        publisher.retain(&format!("r/{topic}"), 1, "kept");
    }
    for round in 0..4 {
        // It acknowledges nothing.
        let mut slow = Connect::v4("slow").persistent().resume().open(&broker);
        slow.send(&slow.subscribe_bytes(1, &Props::new(), &[("r/#", 1)]));
        slow.wait_suback(1);
        let mut publisher = Connect::v5("publisher").open(&broker);
        for number in 0..2 * QUEUE_MAX {
            publisher.publish("r/x", 1, number.to_string());
        }
        let [queued, held, _] = waiting(&broker, "slow");
        let all = queued + held;
        assert!(
            (QUEUE_MAX..=2 * QUEUE_MAX).contains(&all),
            "{queued} and {held} in round {round}"
        );
        kill(broker);
        broker = setup.start();
        let [queued, held, _] = waiting(&broker, "slow");
        assert_eq!(held, 0, "after round {round}");
        assert!(queued <= 2 * QUEUE_MAX, "{queued} after round {round}");
        eventually("the time that it waits grows from the start on", || {
            (waiting(&broker, "slow")[2] > 100).then_some(())
        });
    }
    broker.stop();
}

fn a_queue_is_there_after_a_kill(shards: usize) {
    let place = Place::new();
    let broker = place.start(shards);
    for version in [Version::V4, Version::V5] {
        let name = format!("absent-{version:?}");
        let mut absent = Connect::new(version, &name).persistent().open(&broker);
        absent.subscribe("queue/+", 2);
        absent.disconnect();
    }
    let mut publisher = Connect::v5("publisher").open(&broker);
    for number in 0..100 {
        publisher.publish("queue/a", 1 + number % 2, format!("{number}"));
    }
    publisher.ping();
    kill(broker);
    let broker = place.start(shards);
    for version in [Version::V4, Version::V5] {
        let name = format!("absent-{version:?}");
        let mut back = Connect::new(version, &name).persistent().open(&broker);
        assert!(back.session_present, "{name}");
        let mut got: Vec<_> = (0..100).map(|_| back.accept()).collect();
        // One QoS may overtake the other.
        got.sort_by_key(|got| got.qos);
        for (got, number) in got
            .iter()
            .zip((0..100).step_by(2).chain((1..100).step_by(2)))
        {
            assert_eq!(got.payload, format!("{number}").into_bytes(), "{name}");
            assert_eq!(got.qos, 1 + number % 2);
        }
        back.expect_nothing();
    }
}

fn retained_messages_are_there_after_a_kill(shards: usize) {
    let place = Place::new();
    let broker = place.start(shards);
    let mut publisher = Connect::v5("publisher").open(&broker);
    for topic in 0..20 {
        publisher.retain(&format!("kept/{topic}"), 1, format!("{topic}"));
        publisher.retain(&format!("gone/{topic}"), 1, "soon");
        publisher.retain(&format!("gone/{topic}"), 1, "");
    }
    kill(broker);
    let broker = place.start(shards);
    let mut reader = Connect::v5("reader").open(&broker);
    reader.subscribe("#", 0);
    let mut got: Vec<_> = (0..20).map(|_| reader.accept().topic).collect();
    got.sort();
    let mut wanted: Vec<_> = (0..20)
        .map(|topic| format!("kept/{topic}").into_bytes())
        .collect();
    wanted.sort();
    assert_eq!(got, wanted);
    reader.expect_nothing();
}

fn the_second_life_is_kept_like_the_first(shards: usize) {
    let place = Place::new();
    for life in 0..4 {
        let broker = place.start(shards);
        let mut reader = Connect::v5("reader").persistent().open(&broker);
        assert_eq!(reader.session_present, life > 0);
        if life == 0 {
            reader.subscribe("life/+", 2);
        }
        for earlier in (0..life).rev().take(1) {
            reader.expect("life/a", format!("{earlier}"));
        }
        reader.settle();
        reader.disconnect();
        let mut publisher = Connect::v5("publisher").open(&broker);
        publisher.publish("life/a", 2, format!("{life}"));
        kill(broker);
    }
}

fn a_stop_in_order_keeps_as_much(shards: usize) {
    let place = Place::new();
    let broker = place.start(shards);
    let mut reader = Connect::v5("reader").persistent().open(&broker);
    reader.subscribe("stop/+", 1);
    let mut publisher = Connect::v5("publisher").open(&broker);
    reader.disconnect();
    publisher.publish("stop/a", 1, "kept");
    broker.stop();
    let broker = place.start(shards);
    let mut back = Connect::v5("reader").persistent().open(&broker);
    assert!(back.session_present);
    back.expect("stop/a", "kept");
    back.settle();
    back.expect_nothing();
    broker.stop();
}

fn a_will_is_published_after_a_kill(shards: usize) {
    let place = Place::new();
    let broker = place.start(shards);
    let mut heir = Connect::v5("heir").persistent().open(&broker);
    heir.subscribe("will/+", 1);
    heir.disconnect();
    let will = Will::new("will/a", "last").qos(1);
    // A session that ends with its connection is not kept, nor is its will.
    let mut client = Connect::v5("mortal").persistent().will(will).open(&broker);
    // CONNACK does not wait for a session that begins, SUBACK does.
    client.subscribe("something", 0);
    kill(broker);
    drop(client);
    let broker = place.start(shards);
    let mut heir = Connect::v5("heir").persistent().open(&broker);
    heir.expect("will/a", "last");
}

/// A client that has the first half of a QoS 2 message when the broker is killed gets the second half, and
/// never the message twice.
#[test]
fn messages_of_qos_2_go_on_where_they_were() {
    let place = Place::new();
    let broker = place.start(1);
    let mut reader = Connect::v5("reader").persistent().open(&broker);
    reader.subscribe("two", 2);
    let mut publisher = Connect::v5("publisher").persistent().open(&broker);
    let publish = Publish::new("two", 2, "x");
    let id = publisher.send_publish(&publish);
    publisher.wait_ack(crate::support::Ack::Pubrec, id);
    let got = reader.recv_publish();
    kill(broker);
    let broker = place.start(1);
    let mut reader = Connect::v5("reader").persistent().open(&broker);
    let again = reader.recv_publish();
    assert!(again.dup && again.id == got.id, "{again:?}");
    reader.complete(&again);
    let mut publisher = Connect::v5("publisher").persistent().open(&broker);
    let mut repeat = publish.clone().id(id);
    repeat.dup = true;
    publisher.send_publish(&repeat);
    publisher.wait_ack(crate::support::Ack::Pubrec, id);
    publisher.ack(crate::support::Ack::Pubrel, id);
    publisher.wait_ack(crate::support::Ack::Pubcomp, id);
    reader.settle();
    reader.expect_nothing();
}

#[test]
fn sessions_expire_by_the_wall_clock() {
    let place = Place::new();
    let broker = place.start(1);
    let short = Connect::v5("short").resume().expiry(1).open(&broker);
    short.disconnect();
    eventually("it has left", || {
        (broker.counters().get("connections") == 0).then_some(())
    });
    let mut long = Connect::v5("long").persistent().open(&broker);
    // What is acknowledged now was stored later.
    long.subscribe("something", 1);
    kill(broker);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let broker = place.start(1);
    let is_there = |name| {
        let client = Connect::v5(name).persistent().open(&broker);
        client.session_present
    };
    assert!(!is_there("short") && is_there("long"));
}

/// What cannot be used is refused by name, and is as it was.
#[test]
fn a_directory_that_cannot_be_used_is_refused() {
    let place = Place::new();
    let broker = place.start(4);
    let refused = |shards: usize, parts: &[&str]| {
        let outcome = place.setup(shards).run_to_end();
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        for part in parts {
            assert!(outcome.log.contains(part), "no '{part}' in {}", outcome.log);
        }
        assert!(!outcome.log.contains("panicked"), "{}", outcome.log);
    };
    refused(4, &["another process uses it"]);
    for number in 0..16 {
        let client = Connect::v5(&format!("client-{number}"))
            .persistent()
            .open(&broker);
        client.disconnect();
    }
    broker.stop();
    let broker = place.start(4);
    let client = Connect::v5("client-7").persistent().open(&broker);
    assert!(client.session_present);
    client.disconnect();
    broker.stop();
    let first = place.segments().remove(0);
    flip(&first, 4_096 + 60);
    let name = first.file_name().and_then(|name| name.to_str());
    refused(4, &[name.expect("a name"), "damaged"]);
    flip(&first, 4_096 + 60);
    let broker = place.start(4);
    assert!(
        Connect::v5("client-7")
            .persistent()
            .open(&broker)
            .session_present
    );
}

/// A pipe in a segment's place holds up neither a start nor a tool; a file that may not be made is room that is
/// not there; a directory that was removed under a broker keeps nothing, so nothing is acknowledged there.
#[test]
fn what_stands_in_a_directorys_way_is_said() {
    let place = Place::new();
    place.start(1).stop();
    let pipe = place.0.join("0000000002.seg");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let outcome = place.setup(1).run_to_end();
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    let said = "0000000002.seg is not an ordinary file";
    assert!(outcome.log.contains(said), "{}", outcome.log);
    let check = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["store", "check"])
        .arg(&place.0)
        .output()
        .expect("it runs");
    assert!(!check.status.success());
    let told = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(told.contains(said), "{told}");
    fs::remove_file(&pipe).expect("there");

    let limited = Place::new();
    let outcome = limited
        .setup(1)
        .under(&["prlimit", "--fsize=1048576"])
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.log.contains("no room"), "{}", outcome.log);

    let mut broker = place.start(1);
    let mut absent = Connect::v5("absent").persistent().open(&broker);
    absent.subscribe("kept", 1);
    fs::remove_dir_all(&place.0).expect("there");
    absent.send(
        &Publish::new("kept", 1, "nobody's")
            .id(7)
            .encode(Version::V5),
    );
    assert_eq!(broker.wait_exit().code(), Some(1));
    eventually("it says why", || {
        broker.log().contains("was removed").then_some(())
    });
}

/// A broker may have more shards than the one before, or fewer: everything finds its shard.
#[test]
fn the_number_of_shards_may_change() {
    let place = Place::new();
    let names: Vec<_> = (0..12).map(|number| format!("client-{number}")).collect();
    for (life, shards) in [1, 4, 3, 3, 2].into_iter().enumerate() {
        let broker = place.start(shards);
        for name in &names {
            let mut client = Connect::v5(name).persistent().open(&broker);
            assert_eq!(
                client.session_present,
                life > 0,
                "{name} on {shards} shards"
            );
            match life {
                0 => client.subscribe(&format!("to/{name}"), 2),
                // Of the life before, and of the one before that.
                _ => {
                    for earlier in (0..life).rev().take(1) {
                        client.expect(&format!("to/{name}"), format!("{earlier}"));
                    }
                    client.settle();
                }
            }
            client.expect_nothing();
            client.disconnect();
        }
        let mut publisher = Connect::v5("publisher").open(&broker);
        for name in &names {
            publisher.publish(&format!("to/{name}"), 1 + life as u8 % 2, format!("{life}"));
            publisher.retain(&format!("kept/{name}"), 1, format!("{life}"));
        }
        let mut reader = Connect::v5("reader").open(&broker);
        reader.subscribe("kept/#", 0);
        for _ in &names {
            assert_eq!(reader.accept().payload, format!("{life}").into_bytes());
        }
        kill(broker);
    }
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("a segment");
    bytes[at] ^= 0x10;
    fs::write(file, bytes).expect("written");
}

/// A broker that is started again and again takes no more space with each start.
#[test]
fn starts_that_write_little_take_no_files() {
    let place = Place::new();
    for life in 0..20 {
        let broker = place.start(2);
        if life % 2 == 0 {
            let mut client = Connect::v5("client").persistent().open(&broker);
            client.subscribe(&format!("life/{life}"), 1);
        }
        kill(broker);
        // What was being written when it was killed is no reason either, but may be one once or twice.
        let files = place.segments().len();
        assert!(files <= 4, "{files} files after {life} lives");
    }
    let broker = place.start(2);
    let mut publisher = Connect::v5("publisher").open(&broker);
    for life in (0..20).step_by(2) {
        publisher.publish(&format!("life/{life}"), 1, "words");
    }
    let mut client = Connect::v5("client").persistent().open(&broker);
    for life in (0..20).step_by(2) {
        client.expect(&format!("life/{life}"), "words");
    }
}

/// The last frame that is noted to be safe, in either of two blocks.
fn noted_end(place: &Place) -> u64 {
    let end = fs::read(place.0.join("END")).unwrap_or_default();
    let noted = end
        .chunks_exact(4_096)
        .filter_map(|block| block[52..60].try_into().ok());
    noted.map(u64::from_le_bytes).max().unwrap_or(0)
}

/// What is missing at the log's end is named, with what to do, after a stop and after a kill at rest.
#[test]
fn a_log_without_its_end_is_refused() {
    for is_killed in [false, true] {
        let place = Place::new();
        let broker = place.start(1);
        let mut client = Connect::v5("client").persistent().open(&broker);
        client.subscribe("something", 1);
        client.disconnect();
        if is_killed {
            eventually("its end is noted", || (noted_end(&place) > 0).then_some(()));
            kill(broker);
        } else {
            broker.stop();
        }
        let last = &place.segments()[0];
        let bytes = fs::read(last).expect("a segment");
        let refused = |parts: &[&str]| {
            let outcome = place.setup(1).run_to_end();
            assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
            for part in parts
                .iter()
                .chain(&["ringmq store check", "ringmq store salvage"])
            {
                assert!(outcome.log.contains(part), "no '{part}' in {}", outcome.log);
            }
        };
        fs::remove_file(last).expect("removed");
        refused(&["0000000001.seg is missing"]);
        fs::write(last, &bytes[..4_096]).expect("written");
        refused(&["0000000001.seg: frame 1 at byte 4096, which was acknowledged"]);
        let mut blank = bytes.clone();
        blank.fill(0);
        fs::write(last, &blank).expect("written");
        refused(&["0000000001.seg is empty"]);
        let written = bytes.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
        fs::write(last, &bytes[..written.next_multiple_of(4_096)]).expect("written");
        if is_killed {
            // Whether something stood behind it is known only of a log that was closed.
            refused(&["0000000001.seg ends at byte", "and had 67108864 bytes"]);
            fs::write(last, &bytes).expect("written");
        }
        let broker = place.start(1);
        let client = Connect::v5("client").persistent().open(&broker);
        assert!(client.session_present);
    }
}

/// What was being written when the machine stopped is cut off, and said.
#[test]
fn a_torn_end_is_cut_off() {
    let place = Place::new();
    let broker = place.start(1);
    let client = Connect::v5("kept").persistent().open(&broker);
    client.disconnect();
    broker.stop();
    let last = place.segments().pop().expect("a segment");
    let mut bytes = fs::read(&last).expect("a segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    let at = end.next_multiple_of(4_096);
    bytes[at..at + 100].fill(0x55);
    fs::write(&last, bytes).expect("written");
    let broker = place.start(1);
    assert!(
        broker
            .log()
            .contains("were never acknowledged and are cut off"),
        "{}",
        broker.log()
    );
    assert!(
        Connect::v5("kept")
            .persistent()
            .open(&broker)
            .session_present
    );
}

/// Rounds of a broker that is killed at some moment while it is published to; as many as
/// `RINGMQ_TEST_KILLS` says, if it does.
const KILLS: usize = 10;

on_shards! { [1, 4]
    killed_again_and_again_it_has_what_it_acknowledged,
}

/// Everything that was acknowledged came, in its publisher's order, and at QoS 2 once, also what was sent again
/// because its PUBREC was missing.
fn killed_again_and_again_it_has_what_it_acknowledged(shards: usize) {
    kill_again_and_again(&[shards]);
}

#[test]
fn killed_again_and_again_and_started_with_other_shards_it_has_what_it_acknowledged() {
    kill_again_and_again(&[1, 4, 3]);
}

/// With so many shards by turns, and so that what the kernel has, or only what the disk has, is safe.
fn kill_again_and_again(shards: &[usize]) {
    let rounds = match std::env::var("RINGMQ_TEST_KILLS") {
        Ok(rounds) => rounds.parse().expect("a number"),
        Err(_) => KILLS,
    };
    let seed: u64 = match std::env::var("RINGMQ_TEST_KILL_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => std::process::id().into(),
    };
    eprintln!("again: RINGMQ_TEST_KILL_SEED={seed} cargo test --test behaviour killed_again");
    let mut random = seed;
    let place = Place::new();
    let start = |life: usize| {
        let level = ["disk", "os"][life % 2];
        let setup = place.setup(shards[life % shards.len()]);
        setup
            .config(&format!("[storage]\nlevel = \"{level}\"\n"))
            .start()
    };
    let mut broker = start(0);
    let mut reader = Connect::v5("reader").persistent().open(&broker);
    reader.subscribe("kill/+", 2);
    reader.disconnect();
    let mut acknowledged_in_all = 0;
    for round in 0..rounds {
        let publishers: Vec<_> = (0..4)
            .map(|number: u8| {
                let name = format!("publisher-{round}-{number}");
                let client = Connect::v5(&name).persistent().open(&broker);
                std::thread::spawn(move || publish_until_killed(client, number))
            })
            .collect();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        std::thread::sleep(std::time::Duration::from_millis(20 + (random >> 33) % 200));
        kill(broker);
        let acknowledged = publishers
            .into_iter()
            .map(|it| it.join().expect("a client"));
        let acknowledged: Vec<(u32, Option<Publish>)> = acknowledged.collect();
        broker = start(round + 1);
        let acknowledged = (0..).zip(acknowledged);
        let acknowledged = acknowledged.map(|(number, (count, open))| {
            let name = format!("publisher-{round}-{number}");
            (count, open.map_or(0, |it| send_again(&broker, &name, it)))
        });
        let acknowledged: Vec<(u32, u32)> = acknowledged.collect();
        acknowledged_in_all += acknowledged.iter().map(|(count, _)| count).sum::<u32>();
        let mut reader = Connect::v5("reader").persistent().open(&broker);
        assert!(reader.session_present);
        let mut came: [Vec<u32>; 4] = Default::default();
        loop {
            let some = reader.drain();
            if some.is_empty() {
                break;
            }
            for publish in some {
                let publisher = usize::from(publish.topic[5] - b'0');
                let text = String::from_utf8(publish.payload.clone()).expect("a number");
                came[publisher].push(text.parse().expect("a number"));
                reader.complete(&publish);
            }
        }
        for (publisher, (came, told)) in came.into_iter().zip(acknowledged).enumerate() {
            let wanted: Vec<u32> = (0..came.len() as u32).collect();
            assert_eq!(
                came, wanted,
                "publisher {publisher}, round {round}, seed {seed}"
            );
            let (acknowledged, again) = (told.0 as usize, told.1 as usize);
            let why = format!("publisher {publisher}, round {round}, seed {seed}: {told:?}");
            let at_qos_1 = usize::from(publisher % 2 == 0);
            let least = acknowledged + again;
            assert!(
                came.len() >= least && came.len() <= least + at_qos_1,
                "{why}"
            );
        }
        reader.settle();
        reader.disconnect();
    }
    eprintln!(
        "{rounds} kills, {acknowledged_in_all} messages were acknowledged and came, {shards:?} shards"
    );
}

/// A publish of QoS 2 is sent again, if its session is there; how many were acknowledged now.
fn send_again(broker: &Broker, name: &str, mut publish: Publish) -> u32 {
    let mut client = Connect::v5(name).persistent().open(broker);
    if client.session_present {
        publish.dup = true;
        client.publish_packet(&publish);
    }
    client.session_present.into()
}

/// Publishes one message after the other; how many were acknowledged before the broker was gone, and the one of
/// QoS 2 that was not.
fn publish_until_killed(mut client: crate::support::Client, number: u8) -> (u32, Option<Publish>) {
    let qos = 1 + number % 2;
    for count in 0.. {
        let id = client.fresh_id();
        let publish = Publish::new(format!("kill/{number}"), qos, format!("{count}")).id(id);
        client.send_lossy(&publish.encode(Version::V5));
        let Some(_) = client.next_packet() else {
            return (count, Some(publish).filter(|_| qos == 2));
        };
        if qos == 2 {
            let [high, low] = id.to_be_bytes();
            client.send_lossy(&[0x62, 2, high, low]);
            let Some(_) = client.next_packet() else {
                return (count + 1, None);
            };
        }
    }
    (0, None)
}
