//! What waits to be sent to one connection, bounded in bytes.
//!
//! Small frames are copied into buffers of bounded size; a large payload is referenced. One batch is in
//! flight at a time; what arrives meanwhile leaves as the next one. Control packets are always taken (the
//! connection stops being read when the outbox is full); a PUBLISH asks for room first.

pub mod outgoing;
mod spare;

pub use crate::engine::limits::SPARE_BYTES_MAX;
use crate::engine::limits::{STRETCH_BYTES, STRETCH_FULL_BYTES};
use crate::engine::message::LocalMessage;
use outgoing::{Droppable, Full, More, Outgoing, SharedPayload};
pub use spare::SpareBuffers;

/// What gives way when a QoS 0 message finds no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxFull {
    /// The message itself.
    #[default]
    DropNewest,
    /// Older QoS 0 messages that have not been handed to the kernel.
    DropOldest,
}

/// The outbox of a connection.
#[derive(Debug, Default)]
pub struct Outbox {
    pending: Outgoing,
    /// What waits and is not copied into the last stretch: earlier stretches, and payloads that are shared.
    beside_bytes: usize,
    in_flight_bytes: usize,
    is_sending: bool,
    /// Nothing of it may leave, not at the end either.
    is_held: bool,
    /// Batches that are out; it may begin anew.
    sent: u32,
}

impl Outbox {
    /// Bytes waiting and in flight.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pending.last.copied.len() + self.beside_bytes + self.in_flight_bytes
    }

    /// Whether something waits that is not in flight.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What waits and is not in flight.
    #[must_use]
    pub const fn pending(&self) -> &Outgoing {
        &self.pending
    }

    /// Memory it keeps from being used otherwise, payloads that others refer to included.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let more = self.pending.more.as_ref();
        let more = more.map_or(0, |more| more.memory_bytes());
        self.pending.last.held_bytes() + more + self.beside_bytes + self.in_flight_bytes
    }

    /// Batches that are out, counted round.
    #[must_use]
    pub const fn sent(&self) -> u32 {
        self.sent
    }

    /// Drops what waits and is not in flight.
    pub fn forget_pending(&mut self) {
        self.take_rest();
    }

    /// Whether a batch is in flight.
    #[must_use]
    pub const fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// The buffer to append a packet to.
    pub fn buffer(&mut self, spare: &mut SpareBuffers) -> &mut Vec<u8> {
        let copied = &self.pending.last.copied;
        if copied.capacity() == 0 {
            self.pending.last = spare.take();
        } else if copied.len() >= STRETCH_FULL_BYTES {
            self.begin_stretch(spare);
        }
        &mut self.pending.last.copied
    }

    #[cold]
    fn begin_stretch(&mut self, spare: &mut SpareBuffers) {
        let mut fresh = spare.take();
        // A client that is so far behind fills this one too: it does not have to grow.
        fresh.copied.reserve_exact(STRETCH_BYTES);
        let stretch = std::mem::replace(&mut self.pending.last, fresh);
        self.beside_bytes += stretch.copied.len();
        let more = self.pending.more.get_or_insert_default();
        let droppable = std::mem::take(&mut more.droppable);
        let full = Full { stretch, droppable };
        more.held_bytes += full.held_bytes();
        more.earlier.push_back(full);
    }

    /// Appends the payload of `message` after what is in the buffer so far.
    pub fn push_shared(&mut self, message: LocalMessage) {
        self.beside_bytes += message.payload().len();
        let last = &mut self.pending.last;
        let at = last.copied.len();
        last.shared.push(SharedPayload { at, message });
    }

    /// Notes that the last `copied_bytes`, and the payload after them, may be dropped later.
    pub fn mark_droppable(&mut self, copied_bytes: usize, has_payload: bool) {
        let at = self.pending.last.copied.len() - copied_bytes;
        let more = self.pending.more.get_or_insert_default();
        more.droppable.push(Droppable {
            at: at as u32,
            bytes: copied_bytes as u32,
            has_payload,
        });
    }

    /// Drops the oldest droppable frames until `bytes` more fit below `bytes_max`, and somewhat more so
    /// that the next few fit too. Returns how many.
    pub fn drop_oldest(&mut self, bytes: usize, bytes_max: usize) -> usize {
        let further = (bytes_max / 8).min(STRETCH_BYTES / 2);
        let wanted = (self.bytes() + bytes + further).saturating_sub(bytes_max);
        let Some(more) = &mut self.pending.more else {
            return 0;
        };
        let (mut count, mut gained) = (0, 0);
        while gained < wanted
            && let Some(full) = more.earlier.get_mut(more.droppable_from)
        {
            let held = full.held_bytes();
            let Full { stretch, droppable } = full;
            let (frames, freed) = stretch.drop_oldest(droppable, wanted - gained);
            let has_more = !droppable.is_empty();
            more.held_bytes = more.held_bytes + full.held_bytes() - held;
            count += frames;
            gained += freed;
            self.beside_bytes -= freed;
            if !has_more {
                more.close_gap();
            }
        }
        let last = &mut self.pending.last;
        let copied = last.copied.len();
        let left = wanted.saturating_sub(gained);
        let (frames, freed) = last.drop_oldest(&mut more.droppable, left);
        self.beside_bytes -= freed - (copied - last.copied.len());
        count + frames
    }

    /// Whether something waits and no batch is in flight.
    #[must_use]
    pub fn may_send(&self) -> bool {
        !self.is_sending && self.has_pending()
    }

    /// Takes everything that waits as the batch to send, `None` if there is nothing or a batch is in
    /// flight.
    pub fn begin_send(&mut self) -> Option<Outgoing> {
        if !self.may_send() {
            return None;
        }
        self.is_sending = true;
        self.in_flight_bytes = self.bytes();
        let mut batch = self.take_rest();
        if batch.more.is_some() {
            batch.forget_droppable();
        }
        Some(batch)
    }

    /// Nothing leaves from now on, as if a batch were in flight; none is.
    pub const fn hold(&mut self) {
        self.is_sending = true;
        self.is_held = true;
    }

    /// What was held may leave.
    pub const fn let_go(&mut self) {
        self.is_sending = false;
        self.is_held = false;
    }

    /// The batch in flight is out.
    pub const fn end_send(&mut self) {
        self.is_sending = false;
        self.sent = self.sent.wrapping_add(1);
        self.in_flight_bytes = 0;
    }

    /// Takes what waits, for a connection that is being closed: nothing while it is held, since its client
    /// would act upon what is not stored and is told anew after a start.
    pub fn take_rest(&mut self) -> Outgoing {
        self.beside_bytes = 0;
        let rest = std::mem::take(&mut self.pending);
        if self.is_held {
            Outgoing::default()
        } else {
            rest
        }
    }
}

