//! What outsiders try: guesses in parallel, silence, headers of their own, files that are none; and honest
//! clients that look like them.

use crate::guard::{dial_from, open_from, peer_by_headers};
use crate::login::{
    METHOD, Scram, Scratch, auth, begin_scram, code, hook, hook_with_status, now_s, passwd,
    property, token, with_users,
};
use crate::support::{
    Broker, Certificates, Client, Connect, Packet, Props, Publish, Setup, Version, Wire,
    eventually, prop, unique,
};
use rustix::process::Signal;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

const SECRET: &str = "a secret of thirty-two bytes or more";

/// Sends all it has to say in one go and says that nothing more comes.
fn say_all_and_half_close(wire: Wire<'_>, broker: &Broker, listener: usize, login: (&str, &str)) {
    for qos in [0, 1] {
        let subscriber = Connect::v5(&unique("s")).login("ann", "secret");
        let mut subscriber = subscriber.open(broker);
        let topic = unique("t");
        subscriber.subscribe(&topic, 1);
        let link = wire.dial(broker.addresses()[listener]).expect("connect");
        let mut client = Client::across(link, Version::V4);
        let connect = Connect::v4(&unique("c")).login(login.0, login.1);
        let mut all = connect.encode();
        for n in 0..20_u8 {
            let publish = Publish::new(&topic, qos, [n]).id(u16::from(n) + 1);
            all.extend(publish.encode(Version::V4));
        }
        all.extend([0xE0, 0]);
        client.send(&all);
        client.stream().shutdown(Shutdown::Write).expect("shutdown");
        for n in 0..20_u8 {
            subscriber.expect(&topic, [n]);
        }
        let said = client.drain_to_close();
        assert!(
            matches!(said.first(), Some(Packet::Connack { code: 0, .. })),
            "{said:?}"
        );
    }
}

/// The answer on who it is comes when the end of the connection is long known.
fn what_stands_before_a_half_close_is_served(shards: usize) {
    let (users, secret) = (Scratch::new(""), Scratch::new(SECRET));
    passwd(&users.0, &[], "ann", "secret");
    let certificates = Certificates::new();
    let config = format!(
        "password_file = {:?}\n{}[authentication.jwt]\nsecret_file = {:?}\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n\
         [[listener]]\nurl = \"ws://127.0.0.1:0\"\n[[listener]]\nurl = \"wss://127.0.0.1:0\"\n",
        users.0,
        certificates.section(),
        secret.0
    );
    let broker = Setup::new().shards(shards).config(&config).start();
    let password = ("ann", "secret");
    let wires = [
        Wire::Tcp,
        Wire::Tls(&certificates, None),
        Wire::WebSocket,
        Wire::Wss(&certificates),
    ];
    for (listener, wire) in wires.into_iter().enumerate() {
        say_all_and_half_close(wire, &broker, listener, password);
    }
    let claims = json!({"sub": "bob", "exp": now_s() + 600});
    let bearer = token(&claims, SECRET.as_bytes());
    say_all_and_half_close(Wire::Tcp, &broker, 0, ("bob", &bearer));
    let url = hook(|_| json!({"result": "allow"}).to_string());
    let config = format!("[authentication.http]\nauthenticate_url = {url:?}\n");
    let broker = Setup::new().shards(shards).config(&config).start();
    say_all_and_half_close(Wire::Tcp, &broker, 0, password);
}

/// Waits until the kernel has told the broker's end of a connection that it is over: on a busy machine that is
/// not done when its client's call returns.
fn await_end_seen(broker: &Broker, client_port: u16) {
    const ESTABLISHED: &str = "01";
    let ends = [broker.address().port(), client_port].map(|port| format!(":{port:04X}"));
    eventually("the broker's end is no longer open", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
        let is_open = table.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let is_it = ends
                .iter()
                .all(|end| fields.next().is_some_and(|at| at.ends_with(end)));
            is_it && fields.next() == Some(ESTABLISHED)
        });
        (!is_open).then_some(())
    });
}

