//! A copy of a store that no broker uses, as it is, and read again.

use super::check::{Checked, read};
use super::draft::Draft;
use super::{ToolError, open};
use crate::storage::log::LogError;
use crate::storage::log::disk::{Directory, Disk};
use crate::storage::log::segment::file_name;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Copies a directory.
///
/// # Errors
/// It cannot be read, is damaged, a broker has it, or the copy cannot be made: then it is not there.
pub fn backup(path: &Path, to: &Path) -> Result<Checked, ToolError> {
    let mut directory = open(path)?;
    let draft = Draft::begin(Some(path), to)?;
    let (checked, _) = read(path, &mut directory)?;
    if !checked.is_whole() {
        return Err(ToolError::Damaged(path.to_owned()));
    }
    for &file in &checked.walked.files {
        let bytes = directory.read(file, usize::MAX);
        let bytes = bytes.map_err(|error| ToolError::failed(path, LogError::Failed(error)))?;
        let copied = copy(&draft.path().join(file_name(file)), &bytes);
        copied.map_err(|error| draft.failed(LogError::Failed(error)))?;
    }
    let opened = Directory::open_to_read(draft.path());
    let mut copy = opened.map_err(|error| draft.failed(LogError::Failed(error)))?;
    let copied = draft.check(&mut copy)?;
    if copied.walked != checked.walked {
        let changed = io::Error::other("the copy is not read as what it was made of");
        return Err(draft.failed(LogError::Failed(changed)));
    }
    draft.finish()?;
    Ok(copied)
}

/// A file with these bytes; what is not written yet at its end takes no space.
fn copy(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = bytes.iter().rposition(|byte| *byte != 0);
    let written = bytes
        .get(..written.map_or(0, |last| last + 1))
        .unwrap_or_default();
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(written)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}
