//! The password file: users with their hashes, and the method `password_file` that asks it.
//!
//! A line is `USER:HASH`; blanks around a user's name do not count. Blank lines and lines that begin with `#`
//! are remarks. A hash is argon2id in
//! PHC form, Mosquitto's `$7$` (PBKDF2) or `$6$` (SHA-512), or SCRAM-SHA-256. A user may have one SCRAM
//! line beside one of another form; with a SCRAM line alone the plain password works too.
//!
//! Passwords are bytes: SASLprep is not applied, so a password that is not ASCII is compared as its
//! UTF-8 bytes. PBKDF2 and SCRAM do not see NULs at the end of a password, as HMAC pads its key with them.
//!
//! Invariants: an unknown user costs what most users of the file cost, so that time tells nothing (a
//! file of mixed forms still tells apart users of a rare form); hashes appear in no error and no
//! `Debug`.
//!
//! Not here: reading the file from disk, bounding how many checks run at once (one may take up to
//! 1 GiB), changing the file (`cli::passwd`).

mod hash;
mod strangers;

pub(crate) use hash::{
    Hash, SALT_BYTES, SCRAM_ITERATIONS, SCRAM_PREFIX, ScramKeys, hmac_sha256, random, sha256,
};
pub use hash::{hash_argon2id, hash_scram};
pub(crate) use strangers::with_secret;

use super::{Credentials, Method, Verdict};
use crate::control::text::MARK;
use crate::engine::access::{Identity, Refusal};
use hash::Parsed;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash as MapKey;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use strangers::Strangers;

/// The method's name in configuration and audit log.
pub const METHOD: &str = "password_file";

/// Longest user name that MQTT can carry.
const USER_NAME_BYTES_MAX: usize = 65_535;

/// Why a user name cannot stand in a password file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNameError {
    /// It is empty.
    Empty,
    /// It is longer than 65,535 bytes.
    TooLong,
    /// It has a colon or a control character such as a line end.
    Character,
    /// It begins with `#`, which would make its line a remark.
    Remark,
    /// It begins or ends with a blank, which would not count.
    Blank,
}

impl fmt::Display for UserNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UserNameError::Empty => "the user name is empty; the form is USER:HASH",
            UserNameError::TooLong => "the user name is longer than 65,535 bytes; shorten it",
            UserNameError::Character => {
                "the user name has a colon or a control character; leave those out"
            }
            UserNameError::Remark => "the user name begins with '#', as remarks do; choose another",
            UserNameError::Blank => "the user name begins or ends with a blank; leave that out",
        })
    }
}

impl std::error::Error for UserNameError {}

/// Checks that `name` can stand in a password file.
///
/// # Errors
/// What is wrong with it.
pub fn check_user_name(name: &str) -> Result<(), UserNameError> {
    if name.is_empty() {
        Err(UserNameError::Empty)
    } else if name.len() > USER_NAME_BYTES_MAX {
        Err(UserNameError::TooLong)
    } else if name.contains(|c: char| c == ':' || c.is_control()) {
        Err(UserNameError::Character)
    } else if name.starts_with('#') {
        Err(UserNameError::Remark)
    } else if name.trim() != name {
        Err(UserNameError::Blank)
    } else {
        Ok(())
    }
}

/// What is wrong with a password file, and where. Shows nothing of hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordFileError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for PasswordFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for PasswordFileError {}

/// Whether a line says nothing.
fn is_remark(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// User and hash of a line; `None` for remarks and for lines of no form.
pub(crate) fn entry(line: &str) -> Option<(&str, &str)> {
    if is_remark(line) {
        return None;
    }
    let (name, hash) = line.split_once(':')?;
    Some((name.trim(), hash))
}

/// A user's lines, with their numbers.
#[derive(Default)]
struct User {
    password: Option<(usize, Hash)>,
    scram: Option<(usize, ScramKeys)>,
}

impl User {
    /// What a plain password is checked against.
    fn login(&self) -> Option<&Hash> {
        let scram = self.scram.as_ref().map(|(_, keys)| &keys.stored);
        self.password.as_ref().map(|(_, hash)| hash).or(scram)
    }
}

/// A password file that was read and is correct.
pub struct PasswordFile {
    users: HashMap<Box<str>, User>,
    /// Stands in for the hash of an unknown user.
    stand_in: Hash,
    /// Iterations and length of the salt of most SCRAM lines.
    scram_shape: (NonZeroU32, usize),
    /// Shows unknown users salts.
    strangers: Strangers,
}

impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordFile({} users)", self.users.len())
    }
}

