//! Bytes to answers, and commands to bytes. Total over any input.
//!
//! ```text
//! TCP     item;item;…item;  0D 0A
//! serial  02  item;item;…item;  check  03      check = XOR of 02 and the text, as two hex digits in capitals
//! ```
//! How a server frames its answers on a serial line is not published, and neither is what ends them over TCP beyond
//! the line end that one PMS maker quotes. So one reader takes both forms on both lines, with or without the check.

/// The command was taken; serial lines only.
pub const ACK: u8 = 0x06;
/// The command was refused.
pub const NAK: u8 = 0x15;
/// Begins a text on a serial line.
pub const STX: u8 = 0x02;
/// Ends it.
pub const ETX: u8 = 0x03;
/// Stands behind each item.
pub const SEPARATOR: u8 = b';';

/// The longest answer that is waited for, in bytes. The clients that are known read at most 1024; without a bound a line
/// that never ends would fill the memory.
pub const LONGEST: usize = 4096;

/// How a text stands on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Over TCP: ended by CR LF.
    Line,
    /// Over a serial line: between STX and ETX, with a check.
    Block,
}

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
    /// One byte: taken.
    Ack,
    /// One byte: refused.
    Nak,
    /// A whole text.
    Text {
        /// What it says.
        text: Text,
        /// How many bytes it took.
        used: usize,
    },
}

/// A text that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Its items, each without its separator; one that has none was cut off and is left out.
    pub items: Vec<String>,
    /// Whether a check stood behind it that does not agree.
    pub is_damaged: bool,
}

/// Spells items. What [`carries`] does not hold of must not be in them.
#[must_use]
pub fn encode(items: &[String], framing: Framing) -> Vec<u8> {
    let mut bytes = Vec::new();
    if framing == Framing::Block {
        bytes.push(STX);
    }
    for item in items {
        bytes.extend_from_slice(item.as_bytes());
        bytes.push(SEPARATOR);
    }
    match framing {
        Framing::Line => bytes.extend_from_slice(b"\r\n"),
        Framing::Block => {
            let check = checksum(&bytes[1..]);
            bytes.extend_from_slice(format!("{check:02X}").as_bytes());
            bytes.push(ETX);
        }
    }
    bytes
}

/// Whether an item can carry a text as it is: which letters beside plain ASCII a server takes is not published.
#[must_use]
pub fn carries(text: &str) -> bool {
    !text.is_empty()
        && text.trim() == text
        && text.bytes().all(|byte| (byte == b' ' || byte.is_ascii_graphic()) && byte != SEPARATOR)
}

/// Decodes the front of `buffer`.
#[must_use]
pub fn decode(buffer: &[u8]) -> Decoded {
    match buffer.first() {
        None => Decoded::Need,
        Some(&ACK) => Decoded::Ack,
        Some(&NAK) => Decoded::Nak,
        Some(&(STX | b'C')) => decode_text(buffer),
        Some(_) => {
            Decoded::Noise { used: buffer.iter().position(|byte| begins(*byte)).unwrap_or(buffer.len()) }
        }
    }
}

/// What stands in `buffer` when nothing follows it any more: a text whose end was never said, if its last item is whole.
#[must_use]
pub fn decode_rest(buffer: &[u8]) -> Option<Text> {
    let text = buffer.strip_prefix(&[STX]).unwrap_or(buffer);
    let is_whole =
        text.starts_with(b"CC") && text.ends_with(&[SEPARATOR]) && !text.iter().any(|byte| ends(*byte));
    (is_whole && text.len() < LONGEST).then(|| text_of(text))
}

fn begins(byte: u8) -> bool {
    matches!(byte, STX | ACK | NAK | b'C')
}

fn ends(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | ETX | STX | ACK | NAK)
}

fn decode_text(buffer: &[u8]) -> Decoded {
    let start = usize::from(buffer[0] == STX);
    let within = &buffer[..buffer.len().min(LONGEST)];
    let text = &within[start..];
    if !text.starts_with(b"CC") && !b"CC".starts_with(text) {
        // Words of somebody else's, like "Connection refused".
        return Decoded::Noise { used: 1 };
    }
    match text.iter().position(|byte| ends(*byte)) {
        Some(at) if matches!(text[at], b'\r' | b'\n' | ETX) => {
            Decoded::Text { text: text_of(&text[..at]), used: start + at + 1 }
        }
        // No text can hold these: what came before was cut off, and must not swallow them.
        Some(at) => Decoded::Noise { used: start + at },
        None if within.len() < LONGEST => Decoded::Need,
        None => Decoded::Noise { used: LONGEST },
    }
}

fn text_of(text: &[u8]) -> Text {
    let whole = text.iter().rposition(|byte| *byte == SEPARATOR).map_or(0, |at| at + 1);
    let (items, behind) = text.split_at(whole);
    let is_damaged = match behind {
        [] => false,
        &[high, low] => format!("{:02X}", checksum(items)).as_bytes() != [high, low],
        _ => true,
    };
    let items = items.split(|byte| *byte == SEPARATOR).filter(|item| !item.is_empty());
    Text { items: items.map(|item| item.iter().copied().map(char::from).collect()).collect(), is_damaged }
}

