//! Frames of the PN532 on a serial line (HSU): `00 00 FF LEN LCS TFI data DCS 00`, with the lengths and the sum checked.
//!
//! Sources: NXP UM0701, and the frames that libnfc writes; the published vectors `pn532-hsu-*` are made here byte for byte.

use std::collections::VecDeque;

/// The most that a frame holds behind its lengths: direction, code, and 263 bytes of data.
pub const LONGEST: usize = 265;
/// A chip that sleeps is woken by these, glued to the first command.
pub const WAKE: [u8; 16] = [0x55, 0x55, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A command was heard. Sent by the host, it ends what the chip is doing.
pub const ACK: [u8; 6] = [0, 0, 0xFF, 0, 0xFF, 0];

const TO_CHIP: u8 = 0xD4;
const FROM_CHIP: u8 = 0xD5;
const START: [u8; 2] = [0, 0xFF];

/// What the chip says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The command was heard.
    Ack,
    /// It was not understood; it is to be said again.
    Nack,
    /// It is none.
    SyntaxError,
    /// An answer: its code, which is the command's and one, and what follows it.
    Answer(u8, Vec<u8>),
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Say this back, as a test of the line.
    Diagnose(Vec<u8>),
    /// Say what you are.
    GetFirmwareVersion,
    /// Behave so; `0x14` selects cards of ISO 14443-4 by itself.
    SetParameters(u8),
    /// Work without a security module.
    SamConfiguration,
    /// The radio field on or off.
    Field(bool),
    /// How often a card is called before the answer is that there is none. From the start it is called without end.
    Retries(u8),
    /// Sleep until the line wakes you.
    PowerDown,
    /// Which cards of ISO 14443 A are there, at most so many.
    ListTargets(u8),
    /// Say this to a card that was listed.
    Exchange(u8, Vec<u8>),
    /// Say this to the card, as it is.
    Through(Vec<u8>),
    /// Let go of every card.
    Release,
}

impl Command {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Diagnose(_) => 0x00,
            Self::GetFirmwareVersion => 0x02,
            Self::SetParameters(_) => 0x12,
            Self::SamConfiguration => 0x14,
            Self::PowerDown => 0x16,
            Self::Field(_) | Self::Retries(_) => 0x32,
            Self::Exchange(..) => 0x40,
            Self::Through(_) => 0x42,
            Self::ListTargets(_) => 0x4A,
            Self::Release => 0x52,
        }
    }

    /// Its frame; none where it holds more than [`LONGEST`].
    #[must_use]
    pub fn frame(&self) -> Option<Vec<u8>> {
        let mut body = vec![TO_CHIP, self.code()];
        match self {
            Self::Diagnose(text) => {
                body.push(0);
                body.extend(text);
            }
            Self::GetFirmwareVersion => {}
            Self::SetParameters(flags) => body.push(*flags),
            Self::SamConfiguration => body.push(1),
            // By UART, SPI and I2C.
            Self::PowerDown => body.push(0xF0),
            Self::Field(on) => body.extend([1, u8::from(*on)]),
            Self::Retries(passive) => body.extend([5, 0, 1, *passive]),
            Self::ListTargets(most) => body.extend([*most, 0]),
            Self::Exchange(target, data) => {
                body.push(*target);
                body.extend(data);
            }
            Self::Through(data) => body.extend(data),
            Self::Release => body.push(0),
        }
        framed(&body)
    }
}

fn framed(body: &[u8]) -> Option<Vec<u8>> {
    if LONGEST < body.len() {
        return None;
    }
    let mut frame = vec![0, START[0], START[1]];
    match u8::try_from(body.len()) {
        Ok(length) => frame.extend([length, length.wrapping_neg()]),
        Err(_) => {
            let [high, low] = u16::try_from(body.len()).ok()?.to_be_bytes();
            frame.extend([0xFF, 0xFF, high, low, high.wrapping_add(low).wrapping_neg()]);
        }
    }
    frame.extend(body);
    frame.extend([sum(body).wrapping_neg(), 0]);
    Some(frame)
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// Finds frames in what arrives. Noise between them is passed over, and so is a frame whose sums are wrong: it was never
/// said. What is kept never grows beyond one frame.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    held: VecDeque<u8>,
}

enum Look {
    /// Not all of it is there.
    More,
    /// So many bytes are none.
    Skip(usize),
    /// A frame of so many bytes.
    Frame(usize, Frame),
}

impl Decoder {
    /// What arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend(bytes);
    }

    /// The next frame, if one is whole.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            match look(self.held.make_contiguous()) {
                Look::More => return None,
                Look::Skip(count) => drop(self.held.drain(..count)),
                Look::Frame(count, frame) => {
                    self.held.drain(..count);
                    return Some(frame);
                }
            }
        }
    }

    /// Forgets what is not whole.
    pub fn clear(&mut self) {
        self.held.clear();
    }
}

