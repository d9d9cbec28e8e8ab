//! Values of both channels to frames and back: lengths, checks, ciphers. Total over any input.
//!
//! ```text
//! secure    0 op  1..3 zero  4..11 data  12..15 check          | 16 0F or 00  17 key slot
//! command   0 EE request, AA received, BB result  1 op  2 zero  3 check  4..15 payload | 16 02  17 00
//! ```
//! Every value has 18 bytes. The first 16 are enciphered with AES-128, the last two are not.
//!
//! The check of the secure channel, little-endian, makes the four words of bytes 0 to 15 sum to zero; each block stands
//! for itself (ECB). The check of the command channel makes all 18 bytes sum to zero; there each direction is one chain
//! (CBC) from the first value of a connection to its last, begun with zeros and never begun again. A value that is lost
//! spoils the next one, and the one after that is good again.

use std::fmt;

use aes::{
    Aes128,
    cipher::{
        BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit,
    },
};
use uuid::Uuid;
use zeroize::Zeroize;

/// The lock's service.
pub const SERVICE: Uuid = Uuid::from_u128(0x0000_fe24_0000_1000_8000_0080_5f9b_34fb);
/// Commands are written here.
pub const COMMAND_WRITE: Uuid = Uuid::from_u128(0xbd4a_c611_0b45_11e3_8ffd_0800_200c_9a66);
/// Commands are answered here.
pub const COMMAND_NOTIFY: Uuid = Uuid::from_u128(0xbd4a_c612_0b45_11e3_8ffd_0800_200c_9a66);
/// The handshake is written here.
pub const SECURE_WRITE: Uuid = Uuid::from_u128(0xbd4a_c613_0b45_11e3_8ffd_0800_200c_9a66);
/// The handshake is answered here.
pub const SECURE_NOTIFY: Uuid = Uuid::from_u128(0xbd4a_c614_0b45_11e3_8ffd_0800_200c_9a66);

/// How long every value is.
pub const LENGTH: usize = 18;
/// How much of it is enciphered.
const BLOCK: usize = 16;
/// Ends a value of the command channel.
const COMMAND_TAIL: [u8; 2] = [0x02, 0x00];

/// Why a value is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// It was not deciphered at all.
    #[error("a value of {0} bytes, not of {LENGTH}")]
    Length(usize),
    /// Its check, or what never changes in a frame, is wrong: it is damaged, or enciphered with another key.
    #[error("a value that is no frame")]
    Check,
}

/// A secret of 16 bytes; it shows nothing and is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; BLOCK]);

impl Key {
    /// Takes it into custody.
    #[must_use]
    pub fn new(bytes: [u8; BLOCK]) -> Self {
        Self(bytes)
    }

    /// Reads 32 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 2 * BLOCK {
            return None;
        }
        let mut key = Self([0; BLOCK]);
        for (byte, pair) in key.0.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(key)
    }

    /// Its sixteen bytes, for the sealed record of a lock.
    #[must_use]
    pub fn expose(&self) -> &[u8; BLOCK] {
        &self.0
    }

    pub(super) fn halves(&self) -> ([u8; 8], [u8; 8]) {
        let (mut first, mut second) = ([0; 8], [0; 8]);
        first.copy_from_slice(&self.0[..8]);
        second.copy_from_slice(&self.0[8..]);
        (first, second)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private]")
    }
}

/// The lock's own key, and the number under which the lock keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineKey {
    /// The key.
    pub key: Key,
    /// Its number.
    pub slot: u8,
}

/// What a frame of the secure channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureOp {
    /// Our half of the session key.
    Exchange,
    /// The lock's half.
    Exchanged,
    /// The handshake's end, under the session key.
    Initialise,
    /// The lock's word to it.
    Initialised,
    /// The conversation is over.
    Part,
    /// The lock's word to it.
    Parted,
    /// Anything else.
    Other(u8),
}

impl SecureOp {
    /// Its byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Exchange => 0x01,
            Self::Exchanged => 0x02,
            Self::Initialise => 0x03,
            Self::Initialised => 0x04,
            Self::Part => 0x05,
            Self::Parted => 0x8b,
            Self::Other(byte) => byte,
        }
    }

    fn of(byte: u8) -> Self {
        match byte {
            0x01 => Self::Exchange,
            0x02 => Self::Exchanged,
            0x03 => Self::Initialise,
            0x04 => Self::Initialised,
            0x05 => Self::Part,
            0x8b => Self::Parted,
            other => Self::Other(other),
        }
    }
}

/// A frame of the secure channel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secure {
    /// What for.
    pub op: SecureOp,
    /// Half of a key, or zeros.
    pub data: [u8; 8],
    /// 0F and the key's slot from us; zeros from the lock.
    pub tail: [u8; 2],
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").field("op", &self.op).finish_non_exhaustive()
    }
}

impl Secure {
    /// A frame of ours.
    #[must_use]
    pub fn ours(op: SecureOp, data: [u8; 8], key_slot: u8) -> Self {
        Self { op, data, tail: [0x0f, key_slot] }
    }

