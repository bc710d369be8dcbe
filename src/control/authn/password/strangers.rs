//! What makes the salts that unknown users are shown in a SCRAM exchange. It comes from the password file, so
//! that a restart shows the same: a salt that changes would tell that its user is unknown.
//!
//! `ringmq passwd --scram` writes it into the file as a remark. Without that it is made from the users'
//! lines, so slowly that who sees such a salt gains nothing for guessing passwords; then it changes with
//! them.

use super::{is_remark, random, sha256};
use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::num::NonZeroU32;
use std::sync::OnceLock;

/// How the remark begins.
const PREFIX: &str = "#scram-unknown-users:";
/// Bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Iterations of PBKDF2-HMAC-SHA512 in place of a secret; 210,000 are advised for a password itself.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(300_000).unwrap();

/// Makes salts.
pub(super) struct Strangers {
    secret: Option<[u8; SECRET_BYTES]>,
    /// Of all users' lines.
    digest: Box<[u8]>,
    key: OnceLock<hmac::Key>,
}

impl Strangers {
    /// Of the text of a password file.
    pub fn new(text: &str) -> Self {
        let mut lines = String::new();
        for line in text.lines().filter(|line| !is_remark(line)) {
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        Strangers {
            secret: secret(text),
            digest: sha256(lines.as_bytes()),
            key: OnceLock::new(),
        }
    }

    /// Salt for a user that the file does not know.
    pub fn salt(&self, user_name: &str, bytes: usize) -> Vec<u8> {
        let salt = hmac::sign(self.key(), user_name.as_bytes());
        salt.as_ref().iter().copied().take(bytes).collect()
    }

    /// Takes long once without a secret.
    pub fn key(&self) -> &hmac::Key {
        self.key.get_or_init(|| {
            let key = self.secret.unwrap_or_else(|| {
                let mut made = [0; SECRET_BYTES];
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
                pbkdf2::derive(
                    algorithm,
                    ITERATIONS,
                    PREFIX.as_bytes(),
                    &self.digest,
                    &mut made,
                );
                made
            });
            hmac::Key::new(hmac::HMAC_SHA512, &key)
        })
    }
}

fn secret(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut found = text.lines().filter_map(|line| line.strip_prefix(PREFIX));
    let bytes = STANDARD.decode(found.next()?.trim()).ok()?;
    bytes.try_into().ok()
}

/// The text of a password file with a secret, its own or a new one.
///
/// # Panics
/// If the system has no randomness.
pub(crate) fn with_secret(text: String) -> String {
    if secret(&text).is_some() {
        return text;
    }
    let secret = STANDARD.encode(random::<SECRET_BYTES>());
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{text}{end}{PREFIX}{secret}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_stays_whatever_happens_to_users_and_restarts() {
        let text = with_secret("ann:x\n".into());
        assert_eq!(with_secret(text.clone()), text);
        let salt = |text: &str, user| Strangers::new(text).salt(user, 16);
        assert_eq!(salt(&text, "bob"), salt(&format!("{text}eve:y\n"), "bob"));
        assert_ne!(salt(&text, "bob"), salt(&text, "bobby"));
        assert_ne!(
            salt(&text, "bob"),
            salt(&with_secret("ann:x\n".into()), "bob")
        );
    }

    #[test]
    fn without_a_secret_the_same_users_make_the_same_salts() {
        let salt = |text: &str| Strangers::new(text).salt("bob", 16);
        assert_eq!(salt("ann:x\n"), salt("# Users\r\n\r\nann:x\r\n"));
        assert_ne!(salt("ann:x\n"), salt("ann:y\n"));
        assert_eq!(salt("ann:x\n").len(), 16);
    }
}
