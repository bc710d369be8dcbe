//! The keys in force: read when the method begins, again on demand, and from a URL every so often.
//!
//! Invariants: keys are replaced whole and only by keys that can be used; readings do not overlap, so that an
//! older one never replaces a newer one; unknown key names cause one reading per [`EXTRA_PAUSE`] at most.

use super::JwtError;
use super::keys::{Choice, Key, KeySet, KeySource};
use crate::control::authn::fetch::{self, Client, SettingError};
use crate::engine::access::Secret;
use crate::shard::files::KEYS_BYTES_MAX;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jsonwebtoken::Algorithm;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::thread;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long a server may take to answer.
const TIMEOUT_MS: u64 = 5_000;

/// Pause between readings for the sake of unknown key names.
const EXTRA_PAUSE: Duration = Duration::from_secs(30);

/// Pause after a reading that failed, if `refresh_s` is not shorter.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// What a look-up finds.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The key.
    Found(Arc<Key>),
    /// There is none.
    None,
    /// Keys are being read; it may be among them.
    NotNow,
}

/// The keys of one method. Its thread ends with it.
pub(super) struct KeyStore {
    shared: Arc<Shared>,
    /// Has the thread of a URL read now; dropping it tells the thread to end.
    reader: Option<Sender<()>>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        f.debug_tuple("KeyStore").field(&place).finish()
    }
}

enum Origin {
    Secret(Secret, PathBuf),
    Pem(PathBuf),
    Jwks(PathBuf),
    Url(Client),
}

impl Origin {
    fn place(&self) -> String {
        match self {
            Origin::Secret(_, path) | Origin::Pem(path) | Origin::Jwks(path) => {
                path.display().to_string()
            }
            Origin::Url(client) => client.place(),
        }
    }
}

struct Shared {
    origin: Origin,
    algorithms: Vec<Algorithm>,
    /// `None` until the first reading succeeds.
    current: RwLock<Option<Arc<KeySet>>>,
    /// Held while reading; when an unknown key name last caused a reading.
    reading: Mutex<Option<Instant>>,
}

impl Shared {
    fn read(&self) -> Result<KeySet, JwtError> {
        let wrong = |text: String| JwtError::Read {
            place: self.origin.place(),
            text,
        };
        let file =
            |path| fetch::file(path, KEYS_BYTES_MAX).map_err(|error| wrong(error.to_string()));
        let allowed = &self.algorithms;
        let set = match &self.origin {
            Origin::Secret(secret, _) => KeySet::secret(secret, allowed),
            Origin::Pem(path) => KeySet::pem(&file(path)?, allowed),
            Origin::Jwks(path) => KeySet::jwks(&file(path)?, allowed, true),
            Origin::Url(client) => {
                let json = client.get(KEYS_BYTES_MAX);
                let json = json.map_err(|error| wrong(error.to_string()))?;
                KeySet::jwks(&json, allowed, false)
            }
        };
        let set = set.map_err(|text| wrong(text.to_owned()))?;
        set.ok_or_else(|| JwtError::NoKey {
            place: self.origin.place(),
        })
    }

    fn reload(&self) -> Result<(), JwtError> {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(&reading)
    }

    fn replace(&self, _reading: &MutexGuard<'_, Option<Instant>>) -> Result<(), JwtError> {
        let set = Arc::new(self.read()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(set);
        Ok(())
    }

    fn choose(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Choice> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|set| set.choose(id, algorithm))
    }
}

