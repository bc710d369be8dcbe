//! One connection: what was read and not decoded, what is to be written.

use crate::codec::{Decoded, Packet, decode};
use mio::net::TcpStream;
use std::io::{self, Read, Write};

/// A client of the broker under load.
pub struct Client {
    /// Its socket.
    pub stream: TcpStream,
    protocol: u8,
    partial: Vec<u8>,
    outgoing: Vec<u8>,
}

/// Why a client cannot go on.
#[derive(Debug)]
pub enum ClientError {
    /// The connection failed or ended.
    Closed(String),
    /// The broker sent something that is not MQTT.
    Malformed,
}

impl Client {
    /// Wraps a connected socket.
    pub const fn new(stream: TcpStream, protocol: u8) -> Self {
        Client {
            stream,
            protocol,
            partial: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    /// Where to append packets; [`Client::flush`] sends them.
    pub const fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    /// Whether something waits to be written.
    pub const fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let mut written = 0;
        while written < self.outgoing.len() {
            match self.stream.write(&self.outgoing[written..]) {
                Ok(0) => return Err(ClientError::Closed("the broker closed".into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Closed(error.to_string())),
            }
        }
        self.outgoing.drain(..written);
        Ok(())
    }

    /// Reads until the socket is empty and hands every packet to `handle`, which may append answers.
    pub fn read(
        &mut self,
        scratch: &mut [u8],
        mut handle: impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return Err(ClientError::Closed("the broker closed".into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ClientError::Closed(error.to_string())),
            };
            let is_drained = count < scratch.len();
            let mut joined = std::mem::take(&mut self.partial);
            let bytes = if joined.is_empty() {
                &scratch[..count]
            } else {
                joined.extend_from_slice(&scratch[..count]);
                &joined[..]
            };
            let mut used = 0;
            loop {
                match decode(&bytes[used..], self.protocol) {
                    Decoded::Packet(packet, took) => {
                        used += took;
                        handle(packet, &mut self.outgoing)?;
                    }
                    Decoded::Partial => break,
                    Decoded::Malformed => return Err(ClientError::Malformed),
                }
            }
            self.partial = bytes[used..].to_vec();
            if is_drained {
                return Ok(());
            }
        }
    }
}
