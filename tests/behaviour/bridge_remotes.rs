//! What a bridge meets at the other end: TLS, certificates that are wrong, brokers that answer badly or never.

use crate::bridges::{await_line, bridge};
use crate::support::{Broker, Certificates, Connect, Setup, eventually, unique};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A broker by TCP and by TLS.
fn remote(shards: usize, certificates: &Certificates, more: &str) -> Broker {
    let text = format!(
        "allow_anonymous = true\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n[[listener]]\n\
         url = \"mqtts://127.0.0.1:0\"\n{}{more}",
        certificates.section()
    );
    Setup::new().shards(shards).config(&text).start()
}

/// Configuration of a bridge by TLS to the second listener.
fn by_tls(remote: &Broker, tls: &str) -> String {
    let rules = format!("tls = {{ {tls} }}\ntopics = [{{ filter = \"t\", direction = \"both\" }}]");
    bridge(remote.addresses()[1], &rules).replace("mqtt://", "mqtts://")
}

fn tls_carries_messages_both_ways(shards: usize) {
    let certificates = Certificates::new();
    certificates.client("site", "site-7", 10);
    let asks = format!("client_ca = {:?}\n", certificates.path("ca.pem"));
    for (more, shows) in [("", false), (asks.as_str(), true)] {
        let remote = remote(shards, &certificates, more);
        let mut tls = format!(
            "ca = {:?}, server_name = \"localhost\"",
            certificates.path("ca.pem")
        );
        if shows {
            let (own, key) = (certificates.path("site.pem"), certificates.path("site.key"));
            tls += &format!(", certificate = {own:?}, key = {key:?}");
        }
        let text = by_tls(&remote, &tls);
        let local = Broker::with_config(shards, &text);
        await_line(&local, "bridge b is up: mqtts://");
        messages_pass_both_ways(&local, &remote);
    }
}

/// Messages of every QoS and of several sizes come to both, from either.
fn messages_pass_both_ways(local: &Broker, remote: &Broker) {
    let mut here = Connect::v5(&unique("c")).open(local);
    let mut there = Connect::v5(&unique("c")).open(remote);
    here.subscribe("t", 2);
    there.subscribe("t", 2);
    for (qos, bytes) in [(0, 1), (1, 20_000), (2, 200_000)] {
        let payload = "x".repeat(bytes);
        here.publish("t", qos, &payload);
        there.expect("t", &payload);
        here.expect("t", &payload);
        there.publish("t", qos, &payload);
        there.expect("t", &payload);
        here.expect("t", &payload);
    }
}

fn websockets_carry_messages_both_ways(shards: usize) {
    let certificates = Certificates::new();
    let listeners = ["mqtt", "ws", "wss"]
        .map(|scheme| format!("[[listener]]\nurl = \"{scheme}://127.0.0.1:0\"\n"));
    let text = format!(
        "allow_anonymous = true\n{}{}",
        listeners.concat(),
        certificates.section()
    );
    let remote = Setup::new().shards(shards).config(&text).start();
    let ca = certificates.path("ca.pem");
    for (listener, scheme) in [(1, "ws"), (2, "wss")] {
        let tls = match scheme {
            "wss" => format!("tls = {{ ca = {ca:?}, server_name = \"localhost\" }}\n"),
            _ => String::new(),
        };
        let rules = format!("{tls}topics = [{{ filter = \"t\", direction = \"both\" }}]");
        let text = bridge(remote.addresses()[listener], &rules);
        let local = Broker::with_config(shards, &text.replace("mqtt://", &format!("{scheme}://")));
        await_line(&local, &format!("bridge b is up: {scheme}://"));
        messages_pass_both_ways(&local, &remote);
    }
    let text = bridge(remote.addresses()[1], "topics = []");
    let text = text
        .replace("mqtt://", "ws://")
        .replace("\"]\nclient_id", "/no/such\"]\nclient_id");
    let local = Broker::with_config(shards, &text);
    await_line(&local, "WebSocket upgrade refused: it answers 404");
}

fn a_certificate_that_is_wrong_is_told_by_its_key(shards: usize) {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let remote_broker = remote(shards, &certificates, "");
    let ca = format!("ca = {:?}", certificates.path("ca.pem"));
    let localhost = ", server_name = \"localhost\"";
    let of_others = format!("ca = {:?}{localhost}", others.path("ca.pem"));
    for (tls, wanted) in [
        (of_others, "that is trusted (bridge.tls.ca)"),
        (
            format!("{ca}, server_name = \"elsewhere.example\""),
            "is for another name than its address has (bridge.tls.server_name)",
        ),
    ] {
        let local = Broker::with_config(shards, &by_tls(&remote_broker, &tls));
        await_line(&local, wanted);
        serves_others(&local);
    }
    let asks = format!("client_ca = {:?}\n", certificates.path("ca.pem"));
    let strict = remote(shards, &certificates, &asks);
    let local = Broker::with_config(shards, &by_tls(&strict, &format!("{ca}{localhost}")));
    await_line(
        &local,
        "it ends the handshake (it says: certificate required)",
    );
    // Plain MQTT where TLS should be.
    let plain = bridge(
        remote_broker.address(),
        &format!("tls = {{ {ca} }}\ntopics = []"),
    );
    let local = Broker::with_config(shards, &plain.replace("mqtt://", "mqtts://"));
    await_line(&local, "bridge b: mqtts://");
}

