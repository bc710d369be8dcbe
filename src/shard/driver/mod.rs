//! The loop of a shard: events and mail in, core, effects out, then sleep.
//!
//! The order of a turn is the engine's ([`turn`]); here is what lies around the core, each part in a struct
//! of its own, and what follows a turn. Everything a turn does is bounded: completions by the ring, mail by
//! what is visible when the turn begins, timers by those that are due. All sends of a turn go to the kernel
//! in one submission, all mail of a turn wakes each receiver once.
//!
//! Commands of the core are carried out right after the input that caused them, so that a later event
//! of the same turn never finds a connection in a state the core has left.

mod account;
mod admission;
mod announcer;
mod around;
mod authenticate;
mod clock;
mod commands;
mod drainage;
mod events;
mod handshakes;
mod inquire;
mod kernel;
mod laggards;
mod layered;
mod lines;
mod lingering;
mod losses;
mod mail;
mod mishaps;
mod orders;
mod sleep;
mod sockets;
mod store;
mod sweep;
mod tellings;
mod traces;

use crate::engine::keys::ShardId;
use crate::engine::shard::{Command, ShardCore};
use crate::engine::time::Timestamp;
use crate::engine::turn::{self, Pending, Rest};
use crate::shard::account::Entry;
use crate::shard::addresses::Addresses;
use crate::shard::bans::BannedNetworks;
use crate::shard::handover::Handover;
use crate::shard::listener::ListenerSetup;
use crate::shard::mailbox::Mailboxes;
use crate::shard::meter::SocketMeter;
use crate::shard::orders::{Event, Order};
use crate::shard::pulse::Pulse;
use crate::shard::question_queue::Asking;
use crate::shard::questions::Reply;
use crate::shard::ring::{Ring, RingError, Waker};
use account::Accounts;
use admission::Admission;
use announcer::Announcer;
use around::Around;
use authenticate::Methods;
use clock::Clock;
use crossbeam_channel::{Receiver, Sender};
use drainage::Drainage;
use handshakes::Handshakes;
use inquire::Inquirer;
use kernel::Survey;
use laggards::Laggards;
use lines::Lines;
use lingering::Lingering;
use losses::LossReports;
use mail::Mailroom;
use mishaps::Mishaps;
use orders::Orders;
use sleep::Alarm;
use sockets::Sockets;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;
use store::Store;
use sweep::Sweep;
use tellings::Tellings;
use traces::Traces;
use tracing::warn;

pub use store::LogWay;

/// What a shard is started with.
pub struct Start {
    /// Its number.
    pub id: ShardId,
    /// Its core.
    pub core: ShardCore,
    /// Its mailboxes.
    pub mailboxes: Mailboxes,
    /// Its listening sockets, by the listeners' numbers.
    pub listeners: Vec<(Vec<OwnedFd>, ListenerSetup)>,
    /// Origin of all shards' times, and what the wall clock showed then, in milliseconds since 1970.
    pub origin: (Instant, u64),
    /// The way to who writes what must be kept; `None` where nothing is.
    pub log: Option<LogWay>,
    /// Orders from the control plane.
    pub orders: Receiver<Order>,
    /// Questions to the authentication methods, and their answers.
    pub questions: Asking,
    /// What they say.
    pub replies: Receiver<Reply>,
    /// Notes for whoever keeps account.
    pub entries: Sender<Vec<Entry>>,
    /// Connections by address, of all shards.
    pub addresses: Addresses,
    /// Networks that are not served.
    pub banned: Arc<BannedNetworks>,
    /// Events to it.
    pub events: Sender<Event>,
    /// What the kernel holds for its sockets.
    pub sockets_meter: SocketMeter,
    /// Its sign of life.
    pub pulse: Pulse,
}

/// Clients whose losses of a second are kept for who asks.
const LOSERS_MAX: usize = 100;

/// The shell around one core.
pub struct Shell {
    core: ShardCore,
    clock: Clock,
    pending: Pending<Handover>,
    mailroom: Mailroom,
    sockets: Sockets,
    lingering: Lingering,
    /// Those on their way to another shard.
    leaving: Lingering,
    handshakes: Handshakes,
    lines: Lines,
    admission: Admission,
    sweep: Sweep,
    methods: Methods,
    accounts: Accounts,
    orders: Orders,
    losses: LossReports,
    tellings: Tellings,
    mishaps: Mishaps,
    survey: Survey,
    announcer: Announcer,
    inquirer: Inquirer,
    laggards: Laggards,
    drainage: Drainage,
    traces: Traces,
    /// None where nothing is kept: the core makes no records then.
    store: Option<Box<Store>>,
    /// Room for a list that is emptied each time.
    commands: Vec<Command>,
}

