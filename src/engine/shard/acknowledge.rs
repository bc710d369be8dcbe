//! PUBACK, PUBREC, PUBREL and PUBCOMP from a client, and acknowledgements to it that wait for the
//! store (4.3, 4.9).

use super::ShardCore;
use crate::engine::codec::ack::Ack;
use crate::engine::codec::{PacketType, Reason};
use crate::engine::keys::ConnectionKey;
use crate::engine::record::Receipt;
use crate::engine::time::Timestamp;

impl ShardCore {
    /// A client acknowledges. What is not known does no harm, but PUBREC and PUBREL are answered; what is
    /// known and waits for another kind ends the connection `[MQTT-4.13.1-1]`.
    pub(super) fn acknowledge(&mut self, now: Timestamp, key: ConnectionKey, ack: Ack) {
        let Some(connection) = self.clients.connections.get(key) else {
            return;
        };
        let version = connection.version;
        let Some(session_key) = connection.session else {
            return;
        };
        let Some(session) = self.clients.sessions.get_mut(session_key) else {
            return;
        };
        let (outbound, id) = (&mut session.outbound, ack.packet_id);
        let mut answer = None;
        let reply = |kind, known: bool| {
            let reason = if known {
                Reason::Success
            } else {
                Reason::PacketIdentifierNotFound
            };
            Some(Ack {
                kind,
                packet_id: id,
                reason,
            })
        };
        let is_taken = match ack.kind {
            PacketType::Puback => outbound.puback(id),
            PacketType::Pubrec if ack.reason.is_error() => outbound.pubrec_failed(id),
            PacketType::Pubrec => {
                let is_known = outbound.pubrec(id);
                answer = reply(PacketType::Pubrel, is_known);
                is_known
            }
            PacketType::Pubrel => {
                answer = reply(PacketType::Pubcomp, session.inbound.release(id));
                true
            }
            _ => outbound.pubcomp(id),
        };
        if !is_taken && outbound.awaits_other_than(ack.kind, id) {
            let text = "an acknowledgement of the wrong kind for its message";
            return self.violation(key, Reason::ProtocolError, text, now);
        }
        if let Some(answer) = answer {
            self.control(key, |out| answer.encode(version, out));
        }
        if self.clients.is_owed(session_key) {
            self.clients.pump(session_key, now);
            self.pump_replay(session_key, now);
        }
    }

    /// Whether what an acknowledgement waits for is safe.
    fn is_safe(&self, receipt: Receipt) -> bool {
        self.clients.journal.is_stored(receipt.ticket) && receipt.letter <= self.staged.visible()
    }

    /// Sends an acknowledgement once what it needs is safe; in the order of the publishes.
    pub(super) fn acknowledge_publish(&mut self, key: ConnectionKey, ack: Ack, receipt: Receipt) {
        let is_safe = self.is_safe(receipt);
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if !is_safe || !connection.awaiting_store.is_empty() {
            if connection.awaiting_store.is_empty() {
                self.clients.journal.wait(key, receipt);
            }
            connection.awaiting_store.push_back((receipt, ack));
            let max = usize::from(self.settings.limits.receive_maximum);
            if connection.awaiting_store.len() >= max && !connection.version.is_v5() {
                self.pause(key);
            }
            return;
        }
        let version = connection.version;
        self.control(key, |out| ack.encode(version, out));
    }

    /// Sends what is safe by now of the acknowledgements that wait.
    pub(super) fn release_stored_acks(&mut self) {
        while let Some(key) = self.clients.journal.next_due(self.staged.visible()) {
            while let Some(connection) = self.clients.connections.get_mut(key) {
                let version = connection.version;
                let Some((receipt, ack)) = connection.awaiting_store.pop_front() else {
                    connection.awaiting_store = Default::default();
                    break;
                };
                if !self.is_safe(receipt) {
                    if let Some(connection) = self.clients.connections.get_mut(key) {
                        connection.awaiting_store.push_front((receipt, ack));
                    }
                    self.clients.journal.wait(key, receipt);
                    break;
                }
                self.control(key, |out| ack.encode(version, out));
            }
            self.resume_if_room(key);
        }
    }
}
