//! Packets as the broker writes them: an independent reader finds in them what was put in.

use super::read;
use crate::decode::Packet;
use crate::wire::{Props, prop};
use arbitrary::{Result, Unstructured};
use ringmq::engine::codec::connect::{Connack, Refusal};
use ringmq::engine::codec::control::{encode_auth, encode_disconnect};
use ringmq::engine::codec::publish::PublishHead;
use ringmq::engine::codec::subscribe::{encode_suback, encode_unsuback};
use ringmq::engine::codec::{Reason, Version};
use ringmq::engine::message::Qos;

/// Encodes one packet of the fields that `input` chooses and reads it back.
pub fn check(input: &[u8], version: Version) -> Result<()> {
    let mut fields = Unstructured::new(input);
    match fields.int_in_range(0..=5)? {
        0 => connack(&mut fields, version),
        1 => refusal(&mut fields, version),
        2 => suback(&mut fields, version),
        3 => publish(&mut fields, version),
        4 if version.is_v5() => disconnect(&mut fields),
        5 if version.is_v5() => auth(&mut fields),
        _ => unsuback(&mut fields, version),
    }
}

fn text<'a>(fields: &mut Unstructured<'a>) -> Result<&'a str> {
    let text: &str = fields.arbitrary()?;
    // Texts that the broker writes have no NUL: it has them from a decoder or from its configuration.
    Ok(text.split('\0').next().unwrap_or_default())
}

fn qos(fields: &mut Unstructured<'_>) -> Result<Qos> {
    let bits = fields.int_in_range(0..=2)?;
    Ok(Qos::from_bits(bits).unwrap_or(Qos::AtMostOnce))
}

fn connack(fields: &mut Unstructured<'_>, version: Version) -> Result<()> {
    let optional = |fields: &mut Unstructured<'_>| fields.arbitrary::<Option<u32>>();
    let has_id: bool = fields.arbitrary()?;
    let has_response: bool = fields.arbitrary()?;
    let connack = Connack {
        authentication: None,
        broker_name: None,
        session_present: fields.arbitrary()?,
        session_expiry_seconds: optional(fields)?,
        receive_maximum: fields.int_in_range(1..=u16::MAX)?,
        qos_max: Some(qos(fields)?).filter(|qos| *qos < Qos::ExactlyOnce),
        packet_bytes_max: optional(fields)?.filter(|bytes| *bytes > 0),
        topic_alias_max: fields.arbitrary()?,
        server_keep_alive_seconds: fields.arbitrary()?,
        unavailable: fields.arbitrary()?,
        assigned_client_id: Some(text(fields)?).filter(|_| has_id),
        response_information: Some(text(fields)?).filter(|_| has_response),
    };
    let mut out = Vec::new();
    connack.encode(version, &mut out);
    let Packet::Connack {
        session_present,
        code,
        props,
    } = read(&out, version)
    else {
        panic!("{connack:?} was written as {out:02x?}");
    };
    assert_eq!(code, 0);
    let has_flag = version != Version::V3_1;
    assert_eq!(session_present, connack.session_present && has_flag);
    if version.is_v5() {
        same_connack(&connack, &props);
    }
    Ok(())
}

fn same_connack(connack: &Connack<'_>, props: &Props) {
    let number = |id: u8| props.number(id);
    assert_eq!(number(prop::SESSION_EXPIRY), connack.session_expiry_seconds);
    let receive_maximum = number(prop::RECEIVE_MAXIMUM).unwrap_or(u32::from(u16::MAX));
    assert_eq!(receive_maximum, u32::from(connack.receive_maximum));
    let qos_max = connack.qos_max.map(|qos| u32::from(qos.bits()));
    assert_eq!(number(prop::MAXIMUM_QOS), qos_max);
    assert_eq!(number(prop::MAXIMUM_PACKET_SIZE), connack.packet_bytes_max);
    let aliases = number(prop::TOPIC_ALIAS_MAXIMUM).unwrap_or(0);
    assert_eq!(aliases, u32::from(connack.topic_alias_max));
    let keep_alive = connack.server_keep_alive_seconds.map(u32::from);
    assert_eq!(number(prop::SERVER_KEEP_ALIVE), keep_alive);
    let string = |id: u8| props.string(id);
    let assigned = connack.assigned_client_id.map(str::to_owned);
    assert_eq!(string(prop::ASSIGNED_CLIENT_ID), assigned);
    let response = connack.response_information.map(str::to_owned);
    assert_eq!(string(prop::RESPONSE_INFO), response);
    let features = [
        prop::RETAIN_AVAILABLE,
        prop::WILDCARD_AVAILABLE,
        prop::SUBSCRIPTION_IDS_AVAILABLE,
        prop::SHARED_AVAILABLE,
    ];
    let unavailable = features.map(|feature| number(feature) == Some(0));
    assert_eq!(unavailable, connack.unavailable);
}

