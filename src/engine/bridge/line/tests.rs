//! A line packet by packet, between a remote broker and a core that the tests play.

use super::*;
use crate::engine::bridge::plan::{Direction, Known, Taken, TopicRule};
use crate::engine::codec::ack::Ack;
use crate::engine::codec::connect::{Connack, Connect};
use crate::engine::codec::publish::{Publish, PublishHead};
use crate::engine::codec::subscribe::Subscribe;
use crate::engine::codec::topic::TopicLimits;
use crate::engine::codec::{Packet, Reason};
use crate::engine::limits::OwnQueue;

mod granted;

fn plan(rules: Vec<TopicRule>) -> Plan {
    Plan {
        name: "b".into(),
        session_id: "$bridge/b".into(),
        local_user: "bridge-b".into(),
        client_id: "there".into(),
        user_name: None,
        password: None,
        keep_alive_seconds: 60,
        lasts_ms: None,
        idle_ms: None,
        is_persistent: true,
        queue: OwnQueue::default(),
        part: None,
        topics: rules.into(),
        topic_alias_max: 2,
        known: Known {
            filters_per_subscribe_max: 2,
            ..Known::NOTHING
        },
        remote_state_topic: None,
        broker_name: "here".into(),
        hops_max: 8,
        taken: Taken {
            topics: TopicLimits {
                bytes_max: 100,
                levels_max: 8,
            },
            packet_bytes_max: 1_000,
            receive_maximum: 10,
            qos_max: Qos::ExactlyOnce,
            retain_available: true,
            connect_timeout_ms: 10_000,
        },
    }
}

fn both(filter: &str) -> TopicRule {
    TopicRule {
        filter: filter.into(),
        direction: Direction::Both,
        remote_prefix: "r/".into(),
        ..TopicRule::default()
    }
}

/// Frames of what was said, with their bytes.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        match split(bytes, usize::MAX).unwrap() {
            Split::Whole(frame, used) => {
                all.push((frame.first_byte, frame.body.to_vec()));
                bytes = &bytes[used..];
            }
            Split::Partial(_) => panic!("half a packet"),
        }
    }
    all
}

struct Wire(Line);

impl Wire {
    fn up(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut up = Vec::new();
        self.0.take_up(&mut up);
        frames(&up)
    }

    fn down(&mut self) -> Vec<(u8, Vec<u8>)> {
        frames(&self.0.take_down())
    }

    fn core(&mut self, bytes: &[u8]) {
        self.0.from_core([bytes].into_iter());
    }

    fn end(&mut self) -> End {
        let news = self.0.take_news();
        let end = news.into_iter().find_map(|news| match news {
            News::Ended(end) => Some(end),
            _ => None,
        });
        end.expect("it has ended")
    }
}

fn connack(connack: &Connack<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    connack.encode(version, &mut bytes);
    bytes
}

/// A line that is up, with a remote broker that takes so much.
fn opened(plan: Plan, protocol: Protocol, takes: &Connack<'_>) -> Wire {
    let filters = plan.topics.len();
    let mut wire = Wire(Line::new(Arc::new(plan), Purpose::Carry(protocol)));
    wire.0.from_remote(&[]);
    assert_eq!(wire.down()[0].0, 0x10);
    assert!(wire.up().is_empty(), "nothing before CONNACK");
    wire.0.from_remote(&connack(takes, protocol.version));
    let up = wire.up();
    let connect = Connect::decode(&up[0].1).unwrap();
    assert_eq!(
        (connect.client_id, connect.clean_start),
        ("$bridge/b", false)
    );
    assert_eq!(connect.properties.receive_maximum, takes.receive_maximum);
    wire.core(&connack(&Connack::default(), Version::V5));
    let codes = vec![0; filters];
    for (_, body) in wire.down() {
        let subscribe = Subscribe::decode(&body, protocol.version).unwrap();
        let [high, low] = subscribe.packet_id.to_be_bytes();
        let suback: &[u8] = match protocol.version {
            Version::V5 => &[0x90, 4, high, low, 0, 2],
            _ => &[0x90, 3, high, low, 2],
        };
        wire.0.from_remote(suback);
    }
    let mut suback = vec![0x90, 3 + filters as u8, 0xFF, 0xFF, 0];
    suback.extend(codes);
    wire.up();
    wire.core(&suback);
    let up = wire.0.take_news();
    assert_eq!(up, [News::Up(protocol, takes.session_present)]);
    wire
}

