//! Bridges: from Mosquitto's lines to `[[bridge]]` tables.
//!
//! Invariant: a bridge whose lines say that its line is protected in a way that cannot be said here is left
//! out.

use super::draft::{BridgeDraft, Draft};
use super::lines::Line;
use super::value::{is_false, is_true, number};
use crate::control::visible::spelled_out;
use toml::{Table, Value};

/// The port where a line names none.
const PORT: &str = "1883";
const WAIT_SECONDS_MAX: i64 = 3_600;
/// Most that `bridge.idle_seconds` may be.
const IDLE_SECONDS_MAX: i64 = 86_400;

/// Keys that say nothing that is not so anyway, or has no counterpart, and what to do.
const WITHOUT: [(&str, &str); 7] = [
    (
        "bridge_attempt_unsubscribe",
        "nothing to do: what is no rule any more is given up by itself",
    ),
    (
        "bridge_bind_address",
        "no counterpart: let the system's routes choose the address",
    ),
    (
        "bridge_max_packet_size",
        "no counterpart: the other broker's own bound counts (5.0)",
    ),
    (
        "threshold",
        "no counterpart: with start = \"lazy\" a bridge comes for the first message that waits",
    ),
    (
        "local_clientid",
        "nothing to do: a bridge is no client here",
    ),
    (
        "local_password",
        "nothing to do: a bridge does not log in here, local_user alone says which rules of acl_file count",
    ),
    (
        "notifications_local_only",
        "no counterpart: leave remote_state_topic out to tell the other broker nothing",
    ),
];

/// What the lines of a bridge say.
#[derive(Debug, Default)]
struct Heard {
    draft: BridgeDraft,
    /// It speaks TLS.
    is_tls: bool,
    /// Nothing that is retained goes out as such: the line that says so.
    drops_retain: Option<Line>,
    /// It forgets its session there, ...
    is_clean: bool,
    /// ... and here, if that is said.
    cleans_here: Option<Line>,
    /// It comes when something waits.
    lazy: Option<Line>,
    /// After which time it goes.
    idle_timeout: Option<Line>,
    /// Why it is left out.
    left_out: Option<&'static str>,
}

/// Takes a bridge: `lines` are its own, the first names it.
pub(super) fn take(lines: &[Line], draft: &mut Draft) {
    let Some((head, rest)) = lines
        .split_first()
        .filter(|(head, _)| head.key == "connection")
    else {
        for line in lines {
            draft.note(line, "left out: it stands before any `connection`");
        }
        return;
    };
    let mut heard = Heard::default();
    heard.say("name", name(head, draft));
    for line in rest {
        let is_taken = heard.take(line, draft) || heard.take_line(line, draft);
        if !is_taken && !is_false(line) {
            let mut known = WITHOUT.iter();
            let text = known
                .find(|(key, _)| *key == line.key)
                .map(|(_, text)| *text);
            draft.note(line, text.unwrap_or("left out: it has no counterpart"));
        }
    }
    heard.end(draft);
    if heard.draft.topics.is_empty() || !heard.draft.keys.contains_key("addresses") {
        let text = "it needs an address and a topic";
        heard.left_out = heard.left_out.or(Some(text));
    }
    match heard.left_out {
        Some(why) => draft.note(head, format!("the bridge is left out: {why}")),
        None => {
            heard.name_itself(head, draft);
            heard.tell_rules(head, draft);
            draft.bridge(heard.draft);
        }
    }
}

/// Its name, of letters that we take.
fn name(head: &Line, draft: &mut Draft) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = head.value.chars().take(64).collect();
    let name = name.replace(|c| !fits(c), "-");
    if name != head.value {
        draft.note(head, format!("it is called {name} here"));
    }
    name
}

impl Heard {
    /// What it is called here.
    fn name(&self) -> &str {
        let name = self.draft.keys.get("name").and_then(Value::as_str);
        name.unwrap_or_default()
    }

    /// Its session there goes on only by the identifier that it has.
    fn name_itself(&mut self, head: &Line, draft: &mut Draft) {
        if self.draft.keys.contains_key("client_id") {
            return;
        }
        let host = rustix::system::uname();
        let id = format!("{}.{}", host.nodename().to_string_lossy(), head.value);
        draft.note(
            head,
            format!(
                "client_id = \"{id}\" is what Mosquitto makes of this machine's name: where it has run \
                 elsewhere, say that machine's, else its session at the other broker stays there and queues"
            ),
        );
        self.say("client_id", id);
    }

    fn tell_rules(&self, head: &Line, draft: &mut Draft) {
        if !draft.says("acl_file") {
            return;
        }
        let user = self.draft.keys.get("local_user").and_then(Value::as_str);
        let user = user.map_or_else(|| format!("bridge-{}", self.name()), str::to_owned);
        draft.note(
            head,
            format!(
                "acl_file has to let the user {user} read what goes out and write what comes in: \
                 Mosquitto asks it about no bridge"
            ),
        );
    }

    fn say(&mut self, key: &str, value: impl Into<Value>) {
        self.draft.keys.insert(key.to_owned(), value.into());
    }

