//! What surrounds the process goes wrong: nobody reads its log, descriptors run out, a thread of it is stopped,
//! signals come that mean nothing. It goes on, or it ends with an error that says why.

use crate::support::{Broker, Client, Connect, Setup, Version, eventually, free_port, unique};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A broker whose log nobody follows.
struct Unheard {
    child: Child,
    address: SocketAddr,
}

impl Unheard {
    fn start(setup: &Setup, stderr: Stdio) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let setup = setup.clone().listen(&format!("mqtt://{address}"));
        let child = setup.spawn(stderr);
        eventually("it listens", || TcpStream::connect(address).ok().map(drop));
        Unheard { child, address }
    }

    /// Clients that want what they may not: each is a line in the log at level `debug`.
    fn visit(&self, count: usize) {
        for _ in 0..count {
            let mut client = self.client("visitor");
            client.subscribe_refused("secret", 0x80);
        }
    }

    fn client(&self, stem: &str) -> Client {
        let stream = TcpStream::connect(self.address).expect("it accepts");
        let client = Client::over(stream, Version::V4);
        let (client, connack) = Connect::v4(&unique(stem)).attempt_over(client);
        assert!(connack.is_some());
        client
    }

    fn serves(&self) {
        self.client("unheard").ping();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal the broker");
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = eventually("it stops", || self.child.try_wait().expect("wait"));
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything is said in the log, and nobody may anything.
fn talkative() -> Setup {
    let rules = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("rules"));
    std::fs::write(&rules, "").expect("write the rules");
    let config = format!("acl_file = {rules:?}\n");
    let setup = Setup::new().shards(2).config(&config);
    setup.arg("--log").arg("debug")
}

#[test]
fn a_log_whose_reader_has_gone_ends_nothing() {
    let mut broker = Unheard::start(&talkative(), Stdio::piped());
    drop(broker.child.stderr.take());
    for _ in 0..5 {
        broker.signal(Signal::USR1);
        broker.visit(20);
        broker.serves();
    }
    broker.stop();
}

#[test]
fn a_log_whose_reader_stalls_holds_up_nothing() {
    let mut broker = Unheard::start(&talkative(), Stdio::piped());
    // A pipe holds 64 KiB: signals ask for more.
    for _ in 0..300 {
        broker.signal(Signal::USR1);
        broker.serves();
    }
    for _ in 0..6_000 {
        broker.signal(Signal::USR2);
        if broker.child.try_wait().expect("wait").is_some() {
            panic!("it ended");
        }
        std::thread::yield_now();
    }
    // Many signals become one, visits do not: more of them than lines may wait and the pipe holds.
    broker.visit(7_000);
    broker.serves();
    let reader = BufReader::new(broker.child.stderr.take().expect("piped"));
    let lines = std::thread::spawn(move || {
        let is_said = |line: &String| counter_in(line, "log_lines_left_out") > Some(0);
        reader
            .lines()
            .map_while(Result::ok)
            .any(|line| is_said(&line))
    });
    eventually("it is counted", || {
        broker.signal(Signal::USR1);
        lines.is_finished().then_some(())
    });
    assert!(lines.join().expect("reader"));
    broker.serves();
    broker.stop();
}

/// The value of a counter in a line of the log.
fn counter_in(line: &str, name: &str) -> Option<u64> {
    let pairs = line
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(known, _)| *known == name);
    found.next()?.1.parse().ok()
}

/// A pipe whose reader goes, and another one comes later.
#[test]
fn lines_that_nobody_took_are_counted() {
    let path = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("pipe"));
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo (coreutils)").success());
    let open = |writes| {
        let mut options = std::fs::File::options();
        options.read(true).write(writes).open(&path).expect("open")
    };
    let first = open(true);
    let to = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("open");
    let broker = Unheard::start(&talkative(), to.into());
    drop(first);
    // Nothing tells when a line is written, so perhaps the next reader comes too early.
    eventually("it is counted", || {
        broker.visit(20);
        let reader = BufReader::new(open(false));
        broker.signal(Signal::USR1);
        let mut lines = reader.lines().map_while(Result::ok);
        let failed = lines.find_map(|line| counter_in(&line, "log_lines_failed"));
        (failed? > 0).then_some(())
    });
    broker.stop();
    std::fs::remove_file(&path).expect("remove");
}

#[test]
fn a_full_disk_under_the_log_ends_nothing() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let broker = Unheard::start(&talkative(), full.into());
    broker.visit(50);
    broker.serves();
    broker.stop();
}