const USUAL: Connack<'_> = Connack {
    session_present: false,
    session_expiry_seconds: None,
    receive_maximum: 7,
    qos_max: None,
    packet_bytes_max: None,
    assigned_client_id: None,
    topic_alias_max: 0,
    server_keep_alive_seconds: None,
    response_information: None,
    unavailable: [false; 4],
    authentication: None,
    broker_name: Some("there"),
};

fn publish(version: Version, topic: &str, qos: Qos, properties: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let head = PublishHead {
        version,
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: 5,
        forwarded: properties,
        expiry_seconds: None,
        topic_alias: 0,
        subscription_ids: &[],
        payload_bytes: 2,
    };
    head.encode(&mut bytes);
    bytes.extend_from_slice(b"hi");
    bytes
}

/// What 3.1.1 has no words for.
const PLAIN: Connack<'_> = Connack {
    receive_maximum: u16::MAX,
    ..USUAL
};

fn ack(kind: PacketType, reason: Reason, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ack = Ack {
        kind,
        packet_id: 5,
        reason,
    };
    ack.encode(version, &mut bytes);
    bytes
}

#[test]
fn identifiers_go_through_in_both_directions() {
    for protocol in [Protocol::V5, Protocol::V3_1_1_BRIDGE] {
        let version = protocol.version;
        let mut takes = USUAL;
        if version != Version::V5 {
            takes.receive_maximum = u16::MAX;
        }
        let mut wire = opened(plan(vec![both("a/#")]), protocol, &takes);
        wire.core(&publish(Version::V5, "a/b", Qos::ExactlyOnce, &[]));
        let down = wire.down();
        let sent = Publish::decode(down[0].0, &down[0].1, version).unwrap();
        assert_eq!(
            (sent.topic, sent.qos, sent.packet_id),
            ("r/a/b", Qos::ExactlyOnce, 5)
        );
        for (kind, of_remote) in [
            (PacketType::Pubrec, true),
            (PacketType::Pubrel, false),
            (PacketType::Pubcomp, true),
        ] {
            let got = if of_remote {
                wire.0.from_remote(&ack(kind, Reason::Success, version));
                wire.up()
            } else {
                wire.core(&ack(kind, Reason::Success, Version::V5));
                wire.down()
            };
            assert_eq!(got, [(kind.first_byte(), vec![0, 5])]);
        }
        wire.0
            .from_remote(&publish(version, "r/a/c", Qos::AtLeastOnce, &[]));
        let up = wire.up();
        let got = Publish::decode(up[0].0, &up[0].1, Version::V5).unwrap();
        assert_eq!(
            (got.topic, got.packet_id, got.payload),
            ("a/c", 5, &b"hi"[..])
        );
        wire.core(&ack(PacketType::Puback, Reason::Success, Version::V5));
        assert_eq!(wire.down(), [(0x40, vec![0, 5])]);
    }
}

#[test]
fn cut_anywhere_it_is_the_same() {
    let stream = [
        publish(Version::V5, "r/a", Qos::AtLeastOnce, &[]),
        publish(Version::V5, "r/b", Qos::AtMostOnce, &[]),
    ]
    .concat();
    for cut in 0..stream.len() {
        let mut wire = opened(plan(vec![both("#")]), Protocol::V5, &USUAL);
        wire.0.from_remote(&stream[..cut]);
        wire.0.from_remote(&stream[cut..]);
        assert_eq!(wire.up().len(), 2, "{cut}");
        let back = [
            publish(Version::V5, "a", Qos::AtLeastOnce, &[]),
            publish(Version::V5, "b", Qos::AtMostOnce, &[]),
        ]
        .concat();
        wire.0
            .from_core([&back[..cut.min(back.len())], &back[cut.min(back.len())..]].into_iter());
        assert_eq!(wire.down().len(), 2, "{cut}");
    }
}

