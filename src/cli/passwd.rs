//! `ringmq passwd`: adds, changes and deletes the users of a password file.
//!
//! Invariants: what is not the user's stays byte for byte; the file is replaced whole or not at all,
//! keeps its mode and owner, and is always one that the broker accepts. The new file is written beside
//! it under a fixed name, so that of two runs at once one is refused and no change is lost.
//!
//! Not here: the forms of lines ([`crate::control::authn::password`]).

use crate::control::authn::password::{
    PasswordFile, PasswordFileError, SCRAM_PREFIX, UserNameError, check_user_name, entry,
    hash_argon2id, hash_scram, with_secret,
};
use crate::control::text::MARK;
use crate::engine::access::Secret;
use crate::shard::files;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Longest password that MQTT can carry.
const PASSWORD_BYTES_MAX: usize = 65_535;
/// Mode of a new file: hashes are for the owner only.
const NEW_FILE_MODE: u32 = 0o600;

/// Add a user to a password file or change the password, asked for on the terminal or read from
/// standard input
#[derive(Clone, Debug, clap::Args)]
pub struct PasswdArgs {
    /// Delete the user
    #[arg(long, conflicts_with_all = ["create", "scram"])]
    pub delete: bool,
    /// Make the file, which must not exist yet
    #[arg(long)]
    pub create: bool,
    /// Write a line for SCRAM-SHA-256, in place of the user's earlier one, instead of argon2id
    #[arg(long)]
    pub scram: bool,
    /// The password file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The user
    #[arg(value_name = "USER")]
    pub user: String,
}

/// What to do with a user's lines.
#[derive(Clone, PartialEq, Eq)]
pub enum Edit {
    /// Put this hash into the line that is not for SCRAM.
    SetPassword(String),
    /// Put this hash into the SCRAM line.
    SetScram(String),
    /// Delete all lines.
    Delete,
}

/// Why a text cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditError {
    /// The name cannot stand in a password file.
    UserName(UserNameError),
    /// There is no such user to delete.
    UnknownUser,
    /// The broker would refuse the outcome.
    Refused(PasswordFileError),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EditError::UserName(error) => error.fmt(f),
            EditError::UnknownUser => {
                f.write_str("there is no such user to delete; check the name")
            }
            EditError::Refused(error) => {
                write!(f, "not changed, the broker would refuse it: {error}")
            }
        }
    }
}

impl std::error::Error for EditError {}

