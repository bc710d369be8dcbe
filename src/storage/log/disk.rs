//! What a log asks of a disk. [`Directory`] is a real one; the tests have one that loses what was not
//! synced.
//!
//! Each call blocks until the system has done it. Nothing is safe before [`Disk::sync`] or
//! [`Disk::sync_directory`] has returned.

use super::end::{BLOCKS, END_FILE};
use super::segment::{BLOCK_BYTES, file_name, number_of};
use super::trace::{Operation, Trace};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, Mode, OFlags};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The segments' files.
pub trait Disk {
    /// Numbers of the segments that are there.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn segments(&mut self) -> io::Result<Vec<u64>>;

    /// Makes a segment of so many bytes, all zero, of the room that is for this.
    ///
    /// # Errors
    /// There is no room, or it cannot be made; then it is not there.
    fn create(&mut self, segment: u64, bytes: u64, room: Room) -> io::Result<()>;

    /// Bytes that segments could still take, what is kept back included.
    ///
    /// # Errors
    /// It does not tell.
    fn free_bytes(&mut self) -> io::Result<u64>;

    /// Removes a segment.
    ///
    /// # Errors
    /// It is still there.
    fn remove(&mut self, segment: u64) -> io::Result<()>;

    /// Makes lasting which segments there are.
    ///
    /// # Errors
    /// Nobody knows which there are after a crash.
    fn sync_directory(&mut self) -> io::Result<()>;

    /// Writes all parts, one behind the other.
    ///
    /// # Errors
    /// Some of it may be written.
    fn write(&mut self, segment: u64, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Makes lasting what was written to a segment.
    ///
    /// # Errors
    /// Nobody knows what is; a second try would not tell.
    fn sync(&mut self, segment: u64) -> io::Result<()>;

    /// The first bytes of a segment, so many if it has them.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&mut self, segment: u64, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// Fills a buffer with a segment's bytes from there on; with fewer only where it ends.
    ///
    /// # Errors
    /// They cannot be read.
    fn read_at(&mut self, segment: u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// A segment will be read soon: it may be fetched meanwhile.
    fn read_ahead(&mut self, _segment: u64) {}

    /// Writes one of the two blocks in which the log's end is noted, and makes it lasting; the other one
    /// stays as it is.
    ///
    /// # Errors
    /// That block may be neither what it was nor what it was to be.
    fn write_end(&mut self, block: u64, bytes: &[u8]) -> io::Result<()>;

    /// Both blocks, one behind the other; empty if nothing was noted.
    ///
    /// # Errors
    /// They cannot be read.
    fn read_end(&mut self) -> io::Result<Vec<u8>>;
}

/// Which room a segment may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// What is to be had beside what is kept free, and beside so many bytes.
    Beside(u64),
    /// All there is: what is written then makes room.
    KeptBack,
}

/// A directory of the file system, for one process at a time.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    directory: File,
    /// Held as long as this is there; `None` if there is nothing to lock in what is only read.
    _lock: Option<File>,
    /// How segments are opened.
    access: OFlags,
    /// Bytes of the file system that stay free.
    free_bytes_min: u64,
    open: HashMap<u64, File>,
    /// Where the log's end is noted, once it was.
    end: Option<File>,
    /// Where a test has recorded what is done.
    trace: Option<Trace>,
}

/// Most bytes that stay free by default.
const FREE_BYTES_MAX: u64 = 1 << 30;
/// Name of the file that is locked.
const LOCK: &str = "LOCK";

/// The directory is locked beside the file in it: whoever takes that for a stale one and removes it lets
/// nobody in. File systems that lock no directories have the file alone.
fn lock_itself(directory: &File) -> io::Result<()> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

