//! Files as people have them: read, or refused by line and in words; where names count from; what a start would
//! refuse; where the log goes.

use crate::login::Scratch;
use crate::support::{
    Broker, Certificates, Client, Connect, Packet, Setup, Wire, eventually, refused_handshake,
    unique,
};
use rustix::process::{Pid, Signal, kill_process};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// Of `password`.
const HASH: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("files"));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What `check-config` says of a configuration that is wrong.
fn wrong(config: &str) -> String {
    let folder = Folder::new();
    let outcome = Setup::new()
        .arg("check-config")
        .arg(&folder.write("ringmq.toml", config))
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(2), "{config}: {outcome:?}");
    outcome.log
}

/// What it says of one that is correct.
fn right(config: &str) -> String {
    let folder = Folder::new();
    let outcome = Setup::new()
        .arg("check-config")
        .arg(&folder.write("ringmq.toml", config))
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(0), "{config}: {outcome:?}");
    outcome.log
}

#[test]
fn files_of_other_editors_are_read() {
    let folder = Folder::new();
    folder.write(
        "users",
        format!("\u{feff}anna:{HASH}\r\n\r\n  bert:{HASH}\r\n"),
    );
    folder.write(
        "access",
        b"\xef\xbb\xbf# f\xfcr alle\r\n  user anna \r\n\ttopic write a\r\n",
    );
    folder.write("bans", b"\xef\xbb\xbfuser bert\r\n# K\xfcche\r\n");
    let config = folder.write(
        "ringmq.toml",
        b"\xef\xbb\xbfpassword_file = \"users\" # f\xfcr alle\r\nacl_file = \"access\"\r\n\
          [bans]\r\n# \xfc\r\nfile = \"bans\"\r\n",
    );
    let broker = Setup::new().shards(1).arg("--config").arg(&config).start();
    let login = |user: &str| Connect::v5(&unique("c")).login(user, "password");
    let mut anna = login("anna").open(&broker);
    assert_eq!(anna.publish_code("a"), 0x10);
    assert_eq!(anna.publish_code("b"), 0x87);
    let (_, answer) = login("bert").attempt(&broker);
    assert!(
        matches!(answer, Some(Packet::Connack { code: 0x8A, .. })),
        "{answer:?}"
    );
}

#[test]
fn a_byte_that_is_not_utf8_is_named_by_its_line_and_no_hash_is_shown() {
    let folder = Folder::new();
    let bytes = [b"# remark\nf\xfcr:", HASH.as_bytes(), b"hunter2\n"].concat();
    let path = folder.write("file", bytes);
    // Nor where a file is taken for one of another kind.
    let users = folder.write("users", format!("anna:{HASH}\n"));
    let log = wrong(&format!("acl_file = {users:?}\n"));
    assert!(log.contains("line 1: ") && !log.contains("argon2"), "{log}");
    let log = wrong(&format!("anna:{HASH}\n"));
    assert!(
        log.contains("ringmq.toml:1") && !log.contains("argon2"),
        "{log}"
    );
    for secret in [
        "headers = \"hunter2\"",
        "headers = { Authorization = [\"hunter2\"] }",
        "[authentication.http.headers]\nAuthorization = [\"hunter2\"]",
    ] {
        let hook = "[authentication.http]\nauthenticate_url = \"http://a/\"";
        let log = wrong(&format!("{hook}\n{secret}\n"));
        assert!(
            log.contains("headers are a table") && !log.contains("hunter2"),
            "{log}"
        );
    }
    for key in ["password_file = ", "acl_file = ", "[bans]\nfile = "] {
        let log = wrong(&format!("{key}{path:?}\n"));
        assert!(
            log.contains(&format!("{path}: line 2: ")) && log.contains("UTF-8"),
            "{log}"
        );
        assert!(!log.contains("hunter2") && !log.contains("argon2"), "{log}");
    }
    let config = folder.write("ringmq.toml", b"# \xfc\nlog = \"\xfc\"\n");
    let outcome = Setup::new().arg("check-config").arg(&config).run_to_end();
    assert!(
        outcome.log.contains(&format!("{config}: line 2: ")),
        "{}",
        outcome.log
    );
}

