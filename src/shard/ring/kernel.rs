//! What the kernel holds for a ring's sockets: bytes on their way out and bytes that nobody has read.
//!
//! Only the kernel knows; one cheap call per socket asks. So they are asked a few at a time.
#![expect(unsafe_code, reason = "the option has no safe name anywhere")]

use super::Ring;
use super::key::SocketKey;
use super::socket::Phase;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsRawFd, OwnedFd};

/// Figures of `SO_MEMINFO`, by their places.
const RECEIVED: usize = 0;
const QUEUED: usize = 5;
const BACKLOG: usize = 7;
const FIGURES: usize = 9;

/// What was found out about a part of the sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelShare {
    /// Bytes of kernel memory that they hold.
    pub bytes: u64,
    /// Those that are not read, and whose peers have gone: nobody would notice.
    pub deserted: Vec<SocketKey>,
    /// Where the next part begins; `None` after the last.
    pub next: Option<usize>,
}

/// What the kernel knows of the peer of a socket, without a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherEnd {
    /// It may send more.
    Open,
    /// It has sent all it will, or has closed; whether some of that is unread.
    Closed {
        /// Bytes wait before the end.
        has_unread: bool,
    },
    /// The connection has failed: it was reset, or nobody answers.
    Broken,
}

impl Ring {
    /// Asks the kernel whether the peer is still there.
    #[must_use]
    pub fn other_end(&self, key: SocketKey) -> OtherEnd {
        let socket = self.sockets.get(key);
        let descriptor = socket.and_then(|socket| socket.descriptor.as_ref());
        descriptor.map_or(OtherEnd::Broken, other_end)
    }

    /// Whether all that had come by a socket when this was asked first was delivered, or nothing more will
    /// be. `read_by` begins with `None` and is kept between questions: once the kernel has nothing more, all
    /// is delivered when so many completions are taken.
    #[must_use]
    pub fn is_read_out(&mut self, key: SocketKey, read_by: &mut Option<u64>) -> bool {
        let Some(socket) = self.sockets.get(key) else {
            return true;
        };
        if socket.ended || socket.phase != Phase::Open {
            return true;
        }
        if read_by.is_none() {
            let unread = socket.descriptor.as_ref().map(rustix::io::ioctl_fionread);
            let has_unread = unread.is_some_and(|unread| unread.is_ok_and(|bytes| bytes > 0));
            // What the kernel keeps for lack of room cannot be counted.
            *read_by = (!has_unread && !self.queue.is_overflowing())
                .then(|| self.queue.taken + self.queue.completions_ready() as u64);
        }
        let has_put_off = self
            .sockets
            .get(key)
            .is_some_and(|socket| socket.put_off > 0);
        !has_put_off && read_by.is_some_and(|by| self.queue.taken >= by)
    }

    /// Asks for so many places of the table, from `first`.
    #[must_use]
    pub fn kernel_share(&self, first: usize, places: usize) -> KernelShare {
        let end = first.saturating_add(places);
        let mut share = KernelShare {
            next: (end < self.sockets.places()).then_some(end),
            ..KernelShare::default()
        };
        for (key, socket) in self.sockets.part(first..end) {
            let Some(descriptor) = &socket.descriptor else {
                continue;
            };
            share.bytes += held_bytes(descriptor);
            if socket.paused && !socket.ended && is_deserted(descriptor) {
                share.deserted.push(key);
            }
        }
        share
    }

    /// Places of the table, free ones included.
    #[must_use]
    pub fn places(&self) -> usize {
        self.sockets.places()
    }
}

/// Whether the peer has sent all it will, or is gone.
fn is_deserted(socket: &OwnedFd) -> bool {
    signs(socket).intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

fn other_end(socket: &OwnedFd) -> OtherEnd {
    let signs = signs(socket);
    if signs.contains(PollFlags::ERR) {
        return OtherEnd::Broken;
    }
    if !signs.intersects(PollFlags::RDHUP | PollFlags::HUP) {
        return OtherEnd::Open;
    }
    let has_unread = rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0);
    OtherEnd::Closed { has_unread }
}

/// What has become of a connection, as the kernel says.
fn signs(socket: &OwnedFd) -> PollFlags {
    let mut asked = [PollFd::new(socket, PollFlags::RDHUP)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut asked, Some(&at_once)) {
        Ok(1..) => asked.iter().map(PollFd::revents).collect(),
        _ => PollFlags::empty(),
    }
}

/// What the kernel holds for one socket; 0 if it does not say.
fn held_bytes(socket: &OwnedFd) -> u64 {
    let mut figures = [0_u32; FIGURES];
    let mut length = size_of_val(&figures) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `figures`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            figures.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return 0;
    }
    let figure = |place: usize| u64::from(figures.get(place).copied().unwrap_or(0));
    figure(RECEIVED) + figure(QUEUED) + figure(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_nobody_reads_is_held_by_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reader, _) = listener.accept().unwrap();
        let reader = OwnedFd::from(reader);
        assert_eq!(held_bytes(&reader), 0);
        writer.write_all(&[0; 20_000]).unwrap();
        // Loopback hands it over before the call returns.
        assert!(held_bytes(&reader) >= 20_000);
        assert!(!is_deserted(&reader));
        assert_eq!(other_end(&reader), OtherEnd::Open);
        drop(writer);
        assert!(is_deserted(&reader), "though nobody has read");
        let closed = |has_unread| OtherEnd::Closed { has_unread };
        assert_eq!(other_end(&reader), closed(true));
    }

    #[test]
    fn an_end_is_told_from_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dial = || {
            let writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (reader, _) = listener.accept().unwrap();
            (writer, OwnedFd::from(reader))
        };
        let (writer, reader) = dial();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(other_end(&reader), OtherEnd::Closed { has_unread: false });
        let (mut writer, reader) = dial();
        writer.write_all(b"said before").unwrap();
        let at_once = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(&writer).set_linger(at_once).unwrap();
        drop(writer);
        assert_eq!(other_end(&reader), OtherEnd::Broken);
        let (writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
        let reader = OwnedFd::from(reader);
        assert_eq!(other_end(&reader), OtherEnd::Open);
        drop(writer);
        assert_eq!(other_end(&reader), OtherEnd::Closed { has_unread: false });
    }
}