impl PasswordFile {
    /// Reads the text of a password file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, PasswordFileError> {
        let text = text.strip_prefix(MARK).unwrap_or(text);
        let mut users: HashMap<Box<str>, User> = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            if !is_remark(line) {
                add(&mut users, number, line)
                    .map_err(|text| PasswordFileError { line: number, text })?;
            }
        }
        let stand_in = {
            let cost = prevailing(users.values().filter_map(|user| Some(user.login()?.cost)));
            let logins = users.values().filter_map(User::login);
            let found = logins
                .filter(|hash| Some(hash.cost) == cost)
                .map(Hash::blank);
            found
                .max_by_key(|hash| hash.salt.len())
                .unwrap_or_else(Hash::blank_default)
        };
        let shapes = users.values().filter_map(|user| {
            let (_, keys) = user.scram.as_ref()?;
            Some((keys.iterations, keys.stored.salt.len()))
        });
        let default = NonZeroU32::new(SCRAM_ITERATIONS).unwrap_or(NonZeroU32::MIN);
        let scram_shape = prevailing(shapes).unwrap_or((default, SALT_BYTES));
        Ok(PasswordFile {
            users,
            stand_in,
            scram_shape,
            strangers: Strangers::new(text),
        })
    }

    /// Checks a plain password. An unknown user and a wrong password are refused alike, after the same
    /// work.
    ///
    /// # Errors
    /// `BadCredentials`, or `Unavailable` if the machine has not the memory that the hash takes.
    pub fn verify(&self, user_name: &str, password: &[u8]) -> Result<(), Refusal> {
        let hash = self.users.get(user_name).and_then(User::login);
        let fits = hash.unwrap_or(&self.stand_in).verify(password);
        match fits {
            Ok(true) if hash.is_some() => Ok(()),
            Ok(_) => Err(Refusal::BadCredentials),
            Err(_) => Err(Refusal::Unavailable),
        }
    }

    /// Whether it has no user.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether any user has keys for SCRAM.
    #[must_use]
    pub fn has_scram(&self) -> bool {
        self.users.values().any(|user| user.scram.is_some())
    }

    /// The user's keys for SCRAM.
    pub(crate) fn scram(&self, user_name: &str) -> Option<&ScramKeys> {
        let (_, keys) = self.users.get(user_name)?.scram.as_ref()?;
        Some(keys)
    }

    /// Iterations and salt that an unknown user is shown.
    pub(crate) fn scram_shape(&self, user_name: &str) -> (NonZeroU32, Vec<u8>) {
        let (iterations, salt_bytes) = self.scram_shape;
        (iterations, self.strangers.salt(user_name, salt_bytes))
    }

    /// Does what takes long before the first salt of an unknown user: nobody is to see who it was.
    pub(crate) fn prepare_scram(&self) {
        self.strangers.key();
    }
}

fn add(users: &mut HashMap<Box<str>, User>, number: usize, line: &str) -> Result<(), String> {
    let Some((name, hash)) = line.split_once(':') else {
        return Err("it has no colon; the form is USER:HASH".to_owned());
    };
    let name = name.trim();
    check_user_name(name).map_err(|error| error.to_string())?;
    let parsed = hash::parse(hash.trim())?;
    let user = users.entry(name.into()).or_default();
    let (kind, earlier) = match parsed {
        Parsed::Password(hash) => {
            let earlier = user.password.replace((number, hash));
            ("password", earlier.map(|(line, _)| line))
        }
        Parsed::Scram(keys) => {
            let earlier = user.scram.replace((number, keys));
            ("SCRAM", earlier.map(|(line, _)| line))
        }
    };
    match earlier {
        Some(earlier) => Err(format!(
            "the user has a {kind} line already, line {earlier}; delete line {earlier} or {number}"
        )),
        None => Ok(()),
    }
}

/// The most frequent value; the greatest of those that are equally frequent.
fn prevailing<T: MapKey + Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: HashMap<T, usize> = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|&(value, count)| (count, value));
    most.map(|(value, _)| value)
}