/// Who has gone while its login was judged does not throw out who is there: neither by a reset, nor by an end
/// that follows its CONNECT at once, or half a packet.
fn who_has_gone_takes_nothing_over(shards: usize) {
    let (asked, is_asked) = mpsc::channel();
    let (answer, may_answer) = mpsc::channel::<()>();
    let url = hook(move |question| {
        if question["user_name"] == "slow" {
            asked.send(()).unwrap();
            may_answer.recv().unwrap();
        }
        json!({"result": "allow", "user_name": "ann"}).to_string()
    });
    let config = format!("[authentication.http]\nauthenticate_url = {url:?}\ntimeout_ms = 60000\n");
    let broker = Setup::new().shards(shards).config(&config).start();
    let id = unique("c");
    let mut there = Connect::v5(&id).login("ann", "").open(&broker);
    let ends = [
        (Some(Duration::ZERO), &b""[..]),
        (None, b""),
        (None, b"\xC0"),
    ];
    for (count, (linger, half)) in (1..).zip(ends) {
        let socket = dial_from(&broker, [127, 0, 0, 1]);
        let connect = Connect::v5(&id).login("slow", "").encode();
        (&socket).write_all(&connect).expect("send");
        is_asked.recv().expect("a question");
        (&socket).write_all(half).expect("send");
        socket.set_linger(linger).expect("SO_LINGER");
        let client = socket.local_addr().expect("an address");
        let port = client.as_socket().expect("TCP").port();
        drop(socket);
        await_end_seen(&broker, port);
        answer.send(()).expect("an answer");
        await_gone(&broker, count);
        there.ping();
    }
    assert_eq!(broker.counters().get("takeovers"), 0);
}

/// Nor by the orderly end of TLS or of a WebSocket, which is nothing that was said.
fn who_has_closed_in_order_takes_nothing_over(shards: usize) {
    let (asked, is_asked) = mpsc::channel();
    let (answer, may_answer) = mpsc::channel::<()>();
    let url = hook(move |question| {
        if question["user_name"] == "slow" {
            asked.send(()).unwrap();
            may_answer.recv().unwrap();
        }
        json!({"result": "allow", "user_name": "ann"}).to_string()
    });
    let certificates = Certificates::new();
    let config = format!(
        "[authentication.http]\nauthenticate_url = {url:?}\n{}[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n\
         [[listener]]\nurl = \"ws://127.0.0.1:0\"\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n",
        certificates.section()
    );
    let broker = Setup::new().shards(shards).config(&config).start();
    let id = unique("c");
    let dial = |wire: Wire<'_>, listener: usize| wire.dial(broker.addresses()[listener]).unwrap();
    let there = Client::across(dial(Wire::Tcp, 2), Version::V5);
    let mut there = Connect::v5(&id).login("ann", "").attempt_over(there).0;
    let connect = Connect::v5(&id).login("slow", "").encode();
    for is_tls in [true, false] {
        if is_tls {
            let name = "localhost".try_into().unwrap();
            let config = certificates.client_config(None);
            let mut tls = rustls::ClientConnection::new(config, name).unwrap();
            let mut stream = TcpStream::connect(broker.addresses()[0]).unwrap();
            rustls::Stream::new(&mut tls, &mut stream)
                .write_all(&connect)
                .unwrap();
            is_asked.recv().expect("a question");
            tls.send_close_notify();
            tls.write_tls(&mut stream).unwrap();
            // It has read all, so that its end is no reset.
            stream.shutdown(Shutdown::Write).unwrap();
            answer.send(()).expect("an answer");
            await_gone(&broker, 1);
        } else {
            let mut link = dial(Wire::WebSocket, 1);
            link.write_all(&connect).unwrap();
            link.flush().unwrap();
            is_asked.recv().expect("a question");
            let mut socket = link.tcp();
            socket.write_all(b"\x88\x82\0\0\0\0\x03\xE8").unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            answer.send(()).expect("an answer");
            await_gone(&broker, 2);
        }
        there.ping();
    }
    assert_eq!(broker.counters().get("takeovers"), 0);
}

fn await_gone(broker: &Broker, count: usize) {
    eventually("it is told", || {
        let told = "its client has gone before it was let in";
        let log = broker.log();
        let lines = log.lines().filter(|line| line.contains(told));
        (lines.count() == count).then_some(())
    });
}

