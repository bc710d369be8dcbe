//! What the machine gives the process: CPUs, memory, descriptors, threads.

use crate::control::cgroup::{self, Bound, Bounds};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

/// Locked memory an executor needs at least.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// What a shard opens beside its listening sockets: rings and what wakes it.
const DESCRIPTORS_OF_SHARD: u64 = 8;
/// What everything else opens, for signals, logs and files that are read again, and a few clients.
const DESCRIPTORS_OF_OTHERS: u64 = 16;

/// Threads of a shard: its own, and one that glommio starts beside it.
const THREADS_OF_SHARD: usize = 2;
/// Of a thread that only waits.
const THREAD_STACK_BYTES: usize = 64 * 1024;
/// So many entries the table of descriptors has at most from the start: 8 bytes of the kernel's each.
const DESCRIPTOR_TABLE_MAX: u64 = 1 << 18;

/// What the machine lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// Fewer threads can be started than so many shards need.
    Threads {
        /// Of a process with these.
        shards: usize,
        /// Threads that they need, beside the process's own.
        needed: usize,
    },
    /// The limit on locked memory, in bytes.
    Memlock(u64),
    /// The limit on address space or data.
    AddressSpace {
        /// So much may be taken.
        limit_bytes: u64,
        /// So much should be.
        needed_bytes: u64,
    },
    /// The limit on open descriptors.
    Descriptors {
        /// So many may be open.
        limit: u64,
        /// So many are needed before the first client comes.
        needed: u64,
        /// Of so many shards.
        shards: u64,
    },
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
            MachineError::AddressSpace {
                limit_bytes,
                needed_bytes,
            } => write!(
                f,
                "the process may take {} MiB only; so many shards need at least {}. Raise it with \
                 `ulimit -v` and `ulimit -d`, or LimitAS= and LimitDATA= in the systemd unit",
                limit_bytes >> 20,
                needed_bytes.div_ceil(1 << 20)
            ),
            MachineError::Descriptors {
                limit,
                needed,
                shards,
            } => write!(
                f,
                "only {limit} descriptors may be open; {shards} shard(s) with these listeners need at least \
                 {needed}, and each client one more. Raise it with `ulimit -n 65536` or LimitNOFILE=65536 in \
                 the systemd unit"
            ),
            MachineError::Threads { shards, needed } => write!(
                f,
                "the system does not give {needed} threads more, which {shards} shard(s) need. Raise the \
                 limit with `ulimit -u`, or TasksMax= in the systemd unit"
            ),
        }
    }
}

impl std::error::Error for MachineError {}

