//! CPU time and memory of the broker, of this process and of the machine, from /proc and cgroups.

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the broker's use of the machine is read.
#[derive(Clone, Debug)]
pub enum Broker {
    /// Processes; what they started counts only if it is named too.
    Processes(Vec<u32>),
    /// A cgroup v2 folder.
    Cgroup(PathBuf),
}

/// CPU time and memory at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// User and system time so far.
    pub cpu: Duration,
    /// Time that its threads were ready to run and had no CPU, where the kernel says so.
    pub waited: Option<Duration>,
    /// Resident bytes.
    pub resident_bytes: u64,
}

impl Broker {
    /// Reads its use now; the message names what cannot be read.
    pub fn usage(&self) -> Result<Use, String> {
        match self {
            Broker::Processes(pids) => {
                let mut sum = Use::default();
                for pid in pids {
                    let one = process(&pid.to_string())
                        .ok_or_else(|| format!("there is no process {pid} (--pid)"))?;
                    sum.cpu += one.cpu;
                    sum.waited = add(sum.waited, one.waited);
                    sum.resident_bytes += one.resident_bytes;
                }
                Ok(sum)
            }
            Broker::Cgroup(path) => {
                let missing = |file: &str| format!("cannot read {}/{file}", path.display());
                let stat =
                    fs::read_to_string(path.join("cpu.stat")).map_err(|_| missing("cpu.stat"))?;
                let us = field(&stat, "usage_usec ").ok_or_else(|| missing("cpu.stat"))?;
                let memory = fs::read_to_string(path.join("memory.current"));
                let bytes = memory.ok().and_then(|text| text.trim().parse().ok());
                Ok(Use {
                    cpu: Duration::from_micros(us),
                    waited: None,
                    resident_bytes: bytes.unwrap_or(0),
                })
            }
        }
    }
}

/// CPU time of this process.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What all CPUs did since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUse {
    /// Busy time, interrupts included.
    pub busy: Duration,
    /// Time that a hypervisor gave to others.
    pub stolen: Duration,
}

/// What all CPUs did since boot.
pub fn machine() -> Option<MachineUse> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let mut fields = stat.lines().next()?.split_ascii_whitespace().skip(1);
    let mut ticks = || fields.next().and_then(|f| f.parse::<u64>().ok());
    let busy = ticks()? + ticks()? + ticks()?;
    let _idle = ticks()?;
    let _io_wait = ticks()?;
    let interrupts = ticks()? + ticks()?;
    let stolen = ticks().unwrap_or(0);
    Some(MachineUse {
        busy: from_ticks(busy + interrupts),
        stolen: from_ticks(stolen),
    })
}

/// What the scheduler gave to a thread, and what it let it wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUse {
    /// Time on a CPU.
    pub ran: Duration,
    /// Time ready to run, without a CPU.
    pub waited: Duration,
}

impl ThreadUse {
    /// What came since `before`.
    pub fn since(self, before: ThreadUse) -> ThreadUse {
        ThreadUse {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

/// What the calling thread got so far, where the kernel says so.
pub fn this_thread() -> Option<ThreadUse> {
    schedstat(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

fn schedstat(text: &str) -> Option<ThreadUse> {
    let mut fields = text.split_ascii_whitespace();
    let mut ns = || fields.next()?.parse().ok().map(Duration::from_nanos);
    Some(ThreadUse {
        ran: ns()?,
        waited: ns()?,
    })
}

/// How long control groups have held this process back; the longest of its own and those around it.
pub fn throttled() -> Option<Duration> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut longest = None;
    for group in groups.lines() {
        let mut parts = group.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            named if named.split(',').any(|c| c == "cpu") => Path::new("/sys/fs/cgroup/cpu"),
            _ => continue,
        };
        for folder in Path::new(path).ancestors() {
            let within = folder.strip_prefix("/").unwrap_or(folder);
            let stat = fs::read_to_string(root.join(within).join("cpu.stat"));
            let held_back = stat.ok().as_deref().and_then(throttled_in);
            longest = longest.max(held_back);
        }
    }
    longest
}

fn throttled_in(stat: &str) -> Option<Duration> {
    let us = field(stat, "throttled_usec ").map(Duration::from_micros);
    us.or_else(|| field(stat, "throttled_time ").map(Duration::from_nanos))
}

/// Load average of the last minute.
pub fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// CPUs that are online, whether or not this process may use them.
pub fn cpus() -> usize {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let is_cpu = |line: &&str| {
        let number = line
            .strip_prefix("cpu")
            .and_then(|rest| rest.bytes().next());
        number.is_some_and(|byte| byte.is_ascii_digit())
    };
    stat.lines().filter(is_cpu).count().max(1)
}

fn add(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_micros(ticks * 1_000_000 / clock_ticks_per_second())
}

fn process(pid: &str) -> Option<Use> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let threads = threads(pid);
    Some(Use {
        cpu: threads.map(|t| t.ran).or_else(|| process_cpu(pid))?,
        waited: threads.map(|t| t.waited),
        resident_bytes: field(&status, "VmRSS:").unwrap_or(0) * 1024,
    })
}

/// In ns, but only of threads that still run.
fn threads(pid: &str) -> Option<ThreadUse> {
    let mut sum: Option<ThreadUse> = None;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // It may have ended since it was listed.
        let Ok(stat) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        let one = schedstat(&stat)?;
        let sum = sum.get_or_insert_default();
        sum.ran += one.ran;
        sum.waited += one.waited;
    }
    sum
}

/// In clock ticks, where the kernel keeps no schedstat.
fn process_cpu(pid: &str) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(from_ticks(user + system))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_the_machine_some_cpu() {
        let broker = Broker::Processes(vec![std::process::id()]);
        assert!(broker.usage().unwrap().resident_bytes > 100_000);
        assert!(machine().unwrap().busy > Duration::ZERO && cpus() >= 1);
        assert!(process_cpu("self").is_some() && threads("self").is_some());
        assert!(this_thread().unwrap().ran > Duration::ZERO && load_average().is_some());
    }

    #[test]
    fn what_is_held_back_is_read_in_either_unit() {
        let us = throttled_in("nr_throttled 3\nthrottled_usec 1500\n");
        assert_eq!(us, Some(Duration::from_micros(1500)));
        let ns = throttled_in("nr_throttled 3\nthrottled_time 2000\n");
        assert_eq!(ns, Some(Duration::from_micros(2)));
        assert_eq!(throttled_in("usage_usec 5\n"), None);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = Broker::Processes(vec![u32::MAX]).usage().unwrap_err();
        assert!(error.contains("4294967295"), "{error}");
        let error = Broker::Cgroup("/nowhere".into()).usage().unwrap_err();
        assert!(error.contains("/nowhere/cpu.stat"), "{error}");
    }
}
