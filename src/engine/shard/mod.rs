//! The deterministic core of a shard: inputs in, effects out, no clock, no socket, no thread.
//!
//! ```text
//!   accept, adopt, receive, receive_ended ─┐            ┌─► ready (outboxes with bytes)
//!   mail, begin_drain/end_drain ───────────┼─ ShardCore ┼─► commands (close, hand over, pause)
//!   sent, stored, tick, shutdown ──────────┘            ├─► staged mail
//!                                                       └─► persist
//! ```
//! The shell calls one input after the other, each with the same or a later `now`, and collects the
//! effects when it likes; connections are named by keys that never name another one later.
//!
//! Not here: TLS, WebSocket, sockets, and the decision when to sleep.

mod access;
mod acknowledge;
pub mod admission;
mod ages;
mod aging;
mod arrive;
mod assigned;
mod authenticate;
mod backlog;
mod ban;
pub mod checkpoint;
mod clients;
mod common_rate;
mod complete;
mod connect;
mod deliver;
mod due;
mod end;
mod ended;
mod fan_out;
mod farewell;
mod filters;
pub mod flapping;
mod groups;
mod hold;
mod interest;
mod journal;
mod keeping;
mod losses;
mod marking;
mod matches;
mod notes;
mod once;
mod overload;
mod own;
mod pace;
mod pause;
mod picks;
mod presence;
mod publish;
mod questions;
mod rate;
mod ready;
mod receipts;
mod receive;
mod refusals;
mod renewal;
mod replay;
mod restoring;
mod sampling;
mod sessions;
mod settings;
pub mod sight;
mod snapshot;
mod statistics;
pub mod store_room;
mod subscribe;
pub mod takeover;
#[cfg(test)]
mod tests;
mod traces;
pub mod unheard;
mod window;

pub use admission::{ConnectionCounts, CountsByNetwork};
pub use restoring::RestoreError;
pub use settings::{Authentication, ClientIdPolicy, ListenerPolicy, Settings};

use crate::engine::access::bans::BannedNames;
use crate::engine::access::{Arrival, Step};
use crate::engine::hashing::Hashing;
use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::mail::{Mail, Phase, Staged};
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::record::Persist;
use crate::engine::route::last_match::LastMatch;
use crate::engine::route::lasting::Lasting;
use crate::engine::route::retained::Retained;
use crate::engine::route::trie::Trie;
use crate::engine::telemetry::notes::Note;
use crate::engine::telemetry::talkers::Talkers;
use crate::engine::time::Timestamp;
use crate::engine::timer::Timers;
use admission::Admission;
use assigned::Assigned;
use backlog::Backlog;
use checkpoint::Checkpoint;
use clients::Clients;
use ended::Ended;
use fan_out::FanOuts;
use farewell::Farewell;
use flapping::Flapping;
use groups::Recalls;
use hold::Releases;
use interest::Interest;
use matches::Matches;
use overload::Memory;
use picks::Picks;
use presence::Presence;
use questions::Questions;
use receipts::Receipts;
use sampling::Sampling;
use std::rc::Rc;
use std::sync::Arc;
use store_room::Store;
use takeover::Takeovers;
use traces::Traces;

/// Something the shell has to do with a connection.
#[derive(Debug)]
pub enum Command {
    /// Send `rest` after what is in flight, then close. The core has forgotten the connection.
    Close {
        /// Which.
        connection: ConnectionKey,
        /// Its last bytes.
        rest: Outgoing,
        /// What it takes until its socket is gone: then it is given to [`ShardCore::vacate`]. Who was let in
        /// takes nothing any more: its client may come again at once.
        place: Option<admission::Place>,
    },
    /// Close the connection now, saying nothing. The core has forgotten it, and its place is free.
    Abort(ConnectionKey),
    /// Pass the connection to the shard its client identifier belongs to. The core has forgotten it.
    Handover {
        /// Which.
        connection: ConnectionKey,
        /// Where to.
        home: ShardId,
        /// Everything it sent so far; what arrives until it has left the ring comes after that.
        bytes: Vec<u8>,
        /// Who it is, and since when.
        arrival: Arrival,
    },
    /// Find out who this is: answered by [`ShardCore::authenticated`].
    Authenticate {
        /// Which.
        connection: ConnectionKey,
        /// What it shows.
        step: Step,
    },
    /// Stop receiving from it: it does not take what it asked for.
    Pause(ConnectionKey),
    /// Receive from it again.
    Resume(ConnectionKey),
}

