//! The configuration read anew: who may come in and do what, who is banned, where the logs go, and where
//! operators are answered, all of it beside clients that do not notice.

use crate::admin::get;
use crate::api::Tokens;
use crate::login::{Scratch, code, passwd};
use crate::on_shards;
use crate::operator::run;
use crate::reload::Renewed;
use crate::support::{
    Broker, Client, Connect, Outcome, Packet, Version, eventually, free_port, unique,
};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

fn users(user: &str, password: &str) -> Scratch {
    let file = Scratch::new("");
    passwd(&file.0, &["--scram"], user, password);
    file
}

fn refused(broker: &Broker, connect: &Connect) {
    assert_ne!(code(broker, connect), 0);
}

on_shards! { [1, 4]
    methods_and_their_files_come_change_and_go,
    rules_come_change_and_go,
    bans_by_file_and_by_what_clients_do_change,
}

fn methods_and_their_files_come_change_and_go(shards: usize) {
    let (ann, bert) = (users("ann", "secret"), users("bert", "other"));
    let by = |file: &Scratch, more: &str| format!("password_file = {:?}\n{more}", file.0);
    let renewed = Renewed::start(shards, "");
    let broker = &renewed.broker;
    let connect = |user: &str, password: &str| Connect::v5(&unique("c")).login(user, password);
    let mut nobody = Connect::v5(&unique("c")).open(broker);
    let told = renewed.change(&by(&ann, ""));
    assert!(told.output.contains("changed: password_file"), "{told:?}");
    assert_eq!(told.log, "", "nothing needs a restart");
    refused(broker, &Connect::v5(&unique("c")));
    refused(broker, &connect("ann", "wrong"));
    let mut client = connect("ann", "secret").open(broker);
    renewed.change(&by(&bert, ""));
    refused(broker, &connect("ann", "secret"));
    connect("bert", "other").open(broker).ping();
    // An exchange, and none.
    let scram = by(
        &bert,
        "[authentication]\nscram = true\nmethods = [\"scram\"]\n",
    );
    renewed.change(&scram);
    refused(broker, &connect("bert", "other"));
    renewed.change(&by(&bert, "allow_anonymous = true\n"));
    connect("bert", "other").open(broker).ping();
    Connect::v5(&unique("c")).open(broker).ping();
    renewed.change("");
    Connect::v5(&unique("c")).open(broker).ping();
    // Who was let in stays.
    nobody.ping();
    client.ping();
    // A file that is not there changes nothing.
    renewed.write(&by(&Scratch("/nowhere/users".into()), ""));
    let wrong = renewed.reload();
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(wrong.log.contains("/nowhere/users"), "{wrong:?}");
    Connect::v5(&unique("c")).open(broker).ping();
    renewed.broker.stop();
}

fn rules_come_change_and_go(shards: usize) {
    let file = |text: &str| Scratch::new(text);
    let (of_a, of_b) = (
        file("topic write #\ntopic read +\ntopic read a/#\n"),
        file("topic write #\ntopic read +\ntopic read b/#\n"),
    );
    let by = |file: &Scratch| format!("acl_file = {:?}\n", file.0);
    let renewed = Renewed::start(shards, "");
    let mut subscriber = Connect::v5(&unique("s")).open(&renewed.broker);
    subscriber.subscribe("#", 1);
    let mut publisher = Connect::v5(&unique("p")).open(&renewed.broker);
    let mut both = |told: &[&str]| {
        for topic in ["a/x", "b/x"] {
            publisher.publish(topic, 1, "x");
        }
        for topic in told {
            subscriber.expect(topic, "x");
        }
        subscriber.expect_nothing();
    };
    both(&["a/x", "b/x"]);
    renewed.change(&by(&of_a));
    eventually("the rules are in force", || {
        let log = renewed.broker.log();
        log.contains("the access file is reloaded").then_some(())
    });
    both(&["a/x"]);
    renewed.change(&by(&of_b));
    eventually("the others are", || {
        let log = renewed.broker.log();
        (log.matches("the access file is reloaded").count() == 2).then_some(())
    });
    both(&["b/x"]);
    renewed.change("");
    eventually("there are none", || {
        let log = renewed.broker.log();
        (log.matches("the access file is reloaded").count() == 3).then_some(())
    });
    both(&["a/x", "b/x"]);
    renewed.broker.stop();
}