impl More {
    /// A stretch before the last has no frame left that may be dropped: it goes if it is empty, and what is
    /// left of two joins if that is little, so that there are not many stretches with a few bytes each.
    fn close_gap(&mut self) {
        let place = self.droppable_from;
        self.droppable_from = place + 1;
        let before = place.checked_sub(1);
        let len = |place: usize| {
            let full = self.earlier.get(place);
            full.map_or(0, |full| full.stretch.copied.len())
        };
        let joins = before.is_some_and(|before| len(before) + len(place) <= STRETCH_FULL_BYTES);
        let full = self.earlier.get(place);
        let is_empty = full.is_some_and(|full| full.stretch.is_empty());
        if !joins && !is_empty {
            return;
        }
        let Some(left) = self.earlier.remove(place) else {
            return;
        };
        self.droppable_from = place;
        self.held_bytes -= left.held_bytes();
        if let Some(before) = before.and_then(|before| self.earlier.get_mut(before)) {
            let held = before.held_bytes();
            before.stretch.append(left.stretch);
            self.held_bytes = self.held_bytes + before.held_bytes() - held;
        }
    }
}

impl Outgoing {
    /// From now on nothing of it may be dropped.
    #[cold]
    fn forget_droppable(&mut self) {
        let Some(more) = &mut self.more else {
            return;
        };
        more.droppable = Vec::new();
        for full in &mut more.earlier {
            full.droppable = Vec::new();
        }
        if more.earlier.is_empty() {
            self.more = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{Message, Qos};
    use std::sync::Arc;

    #[test]
    fn what_is_held_does_not_leave_with_the_end_of_its_connection_either() {
        let mut spare = SpareBuffers::default();
        for (let_go, leaves) in [(false, &b""[..]), (true, b"CONNACK")] {
            let mut outbox = Outbox::default();
            outbox.hold();
            outbox.buffer(&mut spare).extend_from_slice(b"CONNACK");
            assert!(!outbox.may_send());
            if let_go {
                outbox.let_go();
            }
            let rest = outbox.take_rest();
            let wire: Vec<u8> = rest.slices().flatten().copied().collect();
            assert_eq!(wire, leaves);
            assert_eq!(outbox.bytes(), 0);
        }
    }

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

    /// A frame of the model: its text, its shared payload, whether it may be dropped.
    type Frame = (Vec<u8>, Option<Vec<u8>>, bool);

    fn append(outbox: &mut Outbox, spare: &mut SpareBuffers, (text, payload, drop): &Frame) {
        outbox.buffer(spare).extend_from_slice(text);
        if *drop {
            outbox.mark_droppable(text.len(), payload.is_some());
        }
        if let Some(payload) = payload {
            let message = Message::new("t", b"", payload, Qos::AtMostOnce, false, None);
            outbox.push_shared(LocalMessage::new(Arc::new(message)));
        }
    }

    fn wire_of(frames: &[Frame]) -> Vec<u8> {
        let bytes =
            |(text, payload, _): &Frame| [text.clone(), payload.clone().unwrap_or_default()];
        frames.iter().flat_map(bytes).flatten().collect()
    }

    /// Drops of the model as many as the outbox says it has.
    fn drop_oldest(frames: &mut Vec<Frame>, mut count: usize) {
        frames.retain(|(_, _, drop)| {
            let goes = *drop && count > 0;
            count -= usize::from(goes);
            !goes
        });
        assert_eq!(count, 0, "it had so many that may be dropped");
    }

    #[test]
    fn stretches_hold_what_one_long_buffer_would() {
        for seed in 1..200_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = |below: u64| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) % below
            };
            let (mut outbox, mut spare) = (Outbox::default(), SpareBuffers::default());
            let mut frames: Vec<Frame> = Vec::new();
            for step in 0..300 {
                let text = vec![step as u8; 1 + next(1_500) as usize];
                let payload = (next(8) == 0).then(|| vec![255 - step as u8; 3_000]);
                let frame = (text, payload, next(5) > 0);
                append(&mut outbox, &mut spare, &frame);
                frames.push(frame);
                if next(6) == 0 {
                    let (bytes, bytes_max) = (next(9_000) as usize, 20_000 + next(90_000) as usize);
                    let is_too_much = outbox.bytes() + bytes > bytes_max;
                    let count = outbox.drop_oldest(bytes, bytes_max);
                    drop_oldest(&mut frames, count);
                    let left = frames.iter().any(|(_, _, drop)| *drop);
                    let fits = outbox.bytes() + bytes <= bytes_max;
                    assert!(!is_too_much || fits || !left, "seed {seed}");
                }
                assert_eq!(outbox.bytes(), outbox.pending.len(), "seed {seed}");
                if let Some(more) = &outbox.pending.more {
                    let held = more.earlier.iter().map(Full::held_bytes);
                    assert_eq!(more.held_bytes, held.sum::<usize>(), "seed {seed}");
                }
                if next(60) == 0 {
                    let batch = outbox.begin_send().expect("something waits");
                    let wire: Vec<u8> = batch.slices().flatten().copied().collect();
                    assert!(wire == wire_of(&frames), "seed {seed}");
                    assert_eq!(outbox.bytes(), wire.len());
                    frames.clear();
                    spare.give(batch);
                    outbox.end_send();
                    assert_eq!((outbox.bytes(), outbox.held_bytes()), (0, 0));
                }
            }
        }
    }

    #[test]
    fn a_client_that_lags_makes_no_buffer_grow_and_little_does_not_take_much_memory() {
        let (mut outbox, mut spare) = (Outbox::default(), SpareBuffers::default());
        let reply = (vec![0; 2], None, false);
        let publish = (vec![1; 1_000], None, true);
        for _ in 0..2_000 {
            append(&mut outbox, &mut spare, &reply);
            append(&mut outbox, &mut spare, &publish);
            outbox.drop_oldest(1_000, 200_000);
        }
        let stretches = &outbox.pending.more.as_ref().expect("several").earlier;
        let buffers = stretches.iter().map(|full| full.stretch.copied.capacity());
        assert!(buffers.max() <= Some(STRETCH_BYTES));
        assert!(stretches.len() < 30, "{} stretches", stretches.len());
        assert!(outbox.held_bytes() < 450_000, "{}", outbox.held_bytes());
    }
}
