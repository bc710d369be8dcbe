//! The format, byte by byte, so that it does not change unnoticed; what is refused; any records there and
//! back.

mod lists;

use super::decoder::Decoder;
use super::encoder::Encoder;
use super::refusal::{Fault, Refusal};
use super::window::MESSAGES_MAX;
use crate::engine::access::acl::{Acl, RuleAccess};
use crate::engine::codec::Version;
use crate::engine::keys::{GroupKey, Origin, SessionNumber, ShardId};
use crate::engine::message::{LocalMessage, Message, Qos};
use crate::engine::record::{Opened, Persist, Record, Step, Subscription};
use crate::engine::session::will::Will;
use crate::engine::session::{Delivery, SubscriptionIds};
use crate::engine::time::Timestamp;
use crate::storage::log::frame::{FRAME_BYTES_MAX, Frame, Kind};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

/// What the wall clock shows at the engine's time 0.
const ORIGIN_MS: u64 = 1_000;

fn session(counter: u64) -> SessionNumber {
    number(counter, 3)
}

fn number(counter: u64, shard: u64) -> SessionNumber {
    SessionNumber(NonZeroU64::new(counter << 16 | shard).unwrap())
}

fn acl(rules: &[(RuleAccess, &str)]) -> Acl {
    Acl::from_rules(rules.iter().copied()).expect("rules")
}

fn message(topic: &str, payload: &[u8]) -> LocalMessage {
    let expires_at = Some(Timestamp::from_ms(500));
    let message = Message::new(
        topic,
        b"\x01\x00",
        payload,
        Qos::AtLeastOnce,
        true,
        expires_at,
    );
    LocalMessage::new(Arc::new(message))
}

fn delivery(message: &LocalMessage, entry: u64) -> Delivery {
    Delivery {
        message: message.clone(),
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_ids: SubscriptionIds::None,
        group: None,
        entry,
        queued_at_ds: 0,
    }
}

fn queued(session: SessionNumber, message: &LocalMessage, entry: u64) -> Record {
    let delivery = delivery(message, entry);
    Record::Queued {
        session,
        delivery,
        origin: None,
    }
}

/// An encoder that counts tickets.
struct Shard {
    encoder: Encoder,
    ticket: u64,
}

impl Shard {
    fn new() -> Self {
        Shard {
            encoder: Encoder::new(3, ORIGIN_MS),
            ticket: 0,
        }
    }

    fn put(&mut self, record: Record) {
        self.ticket += 1;
        let ticket = self.ticket;
        self.encoder.put(&Persist { ticket, record });
    }

    fn frames(&mut self) -> Vec<Frame> {
        self.encoder.flush();
        self.encoder.frames().collect()
    }

    /// Of all that was put since, in one frame.
    fn bytes(&mut self) -> Vec<u8> {
        let frames = self.frames();
        frames
            .iter()
            .flat_map(|frame| frame.sealed_records())
            .copied()
            .collect()
    }
}

fn read(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Record>, Refusal> {
    let mut told = Vec::new();
    decoder.read(bytes, |record| told.push(record))?;
    Ok(told)
}

/// All of a record, a message included.
fn text(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| format!("{record:?}")).collect()
}

/// The bytes of records, and what comes back of them.
fn golden(record: Record, bytes: &[u8]) {
    let wanted = text(std::slice::from_ref(&record));
    let mut shard = Shard::new();
    assert_eq!(shard.bytes(), [1, 0], "a process has begun");
    shard.put(record);
    assert_eq!(shard.bytes(), bytes, "{wanted:?}");
    let mut decoder = Decoder::new(ORIGIN_MS);
    assert_eq!(text(&read(&mut decoder, bytes).unwrap()), wanted);
    for cut in 1..bytes.len() {
        let told = read(&mut Decoder::new(ORIGIN_MS), &bytes[..cut]);
        assert!(told.is_err_and(|refusal| refusal.fault == Fault::TooShort) || is_body(bytes, cut));
    }
}

