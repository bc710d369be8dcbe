//! CONNECT and CONNACK: sections 3.1 and 3.2.

use crate::checks::{fields, malformed_connect, open, raw_connect, refused, still_serves, watch};
use crate::rule;
use crate::support::{
    Broker, Client, Connect, Packet, Props, Publish, Version, Will, prop, unique,
};
use crate::{V4, V5};

fn name(version: Version) -> u8 {
    version as u8
}

fn first_packet_other(b: &Broker, v: Version) {
    for bytes in [vec![0xC0, 0], Publish::new("a", 0, "x").encode(v)] {
        let mut client = Client::dial(b, v);
        client.send(&bytes);
        client.expect_closed();
    }
    still_serves(b);
}
rule!(mqtt311_3_1_0_1__other_first_packet_is_closed, |b| {
    first_packet_other(b, V4)
});
rule!(mqtt5_3_1_0_1__other_first_packet_is_closed, |b| {
    first_packet_other(b, V5)
});
rule!(mqtt5_3_14_0_1__no_disconnect_before_connack, |b| {
    first_packet_other(b, V5);
    refused(
        b,
        V5,
        &raw_connect("MQTT", 5, 3, &fields(&[b"x"])),
        &[0x81, 0x82],
    );
});

fn second_connect(b: &Broker, v: Version) {
    let topic = unique("will");
    let mut watcher = watch(b, V4, &topic, 0);
    let connect = Connect::new(v, &unique("c")).will(Will::new(&topic, "gone"));
    let mut client = connect.open(b);
    client.send(&connect.encode());
    client.expect_error(&[0x82]);
    watcher.expect(&topic, "gone");
}
rule!(mqtt311_3_1_0_2__second_connect_is_closed, |b| {
    second_connect(b, V4)
});
rule!(mqtt5_3_1_0_2__second_connect_is_closed, |b| second_connect(
    b, V5
));
rule!(mqtt5_3_2_0_2__one_connack_per_connection, |b| {
    second_connect(b, V5)
});

fn foreign_name(b: &Broker, v: Version) {
    let bytes = raw_connect("MQTTX", name(v), 2, &fields(&[b"id"]));
    refused(b, v, &bytes, if v == V5 { &[0x84] } else { &[1] });
}
rule!(mqtt311_3_1_2_1__foreign_protocol_name, |b| foreign_name(
    b, V4
));
rule!(mqtt5_3_1_2_1__foreign_protocol_name, |b| foreign_name(
    b, V5
));
rule!(mqtt311_3_1_2_2__unknown_level_gets_code_1, |b| {
    let mut client = Client::dial(b, V4);
    // Levels after 5 may be answered as 5.0 answers, so the bytes are read here as they are.
    client.send(&raw_connect("MQTT", 2, 2, &fields(&[b"id"])));
    match client.recv() {
        Packet::Connack { code, .. } => assert_eq!(code, 1),
        other => panic!("{other:?}"),
    }
    client.expect_closed();
});
rule!(mqtt5_3_1_2_2__unknown_version_is_refused, |b| {
    refused(
        b,
        V5,
        &raw_connect("MQTT", 6, 2, &fields(&[b"id"])),
        &[0x84, 0x01],
    );
});

/// Refuses CONNECTs with these flags and payload fields.
fn bad_flags(b: &Broker, v: Version, flags: u8, texts: &[&[u8]]) {
    malformed_connect(b, v, &raw_connect("MQTT", name(v), flags, &fields(texts)));
}

