//! One batch of bytes on its way to a connection.
//!
//! It is a row of stretches. In each, small frames stand copied in one buffer; a large payload stays where
//! it is and is named by the place in the buffer at which it belongs. A stretch that is full is followed by
//! another and does not grow, so that no delivery copies or touches more than a stretch. The batch owns
//! everything its bytes live in, so the ring may keep it until the kernel is done. Its buffers come back for
//! reuse when it has been sent.

use crate::engine::message::LocalMessage;
use std::collections::VecDeque;

/// Bytes for one connection, in wire order.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// What stands before the last stretch.
    pub earlier: VecDeque<Stretch>,
    /// The one that is written to.
    pub last: Stretch,
}

/// A part of a batch.
#[derive(Debug, Default)]
pub struct Stretch {
    /// Everything that was copied.
    pub copied: Vec<u8>,
    /// Payloads that were not, ordered by `at`.
    pub shared: Vec<SharedPayload>,
    /// Frames that may be dropped as long as they are not in flight, in order; kept only where the oldest are
    /// to give way.
    pub droppable: Vec<Droppable>,
}

/// The payload of `message` goes out before `copied[at..]`.
#[derive(Debug)]
pub struct SharedPayload {
    /// Offset into [`Stretch::copied`].
    pub at: usize,
    /// Whose payload it is.
    pub message: LocalMessage,
}

/// A frame that may be dropped.
#[derive(Clone, Copy, Debug)]
pub struct Droppable {
    /// Offset into [`Stretch::copied`].
    pub at: u32,
    /// Bytes of it there.
    pub bytes: u32,
    /// A shared payload follows.
    pub has_payload: bool,
}

impl Droppable {
    const fn end(&self) -> usize {
        self.at as usize + self.bytes as usize
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(copied: Vec<u8>) -> Self {
        let last = Stretch {
            copied,
            ..Stretch::default()
        };
        Outgoing {
            earlier: VecDeque::new(),
            last,
        }
    }
}

impl Outgoing {
    /// Bytes that go over the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.earlier.iter().map(Stretch::len).sum::<usize>() + self.last.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_empty() && self.earlier.is_empty()
    }

    /// The batch as slices in wire order, for a vectored write.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let earlier = self.earlier.iter().flat_map(Stretch::slices);
        earlier.chain(self.last.slices())
    }

    /// Its bytes, if they stand in one buffer.
    #[must_use]
    pub fn single(&self) -> Option<&[u8]> {
        (self.earlier.is_empty() && self.last.shared.is_empty()).then_some(&*self.last.copied)
    }

    /// A stretch by its place, the last one included.
    pub fn stretch_mut(&mut self, place: usize) -> Option<&mut Stretch> {
        if place == self.earlier.len() {
            Some(&mut self.last)
        } else {
            self.earlier.get_mut(place)
        }
    }
}

impl Stretch {
    /// Bytes that go over the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.copied.len() + self.shared_bytes()
    }

    /// Bytes of its payloads that are not copied.
    #[must_use]
    pub fn shared_bytes(&self) -> usize {
        let payloads = self.shared.iter().map(|part| part.message.payload().len());
        payloads.sum()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.copied.is_empty() && self.shared.is_empty()
    }

    /// Empties it but keeps the buffers' capacity.
    pub fn clear(&mut self) {
        self.copied.clear();
        self.shared.clear();
        self.droppable = Vec::new();
    }

    /// Memory of its own that it takes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let parts = self.shared.capacity() * size_of::<SharedPayload>();
        let marks = self.droppable.capacity() * size_of::<Droppable>();
        self.copied.capacity() + parts + marks
    }

    /// The stretch as slices in wire order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        let parts = self.shared.iter().flat_map(move |part| {
            let copied = self.copied.get(start..part.at).unwrap_or_default();
            start = part.at;
            [copied, part.message.payload()]
        });
        let last = self.shared.last().map_or(0, |part| part.at);
        parts
            .chain([self.copied.get(last..).unwrap_or_default()])
            .filter(|slice| !slice.is_empty())
    }

    /// Drops the oldest frames that may be dropped, until so many bytes are gained or there are no more.
    /// Returns how many, and their bytes.
    pub fn drop_oldest(&mut self, wanted: usize) -> (usize, usize) {
        let (mut count, mut gained) = (0, 0);
        while gained < wanted
            && let Some(frame) = self.droppable.get(count)
        {
            gained += frame.bytes as usize + self.payload_bytes(frame);
            count += 1;
        }
        let gone: Vec<_> = self.droppable.drain(..count).collect();
        if !gone.is_empty() {
            self.rebuild_without(&gone);
        }
        (count, gained)
    }

    fn payload_bytes(&self, frame: &Droppable) -> usize {
        if !frame.has_payload {
            return 0;
        }
        let end = frame.end();
        let place = self.shared.partition_point(|part| part.at < end);
        let part = self.shared.get(place).filter(|part| part.at == end);
        part.map_or(0, |part| part.message.payload().len())
    }

    fn rebuild_without(&mut self, gone: &[Droppable]) {
        let gone_bytes: usize = gone.iter().map(|frame| frame.bytes as usize).sum();
        let old = std::mem::take(&mut self.copied);
        let mut parts = std::mem::take(&mut self.shared).into_iter().peekable();
        self.copied
            .reserve_exact(old.len().saturating_sub(gone_bytes));
        let mut gone = gone.iter().peekable();
        let mut from = 0;
        let mut removed = 0;
        // Walk payload positions and dropped frames in order of their place.
        loop {
            let next_gone = gone.peek().map_or(usize::MAX, |frame| frame.at as usize);
            let next_part = parts.peek().map_or(usize::MAX, |part| part.at);
            let until = next_gone.min(next_part).min(old.len());
            self.copied
                .extend_from_slice(old.get(from..until).unwrap_or_default());
            from = until;
            if next_part <= next_gone && next_part != usize::MAX {
                if let Some(mut part) = parts.next() {
                    part.at -= removed;
                    self.shared.push(part);
                }
            } else if let Some(frame) = gone.next() {
                from = frame.end();
                removed += frame.bytes as usize;
                if frame.has_payload {
                    parts.next();
                }
            } else {
                break;
            }
        }
        for frame in &mut self.droppable {
            frame.at -= removed as u32;
        }
    }

    /// Appends another, none of whose frames may be dropped.
    pub fn append(&mut self, other: Stretch) {
        let moved = self.copied.len();
        self.copied.extend_from_slice(&other.copied);
        let parts = other.shared.into_iter();
        self.shared.extend(parts.map(|part| SharedPayload {
            at: moved + part.at,
            ..part
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{Message, Qos};
    use std::sync::Arc;

    #[test]
    fn slices_interleave_copied_and_shared_in_wire_order() {
        let shared = |at, payload: &[u8]| {
            let message = Message::new("t", b"", payload, Qos::AtMostOnce, false, None);
            SharedPayload {
                at,
                message: LocalMessage::new(Arc::new(message)),
            }
        };
        let mut batch = Outgoing::from(b"headtail".to_vec());
        batch.last.shared = vec![shared(4, b"ONE"), shared(4, b"TWO")];
        batch.earlier.push_back(Stretch {
            copied: b"before".to_vec(),
            shared: vec![shared(6, b"THIS")],
            ..Stretch::default()
        });
        let wire: Vec<u8> = batch.slices().flatten().copied().collect();
        assert_eq!(wire, b"beforeTHISheadONETWOtail");
        assert_eq!(batch.len(), wire.len());
        assert!(batch.single().is_none());
    }
}
