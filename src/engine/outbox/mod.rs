//! What waits to be sent to one connection, bounded in bytes.
//!
//! Small frames are copied into one buffer; a large payload is referenced. One batch is in flight at
//! a time; what arrives meanwhile leaves as the next one. Control packets are always taken (the
//! connection stops being read when the outbox is full); a PUBLISH asks for room first.

pub mod outgoing;

pub use crate::engine::limits::SPARE_BYTES_MAX;
use crate::engine::limits::{SPARE_BUFFER_BYTES_MAX, SPARE_BUFFERS_MAX};
use crate::engine::message::LocalMessage;
use outgoing::{Outgoing, SharedPayload};

/// What gives way when a QoS 0 message finds no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxFull {
    /// The message itself.
    #[default]
    DropNewest,
    /// Older QoS 0 messages that have not been handed to the kernel.
    DropOldest,
}

/// Buffers to use again, so that a delivery allocates nothing in steady state.
#[derive(Debug)]
pub struct SpareBuffers {
    spare: Vec<Outgoing>,
    /// What they hold, and may.
    bytes: usize,
    bytes_max: usize,
}

impl Default for SpareBuffers {
    fn default() -> Self {
        SpareBuffers {
            spare: Vec::new(),
            bytes: 0,
            bytes_max: SPARE_BYTES_MAX,
        }
    }
}

impl SpareBuffers {
    /// An empty batch.
    pub fn take(&mut self) -> Outgoing {
        let batch = self.spare.pop().unwrap_or_default();
        self.bytes -= batch.copied.capacity();
        batch
    }

    /// Takes a batch back.
    pub fn give(&mut self, mut batch: Outgoing) {
        let bytes = batch.copied.capacity();
        let fits = (1..=SPARE_BUFFER_BYTES_MAX).contains(&bytes);
        let has_room = self.spare.len() < SPARE_BUFFERS_MAX && self.bytes + bytes <= self.bytes_max;
        if fits && has_room {
            batch.clear();
            self.bytes += bytes;
            self.spare.push(batch);
        }
    }

    /// Keeps at most so many bytes from now on.
    pub fn keep(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        while self.bytes > bytes_max {
            self.take();
        }
    }
}

/// A stretch of the batch that may be dropped.
#[derive(Clone, Copy, Debug)]
struct Droppable {
    copied_at: usize,
    copied_bytes: usize,
    has_payload: bool,
}

/// The outbox of a connection.
#[derive(Debug, Default)]
pub struct Outbox {
    pending: Outgoing,
    shared_bytes: usize,
    in_flight_bytes: usize,
    is_sending: bool,
    /// Batches that are out; it may begin anew.
    sent: u32,
    /// QoS 0 frames in `pending`, kept only where the oldest are to give way.
    droppable: Vec<Droppable>,
}

