//! The order of a shard's work: one turn of it, as the driver runs it around real sockets and the simulator
//! around made-up ones.
//!
//! ```text
//!   serve ─► drain ─► tick ─► control ─► commit ─► carry out ─► mail out ─► bytes out
//! ```
//! The order is part of what subscribing promises: mail that became visible before a question for retained
//! messages is applied before the answer ([`drain`]), interest is confirmed only when everything routed
//! without it is visible ([`flush_mail`]), and what the core wants done with a connection is done before the
//! next input. Everything in a turn is bounded by what is there when it begins.
//!
//! Not here: how bytes, letters and time come and go, which is [`Surroundings`]'.

use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::mail::Mail;
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::route::ShardSet;
use crate::engine::shard::ShardCore;
use crate::engine::time::Timestamp;
use std::collections::VecDeque;
use std::mem;

/// Passes over the mailboxes per turn, so that retained questions are answered in the turn they come.
const DRAIN_PASSES_MAX: usize = 3;

/// What goes through a mailbox.
#[derive(Debug)]
pub enum Letter<H> {
    /// Between cores.
    Mail(Mail),
    /// A connection on its way to its home shard, between their surroundings.
    Handover(H),
}

/// What the order of work itself keeps from one turn to the next.
#[derive(Debug)]
pub struct Pending<H> {
    /// Connections that leave for another shard.
    handovers: VecDeque<(ShardId, H)>,
    /// Room for a list that is emptied each turn.
    ready: Vec<ConnectionKey>,
}

impl<H> Default for Pending<H> {
    fn default() -> Self {
        Pending {
            handovers: VecDeque::new(),
            ready: Vec::new(),
        }
    }
}

impl<H> Pending<H> {
    /// A connection leaves for its home shard.
    pub fn hand_over(&mut self, home: ShardId, handover: H) {
        self.handovers.push_back((home, handover));
    }

    /// Connections that have not left yet.
    #[must_use]
    pub fn handovers(&self) -> usize {
        self.handovers.len()
    }
}

/// The way out to the other shards' mailboxes.
pub trait Post {
    /// A connection on its way.
    type Handover;

    /// Puts a letter into the mailbox of `to`, visible at once.
    ///
    /// # Errors
    /// Gives the letter back if there is no room.
    fn post(
        &mut self,
        to: ShardId,
        letter: Letter<Self::Handover>,
    ) -> Result<(), Letter<Self::Handover>>;
}

/// What lies around a core: sockets, mailboxes, store, control plane, time.
pub trait Surroundings {
    /// A connection on its way to its home shard.
    type Handover;
    /// The way out to the other shards.
    type Post: Post<Handover = Self::Handover>;

    /// The core, what is pending, and the way out.
    fn parts(
        &mut self,
    ) -> (
        &mut ShardCore,
        &mut Pending<Self::Handover>,
        &mut Self::Post,
    );

    /// When this turn began.
    fn now(&self) -> Timestamp;

    /// Tells the core what came from connections and which sends are over, within a bound; whether there
    /// is more at once.
    fn serve(&mut self) -> bool;

    /// Letters from a shard that are visible now.
    fn visible(&mut self, from: ShardId) -> usize;

    /// Takes the next letter from a shard.
    fn collect(&mut self, from: ShardId) -> Option<Letter<Self::Handover>>;

    /// Takes over a connection: [`ShardCore::adopt`], then what it had sent.
    fn adopt(&mut self, handover: Self::Handover);

    /// Follows orders and takes answers of the control plane.
    fn follow_control(&mut self);

    /// Gives the store what must be kept, and tells the core what is safe.
    fn commit(&mut self);

    /// Does what the core wants done with connections.
    fn carry_out(&mut self);

    /// Hands a batch to the connection's socket.
    fn send(&mut self, connection: ConnectionKey, batch: Outgoing);

    /// Wakes shards that got letters.
    fn wake(&mut self, receivers: ShardSet);

    /// The core alone.
    fn core(&mut self) -> &mut ShardCore {
        self.parts().0
    }
}

/// One round of work. Returns whether there is more to do at once.
pub fn turn<S: Surroundings>(around: &mut S) -> bool {
    let core = around.core();
    let is_held_up = !core.staged().is_empty() || core.is_congested();
    // Clients are not read while what they sent finds no room elsewhere.
    let more = is_held_up || around.serve();
    drain(around);
    let now = around.now();
    let core = around.core();
    if core.deadline().is_some_and(|deadline| deadline <= now) {
        core.tick(now);
    }
    around.follow_control();
    around.commit();
    around.carry_out();
    flush_mail(around);
    flush_outboxes(around);
    let (core, pending, _) = around.parts();
    more || core.wants_drain() || pending.handovers() > 0
}

/// Takes out of every mailbox what is visible when a pass begins.
pub fn drain<S: Surroundings>(around: &mut S) {
    let now = around.now();
    for _ in 0..DRAIN_PASSES_MAX {
        around.core().begin_drain();
        for from in 0..around.core().shards() {
            for _ in 0..around.visible(from) {
                match around.collect(from) {
                    Some(Letter::Mail(mail)) => around.core().mail(now, from, mail),
                    Some(Letter::Handover(handover)) => around.adopt(handover),
                    None => break,
                }
            }
        }
        around.core().end_drain(now);
        if !around.core().wants_drain() {
            return;
        }
    }
}

/// Puts handovers and staged mail into the mailboxes and wakes each receiver once.
pub fn flush_mail<S: Surroundings>(around: &mut S) {
    let mut receivers = ShardSet::default();
    let (core, pending, post) = around.parts();
    while let Some((to, handover)) = pending.handovers.pop_front() {
        receivers.insert(to);
        if let Err(Letter::Handover(handover)) = post.post(to, Letter::Handover(handover)) {
            pending.handovers.push_front((to, handover));
            break;
        }
    }
    loop {
        core.staged().flush(|to, mail| {
            receivers.insert(to);
            match post.post(to, Letter::Mail(mail)) {
                Err(Letter::Mail(mail)) => Err(mail),
                _ => Ok(()),
            }
        });
        if !core.staged().is_empty() || !core.mail_flushed() {
            break;
        }
    }
    around.wake(receivers);
}

/// Hands every outbox that filled in this turn to its socket.
fn flush_outboxes<S: Surroundings>(around: &mut S) {
    let (core, pending, _) = around.parts();
    let mut ready = mem::take(&mut pending.ready);
    core.take_ready(&mut ready);
    for connection in ready.drain(..) {
        if let Some(batch) = around.core().take_outgoing(connection) {
            around.send(connection, batch);
        }
    }
    around.parts().1.ready = ready;
}
