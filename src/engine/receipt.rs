//! What an acknowledgement waits for.

use crate::engine::route::ShardSet;

/// From when on what an acknowledgement tells of is safe; the later ones come behind the earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// At once: a crash of the broker may lose it.
    Memory,
    /// When the operating system has it: a power cut may lose it.
    Os,
    /// When the store says that it is stored.
    #[default]
    Disk,
}

/// What has to be safe before an acknowledgement leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Everything up to this ticket is stored; 0 for nothing.
    pub ticket: u64,
    /// Everything retained up to this letter is visible to the shard that keeps it; 0 for nothing. Who
    /// hears of the acknowledgement and subscribes then finds no older value.
    pub letter: u64,
    /// By this number this shard asked others whether they have stored what they got; 0 if it asked none.
    pub number: u64,
    /// Of these, those that confirm it together with all before it.
    pub shards: ShardSet,
    /// What is enough for ticket and number.
    pub level: Level,
}

impl Receipt {
    /// The same, where less is enough: nobody waits for the store at level memory.
    #[must_use]
    pub fn lowered(self, level: Level) -> Self {
        if level == Level::Memory {
            return Receipt {
                letter: self.letter,
                level,
                ..Receipt::default()
            };
        }
        Receipt { level, ..self }
    }
}
