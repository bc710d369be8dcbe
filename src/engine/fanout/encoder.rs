//! Encode once, deliver many: the wire forms of the publish that is being fanned out.
//!
//! There are twelve forms that do not depend on the receiver: 3.x or 5.0, three QoS, RETAIN set or
//! not. Each is encoded when the first receiver needs it and copied for the others; above QoS 0 two
//! bytes of packet identifier are patched. Forms with identifiers or aliases are written for their
//! receiver alone. Buffers are kept from one publish to the next.

use super::publication::Publication;
use crate::engine::codec::Version;
use crate::engine::codec::publish::PublishHead;
use crate::engine::limits::COPY_BYTES_MAX;
use crate::engine::message::Qos;
use crate::engine::outbox::{Outbox, SpareBuffers};
use crate::engine::session::connection::Connection;
use crate::engine::time::Timestamp;

/// How one receiver gets the publish.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    /// Version of the receiver.
    pub version: Version,
    /// QoS of the delivery.
    pub qos: Qos,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Whether it is a repeat.
    pub dup: bool,
    /// Packet identifier, 0 at QoS 0.
    pub packet_id: u16,
    /// Subscription identifiers.
    pub subscription_ids: &'a [u32],
    /// Topic alias, 0 for none.
    pub topic_alias: u16,
    /// Whether the receiver knows the alias, so that the topic is left out.
    pub alias_is_known: bool,
}

impl<'a> Form<'a> {
    /// A first sending without RETAIN, packet identifier and alias.
    #[inline]
    #[must_use]
    pub const fn plain(version: Version, qos: Qos, subscription_ids: &'a [u32]) -> Self {
        Form {
            version,
            qos,
            retain: false,
            dup: false,
            packet_id: 0,
            subscription_ids,
            topic_alias: 0,
            alias_is_known: false,
        }
    }
}

#[derive(Debug, Default)]
struct Encoded {
    /// The publish it belongs to.
    stamp: u64,
    /// Head, and the payload too if it is copied.
    bytes: Vec<u8>,
    id_at: Option<usize>,
    packet_bytes: usize,
}

/// The encoder of one shard.
#[derive(Debug, Default)]
pub struct Encoder {
    encoded: [Encoded; 12],
    stamp: u64,
}

impl Encoder {
    /// [`Encoder::put`] with an alias for the topic, if the receiver takes aliases, and without a new one
    /// where only that fits. Gives the bytes that were copied, and whether the packet has an alias.
    ///
    /// # Errors
    /// As [`Encoder::put`].
    #[inline]
    pub fn put_with_alias(
        &mut self,
        publication: &mut Publication<'_>,
        form: Form<'_>,
        now: Timestamp,
        connection: &mut Connection,
        spare: &mut SpareBuffers,
    ) -> Result<(usize, bool), usize> {
        if connection.alias_out_max > 0 {
            return self.put_under_alias(publication, form, now, connection, spare);
        }
        let (max, outbox) = (connection.packet_bytes_max, &mut connection.outbox);
        let put = self.put(publication, &form, now, max, outbox, spare);
        put.map(|copied_bytes| (copied_bytes, false))
    }

    fn put_under_alias(
        &mut self,
        publication: &mut Publication<'_>,
        mut form: Form<'_>,
        now: Timestamp,
        connection: &mut Connection,
        spare: &mut SpareBuffers,
    ) -> Result<(usize, bool), usize> {
        let alias = connection.alias(publication.topic);
        form.topic_alias = alias.number;
        form.alias_is_known = alias.is_known;
        let max = connection.packet_bytes_max;
        let put = self.put(publication, &form, now, max, &mut connection.outbox, spare);
        if put.is_ok() || alias.number == 0 || alias.is_known {
            return put.map(|copied_bytes| (copied_bytes, alias.number != 0));
        }
        connection.take_back_alias(publication.topic, alias);
        form.topic_alias = 0;
        let put = self.put(publication, &form, now, max, &mut connection.outbox, spare);
        put.map(|copied_bytes| (copied_bytes, false))
    }

