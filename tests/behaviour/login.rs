//! Who may connect: password file, SCRAM, tokens, a hook, certificates, client identifiers.

use crate::support::{
    Broker, Certificates, Client, Connect, Packet, Props, Setup, Version, Wire, eventually, frame,
    prop, unique,
};
use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file that goes when the test ends.
pub(crate) struct Scratch(pub(crate) String);

impl Scratch {
    pub(crate) fn new(text: &str) -> Self {
        let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("scratch"));
        std::fs::write(&path, text).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn passwd(file: &str, args: &[&str], user: &str, password: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .arg("passwd")
        .args(args)
        .args([file, user])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{password}").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

pub(crate) fn with_users(shards: usize, more: &str) -> (Broker, Scratch) {
    let file = Scratch::new("");
    passwd(&file.0, &[], "ann", "secret");
    passwd(&file.0, &["--scram"], "ann", "secret");
    let config = format!("password_file = {:?}\n{more}", file.0);
    (Setup::new().shards(shards).config(&config).start(), file)
}

/// A property that has to be there.
pub(crate) fn property(props: &Props, id: u8) -> Vec<u8> {
    props.bytes(id).expect("the property is there").to_vec()
}

pub(crate) fn code(broker: &Broker, connect: &Connect) -> u8 {
    match connect.attempt(broker).1 {
        Some(Packet::Connack { code, .. }) => code,
        other => panic!("no CONNACK: {other:?}"),
    }
}

fn users_prove_themselves_by_password(shards: usize) {
    let (broker, file) = with_users(shards, "");
    for (version, bad, anonymous) in [
        (Version::V3, 4, 5),
        (Version::V4, 5, 5),
        (Version::V5, 0x86, 0x87),
    ] {
        let connect = || Connect::new(version, &unique("c"));
        assert_eq!(code(&broker, &connect().login("ann", "secret")), 0);
        assert_eq!(code(&broker, &connect().login("ann", "wrong")), bad);
        assert_eq!(code(&broker, &connect().login("nobody", "secret")), bad);
        assert_eq!(code(&broker, &connect()), anonymous);
    }
    assert_eq!(broker.counters().get("connects_unauthenticated"), 9);
    // What a client sends behind its CONNECT waits until it is known.
    let mut eager = Client::dial(&broker, Version::V4);
    let connect = Connect::v4(&unique("eager")).login("ann", "secret");
    let subscribe = eager.subscribe_bytes(7, &Props::new(), &[("t", 0)]);
    eager.send(&[connect.encode(), subscribe].concat());
    assert!(matches!(eager.recv(), Packet::Connack { code: 0, .. }));
    assert!(matches!(eager.recv(), Packet::Suback { id: 7, .. }));
    // The file is read again when it changes.
    passwd(&file.0, &[], "bob", "other");
    let bob = || Connect::v5(&unique("bob")).login("bob", "other");
    eventually("bob may connect", || {
        (code(&broker, &bob()) == 0).then_some(())
    });
    std::fs::write(&file.0, "bob:plain\n").unwrap();
    broker.signal(Signal::HUP);
    eventually("the broken file is named", || {
        let log = broker.log();
        (log.contains("what was before stays in force") && log.contains("line 1")).then_some(())
    });
    assert_eq!(code(&broker, &bob()), 0);
    assert!(!broker.log().contains("secret"), "a password is in the log");
}

#[test]
fn files_of_mosquitto_passwd_are_read() {
    let file = Scratch::new("");
    let path = &file.0;
    let status = Command::new("mosquitto_passwd")
        .args(["-b", path, "ann", "secret"])
        .status()
        .expect("mosquitto_passwd is installed");
    assert!(status.success());
    let config = format!("password_file = {path:?}\n");
    let broker = Setup::new().shards(1).config(&config).start();
    let login = |password: &str| Connect::v5(&unique("c")).login("ann", password);
    assert_eq!(code(&broker, &login("secret")), 0);
    assert_eq!(code(&broker, &login("Secret")), 0x86);
}

#[test]
fn anonymous_clients_come_in_beside_users_where_that_is_said() {
    let (broker, _file) = with_users(2, "allow_anonymous = true\n");
    assert_eq!(code(&broker, &Connect::v4(&unique("c"))), 0);
    assert_eq!(
        code(&broker, &Connect::v4(&unique("c")).login("ann", "wrong")),
        5
    );
}

pub(crate) fn auth(code: u8, method: &str, bytes: &[u8]) -> Vec<u8> {
    let props = Props::new()
        .text(prop::AUTH_METHOD, method)
        .text(prop::AUTH_DATA, bytes);
    let mut body = vec![code];
    props.put(&mut body);
    frame(0xF0, &body)
}

/// The client's side of RFC 7677, written apart from the broker's.
pub(crate) struct Scram {
    first_bare: String,
    password: &'static str,
}

impl Scram {
    pub(crate) fn new(user: &str, password: &'static str) -> Self {
        Scram {
            first_bare: format!("n={user},r=client-nonce"),
            password,
        }
    }

    pub(crate) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    /// The answer to the server's first message, and the signature that the server has to show.
    pub(crate) fn last(&self, server_first: &[u8]) -> (Vec<u8>, String) {
        let server_first = std::str::from_utf8(server_first).unwrap();
        let field = |name: &str| {
            let found = server_first
                .split(',')
                .find_map(|part| part.strip_prefix(name));
            found.unwrap().to_owned()
        };
        let (nonce, salt, rounds) = (field("r="), field("s="), field("i="));
        assert!(nonce.starts_with("client-nonce") && nonce.len() > 20);
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            NonZeroU32::new(rounds.parse().unwrap()).unwrap(),
            &BASE64_STANDARD.decode(salt).unwrap(),
            self.password.as_bytes(),
            &mut salted,
        );
        let mac = |key: &[u8], text: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            hmac::sign(&key, text).as_ref().to_vec()
        };
        let client_key = mac(&salted, b"Client Key");
        let stored = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &client_key);
        let bare = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{bare}", self.first_bare);
        let signature = mac(stored.as_ref(), message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(a, b)| a ^ b)
            .collect();
        let server = mac(&mac(&salted, b"Server Key"), message.as_bytes());
        let last = format!("{bare},p={}", BASE64_STANDARD.encode(proof));
        (
            last.into_bytes(),
            format!("v={}", BASE64_STANDARD.encode(server)),
        )
    }
}

