//! SCRAM-SHA-256 on the server's side (RFC 5802, RFC 7677), without channel binding.
//!
//! Pure: messages go in, messages come out. [`begin`] takes the client's first message, [`finish`] its
//! last; the [`Exchange`] between them holds copies of the keys, which have to be those of the file at its
//! end.
//!
//! Invariants: an unknown user is answered like a known one, with a salt that comes from the password file,
//! and fails at the end only; an [`Exchange`] shows no keys in `Debug`.
//!
//! Not here: SASLprep (names and passwords are compared as their bytes), channel binding (`p=` is
//! refused), packets that carry the messages.

use super::password::{PasswordFile, ScramKeys, hmac_sha256, random, sha256};
use crate::engine::access::Refusal;
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use std::fmt;

/// The method's name in configuration and audit log.
pub const METHOD: &str = "scram";

/// Longest message of a client.
const MESSAGE_BYTES_MAX: usize = 4096;

/// A login between the client's two messages.
pub struct Exchange {
    user_name: Box<str>,
    /// `None` for a user without SCRAM line.
    keys: Option<ScramKeys>,
    /// GS2 header as it must come again, in base64.
    channel_binding: String,
    /// Both sides' nonce.
    nonce: String,
    /// Beginning of the AuthMessage: client-first-message-bare and server-first-message.
    signed: String,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

/// A nonce of the server: 24 characters that nobody can guess.
///
/// # Panics
/// If the system has no randomness.
#[must_use]
pub fn nonce() -> String {
    STANDARD_NO_PAD.encode(random::<18>())
}

/// Answers the client's first message. `server_nonce` comes from [`nonce`].
///
/// # Errors
/// `BadCredentials` if the message is malformed, or asks for channel binding, another identity than the
/// user's, or an extension that must be understood.
pub fn begin(
    file: &PasswordFile,
    client_first: &[u8],
    server_nonce: &str,
) -> Result<(Vec<u8>, Exchange), Refusal> {
    let first = ClientFirst::parse(client_first).ok_or(Refusal::BadCredentials)?;
    file.prepare_scram();
    let keys = file.scram(&first.user_name).cloned();
    let (iterations, salt) = match &keys {
        Some(keys) => (keys.iterations, STANDARD.encode(&keys.stored.salt)),
        None => {
            let (iterations, salt) = file.scram_shape(&first.user_name);
            (iterations, STANDARD.encode(salt))
        }
    };
    let nonce = format!("{}{server_nonce}", first.nonce);
    let server_first = format!("r={nonce},s={salt},i={iterations}");
    let exchange = Exchange {
        user_name: first.user_name,
        keys,
        channel_binding: STANDARD.encode(first.gs2_header),
        nonce,
        signed: format!("{},{server_first}", first.bare),
    };
    Ok((server_first.into_bytes(), exchange))
}

/// Judges the client's last message, by `file` as it is now: the answer that proves the server to the client,
/// and the user.
///
/// # Errors
/// `BadCredentials` if the message is malformed, belongs to another exchange, its proof is wrong, or the user
/// has been removed or given another password since it began.
pub fn finish(
    exchange: Exchange,
    client_final: &[u8],
    file: &PasswordFile,
) -> Result<(Vec<u8>, Box<str>), Refusal> {
    let signature = exchange.server_signature(client_final);
    let signature = signature.filter(|_| file.scram(&exchange.user_name) == exchange.keys.as_ref());
    let signature = signature.ok_or(Refusal::BadCredentials)?;
    let server_final = format!("v={}", STANDARD.encode(signature));
    Ok((server_final.into_bytes(), exchange.user_name))
}

impl Exchange {
    /// The user that the client says to be.
    #[must_use]
    pub fn user_name(&self) -> &str {
        &self.user_name
    }

