//! CPU time and memory of the broker, of this process and of the machine, from /proc and cgroups.

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::path::PathBuf;
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

/// Busy time of all CPUs, interrupts included, since boot.
pub fn machine_cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let mut fields = stat.lines().next()?.split_ascii_whitespace().skip(1);
    let mut ticks = || fields.next().and_then(|f| f.parse::<u64>().ok());
    let busy = ticks()? + ticks()? + ticks()?;
    let _idle = ticks()?;
    let _io_wait = ticks()?;
    let interrupts = ticks()? + ticks()?;
    Some(from_ticks(busy + interrupts))
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_micros(ticks * 1_000_000 / clock_ticks_per_second())
}

fn process(pid: &str) -> Option<Use> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Use {
        cpu: threads_cpu(pid).or_else(|| process_cpu(pid))?,
        resident_bytes: field(&status, "VmRSS:").unwrap_or(0) * 1024,
    })
}

/// In ns, but only of threads that still run.
fn threads_cpu(pid: &str) -> Option<Duration> {
    let mut ns = None;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // It may have ended since it was listed.
        let Ok(stat) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        let ran: u64 = stat.split_ascii_whitespace().next()?.parse().ok()?;
        ns = Some(ns.unwrap_or(0) + ran);
    }
    ns.map(Duration::from_nanos)
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
        assert!(machine_cpu().unwrap() > Duration::ZERO);
        assert!(process_cpu("self").is_some() && threads_cpu("self").is_some());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = Broker::Processes(vec![u32::MAX]).usage().unwrap_err();
        assert!(error.contains("4294967295"), "{error}");
        let error = Broker::Cgroup("/nowhere".into()).usage().unwrap_err();
        assert!(error.contains("/nowhere/cpu.stat"), "{error}");
    }
}