fn bans_by_file_and_by_what_clients_do_change(shards: usize) {
    let banned = Scratch::new("client bad\n");
    let ann = users("ann", "secret");
    let config = |more: &str| {
        format!(
            "password_file = {:?}\nallow_anonymous = true\n[bans]\nseconds = 600\n{more}",
            ann.0
        )
    };
    let renewed = Renewed::start(shards, &config(""));
    let broker = &renewed.broker;
    let mut client = Connect::v5(&unique("c")).open(broker);
    Connect::v5("bad").open(broker).ping();
    renewed.change(&config(&format!("file = {:?}\n", banned.0)));
    eventually("it is banned", || {
        let answer = Connect::v5("bad").attempt(broker).1;
        (!matches!(answer, Some(Packet::Connack { code: 0, .. }))).then_some(())
    });
    renewed.change(&config(
        "flapping_connects_max = 2\nflapping_seconds = 600\n",
    ));
    eventually("it is not banned any more", || {
        let answer = Connect::v5("bad").attempt(broker).1;
        matches!(answer, Some(Packet::Connack { code: 0, .. })).then_some(())
    });
    for _ in 0..3 {
        let _ = Connect::v5("flaps").attempt(broker);
    }
    eventually("it is banned for how it connects", || {
        let log = broker.log();
        let line = "2 connects within 600 s (bans.flapping_connects_max)";
        log.contains(line).then_some(())
    });
    // Failed logins of this address, which ends with all that come from there.
    renewed.change(
        &config("failed_logins_max = 2\nfailed_logins_seconds = 600\n")
            .replace("seconds = 600\n", "seconds = 599\n"),
    );
    client.ping();
    for _ in 0..2 {
        let _ = Connect::v5(&unique("c"))
            .login("ann", "wrong")
            .attempt(broker);
    }
    eventually("it is banned for failed logins", || {
        let log = broker.log();
        let line = "is banned for 599 s (bans.seconds): 2 failed logins within";
        log.contains(line).then_some(())
    });
    renewed.broker.stop();
}

fn path(stem: &str) -> String {
    format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique(stem))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn has(path: &str, text: &str) {
    eventually(text, || read(path).contains(text).then_some(()));
}

/// Operators are answered at the socket alone.
const OFF: &str = "listen = \"off\"\n";

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A broker that is told everything by its file; it logs to another.
struct ByFile {
    child: Child,
    config: String,
    socket: String,
    port: u16,
}

impl ByFile {
    /// `config` is what stands before the section `[admin]`.
    fn start(config: &str, admin: &str, log: &str) -> Self {
        let name = path("by-file");
        let mut broker = ByFile {
            child: Command::new("true").spawn().expect("a process"),
            config: format!("{name}.toml"),
            socket: format!("{name}.socket"),
            port: free_port(),
        };
        broker.write(config, admin);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
        command.args(["--shards", "2", "--config", &broker.config]);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let _ = broker.child.wait();
        broker.child = command.spawn().expect("start the broker");
        has(log, "unix://");
        broker
    }

    fn write(&self, config: &str, admin: &str) {
        let (socket, port) = (&self.socket, self.port);
        let text = format!(
            "listen = [\"mqtt://127.0.0.1:{port}\"]\n{config}[admin]\nsocket = {socket:?}\n{admin}"
        );
        std::fs::write(&self.config, text).expect("write");
    }

    fn reload(&self, config: &str, admin: &str) -> Outcome {
        self.write(config, admin);
        let at = format!("unix://{}", self.socket);
        run(&["reload", "--admin", &at], &[])
    }

    #[track_caller]
    fn change(&self, config: &str, admin: &str) {
        let told = self.reload(config, admin);
        assert_eq!(told.status.code(), Some(0), "{told:?}");
        assert!(told.output.contains("changed: "), "{told:?}");
        assert_eq!(told.log, "", "nothing needs a restart");
    }

    fn open(&self, id: &str) -> Client {
        let stream = TcpStream::connect(at(self.port)).expect("connect");
        let client = Client::over(stream, Version::V5);
        Connect::v5(id).attempt_over(client).0
    }
}

