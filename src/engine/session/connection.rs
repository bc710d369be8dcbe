//! What the core knows of one connection, from its first byte to its close.
//!
//! ```text
//!   AwaitConnect ──CONNECT──► Open ──► (removed)
//!        └── home is another shard ──► (handed over)
//! ```
//! A connection holds no buffer while it is idle: `partial` exists only while a packet straddles two
//! receives, the outbox only while bytes wait.

use super::aliases::{Aliases, OutgoingAlias};
use super::awaiting::Awaiting;
use super::changing::Changing;
use super::granted::Granted;
use super::rates::Rates;
use super::unfinished::Unfinished;
use crate::engine::access::Admitted;
use crate::engine::codec::{Reason, Version};
use crate::engine::keys::SessionKey;
use crate::engine::limits::HELD_BYTES_MAX;
use crate::engine::outbox::Outbox;
use crate::engine::telemetry::notes::Gone;
use crate::engine::time::Timestamp;
use foldhash::fast::FixedState;
use ipnet::IpNet;

/// What a CONNECT waits for that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The methods' answer.
    Answer,
    /// The next AUTH of its client.
    Client,
    /// What its client has sent by an older connection.
    Older,
}

/// A CONNECT that waits: its sender is not known yet, or has an older connection.
#[derive(Debug)]
pub struct Gate {
    /// The CONNECT, whole.
    pub packet: Box<[u8]>,
    /// What it waits for.
    pub awaited: Awaited,
    /// The user that it says to be in an exchange, whatever its CONNECT says.
    pub exchange_user: Option<Box<str>>,
}

/// Whose turn it is in an exchange by AUTH packets: a client that speaks out of turn breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// None is under way.
    Nobody,
    /// The methods are asked.
    Broker,
    /// It was told to go on.
    Client,
}

/// Of what a connection is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surplus {
    /// Of all that the broker serves.
    InAll,
    /// Of those by its listener.
    OfListener,
    /// Of those from its address.
    OfAddress,
}

/// For whom a connection counts that is not let in yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectsFrom {
    /// Nobody: it came by a socket without addresses, goes out, or is let in.
    #[default]
    Nobody,
    /// Those whom their proxies have not named yet.
    Unnamed,
    /// The network that counts as its address.
    Network(IpNet),
}

