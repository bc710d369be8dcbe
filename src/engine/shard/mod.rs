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
mod admission;
mod authenticate;
mod clients;
mod connect;
mod deliver;
mod end;
mod hold;
mod interest;
mod journal;
mod losses;
mod matches;
mod notes;
mod overload;
mod publish;
mod questions;
mod rate;
mod receive;
mod replay;
mod sessions;
mod settings;
mod subscribe;
#[cfg(test)]
mod tests;
mod window;

pub use admission::ConnectionCounts;
pub use settings::{Authentication, ClientIdPolicy, ListenerPolicy, Settings};

use crate::engine::access::acl::Acl;
use crate::engine::access::bans::BannedNames;
use crate::engine::access::{Admitted, Step};
use crate::engine::codec::Reason;
use crate::engine::keys::{ConnectionKey, ShardId};
use crate::engine::mail::{Mail, Phase, Staged};
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::record::Persist;
use crate::engine::route::last_match::LastMatch;
use crate::engine::route::retained::Retained;
use crate::engine::route::trie::Trie;
use crate::engine::session::connection::Connection;
use crate::engine::session::losses::Losses;
use crate::engine::telemetry::counters::Counters;
use crate::engine::telemetry::notes::Note;
use crate::engine::time::Timestamp;
use crate::engine::timer::{Owner, Timers};
use clients::Clients;
use interest::Interest;
use matches::Matches;
use questions::Questions;
use std::rc::Rc;
use std::sync::Arc;

/// Something the shell has to do with a connection.
#[derive(Debug)]
pub enum Command {
    /// Send `rest` after what is in flight, then close. The core has forgotten the connection.
    Close {
        /// Which.
        connection: ConnectionKey,
        /// Its last bytes.
        rest: Outgoing,
    },
    /// Pass the connection to the shard its client identifier belongs to. The core has forgotten it.
    Handover {
        /// Which.
        connection: ConnectionKey,
        /// Where to.
        home: ShardId,
        /// Everything it sent so far; what arrives until it has left the ring comes after that.
        bytes: Vec<u8>,
        /// Who it is.
        admitted: Option<Box<Admitted>>,
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

/// The state of one shard.
pub struct ShardCore {
    id: ShardId,
    shards: ShardId,
    settings: Rc<Settings>,
    /// For the audit log.
    notes: Vec<(ConnectionKey, Note)>,
    banned: Arc<BannedNames>,
    /// Access rules; without them everything is allowed.
    acl: Option<Arc<Acl>>,
    clients: Clients,
    trie: Trie,
    retained: Retained,
    timers: Timers,
    interest: Interest,
    admission: admission::Admission,
    commands: Vec<Command>,
    staged: Staged,
    /// Connections of all shards.
    counts: Arc<ConnectionCounts>,
    seed: u64,
    questions: Questions,
    last_match: LastMatch,
    matches: Matches,
}

impl ShardCore {
    /// A shard without connections. `seed` makes assigned client identifiers differ from run to run;
    /// `counts` are shared by all shards.
    #[must_use]
    pub fn new(
        id: ShardId,
        shards: ShardId,
        settings: Settings,
        seed: u64,
        counts: Arc<ConnectionCounts>,
    ) -> Self {
        let settings = Rc::new(settings);
        ShardCore {
            id,
            shards,
            notes: Vec::new(),
            banned: Arc::default(),
            acl: None,
            clients: Clients::new(Rc::clone(&settings)),
            settings,
            trie: Trie::default(),
            retained: Retained::default(),
            timers: Timers::default(),
            interest: Interest::new(id, shards),
            admission: admission::Admission::default(),
            commands: Vec::new(),
            staged: Staged::new(shards),
            counts,
            seed,
            questions: Questions::default(),
            last_match: LastMatch::default(),
            matches: Matches::default(),
        }
    }

    /// How many shards there are.
    #[must_use]
    pub const fn shards(&self) -> ShardId {
        self.shards
    }

    // Effects.

    /// Connections with bytes to send, each once: ask [`ShardCore::take_outgoing`].
    pub fn take_ready(&mut self, into: &mut Vec<ConnectionKey>) {
        into.append(&mut self.clients.ready);
    }

    /// What to do with connections, in order.
    pub fn take_commands(&mut self, into: &mut Vec<Command>) {
        self.arm_throttled();
        into.append(&mut self.commands);
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
        let connection = self.clients.connections.get_mut(connection)?;
        connection.is_ready = false;
        connection.outbox.begin_send()
    }

    /// When [`ShardCore::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        [self.timers.next(), self.retained.next_expiry()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether retained questions or answers wait for a drain of the mailboxes.
    #[must_use]
    pub fn wants_drain(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Whether so much waits for other shards that clients should not be read for now.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.interest.pending() >= interest::PENDING_MAX
    }

    // Inputs.

    /// A listener accepted a connection. `None` if there are too many to even tell it so.
    pub fn accept(&mut self, now: Timestamp, listener: u16) -> Option<ConnectionKey> {
        let max = self.settings.limits.connections_max;
        let count = self.counts.enter(listener);
        if count >= max + max / 8 + 16 {
            self.counts.leave(listener);
            self.clients.counters.connections_refused_full += 1;
            return None;
        }
        self.clients.counters.connections_accepted += 1;
        let key = self.insert_connection(now, listener, false);
        let is_surplus = count >= max || self.is_listener_full(listener);
        let is_hasty = self.is_hasty(now, listener);
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.is_hasty = is_hasty;
            connection.is_surplus = is_surplus;
        }
        Some(key)
    }

    /// Too many connections come from the address of this one: its CONNECT will be refused.
    pub fn refuse_surplus(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.is_surplus = true;
        }
    }

