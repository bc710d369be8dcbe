//! TLS, mutual TLS, WebSocket, WSS, sockets in the file system, PROXY headers: the same MQTT through all.

use crate::intruders::silent_from;
use crate::login::{Scratch, now_s};
use crate::support::{
    Certificates, Client, Connect, Packet, Publish, Setup, Version, Wire, eventually,
    refused_handshake, unique,
};
use rustix::process::Signal;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

fn listeners(certificates: &Certificates, more: &str) -> String {
    let urls = ["mqtt", "mqtts", "ws", "wss"];
    let tables =
        urls.map(|scheme| format!("[[listener]]\nurl = \"{scheme}://127.0.0.1:0\"\n{more}\n"));
    tables.concat() + &certificates.section()
}

fn open(wire: Wire<'_>, address: SocketAddr, connect: &Connect) -> Client {
    let link = wire.dial(address).expect("shake hands");
    let (client, answer) = connect.attempt_over(Client::across(link, connect.version));
    match answer {
        Some(Packet::Connack { code: 0, .. }) => client,
        other => panic!("{} was not accepted: {other:?}", connect.client_id),
    }
}

/// Messages of every size and QoS reach subscribers on every wire, whichever shard they live on.
fn every_wire_carries_everything(shards: usize) {
    let certificates = Certificates::new();
    let setup = Setup::new()
        .shards(shards)
        .config(&listeners(&certificates, ""));
    let broker = setup.start();
    let wires = [
        Wire::Tcp,
        Wire::Tls(&certificates, None),
        Wire::WebSocket,
        Wire::Wss(&certificates),
    ];
    let mut clients = Vec::new();
    for (wire, address) in wires.iter().zip(broker.addresses()) {
        for n in 0..4 {
            let mut client = open(*wire, *address, &Connect::v5(&unique(&format!("c{n}"))));
            client.subscribe("wire/#", 2);
            clients.push(client);
        }
    }
    let sizes = [0, 1, 100, 5_000, 16_384, 70_000, 300_000];
    for (n, size) in sizes.into_iter().enumerate() {
        for qos in 0..3 {
            let from = (n * 3 + qos as usize) % clients.len();
            let payload = vec![b'a' + n as u8; size];
            clients[from].publish("wire/t", qos, &payload);
            for client in &mut clients {
                let publish = client.accept();
                assert_eq!((publish.payload.len(), publish.qos), (size, qos));
                assert!(publish.payload == payload);
            }
        }
    }
}

/// A client that sends its handshake and MQTT byte by byte is served all the same.
fn bytes_may_come_one_by_one(shards: usize) {
    let broker = Setup::new()
        .shards(shards)
        .config("[[listener]]\nurl = \"ws://127.0.0.1:0\"\n")
        .start();
    let mut stream = TcpStream::connect(broker.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    for byte in request {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    // One packet in several frames, each a continuation of one message; then a ping between.
    let connect = Connect::v4(&unique("slow")).encode();
    let (first, rest) = connect.split_at(5);
    let mut frames = vec![0x02, 0x80 | first.len() as u8, 0, 0, 0, 0];
    frames.extend(first);
    frames.extend([0x89, 0x80, 0, 0, 0, 0]);
    frames.extend([0x80, 0x80 | rest.len() as u8, 0, 0, 0, 0]);
    frames.extend(rest);
    for byte in frames {
        stream.write_all(&[byte]).unwrap();
    }
    let mut pong_and_connack = [0; 8];
    stream.read_exact(&mut pong_and_connack).unwrap();
    assert_eq!(pong_and_connack, [0x8a, 0, 0x82, 4, 0x20, 2, 0, 0]);
}

/// The first message after CONNACK may be larger than any CONNECT, wherever the client's home is.
fn a_large_message_may_come_first(shards: usize) {
    let config = "[limits]\nconnect_bytes_max = 1000\n[[listener]]\nurl = \"ws://127.0.0.1:0\"\n";
    let broker = Setup::new().shards(shards).config(config).start();
    for _ in 0..8 {
        let mut client = open(
            Wire::WebSocket,
            broker.address(),
            &Connect::v5(&unique("c")),
        );
        client.publish("t", 1, vec![b'x'; 200_000]);
    }
}

fn upgrade(address: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut chunk).unwrap() {
            0 => break,
            bytes => answer.extend(&chunk[..bytes]),
        }
    }
    (stream, String::from_utf8_lossy(&answer).into_owned())
}

