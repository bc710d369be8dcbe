//! What the process's control groups let it have: memory and CPU time, versions 1 and 2.
//!
//! A limit of any group from the process's own up to the root of the hierarchy binds it, so all that can be
//! seen are asked and the tightest counts. What lies above the root of a container cannot be seen; the group
//! at the container's root is the one that its limits are set on.
//!
//! Nothing here reads a file: text in, numbers out. What is missing or cannot be understood is no limit.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A limit, and where it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Bytes of memory, or thousandths of a CPU.
    pub value: u64,
    /// Name of the file.
    pub file: &'static str,
    /// Directory of the group.
    pub group: PathBuf,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.file, self.group.display())
    }
}

/// The tightest limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Memory in bytes.
    pub memory: Option<Bound>,
    /// CPU time in thousandths of a CPU.
    pub cpu: Option<Bound>,
}

/// Hierarchies that limit memory or CPU time.
#[derive(Clone, Copy, Debug)]
enum Hierarchy {
    /// Version 2, with all controllers.
    Unified,
    /// Version 1, with this controller.
    Of(&'static str),
}

impl Hierarchy {
    /// Whether a line of `/proc/PID/cgroup` with these controllers is about it.
    fn is_named(self, controllers: &str) -> bool {
        match self {
            Hierarchy::Unified => controllers.is_empty(),
            Hierarchy::Of(name) => controllers.split(',').any(|given| given == name),
        }
    }

    /// Whether a file system of this type, with these options, shows it.
    fn is_mounted(self, kind: &str, options: &str) -> bool {
        match self {
            Hierarchy::Unified => kind == "cgroup2",
            Hierarchy::Of(_) => kind == "cgroup" && self.is_named(options),
        }
    }
}

/// The limits of a process, of whose files `/proc/PID/cgroup` and `/proc/PID/mountinfo` this is the text;
/// `read` gives the text of others.
pub fn bounds(cgroup: &str, mountinfo: &str, read: impl Fn(&Path) -> Option<String>) -> Bounds {
    let groups = |hierarchy| groups(hierarchy, cgroup, mountinfo);
    let bytes = |group: &Path, file| bound(&read, group, file, |text| text.parse().ok());
    let unified = groups(Hierarchy::Unified);
    let memory = unified
        .iter()
        .flat_map(|group| [bytes(group, "memory.max"), bytes(group, "memory.high")])
        .flatten();
    let memory_of_v1 = groups(Hierarchy::Of("memory"));
    let memory_of_v1 = memory_of_v1
        .iter()
        .filter_map(|group| bytes(group, "memory.limit_in_bytes"));
    let cpu = unified.iter().filter_map(|group| {
        bound(&read, group, "cpu.max", |text| {
            let (quota, period) = text.split_once(' ')?;
            millicpus(quota, period)
        })
    });
    let cpu_of_v1 = groups(Hierarchy::Of("cpu"));
    let cpu_of_v1 = cpu_of_v1.iter().filter_map(|group| {
        bound(&read, group, "cpu.cfs_quota_us", |quota| {
            millicpus(quota, &read(&group.join("cpu.cfs_period_us"))?)
        })
    });
    Bounds {
        memory: memory.chain(memory_of_v1).min_by_key(|bound| bound.value),
        cpu: cpu.chain(cpu_of_v1).min_by_key(|bound| bound.value),
    }
}

/// The limit that a group's file sets. Zero is none: nothing could run with it.
fn bound(
    read: impl Fn(&Path) -> Option<String>,
    group: &Path,
    file: &'static str,
    value: impl Fn(&str) -> Option<u64>,
) -> Option<Bound> {
    let value = value(read(&group.join(file))?.trim()).filter(|value| *value > 0)?;
    Some(Bound {
        value,
        file,
        group: group.to_owned(),
    })
}

/// Thousandths of a CPU, rounded up; `max` and `-1` are no quota.
fn millicpus(quota: &str, period: &str) -> Option<u64> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok().filter(|period| *period > 0)?;
    Some(quota.saturating_mul(1_000).div_ceil(period))
}

