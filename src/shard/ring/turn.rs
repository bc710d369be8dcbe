//! One turn: completions become events, in the order in which the kernel posted them.

use super::Ring;
use super::buffers::BufferRing;
use super::handler::{Handler, ReceiveEnd};
use super::key::{Operation, Token};
use super::queue::Completion;
use super::socket::Phase;
use std::mem;
use std::time::Instant;

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnReport {
    /// Completions worked off.
    pub completions: usize,
    /// A wake by another thread or ring arrived.
    pub woken: bool,
    /// There is more to deliver now.
    pub more: bool,
}

/// Accepts of a turn that follow one who was turned away: they cost a call each, and little else.
const ACCEPTS_ANEW_MAX: u32 = 64;
/// Completions that are taken out of the queue at once; those that were are delivered.
const EVENTS_AT_ONCE: usize = 64;

impl Ring {
    /// Delivers what the kernel has completed, at most `events_per_turn_max` completions, and no more after
    /// `receive_bytes_per_turn_max` bytes. Makes no system call unless the submission queue overflows.
    pub fn turn(&mut self, handler: &mut impl Handler) -> TurnReport {
        self.turn_until(handler, None)
    }

    /// A turn that delivers no more after a time, but some.
    pub fn turn_until(&mut self, handler: &mut impl Handler, until: Option<Instant>) -> TurnReport {
        let mut report = TurnReport::default();
        let Some(mut buffers) = self.buffers.take() else {
            debug_assert!(false, "turn called from a handler");
            return report;
        };
        let mut completions = mem::take(&mut self.completions);
        let (mut bytes, mut receives) = (0, 0);
        let is_late = || until.is_some_and(|until| Instant::now() >= until);
        let is_crowded = self.is_crowded();
        let mut accepts_left = ACCEPTS_ANEW_MAX;
        while report.completions < self.config.events_per_turn_max
            && bytes < self.config.receive_bytes_per_turn_max
        {
            let left = self.config.events_per_turn_max - report.completions;
            self.queue.reap(&mut completions, left.min(EVENTS_AT_ONCE));
            if completions.is_empty() {
                if is_late() || !self.accepts_at_once(&mut accepts_left) {
                    break;
                }
                continue;
            }
            report.completions += completions.len();
            for completion in &completions {
                receives += u32::from(completion.buffer().is_some());
                if is_crowded && self.puts_off(completion) {
                    continue;
                }
                bytes += completion.received_bytes();
                self.dispatch(handler, &mut buffers, *completion, &mut report);
            }
            let is_full = completions.len() == EVENTS_AT_ONCE;
            if is_full && is_late() {
                break;
            }
        }
        let (mut delivered, bytes_max) = (0, self.config.receive_bytes_per_turn_max);
        while let Some(completion) =
            self.next_put_off(delivered, || bytes >= bytes_max || is_late())
        {
            delivered += 1;
            bytes += completion.received_bytes();
            self.dispatch(handler, &mut buffers, completion, &mut report);
        }
        self.counters.completions += report.completions as u64;
        self.counters.bytes_received += bytes as u64;
        self.gather.note(receives, bytes);
        self.completions = completions;
        self.buffers = Some(buffers);
        self.rearm();
        self.deliver_finished(handler);
        report.more = self.has_events();
        report
    }

    /// Accepts once more in this turn, after somebody was turned away; whether it has tried.
    fn accepts_at_once(&mut self, left: &mut u32) -> bool {
        let accepts = mem::take(&mut self.accepts_another) && *left > 0;
        *left = left.saturating_sub(1);
        // A failure repeats at the turn's own submit, which reports it.
        accepts && self.queue.submit().is_ok()
    }

    fn dispatch(
        &mut self,
        handler: &mut impl Handler,
        buffers: &mut BufferRing,
        completion: Completion,
        report: &mut TurnReport,
    ) {
        let Some(token) = Token::unpack(completion.user_data) else {
            debug_assert!(false, "completion of nothing we submitted");
            return;
        };
        match token.operation {
            Operation::Accept => self.accept_completed(handler, token, completion),
            Operation::AcceptCancel => self.accept_cancel_completed(token),
            Operation::AcceptBackoff => self.accept_backoff_completed(token),
            Operation::Refuse => self.refuse_completed(token, completion),
            Operation::RefuseClose => {}
            Operation::Receive => self.receive_completed(handler, buffers, token, completion),
            Operation::ReceiveNow => {
                self.scarcity.note_bulk(false);
                self.receive_completed(handler, buffers, token, completion);
            }
            Operation::ReceiveCancel => self.receive_cancel_completed(token, completion),
            Operation::Send => self.send_completed(handler, token, completion),
            Operation::SendCancel => self.send_cancel_completed(token, completion),
            Operation::WakeRead => {
                report.woken = true;
                self.arm_wake();
            }
            Operation::WakeArrived => report.woken = true,
            Operation::WakeSent => self.wake_failed(token),
        }
    }