pub(crate) const METHOD: &str = "SCRAM-SHA-256";

pub(crate) fn begin_scram(broker: &Broker, scram: &Scram) -> (Client, Vec<u8>) {
    let mut connect = Connect::v5(&unique("scram"));
    connect.props = Props::new()
        .text(prop::AUTH_METHOD, METHOD)
        .text(prop::AUTH_DATA, scram.first());
    let (client, answer) = connect.attempt(broker);
    let Some(Packet::Auth { code: 0x18, props }) = answer else {
        panic!("no AUTH: {answer:?}");
    };
    (client, property(&props, prop::AUTH_DATA))
}

fn scram_proves_both_sides_and_may_be_repeated(shards: usize) {
    let (broker, _file) = with_users(shards, "[authentication]\nscram = true\n");
    let scram = Scram::new("ann", "secret");
    let (mut client, server_first) = begin_scram(&broker, &scram);
    let (last, signature) = scram.last(&server_first);
    client.send(&auth(0x18, METHOD, &last));
    let Packet::Connack { code: 0, props, .. } = client.recv() else {
        panic!("not let in");
    };
    assert_eq!(property(&props, prop::AUTH_DATA), signature.as_bytes());
    assert_eq!(property(&props, prop::AUTH_METHOD), METHOD.as_bytes());
    // Again on the open connection; other packets pass meanwhile.
    client.send(&auth(0x19, METHOD, &scram.first()));
    client.ping();
    let Packet::Auth { code: 0x18, props } = client.recv_auth() else {
        panic!("no AUTH");
    };
    let (last, signature) = scram.last(&property(&props, prop::AUTH_DATA));
    client.send(&auth(0x18, METHOD, &last));
    let Packet::Auth { code: 0, props } = client.recv_auth() else {
        panic!("no AUTH");
    };
    assert_eq!(property(&props, prop::AUTH_DATA), signature.as_bytes());
    client.ping();
}