#[test]
fn a_checkpoint_has_these_bytes_and_begins_and_ends_with_frames_of_its_kind() {
    let steps = [
        (Step::Begins, 21, Kind::CheckpointBegins),
        (Step::Restates, 22, Kind::Records),
        (Step::Changes, 23, Kind::Records),
        (Step::Ends, 24, Kind::CheckpointEnds),
    ];
    let message = message("t", b"x");
    let mut shard = Shard::new();
    shard.put(queued(session(1), &message, 1));
    for (step, tag, kind) in steps {
        golden(Record::Checkpoint(step), &[tag, 0]);
        shard.frames();
        shard.put(Record::Checkpoint(step));
        shard.put(Record::Ended {
            session: session(1),
        });
        let frames = shard.frames();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].kind(), kind);
        assert_eq!(frames[0].sealed_records()[..2], [tag, 0]);
    }
    // What was written before its beginning is not named behind it.
    shard.put(queued(session(1), &message, 2));
    let frames = shard.frames();
    assert_eq!(frames[0].sealed_records()[0], 4);
}

/// A process that was killed within what it told anew: what the next one tells are changes.
#[test]
fn what_was_told_anew_ends_with_its_process() {
    let mut decoder = Decoder::new(ORIGIN_MS);
    let steps = |told: &[Record]| {
        let steps = told.iter().filter_map(|record| match record {
            Record::Checkpoint(step) => Some(*step),
            _ => None,
        });
        steps.collect::<Vec<_>>()
    };
    let mut shard = Shard::new();
    shard.put(Record::Checkpoint(Step::Restates));
    let mut told = Vec::new();
    let mut hear = |shard: &mut Shard| {
        told.clear();
        for frame in shard.frames() {
            let read = decoder.read(frame.sealed_records(), |record| told.push(record));
            read.expect("records");
        }
        steps(&told)
    };
    assert_eq!(hear(&mut shard), [Step::Restates]);
    let mut next = Shard::new();
    next.put(Record::Ended {
        session: session(1),
    });
    assert_eq!(hear(&mut next), [Step::Changes]);
    let mut third = Shard::new();
    third.put(Record::Ended {
        session: session(1),
    });
    assert_eq!(hear(&mut third), []);
}

#[test]
fn a_retained_message_counts_as_queued_only_once_it_is() {
    let message = message("t", &[b'x'; 1_000]);
    let mut shard = Shard::new();
    shard.put(Record::Retained {
        message: message.share(),
    });
    shard.frames();
    assert_eq!(shard.encoder.queued(), (0, 0));
    for entry in [1, 2] {
        shard.put(queued(session(1), &message, entry));
        shard.frames();
    }
    let (entries, bytes) = shard.encoder.queued();
    assert_eq!(entries, 2);
    assert!((1_000..1_100).contains(&bytes), "{bytes}");
}

/// Bytes up to `cut` are a message that nobody names yet.
fn is_body(bytes: &[u8], cut: usize) -> bool {
    bytes[0] == 4 && cut == 2 + usize::from(bytes[1])
}

