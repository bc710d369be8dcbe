//! The program as a tool: what it tells of a running broker and changes there, and how it fails.

use crate::admin::{ANYWHERE, address};
use crate::api::Tokens;
use crate::bridges::bridge_as;
use crate::support::{
    Broker, Certificates, Client, Connect, Outcome, Packet, Setup, Version, Wire, eventually,
    unique,
};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

/// A broker whose operators have tokens, and come by an address or by a socket.
struct Asked {
    broker: Broker,
    at: String,
    socket: String,
    tokens: Tokens,
}

impl Asked {
    fn start(shards: usize, more: &str) -> Self {
        let tokens = Tokens::new();
        let socket = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("socket"));
        let file = &tokens.file;
        let config = format!("{more}{ANYWHERE}token_file = {file:?}\nsocket = {socket:?}\n");
        let broker = Broker::with_config(shards, &config);
        let at = format!("http://{}", address(&broker));
        eventually("the socket is there", || std::fs::metadata(&socket).ok());
        Asked {
            broker,
            at,
            socket: format!("unix://{socket}"),
            tokens,
        }
    }

    /// Asks as who has no token.
    fn ask(&self, words: &[&str]) -> Outcome {
        run(words, &[("RINGMQ_OPERATOR_URL", &self.at)])
    }

    /// What is told in JSON.
    fn json(&self, words: &[&str]) -> Value {
        let outcome = self.ask(&[words, &["--json"]].concat());
        assert_eq!(outcome.status.code(), Some(0), "{words:?}: {outcome:?}");
        serde_json::from_str(&outcome.output).expect("JSON")
    }

    /// Asks as the broker's own user.
    fn own(&self, words: &[&str]) -> Outcome {
        run(&[words, &["--admin", &self.socket]].concat(), &[])
    }
}

pub fn run(words: &[&str], env: &[(&str, &str)]) -> Outcome {
    let setup = words
        .iter()
        .fold(Setup::new(), |setup, word| setup.arg(word));
    let setup = env
        .iter()
        .fold(setup, |setup, (name, value)| setup.env(name, value));
    setup.tool()
}