/// CPUs the process may run on.
#[must_use]
pub fn cpus() -> Vec<usize> {
    let fallback = || {
        let count = thread::available_parallelism().map_or(1, |count| count.get());
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

/// What the process's control groups let it have.
#[must_use]
pub fn group_bounds() -> Bounds {
    // One name that is no text must not hide the other lines.
    let read = |path: &Path| {
        let bytes = std::fs::read(path).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = |path| read(Path::new(path)).unwrap_or_default();
    cgroup::bounds(
        &text("/proc/self/cgroup"),
        &text("/proc/self/mountinfo"),
        read,
    )
}

/// How much memory the broker takes before it gives up this and that, and why so much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryShare {
    /// Bytes; 0 if nothing is known to bound it.
    pub max_bytes: u64,
    why: Why,
    /// What is said if that is more than there is.
    excess: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    Configured,
    Group(Bound),
    Machine,
    Process,
}

impl MemoryShare {
    /// What `limits.memory_max_bytes` says; three quarters of what there is if it is 0.
    #[must_use]
    pub fn new(configured_bytes: u64, group: Option<&Bound>) -> Self {
        MemoryShare::of(configured_bytes, group, machine_bytes()).within(process_bytes())
    }

    /// The same, in a process that may take no more than so much: a quarter of that. Stacks, rings and what
    /// the allocator sets aside count too, and an allocation beyond it ends the process.
    fn within(mut self, process: Option<u64>) -> Self {
        let Some(process) = process else {
            return self;
        };
        let (share, max) = (process / 4, self.max_bytes);
        if self.why == Why::Configured && max > share {
            let (max, process, share) = (max >> 20, process >> 20, share >> 20);
            self.excess.get_or_insert(format!(
                "limits.memory_max_bytes is {max} MiB, but the process may take {process} MiB (`ulimit -v`, \
                 `ulimit -d`): it would end before it gives anything up. Raise these, leave the key out, or \
                 set it to at most {share} MiB"
            ));
        } else if max == 0 || max > share {
            (self.max_bytes, self.why) = (share, Why::Process);
        }
        self
    }

    /// Checks that the process may take what a broker needs without clients.
    ///
    /// # Errors
    /// [`MachineError::AddressSpace`] if it may not.
    pub fn check(&self, needed_bytes: u64) -> Result<(), MachineError> {
        match self.why {
            Why::Process if self.max_bytes < needed_bytes => Err(MachineError::AddressSpace {
                limit_bytes: self.max_bytes * 4,
                needed_bytes: needed_bytes * 4,
            }),
            _ => Ok(()),
        }
    }

    fn of(configured_bytes: u64, group: Option<&Bound>, machine: Option<u64>) -> Self {
        // Groups without a limit have one that is higher than any machine's memory.
        let group = group.filter(|group| machine.is_none_or(|machine| group.value < machine));
        let (max_bytes, why) = match (configured_bytes, group) {
            (0, Some(group)) => (group.value / 4 * 3, Why::Group(group.clone())),
            (0, None) => (machine.unwrap_or(0) / 4 * 3, Why::Machine),
            (configured, _) => (configured, Why::Configured),
        };
        let there = group.map(|group| (group.value, group.to_string()));
        let there = there.or(machine.map(|bytes| (bytes, "the machine's memory".to_owned())));
        let excess = there.and_then(|(bytes, what)| {
            let (max, bytes_mib, share) = (max_bytes >> 20, bytes >> 20, (bytes / 4 * 3) >> 20);
            (max_bytes > bytes).then(|| {
                format!(
                    "limits.memory_max_bytes is {max} MiB, but {what} is {bytes_mib} MiB: the kernel would \
                     end the broker before it gives anything up. Leave the key out, or set it to at most \
                     {share} MiB"
                )
            })
        });
        MemoryShare {
            max_bytes,
            why,
            excess,
        }
    }

    /// What `limits.retained_bytes_max` is where it is not said: a quarter, but no more than otherwise.
    #[must_use]
    pub fn retained_bytes_max(&self, otherwise: usize) -> usize {
        match usize::try_from(self.max_bytes / 4) {
            Ok(quarter) if quarter > 0 => quarter.min(otherwise),
            _ => otherwise,
        }
    }

    /// What is wrong with so much that is said there.
    #[must_use]
    pub fn retained_warning(&self, said_bytes: usize) -> Option<String> {
        let (max, said) = (self.max_bytes, said_bytes as u64);
        (max > 0 && said > max / 2).then(|| {
            format!(
                "limits.retained_bytes_max is {} MiB, but limits.memory_max_bytes is {} MiB: retained \
                 messages can leave too little for clients, and at 70 % of it no more are kept. Leave the \
                 key out, or set it to at most {} MiB",
                said >> 20,
                max >> 20,
                (max / 4) >> 20
            )
        })
    }

    /// What is wrong with a limit that is configured.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.excess.as_deref()
    }
}

impl fmt::Display for MemoryShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = self.max_bytes >> 20;
        write!(f, "memory: {max} MiB may be used (limits.memory_max_bytes")?;
        match &self.why {
            Why::Configured => f.write_str(")"),
            Why::Group(bound) => write!(f, "; 3/4 of {bound})"),
            Why::Machine => f.write_str("; 3/4 of the machine's)"),
            Why::Process => f.write_str("; a quarter of `ulimit -v` or `ulimit -d`)"),
        }
    }
}

/// What is wrong with so many shards where control groups allow so much CPU time.
#[must_use]
pub fn shards_warning(shards: usize, quota: Option<&Bound>) -> Option<String> {
    let quota = quota?;
    let shards_max = quota.value.div_ceil(1_000);
    let cpus = quota.value as f64 / 1_000.0;
    (shards as u64 > shards_max).then(|| {
        format!(
            "{shards} shards, but the CPU quota, {quota}, is {cpus} CPUs: when it is used up all of them \
             stand still until its next period. Set shards to {shards_max}, or leave it out"
        )
    })
}

/// The machine's memory.
fn machine_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// What the process may take by its limits on address space and data.
fn process_bytes() -> Option<u64> {
    let limits = [Resource::As, Resource::Data].map(|limit| getrlimit(limit).current);
    limits.into_iter().flatten().min()
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

/// Checks the limit on open descriptors for so many shards with so many listening sockets each; returns how
/// many are left for connections.
///
/// # Errors
/// [`MachineError::Descriptors`] if it is too low.
pub fn check_descriptors(limit: u64, shards: usize, sockets: usize) -> Result<u64, MachineError> {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64);
    let (shards, sockets) = (shards as u64, sockets as u64);
    let needed = open + shards * (DESCRIPTORS_OF_SHARD + sockets) + DESCRIPTORS_OF_OTHERS;
    if limit < needed {
        return Err(MachineError::Descriptors {
            limit,
            needed,
            shards,
        });
    }
    Ok(limit - needed)
}

/// Checks that the system gives as many threads as so many shards take: what lies under a shard starts one
/// more for itself, and ends the process if there is none.
///
/// # Errors
/// [`MachineError::Threads`] if it does not.
pub fn check_threads(shards: usize) -> Result<(), MachineError> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // Until all are there.
        let _shut = gate.lock();
        let needed = shards * THREADS_OF_SHARD;
        for _ in 0..needed {
            let builder = thread::Builder::new().stack_size(THREAD_STACK_BYTES);
            let waits = || drop(gate.lock());
            let started = builder.spawn_scoped(scope, waits);
            started.map_err(|_| MachineError::Threads { shards, needed })?;
        }
        Ok(())
    })
}

