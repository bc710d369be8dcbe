//! The thread that keeps what the shards want kept, and the way to it.

use crate::engine::keys::ShardId;
use crate::engine::shard::Settings;
use crate::shard::driver::LogWay;
use crate::shard::orders::Event;
use crate::shard::ring::Waker;
use crate::storage::directory::Opened;
use crate::storage::log::disk::Directory;
use crate::storage::log::progress::Progress;
use crate::storage::log::scan::Torn;
use crate::storage::log::writer::{Told, Writer, WriterConfig};
use crate::storage::log::{Log, LogError};
use crossbeam_channel::Sender;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// It ends when no shard has the way to it.
pub type StoreThread = JoinHandle<Result<Log<Directory>, LogError>>;

/// What the shards start with; nothing where nothing is kept.
#[derive(Default)]
pub struct Store {
    /// The thread.
    pub thread: Option<StoreThread>,
    /// The way to it.
    pub way: Option<LogWay>,
    /// What was cut off because it was never safe.
    pub torn: Option<Torn>,
}

impl Store {
    /// How far it has got, and beyond how many bytes a shard is behind; `None` where nothing is kept.
    #[must_use]
    pub fn progress(&self, settings: &Settings) -> Option<(Arc<Progress>, u64)> {
        let behind_from = settings.storage_pending_bytes_max as u64;
        let progress = Arc::clone(&self.way.as_ref()?.progress);
        Some((progress, behind_from))
    }

    /// Starts the thread for so many shards. It wakes shards by `wakers`, once they are there, and
    /// tells the control plane what goes wrong.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(
        (kept, config): (Opened, WriterConfig),
        shards: ShardId,
        wakers: Arc<OnceLock<Vec<Waker>>>,
        events: Sender<Event>,
    ) -> Result<Self, String> {
        let tell = move |told: Told<'_>| {
            let event = match told {
                Told::News(shard) => {
                    let waker = wakers
                        .get()
                        .and_then(|wakers| wakers.get(usize::from(shard)));
                    return waker.map_or((), Waker::wake);
                }
                Told::Full(error) => Event::StorageFull(error.to_string()),
                Told::HasRoom => Event::StorageHasRoom,
                Told::Failed(error) => Event::StorageFailed(error.to_string()),
            };
            let _ = events.send(event);
        };
        let started = Writer::start(kept.log, shards, config, tell);
        let writer = started.map_err(|error| error.to_string())?;
        let (frames, progress) = (writer.frames, writer.progress);
        Ok(Store {
            thread: Some(writer.thread),
            way: Some(LogWay { frames, progress }),
            torn: kept.torn,
        })
    }
}
