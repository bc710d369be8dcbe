//! Text files as editors leave them: a byte order mark is skipped, bytes that are not UTF-8 are named by
//! their line, and are no matter in a remark. In lists of names nor is a mark or a NUL further on: it would
//! become part of a name, which nobody sees.

use std::fmt;

/// What UTF-8 files of some editors begin with.
pub const MARK: &str = "\u{feff}";

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// Its number, from 1.
    pub line: usize,
    text: &'static str,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for TextError {}

/// Where remarks stand in a kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remarks {
    /// On lines of their own that begin with `#`.
    OwnLines,
    /// Also behind a value, as in TOML.
    BehindValues,
}

/// The text of a list, a name or rule a line, as [`decode`] gives it.
///
/// # Errors
/// The same, and the first line outside of remarks with a byte order mark or a NUL.
pub fn decode_list(bytes: &[u8]) -> Result<String, TextError> {
    let text = decode(bytes, Remarks::OwnLines)?;
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = if line.trim_start().starts_with('#') {
            continue;
        } else if line.contains(MARK) {
            "it has a byte order mark, as files have that were joined; take it out"
        } else if line.contains('\0') {
            "it has a NUL; take it out"
        } else {
            continue;
        };
        return Err(TextError {
            line: number,
            text: wrong,
        });
    }
    Ok(text)
}

/// The text of a file, without its byte order mark. In remarks, bytes that are not UTF-8 are replaced.
///
/// # Errors
/// The first line with a byte that is not UTF-8 outside of remarks.
pub fn decode(bytes: &[u8], remarks: Remarks) -> Result<String, TextError> {
    let bytes = without_mark(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(text.to_owned());
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        let text = "the file is UTF-16; save it as UTF-8";
        return Err(TextError { line: 1, text });
    }
    // A string that goes over lines could look like a remark.
    let has_long_strings = ["\"\"\"", "'''"]
        .iter()
        .any(|quotes| bytes.windows(3).any(|three| three == quotes.as_bytes()));
    let mut text = String::with_capacity(bytes.len());
    for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let (said, remark) = line.split_at(remark_at(line, remarks, has_long_strings));
        let said = std::str::from_utf8(said).map_err(|_| TextError {
            line: number,
            text: "it has a byte that is not UTF-8; save the file as UTF-8",
        })?;
        text.push_str(said);
        text.push_str(&String::from_utf8_lossy(remark));
    }
    Ok(text)
}

/// Bytes of a file without their byte order mark.
#[must_use]
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK.as_bytes()).unwrap_or(bytes)
}

/// Where the remark of a line begins.
fn remark_at(line: &[u8], remarks: Remarks, has_long_strings: bool) -> usize {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, byte) in line.iter().copied().enumerate() {
        match (byte, quote) {
            (b'#', None) => return at,
            (b' ' | b'\t', None) => {}
            _ if remarks == Remarks::OwnLines || has_long_strings => break,
            (b'"' | b'\'', None) => quote = Some(byte),
            (b'\\', Some(b'"')) if !is_escaped => {
                is_escaped = true;
                continue;
            }
            (byte, Some(open)) if byte == open && !is_escaped => quote = None,
            _ => {}
        }
        is_escaped = false;
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8], remarks: Remarks) -> String {
        decode(bytes, remarks).unwrap_err().to_string()
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let text = decode("\u{feff}a\u{feff}\n".as_bytes(), Remarks::OwnLines);
        assert_eq!(text.unwrap(), "a\u{feff}\n");
        let wide = [0xFF, 0xFE, b'a', 0, 0xE4, 0];
        assert!(error(&wide, Remarks::OwnLines).starts_with("line 1: the file is UTF-16"));
    }

    #[test]
    fn a_list_has_no_mark_and_no_nul_beyond_its_begin_and_its_remarks() {
        let error = |text: &str| decode_list(text.as_bytes()).unwrap_err().to_string();
        assert!(error("\u{feff}a\n\u{feff}b\n").starts_with("line 2: it has a byte order mark"));
        assert!(error("a\n\n user b\0c\n").starts_with("line 3: it has a NUL"));
        let good = "\u{feff}a\n # \u{feff} \0\nb\n";
        assert_eq!(decode_list(good.as_bytes()).as_deref(), Ok(&good[3..]));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named_by_line_but_not_in_remarks() {
        let remark = b"# f\xfcr\n  # K\xfcche\na:b\n";
        let text = decode(remark, Remarks::OwnLines).unwrap();
        assert!(text.ends_with("\na:b\n") && text.lines().count() == 3);
        assert!(error(b"# \xfc\na:b\nf\xfc:c", Remarks::OwnLines).starts_with("line 3: "));
        // Behind something it is no remark there, but in TOML it is, outside of strings.
        let tail = b"a = \"x#\\\"\" # \xfc\n";
        assert!(error(tail, Remarks::OwnLines).starts_with("line 1: "));
        assert!(decode(tail, Remarks::BehindValues).is_ok());
        for string in [
            &b"a = \"# \xfc\"\n"[..],
            b"a = '# \xfc'",
            b"a = '\\' + '# \xfc'",
        ] {
            assert!(error(string, Remarks::BehindValues).starts_with("line 1: "));
        }
        let long = b"a = \"\"\"\nx # \xfc\n\"\"\"\n";
        assert!(error(long, Remarks::BehindValues).starts_with("line 2: "));
    }
}
