//! Files that the broker reads whole, at the start and again while it runs, or that it writes on and on: all
//! of them in this one way, so that none can hold up whoever opens it. Opening never waits (for who is at a
//! pipe's other end); only plain files are read, and no more of them than a bound, and only plain files and
//! terminals and the like (`/dev/null`, `/dev/stderr`) are written.
//!
//! Not here: what they say.

use rustix::fs::{Access, AtFlags, CWD, OFlags};
use rustix::io::Errno;
use std::fmt;
use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Largest configuration file.
pub const CONFIG_BYTES_MAX: usize = 4 << 20;
/// Largest file of users, access rules or bans, and largest revocation list.
pub const LIST_BYTES_MAX: usize = 64 << 20;
/// Largest file of certificates, of CAs, and with a private key.
pub const CERTIFICATES_BYTES_MAX: usize = 4 << 20;
/// Largest file of keys of tokens, and with a secret.
pub const KEYS_BYTES_MAX: usize = 1 << 20;

/// Why a file cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The system says no.
    System(io::Error),
    /// It is something else than a plain file.
    Kind(&'static str),
    /// There is more than is allowed.
    TooLarge {
        /// What is allowed.
        bytes_max: usize,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::System(error) => write!(f, "cannot be read: {error}"),
            ReadError::Kind(kind) => write!(f, "is {kind}; name a plain file"),
            ReadError::TooLarge { bytes_max } if bytes_max % (1 << 20) == 0 => {
                write!(f, "is larger than {} MiB", bytes_max >> 20)
            }
            ReadError::TooLarge { bytes_max } => write!(f, "is larger than {bytes_max} bytes"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a file cannot be written.
#[derive(Debug)]
pub enum WriteError {
    /// The system says no.
    System(io::Error),
    /// It is something else than a plain file.
    Kind(&'static str),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::System(error) => error.fmt(f),
            WriteError::Kind(kind) => write!(f, "is {kind}; name a plain file"),
        }
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::System(error) => error,
            WriteError::Kind(_) => io::Error::other(error.to_string()),
        }
    }
}

/// What a file is called that is none of the plain ones.
fn kind(file: FileType) -> &'static str {
    if file.is_dir() {
        "a directory"
    } else if file.is_fifo() {
        "a pipe"
    } else if file.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Reads a plain file of at most `bytes_max`, or what a link leads to.
///
/// # Errors
/// It cannot be opened, is no plain file, or is larger.
pub fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = opened.map_err(ReadError::System)?;
    let is = file.metadata().map_err(ReadError::System)?;
    if !is.is_file() {
        return Err(ReadError::Kind(kind(is.file_type())));
    }
    let too_large = ReadError::TooLarge { bytes_max };
    if is.len() > bytes_max as u64 {
        return Err(too_large);
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile; one byte more shows that.
    let read = file.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    match read.map_err(ReadError::System)? {
        count if count > bytes_max => Err(too_large),
        _ => Ok(bytes),
    }
}

/// Opens a file for lines at its end, or begins it.
///
/// # Errors
/// It cannot be opened, or is a pipe, a socket, a disk that was named: who is to read it may not, and what
/// is on it would be lost.
pub fn append(path: &Path) -> Result<File, WriteError> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let opened = File::options()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    // A pipe without a reader, and a socket, cannot even be opened so.
    let file = opened.map_err(|error| look(path).err().unwrap_or(WriteError::System(error)))?;
    may_be_written(
        path,
        file.metadata().map_err(WriteError::System)?.file_type(),
    )?;
    // A terminal is written at its own pace.
    let set = rustix::fs::fcntl_setfl(&file, OFlags::APPEND);
    set.map_err(|error| WriteError::System(error.into()))?;
    Ok(file)
}

/// Whether what is at `path`, if anything is, could be written by [`append`], as far as that can be seen.
///
/// # Errors
/// It is a pipe, a socket, a disk or a folder.
pub fn look(path: &Path) -> Result<(), WriteError> {
    std::fs::metadata(path).map_or(Ok(()), |is| may_be_written(path, is.file_type()))
}

/// What [`append`] may do at `path` by its rights, as far as that can be seen without making anything: write
/// what is there, or make it in its folder.
///
/// # Errors
/// What it may not, and the remedy.
pub fn may_append(path: &Path) -> Result<(), String> {
    match may(path, Access::WRITE_OK) {
        Err(Errno::NOENT) => may_make(path),
        Err(error) => Err(format!(
            "{} may not write it: {}; give it to that user, or name another",
            own_user(),
            io::Error::from(error)
        )),
        Ok(()) => Ok(()),
    }
}

/// Whether a file could be made at `path` by the rights to its folder.
///
/// # Errors
/// Why not, and the remedy.
pub fn may_make(path: &Path) -> Result<(), String> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    may_write_into(folder).map_err(|error| {
        format!(
            "{} may make no file in the folder {}: {}; let that user write there, or name another",
            own_user(),
            folder.display(),
            io::Error::from(error)
        )
    })
}

/// Whether files could be made in a folder by the rights to it.
///
/// # Errors
/// Why not.
pub fn may_write_into(folder: &Path) -> Result<(), Errno> {
    may(folder, Access::WRITE_OK | Access::EXEC_OK)
}

/// Asks by the rights that opening goes by.
fn may(path: &Path, access: Access) -> Result<(), Errno> {
    rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS)
}

/// Who the process is, for the log.
fn own_user() -> String {
    format!("the user with number {}", rustix::process::geteuid())
}

/// Where a process finds what was handed to it open, whatever that is: under service managers often a pipe.
const HANDED_OVER: [&str; 4] = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"];

fn may_be_written(path: &Path, file: FileType) -> Result<(), WriteError> {
    let is_handed_over = HANDED_OVER.iter().any(|place| path.starts_with(place));
    if file.is_file() || file.is_char_device() || file.is_fifo() && is_handed_over {
        return Ok(());
    }
    Err(WriteError::Kind(kind(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(path: &str) -> String {
        read(Path::new(path), 1 << 20).unwrap_err().to_string()
    }

    #[test]
    fn only_plain_files_are_read_and_none_is_waited_for() {
        assert_eq!(error("/dev/zero"), "is a device; name a plain file");
        assert_eq!(error("/dev"), "is a directory; name a plain file");
        assert!(error("/nowhere/at/all").starts_with("cannot be read: "));
        let own = std::env::current_exe().unwrap();
        let text = read(&own, 1 << 20).unwrap_err().to_string();
        assert_eq!(text, "is larger than 1 MiB");
        let text = read(&own, 1_000).unwrap_err().to_string();
        assert_eq!(text, "is larger than 1000 bytes");
        // What the system makes up is a plain file of no length, and bounded all the same.
        assert!(read(Path::new("/proc/self/maps"), 10).is_err());
    }
}
