//! `ringmq import`: configurations as users of Mosquitto have them become ours, pass `check-config`, and let the
//! same clients do the same; what cannot be taken is listed with its line.

use crate::support::{Certificates, Connect, Outcome, Packet, Setup, free_port, unique};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("import"));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Writes a file; `@` in its text stands for this folder.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text.replace('@', self.0.to_str().unwrap())).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A file of users, made by Mosquitto's own tool.
    fn users(&self, names: &[&str]) {
        let path = self.0.join("users");
        for (number, name) in names.iter().enumerate() {
            let mut tool = Command::new("mosquitto_passwd");
            tool.args(if number == 0 {
                &["-c", "-b"][..]
            } else {
                &["-b"]
            });
            let status = tool.arg(&path).args([*name, "secret"]).status();
            assert!(status.expect("mosquitto_passwd is installed").success());
        }
    }

    fn import(&self, text: &str) -> Outcome {
        import(&self.write("mosquitto.conf", text))
    }

    /// What comes of a file that a broker starts with, which `check-config` has to say too; and the list.
    fn good(&self, text: &str) -> (String, String) {
        let outcome = self.import(text);
        assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
        let file = self.write("ringmq.toml", &outcome.output);
        let checked = Setup::new().arg("check-config").arg(&file).run_to_end();
        assert_eq!(checked.status.code(), Some(0), "{outcome:?}\n{checked:?}");
        let shown = |text: &str| text.replace(self.0.to_str().unwrap(), "@");
        (shown(&outcome.output), shown(&outcome.log))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn import(file: &str) -> Outcome {
    Setup::new().arg("import").arg(file).run_to_end()
}

fn has_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no '{part}' in:\n{text}");
    }
}

/// What is listed of a line: its key and value, and what to do.
fn told(list: &str, line: &str, what: &str) {
    let mut is_of_line = false;
    let mut words = Vec::new();
    for told in list.lines() {
        match told.strip_prefix("    ") {
            Some(text) if is_of_line => words.push(text),
            Some(_) => {}
            None => is_of_line = told.ends_with(line) && told.contains(".conf:"),
        }
    }
    let words = words.join(" ");
    assert!(words.contains(what), "of '{line}': {words}, in:\n{list}");
}

#[test]
fn debians_own_files_are_taken() {
    let outcome = import("/etc/mosquitto/mosquitto.conf");
    has_all(
        &outcome.output,
        &[
            "log_file = \"/var/log/mosquitto/mosquitto.log\"",
            "directory = \"/var/lib/ringmq\"",
        ],
    );
    told(
        &outcome.log,
        "pid_file /run/mosquitto/mosquitto.pid",
        "nothing to do",
    );
    told(
        &outcome.log,
        "persistence true",
        "`ringmq store import-mosquitto /var/lib/mosquitto/mosquitto.db --to /var/lib/ringmq",
    );
    // All of it is remarks.
    let outcome = import("/usr/share/doc/mosquitto/examples/mosquitto.conf");
    assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
    assert_eq!(
        outcome
            .output
            .lines()
            .filter(|line| !line.is_empty())
            .count(),
        1
    );
    let folder = Folder::new();
    let (toml, list) = folder.good(
        "listener 0 @/socket\npassword_file /etc/mosquitto/pwfile.example\n\
         acl_file /etc/mosquitto/aclfile.example\n",
    );
    has_all(
        &toml,
        &[
            "password_file = \"/etc/mosquitto/pwfile.example\"",
            "url = \"unix://@/socket\"",
        ],
    );
    assert!(!list.contains(".conf:"), "nothing to do: {list}");
}

#[test]
fn included_files_are_read_in_mosquittos_order() {
    let folder = Folder::new();
    folder.write("conf.d/b.conf", "max_queued_messages 1\n");
    folder.write("conf.d/B.conf", "max_queued_messages 2\n");
    folder.write("conf.d/README", "max_queued_messages 3\n");
    let (toml, _) = folder.good("include_dir @/conf.d\n");
    has_all(&toml, &["queue_messages_max = 1\n"]);
    let outcome = folder.import("include_dir @/nowhere\n");
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    has_all(
        &outcome.log,
        &["mosquitto.conf:1: include_dir", "No such file"],
    );
}

