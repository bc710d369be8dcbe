//! The hash forms of a password file: reading, making and checking them.
//!
//! Invariants: parameters are bounded when a line is read, so that no later check can hang or take more
//! than 1 GiB; comparisons take constant time; no hash has a `Debug` form.
//!
//! Not here: users and lines ([`super`]), the SCRAM exchange ([`crate::control::authn::scram`]).

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, STANDARD_PAD_INDIFFERENT};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

/// How every SCRAM hash begins, unlike the others.
pub(crate) const SCRAM_PREFIX: &str = "$scram-sha-256$";
/// SCRAM iterations where a file has no SCRAM line to say otherwise (RFC 7677).
pub(crate) const SCRAM_ITERATIONS: u32 = 4096;
/// Bytes of the salts made here.
pub(crate) const SALT_BYTES: usize = 16;

const ARGON2_HASH_BYTES: usize = 32;
const ARGON2_MEMORY_KIB: RangeInclusive<u32> = 8..=1 << 20;
const ARGON2_PASSES: RangeInclusive<u32> = 1..=64;
const ARGON2_LANES: RangeInclusive<u32> = 1..=16;
const PBKDF2_ITERATIONS: RangeInclusive<u32> = 1..=10_000_000;
const SCRAM_ITERATIONS_ALLOWED: RangeInclusive<u32> = SCRAM_ITERATIONS..=10_000_000;

const ARGON2_FORM: &str = "argon2id is $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH with m from 8 \
    for each lane to 1048576, t up to 64, p up to 16, a salt of 8 to 256 bytes \
    and a hash of 16 to 64, both in base64";
const PBKDF2_FORM: &str = "PBKDF2 is $7$ITERATIONS$SALT$HASH with up to 10000000 iterations, a salt of \
    up to 256 bytes and a hash of 64, both in base64";
const SHA512_FORM: &str = "SHA-512 is $6$SALT$HASH with a salt of up to 256 bytes and a hash of 64, \
    both in base64";
const SCRAM_FORM: &str = "SCRAM is $scram-sha-256$i=ITERATIONS,SALT$STORED_KEY$SERVER_KEY with 4096 to \
    10000000 iterations, a salt of up to 64 bytes and keys of 32, all in base64";
const NO_FORM: &str = "the hash has to begin with $argon2id$, $7$, $6$ or $scram-sha-256$; \
    `ringmq passwd` makes one";

/// What a check costs; the order serves to choose among equally frequent ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Cost {
    Sha512,
    Scram {
        iterations: NonZeroU32,
    },
    Pbkdf2 {
        iterations: NonZeroU32,
    },
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
    },
}

/// What `hash_argon2id` takes: OWASP's choice.
const ARGON2_COST: Cost = Cost::Argon2id {
    memory_kib: 19_456,
    passes: 2,
    lanes: 1,
};

/// The machine has not the memory that a hash takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

/// What a password must hash to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hash {
    pub(crate) cost: Cost,
    pub(crate) salt: Box<[u8]>,
    pub(crate) hash: Box<[u8]>,
}

impl Hash {
    /// Whether `password` hashes to this.
    pub(crate) fn verify(&self, password: &[u8]) -> Result<bool, OutOfMemory> {
        let hash = derive(self.cost, &self.salt, password, self.hash.len())?;
        Ok(constant_time::verify_slices_are_equal(&hash, &self.hash).is_ok())
    }

    /// As costly as this one, but of no password.
    pub(crate) fn blank(&self) -> Self {
        Hash {
            hash: vec![0; self.hash.len()].into(),
            ..self.clone()
        }
    }

    /// What a file without lines is checked against.
    pub(crate) fn blank_default() -> Self {
        Hash {
            cost: ARGON2_COST,
            salt: [0; SALT_BYTES].into(),
            hash: [0; ARGON2_HASH_BYTES].into(),
        }
    }
}

/// What the server keeps for SCRAM-SHA-256 (RFC 5802, section 3).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ScramKeys {
    pub(crate) iterations: NonZeroU32,
    /// The StoredKey with its salt; also serves to check a plain password.
    pub(crate) stored: Hash,
    pub(crate) server_key: Box<[u8]>,
}

/// A hash as its line has it.
pub(crate) enum Parsed {
    Password(Hash),
    Scram(ScramKeys),
}