impl Shell {
    fn new(start: Start, ring: &mut Ring, wakers: &[Waker]) -> Self {
        let (mut listeners, mut setups) = (Vec::new(), Vec::new());
        for (number, (sockets, setup)) in (0..).zip(start.listeners) {
            let sockets = sockets.into_iter();
            listeners.extend(sockets.map(|descriptor| (ring.listen(descriptor), number)));
            setups.push(setup);
        }
        let peers = (0..)
            .zip(wakers)
            .map(|(id, waker): (ShardId, _)| (id != start.id).then(|| ring.link(waker)))
            .collect();
        let pending_bytes_max = start.core.storage_pending_bytes_max();
        let store = start
            .log
            .map(|way| Store::new(start.id, way, pending_bytes_max, &start.core));
        Shell {
            core: start.core,
            clock: Clock::new(start.origin),
            pending: Pending::default(),
            mailroom: Mailroom::new(start.mailboxes, peers),
            sockets: Sockets::default(),
            lingering: Lingering::default(),
            leaving: Lingering::default(),
            handshakes: Handshakes::default(),
            lines: Lines::default(),
            admission: Admission::new(listeners, setups, start.addresses.clone(), start.banned),
            sweep: Sweep::default(),
            methods: Methods::new(start.id, start.questions, start.replies),
            accounts: Accounts::new(start.entries),
            orders: Orders::new(start.id, start.orders, start.events),
            losses: LossReports::new(Instant::now()),
            tellings: Tellings::new(start.addresses),
            mishaps: Mishaps::default(),
            survey: Survey::new(start.sockets_meter, Instant::now()),
            announcer: Announcer::default(),
            inquirer: Inquirer::default(),
            laggards: Laggards::default(),
            drainage: Drainage::default(),
            traces: Traces::default(),
            store: store.map(Box::new),
            commands: Vec::new(),
        }
    }

    /// Runs a shard until it is told to stop. `wakers` are those of all shards, by number.
    ///
    /// # Errors
    /// The ring failed for good.
    pub fn run(start: Start, mut ring: Ring, wakers: &[Waker]) -> Result<(), RingError> {
        let pulse = start.pulse.clone();
        let mut shell = Shell::new(start, &mut ring, wakers);
        loop {
            let rest = shell.turn(&mut ring);
            pulse.beat();
            if pulse.turns() == 1 {
                shell.orders.tell_serving();
            }
            let now = Instant::now();
            if shell.orders.is_done(shell.sockets.count, now) {
                shell.tell_rest(&ring, now);
                return Ok(());
            }
            let deadline = match rest {
                Rest::GoOn => Some(now),
                Rest::Sleep(until) => shell.alarm(until).rings_at(),
            };
            ring.wait(deadline, || turn::has_news(&mut shell))?;
        }
    }

    /// One turn, and what follows it.
    fn turn(&mut self, ring: &mut Ring) -> Rest {
        self.clock.begin_turn(Instant::now());
        self.core.begin_samples(self.clock.us(self.clock.turn_at()));
        let rest = turn::turn(&mut Around { shell: self, ring });
        self.tell_traced();
        self.end_lingering(ring);
        self.tell_lines();
        let ended = Instant::now();
        let took = self.clock.end_turn(ended, rest == Rest::GoOn);
        if self.core.has_samples() {
            self.core.end_samples(self.clock.us(ended));
        }
        self.admit(ring, took);
        self.report_losses(false);
        self.tellings.sum_up(self.clock.turn_at(), false);
        self.survey_sockets(ring);
        let has_more = self.core.fans_out() || self.core.has_wills_due();
        let is_flushed = self.core.staged().is_empty() && !has_more;
        self.orders.tell_drained(is_flushed);
        let rest = self.sweep.rest(rest);
        let rest = self.inquirer.rest(rest);
        let rest = self.laggards.rest(rest);
        let rest = self.drainage.rest(rest, self.clock.turn_at());
        let rest = self.announcer.rest(rest);
        // What a line owes the core when a batch has gone through it.
        rest.unless(!self.handshakes.is_empty())
    }

    /// Until when the shard may sleep if nothing happens.
    fn alarm(&self, of_core: Timestamp) -> Alarm {
        let of_accepts = (!self.admission.is_accepting())
            .then(|| self.core.accept_at(self.clock.now()))
            .flatten();
        Alarm::default()
            .set(self.clock.instant(of_core))
            .set(self.lines.ticks_at().and_then(|at| self.clock.instant(at)))
            .set(of_accepts.and_then(|at| self.clock.instant(at)))
            .set(self.lingering.ends_at())
            .set(self.leaving.ends_at())
            .set(self.losses.due_at(self.core.has_losses()))
            .set(self.tellings.due_at())
            .set(self.survey.goes_on_at())
            .set(self.drainage.goes_on_at())
            .set(self.orders.stop_by())
    }

    /// Names those that have lost messages, once in a while and not all of many.
    fn report_losses(&mut self, is_end: bool) {
        let now = self.clock.turn_at();
        let due_at = self.losses.due_at(self.core.has_losses());
        if due_at.is_none_or(|at| now < at && !is_end) {
            return;
        }
        let losses = self.core.take_losses();
        for line in self.losses.tell(now, &losses, is_end) {
            warn!("{line}");
        }
        let at_ms = self.clock.now().as_ms();
        for (client_id, lost) in losses.iter().take(LOSERS_MAX) {
            for (reason, count) in lost.by_reason() {
                let cause = reason.text();
                let text = format!("it has lost messages: {cause}");
                self.mishaps.note(client_id, at_ms, cause, &text, count);
            }
        }
    }

    /// At the end: what would be said later.
    fn tell_rest(&mut self, ring: &Ring, now: Instant) {
        self.report_losses(true);
        self.tellings.sum_up(now, true);
        self.tell_backoffs(ring, now, true);
    }
}
