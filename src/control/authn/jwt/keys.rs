//! Keys that tokens are verified with, and how they are read from PEM and from key sets (JWKS, RFC 7517).
//!
//! Invariant: every key is tied to the algorithms it fits, which are all of one family; a key that fits none
//! of the configured ones is not kept.

use crate::control::text::without_mark;
use crate::engine::access::Secret;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use std::str;
use std::sync::Arc;

/// Where keys are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// One secret, shared with the issuer (HS algorithms), and the file that it is from.
    Secret(Secret, PathBuf),
    /// A file with one public key, which judges every token, whatever its `kid`.
    PemFile(PathBuf),
    /// A file with a key set.
    JwksFile(PathBuf),
    /// A server with a key set; shared secrets in it are not used.
    JwksUrl {
        /// http:// or https://.
        url: String,
        /// How often it is read again.
        refresh_s: u64,
        /// Authorities to trust for https://, in place of the system's.
        ca_file: Option<PathBuf>,
    },
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    fits: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl Key {
    /// `None` if it fits none of `allowed`.
    fn new(id: Option<String>, decoding: DecodingKey, allowed: &[Algorithm]) -> Option<Self> {
        let family = decoding.family();
        let possible: &[Algorithm] = match family {
            AlgorithmFamily::Hmac => long_enough(&decoding),
            AlgorithmFamily::Ec => curve(&decoding),
            _ => family.algorithms(),
        };
        let fits: Vec<_> = possible
            .iter()
            .copied()
            .filter(|algorithm| allowed.contains(algorithm))
            .collect();
        (!fits.is_empty()).then_some(Key { id, fits, decoding })
    }

    pub(super) const fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

/// Algorithms by shared secrets, and how long these have to be at least: as the hash (RFC 7518, 3.2), since a
/// shorter one can be guessed from one token.
const SECRET_BYTES_MIN: [(Algorithm, usize); 3] = [
    (Algorithm::HS256, 32),
    (Algorithm::HS384, 48),
    (Algorithm::HS512, 64),
];

/// What is said of one that is shorter.
const SECRET_TOO_SHORT: &str = "the secret is too short to be safe: HS256 takes at least 32 bytes, HS384 48, \
                                HS512 64 (RFC 7518, 3.2); `openssl rand -hex 32` makes one of 64 bytes";

/// The algorithms that a shared secret is long enough for.
fn long_enough(key: &DecodingKey) -> &'static [Algorithm] {
    match key.try_get_as_bytes().map_or(0, <[u8]>::len) {
        64.. => &[Algorithm::HS512, Algorithm::HS384, Algorithm::HS256],
        48.. => &[Algorithm::HS384, Algorithm::HS256],
        32.. => &[Algorithm::HS256],
        _ => &[],
    }
}

/// Whether a shared secret of so many bytes is too short for one of these.
fn is_too_short(bytes: usize, algorithms: &[Algorithm]) -> bool {
    let mut known = SECRET_BYTES_MIN.iter();
    known.any(|(algorithm, min)| algorithms.contains(algorithm) && bytes < *min)
}

/// The algorithm of the curve an uncompressed point is on, by its length.
fn curve(key: &DecodingKey) -> &'static [Algorithm] {
    match key.try_get_as_bytes().map(<[u8]>::len) {
        Ok(65) => &[Algorithm::ES256],
        Ok(97) => &[Algorithm::ES384],
        _ => &[],
    }
}

/// Keys to choose from.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Arc<Key>>,
    /// Whether `kid` chooses; otherwise there is one key for all tokens.
    is_named: bool,
}

/// What a token's header finds.
#[derive(Debug)]
pub(super) enum Choice {
    /// This key.
    Key(Arc<Key>),
    /// No key has that name: a newer set may.
    UnknownId,
    /// None, and newer keys would not help.
    None,
}

