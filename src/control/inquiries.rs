//! Questions of operators to shards: each goes to those whom it concerns, and is answered when all have told,
//! or had their time.

use crate::engine::keys::ShardId;
use crate::shard::inquiries::{Asked, Inquiry, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long answers are waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Questions that are under way at once.
const UNDER_WAY_MAX: usize = 64;

/// What shards have told, and which did not.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By shard, as it came.
    pub told: Vec<(ShardId, Told)>,
    /// Those that did not answer in time.
    pub silent: Vec<ShardId>,
}

/// One that is under way.
struct UnderWay {
    by: Instant,
    missing: BTreeSet<ShardId>,
    gathered: Gathered,
    asker: oneshot::Sender<Gathered>,
}

/// All that are under way.
#[derive(Default)]
pub struct Inquiries {
    last: u64,
    under_way: BTreeMap<u64, UnderWay>,
}

impl Inquiries {
    /// A new one to these shards: what to ask them. `None` if too many are under way, whose asker is then
    /// told by losing its answer.
    pub fn begin(
        &mut self,
        now: Instant,
        asked: Arc<Asked>,
        shards: impl Iterator<Item = ShardId>,
        asker: oneshot::Sender<Gathered>,
    ) -> Option<Inquiry> {
        if self.under_way.len() >= UNDER_WAY_MAX {
            return None;
        }
        self.last += 1;
        let by = now + ANSWER_MAX;
        let under_way = UnderWay {
            by,
            missing: shards.collect(),
            gathered: Gathered::default(),
            asker,
        };
        self.under_way.insert(self.last, under_way);
        Some(Inquiry {
            number: self.last,
            by,
            asked,
        })
    }

    /// A shard has told; who asked is told when it was the last.
    pub fn take(&mut self, shard: ShardId, number: u64, told: Told) {
        let Some(under_way) = self.under_way.get_mut(&number) else {
            return;
        };
        if under_way.missing.remove(&shard) {
            under_way.gathered.told.push((shard, told));
        }
        if under_way.missing.is_empty() {
            self.end(number);
        }
    }

    /// Whose time is over is told what there is.
    pub fn expire(&mut self, now: Instant) {
        // All have as long, so the oldest is the first.
        while let Some((&number, under_way)) = self.under_way.first_key_value()
            && under_way.by <= now
        {
            self.end(number);
        }
    }

    /// How long until somebody's time is over.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let (_, first) = self.under_way.first_key_value()?;
        Some(first.by.saturating_duration_since(now))
    }

    fn end(&mut self, number: u64) {
        if let Some(mut under_way) = self.under_way.remove(&number) {
            under_way.gathered.silent = under_way.missing.into_iter().collect();
            // Who has gone meanwhile needs no answer.
            let _ = under_way.asker.send(under_way.gathered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Arc<Asked> {
        Arc::new(Asked::Client("c".into()))
    }

    #[test]
    fn all_tell_or_have_their_time() {
        let mut inquiries = Inquiries::default();
        let now = Instant::now();
        let (to, mut answer) = oneshot::channel();
        let first = inquiries.begin(now, asked(), 0..2, to).unwrap();
        let (to, mut late) = oneshot::channel();
        let second = inquiries.begin(now, asked(), 0..2, to).unwrap();
        inquiries.take(1, first.number, Told::Done(true));
        inquiries.take(1, first.number, Told::Done(true));
        assert!(answer.try_recv().is_err());
        inquiries.take(0, first.number, Told::Done(false));
        let gathered = answer.try_recv().unwrap();
        assert_eq!((gathered.told.len(), gathered.silent.len()), (2, 0));
        inquiries.take(1, second.number, Told::Done(true));
        assert_eq!(inquiries.wait(now), Some(ANSWER_MAX));
        inquiries.expire(now + ANSWER_MAX);
        let gathered = late.try_recv().unwrap();
        assert_eq!((gathered.told.len(), gathered.silent), (1, vec![0]));
        inquiries.take(0, second.number, Told::Done(true));
        assert_eq!(inquiries.wait(now), None);
    }

    #[test]
    fn beyond_the_bound_none_begins() {
        let mut inquiries = Inquiries::default();
        let now = Instant::now();
        let mut begin = || {
            let (to, answer) = oneshot::channel();
            (inquiries.begin(now, asked(), 0..1, to), answer)
        };
        let begun: Vec<_> = (0..UNDER_WAY_MAX).map(|_| begin()).collect();
        assert!(begun.iter().all(|(inquiry, _)| inquiry.is_some()));
        let (none, mut answer) = begin();
        assert!(none.is_none());
        let told = answer.try_recv().map(drop);
        assert_eq!(told, Err(oneshot::error::TryRecvError::Closed));
    }
}
