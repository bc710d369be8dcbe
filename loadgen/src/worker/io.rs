//! Readable and writable sockets.

use super::client::{Client, Stage};
use super::{SLOW_TICK_NS, TIMER, WAKER, Worker};
use crate::codec::{Connack, Packet};
use crate::connection::{Connection, ConnectionError};
use crate::plan::Reading;
use mio::Events;

/// A packet that changes the client's stage.
enum Step {
    Connected(Connack),
    Subscribed(u8),
}

impl Worker {
    pub(super) fn handle_events(&mut self, events: &Events) {
        for event in events {
            let token = event.token();
            if token == WAKER || token == TIMER {
                continue;
            }
            let local = token.0;
            if event.is_writable() {
                self.clients[local].awaits_writable = false;
            }
            if self.clients[local].stage == Stage::Establishing {
                self.handled(local, Worker::go_on_establishing);
                continue;
            }
            if event.is_writable() {
                self.handled(local, Worker::flush);
                self.publish(local);
            }
            if event.is_readable() && self.reads_at_once(local) {
                self.handled(local, |worker, local| worker.read(local, usize::MAX));
            }
        }
    }

    fn reads_at_once(&self, local: usize) -> bool {
        let client = &self.clients[local];
        let reading = self.context.plan.groups[client.group as usize].spec.reading;
        reading == Reading::Fast || client.stage != Stage::Ready
    }

    fn handled(
        &mut self,
        local: usize,
        step: impl FnOnce(&mut Self, usize) -> Result<(), ConnectionError>,
    ) {
        if let Err(why) = step(self, local) {
            self.fail_client(local, &why);
        }
    }

    pub(super) fn read_again(&mut self) {
        for local in std::mem::take(&mut self.again) {
            self.handled(local, |worker, local| worker.read(local, usize::MAX));
        }
    }

    pub(super) fn read_slow(&mut self) {
        let now = self.context.control.now_ns();
        if self.slow.is_empty() || now < self.next_slow_ns {
            return;
        }
        self.next_slow_ns = now + SLOW_TICK_NS;
        for local in self.slow.clone() {
            let client = &self.clients[local];
            let reading = self.context.plan.groups[client.group as usize].spec.reading;
            if let Reading::Slow(per_second) = reading {
                let ticks = 1_000_000_000 / SLOW_TICK_NS;
                let bytes_max = (u64::from(per_second) / ticks).max(1) as usize;
                self.handled(local, |worker, local| worker.read(local, bytes_max));
            }
        }
    }

    fn read(&mut self, local: usize, bytes_max: usize) -> Result<(), ConnectionError> {
        let Some(mut connection) = self.clients[local].connection.take() else {
            return Ok(());
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut steps = Vec::new();
        let result = self.read_packets(local, &mut connection, &mut scratch, bytes_max, &mut steps);
        self.scratch = scratch;
        self.clients[local].connection = Some(connection);
        // A refusal says more than the close that follows it.
        for step in steps {
            match step {
                Step::Connected(connack) => self.connected(local, connack)?,
                Step::Subscribed(code) => self.subscribed(local, code)?,
            }
        }
        self.mark_dirty(local);
        result
    }

    fn read_packets(
        &mut self,
        local: usize,
        connection: &mut Connection,
        scratch: &mut [u8],
        bytes_max: usize,
        steps: &mut Vec<Step>,
    ) -> Result<(), ConnectionError> {
        let protocol = self.context.plan.settings.protocol;
        let context = &mut self.context;
        let client = &mut self.clients[local];
        let now_ns = context.control.now_ns();
        let progress = connection.read(protocol, scratch, bytes_max, |packet, out| {
            handle(client, packet, now_ns, context, steps, out)
        })?;
        self.context.meters.counts.received_wire_bytes += progress.bytes as u64;
        if progress.has_more && bytes_max == usize::MAX {
            self.again.push(local);
        }
        Ok(())
    }

    pub(super) fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for local in dirty.drain(..) {
            if std::mem::take(&mut self.clients[local].is_dirty) {
                self.handled(local, Worker::flush);
            }
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    fn flush(&mut self, local: usize) -> Result<(), ConnectionError> {
        let client = &mut self.clients[local];
        let Some(connection) = &mut client.connection else {
            return Ok(());
        };
        let written = connection.flush()?;
        client.awaits_writable = connection.wants_write();
        self.context.meters.counts.sent_wire_bytes += written as u64;
        // A publisher that waited for room in the buffer has it now.
        if written > 0
            && let Some(publishing) = &client.publishing
        {
            self.context.unblocked.push(publishing.publisher);
        }
        Ok(())
    }
}

fn handle(
    client: &mut Client,
    packet: Packet<'_>,
    now_ns: u64,
    context: &mut super::Context,
    steps: &mut Vec<Step>,
    out: &mut Vec<u8>,
) -> Result<(), ConnectionError> {
    match packet {
        Packet::Publish(publish) => match &mut client.subscribing {
            Some(subscribing) => {
                let subscribed_ns = client.subscribed_ns;
                subscribing.deliver(&publish, now_ns, subscribed_ns, context, out);
            }
            None => context.breaches[usize::from(publish.qos.min(2))].corrupt += 1,
        },
        Packet::Ack {
            kind: 6, packet_id, ..
        } => crate::codec::ack(7, packet_id, out),
        Packet::Ack {
            kind,
            packet_id,
            reason,
        } => {
            if let Some(publishing) = &mut client.publishing {
                publishing.acknowledged((kind, packet_id, reason), now_ns, context, out);
            }
        }
        Packet::Connack(connack) => steps.push(Step::Connected(connack)),
        Packet::Suback(codes) => {
            let worst = codes.iter().copied().max().unwrap_or(0x80);
            steps.push(Step::Subscribed(worst));
        }
        Packet::Disconnect(reason) => return Err(ConnectionError::Disconnected(reason)),
        Packet::Pong => context.answered += u64::from(std::mem::take(&mut client.is_probed)),
        Packet::Other => {}
    }
    Ok(())
}
