//! PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7): one form for all four.

use super::primitive::{Reader, put_u16};
use super::property::{PropertySet, check};
use super::{DecodeError, PacketType, Reason, Version};

/// One of the four acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub kind: PacketType,
    /// Identifier of the PUBLISH it belongs to.
    pub packet_id: u16,
    /// What became of it; always success for 3.x.
    pub reason: Reason,
}

impl Ack {
    /// Decodes any of the short and long forms (3.4.2.1): two bytes mean success, three leave out the
    /// property length.
    ///
    /// # Errors
    /// Malformed fields; [`DecodeError::ReasonCode`] for a code the packet may not carry
    /// `[MQTT-3.4.2-1]` `[MQTT-3.6.2-1]`.
    pub fn decode(kind: PacketType, body: &[u8], version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut reason = Reason::Success;
        if version.is_v5() && !reader.is_empty() {
            reason = Reason::from_byte(reader.byte()?)
                .filter(|reason| reason.client_may_send(kind))
                .ok_or(DecodeError::ReasonCode)?;
            if !reader.is_empty() {
                check(&mut reader, PropertySet::ACK)?;
            }
        }
        reader.finish()?;
        Ok(Ack {
            kind,
            packet_id,
            reason,
        })
    }

    /// Appends the packet in its shortest form. 3.x cannot tell a failure: it gets the plain packet.
    pub fn encode(self, version: Version, out: &mut Vec<u8>) {
        let with_reason = version.is_v5() && self.reason != Reason::Success;
        out.extend_from_slice(&[self.kind.first_byte(), if with_reason { 3 } else { 2 }]);
        put_u16(out, self.packet_id);
        if with_reason {
            out.push(self.reason.byte());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_forms_are_read() {
        let read = |body: &[u8]| Ack::decode(PacketType::Puback, body, Version::V5);
        let ack = Ack {
            kind: PacketType::Puback,
            packet_id: 9,
            reason: Reason::Success,
        };
        assert_eq!(read(&[0, 9]), Ok(ack));
        assert_eq!(read(&[0, 9, 0]), Ok(ack));
        assert_eq!(read(&[0, 9, 0, 0]), Ok(ack));
        let failed = Ack {
            reason: Reason::QuotaExceeded,
            ..ack
        };
        assert_eq!(read(&[0, 9, 0x97, 5, 0x1F, 0, 2, b'n', b'o']), Ok(failed));
        assert_eq!(read(&[0, 9, 0x05]), Err(DecodeError::ReasonCode));
        assert_eq!(read(&[0, 0]), Err(DecodeError::PacketIdZero));
    }

    #[test]
    fn version_3_has_two_bytes_only() {
        let read = |body: &[u8]| Ack::decode(PacketType::Pubrel, body, Version::V3_1_1);
        assert_eq!(read(&[0, 9, 0]), Err(DecodeError::TrailingBytes));
        let mut out = Vec::new();
        let failed = Ack {
            kind: PacketType::Pubrec,
            packet_id: 1,
            reason: Reason::NotAuthorized,
        };
        failed.encode(Version::V3_1_1, &mut out);
        assert_eq!(out, [0x50, 2, 0, 1]);
    }
}