#[test]
fn counters_are_told_at_every_level() {
    for level in ["error", "warn", "info", "debug"] {
        let broker = Unheard::start(
            &Setup::new().shards(1).arg("--log").arg(level),
            Stdio::piped(),
        );
        let mut broker = broker;
        broker.serves();
        broker.signal(Signal::USR1);
        let reader = BufReader::new(broker.child.stderr.take().expect("piped"));
        let told = reader
            .lines()
            .map_while(Result::ok)
            .find(|line| line.contains("counters "));
        assert!(told.is_some_and(|line| line.contains("log_lines_left_out=0")));
        broker.stop();
    }
}

#[test]
fn signals_that_mean_nothing_are_named_and_end_nothing() {
    let broker = Broker::start(1);
    for signal in [
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
    ] {
        broker.signal(signal);
    }
    eventually("each is named", || {
        (broker.log().matches("means nothing to the broker").count() == 5).then_some(())
    });
    broker.stop();
}

#[test]
fn the_table_of_descriptors_need_not_grow_while_clients_connect() {
    let broker = Broker::start(2);
    let of_process = |file: &str, name: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", broker.id())).expect("proc");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_whitespace().next());
        value.map_or(0, |value| value.parse().unwrap_or(u64::MAX))
    };
    let limit = of_process("limits", "Max open files");
    let size = of_process("status", "FDSize:");
    assert!(size >= limit.min(1 << 18), "{size} of {limit}");
}

#[test]
fn without_descriptors_connects_are_refused_at_once_and_it_is_said() {
    let broker = Broker::start(2);
    let open = broker.descriptors() as u64;
    let limit = format!("--nofile={}", open + 40);
    let pid = broker.id().to_string();
    let limited = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(limited.expect("prlimit (util-linux)").success());
    let mut clients = Vec::new();
    let begun = Instant::now();
    let mut refused = 0;
    while refused < 20 {
        let mut stream = TcpStream::connect(broker.address()).expect("the kernel accepts");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("timeout");
        let served = stream
            .write_all(&Connect::v4(&unique("many")).encode())
            .and_then(|()| stream.read_exact(&mut [0; 4]));
        match served {
            Ok(()) => clients.push(stream),
            Err(_) => refused += 1,
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    assert!(clients.len() >= 20, "{} were served", clients.len());
    let line = "all descriptors of the process";
    eventually(line, || broker.log().contains(line).then_some(()));
    let counters = broker.counters();
    assert!(counters.get("connections_refused_descriptors") >= 1);
    assert!(counters.get("accepts_paused_descriptors") >= 1);
    drop(clients);
    // They are let in as soon as there is room.
    eventually("somebody is served", || {
        let mut stream = TcpStream::connect(broker.address()).ok()?;
        stream
            .write_all(&Connect::v4(&unique("later")).encode())
            .ok()?;
        stream.read_exact(&mut [0; 4]).ok()
    });
    broker.stop();
}

/// With as few descriptors as a start asks for, whoever comes is served or closed at once.
#[test]
fn few_descriptors_are_enough_to_refuse_or_are_refused_themselves() {
    let setup = Setup::new().shards(2).listen("mqtt://127.0.0.1:0");
    let outcome = setup.clone().descriptors(20).run_to_end();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.log);
    let told = "only 20 descriptors may be open; 2 shard(s) with these listeners need at least ";
    let needed = outcome.log.split(told).nth(1).expect("it says how many");
    let needed = needed.split(',').next().and_then(|text| text.parse().ok());
    let needed: u64 = needed.unwrap_or_else(|| panic!("{}", outcome.log));
    for max in [needed, needed + 20] {
        let broker = setup.clone().descriptors(max).start();
        let mut clients = Vec::new();
        let mut refused = 0;
        while refused < 20 {
            let mut stream = TcpStream::connect(broker.address()).expect("the kernel accepts");
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).expect("timeout");
            let served = stream
                .write_all(&Connect::v4(&unique("few")).encode())
                .and_then(|()| stream.read_exact(&mut [0; 4]));
            match served.map_err(|error| error.kind()) {
                Ok(()) => clients.push(stream),
                Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("it hangs"),
                Err(_) => refused += 1,
            }
        }
        assert!(!clients.is_empty());
        assert!(broker.counters().get("connections_refused_descriptors") >= 1);
        broker.stop();
    }
}

