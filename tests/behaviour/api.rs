//! The admin API: what it tells of clients and messages, what it changes, and for whom.

use crate::admin::{self, ANYWHERE, Page, address, ask, get};
use crate::comparison::python;
use crate::on_shards;
use crate::support::{Broker, Certificates, Connect, Packet, Setup, Will, eventually, unique};
use crate::surroundings::Frozen;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

/// A broker whose operators have tokens.
struct Admin {
    broker: Broker,
    address: SocketAddr,
    tokens: Tokens,
}

/// A file of tokens, one of each role.
pub struct Tokens {
    pub file: String,
    pub view: String,
    pub operate: String,
    pub admin: String,
}

fn make_token(file: &str, args: &[&str]) -> String {
    let setup = Setup::new().arg("token").arg(file);
    let made = args
        .iter()
        .fold(setup, |setup, arg| setup.arg(arg))
        .run_to_end();
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    made.output.trim().to_owned()
}

impl Tokens {
    pub fn new() -> Self {
        let file = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("tokens"));
        Tokens {
            view: make_token(&file, &["viewer", "--create"]),
            operate: make_token(&file, &["operator", "--role", "operate"]),
            admin: make_token(&file, &["admin", "--role", "admin"]),
            file,
        }
    }
}

impl Admin {
    fn start(shards: usize) -> Self {
        Self::with(shards, "", "")
    }

    /// `top` stands before the first section of the configuration, `more` behind it.
    fn with(shards: usize, top: &str, more: &str) -> Self {
        let tokens = Tokens::new();
        let config = format!("{top}{ANYWHERE}token_file = {:?}\n{more}", tokens.file);
        let broker = Broker::with_config(shards, &config);
        Admin {
            address: address(&broker),
            broker,
            tokens,
        }
    }

