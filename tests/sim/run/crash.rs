//! The broker is killed and starts again: what its clients know of it.

use super::Run;
use crate::client::{Client, Phase};
use crate::oracle::ClientId;
use ringmq::engine::receipt::Level;

/// Sessions of fewer seconds may end while the broker thinks that their client is away.
const SHORT_S: u32 = 3600;

impl Run {
    pub(super) fn crash(&mut self, _: ClientId) {
        self.note(|| "the broker is killed".into());
        self.oracle.crashed(self.now);
        let cuts_power = self.world.crash_cuts_power();
        let forgets = |client: &Client| match client.level {
            Level::Disk => false,
            Level::Os => cuts_power,
            Level::Memory => true,
        };
        let forgetting = self.clients.iter().map(forgets).collect::<Vec<_>>();
        self.oracle.forget_accepted(&forgetting);
        for id in 0..self.clients.len() {
            self.lose_broker(id);
        }
        if let Err(fault) = self.world.crash(cuts_power, &mut self.random) {
            self.world.fault = Some(fault);
        }
    }

    fn lose_broker(&mut self, id: ClientId) {
        let client = &mut self.clients[id];
        let lives_short = client.connect.is_v5 && client.connect.expiry_s < SHORT_S;
        // A connection that it forgets does not count against the expiry.
        let is_certain = client.is_session_stored && (client.is_connection_stored || !lives_short);
        client.may_be_forgotten |= client.epoch.is_some() && !is_certain;
        let has_stored_will = client.phase == Phase::Up && client.is_connection_stored;
        let open_wills = std::mem::take(&mut client.open_wills);
        if let Some(link) = client.link {
            let is_news = has_stored_will && !self.world.is_closing(link);
            self.lost_connection(id, is_news);
        }
        for will in open_wills {
            self.oracle.messages[will].sent_at.get_or_insert(self.now);
        }
    }
}
