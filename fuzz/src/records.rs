//! Bytes as the records of a shard: they are read or refused by name, take no more memory than they are worth,
//! and what was read comes back when it is written again.
//!
//! Input: frames one behind the other, each of one byte that is its length and so many bytes; 0 is for all
//! that is left.

use ringmq::engine::message::Message;
use ringmq::engine::record::{Persist, Record};
use ringmq::engine::session::Delivery;
use ringmq::storage::image::Image;
use ringmq::storage::record::decoder::Decoder;
use ringmq::storage::record::encoder::Encoder;

/// Reads the frames, writes what they say, reads that.
pub fn records(input: &[u8]) {
    let told = read_frames(input);
    let content: usize = input.len();
    for record in &told {
        if let Some(message) = message(record) {
            let bytes = message.topic().len() + message.properties().len();
            assert!(bytes + message.payload().len() <= content, "out of nothing");
        }
    }
    assert!(told.len() <= input.len(), "records out of nothing");
    for frame_bytes in [1, 1 << 20] {
        let again = again(&told, frame_bytes);
        assert_eq!(again.len(), told.len());
        for (one, other) in told.iter().zip(&again) {
            assert!(is_same(one, other), "{one:?} became {other:?}");
        }
    }
    let mut image = Image::default();
    for record in told {
        if image.apply(record).is_err() {
            break;
        }
    }
}

fn read_frames(mut input: &[u8]) -> Vec<Record> {
    let mut decoder = Decoder::new(0);
    let mut told = Vec::new();
    while let [length, rest @ ..] = input {
        let length = match usize::from(*length) {
            0 => rest.len(),
            length => length.min(rest.len()),
        };
        let (frame, rest) = rest.split_at(length);
        if let Err(refusal) = decoder.read(frame, |record| told.push(record)) {
            assert!(refusal.at < frame.len(), "{refusal}");
            break;
        }
        input = rest;
    }
    told
}

fn again(told: &[Record], frame_bytes: usize) -> Vec<Record> {
    let mut encoder = Encoder::new(0, 0).with_frame_bytes_max(frame_bytes);
    for (ticket, record) in (1..).zip(told) {
        let record = record.clone();
        encoder.put(&Persist { ticket, record });
    }
    encoder.flush();
    let mut decoder = Decoder::new(0);
    let mut again = Vec::new();
    for frame in encoder.frames() {
        let read = decoder.read(frame.sealed_records(), |record| again.push(record));
        read.unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(frame.ticket, again.len() as u64, "the ticket of a frame");
    }
    again
}

fn message(record: &Record) -> Option<&Message> {
    match record {
        Record::Queued { delivery, .. } => Some(&delivery.message),
        Record::Retained { message } => Some(message),
        _ => None,
    }
}

/// Messages are large, and there may be many records of one: no text is made of them.
fn is_same(one: &Record, other: &Record) -> bool {
    match (message(one), message(other)) {
        (None, None) => format!("{one:?}") == format!("{other:?}"),
        (Some(a), Some(b)) => {
            let parts = |it: &Message| (it.qos, it.retain, it.expires_at);
            parts(a) == parts(b)
                && (a.topic(), a.properties(), a.payload())
                    == (b.topic(), b.properties(), b.payload())
                && is_same_way(one, other)
        }
        _ => false,
    }
}

fn is_same_way(one: &Record, other: &Record) -> bool {
    match (one, other) {
        (
            Record::Queued {
                session,
                delivery,
                origin,
            },
            Record::Queued {
                session: to,
                delivery: same,
                origin: by,
            },
        ) => {
            let parts = |it: &Delivery| (it.qos, it.retain, it.entry);
            (session, origin) == (to, by)
                && parts(delivery) == parts(same)
                && delivery.subscription_ids.as_slice() == same.subscription_ids.as_slice()
                && delivery.group == same.group
        }
        (Record::Retained { .. }, Record::Retained { .. }) => true,
        _ => false,
    }
}
