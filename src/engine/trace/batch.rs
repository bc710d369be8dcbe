//! The packets of a batch that leaves: their heads stand copied, a large payload behind its head.

use crate::engine::codec::frame::{Split, split};
use crate::engine::outbox::outgoing::Outgoing;

/// One packet of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its first byte.
    pub first_byte: u8,
    /// What follows the fixed header and stands together.
    pub body: &'a [u8],
    /// The rest of it.
    pub beyond: &'a [u8],
    /// Bytes of all of it.
    pub bytes: usize,
}

/// Calls `each` with the packets of a batch, in order. Nothing is copied.
pub fn packets<'a>(batch: &'a Outgoing, mut each: impl FnMut(Piece<'a>)) {
    let mut slices = batch.slices().peekable();
    // Of a payload that stands in slices of its own.
    let mut missing = 0;
    while let Some(slice) = slices.next() {
        let passed = missing.min(slice.len());
        missing -= passed;
        let mut rest = slice.get(passed..).unwrap_or_default();
        while !rest.is_empty() {
            match split(rest, usize::MAX) {
                Ok(Split::Whole(frame, bytes)) => {
                    each(Piece {
                        first_byte: frame.first_byte,
                        body: frame.body,
                        beyond: &[],
                        bytes,
                    });
                    rest = rest.get(bytes..).unwrap_or_default();
                }
                Ok(Split::Partial(bytes)) if bytes > rest.len() => {
                    missing = bytes - rest.len();
                    let next = slices.peek().copied().unwrap_or_default();
                    each(Piece {
                        first_byte: rest.first().copied().unwrap_or_default(),
                        body: body(rest),
                        beyond: next.get(..missing.min(next.len())).unwrap_or_default(),
                        bytes,
                    });
                    rest = &[];
                }
                // The broker sends no such thing.
                _ => return,
            }
        }
    }
}

/// What stands behind a fixed header that is whole.
fn body(packet: &[u8]) -> &[u8] {
    let length = packet.get(1..).unwrap_or_default();
    let more = length.iter().take_while(|byte| **byte & 0x80 != 0).count();
    length.get(more + 1..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{LocalMessage, Message, Qos};
    use crate::engine::outbox::outgoing::{Full, SharedPayload, Stretch};
    use std::sync::Arc;

    /// A stretch of a PINGRESP and a PUBLISH to `t` whose payload is shared.
    fn stretch(payload: &[u8]) -> Stretch {
        let mut copied = vec![0xD0, 0, 0x30];
        let length = 3 + payload.len();
        copied.extend([
            (length & 0x7F) as u8 | 0x80,
            (length >> 7) as u8,
            0,
            1,
            b't',
        ]);
        let message = Message::new("t", b"", payload, Qos::AtMostOnce, false, None);
        let message = LocalMessage::new(Arc::new(message));
        let at = copied.len();
        copied.extend([0x40, 2, 0, 7]);
        let shared = vec![SharedPayload { at, message }];
        Stretch { copied, shared }
    }

    #[test]
    fn a_payload_stands_behind_its_head_in_each_stretch() {
        let (first, second) = (vec![1; 3_000], vec![2; 5_000]);
        let mut batch = Outgoing {
            last: stretch(&second),
            more: None,
        };
        let earlier = Full {
            stretch: stretch(&first),
            ..Full::default()
        };
        batch
            .more
            .get_or_insert_default()
            .earlier
            .push_back(earlier);
        let mut seen = Vec::new();
        packets(&batch, |piece| {
            seen.push((piece.first_byte, piece.body.to_vec(), piece.beyond.to_vec()));
        });
        let wanted = |payload: &[u8]| {
            [
                (0xD0, Vec::new(), Vec::new()),
                (0x30, vec![0, 1, b't'], payload.to_vec()),
                (0x40, vec![0, 7], Vec::new()),
            ]
        };
        assert_eq!(seen, [wanted(&first), wanted(&second)].concat());
    }
}
