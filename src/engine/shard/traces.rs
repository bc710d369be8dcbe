//! Packets that operators follow: a line for each, for the shell to take.
//!
//! Where nobody follows anything, a packet that comes and a batch that leaves pay one look at whether
//! somebody does. Who follows a topic has all packets of this shard looked at: that takes time, but no
//! memory, for lines that find no room are left out and counted.
//!
//! Not told: a stream that begins with no packet (its end is), and what the layers under MQTT say.

use super::ShardCore;
use super::clients::Clients;
use crate::engine::codec::frame::Frame;
use crate::engine::keys::ConnectionKey;
use crate::engine::outbox::outgoing::Outgoing;
use crate::engine::session::connection::Connection;
use crate::engine::trace::batch::packets;
use crate::engine::trace::seen::Seen;
use crate::engine::trace::{Trace, Traced};
use std::collections::BTreeMap;

/// Lines that wait for the shell.
const LINES_MAX: usize = 1_024;
/// Connections that are not let in and of which it is known who they say to be.
const NAMES_MAX: usize = 1_024;

/// What is followed.
#[derive(Default)]
pub(super) struct Traces {
    running: Vec<Trace>,
    /// Client identifiers that connections say and have not got so far.
    names: BTreeMap<ConnectionKey, Box<str>>,
    lines: Vec<Traced>,
    /// Lines that found no room, by trace.
    left_out: BTreeMap<u64, u64>,
}

impl Traces {
    /// Whether anything is followed.
    #[inline]
    pub const fn is_on(&self) -> bool {
        !self.running.is_empty()
    }

    /// Tells a packet to who follows it.
    fn tell(
        &mut self,
        key: ConnectionKey,
        (connection, client_id): (&Connection, Option<&str>),
        seen: &Seen<'_>,
    ) {
        let topic = seen.publish().and_then(|publish| match publish.topic {
            "" => connection.topic_of(publish.alias?, seen.is_from_client),
            topic => Some(topic),
        });
        for trace in &self.running {
            if !trace
                .followed
                .includes(client_id, connection.network, topic)
            {
                continue;
            }
            if self.lines.len() >= LINES_MAX {
                *self.left_out.entry(trace.number).or_default() += 1;
                continue;
            }
            self.lines.push(Traced {
                trace: trace.number,
                connection: key,
                client_id: client_id.map(str::to_owned),
                is_from_client: seen.is_from_client,
                line: seen.line(topic, trace.payload_bytes_max),
            });
        }
    }
}

impl ShardCore {
    /// Follows something from now on.
    pub fn begin_trace(&mut self, trace: Trace) {
        self.traces.running.push(trace);
    }

    /// Does not follow it any more.
    pub fn end_trace(&mut self, number: u64) {
        let traces = &mut self.traces;
        traces.running.retain(|trace| trace.number != number);
        if !traces.is_on() {
            *traces = Traces::default();
        }
    }

    /// What was seen since the last call.
    pub fn take_traced(&mut self, into: &mut Vec<Traced>) {
        into.append(&mut self.traces.lines);
    }

    /// Lines that found no room since the last call, by trace.
    pub fn take_lines_left_out(&mut self) -> BTreeMap<u64, u64> {
        std::mem::take(&mut self.traces.left_out)
    }

    /// Counts lines that found no room.
    pub fn note_lines_left_out(&mut self, count: u64) {
        self.clients.counters.trace_lines_left_out += count;
    }

    /// A packet of a client that was let in.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_received(&mut self, key: ConnectionKey, frame: Frame<'_>, bytes: usize) {
        let Some(connection) = self.clients.connections.get(key) else {
            return;
        };
        let seen = Seen::from_client(frame, bytes, connection.version);
        let name = client_id(&self.clients, connection);
        self.traces.tell(key, (connection, name), &seen);
    }

    /// A packet of one that is not. A CONNECT is looked at again when it is known who has sent it, and where
    /// its home is.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_early(&mut self, key: ConnectionKey, frame: Frame<'_>, bytes: usize) {
        let Some(connection) = self.clients.connections.get(key) else {
            return;
        };
        let seen = Seen::from_client(frame, bytes, connection.version);
        let said = seen.client_id();
        if let Some(said) = said {
            let connections = &self.clients.connections;
            let names = &mut self.traces.names;
            if names.len() >= NAMES_MAX {
                let is_early = |key| connections.get(key).is_some_and(|it| it.session.is_none());
                names.retain(|key, _| is_early(*key));
            }
            if names.len() < NAMES_MAX {
                names.insert(key, said.into());
            }
        }
        if seen.is_connect() && (connection.is_adopted || connection.is_identified) {
            return;
        }
        let known = self.traces.names.get(&key).cloned();
        let name = said.or(known.as_deref());
        self.traces.tell(key, (connection, name), &seen);
    }

    /// What waits for a connection and leaves.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_outgoing(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.clients.connections.get(key) {
            let client_id = client_id(&self.clients, connection);
            let batch = connection.outbox.pending();
            trace_sent(&mut self.traces, key, (connection, client_id), batch);
        }
    }

    /// The same, for one that is being closed.
    pub(super) fn trace_rest(&mut self, key: ConnectionKey) {
        self.trace_outgoing(key);
        self.traces.names.remove(&key);
    }
}

/// Whose connection it is, once it is let in.
fn client_id<'a>(clients: &'a Clients, connection: &Connection) -> Option<&'a str> {
    let session = clients.sessions.get(connection.session?)?;
    Some(&session.client_id)
}

/// Tells the packets of a batch.
fn trace_sent(
    traces: &mut Traces,
    key: ConnectionKey,
    (connection, client_id): (&Connection, Option<&str>),
    batch: &Outgoing,
) {
    let said = match client_id {
        Some(_) => None,
        None => traces.names.get(&key).cloned(),
    };
    let client_id = client_id.or(said.as_deref());
    packets(batch, |piece| {
        let seen = Seen {
            first_byte: piece.first_byte,
            body: piece.body,
            beyond: piece.beyond,
            bytes: piece.bytes,
            version: connection.version,
            is_from_client: false,
        };
        traces.tell(key, (connection, client_id), &seen);
    });
}