/// A guess costs as much where nobody waits for the answer, and over a connection that is open already.
#[test]
fn a_wrong_password_counts_however_it_comes() {
    let (broker, _users) = with_users(
        2,
        "[authentication]\nscram = true\n[bans]\nfailed_logins_max = 3\n",
    );
    for n in 1..=3 {
        let socket = dial_from(&broker, [127, 0, 0, 2]);
        let connect = Connect::v5(&unique("c")).login("ann", "wrong").encode();
        (&socket).write_all(&connect).expect("send");
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        drop(socket);
        broker.await_counter("connects_unauthenticated", n);
    }
    let said = |line: &str| eventually(line, || broker.log().contains(line).then_some(()));
    said("address 127.0.0.2/32 is banned");
    let scram = Scram::new("ann", "secret");
    for _ in 0..3 {
        let (mut client, server_first) = begin_scram(&broker, &scram);
        client.send(&auth(0x18, METHOD, &scram.last(&server_first).0));
        assert!(matches!(client.recv(), Packet::Connack { code: 0, .. }));
        client.send(&auth(0x19, METHOD, b"n,,n=ann,r=x"));
        client.recv_auth();
        client.send(&auth(0x18, METHOD, b"c=biws,r=x,p=AAAA"));
        client.expect_error(&[0x87]);
    }
    said("address 127.0.0.1/32 is banned");
}

/// Who is banned while it is being found out who it is learns nothing of its password.
#[test]
fn a_ban_answers_right_and_wrong_alike() {
    for ban in ["user ann", "address 127.0.0.1"] {
        let bans = Scratch::new("");
        let (release, released) = mpsc::channel::<()>();
        let url = hook(move |asked| {
            // Nobody says so: the sender goes.
            let _ = released.recv();
            let is_right = asked["password"] == "secret";
            json!({"result": if is_right { "allow" } else { "deny" }}).to_string()
        });
        let config = format!(
            "allow_anonymous = true\n[bans]\nfile = {:?}\n[authentication.http]\n\
             authenticate_url = {url:?}\n",
            bans.0
        );
        let broker = Setup::new().shards(1).config(&config).start();
        let waiting = ["secret", "wrong", "secret", "wrong"].map(|password| {
            let mut client = Client::dial(&broker, Version::V5);
            client.send(&Connect::v5(&unique("c")).login("ann", password).encode());
            client
        });
        broker.await_counter("authentications", 4);
        std::fs::write(&bans.0, format!("{ban}\nclient probe\n")).unwrap();
        broker.signal(Signal::HUP);
        eventually("the ban is in force", || {
            let (_, answer) = Connect::v5("probe").attempt(&broker);
            (!matches!(answer, Some(Packet::Connack { code: 0, .. }))).then_some(())
        });
        drop(release);
        for mut client in waiting {
            let answer = client.recv();
            assert!(
                matches!(answer, Packet::Connack { code: 0x8A, .. }),
                "{ban}: {answer:?}"
            );
        }
    }
}

/// Who is banned by a name that only the hook gives is answered as for a wrong password, also by a hook that
/// refuses by its status, and the operator is told by what name, also of one that did not wait.
#[test]
fn a_ban_by_a_name_of_the_hook_tells_nothing_and_is_noted() {
    let (audit, bans) = (
        Scratch::new(""),
        Scratch::new("user mr-x\nclient of-hook\n"),
    );
    let (release, released) = mpsc::channel::<()>();
    let url = hook_with_status(move |asked| {
        if asked["client_id"] == "gone" {
            let _ = released.recv();
        }
        if asked["password"] != "secret" {
            return ("401 Unauthorized", String::new());
        }
        let given = match asked["user_name"].as_str() {
            Some("ann") => json!({"result": "allow", "user_name": "mr-x"}),
            _ => json!({"result": "allow", "client_id": "of-hook"}),
        };
        ("200 OK", given.to_string())
    });
    let config = format!(
        "audit_file = {:?}\n[limits]\nconnect_timeout_ms = 1000\n[bans]\nfile = {:?}\n\
         [authentication.http]\nauthenticate_url = {url:?}\ntimeout_ms = 60000\n",
        audit.0, bans.0
    );
    let broker = Setup::new().shards(1).config(&config).start();
    let noted = |names: &str| {
        eventually(names, || {
            let audit = std::fs::read_to_string(&audit.0).unwrap();
            let mut lines = audit
                .lines()
                .filter(|line| line.contains("is banned (bans.file"));
            lines.any(|line| line.contains(names)).then_some(())
        });
    };
    for (user, id) in [("ann", "c"), ("bob", "")] {
        for password in ["secret", "wrong"] {
            let connect = Connect::v5(id).login(user, password);
            assert_eq!(code(&broker, &connect), 0x86, "{user} {password}");
        }
    }
    noted("\"user_name\":\"mr-x\"");
    noted("\"client_id\":\"of-hook\"");
    let mut gone = Client::dial(&broker, Version::V5);
    gone.send(&Connect::v5("gone").login("ann", "secret").encode());
    gone.drain_to_close();
    drop(release);
    noted("\"client_id\":\"gone\"");
    assert_eq!(broker.counters().get("connections_banned"), 3);
}