#[test]
fn records_of_sessions_have_these_bytes() {
    let (session, entry, packet_id) = (session(300), 129, 0x1234);
    golden(Record::Ended { session }, &[15, 3, 0xAC, 2, 3]);
    golden(Record::WillGone { session }, &[18, 3, 0xAC, 2, 3]);
    let seconds = u32::MAX;
    golden(
        Record::Expires { session, seconds },
        &[13, 8, 0xAC, 2, 3, 0xFF, 0xFF, 0xFF, 0xFF, 15],
    );
    let at = Timestamp::from_ms(2);
    golden(Record::Left { session, at }, &[14, 5, 0xAC, 2, 3, 0xEA, 7]);
    golden(
        Record::Sent {
            session,
            entry,
            packet_id,
        },
        &[6, 7, 0xAC, 2, 3, 0x81, 1, 0x34, 0x12],
    );
    golden(
        Record::Received {
            session,
            entry,
            packet_id,
        },
        &[8, 7, 0xAC, 2, 3, 0x81, 1, 0x34, 0x12],
    );
    golden(
        Record::Unsent { session, entry },
        &[7, 5, 0xAC, 2, 3, 0x81, 1],
    );
    golden(
        Record::Settled { session, entry },
        &[9, 5, 0xAC, 2, 3, 0x81, 1],
    );
    golden(
        Record::Accepted {
            session,
            packet_id,
            number: 0,
        },
        &[10, 5, 0xAC, 2, 3, 0x34, 0x12],
    );
    golden(
        Record::Accepted {
            session,
            packet_id,
            number: 300,
        },
        &[10, 7, 0xAC, 2, 3, 0x34, 0x12, 0xAC, 2],
    );
    golden(
        Record::Complete {
            after: 300,
            through: 305,
        },
        &[26, 3, 0xAC, 2, 5],
    );
    golden(
        Record::Released { session, packet_id },
        &[11, 5, 0xAC, 2, 3, 0x34, 0x12],
    );
}

#[test]
fn a_session_and_its_subscriptions_have_these_bytes() {
    let mut opened = Opened {
        session: session(1),
        client_id: "cl".into(),
        version: Version::V3_1_1,
        user_name: None,
        own_rules: None,
        expiry_seconds: 7,
        queue_bytes_max: 256,
        will: None,
    };
    golden(
        Record::Opened(Box::new(opened.clone())),
        b"\x0C\x0A\x01\x03\x00\x04\x02cl\x07\x80\x02",
    );
    rules_of_its_own(&mut opened);
    opened.own_rules = None;
    opened.user_name = Some("u".into());
    opened.version = Version::V5;
    opened.will = Some(Box::new(Will {
        topic: "w".into(),
        payload: b"gone"[..].into(),
        forwarded: b"\x01\x01"[..].into(),
        qos: Qos::ExactlyOnce,
        retain: true,
        expiry_seconds: Some(9),
        delay_seconds: 8,
    }));
    golden(
        Record::Opened(Box::new(opened)),
        b"\x0C\x19\x01\x03\x03\x05\x02cl\x01u\x07\x80\x02\x0E\x01w\x04gone\x02\x01\x01\x09\x08",
    );
    golden(
        Record::Subscribed(Box::new(Subscription {
            session: session(1),
            filter: "a/#".into(),
            share: Some("g".into()),
            subscription_id: 5,
            qos: Qos::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
        })),
        b"\x10\x0A\x01\x03\x1D\x03a/#\x01g\x05",
    );
    for (share, bytes) in [
        (None, &b"\x11\x07\x01\x03\x00\x03a/#"[..]),
        (Some("g".into()), b"\x11\x09\x01\x03\x04\x03a/#\x01g"),
    ] {
        let (session, filter) = (session(1), "a/#".into());
        golden(
            Record::Unsubscribed {
                session,
                filter,
                share,
            },
            bytes,
        );
    }
}

fn rules_of_its_own(opened: &mut Opened) {
    for (acl, flags, rules) in [
        (Acl::everything(), 12, &b"\x02"[..]),
        (acl(&[(RuleAccess::Deny, "a")]), 4, b"\x02\x01\x04\x01a"),
        (acl(&[]), 4, b"\x02\x00"),
    ] {
        opened.own_rules = Some(("http", Arc::new(acl)));
        let length = 10 + rules.len() as u8;
        let head = [12, length, 1, 3, flags, 4, 2, b'c', b'l'];
        let bytes = [&head[..], rules, b"\x07\x80\x02"].concat();
        golden(Record::Opened(Box::new(opened.clone())), &bytes);
        let back = read(&mut Decoder::new(ORIGIN_MS), &bytes).unwrap();
        let [Record::Opened(back)] = &back[..] else {
            panic!("{back:?}");
        };
        assert_eq!(**back, *opened);
    }
}