#[test]
fn nothing_of_the_remote_goes_on_before_the_core_has_let_it_in() {
    let plan = Arc::new(plan(vec![both("#")]));
    let mut wire = Wire(Line::new(plan, Purpose::Carry(Protocol::V5)));
    wire.0.from_remote(&[]);
    wire.0.from_remote(&connack(&USUAL, Version::V5));
    assert_eq!(wire.up().len(), 1);
    let early = publish(Version::V5, "r/a", Qos::AtMostOnce, &[]);
    while !wire.0.is_backed_up() {
        wire.0.from_remote(&early);
    }
    assert!(wire.up().is_empty() && !wire.0.has_up());
    wire.core(&connack(&Connack::default(), Version::V5));
    assert!(wire.0.has_up() && !wire.0.is_backed_up());
    wire.0.from_remote(&[]);
    assert_eq!(wire.up().len(), 1 + HELD_BYTES_MAX.div_ceil(early.len()));
}

#[test]
fn what_the_remote_does_not_take_is_lowered_or_ended() {
    // QoS 1 there: what is of QoS 2 here gets its PUBREC and PUBCOMP from the line.
    let takes = Connack {
        qos_max: Some(Qos::AtLeastOnce),
        packet_bytes_max: Some(30),
        ..USUAL
    };
    let mut lowest = plan(vec![both("a")]);
    lowest.hops_max = 0;
    let mut wire = opened(lowest, Protocol::V5, &takes);
    wire.core(&publish(Version::V5, "a", Qos::ExactlyOnce, &[]));
    assert_eq!(wire.down()[0].0, 0x32);
    assert!(wire.up().is_empty());
    wire.0
        .from_remote(&ack(PacketType::Puback, Reason::Success, Version::V5));
    assert_eq!(wire.up(), [(0x50, vec![0, 5])]);
    wire.core(&ack(PacketType::Pubrel, Reason::Success, Version::V5));
    assert_eq!((wire.up(), wire.down()), (vec![(0x70, vec![0, 5])], vec![]));
    // Too large: the core is done with it.
    let long = [0x26, 0, 1, b'a', 0, 20].into_iter().chain([b'x'; 20]);
    let long: Vec<_> = long.collect();
    wire.core(&publish(Version::V5, "a", Qos::AtLeastOnce, &long));
    assert_eq!(wire.up(), [(0x40, vec![0, 5, 0x83])]);
    assert_eq!(wire.0.take_counts().dropped_too_large, 1);
    // No rule has it any more.
    wire.core(&publish(Version::V5, "b", Qos::ExactlyOnce, &[]));
    assert_eq!(wire.up(), [(0x50, vec![0, 5, 0x83])]);
    assert_eq!(
        (wire.0.take_counts().dropped_topic, wire.down()),
        (1, vec![])
    );
}

#[test]
fn who_answers_qos_2_by_puback_gets_no_more_of_it() {
    let mut plain = plan(vec![both("a")]);
    plain.hops_max = 0;
    let mut wire = opened(plain, Protocol::V3_1_1, &PLAIN);
    wire.core(&publish(Version::V5, "a", Qos::ExactlyOnce, &[]));
    assert_eq!(wire.down()[0].0, 0x34);
    wire.0.from_remote(&[0x40, 2, 0, 5]);
    assert_eq!(wire.up(), [(0x50, vec![0, 5])]);
    assert_eq!(wire.0.take_news(), [News::NoQos2]);
    wire.core(&ack(PacketType::Pubrel, Reason::Success, Version::V5));
    assert_eq!((wire.up(), wire.down()), (vec![(0x70, vec![0, 5])], vec![]));
    wire.core(&publish(Version::V5, "a", Qos::ExactlyOnce, &[]));
    assert_eq!(wire.down()[0].0, 0x32);
    wire.0.from_remote(&[0x40, 2, 0, 5]);
    assert_eq!(
        (wire.up(), wire.0.take_news()),
        (vec![(0x50, vec![0, 5])], vec![])
    );
    wire.core(&ack(PacketType::Pubrel, Reason::Success, Version::V5));
    wire.up();
    // An identifier is another message's after that.
    wire.core(&publish(Version::V5, "a", Qos::AtLeastOnce, &[]));
    wire.0.from_remote(&[0x40, 2, 0, 5]);
    assert_eq!(wire.up(), [(0x40, vec![0, 5])]);
}