/// Directories of the groups of a process in a hierarchy, its own first.
fn groups(hierarchy: Hierarchy, cgroup: &str, mountinfo: &str) -> Vec<PathBuf> {
    let own = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        hierarchy.is_named(controllers).then_some(path)
    });
    let Some(own) = own else { return Vec::new() };
    let mounts: Vec<_> = mountinfo
        .lines()
        .filter_map(|line| mount(hierarchy, line))
        .collect();
    // The mount that shows most of the way up. A container may show none that knows the process by the name
    // that it has outside; then its root is as near as can be seen.
    let ways = mounts.iter().filter_map(|mount| mount.way_up(own));
    let root = || mounts.first().map(|mount| vec![mount.point.clone()]);
    ways.max_by_key(Vec::len).or_else(root).unwrap_or_default()
}

/// Where a part of a hierarchy can be seen.
struct Mount {
    /// The group that is shown as `point`.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Directories from the group `own` up to the mount's root, if it shows that group.
    fn way_up(&self, own: &str) -> Option<Vec<PathBuf>> {
        let below = Path::new(own).strip_prefix(&self.root).ok()?;
        if below.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let own = self.point.join(below);
        let up = own.ancestors();
        let up = up.take_while(|group| group.starts_with(&self.point));
        // `join` with nothing leaves a slash at the end, of which names should be free.
        Some(up.map(|group| group.components().collect()).collect())
    }
}

