//! Data frames of a client, cut into small ones as their bytes come in.
//!
//! A frame may hold any number of packets, and be as long as all of them `[MQTT-6.0.0-2]`: so no more of it
//! is kept than has come, and what bounds packets is MQTT's to say. Control frames pass as they are.

use tungstenite::protocol::frame::coding::CloseCode;

/// Payload of the longest frame that comes out.
pub(super) const PIECE_BYTES_MAX: usize = 4096;
/// Bytes of the longest head of a frame.
const HEAD_BYTES_MAX: usize = 14;
/// Payload of the longest control frame.
const CONTROL_BYTES_MAX: u64 = 125;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0F;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// What a client did wrong, and the code that tells it so.
pub(super) type Broken = (CloseCode, &'static str);

/// The frames of one client.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Bytes of a head that is not whole.
    head: Vec<u8>,
    /// What is still to come of a frame.
    left: u64,
    /// How the next byte of it is masked, if it is cut.
    mask: Option<[u8; 4]>,
    /// More parts of a message follow.
    is_fragmented: bool,
}

/// A head that is whole.
struct Head {
    first: u8,
    payload_bytes: u64,
    mask: [u8; 4],
}

impl Pieces {
    /// Passes on what may be read now.
    ///
    /// # Errors
    /// The rest breaks a rule.
    pub(super) fn push(&mut self, mut bytes: &[u8], into: &mut Vec<u8>) -> Result<(), Broken> {
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.take_head(bytes, into)?;
                continue;
            }
            let most = self.left.min(PIECE_BYTES_MAX as u64) as usize;
            let (piece, rest) = bytes.split_at(most.min(bytes.len()));
            if let Some(mask) = &mut self.mask {
                put_head(piece.len(), *mask, into);
                mask.rotate_left(piece.len() % 4);
            }
            into.extend_from_slice(piece);
            self.left -= piece.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Takes bytes of a head; what stands behind it.
    fn take_head<'a>(
        &mut self,
        mut bytes: &'a [u8],
        into: &mut Vec<u8>,
    ) -> Result<&'a [u8], Broken> {
        while let Some((byte, rest)) = bytes.split_first() {
            bytes = rest;
            self.head.push(*byte);
            if let [first, second] = self.head[..] {
                self.check(first, second)?;
            }
            if let Some(head) = whole_head(&self.head) {
                self.begin(&head, into)?;
                self.head.clear();
                break;
            }
        }
        Ok(bytes)
    }

    /// Whether a frame may begin so.
    fn check(&self, first: u8, second: u8) -> Result<(), Broken> {
        let breaks = |text| Err((CloseCode::Protocol, text));
        if second & MASKED == 0 {
            return breaks("a frame of a client that is not masked");
        }
        if first & RESERVED != 0 {
            return breaks("a frame with a reserved bit");
        }
        match first & OPCODE {
            TEXT => Err((CloseCode::Unsupported, "a text frame")),
            BINARY if self.is_fragmented => breaks("a message begins within another"),
            CONTINUATION if !self.is_fragmented => breaks("a message goes on that has not begun"),
            BINARY | CONTINUATION => Ok(()),
            8..=10 if first & FINAL == 0 => breaks("a control frame in parts"),
            8..=10 if u64::from(second & !MASKED) > CONTROL_BYTES_MAX => {
                breaks("a control frame of more than 125 bytes")
            }
            8..=10 => Ok(()),
            _ => breaks("a frame of no known kind"),
        }
    }

    fn begin(&mut self, head: &Head, into: &mut Vec<u8>) -> Result<(), Broken> {
        if head.payload_bytes > i64::MAX as u64 {
            return Err((
                CloseCode::Protocol,
                "a frame that is longer than any may be",
            ));
        }
        self.left = head.payload_bytes;
        self.mask = None;
        if matches!(head.first & OPCODE, BINARY | CONTINUATION) {
            self.is_fragmented = head.first & FINAL == 0;
            self.mask = Some(head.mask);
        } else {
            into.extend_from_slice(&self.head);
        }
        Ok(())
    }
}

