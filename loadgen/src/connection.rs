//! One connection: what was read and not decoded, what is to be written.

use crate::codec::{Decoded, Packet, decode, first_len};
use crate::transport::Transport;
use std::io;

/// Reads of one connection before others get their turn.
const READS_PER_TURN: usize = 16;

/// A connection to the broker under load.
pub struct Connection {
    transport: Transport,
    partial: Vec<u8>,
    outgoing: Vec<u8>,
    is_flushed: bool,
    writes_each: bool,
    /// Of the packet that went out in part.
    packet_left: usize,
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub enum ConnectionError {
    /// It failed or ended.
    Closed(String),
    /// The broker sent something that is not MQTT.
    Malformed,
    /// The broker said DISCONNECT with a reason.
    Disconnected(u8),
    /// The broker's CONNACK or SUBACK said no.
    Refused(String),
}

impl std::fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConnectionError::Closed(why) => write!(f, "the connection ended: {why}"),
            ConnectionError::Malformed => f.write_str("the broker sent what is not MQTT"),
            ConnectionError::Disconnected(reason) => {
                write!(f, "the broker disconnected with reason 0x{reason:02X}")
            }
            ConnectionError::Refused(why) => f.write_str(why),
        }
    }
}

/// What a read has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken off the wire.
    pub bytes: usize,
    /// There may be more.
    pub has_more: bool,
}

impl Connection {
    /// Wraps a transport; with `writes_each` each packet leaves in a write of its own.
    pub const fn new(transport: Transport, writes_each: bool) -> Self {
        Connection {
            transport,
            partial: Vec::new(),
            outgoing: Vec::new(),
            is_flushed: true,
            writes_each,
            packet_left: 0,
        }
    }

    /// The transport below.
    pub const fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// Where to append packets; [`Connection::flush`] sends them.
    pub const fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    /// Bytes that wait to be written.
    pub const fn backlog(&self) -> usize {
        self.outgoing.len()
    }

    /// Whether something waits to be written.
    pub const fn wants_write(&self) -> bool {
        !self.outgoing.is_empty() || !self.is_flushed
    }

    /// Where the next write ends, if the one before ended at `written`.
    fn end_of_write(&self, written: usize) -> usize {
        let left = &self.outgoing[written..];
        if !self.writes_each {
            return self.outgoing.len();
        }
        let is_begun = self.packet_left > 0;
        written
            + if is_begun {
                self.packet_left
            } else {
                first_len(left)
            }
    }

    /// Writes what the transport takes; how many bytes.
    pub fn flush(&mut self) -> Result<usize, ConnectionError> {
        let mut written = 0;
        while written < self.outgoing.len() {
            let end = self.end_of_write(written);
            match self.transport.write(&self.outgoing[written..end]) {
                Ok(0) => return Err(ConnectionError::Closed("closed by the broker".into())),
                Ok(count) => {
                    written += count;
                    self.packet_left = end - written;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ConnectionError::Closed(error.to_string())),
            }
        }
        self.outgoing.drain(..written);
        self.release_spare();
        self.is_flushed = self
            .transport
            .is_flushed()
            .map_err(|error| ConnectionError::Closed(error.to_string()))?;
        Ok(written)
    }

    /// An idle connection holds no big buffer.
    fn release_spare(&mut self) {
        if self.outgoing.is_empty() && self.outgoing.capacity() > 4096 {
            self.outgoing = Vec::new();
        }
    }

    /// Reads at most `bytes_max` and hands every packet to `handle`, which may append answers.
    pub fn read(
        &mut self,
        protocol: u8,
        scratch: &mut [u8],
        bytes_max: usize,
        mut handle: impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<(), ConnectionError>,
    ) -> Result<Progress, ConnectionError> {
        let mut progress = Progress {
            bytes: 0,
            has_more: true,
        };
        for _ in 0..READS_PER_TURN {
            let room = scratch.len().min(bytes_max - progress.bytes);
            if room == 0 {
                return Ok(progress);
            }
            let count = match self.transport.read(&mut scratch[..room]) {
                Ok(0) => return Err(ConnectionError::Closed("closed by the broker".into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    progress.has_more = false;
                    return Ok(progress);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ConnectionError::Closed(error.to_string())),
            };
            progress.bytes += count;
            self.decode_all(protocol, &scratch[..count], &mut handle)?;
            if count < room && self.transport.is_plain() {
                progress.has_more = false;
                return Ok(progress);
            }
        }
        Ok(progress)
    }

    fn decode_all(
        &mut self,
        protocol: u8,
        fresh: &[u8],
        handle: &mut impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<(), ConnectionError>,
    ) -> Result<(), ConnectionError> {
        let mut joined = std::mem::take(&mut self.partial);
        let bytes = if joined.is_empty() {
            fresh
        } else {
            joined.extend_from_slice(fresh);
            &joined[..]
        };
        let mut used = 0;
        loop {
            match decode(&bytes[used..], protocol) {
                Decoded::Packet(packet, took) => {
                    used += took;
                    handle(packet, &mut self.outgoing)?;
                }
                Decoded::Partial => break,
                Decoded::Malformed => return Err(ConnectionError::Malformed),
            }
        }
        if used < bytes.len() {
            if joined.is_empty() {
                self.partial = fresh[used..].to_vec();
            } else {
                joined.drain(..used);
                self.partial = joined;
            }
        }
        Ok(())
    }
}