/// What breaks under an exchange is noted with the user that the exchange names.
#[test]
fn an_exchange_that_breaks_is_noted_under_its_user() {
    let more = "[authentication]\nscram = true\n[[listener]]\nurl = \"ws://127.0.0.1:0\"\n";
    let (broker, _users) = with_users(1, more);
    let scram = Scram::new("ann", "secret");
    let link = Wire::WebSocket
        .dial(broker.addresses()[0])
        .expect("connect");
    let mut client = Client::across(link, Version::V5);
    let props = Props::new()
        .text(prop::AUTH_METHOD, METHOD)
        .text(prop::AUTH_DATA, scram.first());
    client.send(&Connect::v5("c").props(props).encode());
    client.recv_auth();
    // A frame without a mask.
    client.stream().write_all(&[0x82, 1, 0]).unwrap();
    let line = "client \"c\" (user \"ann\")";
    eventually(line, || {
        let log = broker.log();
        let mut lines = log
            .lines()
            .filter(|text| text.contains("is refused: WebSocket: "));
        lines.any(|text| text.contains(line)).then_some(())
    });
}

/// However many guesses are under way when an address is banned, that is said once.
#[test]
fn a_ban_is_said_once() {
    let (broker, _users) = with_users(2, "[bans]\nfailed_logins_max = 3\n");
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = Client::dial(&broker, Version::V5);
            client.send_lossy(&Connect::v5(&unique("c")).login("ann", "wrong").encode());
            client
        })
        .collect();
    for mut client in clients {
        client.drain_to_close();
    }
    let line = "address 127.0.0.1/32 is banned";
    eventually(line, || broker.log().contains(line).then_some(()));
    broker.counters();
    assert_eq!(
        broker.log().matches("is banned for ").count(),
        1,
        "{}",
        broker.log()
    );
}

/// Says nothing from an address of this machine.
pub(crate) fn silent_from(broker: &Broker, listener: usize, from: [u8; 4]) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    let from = SocketAddr::from((from, 0));
    socket.bind(&from.into()).expect("bind");
    let to = broker.addresses()[listener];
    socket.connect(&to.into()).expect("connect");
    Client::over(socket.into(), Version::V5)
}

/// The listeners of every kind; where the last one's clients are is said by a proxy.
fn of_every_kind(certificates: &Certificates) -> String {
    let kinds = ["mqtt", "mqtts", "ws", "wss"];
    let listeners = kinds.map(|kind| format!("[[listener]]\nurl = \"{kind}://127.0.0.1:0\"\n"));
    format!(
        "{}{}[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1/32\"]\n",
        certificates.section(),
        listeners.concat()
    )
}

/// They are closed before they have said anything, whatever lies under MQTT, and wait in nobody's place.
fn silence_of_those_that_are_not_served_takes_no_place(shards: usize) {
    let bans = Scratch::new("address 127.0.0.2\naddress 10.0.0.2\n");
    let certificates = Certificates::new();
    let config = format!(
        "[bans]\nfile = {:?}\n[limits]\nconnecting_max = 64\nconnections_per_address_max = 1\n\
         connect_timeout_ms = 600000\n{}",
        bans.0,
        of_every_kind(&certificates)
    );
    let broker = Setup::new().shards(shards).config(&config).start();
    let by_proxy = |host: &str| {
        let mut client = silent_from(&broker, 4, [127, 0, 0, 1]);
        client.send(format!("PROXY TCP4 {host} 127.0.0.1 4660 1883\r\n").as_bytes());
        client
    };
    let full = silent_from(&broker, 0, [127, 0, 0, 3]);
    let full_too = by_proxy("10.0.0.3");
    broker.await_counter("connections", 2);
    for _ in 0..3 {
        for listener in 0..4 {
            silent_from(&broker, listener, [127, 0, 0, 2]).expect_closed();
            silent_from(&broker, listener, [127, 0, 0, 3]).expect_closed();
        }
        by_proxy("10.0.0.2").expect_closed();
        by_proxy("10.0.0.3").expect_closed();
    }
    let counters = broker.counters();
    assert_eq!(counters.get("connections_banned"), 15);
    assert_eq!(counters.get("connections_refused_full"), 15);
    assert_eq!(counters.get("connections"), 2);
    // Those that are there when they are banned go as well.
    std::fs::write(&bans.0, "address 127.0.0.3\naddress 10.0.0.3\n").unwrap();
    broker.signal(Signal::HUP);
    eventually("all shards have them", || {
        broker.log().contains("the bans are reloaded").then_some(())
    });
    for mut client in [full, full_too] {
        client.expect_closed();
    }
    silent_from(&broker, 0, [127, 0, 0, 3]).expect_closed();
    by_proxy("10.0.0.3").expect_closed();
    assert_eq!(broker.counters().get("connections_banned"), 19);
}

