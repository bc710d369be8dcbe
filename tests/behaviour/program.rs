//! The program around the broker: command line, configuration, environment, signals, shutdown.

use crate::on_shards;
use crate::support::{
    Broker, Client, Connect, Packet, Setup, Version, Will, eventually, free_port, prop, unique,
};
use rustix::process::Signal;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Starts with `config`, which has to fail with exit code 2 and a message that holds all of `parts`.
fn refused(config: &str, parts: &[&str]) {
    let outcome = Setup::new().config(config).run_to_end();
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    for part in parts {
        assert!(
            outcome.log.contains(part),
            "no '{part}' in: {}",
            outcome.log
        );
    }
    assert!(!outcome.log.contains("panicked"), "{}", outcome.log);
}

#[test]
fn an_unknown_key_is_named_with_file_and_line() {
    refused(
        "shards = 1\n\n[limits]\nno_such_key = 5\n",
        &[".toml:4", "no_such_key"],
    );
}

#[test]
fn an_unknown_section_is_named_with_file_and_line() {
    refused("shards = 1\n[limit]\n", &[".toml:2", "limit"]);
}

#[test]
fn a_wrong_type_is_named_with_file_line_and_key() {
    refused("\n\nshards = \"two\"\n", &[".toml:3", "shards"]);
    refused(
        "[limits]\nmax_packet_bytes = \"big\"\n",
        &[".toml:2", "max_packet_bytes"],
    );
    refused(
        "[mqtt]\nretain_available = 1\n",
        &[".toml:2", "retain_available"],
    );
}

#[test]
fn an_impossible_value_is_named_with_file_line_and_key() {
    for (section, key, value) in [
        ("limits", "max_packet_bytes", "1"),
        ("limits", "topic_bytes_max", "65536"),
        ("limits", "inflight_max", "0"),
        ("limits", "receive_maximum", "0"),
        ("mqtt", "qos_max", "3"),
    ] {
        refused(
            &format!("[{section}]\n# here\n{key} = {value}\n"),
            &[".toml:3", key],
        );
    }
    refused(
        "[mqtt]\nshared_strategy = \"luck\"\n",
        &[".toml:2", "shared_strategy"],
    );
    refused(
        "[session]\nqueue_full = \"explode\"\n",
        &[".toml:2", "queue_full"],
    );
    refused("shards = 0\n", &[".toml:1", "shards"]);
    refused(
        "listen = [\"http://127.0.0.1:1\"]\n",
        &[".toml:1", "listen"],
    );
    refused("cpus = \"nine\"\n", &[".toml:1", "cpus"]);
}

#[test]
fn broken_toml_is_named_with_its_line() {
    refused("shards = 1\nlisten = [\n", &[".toml:"]);
}

#[test]
fn a_missing_file_is_named() {
    let outcome = Setup::new()
        .arg("--config")
        .arg("/no/such/file.toml")
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(2));
    assert!(
        outcome.log.contains("/no/such/file.toml"),
        "{}",
        outcome.log
    );
}

#[test]
fn check_config_judges_without_serving() {
    let file = |text: &str| {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("check"));
        std::fs::write(&path, text).expect("write the file");
        path.to_str().expect("a plain path").to_owned()
    };
    let check = |path: &str| Setup::new().arg("check-config").arg(path).run_to_end();
    let good = check(&file("shards = 2\n[limits]\ninflight_max = 5\n"));
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let path = file("shards = 2\nshard = 2\n");
    let bad = check(&path);
    assert_eq!(bad.status.code(), Some(2), "{bad:?}");
    assert!(bad.log.contains(&format!("{path}:2")), "{}", bad.log);
}

#[test]
fn version_and_help_are_told() {
    let version = Setup::new().arg("--version").run_to_end();
    assert_eq!(version.status.code(), Some(0));
    assert!(
        version.output.contains(env!("CARGO_PKG_VERSION")),
        "{}",
        version.output
    );
    let help = Setup::new().arg("--help").run_to_end();
    assert_eq!(help.status.code(), Some(0));
    for flag in [
        "--config",
        "--listen",
        "--shards",
        "--cpus",
        "--log",
        "check-config",
    ] {
        assert!(help.output.contains(flag), "no {flag} in {}", help.output);
    }
}

#[test]
fn an_unknown_flag_is_an_error() {
    let outcome = Setup::new().arg("--no-such-flag").run_to_end();
    assert_eq!(outcome.status.code(), Some(2));
    assert!(outcome.log.contains("--no-such-flag"));
}

