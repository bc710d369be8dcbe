//! Presets for services that are reached over the network only: stand-ins enforce what these document, and close as
//! they do. A preset that broke a rule would fail here; that the stand-ins see it is shown by a bridge without one.

use crate::bridges::await_line;
use crate::login::Scratch;
use crate::support::{Broker, Certificates, Connect, Setup, eventually, unique};
use ringmq::engine::codec::connect::{Connack, Connect as Greeting};
use ringmq::engine::codec::frame::{Frame, Split, split};
use ringmq::engine::codec::publish::Publish;
use ringmq::engine::codec::{Packet, PacketType, Version};
use ringmq::engine::message::Qos;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a service documents, as the README's table has it.
#[derive(Clone)]
struct Documented {
    versions: &'static [Version],
    keep_alive: RangeInclusive<u16>,
    qos_max: Qos,
    takes_retained: bool,
    payload_max: usize,
    filters_max: usize,
    slashes_max: usize,
    user_begins: &'static str,
    /// Whether the password is a token that ends.
    has_tokens: bool,
    /// What topics of a client begin with.
    own_topics: &'static str,
}

const ANYTHING: Documented = Documented {
    versions: &[Version::V5, Version::V3_1_1],
    keep_alive: 0..=65_535,
    qos_max: Qos::ExactlyOnce,
    takes_retained: true,
    payload_max: usize::MAX,
    filters_max: usize::MAX,
    slashes_max: usize::MAX,
    user_begins: "",
    has_tokens: false,
    own_topics: "",
};

const AWS: Documented = Documented {
    keep_alive: 30..=1_200,
    qos_max: Qos::AtLeastOnce,
    payload_max: 128 * 1024,
    filters_max: 8,
    slashes_max: 7,
    ..ANYTHING
};

const HUB: Documented = Documented {
    versions: &[Version::V3_1_1],
    keep_alive: 1..=1_177,
    qos_max: Qos::AtLeastOnce,
    takes_retained: false,
    payload_max: 256 * 1024,
    user_begins: "localhost/site7/?api-version=",
    own_topics: "devices/site7/messages/",
    ..ANYTHING
};

const GRID: Documented = Documented {
    keep_alive: 1..=1_160,
    qos_max: Qos::AtLeastOnce,
    takes_retained: false,
    payload_max: 512 * 1024,
    user_begins: "site7-auth",
    ..ANYTHING
};

const WITH_USER: Documented = Documented {
    payload_max: 1024 * 1024,
    user_begins: "u",
    ..ANYTHING
};

/// What a service has seen.
#[derive(Default)]
struct Seen {
    /// Rules that were broken, upon each of which it has closed.
    broken: Vec<String>,
    /// Topics, QoS and RETAIN of what was published.
    published: Vec<(String, u8, bool)>,
    filters: usize,
    greetings: usize,
}

struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Service {
    fn start(certificates: &Certificates, rules: &Documented) -> Self {
        let chain = CertificateDer::pem_file_iter(certificates.path("server.pem"));
        let chain: Result<Vec<_>, _> = chain.expect("read a chain").collect();
        let key = PrivateKeyDer::from_pem_file(certificates.path("server.key"));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("a chain"), key.expect("a key"))
            .expect("a server's settings");
        let (tls, rules) = (Arc::new(tls), rules.clone());
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, rules, seen) = (Arc::clone(&tls), rules.clone(), Arc::clone(&shared));
                let ends = Mutex::default();
                let caller = Caller { rules, ends, seen };
                std::thread::spawn(move || caller.serve(stream, tls));
            }
        });
        Service { address, seen }
    }

    fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().expect("a lock"))
    }

    /// A bridge to it by its name.
    fn bridge(&self, certificates: &Certificates, keys: &str) -> String {
        format!(
            "[[bridge]]\nname = \"b\"\naddresses = [\"mqtts://localhost:{}\"]\n\
             reconnect_ms_min = 10\nreconnect_ms_max = 50\ntls = {{ ca = {:?} }}\n{keys}\n",
            self.address.port(),
            certificates.path("ca.pem")
        )
    }
}

/// One connection to it.
struct Caller {
    rules: Documented,
    /// When its token ends.
    ends: Mutex<Option<Instant>>,
    seen: Arc<Mutex<Seen>>,
}