#[test]
fn home_assistants_addon_is_taken() {
    let folder = Folder::new();
    let certificates = Certificates::new();
    let pem = certificates.path("server.pem");
    let key = certificates.path("server.key");
    folder.write(
        "acl",
        "user homeassistant\ntopic readwrite #\n\npattern readwrite $SYS/#\n",
    );
    folder.write("share/acl.conf", "max_inflight_messages 50\n");
    folder.users(&["homeassistant"]);
    let (plain, tls) = (free_port(), free_port());
    let (toml, list) = folder.good(&format!(
        "protocol mqtt\nuser root\nlog_dest stdout\nlog_type error\nlog_type warning\n\
         persistence true\npersistence_location /data/\nmax_queued_messages 8192\n\
         auth_plugin /usr/share/mosquitto/go-auth.so\nauth_opt_backends files,http\nauth_opt_hasher pbkdf2\n\
         auth_opt_files_password_path /etc/mosquitto/pw\nauth_opt_files_acl_path @/acl\n\
         auth_opt_http_host 127.0.0.1\ninclude_dir @/share\npassword_file @/users\n\
         listener {plain}\nprotocol mqtt\n\
         listener 0 @/ws.sock\n\
         listener {tls}\nprotocol websockets\ncertfile {pem}\nkeyfile {key}\nrequire_certificate false\n"
    ));
    has_all(
        &toml,
        &[
            "log = \"warn\"",
            "acl_file = \"@/acl\"",
            "inflight_max = 50",
            "queue_messages_max = 8192",
            &format!("url = \"mqtt://[::]:{plain}\""),
            &format!("url = \"wss://[::]:{tls}\"\nany_path = true"),
            "[listener.tls]\ncertificate = ",
        ],
    );
    told(&list, "protocol mqtt", "stands before the first listener");
    told(
        &list,
        "auth_plugin /usr/share/mosquitto/go-auth.so",
        "[authentication.http]",
    );
    told(&list, "auth_opt_http_host", "left out, with its plugin");
    told(&list, "auth_opt_files_password_path", "`ringmq passwd`");
    told(&list, "log_dest stdout", "standard error");
    told(&list, "user root", "User=");
}