#[test]
fn the_environment_overrides_the_file() {
    let broker = Setup::new()
        .config("[limits]\nreceive_maximum = 5\ntopic_alias_max = 3\n")
        .env("RINGMQ_LIMITS__RECEIVE_MAXIMUM", "9")
        .env("RINGMQ_SHARDS", "2")
        .start();
    let client = Connect::v5(&unique("c")).open(&broker);
    assert_eq!(client.connack.number(prop::RECEIVE_MAXIMUM), Some(9));
    assert_eq!(client.connack.number(prop::TOPIC_ALIAS_MAXIMUM), Some(3));
    assert!(broker.log().contains("2 shard"), "{}", broker.log());
}

#[test]
fn a_wrong_environment_variable_is_named() {
    for (key, value) in [
        ("RINGMQ_LIMITS__INFLIGHT_MAX", "many"),
        ("RINGMQ_LIMITS__NO_SUCH_KEY", "1"),
    ] {
        let outcome = Setup::new().env(key, value).run_to_end();
        assert_eq!(outcome.status.code(), Some(2));
        assert!(outcome.log.contains(key), "{}", outcome.log);
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    let address = taken.local_addr().expect("address").to_string();
    let outcome = Setup::new()
        .listen(&format!("mqtt://{address}"))
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.log.contains(&address), "{}", outcome.log);
    // Which only shows when it is listened on, as the README says.
    let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("taken"));
    std::fs::write(&path, format!("listen = [\"mqtt://{address}\"]\n")).unwrap();
    let checked = Setup::new().arg("check-config").arg(&path).run_to_end();
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    std::fs::remove_file(&path).unwrap();
}

/// The README's steps work on a system that has only the folders that every one has.
#[test]
fn the_steps_of_the_readme_install_the_service() {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("### Under systemd").expect("the section");
    let (_, steps) = section.split_once("```sh\n").expect("the steps");
    let (steps, _) = steps.split_once("```").expect("their end");
    // Files that only the service's user reads are checked as that.
    let check = "runuser -u ringmq -- ringmq check-config /etc/ringmq/ringmq.toml";
    assert!(steps.contains(check), "{steps}");
    let root = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("root"));
    for folder in ["usr/local/bin", "etc/systemd/system", "var/log", "run"] {
        std::fs::create_dir_all(format!("{root}/{folder}")).unwrap();
    }
    for file in ["ringmq", "ringmq.toml", "users", "access"] {
        std::fs::write(format!("{root}/{file}"), "").unwrap();
    }
    let installs = steps.lines().filter(|line| line.starts_with("install "));
    assert!(installs.clone().count() >= 5, "{steps}");
    for step in installs {
        // Into the scratch folder, and to whoever runs the test.
        let mut step = step.replace("-o ringmq ", "").replace("-g ringmq ", "");
        for file in ["target/release/ringmq", "ringmq.toml", "users", "access"] {
            let name = file.rsplit('/').next().unwrap();
            step = step.replace(&format!(" {file} "), &format!(" {root}/{name} "));
        }
        for folder in ["/usr", "/etc", "/var"] {
            step = step.replace(&format!(" {folder}/"), &format!(" {root}{folder}/"));
        }
        let done = std::process::Command::new("sh")
            .args(["-c", &step])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("run sh");
        assert!(done.status.success(), "{step}: {done:?}");
    }
    let sysusers = format!("{root}/etc/sysusers.d/ringmq.conf");
    assert!(std::fs::metadata(&sysusers).is_ok_and(|file| file.is_file()));
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn a_second_broker_on_the_same_port_is_refused() {
    let broker = Broker::start(2);
    let url = format!("mqtt://{}", broker.address());
    let outcome = Setup::new().listen(&url).run_to_end();
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
}

#[test]
fn an_open_listener_needs_to_be_wanted() {
    let url = format!("mqtt://0.0.0.0:{}", free_port());
    let outcome = Setup::new().listen(&url).run_to_end();
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    assert!(
        outcome.log.contains("allow_anonymous = true"),
        "{}",
        outcome.log
    );
}

