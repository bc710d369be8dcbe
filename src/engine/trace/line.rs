//! A line about a packet: what an operator reads of it, cut to what a line may hold.

use crate::engine::codec::connect::Connect;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

/// Bytes of a name or text.
const NAME_BYTES_MAX: usize = 256;
/// Filters, or their reasons, of one packet.
const FILTERS_MAX: usize = 8;

/// What a packet says. What does not belong to its type is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct PacketLine {
    /// Its type, as the standard calls it.
    pub packet: String,
    /// Bytes of it, without TLS and WebSocket.
    pub packet_bytes: u64,
    /// Packet identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet_id: Option<u16>,
    /// Topic, also where an alias stands for it that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Topic alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_alias: Option<u16>,
    /// QoS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    /// RETAIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
    /// DUP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dup: Option<bool>,
    /// Seconds until the message expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_seconds: Option<u32>,
    /// Bytes of the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// The beginning of the payload, if that was asked for and is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The same of one that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// The first filters of a SUBSCRIBE or UNSUBSCRIBE.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterLine>,
    /// What was answered to the first filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Filters, or answers to them, that are not told.
    #[serde(skip_serializing_if = "is_zero")]
    pub filters_left_out: u64,
    /// Reason code in words, with what the broker says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether a CONNACK tells of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_present: Option<bool>,
    /// Method of an AUTH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What a CONNECT asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Box<ConnectLine>>,
    /// Which rule the packet breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct FilterLine {
    /// With its share name.
    pub filter: String,
    /// Highest QoS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
}

/// What a CONNECT asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConnectLine {
    /// Client identifier; empty where the broker is to give one.
    pub client_id: String,
    /// Protocol version.
    pub version: String,
    /// Clean start, or clean session.
    pub clean_start: bool,
    /// Keep alive.
    pub keep_alive_seconds: u16,
    /// Seconds that the session is to outlive the connection.
    pub session_expiry_seconds: u32,
    /// User name.
    pub user: Option<String>,
    /// Topic of the will.
    pub will_topic: Option<String>,
    /// Method of an extended authentication.
    pub method: Option<String>,
}

impl ConnectLine {
    /// All but what is secret.
    #[must_use]
    pub fn of(connect: &Connect<'_>) -> Self {
        ConnectLine {
            client_id: cut(connect.client_id),
            version: connect.version.to_string(),
            clean_start: connect.clean_start,
            keep_alive_seconds: connect.keep_alive_seconds,
            session_expiry_seconds: connect.properties.session_expiry_seconds,
            user: connect.user_name.map(cut),
            will_topic: connect.will.as_ref().map(|will| cut(will.topic)),
            method: connect.properties.authentication_method.map(cut),
        }
    }
}

impl PacketLine {
    pub(super) fn tell_filters(&mut self, filters: impl ExactSizeIterator<Item = FilterLine>) {
        self.filters_left_out = filters.len().saturating_sub(FILTERS_MAX) as u64;
        self.filters = filters.take(FILTERS_MAX).collect();
    }

    pub(super) fn tell_reasons(&mut self, reasons: impl ExactSizeIterator<Item = String>) {
        self.filters_left_out = reasons.len().saturating_sub(FILTERS_MAX) as u64;
        self.reasons = reasons.take(FILTERS_MAX).collect();
    }

    /// The payload stands in two parts.
    pub(super) fn tell_payload(&mut self, [first, second]: [&[u8]; 2], max: usize) {
        let whole = first.len() + second.len();
        self.payload_bytes = Some(whole as u64);
        let told: Vec<u8> = first.iter().chain(second).take(max).copied().collect();
        if told.is_empty() {
            return;
        }
        let is_cut = told.len() < whole;
        match std::str::from_utf8(&told) {
            Ok(text) => self.payload = Some(text.to_owned()),
            // A letter at its end is cut in two.
            Err(error) if is_cut && error.error_len().is_none() => {
                let text = told.get(..error.valid_up_to()).unwrap_or_default();
                self.payload = Some(String::from_utf8_lossy(text).into_owned());
            }
            Err(_) => self.payload_base64 = Some(STANDARD.encode(&told)),
        }
    }
}

/// As much of a text as a line has room for; that it was longer is seen.
pub(super) fn cut(text: &str) -> String {
    if text.len() <= NAME_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(NAME_BYTES_MAX);
    format!("{}...", text.get(..end).unwrap_or_default())
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_between_letters() {
        assert_eq!(cut("a/b"), "a/b");
        let long = format!("{}\u{e9}\u{e9}", "x".repeat(NAME_BYTES_MAX - 1));
        assert_eq!(cut(&long), format!("{}...", "x".repeat(NAME_BYTES_MAX - 1)));
        let mut line = PacketLine::default();
        line.tell_payload(["a\u{e9}".as_bytes(), b"b"], 2);
        assert_eq!(
            (line.payload.as_deref(), line.payload_bytes),
            (Some("a"), Some(4))
        );
    }
}
