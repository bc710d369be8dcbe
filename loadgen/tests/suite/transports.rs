//! TLS, mutual TLS, WebSocket and WSS carry the same traffic, and say what is wrong with a certificate.

use crate::fake::{self, Certificates, Fault, Wire};
use crate::support::{Scratch, clean, loadgen, text};

fn file(name: &str, content: &str) -> Scratch {
    let scratch = Scratch::new(name);
    std::fs::write(&scratch.0, content).unwrap();
    scratch
}

fn local(scheme: &str, address: &str) -> String {
    let port = address.rsplit(':').next().unwrap();
    format!("{scheme}://localhost:{port}")
}

#[test]
fn every_transport_delivers_everything() {
    let certificates = Certificates::new();
    let ca = file("ca.pem", &certificates.ca);
    let client = file("client.pem", &certificates.client);
    let key = file("client.key", &certificates.client_key);
    for (wire, scheme) in [
        (Wire::Tcp, "mqtt"),
        (Wire::Tls, "mqtts"),
        (Wire::WebSocket, "ws"),
        (Wire::Wss, "wss"),
    ] {
        let address = local(scheme, &fake::start(Fault::None, wire, Some(&certificates)));
        let tls = [
            "--ca",
            ca.as_str(),
            "--cert",
            client.as_str(),
            "--key",
            key.as_str(),
        ];
        let is_encrypted = matches!(wire, Wire::Tls | Wire::Wss);
        let tls: &[&str] = if is_encrypted { &tls } else { &[] };
        let common = ["fanout", "--subscribers=4", "--messages=200", "--window=8"];
        for more in [["--qos=0", "--size=64"], ["--qos=2", "--size=20000"]] {
            let json = clean(&address, &[&common[..], &more, tls].concat());
            assert_eq!(json["delivered"]["messages"], 800, "{scheme}: {json}");
        }
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_unless_any_will_do() {
    let certificates = Certificates::new();
    let address = local(
        "mqtts",
        &fake::start(Fault::None, Wire::Tls, Some(&certificates)),
    );
    let other = Certificates::new();
    let ca = file("other.pem", &other.ca);
    let args = ["fanout", "--subscribers=1", "--messages=1"];
    let output = loadgen(&address, &[&args[..], &["--ca", ca.as_str()]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("invalid peer certificate"), "{said}");

    let client = file("client.pem", &certificates.client);
    let key = file("client.key", &certificates.client_key);
    let identity = ["--cert", client.as_str(), "--key", key.as_str()];
    clean(&address, &[&args[..], &["--insecure"], &identity].concat());
    let output = loadgen(&address, &[&args[..], &["--insecure"]].concat());
    assert_eq!(
        output.status.code(),
        Some(1),
        "the server asks for a certificate"
    );
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let bad = file("bad.pem", "nothing");
    let args = ["fanout", "--ca", bad.as_str()];
    let output = loadgen("mqtts://localhost:1", &args);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains(bad.as_str()));
}

#[test]
fn packets_leave_one_by_one_where_that_is_said() {
    let broker = || local("ws", &fake::start(Fault::Together, Wire::WebSocket, None));
    let args = [
        "p2p",
        "--pairs=2",
        "--messages=200",
        "--window=8",
        "--qos=1",
    ];
    let together = loadgen(&broker(), &args);
    assert_eq!(together.status.code(), Some(1));
    let said = text(&together.stdout);
    assert!(!said.contains("0 of 400"), "not at the start: {said}");
    let json = clean(&broker(), &[&args[..], &["--write-each"]].concat());
    assert_eq!(json["delivered"]["messages"], 400, "{json}");
}