impl KeySet {
    /// A shared secret; `Err` if it is too short for one of the algorithms, `Ok(None)` if none is of its
    /// family.
    pub(super) fn secret(
        secret: &Secret,
        allowed: &[Algorithm],
    ) -> Result<Option<Self>, &'static str> {
        if is_too_short(secret.reveal().len(), allowed) {
            return Err(SECRET_TOO_SHORT);
        }
        let key = Key::new(None, DecodingKey::from_secret(secret.reveal()), allowed);
        Ok(key.map(KeySet::single))
    }

    /// The public key in a PEM file; `Err` says what is wrong with the file, `Ok(None)` is for a key that
    /// fits no algorithm.
    pub(super) fn pem(pem: &[u8], allowed: &[Algorithm]) -> Result<Option<Self>, &'static str> {
        let pem = without_mark(pem);
        let text = str::from_utf8(pem).map_err(|_| "it is not PEM")?;
        if text.contains("PRIVATE KEY-----") {
            return Err("it has a private key; give the broker the public key only");
        }
        if text.matches("-----BEGIN ").count() != 1 || !text.contains("PUBLIC KEY-----") {
            return Err(
                "it has to have one PUBLIC KEY (openssl x509 -pubkey takes it out of a certificate)",
            );
        }
        let decoding = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| "its key is not RSA, EC or Ed25519")?;
        Ok(Key::new(None, decoding, allowed).map(KeySet::single))
    }

    fn single(key: Key) -> Self {
        KeySet {
            keys: vec![Arc::new(key)],
            is_named: false,
        }
    }

    /// The keys of a key set that can be used; others in it are passed over (RFC 7517, 5). `Err` says what
    /// is wrong with the set, `Ok(None)` is for a set without a key that can be used.
    pub(super) fn jwks(
        json: &[u8],
        allowed: &[Algorithm],
        secrets: bool,
    ) -> Result<Option<Self>, &'static str> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<Value>,
        }
        let set: Jwks = serde_json::from_slice(without_mark(json))
            .map_err(|_| "it is not a key set of the form {\"keys\": [...]}")?;
        if secrets && set.keys.iter().any(|key| is_short_secret(key, allowed)) {
            return Err(SECRET_TOO_SHORT);
        }
        let usable = |value: Value| {
            let key = usable(&serde_json::from_value(value).ok()?, allowed)?;
            (secrets || key.decoding.family() != AlgorithmFamily::Hmac).then(|| Arc::new(key))
        };
        let keys: Vec<_> = set.keys.into_iter().filter_map(usable).collect();
        Ok((!keys.is_empty()).then_some(KeySet {
            keys,
            is_named: true,
        }))
    }

    /// The key for a token's header. Without `kid`, only the only key will do.
    pub(super) fn choose(&self, id: Option<&str>, algorithm: Algorithm) -> Choice {
        let id = id.filter(|_| self.is_named);
        let named = |key: &&Arc<Key>| id.is_none() || key.id.as_deref() == id;
        if id.is_none() && self.keys.len() != 1 {
            return Choice::None;
        }
        if self.keys.iter().find(named).is_none() {
            return Choice::UnknownId;
        }
        // A name may stand at several keys of different kinds (RFC 7517, 4.5).
        let fitting = |key: &&Arc<Key>| named(key) && key.fits.contains(&algorithm);
        match self.keys.iter().find(fitting) {
            Some(key) => Choice::Key(Arc::clone(key)),
            None => Choice::None,
        }
    }
}

/// Whether a key of a set is a shared secret that is too short for what it states, or for any of `allowed`.
fn is_short_secret(key: &Value, allowed: &[Algorithm]) -> bool {
    let Ok(jwk) = serde_json::from_value::<Jwk>(key.clone()) else {
        return false;
    };
    let Ok(decoding) = DecodingKey::from_jwk(&jwk) else {
        return false;
    };
    let common = &jwk.common;
    let is_other_use = |purpose: &PublicKeyUse| *purpose != PublicKeyUse::Signature;
    if decoding.family() != AlgorithmFamily::Hmac
        || common.public_key_use.as_ref().is_some_and(is_other_use)
    {
        return false;
    }
    let known = SECRET_BYTES_MIN.iter().map(|(algorithm, _)| *algorithm);
    let mut meant = known.filter(|algorithm| {
        let stated = common.key_algorithm;
        let is_stated = stated.is_none_or(|stated| stated == KeyAlgorithm::from(*algorithm));
        is_stated && allowed.contains(algorithm)
    });
    let long_enough = long_enough(&decoding);
    meant.clone().next().is_some() && !meant.any(|algorithm| long_enough.contains(&algorithm))
}

/// A key of a set, if what it states of itself lets it verify signatures.
fn usable(jwk: &Jwk, allowed: &[Algorithm]) -> Option<Key> {
    let common = &jwk.common;
    if let Some(purpose) = &common.public_key_use
        && *purpose != PublicKeyUse::Signature
    {
        return None;
    }
    if let Some(operations) = &common.key_operations
        && !operations.contains(&KeyOperations::Verify)
    {
        return None;
    }
    let stated = common.key_algorithm;
    let is_stated =
        |algorithm: &Algorithm| stated.is_none_or(|it| it == KeyAlgorithm::from(*algorithm));
    let allowed: Vec<_> = allowed.iter().copied().filter(is_stated).collect();
    Key::new(
        common.key_id.clone(),
        DecodingKey::from_jwk(jwk).ok()?,
        &allowed,
    )
}

