//! `ringmq top` on a terminal: what a person reads there, what keys do, and that the terminal is as it was
//! however the program ends; and lists there.

use crate::admin::{ANYWHERE, address};
use crate::operator::run;
use crate::support::{Broker, Connect, PATIENCE, Props, Setup, eventually, free_port, prop};
use ringmq::cli::operator::top::terminal::Screen;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// A program on a terminal of its own, which somebody looks at.
struct Seen {
    child: Child,
    /// Where keys are pressed.
    keys: File,
    /// The terminal as the program has it.
    terminal: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Seen {
    /// On a terminal of 80x24.
    fn start(program: &str, words: &[&str], env: &[(&str, &str)]) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let keys = keys.expect("a terminal");
        grantpt(&keys).expect("it is ours");
        unlockpt(&keys).expect("it may be opened");
        let path = ptsname(&keys, Vec::new()).expect("its name");
        tcsetwinsize(&keys, size(80, 24)).expect("its size");
        let path = path.into_string().expect("a path");
        let terminal = OpenOptions::new().read(true).write(true).open(path);
        let terminal = terminal.expect("open it");
        let end = || terminal.try_clone().expect("its descriptor");
        // A session of its own, with this terminal.
        let mut command = Command::new("setsid");
        command.args(["--ctty", program]).args(words);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.envs(env.iter().copied());
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("start it");
        let keys = File::from(keys);
        let mut shown = keys.try_clone().expect("its descriptor");
        let screen = Arc::new(Mutex::new(vt100::Parser::default()));
        let parser = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = shown.read(&mut bytes) {
                let mut parser = parser.lock().unwrap_or_else(PoisonError::into_inner);
                parser.process(&bytes[..count]);
            }
        });
        Seen {
            child,
            keys,
            terminal,
            screen,
        }
    }

    fn top(at: &str, words: &[&str]) -> Self {
        Self::top_on(at, words, &[])
    }

    fn top_on(at: &str, words: &[&str], env: &[(&str, &str)]) -> Self {
        Self::ringmq(&[&["top", "--admin", at], words].concat(), env)
    }

    fn ringmq(words: &[&str], env: &[(&str, &str)]) -> Self {
        let binary = std::env::var("RINGMQ_TEST_BINARY");
        let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_ringmq").to_owned());
        Self::start(&binary, words, env)
    }

    fn with_screen<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        let parser = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        look(parser.screen())
    }

    fn lines(&self) -> Vec<String> {
        let text = self.with_screen(vt100::Screen::contents);
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// Waits until a line is as wanted.
    #[track_caller]
    fn until(&self, what: &str, is_wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.lines().iter().any(|line| is_wanted(line)) {
            let lines = self.lines().join("\n");
            assert!(Instant::now() < deadline, "never seen: {what}\n{lines}");
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn until_shown(&self, text: &str) {
        self.until(text, |line| line.contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("press keys");
    }

    fn resize(&self, columns: u16, rows: u16) {
        let mut parser = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let some = |number| NonZeroU16::new(number).expect("not 0");
        parser.set_size(some(rows), some(columns));
        tcsetwinsize(&self.keys, size(columns, rows)).expect("its size");
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("an id");
        kill_process(Pid::from_raw(id).expect("an id"), signal).expect("signal it");
    }

    /// How it has ended; the terminal is as it was.
    #[track_caller]
    fn end(mut self) -> ExitStatus {
        let status = eventually("it ends", || self.child.try_wait().expect("wait for it"));
        let modes = tcgetattr(&self.terminal).expect("its modes").local_modes;
        let wanted = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        assert!(modes.contains(wanted), "{modes:?}");
        eventually("the shell's own screen is back", || {
            let is_back =
                |screen: &vt100::Screen| !screen.alternate_screen() && !screen.hide_cursor();
            self.with_screen(is_back).then_some(())
        });
        status
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clients of whom one is slow, and two are loud.
fn clients(broker: &Broker) -> Vec<crate::support::Client> {
    let one_at_a_time = Props::new().two(prop::RECEIVE_MAXIMUM, 1);
    let mut slow = Connect::v5("slow-1").props(one_at_a_time).open(broker);
    slow.subscribe("plant/+", 1);
    let mut clients = vec![slow];
    for (id, count) in [("loud-1", 30), ("loud-2", 10)] {
        let mut publisher = Connect::v5(id).open(broker);
        for _ in 0..count {
            publisher.publish("plant/1", 1, "12345");
        }
        clients.push(publisher);
    }
    clients
}

/// The first word of the row under a head.
fn first_under(seen: &Seen, head: &str) -> Option<String> {
    let lines = seen.lines();
    let at = lines.iter().position(|line| line.starts_with(head))?;
    let row = lines.get(at + 1)?;
    row.split_whitespace().next().map(str::to_owned)
}

#[test]
fn a_person_reads_sorts_filters_and_quits() {
    let broker = Broker::with_config(2, ANYWHERE);
    let _clients = clients(&broker);
    let at = format!("http://{}", address(&broker));
    let mut seen = Seen::top(&at, &["--every", "0.2"]);
    seen.until_shown(&format!("at {at}"));
    assert!(seen.with_screen(vt100::Screen::alternate_screen));
    seen.until_shown("conns 3");
    seen.until("rates", |line| line.starts_with("in 0/s"));
    seen.until("the slow one", |line| line.starts_with("slow-1 "));
    let first = |head: &str, wanted: &str| {
        eventually(wanted, || {
            let found = first_under(&seen, head)?;
            (found == wanted).then_some(())
        });
    };
    first("LOUD CLIENT", "loud-1");
    // The next list, by its next column, the other way round.
    let mut keys = seen.keys.try_clone().expect("its descriptor");
    keys.write_all(b"\tsr").expect("press keys");
    seen.until_shown("BYTES/S▲");
    first("LOUD CLIENT", "loud-2");
    keys.write_all(b"/ud-1\r").expect("press keys");
    seen.until_shown("only \"ud-1\"");
    first("LOUD CLIENT", "loud-1");
    assert!(!seen.lines().iter().any(|line| line.starts_with("loud-2")));
    seen.press("\u{1b}");
    seen.until("all of them", |line| line.starts_with("loud-2"));
    seen.press("p");
    seen.until_shown("paused");
    seen.press("?");
    seen.until_shown("q, Esc, Ctrl-C   quit");
    seen.press("q");
    seen.resize(132, 43);
    seen.until_shown("LOUD TOPICS");
    seen.resize(50, 10);
    seen.until_shown("50x10 is too small");
    seen.press("q");
    assert_eq!(seen.end().code(), Some(0));
    broker.stop();
}

#[test]
fn a_terminal_without_places_is_told_once() {
    let broker = Broker::with_config(1, ANYWHERE);
    let at = format!("http://{}", address(&broker));
    let words = ["--every", "0.1"];
    let seen = Seen::top_on(&at, &words, &[("TERM", "dumb")]);
    seen.until_shown("LOUD CLIENT");
    seen.until("no keys", |line| line.starts_with("LOUD TOPICS"));
    assert!(!seen.lines().iter().any(|line| line.contains("q quit")));
    assert_eq!(seen.end().code(), Some(0));
    broker.stop();
}

#[test]
fn a_signal_gives_the_terminal_back_and_ends_it() {
    let broker = Broker::with_config(1, ANYWHERE);
    let at = format!("http://{}", address(&broker));
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let seen = Seen::top(&at, &[]);
        seen.until_shown("q quit");
        seen.signal(signal);
        assert_eq!(seen.end().signal(), Some(signal.as_raw()));
    }
    broker.stop();
}

#[test]
fn it_stands_aside_for_the_shell_and_goes_on() {
    let broker = Broker::with_config(1, ANYWHERE);
    let mut seen = Seen::top(&format!("http://{}", address(&broker)), &[]);
    seen.until_shown("q quit");
    seen.press("\u{1a}");
    eventually("the shell's own screen is back", || {
        seen.with_screen(|screen| (!screen.alternate_screen()).then_some(()))
    });
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", seen.child.id()));
        let stat = stat.expect("it is there");
        stat.rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with('T'))
    };
    eventually("it is stopped", || state().filter(|is_so| *is_so));
    seen.signal(Signal::CONT);
    eventually("it is back", || {
        seen.with_screen(|screen| screen.alternate_screen().then_some(()))
    });
    seen.until_shown("q quit");
    seen.press("\u{3}");
    assert_eq!(seen.end().code(), Some(0));
    broker.stop();
}

#[test]
fn a_panic_gives_the_terminal_back() {
    const PANICS: &str = "RINGMQ_TEST_PANICS";
    if std::env::var_os(PANICS).is_some() {
        // What drops it would give it back too: a release aborts before that.
        std::mem::forget(Screen::enter().expect("a terminal"));
        panic!("as planned");
    }
    let itself = std::env::current_exe().expect("this program");
    let name = "top_live::a_panic_gives_the_terminal_back";
    let words = ["--exact", name, "--nocapture"];
    let seen = Seen::start(itself.to_str().expect("a path"), &words, &[(PANICS, "1")]);
    seen.until_shown("as planned");
    assert_ne!(seen.end().code(), Some(0));
}

#[test]
fn a_broker_that_goes_away_is_told_of_and_seen_again_when_it_is_back() {
    let port = free_port();
    let config = format!("[admin]\nlisten = \"http://127.0.0.1:{port}\"\n");
    let broker = Broker::with_config(1, &config);
    let _clients = clients(&broker);
    let at = format!("http://{}", address(&broker));
    let mut seen = Seen::top(&at, &["--every", "0.2"]);
    seen.until("the slow one", |line| line.starts_with("slow-1 "));
    broker.stop();
    seen.until_shown("no broker is reached at");
    seen.until("no rates", |line| line.starts_with("in -/s"));
    assert_eq!(first_under(&seen, "SLOW CLIENT").as_deref(), Some("slow-1"));
    let broker = Broker::with_config(1, &config);
    seen.until_shown("conns 0");
    seen.until("rates", |line| line.starts_with("in 0/s"));
    assert!(!seen.lines().iter().any(|line| line.contains("is reached")));
    seen.press("q");
    assert_eq!(seen.end().code(), Some(0));
    broker.stop();
}

#[test]
fn where_no_broker_is_reached_the_terminal_is_left_alone() {
    let at = format!("http://127.0.0.1:{}", free_port());
    let seen = Seen::top(&at, &[]);
    seen.until_shown("no broker is reached at");
    assert_eq!(seen.end().code(), Some(1));
}

#[test]
fn where_there_is_no_terminal_it_tells_once() {
    let broker = Setup::new().shards(2).config(ANYWHERE).start();
    let _clients = clients(&broker);
    let at = format!("http://{}", address(&broker));
    let told = run(&["top", "--admin", &at, "--every", "0.2"], &[]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    for head in [
        "received ",
        "LATENCY UP TO",
        "SHARD ",
        "SLOW CLIENT ",
        "LOUD TOPICS ",
    ] {
        let is_there = told.output.lines().any(|line| line.starts_with(head));
        assert!(is_there, "no '{head}' in {}", told.output);
    }
    let told = run(&["top", "--json", "--admin", &at, "--every", "0.1"], &[]);
    let whole: serde_json::Value = serde_json::from_str(&told.output).expect("JSON");
    assert_eq!(whole["loud_clients"][0]["name"], "loud-1", "{whole}");
    assert_eq!(whole["status"]["connections"], 3);
    assert!(whole["sent_per_second"].is_number(), "{whole}");
    assert_eq!(whole["shards"].as_array().map(Vec::len), Some(2));
    let wrong = run(&["top", "--every", "0"], &[]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(wrong.log.contains("not between 0.1 and 60"), "{wrong:?}");
    broker.stop();
}

#[test]
fn names_are_cut_on_a_terminal_and_nowhere_else() {
    let broker = Broker::with_config(1, ANYWHERE);
    let (id, filter) = ("sensor-".repeat(9), format!("plant/{}/#", "x".repeat(40)));
    let mut client = Connect::v5(&id).open(&broker);
    client.subscribe(&filter, 1);
    let at = format!("http://{}", address(&broker));
    let words = ["subscriptions", &filter, "--admin", &at];
    let seen = Seen::ringmq(&words, &[]);
    let is_cut = |line: &str| {
        let names: Vec<_> = line.split_whitespace().collect();
        let [name, "-", "yes", filter, "1"] = names[..] else {
            return false;
        };
        [(name, "sensor-"), (filter, "plant/")]
            .iter()
            .all(|(cell, begin)| cell.starts_with(begin) && cell.ends_with('…'))
    };
    seen.until("both on one line", is_cut);
    assert_eq!(seen.end().code(), Some(0));
    let piped = run(&words, &[]).output;
    assert!(piped.contains(&id) && piped.contains(&filter), "{piped}");
    let scripted = run(&[&words[..], &["--json"]].concat(), &[]).output;
    assert!(
        scripted.contains(&id) && !scripted.contains('…'),
        "{scripted}"
    );
}