/// Has the kernel make its table of descriptors as large as it may get, or nearly: each time it grows in a
/// process of several threads, whoever opens a descriptor stands still for some 10 to 40 ms. Returns the
/// size.
pub fn make_room_for_descriptors(limit: u64) -> u64 {
    let wanted = limit.min(DESCRIPTOR_TABLE_MAX);
    let highest = i32::try_from(wanted.saturating_sub(1)).unwrap_or(0);
    let is_made = std::fs::File::open("/dev/null")
        .is_ok_and(|file| rustix::io::fcntl_dupfd_cloexec(file, highest).is_ok());
    if is_made { wanted } else { 0 }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_machine_and_groups_counts_unless_it_is_said() {
        let group = |value| Bound {
            value,
            file: "memory.max",
            group: "/sys/fs/cgroup/x".into(),
        };
        let share = |configured, group: Option<Bound>, machine| {
            let share = MemoryShare::of(configured, group.as_ref(), machine);
            (share.max_bytes >> 20, share.to_string())
        };
        const GIB: u64 = 1 << 30;
        let (max, told) = share(0, Some(group(GIB)), Some(4 * GIB));
        assert_eq!(max, 768);
        assert_eq!(
            told,
            "memory: 768 MiB may be used (limits.memory_max_bytes; \
             3/4 of memory.max of /sys/fs/cgroup/x)"
        );
        let unlimited = Some(group(9_223_372_036_854_771_712));
        for none in [unlimited, Some(group(8 * GIB)), None] {
            let (max, told) = share(0, none, Some(4 * GIB));
            assert_eq!(max, 3_072);
            assert!(told.ends_with("3/4 of the machine's)"), "{told}");
        }
        assert_eq!(share(0, Some(group(GIB)), None).0, 768);
        assert_eq!(share(0, None, None).0, 0);
        let (max, told) = share(GIB, Some(group(GIB / 2)), Some(4 * GIB));
        assert_eq!(max, 1_024);
        assert!(told.ends_with("(limits.memory_max_bytes)"), "{told}");
    }

    #[test]
    fn more_than_there_is_is_said() {
        let group = |value, file| Bound {
            value,
            file,
            group: "/sys/fs/cgroup/x".into(),
        };
        const GIB: u64 = 1 << 30;
        let half = group(GIB / 2, "memory.max");
        let warning = |configured, group: Option<&Bound>| {
            let share = MemoryShare::of(configured, group, Some(4 * GIB));
            share.warning().map(str::to_owned)
        };
        let told = warning(GIB, Some(&half)).unwrap();
        assert!(told.contains("is 1024 MiB, but memory.max of /sys/fs/cgroup/x is 512 MiB"));
        assert!(told.contains("at most 384 MiB"), "{told}");
        let told = warning(5 * GIB, None).unwrap();
        assert!(told.contains("the machine's memory is 4096 MiB"), "{told}");
        assert_eq!(warning(0, Some(&half)), None);
        let share = MemoryShare::of(GIB, None, Some(4 * GIB));
        assert_eq!(share.retained_bytes_max(1 << 30), 256 << 20);
        assert_eq!(share.retained_bytes_max(1 << 20), 1 << 20);
        assert_eq!(share.retained_warning(512 << 20), None);
        let told = share.retained_warning((512 << 20) + 1).unwrap();
        assert!(told.contains("at most 256 MiB"), "{told}");
        let within = |configured, process| {
            let share = MemoryShare::of(configured, None, Some(4 * GIB));
            share.within(process)
        };
        assert_eq!(within(0, None).max_bytes, 3 * GIB);
        assert_eq!(within(0, Some(16 * GIB)).max_bytes, 3 * GIB);
        let share = within(0, Some(GIB));
        assert_eq!(share.max_bytes, GIB / 4);
        let told = share.to_string();
        assert!(
            told.ends_with("a quarter of `ulimit -v` or `ulimit -d`)"),
            "{told}"
        );
        assert!(share.check(GIB / 4).is_ok() && share.check(GIB / 4 + 1).is_err());
        let share = within(GIB, Some(GIB));
        assert!(
            share
                .warning()
                .is_some_and(|told| told.contains("at most 256 MiB"))
        );
        assert_eq!((share.max_bytes, share.check(GIB * 2)), (GIB, Ok(())));
        assert_eq!(within(GIB / 4, Some(GIB)).warning(), None);
        let unknown = MemoryShare::of(0, None, None);
        assert_eq!(unknown.clone().within(Some(GIB)).max_bytes, GIB / 4);
        assert_eq!(unknown.retained_bytes_max(7), 7);
        assert_eq!(unknown.retained_warning(usize::MAX), None);
        assert_eq!(warning(GIB, None), None);

        let quota = group(1_500, "cpu.max");
        assert_eq!(shards_warning(2, Some(&quota)), None);
        assert_eq!(shards_warning(64, None), None);
        let told = shards_warning(3, Some(&quota)).unwrap();
        assert!(told.contains("is 1.5 CPUs") && told.contains("Set shards to 2"));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(machine_bytes().is_some_and(|bytes| bytes > 0));
        assert!(MemoryShare::new(0, group_bounds().memory.as_ref()).max_bytes > 0);
    }
}
