//! Why a ring could not be made or go on: what is missing and what the operator can do.

use std::fmt;
use std::io;

/// The oldest kernel release on which the driver runs.
pub const KERNEL_MIN: &str = "6.1";

/// A ring could not be made, or the kernel refused to go on with it.
#[derive(Debug)]
pub enum RingError {
    /// The kernel lacks io_uring or a part of it.
    KernelTooOld {
        /// Release of the running kernel.
        running: String,
        /// The part that is missing.
        missing: &'static str,
    },
    /// The kernel is recent enough, and answers as if it knew no io_uring.
    Hidden {
        /// Release of the running kernel.
        running: String,
    },
    /// io_uring exists but this process may not use it.
    Forbidden {
        /// Value of the sysctl `kernel.io_uring_disabled`, where the kernel has it.
        disabled: Option<u8>,
    },
    /// The locked-memory limit is too small for the rings.
    MemoryLock {
        /// Soft limit in bytes, `None` for unlimited.
        limit_bytes: Option<u64>,
    },
    /// The process is out of file descriptors.
    Descriptors,
    /// A setting that the kernel cannot serve.
    Config(&'static str),
    /// Any other failure of a system call.
    System {
        /// The step that failed.
        step: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::KernelTooOld { running, missing } => write!(
                f,
                "the running kernel {running} lacks {missing}: Linux {KERNEL_MIN} or later is needed"
            ),
            RingError::Forbidden {
                disabled: Some(value @ 1..),
            } => write!(
                f,
                "io_uring is disabled by the sysctl kernel.io_uring_disabled={value}: set it to 0 \
                 (sysctl -w kernel.io_uring_disabled=0), or with 1 add the user's group to \
                 kernel.io_uring_group"
            ),
            RingError::Forbidden { .. } => write!(
                f,
                "io_uring is not permitted for this process: allow io_uring_setup, io_uring_enter \
                 and io_uring_register in the container's seccomp profile (scripts/seccomp.json does) or \
                 security policy"
            ),
            RingError::Hidden { running } => write!(
                f,
                "the running kernel {running} shows this process no io_uring: allow io_uring_setup, \
                 io_uring_enter and io_uring_register in the container's seccomp profile \
                 (scripts/seccomp.json does), or take a kernel that is built with io_uring \
                 (CONFIG_IO_URING)"
            ),
            RingError::MemoryLock { limit_bytes } => {
                write!(f, "not enough lockable memory for io_uring (limit ")?;
                match limit_bytes {
                    Some(bytes) => write!(f, "{} KiB", bytes / 1024)?,
                    None => write!(f, "none")?,
                }
                write!(
                    f,
                    "): raise RLIMIT_MEMLOCK (ulimit -l, or LimitMEMLOCK= of the service)"
                )
            }
            RingError::Descriptors => write!(
                f,
                "no file descriptors left for io_uring: raise RLIMIT_NOFILE (ulimit -n, or \
                 LimitNOFILE= of the service)"
            ),
            RingError::Config(what) => write!(f, "ring settings: {what}"),
            RingError::System { step, source } => write!(f, "io_uring: {step}: {source}"),
        }
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RingError::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_names_the_remedy() {
        let old = RingError::KernelTooOld {
            running: "5.10.0".into(),
            missing: "multishot receive",
        };
        for (error, parts) in [
            (old, vec!["5.10.0", "multishot receive", "6.1 or later"]),
            (
                RingError::Forbidden { disabled: Some(2) },
                vec!["kernel.io_uring_disabled=2", "set it to 0"],
            ),
            (RingError::Forbidden { disabled: Some(0) }, vec!["seccomp"]),
            (RingError::Forbidden { disabled: None }, vec!["seccomp"]),
            (
                RingError::MemoryLock {
                    limit_bytes: Some(65536),
                },
                vec!["64 KiB", "RLIMIT_MEMLOCK"],
            ),
            (
                RingError::Hidden {
                    running: "6.12.1".into(),
                },
                vec!["6.12.1", "seccomp.json", "CONFIG_IO_URING"],
            ),
            (RingError::Descriptors, vec!["RLIMIT_NOFILE"]),
        ] {
            let text = error.to_string();
            for part in parts {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}
