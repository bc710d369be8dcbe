//! PINGRESP, DISCONNECT and AUTH (3.12 to 3.15), and how packets with optional properties are written.

use super::primitive::{Reader, put_binary, put_string, put_variable_byte_integer};
use super::property::{Properties, PropertySet, id};
use super::{DecodeError, PacketType, Reason, Version};

/// A client's DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Why it leaves; success cancels its will `[MQTT-3.14.4-3]`.
    pub reason: Reason,
    /// A new session expiry interval.
    pub session_expiry_seconds: Option<u32>,
}

impl Disconnect {
    /// Decodes a client's DISCONNECT; an empty one means success.
    ///
    /// # Errors
    /// Any broken rule of its form `[MQTT-3.14.2-1]`.
    pub fn decode(body: &[u8], version: Version) -> Result<Self, DecodeError> {
        let mut known = Disconnect {
            reason: Reason::Success,
            session_expiry_seconds: None,
        };
        let mut reader = Reader::new(body);
        if version.is_v5() && !reader.is_empty() {
            known.reason = Reason::from_byte(reader.byte()?)
                .filter(|reason| reason.client_may_send(PacketType::Disconnect))
                .ok_or(DecodeError::ReasonCode)?;
            if !reader.is_empty() {
                let mut properties = Properties::read(&mut reader, PropertySet::DISCONNECT)?;
                while let Some(property) = properties.next_property()? {
                    if property.id == id::SESSION_EXPIRY_INTERVAL {
                        known.session_expiry_seconds = Some(property.value.integer());
                    }
                }
            }
        }
        reader.finish()?;
        Ok(known)
    }
}

/// A client's AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Continue or re-authenticate.
    pub reason: Reason,
    /// Method, the same as in CONNECT `[MQTT-4.12.0-5]`.
    pub method: &'a str,
    /// Data for the method.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> Auth<'a> {
    /// Decodes an AUTH.
    ///
    /// # Errors
    /// Any broken rule of its form `[MQTT-3.15.2-1]`; a missing method is a protocol error (3.15.2.2.2).
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut known = Auth {
            reason: Reason::Success,
            method: "",
            authentication_data: None,
        };
        if reader.is_empty() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        known.reason = Reason::from_byte(reader.byte()?)
            .filter(|reason| reason.client_may_send(PacketType::Auth))
            .ok_or(DecodeError::ReasonCode)?;
        let mut properties = Properties::read(&mut reader, PropertySet::AUTH)?;
        let mut named = false;
        while let Some(property) = properties.next_property()? {
            match property.id {
                id::AUTHENTICATION_METHOD => {
                    known.method = property.value.string();
                    named = true;
                }
                id::AUTHENTICATION_DATA => {
                    known.authentication_data = Some(property.value.binary());
                }
                _ => {}
            }
        }
        reader.finish()?;
        if named {
            Ok(known)
        } else {
            Err(DecodeError::AuthenticationMethodMissing)
        }
    }
}

/// A PINGRESP.
pub const PINGRESP: [u8; 2] = [0xD0, 0];

/// Appends a DISCONNECT for a 5.0 client; texts that would not fit into `packet_bytes_max` are left out
/// `[MQTT-3.14.2-3]`. 3.x clients are never sent one.
pub fn encode_disconnect(
    reason: Reason,
    reason_string: Option<&str>,
    server_reference: Option<&str>,
    packet_bytes_max: u32,
    out: &mut Vec<u8>,
) {
    put_explained(
        out,
        0xE0,
        &[reason.byte()],
        packet_bytes_max,
        reason_string,
        server_reference,
    );
}

/// Appends an AUTH with its method and data.
pub fn encode_auth(reason: Reason, method: &str, authentication_data: &[u8], out: &mut Vec<u8>) {
    put_packet(out, 0xF0, &[reason.byte()], |block| {
        block.push(id::AUTHENTICATION_METHOD);
        put_string(block, method);
        if !authentication_data.is_empty() {
            block.push(id::AUTHENTICATION_DATA);
            put_binary(block, authentication_data);
        }
    });
}