fn request(path: &str, subprotocol: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{subprotocol}\r\n"
    )
}

/// Who cannot come in by a WebSocket reads why, in the answer and in the log.
#[test]
fn upgrades_that_are_not_for_mqtt_are_refused_in_words() {
    let url =
        "[[listener]]\nurl = \"ws://127.0.0.1:0/here\"\norigins = [\"https://App.example:443\"]\n";
    let mqtt = "Sec-WebSocket-Protocol: mqtt\r\n";
    let from = |origin: &str| format!("{mqtt}Origin: {origin}\r\n");
    for (path, headers, status, words) in [
        ("/here", mqtt.to_owned(), "101", ""),
        ("/here/", mqtt.to_owned(), "101", ""),
        ("/here", from("https://app.example"), "101", ""),
        (
            "/here",
            "Sec-WebSocket-Protocol: chat, mqttv3.1\r\n".into(),
            "101",
            "",
        ),
        ("/there", mqtt.to_owned(), "404", "the path is \"/there\""),
        (
            "/here/more",
            mqtt.to_owned(),
            "404",
            "serves MQTT at \"/here\"",
        ),
        (
            "/here",
            "Sec-WebSocket-Protocol: chat\r\n".into(),
            "400",
            "Sec-WebSocket-Protocol is \"chat\"",
        ),
        (
            "/here",
            String::new(),
            "400",
            "Sec-WebSocket-Protocol is missing",
        ),
        (
            "/here",
            from("https://evil.example"),
            "403",
            "the header Origin is \"https://evil.example\"",
        ),
    ] {
        let broker = Setup::new().shards(1).config(url).start();
        let (mut stream, mut answer) = upgrade(broker.address(), &request(path, &headers));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
        if status != "101" {
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains(words), "{answer}");
            eventually("the log says it", || {
                let mut lines = broker.log().lines().map(str::to_owned).collect::<Vec<_>>();
                lines.retain(|line| line.contains(words) && line.contains(" 127.0.0.1:"));
                (!lines.is_empty()).then_some(())
            });
            assert_eq!(broker.counters().get("transport_errors"), 1);
        }
    }
    let broker = Setup::new().shards(1).config(url).start();
    let (mut stream, mut answer) = upgrade(broker.address(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("Connection: upgrade"),
        "{answer}"
    );
}

#[test]
fn a_listener_may_serve_every_path() {
    let url = "[[listener]]\nurl = \"ws://127.0.0.1:0\"\nany_path = true\n";
    let broker = Setup::new().shards(1).config(url).start();
    for path in ["/", "/mqtt", "/a/b?c=d"] {
        let request = request(path, "Sec-WebSocket-Protocol: mqtt\r\n");
        let (_, answer) = upgrade(broker.address(), &request);
        assert!(answer.starts_with("HTTP/1.1 101"), "{path}: {answer}");
    }
}

/// There are clients that lose what stands behind the first packet of a frame.
#[test]
fn each_packet_comes_in_a_frame_of_its_own() {
    let url = "[[listener]]\nurl = \"ws://127.0.0.1:0\"\n";
    let broker = Setup::new().shards(1).config(url).start();
    let request = request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
    let (mut stream, answer) = upgrade(broker.address(), &request);
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let connect = Connect::v4(&unique("c")).encode();
    let all = [&connect[..], &[0xC0, 0].repeat(3)].concat();
    let frame = [&[0x82, 0x80 | all.len() as u8, 0, 0, 0, 0][..], &all].concat();
    stream.write_all(&frame).unwrap();
    let mut came = [0; 6 + 3 * 4];
    stream.read_exact(&mut came).unwrap();
    let pings = [0x82, 2, 0xD0, 0].repeat(3);
    assert_eq!(came[..], [&[0x82, 4, 0x20, 2, 0, 0][..], &pings].concat());
}