#[test]
fn an_error_ends_what_is_lowered_and_its_identifier_is_free() {
    let takes = Connack {
        qos_max: Some(Qos::AtLeastOnce),
        ..USUAL
    };
    let mut wire = opened(plan(vec![both("a")]), Protocol::V5, &takes);
    wire.core(&publish(Version::V5, "a", Qos::ExactlyOnce, &[]));
    let error = Reason::NotAuthorized;
    wire.0
        .from_remote(&ack(PacketType::Puback, error, Version::V5));
    assert_eq!(wire.up(), [(0x50, vec![0, 5, error.byte()])]);
    wire.core(&publish(Version::V5, "a", Qos::AtLeastOnce, &[]));
    wire.0
        .from_remote(&ack(PacketType::Puback, Reason::Success, Version::V5));
    assert_eq!(wire.up(), [(0x40, vec![0, 5])]);
}

#[test]
fn who_leaves_for_good_leaves_no_session_there() {
    for (protocol, last) in [
        (Protocol::V5, &DISCONNECT_FOR_GOOD[2..]),
        (Protocol::V3_1_1, &[][..]),
    ] {
        let takes = if protocol == Protocol::V5 {
            USUAL
        } else {
            PLAIN
        };
        let mut wire = opened(plan(vec![both("a")]), protocol, &takes);
        wire.0.leave_for_good();
        wire.core(&[0xE0, 1, Reason::AdministrativeAction.byte()]);
        assert_eq!(wire.down(), [(0xE0, last.to_vec())]);
    }
}

#[test]
fn an_end_tells_what_became_of_qos_2() {
    for (answers, of_qos_2) in [
        (None, OfQos2::Unanswered),
        (Some(PacketType::Pubrec), OfQos2::Answered),
    ] {
        let mut wire = opened(plan(vec![both("a")]), Protocol::V3_1_1, &PLAIN);
        wire.core(&publish(Version::V5, "a", Qos::ExactlyOnce, &[]));
        if let Some(kind) = answers {
            let bytes = ack(kind, Reason::Success, Version::V3_1_1);
            wire.0.from_remote(&bytes);
        }
        wire.0.note_end("it resets the connection");
        assert_eq!(wire.end().of_qos_2, of_qos_2);
    }
    // What ends it here shows nothing.
    let mut wire = opened(plan(vec![both("a")]), Protocol::V3_1_1, &PLAIN);
    wire.core(&publish(Version::V5, "a", Qos::ExactlyOnce, &[]));
    wire.0.closed_here();
    assert_eq!(wire.end().of_qos_2, OfQos2::Untried);
}

#[test]
fn what_has_been_there_is_acknowledged_and_goes_no_further() {
    let mut wire = opened(plan(vec![both("#")]), Protocol::V5, &USUAL);
    let mut been = Vec::new();
    super::super::hops::pass(&[], Some("there"), None, 8, &mut been);
    wire.core(&publish(Version::V5, "a", Qos::AtLeastOnce, &been));
    assert_eq!(
        (wire.up(), wire.down()),
        (vec![(0x40, vec![0, 5, 0x83])], vec![])
    );
    let mut been = Vec::new();
    super::super::hops::pass(&[], Some("here"), None, 8, &mut been);
    wire.0
        .from_remote(&publish(Version::V5, "r/a", Qos::ExactlyOnce, &been));
    assert_eq!((wire.up(), wire.down()), (vec![], vec![(0x50, vec![0, 5])]));
    assert_eq!(wire.0.take_counts().dropped_hops, 2);
}

#[test]
fn a_topic_that_is_none_here_goes_no_further() {
    let mut wire = opened(plan(vec![both("#")]), Protocol::V5, &USUAL);
    let deep = format!("r/{}", "x/".repeat(9));
    wire.0
        .from_remote(&publish(Version::V5, &deep, Qos::AtLeastOnce, &[]));
    assert_eq!((wire.up(), wire.down()), (vec![], vec![(0x40, vec![0, 5])]));
}

