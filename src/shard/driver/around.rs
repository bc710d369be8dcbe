//! What lies around a shard's core for one turn: the shell and its ring.

use super::Shell;
use super::mail::Mailroom;
use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::route::ShardSet;
use crate::engine::shard::ShardCore;
use crate::engine::shard::takeover::Look;
use crate::engine::telemetry::notes::Gone;
use crate::engine::time::{Lasted, Timestamp};
use crate::engine::turn::{Pending, Queues, Surroundings, Whereabouts};
use crate::shard::handover::Handover;
use crate::shard::mailbox::Letter;
use crate::shard::ring::Ring;
use std::time::Duration;

/// Shell and ring together.
pub(super) struct Around<'a> {
    pub shell: &'a mut Shell,
    pub ring: &'a mut Ring,
}

impl Queues for Shell {
    fn visible(&mut self, from: ShardId) -> usize {
        self.mailroom.visible(from)
    }

    fn has_room(&mut self, blocked: ShardSet) -> bool {
        self.mailroom.has_room(blocked)
    }

    fn next_home(&mut self) -> Option<ShardId> {
        self.pending.next_home()
    }

    fn has_orders(&mut self) -> bool {
        !self.orders.is_empty()
            || !self.methods.is_empty()
            || self.store.as_ref().is_some_and(|store| store.has_news())
    }

    fn core(&mut self) -> &mut ShardCore {
        &mut self.core
    }
}

impl Queues for Around<'_> {
    fn visible(&mut self, from: ShardId) -> usize {
        self.shell.visible(from)
    }

    fn has_room(&mut self, blocked: ShardSet) -> bool {
        self.shell.has_room(blocked)
    }

    fn next_home(&mut self) -> Option<ShardId> {
        self.shell.next_home()
    }

    fn has_orders(&mut self) -> bool {
        self.shell.has_orders()
    }

    fn core(&mut self) -> &mut ShardCore {
        &mut self.shell.core
    }
}

impl Surroundings for Around<'_> {
    type Handover = Handover;
    type Post = Mailroom;

    fn parts(&mut self) -> (&mut ShardCore, &mut Pending<Handover>, &mut Mailroom) {
        let shell = &mut *self.shell;
        (&mut shell.core, &mut shell.pending, &mut shell.mailroom)
    }

    fn now(&self) -> Timestamp {
        self.shell.clock.now()
    }

    fn lasted(&self) -> Lasted {
        self.shell.clock.lasted()
    }

    fn serve(&mut self) -> bool {
        let goal = Duration::from_micros(self.shell.core.turn_us_goal());
        let until = self.shell.clock.turn_at() + goal / 2;
        let more = self.ring.turn_until(self.shell, Some(until)).more;
        self.shell.tick_lines();
        self.shell.shake_hands(self.ring) || more
    }

    fn collect(&mut self, from: ShardId) -> Option<Letter> {
        self.shell.mailroom.collect(from)
    }

    fn made_room(&mut self, from: ShardId) {
        self.shell.mailroom.made_room(self.ring, from);
    }

    fn adopt(&mut self, handover: Handover) {
        let (shell, ring) = (&mut *self.shell, &mut *self.ring);
        let now = shell.clock.now();
        let connection = shell
            .core
            .adopt(now, handover.origin.listener, handover.arrival);
        let socket = ring.adopt(handover.descriptor);
        let (mut origin, link) = (handover.origin, handover.link.map(|link| *link));
        shell.admission.count_in(&mut origin);
        shell.sockets.insert(socket, connection, origin, link);
        if let Some(ip) = origin.counted {
            shell.core.locate(connection, shell.admission.network(ip));
            // Bans may have changed on its way.
            if shell.admission.is_banned(ip) {
                shell.core.ban(now, connection);
            }
        }
        shell.learn_certificate_end(socket);
        shell.core.receive(now, connection, &handover.bytes);
        shell.carry_out(ring);
        shell.empty_inbox(ring, socket);
        let link = shell.sockets.link(socket);
        if link.is_some_and(|link| link.has_ended) {
            shell.core.note_gone(connection, Gone::Closed);
            shell.core.receive_ended(now, connection);
            shell.carry_out(ring);
        }
    }

    fn has_read_out(&mut self, connection: ConnectionKey, look: &mut Look) -> bool {
        let sockets = &mut self.shell.sockets;
        let Some(socket) = sockets.socket(connection) else {
            return true;
        };
        let is_behind = sockets
            .link(socket)
            .is_some_and(|link| !link.inbox.is_empty());
        self.ring.is_read_out(socket, &mut look.read_by) && !is_behind
    }

    fn whereabouts(&mut self, connection: ConnectionKey) -> Whereabouts {
        self.shell.whereabouts(self.ring, connection)
    }

    fn follow_control(&mut self) {
        // Answers first: a ban that some of them led to was ordered after them.
        self.shell.take_replies(self.ring);
        self.shell.follow_orders(self.ring);
        self.shell.sweep(self.ring);
        self.shell.announce();
        self.shell.inquire(self.ring);
        self.shell.look_for_laggards();
        self.shell.drain(self.ring);
    }

    fn commit(&mut self) {
        let shell = &mut *self.shell;
        if let Some(store) = &mut shell.store
            && let Some(committed) = store.commit(&mut shell.core)
        {
            let now = shell.clock.now();
            shell.core.stored(now, committed);
        }
    }

    fn carry_out(&mut self) {
        self.shell.carry_out(self.ring);
    }

    fn send(&mut self, connection: ConnectionKey, batch: Outgoing) {
        let (shell, ring) = (&mut *self.shell, &mut *self.ring);
        let Some(socket) = shell.sockets.socket(connection) else {
            return shell.core.recycle(batch);
        };
        if shell.sockets.link(socket).is_some() {
            shell.wrap_batch(ring, socket, batch);
        } else if let Err(batch) = ring.send(socket, batch) {
            shell.core.recycle(batch);
        }
    }

    fn wake(&mut self, receivers: ShardSet) {
        self.shell.mailroom.wake(self.ring, receivers);
    }
}
