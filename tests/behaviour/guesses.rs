//! Who guesses passwords: how many guesses are answered, what an answer tells, and who is told of them.

use crate::guard::dial_from;
use crate::intruders::make_pipe;
use crate::login::{
    METHOD, Scram, Scratch, auth, begin_scram, code, hook, now_s, passwd, token, with_users,
};
use crate::support::{
    Broker, Client, Connect, Packet, Props, Setup, Version, eventually, prop, unique,
};
use rustix::process::Signal;
use serde_json::json;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::mpsc;

/// How many guesses of one address may be answered.
const GUESSES_MAX: usize = 5;

/// What a refused CONNECT is answered, `None` if nothing is.
fn answered(mut client: Client) -> Option<u8> {
    match client.drain_to_close().first() {
        Some(Packet::Connack { code, .. }) => Some(*code),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// A CONNECT that begins an exchange, in which its client says to be another than in the CONNECT.
fn exchange(scram: &Scram, connect: Connect) -> Connect {
    let props = Props::new().text(prop::AUTH_METHOD, METHOD);
    connect.props(props.text(prop::AUTH_DATA, scram.first()))
}

fn guesser(broker: &Broker, from: [u8; 4]) -> Client {
    Client::over(dial_from(broker, from).into(), Version::V5)
}

fn ask(broker: &Broker, from: [u8; 4], scram: &Scram) -> (Client, Vec<u8>) {
    let connect = exchange(scram, Connect::v5(&unique("g")));
    let (client, answer) = connect.attempt_over(guesser(broker, from));
    let Some(Packet::Auth { props, .. }) = answer else {
        panic!("{answer:?}");
    };
    let server_first = crate::login::property(&props, prop::AUTH_DATA);
    (client, auth(0x18, METHOD, &scram.last(&server_first).0))
}

/// As many as lead to a ban, whether they come in one burst or one after another: after these the right password
/// is as wrong as any.
fn guesses_of_an_address_are_answered_up_to_the_limit_only(shards: usize) {
    let more = format!(
        "[authentication]\nscram = true\nthreads = 4\n[bans]\nfailed_logins_max = {GUESSES_MAX}\n"
    );
    let (broker, _users) = with_users(shards, &more);
    let is_told_no = |code: &Option<u8>| *code == Some(0x86);
    let is_banned = |code: &Option<u8>| matches!(code, None | Some(0x8A));
    for from in [[127, 0, 0, 2], [127, 0, 0, 3]] {
        let (mut right, proof) = ask(&broker, from, &Scram::new("ann", "secret"));
        let wrong = (0..40).map(|_| ask(&broker, from, &Scram::new("ann", "wrong")));
        let mut wrong: Vec<_> = wrong.collect();
        for (client, proof) in &mut wrong {
            client.send_lossy(proof);
        }
        let codes: Vec<_> = wrong
            .into_iter()
            .map(|(client, _)| answered(client))
            .collect();
        right.send_lossy(&proof);
        let told_no = codes.iter().filter(|code| is_told_no(code));
        let told_no = told_no.count();
        assert!((1..=GUESSES_MAX).contains(&told_no), "{codes:?}");
        assert!(
            codes.iter().all(|code| is_told_no(code) || is_banned(code)),
            "{codes:?}"
        );
        assert!(is_banned(&answered(right)));
    }
    // All at once by passwords, and one after another.
    for (from, at_once) in [([127, 0, 0, 4], 40), ([127, 0, 0, 5], 1)] {
        let mut codes = Vec::new();
        while codes.len() < 40 {
            let guess = |_| {
                let mut client = guesser(&broker, from);
                let login = Connect::v5(&unique("g")).login("ann", "wrong");
                client.send_lossy(&login.encode());
                client
            };
            let clients: Vec<_> = (0..at_once).map(guess).collect();
            codes.extend(clients.into_iter().map(answered));
        }
        let told_no = codes.iter().filter(|code| is_told_no(code));
        // A ban may come before the answers that led to it are told, of several at once.
        let told_no = told_no.count();
        assert!(told_no <= GUESSES_MAX, "{codes:?}");
        assert!(told_no == GUESSES_MAX || at_once > 1, "{codes:?}");
        let mut client = guesser(&broker, from);
        client.send_lossy(&Connect::v5(&unique("g")).login("ann", "secret").encode());
        assert!(is_banned(&answered(client)));
    }
}

crate::on_shards!([1, 2, 4] guesses_of_an_address_are_answered_up_to_the_limit_only);

/// One failure leads to a ban, so that only one login of an address can be judged at a time: the others wait.
#[test]
fn many_that_log_in_rightly_at_once_are_let_in() {
    // The last waits for all others, on a busy machine for long.
    let more = "[authentication]\nthreads = 4\n[bans]\nfailed_logins_max = 1\n\
                [limits]\nconnect_timeout_ms = 60000\n";
    let (broker, _users) = with_users(2, more);
    let clients = (0..100).map(|_| {
        let mut client = Client::dial(&broker, Version::V5);
        client.send(&Connect::v5(&unique("c")).login("ann", "secret").encode());
        client
    });
    let clients: Vec<_> = clients.collect();
    for mut client in clients {
        let answer = client.recv();
        assert!(
            matches!(answer, Packet::Connack { code: 0, .. }),
            "{answer:?}"
        );
    }
}

/// However slow the answers are: with no limit of failed logins as well.
#[test]
fn logins_of_one_address_leave_room_in_the_queue_for_others() {
    let hook = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[authentication.http]\ntimeout_ms = 60000\nauthenticate_url = \"http://{}/\"\n",
        hook.local_addr().unwrap()
    );
    let broker = Setup::new().shards(2).config(&config).start();
    let ask = |from| {
        let mut client = guesser(&broker, from);
        client.send(&Connect::v5(&unique("g")).login("ann", "x").encode());
        client
    };
    let many: Vec<_> = (0..1_200).map(|_| ask([127, 0, 0, 2])).collect();
    broker.await_counter("authentications", 1_200);
    let busy = broker.counters().get("authentications_busy");
    // One may be with the hook.
    assert!((1_200 - 257..=1_200 - 256).contains(&busy), "{busy}");
    let _waits = ask([127, 0, 0, 3]);
    broker.await_counter("authentications", 1_201);
    assert_eq!(broker.counters().get("authentications_busy"), busy);
    drop(many);
}

/// More than the methods' queue takes of one address, so that many are refused at once, while others come in in
/// the same turns: every socket ends.
fn sockets_of_refused_clients_are_closed(shards: usize) {
    let (broker, _users) = with_users(shards, "[authentication]\nthreads = 1\n");
    let before = broker.descriptors();
    let mut there = std::collections::VecDeque::new();
    for round in 0..250 {
        for _ in 0..8 {
            let mut client = guesser(&broker, [127, 0, 0, 2]);
            client.send_lossy(&Connect::v5(&unique("g")).login("ann", "wrong").encode());
            there.push_back(client);
        }
        while there.len() > 300 || round == 249 && !there.is_empty() {
            there.pop_front();
        }
    }
    eventually("all sockets are closed", || {
        (broker.descriptors() <= before).then_some(())
    });
    assert!(broker.counters().get("authentications_busy") > 0);
    assert_eq!(broker.counters().get("connections"), 0);
}

crate::on_shards!([1, 2] sockets_of_refused_clients_are_closed);

/// A hook that answers the first question when it is told to, and tells by whom it was asked each time.
fn slow_hook() -> (String, mpsc::Receiver<String>, mpsc::Sender<()>) {
    let (asked_to, asked) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let url = hook(move |question| {
        let user_name = question["user_name"].as_str().unwrap().to_owned();
        asked_to.send(user_name.clone()).unwrap();
        if user_name == "first" {
            goes_on.recv().unwrap();
        }
        json!({"result": "allow"}).to_string()
    });
    (url, asked, go_on)
}

fn asks(broker: &Broker, from: [u8; 4], user_name: &str) -> Client {
    let before = broker.counters().get("authentications");
    let mut client = guesser(broker, from);
    client.send(&Connect::v5(&unique("g")).login(user_name, "x").encode());
    broker.await_counter("authentications", before + 1);
    client
}

/// Who waits at one address makes nobody at another wait for more than one of them.
#[test]
fn addresses_take_turns_at_a_slow_hook() {
    let (url, asked, go_on) = slow_hook();
    let config = format!(
        "[limits]\nconnect_timeout_ms = 60000\n[authentication]\nthreads = 1\n[authentication.http]\n\
         timeout_ms = 60000\nauthenticate_url = {url:?}\n"
    );
    let broker = Setup::new().shards(2).config(&config).start();
    let mut clients = vec![asks(&broker, [127, 0, 0, 2], "first")];
    assert_eq!(asked.recv().unwrap(), "first");
    for _ in 0..20 {
        clients.push(asks(&broker, [127, 0, 0, 2], "many"));
    }
    clients.push(asks(&broker, [127, 0, 0, 3], "other"));
    go_on.send(()).unwrap();
    let order: Vec<_> = asked.iter().take(21).collect();
    let turn = order.iter().position(|user_name| user_name == "other");
    assert_eq!(turn, Some(1), "{order:?}");
    for client in &mut clients {
        assert!(matches!(
            client.next_packet(),
            Some(Packet::Connack { code: 0, .. })
        ));
    }
}

/// Whose connect has timed out gets no answer, so the hook is not asked: who waits still is let in instead.
#[test]
fn a_slow_hook_is_not_asked_for_those_that_wait_no_longer() {
    let (url, asked, go_on) = slow_hook();
    let config = format!(
        "[limits]\nconnect_timeout_ms = 1000\n[authentication]\nthreads = 1\n[authentication.http]\n\
         timeout_ms = 60000\nauthenticate_url = {url:?}\n"
    );
    let broker = Setup::new().shards(2).config(&config).start();
    let mut clients = vec![asks(&broker, [127, 0, 0, 2], "first")];
    assert_eq!(asked.recv().unwrap(), "first");
    for _ in 0..20 {
        clients.push(asks(&broker, [127, 0, 0, 2], "gone"));
    }
    for mut client in clients {
        client.drain_to_close();
    }
    go_on.send(()).unwrap();
    let (_, answer) = Connect::v5("c").login("there", "x").attempt(&broker);
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0, .. })),
        "{answer:?}"
    );
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), ["there"]);
    assert_eq!(broker.counters().get("authentications_late"), 20);
}

