//! TLS as an engine: records in, plain text out, by rustls.
//!
//! Not here: certificates and their reload ([`crate::shard::certificates`]).

use super::{Arrival, TransportError};
use rustls::ServerConnection;
use std::io::{Read, Write};

/// Takes records and appends their plain text to `into`.
///
/// # Errors
/// The handshake failed or a record is not valid; an alert may wait for [`take_wire`].
pub fn receive(
    tls: &mut ServerConnection,
    mut records: &[u8],
    into: &mut Vec<u8>,
) -> Result<Arrival, TransportError> {
    let wrong = |error: &dyn std::fmt::Display| TransportError::Tls(error.to_string());
    let mut arrival = Arrival::Open;
    while !records.is_empty() {
        // Takes a part only: as much as fits beside plain text that has not been read.
        let taken = tls.read_tls(&mut records).map_err(|error| wrong(&error))?;
        let state = tls.process_new_packets().map_err(|error| wrong(&error))?;
        let bytes = state.plaintext_bytes_to_read();
        if bytes > 0 {
            let start = into.len();
            into.resize(start + bytes, 0);
            let room = into.get_mut(start..).unwrap_or_default();
            tls.reader()
                .read_exact(room)
                .map_err(|error| wrong(&error))?;
        }
        if state.peer_has_closed() {
            arrival = Arrival::Ended;
            break;
        }
        if taken == 0 {
            break;
        }
    }
    Ok(arrival)
}

/// Encrypts bytes; they leave by [`take_wire`].
pub fn send<'a>(tls: &mut ServerConnection, slices: impl Iterator<Item = &'a [u8]>) {
    let mut writer = tls.writer();
    for slice in slices {
        // Writing to memory without a limit fails only once the connection has failed.
        let _ = writer.write_all(slice);
    }
}

/// Appends the records that are ready to `wire`.
pub fn take_wire(tls: &mut ServerConnection, wire: &mut Vec<u8>) {
    while tls.wants_write() {
        // Writing to memory does not fail.
        if tls.write_tls(wire).is_err() {
            return;
        }
    }
}
