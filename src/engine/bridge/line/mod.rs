//! A bridge's connection: a client of the remote broker on one side, of this one's core on the other.
//!
//! ```text
//!   from_remote ──►  CONNACK, SUBACK, PUBLISH, acknowledgements  ──► up   (to the core)
//!   from_core   ──►  CONNACK, SUBACK, PUBLISH, acknowledgements  ──► down (to the remote broker)
//! ```
//! Packets go through with the packet identifiers that they have: window, queue and unfinished QoS 2 are
//! those of the session in the core. Toward the core it is always 5.0.
//!
//! Invariants: nothing goes to the core before the remote broker has let the line in, and nothing of the
//! remote before the core has; what waits meanwhile is not read beyond [`HELD_BYTES_MAX`]. After the end is
//! told nothing more goes either way but a DISCONNECT.

mod aliases;
mod breach;
mod counts;
mod exactly;
mod inward;
mod outward;
mod subscribing;

use super::dial::Outcome;
use super::plan::{Plan, Protocol, Routes};
use crate::engine::codec::ack::Ack;
use crate::engine::codec::frame::{Frame, Split, split};
use crate::engine::codec::property::BRIDGE_PROPERTY;
use crate::engine::codec::publish::Publish;
use crate::engine::codec::remote::{
    Answer, ConnectTo, DISCONNECT, DISCONNECT_FOR_GOOD, PINGREQ, put_unsubscribe,
};
use crate::engine::codec::{PacketType, Reason, Version};
use crate::engine::message::Qos;
use crate::engine::session::EXPIRY_NEVER;
use aliases::Aliases;
use breach::Breach;
pub use counts::LineCounts;
use exactly::Exactly;
pub use exactly::OfQos2;
use std::fmt;
use std::sync::Arc;

/// What the remote sends before the core has let the line in is not read beyond this.
pub const HELD_BYTES_MAX: usize = 64 * 1024;
/// Packet identifiers of SUBSCRIBE count down from here; the core's window counts up from 1.
const SUBSCRIBE_ID: u16 = u16::MAX;
/// Half keep alives without a word after which the remote is gone: one and a half keep alives.
const SILENT_TICKS_MAX: u32 = 3;

/// What a line is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To make or mend the session here, with nobody at the other end: these of its filters are given up.
    Prepare(Vec<String>),
    /// To carry messages, by this protocol.
    Carry(Protocol),
}

/// What a publish is acknowledged with first, if it is.
const fn first_ack(publish: &Publish<'_>, reason: Reason) -> Option<Ack> {
    let kind = match publish.qos {
        Qos::AtMostOnce => return None,
        Qos::AtLeastOnce => PacketType::Puback,
        Qos::ExactlyOnce => PacketType::Pubrec,
    };
    Some(Ack {
        kind,
        packet_id: publish.packet_id,
        reason,
    })
}

/// How far a line has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was said yet.
    New,
    /// CONNECT has gone to the remote broker.
    Greeting,
    /// It has let the line in; CONNECT has gone to the core.
    Opening,
    /// Messages pass.
    Open,
    /// It has ended.
    Over,
}

/// Why a line ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// In an operator's words.
    pub cause: String,
    /// Whether another protocol may do better.
    pub is_by_protocol: bool,
    /// Whether the remote broker has said that it would.
    pub says_protocol: bool,
    /// Whether the remote broker broke the protocol.
    pub is_breach: bool,
    /// Whether it was up.
    pub was_up: bool,
    /// What the remote broker made of messages of QoS 2.
    pub of_qos_2: OfQos2,
    /// Whether the remote broker has closed it, and speaks a version in which it cannot say why.
    pub is_wordless: bool,
    /// Whether another client has come with its identifier.
    pub is_taken_over: bool,
    /// Where the remote broker says to go.
    pub server_reference: Option<String>,
}

impl End {
    /// Of an attempt of which no line came.
    #[must_use]
    pub const fn before_line(cause: String) -> Self {
        End {
            cause,
            is_by_protocol: false,
            says_protocol: false,
            is_breach: false,
            was_up: false,
            is_wordless: false,
            is_taken_over: false,
            of_qos_2: OfQos2::Untried,
            server_reference: None,
        }
    }