/// Why the command did nothing.
#[derive(Debug)]
pub enum PasswdError {
    /// The text of `file` cannot be edited.
    Edit {
        /// The password file.
        file: PathBuf,
        /// What is wrong.
        error: EditError,
    },
    /// The password cannot be used; says why and what to do.
    Password(&'static str),
    /// The password could not be asked for or read.
    Input(io::Error),
    /// `file` is not as it has to be; says how and what to do.
    State {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// The system refused.
    System {
        /// The file or folder.
        file: PathBuf,
        /// What could not be done.
        action: &'static str,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for PasswdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswdError::Edit { file, error } => write!(f, "{}: {error}", file.display()),
            PasswdError::Password(text) => f.write_str(text),
            PasswdError::Input(error) => write!(
                f,
                "the password cannot be read: {error}; type it on a terminal or give it as a line on \
                 standard input"
            ),
            PasswdError::State { file, text } => write!(f, "{}: {text}", file.display()),
            PasswdError::System {
                file,
                action,
                error,
            } => {
                let remedy = match error.kind() {
                    io::ErrorKind::NotFound => "make the folder first",
                    io::ErrorKind::PermissionDenied => "run this as the owner of file and folder",
                    _ => "check the path and the space on the disk",
                };
                write!(f, "{}: cannot {action}: {error}; {remedy}", file.display())
            }
        }
    }
}

impl std::error::Error for PasswdError {}

/// Does what `args` say; the answer is what was done, in one line.
///
/// # Errors
/// What is wrong and what to do. The password file is as it was before, unless all that failed is to make
/// sure that the change is on the disk.
pub fn run(args: &PasswdArgs) -> Result<String, PasswdError> {
    let file = if args.create {
        args.file.clone()
    } else {
        // The file that a link leads to is replaced, not the link.
        fs::canonicalize(&args.file).unwrap_or_else(|_| args.file.clone())
    };
    let of_file = |error| PasswdError::Edit {
        file: file.clone(),
        error,
    };
    check_user_name(&args.user).map_err(|error| of_file(EditError::UserName(error)))?;
    // Complain before asking for a password.
    read(&file, args.create)?;
    let edit_wanted = if args.delete {
        Edit::Delete
    } else {
        let password = ask(&args.user)?;
        if args.scram {
            Edit::SetScram(hash_scram(password.reveal()))
        } else {
            Edit::SetPassword(hash_argon2id(password.reveal()))
        }
    };
    let draft = Draft::create(&file)?;
    let (text, metadata) = read(&file, args.create)?;
    let mut edited = edit(&text, &args.user, edit_wanted).map_err(of_file)?;
    if args.scram {
        edited = with_secret(edited);
    }
    draft.put_in_place(edited.as_bytes(), metadata.as_ref())?;
    Ok(outcome(args, &text))
}

/// What was done to `text`.
fn outcome(args: &PasswdArgs, text: &str) -> String {
    let (file, user) = (args.file.display(), &args.user);
    if args.delete {
        return format!("{file}: deleted user {user}");
    }
    let (mut same, mut other) = (false, false);
    for line in text.lines() {
        if let Some(is_scram) = kind(line, user) {
            same |= is_scram == args.scram;
            other |= is_scram != args.scram;
        }
    }
    let done = match (same, args.scram) {
        (true, false) => "changed the password of",
        (true, true) => "changed the SCRAM line of",
        (false, _) if other => "added a second line for",
        (false, _) => "added",
    };
    let rest = match (other, args.scram) {
        (false, _) => "",
        (true, false) => "; the SCRAM line keeps its own password, --scram changes it",
        (true, true) => "; the line for plain passwords keeps its own, change it without --scram",
    };
    format!("{file}: {done} user {user}{rest}")
}

/// Whether `line` is the user's, and if so, whether it is a SCRAM line.
fn kind(line: &str, user: &str) -> Option<bool> {
    let (name, hash) = entry(line)?;
    (name == user).then(|| hash.starts_with(SCRAM_PREFIX))
}

/// The text of a password file with `user`'s lines changed and all others as they are.
///
/// # Errors
/// The name is refused, the user to delete is unknown, or the outcome is not a correct password file.
pub fn edit(text: &str, user: &str, edit: Edit) -> Result<String, EditError> {
    check_user_name(user).map_err(EditError::UserName)?;
    let (is_scram, hash) = match &edit {
        Edit::SetPassword(hash) => (Some(false), Some(hash)),
        Edit::SetScram(hash) => (Some(true), Some(hash)),
        Edit::Delete => (None, None),
    };
    let mut new_line = hash.map(|hash| format!("{user}:{hash}"));
    let mut edited =
        String::with_capacity(text.len() + new_line.as_ref().map_or(0, String::len) + 2);
    let mut is_found = false;
    let (mark, lines) = text.split_at(text.strip_prefix(MARK).map_or(0, |_| MARK.len()));
    edited.push_str(mark);
    for line in lines.split_inclusive('\n') {
        let body = line.trim_end_matches(['\n', '\r']);
        let is_meant =
            kind(body, user).is_some_and(|kind| is_scram.is_none_or(|wanted| wanted == kind));
        if !is_meant {
            edited.push_str(line);
            continue;
        }
        is_found = true;
        // The first line is replaced; a second of its kind would be an error in the file, and goes.
        if let Some(new_line) = new_line.take() {
            edited.push_str(&new_line);
            edited.push_str(line.strip_prefix(body).unwrap_or("\n"));
        }
    }
    if edit == Edit::Delete && !is_found {
        return Err(EditError::UnknownUser);
    }
    if let Some(new_line) = new_line {
        if edited.len() > mark.len() && !edited.ends_with('\n') {
            edited.push('\n');
        }
        edited.push_str(&new_line);
        edited.push('\n');
    }
    PasswordFile::parse(&edited).map_err(EditError::Refused)?;
    Ok(edited)
}

/// The file's text and metadata; of a file to be made, nothing.
pub(super) fn read(
    file: &Path,
    create: bool,
) -> Result<(String, Option<fs::Metadata>), PasswdError> {
    let state = |text: String| PasswdError::State {
        file: file.to_owned(),
        text,
    };
    let metadata = match fs::symlink_metadata(file) {
        Ok(_) if create => {
            return Err(state(
                "it exists already; leave out --create to change it".into(),
            ));
        }
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = file.parent().filter(|folder| *folder != Path::new(""));
            return if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                let folder = folder.display();
                let text = format!("{folder} does not exist; make the folder first");
                Err(state(text))
            } else if create {
                Ok((String::new(), None))
            } else {
                Err(state("it does not exist; --create makes it".into()))
            };
        }
        Err(error) => return Err(system(file, "read the file")(error)),
    };
    if !metadata.is_file() {
        return Err(state("it is not a plain file; name the file itself".into()));
    }
    let bytes =
        files::read(file, files::LIST_BYTES_MAX).map_err(|error| state(error.to_string()))?;
    // Every byte of it is to stay: also in remarks there is none that is not UTF-8.
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to());
        let ends = before
            .iter()
            .copied()
            .flatten()
            .filter(|byte| **byte == b'\n');
        state(format!(
            "line {}: it has a byte that is not UTF-8; convert the file first",
            ends.count() + 1
        ))
    })?;
    Ok((text, Some(metadata)))
}