#[test]
fn each_end_has_its_cause() {
    let begun = |protocol| {
        let mut wire = Wire(Line::new(
            Arc::new(plan(vec![both("#")])),
            Purpose::Carry(protocol),
        ));
        wire.0.from_remote(&[]);
        wire.down();
        wire
    };
    let mut wire = begun(Protocol::V5);
    wire.0.from_remote(&[0x20, 2, 0, 1]);
    let end = wire.end();
    assert!(
        end.is_by_protocol && end.cause.contains("unacceptable protocol version"),
        "{end:?}"
    );
    assert_eq!(end.outcome(), Outcome::FailedByProtocol);
    let mut wire = begun(Protocol::V5);
    wire.0.note_end("it closes the connection");
    wire.0.note_end("later");
    let end = wire.end();
    assert_eq!(end.cause, "it closes the connection before CONNACK");
    assert!(end.is_by_protocol && !end.was_up);
    assert_eq!(end.outcome(), Outcome::Closed);
    let mut wire = begun(Protocol::V5);
    wire.0.from_remote(&[0xD0, 0]);
    let end = wire.end();
    assert!(end.is_breach && end.cause.ends_with("it answers CONNECT with PINGRESP"));
    let mut wire = begun(Protocol::V5);
    let page = format!("HTTP/1.1 400 Bad Request\r\n\r\n{}", "x".repeat(200));
    wire.0.from_remote(page.as_bytes());
    let end = wire.end();
    assert!(end.is_by_protocol && !end.is_breach, "{end:?}");
    let mut wire = begun(Protocol::V5);
    wire.0.note_failure("TLS: it says: certificate required");
    let end = wire.end();
    assert!(!end.is_by_protocol, "another protocol does not help");
    for (code, outcome) in [(0x8E, Outcome::Broke), (0x8B, Outcome::WasUp)] {
        let mut wire = opened(plan(vec![both("a")]), Protocol::V5, &USUAL);
        wire.0.from_remote(&[0xE0, 2, code, 0]);
        assert_eq!(wire.end().outcome(), outcome);
    }
    let mut wire = begun(Protocol::V5);
    wire.0.closed_here();
    assert!(
        wire.end()
            .cause
            .contains("does not answer CONNECT within 10000 ms")
    );
    let mut wire = begun(Protocol::V5);
    let moved = [
        0x20, 11, 0, 0x9D, 8, 0x1C, 0, 5, b'a', b':', b'1', b'8', b'8',
    ];
    wire.0.from_remote(&moved);
    assert_eq!(wire.end().server_reference.as_deref(), Some("a:188"));
    let mut wire = opened(plan(vec![both("#")]), Protocol::V5, &USUAL);
    wire.core(&ack(PacketType::Puback, Reason::QuotaExceeded, Version::V5));
    let end = wire.end();
    assert!(end.was_up && end.cause.contains("no room"), "{end:?}");
    assert_eq!(wire.down(), [(0xE0, vec![])]);
}

/// A line that has said CONNECT, and gets this for it.
fn answered(plan: Plan, bytes: &[u8]) -> Wire {
    let mut wire = Wire(Line::new(Arc::new(plan), Purpose::Carry(Protocol::V5)));
    wire.0.from_remote(&[]);
    wire.down();
    wire.0.from_remote(bytes);
    wire
}

/// It ends for that, once, and the remote broker is told by this code.
fn assert_breach(wire: &mut Wire, told: &[(u8, Vec<u8>)], wanted: &str) {
    let end = wire.end();
    assert!(end.cause.contains(wanted), "{end:?}");
    assert_eq!((end.is_breach, end.outcome()), (true, Outcome::Broke));
    assert_eq!(wire.down(), told, "{wanted}");
    assert_eq!(wire.0.take_counts().breaches, 1);
    wire.0.from_remote(&[0x30, 3, 0, 0, 0]);
    assert!(wire.0.take_news().is_empty(), "told once");
}

#[test]
fn a_connack_that_breaks_the_protocol_ends_the_line() {
    let told = |code| vec![(0xE0, vec![code])];
    for (bytes, told, wanted) in [
        (
            &[0x20, 6, 0, 0, 3, 0x21, 0, 0][..],
            told(0x82),
            "a Receive Maximum of 0",
        ),
        (
            &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 0],
            told(0x82),
            "a Maximum Packet Size of 0",
        ),
        (
            &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 4],
            told(0x82),
            "an acknowledgement has up to 5",
        ),
        (
            &[0x20, 5, 0, 0, 2, 0x24, 2],
            told(0x82),
            "a value outside its range",
        ),
        (&[0x20, 3, 0, 0, 9], told(0x81), "needs more bytes"),
    ] {
        let mut wire = answered(plan(vec![both("#")]), bytes);
        assert_breach(&mut wire, &told, wanted);
    }
    let mut clean = plan(vec![both("#")]);
    clean.is_persistent = false;
    let mut wire = answered(clean, &[0x20, 3, 1, 0, 0]);
    assert_breach(&mut wire, &told(0x82), "though a clean one was asked for");
}