#[test]
fn names_count_from_the_configuration_files_folder() {
    let folder = Folder::new();
    fs::create_dir(folder.0.join("conf")).unwrap();
    let config = folder.write("conf/ringmq.toml", "password_file = \"./sub/users\"\n");
    let whole = folder.0.join("conf/sub/users").display().to_string();
    let check = Setup::new().arg("check-config").arg(&config);
    let log = check.run_to_end().log;
    assert!(log.contains(&format!("{whole}: ")), "{log}");
    // In the environment they count from where the broker was started.
    let here = std::env::current_dir().unwrap().join("no-such-users");
    let log = check
        .env("RINGMQ_PASSWORD_FILE", "no-such-users")
        .run_to_end()
        .log;
    assert!(log.contains(&format!("{}: ", here.display())), "{log}");
    fs::create_dir(folder.0.join("conf/sub")).unwrap();
    folder.write("conf/sub/users", format!("anna:{HASH}\n"));
    let broker = Setup::new().shards(1).arg("--config").arg(&config).start();
    Connect::v5("c").login("anna", "password").open(&broker);
}

#[test]
fn check_config_finds_what_a_start_would_refuse() {
    let certificates = Certificates::new();
    certificates.server_for("old", -3);
    let pair = |name: &str| {
        let [pem, key] = ["pem", "key"].map(|end| certificates.path(&format!("{name}.{end}")));
        format!("certificate = {pem:?}\nkey = {key:?}\n")
    };
    let plain = "[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n";
    let tls = "[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n[listener.tls]\n";
    let hook = "[authentication.http]\nauthenticate_url = ";
    let ws = "[[listener]]\nurl = \"ws://127.0.0.1:0\"\n";
    let folder = Folder::new();
    let users = folder.write("users", format!("anna:{HASH}\n"));
    let short = folder.write("secret", "short");
    let bans = folder.write("bans", "user x\naddress 10.0.0.300\n");
    for (config, parts) in [
        (
            "audit_file = \"no/audit\"\n".to_owned(),
            &["audit_file", "/no does not exist"][..],
        ),
        (
            "log_file = \"no/log\"\n".to_owned(),
            &["log_file", "/no does not exist"],
        ),
        (
            "audit_file = \"/\"\n".to_owned(),
            &["audit_file", "is a folder"],
        ),
        (
            "listen = [\"unix:///no/such/socket\"]\n".to_owned(),
            &["/no/such does not exist"],
        ),
        (
            format!("{plain}[listener.tls]\n{}", pair("server")),
            &[":3", "none of TLS"],
        ),
        (
            format!(
                "{tls}{}[[listener]]\nurl = \"mqtt://127.0.0.1:0\"\n[listener.tls]\n",
                pair("server")
            ),
            &[":8", "none of TLS"],
        ),
        (
            format!("{tls}{}client_crl = \"x\"\n", pair("server")),
            &[":2", "client_crl means nothing"],
        ),
        (
            format!("{plain}mode = \"0600\"\n"),
            &[":3", "mode", "none of sockets"],
        ),
        (format!("{plain}owner_uid = 1\n"), &[":3", "owner_uid"]),
        (
            format!("{plain}any_path = true\n"),
            &[":3", "any_path", "WebSocket"],
        ),
        (
            format!("{tls}{}", pair("old")),
            &["old.pem", "the certificate ended 3 days ago"],
        ),
        (
            format!("{tls}{}record_bytes_max = 100\n", pair("server")),
            &["record_bytes_max", "512"],
        ),
        (
            format!("{hook}\"ftp://a/\"\n"),
            &["authenticate_url", "http://"],
        ),
        (
            format!("{hook}\"https://a/\"\nca_file = \"no.pem\"\n"),
            &["ca_file", "/no.pem"],
        ),
        (
            "[authentication.http]\ntimeout_ms = 5\n".to_owned(),
            &[":1", "authenticate_url"],
        ),
        (
            format!("{plain}proxy_protocol_from = [\"10.0.0.7\"]\n"),
            &[":3", "proxy_protocol_from", "such as 10.0.0.7/32"],
        ),
        (
            format!("{plain}proxy_protocol_from = [\"lan\"]\n"),
            &[":3", "\"lan\" is no network; write ADDRESS/BITS"],
        ),
        (
            "[limits]\nmemory_max_bytes = 9223372036854775808\n".to_owned(),
            &[
                ":2",
                "memory_max_bytes",
                "is too large",
                "9223372036854775807",
            ],
        ),
        (
            "[limits]\nmemory_max_bytes = 18446744073709551616\n".to_owned(),
            &[
                ":2",
                "memory_max_bytes: invalid type: integer `18446744073709551616`, expected a whole",
            ],
        ),
        (
            format!("{ws}origins = [\"app.example\"]\n"),
            &[":3", "origins", "\"app.example\" is not as browsers"],
        ),
        (
            format!("{ws}origins = [\"https://app.example/\"]\n"),
            &[":3", "origins", "without a path"],
        ),
        (
            format!("{ws}origins = []\n"),
            &[":3", "origins", "names no page"],
        ),
        (
            format!("{plain}protocols = []\n"),
            &[":3", "protocols", "names no version"],
        ),
        (
            format!("password_file = {users:?}\n{plain}methods = []\n"),
            &[":4", "methods", "nobody could connect"],
        ),
        (
            format!("password_file = {users:?}\n[authentication]\nmethods = []\n"),
            &[":3", "methods", "names none"],
        ),
        (
            format!("{hook}\"http://a:99999/\"\n"),
            &["authenticate_url", "port"],
        ),
        (
            format!("{hook}\"http://a/b#c\"\n"),
            &["authenticate_url", "from # on"],
        ),
        (
            format!(
                "{tls}{}client_ca = {:?}\n",
                pair("server"),
                certificates.path("server.pem")
            ),
            &["/server.pem", "has no certificate of a CA"],
        ),
        (
            format!(
                "{tls}{}client_ca = {:?}\nclient_certificate = \"none\"\n",
                pair("server"),
                certificates.path("ca.pem")
            ),
            &["client_ca means nothing", "client_certificate"],
        ),
        (
            "log_file = \"both\"\naudit_file = \"./both\"\n".to_owned(),
            &["log_file", "/both is the audit_file too"],
        ),
        (
            format!("[authentication.jwt]\nsecret_file = {short:?}\n"),
            &[&short, "too short"],
        ),
        (
            "password_file = \"C:\\users\"\n".to_owned(),
            &[
                ":1",
                "password_file",
                "a backslash begins an escape",
                "'...'",
            ],
        ),
        (
            "shard = 1\n".to_owned(),
            &[":1: shard: there is no key shard here; is shards meant?"],
        ),
        (
            "[limits]\nmax_paket_bytes = 1\n".to_owned(),
            &["is max_packet_bytes meant?"],
        ),
        (
            "xyzzy = 1\n".to_owned(),
            &["there is no key xyzzy here; the README's Configuration lists them"],
        ),
        (
            "[session]\nxyzzy = 1\n".to_owned(),
            &["there is no key xyzzy here, but expiry_seconds_max, queue_full, outbox_full"],
        ),
        (
            "[session]\nqueue_full = \"drop\"\n".to_owned(),
            &["\"drop\" is none of its values: drop_newest, drop_oldest, disconnect"],
        ),
        (
            "listen = [\"mqtt://no-such-host.invalid:1883\"]\nallow_anonymous = true\n".to_owned(),
            &[
                ":1",
                "no-such-host.invalid:1883: the name of its host cannot be resolved",
            ],
        ),
        (
            "listen = [\"mqtt://127.0.0.1:x\"]\n".to_owned(),
            &[":1", "the form is mqtt://HOST:PORT"],
        ),
        (
            format!("[bans]\nfile = {bans:?}\n"),
            &[&bans, "line 2", "\"10.0.0.300\" is no address"],
        ),
    ] {
        let log = wrong(&config);
        for part in parts {
            assert!(log.contains(part), "no {part} in {log}");
        }
    }
    right(&format!("{tls}{}record_bytes_max = 512\n", pair("server")));
    right(&format!(
        "{ws}origins = [\"https://app.example:8443\", \"http://[::1]\", \"null\"]\n"
    ));
    // What is no mistake is warned of.
    let common = format!(
        "listen = [\"mqtt://127.0.0.1:0\"]\n[tls]\n{}",
        pair("server")
    );
    let scram = format!("password_file = {users:?}\nauthentication.scram = true\n");
    let rules = Scratch::new("user ann\ntopic readwrite #\n");
    let doubtful = Scratch::new(
        "user *\ntopic home/%u/#\ntopic ${clientid}/#\npattern read {client}/#\npattern read %u/#\ntopic a\n",
    );
    let doubts = format!("password_file = {users:?}\nacl_file = {:?}\n", doubtful.0);
    let no_users = format!("acl_file = {:?}\n", rules.0);
    let pattern = Scratch::new("client sensor-*\n");
    let no_pattern = format!("[bans]\nfile = {:?}\n", pattern.0);
    certificates.server_for("soon", 9);
    certificates.revoke_until(&[], 2025);
    let soon = format!("{tls}{}", pair("soon"));
    let old_list = format!(
        "allow_anonymous = true\n{tls}{}client_ca = {:?}\nclient_crl = {:?}\n",
        pair("server"),
        certificates.path("ca.pem"),
        certificates.path("crl.pem")
    );
    let between = certificates.below();
    between.revoke_until(&[], 2100);
    let foreign_list = format!(
        "allow_anonymous = true\n{tls}{}client_ca = {:?}\nclient_crl = {:?}\n",
        pair("server"),
        certificates.path("ca.pem"),
        between.path("crl.pem")
    );
    for (config, warning) in [
        (
            foreign_list,
            "crl.pem: none of its revocation lists is of a CA of client_ca",
        ),
        (soon, "soon.pem: the certificate ends in 9 days"),
        (old_list, "crl.pem: the revocation list is out of date"),
        (common, "[tls] is used by no listener"),
        (
            doubts.clone(),
            "line 1: user * is for the user who is called so",
        ),
        (
            doubts.clone(),
            "line 2: what looks like a name to be filled in",
        ),
        (
            doubts.clone(),
            "line 3: what looks like a name to be filled in",
        ),
        (doubts, "line 4: pattern {client}/# has neither %u nor %c"),
        (no_users, "has rules for users, but nobody is one"),
        (no_pattern, "there are no wildcards in names"),
        (scram, "can log in by SCRAM yet; `ringmq passwd --scram`"),
    ] {
        let log = right(&config);
        assert!(log.contains(warning), "{log}");
        let broker = Setup::new().shards(1).config(&config).start();
        // Its line comes after all those of the start.
        broker.counters();
        let log = broker.log();
        let lines = log.lines().filter(|line| line.contains("WARN"));
        assert_eq!(
            lines.filter(|line| line.contains(warning)).count(),
            1,
            "{log}"
        );
    }
}

