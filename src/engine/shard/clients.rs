//! Sessions and connections of a shard, and all that a delivery to one of them touches.
//!
//! Invariant: the shell is told once that a connection has something to send, until it asks for that.
//!
//! Not here: deliveries (`super::deliver`, `super::hold`, `super::window`).

use super::Settings;
use super::ages::Aging;
use super::journal::Journal;
use super::losses::{self, Losing};
use super::marking::Rules;
use super::overload::Shortage;
use super::ready::Ready;
use super::sessions::Sessions;
use crate::engine::fanout::encoder::Encoder;
use crate::engine::hashing::Hashing;
use crate::engine::keys::{ConnectionKey, OfConnection, SessionKey};
use crate::engine::outbox::SpareBuffers;
use crate::engine::overload::Stage;
use crate::engine::session::Delivery;
use crate::engine::session::connection::Connection;
use crate::engine::session::losses::LossReason;
use crate::engine::slots::Slots;
use crate::engine::telemetry::counters::Counters;
use crate::engine::telemetry::traffic::Traffic;
use foldhash::fast::FixedState;
use std::collections::VecDeque;
use std::rc::Rc;

/// A message of a share group that goes to another member.
pub(super) struct PassedOn {
    pub delivery: Delivery,
    /// Whom it was for: its entry there is over when another has it.
    pub from: SessionKey,
    pub entry: u64,
}

/// The clients of one shard.
pub(super) struct Clients {
    pub sessions: Sessions,
    pub connections: Slots<OfConnection, Connection>,
    pub encoder: Encoder,
    pub spare: SpareBuffers,
    pub counters: Counters,
    pub traffic: Traffic,
    /// Connections with bytes to send, for the shell.
    pub ready: Ready,
    pub journal: Journal,
    pub rules: Rules,
    /// While a publish from another shard is delivered: the last change of interest it has confirmed.
    pub routed_by: Option<u64>,
    /// While one is delivered whose shard does not know yet that a session that lasts asks for it: at QoS 2
    /// such a session does not get it.
    pub passes_lasting_by: bool,
    /// Work of looking through what sessions wait for, in eighths of a delivery, that no turn was charged for
    /// so far.
    pub looks: usize,
    pub shortage: Shortage,
    /// Sessions for which something has come to wait, and that are to be told.
    pub wanted: Vec<SessionKey>,
    /// Sessions whose messages wait for so long at most.
    pub aging: Aging,
    /// Sessions whose queue overflowed under the policy to disconnect.
    pub overflowed: Vec<SessionKey>,
    /// Messages of share groups that go to another member, and which entry of which session is over then.
    pub passed_on: VecDeque<PassedOn>,
    /// Connections whose clients do not take a message of QoS 2 any more that they may have, and its packet
    /// identifier: PUBREL is due.
    pub given_up: Vec<(ConnectionKey, u16)>,
    /// Connections that have to wait for deliveries; their timers are to be set.
    pub throttled: Vec<ConnectionKey>,
    pub losing: Losing,
    pub settings: Rc<Settings>,
    /// How the topics that have an alias are hashed.
    pub aliases_hashed_by: FixedState,
}

impl Clients {
    pub(super) fn new(settings: Rc<Settings>, hashing: Hashing) -> Self {
        Clients {
            aliases_hashed_by: hashing.state(),
            sessions: Sessions::new(hashing),
            connections: Slots::default(),
            encoder: Encoder::default(),
            spare: SpareBuffers::default(),
            counters: Counters::default(),
            traffic: Traffic::default(),
            ready: Ready::default(),
            journal: Journal::default(),
            rules: Rules::default(),
            routed_by: None,
            passes_lasting_by: false,
            looks: 0,
            shortage: Shortage::new(Stage::Normal, settings.limits.outbox_bytes_max),
            wanted: Vec::new(),
            aging: Aging::default(),
            overflowed: Vec::new(),
            passed_on: VecDeque::new(),
            given_up: Vec::new(),
            throttled: Vec::new(),
            losing: Losing::default(),
            settings,
        }
    }

    /// There is something to send to a connection.
    pub(super) fn mark_ready(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            self.ready.mark(key, connection);
        }
    }

    /// Appends a control packet. Returns whether the outbox is now so full that the client should not
    /// be read any more for now.
    pub(super) fn control(&mut self, key: ConnectionKey, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        let buffer = connection.outbox.buffer(&mut self.spare);
        let before = buffer.len();
        write(buffer);
        if let Some(first_byte) = buffer.get(before) {
            self.traffic.send(*first_byte);
        }
        if !std::mem::replace(&mut connection.is_ready, true) {
            self.ready.push_answered(key);
        }
        connection.outbox.bytes() > self.settings.limits.outbox_bytes_max
    }

    /// Counts messages that a session has lost, for all and for itself.
    pub(super) fn lose(&mut self, key: SessionKey, reason: LossReason, count: u64) {
        if count == 0 {
            return;
        }
        *losses::counter(&mut self.counters, reason) += count;
        self.losing.add(&mut self.sessions, key, reason, count);
    }
}