impl Directory {
    /// Takes a directory, which is made if it is missing; only its owner may look into it.
    ///
    /// # Errors
    /// It cannot be made or opened, or another process has it ([`io::ErrorKind::WouldBlock`]).
    pub fn open(path: &Path) -> io::Result<Self> {
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdir(path, mode) {
            Err(error) if error != rustix::io::Errno::EXIST => return Err(error.into()),
            _ => {}
        }
        let directory = File::open(path)?;
        let lock = rustix::fs::openat(
            &directory,
            LOCK,
            OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        lock_itself(&directory)?;
        Ok(Directory {
            path: path.to_owned(),
            directory,
            _lock: Some(lock.into()),
            access: OFlags::RDWR,
            free_bytes_min: 0,
            open: HashMap::new(),
            end: None,
            trace: None,
        })
    }

    /// Takes a directory that is there, to read it: nothing in it is changed, and it need not be writable.
    ///
    /// # Errors
    /// It cannot be opened, or another process has it ([`io::ErrorKind::WouldBlock`]).
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        let mut opened = Directory::open_to_copy(path)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        lock_itself(&opened.directory)?;
        opened._lock = match rustix::fs::openat(&opened.directory, LOCK, flags, Mode::empty()) {
            Ok(lock) => {
                rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
                Some(lock.into())
            }
            // A copy of the segments alone; no process uses it.
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(opened)
    }

    /// Takes a directory that is there, to copy what is in it, whoever else has it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_to_copy(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory: File = rustix::fs::open(path, flags, Mode::empty())?.into();
        Ok(Directory {
            path: path.to_owned(),
            directory,
            _lock: None,
            access: OFlags::RDONLY,
            free_bytes_min: 0,
            open: HashMap::new(),
            end: None,
            trace: None,
        })
    }

    /// So many bytes of the file system stay free: no segment is made that would take of them. By default a
    /// twentieth, at most 1 GiB.
    ///
    /// # Errors
    /// The file system does not tell how large it is.
    pub fn keep_free(&mut self, bytes: Option<u64>) -> io::Result<()> {
        let share = || {
            let system = rustix::fs::fstatvfs(&self.directory)?;
            let all = system.f_blocks.saturating_mul(system.f_frsize);
            io::Result::Ok((all / 20).min(FREE_BYTES_MAX))
        };
        self.free_bytes_min = bytes.map_or_else(share, Ok)?;
        Ok(())
    }

    /// Records what is done from now on.
    pub fn record_in(&mut self, trace: Trace) {
        self.trace = Some(trace);
    }

