//! The simulator's own reading and writing of frames, from the published layout and not from the driver.
//!
//! What stands in no source and is a choice of ours: STX inside a frame begins a new one, ENQ inside a frame ends it
//! unread, and a frame longer than [`LONGEST`] is dropped without an answer.

pub(super) const STX: u8 = 0x02;
pub(super) const ETX: u8 = 0x03;
pub(super) const ENQ: u8 = 0x05;
pub(super) const ACK: u8 = 0x06;
pub(super) const NAK: u8 = 0x15;
const SEPARATOR: u8 = 0xb3;
/// In the place of the check byte: do not check.
const UNCHECKED: u8 = 0x0d;
/// Bytes between STX and ETX. The fullest encode command has under 400.
const LONGEST: usize = 1024;

/// What the bytes of a client turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Enq,
    Ack,
    Nak,
    /// A whole frame with a good or waived check byte.
    Frame(Frame),
    /// A whole frame whose check byte is wrong.
    BadCheck(Vec<u8>),
    /// Bytes that belong to nothing.
    Noise(Vec<u8>),
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// As received, STX to check byte.
    pub raw: Vec<u8>,
    /// Empty when the frame does not begin with a separator.
    pub fields: Vec<String>,
}

/// Collects bytes into items, one byte at a time.
#[derive(Debug, Default)]
pub(super) struct Reader {
    raw: Vec<u8>,
    trailing: bool,
}

impl Reader {
    pub(super) fn push(&mut self, byte: u8) -> Option<Item> {
        if self.trailing {
            return Some(self.close(byte));
        }
        match (self.raw.is_empty(), byte) {
            (true, STX) => self.raw.push(STX),
            (true, ENQ) => return Some(Item::Enq),
            (true, ACK) => return Some(Item::Ack),
            (true, NAK) => return Some(Item::Nak),
            (true, noise) => return Some(Item::Noise(vec![noise])),
            (false, STX) => return Some(Item::Noise(std::mem::replace(&mut self.raw, vec![STX]))),
            (false, ENQ) => {
                self.raw.clear();
                return Some(Item::Enq);
            }
            (false, ETX) => {
                self.raw.push(ETX);
                self.trailing = true;
            }
            (false, _) if self.raw.len() > LONGEST => {
                return Some(Item::Noise(std::mem::take(&mut self.raw)));
            }
            (false, byte) => self.raw.push(byte),
        }
        None
    }

    fn close(&mut self, check: u8) -> Item {
        self.trailing = false;
        let mut raw = std::mem::take(&mut self.raw);
        let expected = raw[1..].iter().fold(0, |sum, byte| sum ^ byte);
        let body = &raw[1..raw.len() - 1];
        let fields = fields(body);
        raw.push(check);
        if check == expected || check == UNCHECKED {
            Item::Frame(Frame { raw, fields })
        } else {
            Item::BadCheck(raw)
        }
    }
}

fn fields(body: &[u8]) -> Vec<String> {
    let Some(inner) = body.strip_prefix(&[SEPARATOR]) else {
        return Vec::new();
    };
    let inner = inner.strip_suffix(&[SEPARATOR]).unwrap_or(inner);
    inner
        .split(|byte| *byte == SEPARATOR)
        .map(|field| field.iter().map(|byte| char::from(*byte)).collect())
        .collect()
}

/// How answers are written; real servers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether a separator stands before ETX.
    pub closing_separator: bool,
    /// Whether the check byte is true; otherwise `0D`.
    pub true_check: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { closing_separator: true, true_check: true }
    }
}

pub(super) fn frame(fields: &[String], style: Style) -> Vec<u8> {
    let mut bytes = vec![STX];
    for field in fields {
        bytes.push(SEPARATOR);
        bytes.extend(field.chars().map(|c| match u8::try_from(c) {
            Ok(byte) if byte >= b' ' && byte != SEPARATOR => byte,
            _ => b'?',
        }));
    }
    if style.closing_separator {
        bytes.push(SEPARATOR);
    }
    bytes.push(ETX);
    let check = bytes[1..].iter().fold(0, |sum, byte| sum ^ byte);
    bytes.push(if style.true_check { check } else { UNCHECKED });
    bytes
}