    /// Begins a publish: what is cached belongs to another one. Returns a number that no other
    /// publish of this shard has.
    pub const fn begin(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Appends the publish to `outbox` in the form its receiver gets.
    ///
    /// # Errors
    /// Gives the packet's size if it is more than `packet_bytes_max`; nothing is appended then
    /// `[MQTT-3.1.2-24]`.
    pub fn put(
        &mut self,
        publication: &mut Publication<'_>,
        form: &Form<'_>,
        now: Timestamp,
        packet_bytes_max: u32,
        outbox: &mut Outbox,
        spare: &mut SpareBuffers,
    ) -> Result<usize, usize> {
        let copies = publication.payload.len() < COPY_BYTES_MAX;
        let is_common = form.subscription_ids.is_empty() && form.topic_alias == 0 && !form.dup;
        let copied_bytes;
        let packet_bytes;
        if is_common {
            let encoded = self.common(publication, form, now, copies);
            packet_bytes = encoded.packet_bytes;
            if packet_bytes > packet_bytes_max as usize {
                return Err(packet_bytes);
            }
            let buffer = outbox.buffer(spare);
            let start = buffer.len();
            buffer.extend_from_slice(&encoded.bytes);
            copied_bytes = encoded.bytes.len();
            if let Some(at) = encoded.id_at
                && let Some(id) = buffer.get_mut(start + at..start + at + 2)
            {
                id.copy_from_slice(&form.packet_id.to_be_bytes());
            }
        } else {
            let head = head(publication, form, now);
            packet_bytes = head.packet_bytes();
            if packet_bytes > packet_bytes_max as usize {
                return Err(packet_bytes);
            }
            let buffer = outbox.buffer(spare);
            let start = buffer.len();
            head.encode(buffer);
            if copies {
                buffer.extend_from_slice(publication.payload);
            }
            copied_bytes = buffer.len() - start;
        }
        if !copies {
            outbox.push_shared(publication.keep().clone());
        }
        Ok(copied_bytes)
    }

    fn common(
        &mut self,
        publication: &Publication<'_>,
        form: &Form<'_>,
        now: Timestamp,
        copies: bool,
    ) -> &Encoded {
        let index = usize::from(form.version.is_v5()) * 6
            + usize::from(form.qos.bits()) * 2
            + usize::from(form.retain);
        // The index is below 12 by construction.
        let encoded = &mut self.encoded[index];
        if encoded.stamp != self.stamp {
            encoded.stamp = self.stamp;
            encoded.bytes.clear();
            let head = head(publication, form, now);
            encoded.id_at = head.encode(&mut encoded.bytes);
            encoded.packet_bytes = head.packet_bytes();
            if copies {
                encoded.bytes.extend_from_slice(publication.payload);
            }
        }
        encoded
    }
}

/// Size of the packet by which a receiver gets the publish in this form.
#[must_use]
pub fn packet_bytes(publication: &Publication<'_>, form: &Form<'_>, now: Timestamp) -> usize {
    head(publication, form, now).packet_bytes()
}

fn head<'a>(publication: &'a Publication<'_>, form: &Form<'a>, now: Timestamp) -> PublishHead<'a> {
    PublishHead {
        version: form.version,
        dup: form.dup,
        qos: form.qos,
        retain: form.retain,
        topic: if form.alias_is_known {
            ""
        } else {
            publication.topic
        },
        packet_id: form.packet_id,
        forwarded: publication.forwarded,
        expiry_seconds: publication.expiry_seconds(now),
        topic_alias: form.topic_alias,
        subscription_ids: form.subscription_ids,
        payload_bytes: publication.payload.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_form_is_the_same_as_one_written_for_its_receiver() {
        let now = Timestamp::from_ms(0);
        for version in [Version::V3_1_1, Version::V5] {
            for qos in [Qos::AtMostOnce, Qos::ExactlyOnce] {
                let form = Form {
                    retain: true,
                    packet_id: if qos == Qos::AtMostOnce { 0 } else { 0x0102 },
                    ..Form::plain(version, qos, &[])
                };
                let mut encoder = Encoder::default();
                let mut spare = SpareBuffers::default();
                for payload in [&b"one"[..], b"other", &[7; COPY_BYTES_MAX]] {
                    encoder.begin();
                    let mut publication = Publication::new("a/b", payload, &[], qos, true, None);
                    let mut outbox = Outbox::default();
                    for _ in 0..2 {
                        encoder
                            .put(
                                &mut publication,
                                &form,
                                now,
                                u32::MAX,
                                &mut outbox,
                                &mut spare,
                            )
                            .unwrap();
                    }
                    let mut wanted = Vec::new();
                    for _ in 0..2 {
                        head(&publication, &form, now).encode(&mut wanted);
                        wanted.extend_from_slice(payload);
                    }
                    let batch = outbox.begin_send().unwrap();
                    assert_eq!(
                        batch.slices().flatten().copied().collect::<Vec<_>>(),
                        wanted
                    );
                }
            }
        }
    }

    #[test]
    fn a_new_alias_is_left_out_where_it_would_not_fit() {
        let mut encoder = Encoder::default();
        encoder.begin();
        let mut publication =
            Publication::new("topic", b"0123456789", &[], Qos::AtMostOnce, false, None);
        let mut connection = Connection::new(Timestamp::default(), Timestamp::NEVER, false);
        connection.take_aliases(1, &foldhash::fast::FixedState::default());
        let form = Form::plain(Version::V5, Qos::AtMostOnce, &[]);
        let now = Timestamp::from_ms(0);
        let size = packet_bytes(&publication, &form, now) as u32;
        let mut put = |limit: u32| {
            connection.packet_bytes_max = limit;
            let mut spare = SpareBuffers::default();
            encoder.put_with_alias(&mut publication, form, now, &mut connection, &mut spare)
        };
        let bytes = size as usize;
        assert!(put(size - 1).is_err());
        assert_eq!(put(size), Ok((bytes, false)));
        assert_eq!(put(size + 2), Ok((bytes, false)));
        assert_eq!(put(size + 3), Ok((bytes + 3, true)));
        // From now on the alias stands for the topic.
        assert_eq!(put(size - 2), Ok((bytes + 3 - 5, true)));
    }

    #[test]
    fn what_the_client_does_not_take_is_not_appended() {
        let mut encoder = Encoder::default();
        encoder.begin();
        let mut publication =
            Publication::new("t", b"0123456789", &[], Qos::AtMostOnce, false, None);
        let form = Form::plain(Version::V5, Qos::AtMostOnce, &[]);
        let mut outbox = Outbox::default();
        let mut spare = SpareBuffers::default();
        let now = Timestamp::from_ms(0);
        let size = 2 + 3 + 1 + 10;
        let mut put =
            |limit| encoder.put(&mut publication, &form, now, limit, &mut outbox, &mut spare);
        assert_eq!(put(size - 1), Err(size as usize));
        assert!(put(size).is_ok());
        assert_eq!(outbox.bytes(), size as usize);
    }
}
