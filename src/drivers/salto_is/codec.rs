//! Bytes to frames and back. Total over any input.
//!
//! ```text
//! frame = 02  B3 field B3 field … B3  03  check
//! check = XOR of every byte after 02, up to and including 03; or 0D, "do not check"
//! ```
//! The check may have any value, also that of a control byte: it is the one byte after `03`, never searched for.

/// Asks whether the other side is ready.
pub const ENQ: u8 = 0x05;
/// Ready, or: the frame was taken.
pub const ACK: u8 = 0x06;
/// Not ready, or: the frame was refused.
pub const NAK: u8 = 0x15;
/// Begins a frame.
pub const STX: u8 = 0x02;
/// Ends a frame's fields; one check byte follows.
pub const ETX: u8 = 0x03;
/// Stands before each field and after the last.
pub const SEPARATOR: u8 = 0xB3;
/// In the place of the check: do not check.
pub const UNCHECKED: u8 = 0x0D;

/// The longest frame that is waited for, in bytes. The longest one known, a phone key, stays below 1 KiB; without a
/// bound a line that never sends `03` would fill the memory.
pub const LONGEST: usize = 4096;

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
    /// One byte, a control.
    Control(Control),
    /// A whole frame.
    Frame {
        /// Its fields, without the closing separator.
        fields: Vec<String>,
        /// What its check byte says.
        check: Check,
        /// How many bytes it took.
        used: usize,
    },
}

/// A byte that stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Are you ready?
    Enq,
    /// Ready, taken.
    Ack,
    /// Not ready, refused.
    Nak,
}

/// What a frame's check byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It agrees with the bytes.
    Good,
    /// The sender asks not to check.
    Skipped,
    /// It does not agree: some byte is wrong.
    Bad,
}

/// What to put behind `03`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailer {
    /// The check.
    Checked,
    /// `0D`.
    Unchecked,
}

/// Decodes the front of `buffer`.
#[must_use]
pub fn decode(buffer: &[u8]) -> Decoded {
    let Some(&first) = buffer.first() else {
        return Decoded::Need;
    };
    match first {
        ENQ => Decoded::Control(Control::Enq),
        ACK => Decoded::Control(Control::Ack),
        NAK => Decoded::Control(Control::Nak),
        STX => decode_frame(buffer),
        _ => Decoded::Noise {
            used: buffer
                .iter()
                .position(|byte| matches!(*byte, STX | ENQ | ACK | NAK))
                .unwrap_or(buffer.len()),
        },
    }
}

fn decode_frame(buffer: &[u8]) -> Decoded {
    let within = &buffer[..buffer.len().min(LONGEST)];
    let mark = |byte: &u8| matches!(*byte, STX | ETX | ENQ | ACK | NAK);
    match within[1..].iter().position(mark) {
        // No field can hold these: what came before was cut off, and must not swallow them.
        Some(at) if within[1 + at] != ETX => Decoded::Noise { used: 1 + at },
        Some(at) => {
            let end = 1 + at;
            let Some(&check) = buffer.get(end + 1) else {
                return Decoded::Need;
            };
            Decoded::Frame {
                fields: fields_of(&buffer[1..end]),
                check: match check {
                    check if check == checksum(&buffer[1..=end]) => Check::Good,
                    UNCHECKED => Check::Skipped,
                    _ => Check::Bad,
                },
                used: end + 2,
            }
        }
        None if within.len() < LONGEST => Decoded::Need,
        None => Decoded::Noise { used: LONGEST },
    }
}

fn fields_of(body: &[u8]) -> Vec<String> {
    if body.is_empty() {
        return Vec::new();
    }
    let body = body.strip_prefix(&[SEPARATOR]).unwrap_or(body);
    let body = body.strip_suffix(&[SEPARATOR]).unwrap_or(body);
    body.split(|byte| *byte == SEPARATOR)
        .map(|field| field.iter().copied().map(char::from).collect())
        .collect()
}

