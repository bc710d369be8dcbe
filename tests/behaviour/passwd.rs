//! `ringmq passwd`: what becomes of the password file, and what is refused.

use crate::support::unique;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs `ringmq passwd` with `input` on standard input; gives exit code, output and complaint.
fn passwd(args: &[&str], file: &Path, user: &str, input: &str) -> (Option<i32>, String, String) {
    let binary = std::env::var_os("RINGMQ_TEST_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_ringmq").into());
    let mut child = Command::new(binary)
        .arg("passwd")
        .args(args)
        .arg(file)
        .arg(user)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the program");
    // A program that refuses early does not read.
    let _ = child
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(input.as_bytes());
    let output = child.wait_with_output().expect("wait for the program");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn done(args: &[&str], file: &Path, user: &str, input: &str) -> String {
    let (code, output, complaint) = passwd(args, file, user, input);
    assert_eq!(code, Some(0), "{complaint}");
    assert_eq!(output.lines().count(), 1, "{output}");
    output
}

/// The run has to fail with a complaint that holds all of `parts` and leave `file` as it is.
fn refused(args: &[&str], file: &Path, user: &str, input: &str, parts: &[&str]) {
    let before = fs::read(file).ok();
    let (code, _, complaint) = passwd(args, file, user, input);
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.starts_with("ringmq: "), "{complaint}");
    for part in parts {
        assert!(complaint.contains(part), "no '{part}' in: {complaint}");
    }
    assert_eq!(fs::read(file).ok(), before);
    assert!(!draft(file).exists());
}

fn draft(file: &Path) -> PathBuf {
    file.with_extension("new")
}

/// A name in a folder of its own.
fn place() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("passwd"));
    fs::create_dir(&folder).expect("make a folder");
    folder.join("users")
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).expect("read the password file")
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file)
        .expect("the file is there")
        .permissions()
        .mode()
        & 0o7777
}

#[test]
fn a_file_is_made_for_its_owner_only() {
    let file = place();
    let said = done(&["--create"], &file, "anna", "secret\n");
    assert!(said.contains("added user anna"), "{said}");
    assert_eq!(mode(&file), 0o600);
    let text = text(&file);
    assert!(
        text.starts_with("anna:$argon2id$v=19$m=19456,t=2,p=1$"),
        "{text}"
    );
    assert!(text.ends_with('\n') && !text.contains("secret"), "{text}");
    assert!(!draft(&file).exists());
}

#[test]
fn a_user_is_added_and_changed_from_standard_input_and_the_rest_stays() {
    let file = place();
    fs::write(&file, "# ours\r\n\n").unwrap();
    done(&[], &file, "anna", "one");
    let first = text(&file);
    let line = first.strip_prefix("# ours\r\n\n").expect("the rest stays");
    done(&["--scram"], &file, "bert", "two\r\n");
    let said = done(&[], &file, "anna", "three\n");
    assert!(said.contains("changed the password of user anna"), "{said}");
    let last = text(&file);
    assert!(!last.contains(line), "{last}");
    let lines: Vec<_> = last.lines().collect();
    assert_eq!(lines[..2], ["# ours", ""]);
    assert!(lines[2].starts_with("anna:$argon2id$"), "{last}");
    assert!(
        lines[3].starts_with("bert:$scram-sha-256$i=4096,"),
        "{last}"
    );
    // Once, for what users see that the file does not know.
    assert!(lines[4].starts_with("#scram-unknown-users:"), "{last}");
    assert_eq!(lines.len(), 5);
}

#[test]
fn a_user_is_deleted_without_being_asked_for_a_password() {
    let file = place();
    done(&["--create"], &file, "anna", "one\n");
    done(&[], &file, "bert", "two\n");
    let said = done(&["--delete"], &file, "anna", "");
    assert!(said.contains("deleted user anna"), "{said}");
    let left = text(&file);
    assert!(
        left.starts_with("bert:") && left.lines().count() == 1,
        "{left}"
    );
    refused(&["--delete"], &file, "anna", "", &["users", "no such user"]);
}

#[test]
fn mode_and_links_stay_as_they_are() {
    let file = place();
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let link = file.with_file_name("link");
    symlink(&file, &link).unwrap();
    done(&[], &link, "anna", "one\n");
    assert_eq!(mode(&file), 0o640);
    assert!(text(&file).starts_with("anna:"));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn what_cannot_be_done_is_refused_with_the_remedy() {
    let file = place();
    refused(&[], &file, "anna", "one\n", &["users", "--create"]);
    done(&["--create"], &file, "anna", "one\n");
    refused(
        &["--create"],
        &file,
        "bert",
        "one\n",
        &["users", "exists already"],
    );
    refused(&[], &file, "anna", "\n", &["password is empty"]);
    refused(&[], &file, "anna", "", &["password is empty"]);
    refused(&[], &file, "an:na", "one\n", &["colon"]);
    refused(&[], &file, "an\nna", "one\n", &["control character"]);
    refused(&[], &file, "", "one\n", &["empty"]);
    let missing = file.with_file_name("no").join("users");
    refused(
        &["--create"],
        &missing,
        "anna",
        "one\n",
        &["no/users", "make the folder"],
    );
    // What is advised has to help.
    let complaint = passwd(&[], &missing, "anna", "one\n").2;
    assert!(
        complaint.contains("make the folder") && !complaint.contains("--create"),
        "{complaint}"
    );
    let folder = file.parent().unwrap();
    let (code, _, complaint) = passwd(&[], folder, "anna", "one\n");
    assert_eq!(code, Some(1));
    assert!(complaint.contains("not a plain file"), "{complaint}");
    fs::write(&file, "anna:plain\n").unwrap();
    refused(
        &[],
        &file,
        "bert",
        "one\n",
        &["users", "line 1", "$argon2id$"],
    );
}

#[test]
fn a_run_beside_another_is_refused() {
    let file = place();
    done(&["--create"], &file, "anna", "one\n");
    let before = text(&file);
    fs::write(draft(&file), "").unwrap();
    let (code, _, complaint) = passwd(&[], &file, "anna", "two\n");
    assert_eq!(code, Some(1));
    assert!(
        complaint.contains("users.new") && complaint.contains("remove it"),
        "{complaint}"
    );
    assert_eq!(text(&file), before);
    assert!(draft(&file).exists(), "the other's file was removed");
}