    /// What became of the attempt.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        if self.is_breach || self.is_taken_over {
            return Outcome::Broke;
        }
        // What closes upon QoS 2 has a reason, and a remedy of its own.
        let is_for_qos_2 = matches!(self.of_qos_2, OfQos2::Unanswered);
        match (self.was_up, self.is_by_protocol) {
            (true, _) if self.is_wordless && !is_for_qos_2 => Outcome::WasCut,
            (true, _) => Outcome::WasUp,
            (false, true) if self.says_protocol => Outcome::FailedByProtocol,
            (false, true) => Outcome::Closed,
            (false, false) => Outcome::Failed,
        }
    }
}

/// What a line tells whoever looks after bridges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The session is made.
    Prepared,
    /// It is up: by this protocol, and whether the remote broker had its session.
    Up(Protocol, bool),
    /// What went through since it told before.
    Counts(LineCounts),
    /// A filter is not granted: by whom, which, why.
    Refused(Side, String, String),
    /// All filters that this broker does not grant; none if it grants those that it did not before.
    NotGranted(Vec<NotGranted>),
    /// The remote broker answers QoS 2 as if it were 1: it gets no more of it.
    NoQos2,
    /// It has ended.
    Ended(End),
    /// It has ended, since nothing passed.
    Idle,
    /// Something waits for it.
    Wanted,
}

/// A filter that this broker does not grant its bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotGranted {
    /// Which.
    pub filter: String,
    /// The reason, as its code is called.
    pub why: String,
    /// Whether access rules say so: others may grant it.
    pub is_by_rules: bool,
}

/// One of the two brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This one.
    Here,
    /// The other one.
    Remote,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Here => "this broker",
            Side::Remote => "the remote broker",
        })
    }
}

/// What the remote broker takes.
#[derive(Clone, Debug)]
struct Remote {
    qos_max: Qos,
    retain_available: bool,
    packet_bytes_max: usize,
    receive_maximum: u16,
    session_present: bool,
    keep_alive_seconds: u16,
    /// Highest QoS that was asked of it, if all that it may send is by that.
    asked_qos: Option<Qos>,
    name: Option<Box<str>>,
}

/// Which answers a line waits for.
#[derive(Debug, Default)]
struct Awaited {
    /// SUBACKs of the remote broker: packet identifier, and the filters.
    subacks: Vec<(u16, Vec<String>)>,
    /// The core's SUBACK: its filters.
    core: Option<Vec<String>>,
    /// Filters that the core did not grant.
    not_granted: Vec<String>,
}

/// One connection of a bridge.
#[derive(Debug)]
pub struct Line {
    plan: Arc<Plan>,
    purpose: Purpose,
    routes_out: Routes,
    routes_in: Routes,
    stage: Stage,
    remote: Remote,
    awaited: Awaited,
    is_up: bool,
    /// Nobody comes back: the remote broker is to keep no session.
    leaves_for_good: bool,
    aliases: Aliases,
    exactly: Exactly,
    /// What is not a whole packet yet, or has to wait.
    from_remote: Vec<u8>,
    from_core: Vec<u8>,
    up: Vec<u8>,
    down: Vec<u8>,
    /// A PINGREQ is due.
    pings: bool,
    /// Since the last tick, but for pings.
    has_said: bool,
    has_heard: bool,
    silent_ticks: u32,
    /// Messages in both directions.
    passed: u64,
    news: Vec<News>,
    counts: LineCounts,
    /// Room for a topic and for properties.
    topic: String,
    properties: Vec<u8>,
}

