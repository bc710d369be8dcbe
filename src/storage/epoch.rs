//! What shards have told, as it was found in a log.

use super::log::frame::{Found, Kind};
use super::log::segment::{FIRST_SEGMENT, SegmentHead};
use crate::engine::keys::ShardId;

/// A shard's frames.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// The records of each, in order.
    pub records: Vec<Vec<u8>>,
    /// They begin with a checkpoint; what was before it is gone.
    pub from_checkpoint: bool,
    /// The first with which a checkpoint begins.
    checkpoint: Option<usize>,
    /// A checkpoint has come to its end.
    is_told: bool,
}

impl Frames {
    /// One more.
    pub fn put(&mut self, frame: &Found<'_>) {
        if frame.kind == Kind::CheckpointBegins {
            self.checkpoint.get_or_insert(self.records.len());
        }
        self.is_told |= frame.kind == Kind::CheckpointEnds && self.checkpoint.is_some();
        if !frame.records.is_empty() {
            self.records.push(frame.records.to_vec());
        }
    }

    /// What the log had before is gone: what was told before the first checkpoint hangs in the air. False if
    /// there is none.
    pub fn begin_with_checkpoint(&mut self) -> bool {
        let Some(checkpoint) = self.checkpoint else {
            return false;
        };
        self.records.drain(..checkpoint);
        self.from_checkpoint = true;
        true
    }
}

/// What shards have written while there were as many.
#[derive(Debug)]
pub struct Epoch {
    /// By shard.
    pub frames: Vec<Frames>,
}

/// The epochs of a log, while its frames are read.
#[derive(Debug, Default)]
pub struct Epochs {
    epochs: Vec<Epoch>,
    /// A frame's shard that was not among so many.
    beyond: Option<(ShardId, u32)>,
}

impl Epochs {
    /// One more frame, and its segment's head.
    pub fn put(&mut self, frame: &Found<'_>, head: &SegmentHead) {
        let wrote = head.shards as usize;
        let last = self.epochs.last();
        if last.is_none_or(|last| last.frames.len() != wrote) {
            let frames = (0..wrote).map(|_| Frames::default()).collect();
            self.epochs.push(Epoch { frames });
        }
        let last = self.epochs.last_mut();
        match last.and_then(|last| last.frames.get_mut(usize::from(frame.shard))) {
            Some(frames) => frames.put(frame),
            None => self.beyond = Some((frame.shard, head.shards)),
        }
    }

    /// Where the beginning is gone, shards that were more or fewer later may have told all there was anew
    /// before the last of the older segments went: what is left of those says nothing any more.
    fn leave_remains(&mut self) {
        let is_told = |epoch: &Epoch| epoch.frames.iter().all(|frames| frames.is_told);
        let first = self.epochs.iter().position(is_told);
        self.epochs.drain(..first.unwrap_or(0));
    }

    /// All of them, by the number of the log's first segment.
    ///
    /// # Errors
    /// They cannot be what was written, in words.
    pub fn finish(mut self, first_segment: Option<u64>) -> Result<Vec<Epoch>, String> {
        if let Some((shard, shards)) = self.beyond {
            return Err(beyond(shard, shards));
        }
        if first_segment.is_some_and(|first| first > FIRST_SEGMENT) {
            self.leave_remains();
            let first = self.epochs.first_mut().into_iter();
            for (shard, frames) in (0..).zip(first.flat_map(|first| &mut first.frames)) {
                let shard: ShardId = shard;
                if !frames.begin_with_checkpoint() {
                    return Err(no_checkpoint(shard));
                }
            }
        }
        Ok(self.epochs)
    }
}

/// A frame is of a shard that was not among so many.
pub(super) fn beyond(shard: ShardId, shards: u32) -> String {
    format!("a frame is of shard {shard}, though {shards} have written there")
}

/// The log's beginning is gone, and no checkpoint came.
pub(super) fn no_checkpoint(shard: ShardId) -> String {
    format!("the first segments are gone, and nothing tells what shard {shard} had")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::segment::LogId;

    /// So many shards wrote, these frames.
    fn wrote(epochs: &mut Epochs, shards: u32, frames: &[(ShardId, Kind)]) {
        let head = SegmentHead {
            log: LogId([1; 16]),
            number: 9,
            made_at_ms: 1,
            oldest: 2,
            first_sequence: 1,
            shards,
        };
        for (shard, kind) in frames {
            let found = Found {
                sequence: 1,
                synced: 0,
                kind: *kind,
                life: 1,
                shard: *shard,
                ticket: 1,
                records: &[*shard as u8, shards as u8],
            };
            epochs.put(&found, &head);
        }
    }

    const BEGINS: Kind = Kind::CheckpointBegins;
    const ENDS: Kind = Kind::CheckpointEnds;

    #[test]
    fn what_is_left_of_fewer_or_more_shards_says_nothing_behind_a_whole_checkpoint() {
        let left: [&[(ShardId, Kind)]; 3] = [
            &[(0, Kind::Records), (2, Kind::Records)],
            // Told anew by one of them, and by all of them but not to the end.
            &[(1, BEGINS), (1, ENDS)],
            &[(0, BEGINS), (1, BEGINS), (2, BEGINS), (2, ENDS)],
        ];
        for left in left {
            let mut epochs = Epochs::default();
            wrote(&mut epochs, 3, left);
            wrote(
                &mut epochs,
                2,
                &[(0, Kind::Records), (0, BEGINS), (1, BEGINS)],
            );
            wrote(&mut epochs, 2, &[(1, ENDS), (0, ENDS), (1, Kind::Records)]);
            wrote(&mut epochs, 1, &[(0, Kind::Records)]);
            let epochs = epochs.finish(Some(FIRST_SEGMENT + 3)).expect("whole");
            let told = epochs.iter().map(|it| it.frames[0].from_checkpoint);
            assert_eq!(told.collect::<Vec<_>>(), [true, false]);
            assert_eq!(
                epochs[0].frames[0].records.len(),
                2,
                "from the checkpoint on"
            );
        }
    }

    #[test]
    fn without_a_whole_checkpoint_a_log_whose_beginning_is_gone_is_refused() {
        let mut epochs = Epochs::default();
        wrote(&mut epochs, 3, &[(0, Kind::Records)]);
        wrote(&mut epochs, 2, &[(0, BEGINS), (0, ENDS), (1, BEGINS)]);
        let refused = epochs.finish(Some(FIRST_SEGMENT + 1)).expect_err("gone");
        assert!(refused.contains("what shard 0 had"), "{refused}");
    }

    #[test]
    fn a_log_that_is_whole_keeps_all_that_was_written() {
        let mut epochs = Epochs::default();
        wrote(&mut epochs, 3, &[(0, Kind::Records)]);
        wrote(
            &mut epochs,
            2,
            &[(0, BEGINS), (1, BEGINS), (0, ENDS), (1, ENDS)],
        );
        let epochs = epochs.finish(Some(FIRST_SEGMENT)).expect("whole");
        assert_eq!(epochs.len(), 2);
    }
}