    /// Lines that say what it is.
    fn take(&mut self, line: &Line, draft: &mut Draft) -> bool {
        match line.key.as_str() {
            "address" | "addresses" => {
                let all = line.value.split_whitespace().map(address);
                self.say("addresses", all.map(Value::from).collect::<Vec<_>>());
            }
            "topic" => self.take_topic(line, draft),
            "remote_clientid" | "clientid" => self.say("client_id", line.value.as_str()),
            "remote_username" | "username" => self.say("user", line.value.as_str()),
            "local_username" => self.say("local_user", line.value.as_str()),
            "remote_password" | "password" => {
                let file = format!("{}.password", self.name());
                draft.note(
                    line,
                    format!(
                        "write it into a file {file} beside the configuration, for the broker alone"
                    ),
                );
                self.say("password_file", file);
            }
            "notification_topic" => {
                let name = self.name();
                draft.note(
                    line,
                    format!(
                        "there it goes on as remote_state_topic; Mosquitto publishes it here, too: here that \
                         is $SYS/broker/connection/{name}/state. Delete what is retained here by the old \
                         topic, if it was taken over: mosquitto_pub -r -n -t '{}'",
                        spelled_out(&line.value)
                    ),
                );
                self.say("remote_state_topic", line.value.as_str());
            }
            key if is_of_tls(key) && !is_false(line) => self.take_tls(line, draft),
            _ => return false,
        }
        true
    }

    /// Lines that say how the line is protected; each says that it is.
    fn take_tls(&mut self, line: &Line, draft: &mut Draft) {
        self.is_tls = true;
        let mut say = |key: &str, value: Value| drop(self.draft.tls.insert(key.to_owned(), value));
        let path = || Value::from(line.value.as_str());
        match line.key.as_str() {
            "bridge_cafile" => say("ca", path()),
            "bridge_certfile" => say("certificate", path()),
            "bridge_keyfile" => say("key", path()),
            "bridge_alpn" => say("alpn", vec![Value::from(line.value.as_str())].into()),
            "bridge_tls_use_os_certs" => {}
            "bridge_insecure" => draft.note(
                line,
                "not taken: the other broker's certificate has to bear its name; say which with \
                 server_name in the bridge's tls, if the address is another",
            ),
            "bridge_tls_version" | "bridge_ciphers" => draft.note(
                line,
                "no counterpart: TLS 1.3 and 1.2 are spoken, with what is safe of each",
            ),
            "bridge_capath" => {
                self.left_out = Some(
                    "a folder of authorities cannot be named: put them into one file, and say \
                     bridge_cafile",
                );
            }
            _ => {
                self.left_out = Some(
                    "its line is protected by what has no counterpart (PSK, OCSP): let the other broker \
                     take certificates, or keep a Mosquitto for it",
                );
            }
        }
    }

    /// All lines are heard.
    fn end(&mut self, draft: &mut Draft) {
        self.end_start(draft);
        self.end_retain(draft);
        let is_clean = self.is_clean;
        if let Some(line) = self
            .cleans_here
            .as_ref()
            .filter(|it| is_true(it) != is_clean)
        {
            let says = if is_clean { "true" } else { "false" };
            draft.note(
                line,
                format!(
                    "left out: persistent counts for both sides, and cleansession {says} says it: {}",
                    match is_clean {
                        true => "nothing waits here while the line is down, as it did; say persistent = true \
                                 if it is to, and the other broker keeps a session, too",
                        false => "what is published while the line is down waits here",
                    }
                ),
            );
        }
        if !self.is_tls {
            return;
        }
        if let Some(Value::Array(addresses)) = self.draft.keys.get_mut("addresses") {
            for address in addresses {
                if let Some(rest) = address.as_str().and_then(|it| it.strip_prefix("mqtt://")) {
                    *address = format!("mqtts://{rest}").into();
                }
            }
        }
    }

    /// Lines that say how the line is kept.
    fn take_line(&mut self, line: &Line, draft: &mut Draft) -> bool {
        match line.key.as_str() {
            "cleansession" => {
                self.is_clean = is_true(line);
                self.say("persistent", !self.is_clean);
            }
            "local_cleansession" => self.cleans_here = Some(line.clone()),
            "idle_timeout" => self.idle_timeout = Some(line.clone()),
            "keepalive_interval" => {
                if let Some(seconds) = number(line, 0..=65_535, draft) {
                    self.say("keep_alive_seconds", seconds);
                }
            }
            "restart_timeout" => {
                let mut waits = line.value.split_whitespace().filter_map(|word| word.parse().ok());
                let ms = |seconds: i64| seconds.clamp(1, WAIT_SECONDS_MAX) * 1_000;
                if let Some(first) = waits.next() {
                    self.say("reconnect_ms_min", ms(first));
                    self.say("reconnect_ms_max", ms(waits.next().unwrap_or(first).max(first)));
                }
            }
            "bridge_protocol_version" => match line.value.as_str() {
                "mqttv50" => self.say("protocol", "5.0"),
                "mqttv311" => self.say("protocol", "3.1.1"),
                _ => draft.note(line, "left out: bridges speak 5.0 or 3.1.1"),
            },
            "round_robin" if is_true(line) => self.say("address_order", "round_robin"),
            "bridge_outgoing_retain" => {
                self.drops_retain = is_false(line).then(|| line.clone());
            }
            "start_type" if line.value == "automatic" => self.lazy = None,
            "start_type" if line.value == "lazy" => self.lazy = Some(line.clone()),
            "start_type" => draft.note(line, "no counterpart: bridges are there always or when needed"),
            // The bit that it sets is tried first anyway.
            "try_private" if is_true(line) => {}
            "notifications" if is_true(line) => draft.note(
                line,
                "the other broker is told with remote_state_topic; here /metrics and the log tell of bridges",
            ),
            _ => return false,
        }
        true
    }