/// However the system spreads them over shards.
#[test]
fn so_many_of_an_address_may_be_silent_as_is_said() {
    let config = "[limits]\nconnecting_per_address_max = 8\nconnect_timeout_ms = 600000\n";
    let broker = Setup::new().shards(4).config(config).start();
    let silent = || silent_from(&broker, 0, [127, 0, 0, 2]);
    let waiting = [(); 8].map(|()| silent());
    broker.await_counter("connections", 8);
    silent().expect_closed();
    assert_eq!(broker.counters().get("connections_refused_connecting"), 1);
    for client in waiting {
        client.cut();
    }
    broker.await_counter("connections", 0);
    let _again = [(); 8].map(|()| silent());
    broker.await_counter("connections", 8);
}

/// One address cannot fill the room of those that are about to connect, whatever lies under MQTT.
#[test]
fn silence_of_one_address_leaves_room_for_others() {
    let certificates = Certificates::new();
    let config = format!(
        "[limits]\nconnecting_max = 8\nconnect_timeout_ms = 600000\n{}",
        of_every_kind(&certificates)
    );
    let broker = Setup::new().shards(1).config(&config).start();
    let _waiting: Vec<_> = (0..4)
        .map(|listener| silent_from(&broker, listener, [127, 0, 0, 2]))
        .collect();
    broker.await_counter("connections", 4);
    for listener in 0..4 {
        silent_from(&broker, listener, [127, 0, 0, 2]).expect_closed();
    }
    let others =
        [3, 4, 5].map(|last| open_from(&broker, [127, 0, 0, last], &Connect::v5(&unique("c"))));
    assert_eq!(broker.counters().get("connections_refused_connecting"), 4);
    assert_eq!(broker.counters().get("accepts_paused_connecting"), 0);
    drop(others);
}

/// Nor that of all who may be there, of a listener or at all.
#[test]
fn silence_of_one_address_leaves_connections_for_others() {
    for (limits, key) in [("connections_max = 4", ""), ("", "connections_max = 4")] {
        let config = format!(
            "[limits]\n{limits}\nconnect_timeout_ms = 600000\n[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n{key}\n"
        );
        let broker = Setup::new().shards(2).config(&config).start();
        let silent = || silent_from(&broker, 0, [127, 0, 0, 2]);
        let _waiting = [(); 2].map(|()| silent());
        broker.await_counter("connections", 2);
        silent().expect_closed();
        assert_eq!(broker.counters().get("connections_refused_connecting"), 1);
        let line = "connections_max = 4); limits.connecting_per_address_max allows more";
        eventually(line, || broker.log().contains(line).then_some(()));
        let _others =
            [3, 4].map(|last| open_from(&broker, [127, 0, 0, last], &Connect::v5(&unique("c"))));
    }
}

/// Nor do those of which no address is known yet take more: who comes from a proxy that is trusted and names
/// nobody.
#[test]
fn silence_behind_a_trusted_proxy_leaves_places_for_others() {
    let config = "[limits]\nconnecting_max = 8\nconnect_timeout_ms = 600000\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n\
         [[listener]]\nurl = \"ws://127.0.0.1:0\"\nforwarded_from = [\"127.0.0.2/32\"]\n\
         [[listener]]\nurl = \"mqtt://127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.2/32\"]\n";
    for by in [1, 2] {
        let broker = Setup::new().shards(1).config(config).start();
        let silent = || silent_from(&broker, by, [127, 0, 0, 2]);
        let _waiting = [(); 4].map(|()| silent());
        broker.await_counter("connections", 4);
        silent().expect_closed();
        assert_eq!(broker.counters().get("connections_refused_connecting"), 1);
        let line = "come by proxies that have not named them (limits.connecting_max = 8)";
        eventually(line, || broker.log().contains(line).then_some(()));
        let _others: Vec<_> = (3..9)
            .map(|last| open_from(&broker, [127, 0, 0, last], &Connect::v5(&unique("c"))))
            .collect();
    }
}