/// The words of each line of a table, without what stands above.
fn rows(outcome: &Outcome) -> Vec<Vec<String>> {
    assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
    let lines = outcome.output.lines().skip(1);
    lines
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[track_caller]
fn fails(outcome: &Outcome, code: i32, wanted: &[&str]) {
    assert_eq!(outcome.status.code(), Some(code), "{outcome:?}");
    for text in wanted {
        assert!(outcome.log.contains(text), "{text}: {outcome:?}");
    }
    assert_eq!(outcome.output, "");
}

#[test]
fn clients_and_sessions_are_listed_for_people_and_scripts() {
    let asked = Asked::start(2, "");
    let clients: Vec<_> = ["a", "b b", "c\u{1b}[2J"]
        .iter()
        .map(|id| Connect::v5(id).open(&asked.broker))
        .collect();
    let mut away = Connect::v5("d").persistent().open(&asked.broker);
    away.subscribe("t/+", 1);
    away.disconnect();
    let outcome = asked.ask(&["clients"]);
    assert!(outcome.output.starts_with("CLIENT "), "{outcome:?}");
    assert!(
        !outcome.output.contains('\u{1b}'),
        "nothing that moves a terminal"
    );
    assert!(outcome.output.contains("c\\u{1b}[2J "), "{outcome:?}");
    let all = rows(&outcome);
    assert_eq!((all.len(), &*all[0][0], &*all[0][2]), (4, "a", "yes"));
    let away = rows(&asked.ask(&["sessions", "--state", "away"]))
        .concat()
        .join(" ");
    assert!(away.starts_with("d - no "), "{away}");
    let some = asked.ask(&["clients", "--limit", "2", "--sort", "age"]);
    assert_eq!(rows(&some).len(), 2);
    assert!(some.log.contains("these are 2 of 4 clients"), "{some:?}");
    let told = asked.json(&["clients", "--id-prefix", "b b"]);
    assert_eq!(
        (&told["count"], &told["clients"][0]["client_id"]),
        (&1.into(), &"b b".into())
    );
    let told = asked.json(&["clients", "--address", "10.0.0.0/8"]);
    assert_eq!(told["count"], 0);
    drop(clients);
    asked.broker.stop();
}

#[test]
fn long_lists_come_page_by_page() {
    let asked = Asked::start(1, "");
    let mut publisher = Connect::v5("p").open(&asked.broker);
    for number in 0..1_100 {
        publisher.retain(&format!("kept/{number:04}"), 0, "x");
    }
    publisher.ping();
    let told = asked.json(&["retained", "kept/+", "--limit", "1050"]);
    let messages = told["messages"].as_array().expect("a list");
    let last = &messages[1_049]["topic"];
    assert_eq!((messages.len(), last), (1_050, &"kept/1049".into()));
    let table = asked.ask(&["retained", "kept/0007"]);
    assert_eq!(rows(&table), [["kept/0007", "0", "1", "B", "-"]]);
    asked.broker.stop();
}

#[test]
fn one_client_is_shown_and_disconnected_by_who_may() {
    let asked = Asked::start(2, "");
    let mut client = Connect::v5("a/b c").persistent().open(&asked.broker);
    client.subscribe("x/+", 2);
    let sheet = asked.ask(&["client", "a/b c"]);
    assert!(sheet.output.starts_with("client "), "{sheet:?}");
    assert!(sheet.output.contains("x/+ "), "{sheet:?}");
    assert_eq!(
        asked.json(&["client", "a/b c"])["filters"][0]["filter"],
        "x/+"
    );
    fails(
        &asked.ask(&["client", "nobody"]),
        3,
        &["no session has this client identifier"],
    );
    let disconnect = [
        "disconnect",
        "a/b c",
        "--reason",
        "server-busy",
        "--text",
        "later",
    ];
    fails(
        &asked.ask(&disconnect),
        1,
        &["takes a token of the role operate", "--token-file"],
    );
    let file = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("token"));
    let with = |text: &str| {
        std::fs::write(&file, text).expect("write");
        asked.ask(&[&disconnect[..], &["--token-file", &file]].concat())
    };
    fails(&with(&asked.tokens.view), 1, &["viewer has the role view"]);
    fails(
        &with("ringmq_unknown"),
        1,
        &["its token is none of admin.token_file"],
    );
    fails(
        &with("operator operate 00"),
        2,
        &[&file, "that is no token"],
    );
    client.ping();
    let done = with(&format!("{}\n", asked.tokens.operate));
    assert_eq!(
        (done.status.code(), &*done.output),
        (Some(0), "a/b c: disconnected\n")
    );
    let packets = client.drain_to_close();
    let is_told = |packet: &Packet| matches!(packet, Packet::Disconnect { code: 0x89, .. });
    assert!(packets.iter().any(is_told), "{packets:?}");
    let env = [
        ("RINGMQ_OPERATOR_URL", &*asked.at),
        ("RINGMQ_OPERATOR_TOKEN", &asked.tokens.operate),
    ];
    let ended = run(&["disconnect", "a/b c", "--end-session"], &env);
    assert_eq!(ended.output, "a/b c: its session has ended\n", "{ended:?}");
    fails(
        &run(&["disconnect", "a/b c"], &env),
        3,
        &["no client is connected"],
    );
    asked.broker.stop();
}

#[test]
fn who_gets_a_message_is_explained() {
    let asked = Asked::start(2, "");
    let mut client = Connect::v5("s").open(&asked.broker);
    client.subscribe("a/+", 1);
    client.subscribe("$share/g/a/b", 0);
    let table = rows(&asked.ask(&["subscriptions", "a/+"])).concat();
    assert_eq!(table, ["s", "-", "yes", "a/+", "1"]);
    let outcome = asked.ask(&["explain", "a/b", "--publisher", "s"]);
    let lines: Vec<_> = outcome.output.lines().collect();
    assert_eq!(lines[0], "s may publish it", "{outcome:?}");
    assert!(
        lines[3].contains("$share/g/a/b  ") && lines[3].contains("one of all"),
        "{outcome:?}"
    );
    assert!(
        lines[2].ends_with("yes         it is sent at once"),
        "{outcome:?}"
    );
    assert_eq!(
        asked.json(&["explain", "a/b"])["subscriptions"][1]["gets"],
        Value::Null
    );
    let nobody = asked.ask(&["explain", "$SYS/x"]);
    assert!(
        nobody
            .output
            .starts_with("nobody gets it: the topic is the broker's own"),
        "{nobody:?}"
    );
    fails(&asked.ask(&["explain", "a/+"]), 2, &["topic: "]);
    asked.broker.stop();
}