    fn receive_completed(
        &mut self,
        handler: &mut impl Handler,
        buffers: &mut BufferRing,
        token: Token,
        completion: Completion,
    ) {
        let key = token.socket();
        let phase = self
            .sockets
            .get(key)
            .map_or(Phase::Free, |socket| socket.phase);
        let wanted = matches!(phase, Phase::Open | Phase::Releasing);
        if let Some(id) = completion.buffer() {
            let length = usize::try_from(completion.result).unwrap_or(0);
            match buffers.filled(id, length) {
                Some(bytes) if wanted && !bytes.is_empty() => handler.received(self, key, bytes),
                _ => {}
            }
            buffers.give_back(id);
        }
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if !completion.more() {
            socket.receiving = false;
            socket.receive_cancelled = false;
        }
        let end = match completion.result {
            1.. if self.scarcity.is_on() && !socket.receiving => {
                socket.bulk = completion.result as u32 == self.config.receive_buffer_bytes;
                self.scarcity.line_up(key, socket, false);
                None
            }
            1.. => None,
            0 => Some(ReceiveEnd::Eof),
            code => match -code {
                libc::ENOBUFS => {
                    self.counters.receives_starved += 1;
                    self.scarcity.begin();
                    self.scarcity.line_up(key, socket, true);
                    None
                }
                libc::EAGAIN => {
                    socket.bulk = false;
                    None
                }
                libc::ECANCELED | libc::EINTR => None,
                error => Some(ReceiveEnd::Failed(error)),
            },
        };
        if let Some(end) = end
            && !mem::replace(&mut socket.ended, true)
            && matches!(socket.phase, Phase::Open | Phase::Releasing)
        {
            handler.receive_ended(self, key, end);
        }
        self.settle(key);
    }

    fn receive_cancel_completed(&mut self, token: Token, completion: Completion) {
        let key = token.socket();
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.cancels -= 1;
            // A cancellation that found nothing, of a receive still outstanding: that one was
            // between two states of the kernel. Settle cancels again.
            socket.receive_cancelled &= completion.result >= 0;
        }
        self.settle(key);
    }

    fn send_completed(&mut self, handler: &mut impl Handler, token: Token, completion: Completion) {
        let key = token.socket();
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let Some(sending) = &mut socket.sending else {
            return;
        };
        let closing = socket.phase == Phase::Closing;
        let result = match completion.result {
            0 if sending.total_bytes() > 0 => Err(libc::EPIPE),
            sent @ 0.. => {
                self.counters.bytes_sent += sent as u64;
                if sending.advance(sent as usize) {
                    Ok(sending.total_bytes())
                } else if closing {
                    Err(libc::ECANCELED)
                } else {
                    self.counters.sends_continued += 1;
                    return self.push_send(key);
                }
            }
            code => match -code {
                libc::EINTR | libc::EAGAIN if !closing => return self.push_send(key),
                error => Err(error),
            },
        };
        let outgoing = sending.take();
        let idle = socket.sending.take();
        socket.send_cancelled = false;
        if self.sendings.len() < self.config.entries as usize {
            self.sendings.extend(idle);
        }
        handler.sent(self, key, outgoing, result);
        self.settle(key);
    }

    fn send_cancel_completed(&mut self, token: Token, completion: Completion) {
        let key = token.socket();
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.cancels -= 1;
            socket.send_cancelled &= completion.result >= 0;
        }
        self.settle(key);
    }

    fn deliver_finished(&mut self, handler: &mut impl Handler) {
        // Only those there are now: a handler may finish more.
        for _ in 0..self.finished.len() {
            let Some(key) = self.finished.pop_front() else {
                return;
            };
            let releasing = self.sockets.get(key).is_some_and(|socket| socket.releasing);
            let descriptor = self.sockets.remove(key);
            match descriptor {
                Some(descriptor) if releasing => handler.released(self, key, descriptor),
                descriptor => {
                    drop(descriptor);
                    handler.closed(self, key);
                }
            }
        }
    }
}
