//! What shards have told, as it was found in a log.

use super::log::frame::{Found, Kind};

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