#[test]
fn frames_that_break_the_rules_end_the_connection_with_their_code() {
    let config = "[[listener]]\nurl = \"ws://127.0.0.1:0\"\n";
    let broker = Setup::new().shards(1).config(config).start();
    let nested = [0x02, 0x81, 0, 0, 0, 0, 0x10].repeat(2);
    for (what, frame, code) in [
        ("text", vec![0x81, 0x81, 0, 0, 0, 0, b'x'], 1003_u16),
        ("unmasked", vec![0x82, 0x01, 0x10], 1002),
        ("reserved bit", vec![0xC2, 0x81, 0, 0, 0, 0, 0x10], 1002),
        ("a message in another", nested, 1002),
    ] {
        let request = request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
        let (mut stream, answer) = upgrade(broker.address(), &request);
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        stream.write_all(&frame).unwrap();
        let mut end = Vec::new();
        stream.read_to_end(&mut end).unwrap();
        assert_eq!(end.first(), Some(&0x88), "{what}: {end:?}");
        assert_eq!(end.get(2..4), Some(&code.to_be_bytes()[..]), "{what}");
    }
}

/// Bytes as a WebSocket's frame of a client.
fn masked_frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_be_bytes();
    [&[0x82, 0xFF][..], &length, &[0; 4], payload].concat()
}

#[test]
fn a_frame_may_hold_many_packets_however_large_they_are_together() {
    let config = "[limits]\nconnect_bytes_max = 200\nmax_packet_bytes = 400000\n\
                  [[listener]]\nurl = \"ws://127.0.0.1:0\"\n";
    let broker = Setup::new().shards(2).config(config).start();
    let request = request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
    for _ in 0..4 {
        let (mut stream, answer) = upgrade(broker.address(), &request);
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        let publish = |id| {
            Publish::new("t", 1, vec![b'x'; 300_000])
                .id(id)
                .encode(Version::V4)
        };
        let all = [Connect::v4(&unique("c")).encode(), publish(1), publish(2)].concat();
        stream.write_all(&masked_frame(&all)).unwrap();
        let mut came = [0; 6 + 2 * 6];
        stream.read_exact(&mut came).unwrap();
        let pubacks = [0x82, 4, 0x40, 2, 0, 1, 0x82, 4, 0x40, 2, 0, 2];
        assert_eq!(came[..], [&[0x82, 4, 0x20, 2, 0, 0][..], &pubacks].concat());
        // A packet is bounded as on any other wire.
        let large = Publish::new("t", 1, vec![b'x'; 400_001])
            .id(3)
            .encode(Version::V4);
        let _ = stream.write_all(&masked_frame(&large));
        let mut end = Vec::new();
        let _ = stream.read_to_end(&mut end);
        assert!(!end.windows(2).any(|bytes| bytes == [0x40, 2]), "{end:?}");
    }
}

