//! The broker process under test.
//!
//! It listens on a port of its own choice, is killed when the test ends, and prints its log if the
//! test failed. `RINGMQ_TEST_BINARY` names another build to test, for instance a release build.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::client::PATIENCE;

const READY: &str = "listening on ";

/// How to start a broker.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    shards: Option<usize>,
    config: Option<String>,
    listen: Vec<String>,
    tables: usize,
    env: Vec<(String, String)>,
    args: Vec<String>,
    group: Option<PathBuf>,
    under: Vec<String>,
}

/// How a broker process ended and what it wrote.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    /// Standard error.
    pub log: String,
    /// Standard output.
    pub output: String,
}

impl Setup {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Gives the broker this text as its configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// Listens on `url`; without any, on a free port of 127.0.0.1.
    pub fn listen(mut self, url: &str) -> Self {
        self.listen.push(url.to_owned());
        self
    }

    /// Listens where the `[[listener]]` tables of a file say that it is given as a flag.
    pub fn tables(mut self, tables: usize) -> Self {
        self.tables = tables;
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Starts it in this control group, given by its directory.
    pub fn group(mut self, directory: &Path) -> Self {
        self.group = Some(directory.to_owned());
        self
    }

    /// Starts it by this program, which becomes the broker, as `nice` does.
    pub fn under(mut self, program: &[&str]) -> Self {
        let words = program.iter().map(|word| (*word).to_owned());
        self.under.extend(words);
        self
    }

    /// Starts it with no more than so many descriptors, also where root runs it.
    pub fn descriptors(self, max: u64) -> Self {
        let setup = if rustix::process::geteuid().is_root() {
            self.under(&["setpriv", "--bounding-set=-sys_resource"])
        } else {
            self
        };
        setup.under(&["prlimit", &format!("--nofile={max}")])
    }

    /// Starts it without what root may do to files of others and to those that may not be written.
    pub fn without_rights(self) -> Self {
        if rustix::process::geteuid().is_root() {
            self.under(&[
                "setpriv",
                "--bounding-set=-dac_override,-dac_read_search,-chown",
            ])
        } else {
            self
        }
    }

    fn command(&self, listen_by_default: bool) -> Command {
        let binary = std::env::var_os("RINGMQ_TEST_BINARY")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_ringmq").into());
        let mut command = match &self.group {
            None => match self.under.split_first() {
                None => Command::new(binary),
                Some((program, words)) => {
                    let mut command = Command::new(program);
                    command.args(words).arg(binary);
                    command
                }
            },
            Some(group) => {
                // The shell goes into the group and becomes the broker there.
                let mut shell = Command::new("sh");
                shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
                shell.arg(group.join("cgroup.procs")).arg(binary);
                shell
            }
        };
        command.args(&self.args);
        if let Some(shards) = self.shards {
            command.args(["--shards", &shards.to_string()]);
        }
        if let Some(config) = &self.config {
            command.arg("--config").arg(config_file(config));
        }
        for url in &self.listen {
            command.args(["--listen", url]);
        }
        let has_tables = self.tables > 0
            || self
                .config
                .as_deref()
                .is_some_and(|text| text.contains("[[listener]]"));
        if listen_by_default && self.listen.is_empty() && !has_tables {
            command.args(["--listen", "mqtt://127.0.0.1:0"]);
        }
        // Numbers that a test counts are its own, and one port is not for all.
        let says = |key: &str| {
            self.config
                .as_deref()
                .is_some_and(|text| text.contains(key))
        };
        if !says("[admin]") {
            command.env("RINGMQ_ADMIN__LISTEN", "off");
        }
        if !says("sys_interval_s") {
            command.env("RINGMQ_MQTT__SYS_INTERVAL_S", "0");
        }
        command
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the broker and waits until it serves.
    pub fn start(&self) -> Broker {
        let mut child = self.command(true).spawn().expect("start the broker");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        let writer = Arc::clone(&log);
        std::thread::spawn(move || writer.follow(BufReader::new(stderr)));
        let mut broker = Broker {
            child,
            addresses: Vec::new(),
            log,
            counting: Mutex::new(()),
            stopped: false,
        };
        let tables = self
            .config
            .as_deref()
            .map_or(self.tables, |text| text.matches("[[listener]]").count());
        let wanted = match self.listen.len() {
            0 if tables > 0 => tables,
            urls => urls.max(1),
        };
        for _ in 0..wanted {
            let from = broker.addresses.len();
            let line = broker.log.wait(|lines| {
                lines
                    .iter()
                    .filter(|line| line.contains(READY))
                    .nth(from)
                    .cloned()
            });
            let line = line.unwrap_or_else(|| panic!("no '{READY}': {}", broker.log.text()));
            broker.addresses.push(address_in(&line));
        }
        broker
    }

    /// Starts the broker without waiting, its log going to `stderr`.
    pub fn spawn(&self, stderr: Stdio) -> Child {
        let mut command = self.command(false);
        command.stderr(stderr).spawn().expect("start the broker")
    }

    /// Runs the broker where it has to end by itself, as after a wrong setting.
    pub fn run_to_end(&self) -> Outcome {
        Self::end(self.command(false))
    }

    /// Runs the program as a tool, which reads no settings but its own.
    pub fn tool(&self) -> Outcome {
        let mut command = self.command(false);
        for key in ["RINGMQ_ADMIN__LISTEN", "RINGMQ_MQTT__SYS_INTERVAL_S"] {
            if !self.env.iter().any(|(name, _)| name == key) {
                command.env_remove(key);
            }
        }
        Self::end(command)
    }

    fn end(mut command: Command) -> Outcome {
        let mut child = command.spawn().expect("start the broker");
        // Meanwhile, since a pipe takes only so much.
        let mut stdout = child.stdout.take().expect("stdout is piped");
        let reader = std::thread::spawn(move || {
            let mut output = Vec::new();
            stdout
                .read_to_end(&mut output)
                .expect("read standard output");
            output
        });
        if wait(&mut child, PATIENCE).is_none() {
            let _ = child.kill();
        }
        let ended = child.wait_with_output().expect("wait for the broker");
        let output = reader.join().expect("read standard output");
        Outcome {
            status: ended.status,
            log: String::from_utf8_lossy(&ended.stderr).into_owned(),
            output: String::from_utf8_lossy(&output).into_owned(),
        }
    }
}

/// Writes `text` to a new file that the broker can read.
fn config_file(text: &str) -> PathBuf {
    let name = format!("{}.toml", super::unique("ringmq"));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("write the configuration file");
    path
}

fn address_in(line: &str) -> SocketAddr {
    let start = line.find("://").expect("the line names a listener") + 3;
    let rest = &line[start..];
    if rest.starts_with('/') {
        // A socket in the file system has no address.
        return SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    }
    let end = rest
        .find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)))
        .unwrap_or(rest.len());
    rest[..end]
        .parse()
        .unwrap_or_else(|error| panic!("address in '{line}': {error}"))
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("wait for the broker") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    // Not of those that the system gives to others meanwhile: they begin at 32,768.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + std::process::id() as u16 % 10_000;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// Lines of the broker's log as they come.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, reader: impl BufRead) {
        for line in reader.lines().map_while(Result::ok) {
            self.state().lines.push(line);
            self.changed.notify_all();
        }
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Waits until `pick` finds something; `None` when the log ended or nothing came.
    fn wait<T>(&self, mut pick: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        loop {
            if let Some(found) = pick(&state.lines) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn text(&self) -> String {
        self.state().lines.join("\n")
    }
}

/// Counters by name, as the broker logs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// The counter `name`, which has to exist.
    pub fn get(&self, name: &str) -> u64 {
        *self
            .0
            .get(name)
            .unwrap_or_else(|| panic!("no counter '{name}' in {:?}", self.0))
    }

    /// Names of all counters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Sum of all counters whose name starts with `prefix`.
    pub fn sum(&self, prefix: &str) -> u64 {
        self.0
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, value)| value)
            .sum()
    }
}

