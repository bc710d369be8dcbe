//! The whole broker is killed and starts again, with what its store has.

use super::{State, World};
use crate::kept::Kept;
use crate::random::Random;
use ringmq::engine::keys::ShardId;
use ringmq::storage::decided::Told;
use ringmq::storage::epoch::Epoch;
use ringmq::storage::image::Image;
use ringmq::storage::rehome::rehome;

impl World {
    /// Whether the next crash is one of the machine: what is only written may be lost then.
    pub fn crash_cuts_power(&mut self) -> bool {
        self.of_store.chance(500)
    }

    /// Connections, mail, all that shards know is gone; each is built anew from what the store has of it, and
    /// as much of what it was told but has not confirmed, or written, as chance wants.
    pub fn crash(&mut self, cuts_power: bool, random: &mut Random) -> Result<(), String> {
        for link in &mut self.links {
            link.state = State::Closed;
            link.is_cut = true;
            link.ends = false;
            link.in_flight = None;
            link.to_broker.clear();
            link.to_client.clear();
        }
        let now = self.now();
        let mut kept = Vec::new();
        for shard in std::mem::take(&mut self.shards) {
            let mut of_shard = shard.kept;
            let safe = if cuts_power {
                shard.stored
            } else {
                shard.written
            };
            of_shard.crash(safe, random);
            kept.push(of_shard);
        }
        if kept.iter().all(Kept::has_checkpoint) && random.chance(700) {
            for of_shard in &mut kept {
                of_shard.clean(random)?;
            }
        }
        for of_shard in &mut kept {
            of_shard.begin_life()?;
        }
        if kept.len() > 1 && random.chance(250) {
            kept = self.divide(&kept, 2 + random.below(3))?;
        }
        self.shards = self.fresh_shards(kept.len());
        let images = kept.iter().map(Kept::image);
        let mut images = images.collect::<Result<Vec<Image>, _>>()?;
        let told: Vec<Told> = images.iter().map(Image::told).collect();
        for (own, image) in (0..).zip(&mut images) {
            image.decide(own, |shard| told.get(usize::from(shard)));
        }
        for ((shard, kept), image) in self.shards.iter_mut().zip(kept).zip(images) {
            shard.kept = kept;
            shard.core.count_publishes_after(image.last_number());
            let restored = shard.core.restore(now, image.into_records());
            restored.map_err(|error| format!("not restored: {error}"))?;
            shard.take_persist();
            shard.kept.check(&shard.core, now)?;
        }
        self.exchange_interest();
        Ok(())
    }

    /// There are so many shards now.
    fn divide(&self, kept: &[Kept], shards: usize) -> Result<Vec<Kept>, String> {
        let frames = kept.iter().map(Kept::frames_of_all).collect();
        let divided = rehome(vec![Epoch { frames }], shards as ShardId)?;
        let divided = (0..).zip(&divided);
        divided
            .map(|(id, frames)| Kept::with(id, self.seed, frames))
            .collect()
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