impl Line {
    /// A line that has said nothing yet: [`Line::from_remote`] begins it.
    #[must_use]
    pub fn new(plan: Arc<Plan>, purpose: Purpose) -> Self {
        Line {
            routes_out: plan.routes_out(),
            routes_in: plan.routes_in(),
            stage: Stage::New,
            remote: Remote {
                qos_max: Qos::ExactlyOnce,
                retain_available: true,
                packet_bytes_max: usize::MAX,
                receive_maximum: u16::MAX,
                session_present: false,
                keep_alive_seconds: plan.keep_alive_seconds,
                asked_qos: None,
                name: None,
            },
            plan,
            purpose,
            awaited: Awaited::default(),
            is_up: false,
            leaves_for_good: false,
            aliases: Aliases::default(),
            exactly: Exactly::default(),
            from_remote: Vec::new(),
            from_core: Vec::new(),
            up: Vec::new(),
            down: Vec::new(),
            pings: false,
            has_said: false,
            has_heard: false,
            silent_ticks: 0,
            passed: 0,
            news: Vec::new(),
            counts: LineCounts::default(),
            topic: String::new(),
            properties: Vec::new(),
        }
    }

    /// What it was told.
    #[must_use]
    pub const fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The protocol that it speaks.
    fn protocol(&self) -> Protocol {
        match self.purpose {
            Purpose::Carry(protocol) => protocol,
            Purpose::Prepare(_) => Protocol::V5,
        }
    }

    /// The version of MQTT that it speaks.
    fn version(&self) -> Version {
        self.protocol().version
    }

    /// The same, if it leads to another broker.
    #[must_use]
    pub fn spoken_version(&self) -> Option<Version> {
        match self.purpose {
            Purpose::Carry(protocol) => Some(protocol.version),
            Purpose::Prepare(_) => None,
        }
    }

    // Inputs.

    /// Bytes came from the remote broker; none begin the line, or go on with what waits.
    pub fn from_remote(&mut self, bytes: &[u8]) {
        if self.stage == Stage::New {
            self.begin();
        }
        self.has_heard |= !bytes.is_empty();
        let mut waiting = std::mem::take(&mut self.from_remote);
        if waiting.is_empty() {
            let used = self.packets(Side::Remote, bytes);
            self.from_remote = bytes.get(used..).unwrap_or_default().to_vec();
        } else {
            waiting.extend_from_slice(bytes);
            let used = self.packets(Side::Remote, &waiting);
            waiting.drain(..used);
            self.from_remote = waiting;
        }
    }