/// Reads the hash of a line; an error says what would be right and nothing of what is there.
pub(crate) fn parse(text: &str) -> Result<Parsed, &'static str> {
    let parts: Vec<&str> = text.splitn(7, '$').collect();
    let password = |hash: Option<Hash>, form| hash.map(Parsed::Password).ok_or(form);
    match parts.as_slice() {
        ["", "argon2id", rest @ ..] => password(parse_argon2id(rest), ARGON2_FORM),
        ["", "7", rest @ ..] => password(parse_pbkdf2(rest), PBKDF2_FORM),
        ["", "6", rest @ ..] => password(parse_sha512(rest), SHA512_FORM),
        ["", "scram-sha-256", rest @ ..] => parse_scram(rest).map(Parsed::Scram).ok_or(SCRAM_FORM),
        _ => Err(NO_FORM),
    }
}

fn parse_argon2id(parts: &[&str]) -> Option<Hash> {
    let ["v=19", params, salt, hash] = parts else {
        return None;
    };
    let mut params = params.splitn(4, ',');
    let mut next = |prefix, allowed| number(params.next()?.strip_prefix(prefix)?, &allowed);
    let memory_kib = next("m=", ARGON2_MEMORY_KIB)?;
    let passes = next("t=", ARGON2_PASSES)?;
    let lanes = next("p=", ARGON2_LANES)?;
    if params.next().is_some() || memory_kib < lanes * 8 {
        return None;
    }
    Some(Hash {
        cost: Cost::Argon2id {
            memory_kib,
            passes,
            lanes,
        },
        salt: bytes(salt, 8..=256)?,
        hash: bytes(hash, 16..=64)?,
    })
}

fn parse_pbkdf2(parts: &[&str]) -> Option<Hash> {
    let [iterations, salt, hash] = parts else {
        return None;
    };
    let iterations = NonZeroU32::new(number(iterations, &PBKDF2_ITERATIONS)?)?;
    Some(Hash {
        cost: Cost::Pbkdf2 { iterations },
        salt: bytes(salt, 1..=256)?,
        hash: bytes(hash, 64..=64)?,
    })
}

fn parse_sha512(parts: &[&str]) -> Option<Hash> {
    let [salt, hash] = parts else { return None };
    Some(Hash {
        cost: Cost::Sha512,
        salt: bytes(salt, 1..=256)?,
        hash: bytes(hash, 64..=64)?,
    })
}

fn parse_scram(parts: &[&str]) -> Option<ScramKeys> {
    let [shape, stored_key, server_key] = parts else {
        return None;
    };
    let (iterations, salt) = shape.strip_prefix("i=")?.split_once(',')?;
    let iterations = NonZeroU32::new(number(iterations, &SCRAM_ITERATIONS_ALLOWED)?)?;
    Some(ScramKeys {
        iterations,
        stored: Hash {
            cost: Cost::Scram { iterations },
            salt: bytes(salt, 1..=64)?,
            hash: bytes(stored_key, 32..=32)?,
        },
        server_key: bytes(server_key, 32..=32)?,
    })
}

fn number(text: &str, allowed: &RangeInclusive<u32>) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.filter(|_| is_plain)
}

fn bytes(text: &str, allowed: RangeInclusive<usize>) -> Option<Box<[u8]>> {
    let bytes = STANDARD_PAD_INDIFFERENT.decode(text).ok()?;
    allowed.contains(&bytes.len()).then(|| bytes.into())
}

fn derive(
    cost: Cost,
    salt: &[u8],
    password: &[u8],
    length: usize,
) -> Result<Box<[u8]>, OutOfMemory> {
    match cost {
        Cost::Sha512 => {
            let mut context = digest::Context::new(&digest::SHA512);
            context.update(password);
            context.update(salt);
            Ok(context.finish().as_ref().into())
        }
        Cost::Scram { iterations } => {
            let salted = salted_password(iterations, salt, password);
            Ok(sha256(hmac_sha256(&salted, b"Client Key").as_ref()))
        }
        Cost::Pbkdf2 { iterations } => {
            let mut out = vec![0; length];
            pbkdf2::derive(
                pbkdf2::PBKDF2_HMAC_SHA512,
                iterations,
                salt,
                password,
                &mut out,
            );
            Ok(out.into())
        }
        Cost::Argon2id {
            memory_kib,
            passes,
            lanes,
        } => {
            // The bounds were checked at parse; memory is all that can still be missing.
            let params =
                Params::new(memory_kib, passes, lanes, Some(length)).map_err(|_| OutOfMemory)?;
            let mut out = vec![0; length];
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(password, salt, &mut out)
                .map_err(|_| OutOfMemory)?;
            Ok(out.into())
        }
    }
}