#[test]
fn certificates_that_end_are_told_of_at_the_start_and_serve() {
    let certificates = Certificates::new();
    certificates.server_for("soon", 10);
    certificates.server_for("later", 40);
    certificates.server_for("old", -3);
    let start = |name: &str| {
        let section = certificates
            .section()
            .replace("server.", &format!("{name}."));
        let config = format!("[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{section}");
        let broker = Setup::new().shards(1).config(&config).start();
        // Its line comes after all those of the start.
        broker.counters();
        broker
    };
    let log = start("soon").log();
    assert!(log.contains("WARN") && log.contains("soon.pem: the certificate ends in 10 days"));
    assert!(!start("later").log().contains("later.pem"));
    let old = start("old");
    let log = old.log();
    assert!(
        log.contains("old.pem: the certificate ended 3 days ago"),
        "{log}"
    );
    let refused = refused_handshake(Wire::Tls(&certificates, None), old.address());
    assert!(
        refused.contains("expired"),
        "it is shown to clients: {refused}"
    );
}

/// A client that trusts any server, as devices without a clock do.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls12_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Connects and shows `client`'s certificate, whatever it is.
fn dial_trusting(
    certificates: &Certificates,
    client: &str,
    address: SocketAddr,
) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = CertificateDer::from_pem_file(certificates.path(&format!("{client}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.path(&format!("{client}.key"))).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![chain], key));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_client_cert_resolver(Arc::new(shown));
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, TcpStream::connect(address).unwrap())
}

#[test]
fn a_certificate_of_version_1_serves_and_one_of_a_client_is_refused_in_words() {
    let certificates = Certificates::new();
    certificates.version_1("v1", "localhost");
    certificates.client("good", "device", 10);
    let section = certificates.section().replace("server.", "v1.");
    let config = format!(
        "[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{section}client_ca = {:?}\n",
        certificates.path("ca.pem")
    );
    let broker = Setup::new().shards(1).config(&config).start();
    let connect = Connect::v5("c").encode();
    let mut link = dial_trusting(&certificates, "good", broker.address());
    link.write_all(&connect).unwrap();
    let mut answer = [0; 4];
    link.read_exact(&mut answer).unwrap();
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    let mut link = dial_trusting(&certificates, "v1", broker.address());
    let refused = link
        .write_all(&connect)
        .and_then(|()| link.read_exact(&mut answer));
    assert!(refused.is_err());
    eventually("the cause stands in the log", || {
        let log = broker.log();
        let named = log.contains("its certificate (\"CN=localhost\", serial ");
        (named && log.contains(") is of X.509 version 1")).then_some(())
    });
}

#[test]
fn revocation_is_asked_of_the_clients_own_certificate_or_of_the_whole_chain() {
    let root = Certificates::new();
    let between = root.below();
    between.client("good", "device-1", 10);
    between.client("stolen", "device-2", 11);
    for name in ["good", "stolen"] {
        let file = format!("{name}.pem");
        let own = fs::read_to_string(between.path(&file)).unwrap();
        let ca = fs::read_to_string(between.path("between.pem")).unwrap();
        between.write(&file, &(own + &ca));
    }
    between.revoke_until(&[11], 2025);
    let start = |depth: &str| {
        let config = format!(
            "allow_anonymous = true\n[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{}client_ca = {:?}\n\
             client_crl = {:?}\n{depth}",
            root.section(),
            root.path("ca.pem"),
            between.path("crl.pem"),
        );
        Setup::new().shards(1).config(&config).start()
    };
    let told = |broker: &Broker, words: &str| {
        eventually("the cause stands in the log", || {
            broker.log().contains(words).then_some(())
        });
    };
    let broker = start("");
    told(&broker, "crl.pem: the revocation list is out of date");
    let link = Wire::Tls(&between, Some("good")).dial(broker.address());
    let (_, answer) =
        Connect::v5("c").attempt_over(Client::across(link.unwrap(), Connect::v5("c").version));
    assert!(answer.is_some(), "{}", broker.log());
    let refused = refused_handshake(Wire::Tls(&between, Some("stolen")), broker.address());
    assert!(refused.contains("CertificateRevoked"), "{refused}");
    told(
        &broker,
        "its certificate (\"CN=device-2\", serial 0B) is revoked (client_crl)",
    );
    let broker = start("client_crl_depth = \"chain\"\n");
    refused_handshake(Wire::Tls(&between, Some("good")), broker.address());
    told(&broker, "is not in client_crl (client_crl_depth)");
    // Whose revocation it is, is told as well.
    between.revoke(&[11]);
    root.revoke(&[Certificates::CA_SERIAL]);
    let lists = [&between, &root].map(|of| fs::read_to_string(of.path("crl.pem")).unwrap());
    between.write("crl.pem", &lists.concat());
    let broker = start("client_crl_depth = \"chain\"\n");
    let own = "its certificate (\"CN=device-2\", serial 0B) is revoked (client_crl)";
    let of_ca = "its certificate (\"CN=device-1\", serial 0A) is of a CA that is revoked itself (client_crl,";
    for (client, words) in [("stolen", own), ("good", of_ca)] {
        let refused = refused_handshake(Wire::Tls(&between, Some(client)), broker.address());
        assert!(refused.contains("CertificateRevoked"), "{refused}");
        told(&broker, words);
    }
}

/// Passes bytes on; the lengths of the records that the broker sends.
fn spy(broker: SocketAddr) -> (SocketAddr, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (lengths, heard) = channel();
    thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect(broker).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        let (mut server, mut client) = (server, client);
        let mut head = [0; 5];
        while server.read_exact(&mut head).is_ok() {
            let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
            let mut body = vec![0; length];
            if server.read_exact(&mut body).is_err() || lengths.send(length).is_err() {
                return;
            }
            if client.write_all(&[&head[..], &body].concat()).is_err() {
                return;
            }
        }
    });
    (address, heard)
}

