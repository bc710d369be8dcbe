//! Password files and SCRAM messages: any text is read or refused, and nobody comes in but the user of
//! the file.
//!
//! Input: a byte 0 and the text of a password file, or another byte, the client's first message, a byte
//! 0xFF and its last one.

use ringmq::control::authn::password::PasswordFile;
use ringmq::control::authn::scram;
use std::sync::LazyLock;

/// Of RFC 7677, so that a kept input can hold a proof that is right.
static FILE: LazyLock<PasswordFile> = LazyLock::new(|| {
    let line = "user:$scram-sha-256$i=4096,W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmt\
                bsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    PasswordFile::parse(line).expect("a correct file")
});
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

/// One password file, or one exchange.
pub fn passwords(input: &[u8]) {
    match input {
        [0, text @ ..] => file(&String::from_utf8_lossy(text)),
        [_, messages @ ..] => exchange(messages),
        [] => {}
    }
}

fn file(text: &str) {
    let parsed = PasswordFile::parse(text);
    if let Err(error) = &parsed {
        assert!(
            error.line >= 1 && error.line <= text.lines().count(),
            "{error}"
        );
    }
    // A mark stands at the beginning only.
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let again = PasswordFile::parse(&format!("# remark\n{text}"));
    assert_eq!(again.is_ok(), parsed.is_ok());
}

fn exchange(messages: &[u8]) {
    let mut messages = messages.splitn(2, |byte| *byte == 0xFF);
    let first = messages.next().unwrap_or_default();
    let last = messages.next().unwrap_or_default();
    let Ok((server_first, exchange)) = scram::begin(&FILE, first, SERVER_NONCE) else {
        return;
    };
    let server_first = String::from_utf8(server_first).expect("text");
    assert!(server_first.contains(SERVER_NONCE) && server_first.ends_with(",i=4096"));
    if let Ok((server_final, user)) = scram::finish(exchange, last, &FILE) {
        assert_eq!(&*user, "user");
        assert!(server_final.starts_with(b"v="));
    }
}