#[test]
fn messages_have_these_bytes() {
    let body = b"\x04\x0D\x01\x0D\xDC\x0B\x01t\x02\x01\x00load";
    let local = message("t", b"load");
    let retained = Record::Retained {
        message: local.share(),
    };
    golden(retained, &[&body[..], &[19, 1, 1]].concat());
    golden(Record::RetainedGone { topic: "t".into() }, b"\x14\x02\x01t");
    golden(
        queued(session(2), &local, 7),
        &[&body[..], &[5, 5, 1, 0x21, 2, 3, 7]].concat(),
    );
    let mut full = delivery(&local, 7);
    full.qos = Qos::ExactlyOnce;
    full.retain = true;
    full.subscription_ids = SubscriptionIds::Many([4, 300].into());
    full.group = Some(Rc::new(GroupKey {
        filter: "f".into(),
        name: "n".into(),
    }));
    let record = |origin| Record::Queued {
        session: session(2),
        delivery: full.clone(),
        origin,
    };
    let entry = b"\x05\x0D\x01\x3E\x02\x03\x07\x02\x04\xAC\x02\x01f\x01n";
    golden(record(None), &[&body[..], &entry[..]].concat());
    let once = b"\x19\x10\x07\xAC\x02\x01\x3E\x02\x03\x07\x02\x04\xAC\x02\x01f\x01n";
    golden(
        record(Origin::new(7, 300)),
        &[&body[..], &once[..]].concat(),
    );
}

#[test]
fn ten_thousand_sessions_take_eight_bytes_each_at_most() {
    let (local, mut shard) = (message("t", &[7; 64]), Shard::new());
    for n in 0..10_000 {
        // Numbers far apart, and entries of sessions that have had very many.
        shard.put(queued(
            session(1 + n * 7919 % 1_000_000),
            &local,
            100_000_000 + n,
        ));
    }
    let frames = shard.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].ticket, 10_000);
    let bytes = frames[0].sealed_records().len();
    assert!(bytes <= 8 * 10_000 + 64 + 100, "{bytes} bytes");
}

#[test]
fn what_may_be_named_is_named_and_what_may_not_is_written_again() {
    let mut shard = Shard::new();
    let mut decoder = Decoder::new(ORIGIN_MS);
    let bodies = |shard: &mut Shard| {
        let bytes = shard.bytes();
        let (mut rest, mut count) = (&bytes[..], 0);
        while let [tag, length, more @ ..] = rest {
            count += usize::from(*tag == 4);
            rest = &more[usize::from(*length)..];
        }
        (count, bytes)
    };
    let first = message("t", b"1");
    let mut put = |shard: &mut Shard, wanted: usize, local: &LocalMessage| {
        shard.put(queued(session(1), local, shard.ticket + 1));
        let (count, bytes) = bodies(shard);
        assert_eq!(count, wanted, "ticket {}", shard.ticket);
        assert_eq!(read(&mut decoder, &bytes).map(|told| told.len()), Ok(1));
    };
    put(&mut shard, 1, &first);
    for _ in 1..MESSAGES_MAX {
        // Each lies where another one had lain, if its place were free.
        put(&mut shard, 1, &message("t", b"n"));
    }
    put(&mut shard, 0, &first);
    put(&mut shard, 1, &message("t", b"n"));
    put(&mut shard, 1, &first);
    put(&mut shard, 0, &first);
    shard.encoder.forget_messages();
    put(&mut shard, 1, &first);
}

