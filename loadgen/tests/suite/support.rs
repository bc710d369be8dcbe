//! The broker and the load generator as processes.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A RingMQ of two shards on a free port.
pub struct Broker {
    child: Child,
    pub address: String,
}

impl Broker {
    pub fn start() -> Self {
        Self::listening(&[])
    }

    /// The broker's program.
    pub fn binary() -> PathBuf {
        let binary = Path::new(env!("CARGO_BIN_EXE_loadgen")).with_file_name("ringmq");
        assert!(
            binary.exists(),
            "build the broker too: cargo test --workspace"
        );
        binary
    }

    /// With more arguments than a listener on a free port.
    pub fn listening(more: &[&str]) -> Self {
        let mut child = Command::new(Self::binary())
            .args(["--listen", "mqtt://127.0.0.1:0", "--shards", "2"])
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines
            .find_map(|line| {
                line.ok()
                    .filter(|line| line.contains("listening on mqtt://"))
            })
            .expect("the broker gets ready");
        let address = line.rsplit("mqtt://").next().unwrap().trim().to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Broker { child, address }
    }

    /// Waits until so many clients are connected: as many sockets of the kernel's table have its port and
    /// are established.
    pub fn wait_for_clients(&self, count: usize) {
        let port: u16 = self.address.rsplit(':').next().unwrap().parse().unwrap();
        let local = format!(":{port:04X}");
        loop {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let is_one = |line: &&str| {
                let mut fields = line.split_ascii_whitespace().skip(1);
                let is_local = fields.next().is_some_and(|field| field.ends_with(&local));
                is_local && fields.nth(1) == Some("01")
            };
            if table.lines().filter(is_one).count() >= count {
                return;
            }
            std::thread::yield_now();
        }
    }

    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `loadgen` against `address`.
pub fn loadgen(address: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(args)
        .args(["--broker", address])
        .output()
        .unwrap()
}

/// Runs `loadgen --json`; its exit code and its result.
pub fn measured(address: &str, args: &[&str]) -> (i32, Value) {
    let output = loadgen(address, &[args, &["--json", "--quiet"]].concat());
    let code = output.status.code().expect("loadgen ends by itself");
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{args:?} gave no result ({error}): {}{}",
            text(&output.stdout),
            text(&output.stderr)
        )
    });
    (code, json)
}

/// Runs `loadgen --json`, which has to find everything as it should be. A machine that runs tests beside
/// each other may well be the limit, and loadgen says so: that is no fault of what is tested.
pub fn clean(address: &str, args: &[&str]) -> Value {
    let (code, json) = measured(address, args);
    let verdict = json["verdict"].as_str().unwrap();
    let expected = ["clean", "generator_bound", "machine_bound"];
    assert!(expected.contains(&verdict), "{args:?}: {json}");
    assert_eq!(
        code,
        if verdict == "clean" { 0 } else { 5 },
        "{args:?}: {json}"
    );
    json
}

/// What `code` would be if the machine had not been the limit, which a machine that runs other tests may be.
pub fn or_limited(code: i32, otherwise: i32) -> i32 {
    if code == 5 { otherwise } else { code }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A sum over what each QoS saw.
pub fn breaches(json: &Value, what: &str) -> u64 {
    let all = json["breaches"].as_array().unwrap();
    all.iter().map(|b| b[what].as_u64().unwrap()).sum()
}

/// A path for a file of this test, removed when dropped.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("loadgen-{}-{number}-{name}", std::process::id());
        Scratch(std::env::temp_dir().join(unique))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A loadgen that serves, until it is dropped.
pub struct Process {
    child: Child,
    /// Its first line.
    pub said: String,
}

impl Process {
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        let said = said.trim().to_owned();
        Process { child, said }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