fn salted_password(iterations: NonZeroU32, salt: &[u8], password: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        salt,
        password,
        &mut out,
    );
    out
}

pub(crate) fn hmac_sha256(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

pub(crate) fn sha256(text: &[u8]) -> Box<[u8]> {
    digest::digest(&digest::SHA256, text).as_ref().into()
}

/// Random bytes for salts, nonces and keys.
///
/// # Panics
/// If the system has no randomness: nothing that follows could be safe.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system's random source works");
    bytes
}

/// Hashes `password` for its line in a password file: argon2id with 19 MiB, two passes, one lane and a
/// random salt.
///
/// # Panics
/// If the system has no randomness, or not those 19 MiB.
#[must_use]
pub fn hash_argon2id(password: &[u8]) -> String {
    let salt: [u8; SALT_BYTES] = random();
    argon2id_line(ARGON2_COST, &salt, password).expect("19 MiB of memory for a hash")
}

fn argon2id_line(cost: Cost, salt: &[u8], password: &[u8]) -> Result<String, OutOfMemory> {
    let Cost::Argon2id {
        memory_kib,
        passes,
        lanes,
    } = cost
    else {
        return Err(OutOfMemory);
    };
    let hash = derive(cost, salt, password, ARGON2_HASH_BYTES)?;
    Ok(format!(
        "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}",
        STANDARD_NO_PAD.encode(salt),
        STANDARD_NO_PAD.encode(hash)
    ))
}

/// Hashes `password` for its SCRAM-SHA-256 line in a password file: 4,096 iterations, a random salt.
///
/// # Panics
/// If the system has no randomness.
#[must_use]
pub fn hash_scram(password: &[u8]) -> String {
    let salt: [u8; SALT_BYTES] = random();
    scram_line(&salt, password)
}