/// Asks a password file, which can be replaced while others ask.
#[derive(Debug)]
pub struct PasswordMethod {
    file: RwLock<Arc<PasswordFile>>,
}

impl PasswordMethod {
    /// Asks `file`.
    #[must_use]
    pub fn new(file: PasswordFile) -> Self {
        PasswordMethod {
            file: RwLock::new(Arc::new(file)),
        }
    }

    /// Asks `file` from now on; who is being checked is checked against the earlier one.
    pub fn replace(&self, file: PasswordFile) {
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
    }

    /// The file now, for SCRAM.
    #[must_use]
    pub fn file(&self) -> Arc<PasswordFile> {
        Arc::clone(&self.file.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Method for PasswordMethod {
    fn name(&self) -> &'static str {
        METHOD
    }

    fn takes(&self) -> Option<&'static str> {
        Some("a password")
    }

    fn authenticate(&self, credentials: &Credentials) -> Verdict {
        let (Some(user_name), Some(password)) = (&credentials.user_name, &credentials.password)
        else {
            return Verdict::NotMine;
        };
        match self.file().verify(user_name, password.reveal()) {
            Ok(()) => Verdict::Allow(Box::new(Identity {
                user_name: Some(user_name.clone()),
                method: METHOD,
                ..Identity::default()
            })),
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::hash::Cost;
    use super::*;
    use crate::engine::access::Secret;
    use crate::engine::codec::Version;
    use crate::shard::peer::Peer;

    /// Of `password`.
    const ARGON2: &str =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    /// Of `correct horse`.
    const PBKDF2: &str = "$7$101$j+onTPQ+EobmetSp$EpvmbeIK/cru+N2qWf7udYRHlLFwrBwIFOCnz55fpCqF29UwIGPBTYQwt\
                          8qQUzytTqYEG3lE7gecmRNqkMJrZg==";

    fn file(text: &str) -> PasswordFile {
        PasswordFile::parse(text).unwrap()
    }

    fn error(text: &str) -> String {
        PasswordFile::parse(text).unwrap_err().to_string()
    }

    fn credentials(user_name: Option<&str>, password: Option<&str>) -> Credentials {
        Credentials {
            client_id: "c".into(),
            user_name: user_name.map(Into::into),
            password: password.map(|password| Secret::new(password.as_bytes())),
            version: Version::V5,
            peer: Peer::Unix,
            certificate: None,
        }
    }

    fn refusal(verdict: &Verdict) -> Option<Refusal> {
        match verdict {
            Verdict::Refuse(refusal) => Some(refusal.clone()),
            Verdict::Allow(_) | Verdict::NotMine => None,
        }
    }

    #[test]
    fn remarks_blank_lines_and_windows_line_ends_are_no_matter() {
        let file = file(&format!(
            "# users\r\n\r\n  \nan na:{ARGON2} \r\nbert:{PBKDF2}"
        ));
        assert_eq!(file.verify("an na", b"password"), Ok(()));
        assert_eq!(file.verify("bert", b"correct horse"), Ok(()));
        assert_eq!(
            file.verify("# users", b"password"),
            Err(Refusal::BadCredentials)
        );
    }

    #[test]
    fn a_byte_order_mark_and_blanks_around_names_do_not_count() {
        let file = file(&format!(
            "\u{feff}anna:{ARGON2}\n  # remark\n \tbert : {ARGON2}\n"
        ));
        assert_eq!(file.verify("anna", b"password"), Ok(()));
        assert_eq!(file.verify("bert", b"password"), Ok(()));
        assert!(error(&format!(" :{ARGON2}")).starts_with("line 1: the user name is empty"));
        assert_eq!(check_user_name(" anna"), Err(UserNameError::Blank));
        assert_eq!(check_user_name("anna\u{a0}"), Err(UserNameError::Blank));
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
        let method = PasswordMethod::new(file(&format!("anna:{ARGON2}")));
        for (user, password) in [
            ("anna", "Password"),
            ("anna", ""),
            ("otto", "password"),
            ("", ""),
        ] {
            let verdict = method.authenticate(&credentials(Some(user), Some(password)));
            assert_eq!(refusal(&verdict), Some(Refusal::BadCredentials), "{user}");
        }
    }

    #[test]
    fn the_right_password_gives_the_user_an_identity() {
        let method = PasswordMethod::new(file(&format!("anna:{ARGON2}")));
        let verdict = method.authenticate(&credentials(Some("anna"), Some("password")));
        let Verdict::Allow(identity) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(identity.user_name.as_deref(), Some("anna"));
        assert_eq!(identity.method, method.name());
    }

    #[test]
    fn without_user_name_or_password_the_next_method_is_asked() {
        let method = PasswordMethod::new(file(&format!("anna:{ARGON2}")));
        for credentials in [
            credentials(None, None),
            credentials(Some("anna"), None),
            credentials(None, Some("password")),
        ] {
            assert!(matches!(
                method.authenticate(&credentials),
                Verdict::NotMine
            ));
        }
    }

    #[test]
    fn a_file_that_replaces_another_decides_from_then_on() {
        let method = PasswordMethod::new(file(&format!("anna:{ARGON2}")));
        method.replace(file(&format!("anna:{PBKDF2}")));
        let old = method.authenticate(&credentials(Some("anna"), Some("password")));
        assert_eq!(refusal(&old), Some(Refusal::BadCredentials));
        let new = method.authenticate(&credentials(Some("anna"), Some("correct horse")));
        assert!(matches!(new, Verdict::Allow(_)));
    }

    #[test]
    fn a_scram_line_serves_for_plain_passwords_unless_there_is_another() {
        let scram = hash_scram(b"s");
        assert_eq!(file(&format!("anna:{scram}")).verify("anna", b"s"), Ok(()));
        let both = file(&format!("anna:{scram}\nanna:{ARGON2}"));
        assert_eq!(both.verify("anna", b"password"), Ok(()));
        assert_eq!(both.verify("anna", b"s"), Err(Refusal::BadCredentials));
        assert!(both.scram("anna").is_some());
    }

    #[test]
    fn an_unknown_user_costs_what_most_users_cost() {
        let cheap = format!("a:{PBKDF2}\nb:{PBKDF2}\n");
        let costly = format!("c:{ARGON2}\nd:{ARGON2}\ne:{ARGON2}\n");
        let text = format!("{cheap}{costly}");
        let cost = Cost::Argon2id {
            memory_kib: 256,
            passes: 2,
            lanes: 1,
        };
        assert_eq!(file(&text).stand_in.cost, cost);
        let cost = file(&cheap).stand_in.cost;
        assert!(matches!(cost, Cost::Pbkdf2 { iterations } if iterations.get() == 101));
        assert!(matches!(file("").stand_in.cost, Cost::Argon2id { .. }));
        let scram = hash_scram(b"s").replace("i=4096", "i=5000");
        assert_eq!(file(&format!("a:{scram}")).scram_shape("b").0.get(), 5000);
        assert!(matches!(
            file(&format!("a:{scram}")).stand_in.cost,
            Cost::Scram { .. }
        ));
    }

    #[test]
    fn a_second_line_of_a_kind_is_an_error_that_names_both() {
        let text = error(&format!("anna:{ARGON2}\n#\nanna:{PBKDF2}\n"));
        assert!(
            text.starts_with("line 3: ") && text.contains("line 1 or 3"),
            "{text}"
        );
        let scram = hash_scram(b"s");
        let text = error(&format!("anna:{scram}\nanna:{scram}\n"));
        assert!(text.contains("SCRAM line already, line 1"), "{text}");
    }

    #[test]
    fn a_wrong_line_is_named_and_its_secret_is_not_shown() {
        for (line, part) in [
            ("hunter2", "no colon"),
            ("anna:hunter2", "has to begin with"),
            ("anna:$7$hunter2$", "ITERATIONS"),
            (":$7$hunter2$", "empty"),
            ("an\u{7}na:hunter2", "control character"),
        ] {
            let text = error(&format!("# remark\n{line}\n"));
            assert!(
                text.starts_with("line 2: ") && text.contains(part),
                "{text}"
            );
            assert!(!text.contains("hunter2"), "{text}");
        }
        let long = format!("{}:{ARGON2}", "a".repeat(65_536));
        assert!(error(&long).contains("65,535"));
    }

    #[test]
    fn no_hash_is_shown_by_debug() {
        let text = format!("{:?}", PasswordMethod::new(file(&format!("anna:{ARGON2}"))));
        assert!(
            text.contains("1 users") && !text.contains("argon2"),
            "{text}"
        );
    }
}