#[test]
fn a_record_larger_than_a_frame_comes_in_parts() {
    let mut shard = Shard::new();
    let large = message("t", &vec![7; 3 * FRAME_BYTES_MAX]);
    shard.put(queued(session(1), &message("t", b"x"), 1));
    shard.put(queued(session(1), &large, 2));
    shard.put(queued(session(1), &message("t", b"y"), 3));
    let frames = shard.frames();
    let tickets: Vec<_> = frames.iter().map(|frame| frame.ticket).collect();
    assert_eq!(tickets, [1, 1, 1, 3]);
    assert!(
        frames
            .iter()
            .all(|frame| frame.wire().len() <= FRAME_BYTES_MAX)
    );
    let mut decoder = Decoder::new(ORIGIN_MS);
    let told: Vec<_> = frames
        .iter()
        .flat_map(|frame| read(&mut decoder, frame.sealed_records()).unwrap())
        .collect();
    let payloads: Vec<_> = told
        .iter()
        .map(|record| match record {
            Record::Queued { delivery, .. } => delivery.message.payload().len(),
            _ => 0,
        })
        .collect();
    assert_eq!(payloads, [1, 3 * FRAME_BYTES_MAX, 1]);
    // A crash may have left the first of them; then another process goes on.
    let mut decoder = Decoder::new(ORIGIN_MS);
    read(&mut decoder, frames[0].sealed_records()).unwrap();
    let other = read(&mut decoder, &[15, 2, 1, 3]).unwrap_err();
    assert_eq!(other.fault, Fault::Interrupts);
    let mut next = Shard::new();
    next.put(queued(session(1), &large, 2));
    for frame in next.frames() {
        read(&mut decoder, frame.sealed_records()).unwrap();
    }
    // The middle of it alone is nothing.
    let missing = read(&mut Decoder::new(0), frames[1].sealed_records()).unwrap_err();
    assert_eq!(missing.fault, Fault::NoFirstPart);
}

/// Each is refused for its record that begins at byte `at`.
fn refused(at: usize, fault: Fault, cases: &[(&str, &[u8])]) {
    for (name, bytes) in cases {
        let refusal = read(&mut Decoder::new(0), bytes).expect_err(name);
        assert_eq!((refusal.at, refusal.fault), (at, fault), "{name}");
        assert_eq!(refusal.tag, bytes[at], "{name}");
    }
}

#[test]
fn what_is_no_record_is_refused_by_name() {
    refused(0, Fault::UnknownTag, &[("zeros", &[0; 8])]);
    refused(2, Fault::UnknownTag, &[("a new kind", &[1, 0, 27, 0])]);
    refused(0, Fault::TooShort, &[("no length", &[15])]);
    refused(0, Fault::TooShort, &[("nothing behind", &[15, 100])]);
    let beyond_all = [4, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1];
    refused(0, Fault::TooLarge, &[("a length", &beyond_all)]);
    refused(0, Fault::Number, &[("padded", &[15, 0x82, 0, 1, 3])]);
    refused(0, Fault::TooLong, &[("left over", &[15, 3, 1, 3, 9])]);
    refused(0, Fault::Text, &[("no text", &[20, 2, 1, 0xFF])]);
    let values: [(&str, &[u8]); 7] = [
        ("session 0", &[15, 2, 0, 0]),
        ("a shard beyond all", &[15, 4, 1, 0x80, 0x80, 4]),
        ("entry 0", &[9, 3, 1, 3, 0]),
        ("packet identifier 0", &[10, 4, 1, 3, 0, 0]),
        ("no such version", &[12, 4, 1, 3, 0, 6]),
        ("no such flag", &[12, 4, 1, 3, 16, 5]),
        ("QoS 3", &[16, 6, 1, 3, 3, 1, b'a', 0]),
    ];
    refused(0, Fault::Value, &values);
    let refusal = read(&mut Decoder::new(0), &[15, 100]).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "record 15 (session ended) at byte 0 of its frame: it ends too early"
    );
}