/// Nor those for which there are descriptors, where these are fewer.
#[test]
fn silence_of_one_address_leaves_descriptors_for_others() {
    let config = "[limits]\nconnect_timeout_ms = 600000\n";
    let setup = Setup::new().shards(1).config(config);
    let broker = setup.descriptors(160).start();
    let silent = || silent_from(&broker, 0, [127, 0, 0, 2]);
    let mut waiting = Vec::new();
    while broker.counters().get("connections_refused_connecting") == 0 {
        assert!(waiting.len() < 80, "half of the descriptors");
        waiting.push(silent());
        let taken = ["connections_accepted", "connections_refused_connecting"];
        let count = waiting.len() as u64;
        eventually("a connection is taken or refused", || {
            let counters = broker.counters();
            (taken.map(|name| counters.get(name)).iter().sum::<u64>() >= count).then_some(())
        });
    }
    let line = "as many as `ulimit -n` or LimitNOFILE= leaves); limits.connecting_per_address_max allows more";
    eventually(line, || broker.log().contains(line).then_some(()));
    let _others: Vec<_> = (0..waiting.len() / 2)
        .map(|_| open_from(&broker, [127, 0, 0, 3], &Connect::v5(&unique("c"))))
        .collect();
}

/// Nor do those of one address that are refused and stay: each kind of refusal. It has its half, and others have
/// theirs; when its own are gone, it may come again.
#[test]
fn who_is_refused_and_stays_leaves_room_for_others() {
    let connect = |level: u8| [b"\x10\x0D\x00\x04MQTT", &[level, 2, 0, 0, 0, 1, b'x'][..]].concat();
    let by_method = Connect::v5("c").props(Props::new().text(prop::AUTH_METHOD, "unknown"));
    let certificates = Certificates::new();
    let config = format!(
        "[limits]\nconnecting_max = 8\nconnect_timeout_ms = 600000\n{}",
        of_every_kind(&certificates)
    );
    let page = b"GET /page HTTP/1.1\r\nHost: broker\r\n\r\n";
    for (listener, said) in [
        (0, vec![0xFF; 5]),
        (0, connect(9)),
        (0, by_method.encode()),
        (1, page.to_vec()),
        (2, page.to_vec()),
    ] {
        let broker = Setup::new().shards(1).config(&config).start();
        let mut refused = Vec::new();
        while broker.counters().get("connections_refused_connecting") == 0 {
            let mut client = silent_from(&broker, listener, [127, 0, 0, 2]);
            client.send_lossy(&said);
            // Its answer and its end; of who is turned away a reset.
            let _ = client.stream().read_to_end(&mut Vec::new());
            refused.push(client);
        }
        let _others: Vec<_> = (3..9)
            .map(|last| open_from(&broker, [127, 0, 0, last], &Connect::v5(&unique("c"))))
            .collect();
        drop(refused);
        eventually("its places are free again", || {
            let client = silent_from(&broker, 0, [127, 0, 0, 2]);
            let (_, answer) = Connect::v5("again").attempt_over(client);
            matches!(answer, Some(Packet::Connack { code: 0, .. })).then_some(())
        });
    }
}

/// One WebSocket frame of a client, with a mask of zeros; of less than 126 bytes.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[kind, 0x80 | length, 0, 0, 0, 0][..], payload].concat()
}

/// Pings of a WebSocket whose answers have 8 KiB.
fn pings() -> Vec<u8> {
    frame(0x89, &[b'x'; 125]).repeat(64)
}

/// Upgrades to WebSocket and reads nothing.
fn upgraded_and_deaf(broker: &Broker) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_recv_buffer_size(2_048).expect("buffer");
    socket.connect(&broker.address().into()).expect("connect");
    let mut stream = TcpStream::from(socket);
    let upgrade = b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    stream.write_all(upgrade).expect("upgrade");
    stream
}

/// Has so many times 8 KiB answered, each before the next; how often until the connection ends by it.
fn ask_deaf(broker: &Broker, stream: &mut TcpStream, times: usize) -> usize {
    let ended = broker.counters().get("transport_errors");
    for count in 1..=times {
        let is_open = stream.write_all(&pings()).is_ok();
        if !is_open || broker.counters().get("transport_errors") > ended {
            return count;
        }
    }
    times
}