const REFUSALS: &[Reason] = &[
    Reason::MalformedPacket,
    Reason::ProtocolError,
    Reason::UnsupportedProtocolVersion,
    Reason::ClientIdentifierNotValid,
    Reason::NotAuthorized,
    Reason::QuotaExceeded,
    Reason::TopicNameInvalid,
    Reason::QosNotSupported,
    Reason::BadAuthenticationMethod,
];

fn refusal(fields: &mut Unstructured<'_>, version: Version) -> Result<()> {
    let (has_string, has_reference) = fields.arbitrary()?;
    let packet_bytes_max: u16 = fields.arbitrary()?;
    let refusal = Refusal {
        reason: *fields.choose(REFUSALS)?,
        reason_string: Some(text(fields)?).filter(|_| has_string),
        server_reference: Some(text(fields)?).filter(|_| has_reference),
    };
    let mut out = Vec::new();
    refusal.encode(version, u32::from(packet_bytes_max), &mut out);
    if out.is_empty() {
        let is_untold = match version.is_v5() {
            true => packet_bytes_max < 5,
            false => refusal.reason.connack_v3(version).is_none(),
        };
        assert!(is_untold);
        return Ok(());
    }
    let Packet::Connack {
        session_present,
        code,
        props,
    } = read(&out, version)
    else {
        panic!("{refusal:?} was written as {out:02x?}");
    };
    assert!(!session_present && code > 0);
    if version.is_v5() {
        assert_eq!(code, refusal.reason.byte());
        let texts = [refusal.reason_string, refusal.server_reference];
        explained(&out, packet_bytes_max, &props, texts);
    }
    Ok(())
}

/// Each text is there as it was or left out; with texts the packet is as small as the client wants.
fn explained(out: &[u8], packet_bytes_max: u16, props: &Props, texts: [Option<&str>; 2]) {
    let found = [prop::REASON_STRING, prop::SERVER_REFERENCE].map(|id| props.string(id));
    for (found, put) in found.iter().zip(texts) {
        assert!(found.is_none() || found.as_deref() == put);
    }
    let has_text = found.iter().any(Option::is_some);
    assert!(!has_text || out.len() <= usize::from(packet_bytes_max));
    if packet_bytes_max == u16::MAX && out.len() < 1000 {
        let put = texts.map(|text| text.map(str::to_owned));
        assert_eq!(found, put, "a text that fits was left out");
    }
}

fn disconnect(fields: &mut Unstructured<'_>) -> Result<()> {
    let (has_string, has_reference) = fields.arbitrary()?;
    let packet_bytes_max: u16 = fields.arbitrary()?;
    let texts = [
        Some(text(fields)?).filter(|_| has_string),
        Some(text(fields)?).filter(|_| has_reference),
    ];
    let reason = Reason::ProtocolError;
    let mut out = Vec::new();
    let limit = u32::from(packet_bytes_max);
    encode_disconnect(reason, texts[0], texts[1], limit, &mut out);
    match read(&out, Version::V5) {
        Packet::Disconnect { code, props } => {
            assert_eq!(code, reason.byte());
            explained(&out, packet_bytes_max, &props, texts);
        }
        other => panic!("a DISCONNECT was read as {other:?}"),
    }
    Ok(())
}

fn auth(fields: &mut Unstructured<'_>) -> Result<()> {
    let method = text(fields)?;
    let data: &[u8] = fields.arbitrary()?;
    let mut out = Vec::new();
    encode_auth(Reason::ContinueAuthentication, method, data, &mut out);
    match read(&out, Version::V5) {
        Packet::Auth { code, props } => {
            assert_eq!(code, Reason::ContinueAuthentication.byte());
            assert_eq!(props.string(prop::AUTH_METHOD).as_deref(), Some(method));
            assert_eq!(props.bytes(prop::AUTH_DATA).unwrap_or_default(), data);
        }
        other => panic!("an AUTH was read as {other:?}"),
    }
    Ok(())
}