    fn call(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Page {
        let body = body.map_or_else(String::new, |body| body.to_string());
        let token = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{token}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        ask(self.address, &request)
    }

    /// What is told to who may look.
    fn see(&self, path: &str) -> Value {
        let page = get(self.address, &format!("/api/v1{path}"));
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        serde_json::from_str(&page.body).expect("JSON")
    }

    /// Has an operator change something.
    fn change(&self, method: &str, path: &str, body: Option<Value>) {
        let page = self.call(&self.tokens.operate, method, path, body);
        assert_eq!(page.status, 204, "{method} {path}: {}", page.body);
    }
}

/// One field of each row of a list.
fn field(list: &Value, name: &str) -> Vec<String> {
    let rows = list.as_array().expect("a list").iter();
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    rows.map(|row| text(&row[name])).collect()
}

on_shards! { [1, 2]
    clients_are_listed_page_by_page_in_each_order,
    one_client_is_shown_whole_disconnected_and_ended,
    who_would_get_a_message_is_explained,
    what_waits_before_a_message_is_explained,
    retained_messages_are_listed_read_published_and_deleted,
    bans_come_and_go,
}

fn clients_are_listed_page_by_page_in_each_order(shards: usize) {
    let admin = Admin::start(shards);
    let names: BTreeSet<_> = (0..300).map(|number| format!("c{number:03}")).collect();
    let mut clients: Vec<_> = names
        .iter()
        .map(|id| Connect::v5(id).open(&admin.broker))
        .collect();
    let mut away = Connect::v5("away").persistent().open(&admin.broker);
    away.subscribe("t", 1);
    away.disconnect();
    let mut publisher = Connect::v5("publisher").open(&admin.broker);
    publisher.publish("t", 1, vec![7; 5_000]);
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = admin.see(&format!("/clients?id_prefix=c&limit=70{after}"));
        assert_eq!(page["count"], 300);
        assert_eq!(page["silent_shards"], json!([]));
        seen.extend(field(&page["clients"], "client_id"));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    assert!(seen.iter().eq(&names), "{seen:?}");
    let first = |query: &str| admin.see(&format!("/clients?limit=1&{query}"))["clients"][0].clone();
    let queued = first("sort=queue");
    assert_eq!(
        (&queued["client_id"], &queued["connected"]),
        (&json!("away"), &json!(false))
    );
    assert_eq!(
        (&queued["queued_messages"], &queued["subscriptions"]),
        (&json!(1), &json!(1))
    );
    assert!(queued["queued_bytes"].as_u64() >= Some(5_000), "{queued}");
    let loud = first("sort=bytes");
    assert_eq!(loud["client_id"], "publisher");
    assert!(loud["received_bytes"].as_u64() >= Some(5_000), "{loud}");
    let listener = format!("mqtt://{}", admin.broker.address());
    assert_eq!(
        (&loud["listener"], &loud["version"]),
        (&json!(listener), &json!("5.0"))
    );
    assert!(
        loud["address"]
            .as_str()
            .is_some_and(|address| address.starts_with("127.0.0.1:"))
    );
    let count = |query: &str| admin.see(&format!("/clients?{query}"))["count"].clone();
    assert_eq!(count("state=away"), 1);
    assert_eq!(count("state=connected"), 301);
    assert_eq!(count(&format!("listener={listener}")), 301);
    assert_eq!(
        (count("address=127.0.0.0/8"), count("address=10.0.0.1")),
        (json!(301), json!(0))
    );
    assert_eq!(count("user=nobody"), 0);
    assert_eq!(
        admin.see("/clients?sort=age&limit=1000")["clients"]
            .as_array()
            .map(Vec::len),
        Some(302)
    );
    for wrong in [
        "limit=0",
        "limit=1001",
        "after=x",
        "sort=x",
        "address=x",
        "listener=x",
        "x=1",
    ] {
        assert_eq!(
            get(admin.address, &format!("/api/v1/clients?{wrong}")).status,
            422,
            "{wrong}"
        );
    }
    clients.iter_mut().for_each(|client| client.ping());
    admin.broker.stop();
}

fn one_client_is_shown_whole_disconnected_and_ended(shards: usize) {
    let admin = Admin::start(shards);
    let mut watcher = Connect::v5("watcher").open(&admin.broker);
    watcher.subscribe("will", 0);
    let will = Will::new("will", "gone");
    let mut client = Connect::v5("a/b c")
        .persistent()
        .will(will)
        .open(&admin.broker);
    client.subscribe("x/+", 2);
    client.subscribe("$share/g/y", 1);
    let whole = admin.see("/clients/a%2Fb%20c");
    assert_eq!(
        (&whole["client_id"], &whole["connected"]),
        (&json!("a/b c"), &json!(true))
    );
    let filters: BTreeSet<_> = field(&whole["filters"], "filter").into_iter().collect();
    assert_eq!(filters, ["$share/g/y", "x/+"].map(str::to_owned).into());
    assert_eq!(
        (&whole["will_topic"], &whole["session_ends_in_seconds"]),
        (&json!("will"), &Value::Null)
    );
    assert_eq!(get(admin.address, "/api/v1/clients/nobody").status, 404);
    let farewell = json!({ "reason": "server_busy", "text": "back later" });
    admin.change("POST", "/clients/a%2Fb%20c/disconnect", Some(farewell));
    let packets = client.drain_to_close();
    let text = format!("{:?}", b"back later");
    let told = packets.iter().any(|packet| {
        matches!(packet, Packet::Disconnect { code: 0x89, .. })
            && format!("{packet:?}").contains(&text)
    });
    assert!(told, "{packets:?}");
    watcher.expect("will", "gone");
    let whole = admin.see("/clients/a%2Fb%20c");
    assert_eq!(whole["connected"], false);
    let again = admin.call(
        &admin.tokens.operate,
        "POST",
        "/clients/a%2Fb%20c/disconnect",
        Some(json!({})),
    );
    assert_eq!(again.status, 404, "{}", again.body);
    admin.change("DELETE", "/clients/a%2Fb%20c", None);
    let gone = admin.call(&admin.tokens.operate, "DELETE", "/clients/a%2Fb%20c", None);
    assert_eq!(gone.status, 404, "{}", gone.body);
    // With its connection.
    let mut client = Connect::v5("there").persistent().open(&admin.broker);
    admin.change("DELETE", "/clients/there", None);
    client.expect_error(&[0x98]);
    assert!(
        !Connect::v5("there")
            .resume()
            .open(&admin.broker)
            .session_present
    );
    let log = admin.broker.log();
    assert!(
        log.contains("operator operator from 127.0.0.1: disconnect \"a/b c\": done"),
        "{log}"
    );
    admin.broker.stop();
}

/// A client that reads nothing, so that what comes to it stays.
fn what_waits_before_a_message_is_explained(shards: usize) {
    let admin = Admin::with(shards, "", "[limits]\noutbox_bytes_max = 67108864\n");
    let mut reader = Connect::v5("reader").open(&admin.broker);
    reader.subscribe("t", 0);
    let why = || {
        let told = admin.see("/explain?topic=t&qos=0");
        let why = told["subscriptions"][0]["why"].as_str();
        why.expect("a text").to_owned()
    };
    eventually("nothing waits", || {
        (why() == "it is sent at once").then_some(())
    });
    let mut publisher = Connect::v5("publisher").open(&admin.broker);
    for _ in 0..256 {
        publisher.publish("t", 0, vec![0; 65_536]);
    }
    publisher.ping();
    eventually("the client is behind", || {
        let why = why();
        let is_told = why.starts_with("it is sent behind ")
            && why.ends_with(" bytes that wait for the client to read (limits.outbox_bytes_max)");
        is_told.then_some(())
    });
    admin.broker.stop();
}

fn who_would_get_a_message_is_explained(shards: usize) {
    let access = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("access"));
    std::fs::write(&access, "topic read a/allowed\ntopic write a/#\n").expect("write");
    let admin = Admin::with(shards, &format!("acl_file = {access:?}\n"), "");
    let mut clients = Vec::new();
    for (id, filter, options) in [
        ("exact", "a/allowed", 1),
        ("wide", "a/+", 1),
        ("own", "a/#", 4),
        ("member", "$share/g/a/allowed", 0),
    ] {
        let mut client = Connect::v5(id).open(&admin.broker);
        client.subscribe(filter, options);
        clients.push(client);
    }
    let mut away = Connect::v5("away").persistent().open(&admin.broker);
    away.subscribe("a/allowed", 1);
    away.disconnect();
    let told = |query: &str| {
        let told = admin.see(&format!("/explain?{query}"));
        let rows = told["subscriptions"].as_array().expect("a list").clone();
        let verdict = |id: &str| {
            let row = rows.iter().find(|row| row["client_id"] == id);
            row.map_or(json!("none"), |row| row["gets"].clone())
        };
        let verdicts = ["exact", "wide", "own", "member", "away"].map(verdict);
        (told["publisher_may"].clone(), verdicts)
    };
    let (yes, no, maybe, none) = (json!(true), json!(false), Value::Null, json!("none"));
    let (may, verdicts) = told("topic=a/allowed&publisher=own");
    assert_eq!(may, true);
    assert_eq!(
        verdicts,
        [
            yes.clone(),
            yes.clone(),
            no.clone(),
            maybe.clone(),
            no.clone()
        ]
    );
    let (may, verdicts) = told("topic=a/allowed&qos=1&publisher=nobody");
    assert_eq!(may, Value::Null);
    assert_eq!(
        verdicts,
        [yes.clone(), yes.clone(), yes.clone(), maybe, yes]
    );
    let (_, verdicts) = told("topic=a/other");
    assert_eq!(verdicts, [none.clone(), no.clone(), no, none.clone(), none]);
    let why = admin.see("/explain?topic=a/other")["subscriptions"][0]["why"].clone();
    assert!(
        why.as_str().is_some_and(|why| why.contains("acl_file")),
        "{why}"
    );
    let page = admin.see("/subscriptions?filter=a/allowed&limit=2");
    assert_eq!(
        (&page["count"], field(&page["subscriptions"], "client_id")),
        (&json!(3), vec!["away".into(), "exact".into()])
    );
    let next = page["next"].as_str().expect("more");
    let page = admin.see(&format!(
        "/subscriptions?filter=a/allowed&limit=2&after={next}"
    ));
    assert_eq!(
        field(&page["subscriptions"], "filter"),
        ["$share/g/a/allowed"]
    );
    assert_eq!(page["next"], Value::Null);
    for wrong in [
        "explain?topic=a/%2B",
        "explain?topic=",
        "explain?topic=a&qos=3",
        "subscriptions?filter=a%23",
        "subscriptions",
    ] {
        assert_eq!(
            get(admin.address, &format!("/api/v1/{wrong}")).status,
            422,
            "{wrong}"
        );
    }
    admin.broker.stop();
}

