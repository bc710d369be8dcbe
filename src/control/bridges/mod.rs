//! Bridges to other brokers: when each dials, which shard gets the connection, what is told of it.
//!
//! ```text
//!   Making ──► Waiting ──► Dialling ──► Joining ──► Up
//!                 ▲            └───────────┴─────────┘ it ended
//! ```
//! Invariant: what a bridge hears counts only if it has the number of the attempt under way, or of the one
//! that tries the first address again (`failback`).

pub mod dialler;
mod failback;
mod losses;
mod prepared;
mod qos;
mod redirect;
mod refused;
mod sas;
mod tls;
mod watched;

use crate::control::config::{Address, BridgeConfig};
use crate::engine::bridge::dial::{CUTS_MAX, Dial, DialRule};
use crate::engine::bridge::line::{End, LineCounts, News};
use crate::engine::bridge::plan::{Plan, Protocol};
use crate::engine::keys::ShardId;
use crate::engine::route::home_shard;
use crate::engine::time::Timestamp;
use crate::shard::boot::Shards;
use crate::shard::bridge::{NewLine, Parcel};
use crate::shard::inquiries::{Asked, Inquiry};
use crate::shard::listener::SocketBounds;
use crate::shard::orders::Announcements;
use crate::shard::peer::Peer;
use crate::shard::report::Waiting;
use crate::shard::transport::remote::RemoteTls;
use crossbeam_channel::Receiver;
use dialler::{Call, Called, Dialler};
use losses::Losses;
pub use losses::tell_session_loss;
pub use prepared::Prepared;
use prepared::Told;
use qos::Qos2;
use redirect::{Elsewhere, Redirect};
use refused::Refused;
use sas::SasKey;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};
use utoipa::ToSchema;
use watched::BridgeFiles;

/// How long a shard that is late may take to end a bridge's session.
const ENDS_WITHIN: Duration = Duration::from_secs(3_600);

/// How far a bridge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its session is being made.
    Making,
    /// The next attempt is due at its time.
    Waiting,
    /// A connection is being made.
    Dialling,
    /// The shard has the connection; the other broker has not let it in.
    Joining,
    /// Messages pass.
    Up,
    /// It is not to dial (`bridge.paused`).
    Paused,
    /// It dials when something waits for it (`bridge.start`).
    Idle,
}

/// One of them.
#[derive(Debug)]
struct Bridge {
    config: Arc<BridgeConfig>,
    files: BridgeFiles,
    plan: Arc<Plan>,
    /// How to speak TLS, by the addresses.
    tls: Vec<Option<RemoteTls>>,
    /// What its tokens are made of, if it shows one in place of a password.
    sas: Option<Box<SasKey>>,
    home: ShardId,
    dial: Dial,
    state: State,
    /// Another server than its address has, where it was told to go.
    elsewhere: Option<Elsewhere>,
    /// The number of the attempt under way.
    number: u64,
    /// The number of the one that tries the first address again, while a line is up to another.
    probe: Option<u64>,
    /// When it came to be up, or not to be.
    since: Instant,
    /// Attempts since the start.
    attempts: u64,
    /// Why the last one ended.
    cause: Option<String>,
    /// Which of its addresses take no QoS 2, and cannot say so.
    qos_2: Qos2,
    losses: Losses,
    refused: Refused,
    /// Addresses with protocols that are not spoken there, which was told.
    told_unspoken: BTreeSet<(String, String)>,
    /// That its lines are cut short was told.
    told_cuts: bool,
    counts: LineCounts,
}

