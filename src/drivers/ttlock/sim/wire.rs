//! The lock's side of the wire.

use aes::{
    Aes128,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};

/// A frame that arrived whole.
pub(super) struct Heard {
    pub(super) command: u8,
    pub(super) sealed: Vec<u8>,
    pub(super) is_whole: bool,
}

/// Takes the next frame out of what was written; pieces arrive in their order.
pub(super) fn take(buffer: &mut Vec<u8>) -> Option<Heard> {
    let start = buffer.windows(2).position(|two| two == b"\x7f\x5a")?;
    buffer.drain(..start);
    let length = usize::from(*buffer.get(11)?);
    if buffer.len() < length + 15 {
        return None;
    }
    let frame: Vec<u8> = buffer.drain(..length + 15).collect();
    let is_whole = check(&frame[..length + 12]) == frame[length + 12] && frame.ends_with(b"\r\n");
    Some(Heard { command: frame[9], sealed: frame[12..length + 12].to_vec(), is_whole })
}

/// The lock's own frame.
pub(super) fn frame(scene: u8, command: u8, sealed: &[u8]) -> Vec<u8> {
    let length = u8::try_from(sealed.len()).unwrap_or(u8::MAX);
    let mut frame = vec![0x7F, 0x5A, 5, 3, scene, 0, 1, 0, 1, command, 0xAA, length];
    frame.extend(sealed);
    frame.push(check(&frame));
    frame.extend(b"\r\n");
    frame
}

/// Bit by bit, with the one entry that the firmware has wrong.
fn check(bytes: &[u8]) -> u8 {
    let mut crc = 0_u8;
    for byte in bytes {
        crc ^= byte;
        if crc == 0x21 {
            crc = 0x07;
            continue;
        }
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0x8C;
            }
        }
    }
    crc
}

/// AES-128-CBC by hand, block after block, with the key as the first vector.
pub(super) fn seal(key: &[u8; 16], clear: &[u8]) -> Vec<u8> {
    if clear.is_empty() {
        return Vec::new();
    }
    let cipher = Aes128::new(&(*key).into());
    let padding = 16 - clear.len() % 16;
    let mut padded = clear.to_vec();
    padded.resize(clear.len() + padding, u8::try_from(padding).unwrap_or(16));
    let mut before = *key;
    let mut sealed = Vec::new();
    for block in padded.chunks_exact(16) {
        let mut mixed: aes::Block = std::array::from_fn::<u8, 16, _>(|at| block[at] ^ before[at]).into();
        cipher.encrypt_block(&mut mixed);
        before = mixed.into();
        sealed.extend(before);
    }
    sealed
}

/// What [`seal`] sealed; none where the padding shows that it was another key.
pub(super) fn unseal(key: &[u8; 16], sealed: &[u8]) -> Option<Vec<u8>> {
    let cipher = Aes128::new(&(*key).into());
    let mut before = *key;
    let mut clear = Vec::new();
    for block in sealed.chunks(16) {
        let block: [u8; 16] = block.try_into().ok()?;
        let mut mixed: aes::Block = block.into();
        cipher.decrypt_block(&mut mixed);
        clear.extend(mixed.iter().zip(before).map(|(byte, before)| byte ^ before));
        before = block;
    }
    let Some(padding) = clear.last().map(|last| usize::from(*last)) else {
        return Some(clear);
    };
    let end = clear.len().checked_sub(padding)?;
    let is_padding =
        (1..=16).contains(&padding) && clear[end..].iter().all(|byte| usize::from(*byte) == padding);
    clear.truncate(end);
    is_padding.then_some(clear)
}