#[test]
fn records_are_as_small_as_a_listener_says() {
    let certificates = Certificates::new();
    let longest = |more: &str| {
        let section = certificates.section();
        let config = format!("[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n{section}{more}");
        let broker = Setup::new().shards(1).config(&config).start();
        let (address, lengths) = spy(broker.address());
        let connect = Connect::v5("c");
        let link = Wire::Tls(&certificates, None).dial(address).unwrap();
        let (mut client, answer) = connect.attempt_over(Client::across(link, connect.version));
        assert!(answer.is_some());
        client.subscribe("t", 0);
        client.publish("t", 0, vec![b'x'; 20_000]);
        assert_eq!(client.recv_publish().payload.len(), 20_000);
        lengths.try_iter().max().unwrap()
    };
    // A byte of kind and the tag are more than the plain text.
    assert!(longest("record_bytes_max = 512\n") <= 512 + 17);
    assert!(longest("") > 4_096);
}

/// A broker whose standard error is a file of the folder.
struct Elsewhere(Child);

impl Elsewhere {
    fn start(setup: &Setup, stderr: File) -> Self {
        Elsewhere(setup.spawn(Stdio::from(stderr)))
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.0.id() as i32).unwrap();
        kill_process(id, signal).unwrap();
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines_when(folder: &Folder, name: &str, holds: &str) -> Vec<String> {
    eventually(holds, || {
        let text = folder.read(name);
        let lines = text.lines().map(str::to_owned).collect();
        (text.contains(holds) && text.ends_with('\n')).then_some(lines)
    })
}

#[test]
fn the_journal_gets_priorities_and_no_times() {
    let folder = Folder::new();
    let file = File::create(folder.0.join("stderr")).unwrap();
    let place = file.metadata().unwrap();
    let setup = Setup::new().shards(1).listen("mqtt://127.0.0.1:0").env(
        "JOURNAL_STREAM",
        &format!("{}:{}", place.dev(), place.ino()),
    );
    let _broker = Elsewhere::start(&setup, file);
    let lines = lines_when(&folder, "stderr", "listening on");
    assert!(lines.iter().all(|line| line.starts_with('<')), "{lines:?}");
    let listening = lines.iter().find(|line| line.contains("listening"));
    assert!(
        listening.unwrap().starts_with("<6> INFO listening on"),
        "{lines:?}"
    );
    // Of another stream, such as that of the service that started this one, the journal is not the reader.
    let file = File::create(folder.0.join("other")).unwrap();
    let _broker = Elsewhere::start(&setup, file);
    let lines = lines_when(&folder, "other", "listening on");
    assert!(lines.iter().all(|line| line.starts_with("20")), "{lines:?}");
}

#[test]
fn lines_are_json_where_that_is_wanted() {
    let folder = Folder::new();
    let file = File::create(folder.0.join("stderr")).unwrap();
    let setup = Setup::new()
        .shards(1)
        .listen("mqtt://127.0.0.1:0")
        .config("log_format = \"json\"\n");
    let _broker = Elsewhere::start(&setup, file);
    for line in lines_when(&folder, "stderr", "listening on") {
        let line: serde_json::Value = serde_json::from_str(&line).expect(&line);
        for key in ["timestamp", "level", "message"] {
            assert!(line[key].is_string(), "{line}");
        }
    }
}

#[test]
fn the_log_file_is_opened_anew_on_sighup() {
    let folder = Folder::new();
    let config = folder.write("ringmq.toml", "log_file = \"ringmq.log\"\n");
    let file = File::create(folder.0.join("stderr")).unwrap();
    let setup = Setup::new()
        .shards(1)
        .listen("mqtt://127.0.0.1:0")
        .arg("--config")
        .arg(&config);
    let broker = Elsewhere::start(&setup, file);
    lines_when(&folder, "ringmq.log", "listening on");
    fs::rename(folder.0.join("ringmq.log"), folder.0.join("ringmq.log.1")).unwrap();
    broker.signal(Signal::HUP);
    eventually("a new file", || {
        folder.0.join("ringmq.log").exists().then_some(())
    });
    broker.signal(Signal::USR1);
    let lines = lines_when(&folder, "ringmq.log", "counters ");
    assert!(!folder.read("ringmq.log.1").contains("counters "));
    let said = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(said("SIGHUP: log_file begun anew"), "{lines:?}");
    assert!(said("/ringmq.toml is read anew"), "{lines:?}");
    assert!(!said("nothing to reload"), "{lines:?}");
    assert_eq!(folder.read("stderr"), "");
    let outcome = Setup::new()
        .listen("mqtt://127.0.0.1:0")
        .env("RINGMQ_LOG_FILE", "/no/such/folder/log")
        .run_to_end();
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    assert!(
        outcome
            .log
            .contains("log_file: /no/such/folder/log: the folder /no/such/folder does not exist"),
        "{}",
        outcome.log
    );
}

/// The unit runs as a user that the file beside it makes, and the README installs both.
#[test]
fn the_unit_runs_as_a_user_that_is_made_for_it() {
    let text =
        |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (unit, users) = (
        text("scripts/ringmq.service"),
        text("scripts/ringmq.sysusers"),
    );
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    let user = value("User=");
    assert_eq!(user, value("Group="));
    assert!(
        users
            .lines()
            .any(|line| line.starts_with(&format!("u {user} "))),
        "{users}"
    );
    assert!(
        !unit.contains("DynamicUser"),
        "its group would not exist before"
    );
    let readme = text("README.md");
    let config = value("ExecStart=/usr/local/bin/ringmq --config ");
    let folder = Path::new(&config).parent().unwrap().to_str().unwrap();
    for part in ["scripts/ringmq.service", "scripts/ringmq.sysusers", folder] {
        assert!(readme.contains(part), "no {part}");
    }
    // What the README's example for it writes has to be where the unit lets it be written.
    let (_, example) = readme
        .split_once("\n# /etc/ringmq/ringmq.toml\n")
        .expect("the example");
    let (example, _) = example.split_once("```").unwrap();
    assert!(example.contains("/var/log/ringmq/") && unit.contains("LogsDirectory=ringmq"));
}

/// What `check-config` says of a listener.
fn wrong_place(url: &str) -> String {
    wrong(&format!("listen = [{url:?}]\nallow_anonymous = true\n"))
}

#[test]
fn check_config_finds_where_a_start_could_not_listen() {
    let folder = Folder::new();
    let plain = folder.write("plain", "kept");
    assert!(wrong_place(&format!("unix://{plain}")).contains("is no socket"));
    assert_eq!(folder.read("plain"), "kept");
    let long = format!("/{}", "x".repeat(107));
    let said = wrong_place(&format!("unix://{long}"));
    assert!(said.contains("108 bytes") && said.contains("107"), "{said}");
    // Of TEST-NET-1, which no machine has.
    let said = wrong_place("mqtt://192.0.2.1:1883");
    assert!(said.contains("no interface of this machine"), "{said}");
    // A broker that runs is no reason, nor is what it left behind.
    let socket = folder.0.join("socket");
    let broker = Setup::new()
        .listen(&format!("unix://{}", socket.display()))
        .start();
    let config = format!("listen = [\"unix://{}\"]\n", socket.display());
    let config = folder.write("ringmq.toml", config);
    let check = Setup::new().arg("check-config").arg(&config);
    assert_eq!(check.run_to_end().status.code(), Some(0));
    drop(broker);
    assert_eq!(check.run_to_end().status.code(), Some(0));
    assert!(fs::metadata(&socket).is_ok(), "it is left where it was");
}

/// What this user may not write refuses a start before anybody can come in, and `check-config` knows it.
#[test]
fn check_config_finds_what_may_not_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let closed = folder.0.join("closed");
    fs::create_dir(&closed).unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let old = folder.write("closed/old", "");
    mode(Path::new(&old), 0o444);
    mode(&closed, 0o555);
    let (closed, open) = (closed.to_str().unwrap(), folder.0.to_str().unwrap());
    let socket = |more: &str| format!("[[listener]]\nurl = \"unix://{open}/s\"\n{more}\n");
    for (config, parts) in [
        (
            format!("[storage]\ndirectory = \"{closed}/state\"\n"),
            ["storage.directory: ", "may not write into"],
        ),
        (
            format!("[storage]\ndirectory = \"{closed}\"\n"),
            ["storage.directory: ", "may not write into"],
        ),
        (
            format!("[storage]\ndirectory = \"{open}/no/state\"\n"),
            ["storage.directory: ", "does not exist"],
        ),
        (
            format!("audit_file = \"{closed}/new\"\n"),
            ["audit_file: ", "may make no file in the folder"],
        ),
        (
            format!("audit_file = {old:?}\n"),
            ["audit_file: ", "/old: "],
        ),
        (
            format!("log_file = \"{closed}/new\"\n"),
            ["log_file: ", "may make no file in the folder"],
        ),
        (
            format!("log_file = {old:?}\n"),
            ["log_file: ", "may not write it"],
        ),
        (
            format!("listen = [\"unix://{closed}/s\"]\n"),
            ["cannot listen on ", "may make no file in the folder"],
        ),
        (socket("owner_uid = 12345"), ["owner_uid", "CAP_CHOWN"]),
        (socket("owner_gid = 12345"), ["owner_gid", "CAP_CHOWN"]),
    ] {
        let config = folder.write("ringmq.toml", config);
        let humble = || Setup::new().without_rights();
        let outcome = humble().arg("check-config").arg(&config).run_to_end();
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
        let said = |part: &&str| outcome.log.contains(part);
        assert!(parts.iter().all(said), "{parts:?}: {outcome:?}");
        let outcome = humble().arg("--config").arg(&config).run_to_end();
        assert!(!outcome.status.success(), "{outcome:?}");
        assert!(!outcome.log.contains("listening on"), "{outcome:?}");
    }
    mode(Path::new(closed), 0o755);
}