/// Encodes a frame in Latin-1. In a field, control characters are dropped, the separator's sign `³` becomes `3`, letters
/// outside Latin-1 lose their accents, and what is left becomes `?`.
#[must_use]
pub fn encode<F: AsRef<str>>(fields: &[F], trailer: Trailer) -> Vec<u8> {
    let mut frame = vec![STX];
    for field in fields {
        frame.push(SEPARATOR);
        latin1(field.as_ref(), &mut frame);
    }
    if !fields.is_empty() {
        frame.push(SEPARATOR);
    }
    frame.push(ETX);
    frame.push(match trailer {
        Trailer::Checked => checksum(&frame[1..]),
        Trailer::Unchecked => UNCHECKED,
    });
    frame
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

/// Whether a field can carry the text exactly as it is. A name of a room or an encoder must: with a letter replaced it
/// might be another one's.
#[must_use]
pub fn carries(text: &str) -> bool {
    let mut bytes = Vec::with_capacity(text.len());
    latin1(text, &mut bytes);
    bytes.iter().copied().map(char::from).eq(text.chars())
}

fn latin1(text: &str, into: &mut Vec<u8>) {
    for letter in text.chars() {
        match letter {
            _ if letter.is_control() => {}
            '³' => into.push(b'3'),
            '\u{20}'..='\u{ff}' => into.extend(u8::try_from(letter)),
            '\u{100}'..='\u{17f}' => into.push(EXTENDED_A[letter as usize - 0x100]),
            // Combining accents follow the letter they belong to.
            '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{feff}' => {}
            '\u{2010}'..='\u{2015}' | '\u{2212}' => into.push(b'-'),
            '\u{2018}'..='\u{201b}' | '\u{2032}' => into.push(b'\''),
            '\u{201c}'..='\u{201f}' | '\u{2033}' => into.push(b'"'),
            '\u{2000}'..='\u{200a}' | '\u{202f}' => into.push(b' '),
            '€' => into.extend(b"EUR"),
            'ẞ' => into.extend(b"SS"),
            'Ș' => into.push(b'S'),
            'ș' => into.push(b's'),
            'Ț' => into.push(b'T'),
            'ț' => into.push(b't'),
            _ => into.push(b'?'),
        }
    }
}

/// U+0100 to U+017F without their accents; ligatures give their first letter.
const EXTENDED_A: &[u8; 128] = b"AaAaAaCcCcCcCcDdDdEeEeEeEeEeGgGgGgGgHhHhIiIiIiIiIiIiJjKkkLlLlLlL\
lLlNnNnNnnNnOoOoOoOoRrRrRrSsSsSsSsTtTtTtUuUuUuUuUuUuWwYyYZzZzZzs";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn frame(fields: &[&str], check: Check, used: usize) -> Decoded {
        let fields = fields.iter().map(ToString::to_string).collect();
        Decoded::Frame { fields, check, used }
    }

    #[test]
    fn a_frame_is_spelled_as_the_protocol_says_and_read_back() {
        let bytes = encode(&["CO", "0", "W10011"], Trailer::Checked);
        assert_eq!(hex(&bytes), "02b3434fb330b3573130303131b30359");
        assert_eq!(decode(&bytes), frame(&["CO", "0", "W10011"], Check::Good, 16));
        let unchecked = encode(&["CO", "0", "W10011"], Trailer::Unchecked);
        assert_eq!(decode(&unchecked), frame(&["CO", "0", "W10011"], Check::Skipped, 16));
    }

    #[test]
    fn a_closing_separator_may_be_missing() {
        assert_eq!(decode(b"\x02\xb3EN\xb31\x03\x39"), frame(&["EN", "1"], Check::Good, 8));
    }

    #[test]
    fn a_wrong_byte_shows_in_the_check() {
        let bytes = b"\x02\xb3CO\xb30\xb3101\xb3\x03\x0e";
        assert_eq!(decode(bytes), frame(&["CO", "0", "101"], Check::Bad, bytes.len()));
    }

    #[test]
    fn controls_and_noise_are_told_apart() {
        assert_eq!(decode(b""), Decoded::Need);
        assert_eq!(decode(b"\x05"), Decoded::Control(Control::Enq));
        assert_eq!(decode(b"\x06\x15"), Decoded::Control(Control::Ack));
        assert_eq!(decode(b"\x15"), Decoded::Control(Control::Nak));
        assert_eq!(decode(b"abc\x06"), Decoded::Noise { used: 3 });
        assert_eq!(decode(b"\x03\x0d"), Decoded::Noise { used: 2 });
        for sign in [STX, ENQ, ACK, NAK] {
            assert_eq!(decode(&[STX, SEPARATOR, b'C', sign, SEPARATOR]), Decoded::Noise { used: 3 });
        }
        assert_eq!(decode(b"\x02\x03\x03"), frame(&[], Check::Good, 3));
    }

    #[test]
    fn a_frame_without_end_is_given_up_at_the_bound() {
        let endless = vec![STX; 1].into_iter().chain(std::iter::repeat_n(b'x', 2 * LONGEST));
        let endless: Vec<u8> = endless.collect();
        assert_eq!(decode(&endless[..LONGEST - 1]), Decoded::Need);
        assert_eq!(decode(&endless), Decoded::Noise { used: LONGEST });
    }

    #[test]
    fn text_becomes_latin1_and_nothing_in_it_can_break_the_frame() {
        let check = |text: &str, expected: &[u8]| {
            let mut bytes = Vec::new();
            latin1(text, &mut bytes);
            assert_eq!(bytes, expected, "{text:?}");
        };
        check("Zimmer Süd", b"Zimmer S\xfcd");
        check("a\r\n\u{2}\u{3}b\u{9b}", b"ab");
        check("10³", b"103");
        check("Łódź Ąę Őű Čš Žž ſ", b"L\xf3dz Ae Ou Cs Zz s");
        check("e\u{301} – “x” ’ €", b"e - \"x\" ' EUR");
        check("東", b"?");
    }

    #[test]
    fn a_name_that_would_be_changed_is_not_carried() {
        assert!(carries("Süd 101"));
        for changed in ["10³", "Łazienka", "東", "a\u{1}"] {
            assert!(!carries(changed), "{changed:?}");
        }
    }

    /// Feeds `bytes` in the pieces given and collects everything that is not noise.
    fn framed(pieces: &[&[u8]]) -> Vec<Decoded> {
        let mut buffer = Vec::new();
        let mut out = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let decoded = decode(&buffer);
                let used = match &decoded {
                    Decoded::Need => break,
                    Decoded::Noise { used } | Decoded::Frame { used, .. } => *used,
                    Decoded::Control(_) => 1,
                };
                assert!(0 < used && used <= buffer.len(), "progress, and never past the end");
                buffer.drain(..used);
                if !matches!(decoded, Decoded::Noise { .. }) {
                    out.push(decoded);
                }
            }
            assert!(buffer.len() < LONGEST, "what is kept is bounded");
        }
        out
    }

    #[test]
    fn checks_that_look_like_control_bytes_are_read_as_checks() {
        for wanted in [STX, ETX, ACK, NAK, ENQ, UNCHECKED] {
            let (room, bytes) = ('!'..='~')
                .flat_map(|wing| (0..1000).map(move |number| format!("{wing}{number}")))
                .map(|room| (room.clone(), encode(&["CO", "0", &room], Trailer::Checked)))
                .find(|(_, bytes)| bytes.last() == Some(&wanted))
                .unwrap_or_else(|| panic!("no room gives a check of {wanted:02x}"));
            let glued = [&bytes[..], &[ACK], &bytes[..]].concat();
            for cut in 0..=glued.len() {
                let heard = framed(&[&glued[..cut], &glued[cut..]]);
                assert_eq!(heard.len(), 3, "room {room}, cut at {cut}: {heard:?}");
                for of in [&heard[0], &heard[2]] {
                    assert!(
                        matches!(of, Decoded::Frame { fields, check: Check::Good, .. } if fields[2] == room),
                        "{of:?}"
                    );
                }
            }
        }
    }

    fn fields() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[ -~\u{a0}-\u{b2}\u{b4}-\u{ff}]{0,12}", 1..17)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(fields in fields(), unchecked in any::<bool>()) {
            let trailer = if unchecked { Trailer::Unchecked } else { Trailer::Checked };
            let bytes = encode(&fields, trailer);
            let Decoded::Frame { fields: read, check, used } = decode(&bytes) else { panic!("a frame") };
            prop_assert_eq!(read, fields);
            prop_assert_ne!(check, Check::Bad);
            prop_assert_eq!(used, bytes.len());
        }

        #[test]
        fn any_text_gives_one_whole_frame(fields in prop::collection::vec(any::<String>(), 1..8)) {
            let bytes = encode(&fields, Trailer::Checked);
            let Decoded::Frame { fields: read, check, used } = decode(&bytes) else { panic!("a frame") };
            prop_assert_eq!(read.len(), fields.len());
            prop_assert_eq!(check, Check::Good);
            prop_assert_eq!(used, bytes.len());
        }

        #[test]
        fn every_split_of_glued_frames_behind_garbage_gives_the_same(
            first in fields(),
            second in fields(),
            garbage in prop::collection::vec(any::<u8>().prop_filter("no sign", |byte| !matches!(*byte, STX | ENQ | ACK | NAK)), 0..9),
        ) {
            let frames = [encode(&first, Trailer::Checked), encode(&second, Trailer::Unchecked)];
            let bytes = [&garbage[..], &frames[0], &frames[1]].concat();
            let expected = framed(&[&frames[0], &frames[1]]);
            prop_assert_eq!(expected.len(), 2);
            for cut in 0..=bytes.len() {
                prop_assert_eq!(&framed(&[&bytes[..cut], &bytes[cut..]]), &expected);
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&framed(&single), &expected);
        }

        #[test]
        fn random_bytes_neither_panic_nor_grow_the_buffer(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..20)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            framed(&pieces);
        }

        #[test]
        fn bytes_that_look_like_frames_neither_panic_nor_grow_the_buffer(
            bytes in prop::collection::vec(prop::sample::select(vec![STX, ETX, ENQ, ACK, NAK, SEPARATOR, UNCHECKED, b'C', b'N', 0xff]), 0..9000),
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(511).collect();
            framed(&pieces);
        }
    }
}
