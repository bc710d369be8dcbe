//! Packets as a client sends them.

use super::{for_client, read};
use crate::{decode, wire};
use ringmq::engine::codec::ack::Ack;
use ringmq::engine::codec::connect::{Connect, ConnectError, encode_connect};
use ringmq::engine::codec::control::{Auth, Disconnect, encode_auth};
use ringmq::engine::codec::frame::{Frame, Split, split};
use ringmq::engine::codec::publish::{Publish, PublishHead};
use ringmq::engine::codec::subscribe::{RetainHandling, Subscribe, Unsubscribe};
use ringmq::engine::codec::{DecodeError, Packet, Version};
use ringmq::engine::message::Qos;

/// Decodes one packet and holds it against what is known of its form.
pub fn check(first_byte: u8, body: &[u8], version: Version) {
    if first_byte == 0x10 {
        check_connect(body);
    }
    let packet = match Packet::decode(Frame { first_byte, body }, version) {
        Ok(packet) => packet,
        Err(error) => return check_error(error),
    };
    match packet {
        Packet::Connect(_) => panic!("a second CONNECT is never decoded"),
        Packet::Publish(publish) => check_publish(first_byte, body, &publish, version),
        Packet::Ack(ack) => check_ack(body, ack, version),
        Packet::Subscribe(subscribe) => check_subscribe(&subscribe, version),
        Packet::Unsubscribe(unsubscribe) => check_unsubscribe(&unsubscribe, version),
        Packet::Pingreq => assert!(body.is_empty()),
        Packet::Disconnect(disconnect) => check_disconnect(body, disconnect, version),
        Packet::Auth(auth) => check_auth(auth, version),
    }
}

fn check_error(error: DecodeError) {
    assert!(error.reason().is_error(), "{error:?} is told as a success");
    assert!(!error.to_string().is_empty());
}

fn whole(bytes: &[u8]) -> Frame<'_> {
    match split(bytes, usize::MAX) {
        Ok(Split::Whole(frame, used)) if used == bytes.len() => frame,
        other => panic!("an encoder wrote no whole packet: {other:?}"),
    }
}

fn check_connect(body: &[u8]) {
    let connect = match Connect::decode(body) {
        Ok(connect) => connect,
        Err(ConnectError { error, .. }) => return check_error(error),
    };
    let mut encoded = Vec::new();
    encode_connect(&connect, &mut encoded);
    let again = match Connect::decode(whole(&encoded).body) {
        Ok(again) => again,
        Err(error) => panic!("{connect:?} was encoded as {encoded:02x?}: {error:?}"),
    };
    let plain = |connect: &Connect<'_>| {
        let will = connect.will.as_ref().map(|will| {
            let delay = will.properties.will_delay_seconds;
            let text = (will.topic.to_owned(), will.payload.to_vec());
            (text, will.qos, will.retain, delay)
        });
        let login = (
            connect.user_name.map(str::to_owned),
            connect.password.map(<[u8]>::to_vec),
        );
        let session = (
            connect.properties.session_expiry_seconds,
            connect.properties.receive_maximum,
        );
        let flags = (connect.clean_start, connect.keep_alive_seconds);
        (connect.client_id.to_owned(), flags, will, login, session)
    };
    assert_eq!(connect.version, again.version);
    assert_eq!(plain(&connect), plain(&again));
}

fn check_publish(first_byte: u8, body: &[u8], publish: &Publish<'_>, version: Version) {
    // 3.x clients in the field set DUP at QoS 0, which the broker bears and the reader does not.
    if !(publish.dup && publish.qos == Qos::AtMostOnce) {
        match decode::packet(first_byte, body, for_client(version)) {
            decode::Packet::Publish(read) => same_publish(publish, &read),
            other => panic!("a PUBLISH was read as {other:?}"),
        }
    }
    let head = PublishHead {
        version,
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: publish.topic,
        packet_id: publish.packet_id,
        forwarded: &publish.properties.forwarded,
        expiry_seconds: publish.properties.expiry_seconds,
        topic_alias: publish.properties.topic_alias.unwrap_or(0),
        subscription_ids: &[],
        payload_bytes: publish.payload.len(),
    };
    let mut encoded = Vec::new();
    let id_at = head.encode(&mut encoded);
    assert_eq!(encoded.len() + publish.payload.len(), head.packet_bytes());
    if let Some(at) = id_at {
        assert_eq!(encoded[at..at + 2], publish.packet_id.to_be_bytes());
    }
    encoded.extend_from_slice(publish.payload);
    let frame = whole(&encoded);
    match Publish::decode(frame.first_byte, frame.body, version) {
        Ok(again) => assert_eq!(format!("{publish:?}"), format!("{again:?}")),
        Err(error) => panic!("{publish:?} was encoded as {encoded:02x?}: {error}"),
    }
}