/// Why packets of a connection wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The turn has done enough; it goes on in one of the next.
    Turn,
    /// Other shards have no room for more.
    Room,
    /// What it published goes to very many.
    FanOut,
    /// The store can take no more for now.
    Store,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// The session; `None` until CONNECT is accepted.
    pub session: Option<SessionKey>,
    /// Number of the listener it came by.
    pub listener: u16,
    /// The network that counts as its address, as far as the shell has said.
    pub network: Option<IpNet>,
    /// Version of its CONNECT.
    pub version: Version,
    /// Whether it is another broker that says so, by 3.1 or 3.1.1.
    pub is_bridge: bool,
    /// What it was told that it may do; nothing before its CONNACK.
    pub granted: Granted,
    /// What waits to be sent.
    pub outbox: Outbox,
    /// Whether the shell has been told that something waits.
    pub is_ready: bool,
    /// Whether the shell was asked to stop receiving.
    pub is_paused: bool,
    /// How fast it may go, if that is limited.
    pub rates: Option<Box<Rates>>,
    /// Whether messages wait because it would get them too fast.
    pub is_throttled: bool,
    /// It is read again then, having gone too fast; NEVER if it has not.
    pub reads_at: Timestamp,
    /// It has published while memory was very short, and is not read before there is more.
    pub waits_for_memory: bool,
    /// Since when it does.
    pub waits_since: Timestamp,
    /// Its peer has gone: it is read to its end, however short memory is.
    pub is_deserted: bool,
    /// Batches that were out when it was last asked whether it is stuck.
    sent_before: u32,
    /// Largest packet the client takes.
    pub packet_bytes_max: u32,
    /// Most QoS 1 and 2 messages in flight toward it.
    pub window_max: u16,
    /// Bytes that have come from it.
    pub received_bytes: u64,
    /// Bytes that were handed over to be sent to it.
    pub sent_bytes: u64,
    /// Messages that have come from it.
    pub received_messages: u64,
    /// Messages that were put into its outbox.
    pub sent_messages: u64,
    /// When the send that is on its way was handed over, in microseconds of the shell's clock.
    pub sending_since_us: u64,
    /// When it last sent something.
    pub heard_at: Timestamp,
    /// Milliseconds of silence after which it is cut; 0 for never.
    pub silence_ms_max: u64,
    /// When its timer is set for.
    pub timer_at: Timestamp,
    /// When its CONNECT came.
    pub came_at: Timestamp,
    /// The user that its CONNECT says to be, if it is let in as another or as nobody.
    pub said_user: Option<Box<str>>,
    /// When its CONNECT is due.
    pub connect_by: Timestamp,
    /// Whether it was handed over from the shard that accepted it.
    pub is_adopted: bool,
    /// Why the broker closes it, also in an operator's words.
    pub goodbye: Option<(Reason, Box<str>)>,
    /// How it ended by itself, if not in order.
    pub gone: Option<Gone>,
    /// For whom it counts as one that is not let in yet.
    pub connects_from: ConnectsFrom,
    /// Whether it came faster after others than its listener allows.
    pub is_hasty: bool,
    /// If it is one too many, and accepted only to be told so: of which.
    pub surplus: Option<Surplus>,
    /// The beginning of a packet that is not whole yet, or packets that wait.
    pub partial: Vec<u8>,
    /// A large packet that is not whole yet, or waits; nothing else waits then but what came after it, in
    /// `partial`.
    pub unfinished: Option<Box<Unfinished>>,
    /// Why its packets wait, if they do.
    pub hold: Option<Hold>,
    /// Its packet of which some filters are done, while it is held for that.
    pub changing: Option<Box<Changing>>,
    /// No more bytes come; it ends when what waits is handled.
    pub has_ended: bool,
    /// Session expiry interval as CONNECT had it (3.14.2.2.2).
    pub asked_expiry_seconds: u32,
    /// Most aliases the broker may set.
    pub alias_out_max: u16,
    /// Its aliases, once there are any.
    aliases: Option<Box<Aliases>>,
    /// Acknowledgements that wait for the store or the mail, with what each needs.
    pub awaiting_store: Awaiting,
    /// Method of an extended authentication.
    pub authentication_method: Option<Box<str>>,
    /// Whose turn it is while the client authenticates anew.
    pub reauthentication: Turn,
    /// Its CONNECT, while it waits.
    pub gate: Option<Box<Gate>>,
    /// Whether it is known who it is.
    pub is_identified: bool,
    /// Who it is; `None` for anonymous clients.
    pub admitted: Option<Box<Admitted>>,
    /// When the certificate ends that it came with.
    pub certificate_ends_at: Timestamp,
    /// When its right to be connected ends, by what it has proved or by its certificate.
    pub identity_ends_at: Timestamp,
}

impl Connection {
    /// A connection that has sent nothing so far.
    #[must_use]
    pub fn new(now: Timestamp, connect_by: Timestamp, is_adopted: bool) -> Self {
        Connection {
            session: None,
            listener: 0,
            network: None,
            version: Version::V3_1_1,
            is_bridge: false,
            granted: Granted::default(),
            outbox: Outbox::default(),
            is_ready: false,
            is_paused: false,
            rates: None,
            is_throttled: false,
            reads_at: Timestamp::NEVER,
            waits_for_memory: false,
            waits_since: now,
            is_deserted: false,
            sent_before: 0,
            packet_bytes_max: u32::MAX,
            window_max: 0,
            received_bytes: 0,
            sent_bytes: 0,
            received_messages: 0,
            sent_messages: 0,
            sending_since_us: 0,
            heard_at: now,
            timer_at: Timestamp::NEVER,
            silence_ms_max: 0,
            came_at: now,
            said_user: None,
            connect_by,
            is_adopted,
            goodbye: None,
            gone: None,
            connects_from: ConnectsFrom::default(),
            is_hasty: false,
            surplus: None,
            partial: Vec::new(),
            unfinished: None,
            hold: None,
            changing: None,
            has_ended: false,
            asked_expiry_seconds: 0,
            alias_out_max: 0,
            aliases: None,
            awaiting_store: Awaiting::default(),
            authentication_method: None,
            reauthentication: Turn::Nobody,
            gate: None,
            is_identified: false,
            admitted: None,
            certificate_ends_at: Timestamp::NEVER,
            identity_ends_at: Timestamp::NEVER,
        }
    }

    /// It has proved who it is; that counts until then, and no longer than its certificate.
    pub fn begin_identity(&mut self, ends_at: Option<Timestamp>) {
        let ends_at = ends_at.unwrap_or(Timestamp::NEVER);
        self.identity_ends_at = ends_at.min(self.certificate_ends_at);
    }

    /// The client takes so many aliases; topics are hashed by that state.
    pub fn take_aliases(&mut self, max: u16, hashed_by: &FixedState) {
        self.alias_out_max = max;
        if max > 0 {
            self.aliases = Some(Box::new(Aliases::new(hashed_by.clone())));
        }
    }

