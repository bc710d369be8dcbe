//! One batch of bytes on its way to a connection.
//!
//! It is a row of stretches. In each, small frames stand copied in one buffer; a large payload stays where
//! it is and is named by the place in the buffer at which it belongs. A stretch that is full is followed by
//! another and does not grow, so that no delivery copies or touches more than a stretch. The batch owns
//! everything its bytes live in, so the ring may keep it until the kernel is done. Its buffers come back for
//! reuse when it has been sent.

use crate::engine::message::LocalMessage;
use std::collections::{VecDeque, vec_deque};

/// Bytes for one connection, in wire order.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The stretch that is written to.
    pub last: Stretch,
    /// What few batches have: apart, so that the others stay small.
    pub more: Option<Box<More>>,
}

/// A part of a batch.
#[derive(Debug, Default)]
pub struct Stretch {
    /// Everything that was copied.
    pub copied: Vec<u8>,
    /// Payloads that were not, ordered by `at`.
    pub shared: Vec<SharedPayload>,
}

/// What stands before the last stretch, and what may be dropped.
#[derive(Debug, Default)]
pub struct More {
    /// The stretches that are full.
    pub earlier: VecDeque<Full>,
    /// Memory of their own that they take.
    pub held_bytes: usize,
    /// No stretch before this one has a frame that may be dropped.
    pub droppable_from: usize,
    /// What may be dropped of the last stretch.
    pub droppable: Vec<Droppable>,
}

/// A stretch that is full.
#[derive(Debug, Default)]
pub struct Full {
    /// Its bytes.
    pub stretch: Stretch,
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

impl More {
    /// The stretches before the last, and the marks of the last, with the memory that they take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let earlier = self.earlier.capacity() * size_of::<Full>();
        self.held_bytes + earlier + self.droppable.capacity() * size_of::<Droppable>()
    }
}

impl Full {
    /// Memory of its own that it takes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.stretch.held_bytes() + self.droppable.capacity() * size_of::<Droppable>()
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(copied: Vec<u8>) -> Self {
        let last = Stretch {
            copied,
            ..Stretch::default()
        };
        Outgoing { last, more: None }
    }
}

impl Outgoing {
    /// The stretches before the last.
    fn earlier(&self) -> impl Iterator<Item = &Stretch> {
        let full = self.more.iter().flat_map(|more| &more.earlier);
        full.map(|full| &full.stretch)
    }

    /// Bytes that go over the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.earlier().map(Stretch::len).sum::<usize>() + self.last.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_empty() && self.earlier().next().is_none()
    }

    /// The batch as slices in wire order, for a vectored write.
    #[must_use]
    pub fn slices(&self) -> Slices<'_> {
        let mut earlier = self.more.as_ref().map(|more| more.earlier.iter());
        let first = earlier.as_mut().and_then(Iterator::next);
        let (stretch, last) = match first {
            Some(full) => (&full.stretch, Some(&self.last)),
            None => (&self.last, None),
        };
        Slices {
            stretch,
            from: 0,
            shared: stretch.shared.iter(),
            earlier,
            last,
        }
    }

    /// Its bytes, if they stand in one buffer.
    #[must_use]
    pub fn single(&self) -> Option<&[u8]> {
        (self.more.is_none() && self.last.shared.is_empty()).then_some(&*self.last.copied)
    }
}

/// A batch's bytes, slice by slice; none of them is empty.
#[derive(Debug)]
pub struct Slices<'a> {
    stretch: &'a Stretch,
    /// What was copied is through up to here.
    from: usize,
    shared: std::slice::Iter<'a, SharedPayload>,
    /// Stretches that come after this one.
    earlier: Option<vec_deque::Iter<'a, Full>>,
    last: Option<&'a Stretch>,
}

impl<'a> Slices<'a> {
    /// Goes to the next stretch, if there is one.
    fn go_on(&mut self) -> bool {
        let earlier = self.earlier.as_mut().and_then(Iterator::next);
        let next = earlier
            .map(|full| &full.stretch)
            .or_else(|| self.last.take());
        let Some(next) = next else {
            return false;
        };
        (self.stretch, self.from, self.shared) = (next, 0, next.shared.iter());
        true
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let part = self.shared.as_slice().first();
            let copied = &self.stretch.copied;
            let until = part.map_or(copied.len(), |part| part.at);
            let slice = copied.get(self.from..until).unwrap_or_default();
            self.from = until;
            if !slice.is_empty() {
                return Some(slice);
            }
            if let Some(part) = part {
                self.shared.next();
                let payload = part.message.payload();
                if !payload.is_empty() {
                    return Some(payload);
                }
            } else if !self.go_on() {
                return None;
            }
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
    }

    /// Memory of its own that it takes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.copied.capacity() + self.shared.capacity() * size_of::<SharedPayload>()
    }

    /// Drops the oldest frames that may be dropped, until so many bytes are gained or there are no more.
    /// Returns how many, and their bytes.
    pub fn drop_oldest(&mut self, droppable: &mut Vec<Droppable>, wanted: usize) -> (usize, usize) {
        let (mut count, mut gained) = (0, 0);
        while gained < wanted
            && let Some(frame) = droppable.get(count)
        {
            gained += frame.bytes as usize + self.payload_bytes(frame);
            count += 1;
        }
        let gone: Vec<_> = droppable.drain(..count).collect();
        if !gone.is_empty() {
            let removed = self.rebuild_without(&gone);
            for frame in droppable {
                frame.at -= removed as u32;
            }
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

    /// Returns the bytes that were copied and are gone.
    fn rebuild_without(&mut self, gone: &[Droppable]) -> usize {
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
        removed
    }

    /// Appends another.
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
        let stretch = Stretch {
            copied: b"before".to_vec(),
            shared: vec![shared(6, b"THIS")],
        };
        let more = batch.more.get_or_insert_default();
        more.earlier.push_back(Full {
            stretch,
            ..Full::default()
        });
        let wire: Vec<u8> = batch.slices().flatten().copied().collect();
        assert_eq!(wire, b"beforeTHISheadONETWOtail");
        assert_eq!(batch.len(), wire.len());
        assert!(batch.single().is_none());
    }
}
