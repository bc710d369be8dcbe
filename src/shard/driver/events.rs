//! What happens to sockets, told to the core.

use super::Shell;
use super::sockets::State;
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::telemetry::notes::Gone;
use crate::shard::handover::{Handover, Origin};
use crate::shard::link::Link;
use crate::shard::peer::Peer;
use crate::shard::ring::{Handler, ListenerKey, ReceiveEnd, Ring, SocketKey};
use crate::shard::transport::Layers;
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// How a connection ended that fails by an error of the system.
pub(super) fn gone_by(error: i32) -> Gone {
    match Errno::from_raw_os_error(error) {
        Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN => Gone::Lost,
        _ => Gone::Reset,
    }
}

impl Handler for Shell {
    fn accepted(
        &mut self,
        ring: &mut Ring,
        listener: ListenerKey,
        descriptor: OwnedFd,
        peer: Peer,
    ) {
        let Some((listener, setup)) = self.admission.listener(listener) else {
            return;
        };
        let ip = peer.ip().filter(|_| setup.transport.is_client(peer));
        let mut origin = Origin {
            listener,
            peer,
            counted: None,
            is_among: false,
        };
        // Who is not listened to costs neither a place nor a handshake.
        let may_come = match ip {
            Some(ip) => self.let_in(ip, listener),
            // Its proxy may name it later. Who may use a Unix socket is said by the socket's mode, and one
            // queue for all shards gives one of them more than its part.
            None if peer.ip().is_some() => self.core.may_connect_unlocated(),
            None => Ok(()),
        };
        if let Err(why) = may_come {
            ring.accept_another();
            return self.record_turned_away(origin, why);
        }
        if let Some(ip) = ip {
            self.admission.place(&mut origin, ip);
        }
        let layers = self.admission.setup(listener);
        let layers = layers.map(|setup| Layers::new(&setup.transport, peer));
        let link = match layers.transpose() {
            Ok(layers) => layers.flatten().map(Link::new),
            Err(error) => {
                self.admission.forget(&origin);
                return self.record_failure(origin, &error.to_string());
            }
        };
        let Some(connection) = self.core.accept(self.clock.now(), listener) else {
            ring.accept_another();
            self.admission.forget(&origin);
            let text = self.core.far_too_many();
            return self.record_failure(origin, &text);
        };
        let socket = ring.adopt(descriptor);
        self.sockets.insert(socket, connection, origin, link);
        if let Some(ip) = ip {
            self.core.locate(connection, self.admission.network(ip));
        } else if peer.ip().is_some() {
            self.core.await_name(connection);
        }
    }

    fn received(&mut self, ring: &mut Ring, socket: SocketKey, bytes: &[u8]) {
        if self.sockets.link(socket).is_some() {
            return self.received_layered(ring, socket, bytes);
        }
        match self.sockets.state(socket) {
            Some(State::Open(connection)) => {
                let connection = *connection;
                self.core.receive(self.clock.now(), connection, bytes);
                self.carry_out(ring);
            }
            Some(State::Leaving { bytes: so_far, .. }) => so_far.extend_from_slice(bytes),
            Some(State::Closing(_) | State::Aborted) | None => {}
        }
    }

    fn receive_ended(&mut self, ring: &mut Ring, socket: SocketKey, end: ReceiveEnd) {
        if self.sockets.link(socket).is_some() {
            self.empty_inbox(ring, socket);
            match end {
                ReceiveEnd::Eof => self.note_line_end(socket, "it closes the connection"),
                ReceiveEnd::Failed(error) => self.note_line_failure(socket, error),
            }
        }
        if let Some(State::Open(connection)) = self.sockets.state(socket) {
            let connection = *connection;
            let how = match end {
                ReceiveEnd::Eof => Gone::Closed,
                ReceiveEnd::Failed(error) => gone_by(error),
            };
            self.note_gone(socket, connection, how);
            if let ReceiveEnd::Failed(_) = end {
                self.core.forget_said_at_gate(connection);
            }
            self.core.receive_ended(self.clock.now(), connection);
            self.carry_out(ring);
            self.give_answer(ring, socket);
        }
    }

    fn sent(
        &mut self,
        ring: &mut Ring,
        socket: SocketKey,
        outgoing: Outgoing,
        result: Result<usize, i32>,
    ) {
        let is_layered = self.sockets.link(socket).is_some();
        match self.sockets.state(socket) {
            Some(State::Open(_)) if is_layered => {
                self.sent_layered(ring, socket, outgoing, result.err());
            }
            Some(State::Open(connection)) => {
                let connection = *connection;
                if let Err(error) = result {
                    self.core.recycle(outgoing);
                    self.note_gone(socket, connection, gone_by(error));
                    self.core.receive_ended(self.clock.now(), connection);
                } else {
                    self.core.sent(self.clock.now(), connection, outgoing);
                }
                self.carry_out(ring);
            }
            Some(State::Closing(closing)) => {
                let rest = closing.rest.take();
                let unsent = rest.and_then(|rest| match result {
                    Ok(_) => ring.send(socket, rest).err(),
                    Err(_) => Some(rest),
                });
                if let Some(unsent) = unsent {
                    self.core.recycle(unsent);
                }
                self.core.recycle(outgoing);
                ring.close_after_send(socket);
            }
            Some(State::Leaving { .. } | State::Aborted) | None => self.core.recycle(outgoing),
        }
    }

    fn released(&mut self, _ring: &mut Ring, socket: SocketKey, descriptor: OwnedFd) {
        if let Some(left) = self.sockets.remove(socket)
            && let State::Leaving {
                home,
                bytes,
                arrival,
            } = left.state
        {
            let handover = Handover {
                descriptor,
                bytes,
                arrival,
                origin: left.origin,
                link: left.under.map(|under| Box::new(under.link)),
            };
            self.pending.hand_over(home, handover);
        }
    }

    fn closed(&mut self, _ring: &mut Ring, socket: SocketKey) {
        self.end_line(socket);
        if let Some(gone) = self.sockets.remove(socket) {
            self.admission.forget(&gone.origin);
            match gone.state {
                State::Closing(closing) => self.core.vacate(closing.place),
                State::Leaving { .. } => {
                    self.core.note_lost_on_its_way(gone.origin.listener);
                    let text = "on its way to the shard of its session it went, or took nothing";
                    self.record_failure(gone.origin, text);
                }
                State::Open(_) | State::Aborted => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_gone_is_told_from_a_reset() {
        let by = |error: Errno| gone_by(error.raw_os_error());
        for error in [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH] {
            assert_eq!(by(error), Gone::Lost, "{error}");
        }
        for error in [Errno::CONNRESET, Errno::PIPE] {
            assert_eq!(by(error), Gone::Reset, "{error}");
        }
    }
}
