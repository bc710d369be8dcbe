//! The database of Mosquitto 2.1's persist-sqlite plugin, schema 1.0 and 1.1.
//!
//! Its columns of type `STRING` are numeric to SQLite: a topic such as `007` is kept as 7 there, and read
//! as that. A message's properties stand as JSON; here they become what a PUBLISH has.
//!
//! Not here: what becomes of it ([`super::import`]).

use super::mosquitto::{Client, Entry, Persisted, Stored, Subscription, state_of};
use crate::engine::codec::primitive::{
    VARIABLE_BYTE_INTEGER_MAX, put_binary, put_variable_byte_integer,
};
use crate::engine::codec::property::{id, put_user_property};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The schema that is read; its minor versions have more tables.
const SCHEMA: i64 = 1;

/// What its tables have, for as long as [`Tables::persisted`] is looked at.
#[derive(Debug, Default)]
pub struct Tables {
    messages: BTreeMap<u64, Message>,
    clients: Vec<Owner>,
    entries: Vec<(Vec<u8>, Entry<'static>)>,
    subscriptions: Vec<(Vec<u8>, Vec<u8>, Subscription<'static>)>,
    retained: Vec<u64>,
    wills: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A client, its user, when its session expires, and how long that outlives its connection.
type Owner = (Vec<u8>, Option<Vec<u8>>, i64, u32);

#[derive(Debug)]
struct Message {
    expires_at: i64,
    source: Vec<u8>,
    topic: Vec<u8>,
    payload: Vec<u8>,
    properties: Vec<u8>,
    qos: u8,
    retain: bool,
}

/// A property as the plugin writes it.
#[derive(Deserialize)]
struct Property {
    identifier: String,
    name: Option<String>,
    #[serde(default)]
    value: serde_json::Value,
}

/// Reads a whole database, which nobody writes meanwhile.
///
/// # Errors
/// In words: it is another database, of another schema, or cannot be read.
pub fn load(file: &Path) -> Result<Tables, String> {
    read(file).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "the database of persist-sqlite is damaged; `sqlite3 FILE .recover` tells what is left".to_owned()
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program writes it; stop Mosquitto first".to_owned()
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
            "it cannot be opened with what stands beside it (-wal, -shm); stop Mosquitto in order, and copy \
             these files too if they are there"
                .to_owned()
        }
        _ => format!("it is no database of Mosquitto's persist-sqlite ({error})"),
    })?
}

fn read(file: &Path) -> rusqlite::Result<Result<Tables, String>> {
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let major = "SELECT major FROM version_info WHERE component = 'database_schema'";
    let version: Vec<i64> = rows(&database, major, |row| row.get(0))?;
    if let Some(other) = version.iter().find(|major| **major != SCHEMA) {
        return Ok(Err(format!(
            "it is of schema {other} of persist-sqlite; {SCHEMA} is read, which Mosquitto 2.1 writes"
        )));
    }
    let messages = "SELECT store_id, expiry_time, source_id, topic, payload, properties, qos, retain \
                    FROM base_msgs";
    let clients = "SELECT client_id, username, session_expiry_time, session_expiry_interval \
                   FROM clients ORDER BY rowid";
    let entries = "SELECT client_id, store_id, direction, mid, qos, retain, state, subscription_identifier \
                   FROM client_msgs ORDER BY rowid";
    let subscriptions = "SELECT client_id, topic, subscription_options, subscription_identifier \
                         FROM subscriptions ORDER BY rowid";
    Ok(Ok(Tables {
        messages: rows(&database, messages, message)?.into_iter().collect(),
        clients: rows(&database, clients, |row| {
            let user_name = text(row, 1)?;
            Ok((
                text(row, 0)?,
                (!user_name.is_empty()).then_some(user_name),
                number(row, 2)?,
                // -1 or 4294967295 for ever, by the column's type.
                number(row, 3)? as u32,
            ))
        })?,
        entries: rows(&database, entries, entry)?,
        subscriptions: rows(&database, subscriptions, subscription)?,
        retained: rows(&database, "SELECT store_id FROM retains", |row| {
            number(row, 0).map(i64::cast_unsigned)
        })?,
        wills: wills(&database)?,
    }))
}

fn rows<T>(
    database: &Connection,
    question: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    database.prepare(question)?.query_map([], read)?.collect()
}

/// Since schema 1.1.
fn wills(database: &Connection) -> rusqlite::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    if !database.table_exists(None, "wills")? {
        return Ok(Vec::new());
    }
    rows(database, "SELECT client_id, topic FROM wills", |row| {
        Ok((text(row, 0)?, text(row, 1)?))
    })
}

/// Text as it was stored, also where SQLite took it for a number; nothing for NULL.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => Vec::new(),
        ValueRef::Integer(number) => number.to_string().into_bytes(),
        ValueRef::Real(number) => number.to_string().into_bytes(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
    })
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<i64> {
    Ok(row.get::<_, Option<i64>>(column)?.unwrap_or(0))
}

/// A number of few bits; what has more is none that a client could have.
fn small<T: TryFrom<i64> + Default>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    Ok(T::try_from(number(row, column)?).unwrap_or_default())
}

