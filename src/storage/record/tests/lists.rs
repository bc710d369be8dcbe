//! Lists: one message, one publish, many sessions.

use super::*;

/// Entries of one publish share its name; what is not of it begins another list.
#[test]
fn a_list_is_of_one_publish() {
    let (local, mut shard) = (message("t", b"load"), Shard::new());
    shard.bytes();
    let origins = [
        Origin::new(7, 3),
        Origin::new(7, 3),
        Origin::new(7, 4),
        None,
    ];
    for (entry, origin) in (1..).zip(origins) {
        let mut delivery = delivery(&local, entry);
        delivery.qos = Qos::ExactlyOnce;
        shard.put(Record::Queued {
            session: session(2),
            delivery,
            origin,
        });
    }
    let bytes = shard.bytes();
    let lists = [
        &[25, 10, 7, 3, 1][..],
        &[0x22, 2, 3, 1],
        &[0x02, 0, 2],
        &[25, 7, 7, 4, 1],
        &[0x22, 2, 3, 3],
        &[5, 5, 1, 0x22, 2, 3, 4],
    ];
    assert_eq!(&bytes[15..], lists.concat());
    let told = read(&mut Decoder::new(ORIGIN_MS), &bytes).unwrap();
    let named = told.iter().map(|record| match record {
        Record::Queued { origin, .. } => *origin,
        _ => panic!("{record:?}"),
    });
    assert_eq!(named.collect::<Vec<_>>(), origins);
    // Only QoS 2 waits for its publish.
    let mut wrong = bytes.clone();
    let at = 15 + 5;
    assert_eq!(wrong[at], 0x22);
    wrong[at] = 0x21;
    let refused = read(&mut Decoder::new(ORIGIN_MS), &wrong).unwrap_err();
    assert_eq!(refused.fault, Fault::Value);
}

#[test]
fn a_message_to_many_sessions_is_one_body_and_one_list() {
    let (local, mut shard) = (message("t", b"load"), Shard::new());
    shard.bytes();
    let sessions = [
        session(2),
        session(3),
        session(1),
        number(9, 4),
        number(8, 4),
    ];
    for session in sessions {
        shard.put(queued(session, &local, 1));
    }
    // Named again, from another handle.
    shard.put(Record::Retained {
        message: local.share(),
    });
    let bytes = shard.bytes();
    let list = [
        &[5, 18, 1][..],
        &[0x21, 2, 3, 1],
        &[0x01, 2, 1],
        &[0x01, 3, 1],
        &[0x21, 9, 4, 1],
        &[0x01, 1, 1],
        &[19, 1, 1],
    ];
    assert_eq!(&bytes[15..], list.concat());
    let told = read(&mut Decoder::new(ORIGIN_MS), &bytes).unwrap();
    let mut seen = Vec::new();
    for record in &told {
        if let Record::Queued {
            session, delivery, ..
        } = record
        {
            seen.push(*session);
            let Record::Retained { message } = &told[5] else {
                panic!("retained at the end");
            };
            assert!(Arc::ptr_eq(&delivery.message.share(), message));
        }
    }
    assert_eq!(seen, sessions);
}