/// Somebody else's right password, over a connection that is open, counts as a wrong one.
#[test]
fn anothers_password_counts_as_a_guess() {
    let more = "[authentication]\nscram = true\n[bans]\nfailed_logins_max = 3\n";
    let (broker, users) = with_users(1, more);
    passwd(&users.0, &["--scram"], "bob", "other");
    broker.signal(Signal::HUP);
    let line = "the password file is reloaded";
    eventually(line, || broker.log().contains(line).then_some(()));
    let (ann, bob) = (Scram::new("ann", "secret"), Scram::new("bob", "other"));
    for _ in 0..3 {
        let (mut client, server_first) = begin_scram(&broker, &ann);
        client.send(&auth(0x18, METHOD, &ann.last(&server_first).0));
        assert!(matches!(client.recv(), Packet::Connack { code: 0, .. }));
        client.send(&auth(0x19, METHOD, &bob.first()));
        let Packet::Auth { props, .. } = client.recv() else {
            panic!("no AUTH");
        };
        let server_first = crate::login::property(&props, prop::AUTH_DATA);
        client.send(&auth(0x18, METHOD, &bob.last(&server_first).0));
        client.expect_error(&[0x87]);
    }
    let line = "address 127.0.0.1/32 is banned";
    eventually(line, || broker.log().contains(line).then_some(()));
}

