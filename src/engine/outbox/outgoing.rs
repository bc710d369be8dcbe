//! One batch of bytes on its way to a connection.
//!
//! Small frames stand copied in one buffer; a large payload stays where it is and is named by the
//! place in the buffer at which it belongs. The batch owns everything its bytes live in, so the ring
//! may keep it until the kernel is done. Its buffers come back for reuse when it has been sent.

use crate::engine::message::LocalMessage;

/// Bytes for one connection, in wire order.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Everything that was copied.
    pub copied: Vec<u8>,
    /// Payloads that were not, ordered by `at`.
    pub shared: Vec<SharedPayload>,
}

/// The payload of `message` goes out before `copied[at..]`.
#[derive(Debug)]
pub struct SharedPayload {
    /// Offset into [`Outgoing::copied`].
    pub at: usize,
    /// Whose payload it is.
    pub message: LocalMessage,
}

impl Outgoing {
    /// Bytes that go over the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.copied.len()
            + self
                .shared
                .iter()
                .map(|part| part.message.payload().len())
                .sum::<usize>()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.copied.is_empty() && self.shared.is_empty()
    }

    /// Empties the batch but keeps the buffers' capacity.
    pub fn clear(&mut self) {
        self.copied.clear();
        self.shared.clear();
    }

    /// The batch as slices in wire order, for a vectored write.
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::message::{Message, Qos};
    use std::sync::Arc;

    #[test]
    fn slices_interleave_copied_and_shared_in_wire_order() {
        let message = |payload: &[u8]| {
            LocalMessage::new(Arc::new(Message::new(
                "t",
                b"",
                payload,
                Qos::AtMostOnce,
                false,
                None,
            )))
        };
        let batch = Outgoing {
            copied: b"headtail".to_vec(),
            shared: vec![
                SharedPayload {
                    at: 4,
                    message: message(b"ONE"),
                },
                SharedPayload {
                    at: 4,
                    message: message(b"TWO"),
                },
            ],
        };
        let wire: Vec<u8> = batch.slices().flatten().copied().collect();
        assert_eq!(wire, b"headONETWOtail");
        assert_eq!(batch.len(), wire.len());
    }
}
