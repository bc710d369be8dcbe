//! What the kernel must be able to do, and how its refusals are told.

use super::error::{KERNEL_MIN, RingError};
use super::queue::Queue;
use io_uring::opcode;
use std::io;

/// Operations the driver submits. SENDMSG_ZC is not used: it came with the first release that has
/// everything else the driver needs but that cannot be asked for (multishot receive, deferred work),
/// so it also recognises distributions' kernels that have it all under an older number.
const OPERATIONS: [(u8, &str); 9] = [
    (opcode::Accept::CODE, "io_uring accept"),
    (opcode::RecvMulti::CODE, "io_uring recv"),
    (opcode::Send::CODE, "io_uring send"),
    (opcode::SendMsg::CODE, "io_uring sendmsg"),
    (opcode::AsyncCancel::CODE, "io_uring cancel"),
    (opcode::Read::CODE, "io_uring read"),
    (opcode::Timeout::CODE, "io_uring timeout"),
    (opcode::MsgRingData::CODE, "io_uring messages between rings"),
    (opcode::SendMsgZc::CODE, "io_uring multishot receive"),
];

/// Checks a new ring for everything the driver relies on.
pub(super) fn check(queue: &Queue) -> Result<(), RingError> {
    let probe = queue
        .probe()
        .map_err(|error| explain("io_uring_register", error))?;
    let missing = OPERATIONS
        .iter()
        .find(|(code, _)| !probe.is_supported(*code));
    if let Some((_, missing)) = missing {
        return Err(too_old(missing));
    }
    if !queue.keeps_completions() {
        return Err(too_old("io_uring completion overflow and timed waits"));
    }
    Ok(())
}

/// Says why a step of making a ring failed.
pub(super) fn explain(step: &'static str, error: io::Error) -> RingError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => unknown(release()),
        // An unknown setup flag or registration.
        Some(libc::EINVAL) => too_old("io_uring features the broker relies on"),
        Some(libc::EPERM | libc::EACCES) => RingError::Forbidden {
            disabled: disabled(),
        },
        Some(libc::ENOMEM) => RingError::MemoryLock {
            limit_bytes: lock_limit_bytes(),
        },
        Some(libc::EMFILE | libc::ENFILE) => RingError::Descriptors,
        _ => RingError::System {
            step,
            source: error,
        },
    }
}

fn too_old(missing: &'static str) -> RingError {
    RingError::KernelTooOld {
        running: release(),
        missing,
    }
}

fn release() -> String {
    let name = rustix::system::uname();
    name.release().to_string_lossy().into_owned()
}

/// Some profiles of containers answer to what they forbid as if the kernel did not know it.
fn unknown(running: String) -> RingError {
    if version(&running) >= version(KERNEL_MIN) {
        return RingError::Hidden { running };
    }
    RingError::KernelTooOld {
        running,
        missing: "io_uring",
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn disabled() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn lock_limit_bytes() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_recent_enough_hides_io_uring_and_an_older_one_lacks_it() {
        for running in ["6.1.0-18-amd64", "6.18.44", "7.0"] {
            let told = unknown(running.to_owned());
            assert!(matches!(told, RingError::Hidden { .. }), "{told}");
        }
        for running in ["5.0.21", "4.18.0-553.el8", "", "x"] {
            let told = unknown(running.to_owned());
            assert!(matches!(told, RingError::KernelTooOld { .. }), "{told}");
        }
    }
}