fn system(file: &Path, action: &'static str) -> impl FnOnce(io::Error) -> PasswdError + use<> {
    let file = file.to_owned();
    move |error| PasswdError::System {
        file,
        action,
        error,
    }
}

/// Asks twice on a terminal, or takes the first line of standard input.
fn ask(user: &str) -> Result<Secret, PasswdError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return first_line(stdin.lock());
    }
    let prompt = |text: String| rpassword::prompt_password(text).map_err(PasswdError::Input);
    let password = prompt(format!("Password for {user}: "))?;
    check_password(password.as_bytes())?;
    if prompt("Again: ".to_owned())? != password {
        return Err(PasswdError::Password("the two passwords differ; try again"));
    }
    Ok(Secret::new(password.as_bytes()))
}

/// The first line of `input` without its end.
fn first_line(input: impl BufRead) -> Result<Secret, PasswdError> {
    let mut line = Vec::new();
    // Two more bytes for the line end; what is still longer is refused.
    let mut input = input.take(PASSWORD_BYTES_MAX as u64 + 2);
    input
        .read_until(b'\n', &mut line)
        .map_err(PasswdError::Input)?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    check_password(line)?;
    Ok(Secret::new(line))
}

fn check_password(password: &[u8]) -> Result<(), PasswdError> {
    if password.is_empty() {
        return Err(PasswdError::Password(
            "the password is empty; type one on a terminal or give it as a line on standard input",
        ));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswdError::Password(
            "the password is longer than the 65,535 bytes that MQTT can carry; choose a shorter one",
        ));
    }
    Ok(())
}

