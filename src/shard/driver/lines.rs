//! Bridges' connections: which sockets they are, when their keep alive is looked at, and what they tell.

use super::Shell;
use super::inquire::messages_waiting;
use super::sockets::State;
use crate::engine::access::{Admitted, Identity};
use crate::engine::bridge;
use crate::engine::bridge::line::{End, Line, LineCounts, News, Purpose};
use crate::engine::bridge::plan::Plan;
use crate::engine::shard::sight::Sight;
use crate::engine::time::Timestamp;
use crate::shard::bridge::{LossBy, NewLine, SessionLoss};
use crate::shard::handover::Origin;
use crate::shard::link::Link;
use crate::shard::orders::Event;
use crate::shard::report::Waiting;
use crate::shard::ring::{Ring, SocketKey};
use crate::shard::transport::{Layers, TransportError};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How often a line that loses messages tells so by itself; what comes meanwhile is told with statistics.
const LOSSES_MS: u64 = 1_000;

/// One of them.
#[derive(Debug)]
struct Entry {
    socket: SocketKey,
    number: u64,
    /// When half its keep alive is over; never if it has none.
    tick_at: Timestamp,
    /// When it is looked whether something has passed, and how much had before.
    idle: Option<(Timestamp, u64)>,
    /// Until then losses are told with all else that is counted.
    losses_at: Timestamp,
    /// When what it has shown has to be renewed.
    lasts_until: Timestamp,
    /// Kept open as long as the line.
    _far_end: Option<OwnedFd>,
}

impl Entry {
    fn is_due(&self, now: Timestamp) -> bool {
        self.tick_at <= now || self.lasts_until <= now || self.idle.is_some_and(|(at, _)| at <= now)
    }

    /// Looks at the line's keep alive, and whether it is idle, where it is time.
    fn tick(&mut self, now: Timestamp, line: &mut Line) {
        if self.tick_at <= now {
            line.tick();
            self.tick_at = next_tick(now, line);
        }
        if self.lasts_until <= now {
            self.lasts_until = Timestamp::NEVER;
            line.end_in_time();
        }
        if let (Some((at, before)), Some(ms)) = (self.idle, line.plan().idle_ms)
            && at <= now
        {
            let passed = line.passed();
            self.idle = Some((now.plus_ms(ms), passed));
            if passed == before {
                line.end_idle();
            }
        }
    }
}

/// All of a shard's.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_slot: BTreeMap<usize, Entry>,
    /// Those through which something went in this turn.
    touched: Vec<SocketKey>,
    /// Client identifiers of bridges' sessions that are here, or were, with the numbers of their last lines.
    sessions: BTreeMap<Box<str>, u64>,
    /// What went through all that ever were, as far as they have told.
    pub counts: LineCounts,
}

impl Lines {
    fn entry(&mut self, socket: SocketKey) -> Option<&mut Entry> {
        let entry = self.by_slot.get_mut(&socket.slot());
        entry.filter(|entry| entry.socket == socket)
    }

    /// Something went through a connection with layers: if it is one of these, it is asked for news.
    pub fn touch(&mut self, socket: SocketKey) {
        if !self.by_slot.is_empty() && self.touched.last() != Some(&socket) {
            self.touched.push(socket);
        }
    }

    /// When the next keep alive is to be looked at.
    pub fn ticks_at(&self) -> Option<Timestamp> {
        let due_at = |entry: &Entry| {
            let idle_at = entry.idle.map_or(Timestamp::NEVER, |(at, _)| at);
            entry.tick_at.min(idle_at).min(entry.lasts_until)
        };
        let next = self.by_slot.values().map(due_at).min();
        next.filter(|at| *at != Timestamp::NEVER)
    }
}

fn next_tick(now: Timestamp, line: &Line) -> Timestamp {
    match line.tick_ms() {
        0 => Timestamp::NEVER,
        ms => now.plus_ms(ms),
    }
}

fn admitted(plan: &Plan) -> Box<Admitted> {
    Box::new(Admitted {
        identity: Identity {
            user_name: Some(plan.local_user.clone()),
            method: "bridge",
            ..Identity::default()
        },
        queue: plan.queue,
        part: plan.part,
        ..Admitted::default()
    })
}