/// Bans need nothing of the audit log: not that anything of it is written.
#[test]
fn an_audit_log_that_hangs_switches_no_ban_off() {
    let pipe = Scratch::new("");
    make_pipe(&pipe.0);
    let mut full = std::fs::File::options();
    let mut full = full
        .read(true)
        .write(true)
        .open(&pipe.0)
        .expect("open the pipe");
    rustix::fs::fcntl_setfl(&full, rustix::fs::OFlags::NONBLOCK).expect("O_NONBLOCK");
    while full.write(&[b'x'; 4096]).is_ok() {}
    while full.write(b"x").is_ok() {}
    let audit = format!("/proc/{}/fd/{}", std::process::id(), full.as_raw_fd());
    let more = format!(
        "allow_anonymous = true\naudit_file = {audit:?}\n[bans]\nfailed_logins_max = 3\n\
         flapping_connects_max = 3\n"
    );
    let (broker, _users) = with_users(1, &more);
    for _ in 0..3 {
        Connect::v5("flaps").open(&broker).disconnect();
    }
    eventually("the one that flaps is banned", || {
        (code(&broker, &Connect::v5("flaps")) == 0x8A).then_some(())
    });
    for _ in 0..3 {
        let wrong = Connect::v5(&unique("c")).login("ann", "wrong");
        assert_eq!(code(&broker, &wrong), 0x86);
    }
    let line = "address 127.0.0.1/32 is banned";
    eventually(line, || broker.log().contains(line).then_some(()));
}

