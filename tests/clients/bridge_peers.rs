//! This broker as a bridge to RabbitMQ and NATS, as `perf/brokers` starts them: what they take and how they end on
//! the rest, without a preset and with theirs. Where one is not installed its test says so and does nothing.

use crate::support::{
    Broker, Client, Connect, Version, eventually, eventually_within, free_port, unique,
};
use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const STARTS_WITHIN: Duration = Duration::from_secs(180);

/// A broker of others that has started.
struct Peer {
    /// The broker is the first, and stopped first.
    children: Vec<Child>,
    port: u16,
    place: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in &mut self.children {
            let group = rustix::process::Pid::from_child(child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.place);
    }
}

fn program(paths: &[&str]) -> Option<PathBuf> {
    let found = paths.iter().map(PathBuf::from).find(|path| path.exists());
    if found.is_none() {
        eprintln!("none of {paths:?} is installed: not tested (scripts/test.sh --setup)");
    }
    found
}

impl Peer {
    fn place(name: &str) -> PathBuf {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique(name));
        fs::create_dir_all(&place).expect("make a directory");
        place
    }

    /// Writes down a configuration of the comparison.
    fn configure(place: &Path, port: u16, name: &str, template: &str) -> PathBuf {
        let dir = place.to_str().expect("a plain path");
        let text = template
            .replace("{port}", &port.to_string())
            .replace("{dir}", dir)
            .replace("{listener}", "");
        let file = place.join(name);
        fs::write(&file, text).expect("write its configuration");
        file
    }

    fn spawn(mut command: Command) -> Child {
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().expect("start it")
    }

    fn nats() -> Option<Peer> {
        let program = program(&["/usr/sbin/nats-server", "/usr/bin/nats-server"])?;
        let (place, port) = (Self::place("nats"), free_port());
        let template = include_str!("../../perf/brokers/nats/default/nats.conf");
        let mut command = Command::new(program);
        let config = Self::configure(&place, port, "nats.conf", template);
        command.arg("--config").arg(config);
        let children = vec![Self::spawn(command)];
        Some(Peer {
            children,
            port,
            place,
        })
    }

    /// By the script under Debian's, which would become another user. With a name service of its own, which would
    /// outlive it else.
    fn rabbitmq() -> Option<Peer> {
        let program = program(&["/usr/lib/rabbitmq/bin/rabbitmq-server"])?;
        let (place, port) = (Self::place("rabbitmq"), free_port());
        let (names, between) = (free_port().to_string(), free_port().to_string());
        let template = include_str!("../../perf/brokers/rabbitmq/default/rabbitmq.conf");
        let config = Self::configure(&place, port, "rabbitmq.conf", template);
        let plugins = include_str!("../../perf/brokers/rabbitmq/default/enabled_plugins");
        let plugins = Self::configure(&place, port, "enabled_plugins", plugins);
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &names]);
        let epmd = Self::spawn(epmd);
        eventually("its name service listens", || {
            TcpStream::connect(format!("127.0.0.1:{names}")).ok()
        });
        let mut command = Command::new(program);
        command
            .env("HOME", &place)
            .env("ERL_EPMD_PORT", &names)
            .env("RABBITMQ_NODENAME", format!("test{port}@localhost"))
            .env("RABBITMQ_DIST_PORT", between)
            .env("RABBITMQ_CONFIG_FILE", config)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_MNESIA_BASE", &place)
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none");
        let children = vec![Self::spawn(command), epmd];
        Some(Peer {
            children,
            port,
            place,
        })
    }

    /// It has started, which takes an Erlang of one thread long beside other tests.
    fn starts(&mut self) {
        let (stopped, port) = (&mut self.children[0], self.port);
        eventually_within(STARTS_WITHIN, "it listens", || {
            let status = stopped.try_wait().expect("ask for its status");
            assert!(status.is_none(), "it has ended: {status:?}");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
    }

    fn client(&self) -> Client {
        eventually("it lets clients in", || {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            let client = Client::over(stream, Version::V4);
            let (client, answer) = Connect::v4(&unique("c")).attempt_over(client);
            answer.map(|_| client)
        })
    }

    /// A bridge to it, which is up, with these keys.
    fn bridged(&self, name: &str, keys: &str) -> Broker {
        let text = format!(
            "[limits]\nmax_packet_bytes = 4194304\n[[bridge]]\nname = \"{name}\"\nclient_id = {:?}\n\
             addresses = [\"mqtt://127.0.0.1:{}\"]\nreconnect_ms_min = 10\nreconnect_ms_max = 50\n{keys}\n\
             topics = [{{ filter = \"out/{name}/#\" }}, {{ filter = \"in/{name}/#\", direction = \"in\" }}]\n",
            unique("b"),
            self.port
        );
        let broker = Broker::with_config(1, &text);
        eventually("the bridge is up", || {
            broker
                .log()
                .contains(&format!("bridge {name} is up"))
                .then_some(())
        });
        broker
    }
}

/// Every QoS that it takes comes in, and every QoS goes out.
fn passes(peer: &Peer, broker: &Broker, name: &str) {
    let mut here = Connect::v5(&unique("c")).open(broker);
    let mut there = peer.client();
    there.subscribe(&format!("out/{name}/#"), 1);
    here.subscribe(&format!("in/{name}/#"), 2);
    for round in 0..3 {
        for qos in 0..3 {
            let (topic, text) = (format!("out/{name}/{qos}"), format!("{round} {qos}"));
            here.publish(&topic, qos, &text);
            loop {
                let publish = there.accept();
                if publish.topic == topic.as_bytes() && publish.payload_str() == text {
                    break;
                }
                // A bridge whose QoS is lowered may send what it is not sure of again, and nothing else.
                assert!(publish.topic.starts_with(b"out/"), "{publish:?}");
            }
        }
        for qos in 0..2 {
            let (topic, text) = (format!("in/{name}/{qos}"), format!("{round} {qos}"));
            there.publish(&topic, qos, &text);
            here.expect(&topic, &text);
        }
    }
}

fn times(broker: &Broker, text: &str) -> usize {
    broker.log().matches(text).count()
}

/// With a preset nothing is sent on which the line would end, and what is not sent is counted.
fn keeps_to_preset(peer: &Peer, preset: &str, odd: &[&str]) {
    let broker = peer.bridged("p", &format!("preset = {preset:?}"));
    passes(peer, &broker, "p");
    let mut here = Connect::v5(&unique("c")).open(&broker);
    for topic in odd {
        here.publish(topic, 1, "x");
    }
    passes(peer, &broker, "p");
    let counters = broker.counters();
    assert_eq!(counters.get("dropped_bridge_topic"), odd.len() as u64);
    assert_eq!(times(&broker, "is down"), 0, "{}", broker.log());
    assert_eq!(times(&broker, "QoS 1 at most"), 0);
    broker.stop();
}

/// Each of them ends the line of a bridge without the preset.
fn ends_without_preset(peer: &Peer, odd: &[&str]) {
    for topic in odd {
        let topic = topic.replace("out/p", "out/e");
        let broker = peer.bridged("e", "persistent = false");
        let mut here = Connect::v5(&unique("c")).open(&broker);
        here.publish(&topic, 0, "x");
        eventually(&format!("{topic} ends the line"), || {
            (times(&broker, "is down") > 0).then_some(())
        });
        broker.stop();
    }
}

#[test]
fn rabbitmq_answers_qos_2_as_qos_1() {
    let Some(mut peer) = Peer::rabbitmq() else {
        return;
    };
    peer.starts();
    drop(peer.client());
    let broker = peer.bridged("b", "");
    passes(&peer, &broker, "b");
    assert_eq!(times(&broker, "is down"), 0, "{}", broker.log());
    assert!(times(&broker, "QoS 1 at most") <= 1);
    broker.stop();
    keeps_to_preset(&peer, "rabbitmq", &[]);
}

#[test]
fn nats_closes_on_qos_2() {
    let Some(mut peer) = Peer::nats() else { return };
    peer.starts();
    drop(peer.client());
    let broker = peer.bridged("b", "");
    passes(&peer, &broker, "b");
    assert!(times(&broker, "QoS 1 at most") <= 1);
    // An older version ends them before or after it has granted what was asked for.
    let downs = times(&broker, "it closes the connection");
    assert!(downs == 0 || downs == 5, "{downs}: {}", broker.log());
    broker.stop();
    let odd = ["out/p/a b", "out/p/a.b"];
    keeps_to_preset(&peer, "nats", &odd);
    // What takes QoS 2 takes dots too.
    let ends = if downs == 0 { &odd[..1] } else { &odd[..] };
    ends_without_preset(&peer, ends);
}
