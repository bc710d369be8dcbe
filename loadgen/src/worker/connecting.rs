//! Bringing clients in: at the rate that was asked for, so many at a time, again after a storm.

use super::Worker;
use super::client::Stage;
use super::publishing::Publishing;
use super::subscribing::Subscribing;
use crate::codec::{self, Connack};
use crate::connection::{Connection, ConnectionError};
use crate::control::Phase;
use crate::measure::Measure;
use crate::plan::{Plan, Reading};
use crate::transport::Transport;
use crate::verify::Tracker;
use mio::{Interest, Token};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;

/// First pause after a failed connect; doubles up to [`RETRY_NS_MAX`].
const RETRY_NS: u64 = 100_000_000;
const RETRY_NS_MAX: u64 = 5_000_000_000;
/// Connects in one turn: a socket takes long to make, and others have messages to send meanwhile.
const CONNECTS_PER_TURN: usize = 16;
/// Members times sources of shared groups whose order is checked.
const ORDER_ENTRIES_MAX: usize = 16_000_000;

/// Which clients are yet to come in.
pub struct Connecting {
    /// Next client that never connected.
    next: usize,
    /// Clients, of this worker.
    total: usize,
    /// Connects per second, of this worker.
    rate: Option<f64>,
    /// Nobody comes in before.
    began_ns: Option<u64>,
    in_setup: usize,
    in_setup_max: usize,
    retries: BinaryHeap<Reverse<(u64, usize)>>,
    has_stormed: bool,
    has_left: bool,
    /// Clients whose turn it is to reconnect, when all that they sent is acknowledged.
    leaving: Vec<usize>,
    order_entries: usize,
    /// Clients that are in.
    pub ready: u64,
    /// Clients that will not come in.
    pub failed: u64,
    /// Stormy clients that are not back.
    pub away: u64,
}

impl Connecting {
    /// For `total` clients of one of `workers` workers.
    pub fn new(plan: &Plan, total: usize, workers: u32) -> Self {
        let share = total as f64 / f64::from(plan.clients().max(1));
        Connecting {
            next: 0,
            total,
            rate: plan.settings.connect_rate.map(|rate| rate * share),
            began_ns: None,
            in_setup: 0,
            in_setup_max: plan.settings.connecting_max.div_ceil(workers) as usize,
            retries: BinaryHeap::new(),
            has_stormed: false,
            has_left: false,
            leaving: Vec::new(),
            order_entries: 0,
            ready: 0,
            failed: 0,
            away: 0,
        }
    }

    /// Lets them come in.
    pub const fn begin(&mut self, now_ns: u64) {
        self.began_ns = Some(now_ns);
    }

    fn next_first_ns(&self) -> Option<u64> {
        if self.next >= self.total || self.in_setup >= self.in_setup_max {
            return None;
        }
        let offset = self.rate.map_or(0.0, |rate| self.next as f64 * 1e9 / rate);
        Some(self.began_ns? + offset as u64)
    }

    /// When the next connect is due.
    pub fn next_ns(&self) -> Option<u64> {
        let retry = self.retries.peek().map(|Reverse((ns, _))| *ns);
        [self.next_first_ns(), retry].into_iter().flatten().min()
    }
}

impl Worker {
    pub(super) fn connect_due(&mut self) {
        let now = self.context.control.now_ns();
        for _ in 0..CONNECTS_PER_TURN {
            if self.connecting.next_first_ns().is_none_or(|due| due > now) {
                break;
            }
            let local = self.connecting.next;
            self.connecting.next += 1;
            self.clients[local].began_ns = self.context.control.now_ns();
            self.connect(local);
        }
        for _ in 0..CONNECTS_PER_TURN {
            let Some(Reverse((due, local))) = self.connecting.retries.peek().copied() else {
                break;
            };
            if due > now {
                break;
            }
            self.connecting.retries.pop();
            self.connect(local);
        }
    }

