//! Under a container's rules: with the seccomp profile that is shipped the broker serves, keeps and speaks TLS as
//! anywhere; where io_uring is forbidden it ends with one line that names the remedy.

use crate::support::{Certificates, Connect, Setup, unique};
use std::fs;
use std::path::Path;

const LOADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/under_seccomp.py");
const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/seccomp.json");

#[test]
fn the_seccomp_profile_allows_what_the_broker_needs() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("seccomp"));
    let certificates = Certificates::new();
    let config = format!(
        "audit_file = {:?}\n[storage]\ndirectory = {:?}\n[admin]\nlisten = \"http://127.0.0.1:0\"\n{}",
        folder.join("audit"),
        folder.join("state"),
        certificates.section()
    );
    fs::create_dir(&folder).unwrap();
    let start = || {
        let setup = Setup::new().under(&["python3", LOADER, PROFILE]);
        let setup = setup.shards(2).config(&config);
        let setup = setup.listen("mqtt://127.0.0.1:0");
        setup.listen("mqtts://localhost:0").start()
    };
    let broker = start();
    let mut client = Connect::v5("stays").persistent().open(&broker);
    client.subscribe("a", 1);
    client.retain("a", 1, "kept");
    client.expect("a", "kept");
    broker.stop();
    // What was kept is there, under the same rules.
    let broker = start();
    let client = Connect::v5("stays").persistent().open(&broker);
    assert!(client.session_present);
    client.disconnect();
    let mut other = Connect::v5(&unique("other")).open(&broker);
    other.subscribe("a", 1);
    other.expect("a", "kept");
    broker.stop();
    let _ = fs::remove_dir_all(&folder);
}

#[test]
fn a_profile_without_io_uring_ends_the_start_with_the_remedy() {
    // EPERM and ENOSYS: what profiles answer to what they do not know.
    for errno in ["1", "38"] {
        let words = [
            "python3",
            LOADER,
            "--errno",
            errno,
            "--deny",
            "io_uring_setup",
            PROFILE,
        ];
        let setup = Setup::new().under(&words).listen("mqtt://127.0.0.1:0");
        let outcome = setup.run_to_end();
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        let errors: Vec<_> = outcome
            .log
            .lines()
            .filter(|line| line.contains("ERROR"))
            .collect();
        let [error] = errors[..] else {
            panic!("one line, not: {outcome:?}");
        };
        for part in ["io_uring_setup", "seccomp", "scripts/seccomp.json"] {
            assert!(error.contains(part), "no '{part}' in {error}");
        }
    }
}