    /// `topic PATTERN [DIRECTION [QOS [LOCAL REMOTE]]]`
    fn take_topic(&mut self, line: &Line, draft: &mut Draft) {
        let words: Vec<_> = line.value.split_whitespace().collect();
        let word = |at: usize| {
            words
                .get(at)
                .copied()
                .filter(|word| *word != "\"\"")
                .unwrap_or("")
        };
        if word(0).is_empty() && (word(3).is_empty() || word(4).is_empty()) {
            draft.note(line, "left out: it names no topic");
            return;
        }
        let direction = match word(1) {
            "" => "out",
            direction => direction,
        };
        let mut rule = Table::new();
        let mut say = |key: &str, value: Value| rule.insert(key.to_owned(), value);
        say("filter", word(0).into());
        say("direction", direction.into());
        say(
            "qos_max",
            word(2).parse::<i64>().unwrap_or(0).clamp(0, 2).into(),
        );
        for (key, prefix) in [("local_prefix", word(3)), ("remote_prefix", word(4))] {
            if !prefix.is_empty() {
                say(key, prefix.into());
            }
        }
        self.draft.topics.push(rule);
    }

    /// Whether it comes when something waits, and when it goes.
    fn end_start(&mut self, draft: &mut Draft) {
        let idle = self.idle_timeout.take();
        let Some(lazy) = self.lazy.take() else {
            if let Some(line) = &idle {
                draft.note(line, "nothing to do: it counts with start_type lazy");
            }
            return;
        };
        if self.is_clean {
            let text = "left out: start = \"lazy\" needs persistent = true (cleansession false), else \
                        nothing waits for it: it is there always";
            draft.note(&lazy, text);
            idle.iter()
                .for_each(|line| draft.note(line, "left out, as start_type lazy is"));
            return;
        }
        self.say("start", "lazy");
        if let Some(seconds) = idle.and_then(|line| number(&line, 1..=IDLE_SECONDS_MAX, draft)) {
            self.say("idle_seconds", seconds);
        }
    }

    /// What goes out is not retained there; what comes in by the same rule is as it was.
    fn end_retain(&mut self, draft: &mut Draft) {
        let Some(line) = self.drops_retain.take() else {
            return;
        };
        let mut rules = Vec::new();
        let mut is_split = false;
        for mut rule in std::mem::take(&mut self.draft.topics) {
            match rule.get("direction").and_then(Value::as_str) {
                Some("out") => drop(rule.insert("retain".to_owned(), "drop".into())),
                Some("both") => {
                    is_split = true;
                    let mut out = rule.clone();
                    out.insert("direction".to_owned(), "out".into());
                    out.insert("retain".to_owned(), "drop".into());
                    rules.push(out);
                    rule.insert("direction".to_owned(), "in".into());
                }
                _ => {}
            }
            rules.push(rule);
        }
        self.draft.topics = rules;
        if is_split {
            draft.note(
                &line,
                "retain = \"drop\" counts for what comes in, too: topics of both directions stand there \
                 twice, as out with it and as in without",
            );
        }
    }
}

/// Whether a key concerns TLS to the other broker.
fn is_of_tls(key: &str) -> bool {
    const KEYS: [&str; 11] = [
        "bridge_alpn",
        "bridge_cafile",
        "bridge_capath",
        "bridge_certfile",
        "bridge_ciphers",
        "bridge_identity",
        "bridge_insecure",
        "bridge_keyfile",
        "bridge_psk",
        "bridge_require_ocsp",
        "bridge_tls_version",
    ];
    KEYS.contains(&key) || key == "bridge_tls_use_os_certs"
}

/// `HOST[:PORT]`; an IPv6 address has its port.
fn address(text: &str) -> String {
    match text.rsplit_once(':') {
        Some((host, port)) if host.contains(':') && !host.starts_with('[') => {
            format!("mqtt://[{host}]:{port}")
        }
        Some(_) => format!("mqtt://{text}"),
        None => format!("mqtt://{text}:{PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_have_a_port() {
        assert_eq!(address("hq.example"), "mqtt://hq.example:1883");
        assert_eq!(address("10.0.0.1:1884"), "mqtt://10.0.0.1:1884");
        assert_eq!(address("fd00::1:1884"), "mqtt://[fd00::1]:1884");
        assert_eq!(address("[fd00::1]:1884"), "mqtt://[fd00::1]:1884");
    }
}
