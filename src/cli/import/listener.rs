//! Listeners: from Mosquitto's lines to `[[listener]]` tables.
//!
//! Invariant: a listener whose lines say that fewer may come in, or see less, than we can say is left out.

use super::draft::{Draft, ListenerDraft};
use super::general::{file, shown, tell_loose};
use super::lines::Line;
use super::sections::Opened;
use super::value::{is_false, is_true, number};
use super::without;
use toml::Value;

/// The port of the listener that is not written.
const PORT: i64 = 1883;
const CONNECTIONS_MAX: i64 = 100_000_000;

/// What the lines of a listener say.
#[derive(Debug, Default)]
struct Heard {
    head: Option<Line>,
    port: Option<Line>,
    address: Option<Line>,
    domain: Option<Line>,
    is_websocket: bool,
    certificate: Option<Line>,
    key: Option<Line>,
    ca: Option<Line>,
    revoked: Option<Line>,
    requires_certificate: bool,
    is_user_of_certificate: bool,
    password_file: Option<Line>,
    acl_file: Option<Line>,
    is_anonymous: Option<bool>,
    qos_max: Option<Line>,
    aliases_max: Option<Line>,
    /// Why it is left out.
    left_out: Option<&'static str>,
    draft: ListenerDraft,
}

/// What is said for all listeners.
#[derive(Clone, Copy, Debug)]
struct Common {
    has_passwords: bool,
    is_anonymous: bool,
    /// Whether listeners differ in how clients prove who they are.
    differ: bool,
}

/// Takes all listeners. `is_local_only`: none is written, and Mosquitto serves this machine alone.
pub(super) fn take(opened: Vec<Opened>, is_local_only: bool, draft: &mut Draft) {
    let mut all: Vec<_> = opened
        .into_iter()
        .map(|opened| Heard::new(opened, draft))
        .collect();
    take_files(&all, draft);
    if is_local_only {
        // Mosquitto lets anybody of this machine in then, unless that is said otherwise.
        if draft.says("password_file") && !draft.says("allow_anonymous") {
            draft.set("allow_anonymous", true);
        }
        return;
    }
    if all.iter().any(|listener| listener.is_user_of_certificate) {
        draft.set("authentication.certificate", "common_name");
    }
    take_common_bounds(&all, draft);
    let is_per_listener = all.iter().any(|listener| listener.password_file.is_some());
    let uses_passwords = |listener: &Heard| match is_per_listener {
        true => listener.password_file.is_some(),
        false => draft.says("password_file"),
    };
    let ways: Vec<_> = all
        .iter()
        .map(|listener| (listener.is_user_of_certificate, uses_passwords(listener)))
        .collect();
    let common = Common {
        has_passwords: draft.says("password_file"),
        is_anonymous: draft.is_true("allow_anonymous"),
        differ: ways.iter().any(|way| Some(way) != ways.first()),
    };
    for (listener, (by_certificate, by_password)) in all.iter_mut().zip(ways) {
        listener.settle_methods(common, by_certificate, by_password);
        listener.finish(draft);
    }
}

/// Users and rules are the whole broker's here.
fn take_files(all: &[Heard], draft: &mut Draft) {
    for (key, what) in [("password_file", "users"), ("acl_file", "rules")] {
        let of = |listener: &Heard| match key {
            "password_file" => listener.password_file.clone(),
            _ => listener.acl_file.clone(),
        };
        let mut named = all.iter().filter_map(of);
        let Some(first) = named.next() else {
            continue;
        };
        file(key, &first, draft);
        for other in named.filter(|other| other.path() != first.path()) {
            draft.note(
                &other,
                format!(
                    "there is one {key} for all listeners: add what stands there to {}; its {what} count at \
                     every listener then",
                    shown(&first)
                ),
            );
        }
        let lacks = all.iter().any(|listener| of(listener).is_none());
        if lacks && key == "acl_file" {
            draft.note(
                &first,
                "its rules count at all listeners, also at those without an acl_file of their own",
            );
        }
    }
}

