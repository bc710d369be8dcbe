//! Which of several brokers a bridge goes to: back to the first address when it returns, and elsewhere where
//! one says so.

use crate::bridge_remotes::stand_in;
use crate::bridges::{await_line, bridge};
use crate::support::{Broker, Certificates, Client, Connect, Relay, Setup, eventually, unique};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

fn client(broker: &Broker) -> Client {
    Connect::v5(&unique("c")).open(broker)
}

/// The same with these addresses.
fn with_addresses(text: &str, first: SocketAddr, addresses: &[SocketAddr]) -> String {
    let all: Vec<_> = addresses.iter().map(|at| format!("mqtt://{at}")).collect();
    let one = format!("addresses = [\"mqtt://{first}\"]");
    text.replace(&one, &format!("addresses = {all:?}"))
}

fn await_up(broker: &Broker, at: SocketAddr) {
    await_line(broker, &format!("bridge b is up: mqtt://{at}"));
}

fn it_goes_back_to_the_first_address_when_that_returns(shards: usize) {
    let (first, second) = (Broker::start(shards), Broker::start(shards));
    let relay = Relay::start(first.address());
    relay.close();
    let keys = "failback_ms = 20\ntopics = [{ filter = \"t\" }]";
    let text = bridge(relay.address(), keys);
    let addresses = [relay.address(), second.address()];
    let text = with_addresses(&text, relay.address(), &addresses);
    let local = Broker::with_config(shards, &text);
    await_up(&local, second.address());
    let (mut here, mut there) = (client(&local), client(&second));
    let mut back = client(&first);
    there.subscribe("t", 1);
    back.subscribe("t", 1);
    here.publish("t", 1, "there");
    there.expect("t", "there");
    relay.open();
    await_up(&local, relay.address());
    here.publish("t", 1, "back");
    back.expect("t", "back");
    there.expect_nothing();
    assert_eq!(local.counters().get("bridges_up"), 1);
}

fn without_failback_it_stays_where_it_is(shards: usize) {
    let second = Broker::start(shards);
    let (asked, calls) = std::sync::mpsc::channel();
    let asked = std::sync::Mutex::new(asked);
    let first = stand_in(move |_| {
        let _ = asked.lock().expect("a lock").send(());
    });
    let keys = "protocol = \"5.0\"\nfailback_ms = 0\ntopics = [{ filter = \"t\" }]";
    let text = with_addresses(&bridge(first, keys), first, &[first, second.address()]);
    let local = Broker::with_config(shards, &text);
    await_up(&local, second.address());
    assert!(
        calls.try_iter().count() > 0,
        "the first one was asked first"
    );
    let (mut here, mut there) = (client(&local), client(&second));
    there.subscribe("t", 1);
    for number in 0..50 {
        here.publish("t", 1, number.to_string());
        there.expect("t", number.to_string());
    }
    assert_eq!(calls.try_iter().count(), 0, "and no more");
}

/// A CONNACK that lets nobody in and says where to go.
fn pointer(to: &str, code: u8) -> Vec<u8> {
    let bytes = to.len() as u8;
    let head = [0x20, bytes + 6, 0, code, bytes + 3, 0x1C, 0, bytes];
    [&head[..], to.as_bytes()].concat()
}

/// A broker that lets nobody in, and says where to go.
fn pointing(to: &str) -> SocketAddr {
    let answer = pointer(to, 0x9C);
    stand_in(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&answer);
    })
}

fn a_redirect_to_a_known_address_is_followed(shards: usize) {
    let remote = Broker::start(shards);
    let first = pointing(&remote.address().to_string());
    let text = bridge(first, "topics = [{ filter = \"t\" }]");
    let text = with_addresses(&text, first, &[first, remote.address()]);
    let local = Broker::with_config(shards, &text);
    let line = await_line(&local, "Use another server (0x9C)");
    assert!(
        line.contains("which is followed: mqtt://127.0.0.1:"),
        "{line}"
    );
    await_up(&local, remote.address());
    local.await_counter("bridge_redirects", 1);
    let (mut here, mut there) = (client(&local), client(&remote));
    there.subscribe("t", 1);
    here.publish("t", 1, "x");
    there.expect("t", "x");
}

fn a_redirect_that_nobody_vouches_for_is_told_and_not_followed(shards: usize) {
    let remote = Broker::start(shards);
    let first = pointing(&remote.address().to_string());
    let known = format!("mqtt://{}", remote.address());
    for (keys, wanted) in [
        ("", "without TLS nobody vouches for it"),
        ("redirect = \"refuse\"", "bridge.redirect is refuse"),
    ] {
        let text = bridge(first, &format!("{keys}\ntopics = []"));
        let local = Broker::with_config(shards, &text);
        await_line(&local, wanted);
        eventually("it is counted", || {
            let refused = local.counters().get("bridge_redirects_refused");
            (refused > 1).then_some(())
        });
        assert!(!local.log().contains(&known), "{}", local.log());
    }
}

fn redirects_in_a_row_are_bounded(shards: usize) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("listen"));
    let addresses = [0, 1].map(|place: usize| listeners[place].local_addr().expect("an address"));
    for (place, listener) in listeners.into_iter().enumerate() {
        let answer = pointer(&addresses[1 - place].to_string(), 0x9D);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(&answer);
            }
        });
    }
    let text = bridge(addresses[0], "redirects_max = 3\ntopics = []");
    let text = with_addresses(&text, addresses[0], &addresses);
    let local = Broker::with_config(shards, &text);
    await_line(
        &local,
        "which is not followed: 3 in a row were (bridge.redirects_max)",
    );
    eventually("it is counted", || {
        let refused = local.counters().get("bridge_redirects_refused");
        (refused > 0).then_some(())
    });
}

fn by_tls_a_redirect_has_to_prove_who_it_is(shards: usize) {
    let certificates = Certificates::new();
    let tls = |reference: &str| {
        let text = format!(
            "allow_anonymous = true\n[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n\
             {}\n[mqtt]\nserver_reference = {reference:?}\n",
            certificates.section()
        );
        Setup::new().shards(shards).config(&text).start()
    };
    let other = tls("nowhere");
    let there = format!("localhost:{}", other.address().port());
    let leaving = tls(&there);
    let ca = certificates.path("ca.pem");
    let rules = format!(
        "tls = {{ ca = {ca:?}, server_name = \"localhost\" }}\ntopics = [{{ filter = \"t\" }}]"
    );
    let text = bridge(leaving.address(), &rules).replace("mqtt://", "mqtts://");
    let local = Broker::with_config(shards, &text);
    await_line(&local, "bridge b is up: mqtts://127.0.0.1:");
    // It sends its clients away as it stops.
    leaving.stop();
    await_line(&local, &format!("which is followed: mqtts://{there}"));
    await_line(&local, &format!("bridge b is up: mqtts://{there}"));
}

crate::on_shards!([1, 2]
    it_goes_back_to_the_first_address_when_that_returns,
    without_failback_it_stays_where_it_is,
    a_redirect_to_a_known_address_is_followed,
    a_redirect_that_nobody_vouches_for_is_told_and_not_followed,
    redirects_in_a_row_are_bounded,
    by_tls_a_redirect_has_to_prove_who_it_is,
);
