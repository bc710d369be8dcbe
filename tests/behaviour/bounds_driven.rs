//! Each bound of the table "Every bound" in `src/ARCHITECTURE.md` is driven beyond, and its counter seen to
//! rise: what each test here is for stands beside it. [`ELSEWHERE`] names those that are driven by tests of
//! what else happens there; `bounds.rs` checks that no row is left out.

use crate::admin::{self, ANYWHERE};
use crate::support::{
    Broker, Client, Connect, Packet, Props, Publish, Version, eventually, frame, prop, unique,
};
use std::cell::Cell;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The socket of the admin listener of the one test here that needs one.
fn socket() -> String {
    let folder = env!("CARGO_TARGET_TMPDIR");
    format!("{folder}/drained-{}", std::process::id())
}

/// Rows and counters that other tests drive, by the names of these.
pub const ELSEWHERE: &[(&str, &[&str], &str)] = &[
    (
        "memory of the process and of the kernel for it",
        &[
            "dropped_memory",
            "publishers_paused_memory",
            "connections_refused_memory",
            "connections_cut_memory",
            "sessions_ended_memory",
            "memory_bytes",
            "memory_heap_bytes",
            "memory_resident_bytes",
            "memory_stage",
        ],
        "overload::memory_is_defended_in_stages_and_comes_back",
    ),
    (
        "hops of a message by bridges",
        &["dropped_bridge_hops"],
        "bridges::operators_see_how_it_is",
    ),
    (
        "queue of a bridge",
        &["dropped_queue_full"],
        "bridge_queue::messages_beyond_their_number_go_by_the_bridges_policy",
    ),
    (
        "age of what waits for a bridge",
        &["dropped_queue_age"],
        "bridge_queue::messages_that_are_too_old_do_not_go",
    ),
    (
        "lines of a bridge that its remote ends upon QoS 2 without an answer",
        &["bridge_qos_lowered"],
        "bridge_qos::who_closes_on_qos_2_gets_qos_1",
    ),
    (
        "lines of a bridge that its remote ends soon",
        &["bridge_takeovers"],
        "bridge_told::who_is_taken_over_without_a_word_waits_longer",
    ),
    (
        "redirects of a bridge",
        &["bridge_redirects_refused"],
        "bridge_ways::redirects_in_a_row_are_bounded",
    ),
    (
        "packet of a bridge",
        &["dropped_bridge_too_large"],
        "bridges::what_the_other_broker_does_not_take_is_dropped_or_lowered",
    ),
    (
        "topic of a bridge",
        &["dropped_bridge_topic"],
        "bridges::what_the_other_broker_does_not_take_is_dropped_or_lowered",
    ),
    (
        "what the kernel holds for a connection",
        &["memory_socket_bytes"],
        "overload::memory_is_defended_in_stages_and_comes_back",
    ),
    (
        "descriptors",
        &[
            "connections_refused_descriptors",
            "accepts_paused_descriptors",
        ],
        "surroundings::without_descriptors_connects_are_refused_at_once_and_it_is_said",
    ),
    (
        "outbox, QoS 0",
        &["dropped_outbox_full"],
        "limits::outbox_bytes",
    ),
    (
        "queue",
        &["dropped_queue_full", "queued_messages"],
        "limits::queue_messages",
    ),
    (
        "deliveries per second to a client",
        &["dropped_rate_limited"],
        "guard::deliveries_keep_to_their_rate",
    ),
    (
        "retained",
        &["dropped_retained_full", "retained_messages"],
        "limits::retained_messages",
    ),
    ("retained", &["retained_bytes"], "limits::retained_bytes"),
    (
        "retained",
        &["dropped_retained_memory"],
        "overload::retained_messages_leave_memory_to_serve_others",
    ),
    (
        "mailbox",
        &["mailboxes_full", "publishers_paused_room"],
        "liveness::a_burst_larger_than_a_mailbox_arrives_whole",
    ),
    (
        "records that wait to be stored",
        &["publishers_paused_storage"],
        "storage_space::publishers_wait_for_a_store_that_is_behind",
    ),
    (
        "disk",
        &["publishes_refused_storage", "publishers_paused_storage"],
        "storage_space::a_full_disk_refuses_what_it_cannot_keep_and_goes_on_when_queues_are_shorter",
    ),
    (
        "lines of the log",
        &["log_lines_left_out"],
        "surroundings::a_log_whose_reader_stalls_holds_up_nothing",
    ),
    (
        "lines of the log",
        &["log_lines_failed"],
        "surroundings::lines_that_nobody_took_are_counted",
    ),
    (
        "statistics of a shard",
        &["shards_silent"],
        "surroundings::statistics_do_not_wait_for_a_shard_that_does_not_answer",
    ),
];