impl Command {
    /// The connection that the core has forgotten with this.
    const fn forgotten(&self) -> Option<ConnectionKey> {
        match self {
            Command::Close { connection, .. }
            | Command::Handover { connection, .. }
            | Command::Abort(connection) => Some(*connection),
            Command::Authenticate { .. } | Command::Pause(_) | Command::Resume(_) => None,
        }
    }
}

/// The state of one shard.
pub struct ShardCore {
    id: ShardId,
    shards: ShardId,
    settings: Rc<Settings>,
    /// For the audit log.
    notes: Vec<(Option<ConnectionKey>, Note)>,
    banned: Arc<BannedNames>,
    flapping: Flapping,
    clients: Clients,
    trie: Trie,
    retained: Retained,
    /// The broker's own values.
    own_retained: Retained,
    timers: Timers,
    interest: Interest,
    lasting: Lasting,
    receipts: Receipts,
    sampling: Sampling,
    talkers: Talkers,
    admission: Admission,
    commands: Vec<Command>,
    staged: Staged,
    backlog: Backlog,
    fan_outs: FanOuts,
    ended: Ended,
    farewell: Farewell,
    releases: Releases,
    presence: Presence,
    recalls: Recalls,
    assigned: Assigned,
    questions: Questions,
    last_match: LastMatch,
    /// Room for the matches of the publish at hand.
    matches: Matches,
    /// Room for its share groups.
    picks: Picks,
    memory: Memory,
    checkpoint: Checkpoint,
    store: Store,
    traces: Traces,
    takeovers: Takeovers,
}

impl ShardCore {
    /// A shard without connections. `seed` makes assigned client identifiers and hashes differ from run to
    /// run;
    /// `counts` are shared by all shards.
    #[must_use]
    pub fn new(
        id: ShardId,
        shards: ShardId,
        settings: Settings,
        seed: u64,
        counts: Arc<ConnectionCounts>,
    ) -> Self {
        let receipts = Receipts::new(settings.waits_for_os());
        let settings = Rc::new(settings);
        let turn_deliveries_max = settings.limits.turn_deliveries_max;
        let secrets = Hashing::new(seed);
        ShardCore {
            id,
            shards,
            notes: Vec::new(),
            banned: Arc::default(),
            flapping: Flapping::default(),
            clients: Clients::new(Rc::clone(&settings), secrets.clone()),
            settings,
            trie: Trie::new(secrets.clone()),
            retained: Retained::default(),
            own_retained: Retained::default(),
            timers: Timers::default(),
            interest: Interest::new(id, shards),
            lasting: Lasting::default(),
            receipts,
            sampling: Sampling::default(),
            talkers: Talkers::new(secrets),
            admission: Admission::new(counts),
            commands: Vec::new(),
            staged: Staged::new(shards),
            backlog: Backlog::new(shards, turn_deliveries_max),
            fan_outs: FanOuts::default(),
            ended: Ended::default(),
            farewell: Farewell::default(),
            releases: Releases::default(),
            presence: Presence::default(),
            recalls: Recalls::default(),
            assigned: Assigned::new(&seed.to_be_bytes()),
            questions: Questions::default(),
            last_match: LastMatch::default(),
            matches: Matches::default(),
            picks: Picks::default(),
            memory: Memory::default(),
            checkpoint: Checkpoint::default(),
            store: Store::default(),
            traces: Traces::default(),
            takeovers: Takeovers::default(),
        }
    }

    /// Client identifiers are assigned by this key, which nobody can guess, from now on.
    pub fn assign_by(&mut self, key: &[u8; 32]) {
        self.assigned = Assigned::new(key);
    }

    /// How many shards there are.
    #[must_use]
    pub const fn shards(&self) -> ShardId {
        self.shards
    }

    // Effects.