rule!(mqtt311_3_1_2_3__reserved_connect_flag, |b| bad_flags(
    b,
    V4,
    3,
    &[b"id"]
));
rule!(mqtt5_3_1_2_3__reserved_connect_flag, |b| bad_flags(
    b,
    V5,
    3,
    &[b"id"]
));
rule!(mqtt311_3_1_2_9__will_flag_without_will, |b| bad_flags(
    b,
    V4,
    6,
    &[b"id"]
));
rule!(mqtt5_3_1_2_9__will_flag_without_will, |b| bad_flags(
    b,
    V5,
    6,
    &[b"id"]
));
rule!(mqtt311_3_1_2_11__will_bits_without_will_flag, |b| {
    bad_flags(b, V4, 0x0A, &[b"id"]);
    bad_flags(b, V4, 0x22, &[b"id"]);
});
rule!(mqtt311_3_1_2_13__will_qos_without_will_flag, |b| {
    bad_flags(b, V4, 0x0A, &[b"id"]);
    bad_flags(b, V4, 0x12, &[b"id"]);
});
rule!(mqtt5_3_1_2_11__will_qos_without_will_flag, |b| bad_flags(
    b,
    V5,
    0x0A,
    &[b"id"]
));
rule!(mqtt311_3_1_2_14__will_qos_3, |b| bad_flags(
    b,
    V4,
    0x1E,
    &[b"id", b"t", b"p"]
));
rule!(mqtt5_3_1_2_12__will_qos_3, |b| {
    let payload = [fields(&[b"id"]), vec![0], fields(&[b"t", b"p"])].concat();
    malformed_connect(b, V5, &raw_connect("MQTT", 5, 0x1E, &payload));
});
rule!(mqtt311_3_1_2_15__will_retain_without_will_flag, |b| {
    bad_flags(b, V4, 0x22, &[b"id"])
});
rule!(
    mqtt5_3_1_2_13__will_retain_without_will_flag,
    |b| bad_flags(b, V5, 0x22, &[b"id"])
);
rule!(mqtt311_3_1_2_18__user_name_without_flag, |b| bad_flags(
    b,
    V4,
    2,
    &[b"id", b"user"]
));
rule!(mqtt5_3_1_2_16__user_name_without_flag, |b| bad_flags(
    b,
    V5,
    2,
    &[b"id", b"user"]
));
rule!(mqtt311_3_1_2_19__flag_without_user_name, |b| bad_flags(
    b,
    V4,
    0x82,
    &[b"id"]
));
rule!(mqtt5_3_1_2_17__flag_without_user_name, |b| bad_flags(
    b,
    V5,
    0x82,
    &[b"id"]
));
rule!(mqtt311_3_1_2_20__password_without_flag, |b| {
    bad_flags(b, V4, 0x82, &[b"id", b"user", b"password"]);
});
rule!(mqtt5_3_1_2_18__password_without_flag, |b| {
    bad_flags(b, V5, 0x82, &[b"id", b"user", b"password"]);
});
rule!(mqtt311_3_1_2_21__flag_without_password, |b| bad_flags(
    b,
    V4,
    0xC2,
    &[b"id", b"user"]
));
rule!(mqtt5_3_1_2_19__flag_without_password, |b| bad_flags(
    b,
    V5,
    0x42,
    &[b"id"]
));
rule!(mqtt311_3_1_2_22__password_without_user_name, |b| {
    bad_flags(b, V4, 0x42, &[b"id", b"password"]);
});
rule!(r_074__5_0_allows_a_password_alone, |b| {
    let mut connect = Connect::v5(&unique("c"));
    connect.password = Some(b"password".to_vec());
    match connect.attempt(b).1 {
        Some(Packet::Connack {
            code: 0 | 0x86 | 0x87,
            ..
        }) => {}
        other => panic!("expected a judgement, got {other:?}"),
    }
});

fn all_fields(b: &Broker, v: Version) {
    let topic = unique("will");
    let mut watcher = watch(b, v, &topic, 1);
    let will = Will::new(&topic, "payload").qos(1);
    let will = if v == V5 {
        will.props(Props::new().user("k", "v"))
    } else {
        will
    };
    let connect = Connect::new(v, &unique("c"))
        .will(will)
        .login("user", "password");
    connect.open(b).cut();
    let got = watcher.expect(&topic, "payload");
    if v == V5 {
        assert_eq!(got.props.user_pairs(), [("k".to_owned(), "v".to_owned())]);
    }
}
rule!(mqtt311_3_1_3_1__fields_in_fixed_order, |b| all_fields(
    b, V4
));
rule!(mqtt5_3_1_3_1__fields_in_fixed_order, |b| all_fields(b, V5));