#[test]
fn scram_refuses_wrong_proofs_and_other_packets() {
    let (broker, _file) = with_users(2, "[authentication]\nscram = true\n");
    for (user, password) in [("ann", "wrong"), ("nobody", "secret")] {
        let scram = Scram::new(user, password);
        let (mut client, server_first) = begin_scram(&broker, &scram);
        client.send(&auth(0x18, METHOD, &scram.last(&server_first).0));
        let answer = client.recv();
        assert!(
            matches!(answer, Packet::Connack { code: 0x86, .. }),
            "{answer:?}"
        );
        assert_eq!(client.next_packet(), None);
    }
    let scram = Scram::new("ann", "secret");
    let (mut client, _) = begin_scram(&broker, &scram);
    client.send(&[0xC0, 0]);
    let answer = client.recv();
    assert!(
        matches!(answer, Packet::Connack { code: 0x82, .. }),
        "{answer:?}"
    );
    let mut connect = Connect::v5(&unique("other"));
    connect.props = Props::new().text(prop::AUTH_METHOD, "SCRAM-SHA-1");
    assert_eq!(code(&broker, &connect), 0x8C);
    // Failing to authenticate again ends the connection.
    let (mut client, server_first) = begin_scram(&broker, &scram);
    client.send(&auth(0x18, METHOD, &scram.last(&server_first).0));
    assert!(matches!(client.recv(), Packet::Connack { code: 0, .. }));
    client.send(&auth(0x19, METHOD, b"n,,n=ann,r=x"));
    assert!(matches!(
        client.recv_auth(),
        Packet::Auth { code: 0x18, .. }
    ));
    client.send(&auth(0x18, METHOD, b"c=biws,r=x,p=AAAA"));
    let end = client.recv();
    assert!(
        matches!(end, Packet::Disconnect { code: 0x87, .. }),
        "{end:?}"
    );
}

/// SCRAM is a method like the others: a listener that does not name it does not serve it.
#[test]
fn a_listener_without_scram_lets_nobody_in_by_it() {
    let secret = Scratch::new("a secret of thirty-two bytes or more\n");
    let file = Scratch::new("");
    passwd(&file.0, &["--scram"], "ann", "secret");
    let config = format!(
        "password_file = {:?}\n[authentication]\nscram = true\n[authentication.jwt]\nsecret_file = {:?}\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nmethods = [\"jwt\"]\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nmethods = [\"scram\"]\n",
        file.0, secret.0
    );
    let broker = Setup::new().shards(2).config(&config).start();
    let scram = Scram::new("ann", "secret");
    let at = |listener: usize, connect: &Connect| {
        let stream = std::net::TcpStream::connect(broker.addresses()[listener]).unwrap();
        connect.attempt_over(Client::over(stream, Version::V5))
    };
    let mut connect = Connect::v5(&unique("scram"));
    connect.props = Props::new()
        .text(prop::AUTH_METHOD, METHOD)
        .text(prop::AUTH_DATA, scram.first());
    let (_, answer) = at(0, &connect);
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0x8C, .. })),
        "{answer:?}"
    );
    let (mut client, answer) = at(1, &connect);
    let Some(Packet::Auth { code: 0x18, props }) = answer else {
        panic!("no AUTH: {answer:?}");
    };
    let (last, _) = scram.last(&property(&props, prop::AUTH_DATA));
    client.send(&auth(0x18, METHOD, &last));
    assert!(matches!(client.recv(), Packet::Connack { code: 0, .. }));
    // Where only SCRAM is served, the plain password proves nothing.
    let (_, answer) = at(1, &Connect::v5(&unique("c")).login("ann", "secret"));
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0x86, .. })),
        "{answer:?}"
    );
    at(0, &Connect::v5(&unique("c")).login("ann", "secret"));
    // The operator reads what to change.
    for line in [
        "its authentication method \"SCRAM-SHA-256\" is not served: \"scram\" is not among the methods of its listener",
        "is refused: no password is taken here (listener.methods = [\"scram\"])",
        "its password is not a token (JWT), and nothing else is taken here (listener.methods = [\"jwt\"])",
    ] {
        eventually(line, || broker.log().contains(line).then_some(()));
    }
    let broker = Setup::new().shards(1).config("").start();
    connect.attempt(&broker);
    let line = "\"SCRAM-SHA-256\" is not served: authentication.scram is not true";
    eventually(line, || broker.log().contains(line).then_some(()));
    let (broker, _file) = with_users(1, "[authentication]\nscram = true\n");
    connect.props = Props::new().text(prop::AUTH_METHOD, "GS2-KRB5");
    connect.attempt(&broker);
    let line = "its authentication method \"GS2-KRB5\" is not served: SCRAM-SHA-256 is";
    eventually(line, || broker.log().contains(line).then_some(()));
}

