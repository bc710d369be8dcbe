//! From the core to the remote broker.

use super::aliases::Alias;
use super::{Line, News, NotGranted, Purpose, Side, Stage, first_ack};
use crate::engine::bridge::hops::{self, Passage};
use crate::engine::codec::ack::Ack;
use crate::engine::codec::frame::Frame;
use crate::engine::codec::publish::{Publish, PublishHead};
use crate::engine::codec::remote::{decode_farewell, decode_suback, filter_refusal};
use crate::engine::codec::{DecodeError, PacketType, Reason, Version};
use crate::engine::message::Qos;

/// Whether the core ends a connection so for what the remote broker has sent.
const fn is_of_remote(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::MalformedPacket | Reason::ProtocolError | Reason::ReceiveMaximumExceeded
    )
}

/// The way of a message that goes on.
struct Way<'a> {
    qos: Qos,
    retain: bool,
    properties: &'a [u8],
}

impl Line {
    pub(super) fn packet_of_core(&mut self, frame: Frame<'_>) {
        let Some(kind) = PacketType::from_first_byte(frame.first_byte) else {
            return;
        };
        let done = match kind {
            PacketType::Connack => {
                self.connack_of_core(frame);
                Ok(())
            }
            PacketType::Publish => self.publish_out(frame),
            PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
                self.ack_out(kind, frame)
            }
            PacketType::Suback => self.suback_of_core(frame),
            PacketType::Disconnect => self.farewell_of_core(frame),
            _ => Ok(()),
        };
        if let Err(error) = done {
            self.broken(error.into());
        }
    }

    fn suback_of_core(&mut self, frame: Frame<'_>) -> Result<(), DecodeError> {
        let (_, codes) = decode_suback(frame.body, Version::V5)?;
        let filters = self.awaited.core.take().unwrap_or_default();
        let not_granted = filters.into_iter().zip(codes).filter_map(|(filter, code)| {
            Some(NotGranted {
                filter,
                why: filter_refusal(*code)?,
                is_by_rules: *code == Reason::NotAuthorized.byte(),
            })
        });
        let not_granted: Vec<_> = not_granted.collect();
        let names = not_granted.iter().map(|it| it.filter.clone()).collect();
        let before: Vec<_> = std::mem::replace(&mut self.awaited.not_granted, names);
        if !not_granted.is_empty() || !before.is_empty() {
            self.news.push(News::NotGranted(not_granted));
        }
        self.look_whether_up();
        Ok(())
    }

    pub(super) fn tell_refused(&mut self, by: Side, filters: Vec<String>, codes: &[u8]) {
        for (filter, code) in filters.into_iter().zip(codes) {
            if let Some(why) = filter_refusal(*code) {
                self.news.push(News::Refused(by, filter, why));
            }
        }
    }

    fn farewell_of_core(&mut self, frame: Frame<'_>) -> Result<(), DecodeError> {
        let (why, _) = decode_farewell(frame.body)?;
        if !matches!(self.purpose, Purpose::Prepare(_)) {
            self.say_goodbye();
        }
        let reason = frame.body.first().copied().and_then(Reason::from_byte);
        if self.stage == Stage::Over {
            // It has its cause.
        } else if reason.is_some_and(is_of_remote) {
            self.breach(&why);
        } else {
            self.fail(format!("this broker has closed it: {why}"));
        }
        Ok(())
    }

    fn publish_out(&mut self, frame: Frame<'_>) -> Result<(), DecodeError> {
        let publish = Publish::decode(frame.first_byte, frame.body, Version::V5)?;
        let mut topic = std::mem::take(&mut self.topic);
        let mut properties = std::mem::take(&mut self.properties);
        self.route_out(&publish, &mut topic, &mut properties);
        (self.topic, self.properties) = (topic, properties);
        Ok(())
    }

    fn route_out(&mut self, publish: &Publish<'_>, topic: &mut String, properties: &mut Vec<u8>) {
        let Some(rule) = self.routes_out.find(publish.topic, topic) else {
            self.counts.dropped_topic += 1;
            return self.end_out(publish);
        };
        let Some(rule) = self.plan.topics.get(rule) else {
            return;
        };
        if !self.plan.known.takes_topic(topic) {
            self.counts.dropped_topic += 1;
            return self.end_out(publish);
        }
        let retain = rule.retain(publish.retain) && self.remote.retain_available;
        let qos = publish.qos.min(rule.qos_max).min(self.qos_max());
        let hops_max = self.plan.hops_max;
        let has_hops = hops_max > 0 && self.version().is_v5();
        if has_hops {
            let from = Some(&*self.plan.broker_name);
            let to = self.remote.name.as_deref();
            let passage = hops::pass(
                &publish.properties.forwarded,
                from,
                to,
                hops_max,
                properties,
            );
            if passage != Passage::Open {
                self.counts.dropped_hops += 1;
                return self.end_out(publish);
            }
        }
        let properties: &[u8] = match has_hops {
            true => properties,
            false => &publish.properties.forwarded,
        };
        let way = Way {
            qos,
            retain,
            properties,
        };
        self.put_publish(publish, topic, &way);
    }

    fn put_publish(&mut self, publish: &Publish<'_>, topic: &str, way: &Way<'_>) {
        let alone = PublishHead {
            version: self.version(),
            dup: publish.dup && way.qos > Qos::AtMostOnce,
            qos: way.qos,
            retain: way.retain,
            topic,
            packet_id: publish.packet_id,
            forwarded: way.properties,
            expiry_seconds: publish.properties.expiry_seconds,
            topic_alias: 0,
            subscription_ids: &[],
            payload_bytes: publish.payload.len(),
        };
        let is_small = publish.payload.len() <= self.plan.known.payload_bytes_max;
        let Some(head) = Some(alone)
            .filter(|_| is_small)
            .and_then(|it| self.with_alias(it))
        else {
            self.counts.dropped_too_large += 1;
            return self.end_out(publish);
        };
        head.encode(&mut self.down);
        self.down.extend_from_slice(publish.payload);
        self.counts.messages_out += 1;
        self.passed += 1;
        if way.qos < publish.qos {
            self.lower(publish, way.qos);
        } else if way.qos == Qos::ExactlyOnce {
            self.exactly.sent(publish.packet_id);
        }
    }

    /// What the remote broker takes, by its CONNACK or by its answers.
    fn qos_max(&self) -> Qos {
        match self.exactly.is_refused() {
            true => self.remote.qos_max.min(Qos::AtLeastOnce),
            false => self.remote.qos_max,
        }
    }

    /// The same with an alias for its topic where there is one, and `None` if the remote broker does not take
    /// it in any way.
    fn with_alias<'a>(&mut self, alone: PublishHead<'a>) -> Option<PublishHead<'a>> {
        let max = self.remote.packet_bytes_max;
        let head = match self.aliases.of(alone.topic) {
            Alias::Known(topic_alias) => PublishHead {
                topic: "",
                topic_alias,
                ..alone
            },
            Alias::New(topic_alias) => PublishHead {
                topic_alias,
                ..alone
            },
            Alias::None => alone,
        };
        if head.packet_bytes() > max {
            return Some(alone).filter(|alone| alone.packet_bytes() <= max);
        }
        if head.topic_alias > 0 && !head.topic.is_empty() {
            self.aliases.learn(head.topic, head.topic_alias);
        }
        Some(head)
    }

    /// A message left with a lower QoS than it has here: what the remote broker does not say is said for it.
    fn lower(&mut self, publish: &Publish<'_>, qos: Qos) {
        if publish.qos == Qos::ExactlyOnce {
            self.exactly.lowered(publish.packet_id);
        }
        if qos == Qos::AtMostOnce {
            self.acknowledge_here(publish, Reason::Success);
        }
    }

    /// A message goes no further: the core is done with it.
    fn end_out(&mut self, publish: &Publish<'_>) {
        self.acknowledge_here(publish, Reason::ImplementationSpecificError);
    }

    fn acknowledge_here(&mut self, publish: &Publish<'_>, reason: Reason) {
        if let Some(ack) = first_ack(publish, reason) {
            ack.encode(Version::V5, &mut self.up);
        }
    }

    pub(super) fn say_here(&mut self, kind: PacketType, packet_id: u16, reason: Reason) {
        let ack = Ack {
            kind,
            packet_id,
            reason,
        };
        ack.encode(Version::V5, &mut self.up);
    }

    fn ack_out(&mut self, kind: PacketType, frame: Frame<'_>) -> Result<(), DecodeError> {
        let ack = Ack::decode(kind, frame.body, Version::V5)?;
        if kind == PacketType::Pubrel {
            let is_lowered = self.exactly.released(ack.packet_id);
            if is_lowered || self.remote.qos_max < Qos::ExactlyOnce {
                self.say_here(PacketType::Pubcomp, ack.packet_id, Reason::Success);
                return Ok(());
            }
        } else if ack.reason == Reason::QuotaExceeded {
            // Acknowledged it would be lost; left so, the remote broker sends it again by the next line.
            self.say_goodbye();
            self.fail(
                "this broker has no room to keep what it sends (storage.disk_bytes_max)".into(),
            );
            return Ok(());
        }
        ack.encode(self.version(), &mut self.down);
        Ok(())
    }

    /// Tells the remote broker whether the line is up, where it is to be told.
    pub(super) fn put_state(&mut self, topic: &str, state: &[u8]) {
        let head = PublishHead {
            version: self.version(),
            dup: false,
            qos: Qos::AtMostOnce,
            retain: self.remote.retain_available,
            topic,
            packet_id: 0,
            forwarded: &[],
            expiry_seconds: None,
            topic_alias: 0,
            subscription_ids: &[],
            payload_bytes: state.len(),
        };
        if head.packet_bytes() > self.remote.packet_bytes_max {
            self.counts.dropped_too_large += 1;
            return;
        }
        head.encode(&mut self.down);
        self.down.extend_from_slice(state);
    }
}