/// Appends a packet of fixed fields and a property block that `fill` writes.
pub(super) fn put_packet(
    out: &mut Vec<u8>,
    first_byte: u8,
    fields: &[u8],
    fill: impl FnOnce(&mut Vec<u8>),
) {
    let mut block = Vec::new();
    fill(&mut block);
    let mut length = Vec::with_capacity(4);
    put_variable_byte_integer(&mut length, block.len() as u32);
    out.push(first_byte);
    put_variable_byte_integer(out, (fields.len() + length.len() + block.len()) as u32);
    out.extend_from_slice(fields);
    out.extend_from_slice(&length);
    out.extend_from_slice(&block);
}

/// Like [`put_packet`] with a reason string and a server reference, each only if it fits. The server
/// reference goes first: a client can act on it.
pub(super) fn put_explained(
    out: &mut Vec<u8>,
    first_byte: u8,
    fields: &[u8],
    packet_bytes_max: u32,
    reason_string: Option<&str>,
    server_reference: Option<&str>,
) {
    // First byte, up to four bytes of remaining length and of property length.
    let mut room = (packet_bytes_max as usize).saturating_sub(fields.len() + 9);
    let mut fits = |text: &&str| {
        let bytes = 3 + text.len();
        let fits = bytes <= room;
        room -= if fits { bytes } else { 0 };
        fits
    };
    let server_reference = server_reference.filter(&mut fits);
    let reason_string = reason_string.filter(&mut fits);
    put_packet(out, first_byte, fields, |block| {
        for (id, text) in [
            (id::REASON_STRING, reason_string),
            (id::SERVER_REFERENCE, server_reference),
        ] {
            if let Some(text) = text {
                block.push(id);
                put_string(block, text);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_disconnect_means_success() {
        let plain = Disconnect {
            reason: Reason::Success,
            session_expiry_seconds: None,
        };
        assert_eq!(Disconnect::decode(&[], Version::V5), Ok(plain));
        assert_eq!(Disconnect::decode(&[], Version::V3_1_1), Ok(plain));
        assert_eq!(
            Disconnect::decode(&[0], Version::V3_1_1),
            Err(DecodeError::TrailingBytes)
        );
        let expiry = Disconnect::decode(&[0x04, 5, 0x11, 0, 0, 0, 9], Version::V5).unwrap();
        assert_eq!(expiry.reason, Reason::DisconnectWithWill);
        assert_eq!(expiry.session_expiry_seconds, Some(9));
        assert_eq!(
            Disconnect::decode(&[0x05], Version::V5),
            Err(DecodeError::ReasonCode)
        );
        assert_eq!(
            Disconnect::decode(&[0x8B], Version::V5),
            Err(DecodeError::ReasonCode)
        );
    }

    #[test]
    fn auth_names_its_method() {
        let auth = Auth::decode(&[0x18, 4, 0x15, 0, 1, b'X']).unwrap();
        assert_eq!(
            (auth.reason, auth.method),
            (Reason::ContinueAuthentication, "X")
        );
        assert_eq!(
            Auth::decode(&[0x18, 0]),
            Err(DecodeError::AuthenticationMethodMissing)
        );
        assert_eq!(
            Auth::decode(&[]),
            Err(DecodeError::AuthenticationMethodMissing)
        );
        assert_eq!(Auth::decode(&[0x05, 0]), Err(DecodeError::ReasonCode));
    }

    #[test]
    fn texts_that_do_not_fit_are_left_out() {
        let text = "a reason of some length";
        let encoded = |limit: u32| {
            let mut out = Vec::new();
            encode_disconnect(Reason::ProtocolError, Some(text), None, limit, &mut out);
            out
        };
        assert_eq!(encoded(20), [0xE0, 2, 0x82, 0]);
        assert!(encoded(100).ends_with(text.as_bytes()));
    }
}