fn same_publish(publish: &Publish<'_>, read: &wire::Publish) {
    assert_eq!(publish.topic.as_bytes(), read.topic);
    assert_eq!(publish.payload, read.payload);
    assert_eq!(publish.qos.bits(), read.qos);
    assert_eq!((publish.dup, publish.retain), (read.dup, read.retain));
    assert_eq!(publish.packet_id, read.id);
    let known = &publish.properties;
    let number = |id: u8| read.props.number(id);
    assert_eq!(known.expiry_seconds, number(wire::prop::MESSAGE_EXPIRY));
    let alias = known.topic_alias.map(u32::from);
    assert_eq!(alias, number(wire::prop::TOPIC_ALIAS));
    let is_utf8 = number(wire::prop::PAYLOAD_FORMAT) == Some(1);
    assert_eq!(known.payload_is_utf8, is_utf8);
    let mut passed_on = read.props.clone();
    passed_on
        .0
        .retain(|(id, _)| ![wire::prop::MESSAGE_EXPIRY, wire::prop::TOPIC_ALIAS].contains(id));
    assert_eq!(*known.forwarded, passed_on.body());
}

fn check_ack(body: &[u8], ack: Ack, version: Version) {
    let same = |packet: decode::Packet| match packet {
        decode::Packet::Ack { kind, id, code, .. } => {
            assert_eq!((kind as u8, id), (ack.kind as u8, ack.packet_id));
            assert_eq!(code, ack.reason.byte());
        }
        other => panic!("{ack:?} was read as {other:?}"),
    };
    // 3.1 allows DUP, which the reader does not know.
    let first_byte = ack.kind.first_byte();
    same(decode::packet(first_byte, body, for_client(version)));
    let mut encoded = Vec::new();
    ack.encode(version, &mut encoded);
    same(read(&encoded, version));
    assert_eq!(
        Ack::decode(ack.kind, whole(&encoded).body, version),
        Ok(ack)
    );
}

fn check_subscribe(subscribe: &Subscribe<'_>, version: Version) {
    assert!(!subscribe.requests.is_empty() && subscribe.packet_id != 0);
    let mut body = subscribe.packet_id.to_be_bytes().to_vec();
    if version.is_v5() {
        let props = match subscribe.subscription_id {
            0 => wire::Props::new(),
            id => wire::Props::new().variable(wire::prop::SUBSCRIPTION_ID, id),
        };
        props.put(&mut body);
    }
    for request in &subscribe.requests {
        let options = request.options;
        wire::put_str(&mut body, request.filter);
        let retain = match options.retain_handling {
            RetainHandling::Always => 0,
            RetainHandling::IfNew => wire::option::RETAIN_IF_NEW,
            RetainHandling::Never => wire::option::RETAIN_NEVER,
        };
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = flag(options.no_local, wire::option::NO_LOCAL)
            | flag(
                options.retain_as_published,
                wire::option::RETAIN_AS_PUBLISHED,
            );
        assert!(version.is_v5() || retain | flags == 0, "3.x has no options");
        body.push(options.qos.bits() | retain | flags);
    }
    match Subscribe::decode(&body, version) {
        Ok(again) => assert_eq!(format!("{subscribe:?}"), format!("{again:?}")),
        Err(error) => panic!("{subscribe:?} again: {error}"),
    }
}

fn check_unsubscribe(unsubscribe: &Unsubscribe<'_>, version: Version) {
    assert!(!unsubscribe.filters.is_empty() && unsubscribe.packet_id != 0);
    let mut body = unsubscribe.packet_id.to_be_bytes().to_vec();
    if version.is_v5() {
        wire::Props::new().put(&mut body);
    }
    for filter in &unsubscribe.filters {
        wire::put_str(&mut body, filter);
    }
    match Unsubscribe::decode(&body, version) {
        Ok(again) => assert_eq!(format!("{unsubscribe:?}"), format!("{again:?}")),
        Err(error) => panic!("{unsubscribe:?} again: {error}"),
    }
}

fn check_disconnect(body: &[u8], disconnect: Disconnect, version: Version) {
    if !version.is_v5() {
        assert!(body.is_empty());
        return;
    }
    let props = match disconnect.session_expiry_seconds {
        Some(seconds) => wire::Props::new().four(wire::prop::SESSION_EXPIRY, seconds),
        None => wire::Props::new(),
    };
    let mut again = vec![disconnect.reason.byte()];
    props.put(&mut again);
    assert_eq!(Disconnect::decode(&again, version), Ok(disconnect));
}

fn check_auth(auth: Auth<'_>, version: Version) {
    assert!(version.is_v5(), "3.x has no AUTH");
    let data = auth.authentication_data.unwrap_or_default();
    let mut encoded = Vec::new();
    encode_auth(auth.reason, auth.method, data, &mut encoded);
    match Auth::decode(whole(&encoded).body) {
        Ok(again) => {
            assert_eq!((again.reason, again.method), (auth.reason, auth.method));
            assert_eq!(again.authentication_data.unwrap_or_default(), data);
        }
        Err(error) => panic!("{auth:?} again: {error}"),
    }
}
