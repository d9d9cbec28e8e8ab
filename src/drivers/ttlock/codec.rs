//! Bytes to frames and back, version 3 of the protocol (header 5.3). Total over any input.
//!
//! ```text
//! frame = 7F 5A protocol sub scene group(2) organisation(2) command AA length ciphertext crc 0D 0A
//! ```
//! `length` is that of the ciphertext alone, which may hold `0D 0A`: only the length ends a frame. The ciphertext is
//! AES-128 in CBC mode with PKCS #7 padding, and **the key is the first block's vector too**; nothing is sent for nothing.
//!
//! The check is CRC-8/MAXIM but for one entry of its table, which the firmware has wrong: `table[33]` is 07 where it
//! should be 7D. A capture of a real pairing, two published frames that another program called damaged, and a test of a
//! third program agree with it. Frames are sent as the firmware checks them, and taken with either check.

use std::fmt;

use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use zeroize::Zeroize;

/// Begins a frame.
const START: [u8; 2] = [0x7F, 0x5A];
/// Ends a frame.
const END: [u8; 2] = [0x0D, 0x0A];
/// Stands before the length in frames of either direction.
const MARK: u8 = 0xAA;
/// What stands before the ciphertext.
const BEFORE: usize = 12;
/// What stands behind it.
const BEHIND: usize = 3;
/// The longest clear text of a frame, in bytes: with its padding it fills fifteen blocks.
pub const LONGEST: usize = 239;

/// Which protocol a frame belongs to; a lock's own is taken over from its first answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 5 for the locks that this driver knows.
    pub protocol: u8,
    /// 3 likewise.
    pub sub: u8,
    /// Which kind of lock.
    pub scene: u8,
    /// The vendor's group.
    pub group: u16,
    /// The vendor's organisation.
    pub organisation: u16,
}

impl Header {
    /// With which an unknown lock is spoken to first.
    pub const UNKNOWN: Self = Self { protocol: 5, sub: 3, scene: 1, group: 1, organisation: 1 };
}

/// The key of one lock.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 16]);

impl Key {
    /// With which a lock speaks that belongs to nobody yet; published.
    pub const FACTORY: Self = Self([
        0x98, 0x76, 0x23, 0xE8, 0xA9, 0x23, 0xA1, 0xBB, 0x3D, 0x9E, 0x7D, 0x03, 0x78, 0x12, 0x45, 0x88,
    ]);

    /// Takes a key into custody.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its sixteen bytes, for the sealed record of a lock.
    #[must_use]
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    /// Encrypts a clear text.
    fn encrypt(&self, clear: &[u8]) -> Vec<u8> {
        if clear.is_empty() {
            return Vec::new();
        }
        let mut blocks = vec![0; clear.len() / 16 * 16 + 16];
        blocks[..clear.len()].copy_from_slice(clear);
        cbc::Encryptor::<aes::Aes128>::new(&self.0.into(), &self.0.into())
            .encrypt_padded::<Pkcs7>(&mut blocks, clear.len())
            .expect("there is room for the padding");
        blocks
    }

    /// Decrypts; none where that was not encrypted with this key, as far as its padding shows.
    fn decrypt(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.is_empty() {
            return Some(Vec::new());
        }
        let mut blocks = bytes.to_vec();
        cbc::Decryptor::<aes::Aes128>::new(&self.0.into(), &self.0.into())
            .decrypt_padded::<Pkcs7>(&mut blocks)
            .ok()
            .map(<[u8]>::to_vec)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

/// By which table a frame's check was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The firmware's.
    Firmware,
    /// That of CRC-8/MAXIM.
    Textbook,
}

/// A whole frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its command; `54` in most answers.
    pub command: u8,
    /// How its check was right.
    pub check: Check,
    ciphertext: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .field("command", &format_args!("{:02x}", self.command))
            .field("bytes", &self.ciphertext.len())
            .finish_non_exhaustive()
    }
}

impl Frame {
    /// What it says; none where it was not encrypted with this key.
    #[must_use]
    pub fn open(&self, key: &Key) -> Option<Vec<u8>> {
        key.decrypt(&self.ciphertext)
    }
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
    /// A frame as long as it says, whose check agrees with neither table or that does not end where it should.
    Damaged {
        /// How many bytes it took.
        used: usize,
    },
    /// A whole frame.
    Frame {
        /// The frame.
        frame: Frame,
        /// How many bytes it took.
        used: usize,
    },
}

