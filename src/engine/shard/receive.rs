//! Bytes of a connection to packets, and each packet to its handler.

use super::ShardCore;
use super::refusals::{beyond, not_connect};
use crate::engine::codec::control::PINGRESP;
use crate::engine::codec::frame::{Frame, Split, split};
use crate::engine::codec::{DecodeError, Packet, PacketType, Reason, Version};
use crate::engine::keys::ConnectionKey;
use crate::engine::session::unfinished::Unfinished;
use crate::engine::time::Timestamp;

/// A packet whose beginning is so long is gathered in pieces.
const GATHERED_FROM_BYTES: usize = 16 * 1024;
/// Bytes of a packet whose copies, into one buffer and into its message, cost as much as a delivery.
const BYTES_PER_DELIVERY: usize = 256;

/// Whether the first packet of a stream is a CONNECT, by its first byte.
fn is_connect(stream: &[u8]) -> bool {
    let kind = stream
        .first()
        .map(|first| PacketType::from_first_byte(*first));
    kind == Some(Some(PacketType::Connect))
}

impl ShardCore {
    /// Bytes arrived on a connection. Packets are handled as soon as they are whole; what is left over
    /// is kept until the rest comes.
    pub fn receive(&mut self, now: Timestamp, key: ConnectionKey, bytes: &[u8]) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        connection.heard_at = now;
        connection.received_bytes += bytes.len() as u64;
        if connection.is_asking() {
            connection.partial.extend_from_slice(bytes);
            return;
        }
        if connection.hold.is_some() {
            return self.keep_held(key, bytes);
        }
        if let Some(packet) = &mut connection.unfinished {
            packet.push(bytes);
            return self.gather(now, key);
        }
        if connection.partial.is_empty() {
            let used = self.frames(now, key, bytes);
            let rest = bytes.get(used..).unwrap_or_default();
            if !rest.is_empty() {
                self.keep_partial(key, rest.to_vec());
            }
            return;
        }
        connection.partial.extend_from_slice(bytes);
        self.take_up(now, key);
    }

    /// Keeps what is left over, in pieces if it is the beginning of a large packet.
    fn keep_partial(&mut self, key: ConnectionKey, partial: Vec<u8>) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let waits = connection.hold.is_some() || connection.is_asking();
        let total_bytes = match split(&partial, usize::MAX) {
            Ok(Split::Partial(total)) if !waits && partial.len() >= GATHERED_FROM_BYTES => total,
            _ => 0,
        };
        if total_bytes > partial.len() {
            connection.unfinished = Some(Box::new(Unfinished::new(partial, total_bytes)));
        } else {
            connection.partial = partial;
        }
        self.bound_partial(key);
    }

    /// More of a large packet has come: handles it once it is whole, in a turn that has work left.
    fn gather(&mut self, now: Timestamp, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if !connection
            .unfinished
            .as_ref()
            .is_some_and(|packet| packet.is_whole())
        {
            return self.bound_partial(key);
        }
        if self.backlog.is_spent() {
            return self.hold_for_turn(key);
        }
        self.take_up(now, key);
    }

    /// Handles what a connection has sent and is not handled.
    pub(super) fn take_up(&mut self, now: Timestamp, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let is_gathered = connection.unfinished.is_some();
        let mut unparsed = connection.take_unparsed();
        if is_gathered {
            self.backlog.spend(unparsed.len() / BYTES_PER_DELIVERY);
        }
        let used = self.frames(now, key, &unparsed);
        if used == unparsed.len() {
            return;
        }
        if used < unparsed.len() / 2 {
            unparsed.drain(..used);
        } else {
            unparsed = unparsed.split_off(used);
        }
        self.keep_partial(key, unparsed);
    }

    /// Handles the whole packets at the front of `stream`; returns the bytes they took.
    pub(super) fn frames(&mut self, now: Timestamp, key: ConnectionKey, stream: &[u8]) -> usize {
        let mut used = 0;
        self.backlog.begin_share();
        while let Some(rest) = stream.get(used..)
            && !rest.is_empty()
        {
            let Some(connection) = self.clients.connections.get(key) else {
                return used;
            };
            if connection.is_asking() || connection.hold.is_some() {
                return used;
            }
            let (is_open, exchanges) = (connection.session.is_some(), connection.gate.is_some());
            let version = connection.version;
            let packet_bytes_max = if is_open {
                connection.granted.packet_bytes_max as usize
            } else {
                self.settings.limits.connect_bytes_max
            };
            match split(rest, packet_bytes_max) {
                Ok(Split::Whole(frame, bytes)) if is_open => {
                    if self.has_to_wait(key, frame.first_byte) {
                        return used;
                    }
                    used += bytes;
                    self.staged.take_full();
                    match Packet::decode(frame, version) {
                        // Most packets are these: they are not moved about.
                        Ok(Packet::Publish(ref publish)) => {
                            if self.store.is_full() && self.waits_for_disk(key, version, publish) {
                                return used - bytes;
                            }
                            self.note_received(key, frame, bytes);
                            if self.sampling.is_due {
                                self.publish_sampled(now, key, publish);
                            } else {
                                self.publish(now, key, publish);
                            }
                        }
                        Ok(packet) => {
                            self.note_received(key, frame, bytes);
                            self.packet(now, key, version, packet);
                        }
                        Err(error) => self.refuse_frame(now, key, (frame, bytes), error),
                    }
                    let full = self.staged.take_full();
                    if !full.is_empty() && !self.waits_for_store(key) {
                        self.hold_for_room(key, full);
                    }
                    self.mind_memory(now);
                }
                Ok(Split::Whole(frame, bytes)) => {
                    if !self.early_packet(now, key, (frame, bytes), rest) {
                        return stream.len();
                    }
                    used += bytes;
                }
                Ok(Split::Partial(_)) => {
                    if !is_open && !exchanges && !is_connect(rest) {
                        // [MQTT-3.1.0-1]: no need to wait for the rest of it.
                        self.drop_nameless(key, &not_connect(rest));
                    }
                    return used;
                }
                Err(error) => self.refuse_stream(now, key, error, rest),
            }
        }
        used
    }

    /// Counts a packet of a client that was let in, and tells it to who follows.
    #[inline]
    fn note_received(&mut self, key: ConnectionKey, frame: Frame<'_>, bytes: usize) {
        self.clients.traffic.receive(frame.first_byte, bytes);
        if self.traces.is_on() {
            self.trace_received(key, frame, bytes);
        }
    }

    /// A packet of a client that is not let in yet; whether what follows is looked at.
    fn early_packet(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        (frame, bytes): (Frame<'_>, usize),
        stream: &[u8],
    ) -> bool {
        if self.traces.is_on() {
            self.trace_early(key, frame, bytes);
        }
        let connection = self.clients.connections.get(key);
        if connection.is_some_and(|connection| connection.gate.is_some()) {
            return self.exchange_packet(key, frame);
        }
        let goes_on = self.first_packet(now, key, (frame, bytes), stream);
        let connection = self.clients.connections.get(key);
        if connection.is_some_and(|connection| connection.session.is_some()) {
            let traffic = &mut self.clients.traffic;
            traffic.receive(PacketType::Connect.first_byte(), bytes);
        }
        goes_on
    }

    /// Whether a packet of this type has to wait: what costs much for a turn that has work left, filters
    /// for shards that answer. The connection is held then.
    fn has_to_wait(&mut self, key: ConnectionKey, first: u8) -> bool {
        let Some(kind) = PacketType::from_first_byte(first) else {
            return false;
        };
        match kind {
            PacketType::Subscribe | PacketType::Unsubscribe if self.interest.is_congested() => {
                self.hold_for_confirmations(key);
            }
            PacketType::Publish | PacketType::Subscribe | PacketType::Unsubscribe
                if self.backlog.is_share_over() =>
            {
                self.hold_for_turn(key);
            }
            _ if self.backlog.is_overdrawn() => self.hold_for_turn(key),
            _ => {
                self.backlog.spend_packet();
                return false;
            }
        }
        true
    }

    /// What a client sends begins with no packet, or with one that is too large.
    fn refuse_stream(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        error: DecodeError,
        stream: &[u8],
    ) {
        let Some(connection) = self.clients.connections.get(key) else {
            return;
        };
        let is_open = connection.session.is_some();
        let (limit, max) = if is_open {
            let max = connection.granted.packet_bytes_max as usize;
            ("limits.max_packet_bytes", max)
        } else {
            let max = self.settings.limits.connect_bytes_max;
            ("limits.connect_bytes_max", max)
        };
        let text = match (error, split(stream, usize::MAX)) {
            (DecodeError::PacketTooLarge, Ok(Split::Partial(bytes) | Split::Whole(_, bytes))) => {
                let what = format!("its packet has {bytes} bytes, more than may be");
                beyond(&what, limit, max)
            }
            _ => error.told(is_open.then_some(connection.version)).into(),
        };
        if is_open {
            return self.violation(key, error.reason(), &text, now);
        }
        self.clients.counters.protocol_errors += 1;
        if !self.note_gate(key, Reason::Success, &text) {
            self.note_nameless(key, 0, &text);
        }
        self.drop_connection(key);
    }

    /// A packet is none.
    #[cold]
    fn refuse_frame(
        &mut self,
        now: Timestamp,
        key: ConnectionKey,
        (frame, bytes): (Frame<'_>, usize),
        error: DecodeError,
    ) {
        if self.traces.is_on() {
            self.trace_received(key, frame, bytes);
        }
        self.refuse_packet(key, frame.first_byte, error, now);
    }

    /// A client broke a rule of the packet format: it is told where its version allows, and closed
    /// `[MQTT-4.13.1-1]`.
    fn refuse_packet(
        &mut self,
        key: ConnectionKey,
        first_byte: u8,
        error: DecodeError,
        now: Timestamp,
    ) {
        let connection = self.clients.connections.get(key);
        let mut text = error.told(connection.map(|connection| connection.version));
        if error == DecodeError::UnexpectedPacket
            && let Some(kind) = PacketType::from_first_byte(first_byte)
        {
            let again = match kind {
                PacketType::Connect => "a second ",
                _ => "",
            };
            text = format!("{again}{}: {text}", kind.name());
        }
        self.violation(key, error.reason(), &text, now);
    }

    /// Counts a breach of the protocol or a limit and disconnects.
    pub(super) fn violation(
        &mut self,
        key: ConnectionKey,
        reason: Reason,
        text: &str,
        now: Timestamp,
    ) {
        self.clients.counters.protocol_errors += 1;
        self.disconnect(key, reason, text, now);
    }

    fn packet(&mut self, now: Timestamp, key: ConnectionKey, version: Version, packet: Packet<'_>) {
        match packet {
            Packet::Publish(publish) => self.publish(now, key, &publish),
            Packet::Ack(ack) => self.acknowledge(now, key, ack),
            Packet::Subscribe(subscribe) => {
                self.pause_for_memory(key);
                self.subscribe(now, key, version, &subscribe);
            }
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(now, key, version, &unsubscribe),
            Packet::Pingreq => self.control(key, |out| out.extend_from_slice(&PINGRESP)),
            Packet::Disconnect(disconnect) => self.client_disconnects(key, disconnect, now),
            Packet::Auth(auth) => self.authenticate_again(now, key, &auth),
            Packet::Connect(_) => {
                let first_byte = PacketType::Connect.first_byte();
                self.refuse_packet(key, first_byte, DecodeError::UnexpectedPacket, now);
            }
        }
    }

    /// Appends a control packet to a connection's outbox.
    pub(super) fn control(&mut self, key: ConnectionKey, write: impl FnOnce(&mut Vec<u8>)) {
        if self.clients.control(key, write) && self.pause(key) {
            self.clients.counters.receives_paused += 1;
        }
    }
}