    /// Our signature, if the client's message and proof are right.
    fn server_signature(&self, client_final: &[u8]) -> Option<hmac::Tag> {
        let text = message(client_final)?;
        let (unproved, proof) = text.rsplit_once(",p=")?;
        let proof = STANDARD
            .decode(proof)
            .ok()
            .filter(|proof| proof.len() == 32)?;
        let mut parts = unproved.split(',');
        let channel_binding = parts.next()?.strip_prefix("c=")?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        let is_ours = channel_binding == self.channel_binding && nonce == self.nonce;
        if !is_ours || !parts.all(is_optional_extension) {
            return None;
        }
        let signed = format!("{},{unproved}", self.signed);
        // An unknown user takes the same way, with keys that no password has.
        let nobody = [0; 32];
        let (stored_key, server_key): (&[u8], &[u8]) = match &self.keys {
            Some(keys) => (&keys.stored.hash, &keys.server_key),
            None => (&nobody, &nobody),
        };
        let client_signature = hmac_sha256(stored_key, signed.as_bytes());
        let pairs = proof.iter().zip(client_signature.as_ref());
        let client_key: Vec<u8> = pairs.map(|(proof, signature)| proof ^ signature).collect();
        let fits = constant_time::verify_slices_are_equal(&sha256(&client_key), stored_key);
        let server_signature = hmac_sha256(server_key, signed.as_bytes());
        (fits.is_ok() && self.keys.is_some()).then_some(server_signature)
    }
}

/// The client's first message, taken apart.
struct ClientFirst<'a> {
    /// `n,,` or the like.
    gs2_header: &'a str,
    /// What follows.
    bare: &'a str,
    user_name: Box<str>,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = message(bytes)?;
        let (flag, rest) = text.split_once(',')?;
        let (authorization, bare) = rest.split_once(',')?;
        if !matches!(flag, "n" | "y") {
            return None;
        }
        let mut parts = bare.split(',');
        let user_name = unescape(parts.next()?.strip_prefix("n=")?)?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        let is_self = match authorization.strip_prefix("a=") {
            Some("") => true,
            Some(identity) => unescape(identity)? == user_name,
            None => authorization.is_empty(),
        };
        let is_printable = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_self || !is_printable || !parts.all(is_optional_extension) {
            return None;
        }
        Some(ClientFirst {
            gs2_header: text.strip_suffix(bare)?,
            bare,
            user_name,
            nonce,
        })
    }
}