/// Makes the check byte of a frame wrong, and not by chance the one that waives checking.
pub(super) fn spoil(frame: &mut [u8]) {
    if let Some(check) = frame.last_mut() {
        *check = match *check ^ 0x55 {
            UNCHECKED => *check ^ 0x2a,
            wrong => wrong,
        };
    }
}

/// What a frame is, for the tape: its command or code without the number of cards.
pub(super) fn mnemonic(fields: &[String]) -> &str {
    match fields.first().map(String::as_str) {
        None | Some("") => "bad_frame",
        Some(first) if first.starts_with("CN") || first.starts_with("CC") => {
            first.trim_end_matches(|c: char| c.is_ascii_digit())
        }
        Some(first) => first,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Vec<Item> {
        let mut reader = Reader::default();
        bytes.iter().filter_map(|byte| reader.push(*byte)).collect()
    }

    fn check(bytes: &[u8], fields: &[&str]) {
        let fields = fields.iter().map(ToString::to_string).collect();
        let raw = bytes.to_vec();
        assert_eq!(read(bytes), [Item::Frame(Frame { raw, fields })]);
    }

    #[test]
    fn the_worked_check_out_is_read_with_and_without_its_check_byte() {
        let mut bytes = b"\x02\xb3CO\xb30\xb3W10011\xb3\x03\x59".to_vec();
        check(&bytes, &["CO", "0", "W10011"]);
        *bytes.last_mut().unwrap() = 0x0d;
        check(&bytes, &["CO", "0", "W10011"]);
        *bytes.last_mut().unwrap() = 0x58;
        assert_eq!(read(&bytes), [Item::BadCheck(bytes)]);
    }

    #[test]
    fn a_closing_separator_is_optional_and_empty_fields_are_kept() {
        check(b"\x02\xb3CO\xb30\xb3101\x03\x0d", &["CO", "0", "101"]);
        check(b"\x02\xb3CO\xb3\xb3\xb3\x03\x0d", &["CO", "", ""]);
        check(b"\x02CO\x03\x0d", &[]);
    }

    #[test]
    fn a_check_byte_that_looks_like_a_control_byte_is_a_check_byte() {
        let check_out = |room: &str| frame(&["CO".into(), "0".into(), room.into()], Style::default());
        for wanted in [STX, ETX, ENQ, ACK, NAK, UNCHECKED] {
            // A checksum with the top bit clear needs a room with one character beyond ASCII.
            let mut rooms = ('\u{20}'..='\u{ff}').map(|c| format!("Room {c}"));
            let room = rooms.find(|room| check_out(room).last() == Some(&wanted)).unwrap();
            check(&check_out(&room), &["CO", "0", &room]);
        }
    }

    #[test]
    fn a_lost_end_costs_one_frame_and_not_the_next() {
        let items = read(b"\x02\xb3CO\xb30\x02\xb3CO\xb30\xb3101\xb3\x03\x0d");
        assert!(matches!(&items[..], [Item::Noise(_), Item::Frame(_)]), "{items:?}");
        assert_eq!(read(b"\x02\xb3CO\x05"), [Item::Enq]);
        let mut endless = vec![STX];
        endless.extend([b'x'; LONGEST + 1]);
        assert!(matches!(&read(&endless)[..], [Item::Noise(_)]));
    }

    #[test]
    fn a_spoiled_frame_is_never_waived() {
        for check in 0..=255 {
            let mut bytes = [STX, ETX, check];
            spoil(&mut bytes);
            assert!(bytes[2] != check && bytes[2] != UNCHECKED);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_or_growth(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut reader = Reader::default();
            for byte in bytes {
                reader.push(byte);
                prop_assert!(reader.raw.len() <= LONGEST + 2);
            }
        }
    }
}
