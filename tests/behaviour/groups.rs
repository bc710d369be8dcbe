//! Limits of control groups are followed: memory is defended before the kernel ends the process, and no more
//! shards run than the CPU quota feeds.
//!
//! Needs root and a hierarchy in which groups can be made; says in a line where that is not so. How files of
//! other machines are read is tested in `src/control/cgroup.rs`.

use crate::support::{Broker, Connect, Setup, eventually, unique};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

const ROOT: &str = "/sys/fs/cgroup";

/// A group with limits, and a group in it without; both go when it is dropped.
struct Group {
    outer: PathBuf,
    inner: PathBuf,
}

impl Group {
    /// Settings are those of version 2, then of version 1.
    fn new(controller: &str, settings: [&[(&str, &str)]; 2]) -> Option<Self> {
        let hierarchies = [
            ROOT.into(),
            format!("{ROOT}/unified"),
            format!("{ROOT}/{controller}"),
        ];
        for (index, hierarchy) in hierarchies.iter().enumerate() {
            let enabled = fs::read_to_string(format!("{hierarchy}/cgroup.subtree_control"));
            let enabled = enabled.unwrap_or_default();
            let is_v1 = index == 2;
            if !is_v1 && !enabled.split_whitespace().any(|name| name == controller) {
                continue;
            }
            match Self::make(Path::new(hierarchy), settings[usize::from(is_v1)]) {
                Ok(group) => return Some(group),
                Err(error) => println!("no group in {hierarchy}: {error}"),
            }
        }
        println!("not tested: this machine lets nobody make a group with a limit of {controller}");
        None
    }

    fn make(hierarchy: &Path, settings: &[(&str, &str)]) -> io::Result<Self> {
        let outer = hierarchy.join(unique("ringmq-test"));
        let inner = outer.join("inner");
        fs::create_dir(&outer)?;
        // From here on what was made is removed.
        let group = Group { outer, inner };
        fs::create_dir(&group.inner)?;
        for (file, value) in settings {
            fs::write(group.outer.join(file), value)?;
        }
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for group in [&self.inner, &self.outer] {
            // A process that has just ended may still be in it.
            for _ in 0..100 {
                if fs::remove_dir(group).is_ok() || !group.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn logs(broker: &Broker, text: &str) {
    eventually(text, || broker.log().contains(text).then_some(()));
}

#[test]
fn memory_is_defended_below_the_limit_of_the_group() {
    let limit = [("memory.max", "209715200")];
    let limit_of_v1 = [("memory.limit_in_bytes", "209715200")];
    let Some(group) = Group::new("memory", [&limit, &limit_of_v1]) else {
        return;
    };
    let broker = Setup::new().shards(1).group(&group.inner).start();
    logs(
        &broker,
        "memory: 150 MiB may be used (limits.memory_max_bytes; 3/4 of memory.",
    );
    logs(&broker, &format!(" of {})", group.outer.display()));
    for n in 0..3 {
        let mut away = Connect::v5(&unique("away")).persistent().open(&broker);
        away.subscribe(&format!("group/{n}"), 1);
        away.disconnect();
    }
    let mut publisher = Connect::v5(&unique("publisher")).open(&broker);
    let payload = vec![b'x'; 256 * 1024];
    let mut count = 0;
    while broker.counters().get("memory_stage") < 1 {
        assert!(count < 800, "all of 200 MiB were taken");
        publisher.publish(&format!("group/{}", count % 3), 1, &payload);
        count += 1;
    }
    Connect::v5(&unique("reader")).open(&broker).ping();
    assert!(!broker.log().contains("before it gives anything up"));
    broker.stop();
    let more = "[limits]\nmemory_max_bytes = 314572800\n";
    let setup = Setup::new().shards(1).config(more);
    let broker = setup.group(&group.inner).start();
    logs(&broker, "limits.memory_max_bytes is 300 MiB, but memory.");
    broker.stop();
}

#[test]
fn no_more_shards_run_than_the_quota_of_the_group_feeds() {
    let quota = [("cpu.max", "50000 100000")];
    let quota_of_v1 = [
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
    ];
    let Some(group) = Group::new("cpu", [&quota, &quota_of_v1]) else {
        return;
    };
    let broker = Setup::new().group(&group.inner).start();
    logs(&broker, "runs 1 shard(s)");
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
        logs(&broker, "1 shard(s): the CPU quota, cpu.");
        logs(
            &broker,
            &format!(" of {}, is 0.5 CPUs", group.outer.display()),
        );
    }
    Connect::v5(&unique("slow")).open(&broker).ping();
    broker.stop();
    // Who says how many gets them, and is told.
    let broker = Setup::new().shards(2).group(&group.inner).start();
    logs(&broker, "runs 2 shard(s)");
    logs(&broker, "2 shards, but the CPU quota, cpu.");
    broker.stop();
}
