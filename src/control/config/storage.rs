//! `[storage]`: what is kept on disk, and how.

use super::file::{FileStorage, StorageLevel};
use super::flags::Flags;
use crate::storage::directory::Place;
use crate::storage::log::LogConfig;
use crate::storage::log::writer::WriterConfig;
use std::time::Duration;

/// What is kept, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// Where.
    pub place: Place,
    /// How it is written.
    pub writer: WriterConfig,
}

/// Default of `storage.commit_interval_us`.
const COMMIT_INTERVAL_US: u64 = 500;

/// When something counts as kept.
pub(super) fn level(storage: Option<&StorageConfig>) -> StorageLevel {
    match storage.map(|storage| storage.writer.syncs) {
        None => StorageLevel::Memory,
        Some(false) => StorageLevel::Os,
        Some(true) => StorageLevel::Disk,
    }
}

/// What is to be kept; `None` for nothing.
pub(super) fn storage(raw: &FileStorage, flags: &Flags) -> Option<StorageConfig> {
    let path = flags.storage_directory.clone();
    let path = path.or(raw.directory.clone())?;
    let level = raw.level.unwrap_or_default();
    if level == StorageLevel::Memory {
        return None;
    }
    let defaults = LogConfig::default();
    Some(StorageConfig {
        place: Place {
            path,
            log: LogConfig {
                segment_bytes: raw.segment_bytes.unwrap_or(defaults.segment_bytes),
                bytes_max: raw
                    .disk_bytes_max
                    .filter(|max| *max > 0)
                    .unwrap_or(defaults.bytes_max),
            },
            free_bytes_min: raw.free_bytes_min,
            trace: flags.trace_storage.clone(),
        },
        writer: WriterConfig {
            commit_interval: Duration::from_micros(
                raw.commit_interval_us.unwrap_or(COMMIT_INTERVAL_US),
            ),
            syncs: level == StorageLevel::Disk,
            // What waits is bounded by bytes, at the shards.
            waiting_max: None,
            ..WriterConfig::default()
        },
    })
}