    fn connect(&mut self, local: usize) {
        let plan = self.context.plan.clone();
        let client = &mut self.clients[local];
        let nth = plan.groups[client.group as usize].first_client + client.index;
        self.connecting.in_setup += 1;
        client.stage = Stage::Establishing;
        let mut connection = match Transport::connect(&plan.settings.target, nth) {
            Ok(transport) => Box::new(Connection::new(transport, plan.settings.writes_each)),
            Err(error) => {
                let why = ConnectionError::Closed(error.to_string());
                self.fail_client(local, &why);
                return;
            }
        };
        let interests = Interest::READABLE | Interest::WRITABLE;
        if let Some(socket) = connection.transport().source()
            && let Err(error) = self
                .poll
                .registry()
                .register(socket, Token(local), interests)
        {
            self.context
                .control
                .fail(format!("cannot wait for a socket: {error}"));
        }
        client.connection = Some(connection);
        client.awaits_writable = true;
    }

    /// Sends CONNECT when all below is established.
    pub(super) fn go_on_establishing(&mut self, local: usize) -> Result<(), ConnectionError> {
        let plan = self.context.plan.clone();
        let client = &mut self.clients[local];
        let Some(connection) = &mut client.connection else {
            return Ok(());
        };
        let closed = |error: std::io::Error| ConnectionError::Closed(error.to_string());
        if !connection.transport().is_connected().map_err(closed)? {
            return Ok(());
        }
        if !connection.transport().is_established().map_err(closed)? {
            return Ok(());
        }
        let settings = &plan.settings;
        let group = &plan.groups[client.group as usize];
        let number = group.first_client + client.index;
        let client_id = format!("{}-{}-{number}", settings.client_id_prefix, plan.run);
        let keep_alive_s = match group.spec.reading {
            Reading::Fast => settings.keep_alive_s,
            Reading::Stalled | Reading::Slow(_) => 0,
        };
        let connect = codec::Connect {
            client_id: &client_id,
            protocol: settings.protocol,
            is_clean: group.spec.is_clean,
            keep_alive_s,
            user: settings.user.as_deref(),
            password: settings.password.as_deref(),
        };
        codec::connect(&connect, connection.outgoing());
        client.stage = Stage::Connecting;
        self.mark_dirty(local);
        Ok(())
    }

    /// Takes CONNACK.
    pub(super) fn connected(
        &mut self,
        local: usize,
        connack: Connack,
    ) -> Result<(), ConnectionError> {
        if connack.code != 0 {
            let why = format!("the broker refused with code {}", connack.code);
            return Err(ConnectionError::Refused(why));
        }
        let now = self.context.control.now_ns();
        let client = &mut self.clients[local];
        let measure = if client.is_returning {
            Measure::Reconnect
        } else {
            Measure::Connect
        };
        self.context
            .meters
            .record(measure, now.saturating_sub(client.began_ns));
        self.context.meters.counts.connected += 1;
        client.failures = 0;
        self.equip(local, connack);
        let is_returning = self.clients[local].is_returning;
        // Whoever comes back to a session that stays has its subscription there, or has lost it.
        let subscribes_now = self.clients[local]
            .subscribing
            .as_ref()
            .is_some_and(|s| !(s.is_late || s.is_away && is_returning));
        if subscribes_now {
            self.subscribe(local);
        } else {
            self.become_ready(local);
        }
        Ok(())
    }

    /// Gives a client what it needs to publish and subscribe; once, whatever happens later.
    fn equip(&mut self, local: usize, connack: Connack) {
        let plan = self.context.plan.clone();
        let client = &mut self.clients[local];
        let group = &plan.groups[client.group as usize];
        if group.spec.publish.is_some() {
            let number = group.first_publisher + client.index;
            let first_stream = plan.publishers[number as usize].first_stream;
            let publishing = client
                .publishing
                .get_or_insert_with(|| Box::new(Publishing::new(number, first_stream)));
            publishing.inflight_max = connack.receive_maximum.min(plan.settings.inflight_max);
            publishing.alias_max = connack.topic_alias_max;
            let spec = group.spec.publish.as_ref().filter(|spec| spec.is_aliased);
            if spec.is_some_and(|spec| spec.topics > u32::from(connack.topic_alias_max)) {
                let lacks = &self.context.control.lacks_aliases;
                lacks.store(true, Ordering::Relaxed);
            }
        }
        let Some(subscribe) = &group.spec.subscribe else {
            return;
        };
        if client.subscribing.is_some() {
            return;
        }
        let sources = group.sources(client.index);
        let share = plan.share_group(client.group as usize, client.index);
        let (mut trackers, mut order) = (Vec::new(), Vec::new());
        if share.is_none() {
            trackers = vec![Tracker::default(); sources.len()];
        } else if self.connecting.order_entries + sources.len() <= ORDER_ENTRIES_MAX {
            self.connecting.order_entries += sources.len();
            order = vec![0; sources.len()];
        }
        client.subscribing = Some(Box::new(Subscribing {
            sources,
            qos: subscribe.qos,
            share,
            is_late: subscribe.is_late,
            is_away: group.spec.is_away,
            is_owed: group.is_owed(),
            trackers,
            order,
            replayed: 0,
        }));
    }