    /// Batches that a turn hands to sockets at most: half as many while more wait, so that a turn stays short
    /// beside the deliveries of a large fan-out.
    #[must_use]
    pub fn turn_sends_max(&self) -> usize {
        let pace = self.backlog.pace_of_sends();
        let max = pace.of(self.settings.limits.turn_sends_max);
        if self.clients.ready.len() > max {
            max.div_ceil(2)
        } else {
            max
        }
    }

    /// Microseconds that a turn should take at most.
    #[must_use]
    pub fn turn_us_goal(&self) -> u64 {
        self.settings.limits.turn_us_goal
    }

    /// For how long, in microseconds, what comes may gather where much comes.
    #[must_use]
    pub fn gather_us_max(&self) -> u64 {
        self.settings.limits.gather_us_max
    }

    /// Bytes that a turn hands to sockets at most: [`ShardCore::taken_at_once_bytes`].
    #[must_use]
    pub fn turn_send_bytes_max(&self) -> usize {
        let pace = self.backlog.pace_of_sends();
        pace.of(self.settings.limits.turn_send_bytes_max)
    }

    /// Bytes of a batch that the kernel copies when it gets it: no more than a socket's buffer takes.
    #[must_use]
    pub fn taken_at_once_bytes(&self, batch: &Outgoing) -> usize {
        match self.settings.limits.socket_send_bytes_max {
            0 => batch.len(),
            max => batch.len().min(max),
        }
    }

    /// A turn has handed over as many batches as it may.
    pub fn note_sends_deferred(&mut self) {
        self.clients.counters.sends_deferred += u64::from(!self.clients.ready.is_empty());
    }

    /// The next connection with bytes to send, each once: ask [`ShardCore::take_outgoing`].
    pub fn next_ready(&mut self) -> Option<ConnectionKey> {
        self.clients.ready.pop()
    }

    /// What to do with connections, in order; to be done before another comes in. So long the name of one that
    /// is forgotten belongs to nobody else: whoever finds a socket by its place would close another's.
    pub fn take_commands(&mut self, into: &mut Vec<Command>) {
        self.arm_throttled();
        for command in &self.commands {
            if let Some(connection) = command.forgotten() {
                self.clients.connections.release(connection);
            }
        }
        into.append(&mut self.commands);
    }

    /// Whether anything must be stored: in most turns nothing.
    #[must_use]
    pub fn has_persist(&self) -> bool {
        self.clients.journal.has_records()
    }