    fn record(
        &mut self,
        operation: Operation,
        place: (u64, u64),
        parts: &[IoSlice<'_>],
    ) -> io::Result<()> {
        match &mut self.trace {
            None => Ok(()),
            Some(trace) => trace.record(operation, place, parts),
        }
    }

    fn free(&self) -> io::Result<u64> {
        let system = rustix::fs::fstatvfs(&self.directory)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Whether so many bytes more leave enough free.
    fn check_free(&self, bytes: u64, beside: u64) -> io::Result<()> {
        let free = self.free()?;
        // One segment more can be made for what makes room.
        let least = self.free_bytes_min.max(bytes.saturating_add(beside));
        if free < bytes.saturating_add(least) {
            let why = if least > self.free_bytes_min {
                "for writing anew what is kept"
            } else {
                "storage.free_bytes_min"
            };
            let text = format!("{free} bytes are free, of which {least} stay so ({why})");
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }

    /// Somebody may have removed the directory: what is written there then is nobody's.
    fn check_there(&self) -> io::Result<()> {
        if rustix::fs::fstat(&self.directory)?.st_nlink == 0 {
            let text = format!("{} was removed", self.path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Ok(())
    }

    /// The file in which the log's end is noted, with room for it.
    fn make_end(&self) -> io::Result<File> {
        let file = open_file(&self.directory, END_FILE, OFlags::CREATE | OFlags::RDWR)?;
        let bytes = BLOCKS * BLOCK_BYTES as u64;
        if file.metadata()?.len() < bytes {
            fill(&file, bytes)?;
            file.sync_all()?;
            self.directory.sync_all()?;
        }
        Ok(file)
    }

    fn file(&mut self, segment: u64) -> io::Result<&File> {
        match self.open.entry(segment) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(free) => {
                let name = file_name(segment);
                Ok(free.insert(open_file(&self.directory, &name, self.access)?))
            }
        }
    }
}

/// Opens a file of a directory, which is an ordinary one.
fn open_file(directory: &File, name: &str, flags: OFlags) -> io::Result<File> {
    // Nobody may come to the other end of a pipe.
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let file: File = rustix::fs::openat(directory, name, flags, mode)?.into();
    if !file.metadata()?.is_file() {
        let text = format!("{name} is not an ordinary file");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(file)
}

/// Takes the room of a file on a file system that cannot be asked for it.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < bytes {
        let most = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
        let part = zeros.get(..most).unwrap_or(&zeros);
        file.write_all_at(part, offset)?;
        offset += part.len() as u64;
    }
    Ok(())
}

impl Disk for Directory {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            numbers.extend(entry?.file_name().to_str().and_then(number_of));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn create(&mut self, segment: u64, bytes: u64, room: Room) -> io::Result<()> {
        if let Room::Beside(beside) = room {
            self.check_free(bytes, beside)?;
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let name = file_name(segment);
        let mode = Mode::from_raw_mode(0o600);
        let file: File = rustix::fs::openat(&self.directory, &name, flags, mode)?.into();
        let allocated = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => fill(&file, bytes),
            allocated => allocated.map_err(Into::into),
        };
        if let Err(error) = allocated {
            rustix::fs::unlinkat(&self.directory, &name, rustix::fs::AtFlags::empty())?;
            return Err(error);
        }
        self.open.insert(segment, file);
        self.record(Operation::Create, (segment, bytes), &[])
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        self.free()
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.open.remove(&segment);
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::unlinkat(&self.directory, file_name(segment), flags)?;
        self.record(Operation::Remove, (segment, 0), &[])
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.directory.sync_all()?;
        self.record(Operation::SyncDirectory, (0, 0), &[])
    }

    fn write(
        &mut self,
        segment: u64,
        mut offset: u64,
        mut parts: &mut [IoSlice<'_>],
    ) -> io::Result<()> {
        // Before: what is taken from the parts is gone.
        self.record(Operation::Write, (segment, offset), parts)?;
        let file = self.file(segment)?;
        while !parts.is_empty() {
            // The kernel takes so many at once.
            let at_once = parts.get(..parts.len().min(1_024)).unwrap_or_default();
            match rustix::io::pwritev(file, at_once, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut parts, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        self.file(segment)?.sync_data()?;
        self.record(Operation::Sync, (segment, 0), &[])
    }

    fn read(&mut self, segment: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let file = self.file(segment)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length.min(bytes_max)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn read_at(&mut self, segment: u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.file(segment)?;
        let mut filled = 0;
        while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
            match file.read_at(free, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_ahead(&mut self, segment: u64) {
        // Who cannot fetch it now says so when it is read.
        if let Ok(file) = self.file(segment) {
            let _ = rustix::fs::fadvise(file, 0, None, Advice::WillNeed);
        }
    }

    fn write_end(&mut self, block: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_there()?;
        let file = match self.end.take() {
            Some(file) => file,
            None => self.make_end()?,
        };
        let written = file.write_all_at(bytes, block * BLOCK_BYTES as u64);
        let written = written.and_then(|()| file.sync_data());
        self.end = Some(file);
        written?;
        self.record(Operation::WriteEnd, (block, 0), &[IoSlice::new(bytes)])
    }

    fn read_end(&mut self) -> io::Result<Vec<u8>> {
        let file = match open_file(&self.directory, END_FILE, OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut blocks = Vec::new();
        file.take(BLOCKS * BLOCK_BYTES as u64)
            .read_to_end(&mut blocks)?;
        Ok(blocks)
    }
}
