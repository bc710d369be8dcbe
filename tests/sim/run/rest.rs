//! The end: faults stop, everything arrives, and nothing is left.

use super::{REST_STEPS_MAX, Run};
use crate::client::Phase;
use crate::wire::{self, Publish};
use crate::world::Roughness;

impl Run {
    /// Faults stop; everything that is on its way arrives. With `returns`, kept sessions get their clients
    /// back first.
    pub(super) fn come_to_rest(&mut self, returns: bool) -> Result<(), String> {
        self.world.roughness = Roughness {
            read: 900,
            complete: 900,
            run: 1000,
            commit: 1000,
            checkpoint: 0,
            pending_max: 1_000,
        };
        for client in &mut self.clients {
            client.is_stalled = false;
        }
        // Who waits for memory looks again in time.
        self.world.use_memory(0);
        self.oracle.memory_is_short(false, self.now);
        self.world.now_ms += 200;
        let current: Vec<_> = self.clients.iter().filter_map(|c| c.link).collect();
        self.world.cut_others(&current);
        let mut quiet = 0;
        for _ in 0..REST_STEPS_MAX {
            self.now += 1;
            for shard in 0..self.world.shards() {
                self.world.turn(shard, &mut self.random);
            }
            let mut is_waiting = false;
            for id in 0..self.clients.len() {
                self.read(id)?;
                let client = &self.clients[id];
                let has_unread = client
                    .link
                    .is_some_and(|l| !self.world.links[l].to_client.is_empty());
                is_waiting |= has_unread
                    || matches!(client.phase, Phase::Connecting | Phase::Leaving)
                    || !client.unacknowledged.is_empty() && client.phase == Phase::Up
                    || !client.subscribing.is_empty()
                    || !client.unsubscribing.is_empty();
                if client.phase == Phase::Idle && client.epoch.is_some() && returns {
                    self.open(id);
                    is_waiting = true;
                }
            }
            quiet = if is_waiting || !self.world.is_quiet() {
                0
            } else {
                quiet + 1
            };
            if quiet > 2 {
                return Ok(());
            }
        }
        let waiting: Vec<_> = self
            .clients
            .iter()
            .map(|c| {
                (
                    c.phase,
                    c.unacknowledged.len(),
                    c.subscribing.len(),
                    c.unsubscribing.len(),
                )
            })
            .collect();
        let unrest = self.world.unrest();
        Err(format!("does not come to rest: {waiting:?} {unrest}"))
    }

    pub(super) fn check_complete(&mut self) -> Result<(), String> {
        // QoS 0 is accepted where its connection still stands: everything sent on it has arrived.
        let standing: Vec<bool> = self.clients.iter().map(|c| c.phase == Phase::Up).collect();
        if self.oracle.is_calm {
            for message in self.oracle.messages.iter_mut().filter(|m| m.qos == 0) {
                if standing[message.publisher] && message.sent_at.is_some() {
                    message.accepted_at = Some(self.now);
                }
            }
        }
        let epochs: Vec<_> = self.clients.iter().map(|c| c.epoch).collect();
        let links: Vec<_> = self.clients.iter().map(|c| c.link).collect();
        self.oracle.check_complete(&epochs, &links)
    }

    /// All sessions end, retained messages are removed: nothing may be left.
    pub(super) fn clean_up(&mut self) -> Result<(), String> {
        for id in 0..self.clients.len() {
            self.leave(id);
        }
        self.come_to_rest(false)?;
        for id in 0..self.clients.len() {
            let client = &mut self.clients[id];
            client.connect.is_clean = true;
            client.connect.expiry_s = 0;
            client.is_kept = false;
            client.forget_session();
            self.weights.stall = 0;
            self.oracle.is_calm = true;
            self.open(id);
        }
        self.come_to_rest(false)?;
        for id in 0..self.clients.len() {
            let clear = Publish {
                topic: format!("r/{id}"),
                payload: Vec::new(),
                qos: 0,
                retain: true,
                packet_id: 0,
            };
            let bytes = wire::publish(&clear, false, self.clients[id].connect.is_v5);
            self.transmit(id, &bytes);
            self.transmit(id, &wire::PINGREQ);
        }
        self.come_to_rest(false)?;
        for id in 0..self.clients.len() {
            self.leave(id);
        }
        self.come_to_rest(false)?;
        self.world.now_ms += 4_000_000_000;
        self.come_to_rest(false)?;
        let kept = self.world.kept();
        if kept.iter().any(|(_, count)| *count > 0) {
            return Err(format!("something is left at the end: {kept:?}"));
        }
        Ok(())
    }
}
