//! The dashboard in a browser: it loads, goes on by itself, is searched, acts with a token and not without; on a phone, by
//! keyboard and in the dark.

use crate::admin::{ANYWHERE, address, ask, get, read};
use crate::support::{Certificates, Connect, Setup, unique};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn token(file: &str) -> String {
    let setup = Setup::new().arg("token").arg(file).arg("ann");
    let outcome = setup
        .arg("--role")
        .arg("operate")
        .arg("--create")
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
    outcome.output.trim().to_owned()
}

#[test]
fn the_dashboard_does_in_a_browser_what_it_should() {
    let tokens = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("tokens"));
    let token = token(&tokens);
    let nobody = SocketAddr::from(([127, 0, 0, 1], crate::support::free_port()));
    let bridge = crate::bridges::bridge(nobody, "topics = []");
    let config = format!("{ANYWHERE}token_file = {tokens:?}\n{bridge}");
    let broker = Setup::new().shards(2).config(&config).start();
    let name = unique("looked-at");
    let mut client = Connect::v5(&name).persistent().open(&broker);
    client.subscribe("plant/#", 1);
    let mut publisher = Connect::v5(&unique("publisher")).open(&broker);
    publisher.retain("plant/1", 1, "21.5");
    let mut node = Command::new("node");
    node.arg(Path::new(ROOT).join("tests/clients/dashboard.js"));
    node.arg(format!("http://{}/", address(&broker)));
    node.arg(&token).arg(&name);
    node.env(
        "NODE_PATH",
        Path::new(ROOT).join("target/clients/js/node_modules"),
    );
    // A folder for what it has seen, for those who want to look.
    node.args(std::env::var_os("RINGMQ_TEST_SCREENSHOTS"));
    node.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut node = node.spawn().expect("run scripts/test.sh --setup");
    // Something to see, until the dashboard has disconnected the client.
    loop {
        publisher.publish("plant/2", 0, "x");
        if client.next_packet().is_none() || node.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let output = node.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(client.next_packet().is_none(), "it was disconnected");
    let _ = std::fs::remove_file(&tokens);
}

#[test]
fn its_files_tell_nothing_and_take_nothing_from_elsewhere() {
    let broker = Setup::new().config(ANYWHERE).start();
    let place = address(&broker);
    for path in ["/", "/page/page.css", "/page/page.js"] {
        let page = get(place, path);
        assert_eq!(page.status, 200, "{path}");
        for part in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ] {
            assert!(
                page.head.contains(part),
                "{path}: no '{part}' in {}",
                page.head
            );
        }
        let elsewhere = page.body.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !elsewhere.contains("http://") && !elsewhere.contains("https://"),
            "{path}"
        );
    }
    // A page that has rebound its name to this address gets none of it.
    let request = "GET / HTTP/1.1\r\nHost: stranger.example\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(place, request).status, 403);
    assert_eq!(get(place, "/page/other.js").status, 404);
}

#[test]
fn beyond_this_machine_its_files_take_no_token_and_all_else_does() {
    let tokens = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("tokens"));
    token(&tokens);
    let certificates = Certificates::new();
    let section = certificates.section();
    let config =
        format!("[admin]\nlisten = \"https://0.0.0.0:0\"\ntoken_file = {tokens:?}\n{section}");
    let broker = Setup::new().config(&config).start();
    let port = address(&broker).port();
    let status = |path: &str| {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(certificates.client_config(None), name).expect("TLS");
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let mut stream = StreamOwned::new(client, stream);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("send");
        read(stream).status
    };
    assert_eq!(status("/"), 200);
    assert_eq!(status("/page/page.js"), 200);
    for path in ["/metrics", "/healthz", "/api/v1/status", "/page/other"] {
        assert_eq!(status(path), 401, "{path}");
    }
    let _ = std::fs::remove_file(&tokens);
}
