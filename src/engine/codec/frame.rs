//! Fixed header and remaining length: where one packet ends and the next begins.
//!
//! Invariant: a frame is only handed out whole, and one that is larger than allowed is refused on its
//! header, before its body is buffered.

use super::DecodeError;

/// Longest fixed header: the first byte and four bytes of length.
pub const FIXED_HEADER_BYTES_MAX: usize = 5;

/// One whole control packet, split from the stream but not decoded.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Packet type and flags.
    pub first_byte: u8,
    /// Everything after the fixed header.
    pub body: &'a [u8],
}

/// What the front of a stream holds.
#[derive(Clone, Copy, Debug)]
pub enum Split<'a> {
    /// A whole frame and how many bytes it took.
    Whole(Frame<'a>, usize),
    /// Part of a frame; the count is the bytes it will have, 0 while its header is incomplete.
    Partial(usize),
}

/// Splits the first frame off `stream`. `packet_bytes_max` counts the fixed header too.
///
/// # Errors
/// [`DecodeError::VariableByteInteger`] `[MQTT-1.5.5-1]`, [`DecodeError::PacketTooLarge`].
pub fn split(stream: &[u8], packet_bytes_max: usize) -> Result<Split<'_>, DecodeError> {
    let Some((&first_byte, rest)) = stream.split_first() else {
        return Ok(Split::Partial(0));
    };
    let mut reader = super::primitive::Reader::new(rest);
    let length = match reader.variable_byte_integer() {
        Ok(length) => length as usize,
        Err(DecodeError::TooShort) => return Ok(Split::Partial(0)),
        Err(error) => return Err(error),
    };
    let header_bytes = stream.len() - reader.rest().len();
    let total_bytes = header_bytes + length;
    if total_bytes > packet_bytes_max {
        return Err(DecodeError::PacketTooLarge);
    }
    match reader.take(length) {
        Ok(body) => Ok(Split::Whole(Frame { first_byte, body }, total_bytes)),
        Err(_) => Ok(Split::Partial(total_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_or_partial_at_every_cut() {
        let mut stream = vec![0x30, 0xC8, 0x01];
        stream.extend_from_slice(&[7; 200]);
        stream.push(0xC0);
        for cut in 0..stream.len() {
            match split(&stream[..cut], 1000).unwrap() {
                Split::Whole(frame, used) => {
                    assert!(cut >= 203, "{cut}");
                    assert_eq!((frame.body.len(), used), (200, 203));
                }
                Split::Partial(total) => {
                    assert!(cut < 203, "{cut}");
                    assert_eq!(total, if cut < 3 { 0 } else { 203 });
                }
            }
        }
    }

    #[test]
    fn too_large_is_refused_on_the_header() {
        assert_eq!(
            split(&[0x30, 0xC8, 0x01], 202).unwrap_err(),
            DecodeError::PacketTooLarge
        );
        assert!(matches!(
            split(&[0x30, 0xC8, 0x01], 203),
            Ok(Split::Partial(203))
        ));
    }

    #[test]
    fn a_fifth_length_byte_is_malformed() {
        let stream = [0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
        assert_eq!(
            split(&stream, usize::MAX).unwrap_err(),
            DecodeError::VariableByteInteger
        );
    }
}
