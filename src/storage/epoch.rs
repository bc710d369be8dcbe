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
}

impl Frames {
    /// One more.
    pub fn put(&mut self, frame: &Found<'_>) {
        if frame.kind == Kind::CheckpointBegins {
            self.checkpoint.get_or_insert(self.records.len());
        }
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

    /// All of them, by the number of the log's first segment.
    ///
    /// # Errors
    /// They cannot be what was written, in words.
    pub fn finish(mut self, first_segment: Option<u64>) -> Result<Vec<Epoch>, String> {
        if let Some((shard, shards)) = self.beyond {
            return Err(beyond(shard, shards));
        }
        if first_segment.is_some_and(|first| first > FIRST_SEGMENT) {
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