impl KeyStore {
    /// Reads the keys; those of a URL on a thread that goes on reading them.
    pub(super) fn open(source: &KeySource, algorithms: &[Algorithm]) -> Result<Self, JwtError> {
        if algorithms.is_empty() {
            return Err(SettingError::new("algorithms", "name at least one, such as ES256").into());
        }
        let (origin, refresh_s) = match source {
            KeySource::Secret(secret, path) => {
                // Whoever has the public key could sign with it if it were a secret.
                if secret
                    .reveal()
                    .trim_ascii_start()
                    .starts_with(b"-----BEGIN")
                {
                    let text = format!(
                        "{}: it is a key in PEM, not a secret; name it as public_key_file",
                        path.display()
                    );
                    return Err(SettingError::new("secret_file", text).into());
                }
                (Origin::Secret(secret.clone(), path.clone()), None)
            }
            KeySource::PemFile(path) => (Origin::Pem(path.clone()), None),
            KeySource::JwksFile(path) => (Origin::Jwks(path.clone()), None),
            KeySource::JwksUrl {
                url,
                refresh_s,
                ca_file,
            } => {
                if *refresh_s == 0 {
                    let text = "it has to be at least 1 second";
                    return Err(SettingError::new("jwks_refresh_seconds", text).into());
                }
                let client = Client::new("jwks_url", url, TIMEOUT_MS, ca_file.as_deref())?;
                (Origin::Url(client), Some(*refresh_s))
            }
        };
        let shared = Arc::new(Shared {
            origin,
            algorithms: algorithms.to_vec(),
            current: RwLock::new(None),
            reading: Mutex::new(None),
        });
        let reader = match refresh_s {
            None => {
                shared.reload()?;
                None
            }
            Some(refresh_s) => Some(start(&shared, Duration::from_secs(refresh_s))?),
        };
        Ok(KeyStore { shared, reader })
    }

    /// Where the keys are, for an operator.
    pub(super) fn place(&self) -> String {
        self.shared.origin.place()
    }

    /// Reads the keys again; the old ones stay if that fails. Those of a URL are read by their thread, which
    /// says in the log how it went: nobody waits for a server here. Whether they are in force already.
    pub(super) fn reload(&self) -> Result<bool, JwtError> {
        let Some(reader) = &self.reader else {
            return self.shared.reload().map(|()| true);
        };
        // If it is full, the next reading begins later than this.
        let _ = reader.try_send(());
        Ok(false)
    }

    /// The key for a token's header. For a name that is not known a URL may be read again, by one caller at a
    /// time; it waits for the server.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Lookup {
        match self.shared.choose(id, algorithm) {
            None => Lookup::NotNow,
            Some(Choice::Key(key)) => Lookup::Found(key),
            Some(Choice::None) => Lookup::None,
            Some(Choice::UnknownId) if matches!(self.shared.origin, Origin::Url(_)) => {
                self.find_in_newer(id, algorithm)
            }
            Some(Choice::UnknownId) => Lookup::None,
        }
    }

    fn find_in_newer(&self, id: Option<&str>, algorithm: Algorithm) -> Lookup {
        let mut reading = match self.shared.reading.try_lock() {
            Ok(reading) => reading,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Lookup::NotNow,
        };
        if reading.is_none_or(|last| last.elapsed() >= EXTRA_PAUSE) {
            *reading = Some(Instant::now());
            if let Err(error) = self.shared.replace(&reading) {
                warn!(%error, "keys for tokens could not be read again; the old ones stay");
            }
        }
        // Also if nothing was read: another caller may have just done it.
        match self.shared.choose(id, algorithm) {
            Some(Choice::Key(key)) => Lookup::Found(key),
            _ => Lookup::None,
        }
    }
}

/// Starts the thread that reads a URL now, every `refresh` and when asked to, until the sender is dropped.
fn start(shared: &Arc<Shared>, refresh: Duration) -> Result<Sender<()>, JwtError> {
    let (reader, wishes) = bounded(1);
    let shared = Arc::clone(shared);
    thread::Builder::new()
        .name("jwks".to_owned())
        .spawn(move || keep_reading(&shared, refresh, &wishes))
        .map_err(|error| JwtError::Thread(error.to_string()))?;
    Ok(reader)
}