/// What is said by listener there, and for the whole broker here.
fn take_common_bounds(all: &[Heard], draft: &mut Draft) {
    type Of = fn(&Heard) -> Option<&Line>;
    let bounds: [(&'static str, i64, Of); 2] = [
        ("mqtt.qos_max", 2, |listener| listener.qos_max.as_ref()),
        ("limits.topic_alias_max", 65_535, |listener| {
            listener.aliases_max.as_ref()
        }),
    ];
    for (key, most, of) in bounds {
        let said: Vec<_> = all.iter().map(of).collect();
        let value = |line: &Option<&Line>| line.map(|line| line.value.clone());
        let first = said.first().and_then(value);
        let are_alike = said.iter().all(|line| value(line) == first);
        for line in said.iter().flatten() {
            if !are_alike {
                draft.note(
                    line,
                    format!(
                        "left out: {key} counts for all listeners; say what it should be there"
                    ),
                );
            } else if let Some(value) = number(line, 0..=most, draft) {
                draft.set(key, value);
            }
        }
    }
}

impl Heard {
    fn new(opened: Opened, draft: &mut Draft) -> Self {
        let mut heard = Heard {
            head: opened.head,
            ..Heard::default()
        };
        for line in &opened.lines {
            if !heard.take(line, draft) && !heard.take_security(line, draft) {
                heard.take_rest(line, draft);
            }
        }
        heard
    }

    /// Lines that say where it is and how many come in.
    fn take(&mut self, line: &Line, draft: &mut Draft) -> bool {
        let kept = Some(line.clone());
        match line.key.as_str() {
            "port" => self.port = kept,
            "bind_address" => self.address = kept,
            "socket_domain" => self.domain = kept,
            "max_qos" => self.qos_max = kept,
            "max_topic_alias" => self.aliases_max = kept,
            "max_connections" => {
                let max = number(line, -1..=CONNECTIONS_MAX, draft);
                if let Some(max) = max.filter(|max| *max > 0) {
                    self.say("connections_max", max);
                }
            }
            "protocol" => match line.value.as_str() {
                "mqtt" => {}
                "websockets" => self.is_websocket = true,
                "http_api" => {
                    self.left_out = Some("the admin API has a listener of its own (admin.listen)")
                }
                _ => self.left_out = Some("its protocol is not known here"),
            },
            "accept_protocol_versions" => {
                let names = line
                    .value
                    .split([',', ' '])
                    .filter_map(|version| match version {
                        "3" => Some("3.1"),
                        "4" => Some("3.1.1"),
                        "5" => Some("5.0"),
                        _ => None,
                    });
                self.say("protocols", names.map(Value::from).collect::<Vec<_>>());
            }
            "websockets_origin" => self.say("origins", vec![Value::from(line.value.as_str())]),
            _ => return false,
        }
        true
    }

    /// Lines that say who may come in.
    fn take_security(&mut self, line: &Line, draft: &mut Draft) -> bool {
        let kept = Some(line.clone());
        match line.key.as_str() {
            "certfile" => self.certificate = kept,
            "keyfile" => self.key = kept,
            "cafile" => self.ca = kept,
            "crlfile" => self.revoked = kept,
            "require_certificate" => self.requires_certificate = is_true(line),
            "use_identity_as_username" => self.is_user_of_certificate |= is_true(line),
            "use_subject_as_username" if is_true(line) => {
                self.is_user_of_certificate = true;
                draft.note(
                    line,
                    "the common name is the user here, not the whole subject: rules for users have to name \
                     that",
                );
            }
            "password_file" => self.password_file = kept,
            "acl_file" => self.acl_file = kept,
            "allow_anonymous" | "listener_allow_anonymous" => {
                self.is_anonymous = Some(is_true(line))
            }
            "tls_version" => match line.value.as_str() {
                "tlsv1.3" => _ = self.draft.tls.insert("version_min".into(), "1.3".into()),
                "tlsv1.2" => {}
                _ => draft.note(line, "TLS 1.2 is the least that is spoken here"),
            },
            "psk_hint" => {
                self.left_out = Some(
                    "there is no TLS by pre-shared keys: give its clients certificates or passwords over TLS",
                );
            }
            "mount_point" => {
                self.left_out = Some(
                    "there are no mount points, and without one its clients would see all topics: have them \
                     name topics whole, and bind them by acl_file",
                );
            }
            "enable_proxy_protocol" if !is_false(line) => {
                self.left_out = Some(
                    "say whose PROXY header counts: write the listener with proxy_protocol_from = \
                     [\"ADDRESS/BITS\"]",
                );
            }
            _ => return false,
        }
        true
    }

    fn take_rest(&self, line: &Line, draft: &mut Draft) {
        if !is_false(line) {
            without::tell(line, draft);
        }
    }

    fn say(&mut self, key: &str, value: impl Into<Value>) {
        self.draft.keys.insert(key.to_owned(), value.into());
    }

    /// How its clients prove who they are, where that is not the same at all listeners.
    fn settle_methods(&mut self, common: Common, by_certificate: bool, by_password: bool) {
        let is_anonymous = self.is_anonymous.unwrap_or(common.is_anonymous);
        if self.is_anonymous.is_some() {
            self.say("allow_anonymous", is_anonymous);
        }
        let has_methods = by_certificate || by_password;
        if !has_methods && !is_anonymous {
            self.left_out = self.left_out.or(Some(
                "nobody could connect, nor could they in Mosquitto 2 (before it, anybody could): name a \
                 password_file, or say allow_anonymous = true to let in whoever reaches it",
            ));
        }
        if common.differ && (common.has_passwords || by_certificate) {
            let methods = match (by_certificate, by_password) {
                (true, _) => vec![Value::from("certificate")],
                (false, true) => vec![Value::from("password_file")],
                (false, false) => Vec::new(),
            };
            self.say("methods", methods);
        }
    }

    /// Hands it over, or tells why it is left out.
    fn finish(&mut self, draft: &mut Draft) {
        if self.requires_certificate && self.ca.is_none() {
            self.left_out = self.left_out.or(Some(
                "it requires certificates of clients: name the file of their CA as listener.tls.client_ca",
            ));
        }
        let url = match self.left_out {
            Some(why) => Err(why.to_owned()),
            None => self.url(draft),
        };
        match url {
            Ok(url) => {
                self.take_tls(draft);
                let mut listener = std::mem::take(&mut self.draft);
                let keys = std::mem::take(&mut listener.keys);
                listener.keys.insert("url".to_owned(), url.into());
                listener.keys.extend(keys);
                draft.listen(listener);
            }
            Err(why) => {
                let text = format!("the listener is left out: {why}");
                match &self.head {
                    Some(head) => draft.note(head, text),
                    None => draft.remark(format!("the listener on port {PORT}"), text),
                }
            }
        }
    }

    fn has_tls(&self) -> bool {
        self.certificate.is_some() || self.key.is_some()
    }

    /// Where it listens.
    fn url(&mut self, draft: &mut Draft) -> Result<String, String> {
        let said = self.head.as_ref().map(|head| head.value.clone());
        let said = said.unwrap_or_default();
        let (port, address) = said.split_once(' ').unwrap_or((&said, ""));
        let of_default = self.address.as_ref().map(|line| line.value.as_str());
        let address = match address.trim() {
            "" => of_default.unwrap_or_default(),
            address => address,
        };
        if address.starts_with('#') || address.contains(' ') {
            return Err(format!("{address} is no address"));
        }
        let port = match (&self.head, &self.port) {
            (Some(_), _) => port.parse(),
            (None, Some(line)) => line.value.parse(),
            (None, None) => Ok(PORT),
        };
        let port = port.ok().filter(|port| (0..=65_535).contains(port));
        let port = port.ok_or("its port is no number up to 65535")?;
        if port == 0 && address.starts_with('/') {
            if address.starts_with("/run/mosquitto/")
                && let Some(head) = &self.head
            {
                draft.note(
                    head,
                    "taken as it is; under scripts/ringmq.service sockets stand in /run/ringmq",
                );
            }
            return Ok(format!("unix://{address}"));
        }
        let is_ipv6 = address.contains(':');
        let host = match (
            address,
            self.domain.as_ref().map(|line| line.value.as_str()),
        ) {
            ("", Some("ipv4")) => "0.0.0.0".to_owned(),
            ("", _) => "[::]".to_owned(),
            _ if is_ipv6 => format!("[{address}]"),
            _ => address.to_owned(),
        };
        if let Some(line) = self
            .domain
            .as_ref()
            .filter(|line| line.value == "ipv6" && address.is_empty())
        {
            draft.note(
                line,
                "[::] takes IPv4 as well here; name an address in listener.url for IPv6 alone",
            );
        }
        let scheme = match (self.is_websocket, self.has_tls()) {
            (false, false) => "mqtt",
            (false, true) => "mqtts",
            (true, false) => "ws",
            (true, true) => "wss",
        };
        if self.is_websocket {
            // Mosquitto looks at no path.
            self.say("any_path", true);
        }
        Ok(format!("{scheme}://{host}:{port}"))
    }

    fn take_tls(&mut self, draft: &mut Draft) {
        let is_required = self.requires_certificate;
        let files = [
            ("certificate", &self.certificate, true),
            ("key", &self.key, true),
            ("client_ca", &self.ca, is_required),
            ("client_crl", &self.revoked, is_required),
        ];
        let mut table = std::mem::take(&mut self.draft.tls);
        let has_tls = self.has_tls();
        for (key, line, is_taken) in files {
            let Some(line) = line else { continue };
            if is_taken && has_tls {
                table.insert(key.to_owned(), shown(line).into());
                tell_loose(line, draft);
            } else if !has_tls {
                draft.note(
                    line,
                    "left out: without certfile and keyfile the listener has no TLS",
                );
            } else if key == "client_ca" {
                draft.note(
                    line,
                    "left out: it counts with require_certificate alone. If certfile lacks certificates of \
                     CAs between,                      append them to it: Mosquitto may have found them here",
                );
            } else {
                draft.note(line, "left out: it counts with require_certificate alone");
            }
        }
        if has_tls {
            self.draft.tls = table;
        }
    }
}