#[test]
fn several_listeners_are_served() {
    let broker = Setup::new()
        .shards(2)
        .listen("mqtt://127.0.0.1:0")
        .listen("mqtt://127.0.0.1:0")
        .start();
    let mut clients: Vec<_> = broker
        .addresses()
        .iter()
        .map(|address| {
            let stream = TcpStream::connect(address).expect("connect");
            let mut client = Client::over(stream, Version::V4);
            client.send(&Connect::v4(&unique("c")).encode());
            assert!(matches!(client.recv(), Packet::Connack { code: 0, .. }));
            client
        })
        .collect();
    assert_eq!(clients.len(), 2);
    let topic = unique("listeners");
    clients[0].subscribe(&topic, 1);
    clients[1].publish(&topic, 1, "x");
    clients[0].expect(&topic, "x");
}

fn serves_at(address: (&str, u16)) {
    let stream = TcpStream::connect(address).expect("connect");
    let client = Client::over(stream, Version::V4);
    let (mut client, answer) = Connect::v4(&unique("c")).attempt_over(client);
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0, .. })),
        "{answer:?}"
    );
    client.ping();
}

#[test]
fn all_addresses_of_both_families_are_served_by_one_url() {
    let broker = Setup::new()
        .config("allow_anonymous = true\n")
        .listen("mqtt://[::]:0")
        .start();
    let port = broker.address().port();
    for host in ["127.0.0.1", "::1", "127.0.0.2"] {
        serves_at((host, port));
    }
    // Beside 0.0.0.0 it leaves IPv4 to that.
    let port = free_port();
    let broker = Setup::new()
        .config("allow_anonymous = true\n")
        .listen(&format!("mqtt://[::]:{port}"))
        .listen(&format!("mqtt://0.0.0.0:{port}"))
        .start();
    for host in ["127.0.0.1", "::1"] {
        serves_at((host, port));
    }
    broker.stop();
}

#[test]
fn listeners_in_each_others_way_are_named() {
    let outcome = Setup::new()
        .listen("mqtt://127.0.0.1:1883")
        .listen("ws://127.0.0.1:1883")
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(2));
    let said = ["twice", "mqtt://127.0.0.1:1883", "ws://127.0.0.1:1883"];
    assert!(
        said.iter().all(|part| outcome.log.contains(part)),
        "{}",
        outcome.log
    );
    refused(
        "listen = [\"mqtt://127.0.0.1:0\"]\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n",
        &[":1", "listen", "[[listener]]"],
    );
}

/// The kernel asks a client that says nothing whether it is there: its timer runs on accepted sockets.
#[test]
fn silent_connections_are_probed_by_the_kernel() {
    /// Kind of timer and seconds left, as `/proc/net/tcp` has it for the broker's end of a connection.
    fn timer(broker: SocketAddr, client: SocketAddr) -> (u8, u64) {
        let [ours, theirs] = [broker, client].map(|at| format!(":{:04X}", at.port()));
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table");
        let row = table.lines().find(|row| {
            let mut addresses = row.split_whitespace().skip(1);
            let mut is_at = |port: &str| addresses.next().is_some_and(|at| at.ends_with(port));
            is_at(&ours) && is_at(&theirs)
        });
        let timer = row.expect("the connection").split_whitespace().nth(5);
        let (kind, left) = timer.expect("a timer").split_once(':').expect("two parts");
        let number = |text| u64::from_str_radix(text, 16).expect("a number");
        (number(kind) as u8, number(left) / 100)
    }
    const KEEPALIVE: u8 = 2;
    for (config, wanted) in [
        ("", Some(60)),
        ("[limits]\ntcp_keepalive_idle_seconds = 500\n", Some(500)),
        ("[limits]\ntcp_keepalive_idle_seconds = 0\n", None),
    ] {
        let broker = Broker::with_config(1, config);
        let mut client = Connect::v4(&unique("c")).open(&broker);
        client.ping();
        let address = client.stream().local_addr().expect("address");
        eventually("nothing waits for an acknowledgement", || {
            let (kind, seconds) = timer(broker.address(), address);
            match wanted {
                Some(wanted) => {
                    (kind == KEEPALIVE && (wanted - 50..=wanted).contains(&seconds)).then_some(())
                }
                None => (kind == 0).then_some(()),
            }
        });
    }
}