/// A broker and the counter that has to rise.
struct Driven {
    broker: Broker,
    counter: &'static str,
    is_seen: Cell<bool>,
}

impl Driven {
    /// It has risen by this much and no more.
    fn rises_by(&self, count: u64) {
        self.broker.await_counter(self.counter, count);
        self.is_seen.set(true);
    }

    /// Goes on until it rises.
    fn rises_while(&self, mut goes_on: impl FnMut()) {
        eventually(self.counter, || {
            goes_on();
            (self.broker.counters().get(self.counter) > 0).then_some(())
        });
        self.is_seen.set(true);
    }

    fn v5(&self) -> Client {
        Connect::v5(&unique("c")).open(&self.broker)
    }

    /// One client after the other sends this and is told so.
    fn each_refused(&self, sent: &[Vec<u8>], code: u8) {
        for bytes in sent {
            let mut client = self.v5();
            client.send_lossy(bytes);
            client.expect_error(&[code]);
        }
        self.rises_by(sent.len() as u64);
    }
}

fn drive(counter: &'static str, config: &str, beyond: impl FnOnce(&Driven)) {
    let driven = Driven {
        broker: Broker::with_config(1, config),
        counter,
        is_seen: Cell::new(false),
    };
    beyond(&driven);
    assert!(driven.is_seen.get(), "nobody looked at {counter}");
}

/// Tests by the rows and the counters that they are for.
macro_rules! driven {
    ($($name:ident: $row:literal $counter:literal $config:expr, $beyond:expr;)+) => {
        /// Rows and counters that are driven here.
        pub const HERE: &[(&str, &str)] = &[$(($row, $counter)),+];

        $(#[test]
        fn $name() {
            drive($counter, $config, $beyond);
        })+
    };
}

fn publish(topic: &str, qos: u8, payload: &[u8]) -> Publish {
    Publish::new(topic, qos, payload).id(7)
}

fn v5(publish: &Publish) -> Vec<u8> {
    publish.encode(Version::V5)
}

/// Comes in and says nothing.
fn dial(broker: &Broker, listener: usize) -> TcpStream {
    TcpStream::connect(broker.addresses()[listener]).expect("connect")
}

fn code(driven: &Driven, listener: usize) -> (Client, u8) {
    let client = Client::over(dial(&driven.broker, listener), Version::V5);
    match Connect::v5(&unique("c")).attempt_over(client) {
        (client, Some(Packet::Connack { code, .. })) => (client, code),
        (_, other) => panic!("{other:?}"),
    }
}

/// Sends until nobody takes it any more.
fn pour(client: &mut Client, bytes: &[u8]) {
    let patience = Some(Duration::from_millis(20));
    client.stream().set_write_timeout(patience).expect("set");
    client.send_lossy(bytes);
}