/// Who is banned as the user of an exchange is so before a proof is asked for, whatever the CONNECT says.
#[test]
fn a_ban_on_a_user_is_a_ban_in_an_exchange() {
    let bans = Scratch::new("user ann\n");
    let more = format!(
        "[authentication]\nscram = true\n[bans]\nfile = {:?}\n",
        bans.0
    );
    let (broker, _users) = with_users(2, &more);
    let connect = || Connect::v5(&unique("c"));
    let named = connect().login("bob", "x");
    for connect in [connect(), connect().login("ann", "x"), named] {
        let connect = exchange(&Scram::new("ann", "secret"), connect);
        assert_eq!(code(&broker, &connect), 0x8A);
    }
}

/// Who waits to be judged is not told of as one that has said nothing.
#[test]
fn who_is_not_judged_in_time_is_named() {
    let (answer, may_answer) = mpsc::channel::<()>();
    let url = hook(move |_| {
        let _ = may_answer.recv();
        json!({"result": "allow"}).to_string()
    });
    let config = format!(
        "[limits]\nconnect_timeout_ms = 300\n[authentication.http]\nauthenticate_url = {url:?}\n\
         timeout_ms = 60000\n"
    );
    let broker = Setup::new().shards(1).config(&config).start();
    let id = unique("c");
    let mut client = Client::dial(&broker, Version::V5);
    client.send(&Connect::v5(&id).login("ann", "x").encode());
    client.expect_closed();
    let line = format!(
        "client \"{id}\" (user \"ann\") from {} is refused: the authentication methods have not judged it \
         within limits.connect_timeout_ms (300 ms)",
        client.stream().local_addr().unwrap()
    );
    eventually(&line, || broker.log().contains(&line).then_some(()));
    drop(answer);
}