/// How a bridge is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BridgeState {
    /// Its name.
    pub name: Box<str>,
    /// Making (its session), waiting (for the next attempt), dialling, joining, up, idle (nothing waits) or
    /// paused.
    pub state: &'static str,
    /// Where the other broker is.
    pub address: String,
    /// The protocol that it speaks, or will try.
    pub protocol: String,
    /// Seconds for which it has been up, or not.
    pub since_seconds: u64,
    /// Attempts since the start.
    pub attempts: u64,
    /// Failures since it was up.
    pub failures: u32,
    /// Why the last connection ended, if it is not up.
    pub cause: Option<String>,
    /// Filters that access rules do not let its user read here (`bridge.local_user`, `acl_file`), or that it
    /// has no room for: nothing goes out by them.
    pub not_granted: Vec<String>,
    /// Client identifier of its session here, by which /clients shows what waits.
    pub client_id: Box<str>,
    /// Messages that wait for it here.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Seconds for which the oldest of them has waited.
    pub oldest_seconds: u64,
    /// Messages that were sent and are not acknowledged.
    pub in_flight: u64,
    /// Messages that its queue has dropped since its session began, as full or as too old.
    pub dropped: u64,
    /// Messages that its line has dropped since the start: for hops, size or topic.
    pub dropped_by_line: u64,
    /// Messages that the other broker did not take.
    pub rejected: u64,
    /// What went through it, and what was dropped: by the names that /metrics has behind `ringmq_`.
    pub counts: BTreeMap<&'static str, u64>,
}

