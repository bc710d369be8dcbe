//! What the machine gives the process: CPUs, descriptors, locked memory.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;

/// Locked memory an executor needs at least.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// What the machine lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// The limit on locked memory, in bytes.
    Memlock(u64),
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MachineError::Memlock(bytes) => write!(
                f,
                "the limit on locked memory is {bytes} bytes; io_uring needs at least \
                 {MEMLOCK_BYTES_MIN}. Raise it with `ulimit -l 8192` or LimitMEMLOCK=8M in the \
                 systemd unit"
            ),
        }
    }
}

impl std::error::Error for MachineError {}

/// CPUs the process may run on.
#[must_use]
pub fn cpus() -> Vec<usize> {
    let fallback = || {
        let count = std::thread::available_parallelism().map_or(1, |count| count.get());
        (0..count).collect()
    };
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return fallback();
    };
    let cpus: Vec<_> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect();
    if cpus.is_empty() { fallback() } else { cpus }
}

/// Memory that the process may use: the machine's, or its control group's if that is less.
#[must_use]
pub fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let machine = line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse().ok());
    Some(group.map_or(machine, |group: u64| group.min(machine)))
}

/// Memory of the process that is resident now.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Raises the limit on open descriptors as far as it goes; returns it.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Root may go beyond the hard limit; where that fails, the hard limit has to do.
    let beyond = Rlimit {
        current: Some(1_048_576),
        maximum: Some(1_048_576),
    };
    let is_low = limit.maximum.is_some_and(|maximum| maximum < 1_048_576);
    if !(is_low && setrlimit(Resource::Nofile, beyond).is_ok()) {
        let _ = setrlimit(Resource::Nofile, wanted);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Checks the limit on locked memory.
///
/// # Errors
/// [`MachineError::Memlock`] if it is too low.
pub fn check_memlock() -> Result<(), MachineError> {
    match getrlimit(Resource::Memlock).current {
        // Whoever may lock without limit is not bound by it.
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN && !rustix::process::geteuid().is_root() => {
            Err(MachineError::Memlock(bytes))
        }
        _ => Ok(()),
    }
}