impl Shell {
    /// Takes over a bridge's connection.
    pub(super) fn open_line(&mut self, ring: &mut Ring, new: NewLine) {
        let now = self.clock.now();
        let purpose = match new.protocol {
            Some(protocol) => Purpose::Carry(protocol),
            None => Purpose::Prepare(self.stale_filters(&new.plan)),
        };
        if self.is_anothers(&new.plan) {
            self.tell_lost(&new.plan.session_id, LossBy::User);
        }
        let session_id = new.plan.session_id.clone();
        self.lines.sessions.insert(session_id, new.number);
        let line = Line::new(new.plan, purpose);
        let tick_at = next_tick(now, &line);
        let idle = line.plan().idle_ms.map(|ms| (now.plus_ms(ms), 0));
        let lasts_ms = line.plan().lasts_ms;
        let lasts_until = lasts_ms.map_or(Timestamp::NEVER, |ms| now.plus_ms(ms));
        let admitted = admitted(line.plan());
        let link = match Layers::outgoing(line, new.peer, new.tls.as_ref(), new.url.as_deref()) {
            Ok(layers) => Link::new(layers),
            Err(error) => return self.tell_unbegun(new.number, &error),
        };
        let connection = self.core.begin_line(now, admitted);
        let socket = ring.adopt(new.descriptor);
        let origin = Origin {
            listener: bridge::LISTENER,
            peer: new.peer,
            counted: None,
            is_among: false,
        };
        self.sockets.insert(socket, connection, origin, Some(link));
        let entry = Entry {
            socket,
            number: new.number,
            tick_at,
            idle,
            losses_at: now,
            lasts_until,
            _far_end: new.far_end,
        };
        self.lines.by_slot.insert(socket.slot(), entry);
        self.empty_inbox(ring, socket);
    }

    /// Its session is about to end: the other broker is to forget it too, if the line is up, and what waits
    /// is told of.
    pub(super) fn end_bridge(&mut self, client_id: &str) {
        self.tell_lost(client_id, LossBy::Removal);
        let line = self.socket_of_line(client_id);
        if let Some(line) = line.and_then(|socket| self.sockets.line(socket)) {
            line.leave_for_good();
        }
    }

    /// Has a bridge's line ask again for what it was not granted here; whether there is one.
    pub(super) fn ask_again(&mut self, client_id: &str) -> bool {
        let Some(socket) = self.socket_of_line(client_id) else {
            return false;
        };
        if let Some(line) = self.sockets.line(socket) {
            line.ask_again();
        }
        self.push_line(socket);
        true
    }

    /// Where the last line of a bridge is.
    fn socket_of_line(&self, client_id: &str) -> Option<SocketKey> {
        let number = self.lines.sessions.get(client_id)?;
        let mut entries = self.lines.by_slot.values();
        let entry = entries.find(|entry| entry.number == *number);
        entry.map(|entry| entry.socket)
    }

    /// A line has something to say by itself.
    fn push_line(&mut self, socket: SocketKey) {
        if let Some(link) = self.sockets.link(socket)
            && !std::mem::replace(&mut link.is_queued, true)
        {
            self.handshakes.push(socket);
        }
    }