impl BridgeState {
    /// With what waits for it, as its shard has told.
    #[must_use]
    pub fn with_queue(self, waiting: &Waiting) -> Self {
        BridgeState {
            queued: waiting.messages,
            queued_bytes: waiting.bytes,
            oldest_seconds: waiting.oldest_ms / 1_000,
            in_flight: waiting.in_flight,
            dropped: waiting.dropped,
            ..self
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Bridges {
    bridges: Vec<Bridge>,
    dialler: Option<Dialler>,
    /// Of the sockets that are dialled.
    bounds: SocketBounds,
    called: Receiver<Called>,
    /// Numbers of attempts.
    last_number: u64,
    origin: Instant,
    chance: RandomState,
    redirects: Redirects,
    /// Times that one gets no more QoS 2 by an address.
    qos_lowered: u64,
    /// Lines that another client's line has ended, or seems to have.
    takeovers: u64,
    /// A state has changed that nobody was told.
    has_changed: bool,
    /// Names of those that were removed: their topics are still there.
    gone: BTreeSet<Box<str>>,
}

/// Redirects since the start.
#[derive(Debug, Default)]
struct Redirects {
    followed: u64,
    refused: u64,
}

impl Redirects {
    fn count(&mut self, redirect: &Redirect) {
        match redirect {
            Redirect::None => {}
            Redirect::Followed(_) => self.followed += 1,
            Redirect::Refused(_) => self.refused += 1,
        }
    }
}

/// Has the home shard end a bridge's session, with its connection.
fn end_session(bridge: &Bridge, shards: &Shards) {
    let asked = Asked::EndBridge {
        client_id: bridge.plan.session_id.clone(),
        text: "the bridge was altered or removed by a reload".to_owned(),
    };
    let inquiry = Inquiry {
        // Nobody waits for the answer.
        number: 0,
        by: Instant::now() + ENDS_WITHIN,
        asked: Arc::new(asked),
    };
    shards.inquire(&inquiry, Some(bridge.home));
}

fn bridge(told: Told, shards: ShardId) -> Bridge {
    let Told {
        config,
        plan,
        tls,
        sas,
    } = told;
    Bridge {
        files: BridgeFiles::new(&config),
        home: home_shard(&plan.session_id, shards),
        dial: Dial::new(DialRule {
            addresses: config.addresses.len(),
            order: config.order,
            protocols: config.protocols.clone(),
            reconnect_ms_min: config.reconnect_ms_min,
            reconnect_ms_max: config.reconnect_ms_max,
            failback_ms: config.failback_ms,
            redirects_max: config.redirects_max,
        }),
        config,
        plan,
        tls,
        sas,
        state: State::Making,
        elsewhere: None,
        number: 0,
        probe: None,
        since: Instant::now(),
        attempts: 0,
        cause: None,
        qos_2: Qos2::default(),
        losses: Losses::default(),
        refused: Refused::default(),
        told_unspoken: BTreeSet::new(),
        told_cuts: false,
        counts: LineCounts::default(),
    }
}

impl Bridges {
    /// Bridges of so many shards, whose sessions are made at once. No thread is started where there are none.
    ///
    /// # Errors
    /// The system gives no thread, or no socket.
    pub fn start(prepared: Prepared, bounds: SocketBounds, shards: &Shards) -> io::Result<Self> {
        let (called_to, called) = crossbeam_channel::unbounded();
        let count = shards.pulses().len() as ShardId;
        let of_config = prepared.0.into_iter();
        let bridges: Vec<_> = of_config.map(|of| bridge(of, count)).collect();
        let dialler = (!bridges.is_empty()).then(|| Dialler::start(called_to, bounds));
        let mut all = Bridges {
            bridges,
            dialler: dialler.transpose()?,
            bounds,
            called,
            last_number: 0,
            origin: Instant::now(),
            chance: RandomState::new(),
            redirects: Redirects::default(),
            qos_lowered: 0,
            takeovers: 0,
            has_changed: false,
            gone: BTreeSet::new(),
        };
        for place in 0..all.bridges.len() {
            all.make_session(place, shards)?;
        }
        all.has_changed = !all.bridges.is_empty();
        Ok(all)
    }

    /// Has a thread that calls, if there are to be bridges.
    ///
    /// # Errors
    /// The system gives none.
    pub fn make_ready(&mut self, prepared: &Prepared) -> io::Result<()> {
        if self.dialler.is_none() && !prepared.0.is_empty() {
            let (called_to, called) = crossbeam_channel::unbounded();
            self.dialler = Some(Dialler::start(called_to, self.bounds)?);
            self.called = called;
        }
        Ok(())
    }

    /// Goes by another configuration: a bridge that is in it no more ends, with all that waits for it; of one
    /// that is `altered` only the connection does, if it is persistent and stays so. All others go on, with
    /// what was read anew from their next attempt on.
    pub fn renew(&mut self, prepared: Prepared, altered: &BTreeSet<&str>, shards: &Shards) {
        let count = shards.pulses().len() as ShardId;
        let now = self.now();
        let mut older = std::mem::take(&mut self.bridges);
        let mut begin = Vec::new();
        for told in prepared.0 {
            let name = &told.config.name;
            let is_altered = altered.contains(&*told.config.stands_as);
            let place = older.iter().position(|old| old.config.name == *name);
            let mut old = place.map(|place| older.swap_remove(place));
            if let Some(mut old) = old.take_if(|_| !is_altered) {
                old.files = BridgeFiles::new(&told.config);
                // Who asks for a reload wants to see what it helps.
                old.take(told, now);
                self.bridges.push(old);
                continue;
            }
            let stays =
                told.plan.is_persistent && old.as_ref().is_some_and(|it| it.plan.is_persistent);
            older.extend(old.filter(|_| !stays));
            begin.push(self.bridges.len());
            self.bridges.push(bridge(told, count));
        }
        let has_gone = !older.is_empty();
        for old in older {
            end_session(&old, shards);
            self.gone.insert(old.config.name.clone());
        }
        self.has_changed |= has_gone || !begin.is_empty();
        for place in begin {
            if let Err(error) = self.make_session(place, shards) {
                warn!("a bridge's session is not made before it is up: {error}");
                let made = self.bridges.get_mut(place);
                made.into_iter().for_each(|it| it.state = it.resting());
            }
        }
    }

    /// Where calls are answered.
    #[must_use]
    pub const fn called(&self) -> &Receiver<Called> {
        &self.called
    }

    /// Nobody calls.
    pub fn hear_no_more(&mut self) {
        self.called = crossbeam_channel::never();
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.origin.elapsed().as_millis() as u64)
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Has the home shard make a bridge's session, by a line that leads nowhere.
    fn make_session(&mut self, place: usize, shards: &Shards) -> io::Result<()> {
        let number = self.next_number();
        let Some(bridge) = self.bridges.get_mut(place) else {
            return Ok(());
        };
        bridge.number = number;
        bridge.state = State::Making;
        if !bridge.plan.is_persistent {
            bridge.state = bridge.resting();
            return Ok(());
        }
        let (near, far) = UnixStream::pair()?;
        let line = NewLine {
            number,
            plan: Arc::clone(&bridge.plan),
            protocol: None,
            descriptor: near.into(),
            far_end: Some(far.into()),
            peer: Peer::Unix,
            tls: None,
            url: None,
        };
        shards.open_line(bridge.home, Parcel::new(line));
        Ok(())
    }

    /// Dials where it is time.
    pub fn do_what_is_due(&mut self) {
        let now = self.now();
        self.probe_what_is_due(now);
        self.tell_losses_that_are_due(now);
        let Some(dialler) = &self.dialler else {
            return;
        };
        for bridge in &mut self.bridges {
            if bridge.state != State::Waiting || bridge.dial.due_at() > now {
                continue;
            }
            let Some((address, _)) = bridge.target() else {
                continue;
            };
            let address = address.clone();
            self.last_number += 1;
            bridge.number = self.last_number;
            bridge.state = State::Dialling;
            bridge.attempts += 1;
            dialler.call(Call {
                number: bridge.number,
                address,
                timeout: Duration::from_millis(bridge.config.connect_timeout_ms),
            });
        }
    }

    /// How long it is until something is due.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        let now = self.now();
        let due_at = |bridge: &Bridge| {
            let next = match bridge.state {
                State::Waiting => Some(bridge.dial.due_at()),
                _ => bridge.probe_at(),
            };
            [next, bridge.losses.due_at()].into_iter().flatten().min()
        };
        let due_at = self.bridges.iter().filter_map(due_at).min()?;
        Some(Duration::from_millis(
            due_at.as_ms().saturating_sub(now.as_ms()),
        ))
    }

    fn by_number(&mut self, number: u64) -> Option<&mut Bridge> {
        self.bridges
            .iter_mut()
            .find(|bridge| bridge.number == number)
    }

    /// A call is answered: the connection goes to the bridge's shard.
    pub fn take_called(&mut self, called: Called, shards: &Shards) {
        let Some(called) = self.probe_called(called, shards) else {
            return;
        };
        let number = called.number;
        match called.outcome {
            Ok(connected) => {
                let Some(bridge) = self.by_number(number) else {
                    return;
                };
                bridge.state = State::Joining;
                let protocol = bridge.dial.attempt().protocol;
                if let Some(to) = bridge.target() {
                    let line = bridge.line(number, protocol, connected, to);
                    shards.open_line(bridge.home, line);
                }
            }
            Err(error) => self.failed(number, &End::before_line(error.to_string())),
        }
    }

    /// A bridge's connection tells something.
    pub fn take_news(&mut self, number: u64, news: News) {
        let now = self.now();
        let Some(news) = self.probe_news(number, news) else {
            return;
        };
        let mut all = self.bridges.iter_mut();
        let is_its = |it: &&mut Bridge| it.number == number || it.probe == Some(number);
        let Some(bridge) = all.find(is_its) else {
            return;
        };
        let name = bridge.config.name.clone();
        match news {
            News::Prepared => {
                bridge.refused.asked(number);
                bridge.state = bridge.resting();
            }
            News::Up(protocol, session_present) => {
                bridge.refused.asked(number);
                (bridge.state, bridge.since) = (State::Up, Instant::now());
                bridge.cause = None;
                bridge.dial.came_up(now);
                let address = bridge.address();
                let session = if session_present {
                    "its session there goes on"
                } else {
                    "a new session there"
                };
                info!(
                    "bridge {name} is up: {address}, {}, {session}",
                    spoken(protocol)
                );
                self.has_changed = true;
            }
            News::Counts(counts) => bridge.take_counts(&counts, now),
            News::Refused(by, filter, why) => {
                warn!("bridge {name}: {by} does not grant it {filter:?}: {why}");
            }
            News::NotGranted(filters) => bridge.take_not_granted(number, filters),
            News::NoQos2 => self.qos_lowered += u64::from(bridge.learn_by_answer()),
            News::Ended(end) => self.failed(number, &end),
            News::Idle => {
                bridge.rest(now);
                info!("bridge {name} is idle: nothing has passed for bridge.idle_seconds");
                self.has_changed = true;
            }
            News::Wanted => bridge.wake(now),
        }
    }

    /// An attempt is over.
    fn failed(&mut self, number: u64, end: &End) {
        let (now, chance) = (self.now(), self.chance.hash_one(number));
        if self.goes_back(number, end) {
            return;
        }
        let Some(bridge) = self.by_number(number) else {
            return;
        };
        let (name, address) = (bridge.config.name.clone(), bridge.address());
        let protocol = spoken(bridge.dial.attempt().protocol);
        let (was_made, cause) = (bridge.state != State::Making, &end.cause);
        let said = match end.was_up {
            true => format!("bridge {name} is down: {address}: {cause}"),
            false if was_made => format!("bridge {name}: {address}, {protocol}: {cause}"),
            false => format!("bridge {name}: {cause}"),
        };
        let is_lowered = bridge.learn_by_end(end.of_qos_2);
        let redirect = bridge.redirect(end, now);
        let wait_ms = match redirect {
            Redirect::Followed(_) => 0,
            _ => bridge.dial.ended(now, end.outcome(), chance),
        };
        let elsewhere = match &redirect {
            Redirect::None => "",
            Redirect::Followed(told) | Redirect::Refused(told) => told,
        };
        let line = format!("{said}{elsewhere}; the next attempt comes in {wait_ms} ms");
        // What an older broker does not speak is told once.
        let is_known =
            end.is_by_protocol && wait_ms == 0 && !bridge.told_unspoken.insert((address, protocol));
        match is_known {
            true => debug!("{line}"),
            false => warn!("{line}"),
        }
        bridge.tell_cuts();
        let is_taken_over = end.is_taken_over || end.is_wordless && bridge.dial.cuts() >= CUTS_MAX;
        bridge.state = match bridge.resting() {
            // Who has begun to dial goes on.
            State::Idle => State::Waiting,
            state => state,
        };
        bridge.cause = Some(end.cause.clone());
        if end.was_up {
            bridge.since = Instant::now();
        }
        self.redirects.count(&redirect);
        self.qos_lowered += u64::from(is_lowered);
        self.takeovers += u64::from(is_taken_over);
        self.has_changed = true;
    }

    /// Topics of states that have changed, with all others'.
    pub fn take_changed(&mut self) -> Option<Announcements> {
        std::mem::take(&mut self.has_changed).then(|| self.states())
    }

    /// The state of each by its topic, as Mosquitto has it.
    #[must_use]
    pub fn states(&self) -> Announcements {
        let states = self.bridges.iter().map(|bridge| {
            let state = if bridge.state == State::Up { "1" } else { "0" };
            (&bridge.config.name, state)
        });
        let is_there = |name: &str| self.bridges.iter().any(|it| *it.config.name == *name);
        let gone = self.gone.iter().filter(|name| !is_there(name));
        states
            .chain(gone.map(|name| (name, "0")))
            .map(|(name, state)| {
                let topic = format!("$SYS/broker/connection/{name}/state");
                (topic.into(), state.into())
            })
            .collect()
    }
}

impl Bridges {
    /// How each is.
    #[must_use]
    pub fn list(&self) -> Vec<BridgeState> {
        self.bridges.iter().map(Bridge::told).collect()
    }

    /// How many there are, of these up, and what became of them.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 6] {
        let up = self
            .bridges
            .iter()
            .filter(|bridge| bridge.state == State::Up);
        [
            ("bridges", self.bridges.len() as u64),
            ("bridges_up", up.count() as u64),
            ("bridge_redirects", self.redirects.followed),
            ("bridge_redirects_refused", self.redirects.refused),
            ("bridge_qos_lowered", self.qos_lowered),
            ("bridge_takeovers", self.takeovers),
        ]
    }
}

impl Bridge {
    fn told(&self) -> BridgeState {
        BridgeState {
            name: self.config.name.clone(),
            state: match self.state {
                State::Making => "making",
                State::Waiting => "waiting",
                State::Dialling => "dialling",
                State::Joining => "joining",
                State::Up => "up",
                State::Paused => "paused",
                State::Idle => "idle",
            },
            address: self.address(),
            protocol: spoken(self.dial.attempt().protocol),
            since_seconds: self.since.elapsed().as_secs(),
            attempts: self.attempts,
            failures: match self.state {
                State::Up => 0,
                _ => self.dial.failures(),
            },
            cause: self.cause.clone(),
            not_granted: self.refused.filters(),
            client_id: self.plan.session_id.clone(),
            queued: 0,
            queued_bytes: 0,
            oldest_seconds: 0,
            in_flight: 0,
            dropped: 0,
            dropped_by_line: self.counts.dropped(),
            rejected: self.counts.refused_remote,
            counts: self.counts.list().into(),
        }
    }

