//! Connections with layers under MQTT: bytes go through an engine in each direction.
//!
//! A handshake costs as much as thousands of deliveries, so each step of one waits in a queue of which a
//! turn works off only as much as its share of time allows; what a client sends meanwhile is bounded,
//! beyond that it is not read.

use super::Shell;
use super::events::gone_by;
use super::handshakes::Handshakes;
use super::sockets::{State, Under};
use crate::engine::bridge;
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::telemetry::notes::Gone;
use crate::shard::ring::{Ring, SocketKey};
use crate::shard::transport::{Arrival, TransportError, UPGRADE_BYTES_MAX};
use std::time::Instant;

fn wire_batch(wire: Vec<u8>) -> Outgoing {
    Outgoing::from(wire)
}

impl Shell {
    /// Socket bytes of a connection with layers.
    pub(super) fn received_layered(&mut self, ring: &mut Ring, socket: SocketKey, bytes: &[u8]) {
        let Some(link) = self.sockets.link(socket) else {
            return;
        };
        if link.layers.is_established() && !link.is_queued {
            return self.unwrap_bytes(ring, socket, bytes);
        }
        link.inbox.extend_from_slice(bytes);
        if link.inbox.len() > UPGRADE_BYTES_MAX && !link.is_paused {
            link.is_paused = true;
            ring.pause_receive(socket);
        }
        if !std::mem::replace(&mut link.is_queued, true) {
            self.handshakes.push(socket);
        }
    }

    /// Works off some of the handshakes; whether there are more.
    pub(super) fn shake_hands(&mut self, ring: &mut Ring) -> bool {
        if self.handshakes.is_empty() {
            return false;
        }
        let share = Handshakes::begin(Instant::now());
        while let Some(socket) = self.handshakes.next() {
            self.empty_inbox(ring, socket);
            if share.is_over(Instant::now()) {
                break;
            }
        }
        !self.handshakes.is_empty()
    }

    /// Takes what waited for the handshakes' turn.
    pub(super) fn empty_inbox(&mut self, ring: &mut Ring, socket: SocketKey) {
        let Some(link) = self.sockets.link(socket) else {
            return;
        };
        link.is_queued = false;
        if std::mem::take(&mut link.is_paused) {
            ring.resume_receive(socket);
        }
        let bytes = std::mem::take(&mut link.inbox);
        self.unwrap_bytes(ring, socket, &bytes);
    }

    /// Passes socket bytes up through the layers to the core.
    fn unwrap_bytes(&mut self, ring: &mut Ring, socket: SocketKey, bytes: &[u8]) {
        let mut plain = std::mem::take(&mut self.handshakes.plain);
        plain.clear();
        let Some(link) = self.sockets.link(socket) else {
            return;
        };
        let was_established = link.layers.is_established();
        let arrival = link.layers.receive(bytes, &mut plain);
        if link.layers.is_backed_up() && !std::mem::replace(&mut link.is_paused, true) {
            ring.pause_receive(socket);
        }
        self.learn_peer(ring, socket);
        if !was_established {
            self.learn_certificate_end(socket);
        }
        self.pass_up(ring, socket, &plain);
        self.handshakes.plain = plain;
        self.pump(ring, socket);
        self.finish_batch(ring, socket);
        self.lines.touch(socket);
        match arrival {
            Ok(Arrival::Open) => self.drop_transparent(socket),
            Ok(Arrival::Ended) => self.layers_ended(ring, socket, None),
            Err(error) => self.layers_ended(ring, socket, Some(&error)),
        }
    }

    /// A proxy may have said where the client is.
    fn learn_peer(&mut self, ring: &mut Ring, socket: SocketKey) {
        if let Some(entry) = self.sockets.entry(socket)
            && entry.origin.counted.is_none()
            // A bridge's line goes out: the guards are for who comes in.
            && entry.origin.listener != bridge::LISTENER
            && let Some(Under { link, .. }) = entry.under.as_deref_mut()
        {
            entry.origin.peer = link.layers.peer();
            if let Some(header) = link.layers.take_missing_header() {
                let now = self.clock.turn_at();
                self.tellings.tell_unnamed(now, entry.origin.peer, header);
            }
            if link.layers.is_peer_known() {
                self.check_address(ring, socket);
            }
        }
    }

    /// The handshake tells how long the client's certificate counts.
    pub(super) fn learn_certificate_end(&mut self, socket: SocketKey) {
        if let Some(entry) = self.sockets.entry(socket)
            && let State::Open(connection) = entry.state
            && let Some(Under { link, .. }) = entry.under.as_deref()
            && let Some(ends_unix_s) = link.layers.certificate_ends_unix_s()
        {
            let ends_at = self.clock.at_unix_s(ends_unix_s);
            self.core.set_certificate_end(connection, ends_at);
        }
    }

    fn pass_up(&mut self, ring: &mut Ring, socket: SocketKey, plain: &[u8]) {
        if plain.is_empty() {
            return;
        }
        match self.sockets.state(socket) {
            Some(State::Open(connection)) => {
                let connection = *connection;
                self.core.receive(self.clock.now(), connection, plain);
                self.carry_out(ring);
            }
            Some(State::Leaving { bytes, .. }) => bytes.extend_from_slice(plain),
            Some(State::Closing(_) | State::Aborted) | None => {}
        }
    }

