//! Bridges' connections: which sockets they are, when their keep alive is looked at, and what they tell.

use super::Shell;
use super::sockets::State;
use crate::engine::access::{Admitted, Identity};
use crate::engine::bridge;
use crate::engine::bridge::line::{End, Line, LineCounts, News, Purpose};
use crate::engine::bridge::plan::Plan;
use crate::engine::time::Timestamp;
use crate::shard::bridge::NewLine;
use crate::shard::handover::Origin;
use crate::shard::link::Link;
use crate::shard::orders::Event;
use crate::shard::report::Waiting;
use crate::shard::ring::{Ring, SocketKey};
use crate::shard::transport::{Layers, TransportError};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

/// One of them.
#[derive(Debug)]
struct Entry {
    socket: SocketKey,
    number: u64,
    /// When half its keep alive is over; never if it has none.
    tick_at: Timestamp,
    /// Kept open as long as the line.
    _far_end: Option<OwnedFd>,
}

/// All of a shard's.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_slot: BTreeMap<usize, Entry>,
    /// Those through which something went in this turn.
    touched: Vec<SocketKey>,
    /// Client identifiers of bridges' sessions that are here, or were.
    sessions: BTreeSet<Box<str>>,
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
        let next = self.by_slot.values().map(|entry| entry.tick_at).min();
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
        self.lines.sessions.insert(new.plan.session_id.clone());
        let line = Line::new(new.plan, purpose);
        let tick_at = next_tick(now, &line);
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
        };
        self.sockets.insert(socket, connection, origin, Some(link));
        let entry = Entry {
            socket,
            number: new.number,
            tick_at,
            _far_end: new.far_end,
        };
        self.lines.by_slot.insert(socket.slot(), entry);
        self.empty_inbox(ring, socket);
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
            .filter(|entry| entry.tick_at <= now)
        {
            entry.tick_at = Timestamp::NEVER;
            let Some(link) = self.sockets.link(entry.socket) else {
                continue;
            };
            if let Some(line) = link.layers.line() {
                line.tick();
                entry.tick_at = next_tick(now, line);
            }
            if !std::mem::replace(&mut link.is_queued, true) {
                self.handshakes.push(entry.socket);
            }
        }
    }

    /// Tells what lines have to tell, at the end of a turn.
    pub(super) fn tell_lines(&mut self) {
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
        self.lines.sessions.retain(|client_id| {
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
        for news in news {
            self.orders.tell(|shard| Event::Line(shard, number, news));
        }
    }

    /// A line's connection ends, in these words.
    pub(super) fn note_line_end(&mut self, socket: SocketKey, how: &str) {
        if let Some(entry) = self.sockets.entry(socket)
            && let State::Open(_) = entry.state
            && let Some(under) = &mut entry.under
            && let Some(line) = under.link.layers.line()
        {
            line.note_end(how);
        }
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
        if let Some(line) = self.sockets.line(socket) {
            line.note_end("the connection is closed");
        }
        self.count_line(socket);
        self.tell_line(socket);
        self.lines.by_slot.remove(&socket.slot());
    }
}
