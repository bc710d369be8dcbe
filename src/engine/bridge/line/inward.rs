//! From the remote broker to the core.

use super::breach::Breach;
use super::exactly::Heard;
use super::{End, Line, News, Side, Stage, first_ack};
use crate::engine::bridge::hops::{self, Passage};
use crate::engine::codec::ack::Ack;
use crate::engine::codec::frame::Frame;
use crate::engine::codec::publish::{Publish, PublishHead};
use crate::engine::codec::remote::{decode_farewell, decode_suback};
use crate::engine::codec::topic::TopicName;
use crate::engine::codec::{DecodeError, PacketType, Reason, Version};
use crate::engine::message::Qos;

impl Line {
    pub(super) fn packet_of_remote(&mut self, frame: Frame<'_>) {
        if self.stage == Stage::Greeting {
            return self.connack_of_remote(frame);
        }
        let Some(kind) = PacketType::from_first_byte(frame.first_byte) else {
            return self.broken(DecodeError::ReservedPacketType.into());
        };
        if kind != PacketType::Publish && !kind.may_begin_with(frame.first_byte, self.version()) {
            return self.broken(DecodeError::FixedHeaderFlags.into());
        }
        let done = match kind {
            PacketType::Publish => self.publish_in(frame),
            PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
                self.ack_in(kind, frame)
            }
            PacketType::Suback => self.suback_of_remote(frame),
            PacketType::Pingresp if frame.body.is_empty() => Ok(()),
            PacketType::Pingresp => Err(DecodeError::TrailingBytes.into()),
            PacketType::Disconnect if self.version().is_v5() => self.farewell_of_remote(frame),
            _ => Err(Breach::Unexpected(kind)),
        };
        if let Err(breach) = done {
            self.broken(breach);
        }
    }

    fn suback_of_remote(&mut self, frame: Frame<'_>) -> Result<(), Breach> {
        let (packet_id, codes) = decode_suback(frame.body, self.version())?;
        let mut subacks = self.awaited.subacks.iter();
        let place = subacks.position(|(known, _)| *known == packet_id);
        let place = place.ok_or(Breach::SubackUnknown(packet_id))?;
        let (_, filters) = self.awaited.subacks.remove(place);
        if codes.len() != filters.len() {
            return Err(Breach::SubackCodes {
                codes: codes.len(),
                filters: filters.len(),
            });
        }
        let is_none = |code: &&u8| (3..0x80).contains(*code);
        if let Some(code) = codes.iter().find(is_none) {
            return Err(Breach::SubackCode(*code));
        }
        self.tell_refused(Side::Remote, filters, codes);
        self.look_whether_up();
        Ok(())
    }

    fn farewell_of_remote(&mut self, frame: Frame<'_>) -> Result<(), Breach> {
        let (why, server) = decode_farewell(frame.body)?;
        let server = server.map(str::to_owned);
        self.exactly.ends_by_remote();
        let is_taken_over = frame.body.first() == Some(&Reason::SessionTakenOver.byte());
        let remedy = match is_taken_over {
            true => {
                "; another client has its identifier there (bridge.client_id): give each its own"
            }
            false => "",
        };
        self.end_with(End {
            is_taken_over,
            server_reference: server,
            ..End::before_line(format!("it disconnects: {why}{remedy}"))
        });
        Ok(())
    }

    fn publish_in(&mut self, frame: Frame<'_>) -> Result<(), Breach> {
        let publish = Publish::decode(frame.first_byte, frame.body, self.version())?;
        if let Some(alias) = publish.properties.topic_alias {
            // CONNECT has told no Topic Alias Maximum.
            return Err(Breach::TopicAlias(alias));
        }
        let qos = publish.qos;
        if let Some(asked) = self.remote.asked_qos.filter(|asked| qos > *asked) {
            return Err(Breach::QosNotAsked { qos, asked });
        }
        let mut topic = std::mem::take(&mut self.topic);
        let mut properties = std::mem::take(&mut self.properties);
        self.route_in(&publish, &mut topic, &mut properties);
        (self.topic, self.properties) = (topic, properties);
        Ok(())
    }

    fn route_in(&mut self, publish: &Publish<'_>, topic: &mut String, properties: &mut Vec<u8>) {
        let rule = self.routes_in.find(publish.topic, topic);
        let rule = rule.and_then(|rule| self.plan.topics.get(rule));
        let is_topic = TopicName::new(topic, self.plan.taken.topics).is_ok();
        let Some(rule) = rule.filter(|_| is_topic) else {
            self.counts.dropped_topic += 1;
            return self.end_in(publish);
        };
        if !self.plan.takes_in(rule, topic) {
            // Another connection brings it.
            return self.end_in(publish);
        }
        let retain = rule.retain(publish.retain) && self.plan.taken.retain_available;
        let hops_max = self.plan.hops_max;
        let mut forwarded: &[u8] = &publish.properties.forwarded;
        if hops_max > 0 {
            let (from, to) = (self.remote.name.as_deref(), Some(&*self.plan.broker_name));
            if hops::pass(forwarded, from, to, hops_max, properties) != Passage::Open {
                self.counts.dropped_hops += 1;
                return self.end_in(publish);
            }
            forwarded = properties;
        }
        let head = PublishHead {
            version: Version::V5,
            dup: publish.dup && publish.qos > Qos::AtMostOnce,
            qos: publish.qos,
            retain,
            topic,
            packet_id: publish.packet_id,
            forwarded,
            expiry_seconds: publish.properties.expiry_seconds,
            topic_alias: 0,
            subscription_ids: &[],
            payload_bytes: publish.payload.len(),
        };
        if head.packet_bytes() > self.plan.taken.packet_bytes_max {
            self.counts.dropped_too_large += 1;
            return self.end_in(publish);
        }
        head.encode(&mut self.up);
        self.up.extend_from_slice(publish.payload);
        self.counts.messages_in += 1;
        self.passed += 1;
    }

    /// A message goes no further: the remote broker is done with it. PUBREL of one of QoS 2 goes to the core,
    /// which answers it though it does not know the identifier.
    fn end_in(&mut self, publish: &Publish<'_>) {
        if let Some(ack) = first_ack(publish, Reason::Success) {
            ack.encode(self.version(), &mut self.down);
        }
    }

    fn ack_in(&mut self, kind: PacketType, frame: Frame<'_>) -> Result<(), Breach> {
        let ack = Ack::decode(kind, frame.body, self.version())?;
        if ack.reason.is_error() && kind != PacketType::Pubcomp {
            self.counts.refused_remote += 1;
            self.counts.refused_by = Some(ack.reason);
        }
        let heard = self.exactly.heard(&ack);
        if heard == Heard::FirstPubrec {
            self.news.push(News::NoQos2);
        }
        match heard {
            Heard::Same => ack.encode(Version::V5, &mut self.up),
            _ => self.say_here(PacketType::Pubrec, ack.packet_id, ack.reason),
        }
        Ok(())
    }
}
