//! Topic names and filters: section 4.7.

use crate::checks::{open, retained, watch};
use crate::rule;
use crate::support::{Ack, Broker, Connect, Packet, Publish, Version, Will, unique};
use crate::{V4, V5};

/// Topics of `published` that `filter` matches; each is published under a stem of its own unless it
/// starts with a slash or `$`.
fn matched(b: &Broker, v: Version, filter: &str, published: &[&str]) -> Vec<String> {
    let mut client = watch(b, v, filter, 1);
    let mut publisher = open(b, v);
    for topic in published {
        publisher.publish(topic, 1, "x");
    }
    // A filter such as '#' has retained messages to wait for, and live ones wait behind them; the
    // marker is the last.
    let marker = unique("marker");
    client.subscribe(&marker, 1);
    publisher.publish(&marker, 1, "x");
    let mut got = Vec::new();
    loop {
        let topic = client.accept().topic_str().to_owned();
        if topic == marker {
            break;
        }
        if published.contains(&topic.as_str()) {
            got.push(topic);
        }
    }
    got.sort();
    got
}

fn both(b: &Broker, filter: &str, published: &[&str], expected: &[&str]) {
    for v in [V4, V5] {
        assert_eq!(matched(b, v, filter, published), expected, "{filter}");
    }
}

fn only_matching(b: &Broker, v: Version) {
    let s = unique("m");
    let (hit, miss) = (format!("{s}/b/c"), format!("{s}/b/d"));
    assert_eq!(matched(b, v, &format!("{s}/+/c"), &[&hit, &miss]), [hit]);
}
rule!(mqtt311_3_3_2_3__only_matching_topics, |b| only_matching(
    b, V4
));
rule!(mqtt5_3_3_2_3__only_matching_topics, |b| only_matching(
    b, V5
));

fn dollar(b: &Broker, v: Version) {
    let (plain, hidden) = (unique("plain"), unique("$hidden"));
    for filter in ["#", "+", "+/x"] {
        let mut client = watch(b, v, filter, 0);
        let mut publisher = open(b, v);
        for topic in [
            &hidden,
            &format!("{hidden}/x"),
            "$SYS/x",
            &plain,
            &format!("{plain}/x"),
        ] {
            publisher.send_publish(&Publish::new(topic, 0, "x"));
            publisher.ping();
        }
        assert!(
            client.drain().iter().all(|p| p.topic[0] != b'$'),
            "{filter}"
        );
    }
}
rule!(mqtt311_4_7_2_1__wildcards_do_not_see_dollar, |b| dollar(
    b, V4
));
rule!(mqtt5_4_7_2_1__wildcards_do_not_see_dollar, |b| dollar(
    b, V5
));
rule!(r_007__dollar_is_seen_when_spelt_out, |b| {
    dollar(b, V5);
    let mut client = open(b, V5);
    client.subscribe("$SYS/#", 0);
    client.subscribe("$SYS/monitor/+", 0);
});
rule!(r_008__dollar_is_excluded_from_retained_too, |b| {
    let mut client = open(b, V4);
    client.send_publish(&Publish::new("$SYS/kept", 0, "x").retain());
    client.ping();
    assert!(retained(b, V4, "#").iter().all(|p| p.topic[0] != b'$'));
});
fn publishes_to_dollar(b: &Broker, v: Version, topic: &str) {
    let mut watcher = watch(b, v, topic, 1);
    let mut client = open(b, v);
    client.send_publish(&Publish::new(topic, 1, "x"));
    match client.next_packet() {
        None
        | Some(
            Packet::Disconnect { .. }
            | Packet::Ack {
                kind: Ack::Puback, ..
            },
        ) => {}
        other => panic!("{other:?}"),
    }
    watcher.expect_nothing();
}
rule!(r_009__clients_do_not_talk_over_dollar_topics, |b| {
    for v in [V4, V5] {
        for topic in ["$SYS", "$SYS/x", "$share/g/x", "$queue/x"] {
            publishes_to_dollar(b, v, topic);
        }
    }
});
rule!(r_009__other_dollar_topics_are_relayed, |b| {
    for v in [V4, V5] {
        let topic = unique("$aws/things");
        let mut exact = watch(b, v, &topic, 1);
        let mut below = watch(b, v, "$aws/#", 1);
        let mut hidden = watch(b, v, "+/#", 1);
        let mut client = open(b, v);
        for text in ["kept", "gone"] {
            if text == "kept" {
                client.retain(&topic, 1, text);
            } else {
                let will = Will::new(&topic, text).qos(1);
                Connect::new(v, &unique("c")).will(will).open(b).cut();
            }
            exact.expect(&topic, text);
            let same = |p: &Packet| match p {
                Packet::Publish(p) => (p.topic_str() == topic).then(|| p.clone()),
                _ => None,
            };
            let publish = below.wait_for("the message", same);
            assert_eq!(publish.payload_str(), text);
            below.complete(&publish);
        }
        assert!(hidden.drain().iter().all(|p| p.topic[0] != b'$'));
        assert_eq!(retained(b, v, &topic)[0].payload_str(), "kept");
        assert!(retained(b, v, "+/#").iter().all(|p| p.topic[0] != b'$'));
        client.retain(&topic, 1, "");
    }
});