fn stops_in_order(shards: usize, signal: Signal) {
    let config = "[mqtt]\nserver_reference = \"other:1883\"\n";
    let mut broker = Broker::with_config(shards, config);
    let mut old: Vec<_> = (0..8)
        .map(|_| Connect::v4(&unique("o")).open(&broker))
        .collect();
    let mut new: Vec<_> = (0..8)
        .map(|_| Connect::v5(&unique("n")).open(&broker))
        .collect();
    broker.signal(signal);
    for client in &mut old {
        client.expect_closed();
    }
    for client in &mut new {
        match client.recv() {
            Packet::Disconnect { code, props } => {
                assert!(code == 0x8B || code == 0x9C || code == 0x9D, "{code:#04x}");
                assert_eq!(
                    props.string(prop::SERVER_REFERENCE).as_deref(),
                    Some("other:1883")
                );
            }
            other => panic!("expected DISCONNECT, got {other:?}"),
        }
        client.expect_closed();
    }
    assert_eq!(broker.wait_exit().code(), Some(0));
}

fn sigterm_stops_in_order(shards: usize) {
    stops_in_order(shards, Signal::TERM);
}

fn sigint_stops_in_order(shards: usize) {
    stops_in_order(shards, Signal::INT);
}

fn a_plain_stop_says_server_shutting_down(shards: usize) {
    let mut broker = Broker::start(shards);
    let mut client = Connect::v5(&unique("c")).open(&broker);
    broker.signal(Signal::TERM);
    client.expect_error(&[0x8B]);
    assert_eq!(broker.wait_exit().code(), Some(0));
}

fn what_was_accepted_is_flushed_before_the_stop(shards: usize) {
    let mut broker = Broker::start(shards);
    let topic = unique("flush");
    let mut receiver = Connect::v4(&unique("r")).open(&broker);
    receiver.subscribe(&topic, 0);
    let mut sender = Connect::v4(&unique("s")).open(&broker);
    for n in 0..100 {
        sender.publish(&topic, 1, n.to_string());
    }
    broker.signal(Signal::TERM);
    for n in 0..100 {
        receiver.expect(&topic, n.to_string());
    }
    receiver.expect_closed();
    assert_eq!(broker.wait_exit().code(), Some(0));
}

fn a_stalled_client_does_not_hold_up_the_stop(shards: usize) {
    let config = "[shutdown]\ndeadline_ms = 300\n";
    let mut broker = Broker::with_config(shards, config);
    let topic = unique("stalled");
    let mut receiver = Connect::v4(&unique("r"))
        .will(Will::new("w", "x"))
        .open(&broker);
    receiver.subscribe(&topic, 0);
    let mut sender = Connect::v4(&unique("s")).open(&broker);
    for _ in 0..200 {
        sender.publish(&topic, 1, vec![b'x'; 100_000]);
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait_exit().code(), Some(0));
}

fn counters_are_logged_on_sigusr1(shards: usize) {
    let broker = Broker::start(shards);
    let topic = unique("count");
    let mut client = Connect::v4(&unique("c")).persistent().open(&broker);
    client.subscribe(&topic, 1);
    client.retain(&topic, 1, "kept");
    client.expect(&topic, "kept");
    let counters = broker.counters();
    for (name, value) in [
        ("connections", 1),
        ("sessions", 1),
        ("subscriptions", 1),
        ("retained_messages", 1),
        ("messages_received", 1),
        ("messages_sent", 1),
        ("queued_messages", 0),
    ] {
        assert_eq!(counters.get(name), value, "{name} in {counters:?}");
    }
    client.disconnect();
    broker.await_counter("connections", 0);
    assert_eq!(broker.counters().get("sessions"), 1);
    broker.stop();
}

on_shards!([1, 2, 4]
    sigterm_stops_in_order,
    sigint_stops_in_order,
    a_plain_stop_says_server_shutting_down,
    what_was_accepted_is_flushed_before_the_stop,
    a_stalled_client_does_not_hold_up_the_stop,
    counters_are_logged_on_sigusr1,
);