#[test]
fn its_owner_may_all_by_the_socket_which_goes_with_the_broker() {
    let access = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("access"));
    std::fs::write(&access, "topic readwrite a/#\n").expect("write");
    let asked = Asked::start(1, &format!("acl_file = {access:?}\n"));
    let path = asked.socket.trim_start_matches("unix://").to_owned();
    let mode = std::fs::metadata(&path)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let status = asked.own(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    assert!(status.output.contains("it serves\n") && status.output.contains(&asked.socket));
    assert!(
        status
            .output
            .contains(&format!("mqtt://{}", asked.broker.address())),
        "{status:?}"
    );
    let reloaded = asked.own(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{reloaded:?}");
    assert!(reloaded.output.contains("read anew: "), "{reloaded:?}");
    std::fs::write(&access, "topic what a/#\n").expect("write");
    let wrong = asked.own(&["reload"]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(
        wrong.log.contains("not reloaded") && wrong.log.contains(&access),
        "{wrong:?}"
    );
    assert!(
        asked.broker.log().contains("operator user "),
        "{}",
        asked.broker.log()
    );
    asked.broker.stop();
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn where_to_ask_is_said_by_flag_environment_or_configuration() {
    let asked = Asked::start(1, "");
    let path = asked.socket.trim_start_matches("unix://");
    let config = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("toml"));
    std::fs::write(
        &config,
        format!("shards = 99\n[admin]\nsocket = {path:?}\n"),
    )
    .expect("write");
    let told = run(
        &["status", "--config", &config],
        &[("RINGMQ_OPERATOR_URL", "http://127.0.0.1:1")],
    );
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let told = run(&["status"], &[("RINGMQ_ADMIN__SOCKET", path)]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let free = crate::support::free_port();
    let nowhere = format!("http://127.0.0.1:{free}");
    fails(
        &run(&["status", "--admin", &nowhere], &[]),
        1,
        &[&nowhere, "connection refused", "--config"],
    );
    fails(
        &run(&["status", "--admin", "unix:///no/such"], &[]),
        1,
        &["/no/such"],
    );
    fails(
        &run(&["status", "--admin", "mqtt://x"], &[]),
        2,
        &["--admin: \"mqtt://x\" is none of"],
    );
    fails(
        &run(&["status", "--config", "/no/such"], &[]),
        2,
        &["/no/such"],
    );
    std::fs::write(&config, "[admin]\nlisten = \"off\"\n").expect("write");
    fails(
        &run(&["status", "--config", &config], &[]),
        2,
        &["admin.listen is off"],
    );
    std::fs::write(&config, "[admin]\nlisten = \"127.0.0.1:0\"\n").expect("write");
    fails(&run(&["status", "--config", &config], &[]), 2, &["--admin"]);
    // Something else answers there.
    let other = format!("http://{}", asked.broker.address());
    fails(&run(&["status", "--admin", &other], &[]), 1, &[&other]);
    asked.broker.stop();
}

#[test]
fn beyond_this_machine_a_certificate_and_a_token_are_asked_for() {
    let certificates = Certificates::new();
    let tokens = Tokens::new();
    let config = format!(
        "[admin]\nlisten = \"https://0.0.0.0:0\"\ntoken_file = {:?}\n{}",
        tokens.file,
        certificates.section().replace("[tls]", "[admin.tls]"),
    );
    let broker = Broker::with_config(1, &config);
    let at = format!("https://localhost:{}", address(&broker).port());
    let ca = certificates.path("ca.pem");
    let token = ("RINGMQ_OPERATOR_TOKEN", tokens.view.as_str());
    let told = run(&["status", "--admin", &at, "--ca", &ca], &[token]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    fails(
        &run(&["status", "--admin", &at, "--ca", &ca], &[]),
        1,
        &["Authorization: Bearer"],
    );
    fails(
        &run(&["status", "--admin", &at], &[token]),
        1,
        &["certificate", "--ca"],
    );
    fails(
        &run(&["status", "--admin", &at, "--ca", "/no/such"], &[token]),
        2,
        &["--ca: /no/such"],
    );
    broker.stop();
}

#[test]
fn shells_and_manuals_know_all_commands() {
    for (shell, sign) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef ringmq"),
        ("fish", "complete -c ringmq"),
    ] {
        let told = run(&["completions", shell], &[]);
        assert!(
            told.output.contains(sign) && told.output.contains("explain"),
            "{shell}"
        );
    }
    assert!(run(&["man"], &[]).output.contains(".TH ringmq 1"));
    let folder = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("man"));
    std::fs::write(&folder, "").expect("write a file");
    fails(&run(&["man", "--to", &folder], &[]), 1, &[&folder]);
    std::fs::remove_file(&folder).expect("remove it");
    assert_eq!(run(&["man", "--to", &folder], &[]).status.code(), Some(0));
    for page in [
        "ringmq.1",
        "ringmq-clients.1",
        "ringmq-explain.1",
        "ringmq-bans.1",
        "ringmq-log-level.1",
        "ringmq-store-check.1",
    ] {
        assert!(std::path::Path::new(&folder).join(page).exists(), "{page}");
    }
}

#[test]
fn what_a_client_has_agreed_on_by_tls_is_shown() {
    let certificates = Certificates::new();
    certificates.client("client", "sensor 7", 77);
    let socket = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("socket"));
    let ca = certificates.path("ca.pem");
    let config = format!(
        "{ANYWHERE}socket = {socket:?}\n{}client_ca = {ca:?}\nclient_certificate = \"optional\"\n",
        certificates.section()
    );
    let setup = Setup::new()
        .shards(1)
        .config(&config)
        .listen("mqtts://127.0.0.1:0");
    let broker = setup.listen("mqtt://127.0.0.1:0").start();
    let wire = Wire::Tls(&certificates, Some("client"));
    let link = wire.dial(broker.addresses()[0]).expect("TLS");
    let over = Client::across(link, Version::V5);
    let (mut client, _) = Connect::v5("safe").attempt_over(over);
    client.ping();
    let at = format!("http://{}", address(&broker));
    let show = |id: &str| run(&["client", id, "--json", "--admin", &at], &[]);
    let told: Value = serde_json::from_str(&show("safe").output).expect("JSON");
    let tls = &told["tls"];
    assert_eq!(
        (&tls["version"], &tls["server_name"]),
        (&"1.3".into(), &"localhost".into()),
        "{tls}"
    );
    assert!(
        tls["cipher_suite"]
            .as_str()
            .is_some_and(|suite| suite.starts_with("TLS13_")),
        "{tls}"
    );
    let certificate = tls["certificate"].as_str().expect("its certificate");
    assert!(
        certificate.contains("CN=sensor 7") && certificate.contains("serial "),
        "{tls}"
    );
    assert!(tls["ends_in_seconds"].as_u64() > Some(0), "{tls}");
    let sheet = run(&["client", "safe", "--admin", &at], &[]);
    assert!(sheet.output.contains("cipher suite "), "{sheet:?}");
    let plain = Client::over(
        std::net::TcpStream::connect(broker.addresses()[1]).expect("connect"),
        Version::V5,
    );
    let (mut plain, _) = Connect::v5("plain").attempt_over(plain);
    plain.ping();
    let told: Value = serde_json::from_str(&show("plain").output).expect("JSON");
    assert_eq!(told["tls"], Value::Null);
    broker.stop();
}

#[test]
fn bans_are_made_listed_and_ended() {
    let file = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("bans"));
    std::fs::write(&file, "user eve\n").expect("write");
    let bans = format!("[bans]\nfile = {file:?}\nflapping_connects_max = 4\n");
    let asked = Asked::start(2, &bans);
    let mut client = Connect::v5("c").open(&asked.broker);
    let ban = ["ban", "--client-id", "c", "--for", "10m"];
    fails(
        &asked.ask(&ban),
        1,
        &["takes a token of the role operate", "--token-file"],
    );
    client.ping();
    let banned = asked.own(&ban);
    assert_eq!(banned.output, "client c: banned for 10m 0s\n", "{banned:?}");
    client.expect_error(&[0x8A, 0x98]);
    Connect::v5("c").expect_refused(&asked.broker, &[0x8A]);
    let network = asked.own(&["ban", "--address", "192.0.2.0/24", "--json"]);
    let told: Value = serde_json::from_str(&network.output).expect("JSON");
    assert_eq!(
        told,
        serde_json::json!({ "address": "192.0.2.0/24", "seconds": 3_600, "done": true })
    );
    let listed = rows(&asked.ask(&["bans"]));
    assert_eq!(listed[0], ["-", "eve", "-", "never", "(bans.file)"]);
    assert_eq!(
        (&listed[1][..3], &listed[2][2]),
        (
            &["c", "-", "-"].map(str::to_owned)[..],
            &"192.0.2.0/24".to_owned()
        )
    );
    assert!(listed[1][3].ends_with('m'), "{listed:?}");
    let some = asked.ask(&["bans", "--limit", "2"]);
    assert!(some.log.contains("these are 2 of 3 bans"), "{some:?}");
    assert_eq!(
        asked.json(&["bans"])["bans"][0]["ends_in_seconds"],
        Value::Null
    );
    let unban = |words: &[&str]| asked.own(&[&["unban"], words].concat());
    fails(&unban(&["--client-id", "d"]), 3, &["there is no such ban"]);
    fails(&unban(&["--user", "eve"]), 1, &["it stands in bans.file"]);
    fails(&unban(&[]), 2, &["--client-id"]);
    let both = ["ban", "--client-id", "c", "--user", "u"];
    fails(
        &asked.own(&both),
        2,
        &["say one of client_id, user and address"],
    );
    fails(
        &asked.own(&["ban", "--user", "u", "--for", "1w"]),
        2,
        &["s, m, h and d"],
    );
    let ended = unban(&["--client-id", "c"]);
    assert_eq!(ended.output, "client c: the ban has ended\n", "{ended:?}");
    eventually("it may come again", || {
        let (_, answer) = Connect::v5("c").attempt(&asked.broker);
        matches!(answer, Some(Packet::Connack { code: 0, .. })).then_some(())
    });
    // One that the broker has made is of a client as it was seen.
    eventually("it has connected too often", || {
        let (_, answer) = Connect::v5("often").attempt(&asked.broker);
        matches!(answer, Some(Packet::Connack { code: 0x8A, .. })).then_some(())
    });
    // It ends before the other.
    let seen = &rows(&asked.ask(&["bans"]))[1];
    assert_eq!(seen[..3], ["often", "-", "127.0.0.1/32"]);
    fails(
        &unban(&["--client-id", "often"]),
        3,
        &["there is no such ban"],
    );
    let ended = unban(&["--client-id", "often", "--address", "127.0.0.1/32"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(asked.json(&["bans"])["count"], 2);
    asked.broker.stop();
}

#[test]
fn the_log_level_is_shown_and_set() {
    let asked = Asked::start(1, "");
    let shown = asked.ask(&["log-level"]);
    assert_eq!((shown.status.code(), &*shown.output), (Some(0), "info\n"));
    fails(
        &asked.ask(&["log-level", "debug"]),
        1,
        &["takes a token of the role admin"],
    );
    fails(&asked.own(&["log-level", "loud"]), 2, &["loud"]);
    let is_told = |level: &str| asked.broker.log().contains(&format!(" {level} "));
    assert!(!is_told("DEBUG"));
    let set = asked.own(&["log-level", "debug"]);
    assert_eq!(
        set.output, "the log's level is debug until the next start\n",
        "{set:?}"
    );
    assert_eq!(asked.json(&["log-level"])["level"], "debug");
    eventually("it logs more", || {
        Connect::v5(&unique("c")).open(&asked.broker);
        is_told("DEBUG").then_some(())
    });
    let set = asked.own(&["log-level", "error", "--json"]);
    assert_eq!(set.status.code(), Some(0), "{set:?}");
    assert!(set.output.contains("\"level\": \"error\""), "{set:?}");
    asked.broker.stop();
}

#[test]
fn status_counts_bridges_and_those_that_are_up() {
    let remote = Broker::start(1);
    let one = |name: &str, more: &str| {
        let keys = format!("{more}\ntopics = [{{ filter = \"t/#\" }}]");
        bridge_as(name, name, remote.address(), &keys)
    };
    let asked = Asked::start(1, &(one("b", "") + &one("c", "paused = true")));
    eventually("one is up", || {
        let told = asked.json(&["status"]);
        (told["bridges"] == 2 && told["bridges_up"] == 1).then_some(())
    });
    let status = asked.ask(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    assert!(
        status
            .output
            .contains("\nbridges            2, 1 of them up\n"),
        "{status:?}"
    );
    asked.broker.stop();
    let asked = Asked::start(1, "");
    let status = asked.ask(&["status"]);
    assert!(
        status.output.contains("\nbridges            0\n"),
        "{status:?}"
    );
    asked.broker.stop();
}
