//! What is left of a damaged store, written into a new one. The old one stays as it is.

use super::check::{Checked, read};
use super::draft::{Draft, NewStore};
use super::{ToolError, open};
use crate::engine::keys::ShardId;
use std::path::Path;

/// What was there, and what is there now.
#[derive(Debug)]
pub struct Salvaged {
    /// The old one.
    pub old: Checked,
    /// The new one, read again.
    pub new: Checked,
}

/// Takes all that can be read out of a directory into another one.
///
/// # Errors
/// It cannot be read, a broker has it, or the new one cannot be made: then it is not there.
pub fn salvage(path: &Path, to: &Path) -> Result<Salvaged, ToolError> {
    let mut directory = open(path)?;
    let draft = Draft::begin(Some(path), to)?;
    let (old, images) = read(path, &mut directory)?;
    let mut store = NewStore::begin(draft, images.len() as ShardId)?;
    for (shard, image) in images {
        store.write(shard, image.into_records())?;
    }
    let new = store.finish()?;
    Ok(Salvaged { old, new })
}