#[test]
fn an_auth_that_comes_again_before_its_answer_breaks_the_protocol() {
    let (broker, _file) = with_users(1, "[authentication]\nscram = true\n");
    let scram = Scram::new("ann", "secret");
    let enter = || {
        let (mut client, server_first) = begin_scram(&broker, &scram);
        client.send(&auth(0x18, METHOD, &scram.last(&server_first).0));
        assert!(matches!(client.recv(), Packet::Connack { code: 0, .. }));
        client
    };
    let again = auth(0x19, METHOD, &scram.first());
    let mut client = enter();
    client.send(&[&again[..], &again].concat());
    client.expect_error(&[0x82]);
    let mut client = enter();
    client.send(&again);
    let Packet::Auth { code: 0x18, props } = client.recv_auth() else {
        panic!("no AUTH");
    };
    let last = auth(
        0x18,
        METHOD,
        &scram.last(&property(&props, prop::AUTH_DATA)).0,
    );
    client.send(&[&last[..], &last].concat());
    client.expect_error(&[0x82]);
    // Nobody was asked to go on.
    let mut client = enter();
    client.send(&last);
    client.expect_error(&[0x82]);
}

/// What an unknown user is shown comes from the file: a restart changes nothing, as with known ones.
#[test]
fn salts_of_unknown_users_survive_a_restart() {
    let file = Scratch::new("");
    passwd(&file.0, &["--scram"], "ann", "secret");
    let config = format!(
        "password_file = {:?}\n[authentication]\nscram = true\n",
        file.0
    );
    let salts = || {
        let broker = Setup::new().shards(1).config(&config).start();
        ["ann", "nobody"].map(|user| {
            let (_, first) = begin_scram(&broker, &Scram::new(user, "secret"));
            let first = String::from_utf8(first).unwrap();
            first.split_once(',').unwrap().1.to_owned()
        })
    };
    let before = salts();
    assert_ne!(before[0], before[1]);
    assert_eq!(salts(), before);
    // Nor does another user.
    passwd(&file.0, &["--scram"], "bob", "secret");
    assert_eq!(salts(), before);
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub(crate) fn token(claims: &serde_json::Value, secret: &[u8]) -> String {
    jsonwebtoken::encode(
        &Header::default(),
        claims,
        &EncodingKey::from_secret(secret),
    )
    .unwrap()
}

#[test]
fn tokens_name_user_client_identifier_and_rights_and_end() {
    let secret = Scratch::new("a secret of thirty-two bytes or more\n");
    let bytes = b"a secret of thirty-two bytes or more";
    let audit = Scratch::new("");
    let config = format!(
        "log = \"debug\"\naudit_file = {:?}\n[authentication.jwt]\nsecret_file = {:?}\nleeway_seconds = 0\n\
         client_id_claim = \"client\"\n",
        audit.0, secret.0
    );
    let broker = Setup::new().shards(2).config(&config).start();
    let connect = |id: &str, token: &str| Connect::v5(id).login("ann", token);
    let claims = serde_json::json!({"sub": "ann", "exp": now_s() + 1000, "client": "sensor-7",
        "acl": {"publish": ["up/%c"], "subscribe": ["down/%u/#"]}});
    let good = token(&claims, bytes);
    assert_eq!(code(&broker, &connect("sensor-8", &good)), 0x85);
    let mut client = connect("sensor-7", &good).open(&broker);
    client.subscribe("down/ann/x", 1);
    client.subscribe_refused("down/bob/x", 0x87);
    assert_eq!(client.publish_code("up/sensor-7"), 0x10);
    assert_eq!(client.publish_code("up/sensor-8"), 0x87);
    // Whose rules it was, and which identifier it may use.
    for line in [
        "may not subscribe to \"down/bob/x\" (authentication.jwt.acl_claim)",
        "is not for its user: that is \"sensor-7\" (authentication.jwt.client_id_claim)",
    ] {
        eventually(line, || broker.log().contains(line).then_some(()));
    }
    let mut forged = good.clone();
    forged.replace_range(good.len() - 4.., "AAAA");
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let none = format!("{none}.{}.", good.split('.').nth(1).unwrap());
    let late = token(
        &serde_json::json!({"sub": "ann", "exp": now_s() - 10}),
        bytes,
    );
    let other = token(&claims, b"another secret of thirty-two bytes");
    let name = token(
        &serde_json::json!({"sub": "bob", "exp": now_s() + 1000}),
        bytes,
    );
    let any = serde_json::json!({"sub": "ann", "exp": now_s() + 1000});
    let any = token(&any, bytes);
    for (bad, why) in [
        (&late, "its token has expired 1"),
        (&forged, "its token's signature is not by the key in /"),
        (&none, "its token's header is none"),
        (&other, "its token's signature is not by the key in /"),
        (
            &name,
            "its user name is not \\\"bob\\\", which its token has",
        ),
        (
            &any,
            "its token's claim \\\"client\\\" (authentication.jwt.client_id_claim) is nothing",
        ),
    ] {
        assert_eq!(code(&broker, &connect("sensor-7", bad)), 0x86, "{bad}");
        eventually(why, || {
            let audit = std::fs::read_to_string(&audit.0).unwrap();
            assert!(!audit.contains(bad.as_str()), "a token is in the audit log");
            audit.contains(why).then_some(())
        });
    }
    assert!(broker.log().contains("is refused: its token has expired 1"));
    // An identifier that no client could use is none that it is given.
    for given in ["x".repeat(1_025), "a\0b".to_owned()] {
        let claims = serde_json::json!({"sub": "ann", "exp": now_s() + 1000, "client": given});
        let token = token(&claims, bytes);
        assert_eq!(code(&broker, &connect("", &token)), 0x85);
    }
    // Its end ends the connection.
    let short = token(
        &serde_json::json!({"sub": "ann", "exp": now_s() + 2, "client": "short"}),
        bytes,
    );
    let mut client = connect("short", &short).open(&broker);
    let end = client.recv();
    assert!(
        matches!(end, Packet::Disconnect { code: 0x87, .. }),
        "{end:?}"
    );
    assert!(!broker.log().contains(&good), "a token is in the log");
}

/// Answers each POST by what `judge` says to its body.
pub(crate) fn hook(judge: impl Fn(&serde_json::Value) -> String + Send + 'static) -> String {
    hook_with_status(move |asked| ("200 OK", judge(asked)))
}

/// The same, with a status of its own.
pub(crate) fn hook_with_status(
    judge: impl Fn(&serde_json::Value) -> (&'static str, String) + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/auth", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut bytes) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    bytes = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; bytes];
            reader.read_exact(&mut body).unwrap();
            let (status, answer) = judge(&serde_json::from_slice(&body).unwrap());
            let head = "Content-Type: application/json\r\nConnection: close\r\n";
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n{answer}",
                answer.len()
            );
        }
    });
    url
}