fn bad_text(b: &Broker, v: Version, flags: u8, texts: &[&[u8]]) {
    let mut payload = fields(&texts[..1]);
    if v == V5 && flags & 4 != 0 {
        payload.push(0);
    }
    payload.extend(fields(&texts[1..]));
    let bytes = raw_connect("MQTT", name(v), flags, &payload);
    refused(
        b,
        v,
        &bytes,
        if v == V5 {
            &[0x81, 0x82, 0x85, 0x90]
        } else {
            &[]
        },
    );
}
rule!(mqtt311_3_1_3_3__client_id_is_missing, |b| bad_flags(
    b,
    V4,
    2,
    &[]
));
rule!(mqtt5_3_1_3_3__client_id_is_missing, |b| bad_flags(
    b,
    V5,
    2,
    &[]
));
rule!(mqtt311_3_1_3_4__client_id_in_bad_utf8, |b| bad_text(
    b,
    V4,
    2,
    &[b"\xFF\xFE"]
));
rule!(mqtt5_3_1_3_4__client_id_in_bad_utf8, |b| bad_text(
    b,
    V5,
    2,
    &[b"\xFF\xFE"]
));
rule!(mqtt311_3_1_3_10__will_topic_in_bad_utf8, |b| bad_text(
    b,
    V4,
    6,
    &[b"i", b"\xFF", b"p"]
));
rule!(mqtt5_3_1_3_11__will_topic_in_bad_utf8, |b| bad_text(
    b,
    V5,
    6,
    &[b"i", b"\xFF", b"p"]
));
rule!(mqtt311_3_1_3_11__user_name_in_bad_utf8, |b| bad_text(
    b,
    V4,
    0x82,
    &[b"i", b"\xFF"]
));
rule!(mqtt5_3_1_3_12__user_name_in_bad_utf8, |b| bad_text(
    b,
    V5,
    0x82,
    &[b"i", b"\xFF"]
));
rule!(mqtt5_4_7_0_1__wildcard_in_will_topic, |b| bad_text(
    b,
    V5,
    6,
    &[b"i", b"a/#", b"p"]
));

fn usual_ids(b: &Broker, v: Version) {
    // Two ids for each version, so that the tests of one broker do not take over each other.
    for id in [
        ["a", "Abcdefghijklmnop0123456"],
        ["b", "Bbcdefghijklmnop0123456"],
    ][usize::from(v == V5)]
    {
        Connect::new(v, id).open(b).ping();
    }
}
rule!(mqtt311_3_1_3_5__ids_of_1_to_23_characters, |b| usual_ids(
    b, V4
));
rule!(mqtt5_3_1_3_5__ids_of_1_to_23_characters, |b| usual_ids(
    b, V5
));

fn empty_ids(b: &Broker, v: Version) {
    let mut first = Connect::new(v, "").open(b);
    let mut second = Connect::new(v, "").open(b);
    first.ping();
    second.ping();
    if v == V5 {
        let ids = [&first, &second].map(|c| c.connack.string(prop::ASSIGNED_CLIENT_ID));
        assert!(ids[0].is_some() && ids[0] != ids[1], "{ids:?}");
    }
}
rule!(mqtt311_3_1_3_6__empty_ids_are_told_apart, |b| empty_ids(
    b, V4
));
rule!(mqtt5_3_1_3_6__empty_ids_are_told_apart, |b| empty_ids(
    b, V5
));
rule!(mqtt5_3_2_2_16__assigned_ids_are_unique, |b| {
    let clients: Vec<Client> = (0..50).map(|_| Connect::v5("").open(b)).collect();
    let ids = clients
        .iter()
        .map(|c| c.connack.string(prop::ASSIGNED_CLIENT_ID));
    let ids: std::collections::BTreeSet<_> = ids.map(|id| id.expect("an id")).collect();
    assert_eq!(ids.len(), 50);
});
fn assigned_id_resumes(b: &Broker) {
    let mut client = Connect::v5("").expiry(60).open(b);
    let id = client
        .connack
        .string(prop::ASSIGNED_CLIENT_ID)
        .expect("an id");
    client.subscribe(&id, 1);
    client.cut();
    let mut again = Connect::v5(&id).resume().open(b);
    assert!(again.session_present);
    again.publish(&id, 1, "x");
    again.expect(&id, "x");
}
rule!(mqtt5_3_1_3_7__assigned_id_is_told, assigned_id_resumes);
rule!(r_051__assigned_id_is_a_normal_id, assigned_id_resumes);

fn empty_id_with_session(b: &Broker) {
    let mut connect = Connect::v4("");
    connect.clean = false;
    connect.expect_refused(b, &[2]);
    still_serves(b);
}
rule!(mqtt311_3_1_3_7__empty_id_needs_clean_session, |b| {
    empty_id_with_session(b)
});
rule!(mqtt311_3_1_3_8__empty_id_gets_code_2, |b| {
    empty_id_with_session(b)
});
rule!(mqtt311_3_1_3_9__a_refused_id_gets_code_2, |b| {
    empty_id_with_session(b)
});

