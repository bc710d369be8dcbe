//! The order of a shard's work: one turn of it, as the driver runs it around real sockets and the simulator
//! around made-up ones.
//!
//! ```text
//!   serve ─► adopt ─► drain ─► tick ─► control ─► work off
//!         ─► commit ─► carry out ─► mail out ─► bytes out ─► rest
//! ```
//! The order is part of what subscribing promises: mail that became visible before a question for retained
//! messages is applied before the answer ([`drain`]), interest is confirmed only when everything routed
//! without it is visible ([`flush_mail`]), and what the core wants done with a connection is done before the
//! next input. Everything in a turn is bounded by what is there when it begins.
//!
//! The decision to sleep is here too ([`rest`], then [`has_news`]): the simulator takes it as the driver does
//! and fails if a shard sleeps beside something it should do.
//!
//! Not here: how bytes, letters and time come and go, which is [`Surroundings`]'.

use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::mail::Mail;
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::route::ShardSet;
use crate::engine::shard::ShardCore;
use crate::engine::time::{Lasted, Timestamp};
use std::collections::VecDeque;

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
    /// Connections that have come, and wait for what others had sent before them.
    arrivals: VecDeque<H>,
    drain: Drain,
}

/// How far the drain has got that questions for retained messages wait for.
///
/// It takes what is visible in every mailbox when it begins, over several turns if there is much of it.
#[derive(Debug, Default)]
struct Drain {
    is_open: bool,
    /// Letters taken so far, by sender.
    taken: Vec<u64>,
    /// How many that has to be, by sender.
    wanted: Vec<u64>,
}

impl Drain {
    fn count(counts: &mut Vec<u64>, from: ShardId) -> &mut u64 {
        let at = usize::from(from);
        if counts.len() <= at {
            counts.resize(at + 1, 0);
        }
        &mut counts[at]
    }

    /// So many letters of a shard are visible when the drain begins.
    fn want(&mut self, from: ShardId, visible: usize) {
        let taken = *Self::count(&mut self.taken, from);
        *Self::count(&mut self.wanted, from) = taken + visible as u64;
    }

    fn is_done(&self) -> bool {
        let mut counts = self.taken.iter().zip(&self.wanted);
        counts.all(|(taken, wanted)| taken >= wanted)
    }
}

impl<H> Default for Pending<H> {
    fn default() -> Self {
        Pending {
            handovers: VecDeque::new(),
            arrivals: VecDeque::new(),
            drain: Drain::default(),
        }
    }
}

impl<H> Pending<H> {
    /// A connection leaves for its home shard.
    pub fn hand_over(&mut self, home: ShardId, handover: H) {
        self.handovers.push_back((home, handover));
    }

    /// Where the next of them goes.
    #[must_use]
    pub fn next_home(&self) -> Option<ShardId> {
        self.handovers.front().map(|(home, _)| *home)
    }