/// Each kind of failure is told of once, also the second.
#[test]
fn every_reason_of_a_hook_for_its_silence_is_told() {
    let url = hook_with_status(|asked| match asked["user_name"].as_str() {
        Some("ann") => ("500 Oops", String::new()),
        Some("bob") => ("200 OK", "nonsense".to_owned()),
        Some("eve") => ("200 OK", r#"{"result":"yes"}"#.to_owned()),
        _ => ("200 OK", r#"{"result":"deny"}"#.to_owned()),
    });
    let config = format!("[authentication.http]\nauthenticate_url = {url:?}\n");
    let broker = Setup::new().shards(1).config(&config).start();
    for user in ["ann", "bob", "eve", "ann", "bob", "cid"] {
        Connect::v5("c").login(user, "x").attempt(&broker);
    }
    eventually("answers again", || {
        broker.log().contains("answers again").then_some(())
    });
    let log = broker.log();
    let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(told("no answer: "), 3, "{log}");
    // Not the number alone: a time of day may hold it.
    assert_eq!(told("the server answered 500"), 1);
    assert_eq!(told("is not of the form agreed: it is no JSON"), 1);
    let which = "is not of the form agreed: result is none of allow, deny, ignore";
    assert_eq!(told(which), 1);
}

#[test]
fn a_hook_decides_and_its_silence_refuses() {
    let url = hook(|asked| {
        let answer = match (asked["user_name"].as_str(), asked["password"].as_str()) {
            (Some("ann"), Some("secret")) => serde_json::json!({"result": "allow",
                "user_name": "anna", "acl": {"all": ["%u/#"]}}),
            (Some("root"), _) => serde_json::json!({"result": "allow", "superuser": true}),
            (Some("named"), _) => serde_json::json!({"result": "allow", "client_id": "of-hook"}),
            (Some("odd"), _) => return "nonsense".into(),
            _ => serde_json::json!({"result": "deny"}),
        };
        answer.to_string()
    });
    let config = format!("log = \"debug\"\n[authentication.http]\nauthenticate_url = {url:?}\n");
    let broker = Setup::new().shards(2).config(&config).start();
    let login = |user: &str, password: &str| Connect::v5(&unique("c")).login(user, password);
    let said = |line: &str| eventually(line, || broker.log().contains(line).then_some(()));
    let mut ann = login("ann", "secret").open(&broker);
    assert_eq!(ann.publish_code("anna/x"), 0x10);
    assert_eq!(ann.publish_code("ann/x"), 0x87);
    assert_eq!(
        login("root", "").open(&broker).publish_code("anything"),
        0x10
    );
    assert_eq!(code(&broker, &login("ann", "wrong")), 0x86);
    said("may not publish to \"ann/x\": the acl of the answer by authentication.http");
    said("is refused: the hook says no to it (authentication.http)");
    assert_eq!(code(&broker, &login("named", "x")), 0x85);
    said("for its user: that is \"of-hook\" (client_id of the answer by authentication.http)");
    assert_eq!(code(&broker, &login("odd", "x")), 0x88);
    let gone = "[authentication.http]\nauthenticate_url = \"http://127.0.0.1:1/auth\"\n";
    let broker = Setup::new().shards(1).config(gone).start();
    assert_eq!(code(&broker, &login("ann", "secret")), 0x88);
    let line = "no answer: nobody listens there (connection refused)";
    eventually(line, || broker.log().contains(line).then_some(()));
    assert_eq!(code(&broker, &Connect::v4("c").login("ann", "secret")), 3);
}

#[test]
fn certificates_name_users() {
    let certificates = Certificates::new();
    certificates.client("device", "device-1", 10);
    let acl = Scratch::new("user device-1\ntopic mine/device-1\n");
    let config = format!(
        "acl_file = {:?}\n[authentication]\ncertificate = \"common_name\"\nclient_id = \"user_name\"\n\
         [[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}client_ca = {:?}\nclient_certificate = \"optional\"\n",
        acl.0,
        certificates.section(),
        certificates.path("ca.pem"),
    );
    let broker = Setup::new().shards(2).config(&config).start();
    let attempt = |client, connect: &Connect| {
        let link = Wire::Tls(&certificates, client)
            .dial(broker.address())
            .unwrap();
        connect.attempt_over(Client::across(link, connect.version))
    };
    let (mut client, answer) = attempt(Some("device"), &Connect::v5("device-1"));
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0, .. })),
        "{answer:?}"
    );
    assert_eq!(client.publish_code("mine/device-1"), 0x10);
    assert_eq!(client.publish_code("mine/device-2"), 0x87);
    let (_, answer) = attempt(Some("device"), &Connect::v5("device-2"));
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0x85, .. })),
        "{answer:?}"
    );
    // Without an identifier the rule gives it.
    let (_, answer) = attempt(Some("device"), &Connect::v5(""));
    let Some(Packet::Connack { code: 0, props, .. }) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(property(&props, prop::ASSIGNED_CLIENT_ID), b"device-1");
    let (_, answer) = attempt(None, &Connect::v5("x"));
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0x87, .. })),
        "{answer:?}"
    );
}