fn retained_messages_are_listed_read_published_and_deleted(shards: usize) {
    let admin = Admin::start(shards);
    let mut subscriber = Connect::v5("s").open(&admin.broker);
    subscriber.subscribe("r/#", 2);
    let topics: Vec<_> = (0..150).map(|number| format!("r/{number:03}")).collect();
    for topic in &topics {
        admin.change(
            "POST",
            "/publish",
            Some(json!({ "topic": topic, "payload": "né", "qos": 1, "retain": true })),
        );
        assert_eq!(subscriber.accept().payload, "né".as_bytes());
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = admin.see(&format!("/retained?filter=r/%23&limit=40{after}"));
        seen.extend(field(&page["messages"], "topic"));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    assert_eq!(seen, topics);
    assert_eq!(
        field(
            &admin.see("/retained?filter=r/007")["messages"],
            "payload_bytes"
        ),
        ["3"]
    );
    assert_eq!(
        admin.see("/retained?filter=r/007&after=r/007")["messages"],
        json!([])
    );
    let read = |token: &str| admin.call(token, "GET", "/retained/message?topic=r/007", None);
    assert_eq!(
        (read("").status, read(&admin.tokens.view).status),
        (403, 403),
        "no payload"
    );
    let page = read(&admin.tokens.operate);
    let message: Value = serde_json::from_str(&page.body).expect("JSON");
    assert_eq!(
        (&message["payload"], &message["payload_base64"]),
        (&json!("né"), &json!("bsOp"))
    );
    admin.change("DELETE", "/retained/message?topic=r/007", None);
    assert!(subscriber.accept().payload.is_empty());
    let gone = admin.call(
        &admin.tokens.operate,
        "DELETE",
        "/retained/message?topic=r/007",
        None,
    );
    assert_eq!(
        (gone.status, read(&admin.tokens.operate).status),
        (404, 404)
    );
    admin.change(
        "POST",
        "/publish",
        Some(json!({ "topic": "r/live", "payload_base64": "AP8=", "qos": 2 })),
    );
    assert_eq!(subscriber.accept().payload, [0, 255]);
    for wrong in [
        json!({ "topic": "a/#" }),
        json!({ "topic": "$SYS/x" }),
        json!({ "topic": "a", "qos": 3 }),
        json!({ "topic": "a", "payload": "x", "payload_base64": "" }),
        json!({ "topic": "a", "payload_base64": "?" }),
        json!({ "topic": "a", "x": 1 }),
    ] {
        let page = admin.call(&admin.tokens.operate, "POST", "/publish", Some(wrong));
        assert_eq!(page.status, 422);
        assert!(!page.body.contains("deserialize"), "{}", page.body);
    }
    admin.broker.stop();
}

fn bans_come_and_go(shards: usize) {
    let file = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("bans"));
    std::fs::write(&file, "user eve\n").expect("write");
    let admin = Admin::with(shards, "", &format!("[bans]\nfile = {file:?}\n"));
    let mut client = Connect::v5("c").open(&admin.broker);
    let ban = json!({ "client_id": "c", "seconds": 600 });
    admin.change("POST", "/bans", Some(ban.clone()));
    client.expect_error(&[0x8A, 0x98]);
    let bans = admin.see("/bans");
    assert_eq!(
        (&bans["count"], &bans["bans"][0]["user"]),
        (&json!(2), &json!("eve"))
    );
    assert_eq!(
        (
            &bans["bans"][0]["ends_in_seconds"],
            &bans["bans"][1]["client_id"]
        ),
        (&Value::Null, &json!("c"))
    );
    Connect::v5("c").expect_refused(&admin.broker, &[0x8A]);
    eventually("the log tells by what it may be", || {
        let by = "is banned (bans.file, or for a time by the admin API)";
        admin.broker.log().contains(by).then_some(())
    });
    admin.change("DELETE", "/bans?client_id=c", None);
    eventually("it may come again", || {
        let (client, answer) = Connect::v5("c").attempt(&admin.broker);
        drop(client);
        matches!(answer, Some(Packet::Connack { code: 0, .. })).then_some(())
    });
    let operate = |method: &str, path: &str, body| {
        admin.call(&admin.tokens.operate, method, path, body).status
    };
    assert_eq!(operate("DELETE", "/bans?client_id=c", None), 404);
    assert_eq!(operate("DELETE", "/bans?user=eve", None), 409);
    assert_eq!(
        operate(
            "POST",
            "/bans",
            Some(json!({ "user": "eve", "seconds": 1 }))
        ),
        409
    );
    for wrong in [
        json!({ "seconds": 1 }),
        json!({ "client_id": "", "seconds": 1 }),
        json!({ "user": "a", "client_id": "b", "seconds": 1 }),
        json!({ "user": "a", "seconds": 0 }),
        json!({ "address": "x", "seconds": 1 }),
    ] {
        assert_eq!(operate("POST", "/bans", Some(wrong)), 422);
    }
    admin.broker.stop();
}