/// A service manager hears when the broker serves, that it works, and when it stops.
#[test]
fn a_service_manager_is_told() {
    let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("notify"));
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    let broker = Setup::new().shards(1).env("NOTIFY_SOCKET", &path).start();
    let hear = |wanted: &str| {
        let mut bytes = [0; 256];
        loop {
            let count = socket
                .recv(&mut bytes)
                .expect("a word to the service manager");
            if String::from_utf8_lossy(&bytes[..count]).contains(wanted) {
                return;
            }
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    broker.signal(Signal::TERM);
    hear("STOPPING=1");
    let _ = std::fs::remove_file(&path);
}

/// Each kind of failure has its exit code, as the README says.
#[test]
fn exit_codes_tell_what_was_wrong() {
    let folder = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("codes"));
    std::fs::create_dir_all(&folder).unwrap();
    let rules = format!("{folder}/rules");
    std::fs::write(&rules, "topic nonsense\nno rule\n").unwrap();
    let ends = |setup: Setup, code: i32, said: &str| {
        let outcome = setup.shards(1).run_to_end();
        assert_eq!(outcome.status.code(), Some(code), "{said}: {outcome:?}");
        assert!(outcome.log.contains(said), "{said}: {outcome:?}");
    };
    let here = || Setup::new().listen("mqtt://127.0.0.1:0");
    // Wrong usage, wrong configuration.
    ends(here().arg("--no-such-flag"), 2, "--no-such-flag");
    ends(here().config("no_such_key = 1\n"), 2, "no_such_key");
    // A wrong file.
    ends(
        here().config(&format!("acl_file = {rules:?}\n")),
        2,
        "line 2",
    );
    for key in ["acl_file", "password_file", "audit_file", "log_file"] {
        let path = format!("{folder}/missing/file");
        ends(here().config(&format!("{key} = {path:?}\n")), 2, &path);
    }
    let path = format!("{folder}/none.pem");
    let tls = format!("[tls]\ncertificate = {path:?}\nkey = {path:?}\n");
    let secure = Setup::new().listen("mqtts://127.0.0.1:0");
    ends(secure.config(&tls), 2, &path);
    // It cannot start.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mqtt://{}", taken.local_addr().unwrap());
    ends(Setup::new().listen(&url), 1, "in use");
    // By the key that says it: a flag would be refused beside the file's tables.
    let table = format!("[[listener]]\nurl = {url:?}\n");
    let of_table = "choose another port with listener.url of the configuration";
    ends(Setup::new().config(&table), 1, of_table);
    let list = Setup::new();
    let of_list = "choose another port with listen of the configuration";
    ends(list.config(&format!("listen = [{url:?}]\n")), 1, of_list);
    std::fs::write(format!("{folder}/plain"), "kept").unwrap();
    let plain = format!("unix://{folder}/plain");
    ends(Setup::new().listen(&plain), 1, "is no socket");
    let kept = std::fs::read_to_string(format!("{folder}/plain")).unwrap();
    assert_eq!(kept, "kept");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn packages_are_made_of_known_kinds_only() {
    let package = |word: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/package.sh");
        let done = std::process::Command::new(script).arg(word).output();
        let done = done.expect("run it");
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(said).expect("a text"))
    };
    let (code, usage) = package("--help");
    assert_eq!(code, Some(0), "{usage}");
    assert!(
        usage.contains("scripts/package.sh deb tarball image sbom"),
        "{usage}"
    );
    let (code, why) = package("rpm");
    assert_eq!(code, Some(2), "{why}");
    assert!(
        why.contains("'rpm' is none of deb, tarball, image and sbom"),
        "{why}"
    );
}

/// What would be dropped in silence is refused by name.
#[test]
fn listeners_of_the_file_are_not_dropped_by_a_flag() {
    let setup = Setup::new().listen("mqtt://127.0.0.1:0");
    let outcome = setup
        .config("[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nconnections_max = 3\n")
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    assert!(
        outcome.log.contains("--listen: stands beside [[listener]]"),
        "{outcome:?}"
    );
    // What is advised has to help.
    let two = |one: &str, other: &str| {
        let config = format!("listen = [{one:?}, {other:?}]\n");
        Setup::new().config(&config).run_to_end().log
    };
    let by_port = two("ws://127.0.0.1:9/a", "ws://127.0.0.1:9/b");
    assert!(
        by_port.contains("choose another port") && !by_port.contains("path"),
        "{by_port}"
    );
    let by_path = two("unix:///tmp/a", "unix:///tmp/a");
    assert!(by_path.contains("choose another path"), "{by_path}");
}

#[test]
fn a_listener_cannot_promise_more_than_the_store() {
    let listener = |level: &str| {
        format!("[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\ndurability = \"{level}\"\n")
    };
    let place = std::env::temp_dir().join(unique("ringmq-levels"));
    let at_os = format!("[storage]\ndirectory = {place:?}\nlevel = \"os\"\n");
    refused(
        &listener("os"),
        &[".toml:3", "durability", "storage.directory"],
    );
    let config = format!("{}{at_os}", listener("disk"));
    refused(&config, &[".toml:3", "durability", "may only lower it"]);
    let config = format!("{}{at_os}", listener("sometimes"));
    refused(&config, &[".toml:3", "sometimes"]);
}