#[test]
fn a_packet_that_breaks_the_protocol_ends_the_line() {
    let told = |code| vec![(0xE0, vec![code])];
    let lowest = || {
        let mut rule = both("#");
        rule.qos_max = Qos::AtLeastOnce;
        opened(plan(vec![rule]), Protocol::V5, &USUAL)
    };
    let large: Vec<_> = [0x30, 0xE8, 7].into_iter().chain([0; 1_000]).collect();
    for (bytes, code, wanted) in [
        (
            &[0x30, 7, 0, 1, b'r', 3, 0x23, 0, 1][..],
            0x94,
            "topic alias 1, though",
        ),
        (
            &[0x30, 6, 0, 0, 3, 0x23, 0, 7],
            0x94,
            "topic alias 7, though",
        ),
        (&[0x30, 3, 0, 0, 0], 0x82, "topic name is empty"),
        (&[0x30, 4, 0, 1, b'#', 0], 0x90, "contains a wildcard"),
        (
            &[0x30, 6, 0, 1, b'r', 2, 0x0B, 1],
            0x82,
            "though it was given none",
        ),
        (
            &[0x34, 6, 0, 1, b'r', 0, 1, 0],
            0x9B,
            "of QoS 2, though 1 at most",
        ),
        (&[0x36, 6, 0, 1, b'r', 0, 1, 0], 0x81, "both set"),
        (
            &large,
            0x95,
            "a packet of 1003 bytes, this broker takes 1000",
        ),
        (
            &[0x90, 4, 0, 9, 0, 0],
            0x82,
            "packet identifier 9, of no SUBSCRIBE",
        ),
        (&[0x41, 2, 0, 9], 0x81, "flags of the fixed header"),
        (&[0xD0, 1, 0], 0x81, "bytes after its last field"),
        (&[0x10, 0], 0x82, "it sends CONNECT, which no broker"),
    ] {
        let mut wire = lowest();
        wire.0.from_remote(bytes);
        assert_breach(&mut wire, &told(code), wanted);
    }
    // A 3.1.1 remote is told nothing.
    let takes = Connack {
        receive_maximum: u16::MAX,
        ..USUAL
    };
    let mut wire = opened(plan(vec![both("#")]), Protocol::V3_1_1, &takes);
    wire.0.from_remote(&[0xE0, 0]);
    assert_breach(&mut wire, &[], "it sends DISCONNECT, which no broker");
    // What only the core sees.
    let mut wire = lowest();
    wire.core(&[0xE0, 2, 0x93, 0]);
    assert_breach(&mut wire, &[(0xE0, vec![])], "Receive Maximum exceeded");
}

#[test]
fn a_suback_answers_for_each_filter() {
    for (suback, wanted) in [
        (
            &[0x90, 5, 0xFF, 0xFF, 0, 0, 0][..],
            "2 reason codes for 1 filters",
        ),
        (&[0x90, 4, 0xFF, 0xFF, 0, 7], "reason code 0x07"),
    ] {
        let mut wire = answered(plan(vec![both("#")]), &[0x20, 3, 0, 0, 0]);
        wire.core(&connack(&Connack::default(), Version::V5));
        wire.down();
        wire.0.from_remote(suback);
        assert_breach(&mut wire, &[(0xE0, vec![0x82])], wanted);
    }
}

#[test]
fn a_subscribe_is_no_larger_than_the_remote_takes() {
    let rules = ["one", "two", "three", "four", "a/filter/too/long/for/it"].map(both);
    let mut plan = plan(rules.to_vec());
    plan.known.filters_per_subscribe_max = 64;
    let mut wire = answered(plan, &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 25]);
    wire.core(&connack(&Connack::default(), Version::V5));
    let sent: Vec<_> = wire.down().into_iter().map(|(_, body)| body).collect();
    let filters = |body: &[u8]| {
        let subscribe = Subscribe::decode(body, Version::V5).unwrap();
        subscribe.requests.len()
    };
    assert_eq!(
        sent.iter().map(|body| filters(body)).collect::<Vec<_>>(),
        [2, 1, 1]
    );
    assert!(sent.iter().all(|body| body.len() + 2 <= 25));
    let news = wire.0.take_news();
    let refused = matches!(&news[..], [News::Refused(Side::Here, filter, why)]
        if filter == "r/a/filter/too/long/for/it" && why.contains("takes 25"));
    assert!(refused, "{news:?}");
}