#[test]
fn a_broken_layer_is_told_with_the_names_of_its_client() {
    let audit = Scratch::new("");
    let config = format!(
        "audit_file = {:?}\n[[listener]]\nurl = \"ws://127.0.0.1:0\"\n",
        audit.0
    );
    let broker = Setup::new().shards(1).config(&config).start();
    let request = request("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
    let (mut stream, _) = upgrade(broker.address(), &request);
    let connect = Connect::v4("pump").login("ann", "x").encode();
    stream.write_all(&masked_frame(&connect)).unwrap();
    stream.write_all(&[0x81, 0x80, 0, 0, 0, 0]).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let mut lines: Vec<serde_json::Value> = Vec::new();
    eventually("it is written down", || {
        let text = std::fs::read_to_string(&audit.0).ok()?;
        let (whole, _) = text.rsplit_once('\n')?;
        lines = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines.retain(|line| line["event"] != "connected");
        (!lines.is_empty()).then_some(())
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    assert_eq!(
        (&line["event"], &line["client_id"]),
        (&"disconnected".into(), &"pump".into())
    );
    assert_eq!(line["why"], "WebSocket: a text frame", "{line}");
    eventually("it is told", || {
        let told = "is disconnected: WebSocket: a text frame";
        let log = broker.log();
        let line = log.lines().find(|line| line.contains(told))?;
        line.contains("client \"pump\"").then_some(())
    });
}

fn mutual(certificates: &Certificates, more: &str) -> String {
    format!(
        "allow_anonymous = true\n[authentication]\ncertificate = \"common_name\"\n\
         [[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}client_ca = {:?}\n{more}",
        certificates.section(),
        certificates.path("ca.pem"),
    )
}

#[test]
fn client_certificates_are_asked_for_and_revoked_ones_refused() {
    let certificates = Certificates::new();
    certificates.client("good", "device-1", 10);
    certificates.client("stolen", "device-2", 11);
    certificates.revoke(&[11]);
    let crl = format!("client_crl = {:?}\n", certificates.path("crl.pem"));
    let broker = Setup::new().config(&mutual(&certificates, &crl)).start();
    let wire = |client| Wire::Tls(&certificates, client);
    open(wire(Some("good")), broker.address(), &Connect::v5("a"));
    let refused = refused_handshake(wire(None), broker.address());
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let refused = refused_handshake(wire(Some("stolen")), broker.address());
    assert!(refused.contains("CertificateRevoked"), "{refused}");
    let line =
        "is refused: TLS: its certificate (\"CN=device-2\", serial 0B) is revoked (client_crl)";
    eventually(line, || broker.log().contains(line).then_some(()));
    let other = Certificates::new();
    other.client("foreign", "device-1", 10);
    std::fs::copy(certificates.path("ca.pem"), other.path("ca.pem")).unwrap();
    let refused = refused_handshake(Wire::Tls(&other, Some("foreign")), broker.address());
    assert!(refused.contains("received fatal alert"), "{refused}");
}

/// Also on another shard than the one that shook hands; a ticket of before does not carry it on.
#[test]
fn a_connection_ends_with_its_certificate() {
    let certificates = Certificates::new();
    certificates.client_until("short", "device-1", now_s() + 10);
    let broker = Setup::new()
        .shards(4)
        .config(&mutual(&certificates, ""))
        .start();
    let wire = || Wire::Tls(&certificates, Some("short"));
    let mut clients: Vec<_> = (0..8)
        .map(|_| open(wire(), broker.address(), &Connect::v5(&unique("c"))))
        .collect();
    let config = certificates.client_config(Some("short"));
    let dial = || {
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        let stream = TcpStream::connect(broker.address()).unwrap();
        StreamOwned::new(connection, stream)
    };
    let first = Client::across(Box::new(dial()), Version::V5);
    clients.push(Connect::v5(&unique("c")).attempt_over(first).0);
    for client in &mut clients {
        let end = client.recv();
        assert!(
            matches!(end, Packet::Disconnect { code: 0x87, .. }),
            "{end:?}"
        );
    }
    let mut again = dial();
    let _ = again.write_all(&Connect::v5(&unique("c")).encode());
    let heard = again.read(&mut [0]);
    assert!(!matches!(heard, Ok(1)), "an answer");
    assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    let told = "is disconnected: its certificate has ended";
    eventually(told, || broker.log().contains(told).then_some(()));
    let refused = refused_handshake(wire(), broker.address());
    assert!(refused.contains("CertificateExpired"), "{refused}");
}

#[test]
fn an_optional_certificate_may_be_left_out() {
    let certificates = Certificates::new();
    certificates.client("good", "device-1", 10);
    let optional = mutual(&certificates, "client_certificate = \"optional\"\n");
    let broker = Setup::new().config(&optional).start();
    for client in [None, Some("good")] {
        let wire = Wire::Tls(&certificates, client);
        open(wire, broker.address(), &Connect::v5(&unique("c")));
    }
}

#[test]
fn certificates_are_read_anew_while_clients_stay() {
    let certificates = Certificates::new();
    certificates.client("first", "device-1", 10);
    certificates.client("second", "device-2", 11);
    certificates.revoke(&[]);
    let crl = format!("client_crl = {:?}\n", certificates.path("crl.pem"));
    let broker = Setup::new().config(&mutual(&certificates, &crl)).start();
    let wire = |client| Wire::Tls(&certificates, Some(client));
    let mut stays = open(wire("first"), broker.address(), &Connect::v5("stays"));
    stays.subscribe("t", 1);
    // By the change of the file alone.
    certificates.revoke(&[10]);
    eventually("the list is read", || {
        broker
            .log()
            .contains("certificates are reloaded")
            .then_some(())
    });
    let refused = refused_handshake(wire("first"), broker.address());
    assert!(refused.contains("CertificateRevoked"), "{refused}");
    let mut second = open(wire("second"), broker.address(), &Connect::v5("second"));
    second.publish("t", 1, "still there");
    stays.expect("t", "still there");
    // A broken file is named and changes nothing.
    certificates.write("server.pem", "nothing");
    broker.signal(Signal::HUP);
    eventually("the broken file is named", || {
        let log = broker.log();
        (log.contains("what was before stays in force") && log.contains("server.pem")).then_some(())
    });
    open(wire("second"), broker.address(), &Connect::v5("third"));
    // Another certificate for the server, by SIGHUP.
    certificates.server("server", "localhost", 77);
    broker.signal(Signal::HUP);
    eventually("the new certificate is shown", || {
        let shown = Command::new("openssl")
            .args(["s_client", "-connect", &broker.address().to_string()])
            .args(["-showcerts", "-servername", "localhost"])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let pem = std::fs::read_to_string(certificates.path("server.pem")).unwrap();
        let line = pem.lines().nth(2).unwrap().to_owned();
        String::from_utf8_lossy(&shown.stdout)
            .contains(&line)
            .then_some(())
    });
    stays.ping();
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let certificates = Certificates::new();
    certificates.server("second", "other.example", 5);
    let config = format!(
        "[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}[[tls.also]]\ncertificate = {:?}\nkey = {:?}\n",
        certificates.section(),
        certificates.path("second.pem"),
        certificates.path("second.key"),
    );
    let broker = Setup::new().config(&config).start();
    for (name, file) in [
        ("localhost", "server.pem"),
        ("other.example", "second.pem"),
        ("unknown.example", "server.pem"),
    ] {
        let shown = Command::new("openssl")
            .args(["s_client", "-connect", &broker.address().to_string()])
            .args(["-servername", name, "-alpn", "mqtt"])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout);
        let pem = std::fs::read_to_string(certificates.path(file)).unwrap();
        assert!(
            shown.contains(pem.lines().nth(3).unwrap()),
            "{name}: {shown}"
        );
        assert!(shown.contains("ALPN protocol: mqtt"), "{shown}");
    }
}

/// Nobody vouches for clients after its end or before its time; another CA of that name may.
#[test]
fn clients_of_a_ca_that_does_not_count_are_refused() {
    let certificates = Certificates::new();
    let (ended, unborn) = (Certificates::within(-9..-3), Certificates::within(3..9));
    let all = [&certificates, &ended, &unborn];
    let cas = all.map(|of| std::fs::read_to_string(of.path("ca.pem")).unwrap());
    certificates.write("cas.pem", &cas.concat());
    let config = mutual(&certificates, "").replace("/ca.pem", "/cas.pem");
    let broker = Setup::new().config(&config).start();
    all.iter()
        .for_each(|of| of.client("client", "device-1", 10));
    for of in [&ended, &unborn] {
        // Of the server they trust the CA.
        std::fs::copy(certificates.path("ca.pem"), of.path("ca.pem")).unwrap();
    }
    let wire = |of| Wire::Tls(of, Some("client"));
    open(wire(&certificates), broker.address(), &Connect::v5("a"));
    for (of, alert, told) in [
        (
            &ended,
            "CertificateExpired",
            "is of a CA whose own certificate has ended",
        ),
        (&unborn, "alert", "whose own certificate does not count yet"),
    ] {
        let refused = refused_handshake(wire(of), broker.address());
        assert!(refused.contains(alert), "{refused}");
        eventually(told, || broker.log().contains(told).then_some(()));
    }
}

/// What a client proposes and what is served, in words; devices made for a large service are served.
#[test]
fn proposals_that_are_not_served_are_told_in_words() {
    let certificates = Certificates::new();
    let config = format!(
        "[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}",
        certificates.section()
    );
    let broker = Setup::new().config(&config).start();
    let dial = |protocol: &str| {
        let mut config = ClientConfig::clone(&certificates.client_config(None));
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(config.into(), name).unwrap();
        let stream = TcpStream::connect(broker.address()).unwrap();
        StreamOwned::new(connection, stream)
    };
    for protocol in ["mqtt", "x-amzn-mqtt-ca"] {
        let client = Client::across(Box::new(dial(protocol)), Version::V5);
        Connect::v5(&unique("c")).attempt_over(client).0.ping();
    }
    assert!(dial("h2").write_all(b"x").is_err());
    let told =
        "is refused: TLS: it proposes \"h2\" by ALPN; served here is mqtt or x-amzn-mqtt-ca, and";
    eventually(told, || broker.log().contains(told).then_some(()));
    let said = Command::new("openssl")
        .args(["s_client", "-connect", &broker.address().to_string()])
        .args(["-groups", "P-521"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!said.status.success());
    let told = "it offers no way to exchange keys that is served: X25519";
    eventually(told, || broker.log().contains(told).then_some(()));
}

/// Who goes before its CONNECT is told at debug, with how far it came, and is no matter of the audit log.
#[test]
fn who_goes_before_its_connect_is_told_at_debug() {
    let certificates = Certificates::new();
    let audit = certificates.path("audit");
    let config = format!(
        "log = \"debug\"\naudit_file = {audit:?}\n{}\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.4/32\", \"127.0.0.7/32\"]\n\
         [[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n[[listener]]\nurl = \"ws://127.0.0.1:0\"\n",
        certificates.section()
    );
    let broker = Setup::new().shards(2).config(&config).start();
    let connect = Connect::v5("half").encode();
    for (last, listener, sent, told) in [
        (2, 0, &b""[..], "before its CONNECT"),
        (3, 0, &connect[..7], "with half a CONNECT"),
        (4, 0, b"PROXY TCP4 ", "with half a PROXY header"),
        (7, 0, b"", "before its PROXY header"),
        (5, 1, b"", "before its TLS handshake was over"),
        (
            6,
            2,
            b"GET /mqtt HTTP/1.1\r\n",
            "before its WebSocket upgrade was whole",
        ),
    ] {
        let mut client = silent_from(&broker, listener, [127, 0, 0, last]);
        client.send(sent);
        drop(client);
        let begin = format!("DEBUG a client from 127.0.0.{last}:");
        let end = format!(" has gone {told}: it closed the connection");
        eventually(&end, || {
            let log = broker.log();
            let mut lines = log.lines();
            lines.find(|line| line.contains(&begin) && line.contains(&end))?;
            Some(())
        });
    }
    Connect::v5("last").open(&broker);
    eventually("all is written", || {
        let audit = std::fs::read_to_string(&audit).unwrap_or_default();
        audit.contains("\"last\"").then_some(())
    });
    let audit = std::fs::read_to_string(&audit).unwrap();
    assert!(!audit.contains("127.0.0.2:"), "{audit}");
}

#[test]
fn old_versions_and_weak_suites_are_refused() {
    let certificates = Certificates::new();
    let config = format!(
        "[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}",
        certificates.section()
    );
    let broker = Setup::new().config(&config).start();
    let tries = |args: &[&str]| {
        Command::new("openssl")
            .args(["s_client", "-connect", &broker.address().to_string()])
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    };
    for args in [&["-tls1_2"][..], &["-tls1_3"]] {
        let said = tries(args);
        let said = String::from_utf8_lossy(&said.stdout);
        assert!(
            said.contains("Cipher is TLS_") || said.contains("Cipher is ECDHE-"),
            "{said}"
        );
    }
    let weak = "@SECLEVEL=0";
    for args in [
        vec!["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        vec!["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        vec!["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA:@SECLEVEL=0"],
        vec![
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:@SECLEVEL=0",
        ],
        vec![
            "-tls1_2",
            "-cipher",
            "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0",
        ],
        vec![
            "-tls1_2",
            "-cipher",
            "aNULL:eNULL:RC4:3DES:DES:MD5:@SECLEVEL=0",
        ],
    ] {
        assert!(args.last().is_some_and(|last| last.contains(weak)));
        let said = tries(&args);
        let text = String::from_utf8_lossy(&said.stdout).into_owned()
            + &String::from_utf8_lossy(&said.stderr);
        let agreed = text.contains("Cipher is ") && !text.contains("Cipher is (NONE)");
        assert!(!said.status.success() && !agreed, "{args:?}: {text}");
    }
}

#[test]
fn a_socket_in_the_file_system_has_the_mode_asked_for_and_replaces_what_was_left() {
    use std::os::unix::fs::PermissionsExt;
    let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("socket"));
    let config = format!("[[listener]]\nurl = \"unix://{path}\"\nmode = \"0640\"\n");
    let setup = Setup::new().shards(2).config(&config);
    let broker = setup.start();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let exchange = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream
            .write_all(&Connect::v4(&unique("u")).encode())
            .unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
    };
    (0..8).for_each(|_| exchange());
    let second = setup.run_to_end();
    assert!(
        second.log.contains("another program listens there"),
        "{}",
        second.log
    );
    drop(broker);
    // The broker was killed: its socket is still there, and nobody listens.
    assert!(std::fs::metadata(&path).is_ok());
    let again = setup.start();
    exchange();
    // Stopped in order it takes its own away, and nothing else.
    again.stop();
    assert!(std::fs::symlink_metadata(&path).is_err());
    let again = setup.start();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "another's").unwrap();
    again.stop();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's");
    std::fs::remove_file(&path).unwrap();
}

/// A program that listens and takes nobody keeps the start from nothing but that place.
#[test]
fn a_socket_whose_listener_takes_nobody_is_anothers() {
    use socket2::{Domain, SockAddr, Socket, Type};
    let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("socket"));
    let address = SockAddr::unix(&path).unwrap();
    let unix = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let listener = unix();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let mut visitors = Vec::new();
    loop {
        let visitor = unix();
        visitor.set_nonblocking(true).unwrap();
        if visitor.connect(&address).is_err() {
            break;
        }
        visitors.push(visitor);
    }
    let config = format!("[[listener]]\nurl = \"unix://{path}\"\n");
    let ended = Setup::new().config(&config).run_to_end();
    assert!(
        ended.log.contains("another program listens there"),
        "{}",
        ended.log
    );
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_proxy_that_is_trusted_has_to_say_for_whom_it_speaks() {
    let config =
        "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";
    let broker = Setup::new().shards(2).config(config).start();
    for header in [
        &b"PROXY TCP4 10.0.0.7 127.0.0.1 4660 1883\r\n"[..],
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x07\x7f\0\0\x01\x12\x34\x07\x5b",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0",
    ] {
        let mut client = Client::dial(&broker, Version::V4);
        client.send(header);
        client.send(&Connect::v4(&unique("p")).encode());
        assert!(matches!(client.recv(), Packet::Connack { code: 0, .. }));
        client.subscribe("t", 0);
        client.publish("t", 0, "through");
        client.expect("t", "through");
    }
    let mut client = Client::dial(&broker, Version::V4);
    client.send_lossy(&Connect::v4("liar").encode());
    assert_eq!(client.next_packet(), None);
}

#[test]
fn a_header_from_elsewhere_is_no_mqtt() {
    let config =
        "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"10.9.0.0/16\"]\n";
    let broker = Setup::new().config(config).start();
    Connect::v4("direct").open(&broker);
    let mut client = Client::dial(&broker, Version::V4);
    client.send_lossy(b"PROXY TCP4 10.0.0.7 127.0.0.1 4660 1883\r\n");
    assert_eq!(client.next_packet(), None);
}

#[test]
fn a_listener_serves_only_its_versions_and_so_many_connections() {
    let config = "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nprotocols = [\"5.0\"]\nconnections_max = 2\n\
                  [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n";
    let broker = Setup::new().shards(2).config(config).start();
    let (_, answer) = Connect::v4("old").attempt(&broker);
    assert!(
        matches!(answer, Some(Packet::Connack { code: 1, .. })),
        "{answer:?}"
    );
    eventually("it has left", || {
        (broker.counters().get("connections") == 0).then_some(())
    });
    let _first = Connect::v5("a").open(&broker);
    let _second = Connect::v5("b").open(&broker);
    let (_, answer) = Connect::v5("c").attempt(&broker);
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0x97, .. })),
        "{answer:?}"
    );
    let other = Wire::Tcp;
    open(other, broker.addresses()[1], &Connect::v4("elsewhere"));
}