    /// What must be stored; [`ShardCore::stored`] tells when it is.
    pub fn take_persist(&mut self) -> std::vec::Drain<'_, Persist> {
        self.clients.journal.take()
    }

    /// Mail to other shards.
    pub const fn staged(&mut self) -> &mut Staged {
        &mut self.staged
    }

    /// The next batch for a connection, if it has one and none is in flight.
    pub fn take_outgoing(&mut self, connection: ConnectionKey) -> Option<Outgoing> {
        let key = connection;
        let connection = self.clients.connections.get_mut(key)?;
        connection.is_ready = false;
        if !connection.outbox.may_send() {
            return None;
        }
        connection.sent_bytes += connection.outbox.bytes() as u64;
        connection.sending_since_us = self.sampling.now_us;
        if self.traces.is_on() {
            self.trace_outgoing(key);
            return self.clients.connections.get_mut(key)?.outbox.begin_send();
        }
        connection.outbox.begin_send()
    }

    /// When [`ShardCore::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        [
            self.timers.next(),
            self.retained.next_expiry(),
            self.memory.looks_at(),
            self.clients.aging.due_at(),
            self.takeovers.look_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether retained questions or answers wait for a drain of the mailboxes.
    #[must_use]
    pub fn wants_drain(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Whether something waits that can be done at once: then the shard must not sleep.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.wants_drain()
            || !self.backlog.is_empty()
            || self.fans_out()
            || self.has_postponed()
            || !self.clients.ready.is_empty()
            || !self.commands.is_empty()
            || self.memory.is_searching()
            || self.may_resume_publishers()
            || self.has_persist()
            || self.receipts.can_tell(self.staged.blocked())
    }

    // Inputs.

    /// The layers under a connection failed; its end follows.
    pub fn note_transport_error(&mut self) {
        self.clients.counters.transport_errors += 1;
    }

    /// The socket of a connection is gone that was to leave for its home: it takes no place any more.
    pub fn note_lost_on_its_way(&mut self, listener: u16) {
        self.admission.counts.leave(listener);
    }

    /// A batch from [`ShardCore::take_outgoing`] is out; its buffers come back.
    pub fn sent(&mut self, now: Timestamp, key: ConnectionKey, batch: Outgoing) {
        self.clients.spare.give(batch);
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        connection.outbox.end_send();
        let (session, is_paused) = (connection.session, connection.is_paused);
        if connection.outbox.has_pending() {
            self.clients.mark_ready(key);
        }
        if is_paused {
            self.resume_if_room(key);
        }
        if let Some(key) = session
            && self.clients.is_owed(key)
        {
            self.clients.pump(key, now);
            self.pump_replay(key, now);
        }
    }

    /// A batch's buffers come back from a connection that is gone.
    pub fn recycle(&mut self, batch: Outgoing) {
        self.clients.spare.give(batch);
    }

    /// Everything up to this ticket is stored.
    pub fn stored(&mut self, now: Timestamp, through: u64) {
        if self.clients.journal.advance(through) {
            self.open_stored();
            self.complete_stored();
            self.send_stored(now);
            self.confirm_stored();
            self.release_stored_acks();
            self.release_pending(now);
        }
    }

    /// The operating system has everything up to this ticket.
    pub fn written(&mut self, through: u64) {
        if self.clients.journal.advance_written(through) {
            self.confirm_all_handled();
            self.release_stored_acks();
        }
    }

    /// Everything staged so far is visible to its receivers: now interest may be confirmed. Returns
    /// whether that staged new mail.
    pub fn mail_flushed(&mut self) -> bool {
        debug_assert!(self.staged.is_empty());
        for (to, sequence) in self.interest.take_confirmations() {
            self.staged
                .push(Phase::Live, to, Mail::InterestConfirmed { sequence });
        }
        !self.staged.is_empty()
    }

    /// The shell is about to take out of every mailbox all that is visible from now on.
    pub fn begin_drain(&mut self) {
        self.questions.begin_drain();
    }

    /// Works off what had come before [`ShardCore::begin_drain`]: every update that was visible when a
    /// question came has been applied by now, so the answer is not stale. What is beyond this turn's work waits.
    pub fn end_drain(&mut self, now: Timestamp) {
        while !self.backlog.is_spent()
            && let Some((session, query, answer)) = self.questions.take_answer()
        {
            self.backlog.spend(1 + answer.messages.len());
            self.take_answer(session, query, answer, now);
        }
        while !self.backlog.is_spent()
            && let Some((from, query)) = self.questions.take_question()
        {
            self.answer_query(from, query, now);
        }
    }

    /// A letter from another shard.
    pub fn mail(&mut self, now: Timestamp, from: ShardId, mail: Mail) {
        self.mind_memory(now);
        match mail {
            Mail::Publish(publish) => self.publish_from_shard(from, publish, now),
            Mail::Sampled {
                topic,
                qos,
                since_us,
            } => self.follow_from_shard(&topic, qos, since_us),
            Mail::Retain { message, asked } => self.retain_for(from, message, asked),
            Mail::Interest { sequence, change } => {
                if let Some(filter) = change.filter() {
                    self.backlog.spend(filters::filter_work(filter));
                }
                let (interest, lasting) = (&mut self.interest, &mut self.lasting);
                let (trie, shards) = (&mut self.trie, self.shards);
                let awake = interest.apply(trie, lasting, shards, from, sequence, &change);
                if let Some((node, name)) = awake {
                    self.recalls.add(node, &name);
                }
            }
            Mail::InterestConfirmed { sequence } => self.interest_confirmed(from, sequence, now),
            Mail::Kept(kept) => self.kept_elsewhere(from, &kept, now),
            Mail::RetainedQuery(query) => self.questions.ask(from, query),
            Mail::RetainedAnswer {
                session,
                query,
                answer,
            } => {
                self.questions.answer(session, query, answer);
            }
        }
    }
}