impl Drop for ByFile {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn logs_go_elsewhere_and_look_otherwise() {
    let (one, two, audit) = (path("log"), path("log"), path("audit"));
    let config =
        |file: &str, format: &str| format!("log_file = {file:?}\nlog_format = {format:?}\n");
    let broker = ByFile::start(&config(&one, "text"), OFF, &one);
    let mut client = broker.open("stays");
    broker.change(&config(&one, "json"), OFF);
    has(&one, "\"message\":\"the configuration is reloaded\"");
    broker.change(&config(&two, "text"), OFF);
    has(&two, "INFO the configuration is reloaded");
    assert!(!read(&two).contains("\"message\""), "{}", read(&two));
    let before = read(&one);
    let with_audit = format!("{}audit_file = {audit:?}\n", config(&two, "text"));
    broker.change(&with_audit, OFF);
    eventually("who comes is recorded", || {
        drop(broker.open("seen"));
        read(&audit)
            .contains("\"client_id\":\"seen\"")
            .then_some(())
    });
    assert_eq!(read(&one), before, "nothing more goes there");
    broker.change(&config(&two, "text"), OFF);
    // What cannot be written changes nothing.
    for key in ["log_file", "audit_file"] {
        let wrong = broker.reload(&format!("{key} = \"/nowhere/x\"\n"), OFF);
        assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
        assert!(
            wrong.log.contains(&format!("{key}: /nowhere/x")),
            "{wrong:?}"
        );
    }
    client.ping();
}

/// Where operators are answered, as whom, and how much they may ask, changes: all or nothing.
#[test]
fn operators_are_answered_elsewhere_and_otherwise() {
    let [first, second] = [(); 2].map(|()| free_port());
    let log = path("log");
    let config = format!("log_file = {log:?}\n");
    let listen = |port: u16, more: &str| format!("listen = \"http://{}\"\n{more}", at(port));
    let broker = ByFile::start(&config, &listen(first, ""), &log);
    let mut client = broker.open("stays");
    let status = |port: u16| get(at(port), "/api/v1/status").status;
    let is_gone = |port: u16| {
        eventually("nobody is answered there", || {
            TcpStream::connect(at(port)).is_err().then_some(())
        });
    };
    assert_eq!(status(first), 200);
    // One that is connected stays so, and goes by what holds then.
    let mut kept = TcpStream::connect(at(first)).expect("connect");
    broker.change(&config, &listen(second, "hosts = [\"ringmq.example\"]\n"));
    is_gone(first);
    eventually("it is answered there", || {
        let is_there = TcpStream::connect(at(second)).is_ok();
        (is_there && status(second) == 200).then_some(())
    });
    let ask = "GET /api/v1/status HTTP/1.1\r\nHost: ringmq.example\r\nConnection: close\r\n\r\n";
    kept.write_all(ask.as_bytes()).expect("ask");
    assert_eq!(crate::admin::read(kept).status, 200);
    assert_eq!(crate::admin::ask(at(second), ask).status, 200);
    // Tokens, and bounds.
    let tokens = Tokens::new();
    let more = format!("token_file = {:?}\nbody_bytes_max = 10\n", tokens.file);
    broker.change(&config, &listen(second, &more));
    let publish = |token: &str| {
        let body = "{\"topic\":\"a\",\"payload\":\"x\"}";
        let ask = format!(
            "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        crate::admin::ask(at(second), &ask).status
    };
    eventually("its body is too long", || {
        (publish(&tokens.operate) == 413).then_some(())
    });
    assert_eq!(publish("ringmq_unknown"), 401);
    broker.change(
        &config,
        &listen(second, &format!("token_file = {:?}\n", tokens.file)),
    );
    eventually("it is published", || {
        (publish(&tokens.operate) == 204).then_some(())
    });
    // A place that somebody else has changes nothing.
    let taken = TcpListener::bind(at(0)).expect("a port");
    let port = taken.local_addr().expect("its number").port();
    let wrong = broker.reload(&config, &listen(port, ""));
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(
        wrong
            .log
            .contains(&format!("admin.listen: cannot listen on {}", at(port))),
        "{wrong:?}"
    );
    assert_eq!(publish(&tokens.operate), 204);
    broker.change(&config, OFF);
    is_gone(second);
    broker.change(&config, &listen(first, ""));
    eventually("it is answered again", || {
        let is_there = TcpStream::connect(at(first)).is_ok();
        (is_there && status(first) == 200).then_some(())
    });
    client.ping();
}
