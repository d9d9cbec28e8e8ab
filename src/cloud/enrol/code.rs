//! Pairing codes.

use std::fmt;

use crate::seams::Random;

/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 40 bits.
const LENGTH: usize = 8;

/// A pairing code; shows itself to nobody but [`Code::shown`].
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; LENGTH]);

impl Code {
    /// One that nobody can guess.
    #[must_use]
    pub fn fresh(random: &Random) -> Self {
        Self(random.bytes::<LENGTH>().map(|byte| ALPHABET[usize::from(byte & 31)]))
    }

    /// Reads what a person typed: in any case, with or without dashes and spaces, O for 0, I and L for 1.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let letters = text.bytes().filter(|byte| !matches!(byte, b'-' | b' '));
        let letters = letters.map(|byte| match byte.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        });
        let letters: Vec<u8> = letters.collect();
        let known = letters.iter().all(|letter| ALPHABET.contains(letter));
        letters.try_into().ok().filter(|_| known).map(Self)
    }

    /// As people read it: `ABCD-EFGH`.
    #[must_use]
    pub fn shown(&self) -> String {
        let plain = self.plain();
        format!("{}-{}", &plain[..LENGTH / 2], &plain[LENGTH / 2..])
    }

    /// As it is compared.
    #[must_use]
    pub fn plain(&self) -> String {
        self.0.iter().copied().map(char::from).collect()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_mistake_for_each_other_is_the_same_code() {
        let code = Code::read("A0B1-C1D0").unwrap();
        for typed in ["a0b1c1d0", "AOBI-CLDO", " aobl cido ", "A-0-B-1-C-1-D-0"] {
            assert_eq!(Code::read(typed), Some(code.clone()), "{typed}");
        }
        for other in ["A0B1-C1D", "A0B1-C1D00", "A0B1-C1DU", "", "ÄÖB1C1D0", &"-".repeat(65)] {
            assert_eq!(Code::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_fresh_code_reads_back_and_prints_nothing_by_itself() {
        let code = Code::fresh(&Random::seeded(1));
        assert_eq!(Code::read(&code.shown()), Some(code.clone()));
        assert_eq!(code.shown().len(), 9);
        assert_eq!(format!("{code:?}"), "Code");
    }
}
