//! Why bytes are no records of a shard.

use super::tag::Tag;
use std::fmt;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its kind is unknown.
    UnknownTag,
    /// It ends too early.
    TooShort,
    /// There is something behind its last field.
    TooLong,
    /// It says that it is larger than any record may be.
    TooLarge,
    /// A number is longer than it has to be, or does not fit.
    Number,
    /// A field has a value that nobody writes.
    Value,
    /// A text is not UTF-8.
    Text,
    /// It names a message that was not written, or too long ago.
    NoBody,
    /// A message has not the number that is due.
    BodyOrder,
    /// It stands between the parts of another one.
    Interrupts,
    /// A part follows nothing.
    NoFirstPart,
    /// A record in parts cannot be one of those that speak of parts.
    PartInParts,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::UnknownTag => "its kind is unknown: was it written by a newer version?",
            Fault::TooShort => "it ends too early",
            Fault::TooLong => "it is longer than its fields",
            Fault::TooLarge => "it says that it is larger than any record",
            Fault::Number => "a number is not written as numbers are",
            Fault::Value => "a field has a value that does not exist",
            Fault::Text => "a text is not UTF-8",
            Fault::NoBody => "it names a message that is not there",
            Fault::BodyOrder => "messages are missing before it",
            Fault::Interrupts => "it stands where the rest of another record is due",
            Fault::NoFirstPart => "the parts before it are missing",
            Fault::PartInParts => "it is a part and comes in parts",
        })
    }
}

/// A record that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it begins, in bytes from the first record of its frame; one in parts, where its last begins.
    pub at: usize,
    /// Its first byte; 0 if it has none.
    pub tag: u8,
    /// Why.
    pub fault: Fault,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Tag::from_bits(self.tag).map_or("unknown", Tag::name);
        let (tag, at, fault) = (self.tag, self.at, self.fault);
        write!(
            f,
            "record {tag} ({name}) at byte {at} of its frame: {fault}"
        )
    }
}

impl std::error::Error for Refusal {}
