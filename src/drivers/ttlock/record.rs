//! A lock's record as the vendor's cloud keeps it, for locks that stay in the vendor's app.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::codec::{Check, crc8};

/// What is wrong with a number in the vendor's text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is neither a number nor the vendor's text of one (base64 of decimal numbers with commas between them)"
)]
pub struct NoNumber;

/// Reads a number (`adminPwd`, `lockKey`) as the vendor's record has it: in digits, or, where it is longer than ten
/// characters, as base64 of decimal bytes that are masked with the last one.
///
/// # Errors
/// When it is neither.
pub fn number(text: &str) -> Result<u32, NoNumber> {
    if text.len() <= 10 {
        return text.parse().map_err(|_| NoNumber);
    }
    let list = BASE64_STANDARD.decode(text).map_err(|_| NoNumber)?;
    let list = std::str::from_utf8(&list).map_err(|_| NoNumber)?;
    let bytes: Vec<u8> = list.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| NoNumber)?;
    let (last, masked) = bytes.split_last().ok_or(NoNumber)?;
    // One step of the frames' check, misprint and all.
    let count = u8::try_from(masked.len()).map_err(|_| NoNumber)?;
    let mask = crc8(&[count], Check::Firmware) ^ last;
    let digits: String = masked.iter().map(|byte| char::from(byte ^ mask)).collect();
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(NoNumber);
    }
    digits.parse().map_err(|_| NoNumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "12a",
            "99999999999",
            "MTAz",
            "////////////",
            "MTAzLDEwMSw5OSw5NywxMTEsMTAyLDEwMCw5OCw5NiwxMTAsNDI=",
        ] {
            assert_eq!(number(text), Err(NoNumber), "{text}");
        }
        assert_eq!(number("344382141"), Ok(344_382_141));
    }
}
