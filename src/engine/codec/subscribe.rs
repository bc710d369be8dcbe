//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (3.8 to 3.11).
//!
//! Filters come as text: whether each is valid is answered per filter in the SUBACK, so it is not the
//! decoder's business.

use super::primitive::{Reader, put_u16, put_variable_byte_integer, variable_byte_integer_len};
use super::property::{Properties, PropertySet, check, id};
use super::{DecodeError, Reason, Version, topic};
use crate::engine::message::Qos;

/// When retained messages are sent for a subscription (3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    /// At each SUBSCRIBE `[MQTT-3.3.1-9]`.
    Always,
    /// Only if the subscription is new `[MQTT-3.3.1-10]`.
    IfNew,
    /// Never `[MQTT-3.3.1-11]`.
    Never,
}

/// Options of one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Highest QoS of deliveries.
    pub qos: Qos,
    /// Leave out what the client itself published `[MQTT-3.8.3-3]`.
    pub no_local: bool,
    /// Keep the publisher's RETAIN flag on live messages `[MQTT-3.3.1-13]`.
    pub retain_as_published: bool,
    /// When to send retained messages.
    pub retain_handling: RetainHandling,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The filter as sent, with any `$share/NAME/`.
    pub filter: &'a str,
    /// Its options.
    pub options: SubscriptionOptions,
}

/// A SUBSCRIBE packet.
#[derive(Debug)]
pub struct Subscribe<'a> {
    /// Identifier its SUBACK repeats.
    pub packet_id: u16,
    /// Subscription identifier for all its filters, 0 for none.
    pub subscription_id: u32,
    /// At least one.
    pub requests: Vec<Request<'a>>,
}

impl<'a> Subscribe<'a> {
    /// Decodes a SUBSCRIBE.
    ///
    /// # Errors
    /// Any broken rule of its form; `[MQTT-3.8.3-2]` if it names no filter.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut subscription_id = 0;
        if version.is_v5() {
            let mut properties = Properties::read(&mut reader, PropertySet::SUBSCRIBE)?;
            while let Some(property) = properties.next_property()? {
                if property.id == id::SUBSCRIPTION_IDENTIFIER {
                    subscription_id = property.value.integer();
                    if subscription_id == 0 {
                        return Err(DecodeError::SubscriptionIdZero);
                    }
                }
            }
        }
        let mut requests = Vec::new();
        while !reader.is_empty() {
            let filter = reader.string()?;
            let options = decode_options(reader.byte()?, version)?;
            if options.no_local && topic::is_shared(filter) {
                return Err(DecodeError::NoLocalShared);
            }
            requests.push(Request { filter, options });
        }
        if requests.is_empty() {
            return Err(DecodeError::NoFilter);
        }
        Ok(Subscribe {
            packet_id,
            subscription_id,
            requests,
        })
    }
}

fn decode_options(byte: u8, version: Version) -> Result<SubscriptionOptions, DecodeError> {
    let reserved = match version {
        // Not used there, and so not looked at.
        Version::V3_1 => 0,
        Version::V3_1_1 => 0xFC,
        Version::V5 => 0xC0,
    };
    if byte & reserved != 0 {
        return Err(DecodeError::SubscriptionOptionsReserved);
    }
    let qos = Qos::from_bits(byte & 0b11).ok_or(DecodeError::SubscriptionOptionsValue)?;
    let byte = if version.is_v5() { byte } else { 0 };
    let retain_handling = match byte >> 4 & 0b11 {
        0 => RetainHandling::Always,
        1 => RetainHandling::IfNew,
        2 => RetainHandling::Never,
        _ => return Err(DecodeError::SubscriptionOptionsValue),
    };
    Ok(SubscriptionOptions {
        qos,
        no_local: byte & 0x04 != 0,
        retain_as_published: byte & 0x08 != 0,
        retain_handling,
    })
}

/// An UNSUBSCRIBE packet.
#[derive(Debug)]
pub struct Unsubscribe<'a> {
    /// Identifier its UNSUBACK repeats.
    pub packet_id: u16,
    /// At least one, as sent.
    pub filters: Vec<&'a str>,
}

impl<'a> Unsubscribe<'a> {
    /// Decodes an UNSUBSCRIBE.
    ///
    /// # Errors
    /// Any broken rule of its form; `[MQTT-3.10.3-2]` if it names no filter.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if version.is_v5() {
            check(&mut reader, PropertySet::UNSUBSCRIBE)?;
        }
        let mut filters = Vec::new();
        while !reader.is_empty() {
            filters.push(reader.string()?);
        }
        if filters.is_empty() {
            return Err(DecodeError::NoFilter);
        }
        Ok(Unsubscribe { packet_id, filters })
    }
}

/// Size of a SUBACK or UNSUBACK of 5.0 for so many filters.
#[must_use]
pub const fn answer_bytes(filters: usize) -> usize {
    let body = 3 + filters;
    1 + variable_byte_integer_len(body) + body
}