/// What a head says, if it is whole.
fn whole_head(bytes: &[u8]) -> Option<Head> {
    debug_assert!(bytes.len() <= HEAD_BYTES_MAX);
    let (first, rest) = bytes.split_first()?;
    let (second, rest) = rest.split_first()?;
    let (payload_bytes, mask) = match second & !MASKED {
        126 => {
            let (length, mask) = rest.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*length)), mask)
        }
        127 => {
            let (length, mask) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*length), mask)
        }
        bytes => (u64::from(bytes), rest),
    };
    Some(Head {
        first: *first,
        payload_bytes,
        mask: mask.try_into().ok()?,
    })
}

/// The head of a piece.
fn put_head(bytes: usize, mask: [u8; 4], into: &mut Vec<u8>) {
    into.push(FINAL | BINARY);
    match u8::try_from(bytes) {
        Ok(bytes @ ..=125) => into.push(MASKED | bytes),
        _ => {
            into.push(MASKED | 126);
            // A piece has no more than this can say.
            into.extend_from_slice(&(bytes as u16).to_be_bytes());
        }
    }
    into.extend_from_slice(&mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    /// A frame of so many bytes, with its length in the longest form that fits.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            bytes @ ..=125 => frame.push(MASKED | bytes as u8),
            bytes => {
                frame.push(MASKED | 127);
                frame.extend((bytes as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        let masked = payload.iter().zip(MASK.iter().cycle());
        frame.extend(masked.map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// The payloads of whole frames, by their first byte.
    fn payloads(mut frames: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        while !frames.is_empty() {
            let head_bytes = (2..=HEAD_BYTES_MAX)
                .find(|length| whole_head(&frames[..*length]).is_some())
                .unwrap();
            let head = whole_head(&frames[..head_bytes]).unwrap();
            let (payload, rest) = frames[head_bytes..].split_at(head.payload_bytes as usize);
            let plain = payload.iter().zip(head.mask.iter().cycle());
            all.push((head.first, plain.map(|(byte, mask)| byte ^ mask).collect()));
            frames = rest;
        }
        all
    }

    #[test]
    fn a_message_of_any_length_goes_on_as_it_comes_and_pings_pass() {
        let payload: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = [
            frame(BINARY, &payload[..11_000]),
            frame(0x89, b"ping"),
            frame(FINAL | CONTINUATION, &payload[11_000..]),
            frame(FINAL | BINARY, b""),
        ]
        .concat();
        for bytes_at_once in [1, 7, 5_000, usize::MAX] {
            let (mut pieces, mut into) = (Pieces::default(), Vec::new());
            for part in sent.chunks(bytes_at_once) {
                pieces.push(part, &mut into).unwrap();
            }
            let (pings, data): (Vec<_>, Vec<_>) = payloads(&into)
                .into_iter()
                .partition(|(first, _)| *first == 0x89);
            assert_eq!(pings, [(0x89, b"ping".to_vec())]);
            assert!(data.iter().all(|(first, _)| *first == FINAL | BINARY));
            assert!(data.iter().all(|(_, piece)| piece.len() <= PIECE_BYTES_MAX));
            let data: Vec<u8> = data.into_iter().flat_map(|(_, piece)| piece).collect();
            assert!(data == payload, "{bytes_at_once}");
        }
    }

    #[test]
    fn what_stands_before_a_broken_frame_is_passed_on() {
        for broken in [
            &[0x81, 0x80][..],
            &[0x82, 0],
            &[0xC2, 0x80],
            &[0x80, 0x80],
            &[0x09, 0x80],
            &[0x89, 0xFE],
            &[0x83, 0x80],
            &[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let (mut pieces, mut into) = (Pieces::default(), Vec::new());
            let good = frame(FINAL | BINARY, b"x");
            let pushed = pieces.push(&[&good[..], broken].concat(), &mut into);
            assert!(pushed.is_err() && into == good, "{broken:02x?}");
        }
        let mut pieces = Pieces::default();
        let part = frame(BINARY, b"x");
        assert!(pieces.push(&part, &mut Vec::new()).is_ok());
        assert!(pieces.push(&part, &mut Vec::new()).is_err());
    }
}