impl Outbox {
    /// Bytes waiting and in flight.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pending.copied.len() + self.shared_bytes + self.in_flight_bytes
    }

    /// Whether something waits that is not in flight.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Memory it keeps from being used otherwise, payloads that others refer to included.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let parts = self.pending.shared.capacity() * size_of::<SharedPayload>();
        let marks = self.droppable.capacity() * size_of::<Droppable>();
        self.pending.copied.capacity() + parts + marks + self.shared_bytes + self.in_flight_bytes
    }

    /// Batches that are out, counted round.
    #[must_use]
    pub const fn sent(&self) -> u32 {
        self.sent
    }

    /// Drops what waits and is not in flight.
    pub fn forget_pending(&mut self) {
        self.pending = Outgoing::default();
        self.shared_bytes = 0;
        self.droppable = Vec::new();
    }

    /// Whether a batch is in flight.
    #[must_use]
    pub const fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// The buffer to append a packet to.
    pub fn buffer(&mut self, spare: &mut SpareBuffers) -> &mut Vec<u8> {
        if self.pending.copied.capacity() == 0 {
            self.pending = spare.take();
        }
        &mut self.pending.copied
    }

    /// Appends the payload of `message` after what is in the buffer so far.
    pub fn push_shared(&mut self, message: LocalMessage) {
        self.shared_bytes += message.payload().len();
        self.pending.shared.push(SharedPayload {
            at: self.pending.copied.len(),
            message,
        });
    }

    /// Notes that the last `copied_bytes`, and the payload after them, may be dropped later.
    pub fn mark_droppable(&mut self, copied_bytes: usize, has_payload: bool) {
        let copied_at = self.pending.copied.len() - copied_bytes;
        self.droppable.push(Droppable {
            copied_at,
            copied_bytes,
            has_payload,
        });
    }

    /// Drops the oldest droppable frames until `bytes` more fit below `bytes_max`, and somewhat more so
    /// that the next few fit too. Returns how many.
    pub fn drop_oldest(&mut self, bytes: usize, bytes_max: usize) -> usize {
        let wanted = (self.bytes() + bytes + bytes_max / 8).saturating_sub(bytes_max);
        let (mut count, mut gained) = (0, 0);
        while gained < wanted
            && let Some(frame) = self.droppable.get(count)
        {
            gained += frame.copied_bytes + self.payload_bytes(frame);
            count += 1;
        }
        let gone: Vec<_> = self.droppable.drain(..count).collect();
        self.rebuild_without(&gone);
        count
    }

    fn payload_bytes(&self, frame: &Droppable) -> usize {
        if !frame.has_payload {
            return 0;
        }
        let end = frame.copied_at + frame.copied_bytes;
        let part = self.pending.shared.iter().find(|part| part.at == end);
        part.map_or(0, |part| part.message.payload().len())
    }

    fn rebuild_without(&mut self, gone: &[Droppable]) {
        let old = std::mem::take(&mut self.pending);
        let mut kept = Outgoing::default();
        let mut gone = gone.iter().peekable();
        let mut from = 0;
        let mut removed = 0;
        let mut parts = old.shared.into_iter().peekable();
        self.shared_bytes = 0;
        // Walk payload positions and dropped stretches in order of their place.
        loop {
            let next_gone = gone.peek().map_or(usize::MAX, |frame| frame.copied_at);
            let next_part = parts.peek().map_or(usize::MAX, |part| part.at);
            let until = next_gone.min(next_part).min(old.copied.len());
            kept.copied
                .extend_from_slice(old.copied.get(from..until).unwrap_or_default());
            from = until;
            if next_part <= next_gone && next_part != usize::MAX {
                if let Some(mut part) = parts.next() {
                    self.shared_bytes += part.message.payload().len();
                    part.at -= removed;
                    kept.shared.push(part);
                }
            } else if let Some(frame) = gone.next() {
                from = frame.copied_at + frame.copied_bytes;
                removed += frame.copied_bytes;
                if frame.has_payload {
                    parts.next();
                }
            } else {
                break;
            }
        }
        for frame in &mut self.droppable {
            frame.copied_at -= removed;
        }
        self.pending = kept;
    }

    /// Takes everything that waits as the batch to send, `None` if there is nothing or a batch is in
    /// flight.
    pub fn begin_send(&mut self) -> Option<Outgoing> {
        if self.is_sending || self.pending.is_empty() {
            return None;
        }
        self.is_sending = true;
        self.in_flight_bytes = self.pending.copied.len() + self.shared_bytes;
        self.shared_bytes = 0;
        self.droppable = Vec::new();
        Some(std::mem::take(&mut self.pending))
    }

    /// The batch in flight is out.
    pub const fn end_send(&mut self) {
        self.is_sending = false;
        self.sent = self.sent.wrapping_add(1);
        self.in_flight_bytes = 0;
    }

    /// Takes what waits, for a connection that is being closed.
    #[must_use]
    pub fn take_rest(&mut self) -> Outgoing {
        std::mem::take(&mut self.pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{Message, Qos};
    use std::sync::Arc;

    #[test]
    fn the_oldest_give_way_and_the_rest_keeps_its_order() {
        let mut outbox = Outbox::default();
        let mut spare = SpareBuffers::default();
        let mut put = |outbox: &mut Outbox, text: &[u8], payload: Option<&[u8]>, drop: bool| {
            outbox.buffer(&mut spare).extend_from_slice(text);
            if drop {
                outbox.mark_droppable(text.len(), payload.is_some());
            }
            if let Some(payload) = payload {
                let message = Message::new("t", b"", payload, Qos::AtMostOnce, false, None);
                outbox.push_shared(LocalMessage::new(Arc::new(message)));
            }
        };
        put(&mut outbox, b"one", None, true);
        put(&mut outbox, b"ACK", None, false);
        put(&mut outbox, b"two", Some(b"TWO"), true);
        put(&mut outbox, b"big", Some(b"BIG"), false);
        put(&mut outbox, b"three", Some(b"THREE"), true);
        assert_eq!(outbox.bytes(), 28);
        assert_eq!(outbox.drop_oldest(4, 28), 2);
        let batch = outbox.begin_send().unwrap();
        let wire: Vec<u8> = batch.slices().flatten().copied().collect();
        assert_eq!(wire, b"ACKbigBIGthreeTHREE");
        assert!(outbox.begin_send().is_none());
        outbox.end_send();
        assert_eq!(outbox.bytes(), 0);
    }
}
