//! PUBACK, PUBREC, PUBREL and PUBCOMP from a client, and acknowledgements to it that wait for the
//! store (4.3, 4.9).

use super::ShardCore;
use super::keeping::settle_entry;
use crate::engine::codec::ack::Ack;
use crate::engine::codec::{PacketType, Reason};
use crate::engine::keys::{ConnectionKey, SessionKey};
use crate::engine::receipt::{Level, Receipt};
use crate::engine::record::Record;
use crate::engine::time::Timestamp;

impl ShardCore {
    /// A client acknowledges. What is not known does no harm, but PUBREC and PUBREL are answered; what is
    /// known and waits for another kind ends the connection `[MQTT-4.13.1-1]`.
    pub(super) fn acknowledge(&mut self, now: Timestamp, key: ConnectionKey, ack: Ack) {
        let Some(connection) = self.clients.connections.get(key) else {
            return;
        };
        let Some(session_key) = connection.session else {
            return;
        };
        let packet_id = ack.packet_id;
        let (is_known, answer) = match ack.kind {
            PacketType::Pubrel => {
                let is_known = self.release(session_key, packet_id);
                (is_known, Some(PacketType::Pubcomp))
            }
            PacketType::Pubrec if !ack.reason.is_error() => {
                let is_known = self.receive_half(session_key, packet_id);
                (is_known, Some(PacketType::Pubrel))
            }
            _ => (self.settle_by(session_key, ack), None),
        };
        if !is_known && self.awaits_other(session_key, ack) {
            let text = "an acknowledgement of the wrong kind for its message";
            return self.violation(key, Reason::ProtocolError, text, now);
        }
        if let Some(kind) = answer {
            self.answer_half(key, kind, packet_id, is_known);
        }
        if self.clients.is_owed(session_key) {
            self.clients.pump(session_key, now);
            self.pump_replay(session_key, now);
        }
    }

    fn awaits_other(&mut self, key: SessionKey, ack: Ack) -> bool {
        let session = self.clients.sessions.get_mut(key);
        session.is_some_and(|session| session.outbound.awaits_other_than(ack.kind, ack.packet_id))
    }

