//! A copy of a store, whether a broker writes to it or not, and read again.
//!
//! Nobody is asked and nothing is held: the log is one order of all shards' frames, and any beginning of it
//! is what a broker leaves that is killed at that moment. What was acknowledged before the copy began stands
//! in files that are open by then, also if they are removed meanwhile. They are read from the last one back,
//! so that all before the first frame of a file is there when the file before is read; of the last, the copy
//! ends with the last frame that all before it is there of.

use super::check::{Checked, look_through};
use super::draft::Draft;
use super::{ToolError, open_to_copy};
use crate::storage::log::LogError;
use crate::storage::log::disk::{Directory, Disk};
use crate::storage::log::end::EndNote;
use crate::storage::log::frame::{Look, look};
use crate::storage::log::scan::{is_blank_behind, look_behind};
use crate::storage::log::segment::{BLOCK_BYTES, SegmentHead, file_name};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// How often files are listed anew, since they come and go meanwhile.
const LISTS_MAX: usize = 20;
/// How long until then.
const LIST_INTERVAL: Duration = Duration::from_millis(10);

/// Copies a directory.
///
/// # Errors
/// It cannot be read, is damaged, or the copy cannot be made: then it is not there.
pub fn backup(path: &Path, to: &Path) -> Result<Checked, ToolError> {
    let mut directory = open_to_copy(path)?;
    let draft = Draft::begin(Some(path), to)?;
    let unread = |error| ToolError::failed(path, LogError::Failed(error));
    // Before anything else: what it says is there is.
    let end = directory.read_end().map_err(unread)?;
    let files = hold(&mut directory).map_err(unread)?;
    let mut last = None;
    for &file in files.iter().rev() {
        let bytes = directory.read(file, usize::MAX).map_err(unread)?;
        let bytes = match last {
            None if is_unused(&bytes) => continue,
            None => begun(&mut directory, file, bytes).map_err(unread)?,
            Some(_) => bytes,
        };
        let copied = copy(&draft.path().join(file_name(file)), &bytes);
        copied.map_err(|error| draft.failed(LogError::Failed(error)))?;
        last = last.or(Some((file, bytes.len() as u64)));
    }
    let failed = |error| draft.failed(LogError::Failed(error));
    let mut copy = Directory::open_to_read(draft.path()).map_err(failed)?;
    for (block, bytes) in (0..).zip(end.chunks(BLOCK_BYTES)) {
        copy.write_end(block, bytes).map_err(failed)?;
    }
    let checked = look_through(&mut copy, &mut |_| {}).map_err(|error| draft.failed(error))?;
    let (checked, _) = checked;
    if !checked.is_whole() {
        return Err(ToolError::Damaged(path.to_owned()));
    }
    if let Some((last, log)) = last.zip(checked.walked.log) {
        let note = EndNote {
            log,
            count: EndNote::newest(&end).map_or(0, |end| end.count) + 1,
            segment: last.0,
            segment_bytes: last.1,
            sequence: checked.walked.next_sequence.saturating_sub(1),
            is_closed: true,
        };
        copy.write_end(note.block(), &note.encode())
            .map_err(failed)?;
    }
    draft.finish()?;
    Ok(checked)
}

/// The files of a log that may be written to, all open at once: what is removed from now on is there still.
fn hold(directory: &mut Directory) -> io::Result<Vec<u64>> {
    for _ in 0..LISTS_MAX {
        let files = directory.segments()?;
        let has_gaps = files
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a + 1 != *b));
        let opened = files
            .iter()
            .try_for_each(|file| directory.read(*file, 0).map(drop));
        match opened {
            Ok(()) if !has_gaps => return Ok(files),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => std::thread::sleep(LIST_INTERVAL),
        }
    }
    // Files are missing, and the check of the copy names them.
    directory.segments()
}

/// Whether a file was made in advance.
fn is_unused(bytes: &[u8]) -> bool {
    let head = SegmentHead::decode(bytes.get(..BLOCK_BYTES).unwrap_or(bytes));
    head.is_err() && is_blank_behind(bytes)
}

/// A file that may be written to: its bytes up to where a frame is not there yet.
fn begun(directory: &mut Directory, file: u64, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let head = SegmentHead::decode(bytes.get(..BLOCK_BYTES).unwrap_or_default());
    let Some(head) = head.ok().filter(|head| head.number == file) else {
        return Ok(bytes);
    };
    let (end, next) = end_of(&head, &bytes);
    let (safe, _) = look_behind(&head.log, file, bytes.get(end..).unwrap_or_default());
    // Frames are there that were written behind one that was not when its place was read: by now it is.
    if safe >= next && end_of(&head, &directory.read(file, usize::MAX)?) == (end, next) {
        // It is damaged.
        return Ok(bytes);
    }
    if let Some(behind) = bytes.get_mut(end..) {
        behind.fill(0);
    }
    Ok(bytes)
}

/// Where a segment's frames end, as far as none is missing, and the place of the next.
fn end_of(head: &SegmentHead, bytes: &[u8]) -> (usize, u64) {
    let (mut offset, mut next) = (BLOCK_BYTES, head.first_sequence);
    loop {
        match look(
            &head.log,
            head.number,
            bytes.get(offset..).unwrap_or_default(),
        ) {
            Look::Frame(frame) if frame.sequence == next => {
                offset += frame.wire_bytes();
                next += 1;
            }
            Look::Empty if !offset.is_multiple_of(BLOCK_BYTES) => {
                offset = offset.next_multiple_of(BLOCK_BYTES);
            }
            _ => return (offset, next),
        }
    }
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