fn message(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

/// Whether `part` is an extension that may be passed over; `m=` is one that must be understood.
fn is_optional_extension(part: &str) -> bool {
    match part.as_bytes() {
        [b'm', ..] => false,
        [letter, b'=', _, ..] => letter.is_ascii_alphabetic(),
        _ => false,
    }
}

/// A name without its escapes, `=2C` for a comma and `=3D` for an equals sign.
fn unescape(text: &str) -> Option<Box<str>> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        name.push(sign);
        name.push_str(rest);
    }
    (!name.is_empty()).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::authn::password::hash_scram;

    /// RFC 7677, section 3.
    const FILE: &str = "user:$scram-sha-256$i=4096,W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBF\
                        zpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn file() -> PasswordFile {
        PasswordFile::parse(FILE).unwrap()
    }

    fn started(client_first: &str) -> (String, Exchange) {
        let (server_first, exchange) =
            begin(&file(), client_first.as_bytes(), SERVER_NONCE).unwrap();
        (String::from_utf8(server_first).unwrap(), exchange)
    }

    fn is_refused(client_first: &[u8]) -> bool {
        begin(&file(), client_first, SERVER_NONCE).err() == Some(Refusal::BadCredentials)
    }

    /// A client that knows the password, apart from the code under test but for HMAC and SHA-256.
    fn client_final(
        password: &[u8],
        first_bare: &str,
        server_first: &str,
        unproved: &str,
    ) -> String {
        let field = |prefix| {
            server_first
                .split(',')
                .find_map(|part| part.strip_prefix(prefix))
                .unwrap()
        };
        let salt = STANDARD.decode(field("s=")).unwrap();
        let iterations = field("i=").parse().unwrap();
        let mut salted = [0; 32];
        let algorithm = aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256;
        aws_lc_rs::pbkdf2::derive(algorithm, iterations, &salt, password, &mut salted);
        let client_key = hmac_sha256(&salted, b"Client Key");
        let signed = format!("{first_bare},{server_first},{unproved}");
        let signature = hmac_sha256(&sha256(client_key.as_ref()), signed.as_bytes());
        let pairs = client_key.as_ref().iter().zip(signature.as_ref());
        let proof: Vec<u8> = pairs.map(|(key, signature)| key ^ signature).collect();
        format!("{unproved},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn a_user_who_is_removed_or_changed_meanwhile_is_refused() {
        let other = hash_scram(b"pencil");
        for text in ["", &format!("user:{other}"), &FILE.replace("user:", "eve:")] {
            let (_, exchange) = started(CLIENT_FIRST);
            let file = PasswordFile::parse(text).unwrap();
            let outcome = finish(exchange, CLIENT_FINAL.as_bytes(), &file);
            assert_eq!(outcome.err(), Some(Refusal::BadCredentials), "{text}");
        }
    }

    #[test]
    fn the_exchange_of_rfc_7677_succeeds() {
        let (server_first, exchange) = started(CLIENT_FIRST);
        assert_eq!(server_first, SERVER_FIRST);
        let (server_final, user) = finish(exchange, CLIENT_FINAL.as_bytes(), &file()).unwrap();
        assert_eq!(String::from_utf8(server_final).unwrap(), SERVER_FINAL);
        assert_eq!(&*user, "user");
    }

    #[test]
    fn a_wrong_proof_is_refused() {
        for last in [
            CLIENT_FINAL.replace("dHzb", "eHzb"),
            CLIENT_FINAL.replace(",p=dHzb", ",p="),
            CLIENT_FINAL.replace("p=", "q="),
            CLIENT_FINAL.replace("c=biws", "c=eSws"),
            CLIENT_FINAL.replace("biws", "biw"),
            CLIENT_FINAL.replace("k0,", "k1,"),
            CLIENT_FINAL.replace("r=rOpr", "r="),
            CLIENT_FINAL.replace("k0,", "k0,m=x,"),
            CLIENT_FINAL.replace("k0,", "k0,x,"),
            CLIENT_FINAL.replace("c=biws,", ""),
            String::new(),
        ] {
            let (_, exchange) = started(CLIENT_FIRST);
            let outcome = finish(exchange, last.as_bytes(), &file());
            assert_eq!(outcome.err(), Some(Refusal::BadCredentials), "{last}");
        }
    }

    #[test]
    fn a_wrong_password_is_refused() {
        let (server_first, exchange) = started("n,,n=user,r=abc");
        let unproved = format!("c=biws,r=abc{SERVER_NONCE}");
        let last = client_final(b"Pencil", "n=user,r=abc", &server_first, &unproved);
        assert_eq!(
            finish(exchange, last.as_bytes(), &file()).err(),
            Some(Refusal::BadCredentials)
        );
    }

    #[test]
    fn headers_and_optional_extensions_are_part_of_what_is_signed() {
        for header in ["n,,", "y,,", "n,a=user,", "n,a=,"] {
            let bare = "n=user,r=abc,x=1";
            let (server_first, exchange) = started(&format!("{header}{bare}"));
            let unproved = format!("c={},r=abc{SERVER_NONCE},y=2", STANDARD.encode(header));
            let last = client_final(b"pencil", bare, &server_first, &unproved);
            assert!(
                finish(exchange, last.as_bytes(), &file()).is_ok(),
                "{header}"
            );
        }
    }

    #[test]
    fn a_first_message_that_asks_for_more_or_is_malformed_is_refused() {
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "p=tls-unique,,n=user,r=abc",
            "x,,n=user,r=abc",
            "n,a=other,n=user,r=abc",
            "n,b=user,n=user,r=abc",
            "n,a=us=er,n=user,r=abc",
            "n,,m=ext,n=user,r=abc",
            "n,,n=user,r=abc,m=ext",
            "n,,n=user,r=abc,",
            "n,,n=user,r=abc,1=x",
            "n,,n=,r=abc",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=user,r=a b",
            "n,,n=user,r=\u{e9}",
            "n,,r=abc,n=user",
            "n,,n=us=er,r=abc",
            "n,,n=us=2cer,r=abc",
            "n,,n=us\0er,r=abc",
        ] {
            assert!(is_refused(first.as_bytes()), "{first:?}");
        }
        assert!(is_refused(b"n,,n=us\xFFer,r=abc"));
    }

    #[test]
    fn messages_above_4096_bytes_are_refused() {
        let first = |bytes: usize| format!("n,,n=user,r={}", "a".repeat(bytes - 12));
        assert!(!is_refused(first(4096).as_bytes()));
        assert!(is_refused(first(4097).as_bytes()));
        let (server_first, exchange) = started("n,,n=user,r=abc");
        let unproved = format!("c=biws,r=abc{SERVER_NONCE},x={}", "a".repeat(4096));
        let last = client_final(b"pencil", "n=user,r=abc", &server_first, &unproved);
        assert!(finish(exchange, last.as_bytes(), &file()).is_err());
    }

    #[test]
    fn escaped_names_are_understood() {
        assert_eq!(unescape("a=2Cb=3D=3D2C").as_deref(), Some("a,b==2C"));
        let file = PasswordFile::parse(&format!("a,b=c:{}", hash_scram(b"pw"))).unwrap();
        let bare = "n=a=2Cb=3Dc,r=abc";
        let (server_first, exchange) =
            begin(&file, format!("n,,{bare}").as_bytes(), "def").unwrap();
        let server_first = String::from_utf8(server_first).unwrap();
        let last = client_final(b"pw", bare, &server_first, "c=biws,r=abcdef");
        let (_, user) = finish(exchange, last.as_bytes(), &file).unwrap();
        assert_eq!(&*user, "a,b=c");
    }

    #[test]
    fn an_unknown_user_looks_like_a_known_one_until_the_end() {
        let salt = |user: &str| started(&format!("n,,n={user},r=abc")).0;
        assert_eq!(salt("nobody"), salt("nobody"));
        assert_ne!(salt("nobody"), salt("somebody"));
        assert_eq!(salt("nobody").len(), salt("user").len());
        assert!(salt("nobody").ends_with("==,i=4096"));
        let (server_first, exchange) = started("n,,n=nobody,r=abc");
        let unproved = format!("c=biws,r=abc{SERVER_NONCE}");
        let last = client_final(b"pencil", "n=nobody,r=abc", &server_first, &unproved);
        assert_eq!(
            finish(exchange, last.as_bytes(), &file()).err(),
            Some(Refusal::BadCredentials)
        );
    }

    #[test]
    fn a_user_without_scram_line_is_as_unknown() {
        let text = "user:$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let file = PasswordFile::parse(text).unwrap();
        let (_, exchange) = begin(&file, CLIENT_FIRST.as_bytes(), SERVER_NONCE).unwrap();
        assert!(finish(exchange, CLIENT_FINAL.as_bytes(), &file).is_err());
    }

    #[test]
    fn nonces_differ_and_need_no_escapes() {
        assert_ne!(nonce(), nonce());
        assert!(
            nonce().len() == 24
                && nonce()
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b',')
        );
    }

    #[test]
    fn an_exchange_can_move_to_another_thread_and_shows_no_keys() {
        fn is_send(_: &impl Send) {}
        let (_, exchange) = started(CLIENT_FIRST);
        is_send(&exchange);
        assert_eq!(
            format!("{exchange:?}"),
            "Exchange { user_name: \"user\", .. }"
        );
    }
}
