//! Keys and tokens for the tests of this folder, made on the spot.

use super::super::stand_in::Scratch;
use super::*;
use crate::engine::codec::Version;
use crate::shard::peer::Peer;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::json;
use std::path::Path;
use std::sync::OnceLock;

pub(super) const NOW_S: u64 = 1_000_000;

pub(super) const HS: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

pub(super) const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

pub(super) fn now() -> u64 {
    NOW_S
}

pub(super) fn credentials(password: &[u8]) -> Credentials {
    Credentials {
        client_id: "pump-7".into(),
        user_name: None,
        password: Some(Secret::new(password)),
        version: Version::V5,
        peer: Peer::Unix,
        certificate: None,
    }
}

/// Long enough for every algorithm.
pub(super) const SECRET: &[u8] =
    b"hush-hush hush-hush hush-hush hush-hush hush-hush hush-hush hush-hush";

pub(super) fn secret_config() -> JwtConfig {
    let secret = KeySource::Secret(Secret::new(SECRET), "secret".into());
    JwtConfig::new(HS.to_vec(), secret)
}

pub(super) fn method(config: JwtConfig) -> JwtMethod {
    JwtMethod::with_clock(config, now).unwrap()
}

pub(super) fn claims() -> Value {
    json!({"sub": "ann", "exp": NOW_S + 100})
}

/// `claims()` with others in place of some; null removes one.
pub(super) fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (claim, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(claim);
        } else {
            claims[claim] = value.clone();
        }
    }
    claims
}

pub(super) fn signed(
    algorithm: Algorithm,
    id: Option<&str>,
    key: &EncodingKey,
    claims: &Value,
) -> String {
    let mut header = Header::new(algorithm);
    header.kid = id.map(str::to_owned);
    encode(&header, claims, key).unwrap()
}

pub(super) fn hs256(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET);
    signed(Algorithm::HS256, None, &key, claims)
}

pub(super) fn identity(method: &JwtMethod, token: &str) -> Identity {
    match method.authenticate(&credentials(token.as_bytes())) {
        Verdict::Allow(identity) => *identity,
        other => panic!("{other:?}"),
    }
}

pub(super) fn is_allowed(method: &JwtMethod, token: &str) -> bool {
    match method.authenticate(&credentials(token.as_bytes())) {
        Verdict::Allow(_) => true,
        Verdict::Refuse(Refusal::BadProof(_)) => false,
        other => panic!("{other:?}"),
    }
}

pub(super) fn is_unavailable(method: &JwtMethod, token: &str) -> bool {
    let verdict = method.authenticate(&credentials(token.as_bytes()));
    matches!(verdict, Verdict::Refuse(Refusal::Unavailable))
}

/// One pair of each kind; RSA takes long to make.
pub(super) struct Pair {
    pub(super) private: EncodingKey,
    pub(super) public_pem: String,
    pub(super) private_pem: String,
}

pub(super) fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> Pair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let private_pem = key.serialize_pem();
    let pem = private_pem.as_bytes();
    let private = EncodingKey::from_rsa_pem(pem)
        .or_else(|_| EncodingKey::from_ec_pem(pem))
        .or_else(|_| EncodingKey::from_ed_pem(pem));
    Pair {
        private: private.unwrap(),
        public_pem: key.public_key_pem(),
        private_pem,
    }
}

pub(super) fn rsa() -> &'static Pair {
    static RSA: OnceLock<Pair> = OnceLock::new();
    RSA.get_or_init(|| pair(&rcgen::PKCS_RSA_SHA256))
}

pub(super) fn p256() -> &'static Pair {
    static P256: OnceLock<Pair> = OnceLock::new();
    P256.get_or_init(|| pair(&rcgen::PKCS_ECDSA_P256_SHA256))
}

/// A key of a set, without `alg`; `changes` are put into it.
pub(super) fn jwk(
    key: &EncodingKey,
    algorithm: Algorithm,
    id: Option<&str>,
    changes: Value,
) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).unwrap()).unwrap();
    let fields = jwk.as_object_mut().unwrap();
    fields.remove("alg");
    if let Some(id) = id {
        fields.insert("kid".to_owned(), json!(id));
    }
    for (field, value) in changes.as_object().unwrap() {
        fields.insert(field.clone(), value.clone());
    }
    jwk
}

pub(super) fn jwks(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

pub(super) fn es256(id: Option<&str>, key: &EncodingKey) -> String {
    signed(Algorithm::ES256, id, key, &claims())
}

pub(super) fn file_config(path: &Path) -> JwtConfig {
    let algorithms = [&RSA[..], &[Algorithm::ES256, Algorithm::HS256]].concat();
    JwtConfig::new(algorithms, KeySource::JwksFile(path.to_owned()))
}

/// A method with a file of these keys.
pub(super) fn set_method(scratch: &Scratch, keys: &[Value]) -> JwtMethod {
    let path = scratch.write("jwks.json", &jwks(keys));
    method(file_config(&path))
}
