//! Checked readers and writers of MQTT's elementary fields.
//!
//! A [`Reader`] never reads past its slice; every failure is a [`DecodeError`]. Writers append to a
//! buffer that the caller owns; their inputs are already within the protocol's limits.

use super::DecodeError;

/// Largest value of a variable byte integer (1.5.5).
pub const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// Reads fields from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails unless everything has been read.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`].
    pub const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`] if there are fewer.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::TooShort)?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::TooShort)?;
        self.rest = rest;
        Ok(*first)
    }

    /// A two byte integer (1.5.2).
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::TooShort)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    /// A four byte integer (1.5.3).
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::TooShort)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A non-zero packet identifier.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`], [`DecodeError::PacketIdZero`] `[MQTT-2.2.1-3]`.
    pub fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::PacketIdZero),
            id => Ok(id),
        }
    }

    /// A variable byte integer in its shortest form `[MQTT-1.5.5-1]`.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`], [`DecodeError::VariableByteInteger`].
    pub fn variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                let padded = byte == 0 && shift > 0;
                return if padded {
                    Err(DecodeError::VariableByteInteger)
                } else {
                    Ok(value)
                };
            }
        }
        Err(DecodeError::VariableByteInteger)
    }

    /// Binary data (1.5.6): a two byte length and that many bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    pub fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A UTF-8 string without NUL `[MQTT-1.5.4-1]` `[MQTT-1.5.4-2]`; a byte order mark stays
    /// `[MQTT-1.5.4-3]`.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`], [`DecodeError::InvalidUtf8`], [`DecodeError::NulCharacter`].
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| DecodeError::InvalidUtf8)?;
        // To look at all of it takes few steps for many bytes, to stop at the first one for each.
        if text.bytes().fold(false, |found, byte| found | (byte == 0)) {
            return Err(DecodeError::NulCharacter);
        }
        Ok(text)
    }
}

/// Appends a two byte integer.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a four byte integer.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a variable byte integer; `value` is at most [`VARIABLE_BYTE_INTEGER_MAX`].
pub fn put_variable_byte_integer(out: &mut Vec<u8>, mut value: u32) {
    debug_assert!(value <= VARIABLE_BYTE_INTEGER_MAX);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put_variable_byte_integer`] appends for `value`.
#[must_use]
pub const fn variable_byte_integer_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends binary data; what exceeds 65,535 bytes cannot be encoded and is cut, which callers rule out.
pub fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= usize::from(u16::MAX));
    let length = bytes.len().min(usize::from(u16::MAX));
    put_u16(out, length as u16);
    out.extend_from_slice(bytes.get(..length).unwrap_or_default());
}

/// Appends a string as [`put_binary`] does.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    put_binary(out, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_survive_a_round_trip_in_shortest_form() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            268_435_455,
        ] {
            let mut out = Vec::new();
            put_variable_byte_integer(&mut out, value);
            assert_eq!(out.len(), variable_byte_integer_len(value as usize));
            assert_eq!(Reader::new(&out).variable_byte_integer(), Ok(value));
        }
    }

    #[test]
    fn padded_and_overlong_integers_are_refused() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0x01],
            &[0x80, 0x80, 0x80, 0x00],
        ] {
            assert_eq!(
                Reader::new(bytes).variable_byte_integer(),
                Err(DecodeError::VariableByteInteger)
            );
        }
        assert_eq!(
            Reader::new(&[0x80]).variable_byte_integer(),
            Err(DecodeError::TooShort)
        );
    }

    #[test]
    fn strings_are_checked() {
        let read = |bytes: &[u8]| {
            let mut field = Vec::new();
            put_binary(&mut field, bytes);
            Reader::new(&field).string().map(str::to_owned)
        };
        assert_eq!(read(&[0xED, 0xA0, 0x80]), Err(DecodeError::InvalidUtf8));
        assert_eq!(read(b"a\0b"), Err(DecodeError::NulCharacter));
        assert_eq!(read("\u{feff}a".as_bytes()).as_deref(), Ok("\u{feff}a"));
        assert_eq!(
            Reader::new(&[0, 3, b'a']).string(),
            Err(DecodeError::TooShort)
        );
    }
}
