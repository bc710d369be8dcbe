//! The process as the system sees it: CPU by thread, descriptors.

use std::fs;
use std::path::Path;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// CPU time in user space and in the kernel, by threads' names.
    pub threads_cpu_s: Vec<(String, f64)>,
    /// CPU time of all, those that have ended too.
    pub cpu_s: f64,
    /// Open descriptors.
    pub descriptors: u64,
    /// How many may be.
    pub descriptors_max: u64,
}

/// CPU time of a shard's thread, among those of all.
pub(super) fn of_shard(threads_cpu_s: &[(String, f64)], shard: u16) -> Option<f64> {
    let name = format!("ringmq-{shard}");
    let mut threads = threads_cpu_s.iter();
    let found = threads.find(|(known, _)| *known == name);
    found.map(|(_, seconds)| *seconds)
}

/// CPU time in user space and in the kernel, by threads' names.
pub(super) fn threads_cpu_s() -> Vec<(String, f64)> {
    let mut threads_cpu_s: Vec<(String, f64)> = Vec::new();
    for task in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Some((name, seconds)) = cpu(&task.path().join("stat")) {
            let name = plain(&name).to_owned();
            // Several threads of one name are one.
            match threads_cpu_s.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += seconds,
                None => threads_cpu_s.push((name, seconds)),
            }
        }
    }
    threads_cpu_s.sort_by(|(one, _), (other, _)| one.cmp(other));
    threads_cpu_s
}

/// Open descriptors: from Linux 6.2 on the size of their folder, to count them takes 10 ms for 20,000.
fn descriptors() -> u64 {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).map_or(0, |folder| folder.len()) {
        0 => fs::read_dir(folder).map_or(0, Iterator::count) as u64,
        size => size,
    }
}

/// Looks now; what cannot be seen is 0.
pub(super) fn look() -> Process {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Process {
        threads_cpu_s: threads_cpu_s(),
        cpu_s: cpu(Path::new("/proc/self/stat")).map_or(0.0, |(_, seconds)| seconds),
        descriptors: descriptors(),
        descriptors_max: limit.current.unwrap_or(u64::MAX),
    }
}

/// A shard's thread without the number that its runtime puts behind its name.
fn plain(name: &str) -> &str {
    let shard = name
        .strip_prefix("ringmq-")
        .and_then(|rest| rest.split_once('-'));
    let known = shard.and_then(|(shard, _)| name.get(.."ringmq-".len() + shard.len()));
    known.unwrap_or(name)
}

fn cpu(path: &Path) -> Option<(String, f64)> {
    parse(&fs::read_to_string(path).ok()?)
}

/// Name and CPU seconds of a line of `/proc/PID/stat`.
fn parse(line: &str) -> Option<(String, f64)> {
    let (head, fields) = line.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let mut ticks = fields.split(' ').skip(11).take(2);
    let user: u64 = ticks.next()?.parse().ok()?;
    let system: u64 = ticks.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some((name.to_owned(), (user + system) as f64 / per_second as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_system_is_read_whatever_the_thread_is_called() {
        let line = "7 (a) (b) S 1 2 3 4 5 6 7 8 9 10 300 50 0 0 20 0 5";
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(parse(line), Some(("a) (b".to_owned(), 350.0 / per_second)));
        assert_eq!(parse("7 (a) S 1"), None);
        for (name, known) in [
            ("ringmq-1-2", "ringmq-1"),
            ("ringmq-12", "ringmq-12"),
            ("log", "log"),
        ] {
            assert_eq!(plain(name), known);
        }
        let process = look();
        assert!(process.descriptors > 2 && process.descriptors_max >= process.descriptors);
        assert!(!process.threads_cpu_s.is_empty());
        let threads = [("ringmq-1".to_owned(), 2.5)];
        assert_eq!(
            [0, 1].map(|shard| of_shard(&threads, shard)),
            [None, Some(2.5)]
        );
    }
}
