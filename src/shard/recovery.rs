//! What a shard does with what was kept, before it serves: it is built anew, and hears what the others want
//! before anybody's first turn.
//!
//! Not here: reading the log ([`crate::storage::directory`]).

use crate::engine::keys::ShardId;
use crate::engine::mail::Mail;
use crate::engine::shard::ShardCore;
use crate::engine::time::Timestamp;
use crate::storage::decided::Told;
use crate::storage::directory::Remedy;
use crate::storage::image::Image;
use crate::storage::pipe::Kept;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

/// Builds a core that nothing has happened to yet from what was kept, with all others, each in its thread;
/// how many sessions it has then. Nothing gets into the core before the whole log was read.
///
/// # Errors
/// What was kept makes no sense, here or there, in words.
pub fn restore(
    core: &mut ShardCore,
    id: ShardId,
    now: Timestamp,
    kept: Kept,
    exchange: &Exchange,
) -> Result<usize, String> {
    let played = kept.play().map_err(|fault| with_remedy(&fault));
    let told = exchange.tell(id, played.as_ref().ok().map(Image::told));
    let mut image = played?;
    let told = told.ok_or("what another shard has kept cannot be read")?;
    image.decide(id, |shard| told.get(usize::from(shard)).map(|it| &**it));
    core.count_publishes_after(image.last_number());
    let sessions = image.sessions.len();
    let restored = core.restore(now, image.into_records());
    restored.map_err(|error| error.to_string())?;
    Ok(sessions)
}

/// A record that cannot be what was written, and what to do about it.
fn with_remedy(fault: &dyn std::fmt::Display) -> String {
    format!("{fault}; {}", Remedy("DIRECTORY".to_owned()))
}

/// Where shards that were built anew exchange letters, each in its thread.
pub struct Exchange {
    letters: Vec<Sender<(ShardId, Mail)>>,
    mine: Receiver<(ShardId, Mail)>,
    told: Vec<Sender<(ShardId, Arc<Told>)>>,
    told_to_me: Receiver<(ShardId, Arc<Told>)>,
    meeting: Arc<Barrier>,
    more: Arc<AtomicBool>,
}

impl Exchange {
    /// One for each of so many shards.
    #[must_use]
    pub fn of(shards: usize) -> Vec<Self> {
        let (letters, boxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| unbounded()).unzip();
        let meeting = Arc::new(Barrier::new(shards));
        let more = Arc::new(AtomicBool::new(false));
        let (told, told_to): (Vec<_>, Vec<_>) = (0..shards).map(|_| unbounded()).unzip();
        let one = |(mine, told_to_me)| Exchange {
            letters: letters.clone(),
            mine,
            told: told.clone(),
            told_to_me,
            meeting: Arc::clone(&meeting),
            more: Arc::clone(&more),
        };
        boxes.into_iter().zip(told_to).map(one).collect()
    }

    /// Tells the others which publishes are complete, `None` if that cannot be read; what all have told, by
    /// their numbers, if all could be read.
    fn tell(&self, id: ShardId, told: Option<Told>) -> Option<Vec<Arc<Told>>> {
        if let Some(told) = told.map(Arc::new) {
            for to in &self.told {
                // Who is gone needs none.
                let _ = to.send((id, Arc::clone(&told)));
            }
        }
        self.meeting.wait();
        let mut all: Vec<_> = self.told_to_me.try_iter().collect();
        all.sort_by_key(|(from, _)| *from);
        let is_whole = all.len() == self.told.len();
        is_whole.then(|| all.into_iter().map(|(_, told)| told).collect())
    }

    /// Exchanges letters until nobody has any. `None` for a shard that could not be built: the others must
    /// not wait for it.
    pub fn settle(self, id: ShardId, mut core: Option<&mut ShardCore>, now: Timestamp) {
        loop {
            if let Some(core) = &mut core {
                core.staged().flush(|to, mail| {
                    if let Some(letters) = self.letters.get(usize::from(to)) {
                        // Who is gone needs none.
                        let _ = letters.send((id, mail));
                    }
                    Ok(())
                });
            }
            self.meeting.wait();
            for (from, mail) in self.mine.try_iter() {
                if let Some(core) = &mut core {
                    core.mail(now, from, mail);
                }
            }
            if let Some(core) = &mut core {
                core.mail_flushed();
                if !core.staged().is_empty() {
                    self.more.store(true, Ordering::Relaxed);
                }
            }
            self.meeting.wait();
            let goes_on = self.more.load(Ordering::Relaxed);
            if self.meeting.wait().is_leader() {
                // Nobody says so again before the leader is at the next meeting.
                self.more.store(false, Ordering::Relaxed);
            }
            if !goes_on {
                return;
            }
        }
    }
}