#[test]
fn roles_decide_what_may_be_done_and_changes_are_accounted_for() {
    let audit = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("audit"));
    let admin = Admin::with(1, &format!("audit_file = {audit:?}\n"), "");
    let status =
        |token: &str, method: &str, path: &str, body| admin.call(token, method, path, body).status;
    let publish = || Some(json!({ "topic": "a" }));
    let tokens = &admin.tokens;
    for (token, wanted) in [
        ("", 403),
        (&*tokens.view, 403),
        (&tokens.operate, 204),
        (&tokens.admin, 204),
        ("wrong", 401),
    ] {
        assert_eq!(
            status(token, "POST", "/publish", publish()),
            wanted,
            "{token}"
        );
    }
    let level = || Some(json!({ "level": "debug" }));
    for (token, wanted) in [
        ("", 403),
        (&*tokens.view, 403),
        (&tokens.operate, 403),
        (&tokens.admin, 204),
    ] {
        assert_eq!(status(token, "PUT", "/log", level()), wanted, "{token}");
    }
    assert_eq!(admin.see("/log")["level"], "debug");
    // Debug tells of who goes without a word.
    Connect::v5("debugged").open(&admin.broker).cut();
    eventually("the log tells more", || {
        admin
            .broker
            .log()
            .contains("client \"debugged\"")
            .then_some(())
    });
    let lines = eventually("all of it is in the audit log", || {
        let text = std::fs::read_to_string(&audit).ok()?;
        let lines: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let changes: Vec<_> = lines
            .into_iter()
            .filter(|line| line["event"] == "operator")
            .collect();
        (changes.len() == 8).then_some(changes)
    });
    let told = |number: usize| {
        let line = &lines[number];
        let told = ["by", "role", "action", "target", "from"].map(|key| line[key].clone());
        (told, line["status"].clone())
    };
    assert_eq!(
        told(0),
        (
            [
                Value::Null,
                json!("view"),
                json!("publish"),
                json!("a"),
                json!("127.0.0.1")
            ],
            json!(403)
        )
    );
    assert_eq!(
        told(2),
        (
            ["operator", "operate", "publish", "a", "127.0.0.1"].map(|text| json!(text)),
            json!(200)
        )
    );
    // A token that is deleted counts no more.
    make_token(&tokens.file, &["operator", "--delete"]);
    let page = admin.call(&tokens.admin, "POST", "/reload", None);
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        page.body.contains("the tokens of operators"),
        "{}",
        page.body
    );
    assert_eq!(status(&tokens.operate, "POST", "/publish", publish()), 401);
    let wrong = Setup::new()
        .arg("token")
        .arg(&tokens.file)
        .arg("no/name")
        .run_to_end();
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    admin.broker.stop();
}

