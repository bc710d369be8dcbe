//! A disk that forgets: what was not synced may be lost, sector by sector, and so may files made or removed.

use super::Random;
use ringmq::storage::log::disk::{Disk, Room};
use ringmq::storage::log::segment::{BLOCK_BYTES, SegmentHead};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};

const SECTOR: usize = 512;

/// A file as the kernel has it, and as the disk has it.
#[derive(Clone, Debug, Default)]
struct SimFile {
    cached: Vec<u8>,
    lasting: Vec<u8>,
    /// Sectors that differ, maybe.
    dirty: BTreeSet<usize>,
    /// The last sector written: it may be torn.
    last: Option<usize>,
}

/// What may go wrong, per mille of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub crash: u32,
    pub full: u32,
    pub failing: u32,
}

/// The disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    files: BTreeMap<u64, SimFile>,
    /// Files that were there when the directory was synced last.
    lasting: BTreeMap<u64, SimFile>,
    /// Where the log's end is noted: each write of it lasts.
    end: Vec<u8>,
    random: Random,
    faults: Faults,
    /// Bytes that it has, all files together.
    bytes: u64,
    pub has_crashed: bool,
}

impl SimDisk {
    pub fn new(random: Random) -> Self {
        SimDisk {
            files: BTreeMap::new(),
            lasting: BTreeMap::new(),
            end: Vec::new(),
            random,
            faults: Faults::default(),
            bytes: u64::MAX,
            has_crashed: false,
        }
    }

    pub fn set_bytes(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The first place in a segment.
    pub fn first_sequence(&self, segment: u64) -> u64 {
        let file = self.files.get(&segment).expect("there");
        SegmentHead::decode(&file.cached[..BLOCK_BYTES])
            .expect("a head")
            .first_sequence
    }

    /// The bytes of a file as they last.
    pub fn bytes_mut(&mut self, segment: u64) -> Option<&mut Vec<u8>> {
        self.files.get_mut(&segment).map(|file| &mut file.cached)
    }

    pub fn remove_file(&mut self, segment: u64) -> Option<Vec<u8>> {
        self.files.remove(&segment).map(|file| file.cached)
    }

    pub fn put_file(&mut self, segment: u64, cached: Vec<u8>) {
        let lasting = cached.clone();
        let file = SimFile {
            cached,
            lasting,
            ..SimFile::default()
        };
        self.files.insert(segment, file);
    }

    /// Where the log's end is noted.
    pub fn end_mut(&mut self) -> &mut Vec<u8> {
        &mut self.end
    }

    /// The process was killed; the kernel goes on.
    pub fn killed(mut self) -> Self {
        self.has_crashed = false;
        self.faults = Faults::default();
        self
    }

    /// The power was cut: each sector that was not synced is kept or lost, the last one may be torn, and what
    /// became of the directory is open.
    pub fn cut(self) -> Self {
        let mut random = self.random.clone();
        let mut files = BTreeMap::new();
        let numbers: BTreeSet<u64> = self
            .files
            .keys()
            .chain(self.lasting.keys())
            .copied()
            .collect();
        for number in numbers {
            let is_lasting = self.lasting.contains_key(&number);
            let file = self.files.get(&number).or(self.lasting.get(&number));
            let is_there = match (self.files.contains_key(&number), is_lasting) {
                (true, true) => true,
                _ => random.chance(500),
            };
            if is_there && let Some(file) = file {
                let bytes = after_cut(file, &mut random);
                files.insert(
                    number,
                    SimFile {
                        cached: bytes.clone(),
                        lasting: bytes,
                        ..SimFile::default()
                    },
                );
            }
        }
        SimDisk {
            lasting: files.clone(),
            files,
            end: self.end,
            random,
            faults: Faults::default(),
            bytes: self.bytes,
            has_crashed: false,
        }
    }

    /// Whether this call is the last one, or fails.
    fn strike(&mut self) -> io::Result<()> {
        if self.has_crashed || self.random.chance(self.faults.crash) {
            self.has_crashed = true;
            return Err(io::Error::other("the power is off"));
        }
        if self.random.chance(self.faults.failing) {
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(())
    }

    fn file(&mut self, segment: u64) -> io::Result<&mut SimFile> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        self.files.get_mut(&segment).ok_or_else(missing)
    }
}

fn after_cut(file: &SimFile, random: &mut Random) -> Vec<u8> {
    let mut bytes = file.lasting.clone();
    for &sector in &file.dirty {
        let from = sector * SECTOR;
        let end = (from + SECTOR).min(file.cached.len());
        let kept = match random.below(if file.last == Some(sector) { 3 } else { 2 }) {
            0 => from,
            1 => end,
            _ => from + random.below(end - from),
        };
        bytes[from..kept].copy_from_slice(&file.cached[from..kept]);
    }
    bytes
}

impl Disk for SimDisk {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        self.strike()?;
        Ok(self.files.keys().copied().collect())
    }

