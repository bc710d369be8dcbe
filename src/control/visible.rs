//! Letters that nobody sees, or that change how others are seen, spelled out in what is written for people
//! and their tools: clients choose identifiers, user names and topics, and could hide in a terminal what they
//! are.
//!
//! Both logs pass through here last, whoever wrote the line. Controls below U+0020 are not looked at: JSON
//! escapes them, and what clients choose is quoted in text.

use std::borrow::Cow;
use std::fmt::Write;

/// Such letters, from the first to the last of each range.
const HIDDEN: [(char, char); 24] = [
    ('\u{7f}', '\u{a0}'),        // DEL, C1 controls, a blank that does not break
    ('\u{ad}', '\u{ad}'),        // soft hyphen
    ('\u{34f}', '\u{34f}'),      // combining grapheme joiner
    ('\u{61c}', '\u{61c}'),      // Arabic letter mark
    ('\u{115f}', '\u{1160}'),    // Hangul fillers
    ('\u{1680}', '\u{1680}'),    // Ogham blank
    ('\u{17b4}', '\u{17b5}'),    // Khmer vowels that are not written
    ('\u{180b}', '\u{180f}'),    // Mongolian selectors and separator
    ('\u{2000}', '\u{200f}'),    // blanks of many widths and of none, joiners, directions
    ('\u{2028}', '\u{202f}'),    // ends of lines and paragraphs, directions, a narrow blank
    ('\u{205f}', '\u{206f}'),    // a blank, joiners, operators, isolated directions
    ('\u{2800}', '\u{2800}'),    // Braille without dots
    ('\u{3000}', '\u{3000}'),    // wide blank
    ('\u{3164}', '\u{3164}'),    // Hangul filler
    ('\u{e000}', '\u{f8ff}'),    // private use
    ('\u{fdd0}', '\u{fdef}'),    // no letters
    ('\u{fe00}', '\u{fe0f}'),    // selectors of variants
    ('\u{feff}', '\u{feff}'),    // byte order mark
    ('\u{ffa0}', '\u{ffa0}'),    // Hangul filler
    ('\u{fff0}', '\u{fffb}'),    // marks of annotations
    ('\u{1bca0}', '\u{1bca3}'),  // controls of shorthand
    ('\u{1d173}', '\u{1d17a}'),  // controls of music
    ('\u{e0000}', '\u{e0fff}'),  // tags and selectors
    ('\u{f0000}', '\u{10ffff}'), // private use
];

fn is_hidden(letter: char) -> bool {
    let within = |(first, last): &(char, char)| (*first..=*last).contains(&letter);
    letter >= HIDDEN[0].0 && HIDDEN.iter().any(within)
}

/// The same text with each such letter as JSON would write it: `\u202e`. JSON stays JSON.
#[must_use]
pub fn spelled_out(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut spelled = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_hidden(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                // A string takes all.
                let _ = write!(spelled, "\\u{unit:04x}");
            }
        } else {
            spelled.push(letter);
        }
    }
    Cow::Owned(spelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_spelled_out_and_json_stays_the_same() {
        let hidden = "\u{7f}\u{80}\u{9b}\u{9f}\u{ad}\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\
                      \u{202e}\u{2060}\u{2066}\u{2069}\u{feff}\u{fff9}\u{e0001}";
        assert!(hidden.chars().all(is_hidden));
        let spelled = spelled_out(hidden);
        assert!(
            spelled.is_ascii() && spelled.starts_with("\\u007f\\u0080"),
            "{spelled}"
        );
        assert!(spelled.ends_with("\\udb40\\udc01"), "{spelled}");
        let json = serde_json::json!({ "client_id": hidden }).to_string();
        let again: serde_json::Value = serde_json::from_str(&spelled_out(&json)).unwrap();
        assert_eq!(again["client_id"], hidden);
    }

    #[test]
    fn no_blank_but_the_plain_one_and_no_private_letter_passes() {
        let private = [
            '\u{e000}',
            '\u{f8ff}',
            '\u{f0000}',
            '\u{fffff}',
            '\u{100000}',
            '\u{10ffff}',
        ];
        let blanks = (' '..=char::MAX).filter(|letter| letter.is_whitespace() && *letter != ' ');
        for letter in blanks.chain(private) {
            assert!(is_hidden(letter), "{letter:?}");
        }
        assert!(!is_hidden(' '));
    }

    #[test]
    fn what_is_seen_stays() {
        let text = "pump-7 Küche 日本 \u{1f600}\tt \u{1b}[32mINFO\u{1b}[0m\n";
        assert!(matches!(spelled_out(text), Cow::Borrowed(same) if same == text));
    }
}
