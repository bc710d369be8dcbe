//! What clients hear, and what they answer.

use super::{PADDING, QUOTA_EXCEEDED, Run, TAKEN_OVER};
use crate::client::Phase;
use crate::oracle::{Arrival, ClientId};
use crate::wire::{self, Packet};
use ringmq::engine::receipt::Level;

impl Run {
    pub(super) fn read(&mut self, id: ClientId) -> Result<(), String> {
        let Some(link) = self.clients[id].link else {
            return Ok(());
        };
        let reads = self.clients[id].reads;
        let count = 1 + self.random.below(reads);
        let available = &mut self.world.links[link].to_client;
        let count = count.min(available.len());
        let fresh: Vec<u8> = available.drain(..count).collect();
        self.clients[id].inbound.extend_from_slice(&fresh);
        let is_v5 = self.clients[id].connect.is_v5;
        loop {
            let mut inbound = std::mem::take(&mut self.clients[id].inbound);
            let packet = wire::take(&mut inbound, is_v5);
            self.clients[id].inbound = inbound;
            match packet {
                Some(packet) => self.handle(id, packet)?,
                None => break,
            }
        }
        let link = &self.world.links[link];
        if link.is_closed_by_broker && link.to_client.is_empty() {
            return self.closed_by_broker(id);
        }
        Ok(())
    }

    fn closed_by_broker(&mut self, id: ClientId) -> Result<(), String> {
        if self.clients[id].phase == Phase::Leaving {
            self.clients[id].will = None;
            self.ended(id);
            return Ok(());
        }
        if self.world.was_refusing {
            self.note(|| {
                format!("the broker closed the connection of client {id} for lack of memory")
            });
            // It went when the broker closed, which may have been before others subscribed.
            self.trigger_will(id, false);
            self.ended(id);
            return Ok(());
        }
        let client = &mut self.clients[id];
        if client.stragglers == 0 {
            return Err(format!("the broker closed the connection of client {id}"));
        }
        client.stragglers -= 1;
        let was = client.phase;
        self.note(|| format!("a CONNECT of client {id} that came late has taken over"));
        self.trigger_will(id, was == Phase::Up);
        self.ended(id);
        Ok(())
    }

    fn handle(&mut self, id: ClientId, packet: Packet) -> Result<(), String> {
        self.note(|| format!("client {id} gets {packet:?}"));
        match packet {
            Packet::Connack {
                session_present,
                code,
                receive_maximum,
            } => self.connected(id, session_present, code, receive_maximum),
            Packet::Publish {
                topic,
                qos,
                dup,
                retain,
                packet_id,
                payload,
            } => self.delivered(id, (topic, qos, dup, retain, packet_id, payload)),
            Packet::Ack {
                kind,
                packet_id,
                reason,
            } => self.acknowledged(id, kind, packet_id, reason),
            Packet::Suback { packet_id, codes } => self.subscribed(id, packet_id, &codes),
            Packet::Unsuback { packet_id } => {
                let asked = self.clients[id].unsubscribing.remove(&packet_id);
                for index in asked.ok_or_else(|| format!("UNSUBACK {packet_id} out of nowhere"))? {
                    self.oracle.subscriptions[index].unsuback_at = Some(self.now);
                }
                self.clients[id].note_stored();
                Ok(())
            }
            Packet::Disconnect(TAKEN_OVER) if self.clients[id].stragglers > 0 => Ok(()),
            Packet::Disconnect(QUOTA_EXCEEDED) if self.world.was_refusing => Ok(()),
            Packet::Disconnect(reason) => Err(format!("client {id}: DISCONNECT 0x{reason:02X}")),
            Packet::Pingresp => Ok(()),
        }
    }

    fn connected(
        &mut self,
        id: ClientId,
        session_present: bool,
        code: u8,
        receive_maximum: u16,
    ) -> Result<(), String> {
        let lacks_memory = self.world.was_refusing && matches!(code, 3 | QUOTA_EXCEEDED);
        if lacks_memory {
            // It is closed next.
            return Ok(());
        }
        if code != 0 {
            return Err(format!("client {id} was refused: {code}"));
        }
        let client = &mut self.clients[id];
        let may_be_there = client.connects > 1 && client.is_kept && !client.connect.is_clean;
        if session_present && !may_be_there {
            return Err(format!("client {id}: a session where there is none"));
        }
        let away_ms = self.world.now_ms - client.left_ms;
        let lasts = !client.connect.is_v5 || away_ms < u64::from(client.connect.expiry_s) * 1000;
        // Disconnected for lack of memory, it may have been away for longer than it knows; and its session may
        // have ended for that.
        let is_sure = !self.world.was_refusing && !client.may_be_forgotten;
        let has_to_be_there = lasts && is_sure;
        if client.epoch.is_some() && !session_present && has_to_be_there && !client.connect.is_clean
        {
            return Err(format!(
                "client {id}: its session is gone after {away_ms} ms"
            ));
        }
        client.phase = Phase::Up;
        client.left_ms = client.opened_ms;
        let may_be_new = !lasts || client.may_be_forgotten;
        client.may_be_forgotten = false;
        if session_present && may_be_new && client.stragglers > 0 {
            // It may have ended, and a CONNECT whose answer was lost may have made another.
            client.is_uncertain = true;
            if let Some(epoch) = client.epoch {
                self.oracle.uncertain.insert((id, epoch));
            }
        }
        client.receive_maximum = usize::from(receive_maximum).min(8);
        if session_present && client.epoch.is_none() {
            // It never heard of the session that its lost CONNECT has made.
            client.received.clear();
        }
        if !session_present || client.epoch.is_none() {
            client.forget_session();
            client.epoch = Some(client.epochs);
            client.epochs += 1;
            return Ok(());
        }
        self.resend(id);
        Ok(())
    }