driven! {
    connects_that_are_not_said_pause_accepts: "accepting" "accepts_paused_connecting"
        "[limits]\nconnecting_max = 2\nconnecting_per_address_max = 2\n", |driven| {
            let mut open = Vec::new();
            driven.rises_while(|| open.push(dial(&driven.broker, 0)));
        };
    connects_that_one_address_does_not_say_are_closed:
        "connections of an address that are not let in yet (no CONNECT, being judged, or refused and not gone)" "connections_refused_connecting"
        "[limits]\nconnecting_max = 4\n", |driven| {
            let _open = [(); 2].map(|()| dial(&driven.broker, 0));
            Client::over(dial(&driven.broker, 0), Version::V5).expect_closed();
            driven.rises_by(1);
        };
    connects_beyond_their_rate_pause_accepts: "accepting" "accepts_paused_rate"
        "[limits]\nconnect_rate_max = 5\n", |driven| {
            let mut open = Vec::new();
            driven.rises_while(|| open.push(driven.v5()));
        };
    a_long_turn_pauses_accepts: "accepting" "accepts_paused_lag"
        "[limits]\naccept_lag_ms_max = 1\nturn_deliveries_max = 1000000\n", |driven| {
            let mut readers: Vec<_> = (0..100).map(|_| driven.v5()).collect();
            readers.iter_mut().for_each(|reader| reader.subscribe("t", 0));
            let mut publisher = driven.v5();
            driven.rises_while(|| publisher.send(&v5(&publish("t", 0, b"x")).repeat(2_000)));
        };
    many_receives_gather: "gathering of events" "ring_gathers"
        "[limits]\ngather_us_max = 20000\n", |driven| {
            let mut readers: Vec<_> = (0..50).map(|_| driven.v5()).collect();
            readers.iter_mut().for_each(|reader| reader.subscribe("t", 0));
            // Without an answer to wait for: the broker has to be busy, whatever else runs.
            let mut publishers: Vec<_> = (0..20).map(|_| driven.v5()).collect();
            let message = v5(&publish("t", 0, b"x"));
            driven.rises_while(|| for _ in 0..100 {
                publishers.iter_mut().for_each(|publisher| publisher.send(&message));
            });
        };
    a_large_packet: "packet" "protocol_errors"
        "[limits]\nmax_packet_bytes = 200\n", |driven| {
            driven.each_refused(&[v5(&publish("t", 1, &[0; 200]))], 0x95);
        };
    a_packet_that_is_too_large_for_its_client: "packet to a client" "dropped_packet_too_large"
        "", |driven| {
            let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, 50);
            let mut small = Connect::v5(&unique("c")).props(props).open(&driven.broker);
            small.subscribe("t", 1);
            driven.v5().publish("t", 1, [0; 100]);
            driven.rises_by(1);
        };
    an_answer_that_is_too_large_for_its_client: "packet to a client" "protocol_errors"
        "", |driven| {
            let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, 50);
            let mut small = Connect::v5(&unique("c")).props(props).open(&driven.broker);
            let filters: Vec<_> = (0..50).map(|n| (n.to_string(), 0)).collect();
            small.send(&small.subscribe_bytes(1, &Props::new(), &filters));
            small.expect_error(&[0x95]);
            driven.rises_by(1);
        };
    a_connack_that_is_too_large_for_its_client: "packet to a client" "connects_refused"
        "", |driven| {
            let props = Props::new().four(prop::MAXIMUM_PACKET_SIZE, 5);
            Connect::v5(&unique("c")).props(props).expect_refused(&driven.broker, &[0x83]);
            driven.rises_by(1);
        };
    a_large_connect: "CONNECT" "protocol_errors"
        "[limits]\nconnect_bytes_max = 128\n", |driven| {
            let mut client = Client::dial(&driven.broker, Version::V5);
            client.send_lossy(&Connect::v5(&"x".repeat(200)).encode());
            client.drain_to_close();
            driven.rises_by(1);
        };
    a_slow_connect: "CONNECT" "connect_timeouts"
        "[limits]\nconnect_timeout_ms = 50\n", |driven| {
            Client::dial(&driven.broker, Version::V5).expect_closed();
            driven.rises_by(1);
        };
    an_older_connection_that_is_not_read_out: "wait for an older connection" "takeovers_unheard"
        "[limits]\ntakeover_wait_ms = 1\nturn_deliveries_max = 1\n", |driven| {
            let id = unique("c");
            driven.rises_while(|| {
                let mut older = Connect::v5(&id).open(&driven.broker);
                older.subscribe("t", 0);
                older.send(&v5(&publish("t", 0, b"x")).repeat(2_000));
                let _newer = Connect::v5(&id).open(&driven.broker);
            });
        };
    a_silent_client: "silence of a client" "keep_alive_timeouts"
        "[mqtt]\nkeep_alive_seconds_max = 1\n", |driven| {
            driven.v5().expect_error(&[0x8D]);
            driven.rises_by(1);
            Connect::v4(&unique("c")).open(&driven.broker).expect_closed();
            driven.rises_by(2);
        };
    a_session_without_a_client: "life of a session without a client" "sessions"
        "[session]\nexpiry_seconds_max = 1\n", |driven| {
            Connect::v5(&unique("c")).persistent().open(&driven.broker).disconnect();
            driven.rises_by(1);
            driven.rises_by(0);
        };
    connections_of_the_broker: "connections" "connections_refused_full"
        "[limits]\nconnections_max = 2\nconnecting_per_address_max = 100\n", |driven| {
            let _open = [driven.v5(), driven.v5()];
            // An eighth and 16 more are told.
            let silent: Vec<_> = (0..15).map(|_| dial(&driven.broker, 0)).collect();
            assert_eq!(code(driven, 0).1, 0x97);
            driven.rises_by(1);
            driven.broker.await_counter("connections", 17);
            let _last = dial(&driven.broker, 0);
            Client::dial(&driven.broker, Version::V5).expect_closed();
            driven.rises_by(2);
            drop(silent);
        };
    connections_that_are_closing: "connections that are closing" "closes_hastened"
        "[limits]\nconnections_max = 16\n", |driven| {
            let mut open = Vec::new();
            driven.rises_while(|| {
                let mut client = driven.v5();
                client.send(&frame(0xE0, b""));
                open.push(client);
            });
        };
    connections_of_a_listener: "connections of a listener" "connections_refused_full"
        "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nconnections_max = 1\n", |driven| {
            let _first = code(driven, 0);
            assert_eq!(code(driven, 0).1, 0x97);
            driven.rises_by(1);
        };
    connections_of_an_address: "connections of an address" "connections_refused_full"
        "[limits]\nconnections_per_address_max = 2\n", |driven| {
            let _first = [code(driven, 0), code(driven, 0)];
            Client::over(dial(&driven.broker, 0), Version::V5).expect_closed();
            driven.rises_by(1);
        };
    connects_of_a_listener: "connects per second of a listener" "connections_refused_rate"
        "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nconnect_rate_max = 1\n", |driven| {
            driven.rises_while(|| drop(code(driven, 0)));
        };
    a_long_topic: "topic" "protocol_errors"
        "[limits]\ntopic_bytes_max = 10\ntopic_levels_max = 3\n", |driven| {
            let sent = ["12345678901", "a/b/c/d"].map(|topic| v5(&publish(topic, 0, b"")));
            driven.each_refused(&sent, 0x90);
        };
    many_filters: "filters per packet" "protocol_errors"
        "[limits]\nfilters_per_subscribe_max = 2\n", |driven| {
            let mut client = driven.v5();
            let filters = [("a", 0), ("b", 0), ("c", 0)];
            let subscribe = client.subscribe_bytes(7, &Props::new(), &filters);
            client.send(&subscribe);
            client.expect_error(&[0x97]);
            driven.rises_by(1);
        };
    answers_that_nobody_reads: "outbox, answers" "receives_paused"
        "[limits]\noutbox_bytes_max = 4096\n", |driven| {
            let mut client = driven.v5();
            let many = v5(&publish("t", 1, b"")).repeat(10_000);
            driven.rises_while(|| pour(&mut client, &many));
        };
    a_full_window: "window" "inflight_messages"
        "[limits]\ninflight_max = 2\n", |driven| {
            let mut client = driven.v5();
            client.subscribe("t", 1);
            let mut publisher = driven.v5();
            for _ in 0..5 {
                publisher.publish("t", 1, "x");
            }
            driven.rises_by(2);
            assert_eq!(driven.broker.counters().get("queued_messages"), 3);
        };
    messages_behind_retained_ones: "held behind retained" "dropped_replay_full"
        "[limits]\ninflight_max = 1\nqueue_messages_max = 5\n", |driven| {
            let mut publisher = driven.v5();
            for n in 0..200 {
                publisher.retain(&format!("kept/{n}"), 1, "x");
            }
            // It acknowledges nothing, so what is retained does not come to its end.
            let mut client = driven.v5();
            client.subscribe("kept/#", 1);
            driven.rises_while(|| publisher.publish("kept/live", 1, "x"));
        };
    work_beyond_a_turn: "work of a turn" "packets_deferred"
        "[limits]\nturn_deliveries_max = 1\n", |driven| {
            let mut client = driven.v5();
            client.subscribe("t", 0);
            driven.rises_while(|| client.send(&v5(&publish("t", 0, b"x")).repeat(20)));
        };
    a_fan_out_beyond_a_turn: "fan-out at once" "packets_deferred"
        "[limits]\nturn_deliveries_max = 16\n", |driven| {
            let mut readers: Vec<_> = (0..8).map(|_| driven.v5()).collect();
            for reader in &mut readers {
                reader.subscribe("t", 0);
            }
            let mut publisher = driven.v5();
            driven.rises_while(|| publisher.send(&v5(&publish("t", 0, b"x")).repeat(2)));
        };
    the_longest_turn: "work of a turn" "turn_us_max"
        "", |driven| driven.rises_while(|| driven.v5().ping());
    the_longest_turn_of_a_shard: "turns of a shard" "turn_us_max"
        "", |driven| driven.rises_while(|| driven.v5().ping());
    turns_that_take_long: "time of a turn" "turns_shortened"
        "[limits]\nturn_us_goal = 100\n", |driven| {
            let mut readers: Vec<_> = (0..30).map(|_| driven.v5()).collect();
            readers.iter_mut().for_each(|reader| reader.subscribe("t", 0));
            let mut publisher = driven.v5();
            let packets = v5(&publish("t", 0, b"x")).repeat(1_000);
            driven.rises_while(|| publisher.send(&packets));
        };
    sends_beyond_a_turn: "sends of a turn" "sends_deferred"
        "[limits]\nturn_sends_max = 1\n", |driven| {
            let mut readers: Vec<_> = (0..3).map(|_| driven.v5()).collect();
            readers.iter_mut().for_each(|reader| reader.subscribe("t", 0));
            let mut publisher = driven.v5();
            driven.rises_while(|| publisher.publish("t", 0, "x"));
        };
    bytes_sent_beyond_a_turn: "sends of a turn" "sends_deferred"
        "[limits]\nturn_send_bytes_max = 1000\n", |driven| {
            let mut readers: Vec<_> = (0..3).map(|_| driven.v5()).collect();
            readers.iter_mut().for_each(|reader| reader.subscribe("t", 0));
            let mut publisher = driven.v5();
            driven.rises_while(|| publisher.publish("t", 0, "x".repeat(1_500)));
        };
    unfinished_publishes: "unfinished QoS 2 inbound, publishes that wait to be stored" "protocol_errors"
        "[limits]\nreceive_maximum = 2\n", |driven| {
            let mut client = driven.v5();
            for id in 1..=3 {
                client.send(&v5(&publish("t", 2, b"x").id(id)));
            }
            let told = client.drain_to_close();
            assert!(matches!(told.last(), Some(Packet::Disconnect { code: 0x93, .. })), "{told:?}");
            driven.rises_by(1);
        };
    aliases: "aliases" "protocol_errors"
        "[limits]\ntopic_alias_max = 1\n", |driven| {
            let beyond = publish("t", 0, b"x").props(Props::new().two(prop::TOPIC_ALIAS, 2));
            driven.each_refused(&[v5(&beyond)], 0x94);
        };
    publishes_beyond_their_rate: "publishes, bytes, filters per second of a client" "rates_exceeded"
        "[limits]\npublish_rate_max = 1\n", |driven| {
            let mut client = driven.v5();
            driven.rises_while(|| client.send(&v5(&publish("t", 0, b"x"))));
        };
    bytes_beyond_their_rate: "publishes, bytes, filters per second of a client" "rates_exceeded"
        "[limits]\npublish_bytes_rate_max = 10\n", |driven| {
            let mut client = driven.v5();
            driven.rises_while(|| client.send(&v5(&publish("t", 0, b"payload"))));
        };
    filters_beyond_their_rate: "publishes, bytes, filters per second of a client" "rates_exceeded"
        "[limits]\nsubscribe_rate_max = 1\n", |driven| {
            let mut client = driven.v5();
            let subscribe = client.subscribe_bytes(7, &Props::new(), &[("t", 0)]);
            driven.rises_while(|| client.send(&subscribe));
        };
    nobody_of_a_group_may_have_it: "shared message whose member has gone" "dropped_no_member"
        &format!("acl_file = {:?}\n", written("topic write #\ntopic read a/1\n")), |driven| {
            let mut client = driven.v5();
            client.subscribe("$share/g/a/#", 1);
            client.publish("a/1", 1, "may be read");
            client.expect("a/1", "may be read");
            client.publish("a/2", 1, "may not");
            driven.rises_by(1);
        };
    headers_that_do_not_end: "PROXY header, upgrade request" "transport_errors"
        "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1/32\"]\n\
         [[listener]]\nurl = \"ws://127.0.0.1:0\"\n", |driven| {
            let proxy = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF"[..], &[0; 5_000]].concat();
            let upgrade = [b"GET /mqtt HTTP/1.1\r\n", &b"X: xxxxxxxxxxxxxxxx\r\n".repeat(2_000)[..]];
            for (listener, sent) in [proxy, upgrade.concat()].iter().enumerate() {
                let _ = dial(&driven.broker, listener).write_all(sent);
                driven.rises_by(listener as u64 + 1);
            }
        };
    pongs_that_are_not_taken: "answers of TLS and WebSocket that a peer does not take" "transport_errors"
        "[[listener]]\nurl = \"ws://127.0.0.1:0\"\n", |driven| {
            let mut stream = dial(&driven.broker, 0);
            let upgrade = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                           Sec-WebSocket-Protocol: mqtt\r\n\r\n";
            stream.write_all(upgrade.as_bytes()).expect("send");
            let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[7; 125]].concat();
            // It reads nothing; that it is closed shows as an error.
            driven.rises_while(|| {
                for _ in 0..20_000 {
                    let _ = stream.write_all(&ping);
                }
            });
        };
    questions_that_nobody_answers: "questions to authentication methods" "authentications_busy"
        &format!("[authentication.http]\ntimeout_ms = 60000\nauthenticate_url = {:?}\n", deaf()), |driven| {
            let connect = || Connect::v4(&unique("c")).login("ann", "x").encode();
            let mut asking: Vec<TcpStream> = Vec::new();
            for _ in 0..1_100 {
                let mut stream = dial(&driven.broker, 0);
                stream.write_all(&connect()).expect("send");
                asking.push(stream);
            }
            driven.rises_while(|| {});
        };
    questions_whose_clients_wait_no_longer: "age of a question" "authentications_late"
        &format!(
            "[limits]\nconnect_timeout_ms = 200\n[authentication]\nthreads = 1\n[authentication.http]\n\
             timeout_ms = 1000\nauthenticate_url = {:?}\n",
            deaf()
        ), |driven| {
            let mut asking = Vec::new();
            driven.rises_while(|| {
                let mut stream = dial(&driven.broker, 0);
                stream.write_all(&Connect::v4(&unique("c")).login("ann", "x").encode()).expect("send");
                asking.push(stream);
            });
        };
    logins_that_wait_for_others: "logins that wait for others of their address" "authentications_busy"
        &format!(
            "[bans]\nfailed_logins_max = 1\n[authentication]\nthreads = 2\n[authentication.http]\ntimeout_ms = 60000\n\
             authenticate_url = {:?}\n",
            deaf()
        ), |driven| {
            let connect = || Connect::v4(&unique("c")).login("ann", "x").encode();
            let asking = (0..300).map(|_| {
                let mut stream = dial(&driven.broker, 0);
                stream.write_all(&connect()).expect("send");
                stream
            });
            let _asking: Vec<_> = asking.collect();
            driven.rises_while(|| {});
        };
    a_long_exchange: "message of a SCRAM exchange" "connects_unauthenticated"
        &format!("password_file = {:?}\n[authentication]\nscram = true\n", written("")), |driven| {
            let begin = |nonce: &str| {
                let props = Props::new().text(prop::AUTH_METHOD, "SCRAM-SHA-256");
                let props = props.text(prop::AUTH_DATA, format!("n,,n=ann,r={nonce}"));
                Connect::v5(&unique("c")).props(props).attempt(&driven.broker).1
            };
            assert!(matches!(begin("nonce"), Some(Packet::Auth { .. })));
            let answer = begin(&"n".repeat(5_000));
            assert!(matches!(answer, Some(Packet::Connack { code: 0x86, .. })), "{answer:?}");
            driven.rises_by(1);
        };
    many_talkers: "clients and topic prefixes of which it is known how much they publish" "talkers_displaced"
        ANYWHERE, |driven| {
            let mut client = Connect::v5("c").open(&driven.broker);
            for number in 0..300 {
                client.publish(&format!("t/{number}/x"), 1, "x");
            }
            driven.rises_by(44);
        };
    many_go_wrong: "clients of which it is known what went wrong last" "client_errors_displaced"
        &format!("{ANYWHERE}[limits]\nconnecting_per_address_max = 100000\n"), |driven| {
            // Each goes without a DISCONNECT.
            for number in 0..1_010 {
                drop(Connect::v5(&format!("c{number}")).open(&driven.broker));
            }
            driven.rises_by(10);
        };
    many_leave: "clients that a drain sends away in a second" "connections_drained"
        &format!("{ANYWHERE}socket = {:?}\n[shutdown]\ndrain_rate = 1\n", socket()), |driven| {
            let _clients: Vec<_> = (0..3)
                .map(|n| Connect::v5(&format!("c{n}")).open(&driven.broker))
                .collect();
            let listener = format!("mqtt://{}", driven.broker.address());
            let words = ["drain", "--listener", &listener, "--admin"];
            let at = format!("unix://{}", socket());
            let done = crate::operator::run(&[&words[..], &[&at]].concat(), &[]);
            assert_eq!(done.status.code(), Some(0), "{done:?}");
            driven.rises_by(1);
            // One in a second, and no more.
            assert!(driven.broker.counters().get("connections") > 0);
            driven.rises_by(3);
        };
    many_operators: "connections to the admin listener" "admin_connections_refused"
        &format!("{ANYWHERE}connections_max = 1\n"), |driven| {
            let address = admin::address(&driven.broker);
            let _first = admin::connect(address);
            driven.rises_while(|| drop(admin::connect(address)));
        };
    many_of_an_address: "connections of an address to the admin listener" "admin_connections_refused"
        &format!("{ANYWHERE}connections_per_address_max = 1\n"), |driven| {
            let address = admin::address(&driven.broker);
            let _first = admin::connect(address);
            driven.rises_while(|| drop(admin::connect(address)));
        };
    a_long_request: "request to the admin listener" "admin_requests_refused"
        &format!("{ANYWHERE}header_bytes_max = 8192\n"), |driven| {
            let mut stream = admin::connect(admin::address(&driven.broker));
            let long = "x".repeat(20_000);
            let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("send");
            assert_eq!(admin::status_of(stream), 431);
            driven.rises_by(1);
        };
    a_long_body: "body of a request to the admin listener" "admin_requests_refused"
        &format!("{ANYWHERE}body_bytes_max = 10\n"), |driven| {
            let address = admin::address(&driven.broker);
            let request = "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                           Content-Length: 11\r\n\r\nxxxxxxxxxxx";
            assert_eq!(admin::ask(address, request).status, 413);
            driven.rises_by(1);
        };
    half_a_body: "time of a request to the admin listener, and of its answer" "admin_timeouts"
        &format!("{ANYWHERE}request_timeout_ms = 50\n"), |driven| {
            let address = admin::address(&driven.broker);
            let request = "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                           Content-Length: 11\r\n\r\nxxx";
            assert_eq!(admin::ask(address, request).status, 408);
            driven.rises_by(1);
        };
    many_requests: "requests of an address to the admin listener" "admin_requests_refused"
        &format!("{ANYWHERE}request_rate_max = 1\n"), |driven| {
            let address = admin::address(&driven.broker);
            driven.rises_while(|| drop(admin::get(address, "/healthz")));
        };
    half_a_request: "time of a request to the admin listener, and of its answer" "admin_timeouts"
        &format!("{ANYWHERE}request_timeout_ms = 50\n"), |driven| {
            let mut stream = admin::connect(admin::address(&driven.broker));
            stream.write_all(b"GET / HTTP/1.1\r\nHost: ").expect("send");
            driven.rises_by(1);
        };
    answers_that_nobody_takes: "answer that its asker does not take" "admin_timeouts"
        &format!("{ANYWHERE}request_timeout_ms = 300\nconnections_max = 1\nrequest_rate_max = 0\n"), |driven| {
            let address = admin::address(&driven.broker);
            let mut greedy = admin::connect(address);
            greedy.set_nonblocking(true).expect("a socket");
            driven.rises_while(|| {
                let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
                for _ in 0..100 {
                    // Its end finds no room, or nobody.
                    let _ = greedy.write_all(request);
                }
            });
            eventually("its place is free", || {
                (admin::get(address, "/healthz").status == 200).then_some(())
            });
        };
    many_traces: "traces that run" "admin_traces_refused"
        &format!("{ANYWHERE}traces_max = 0\n"), |driven| {
            let page = admin::get(admin::address(&driven.broker), "/api/v1/trace?client=c");
            assert_eq!(page.status, 429, "{}", page.body);
            driven.rises_by(1);
        };
    lines_that_nobody_takes: "lines of a trace that wait for who asked" "trace_lines_left_out"
        &format!("{ANYWHERE}trace_queue_max = 1\n"), |driven| {
            let mut asker = admin::connect(admin::address(&driven.broker));
            let request = b"GET /api/v1/trace?topic=t HTTP/1.1\r\nHost: localhost\r\n\r\n";
            asker.write_all(request).expect("send");
            let mut client = driven.v5();
            driven.rises_while(|| {
                client.send(&v5(&publish("t", 0, b"")).repeat(1_000));
                client.ping();
            });
        };
    notes_that_nobody_takes: "notes for the audit log" "notes_left_out"
        &format!("audit_file = {:?}\n", unread()), |driven| {
            let mut client = Connect::v5("same").open(&driven.broker);
            driven.rises_while(|| {
                for _ in 0..300 {
                    let next = Connect::v5("same").open(&driven.broker);
                    std::mem::replace(&mut client, next).drain_to_close();
                }
            });
        };
}

/// A file with this text.
fn written(text: &str) -> String {
    let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("bound"));
    std::fs::write(&path, text).expect("write");
    path
}

/// Where questions are taken and never answered.
fn deaf() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}/auth", listener.local_addr().expect("address"));
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    url
}

/// A pipe that is open to be read and is not, by the name of one that was handed over.
fn unread() -> String {
    let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("pipe"));
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo (coreutils)").success());
    let both = std::fs::File::options().read(true).write(true).open(&path);
    let both = both.expect("open the pipe");
    let handed_over = format!("/proc/{}/fd/{}", std::process::id(), both.as_raw_fd());
    std::mem::forget(both);
    handed_over
}
