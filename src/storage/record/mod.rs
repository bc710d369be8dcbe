//! A shard's records as bytes in its frames, and back.
//!
//! ```text
//! record = tag u8 | length varint | fields         varint = LEB128 in its shortest form
//! ```
//! Little endian; a text is its length and its bytes; times are milliseconds of the wall clock since 1970.
//! The layout of each record's fields stands where it is written ([`encoder`]).
//!
//! Invariants:
//! - A shard's frames can be read without those of any other. A message is written once as a body; entries
//!   and retained messages name it by its number, while it is among the last that were written
//!   ([`window`]).
//! - A record that does not fit in a frame goes in parts, one behind the other.
//! - What cannot be read is refused by name and never passed over; nothing is taken for granted of it, not
//!   even its lengths.
//!
//! Not here: where frames lie ([`super::log`]), and what records tell ([`super::image`]).

pub mod decoder;
pub mod encoder;
mod fields;
mod frames;
pub mod refusal;
mod tag;
#[cfg(test)]
mod tests;
mod window;
