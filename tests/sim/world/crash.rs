//! The whole broker is killed and starts again, with what its store has.

use super::{State, World};
use crate::random::Random;
use ringmq::engine::keys::ShardId;

impl World {
    /// Connections, mail, all that shards know is gone; each is built anew from what the store has of it, and
    /// as much of what it was told but has not confirmed as chance wants.
    pub fn crash(&mut self, random: &mut Random) -> Result<(), String> {
        for link in &mut self.links {
            link.state = State::Closed;
            link.is_cut = true;
            link.ends = false;
            link.in_flight = None;
            link.to_broker.clear();
            link.to_client.clear();
        }
        let now = self.now();
        let fresh = self.fresh_shards(self.shards.len());
        for (shard, mut fresh) in self.shards.iter_mut().zip(fresh) {
            std::mem::swap(&mut fresh.kept, &mut shard.kept);
            let records = fresh.kept.crash(shard.stored, random)?;
            let restored = fresh.core.restore(now, records);
            restored.map_err(|error| format!("not restored: {error}"))?;
            fresh.take_persist();
            fresh.kept.check(&fresh.core, now)?;
            *shard = fresh;
        }
        self.exchange_interest();
        Ok(())
    }

    /// Shards that were built anew hear what the others want before their first turn.
    fn exchange_interest(&mut self) {
        let now = self.now();
        loop {
            let mut letters = Vec::new();
            for (from, shard) in (0 as ShardId..).zip(&mut self.shards) {
                shard.core.staged().flush(|to, mail| {
                    letters.push((from, to, mail));
                    Ok(())
                });
            }
            if letters.is_empty() {
                return;
            }
            for (from, to, mail) in letters {
                self.shards[usize::from(to)].core.mail(now, from, mail);
            }
            for shard in &mut self.shards {
                shard.core.mail_flushed();
            }
        }
    }
}