#[test]
fn client_identifiers_begin_with_the_user_where_that_is_the_rule() {
    let (broker, _file) = with_users(2, "[authentication]\nclient_id = \"user_name_prefix\"\n");
    let login = |connect: Connect| connect.login("ann", "secret");
    assert_eq!(code(&broker, &login(Connect::v5("ann-1"))), 0);
    assert_eq!(code(&broker, &login(Connect::v5("bob-1"))), 0x85);
    assert_eq!(code(&broker, &login(Connect::v4("bob-1"))), 2);
    // Those of `anna` are not those of `ann`.
    assert_eq!(code(&broker, &login(Connect::v5("ann"))), 0);
    for of_others in ["anna", "anna-1", "ann-a-1"] {
        assert_eq!(
            code(&broker, &login(Connect::v5(of_others))),
            0x85,
            "{of_others}"
        );
    }
    let (client, _) = login(Connect::v5("")).attempt(&broker);
    assert!(property(&client.connack, prop::ASSIGNED_CLIENT_ID).starts_with(b"ann-"));
}

/// Asked for, or given by the rule to who asks for none.
#[test]
fn the_names_of_bridges_are_nobodys() {
    for (rule, asked) in [
        ("user_name", ""),
        ("user_name_prefix", ""),
        ("any", "$bridge/hq"),
    ] {
        let users = Scratch::new("");
        passwd(&users.0, &[], "$bridge/hq", "secret");
        let config = format!(
            "password_file = {:?}\n[authentication]\nclient_id = \"{rule}\"\n",
            users.0
        );
        let broker = Setup::new().shards(2).config(&config).start();
        let connect = Connect::v5(asked).login("$bridge/hq", "secret");
        assert_eq!(code(&broker, &connect), 0x85, "{rule}");
    }
}

