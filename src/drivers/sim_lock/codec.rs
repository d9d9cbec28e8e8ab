//! Bytes to frames and back. Total over any input.
//!
//! ```text
//! frame = ':' length body check LF
//! ```
//! `length` is the number of bytes of `body`, `check` is CRC-16 (polynomial 1021, begun with FFFF, nothing reflected)
//! over `length` and `body`; both are four hexadecimal digits, `0`-`9` and `A`-`F`. `body` is printable ASCII without
//! `:`, so a colon always begins a frame.

use crate::model::Private;

/// Begins a frame.
pub const START: u8 = b':';
/// Ends a frame.
pub const END: u8 = b'\n';
/// The longest body, in bytes. A key of 64 characters, all escaped, takes 768.
pub const LONGEST: usize = 2048;
/// What stands around a body: the colon, two times four digits, the line feed.
pub const AROUND: usize = 10;

/// What the front of a buffer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// Nothing whole yet; feed more bytes.
    Need,
    /// The first `used` bytes belong to nothing.
    Noise {
        /// How many.
        used: usize,
    },
    /// A frame as long as it says, whose check does not agree or that does not end where it should.
    Damaged {
        /// How many bytes it took.
        used: usize,
    },
    /// A whole frame.
    Frame {
        /// What it says; PINs among it.
        body: Private,
        /// How many bytes it took.
        used: usize,
    },
}

/// Decodes the front of `buffer`.
#[must_use]
pub fn decode(buffer: &[u8]) -> Decoded {
    match buffer.first() {
        None => return Decoded::Need,
        Some(&START) => {}
        Some(_) => {
            let used = buffer.iter().position(|byte| *byte == START).unwrap_or(buffer.len());
            return Decoded::Noise { used };
        }
    }
    let head = &buffer[1..buffer.len().min(5)];
    if let Some(wrong) = head.iter().position(|byte| digit(*byte).is_none()) {
        return Decoded::Noise { used: 1 + wrong };
    }
    let Some(length) = number(head) else {
        return Decoded::Need;
    };
    let length = usize::from(length);
    if length > LONGEST {
        return Decoded::Noise { used: 5 };
    }
    let whole = length + AROUND;
    let within = &buffer[..buffer.len().min(whole)];
    // Nothing inside can hold these: what came before was cut off, and must not swallow what follows.
    let inside = &within[5..within.len().min(whole - 1)];
    match inside.iter().position(|byte| !matches!(byte, b' '..=b'~') || *byte == START) {
        Some(at) if inside[at] == START => return Decoded::Damaged { used: 5 + at },
        Some(at) => return Decoded::Damaged { used: 5 + at + 1 },
        None => {}
    }
    if within.len() < whole {
        return Decoded::Need;
    }
    let (body, check) = (&within[5..5 + length], &within[5 + length..whole - 1]);
    match within[whole - 1] {
        END if number(check) == Some(crc(&within[1..5 + length])) => {
            let body: String = body.iter().copied().map(char::from).collect();
            Decoded::Frame { body: Private::new(body), used: whole }
        }
        // The next frame begins where this one should have ended.
        START => Decoded::Damaged { used: whole - 1 },
        _ => Decoded::Damaged { used: whole },
    }
}

/// Encodes a body. What is no printable ASCII becomes `?`, and `:` too: fields that may hold such are escaped before.
///
/// # Panics
/// When the body is longer than [`LONGEST`]: whoever makes one keeps its fields short.
#[must_use]
pub fn encode(body: &str) -> Vec<u8> {
    assert!(body.len() <= LONGEST, "a body has at most {LONGEST} bytes");
    let body = body.bytes().map(|byte| match byte {
        b' '..=b'~' if byte != START => byte,
        _ => b'?',
    });
    let mut checked: Vec<u8> = format!("{:04X}", body.len()).into_bytes();
    checked.extend(body);
    let check = crc(&checked);
    let mut frame = Vec::with_capacity(checked.len() + 6);
    frame.push(START);
    frame.append(&mut checked);
    frame.extend(format!("{check:04X}").bytes());
    frame.push(END);
    frame
}

/// A text as one field: letters, digits, `-`, `_` and `.` stand for themselves, any other byte of its UTF-8 is written
/// `%` and two hexadecimal digits.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut field = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => field.push(char::from(byte)),
            _ => field.push_str(&format!("%{byte:02X}")),
        }
    }
    field
}

/// The text of a field; nothing where an escape is broken or the bytes are not UTF-8.
#[must_use]
pub fn unescape(field: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                rest = after;
            }
            (b'%', _) => return None,
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Four digits as a number; nothing for fewer, or for other signs.
fn number(digits: &[u8]) -> Option<u16> {
    let &[a, b, c, d] = digits else {
        return None;
    };
    [a, b, c, d].into_iter().try_fold(0, |number, byte| Some(number << 4 | u16::from(digit(byte)?)))
}

fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |mut crc, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(body: &str, used: usize) -> Decoded {
        Decoded::Frame { body: Private::new(body), used }
    }

    #[test]
    fn the_check_is_the_published_one() {
        // The check value that catalogues of CRCs print for this one.
        assert_eq!(crc(b"123456789"), 0x29B1);
    }

    #[test]
    fn a_frame_is_spelled_as_the_protocol_says_and_read_back() {
        let bytes = encode("1 STATE -");
        assert_eq!(bytes, b":00091 STATE -1C1C\n");
        assert_eq!(decode(&bytes), frame("1 STATE -", 19));
    }

    #[test]
    fn noise_and_damage_are_told_apart_and_never_swallow_the_next_frame() {
        assert_eq!(decode(b""), Decoded::Need);
        assert_eq!(decode(b"abc:"), Decoded::Noise { used: 3 });
        assert_eq!(decode(b":00"), Decoded::Need);
        assert_eq!(decode(b":0x09"), Decoded::Noise { used: 2 });
        assert_eq!(decode(b":000a"), Decoded::Noise { used: 4 });
        assert_eq!(decode(b":FFFF"), Decoded::Noise { used: 5 });
        assert_eq!(decode(b":0002ab:0002"), Decoded::Damaged { used: 7 });
        assert_eq!(decode(b":0002a\x01"), Decoded::Damaged { used: 7 });
        assert_eq!(decode(b":00091 STATE -0000\n"), Decoded::Damaged { used: 19 });
        assert_eq!(decode(b":00091 STATE -1C1C:"), Decoded::Damaged { used: 18 });
        assert_eq!(decode(b":00091 STATE -1C1C"), Decoded::Need);
    }

    #[test]
    fn what_no_field_can_hold_is_not_written() {
        let bytes = encode("a:b\u{e9}\n");
        assert_eq!(decode(&bytes), frame("a?b???", bytes.len()));
    }

    #[test]
    fn a_field_carries_any_text_and_breaks_nothing() {
        assert_eq!(escape("Suite 7:ø"), "Suite%207%3A%C3%B8");
        assert_eq!(unescape("Suite%207%3A%C3%B8").as_deref(), Some("Suite 7:ø"));
        for broken in ["%", "%4", "%G0", "%4g", "%FF"] {
            assert_eq!(unescape(broken), None, "{broken}");
        }
    }

    /// Feeds `bytes` in the pieces given and collects the bodies.
    fn framed(pieces: &[&[u8]]) -> Vec<String> {
        let mut buffer = Vec::new();
        let mut out = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let decoded = decode(&buffer);
                let used = match &decoded {
                    Decoded::Need => break,
                    Decoded::Noise { used } | Decoded::Damaged { used } | Decoded::Frame { used, .. } => {
                        *used
                    }
                };
                assert!(0 < used && used <= buffer.len(), "progress, and never past the end");
                buffer.drain(..used);
                if let Decoded::Frame { body, .. } = decoded {
                    out.push(body.expose().to_owned());
                }
            }
            assert!(buffer.len() < LONGEST + AROUND, "what is kept is bounded");
        }
        out
    }

    proptest! {
        #[test]
        fn every_split_of_glued_frames_behind_garbage_gives_the_same(
            first in "[ -9;-~]{0,40}",
            second in "[ -9;-~]{0,40}",
            garbage in prop::collection::vec(any::<u8>().prop_filter("no start", |byte| *byte != START), 0..9),
        ) {
            let bytes = [&garbage[..], &encode(&first), &encode(&second)].concat();
            let expected = [first, second];
            for cut in 0..=bytes.len() {
                prop_assert_eq!(&framed(&[&bytes[..cut], &bytes[cut..]])[..], &expected[..]);
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&framed(&single)[..], &expected[..]);
        }

        #[test]
        fn a_frame_behind_one_that_was_cut_off_is_read(body in "[ -9;-~]{1,40}", cut in 1..50_usize) {
            let whole = encode(&body);
            let cut = cut.min(whole.len() - 1);
            let heard = framed(&[&whole[..cut], &whole]);
            prop_assert_eq!(heard.last(), Some(&body));
        }

        #[test]
        fn any_one_wrong_byte_is_noticed(body in "[ -9;-~]{0,40}", at in any::<prop::sample::Index>(), by in 1..=255_u8) {
            let mut bytes = encode(&body);
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            prop_assert_eq!(framed(&[&bytes]), Vec::<String>::new());
        }

        #[test]
        fn any_text_survives_being_a_field(text in any::<String>()) {
            let field = escape(&text);
            prop_assert!(field.bytes().all(|byte| byte.is_ascii_graphic() && byte != START));
            prop_assert_eq!(unescape(&field), Some(text));
        }

        #[test]
        fn random_bytes_neither_panic_nor_grow_the_buffer(
            pieces in prop::collection::vec(prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b":0047 \n".to_vec())], 0..600), 0..20),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            framed(&pieces);
        }
    }
}