#[test]
fn a_tls_listener_without_certificate_is_explained() {
    let outcome = Setup::new().listen("mqtts://127.0.0.1:0").run_to_end();
    assert_eq!(outcome.status.code(), Some(2));
    assert!(outcome.log.contains("[tls]"), "{}", outcome.log);
}

/// Whoever dials TLS and says nothing is cut off like anybody who sends no CONNECT.
#[test]
fn a_handshake_has_a_deadline() {
    let certificates = Certificates::new();
    let config = format!(
        "[limits]\nconnect_timeout_ms = 100\n[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}",
        certificates.section()
    );
    let broker = Setup::new().config(&config).start();
    let mut stream = TcpStream::connect(broker.address()).unwrap();
    stream.write_all(&[0x16, 3, 1]).unwrap();
    let mut end = Vec::new();
    stream.read_to_end(&mut end).unwrap();
    assert_eq!(broker.counters().get("connect_timeouts"), 1);
}

fn stop_says_goodbye_on_each_wire(shards: usize) {
    let certificates = Certificates::new();
    let setup = Setup::new()
        .shards(shards)
        .config(&listeners(&certificates, ""));
    let broker = setup.start();
    let wires = [
        Wire::Tcp,
        Wire::Tls(&certificates, None),
        Wire::WebSocket,
        Wire::Wss(&certificates),
    ];
    let open_one = |(wire, address): (&Wire<'_>, &SocketAddr)| {
        open(*wire, *address, &Connect::v5(&unique("c")))
    };
    let clients: Vec<_> = wires.iter().zip(broker.addresses()).map(open_one).collect();
    broker.signal(Signal::TERM);
    for mut client in clients {
        let goodbye = client.recv();
        assert!(
            matches!(goodbye, Packet::Disconnect { code: 0x8B, .. }),
            "{goodbye:?}"
        );
        assert_eq!(client.next_packet(), None);
    }
}

crate::on_shards!([1, 2, 4] every_wire_carries_everything, bytes_may_come_one_by_one, a_large_message_may_come_first, stop_says_goodbye_on_each_wire);