fn broken_connect(b: &Broker, v: Version) {
    let mut long = Connect::new(v, "id").encode();
    long.push(b'x');
    long[1] += 1;
    malformed_connect(b, v, &long);
    let mut short = Connect::new(v, "id").encode();
    let length_at = short.len() - 4;
    short[length_at + 1] = 9;
    malformed_connect(b, v, &short);
    if v == V5 {
        let unknown = Connect::v5("id").props(Props::new().byte(0x7F, 1));
        malformed_connect(b, v, &unknown.encode());
    }
}
rule!(mqtt311_3_1_4_1__a_broken_connect_is_closed, |b| {
    broken_connect(b, V4)
});
rule!(mqtt5_3_1_4_1__a_broken_connect_is_closed, |b| {
    broken_connect(b, V5)
});

fn accepted(b: &Broker, v: Version) {
    let client = open(b, v);
    assert!(!client.session_present);
}
rule!(mqtt311_3_1_4_4__a_good_connect_gets_code_0, |b| accepted(
    b, V4
));
rule!(mqtt5_3_1_4_5__a_good_connect_gets_code_0, |b| accepted(
    b, V5
));
rule!(mqtt5_3_2_2_1__acknowledge_flags_are_0_or_1, |b| accepted(
    b, V5
));
rule!(r_071__acknowledge_flags_are_0_or_1, |b| accepted(b, V4));
rule!(mqtt311_7_0_0_2__nothing_special_is_needed, |b| accepted(
    b, V4
));
rule!(mqtt311_7_1_1_1__tcp_is_offered, |b| accepted(b, V4));
rule!(mqtt5_4_2_0_1__tcp_is_offered, |b| accepted(b, V5));

fn behind_a_refusal(b: &Broker, v: Version) {
    let topic = unique("refused");
    let mut watcher = watch(b, v, &topic, 0);
    let mut bytes = raw_connect("MQTT", 2, 2, &fields(&[b"id"]));
    bytes.extend(Publish::new(&topic, 0, "no").encode(v));
    let mut client = Client::dial(b, V4);
    client.send(&bytes);
    client.drain_to_close();
    watcher.expect_nothing();
}
rule!(mqtt311_3_1_4_5__nothing_behind_a_refusal_is_acted_on, |b| {
    behind_a_refusal(b, V4)
});
rule!(mqtt5_3_1_4_6__nothing_behind_a_refusal_is_acted_on, |b| {
    behind_a_refusal(b, V5)
});

fn pipelined(b: &Broker, v: Version) {
    let topic = unique("pipelined");
    let mut client = Client::dial(b, v);
    let mut bytes = Connect::new(v, &unique("c")).encode();
    bytes.extend(client.subscribe_bytes(1, &Props::new(), &[(&topic, 0)]));
    bytes.extend(Publish::new(&topic, 0, "x").encode(v));
    bytes.extend([0xC0, 0]);
    client.send(&bytes);
    assert!(matches!(client.recv(), Packet::Connack { code: 0, .. }));
    // Each is answered; the SUBACK may have to wait for other shards.
    client.wait_suback(1);
    client.wait_for("the message", |p| {
        matches!(p, Packet::Publish(_)).then_some(())
    });
    client.wait_for("PINGRESP", |p| (*p == Packet::Pingresp).then_some(()));
}
rule!(r_070__pipelined_packets_are_served_in_order, |b| {
    pipelined(b, V4);
    pipelined(b, V5);
});