/// Decodes the front of `buffer`. A frame takes at most 270 bytes.
#[must_use]
pub fn decode(buffer: &[u8]) -> Decoded {
    let starts = |at: usize| START.iter().zip(&buffer[at..]).all(|(expected, byte)| expected == byte);
    match (0..buffer.len()).find(|at| starts(*at)) {
        Some(0) => {}
        Some(used) => return Decoded::Noise { used },
        None if buffer.is_empty() => return Decoded::Need,
        None => return Decoded::Noise { used: buffer.len() },
    }
    let Some(&length) = buffer.get(BEFORE - 1) else {
        return Decoded::Need;
    };
    if buffer[BEFORE - 2] != MARK {
        return Decoded::Noise { used: START.len() };
    }
    let behind = BEFORE + usize::from(length);
    let used = behind + BEHIND;
    let Some(frame) = buffer.get(..used) else {
        return Decoded::Need;
    };
    let (checked, rest) = frame.split_at(behind);
    let check = match rest[0] {
        crc if crc == crc8(checked, Check::Firmware) => Some(Check::Firmware),
        crc if crc == crc8(checked, Check::Textbook) => Some(Check::Textbook),
        _ => None,
    };
    match check {
        Some(check) if rest[1..] == END => {
            let header = Header {
                protocol: frame[2],
                sub: frame[3],
                scene: frame[4],
                group: u16::from_be_bytes([frame[5], frame[6]]),
                organisation: u16::from_be_bytes([frame[7], frame[8]]),
            };
            let ciphertext = checked[BEFORE..].to_vec();
            Decoded::Frame { frame: Frame { header, command: frame[9], check, ciphertext }, used }
        }
        _ => Decoded::Damaged { used },
    }
}

/// Encodes one frame.
///
/// # Panics
/// When `clear` is longer than [`LONGEST`]: no request of this driver is.
#[must_use]
pub fn encode(header: Header, command: u8, clear: &[u8], key: &Key) -> Vec<u8> {
    let ciphertext = key.encrypt(clear);
    let length = u8::try_from(ciphertext.len()).expect("a request fits a frame");
    let mut frame = Vec::with_capacity(BEFORE + ciphertext.len() + BEHIND);
    frame.extend(START);
    frame.extend([header.protocol, header.sub, header.scene]);
    frame.extend(header.group.to_be_bytes());
    frame.extend(header.organisation.to_be_bytes());
    frame.extend([command, MARK, length]);
    frame.extend(ciphertext);
    frame.push(crc8(&frame, Check::Firmware));
    frame.extend(END);
    frame
}

/// The check of some bytes.
#[must_use]
pub fn crc8(bytes: &[u8], by: Check) -> u8 {
    bytes.iter().fold(0, |crc, byte| entry(crc ^ byte, by))
}

/// One entry of the table; computed, since frames are few and short.
fn entry(index: u8, by: Check) -> u8 {
    if index == 33 && by == Check::Firmware {
        return 0x07;
    }
    (0..8).fold(index, |crc, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x8C })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::FACTORY;

    #[test]
    fn the_textbook_check_is_that_of_the_catalogue_and_the_firmware_differs_in_one_entry() {
        assert_eq!(crc8(b"123456789", Check::Textbook), 0xA1);
        let differing: Vec<u8> = (0..=255)
            .filter(|index| entry(*index, Check::Firmware) != entry(*index, Check::Textbook))
            .collect();
        assert_eq!((differing, entry(33, Check::Textbook)), (vec![33], 0x7D));
    }

    #[test]
    fn a_frame_comes_back_whatever_way_it_is_split_and_with_noise_around_it() {
        for clear in [&b""[..], b"\x0d\x0a", &[0x5A; LONGEST]] {
            let bytes = encode(Header::UNKNOWN, 0x54, clear, &KEY);
            for cut in 1..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), Decoded::Need, "cut at {cut}");
            }
            let noisy = [&b"\x7f\x00\x0d\x0a"[..], &bytes, b"\x7f"].concat();
            assert_eq!(decode(&noisy), Decoded::Noise { used: 4 });
            let Decoded::Frame { frame, used } = decode(&noisy[4..]) else { panic!("a frame") };
            assert_eq!((used, frame.open(&KEY).unwrap().as_slice()), (bytes.len(), clear));
            assert_eq!((frame.header, frame.command, frame.check), (Header::UNKNOWN, 0x54, Check::Firmware));
        }
    }

    #[test]
    fn a_frame_with_one_wrong_bit_is_damaged_or_none() {
        let bytes = encode(Header::UNKNOWN, 0x54, b"\x03\x01\x57\x02", &KEY);
        for at in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[at / 8] ^= 1 << (at % 8);
            match decode(&wrong) {
                Decoded::Frame { .. } => panic!("bit {at}"),
                Decoded::Need | Decoded::Noise { .. } | Decoded::Damaged { .. } => {}
            }
        }
    }

    #[test]
    fn another_key_opens_nothing_or_something_else() {
        let bytes = encode(Header::UNKNOWN, 0x54, b"\x03\x01", &KEY);
        let Decoded::Frame { frame, .. } = decode(&bytes) else { panic!("a frame") };
        assert_ne!(frame.open(&Key::new([7; 16])), Some(b"\x03\x01".to_vec()));
        assert_eq!(format!("{KEY:?}"), "[key]");
    }
}