/// Of all that is in a chain, and of whom clients are trusted for: no mistake, but told.
#[test]
fn certificates_that_do_not_count_are_told_of() {
    let certificates = Certificates::new();
    let read = |of: &Certificates, name: &str| fs::read_to_string(of.path(name)).unwrap();
    let chain = |days| {
        let between = certificates.below_within(days);
        between.server("server", "localhost", 2);
        let chain = read(&between, "server.pem") + &read(&between, "between.pem");
        between.write("chain.pem", &chain);
        between
    };
    let tls = |certificate: String, key: String, more: String| {
        format!(
            "allow_anonymous = true\n[[listener]]\nurl = \"mqtts://127.0.0.1:0\"\n[listener.tls]\n\
             certificate = {certificate:?}\nkey = {key:?}\n{more}"
        )
    };
    let plain = |more| {
        tls(
            certificates.path("server.pem"),
            certificates.path("server.key"),
            more,
        )
    };
    let (over, early) = (chain(-9..-3), chain(5..9));
    let of_chain = |chain: &Certificates| {
        tls(
            chain.path("chain.pem"),
            chain.path("server.key"),
            String::new(),
        )
    };
    certificates.server_from("later", 5);
    let later = tls(
        certificates.path("later.pem"),
        certificates.path("later.key"),
        String::new(),
    );
    let ca = |of: &Certificates| plain(format!("client_ca = {:?}\n", of.path("ca.pem")));
    let (ended, unborn) = (Certificates::within(-9..-3), Certificates::within(5..9));
    for (config, said) in [
        (
            of_chain(&over),
            "chain.pem: the certificate of the CA in the chain, \"CN=a CA between",
        ),
        (of_chain(&over), "ended 3 days ago: clients will not trust"),
        (of_chain(&early), "does not count before 6 days from now"),
        (later, "later.pem: the certificate does not count before 6"),
        (
            ca(&ended),
            "ca.pem: the certificate of the CA of clients, \"CN=a test's CA",
        ),
        (ca(&ended), "ended 3 days ago: its clients are refused"),
        (ca(&unborn), "does not count before 6 days from now"),
    ] {
        let log = right(&config);
        assert!(log.contains(said), "{said}: {log}");
        let broker = Setup::new().shards(1).config(&config).start();
        let log = broker.log();
        assert!(log.contains("WARN") && log.contains(said), "{said}: {log}");
    }
}