fn refusal_closes(b: &Broker, v: Version) {
    let mut client = Client::dial(b, v);
    let connect = if v == V5 {
        Connect::v5("x").props(Props::new().text(prop::AUTH_METHOD, "NOPE"))
    } else {
        Connect::v4("").resume()
    };
    client.send(&connect.encode());
    match client.next_packet() {
        Some(Packet::Connack {
            code,
            session_present,
            ..
        }) => {
            assert!(code != 0 && !session_present);
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    client.expect_closed();
    still_serves(b);
}
rule!(mqtt311_3_2_2_4__a_refusal_has_session_present_0, |b| {
    refusal_closes(b, V4)
});
rule!(mqtt311_3_2_2_5__a_refusal_closes, |b| refusal_closes(b, V4));
rule!(mqtt311_3_2_2_6__no_code_above_5, |b| {
    refusal_closes(b, V4);
    broken_connect(b, V4);
});
rule!(mqtt5_3_2_2_6__a_refusal_has_session_present_0, |b| {
    refusal_closes(b, V5)
});
rule!(mqtt5_3_2_2_7__a_refusal_closes, |b| refusal_closes(b, V5));
rule!(mqtt5_3_2_2_8__connack_codes_are_of_its_table, |b| {
    refusal_closes(b, V5);
    broken_connect(b, V5);
});
rule!(mqtt5_4_13_2_1__an_error_code_closes, |b| refusal_closes(
    b, V5
));

fn connect_with(b: &Broker, props: Props, codes: &[u8]) {
    refused(
        b,
        V5,
        &Connect::v5(&unique("c")).props(props).encode(),
        codes,
    );
}
rule!(mqtt5_4_12_0_1__unknown_authentication_method, |b| {
    connect_with(
        b,
        Props::new().text(prop::AUTH_METHOD, "NOPE"),
        &[0x8C, 0x87],
    );
});
rule!(mqtt5_3_1_2_30__only_auth_before_connack, |b| {
    let topic = unique("early");
    let mut watcher = watch(b, V5, &topic, 0);
    let props = Props::new().text(prop::AUTH_METHOD, "NOPE");
    let mut bytes = Connect::v5(&unique("c")).props(props).encode();
    bytes.extend(Publish::new(&topic, 0, "no").encode(V5));
    refused(b, V5, &bytes, &[0x82, 0x8C, 0x87]);
    watcher.expect_nothing();
});
rule!(mqtt5_4_12_0_6__no_method_no_auth, |b| {
    let client = open(b, V5);
    assert_eq!(client.connack.find(prop::AUTH_METHOD), None);
});
rule!(r_075__authentication_data_without_method, |b| {
    connect_with(b, Props::new().text(prop::AUTH_DATA, "x"), &[0x82]);
});
rule!(r_045__receive_maximum_0_is_an_error, |b| {
    connect_with(b, Props::new().two(prop::RECEIVE_MAXIMUM, 0), &[0x82]);
});
rule!(r_053__request_flags_are_0_or_1, |b| {
    connect_with(b, Props::new().byte(prop::REQUEST_PROBLEM_INFO, 2), &[0x82]);
    connect_with(
        b,
        Props::new().byte(prop::REQUEST_RESPONSE_INFO, 2),
        &[0x82],
    );
});
rule!(
    mqtt5_3_1_2_28__response_information_only_if_asked,
    RESPONSE,
    |b| {
        for props in [
            Props::new(),
            Props::new().byte(prop::REQUEST_RESPONSE_INFO, 0),
        ] {
            let client = Connect::v5(&unique("c")).props(props).open(b);
            assert_eq!(client.connack.find(prop::RESPONSE_INFO), None);
        }
    }
);
const RESPONSE: &str = "[mqtt]\nresponse_information = \"answers\"\n";
rule!(r_054__response_information_is_one_string, RESPONSE, |b| {
    let props = Props::new().byte(prop::REQUEST_RESPONSE_INFO, 1);
    let client = Connect::v5(&unique("c")).props(props).open(b);
    let text = client
        .connack
        .string(prop::RESPONSE_INFO)
        .expect("a string");
    assert!(text.starts_with("answers"), "{text}");
});
fn small_connack(b: &Broker) {
    let limited = |size| Props::new().four(prop::MAXIMUM_PACKET_SIZE, size);
    let (client, answer) = Connect::v5(&unique("c")).props(limited(30)).attempt(b);
    assert!(answer.is_some() && client.largest_packet_bytes <= 30);
    let props = limited(8).text(prop::AUTH_METHOD, "NOPE");
    let (client, _) = Connect::v5(&unique("c")).props(props).attempt(b);
    assert!(
        client.largest_packet_bytes <= 8,
        "{}",
        client.largest_packet_bytes
    );
}
rule!(mqtt5_3_2_2_19__connack_drops_its_reason_string, |b| {
    small_connack(b)
});
rule!(mqtt5_3_2_2_20__connack_drops_its_user_properties, |b| {
    small_connack(b)
});

rule!(
    r_069__silence_before_connect_is_closed,
    "[limits]\nconnect_timeout_ms = 500\n",
    |b| {
        Client::dial(b, V4).expect_closed();
        let mut half = Client::dial(b, V4);
        half.send(&Connect::v4("half").encode()[..5]);
        half.expect_closed();
    }
);