fn longest(b: &Broker, v: Version) {
    let mut topic = unique("long");
    topic.push_str(&"x".repeat(65_535 - topic.len()));
    let mut client = open(b, v);
    let bytes = client.subscribe_bytes(1, &crate::support::Props::new(), &[(&topic, 0)]);
    client.send(&bytes);
    // Delivered whole, or refused by the broker's limit: by a code or by the close.
    match client.next_packet() {
        Some(Packet::Suback { codes, .. }) if codes == [0] => {
            open(b, v).publish(&topic, 0, "x");
            client.expect(&topic, "x");
        }
        None | Some(Packet::Suback { .. } | Packet::Disconnect { .. }) => {}
        other => panic!("{other:?}"),
    }
    crate::checks::still_serves(b);
}
rule!(mqtt311_4_7_3_3__the_longest_topic, |b| longest(b, V4));
rule!(mqtt5_4_7_3_3__the_longest_topic, |b| longest(b, V5));
rule!(
    mqtt5_4_7_3_3__the_longest_topic_is_whole,
    "[limits]\ntopic_bytes_max = 65535\n",
    |b| longest(b, V5)
);

fn no_normalising(b: &Broker, v: Version) {
    let s = unique("n");
    let composed = format!("{s}/\u{E9}");
    let decomposed = format!("{s}/e\u{301}");
    assert_eq!(
        matched(b, v, &composed, &[&decomposed, &composed]),
        std::slice::from_ref(&composed)
    );
    let slash = format!("{s}/");
    assert_eq!(matched(b, v, &s, &[&slash, &s]), std::slice::from_ref(&s));
    assert_eq!(
        matched(b, v, &slash, &[&slash, &s]),
        std::slice::from_ref(&slash)
    );
}
rule!(mqtt311_4_7_3_4__topics_compare_as_sent, |b| no_normalising(
    b, V4
));
rule!(mqtt5_4_7_3_4__topics_compare_as_sent, |b| no_normalising(
    b, V5
));

rule!(r_001__hash_matches_the_level_above, |b| {
    let s = unique("sport");
    let topics = ["", "/ranking", "/score/wimbledon"].map(|tail| format!("{s}/player1{tail}"));
    let topics = topics.each_ref().map(String::as_str);
    both(b, &format!("{s}/player1/#"), &topics, &topics);
});
rule!(r_002__hash_alone_matches_all, |b| {
    let s = unique("sport");
    let longer = format!("{s}s");
    both(b, &format!("{s}/#"), &[&s, &longer], &[&s]);
    both(b, "#", &[&s, &longer], &[&s, &longer]);
});
rule!(r_003__plus_is_exactly_one_level, |b| {
    let s = unique("sport");
    let (one, two, empty) = (format!("{s}/p"), format!("{s}/p/r"), format!("{s}/"));
    both(
        b,
        &format!("{s}/+"),
        &[&s, &empty, &one, &two],
        &[&empty, &one],
    );
});
rule!(r_004__a_leading_slash_is_an_empty_level, |b| {
    let topic = format!("/{}", unique("finance"));
    both(b, "+/+", &[&topic], &[&topic]);
    both(b, "/+", &[&topic], &[&topic]);
    both(b, "+", &[&topic], &[]);
});
rule!(r_005__plus_and_hash_combine, |b| {
    let s = unique("tennis");
    let topics = [
        format!("a/{s}"),
        format!("a/{s}/x/y"),
        s.clone(),
        format!("a/b/{s}"),
    ];
    let topics = topics.each_ref().map(String::as_str);
    both(b, &format!("+/{s}/#"), &topics, &topics[..2]);
});
rule!(r_006__slashes_make_empty_levels, |b| {
    let s = unique("e");
    let (double, trailing, single) = (format!("{s}//b"), format!("{s}/"), format!("{s}/b"));
    both(
        b,
        &format!("{s}/+/b"),
        &[&double, &trailing, &single],
        &[&double],
    );
    both(b, "+/+", &["/"], &["/"]);
    both(b, &trailing, &[&double, &trailing, &single], &[&trailing]);
});
rule!(r_010__case_and_spaces_count, |b| {
    let s = unique("t");
    let (upper, spaced, plain) = (
        format!("{s}/ACCOUNTS"),
        format!("{s}/Accounts payable"),
        format!("{s}/Accounts"),
    );
    both(b, &upper, &[&plain, &spaced], &[]);
    both(b, &spaced, &[&plain, &spaced], &[&spaced]);
});