    /// It in clear.
    #[must_use]
    pub fn spell(&self) -> [u8; LENGTH] {
        let mut frame = [0; LENGTH];
        frame[0] = self.op.byte();
        frame[4..12].copy_from_slice(&self.data);
        let check = words(&frame[..12]).wrapping_neg();
        frame[12..BLOCK].copy_from_slice(&check.to_le_bytes());
        frame[BLOCK..].copy_from_slice(&self.tail);
        frame
    }

    /// Reads what is in clear.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(clear: &[u8]) -> Result<Self, Bad> {
        let frame: &[u8; LENGTH] = clear.try_into().map_err(|_| Bad::Length(clear.len()))?;
        if words(&frame[..BLOCK]) != 0 {
            return Err(Bad::Check);
        }
        let mut data = [0; 8];
        data.copy_from_slice(&frame[4..12]);
        Ok(Self { op: SecureOp::of(frame[0]), data, tail: [frame[16], frame[17]] })
    }
}

/// The sum of the little-endian words.
fn words(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    words.fold(0, u32::wrapping_add)
}

/// The cipher of the secure channel, under the lock's own key first and under the session key after that.
pub struct SecureChannel(Aes128);

impl fmt::Debug for SecureChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecureChannel")
    }
}

impl SecureChannel {
    /// Under this key.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        Self(Aes128::new(&key.0.into()))
    }

    /// What goes over the air.
    #[must_use]
    pub fn seal(&self, frame: &Secure) -> [u8; LENGTH] {
        with_block(frame.spell(), |block| self.0.encrypt_block(block.into()))
    }

    /// Deciphers and reads what came.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(&self, value: &[u8]) -> Result<Secure, Bad> {
        let value = value.try_into().map_err(|_| Bad::Length(value.len()))?;
        Secure::read(&with_block(value, |block| self.0.decrypt_block(block.into())))
    }
}

/// The session key: our half, then the lock's.
#[must_use]
pub fn session_key(ours: [u8; 8], locks: [u8; 8]) -> Key {
    let mut key = Key([0; BLOCK]);
    key.0[..8].copy_from_slice(&ours);
    key.0[8..].copy_from_slice(&locks);
    key
}

/// What a frame of the command channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// From us.
    Request,
    /// The lock has it; this proves nothing.
    Received,
    /// The lock is done with it.
    Result,
}

/// A frame of the command channel. It may hold a PIN, so it shows nothing of its payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub part: Part,
    /// Of which command.
    pub op: u8,
    /// Bytes 4 to 15.
    pub payload: [u8; 12],
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("part", &self.part).field("op", &self.op).finish_non_exhaustive()
    }
}

impl Frame {
    /// It in clear.
    #[must_use]
    pub fn spell(&self) -> [u8; LENGTH] {
        let mut frame = [0; LENGTH];
        frame[0] = match self.part {
            Part::Request => 0xee,
            Part::Received => 0xaa,
            Part::Result => 0xbb,
        };
        frame[1] = self.op;
        frame[4..BLOCK].copy_from_slice(&self.payload);
        frame[BLOCK..].copy_from_slice(&COMMAND_TAIL);
        frame[3] = sum(&frame).wrapping_neg();
        frame
    }

    /// Reads what is in clear.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(clear: &[u8]) -> Result<Self, Bad> {
        let frame: &[u8; LENGTH] = clear.try_into().map_err(|_| Bad::Length(clear.len()))?;
        let part = match frame[0] {
            0xee => Part::Request,
            0xaa => Part::Received,
            0xbb => Part::Result,
            _ => return Err(Bad::Check),
        };
        if sum(frame) != 0 || frame[2] != 0 || frame[BLOCK..] != COMMAND_TAIL {
            return Err(Bad::Check);
        }
        let mut payload = [0; 12];
        payload.copy_from_slice(&frame[4..BLOCK]);
        Ok(Self { part, op: frame[1], payload })
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().copied().fold(0, u8::wrapping_add)
}

/// The two chains of the command channel, for one connection.
pub struct Chains {
    out: cbc::Encryptor<Aes128>,
    back: cbc::Decryptor<Aes128>,
}

impl fmt::Debug for Chains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chains")
    }
}

impl Chains {
    /// Begins both.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        let (key, zeros) = ((&key.0).into(), (&[0; BLOCK]).into());
        Self { out: cbc::Encryptor::new(key, zeros), back: cbc::Decryptor::new(key, zeros) }
    }

    /// What goes over the air next.
    #[must_use]
    pub fn seal(&mut self, frame: &Frame) -> [u8; LENGTH] {
        with_block(frame.spell(), |block| self.out.encrypt_block(block.into()))
    }

    /// Deciphers and reads what came next. A value of a wrong length does not reach the chain.
    ///
    /// # Errors
    /// When it is no frame.
    pub fn open(&mut self, value: &[u8]) -> Result<Frame, Bad> {
        let value = value.try_into().map_err(|_| Bad::Length(value.len()))?;
        Frame::read(&with_block(value, |block| self.back.decrypt_block(block.into())))
    }
}

