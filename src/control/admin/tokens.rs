//! Tokens of operators: a file of names, roles and hashes, made by `ringmq token`.
//!
//! A token is 32 random bytes, so that its hash alone says nothing of it, and a fast one serves. It is looked
//! for by its hash: how long that takes tells nothing of those that exist.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Arc, PoisonError, RwLock};

/// What every token begins with, so that one that was left somewhere is found by a search.
const PREFIX: &str = "ringmq_";
/// Longest name.
const NAME_BYTES_MAX: usize = 64;

/// What somebody may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Look, but at no payload.
    View,
    /// Read payloads, publish, disconnect, end, delete, ban.
    Operate,
    /// Change how the broker works.
    Admin,
}

impl Role {
    /// As it stands in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::View => "view",
            Role::Operate => "operate",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stands in the file of a token.
type Hash = [u8; 32];

/// Names and roles by hashes.
pub type Table = HashMap<Hash, (Arc<str>, Role)>;

/// The tokens in force; the same through every reload.
#[derive(Debug, Default)]
pub struct Tokens(RwLock<Table>);

impl Tokens {
    /// These.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Tokens(RwLock::new(table))
    }

    /// These, in place of those before.
    pub fn replace(&self, table: Table) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// Whose a token is, and what it allows.
    #[must_use]
    pub fn find(&self, token: &str) -> Option<(Arc<str>, Role)> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&hash(token)).cloned()
    }
}

fn hash(token: &str) -> Hash {
    let digest = digest(&SHA256, token.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// A new token, and the line for it.
///
/// # Errors
/// The system gives nothing random.
pub fn make(name: &str, role: Role) -> Result<(String, String), &'static str> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| "the system gives no random bytes")?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let mut line = format!("{name} {role} ");
    for byte in hash(&token) {
        let _ = write!(line, "{byte:02x}");
    }
    Ok((token, line))
}

/// What is wrong with a name.
#[must_use]
pub fn wrong_name(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    let is_right = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fits);
    (!is_right).then(|| {
        format!("a name has 1 to {NAME_BYTES_MAX} letters, digits and - _ . @, and nothing else")
    })
}

/// Whose line it is; `None` for remarks.
#[must_use]
pub fn name_of(line: &str) -> Option<&str> {
    let name = line.split_whitespace().next()?;
    (!name.starts_with('#')).then_some(name)
}

/// Reads the text of a file.
///
/// # Errors
/// Which line is wrong; what stands in it is not shown.
pub fn parse(text: &str) -> Result<Table, String> {
    let mut table = Table::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some(name) = name_of(line) else { continue };
        let wrong = |text: &str| format!("line {number}: {text}");
        let (role, hash) = parts(line).ok_or_else(|| {
            wrong("it is not NAME ROLE HASH, with view, operate or admin for ROLE; `ringmq token` makes them")
        })?;
        if let Some(text) = wrong_name(name) {
            return Err(wrong(&text));
        }
        if table.values().any(|(known, _)| **known == *name) {
            return Err(wrong("this name stands above already"));
        }
        if table.insert(hash, (name.into(), role)).is_some() {
            return Err(wrong("its token is that of a line above"));
        }
    }
    Ok(table)
}

fn parts(line: &str) -> Option<(Role, Hash)> {
    let mut words = line.split_whitespace().skip(1);
    let role = match words.next()? {
        "view" => Role::View,
        "operate" => Role::Operate,
        "admin" => Role::Admin,
        _ => return None,
    };
    let digits = words.next().filter(|digits| digits.len() == 64)?;
    if words.next().is_some() {
        return None;
    }
    let mut hash = [0; 32];
    for (place, byte) in (0..).step_by(2).zip(&mut hash) {
        *byte = u8::from_str_radix(digits.get(place..place + 2)?, 16).ok()?;
    }
    Some((role, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_what_the_file_has_of_it() {
        let (token, line) = make("ann", Role::Operate).unwrap();
        let (other, _) = make("ann", Role::Operate).unwrap();
        assert!(token.starts_with(PREFIX) && !line.contains(&token) && token != other);
        let tokens = Tokens::new(parse(&format!("# who\n\n{line}\n")).unwrap());
        let (name, role) = tokens.find(&token).unwrap();
        assert_eq!((&*name, role), ("ann", Role::Operate));
        assert_eq!(tokens.find(&other), None);
        tokens.replace(Table::new());
        assert_eq!(tokens.find(&token), None);
    }

    #[test]
    fn a_wrong_line_is_named_and_not_shown() {
        let hash = "0".repeat(64);
        for (text, wanted) in [
            ("ann admin".to_owned(), "line 1: it is not"),
            (format!("\nann king {hash}"), "line 2: it is not"),
            (format!("ann view {hash}0"), "line 1: it is not"),
            (format!("ann view {}", "é".repeat(32)), "line 1: it is not"),
            (format!("ann view {hash} x"), "line 1: it is not"),
            (format!("a/b view {hash}"), "line 1: a name has"),
            (format!("a view {hash}\na view {hash}"), "line 2: this name"),
            (format!("a view {hash}\nb view {hash}"), "line 2: its token"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
            assert!(!error.contains(&hash));
        }
        assert!(Role::View < Role::Operate && Role::Operate < Role::Admin);
    }
}