/// However few there may be: one line says so, and what lies under the shards is never left without one.
#[test]
fn too_few_threads_refuse_the_start_in_one_line() {
    let mine = rustix::process::geteuid().as_raw();
    let of_all = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let of = |name| {
            let line = status.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_whitespace().nth(1));
            value.and_then(|value| value.parse::<u32>().ok())
        };
        of("Threads:")
            .filter(|_| of("Uid:") == Some(mine))
            .unwrap_or(0)
    };
    for threads in 1..11 {
        let mut limited = Setup::new().shards(4).listen("mqtt://127.0.0.1:0");
        // Root has no such limit, and another user nothing that runs.
        let others = if mine == 0 {
            limited = limited.under(&[
                "setpriv",
                "--reuid=54321",
                "--regid=54321",
                "--clear-groups",
            ]);
            0
        } else {
            let processes = std::fs::read_dir("/proc").expect("/proc");
            let names = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            names.map(|pid| of_all(&pid)).sum()
        };
        let limit = format!("--nproc={}", others + threads);
        let outcome = limited.under(&["prlimit", &limit]).run_to_end();
        assert_eq!(outcome.status.code(), Some(1), "{threads}: {}", outcome.log);
        let is_told = outcome.log.contains("`ulimit -u`");
        assert!(
            is_told && !outcome.log.contains("panicked"),
            "{threads}: {}",
            outcome.log
        );
    }
}

/// Beyond its address space an allocation ends the process: what clients make it hold must stay below.
#[test]
fn a_small_address_space_is_kept_to_or_refused() {
    let limited = |mib: u64| {
        let limit = format!("--as={}", mib << 20);
        Setup::new().shards(1).under(&["prlimit", &limit])
    };
    let outcome = limited(100).listen("mqtt://127.0.0.1:0").run_to_end();
    let told = "the process may take 100 MiB only; so many shards need at least 128";
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.log);
    assert!(outcome.log.contains(told), "{}", outcome.log);

    let broker = limited(512).start();
    assert!(broker.log().contains("memory: 128 MiB may be used"));
    let names: Vec<String> = (0..10).map(|_| unique("away")).collect();
    for name in &names {
        let mut away = Connect::v5(name).persistent().open(&broker);
        away.subscribe(name, 1);
        away.disconnect();
    }
    let mut attacker = Connect::v5(&unique("attacker")).open(&broker);
    let payload = vec![b'x'; 500_000];
    for n in 0..1_000 {
        attacker.publish(&names[n % 10], 1, &payload);
    }
    assert!(broker.counters().get("dropped_memory") > 0);
    attacker.ping();
    broker.stop();
}

#[test]
fn shards_that_are_not_pinned_serve_too() {
    let broker = Broker::with_config(2, "pin = false\n");
    assert!(broker.log().contains("not pinned"));
    Connect::v5(&unique("free")).open(&broker).ping();
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.id())).expect("status");
    let all = cpus_allowed(&status);
    for task in std::fs::read_dir(format!("/proc/{}/task", broker.id())).expect("tasks") {
        let status = std::fs::read_to_string(task.expect("task").path().join("status"));
        assert_eq!(cpus_allowed(&status.expect("status")), all);
    }
    broker.stop();
}

#[test]
fn no_turn_has_to_clear_a_huge_page() {
    let broker = Broker::start(1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.id())).expect("status");
    let huge_pages = status.lines().find(|line| line.starts_with("THP_enabled:"));
    // Older kernels do not say.
    if let Some(line) = huge_pages {
        assert_eq!(line.split_whitespace().last(), Some("0"));
    }
    broker.stop();
}

fn cpus_allowed(status: &str) -> String {
    let line = status
        .lines()
        .find(|line| line.starts_with("Cpus_allowed:"));
    line.expect("Cpus_allowed").to_owned()
}

/// Stops one thread of a process, by its name, until it is dropped.
pub struct Frozen(Child);