/// A running broker.
pub struct Broker {
    child: Child,
    addresses: Vec<SocketAddr>,
    log: Arc<Log>,
    counting: Mutex<()>,
    stopped: bool,
}

impl Broker {
    /// Starts a broker with default settings.
    pub fn start(shards: usize) -> Self {
        Setup::new().shards(shards).start()
    }

    /// Starts a broker with a configuration file.
    pub fn with_config(shards: usize, toml: &str) -> Self {
        Setup::new().shards(shards).config(toml).start()
    }

    /// The address of the first listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The addresses of all listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Everything the broker logged so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Process identifier.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the broker.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("signal the broker");
    }

    /// The broker's counters now, summed over its shards.
    pub fn counters(&self) -> Counters {
        let _turn = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.log.state().lines.len();
        self.signal(Signal::USR1);
        let line = self.log.wait(|lines| {
            lines[seen..]
                .iter()
                .find(|line| line.contains("counters "))
                .cloned()
        });
        let line = line.expect("SIGUSR1 makes the broker log its counters");
        let start = line.find("counters ").expect("just found") + "counters ".len();
        let pairs = line[start..].split_whitespace().filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Counters(pairs.collect())
    }

    /// Waits until the counter `name` is `value`.
    pub fn await_counter(&self, name: &str, value: u64) {
        let mut last = 0;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            last = self.counters().get(name);
            if last == value {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("counter {name} stays {last}, expected {value}");
    }

    /// Open descriptors of the broker.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("list the broker's descriptors")
            .count()
    }

    /// Resident memory of the broker.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))
            .expect("read the broker's status");
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse::<u64>().ok())
            .expect("VmRSS in the status");
        kib * 1024
    }

    /// Waits for the end of a broker that was told to stop.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let status = wait(&mut self.child, PATIENCE).expect("the broker never exited");
        self.stopped = true;
        status
    }

    /// Stops the broker by SIGTERM; it has to exit with code 0.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_exit();
        assert_eq!(status.code(), Some(0), "exit after SIGTERM: {status}");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log.text();
            let skip = log.lines().count().saturating_sub(60);
            eprintln!("--- end of the broker's log");
            for line in log.lines().skip(skip) {
                eprintln!("{line}");
            }
        } else if let (Some(status), false) = (ended, self.stopped) {
            panic!("the broker ended by itself: {status}\n{}", self.log.text());
        }
    }
}

type Pool = BTreeMap<(usize, String), Weak<Broker>>;

/// A broker that tests with the same shards and configuration use together. It lives as long as one
/// of them holds it.
pub fn shared(shards: usize, config: &str) -> Arc<Broker> {
    static POOL: Mutex<Pool> = Mutex::new(BTreeMap::new());
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (shards, config.to_owned());
    if let Some(broker) = pool.get(&key).and_then(Weak::upgrade) {
        return broker;
    }
    let broker = Arc::new(Broker::with_config(shards, config));
    pool.insert(key, Arc::downgrade(&broker));
    broker
}