    /// Repeats what was not acknowledged, in its order.
    fn resend(&mut self, id: ClientId) {
        let is_v5 = self.clients[id].connect.is_v5;
        let is_uncertain = self.clients[id].is_uncertain;
        let mut bytes = Vec::new();
        for unacknowledged in self.clients[id].unacknowledged.clone() {
            if unacknowledged.is_released {
                bytes.extend(wire::ack(6, unacknowledged.publish.packet_id));
            } else {
                let message = &mut self.oracle.messages[unacknowledged.message];
                message.is_resent = true;
                message.is_new_again |= is_uncertain;
                bytes.extend(wire::publish(&unacknowledged.publish, true, is_v5));
            }
        }
        self.transmit(id, &bytes);
    }

    fn delivered(
        &mut self,
        id: ClientId,
        (topic, qos, dup, retain, packet_id, payload): (String, u8, bool, bool, u16, Vec<u8>),
    ) -> Result<(), String> {
        if self.clients[id].phase == Phase::Connecting {
            return Err(format!("client {id}: PUBLISH before CONNACK"));
        }
        match qos {
            1 => self.transmit(id, &wire::ack(4, packet_id)),
            2 => {
                self.transmit(id, &wire::ack(5, packet_id));
                if !self.clients[id].received.insert(packet_id) {
                    if dup {
                        return Ok(());
                    }
                    if !self.clients[id].is_uncertain {
                        return Err(format!("client {id}: {packet_id} again, without DUP"));
                    }
                }
            }
            _ if dup => return Err(format!("client {id}: DUP at QoS 0")),
            _ => {}
        }
        if payload.is_empty() {
            return if retain {
                Err(format!("client {id}: an empty retained message"))
            } else {
                Ok(())
            };
        }
        let Some(epoch) = self.clients[id].epoch else {
            return Err(format!("client {id}: PUBLISH without a session"));
        };
        let text = String::from_utf8(payload).map_err(|_| "a damaged payload".to_owned())?;
        let arrival = Arrival {
            client: id,
            epoch,
            link: self.clients[id].link.unwrap_or_default(),
            message: text
                .trim_end_matches(PADDING)
                .parse()
                .map_err(|_| format!("a damaged payload {text}"))?,
            topic,
            qos,
            retain,
            dup,
        };
        self.oracle.arrived(&arrival, self.now)
    }

    fn acknowledged(
        &mut self,
        id: ClientId,
        kind: u8,
        packet_id: u16,
        reason: u8,
    ) -> Result<(), String> {
        let is_early = kind == 5 && self.clients[id].level < Level::Disk;
        if kind > 4 && reason < 0x80 && !is_early {
            self.clients[id].note_stored();
        }
        if kind == 6 {
            self.clients[id].received.remove(&packet_id);
            self.transmit(id, &wire::ack(7, packet_id));
            return Ok(());
        }
        if reason >= 0x80 && !(kind == 7 && reason == 0x92) {
            return Err(format!(
                "client {id}: ack {kind} of {packet_id} says 0x{reason:02X}"
            ));
        }
        let now = self.now;
        let client = &mut self.clients[id];
        let position = client
            .unacknowledged
            .iter()
            .position(|u| u.publish.packet_id == packet_id);
        let Some(at) = position else {
            return Err(format!(
                "client {id}: ack {kind} of {packet_id} out of nowhere"
            ));
        };
        let unacknowledged = &mut client.unacknowledged[at];
        let expected_qos = if kind == 4 { 1 } else { 2 };
        if unacknowledged.publish.qos != expected_qos {
            return Err(format!("client {id}: ack {kind} of a QoS it is not for"));
        }
        let message = &mut self.oracle.messages[unacknowledged.message];
        // PUBCOMP tells no more than PUBREC did, and that may be forgotten.
        if kind != 7 {
            message.accepted_at.get_or_insert(now);
        }
        if kind == 5 {
            unacknowledged.is_released = true;
            self.transmit(id, &wire::ack(6, packet_id));
        } else {
            client.unacknowledged.remove(at);
        }
        Ok(())
    }

    fn subscribed(&mut self, id: ClientId, packet_id: u16, codes: &[u8]) -> Result<(), String> {
        let asked = self.clients[id].subscribing.remove(&packet_id);
        let asked = asked.ok_or_else(|| format!("SUBACK {packet_id} out of nowhere"))?;
        if codes.len() != asked.len() {
            return Err(format!("SUBACK {packet_id} with {} codes", codes.len()));
        }
        for (index, code) in asked.into_iter().zip(codes) {
            let subscription = &mut self.oracle.subscriptions[index];
            if *code != subscription.qos {
                return Err(format!("SUBACK {packet_id} says {code}"));
            }
            subscription.suback_at = Some(self.now);
            let (link, sent_at) = (subscription.link, subscription.subscribed_at);
            self.oracle.stored(link, sent_at);
        }
        self.clients[id].note_stored();
        Ok(())
    }
}