fn look(bytes: &[u8]) -> Look {
    let Some(start) = bytes.windows(START.len()).position(|window| window == START) else {
        // The last byte may begin a start.
        return match bytes.len() {
            0 | 1 => Look::More,
            count => Look::Skip(count - 1),
        };
    };
    if 0 < start {
        return Look::Skip(start);
    }
    let after = &bytes[START.len()..];
    let (length, at) = match *after {
        [] | [_] | [0xFF, 0xFF] | [0xFF, 0xFF, _] | [0xFF, 0xFF, _, _] => return Look::More,
        [0, 0xFF, ..] => return Look::Frame(4, Frame::Ack),
        [0xFF, 0, ..] => return Look::Frame(4, Frame::Nack),
        [0xFF, 0xFF, high, low, check, ..] => {
            if sum(&[high, low, check]) != 0 {
                return Look::Skip(1);
            }
            (usize::from(u16::from_be_bytes([high, low])), START.len() + 5)
        }
        [length, check, ..] => {
            if sum(&[length, check]) != 0 {
                return Look::Skip(1);
            }
            (usize::from(length), START.len() + 2)
        }
    };
    if length == 0 || LONGEST < length {
        return Look::Skip(1);
    }
    let Some(body) = bytes.get(at..=at + length) else { return Look::More };
    if sum(body) != 0 {
        return Look::Skip(1);
    }
    match body[..length] {
        [0x7F] => Look::Frame(at + 2, Frame::SyntaxError),
        [FROM_CHIP, code, ref data @ ..] => Look::Frame(at + length + 1, Frame::Answer(code, data.to_vec())),
        // Our own words, come back.
        _ => Look::Skip(1),
    }
}

/// What a chip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firmware {
    /// The chip: `0x32` is a PN532.
    pub chip: u8,
    /// Its version and revision.
    pub version: (u8, u8),
    /// What it can do, by bits: ISO 14443 A, B, ISO 18092.
    pub supports: u8,
}

impl Firmware {
    /// Reads the answer to [`Command::GetFirmwareVersion`].
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        match *data {
            [chip, version, revision, supports] => {
                Some(Self { chip, version: (version, revision), supports })
            }
            _ => None,
        }
    }
}

/// A card in the field, as it was selected.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// What it answered to the call (ATQA).
    pub sens_res: u16,
    /// What it said it can do (SAK).
    pub sel_res: u8,
    /// The number of its chip, of 4, 7 or 10 bytes.
    pub uid: Vec<u8>,
}

// A card's number opens doors: it is shown nowhere.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}, {} bytes)", self.kind(), self.uid.len())
    }
}

impl Target {
    /// Reads the answer to [`Command::ListTargets`]. None where it is no such answer.
    #[must_use]
    pub fn read_list(data: &[u8]) -> Option<Vec<Self>> {
        let (count, mut rest) = data.split_first()?;
        let mut targets = Vec::new();
        for _ in 0..*count {
            let [_, high, low, sel_res, length, after @ ..] = rest else { return None };
            let uid = after.get(..usize::from(*length))?;
            if !matches!(length, 4 | 7 | 10) {
                return None;
            }
            rest = &after[uid.len()..];
            if sel_res & 0x20 != 0 && !rest.is_empty() {
                // What a card of ISO 14443-4 says of itself; its length counts itself.
                rest = rest.get(usize::from(rest[0]).max(1)..)?;
            }
            let sens_res = u16::from_be_bytes([*high, *low]);
            targets.push(Self { sens_res, sel_res: *sel_res, uid: uid.to_vec() });
        }
        Some(targets)
    }

    /// Whether the number is another one each time: a telephone, or a card that hides its own (ISO 14443-3: four bytes, the
    /// first one `08`).
    #[must_use]
    pub fn is_random(&self) -> bool {
        self.uid.len() == 4 && self.uid[0] == 0x08
    }

    /// What it looks like, for a person: by ATQA and SAK alone, which some cards share.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (self.sens_res, self.sel_res) {
            (_, 0x08) => "MIFARE Classic 1K",
            (_, 0x18) => "MIFARE Classic 4K",
            (0x0044, 0x00) => "MIFARE Ultralight or NTAG",
            (0x0344, 0x20) => "MIFARE DESFire",
            (_, sel_res) if sel_res & 0x20 != 0 => "ISO 14443-4",
            _ => "ISO 14443 A",
        }
    }

    /// Its number in hexadecimal capitals.
    #[must_use]
    pub fn number(&self) -> String {
        self.uid.iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

/// What became of words to a card: the data, or the status with which the chip says why not.
///
/// # Errors
/// The chip's status, without its flags; `0xFF` where it said none.
pub fn exchanged(data: &[u8]) -> Result<&[u8], u8> {
    match data {
        [status, data @ ..] if status & 0x3F == 0 => Ok(data),
        [status, ..] => Err(status & 0x3F),
        [] => Err(0xFF),
    }
}