fn serves_others(broker: &Broker) {
    let mut client = Connect::v5(&unique("c")).open(broker);
    let topic = unique("t");
    client.subscribe(&topic, 1);
    client.publish(&topic, 1, "x");
    client.expect(&topic, "x");
}

/// A remote broker that does this with each connection.
pub fn stand_in(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = std::sync::Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Takes the first packet and answers it.
fn answering(answer: &'static [u8]) -> SocketAddr {
    stand_in(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(answer);
        // Until the other end closes.
        let _ = stream.read(&mut [0; 4096]);
    })
}

fn who_answers_badly_is_told_and_harms_nobody(shards: usize) {
    let by_5 =
        "protocol = \"5.0\"\ntopics = [{ filter = \"t\" }]\n[limits]\nconnect_timeout_ms = 300";
    for (address, wanted) in [
        (
            answering(
                b"HTTP/1.1 400 Bad Request\r\n\r\n0123456789012345678901234567890123456789012345678901234567890123456789",
            ),
            "it answers CONNECT with",
        ),
        (
            answering(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
            "it breaks the protocol",
        ),
        (
            answering(&[]),
            "it does not answer CONNECT within 300 ms (limits.connect_timeout_ms)",
        ),
        (stand_in(drop), "the connection"),
        (
            answering(&[
                0x20, 11, 0, 0x9D, 8, 0x1C, 0, 5, b'a', b':', b'1', b'8', b'8',
            ]),
            "it refuses CONNECT: Server moved (0x9D); it names another server: \"a:188\"",
        ),
        (
            answering(&[0x20, 3, 0, 0, 0, 0xE0, 2, 0x8B, 0]),
            "it disconnects: Server shutting down (0x8B)",
        ),
    ] {
        let local = Broker::with_config(shards, &bridge(address, by_5));
        await_line(&local, wanted);
        await_line(&local, "the next attempt comes in");
        serves_others(&local);
        local.stop();
    }
}

/// Each end is one line that names the bridge, is counted, and the next attempt waits longer.
fn who_breaks_the_protocol_is_held_to_it(shards: usize) {
    let rules =
        "protocol = \"5.0\"\ntopics = [{ filter = \"t\", direction = \"in\", qos_max = 1 }]";
    for (bytes, wanted) in [
        (
            &[0x20, 6, 0, 0, 3, 0x21, 0, 0][..],
            "a Receive Maximum of 0",
        ),
        (
            &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 0],
            "a Maximum Packet Size of 0",
        ),
        (
            &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 4],
            "an acknowledgement has up to 5 bytes",
        ),
        (
            &[0x20, 3, 0, 0, 0, 0x30, 7, 0, 1, b't', 3, 0x23, 0, 1],
            "topic alias 1, though",
        ),
        (
            &[0x20, 3, 0, 0, 0, 0x30, 6, 0, 0, 3, 0x23, 0, 1],
            "topic alias 1, though",
        ),
        (
            &[0x20, 3, 0, 0, 0, 0x30, 3, 0, 0, 0],
            "The topic name is empty",
        ),
        (
            &[0x20, 3, 0, 0, 0, 0x30, 4, 0, 1, b'#', 0],
            "contains a wildcard",
        ),
        (
            &[0x20, 3, 0, 0, 0, 0x30, 0xFF, 0xFF, 0x7F],
            "it sends a packet of 2097155 bytes",
        ),
        (
            &[0x20, 3, 0, 0, 0, 0x34, 6, 0, 1, b't', 0, 1, 0],
            "of QoS 2, though 1 at most",
        ),
        (&[0x20, 3, 0, 0, 0, 0x10, 0], "it sends CONNECT"),
    ] {
        let local = Broker::with_config(shards, &bridge(answering(bytes), rules));
        let line = await_line(&local, wanted);
        assert!(line.contains("bridge b: mqtt://127.0.0.1:"), "{line}");
        assert!(line.contains("it breaks the protocol: "), "{line}");
        assert!(line.contains("; the next attempt comes in"), "{line}");
        eventually("it is counted", || {
            let count = local.counters().get("bridge_protocol_errors");
            (count > 1).then_some(())
        });
        assert!(
            !local.log().contains("client \"$bridge/b\""),
            "{}",
            local.log()
        );
        serves_others(&local);
    }
}

fn who_accepts_and_reads_nothing_is_given_up(shards: usize) {
    let address = stand_in(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&[0x20, 3, 0, 0, 0]);
        // It never reads again; the bridge closes.
        let _ = stream.set_nonblocking(false);
        std::thread::park();
    });
    let rules = "protocol = \"5.0\"\nkeep_alive_seconds = 1\ntopics = [{ filter = \"t\" }]\n\
                 [limits]\noutbox_bytes_max = 262144\nqueue_messages_max = 100";
    let local = Broker::with_config(shards, &bridge(address, rules));
    await_line(&local, "bridge b is up");
    let mut here = Connect::v5(&unique("c")).open(&local);
    let payload = "x".repeat(16 * 1024);
    for _ in 0..200 {
        here.publish("t", 0, &payload);
        here.publish("t", 1, &payload);
    }
    await_line(&local, "it has not said anything for 1 s");
    serves_others(&local);
}

crate::on_shards!([1, 2]
    tls_carries_messages_both_ways,
    websockets_carry_messages_both_ways,
    a_certificate_that_is_wrong_is_told_by_its_key,
    who_answers_badly_is_told_and_harms_nobody,
    who_breaks_the_protocol_is_held_to_it,
    who_accepts_and_reads_nothing_is_given_up,
);