/// By a name that only the proof gives, a banned client is told what a wrong password is told, and counts as one.
#[test]
fn a_ban_on_a_name_that_was_not_said_tells_no_right_password() {
    let secret = "a secret of thirty-two bytes or more";
    let (bans, key) = (
        Scratch::new("user ann\nclient of-carl\n"),
        Scratch::new(secret),
    );
    let url = hook(|asked| {
        let is_right = asked["password"] == "secret";
        let result = if is_right { "allow" } else { "deny" };
        let renamed = if asked["user_name"] == "one" {
            json!("ann")
        } else {
            json!("carl")
        };
        json!({"result": result, "user_name": renamed, "client_id": "of-carl"}).to_string()
    });
    let config = |method: &str| {
        let section = match method {
            "jwt" => format!("[authentication.jwt]\nsecret_file = {:?}\n", key.0),
            _ => format!("[authentication.http]\nauthenticate_url = {url:?}\n"),
        };
        format!(
            "allow_anonymous = true\n[bans]\nfile = {:?}\nfailed_logins_max = 4\n{section}",
            bans.0
        )
    };
    let token = |key: &str| token(&json!({"sub": "ann", "exp": now_s() + 600}), key.as_bytes());
    let (good, forged) = (token(secret), token(&secret.to_uppercase()));
    for (method, user, passwords) in [
        ("http", "one", ["secret", "wrong"]),
        ("http", "two", ["secret", "wrong"]),
        ("jwt", "", [&*good, &*forged]),
    ] {
        let setup = Setup::new().shards(2).config(&config(method));
        let broker = setup.start();
        for password in [passwords, passwords].concat() {
            let mut connect = Connect::v5("").login(user, password);
            // A token names its user itself.
            connect.user_name = connect.user_name.filter(|name| !name.is_empty());
            assert_eq!(code(&broker, &connect), 0x86, "{method} {user} {password}");
        }
        // Of the four each was a failure.
        let line = "address 127.0.0.1/32 is banned";
        eventually(line, || broker.log().contains(line).then_some(()));
        let why = "its client identifier or user is banned (bans.file";
        assert!(broker.log().contains(why), "{}", broker.log());
    }
}

/// A wrong proof is the failure of the user whose it was to be, not of whom the CONNECT names.
#[test]
fn a_wrong_proof_is_recorded_under_the_user_of_its_exchange() {
    let audit = Scratch::new("");
    let more = format!(
        "audit_file = {:?}\n[authentication]\nscram = true\n",
        audit.0
    );
    let (broker, _users) = with_users(1, &more);
    let scram = Scram::new("ann", "wrong");
    for (id, connect) in [
        ("first", Connect::v5("first")),
        ("second", Connect::v5("second").login("bob", "x")),
    ] {
        let (mut client, answer) = exchange(&scram, connect).attempt(&broker);
        let Some(Packet::Auth { props, .. }) = answer else {
            panic!("{answer:?}");
        };
        let server_first = crate::login::property(&props, prop::AUTH_DATA);
        client.send(&auth(0x18, METHOD, &scram.last(&server_first).0));
        assert!(matches!(client.recv(), Packet::Connack { code: 0x86, .. }));
        let recorded = eventually("it is recorded", || {
            let text = std::fs::read_to_string(&audit.0).unwrap();
            let mut lines = text.lines();
            lines.find(|line| line.contains(id)).map(str::to_owned)
        });
        assert!(recorded.contains("\"user_name\":\"ann\""), "{recorded}");
    }
    eventually("it is told", || broker.log().contains("ann").then_some(()));
    assert!(!broker.log().contains("bob"), "{}", broker.log());
}

/// A log that is a pipe would wait for who reads it.
#[test]
fn a_log_is_no_pipe() {
    let pipe = Scratch::new("");
    make_pipe(&pipe.0);
    for key in ["audit_file", "log_file"] {
        let config = format!("{key} = {:?}\n", pipe.0);
        let file = Scratch::new(&config);
        let checked = |path: &str| Setup::new().arg("check-config").arg(path);
        for setup in [Setup::new().config(&config), checked(&file.0)] {
            let outcome = setup.run_to_end();
            assert!(!outcome.status.success(), "{outcome:?}");
            let text = format!("{}: is a pipe; name a plain file", pipe.0);
            let is_named = outcome.log.contains(&text) && outcome.log.contains(key);
            assert!(is_named, "{outcome:?}");
        }
        let null = Scratch::new(&format!("{key} = \"/dev/null\"\n"));
        let outcome = checked(&null.0).run_to_end();
        assert!(outcome.status.success(), "{outcome:?}");
    }
}