const SUBACKS: &[Reason] = &[
    Reason::Success,
    Reason::GrantedQos1,
    Reason::GrantedQos2,
    Reason::NotAuthorized,
    Reason::TopicFilterInvalid,
    Reason::QuotaExceeded,
    Reason::SharedSubscriptionsNotSupported,
];

fn suback(fields: &mut Unstructured<'_>, version: Version) -> Result<()> {
    let packet_id = fields.int_in_range(1..=u16::MAX)?;
    let count = fields.int_in_range(1..=300)?;
    let reasons = (0..count)
        .map(|_| fields.choose(SUBACKS).copied())
        .collect::<Result<Vec<_>>>()?;
    let mut out = Vec::new();
    encode_suback(packet_id, &reasons, version, &mut out);
    match read(&out, version) {
        Packet::Suback { id, codes, .. } => {
            assert_eq!(id, packet_id);
            let wanted = reasons.iter().map(|reason| match reason.byte() {
                byte if byte >= 0x80 && version == Version::V3_1 => 0,
                byte if byte >= 0x80 && version == Version::V3_1_1 => 0x80,
                byte => byte,
            });
            assert_eq!(codes, wanted.collect::<Vec<_>>());
        }
        other => panic!("a SUBACK was read as {other:?}"),
    }
    Ok(())
}

fn unsuback(fields: &mut Unstructured<'_>, version: Version) -> Result<()> {
    let packet_id = fields.int_in_range(1..=u16::MAX)?;
    let count = fields.int_in_range(1..=300)?;
    let known = [Reason::Success, Reason::NoSubscriptionExisted];
    let reasons = (0..count)
        .map(|_| fields.choose(&known).copied())
        .collect::<Result<Vec<_>>>()?;
    let mut out = Vec::new();
    encode_unsuback(packet_id, &reasons, version, &mut out);
    match read(&out, version) {
        Packet::Unsuback { id, codes, .. } => {
            assert_eq!(id, packet_id);
            let wanted = reasons.iter().filter(|_| version.is_v5());
            assert_eq!(
                codes,
                wanted.map(|reason| reason.byte()).collect::<Vec<_>>()
            );
        }
        other => panic!("an UNSUBACK was read as {other:?}"),
    }
    Ok(())
}

fn publish(fields: &mut Unstructured<'_>, version: Version) -> Result<()> {
    let ids: Vec<u32> = fields.arbitrary()?;
    let ids: Vec<u32> = ids.into_iter().map(|id| id % 268_435_455 + 1).collect();
    let expiry_seconds: Option<u32> = fields.arbitrary()?;
    let topic_alias = fields.arbitrary()?;
    let (retain, repeated) = fields.arbitrary()?;
    let qos = qos(fields)?;
    let packet_id = fields.int_in_range(1..=u16::MAX)?;
    let topic = text(fields)?.replace(['+', '#'], "x");
    let payload: &[u8] = fields.arbitrary()?;
    let user = Props::new().user("name", &topic).body();
    let head = PublishHead {
        version,
        dup: repeated && qos > Qos::AtMostOnce,
        qos,
        retain,
        topic: &topic,
        packet_id,
        forwarded: &user,
        expiry_seconds,
        topic_alias,
        subscription_ids: &ids,
        payload_bytes: payload.len(),
    };
    let mut out = Vec::new();
    head.encode(&mut out);
    out.extend_from_slice(payload);
    assert_eq!(out.len(), head.packet_bytes());
    let Packet::Publish(read) = read(&out, version) else {
        panic!("a PUBLISH was written as {out:02x?}");
    };
    assert_eq!((&*read.topic, &*read.payload), (topic.as_bytes(), payload));
    assert_eq!(
        (read.qos, read.retain, read.dup),
        (qos.bits(), retain, head.dup)
    );
    assert_eq!(read.id, if qos == Qos::AtMostOnce { 0 } else { packet_id });
    if version.is_v5() {
        assert_eq!(read.props.number(prop::MESSAGE_EXPIRY), expiry_seconds);
        let alias = read.props.number(prop::TOPIC_ALIAS).unwrap_or(0);
        assert_eq!(alias, u32::from(topic_alias));
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        assert_eq!(read.props.subscription_ids(), sorted);
        assert_eq!(read.props.user_pairs(), [("name".to_owned(), topic)]);
    }
    Ok(())
}
