//! Where a shard's records go, if any are made: to the thread that writes the log.

use crate::engine::keys::ShardId;
use crate::engine::shard::ShardCore;
use crate::storage::log::frame::Frame;
use crate::storage::log::writer::Safe;
use crate::storage::record::encoder::Encoder;
use crossbeam_channel::Sender;
use std::sync::Arc;

/// The way to the thread that writes.
#[derive(Clone)]
pub struct LogWay {
    /// Frames to write.
    pub frames: Sender<Frame>,
    /// How far they are safe.
    pub safe: Arc<Safe>,
}

/// A shard's part of the log.
pub(super) struct Store {
    shard: ShardId,
    encoder: Encoder,
    way: LogWay,
    /// The highest ticket of which the core knows that it is safe.
    told: u64,
}

impl Store {
    pub fn new(shard: ShardId, way: LogWay) -> Self {
        Store {
            shard,
            // The core's times are those of the wall clock.
            encoder: Encoder::new(shard, 0),
            way,
            told: 0,
        }
    }

    /// Whether more is safe than the core knows.
    pub fn has_news(&self) -> bool {
        self.safe() > self.told
    }

    /// Takes what is to be kept; the highest ticket that is safe, if that is news.
    pub fn commit(&mut self, core: &mut ShardCore) -> Option<u64> {
        if core.has_persist() {
            self.write(core);
        }
        let is_news = self.has_news();
        self.told = self.safe();
        is_news.then_some(self.told)
    }

    fn safe(&self) -> u64 {
        self.way.safe.ticket(self.shard)
    }

    fn write(&mut self, core: &mut ShardCore) {
        for persist in core.take_persist() {
            self.encoder.put(&persist);
        }
        self.encoder.flush();
        for frame in self.encoder.frames() {
            // A thread that has ended has said why, and nothing is safe any more.
            let _ = self.way.frames.send(frame);
        }
    }
}