#[cfg(test)]
mod tests {
    use super::super::signing::*;
    use super::super::{JwtConfig, JwtError, JwtMethod};
    use super::*;
    use crate::control::authn::stand_in::Scratch;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::EncodingKey;
    use serde_json::json;

    fn pem_method(
        scratch: &Scratch,
        pem: &str,
        algorithms: &[Algorithm],
    ) -> Result<JwtMethod, JwtError> {
        let path = scratch.write("key.pem", pem.as_bytes());
        let config = JwtConfig::new(algorithms.to_vec(), KeySource::PemFile(path));
        JwtMethod::with_clock(config, now)
    }

    #[test]
    fn each_algorithm_of_public_keys_works_and_other_keys_do_not() {
        let p384 = &rcgen::PKCS_ECDSA_P384_SHA384;
        let ed = &rcgen::PKCS_ED25519;
        let kinds: [(&Pair, Pair, &[Algorithm]); 4] = [
            (rsa(), pair(&rcgen::PKCS_RSA_SHA256), &RSA),
            (
                p256(),
                pair(&rcgen::PKCS_ECDSA_P256_SHA256),
                &[Algorithm::ES256],
            ),
            (&pair(p384), pair(p384), &[Algorithm::ES384]),
            (&pair(ed), pair(ed), &[Algorithm::EdDSA]),
        ];
        for (pair, other, algorithms) in kinds {
            let scratch = Scratch::new();
            let method = pem_method(&scratch, &pair.public_pem, algorithms).unwrap();
            for algorithm in algorithms {
                // A file with one key does not ask for its name.
                let token = signed(*algorithm, Some("any"), &pair.private, &claims());
                assert!(is_allowed(&method, &token), "{algorithm:?}");
                let token = signed(*algorithm, None, &other.private, &claims());
                assert!(!is_allowed(&method, &token), "{algorithm:?}");
            }
        }
    }

    #[test]
    fn a_public_key_never_serves_as_a_shared_secret() {
        let scratch = Scratch::new();
        let pem = &rsa().public_pem;
        let both = [Algorithm::RS256, Algorithm::HS256];
        let method = pem_method(&scratch, pem, &both).unwrap();
        let good = signed(Algorithm::RS256, None, &rsa().private, &claims());
        assert!(is_allowed(&method, &good));
        for secret in [pem.as_str(), pem.trim()] {
            let key = EncodingKey::from_secret(secret.as_bytes());
            let forged = signed(Algorithm::HS256, None, &key, &claims());
            assert!(!is_allowed(&method, &forged));
        }
    }

    #[test]
    fn a_shared_secret_never_serves_as_a_public_key() {
        let mut config = secret_config();
        config.algorithms = vec![Algorithm::HS256, Algorithm::RS256];
        let token = signed(Algorithm::RS256, None, &rsa().private, &claims());
        assert!(!is_allowed(&method(config), &token));
    }

    #[test]
    fn the_algorithms_of_one_curve_do_not_take_keys_of_another() {
        let scratch = Scratch::new();
        let error = pem_method(&scratch, &p256().public_pem, &[Algorithm::ES384]).unwrap_err();
        assert!(matches!(error, JwtError::NoKey { .. }));
    }

    #[test]
    fn mistakes_in_files_of_keys_are_told() {
        let scratch = Scratch::new();
        let pem = &p256().public_pem;
        let text = |text: &str| match pem_method(&scratch, text, &[Algorithm::ES256]) {
            Err(JwtError::Read { place, text }) => {
                assert!(place.ends_with("key.pem"));
                text
            }
            other => panic!("{other:?}"),
        };
        assert!(text(&p256().private_pem).contains("private"));
        assert!(text(&format!("{pem}{pem}")).contains("one PUBLIC KEY"));
        assert!(text("").contains("one PUBLIC KEY"));
        let broken = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert!(text(broken).contains("RSA, EC or Ed25519"));
        let missing = JwtConfig::new(HS.to_vec(), KeySource::PemFile("/nowhere/key".into()));
        let error = JwtMethod::new(missing).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/key: "), "{error}");
        let large = scratch.write("large.json", &vec![b' '; (1 << 20) + 1]);
        let error = JwtMethod::new(file_config(&large)).unwrap_err();
        assert!(error.to_string().contains("larger"), "{error}");
    }

    #[test]
    fn the_key_is_chosen_by_its_name() {
        let scratch = Scratch::new();
        let (one, two) = (p256(), pair(&rcgen::PKCS_ECDSA_P256_SHA256));
        let keys = [
            jwk(&one.private, Algorithm::ES256, Some("one"), json!({})),
            jwk(&two.private, Algorithm::ES256, Some("two"), json!({})),
        ];
        let method = set_method(&scratch, &keys);
        assert!(is_allowed(&method, &es256(Some("one"), &one.private)));
        assert!(is_allowed(&method, &es256(Some("two"), &two.private)));
        assert!(!is_allowed(&method, &es256(Some("two"), &one.private)));
        assert!(!is_allowed(&method, &es256(Some("three"), &one.private)));
        assert!(!is_allowed(&method, &es256(None, &one.private)));
    }