    fn create(&mut self, segment: u64, bytes: u64, room: Room) -> io::Result<()> {
        self.strike()?;
        let stays = match room {
            Room::Beside(beside) => bytes.saturating_add(beside),
            Room::KeptBack => 0,
        };
        let is_full = self.free_bytes()? < bytes.saturating_add(stays);
        if is_full || self.random.chance(self.faults.full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let zeros = vec![0; bytes as usize];
        let file = SimFile {
            cached: zeros.clone(),
            lasting: zeros,
            ..SimFile::default()
        };
        if self.files.insert(segment, file).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(())
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        let taken = self.files.values().map(|file| file.cached.len() as u64);
        Ok(self.bytes.saturating_sub(taken.sum()))
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.strike()?;
        self.file(segment)?;
        if let (Some(file), Some(lasting)) =
            (self.files.remove(&segment), self.lasting.get_mut(&segment))
        {
            *lasting = file;
        }
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.strike()?;
        self.lasting = self.files.clone();
        Ok(())
    }

    fn write(&mut self, segment: u64, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        // A crash in the middle leaves a part.
        let struck = self.strike();
        let written = match struck {
            Ok(()) => all.len(),
            Err(_) => self.random.below(all.len() + 1),
        };
        let from = offset as usize;
        let file = self.file(segment)?;
        assert!(from + all.len() <= file.cached.len(), "beyond the segment");
        file.cached[from..from + written].copy_from_slice(&all[..written]);
        let sectors = from / SECTOR..(from + written).div_ceil(SECTOR);
        file.last = sectors.clone().last();
        file.dirty.extend(sectors);
        struck
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        self.strike()?;
        let file = self.file(segment)?;
        for sector in std::mem::take(&mut file.dirty) {
            let end = (sector * SECTOR + SECTOR).min(file.cached.len());
            let place = sector * SECTOR..end;
            file.lasting[place.clone()].copy_from_slice(&file.cached[place]);
        }
        file.last = None;
        Ok(())
    }

    fn read(&mut self, segment: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.strike()?;
        let bytes = &self.file(segment)?.cached;
        Ok(bytes[..bytes.len().min(bytes_max)].to_vec())
    }

    fn read_at(&mut self, segment: u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.strike()?;
        let bytes = &self.file(segment)?.cached;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_end(&mut self, block: u64, bytes: &[u8]) -> io::Result<()> {
        let struck = self.strike();
        let from = block as usize * BLOCK_BYTES;
        self.end.resize(2 * BLOCK_BYTES, 0);
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = from + number * SECTOR;
            let kept = match struck {
                Ok(()) => sector.len(),
                Err(_) => self.random.pick(&[0, sector.len() / 3, sector.len()]),
            };
            self.end[at..at + kept].copy_from_slice(&sector[..kept]);
        }
        struck
    }

    fn read_end(&mut self) -> io::Result<Vec<u8>> {
        self.strike()?;
        Ok(self.end.clone())
    }
}
