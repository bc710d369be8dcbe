//! A connection to the admin listener that has to get on: who does not take an answer loses its place.
//!
//! Invariant: of bytes that wait to be written none waits longer than `within`, however slowly others before
//! them are taken.

use super::counts::AdminCounts;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Whether a request has begun that was not answered so far; shared with who looks at the connection's end.
#[derive(Clone, Debug)]
pub(super) struct Begun(Arc<AtomicBool>);

impl Begun {
    /// Whether one has; also before the first.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The connection.
pub(super) struct Watched<S> {
    stream: S,
    within: Duration,
    counts: Arc<AdminCounts>,
    begun: Begun,
    /// Until when what waits has to be taken, while something waits.
    late_at: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    /// Whoever is at the other end takes each answer within that time.
    pub fn new(stream: S, within: Duration, counts: Arc<AdminCounts>) -> Self {
        Watched {
            stream,
            within,
            counts,
            begun: Begun(Arc::new(AtomicBool::new(true))),
            late_at: None,
        }
    }

    /// Whether a request has begun.
    pub fn begun(&self) -> Begun {
        self.begun.clone()
    }

    /// What a write has come to: `whole` bytes were to be written.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        whole: usize,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                if bytes >= whole {
                    self.late_at = None;
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let within = self.within;
                let late_at = self
                    .late_at
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
                ready!(late_at.as_mut().poll(context));
                AdminCounts::add(&self.counts.timeouts);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.begun.0.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.begun.0.store(false, Ordering::Relaxed);
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begun.0.store(false, Ordering::Relaxed);
        let whole = slices.iter().map(|slice| slice.len()).sum();
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written, whole)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of TLS only: a plain socket has nothing to flush, and what waits before it is not its own.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_pending() {
            return self.judge(context, Poll::Pending, 0).map_ok(|_| ());
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        if shut.is_pending() {
            return self.judge(context, Poll::Pending, 0).map_ok(|_| ());
        }
        shut
    }
}