/// Who reads nothing of what its WebSocket answers and then says who it is lives on another shard, and the way
/// there waits for a send that nobody takes: it is given up, as all that nobody takes.
#[test]
fn who_reads_nothing_on_its_way_to_another_shard_is_given_up() {
    let config =
        "[limits]\nsocket_send_bytes_max = 4096\n[[listener]]\nurl = \"ws://127.0.0.1:0\"\n";
    let broker = Setup::new().shards(4).config(config).start();
    let before = broker.descriptors();
    // The kernel's buffers are full, and 64 KiB wait beside them.
    let too_many = ask_deaf(&broker, &mut upgraded_and_deaf(&broker), 1_000);
    assert!(
        too_many < 1_000,
        "answers that nobody takes wait without end"
    );
    let stuck: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = upgraded_and_deaf(&broker);
            // Some find less room in the kernel's buffers than others.
            ask_deaf(&broker, &mut stream, too_many - 5);
            let connect = Connect::v5(&unique("stuck")).keep_alive(1);
            let connect = connect.encode();
            stream.write_all(&frame(0x82, &connect)).expect("connect");
            stream
        })
        .collect();
    broker.await_counter("connections_accepted", 17);
    eventually("nobody is left", || {
        (broker.descriptors() == before).then_some(())
    });
    let counters = broker.counters();
    assert_eq!(counters.get("connections"), 0);
    assert!(counters.get("transport_errors") < 17, "all ended before");
    drop(stuck);
}

/// Behind a PROXY header the word of him counts whom it names, not of who sends it: its requests are others'.
#[test]
fn who_comes_through_a_proxy_does_not_name_himself() {
    let proxy = "proxy_protocol_from = [\"127.0.0.0/8\"]\n";
    let named = "PROXY TCP4 10.0.0.7 127.0.0.1 4660 8083\r\n";
    for (trust, before, wanted) in [
        ("127.0.0.0/8", named, "10.0.0.7:4660"),
        ("10.0.0.7/32", named, "6.6.6.6:0"),
        ("127.0.0.0/8", "PROXY UNKNOWN\r\n", "127.0.0.1:"),
    ] {
        for (key, header) in [
            ("forwarded_from", "X-Forwarded-For: 6.6.6.6\r\n"),
            ("real_ip_from", "X-Real-IP: 6.6.6.6\r\n"),
        ] {
            let trust = format!("{proxy}{key} = [\"{trust}\"]\n");
            let peer = peer_by_headers(&trust, before, header);
            assert!(peer.starts_with(wanted), "{trust} {before}: {peer}");
        }
    }
}

/// Where identifiers are bound to users, nobody has one of theirs without being them.
fn anonymous_clients_have_no_identifier_of_a_user(shards: usize) {
    for rule in ["user_name", "user_name_prefix"] {
        let config = format!("allow_anonymous = true\n[authentication]\nclient_id = {rule:?}\n");
        let (broker, _users) = with_users(shards, &config);
        let mut ann = Connect::v5("ann")
            .persistent()
            .login("ann", "secret")
            .open(&broker);
        ann.subscribe("t", 1);
        ann.disconnect();
        for (version, refused) in [(Version::V5, 0x85), (Version::V4, 2)] {
            for id in ["ann", "ann-1", "bob", "ringmq-1"] {
                assert_eq!(
                    code(&broker, &Connect::new(version, id)),
                    refused,
                    "{rule} {id}"
                );
            }
        }
        let anonymous = Connect::v5("").open(&broker);
        let assigned = property(&anonymous.connack, prop::ASSIGNED_CLIENT_ID);
        assert!(assigned.starts_with(b"ringmq") && !assigned.contains(&b'-'));
        Connect::v4("").open(&broker).ping();
        let again = Connect::v5("ann")
            .persistent()
            .login("ann", "secret")
            .open(&broker);
        assert!(again.session_present, "{rule}");
    }
}

/// A pipe that nobody writes into.
fn pipe() -> Scratch {
    let pipe = Scratch::new("");
    make_pipe(&pipe.0);
    pipe
}

pub(crate) fn make_pipe(path: &str) {
    std::fs::remove_file(path).expect("remove");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).expect("make a pipe");
}