#[test]
fn nobody_could_connect_is_a_mistake() {
    let outcome = Setup::new()
        .config("allow_anonymous = false\n")
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(2));
    assert!(outcome.log.contains("[authentication]"), "{}", outcome.log);
    let missing = Setup::new()
        .config("password_file = \"/nowhere/users\"\n")
        .run_to_end();
    assert_eq!(missing.status.code(), Some(2));
    assert!(missing.log.contains("/nowhere/users"), "{}", missing.log);
}

crate::on_shards!([1, 2, 4] users_prove_themselves_by_password, scram_proves_both_sides_and_may_be_repeated);

/// Who asks for none gets an identifier by the rule, and with it the ban on it.
#[test]
fn a_banned_identifier_is_banned_however_it_is_asked_for() {
    let bans = Scratch::new("client ann\n");
    let more = format!(
        "[authentication]\nclient_id = \"user_name\"\n[bans]\nfile = {:?}\n",
        bans.0
    );
    let (broker, _file) = with_users(2, &more);
    for client_id in ["ann", ""] {
        let connect = Connect::v5(client_id).login("ann", "secret");
        assert_eq!(code(&broker, &connect), 0x8A, "{client_id:?}");
    }
}

/// A ban by what a client has said to be closes who is there as it refuses who comes.
#[test]
fn a_ban_by_a_name_that_was_said_reaches_who_is_there() {
    let bans = Scratch::new("user eve # a thief\n");
    let url = hook(|_| serde_json::json!({"result": "allow", "user_name": "other"}).to_string());
    let config = format!(
        "[bans]\nfile = {:?}\n[authentication.http]\nauthenticate_url = {url:?}\n",
        bans.0
    );
    let broker = Setup::new().shards(2).config(&config).start();
    let said = |name: &str| Connect::v5(&unique("c")).login(name, "");
    let mut there: Vec<_> = (0..4).map(|_| said("zed").open(&broker)).collect();
    let mut stays = said("ann").open(&broker);
    std::fs::write(&bans.0, "user zed\nuser eve # a thief\n").unwrap();
    broker.signal(Signal::HUP);
    for client in &mut there {
        let end = client.recv();
        assert!(
            matches!(end, Packet::Disconnect { code: 0x98, .. }),
            "{end:?}"
        );
    }
    assert_eq!(code(&broker, &said("zed")), 0x8A);
    stays.ping();
    // The rest of a line is the name, remarks in it too.
    for line in ["line 1 bans the user", "line 2 bans the user"] {
        eventually(line, || broker.log().contains(line).then_some(()));
    }
}
