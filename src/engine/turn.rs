//! The order of a shard's work: one turn of it, as the driver runs it around real sockets and the simulator
//! around made-up ones.
//!
//! ```text
//!   serve ─► drain ─► tick ─► control ─► work off ─► hear out
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
use crate::engine::shard::takeover::Look;
use crate::engine::time::{Lasted, Timestamp};
use std::collections::VecDeque;

/// Passes over the mailboxes per turn, so that retained questions are answered in the turn they come.
const DRAIN_PASSES_MAX: usize = 3;

/// What has become of the client of a connection that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is there, or has said something in order before it closed.
    There,
    /// It has gone, and has said nothing that is not handled.
    Gone,
    /// It has closed, and is read to its end: what waits may be nothing that counts.
    ReadOn,
}

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

    /// Whether all that has come by a connection so far was given to the core; the look is kept between
    /// questions about the same one.
    fn has_read_out(&mut self, connection: ConnectionKey, look: &mut Look) -> bool;

    /// What has become of the client of a connection that is not read; reads it on if only that tells.
    fn whereabouts(&mut self, connection: ConnectionKey) -> Whereabouts;

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
    drain(around);
    let core = around.core();
    if core.deadline().is_some_and(|deadline| deadline <= now) {
        core.tick(now);
    }
    around.follow_control();
    around.core().work_off(now);
    hear_out(around, now);
    around.core().relieve(now);
    around.commit();
    around.carry_out();
    flush_mail(around);
    flush_outboxes(around);
    rest(around.core(), serves_more)
}

