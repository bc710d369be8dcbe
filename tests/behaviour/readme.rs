//! What README.md tells to type does what it says.

use crate::support::{free_port, unique};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The blocks of shell below a heading, up to the next one.
fn blocks(heading: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(heading).expect("the heading is there");
    let end = rest.find("\n#").unwrap_or(rest.len());
    let parts = rest[..end].split("```sh\n").skip(1);
    let block = |part: &str| part.split("```").next().unwrap_or_default().to_owned();
    parts.map(block).collect()
}

/// A folder in which `ringmq` is the broker under test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("readme"));
        fs::create_dir_all(folder.join("bin")).unwrap();
        let binary = std::env::var_os("RINGMQ_TEST_BINARY")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_ringmq").into());
        symlink(binary, folder.join("bin/ringmq")).unwrap();
        Place(folder)
    }

    fn shell(&self, script: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash");
        shell.args(["-euc", script]).current_dir(&self.0);
        shell.env("PATH", format!("{}:{path}", self.0.join("bin").display()));
        shell
            .env("PASSWORD", "correct horse")
            .env("RINGMQ_ADMIN__LISTEN", "off");
        shell
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// It is killed when its test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_first_secure_setup_is_run_as_written() {
    let place = Place::new();
    // But for the port, which others may have, and for all addresses.
    let port = free_port().to_string();
    let here = |block: &str| block.replace("8883", &port).replace("[::]", "127.0.0.1");
    let blocks = blocks("### A first secure set-up");
    let [setup, use_it] = &blocks[..] else {
        panic!("two blocks: {blocks:?}");
    };
    let lines = setup.lines().chain(use_it.lines()).count();
    assert!(lines <= 12, "{lines} lines are more than a few");
    // The shell becomes the broker, so that it can be ended.
    let setup = here(setup).replace("\nringmq --config", "\nexec ringmq --config");
    let mut shell = place.shell(&setup);
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut broker = Running(shell.spawn().unwrap());
    let mut stdin = broker.0.stdin.take().unwrap();
    stdin.write_all(b"correct horse\n").unwrap();
    drop(stdin);
    let stderr = BufReader::new(broker.0.stderr.take().unwrap());
    let mut lines = stderr.lines().map_while(Result::ok);
    let mut log = Vec::new();
    let listens = lines.find(|line| {
        log.push(line.clone());
        line.contains("listening on mqtts://")
    });
    assert!(listens.is_some(), "{log:?}");
    // What more it has to say is read.
    std::thread::spawn(move || lines.for_each(drop));
    let output = place.shell(&here(use_it)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "plant/7/temperature 21.5\n"
    );
    let wrong = here(use_it).replace("$PASSWORD", "wrong");
    assert!(!place.shell(&wrong).output().unwrap().status.success());
    let elsewhere = here(use_it).replace("plant/", "other/");
    let output = place.shell(&elsewhere).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.stdout.is_empty() && said.contains("denied"),
        "{output:?}"
    );
}