#[test]
fn what_tutorials_write_is_taken() {
    let folder = Folder::new();
    folder.users(&["ann"]);
    let certificates = Certificates::new();
    let path = |name: &str| certificates.path(name);
    let (pem, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    // Nothing but a port: in Mosquitto 2 nobody gets in.
    let outcome = folder.import("listener 1883\n");
    assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
    assert!(!outcome.output.contains("[[listener]]"), "{outcome:?}");
    told(&outcome.log, "listener 1883", "nobody could connect");
    // For all on all addresses, in the old way and in the new.
    let port = free_port();
    let (toml, _) = folder.good(&format!(
        "port {port}\nbind_address 127.0.0.1\nallow_anonymous true\n"
    ));
    has_all(
        &toml,
        &[
            "allow_anonymous = true",
            &format!("url = \"mqtt://127.0.0.1:{port}\""),
        ],
    );
    // No listener: this machine alone, whoever it is.
    let (toml, _) = folder.good("password_file @/users\n");
    has_all(&toml, &["allow_anonymous = true"]);
    assert!(!toml.contains("[[listener]]"), "{toml}");
    // Plain for this machine, TLS for all, WebSockets, clients with certificates.
    let (toml, list) = folder.good(&format!(
        "per_listener_settings false\nallow_anonymous false\npassword_file @/users\n\
         listener {} localhost\n\
         listener {}\ncertfile {pem}\ncafile {ca}\nkeyfile {key}\ntls_version tlsv1.3\n\
         listener {} ::1\nprotocol websockets\nsocket_domain ipv6\nmax_connections -1\n\
         listener {} 127.0.0.1\ncafile {ca}\ncertfile {pem}\nkeyfile {key}\nrequire_certificate true\n\
         use_identity_as_username true\nmax_connections 20\n",
        free_port(),
        free_port(),
        free_port(),
        free_port()
    ));
    has_all(
        &toml,
        &[
            "allow_anonymous = false",
            "certificate = \"common_name\"",
            "url = \"mqtt://localhost:",
            "version_min = \"1.3\"",
            "url = \"ws://[::1]:",
            "client_ca = ",
            "methods = [\"certificate\"]",
            "methods = [\"password_file\"]",
            "connections_max = 20",
        ],
    );
    assert_eq!(toml.matches("client_ca").count(), 1, "{toml}");
    told(&list, &format!("cafile {ca}"), "require_certificate alone");
}

#[test]
fn settings_by_listener_never_let_in_more() {
    let folder = Folder::new();
    folder.users(&["ann"]);
    folder.write("others", "");
    folder.write("rules", "topic read #\n");
    let head = "per_listener_settings true\n";
    let inside = format!("listener {} 127.0.0.1\nallow_anonymous true\n", free_port());
    let outside = format!(
        "listener {}\npassword_file @/users\nacl_file @/rules\n",
        free_port()
    );
    let (toml, list) = folder.good(&format!("{head}{inside}{outside}"));
    has_all(
        &toml,
        &[
            "allow_anonymous = true\nmethods = []",
            "methods = [\"password_file\"]",
        ],
    );
    told(&list, "acl_file @/rules", "at all listeners");
    let other = format!(
        "listener {}\npassword_file @/others\nmax_qos 1\n",
        free_port()
    );
    let (toml, list) = folder.good(&format!("{head}{outside}{other}"));
    assert!(!toml.contains("qos_max"), "{toml}");
    told(
        &list,
        "password_file @/others",
        "add what stands there to @/users",
    );
    told(&list, "max_qos 1", "counts for all listeners");
    for (lines, why) in [
        ("mount_point a/\nallow_anonymous true", "see all topics"),
        ("psk_hint x\nallow_anonymous true", "pre-shared keys"),
        (
            "require_certificate true\ncertfile c\nkeyfile k\nallow_anonymous true",
            "client_ca",
        ),
        (
            "enable_proxy_protocol 2\nallow_anonymous true",
            "proxy_protocol_from",
        ),
        ("protocol http_api\nallow_anonymous true", "admin.listen"),
        ("allow_anonymous false", "nobody could connect"),
    ] {
        let port = free_port();
        let (toml, list) = folder.good(&format!("{head}{outside}listener {port}\n{lines}\n"));
        assert!(!toml.contains(&port.to_string()), "{lines}: {toml}");
        told(&list, &format!("listener {port}"), why);
    }
}

/// Keys of Mosquitto 1.6 to 2.1 with values.
const KEYS: &str = "acl_file a\nallow_anonymous true\nallow_duplicate_messages true\n\
    allow_zero_length_clientid false\nauto_id_prefix a\nautosave_interval 5\nautosave_on_changes true\n\
    check_retain_source true\nclientid_prefixes a\nconnection_messages false\nlog_dest syslog\nlog_dest topic\n\
    log_dest dlt\nlog_facility 5\nlog_timestamp true\nlog_timestamp_format %Y\nlog_type all\nlog_type none\n\
    max_inflight_bytes 5\nmax_inflight_messages 0\nmax_keepalive 60\nmax_packet_size 1000\nmax_queued_bytes 0\n\
    max_queued_messages 0\nmemory_limit 1000\nmessage_size_limit 1000\npassword_file p\npersistence false\n\
    persistence_file f\npersistence_location l\npersistent_client_expiration 2w\npid_file p\npsk_file p\n\
    queue_qos0_messages true\nretain_available true\nretry_interval 5\nset_tcp_nodelay true\n\
    store_clean_interval 5\nsys_interval 5\nupgrade_outgoing_qos true\nuser u\nwebsockets_log_level 5\n\
    websockets_headers_size 5\nplugin p.so\nplugin_opt_x y\nauth_plugin p.so\nauth_opt_x y\n\
    auth_plugin_deny_special_chars true\nglobal_max_clients 5\nglobal_max_connections 5\nlistener 1 127.0.0.1\n\
    bind_interface eth0\nhttp_dir d\nmax_connections 5\nmax_qos 1\nmax_topic_alias 5\nprotocol websockets\n\
    socket_domain ipv4\nuse_username_as_clientid true\ncafile c\ncapath c\ncertfile c\nciphers c\n\
    ciphers_tls1.3 c\ncrlfile c\ndhparamfile c\nkeyfile k\nrequire_certificate true\ntls_engine e\n\
    tls_engine_kpass_sha1 k\ntls_keyform pem\ntls_version tlsv1.1\nuse_identity_as_username true\n\
    use_subject_as_username true\nlistener 2\npsk_hint h\nmount_point m\n\
    connection c\naddress a b\nbridge_attempt_unsubscribe true\nbridge_cafile c\nbridge_insecure true\n\
    cleansession true\nlocal_cleansession true\nclientid c\nidle_timeout 5\nkeepalive_interval 5\n\
    local_clientid l\nlocal_password hush\nlocal_username l\nnotifications true\nnotifications_local_only true\n\
    notification_topic t\nremote_clientid r\nremote_password hush\nremote_username r\nrestart_timeout 5 30\n\
    round_robin true\nstart_type lazy\nthreshold 5\ntopic # both 0\ntry_private true\nbridge_psk hush\n";

#[test]
fn every_key_of_mosquittos_is_known_and_no_secret_shown() {
    let folder = Folder::new();
    let outcome = folder.import(KEYS);
    assert_eq!(
        outcome.status.code(),
        Some(2),
        "its files are not there: {outcome:?}"
    );
    assert!(!outcome.log.contains("not known"), "{}", outcome.log);
    assert!(!outcome.log.contains("hush"), "{}", outcome.log);
    has_all(
        &outcome.log,
        &["a start with this would be refused: ", "mosquitto.conf:"],
    );
    told(&outcome.log, "connection c", "PSK, OCSP");
    told(&outcome.log, "threshold 5", "start = \"lazy\"");
    told(&outcome.log, "memory_limit 1000", "limits.memory_max_bytes");
    told(
        &outcome.log,
        "acl_file a",
        "Mosquitto looks for it where it is started",
    );
    has_all(
        &outcome.output,
        &[
            "expiry_seconds_max = 1209600",
            "inflight_max = 65535",
            "level = \"memory\"",
            "max_packet_bytes = 1000",
        ],
    );
    let outcome =
        folder.import("max_qeued_messages 5\nsys_interval often\nallow_anonymous yes\nuser\n");
    told(&outcome.log, "max_qeued_messages 5", "not known");
    told(&outcome.log, "sys_interval often", "no whole number");
    told(
        &outcome.log,
        "allow_anonymous yes",
        "neither true nor false",
    );
    let outcome = import("/nowhere/mosquitto.conf");
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
}

#[test]
fn bridges_are_taken_but_for_those_that_would_be_less_safe() {
    let folder = Folder::new();
    let plain = "connection up link\naddress hq.example:1884 10.0.0.1\ntopic plant/# out 1 here/ site7/\n\
                 topic commands/# in 2 \"\" site7/\ntopic state both\ntopic \"\" out 0 a/b c/d\n\
                 remote_clientid site7\nremote_username site7\nlocal_username bridge\ncleansession true\n\
                 keepalive_interval 30\nrestart_timeout 2 20\nround_robin true\nstart_type automatic\n\
                 bridge_protocol_version mqttv50\nnotification_topic bridges/site7\n";
    let (toml, list) = folder.good(plain);
    has_all(
        &toml,
        &[
            "[[bridge]]\nname = \"up-link\"\naddresses = [\"mqtt://hq.example:1884\", \"mqtt://10.0.0.1:1883\"]",
            "filter = \"plant/#\"\ndirection = \"out\"\nqos_max = 1\nlocal_prefix = \"here/\"\nremote_prefix = \"site7/\"",
            "filter = \"commands/#\"\ndirection = \"in\"\nqos_max = 2\nremote_prefix = \"site7/\"",
            "filter = \"state\"\ndirection = \"both\"\nqos_max = 0",
            "client_id = \"site7\"",
            "user = \"site7\"",
            "local_user = \"bridge\"",
            "persistent = false",
            "keep_alive_seconds = 30",
            "reconnect_ms_min = 2000\nreconnect_ms_max = 20000",
            "address_order = \"round_robin\"",
            "protocol = \"5.0\"",
            "remote_state_topic = \"bridges/site7\"",
        ],
    );
    told(&list, "connection up link", "it is called up-link here");
    has_all(
        &toml,
        &[
            "filter = \"\"\ndirection = \"out\"\nqos_max = 0\nlocal_prefix = \"a/b\"\nremote_prefix = \"c/d\"",
        ],
    );
    folder.write("rules", "topic read #\n");
    let (_, list) = folder.good(&format!("{plain}acl_file @/rules\n"));
    told(&list, "connection up link", "let the user bridge read");
    let certificates = Certificates::new();
    certificates.client("site7", "site7", 7);
    let [ca, certificate, key] =
        ["ca.pem", "site7.pem", "site7.key"].map(|it| certificates.path(it));
    let (toml, list) = folder.good(&format!(
        "{plain}bridge_cafile {ca}\nbridge_certfile {certificate}\nbridge_keyfile {key}\n\
         bridge_alpn mqtt\nbridge_insecure true\nbridge_tls_version tlsv1.2\n"
    ));
    has_all(
        &toml,
        &[
            "addresses = [\"mqtts://hq.example:1884\", \"mqtts://10.0.0.1:1883\"]",
            &format!("[bridge.tls]\nca = \"{ca}\""),
            &format!("certificate = \"{certificate}\""),
            "alpn = [\"mqtt\"]",
        ],
    );
    told(&list, "bridge_insecure true", "has to bear its name");
    for line in ["bridge_psk 12", "bridge_capath /etc/ssl/certs"] {
        let (toml, list) = folder.good(&format!("{plain}{line}\n"));
        assert!(!toml.contains("[[bridge]]"), "{toml}");
        told(&list, "connection up link", "the bridge is left out");
    }
    told(
        &list,
        "notification_topic bridges/site7",
        "$SYS/broker/connection/up-link/state",
    );
    told(
        &list,
        "notification_topic bridges/site7",
        "mosquitto_pub -r -n -t 'bridges/site7'",
    );
    // The file of its password is the operator's to write.
    let early = folder.import(&format!("{plain}remote_password hush\n"));
    assert_eq!(early.status.code(), Some(2), "{early:?}");
    has_all(&early.log, &["would be refused", "up-link.password"]);
    folder.write("up-link.password", "hush\n");
    let (toml, list) = folder.good(&format!("{plain}remote_password hush\n"));
    has_all(&toml, &["password_file = \"up-link.password\""]);
    told(&list, "remote_password", "a file up-link.password");
    assert!(!list.contains("hush"), "{list}");
}

/// What a bridge keeps, and by which name, is as it was; what cannot be is listed.
#[test]
fn sessions_of_bridges_go_on() {
    let folder = Folder::new();
    let bridge = |more: &str| {
        folder.good(&format!(
            "connection hq 1\naddress a\ntopic # both\n{more}\n"
        ))
    };
    let (toml, list) = bridge("start_type lazy\nidle_timeout 7");
    has_all(&toml, &["start = \"lazy\"", "idle_seconds = 7"]);
    let host = rustix::system::uname();
    let id = format!("client_id = \"{}.hq 1\"", host.nodename().to_string_lossy());
    has_all(&toml, &[&id]);
    told(&list, "connection hq 1", &id);
    let (toml, list) = bridge("start_type lazy\nidle_timeout 7\ncleansession true");
    assert!(!toml.contains("lazy") && !toml.contains("idle"), "{toml}");
    told(&list, "start_type lazy", "needs persistent = true");
    told(&list, "idle_timeout 7", "left out");
    let (toml, list) = bridge("bridge_outgoing_retain false\ntopic o out");
    has_all(
        &toml,
        &[
            "filter = \"#\"\ndirection = \"out\"\nqos_max = 0\nretain = \"drop\"\n",
            "filter = \"#\"\ndirection = \"in\"\nqos_max = 0\n\n",
            "filter = \"o\"\ndirection = \"out\"\nqos_max = 0\nretain = \"drop\"\n",
        ],
    );
    told(&list, "bridge_outgoing_retain false", "stand there twice");
    let (_, list) = bridge("cleansession true\nlocal_cleansession false");
    told(
        &list,
        "local_cleansession false",
        "nothing waits here while the line is down",
    );
    let (_, list) = bridge("local_cleansession true");
    told(&list, "local_cleansession true", "waits here");
    let (_, list) = bridge("local_cleansession false");
    assert!(!list.contains("local_cleansession"), "{list}");
}

#[test]
fn users_and_rules_do_the_same_afterwards() {
    let folder = Folder::new();
    folder.users(&["ann", "bert"]);
    folder.write(
        "rules",
        "# Who is not named reads the state of the plant.\ntopic read state/#\n\nuser ann\ntopic state/#\n\
         topic deny state/secret\n\npattern readwrite own/%u/#\n",
    );
    let (toml, _) = folder.good(
        "listener 0 @/socket\nallow_anonymous true\npassword_file @/users\nacl_file @/rules\n\
         max_keepalive 100\n",
    );
    let toml = toml.replace('@', folder.0.to_str().unwrap());
    let socket = format!("unix://{}/socket", folder.0.display());
    let broker = Setup::new()
        .shards(1)
        .config(&toml.replace(&socket, "mqtt://127.0.0.1:0"))
        .start();
    let mut ann = Connect::v5(&unique("a"))
        .login("ann", "secret")
        .open(&broker);
    assert_eq!(ann.publish_code("state/a"), 0x10);
    assert_eq!(ann.publish_code("state/secret"), 0x87);
    assert_eq!(ann.publish_code("own/ann/a"), 0x10);
    assert_eq!(ann.publish_code("own/bert/a"), 0x87);
    let mut nobody = Connect::v5(&unique("n")).open(&broker);
    nobody.subscribe("state/#", 1);
    assert_eq!(nobody.publish_code("state/a"), 0x87);
    let (_, answer) = Connect::v5(&unique("b"))
        .login("bert", "wrong")
        .attempt(&broker);
    assert!(
        matches!(
            answer,
            Some(Packet::Connack {
                code: 0x86 | 0x87,
                ..
            })
        ),
        "{answer:?}"
    );
}