    /// Bytes came from the core.
    pub fn from_core<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) {
        let mut waiting = std::mem::take(&mut self.from_core);
        for slice in slices {
            if waiting.is_empty() {
                let used = self.packets(Side::Here, slice);
                waiting.extend_from_slice(slice.get(used..).unwrap_or_default());
            } else {
                waiting.extend_from_slice(slice);
                let used = self.packets(Side::Here, &waiting);
                waiting.drain(..used);
            }
        }
        self.from_core = waiting;
    }

    /// Half a keep alive is over.
    pub fn tick(&mut self) {
        if self.stage != Stage::Open {
            return;
        }
        self.silent_ticks = if self.has_heard {
            0
        } else {
            self.silent_ticks + 1
        };
        if self.silent_ticks >= SILENT_TICKS_MAX {
            let seconds = u32::from(self.remote.keep_alive_seconds) * 3 / 2;
            return self.fail(format!(
                "it has not said anything for {seconds} s, though it was pinged (bridge.keep_alive_seconds)"
            ));
        }
        if !self.has_said || !self.has_heard {
            self.pings = true;
        }
        // The core wants to hear something too, if it has a longest keep alive.
        self.up.extend_from_slice(&PINGREQ);
        (self.has_said, self.has_heard) = (false, false);
    }

    /// How long it is between ticks; 0 for never.
    #[must_use]
    pub fn tick_ms(&self) -> u64 {
        u64::from(self.remote.keep_alive_seconds) * 500
    }

    /// Messages that have gone through in both directions.
    #[must_use]
    pub const fn passed(&self) -> u64 {
        self.passed
    }

    /// Nothing has passed for long enough: it leaves the remote broker in order.
    pub fn end_idle(&mut self) {
        if self.stage == Stage::Open && self.is_up {
            self.say_goodbye();
            self.stage = Stage::Over;
            self.news.push(News::Idle);
        }
    }

    /// When it leaves it does not come back.
    pub const fn leave_for_good(&mut self) {
        self.leaves_for_good = true;
    }

    /// What it has shown ends soon: it leaves the remote broker in order, to come back with something newer.
    pub fn end_in_time(&mut self) {
        if self.stage == Stage::Open {
            self.say_goodbye();
            self.fail("its token is renewed before it ends (bridge.sas_seconds)".into());
        }
    }

    /// The connection ended, in these words; only the first cause counts.
    pub fn note_end(&mut self, how: &str) {
        self.note(how, true);
    }

    /// What is under MQTT has failed, which another protocol does not mend.
    pub fn note_failure(&mut self, how: &str) {
        self.note(how, false);
    }

    fn note(&mut self, how: &str, may_be_protocol: bool) {
        if self.stage == Stage::Over {
            return;
        }
        let at = match self.stage {
            Stage::Greeting => " before CONNACK",
            Stage::Opening | Stage::Open if !self.is_up => " before SUBACK",
            _ => "",
        };
        let is_by_protocol = may_be_protocol && self.stage == Stage::Greeting;
        self.exactly.ends_by_remote();
        self.end_with(End {
            is_by_protocol,
            is_wordless: may_be_protocol && !self.version().is_v5(),
            ..End::before_line(format!("{how}{at}"))
        });
    }

    /// The core closes the connection: what it says last has come by [`Line::from_core`].
    pub fn closed_here(&mut self) {
        let late = match self.stage {
            Stage::Over => return,
            Stage::New => "end the handshake",
            Stage::Greeting => "answer CONNECT",
            Stage::Opening | Stage::Open => {
                self.say_goodbye();
                return self.fail("this broker has closed it".into());
            }
        };
        let ms = self.plan.taken.connect_timeout_ms;
        self.fail(format!(
            "it does not {late} within {ms} ms (limits.connect_timeout_ms)"
        ));
    }

    // Effects.

    /// Takes what goes to the core.
    pub fn take_up(&mut self, into: &mut Vec<u8>) {
        into.append(&mut self.up);
    }

    /// Whether something goes to the core, or may be taken up again.
    #[must_use]
    pub fn has_up(&self) -> bool {
        !self.up.is_empty() || self.stage == Stage::Open && !self.from_remote.is_empty()
    }

    /// Takes what goes to the remote broker.
    pub fn take_down(&mut self) -> Vec<u8> {
        self.has_said |= !self.down.is_empty();
        if std::mem::take(&mut self.pings) {
            self.down.extend_from_slice(&PINGREQ);
        }
        std::mem::take(&mut self.down)
    }

    /// Whether the remote broker is not to be read for now.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.stage != Stage::Open && self.from_remote.len() >= HELD_BYTES_MAX
    }

    /// Whether the connection is to be closed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Takes what there is to tell.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Whether messages did not go through since that was asked for.
    #[must_use]
    pub const fn has_lost(&self) -> bool {
        self.counts.dropped() + self.counts.refused_remote > 0
    }

    /// What went through since this was asked for.
    pub fn take_counts(&mut self) -> LineCounts {
        std::mem::take(&mut self.counts)
    }

    // The course of a line.

    fn begin(&mut self) {
        if let Purpose::Prepare(_) = self.purpose {
            self.stage = Stage::Opening;
            return self.greet_core();
        }
        self.stage = Stage::Greeting;
        let (plan, protocol) = (Arc::clone(&self.plan), self.protocol());
        let will = plan.remote_state_topic.as_deref();
        ConnectTo {
            version: protocol.version,
            is_bridge: protocol.says_bridge,
            client_id: &plan.client_id,
            clean_start: !plan.is_persistent,
            keep_alive_seconds: plan.keep_alive_seconds,
            user_name: plan.user_name.as_deref(),
            password: plan.password.as_ref().map(|password| password.reveal()),
            will: will.map(|topic| (topic, &b"0"[..])),
            will_retain: plan.known.takes_retained,
            session_expiry_seconds: if plan.is_persistent { EXPIRY_NEVER } else { 0 },
            receive_maximum: plan.taken.receive_maximum,
            packet_bytes_max: plan.taken.packet_bytes_max as u32,
            user_property: (plan.hops_max > 0).then_some((BRIDGE_PROPERTY, &*plan.broker_name)),
        }
        .encode(&mut self.down);
    }

    /// The remote broker has let the line in, or nobody is there.
    fn greet_core(&mut self) {
        let plan = Arc::clone(&self.plan);
        ConnectTo {
            version: Version::V5,
            is_bridge: false,
            client_id: &plan.session_id,
            clean_start: !plan.is_persistent,
            keep_alive_seconds: 0,
            user_name: None,
            password: None,
            will: None,
            will_retain: false,
            session_expiry_seconds: if plan.is_persistent { EXPIRY_NEVER } else { 0 },
            receive_maximum: self.remote.receive_maximum,
            packet_bytes_max: 0,
            user_property: None,
        }
        .encode(&mut self.up);
    }

    fn connack_of_remote(&mut self, frame: Frame<'_>) {
        if PacketType::from_first_byte(frame.first_byte) != Some(PacketType::Connack) {
            let what = PacketType::from_first_byte(frame.first_byte);
            let is_packet =
                |kind: &PacketType| kind.may_begin_with(frame.first_byte, self.version());
            if let Some(kind) = what.filter(is_packet) {
                return self.broken(Breach::BeforeConnack(kind));
            }
            let what = what.map_or("no packet of MQTT".into(), PacketType::name);
            return self.over(format!("it answers CONNECT with {what}"), true, None);
        }
        let version = self.version();
        let answer = match Answer::decode(frame.body, version) {
            Ok(answer) => answer,
            Err(error) => return self.broken(error.into()),
        };
        if answer.code != 0 {
            let server = answer.server_reference.map(str::to_owned);
            let cause = format!("it refuses CONNECT: {}", answer.refusal(version));
            return self.over(cause, answer.is_other_version(), server);
        }
        if let Some(breach) = Breach::of_answer(&answer, !self.plan.is_persistent) {
            return self.broken(breach);
        }
        let known = self.plan.known;
        self.remote.qos_max = answer.qos_max.min(known.qos_max);
        self.remote.retain_available = answer.retain_available && known.takes_retained;
        self.remote.packet_bytes_max = answer.packet_bytes_max as usize;
        self.remote.receive_maximum = answer.receive_maximum;
        let aliases_max = self.plan.topic_alias_max.min(answer.topic_alias_max);
        self.aliases.begin(aliases_max);
        self.remote.session_present = answer.session_present;
        self.remote.name = answer.broker_name.map(Into::into);
        if let Some(seconds) = answer.keep_alive_seconds {
            self.remote.keep_alive_seconds = seconds;
        }
        self.stage = Stage::Opening;
        self.greet_core();
    }

    /// The core has let the line in: subscribes on both sides.
    fn connack_of_core(&mut self, frame: Frame<'_>) {
        let answer = match Answer::decode(frame.body, Version::V5) {
            Ok(answer) => answer,
            Err(error) => return self.broken(error.into()),
        };
        if answer.code != 0 {
            let why = answer.refusal(Version::V5);
            self.say_goodbye();
            return self.fail(format!("this broker refuses its session: {why}"));
        }
        let prepares = matches!(self.purpose, Purpose::Prepare(_));
        self.stage = Stage::Open;
        self.subscribe_here(prepares);
        if !prepares {
            self.subscribe_there();
            if let Some(topic) = self.plan.remote_state_topic.clone() {
                self.put_state(&topic, b"1");
            }
        }
        self.look_whether_up();
    }

    fn subscribe_here(&mut self, prepares: bool) {
        if let Purpose::Prepare(stale) = &self.purpose
            && !stale.is_empty()
        {
            let stale: Vec<_> = stale.iter().map(String::as_str).collect();
            put_unsubscribe(Version::V5, SUBSCRIBE_ID - 1, &stale, &mut self.up);
        }
        // What is retained here goes to a remote broker that knows nothing of this bridge yet.
        let retain_handling = match (prepares, self.remote.session_present) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        };
        self.ask_core(retain_handling, |_| true);
    }

    /// Everything that was asked for is answered, or not.
    fn look_whether_up(&mut self) {
        if self.is_up || !self.awaited.subacks.is_empty() || self.awaited.core.is_some() {
            return;
        }
        self.is_up = true;
        match self.purpose {
            Purpose::Carry(protocol) => {
                self.news
                    .push(News::Up(protocol, self.remote.session_present));
            }
            Purpose::Prepare(_) => {
                self.up.extend_from_slice(&DISCONNECT);
                self.news.push(News::Prepared);
                self.stage = Stage::Over;
            }
        }
    }

    // Ends.

    fn fail(&mut self, cause: String) {
        self.over(cause, false, None);
    }

    /// The remote broker broke a rule: it is told which where its version allows `[MQTT-4.13.1-1]`.
    fn broken(&mut self, breach: Breach) {
        let is_let_in = !matches!(self.stage, Stage::New | Stage::Over);
        if is_let_in && self.version().is_v5() {
            let disconnect = [
                PacketType::Disconnect.first_byte(),
                1,
                breach.reason().byte(),
            ];
            if disconnect.len() <= self.remote.packet_bytes_max {
                self.down.extend_from_slice(&disconnect);
            }
        }
        self.breach(&breach.told(self.version()));
    }

    fn breach(&mut self, what: &str) {
        self.counts.breaches += 1;
        self.end_with(End {
            is_breach: true,
            ..End::before_line(format!("it breaks the protocol: {what}"))
        });
    }

    fn over(&mut self, cause: String, is_by_protocol: bool, server_reference: Option<String>) {
        self.end_with(End {
            is_by_protocol,
            says_protocol: is_by_protocol,
            server_reference,
            ..End::before_line(cause)
        });
    }

    fn end_with(&mut self, end: End) {
        self.stage = Stage::Over;
        self.news.push(News::Ended(End {
            was_up: self.is_up,
            of_qos_2: self.exactly.at_end(),
            ..end
        }));
    }

    /// Leaves the remote broker in order, which publishes no will then.
    fn say_goodbye(&mut self) {
        if self.stage == Stage::Open
            && let Some(topic) = self.plan.remote_state_topic.clone()
        {
            self.put_state(&topic, b"0");
        }
        let keeps = self.plan.is_persistent && self.version().is_v5();
        match self.leaves_for_good && keeps {
            true => self.down.extend_from_slice(&DISCONNECT_FOR_GOOD),
            false => self.down.extend_from_slice(&DISCONNECT),
        }
    }

    /// Handles the whole packets at the front of what one side sent; returns the bytes they took.
    fn packets(&mut self, side: Side, stream: &[u8]) -> usize {
        let mut used = 0;
        while let Some(rest) = stream.get(used..)
            && !rest.is_empty()
            && !self.has_to_wait(side)
        {
            let max = match side {
                Side::Here => usize::MAX,
                Side::Remote => self.plan.taken.packet_bytes_max,
            };
            match split(rest, max) {
                Ok(Split::Whole(frame, bytes)) => {
                    used += bytes;
                    match side {
                        Side::Here => self.packet_of_core(frame),
                        Side::Remote => self.packet_of_remote(frame),
                    }
                }
                Ok(Split::Partial(_)) => return used,
                Err(error) => self.broken(match split(rest, usize::MAX) {
                    Ok(Split::Partial(bytes) | Split::Whole(_, bytes)) => {
                        Breach::PacketTooLarge { bytes, max }
                    }
                    Err(_) => error.into(),
                }),
            }
        }
        // Nothing that comes after the end is looked at.
        if self.stage == Stage::Over {
            stream.len()
        } else {
            used
        }
    }

    /// Whether what comes from there waits until the core has let the line in.
    fn has_to_wait(&self, side: Side) -> bool {
        match self.stage {
            Stage::Over => true,
            Stage::Opening => side == Side::Remote,
            Stage::New | Stage::Greeting | Stage::Open => false,
        }
    }
}

#[cfg(test)]
mod tests;
