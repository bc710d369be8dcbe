//! Lists of what is kept of one publish.

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
