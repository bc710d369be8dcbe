//! The shards' decoders along a log of which frames may be missing.

use super::walk::Gap;
use crate::engine::keys::ShardId;
use crate::engine::record::Record;
use crate::storage::log::frame::Found;
use crate::storage::record::decoder::{Decoder, LeftOut};
use std::collections::BTreeMap;

/// One for each shard.
#[derive(Debug, Default)]
pub struct Readers {
    shards: BTreeMap<ShardId, Reader>,
    /// Frames of nobody knows whom are missing: whoever comes later may have lost some, too.
    has_lost: bool,
}

#[derive(Debug)]
struct Reader {
    decoder: Decoder,
    /// The file with its last frame, and which process of that file has written it.
    written: (u64, u8),
    /// Something is missing before the next one.
    is_behind_gap: bool,
}

impl Readers {
    /// Frames are missing here.
    pub fn gap(&mut self, gap: &Gap) {
        self.has_lost |= gap.shard.is_none();
        if let Some(id) = gap.shard {
            self.reader(id).is_behind_gap = true;
        } else {
            let readers = self.shards.values_mut();
            readers.for_each(|reader| reader.is_behind_gap = true);
        }
    }

    /// Whoever comes later may have lost some.
    pub fn begin_behind_gap(&mut self) {
        self.has_lost = true;
    }

    /// The records of a frame in this file.
    pub fn read(
        &mut self,
        file: u64,
        frame: &Found<'_>,
        take: impl FnMut(Result<Record, LeftOut>),
    ) {
        let reader = self.reader(frame.shard);
        if std::mem::take(&mut reader.is_behind_gap) {
            reader.decoder.lost(reader.written == (file, frame.life));
        }
        reader.written = (file, frame.life);
        reader.decoder.read_on(frame.records, take);
    }

    fn reader(&mut self, shard: ShardId) -> &mut Reader {
        let is_behind_gap = self.has_lost;
        self.shards.entry(shard).or_insert_with(|| Reader {
            decoder: Decoder::new(0),
            written: (0, 0),
            is_behind_gap,
        })
    }
}