impl Frozen {
    pub fn thread(process: u32, name: &str) -> Self {
        const SCRIPT: &str = r"
import ctypes, os, sys
process, name = sys.argv[1:]
tasks = f'/proc/{process}/task'
named = lambda t: open(f'{tasks}/{t}/comm').read().startswith(name + '-')
thread = min(int(t) for t in os.listdir(tasks) if named(t))
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, INTERRUPT = 0x4206, 0x4207
for request in (SEIZE, INTERRUPT):
    if libc.ptrace(request, thread, None, None):
        sys.exit('this machine forbids ptrace: ' + os.strerror(ctypes.get_errno()))
os.waitpid(thread, 0x40000000)
print('frozen', flush=True)
# Its end has to be seen by whoever traces it.
os.waitpid(thread, 0x40000000)
";
        let mut python = Command::new("python3")
            .args(["-c", SCRIPT, &process.to_string(), name])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut said = String::new();
        let output = python.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut said).expect("read");
        assert_eq!(said.trim(), "frozen");
        Frozen(python)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stop_keeps_its_deadline_whatever_a_shard_does() {
    let mut broker = Broker::with_config(2, "[shutdown]\ndeadline_ms = 500\n");
    let frozen = Frozen::thread(broker.id(), "ringmq-1");
    broker.signal(Signal::TERM);
    let status = broker.wait_exit();
    assert_eq!(status.code(), Some(1));
    let log = broker.log();
    assert!(log.contains("shard(s) [1] do not answer"), "{log}");
    drop(frozen);
}

#[test]
fn statistics_do_not_wait_for_a_shard_that_does_not_answer() {
    let broker = Broker::start(2);
    let frozen = Frozen::thread(broker.id(), "ringmq-1");
    assert_eq!(broker.counters().get("shards_silent"), 1);
    drop(frozen);
    // A late answer is not taken for a new one.
    broker.await_counter("shards_silent", 0);
    broker.stop();
}

#[test]
fn bans_and_further_signals_do_not_wait_for_a_shard_that_does_not_answer() {
    let bans = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), unique("bans"));
    std::fs::write(&bans, "").expect("write");
    let broker = Broker::with_config(2, &format!("[bans]\nfile = {bans:?}\n"));
    // By the chance of their names on both shards.
    let names: Vec<_> = (0..32).map(|_| unique("banned")).collect();
    let open = |name: &String| Connect::v5(name).open(&broker);
    let clients: Vec<_> = names.iter().map(open).collect();
    let frozen = Frozen::thread(broker.id(), "ringmq-1");
    broker.signal(Signal::USR1);
    // What came before this one was heard before.
    broker.signal(Signal::USR2);
    eventually("the next signal is heard", || {
        broker.log().contains("means nothing").then_some(())
    });
    let lines: String = names
        .iter()
        .map(|name| format!("client {name}\n"))
        .collect();
    std::fs::write(&bans, lines).expect("write");
    broker.signal(Signal::HUP);
    eventually("the bans are in force", || {
        broker.log().contains("is banned (bans.file").then_some(())
    });
    // Nor by another that finds nothing new in the file.
    broker.signal(Signal::HUP);
    eventually("the second is heard", || {
        (broker.log().matches("SIGHUP: ").count() == 2).then_some(())
    });
    let reloaded = "the bans are reloaded";
    assert!(!broker.log().contains(reloaded), "not where it is");
    assert!(
        !broker.log().contains("counters "),
        "it waits for the shard"
    );
    eventually("the statistics are told", || {
        broker.log().contains("shards_silent=1").then_some(())
    });
    assert!(!broker.log().contains(reloaded), "not everywhere");
    let banned = broker.counters().get("connections_banned");
    assert!((1..names.len() as u64).contains(&banned), "{banned}");
    drop(frozen);
    broker.await_counter("connections_banned", names.len() as u64);
    eventually(reloaded, || broker.log().contains(reloaded).then_some(()));
    drop(clients);
    broker.stop();
    std::fs::remove_file(&bans).expect("remove");
}

/// A server of keys that does not answer holds up who reads them, and nobody else.
#[test]
fn a_reload_does_not_wait_for_a_server_of_keys() {
    let server = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}/jwks", server.local_addr().expect("address"));
    let config = format!(
        "allow_anonymous = true\n[authentication.jwt]\njwks_url = {url:?}\njwks_refresh_seconds = 1\n"
    );
    let broker = Broker::with_config(1, &config);
    // It is taken and never answered.
    let (held, _) = server.accept().expect("the keys are asked for");
    broker.signal(Signal::HUP);
    broker.signal(Signal::USR2);
    eventually("the next signal is heard", || {
        broker.log().contains("means nothing").then_some(())
    });
    assert!(
        !broker.log().contains("could not be read"),
        "it waits for the server: {}",
        broker.log()
    );
    drop(held);
    let line = "keys for tokens could not be read; no token counts until they are";
    eventually(line, || broker.log().contains(line).then_some(()));
}

#[test]
fn a_dead_shard_is_named_and_ends_the_process() {
    let mut broker = Broker::with_config(2, "[watchdog]\nsilence_seconds_max = 4\n");
    let frozen = Frozen::thread(broker.id(), "ringmq-0");
    let status = broker.wait_exit();
    assert_eq!(status.code(), Some(1));
    let log = broker.log();
    assert!(log.contains("shard 0 has not turned"), "{log}");
    assert!(log.contains("watchdog.silence_seconds_max"), "{log}");
    drop(frozen);
}
