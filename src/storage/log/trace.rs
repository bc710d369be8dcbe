//! What is done to a directory, one operation after the other, for tests that make of it what a power cut may
//! leave at any of them. Nothing is recorded unless it is asked for.
//!
//! ```text
//! operation u8 | segment or block u64 | offset or bytes u64 | length u32 | bytes
//! ```
//! Little endian. Writes stand there before they are begun, the others when they are done.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::Path;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// A segment was made, of so many bytes.
    Create = 1,
    /// A segment was removed.
    Remove = 2,
    /// The directory was made lasting.
    SyncDirectory = 3,
    /// These bytes were written to a segment, at an offset.
    Write = 4,
    /// A segment was made lasting.
    Sync = 5,
    /// These bytes were written to a block of the note of the end, and made lasting.
    WriteEnd = 6,
}

/// Where it is recorded.
#[derive(Debug)]
pub struct Trace(File);

impl Trace {
    /// Goes on in a file, which is made if it is missing.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Trace(file))
    }

    /// Something was done; with one write, so that a process that is killed leaves nothing half recorded.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record(
        &mut self,
        operation: Operation,
        (number, value): (u64, u64),
        parts: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut bytes = vec![operation as u8];
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&value.to_le_bytes());
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        self.0.write_all(&bytes)
    }
}
