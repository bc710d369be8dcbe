//! Tells the program from which commit it was built: a result has to say it.

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn main() {
    let given = std::env::var("LOADGEN_COMMIT").ok();
    let described = || {
        git(&[
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
            "--exclude=*",
        ])
    };
    let commit = given.or_else(described).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=LOADGEN_COMMIT={commit}");
    println!("cargo::rerun-if-env-changed=LOADGEN_COMMIT");
    println!("cargo::rerun-if-changed=src");
    // Absent where there is no repository: then the program is built again each time, and says so itself.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