    fn layers_ended(&mut self, ring: &mut Ring, socket: SocketKey, error: Option<&TransportError>) {
        let Some(entry) = self.sockets.entry(socket) else {
            return;
        };
        let mut is_line = false;
        if let Some(under) = &mut entry.under {
            is_line = under.link.layers.line().is_some();
            // Its home shard is to hear of it too, if it is on its way there.
            under.link.has_ended = true;
        }
        let origin = entry.origin;
        let state = match entry.state {
            State::Open(connection) => Some(connection),
            _ => None,
        };
        if let Some(error) = error {
            let text = error.to_string();
            self.note_layer_failure(socket, &text);
            // It is no client; who looks after bridges tells why.
            let is_noted =
                is_line || state.is_some_and(|connection| self.core.note_broken(connection, &text));
            if !is_noted {
                self.record_failure(origin, &text);
            }
        } else {
            self.note_line_end(socket, "it closes the connection");
        }
        if let Some(connection) = state {
            if error.is_some() {
                self.core.note_transport_error();
                self.core.note_gone(connection, Gone::Closed);
            } else {
                self.note_gone(socket, connection, Gone::Closed);
            }
            self.core.receive_ended(self.clock.now(), connection);
            self.carry_out(ring);
        }
    }

    /// Behind a PROXY header there may be plain MQTT: then nothing is in the way any more.
    fn drop_transparent(&mut self, socket: SocketKey) {
        if let Some(entry) = self.sockets.entry(socket)
            && let Some(Under { link, batch: None }) = entry.under.as_deref()
            && link.layers.is_transparent()
            && matches!(entry.state, State::Open(_))
        {
            entry.under = None;
        }
    }

    /// Sends what the layers have for the socket, if it is free.
    pub(super) fn pump(&mut self, ring: &mut Ring, socket: SocketKey) {
        if ring.is_sending(socket) {
            return;
        }
        if let Some(entry) = self.sockets.entry(socket)
            && let State::Open(_) = entry.state
            && let Some(Under { link, .. }) = entry.under.as_deref_mut()
            && let Some(wire) = link.layers.take_wire()
            && let Err(batch) = ring.send(socket, wire_batch(wire))
        {
            self.core.recycle(batch);
        }
    }

    /// Passes a batch of the core down through the layers.
    pub(super) fn wrap_batch(&mut self, ring: &mut Ring, socket: SocketKey, batch: Outgoing) {
        let entry = self.sockets.entry(socket);
        let Some(under) = entry.and_then(|entry| entry.under.as_mut()) else {
            return self.core.recycle(batch);
        };
        under.link.layers.send(&batch);
        under.batch = Some(batch);
        self.pump(ring, socket);
        self.lines.touch(socket);
        self.owe(ring, socket);
    }

    /// A line may owe the core something after a batch, or have sent nothing of it: then it has its turn like
    /// a handshake.
    fn owe(&mut self, ring: &Ring, socket: SocketKey) {
        let is_sending = ring.is_sending(socket);
        if let Some(link) = self.sockets.link(socket)
            && link.layers.line().is_some()
            && (!is_sending || link.layers.has_up())
            && !std::mem::replace(&mut link.is_queued, true)
        {
            self.handshakes.push(socket);
        }
    }

    /// The layers have taken a batch of the core, and the socket all that came of it.
    fn finish_batch(&mut self, ring: &mut Ring, socket: SocketKey) {
        if !ring.is_sending(socket)
            && let Some(entry) = self.sockets.entry(socket)
            && let State::Open(connection) = entry.state
            && let Some(batch) = entry.under.as_mut().and_then(|under| under.batch.take())
        {
            self.core.sent(self.clock.now(), connection, batch);
            self.carry_out(ring);
        }
    }

    /// The last bytes of a connection that the core has closed, through the layers.
    pub(super) fn wrap_rest(&mut self, socket: SocketKey, rest: Outgoing) -> Outgoing {
        let entry = self.sockets.entry(socket);
        let Some(Under { link, batch }) = entry.and_then(|entry| entry.under.as_deref_mut()) else {
            return rest;
        };
        let batch = batch.take();
        link.layers.send(&rest);
        link.layers.close();
        let wire = link.layers.take_wire().unwrap_or_default();
        self.core.recycle(rest);
        if let Some(batch) = batch {
            self.core.recycle(batch);
        }
        wire_batch(wire)
    }

    /// A send of a connection with layers is over.
    pub(super) fn sent_layered(
        &mut self,
        ring: &mut Ring,
        socket: SocketKey,
        outgoing: Outgoing,
        error: Option<i32>,
    ) {
        let Some(entry) = self.sockets.entry(socket) else {
            return;
        };
        let (State::Open(connection), Some(under)) = (&entry.state, &mut entry.under) else {
            return;
        };
        let connection = *connection;
        under.link.layers.reuse(outgoing.last.copied);
        if let Some(error) = error {
            self.note_line_failure(socket, error);
            self.note_gone(socket, connection, gone_by(error));
            self.core.receive_ended(self.clock.now(), connection);
            return self.carry_out(ring);
        }
        self.pump(ring, socket);
        self.finish_batch(ring, socket);
    }
}