    /// What it is while nothing is under way.
    fn resting(&self) -> State {
        match (self.config.is_paused, self.config.idle_ms) {
            (true, _) => State::Paused,
            (false, Some(_)) => State::Idle,
            (false, None) => State::Waiting,
        }
    }

    /// Nothing has passed: it waits until something does, and begins anew then.
    fn rest(&mut self, now: Timestamp) {
        (self.state, self.since, self.probe) = (self.resting(), Instant::now(), None);
        self.elsewhere = None;
        self.dial.rest(now);
    }

    /// Something waits for it.
    fn wake(&mut self, now: Timestamp) {
        if self.state == State::Idle {
            self.dial.rest(now);
            self.state = State::Waiting;
        }
    }

    fn address(&self) -> String {
        self.target()
            .map_or_else(String::new, |(address, _)| address.to_string())
    }

    /// Its lines are cut short again and again: what may be the cause is told once, until one lasts.
    fn tell_cuts(&mut self) {
        let is_over = self.dial.cuts() >= CUTS_MAX;
        if !std::mem::replace(&mut self.told_cuts, is_over) && is_over {
            warn!(
                "bridge {}: {} has ended {CUTS_MAX} lines in a row, each soon after it was up, and MQTT \
                 3.1.1 cannot say why: perhaps another client has the identifier {:?} there, too; give \
                 each its own by bridge.client_id. The wait for the next attempt doubles each time, up \
                 to bridge.reconnect_ms_max",
                self.config.name,
                self.address(),
                self.plan.client_id
            );
        }
    }

