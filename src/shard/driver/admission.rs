//! Addresses: counted, banned, and added to what the core notes.

use super::Shell;
use super::sockets::State;
use crate::engine::access::bans::BannedNames;
use crate::shard::account::Entry;
use crate::shard::ring::{Ring, SocketKey};
use crossbeam_channel::TrySendError;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

impl Shell {
    /// It is known now where a client is: counts its address, and tells the core if it is one too many or
    /// banned.
    pub(super) fn check_address(&mut self, socket: SocketKey) {
        let Some(entry) = self.sockets.entry(socket) else {
            return;
        };
        let Some(ip) = entry.origin.peer.map(|peer| peer.ip()) else {
            return;
        };
        if entry.origin.counted == Some(ip) {
            return;
        }
        let before = entry.origin.counted.replace(ip);
        if let Some(before) = before {
            self.addresses.leave(before);
        }
        let fits = self.addresses.enter(ip);
        let State::Open(connection) = entry.state else {
            return;
        };
        if !fits {
            self.core.refuse_surplus(connection);
        }
        if is_banned(&self.banned, ip) {
            self.core.ban(self.now, connection);
        }
    }

    /// A connection is gone for good.
    pub(super) fn forget_address(&self, counted: Option<IpAddr>) {
        if let Some(ip) = counted {
            self.addresses.leave(ip);
        }
    }

    /// Who is not served from now on; those that are there are closed.
    pub(super) fn set_bans(
        &mut self,
        ring: &mut Ring,
        names: Arc<BannedNames>,
        networks: Arc<[IpNet]>,
    ) {
        self.banned = networks;
        self.core.set_banned(self.now, names);
        for connection in self.sockets.open_from(|ip| is_banned(&self.banned, ip)) {
            self.core.ban(self.now, connection);
        }
        self.carry_out(ring);
    }

    /// Hands what the core noted to whoever keeps account, before the connections are gone.
    pub(super) fn record_notes(&mut self) {
        if !self.core.has_notes() {
            return;
        }
        let mut notes = std::mem::take(&mut self.notes);
        self.core.take_notes(&mut notes);
        let entries: Vec<_> = notes
            .drain(..)
            .map(|(connection, note)| {
                let socket = self.sockets.socket(connection);
                let origin = socket.and_then(|socket| Some(self.sockets.entry(socket)?.origin));
                Entry {
                    listener: origin.map_or(u16::MAX, |origin| origin.listener),
                    peer: origin.and_then(|origin| origin.peer),
                    note,
                }
            })
            .collect();
        self.notes = notes;
        let count = entries.len() as u64;
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.entries.try_send(entries)
        {
            self.core.note_left_out(count);
        }
    }
}

fn is_banned(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}
