//! Keep alive: section 3.1.2.10 and Server Keep Alive.

use crate::checks::watch;
use crate::rule;
use crate::support::{Broker, Connect, Version, Will, prop, unique};
use crate::{V3, V4, V5};
use std::time::{Duration, Instant};

fn pinging_stays(b: &Broker, v: Version) {
    let mut client = Connect::new(v, &unique("c")).keep_alive(1).open(b);
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(500));
        client.ping();
    }
}
rule!(mqtt311_3_1_2_23__a_pinging_client_stays, |b| pinging_stays(
    b, V4
));
rule!(mqtt5_3_1_2_20__a_pinging_client_stays, |b| pinging_stays(
    b, V5
));

fn silence_is_cut(b: &Broker, v: Version) {
    let topic = unique("will");
    let mut watcher = watch(b, v, &topic, 0);
    let mut forever = Connect::new(v, &unique("c")).open(b);
    let start = Instant::now();
    let will = Will::new(&topic, "gone");
    let mut client = Connect::new(v, &unique("c"))
        .keep_alive(2)
        .will(will)
        .open(b);
    client.expect_error(&[0x8D]);
    assert!(
        start.elapsed() >= Duration::from_millis(2900),
        "cut before one and a half times"
    );
    watcher.expect(&topic, "gone");
    forever.ping();
}
rule!(mqtt311_3_1_2_24__silence_is_cut, |b| silence_is_cut(b, V4));
rule!(mqtt5_3_1_2_22__silence_is_cut, |b| silence_is_cut(b, V5));
rule!(mqtt5_3_2_2_22__the_clients_own_value_counts, |b| {
    let mut client = Connect::v5(&unique("c")).keep_alive(1).open(b);
    assert_eq!(client.connack.find(prop::SERVER_KEEP_ALIVE), None);
    client.expect_error(&[0x8D]);
});

const CAPPED: &str = "[mqtt]\nkeep_alive_seconds_max = 1\n";
fn capped(b: &Broker) {
    for asked in [0, 600, 65535] {
        let mut client = Connect::v5(&unique("c")).keep_alive(asked).open(b);
        assert_eq!(client.connack.number(prop::SERVER_KEEP_ALIVE), Some(1));
        client.expect_error(&[0x8D]);
    }
}
/// Who cannot be told is cut as well.
fn capped_untold(b: &Broker, v: Version) {
    for asked in [0, 600] {
        let mut client = Connect::new(v, &unique("c")).keep_alive(asked).open(b);
        client.ping();
        client.expect_closed();
    }
}
rule!(r_052__older_clients_are_cut_by_it_too, CAPPED, |b| {
    for v in [V3, V4] {
        capped_untold(b, v);
    }
});
rule!(mqtt5_3_1_2_21__server_keep_alive_counts, CAPPED, capped);
rule!(mqtt5_3_2_2_21__server_keep_alive_counts, CAPPED, capped);
rule!(
    r_052__server_keep_alive_is_announced_and_kept,
    CAPPED,
    capped
);