fn keep_reading(shared: &Shared, refresh: Duration, wishes: &Receiver<()>) {
    let mut is_wished = false;
    loop {
        let pause = match shared.reload() {
            Ok(()) => {
                if is_wished {
                    info!("the keys of tokens are reloaded");
                }
                refresh
            }
            Err(error) => {
                let current = shared
                    .current
                    .read()
                    .unwrap_or_else(PoisonError::into_inner);
                if current.is_some() {
                    warn!(%error, "keys for tokens could not be read; the old ones stay");
                } else {
                    warn!(%error, "keys for tokens could not be read; no token counts until they are");
                }
                RETRY_PAUSE.min(refresh)
            }
        };
        is_wished = match wishes.recv_timeout(pause) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::signing::*;
    use super::super::{JwtConfig, JwtMethod};
    use super::*;
    use crate::control::authn::stand_in::{Reply, Scratch, StandIn};
    use jsonwebtoken::EncodingKey;
    use serde_json::json;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn url_config(server: &StandIn, refresh_s: u64) -> JwtConfig {
        let source = KeySource::JwksUrl {
            url: server.url("/jwks"),
            refresh_s,
            ca_file: None,
        };
        JwtConfig::new(vec![Algorithm::ES256, Algorithm::HS256], source)
    }

    fn eventually(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(20), "not in time");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_key_in_pem_is_not_taken_for_a_secret() {
        let secret = Secret::new(format!("\n{}", rsa().public_pem).as_bytes());
        let config = JwtConfig::new(HS.to_vec(), KeySource::Secret(secret, "secret".into()));
        let error = JwtMethod::new(config).unwrap_err();
        assert!(matches!(error, JwtError::Setting(setting) if setting.key == "secret_file"));
    }

    #[test]
    fn mistakes_in_the_configuration_name_the_key() {
        let key = |config: JwtConfig| match JwtMethod::new(config) {
            Err(JwtError::Setting(error)) => error.key,
            other => panic!("{other:?}"),
        };
        let mut config = secret_config();
        config.algorithms.clear();
        assert_eq!(key(config), "algorithms");
        let mut config = secret_config();
        config.user_claim.clear();
        assert_eq!(key(config), "user_claim");
        let url = |url: &str, refresh_s| KeySource::JwksUrl {
            url: url.to_owned(),
            refresh_s,
            ca_file: None,
        };
        let never = url("http://127.0.0.1:9/", 0);
        assert_eq!(
            key(JwtConfig::new(HS.to_vec(), never)),
            "jwks_refresh_seconds"
        );
        let ftp = url("ftp://127.0.0.1/", 60);
        assert_eq!(key(JwtConfig::new(HS.to_vec(), ftp)), "jwks_url");
        let secret = KeySource::Secret(Secret::new(b"hush"), "secret".into());
        let error = JwtMethod::new(JwtConfig::new(vec![Algorithm::RS256], secret)).unwrap_err();
        assert!(matches!(error, JwtError::NoKey { .. }), "{error}");
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        let scratch = Scratch::new();
        for (algorithm, bytes_min) in [
            (Algorithm::HS256, 32),
            (Algorithm::HS384, 48),
            (Algorithm::HS512, 64),
        ] {
            for bytes in [0, 1, bytes_min - 1, bytes_min] {
                let secret = vec![b'x'; bytes];
                let of_set = jwk(
                    &EncodingKey::from_secret(&secret),
                    algorithm,
                    None,
                    json!({}),
                );
                let file = scratch.write("set", &jwks(&[of_set]));
                let sources = [
                    KeySource::Secret(Secret::new(&secret), "secret".into()),
                    KeySource::JwksFile(file),
                ];
                for source in sources {
                    let method = JwtMethod::new(JwtConfig::new(vec![algorithm], source));
                    assert_eq!(method.is_ok(), bytes == bytes_min, "{algorithm:?} {bytes}");
                    let text = method
                        .err()
                        .map_or(String::new(), |error| error.to_string());
                    assert_eq!(text.contains("RFC 7518"), bytes < bytes_min, "{text}");
                }
            }
        }
        // One that is long enough for some only is too short for the others.
        let secret = KeySource::Secret(Secret::new(&[b'x'; 40]), "secret".into());
        let both = vec![Algorithm::HS256, Algorithm::HS512];
        assert!(JwtMethod::new(JwtConfig::new(both, secret)).is_err());
    }

    #[test]
    fn keys_in_a_file_are_replaced_whole_and_kept_if_the_new_ones_are_bad() {
        let scratch = Scratch::new();
        let (old, new) = (p256(), pair(&rcgen::PKCS_ECDSA_P256_SHA256));
        let old_key = jwk(&old.private, Algorithm::ES256, Some("old"), json!({}));
        let method = set_method(&scratch, &[old_key]);
        let old_token = es256(Some("old"), &old.private);
        let new_token = es256(Some("new"), &new.private);
        assert!(is_allowed(&method, &old_token));
        assert!(!is_allowed(&method, &new_token));

        for bad in [&b"not a set"[..], br#"{"keys":[]}"#, br#"{"keys":{}}"#] {
            let path = scratch.write("jwks.json", bad);
            let error = method.reload().unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(is_allowed(&method, &old_token));
        }

        let new_key = jwk(&new.private, Algorithm::ES256, Some("new"), json!({}));
        scratch.write("jwks.json", &jwks(&[new_key]));
        assert!(is_allowed(&method, &old_token));
        method.reload().unwrap();
        assert!(!is_allowed(&method, &old_token));
        assert!(is_allowed(&method, &new_token));
    }

    #[test]
    fn a_secret_in_a_file_is_used_and_one_from_a_url_is_not() {
        let scratch = Scratch::new();
        let secret = EncodingKey::from_secret(SECRET);
        let key = jwk(&secret, Algorithm::HS256, Some("s"), json!({}));
        let token = signed(Algorithm::HS256, Some("s"), &secret, &claims());
        let method = set_method(&scratch, std::slice::from_ref(&key));
        assert!(is_allowed(&method, &token));

        let public = jwk(&p256().private, Algorithm::ES256, Some("p"), json!({}));
        let body = jwks(&[key, public]);
        let server = StandIn::new(move |_| Reply::ok(body.clone()));
        let method = self::method(url_config(&server, 600));
        eventually(|| !is_unavailable(&method, &token));
        assert!(!is_allowed(&method, &token));
        assert!(is_allowed(&method, &es256(Some("p"), &p256().private)));
    }

    #[test]
    fn until_a_server_has_given_keys_nobody_can_be_judged() {
        let body = Arc::new(Mutex::new(None::<Vec<u8>>));
        let answers = Arc::clone(&body);
        let server = StandIn::new(move |_| match &*answers.lock().unwrap() {
            Some(body) => Reply::ok(body.clone()),
            None => Reply::status("503 Later"),
        });
        let method = method(url_config(&server, 600));
        let token = es256(Some("one"), &p256().private);
        eventually(|| server.count() == 1);
        assert!(is_unavailable(&method, &token));
        assert!(!method.reload().unwrap());
        eventually(|| server.count() == 2);
        assert!(is_unavailable(&method, &token));

        let key = jwk(&p256().private, Algorithm::ES256, Some("one"), json!({}));
        *body.lock().unwrap() = Some(jwks(&[key]));
        method.reload().unwrap();
        eventually(|| !is_unavailable(&method, &token));
        assert!(is_allowed(&method, &token));

        *body.lock().unwrap() = None;
        let count = server.count();
        method.reload().unwrap();
        eventually(|| server.count() > count);
        assert!(is_allowed(&method, &token));
    }

    #[test]
    fn who_has_keys_reloaded_does_not_wait_for_the_server() {
        let (release, released) = bounded::<()>(0);
        let server = StandIn::new(move |_| {
            let _ = released.recv();
            Reply::status("503 Later")
        });
        let method = method(url_config(&server, 600));
        eventually(|| server.count() == 1);
        // It does not answer as long as this test does not go on.
        for _ in 0..3 {
            assert!(!method.reload().unwrap());
        }
        drop(release);
        eventually(|| server.count() >= 2);
    }

    #[test]
    fn a_server_is_read_again_every_so_often_until_the_method_ends() {
        let key = jwk(&p256().private, Algorithm::ES256, Some("one"), json!({}));
        let body = jwks(&[key]);
        let server = StandIn::new(move |_| Reply::ok(body.clone()));
        let method = method(url_config(&server, 1));
        eventually(|| server.count() >= 2);
        drop(method);
        thread::sleep(Duration::from_millis(200));
        let count = server.count();
        thread::sleep(Duration::from_millis(1_500));
        assert_eq!(server.count(), count);
    }

    #[test]
    fn an_unknown_key_name_reads_the_server_again_once() {
        let second = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let first_key = jwk(&p256().private, Algorithm::ES256, Some("one"), json!({}));
        let second_key = jwk(&second.private, Algorithm::ES256, Some("two"), json!({}));
        let before = jwks(std::slice::from_ref(&first_key));
        let after = jwks(&[first_key, second_key]);
        let is_first = AtomicBool::new(true);
        let server = StandIn::new(move |_| {
            let is_first = is_first.swap(false, Ordering::Relaxed);
            Reply::ok(if is_first { &before[..] } else { &after })
        });
        let method = method(url_config(&server, 600));
        let first = es256(Some("one"), &p256().private);
        eventually(|| !is_unavailable(&method, &first));
        assert!(is_allowed(&method, &first));
        assert_eq!(server.count(), 1);
        // The server has a newer key by now.
        assert!(is_allowed(&method, &es256(Some("two"), &second.private)));
        assert_eq!(server.count(), 2);
        for _ in 0..3 {
            assert!(!is_allowed(&method, &es256(Some("three"), &second.private)));
        }
        assert_eq!(server.count(), 2);
    }

    #[test]
    fn while_keys_are_read_an_unknown_name_is_not_judged() {
        let key = jwk(&p256().private, Algorithm::ES256, Some("one"), json!({}));
        let body = jwks(&[key]);
        let (release, released) = bounded(1);
        let is_first = AtomicBool::new(true);
        let server = StandIn::new(move |_| {
            if !is_first.swap(false, Ordering::Relaxed) {
                let _ = released.recv_timeout(Duration::from_secs(4));
            }
            Reply::ok(body.clone())
        });
        let method = method(url_config(&server, 600));
        let known = es256(Some("one"), &p256().private);
        let unknown = es256(Some("two"), &p256().private);
        eventually(|| !is_unavailable(&method, &known));
        thread::scope(|scope| {
            let reading = scope.spawn(|| is_allowed(&method, &unknown));
            eventually(|| server.count() == 2);
            assert!(is_unavailable(&method, &unknown));
            assert!(is_allowed(&method, &known));
            release.send(()).unwrap();
            assert!(!reading.join().unwrap());
        });
        assert!(!is_allowed(&method, &unknown));
    }

    #[test]
    fn other_mistakes_of_a_token_do_not_read_the_server_again() {
        let key = jwk(&p256().private, Algorithm::ES256, Some("one"), json!({}));
        let body = jwks(&[key]);
        let server = StandIn::new(move |_| Reply::ok(body.clone()));
        let method = method(url_config(&server, 600));
        let good = es256(Some("one"), &p256().private);
        eventually(|| !is_unavailable(&method, &good));
        let other = pair(&rcgen::PKCS_ECDSA_P256_SHA256).private;
        assert!(!is_allowed(&method, &es256(Some("one"), &other)));
        let unlisted = signed(Algorithm::RS256, Some("two"), &rsa().private, &claims());
        assert!(!is_allowed(&method, &unlisted));
        assert_eq!(server.count(), 1);
    }
}