#[test]
fn topics_are_named_once_where_the_remote_takes_aliases() {
    let takes = Connack {
        topic_alias_max: 2,
        ..USUAL
    };
    let sizes = |takes: &Connack<'_>| {
        let mut free = plan(vec![both("#")]);
        free.hops_max = 0;
        let mut wire = opened(free, Protocol::V5, takes);
        let mut seen = Vec::new();
        for topic in [
            "sensors/one",
            "sensors/two",
            "sensors/one",
            "sensors/one",
            "sensors/six",
            "x",
        ] {
            wire.core(&publish(Version::V5, topic, Qos::AtLeastOnce, &[]));
            let down = wire.down();
            let sent = Publish::decode(down[0].0, &down[0].1, Version::V5).unwrap();
            let alias = sent.properties.topic_alias;
            seen.push((sent.topic.to_owned(), alias, down[0].1.len()));
        }
        seen
    };
    let with = sizes(&takes);
    let named = |topic: &str, alias, bytes| (topic.to_owned(), alias, bytes);
    let wanted = [
        named("r/sensors/one", Some(1), 23),
        named("r/sensors/two", Some(2), 23),
        named("", Some(1), 10),
        named("", Some(1), 10),
        named("r/sensors/six", None, 20),
        named("r/x", None, 10),
    ];
    assert_eq!(with, wanted);
    let without = sizes(&USUAL);
    assert!(
        without
            .iter()
            .all(|(topic, alias, _)| alias.is_none() && !topic.is_empty())
    );
    // What is too large with an alias goes without.
    let tight = Connack {
        packet_bytes_max: Some(22),
        ..takes
    };
    let seen = sizes(&tight);
    assert_eq!(seen[0], named("r/sensors/one", None, 20));
}

/// What a steady flow saves: 1,000 messages of 64 bytes to 16 topics of 41 bytes.
#[test]
fn a_steady_flow_of_few_topics_takes_a_third_less() {
    let bytes = |topic_alias_max| {
        let mut plan = plan(vec![both("#")]);
        (plan.hops_max, plan.topic_alias_max) = (0, 16);
        let takes = Connack {
            topic_alias_max,
            ..USUAL
        };
        let mut wire = opened(plan, Protocol::V5, &takes);
        let mut sum = 0;
        for number in 0..1_000 {
            let topic = format!("plant7/line3/sensor/{:04}/temperature/", number % 16);
            let head = PublishHead {
                version: Version::V5,
                dup: false,
                qos: Qos::AtMostOnce,
                retain: false,
                topic: &topic,
                packet_id: 0,
                forwarded: &[],
                expiry_seconds: None,
                topic_alias: 0,
                subscription_ids: &[],
                payload_bytes: 64,
            };
            let mut packet = Vec::new();
            head.encode(&mut packet);
            packet.extend_from_slice(&[b'x'; 64]);
            wire.core(&packet);
            sum += wire.0.take_down().len();
        }
        sum
    };
    let (without, with) = (bytes(0), bytes(16));
    assert_eq!((without, with), (108_000, 72_624));
}

#[test]
fn who_says_nothing_is_pinged_and_given_up() {
    let mut wire = opened(plan(vec![both("#")]), Protocol::V5, &USUAL);
    assert_eq!(wire.0.tick_ms(), 30_000);
    wire.0.tick();
    for _ in 0..2 {
        wire.down();
        wire.0.tick();
        assert_eq!(wire.down(), [(0xC0, vec![])]);
        wire.0.from_remote(&[0xD0, 0]);
        assert!(wire.up().iter().all(|(first, _)| *first == 0xC0));
    }
    for _ in 0..4 {
        wire.0.tick();
    }
    assert!(wire.end().cause.contains("90 s"));
}