    /// What there is to see of a bridge's session.
    fn see_session(&self, client_id: &str) -> Option<Sight<'_>> {
        self.core.see(self.core.session_of(client_id)?)
    }

    /// Messages that wait in a bridge's session, or are not acknowledged.
    fn owed(&self, client_id: &str) -> u64 {
        let sight = self.see_session(client_id);
        sight.as_ref().map_or(0, messages_waiting)
    }

    /// Whether the session of a bridge is of another user than it has now, to whom nothing of it is given.
    fn is_anothers(&self, plan: &Plan) -> bool {
        let sight = self.see_session(&plan.session_id);
        let user = sight.and_then(|sight| sight.session.holder.as_ref()?.user_name.as_deref());
        user.is_some_and(|user| *user != *plan.local_user)
    }

    /// What waits for a bridge is about to be dropped with its session.
    fn tell_lost(&self, client_id: &str, by: LossBy) {
        let messages = self.owed(client_id);
        if messages > 0 {
            let client_id = client_id.into();
            let loss = SessionLoss {
                client_id,
                messages,
                by,
            };
            self.orders.tell(|_| Event::BridgeLoss(loss));
        }
    }

    fn tell_unbegun(&self, number: u64, error: &TransportError) {
        let news = News::Ended(End::before_line(error.to_string()));
        self.orders.tell(|shard| Event::Line(shard, number, news));
    }

    /// Filters of a bridge's session that no rule has any more.
    fn stale_filters(&self, plan: &Plan) -> Vec<String> {
        let Some(session) = self.core.session_of(&plan.session_id) else {
            return Vec::new();
        };
        let rules = plan.topics.iter().filter(|rule| rule.direction.goes_out());
        let wanted: Vec<_> = rules.map(|rule| rule.local_filter()).collect();
        let there = (0..).map_while(|place| self.core.subscribed(session, place));
        let there = there.map(|subscribed| subscribed.filter);
        there.filter(|filter| !wanted.contains(filter)).collect()
    }

    /// Has lines look at their keep alive, where it is time.
    pub(super) fn tick_lines(&mut self) {
        let now = self.clock.now();
        if self.lines.ticks_at().is_none_or(|at| at > now) {
            return;
        }
        for entry in self
            .lines
            .by_slot
            .values_mut()
            .filter(|entry| entry.is_due(now))
        {
            let Some(link) = self.sockets.link(entry.socket) else {
                continue;
            };
            if let Some(line) = link.layers.line() {
                entry.tick(now, line);
            }
            if !std::mem::replace(&mut link.is_queued, true) {
                self.handshakes.push(entry.socket);
            }
        }
    }

    /// A bridge is told that something waits for it, if it wants to know.
    fn tell_wanted(&self, client_id: &str) {
        if let Some(number) = self.lines.sessions.get(client_id).copied() {
            let news = News::Wanted;
            self.orders.tell(|shard| Event::Line(shard, number, news));
        }
    }

    /// Tells what lines have to tell, at the end of a turn.
    pub(super) fn tell_lines(&mut self) {
        for client_id in self.core.take_wanted() {
            self.tell_wanted(&client_id);
        }
        while let Some(socket) = self.lines.touched.pop() {
            self.tell_line(socket);
        }
    }

    /// Has all lines tell what went through them.
    pub(super) fn count_lines(&mut self) {
        let sockets = self.lines.by_slot.values().map(|entry| entry.socket);
        for socket in sockets.collect::<Vec<_>>() {
            self.count_line(socket);
        }
    }

    /// What waits for each bridge, whether its line is up or not.
    pub(super) fn bridges_wait(&mut self) -> Vec<Waiting> {
        let now = self.clock.now();
        let core = &self.core;
        let mut waits = Vec::new();
        self.lines.sessions.retain(|client_id, _| {
            let session = core.session_of(client_id).and_then(|key| core.see(key));
            let Some(session) = session.map(|sight| sight.session) else {
                return false;
            };
            waits.push(Waiting {
                client_id: client_id.clone(),
                messages: session.outbound.queued() as u64,
                bytes: session.outbound.queue_bytes() as u64,
                oldest_ms: session.outbound.waits_ms(now),
                in_flight: session.outbound.unacknowledged().into(),
                dropped: session.lost_messages,
            });
            true
        });
        waits
    }

    fn count_line(&mut self, socket: SocketKey) {
        let line = self.sockets.line(socket);
        let counts = line.map(Line::take_counts).unwrap_or_default();
        if counts != LineCounts::default()
            && let Some(entry) = self.lines.entry(socket)
        {
            let number = entry.number;
            self.lines.counts.add(&counts);
            let news = News::Counts(counts);
            self.orders.tell(|shard| Event::Line(shard, number, news));
        }
    }

    fn tell_line(&mut self, socket: SocketKey) {
        let now = self.clock.now();
        let Some(entry) = self.lines.entry(socket) else {
            return;
        };
        let Some(line) = self.sockets.line(socket) else {
            return;
        };
        let news = line.take_news();
        if !news.is_empty() {
            entry.tick_at = next_tick(now, line);
        }
        let number = entry.number;
        let tells_losses = line.has_lost() && entry.losses_at <= now;
        for news in news {
            self.orders.tell(|shard| Event::Line(shard, number, news));
        }
        if tells_losses {
            entry.losses_at = now.plus_ms(LOSSES_MS);
            self.count_line(socket);
        }
    }

    /// A line's connection ends, in these words.
    pub(super) fn note_line_end(&mut self, socket: SocketKey, how: &str) {
        if let Some(line) = self.open_line_of(socket) {
            line.note_end(how);
        }
    }

    /// What is under MQTT has failed.
    pub(super) fn note_layer_failure(&mut self, socket: SocketKey, how: &str) {
        if let Some(line) = self.open_line_of(socket) {
            line.note_failure(how);
        }
    }

    fn open_line_of(&mut self, socket: SocketKey) -> Option<&mut Line> {
        let entry = self.sockets.entry(socket)?;
        let State::Open(_) = entry.state else {
            return None;
        };
        entry.under.as_mut()?.link.layers.line()
    }

    /// A line's connection fails by an error of the system.
    pub(super) fn note_line_failure(&mut self, socket: SocketKey, error: i32) {
        let how = match Errno::from_raw_os_error(error) {
            Errno::CONNRESET | Errno::PIPE => "it resets the connection".to_owned(),
            Errno::TIMEDOUT => "it does not answer any more".to_owned(),
            other => format!("the connection fails ({other})"),
        };
        self.note_line_end(socket, &how);
    }

    /// A socket is gone: if it was a line's, whoever looks after bridges hears why.
    pub(super) fn end_line(&mut self, socket: SocketKey) {
        if self.lines.entry(socket).is_none() {
            return;
        }
        let mut lazy = None;
        if let Some(line) = self.sockets.line(socket) {
            line.note_end("the connection is closed");
            lazy = Some(Arc::clone(line.plan())).filter(|plan| plan.idle_ms.is_some());
        }
        self.count_line(socket);
        self.tell_line(socket);
        if let Some(plan) = lazy.filter(|plan| self.owed(&plan.session_id) > 0) {
            self.tell_wanted(&plan.session_id);
        }
        self.lines.by_slot.remove(&socket.slot());
    }
}