    /// A message is over by an acknowledgement; whether it was known.
    fn settle_by(&mut self, key: SessionKey, ack: Ack) -> bool {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return false;
        };
        let outbound = &mut session.outbound;
        let settled = match ack.kind {
            PacketType::Puback => outbound.puback(ack.packet_id),
            PacketType::Pubrec => outbound.pubrec_failed(ack.packet_id),
            _ => outbound.pubcomp(ack.packet_id),
        };
        settle_entry(session, &mut self.clients.journal, settled.unwrap_or(0));
        settled.is_some()
    }

    /// PUBREC: the client has the message. Whether it was known.
    fn receive_half(&mut self, key: SessionKey, packet_id: u16) -> bool {
        let Some(session) = self.clients.sessions.get_mut(key) else {
            return false;
        };
        let received = session.outbound.pubrec(packet_id);
        if let (Some(session), Some(entry @ 1..)) = (session.number, received) {
            self.clients.journal.put(Record::Received {
                session,
                entry,
                packet_id,
            });
        }
        received.is_some()
    }

    /// PUBREL: the identifier of a client's publish is free. Whether it was in use.
    fn release(&mut self, key: SessionKey, packet_id: u16) -> bool {
        let session = self.clients.sessions.get_mut(key);
        let is_known = session.is_some_and(|session| session.inbound.release(packet_id));
        if is_known {
            self.receipts.release(key, packet_id);
            self.clients
                .keep(key, |session| Record::Released { session, packet_id });
        }
        is_known
    }

    /// PUBREL for what clients do not take any more.
    pub(super) fn release_given_up(&mut self) {
        for (key, packet_id) in std::mem::take(&mut self.clients.given_up) {
            self.answer_half(key, PacketType::Pubrel, packet_id, true);
        }
    }

    /// PUBREL or PUBCOMP, once it is stored what it ends: else a message would come again after it, or
    /// another one with its identifier be taken for it. That may have been told by an earlier packet.
    fn answer_half(&mut self, key: ConnectionKey, kind: PacketType, packet_id: u16, known: bool) {
        let reason = if known {
            Reason::Success
        } else {
            Reason::PacketIdentifierNotFound
        };
        let ack = Ack {
            kind,
            packet_id,
            reason,
        };
        self.acknowledge_publish(key, ack, self.receipt_of_all());
    }

    /// For what may rest on anything that this shard has changed so far.
    pub(super) fn receipt_of_all(&self) -> Receipt {
        Receipt {
            ticket: self.clients.journal.last_ticket(),
            ..Receipt::default()
        }
    }

    /// Whether what an acknowledgement waits for is safe.
    fn is_safe(&self, receipt: Receipt) -> bool {
        let Receipt { ticket, level, .. } = receipt;
        self.clients.journal.is_safe(ticket, level)
            && receipt.letter <= self.staged.visible()
            && self.receipts.is_safe(receipt)
    }

    /// A connection's first acknowledgement waits for that.
    fn wait_until_safe(&mut self, key: ConnectionKey, receipt: Receipt) {
        let Receipt { ticket, level, .. } = receipt;
        let is_here = self.clients.journal.is_safe(ticket, level);
        if is_here && receipt.letter <= self.staged.visible() {
            self.receipts.wait(key, receipt);
        } else {
            self.clients.journal.wait(key, receipt);
        }
    }

    /// The next connection whose first acknowledgement may not have to wait any more.
    fn next_due(&mut self) -> Option<ConnectionKey> {
        let next = self.clients.journal.next_due(self.staged.visible());
        next.or_else(|| self.receipts.next_due())
    }

    /// What an answer to a publish waits for, by the level of its client's listener. PUBREL and PUBCOMP wait
    /// for the store in any case: what they end would not only be lost with a crash, but be taken for
    /// something else.
    fn lowered(&self, key: ConnectionKey, ack: Ack, receipt: Receipt) -> Receipt {
        let is_of_publish = matches!(ack.kind, PacketType::Puback | PacketType::Pubrec);
        let connection = self.clients.connections.get(key);
        let level = connection.map_or(Level::Disk, |c| self.settings.level(c.listener));
        if is_of_publish {
            receipt.lowered(level)
        } else {
            receipt
        }
    }

    /// Sends an acknowledgement once what it needs is safe; in the order of the publishes.
    pub(super) fn acknowledge_publish(&mut self, key: ConnectionKey, ack: Ack, receipt: Receipt) {
        let (mut receipt, mut is_safe) = (receipt, self.is_safe(receipt));
        if !is_safe && self.settings.stores {
            receipt = self.lowered(key, ack, receipt);
            is_safe = self.is_safe(receipt);
        }
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if !is_safe || !connection.awaiting_store.is_empty() {
            let is_first = connection.awaiting_store.is_empty();
            connection.awaiting_store.push(receipt, ack);
            let max = usize::from(connection.granted.receive_maximum);
            if connection.awaiting_store.publishes() >= max && !connection.version.is_v5() {
                self.pause(key);
            }
            if is_first {
                self.wait_until_safe(key, receipt);
            }
            return;
        }
        let version = connection.version;
        self.control(key, |out| ack.encode(version, out));
    }

    /// Sends what is safe by now of the acknowledgements that wait.
    pub(super) fn release_stored_acks(&mut self) {
        while let Some(key) = self.next_due() {
            while let Some(connection) = self.clients.connections.get(key)
                && let Some(receipt) = connection.awaiting_store.next()
            {
                if !self.is_safe(receipt) {
                    self.wait_until_safe(key, receipt);
                    break;
                }
                self.send_next_ack(key);
            }
            self.resume_if_room(key);
        }
    }

    fn send_next_ack(&mut self, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let version = connection.version;
        if let Some(ack) = connection.awaiting_store.pop() {
            self.control(key, |out| ack.encode(version, out));
        }
    }
}