/// Neither waited for nor read without end, whatever names it.
#[test]
fn what_is_no_plain_file_is_refused_at_once() {
    let (certificates, pipe) = (Certificates::new(), pipe());
    let good = |name: &str| certificates.path(name);
    for (path, kind) in [(pipe.0.as_str(), "a pipe"), ("/dev/zero", "a device")] {
        let tls = |certificate: &str, key: &str, more: &str| {
            format!(
                "[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{more}[[listener]]\n\
                 url = \"mqtts://127.0.0.1:0\"\n"
            )
        };
        let both = (good("server.pem"), good("server.key"));
        let ca = good("ca.pem");
        let configs = [
            format!("password_file = {path:?}\n"),
            format!("acl_file = {path:?}\n"),
            format!("[bans]\nfile = {path:?}\n"),
            format!("[authentication.jwt]\nsecret_file = {path:?}\n"),
            format!("[authentication.jwt]\npublic_key_file = {path:?}\n"),
            format!("[authentication.jwt]\njwks_file = {path:?}\n"),
            format!(
                "[authentication.http]\nauthenticate_url = \"https://127.0.0.1:9/\"\nca_file = {path:?}\n"
            ),
            tls(path, &both.1, ""),
            tls(&both.0, path, ""),
            tls(&both.0, &both.1, &format!("client_ca = {path:?}\n")),
            tls(
                &both.0,
                &both.1,
                &format!("client_ca = {ca:?}\nclient_crl = {path:?}\n"),
            ),
        ];
        let setups = configs.iter().map(|config| Setup::new().config(config));
        for setup in setups.chain([Setup::new().arg("--config").arg(path)]) {
            let outcome = setup.run_to_end();
            assert!(!outcome.status.success(), "{outcome:?}");
            let text = format!("is {kind}; name a plain file");
            let is_named = outcome.log.contains(path) && outcome.log.contains(&text);
            assert!(is_named, "{outcome:?}");
        }
    }
}

/// A file that became a pipe is refused by a reload, and the control plane goes on.
#[test]
fn a_file_that_becomes_a_pipe_holds_up_no_reload() {
    let (broker, users) = with_users(1, "");
    make_pipe(&users.0);
    broker.signal(Signal::HUP);
    let line = "is a pipe; name a plain file";
    eventually(line, || broker.log().contains(line).then_some(()));
    broker.counters();
    let login = Connect::v5(&unique("c")).login("ann", "secret");
    assert_eq!(code(&broker, &login), 0, "what was before is in force");
}

/// What a client calls itself cannot hide in a terminal or forge a line: neither log has letters that are not seen.
#[test]
fn no_log_has_letters_that_are_not_seen() {
    let hidden = [
        "\u{ad}",
        "\u{7f}",
        "\u{9b}",
        "\u{61c}",
        "\u{200b}",
        "\u{200e}",
        "\u{200f}",
        "\u{202a}",
        "\u{202e}",
        "\u{2066}",
        "\u{2069}",
        "\u{2028}",
        "\u{2029}",
        "\u{feff}",
        "\u{e0001}",
    ];
    for format in ["text", "json"] {
        let audit = Scratch::new("");
        let config = format!("log_format = {format:?}\naudit_file = {:?}\n", audit.0);
        let broker = Setup::new().shards(1).config(&config).start();
        for (n, letter) in hidden.iter().enumerate() {
            let id = format!("id{n}-{letter}-end");
            let _older = Connect::v5(&id).login(letter, "").open(&broker);
            let newer = Connect::v5(&id).login(letter, "").open(&broker);
            newer.disconnect();
        }
        let last = format!("id{}-", hidden.len() - 1);
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        eventually("all is written", || {
            let audit = read(&audit.0);
            let is_there = audit
                .lines()
                .any(|line| line.contains("disconnected") && line.contains(&last));
            (is_there && broker.log().contains("id0-")).then_some(())
        });
        for text in [read(&audit.0), broker.log()] {
            for letter in hidden {
                assert!(!text.contains(letter), "{letter:?} in {text}");
            }
        }
        let audit = read(&audit.0);
        let first = audit
            .lines()
            .find(|line| line.contains("connected"))
            .unwrap();
        let first: serde_json::Value = serde_json::from_str(first).unwrap();
        assert_eq!(first["client_id"], "id0-\u{ad}-end");
    }
}

crate::on_shards!([1, 2, 4] what_stands_before_a_half_close_is_served, who_has_gone_takes_nothing_over,
    who_has_closed_in_order_takes_nothing_over,
    silence_of_those_that_are_not_served_takes_no_place,
    anonymous_clients_have_no_identifier_of_a_user);