    /// Sends SUBSCRIBE.
    pub(super) fn subscribe(&mut self, local: usize) {
        let plan = self.context.plan.clone();
        let now = self.context.control.now_ns();
        let client = &mut self.clients[local];
        let group = &plan.groups[client.group as usize];
        let filters = plan.wire_filters(group, client.index);
        let (Some(connection), Some(subscribe)) = (&mut client.connection, &group.spec.subscribe)
        else {
            return;
        };
        let texts = filters.iter().map(String::as_str);
        let protocol = plan.settings.protocol;
        codec::subscribe(texts, subscribe.qos, protocol, connection.outgoing());
        client.subscribed_ns = now;
        client.stage = Stage::Subscribing;
        self.mark_dirty(local);
    }

    /// Takes SUBACK.
    pub(super) fn subscribed(&mut self, local: usize, code: u8) -> Result<(), ConnectionError> {
        if code >= 0x80 {
            let why = format!("the broker refused the subscription with code 0x{code:02X}");
            return Err(ConnectionError::Refused(why));
        }
        let client = &mut self.clients[local];
        if client.stage != Stage::Subscribing {
            return Ok(());
        }
        let latency = self
            .context
            .control
            .now_ns()
            .saturating_sub(client.subscribed_ns);
        self.context.meters.record(Measure::Subscribe, latency);
        if client.subscribing.as_ref().is_some_and(|s| s.is_late) {
            client.stage = Stage::Ready;
        } else {
            self.become_ready(local);
        }
        Ok(())
    }

    fn become_ready(&mut self, local: usize) {
        let client = &mut self.clients[local];
        client.stage = Stage::Ready;
        self.connecting.in_setup -= 1;
        self.connecting.ready += 1;
        if client.is_returning {
            client.is_returning = false;
            self.connecting.away -= 1;
        }
        self.context.progress += 1;
        if self.context.phase == Phase::Publish {
            self.publish(local);
        }
    }

    /// What happens to a client whose connection failed: retried, counted, or the end of the run.
    pub(super) fn fail_client(&mut self, local: usize, why: &ConnectionError) {
        let plan = self.context.plan.clone();
        let client = &mut self.clients[local];
        let group = &plan.groups[client.group as usize];
        let was = client.stage;
        client.connection = None;
        client.stage = Stage::Gone;
        client.is_dirty = false;
        client.awaits_writable = false;
        let counts = &mut self.context.meters.counts;
        if matches!(
            was,
            Stage::Establishing | Stage::Connecting | Stage::Subscribing
        ) {
            self.connecting.in_setup -= 1;
            counts.connect_failures += 1;
        } else {
            self.connecting.ready -= 1;
            counts.disconnected += 1;
        }
        if client.is_returning {
            let pause = RETRY_NS << client.failures.min(8);
            client.failures += 1;
            client.stage = Stage::Idle;
            let due = self.context.control.now_ns() + pause.min(RETRY_NS_MAX);
            self.connecting.retries.push(Reverse((due, local)));
            return;
        }
        // A broker that is restarted takes the publishers' connections with it; they have done their part.
        let is_restart = plan.settings.command.is_some() && self.context.phase > Phase::Publish;
        let is_tolerated =
            plan.settings.tolerates_failures || group.spec.reading != Reading::Fast || is_restart;
        if is_tolerated {
            self.connecting.failed += 1;
            return;
        }
        let target = &plan.settings.target;
        let number = group.first_client + client.index;
        self.context.control.fail(match was {
            Stage::Establishing => format!("cannot connect to {}: {why}", target.text),
            _ => format!(
                "client {number} ({}) at {}: {why}",
                group.spec.name, target.text
            ),
        });
    }