/// The check of a text, with the STX that stands before it.
fn checksum(text: &[u8]) -> u8 {
    text.iter().fold(STX, |sum, byte| sum ^ byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(items: &[&str]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    fn text(said: &[&str], is_damaged: bool, used: usize) -> Decoded {
        Decoded::Text { text: Text { items: items(said), is_damaged }, used }
    }

    #[test]
    fn an_answer_is_read_in_every_form_that_it_may_have() {
        let check = |bytes: &[u8], used: usize| {
            assert_eq!(decode(bytes), text(&["CCA", "EA1", "RC0"], false, used), "{}", bytes.escape_ascii());
        };
        check(b"CCA;EA1;RC0;\r\n", 13);
        check(b"CCA;EA1;RC0;\n", 13);
        check(b"\x02CCA;EA1;RC0;\x03", 14);
        check(b"\x02CCA;EA1;RC0;6C\x03", 16);
        check(b"CCA;EA1;RC0;6C\r\n", 15);
    }

    #[test]
    fn a_check_that_does_not_agree_and_an_item_without_an_end_are_damage() {
        assert_eq!(decode(b"\x02CCA;EA1;RC0;00\x03"), text(&["CCA", "EA1", "RC0"], true, 16));
        assert_eq!(decode(b"CCA;EA1;RC0\r\n"), text(&["CCA", "EA1"], true, 12));
    }

    #[test]
    fn controls_and_noise_are_told_apart() {
        assert_eq!(decode(b""), Decoded::Need);
        assert_eq!(decode(b"\x06\x15"), Decoded::Ack);
        assert_eq!(decode(b"\x15"), Decoded::Nak);
        assert_eq!(decode(b"\r\n\x06"), Decoded::Noise { used: 2 });
        assert_eq!(decode(b"Connection refused\r\n"), Decoded::Noise { used: 1 });
        assert_eq!(decode(b"\x02x"), Decoded::Noise { used: 1 });
        assert_eq!(decode(b"\x02C"), Decoded::Need);
        assert_eq!(decode(b"CCA;EA1\x02CCA;"), Decoded::Noise { used: 7 });
    }

    #[test]
    fn a_text_without_end_is_given_up_at_the_bound() {
        let endless: Vec<u8> =
            b"CCA;".iter().copied().chain(std::iter::repeat_n(b'x', 2 * LONGEST)).collect();
        assert_eq!(decode(&endless[..LONGEST - 1]), Decoded::Need);
        assert_eq!(decode(&endless), Decoded::Noise { used: LONGEST });
        assert_eq!(decode_rest(&endless), None);
    }

    #[test]
    fn what_was_never_ended_is_whole_only_with_its_last_separator() {
        let rest = |bytes: &[u8]| decode_rest(bytes).map(|text| text.items);
        assert_eq!(rest(b"CCA;EA1;RC0;"), Some(items(&["CCA", "EA1", "RC0"])));
        assert_eq!(rest(b"\x02CCA;EA1;RC0;"), Some(items(&["CCA", "EA1", "RC0"])));
        for torn in [b"CCA;EA1;RC0" as &[u8], b"CCA;EA1;RC0;\r", b"CXA;", b"", b"C"] {
            assert_eq!(rest(torn), None, "{}", torn.escape_ascii());
        }
    }

    #[test]
    fn a_name_that_would_break_an_item_or_be_changed_is_not_carried() {
        assert!(carries("Villa 1/2-A"));
        for name in ["", " 101", "101 ", "1;2", "Süd", "1\r2", "東"] {
            assert!(!carries(name), "{name:?}");
        }
    }

    /// Feeds `bytes` in the pieces given and collects everything that is not noise.
    fn read(pieces: &[&[u8]]) -> Vec<Decoded> {
        let (mut buffer, mut out) = (Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let decoded = decode(&buffer);
                let used = match &decoded {
                    Decoded::Need => break,
                    Decoded::Ack | Decoded::Nak => 1,
                    Decoded::Noise { used } | Decoded::Text { used, .. } => *used,
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

    proptest! {
        #[test]
        fn what_was_spelled_is_read_back_wherever_it_is_cut(
            said in proptest::collection::vec("[ -:<-~]{1,40}", 0..12),
            is_block in any::<bool>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let said: Vec<String> = std::iter::once("CCA".to_owned()).chain(said).collect();
            let framing = if is_block { Framing::Block } else { Framing::Line };
            let bytes = encode(&said, framing);
            let (one, other) = bytes.split_at(cut.index(bytes.len()));
            let all = read(&[one, other]);
            let [Decoded::Text { text, .. }] = &all[..] else { panic!("{all:?}") };
            prop_assert_eq!(text, &Text { items: said, is_damaged: false });
        }

        #[test]
        fn any_bytes_are_read_without_panic_or_growth(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'C'), Just(STX), Just(b';')], 0..9000),
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(97).collect();
            read(&pieces);
            let _any_verdict = decode_rest(&bytes);
        }
    }
}