/// Lets connections take over whose clients' older ones are read out, or have been waited for long enough.
fn hear_out<S: Surroundings>(around: &mut S, now: Timestamp) {
    for _ in 0..around.core().takeovers_to_look_at() {
        let Some(mut takeover) = around.core().next_takeover() else {
            return;
        };
        let is_read_out = around.has_read_out(takeover.older, &mut takeover.look);
        let Some(ended) = around.core().ends_wait(now, takeover, is_read_out) else {
            continue;
        };
        match around.whereabouts(ended.by()) {
            Whereabouts::There => around.core().let_in(now, ended),
            Whereabouts::Gone => around.core().gone_at_gate(ended.by()),
            Whereabouts::ReadOn => around.core().wait_on(now, ended),
        }
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
            Some(Letter::Handover(handover)) => around.adopt(handover),
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

    const CONNECT: &[u8] = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";

    struct NoPost;

    impl Post for NoPost {
        type Handover = ();

        fn post(&mut self, _to: ShardId, _letter: Letter<()>) -> Result<(), Letter<()>> {
            Ok(())
        }
    }

    /// One shard, and whether older connections are read out.
    struct World {
        core: ShardCore,
        pending: Pending<()>,
        post: NoPost,
        now: Timestamp,
        is_read_out: bool,
        whereabouts: Whereabouts,
        sent: Vec<ConnectionKey>,
    }

    impl World {
        fn new() -> Self {
            let counts = Arc::new(ConnectionCounts::new(1));
            World {
                core: ShardCore::new(0, 1, Settings::default(), 1, counts),
                pending: Pending::default(),
                post: NoPost,
                now: Timestamp::from_ms(1),
                is_read_out: false,
                whereabouts: Whereabouts::There,
                sent: Vec::new(),
            }
        }

        /// A client comes with its CONNECT.
        fn connect(&mut self) -> ConnectionKey {
            let key = self.core.accept(self.now, 0).expect("a place");
            self.core.receive(self.now, key, CONNECT);
            key
        }
    }

    impl Queues for World {
        fn visible(&mut self, _from: ShardId) -> usize {
            0
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
        type Handover = ();
        type Post = NoPost;

        fn parts(&mut self) -> (&mut ShardCore, &mut Pending<()>, &mut NoPost) {
            (&mut self.core, &mut self.pending, &mut self.post)
        }

        fn now(&self) -> Timestamp {
            self.now
        }

        fn lasted(&self) -> Lasted {
            Lasted {
                turn_us: 1,
                round_us: 1,
            }
        }

        fn serve(&mut self) -> bool {
            false
        }

        fn collect(&mut self, _from: ShardId) -> Option<Letter<()>> {
            None
        }

        fn made_room(&mut self, _from: ShardId) {}

        fn adopt(&mut self, (): ()) {}

        fn has_read_out(&mut self, _connection: ConnectionKey, _look: &mut Look) -> bool {
            self.is_read_out
        }

        fn whereabouts(&mut self, _connection: ConnectionKey) -> Whereabouts {
            self.whereabouts
        }

        fn follow_control(&mut self) {}

        fn commit(&mut self) {}

        fn carry_out(&mut self) {
            self.core.take_commands(&mut Vec::new());
        }

        fn send(&mut self, connection: ConnectionKey, batch: Outgoing) {
            self.sent.push(connection);
            self.core.sent(self.now, connection, batch);
        }

        fn wake(&mut self, _receivers: ShardSet) {}
    }

    #[test]
    fn who_comes_again_waits_until_its_older_connection_is_read_out() {
        let mut world = World::new();
        let older = world.connect();
        turn(&mut world);
        assert_eq!(world.sent, [older]);
        let newer = world.connect();
        let rest = turn(&mut world);
        assert_eq!(world.sent, [older], "it is not let in yet");
        // Nobody says that the older one is read out: it is looked at again soon.
        assert_eq!(rest, Rest::Sleep(world.now.plus_ms(10)));
        world.is_read_out = true;
        turn(&mut world);
        assert_eq!(world.sent, [older, newer]);
        assert!(world.core.next_takeover().is_none());
    }

    #[test]
    fn who_has_gone_meanwhile_takes_nothing_over() {
        let mut world = World::new();
        let older = world.connect();
        turn(&mut world);
        world.connect();
        world.is_read_out = true;
        world.whereabouts = Whereabouts::ReadOn;
        let rest = turn(&mut world);
        assert_eq!(world.sent, [older], "what it has said is not known yet");
        assert_eq!(rest, Rest::Sleep(world.now.plus_ms(10)));
        world.whereabouts = Whereabouts::Gone;
        turn(&mut world);
        assert_eq!(world.sent, [older]);
        let takeovers = world.core.statistics();
        assert!(takeovers.contains(&("takeovers", 0)) && takeovers.contains(&("connections", 1)));
    }

    #[test]
    fn those_of_one_client_wait_no_longer_together_than_one_of_them() {
        let mut world = World::new();
        let mut keys = vec![world.connect()];
        turn(&mut world);
        keys.extend((0..20).map(|_| world.connect()));
        turn(&mut world);
        assert_eq!(world.sent, keys[..1]);
        world.now = world.now.plus_ms(1_000);
        turn(&mut world);
        // In the order in which they came; of each but the last the CONNACK goes with its end.
        assert_eq!(world.sent.last(), keys.last());
        let counts = world.core.statistics();
        assert!(counts.contains(&("takeovers", 20)) && counts.contains(&("connections", 1)));
    }

    #[test]
    fn it_takes_over_before_its_connect_is_late() {
        let mut world = World::new();
        let older = world.connect();
        turn(&mut world);
        let key = world.core.accept(world.now, 0).expect("a place");
        world.now = world.now.plus_ms(9_700);
        world.core.receive(world.now, key, CONNECT);
        turn(&mut world);
        assert_eq!(world.sent, [older]);
        world.now = world.now.plus_ms(280);
        turn(&mut world);
        assert_eq!(world.sent, [older, key]);
    }

    #[test]
    fn it_does_not_wait_for_good() {
        let mut world = World::new();
        let older = world.connect();
        turn(&mut world);
        let newer = world.connect();
        turn(&mut world);
        world.now = world.now.plus_ms(999);
        turn(&mut world);
        assert_eq!(world.sent, [older]);
        world.now = world.now.plus_ms(1);
        turn(&mut world);
        assert_eq!(world.sent, [older, newer]);
        let unheard = world.core.statistics();
        assert!(unheard.contains(&("takeovers_unheard", 1)));
    }
}