/// Appends a SUBACK with one code per filter `[MQTT-3.8.4-6]`; 3.1.1 knows one failure, 0x80. 3.1 has none:
/// what is refused is answered as granted with QoS 0 there.
pub fn encode_suback(packet_id: u16, reasons: &[Reason], version: Version, out: &mut Vec<u8>) {
    let head = 2 + usize::from(version.is_v5());
    out.push(0x90);
    put_variable_byte_integer(out, (head + reasons.len()) as u32);
    put_u16(out, packet_id);
    if version.is_v5() {
        out.push(0);
    }
    out.extend(reasons.iter().map(|reason| match version {
        Version::V3_1 if reason.is_error() => 0,
        Version::V3_1_1 if reason.is_error() => 0x80,
        _ => reason.byte(),
    }));
}

/// Appends an UNSUBACK; 3.x has no codes in it.
pub fn encode_unsuback(packet_id: u16, reasons: &[Reason], version: Version, out: &mut Vec<u8>) {
    out.push(0xB0);
    if version.is_v5() {
        put_variable_byte_integer(out, (3 + reasons.len()) as u32);
        put_u16(out, packet_id);
        out.push(0);
        out.extend(reasons.iter().map(|reason| reason.byte()));
    } else {
        out.push(2);
        put_u16(out, packet_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(rest: &[u8], version: Version) -> Result<(), DecodeError> {
        Subscribe::decode(&[&[0, 1], rest].concat(), version).map(|_| ())
    }

    #[test]
    fn options_are_strict() {
        let v5 = |byte| subscribe(&[0, 0, 1, b'a', byte], Version::V5);
        assert_eq!(v5(0x2E), Ok(()));
        assert_eq!(v5(0x40), Err(DecodeError::SubscriptionOptionsReserved));
        assert_eq!(v5(0x80), Err(DecodeError::SubscriptionOptionsReserved));
        assert_eq!(v5(0x03), Err(DecodeError::SubscriptionOptionsValue));
        assert_eq!(v5(0x30), Err(DecodeError::SubscriptionOptionsValue));
        let v3 = |byte| subscribe(&[0, 1, b'a', byte], Version::V3_1_1);
        assert_eq!(v3(0x02), Ok(()));
        assert_eq!(v3(0x04), Err(DecodeError::SubscriptionOptionsReserved));
        assert_eq!(v3(0x03), Err(DecodeError::SubscriptionOptionsValue));
        let v31 = |byte| subscribe(&[0, 1, b'a', byte], Version::V3_1);
        assert_eq!(v31(0xFE), Ok(()), "the upper bits are not used");
        assert_eq!(v31(0x03), Err(DecodeError::SubscriptionOptionsValue));
    }

    #[test]
    fn identifiers_are_strict() {
        let with = |block: &[u8]| {
            subscribe(
                &[&[block.len() as u8], block, &[0, 1, b'a', 0]].concat(),
                Version::V5,
            )
        };
        assert_eq!(with(&[0x0B, 0xFF, 0xFF, 0xFF, 0x7F]), Ok(()));
        assert_eq!(with(&[0x0B, 0]), Err(DecodeError::SubscriptionIdZero));
        assert_eq!(
            with(&[0x0B, 1, 0x0B, 2]),
            Err(DecodeError::PropertyRepeated)
        );
        assert_eq!(subscribe(&[0], Version::V5), Err(DecodeError::NoFilter));
        assert_eq!(subscribe(&[], Version::V3_1_1), Err(DecodeError::NoFilter));
    }

    #[test]
    fn no_local_on_a_shared_filter_is_an_error() {
        for filter in [&b"$share/g/a"[..], b"$queue/a"] {
            let body = [&[0, 0, filter.len() as u8], filter, &[0x04]].concat();
            let decoded = subscribe(&body, Version::V5);
            assert_eq!(decoded, Err(DecodeError::NoLocalShared));
        }
    }

    #[test]
    fn older_versions_learn_only_that_a_filter_failed_or_not_even_that() {
        let mut out = Vec::new();
        encode_suback(
            7,
            &[Reason::GrantedQos1, Reason::NotAuthorized],
            Version::V3_1_1,
            &mut out,
        );
        assert_eq!(out, [0x90, 4, 0, 7, 1, 0x80]);
        out.clear();
        encode_suback(7, &[Reason::NotAuthorized], Version::V3_1, &mut out);
        assert_eq!(out, [0x90, 3, 0, 7, 0]);
        out.clear();
        encode_suback(7, &[Reason::NotAuthorized], Version::V5, &mut out);
        assert_eq!(out, [0x90, 4, 0, 7, 0, 0x87]);
        for filters in [1, 124, 125] {
            let reasons = vec![Reason::Success; filters];
            for encode in [encode_suback, encode_unsuback] {
                out.clear();
                encode(7, &reasons, Version::V5, &mut out);
                assert_eq!(out.len(), answer_bytes(filters));
            }
        }
        out.clear();
        encode_unsuback(7, &[Reason::Success], Version::V3_1_1, &mut out);
        assert_eq!(out, [0xB0, 2, 0, 7]);
    }
}