fn message(row: &Row<'_>) -> rusqlite::Result<(u64, Message)> {
    let message = Message {
        expires_at: number(row, 1)?,
        source: text(row, 2)?,
        topic: text(row, 3)?,
        payload: text(row, 4)?,
        properties: properties(&text(row, 5)?),
        qos: small(row, 6)?,
        retain: number(row, 7)? != 0,
    };
    Ok((number(row, 0)?.cast_unsigned(), message))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<(Vec<u8>, Entry<'static>)> {
    let packet_id = small(row, 3)?;
    let entry = Entry {
        client: b"",
        message: number(row, 1)?.cast_unsigned(),
        packet_id,
        qos: small(row, 4)?,
        retain: number(row, 5)? != 0,
        state: state_of(small(row, 2)?, small(row, 6)?, packet_id),
        subscription_id: small(row, 7)?,
    };
    Ok((text(row, 0)?, entry))
}

fn subscription(row: &Row<'_>) -> rusqlite::Result<(Vec<u8>, Vec<u8>, Subscription<'static>)> {
    let options: u8 = small(row, 2)?;
    let subscription = Subscription {
        client: b"",
        filter: b"",
        id: small(row, 3)?,
        qos: options & 0b11,
        no_local: options & 0b100 != 0,
        retain_as_published: options & 0b1000 != 0,
    };
    Ok((text(row, 0)?, text(row, 1)?, subscription))
}

/// A PUBLISH's properties with their length in front. What cannot be read makes a block that is refused with
/// its message.
fn properties(json: &[u8]) -> Vec<u8> {
    if json.is_empty() {
        return Vec::new();
    }
    let read = serde_json::from_slice::<Vec<Property>>(json).ok();
    let mut block = Vec::new();
    let is_read = read.and_then(|all| all.iter().try_for_each(|one| put(one, &mut block)));
    let length = u32::try_from(block.len()).ok();
    let length = length.filter(|length| *length <= VARIABLE_BYTE_INTEGER_MAX);
    let (Some(()), Some(length)) = (is_read, length) else {
        return vec![u8::MAX];
    };
    let mut out = Vec::with_capacity(block.len() + 4);
    put_variable_byte_integer(&mut out, length);
    out.extend(block);
    out
}

/// Appends one; `None` if it is none that a PUBLISH has.
fn put(property: &Property, block: &mut Vec<u8>) -> Option<()> {
    let value = property.value.as_str();
    match property.identifier.as_str() {
        "payload-format-indicator" => {
            let format = u8::try_from(property.value.as_u64()?).ok()?;
            block.extend([id::PAYLOAD_FORMAT_INDICATOR, format]);
        }
        "content-type" => put_bytes(id::CONTENT_TYPE, value?.as_bytes(), block)?,
        "response-topic" => put_bytes(id::RESPONSE_TOPIC, value?.as_bytes(), block)?,
        "correlation-data" => put_bytes(id::CORRELATION_DATA, &unhexed(value?)?, block)?,
        "user-property" => {
            let (name, value) = (property.name.as_deref()?, value?);
            let is_too_long = name.len().max(value.len()) > usize::from(u16::MAX);
            (!is_too_long).then(|| put_user_property(name, value, block))?;
        }
        _ => return None,
    }
    Some(())
}

fn put_bytes(id: u8, bytes: &[u8], block: &mut Vec<u8>) -> Option<()> {
    if bytes.len() > usize::from(u16::MAX) {
        return None;
    }
    block.push(id);
    put_binary(block, bytes);
    Some(())
}

fn unhexed(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    let pairs = digits.chunks_exact(2);
    let bytes = pairs.map(|pair| {
        pair.iter()
            .fold(0, |so_far, digit| so_far << 4 | *digit as u8)
    });
    Some(bytes.collect())
}

impl Tables {
    /// The same as the persistence file would have it.
    #[must_use]
    pub fn persisted(&self) -> Persisted<'_> {
        let messages = self.messages.iter().map(|(id, message)| {
            let stored = Stored {
                expires_at: message.expires_at,
                source: &message.source,
                topic: &message.topic,
                payload: &message.payload,
                properties: &message.properties,
                qos: message.qos,
                retain: message.retain,
            };
            (*id, stored)
        });
        let clients = self
            .clients
            .iter()
            .map(|(id, user_name, expires_at, expiry_seconds)| Client {
                id,
                user_name: user_name.as_deref(),
                expires_at: *expires_at,
                expiry_seconds: *expiry_seconds,
            });
        let entries = self.entries.iter().map(|(client, entry)| Entry {
            client,
            ..entry.clone()
        });
        let subscriptions = self
            .subscriptions
            .iter()
            .map(|(client, filter, subscription)| Subscription {
                client,
                filter,
                ..subscription.clone()
            });
        Persisted {
            version: 6,
            messages: messages.collect(),
            clients: clients.collect(),
            entries: entries.collect(),
            subscriptions: subscriptions.collect(),
            retained: self.retained.clone(),
            unknown: 0,
        }
    }

    /// Wills, by client and topic: who was connected comes again with its own.
    pub fn wills(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.wills
            .iter()
            .map(|(client, topic)| (&**client, &**topic))
    }
}
