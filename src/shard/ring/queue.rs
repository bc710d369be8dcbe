//! The two queues shared with the kernel: what is submitted, entered and reaped.
//!
//! Invariant: `outstanding` counts submissions whose last completion has not been reaped, so at zero
//! the kernel uses no memory of ours but the receive buffers' ring. A full submission queue never
//! loses an entry: it is handed over early, and what does not fit waits in `backlog` (bounded by the
//! few operations each socket can have).
#![expect(unsafe_code, reason = "submissions name memory that outlives them")]

use super::config::{RingConfig, TaskRun};
use super::error::RingError;
use super::gather::Several;
use super::key::{Operation, Token};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Most completions that are waited for at once.
const WANTED_MAX: u32 = 1024;

/// One completion, copied out of the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub user_data: u64,
    pub result: i32,
    pub flags: u32,
}

impl Completion {
    /// Whether the same submission will complete again.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Bytes that it brought.
    pub fn received_bytes(&self) -> usize {
        self.buffer()
            .map_or(0, |_| usize::try_from(self.result).unwrap_or(0))
    }

    /// The provided buffer it fills, if any.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

pub(super) struct Queue {
    uring: IoUring,
    backlog: VecDeque<squeue::Entry>,
    outstanding: usize,
    reap_on_submit: bool,
    /// Sends queued since the last enter, in which most of them complete.
    sends_queued: u32,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// How often completions had to wait in the kernel for room.
    pub overflows: u64,
    /// Completions taken out of it.
    pub taken: u64,
}

impl Queue {
    pub fn new(config: &RingConfig) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder
            .setup_cqsize(config.completions.next_power_of_two())
            .setup_submit_all();
        builder.setup_taskrun_flag();
        match config.task_run {
            TaskRun::Cooperative => builder.setup_coop_taskrun(),
            TaskRun::Deferred => builder.setup_single_issuer().setup_defer_taskrun(),
        };
        let uring = builder.build(config.entries.next_power_of_two())?;
        Ok(Queue {
            uring,
            backlog: VecDeque::new(),
            outstanding: 0,
            reap_on_submit: config.task_run == TaskRun::Deferred,
            sends_queued: 0,
            enters: 0,
            overflows: 0,
            taken: 0,
        })
    }

    pub fn raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    pub fn probe(&self) -> io::Result<Probe> {
        let mut probe = Probe::new();
        self.uring.submitter().register_probe(&mut probe)?;
        Ok(probe)
    }

    /// Whether the kernel keeps completions that find no room.
    pub fn keeps_completions(&self) -> bool {
        self.uring.params().is_feature_nodrop() && self.uring.params().is_feature_ext_arg()
    }

