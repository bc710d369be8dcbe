//! Mosquitto's persistence file (`mosquitto.db`), in the versions 5 and 6 that its 1.6 and 2.0 write.
//!
//! ```text
//! magic 15 | checksum u32, not used | version u32 | chunks: kind u32 | length u32 | fields
//! ```
//! Lengths and counts are big endian; identities and times stand as the machine that wrote them has them,
//! which is little endian here. A message's properties stand as in a PUBLISH, with their length in front.
//!
//! Not here: what becomes of it ([`super::import`]).

use crate::engine::codec::error::DecodeError;
use crate::engine::codec::primitive::Reader;
use std::collections::BTreeMap;
use std::fmt;

const MAGIC: &[u8] = b"\0\xB5\0mosquitto db";
/// Bytes of an identity in it.
const ID_BYTES: u8 = 8;
/// A session without an end.
pub const NEVER: u32 = u32::MAX;

/// Everything that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persisted<'a> {
    /// The form of the file.
    pub version: u32,
    /// Messages by their identities.
    pub messages: BTreeMap<u64, Stored<'a>>,
    /// Clients, in the file's order.
    pub clients: Vec<Client<'a>>,
    /// Messages on their way from or to clients, in order.
    pub entries: Vec<Entry<'a>>,
    /// Subscriptions.
    pub subscriptions: Vec<Subscription<'a>>,
    /// Identities of retained messages.
    pub retained: Vec<u64>,
    /// Chunks of kinds that are not known.
    pub unknown: u64,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// When it expires, in seconds since 1970; 0 for never.
    pub expires_at: i64,
    /// Who published it.
    pub source: &'a [u8],
    /// Its topic.
    pub topic: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
    /// Its properties with their length; empty if it has none.
    pub properties: &'a [u8],
    /// Its QoS.
    pub qos: u8,
    /// Whether it was published to be retained.
    pub retain: bool,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client<'a> {
    /// Its name.
    pub id: &'a [u8],
    /// Its user, if that is known.
    pub user_name: Option<&'a [u8]>,
    /// When it expires, in seconds since 1970; 0 if that is not said.
    pub expires_at: i64,
    /// Seconds it outlives its connection.
    pub expiry_seconds: u32,
}

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits to be sent.
    Queued,
    /// It was sent, and nothing came back.
    Sent,
    /// It was received; the other half is under way.
    Received,
    /// The client published it at QoS 2; it was not passed on yet.
    Incoming,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whose.
    pub client: &'a [u8],
    /// The message.
    pub message: u64,
    /// Its packet identifier, if it was sent.
    pub packet_id: u16,
    /// QoS of the delivery.
    pub qos: u8,
    /// RETAIN of the delivery.
    pub retain: bool,
    /// How far it is.
    pub state: State,
    /// The subscription's identifier; 0 for none.
    pub subscription_id: u32,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Whose.
    pub client: &'a [u8],
    /// The filter.
    pub filter: &'a [u8],
    /// Its identifier; 0 for none.
    pub id: u32,
    /// Highest QoS.
    pub qos: u8,
    /// Leave out what the client itself published.
    pub no_local: bool,
    /// Keep the publisher's RETAIN flag.
    pub retain_as_published: bool,
}

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileError {
    /// It is something else.
    NotMosquitto,
    /// Another version wrote it.
    Version(u32),
    /// It was written on a machine with other numbers.
    Machine,
    /// A chunk is not as they are written: where it begins.
    Chunk(usize),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::NotMosquitto => f.write_str("it is no persistence file of Mosquitto"),
            FileError::Version(version) => write!(
                f,
                "it is of version {version}; 5 and 6 are read: start Mosquitto 2.0 with it and stop it, \
                 which writes version 6"
            ),
            FileError::Machine => f.write_str("it was written on a machine of another kind"),
            FileError::Chunk(at) => write!(
                f,
                "the chunk at byte {at} is cut off or damaged; was Mosquitto stopped in order?"
            ),
        }
    }
}

impl std::error::Error for FileError {}

/// Reads a whole file.
///
/// # Errors
/// It is another file, or damaged.
pub fn read(bytes: &[u8]) -> Result<Persisted<'_>, FileError> {
    let head = bytes.strip_prefix(MAGIC).ok_or(FileError::NotMosquitto)?;
    let mut rest = Reader::new(head);
    let version = rest.u32().and_then(|_| rest.u32());
    let version = version.map_err(|_| FileError::NotMosquitto)?;
    if !(5..=6).contains(&version) {
        return Err(FileError::Version(version));
    }
    let mut persisted = Persisted {
        version,
        ..Persisted::default()
    };
    loop {
        let left = rest.rest();
        if left.is_empty() {
            return Ok(persisted);
        }
        let at = bytes.len() - left.len();
        rest = Reader::new(left);
        let chunk = chunk(&mut rest).map_err(|_| FileError::Chunk(at))?;
        let taken = persisted.take(chunk);
        if taken.map_err(|_| FileError::Chunk(at))? {
            return Err(FileError::Machine);
        }
    }
}

