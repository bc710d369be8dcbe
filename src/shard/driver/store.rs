//! Where a shard's records go: nowhere, or to the thread that writes the log.

use crate::engine::keys::ShardId;
use crate::engine::shard::ShardCore;
use crate::storage::log::frame::Frame;
use crate::storage::log::writer::Safe;
use crate::storage::memory::MemoryStore;
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

/// The store of a shard.
pub(super) enum Store {
    /// As long as the process lives.
    Memory(MemoryStore),
    /// On a disk.
    Log(Box<LogStore>),
}

/// A shard's part of the log.
pub(super) struct LogStore {
    shard: ShardId,
    encoder: Encoder,
    way: LogWay,
    /// The highest ticket of which the core knows that it is safe.
    told: u64,
}

impl Store {
    pub fn new(shard: ShardId, way: Option<LogWay>) -> Self {
        match way {
            None => Store::Memory(MemoryStore::default()),
            Some(way) => Store::Log(Box::new(LogStore {
                shard,
                // The core's times are those of the wall clock.
                encoder: Encoder::new(shard, 0),
                way,
                told: 0,
            })),
        }
    }

    /// Whether more is safe than the core knows.
    pub fn has_news(&self) -> bool {
        match self {
            Store::Memory(_) => false,
            Store::Log(store) => store.safe() > store.told,
        }
    }

    /// Takes what is to be kept; the highest ticket that is safe, if that is news.
    pub fn commit(&mut self, core: &mut ShardCore) -> Option<u64> {
        match self {
            Store::Memory(store) => core
                .has_persist()
                .then(|| store.commit(core.take_persist())),
            Store::Log(store) => {
                if core.has_persist() {
                    store.write(core);
                }
                let safe = store.safe();
                let is_news = safe > store.told;
                store.told = safe;
                is_news.then_some(safe)
            }
        }
    }
}

impl LogStore {
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