#[test]
fn the_configuration_is_told_without_secrets() {
    let http = "[authentication.http]\nauthenticate_url = \"http://127.0.0.1:1/\"\n\
                headers = { Authorization = \"word\" }\n[limits]\ninflight_max = 7\n";
    let admin = Admin::with(1, "", http);
    let config = admin.see("/config");
    assert_eq!(
        (
            &config["limits"]["inflight_max"],
            &config["said"]["limits"]["inflight_max"]
        ),
        (&json!(7), &json!(7))
    );
    assert!(!config.to_string().contains("word"), "{config}");
    assert_eq!(
        config["said"]["authentication"]["http"]["headers"],
        json!({ "Authorization": "(hidden)" })
    );
    let status = admin.see("/status");
    assert_eq!(
        (&status["shards"], &status["problems"]),
        (&json!(1), &json!([]))
    );
    assert_eq!(
        admin.see("/shards")["shards"][0]["counts"]["connections"],
        0
    );
    let paths = admin.see("/openapi.json")["paths"].clone();
    assert_eq!(paths.as_object().map(serde_json::Map::len), Some(22));
    admin.broker.stop();
}

#[test]
fn a_shard_that_does_not_answer_is_named_and_nothing_is_said_to_be_done() {
    let admin = Admin::start(2);
    let mut clients: Vec<_> = (0..16)
        .map(|number| Connect::v5(&format!("c{number}")).open(&admin.broker))
        .collect();
    let frozen = Frozen::thread(admin.broker.id(), "ringmq-1");
    let page = admin.see("/clients");
    assert_eq!(page["silent_shards"], json!([1]));
    assert!(page["count"].as_u64() < Some(16), "{page}");
    let unknown = admin.call(
        &admin.tokens.operate,
        "POST",
        "/clients/nobody/disconnect",
        Some(json!({})),
    );
    assert_eq!(unknown.status, 503, "{}", unknown.body);
    assert!(unknown.body.contains("shard 1"), "{}", unknown.body);
    drop(frozen);
    eventually("the shard answers again", || {
        (admin.see("/clients")["count"] == 16).then_some(())
    });
    clients.iter_mut().for_each(|client| client.ping());
    admin.broker.stop();
}