    #[test]
    fn a_token_that_names_no_key_gets_the_only_one() {
        let scratch = Scratch::new();
        let key = &p256().private;
        let named = jwk(key, Algorithm::ES256, Some("one"), json!({}));
        let method = set_method(&scratch, &[named]);
        assert!(is_allowed(&method, &es256(None, key)));
        let unnamed = jwk(key, Algorithm::ES256, None, json!({}));
        let method = set_method(&scratch, &[unnamed]);
        assert!(is_allowed(&method, &es256(None, key)));
        assert!(!is_allowed(&method, &es256(Some("one"), key)));
    }

    #[test]
    fn keys_of_different_kinds_may_have_one_name() {
        let scratch = Scratch::new();
        let keys = [
            jwk(&rsa().private, Algorithm::RS256, Some("one"), json!({})),
            jwk(&p256().private, Algorithm::ES256, Some("one"), json!({})),
        ];
        let method = set_method(&scratch, &keys);
        assert!(is_allowed(&method, &es256(Some("one"), &p256().private)));
        let token = signed(Algorithm::RS256, Some("one"), &rsa().private, &claims());
        assert!(is_allowed(&method, &token));
    }

    #[test]
    fn what_a_key_states_of_itself_is_heeded() {
        let key = &p256().private;
        let verdict = |changes: Value| {
            let scratch = Scratch::new();
            // Another key, so that the set can be used in any case.
            let other = pair(&rcgen::PKCS_ECDSA_P256_SHA256).private;
            let keys = [
                jwk(key, Algorithm::ES256, Some("one"), changes),
                jwk(&other, Algorithm::ES256, Some("two"), json!({})),
            ];
            is_allowed(&set_method(&scratch, &keys), &es256(Some("one"), key))
        };
        assert!(verdict(
            json!({"use": "sig", "alg": "ES256", "key_ops": ["verify"]})
        ));
        assert!(!verdict(json!({"use": "enc"})));
        assert!(!verdict(json!({"use": "other"})));
        assert!(!verdict(json!({"alg": "ES384"})));
        assert!(!verdict(json!({"alg": "RS256"})));
        assert!(!verdict(json!({"alg": "ECDH-ES"})));
        assert!(!verdict(json!({"key_ops": ["sign"]})));
    }

    #[test]
    fn a_key_for_one_algorithm_does_not_verify_others_of_its_family() {
        let scratch = Scratch::new();
        let key = &rsa().private;
        let stated = jwk(key, Algorithm::RS256, Some("one"), json!({"alg": "PS256"}));
        let method = set_method(&scratch, &[stated]);
        let with = |algorithm| signed(algorithm, Some("one"), key, &claims());
        assert!(is_allowed(&method, &with(Algorithm::PS256)));
        assert!(!is_allowed(&method, &with(Algorithm::RS256)));
    }

    #[test]
    fn a_public_key_of_a_set_never_serves_as_a_shared_secret() {
        let scratch = Scratch::new();
        let key = jwk(&rsa().private, Algorithm::RS256, Some("one"), json!({}));
        let modulus = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
        let method = set_method(&scratch, std::slice::from_ref(&key));
        for secret in [
            rsa().public_pem.as_bytes(),
            key["n"].as_str().unwrap().as_bytes(),
            &modulus,
            key.to_string().as_bytes(),
        ] {
            let forged = EncodingKey::from_secret(secret);
            for id in [None, Some("one")] {
                let forged = signed(Algorithm::HS256, id, &forged, &claims());
                assert!(!is_allowed(&method, &forged));
            }
        }
    }

    #[test]
    fn keys_that_are_not_understood_are_passed_over() {
        let scratch = Scratch::new();
        let keys = [
            json!({"kty": "quantum", "kid": "q"}),
            json!({"kty": "EC", "crv": "P-256", "x": "!", "y": "!", "kid": "broken"}),
            json!(7),
            jwk(&p256().private, Algorithm::ES256, Some("one"), json!({})),
        ];
        let method = set_method(&scratch, &keys);
        assert!(is_allowed(&method, &es256(Some("one"), &p256().private)));
        let unusable = scratch.write("unusable.json", &jwks(&keys[..3]));
        let error = JwtMethod::new(file_config(&unusable)).unwrap_err();
        assert!(matches!(error, JwtError::NoKey { .. }));
    }
}