    /// Its aliases, made at the first call.
    pub fn aliases(&mut self) -> &mut Aliases {
        self.aliases.get_or_insert_default()
    }

    /// The topic that an alias stands for, one of the client's or of the broker's.
    #[must_use]
    pub fn topic_of(&self, alias: u16, is_clients: bool) -> Option<&str> {
        let aliases = self.aliases.as_ref()?;
        match is_clients {
            true => aliases.inbound(alias),
            false => aliases.outbound(alias),
        }
    }

    /// The alias to send a topic with; most clients take none.
    #[inline]
    pub fn alias(&mut self, topic: &str) -> OutgoingAlias {
        if self.alias_out_max == 0 {
            return OutgoingAlias::NONE;
        }
        let max = self.alias_out_max;
        self.aliases().outgoing(topic, max)
    }

    /// The publish that [`Connection::alias`] was asked for was not sent.
    pub fn take_back_alias(&mut self, topic: &str, alias: OutgoingAlias) {
        if let Some(aliases) = &mut self.aliases {
            aliases.take_back(topic, alias);
        }
    }

    /// Whether the client may get one more message now; if not, its timer has to be set.
    #[inline]
    pub fn may_deliver(&mut self, now: Timestamp) -> bool {
        let Some(rates) = &mut self.rates else {
            return true;
        };
        let may = rates.may_deliver(now);
        self.is_throttled = !may;
        may
    }

    /// Memory that it keeps from being used otherwise, beyond what every connection takes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let acknowledgements = self.awaiting_store.held_bytes();
        let gate = self.gate.as_ref().map_or(0, |gate| gate.packet.len());
        let unfinished = self.unfinished.as_ref().map_or(0, |packet| packet.len());
        let unparsed = self.partial.capacity() + unfinished;
        let changing = self
            .changing
            .as_ref()
            .map_or(0, |packet| packet.held_bytes());
        self.outbox.held_bytes() + unparsed + acknowledgements + gate + changing
    }

    /// Bytes that have come and are not handled.
    #[must_use]
    pub fn unparsed_bytes(&self) -> usize {
        let unfinished = self.unfinished.as_ref().map_or(0, |packet| packet.len());
        unfinished + self.partial.len()
    }

    /// Takes them, in one buffer.
    #[must_use]
    pub fn take_unparsed(&mut self) -> Vec<u8> {
        let partial = std::mem::take(&mut self.partial);
        match self.unfinished.take() {
            Some(packet) => packet.put_together(&partial),
            None => partial,
        }
    }

    /// Whether a batch is on its way that was so when this was asked before.
    pub fn is_stuck(&mut self) -> bool {
        let sent = self.outbox.sent();
        // 0 until it is asked for the first time.
        let before = std::mem::replace(&mut self.sent_before, sent.wrapping_add(1));
        self.outbox.is_sending() && before == sent.wrapping_add(1)
    }

    /// Whether its CONNECT waits for others than its client: it is not read then.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        let gate = self.gate.as_ref();
        gate.is_some_and(|gate| gate.awaited != Awaited::Client)
    }

    /// Whether its CONNECT waits for the methods' answer.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        let gate = self.gate.as_ref();
        gate.is_some_and(|gate| gate.awaited == Awaited::Answer)
    }

    /// Whether its CONNECT waits for an older connection.
    #[must_use]
    pub fn awaits_older(&self) -> bool {
        let gate = self.gate.as_ref();
        gate.is_some_and(|gate| gate.awaited == Awaited::Older)
    }

    /// Whether so much of it waits that it is not read.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        match self.hold {
            None => false,
            Some(Hold::Turn | Hold::FanOut) => self.unparsed_bytes() >= HELD_BYTES_MAX,
            Some(Hold::Room | Hold::Store) => true,
        }
    }

    /// When something has to be done about it, as known now.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        let rates = self.rates.as_ref();
        let throttled = rates.map_or(Timestamp::NEVER, |rates| rates.delivers_at);
        let throttled = if self.is_throttled {
            throttled
        } else {
            Timestamp::NEVER
        };
        self.end_at().min(self.reads_at).min(throttled)
    }

    /// When silence or the end of its rights end it, as known now.
    fn end_at(&self) -> Timestamp {
        if self.session.is_none() {
            self.connect_by
        } else if self.silence_ms_max == 0 {
            self.identity_ends_at
        } else {
            let silence = self.heard_at.plus_ms(self.silence_ms_max);
            silence.min(self.identity_ends_at)
        }
    }
}