impl Caller {
    fn serve(&self, stream: TcpStream, tls: Arc<ServerConfig>) {
        let Ok(connection) = ServerConnection::new(tls) else {
            return;
        };
        let mut stream = StreamOwned::new(connection, stream);
        let (mut bytes, mut version) = (Vec::new(), None);
        let mut chunk = [0; 64 * 1024];
        loop {
            let ends = *self.ends.lock().expect("a lock");
            let left = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
            let patience = left.map(|left| left.max(Duration::from_millis(1)));
            let _ = stream.get_ref().set_read_timeout(patience);
            if left.is_some_and(|left| left.is_zero()) {
                let broken = "a token that ended".to_owned();
                return self.seen.lock().expect("a lock").broken.push(broken);
            }
            match stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
                _ => return,
            }
            while let Ok(Split::Whole(frame, used)) = split(&bytes, usize::MAX) {
                match self.answer(&mut version, frame) {
                    Ok(answer) => drop(stream.write_all(&answer)),
                    Err(broken) => {
                        return self.seen.lock().expect("a lock").broken.push(broken);
                    }
                }
                bytes.drain(..used);
            }
        }
    }

    fn answer(&self, version: &mut Option<Version>, frame: Frame<'_>) -> Result<Vec<u8>, String> {
        let Some(version) = *version else {
            let greeting = Greeting::decode(frame.body).map_err(|_| "no CONNECT".to_owned())?;
            *version = Some(greeting.version);
            return self.greet(&greeting);
        };
        match Packet::decode(frame, version).map_err(|error| error.to_string())? {
            Packet::Publish(publish) => self.publish(&publish),
            Packet::Subscribe(subscribe) => {
                let count = subscribe.requests.len();
                if count > self.rules.filters_max {
                    return Err(format!("{count} filters in a SUBSCRIBE"));
                }
                let highest = subscribe.requests.iter().map(|it| it.options.qos).max();
                if highest > Some(self.rules.qos_max) {
                    return Err("a filter of QoS 2".to_owned());
                }
                self.seen.lock().expect("a lock").filters += count;
                let [high, low] = subscribe.packet_id.to_be_bytes();
                let properties: &[u8] = if version.is_v5() { &[0] } else { &[] };
                let codes = vec![0; count];
                let length = (2 + properties.len() + count) as u8;
                Ok([&[0x90, length, high, low], properties, &codes].concat())
            }
            Packet::Pingreq => Ok(vec![0xD0, 0]),
            _ => Ok(Vec::new()),
        }
    }

    fn greet(&self, greeting: &Greeting<'_>) -> Result<Vec<u8>, String> {
        let rules = &self.rules;
        if greeting.is_bridge || !rules.versions.contains(&greeting.version) {
            return Err("a protocol that it does not speak".to_owned());
        }
        if !rules.keep_alive.contains(&greeting.keep_alive_seconds) {
            return Err(format!("a keep alive of {}", greeting.keep_alive_seconds));
        }
        let user = greeting.user_name.unwrap_or_default();
        if !user.starts_with(rules.user_begins) {
            return Err(format!("user {user:?}"));
        }
        self.seen.lock().expect("a lock").greetings += 1;
        if rules.has_tokens {
            self.check_token(greeting.password.unwrap_or_default())?;
        }
        let has_will = greeting.will.as_ref();
        if !rules.takes_retained && has_will.is_some_and(|will| will.retain) {
            return Err("a retained will".to_owned());
        }
        let mut answer = Vec::new();
        let connack = Connack {
            receive_maximum: 100,
            ..Connack::default()
        };
        connack.encode(greeting.version, &mut answer);
        Ok(answer)
    }

    /// A token counts for its device, until its end: then the service closes.
    fn check_token(&self, token: &[u8]) -> Result<(), String> {
        let token = String::from_utf8_lossy(token);
        let begin = "SharedAccessSignature sr=localhost%2Fdevices%2Fsite7&sig=";
        let end = token
            .strip_prefix(begin)
            .and_then(|rest| rest.split_once("&se="));
        let end = end.and_then(|(_, end)| end.parse::<u64>().ok());
        let end = end.ok_or_else(|| format!("no token: {token}"))?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a time");
        match Duration::from_secs(end).checked_sub(now) {
            None => Err("a token that has ended".to_owned()),
            Some(left) => {
                *self.ends.lock().expect("a lock") = Some(Instant::now() + left);
                Ok(())
            }
        }
    }

    fn publish(&self, publish: &Publish<'_>) -> Result<Vec<u8>, String> {
        let rules = &self.rules;
        let slashes = publish.topic.matches('/').count();
        for (is_broken, rule) in [
            (publish.qos > rules.qos_max, "a QoS that it does not have"),
            (
                publish.retain && !rules.takes_retained,
                "a retained message",
            ),
            (
                publish.payload.len() > rules.payload_max,
                "too large a payload",
            ),
            (slashes > rules.slashes_max, "too deep a topic"),
            (
                !publish.topic.starts_with(rules.own_topics),
                "a topic that is not its own",
            ),
        ] {
            if is_broken {
                return Err(rule.to_owned());
            }
        }
        let mut seen = self.seen.lock().expect("a lock");
        let topic = publish.topic.to_owned();
        seen.published
            .push((topic, publish.qos.bits(), publish.retain));
        let [high, low] = publish.packet_id.to_be_bytes();
        let kind = match publish.qos {
            Qos::AtMostOnce => return Ok(Vec::new()),
            Qos::AtLeastOnce => PacketType::Puback,
            Qos::ExactlyOnce => PacketType::Pubrec,
        };
        Ok(vec![kind.first_byte(), 2, high, low])
    }
}