#[test]
fn what_names_a_message_wrongly_is_refused_by_name() {
    let body = b"\x04\x07\x01\x01\x01t\x00xy";
    let refused_behind = |fault, cases: &[&[u8]]| {
        for bytes in cases {
            refused(9, fault, &[("behind a message", &[body, *bytes].concat())]);
        }
    };
    refused(0, Fault::NoBody, &[("no message", &[19, 1, 1])]);
    refused_behind(Fault::NoBody, &[&[19, 1, 2], &[19, 1, 0]]);
    refused_behind(Fault::BodyOrder, &[body]);
    let empty = [5, 1, 1];
    let ids_without_end = [5, 11, 1, 0x29, 1, 3, 1, 0xFF, 0xFF, 0xFF, 0xFF, 15, 1];
    refused_behind(Fault::TooShort, &[&empty, &ids_without_end]);
    let qos_0 = [5, 5, 1, 0x20, 1, 3, 1];
    let no_session_before = [5, 4, 1, 1, 1, 1];
    let no_ids = [5, 6, 1, 0x29, 1, 3, 1, 0];
    refused_behind(Fault::Value, &[&qos_0, &no_session_before, &no_ids]);
    refused(0, Fault::TooShort, &[("an empty part", &[2, 0])]);
    refused(0, Fault::PartInParts, &[("a part", &[2, 2, 3, 9])]);
    let too_much = [2, 1, 15, 3, 4, 2, 1, 3, 9];
    refused(3, Fault::TooLong, &[("too much in parts", &too_much)]);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    /// A number of any size.
    fn size(&mut self) -> u64 {
        let bits = self.below(64);
        self.next() >> bits
    }

    fn text(&mut self) -> String {
        let of = ["a", "ü", "/", "#", "€", "x"];
        let count = self.below(40);
        (0..count).map(|_| of[self.below(6) as usize]).collect()
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let count = self.below(most + 1);
        (0..count).map(|_| self.next() as u8).collect()
    }

    fn qos(&mut self) -> Qos {
        [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][self.below(3) as usize]
    }

    fn session(&mut self) -> SessionNumber {
        number(
            (self.size() >> 16) + 1,
            [3, 3, 3, self.below(1 << 16)][self.below(4) as usize],
        )
    }

    fn time(&mut self) -> Timestamp {
        [Timestamp::NEVER, Timestamp::from_ms(self.size() >> 1)][usize::from(self.below(9) > 0)]
    }

    fn message(&mut self) -> LocalMessage {
        let (topic, properties) = (self.text(), self.bytes(20));
        let payload = self.bytes(300);
        let (qos, retain) = (self.qos(), self.chance());
        let expires_at = self.chance().then(|| self.time());
        let message = Message::new(&topic, &properties, &payload, qos, retain, expires_at);
        LocalMessage::new(Arc::new(message))
    }

    fn delivery(&mut self, message: &LocalMessage) -> Delivery {
        let ids: Vec<u32> = (0..self.below(4)).map(|_| self.size() as u32).collect();
        let mut delivery = delivery(message, self.size() >> 1 | 1);
        delivery.qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][self.below(2) as usize];
        delivery.retain = self.chance();
        delivery.subscription_ids = match ids.as_slice() {
            [] => SubscriptionIds::None,
            [id] => SubscriptionIds::One(*id),
            ids => SubscriptionIds::Many(ids.into()),
        };
        delivery.group = (self.below(5) == 0).then(|| {
            let (filter, name) = (self.text().into(), self.text().into());
            Rc::new(GroupKey { filter, name })
        });
        delivery
    }

    fn opened(&mut self) -> Opened {
        let will = self.chance().then(|| {
            Box::new(Will {
                topic: self.text().into(),
                payload: self.bytes(100).into(),
                forwarded: self.bytes(100).into(),
                qos: self.qos(),
                retain: self.chance(),
                expiry_seconds: self.chance().then(|| self.size() as u32),
                delay_seconds: self.size() as u32,
            })
        });
        Opened {
            session: self.session(),
            client_id: self.text().into(),
            version: [Version::V3_1, Version::V3_1_1, Version::V5][self.below(3) as usize],
            user_name: self.chance().then(|| self.text().into()),
            own_rules: self.chance().then(|| {
                let rules = [(RuleAccess::Read, "a/%u"), (RuleAccess::ReadWrite, "#")];
                ("jwt", Arc::new(acl(&rules[..self.below(3) as usize])))
            }),
            expiry_seconds: self.size() as u32,
            queue_bytes_max: self.size() as usize,
            will,
        }
    }

    fn record(&mut self, messages: &mut Vec<LocalMessage>) -> Record {
        if messages.is_empty() || self.below(20) == 0 {
            messages.push(self.message());
            if messages.len() > 5 {
                messages.remove(0);
            }
        }
        let message = messages[self.below(messages.len() as u64) as usize].clone();
        let (session, entry) = (self.session(), self.size() >> 1 | 1);
        let packet_id = self.next() as u16 | 1;
        match self.below(40) {
            0 => Record::Opened(Box::new(self.opened())),
            1 => Record::Expires {
                session,
                seconds: self.size() as u32,
            },
            2 => Record::Left {
                session,
                at: self.time(),
            },
            3 => Record::Ended { session },
            4 => Record::Subscribed(Box::new(Subscription {
                session,
                filter: self.text().into(),
                share: self.chance().then(|| self.text().into()),
                subscription_id: self.size() as u32,
                qos: self.qos(),
                no_local: self.chance(),
                retain_as_published: self.chance(),
            })),
            5 => Record::Unsubscribed {
                session,
                filter: self.text().into(),
                share: self.chance().then(|| self.text().into()),
            },
            6 => Record::Sent {
                session,
                entry,
                packet_id,
            },
            7 => Record::Unsent { session, entry },
            8 => Record::Received {
                session,
                entry,
                packet_id,
            },
            9 => Record::Settled { session, entry },
            10 => Record::Accepted {
                session,
                packet_id,
                number: self.below(1_000),
            },
            11 => Record::Released { session, packet_id },
            12 => Record::WillGone { session },
            13 => Record::Retained {
                message: message.share(),
            },
            14 => Record::RetainedGone {
                topic: self.text().into(),
            },
            15 => Record::Checkpoint(self.step()),
            16 => self.complete(),
            _ => self.queued(session, &message),
        }
    }

    fn complete(&mut self) -> Record {
        let after = self.below(1_000);
        Record::Complete {
            after,
            through: after + 1 + self.below(1_000),
        }
    }

    fn queued(&mut self, session: SessionNumber, message: &LocalMessage) -> Record {
        let delivery = self.delivery(message);
        let origin = Origin::new(self.below(3) as ShardId, self.below(3));
        Record::Queued {
            session,
            origin: origin.filter(|_| delivery.qos == Qos::ExactlyOnce),
            delivery,
        }
    }

    fn step(&mut self) -> Step {
        const STEPS: [Step; 4] = [Step::Begins, Step::Restates, Step::Changes, Step::Ends];
        STEPS[self.below(4) as usize]
    }
}

#[test]
fn any_records_come_back_in_frames_of_any_size() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut shard = Shard::new();
        let frame_bytes = [100, 300, 5_000, FRAME_BYTES_MAX][random.below(4) as usize];
        shard.encoder = shard.encoder.with_frame_bytes_max(frame_bytes);
        let mut decoder = Decoder::new(ORIGIN_MS);
        let (mut messages, mut wanted, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..1 + random.below(20) {
            for _ in 0..random.below(40) {
                let record = random.record(&mut messages);
                wanted.extend(text(std::slice::from_ref(&record)));
                shard.put(record);
            }
            if random.below(9) == 0 {
                shard.encoder.forget_messages();
            }
            for frame in shard.frames() {
                assert!(frame.wire().len() <= frame_bytes.next_multiple_of(16) + 64);
                let read = read(&mut decoder, frame.sealed_records());
                told.extend(text(
                    &read.unwrap_or_else(|refusal| panic!("seed {seed}: {refusal}")),
                ));
                let complete = told.len() as u64;
                assert_eq!(frame.ticket, complete, "seed {seed}");
                shard.encoder.reuse(frame.into_buffer());
            }
        }
        assert_eq!(told, wanted, "seed {seed}");
    }
}