/// Ciphers the first 16 bytes.
fn with_block(mut value: [u8; LENGTH], cipher: impl FnOnce(&mut [u8; BLOCK])) -> [u8; LENGTH] {
    if let Some(block) = value.first_chunk_mut() {
        cipher(block);
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        Key::from_hex("01020304050607081112131415161718").unwrap()
    }

    fn result(op: u8) -> Frame {
        Frame { part: Part::Result, op, payload: [op; 12] }
    }

    /// The far end of the chains: what it seals, ours open.
    fn far_end() -> cbc::Encryptor<Aes128> {
        cbc::Encryptor::new((&key().0).into(), (&[0; BLOCK]).into())
    }

    fn far(chain: &mut cbc::Encryptor<Aes128>, frame: &Frame) -> [u8; LENGTH] {
        with_block(frame.spell(), |block| chain.encrypt_block(block.into()))
    }

    #[test]
    fn a_key_is_32_hexadecimal_digits_and_shows_nothing() {
        assert_eq!(Key::from_hex("438B544da1ffd82510a973d5ff9853bb").unwrap().0[..2], [0x43, 0x8b]);
        for bad in [
            "",
            "438b544da1ffd82510a973d5ff9853b",
            "438b544da1ffd82510a973d5ff9853bg",
            "é38b544da1ffd82510a973d5ff9853b",
        ] {
            assert!(Key::from_hex(bad).is_none(), "{bad}");
        }
        let shown = format!("{:?} {:?}", key(), OfflineKey { key: key(), slot: 3 });
        assert_eq!(shown, "[private] OfflineKey { key: [private], slot: 3 }");
        assert_eq!(format!("{:?}", result(0x39)), "Frame { part: Result, op: 57, .. }");
    }

    #[test]
    fn a_value_of_a_wrong_length_does_not_reach_the_chain() {
        let (mut lock, mut ours) = (far_end(), Chains::new(&key()));
        let first = far(&mut lock, &result(1));
        for length in (0..64).filter(|length| *length != LENGTH) {
            let value: Vec<u8> = first.iter().copied().cycle().take(length).collect();
            assert_eq!(ours.open(&value), Err(Bad::Length(length)));
        }
        assert_eq!(ours.open(&first), Ok(result(1)));
    }

    #[test]
    fn a_lost_value_spoils_the_next_one_only() {
        let (mut lock, mut ours) = (far_end(), Chains::new(&key()));
        let values: Vec<_> = (1..=4).map(|op| far(&mut lock, &result(op))).collect();
        assert_eq!(ours.open(&values[0]), Ok(result(1)));
        assert_eq!(ours.open(&values[2]), Err(Bad::Check));
        assert_eq!(ours.open(&values[3]), Ok(result(4)));
    }

    #[test]
    fn a_repeated_value_is_no_frame_and_spoils_nothing() {
        let (mut lock, mut ours) = (far_end(), Chains::new(&key()));
        let values: Vec<_> = (1..=2).map(|op| far(&mut lock, &result(op))).collect();
        assert_eq!(ours.open(&values[0]), Ok(result(1)));
        assert_eq!(ours.open(&values[0]), Err(Bad::Check));
        assert_eq!(ours.open(&values[1]), Ok(result(2)));
    }

    #[test]
    fn every_flipped_bit_of_a_clear_command_frame_is_seen() {
        let clear = Frame { part: Part::Request, op: 0x2c, payload: *b"abcdefghijkl" }.spell();
        for bit in 0..LENGTH * 8 {
            let mut damaged = clear;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::read(&damaged), Err(Bad::Check), "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_secure_block_is_seen() {
        let frame = Secure::ours(SecureOp::Exchange, *b"12345678", 3);
        let channel = SecureChannel::new(&key());
        let sealed = channel.seal(&frame);
        assert_eq!(channel.open(&sealed), Ok(frame));
        for bit in 0..BLOCK * 8 {
            let mut damaged = sealed;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(channel.open(&damaged), Err(Bad::Check), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let (mut chains, channel) = (Chains::new(&key()), SecureChannel::new(&key()));
            for value in values {
                prop_assert_eq!(matches!(chains.open(&value), Err(Bad::Length(_))), value.len() != LENGTH);
                prop_assert_eq!(matches!(channel.open(&value), Err(Bad::Length(_))), value.len() != LENGTH);
            }
        }

        #[test]
        fn a_spelled_frame_is_read_as_what_it_was(op in any::<u8>(), payload in any::<[u8; 12]>(), data in any::<[u8; 8]>()) {
            for part in [Part::Request, Part::Received, Part::Result] {
                let frame = Frame { part, op, payload };
                prop_assert_eq!(Frame::read(&frame.spell()), Ok(frame));
            }
            let secure = Secure::ours(SecureOp::of(op), data, op);
            prop_assert_eq!(secure.op.byte(), op);
            prop_assert_eq!(Secure::read(&secure.spell()), Ok(secure));
        }
    }
}