/// What each service would close on, and one that it takes last.
fn publish_everything(broker: &Broker) {
    let mut client = Connect::v5(&unique("c")).open(broker);
    for qos in 0..3 {
        client.publish("out/plain", qos, "x");
        client.retain("out/kept", qos, "x");
    }
    client.publish("out/large", 1, "x".repeat(600 * 1024));
    client.publish(&format!("out/{}", "d/".repeat(12)), 1, "x");
    client.publish("out/end", 1, "x");
}

/// A bridge by a preset breaks none of the service's rules, whatever is published.
fn keeps_to(rules: &Documented, keys: &str, prefix: &str) -> Vec<(String, u8, bool)> {
    let certificates = Certificates::new();
    let service = Service::start(&certificates, rules);
    let filters = (0..11).map(|number| {
        format!("{{ filter = \"devicebound/{number}/#\", direction = \"in\", remote_prefix = {prefix:?} }}, ")
    });
    let text = service.bridge(
        &certificates,
        &format!(
            "{keys}\ntopics = [{{ filter = \"#\", local_prefix = \"out/\", remote_prefix = {:?} }}, {}]",
            format!("{prefix}events/"),
            filters.collect::<String>()
        ),
    );
    let broker = Setup::new().config(&text).start();
    await_line(&broker, "bridge b is up");
    publish_everything(&broker);
    eventually("the last one has come", || {
        service.seen(|seen| {
            assert_eq!(seen.broken, Vec::<String>::new());
            let is_last = |(topic, ..): &(String, u8, bool)| topic.ends_with("/end");
            seen.published.iter().any(is_last).then_some(())
        })
    });
    assert!(service.seen(|seen| seen.filters) >= 11);
    service.seen(|seen| seen.published.clone())
}

#[test]
fn aws_iot_core_gets_what_it_takes() {
    let published = keeps_to(&AWS, "preset = \"aws-iot-core\"", "");
    let kept = published.iter().filter(|(_, _, retain)| *retain).count();
    assert_eq!(kept, 3, "{published:?}");
    assert!(
        published
            .iter()
            .all(|(topic, qos, _)| *qos < 2 && !topic.contains("large"))
    );
}

#[test]
fn azure_iot_hub_gets_what_it_takes() {
    let keys = "preset = \"azure-iot-hub\"\nclient_id = \"site7\"\nremote_state_topic = \
                \"devices/site7/messages/events/state\"";
    let published = keeps_to(&HUB, keys, "devices/site7/messages/");
    assert!(
        published.iter().all(|(_, qos, retain)| *qos < 2 && !retain),
        "{published:?}"
    );
}

