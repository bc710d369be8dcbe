//! A simulated client: what it knows of its session, what it has in flight.

use crate::oracle::MessageId;
use crate::wire::{Connect, Publish};
use crate::world::LinkId;
use ringmq::engine::receipt::Level;
use std::collections::{HashMap, HashSet, VecDeque};

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Idle,
    /// CONNECT is sent.
    Connecting,
    Up,
    /// DISCONNECT is sent.
    Leaving,
}

/// A publish that is not acknowledged for good.
#[derive(Clone, Debug)]
pub struct Unacknowledged {
    pub message: MessageId,
    pub publish: Publish,
    /// PUBREC has come: PUBREL is what is repeated.
    pub is_released: bool,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    pub connect: Connect,
    pub phase: Phase,
    pub link: Option<LinkId>,
    /// Bytes of a packet that is not whole.
    pub inbound: Vec<u8>,
    /// Number of its session; `None` when it has none that it knows of.
    pub epoch: Option<usize>,
    pub epochs: usize,
    pub connects: usize,
    next_packet_id: u16,
    pub unacknowledged: VecDeque<Unacknowledged>,
    pub receive_maximum: usize,
    /// QoS 2 messages that are not released.
    pub received: HashSet<u16>,
    /// Indexes into the oracle's subscriptions, by the packet that asked.
    pub subscribing: HashMap<u16, Vec<usize>>,
    pub unsubscribing: HashMap<u16, Vec<usize>>,
    /// Live subscriptions.
    pub subscriptions: Vec<usize>,
    /// Does not read for now.
    pub is_stalled: bool,
    /// QoS of all its subscriptions.
    pub qos: u8,
    /// How safe what it publishes is when it is acknowledged: that of its listener.
    pub level: Level,
    /// Its will on this connection.
    pub will: Option<MessageId>,
    /// Reads and answers so many bytes at a time.
    pub reads: usize,
    /// Session kept when the connection ends.
    pub is_kept: bool,
    /// On some of its connections it takes no large packets.
    pub may_be_small: bool,
    /// Earliest time at which its last connection ended.
    pub left_ms: u64,
    /// When it sent its last CONNECT.
    pub opened_ms: u64,
    /// Connections that broke before their CONNACK: their CONNECT may still arrive, and take over.
    pub stragglers: usize,
    /// Whether its session may be another than it thinks.
    pub is_uncertain: bool,
    /// Something was answered that waits for the store: it knows of the session, ...
    pub is_session_stored: bool,
    /// ... and of this connection.
    pub is_connection_stored: bool,
    /// The broker was killed, and may have forgotten the session.
    pub may_be_forgotten: bool,
    /// Wills that the broker may take up again if it is killed: it may have forgotten that they are gone.
    pub open_wills: Vec<MessageId>,
}

impl Client {
    pub fn new(connect: Connect, qos: u8, reads: usize) -> Self {
        let is_kept = if connect.is_v5 {
            connect.expiry_s > 0
        } else {
            !connect.is_clean
        };
        Client {
            connect,
            phase: Phase::Idle,
            link: None,
            inbound: Vec::new(),
            epoch: None,
            epochs: 0,
            connects: 0,
            next_packet_id: 1,
            unacknowledged: VecDeque::new(),
            receive_maximum: 8,
            received: HashSet::new(),
            subscribing: HashMap::new(),
            unsubscribing: HashMap::new(),
            subscriptions: Vec::new(),
            is_stalled: false,
            qos,
            level: Level::Disk,
            will: None,
            reads,
            is_kept,
            may_be_small: false,
            left_ms: 0,
            stragglers: 0,
            opened_ms: 0,
            is_uncertain: false,
            is_session_stored: false,
            is_connection_stored: false,
            may_be_forgotten: false,
            open_wills: Vec::new(),
        }
    }

    /// A packet identifier that is not in use.
    pub fn packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_packet_id;
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
            let in_flight = self
                .unacknowledged
                .iter()
                .any(|u| u.publish.packet_id == id);
            let asked = self.subscribing.contains_key(&id) || self.unsubscribing.contains_key(&id);
            if !in_flight && !asked {
                return id;
            }
        }
    }

    /// An answer came for which the broker has to have stored all before.
    pub fn note_stored(&mut self) {
        self.is_session_stored = self.is_kept;
        self.is_connection_stored = self.is_kept;
        let will = self.will;
        self.open_wills.retain(|open| Some(*open) == will);
    }

    /// The session is gone, and what it knew.
    pub fn forget_session(&mut self) {
        self.epoch = None;
        self.is_uncertain = false;
        self.is_session_stored = false;
        self.unacknowledged.clear();
        self.received.clear();
        self.subscriptions.clear();
        self.forget_requests();
    }

    /// Requests do not survive their connection.
    pub fn forget_requests(&mut self) {
        self.subscribing.clear();
        self.unsubscribing.clear();
    }
}
