//! Where a shard's records go, if any are made: to the thread that writes the log.

use crate::engine::keys::ShardId;
use crate::engine::shard::ShardCore;
use crate::engine::shard::checkpoint::Kept;
use crate::engine::shard::store_room::StoreRoom;
use crate::storage::log::frame::Frame;
use crate::storage::log::progress::Progress;
use crate::storage::record::encoder::Encoder;
use crossbeam_channel::Sender;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a message on its way to a session takes, before there was any.
const ENTRY_BYTES: u64 = 64;

/// The way to the thread that writes.
#[derive(Clone)]
pub struct LogWay {
    /// Frames to write.
    pub frames: Sender<Frame>,
    /// How far they are safe.
    pub progress: Arc<Progress>,
}

/// A shard's part of the log.
pub(super) struct Store {
    shard: ShardId,
    encoder: Encoder,
    way: LogWay,
    /// What waited when this began.
    found: Kept,
    /// The highest ticket of which the core knows that it is safe, and that the kernel has it.
    told: u64,
    told_written: u64,
    /// Checkpoints that were asked for and have begun.
    checkpoints: u64,
    /// Frames that are not safe: their tickets and bytes.
    pending: VecDeque<(u64, usize)>,
    pending_bytes: usize,
    /// Beyond so many bytes who publishes waits, until half of it is safe.
    pending_bytes_max: usize,
    room: StoreRoom,
}

impl Store {
    pub fn new(shard: ShardId, way: LogWay, pending_bytes_max: usize, core: &ShardCore) -> Self {
        let store = Store {
            shard,
            // The core's times are those of the wall clock.
            encoder: Encoder::new(shard, 0),
            way,
            found: core.waiting(),
            told: 0,
            told_written: 0,
            checkpoints: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
            pending_bytes_max,
            room: StoreRoom::Enough,
        };
        store.tell_live(core);
        store
    }

    /// Whether more is safe than the core knows, or is wanted of it.
    pub fn has_news(&self) -> bool {
        let progress = &self.way.progress;
        progress.safe_ticket(self.shard) > self.told
            || progress.written_ticket(self.shard) > self.told_written.max(self.told)
            || progress.checkpoints() > self.checkpoints
            || progress.is_full() != (self.room == StoreRoom::Full)
    }

    /// Takes what is to be kept; the highest ticket that is safe, if that is news.
    pub fn commit(&mut self, core: &mut ShardCore) -> Option<u64> {
        let wanted = self.way.progress.checkpoints();
        if wanted > self.checkpoints {
            self.checkpoints = wanted;
            core.begin_checkpoint();
        }
        if core.has_persist() {
            self.write(core);
        }
        let safe = self.way.progress.safe_ticket(self.shard);
        let written = self.way.progress.written_ticket(self.shard);
        if written > self.told_written.max(safe) {
            self.told_written = written;
            core.written(written);
        }
        let is_news = safe > self.told;
        self.told = safe;
        while let Some((_, bytes)) = self.pending.front().filter(|(ticket, _)| *ticket <= safe) {
            self.pending_bytes -= bytes;
            self.pending.pop_front();
        }
        self.way
            .progress
            .set_pending_bytes(self.shard, self.pending_bytes as u64);
        let room = self.room_now();
        if room != self.room {
            self.room = room;
            core.set_store_room(room);
        }
        is_news.then_some(safe)
    }

    fn room_now(&self) -> StoreRoom {
        let was_behind = self.room == StoreRoom::Behind;
        let max = self.pending_bytes_max;
        let most = if was_behind { max / 2 } else { max };
        if self.way.progress.is_full() {
            StoreRoom::Full
        } else if self.pending_bytes > most {
            StoreRoom::Behind
        } else {
            StoreRoom::Enough
        }
    }

    fn write(&mut self, core: &mut ShardCore) {
        for persist in core.take_persist() {
            self.encoder.put(&persist);
        }
        self.encoder.flush();
        for frame in self.encoder.frames() {
            let bytes = frame.wire().len();
            self.pending.push_back((frame.ticket, bytes));
            self.pending_bytes += bytes;
            // A thread that has ended has said why, and nothing is safe any more.
            let _ = self.way.frames.send(frame);
        }
        self.tell_live(core);
    }

    /// About what a checkpoint would take now.
    fn tell_live(&self, core: &ShardCore) {
        let (queued, bytes) = self.encoder.queued();
        let bytes = bytes + self.found.bytes;
        let entry_bytes = bytes.checked_div(queued + self.found.entries);
        let kept = core.kept(entry_bytes.unwrap_or(ENTRY_BYTES));
        let progress = &self.way.progress;
        progress.set_live(self.shard, kept.bytes, kept.entries);
    }
}