    /// Drops all stormy clients when the storm begins, and lets them come back at once.
    pub(super) fn follow_storm(&mut self) {
        if !self.context.control.storm.load(Ordering::Acquire) {
            return;
        }
        if !self.connecting.has_stormed {
            self.begin_storm();
        }
        self.context.is_storming = self.context.control.sum(|g| &g.away) > 0;
    }

    fn begin_storm(&mut self) {
        self.connecting.has_stormed = true;
        self.connecting.in_setup_max = usize::MAX;
        let now = self.context.control.now_ns();
        let plan = self.context.plan.clone();
        for local in 0..self.clients.len() {
            let client = &self.clients[local];
            let is_stormy = plan.groups[client.group as usize].spec.is_stormy;
            if is_stormy && client.stage == Stage::Ready {
                self.drop_client(local);
                self.clients[local].began_ns = now;
                self.connecting.retries.push(Reverse((now, local)));
            }
        }
        self.tell_away();
    }

    /// Ends the connection of a client that will come back.
    fn drop_client(&mut self, local: usize) {
        let client = &mut self.clients[local];
        client.connection = None;
        client.stage = Stage::Idle;
        client.is_dirty = false;
        client.awaits_writable = false;
        client.is_returning = true;
        client.failures = 0;
        self.connecting.ready -= 1;
        self.connecting.away += 1;
    }

    fn tell_away(&self) {
        let gauges = &self.context.control.gauges[self.number as usize];
        gauges.away.store(self.connecting.away, Ordering::Relaxed);
    }

    fn is_away(&self, local: usize) -> bool {
        let group = self.clients[local].group as usize;
        self.context.plan.groups[group].spec.is_away
    }

    /// Those who leave say so, and go.
    pub(super) fn follow_leave(&mut self) {
        let is_time = self.context.control.leave.load(Ordering::Acquire);
        if !is_time || self.connecting.has_left {
            return;
        }
        self.connecting.has_left = true;
        for local in 0..self.clients.len() {
            if !self.is_away(local) || self.clients[local].stage != Stage::Ready {
                continue;
            }
            if let Some(connection) = &mut self.clients[local].connection {
                connection.outgoing().extend_from_slice(&codec::DISCONNECT);
                // Gone either way: a session that stays is there for this.
                let _ = connection.flush();
            }
            self.drop_client(local);
        }
        self.tell_away();
    }

    /// Those whose turn it is say goodbye when nothing of theirs is on its way, and come back at once.
    pub(super) fn reconnect_due(&mut self) {
        if self.context.phase != Phase::Publish {
            self.connecting.leaving.clear();
            return;
        }
        let now = self.context.control.now_ns();
        let end_ns = self.publishing_end_ns();
        let mut leaving = std::mem::take(&mut self.connecting.leaving);
        for schedule in &mut self.reconnects {
            while let Some(offset) = schedule.next_ns()
                && self.start_ns + offset <= now.min(end_ns)
            {
                let index = schedule.take();
                let first = self.first_local[schedule.group as usize];
                leaving.push(first + (index / self.workers) as usize);
            }
        }
        let start_ns = self.start_ns;
        self.reconnects
            .retain(|s| s.next_ns().is_some_and(|ns| start_ns + ns < end_ns));
        leaving.retain(|local| !self.reconnect(*local, now));
        self.connecting.leaving = leaving;
    }

    /// Whether the client's turn is over: it left now, or is away already.
    fn reconnect(&mut self, local: usize, now: u64) -> bool {
        let client = &mut self.clients[local];
        let Some(connection) = &mut client.connection else {
            return true;
        };
        if client.stage != Stage::Ready {
            return true;
        }
        let publishing = client.publishing.as_ref();
        if publishing.is_some_and(|p| !p.is_acknowledged()) || connection.backlog() > 0 {
            return false;
        }
        connection.outgoing().extend_from_slice(&codec::DISCONNECT);
        // Gone either way.
        let _ = connection.flush();
        self.drop_client(local);
        self.clients[local].began_ns = now;
        self.connecting.retries.push(Reverse((now, local)));
        true
    }

    /// Those who left come back.
    pub(super) fn come_back(&mut self) {
        let now = self.context.control.now_ns();
        for local in 0..self.clients.len() {
            if self.is_away(local) && self.clients[local].is_returning {
                let client = &mut self.clients[local];
                client.began_ns = now;
                client.subscribed_ns = now;
                self.connecting.retries.push(Reverse((now, local)));
            }
        }
    }
}