    /// # Safety
    /// `entries` must point to `count` page-aligned entries that outlive the ring.
    pub unsafe fn register_buffers(&self, entries: u64, count: u16, group: u16) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        unsafe {
            self.uring
                .submitter()
                .register_buf_ring_with_flags(entries, count, group, 0)
        }
    }

    /// Makes room to register `count` descriptors.
    pub fn reserve_files(&self, count: u32) -> io::Result<()> {
        self.uring.submitter().register_files_sparse(count)
    }

    /// Registers a descriptor at `slot`.
    pub fn put_file(&self, slot: u32, descriptor: RawFd) -> io::Result<()> {
        let files = self.uring.submitter();
        files.register_files_update(slot, &[descriptor]).map(drop)
    }

    /// Whether the kernel can wait for several completions, but not for long.
    pub fn can_gather(&self) -> bool {
        self.reap_on_submit && self.uring.params().is_feature_min_timeout()
    }

    /// Submissions that have not completed for the last time.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Queues one operation.
    ///
    /// # Safety
    /// Memory that the entry names must stay valid and in place until its last completion.
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        let operation = entry.get_user_data() >> 56;
        self.outstanding += usize::from(operation != Operation::WakeSent as u64);
        self.sends_queued += u32::from(operation == Operation::Send as u64);
        // SAFETY: promised by the caller; entries in the backlog stay under the same promise.
        if self.backlog.is_empty() && unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return;
        }
        self.backlog.push_back(entry);
        // A failure here repeats at the turn's own submit, which reports it.
        let _ = self.submit();
    }

    /// Hands over everything queued, if there is anything, in one call (more only beyond the size of
    /// the queue).
    pub fn submit(&mut self) -> Result<(), RingError> {
        loop {
            self.refill();
            let submission = self.uring.submission();
            if submission.is_empty() && !submission.taskrun() && !submission.cq_overflow() {
                return Ok(());
            }
            let overflow = submission.cq_overflow();
            drop(submission);
            if !self.enter(0, None, overflow)? || self.backlog.is_empty() {
                return Ok(());
            }
        }
    }

    /// Hands over everything queued and sleeps until a completion is there, or several if so many are to
    /// gather beside those of the sends; at most `timeout`: one system call.
    pub fn submit_and_wait(
        &mut self,
        timeout: Duration,
        several: Option<Several>,
    ) -> Result<(), RingError> {
        self.refill();
        if !self.backlog.is_empty() {
            self.submit()?;
        }
        let overflow = self.uring.submission().cq_overflow();
        let timespec = types::Timespec::from(timeout);
        let args = types::SubmitArgs::new().timespec(&timespec);
        let (want, args) = match several {
            Some(several) => {
                let want = several.events.saturating_add(self.sends_queued);
                // Never beyond the room for completions: the kernel would not know when to stop.
                (want.min(WANTED_MAX), args.min_wait_usec(several.us_max))
            }
            None => (1, args),
        };
        self.enter(want, Some(&args), overflow)?;
        Ok(())
    }

    /// One `io_uring_enter`. `false`: the kernel takes nothing until completions are reaped.
    fn enter(
        &mut self,
        want: u32,
        wait: Option<&types::SubmitArgs<'_, '_>>,
        overflow: bool,
    ) -> Result<bool, RingError> {
        self.enters += 1;
        self.overflows += u64::from(overflow);
        self.sends_queued = 0;
        let submission = self.uring.submission();
        let (count, has_work) = (submission.len() as u32, submission.taskrun());
        drop(submission);
        let mut flags = EnterFlags::empty();
        // With deferred work an enter without GETEVENTS would leave completions behind.
        let reaps = wait.is_some() || self.reap_on_submit || overflow || has_work;
        flags.set(EnterFlags::GETEVENTS, reaps);
        flags.set(EnterFlags::EXT_ARG, wait.is_some());
        // Nobody waits for a disk here, and tools would show that.
        let no_iowait = wait.is_some() && self.uring.params().is_feature_no_iowait();
        flags.set(EnterFlags::NO_IOWAIT, no_iowait);
        // SAFETY: `count` entries are in the queue, and EXT_ARG says that there are arguments.
        let result = unsafe {
            let submitter = self.uring.submitter();
            submitter.enter(count, want, flags.bits(), wait)
        };
        match result {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_os_error() {
                // The wait ended by time or signal; submissions were taken first.
                Some(libc::ETIME | libc::EINTR) => Ok(true),
                // No room or no memory for now: reaping makes room, the entries stay queued.
                Some(libc::EBUSY | libc::EAGAIN) => Ok(false),
                _ => Err(RingError::System {
                    step: "io_uring_enter",
                    source: error,
                }),
            },
        }
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: promised to `push` by its caller.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Completions that can be reaped without a system call.
    pub fn completions_ready(&mut self) -> usize {
        self.uring.completion().len()
    }

    /// Whether the kernel keeps completions that find no room.
    pub fn is_overflowing(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// Moves up to `max` completions into `into`, which is cleared first.
    pub fn reap(&mut self, into: &mut Vec<Completion>, max: usize) {
        into.clear();
        into.extend(self.uring.completion().take(max).map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
        self.taken += into.len() as u64;
        for completion in into.iter() {
            let operation = Token::unpack(completion.user_data).map(|token| token.operation);
            let ours = !matches!(
                operation,
                Some(Operation::WakeArrived | Operation::WakeSent)
            );
            if ours && !completion.more() {
                self.outstanding = self.outstanding.saturating_sub(1);
            }
        }
    }
}
