//! What the kernel must be able to do, and how its refusals are told.

use super::error::RingError;
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
        Some(libc::ENOSYS) => too_old("io_uring"),
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
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    RingError::KernelTooOld {
        running: release,
        missing,
    }
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