/// Each line has a token of its own, and is gone before that ends.
#[test]
fn azure_iot_hub_gets_tokens_that_are_renewed() {
    let key = Scratch::new("a2V5IG9mIHRoZSBkZXZpY2U=\n");
    let keys = format!(
        "preset = \"azure-iot-hub\"\nclient_id = \"site7\"\nsas_key_file = {:?}\nsas_seconds = 4\ntopics = []",
        key.0
    );
    let (certificates, rules) = (
        Certificates::new(),
        Documented {
            has_tokens: true,
            ..HUB
        },
    );
    let service = Service::start(&certificates, &rules);
    let broker = Setup::new()
        .config(&service.bridge(&certificates, &keys))
        .start();
    await_line(
        &broker,
        "its token is renewed before it ends (bridge.sas_seconds)",
    );
    eventually("it is there with the next", || {
        service.seen(|seen| {
            assert_eq!(seen.broken, Vec::<String>::new());
            (seen.greetings >= 2).then_some(())
        })
    });
}

#[test]
fn azure_event_grid_gets_what_it_takes() {
    let keys = "preset = \"azure-event-grid\"\nclient_id = \"site7\"\nuser = \"site7-auth\"";
    let published = keeps_to(&GRID, keys, "");
    assert!(
        published.iter().all(|(_, qos, retain)| *qos < 2 && !retain),
        "{published:?}"
    );
}

#[test]
fn hivemq_cloud_and_emqx_cloud_get_all() {
    for preset in ["hivemq-cloud", "emqx-cloud"] {
        let published = keeps_to(
            &WITH_USER,
            &format!("preset = {preset:?}\nuser = \"u\""),
            "",
        );
        assert!(
            published.iter().any(|(_, qos, _)| *qos == 2),
            "{published:?}"
        );
        assert!(published.iter().any(|(topic, ..)| topic.contains("large")));
    }
}

/// Without its preset a service closes, and that is seen.
#[test]
fn the_stand_ins_enforce_their_rules() {
    for (rules, keys, wanted) in [
        (&AWS, "", "a QoS that it does not have"),
        (
            &HUB,
            "protocol = \"3.1.1\"",
            "a protocol that it does not speak",
        ),
        (
            &GRID,
            "user = \"site7-auth\"",
            "a QoS that it does not have",
        ),
        (&WITH_USER, "", "user \"\""),
    ] {
        let certificates = Certificates::new();
        let service = Service::start(&certificates, rules);
        let keys = format!("{keys}\ntopics = [{{ filter = \"out/#\" }}]");
        let text = service.bridge(&certificates, &keys);
        let broker = Setup::new().config(&text).start();
        Connect::v5(&unique("c"))
            .open(&broker)
            .publish("out/x", 2, "x");
        eventually(wanted, || {
            let is_seen = |seen: &Seen| seen.broken.iter().any(|it| it == wanted);
            service.seen(is_seen).then_some(())
        });
    }
}

#[test]
fn what_a_service_refuses_is_refused_at_the_start_by_its_key() {
    for (keys, wanted) in [
        (
            "preset = \"aws-iot-core\"\naddresses = [\"mqtt://a\"]",
            "takes TLS only",
        ),
        (
            "preset = \"aws-iot-core\"\nkeep_alive_seconds = 10",
            "takes 30 to 1200",
        ),
        ("preset = \"azure-iot-hub\"", "say which this one is"),
        (
            "preset = \"azure-iot-hub\"\nclient_id = \"d\"\nprotocol = \"5.0\"",
            "does not speak it",
        ),
        (
            "preset = \"azure-iot-hub\"\nclient_id = \"d\"",
            "has no topic \"t\"",
        ),
        ("preset = \"hivemq-cloud\"", "lets nobody in without one"),
    ] {
        let addresses = match keys.contains("addresses") {
            true => "",
            false => "addresses = [\"mqtts://a\"]\n",
        };
        let text = format!(
            "[[bridge]]\nname = \"b\"\n{addresses}{keys}\ntopics = [{{ filter = \"t\" }}]\n"
        );
        let ended = Setup::new().config(&text).run_to_end();
        assert!(ended.log.contains(wanted), "{keys}: {}", ended.log);
    }
}