#[test]
fn other_machines_may_ask_by_tls_and_with_a_token() {
    let certificates = Certificates::new();
    let tokens = Tokens::new();
    let config = format!(
        "[admin]\nlisten = \"https://0.0.0.0:0\"\ntoken_file = {:?}\n{}",
        tokens.file,
        certificates.section()
    );
    let broker = Broker::with_config(1, &config);
    let port = address(&broker).port();
    let call = |token: &str, host: &str| {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(certificates.client_config(None), name).expect("TLS");
        let mut stream = StreamOwned::new(client, stream);
        let request = format!(
            "GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{token}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("send");
        admin::read(stream).status
    };
    let bearer = format!("Authorization: Bearer {}\r\n", tokens.view);
    assert_eq!(call(&bearer, "192.0.2.7:1"), 200);
    assert_eq!(call("", "192.0.2.7:1"), 401);
    assert_eq!(call(&bearer, "rebound.example"), 403);
    assert_eq!(
        call(
            &format!("{bearer}Origin: https://rebound.example\r\n"),
            "192.0.2.7:1"
        ),
        403
    );
    let mut plain = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("send");
    assert_eq!(admin::read(plain).status, 0, "without TLS nothing is told");
    broker.stop();
}

#[test]
fn a_message_of_an_operator_reaches_those_who_are_away() {
    let admin = Admin::start(2);
    let mut away = Connect::v5("away").persistent().open(&admin.broker);
    away.subscribe("t", 1);
    away.disconnect();
    admin.change(
        "POST",
        "/publish",
        Some(json!({ "topic": "t", "payload": "x", "qos": 1 })),
    );
    let mut back = Connect::v5("away").resume().open(&admin.broker);
    back.expect("t", "x");
    admin.broker.stop();
}

#[test]
fn whatever_it_is_asked_the_api_answers_as_described() {
    python("test_api.py", "Api");
}