    /// Where the attempt under way goes, and how TLS is spoken there.
    fn target(&self) -> Option<(&Address, Option<RemoteTls>)> {
        if let Some(elsewhere) = &self.elsewhere {
            return Some((&elsewhere.address, elsewhere.tls.clone()));
        }
        let place = self.dial.attempt().address;
        let tls = self.tls.get(place).cloned().flatten();
        Some((self.config.addresses.get(place)?, tls))
    }

    /// What an attempt is told: with a token of its own, where there is one.
    fn plan_now(&self, address: usize) -> Arc<Plan> {
        let plan = self.plan_for(address);
        match &self.sas {
            None => plan,
            Some(sas) => Arc::new(Plan {
                password: Some(sas.token()),
                lasts_ms: Some(sas.lasts_ms()),
                ..(*plan).clone()
            }),
        }
    }

    /// A line over a connection.
    fn line(
        &self,
        number: u64,
        protocol: Protocol,
        (stream, peer): (TcpStream, SocketAddr),
        (to, tls): (&Address, Option<RemoteTls>),
    ) -> Parcel {
        Parcel::new(NewLine {
            number,
            // One that tries the first address again has a number of its own.
            plan: self.plan_now(match self.probe == Some(number) {
                true => 0,
                false => self.dial.attempt().address,
            }),
            protocol: Some(protocol),
            descriptor: stream.into(),
            far_end: None,
            peer: Peer::internet(peer),
            url: to.path.is_some().then(|| websocket_url(to)),
            tls,
        })
    }
}

/// The URL that an upgrade asks for; TLS is under it already.
fn websocket_url(address: &Address) -> String {
    let url = address.to_string();
    match url.strip_prefix("wss://") {
        Some(rest) => format!("ws://{rest}"),
        None => url,
    }
}

/// A protocol as an operator calls it.
fn spoken(protocol: Protocol) -> String {
    let bit = if protocol.says_bridge {
        " as a bridge"
    } else {
        ""
    };
    format!("MQTT {}{bit}", protocol.version)
}
