//! A broker that is drained: it accepts nobody, says so, sends its clients away one after the other, and stops.

use crate::admin::{ANYWHERE, address, get};
use crate::bridges::{await_line, bridge};
use crate::on_shards;
use crate::operator::run;
use crate::support::{Broker, Client, Connect, Packet, Setup, Version, eventually};
use serde_json::Value;
use std::net::TcpStream;

on_shards! { [1, 2]
    a_drained_broker_sends_its_clients_elsewhere_and_stops,
    a_closed_listener_disturbs_no_other,
    bridges_go_last,
}

fn drain(broker: &Broker, words: &[&str]) -> crate::support::Outcome {
    let at = format!("http://{}", address(broker));
    run(&[words, &["--admin", &at]].concat(), &[])
}

/// By its socket, as who owns it.
fn start(shards: usize, more: &str) -> (Broker, String) {
    let socket = format!(
        "{}/{}",
        env!("CARGO_TARGET_TMPDIR"),
        crate::support::unique("socket")
    );
    let config = format!("{ANYWHERE}socket = {socket:?}\n{more}");
    let setup = Setup::new().shards(shards).config(&config);
    let broker = setup
        .listen("mqtt://127.0.0.1:0")
        .listen("mqtt://127.0.0.1:0")
        .start();
    eventually("the socket is there", || std::fs::metadata(&socket).ok());
    (broker, format!("unix://{socket}"))
}

fn a_drained_broker_sends_its_clients_elsewhere_and_stops(shards: usize) {
    let more = "[mqtt]\nserver_reference = \"other.example\"\n";
    let (mut broker, socket) = start(shards, more);
    let mut new: Vec<_> = (0..30)
        .map(|n| Connect::v5(&format!("new{n}")).open(&broker))
        .collect();
    let mut old = Connect::v4("old").open(&broker);
    // Nobody without a token may.
    let refused = drain(&broker, &["drain"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    new[0].ping();
    // One in a second, so that it is seen under way.
    let begun = run(
        &["drain", "--no-wait", "--rate", "1", "--admin", &socket],
        &[],
    );
    assert_eq!(begun.status.code(), Some(0), "{begun:?}");
    let page = get(address(&broker), "/readyz");
    assert_eq!(page.status, 503, "{}", page.body);
    assert!(page.body.contains("it is being drained"), "{}", page.body);
    assert_eq!(get(address(&broker), "/healthz").status, 200);
    let status = drain(&broker, &["status"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    let nowhere = "listens            nowhere: each listener was closed or drained";
    assert!(status.output.contains(nowhere), "{status:?}");
    let listener = broker.address();
    eventually("nobody comes in any more", || {
        TcpStream::connect(listener).err()
    });
    // At that rate most are there and served.
    new[29].ping();
    let done = run(&["drain", "--rate", "1000", "--admin", &socket], &[]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(done.output.contains("the broker has stopped"), "{done:?}");
    assert_eq!(broker.wait_exit().code(), Some(0));
    for client in &mut new {
        let packets = client.drain_to_close();
        let text = format!("{:?}", b"other.example");
        let is_told = |packet: &Packet| {
            matches!(packet, Packet::Disconnect { code: 0x9C, .. })
                && format!("{packet:?}").contains(&text)
        };
        assert!(packets.iter().any(is_told), "{packets:?}");
    }
    assert!(old.drain_to_close().is_empty());
    assert!(
        broker
            .log()
            .contains("drained: no client is connected any more")
    );
}

/// What clients still publish goes out, and nobody dials again for a line that the drain has ended.
fn bridges_go_last(shards: usize) {
    let remote = Broker::start(shards);
    let rules = "topics = [{ filter = \"t/#\" }]";
    let (mut broker, socket) = start(shards, &bridge(remote.address(), rules));
    await_line(&broker, "bridge b is up");
    let _clients: Vec<_> = (0..3)
        .map(|n| Connect::v5(&format!("c{n}")).open(&broker))
        .collect();
    let done = run(&["drain", "--rate", "1000", "--admin", &socket], &[]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(broker.wait_exit().code(), Some(0));
    let log = broker.log();
    assert!(log.contains("no client is connected any more"), "{log}");
    let mut of_bridge = log.lines().filter(|line| line.contains("bridge b"));
    assert!(!of_bridge.any(|line| line.contains("drained")), "{log}");
}

fn a_closed_listener_disturbs_no_other(shards: usize) {
    let (broker, socket) = start(shards, "");
    let [one, other] = [0, 1].map(|n| broker.addresses()[n]);
    let at = |address, id: &str| {
        let stream = TcpStream::connect(address).expect("connect");
        let over = Client::over(stream, Version::V5);
        Connect::v5(id).attempt_over(over).0
    };
    let mut gone = at(one, "gone");
    let mut stays = at(other, "stays");
    let rows = |broker: &Broker| {
        let told = drain(broker, &["listeners", "--json"]);
        let told: Value = serde_json::from_str(&told.output).expect("JSON");
        told["listeners"].clone()
    };
    let before = rows(&broker);
    assert_eq!(
        (&before[0]["open"], &before[0]["connections"]),
        (&true.into(), &1.into())
    );
    let url = format!("mqtt://{one}");
    let close = |more: &[&str]| {
        let words = ["drain", "--listener", &url, "--admin", &socket];
        run(&[&words, more].concat(), &[])
    };
    let closed = close(&["--close"]);
    assert_eq!(closed.status.code(), Some(0), "{closed:?}");
    gone.ping();
    assert_eq!(rows(&broker)[0]["open"], false);
    for path in ["/readyz", "/api/v1/status"] {
        let page = get(address(&broker), path);
        let told: Value = serde_json::from_str(&page.body).expect("JSON");
        let there = format!("mqtt://{other}");
        assert_eq!(told["listeners"], Value::from(vec![there]), "{path}");
    }
    eventually("nobody comes in there", || TcpStream::connect(one).err());
    let drained = close(&[]);
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    let packets = gone.drain_to_close();
    let is_told = |packet: &Packet| matches!(packet, Packet::Disconnect { code: 0x8B, .. });
    assert!(packets.iter().any(is_told), "{packets:?}");
    broker.await_counter("connections_drained", 1);
    stays.ping();
    at(other, "comes").ping();
    assert_eq!(get(address(&broker), "/readyz").status, 200);
    let unknown = run(
        &["drain", "--listener", "mqtt://x", "--admin", &socket],
        &[],
    );
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    broker.stop();
}