    fn is_listener_full(&self, listener: u16) -> bool {
        let policy = self.settings.listener(listener);
        policy.is_some_and(|policy| self.counts.of(listener) > policy.connections_max)
    }

    /// The layers under a connection failed; its end follows.
    pub fn note_transport_error(&mut self) {
        self.clients.counters.transport_errors += 1;
    }

    /// Largest packet that an open connection may send; `None` before CONNECT is accepted.
    #[must_use]
    pub fn packet_bytes_max(&self, key: ConnectionKey) -> Option<usize> {
        let connection = self.clients.connections.get(key)?;
        connection.session?;
        Some(self.settings.limits.max_packet_bytes)
    }

    /// Another shard handed over a connection whose client identifier lives here; what it sent so far
    /// is to be [`ShardCore::receive`]d next.
    pub fn adopt(
        &mut self,
        now: Timestamp,
        listener: u16,
        admitted: Option<Box<Admitted>>,
    ) -> ConnectionKey {
        let key = self.insert_connection(now, listener, true);
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.is_identified = true;
            connection.admitted = admitted;
        }
        key
    }

    fn insert_connection(
        &mut self,
        now: Timestamp,
        listener: u16,
        is_adopted: bool,
    ) -> ConnectionKey {
        let connect_by = now.plus_ms(self.settings.limits.connect_timeout_ms);
        let mut connection = Connection::new(now, connect_by, is_adopted);
        connection.listener = listener;
        connection.timer_at = connect_by;
        let key = self.clients.connections.insert(connection);
        self.timers.set(connect_by, Owner::Connection(key));
        self.admission.take();
        key
    }

    /// A batch from [`ShardCore::take_outgoing`] is out; its buffers come back.
    pub fn sent(&mut self, now: Timestamp, key: ConnectionKey, batch: Outgoing) {
        self.clients.spare.give(batch);
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        connection.outbox.end_send();
        let session = connection.session;
        if connection.outbox.has_pending() {
            self.clients.mark_ready(key);
        }
        self.resume_if_room(key);
        if let Some(session) = session {
            self.clients.pump(session, now);
            self.pump_replay(session, now);
        }
    }

    /// Reads nothing from a connection until [`Self::resume_if_room`]; false when it was paused before.
    fn pause(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return false;
        };
        let was_paused = std::mem::replace(&mut connection.is_paused, true);
        if !was_paused {
            self.commands.push(Command::Pause(key));
        }
        !was_paused
    }

    /// Reads a paused connection again when it has taken what it asked for and the store has caught up.
    fn resume_if_room(&mut self, key: ConnectionKey) {
        let limits = &self.settings.limits;
        if let Some(connection) = self.clients.connections.get_mut(key)
            && connection.is_paused
            && connection.outbox.bytes() < limits.outbox_bytes_max / 2
            && connection.awaiting_store.len() < usize::from(limits.receive_maximum)
            && !connection.waits_for_memory
            && !connection.is_asking()
            && connection.reads_at == Timestamp::NEVER
        {
            connection.is_paused = false;
            self.commands.push(Command::Resume(key));
        }
    }

    /// A batch's buffers come back from a connection that is gone.
    pub fn recycle(&mut self, batch: Outgoing) {
        self.clients.spare.give(batch);
    }

    /// Everything up to this ticket is stored.
    pub fn stored(&mut self, through: u64) {
        if self.clients.journal.advance(through) {
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
    /// question came has been applied by now, so the answer is not stale.
    pub fn end_drain(&mut self, now: Timestamp) {
        while let Some((session, query, answer)) = self.questions.take_answer() {
            self.take_answer(session, query, answer, now);
        }
        while let Some((from, query)) = self.questions.take_question() {
            self.answer_query(from, query, now);
        }
    }

    /// A letter from another shard.
    pub fn mail(&mut self, now: Timestamp, from: ShardId, mail: Mail) {
        match mail {
            Mail::Publish(publish) => self.publish_from_shard(from, publish, now),
            Mail::Retain(message) => self.retain(message),
            Mail::Interest { sequence, change } => {
                self.interest
                    .apply(&mut self.trie, self.shards, from, sequence, &change);
            }
            Mail::InterestConfirmed { sequence } => self.interest_confirmed(from, sequence, now),
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

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) {
        while let Some((at, owner)) = self.timers.pop_due(now) {
            match owner {
                Owner::Connection(key) => self.connection_due(key, at, now),
                Owner::Session(key) => self.session_due(key, at, now),
            }
        }
        self.clients.counters.dropped_expired += self.retained.expire(now) as u64;
    }

    fn connection_due(&mut self, key: ConnectionKey, at: Timestamp, now: Timestamp) {
        self.rate_due(key, now);
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        if connection.timer_at != at {
            return;
        }
        if connection.waits_for_memory || connection.reads_at != Timestamp::NEVER {
            // Whom the broker does not read it does not take for silent.
            connection.heard_at = now;
        }
        let deadline = connection.deadline();
        if deadline > now {
            connection.timer_at = deadline;
            if deadline != Timestamp::NEVER {
                self.timers.set(deadline, Owner::Connection(key));
            }
        } else if connection.session.is_none() {
            self.clients.counters.connect_timeouts += 1;
            self.drop_connection(key);
        } else if connection.identity_ends_at <= now {
            self.clients.counters.identities_ended += 1;
            let text = "the right to be connected has ended";
            self.disconnect(key, Reason::NotAuthorized, text, now);
        } else {
            self.clients.counters.keep_alive_timeouts += 1;
            let text = "nothing heard for one and a half keep alive intervals";
            self.disconnect(key, Reason::KeepAliveTimeout, text, now);
        }
    }

    /// Sets the timer of a connection for its deadline if that is earlier.
    fn arm_connection(&mut self, key: ConnectionKey) {
        let Some(connection) = self.clients.connections.get_mut(key) else {
            return;
        };
        let deadline = connection.deadline();
        if deadline < connection.timer_at {
            connection.timer_at = deadline;
            self.timers.set(deadline, Owner::Connection(key));
        }
    }

    /// First step of a shutdown: the wills of all clients, for those who are still there to get them.
    pub fn publish_wills(&mut self, now: Timestamp) {
        let sessions: Vec<_> = self.clients.sessions.keys().collect();
        for session in sessions {
            self.publish_will(session, now);
        }
    }

    /// Last step of a shutdown: every client is told and closed.
    pub fn disconnect_all(&mut self, now: Timestamp) {
        let connections: Vec<_> = self.clients.connections.keys().collect();
        for key in connections {
            self.disconnect(
                key,
                Reason::ServerShuttingDown,
                "the broker is stopping",
                now,
            );
        }
    }

    /// Connections at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.connections.len()
    }

    /// Whether sessions have lost messages since [`ShardCore::take_losses`].
    #[must_use]
    pub fn has_losses(&self) -> bool {
        !self.clients.losing.is_empty()
    }

    /// Who has lost messages, and why: client identifiers.
    pub fn take_losses(&mut self) -> Vec<(Rc<str>, Losses)> {
        let clients = &mut self.clients;
        clients.losing.take(&mut clients.sessions)
    }

    /// Counters of events.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.clients.counters
    }

    /// Gauges and counters by name.
    #[must_use]
    pub fn statistics(&self) -> Vec<(&'static str, u64)> {
        let sessions = &self.clients.sessions;
        let all = || sessions.keys().filter_map(|key| sessions.get(key));
        let sum =
            |of: &dyn Fn(&crate::engine::session::Session) -> usize| all().map(of).sum::<usize>();
        let mut list = vec![
            ("connections", self.clients.connections.len() as u64),
            ("sessions", sessions.len() as u64),
            (
                "subscriptions",
                sum(&|session| session.subscriptions.len()) as u64,
            ),
            ("filters", self.trie.len() as u64),
            ("retained_messages", self.retained.len() as u64),
            ("retained_bytes", self.retained.bytes() as u64),
            (
                "queued_messages",
                sum(&|session| session.outbound.queued()) as u64,
            ),
            (
                "inflight_messages",
                sum(&|session| usize::from(session.outbound.unacknowledged())) as u64,
            ),
        ];
        list.extend(self.clients.counters.list());
        list
    }
}
