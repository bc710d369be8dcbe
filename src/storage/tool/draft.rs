//! A directory that is being made: beside its place, under another name, until it is complete.

use super::ToolError;
use super::check::{Checked, look_through};
use crate::engine::keys::ShardId;
use crate::engine::record::{Persist, Record};
use crate::storage::directory::new_id;
use crate::storage::log::disk::Directory;
use crate::storage::log::frame::Frame;
use crate::storage::log::writer::wall_ms;
use crate::storage::log::{Log, LogConfig, LogError};
use crate::storage::record::encoder::Encoder;
use std::collections::VecDeque;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Frames that are written at once.
const FRAMES_MAX: usize = 16;

/// It is removed if it is not finished.
#[derive(Debug)]
pub(super) struct Draft {
    to: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Begins what is to be at `to`, which must be nothing or an empty directory, and not in `from`.
    pub(super) fn begin(from: Option<&Path>, to: &Path) -> Result<Self, ToolError> {
        let unusable = |error| ToolError::Unusable(to.to_owned(), error);
        let is_empty = std::fs::read_dir(to).map(|mut entries| entries.next().is_none());
        match is_empty {
            Ok(false) => return Err(ToolError::NotEmpty(to.to_owned())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
            Ok(true) | Err(_) => {}
        }
        let whole = std::path::absolute(to).map_err(unusable)?;
        let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
            let words = format!("{}: name a directory to be made", to.display());
            return Err(ToolError::Wrong(words));
        };
        let parent = parent.canonicalize().map_err(unusable)?;
        if let Some(from) = from.and_then(|from| from.canonicalize().ok())
            && parent.starts_with(&from)
        {
            let (to, from) = (to.display(), from.display());
            let words = format!("{to} is in {from}, which is to stay as it is: name another place");
            return Err(ToolError::Wrong(words));
        }
        let name = name.to_string_lossy();
        let path = parent.join(format!(".{name}.new-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(unusable)?;
        let to = parent.join(&*name);
        Ok(Draft { to, path })
    }

    /// Where it is until then.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn failed(&self, error: LogError) -> ToolError {
        ToolError::failed(&self.to, error)
    }

    /// What is in it, if that is whole.
    pub(super) fn check(&self, disk: &mut Directory) -> Result<Checked, ToolError> {
        let (checked, _) = look_through(disk, &mut |_| {}).map_err(|error| self.failed(error))?;
        if checked.is_whole() {
            return Ok(checked);
        }
        Err(self.failed(LogError::Failed(io::Error::other(
            "what was written is not read back as it was",
        ))))
    }

    /// It is complete, and safe as far as its files are.
    pub(super) fn finish(self) -> Result<(), ToolError> {
        let parent = self.to.parent().unwrap_or(Path::new("/"));
        let finished = File::open(&self.path)
            .and_then(|made| made.sync_all())
            .and_then(|()| std::fs::rename(&self.path, &self.to))
            .and_then(|()| File::open(parent)?.sync_all());
        finished.map_err(|error| ToolError::Unusable(self.to.clone(), error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Where it is finished it is not there any more.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A store that is written anew from records.
#[derive(Debug)]
pub(super) struct NewStore {
    draft: Draft,
    log: Log<Directory>,
    frames: VecDeque<Frame>,
}

impl NewStore {
    /// For so many shards.
    pub(super) fn begin(draft: Draft, shards: ShardId) -> Result<Self, ToolError> {
        let opened = Directory::open(draft.path());
        let disk = opened.map_err(|error| draft.failed(LogError::Failed(error)))?;
        let opened = Log::open(
            disk,
            LogConfig::default(),
            (new_id(), shards),
            wall_ms(),
            |_, _| {},
        );
        let (log, _) = opened.map_err(|(error, _)| draft.failed(error))?;
        Ok(NewStore {
            draft,
            log,
            frames: VecDeque::new(),
        })
    }

    /// Everything that a shard has.
    pub(super) fn write(
        &mut self,
        shard: ShardId,
        records: impl Iterator<Item = Record>,
    ) -> Result<(), ToolError> {
        // Times are those of the wall, as they were read.
        let mut encoder = Encoder::new(shard, 0);
        for (ticket, record) in (1..).zip(records) {
            encoder.put(&Persist { ticket, record });
            self.frames.extend(encoder.frames());
            if self.frames.len() >= FRAMES_MAX {
                self.append()?;
            }
        }
        encoder.flush();
        self.frames.extend(encoder.frames());
        self.append()
    }

    fn append(&mut self) -> Result<(), ToolError> {
        let appended = self.log.append(&mut self.frames, wall_ms(), |_, _| {});
        appended.map_err(|error| self.draft.failed(error))
    }

    /// Makes it safe, reads it again and gives it its name.
    pub(super) fn finish(mut self) -> Result<Checked, ToolError> {
        let safe = self.log.mark(wall_ms());
        safe.map_err(|error| self.draft.failed(error))?;
        let mut disk = self.log.into_disk();
        let checked = self.draft.check(&mut disk)?;
        self.draft.finish()?;
        Ok(checked)
    }
}