fn scram_line(salt: &[u8], password: &[u8]) -> String {
    let iterations = NonZeroU32::new(SCRAM_ITERATIONS).unwrap_or(NonZeroU32::MIN);
    let salted = salted_password(iterations, salt, password);
    format!(
        "{SCRAM_PREFIX}i={iterations},{}${}${}",
        STANDARD.encode(salt),
        STANDARD.encode(sha256(hmac_sha256(&salted, b"Client Key").as_ref())),
        STANDARD.encode(hmac_sha256(&salted, b"Server Key"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By mosquitto_passwd 2.0, of `correct horse`.
    const SHA512: &str = "$6$mEGc4xB286QiQ8to$XG2cimgB+39pobzq1cMWrUeUrSVSCKjVd5EWLuFpXwEND0LfwVxxiMCVbXOxF\
                          /w1jIFcXyEtsLT0+MRJon0L2w==";
    const PBKDF2: &str = "$7$101$j+onTPQ+EobmetSp$EpvmbeIK/cru+N2qWf7udYRHlLFwrBwIFOCnz55fpCqF29UwIGPBTYQwt\
                          8qQUzytTqYEG3lE7gecmRNqkMJrZg==";
    /// By the reference implementation, of `password`.
    const ARGON2: &str =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    /// Of RFC 7677, with keys by Python's hashlib, of `pencil`.
    const SCRAM: &str = "$scram-sha-256$i=4096,W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuL\
                         mtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn verify(line: &str, password: &[u8]) -> bool {
        match parse(line) {
            Ok(Parsed::Password(hash)) => hash.verify(password).unwrap(),
            Ok(Parsed::Scram(keys)) => keys.stored.verify(password).unwrap(),
            Err(error) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn hashes_by_other_programs_are_understood() {
        for (line, password) in [
            (SHA512, "correct horse"),
            (PBKDF2, "correct horse"),
            (ARGON2, "password"),
            (SCRAM, "pencil"),
        ] {
            assert!(verify(line, password.as_bytes()), "{line}");
            for wrong in ["", "Pencil", "correct horse ", "passwor"] {
                assert!(!verify(line, wrong.as_bytes()), "{line} {wrong}");
            }
        }
    }

    #[test]
    fn a_hash_made_here_is_of_its_password_only_and_never_the_same() {
        assert!(verify(&hash_scram(b"p\xFF\0q"), b"p\xFF\0q"));
        assert!(!verify(&hash_scram(b"p\xFF\0q"), b"p\xFF"));
        assert_ne!(hash_scram(b"p"), hash_scram(b"p"));
        let cost = Cost::Argon2id {
            memory_kib: 64,
            passes: 1,
            lanes: 2,
        };
        let line = argon2id_line(cost, b"eightbyt", b"p").unwrap();
        assert!(line.starts_with("$argon2id$v=19$m=64,t=1,p=2$"));
        assert!(verify(&line, b"p"));
        assert!(!verify(&line, b"q"));
    }

    #[test]
    fn the_hash_for_new_users_has_owasps_parameters_and_a_random_salt() {
        let line = hash_argon2id(b"p");
        assert!(
            line.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{line}"
        );
        assert_ne!(line, hash_argon2id(b"p"));
        assert!(parse(&line).is_ok());
    }

    #[test]
    fn a_scram_line_has_both_keys() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(scram_line(&salt, b"pencil"), SCRAM);
    }

    #[test]
    fn parameters_that_would_exhaust_the_broker_are_refused() {
        let argon2 = |params: &str| ARGON2.replace("m=256,t=2,p=1", params);
        for params in ["m=1048576,t=64,p=16", "m=8,t=1,p=1"] {
            assert!(parse(&argon2(params)).is_ok(), "{params}");
        }
        for params in [
            "m=1048577,t=2,p=1",
            "m=256,t=65,p=1",
            "m=256,t=2,p=17",
            "m=127,t=2,p=16",
            "m=7,t=2,p=1",
            "m=256,t=0,p=1",
            "m=256,t=2,p=0",
            "m=+256,t=2,p=1",
            "m=256,t=2",
            "m=256,t=2,p=1,keyid=AA",
            "t=2,m=256,p=1",
        ] {
            assert_eq!(parse(&argon2(params)).err(), Some(ARGON2_FORM), "{params}");
        }
        for iterations in ["0", "10000001", "", "-1", "4294967297"] {
            let line = PBKDF2.replace("101", iterations);
            assert_eq!(parse(&line).err(), Some(PBKDF2_FORM), "{iterations}");
        }
        for iterations in ["4095", "10000001"] {
            let line = SCRAM.replace("4096", iterations);
            assert_eq!(parse(&line).err(), Some(SCRAM_FORM), "{iterations}");
        }
    }

    #[test]
    fn wrong_lengths_versions_and_letters_are_refused() {
        for (line, from, to, form) in [
            (ARGON2, "v=19", "v=16", ARGON2_FORM),
            (ARGON2, "c29tZXNhbHQ", "c29tZXNh", ARGON2_FORM),
            (ARGON2, "nf65EOgLrQMR/uIPnA4rEs", "", ARGON2_FORM),
            (ARGON2, "nf65", "nf6*", ARGON2_FORM),
            (ARGON2, "i/4", "i/4$", ARGON2_FORM),
            (PBKDF2, "Epvm", "", PBKDF2_FORM),
            (PBKDF2, "j+onTPQ+EobmetSp", "", PBKDF2_FORM),
            (SHA512, "XG2c", "", SHA512_FORM),
            (SHA512, "$6$", "$6$x$", SHA512_FORM),
            (SCRAM, "WG5d", "", SCRAM_FORM),
            (SCRAM, "wfPL", "", SCRAM_FORM),
            (SCRAM, "i=", "", SCRAM_FORM),
            (ARGON2, "argon2id", "argon2i", NO_FORM),
            (ARGON2, "$argon2id", "argon2id", NO_FORM),
        ] {
            assert_eq!(
                parse(&line.replacen(from, to, 1)).err(),
                Some(form),
                "{from}"
            );
        }
    }

    #[test]
    fn a_blank_hash_costs_the_same_and_lets_nobody_in() {
        for (line, password) in [(PBKDF2, "correct horse"), (SHA512, "correct horse")] {
            let Ok(Parsed::Password(hash)) = parse(line) else {
                panic!("{line}")
            };
            assert_eq!(hash.blank().cost, hash.cost);
            assert_eq!(hash.blank().verify(password.as_bytes()), Ok(false));
        }
    }
}
