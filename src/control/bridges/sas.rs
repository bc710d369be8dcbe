//! Tokens for services that take shared access signatures in place of a password: made from a key for each
//! attempt, so that none is older than its line.
//!
//! `SharedAccessSignature sr=RESOURCE&sig=SIGNATURE&se=END`, where SIGNATURE is HMAC-SHA256 of the first and
//! the last by the key, in Base64; all of it as URLs have it.

use crate::engine::access::Secret;
use crate::shard::files;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest file of a key.
const FILE_BYTES_MAX: usize = 4 * 1024;
/// What URLs have as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A key and what its tokens are for.
pub struct SasKey {
    key: hmac::Key,
    /// As URLs have it.
    resource: String,
    seconds: u64,
}

impl fmt::Debug for SasKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SasKey").field(&self.resource).finish()
    }
}

impl SasKey {
    /// Reads a key in Base64 from the first line of a file; its tokens are for `resource`, and last so long.
    ///
    /// # Errors
    /// There is none.
    pub fn load(file: &Path, resource: &str, seconds: u64) -> Result<Self, String> {
        let wrong = |text: String| format!("bridge.sas_key_file: {}: {text}", file.display());
        let bytes = files::read(file, FILE_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().next().unwrap_or_default().trim();
        let key = STANDARD.decode(line).ok().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| wrong("its first line is no key in Base64".into()))?;
        Ok(SasKey {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            resource: utf8_percent_encode(resource, PLAIN).to_string(),
            seconds,
        })
    }

    /// A token that counts from now on.
    #[must_use]
    pub fn token(&self) -> Secret {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // The second that has begun does not count.
        self.until(now.map_or(0, |now| now.as_secs() + 1) + self.seconds)
    }

    /// How long a line may last with one: it ends before the token does.
    #[must_use]
    pub const fn lasts_ms(&self) -> u64 {
        self.seconds * 900
    }

    fn until(&self, end: u64) -> Secret {
        let resource = &self.resource;
        let signed = hmac::sign(&self.key, format!("{resource}\n{end}").as_bytes());
        let signature = STANDARD.encode(signed.as_ref());
        let signature = utf8_percent_encode(&signature, PLAIN);
        let token = format!("SharedAccessSignature sr={resource}&sig={signature}&se={end}");
        Secret::new(token.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_signed_as_the_service_checks_it() {
        let key = SasKey {
            key: hmac::Key::new(hmac::HMAC_SHA256, b"a key of a device"),
            resource: utf8_percent_encode("hub.example/devices/site 7", PLAIN).to_string(),
            seconds: 60,
        };
        let token = key.until(1_800_000_000);
        assert_eq!(
            String::from_utf8_lossy(token.reveal()),
            "SharedAccessSignature sr=hub.example%2Fdevices%2Fsite%207&sig=D2%2FEey\
             MM33%2B0Hq11wluLvoI7xFM3EgJRxyVJ6FJhaM8%3D&se=1800000000"
        );
        assert_eq!(key.lasts_ms(), 54_000);
    }
}