/// The new file beside the old one; gone if it was not put in place.
pub(super) struct Draft {
    path: PathBuf,
    target: PathBuf,
    file: File,
    is_in_place: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once in place, a file of this name would be another run's.
        if !self.is_in_place {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Draft {
    pub(super) fn create(target: &Path) -> Result<Self, PasswdError> {
        let mut name = target.as_os_str().to_owned();
        name.push(".new");
        let path = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(NEW_FILE_MODE);
        match options.open(&path) {
            Ok(file) => Ok(Draft {
                path,
                target: target.to_owned(),
                file,
                is_in_place: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(PasswdError::State {
                file: path,
                text: "it exists: another `ringmq passwd` or `token` is at work, or one was interrupted; \
                       remove it if none runs"
                    .to_owned(),
            }),
            Err(error) => Err(system(&path, "make the file")(error)),
        }
    }

    /// Writes `bytes` and takes the place of the target, whose owner and mode are kept.
    pub(super) fn put_in_place(
        mut self,
        bytes: &[u8],
        old: Option<&fs::Metadata>,
    ) -> Result<(), PasswdError> {
        let target = self.target.clone();
        let failed = |action| system(&target, action);
        (&self.file)
            .write_all(bytes)
            .map_err(failed("write the new file"))?;
        self.keep_owner_and_mode(old)
            .map_err(failed("keep its owner and mode"))?;
        self.file
            .sync_all()
            .map_err(failed("write the new file to the disk"))?;
        fs::rename(&self.path, &target).map_err(failed("replace the file"))?;
        self.is_in_place = true;
        let folder = match target.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let folder = File::open(folder).and_then(|folder| folder.sync_all());
        folder.map_err(failed("be sure that the change is on the disk"))
    }

    fn keep_owner_and_mode(&self, old: Option<&fs::Metadata>) -> io::Result<()> {
        let new = self.file.metadata()?;
        if let Some(old) = old
            && (old.uid(), old.gid()) != (new.uid(), new.gid())
        {
            fchown(&self.file, Some(old.uid()), Some(old.gid()))?;
        }
        let mode = old.map_or(NEW_FILE_MODE, |old| old.mode() & 0o7777);
        self.file.set_permissions(Permissions::from_mode(mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGON2: &str =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    const OTHER: &str =
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    const SCRAM: &str = "$scram-sha-256$i=4096,W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuL\
                         mtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn set(text: &str, user: &str) -> Result<String, EditError> {
        edit(text, user, Edit::SetPassword(OTHER.to_owned()))
    }

    #[test]
    fn a_new_user_is_appended_on_a_line_of_its_own() {
        assert_eq!(set("", "anna"), Ok(format!("anna:{OTHER}\n")));
        let text = format!("# x\r\n\r\nbert:{ARGON2}");
        assert_eq!(set(&text, "anna"), Ok(format!("{text}\nanna:{OTHER}\n")));
    }

    #[test]
    fn a_change_leaves_every_other_byte_as_it_was() {
        let text = |hash: &str| {
            format!(
                "# anna:x\r\n \nann:{ARGON2}\r\nanna:{hash}\r\n\n#end\nanna:{SCRAM}\nbert:{ARGON2}"
            )
        };
        assert_eq!(set(&text(ARGON2), "anna"), Ok(text(OTHER)));
    }

    #[test]
    fn a_byte_order_mark_and_blanks_hide_no_user() {
        let text = |hash: &str| format!("\u{feff}anna:{hash}\n");
        assert_eq!(set(&text(ARGON2), "anna"), Ok(text(OTHER)));
        assert_eq!(
            set(&format!(" anna :{ARGON2}\n"), "anna"),
            Ok(format!("anna:{OTHER}\n"))
        );
        assert_eq!(set("\u{feff}", "anna"), Ok(text(OTHER)));
    }

    #[test]
    fn a_scram_line_and_another_are_changed_apart() {
        let new = SCRAM.replace("4096", "5000");
        let both = edit(
            &format!("anna:{ARGON2}\n"),
            "anna",
            Edit::SetScram(SCRAM.to_owned()),
        )
        .unwrap();
        assert_eq!(both, format!("anna:{ARGON2}\nanna:{SCRAM}\n"));
        let changed = edit(&both, "anna", Edit::SetScram(new.clone())).unwrap();
        assert_eq!(changed, format!("anna:{ARGON2}\nanna:{new}\n"));
    }

    #[test]
    fn deleting_takes_all_lines_of_the_user_and_no_other() {
        let text = format!("anna:{ARGON2}\n# anna\nann:{ARGON2}\nanna:{SCRAM}");
        let left = format!("# anna\nann:{ARGON2}\n");
        assert_eq!(edit(&text, "anna", Edit::Delete), Ok(left.clone()));
        assert_eq!(
            edit(&left, "anna", Edit::Delete),
            Err(EditError::UnknownUser)
        );
    }

    #[test]
    fn names_that_would_break_the_file_are_refused() {
        for name in ["", "a:b", "a\nb", "a\rb", "#a", "a\0", " a", "a "] {
            let outcome = set("", name);
            assert!(
                matches!(outcome, Err(EditError::UserName(_))),
                "{name:?} {outcome:?}"
            );
        }
    }

    #[test]
    fn a_file_that_the_broker_would_refuse_is_not_written_but_can_be_mended() {
        let broken = format!("bert:{ARGON2}\nanna:nonsense\n");
        let Err(EditError::Refused(error)) = set(&broken, "bert") else {
            panic!("accepted")
        };
        assert_eq!(error.line, 2);
        assert_eq!(
            set(&broken, "anna"),
            Ok(format!("bert:{ARGON2}\nanna:{OTHER}\n"))
        );
        let twice = format!("anna:{ARGON2}\nanna:{ARGON2}\n");
        assert_eq!(set(&twice, "anna"), Ok(format!("anna:{OTHER}\n")));
    }

    #[test]
    fn a_password_from_standard_input_is_its_first_line() {
        let line = |bytes: &[u8]| first_line(bytes).map(|secret| secret.reveal().to_vec());
        for input in ["pw", "pw\n", "pw\r\n", "pw\nmore\n"] {
            assert_eq!(line(input.as_bytes()).unwrap(), b"pw");
        }
        assert_eq!(line(b" \xFF \n").unwrap(), b" \xFF ");
        for input in ["", "\n", "\r\n", "\nmore"] {
            assert!(line(input.as_bytes()).is_err(), "{input:?}");
        }
        assert!(line(&[b'a'; PASSWORD_BYTES_MAX]).is_ok());
        assert!(line(&[b'a'; PASSWORD_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn the_outcome_tells_of_a_line_that_keeps_its_password() {
        let text = format!("anna:{ARGON2}\nanna:{SCRAM}\nbert:{SCRAM}\n");
        let done = |user: &str, scram| {
            let args = PasswdArgs {
                delete: false,
                create: false,
                scram,
                file: "f".into(),
                user: user.to_owned(),
            };
            outcome(&args, &text)
        };
        assert!(
            done("anna", false).contains("changed the password of user anna; the SCRAM line keeps")
        );
        assert!(
            done("anna", true).contains("changed the SCRAM line of user anna; the line for plain")
        );
        assert!(done("bert", false).contains("added a second line for user bert; the SCRAM"));
        assert_eq!(done("bert", true), "f: changed the SCRAM line of user bert");
        assert_eq!(done("carl", true), "f: added user carl");
    }
}