/// A file that is missing is named with the key that names it.
#[test]
fn a_missing_file_is_named_with_its_key() {
    for (config, said) in [
        ("password_file = \"no\"\n", "password_file: /"),
        ("acl_file = \"no\"\n", "acl_file: /"),
        ("[bans]\nfile = \"no\"\n", "bans.file: /"),
    ] {
        let log = wrong(config);
        assert!(
            log.contains(said) && log.contains("/no: cannot be read"),
            "{log}"
        );
    }
}

/// The TOML blocks of a text.
fn toml_blocks(text: &str) -> Vec<String> {
    let blocks = text.split("```toml\n").skip(1);
    let block = |rest: &str| rest.split("```").next().unwrap_or_default().to_owned();
    blocks.map(block).collect()
}

/// Every configuration that the READMEs print is accepted as it is printed; files that it names are made here.
#[test]
fn printed_configurations_are_accepted() {
    let certificates = Certificates::new();
    let mut checked = 0;
    for (name, text) in [
        ("README.md", include_str!("../../README.md")),
        ("loadgen/README.md", include_str!("../../loadgen/README.md")),
        (
            "authn/README.md",
            include_str!("../../src/control/authn/README.md"),
        ),
    ] {
        for block in toml_blocks(text) {
            let folder = Folder::new();
            folder.write(
                "server.pem",
                fs::read(certificates.path("server.pem")).unwrap(),
            );
            folder.write(
                "server.key",
                fs::read(certificates.path("server.key")).unwrap(),
            );
            folder.write("users", format!("ann:{HASH}\n"));
            folder.write("access", "topic readwrite #\n");
            folder.write("secret", "correct horse battery staple 2026\n");
            // The folder that the instructions make before.
            let logs = folder.0.to_str().unwrap();
            let config = block.replace("/var/log/ringmq", logs);
            let config = folder.write("ringmq.toml", config);
            let outcome = Setup::new().arg("check-config").arg(&config).run_to_end();
            assert_eq!(
                outcome.status.code(),
                Some(0),
                "{name}: {outcome:?}\n{block}"
            );
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} blocks");
}