fn chunk<'a>(rest: &mut Reader<'a>) -> Result<(u32, Reader<'a>), DecodeError> {
    let (kind, length) = (rest.u32()?, rest.u32()?);
    Ok((kind, Reader::new(rest.take(length as usize)?)))
}

/// A number as the machine has it.
fn plain(fields: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let bytes = fields.take(8)?.try_into();
    Ok(bytes.map_or(0, u64::from_le_bytes))
}

impl<'a> Persisted<'a> {
    /// One more chunk; whether it is of another machine.
    fn take(&mut self, (kind, mut fields): (u32, Reader<'a>)) -> Result<bool, DecodeError> {
        match kind {
            1 => {
                let (_, _) = (plain(&mut fields)?, fields.byte()?);
                return Ok(fields.byte()? != ID_BYTES);
            }
            2 => {
                let (id, message) = stored(&mut fields)?;
                self.messages.insert(id, message);
            }
            3 => self.entries.extend(entry(&mut fields)?),
            4 => self.retained.push(plain(&mut fields)?),
            5 => self.subscriptions.push(subscription(&mut fields)?),
            6 => self.clients.push(client(&mut fields, self.version)?),
            _ => self.unknown += 1,
        }
        Ok(false)
    }
}

fn stored<'a>(fields: &mut Reader<'a>) -> Result<(u64, Stored<'a>), DecodeError> {
    let (id, expires_at) = (plain(fields)?, plain(fields)?.cast_signed());
    let payload_bytes = fields.u32()?;
    let (_packet_id, source_bytes) = (fields.u16()?, fields.u16()?);
    let (user_bytes, topic_bytes) = (fields.u16()?, fields.u16()?);
    let _port = fields.u16()?;
    let (qos, retain) = (fields.byte()?, fields.byte()? != 0);
    let source = fields.take(source_bytes.into())?;
    let _user = fields.take(user_bytes.into())?;
    let message = Stored {
        expires_at,
        source,
        topic: fields.take(topic_bytes.into())?,
        payload: fields.take(payload_bytes as usize)?,
        properties: fields.rest(),
        qos,
        retain,
    };
    Ok((id, message))
}

fn entry<'a>(fields: &mut Reader<'a>) -> Result<Option<Entry<'a>>, DecodeError> {
    let message = plain(fields)?;
    let (packet_id, client_bytes) = (fields.u16()?, fields.u16()?);
    let (qos, state) = (fields.byte()?, fields.byte()?);
    let (retain_dup, direction) = (fields.byte()?, fields.byte()?);
    let client = fields.take(client_bytes.into())?;
    let state = state_of(direction, state, packet_id);
    let properties = fields.rest();
    Ok(Some(Entry {
        client,
        message,
        packet_id,
        qos,
        retain: retain_dup >> 4 != 0,
        state,
        subscription_id: subscription_id(properties)?,
    }))
}

/// How far a message is, by Mosquitto's numbers.
pub(super) fn state_of(direction: u8, state: u8, packet_id: u16) -> State {
    match (direction, state) {
        (0, _) => State::Incoming,
        // Awaited: PUBACK, PUBREC; or about to be sent.
        (_, 1..=5) if packet_id != 0 => State::Sent,
        // PUBREL is sent again, PUBCOMP awaited.
        (_, 6 | 9) if packet_id != 0 => State::Received,
        _ => State::Queued,
    }
}

/// The only property that an entry has.
fn subscription_id(properties: &[u8]) -> Result<u32, DecodeError> {
    const IDENTIFIER: u8 = 0x0B;
    let mut fields = Reader::new(properties);
    if properties.is_empty() || fields.variable_byte_integer()? == 0 {
        return Ok(0);
    }
    match fields.byte()? {
        IDENTIFIER => fields.variable_byte_integer(),
        _ => Ok(0),
    }
}

fn subscription<'a>(fields: &mut Reader<'a>) -> Result<Subscription<'a>, DecodeError> {
    let id = fields.u32()?;
    let (client_bytes, filter_bytes) = (fields.u16()?, fields.u16()?);
    let (qos, options) = (fields.byte()?, fields.byte()?);
    // The machine's own padding.
    fields.u16()?;
    Ok(Subscription {
        client: fields.take(client_bytes.into())?,
        filter: fields.take(filter_bytes.into())?,
        id,
        qos: qos & 0b11,
        no_local: options & 0b100 != 0,
        retain_as_published: options & 0b1000 != 0,
    })
}