/// The mount that a line of `/proc/PID/mountinfo` tells of, if it is of the hierarchy:
/// `ID PARENT DEVICE ROOT POINT OPTIONS [MORE ...] - TYPE SOURCE OPTIONS`.
fn mount(hierarchy: Hierarchy, line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let (name, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
    if !hierarchy.is_mounted(name, options) {
        return None;
    }
    let mut place = place.split(' ').skip(3);
    Some(Mount {
        root: unescape(place.next()?).into(),
        point: unescape(place.next()?).into(),
    })
}

/// Undoes the kernel's way to write blanks in names: a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3);
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(part.get(3..).unwrap_or_default());
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "24 19 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n\
        35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 23 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd\n\
        33 31 0:30 / /sys/fs/cgroup/cpuset rw shared:14 - cgroup cgroup rw,cpuset\n\
        34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:15 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw shared:16 - cgroup cgroup rw,memory\n";

    /// What is found with these files.
    fn found(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> [Option<(u64, String)>; 2] {
        let bounds = bounds(cgroup, mountinfo, |path| {
            let mut files = files.iter();
            let found = files.find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| format!("{text}\n"))
        });
        [bounds.memory, bounds.cpu].map(|bound| bound.map(|bound| (bound.value, bound.to_string())))
    }

    fn some(value: u64, place: &str) -> Option<(u64, String)> {
        Some((value, place.to_owned()))
    }

    #[test]
    fn a_unit_of_systemd_on_version_2() {
        let own = "0::/system.slice/ringmq.service\n";
        let unit = "/sys/fs/cgroup/system.slice/ringmq.service";
        let files = [
            ("/sys/fs/cgroup/system.slice/memory.max", "max"),
            ("/sys/fs/cgroup/system.slice/memory.high", "max"),
            ("/sys/fs/cgroup/system.slice/cpu.max", "max 100000"),
            (
                "/sys/fs/cgroup/system.slice/ringmq.service/memory.max",
                "2147483648",
            ),
            (
                "/sys/fs/cgroup/system.slice/ringmq.service/memory.high",
                "max",
            ),
            (
                "/sys/fs/cgroup/system.slice/ringmq.service/cpu.max",
                "150000 100000",
            ),
        ];
        let memory = some(2 << 30, &format!("memory.max of {unit}"));
        let cpu = some(1_500, &format!("cpu.max of {unit}"));
        assert_eq!(found(own, V2, &files), [memory, cpu]);
        // MemoryHigh= throttles and takes back before MemoryMax= kills.
        let mut files = files;
        files[4].1 = "1073741824";
        let [memory, _] = found(own, V2, &files);
        assert_eq!(memory, some(1 << 30, &format!("memory.high of {unit}")));
    }

    #[test]
    fn a_tighter_parent_counts() {
        let own = "0::/a.slice/a-b.slice/ringmq.service\n";
        let files = [
            ("/sys/fs/cgroup/a.slice/memory.max", "100"),
            ("/sys/fs/cgroup/a.slice/a-b.slice/memory.max", "300"),
            (
                "/sys/fs/cgroup/a.slice/a-b.slice/ringmq.service/memory.max",
                "200",
            ),
            ("/sys/fs/cgroup/a.slice/a-b.slice/cpu.max", "50000 100000"),
            (
                "/sys/fs/cgroup/a.slice/a-b.slice/ringmq.service/cpu.max",
                "400000 100000",
            ),
            // Of others.
            ("/sys/fs/cgroup/a.slice/other/memory.max", "1"),
            ("/sys/fs/cgroup/a.slice/other/cpu.max", "1 100000"),
        ];
        assert_eq!(
            found(own, V2, &files),
            [
                some(100, "memory.max of /sys/fs/cgroup/a.slice"),
                some(500, "cpu.max of /sys/fs/cgroup/a.slice/a-b.slice"),
            ]
        );
    }

    #[test]
    fn a_unit_of_systemd_on_version_1() {
        let own = "12:cpuset:/\n5:cpu,cpuacct:/system.slice/ringmq.service\n\
                   4:memory:/system.slice/ringmq.service\n1:name=systemd:/system.slice/ringmq.service\n";
        let files = [
            // As much as there can be means none.
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712",
            ),
            (
                "/sys/fs/cgroup/memory/system.slice/ringmq.service/memory.limit_in_bytes",
                "536870912",
            ),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
            (
                "/sys/fs/cgroup/cpu,cpuacct/system.slice/ringmq.service/cpu.cfs_quota_us",
                "20000",
            ),
            (
                "/sys/fs/cgroup/cpu,cpuacct/system.slice/ringmq.service/cpu.cfs_period_us",
                "10000",
            ),
        ];
        let unit = "system.slice/ringmq.service";
        let memory = format!("memory.limit_in_bytes of /sys/fs/cgroup/memory/{unit}");
        let cpu = format!("cpu.cfs_quota_us of /sys/fs/cgroup/cpu,cpuacct/{unit}");
        assert_eq!(
            found(own, V1, &files),
            [some(512 << 20, &memory), some(2_000, &cpu)]
        );
        let [memory, cpu] = found(own, V1, &files[..1]);
        assert_eq!(
            memory.map(|(value, _)| value),
            Some(9_223_372_036_854_771_712)
        );
        assert_eq!(cpu, None);
    }

    #[test]
    fn both_versions_at_once() {
        // Controllers are with version 1, version 2 is there for systemd.
        let hybrid =
            format!("{V1}36 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n");
        let own = "4:memory:/user.slice\n1:cpu,cpuacct:/\n0::/user.slice/session-1.scope\n";
        let files = [(
            "/sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes",
            "1000",
        )];
        let memory = some(
            1_000,
            "memory.limit_in_bytes of /sys/fs/cgroup/memory/user.slice",
        );
        assert_eq!(found(own, &hybrid, &files), [memory, None]);
        // The other way round: memory has moved to version 2.
        let files = [("/sys/fs/cgroup/unified/user.slice/memory.max", "1000")];
        let memory = some(1_000, "memory.max of /sys/fs/cgroup/unified/user.slice");
        assert_eq!(found("0::/user.slice\n", &hybrid, &files), [memory, None]);
    }

    #[test]
    fn docker_with_a_namespace() {
        let mounts = "700 690 0:27 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";
        let files = [
            ("/sys/fs/cgroup/memory.max", "268435456"),
            ("/sys/fs/cgroup/memory.high", "max"),
            ("/sys/fs/cgroup/cpu.max", "50000 100000"),
        ];
        let want = [
            some(256 << 20, "memory.max of /sys/fs/cgroup"),
            some(500, "cpu.max of /sys/fs/cgroup"),
        ];
        assert_eq!(found("0::/\n", mounts, &files), want);
        // Mounted by somebody above, or the process was moved out of the namespace's root.
        let above = mounts.replace(" / /sys", " /../.. /sys");
        assert_eq!(found("0::/\n", &above, &files), want);
        assert_eq!(found("0::/../else\n", mounts, &files), want);
    }

    #[test]
    fn docker_without_a_namespace() {
        let mounts = "700 690 0:27 /docker/ab12 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
            701 690 0:28 /docker/ab12 /sys/fs/cgroup/cpu,cpuacct ro master:9 - cgroup cgroup rw,cpu,cpuacct\n";
        let own = "9:memory:/docker/ab12\n8:cpu,cpuacct:/docker/ab12/inner\n";
        let files = [
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "100000"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
            ("/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us", "-1"),
        ];
        let want = [
            some(256 << 20, "memory.limit_in_bytes of /sys/fs/cgroup/memory"),
            some(1_000, "cpu.cfs_quota_us of /sys/fs/cgroup/cpu,cpuacct"),
        ];
        assert_eq!(found(own, mounts, &files), want);
        // A name that begins alike is another group: what the container shows is as near as can be seen.
        let own = own.replace("ab12", "ab123");
        assert_eq!(found(&own, mounts, &files), want);
        // Of several mounts the one that shows most of the way up.
        let whole =
            format!("{mounts}702 690 0:27 / /mnt/my\\040groups rw - cgroup cgroup rw,memory\n");
        let files = [("/mnt/my groups/docker/memory.limit_in_bytes", "7")];
        let [memory, _] = found(&own, &whole, &files);
        assert_eq!(
            memory,
            some(7, "memory.limit_in_bytes of /mnt/my groups/docker")
        );
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_is_no_limit() {
        let none = [None, None];
        assert_eq!(found("", "", &[]), none);
        assert_eq!(found("0::/a\n", "", &[]), none);
        assert_eq!(found("", V2, &[("/sys/fs/cgroup/memory.max", "5")]), none);
        assert_eq!(found("0::/a\n", V2, &[]), none);
        for (memory, cpu) in [
            ("max", "max 100000"),
            ("", ""),
            ("0", "0 100000"),
            ("-5", "-1 100000"),
            ("many", "100000"),
            ("99999999999999999999999", "1 0"),
        ] {
            let files = [
                ("/sys/fs/cgroup/memory.max", memory),
                ("/sys/fs/cgroup/cpu.max", cpu),
            ];
            assert_eq!(found("0::/a\n", V2, &files), none, "{memory} {cpu}");
        }
        for garbage in [
            "0",
            ":",
            "::",
            "0::",
            "- -",
            "1 2 3 - cgroup2",
            "\\ - cgroup2 x y",
        ] {
            assert_eq!(found(garbage, garbage, &[]), none);
        }
    }

    #[test]
    fn quotas_are_rounded_up_to_thousandths() {
        assert_eq!(millicpus("100001", "100000"), Some(1_001));
        assert_eq!(millicpus("1000", "1000000"), Some(1));
        assert_eq!(millicpus("18446744073709551615", "1"), Some(u64::MAX));
    }

    #[test]
    fn names_are_written_with_octal_digits() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\"), r"/a\");
        assert_eq!(unescape(r"/a\99é"), r"/a\99é");
    }
}
