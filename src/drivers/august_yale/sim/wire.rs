//! Values as the lock reads and writes them.

use aes::{
    Aes128,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};

/// Every value is so long.
pub(super) const WHOLE: usize = 18;

/// A block under a key, by itself.
pub(super) fn hide(key: &[u8; 16], block: [u8; 16]) -> [u8; 16] {
    let mut block = block.into();
    Aes128::new(&(*key).into()).encrypt_block(&mut block);
    block.into()
}

/// What a block hides.
pub(super) fn reveal(key: &[u8; 16], block: [u8; 16]) -> [u8; 16] {
    let mut block = block.into();
    Aes128::new(&(*key).into()).decrypt_block(&mut block);
    block.into()
}

/// The handshake's end: what the lock tells under `key`.
pub(super) fn secure_answer(key: &[u8; 16], op: u8, data: [u8; 8]) -> [u8; WHOLE] {
    let mut clear = [0; 16];
    clear[0] = op;
    clear[4..12].copy_from_slice(&data);
    let mut total: u64 = 0;
    for word in 0..3 {
        for place in 0..4 {
            total += u64::from(clear[word * 4 + place]) << (8 * place);
        }
    }
    let check = (1u64 << 34) - total;
    for place in 0..4 {
        clear[12 + place] = (check >> (8 * place)) as u8;
    }
    let mut value = [0; WHOLE];
    value[..16].copy_from_slice(&hide(key, clear));
    value
}

/// What is asked on the secure channel, if it is asked under `key`: a verb, 8 bytes and the two last.
pub(super) fn secure_request(key: &[u8; 16], value: &[u8; WHOLE]) -> Option<(u8, [u8; 8], [u8; 2])> {
    let mut block = [0; 16];
    block.copy_from_slice(&value[..16]);
    let clear = reveal(key, block);
    let mut carry: u64 = 0;
    for place in 0..4 {
        for word in 0..4 {
            carry += u64::from(clear[word * 4 + place]);
        }
        if carry & 0xff != 0 {
            return None;
        }
        carry >>= 8;
    }
    let mut data = [0; 8];
    data.copy_from_slice(&clear[4..12]);
    Some((clear[0], data, [value[16], value[17]]))
}

/// The two chains of a connection.
pub(super) struct Chains {
    key: [u8; 16],
    heard: [u8; 16],
    told: [u8; 16],
}

impl Chains {
    pub(super) fn begin(key: [u8; 16]) -> Self {
        Self { key, heard: [0; 16], told: [0; 16] }
    }

    /// The verb and its 12 bytes, if the value is a request.
    pub(super) fn request(&mut self, value: &[u8; WHOLE]) -> Option<(u8, [u8; 12])> {
        let mut block = [0; 16];
        block.copy_from_slice(&value[..16]);
        let mut clear = reveal(&self.key, block);
        for (clear, before) in clear.iter_mut().zip(self.heard) {
            *clear ^= before;
        }
        self.heard = block;
        let total: u32 = clear.iter().chain(&value[16..]).map(|byte| u32::from(*byte)).sum();
        let is_request = clear[0] == 0xee && clear[2] == 0 && value[16..] == [0x02, 0x00];
        if !is_request || !total.is_multiple_of(256) {
            return None;
        }
        let mut rest = [0; 12];
        rest.copy_from_slice(&clear[4..]);
        Some((clear[1], rest))
    }

    /// The next value that goes out.
    pub(super) fn answer(&mut self, begin: u8, verb: u8, rest: [u8; 12]) -> [u8; WHOLE] {
        let mut clear = [0; 16];
        (clear[0], clear[1]) = (begin, verb);
        clear[4..].copy_from_slice(&rest);
        let total: u32 = clear.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 2;
        clear[3] = ((256 - total % 256) % 256) as u8;
        for (clear, before) in clear.iter_mut().zip(self.told) {
            *clear ^= before;
        }
        self.told = hide(&self.key, clear);
        let mut value = [0; WHOLE];
        value[..16].copy_from_slice(&self.told);
        value[16] = 0x02;
        value
    }
}