    /// Connections that have not left yet, or have come and not been taken over.
    #[must_use]
    pub fn handovers(&self) -> usize {
        self.handovers.len() + self.arrivals.len()
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

/// What others fill while a shard may sleep: looked at once more before it does.
pub trait Queues {
    /// Letters from a shard that are visible now.
    fn visible(&mut self, from: ShardId) -> usize;

    /// Whether one of these shards, whose mailboxes were full, has room again.
    fn has_room(&mut self, blocked: ShardSet) -> bool;

    /// The shard that the next connection to leave waits for.
    fn next_home(&mut self) -> Option<ShardId>;

    /// Whether the control plane has said something.
    fn has_orders(&mut self) -> bool;

    /// The core.
    fn core(&mut self) -> &mut ShardCore;
}

/// What lies around a core: sockets, mailboxes, store, control plane, time.
pub trait Surroundings: Queues {
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

    /// How long the last turn took.
    fn lasted(&self) -> Lasted;

    /// Tells the core what came from connections and which sends are over, within a bound; whether there
    /// is more at once.
    fn serve(&mut self) -> bool;

    /// Takes the next letter from a shard.
    fn collect(&mut self, from: ShardId) -> Option<Letter<Self::Handover>>;

    /// Letters of a shard were taken out: wakes it, if it sleeps and waits for room.
    fn made_room(&mut self, from: ShardId);

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

    /// Wakes shards that got letters, if they sleep.
    fn wake(&mut self, receivers: ShardSet);
}

/// What a shard does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There is more to do at once.
    GoOn,
    /// Nothing to do before this time, unless something comes: a completion, a letter, room in a mailbox that
    /// was full, an order. Whoever brings it wakes the shard.
    Sleep(Timestamp),
}

impl Rest {
    /// The same, unless there is more to do after all.
    #[must_use]
    pub fn unless(self, has_more: bool) -> Self {
        if has_more { Rest::GoOn } else { self }
    }
}

/// What to do after a turn, by what the core and the connections say.
#[must_use]
pub fn rest(core: &ShardCore, serves_more: bool) -> Rest {
    if serves_more || core.has_work() {
        return Rest::GoOn;
    }
    Rest::Sleep(core.deadline().unwrap_or(Timestamp::NEVER))
}

/// Whether something came that the shard would sleep beside. Asked after sleep has been announced.
pub fn has_news(queues: &mut impl Queues) -> bool {
    let mut blocked = queues.core().staged().blocked();
    if let Some(home) = queues.next_home() {
        blocked.insert(home);
    }
    let shards = queues.core().shards();
    (0..shards).any(|from| queues.visible(from) > 0)
        || queues.has_room(blocked)
        || queues.has_orders()
}

/// One round of work, and what to do after it.
pub fn turn<S: Surroundings>(around: &mut S) -> Rest {
    let (now, lasted) = (around.now(), around.lasted());
    around.core().keep_pace(lasted);
    around.core().begin_turn();
    around.core().look_at_memory(now);
    let serves_more = around.serve();
    adopt_arrivals(around);
    drain(around);
    let core = around.core();
    if core.deadline().is_some_and(|deadline| deadline <= now) {
        core.tick(now);
    }
    around.follow_control();
    around.core().work_off(now);
    around.core().relieve(now);
    around.commit();
    around.carry_out();
    flush_mail(around);
    flush_outboxes(around);
    let has_arrivals = !around.parts().1.arrivals.is_empty();
    rest(around.core(), serves_more || has_arrivals)
}

/// Takes over the connections that an earlier turn found in its mail: what their clients had sent on an older
/// connection before they came has been served by now, and is not lost when it is taken over.
fn adopt_arrivals<S: Surroundings>(around: &mut S) {
    while let Some(handover) = around.parts().1.arrivals.pop_front() {
        around.adopt(handover);
        if around.core().is_spent_for_mail() {
            return;
        }
    }
}

/// Takes letters out of the mailboxes, as far as this turn's work allows, and answers questions for retained
/// messages when everything is applied that was visible when they had come.
pub fn drain<S: Surroundings>(around: &mut S) {
    let now = around.now();
    for _ in 0..DRAIN_PASSES_MAX {
        begin_drain(around);
        for from in 0..around.core().shards() {
            collect(around, now, from);
        }
        let (core, pending, _) = around.parts();
        if pending.drain.is_open && pending.drain.is_done() && core.may_end_drain() {
            pending.drain.is_open = false;
            core.end_drain(now);
        }
        if !core.wants_drain() || core.is_spent_for_mail() {
            return;
        }
    }
}

fn begin_drain<S: Surroundings>(around: &mut S) {
    let (core, pending, _) = around.parts();
    if pending.drain.is_open || !core.wants_drain() {
        return;
    }
    core.begin_drain();
    pending.drain.is_open = true;
    for from in 0..around.core().shards() {
        let visible = around.visible(from);
        around.parts().1.drain.want(from, visible);
    }
}

/// Takes what is visible from one shard, or a part of it.
fn collect<S: Surroundings>(around: &mut S, now: Timestamp, from: ShardId) {
    let mut taken = 0;
    for _ in 0..around.visible(from) {
        let core = around.core();
        if core.is_spent_for_mail() || core.holds_mail_of(from) {
            break;
        }
        match around.collect(from) {
            Some(Letter::Mail(mail)) => around.core().mail(now, from, mail),
            Some(Letter::Handover(handover)) => around.parts().1.arrivals.push_back(handover),
            None => break,
        }
        taken += 1;
    }
    if taken > 0 {
        *Drain::count(&mut around.parts().1.drain.taken, from) += taken;
        around.made_room(from);
    }
}

/// Puts handovers and staged mail into the mailboxes and wakes each receiver once.
pub fn flush_mail<S: Surroundings>(around: &mut S) {
    let mut receivers = ShardSet::default();
    let (core, pending, post) = around.parts();
    core.stage_kept();
    let mut unblocked = core.staged().blocked();
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
    unblocked.remove_all(core.staged().blocked());
    core.mail_went(unblocked);
    around.wake(receivers);
}

/// Hands outboxes that filled to their sockets, a bounded number of them and of bytes.
fn flush_outboxes<S: Surroundings>(around: &mut S) {
    let mut bytes_left = around.core().turn_send_bytes_max();
    for _ in 0..around.core().turn_sends_max() {
        let core = around.core();
        let Some(connection) = core.next_ready() else {
            return;
        };
        if let Some(batch) = core.take_outgoing(connection) {
            let bytes = core.taken_at_once_bytes(&batch);
            around.send(connection, batch);
            if bytes >= bytes_left {
                break;
            }
            bytes_left -= bytes;
        }
    }
    around.core().note_sends_deferred();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shard::{ConnectionCounts, Settings};
    use std::sync::Arc;

    struct NoPost;

    impl Post for NoPost {
        type Handover = u8;

        fn post(&mut self, _to: ShardId, _letter: Letter<u8>) -> Result<(), Letter<u8>> {
            Ok(())
        }
    }

    /// One shard beside another that has handed something over, and what was done in which order.
    struct World {
        core: ShardCore,
        pending: Pending<u8>,
        post: NoPost,
        mail: VecDeque<u8>,
        done: Vec<&'static str>,
    }

    impl Queues for World {
        fn visible(&mut self, from: ShardId) -> usize {
            if from == 1 { self.mail.len() } else { 0 }
        }

        fn has_room(&mut self, _blocked: ShardSet) -> bool {
            false
        }

        fn next_home(&mut self) -> Option<ShardId> {
            None
        }

        fn has_orders(&mut self) -> bool {
            false
        }

        fn core(&mut self) -> &mut ShardCore {
            &mut self.core
        }
    }

    impl Surroundings for World {
        type Handover = u8;
        type Post = NoPost;

        fn parts(&mut self) -> (&mut ShardCore, &mut Pending<u8>, &mut NoPost) {
            (&mut self.core, &mut self.pending, &mut self.post)
        }

        fn now(&self) -> Timestamp {
            Timestamp::from_ms(1)
        }

        fn lasted(&self) -> Lasted {
            Lasted {
                turn_us: 1,
                round_us: 1,
            }
        }

        fn serve(&mut self) -> bool {
            self.done.push("served");
            false
        }

        fn collect(&mut self, _from: ShardId) -> Option<Letter<u8>> {
            self.mail.pop_front().map(Letter::Handover)
        }

        fn made_room(&mut self, _from: ShardId) {}

        fn adopt(&mut self, _handover: u8) {
            self.done.push("adopted");
        }

        fn follow_control(&mut self) {}

        fn commit(&mut self) {}

        fn carry_out(&mut self) {}

        fn send(&mut self, _connection: ConnectionKey, _batch: Outgoing) {}

        fn wake(&mut self, _receivers: ShardSet) {}
    }

    #[test]
    fn who_comes_over_is_taken_over_after_what_was_sent_before() {
        let counts = Arc::new(ConnectionCounts::new(1));
        let mut world = World {
            core: ShardCore::new(0, 2, Settings::default(), 1, counts),
            pending: Pending::default(),
            post: NoPost,
            mail: VecDeque::from([1, 2]),
            done: Vec::new(),
        };
        // What a client sent before it came again may not have been seen when its letter is.
        assert_eq!(turn(&mut world), Rest::GoOn);
        assert_eq!(
            (world.done.as_slice(), world.pending.handovers()),
            (&["served"][..], 2)
        );
        assert_ne!(turn(&mut world), Rest::GoOn);
        assert_eq!(world.done, ["served", "served", "adopted", "adopted"]);
        assert_eq!(world.pending.handovers(), 0);
    }
}