fn client<'a>(fields: &mut Reader<'a>, version: u32) -> Result<Client<'a>, DecodeError> {
    let expires_at = plain(fields)?.cast_signed();
    let expiry_seconds = fields.u32()?;
    let (_last_packet_id, id_bytes) = (fields.u16()?, fields.u16()?);
    let user_bytes = if version == 5 {
        0
    } else {
        let (_port, user_bytes) = (fields.u16()?, fields.u16()?);
        // The machine's own padding.
        fields.u32()?;
        user_bytes
    };
    let id = fields.take(id_bytes.into())?;
    let user_name = fields.take(user_bytes.into())?;
    Ok(Client {
        id,
        user_name: (!user_name.is_empty()).then_some(user_name),
        expires_at,
        expiry_seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a file, then one chunk after the other.
    fn file(version: u32, chunks: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&version.to_be_bytes());
        for (kind, fields) in chunks {
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&(fields.len() as u32).to_be_bytes());
            bytes.extend_from_slice(fields);
        }
        bytes
    }

    fn config(id_bytes: u8) -> (u32, Vec<u8>) {
        let mut fields = 5_u64.to_le_bytes().to_vec();
        fields.extend_from_slice(&[1, id_bytes, 0, 0, 0, 0, 0, 0]);
        (1, fields)
    }

    fn client(version: u32) -> (u32, Vec<u8>) {
        let mut fields = 2_000_u64.to_le_bytes().to_vec();
        fields.extend_from_slice(&60_u32.to_be_bytes());
        fields.extend_from_slice(&[0, 9, 0, 3]);
        if version == 6 {
            fields.extend_from_slice(&[7, 91, 0, 2, 0, 0, 0, 0]);
        }
        fields.extend_from_slice(b"one");
        if version == 6 {
            fields.extend_from_slice(b"me");
        }
        (6, fields)
    }

    fn message() -> (u32, Vec<u8>) {
        let mut fields = 3_u64.to_le_bytes().to_vec();
        fields.extend_from_slice(&0_u64.to_le_bytes());
        fields.extend_from_slice(&4_u32.to_be_bytes());
        fields.extend_from_slice(&[0, 1, 0, 3, 0, 2, 0, 5, 7, 91, 2, 1]);
        fields.extend_from_slice(b"twometopictext\x05\x26\0\0\0\0");
        (2, fields)
    }

    fn entry(direction: u8, state: u8) -> (u32, Vec<u8>) {
        let mut fields = 3_u64.to_le_bytes().to_vec();
        fields.extend_from_slice(&[0, 8, 0, 3, 2, state, 0x11, direction]);
        fields.extend_from_slice(b"one\x03\x0B\x80\x01");
        (3, fields)
    }

    #[test]
    fn both_versions_are_read() {
        let mut subscription = 7_u32.to_be_bytes().to_vec();
        subscription.extend_from_slice(b"\0\x03\0\x01\x02\x0C\0\0one#");
        for version in [5, 6] {
            let bytes = file(
                version,
                &[
                    config(8),
                    message(),
                    client(version),
                    entry(1, 9),
                    (5, subscription.clone()),
                    (4, 3_u64.to_le_bytes().to_vec()),
                    (99, vec![1; 3]),
                ],
            );
            let read = read(&bytes).expect("it is one");
            let user_name = (version == 6).then_some(&b"me"[..]);
            let one = Client {
                id: b"one",
                user_name,
                expires_at: 2_000,
                expiry_seconds: 60,
            };
            assert_eq!((read.clients, read.unknown), (vec![one], 1));
            let message = &read.messages[&3];
            assert_eq!(
                (message.topic, message.payload),
                (&b"topic"[..], &b"text"[..])
            );
            assert_eq!(
                (message.qos, message.retain, message.properties.len()),
                (2, true, 6)
            );
            let entry = &read.entries[0];
            assert_eq!((entry.state, entry.packet_id), (State::Received, 8));
            assert_eq!((entry.subscription_id, entry.retain), (128, true));
            let subscription = &read.subscriptions[0];
            assert_eq!((subscription.filter, subscription.qos), (&b"#"[..], 2));
            assert!(subscription.no_local && subscription.retain_as_published);
            assert_eq!(read.retained, [3]);
        }
    }

    #[test]
    fn states_are_what_they_mean_here() {
        let state = |direction, state| {
            let bytes = file(6, &[entry(direction, state)]);
            read(&bytes).expect("it is one").entries[0].state
        };
        for waiting in [2, 3, 4, 5] {
            assert_eq!(state(1, waiting), State::Sent);
        }
        for received in [6, 9] {
            assert_eq!(state(1, received), State::Received);
        }
        assert_eq!(state(1, 11), State::Queued);
        for any in [7, 10, 11] {
            assert_eq!(state(0, any), State::Incoming);
        }
    }

    #[test]
    fn what_is_cut_or_of_another_kind_is_refused() {
        let bytes = file(6, &[config(8), message(), client(6), entry(1, 3)]);
        let begins: Vec<usize> = [config(8), message(), client(6), entry(1, 3)]
            .iter()
            .scan(23, |at, chunk| {
                let begin = *at;
                *at += 8 + chunk.1.len();
                Some(begin)
            })
            .collect();
        for cut in 0..bytes.len() {
            let expected = if cut < 23 {
                Err(FileError::NotMosquitto)
            } else if begins.contains(&cut) {
                continue;
            } else {
                let begin = begins.iter().rev().find(|begin| **begin <= cut);
                Err(FileError::Chunk(*begin.expect("the first")))
            };
            assert_eq!(read(&bytes[..cut]), expected, "{cut}");
        }
        assert_eq!(read(&file(6, &[config(4)])), Err(FileError::Machine));
        assert_eq!(read(&file(4, &[])), Err(FileError::Version(4)));
    }
}
